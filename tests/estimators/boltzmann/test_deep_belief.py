"""The deep belief network: samples of a stack of machines, and a bound on its likelihood."""

import inspect
import itertools
import pickle

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from scipy.special import expit, logsumexp
from scipy.stats import chi2, norm
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.utils._param_validation import InvalidParameterError

from skae import RBM, AutoEncoder
from skae.estimators.boltzmann.deep_belief import DeepBeliefNetwork

KINDS = ["bernoulli", "gaussian", "learned"]
# Exact draws are taken for wrong ones once in 10^5 times.
LIMIT = 1e-5
QUICK = {"max_iter": 2, "random_state": 0, "device": "cpu"}


def binary_states(n):
    return np.array(list(itertools.product([0.0, 1.0], repeat=n)))


def prefit(layers, data, **parameters):
    settings = {"pretraining": "prefit", "random_state": 0, "device": "cpu", **parameters}
    return DeepBeliefNetwork(layers=layers, **settings).fit(data)


def tiny(kind, sizes=(4, 3, 3), spread=1.0):
    """A network with parameters drawn from N(0, spread^2), and data of its lowest layer."""
    rng = np.random.default_rng(0)
    data = (rng.random((60, sizes[0])) < 0.5).astype(float)
    if kind != "bernoulli":
        data = rng.normal(size=(60, sizes[0])) * 10.0 ** np.arange(sizes[0]) + 5
    variance = "learned" if kind == "learned" else "unit"
    layers, codes = [], data
    for size in sizes[1:]:
        layer = RBM(size, visible_variance=variance, **QUICK).fit(codes)
        layers.append(layer)
        codes = layer.transform(codes)
        layer.weights_ = {
            name: rng.normal(0, 0.4 if name == "log_variance" else spread, weight.shape)
            for name, weight in layer.weights_.items()
        }
    return prefit(layers, data), data


def parameters(layer):
    return [layer.weights_[name] for name in ("weight_0", "hidden_bias_0", "visible_bias_0")]


def log_downward(layer, x):
    """log P(x | h) in the units of the data, for all rows x and all states h."""
    weight, b, c = parameters(layer)
    a = c + binary_states(len(b)) @ weight
    if layer.columns_.parts[0][0] == "bernoulli":
        return x @ np.log(expit(a)).T + (1 - x) @ np.log(expit(-a)).T
    mean = a * layer.columns_.scale + layer.columns_.shift
    return norm.logpdf(x[:, None, :], mean, layer.visible_scale_).sum(2)


def log_upward(layer, x):
    """log Q(h | x) for all rows x and all states h."""
    on, h = layer.transform(x), binary_states(layer.n_components)
    return np.log(on) @ h.T + np.log(1 - on) @ (1 - h).T


def log_top(layer, x):
    return layer.score_samples(x, log_partition=layer.log_partition_function())


def log_likelihood(layers, x):
    """log P(x) by all states of all hidden layers."""
    if len(layers) == 1:
        return log_top(layers[0], x)
    above = log_likelihood(layers[1:], binary_states(layers[0].n_components))
    return logsumexp(log_downward(layers[0], x) + above, axis=1)


def exact_bound(layers, x):
    """Mean and variance over Q of log P(x, h) - log Q(h | x), by all states of all layers."""
    if len(layers) == 1:
        return log_top(layers[0], x), 0.0
    mean, variance = exact_bound(layers[1:], binary_states(layers[0].n_components))
    log_q = log_upward(layers[0], x)
    terms = log_downward(layers[0], x) - log_q + mean
    expectation = (np.exp(log_q) * terms).sum(1)
    return expectation, (np.exp(log_q) * (terms**2 + variance)).sum(1) - expectation**2


def p_value(rows, p):
    """Probability that exact draws fit the law p of all states no better than these rows do."""
    numbers = rows @ 2 ** np.arange(rows.shape[1])[::-1]
    counts, expected = np.bincount(numbers.astype(int), minlength=len(p)), p * len(rows)
    # The statistic has its law where every cell expects a few.
    assert expected.min() > 5
    return chi2.sf(((counts - expected) ** 2 / expected).sum(), len(p) - 1)


@pytest.fixture(scope="module")
def binary_digits():
    return (load_digits().data > 7).astype(float)


