"""Codes under a penalty on groups, against the lasso and a slow proximal gradient method."""

import numpy as np
import pytest
import torch

from skae.engine.sparse.groups import GroupL2, Groups, admm, map_groups
from skae.engine.sparse.problem import L1, fista, make_quadratic, objective_and_gap

FLAT = torch.ones(1, dtype=torch.float64)
UNEVEN = Groups(
    torch.tensor([[0, 1, 2], [2, 3, 4], [4, 5, 6], [7, 6, 2], [0, 7, 5]]),
    torch.tensor(
        [[1.0, 0.5, 2.0], [0.3, 1.0, 1.0], [1.5, 1.0, 0.7], [1.0, 1.0, 1.0], [2.0, 0.4, 1.0]],
        dtype=torch.float64,
    ),
)
GROUPS = {
    "ring": map_groups(8, 3),
    "torus": map_groups((4, 2), 2),
    "borders": Groups(torch.tensor([[0, 1, 4, 5], [1, 2, 5, 6], [2, 3, 6, 7]]), FLAT.expand(4)),
    "tiles": Groups(torch.tensor([[0, 1, 4, 5], [2, 3, 6, 7]]), FLAT.expand(4)),
    "uneven": UNEVEN,
}
each_group = pytest.mark.parametrize("name", GROUPS)
each_sign = pytest.mark.parametrize("positive", [False, True])


def problem(n_samples, n_components, n_features, seed=0, dtype=torch.float64):
    """A dictionary of unit-norm atoms and rows of norm about 1."""
    rng = np.random.default_rng(seed)
    D = rng.standard_normal((n_components, n_features))
    x = rng.standard_normal((n_samples, n_features)) / n_features**0.5
    D = torch.tensor(D / np.linalg.norm(D, axis=1, keepdims=True))
    return D.to(dtype), torch.tensor(x).to(dtype)


def proximal_gradient(D, x, alpha, groups, positive, n_steps=400, n_inner=300):
    """Codes by gradient steps, each followed by the penalty's prox: its dual by projections.

    One row at a time; the inner problem min_h 1/2 |h - v|^2 + alpha t sum_g |sqrt(w_g) h_g|
    is solved through its dual, over one vector of norm at most alpha t for each group (and
    one of non-negative multipliers for h >= 0). alpha is one number, or one for each row.
    """
    alpha = np.reshape(alpha, (-1, 1, 1))
    D, x, members = D.numpy(), x.numpy(), groups.members.numpy()
    root = np.sqrt(np.broadcast_to(groups.weight.numpy(), members.shape))
    # A row for each place in a group: h A^T is all groups' parts of a code side by side.
    A = np.zeros((members.size, len(D)))
    A[np.arange(members.size), members.ravel()] = root.ravel()
    step = 1 / np.linalg.norm(D, 2) ** 2
    inner_step = 1 / ((A.T @ A).max() + positive)
    codes = np.zeros((len(x), len(D)))
    dual, sign = np.zeros((len(x), *members.shape)), np.zeros_like(codes)
    for _ in range(n_steps):
        v = codes + step * (x - codes @ D) @ D.T
        for _ in range(n_inner):
            h = v - dual.reshape(len(x), -1) @ A + sign
            new = dual + (inner_step * h @ A.T).reshape(dual.shape)
            size = np.linalg.norm(new, axis=2, keepdims=True)
            new *= np.minimum(1, alpha * step / np.maximum(size, 1e-300))
            new_sign = np.maximum(sign - inner_step * h, 0) if positive else sign
            change = max(abs(new - dual).max(), abs(new_sign - sign).max())
            dual, sign = new, new_sign
            if change < 1e-9:  # far below what codes are compared with
                break
        new_codes = v - dual.reshape(len(x), -1) @ A + sign
        if positive:
            new_codes = np.maximum(new_codes, 0)
        done, codes = abs(new_codes - codes).max() < 1e-7, new_codes
        if done:
            break
    return codes


