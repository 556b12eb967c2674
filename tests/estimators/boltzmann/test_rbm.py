"""The restricted Boltzmann machine: a distribution, its samples, its partition function."""

import copy
import itertools
import pickle
import re
import warnings

import joblib
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse, stats
from scipy.special import expit, logsumexp
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits, load_iris
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skae import RBM, CollapsedCodeWarning
from skae.engine.boltzmann.samplers import SAMPLERS
from skae.engine.networks.penalties import WeightDecay
from skae.engine.optimisation.optimizers import OPTIMIZERS, SGD
from skae.engine.optimisation.rows import DenseRows

KINDS = ["bernoulli", "gaussian", "learned"]
CD = {"persistent": False, "n_gibbs_steps": 1}
# Settings on which the numbers of this file rest, whatever the defaults are.
PLAIN = {
    "learning_rate": 0.01,
    "optimizer": "adam",
    "batch_size": 100,
    "n_iter_no_change": None,
    "visible_variance": "unit",
    "persistent": True,
    "centered": True,
    "random_state": 0,
    "device": "cpu",
}


def rbm(n_components, **parameters):
    return RBM(n_components, **{**PLAIN, **parameters})


def binary_states(n):
    return np.array(list(itertools.product([0.0, 1.0], repeat=n)))


def machine(kind, n_visible=4, n_hidden=3, spread=1.0, seed=0):
    """A fitted machine whose parameters are then drawn from N(0, spread^2), and its data."""
    rng = np.random.default_rng(seed)
    data = (rng.random((50, n_visible)) < 0.5).astype(float)
    if kind != "bernoulli":
        data = rng.normal(size=(50, n_visible)) * 10.0 ** np.arange(n_visible) + 5
    model = rbm(n_hidden, max_iter=1, **CD)
    if kind == "learned":
        model.set_params(visible_variance="learned")
    model.fit(data)
    model.weights_ = {
        name: rng.normal(0, 0.4 if name == "log_variance" else spread, weight.shape)
        for name, weight in model.weights_.items()
    }
    return model, data


def by_hand(model, X):
    """Standardised rows, their energies without hidden units, and the hidden units' input."""
    z = (np.asarray(X) - model.columns_.shift) / model.columns_.scale
    weight, c = model.weights_["weight_0"], model.weights_["visible_bias_0"]
    precision = np.exp(-model.weights_.get("log_variance", np.zeros(len(c))))
    if model.columns_.parts[0][0] == "bernoulli":
        alone = -z @ c
    else:
        alone = 0.5 * ((z - c) ** 2 * precision).sum(1)
    return z, alone, model.weights_["hidden_bias_0"] + (z * precision) @ weight.T


def free_energy_by_hand(model, X):
    """-log sum_h exp(-E(x, h)), one state of the hidden units after the other."""
    _, alone, a = by_hand(model, X)
    return alone - logsumexp(a @ binary_states(a.shape[1]).T, axis=1)


def set_weights(model, weight, hidden, visible):
    """Replace the parameters of a machine of one hidden unit or more."""
    model.weights_ = {
        "weight_0": np.array(weight, dtype=float),
        "hidden_bias_0": np.array(hidden, dtype=float),
        "visible_bias_0": np.array(visible, dtype=float),
    }
    return model


@pytest.fixture(scope="module")
def binary_digits():
    return (load_digits().data > 7).astype(float)


def caught_warnings(function, *args, **kwargs):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = function(*args, **kwargs)
    return result, [str(w.message) for w in caught]


# Codes and reconstructions


@pytest.mark.parametrize("kind", KINDS)
def test_attributes_are_what_the_codes_are_computed_with(kind):
    model, data = machine(kind)
    # One filter per row, and a bias for each unit of either layer.
    assert model.components_.shape == (3, 4)
    assert model.intercept_hidden_.shape == (3,)
    assert model.intercept_visible_.shape == (4,)
    precision = 1.0
    if kind != "bernoulli":
        precision = (model.columns_.scale / model.visible_scale_) ** 2
    z = (data - model.columns_.shift) / model.columns_.scale
    codes = expit((z * precision) @ model.components_.T + model.intercept_hidden_)
    # P(h = 1 | x) of the energy that the class documents.
    assert_allclose(model.transform(data), codes, rtol=1e-12)
    mean = codes @ model.components_ + model.intercept_visible_
    if kind == "bernoulli":
        mean = expit(mean)
    # The means of the visible units given the codes, in the units of the data.
    expected = mean * model.columns_.scale + model.columns_.shift
    assert_allclose(model.inverse_transform(codes), expected, rtol=1e-10)
    assert_allclose(model.reconstruct(data), expected, rtol=1e-10)


def test_columns_are_standardised_by_mean_and_deviation(X):
    model = rbm(16, max_iter=1).fit(X)
    # What the documentation says of "gaussian", and of "auto" outside of [0, 1].
    assert_allclose(model.columns_.shift, X.mean(axis=0))
    assert_allclose(model.columns_.scale, X.std(axis=0))
    # Unit variance is that of the column, in the units of the data.
    assert_allclose(model.visible_scale_, X.std(axis=0))


def test_units_are_chosen_by_the_data(X):
    for data, units in ((X, "gaussian"), (X > 0, "bernoulli"), (expit(X), "bernoulli")):
        model = rbm(16, max_iter=1).fit(data)
        # "auto" takes Bernoulli units where all data lie in [0, 1], and only there.
        assert [name for name, _ in model.columns_.parts] == [units]


def test_binary_units_have_no_scale():
    model, _ = machine("bernoulli")
    # hasattr says which attributes a model has.
    assert not hasattr(model, "visible_scale_")
    assert hasattr(machine("gaussian")[0], "visible_scale_")


def test_learned_variances():
    rng = np.random.default_rng(0)
    peaks = (rng.random(500) < 0.5) + 0.05 * rng.normal(size=500)
    data = np.column_stack([peaks, rng.normal(size=500)])
    settings = {**CD, "visible_variance": "learned", "minimum_variance": 0.1, "max_iter": 150}
    model = rbm(4, **settings, learning_rate=0.02).fit(data)
    # The first column is two narrow peaks, the second one is noise: only there the width that
    # remains, once the hidden units are known, is that of the column.
    assert model.visible_scale_[0] < 0.5 * data[:, 0].std()
    assert model.visible_scale_[1] > 0.8 * data[:, 1].std()


# A single bit needs one of the four units; peaks of hardly any width are hard to hold.
@pytest.mark.filterwarnings("ignore::skae.CollapsedCodeWarning")
@pytest.mark.filterwarnings("ignore:RBM lost more than half")
@pytest.mark.parametrize(("minimum_variance", "max_iter"), [(0.05, 100), (1.0, 30)])
def test_learned_variances_have_a_lower_bound(minimum_variance, max_iter):
    rng = np.random.default_rng(0)
    data = 1000 * ((rng.random((500, 1)) < 0.5) + 0.01 * rng.normal(size=(500, 1)))
    settings = {**CD, "visible_variance": "learned", "max_iter": max_iter, "learning_rate": 0.03}
    model = rbm(4, minimum_variance=minimum_variance, **settings).fit(data)
    fraction = model.visible_scale_**2 / data.var(axis=0)
    # Peaks of no width ask for the least that is allowed, a fraction of the column's variance.
    assert (fraction >= minimum_variance * (1 - 1e-9)).all()
    assert (fraction < 1.2 * minimum_variance).all()


def test_variances_are_learned_of_standardised_columns_too():
    data = np.array([[1.0, -1.0], [-1.0, 1.0]] * 20)
    model = rbm(16, visible="gaussian", visible_variance="learned", max_iter=2).fit(data)
    # Data that have mean 0 and variance 1 as they come are Gaussian all the same.
    assert "log_variance" in model.weights_


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_dtypes(kind, dtype):
    _, data = machine(kind)
    data = data.astype(dtype)
    variance = "learned" if kind == "learned" else "unit"
    model = rbm(16, visible_variance=variance, max_iter=2).fit(data)
    results = [
        model.transform(data),
        model.reconstruct(data),
        model.free_energy(data),
        model.score_samples(data),
        model.sample(3, burn_in=2),
        model.gibbs(data, random_state=0),
        *model.weights_.values(),
    ]
    # float32 in, float32 out; float64 keeps its precision.
    assert {result.dtype for result in results} == {np.dtype(dtype)}


@pytest.mark.parametrize("persistent", [False, True])
def test_precision_changes_rounding_only(binary_digits, persistent):
    settings = {"max_iter": 5, "persistent": persistent}
    rows = binary_digits[::6]
    double = rbm(16, **settings).fit(binary_digits)
    single = rbm(16, **settings).fit(binary_digits.astype(np.float32))
    # Other draws, since they are made in the dtype; the same law, so that the models agree.
    assert abs(double.score(rows) - single.score(rows)) < 0.3
    # The same parameters in another precision are the same model.
    copied = copy.deepcopy(double)
    copied.weights_ = {name: w.astype(np.float32) for name, w in double.weights_.items()}
    assert_allclose(
        copied.score_samples(rows.astype(np.float32)),
        double.score_samples(rows),
        rtol=1e-4,
    )


