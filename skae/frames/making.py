"""Data frames of pandas, polars and pyarrow, made of numbers and values.

Optional packages are imported where a frame of theirs is asked for.
"""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import numpy as np

from skae.frames.columns import MICROSECONDS, library_of
from skae.frames.dtypes import nearest


def make_frame(library: str, labels: list, columns: list, kinds: list, dtypes: list):
    """A frame of a library, of columns of numbers or values, with the dtypes that are asked for.

    ``kinds`` say what each holds, as that of `Cells` does.
    """
    parts = [
        (nearest(x, dtype) if holds == "numbers" and isinstance(x, np.ndarray) else x, holds, dtype)
        for x, holds, dtype in zip(columns, kinds, dtypes, strict=True)
    ]
    if library == "pandas":
        import pandas as pd

        series = {number: _to_pandas(*part) for number, part in enumerate(parts)}
        frame = pd.DataFrame(series)
        frame.columns = pd.Index(labels)
        return frame
    if library == "polars":
        import polars as pl

        return pl.DataFrame(
            [_to_polars(*part).alias(name) for name, part in zip(labels, parts, strict=True)]
        )
    import pyarrow as pa

    return pa.table(dict(zip(labels, (_to_arrow(*part) for part in parts), strict=True)))


def convert_frame(X, library: str):
    """A frame as one of another library, by the conversions of the libraries, which keep kinds."""
    own = library_of(X)
    if own == library:
        return X
    if library == "pandas":
        return X.to_pandas()
    if library == "polars":
        import polars as pl

        return pl.from_pandas(X) if own == "pandas" else pl.from_arrow(X)
    import pyarrow as pa

    return X.to_arrow() if own == "polars" else pa.Table.from_pandas(X, preserve_index=False)


def stack_rows(parts: list):
    """Tables of one kind, arrays or frames, as one: those of the first, then those of the next."""
    library = library_of(parts[0])
    if library == "pandas":
        import pandas as pd

        return pd.concat(parts, ignore_index=True)
    if library == "polars":
        import polars as pl

        return pl.concat(parts)
    if library == "pyarrow":
        import pyarrow as pa

        return pa.concat_tables(parts)
    return np.concatenate(parts)


def as_objects(values: np.ndarray, kind: str, decimals: int | None) -> list:
    """Numbers as Python's objects of a kind: "bool", "int", "Decimal" of so many decimals, or None
    for all; and days as "date", "datetime", "datetime of UTC" or "timedelta", or "Timestamp",
    "Timestamp of UTC" or "Timedelta" of pandas.
    """
    if kind.startswith("Time"):
        import pandas as pd

        make = pd.Timedelta if kind == "Timedelta" else pd.Timestamp
        own = kind.replace("Timestamp", "datetime").lower().replace("utc", "UTC")
        return list(map(make, as_objects(values, own, decimals)))
    if kind in ("bool", "int"):
        return [(bool if kind == "bool" else int)(x) for x in np.round(values).tolist()]
    if kind == "Decimal":
        form = repr if decimals is None else f"{{:.{decimals}f}}".format
        return [Decimal(form(x)) for x in values.tolist()]
    spans = [timedelta(microseconds=tick) for tick in _ticks(values).tolist()]
    if kind == "timedelta":
        return spans
    if kind == "date":
        return [date(1970, 1, 1) + span for span in spans]
    zone = UTC if kind == "datetime of UTC" else None
    return [datetime(1970, 1, 1, tzinfo=zone) + span for span in spans]


def as_times(days: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Days as dates or durations of NumPy; NaN is NaT."""
    return _ticks(days).view(f"{dtype.kind}8[us]").astype(dtype)


def _ticks(days):
    """Days as whole microseconds; NaN is NaT."""
    return np.where(np.isnan(days), np.iinfo(np.int64).min, np.round(days * MICROSECONDS)).astype(
        np.int64
    )


def _to_pandas(values, holds, dtype):
    import pandas as pd

    if isinstance(dtype, pd.ArrowDtype):
        array = _to_arrow(values, holds, dtype.pyarrow_dtype)
        return pd.Series(pd.array(array.to_pylist(), dtype=dtype))
    if isinstance(values, list) and dtype == np.dtype(object):
        return pd.Series(values, dtype=object)
    if holds == "dates":
        series = pd.Series(_ticks(values).view("M8[us]"))
        if isinstance(dtype, pd.DatetimeTZDtype):
            return series.dt.tz_localize("UTC").dt.tz_convert(dtype.tz).astype(dtype)
        if isinstance(dtype, pd.PeriodDtype):
            return series.dt.to_period(dtype.freq)
        return series.astype(dtype)
    if holds == "durations":
        return pd.Series(_ticks(values).view("m8[us]")).astype(dtype)
    if isinstance(dtype, pd.CategoricalDtype):
        return pd.Series(pd.Categorical(values, dtype=dtype))
    if isinstance(dtype, pd.SparseDtype):
        return pd.Series(values).astype(dtype)
    if isinstance(dtype, np.dtype) and dtype.kind in "iub" and np.isnan(values).any():
        return pd.Series(values)  # which was never observed
    return pd.Series(values).astype(dtype)


def _to_polars(values, holds, dtype):
    import polars as pl

    if holds == "dates":
        series = pl.Series(_ticks(values).view("M8[us]"))
        if getattr(dtype, "time_zone", None):
            series = series.dt.replace_time_zone("UTC").dt.convert_time_zone(dtype.time_zone)
        return series.cast(dtype)
    if holds == "durations" and dtype == pl.Time:
        return (pl.Series(_ticks(values).view("m8[us]")).to_physical() * 1000).cast(pl.Time)
    if holds == "durations":
        return pl.Series(_ticks(values).view("m8[us]")).cast(dtype)
    if isinstance(values, np.ndarray):
        return pl.Series(values, nan_to_null=True).cast(dtype, strict=False)
    return pl.Series(values, dtype=None if dtype == pl.Object else dtype)


def _to_arrow(values, holds, kind):
    import pyarrow as pa

    if pa.types.is_null(kind):
        return pa.nulls(len(values))
    if holds == "dates" and pa.types.is_timestamp(kind):
        return (
            pa.array(_ticks(values), mask=np.isnan(values))
            .cast(pa.timestamp("us", kind.tz))
            .cast(kind, safe=False)
        )
    if holds == "dates":
        return (
            pa.array(_ticks(values), mask=np.isnan(values))
            .cast(pa.timestamp("us"))
            .cast(kind, safe=False)
        )
    if holds == "durations" and pa.types.is_time(kind):
        return (
            pa.array(_ticks(values), mask=np.isnan(values))
            .cast(pa.time64("us"))
            .cast(kind, safe=False)
        )
    if holds == "durations":
        return (
            pa.array(_ticks(values), mask=np.isnan(values))
            .cast(pa.duration("us"))
            .cast(kind, safe=False)
        )
    if pa.types.is_dictionary(kind):
        codes = pa.array(values, kind.value_type).dictionary_encode()
        indices = codes.indices.cast(kind.index_type)
        return pa.DictionaryArray.from_arrays(indices, codes.dictionary, ordered=kind.ordered)
    if isinstance(values, np.ndarray):
        array = pa.array(values, from_pandas=True)
        if pa.types.is_boolean(kind):
            return array.cast(pa.int8()).cast(kind)
        return array.cast(kind, safe=False)
    return pa.array(values, kind)
