"""The law of one visible variable given all others, and the pseudo-likelihood that they make.

Hidden units sum out in closed form, so that no partition function is needed. A variable is a
column, or the columns of one category together:

    binary        log P(v_i = 1 | v_-i) / P(v_i = 0 | v_-i) = c_i + sum_j log (1 + e^(a_j + W_ji))
                                                                      / (1 + e^a_j)
    category      P(v_g = k | v_-g) = softmax_k (c_k + sum_j log(1 + e^(a_j + W_jk)))
    real          P(v_i | v_-i), a mixture of Gaussians, by one-dimensional quadrature

with ``a`` the hidden units' input of all other columns.
"""

import math
from typing import NamedTuple

import torch
from torch.nn.functional import log_softmax

from skae.engine.networks.activations import softplus
from skae.engine.networks.mixed import Mixed
from skae.engine.networks.units import OneHotGroups

# Of the quadrature, in standard deviations: its spacing; how far beyond the outermost mean it looks
# for mass; and by how much the log-density may be lower where it does. The trapezoidal rule
# integrates a mixture of unit Gaussians with relative error 2 exp(-2 pi^2 / spacing^2), which is
# 1e-15 and, in single precision, 5e-9.
_GRIDS = {torch.float64: (0.75, 9.0, 45.0)}
_SINGLE = (1.0, 7.0, 22.0)
# The spacing of the grid that looks for it.
_COARSE = 3.0
# More points than this only diverging weights ask for.
_MOST_POINTS = 512
# Numbers that are held at a time: they stay in the cache.
_GRID_BLOCK = 2**16


class Variables(NamedTuple):
    """The variables that visible units are.

    - ``kind``, of shape (n_variables,): "binary", "real" or "category", by the number among `LAWS`.
    - ``columns``, of shape (n_variables, width): the columns of each; ``is_padding`` tells which of
      them only fill it up.
    - ``kinds``: the numbers that occur.
    """

    kind: torch.Tensor
    columns: torch.Tensor
    is_padding: torch.Tensor
    kinds: tuple


def variables_of(units, n_columns: int, device: torch.device) -> Variables:
    """The variables of such units, in the order of their first columns."""
    every = torch.arange(n_columns, device=device)
    tables = []
    for part, columns in units.parts if isinstance(units, Mixed) else [(units, slice(None))]:
        own = every[columns]
        if part.sums_to_one:
            tables.append((CATEGORY, own.unsqueeze(0), None))
        elif isinstance(part, OneHotGroups):
            padded = own[part.source].view(part.shape).t()
            tables.append((CATEGORY, padded, torch.isinf(part.bias).view(part.shape).t()))
        else:
            kind = BINARY if part.is_discrete else REAL
            tables.append((kind, own.unsqueeze(1), None))
    width = max(table.shape[1] for _, table, _ in tables)
    kind = torch.cat([torch.full((len(table),), kind) for kind, table, _ in tables]).to(device)
    columns = torch.cat([_widened(table, width) for _, table, _ in tables])
    is_padding = torch.cat([_padding(table, known, width).to(device) for _, table, known in tables])
    order = columns[:, 0].argsort()
    kinds = tuple(sorted({kind for kind, _, _ in tables}))
    return Variables(kind[order], columns[order], is_padding[order], kinds)


def _widened(table, width):
    return torch.cat([table, table[:, :1].expand(-1, width - table.shape[1])], 1)


def _padding(table, known, width):
    result = torch.ones(len(table), width, dtype=torch.bool, device=table.device)
    result[:, : table.shape[1]] = False if known is None else known
    return result


def real_columns(units) -> list:
    """The columns of real units, each entry a slice or a LongTensor."""
    if not isinstance(units, Mixed):
        return [] if units.is_discrete else [slice(None)]
    return [columns for part, columns in units.parts if not part.is_discrete]