def test_a_raw_table_needs_no_scaler():
    data = load_breast_cancer().data
    scaled = StandardScaler().fit_transform(data)
    settings = {"max_iter": 2, "visible": "gaussian", "n_scored_columns": 3}
    model = rbm(16, **settings)
    codes, score = model.fit(data).transform(data), model.score(data)
    # Gaussian units standardise by themselves: the machine sees the same numbers.
    assert_allclose(codes, model.fit(scaled).transform(scaled), rtol=1e-6, atol=1e-8)
    # The densities differ by the change of units alone.
    constant = np.log(data.std(axis=0)).sum()
    assert_allclose(score, model.score(scaled) - constant, rtol=1e-6)


@pytest.mark.parametrize("variance", ["unit", "learned"])
def test_reconstructions_and_samples_are_in_the_units_of_the_data(variance):
    data = load_breast_cancer().data
    settings = {"optimizer": "sgd", "momentum": 0.5, "learning_rate": 0.02, "max_iter": 60}
    settings |= {"learning_rate_schedule": "linear"}  # so that the chains catch up
    model = rbm(50, visible_variance=variance, persistent=True, centered=True, **settings)
    model.fit(data)
    error = ((model.reconstruct(data) - data) ** 2).mean(axis=0)
    # Better than the mean in every column, from areas of thousands to smoothnesses of 0.1.
    assert (error < data.var(axis=0)).all()
    samples = model.sample(400, n_chains=400, burn_in=200)
    # A wrong unit would show as a factor of a thousand; the law itself is about right.
    assert (abs(samples.mean(axis=0) - data.mean(axis=0)) < 0.7 * data.std(axis=0)).all()
    ratio = samples.std(axis=0) / data.std(axis=0)
    assert (ratio > 0.5).all()
    assert (ratio < 2).all()
    # One step from the data stays near the data.
    moved = model.gibbs(data)
    assert (abs(moved.mean(axis=0) - data.mean(axis=0)) < 0.3 * data.std(axis=0)).all()


# Free energy and scores


@pytest.mark.parametrize("kind", KINDS)
def test_free_energy(kind):
    model, data = machine(kind, n_hidden=5)
    # Summed over all 32 states of the hidden units.
    assert_allclose(model.free_energy(data), free_energy_by_hand(model, data), rtol=1e-10)


def pseudo_likelihood_by_hand(model, X):
    """log P(x_i | all others) of each row and column, in the units of the data."""
    X = np.asarray(X, dtype=float)
    result = np.empty(X.shape)
    for i in range(X.shape[1]):
        if model.columns_.parts[0][0] == "bernoulli":
            values, log_step = np.array([0.0, 1.0]), 0.0
        else:
            # A fine grid, far beyond the outermost component of the mixture.
            reach = 12 + abs(model.components_[:, i]).sum() + abs(model.intercept_visible_[i])
            grid = np.linspace(-reach, reach, 8001)
            values = grid * model.columns_.scale[i] + model.columns_.shift[i]
            log_step = np.log(values[1] - values[0])
        for row, x in enumerate(X):
            others = np.repeat(x[np.newaxis], len(values), axis=0)
            others[:, i] = values
            terms = -free_energy_by_hand(model, others)
            log_total = logsumexp(terms) + log_step
            if log_step:
                result[row, i] = -free_energy_by_hand(model, x[np.newaxis])[0] - log_total
            else:
                result[row, i] = (1 - x[i]) * terms[0] + x[i] * terms[1] - log_total
    return result


@pytest.mark.parametrize("kind", KINDS)
def test_pseudo_likelihood(kind):
    model, data = machine(kind)
    data = data[:6]
    expected = pseudo_likelihood_by_hand(model, data)
    # All columns by enumeration or quadrature, one row and one column after the other.
    for n_scored_columns in (None, 4, 100):
        model.set_params(n_scored_columns=n_scored_columns)
        assert_allclose(model.score_samples(data), expected.sum(axis=1), rtol=1e-8)
    assert_allclose(model.score(data), expected.sum(axis=1).mean(), rtol=1e-8)
    weight = np.arange(6.0)
    assert_allclose(
        model.score(data, sample_weight=weight),
        np.average(expected.sum(axis=1), weights=weight),
        rtol=1e-8,
    )


def test_pseudo_likelihood_of_probabilities():
    model, _ = machine("bernoulli")
    data = np.random.default_rng(0).random((6, 4))
    # What is between 0 and 1 counts as a probability: a mean of the two logarithms.
    assert_allclose(
        model.score_samples(data), pseudo_likelihood_by_hand(model, data).sum(axis=1), rtol=1e-10
    )


def scored_columns(model, n_features):
    """Which columns a model's score sees, by the effect of each on a machine without weights."""
    zero, score = np.zeros((1, n_features)), []
    set_weights(model, np.zeros((2, n_features)), np.zeros(2), np.ones(n_features))
    base = model.score_samples(zero)[0]
    for i in range(n_features):
        score.append(model.score_samples(np.eye(n_features)[[i]])[0])
    return tuple(np.flatnonzero(np.array(score) != base))


def test_scored_columns_are_always_the_same():
    rng = np.random.default_rng(0)
    subsets = set()
    for seed in range(4):
        data = (rng.random((30, 20)) < rng.random()).astype(float)
        model = rbm(2, max_iter=1, n_scored_columns=6, random_state=seed, **CD)
        subsets.add(scored_columns(model.fit(data), 20))
    # Drawn once for each number of features, so that the scores of models compare.
    assert len(subsets) == 1
    assert len(subsets.pop()) == 6


@pytest.mark.parametrize("kind", KINDS)
def test_scores_of_a_subset_of_columns(kind):
    model, data = machine(kind, n_visible=5)
    columns = pseudo_likelihood_by_hand(model, data[:4])
    score = model.set_params(n_scored_columns=2).score_samples(data)
    volume = np.log(model.columns_.scale)
    # Two of the five terms, for standardised columns, times 5/2, then in the units of the data.
    candidates = [
        2.5 * (columns + volume)[:, list(pair)].sum(axis=1) - volume.sum()
        for pair in itertools.combinations(range(5), 2)
    ]
    assert min(abs(candidate - score[:4]).max() for candidate in candidates) < 1e-6
    # The same at every call, ...
    assert_array_equal(model.score_samples(data), score)
    # ... whichever rows are beside, and in whatever order.
    assert_allclose(model.score_samples(data[::-1])[::-1], score, rtol=1e-12)
    for row in (0, 17, 49):
        assert_allclose(model.score_samples(data[[row]]), score[[row]], rtol=1e-12)


def test_subset_of_columns_estimates_the_whole(binary_digits):
    model = rbm(16, max_iter=5).fit(binary_digits)
    exact = model.set_params(n_scored_columns=None).score(binary_digits)
    part = model.set_params(n_scored_columns=40).score(binary_digits)
    # Scaled up to all columns; without that it would be 40/64 of it.
    assert abs(part / exact - 1) < 0.2


@pytest.mark.parametrize("n_hidden", [3, 12])
def test_likelihood_is_a_distribution(n_hidden):
    model, _ = machine("bernoulli", n_visible=8, n_hidden=n_hidden)
    log_partition = model.log_partition_function().value
    every = binary_states(8)
    log_likelihood = model.score_samples(every, log_partition=log_partition)
    # Over all 256 rows the probabilities sum to 1.
    assert_allclose(np.exp(log_likelihood).sum(), 1, rtol=1e-10)
    assert_allclose(
        model.score(every, log_partition=log_partition), log_likelihood.mean(), rtol=1e-12
    )
    # And they are those of the energy.
    free = free_energy_by_hand(model, every)
    assert_allclose(log_likelihood, -free - logsumexp(-free), rtol=1e-8)


def grid_of(model, n_points, reach):
    """Points of a fine grid over the data's space, and the volume of one cell."""
    shift, scale = model.columns_.shift, model.columns_.scale
    axes = [np.linspace(a - reach * s, a + reach * s, n_points) for a, s in zip(shift, scale)]  # noqa: B905
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))
    return points, np.prod([axis[1] - axis[0] for axis in axes])


@pytest.mark.parametrize("variance", ["unit", "learned"])
@pytest.mark.parametrize("n_columns", [1, 2])
def test_density_integrates_to_one_over_the_data(n_columns, variance):
    data = load_breast_cancer().data[:, 3 : 3 + n_columns]
    settings = {**CD, "max_iter": 5}
    model = rbm(4, visible_variance=variance, **settings).fit(data)
    points, volume = grid_of(model, 400, 12)
    log_partition = model.log_partition_function().value
    density = np.exp(model.score_samples(points, log_partition=log_partition))
    # Areas in their own square units, not standardised ones.
    assert_allclose(density.sum() * volume, 1, rtol=1e-6)