def formula(D, x, code, alpha, groups):
    """1/2 |x - h D|^2 + alpha sum_g sqrt(sum_j w_gj h_j^2)."""
    total = 0.5 * (x - code @ D).square().sum(1)
    weight = groups.weight.expand(groups.members.shape)
    for members, w in zip(groups.members, weight, strict=True):
        total = total + alpha * (w * code[:, members] ** 2).sum(1).sqrt()
    return total


@each_sign
def test_groups_of_one_unit_are_the_lasso(positive):
    D, x = problem(12, 16, 8)
    groups = Groups(torch.arange(16).unsqueeze(1), FLAT)
    quadratic = make_quadratic(D, x)
    result = admm(quadratic, GroupL2(0.1, groups, positive), tol=1e-10, max_iter=20_000)
    lasso = fista(quadratic, L1(0.1, positive), tol=1e-11, max_iter=20_000)
    # sqrt(h_j^2) = |h_j|.
    torch.testing.assert_close(result.objective, lasso.objective, rtol=1e-9, atol=0)
    torch.testing.assert_close(result.codes, lasso.codes, rtol=0, atol=1e-4)
    assert torch.equal(result.codes.abs() > 1e-3, lasso.codes.abs() > 1e-3)
    # A weight w is a penalty sqrt(w) alpha.
    heavy = GroupL2(0.05, Groups(groups.members, 4 * FLAT), positive)
    heavy = admm(quadratic, heavy, tol=1e-10, max_iter=20_000)
    torch.testing.assert_close(heavy.objective, lasso.objective, rtol=1e-9, atol=0)


@each_sign
@each_group
def test_codes_are_those_of_the_proximal_gradient_method(name, positive):
    groups = GROUPS[name]
    D, x = problem(4, 8, 12)
    alphas = (0.02, 0.1)
    both = proximal_gradient(D, x.repeat(2, 1), np.repeat(alphas, len(x)), groups, positive)
    for alpha, expected in zip(alphas, torch.tensor(both).split(len(x)), strict=True):
        penalty = GroupL2(alpha, groups, positive)
        result = admm(make_quadratic(D, x), penalty, tol=1e-8, max_iter=20_000)
        # One convex problem, and here a strictly convex one: one minimum, one minimiser.
        torch.testing.assert_close(
            formula(D, x, result.codes, alpha, groups),
            formula(D, x, expected, alpha, groups),
            rtol=1e-6,
            atol=0,
        )
        torch.testing.assert_close(result.codes, expected, rtol=0, atol=1e-3)
        # What is reported is the formula's value.
        reported = formula(D, x, result.codes, alpha, groups)
        torch.testing.assert_close(result.objective, reported)
        assert not positive or (result.codes >= 0).all()


@each_sign
@pytest.mark.parametrize("seed", range(3))
def test_the_gap_is_reached_and_bounds(seed, positive):
    rng = np.random.default_rng(seed)
    n_features = int(rng.integers(1, 20))
    D, x = problem(9, 16, n_features, seed)
    D[0] = 0  # an atom that says nothing,
    D[1] = D[2]  # one that is there twice,
    D[3] *= 1e-6  # and one that is very short
    groups = map_groups((4, 4), int(rng.integers(1, 5)))
    if seed % 2:
        groups = groups._replace(weight=torch.tensor(rng.uniform(0.3, 2, len(groups.weight))))
    penalty = GroupL2(10 ** rng.uniform(-3, -0.5), groups, positive)
    quadratic = make_quadratic(D, x)
    best = admm(quadratic, penalty, tol=1e-7, max_iter=20_000)
    # The accuracy that was asked for is reached.
    assert (best.gap <= 1e-7 * best.objective + 1e-14).all()
    for max_iter in (0, 1, 7, 25):
        result = admm(quadratic, penalty, tol=1e-9, max_iter=max_iter)
        # Weak duality: whenever it stops, nothing lies further below than the gap says.
        assert (result.objective - best.objective <= result.gap + 1e-12).all()
        assert (result.gap >= 0).all()
        assert result.n_iter <= max_iter
    # The bound from a code alone is cruder, but a bound.
    code = result.codes + 0.1 * torch.tensor(rng.standard_normal(result.codes.shape))
    code = code.clamp(min=0) if positive else code
    objective, gap = objective_and_gap(quadratic, penalty, code)
    assert (objective - best.objective <= gap + 1e-12).all()


