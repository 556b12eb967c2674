"""The display of odd rows draws what `score_columns` says."""

import matplotlib
import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import clone
from sklearn.datasets import load_wine
from sklearn.mixture import GaussianMixture

from skae import AutoEncoder, OutlierDetector
from skae.plots import OutlierDisplay

matplotlib.use("agg")


@pytest.fixture(scope="module")
def wine():
    """The table, and a detector of it."""
    X = load_wine(as_frame=True).data.copy()
    X["grade"] = pd.Categorical(np.where(X["alcohol"] > 13, "strong", "light"))
    X.loc[20, "ash"] = 9.0
    return X, OutlierDetector(random_state=0).fit(X)


def test_the_oddest_rows_are_drawn_with_their_oddest_columns(wine):
    X, detector = wine
    display = OutlierDisplay.from_estimator(detector, X, n_rows=3, n_columns=4)
    scores = detector.decision_function(X)
    assert (display.rows == np.argsort(scores)[:3]).all()
    place = list(display.rows).index(20)  # 24 standard deviations
    assert X.columns[display.columns_[place][0]] == "ash"
    for row, columns, bars in zip(display.rows, display.columns_, display.bars_, strict=True):
        expected = -np.sort(detector.score_columns(X)[row])[:4]
        assert np.allclose([bar.get_width() for bar in bars], expected)
        assert len(columns) == 4
    labels = [label.get_text() for label in display.ax_.get_yticklabels()]
    assert labels[4 * place] == "ash = 9"


def test_rows_are_chosen_and_values_shown_as_they_are(wine):
    X, detector = wine
    display = OutlierDisplay.from_estimator(detector, X, rows=[3, -1], n_columns=20)
    assert list(display.rows) == [3, 177]
    labels = [label.get_text() for label in display.ax_.get_yticklabels()]
    # All columns, where there are fewer than asked for.
    assert len(labels) == 2 * 14
    assert sum(label in ("grade = strong", "grade = light") for label in labels) == 2
    array = X.drop(columns="grade").to_numpy()
    quick = OutlierDetector(AutoEncoder(2, max_iter=3), n_members=1, random_state=0)
    plain = clone(quick).fit(array)
    labels = OutlierDisplay.from_estimator(plain, array, n_rows=1).ax_.get_yticklabels()
    assert all(label.get_text().startswith("x") for label in labels)
    frame = pl.from_pandas(X)
    of_polars = clone(quick).fit(frame)
    display = OutlierDisplay.from_estimator(of_polars, frame, rows=[20])
    assert display.names[-1] == "grade"


def test_what_cannot_be_drawn_is_refused(wine):
    X, detector = wine
    with pytest.raises(ValueError, match="178 rows, and none at 500"):
        OutlierDisplay.from_estimator(detector, X, rows=[500])
    with pytest.raises(ValueError, match="places of rows"):
        OutlierDisplay.from_estimator(detector, X, rows=["ash"])
    with pytest.raises(ValueError, match="n_rows"):
        OutlierDisplay.from_estimator(detector, X, n_rows=0)
    numbers = X.drop(columns="grade")
    with pytest.raises(ValueError, match="whole rows"):
        OutlierDisplay.from_estimator(OutlierDetector(GaussianMixture(2)).fit(numbers), numbers)