def test_densities_change_with_the_unit_of_a_column(X):
    settings = {**CD, "max_iter": 3, "n_scored_columns": None}
    model = rbm(4, **settings).fit(X)
    scale = np.array([1, 1e3, 1, 1e-2])
    other = rbm(4, **settings).fit(scale * X)
    change = np.log(scale).sum()
    # A density in metres is a thousandth of one in kilometres.
    assert_allclose(other.score_samples(scale * X), model.score_samples(X) - change, rtol=1e-6)
    log_z, other_log_z = (m.log_partition_function().value for m in (model, other))
    # The same holds for the likelihood, by way of log Z ...
    assert_allclose(other_log_z - log_z, change, rtol=1e-6)
    # ... since free energies are those of standardised columns.
    assert_allclose(other.free_energy(scale * X), model.free_energy(X), rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_sparse_rows_are_dense_rows(kind):
    model, data = machine(kind)
    data[::2] = data[::2] * (np.arange(4) == 1)
    for convert in (sparse.csr_array, sparse.csc_matrix):
        # Every method reads the numbers, however they are stored.
        for method in (model.transform, model.free_energy, model.score_samples):
            assert_allclose(method(convert(data)), method(data), rtol=1e-12)
        steps = [model.gibbs(rows, random_state=0) for rows in (convert(data), data)]
        assert_allclose(*steps, rtol=1e-12)
        assert_allclose(
            model.sample(30, init=convert(data), burn_in=3),
            model.sample(30, init=data, burn_in=3),
            rtol=1e-12,
        )


# Partition functions


@pytest.mark.parametrize("sizes", [(10, 10), (9, 4), (4, 9), (1, 1)])
def test_exact_partition_function(sizes):
    model, _ = machine("bernoulli", *sizes, spread=0.7)
    _, alone, a = by_hand(model, binary_states(sizes[0]))
    # All states of both layers.
    expected = logsumexp(a @ binary_states(sizes[1]).T - alone[:, np.newaxis])
    result = model.log_partition_function()
    assert_allclose(result.value, expected, rtol=1e-12)
    assert result.standard_error == 0
    assert result.method == "exact"
    assert model.log_partition_function("exact") == result


@pytest.mark.parametrize("kind", ["gaussian", "learned"])
def test_exact_partition_function_of_gaussian_units(kind):
    model, _ = machine(kind, n_visible=2, n_hidden=5)
    points, volume = grid_of(model, 300, 25)
    # The integral of exp(-F) over the data's space, by quadrature.
    expected = logsumexp(-free_energy_by_hand(model, points)) + np.log(volume)
    assert_allclose(model.log_partition_function("exact").value, expected, rtol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_annealed_partition_function(kind):
    model, _ = machine(kind, n_visible=6, n_hidden=5, spread=0.8)
    exact = model.log_partition_function().value
    estimate = model.log_partition_function("ais", n_temperatures=600, n_chains=200)
    assert estimate.method == "ais"
    # The error that is reported is one that can be relied on, and it is small.
    assert 0 < estimate.standard_error < 0.1
    assert abs(estimate.value - exact) < 4 * estimate.standard_error
    # A seed fixes the estimate; another one gives another.
    settings = {"n_temperatures": 50, "n_chains": 20}
    first = model.log_partition_function("ais", random_state=1, **settings)
    assert model.log_partition_function("ais", random_state=1, **settings) == first
    assert model.log_partition_function("ais", random_state=2, **settings) != first
    assert model.log_partition_function("ais", **settings) == model.log_partition_function(
        "ais", random_state=0, **settings
    )


def test_annealing_after_training(binary_digits):
    model = rbm(10, max_iter=20).fit(binary_digits)
    exact = model.log_partition_function().value
    estimate = model.log_partition_function("ais", n_temperatures=800)
    # A machine that has learned is as good a case as random parameters.
    assert abs(estimate.value - exact) < 4 * estimate.standard_error
    assert estimate.standard_error < 0.2


def test_large_machines_are_annealed():
    model, _ = machine("bernoulli", n_visible=21, n_hidden=21, spread=0.1)
    # 2^21 states are too many for an exact sum, which says so and names the way out.
    with pytest.raises(ValueError, match=r"smaller layer.*n=21.*at most 20.*method='ais'"):
        model.log_partition_function("exact")
    assert model.log_partition_function(n_temperatures=20).method == "ais"
    wide, _ = machine("gaussian", n_visible=2, n_hidden=21, spread=0.1)
    # Gaussian units cannot be enumerated, however few they are.
    with pytest.raises(ValueError, match=r"hidden layer.*n=21.*at most 20"):
        wide.log_partition_function("exact")


def test_few_temperatures_are_reported():
    model, _ = machine("bernoulli", n_visible=15, n_hidden=15, spread=4)
    with pytest.warns(
        ConvergenceWarning, match=r"of 50 chains.*n_temperatures \(now 4\)"
    ) as caught:
        model.log_partition_function("ais", n_temperatures=4, n_chains=50)
    # The user's line, not one of the library's.
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    ("parameters", "match"),
    [
        ({"method": "enumerate"}, "method='enumerate'.*'auto', 'exact', 'ais'"),
        ({"method": None}, "method=None"),
        ({"n_chains": 1}, "n_chains=1 .*at least 2"),
        ({"n_chains": 10.0}, "n_chains=10.0 .*integer"),
        ({"n_temperatures": 3}, "n_temperatures=3 .*at least 4"),
        ({"n_temperatures": True}, "n_temperatures=True"),
    ],
    ids=str,
)
def test_arguments_of_the_partition_function(parameters, match):
    model, _ = machine("bernoulli")
    with pytest.raises(ValueError, match=match):
        model.log_partition_function(**parameters)


# Samples


def frequencies(samples):
    """How often each binary state occurs, in the order of `binary_states`."""
    n = samples.shape[1]
    number = samples.astype(int) @ (2 ** np.arange(n)[::-1])
    return np.bincount(number, minlength=2**n)


def p_value(counts, probability):
    """Of a chi-square test; rare states are one."""
    expected = probability * counts.sum()
    rare = expected < 5
    observed = np.append(counts[~rare], counts[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    keep = expected > 0
    if counts[probability == 0].any():
        return 0.0
    return stats.chisquare(observed[keep], expected[keep]).pvalue


def law_of(model, n_visible):
    """Probabilities of all binary rows, by enumeration."""
    free = free_energy_by_hand(model, binary_states(n_visible))
    return np.exp(-free - logsumexp(-free))


@pytest.mark.parametrize("n_temperatures", [1, 5])
def test_law_of_the_samples(n_temperatures):
    model, _ = machine("bernoulli", n_visible=6, n_hidden=4)
    samples = model.sample(
        10_000, n_chains=10_000, burn_in=60, n_temperatures=n_temperatures, random_state=1
    )
    law = law_of(model, 6)
    # Independent chains: the counts of the 64 states are multinomial.
    assert p_value(frequencies(samples), law) > 1e-3
    model.weights_["visible_bias_0"][0] += 0.2
    # The test is fine enough to see one bias that is wrong by 0.2.
    assert p_value(frequencies(samples), law_of(model, 6)) < 1e-6


def test_samples_along_a_chain_have_the_same_law():
    model, _ = machine("bernoulli", n_visible=4, n_hidden=3)
    samples = model.sample(20_000, n_chains=1000, n_steps=40, burn_in=60, random_state=1)
    # Forty steps apart they are as good as independent.
    assert p_value(frequencies(samples), law_of(model, 4)) > 1e-3


@pytest.mark.parametrize(("kind", "n_temperatures"), [("gaussian", 1), ("learned", 4)])
def test_moments_of_gaussian_samples(kind, n_temperatures):
    model, _ = machine(kind, n_visible=3, n_hidden=3, spread=0.7)
    n = 5000
    samples = model.sample(n, n_chains=n, burn_in=50, n_temperatures=n_temperatures)
    z = (samples - model.columns_.shift) / model.columns_.scale
    # A mixture of Gaussians, one for each state of the hidden units.
    variance = np.exp(model.weights_.get("log_variance", np.zeros(3)))
    states = binary_states(3)
    u, c = states @ model.components_, model.intercept_visible_
    log_weight = states @ model.intercept_hidden_ + ((0.5 * u**2 + u * c) / variance).sum(axis=1)
    weight = np.exp(log_weight - logsumexp(log_weight))
    mean = weight @ (u + c)
    deviation = u + c - mean
    covariance = (deviation * weight[:, np.newaxis]).T @ deviation + np.diag(variance)
    error = np.sqrt(np.diag(covariance) / n)
    # Within the sampling error of independent chains.
    assert (abs(z.mean(axis=0) - mean) < 4 * error).all()
    bound = 6 * np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)) / n)
    assert (abs(np.cov(z.T) - covariance) < bound).all()


