"""Units that vary, that are saturated, that respond, and what charts have in common."""

import numpy as np
import pytest

from skae import AutoEncoder
from skae.diagnostics import active_units, chart_overlap, constant_units, saturation


@pytest.fixture(name="X")
def data(skewed_columns):
    return skewed_columns


def test_constant_units():
    codes = np.array([[0.0, 5.0, 1.0], [1e-9, 5.0, 2.0]])
    # The first moves by rounding alone, the second not at all.
    np.testing.assert_array_equal(constant_units(codes), [True, True, False])


def test_saturation_counts_both_ends():
    codes = np.array([[0.01, 0.99, 0.5, 0.5], [0.2, 0.8, 0.3, 0.96]])
    # Two entries of the first row are within 0.05 of an end, and one of the second.
    np.testing.assert_array_equal(saturation(codes), [0.5, 0.25])


def test_active_units_agree_with_autograd(fitted, X, jacobians_by_autograd):
    norms = np.linalg.norm(jacobians_by_autograd(fitted, X), axis=2)
    for threshold in (0, 0.1, 0.5):
        expected = norms > threshold * norms.max(axis=1, keepdims=True)
        # A unit's gradient is its row of the matrix of all partial derivatives.
        np.testing.assert_array_equal(active_units(fitted, X, threshold=threshold), expected)


def test_active_units_do_not_depend_on_the_blocks(X):
    model = AutoEncoder(
        30, hidden_layer_sizes=(20,), tied_weights=False, max_iter=2, random_state=0
    ).fit(X)
    # More rows than have their Jacobians in memory at a time; each is compared with itself alone.
    np.testing.assert_array_equal(
        active_units(model, np.tile(X, (300, 1)), threshold=0.3),
        np.tile(active_units(model, X, threshold=0.3), (300, 1)),
    )


def test_units_that_are_off_are_not_active(X):
    model = AutoEncoder(5, activation="relu", max_iter=2, random_state=0).fit(X)
    # Rectified units have a slope of 1 where their code is more than 0, and of 0 elsewhere.
    np.testing.assert_array_equal(active_units(model, X, threshold=0), model.transform(X) > 0)
    model.weights_["hidden_bias_0"][:] = -1e6
    # Where all are off there is no largest response to compare with, and none is active.
    assert not active_units(model, X).any()


def test_saturated_units_are_not_active(X):
    model = AutoEncoder(5, max_iter=2, random_state=0).fit(X)
    model.weights_["hidden_bias_0"][:2] = 20
    # A sigmoid is flat far from 0, while the other units have slopes of up to 1/4.
    np.testing.assert_array_equal(active_units(model, X)[:, :2], False)
    assert active_units(model, X)[:, 2:].any(axis=1).all()


@pytest.mark.parametrize("threshold", [-0.1, 1])
def test_thresholds_outside_of_the_unit_interval_are_refused(X, threshold):
    model = AutoEncoder(5, max_iter=1, random_state=0).fit(X)
    # No unit responds more than the one that responds most.
    with pytest.raises(ValueError, match="threshold="):
        active_units(model, X, threshold=threshold)


def test_overlap_is_common_units_among_all():
    a = np.array([1, 1, 1, 0, 0], dtype=bool)
    b = np.array([0, 1, 1, 1, 0], dtype=bool)
    nothing = np.zeros(5, dtype=bool)
    # Two of four units are common; a chart shares all with itself, and nothing with its complement.
    assert chart_overlap(a, b) == 0.5
    assert chart_overlap(a, a) == chart_overlap(nothing, nothing) == 1
    assert chart_overlap(a, ~a) == chart_overlap(a, nothing) == 0


def test_overlap_is_computed_for_neighbours_at_once():
    generator = np.random.default_rng(0)
    active = generator.random((10, 7)) < 0.5
    neighbours = generator.integers(0, 10, size=(10, 3))
    overlap = chart_overlap(active[:, np.newaxis], active[neighbours])
    sets = [set(np.flatnonzero(row)) for row in active]
    expected = [
        [len(sets[i] & sets[j]) / len(sets[i] | sets[j]) for j in neighbours[i]] for i in range(10)
    ]
    # The same with sets of Python, one pair after the other.
    np.testing.assert_allclose(overlap, expected)


def test_what_are_no_active_units_is_refused():
    # Codes are numbers: which of them are active is the user's to say.
    with pytest.raises(ValueError, match="pass what active_units returns"):
        chart_overlap(np.ones((2, 3)), np.ones((2, 3)))
    # Sets of different units have no overlap.
    with pytest.raises(ValueError, match="not those of one code"):
        chart_overlap(np.ones((2, 3), dtype=bool), np.ones((2, 4), dtype=bool))