@pytest.fixture(scope="module")
def trained(binary_digits):
    """A network of two layers that has learned from the first 1400 digits."""
    settings = {"max_iter": 30, "random_state": 0, "device": "cpu"}
    return DeepBeliefNetwork((48, 16), **settings).fit(binary_digits[:1400])


# Training


def test_machines_are_trained_in_turn(binary_digits):
    network = DeepBeliefNetwork((12, 7), **QUICK).fit(binary_digits)
    codes = binary_digits
    for layer in network.layers_:
        by_hand = clone(layer).fit(codes)
        # Each is an RBM fitted on the codes of the one below, by its own fit.
        assert_array_equal(by_hand.components_, layer.components_)
        codes = by_hand.transform(codes)
    # And the codes of the whole are those of the last.
    assert_allclose(network.transform(binary_digits), codes, rtol=1e-6)
    assert [len(curve) for curve in network.layer_loss_curves_] == [2, 2]
    # The layers are different machines from different random numbers.
    assert len({layer.random_state for layer in network.layers_}) == 2


def test_parameters_reach_the_layers(binary_digits):
    network = DeepBeliefNetwork((12, 7), layer=RBM(learning_rate=0.01, persistent=True, **QUICK))
    network.set_params(layer__weight_decay=1e-3).fit(binary_digits)
    # A prototype is copied, with each layer's number of units.
    for layer, size in zip(network.layers_, (12, 7), strict=True):
        assert (layer.n_components, layer.learning_rate, layer.persistent) == (size, 0.01, True)
        assert layer.weight_decay == 1e-3


def test_constructor_has_no_parameter_without_effect():
    names = set(inspect.signature(DeepBeliefNetwork).parameters)
    # Nothing is fine-tuned or supervised, and steps are taken by the layers alone.
    assert names == {
        "layer_sizes", "layer", "layers", "pretraining", "code_layer", "batch_size", "max_iter",
        "warm_start", "device", "verbose", "random_state", "callbacks",
    }  # fmt: skip
    # What it may be passed is what it says.
    assert set(DeepBeliefNetwork().get_params(deep=False)) == names


def test_training_goes_on(binary_digits):
    network = DeepBeliefNetwork((12, 7), warm_start=True, **QUICK).fit(binary_digits)
    before = [layer.components_.copy() for layer in network.layers_]
    score = network.score(binary_digits)
    network.fit(binary_digits)
    # From the weights of the last fit: a few steps away, not anew.
    for old, layer in zip(before, network.layers_, strict=True):
        change = np.linalg.norm(layer.components_ - old)
        assert 0 < change < np.linalg.norm(layer.components_)
    after = network.score(binary_digits)
    # The score is that of the new weights, and of their log Z.
    assert after != score
    assert_allclose(
        after,
        network.score(binary_digits, log_partition=network.log_partition_function()),
        rtol=1e-12,
    )
    network.partial_fit(binary_digits)
    assert_allclose(
        network.score(binary_digits),
        network.score(binary_digits, log_partition=network.log_partition_function()),
        rtol=1e-12,
    )


# Samples


@pytest.mark.parametrize("sizes", [(4, 3), (4, 3, 3), (4, 3, 2, 4)])
def test_samples_have_the_law_of_the_network(sizes):
    network, _ = tiny("bernoulli", sizes, spread=0.7)
    law = np.exp(log_likelihood(network.layers_, binary_states(4)))
    # The oracle is a distribution.
    assert_allclose(law.sum(), 1)
    samples = network.sample(20_000, n_chains=20_000, burn_in=50)
    # One draw from each of many chains, whose top machine is small: its start is forgotten.
    assert p_value(samples, law) > LIMIT
    means = network.sample(20_000, n_chains=20_000, burn_in=50, return_means=True)
    # Means are no draws: their columns have the same mean, and less variance.
    assert not np.isin(means, [0, 1]).any()
    expected = law @ binary_states(4)
    assert (abs(means.mean(0) - expected) < 4.5 * means.std(0) / np.sqrt(20_000)).all()
    assert (means.var(0) < samples.var(0)).all()


def error_of_variance(samples):
    """The standard error of each column's variance: rare far components make it large."""
    variance = samples.var(0)
    fourth = ((samples - samples.mean(0)) ** 4).mean(0)
    return np.sqrt((fourth - variance**2) / len(samples))