def two_modes(n_visible=6):
    """A machine whose states are all zeros and all ones, with equal probability."""
    model, _ = machine("bernoulli", n_visible, 1)
    weight = np.full((1, n_visible), 20.0)
    return set_weights(model, weight, [-10.0 * n_visible], np.full(n_visible, -10.0))


def test_tempering_visits_all_modes():
    model = two_modes()
    start = np.repeat([[0.0], [1.0]], 25, axis=0).repeat(6, axis=1)
    with pytest.warns(ConvergenceWarning, match="never left"):
        stuck = model.sample(50, init=start, burn_in=200)
    # Sixty nats lie between the modes: plain steps stay where they start.
    assert_array_equal(stuck, start)
    tempered = model.sample(50, init=start, burn_in=200, n_temperatures=10)
    # Chains at other temperatures cross and hand down what they find: a start is forgotten.
    assert 10 < (tempered != start).all(axis=1).sum() < 40


def test_frozen_chains_are_reported():
    model = two_modes()
    start = np.repeat([[0.0], [1.0]], 6, axis=1)
    with pytest.warns(ConvergenceWarning, match=r"^RBM: 2 of 2 chains.*n_temp") as caught:
        model.sample(2, init=start, burn_in=100)
    # The user's line, and the way out.
    assert caught[0].filename == __file__
    # After a few steps nothing can be told.
    assert caught_warnings(model.sample, 2, init=start, burn_in=5)[1] == []


def test_one_frozen_chain_is_reported():
    model, _ = machine("bernoulli", n_visible=4, n_hidden=4)
    set_weights(model, 100 * np.eye(4), [-50.0] * 4, [-50.0] * 4)
    # Each pair of units keeps its state for ever, so what is drawn says nothing of the law.
    with pytest.warns(ConvergenceWarning, match="never left"):
        samples = model.sample(3, init=[[1, 0, 1, 0]], burn_in=100)
    # The chain that it is compared with is not among the samples.
    assert_array_equal(samples, [[1, 0, 1, 0]] * 3)


def test_temperatures_that_never_swap_are_reported():
    model, _ = machine("bernoulli", n_visible=20, n_hidden=20)
    set_weights(model, np.full((20, 20), 2.0), [-20.0] * 20, [-20.0] * 20)
    # All units on or all off: hardly any state of independent units is either ...
    with pytest.warns(ConvergenceWarning, match="hardly profit"):
        model.sample(5, burn_in=300, n_temperatures=2)
    # ... which many temperatures bridge by small steps.
    assert caught_warnings(model.sample, 5, burn_in=300, n_temperatures=60)[1] == []


def test_frozen_gaussian_chains_are_reported():
    model, _ = machine("gaussian", n_visible=4, n_hidden=1)
    # Hidden unit off: visible units at -10; on: at +10 standard deviations.
    set_weights(model, np.full((1, 4), 20.0), [0.0], np.full(4, -10.0))
    start = model.columns_.shift + np.array([[-10.0], [10.0]]) * model.columns_.scale
    # The visible units move with their noise at every step, but the chains do not.
    with pytest.warns(ConvergenceWarning, match="^RBM: 2 of 2 chains"):
        model.sample(2, init=start, burn_in=100)


def test_chains_that_move_are_not_reported():
    model, _ = machine("bernoulli", n_visible=4, n_hidden=2, spread=0.5)
    samples, messages = caught_warnings(model.sample, 100, burn_in=100)
    assert messages == []
    assert len(np.unique(samples, axis=0)) > 4


@pytest.mark.parametrize("n_chains", [2, 30])
def test_a_model_of_one_state_is_not_frozen(n_chains):
    model, _ = machine("bernoulli", n_visible=4, n_hidden=2)
    set_weights(model, np.zeros((2, 4)), [0.0, 0.0], [60.0, -60.0, 60.0, -60.0])
    init = np.tile([1.0, 0.0, 1.0, 0.0], (n_chains, 1))
    samples, messages = caught_warnings(model.sample, n_chains, init=init)
    # There is nowhere else to be.
    assert messages == []
    assert_array_equal(samples, init)


def test_one_chain_of_a_model_of_one_state_is_not_frozen():
    model, _ = machine("bernoulli", n_visible=4, n_hidden=2)
    set_weights(model, np.zeros((2, 4)), [0.0, 0.0], [60.0, -60.0, 60.0, -60.0])
    # sample(1) of a model of constant data: weights of zero are not "so large".
    assert caught_warnings(model.sample, 1, init=[[1, 0, 1, 0]])[1] == []


@pytest.mark.parametrize("kind", KINDS)
def test_schedule_of_the_samples(kind):
    model, _ = machine(kind)
    settings = {"n_chains": 5, "random_state": 3}
    samples = model.sample(13, burn_in=3, n_steps=2, **settings)
    assert samples.shape == (13, 4)
    # First samples of all chains after the burn-in, then every second state.
    for k in range(3):
        later = model.sample(5, burn_in=3 + 2 * k, **settings)
        assert_array_equal(samples[5 * k : 5 * k + 5], later[: 13 - 5 * k])


def test_number_of_chains():
    model, data = machine("bernoulli")
    # As documented: n_samples, but at most 100, so that the 101st is a chain's second.
    samples = model.sample(150, burn_in=5, n_steps=3)
    assert_array_equal(samples[:100], model.sample(100, burn_in=5))
    assert_array_equal(samples[100:], model.sample(100, burn_in=8)[:50])
    # One chain for each row of init, too.
    samples = model.sample(20, init=data[:8], burn_in=5, n_steps=3)
    assert_array_equal(samples[:8], model.sample(8, init=data[:8], burn_in=5))
    assert_array_equal(samples[8:16], model.sample(8, init=data[:8], burn_in=8))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_temperatures", [1, 3])
def test_chains_start_at_init(kind, n_temperatures):
    model, data = machine(kind)
    settings = {"burn_in": 0, "n_temperatures": n_temperatures}
    # Without a step the samples are the start, in the units of the data.
    assert_allclose(model.sample(50, init=data, **settings), data, rtol=1e-12, atol=1e-12)
    # More chains than rows begin anew with the first row, fewer take the first rows.
    starts = model.sample(7, init=data[:3], n_chains=7, **settings)
    assert_allclose(starts, data[[0, 1, 2, 0, 1, 2, 0]], rtol=1e-12, atol=1e-12)
    assert_allclose(model.sample(2, init=data[:3], **settings), data[:2], rtol=1e-12, atol=1e-12)


def test_chains_start_at_independent_units_of_the_training_means():
    rng = np.random.default_rng(0)
    data = (rng.random((500, 3)) < [0.1, 0.5, 0.9]).astype(float)
    model = rbm(16, max_iter=1).fit(data)
    samples = model.sample(20_000, n_chains=20_000, burn_in=0)
    # As documented for init=None.
    assert (abs(samples.mean(axis=0) - data.mean(axis=0)) < 4 * 0.5 / np.sqrt(20_000)).all()
    assert (abs(np.corrcoef(samples.T) - np.eye(3)) < 0.03).all()
    table = rbm(16, max_iter=1).fit(rng.normal(100, 7, size=(500, 3)))
    start = table.sample(20_000, n_chains=20_000, burn_in=0)
    # Gaussian units with the columns' means and deviations.
    assert_allclose(start.mean(axis=0), table.columns_.mean, atol=4 * 7 / np.sqrt(20_000) + 1e-3)
    assert_allclose(start.std(axis=0), table.columns_.scale, rtol=0.05)


@pytest.mark.parametrize("kind", KINDS)
def test_random_state_of_samples(kind):
    model, _ = machine(kind)

    def draw(random_state):
        samples = model.sample(30, burn_in=5, random_state=random_state)
        return samples

    # The estimator's own seed makes calls alike; another one, given, is another stream.
    assert_array_equal(draw(None), draw(None))
    assert_array_equal(draw(None), draw(0))
    assert_array_equal(draw(7), draw(7))
    assert (draw(7) != draw(8)).any()
    instance = np.random.RandomState(0)
    # An instance moves on.
    assert (draw(instance) != draw(instance)).any()
    model.set_params(random_state=None)
    # Without any seed the calls differ.
    assert (draw(None) != draw(None)).any()


@pytest.mark.parametrize("kind", KINDS)
def test_random_state_of_gibbs(kind):
    model, data = machine(kind)
    # A seed that is given fixes the draws; the estimator's own does not, whose repetition
    # would make a chain of calls one deterministic map, which soon comes to rest.
    assert_array_equal(model.gibbs(data, random_state=7), model.gibbs(data, random_state=7))
    assert (model.gibbs(data, random_state=7) != model.gibbs(data, random_state=8)).any()
    assert (model.gibbs(data) != model.gibbs(data)).any()
    instance = np.random.RandomState(0)
    assert (
        model.gibbs(data, random_state=instance) != model.gibbs(data, random_state=instance)
    ).any()


