"""Tangent distances against least squares, and what must hold of distances of planes."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from skae.engine.tangents import distance as tangent_distance
from skae.engine.tangents.distance import (
    distances_between_planes,
    nearest_planes,
    orthonormal_bases,
    squared_distances_to_planes,
)

N_X, N_ROWS, N_FEATURES = 6, 9, 8


def normal(generator, *shape):
    return torch.randn(shape, dtype=torch.float64, generator=generator)


@pytest.fixture(params=[(3, 3), (2, 4), (1, 3), (0, 2), (2, 0)], ids=str)
def planes(request, generator):
    """Rows and directions, those of x and those of the planes, of several numbers."""
    n_of_x, n_of_rows = request.param
    x, rows = normal(generator, N_X, N_FEATURES), normal(generator, N_ROWS, N_FEATURES)
    return (
        x,
        normal(generator, N_X, n_of_x, N_FEATURES),
        rows,
        normal(generator, N_ROWS, n_of_rows, N_FEATURES),
    )


def least_squares(x, of_x, rows, of_rows):
    """min over s and t of |x + s of_x - y - t of_rows|, one pair at a time."""
    distances = np.empty((len(x), len(rows)))
    for i in range(len(x)):
        for j in range(len(rows)):
            spanned = np.vstack([of_x[i], of_rows[j]]).T
            difference = (x[i] - rows[j]).numpy()
            solution = np.linalg.lstsq(spanned, difference, rcond=1e-10)[0]
            distances[i, j] = np.linalg.norm(difference - spanned @ solution)
    return torch.from_numpy(distances)


def all_distances(x, of_x, rows, of_rows):
    """Distances of all pairs, in the order of the rows."""
    bases, x_bases = orthonormal_bases(of_rows), orthonormal_bases(of_x)
    shape = len(x), *rows.shape
    return distances_between_planes(
        x, rows.expand(shape), bases.expand(len(x), *bases.shape), x_bases
    )


def test_bases_are_orthonormal_and_span_the_directions(generator):
    directions = normal(generator, 20, 3, N_FEATURES) * torch.tensor([[1e-9], [1.0], [1e9]])
    bases = orthonormal_bases(directions)
    identity = torch.eye(3, dtype=torch.float64).expand(20, 3, 3)
    # Orthonormal rows, however different the lengths of what they are made from.
    assert_close(bases @ bases.mT, identity, rtol=0, atol=1e-13)
    # The projection on the basis leaves each direction as it is, to rounding of its length.
    units = directions / torch.linalg.vector_norm(directions, dim=-1, keepdim=True)
    assert_close(units @ bases.mT @ bases, units, rtol=0, atol=1e-12)


def test_dependent_directions_span_fewer_dimensions(generator):
    one, other = normal(generator, 2, 20, 1, N_FEATURES)
    zero = torch.zeros_like(one)
    bases = orthonormal_bases(torch.cat([one, 3 * one, zero, other, one - other], dim=1))
    lengths = torch.linalg.vector_norm(bases, dim=-1)
    # Five directions in a plane: two dimensions, and zeros for the other three.
    assert_close(lengths, torch.tensor([1.0, 1, 0, 0, 0], dtype=torch.float64).expand(20, 5))
    for direction in (one, other):
        # Each is in the span: its projection is itself.
        assert_close(direction @ bases.mT @ bases, direction, rtol=0, atol=1e-13)
    # Nothing spans nothing.
    assert not orthonormal_bases(torch.zeros(2, 3, N_FEATURES)).any()


def test_more_directions_than_features_span_the_space(generator):
    bases = orthonormal_bases(normal(generator, 4, 5, 3))
    identity = torch.eye(3, dtype=torch.float64).expand(4, 3, 3)
    # An orthonormal basis of the whole space, of as many vectors as it has dimensions.
    assert_close(bases @ bases.mT, identity, rtol=0, atol=1e-13)


def test_two_sided_distance_is_that_of_least_squares(planes):
    # The closest points of two planes solve a least-squares problem in both coefficients.
    assert_close(all_distances(*planes), least_squares(*planes), rtol=1e-12, atol=0)


def test_one_sided_distance_is_that_of_least_squares(planes):
    x, of_x, rows, of_rows = planes
    expected = least_squares(x, of_x[:, :0], rows, of_rows)
    # The same without coefficients of x.
    assert_close(all_distances(x, of_x[:, :0], rows, of_rows), expected, rtol=1e-12, atol=0)
    bases = orthonormal_bases(of_rows)
    # |d|^2 - |Q d|^2, expanded into products of matrices.
    assert_close(squared_distances_to_planes(x, rows, bases), expected**2, rtol=0, atol=1e-12)
    # And none at all: |x - y|.
    assert_close(squared_distances_to_planes(x, rows), torch.cdist(x, rows) ** 2)


def test_more_freedom_never_takes_planes_apart(planes):
    x, of_x, rows, of_rows = planes
    points = all_distances(x, of_x[:, :0], rows, of_rows[:, :0])
    one, two = all_distances(x, of_x[:, :0], rows, of_rows), all_distances(*planes)
    # A minimum over more points is less: two-sided <= one-sided <= Euclidean.
    assert (two <= one * (1 + 1e-13)).all()
    assert (one <= points * (1 + 1e-13)).all()


def test_two_sided_distance_is_symmetric(planes):
    x, of_x, rows, of_rows = planes
    # The distance of two planes does not depend on which comes first.
    assert_close(all_distances(*planes), all_distances(rows, of_rows, x, of_x).T)


def test_planes_that_share_directions(generator):
    x, rows = normal(generator, N_X, N_FEATURES), normal(generator, N_ROWS, N_FEATURES)
    shared, own = normal(generator, 1, 2, N_FEATURES), normal(generator, N_ROWS, 1, N_FEATURES)
    both = torch.cat([shared.expand(N_ROWS, -1, -1), own], dim=1)
    for of_x, of_rows in (
        (shared.expand(N_X, -1, -1), shared.expand(N_ROWS, -1, -1)),  # the same plane at all rows
        (shared.expand(N_X, -1, -1), both),  # one within the other
        (both[:N_X].flip(1), both),
    ):
        # Coefficients are not unique where planes share directions, but the distance is.
        expected = least_squares(x, of_x, rows, of_rows)
        assert_close(all_distances(x, of_x, rows, of_rows), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("angle", [1e-3, 1e-5, 1e-7, 1e-9])
def test_planes_that_almost_share_a_direction(generator, angle):
    x, rows, along, across = normal(generator, 4, 1, N_FEATURES)
    of_x, of_rows = along[:, None], (along + angle * across)[:, None]
    bases = orthonormal_bases(of_rows)
    found = all_distances(x, of_x, rows, of_rows)
    one_sided = distances_between_planes(x, rows[None], bases[None])
    least = least_squares(x, of_x, rows, torch.stack([along, across], dim=1))
    # Whatever is lost to rounding, it is the distance of two points of the planes: between that
    # with all of the nearly shared plane and that without the other row's direction.
    assert least * (1 - 1e-9) <= found <= one_sided * (1 + 1e-12)
    if angle > 1e-6:
        # Where the angle can be told from rounding, so can the distance.
        assert_close(found, least, rtol=1e-4, atol=0)


def test_moving_along_a_tangent_changes_nothing(planes):
    x, of_x, rows, of_rows = planes
    moved_x = x + 3 * of_x.sum(1)
    moved_rows = rows - 2 * of_rows.sum(1)
    # Planes are the same sets wherever on them their rows are.
    assert_close(all_distances(moved_x, of_x, moved_rows, of_rows), all_distances(*planes))


@pytest.mark.parametrize("sides", [1, 2])
def test_nearest_are_the_least_distances(planes, sides):
    x, of_x, rows, of_rows = planes
    of_x = of_x if sides == 2 else of_x[:, :0]
    expected, order = least_squares(x, of_x, rows, of_rows).sort()
    x_bases = orthonormal_bases(of_x) if sides == 2 else None
    distances, index = nearest_planes(x, rows, orthonormal_bases(of_rows), 4, x_bases=x_bases)
    # All pairs, sorted: the first four.
    assert_close(distances, expected[:, :4])
    assert torch.equal(index, order[:, :4])


def test_candidates_are_the_nearest_by_the_one_sided_distance(generator):
    x, rows = normal(generator, N_X, N_FEATURES), normal(generator, 40, N_FEATURES)
    of_x, of_rows = normal(generator, N_X, 2, N_FEATURES), normal(generator, 40, 2, N_FEATURES)
    one, two = (least_squares(x, some, rows, of_rows) for some in (of_x[:, :0], of_x))
    bases, x_bases = orthonormal_bases(of_rows), orthonormal_bases(of_x)
    _, index = nearest_planes(x, rows, bases, 1, x_bases=x_bases, n_candidates=3)
    left_out = one.argsort().argsort() >= 3
    # The least two-sided distance among the three rows of least one-sided distance ...
    assert torch.equal(index[:, 0], two.masked_fill(left_out, torch.inf).argmin(1))
    # ... which is not that among all rows: the example can tell.
    assert not torch.equal(index[:, 0], two.argmin(1))


def test_equal_distances_go_by_position(generator):
    rows = normal(generator, 1, N_FEATURES).expand(N_ROWS, -1)
    bases = orthonormal_bases(normal(generator, 1, 2, N_FEATURES)).expand(N_ROWS, -1, -1)
    _, index = nearest_planes(normal(generator, 2, N_FEATURES), rows, bases, N_ROWS)
    # As nearest neighbours do elsewhere, so that results do not depend on the sort.
    assert torch.equal(index, torch.arange(N_ROWS).expand(2, -1))


@pytest.mark.parametrize("n_candidates", [5, None])
def test_sizes_of_blocks_do_not_matter(planes, n_candidates, monkeypatch):
    x, of_x, rows, of_rows = planes
    bases, x_bases = orthonormal_bases(of_rows), orthonormal_bases(of_x)

    def nearest():
        return nearest_planes(x, rows, bases, 3, x_bases=x_bases, n_candidates=n_candidates)

    whole = nearest()
    for entries in (1, 40, 100, 300):
        monkeypatch.setattr(tangent_distance, "_ENTRIES", entries)
        for found, expected in zip(nearest(), whole, strict=True):
            # Pairs are independent of each other: only sums may be rounded otherwise.
            assert_close(found, expected, rtol=1e-13, atol=1e-13)


def test_float32_keeps_small_distances_far_from_the_origin(generator):
    rows = normal(generator, 4, N_FEATURES)
    of_rows = normal(generator, 4, 2, N_FEATURES)
    x = rows + of_rows.sum(1) + 1e-3 * normal(generator, 4, N_FEATURES)
    expected = least_squares(x, of_rows[:, :0], rows, of_rows).diagonal()
    rows, of_rows, x = (tensor.float() for tensor in (rows, of_rows, x))
    bases = orthonormal_bases(of_rows)
    found = distances_between_planes(x, rows[:, None], bases[:, None])[:, 0]
    # The residual itself is formed: |d|^2 - |Q d|^2 would be rounded at 1e-7 |d|^2, which is as
    # large as these squares.
    assert_close(found.double(), expected, rtol=2e-3, atol=0)


def test_indices_and_types_are_those_of_the_input(generator):
    rows = normal(generator, N_ROWS, N_FEATURES).float()
    bases = orthonormal_bases(normal(generator, N_ROWS, 2, N_FEATURES).float())
    distances, index = nearest_planes(rows, rows, bases, 2, x_bases=bases)
    # float32 in, float32 out.
    assert distances.dtype == torch.float32
    # A row is on its own plane, and on no other one.
    assert torch.equal(index[:, 0], torch.arange(N_ROWS))


@pytest.mark.parametrize(("dtype", "gap"), [(torch.float64, 1e8), (torch.float32, 1e4)])
@pytest.mark.parametrize("sides", [1, 2])
def test_clusters_far_apart_do_not_hide_who_is_near(generator, dtype, gap, sides):
    rows, x = normal(generator, 40, N_FEATURES), normal(generator, 10, N_FEATURES)
    bases = orthonormal_bases(normal(generator, 40, 2, N_FEATURES))
    x_bases = orthonormal_bases(normal(generator, 10, 1, N_FEATURES)) if sides == 2 else None
    # Moves within the planes' common complement are exact: only the ranking is tried.
    rows[::2, 0], x[::2, 0] = gap, gap
    bases[..., 0] = 0
    if x_bases is not None:
        x_bases[..., 0] = 0
    parts = [part if part is None else part.to(dtype) for part in (x, rows, bases, x_bases)]
    every = torch.arange(40).expand(10, 40)
    exact = distances_between_planes(parts[0], parts[1][every], parts[2][every], parts[3])
    found = nearest_planes(*parts[:3], 3, x_bases=parts[3], n_candidates=20)
    # The squares are lost in the rounding of gap^2; the distances are not.
    assert_close(found[0], exact.sort(stable=True).values[:, :3])


@pytest.mark.parametrize("size", [1e200, 1e-200])
@pytest.mark.parametrize("n_candidates", [5, None])
def test_rows_whose_squares_overflow_or_vanish_have_their_distances(planes, size, n_candidates):
    x, of_x, rows, of_rows = planes
    bases = orthonormal_bases(of_rows)
    options = {"x_bases": orthonormal_bases(of_x), "n_candidates": n_candidates}
    expected = nearest_planes(x, rows, bases, 3, **options)
    found = nearest_planes(x * size, rows * size, bases, 3, **options)
    # Distances grow as the numbers do, and who is nearest stays.
    assert_close(found[0] / size, expected[0])
    assert torch.equal(found[1], expected[1])
