r"""Sparse codes of a linear decoder: the convex problem, its duality gap, and FISTA.

Given a dictionary D whose k rows are atoms, the code of a row x is

    h* = argmin_h  1/2 |x - h D|^2 + ridge/2 |h - a|^2 + penalty(h)

with, in the simplest case, no ridge and penalty alpha |h|_1 (the lasso). ridge > 0 and a = 0
is the elastic net; an attractor a is predictive sparse decomposition's encoder pulling at the
code. With y = (x, sqrt(ridge) a), Q = D D^T + ridge I and b = x D^T + ridge a, all of them are

    1/2 |y|^2 - b h + 1/2 h Q h + penalty(h)

so solvers see a `Quadratic` (Q, b, |y|^2) and a penalty, never D and x; where Q would be too
large a matrix, as for images, its products with codes by way of D. The gradient's
negative c = b - h Q, scaled until it is dual feasible, bounds from below what any code can
reach: the difference is the duality gap, by which every row's accuracy is known.
"""

import math
from typing import Any, NamedTuple

import torch

from skae.engine.optimisation.parameters import Registry
from skae.engine.sparse.linear_maps import Dense, largest_eigenvalue, noise_like, squared_norm

# Solvers by name: each takes a quadratic and a penalty, ``tol``, ``max_iter`` and ``start``, and
# returns `SparseCodes`.
SOLVERS = Registry()
# Up to so many components, all eigenvalues take no longer than the largest one by its products.
_EXACT = 96


class Quadratic(NamedTuple):
    """1/2 |y|^2 - b h + 1/2 h Q h for a batch of rows.

    Attributes
    ----------
    gram : Tensor of shape (n_components, n_components)
        Q, shared by all rows.
    linear : Tensor of shape (n_samples, n_components)
        b, one row each.
    energy : Tensor of shape (n_samples,)
        1/2 |y|^2: the value at h = 0.
    """

    gram: torch.Tensor
    linear: torch.Tensor
    energy: torch.Tensor

    def take(self, rows) -> Any:
        """The problem of some of the rows: a slice, a mask or an index."""
        return self._replace(linear=self.linear[rows], energy=self.energy[rows])

    def correlation(self, code: torch.Tensor) -> torch.Tensor:
        """The gradient's negative, b - h Q."""
        return torch.addmm(self.linear, code, self.gram, alpha=-1)

    def curvature(self) -> float:
        """The largest eigenvalue of Q, or a little less: see `largest_eigenvalue`."""
        # Entries of at most 1: squares of vectors neither overflow nor vanish.
        scale = float(self.gram.diagonal().amax())
        if not 0 < scale < math.inf:
            return scale
        if len(self.gram) <= _EXACT:
            return float(torch.linalg.eigvalsh(self.gram.cpu())[-1])
        start = noise_like(self.gram, len(self.gram))
        return scale * largest_eigenvalue(lambda v: self.gram.mv(v).div_(scale), start)


class OperatorQuadratic(NamedTuple):
    """The same with Q = D D^T + ridge I as synthesis, analysis and a sum.

    Attributes
    ----------
    linear_map : Convolution
    filters : Tensor of shape ``linear_map.filters_shape``
    ridge : float
    linear : Tensor of shape (n_samples, n_codes)
        b, one row each.
    energy : Tensor of shape (n_samples,)
        1/2 |y|^2: the value at h = 0.
    """

    linear_map: Any
    filters: torch.Tensor
    ridge: float
    linear: torch.Tensor
    energy: torch.Tensor

    def take(self, rows) -> Any:
        """The problem of some of the rows: a slice, a mask or an index."""
        return self._replace(linear=self.linear[rows], energy=self.energy[rows])

    def correlation(self, code: torch.Tensor) -> torch.Tensor:
        """The gradient's negative, b - h Q."""
        image = self.linear_map.synthesize(self.filters, code)
        # In place: memory for a batch of maps costs more to get than to fill.
        change = self.linear_map.analyze(self.filters, image)
        torch.sub(self.linear, change, out=change)
        return change.sub_(code, alpha=self.ridge) if self.ridge else change

    def curvature(self) -> float:
        """The largest eigenvalue of Q, or a little less: see `largest_eigenvalue`."""
        return squared_norm(self.linear_map, self.filters) + self.ridge


class SparseCodes(NamedTuple):
    """What a solver returns.

    Attributes
    ----------
    codes : Tensor of shape (n_samples, n_components)
    objective : Tensor of shape (n_samples,)
        The value that was reached.
    gap : Tensor of shape (n_samples,)
        What it exceeds the minimum by, at most.
    n_iter : int
        Sweeps, steps or rounds of the solver: what it counts.
    """

    codes: torch.Tensor
    objective: torch.Tensor
    gap: torch.Tensor
    n_iter: int


