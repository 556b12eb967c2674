"""Rows of numbers as the frame that they came from: its library, its names and its dtypes."""

import importlib
import sys
from dataclasses import dataclass

import numpy as np

from skae.frames.columns import library_of, names_of
from skae.frames.dtypes import dtype_of, nearest, range_of, text_of
from skae.frames.making import convert_frame, make_frame


@dataclass(frozen=True)
class TableForm:
    """What a frame of numbers was like: fitted state of an estimator.

    - ``library``, ``labels``: whose frame it was, and the labels of its columns.
    - ``dtypes``: those of the columns, as `text_of` writes them.
    """

    library: str
    labels: tuple
    dtypes: tuple[str, ...]

    def frame(self, rows: np.ndarray, groups=()):
        """Rows of numbers as such a frame; where dtypes are whole, the nearest numbers they hold.

        ``groups`` are the columns of each one-hot variable, of which the most probable one is 1
        where dtypes are whole. What a dtype has no missing value for stays a number where rows have
        NaN.
        """
        dtypes = list(map(dtype_of, self.dtypes))
        for group in groups:
            if all(range_of(dtypes[column]) is not None for column in group):
                rows = rows.copy()
                rows[:, group] = np.arange(len(group)) == rows[:, group].argmax(axis=1)[:, None]
        are_alike = len(set(self.dtypes)) == 1 and isinstance(dtypes[0], np.dtype)
        if are_alike and (dtypes[0].kind == "f" or not np.isnan(rows).any()):  # made as a whole
            import pandas as pd

            rows = nearest(rows, dtypes[0]).astype(dtypes[0])
            return pd.DataFrame(rows, columns=pd.Index(self.labels))
        holds = ["numbers"] * len(dtypes)
        return make_frame(self.library, list(self.labels), list(rows.T), holds, dtypes)


def form_of(X) -> TableForm | None:
    """The form of a frame of numbers; None for an array, and for dtypes of other libraries."""
    library = library_of(X)
    if library is None:
        return None
    dtypes = X.schema.types if library == "pyarrow" else X.dtypes
    try:
        return TableForm(library, tuple(names_of(X)), tuple(text_of(dtype) for dtype in dtypes))
    except TypeError:
        return None


def as_frame(rows, library: str, names):
    """Rows, an array or a frame, as a frame of a library; an array gets the names."""
    if library_of(rows) is not None:
        return convert_frame(rows, library)
    columns = [x if x.dtype.kind != "O" else x.tolist() for x in np.asarray(rows).T]
    make = importlib.import_module(library)
    make = make.table if library == "pyarrow" else make.DataFrame
    return make(dict(zip(names, columns, strict=True)))


def with_index_of(rows, given):
    """A frame of pandas with the index of the frame of as many rows that it was made of."""
    pandas = sys.modules.get("pandas")
    if pandas is None or not isinstance(rows, pandas.DataFrame):
        return rows
    has_index = isinstance(given, pandas.DataFrame) and len(given) == len(rows)
    return rows.set_axis(given.index) if has_index else rows
