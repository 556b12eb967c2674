"""Sparse codes by the method that suits the problem and the machine."""

from functools import partial

from skae.engine.group_codes import admm
from skae.engine.homotopy import homotopy
from skae.engine.sparse_codes import L1, Quadratic, SparseCodes, fista, is_solved, objective_and_gap

# Rows by which a method is chosen for all.
_PILOT_ROWS = 64
# Up to this part of the atoms active, paths are short enough to be the fastest way anywhere.
_SPARSE = 0.08
# What the calls of one step cost, in multiply-adds: many small ones, and a few.
_PATH_OVERHEAD, _FISTA_OVERHEAD = 5_000_000, 500_000


def infer(quadratic, penalty, *, tol=1e-4, max_iter=1000, start=None, algorithm="auto"):
    """Sparse codes of a batch of rows.

    Parameters
    ----------
    quadratic : Quadratic
    penalty : L1 or GroupL2
    tol : float
        Largest duality gap, as a part of the row's objective.
    max_iter : int
        Steps of "fista" and "admm", at most.
    start : Tensor of shape (n_samples, n_components), default=None
        Where those two begin. None is 0.
    algorithm : {"auto", "homotopy", "fista", "admm"}
        "auto" is what `choose_algorithm` says. Rows that one of "homotopy" and "fista" leaves
        unsolved go on by the other. Groups are always for "admm".

    Returns
    -------
    result : SparseCodes
    """
    if algorithm == "auto":
        algorithm = choose_algorithm(quadratic, penalty, tol=tol, max_iter=max_iter)
    steps = partial(fista if isinstance(penalty, L1) else admm, max_iter=max_iter)
    if algorithm != "homotopy":
        result = steps(quadratic, penalty, tol=tol, start=start)
        follows = isinstance(penalty, L1) and isinstance(quadratic, Quadratic)
        return _complete(quadratic, penalty, result, tol, homotopy) if follows else result
    if start is None:
        result = homotopy(quadratic, penalty, tol=tol)
    else:
        result = SparseCodes(start.clone(), *objective_and_gap(quadratic, penalty, start), 0)
        result = _complete(quadratic, penalty, result, tol, homotopy)
    return _complete(quadratic, penalty, result, tol, steps)


def choose_algorithm(quadratic, penalty, *, n_rows=None, tol=1e-4, max_iter=1000):
    """The algorithm of `infer` for problems like this one.

    "admm" for groups and "fista" on accelerators. On a CPU "homotopy" or "fista", whichever
    needs less arithmetic for some of the rows.

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
    if not isinstance(penalty, L1):
        return "admm"
    if quadratic.linear.device.type != "cpu":
        return "fista"
    n_present, n_components = quadratic.linear.shape
    pilot = quadratic.take(slice(None, None, max(1, n_present // _PILOT_ROWS)))
    paths = homotopy(pilot, penalty, tol=tol)
    n_active = (paths.codes != 0).sum(1).double().mean().item() if n_present else 0.0
    if n_rows is None and n_active <= _SPARSE * n_components:
        return "homotopy"
    n_steps = fista(pilot, penalty, tol=tol, max_iter=max_iter).n_iter
    # Multiply-adds of a row; those of elementwise passes counted as what they cost.
    by_path = 10 * n_active * n_components + 150 * n_components + 60 * n_active**2
    by_path = 1.3 * n_active * by_path
    by_fista = n_steps * n_components * (n_components + 100)
    if n_rows is not None:
        by_path += paths.n_iter * _PATH_OVERHEAD / max(1, n_rows)
        by_fista += n_steps * _FISTA_OVERHEAD / max(1, n_rows)
    return "homotopy" if by_path < by_fista else "fista"


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
