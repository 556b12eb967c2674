"""The grid of a column: which numbers its entries are, so that samples are no others."""

from typing import Any

import numpy as np
from scipy import sparse

from skae.engine.optimisation import processes
from skae.engine.optimisation.rows import every
from skae.engine.optimisation.sources import block_bounds
from skae.frames.variables import decimals_of, have_more_decimals

# Values of a column up to which it is taken to have these and no others.
_FEW_VALUES = 64
# Rows that tell which columns have more values than that.
_FIRST = 512
# Rows of which one look tells most columns that have any numbers.
_GLANCE = 32
# Entries that are looked at, and columns at most.
_ENTRIES, _MOST_COLUMNS = 2_000_000, 10_000


def grid_of(X) -> tuple:
    """For each column the values that it has, an array, if they are few; else how many decimals.

    None where they are any numbers, and where there are so many columns that it costs more than it
    is worth. Of rows spread over all of X, and of those of all processes of the fit.
    """
    if X.shape[1] > _MOST_COLUMNS:
        return (None,) * X.shape[1]
    step = max(1, -(-X.shape[0] * X.shape[1] // _ENTRIES))
    rows: Any = every(X, step)
    grid: list[Any] = []
    step = max(1, 100_000 // max(1, rows.shape[0]))
    for start in range(0, X.shape[1], step):
        part = rows[:, start : start + step]
        part = part.toarray() if sparse.issparse(part) else np.asarray(part)
        grid += _of_columns(part)
    grids = processes.current().gather(tuple(grid))
    return grids[0] if len(grids) == 1 else _merged(grids)


def _merged(grids):
    """The grid of each column, of those of some rows and of others."""
    merged = []
    for own in zip(*grids, strict=True):
        if all(isinstance(one, np.ndarray) for one in own):
            values = np.unique(np.concatenate(own))
            merged.append(values if len(values) <= _FEW_VALUES else _decimals(values, values))
            continue
        decimals = [_decimals(o, o) if isinstance(o, np.ndarray) else o for o in own]
        merged.append(None if None in decimals else max(decimals))
    return tuple(merged)


def _of_columns(values):
    """The grid of each column. What is sorted whole is only what has few values at first sight."""
    some = np.sort(values[:_FIRST], axis=0)
    are_many = _new_values(some).sum(axis=0) > _FEW_VALUES
    grid: list[Any] = [None] * values.shape[1]
    have_any = np.zeros(values.shape[1], dtype=bool)
    if values.dtype.kind == "f":
        size = np.fmax.reduce(np.abs(values), axis=0, initial=0.0)
        have_any = have_more_decimals(values[:_GLANCE], size)
    for number in np.flatnonzero(are_many & ~have_any):
        grid[number] = _decimals(values[:, number], some[:, number])
    rest = np.flatnonzero(~are_many)
    ordered = some[:, rest] if len(values) <= _FIRST else np.sort(values[:, rest], axis=0)
    is_new = _new_values(ordered)
    n_values, n_entries = is_new.sum(axis=0), _is_finite(ordered).sum(axis=0)
    are_few = (n_values <= _FEW_VALUES) & ((2 * n_values <= n_entries) | (n_values <= 2))
    for number, few, column, new in zip(rest, are_few, ordered.T, is_new.T, strict=True):
        column = column[new]
        if few:
            grid[number] = column.astype(np.float64)
        elif not have_any[number]:
            grid[number] = _decimals(column, column[:_FIRST])
    return grid


def _new_values(ordered):
    """Where each finite value of sorted columns stands first; what is not stands at the ends."""
    is_new = _is_finite(ordered)
    is_new[1:] &= ordered[1:] != ordered[:-1]
    return is_new


def _is_finite(values):
    is_real = values.dtype.kind == "f"
    return np.isfinite(values) if is_real else np.ones(values.shape, dtype=bool)


def _decimals(column, some):
    """Decimals of a column; if some of its values have too many for any, so has the column."""
    if column.dtype.kind != "f":
        return 0
    column, some = column[np.isfinite(column)], some[np.isfinite(some)]
    size = float(np.abs(column).max(initial=0.0))
    return None if decimals_of(some, size) is None else decimals_of(column)


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
