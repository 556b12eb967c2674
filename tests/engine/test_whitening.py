"""Whitening against NumPy's eigendecomposition and the definition: covariance one."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from skae.engine.images import Moments, center_rows, normalize_contrast, whitening


@pytest.fixture
def rows(generator):
    mixing = torch.randn(6, 6, dtype=torch.float64, generator=generator)
    return torch.randn(200, 6, dtype=torch.float64, generator=generator) @ mixing + 3


@pytest.fixture
def covariance(rows):
    return torch.from_numpy(np.cov(rows.numpy(), rowvar=False))


def test_moments_do_not_depend_on_the_blocks(rows):
    moments = Moments(6)
    for part in rows.split([1, 49, 150]):
        moments.add(part)
    # Merged moments are those of all rows.
    assert_allclose(moments.mean, rows.numpy().mean(0), rtol=1e-12)
    assert_allclose(moments.covariance, np.cov(rows.numpy(), rowvar=False), rtol=1e-12)


def test_one_row_has_no_covariance(rows):
    moments = Moments(6)
    moments.add(rows[:1])
    # One row does not vary, and nothing is divided by 0.
    assert_allclose(moments.covariance, 0)


@pytest.mark.parametrize("method", ["zca", "pca"])
def test_whitened_rows_have_covariance_one(rows, covariance, method):
    white = (rows - rows.mean(0)) @ whitening(covariance, 0.0, method).forward.t()
    # The definition of whitening.
    assert_allclose(np.cov(white.numpy(), rowvar=False), np.eye(6), atol=1e-10)


def test_zca_is_the_formula(covariance):
    variance, directions = np.linalg.eigh(covariance.numpy())
    damped = variance + 0.1 * variance.mean()
    expected = directions @ np.diag(damped**-0.5) @ directions.T
    # W = V (D + e I)^(-1/2) V^T, with e in units of the mean variance.
    assert_allclose(whitening(covariance, 0.1, "zca").forward, expected, atol=1e-12)


def test_pca_is_zca_turned_and_ordered_by_variance(rows, covariance):
    pca, zca = whitening(covariance, 0.1, "pca").forward, whitening(covariance, 0.1, "zca").forward
    turn = pca @ torch.linalg.inv(zca)
    # Both whiten, so they differ by an orthogonal matrix (here V^T).
    assert_allclose(turn @ turn.t(), np.eye(6), atol=1e-10)
    # Unregularised components before their scaling have falling variance.
    norms = torch.linalg.vector_norm(pca, dim=1)
    assert (norms.diff() > 0).all()
    # Signs are fixed: each direction's largest entry is positive.
    largest = pca.gather(1, pca.abs().argmax(1, keepdim=True))
    assert (largest > 0).all()


@pytest.mark.parametrize("method", ["zca", "pca"])
def test_inverse_undoes_whitening(covariance, method):
    forward, inverse = whitening(covariance, 0.1, method)
    # W^(-1) W = I where all directions vary.
    assert_allclose(inverse @ forward, np.eye(6), atol=1e-10)


@pytest.mark.parametrize("method", ["zca", "pca"])
def test_directions_without_variance_are_left_out(rows, method):
    flat = rows.clone()
    flat[:, 2] = 7
    flat[:, 4] = flat[:, 0] - 2 * flat[:, 1]
    covariance = torch.from_numpy(np.cov(flat.numpy(), rowvar=False))
    forward, inverse = whitening(covariance, 0.0, method)
    spectrum = np.linalg.svd((forward @ covariance @ forward.t()).numpy(), compute_uv=False)
    # Four of six directions vary: those have variance one, and the others stay zero.
    assert_allclose(spectrum, [1, 1, 1, 1, 0, 0], atol=1e-8)
    # What varies comes back: the inverse is the pseudo-inverse.
    assert_allclose(forward @ inverse @ forward, forward, atol=1e-8)


def test_nothing_varies():
    forward, inverse = whitening(torch.zeros(3, 3, dtype=torch.float64), 0.1, "zca")
    # No direction to whiten: everything becomes the mean, and nothing NaN.
    assert_allclose(forward, 0)
    assert_allclose(inverse, 0)


def test_contrast_normalised_rows_have_mean_zero_and_variance_one(rows):
    normalized = normalize_contrast(rows, 0.0).numpy()
    assert_allclose(normalized.mean(1), 0, atol=1e-12)
    # Without regulariser the variance of each row is one.
    assert_allclose(normalized.var(1), 1, rtol=1e-12)


def test_contrast_normalisation_is_the_formula(rows):
    x = rows.numpy()
    expected = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 10)
    # Coates & Ng: (x - mean) / sqrt(var + 10).
    assert_allclose(normalize_contrast(rows, 10.0), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.1, 1e20])
def test_rows_of_one_value_become_zero(dtype, value):
    constant = torch.full((2, 97), value, dtype=dtype)
    # A mean that is rounded would leave something, which a division by it makes large.
    assert torch.equal(center_rows(constant), torch.zeros_like(constant))
    assert torch.equal(normalize_contrast(constant, 0.0), torch.zeros_like(constant))