@pytest.mark.parametrize("kind", KINDS[1:])
@pytest.mark.parametrize("sizes", [(2, 3), (2, 3, 3), (2, 3, 2, 4)])
def test_gaussian_samples_are_in_the_units_of_the_data(sizes, kind):
    network, _ = tiny(kind, sizes, spread=0.7)
    bottom, n = network.layers_[0], 12_000
    weight, b, c = parameters(bottom)
    states = binary_states(sizes[1])
    if len(sizes) > 2:
        log_p = log_likelihood(network.layers_[1:], states)
    else:
        # P(h) is exp(h.b) times the Gaussian integrals over the visible units.
        precision = np.exp(-bottom.weights_.get("log_variance", np.zeros(2)))
        log_p = states @ b + 0.5 * (((c + states @ weight) ** 2 - c**2) * precision).sum(1)
    p = np.exp(log_p - logsumexp(log_p))
    means = (c + states @ weight) * bottom.columns_.scale + bottom.columns_.shift
    mean = p @ means
    between, within = p @ (means - mean) ** 2, bottom.visible_scale_**2
    samples = network.sample(n, n_chains=n, burn_in=50)
    # Mean and variance of the mixture of Gaussians that the lowest layer is.
    assert (abs(samples.mean(0) - mean) < 4.5 * samples.std(0) / np.sqrt(n)).all()
    assert (abs(samples.var(0) - between - within) < 4.5 * error_of_variance(samples)).all()
    smooth = network.sample(n, n_chains=n, burn_in=50, return_means=True)
    # Without the noise of the visible units, what the hidden ones explain is left.
    assert (abs(smooth.mean(0) - mean) < 4.5 * smooth.std(0) / np.sqrt(n)).all()
    assert (abs(smooth.var(0) - between) < 4.5 * error_of_variance(smooth)).all()


def test_means_are_those_of_the_same_draws():
    network, _ = tiny("learned", (3, 4, 3))
    samples = network.sample(2000, n_chains=2000, burn_in=20)
    means = network.sample(2000, n_chains=2000, burn_in=20, return_means=True)
    residual = (samples - means) / network.layers_[0].visible_scale_
    # The same seed leads to the same hidden units, about whose means the draws are standard
    # normal, once divided by the units' widths.
    assert (abs(residual.mean(0)) < 4.5 / np.sqrt(2000)).all()
    assert (abs(residual.var(0) - 1) < 4.5 * np.sqrt(2 / 2000)).all()


def test_chains_start_at_the_codes_of_init():
    network, _ = tiny("bernoulli", (4, 3, 2))
    low, top = network.layers_
    # Three units that copy the first columns, and a machine on them that all but never moves
    # from all on or all off.
    low.weights_ = {
        "weight_0": 20 * np.eye(3, 4),
        "hidden_bias_0": np.full(3, -10.0),
        "visible_bias_0": np.full(4, -10.0),
    }
    top.weights_ = {
        "weight_0": np.full((2, 3), 20.0),
        "hidden_bias_0": np.full(2, -30.0),
        "visible_bias_0": np.full(3, -20.0),
    }
    init = np.array([[1.0, 1, 1, 0], [0, 0, 0, 0]])
    samples = network.sample(20, init=init, burn_in=10)
    # One chain for each row, in turn, and each still is where its row was.
    assert_array_equal(samples, np.tile(init, (10, 1)))
    tempered = network.sample(100, init=init[:1], n_steps=5, n_temperatures=10, burn_in=10)
    # Hot chains bring the cold one to the other mode.
    assert set(tempered[:, 0]) == {0, 1}


def test_sampling_is_reproducible(trained):
    settings = {"burn_in": 5, "n_chains": 4}
    first = trained.sample(10, **settings)
    # The estimator's own seed by default; another seed, other rows.
    assert_array_equal(first, trained.sample(10, **settings))
    assert_array_equal(first, trained.sample(10, random_state=0, **settings))
    assert (first != trained.sample(10, random_state=1, **settings)).any()


