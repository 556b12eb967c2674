r"""Exact lasso codes by a search for the signs of the active atoms, compiled for the CPU.

Lee, Battle, Raina & Ng 2006. With a set A of active atoms and their signs s, the minimum of
1/2 |y|^2 - b h + 1/2 h Q h + alpha |h|_1 solves linear equations, Q_AA h_A = b_A - alpha s. A round
lets those atoms in whose correlations b - h Q exceed alpha most, several at once, and walks to the
minimum for the new set. Where a code would change its sign on the way, its atom leaves, and the
walk goes on. Every round lowers the objective, and no set comes twice: the end is the optimum. A
path of `homotopy` has a step for each atom, the search some ten rounds in all.

Rows go one by one, by the functions of `skae.engine.sparse.active_sets`, which numba compiles: the
extra ``fast``. Blocks of them are shared between as many threads as torch has; a code does not
depend on how many these are.
"""

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from skae.engine.optimisation import compilation
from skae.engine.sparse.problem import L1, SOLVERS, Quadratic, SparseCodes

# Rows of a block, after which an interruption is heard: at least and at most.
_FEWEST_ROWS, _MOST_ROWS = 32, 256
# Blocks for each thread, so that none of them ends long before the others.
_BLOCKS_PER_THREAD = 4
# What is left of an atom's squared norm beside the active ones, where it depends on them: what
# rounding of the dictionary's products leaves.
_DEPENDENT = {torch.float32: 1e-6, torch.float64: 1e-12}


@SOLVERS.register
def feature_sign(
    quadratic: Quadratic,
    penalty: L1,
    *,
    tol: float = 1e-4,
    max_iter: int | None = None,
    start: torch.Tensor | None = None,
) -> SparseCodes:
    """Lasso codes by a search for active atoms and signs: exact but for rounding, on the CPU.

    ``max_iter`` rounds at most; None: twice as many as there are components, and 20. ``tol`` and
    ``start`` are ignored: from 0, atoms enter that are active in the end, while those of a start
    would have to leave. Raises an ImportError where numba is missing.
    """
    if not compilation.is_compiled():
        raise ImportError(
            "The solver 'feature_sign' is compiled by numba, which is missing: "
            'pip install "skae[fast]". Without it, "homotopy" finds the same codes.'
        )
    from skae.engine.sparse.active_sets import code_rows

    gram, linear, energy = (part.detach().contiguous() for part in quadratic)
    n_rows, n_components = linear.shape
    codes = torch.zeros_like(linear)
    objective, gap = torch.empty_like(energy), torch.empty_like(energy)
    max_iter = 2 * n_components + 20 if max_iter is None else max_iter
    arrays = [part.numpy() for part in (gram, linear, energy, codes, objective, gap)]
    options = float(penalty.alpha), bool(penalty.positive), _DEPENDENT[gram.dtype], int(max_iter)

    def solve(block):
        gram, linear, energy, codes, objective, gap = arrays
        of_rows = linear[block], energy[block]
        return code_rows(gram, *of_rows, *options, codes[block], objective[block], gap[block])

    n_threads = torch.get_num_threads()
    size = math.ceil(n_rows / (_BLOCKS_PER_THREAD * n_threads))
    size = min(max(size, _FEWEST_ROWS), _MOST_ROWS)
    blocks = [slice(first, first + size) for first in range(0, n_rows, size)]
    n_rounds = _on_threads(solve, blocks, n_threads)
    return SparseCodes(codes, objective, gap, max(n_rounds, default=0))


def _on_threads(function, blocks, n_threads) -> list[Any]:
    """The function of each block; after an interruption, no further block is begun."""
    n_threads = min(n_threads, len(blocks))
    if n_threads <= 1:
        return [function(block) for block in blocks]
    with ThreadPoolExecutor(n_threads) as executor:
        results = [executor.submit(function, block) for block in blocks]
        try:
            return [result.result() for result in results]
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            raise
