"""Rows that are not in memory, recognised by what they can do, not by who made them."""

import math
from typing import Any

import numpy as np
from scipy import sparse

from skae.engine.optimisation import rows
from skae.engine.optimisation.sources import Sliced, Source
from skae.sources.tables import Tables, tables_of


def opened(X: Any) -> Any:
    """Rows as they are, if they are in memory; else a `Source`, or `Tables`, that reads them.

    What is small is read at once, and is an array or a frame then.
    """
    if isinstance(X, Source | Tables):
        return X
    tables = tables_of(X)
    if tables is not None:
        return tables.whole() if 8 * math.prod(tables.shape) <= rows.SMALL else tables
    if not is_sliced(X):
        return X
    if any(math.isnan(length) for length in X.shape):
        raise ValueError(
            f"{what_is(X)} does not know how many rows it has. Call its compute_chunk_sizes() "
            "first."
        )
    n_bytes = math.prod(X.shape) * X.dtype.itemsize
    if n_bytes <= rows.SMALL or X.dtype.kind not in "fiub":
        return np.asarray(X[:])
    return Sliced(X, what_is(X))


def found(X: Any, name: str, *, by_blocks: bool = False) -> Any:
    """The same for an estimator of such a name; a ValueError for rows that it cannot do with.

    With ``by_blocks``, those that are too many to be read at once will do.
    """
    if is_batches(X):
        raise ValueError(
            f"X is an iterable of batches, which is read once: {name} cannot do with it here. "
            "Transformers of this package take one in fit (for one pass), partial_fit, transform "
            "and score; else pass rows in memory, or what can be read again."
        )
    if hasattr(X, "collect") and not hasattr(X, "shape"):
        raise ValueError(
            f"X is {what_is(X)}, whose rows are not computed yet. Pass what X.collect() returns."
        )
    X = opened(X)
    if not isinstance(X, Source | Tables):
        return X
    n_rows, n_columns = X.shape
    if 0 in X.shape:
        of = "feature(s)" if n_rows else "sample(s)"
        raise ValueError(f"Found array with 0 {of} in {X.what} while a minimum of 1 is required.")
    if not by_blocks:
        raise ValueError(
            f"{name} needs all rows in memory at once here, but {X.what} has {n_rows} rows of "
            f"{n_columns} columns and would be read by blocks. Pass fewer rows, as an array or a "
            "data frame. Auto-encoders, Boltzmann machines, sparse coders and stacks of them are "
            "trained by blocks, and so they transform and score."
        )
    return X


def is_sliced(X: Any) -> bool:
    """Whether X has a shape of two axes, a dtype and slices of rows, and is no array in memory."""
    if isinstance(X, np.ndarray | np.generic) or sparse.issparse(X) or _is_frame(X):
        return False
    has_all = all(hasattr(X, name) for name in ("shape", "dtype", "__getitem__"))
    # Those who have no chunks and are no file are arrays of another library, or something else.
    is_stored = hasattr(X, "chunks") or not hasattr(X, "__array__")
    return has_all and is_stored and len(X.shape) == 2 and hasattr(X.dtype, "itemsize")


def _is_frame(X):
    return hasattr(X, "columns") or hasattr(X, "iloc") or hasattr(X, "schema")


def what_is(X: Any) -> str:
    """What something is, for messages: "the zarr Array"."""
    return f"the {type(X).__module__.partition('.')[0]} {type(X).__name__}"


def is_batches(X: Any) -> bool:
    """Whether X is an iterable of batches, such as a generator, which can be read once."""
    if isinstance(X, str | bytes | dict | set | list | tuple) or not hasattr(X, "__iter__"):
        return False
    is_array = any(hasattr(X, name) for name in ("shape", "__array__", "columns", "iloc"))
    return not is_array and not hasattr(X, "__getitem__") and tables_of(X) is None


def head_of(X: Any) -> Any:
    """A table without rows in the place of one that is not in memory; anything else as it is."""
    if isinstance(X, Tables):
        return X.empty
    if is_sliced(X):
        return np.empty((1, int(X.shape[1])))
    tables = tables_of(X, counts=False)
    return X if tables is None else tables.empty
