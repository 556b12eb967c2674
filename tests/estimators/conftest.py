"""Small data, and mishaps that can befall any training, for the tests of the face."""

import io
import re

import numpy as np
import pytest
import torch
from registry import CASES

from skae.engine.optimisation.optimizers import OPTIMIZERS, SGD


@pytest.fixture(name="X")
def correlated_columns():
    """Forty rows of four correlated columns with different means and scales."""
    return next(case for case in CASES if str(case) == "AutoEncoder").X.copy()


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


class FailingOutput(io.StringIO):
    """Standard output that raises an error at one of the lines that show progress."""

    def __init__(self, error, training, epoch):
        super().__init__()
        self.error, self.training, self.epoch, self.n_trainings = error, training, epoch, 0

    def write(self, text):
        shown = re.search(r"epoch (\d+)/", text)
        number = int(shown[1]) if shown else 0
        self.n_trainings += number == 1
        if number == self.epoch and self.n_trainings == self.training:
            raise self.error
        return super().write(text)


@pytest.fixture
def fail_in_training(monkeypatch):
    """A function that chooses an error, and the training and epoch, counted from 1, of it.

    It is raised where the progress line is shown, so only in what has ``verbose=True``.
    """

    def arrange(error, training=1, epoch=2):
        monkeypatch.setattr("sys.stdout", FailingOutput(error, training, epoch))

    return arrange


@pytest.fixture
def interrupt(fail_in_training):
    """A function that chooses the training, counted from 1, in which Ctrl-C is pressed."""
    return lambda training=1, epoch=2: fail_in_training(KeyboardInterrupt, training, epoch)


@pytest.fixture
def explode(monkeypatch):
    """A function that chooses a step, counted from 1, and a factor of all weights there.

    It makes a rule of the steps, for ``optimizer="exploding"``.
    """

    def arrange(number, factor):
        steps = []

        class Exploding(SGD):
            name = "exploding"

            def update_(self, theta, gradient, state, learning_rate):
                super().update_(theta, gradient, state, learning_rate)
                steps.append(learning_rate)
                if len(steps) == number:
                    theta.mul_(factor)

        monkeypatch.setitem(OPTIMIZERS, "exploding", Exploding)

    return arrange
