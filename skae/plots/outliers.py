"""Why rows are odd: bars for the columns that make them so."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skae._validation import check_count
from skae.plots.images import axes, document_display


@document_display
class OutlierDisplay:
    """The oddest rows, each with the columns that contribute most to its score.

    One group of bars for each row, headed by its place and score; one bar for each column, with
    its value in that row. The longer a bar, the odder the value, among those of the others.

    Made by `from_estimator`; parameters are stored as attributes.

    Parameters
    ----------
    rows : ndarray of shape (n_rows,)
        Places of the rows.
    scores : ndarray of shape (n_rows,)
        Their `decision_function`, negative for outliers.
    contributions : ndarray of shape (n_rows, n_features)
        What each column contributes, most negative where it is oddest.
    values : array-like of shape (n_rows, n_features)
        The rows.
    names : sequence of str
        Names of the columns.

    Attributes
    ----------
    bars_ : list of matplotlib BarContainer
        One for each row.
    columns_ : list of ndarray
        The columns that are drawn for each row, the oddest first.

    See Also
    --------
    skae.OutlierDetector.score_columns : What is drawn.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from skae import OutlierDetector
    >>> from skae.plots import OutlierDisplay
    >>> X, _ = load_wine(return_X_y=True, as_frame=True)
    >>> detector = OutlierDetector(random_state=0).fit(X)
    >>> display = OutlierDisplay.from_estimator(detector, X, n_rows=3, n_columns=4)
    >>> display.contributions.shape
    (3, 13)
    """

    def __init__(self, rows, scores, contributions, values, names):
        self.rows, self.scores, self.contributions = rows, scores, contributions
        self.values, self.names = values, names

    @classmethod
    def from_estimator(cls, estimator, X, *, rows=None, n_rows=5, **options):
        """Draw rows of X with the columns that make them odd.

        Parameters
        ----------
        estimator : OutlierDetector
            Fitted.
        rows : sequence of int, default=None
            Places of the rows to draw, the first at the top. None: the oddest ones.
        n_rows : int, default=5
            Rows at most, where they are not given.

        Raises
        ------
        ValueError
            If the model of the detector scores whole rows only, or a row is not one of X.
        """
        check_is_fitted(estimator)
        check_count("n_rows", n_rows, 1)
        scores = estimator.decision_function(X)
        rows = np.argsort(scores, kind="stable")[:n_rows] if rows is None else np.asarray(rows)
        if rows.ndim != 1 or rows.dtype.kind not in "iu" or not len(rows):
            raise ValueError(f"rows={rows!r} must be places of rows: whole numbers, at least one.")
        outside = (rows < -len(scores)) | (rows >= len(scores))
        if outside.any():
            raise ValueError(f"X has {len(scores)} rows, and none at {rows[outside][0]}.")
        rows = np.where(rows < 0, rows + len(scores), rows)
        contributions = estimator.score_columns(X)[rows]
        names = getattr(estimator, "feature_names_in_", None)
        if names is None:
            names = [f"x{number}" for number in range(contributions.shape[1])]
        values = _values(X, rows)
        return cls(rows, scores[rows], contributions, values, list(names)).plot(**options)

    def plot(self, ax=None, *, n_columns=5):
        """Draw one group of bars for each row.

        Parameters
        ----------
        n_columns : int, default=5
            Columns of each row at most.
        """
        check_count("n_columns", n_columns, 1)
        n_columns = min(n_columns, self.contributions.shape[1])
        height = len(self.rows) * (n_columns + 1.6)
        self.figure_, self.ax_ = axes(ax, (0.25 * height + 0.6, 6.4))
        self.bars_, self.columns_, ticks, labels = [], [], [], []
        for number, contributions in enumerate(self.contributions):
            top = number * (n_columns + 1.6)
            columns = np.argsort(contributions, kind="stable")[:n_columns]
            places = top + 1 + np.arange(n_columns)
            is_odd = self.scores[number] < 0
            bars = self.ax_.barh(
                places, -contributions[columns], color="tab:red" if is_odd else "tab:blue"
            )
            verdict = "odd" if is_odd else "not odd"
            title = f"row {self.rows[number]}: {verdict} ({self.scores[number]:.3g})"
            self.ax_.text(
                0, top, title, va="center", fontweight="bold",
                transform=self.ax_.get_yaxis_transform(),
            )  # fmt: skip
            self.bars_.append(bars)
            self.columns_.append(columns)
            ticks += list(places)
            labels += [f"{self.names[c]} = {_text(self.values[number][c])}" for c in columns]
        self.ax_.set_yticks(ticks, labels)
        self.ax_.set_ylim(height - 0.4, -0.8)
        self.ax_.set_xlabel("contribution to oddness")
        return self


def _values(X, rows):
    """Some rows as lists of what the user sees in them."""
    if hasattr(X, "iloc"):
        return X.iloc[rows].to_numpy(dtype=object)
    if hasattr(X, "rows") and hasattr(X, "columns"):  # polars
        return [X.row(int(row)) for row in rows]
    if hasattr(X, "toarray"):
        return X.tocsr()[rows].toarray()
    return np.asarray(X)[rows]


def _text(value):
    """A value as short as it can be."""
    is_number = isinstance(value, float | np.floating)
    text = f"{value:.4g}" if is_number else str(value)
    return text if len(text) <= 20 else f"{text[:19]}…"
