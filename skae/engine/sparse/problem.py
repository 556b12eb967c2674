r"""Sparse codes of a linear decoder: the convex problem, its duality gap, and who solves it.

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

`fista` solves any of them; `infer` chooses among all `SOLVERS`, and a row that one of them leaves
unsolved goes on by another. Codes without an optimum are in `skae.engine.sparse.greedy`.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch

from skae.engine.optimisation import compilation
from skae.engine.optimisation.parameters import Registry
from skae.engine.sparse.linear_maps import Dense, largest_eigenvalue, noise_like, squared_norm

# Solvers by name: each takes a quadratic and a penalty, ``tol``, ``max_iter`` and ``start``, and
# returns `SparseCodes`.
SOLVERS = Registry()
# Those that end at the optimum of `L1`, the faster one first.
EXACT_SOLVERS = ("feature_sign", "homotopy")
# Up to so many components, all eigenvalues take no longer than the largest one by its products.
_EXACT = 96
# Rows by which a method is chosen for all.
_PILOT_ROWS = 64
# Up to this part of the atoms active, paths are short enough to be the fastest way anywhere.
_SPARSE = 0.08
# What the calls of one step cost, in multiply-adds: many small ones, and a few.
_PATH_OVERHEAD, _STEP_OVERHEAD = 5_000_000, 500_000


class Quadratic(NamedTuple):
    """1/2 |y|^2 - b h + 1/2 h Q h for a batch of rows.

    ``gram`` is Q, shared by all rows; ``linear`` is b, of shape (n_samples, n_components);
    ``energy`` is 1/2 |y|^2, of shape (n_samples,): the value at h = 0.
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
    """The same with Q = D D^T + ridge I as synthesis, analysis and a sum: of a `Convolution` and
    its filters D.
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
    """What a solver returns: codes (n_samples, n_components), and for each row the ``objective``
    that was reached and by how much it exceeds the minimum at most, its ``gap``. ``n_iter`` counts
    the solver's sweeps, steps or rounds.
    """

    codes: torch.Tensor
    objective: torch.Tensor
    gap: torch.Tensor
    n_iter: int


@dataclass(frozen=True)
class L1:
    """The penalty alpha |h|_1, of non-negative codes if ``positive``.

    A penalty names its ``solver``, a key of `SOLVERS` that goes by steps and may begin anywhere,
    and tells whether `homotopy` follows its minimisers, ``has_paths``.
    """

    alpha: float
    positive: bool = False

    solver: ClassVar[str] = "fista"
    has_paths: ClassVar[bool] = True

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
    """The alpha from which on the sparse code of each row is zero, of shape (n_samples,).

    From the correlations x D^T and a penalty of any alpha: max |x D^T| for `L1`; for groups that
    overlap, a bound from above.
    """
    # s c is dual feasible up to s = alpha / (what is asked for): scaled so far that s is below 1.
    unit = correlation.abs().amax(1, keepdim=True)
    direction = correlation / unit.clamp(min=torch.finfo(correlation.dtype).tiny)
    scale = penalty.dual_scale(direction * (1e4 * penalty.alpha))
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
    """The problem of a dictionary (n_components, n_features) and rows (n_samples, n_features).

    The ``linear_map`` says how the dictionary decodes, if not as the matrix that it is: an
    `OperatorQuadratic` results for what is not `Dense`. ``gram`` is D D^T + ridge I where it is at
    hand already. An ``attractor`` of None is 0.
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
    """The value of each row's problem at a code, and its duality gap, of shape (n_samples,).

    With the residual rho = y - h D, |rho|^2 = |y|^2 - b h - c h and rho y = |y|^2 - b h. The dual
    point s rho has the value s rho y - s^2/2 |rho|^2. ``correlation`` is c = b - h Q, where it is
    at hand already.
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

    Beck & Teboulle 2009, with the gradient restart of O'Donoghue & Candes 2015, for each row by
    itself, until its gap is at most ``tol`` of its objective. One product with Q a step: the method
    for accelerators, for images, and for any penalty that is quick to ``shrink``. It begins at
    ``start``, or at 0; every ``n_between`` steps it looks at the gaps, and rows that are solved
    leave.
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


def infer(
    quadratic: Quadratic | OperatorQuadratic,
    penalty: Any,
    *,
    tol: float = 1e-4,
    max_iter: int = 1000,
    start: torch.Tensor | None = None,
    algorithm: str = "auto",
) -> SparseCodes:
    """Sparse codes of a batch of rows, until the gap of each is at most ``tol`` of its objective.

    ``algorithm`` is a key of `SOLVERS`, or "auto": what `choose_algorithm` says. A penalty without
    paths is always solved by its own solver. Rows that an exact solver, "feature_sign" or
    "homotopy", leaves unsolved go on by steps, and those that steps leave by an exact one.
    ``max_iter`` is for solvers that go by steps, which begin at ``start``, or at 0.
    """
    if algorithm == "auto":
        algorithm = choose_algorithm(quadratic, penalty, tol=tol, max_iter=max_iter)
    steps = partial(SOLVERS[penalty.solver], max_iter=max_iter)
    if algorithm not in EXACT_SOLVERS or not penalty.has_paths:
        result = steps(quadratic, penalty, tol=tol, start=start)
        if not (penalty.has_paths and isinstance(quadratic, Quadratic)):
            return result
        exact = SOLVERS[exact_solver(quadratic.linear.device)]
        return _complete(quadratic, penalty, result, tol, exact)
    exact = SOLVERS[algorithm]
    if start is None:
        result = exact(quadratic, penalty, tol=tol)
    else:
        result = SparseCodes(start.clone(), *objective_and_gap(quadratic, penalty, start), 0)
        result = _complete(quadratic, penalty, result, tol, exact)
    return _complete(quadratic, penalty, result, tol, steps)


def exact_solver(device: torch.device) -> str:
    """The faster of the exact solvers for `L1` that are there: "feature_sign" is compiled by numba,
    for the CPU.
    """
    is_compiled = device.type == "cpu" and compilation.is_compiled()
    return EXACT_SOLVERS[0 if is_compiled else 1]


def usable_algorithm(algorithm: str, device: torch.device) -> str:
    """An algorithm that was chosen elsewhere, or what stands in for it here: codes are the same."""
    return exact_solver(device) if algorithm == EXACT_SOLVERS[0] else algorithm


def ready_algorithm(penalty: Any, linear_map: Any, device: torch.device) -> str:
    """An algorithm that needs no pilot: the compiled search where it can be used, whose time
    depends little on the rows, else the penalty's own solver.
    """
    is_matrix = linear_map is None or isinstance(linear_map, Dense)
    can_search = penalty.has_paths and is_matrix and exact_solver(device) == EXACT_SOLVERS[0]
    return EXACT_SOLVERS[0] if can_search else penalty.solver


def choose_algorithm(
    quadratic: Quadratic | OperatorQuadratic,
    penalty: Any,
    *,
    n_rows: int | None = None,
    tol: float = 1e-4,
    max_iter: int = 1000,
) -> str:
    """The algorithm of `infer` for problems like this one.

    The penalty's own solver where it has no paths, and on accelerators. On a CPU that or the
    `exact_solver`, whichever needs less arithmetic for some of the rows. ``n_rows`` is how many
    the calls to come will have; None: so many that the fixed cost of a step is nothing.
    """
    if not penalty.has_paths or quadratic.linear.device.type != "cpu":
        return penalty.solver
    n_present, n_components = quadratic.linear.shape
    exact = exact_solver(quadratic.linear.device)
    pilot = quadratic.take(slice(None, None, max(1, n_present // _PILOT_ROWS)))
    result = SOLVERS[exact](pilot, penalty, tol=tol)
    n_active = (result.codes != 0).sum(1).double().mean().item() if n_present else 0.0
    # Multiply-adds of a row; those of elementwise passes counted as what they cost.
    overhead = 0 if n_rows is None else 1 / max(1, n_rows)
    by_step = n_components * (n_components + 100) + _STEP_OVERHEAD * overhead
    if exact == "homotopy":
        if n_rows is None and n_active <= _SPARSE * n_components:
            return exact
        by_exact = 10 * n_active * n_components + 150 * n_components + 60 * n_active**2
        by_exact = 1.3 * n_active * by_exact + result.n_iter * _PATH_OVERHEAD * overhead
    else:
        by_exact = 6 * result.n_iter * n_components * (n_active + 10) + 2 * n_active**3
    # No more steps than would still be worth it. One look at the gaps comes after ten of them.
    n_worth = int(by_exact / by_step)
    if n_worth < 10:
        return exact
    options = {"tol": tol, "max_iter": min(max_iter, n_worth + 1)}
    n_steps = SOLVERS[penalty.solver](pilot, penalty, **options).n_iter
    return exact if n_steps > n_worth else penalty.solver


def _complete(quadratic, penalty, result, tol, solve):
    """Rows that are not solved yet, solved by another method from where they are."""
    solved = is_solved(quadratic.energy, result.objective, result.gap, tol)
    rows = (~solved).nonzero().squeeze(1)
    if len(rows) == 0:
        return result
    start = result.codes[rows].nan_to_num(0.0, 0.0, 0.0)
    rest = solve(quadratic.take(rows), penalty, tol=tol, start=start)
    better = ~(rest.gap > result.gap[rows])
    for whole, part in zip(result[:3], rest[:3], strict=True):
        whole[rows[better]] = part[better]
    return result._replace(n_iter=result.n_iter + rest.n_iter)
