"""Code units: which vary, which are saturated, which respond at a row, what charts share."""

import numpy as np
import torch

from skae._validation import as_array, check_number
from skae.diagnostics.jacobians import (
    check_differentiable,
    is_single_layer,
    map_jacobians,
    map_parts,
)
from skae.engine.optimisation.devices import undisturbed


def constant_units(codes, tol=1e-5):
    """Which code units do not vary over the rows.

    Parameters
    ----------
    codes : ndarray of shape (n_samples, n_components)
        At least two different rows of data should be behind them.
    tol : float, default=1e-5
        Spread, as a fraction of the largest absolute code, below which a unit counts as constant.

    Returns
    -------
    constant : ndarray of bool of shape (n_components,)
    """
    codes = np.asarray(as_array(codes))
    largest = np.abs(codes).max(initial=0.0)
    return np.ptp(codes, axis=0) <= tol * largest


def saturation(codes, margin=0.05):
    """Fraction of code values within ``margin`` of 0 or 1, for each row.

    Parameters
    ----------
    codes : ndarray of shape (n_samples, n_components)
        Codes in [0, 1], such as those of sigmoid units.
    margin : float, default=0.05
        Distance from the ends that counts as saturated.

    Returns
    -------
    saturated : ndarray of shape (n_samples,)
    """
    codes = np.asarray(as_array(codes))
    return ((codes < margin) | (codes > 1 - margin)).mean(axis=1)


@undisturbed
def active_units(estimator, X, *, threshold=0.1):
    r"""Which code units respond to small changes of the input, at each row.

    Unit j is active at x if the norm of its gradient is not small beside that of the unit
    which responds most:

    .. math::

        \left\| \frac{\partial h_j(x)}{\partial x} \right\| >
        \text{threshold} \cdot \max_k \left\| \frac{\partial h_k(x)}{\partial x} \right\|

    The others are saturated, or off: they add next to nothing to the Jacobian. The active units are
    a chart, local coordinates of the data's manifold, by filters that neighbouring charts share.

    Parameters
    ----------
    estimator : AutoEncoder, RBM, PSD, StackedAutoEncoder or the like
        Fitted, with any activation.
    X : {array-like, sparse matrix} of shape (n_samples, n_features)
        Data, in the units that the estimator was fitted on.
    threshold : float, default=0.1
        From 0, for all units that respond at all, to less than 1.

    Returns
    -------
    active : ndarray of bool of shape (n_samples, n_components)
        Without a true entry in rows where no unit responds.

    Raises
    ------
    ValueError
        If the code has no gradient, as that of a `SparseCoder`.

    See Also
    --------
    chart_overlap : What the charts of two rows have in common.
    saturation : How many units are near 0 or 1.

    References
    ----------
    .. [1] S. Rifai, P. Vincent, X. Muller, X. Glorot, Y. Bengio. Contractive
       auto-encoders: explicit invariance during feature extraction. ICML 2011.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import ContractiveAutoEncoder
    >>> from skae.diagnostics import active_units
    >>> X = load_digits().data / 16
    >>> cae = ContractiveAutoEncoder(64, contraction=1, max_iter=60, random_state=0).fit(X)
    >>> bool(active_units(cae, X[:100]).mean() < 0.8)
    True
    """
    X = check_differentiable(estimator, X, "encoder")
    threshold = check_number("threshold", threshold)
    if not 0 <= threshold < 1:
        raise ValueError(f"threshold={threshold!r} must be at least 0 and less than 1.")

    def responses(jacobian, rows):
        if is_single_layer(jacobian):
            (slope,), (weight,) = jacobian.slopes, jacobian.weights
            return slope.abs() * torch.linalg.vector_norm(weight, dim=1)
        return map_parts(jacobian, lambda part: torch.linalg.vector_norm(part.dense(), dim=2))

    norms = map_jacobians(estimator, X, responses, (estimator._n_features_out,), "encoder")
    return norms > threshold * norms.max(axis=1, keepdims=True)


def chart_overlap(first, second):
    r"""Share of active units that pairs of rows have in common.

    .. math::

        \frac{|A \cap B|}{|A \cup B|}

    for the sets A and B of units that are active at two rows; 1 for two empty ones. Charts that
    overlap share filters: what is learned in one region serves in the next, unlike local PCA's.

    Parameters
    ----------
    first : array-like of bool of shape (..., n_components)
        From `active_units`.
    second : array-like of bool of shape (..., n_components)
        The same for the other row of each pair. Both are broadcast: with indices of k neighbours of
        each row, ``chart_overlap(active[:, None], active[neighbours])`` has shape (n_samples, k).

    Returns
    -------
    overlap : ndarray of shape (...)
        From 0 to 1.

    See Also
    --------
    principal_angles : How far the tangent planes of two rows are apart.

    Examples
    --------
    >>> import numpy as np
    >>> from skae.diagnostics import chart_overlap
    >>> active = np.array([[True, True, False], [True, False, True], [False, False, False]])
    >>> chart_overlap(active[:-1], active[1:]).round(2)
    array([0.33, 0.  ])
    """
    first, second = np.asarray(as_array(first)), np.asarray(as_array(second))
    if first.dtype != bool or second.dtype != bool:
        raise ValueError(
            f"chart_overlap compares sets of units, not numbers of dtype {first.dtype} and "
            f"{second.dtype}: pass what active_units returns, or codes > 0.5 and the like."
        )
    if first.ndim == 0 or second.ndim == 0 or first.shape[-1] != second.shape[-1]:
        raise ValueError(
            f"Active units of shapes {first.shape} and {second.shape} are not those of one code: "
            "pass two arrays with one column for each unit."
        )
    common = np.count_nonzero(first & second, axis=-1)
    either = np.count_nonzero(first | second, axis=-1)
    return np.where(either > 0, common / np.maximum(either, 1), 1.0)