def test_samples_leave_the_model_alone(X):
    model = rbm(16, max_iter=1).partial_fit(X)
    before = pickle.dumps(model)
    model.sample(5, burn_in=5)
    model.gibbs(X)
    model.log_partition_function("ais", n_temperatures=10)
    # Sampling is no training: not even the chains of the training move.
    assert pickle.dumps(model) == before


@pytest.mark.parametrize(
    ("parameters", "match"),
    [
        ({"n_samples": 0}, "n_samples=0 .*at least 1"),
        ({"n_samples": 2.5}, "n_samples=2.5 .*integer"),
        ({"n_samples": None}, "n_samples=None"),
        ({"n_steps": 0}, "n_steps=0 .*at least 1"),
        ({"burn_in": -1}, "burn_in=-1 .*at least 0"),
        ({"n_chains": 0}, "n_chains=0 .*at least 1"),
        ({"n_temperatures": 0}, "n_temperatures=0 .*at least 1"),
        ({"init": np.zeros((2, 3))}, "3 features.*expecting 4"),
        ({"init": np.full((2, 4), np.nan)}, "NaN in row 0, column 0"),
        ({"init": np.full((2, 4), 2.0)}, r"\[0, 1\].*visible='gaussian'"),
        ({"random_state": "seed"}, "seed"),
        ({"method": "metropolis"}, "method='metropolis' must be one of 'auto', 'gibbs', 'temp"),
        ({"method": 3}, r"3 is no sampler.*\(machine, generator\) -> step"),
        ({"method": lambda machine: None}, r"is no sampler.*\(machine, generator\) -> step"),
        ({"method": lambda m, g, beta: None}, r"is no sampler.*\(machine, generator\) -> step"),
        ({"method": lambda machine, generator: 7}, r"no sampler: it returned 7.*-> step"),
        ({"method": lambda m, g: lambda state: state[0]}, "a state as it took one, a tuple"),
        ({"method": lambda m, g: lambda visible, hidden: visible}, r"\(visible, hidden\)"),
        ({"method": "gibbs", "n_temperatures": 3}, "n_temperatures=3 is for method='tempering'"),
        ({"method": "tempering"}, "n_temperatures of at least 2, not 1"),
    ],
    ids=lambda value: re.sub(r" at 0x\w+", "", str(value)),
)
def test_arguments_of_sample(parameters, match):
    model, _ = machine("bernoulli")
    with pytest.raises(ValueError, match=match):
        model.sample(**parameters)


def test_names_of_samplers():
    model, _ = machine("bernoulli", n_visible=6, n_hidden=4)
    settings = {"n_samples": 20, "burn_in": 20}
    plain, tempered = model.sample(**settings), model.sample(**settings, n_temperatures=4)
    # "auto" is one of the two by the number of temperatures.
    assert_array_equal(model.sample(**settings, method="gibbs"), plain)
    again = model.sample(**settings, method="tempering", n_temperatures=4)
    assert_array_equal(again, tempered)


def single_site(machine, generator):
    """A sampler of a user's own: Gibbs steps that draw one half of the visible units at a time."""

    def step(state):
        visible, hidden = state
        for half in (slice(0, 3), slice(3, None)):
            drawn = machine.sample_visible(hidden, generator)
            visible = visible.clone()
            visible[:, half] = drawn[:, half]
            hidden = machine.sample_hidden(visible, generator)
        return visible, hidden

    return step


def test_a_sampler_of_ones_own(monkeypatch):
    model, _ = machine("bernoulli", n_visible=6, n_hidden=4)
    settings = {"n_chains": 10_000, "burn_in": 60, "random_state": 1}
    samples = model.sample(10_000, method=single_site, **settings)
    # Another way to the same law, in the same loop.
    assert p_value(frequencies(samples), law_of(model, 6)) > 1e-3
    with pytest.raises(ValueError, match="method='single_site' must be one of"):
        model.sample(method="single_site")
    monkeypatch.setitem(SAMPLERS, "single_site", single_site)
    # Once registered it has a name.
    assert_array_equal(model.sample(10_000, method="single_site", **settings), samples)


def test_a_sampler_of_ones_own_is_watched():
    model, _ = machine("bernoulli")
    start = [[0, 0, 0, 0], [1, 1, 1, 1]]
    with pytest.warns(ConvergenceWarning, match="2 of 2 chains never left"):
        model.sample(2, init=start, method=lambda machine, generator: lambda state: state)


def transition_by_hand(model):
    """P(v' | v) of one Gibbs step between all binary states."""
    visible, hidden = binary_states(4), binary_states(3)
    on = expit(visible @ model.components_.T + model.intercept_hidden_)
    p_hidden = (on[:, None] ** hidden * (1 - on[:, None]) ** (1 - hidden)).prod(axis=2)
    on = expit(hidden @ model.components_ + model.intercept_visible_)
    p_visible = (on[:, None] ** visible * (1 - on[:, None]) ** (1 - visible)).prod(axis=2)
    return p_hidden @ p_visible


@pytest.mark.parametrize("n_steps", [1, 2, 5])
def test_law_of_gibbs_steps(n_steps):
    model, _ = machine("bernoulli")
    law = np.linalg.matrix_power(transition_by_hand(model), n_steps)
    rows = binary_states(4)
    after = model.gibbs(np.repeat(rows, 2000, axis=0), n_steps, random_state=1)
    values = [p_value(frequencies(after[2000 * i : 2000 * (i + 1)]), law[i]) for i in range(16)]
    # 2000 chains from each state, against the enumerated transition matrix; 16 tests.
    assert min(values) > 1e-4
    other = np.linalg.matrix_power(transition_by_hand(model), n_steps + 1)
    if n_steps == 1:
        # One step more is another law, which the test sees.
        wrong = [
            p_value(frequencies(after[2000 * i : 2000 * (i + 1)]), other[i]) for i in range(16)
        ]
        assert min(wrong) < 1e-6


def test_shape_and_arguments_of_gibbs():
    model, data = machine("gaussian")
    assert model.gibbs(data[:7]).shape == (7, 4)
    assert np.isfinite(model.gibbs(data, 20)).all()
    # One error for each thing that cannot be.
    for wrong, match in ((0, "n_steps=0"), (1.5, "n_steps=1.5")):
        with pytest.raises(ValueError, match=match):
            model.gibbs(data, wrong)
    with pytest.raises(ValueError, match="3 features"):
        model.gibbs(data[:, :3])


@pytest.mark.parametrize(
    "method", ["sample", "gibbs", "free_energy", "log_partition_function", "visible_scale_"]
)
def test_not_fitted(method, X):
    # scikit-learn's own error for what needs a fit.
    with pytest.raises((NotFittedError, AttributeError), match="fitted"):
        getattr(RBM(), method)(*([X] if method in ("gibbs", "free_energy") else []))


# Continued training


def test_partial_fit_takes_a_step_for_each_batch(X):
    steps = {}
    for batch_size in (10, 40):
        model = rbm(16, batch_size=batch_size)
        # What scikit-learn documents, and its BernoulliRBM forgets.
        assert model.partial_fit(X) is model
        steps[batch_size] = int(model._training_state["optimizer"]["step"])
        # The chains are batch_size rows of hidden units, ...
        chains = model._training_state["objective"]["chains"]
        assert chains.shape == (batch_size, 16)
        # ... which are binary.
        assert set(np.unique(chains)) <= {0, 1}
    # Forty rows are four steps of ten, or one of forty.
    assert steps == {10: 4, 40: 1}


@pytest.mark.parametrize("centered", [False, True])
def test_partial_fit_goes_on_with_its_chains(X, centered):
    settings = {"batch_size": 16, "persistent": True, "centered": centered}
    fitted = rbm(16, max_iter=4, **settings).fit(X)
    continued = rbm(16, **settings)
    for _ in range(4):
        continued.partial_fit(X)
    # In parts or at once: chains, offsets, moments and generator carry over.
    assert_array_equal(continued.components_, fitted.components_)
    assert_allclose(continued.loss_curve_, fitted.loss_curve_)
    moved = copy.deepcopy(continued)
    chains = moved._training_state["objective"]["chains"]
    moved._training_state["objective"]["chains"] = 1 - chains
    # Other chains, other gradients: it is from there that training goes on.
    assert (moved.partial_fit(X).components_ != continued.partial_fit(X).components_).any()


def test_batch_size_may_change_between_parts(X):
    model = rbm(16, batch_size=16, persistent=True).partial_fit(X)
    # The number of chains is not the model's.
    assert model.set_params(batch_size=8).partial_fit(X).n_iter_ == 2


def test_rules_of_a_first_part(X):
    # Gaussian units estimate the scale of their columns from the first part.
    with pytest.raises(ValueError, match=r"n_samples=1.*first call of partial_fit.*more rows"):
        rbm(16).partial_fit(100 + X[:1])
    held = X + 100
    held[:10, 2] = 7.0
    with pytest.warns(UserWarning, match=r"Columns \[2\] are constant so far") as caught:
        rbm(16).partial_fit(held[:10])
    # There is no loss to set, so none is named.
    assert "loss" not in str(caught[0].message)
    # One row of binary units has all that is needed.
    assert rbm(16).partial_fit(np.eye(4)[:1]).n_iter_ == 1