def pseudo_log_likelihood(
    machine, visible: torch.Tensor, variables: torch.Tensor | None = None
) -> torch.Tensor:
    """Log PL(v) = sum_i log P(v_i | v_-i) of each row (Besag 1975), shape (n_samples,).

    It needs no partition function: in each term all but one variable are given, and hidden units
    sum out in closed form. Values of Bernoulli units in [0, 1] count as x log P + (1 - x) log(1 -
    P), those of categories as sum_k x_k log P_k. Where the numbers of some ``variables`` are given,
    their terms stand for all: the sum is scaled up.
    """
    if variables is None:
        variables = torch.arange(machine.n_variables, device=visible.device)
    a = machine.hidden_input(visible)
    total = visible.new_zeros(len(visible))
    for variable in variables:
        total += machine.conditional_log_likelihood(visible, a, variable.view(1))
    return total * (machine.n_variables / len(variables))


def laplace_log_likelihoods(machine, visible, a) -> torch.Tensor:
    """Log P(v_i | v_-i) of every real column, nearly: by a parabola of -F at v; 0 of others.

    With the slope g_i and the curvature -k_i of -F along column i,

        g_i = (c_i - v_i + sum_j p_j W_ji) / s_i^2
        k_i = 1 / s_i^2 - sum_j p_j (1 - p_j) W_ji^2 / s_i^4

    it is 1/2 log(k_i / 2 pi) - g_i^2 / 2 k_i; k_i is at least a tenth of 1 / s_i^2. Costs two
    products for all columns together.
    """
    result, p = torch.zeros_like(visible), torch.sigmoid(a)
    slope = p * (1 - p)
    for real in real_columns(machine.units):
        weight, bias = machine.weight[:, real], machine.visible_bias[real]
        precision = torch.ones_like(bias) if machine.precision is None else machine.precision[real]
        g = torch.addmm(bias, p, weight).sub_(visible[:, real]).mul_(precision)
        k = (1 - (slope @ weight.square()) * precision).clamp_(min=0.1).mul_(precision)
        result[:, real] = 0.5 * (torch.log(k / (2 * math.pi)) - g.square() / k)
    return result


def conditional_log_likelihood(machine, visible, a, variable) -> torch.Tensor:
    """Log P(v_i | v_-i) of each row, for one variable i each or the same in all rows.

    ``a`` is the rows' `hidden_input`; ``variable`` has shape (n_samples,) or (1,).
    """
    kind, columns, is_padding, kinds = machine.variables
    kind, columns, is_padding = kind[variable], columns[variable], is_padding[variable]
    if len(kinds) == 1 or len(variable) == 1:
        law = LAWS[kinds[0] if len(kinds) == 1 else int(kind)]
        return law(machine, visible, a, columns, is_padding)
    result = torch.empty_like(a[:, 0])
    for number in kinds:
        rows = torch.nonzero(kind == number).squeeze(1)
        if len(rows):
            own = columns[rows], is_padding[rows]
            result[rows] = LAWS[number](machine, visible[rows], a[rows], *own)
    return result


def _single(visible, columns):
    """The one column of each row's variable, and its values, of shape (n_samples, 1)."""
    column = columns[:, 0]
    return column, visible.gather(1, column.expand(len(visible)).unsqueeze(1))


def _binary(machine, visible, a, columns, is_padding):
    """Of Bernoulli units."""
    column, x = _single(visible, columns)
    weight, bias = machine.weight.t()[column], machine.visible_bias[column]
    without = a - x * weight
    logit = bias + (softplus(without + weight) - softplus(without)).sum(1)
    x = x.squeeze(1)
    return x * logit - softplus(logit)


