"""Leading singular vectors of many Jacobians at once, and the angles between their spans.

A Jacobian is an object of `skae.engine.networks.jacobians`. Where its smaller side is small, an SVD
is as quick as anything. Otherwise its left vectors come from the Rayleigh-Ritz method for J J^T in
a space that grows by the leading residuals J J^T y - s^2 y of its best vectors y (Davidson's method
without a preconditioner): only products are needed, and a layered map makes those of all rows in
one product with weights that the rows share. The space starts with the longest J u for u near the
leading vectors of the rows' average, which cost next to nothing. The right vectors are J^T y / s.

Where most units of a layer are saturated (or dead), J has few rows that matter. Leaving
out rows J_d changes J^T J by J_d^T J_d, of norm |J_d|_F^2 at most, so that the rest is
enough where this is small beside the last singular value squared.
"""

from functools import partial
from typing import NamedTuple

import torch

from skae.engine.networks.jacobians import LayeredJacobian

# Vectors beyond those that are asked for: they converge first where spectra fall slowly.
_OVERSAMPLING = 5
# Directions that the rows share at the start, and vectors of a space before it is started anew
# from its Ritz vectors, in multiples of those that are kept; looks after which an SVD takes over.
_SHARED, _LONGEST, _MOST = 3, 5, 120
# Up to this smaller side, an SVD is used at once.
_SMALL = 64
# Share of |J|_F^2, for a tolerance of 1, that the units left out may have to begin with.
_LEFT_OUT = 1e-6
# A product with J J^T is wrong by about this many times the dtype's precision.
_ROUNDING = 100
# Entries of a block of rows that are held at a time.
_ENTRIES = 2**21


class SingularVectors(NamedTuple):
    """Leading singular values of each row's Jacobian, decreasing, with their right vectors.

    ``values`` has shape (n_rows, n), ``right`` (n_rows, n, n_in): orthonormal directions of input
    space, the entry of largest magnitude positive.
    """

    values: torch.Tensor
    right: torch.Tensor


@torch.no_grad()
def leading_singular_vectors(jacobian, n, *, generator=None, tolerance=5e-3):
    """The n leading singular values and right vectors of each row's Jacobian.

    The generator is that of the start of the iteration; None draws the same start in every call.
    ``tolerance`` bounds the residual |J J^T y - s^2 y| of every vector, as a fraction of s^2; an
    SVD takes over where the iteration does not get there.

    Values have a relative error of about tolerance^2. The span's angle to the true one is a few
    times the tolerance, in radians, where values fall by 1 % or more after the last: below one
    degree on all trained encoders that were tried. To within these errors, a row's vectors depend
    on the rows that are solved with it. Values below 1e-6 of the first are noise in the iteration:
    their directions are orthonormal, and no more is known of them.
    """
    smaller = min(jacobian.n_out, jacobian.n_in)
    if not 1 <= n <= smaller:
        raise ValueError(
            f"n={n!r} singular vectors were asked of Jacobians of {jacobian.n_out} outputs and "
            f"{jacobian.n_in} inputs: ask for 1 to {smaller}"
        )
    like = jacobian.like
    found = SingularVectors(
        like.new_empty(jacobian.n_rows, n), like.new_empty(jacobian.n_rows, n, jacobian.n_in)
    )
    rows = torch.arange(jacobian.n_rows, device=like.device)
    if smaller > max(_SMALL, _SHARED * (n + _OVERSAMPLING)):
        width = n + _OVERSAMPLING
        directions = _start_directions(jacobian, width, generator)
        layered = isinstance(jacobian, LayeredJacobian)
        if layered and len(jacobian.weights) == 1:
            rows = _by_active_units(jacobian, directions, width, tolerance, rows, found)
        rows = _by_all_units(jacobian, directions, width, tolerance, rows, found)
        if layered and like.dtype != torch.float64 and len(rows):
            # J J^T has J's condition number squared: more digits are often all it takes.
            more_digits = jacobian.rows(rows).double()
            vectors = leading_singular_vectors(
                more_digits, n, generator=generator, tolerance=tolerance
            )
            found.values[rows], found.right[rows] = (v.to(like.dtype) for v in vectors)
            return found
    for index in _blocks(rows, jacobian.n_out * jacobian.n_in):
        _, values, right = torch.linalg.svd(jacobian.rows(index).dense(), full_matrices=False)
        _keep_(found, index, torch.ones_like(index).bool(), values[:, :n], right[:, :n])
    return found


def spectrum(jacobian):
    """All singular values of each row's Jacobian, (n_rows, min(n_out, n_in)), decreasing."""
    rows = torch.arange(jacobian.n_rows, device=jacobian.like.device)
    values = jacobian.like.new_empty(jacobian.n_rows, min(jacobian.n_out, jacobian.n_in))
    for index in _blocks(rows, jacobian.n_out * jacobian.n_in):
        values[index] = torch.linalg.svdvals(jacobian.rows(index).dense())
    return values


