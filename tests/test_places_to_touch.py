"""A part that is new is one piece of code in one place: nothing else has to know of it.

Each test adds a part at run time, here and nowhere else, and uses it as a user would. (An energy
of one's own, which has more to it, is in ``tests/engine/boltzmann/test_own_energy.py``.)
"""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.utils._param_validation import InvalidParameterError

from skae import RBM, AutoEncoder, StackedAutoEncoder
from skae.engine.boltzmann import samplers
from skae.engine.networks import activations, corruptions, penalties, units
from skae.engine.optimisation import optimizers, schedules
from skae.engine.optimisation.models import Model
from skae.engine.optimisation.runs import Objective, gradient_by_autograd
from skae.estimators.face.parameters import estimator, parameter
from skae.estimators.face.transformer import Transformer, layer_weights
from skae.estimators.stacks import layers as stack_layers

SMALL = {"max_iter": 3, "random_state": 0}


@pytest.fixture(name="X")
def plane():
    """Forty rows of four columns that vary in two dimensions."""
    generator = np.random.default_rng(0)
    return generator.normal(size=(40, 2)) @ generator.normal(size=(2, 4)) + [0, 3, -9, 1]


@pytest.fixture(autouse=True)
def forget_toys():
    """Take what a test registers out again."""
    tables = [
        corruptions.CORRUPTIONS,
        penalties.SPARSITY_PENALTIES,
        penalties.CONTRACTIONS,
        units.UNITS,
        activations.ACTIVATIONS,
        optimizers.OPTIMIZERS,
        schedules.SCHEDULES,
        samplers.SAMPLERS,
        stack_layers.LAYERS,
    ]
    before = [dict(table) for table in tables]
    yield
    for table, names in zip(tables, before, strict=True):
        for name in table.keys() - names.keys():
            del table[name]


def assert_unknown(X, **parameters):
    with pytest.raises(InvalidParameterError, match="toy"):
        AutoEncoder(3, **parameters).fit(X)


# A penalty


class SquaredCode:
    """Mean of |h|^2: all that a penalty needs."""

    name = "toy"
    summary = "the mean squared code"

    def __init__(self, weight, target=0.0):
        self.weight = weight

    def value(self, theta, forward):
        return forward.mean(forward.code.square().sum(1))


def test_a_penalty_of_the_users_own(X):
    plain = AutoEncoder(3, **SMALL).fit(X)
    model = AutoEncoder(3, penalties=[SquaredCode(10.0)], **SMALL).fit(X)
    # It is part of the criterion, and its gradient pulls.
    assert model.loss_curve_[0] > plain.loss_curve_[0]
    assert np.square(model.transform(X)).sum() < np.square(plain.transform(X)).sum()
    # With other layers, other penalties, and in a copy.
    deep = AutoEncoder(3, hidden_layer_sizes=4, contraction=0.1, penalties=[SquaredCode(1.0)])
    assert_array_equal(
        clone(deep).set_params(**SMALL).fit(X).transform(X),
        deep.set_params(**SMALL).fit(X).transform(X),
    )


def test_a_penalty_with_a_name(X):
    assert_unknown(X, sparsity=10.0, sparsity_penalty="toy")
    penalties.sparsity_penalty(SquaredCode)
    named = AutoEncoder(3, sparsity=10.0, sparsity_penalty="toy", **SMALL).fit(X)
    own = AutoEncoder(3, penalties=[SquaredCode(10.0)], **SMALL).fit(X)
    # One class and one line: the name is legal, and means this.
    assert_array_equal(named.transform(X), own.transform(X))


# A corruption


class Swap:
    """The rows of a batch in another order: every component is wrong."""

    name = "toy"
    summary = "rows of the batch in another order"
    has_mask = False

    def __init__(self, level=1.0):
        self.level = level

    def __call__(self, x, generator):
        return x[torch.randperm(len(x), generator=generator)], None


def test_a_corruption(X):
    assert_unknown(X, corruption="toy")
    own = AutoEncoder(3, corruption=Swap(), **SMALL).fit(X)
    corruptions.corruption(Swap)
    named = AutoEncoder(3, corruption="toy", **SMALL).fit(X)
    assert_array_equal(named.transform(X), own.transform(X))
    # It corrupts, and it draws from the model's generator.
    assert (named.transform(X) != AutoEncoder(3, **SMALL).fit(X).transform(X)).any()
    assert_array_equal(named.fit(X).transform(X), own.transform(X))


# Units


