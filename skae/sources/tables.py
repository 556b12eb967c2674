"""Tables that are read by blocks: Parquet by its row groups, frames of dask by their partitions."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from skae.engine.optimisation.sources import Source

Function = Callable[[Any], np.ndarray]


class Tables:
    """A table of which one block of rows after the other is read, each a frame.

    - ``empty``: a frame of the same columns, without rows.
    - ``bounds``: block k has the rows from ``bounds[k]`` to ``bounds[k + 1]``.
    - ``read(number)``: the frame of a block, and ``length()``: how many rows there are by now.
    """

    ndim = 2

    def __init__(self, empty, bounds, read, length, what: str):
        self.empty, self.bounds, self.what = empty, np.asarray(bounds, dtype=np.int64), what
        self._read, self._length = read, length
        self.shape = int(self.bounds[-1]), empty.shape[1]

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, number: int) -> Any:
        """The frame of a block; a ValueError names the block that cannot be read."""
        try:
            return self._read(number)
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"In {self.place_of_block(number)}: {error}") from error

    def place_of_block(self, number: int) -> str:
        """Where a block is, for messages."""
        start, stop = self.bounds[number : number + 2]
        return f"block {number} of {self.what} (rows {start} to {stop - 1})"

    def whole(self) -> Any:
        """All rows as one frame."""
        frames = [self.read(number) for number in range(len(self.bounds) - 1)]
        if not frames:
            return self.empty
        if hasattr(self.empty, "iloc"):
            import pandas as pd

            return pd.concat(frames)
        import pyarrow as pa

        return pa.concat_tables(frames)

    def encoded(self, function: Function, n_columns: int, dtype, names=None) -> Source:
        """What a function makes of each frame, an array of numbers, as a source."""
        return _Encoded(self, function, n_columns, dtype, names)


class _Encoded(Source):
    def __init__(self, tables, function, n_columns, dtype, names):
        super().__init__(tables.bounds, n_columns, dtype, tables.what)
        self._tables, self._function, self.names = tables, function, names

    def _read(self, number):
        frame = self._tables.read(number)
        try:
            return self._function(frame)
        except (ValueError, TypeError) as error:
            where = self._tables.place_of_block(number)
            raise type(error)(f"In {where}: {error}") from error

    def _length(self):
        return self._tables._length()


def tables_of(X: Any, *, counts: bool = True) -> Tables | None:
    """The tables of a Parquet dataset or file, or of a frame of dask; None for anything else.

    Without ``counts``, nobody asks how many rows there are, and it has none.
    """
    if hasattr(X, "get_fragments") or (hasattr(X, "fragments") and hasattr(X, "schema")):
        return _of_fragments(X)
    if hasattr(X, "read_row_group") and hasattr(X, "schema_arrow"):
        return _of_row_groups(X)
    if hasattr(X, "map_partitions") and hasattr(X, "_meta") and hasattr(X, "partitions"):
        return _of_partitions(X, counts) if getattr(X, "ndim", 2) == 2 else None
    return None


def _of_fragments(X):
    """The row groups of the files of a dataset of pyarrow; of other formats, its files."""

    def fragments():
        return list(X.get_fragments() if hasattr(X, "get_fragments") else X.fragments)

    parts, lengths = [], []
    try:
        for fragment in fragments():
            if hasattr(fragment, "split_by_row_group"):
                parts += fragment.split_by_row_group()
                lengths += [group.num_rows for group in fragment.row_groups]
            else:
                parts.append(fragment)
                lengths.append(fragment.count_rows())
    except ValueError as error:
        raise ValueError(
            f"{error} skae reads datasets by their row groups: write what is left of it to files "
            "of its own, with pyarrow.dataset.write_dataset, and pass these."
        ) from error

    def length():
        return sum(fragment.count_rows() for fragment in fragments())

    return Tables(
        X.schema.empty_table(),
        np.cumsum([0, *lengths]),
        lambda number: _table_of(parts[number], X.schema),
        length,
        "the dataset of pyarrow",
    )


def _table_of(fragment, schema):
    """The rows of a fragment of a dataset.

    Where there are many columns, a scan costs a third more than its file. But it knows what a
    dataset has besides: columns that a file lacks or has in its name, keys of encrypted files.
    """
    if hasattr(fragment, "row_groups") and fragment.physical_schema.equals(schema):
        from pyarrow.dataset import ParquetFileFormat
        from pyarrow.parquet import ParquetFile

        if fragment.format == ParquetFileFormat():
            groups = [group.id for group in fragment.row_groups]
            with suppress(OSError, ValueError), fragment.open() as opened:  # the scan says why
                file = ParquetFile(opened, metadata=fragment.metadata, pre_buffer=True)
                return file.read_row_groups(groups)
    return fragment.to_table(schema=schema)


def _of_row_groups(X):
    """The row groups of one Parquet file."""
    groups = range(X.num_row_groups)
    lengths = [X.metadata.row_group(number).num_rows for number in groups]
    empty, total = X.schema_arrow.empty_table(), sum(lengths)
    bounds = np.cumsum([0, *lengths])
    return Tables(empty, bounds, X.read_row_group, lambda: total, "the Parquet file")


def _of_partitions(X, counts):
    """The partitions of a frame of dask, each of them one of pandas."""

    def lengths():
        return [int(n) for n in X.map_partitions(len).compute()] if counts else []

    bounds = np.cumsum([0, *lengths()])
    return Tables(
        X._meta,
        bounds,
        lambda number: X.partitions[number].compute(),
        lambda: sum(lengths()),
        "the frame of dask",
    )
