"""Stacks that predict numbers: units of targets, rows without one, several at once."""

import pickle
import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import load_diabetes
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skae import (
    AutoEncoder,
    ContractiveAutoEncoder,
    SparseCoder,
    StackedAutoEncoder,
    StackedRegressor,
)
from skae.estimators.targets import Numbers

SMALL = {"max_iter": 3, "batch_size": 50, "random_state": 0}
# One batch holds all rows: no order of rows, no noise.
WHOLE = {"max_iter": 4, "batch_size": 1000, "n_iter_no_change": None, "random_state": 0}
# Layers that are hardly trained, however long fine-tuning takes.
SHORT = AutoEncoder(max_iter=3, batch_size=50)


@pytest.fixture
def table():
    """Two hundred patients: ten columns in raw units, and the disease's progression."""
    X, y = load_diabetes(return_X_y=True, scaled=False)
    return X[:200], y[:200]


def small_regressor(**parameters):
    return StackedRegressor((10, 6), **{"layer": "auto", "output": "linear", **SMALL, **parameters})


def assert_same_model(model, other):
    assert_array_equal(model.output_weights_, other.output_weights_)
    assert_array_equal(model.output_bias_, other.output_bias_)
    for name, weight in model.stack_.weights_.items():
        assert_array_equal(weight, other.stack_.weights_[name])


# The output alone


@pytest.mark.parametrize(
    ("penalty", "weighted", "several"),
    [(1e-2, False, True), (1.0, True, True), (10.0, True, False), (1e-2, False, False)],
)
def test_nothing_but_the_output_is_ridge_regression(table, penalty, weighted, several):
    X, y = table
    y = np.stack([y, X[:, 2] * 3, -y], axis=1) if several else y
    weight = np.random.default_rng(0).random(200) * 3 if weighted else None
    model = small_regressor(n_fine_tuned_layers=0, output_penalty=penalty).fit(X, y, weight)
    codes = model.stack_.transform(X)
    mean, scale = model.target_mean_, model.target_scale_
    z = (y - np.squeeze(mean)) / np.squeeze(scale)
    expected = Ridge(alpha=penalty, tol=1e-12).fit(codes, z, sample_weight=weight)
    # sum_i w_i (z_i - U h_i - d)^2 / 2 + penalty / 2 |U|^2, the user's weights as they are.
    assert_allclose(model.output_weights_, np.atleast_2d(expected.coef_), rtol=1e-7, atol=1e-9)
    assert_allclose(model.output_bias_, np.atleast_1d(expected.intercept_), rtol=1e-7, atol=1e-9)
    prediction = expected.predict(codes) * np.squeeze(scale) + np.squeeze(mean)
    assert_allclose(model.predict(X), prediction, rtol=1e-9)
    # Moments of the targets by the same weights.
    assert_allclose(mean, np.atleast_1d(np.average(y, axis=0, weights=weight)))
    variance = np.average((y - np.squeeze(mean)) ** 2, axis=0, weights=weight)
    assert_allclose(scale, np.atleast_1d(np.sqrt(variance)))


def test_gradient_steps_tend_to_ridge_regression(table):
    X, y = table
    layers = [AutoEncoder(6, **SMALL).fit(X)]
    settings = {"layers": layers, "pretraining": "prefit", "n_fine_tuned_layers": 0}
    best = StackedRegressor(**settings).fit(X, y)
    model = StackedRegressor(
        **settings, optimizer="nesterov", learning_rate=0.3, batch_size=1000, random_state=0
    ).partial_fit(X, y)
    model.output_weights_, model.output_bias_ = (
        np.zeros_like(model.output_weights_),
        np.ones_like(model.output_bias_),
    )
    for _ in range(600):
        model.partial_fit(X, y)
    # From elsewhere, by another way, to the optimum of the same criterion.
    assert_allclose(model.predict(X), best.predict(X), atol=0.02 * y.std())


# Fine-tuning


