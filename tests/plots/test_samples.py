"""The display of a comparison draws what `compare_samples` says."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from skae.diagnostics import compare_samples
from skae.plots import SampleComparisonDisplay


def test_squares_have_errors_of_pairs_and_columns(X):
    sets = {"itself": X, "wider": 0.5 + 2 * (X - 0.5), "reversed": X[:, ::-1]}
    found = compare_samples(X, sets, max_rows=20, random_state=0)
    display = SampleComparisonDisplay.from_comparison(found)
    assert len(display.images_) == 3
    for image, pairs, own in zip(
        display.images_, found.pair_errors, found.column_errors, strict=True
    ):
        drawn = np.asarray(image.get_array())
        assert np.allclose(np.diag(drawn), own)
        assert np.allclose(drawn - np.diag(own), pairs)
    # The colours of all squares mean the same.
    assert len({image.get_clim() for image in display.images_}) == 1
    labels = [label.get_text() for label in display.images_[0].axes.get_yticklabels()]
    assert labels == [f"x{number}" for number in range(12)]


def test_one_set_into_an_axes_and_without_names(X):
    _, ax = plt.subplots()
    display = SampleComparisonDisplay.from_samples(
        X, np.flip(X, 0), ax=ax, max_rows=20, random_state=0
    )
    assert display.ax_ is ax
    assert display.errors.max() < 1e-12  # the same rows
    display.plot(n_names=5)
    assert not display.images_[0].axes.get_yticklabels()
    with pytest.raises(ValueError, match="n_names"):
        display.plot(n_names=-1)
