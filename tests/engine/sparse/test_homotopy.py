"""Paths of lasso codes where they are hard to follow: ties, degenerate atoms, long paths."""

import numpy as np
import pytest
import torch
from sparse_problems import problem

from skae.engine.sparse import homotopy as module
from skae.engine.sparse.homotopy import homotopy
from skae.engine.sparse.problem import (
    L1,
    fista,
    infer,
    is_solved,
    make_quadratic,
    objective_and_gap,
)


def structured(kind, rng, n_components, n_features):
    """Dictionaries in which events coincide, pivots vanish and slopes are round numbers."""
    if kind == "signs":
        return rng.integers(-1, 2, (n_components, n_features)).astype(float)
    if kind == "binary":
        return (rng.random((n_components, n_features)) < 0.3).astype(float)
    if kind == "axes":
        return np.vstack([np.eye(n_features), -np.eye(n_features)])[:n_components]
    twice = rng.integers(-1, 2, (n_components, n_features)).astype(float)
    return np.vstack([twice, twice, -twice])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_codes_are_exact_to_rounding(dtype):
    D, x = problem(100, 60, 40)
    exact = fista(make_quadratic(D, x), L1(0.2), tol=1e-14, max_iter=200_000).codes
    result = homotopy(make_quadratic(D.to(dtype), x.to(dtype)), L1(0.2), tol=1e-6)
    error = (result.codes.double() - exact).abs().amax(1)
    atoms = [D[code != 0] for code in exact]
    condition = torch.stack([torch.linalg.cond(some @ some.t()) for some in atoms])
    # A path ends at the minimum: there is no tolerance in it but that of the arithmetic, which
    # solves with the Gram matrix of the active atoms.
    bound = torch.finfo(dtype).eps * condition * exact.abs().amax(1)
    assert (error <= bound + 1e-6).all()


def test_active_atoms_are_at_the_bound_exactly():
    D, x = problem(50)
    alpha = 0.1
    result = homotopy(make_quadratic(D, x), L1(alpha), tol=1e-12)
    correlation = (x - result.codes @ D) @ D.t()
    active = result.codes != 0
    # c_j = alpha sign(h_j): the conditions that define the path, to rounding.
    expected = alpha * result.codes.sign()
    torch.testing.assert_close(correlation[active], expected[active], rtol=1e-9, atol=0)
    # No more atoms than dimensions can be at the bound in general position.
    assert int(active.sum(1).max()) <= D.shape[1]


@pytest.mark.parametrize("kind", ["signs", "binary", "axes", "copies"])
@pytest.mark.parametrize(
    ("dtype", "scale", "seeds"),
    [(torch.float32, 1e-8, [1]), (torch.float32, 1e8, [2]), (torch.float64, 1e8, [1, 2])],
)
def test_ties_and_dependent_atoms(kind, dtype, scale, seeds):
    for seed in seeds:
        rng = np.random.default_rng(seed)
        n_components, n_features = rng.integers(1, 20, 2)
        D = torch.tensor(structured(kind, rng, n_components, n_features)).to(dtype)
        x = torch.tensor(rng.integers(-2, 3, (12, n_features)) * scale).to(dtype)
        quadratic = make_quadratic(D, x)
        for alpha in (1.0, 0.05):
            for positive in (False, True):
                penalty = L1(alpha * scale, positive)
                result = homotopy(quadratic, penalty, tol=1e-4)
                objective, gap = objective_and_gap(quadratic, penalty, result.codes)
                rounding = 100 * torch.finfo(dtype).eps * quadratic.energy
                # Whole numbers make several atoms reach the bound at once, and 0/0 of atoms
                # that are orthogonal to a row. Paths that end early show by their gap,
                assert (gap - result.gap <= rounding + 1e-6 * gap).all()
                result = infer(quadratic, penalty, tol=1e-4, max_iter=20_000, algorithm="homotopy")
                objective, gap = objective_and_gap(quadratic, penalty, result.codes)
                # so that another solver brings these to a minimum, in any units.
                assert (gap <= 1e-4 * objective + rounding).all()
                assert torch.isfinite(result.codes).all()


