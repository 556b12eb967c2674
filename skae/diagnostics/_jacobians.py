"""How a fitted encoder responds to its input, at rows of data."""

import numpy as np
import torch
from sklearn.utils import check_array

from skae._validation import check_choice, check_is_fitted, check_rows

# Entries of the Jacobians' row-dependent factors that are held at a time.
_FACTOR_ENTRIES = 2**22


def check_differentiable(estimator, X, of):
    """Checked rows for an estimator whose code, or reconstruction, has a Jacobian."""
    check_choice("of", of, ("encoder", "reconstruction"))
    if not hasattr(estimator, "_jacobian"):
        raise ValueError(
            f"This {type(estimator).__name__} has no Jacobian that is known here: pass a fitted "
            "auto-encoder, RBM or stack of them, such as the stack_ of a StackedClassifier."
        )
    check_is_fitted(estimator)
    return check_rows(estimator, X, reset=False)


def map_jacobians(estimator, X, function, shape, of):
    """``function(jacobian, rows)`` for blocks of checked rows, as an array (n_samples, *shape).

    The Jacobian is that of standardised columns, at the rows of a slice.
    """
    start = 0

    def of_block(theta, x):
        nonlocal start
        rows = slice(start, start + len(x))
        start += len(x)
        return function(estimator._jacobian(theta, x, of), rows)

    return estimator._map_rows(X, of_block, shape, standardize=True)


def map_parts(jacobian, function):
    """``function`` of parts of a Jacobian's rows, for what holds dense Jacobians or factors."""
    widths = [weight.shape[1] for weight in getattr(jacobian, "weights", ())]
    step = max(1, _FACTOR_ENTRIES // (jacobian.n_out * max([jacobian.n_in, *widths])))
    starts = range(0, jacobian.n_rows, step)
    return torch.cat([function(jacobian.rows(slice(i, i + step))) for i in starts])


def scale_like(estimator, tensor):
    """The columns' scale, as a tensor like another one; None where it is 1."""
    return estimator.columns_.standardization(tensor.dtype, tensor.device)[1]


def is_single_layer(jacobian):
    """Whether J = diag(slope) W, so that nothing dense is needed for its norms."""
    return len(getattr(jacobian, "weights", ())) == 1


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
    The norm can be made small by scaling the encoder's weights down and an untied
    decoder's up: compare models whose weights are tied, or whose codes are bounded.

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
    >>> free, contracted = (
    ...     ContractiveAutoEncoder(32, contraction=c, max_iter=20, random_state=0).fit(X)
    ...     for c in (0, 1)
    ... )
    >>> bool(jacobian_norms(free, X).mean() > jacobian_norms(contracted, X).mean())
    True
    """
    X = check_differentiable(estimator, X, of)

    def norms_of(part):
        # Where units are saturated, rounding may leave a negative number of size 1e-16.
        return part.squared_norm().clamp_(min=0).sqrt_()

    def norms(jacobian, rows):
        return norms_of(jacobian) if is_single_layer(jacobian) else map_parts(jacobian, norms_of)

    return map_jacobians(estimator, X, norms, (), of)


def jacobian_products(estimator, X, directions, *, of="encoder"):
    r"""Derivatives of the code along directions of input space, at each row.

    .. math::

        \frac{\partial h(x)}{\partial x} u
        = \lim_{t \to 0} \frac{h(x + t u) - h(x)}{t}

    of what `transform` or `reconstruct` returns, in the units of the data. Without the
    Jacobian itself: the price is about that of a call of `transform` for each direction.

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
        If the code has no gradient, as that of a `SparseCoder`, or directions do not
        fit the rows.

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
    directions = _check_directions(directions, X.shape)
    each = directions.reshape(X.shape[0], -1, X.shape[1])

    def products(jacobian, rows):
        u = torch.from_numpy(np.array(each[rows], order="C")).to(jacobian.like)
        scale = scale_like(estimator, u)
        product = jacobian.times(u if scale is None else u / scale)
        return product if scale is None or of == "encoder" else product * scale

    n_out = estimator._n_features_out if of == "encoder" else X.shape[1]
    result = map_jacobians(estimator, X, products, (each.shape[1], n_out), of)
    return result.reshape(*directions.shape[:-1], n_out)


def _check_directions(directions, shape):
    directions = check_array(
        directions,
        dtype=[np.float64, np.float32],
        ensure_2d=False,
        allow_nd=True,
        input_name="directions",
    )
    n_samples, n_features = shape
    if directions.ndim not in (2, 3) or (directions.shape[0], directions.shape[-1]) != shape:
        raise ValueError(
            f"directions have shape {directions.shape}, but X has {n_samples} rows of "
            f"{n_features} features: pass an array of shape ({n_samples}, {n_features}), or "
            f"({n_samples}, m, {n_features}) for m directions at each row."
        )
    return directions
