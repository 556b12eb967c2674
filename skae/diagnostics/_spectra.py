"""How many directions a code responds to: singular values of its Jacobian."""

from typing import NamedTuple

import numpy as np
from sklearn.utils import check_array

from skae._validation import check_count, check_number
from skae.diagnostics._jacobians import check_differentiable, map_jacobians
from skae.engine.networks.singular_vectors import leading_singular_vectors, spectrum


class TangentDefects(NamedTuple):
    """At which rows singular values give no tangents.

    Attributes
    ----------
    zero : ndarray of bool of shape (n_samples,)
        The code responds to nothing: a collapsed encoder.
    flat : ndarray of bool of shape (n_samples,)
        The code responds alike in all directions, so that none of them is a tangent rather
        than another.
    """

    zero: np.ndarray
    flat: np.ndarray


def jacobian_spectrum(estimator, X, n_values=None, *, of="encoder"):
    r"""Singular values of the code's Jacobian dh/dx at each row.

    With the singular value decomposition

    .. math::

        \frac{\partial h(x)}{\partial x} = \sum_k s_k(x)\, v_k(x)\, u_k(x)^T,
        \qquad s_1 \ge s_2 \ge \ldots

    a small step along :math:`u_k` moves the code by :math:`s_k` times its length. A
    peaked spectrum is a low-dimensional chart: the code follows a few directions, those
    along which the data vary, and ignores the others. The squares sum to the
    squared Frobenius norm that ``contraction`` penalises.

    Parameters
    ----------
    estimator : AutoEncoder, RBM, PSD, StackedAutoEncoder or the like
        Fitted.
    X : {array-like, sparse matrix} of shape (n_samples, n_features)
        Data, in the units that the estimator was fitted on.
    n_values : int, default=None
        How many of the largest. None: all, for which each row costs a decomposition of its
        whole Jacobian.
    of : {"encoder", "reconstruction"}, default="encoder"
        Whether to differentiate the code or the reconstruction.

    Returns
    -------
    singular_values : ndarray of shape (n_samples, n_values)
        Decreasing, with respect to the input as the network sees it,
        (x - columns_.shift) / columns_.scale; so is the reconstruction.

    Raises
    ------
    ValueError
        If the code has no gradient, as that of a `SparseCoder`, or the Jacobian has fewer
        singular values.

    See Also
    --------
    local_rank : How many of them matter.
    tangents : Their directions of input space.

    Notes
    -----
    A few of many values are found by iteration, to about four digits.

    References
    ----------
    .. [1] S. Rifai, P. Vincent, X. Muller, X. Glorot, Y. Bengio. Contractive
       auto-encoders: explicit invariance during feature extraction. ICML 2011.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import ContractiveAutoEncoder
    >>> from skae.diagnostics import jacobian_spectrum, local_rank
    >>> X = load_digits().data / 16
    >>> cae = ContractiveAutoEncoder(32, contraction=0.3, max_iter=20, random_state=0).fit(X)
    >>> values = jacobian_spectrum(cae, X[:100])
    >>> values.shape
    (100, 32)
    >>> bool(local_rank(values).mean() < 16)
    True
    """
    X = check_differentiable(estimator, X, of)
    n_out = estimator._n_features_out if of == "encoder" else X.shape[1]
    most = min(n_out, X.shape[1])
    if n_values is not None:
        check_count("n_values", n_values, 1)
        if n_values > most:
            raise ValueError(
                f"n_values={n_values}, but a Jacobian of {n_out} outputs and {X.shape[1]} inputs "
                f"has {most} singular values: ask for at most {most}, or for all by None."
            )

    def values(jacobian, rows):
        if n_values is None:
            return spectrum(jacobian)
        return leading_singular_vectors(jacobian, n_values).values

    return map_jacobians(estimator, X, values, (n_values or most,), of)


def local_rank(singular_values, share=0.9):
    r"""How many directions the code follows at each row.

    The least r with

    .. math::

        \sum_{k \le r} s_k^2 \ge \text{share} \cdot \sum_k s_k^2

    and 0 where all singular values are 0.

    Parameters
    ----------
    singular_values : array-like of shape (n_samples, n_values)
        Decreasing. All of them, as from `jacobian_spectrum`: what is missing is taken for 0.
    share : float, default=0.9
        Of the squared Frobenius norm of the Jacobian; more than 0 and at most 1.

    Returns
    -------
    ranks : ndarray of int of shape (n_samples,)

    Examples
    --------
    >>> from skae.diagnostics import local_rank
    >>> local_rank([[3, 3, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]])
    array([2, 1, 0, 4])
    """
    values = _check_spectra(singular_values)
    share = check_number("share", share)
    if not 0 < share <= 1:
        raise ValueError(f"share={share!r} must be more than 0 and at most 1.")
    # Relative to the first, whose square neither overflows nor vanishes.
    first = values[:, :1]
    held = np.cumsum(np.divide(values, first, out=np.zeros_like(values), where=first > 0) ** 2, 1)
    ranks = 1 + np.argmax(held >= share * held[:, -1:], axis=1)
    return np.where(first[:, 0] > 0, ranks, 0)


def tangent_defects(singular_values, *, scale=None, tol=1e-5, fall=0.1):
    r"""At which rows the leading singular vectors are no tangents.

    With singular values :math:`s_1 \ge \ldots \ge s_n` of a row, its spectrum is

    - zero if :math:`s_1` is at most ``tol`` times ``scale``: the encoder has collapsed there;
    - flat if it is not zero and :math:`s_n > (1 - \text{fall})\, s_1`: what was learned (if
      anything was) prefers no direction to another.

    Parameters
    ----------
    singular_values : array-like of shape (n_samples, n_values)
        Decreasing. For n tangents take the n + 1 largest, so that the first direction that
        is left out is compared with those that are not. One value alone is never flat.
    scale : float, default=None
        What the code is like, for example its largest absolute value. None: the largest of the
        singular values, with which an encoder is zero at all rows only if it is exactly 0.
    tol : float, default=1e-5
        Response, as a fraction of ``scale``, that counts as none.
    fall : float, default=0.1
        Least fall from the first to the last value, as a fraction of the first.

    Returns
    -------
    defects : TangentDefects
        ``zero`` and ``flat``, of shape (n_samples,) each.

    See Also
    --------
    constant_units : Which units do not respond at any row.

    Examples
    --------
    >>> from skae.diagnostics import tangent_defects
    >>> zero, flat = tangent_defects([[2.0, 1.0, 0.1], [0.0, 0.0, 0.0], [1.0, 1.0, 0.95]])
    >>> zero
    array([False,  True, False])
    >>> flat
    array([False, False,  True])
    """
    values = _check_spectra(singular_values)
    scale = values.max() if scale is None else check_number("scale", scale)
    first, last = values[:, 0], values[:, -1]
    zero = first <= tol * scale
    return TangentDefects(zero, ~zero & (values.shape[1] > 1) & (last > (1 - fall) * first))


def _check_spectra(singular_values):
    """Singular values as float64, of shape (n_samples, n_values)."""
    values = check_array(singular_values, dtype=np.float64, input_name="singular_values")
    if (values < 0).any() or (np.diff(values, axis=1) > 0).any():
        raise ValueError(
            "Singular values are at least 0 and decrease within each row, but those that were "
            "passed do not: pass what jacobian_spectrum or tangents returns."
        )
    return values
