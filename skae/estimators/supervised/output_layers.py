"""The output layer before fine-tuning: a linear model on the codes, by scikit-learn."""

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge

# Penalty without which linear models of many columns have no unique solution.
_LEAST = 1e-8


def fit_linear_output(codes, targets, penalty, max_iter, *, is_final):
    """Weights and biases of the output that is best on given codes.

    It minimises the sum of -log P(y | U h + d) over labelled rows + penalty / 2 |U|^2.

    Parameters
    ----------
    codes : ndarray of shape (n_samples, n_codes)
    targets : Targets
    penalty : float
    max_iter : int
        Steps at most, where there is no closed form.
    is_final : bool
        Whether the result is a model, which should have converged, or a start.

    Returns
    -------
    weight : ndarray of shape (n_outputs, n_codes)
    bias : ndarray of shape (n_outputs,)
    n_iter : int
    """
    rows = np.flatnonzero(targets.labelled)
    if targets.kind.groups is None:
        weight = None if targets.weight is None else targets.weight[rows]
        model = Ridge(alpha=max(penalty, _LEAST))
        model.fit(codes[rows].astype(np.float64), targets.values[rows], sample_weight=weight)
        n_outputs = targets.values.shape[1]
        return np.reshape(model.coef_, (n_outputs, -1)), np.ravel(model.intercept_), 1
    parts = [
        _fit_classes(codes, targets.values[:, columns], penalty, max_iter, is_final)
        for columns in targets.kind.groups
    ]
    weights, biases, n_iter = zip(*parts, strict=True)
    return np.vstack(weights), np.concatenate(biases), max(n_iter)


def _fit_classes(codes, values, penalty, max_iter, is_final):
    """The same for one output of classes, whose one-hot rows say how much they count."""
    count = values.sum(1)
    rows = np.flatnonzero(count > 0)
    position, count = values[rows].argmax(1), count[rows]
    seen = np.unique(position)
    n_classes = values.shape[1]
    weight, bias = np.zeros((n_classes, codes.shape[1])), np.zeros(n_classes)
    if len(seen) < 2:
        if len(seen):
            bias[seen] = np.log(len(rows) + 1.0)
        return weight, bias, 1
    # Two classes have one logit, whose weight is the difference of the outputs'.
    C = (2.0 if len(seen) == 2 else 1.0) / max(penalty, _LEAST)
    model = LogisticRegression(C=C, max_iter=max_iter, tol=1e-6 if is_final else 1e-4)
    with warnings.catch_warnings():
        if not is_final:
            warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(codes[rows], position, sample_weight=count)
    if len(seen) == 2:
        weight[seen] = np.vstack([-model.coef_, model.coef_]) / 2
        bias[seen] = np.concatenate([-model.intercept_, model.intercept_]) / 2
    else:
        weight[seen], bias[seen] = model.coef_, model.intercept_
        bias[seen] -= bias[seen].mean()
    if len(seen) < n_classes:
        # A class that is not there: as improbable as one row in all.
        unseen = np.setdiff1d(np.arange(n_classes), seen)
        bias[unseen] = (codes[rows] @ weight.T + bias)[:, seen].mean() - np.log(len(rows) + 1.0)
    return weight, bias, int(np.max(model.n_iter_))
