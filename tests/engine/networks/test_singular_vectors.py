"""Leading singular vectors of Jacobians against NumPy's SVD, angles against SciPy's."""

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles

from skae.engine.networks import singular_vectors
from skae.engine.networks.jacobians import DifferentiatedJacobian, LayeredJacobian
from skae.engine.networks.singular_vectors import (
    leading_singular_vectors,
    principal_angles,
    spectrum,
)

N_ROWS, N_IN, N_UNITS = 4, 110, 130


def decaying(n_out, n_in, generator):
    # Singular values fall from 1 to 1e-3, so that leading spans are well defined.
    left, _ = torch.linalg.qr(torch.randn(n_out, n_out, dtype=torch.float64, generator=generator))
    right, _ = torch.linalg.qr(torch.randn(n_in, n_in, dtype=torch.float64, generator=generator))
    n = min(n_out, n_in)
    return left[:, :n] * torch.logspace(0, -3, n, dtype=torch.float64) @ right[:, :n].T


def slopes(n_units, generator, n_active=None):
    slope = 0.05 + 0.2 * torch.rand(N_ROWS, n_units, dtype=torch.float64, generator=generator)
    if n_active is not None:
        saturated = torch.rand(N_ROWS, n_units, generator=generator).argsort(1)[:, n_active:]
        slope.scatter_(1, saturated, 1e-7)
    return slope


def small(generator):
    return LayeredJacobian([slopes(20, generator)], [decaying(20, 15, generator)])


def saturated(generator):
    return LayeredJacobian([slopes(N_UNITS, generator, 25)], [decaying(N_UNITS, N_IN, generator)])


def unsaturated(generator):
    return LayeredJacobian([slopes(N_UNITS, generator)], [decaying(N_UNITS, N_IN, generator)])


def wide(generator):
    # More than twice as many units as inputs: J J^T goes through the input space.
    return LayeredJacobian([slopes(250, generator)], [decaying(250, N_IN, generator)])


def two_layers(generator):
    weights = [decaying(N_UNITS, N_IN, generator), torch.eye(N_UNITS).double()[:120] * 2]
    return LayeredJacobian([slopes(N_UNITS, generator), slopes(120, generator)], weights)


def linear_output(generator):
    layers = two_layers(generator)
    return LayeredJacobian([layers.slopes[0], None], layers.weights)


def differentiated(generator):
    weight = decaying(N_UNITS, N_IN, generator)
    x = torch.randn(N_ROWS, N_IN, dtype=torch.float64, generator=generator)
    return DifferentiatedJacobian(lambda rows: torch.tanh(rows @ weight.T), x)


KINDS = [small, saturated, unsaturated, wide, two_layers, linear_output, differentiated]


def exact(jacobian, n):
    _, values, right = np.linalg.svd(jacobian.dense().double().numpy(), full_matrices=False)
    return torch.from_numpy(values[:, :n]), torch.from_numpy(right[:, :n])


def assert_orthonormal(right, atol):
    gram = right @ right.mT
    eye = torch.eye(right.shape[1], dtype=right.dtype).expand_as(gram)
    # Directions of a tangent plane are a basis of it: orthonormal, and so never NaN.
    torch.testing.assert_close(gram, eye, atol=atol, rtol=0)


def refuse_svd(monkeypatch):
    # A fall-back to the SVD would hide an iteration that does not work.
    monkeypatch.setattr(LayeredJacobian, "dense", None)
    monkeypatch.setattr(DifferentiatedJacobian, "dense", None)