@each_sign
@each_group
def test_no_direction_leads_down(name, positive, generator):
    D, x = problem(5, 8, 6)
    penalty, quadratic = GroupL2(0.05, GROUPS[name], positive), make_quadratic(D, x)
    result = admm(quadratic, penalty, tol=1e-9, max_iter=20_000)
    for spread in (1e-3, 1e-2, 1e-1, 1.0):
        for _ in range(50):
            step = torch.randn(result.codes.shape, generator=generator, dtype=torch.float64)
            code = result.codes + spread * step
            code = code.clamp(min=0) if positive else code
            objective, _ = objective_and_gap(quadratic, penalty, code)
            # A minimum, seen without any duality.
            assert (objective >= result.objective * (1 - 1e-9)).all()


def test_inactive_groups_are_exactly_zero():
    D, x = problem(30, 16, 12)
    groups = map_groups((4, 4), 2)
    result = admm(make_quadratic(D, x), GroupL2(0.13, groups), tol=1e-6, max_iter=5000)
    active = result.codes != 0
    # Some units are off, some on.
    assert 0.1 < active.double().mean() < 0.9
    # What is on is what no group of zeros holds: zeros come as unions of groups.
    dead = (~active[:, groups.members]).all(2)
    covered = torch.zeros_like(active)
    for g, members in enumerate(groups.members):
        covered[:, members] |= dead[:, g].unsqueeze(1)
    assert torch.equal(covered, ~active)


@each_sign
def test_codes_are_exactly_zero_under_a_large_penalty(positive):
    D, x = problem(10, 16, 12)
    groups = map_groups((4, 4), 3)
    result = admm(make_quadratic(D, x), GroupL2(2.0, groups, positive))
    # |c_j| <= |x| shared among 9 groups is feasible: nothing pays for its penalty.
    assert not result.codes.any()
    torch.testing.assert_close(result.objective, 0.5 * x.square().sum(1))
    # And rows of zeros have nothing to explain.
    result = admm(make_quadratic(D, 0 * x), GroupL2(0.01, groups, positive))
    assert not result.codes.any()
    assert not result.gap.any()


