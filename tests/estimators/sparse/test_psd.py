"""Predictive sparse decomposition: the face, its codes, and the map of its atoms."""

import pickle
import warnings

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.linear_model import Lasso, LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skae import PSD, CollapsedCodeWarning
from skae.estimators.face.outcomes import explained

each_activation = pytest.mark.parametrize("activation", ["shrinkage", "tanh", "smooth_shrinkage"])


def small_psd(**parameters):
    small = {"n_components": 6, "max_iter": 3, "batch_size": 16, "random_state": 0}
    return PSD(**{**small, **parameters})


def standardized(model, data):
    return (data - model.columns_.shift) / model.columns_.scale


# Codes


@each_activation
def test_encoder_codes_are_the_formula(X, activation):
    model = small_psd(activation=activation).fit(X)
    w = model.weights_
    pre = standardized(model, X) @ model.components_.T
    if activation == "smooth_shrinkage":
        c, t, size = np.exp(w["log_sharpness"]), w["threshold"], np.abs(pre)
        shape = np.sign(pre) * (np.log(np.exp(c * t) + np.exp(c * size) - 1) / c - t)
        # Thresholds take the place of biases.
        assert not hasattr(model, "intercept_hidden_")
    elif activation == "tanh":
        shape = np.tanh(pre + model.intercept_hidden_)
    else:
        pre = pre + model.intercept_hidden_
        shape = np.sign(pre) * np.maximum(np.abs(pre) - w["threshold"], 0)
    # f(x) = g s(W x + b), in NumPy, whatever the signs of the gains.
    assert_allclose(model.transform(X), w["gain"] * shape, atol=1e-12)
    w["gain"][::2] *= -1
    assert_allclose(model.transform(X), w["gain"] * shape, atol=1e-12)


def test_attributes_are_those_of_one_layer(X):
    model = small_psd()
    # Nothing before `fit` ...
    assert not hasattr(model, "decoder_components_")
    model.fit(X)
    assert_array_equal(model.components_, model.weights_["weight_0"])
    assert_array_equal(model.decoder_components_, model.weights_["decoder_weight_0"])
    # ... and no bias of the columns after it: their means are taken off before.
    assert not hasattr(model, "intercept_visible_")


@each_activation
def test_optimal_codes_are_the_lasso_on_the_learned_dictionary(X, activation):
    model = small_psd(activation=activation, inference="optimal", inference_tol=1e-14)
    model.set_params(inference_max_iter=100_000).fit(X)
    lasso = Lasso(model.alpha / 4, fit_intercept=False, tol=1e-10, max_iter=1_000_000)
    lasso.fit(model.decoder_components_.T, standardized(model, X).T)
    codes = model.transform(X)
    # scikit-learn's problem is ours divided by the number of columns.
    assert np.abs(codes - lasso.coef_).max() <= 1e-6 * np.abs(lasso.coef_).max()
    # Sparse, and not empty.
    assert 0 < (codes != 0).mean() < 1


def test_inference_is_chosen_after_training(X):
    model = small_psd().fit(X)
    optimal = small_psd(inference="optimal").fit(X)
    # Training does not depend on what `transform` returns ...
    for name, weight in model.weights_.items():
        assert_array_equal(weight, optimal.weights_[name])
    # ... so the switch can be thrown later.
    assert_array_equal(model.set_params(inference="optimal").transform(X), optimal.transform(X))


def test_reconstructions_are_codes_times_atoms(X):
    model = small_psd().fit(X)
    codes = model.transform(X)
    expected = codes @ model.decoder_components_ * model.columns_.scale + model.columns_.shift
    assert_allclose(model.inverse_transform(codes), expected)
    assert_allclose(model.reconstruct(X), expected)
    residual = standardized(model, X - expected + model.columns_.shift)
    constant = np.log(model.columns_.scale).sum() + 0.5 * 4 * np.log(2 * np.pi)
    # A density of the data: half the squared error in standard deviations, in nats.
    assert_allclose(model.score_samples(X), -0.5 * (residual**2).sum(1) - constant)


