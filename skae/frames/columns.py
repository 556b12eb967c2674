"""Columns of the data frames of pandas, polars and pyarrow, read as numbers or values.

Optional packages are imported where a frame of theirs has come in.
"""

import sys
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from numbers import Integral, Number
from typing import Any, NamedTuple

import numpy as np

# Of a unit of time, how many make a day.
_PER_DAY = {"s": 86400, "ms": 86400 * 10**3, "us": 86400 * 10**6, "ns": 86400 * 10**9}
MICROSECONDS = _PER_DAY["us"]
_MISSING = {"NAType", "NaTType", "NoneType"}


class Cells(NamedTuple):
    """A column, read: either ``numbers``, or ``codes`` that number distinct ``values``.

    ``holds`` says what: "numbers", "booleans" (0 and 1), "dates" and "durations" (in days), "texts"
    or "categories". Missing cells are NaN among numbers, and -1 among codes. ``dtype`` is the
    frame's.
    """

    holds: str
    dtype: Any
    numbers: np.ndarray | None = None
    codes: np.ndarray | None = None
    values: Sequence = ()
    objects: str = ""

    @property
    def observed(self) -> np.ndarray:
        """Which rows have a value, of shape (n_samples,)."""
        return self.codes >= 0 if self.codes is not None else ~np.isnan(self._numbers)

    @property
    def _numbers(self) -> np.ndarray:
        return np.asarray(self.numbers, dtype=np.float64)

    def as_values(self) -> "Cells":
        """The same as codes of distinct values."""
        if self.codes is not None:
            return self
        known = self.observed
        values, inverse = np.unique(self._numbers[known], return_inverse=True)
        codes = np.full(len(known), -1)
        codes[known] = inverse
        whole = (values == np.floor(values)).all()
        if self.holds == "booleans":
            values = values.astype(bool)
        elif whole and np.abs(values).max(initial=0) < 2**53:
            values = values.astype(np.int64)
        return self._replace(numbers=None, codes=codes, values=values.tolist())

    def taken(self, rows: np.ndarray) -> "Cells":
        """Those of some rows."""
        numbers, codes = (None if x is None else x[rows] for x in (self.numbers, self.codes))
        return self._replace(numbers=numbers, codes=codes)

    def over(self, column):
        """An array of numbers, or a list of values, with these cells where they are observed."""
        if isinstance(column, np.ndarray) and self.numbers is not None:
            return np.where(self.observed, self.numbers, column)
        own = self.as_values()
        pairs = zip(own.codes.tolist(), column, strict=True)
        found = [value if code < 0 else own.values[code] for code, value in pairs]
        return np.array(found, dtype=np.float64) if isinstance(column, np.ndarray) else found


def library_of(X) -> str | None:
    """Whose data frame X is: "pandas", "polars", "pyarrow", or None if it is none."""
    if hasattr(X, "iloc") and hasattr(X, "dtypes") and np.ndim(X) == 2:
        return "pandas"
    origin = type(X).__module__.partition(".")[0]
    if origin == "polars" and hasattr(X, "get_column_index") and hasattr(X, "dtypes"):
        return "polars"
    return "pyarrow" if origin == "pyarrow" and hasattr(X, "schema") else None


def names_of(X) -> list:
    """The labels of the columns of a frame, as they are."""
    return list(X.schema.names if library_of(X) == "pyarrow" else X.columns)


def is_plain(X) -> bool:
    """Whether all columns of a frame have dtypes of real numbers, which arrays have as well."""
    library = library_of(X)
    if library == "pandas":
        return all(isinstance(t, np.dtype) and t.kind in "iuf" for t in X.dtypes)
    if library == "polars":
        return all(t.is_numeric() and not t.is_decimal() for t in X.dtypes)
    return False


def read_columns(X):
    """The `Cells` of every column of a frame, or of an array, one after the other.

    Raises a ValueError, or a TypeError for cells that are containers, that names the column.
    """
    library, labels = library_of(X), None
    if library is not None:
        labels = names_of(X)
    for number in range(X.shape[1]):
        label = number if labels is None else labels[number]
        try:
            if library == "pandas":
                yield _of_pandas(X.iloc[:, number])
            elif library == "polars":
                yield _of_polars(X.to_series(number))
            elif library == "pyarrow":
                yield _of_arrow(X.column(number))
            else:
                yield _of_array(X[:, number])
        except (ValueError, TypeError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"Column {label!r} of X {error}") from error


_CONVERT = "Convert it to numbers, text or categories, or drop it."


def _refuse(what, kind: type[Exception] = ValueError):
    raise kind(f"holds {what}. {_CONVERT}")


