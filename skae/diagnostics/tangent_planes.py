"""Tangents of the data's manifold at rows of data, learned and local, and their angles."""

from typing import NamedTuple

import numpy as np
import torch
from scipy import sparse
from sklearn.utils import check_array

from skae._validation import as_array, check_count, check_number, computing_dtype
from skae.diagnostics.jacobians import (
    check_differentiable,
    check_spectra,
    map_jacobians,
    scale_like,
)
from skae.engine.networks import singular_vectors
from skae.engine.optimisation.devices import undisturbed
from skae.engine.optimisation.rows import block_bounds, fits_float32


class TangentDefects(NamedTuple):
    """At which rows singular values give no tangents.

    Attributes
    ----------
    zero : ndarray of bool of shape (n_samples,)
        The code responds to nothing: a collapsed encoder.
    flat : ndarray of bool of shape (n_samples,)
        The code responds alike in all directions, so that none is more of a tangent than others.
    """

    zero: np.ndarray
    flat: np.ndarray


class Tangents(NamedTuple):
    """Directions of input space along which the data vary, at each row.

    Attributes
    ----------
    directions : ndarray of shape (n_samples, n_tangents, n_features)
        In the units of the data, the strongest first.
    singular_values : ndarray of shape (n_samples, n_tangents)
        How strong each is, decreasing.
    """

    directions: np.ndarray
    singular_values: np.ndarray


@undisturbed
def tangents(estimator, X, n_tangents, *, of="encoder"):
    r"""Directions of input space to which the code responds most, at each row.

    With the singular value decomposition

    .. math::

        \frac{\partial h(x)}{\partial x} = \sum_k s_k(x)\, v_k(x)\, u_k(x)^T,
        \qquad s_1 \ge s_2 \ge \ldots

    the tangents at x are the leading right singular vectors :math:`u_1, \ldots, u_n`: where
    the encoder was contracted, what it still responds to are the directions along which
    the data vary, the tangent plane of their manifold [1]_.

    Parameters
    ----------
    estimator : AutoEncoder, RBM, PSD, StackedAutoEncoder or the like
        Fitted.
    X : {array-like, sparse matrix} of shape (n_samples, n_features)
        Data, in the units that the estimator was fitted on.
    n_tangents : int
        Dimension of the tangent plane; at most min(n_features, n_components).
    of : {"encoder", "reconstruction"}, default="encoder"
        Whether to decompose the Jacobian of the code or that of the reconstruction.

    Returns
    -------
    tangents : Tangents
        ``directions`` and ``singular_values``. For the input as the network sees it,
        (x - columns_.shift) / columns_.scale, directions are orthonormal; in the units of the
        data they are those times ``columns_.scale``.

    Raises
    ------
    ValueError
        If there are fewer directions than tangents, or the code has no gradient, as that
        of a `SparseCoder`.

    See Also
    --------
    local_pca_tangents : Tangents of a neighbourhood, without a model.
    tangent_defects : Where directions mean nothing, because the encoder collapsed.

    Notes
    -----
    By convention a direction's entry of largest magnitude is positive before scaling. Where two
    singular values are equal, only the plane of both directions is determined.

    References
    ----------
    .. [1] S. Rifai, Y. Dauphin, P. Vincent, Y. Bengio, X. Muller. The manifold tangent
       classifier. NIPS 2011.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import ContractiveAutoEncoder
    >>> from skae.diagnostics import tangents
    >>> X = load_digits().data / 16
    >>> cae = ContractiveAutoEncoder(64, max_iter=20, random_state=0).fit(X)
    >>> directions, singular_values = tangents(cae, X[:100], n_tangents=5)
    >>> directions.shape, singular_values.shape
    ((100, 5, 64), (100, 5))
    """
    X = check_differentiable(estimator, X, of)
    check_count("n_tangents", n_tangents, 1)
    most = min(X.shape[1], estimator._n_features_out)
    if n_tangents > most:
        raise ValueError(
            f"n_tangents={n_tangents}, but the Jacobian of {estimator._n_features_out} code units "
            f"with respect to {X.shape[1]} features has a rank of at most {most}: ask for at most "
            f"{most} tangents, or fit with more code units."
        )
    return leading_directions(estimator, X, n_tangents, of)


