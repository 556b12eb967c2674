"""Tables with some of their cells filled, as their library has them."""

import numpy as np

from skae.engine.optimisation.rows import fits_float32
from skae.frames.columns import library_of, names_of, read_columns
from skae.frames.making import convert_frame


def gaps_of(X) -> np.ndarray:
    """Where cells of a table are missing, of its shape."""
    return np.column_stack([~cells.observed for cells in read_columns(X)])


def with_names_of_marks(names: np.ndarray, marked: np.ndarray) -> np.ndarray:
    """Names of columns, and of those that say where some of them had gaps.

    Raises a ValueError for one that is there already.
    """
    marks = ["missingindicator_" + name for name in marked]
    if twice := sorted(set(names) & set(marks)):
        raise ValueError(
            f"X has the column {twice[0]!r}, which is what add_indicator=True would add. Rename "
            "it, or set add_indicator=False."
        )
    return np.concatenate([names, marks])


def fill_cells(X, gaps: np.ndarray, values):
    """A copy of a frame or an array with cells of another one of its shape where ``gaps`` is True.

    Columns keep their dtypes; an array of numbers becomes one of floats.
    """
    library = library_of(X)
    if library is not None and library_of(values) is not None:
        values = convert_frame(values, library)
    if library is None:
        X = np.asarray(X)
        if np.asarray(values).dtype.kind == "O":
            X = X.astype(object)
        elif X.dtype.kind not in "fmM":
            X = X.astype(np.float32 if fits_float32(X.dtype) else np.float64)
        return np.where(gaps, values, X).astype(X.dtype, copy=False)
    columns = [
        _filled(library, X, values, number, missing) if missing.any() else None
        for number, missing in enumerate(gaps.T)
    ]
    changed = {number: column for number, column in enumerate(columns) if column is not None}
    if library == "pandas":
        X = X.copy()
        for number, column in changed.items():
            X.isetitem(number, column)
        return X
    for number, column in changed.items():
        if library == "polars":
            X = X.with_columns(column.alias(X.columns[number]))
        else:
            X = X.set_column(number, X.schema.names[number], column)
    return X


def select_columns(X, columns: np.ndarray):
    """Some of the columns of a frame or an array, by their places."""
    library = library_of(X)
    if library is None:
        return X[:, columns]
    if library == "pandas":
        return X.iloc[:, columns]
    return X.select([names_of(X)[column] for column in columns])


def append_marks(X, marks: np.ndarray, names):
    """A frame with more columns, of truth values, or an array with more columns of 0 and 1.

    ``names`` are those of all columns; the own labels of a frame stay if they are text.
    """
    library = library_of(X)
    if library is None:
        return np.hstack([X, marks.astype(X.dtype)])
    n_own = X.shape[1]
    named = dict(zip(names[n_own:], marks.T, strict=True))
    if library == "pandas":
        if not all(isinstance(label, str | tuple) for label in X.columns):
            X = X.set_axis(names[:n_own], axis=1)  # scikit-learn refuses numbers beside text
        return X.assign(**named)
    if library == "polars":
        import polars as pl

        return X.with_columns([pl.Series(name, mark) for name, mark in named.items()])
    for name, mark in named.items():
        X = X.append_column(name, [mark])
    return X


def _filled(library, X, values, number, missing):
    """One column, with the other frame's cells where it is missing."""
    if library == "pandas":
        import pandas as pd

        column = X.iloc[:, number]
        other = _column(values, number, pd.Series, lambda: values.iloc[:, number])
        dense = column.sparse.to_dense() if isinstance(column.dtype, pd.SparseDtype) else column
        return dense.where(~missing, other.set_axis(column.index)).astype(column.dtype)
    if library == "polars":
        import polars as pl

        column = X.to_series(number)
        other = _column(values, number, pl.Series, lambda: values.to_series(number))
        other = other.cast(column.dtype)
        return other.zip_with(pl.Series(missing), column)
    import pyarrow as pa

    column = X.column(number)
    other = _column(values, number, pa.array, lambda: values.column(number))
    pairs = zip(missing, column.to_pylist(), other.to_pylist(), strict=True)
    return pa.array([b if gap else a for gap, a, b in pairs]).cast(column.type)


def _column(values, number, make, of_frame):
    """A column of a frame; of an array, where the model was fitted to one, made a frame's."""
    return make(values[:, number].tolist()) if library_of(values) is None else of_frame()