@pytest.mark.parametrize("layer", ["auto", "rbm", "psd"])
def test_fine_tuning_learns(table, layer):
    X, y = table
    model = StackedRegressor((16,), layer=layer, output="linear", **SMALL)
    frozen = clone(model).set_params(n_fine_tuned_layers=0, max_iter=10).fit(X, y)
    model.set_params(layers=frozen.stack_.layers_, pretraining="prefit")
    model.set_params(max_iter=40, learning_rate=5e-3, n_iter_no_change=None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(X, y)
    # Training rows, a supervised criterion: the whole fits better than the output alone.
    assert model.score(X, y) > frozen.score(X, y)
    assert model.loss_curve_[-1] < model.loss_curve_[0]


def test_loss_curve_is_in_nats_of_the_targets(table):
    X, y = table
    model = small_regressor(learning_rate=1e-300, max_iter=1, output_penalty=0.0).fit(X, y)
    s = y.std()
    residual = (y - model.predict(X)) / s
    # The Gaussian density of y, given its prediction and the scale of all targets.
    expected = 0.5 * np.mean(residual**2) + 0.5 * np.log(2 * np.pi) + np.log(s)
    assert_allclose(model.loss_curve_, [expected], rtol=1e-10)


@pytest.mark.parametrize("pretraining", ["supervised", "partly_supervised", "simultaneous", None])
def test_pretraining_is_that_of_the_stack(table, pretraining):
    X, y = table
    model = small_regressor(pretraining=pretraining, n_fine_tuned_layers=0).fit(X, y)
    stack = StackedAutoEncoder((10, 6), layer="auto", pretraining=pretraining, **SMALL)
    # A transformer takes whole numbers for classes, so it is given some that are none: by the
    # same targets up to that, the same layers.
    codes = stack.fit(X, y + 1e-9 * np.sqrt(np.arange(200))).transform(X)
    assert_allclose(model.stack_.transform(X), codes, rtol=1e-6)


# Units of the targets


@pytest.mark.parametrize(
    ("shift", "scale", "n_tuned"),
    [(0.0, 1e6, None), (-1e6, 1e-3, 0), (1e6, 1.0, None), (3.0, 1e-9, None)],
)
def test_units_of_targets_do_not_matter(table, shift, scale, n_tuned):
    X, y = table
    y = np.round((y - y.mean()) / y.std(), 2)
    model = small_regressor(n_fine_tuned_layers=n_tuned).fit(X, y)
    other = small_regressor(n_fine_tuned_layers=n_tuned).fit(X, shift + scale * y)
    # Targets are standardised: the same model in other units, to the rounding of the shift.
    rounding = 1e-15 * abs(shift) / scale
    assert_allclose(
        (other.predict(X) - shift) / scale, model.predict(X), rtol=1e-6, atol=1e-7 + 100 * rounding
    )
    assert_allclose(other.score(X, shift + scale * y), model.score(X, y), rtol=1e-5)


def test_units_of_columns_do_not_matter(table):
    X, y = table
    other = X * np.logspace(-3, 4, 10) + np.linspace(-50, 50, 10)
    assert_allclose(
        small_regressor().fit(other, y).predict(other), small_regressor().fit(X, y).predict(X),
        rtol=1e-6,
    )  # fmt: skip


def test_several_targets(table):
    X, y = table
    both = np.stack([y, 1e6 * X[:, 2]], axis=1)
    model = small_regressor(layer=SHORT, max_iter=30).fit(X, both)
    assert model.predict(X).shape == (200, 2)
    # Each in its own units, neither drowned by the other.
    for column in range(2):
        residual = both[:, column] - model.predict(X)[:, column]
        assert residual.std() < 0.9 * both[:, column].std()
    one = small_regressor().fit(X, y[:, np.newaxis])
    assert_array_equal(one.predict(X), small_regressor().fit(X, y).predict(X))


@pytest.mark.parametrize("value", [0.0, 7.0, -1e9])
def test_constant_target(table, value):
    X, _ = table
    model = small_regressor().fit(X, np.full(200, value))
    # Nothing to explain, and a mean that is known.
    assert_allclose(model.predict(X), value, rtol=1e-6, atol=1e-3)
    both = small_regressor().fit(X, np.stack([np.full(200, value), X[:, 2]], axis=1))
    assert np.isfinite(both.predict(X)).all()


# Rows without a target


@pytest.mark.parametrize("n_tuned", [0, 1, None])
def test_unknown_targets_take_part_in_pretraining_alone(table, n_tuned):
    X, y = table
    some = np.where(np.arange(200) < 80, y, np.nan)
    model = small_regressor(n_fine_tuned_layers=n_tuned, **WHOLE).fit(X, some)
    stack = StackedAutoEncoder((10, 6), layer="auto", **WHOLE).fit(X)
    prefit = StackedRegressor(
        layers=stack.layers_,
        pretraining="prefit",
        output="linear",
        n_fine_tuned_layers=n_tuned,
        **WHOLE,
    ).fit(X[:80], y[:80])
    # Layers from all rows, and from there on the others as if they were all.
    assert_allclose(model.predict(X), prefit.predict(X), rtol=1e-9)
    assert model.n_labelled_ == 80
    assert_allclose(model.target_mean_, y[:80].mean())


def test_unknown_targets_in_the_layers_own_criteria(table):
    X, y = table
    some = np.where(np.arange(200) < 80, y, np.nan)
    layers = StackedAutoEncoder(layers=[AutoEncoder(8, **WHOLE)]).fit(X).layers_
    other = X.copy()
    other[80:] = X[80:][::-1] * 1.1

    def weights(data, weight):
        model = StackedRegressor(
            layers=layers,
            pretraining="prefit",
            output="linear",
            unsupervised_weight=weight,
            **WHOLE,
        )
        return model.fit(data, some).stack_.weights_["0.weight_0"]

    # They count by that weight, and by nothing else.
    assert_array_equal(weights(X, 0.0), weights(other, 0.0))
    assert not np.allclose(weights(X, 0.5), weights(other, 0.5), rtol=1e-6)


def test_a_row_with_one_unknown_target_of_two(table):
    X, y = table
    both = np.stack([y, -2 * y], axis=1)
    both[100:, 1] = np.nan
    model = small_regressor(n_fine_tuned_layers=0, pretraining=None).fit(X, both)
    assert model.n_labelled_ == 200
    # Each output learns from all rows whose target it has, as if it were alone.
    first = clone(model).fit(X, y)
    assert_allclose(model.predict(X)[:, 0], first.predict(X), rtol=1e-9)
    second = clone(model).fit(X[:100], -2 * y[:100])
    halves = np.stack([model.predict(X[:100])[:, 1], second.predict(X[:100])])
    assert np.corrcoef(halves)[0, 1] > 0.9  # columns are standardised by other rows
    scores = [first.score(X, y), model.set_params(output="linear").score(X, both)]
    assert scores[1] == pytest.approx(
        (scores[0] + r2_score(both[:100, 1], model.predict(X)[:100, 1])) / 2
    )


# Weights


@pytest.mark.parametrize("n_tuned", [0, 1, None])
def test_weights_are_repetitions(table, n_tuned):
    X, y = table
    weight = np.arange(200) % 3
    settings = {"n_fine_tuned_layers": n_tuned, **WHOLE}
    weighted = small_regressor(**settings).fit(X, y, sample_weight=weight)
    repeated = small_regressor(**settings).fit(np.repeat(X, weight, axis=0), np.repeat(y, weight))
    assert_allclose(weighted.predict(X), repeated.predict(X), rtol=1e-6)
    assert weighted.labelled_weight_ == repeated.labelled_weight_ == weight.sum()
    # Rows of weight 0 do not matter, whatever they hold.
    other_X, other_y = X.copy(), y.copy()
    other_X[weight == 0], other_y[weight == 0] = 1e3, -1e9
    assert_same_model(
        small_regressor(**settings).fit(other_X, other_y, sample_weight=weight), weighted
    )


def test_early_stopping(table):
    X, y = table
    model = small_regressor(
        early_stopping=True, max_iter=20, learning_rate=0.05, layer=SHORT, n_iter_no_change=None
    )
    some = np.where(np.arange(200) % 4, y, np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(X, some)
    # Losses of rows that were held out, in nats; the best epoch's weights are the model.
    assert len(model.validation_curve_) == len(model.loss_curve_) == 20
    assert np.isfinite(model.validation_curve_).all()
    assert model.score(X, y) > 0.2


# Continued


def test_partial_fit_goes_on(table):
    X, y = table
    model = small_regressor(learning_rate=5e-3)
    losses = [model.partial_fit(X, y).loss_curve_[-1] for _ in range(30)]
    # Passes of one training: moments and random state carry over, the loss falls.
    assert losses == model.loss_curve_
    assert losses[-1] < losses[0]
    assert model.n_iter_ == 30
    mean = model.target_mean_.copy()
    model.partial_fit(X, 2 * y)
    # The units are those of the first call.
    assert_array_equal(model.target_mean_, mean)
    again = small_regressor(learning_rate=5e-3)
    for i in range(10):
        again.partial_fit(X, y)
        if i == 4:
            again = pickle.loads(pickle.dumps(again))
    assert again.loss_curve_ == losses[:10]


def test_part_without_targets(table):
    X, y = table
    nothing = np.full(200, np.nan)
    with pytest.raises(ValueError, match="NaN among their targets"):
        small_regressor(unsupervised_weight=0.5).partial_fit(X, nothing)
    model = small_regressor().partial_fit(X, y)
    with pytest.raises(ValueError, match="unsupervised_weight > 0"):
        model.partial_fit(X, nothing)
    kept = small_regressor(unsupervised_weight=0.5).partial_fit(X, y)
    before = kept.stack_.weights_["0.weight_0"]
    kept.partial_fit(X, nothing)
    # The layers learn from it what they can.
    assert (kept.stack_.weights_["0.weight_0"] != before).any()


@pytest.mark.parametrize("n_tuned", [0, None])
def test_fit_forgets_earlier_parts(table, n_tuned):
    X, y = table
    model = small_regressor(n_fine_tuned_layers=n_tuned).partial_fit(X[::-1], y).fit(X, y)
    fresh = small_regressor(n_fine_tuned_layers=n_tuned).fit(X, y)
    assert_same_model(model, fresh)
    # Moments from before the fit are those of another model.
    assert_same_model(model.partial_fit(X, y), fresh.partial_fit(X, y))


def test_warm_start(table):
    X, y = table
    model = small_regressor(warm_start=True).fit(X, y)
    stack = model.stack_
    weights = {name: weight.copy() for name, weight in stack.weights_.items()}
    losses = [model.fit(X, y).loss_curve_[-1] for _ in range(5)]
    # Fine-tuning goes on from where it was, on copies.
    assert losses[-1] < losses[0]
    for name, weight in weights.items():
        assert_array_equal(stack.weights_[name], weight)


# Data and composition


def test_integer_targets(table):
    X, y = table
    # Counts are numbers here, never classes.
    model = small_regressor(pretraining="supervised").fit(X, y.astype(int))
    assert_allclose(
        model.predict(X), small_regressor(pretraining="supervised").fit(X, y).predict(X)
    )


def test_float32(table):
    X, y = table[0].astype(np.float32), table[1].astype(np.float32)
    for parameters in ({}, {"n_fine_tuned_layers": 0}, {"pretraining": None}):
        model = small_regressor(**parameters).fit(X, y)
        assert model.predict(X).dtype == np.float32
        assert model.stack_.transform(X).dtype == np.float32


@pytest.mark.parametrize("parameters", [{"dropout": 0.2}, {"pretraining": "supervised"}], ids=str)
def test_same_seed_same_bits(table, parameters):
    X, y = table
    first, again = (small_regressor(**parameters).fit(X, y) for _ in range(2))
    assert_same_model(first, again)
    # A fit forgets an earlier one of the same object.
    assert_same_model(first.fit(X[:90], y[:90]).fit(X, y), again)
    other = small_regressor(**{**parameters, "random_state": 1}).fit(X, y)
    assert (other.output_weights_ != first.output_weights_).any()


def test_grid_search(table):
    X, y = table
    layers = [ContractiveAutoEncoder(8, **SMALL)]
    pipeline = make_pipeline(StackedRegressor(layers=layers, **SMALL))
    grid = {"stackedregressor__layers__0__contraction": [0.0, 50.0]}
    scores = GridSearchCV(pipeline, grid, cv=2).fit(X, y).cv_results_["mean_test_score"]
    # Each setting arrives: two different models came out.
    assert np.isfinite(scores).all()
    assert scores[0] != scores[1]


# Bad input


REFUSED = [
    ({}, None, "requires y to be passed, but the target y is None"),
    ({}, np.arange(199.0), "inconsistent numbers of samples"),
    ({}, np.full(200, np.nan), "NaN among their targets.*learn features without"),
    ({}, np.full(200, np.inf), "infinity"),
    ({}, np.full(200, "a"), "convert string|numeric"),
    ({}, np.zeros((200, 2, 2)), "dim"),
    ({"n_fine_tuned_layers": 3}, "y", "n_fine_tuned_layers=3, but there are 2"),
    ({"layers": [AutoEncoder(8), SparseCoder(4)]}, "y", r"Layer 1 \(SparseCoder\)"),
    ({"layers": [AutoEncoder(8)], "layer_sizes": (9,)}, "y", "contradicts"),
    ({"dropout": 1.0}, "y", "'dropout' parameter"),
]


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(
    ("parameters", "target", "match"), REFUSED, ids=lambda value: str(value)[:50]
)
def test_refused_before_any_layer_trains(table, parameters, target, match):
    X, y = table
    target = y if isinstance(target, str) else target
    model = StackedRegressor(**parameters)
    with pytest.raises(ValueError, match=match):
        model.fit(X, target)
    with pytest.raises(ValueError, match=match):
        model.partial_fit(X, target)
    # Not half a model.
    with pytest.raises(NotFittedError):
        model.predict(X)
    assert not [name for name in vars(model) if name.endswith("_")]


@pytest.mark.usefixtures("no_training")
def test_targets_of_rows_that_do_not_count(table):
    X, y = table
    only = np.where(np.arange(200) < 50, np.nan, y)
    weight = (np.arange(200) < 50).astype(float)
    # All rows that count are without a target.
    with pytest.raises(ValueError, match="NaN among their targets"):
        small_regressor().fit(X, only, sample_weight=weight)


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_failure_leaves_the_earlier_model(table, fail_in_training, method):
    X, y = table
    model = small_regressor(verbose=True).fit(X, y)
    before = pickle.dumps(vars(model))
    fail_in_training(RuntimeError("out of memory"), epoch=1)
    with pytest.raises(RuntimeError):
        getattr(model, method)(X**2, 3 * y)
    # Neither layers nor the targets' moments are those of data that were not learned.
    assert pickle.dumps(vars(model)) == before
    with pytest.raises(ValueError, match="2 outputs, but this model has 1"):
        model.partial_fit(X, np.stack([y, y], axis=1))
    assert pickle.dumps(vars(model)) == before


@pytest.mark.parametrize("penalty", [0.0, 1e-3])
def test_weak_penalties_do_not_tear_the_layers_apart(table, penalty):
    X, y = table
    model = StackedRegressor(
        (64, 64), output="linear", output_penalty=penalty, max_iter=20, random_state=0
    ).fit(X, y)
    # Codes of few epochs are nearly collinear: without any penalty the output that is best on
    # them has huge weights, and the first steps through these would explode.
    assert model.stopping_reason_ != "diverged"


def test_defaults_on_a_raw_table():
    X, y = load_diabetes(return_X_y=True, scaled=False)
    model = StackedRegressor(max_iter=10, random_state=0).fit(X[::2], y[::2])
    # Columns and targets of any units, untouched defaults, few epochs: near the 0.5 at most
    # that anything finds in these data.
    assert model.score(X[1::2], y[1::2]) > 0.35


def test_targets_that_vary_little_about_a_large_mean(table):
    X, y = table
    shifted = 1e9 + y / y.std()
    model = small_regressor().fit(X.astype(np.float32), shifted)
    plain = small_regressor().fit(X.astype(np.float32), y)
    # As good as without the shift, which float32 could not tell from the targets.
    assert_allclose(model.score(X, shifted), plain.score(X, y), atol=0.02)


def test_rows_without_a_target_judge_nothing(table):
    X, y = table
    model = small_regressor().fit(X, y)
    some = np.where(np.arange(len(y)) % 2 == 0, y, np.nan)
    assert model.score(X, some) == model.score(X[::2], y[::2])


@pytest.mark.parametrize("value", [0.0, 0.1, -1e9])
def test_a_target_that_does_not_vary_has_no_scale(value):
    kind = Numbers()
    y = np.column_stack([np.full(30, value), np.arange(30.0)])
    kind = kind.described(kind.checked(y))
    # What varies is the rounding of its mean, which is nothing to divide by.
    assert kind.scale[0] == 1.0
    assert kind.scale[1] == pytest.approx(np.arange(30).std())


@pytest.mark.parametrize(("offset", "dtype"), [(0.0, np.float32), (1e9, np.float64)])
def test_predictions_have_the_precision_of_rows_and_targets(table, offset, dtype):
    X, y = table
    model = small_regressor(pretraining=None).fit(X.astype(np.float32), y + offset)
    found = model.predict(X.astype(np.float32))
    # As float32 as the rows are, unless the targets would all become one number.
    assert found.dtype == dtype
    assert len(np.unique(found)) > 100
    assert model.predict(X).dtype == np.float64


def test_a_row_of_no_weight_is_not_scored_however_far_it_is(table):
    _, y = table
    predicted, weight = y + 1.0, np.arange(len(y), dtype=float)
    kind = Numbers(np.zeros(1), np.ones(1))
    near = kind.score(y, predicted, weight)
    predicted[0] = 1e200
    assert kind.score(y, predicted, weight) == near
    # Of one row that counts there is a score, as scikit-learn has it.
    assert kind.score(y, predicted, (np.arange(len(y)) == 1) * 1.0) == 0.0
    with np.errstate(over="ignore"):
        assert kind.score(y, predicted) == -np.inf
