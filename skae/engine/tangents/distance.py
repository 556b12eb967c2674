"""Distances between rows and the planes that tangents span at them (Simard et al., NIPS 1993).

A plane is a row y and an orthonormal basis Q of its directions, {y + Q^T t}; a basis whose last
rows are zero is one of fewer dimensions. Distances to all planes come from matrix products and
serve to rank; those of the nearest are then those of two given points, without any cancellation.
"""

import torch

# Entries of what is gathered, or computed for all planes, at a time.
_ENTRIES = 2**22


def orthonormal_bases(directions: torch.Tensor) -> torch.Tensor:
    """Orthonormal bases of what directions span, one basis for each row.

    From (n_rows, n_directions, n_features), of any lengths and perhaps dependent, to (n_rows,
    min(n_directions, n_features), n_features): as many rows of each as its directions have
    dimensions, then zeros.
    """
    n_directions, n_features = directions.shape[1:]
    if directions.numel() == 0:
        return directions.new_zeros(len(directions), min(n_directions, n_features), n_features)
    # What is short is not less of a direction.
    largest = directions.abs().amax(-1, keepdim=True)
    directions = directions / torch.where(largest > 0, largest, 1)
    norm = torch.linalg.vector_norm(directions, dim=-1, keepdim=True)
    directions = directions / torch.where(norm > 0, norm, 1)
    outer, triangle = torch.linalg.qr(directions.mT)
    inner, singular, _ = torch.linalg.svd(triangle, full_matrices=False)
    least = max(n_directions, n_features) * torch.finfo(directions.dtype).eps
    spanned = singular > least * singular[:, :1]
    return (outer @ (inner * spanned.unsqueeze(1))).mT.contiguous()


