"""Which solver sparse codes are inferred by, and what it leaves to another."""

import pytest
import torch

from skae.engine.optimisation import compilation
from skae.engine.sparse.groups import GroupL2, map_groups
from skae.engine.sparse.problem import (
    L1,
    SOLVERS,
    choose_algorithm,
    fista,
    infer,
    is_solved,
    make_quadratic,
    objective_and_gap,
)


def problem(n_samples=70, n_components=24, n_features=12, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    D = torch.randn(n_components, n_features, generator=generator, dtype=torch.float64)
    x = torch.randn(n_samples, n_features, generator=generator, dtype=torch.float64)
    D = D / D.norm(dim=1, keepdim=True)
    return D.to(dtype), x.to(dtype)


@pytest.fixture(params=["plain", "fast"])
def exact(request, monkeypatch):
    """The exact solver of an installation without numba, and of one with it."""
    if request.param == "plain":
        monkeypatch.setattr(compilation, "is_compiled", lambda: False)
        return "homotopy"
    if not compilation.is_compiled():
        pytest.skip("numba is not installed")
    return "feature_sign"


@pytest.fixture
def calls(monkeypatch):
    """The solvers that `infer` calls, in order, with the number of rows of each call."""
    names = []

    def spy(name):
        solve = SOLVERS[name]

        def solver(quadratic, *args, **kwargs):
            names.append((name, len(quadratic.linear)))
            return solve(quadratic, *args, **kwargs)

        return solver

    for name in list(SOLVERS):
        monkeypatch.setitem(SOLVERS, name, spy(name))
    return names


@pytest.mark.parametrize("algorithm", ["auto", "exact", "fista"])
@pytest.mark.parametrize("positive", [False, True])
def test_every_algorithm_reaches_the_minimum(algorithm, positive, exact):
    algorithm = exact if algorithm == "exact" else algorithm
    quadratic, penalty = make_quadratic(*problem()), L1(0.3, positive)
    result = infer(quadratic, penalty, tol=1e-9, max_iter=20_000, algorithm=algorithm)
    best = fista(quadratic, penalty, tol=1e-12, max_iter=50_000)
    # A convex problem has one minimum, whoever finds it.
    torch.testing.assert_close(result.objective, best.objective, rtol=2e-9, atol=0)
    assert is_solved(quadratic.energy, result.objective, result.gap, 1e-9).all()


@pytest.mark.parametrize("algorithm", ["exact", "fista"])
def test_a_named_algorithm_is_the_one_that_runs(algorithm, exact, calls):
    algorithm = exact if algorithm == "exact" else algorithm
    infer(make_quadratic(*problem()), L1(0.3), algorithm=algorithm)
    # A choice that was made once, for all batches to come, is not made anew.
    assert calls == [(algorithm, 70)]


def test_groups_are_for_admm(calls):
    quadratic = make_quadratic(*problem(9))
    penalty = GroupL2(0.1, map_groups((4, 6), 3))
    # Neither of the others knows the prox of overlapping groups.
    assert choose_algorithm(quadratic, penalty) == "admm"
    for algorithm in ("auto", "admm", "fista", "homotopy"):
        infer(quadratic, penalty, algorithm=algorithm)
    assert calls == [("admm", 9)] * 4


def test_short_paths_are_followed_and_long_ones_are_not(exact):
    D, x = problem(64, 200, 30)
    quadratic = make_quadratic(D, x)
    largest = float(quadratic.linear.abs().amax())
    # One atom or two: a path of one step or two beats a hundred products with Q.
    assert choose_algorithm(quadratic, L1(0.9 * largest)) == exact
    # Orthonormal atoms, nearly all of them active, are solved by a single gradient step.
    generator = torch.Generator().manual_seed(0)
    x = 9 + torch.randn(64, 120, dtype=torch.float64, generator=generator)
    orthonormal = make_quadratic(torch.eye(120).double(), x)
    assert choose_algorithm(orthonormal, L1(1e-3)) == "fista"


def test_the_choice_is_one_of_two_for_any_number_of_rows(exact):
    D, x = problem(5)
    for rows in (0, 1, 5):
        for n_rows in (None, 0, 1, 10**6):
            # No division by a number of rows, and no pilot of none.
            choice = choose_algorithm(make_quadratic(D, x[:rows]), L1(0.3), n_rows=n_rows)
            assert choice in (exact, "fista")


def test_rows_that_a_path_leaves_unsolved_go_on_by_steps(calls, monkeypatch):
    quadratic, penalty = make_quadratic(*problem()), L1(0.05)
    follow = SOLVERS["homotopy"]

    def cut_off(part, penalty, **options):
        result = follow(part, penalty, **options)
        # What rounding may do to a path, to half of the rows: NaN, or codes that are no minimum.
        result.codes[:20], result.gap[:20] = torch.nan, torch.nan
        result.codes[20:35] = 0
        objective, gap = objective_and_gap(part, penalty, result.codes)
        result.objective[20:35], result.gap[20:35] = objective[20:35], gap[20:35]
        return result

    monkeypatch.setitem(SOLVERS, "homotopy", cut_off)
    result = infer(quadratic, penalty, tol=1e-8, max_iter=20_000, algorithm="homotopy")
    best = fista(quadratic, penalty, tol=1e-12, max_iter=50_000)
    # The gap tells which rows are not solved, and another solver finds the minimum from there.
    torch.testing.assert_close(result.objective, best.objective, rtol=2e-8, atol=0)
    assert is_solved(quadratic.energy, result.objective, result.gap, 1e-8).all()
    assert calls == [("homotopy", 70), ("fista", 35)]


def test_a_start_spares_the_rows_that_it_solves(calls):
    quadratic, penalty = make_quadratic(*problem()), L1(0.3)
    start = fista(quadratic, penalty, tol=1e-12, max_iter=50_000).codes
    start[10:17] = 0
    result = infer(quadratic, penalty, tol=1e-6, start=start, algorithm="homotopy")
    # Seven rows are to do; paths begin at zero, so that they are followed for these alone.
    assert calls == [("homotopy", 7)]
    assert is_solved(quadratic.energy, result.objective, result.gap, 1e-6).all()
    # The other rows' codes are the start's, bit by bit; the start itself stays.
    assert torch.equal(result.codes[:10], start[:10])
    assert not start[10:17].any()


@pytest.mark.parametrize("algorithm", ["auto", "homotopy", "fista"])
def test_the_result_is_that_of_its_codes(algorithm):
    quadratic, penalty = make_quadratic(*problem(dtype=torch.float32)), L1(0.1)
    result = infer(quadratic, penalty, tol=1e-12, max_iter=30, algorithm=algorithm)
    objective, gap = objective_and_gap(quadratic, penalty, result.codes)
    # Certificates are for what is returned, also where the tolerance is out of reach.
    torch.testing.assert_close(result.objective, objective, rtol=1e-4, atol=1e-5)
    rounding = 16 * torch.finfo(torch.float32).eps * quadratic.energy
    assert ((result.gap - gap).abs() <= rounding + 1e-3 * gap).all()
