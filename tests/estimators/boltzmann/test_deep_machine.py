"""The deep Boltzmann machine as an estimator: what it learns, says, draws and refuses."""

import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import logsumexp
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV

from skae import (
    RBM,
    BatchedGridSearchCV,
    CollapsedCodeWarning,
    DeepBoltzmannMachine,
    StackedClassifier,
)
from skae.engine.networks.penalties import CodeKL

QUICK = {"max_iter": 2, "n_gibbs_steps": 1, "random_state": 0, "device": "cpu"}


def states(n):
    return np.array(list(itertools.product([0.0, 1.0], repeat=n)))


def log_likelihood(model, X):
    """log P(x) of rows of zeros and ones, by all states of two hidden layers."""
    weights = model.weights_
    lower, upper = states(len(weights["hidden_bias_0"])), states(len(weights["hidden_bias_1"]))
    hidden = lower @ weights["hidden_bias_0"] + (upper @ weights["hidden_bias_1"])[:, None]
    hidden = hidden + upper @ weights["weight_1"] @ lower.T

    def unnormalized(x):
        below = (x @ weights["visible_bias_0"])[:, None] + x @ weights["weight_0"].T @ lower.T
        return logsumexp(below + logsumexp(hidden, axis=0), axis=1)

    return unnormalized(X) - logsumexp(unnormalized(states(X.shape[1])))


@pytest.fixture(scope="module")
def digits():
    return (load_digits().data > 7).astype(float)


@pytest.fixture(scope="module")
def trained(digits):
    settings = {"max_iter": 6, "n_gibbs_steps": 1, "learning_rate": 0.2, "mean_field_steps": 10}
    return DeepBoltzmannMachine((16, 12), **settings, random_state=0, device="cpu").fit(digits)


# Learning


# Six patterns make large weights, by which some chains hardly move.
@pytest.mark.filterwarnings("ignore:.*persistent chains never left")
def test_it_learns_bars_and_stripes():
    image = np.array(list(itertools.product([0.0, 1.0], repeat=2)))
    X = np.concatenate([np.repeat(image, 2, axis=1), np.tile(image, 2)])
    model = DeepBoltzmannMachine(
        (4, 4), pretraining=None, learning_rate=1.0, batch_size=40, max_iter=60,
        mean_field_steps=5, n_gibbs_steps=2, random_state=0, device="cpu",
    ).fit(np.tile(X, (50, 1)))  # fmt: skip
    _, counts = np.unique(X, axis=0, return_counts=True)
    p = counts / counts.sum()
    # Two of the six patterns are bars and stripes at once. Nobody is better than the entropy.
    entropy = -(p * np.log(p)).sum()
    likelihood = log_likelihood(model, X).mean()
    assert -entropy - 0.15 < likelihood <= -entropy + 1e-9
    # The score is below it, on every row.
    log_z = model.log_partition_function()
    assert log_z.method == "exact"
    gap = log_likelihood(model, X) - model.score_samples(X, log_partition=log_z)
    assert gap.min() > -1e-9


def test_score_keeps_its_log_partition(trained, digits):
    log_z = trained.log_partition_function()
    scores = trained.score_samples(digits[:20])
    # Without one given it is that of the model as it is.
    assert_allclose(scores, trained.score_samples(digits[:20], log_partition=log_z))
    assert_allclose(scores, -trained.free_energy(digits[:20]) - log_z.value)


def test_pretraining_is_what_training_begins_with(digits):
    first = RBM(learning_rate=0.1, max_iter=3, batch_size=50)
    model = DeepBoltzmannMachine((12, 7), pretraining=first, learning_rate=1e-12, **QUICK)
    model.fit(digits)
    # One machine for each layer, each by the RBM's parameters, and the RBM is left as it was.
    assert [len(curve) for curve in model.layer_loss_curves_] == [3, 3]
    assert not hasattr(first, "weights_")
    assert model.layer_loss_curves_[0][-1] < model.layer_loss_curves_[0][0]
    afresh = clone(model).set_params(pretraining=None).fit(digits)
    assert afresh.layer_loss_curves_ == []
    # It reconstructs rows before it has learned as a whole; random weights do not.
    errors = [np.square(m.reconstruct(digits) - digits).mean() for m in (model, afresh)]
    assert errors[0] < 0.95 * errors[1]