def squared_distances_to_planes(
    x: torch.Tensor, rows: torch.Tensor, bases: torch.Tensor | None = None
) -> torch.Tensor:
    """|x - y|^2 - |Q x - Q y|^2 of each x and each plane, of shape (n_x, n_rows).

    Accurate to the rounding of |x|^2 + |y|^2: to rank planes by. Without bases there are points.
    """
    squared = torch.addmm(x.square().sum(1, keepdim=True), x, rows.t(), alpha=-2)
    squared += rows.square().sum(1)
    if bases is not None and bases.shape[1] > 0:
        step = max(1, _ENTRIES // (len(x) * bases.shape[1]))
        for start in range(0, len(rows), step):
            part = slice(start, start + step)
            of_rows = torch.linalg.vecdot(bases[part], rows[part].unsqueeze(1))
            along = (x @ bases[part].flatten(0, 1).t()).unflatten(1, of_rows.shape)
            squared[:, part] -= along.sub_(of_rows).square_().sum(-1)
    return squared


def distances_between_planes(
    x: torch.Tensor, rows: torch.Tensor, bases: torch.Tensor, x_bases: torch.Tensor | None = None
) -> torch.Tensor:
    """The distance of each x, or of the plane at it, to each of its own planes.

    The nearest points are x - P^T s and y + Q^T t, with C = P Q^T, d = x - y and e = d - Q^T Q d,

        (I - C C^T) s = P e,    t = Q d - C^T s

    The matrix is singular where the planes share directions. A trace of the identity is added
    to it then, so that what is returned is the distance between two points of the planes
    whatever the rounding. There are ``rows`` of shape (n_x, n_planes, n_features), ``bases`` Q of
    (n_x, n_planes, n_tangents, n_features) and ``x_bases`` P of (n_x, n_x_tangents, n_features),
    or None for points x; distances are of shape (n_x, n_planes).
    """
    difference = x.unsqueeze(1) - rows
    along = _products(bases, difference)
    rest = difference - _combinations(along, bases)
    if x_bases is not None and x_bases.shape[1] > 0:
        across = (bases.flatten(1, 2) @ x_bases.mT).unflatten(1, bases.shape[1:3])
        n_tangents = x_bases.shape[1]
        gram = across.mT @ across
        trace = 10 * n_tangents * torch.finfo(x.dtype).eps
        identity = torch.eye(n_tangents, dtype=x.dtype, device=x.device)
        factor, _ = torch.linalg.cholesky_ex((1 + trace) * identity - gram)
        steps = torch.cholesky_solve((rest @ x_bases.mT).unsqueeze(-1), factor).squeeze(-1)
        along = along - _products(across, steps)
        rest = difference - steps @ x_bases - _combinations(along, bases)
    return _lengths(rest)


def _lengths(vectors):
    """Euclidean norms, also of vectors whose squares overflow or vanish."""
    norm = torch.linalg.vector_norm(vectors, dim=-1)
    if bool((torch.isinf(norm) | (norm == 0)).any()):
        largest = vectors.abs().amax(-1, keepdim=True)
        scaled = vectors / torch.where(largest > 0, largest, 1)
        norm = largest.squeeze(-1) * torch.linalg.vector_norm(scaled, dim=-1)
    return norm


def _products(bases, vectors):
    return (bases @ vectors.unsqueeze(-1)).squeeze(-1)


def _combinations(coefficients, bases):
    return (coefficients.unsqueeze(-2) @ bases).squeeze(-2)


def nearest_planes(
    x: torch.Tensor,
    rows: torch.Tensor,
    bases: torch.Tensor,
    n_neighbors: int,
    *,
    x_bases: torch.Tensor | None = None,
    n_candidates: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The nearest planes of each x, nearest first, and among equals the first one.

    ``bases`` are of shape (n_rows, n_tangents, n_features), and so are ``x_bases`` for distances
    between planes (None: those of points to planes). Between planes, only ``n_candidates`` of each
    x, the nearest ones to x itself, are looked at (None: all). Returned are distances and indices
    of shape (n_x, n_neighbors).
    """
    n_rows = len(rows)
    if x_bases is None:
        n_candidates = n_neighbors
    if n_candidates is None or n_candidates >= n_rows:
        index = torch.arange(n_rows, device=x.device).expand(len(x), n_rows)
    else:
        index = candidates(x, rows, bases, n_candidates)
        if x_bases is not None and index.shape[1] > n_candidates:
            nearest = _distances(x, rows, bases, index).argsort(stable=True)[:, :n_candidates]
            index = index.gather(1, nearest).sort().values
    distances, order = _distances(x, rows, bases, index, x_bases).sort(stable=True)
    return distances[:, :n_neighbors], index.gather(1, order)[:, :n_neighbors]


def candidates(
    x: torch.Tensor, rows: torch.Tensor, bases: torch.Tensor, n_nearest: int
) -> torch.Tensor:
    """Planes of each x that may be among the ``n_nearest``, whatever the rounding; in order.

    A squared distance is known up to about 4 eps sqrt(n_features) (|x|^2 + |y|^2). Where rows are
    far from the mean of all, as those of clusters far apart, that is more than how distances
    differ, and more planes have to be looked at than are wanted. Of shape (n_x, n_candidates).
    """
    squared = squared_distances_to_planes(x, rows, bases)
    rounding = 4 * torch.finfo(x.dtype).eps * (1 + rows.shape[1]) ** 0.5
    error = x.square().sum(1, keepdim=True) + rows.square().sum(1)
    error.mul_(rounding)
    most = (squared + error).topk(n_nearest, largest=False).values[:, -1:]
    least = squared.sub_(error)
    # Where squares overflow nothing is known, and all are candidates.
    n_candidates = int((~(least > most)).sum(1).max())
    return least.topk(n_candidates, largest=False).indices.sort().values


def _distances(x, rows, bases, index, x_bases=None):
    """Distances of each x, or of the plane at it, to planes of its own."""
    distances = x.new_empty(index.shape)
    size = rows.shape[1] * (bases.shape[1] + 1)
    width = min(index.shape[1], max(1, _ENTRIES // size))
    height = max(1, _ENTRIES // (size * width))
    for top in range(0, len(x), height):
        some = slice(top, top + height)
        planes = None if x_bases is None else x_bases[some]
        for left in range(0, index.shape[1], width):
            chosen = index[some, left : left + width]
            distances[some, left : left + width] = distances_between_planes(
                x[some], rows[chosen], bases[chosen], planes
            )
    return distances
