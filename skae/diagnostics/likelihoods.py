"""Likelihood of rows under samples: Parzen windows, for comparison with published figures."""

from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp

from skae._validation import check_number

# Numbers of one comparison of rows with samples.
_BLOCK = 2**23


class ParzenLikelihood(NamedTuple):
    """Log-likelihood of rows under windows around samples.

    Attributes
    ----------
    scores : ndarray of shape (n_samples,)
        log p(x) of each row, in nats.
    standard_error : float
        Of the mean of the scores.
    width : float
        Standard deviation of the windows.
    """

    scores: np.ndarray
    standard_error: float
    width: float


def parzen_log_likelihood(X, samples, *, width=None, validation=None):
    r"""Log-likelihood of rows under Gaussian windows around samples of a model.

    .. math:: \log p(x) = \log \frac1m \sum_{k=1}^m N(x;\; s_k, w^2 I)

    The measure of many papers on generative models before 2016, here to compare with their
    figures, and for nothing else: it depends on the number of samples and on the width, samples
    of high likelihood need not look right, and cluster centres of the training data score higher
    than the training data (Theis et al. 2016).

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Rows that the model has not seen.
    samples : array-like of shape (n_windows, n_features)
        Of the model.
    width : float, default=None
        Standard deviation w of the windows. None: the best of 15 between 0.05 and 1 times the
        spread of the samples, on ``validation``.
    validation : array-like of shape (n_validation, n_features), default=None
        Rows to choose the width by.

    Returns
    -------
    likelihood : ParzenLikelihood
        ``scores`` of the rows, the ``standard_error`` of their mean, and the ``width``.

    References
    ----------
    .. [1] O. Breuleux, Y. Bengio, P. Vincent. Quickly generating representative samples from an
       RBM-derived process. Neural Computation 23, 2011.
    .. [2] L. Theis, A. van den Oord, M. Bethge. A note on the evaluation of generative models. ICLR
       2016.

    Examples
    --------
    >>> import numpy as np
    >>> from skae.diagnostics import parzen_log_likelihood
    >>> rows = np.random.default_rng(0).normal(size=(3000, 2))
    >>> parzen = parzen_log_likelihood(rows[:500], rows[500:2500], validation=rows[2500:])
    >>> bool(abs(parzen.scores.mean() + np.log(2 * np.pi) + 1) < 0.2)
    True
    """
    X, samples = _rows(X, "X"), _rows(samples, "samples")
    if X.shape[1] != samples.shape[1]:
        raise ValueError(f"X has {X.shape[1]} columns, but samples have {samples.shape[1]}.")
    if width is None:
        if validation is None:
            raise ValueError("Pass a width, or validation rows to choose it by.")
        validation = _rows(validation, "validation")
        spread = np.sqrt(samples.var(axis=0).mean())
        if spread == 0:
            raise ValueError("samples are all the same, so that no width suits them. Pass one.")
        widths = spread * np.geomspace(0.05, 1.0, 15)
        width = max(widths, key=lambda w: _scores(validation, samples, w).mean())
    else:
        width = check_number("width", width)
        if width <= 0:
            raise ValueError(f"width={width!r} has to be more than 0.")
    scores = _scores(X, samples, width)
    return ParzenLikelihood(scores, float(scores.std() / np.sqrt(len(scores))), float(width))


def _scores(X, samples, width):
    constant = np.log(len(samples)) + X.shape[1] * np.log(width * np.sqrt(2 * np.pi))
    lengths, scores = np.square(samples).sum(axis=1), np.empty(len(X))
    step = max(1, _BLOCK // len(samples))
    for start in range(0, len(X), step):
        part = X[start : start + step]
        square = np.square(part).sum(axis=1, keepdims=True) - 2 * part @ samples.T + lengths
        scores[start : start + step] = logsumexp(-square / (2 * width**2), axis=1) - constant
    return scores


def _rows(array, name):
    array = np.asarray(array, dtype=np.float64)
    if array.ndim != 2 or not len(array) or not np.isfinite(array).all():
        raise ValueError(f"{name} has to be a two-dimensional array of finite numbers.")
    return array