def test_a_path_that_is_cut_off_says_so():
    D, x = problem(60)
    quadratic, penalty = make_quadratic(D, x), L1(0.01)
    result = homotopy(quadratic, penalty, tol=1e-6, max_iter=3)
    objective, gap = objective_and_gap(quadratic, penalty, result.codes)
    best = fista(quadratic, penalty, tol=1e-12, max_iter=100_000)
    # The codes are those of a larger alpha, with the objective and the gap at this one.
    assert int((result.codes != 0).sum(1).max()) <= 3
    torch.testing.assert_close(result.objective, objective, rtol=1e-10, atol=0)
    torch.testing.assert_close(result.gap, gap, rtol=1e-7, atol=1e-10)
    assert not is_solved(quadratic.energy, result.objective, result.gap, 1e-6).any()
    assert (result.objective - best.objective <= result.gap + 1e-12).all()
    # Every step leads down.
    assert (result.objective < quadratic.energy).all()


@pytest.mark.parametrize("limit", ["_BLOCK_ENTRIES", "_MOST_ENTRIES", "_FEWEST_ROWS"])
def test_blocks_and_halves_change_nothing(limit, monkeypatch):
    D, x = problem(10, 24, 15)
    quadratic, penalty = make_quadratic(D, x), L1(0.02)
    whole = homotopy(quadratic, penalty, tol=1e-10)
    monkeypatch.setattr(module, limit, 2)
    if limit == "_FEWEST_ROWS":
        monkeypatch.setattr(module, "_MOST_ENTRIES", 1)
    parts = homotopy(quadratic, penalty, tol=1e-10)
    # How rows share the cache is no part of the problem.
    torch.testing.assert_close(parts.codes, whole.codes, rtol=0, atol=1e-10)
    torch.testing.assert_close(parts.objective, whole.objective, rtol=1e-12, atol=0)


def test_rows_that_arrive_at_different_times(monkeypatch):
    D, x = problem(80, 40, 25)
    x *= torch.logspace(-3, 1, 80, dtype=torch.float64).unsqueeze(1)
    quadratic, penalty = make_quadratic(D, x), L1(0.05)
    together = homotopy(quadratic, penalty, tol=1e-10)
    for carried in (0.0, 1.0):
        monkeypatch.setattr(module, "_CARRIED", carried)
        other = homotopy(quadratic, penalty, tol=1e-10)
        # Rows that have arrived may be carried along: they do not move any more.
        torch.testing.assert_close(other.codes, together.codes, rtol=0, atol=1e-10)
    # Small rows need no atom, large ones up to all dimensions.
    n_active = (together.codes != 0).sum(1)
    assert int(n_active[0]) == 0
    assert int(n_active.max()) > 20


def test_atoms_that_leave_make_room(monkeypatch):
    rng = np.random.default_rng(3)
    # Atoms close to one direction: the path takes atoms that it gives up again.
    D = torch.tensor(1 + 0.3 * rng.standard_normal((60, 20)))
    D /= D.norm(dim=1, keepdim=True)
    x = torch.tensor(rng.standard_normal((70, 20)))
    quadratic, penalty = make_quadratic(D, x), L1(0.003)
    result = homotopy(quadratic, penalty, tol=1e-9, max_iter=1000)
    best = fista(quadratic, penalty, tol=1e-9, max_iter=2000)
    # More steps than atoms at the end: some have left, and their slots were used again.
    assert result.n_iter > int((result.codes != 0).sum(1).max()) + 8
    assert (result.objective <= best.objective * (1 + 1e-8)).all()
    assert is_solved(quadratic.energy, result.objective, result.gap, 1e-8).all()


def test_more_components_than_the_packed_columns_of_small_types():
    D, x = problem(5, 3000, 10)
    for dtype in (torch.float32, torch.float64):
        quadratic, penalty = make_quadratic(D.to(dtype), x.to(dtype)), L1(0.3)
        result = homotopy(quadratic, penalty, tol=1e-5)
        # Twelve bits of a float32 hold the column; what is left of the number finds the event.
        assert is_solved(quadratic.energy, result.objective, result.gap, 1e-5).all()