@pytest.mark.parametrize("kind", KINDS)
def test_leading_vectors_are_those_of_the_svd(kind, generator, monkeypatch):
    jacobian, n = kind(generator), 8
    values, right = exact(jacobian, n)
    if kind is not small:
        refuse_svd(monkeypatch)
    found = leading_singular_vectors(jacobian, n, tolerance=1e-6)
    # Values are correct to the square of the vectors' error.
    torch.testing.assert_close(found.values, values, rtol=1e-9, atol=0)
    # The span is that of the SVD, to the tolerance over the gap between values.
    assert principal_angles(found.right, right).max() < 1e-5
    cosines = (found.right * right).sum(2).abs()
    # And so is every vector of it, up to its sign.
    torch.testing.assert_close(cosines, torch.ones_like(cosines), atol=1e-8, rtol=0)
    assert_orthonormal(found.right, 1e-12)


@pytest.mark.parametrize("kind", [saturated, unsaturated, two_layers])
def test_default_tolerance_in_float32(kind, generator, monkeypatch):
    jacobian, n = kind(generator), 8
    values, right = exact(jacobian, n)
    refuse_svd(monkeypatch)
    single = LayeredJacobian(
        [s.float() for s in jacobian.slopes], [w.float() for w in jacobian.weights]
    )
    found = leading_singular_vectors(single, n)
    # What comes in as float32 goes out as float32.
    assert found.values.dtype == found.right.dtype == torch.float32
    # The error of a value is second order in the residual, 1e-2 of its square.
    torch.testing.assert_close(found.values.double(), values, rtol=1e-4, atol=0)
    # One degree, the goal for tangents.
    assert torch.rad2deg(principal_angles(found.right.double(), right)).max() < 1
    assert_orthonormal(found.right, 1e-5)


def test_a_steep_spectrum_in_float32_needs_more_digits(generator, monkeypatch):
    values = torch.cat([torch.logspace(0, -2.5, 8), 0.98 * torch.full((N_IN - 8,), 10**-2.5)])
    left, right = (
        torch.linalg.qr(torch.randn(N_IN, N_IN, dtype=torch.float64, generator=generator))[0]
        for _ in range(2)
    )
    weight = (left * values.double()) @ right
    single = LayeredJacobian([torch.ones(N_ROWS, N_IN)], [weight.float()])
    refuse_svd(monkeypatch)
    found = leading_singular_vectors(single, 8)
    expected = right[None, :8].expand(N_ROWS, -1, -1)
    # J J^T has values from 1 to 1e-5, the last two 4 % apart: float32 cannot tell them, though
    # it holds J itself well enough.
    assert torch.rad2deg(principal_angles(found.right.double(), expected)).max() < 1


def test_a_space_may_start_anew(generator, monkeypatch):
    jacobian = unsaturated(generator)
    values, right = exact(jacobian, 8)
    refuse_svd(monkeypatch)
    monkeypatch.setattr(singular_vectors, "_LONGEST", 3)
    found = leading_singular_vectors(jacobian, 8, tolerance=1e-6)
    # Started again and again from its best vectors, it still gets to the same ones.
    torch.testing.assert_close(found.values, values, rtol=1e-9, atol=0)
    assert principal_angles(found.right, right).max() < 1e-5


def test_active_units_alone_are_multiplied_where_they_are_few(generator, monkeypatch):
    jacobian = saturated(generator)
    expected = leading_singular_vectors(jacobian, 8)
    monkeypatch.setattr(LayeredJacobian, "gram_times", None)
    # 25 of 130 units carry the whole of J: products with all of it are not needed.
    alone = leading_singular_vectors(jacobian, 8)
    torch.testing.assert_close(alone.right, expected.right)


def test_a_weak_unit_counts_where_the_last_value_is_as_weak(generator):
    jacobian = saturated(generator)
    jacobian.slopes[0][:, :5] = 0.2
    jacobian.slopes[0][:, 5:] = 1e-6
    values, right = exact(jacobian, 8)
    found = leading_singular_vectors(jacobian, 8)
    # With five strong units, the sixth to eighth values are made by the weak ones, which
    # together are less than 1e-9 of |J|^2.
    torch.testing.assert_close(found.values, values, rtol=1e-3, atol=0)
    assert torch.rad2deg(principal_angles(found.right, right)).max() < 1