class L1(NamedTuple):
    """The penalty alpha |h|_1, of non-negative codes if ``positive``.

    A penalty names its ``solver``, a key of `SOLVERS` that goes by steps and may begin anywhere,
    and tells whether `homotopy` follows its minimisers, ``has_paths``.
    """

    alpha: float
    positive: bool = False

    @property
    def solver(self) -> str:
        """The method that goes by steps."""
        return "fista"

    @property
    def has_paths(self) -> bool:
        """Whether `homotopy` follows the minimisers."""
        return True

    def value(self, code: torch.Tensor) -> torch.Tensor:
        """The penalty of each row."""
        return self.alpha * code.abs().sum(1)

    def shrink(self, code: torch.Tensor, step: float) -> torch.Tensor:
        """argmin_h 1/2 |h - code|^2 + step * penalty(h)."""
        threshold = self.alpha * step
        if self.positive:
            return (code - threshold).clamp_(min=0)
        return torch.nn.functional.softshrink(code, threshold)

    def dual_scale(self, correlation: torch.Tensor) -> torch.Tensor:
        """The largest s of at most 1 for which s c is dual feasible: s |c_j| <= alpha."""
        largest = correlation.amax(1) if self.positive else correlation.abs().amax(1)
        return (self.alpha / largest.clamp(min=self.alpha)).clamp_(max=1)


def largest_useful_alpha(penalty: Any, correlation: torch.Tensor) -> torch.Tensor:
    """The alpha from which on the sparse code of each row is zero.

    Parameters
    ----------
    penalty : L1 or GroupL2
        Of any alpha.
    correlation : Tensor of shape (n_samples, n_components)
        x D^T.

    Returns
    -------
    alpha : Tensor of shape (n_samples,)
        max |x D^T| for `L1`; for groups that overlap, a bound from above.
    """
    # s c is dual feasible up to s = alpha / (what is asked for): scaled so far that s is below 1.
    unit = correlation.abs().amax(1, keepdim=True).clamp_(min=torch.finfo(correlation.dtype).tiny)
    scale = penalty.dual_scale(correlation * (1e4 * penalty.alpha / unit))
    return 1e-4 * unit.squeeze(1) / scale


def make_quadratic(
    dictionary: torch.Tensor,
    x: torch.Tensor,
    linear_map: Any = None,
    *,
    gram: torch.Tensor | None = None,
    ridge: float = 0.0,
    attractor: torch.Tensor | None = None,
) -> Quadratic | OperatorQuadratic:
    """The `Quadratic` of a dictionary and a batch of rows.

    Parameters
    ----------
    dictionary : Tensor of shape (n_components, n_features)
    x : Tensor of shape (n_samples, n_features)
    linear_map : Dense or Convolution, default=None
        How the dictionary decodes, if not as the matrix that it is. An `OperatorQuadratic`
        results for what is not `Dense`.
    gram : Tensor of shape (n_components, n_components), default=None
        dictionary @ dictionary.T + ridge I, where it is at hand already.
    ridge : float
    attractor : Tensor of shape (n_samples, n_components), default=None
        None is 0.

    Returns
    -------
    quadratic : Quadratic or OperatorQuadratic
    """
    if linear_map is None:
        linear_map = Dense(*dictionary.shape[::-1])
    linear = linear_map.analyze(dictionary, x)
    energy = 0.5 * (x * x).sum(1)
    if ridge and attractor is not None:
        linear.add_(attractor, alpha=ridge)
        energy.add_((attractor * attractor).sum(1), alpha=0.5 * ridge)
    if not isinstance(linear_map, Dense):
        return OperatorQuadratic(linear_map, dictionary, ridge, linear, energy)
    return Quadratic(gram_matrix(dictionary, ridge) if gram is None else gram, linear, energy)


def gram_matrix(dictionary: torch.Tensor, ridge: float = 0.0) -> torch.Tensor:
    """D D^T + ridge I."""
    gram = dictionary @ dictionary.t()
    gram.diagonal().add_(ridge)
    return gram