class Poisson(units.Units):
    """Counts: -log P(x | r) = r - x log r + log x!, r = exp(a)."""

    name = "toy"
    summary = "counts"
    domain = (0.0, np.inf)
    is_discrete = True

    def mean(self, a):
        return torch.exp(a)

    def sample(self, a, generator):
        return torch.poisson(self.mean(a), generator)

    def negative_log_likelihood(self, a, x, weight=None):
        loss = torch.exp(a) - x * a + torch.lgamma(x + 1)
        return (loss if weight is None else loss * weight).sum(-1)

    def value_and_residual_(self, a, x, weight=None, scale=1.0):
        value = self.negative_log_likelihood(a, x, weight).sum()
        a.exp_().sub_(x)
        return value.mul_(scale), a if weight is None else a.mul_(weight)

    def jacobian_product(self, a, matrix):
        return self.mean(a).unsqueeze(-1) * matrix

    def bias_for_mean(self, mean):
        return torch.log(mean.clamp(min=1e-3))


def test_units(X):
    counts = np.random.default_rng(0).poisson(2.0, size=(40, 3)).astype(float)
    assert_unknown(counts, loss="toy")
    units.unit(Poisson)
    model = AutoEncoder(3, loss="toy", contraction=0.1, **SMALL).fit(counts)
    rates = model.reconstruct(counts)
    expected = rates - counts * np.log(rates)
    logs = torch.lgamma(torch.tensor(counts) + 1).numpy()
    # Reconstructions are their means, scores their likelihood, and their domain is checked.
    assert_allclose(model.score_samples(counts), -(expected + logs).sum(1))
    with pytest.raises(ValueError, match=r"loss='toy' needs values in \[0, inf\]"):
        model.fit(-counts)
    # Beside other units, in other columns.
    table = np.column_stack([counts, X])
    loss = [("toy", [0, 1, 2]), ("gaussian", [3, 4, 5, 6])]
    mixed = AutoEncoder(3, loss=loss, **SMALL).fit(table)
    assert np.isfinite(mixed.score(table))
    assert_allclose(mixed.columns_.shift[:3], 0)


# A rule of the steps, a schedule, a sampler


def test_a_rule_of_the_steps(X):
    class SignDescent:
        name = "toy"
        summary = "steps of equal length"
        slots = ()

        def __init__(self, momentum):
            pass

        def update_(self, theta, gradient, state, learning_rate):
            theta.sub_(gradient.sign(), alpha=learning_rate)

    assert_unknown(X, optimizer="toy")
    optimizers.optimizer(SignDescent)
    settings = {"optimizer": "toy", "learning_rate": 0.25, "batch_size": 100, "max_iter": 1}
    model = AutoEncoder(3, random_state=0, **settings).fit(X)
    start = AutoEncoder(3, random_state=0, **settings | {"learning_rate": 1e-300}).fit(X)
    # One step of a quarter in each parameter.
    steps = np.abs(model.weights_["weight_0"] - start.weights_["weight_0"])
    assert_allclose(steps, 0.25)


def test_a_schedule(X):
    assert_unknown(X, learning_rate_schedule="toy")

    @schedules.schedule
    def toy(progress):
        """No step at all."""
        return 0.0

    model = AutoEncoder(3, learning_rate_schedule="toy", **SMALL).fit(X)
    start = AutoEncoder(3, learning_rate=1e-300, **SMALL).fit(X)
    assert_array_equal(model.weights_["weight_0"], start.weights_["weight_0"])


def test_a_sampler(X):
    model = RBM(3, **SMALL).fit(X)
    settings = {"burn_in": 0, "init": X, "random_state": 0}
    with pytest.raises(ValueError, match="method='toy'"):
        model.sample(40, method="toy", **settings)

    def two_steps(machine, generator):
        """Two Gibbs steps at a time."""
        step = samplers.gibbs_step(machine, generator)
        return lambda state: step(step(state))

    own = model.sample(80, method=two_steps, n_steps=3, **settings)
    samplers.SAMPLERS.named("toy")(two_steps)
    named = model.sample(80, method="toy", n_steps=3, **settings)
    # As an object or by its name, it is what the chains step by.
    assert_array_equal(own, model.sample(80, method="gibbs", n_steps=6, **settings))
    assert_array_equal(named, own)


# A family