@each_activation
def test_prediction_gap_is_the_excess_over_the_lasso(X, activation):
    model = small_psd(activation=activation, inference_tol=1e-12, inference_max_iter=100_000)
    model.fit(X)
    dictionary, x = model.decoder_components_, standardized(model, X)

    def objective(codes):
        square = ((x - codes @ dictionary) ** 2).sum(1)
        return 0.5 * square + model.alpha * np.abs(codes).sum(1)

    lasso = Lasso(model.alpha / 4, fit_intercept=False, tol=1e-10, max_iter=1_000_000)
    best = objective(lasso.fit(dictionary.T, x.T).coef_)
    expected = objective(model.transform(X)) / best - 1
    # Of each row, as a part of its optimum.
    assert_allclose(model.prediction_gap(X), expected, rtol=1e-6, atol=1e-9)
    # Nothing is below the minimum, and this encoder is not perfect.
    assert (expected > 0).any()


def test_prediction_gap_of_the_mean_row_is_zero(X):
    model = small_psd().fit(X - X.mean(0))
    model.weights_["hidden_bias_0"][:] = 0
    # x = 0 has the code 0 by encoder and inference: an optimum of 0 is no division by it.
    assert model.prediction_gap(np.zeros((1, 4)) + model.columns_.shift) == 0
    smooth = small_psd(activation="tanh").fit(X - X.mean(0))
    smooth.weights_["hidden_bias_0"][:] = 0
    # Where a row is so but for rounding, the ratio of two rounding errors would be any number.
    assert smooth.prediction_gap(np.full((1, 4), 1e-17) + smooth.columns_.shift) == 0


# Training


@pytest.mark.parametrize("activation", ["shrinkage", "tanh"])
def test_training_lowers_the_objective_and_learns_to_predict(digits, activation):
    data = digits[0][:300]
    model = PSD(
        32, activation=activation, alpha=0.5, batch_size=15, max_iter=12, inference_tol=1e-3,
        random_state=0,
    ).fit(data)  # fmt: skip
    # Adam descends on exactly this objective, by an exact gradient.
    assert np.diff(model.loss_curve_[:10]).max() < 0
    x = standardized(model, data)
    predicted = model.transform(data)
    square = ((x - predicted @ model.decoder_components_) ** 2).sum(1)
    reached = 0.5 * square + model.alpha * np.abs(predicted).sum(1)
    optimum = reached / (1 + model.prediction_gap(data))
    # Of what optimal codes explain, codes of zero explain nothing, and the encoder's most.
    recovered = 1 - (reached - optimum).sum() / (0.5 * (x**2).sum(1) - optimum).sum()
    assert recovered > 0.7


def test_loss_is_the_objective_at_inferred_codes(X):
    model = small_psd(max_iter=1, learning_rate=1e-12, batch_size=40, inference_tol=1e-12).fit(X)
    dictionary, x, predicted = model.decoder_components_, standardized(model, X), model.transform(X)
    weight = model.prediction
    # |x - h D|^2 + prediction |h - f|^2 is one lasso on stacked rows.
    stacked = np.vstack([dictionary.T, np.sqrt(weight) * np.eye(6)])
    target = np.hstack([x, np.sqrt(weight) * predicted])
    lasso = Lasso(model.alpha / 10, fit_intercept=False, tol=1e-15, max_iter=100_000)
    h = lasso.fit(stacked, target.T).coef_
    value = 0.5 * ((target - h @ stacked.T) ** 2).sum(1) + model.alpha * np.abs(h).sum(1)
    constant = np.log(model.columns_.scale).sum() + 0.5 * 4 * np.log(2 * np.pi)
    # In nats, as the other models' losses are: the density's constant is part of it.
    assert_allclose(model.loss_curve_[0], value.mean() + constant, rtol=1e-6)


def test_atoms_have_unit_norm_after_every_step(X):
    model = small_psd(batch_size=40, learning_rate=0.05)
    for _ in range(5):
        model.partial_fit(X)  # one step
        assert_allclose(np.linalg.norm(model.decoder_components_, axis=1), 1, rtol=1e-12)
        # A threshold below zero would be a jump.
        assert (model.weights_["threshold"] >= 0).all()


