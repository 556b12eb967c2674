"""Tables with some of their cells filled, as their library has them."""

from dataclasses import replace
from importlib import import_module

import numpy as np

from skae.engine.optimisation.rows import fits_float32
from skae.frames.columns import library_of, names_of, read_columns
from skae.frames.dtypes import with_categories
from skae.frames.encoding import Encoding
from skae.frames.forms import as_frame


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


def fill_cells(X, gaps: np.ndarray, encoding: Encoding, rows: np.ndarray):
    """A copy of a frame or an array with what encoded rows say where ``gaps`` is True.

    Columns keep their dtypes, but for those without any value, which may have lost them, and
    categories that lack one which is filled in; an array of numbers becomes one of floats.
    """
    cells = list(read_columns(X))
    variables = [_like(v, own) for v, own in zip(encoding.variables, cells, strict=True)]
    own_library = library_of(X)
    if own_library is None:
        values = replace(encoding, variables=tuple(variables), library=None).decode(rows)
        return _filled_array(np.asarray(X), gaps, values)
    if own_library == "pandas":
        X = X.copy()
    with_gaps = np.flatnonzero(gaps.any(axis=0)).tolist()
    own = [number for number in with_gaps if _has_kind_of(cells[number], variables[number])]
    lost = [number for number in with_gaps if number not in own]
    for numbers, read, library in (
        (own, variables, own_library),
        (lost, encoding.variables, encoding.library),
    ):
        if not numbers:
            continue
        labels = [names_of(X)[number] for number in numbers]
        some = tuple(read[number] for number in numbers)
        part = replace(encoding, variables=some, library=library, labels=tuple(labels))
        others = as_frame(part.decode(rows), own_library, labels)
        for place, number in enumerate(numbers):
            dtype = some[place].dtype if read is variables else None
            X = _with_column(X, number, others, place, dtype, gaps[:, number])
    return X


def _like(variable, cells):
    """A variable that is decoded to what such cells are, and to 0 if it was never observed."""
    dtype = with_categories(cells.dtype, variable.options)
    objects = cells.objects
    if not objects and isinstance(dtype, np.dtype) and dtype.kind == "O":
        objects = {"dates": "datetime", "durations": "timedelta"}.get(variable.holds, "")
    center = 0.0 if variable.is_empty else variable.center
    return replace(variable, dtype=dtype, objects=objects, center=center)


def _has_kind_of(cells, variable):
    """Whether cells have the kind of a variable: of a column without values, by its dtype."""
    if cells.observed.any():
        return True
    kinds = {"booleans": "numbers", "categories": "texts"}
    has = [kinds.get(holds, holds) for holds in (cells.holds, variable.holds)]
    return has[0] == has[1] and str(cells.dtype).lower() != "null"


def _filled_array(X, gaps, values):
    if values.dtype.kind == "O":
        X = X.astype(object)
    elif X.dtype.kind not in "fmM":
        X = X.astype(np.float32 if fits_float32(X.dtype) else np.float64)
    return np.where(gaps, values, X).astype(X.dtype, copy=False)


def _with_column(X, number, others, place, dtype, missing):
    """A frame with a column of another frame's, at some place, where its own is missing.

    ``dtype`` is what the column has then; None: all of it is missing.
    """
    library = library_of(X)
    if library == "pandas":
        new = others.iloc[:, place].set_axis(X.index)
        if dtype is not None:
            old = X.iloc[:, number]
            dense = old.sparse.to_dense() if hasattr(dtype, "fill_value") else old.astype(dtype)
            new = dense.where(~missing, new).astype(dtype)
        X.isetitem(number, new)
        return X
    if library == "polars":
        import polars as pl

        new = others.to_series(place)
        if dtype is not None:
            new = new.zip_with(pl.Series(missing), X.to_series(number).cast(dtype))
        return X.with_columns(new.alias(X.columns[number]))
    import pyarrow as pa

    new, old = others.column(place), X.column(number)
    if pa.types.is_dictionary(old.type):
        pairs = zip(missing, old.to_pylist(), new.to_pylist(), strict=True)
        new = pa.array([b if gap else a for gap, a, b in pairs]).cast(old.type)
    elif dtype is not None:
        new = import_module("pyarrow.compute").if_else(pa.array(missing), new, old)
    return X.set_column(number, X.schema.names[number], new)


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