def objective_and_gap(
    quadratic: Quadratic | OperatorQuadratic,
    penalty: Any,
    code: torch.Tensor,
    correlation: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The value of each row's problem at a code, and its duality gap.

    Parameters
    ----------
    quadratic : Quadratic
    penalty : object with ``value`` and ``dual_scale``
    code : Tensor of shape (n_samples, n_components)
    correlation : Tensor of shape (n_samples, n_components), default=None
        b - h Q, where it is at hand already.

    Returns
    -------
    objective, gap : Tensor of shape (n_samples,)

    Notes
    -----
    With the residual rho = y - h D, |rho|^2 = |y|^2 - b h - c h and rho y = |y|^2 - b h. The
    dual point s rho has the value s rho y - s^2/2 |rho|^2.
    """
    if correlation is None:
        correlation = quadratic.correlation(code)
    return combine(
        quadratic.energy,
        (quadratic.linear * code).sum(1),
        (correlation * code).sum(1),
        penalty.value(code),
        penalty.dual_scale(correlation),
    )


def combine(
    energy: torch.Tensor,
    linear_part: torch.Tensor,
    correlation_part: torch.Tensor,
    cost: torch.Tensor,
    scale: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Objective and gap from b h, c h, the penalty's value and its dual scale, of each row."""
    square = 2 * energy - linear_part - correlation_part
    objective = 0.5 * square + cost
    dual = scale * (2 * energy - linear_part) - 0.5 * scale * scale * square
    return objective, (objective - dual).clamp_(min=0)


def is_solved(
    energy: torch.Tensor, objective: torch.Tensor, gap: torch.Tensor, tol: float
) -> torch.Tensor:
    """Whether a row's gap is at most ``tol`` of its objective, or below the rounding error."""
    rounding = 8 * torch.finfo(gap.dtype).eps
    return gap <= tol * objective + rounding * energy


@SOLVERS.register
def fista(
    quadratic: Quadratic | OperatorQuadratic,
    penalty: Any,
    *,
    tol: float = 1e-4,
    max_iter: int = 1000,
    start: torch.Tensor | None = None,
    n_between: int = 10,
) -> SparseCodes:
    """Sparse codes by accelerated proximal gradient steps that restart where they overshoot.

    Beck & Teboulle 2009, with the gradient restart of O'Donoghue & Candes 2015, for each row
    by itself. One product with Q a step: the method for accelerators, for images, and for
    any penalty that is quick to ``shrink``.

    Parameters
    ----------
    quadratic : Quadratic or OperatorQuadratic
    penalty : object with ``value``, ``shrink`` and ``dual_scale``
    tol : float
        Largest duality gap, as a part of the row's objective.
    max_iter : int
        Steps at most.
    start : Tensor of shape (n_samples, n_components), default=None
        None starts at 0.
    n_between : int
        Steps between two looks at the gap; rows that are solved leave.

    Returns
    -------
    result : SparseCodes
    """
    code = torch.zeros_like(quadratic.linear) if start is None else start.clone()
    correlation = quadratic.correlation(code)
    objective, gap = objective_and_gap(quadratic, penalty, code, correlation)
    result = SparseCodes(code, objective, gap, 0)
    open_rows = (~is_solved(quadratic.energy, objective, gap, tol)).nonzero().squeeze(1)
    curvature = quadratic.curvature() if len(open_rows) else math.nan
    if not math.isfinite(curvature):  # a dictionary that has exploded: nor are the objectives
        return result
    step = 1.0 / max(curvature, torch.finfo(code.dtype).tiny)
    part, current = quadratic.take(open_rows), code[open_rows]
    ahead, descent = current.clone(), correlation[open_rows]
    weight = torch.ones_like(current[:, :1])
    n_iter = 0
    while len(open_rows) and n_iter < max_iter:
        for _ in range(min(n_between, max_iter - n_iter)):
            if descent is None:
                descent = part.correlation(ahead)
            # In place where memory is free again: for maps of images it is dear.
            following = penalty.shrink(descent.mul_(step).add_(ahead), step)
            move = torch.sub(following, current, out=current)
            overshoots = ahead.sub_(following).mul_(move).sum(1, keepdim=True) > 0
            weight = weight.masked_fill(overshoots, 1.0)
            next_weight = 0.5 + (0.25 + weight * weight).sqrt_()
            torch.addcmul(following, (weight - 1).div_(next_weight), move, out=ahead)
            current, weight, descent = following, next_weight, None
            n_iter += 1
        objective, gap = objective_and_gap(part, penalty, current)
        result.codes[open_rows] = current
        result.objective[open_rows], result.gap[open_rows] = objective, gap
        keep = ~is_solved(part.energy, objective, gap, tol)
        if not keep.all():
            open_rows, part = open_rows[keep], part.take(keep)
            current, ahead, weight = current[keep], ahead[keep], weight[keep]
    return result._replace(n_iter=n_iter)
