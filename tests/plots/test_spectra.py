"""Spectra are drawn as means over rows within a band of them."""

import numpy as np
import pytest

from skae import AutoEncoder
from skae.diagnostics import jacobian_spectrum
from skae.plots import SpectrumDisplay

VALUES = np.array([[4.0, 2.0, 1.0], [2.0, 2.0, 0.0], [0.0, 0.0, 0.0]])


def band_edges(band, number):
    heights = [y for x, y in band.get_paths()[0].vertices if x == number]
    return min(heights), max(heights)


def test_the_spectrum_of_an_estimator(model, X):
    display = SpectrumDisplay.from_estimator(model, X, name="code")
    values = jacobian_spectrum(model, X)
    np.testing.assert_array_equal(display.singular_values["code"], values)
    line = display.lines_["code"]
    # Singular values are counted from one, and the mean is over rows.
    np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3, 4, 5])
    np.testing.assert_allclose(line.get_ydata(), values.mean(axis=0))
    assert display.ax_.get_yscale() == "log"


def test_arguments_reach_the_diagnostic(model, X):
    display = SpectrumDisplay.from_estimator(model, X, n_values=2, of="reconstruction")
    np.testing.assert_array_equal(
        display.singular_values["AutoEncoder"],
        jacobian_spectrum(model, X, 2, of="reconstruction"),
    )


def test_several_models_share_the_axes(model, X):
    other = AutoEncoder(2, max_iter=1, random_state=0).fit(X)
    display = SpectrumDisplay.from_estimators({"five": model, "two": other}, X)
    assert [len(line.get_xdata()) for line in display.lines_.values()] == [5, 2]
    labels = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert labels == ["five", "two"]
    # The axes reach as far as the longest spectrum.
    assert display.ax_.get_xlim() == (1, 5)


def test_the_band_holds_the_rows_between_two_quantiles():
    display = SpectrumDisplay({"a": VALUES}).plot(quantiles=(0, 1))
    # From the least to the largest of the rows: 0, 2 and 4.
    assert band_edges(display.bands_["a"], 1) == (0, 4)
    display.plot(quantiles=(0.25, 0.75))
    # Half of three equally spaced values lie between 1 and 3.
    assert band_edges(display.bands_["a"], 1) == (1, 3)
    # None: the lines alone.
    assert display.plot(quantiles=None).bands_ == {}


def test_each_row_is_divided_by_its_own_first_value():
    display = SpectrumDisplay({"a": VALUES}).plot(normalize=True, scale="linear")
    # (1, 1/2, 1/4), (1, 1, 0), and a row of zeros, which has no scale and stays zero.
    np.testing.assert_allclose(display.lines_["a"].get_ydata(), [2 / 3, 0.5, 0.25 / 3])
    # What is stored stays as it was: plot can draw it again without.
    np.testing.assert_array_equal(display.singular_values["a"], VALUES)
    assert display.ax_.get_ylim()[0] == 0


def test_rounding_errors_do_not_stretch_a_logarithmic_axis():
    values = np.array([[1.0, 0.01, 1e-17]])
    display = SpectrumDisplay({"a": values}).plot()
    # 0.01 is seen, and 1e-17, which is zero in floating point, is below the axis.
    assert 1e-4 < display.ax_.get_ylim()[0] < 0.01


def test_a_collapsed_code_has_an_empty_spectrum():
    # Zeros have no place on a logarithmic axis, but are no error either.
    display = SpectrumDisplay({"a": np.zeros((3, 2))}).plot()
    np.testing.assert_array_equal(display.lines_["a"].get_ydata(), 0)
    assert display.ax_.get_yscale() == "linear"


def test_bad_arguments_are_named():
    display = SpectrumDisplay({"a": VALUES})
    with pytest.raises(ValueError, match="scale='symlog' must be 'log' or 'linear'"):
        display.plot(scale="symlog")
    for quantiles in ((0.9, 0.1), (10, 90)):
        # Percents, or the wrong order, would draw a band that means something else.
        with pytest.raises(ValueError, match=r"must be .lower, upper. with 0 <= lower"):
            display.plot(quantiles=quantiles)