@pytest.mark.parametrize("sizes", [(6, 3), (6, 3, 2)])
def test_seeds_reach_the_chains(sizes):
    network, data = tiny("bernoulli", sizes)
    first, other = (network.sample(50, random_state=seed, burn_in=5) for seed in (1, 2))
    # Of one layer all draws are those of the top machine's chains.
    assert (first != other).any()
    unseeded = prefit(network.layers_, data, random_state=None)
    # Without any seed every call is new, although the layers have seeds of their own.
    assert (unseeded.sample(50, burn_in=5) != unseeded.sample(50, burn_in=5)).any()


def test_samples_resemble_the_data(trained, binary_digits):
    samples = trained.sample(3000, n_chains=300, burn_in=500)

    def covariance(rows):
        c = np.cov(rows.T)
        return c - np.diag(np.diag(c))

    target = covariance(binary_digits)
    rng = np.random.default_rng(0)
    independent = (rng.random(samples.shape) < binary_digits.mean(0)).astype(float)
    # Independent pixels have the means and none of the correlations; the network has both.
    error, none = (np.linalg.norm(covariance(x) - target) for x in (samples, independent))
    assert error < 0.6 * none
    assert abs(samples.mean(0) - binary_digits.mean(0)).max() < 0.15
    # Not a single pattern again and again.
    assert len(np.unique(samples, axis=0)) > 2000


# The bound


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", [(4, 3), (4, 3, 3), (4, 3, 2, 4)])
def test_scores_are_the_variational_bound(sizes, kind):
    network, data = tiny(kind, sizes)
    x = data[:12]
    n = 300
    scores, (exact, variance) = network.score_samples(x, n_draws=n), exact_bound(network.layers_, x)
    # The mean over draws is within its standard error of the expectation; a single layer has
    # none, but its likelihood. Densities are in the units of the data: with scales from 1 to 1000
    # the volume alone is 13.8 nats.
    assert (abs(scores - exact) < 4.5 * np.sqrt(variance / n) + 1e-9).all()
    # The bound is one.
    assert (exact <= log_likelihood(network.layers_, x) + 1e-9).all()
    assert_allclose(network.score(x, log_partition=None), network.score_samples(x).mean())


def test_bound_is_exact_for_a_machine_and_its_transpose():
    network, data = tiny("bernoulli", (4, 3, 4))
    low, top = network.layers_
    names = {
        "weight_0": low.weights_["weight_0"].T,
        "hidden_bias_0": low.weights_["visible_bias_0"],
        "visible_bias_0": low.weights_["hidden_bias_0"],
    }
    top.weights_ = {name: array.copy() for name, array in names.items()}
    # The second machine has the prior that the first one has of its hidden units: the network is
    # the first machine, Q its posterior, and the bound its log-likelihood, at every draw.
    assert_allclose(network.score_samples(data, n_draws=1), log_top(low, data), rtol=1e-9)


def test_densities_change_with_the_unit_of_a_column():
    network, data = tiny("learned", (4, 3, 3))
    scale = np.array([1, 1e3, 1, 1e-2])
    other, _ = tiny("learned", (4, 3, 3))
    columns = other.layers_[0].columns_
    other.layers_[0].columns_ = columns.replaced(
        shift=columns.shift * scale, scale=columns.scale * scale
    )
    # A density in metres is a thousandth of one in kilometres.
    assert_allclose(
        other.score_samples(scale * data),
        network.score_samples(data) - np.log(scale).sum(),
        rtol=1e-9,
    )


def test_log_partition_is_that_of_the_top_machine():
    network, data = tiny("gaussian", (4, 3, 3))
    top = network.layers_[-1]
    exact = network.log_partition_function()
    assert exact == top.log_partition_function()
    estimate = network.log_partition_function("ais", n_temperatures=500, random_state=3)
    # The estimate is one of the same number.
    assert abs(estimate.value - exact.value) < 4.5 * estimate.standard_error
    assert estimate == top.log_partition_function("ais", n_temperatures=500, random_state=3)
    # A larger log Z is a smaller likelihood, of every row; a number is as good as the tuple.
    assert_allclose(
        network.score_samples(data, log_partition=exact.value + 2),
        network.score_samples(data, log_partition=exact) - 2,
    )