def test_row_of_weight_two_is_a_row_twice(X):
    weight = np.random.default_rng(0).integers(0, 3, size=len(X))
    repeated = np.repeat(X, weight, axis=0)
    settings = {"batch_size": 100, "inference_tol": 1e-12}
    weighted = small_psd(**settings).fit(X, sample_weight=weight)
    # Full batches: both are the same mean over rows.
    assert_allclose(
        weighted.transform(X),
        small_psd(**settings).fit(repeated).transform(X),
        rtol=1e-6,
        atol=1e-8,
    )
    assert np.abs(weighted.transform(X) - small_psd(**settings).fit(X).transform(X)).max() > 1e-4


def test_partial_fit_goes_on_where_it_was(X):
    settings = {"batch_size": 16, "n_iter_no_change": None}
    whole = small_psd(max_iter=4, **settings).fit(X)
    model = small_psd(**settings)
    for _ in range(4):
        model = pickle.loads(pickle.dumps(model)).partial_fit(X)
    # Moments, permutations and state carry over: four passes are four epochs.
    assert_allclose(model.transform(X), whole.transform(X), rtol=1e-6, atol=1e-9)
    assert_allclose(model.loss_curve_, whole.loss_curve_)


def test_warm_start_goes_on(X):
    model = small_psd(warm_start=True, max_iter=20).fit(X)
    before = model.loss_curve_[-1]
    model.fit(X)
    # From the weights of the last fit, not from new ones.
    assert model.loss_curve_[0] < before + 0.05 * abs(before)
    fresh = small_psd(max_iter=20).fit(X)
    assert model.loss_curve_[-1] < fresh.loss_curve_[-1]


@pytest.mark.parametrize(
    ("activation", "inference"),
    [("shrinkage", "encoder"), ("smooth_shrinkage", "encoder"), ("tanh", "optimal")],
)
def test_dtypes(X, activation, inference):
    model = small_psd(activation=activation, inference=inference, inference_tol=1e-6)
    double = model.fit(X).transform(X)
    single = model.fit(X.astype(np.float32)).transform(X.astype(np.float32))
    assert (double.dtype, single.dtype) == (np.float64, np.float32)
    # The same start and the same steps, up to rounding and what the tolerance leaves open.
    assert_allclose(single, double, atol=2e-3)


def test_same_seed_same_bits(X):
    first, second = (small_psd(random_state=3).fit(X).transform(X) for _ in range(2))
    assert_array_equal(first, second)
    assert np.abs(first - small_psd(random_state=4).fit(X).transform(X)).max() > 0


def test_in_a_grid_search():
    X, y = load_wine(return_X_y=True)
    pipeline = make_pipeline(PSD(16, max_iter=10, random_state=0), LogisticRegression(max_iter=500))
    grid = {"psd__inference": ["encoder", "optimal"]}
    search = GridSearchCV(pipeline, grid, cv=2, error_score="raise").fit(X, y)
    # A raw table whose columns differ by a factor of 1000; three classes.
    assert search.best_score_ > 0.9


# Defaults


@pytest.mark.parametrize("load", [load_wine, load_breast_cancer, load_digits])
def test_defaults_do_not_collapse(load):
    X = load().data[:600]
    model = PSD(max_iter=3, random_state=0).fit(X)  # a CollapsedCodeWarning is an error here
    codes = model.transform(X)
    # Raw tables, untouched defaults: nearly every unit varies, and zeros have appeared.
    assert (np.ptp(codes, axis=0) > 1e-3).mean() > 0.95
    assert (codes == 0).any()
    # The codes say most of what there is to say.
    assert explained(model, X) > 0.5


# Maps


def test_neighbours_on_the_map_are_alike():
    X = load_digits().data[:600]
    model = PSD(
        64, group_shape=3, map_shape=(8, 8), alpha=0.4, learning_rate=1e-2, max_iter=15,
        inference_tol=1e-2, random_state=0,
    ).fit(X)  # fmt: skip
    size = np.corrcoef(np.abs(model.transform(X)).T)
    unit = np.arange(64).reshape(8, 8)
    beside = [size[unit, np.roll(unit, -1, axis)].mean() for axis in (0, 1)]
    anywhere = size[~np.eye(64, dtype=bool)].mean()
    # Groups cost less when their units are active together: along both axes of the torus,
    # neighbours are active for the same digits.
    assert min(beside) > anywhere + 0.15
    shuffled = np.random.default_rng(0).permutation(64).reshape(8, 8)
    chance = [size[shuffled, np.roll(shuffled, -1, axis)].mean() for axis in (0, 1)]
    # On a map of the same units in another order, they are not.
    assert max(chance) < anywhere + 0.05


