r"""Sparse codes by the method that suits the problem and the machine.

`infer` finds the optimum by one of the `SOLVERS`, whose answers carry their accuracy: a row that
one of them leaves unsolved goes on by another. `orthogonal_matching_pursuit` and `soft_threshold`
find codes without an optimum.
"""

import math
from functools import partial
from typing import Any

import torch

from skae.engine.sparse import groups, homotopy  # noqa: F401 - their solvers register themselves
from skae.engine.sparse.problem import (
    L1,
    SOLVERS,
    OperatorQuadratic,
    Quadratic,
    SparseCodes,
    is_solved,
    objective_and_gap,
)

# Rows by which a method is chosen for all.
_PILOT_ROWS = 64
# Up to this part of the atoms active, paths are short enough to be the fastest way anywhere.
_SPARSE = 0.08
# What the calls of one step cost, in multiply-adds: many small ones, and a few.
_PATH_OVERHEAD, _STEP_OVERHEAD = 5_000_000, 500_000


def infer(
    quadratic: Quadratic | OperatorQuadratic,
    penalty: Any,
    *,
    tol: float = 1e-4,
    max_iter: int = 1000,
    start: torch.Tensor | None = None,
    algorithm: str = "auto",
) -> SparseCodes:
    """Sparse codes of a batch of rows.

    Parameters
    ----------
    quadratic : Quadratic
    penalty : L1 or GroupL2
    tol : float
        Largest duality gap, as a part of the row's objective.
    max_iter : int
        Steps of "fista" and "admm", at most; paths end by themselves.
    start : Tensor of shape (n_samples, n_components), default=None
        Where those two begin. None is 0.
    algorithm : str
        A key of `SOLVERS`, or "auto", which is what `choose_algorithm` says. A penalty without
        paths is always solved by its own solver. Rows that one of "homotopy" and "fista" leaves
        unsolved go on by the other.

    Returns
    -------
    result : SparseCodes
    """
    if algorithm == "auto":
        algorithm = choose_algorithm(quadratic, penalty, tol=tol, max_iter=max_iter)
    steps = partial(SOLVERS[penalty.solver], max_iter=max_iter)
    paths = SOLVERS["homotopy"]
    if algorithm != "homotopy" or not penalty.has_paths:
        result = steps(quadratic, penalty, tol=tol, start=start)
        follows = penalty.has_paths and isinstance(quadratic, Quadratic)
        return _complete(quadratic, penalty, result, tol, paths) if follows else result
    if start is None:
        result = paths(quadratic, penalty, tol=tol)
    else:
        result = SparseCodes(start.clone(), *objective_and_gap(quadratic, penalty, start), 0)
        result = _complete(quadratic, penalty, result, tol, paths)
    return _complete(quadratic, penalty, result, tol, steps)


