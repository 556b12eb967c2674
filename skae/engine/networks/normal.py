"""A normal distribution of rows with gaps, and what it expects where they are."""

from typing import NamedTuple

import torch

# Entries of the matrices that are factorised at once.
_BLOCK = 2_000_000


class Normal(NamedTuple):
    """``mean``, of shape (n_features,), and ``covariance``, (n_features, n_features)."""

    mean: torch.Tensor
    covariance: torch.Tensor


def fit_normal(x: torch.Tensor, n_iter: int = 10, ridge: float = 0.01) -> Normal:
    r"""Maximum likelihood for rows whose gaps are NaN, by expectation and maximisation.

    With :math:`\hat x` the rows filled by `conditional_means` and :math:`C` the sum of the
    covariances of what fills them, each iteration sets

    .. math:: \mu = \tfrac{1}{n} \sum_i \hat x_i, \qquad
        \Sigma = \tfrac{1}{n} \Big( \sum_i (\hat x_i - \mu)(\hat x_i - \mu)^T + C \Big)

    ``ridge`` times the variances of the columns is added to the diagonal, which keeps columns that
    are sums of others solvable. Columns need an observed entry. A. P. Dempster, N. M. Laird, D. B.
    Rubin, Journal of the Royal Statistical Society B 39, 1977.
    """
    seen = ~torch.isnan(x)
    count = seen.sum(dim=0)
    mean = x.nan_to_num(0.0).sum(dim=0) / count
    variance = ((x - mean).nan_to_num(0.0) ** 2).sum(dim=0) / count
    extra = torch.diag(ridge * variance + 1e-6)
    fitted = Normal(mean, torch.diag(variance) + extra)
    for _ in range(n_iter):
        filled, scatter = _conditionals(x, fitted)
        mean = filled.mean(dim=0)
        filled -= mean
        scatter.addmm_(filled.t(), filled)
        fitted = Normal(mean, scatter / len(x) + extra)
    return fitted


def conditional_means(x: torch.Tensor, normal: Normal) -> torch.Tensor:
    r"""Rows with :math:`E[x_m \mid x_o]` where they are NaN.

    With the precision :math:`\Lambda = \Sigma^{-1}`, missing m and observed o,

    .. math:: E[x_m \mid x_o] = \mu_m - \Lambda_{mm}^{-1} \Lambda_{mo} (x_o - \mu_o)
    """
    return _conditionals(x, normal, with_covariance=False)[0]


def _conditionals(x, normal, with_covariance=True):
    """Filled rows, and the sum over rows of the covariances of what fills them."""
    precision = torch.linalg.inv(normal.covariance)
    gaps = torch.isnan(x)
    centered = torch.where(gaps, 0.0, x - normal.mean)
    pull = -(centered @ precision)
    scatter = torch.zeros_like(precision)
    n_gaps = gaps.sum(dim=1)
    # Rows of about as many gaps together: their blocks of the precision are padded to one size.
    order = torch.argsort(n_gaps)
    order = order[n_gaps[order] > 0]
    while len(order):
        width = int(n_gaps[order[-1]])
        rows = order[-max(1, _BLOCK // width**2) :]
        order = order[: -len(rows)]
        missing = gaps[rows].to(torch.int8).argsort(dim=1, descending=True)[:, :width]
        real = gaps[rows].gather(1, missing)
        both = real.unsqueeze(2) & real.unsqueeze(1)
        pairs = missing.unsqueeze(2), missing.unsqueeze(1)
        block = torch.where(both, precision[pairs], torch.eye(width, dtype=x.dtype))
        factor = torch.linalg.cholesky(block)
        right = (pull[rows].gather(1, missing) * real).unsqueeze(2)
        solution = torch.cholesky_solve(right, factor).squeeze(2)
        centered[rows] = centered[rows].scatter_add(1, missing, solution * real)
        if with_covariance:
            covariance = torch.cholesky_inverse(factor) * both
            scatter.index_put_(pairs, covariance, accumulate=True)
    return centered + normal.mean, scatter
