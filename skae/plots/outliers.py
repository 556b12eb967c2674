"""Why rows are odd: bars for the columns that make them so."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skae._validation import check_count
from skae.diagnostics import reconstruction_errors
from skae.plots.bars import draw_groups, short
from skae.plots.images import document_display


@document_display
class OutlierDisplay:
    """The oddest rows, each with the columns that contribute most to its score.

    One group of bars for each row, headed by its place and score; one bar for each column, with
    its value in that row. The longer a bar, the odder the value, among those of the others. Of a
    model that is no detector, bars are errors of its reconstruction.

    Made by `from_estimator`; parameters are stored as attributes.

    Parameters
    ----------
    rows : ndarray of shape (n_rows,)
        Places of the rows.
    scores : ndarray of shape (n_rows,)
        Their `decision_function`, negative for outliers; of a model that is no detector, minus
        their mean `skae.diagnostics.reconstruction_errors`.
    contributions : ndarray of shape (n_rows, n_features)
        What each column contributes, most negative where it is oddest.
    values : array-like of shape (n_rows, n_features)
        The rows.
    names : sequence of str
        Names of the columns.
    has_threshold : bool, default=True
        Whether scores below 0 are those of outliers.

    Attributes
    ----------
    bars_ : list of matplotlib BarContainer
        One for each row.
    columns_ : ndarray of shape (n_rows, n_drawn)
        The columns that are drawn for each row, the oddest first.

    See Also
    --------
    skae.OutlierDetector.score_columns : What is drawn.
    skae.diagnostics.reconstruction_errors : What is drawn of other models.

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

    def __init__(self, rows, scores, contributions, values, names, has_threshold=True):
        self.rows, self.scores, self.contributions = rows, scores, contributions
        self.values, self.names, self.has_threshold = values, names, has_threshold

    @classmethod
    def from_estimator(cls, estimator, X, *, rows=None, n_rows=5, **options):
        """Draw rows of X with the columns that make them odd.

        Parameters
        ----------
        estimator : OutlierDetector, AutoEncoder, RBM, SparseCoder, StackedAutoEncoder or the like
            Fitted, with `score_columns` or `reconstruct`.
        rows : sequence of int, default=None
            Places of the rows to draw, the first at the top. None: the oddest ones.
        n_rows : int, default=5
            Rows at most, where they are not given.

        Raises
        ------
        ValueError
            If the model neither scores columns nor reconstructs, or a row is not one of X.
        """
        check_is_fitted(estimator)
        check_count("n_rows", n_rows, 1)
        is_detector = hasattr(estimator, "score_columns")
        if is_detector:
            scores = estimator.decision_function(X)
        else:
            names, errors = reconstruction_errors(estimator, X)
            observed = ~np.isnan(errors)
            scores = -np.nansum(errors, axis=1) / np.maximum(observed.sum(axis=1), 1)
        rows = np.argsort(scores, kind="stable")[:n_rows] if rows is None else np.asarray(rows)
        if rows.ndim != 1 or rows.dtype.kind not in "iu" or not len(rows):
            raise ValueError(f"rows={rows!r} must be places of rows: whole numbers, at least one.")
        outside = (rows < -len(scores)) | (rows >= len(scores))
        if outside.any():
            raise ValueError(f"X has {len(scores)} rows, and none at {rows[outside][0]}.")
        rows = np.where(rows < 0, rows + len(scores), rows)
        if is_detector:
            contributions = estimator.score_columns(X)[rows]
            names = getattr(estimator, "feature_names_in_", None)
            if names is None:
                names = [f"x{number}" for number in range(contributions.shape[1])]
        else:
            contributions = -np.nan_to_num(errors[rows])
        found = rows, scores[rows], contributions, _values(X, rows), list(names)
        return cls(*found, is_detector).plot(**options)

    def plot(self, ax=None, *, n_columns=5):
        """Draw one group of bars for each row.

        Parameters
        ----------
        n_columns : int, default=5
            Columns of each row at most.
        """
        oddness = -np.asarray(self.contributions)
        is_odd = (np.asarray(self.scores) < 0) & self.has_threshold
        colors = np.where(is_odd, "tab:red", "tab:blue")
        self.figure_, self.ax_, self.columns_, self.bars_ = draw_groups(
            ax,
            [self._title(row, score) for row, score in zip(self.rows, self.scores, strict=True)],
            oddness,
            n_columns,
            sizes=oddness,
            label=lambda row, column: f"{self.names[column]} = {short(self.values[row][column])}",
            colors=np.broadcast_to(colors[:, np.newaxis], oddness.shape),
        )
        self.ax_.set_xlabel(
            "contribution to oddness" if self.has_threshold else "error, 1: nothing is known"
        )
        return self

    def _title(self, row, score):
        if not self.has_threshold:
            return f"row {row}: mean error {-score:.3g}"
        return f"row {row}: {'odd' if score < 0 else 'not odd'} ({score:.3g})"


def _values(X, rows):
    """Some rows as lists of what the user sees in them."""
    if hasattr(X, "iloc"):
        return X.iloc[rows].to_numpy(dtype=object)
    if hasattr(X, "rows") and hasattr(X, "columns"):  # polars
        return [X.row(int(row)) for row in rows]
    if hasattr(X, "toarray"):
        return X.tocsr()[rows].toarray()
    return np.asarray(X)[rows]