def choose_algorithm(
    quadratic: Quadratic | OperatorQuadratic,
    penalty: Any,
    *,
    n_rows: int | None = None,
    tol: float = 1e-4,
    max_iter: int = 1000,
) -> str:
    """The algorithm of `infer` for problems like this one.

    The penalty's own solver where it has no paths, and on accelerators. On a CPU that or
    "homotopy", whichever needs less arithmetic for some of the rows.

    Parameters
    ----------
    quadratic, penalty, tol, max_iter
        As `infer` takes them.
    n_rows : int, default=None
        Rows of the calls to come. None: so many that the fixed cost of a step is nothing.

    Returns
    -------
    algorithm : str
    """
    if not penalty.has_paths or quadratic.linear.device.type != "cpu":
        return penalty.solver
    n_present, n_components = quadratic.linear.shape
    pilot = quadratic.take(slice(None, None, max(1, n_present // _PILOT_ROWS)))
    paths = SOLVERS["homotopy"](pilot, penalty, tol=tol)
    n_active = (paths.codes != 0).sum(1).double().mean().item() if n_present else 0.0
    if n_rows is None and n_active <= _SPARSE * n_components:
        return "homotopy"
    n_steps = SOLVERS[penalty.solver](pilot, penalty, tol=tol, max_iter=max_iter).n_iter
    # Multiply-adds of a row; those of elementwise passes counted as what they cost.
    by_path = 10 * n_active * n_components + 150 * n_components + 60 * n_active**2
    by_path = 1.3 * n_active * by_path
    by_steps = n_steps * n_components * (n_components + 100)
    if n_rows is not None:
        by_path += paths.n_iter * _PATH_OVERHEAD / max(1, n_rows)
        by_steps += n_steps * _STEP_OVERHEAD / max(1, n_rows)
    return "homotopy" if by_path < by_steps else penalty.solver


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


ROWS_AT_ONCE = 1024  # their correlations stay in the cache


def soft_threshold(correlation: torch.Tensor, alpha: float, positive: bool = False) -> torch.Tensor:
    """sign(c) max(0, |c| - alpha), the encoder of Coates & Ng 2011 for c = x D^T.

    It is the lasso's code where atoms are orthonormal, and one step towards it elsewhere.
    With ``positive``, max(0, c - alpha).
    """
    return L1(alpha, positive).shrink(correlation, 1.0)


def orthogonal_matching_pursuit(
    quadratic: Quadratic, n_nonzero: int, *, tol: float | None = None
) -> torch.Tensor:
    """Codes of at most ``n_nonzero`` atoms, by orthogonal matching pursuit.

    Each step takes the atom j that is most correlated with the residual, by |c_j| / |d_j|,
    and fits all atoms taken by least squares (Pati, Rezaiifar & Krishnaprasad 1993; from
    correlations alone: Rubinstein, Zibulevsky & Elad 2008). Where atoms have norm 1 this is
    scikit-learn's `orthogonal_mp_gram`. Where I are the atoms taken so far, it keeps the upper
    triangular R with R R^T = (Q_II)^-1, which grows by a column with each atom: nothing is ever
    factorised anew, and all rows step together.

    Parameters
    ----------
    quadratic : Quadratic
        With a ridge, its atoms and rows are those of the augmented problem, y for x.
    n_nonzero : int
        Atoms of a row, at most.
    tol : float, default=None
        A row takes no further atom, not even its first, once the squared norm of its
        residual is at most ``tol``. None takes atoms for as long as they help.

    Returns
    -------
    codes : Tensor of shape (n_samples, n_components)

    Raises
    ------
    ValueError
        If ``n_nonzero`` is less than 1 or more than n_components, or ``tol`` is negative.

    Notes
    -----
    A row takes fewer atoms where the arithmetic can not tell the best of the others from a
    combination of those taken: zero atoms, and copies of atoms taken, never enter a code.
    """
    n_components = len(quadratic.gram)
    if not 1 <= n_nonzero <= n_components:
        raise ValueError(
            f"n_nonzero={n_nonzero!r} must be from 1 to n_components={n_components}: a code "
            "can not have more atoms than the dictionary."
        )
    if tol is not None and not tol >= 0:
        raise ValueError(
            f"tol={tol!r} is a squared norm: it must be at least 0, or None for no such limit."
        )
    # Atoms of norm 1 from here on; a zero atom stays one, and correlates with nothing.
    inverse_norm = quadratic.gram.diagonal().clamp(min=0).rsqrt()
    inverse_norm.masked_fill_(inverse_norm.isinf(), 0)
    gram = quadratic.gram * inverse_norm * inverse_norm.unsqueeze(1)
    codes = torch.zeros_like(quadratic.linear)
    for first in range(0, len(codes), ROWS_AT_ONCE):
        rows = slice(first, first + ROWS_AT_ONCE)
        part = Quadratic(gram, quadratic.linear[rows] * inverse_norm, quadratic.energy[rows])
        _pursue_(codes[rows], part, n_nonzero, -math.inf if tol is None else tol)
    return codes.mul_(inverse_norm)


def _pursue_(codes, quadratic, n_nonzero, tol):
    gram, correlation, residual = quadratic.gram, quadratic.linear, 2 * quadratic.energy
    rounding = 32 * torch.finfo(gram.dtype).eps
    least = rounding * residual.sqrt()
    # Rows are the last axis of all that is small: each operation runs along them.
    n_rows = len(correlation)
    atoms = torch.zeros(n_nonzero, n_rows, dtype=torch.long, device=gram.device)
    weights = correlation.new_zeros(n_nonzero, n_rows)
    root = correlation.new_zeros(n_nonzero, n_nonzero, n_rows)
    countdown = torch.arange(len(gram) - 1, -1, -1, device=gram.device).to(gram)
    for n in range(n_nonzero):
        size, atom = _first_largest(correlation, countdown)
        cross = torch.take(gram, atoms[:n] * len(gram) + atom)
        # The new atom's part within the span of those taken, and its weights on them.
        within = (root[:n, :n] * cross.unsqueeze(1)).sum(0)
        combination = (root[:n, :n] * within).sum(1)
        beyond = 1 - (within * within).sum(0)
        takes = (size > least) & (beyond > rounding) & (residual > tol)
        takes &= (atoms[:n] != atom).all(0)
        if not takes.any():
            break
        scale = torch.where(takes, beyond.rsqrt(), 0)
        here = correlation.gather(1, atom.unsqueeze(1)).squeeze(1) * scale
        residual = residual - here * here
        root[:n, n] = combination.mul_(-scale)
        root[n, n] = scale
        weights[: n + 1] += root[: n + 1, n] * here
        atoms[n] = atom
        explained = torch.nn.functional.embedding_bag(
            atoms[: n + 1].t(), gram, per_sample_weights=weights[: n + 1].t(), mode="sum"
        )
        correlation = torch.sub(quadratic.linear, explained, out=explained)
    codes.scatter_add_(1, atoms.t(), weights.t())


def _first_largest(correlation, countdown):
    """The largest |c_j| of each row and its first j; torch's ``max(1)`` takes thrice as long."""
    size = correlation.abs()
    largest = size.amax(1)
    is_largest = size.ge_(largest.unsqueeze(1))
    return largest, len(countdown) - 1 - is_largest.mul_(countdown).amax(1).long()
