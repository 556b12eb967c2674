"""Pseudo-likelihood (Besag 1975): how well each visible unit follows from all others.

    PL(v) = sum_i log P(v_i | v_-i)

It needs no partition function: in each term all but one unit are given, and hidden
units sum out in closed form. For a Bernoulli unit that is exact; for a Gaussian one the
remaining integral over a single variable is done to rounding error.
"""

import math

import torch

from skae.engine.energies import hidden_input, precision_of
from skae.engine.networks import softplus

# Spacing of the quadrature in standard deviations: the trapezoidal rule integrates a
# mixture of unit Gaussians with relative error 2 exp(-2 pi^2 / spacing^2), here 1e-15.
_SPACING = 0.75
# How far beyond the outermost component's mean it reaches.
_TAIL = 9.0
# More points than this only diverging weights ask for.
_MOST_POINTS = 512
# Numbers that are held at a time.
_BLOCK = 2**20


def pseudo_log_likelihood(theta, visible, units, columns=None):
    """sum_i log P(v_i | v_-i) of each row, over some columns scaled up to all.

    Parameters
    ----------
    theta : Parameters
    visible : Tensor of shape (n_samples, n_visible)
        For Bernoulli units, values in [0, 1]: x log P + (1 - x) log(1 - P).
    units : Bernoulli or Gaussian
    columns : LongTensor of shape (n_columns,), default=None
        The terms to sum, times n_visible / n_columns. None takes all: exact.

    Returns
    -------
    pseudo : Tensor of shape (n_samples,)
    """
    n_visible = visible.shape[1]
    if columns is None:
        columns = torch.arange(n_visible, device=visible.device)
    a = hidden_input(theta, visible)
    total = visible.new_zeros(len(visible))
    for column in columns:
        total += conditional_log_likelihood(theta, visible, a, column.view(1), units)
    return total * (n_visible / len(columns))


def conditional_log_likelihood(theta, visible, a, column, units):
    """Log P(v_i | v_-i) of each row for one column i each.

    Parameters
    ----------
    theta : Parameters
    visible : Tensor of shape (n_samples, n_visible)
    a : Tensor of shape (n_samples, n_hidden)
        `hidden_input` of the rows.
    column : LongTensor of shape (n_samples,), or (1,) for the same in all rows
    units : Bernoulli or Gaussian

    Returns
    -------
    conditional : Tensor of shape (n_samples,)
    """
    x = visible.gather(1, column.expand(len(visible)).unsqueeze(1))
    weight, bias = theta["weight_0"].t()[column], theta["visible_bias_0"][column]
    if units.is_discrete:
        return _bernoulli_conditional(x, a, weight, bias)
    precision = precision_of(theta)
    precision = torch.ones_like(bias) if precision is None else precision[column]
    return _gaussian_conditional(x, a, weight, bias, precision)


def _bernoulli_conditional(x, a, weight, bias):
    without = a - x * weight
    logit = bias + (softplus(without + weight) - softplus(without)).sum(1)
    x = x.squeeze(1)
    return x * logit - softplus(logit)


def _gaussian_conditional(x, a, weight, bias, precision):
    """One-dimensional quadrature of exp(-F) over the unit, on a grid through x.

    Given the hidden units it is N(c + h.w, s^2), so its law is a mixture of Gaussians of
    one width whose means lie between c + sum_j min(w_j, 0) and c + sum_j max(w_j, 0).
    """
    scale = precision.rsqrt()
    low = bias + weight.clamp(max=0).sum(1) - _TAIL * scale
    high = bias + weight.clamp(min=0).sum(1) + _TAIL * scale
    n_points = min(math.ceil(float(((high - low) / scale).max()) / _SPACING) + 2, _MOST_POINTS)
    spacing = torch.maximum(_SPACING * scale, (high - low) / (n_points - 2))

    x, bias, precision = x.squeeze(1), bias.expand(len(x)), precision.expand(len(x))
    spacing, low = spacing.expand(len(x)), low.expand(len(x))
    start = x - spacing * torch.ceil((x - low) / spacing)
    slope = (weight * precision[: len(weight)].unsqueeze(1)).expand(len(x), -1)
    without = a - x.unsqueeze(1) * slope

    def log_density(rows, t):
        inputs = without[rows].unsqueeze(1) + t.unsqueeze(2) * slope[rows].unsqueeze(1)
        quadratic = 0.5 * precision[rows].unsqueeze(1) * (t - bias[rows].unsqueeze(1)) ** 2
        return softplus(inputs).sum(2) - quadratic

    result = torch.empty_like(x)
    steps = torch.arange(n_points, dtype=x.dtype, device=x.device)
    for rows in torch.arange(len(x), device=x.device).split(
        max(1, _BLOCK // (n_points * a.shape[1]))
    ):
        grid = start[rows].unsqueeze(1) + spacing[rows].unsqueeze(1) * steps
        log_normalizer = torch.logsumexp(log_density(rows, grid), 1) + torch.log(spacing[rows])
        at_x = log_density(rows, x[rows].unsqueeze(1)).squeeze(1)
        result[rows] = at_x - log_normalizer
    return result
