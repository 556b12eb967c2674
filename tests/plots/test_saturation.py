"""Histograms of codes, and how much of them is saturated."""

from itertools import pairwise

import numpy as np
import pytest

from skae import AutoEncoder
from skae.diagnostics import saturation
from skae.plots import SaturationDisplay


def test_histogram_and_shares_of_an_estimator(model, X):
    display = SaturationDisplay.from_estimator(model, X, margin=0.45, bins=10)
    codes = model.transform(X)
    np.testing.assert_array_equal(display.codes["AutoEncoder"], codes)
    heights = display.histograms_["AutoEncoder"].get_data().values
    edges = np.linspace(0, 1, 11)
    inside = [((codes >= a) & (codes < b)).mean() for a, b in pairwise(edges)]
    # Each bar is the share of values in its tenth of [0, 1]; together they are all.
    np.testing.assert_allclose(heights, inside)
    assert heights.sum() == pytest.approx(1)
    low, high = display.shares_["AutoEncoder"]
    # Both ends together are what the diagnostic counts.
    assert low + high == pytest.approx(saturation(codes, margin=0.45).mean())


def test_shares_near_either_end():
    codes = np.array([[0.0, 0.01, 0.02, 0.5], [0.5, 0.5, 0.5, 1.0]])
    display = SaturationDisplay({"a": codes}).plot()
    # Three of eight values are below 0.05, one is above 0.95.
    assert display.shares_["a"] == (3 / 8, 1 / 8)
    (label,) = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert label == "a: 38% < 0.05, 12% > 0.95"
    # With a margin of 0.05 the shares are the first and the last of the default's 20 bins.
    heights = display.histograms_["a"].get_data().values
    assert (heights[0], heights[-1]) == (3 / 8, 1 / 8)


def test_several_models_share_the_axes(model, X):
    other = AutoEncoder(2, max_iter=1, random_state=0).fit(X)
    display = SaturationDisplay.from_estimators({"five": model, "two": other}, X)
    assert list(display.histograms_) == list(display.shares_) == ["five", "two"]


def test_codes_outside_of_the_unit_interval_are_refused(X):
    model = AutoEncoder(5, activation="tanh", max_iter=1, random_state=0).fit(X)
    # A unit of tanh saturates at -1 and 1: its codes near 0 are its most sensitive ones.
    with pytest.raises(ValueError, match=r"'AutoEncoder' are between -.*activation=\"sigmoid\""):
        SaturationDisplay.from_estimator(model, X)


def test_bad_margins_are_named():
    for margin in (0, 0.5, 5):
        # Nothing is within 0 of the ends, everything within a half of one of them.
        with pytest.raises(ValueError, match=f"margin={margin} must be more than 0"):
            SaturationDisplay({"a": np.ones((1, 1))}).plot(margin=margin)
