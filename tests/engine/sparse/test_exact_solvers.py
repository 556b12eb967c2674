"""What holds of every solver that ends at the optimum of the lasso."""

import pytest
import torch
from sklearn.linear_model import lars_path
from sparse_problems import problem

from skae.engine.optimisation import compilation
from skae.engine.sparse import feature_sign, homotopy  # noqa: F401  they register themselves
from skae.engine.sparse.problem import EXACT_SOLVERS, L1, SOLVERS, make_quadratic


@pytest.fixture(params=EXACT_SOLVERS)
def solver(request):
    if request.param == "feature_sign" and not compilation.is_compiled():
        pytest.skip("numba is not installed")
    return SOLVERS[request.param]


@pytest.mark.parametrize("alpha", [0.9, 0.3, 0.05, 0.005])
@pytest.mark.parametrize("positive", [False, True])
def test_codes_are_those_of_lars(alpha, positive, solver):
    D, x = problem()
    result = solver(make_quadratic(D, x), L1(alpha, positive), tol=1e-12)
    agreed = 0
    for row, code in zip(x, result.codes, strict=True):
        # scikit-learn's Gram-free path, which divides alpha by the number of features.
        _, _, path = lars_path(
            D.t().numpy(), row.numpy(), method="lasso", alpha_min=alpha / D.shape[1],
            positive=positive,
        )  # fmt: skip
        expected = torch.tensor(path[:, -1])
        values = [
            float(0.5 * (row - h @ D).square().sum() + alpha * h.abs().sum())
            for h in (code, expected)
        ]
        # No code is better than the optimum.
        assert values[0] <= values[1] * (1 + 1e-12)
        if values[1] <= values[0] * (1 + 1e-12):
            # Atoms in general position have one minimiser; not all of LARS's ends are there.
            torch.testing.assert_close(code, expected, rtol=0, atol=1e-5)
            agreed += 1
    # Nearly all are.
    assert agreed >= 16


def test_inputs_stay_as_they_are(solver):
    quadratic = make_quadratic(*problem())
    before = [part.clone() for part in quadratic]
    solver(quadratic, L1(0.1), tol=1e-6)
    # The caller's correlations are where training goes on from.
    assert all(torch.equal(one, other) for one, other in zip(quadratic, before, strict=True))