def test_a_ridge_and_an_attractor_enter_by_the_quadratic():
    D, x = problem(5, 8, 6)
    attractor = torch.tensor(np.random.default_rng(1).standard_normal((5, 8)))
    quadratic = make_quadratic(D, x, ridge=0.5, attractor=attractor)
    groups = GROUPS["ring"]
    result = admm(quadratic, GroupL2(0.1, groups), tol=1e-9, max_iter=5000)
    longer_atoms = torch.cat([D, 0.5**0.5 * torch.eye(8, dtype=torch.float64)], 1)
    longer_rows = torch.cat([x, 0.5**0.5 * attractor], 1)
    expected = torch.tensor(proximal_gradient(longer_atoms, longer_rows, 0.1, groups, False))
    # ridge/2 |h - a|^2 is the error of sqrt(ridge) a under the atoms sqrt(ridge) I.
    torch.testing.assert_close(result.codes, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_codes_scale_with_the_rows_and_against_the_atoms(dtype, scale):
    D, x = problem(8, 16, 12, dtype=dtype)
    groups = map_groups((4, 4), 2)
    one = admm(make_quadratic(D, x), GroupL2(0.05, groups), tol=1e-5)
    rows = admm(make_quadratic(D, x * scale), GroupL2(0.05 * scale, groups), tol=1e-5)
    # h(s x; s alpha) = s h(x; alpha); the objective has the square of the scale.
    torch.testing.assert_close(rows.objective / scale**2, one.objective, rtol=3e-5, atol=0)
    atoms = admm(make_quadratic(D * scale, x), GroupL2(0.05 * scale, groups), tol=1e-5)
    # h(x; s D, s alpha) = h(x; D, alpha) / s.
    torch.testing.assert_close(atoms.objective, one.objective, rtol=3e-5, atol=0)
    for result in (one, rows, atoms):
        # Computed, and returned, in the rows' own type.
        assert result.codes.dtype == result.objective.dtype == result.gap.dtype == dtype
        assert (result.gap <= 2e-5 * result.objective).all()


def test_a_start_at_the_minimum_of_separate_groups_returns_at_once():
    D, x = problem(12, 16, 24)
    quadratic = make_quadratic(D, x)
    penalty = GroupL2(0.05, Groups(torch.arange(16).view(4, 4), FLAT.expand(4)))
    best = admm(quadratic, penalty, tol=1e-10, max_iter=20_000)
    start = best.codes.clone()
    again = admm(quadratic, penalty, tol=1e-4, start=start)
    # Without overlap, the correlation is the multipliers.
    assert again.n_iter == 0
    assert torch.equal(again.codes, best.codes)
    # What was handed in belongs to the caller.
    assert torch.equal(start, best.codes)
    assert again.codes is not start


def test_a_start_near_the_minimum_saves_steps():
    D, x = problem(40, 64, 36)
    quadratic, penalty = make_quadratic(D, x), GroupL2(0.03, map_groups((8, 8), 3))
    best = admm(quadratic, penalty, tol=1e-8, max_iter=20_000)
    cold = admm(quadratic, penalty, tol=1e-4)
    warm = admm(quadratic, penalty, tol=1e-4, start=best.codes)
    # The code is right already, and the multipliers are nearly so.
    assert warm.n_iter < cold.n_iter
    far = admm(quadratic, penalty, tol=1e-6, max_iter=20_000, start=best.codes + 10)
    # A convex problem has no other valleys.
    torch.testing.assert_close(far.objective, best.objective, rtol=2e-6, atol=0)


def test_rows_do_not_see_one_another(monkeypatch):
    D, x = problem(40, 16, 12)
    penalty = GroupL2(0.05, map_groups((4, 4), 3))
    whole = admm(make_quadratic(D, x), penalty, tol=1e-8, max_iter=20_000)
    some = torch.tensor([3, 17, 18, 33])
    part = admm(make_quadratic(D, x[some]), penalty, tol=1e-8, max_iter=20_000)
    # rho is shared, which changes the way but not where it leads.
    torch.testing.assert_close(part.objective, whole.objective[some], rtol=2e-8, atol=0)
    monkeypatch.setattr("skae.engine.sparse.groups.COPIES_AT_ONCE", {"cpu": 700})
    blocks = admm(make_quadratic(D, x), penalty, tol=1e-8, max_iter=20_000)
    # Nor does it matter how many rows are solved at a time.
    torch.testing.assert_close(blocks.objective, whole.objective, rtol=2e-8, atol=0)


def test_no_rows_have_no_codes():
    D, x = problem(3, 16, 4)
    result = admm(make_quadratic(D, x[:0]), GroupL2(0.1, map_groups((4, 4), 2)))
    # An empty batch is a batch.
    assert result.codes.shape == (0, 16)
    assert result.objective.shape == result.gap.shape == (0,)


def test_groups_have_to_fit_the_code():
    D, x = problem(3, 15, 4)
    # Units that the code does not have, said before any work.
    with pytest.raises(ValueError, match="n_components=15"):
        admm(make_quadratic(D, x), GroupL2(0.1, map_groups((4, 4), 2)))
