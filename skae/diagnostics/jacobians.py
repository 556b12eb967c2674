"""How a fitted encoder responds to its input: norms, products and singular values of Jacobians."""

import numpy as np
import torch
from sklearn.utils import check_array

from skae._validation import (
    as_array,
    check_choice,
    check_count,
    check_is_fitted,
    check_number,
    check_rows,
)
from skae.engine.networks.differentials import jacobian_of
from skae.engine.networks.singular_vectors import leading_singular_vectors, spectrum
from skae.engine.optimisation.devices import place_of, undisturbed

# Entries of the Jacobians' row-dependent factors that are held at a time.
_FACTOR_ENTRIES = 2**21


def check_differentiable(estimator, X, of):
    """Checked rows for an estimator whose code, or reconstruction, has a Jacobian."""
    check_choice("of", of, ("encoder", "reconstruction"))
    if not hasattr(estimator, "_fitted_model"):
        raise ValueError(
            f"This {type(estimator).__name__} has no Jacobian that is known here: pass a fitted "
            "auto-encoder, RBM or stack of them, such as the stack_ of a StackedClassifier."
        )
    check_is_fitted(estimator)
    return check_rows(estimator, X, reset=False)


def map_jacobians(estimator, X, function, shape, of, n_vectors=1):
    """``function(jacobian, rows)`` for blocks of checked rows, as an array (n_samples, *shape).

    The Jacobian is that of standardised columns, at the rows of a slice; the function takes
    ``n_vectors`` of each row through the model.
    """
    model, theta = fitted = estimator._fitted_model(X)
    if model.no_gradient is not None:
        raise ValueError(
            f"The code of this {type(estimator).__name__} has no Jacobian: {model.no_gradient}."
        )
    start = 0

    def of_block(x):
        nonlocal start
        rows = slice(start, start + len(x))
        start += len(x)
        return function(jacobian_of(model, theta, x, of), rows)

    if model.encoder is None:  # the whole Jacobian may take a pass for each output or input
        n_vectors = max(n_vectors, min(model.n_codes, model.n_features))
    return fitted.map_rows(of_block, X, shape, width=n_vectors * model.width)


