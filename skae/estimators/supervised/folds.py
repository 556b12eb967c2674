"""Folds of data of which few rows are labelled."""

import numpy as np
from sklearn.model_selection import BaseCrossValidator, check_cv
from sklearn.utils import check_consistent_length

from skae._validation import as_array
from skae.estimators.labels import known_rows


class LabelledFolds(BaseCrossValidator):
    """Folds of the labelled rows; unlabelled ones are in every training fold, and in no test fold.

    Where scikit-learn splits rows, or asks a scorer of its own for accuracy, the mark of unlabelled
    rows is a class like the others: it is stratified by, predicted in vain and counted as wrong.
    With these folds any scorer sees labelled rows alone, and every training fold has all of the
    others.

    Read more in the :ref:`User Guide <unlabelled_rows>`.

    Parameters
    ----------
    cv : int, cross-validation generator or iterable, default=5
        How the labelled rows are split, as scikit-learn takes it: a number of folds, stratified
        where y has classes; a splitter; or an iterable of (train, test) positions among them.
    unlabelled : int, str or None, default=-1
        The value in y that stands for an unknown class, as of :class:`StackedClassifier`; NaN and
        None always do, as in the targets of :class:`StackedRegressor`. With several outputs, rows
        all of whose targets are known are split, and the others are in every training fold.

    See Also
    --------
    StackedClassifier : Learns from rows with a class and without.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.model_selection import cross_val_score
    >>> from skae import LabelledFolds, StackedClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> y[np.arange(150) % 3 > 0] = -1                    # 50 labels, the others unknown
    >>> train, test = next(LabelledFolds(5).split(X, y))
    >>> len(train), len(test)
    (140, 10)
    >>> model = StackedClassifier((8,), max_iter=20, random_state=0)
    >>> bool(cross_val_score(model, X, y, cv=LabelledFolds(5), scoring="accuracy").mean() > 0.85)
    True
    """

    def __init__(self, cv=5, *, unlabelled=-1):
        self.cv, self.unlabelled = cv, unlabelled

    def split(self, X, y=None, groups=None):
        """Positions of the rows to train on and to test with.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Data.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Targets, with those that are unknown.
        groups : array-like of shape (n_samples,), default=None
            Groups of rows, for a splitter that keeps them together.

        Yields
        ------
        train : ndarray
            Positions of the training rows, the unlabelled ones among them.
        test : ndarray
            Positions of the test rows, all of them labelled.

        Raises
        ------
        ValueError
            If no y is passed, or no row is labelled.
        """
        labelled, y, groups = self._labelled(X, y, groups)
        unlabelled = np.setdiff1d(np.arange(len(as_array(X))), labelled)
        for train, test in self._splitter(y).split(np.zeros((len(labelled), 1)), y, groups):
            yield np.sort(np.concatenate([labelled[train], unlabelled])), labelled[test]

    def get_n_splits(self, X=None, y=None, groups=None):
        """How many folds there are.

        Parameters
        ----------
        X, y, groups : array-like, default=None
            As of `split`, for splitters whose number of folds depends on them.

        Returns
        -------
        n_splits : int
        """
        if X is None or y is None:
            return self._splitter(None).get_n_splits(X, y, groups)
        labelled, y, groups = self._labelled(X, y, groups)
        return self._splitter(y).get_n_splits(np.zeros((len(labelled), 1)), y, groups)

    def _labelled(self, X, y, groups):
        """Positions of the labelled rows, their targets and groups."""
        if y is None:
            raise ValueError("LabelledFolds needs y, which says what rows are labelled.")
        values, known = known_rows(y, self.unlabelled)
        check_consistent_length(X, values, groups)
        labelled = np.flatnonzero(known)
        if not len(labelled):
            raise ValueError("No row is labelled, so there is nothing to split.")
        values = values[labelled]
        values = values[:, 0] if values.shape[1] == 1 else values
        return labelled, values, None if groups is None else np.asarray(groups)[labelled]

    def _splitter(self, y):
        return check_cv(self.cv, y, classifier=y is not None and y.dtype.kind != "f")