def test_groups_without_overlap_switch_off_as_a_whole(X):
    model = small_psd(n_components=6, group_shape=6, map_shape=6, alpha=0.3, inference="optimal")
    codes = model.fit(X).transform(X)
    # One group of all units: a norm, which is 0 for all of them or for none.
    active = codes != 0
    assert set(active.sum(1)) == {0, 6}


def test_map_is_nearly_square(X):
    # 12 = 3 * 4: that a neighbourhood of (3, 4) fits and (4, 3) does not shows its shape.
    small_psd(n_components=12, group_shape=(3, 4)).fit(X)
    with pytest.raises(ValueError, match="smaller groups"):
        small_psd(n_components=12, group_shape=(4, 3)).fit(X)


# Errors


@pytest.mark.parametrize(
    ("parameters", "match"),
    [
        ({"group_shape": 3, "map_shape": (2, 2)}, "4 units, but n_components=6"),
        ({"group_shape": (4, 1)}, "group_shape.*smaller groups, or a larger map"),
        ({"group_shape": (2, 2, 2)}, "axes"),
        ({"group_shape": 3, "n_components": 7}, "smaller groups, or a larger map"),
        ({"group_shape": (2.5, 1)}, "integers"),
        ({"group_shape": 0}, "group_shape"),
        ({"loss": "bernoulli"}, "loss='gaussian'.*AutoEncoder"),
        ({"alpha": 0}, "alpha"),
        ({"alpha": -1.0}, "alpha"),
        ({"prediction": 0.0}, "prediction"),
        ({"inference": "exact"}, "inference"),
        ({"activation": "relu"}, "activation"),
    ],
    ids=str,
)
def test_bad_parameters(X, parameters, match, monkeypatch):
    def draw(*args):
        raise AssertionError("training started")

    monkeypatch.setattr(torch, "Generator", draw)
    model = small_psd(**parameters)
    for method in (model.fit, model.partial_fit):
        # Before any work, naming the parameter and what to do.
        with pytest.raises(ValueError, match=match):
            method(X)
    assert not hasattr(model, "weights_")


@pytest.mark.parametrize("group", [{}, {"group_shape": 2, "map_shape": (2, 3)}])
def test_alpha_at_which_all_codes_vanish(X, group):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = small_psd(alpha=1000.0, **group).fit(X)
    (collapsed,) = [w for w in caught if w.category is CollapsedCodeWarning]
    # The user's line, and the number to stay below.
    assert collapsed.filename == __file__
    largest = model.largest_alpha(X)
    assert f"largest useful alpha is {largest:.4g}" in str(collapsed.message)
    if not group:
        correlation = standardized(model, X) @ model.decoder_components_.T
        assert largest == pytest.approx(np.abs(correlation).max())
    model.set_params(inference="optimal")
    # No code from there on, and some below.
    assert not model.set_params(alpha=1.001 * largest).transform(X).any()
    assert model.set_params(alpha=0.3 * largest).transform(X).any()


def test_dead_atoms_are_reported(X):
    largest = small_psd(n_components=64, max_iter=1).fit(X).largest_alpha(X)
    model = small_psd(n_components=64, alpha=0.6 * largest, max_iter=5)
    with pytest.warns(CollapsedCodeWarning, match=r"of 64 code units are constant.*smaller alpha"):
        codes = model.fit(X).transform(X)
    # A few atoms explain something, the others nothing at that price.
    assert 0 < codes.any(0).sum() <= 32


def test_auto_is_gaussian_also_for_values_between_zero_and_one(digits):
    data = digits[0][:100]
    model, named = (small_psd(loss=loss).fit(data) for loss in ("auto", "gaussian"))
    # Other models would take a cross-entropy here, for which there are no sparse codes.
    assert model.columns_.parts[0][0] == "gaussian"
    assert_array_equal(model.transform(data), named.transform(data))


def test_rows_whose_codes_overflow_have_no_likelihood(X):
    model = small_psd().fit(1e-150 * np.asarray(X, dtype=np.float64))
    with np.errstate(all="ignore"):
        scores = model.score_samples(1e160 * np.asarray(X, dtype=np.float64))
    assert (scores == -np.inf).all()
