"""Solvers of the L1 problem against scikit-learn, its own conditions, and one another."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import sparse_encode
from sklearn.linear_model import ElasticNet, Lasso

from skae.engine.optimisation import compilation
from skae.engine.sparse.feature_sign import feature_sign
from skae.engine.sparse.homotopy import homotopy
from skae.engine.sparse.problem import (
    L1,
    fista,
    gram_matrix,
    infer,
    make_quadratic,
    objective_and_gap,
)

# Every solver of the L1 problem: solver(quadratic, penalty, *, tol, max_iter, start).
compiled = pytest.mark.skipif(not compilation.is_compiled(), reason="numba is not installed")
SOLVERS = [fista, homotopy, pytest.param(feature_sign, marks=compiled), infer]
each_solver = pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: solver.__name__)
EXACT = {"tol": 1e-11, "max_iter": 20_000}
# (n_samples, n_components, n_features): fewer atoms than features, more, and single ones.
SHAPES = [(7, 5, 12), (7, 30, 12), (4, 1, 6), (5, 8, 1), (3, 1, 1)]
each_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def problem(shape, seed=0, dtype=torch.float64):
    """A dictionary of unit-norm atoms and rows of norm about 1."""
    generator = torch.Generator().manual_seed(seed)
    n_samples, n_components, n_features = shape
    D = torch.randn(n_components, n_features, generator=generator, dtype=torch.float64)
    x = torch.randn(n_samples, n_features, generator=generator, dtype=torch.float64)
    D = D / D.norm(dim=1, keepdim=True)
    return D.to(dtype), (x / n_features**0.5).to(dtype)


def value(D, x, code, alpha, ridge=0.0, attractor=0.0):
    """The objective by its formula, from the dictionary and the rows."""
    loss = 0.5 * (x - code @ D).square().sum(1) + alpha * code.abs().sum(1)
    return loss + 0.5 * ridge * (code - attractor).square().sum(1)


def assert_optimal(D, x, code, alpha, positive=False, atol=1e-6, ridge=0.0):
    """The subgradient conditions: c_j = alpha sign(h_j) where h_j != 0, else |c_j| <= alpha."""
    correlation = (x - code @ D) @ D.t() - ridge * code
    active = code != 0
    np.testing.assert_allclose(correlation[active], alpha * code[active].sign(), atol=atol)
    reach = correlation if positive else correlation.abs()
    assert (reach <= alpha + atol).all()
    assert not positive or (code >= 0).all()


@each_solver
@pytest.mark.parametrize("positive", [False, True])
@each_shape
def test_codes_are_those_of_the_lasso(solver, shape, positive):
    D, x = problem(shape)
    alpha = 0.1
    result = solver(make_quadratic(D, x), L1(alpha, positive), **EXACT)
    lasso = Lasso(
        alpha=alpha / D.shape[1],  # scikit-learn divides the squared error by n_features
        fit_intercept=False,
        positive=positive,
        tol=1e-14,
        max_iter=100_000,
    )
    expected = lasso.fit(D.t().numpy(), x.t().numpy()).coef_.reshape(len(x), -1)
    best = value(D, x, torch.tensor(expected), alpha)
    # Two convex solvers reach one minimum.
    torch.testing.assert_close(value(D, x, result.codes, alpha), best, rtol=1e-9, atol=1e-14)
    # Random atoms are in general position, where the minimiser is unique: so is its support.
    if shape != (5, 8, 1):
        np.testing.assert_allclose(result.codes, expected, atol=1e-5)
        np.testing.assert_array_equal(result.codes.abs() > 1e-5, abs(expected) > 1e-5)


@each_solver
def test_codes_of_digits_are_those_of_sparse_encode(solver, digits):
    x = torch.tensor(digits[0])
    D = x[:100] / x[:100].norm(dim=1, keepdim=True)
    x, alpha = x[100:160], 0.3
    result = solver(make_quadratic(D, x), L1(alpha), tol=1e-10, max_iter=100_000)
    expected = sparse_encode(x.numpy(), D.numpy(), algorithm="lasso_lars", alpha=alpha)
    best = value(D, x, torch.tensor(expected), alpha)
    # LARS walks to the exact minimum; no code lies below it, and this one comes this close.
    torch.testing.assert_close(value(D, x, result.codes, alpha), best, rtol=1e-8, atol=0)
    # The active atoms are the same, up to those whose coefficient is about to vanish.
    clear = np.abs(expected) > 1e-3
    np.testing.assert_array_equal((result.codes.abs() > 5e-4).numpy() & clear, clear)
    assert (result.codes[torch.tensor(np.abs(expected) < 1e-9)].abs() < 1e-3).all()


@each_solver
@pytest.mark.parametrize("positive", [False, True])
@each_shape
def test_a_ridge_makes_the_elastic_net(solver, shape, positive):
    D, x = problem(shape)
    alpha, ridge = 0.1, 0.3
    result = solver(make_quadratic(D, x, ridge=ridge), L1(alpha, positive), **EXACT)
    net = ElasticNet(
        alpha=(alpha + ridge) / D.shape[1],
        l1_ratio=alpha / (alpha + ridge),
        fit_intercept=False,
        positive=positive,
        tol=1e-14,
        max_iter=100_000,
    )
    expected = net.fit(D.t().numpy(), x.t().numpy()).coef_.reshape(len(x), -1)
    # A ridge makes the problem strictly convex: its minimiser is unique.
    np.testing.assert_allclose(result.codes, expected, atol=2e-6)
    # The objective that is reported is the formula's.
    torch.testing.assert_close(result.objective, value(D, x, result.codes, alpha, ridge))


@each_solver
@each_shape
def test_an_attractor_is_one_more_observation_of_the_code(solver, shape):
    D, x = problem(shape)
    alpha, ridge = 0.1, 0.5
    attractor = torch.randn(len(x), len(D), generator=torch.Generator().manual_seed(1)).double()
    quadratic = make_quadratic(D, x, ridge=ridge, attractor=attractor)
    result = solver(quadratic, L1(alpha), **EXACT)
    # ridge/2 |h - a|^2 is the squared error of sqrt(ridge) a under the atoms sqrt(ridge) I.
    longer_atoms = torch.cat([D, ridge**0.5 * torch.eye(len(D)).double()], 1)
    longer_rows = torch.cat([x, ridge**0.5 * attractor], 1)
    augmented = solver(make_quadratic(longer_atoms, longer_rows), L1(alpha), **EXACT)
    torch.testing.assert_close(result.codes, augmented.codes, rtol=0, atol=2e-6)
    # Its conditions hold for the augmented lasso, and its value is the formula's.
    assert_optimal(longer_atoms, longer_rows, result.codes, alpha, atol=2e-6)
    expected = value(D, x, result.codes, alpha, ridge, attractor)
    torch.testing.assert_close(result.objective, expected)


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("ridge", [0.0, 0.4])
def test_the_gap_bounds_what_a_code_exceeds_the_minimum_by(positive, ridge):
    D, x = problem((40, 20, 10))
    quadratic, penalty = make_quadratic(D, x, ridge=ridge), L1(0.1, positive)
    best = fista(quadratic, penalty, **EXACT)
    generator = torch.Generator().manual_seed(2)
    for spread in (0.0, 1e-6, 1e-3, 0.1, 1.0, 10.0):
        noise = torch.randn(best.codes.shape, generator=generator).double()
        code = best.codes + spread * noise
        code = code.clamp(min=0) if positive else code
        objective, gap = objective_and_gap(quadratic, penalty, code)
        # Weak duality: no code, however bad, is further above the minimum than its gap.
        assert (objective - best.objective <= gap + 1e-11 * quadratic.energy).all()
        assert (gap >= 0).all()
    # Strong duality: at the minimum the two meet.
    objective, gap = objective_and_gap(quadratic, penalty, best.codes)
    assert (gap <= 2e-11 * objective + 1e-14).all()


def test_the_correlation_may_be_handed_in():
    D, x = problem((6, 9, 4))
    quadratic, penalty = make_quadratic(D, x), L1(0.1)
    code = torch.randn(6, 9, generator=torch.Generator().manual_seed(0)).double()
    correlation = quadratic.linear - code @ quadratic.gram
    # It is only saved work.
    for one, other in zip(
        objective_and_gap(quadratic, penalty, code),
        objective_and_gap(quadratic, penalty, code, correlation),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


@each_solver
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("alpha", [1e-3, 0.1])
def test_random_problems_with_degenerate_atoms_satisfy_the_conditions(solver, seed, alpha):
    rng = np.random.default_rng(seed)
    n_components, n_features = rng.integers(3, 25, 2)
    D, x = problem((9, int(n_components), int(n_features)), seed)
    D[0] = 0  # an atom that says nothing,
    D[1] = D[2]  # one that is there twice,
    D[-1] *= 1e-8  # and one that is too short to be worth its penalty
    for positive in (False, True):
        result = solver(make_quadratic(D, x), L1(alpha, positive), tol=1e-9, max_iter=20_000)
        excess = result.gap
        # The gap bounds 1/2 |r - r*|^2 of residuals, so c = r D^T misses c* by sqrt(2 gap).
        atol = float((2 * excess.max()).sqrt()) + 1e-12
        correlation = (x - result.codes @ D) @ D.t()
        reach = correlation if positive else correlation.abs()
        assert (reach <= alpha + atol).all()
        # Complementary slackness, summed: alpha |h|_1 = c h, up to the gap.
        slack = alpha * result.codes.abs().sum(1) - (correlation * result.codes).sum(1)
        scale = result.codes.abs().sum(1)
        assert (slack.abs() <= excess + atol * scale + 1e-12).all()
        # Atoms that can not pay for their penalty have a coefficient of exactly 0.
        assert not result.codes[:, 0].any()
        assert not result.codes[:, -1].any()
        # What is asked for is reached.
        assert (excess <= 1e-9 * result.objective + 1e-14).all()


@each_solver
def test_codes_are_exactly_zero_from_the_largest_correlation_on(solver):
    D, x = problem((20, 15, 6))
    quadratic = make_quadratic(D, x)
    largest = quadratic.linear.abs().amax()
    result = solver(quadratic, L1(float(largest) * (1 + 1e-12)), tol=1e-6, max_iter=1000)
    # h = 0 is the minimiser if and only if all |b_j| <= alpha.
    assert not result.codes.any()
    torch.testing.assert_close(result.objective, quadratic.energy)
    result = solver(quadratic, L1(float(largest) * (1 - 1e-3)), **EXACT)
    # Just below, the one row whose correlation is largest takes its one atom.
    assert int((result.codes != 0).sum()) == 1
    # With no atom that points along a row, non-negative codes are 0 for any alpha.
    positive = solver(make_quadratic(-x[:1], x[:1]), L1(1e-9, True), **EXACT)
    assert not positive.codes.any()


@each_solver
def test_rows_of_zeros_have_codes_of_zeros(solver):
    D, x = problem((5, 9, 4))
    x[1] = x[4] = 0
    result = solver(make_quadratic(D, x), L1(0.05), tol=1e-8, max_iter=10_000)
    # |0|^2 can not be explained any better.
    assert not result.codes[[1, 4]].any()
    assert not result.gap[[1, 4]].any()
    # And they keep no other row from its own.
    assert result.codes[[0, 2, 3]].any(1).all()


@each_solver
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_codes_scale_with_the_rows(solver, dtype, scale):
    D, x = problem((8, 20, 10), dtype=dtype)
    alpha, tol = 0.1, 1e-5
    result = solver(make_quadratic(D, x * scale), L1(alpha * scale), tol=tol, max_iter=10_000)
    D64, x64 = problem((8, 20, 10))
    best = fista(make_quadratic(D64, x64), L1(alpha), **EXACT)
    # h(s x; s alpha) = s h(x; alpha): units must not matter. The reference is float64.
    reached = value(D64, x64, result.codes.double() / scale, alpha)
    assert (reached <= best.objective * (1 + 2 * tol)).all()
    # Computed and returned in the rows' own type, and reported as reached.
    assert result.codes.dtype == result.objective.dtype == result.gap.dtype == dtype
    rounding = 16 * torch.finfo(dtype).eps * scale**2
    assert (result.gap <= tol * result.objective + rounding).all()


@each_solver
@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_codes_scale_against_the_atoms(solver, scale):
    D, x = problem((8, 20, 10), dtype=torch.float32)
    one = solver(make_quadratic(D, x), L1(0.1), tol=1e-6, max_iter=10_000)
    other = solver(make_quadratic(D * scale, x), L1(0.1 * scale), tol=1e-6, max_iter=10_000)
    # h(x; s D, s alpha) = h(x; D, alpha) / s.
    torch.testing.assert_close(other.codes * scale, one.codes, atol=5e-3, rtol=0)
    torch.testing.assert_close(other.objective, one.objective, rtol=1e-5, atol=0)


@pytest.mark.parametrize("solver", [fista, infer])
def test_a_start_at_the_minimum_returns_at_once(solver):
    D, x = problem((12, 20, 10))
    quadratic, penalty = make_quadratic(D, x), L1(0.1)
    best = solver(quadratic, penalty, **EXACT)
    start = best.codes.clone()
    again = solver(quadratic, penalty, tol=1e-6, max_iter=1000, start=start)
    # Nothing is left to do.
    assert again.n_iter == 0
    torch.testing.assert_close(again.codes, best.codes, rtol=0, atol=1e-9)
    # What was handed in belongs to the caller.
    assert torch.equal(start, best.codes)
    assert again.codes is not start


@each_solver
@pytest.mark.parametrize("spread", [1e-3, 10.0])
def test_any_start_leads_to_the_minimum(solver, spread):
    D, x = problem((12, 20, 10))
    quadratic, penalty = make_quadratic(D, x), L1(0.1)
    best = solver(quadratic, penalty, **EXACT)
    noise = torch.randn(best.codes.shape, generator=torch.Generator().manual_seed(3)).double()
    result = solver(quadratic, penalty, start=best.codes + spread * noise, **EXACT)
    # A convex problem has no other valleys.
    torch.testing.assert_close(result.objective, best.objective, rtol=1e-10, atol=0)


@each_solver
def test_rows_do_not_see_one_another(solver):
    D, x = problem((50, 30, 12))
    penalty = L1(0.1)
    whole = solver(make_quadratic(D, x), penalty, tol=1e-10, max_iter=50_000)
    some = torch.tensor([3, 17, 18, 44])
    part = solver(make_quadratic(D, x[some]), penalty, tol=1e-10, max_iter=50_000)
    # A row's problem does not contain the others; a batch only shares products.
    torch.testing.assert_close(part.codes, whole.codes[some], rtol=0, atol=1e-5)
    torch.testing.assert_close(part.objective, whole.objective[some], rtol=1e-9, atol=0)


@each_solver
def test_no_rows_have_no_codes(solver):
    D, x = problem((3, 6, 4))
    result = solver(make_quadratic(D, x[:0]), L1(0.1), tol=1e-4, max_iter=10)
    # An empty batch is a batch.
    assert result.codes.shape == (0, 6)
    assert result.objective.shape == result.gap.shape == (0,)


@each_solver
def test_few_steps_report_what_they_reached(solver):
    D, x = problem((12, 30, 12))
    quadratic, penalty = make_quadratic(D, x), L1(0.01)
    result = solver(quadratic, penalty, tol=1e-12, max_iter=2)
    best = fista(quadratic, penalty, **EXACT)
    objective, _ = objective_and_gap(quadratic, penalty, result.codes)
    # The result is that of the codes which come with it, and an honest bound, solved or not.
    torch.testing.assert_close(result.objective, objective, rtol=1e-10, atol=0)
    assert (result.objective - best.objective <= result.gap + 1e-12).all()
    # No step makes things worse than all zeros.
    assert (result.objective <= quadratic.energy * (1 + 1e-12)).all()


def test_the_gram_matrix_is_that_of_the_augmented_atoms():
    D, x = problem((3, 6, 4))
    longer = torch.cat([D, 0.5**0.5 * torch.eye(6).double()], 1)
    # D D^T + ridge I, without the augmented atoms.
    torch.testing.assert_close(gram_matrix(D, 0.5), longer @ longer.t())
    given = make_quadratic(D, x, gram=gram_matrix(D, 0.5), ridge=0.5)
    torch.testing.assert_close(given.gram, make_quadratic(D, x, ridge=0.5).gram)
    # The inputs stay as they are.
    assert torch.equal(D, problem((3, 6, 4))[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_curvature_of_few_components_is_the_largest_eigenvalue(dtype):
    for seed in range(5):
        D, x = problem((1, 20, 8), seed)
        value = make_quadratic(D.to(dtype), x.to(dtype)).curvature()
        largest = float(torch.linalg.eigvalsh(gram_matrix(D))[-1])
        # A much longer step than its inverse need not descend; a much shorter one wastes steps.
        assert value == pytest.approx(largest, rel=100 * torch.finfo(dtype).eps)


def test_shrinking_minimises_its_formula():
    code = torch.tensor([[-2.0, -0.3, 0.0, 0.3, 2.0]], dtype=torch.float64)
    grid = torch.linspace(-3, 3, 6001, dtype=torch.float64)
    for positive in (False, True):
        penalty, step = L1(0.5, positive), 2.0
        for given, shrunk in zip(code[0], penalty.shrink(code, step)[0], strict=True):
            cost = 0.5 * (grid - given) ** 2 + step * 0.5 * grid.abs()
            cost[(grid < 0) & positive] = torch.inf
            # argmin_h 1/2 (h - code)^2 + step alpha |h|, searched on a grid of 1e-3.
            assert abs(float(grid[cost.argmin()] - shrunk)) < 1e-3