def leading_directions(estimator, X, n_tangents, of="encoder"):
    """`tangents` at checked rows."""
    shape = (X.shape[0], n_tangents, X.shape[1])
    directions = torch.empty(shape, dtype=computing_dtype(X, torch.device("cpu"))).numpy()

    def values(jacobian, rows):
        found = singular_vectors.leading_singular_vectors(jacobian, n_tangents)
        scale = scale_like(estimator, found.right)
        right = found.right if scale is None else found.right * scale
        directions[rows] = right.cpu().numpy()
        return found.values

    # Only the values pass through: blocks stay large, whatever the number of tangents.
    return Tangents(directions, map_jacobians(estimator, X, values, (n_tangents,), of))


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
    values = check_spectra(singular_values)
    scale = values.max() if scale is None else check_number("scale", scale)
    first, last = values[:, 0], values[:, -1]
    zero = first <= tol * scale
    return TangentDefects(zero, ~zero & (values.shape[1] > 1) & (last > (1 - fall) * first))


@undisturbed
def local_pca_tangents(X, n_tangents, *, n_neighbors=20, query=None):
    r"""Principal directions of the nearest neighbours of each row.

    With the k rows :math:`x_{(1)}, \ldots, x_{(k)}` that are nearest to x and their mean
    :math:`\bar x`, the tangents at x are the leading right singular vectors of

    .. math::

        \frac{1}{\sqrt{k - 1}}
        \left( x_{(1)} - \bar x, \ldots, x_{(k)} - \bar x \right)^T

    It is the baseline for `tangents`. Each tangent plane is found from its own k rows alone,
    which have to be near and many: curved manifolds of many dimensions need more rows than exist.

    Parameters
    ----------
    X : {array-like, sparse matrix} of shape (n_samples, n_features)
        Rows among which neighbours are found, by Euclidean distance. Bring columns to one
        scale first.
    n_tangents : int
        Dimension of the tangent plane; less than ``n_neighbors``, at most n_features.
    n_neighbors : int, default=20
        Size of a neighbourhood, k. A row of X is one of its own neighbours.
    query : {array-like, sparse matrix} of shape (n_queries, n_features), default=None
        Rows whose tangents are wanted. None: those of X.

    Returns
    -------
    tangents : Tangents
        Orthonormal ``directions`` and, as ``singular_values``, standard deviations of the
        neighbourhood along them, at each row of ``query``. Where all neighbours are the same row
        the values are 0, and directions are arbitrary.

    Raises
    ------
    ValueError
        If there are too few neighbours for the tangents, or too few rows for the neighbours.

    See Also
    --------
    tangents : Those of a model, with the paper that compares both.

    Examples
    --------
    >>> import numpy as np
    >>> from skae.diagnostics import local_pca_tangents, principal_angles
    >>> angle = np.linspace(0, 2 * np.pi, 500, endpoint=False)
    >>> circle = np.column_stack([np.cos(angle), np.sin(angle)])
    >>> truth = np.column_stack([-np.sin(angle), np.cos(angle)])[:, np.newaxis]
    >>> found = local_pca_tangents(circle, 1, n_neighbors=11).directions
    >>> bool(np.degrees(principal_angles(found, truth)).max() < 0.1)
    True
    """
    # Here, since who only fits models should not wait for this import.
    from sklearn.neighbors import NearestNeighbors

    X = _check_neighbourhood(X, n_tangents, n_neighbors)
    query = X if query is None else _as_floats(query, "query").astype(X.dtype, copy=False)
    if query.shape[1] != X.shape[1]:
        raise ValueError(
            f"query has {query.shape[1]} columns, but X has {X.shape[1]}: tangents are found at "
            "rows of the same features."
        )
    neighbours = NearestNeighbors(n_neighbors=n_neighbors).fit(X)
    nearest = neighbours.kneighbors(query, return_distance=False)
    n_queries, n_features = query.shape
    directions = np.empty((n_queries, n_tangents, n_features), dtype=X.dtype)
    values = np.empty((n_queries, n_tangents), dtype=X.dtype)
    for start, stop in block_bounds(n_queries, n_neighbors * n_features):
        around = X[nearest[start:stop].ravel()]
        around = around.toarray() if sparse.issparse(around) else around
        around = torch.from_numpy(around.reshape(stop - start, n_neighbors, n_features))
        around = around - around.mean(1, keepdim=True)
        _, spread, right = torch.linalg.svd(around, full_matrices=False)
        directions[start:stop] = right[:, :n_tangents].numpy()
        values[start:stop] = spread[:, :n_tangents].numpy() / np.sqrt(n_neighbors - 1)
    return Tangents(directions, values)