def test_later_parts_keep_the_units(X):
    model = rbm(16).partial_fit(X > 0)
    # What the first part was decides; later ones outside of [0, 1] are refused.
    with pytest.raises(ValueError, match="visible='gaussian'"):
        model.partial_fit(X)


def test_warm_start_with_another_shape_is_refused(X):
    model = rbm(16, max_iter=2, warm_start=True).fit(X)
    expected = model.transform(X)
    for change in ({"n_components": 5}, {"visible_variance": "learned"}):
        changed = copy.deepcopy(model).set_params(**change)
        # Parameters of other shapes cannot be continued, and codes would be wrong.
        for method in (changed.fit, changed.partial_fit, changed.transform, changed.gibbs):
            with pytest.raises(ValueError, match="warm_start=False"):
                method(X)
        assert_array_equal(changed.set_params(**model.get_params()).transform(X), expected)


def test_warm_start_goes_on(binary_digits):
    model = rbm(16, max_iter=2, warm_start=True).fit(binary_digits)
    rows = binary_digits[::4]
    scores = [model.score(rows)]
    for _ in range(4):
        scores.append(model.fit(binary_digits).score(rows))
    # Each fit begins where the last one ended.
    assert (np.diff(scores) > 0).all()


# Searches, copies, devices, output


def test_grid_search():
    X, y = load_digits(return_X_y=True)
    X, y = X[:300] / 16, y[:300]
    model = rbm(16, max_iter=3, n_scored_columns=20)
    grid = {"n_components": [8, 16], "learning_rate": [1e-6, 0.01]}
    pipeline = make_pipeline(model, LogisticRegression(max_iter=300))
    of_pipeline = {f"rbm__{name}": values for name, values in grid.items()}
    search = GridSearchCV(pipeline, of_pipeline, cv=2).fit(X, y)
    # Codes of digits tell digits apart far better than chance.
    assert search.best_score_ > 0.6
    alone = GridSearchCV(model, grid, cv=2).fit(X)
    # score(X) is higher for better models, so a search needs no scorer and no y.
    assert alone.best_params_["learning_rate"] == 0.01
    assert np.isfinite(alone.cv_results_["mean_test_score"]).all()
    untrained = clone(model).set_params(learning_rate=1e-12).fit(X)
    assert alone.best_estimator_.score(X) > untrained.score(X)


@pytest.mark.filterwarnings("ignore:log Z of this RBM rests")
@pytest.mark.parametrize("kind", KINDS)
def test_pickled_without_the_device(kind):
    model, data = machine(kind)

    def everything(model):
        return [
            model.transform(data),
            model.free_energy(data),
            model.score_samples(data),
            model.sample(10, burn_in=5),
            model.gibbs(data, random_state=0),
            model.log_partition_function(),
            model.log_partition_function("ais", n_temperatures=20),
        ]

    expected = everything(model)
    # What a model that was trained on another machine's GPU looks like here.
    model.set_params(device="cuda:7").device_ = "cuda:7"
    pickled = pickle.dumps(model)
    # No tensors: it loads without a device and does not depend on torch's formats.
    assert b"torch" not in pickled
    # All that reads the model works on the CPU instead.
    for value, other in zip(expected, everything(pickle.loads(pickled)), strict=True):
        assert_array_equal(value, other)


def test_pickled_chains(X):
    model = rbm(16, batch_size=10, persistent=True).partial_fit(X)
    pickled = pickle.dumps(model)
    assert b"torch" not in pickled
    restored = pickle.loads(pickled)
    # The chains are part of the pickle.
    assert_array_equal(restored.partial_fit(X).components_, model.partial_fit(X).components_)


def test_read_only_memory_maps(X, tmp_path):
    model = rbm(16, visible_variance="learned", max_iter=2).partial_fit(X)
    joblib.dump(model, tmp_path / "model.joblib")
    mapped = joblib.load(tmp_path / "model.joblib", mmap_mode="r")
    assert isinstance(mapped.weights_["weight_0"], np.memmap)
    # Parameters that cannot be written are enough for all that reads them ...
    assert_array_equal(mapped.sample(5, burn_in=3), model.sample(5, burn_in=3))
    assert_array_equal(mapped.score_samples(X), model.score_samples(X))
    assert mapped.log_partition_function() == model.log_partition_function()
    # ... and training continues from a copy.
    assert_array_equal(mapped.partial_fit(X).components_, model.partial_fit(X).components_)


def test_progress_of_sampling(capsys):
    model, data = machine("bernoulli")
    model.sample(3, burn_in=100)
    # Silent by default.
    assert capsys.readouterr() == ("", "")
    samples = model.sample(3, burn_in=100, random_state=1)
    model.set_params(verbose=True)
    # Showing changes nothing.
    assert_array_equal(model.sample(3, burn_in=100, random_state=1), samples)
    lines = capsys.readouterr().out.splitlines()
    # About twenty lines in all, the last of them at the end.
    assert len(lines) == 20
    assert all(line.startswith("[RBM] step ") for line in lines)
    assert lines[0].startswith("[RBM] step 5/100, ")
    assert lines[-1] == "[RBM] step 100/100, 0.0 s left"
    model.log_partition_function("ais", n_temperatures=41)
    # Annealing walks from one temperature to the next: forty steps.
    assert capsys.readouterr().out.splitlines()[-1] == "[RBM] step 40/40, 0.0 s left"
    model.gibbs(data, 100)
    # A map of the rows is no run of chains to wait for.
    assert capsys.readouterr() == ("", "")


def test_progress_of_training_is_the_pseudo_likelihood(X, capsys):
    model = rbm(16, max_iter=3, verbose=True).fit(X)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines] == [f"[RBM] epoch {i}/3" for i in (1, 2, 3)]
    # Forty rows, one column each: an estimate of -score(X), of the order of its terms.
    assert abs(model.loss_curve_[-1] + model.score(X)) < 0.5 * abs(model.score(X)) + 2


# Bad input


def test_data_outside_of_the_unit_interval(X):
    for data in (X, X[:, :1] + 100, np.array([[0.0, 1.0], [0.5, 1.0001]])):
        # The column, its range, and what to do.
        with pytest.raises(ValueError, match=r"visible='bernoulli' needs.*visible='gaussian'"):
            RBM(visible="bernoulli").fit(data)


@pytest.mark.parametrize("method", ["fit", "partial_fit", "free_energy", "gibbs", "score_samples"])
@pytest.mark.parametrize("kind", KINDS)
def test_not_a_number(kind, method):
    model, data = machine(kind)
    before = pickle.dumps(model)
    data[3, 1] = np.nan
    with pytest.raises(ValueError, match=r"NaN in row 3, column 1.*SimpleImputer"):
        getattr(model, method)(data)
    # The model stays as it was.
    assert pickle.dumps(model) == before