def test_rows_are_solved_each_by_its_own_way(generator):
    few, many = saturated(generator), unsaturated(generator)
    mixed = LayeredJacobian([torch.cat([few.slopes[0], many.slopes[0]])], many.weights)
    mixed = mixed.rows(torch.tensor([5, 0, 6, 2, 1, 7, 3, 4]))
    values, right = exact(mixed, 8)
    found = leading_singular_vectors(mixed, 8, tolerance=1e-6)
    # Some rows use their active units, others all of them; each result lands in its row.
    torch.testing.assert_close(found.values, values, rtol=1e-8, atol=0)
    assert principal_angles(found.right, right).max() < 1e-4


def test_blocks_of_rows_change_nothing(generator, monkeypatch):
    jacobian = unsaturated(generator)
    whole = leading_singular_vectors(jacobian, 8, tolerance=1e-8)
    monkeypatch.setattr(singular_vectors, "_ENTRIES", 1)
    one_by_one = leading_singular_vectors(jacobian, 8, tolerance=1e-8)
    # Rows that are solved together share a start, and nothing else.
    torch.testing.assert_close(whole.right, one_by_one.right, rtol=0, atol=1e-7)
    torch.testing.assert_close(spectrum(jacobian)[2:3], spectrum(jacobian.rows(slice(2, 3))))


def test_what_does_not_converge_is_left_to_the_svd(generator, monkeypatch):
    jacobian = unsaturated(generator)
    values, right = exact(jacobian, 8)
    monkeypatch.setattr(singular_vectors, "_MOST", 1)
    found = leading_singular_vectors(jacobian, 8, tolerance=1e-6)
    # One product is too few for such a residual; the answer is no worse for it.
    torch.testing.assert_close(found.values, values)
    assert principal_angles(found.right, right).max() < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n_layers", [1, 2])
@pytest.mark.parametrize("rank", [0, 3])
@pytest.mark.parametrize("dead", ["units", "weights"])
def test_deficient_jacobians_have_complete_bases(dead, rank, n_layers, dtype, generator):
    weight = decaying(N_UNITS, N_IN, generator)
    slope = slopes(N_UNITS, generator)
    if dead == "units":
        slope[:, rank:] = 0
    else:
        weight = weight[:, :rank] @ torch.randn(rank, N_IN, dtype=weight.dtype, generator=generator)
    layers = [[slope], [weight]]
    if n_layers == 2:
        layers = [[slope, None], [weight, torch.eye(N_UNITS, dtype=weight.dtype)]]
    jacobian = LayeredJacobian(
        *([tensor if tensor is None else tensor.to(dtype) for tensor in part] for part in layers)
    )
    values, right = exact(jacobian, 8)
    found = leading_singular_vectors(jacobian, 8)
    assert_orthonormal(found.right, 1e-5 if dtype == torch.float32 else 1e-12)
    # J has this rank: the other values are nothing beside the first.
    assert (found.values[:, rank:] <= 1e-6 * values[:, :1]).all()
    tolerance = {"rtol": 1e-4, "atol": 0}
    torch.testing.assert_close(found.values[:, :rank].double(), values[:, :rank], **tolerance)
    if rank > 0:
        # The directions that J sees are found; the others complete the basis.
        angles = principal_angles(found.right[:, :rank].double(), right[:, :rank])
        assert torch.rad2deg(angles).max() < 0.1


def test_many_equal_values_are_found(generator):
    right, _ = torch.linalg.qr(torch.randn(N_IN, N_IN, dtype=torch.float64, generator=generator))
    scale = torch.cat([torch.full((8,), 2.0), torch.ones(N_IN - 8)]).double()
    jacobian = LayeredJacobian([torch.ones(2, N_IN).double()], [scale.unsqueeze(1) * right])
    found = leading_singular_vectors(jacobian, 8)
    # A space that starts with a block finds as many copies of a value as the block has vectors.
    torch.testing.assert_close(found.values, torch.full_like(found.values, 2.0))
    expected = right[None, :8].expand(2, -1, -1)
    assert torch.rad2deg(principal_angles(found.right, expected)).max() < 0.5


