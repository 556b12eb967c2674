"""Orthogonal matching pursuit against scikit-learn's and its definition; the soft threshold."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import orthogonal_mp_gram

from skae.engine.sparse.greedy import orthogonal_matching_pursuit, soft_threshold
from skae.engine.sparse.problem import (
    L1,
    fista,
    make_quadratic,
)


def problem(n_samples, n_components, n_features, seed=0, dtype=torch.float64):
    """A dictionary of unit-norm atoms and Gaussian rows."""
    rng = np.random.default_rng(seed)
    D = rng.standard_normal((n_components, n_features))
    D = torch.tensor(D / np.linalg.norm(D, axis=1, keepdims=True))
    return D.to(dtype), torch.tensor(rng.standard_normal((n_samples, n_features))).to(dtype)


def pursue(D, x, n_nonzero, tol=0.0):
    """One row's code by the definition: the residual itself, and least squares at each step."""
    D, x = D.numpy(), x.numpy()
    norms = np.linalg.norm(D, axis=1)
    taken, code = [], np.zeros(len(D))
    while len(taken) < n_nonzero and ((x - code @ D) ** 2).sum() > tol:
        correlation = np.abs((x - code @ D) @ D.T) / np.where(norms > 0, norms, np.inf)
        if correlation.max() < 1e-10:
            break
        taken.append(int(correlation.argmax()))
        code[taken] = np.linalg.lstsq(D[taken].T, x, rcond=None)[0]
    return code


@pytest.mark.parametrize("shape", [(40, 30, 12), (40, 12, 30), (2500, 20, 10), (3, 1, 5)], ids=str)
@pytest.mark.parametrize("n_nonzero", [1, 6])
def test_codes_are_those_of_scikit_learn(shape, n_nonzero):
    D, x = problem(*shape)
    n_nonzero = min(n_nonzero, len(D))
    codes = orthogonal_matching_pursuit(make_quadratic(D, x), n_nonzero)
    gram, linear = (D @ D.t()).numpy(), (D @ x.t()).numpy()
    expected = orthogonal_mp_gram(gram, linear, n_nonzero_coefs=n_nonzero)
    expected = expected.reshape(len(D), -1).T
    # The same atoms, one by one, and the same least squares.
    np.testing.assert_array_equal(codes != 0, expected != 0)
    np.testing.assert_allclose(codes, expected, atol=1e-9)
    assert ((codes != 0).sum(1) == n_nonzero).all()


def test_float32_codes_are_those_of_scikit_learn(digits):
    x = torch.tensor(digits[0], dtype=torch.float32)
    D = x[:150] / x[:150].norm(dim=1, keepdim=True)
    codes = orthogonal_matching_pursuit(make_quadratic(D, x[150:]), 6)
    D, x = D.double(), x[150:].double()
    gram, linear = (D @ D.t()).numpy(), (D @ x.t()).numpy()
    expected = torch.tensor(orthogonal_mp_gram(gram, linear, n_nonzero_coefs=6).T)
    same = ((codes != 0) == (expected != 0)).all(1)
    # Digits are alike, and ties within rounding may fall either way, but few are that close.
    assert same.double().mean() > 0.99
    torch.testing.assert_close(codes[same], expected[same].float(), rtol=0, atol=1e-4)
    assert codes.dtype == torch.float32
    # Whichever atoms: their coefficients explain as much.
    ours, theirs = ((x - c @ D).square().sum(1) for c in (codes.double(), expected))
    torch.testing.assert_close(ours.mean(), theirs.mean(), rtol=1e-3, atol=0)


@pytest.mark.parametrize("tol", [0.5, 3.0, 20.0])
def test_rows_stop_at_their_tolerance(tol):
    D, x = problem(60, 30, 12)
    x[0] *= 0.01
    codes = orthogonal_matching_pursuit(make_quadratic(D, x), 12, tol=tol)
    expected = [pursue(D, row, 12, tol) for row in x]
    # Every row goes on until |x - h D|^2 <= tol, by itself.
    np.testing.assert_allclose(codes, expected, atol=1e-9)
    assert ((x - codes @ D).square().sum(1) <= tol).all()
    # A row that is small enough takes no atom at all.
    assert not codes[0].any()


def test_both_limits_hold():
    D, x = problem(60, 30, 12)
    codes = orthogonal_matching_pursuit(make_quadratic(D, x), 3, tol=3.0)
    # Whichever comes first ends a row.
    np.testing.assert_allclose(codes, [pursue(D, row, 3, 3.0) for row in x], atol=1e-9)
    assert set((codes != 0).sum(1).tolist()) <= {0, 1, 2, 3}