def map_parts(jacobian, function):
    """``function`` of parts of a Jacobian's rows, for what holds dense Jacobians or factors."""
    widths = [weight.shape[1] for weight in getattr(jacobian, "weights", ())]
    step = max(1, _FACTOR_ENTRIES // (jacobian.n_out * max([jacobian.n_in, *widths])))
    starts = range(0, jacobian.n_rows, step)
    return torch.cat([function(jacobian.rows(slice(i, i + step))) for i in starts])


def scale_like(estimator, tensor):
    """The columns' scale, as a tensor like another one; None where it is 1."""
    return estimator.columns_.standardization(place_of(tensor))[1]


def is_single_layer(jacobian):
    """Whether J = diag(slope) W, so that nothing dense is needed for its norms."""
    return len(getattr(jacobian, "weights", ())) == 1


@undisturbed
def jacobian_norms(estimator, X, *, of="encoder"):
    r"""Frobenius norm of the code's Jacobian dh/dx at each row.

    .. math::

        \left\| \frac{\partial h(x)}{\partial x} \right\|_F
        = \bigl( \sum_{ij} \bigl( \frac{\partial h_j(x)}{\partial x_i} \bigr)^2 \bigr)^{1/2}

    It is what ``contraction`` penalises: how strongly the code responds to a small
    change of the input, over all directions together.

    Parameters
    ----------
    estimator : AutoEncoder, RBM, PSD, StackedAutoEncoder or the like
        Fitted.
    X : {array-like, sparse matrix} of shape (n_samples, n_features)
        Data, in the units that the estimator was fitted on.
    of : {"encoder", "reconstruction"}, default="encoder"
        Whether to differentiate the code or the reconstruction.

    Returns
    -------
    norms : ndarray of shape (n_samples,)
        With respect to the input as the network sees it,
        (x - columns_.shift) / columns_.scale; so is the reconstruction.

    Raises
    ------
    ValueError
        If the code has no gradient, as that of a `SparseCoder`.

    See Also
    --------
    jacobian_spectrum : The directions one by one.

    Notes
    -----
    Scaling the encoder's weights down and an untied decoder's up makes the norm small: compare
    models whose weights are tied, or whose codes are bounded.

    References
    ----------
    .. [1] S. Rifai, P. Vincent, X. Muller, X. Glorot, Y. Bengio. Contractive
       auto-encoders: explicit invariance during feature extraction. ICML 2011.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import ContractiveAutoEncoder
    >>> from skae.diagnostics import jacobian_norms
    >>> X = load_digits().data / 16
    >>> jacobian_norms(ContractiveAutoEncoder(32, max_iter=20, random_state=0).fit(X), X).shape
    (1797,)
    """
    X = check_differentiable(estimator, X, of)

    def norms_of(part):
        # Where units are saturated, rounding may leave a negative number of size 1e-16.
        return part.squared_norm().clamp_(min=0).sqrt_()

    def norms(jacobian, rows):
        return norms_of(jacobian) if is_single_layer(jacobian) else map_parts(jacobian, norms_of)

    return map_jacobians(estimator, X, norms, (), of)


@undisturbed
def jacobian_products(estimator, X, directions, *, of="encoder"):
    r"""Derivatives of the code along directions of input space, at each row.

    .. math::

        \frac{\partial h(x)}{\partial x} u
        = \lim_{t \to 0} \frac{h(x + t u) - h(x)}{t}

    of what `transform` or `reconstruct` returns, in the units of the data; each direction costs
    about a call of `transform`, since the Jacobian itself is not formed.

    Parameters
    ----------
    estimator : AutoEncoder, RBM, PSD, StackedAutoEncoder or the like
        Fitted.
    X : {array-like, sparse matrix} of shape (n_samples, n_features)
        Data, in the units that the estimator was fitted on.
    directions : array-like of shape (n_samples, n_features) or (n_samples, m, n_features)
        One direction u for each row, or m, in the same units.
    of : {"encoder", "reconstruction"}, default="encoder"
        Whether to differentiate the code or the reconstruction.

    Returns
    -------
    products : ndarray of shape (n_samples, n_out) or (n_samples, m, n_out)
        Where n_out is n_components, or n_features for the reconstruction.

    Raises
    ------
    ValueError
        If the code has no gradient, as that of a `SparseCoder`, or directions do not fit the rows.

    See Also
    --------
    tangents : The directions along which these products are largest.

    References
    ----------
    .. [1] P. Simard, B. Victorri, Y. LeCun, J. Denker. Tangent prop: a formalism for
       specifying selected invariances in an adaptive network. NIPS 1991.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from skae import AutoEncoder
    >>> from skae.diagnostics import jacobian_products
    >>> X = load_digits().data / 16
    >>> model = AutoEncoder(32, max_iter=10, random_state=0).fit(X)
    >>> step = X[1:101] - X[:100]
    >>> slope = jacobian_products(model, X[:100], step)
    >>> change = model.transform(X[:100] + 1e-6 * step) - model.transform(X[:100])
    >>> bool(np.allclose(slope, change / 1e-6, atol=1e-5))
    True
    """
    X = check_differentiable(estimator, X, of)
    form = dict(dtype=[np.float64, np.float32], ensure_2d=False, allow_nd=True)
    directions = check_array(as_array(directions), input_name="directions", **form)
    n_samples, n_features = X.shape
    if directions.ndim not in (2, 3) or (directions.shape[0], directions.shape[-1]) != X.shape:
        raise ValueError(
            f"directions have shape {directions.shape}, but X has {n_samples} rows of "
            f"{n_features} features: pass an array of shape ({n_samples}, {n_features}), or "
            f"({n_samples}, m, {n_features}) for m directions at each row."
        )
    each = directions.reshape(n_samples, -1, n_features)

    def products(jacobian, rows):
        u = torch.from_numpy(np.array(each[rows], order="C")).to(jacobian.like)
        scale = scale_like(estimator, u)
        product = jacobian.times(u if scale is None else u / scale)
        return product if scale is None or of == "encoder" else product * scale

    n_out = estimator._n_features_out if of == "encoder" else n_features
    result = map_jacobians(estimator, X, products, (each.shape[1], n_out), of, each.shape[1])
    return result.reshape(*directions.shape[:-1], n_out)


@undisturbed
def jacobian_spectrum(estimator, X, n_values=None, *, of="encoder"):
    r"""Singular values of the code's Jacobian dh/dx at each row.

    With the singular value decomposition

    .. math::

        \frac{\partial h(x)}{\partial x} = \sum_k s_k(x)\, v_k(x)\, u_k(x)^T,
        \qquad s_1 \ge s_2 \ge \ldots

    a small step along :math:`u_k` moves the code by :math:`s_k` times its length. A peaked
    spectrum is a low-dimensional chart: the code follows the few directions along which the data
    vary. The squares sum to the squared Frobenius norm that ``contraction`` penalises.

    Parameters
    ----------
    estimator : AutoEncoder, RBM, PSD, StackedAutoEncoder or the like
        Fitted.
    X : {array-like, sparse matrix} of shape (n_samples, n_features)
        Data, in the units that the estimator was fitted on.
    n_values : int, default=None
        How many of the largest. None: all, by a decomposition of each row's whole Jacobian.
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
    jacobian_norms : The root of the sum of their squares, with the paper.

    Notes
    -----
    A few of many values are found by iteration, to about four digits.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import ContractiveAutoEncoder
    >>> from skae.diagnostics import jacobian_spectrum, local_rank
    >>> X = load_digits().data / 16
    >>> cae = ContractiveAutoEncoder(32, contraction=0.3, max_iter=20, random_state=0).fit(X)
    >>> bool(local_rank(jacobian_spectrum(cae, X[:100])).mean() < 16)
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
    values = check_spectra(singular_values)
    share = check_number("share", share)
    if not 0 < share <= 1:
        raise ValueError(f"share={share!r} must be more than 0 and at most 1.")
    # Relative to the first, whose square neither overflows nor vanishes.
    first = values[:, :1]
    held = np.cumsum(np.divide(values, first, out=np.zeros_like(values), where=first > 0) ** 2, 1)
    ranks = 1 + np.argmax(held >= share * held[:, -1:], axis=1)
    return np.where(first[:, 0] > 0, ranks, 0)


def check_spectra(singular_values):
    """Singular values as float64, of shape (n_samples, n_values)."""
    values = check_array(singular_values, dtype=np.float64, input_name="singular_values")
    if (values < 0).any() or (np.diff(values, axis=1) > 0).any():
        raise ValueError(
            "Singular values are at least 0 and decrease within each row, but those that were "
            "passed do not: pass what jacobian_spectrum or tangents returns."
        )
    return values