def test_a_fitted_machine_is_what_training_begins_with(digits):
    """Above it there are small weights, so what it had learned is still there, and improves."""
    known = RBM(12, learning_rate=0.1, max_iter=60, batch_size=50, random_state=0).fit(digits)
    frozen = FrozenEstimator(known)
    model = DeepBoltzmannMachine((12, 7), pretraining=frozen, learning_rate=1e-12, **QUICK)
    model.fit(digits)
    assert_allclose(model.components_, known.components_, atol=1e-6)
    assert 0 < np.abs(model.weights_["weight_1"]).max() < 0.2
    learned = clone(model).set_params(learning_rate=0.1, max_iter=60).fit(digits)
    # By exact sums over the 12 units.
    before, begun, after = (
        m.score(digits, log_partition=m.log_partition_function()) for m in (known, model, learned)
    )
    assert before - 0.05 < begun < before + 0.05
    assert after > before + 0.08


@pytest.mark.parametrize(
    ("machine", "message"),
    [
        (lambda X: RBM(12), "not fitted"),
        (lambda X: RBM(11, max_iter=1).fit(X), "11 units over 64 columns"),
        (lambda X: RBM(12, visible="gaussian", max_iter=1).fit(X), "other kinds"),
        (lambda X: PCA(12).fit(X), "is no RBM"),
    ],
)
def test_a_fitted_machine_has_to_be_its_lowest_part(digits, machine, message):
    frozen = FrozenEstimator(machine(digits))
    with pytest.raises(ValueError, match=message):
        DeepBoltzmannMachine((12, 7), pretraining=frozen, **QUICK).fit(digits)


def test_candidates_of_a_search_begin_at_their_own_machines(digits):
    model = DeepBoltzmannMachine(pretraining=RBM(max_iter=2), learning_rate=1e-9, **QUICK)
    grid = {"layer_sizes": [(6, 4), (6,), (6, 4, 3)]}
    # The lowest of several machines hears its columns twice, a single one does not, though sizes,
    # rows and seeds are alike: nothing is shared.
    found = [
        search(model, grid, cv=2, refit=False, scoring=reconstruction).fit(digits[:200])
        for search in (BatchedGridSearchCV, GridSearchCV)
    ]
    scores = [one.cv_results_["mean_test_score"] for one in found]
    assert_allclose(*scores, rtol=1e-6)


def reconstruction(model, X, y=None):
    """The negative error of reconstructions."""
    return -np.square(model.reconstruct(X) - X).mean()


def test_penalties_reach_all_layers(digits):
    settings = {**QUICK, "pretraining": None, "mean_field_steps": 5, "max_iter": 4}
    free, sparse, own = (
        DeepBoltzmannMachine((12, 7), **settings, **penalty).fit(digits)
        for penalty in ({}, {"sparsity": 3.0}, {"penalties": [CodeKL(3.0, 0.05)]})
    )
    for layer in (0, 1):
        means = [m.set_params(code_layer=layer).transform(digits).mean() for m in (free, sparse)]
        # Every hidden layer is drawn towards a twentieth.
        assert means[1] < 0.7 * means[0]
    assert_array_equal(sparse.weights_["weight_1"], own.weights_["weight_1"])
    decayed = DeepBoltzmannMachine((12, 7), weight_decay=0.2, **settings).fit(digits)
    for name in ("weight_0", "weight_1"):
        assert np.square(decayed.weights_[name]).sum() < 0.7 * np.square(free.weights_[name]).sum()


# Layers


def test_any_layer_is_the_code(trained, digits):
    model = clone(trained)
    vars(model).update({n: v for n, v in vars(trained).items() if n[-1] == "_"})
    widths = []
    for layer in (0, 1, -1):
        model.set_params(code_layer=layer)
        codes = model.transform(digits[:50])
        widths.append(codes.shape[1])
        assert model.inverse_transform(codes).shape == (50, 64)
        assert len(model.get_feature_names_out()) == codes.shape[1]
        # What the layer holds of a row says more of it than the mean of all rows does.
        error = np.square(model.reconstruct(digits) - digits).mean()
        assert error < 0.99 * digits.var(axis=0).mean()
    assert widths == [16, 12, 12]


def test_codes_are_the_mean_field(trained, digits):
    weights, x = trained.weights_, digits[:30]

    def sigmoid(a):
        return 1 / (1 + np.exp(-a))

    top = np.full((30, 12), 0.5)
    for _ in range(500):
        below = x @ weights["weight_0"].T + weights["hidden_bias_0"] + top @ weights["weight_1"]
        top = sigmoid(sigmoid(below) @ weights["weight_1"].T + weights["hidden_bias_1"])
    # Whatever the sweeps begin at, here they end at the same means.
    assert_allclose(trained.transform(x), top, atol=2e-3)