def _check_neighbourhood(X, n_tangents, n_neighbors):
    check_count("n_tangents", n_tangents, 1)
    check_count("n_neighbors", n_neighbors, 2)
    X = _as_floats(X, "X")
    if n_tangents > X.shape[1]:
        raise ValueError(
            f"n_tangents={n_tangents}, but X has {X.shape[1]} features, which is the dimension of "
            f"the whole space: ask for at most {X.shape[1]}."
        )
    if n_tangents >= n_neighbors:
        raise ValueError(
            f"{n_neighbors} neighbours span {n_neighbors - 1} directions at most, but n_tangents="
            f"{n_tangents}: use n_neighbors={n_tangents + 1} at least, or fewer tangents."
        )
    if n_neighbors > X.shape[0]:
        raise ValueError(
            f"n_neighbors={n_neighbors}, but X has {X.shape[0]} rows: pass more rows, or use "
            f"n_neighbors={X.shape[0]} at most."
        )
    return X


def _as_floats(array, name):
    """A checked array or CSR matrix, in float32 where that holds all of its numbers."""
    array = check_array(as_array(array), accept_sparse="csr", dtype="numeric", input_name=name)
    return array.astype(np.float32 if fits_float32(array.dtype) else np.float64, copy=False)


@undisturbed
def principal_angles(first, second):
    r"""Angles between two planes of directions, at each row.

    With orthonormal bases A and B of the two planes, the cosines of the angles
    :math:`\theta_1 \le \theta_2 \le \ldots` are the singular values of :math:`A B^T`: the
    first is the least angle between a direction of one plane and one of the other, the next is
    the same for what is orthogonal to both, and so on. All are 0 where one contains the other.

    Parameters
    ----------
    first : array-like of shape (n_samples, m_1, n_features)
        Linearly independent directions, such as those of `Tangents`, of any length and angle.
    second : array-like of shape (n_samples, m_2, n_features)
        The same.

    Returns
    -------
    angles : ndarray of shape (n_samples, min(m_1, m_2))
        In radians, from 0 to pi / 2, increasing.

    References
    ----------
    .. [1] A. Bjorck, G. H. Golub. Numerical methods for computing angles between linear
       subspaces. Mathematics of Computation 27, 1973.

    Examples
    --------
    >>> import numpy as np
    >>> from skae.diagnostics import principal_angles
    >>> plane = [[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]]
    >>> tilted = [[[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]]]
    >>> np.degrees(principal_angles(plane, tilted)).round(6)
    array([[ 0., 45.]])
    """
    first, second = (
        check_array(as_array(array), dtype=[np.float64, np.float32], allow_nd=True, input_name=name)
        for array, name in ((first, "first"), (second, "second"))
    )
    shapes = first.shape, second.shape
    if not first.ndim == second.ndim == 3 or shapes[0][::2] != shapes[1][::2]:
        raise ValueError(
            f"Directions have shapes {shapes[0]} and {shapes[1]}: both must be (n_samples, "
            "n_directions, n_features), with the same rows and features."
        )
    if max(shapes[0][1], shapes[1][1]) > shapes[0][2]:
        raise ValueError(
            f"Directions have shapes {shapes[0]} and {shapes[1]}: more than n_features of them "
            "cannot be independent. Pass fewer."
        )
    dtype = np.result_type(first, second)
    angles = np.empty((len(first), min(shapes[0][1], shapes[1][1])), dtype=dtype)
    for start, stop in block_bounds(len(first), sum(shape[1] * shape[2] for shape in shapes)):
        both = (
            torch.from_numpy(np.array(array[start:stop], dtype=dtype, order="C"))
            for array in (first, second)
        )
        angles[start:stop] = singular_vectors.principal_angles(*both).numpy()
    return angles