class LinearReconstruction(Objective):
    """1/2 |x - W^T W x|^2."""

    def __init__(self, model):
        self.model, self.state = model, {}

    def value(self, theta, x, generator, row_weight=None):
        output = self.model.reconstruct(theta, x)
        loss = self.model.units.negative_log_likelihood(output, x)
        return (loss if row_weight is None else loss * row_weight).mean()

    criterion = value

    def gradient(self, theta, x, generator, out, row_weight=None):
        return gradient_by_autograd(self.value, theta, x, generator, out, row_weight)


@estimator
class ToyPCA(Transformer):
    """Codes W z, reconstructions W^T W z."""

    n_components: int = parameter(default=2, constraints=[int], doc="Units.", kw_only=False)
    loss: str = parameter(default="gaussian", constraints=[str], doc="Units of the output.")

    components_ = layer_weights("weight_0", "ndarray of shape (n_components, n_features)", "W.")

    def _model(self, place):
        shift, scale = self.columns_.standardization(place)

        def start_(theta, rows, index, generator):
            theta.flat.normal_(0.0, 0.3, generator=generator)

        model = Model(
            shapes={"weight_0": (self.n_components, self.n_features_in_)},
            start_=start_,
            encode=lambda theta, x: x @ theta["weight_0"].t(),
            decode=lambda theta, code: code @ theta["weight_0"],
            units=self.columns_.units(place.device),
            n_features=self.n_features_in_,
            n_codes=self.n_components,
            objective=lambda: LinearReconstruction(model),
            shift=shift,
            scale=scale,
        )
        return model


def test_a_family(X):
    model = ToyPCA(max_iter=200, batch_size=10, learning_rate=0.02, random_state=0).fit(X)
    z = (X - X.mean(0)) / X.std(0)
    # Two linear units find the two dimensions in which the data vary.
    assert_allclose(model.transform(X), z @ model.components_.T, atol=1e-8)
    assert_allclose(model.reconstruct(X), X, atol=0.15)
    assert "n_components : int, default=2" in ToyPCA.__doc__
    assert "stopping_reason_" in ToyPCA.__doc__


def test_a_family_has_the_whole_contract(X):
    model = ToyPCA(**SMALL, early_stopping=True).fit(X)
    assert_array_equal(pickle.loads(pickle.dumps(model)).transform(X), model.transform(X))
    assert_array_equal(clone(model).fit(X).transform(X), model.transform(X))
    assert len(model.validation_curve_) == 3
    assert model.partial_fit(X).n_iter_ == 4
    names = model.set_output(transform="pandas").transform(X).columns
    assert list(names) == ["toypca0", "toypca1"]
    y = np.arange(40) % 2
    pipeline = make_pipeline(ToyPCA(**SMALL), LogisticRegression()).fit(X, y)
    assert pipeline.predict(X).shape == (40,)
    with pytest.raises(ValueError, match="NaN in row 0"):
        model.fit(X * np.nan)


@pytest.mark.parametrize("pretraining", ["unsupervised", "partly_supervised", "simultaneous"])
def test_a_family_is_a_layer(X, pretraining):
    stack = StackedAutoEncoder(
        layers=[ToyPCA(2, **SMALL), AutoEncoder(3, **SMALL), ToyPCA(1, **SMALL)],
        pretraining=pretraining,
        fine_tuning=True,
        **{**SMALL, "max_iter": 20},
    ).fit(X, np.arange(40) % 2)
    codes = X
    for layer in stack.layers_:
        codes = layer.transform(codes)
    # A layer needs nothing but a model, wherever it is and however it is trained.
    assert_allclose(stack.transform(X), codes, rtol=1e-9)
    assert stack.loss_curve_[-1] < stack.loss_curve_[0]
    # Its decoder has no weights of its own where the model says nothing of others.
    assert set(stack.layers_[0].weights_) == {"weight_0"}


def test_a_family_that_cannot_be_trained_through(X):
    class Rounded(ToyPCA):
        def _model(self, place):
            return replace(super()._model(place), no_gradient="its codes are rounded")

    layers = [AutoEncoder(3, **SMALL), Rounded(2, **SMALL)]
    StackedAutoEncoder(layers=layers).fit(X)
    with pytest.raises(ValueError, match=r"Layer 1 \(Rounded\) has no part.*rounded"):
        StackedAutoEncoder(layers=layers, fine_tuning=True).fit(X)


def test_a_family_with_a_name_is_a_kind_of_layer(X):
    stack_layers.LAYERS["toy"] = ToyPCA
    stack = StackedAutoEncoder((3, 2), layer="toy", **SMALL).fit(X)
    assert [type(layer) for layer in stack.layers_] == [ToyPCA, ToyPCA]