def test_it_is_a_layer_that_is_fine_tuned(trained, digits):
    y = load_digits().target
    classifier = StackedClassifier(
        layers=[trained], pretraining="prefit", output="linear", max_iter=3, random_state=0
    ).fit(digits[:600], y[:600])
    assert classifier.score(digits[600:], y[600:]) > 0.5
    tuned = classifier.stack_.layers_[0]
    # Gradients went through the mean field into both layers; the machine itself stays as it was.
    for name in ("weight_0", "weight_1"):
        assert (tuned.weights_[name] != trained.weights_[name]).any()
    frozen = StackedClassifier(
        layers=[trained], pretraining="prefit", output="linear", n_fine_tuned_layers=0
    ).fit(digits[:600], y[:600])
    assert_array_equal(frozen.stack_.layers_[0].weights_["weight_0"], trained.weights_["weight_0"])


# Draws


def test_samples_are_rows_of_the_data(trained, digits):
    samples = trained.sample(400, burn_in=50, n_chains=400)
    assert samples.shape == (400, 64)
    assert set(np.unique(samples)) == {0.0, 1.0}
    # Near the means of the columns after six epochs, and not all alike.
    assert abs(samples.mean(0) - digits.mean(0)).mean() < 0.1
    assert len(np.unique(samples, axis=0)) > 200
    assert_array_equal(samples, trained.sample(400, burn_in=50, n_chains=400))
    assert trained.gibbs(digits[:5], n_steps=3, random_state=0).shape == (5, 64)
    started = trained.sample(10, init=digits[:5], burn_in=1, n_temperatures=3)
    assert started.shape == (10, 64)


def test_numbers_come_back_in_their_units():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(300, 1))
    X = np.c_[5 + 100 * z, z + 0.1 * rng.normal(size=(300, 1)), rng.random((300, 1)) < 0.5]
    model = DeepBoltzmannMachine((6, 4), visible=[("gaussian", [0, 1]), ("bernoulli", [2])],
                                 **{**QUICK, "max_iter": 10}).fit(X)  # fmt: skip
    samples = model.sample(500, burn_in=20, n_chains=500)
    assert_allclose(samples[:, :2].mean(0), X[:, :2].mean(0), atol=60)
    assert_allclose(samples[:, 0].std(), 100, rtol=0.3)
    assert set(np.unique(samples[:, 2])) == {0.0, 1.0}
    # Densities are per unit of the data: ten times as wide, a tenth.
    wider = clone(model).fit(X * [10, 1, 1])
    log_z = [m.log_partition_function() for m in (model, wider)]
    scores = [
        m.score_samples(x, log_partition=z)
        for m, x, z in zip((model, wider), (X, X * [10, 1, 1]), log_z, strict=True)
    ]
    assert_allclose(scores[0] - scores[1], np.log(10), rtol=1e-6)


# Bad input


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"layer_sizes": ()}, r"layer_sizes=\(\) must be integers"),
        ({"layer_sizes": (4, 0)}, r"layer_sizes=\(4, 0\) must be integers"),
        ({"layer_sizes": (4, 2.5)}, "must be integers"),
        ({"code_layer": 2}, "code_layer=2, but there are 2 layers"),
        ({"pretraining": StackedClassifier()}, "pretraining=StackedClassifier.* is no RBM|must be"),
        ({"pretraining": RBM(learning_rate=-1.0)}, "learning_rate"),
        ({"visible": "multinomial"}, "sum to 1|one-hot"),
    ],
)
def test_what_cannot_be_trained_is_refused(digits, parameters, message):
    model = DeepBoltzmannMachine(**{"layer_sizes": (4, 3), **QUICK, **parameters})
    with pytest.raises(ValueError, match=message):
        model.fit(digits)
    assert not hasattr(model, "weights_")


def test_too_many_units_to_enumerate(digits):
    model = DeepBoltzmannMachine((30, 30), **QUICK).fit(digits[:100])
    with pytest.raises(ValueError, match=r"at most 20.*ais"):
        model.log_partition_function("exact")


def test_idle_codes_are_reported(digits):
    model = DeepBoltzmannMachine((12, 6), **{**QUICK, "pretraining": None, "weight_decay": 50.0})
    # Weights that are zero carry nothing.
    with pytest.warns(CollapsedCodeWarning, match="constant on the training rows"):
        model.set_params(learning_rate=0.02, max_iter=10).fit(digits)
