"""Kernel outputs of stacks: what they are, when they are, and what they leave of labels."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse, special
from scipy.spatial.distance import cdist
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_digits, load_wine
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV

from skae import (
    AutoEncoder,
    ManifoldTangentClassifier,
    StackedAutoEncoder,
    StackedClassifier,
    StackedRegressor,
)
from skae.estimators.supervised import kernels

SMALL = {"max_iter": 3, "batch_size": 50, "random_state": 0}


@pytest.fixture
def wine():
    X, y = load_wine(return_X_y=True)
    return X, y


@pytest.fixture
def diabetes():
    X, y = load_diabetes(return_X_y=True, scaled=False)
    return X[:150], y[:150]


def classifier(**parameters):
    return StackedClassifier((6, 5), **{"layer": "auto", **SMALL, **parameters})


def regressor(**parameters):
    return StackedRegressor((6, 5), **{"layer": "auto", **SMALL, **parameters})


def views(stack, X):
    """The columns as the stack's lowest layer sees them, and the codes of its layers."""
    columns = stack.columns_
    lower = clone(stack).set_params(code_layer=0)
    vars(lower).update({name: value for name, value in vars(stack).items() if name[-1] == "_"})
    return [(X - columns.shift) / columns.scale, lower.transform(X), stack.transform(X)]


def similarities(of_all, x, z):
    """The kernel by NumPy: distances by twice their mean over all pairs of rows."""
    total = 0
    for all_rows, left, right in zip(of_all, x, z, strict=True):
        euclidean = np.sqrt(cdist(all_rows, all_rows, "sqeuclidean").mean())
        total += np.exp(-cdist(left, right) / (2 * euclidean))
        city_block = cdist(all_rows, all_rows, "cityblock").mean()
        total += np.exp(-cdist(left, right, "cityblock") / (2 * city_block))
    return total / (2 * len(x))


# What it is