def test_log_partition_is_computed_once(monkeypatch):
    network, data = tiny("bernoulli")
    calls = []
    original = RBM.log_partition_function
    monkeypatch.setattr(
        RBM,
        "log_partition_function",
        lambda self, *args, **kwargs: calls.append(1) or original(self, *args, **kwargs),
    )
    given = network.score_samples(data, log_partition=original(network.layers_[-1]))
    # Where it is given it is not needed.
    assert len(calls) == 0
    assert_array_equal(network.score_samples(data), given)
    network.score_samples(data[:3])
    pickle.loads(pickle.dumps(network)).score_samples(data)
    # Where it is not, once for all calls, and for copies.
    assert len(calls) == 1
    network.layers_[-1].weights_ = {k: 2 * w for k, w in network.layers_[-1].weights_.items()}
    network.score_samples(data)
    # New weights have a new one.
    assert len(calls) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_scores_do_not_depend_on_other_rows(kind):
    network, data = tiny(kind, (4, 6, 3))
    whole = network.score_samples(data)
    # The same at every call, whichever rows are beside, in whatever order and form.
    assert_array_equal(network.score_samples(data), whole)
    assert_allclose(network.score_samples(data[::-1])[::-1], whole, rtol=1e-10)
    assert_allclose(
        np.concatenate([network.score_samples(x[np.newaxis]) for x in data[:9]]),
        whole[:9],
        rtol=1e-10,
    )
    assert_allclose(network.score_samples(sparse.csr_array(data)), whole, rtol=1e-10)
    # Also across the blocks in which draws are made.
    many = np.tile(data, (40, 1))
    assert_allclose(network.score_samples(many), np.tile(whole, 40), rtol=1e-10)


def test_weights_of_the_score():
    network, data = tiny("bernoulli")
    weight = np.arange(60.0)
    # A weighted mean of the rows' bounds.
    assert_allclose(
        network.score(data, sample_weight=weight),
        np.average(network.score_samples(data), weights=weight),
    )


def test_a_network_learns_the_distribution(trained, binary_digits):
    held_out = binary_digits[1400:]
    p = binary_digits[:1400].mean(0).clip(1e-3, 1 - 1e-3)
    independent = held_out @ np.log(p) + (1 - held_out) @ np.log(1 - p)
    gain = trained.score_samples(held_out) - independent
    # Independent pixels explain the digits worse than the network, of which the bound even says
    # too little: by far more than the error of the mean over rows.
    assert gain.mean() > 10 * gain.std() / np.sqrt(len(gain))
    codes = trained.transform(held_out)
    # The codes are not collapsed: every unit is on for some digits and off for others.
    assert (np.ptp(codes, axis=0) > 0.5).mean() > 0.9


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_dtypes(kind, dtype):
    _, data = tiny(kind)
    data = data.astype(dtype)
    network = DeepBeliefNetwork((5, 3), **QUICK).fit(data)
    results = [
        network.transform(data),
        network.inverse_transform(network.transform(data)),
        network.score_samples(data),
        network.sample(3, burn_in=2),
        network.sample(3, burn_in=2, return_means=True),
        network.sample(3, burn_in=2, init=data),
        *network.weights_.values(),
    ]
    # float32 in, float32 out; float64 keeps its precision.
    assert {result.dtype for result in results} == {np.dtype(dtype)}


def test_single_precision_scores_alike():
    network, data = tiny("learned", (4, 6, 3))
    single = network.score_samples(data.astype(np.float32), n_draws=500)
    exact, variance = exact_bound(network.layers_, data)
    # Other draws, since they are made in the dtype, of the same law; and rounding.
    assert (abs(single - exact) < 4.5 * np.sqrt(variance / 500) + 1e-3).all()


def test_global_random_state_is_not_touched(trained, binary_digits):
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    trained.sample(3, burn_in=2)
    trained.score_samples(binary_digits[:5])
    # Draws come from generators of their own.
    assert torch.equal(torch.get_rng_state(), before[0])
    assert_array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002


def test_grid_search_by_the_bound(binary_digits):
    search = GridSearchCV(
        DeepBeliefNetwork((8, 4), **QUICK), {"max_iter": [1, 15]}, cv=2, error_score="raise"
    ).fit(binary_digits[:400])
    # Scores of different models are comparable, since each has its own log Z: the one that was
    # trained for longer is better.
    assert search.best_params_ == {"max_iter": 15}


def test_prefit_layers_survive_a_clone(binary_digits):
    layers = DeepBeliefNetwork((8, 4), **QUICK).fit(binary_digits).layers_
    network = prefit([FrozenEstimator(layer) for layer in layers], binary_digits)
    again = clone(network).fit(binary_digits)
    # Frozen estimators keep what they have learned, and are taken as they are.
    assert_array_equal(again.sample(3, burn_in=2), network.sample(3, burn_in=2))


