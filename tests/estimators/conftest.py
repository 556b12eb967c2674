"""Small models and small data, shared by the tests of the scikit-learn face."""

import numpy as np
import pytest
import torch

from skae import (
    PSD,
    RBM,
    AutoEncoder,
    ContractiveAutoEncoder,
    DenoisingAutoEncoder,
    SparseCoder,
)

AUTO_ENCODERS = [AutoEncoder, DenoisingAutoEncoder, ContractiveAutoEncoder]
SPARSE_CODERS = [SparseCoder, PSD]


def small_models(model_class):
    """A function that makes a small model of a class.

    Its attribute ``units`` is the name of the parameter that chooses the output units;
    ``is_auto_encoder`` tells whether the class has layers and corruption.
    """

    def make(**parameters):
        small = {"n_components": 3, "max_iter": 3, "batch_size": 16, "random_state": 0}
        return model_class(**{**small, **parameters})

    make.units = "visible" if model_class is RBM else "loss"
    make.is_auto_encoder = model_class in AUTO_ENCODERS
    return make


@pytest.fixture(params=[*AUTO_ENCODERS, RBM, *SPARSE_CODERS])
def make_model(request):
    """A function that makes a small model of each of the classes that are trained."""
    return small_models(request.param)


@pytest.fixture(params=[*AUTO_ENCODERS, RBM])
def make_unit_model(request):
    """The same for those whose output units may be binary."""
    return small_models(request.param)


@pytest.fixture(params=AUTO_ENCODERS)
def make_auto_encoder(request):
    """The same for what only auto-encoders have: losses by column, corruption, layers."""
    return small_models(request.param)


@pytest.fixture(params=[*AUTO_ENCODERS, RBM, PSD])
def make_gradient_model(request):
    """The same for those whose weights are random at first and follow a gradient."""
    return small_models(request.param)


@pytest.fixture
def make_rbm():
    """The same for what only restricted Boltzmann machines have."""
    return small_models(RBM)


@pytest.fixture(name="X")
def correlated_columns():
    """Forty rows of four correlated columns with different means and scales."""
    generator = np.random.default_rng(0)
    hidden = generator.normal(size=(40, 2))
    noise = generator.normal(size=(40, 4))
    return (hidden @ generator.normal(size=(2, 4)) + 0.3 * noise) * [1, 2, 5, 0.1] + [0, 3, -9, 1]


@pytest.fixture
def counts():
    """Forty rows of small counts, most of them zero: exact in every numeric dtype."""
    generator = np.random.default_rng(1)
    return generator.integers(0, 4, size=(40, 6)) * (generator.random((40, 6)) < 0.4)


@pytest.fixture(autouse=True)
def warn_every_time():
    """Let torch repeat warnings that it gives once per process: each test sees its own."""
    before = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    yield
    torch.set_warn_always(before)


class InterruptingLine:
    """Stands in for the progress line and presses Ctrl-C in one of the trainings."""

    training, count = 1, 0

    def __init__(self, name):
        InterruptingLine.count += 1
        self.number = InterruptingLine.count

    def __call__(self, epoch):
        if self.number == self.training and epoch.number == 2:
            raise KeyboardInterrupt
        return False

    def finish(self):
        pass


@pytest.fixture
def interrupt(monkeypatch):
    """A function that chooses the training, counted from 1, in which Ctrl-C is pressed."""

    def arrange(training):
        monkeypatch.setattr(InterruptingLine, "training", training)
        monkeypatch.setattr(InterruptingLine, "count", 0)
        monkeypatch.setattr("skae.estimators.face.fitting.ProgressLine", InterruptingLine)

    return arrange