@pytest.mark.parametrize("penalty", [1.0, 4.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_numbers_are_kernel_ridge_regression(diabetes, penalty, weighted):
    X, y = diabetes
    some = np.where(np.arange(150) < 60, y, np.nan)
    weight = np.random.default_rng(0).random(150) + 0.5 if weighted else None
    model = regressor(output_penalty=penalty).fit(X, some)
    if weighted:
        layers = model.stack_.layers_
        model = StackedRegressor(
            layers=layers, pretraining="prefit", output="kernel", output_penalty=penalty
        ).fit(X[:60], y[:60], weight[:60])
        of_all = None
    seen = views(model.stack_, X)
    labelled = [view[:60] for view in seen]
    if weighted:
        # Distances by weights, too: of rows that are there as often as their weights say.
        w = np.outer(weight[:60], weight[:60]) / weight[:60].sum() ** 2
        for scale, view in zip(model.kernel_output_.distances, labelled, strict=True):
            assert_allclose(scale.city_block, (w * cdist(view, view, "cityblock")).sum())
    else:
        w60 = np.ones(60)
        of_all = similarities(seen, labelled, labelled)
        ((share, linear, least, most),) = model.kernel_output_.mixtures
        z = ((y[:60] - y[:60].mean()) / y[:60].std()).clip(least, most)
        # The columns' own kernel is (x - c) (z - c) / q, whose mean over rows with themselves is 1.
        centered = seen[0] - seen[0].mean(axis=0)
        centered /= np.sqrt(np.square(centered).sum(axis=1).mean())
        mixed = share * of_all + linear * centered[:60] @ centered[:60].T
        coefficients = np.linalg.solve(mixed + penalty * np.diag(1 / w60), z - z.mean())
        expected = share * similarities(seen, seen, labelled) @ coefficients + z.mean()
        expected += linear * centered @ centered[:60].T @ coefficients
        assert_allclose(model.predict(X), expected * y[:60].std() + y[:60].mean(), rtol=1e-6)
        assert_allclose(model.output_weights_, share * coefficients[None], rtol=1e-5, atol=1e-7)
        assert_array_equal(model.kernel_output_.positions, np.arange(60))
    # Nothing was fine-tuned; a closed form is one iteration.
    assert model.n_iter_ == 1
    assert model.loss_curve_ == []


def test_classes_are_kernel_ridge_regression_and_a_calibration(wine):
    X, y = wine
    some = np.where(np.arange(178) % 4 == 0, y, -1)
    model = classifier().fit(X, some)
    seen, rows = views(model.stack_, X), some >= 0
    labelled = [view[rows] for view in seen]
    kernel = similarities(seen, labelled, labelled)
    one_hot = np.eye(3)[y[rows]]
    mean = one_hot.mean(0)
    coefficients = np.linalg.solve(kernel + np.eye(rows.sum()), one_hot - mean)
    output = similarities(seen, seen, labelled) @ coefficients + mean
    ((slope, shift),) = model.kernel_output_.calibrations
    logits = slope * np.log((output + np.sqrt(output**2 + 0.08**2)) / 2) + shift
    assert_allclose(model.decision_function(X), logits, rtol=1e-5, atol=1e-5)
    assert_allclose(model.predict_proba(X), special.softmax(logits, axis=1), atol=1e-6)
    assert_array_equal(model.predict(X), logits.argmax(1))


def test_rows_left_out_are_rows_whose_label_is_hidden(wine):
    X, y = wine
    layers = [FrozenEstimator(layer) for layer in classifier().fit(X, y).stack_.layers_]
    model = StackedClassifier(layers=layers, pretraining="prefit", output="kernel")
    some = np.where(np.arange(178) % 6 == 0, y, -1)
    left_out = model.fit(X, some).kernel_output_.left_out
    kinds = model._targets().groups
    for number, row in enumerate(np.flatnonzero(some >= 0)[::5]):
        hidden = some.copy()
        hidden[row] = -1
        other = clone(model).fit(X, hidden)
        raw = kernels.KernelOutput(**{**vars(other.kernel_output_), "calibrations": ()})
        place = kernels.Place(torch.float64, torch.device("cpu"))
        function = raw.function(other.output_weights_, other.output_bias_, kinds, place)
        expected = function(kernels.views_of(other.stack_, X[row : row + 1]))
        # The closed form is what a fit without that label says.
        assert_allclose(left_out[5 * number], expected[0], rtol=1e-8, atol=1e-10)


def test_probabilities_are_calibrated_for_few_labels(wine):
    X, y = wine
    losses = []
    for seed in range(3):
        known = np.random.default_rng(seed).permutation(178)[:24]
        some = np.full(178, -1)
        some[known] = y[known]
        rest = some == -1
        model = classifier(random_state=seed).fit(X, some)
        losses.append(log_loss(y[rest], model.predict_proba(X[rest])))
        linear = classifier(output="linear", random_state=seed).fit(X, some)
        assert losses[-1] < log_loss(y[rest], linear.predict_proba(X[rest]))
    # Half of that of knowing nothing, 1.09.
    assert np.mean(losses) < 0.55


# When it is


def a_table(kind):
    X, y = load_wine(return_X_y=True)
    y = np.where(np.arange(178) % 3 == 0, y, -1)
    unit = (X - X.min(0)) / np.ptp(X, axis=0)
    made = {
        "numbers": X,
        "images": np.where(unit < 0.3, 0, unit),
        "words": sparse.csr_matrix(np.where(unit < 0.5, 0, unit)),
        "sparse numbers": sparse.csr_matrix(X),
        "categories": pd.DataFrame({
            "size": np.where(X[:, 0] > 13, "large", "small"),
            "kind": np.select([X[:, 1] < 1.5, X[:, 1] < 3], ["a", "b"], "c"),
        }),
        "many categories": pd.DataFrame(
            {f"c{k}": np.array(["a", "b", "c"])[(3 * u * 0.999).astype(int)]
             for k, u in enumerate(unit.T)}
        ),
        "one-hot numbers": np.hstack([np.eye(3)[(3 * u * 0.999).astype(int)] for u in unit.T]),
        "two values": pd.DataFrame({"size": X[:, 0] > 13, "hue": X[:, 10] > 1}),
        "numbers and gaps": pd.DataFrame(np.where(unit < 0.02, np.nan, unit)),
    }  # fmt: skip
    return made[kind], y


@pytest.mark.parametrize(
    ("kind", "is_kernel"),
    [
        ("numbers", True),
        ("categories", True),
        ("many categories", True),
        ("one-hot numbers", True),
        ("two values", True),
        ("numbers and gaps", True),
        ("images", False),
        ("words", False),
        ("sparse numbers", True),
    ],
)
def test_auto_is_for_tables(kind, is_kernel):
    X, y = a_table(kind)
    with warnings.catch_warnings():
        # Two columns have little to say.
        warnings.simplefilter("ignore")
        model = classifier().fit(X, y)
    assert (model.kernel_output_ is not None) == is_kernel
    assert np.isfinite(model.predict_proba(X)).all()
    assert model.output_weights_.shape == (3, np.sum(y >= 0) if is_kernel else 5)


@pytest.mark.parametrize(
    "tuned",
    [
        {"n_fine_tuned_layers": 0},
        {"n_fine_tuned_layers": 2},
        {"early_stopping": True},
        {"dropout": 0.1},
        {"dropout": (0.1, 0.0)},
        {"unsupervised_weight": 0.1},
        {"adversarial_step": 0.1},
        {"pretraining": None},
        {"output": "linear"},
    ],
    ids=str,
)
def test_auto_is_linear_where_training_was_asked_for(wine, tuned):
    assert classifier(**tuned).fit(*wine).kernel_output_ is None


@pytest.mark.parametrize(("scale", "linear"), [(1.0, True), (1 / 16, True), (-1.0, False)])
def test_auto_is_linear_for_images(scale, linear):
    # On one scale from 0, whatever it is; values below 0 are no intensities.
    X, y = load_digits(return_X_y=True)
    model = StackedClassifier((4,), max_iter=1, pretraining="supervised", random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nothing is learned in one epoch
        model.fit(X[:200] * scale, y[:200])
    assert (model.kernel_output_ is None) == linear


def test_auto_is_linear_where_labels_are_many(wine, monkeypatch):
    X, y = wine
    monkeypatch.setattr(kernels, "MOST_ROWS", 100)
    assert classifier().fit(X, y).kernel_output_ is None
    some = np.where(np.arange(178) < 100, y, -1)
    assert classifier().fit(X, some).kernel_output_ is not None
    # Columns may be too many to wait for their distances, and a kernel is not asked for.
    with monkeypatch.context() as patch:
        patch.setattr(kernels, "_MOST_NUMBERS", X.size - 1)
        assert classifier().fit(X, some).kernel_output_ is None
    # Who wants the kernel gets one of as many rows as there is room for.
    model = classifier(output="kernel").fit(X, y)
    positions = model.kernel_output_.positions
    assert len(np.unique(positions)) == 100
    assert model.output_weights_.shape == (3, 100)
    again = classifier(output="kernel").fit(X, y)
    assert_array_equal(again.kernel_output_.positions, positions)


def test_tangent_classifiers_of_tables(wine):
    X, y = wine
    model = ManifoldTangentClassifier((6,), layer=AutoEncoder(max_iter=3), random_state=0)
    model.fit(X, np.where(np.arange(178) % 3 == 0, y, -1))
    assert model.kernel_output_ is not None
    # The tangents are there all the same.
    assert model.tangents(X[:2]).shape == (2, model.n_tangents_, 13)
    assert model.score(X, y) > 0.9


# Forms of targets and rows


def test_several_outputs_are_several_models(wine):
    X, y = wine
    other = (X[:, 0] > 13).astype(int)
    both = np.stack([y, other], axis=1)
    both[1::3, 0] = -2
    both[::5, 1] = -2
    model = classifier(output="kernel", unlabelled=-2).fit(X, both)
    layers = model.stack_.layers_
    for number in range(2):
        one = StackedClassifier(layers=layers, pretraining="prefit", output="kernel", unlabelled=-2)
        one.fit(X, both[:, number])
        assert_allclose(model.predict_proba(X)[number], one.predict_proba(X), rtol=1e-6)
    assert model.predict(X).shape == (178, 2)


def test_several_numbers_are_several_models(diabetes):
    X, y = diabetes
    both = np.stack([y, X[:, 2] * 1e3], axis=1)
    model = regressor().fit(X, both)
    assert_allclose(model.predict(X)[:, 0], regressor().fit(X, y).predict(X), rtol=1e-9)
    assert model.score(X, both) > 0.5
    # A row that misses one number teaches the other.
    both[::3, 1] = np.nan
    with_gaps = regressor().fit(X, both)
    assert_allclose(with_gaps.predict(X)[:, 0], model.predict(X)[:, 0], rtol=1e-9)
    assert with_gaps.score(X, both) > 0.5


def test_numbers_are_linear_in_the_columns_where_left_out_rows_say_so():
    draws = np.random.default_rng(0)
    X = draws.normal(size=(300, 8))
    y = X @ np.linspace(1, 2, 8) + 0.3 * draws.normal(size=300)
    some = np.where(np.arange(300) < 40, y, np.nan)
    model = regressor(output="kernel").fit(X, some)
    assert model.kernel_output_.mixtures[0].linear >= 3
    # Of the variance of 19, noise leaves 0.1.
    assert model.score(X[40:], y[40:]) > 0.95
    # One target that was entered wrong does not spoil all: as it is, it would be most of the mean.
    some[7] = 1e4
    model = regressor(output="kernel").fit(X, some)
    assert np.isfinite(model.kernel_output_.mixtures[0].most)
    assert model.score(X[40:], y[40:]) > 0.4


@pytest.mark.parametrize("make", [classifier, regressor])
def test_weights_are_repetitions(wine, make):
    X, y = wine
    weight = np.arange(178) % 3
    whole = {"batch_size": 1000, "max_iter": 3}
    weighted = make(**whole).fit(X, y, sample_weight=weight)
    repeated = make(**whole).fit(np.repeat(X, weight, axis=0), np.repeat(y, weight))
    of = "decision_function" if make is classifier else "predict"
    assert_allclose(getattr(weighted, of)(X), getattr(repeated, of)(X), rtol=1e-4, atol=1e-4)
    other_X, other_y = X.copy(), y.copy()
    other_X[weight == 0], other_y[weight == 0] = 1e3, 2
    other = make(**whole).fit(other_X, other_y, sample_weight=weight)
    # Rows of weight 0 do not matter, whatever they hold.
    assert_array_equal(other.predict(X), weighted.predict(X))


def test_class_weights_are_sample_weights(wine):
    X, y = wine
    layers = [FrozenEstimator(layer) for layer in classifier().fit(X, y).stack_.layers_]
    # Distances are over all rows, which weights of classes do not weigh.
    model = StackedClassifier(layers=layers, pretraining="prefit", output=of_one_width)
    weight = np.array([1.0, 3.0, 0.5])[y]
    by_class = clone(model).set_params(class_weight={0: 1.0, 1: 3.0, 2: 0.5}).fit(X, y)
    by_row = clone(model).fit(X, y, sample_weight=weight)
    assert_allclose(by_class.predict_proba(X), by_row.predict_proba(X), rtol=1e-6)
    assert (by_class.output_bias_ / model.fit(X, y).output_bias_)[1] > 1.5


def test_same_seed_same_bits(wine):
    X, y = wine
    some = np.where(np.arange(178) % 4 == 0, y, -1)
    one, other = classifier().fit(X, some), classifier().fit(X, some)
    assert one.predict_proba(X).tobytes() == other.predict_proba(X).tobytes()
    assert pickle.loads(pickle.dumps(one)).predict_proba(X).tobytes() == (
        one.predict_proba(X).tobytes()
    )


def test_float32_rows_predict_alike(wine):
    X, y = wine
    single = classifier().fit(X.astype(np.float32), y)
    double = classifier().fit(X.astype(np.float32).astype(np.float64), y)
    assert_allclose(single.predict_proba(X), double.predict_proba(X), atol=5e-3)


# Going on


def test_partial_fit_is_linear(wine):
    X, y = wine
    model = classifier().partial_fit(X, y, classes=range(3))
    assert model.kernel_output_ is None
    model = classifier().fit(X, y)
    assert model.kernel_output_ is not None
    layers = model.stack_
    model.partial_fit(X, y)
    # The layers go on, under an output that starts as logistic regression on their codes.
    assert model.kernel_output_ is None
    assert model.output_weights_.shape == (3, 5)
    assert_allclose(model.stack_.transform(X), layers.transform(X), atol=0.05)
    with pytest.raises(ValueError, match=r"partial_fit learns a linear output.*'linear'"):
        classifier(output="kernel").partial_fit(X, y, classes=range(3))


def test_warm_start_keeps_the_layers(wine):
    X, y = wine
    model = classifier(warm_start=True).fit(X, np.where(np.arange(178) % 4 == 0, y, -1))
    layers = model.stack_.layers_
    model.fit(X, y)
    assert len(model.kernel_output_.positions) == 178
    for layer, before in zip(model.stack_.layers_, layers, strict=True):
        assert_array_equal(layer.weights_["weight_0"], before.weights_["weight_0"])
    # And to a linear output, which starts as the first does.
    model.set_params(output="linear").fit(X, y)
    assert model.kernel_output_ is None
    assert model.output_weights_.shape == (3, 5)
    assert model.set_params(output="kernel").fit(X, y).output_weights_.shape == (3, 178)


# Kernels of one's own


def of_one_width(x, z, distances):
    return torch.exp(-torch.cdist(x, z).square() / 20)


def gaussian(x, z, distances):
    return torch.exp(-torch.cdist(x, z).square() / distances.euclidean**2)


def test_a_kernel_of_the_users_own(wine):
    X, y = wine
    model = classifier(output=gaussian).fit(X[::2], y[::2])
    assert model.score(X[1::2], y[1::2]) > 0.9
    other = pickle.loads(pickle.dumps(clone(model).fit(X[::2], y[::2])))
    assert_array_equal(other.predict_proba(X), model.predict_proba(X))
    assert not np.allclose(
        classifier().fit(X[::2], y[::2]).predict_proba(X), other.predict_proba(X)
    )


def one_argument(x):
    """No kernel."""


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (one_argument, r"output=.*one_argument.* called as output\(x, z, distances\)"),
        (lambda x, z, d: None, "returned a NoneType, None, for 178 and 178 rows"),
        (lambda x, z, d: np.ones((len(x), len(z))), r"returned a ndarray, \(178, 178\)"),
        (lambda x, z, d: torch.ones(3, 2), r"returned a Tensor, \(3, 2\).*similarities"),
        (lambda x, z, d: torch.cdist(x, z) / 0, "returned NaN or infinity"),
    ],
    ids=["of other arguments", "nothing", "an array", "of another shape", "not finite"],
)
def test_a_kernel_that_is_none(wine, kernel, message):
    with pytest.raises(ValueError, match=message):
        classifier(output=kernel).fit(*wine)


def test_outputs_in_a_search(wine):
    X, y = wine
    stack = StackedAutoEncoder((6,), layer="auto", **SMALL).fit(X)
    layers = [FrozenEstimator(layer) for layer in stack.layers_]
    model = StackedClassifier(layers=layers, pretraining="prefit", max_iter=3)
    search = GridSearchCV(model, {"output": ["linear", "kernel", gaussian]}, cv=3).fit(X, y)
    assert search.best_params_["output"] != "linear"
    with pytest.raises(ValueError, match="'output' parameter"):
        classifier(output="typo").fit(X, y)