# Errors


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([RBM(3), AutoEncoder(2)], "Layer 1 is AutoEncoder.*made of RBMs.*StackedAutoEncoder"),
        ([AutoEncoder(3), RBM(2)], "Layer 0 is AutoEncoder.*made of RBMs"),
        ([RBM(3), RBM(2, visible="gaussian")], "Layer 1 has gaussian.*visible='bernoulli'"),
    ],
)
def test_layers_are_machines_on_binary_units(layers, message):
    rng = np.random.default_rng(0)
    # Before any is trained, and with a remedy.
    with pytest.raises(ValueError, match=message):
        DeepBeliefNetwork(layers=layers).fit(rng.random((20, 4)))
    assert not any(hasattr(layer, "weights_") for layer in layers)


def test_fitted_layers_are_machines_on_binary_units():
    rng = np.random.default_rng(0)
    low = RBM(3, **QUICK).fit(rng.random((20, 4)))
    top = RBM(2, **QUICK).fit(rng.normal(size=(20, 3)))
    # "auto" became Gaussian by the data that the layer was fitted on.
    with pytest.raises(ValueError, match="Layer 1 has gaussian visible units"):
        prefit([low, top], rng.random((20, 4)))


@pytest.mark.parametrize(
    "parameters",
    [
        {"layer": "denoising"},
        {"pretraining": "supervised"},
        {"pretraining": None},
        {"pretraining": "simultaneous"},
    ],
)
def test_what_is_no_generative_training_is_refused(parameters, binary_digits):
    # A name that other stacks know is an error here, not something else than it says.
    with pytest.raises(InvalidParameterError, match=next(iter(parameters))):
        DeepBeliefNetwork((4, 3), **{**QUICK, **parameters}).fit(binary_digits)


def test_prototypes_are_machines(binary_digits):
    # A copy of an auto-encoder has no distribution.
    with pytest.raises(ValueError, match="Layer 0 is AutoEncoder"):
        DeepBeliefNetwork((4, 3), layer=AutoEncoder(max_iter=1)).fit(binary_digits)


@pytest.mark.parametrize("method", ["sample", "log_partition_function"])
def test_unfitted(method):
    # scikit-learn's own error, by which pipelines know.
    with pytest.raises(NotFittedError):
        getattr(DeepBeliefNetwork(), method)()


@pytest.mark.parametrize("method", ["score_samples", "score"])
def test_unfitted_scores(method):
    # The same for what takes data.
    with pytest.raises(NotFittedError):
        getattr(DeepBeliefNetwork(), method)(np.zeros((2, 3)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda n, X: n.score_samples(X, n_draws=0), "n_draws=0"),
        (lambda n, X: n.score_samples(X, n_draws=1.5), "n_draws=1.5"),
        (lambda n, X: n.score_samples(X, log_partition=np.nan), "log_partition=nan"),
        (lambda n, X: n.score_samples(X, log_partition="exact"), "log_partition='exact'"),
        (lambda n, X: n.score_samples(X[:, :3]), "3 features, but DeepBeliefNetwork"),
        (lambda n, X: n.score_samples(X + 2), r"values in \[0, 1\]"),
        (lambda n, X: n.score_samples(X * np.nan), "NaN"),
        (lambda n, X: n.sample(0), "n_samples=0"),
        (lambda n, X: n.sample(n_steps=0), "n_steps=0"),
        (lambda n, X: n.sample(burn_in=-1), "burn_in=-1"),
        (lambda n, X: n.sample(n_chains=0), "n_chains=0"),
        (lambda n, X: n.sample(init=X[:, :3]), "3 features, but DeepBeliefNetwork"),
        (lambda n, X: n.sample(init=X + 2), r"values in \[0, 1\]"),
        (lambda n, X: n.sample(random_state="x"), "random_state='x'"),
        (lambda n, X: n.log_partition_function("annealed"), "method='annealed'"),
    ],
)
def test_bad_arguments(call, message):
    network, data = tiny("bernoulli")
    # Named with their values, before any work is done.
    with pytest.raises(ValueError, match=message):
        call(network, data)
