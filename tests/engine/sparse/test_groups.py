"""Neighbourhoods on maps, what does not fit, and the penalty on groups."""

import numpy as np
import pytest
import torch

from skae.engine.sparse.groups import Copies, GroupL2, Groups, check_groups, map_groups


def brute_force_groups(map_shape, group_shape):
    """Each neighbourhood as a set of units, found by looking at every unit's coordinates."""
    units = np.arange(np.prod(map_shape)).reshape(map_shape)
    back = [(g - 1) // 2 for g in group_shape]
    return [
        {
            int(units[tuple((np.subtract(unit, back) + offset) % map_shape)])
            for offset in np.ndindex(*group_shape)
        }
        for unit in np.ndindex(*map_shape)
    ]


@pytest.mark.parametrize(
    ("map_shape", "group_shape"),
    [((7,), (3,)), ((8,), (4,)), ((4, 6), (3, 2)), ((4, 5), (4, 5)), ((1, 3), (1, 1))],
)
def test_groups_are_the_neighbourhoods_of_the_map(map_shape, group_shape):
    groups = map_groups(map_shape, group_shape)
    expected = brute_force_groups(map_shape, group_shape)
    # The same sets, in the same order: units are numbered row by row.
    assert [set(row) for row in groups.members.tolist()] == expected
    # No neighbourhood holds a unit twice, and all members count alike.
    assert groups.members.shape == (len(expected), np.prod(group_shape))
    assert torch.equal(groups.weight, torch.ones(np.prod(group_shape), dtype=torch.float64))


def test_one_number_holds_for_all_axes():
    # The same groups, however their shape is said.
    assert torch.equal(map_groups((6, 4), 2).members, map_groups((6, 4), (2, 2)).members)
    # A ring may be given as a number.
    assert torch.equal(map_groups(5, 2).members, map_groups((5,), (2,)).members)


def test_every_unit_of_a_torus_is_in_as_many_groups():
    groups = map_groups((6, 4), (3, 2))
    counts = torch.bincount(groups.members.reshape(-1), minlength=24)
    # A torus has no borders, where a unit would be penalised less.
    assert torch.equal(counts, torch.full((24,), 6))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((4, 4), (5, 2)), "choose smaller groups, or a larger map"),
        (((4, 4), (2, 2, 2)), "one number for each axis"),
        (((4, 0), 1), "map_shape=.* must be integers of at least 1"),
        (((4, 4), 1.5), "group_shape=1.5 must be integers"),
        (((), 2), "map_shape"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(arguments, message):
    # With what to change.
    with pytest.raises(ValueError, match=message):
        map_groups(*arguments)


def test_a_map_has_as_many_units_as_the_code():
    # The product of map_shape is n_components, or some units would have no place.
    with pytest.raises(ValueError, match=r"map_shape=\(4, 4\) has 16 units, but n_components=15"):
        map_groups((4, 4), 2, n_components=15)
    assert map_groups((4, 4), 2, n_components=16).members.max() == 15


@pytest.mark.parametrize(
    ("members", "weight", "message"),
    [
        ([[0, 1], [1, 2]], [1.0, 1.0], "Unit 3 is in no group"),
        ([[0, 1], [2, 4]], [1.0, 1.0], "n_components=4"),
        ([[0, 1], [2, -1]], [1.0, 1.0], "n_components=4"),
        ([[0, 0], [1, 2], [2, 3]], [1.0, 1.0], "holds one unit twice"),
        ([[0, 1], [2, 3]], [1.0, 0.0], "leave a unit out"),
        ([[0, 1], [2, 3]], [1.0, float("nan")], "finite weights"),
        ([[0, 1], [2, 3]], [1.0, 1.0, 1.0], "of shape"),
        ([0, 1, 2, 3], [1.0], "n_groups, group_size"),
    ],
)
def test_groups_that_do_not_fit_a_code_are_refused(members, weight, message):
    groups = Groups(torch.tensor(members), torch.tensor(weight))
    # Before anything is computed with them.
    with pytest.raises(ValueError, match=message):
        check_groups(groups, 4)


def random_groups(generator, n_components=9, n_groups=8, size=3):
    """Groups of random units with random weights, which hold every unit."""
    members = [torch.randperm(n_components, generator=generator)[:size] for _ in range(n_groups)]
    rest = torch.arange(n_components).view(-1, size)
    weight = torch.rand(n_groups + len(rest), size, generator=generator, dtype=torch.float64)
    return Groups(torch.cat([torch.stack(members), rest]), weight + 0.2)


def test_copies_are_a_linear_map_and_its_transpose(generator):
    groups = random_groups(generator)
    like = torch.zeros((), dtype=torch.float64)
    copies = Copies(groups, 9, like)
    matrix = torch.zeros(copies.root.numel(), 9, dtype=torch.float64)
    for place in range(groups.members.shape[1]):
        for g, unit in enumerate(groups.members[:, place]):
            matrix[place * len(groups.members) + g, unit] = groups.weight[g, place] ** 0.5
    units = torch.randn(9, 4, generator=generator, dtype=torch.float64)
    z = torch.randn(*copies.shape, 4, generator=generator, dtype=torch.float64)
    # gather is sqrt(w_gj) h_j, row by row of the matrix; scatter is its transpose.
    torch.testing.assert_close(copies.gather(units).view(-1, 4), matrix @ units)
    torch.testing.assert_close(copies.scatter(z), matrix.t() @ z.reshape(-1, 4))
    # What is shared sums to what was given: the smallest solution, by the pseudo-inverse.
    pseudo = torch.linalg.pinv(matrix.t()) @ units
    torch.testing.assert_close(copies.share(units).view(-1, 4), pseudo)
    torch.testing.assert_close(copies.scatter(copies.share(units)), units)
    torch.testing.assert_close(copies.coverage.squeeze(1), (matrix**2).sum(0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_penalty_is_its_formula(generator, dtype):
    groups = random_groups(generator)
    code = torch.randn(5, 9, generator=generator, dtype=torch.float64)
    expected = torch.zeros(5, dtype=torch.float64)
    for members, weight in zip(groups.members, groups.weight, strict=True):
        expected += (weight * code[:, members] ** 2).sum(1).sqrt()
    # alpha sum_g sqrt(sum_j w_gj h_j^2), in the dtype of the code.
    value = GroupL2(0.7, groups).value(code.to(dtype))
    torch.testing.assert_close(value, 0.7 * expected.to(dtype))


@pytest.mark.parametrize("positive", [False, True])
def test_the_dual_scale_makes_a_correlation_feasible(generator, positive):
    groups = random_groups(generator)
    penalty = GroupL2(0.7, groups, positive)
    correlation = 3 * torch.randn(6, 9, generator=generator, dtype=torch.float64)
    feasible = penalty.dual_scale(correlation).unsqueeze(1) * correlation
    code = torch.randn(2000, 9, generator=generator, dtype=torch.float64)
    code = code.clamp(min=0) if positive else code
    # s c is dual feasible if s c h <= penalty(h) for every admissible h.
    assert (feasible @ code.t() <= penalty.value(code) * (1 + 1e-12)).all()
    # What is feasible already is left as it is.
    assert torch.equal(penalty.dual_scale(1e-3 * correlation), torch.ones(6, dtype=torch.float64))


def test_the_dual_scale_is_exact_where_groups_do_not_overlap(generator):
    groups = Groups(torch.tensor([[0, 3], [1, 2]]), torch.tensor([1.0, 4.0], dtype=torch.float64))
    penalty = GroupL2(0.5, groups)
    correlation = 3 * torch.randn(20, 4, generator=generator, dtype=torch.float64)
    norms = [(correlation[:, g] ** 2 / groups.weight).sum(1).sqrt() for g in groups.members]
    # The dual norm of separate groups is max_g sqrt(sum_j c_j^2 / w_j).
    expected = (0.5 / torch.stack(norms).amax(0)).clamp(max=1)
    torch.testing.assert_close(penalty.dual_scale(correlation), expected)


@pytest.mark.parametrize("positive", [False, True])
def test_shrinking_copies_satisfies_its_conditions(generator, positive):
    penalty = GroupL2(0.5, map_groups(6, 3), positive)
    given = torch.randn(3, 6, 50, generator=generator, dtype=torch.float64)
    given[:, :, 0] = 0
    z = penalty.shrink_copies(given, 2.0)
    rest = given - z
    # z minimises 1/2 |z - t|^2 + |z| iff z (t - z) = |z| and t - z is in the dual ball.
    torch.testing.assert_close((rest * z).sum(0), z.norm(dim=0))
    reach = rest.clamp(min=0) if positive else rest
    assert (reach.norm(dim=0) <= 1 + 1e-12).all()
    assert not positive or (z >= 0).all()
    # Groups that do not reach the threshold are exactly 0, and a group of zeros stays one.
    size = given.clamp(min=0) if positive else given
    assert torch.equal((z == 0).all(0), size.norm(dim=0) <= 1)


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan")])
def test_alpha_has_to_be_positive(alpha):
    # Without a penalty nothing bounds the dual, and groups mean nothing.
    with pytest.raises(ValueError, match="must be larger than 0"):
        GroupL2(alpha, map_groups(4, 2))