def _category(machine, visible, a, columns, is_padding):
    """Of one-hot columns that are one variable: every category in turn, all others being off."""
    if len(columns) == 1:
        columns = columns[:, ~is_padding[0]]
        is_padding = torch.zeros_like(columns, dtype=torch.bool)
    n, width = len(visible), columns.shape[1]
    result = torch.empty_like(a[:, 0])
    n_rows = max(1, _GRID_BLOCK // (width * a.shape[1]))
    for rows in torch.arange(n, device=a.device).split(n_rows):
        own, padding = (
            (columns, is_padding) if len(columns) == 1 else (columns[rows], is_padding[rows])
        )
        x = visible[rows].gather(1, own.expand(len(rows), -1)).masked_fill(padding, 0.0)
        weight = machine.weight.t()[own]
        without = a[rows].unsqueeze(1) - x.unsqueeze(1) @ weight
        logits = machine.visible_bias[own] + softplus(without + weight).sum(2)
        log_mean = log_softmax(logits.masked_fill(padding, -math.inf), 1)
        result[rows] = (x * log_mean.masked_fill(padding, 0.0)).sum(1)
    return result


def _real(machine, visible, a, columns, is_padding):
    """Of Gaussian units, by one-dimensional quadrature of exp(-F) over the unit.

    Given the hidden units it is N(c + h.w, s^2), so its law is a mixture of Gaussians of one width
    whose means lie between c + sum_j min(w_j, 0) and c + sum_j max(w_j, 0). A coarse grid over all
    of it finds where the mass is: no component is further than half a step from a point of the
    grid, where it still has a third of its height. Beyond the next point there is next to nothing.
    """
    column, x = _single(visible, columns)
    n, precision = len(x), machine.precision
    weight, bias = machine.weight.t()[column], machine.visible_bias[column]
    precision = torch.ones_like(bias) if precision is None else precision[column]
    scale = precision.rsqrt().expand(n)
    low = (bias + weight.clamp(max=0).sum(1)).expand(n)
    high = (bias + weight.clamp(min=0).sum(1)).expand(n)
    slope = (weight * precision.unsqueeze(1)).expand(n, -1)
    without = a - x * slope
    x, bias, precision = x.squeeze(1), bias.expand(n), precision.expand(n)
    result = torch.empty_like(x)
    spacing, tail, negligible = _GRIDS.get(x.dtype, _SINGLE)
    low, high = low - tail * scale, high + tail * scale
    n_coarse = _count((high - low) / scale, _COARSE)
    n_rows = max(1, _GRID_BLOCK // (n_coarse * a.shape[1]))
    for rows in torch.arange(n, device=x.device).split(n_rows):

        def log_density(t, rows=rows):
            inputs = torch.addcmul(
                without[rows].unsqueeze(1), t.unsqueeze(2), slope[rows].unsqueeze(1)
            )
            square = (t - bias[rows].unsqueeze(1)).square_()
            quadratic = 0.5 * precision[rows].unsqueeze(1) * square
            return softplus(inputs).sum(2) - quadratic

        coarse = torch.linspace(0, 1, n_coarse, dtype=x.dtype, device=x.device)
        coarse = torch.lerp(low[rows].unsqueeze(1), high[rows].unsqueeze(1), coarse)
        at_coarse = log_density(coarse)
        matters = at_coarse > at_coarse.amax(1, keepdim=True) - negligible
        next_point = (high[rows] - low[rows]) / (n_coarse - 1)
        first = torch.where(matters, coarse, torch.inf).amin(1) - next_point
        last = torch.where(matters, coarse, -torch.inf).amax(1) + next_point
        n_fine = _count((last - first) / scale[rows], spacing)
        step = (last - first) / (n_fine - 1)
        steps = torch.arange(n_fine, dtype=x.dtype, device=x.device)
        # On a grid through x, whose mass then counts even where weights ask for a finer one.
        first = x[rows] - step * torch.ceil((x[rows] - first) / step)
        at_grid = log_density(first.unsqueeze(1) + step.unsqueeze(1) * steps)
        log_normalizer = torch.logsumexp(at_grid, 1) + torch.log(step)
        result[rows] = log_density(x[rows].unsqueeze(1)).squeeze(1) - log_normalizer
    # Weights so large that the grids miss the mass, or that numbers overflow, must not pass for a
    # good fit: a mixture of Gaussians nowhere exceeds the peak of one.
    return torch.minimum(
        result.nan_to_num(nan=-torch.inf), 0.5 * torch.log(precision / (2 * math.pi))
    )


def _count(widths, spacing):
    """Points of a grid of this spacing at most over the widest range, within reason."""
    widest = float(widths.max())
    return min(math.ceil(widest / spacing), _MOST_POINTS) + 2 if math.isfinite(widest) else 2


# The law of each kind of variable, in the order of these numbers.
BINARY, REAL, CATEGORY = range(3)
LAWS = (_binary, _real, _category)