@pytest.mark.parametrize(
    ("learning_rate", "dtype", "early_stopping"),
    [
        (1e2, np.float64, False),
        (1e3, np.float32, True),
        (1e6, np.float64, False),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_explosions_are_reported(kind, learning_rate, dtype, early_stopping):
    data = (load_iris().data if kind != "bernoulli" else load_digits().data[:200] > 7).astype(dtype)
    variance = "learned" if kind == "learned" else "unit"
    settings = {**CD, "optimizer": "sgd", "momentum": 0.9, "max_iter": 4}
    settings |= {"visible_variance": variance, "early_stopping": early_stopping}
    untrained = rbm(16, **{**settings, "learning_rate": 1e-12}).fit(data).score(data)
    model = rbm(16, **{**settings, "learning_rate": learning_rate})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model.fit(data)
        except ValueError as error:
            # Nothing was learned: the culprit is named, and the model is not fitted.
            assert "smaller learning_rate" in str(error)  # noqa: PT017
            assert not hasattr(model, "weights_")
            return
    # Something was learned before: the rest is reported, and what was kept is usable.
    assert any("smaller learning_rate" in str(w.message) for w in caught)
    assert all(np.isfinite(weight).all() for weight in model.weights_.values())
    if not early_stopping:  # see test_early_stopping_keeps_no_exploded_model
        assert model.score(data) > untrained - 1


def test_early_stopping_keeps_no_exploded_model():
    settings = {**CD, "optimizer": "sgd", "momentum": 0.9, "learning_rate": 100.0}
    model = rbm(16, max_iter=4, early_stopping=True, **settings)
    # The first epoch explodes, the second is not finite: nothing was learned that could be kept.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        with pytest.raises(ValueError, match="Nothing was learned"):
            model.fit(load_iris().data)


@pytest.mark.parametrize("learning_rate", [100.0, 1e4, 1e6])
@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_explosions_of_learned_variances_are_reported(learning_rate, optimizer):
    settings = {**CD, "optimizer": optimizer, "learning_rate": learning_rate}
    model = rbm(16, visible_variance="learned", max_iter=4, **settings)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model.fit(load_iris().data)
        except ValueError as error:
            assert "smaller learning_rate" in str(error)  # noqa: PT017
            return
    # Never parameters that are not finite, and never without a word.
    assert all(np.isfinite(weight).all() for weight in model.weights_.values())
    assert any("smaller learning_rate" in str(w.message) for w in caught)


@pytest.mark.parametrize("persistent", [False, True])
def test_explosion_later_keeps_the_best_finite_weights(X, explode, persistent):
    explode(30, np.nan)
    settings = {"persistent": persistent, "momentum": 0.5}
    with pytest.warns(ConvergenceWarning, match="diverged by epoch 30"):
        model = rbm(16, max_iter=40, **settings | {"optimizer": "exploding"}).fit(X)
    # Usable and marked.
    assert model.stopping_reason_ == "diverged"
    assert np.isfinite(model.score(X))
    # What was learned before is kept.
    assert model.score(X) > rbm(16, max_iter=1, **{**settings, "learning_rate": 1e-12}).fit(
        X
    ).score(X)


@pytest.mark.parametrize("variance", ["unit", "learned"])
def test_constant_columns(X, variance):
    data = np.column_stack([X, np.full(len(X), 0.1), np.full(len(X), -1e9)])
    model = rbm(16, visible_variance=variance, max_iter=50).fit(data)
    # A constant asks for a variance of zero, which is not given to it.
    assert (model.visible_scale_ > 0).all()
    assert np.isfinite(model.score(data))
    assert np.isfinite(model.sample(5, burn_in=30)).all()
    assert np.isfinite(model.log_partition_function().value)


@pytest.mark.parametrize("n_rows", [1, 2, 30])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_binary_data_of_one_state(n_rows, value):
    data = np.full((n_rows, 5), value)
    model = rbm(16, max_iter=20)
    _, messages = caught_warnings(model.fit, data)
    # Nothing to learn is no error and no warning, and the model knows the only state.
    assert messages == []
    assert (model.sample(50, burn_in=5) == value).mean() > 0.95
    assert model.score(data) > -0.1


def test_one_row_of_a_table():
    model = rbm(16, max_iter=60, learning_rate=0.05).fit([[1.5, -20.0, 300.0]])
    # A scale of 1 where nothing is known of it.
    assert_array_equal(model.columns_.scale, 1)
    assert np.isfinite(model.transform([[1.5, -20.0, 300.0]])).all()
    assert (abs(model.sample(200, burn_in=20).mean(axis=0) - [1.5, -20.0, 300.0]) < 1).all()


@pytest.mark.parametrize("persistent", [False, True])
def test_rows_of_weight_zero_are_left_out(X, persistent):
    weight = (np.arange(40) < 30).astype(float)
    outliers = X.copy()
    outliers[30:] = 1e9
    settings = {"persistent": persistent, "max_iter": 3}
    weighted = rbm(16, **settings).fit(outliers, sample_weight=weight)
    # Neither columns nor gradients nor chains see such rows.
    assert_array_equal(weighted.components_, rbm(16, **settings).fit(X[:30]).components_)


def test_weights_are_taken_into_account(binary_digits):
    _, y = load_digits(return_X_y=True)
    data, y = binary_digits[:500], y[:500]
    settings = {"max_iter": 20}
    ones = rbm(16, **settings).fit(data, sample_weight=np.where(y == 1, 1.0, 0.01))
    alike = rbm(16, **settings).fit(data)
    # Rows of a hundred times the weight are what the model is of.
    assert ones.score(data[y == 1]) > alike.score(data[y == 1]) + 1


def test_batches_larger_than_the_data(X):
    # A batch_size that is larger than the data means all rows; it is no wish for 8 TB.
    model = rbm(16, max_iter=1, persistent=True, batch_size=10**12)
    assert model.fit(X).n_iter_ == 1


def interrupting(monkeypatch, n_batches):
    take, batches = DenseRows.take, []

    def interrupted_take(self, index):
        batches.append(len(index))
        if len(batches) == n_batches:
            raise KeyboardInterrupt
        return take(self, index)

    monkeypatch.setattr(DenseRows, "take", interrupted_take)


@pytest.mark.parametrize("persistent", [False, True])
def test_interruption_keeps_the_model(X, monkeypatch, persistent):
    interrupting(monkeypatch, 30)
    model = rbm(16, max_iter=1000, batch_size=10, persistent=persistent)
    with pytest.warns(ConvergenceWarning, match="interrupted after"):
        model.fit(X)
    # Usable and marked.
    assert model.stopping_reason_ == "interrupted"
    assert np.isfinite(model.score(X))
    # It can go on from there.
    n_iter = model.n_iter_
    assert model.partial_fit(X).n_iter_ == n_iter + 1


@pytest.mark.parametrize("persistent", [False, True])
def test_interruption_before_the_first_step(X, monkeypatch, persistent):
    interrupting(monkeypatch, 1)
    # Ctrl-C in the first evaluation: the fit ends as it does elsewhere, not with a KeyError.
    with pytest.warns(ConvergenceWarning, match="interrupted after 0 epochs"):
        rbm(16, max_iter=5, persistent=persistent).fit(X)


def test_arguments_that_belong_together(binary_digits):
    model = rbm(16, max_iter=1, visible_variance="learned").fit(binary_digits)
    # A Bernoulli unit has no variance to learn.
    assert "log_variance" not in model.weights_
    cloned = clone(model)
    assert cloned.get_params() == model.get_params()
    assert not hasattr(cloned, "weights_")


# Learning


def independent_units(data):
    """Mean log-likelihood of independent columns with the data's means."""
    p = data.mean(axis=0).clip(1e-4, 1 - 1e-4)
    return (data * np.log(p) + (1 - data) * np.log(1 - p)).sum(axis=1).mean()


@pytest.mark.parametrize("persistent", [False, True])
def test_digits_are_learned(digits, persistent):
    data, _ = digits
    model = rbm(64, max_iter=10, persistent=persistent, centered=True).fit(data)
    # Of the 27 nats of independent pixels four are saved: neighbours say much of a pixel.
    assert model.score(data[::4]) > independent_units(data) + 3


RULES = {
    "CD-1": {"persistent": False, "n_gibbs_steps": 1},
    "CD-5": {"persistent": False, "n_gibbs_steps": 5},
    "PCD": {"persistent": True, "n_gibbs_steps": 1},
}


@pytest.mark.parametrize(
    ("rule", "centered"), [("CD-1", False), ("CD-5", True), ("PCD", False), ("PCD", True)]
)
def test_likelihood_grows(binary_digits, rule, centered):
    scores = []
    for max_iter in (1, 20):
        model = rbm(10, max_iter=max_iter, centered=centered, **RULES[rule])
        model.fit(binary_digits)
        log_partition = model.log_partition_function().value
        scores.append(model.score(binary_digits, log_partition=log_partition))
    # Each rule descends on the exact negative log-likelihood, though none can compute it.
    assert scores[0] < scores[1] - 1.5
    # And all go far beyond independent units.
    assert scores[1] > independent_units(binary_digits) + 2


def test_more_gibbs_steps_are_another_rule(binary_digits):
    settings = {"max_iter": 2, "persistent": False}
    models = [rbm(16, n_gibbs_steps=k, **settings).fit(binary_digits) for k in (1, 1, 5)]
    # The same seed and rule give the same weights, a longer chain other particles.
    assert_array_equal(models[0].components_, models[1].components_)
    assert (models[0].components_ != models[2].components_).any()


def test_small_machine_finds_the_law():
    # Two bits that agree, and two that differ: a law that pairwise independence knows not.
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 400)) < 0.5
    data = np.column_stack([a, a, b, ~b]).astype(float)
    settings = {"learning_rate": 0.1, "max_iter": 75, "persistent": False}
    model = rbm(8, n_gibbs_steps=5, **settings).fit(data)
    log_partition = model.log_partition_function().value
    # The best possible is two nats of two fair coins; independent units have four.
    assert model.score(data, log_partition=log_partition) > -2 * np.log(2) - 0.5
    # Four modes in the corners of a cube: plain steps hardly ever go from one to the next.
    samples = model.sample(1000, n_chains=1000, burn_in=60, n_temperatures=5)
    # And its samples show it.
    assert (samples[:, 0] == samples[:, 1]).mean() > 0.85
    assert (samples[:, 2] != samples[:, 3]).mean() > 0.85


def test_sparsity_draws_the_codes_to_the_target(digits):
    data, _ = digits
    settings = {"optimizer": "sgd", "momentum": 0.5, "learning_rate": 0.05, "max_iter": 20}
    free = rbm(32, **settings).fit(data).transform(data).mean(axis=0)
    for target in (0.05, 0.2):
        model = rbm(32, sparsity=10.0, sparsity_target=target, **settings).fit(data)
        activity = model.transform(data).mean(axis=0)
        # Every unit's mean, not only that of all of them.
        assert (abs(activity - target) < 0.2 * target).all()
        assert (abs(free - target) > 0.2 * target).mean() > 0.5


