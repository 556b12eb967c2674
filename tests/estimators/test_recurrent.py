"""The deep recurrent auto-encoder as an estimator: starts, gaps, codes, draws, refusals."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV

from skae import (
    RBM,
    AutoEncoder,
    DeepRecurrentAutoEncoder,
    DenoisingAutoEncoder,
    GenerativeStochasticNetwork,
    StackedAutoEncoder,
)

QUICK = {"random_state": 0, "device": "cpu"}


@pytest.fixture(scope="module")
def rows(digits):
    return digits[0][:400]


@pytest.fixture(scope="module")
def stack(rows):
    layer = DenoisingAutoEncoder(tied_weights=True, max_iter=10, learning_rate=0.01)
    return StackedAutoEncoder((20, 8), layer=layer, fine_tuning=False, **QUICK).fit(rows)


def nearly_untrained(start, sizes=(20, 8), **settings):
    """A model that is what it began with, but for steps of no length."""
    settings = {"learning_rate": 1e-12, "max_iter": 1, "n_steps": 3, **QUICK, **settings}
    return DeepRecurrentAutoEncoder(sizes, pretraining=start, **settings)


# Starts


@pytest.mark.parametrize("form", ["stack", "layers", "frozen"])
def test_first_pass_is_the_stack(stack, rows, form):
    start = {
        "stack": stack,
        "layers": list(stack.layers_),
        "frozen": [FrozenEstimator(layer) for layer in stack.layers_],
    }[form]
    before = [layer.weights_["weight_0"].copy() for layer in stack.layers_]
    model = nearly_untrained(start).fit(rows)
    for layer in (0, 1):
        model.set_params(code_layer=layer, code_step=0)
        # What the pre-trained stack makes of a row, at every layer.
        assert_allclose(
            model.transform(rows), stack.set_params(code_layer=layer).transform(rows), atol=1e-6
        )
    # And what is read out then is the lowest layer's reconstruction.
    lowest = stack.layers_[0]
    assert_allclose(model.denoise(rows, step=0), lowest.reconstruct(rows), atol=1e-6)
    # Later steps hear the layer above, too.
    later = model.set_params(code_step=-1, code_layer=0).transform(rows)
    assert np.abs(later - lowest.transform(rows)).max() > 0.01
    for layer, weight in zip(stack.layers_, before, strict=True):
        assert_array_equal(layer.weights_["weight_0"], weight)


def test_learning_goes_on_from_the_stack(stack, rows):
    settings = {"n_steps": 3, "max_iter": 5, "learning_rate": 0.005, **QUICK}
    begun = DeepRecurrentAutoEncoder((20, 8), pretraining=stack, **settings).fit(rows)
    afresh = DeepRecurrentAutoEncoder((20, 8), **settings).fit(rows)
    # It starts lower than random weights, and ends lower after as many epochs.
    assert begun.loss_curve_[0] < afresh.loss_curve_[0] - 1
    assert begun.loss_curve_[-1] < afresh.loss_curve_[-1]
    # A warm start goes on from its own weights, not from the stack's.
    weights = begun.weights_
    again = begun.set_params(warm_start=True, learning_rate=1e-12, max_iter=1).fit(rows)
    for name, array in weights.items():
        assert_allclose(again.weights_[name], array, atol=1e-8)


def test_layers_may_be_machines(rows):
    first = RBM(12, max_iter=2, **QUICK).fit(rows)
    second = RBM(6, max_iter=2, **QUICK).fit(first.transform(rows))
    model = nearly_untrained([first, second], (12, 6), code_step=0).fit(rows)
    assert_allclose(model.transform(rows), second.transform(first.transform(rows)), atol=1e-6)


def test_frozen_layers_survive_a_search(stack, rows):
    model = nearly_untrained([FrozenEstimator(layer) for layer in stack.layers_])
    search = GridSearchCV(model, {"n_steps": [1, 2]}, cv=2, refit=False).fit(rows)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda stack, rows: clone(stack), "is no fitted StackedAutoEncoder"),
        (lambda stack, rows: [AutoEncoder(20), AutoEncoder(8)], "Layer 0 .*is no fitted layer"),
        (lambda stack, rows: stack.layers_[:1], r"layer_sizes=\(20, 8\).*\(20,\) units"),
        (lambda stack, rows: stack.layers_[::-1], r"have \(8, 20\) units"),
        (
            lambda stack, rows: [
                AutoEncoder(20, tied_weights=False, max_iter=1).fit(rows), stack.layers_[1]
            ],
            "tied weights",
        ),
        (
            lambda stack, rows: [
                AutoEncoder(20, activation="tanh", tied_weights=True, max_iter=1).fit(rows),
                stack.layers_[1],
            ],
            "activation='tanh', but this DeepRecurrentAutoEncoder has 'sigmoid'",
        ),
        (
            lambda stack, rows: [
                DenoisingAutoEncoder(20, tied_weights=True, loss="gaussian", max_iter=1).fit(rows),
                stack.layers_[1],
            ],
            "columns of another number, kind or scale",
        ),
        (
            lambda stack, rows: [
                DenoisingAutoEncoder(20, tied_weights=True, max_iter=1).fit(rows[:, :40]),
                stack.layers_[1],
            ],
            "columns of another number, kind or scale",
        ),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::skae.CollapsedCodeWarning", "ignore:.*converged")
def test_what_cannot_be_begun_with_is_refused(stack, rows, make, message):
    model = nearly_untrained(make(stack, rows))
    with pytest.raises(ValueError, match=message):
        model.fit(rows)
    assert not hasattr(model, "weights_")


# Gaps


def test_gaps_have_no_part_in_the_loss(rows):
    settings = {"corruption": None, "n_steps": 2, "max_iter": 3, "batch_size": 400, **QUICK}
    rng = np.random.default_rng(0)
    gappy = np.where(rng.random(rows.shape) < 0.2, np.nan, rows)
    model = DeepRecurrentAutoEncoder((12, 6), **settings).fit(gappy)
    # Rows with the mean in the place of a gap are seen alike ...
    filled = np.where(np.isnan(gappy), model.columns_.mean, gappy)
    assert_allclose(model.transform(gappy), model.transform(filled), atol=1e-6)
    assert_allclose(model.denoise(gappy), model.denoise(filled), atol=1e-6)
    # ... but a score is of what was observed: better than that of the filled row.
    r = model.denoise(gappy).clip(1e-7, 1 - 1e-7)
    terms = gappy * np.log(r) + (1 - gappy) * np.log(1 - r)
    assert_allclose(model.score_samples(gappy), np.nansum(terms, axis=1), rtol=1e-3)
    # A row of nothing but gaps adds nothing to learn: the same weights, but for its share.
    more = np.vstack([gappy, np.full((1, 64), np.nan)])
    other = DeepRecurrentAutoEncoder((12, 6), **{**settings, "batch_size": 401}).fit(more)
    assert_allclose(other.weights_["weight_0"], model.weights_["weight_0"], atol=2e-3)


def test_what_is_missing_is_filled_in(rows, digits):
    rng = np.random.default_rng(1)
    test = digits[0][400:600]
    gaps = rng.random(test.shape) < 0.4
    model = DeepRecurrentAutoEncoder(
        (40, 20), n_steps=3, corruption_level=0.4, max_iter=40, learning_rate=0.01, **QUICK
    ).fit(np.where(rng.random(rows.shape) < 0.1, np.nan, rows))
    found = model.denoise(np.where(gaps, np.nan, test))
    error = np.square(found - test)[gaps].mean()
    # Nearer to what was there than the columns' means.
    assert error < 0.75 * np.square(rows.mean(axis=0) - test)[gaps].mean()


# Codes and draws


def test_any_layer_at_any_step_is_the_code(rows):
    model = DeepRecurrentAutoEncoder((12, 6), n_steps=3, max_iter=2, **QUICK).fit(rows)
    widths = []
    for layer in (0, 1, -2, -1):
        for step in (0, 2, -1):
            codes = model.set_params(code_layer=layer, code_step=step).transform(rows[:9])
            assert model.inverse_transform(codes).shape == (9, 64)
        widths.append(codes.shape[1])
    assert widths == [12, 6, 12, 6]
    assert_array_equal(model.denoise(rows[:9], step=2), model.denoise(rows[:9]))
    alone = model.transform(rows[3:4])
    assert_allclose(model.transform(rows[:9])[3:4], alone, atol=1e-6)


def test_samples_begin_where_they_are_told(rows):
    gsn = GenerativeStochasticNetwork((16, 16), max_iter=4, **QUICK).fit((rows > 0.5) * 1.0)
    samples = gsn.sample(30, burn_in=5)
    assert samples.shape == (30, 64)
    assert set(np.unique(samples)) == {0.0, 1.0}
    assert_array_equal(samples, gsn.sample(30, burn_in=5))
    init = np.where(rows[:3] > 0.9, np.nan, rows[:3] > 0.5)
    assert np.isfinite(gsn.sample(4, init=init, burn_in=1)).all()
    quiet = DeepRecurrentAutoEncoder((6, 4), corruption=None, max_iter=1, **QUICK)
    with pytest.raises(ValueError, match="needs noise"):
        quiet.fit(rows).sample()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"layer_sizes": ()}, r"layer_sizes=\(\) must be integers"),
        ({"layer_sizes": (4, 0)}, "must be integers of at least 1"),
        ({"code_layer": 2}, "code_layer=2, but there are 2 layers, from 0 to 1"),
        ({"code_step": -5}, "code_step=-5, but there are 4 steps"),
        ({"corruption_level": 1.5}, "corruption_level"),
        ({"pretraining": RBM(3)}, "is no fitted StackedAutoEncoder"),
    ],
)
def test_impossible_parameters(rows, parameters, message):
    with pytest.raises(ValueError, match=message):
        DeepRecurrentAutoEncoder(**{"layer_sizes": (5, 4), **parameters}).fit(rows)


def test_impossible_steps(rows):
    model = DeepRecurrentAutoEncoder((5, 4), max_iter=1, **QUICK).fit(rows)
    with pytest.raises(ValueError, match="step=4, but there are 4 steps, from 0 to 3"):
        model.denoise(rows, step=4)
