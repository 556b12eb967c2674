"""Parzen windows against a density that is known."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from skae.diagnostics import parzen_log_likelihood


def test_parzen_windows():
    rng = np.random.default_rng(0)
    samples, X = rng.normal(size=(40, 3)), rng.normal(size=(25, 3))
    found = parzen_log_likelihood(X, samples, width=0.7)
    square = np.square(X[:, None] - samples).sum(axis=2)
    density = np.exp(-square / (2 * 0.49)).mean(axis=1) / (2 * np.pi * 0.49) ** 1.5
    assert_allclose(found.scores, np.log(density))
    assert found.width == 0.7
    assert found.standard_error == pytest.approx(found.scores.std() / 5)


def test_the_width_is_chosen_by_rows():
    rng = np.random.default_rng(0)
    samples, rows = rng.normal(size=(1000, 2)), rng.normal(size=(600, 2))
    best = parzen_log_likelihood(rows[:300], samples, validation=rows[300:])
    for width in (0.1 * best.width, 5 * best.width):
        other = parzen_log_likelihood(rows[:300], samples, width=width)
        assert other.scores.mean() < best.scores.mean()


def test_it_prefers_cluster_centres():
    # Rows near a plane: their centres score higher than rows do, which is why nobody should
    # choose models by this measure.
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(2000, 20)) * np.r_[np.ones(3), 0.2 * np.ones(17)]
    flat = rows[:500] * np.r_[np.ones(3), np.zeros(17)]
    of_rows = parzen_log_likelihood(rows[1000:], rows[:500], validation=rows[500:1000])
    of_flat = parzen_log_likelihood(rows[1000:], flat, validation=rows[500:1000])
    assert of_flat.scores.mean() > of_rows.scores.mean() + 1


def test_bad_input():
    X = np.zeros((4, 2))
    with pytest.raises(ValueError, match="X has 2 columns, but samples have 3"):
        parzen_log_likelihood(X, np.zeros((4, 3)), width=1.0)
    with pytest.raises(ValueError, match="Pass a width, or validation rows"):
        parzen_log_likelihood(X, X)
    with pytest.raises(ValueError, match="has to be more than 0"):
        parzen_log_likelihood(X, X, width=0.0)
    with pytest.raises(ValueError, match="samples has to be a two-dimensional array"):
        parzen_log_likelihood(X, [np.nan], width=1.0)