def test_atoms_of_any_norm_count_by_their_direction():
    D, x = problem(50, 30, 12)
    norms = torch.logspace(-3, 3, 30, dtype=torch.float64).unsqueeze(1)
    codes = orthogonal_matching_pursuit(make_quadratic(D * norms, x), 5)
    unit = orthogonal_matching_pursuit(make_quadratic(D, x), 5)
    # |c_j| / |d_j| does not change with |d_j|; the coefficient makes up for it.
    torch.testing.assert_close(codes * norms.t(), unit, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(codes[0], pursue(D * norms, x[0], 5), rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_degenerate_atoms_are_never_taken(dtype):
    D, x = problem(200, 20, 8, dtype=dtype)
    D[0] = 0
    D[1] = D[2]
    D[3] = -2 * D[4]
    D[5] = D[6] + D[7]
    codes = orthogonal_matching_pursuit(make_quadratic(D, x), 20)
    # A zero atom explains nothing, and one of two copies says all that both say.
    assert not codes[:, 0].any()
    assert not (codes[:, 1] * codes[:, 2]).any()
    assert not (codes[:, 3] * codes[:, 4]).any()
    # No more atoms than features can be told apart, and they explain each row.
    assert ((codes != 0).sum(1) <= 8).all()
    loss = (x - codes @ D).square().sum(1)
    assert (loss <= (1e-5 if dtype == torch.float32 else 1e-18) * x.square().sum(1)).all()


def test_residuals_are_orthogonal_to_the_atoms_taken():
    D, x = problem(100, 64, 32, seed=3)
    previous = x.square().sum(1)
    for n_nonzero in (1, 2, 8, 31):
        codes = orthogonal_matching_pursuit(make_quadratic(D, x), n_nonzero)
        residual = x - codes @ D
        # The coefficients of atoms taken are those of least squares.
        normal = (residual @ D.t())[codes != 0]
        np.testing.assert_allclose(normal, 0, atol=1e-8)
        # Every atom explains something.
        assert (residual.square().sum(1) < previous).all()
        previous = residual.square().sum(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_codes_scale_with_the_rows(dtype, scale):
    D, x = problem(30, 20, 12, dtype=dtype)
    codes = orthogonal_matching_pursuit(make_quadratic(D, scale * x), 4)
    unit = orthogonal_matching_pursuit(make_quadratic(D, x), 4)
    # Nothing in the pursuit knows a unit.
    torch.testing.assert_close(codes / scale, unit, rtol=0, atol=1e-4)


def test_a_row_of_one_atom_is_that_atom():
    D, _ = problem(1, 30, 12)
    codes = orthogonal_matching_pursuit(make_quadratic(D, 3 * D), 5)
    # Nothing is left after the first step, so that nothing else is taken.
    torch.testing.assert_close(codes, 3 * torch.eye(30, dtype=torch.float64))


def test_rows_do_not_see_one_another(monkeypatch):
    D, x = problem(50, 30, 12)
    x[3] = 0
    whole = orthogonal_matching_pursuit(make_quadratic(D, x), 5)
    some = torch.tensor([3, 17, 44])
    part = orthogonal_matching_pursuit(make_quadratic(D, x[some]), 5)
    # Rows step together, but each by itself.
    torch.testing.assert_close(part, whole[some])
    # A row of zeros takes nothing.
    assert not whole[3].any()
    monkeypatch.setattr("skae.engine.sparse.greedy.ROWS_AT_ONCE", 7)
    # Nor does it matter how many step at a time.
    torch.testing.assert_close(orthogonal_matching_pursuit(make_quadratic(D, x), 5), whole)
    # An empty batch is a batch.
    assert orthogonal_matching_pursuit(make_quadratic(D, x[:0]), 5).shape == (0, 30)


def test_the_inputs_stay_as_they_are():
    D, x = problem(5, 9, 4)
    quadratic = make_quadratic(D * 2, x)
    before = [tensor.clone() for tensor in quadratic]
    orthogonal_matching_pursuit(quadratic, 3)
    # The caller's Gram matrix serves all batches.
    assert all(torch.equal(a, b) for a, b in zip(quadratic, before, strict=True))


@pytest.mark.parametrize(
    ("n_nonzero", "tol", "message"),
    [
        (0, None, "n_nonzero=0 must be from 1 to n_components=9"),
        (10, None, "n_nonzero=10 must be from 1 to n_components=9"),
        (3, -1.0, "tol=-1.0 is a squared norm"),
        (3, float("nan"), "tol=nan is a squared norm"),
    ],
)
def test_impossible_limits_are_refused(n_nonzero, tol, message):
    D, x = problem(5, 9, 4)
    # Said before any work, with the remedy.
    with pytest.raises(ValueError, match=message):
        orthogonal_matching_pursuit(make_quadratic(D, x), n_nonzero, tol=tol)


def test_the_soft_threshold_is_its_formula():
    correlation = torch.tensor([[-2.0, -0.5, -0.1, 0.0, 0.1, 0.5, 2.0]], dtype=torch.float64)
    # sign(c) max(0, |c| - alpha).
    expected = torch.tensor([[-1.5, 0.0, 0.0, 0.0, 0.0, 0.0, 1.5]], dtype=torch.float64)
    torch.testing.assert_close(soft_threshold(correlation, 0.5), expected)
    # Without the negative half: max(0, c - alpha).
    torch.testing.assert_close(soft_threshold(correlation, 0.5, True), expected.clamp(min=0))


@pytest.mark.parametrize("positive", [False, True])
def test_the_soft_threshold_is_the_lasso_of_orthonormal_atoms(positive):
    _, x = problem(20, 1, 8)
    D = torch.linalg.qr(problem(1, 8, 8)[0]).Q
    lasso = fista(make_quadratic(D, x), L1(0.4, positive), tol=1e-12)
    # Then Q = I, and the problem falls apart into one for each atom.
    torch.testing.assert_close(soft_threshold(x @ D.t(), 0.4, positive), lasso.codes)
