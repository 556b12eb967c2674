"""Dtypes of the columns of frames as text, which files of every kind can hold, and made again."""

import importlib
import json
from functools import cache
from typing import Any

import numpy as np

# What a dtype of polars may have besides its name.
_SETTINGS = ("time_unit", "time_zone", "precision", "scale")


def text_of(dtype) -> str:
    """A dtype of NumPy, pandas, polars or pyarrow as text; none of pandas' categories.

    Raises a TypeError for one of another library.
    """
    if isinstance(dtype, np.dtype):
        return json.dumps(["numpy", dtype.str])
    library = getattr(type(dtype), "__module__", "").partition(".")[0]
    if library == "pyarrow":
        return json.dumps(["pyarrow", _arrow_schema(dtype)])
    if library == "polars" or getattr(dtype, "__module__", "").startswith("polars"):
        settings = {n: getattr(dtype, n) for n in _SETTINGS if hasattr(dtype, n)}
        if hasattr(dtype, "categories") and str(dtype).startswith("Enum"):
            settings["categories"] = list(dtype.categories)
        return json.dumps(["polars", str(dtype).partition("(")[0], settings])
    if library == "pandas" and hasattr(dtype, "pyarrow_dtype"):
        return json.dumps(["pandas of pyarrow", _arrow_schema(dtype.pyarrow_dtype)])
    if library == "pandas" and hasattr(dtype, "fill_value"):
        value = dtype.fill_value
        value = value.item() if isinstance(value, np.generic) else value
        return json.dumps(["sparse", dtype.subtype.str, value])
    if library == "pandas" and hasattr(dtype, "na_value"):
        return json.dumps(["pandas", str(dtype)])
    raise TypeError(f"{dtype!r} is no dtype of NumPy, pandas, polars or pyarrow.")


@cache
def dtype_of(text: str) -> Any:
    """The dtype that `text_of` wrote.

    Raises a ValueError for text that names none.
    """
    library, *parts = json.loads(text)
    if library == "numpy":
        return np.dtype(str(parts[0]))
    if library in ("pyarrow", "pandas of pyarrow"):
        pyarrow = importlib.import_module("pyarrow")
        kind = pyarrow.ipc.read_schema(pyarrow.py_buffer(bytes.fromhex(parts[0]))).field(0).type
        return kind if library == "pyarrow" else importlib.import_module("pandas").ArrowDtype(kind)
    if library == "polars":
        polars = importlib.import_module("polars")
        kind = getattr(polars.datatypes, str(parts[0]), None)
        if not (isinstance(kind, type) and issubclass(kind, polars.DataType)):
            raise ValueError(f"{parts[0]!r} is no dtype of polars.")
        return kind(**parts[1])
    if library == "sparse":
        return importlib.import_module("pandas").SparseDtype(np.dtype(str(parts[0])), parts[1])
    if library != "pandas" or "dateutil" in parts[0]:
        raise ValueError(f"{text!r} is no dtype that is read: it may name a file of time zones.")
    return importlib.import_module("pandas").api.types.pandas_dtype(str(parts[0]))


def range_of(dtype) -> tuple[int, int] | None:
    """The least and the greatest number of a dtype of whole numbers; None for any other dtype."""
    kind = getattr(dtype, "subtype", dtype)  # of a sparse column
    name = str(getattr(kind, "numpy_dtype", kind)).lower()
    try:
        kind = np.dtype(name)
    except (TypeError, ValueError):
        return None
    return (np.iinfo(kind).min, np.iinfo(kind).max) if kind.kind in "iu" else None


def nearest(x: np.ndarray, dtype) -> np.ndarray:
    """Numbers as a dtype holds them, which are whole and in its range if its numbers are whole."""
    ends = range_of(dtype)
    x = np.asarray(x, dtype=np.float64)
    if ends is None:
        return x
    # The greatest whole number of 64 bits is none of a float.
    return np.clip(np.round(x), ends[0], np.nextafter(ends[1], 0) if ends[1] > 2**53 else ends[1])


def with_categories(dtype, values: list):
    """A dtype of categories of pandas, or an Enum of polars, with values that it may lack."""
    own = getattr(dtype, "categories", None)
    if own is None or not (hasattr(dtype, "ordered") or str(dtype).startswith("Enum")):
        return dtype
    own = own.tolist() if hasattr(own, "tolist") else list(own)
    if not (new := [value for value in values if value not in own]):
        return dtype
    ordered = {"ordered": dtype.ordered} if hasattr(dtype, "ordered") else {}
    return type(dtype)([*own, *new], **ordered)


def _arrow_schema(kind):
    pyarrow = importlib.import_module("pyarrow")
    return pyarrow.schema([pyarrow.field("", kind)]).serialize().to_pybytes().hex()