def test_weight_decay_shrinks_the_weights(digits):
    data, _ = digits
    norms = []
    for weight_decay in (0.0, 0.01, 0.1):
        model = rbm(32, max_iter=10, weight_decay=weight_decay).fit(data)
        norms.append(np.linalg.norm(model.components_))
    # The more it costs, the smaller they are.
    assert norms[0] > 1.1 * norms[1] > 1.1 * 1.1 * norms[2]


class Alike:
    """A penalty of a user's own: codes are to be of one size."""

    def __init__(self, weight):
        self.weight = weight

    def value(self, theta, forward):
        return forward.mean(forward.code.var(1))


def test_a_penalty_of_ones_own(digits):
    data, _ = digits
    spreads = [
        rbm(32, max_iter=10, penalties=penalties).fit(data).transform(data).std(1).mean()
        for penalties in ((), [Alike(20.0)], [WeightDecay(0.0), Alike(200.0)])
    ]
    # The more it costs, the more alike they are.
    assert spreads[0] > 1.1 * spreads[1] > 1.1 * 1.1 * spreads[2]
    named = rbm(8, max_iter=2, weight_decay=0.01).fit(data)
    own = rbm(8, max_iter=2, penalties=[WeightDecay(0.01)]).fit(data)
    # A parameter is a name for an object.
    assert_array_equal(named.components_, own.components_)
    with pytest.raises(ValueError, match=r"=3 is no penalty.*value\(theta, forward\)"):
        rbm(8, penalties=[3]).fit(data)


def test_visible_units_are_those_with_an_energy(X):
    model = rbm(4, visible="squared_error", visible_variance="learned", max_iter=2).fit(X)
    # In the data's own units with variance 1, of which nothing is to be learned.
    assert_array_equal(model.visible_scale_, np.ones(4))
    assert "log_variance" not in model.weights_
    # All columns together as one category, which these numbers are not.
    with pytest.raises(ValueError, match=r"visible='multinomial' needs values in \[0, 1\]"):
        rbm(4, visible="multinomial").fit(X)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_learning_rate_schedule(binary_digits, schedule, monkeypatch):
    seen = []

    class Watched(SGD):
        name = "watched"

        def update_(self, theta, gradient, state, learning_rate):
            super().update_(theta, gradient, state, learning_rate)
            seen.append(theta.clone())

    monkeypatch.setitem(OPTIMIZERS, "watched", Watched)

    def last_change(name):
        settings = {"optimizer": "watched", "learning_rate_schedule": name, "random_state": 0}
        RBM(16, max_iter=20, **settings).fit(binary_digits[:500])
        # The last of twenty epochs has five steps.
        return float((seen[-1] - seen[-6]).norm())

    # At the end the steps have all but vanished.
    assert last_change(schedule) < 0.3 * last_change("constant")


@pytest.mark.parametrize(
    ("load", "scale"),
    [
        (load_digits, 1 / 16),
        (load_breast_cancer, 1),
        (load_iris, 1),
    ],
)
def test_defaults_do_not_collapse(load, scale):
    data = load().data * scale
    model = RBM(max_iter=5, n_scored_columns=4, random_state=0)
    _, messages = caught_warnings(model.fit, data)
    # Raw tables of any units, the bare constructor: nothing to report.
    assert messages == []
    # Every unit says something.
    assert model.transform(data).std(axis=0).min() > 1e-3
    rows = data[::5]
    untrained = RBM(max_iter=1, learning_rate=1e-12, n_scored_columns=4, random_state=0).fit(data)
    # And training beats the same machine untrained.
    assert model.score(rows) > untrained.score(rows)


@pytest.mark.parametrize("load", [load_breast_cancer, load_iris])
def test_long_training_with_defaults_is_not_reported_as_collapsed(load):
    data = load().data
    model = RBM(64, max_iter=60, n_iter_no_change=None, random_state=0)
    # Real tables have structure, which half a hundred epochs find.
    assert caught_warnings(model.fit, data)[1] == []


def test_a_code_that_is_crushed_is_reported(X):
    settings = {"optimizer": "sgd", "momentum": 0, "learning_rate": 0.1}
    model = rbm(16, weight_decay=5.0, max_iter=100, **settings)
    # A price on weights that nothing can pay: codes say nothing, which is said.
    with pytest.warns(CollapsedCodeWarning, match="weight_decay"):
        model.fit(X)


@pytest.mark.parametrize("n_components", [2, 8])
def test_few_hidden_units_are_not_frozen(n_components):
    model = rbm(n_components, max_iter=30, persistent=True)
    messages = [
        caught_warnings(model.set_params(random_state=i).fit, load_iris().data)[1] for i in range(3)
    ]
    # Weights near zero: each unit is drawn anew at every step, and no chain stands still.
    assert messages == [[], [], []]


def test_frozen_persistent_chains_are_reported(binary_digits):
    settings = {"max_iter": 1, "learning_rate": 1e-12, "warm_start": True}
    model = rbm(16, **settings).fit(binary_digits[:, :6]).set_params(max_iter=60)
    # Sixteen strong units that hold one another in place, at two states.
    set_weights(model, np.full((16, 6), 40.0), np.full(16, -120.0), np.full(6, -320.0))
    data = np.repeat(np.eye(2)[:, :1], 6, axis=1).repeat(50, axis=0)
    # Each of the chains starts at a row and stays there for all of sixty steps.
    with pytest.warns(ConvergenceWarning, match="^RBM: 100 of 100 persistent chains"):
        model.fit(data)


def test_progress_that_was_lost_is_reported(binary_digits):
    settings = {"optimizer": "sgd", "momentum": 0.98, "learning_rate": 0.1}
    model = rbm(128, **settings, batch_size=len(binary_digits), max_iter=50)
    # So much momentum carries the model past the optimum: the loss falls from 25 to 20 and ends at
    # 29.5 +- 2 over seeds. Neither a draw nor rounding decides between 23, where the warning
    # begins, and 37, where the training counts as diverged.
    with pytest.warns(ConvergenceWarning, match="lost more than half of its progress"):
        model.fit(binary_digits)


def test_rare_values_keep_the_width_of_their_column():
    rng = np.random.default_rng(0)
    data = np.column_stack([rng.random(2000) < 0.002, rng.normal(size=(2000, 2))]).astype(float)
    settings = {"optimizer": "sgd", "momentum": 0.5, "learning_rate": 0.05, "max_iter": 40}
    settings |= {"visible": "gaussian", "visible_variance": "learned", "minimum_variance": 0.1}
    model = rbm(2, **CD | settings).fit(data)
    # In most batches the column is 0 all along; it must not be taken for one without width.
    assert model.visible_scale_[0] > 0.6 * data[:, 0].std()
    normal = -0.5 * np.log(2 * np.pi * np.e * data.var(axis=0)).sum()
    # And the density stays near that of independent columns, which is the best there is.
    assert model.score(data, log_partition=model.log_partition_function()) > normal - 0.2


def test_log_partition_is_checked():
    model, data = machine("bernoulli")
    log_partition = model.log_partition_function()
    # The result as a whole, or its value.
    assert model.score(data, log_partition=log_partition) == model.score(
        data, log_partition=log_partition.value
    )
    for wrong in (np.nan, np.inf, True, "1.0", np.zeros(len(data))):
        with pytest.raises(ValueError, match=r"log_partition=(.|\n)* must be a finite number"):
            model.score_samples(data, log_partition=wrong)


def test_persistent_may_change_between_parts(X):
    model = rbm(16, persistent=True).partial_fit(X).set_params(persistent=False).partial_fit(X)
    # The chains that there were are of no use to contrastive divergence, and do no harm.
    assert model.set_params(persistent=True).partial_fit(X).n_iter_ == 3


def test_training_does_not_change_the_units(X):
    model = rbm(4, visible="gaussian", max_iter=1, warm_start=True).fit(X)
    model.set_params(visible="bernoulli")
    for train in (model.fit, model.partial_fit):
        # The weights are those of Gaussian units; a new fit may choose others.
        with pytest.raises(ValueError, match=r"visible='bernoulli', but .* gaussian units"):
            train(X > 0)
    assert model.set_params(warm_start=False).fit(X > 0).n_iter_ == 1


def test_memory_is_asked_for_before_sampling():
    model, _ = machine("bernoulli")
    for arguments in ({"n_samples": 10**15}, {"n_samples": 1, "n_temperatures": 10**15}):
        # Before a step is taken, not when the memory is gone.
        with pytest.raises(MemoryError, match="Use a smaller n_samples, n_chains"):
            model.sample(**arguments)
    with pytest.raises(MemoryError, match="Use a smaller n_chains"):
        model.log_partition_function("ais", n_chains=10**15, n_temperatures=10)