def _of_array(column):
    if column.dtype.kind == "O":
        return _of_objects(column, column.dtype)
    if column.dtype.kind in "US":
        return _of_texts(column.astype(object), column.dtype)
    if column.dtype.kind in "mM":
        return _of_times(column, column.dtype)
    if column.dtype.kind == "c":
        _refuse("complex numbers")
    holds = "booleans" if column.dtype.kind == "b" else "numbers"
    return Cells(holds, column.dtype, column.astype(np.float64))


def _of_times(values, dtype):
    """Dates or durations of NumPy, in days since 1970 or as a part of them."""
    unit = np.datetime_data(values.dtype)[0]
    if unit not in _PER_DAY:
        unit = "s"
        values = values.astype(f"{values.dtype.kind}8[s]")
    days = values.astype(np.int64) / _PER_DAY[unit]
    days[np.isnat(values)] = np.nan
    return Cells("dates" if values.dtype.kind == "M" else "durations", dtype, days)


def _of_pandas(series):
    import pandas as pd

    dtype = series.dtype
    if isinstance(dtype, pd.ArrowDtype):
        import pyarrow as pa

        cells = _of_arrow(pa.chunked_array(_chunks(pa.array(series.array)), dtype.pyarrow_dtype))
        return cells._replace(dtype=dtype)
    if isinstance(dtype, pd.CategoricalDtype):
        codes = series.cat.codes.to_numpy().astype(np.int64)
        return _values_of(dtype.categories.tolist(), codes, dtype, "categories")
    if isinstance(dtype, pd.StringDtype):
        return _factorized(series, dtype)
    if isinstance(dtype, pd.PeriodDtype):
        return _of_pandas(series.dt.to_timestamp())._replace(dtype=dtype)
    if isinstance(dtype, pd.SparseDtype):
        return _of_array(np.asarray(series))._replace(dtype=dtype)
    if isinstance(dtype, pd.DatetimeTZDtype):
        return _of_times(series.dt.tz_convert(None).to_numpy(), dtype)
    if isinstance(dtype, np.dtype):
        return _of_array(series.to_numpy())
    if dtype.kind not in "iufb":
        _refuse(f"values of dtype {dtype}")
    numbers = series.to_numpy(dtype=np.float64, na_value=np.nan)
    return Cells("booleans" if dtype.kind == "b" else "numbers", dtype, numbers)


def _chunks(array):
    return array.chunks if hasattr(array, "chunks") else [array]


def _factorized(series, dtype):
    codes, values = series.factorize()
    return Cells("texts", dtype, codes=codes.astype(np.int64), values=values.tolist())


def _values_of(values, codes, dtype, holds):
    if any(isinstance(value, list | dict | set | np.ndarray) for value in values):
        _refuse("containers", TypeError)
    return Cells(holds, dtype, codes=codes, values=values)


def _of_polars(series):
    import polars as pl

    dtype = series.dtype
    if dtype in (pl.String, pl.Categorical, pl.Enum):
        text = series.cast(pl.String)
        # Ranks of the texts are the places of the distinct ones in their order.
        codes = text.rank("dense").cast(pl.Int64).fill_null(0).to_numpy() - 1
        values = text.drop_nulls().unique().sort().to_list()
        holds = "texts" if dtype == pl.String else "categories"
        return Cells(holds, dtype, codes=codes, values=values)
    if dtype == pl.Object:
        return _of_objects(np.array(series.to_list(), dtype=object), dtype)
    if dtype in (pl.Date, pl.Datetime, pl.Duration, pl.Time):
        whole = series.to_physical().cast(pl.Float64).to_numpy()
        per_day = 1 if dtype == pl.Date else _PER_DAY[getattr(dtype, "time_unit", None) or "ns"]
        holds = "dates" if dtype in (pl.Date, pl.Datetime) else "durations"
        return Cells(holds, dtype, whole / per_day)
    if not (dtype.is_numeric() or dtype in (pl.Boolean, pl.Null)):
        _refuse(f"values of type {dtype}", TypeError if dtype.is_nested() else ValueError)
    holds = "booleans" if dtype == pl.Boolean else "numbers"
    return Cells(holds, dtype, series.cast(pl.Float64).to_numpy().astype(np.float64))


