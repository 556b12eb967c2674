"""The normal distribution of rows with gaps against its definition."""

import pytest
import torch

from skae.engine.networks.normal import Normal, conditional_means, fit_normal


@pytest.fixture
def normal(generator):
    factors = torch.randn(5, 5, dtype=torch.float64, generator=generator)
    mean = torch.randn(5, dtype=torch.float64, generator=generator)
    return Normal(mean, factors @ factors.T + 0.5 * torch.eye(5, dtype=torch.float64))


def draw(normal, n_rows, generator):
    noise = torch.randn(n_rows, len(normal.mean), dtype=torch.float64, generator=generator)
    return normal.mean + noise @ torch.linalg.cholesky(normal.covariance).T


def with_gaps(x, generator, part=0.3):
    hidden = torch.rand(x.shape, generator=generator, dtype=x.dtype) < part
    return x.masked_fill(hidden, torch.nan)


def test_conditional_means_are_regressions_on_what_is_observed(normal, generator):
    x = with_gaps(draw(normal, 40, generator), generator, 0.5)
    x[0] = torch.nan
    filled = conditional_means(x, normal)
    for row, got in zip(x, filled, strict=True):
        o, m = ~row.isnan(), row.isnan()
        slopes = normal.covariance[m][:, o] @ torch.linalg.inv(normal.covariance[o][:, o])
        want = row.clone()
        want[m] = normal.mean[m] + slopes @ (row[o] - normal.mean[o])
        # The textbook's formula, by the covariance of what is observed, row by row.
        torch.testing.assert_close(got, want)


def test_a_fit_to_rows_without_gaps_is_their_mean_and_covariance(normal, generator):
    x = draw(normal, 200, generator)
    fitted = fit_normal(x, n_iter=1, ridge=0.0)
    torch.testing.assert_close(fitted.mean, x.mean(dim=0))
    # Nothing is missing, so that one iteration is the maximum of the likelihood.
    torch.testing.assert_close(fitted.covariance, x.T.cov(correction=0), atol=2e-6, rtol=0)


def test_gaps_do_not_shrink_the_covariance(normal, generator):
    x = draw(normal, 4000, generator)
    fitted = fit_normal(with_gaps(x, generator), n_iter=30, ridge=0.0)
    whole, scale = x.T.cov(), x.std(dim=0)
    error = ((fitted.covariance - whole) / torch.outer(scale, scale)).abs().max()
    # With 70 % of 4,000 rows a correlation's standard error is 0.02; filling gaps by their means,
    # without the covariance of what fills them, shrinks variances by up to 30 %.
    assert error < 0.08


def test_columns_that_sum_to_one_can_be_fitted(generator):
    code = torch.randint(0, 3, (200,), generator=generator)
    one_hot = torch.nn.functional.one_hot(code, 3).double()
    # Two numbers of which the three columns are linear functions: with one, the one in the middle
    # would be a tie.
    numbers = torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 0.0]], dtype=torch.float64)
    x = torch.cat([one_hot, one_hot @ numbers], dim=1)
    gaps = x.clone()
    gaps[::4, :3] = torch.nan
    filled = conditional_means(gaps, fit_normal(gaps))
    # The numbers tell the category; the covariance is singular but for the ridge.
    assert (filled[::4, :3].argmax(dim=1) == code[::4]).double().mean() > 0.9
