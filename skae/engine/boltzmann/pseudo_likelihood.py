"""Pseudo-likelihood (Besag 1975): how well each visible unit follows from all others.

    PL(v) = sum_i log P(v_i | v_-i)

It needs no partition function: in each term all but one unit are given, and hidden
units sum out in closed form. For a Bernoulli unit that is exact; for a Gaussian one the
remaining integral over a single variable is done to rounding error.
"""

import math

import torch

from skae.engine.networks.layers import softplus

# Spacing of the quadrature in standard deviations: the trapezoidal rule integrates a
# mixture of unit Gaussians with relative error 2 exp(-2 pi^2 / spacing^2), here 1e-15.
_SPACING = 0.75
# How far beyond the outermost mean it reaches, and the spacing of the grid that looks for
# the means, in standard deviations.
_TAIL, _COARSE = 9.0, 3.0
# Means whose log-density is that much lower than the highest do not count.
_NEGLIGIBLE = 45.0
# More points than this only diverging weights ask for.
_MOST_POINTS = 512
# Numbers that are held at a time.
_BLOCK = 2**20


def pseudo_log_likelihood(
    machine, visible: torch.Tensor, columns: torch.Tensor | None = None
) -> torch.Tensor:
    """sum_i log P(v_i | v_-i) of each row, over some columns scaled up to all.

    Parameters
    ----------
    machine : BipartiteMachine
    visible : Tensor of shape (n_samples, n_visible)
        For Bernoulli units, values in [0, 1]: x log P + (1 - x) log(1 - P).
    columns : LongTensor of shape (n_columns,), default=None
        The terms to sum, times n_visible / n_columns. None takes all: exact.

    Returns
    -------
    pseudo : Tensor of shape (n_samples,)
    """
    n_visible = visible.shape[1]
    if columns is None:
        columns = torch.arange(n_visible, device=visible.device)
    a = machine.hidden_input(visible)
    total = visible.new_zeros(len(visible))
    for column in columns:
        total += machine.conditional_log_likelihood(visible, a, column.view(1))
    return total * (n_visible / len(columns))


def binary_conditional(x, a, weight, bias) -> torch.Tensor:
    """Log P(v_i | v_-i) of a Bernoulli unit of each row.

    Parameters
    ----------
    x : Tensor of shape (n_samples, 1)
        The units' values.
    a : Tensor of shape (n_samples, n_hidden)
        Pre-activations of the hidden units, the unit's own part included.
    weight, bias : Tensor of shape (n_samples or 1, n_hidden) and (n_samples or 1,)
        The units' own.

    Returns
    -------
    conditional : Tensor of shape (n_samples,)
    """
    without = a - x * weight
    logit = bias + (softplus(without + weight) - softplus(without)).sum(1)
    x = x.squeeze(1)
    return x * logit - softplus(logit)


def gaussian_conditional(x, a, weight, bias, precision) -> torch.Tensor:
    """The same of a Gaussian unit, by one-dimensional quadrature of exp(-F) over the unit.

    Given the hidden units it is N(c + h.w, s^2), so its law is a mixture of Gaussians of
    one width whose means lie between c + sum_j min(w_j, 0) and c + sum_j max(w_j, 0).
    A coarse grid over all of it finds where the mass is: no component is further than
    half a step from a point of the grid, where it still has a third of its height.
    """
    n = len(x)
    scale = precision.rsqrt().expand(n)
    low = (bias + weight.clamp(max=0).sum(1)).expand(n)
    high = (bias + weight.clamp(min=0).sum(1)).expand(n)
    slope = (weight * precision.unsqueeze(1)).expand(n, -1)
    without = a - x * slope
    x, bias, precision = x.squeeze(1), bias.expand(n), precision.expand(n)
    result = torch.empty_like(x)
    n_coarse = _count((high - low) / scale, _COARSE)
    for rows in torch.arange(n, device=x.device).split(max(1, _BLOCK // (n_coarse * a.shape[1]))):

        def log_density(t, rows=rows):
            inputs = without[rows].unsqueeze(1) + t.unsqueeze(2) * slope[rows].unsqueeze(1)
            square = (t - bias[rows].unsqueeze(1)).square_()
            quadratic = 0.5 * precision[rows].unsqueeze(1) * square
            return softplus(inputs).sum(2) - quadratic

        coarse = torch.linspace(0, 1, n_coarse, dtype=x.dtype, device=x.device)
        coarse = torch.lerp(low[rows].unsqueeze(1), high[rows].unsqueeze(1), coarse)
        at_coarse = log_density(coarse)
        matters = at_coarse > at_coarse.amax(1, keepdim=True) - _NEGLIGIBLE
        first = torch.where(matters, coarse, torch.inf).amin(1) - _TAIL * scale[rows]
        last = torch.where(matters, coarse, -torch.inf).amax(1) + _TAIL * scale[rows]
        n_fine = _count((last - first) / scale[rows], _SPACING)
        spacing = (last - first) / (n_fine - 1)
        steps = torch.arange(n_fine, dtype=x.dtype, device=x.device)
        # On a grid through x, whose mass then counts even where weights ask for a finer one.
        first = x[rows] - spacing * torch.ceil((x[rows] - first) / spacing)
        at_grid = log_density(first.unsqueeze(1) + spacing.unsqueeze(1) * steps)
        log_normalizer = torch.logsumexp(at_grid, 1) + torch.log(spacing)
        result[rows] = log_density(x[rows].unsqueeze(1)).squeeze(1) - log_normalizer
    # Weights so large that the grids miss the mass, or that numbers overflow, must not pass
    # for a good fit: a mixture of Gaussians nowhere exceeds the peak of one.
    return torch.minimum(
        result.nan_to_num(nan=-torch.inf), 0.5 * torch.log(precision / (2 * math.pi))
    )


def _count(widths, spacing):
    """Points of a grid of this spacing at most over the widest range, within reason."""
    widest = float(widths.max())
    return min(math.ceil(widest / spacing), _MOST_POINTS) + 2 if math.isfinite(widest) else 2