def principal_angles(first, second):
    """Angles in radians, increasing, between the spans of two sets of directions at each row.

    The sets are of shapes (n_rows, m1, n_in) and (n_rows, m2, n_in), linearly independent; they
    need not be orthonormal. Returns shape (n_rows, min(m1, m2)).
    """
    if first.shape[1] < second.shape[1]:
        first, second = second, first
    first, second = _orthonormal(first), _orthonormal(second)
    shadow = second @ first.mT
    cosines = torch.linalg.svdvals(shadow).clamp(max=1)
    sines = torch.linalg.svdvals(second - shadow @ first).flip(1).clamp(max=1)
    # Each is exact only where it changes with the angle (Bjorck & Golub 1973).
    return torch.where(cosines > sines, torch.asin(sines), torch.acos(cosines))


def _random_directions(n, n_in, like, generator):
    if generator is None:
        generator = torch.Generator(like.device).manual_seed(0)
    shape, device = (1, n, n_in), generator.device
    draw = torch.randn(shape, dtype=like.dtype, device=device, generator=generator)
    return draw.to(like.device)


def _entries_held(width, n_out):
    return 2 * _SHARED * width * n_out


def _blocks(rows, entries_per_row):
    return rows.split(max(1, _ENTRIES // entries_per_row)) if len(rows) else ()


def _start_directions(jacobian, width, generator):
    """Directions for J u to start from: those that matter to the rows on average, and more."""
    if not isinstance(jacobian, LayeredJacobian):
        return _random_directions(width, jacobian.n_in, jacobian.like, generator)
    n = min(_SHARED * width, jacobian.n_in)
    drawn = _orthonormal(_random_directions(n, jacobian.n_in, jacobian.like, generator))
    average, directions = jacobian.average(), drawn
    for _ in range(3):
        directions = _orthonormal(average.transposed_times(average.times(directions)))
    # What the average does not see must be there, too.
    return directions + 1e-2 * drawn


def _start(jacobian, directions, width):
    """Orthonormal vectors J u of each row that are longest among those of the span."""
    image = jacobian.times(directions)
    if image.shape[1] > width:
        _, turn = torch.linalg.eigh(image @ image.mT)
        image = turn[:, :, -width:].flip(2).mT @ image
    return _orthonormal(image)


def _by_all_units(jacobian, directions, width, tolerance, rows, found):
    """Keep the vectors of the rows whose iteration converges; return the other rows."""
    n, unsolved = found.values.shape[1], [rows[:0]]
    for index in _blocks(rows, _entries_held(width, jacobian.n_out)):
        part = jacobian.rows(index)
        left, converged = _leading_left_vectors(
            lambda live, part=part: part.rows(live).gram_times,
            _start(part, directions, width),
            n,
            # Products are dear: fewer are needed where the space grows in small steps.
            min(n, width // 2),
            tolerance,
        )
        unsolved.append(_keep_(found, index, converged, *_right_vectors(part, left)))
    return torch.cat(unsolved)


def _by_active_units(jacobian, directions, width, tolerance, rows, found):
    """The same for the rows of one layer's J to which a quarter of the units is enough."""
    n, n_units = found.values.shape[1], jacobian.n_out
    counts = torch.full_like(rows, n_units)
    for index in _blocks(rows, n_units):
        counts[index] = _count_active(jacobian.rows(index), tolerance).clamp(min=width)
    few = counts <= n_units // 4
    unsolved = [rows[~few]]
    weight = jacobian.weights[0].double() if few.any() else None
    gram_of_all = None if weight is None else weight @ weight.t()
    # Rows with like numbers of units are solved together, each with the largest number.
    rows = rows[few][counts[few].argsort(stable=True)]
    for index in _blocks(rows, _entries_held(width, n_units)):
        part = jacobian.rows(index)
        units, gram, dropped = _active_gram(part, gram_of_all, int(counts[index[-1]]))
        among_all = units.unsqueeze(1).expand(-1, width, -1)
        left, converged = _leading_left_vectors(
            lambda live, gram=gram: partial(torch.bmm, mat2=gram[live]),
            _orthonormal(part.times(directions[:, :width]).gather(2, among_all).double()),
            n,
            n,
            tolerance,
        )
        left = left.new_zeros(len(index), n, n_units).scatter_(2, among_all[:, :n], left)
        left = left.to(directions.dtype)
        values, right = _right_vectors(part, left)
        converged &= dropped <= 0.1 * tolerance * values[:, -1].square()
        unsolved.append(_keep_(found, index, converged, values, right))
    return torch.cat(unsolved)


def _unit_energies(jacobian):
    return jacobian.slopes[0].square() * jacobian.weights[0].square().sum(1)


def _count_active(jacobian, tolerance):
    # How much may be left out is known for certain only when the last value is.
    left_out = _unit_energies(jacobian).sort(1).values.cumsum(1)
    return (left_out > _LEFT_OUT * tolerance * left_out[:, -1:]).sum(1)


def _active_gram(jacobian, gram, n_active):
    """The units of largest response at each row, their part of J J^T, and the others' |J|_F^2."""
    energies = _unit_energies(jacobian)
    units = energies.topk(n_active, dim=1).indices
    slope = jacobian.slopes[0].gather(1, units).to(gram.dtype)
    gram = gram[units.unsqueeze(2), units.unsqueeze(1)]
    gram = gram.mul_(slope.unsqueeze(1)).mul_(slope.unsqueeze(2))
    return units, gram, energies.scatter_(1, units, 0).sum(1)


def _leading_left_vectors(gram_times_at, block, n, step, tolerance):
    """Leading eigenvectors of J J^T at some rows, by the Rayleigh-Ritz method in spaces that grow.

    ``gram_times_at(live)`` is the product with J J^T at the rows that an index or a slice selects;
    ``block``, of shape (n_rows, width, n_out), is orthonormal; by ``step`` vectors, at most n, the
    space grows between looks for convergence. Returns the vectors, (n_rows, n, n_out), and whether
    each row's have converged.
    """
    n_rows, width, n_out = block.shape
    longest = min(_LONGEST * width, n_out)
    rounding = _ROUNDING * torch.finfo(block.dtype).eps
    vectors, converged = torch.empty_like(block[:, :n]), torch.zeros_like(block[:, 0, 0]).bool()
    rows, gram_times = torch.arange(n_rows, device=block.device), gram_times_at(slice(None))
    basis, images = block, gram_times(block)
    shadow = basis @ images.mT
    for _ in range(_MOST):
        ritz, turn = torch.linalg.eigh(shadow)
        ritz, turn = ritz[:, -width:].flip(1).unsqueeze(2), turn[:, :, -width:].flip(2).mT
        if basis.shape[1] == longest:
            basis, images, shadow = turn @ basis, turn @ images, ritz.mT.diag_embed().squeeze(1)
            block, image = basis[:, :n], images[:, :n]
        else:
            block, image = turn[:, :n] @ basis, turn[:, :n] @ images
        residual = image - ritz[:, :n] * block
        length = torch.linalg.vector_norm(residual, dim=2)
        noise, wanted = rounding * ritz[:, 0], tolerance * ritz[:, :n, 0]
        good, lost = (length <= wanted + noise).all(1), wanted[:, -1] < noise[:, 0]
        if block.dtype != torch.float64:
            good &= ~lost
        vectors[rows], converged[rows] = block, good
        going = ~(good | lost)
        if not going.any() or longest == width:
            break
        if not going.all():
            rows, basis, images = rows[going], basis[going], images[going]
            residual, wanted, shadow = residual[going], wanted[going], shadow[going]
            gram_times = gram_times_at(rows)
        # The space grows where the vectors that are asked for lack most.
        residual = residual / wanted.unsqueeze(2)
        _, turn = torch.linalg.eigh(residual @ residual.mT)
        more = min(step, longest - basis.shape[1])
        block = _orthonormal_beside(basis, turn[:, :, -more:].mT @ residual)
        image = gram_times(block)
        # Of the symmetric matrix, eigh reads the lower triangle alone.
        shadow = torch.nn.functional.pad(shadow, (0, block.shape[1]))
        basis, images = torch.cat([basis, block], dim=1), torch.cat([images, image], dim=1)
        shadow = torch.cat([shadow, image @ basis.mT], dim=1)
    return vectors, converged


def _orthonormal(directions):
    """An orthonormal basis of the span of (n_rows, m, n) at each row, completed if need be."""
    return torch.linalg.qr(directions.mT)[0].mT


def _orthonormal_beside(basis, directions):
    for _ in range(3):
        overlap = directions @ basis.mT
        directions = _orthonormal(directions - overlap @ basis)
        overlap = torch.linalg.vector_norm(directions @ basis.mT, dim=2, keepdim=True)
        inside = overlap > torch.finfo(basis.dtype).eps ** 0.5
        if not inside.any():
            return directions
    # The space is exhausted; a zero adds nothing to it, and no false value either.
    return directions.masked_fill(inside, 0)


def _right_vectors(jacobian, left):
    """Values and right vectors from orthonormal left ones, by the SVD of J^T Y."""
    right, triangle = torch.linalg.qr(jacobian.transposed_times(left).mT)
    turn, values, _ = torch.linalg.svd(triangle)
    return values, (right @ turn).mT


def _keep_(found, index, solved, values, right):
    """Store the solved rows' vectors; return the index of the others."""
    rounding = max(right.shape[1:]) * torch.finfo(values.dtype).eps
    values = values.masked_fill(values <= rounding * values[:, :1], 0)
    largest = right.gather(2, right.abs().argmax(2, keepdim=True))
    right = right * largest.sign()
    found.values[index[solved]], found.right[index[solved]] = values[solved], right[solved]
    return index[~solved]