def _of_arrow(column):
    import pyarrow as pa

    kind = column.type
    if not hasattr(column, "chunks"):  # of a batch
        column = pa.chunked_array([column])
    if str(kind) == "string_view":
        return _of_arrow(column.cast(pa.large_string()))._replace(dtype=kind)
    if pa.types.is_dictionary(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
        holds = "categories" if pa.types.is_dictionary(kind) else "texts"
        encoded = column if holds == "categories" else column.dictionary_encode()
        encoded = encoded.unify_dictionaries().combine_chunks()
        if hasattr(encoded, "chunks"):  # of pyarrow's earlier releases, or without rows
            encoded = encoded.chunk(0)
        codes = encoded.indices.cast(pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False)
        return _values_of(encoded.dictionary.to_pylist(), codes, kind, holds)
    if pa.types.is_boolean(kind):
        return Cells("booleans", kind, _floats(column.cast(pa.int8())))
    if pa.types.is_timestamp(kind) or pa.types.is_duration(kind) or pa.types.is_time(kind):
        holds = "dates" if pa.types.is_timestamp(kind) else "durations"
        whole = column.cast(pa.int32() if pa.types.is_time32(kind) else pa.int64())
        return Cells(holds, kind, _floats(whole) / _PER_DAY[kind.unit])
    if pa.types.is_date(kind):
        return Cells("dates", kind, _floats(column.cast(pa.date32()).cast(pa.int32())))
    if not (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_null(kind)
    ):
        _refuse(f"values of type {kind}", TypeError if pa.types.is_nested(kind) else ValueError)
    return Cells("numbers", kind, _floats(column))


def _floats(column):
    import pyarrow as pa

    return column.cast(pa.float64(), safe=False).to_numpy().astype(np.float64)


def _of_objects(column, dtype):
    """Cells of Python's objects: all of one kind, or missing."""
    missing = _is_missing(column)
    known = column[~missing]
    types = set(map(type, known))
    numbers = np.full(len(column), np.nan)
    if not types:
        return Cells("numbers", dtype, numbers)
    if all(issubclass(t, str) for t in types):
        return _of_texts(column, dtype, missing)
    if all(issubclass(t, bool | np.bool_) for t in types):
        numbers[~missing] = known.astype(bool)
        return Cells("booleans", dtype, numbers, objects="bool")
    if any(issubclass(t, complex | np.complexfloating) for t in types):
        _refuse("complex numbers")
    if all(issubclass(t, Number | Decimal | np.bool_) for t in types):
        try:
            numbers[~missing] = known.astype(np.float64)
        except OverflowError:
            _refuse("whole numbers of more than 308 digits")
        are_whole = all(issubclass(t, Integral) and t is not bool for t in types)
        objects = "int" if are_whole else "Decimal" if types == {Decimal} else ""
        return Cells("numbers", dtype, numbers, objects=objects)
    if all(issubclass(t, datetime | date | np.datetime64) for t in types):
        numbers[~missing] = [_days(moment) for moment in known]
        objects = "Timestamp" if _are_of_pandas(types) else "datetime"
        if any(getattr(moment, "tzinfo", None) is not None for moment in known):
            objects += " of UTC"
        return Cells("dates", dtype, numbers, objects="date" if types == {date} else objects)
    if all(issubclass(t, timedelta | np.timedelta64) for t in types):
        numbers[~missing] = [np.timedelta64(d) / np.timedelta64(1, "D") for d in known]
        objects = "Timedelta" if _are_of_pandas(types) else "timedelta"
        return Cells("durations", dtype, numbers, objects=objects)
    names = " and ".join(sorted(t.__name__ for t in types)[:3])
    if len(types) > 1 and all(issubclass(t, str | Number) for t in types):
        raise ValueError(
            f"mixes text and numbers ({names}). Make it one of them: astype(str), or "
            "pd.to_numeric(..., errors='coerce')."
        )
    # The words that scikit-learn expects of a TypeError.
    containers = any(issubclass(t, list | dict | set | tuple | np.ndarray) for t in types)
    if containers:
        raise TypeError(
            f"holds {names}: the argument must be a string or a number, for example. {_CONVERT}"
        )
    return _refuse(names)


def _are_of_pandas(types):
    return all(t.__module__.partition(".")[0] == "pandas" for t in types)


def _is_missing(column):
    pandas = sys.modules.get("pandas")
    if pandas is not None:
        return np.asarray(pandas.isna(column), dtype=bool)
    return np.array([type(v).__name__ in _MISSING or _is_nan(v) for v in column], dtype=bool)


def _is_nan(value):
    return isinstance(value, float | np.floating | Decimal) and value != value


def _days(moment):
    if isinstance(moment, datetime) and moment.tzinfo is not None:
        return moment.timestamp() / 86400
    return np.datetime64(moment, "us").astype(np.int64) / MICROSECONDS


def _of_texts(column, dtype, missing=None):
    missing = np.zeros(len(column), dtype=bool) if missing is None else missing
    pandas = sys.modules.get("pandas")
    if pandas is not None:
        codes, values = pandas.factorize(column)
        return Cells("texts", dtype, codes=codes.astype(np.int64), values=list(values))
    number: dict = {}
    codes = np.array(
        [
            -1 if m else number.setdefault(v, len(number))
            for v, m in zip(column, missing, strict=True)
        ]
    )
    return Cells("texts", dtype, codes=codes, values=list(number))