def test_all_vectors_can_be_had(generator):
    jacobian = unsaturated(generator)
    found = leading_singular_vectors(jacobian, N_IN)
    # n = min(n_out, n_in) is the whole SVD.
    torch.testing.assert_close(found.values, exact(jacobian, N_IN)[0])
    assert_orthonormal(found.right, 1e-10)


@pytest.mark.parametrize("n", [0, 16])
def test_number_of_vectors_is_checked(n, generator):
    # A 20 x 15 matrix has 15 singular vectors.
    with pytest.raises(ValueError, match=f"n={n} .* ask for 1 to 15"):
        leading_singular_vectors(small(generator), n)


def test_same_input_same_bits_and_no_global_state(generator):
    jacobian = unsaturated(generator)
    before = torch.get_rng_state()
    first, second = (leading_singular_vectors(jacobian, 8) for _ in range(2))
    # The start is drawn from a seed of its own.
    assert torch.equal(first.right, second.right)
    assert torch.equal(torch.get_rng_state(), before)
    given = torch.Generator().manual_seed(7)
    other = leading_singular_vectors(jacobian, 8, generator=given)
    # A generator that is given is used, and the answer does not depend on it.
    assert not torch.equal(given.get_state(), torch.Generator().manual_seed(7).get_state())
    assert torch.rad2deg(principal_angles(first.right, other.right)).max() < 1


@pytest.mark.parametrize("kind", [small, saturated, unsaturated])
def test_the_largest_entry_is_positive(kind, generator):
    right = leading_singular_vectors(kind(generator), 8).right
    # u and -u are the same direction; this one is always taken.
    assert torch.equal(right.amax(2), right.abs().amax(2))


def test_no_rows_have_no_vectors(generator):
    nothing = unsaturated(generator).rows(slice(0, 0))
    # An empty selection is a selection.
    assert leading_singular_vectors(nothing, 8).right.shape == (0, 8, N_IN)
    assert spectrum(nothing).shape == (0, N_IN)


@pytest.mark.parametrize("kind", [small, wide, two_layers, differentiated])
def test_spectrum_is_that_of_the_svd(kind, generator):
    jacobian = kind(generator)
    n = min(jacobian.n_out, jacobian.n_in)
    # All of it, in decreasing order.
    torch.testing.assert_close(spectrum(jacobian), exact(jacobian, n)[0])


@pytest.mark.parametrize("sizes", [(3, 3), (2, 5), (5, 2)])
def test_principal_angles_are_those_of_scipy(sizes, generator):
    first, second = (
        torch.randn(N_ROWS, m, 9, dtype=torch.float64, generator=generator) for m in sizes
    )
    angles = principal_angles(first, second)
    for row in range(N_ROWS):
        expected = subspace_angles(first[row].numpy().T, second[row].numpy().T)[::-1].copy()
        # Neither set is orthonormal: angles are those of the spans.
        torch.testing.assert_close(angles[row], torch.from_numpy(expected))


def test_principal_angles_are_exact_at_both_ends():
    tiny = 1e-10
    first = torch.eye(4, dtype=torch.float64)[None, :2]
    second = torch.tensor([[[1, 0, tiny, 0], [0, tiny, 0, 1]]], dtype=torch.float64)
    # An arccosine would lose an angle of 1e-10, an arcsine its distance from pi / 2.
    expected = torch.tensor([[tiny, np.pi / 2 - tiny]], dtype=torch.float64)
    torch.testing.assert_close(principal_angles(first, second), expected, rtol=0, atol=1e-15)
    # The angle of a plane to itself is zero.
    assert principal_angles(first, first).max() < 1e-15
