"""The grid of a column: which numbers its entries are, so that samples are no others."""

from typing import Any

import numpy as np
from scipy import sparse

from skae.engine.optimisation.rows import block_bounds
from skae.frames.variables import decimals_of

# Values of a column up to which it is taken to have these and no others.
_FEW_VALUES = 64
# Entries that are looked at, and columns at most.
_ENTRIES, _MOST_COLUMNS = 2_000_000, 10_000


def grid_of(X) -> tuple:
    """For each column the values that it has, an array, if they are few; else how many decimals.

    None where they are any numbers, and where there are so many columns that it costs more than it
    is worth. Of rows spread over all of X.
    """
    if X.shape[1] > _MOST_COLUMNS:
        return (None,) * X.shape[1]
    rows = X[:: max(1, -(-X.shape[0] * X.shape[1] // _ENTRIES))]
    grid: list[Any] = []
    step = max(1, 100_000 // max(1, rows.shape[0]))
    for start in range(0, X.shape[1], step):
        part = rows[:, start : start + step]
        part = part.toarray() if sparse.issparse(part) else np.asarray(part)
        grid += _of_columns(np.sort(part, axis=0))
    return tuple(grid)


def _of_columns(values):
    """The grid of each column of sorted numbers; what is not finite stands at the ends."""
    finite = np.isfinite(values) if values.dtype.kind == "f" else np.ones(values.shape, dtype=bool)
    is_new = finite.copy()
    is_new[1:] &= values[1:] != values[:-1]
    n_values, n_entries = is_new.sum(axis=0), finite.sum(axis=0)
    are_few = (n_values <= _FEW_VALUES) & ((2 * n_values <= n_entries) | (n_values <= 2))
    grid: list[Any] = []
    for few, column, new in zip(are_few, values.T, is_new.T, strict=True):
        if few:
            grid.append(column[new].astype(np.float64))
        else:
            grid.append(decimals_of(column[new]) if column.dtype.kind == "f" else 0)
    return grid


def is_binary(grid) -> np.ndarray:
    """Which columns have no values but 0 and 1, of shape (n_features,)."""
    return np.array(
        [isinstance(one, np.ndarray) and bool(np.isin(one, (0, 1)).all()) for one in grid]
    )


def on_grid(values: np.ndarray, grid, minimum: np.ndarray, maximum: np.ndarray) -> np.ndarray:
    """Rows in the units of the data, in place: within each column's range and on its grid."""
    for start, stop in block_bounds(*values.shape):
        block = values[start:stop]
        np.clip(block, minimum, maximum, out=block)
        for number, one in enumerate(grid):
            if isinstance(one, np.ndarray):
                middle = 0.5 * (one[1:] + one[:-1])
                block[:, number] = one[np.searchsorted(middle, block[:, number])]
            elif one is not None:
                block[:, number] = np.round(block[:, number], one)
    return values
