"""Rows that are somewhere else, in files or on other machines, and are read by blocks.

A `Source` knows how many rows and columns it has, of which dtype, and where its blocks begin. A
subclass reads one block at a time; everything else, the reading ahead, the checks and the rows
picked out, is here. Nothing is imported for any kind of file: what has a shape, a dtype and slices
of rows is a source, whoever made it.
"""

import mmap
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

A = TypeVar("A")
B = TypeVar("B")
# Bytes that are read at once, where no chunks say it: some sixteen such blocks are a window.
_READ = 4 * 2**20
# Dense bytes of one block of rows, where all rows are visited in order.
_BLOCK = 16 * 2**20
# Blocks that are read ahead, where all are visited in order.
_AHEAD = 2
# Entries of the rows that are kept of the first pass, spread over all.
_KEPT_ENTRIES = 2_000_000


class Source:
    """Rows, of shape (n_rows, n_columns), that are read by blocks.

    - ``shape``, ``dtype``, ``ndim``, ``len()``: as those of an array.
    - ``bounds``, an array: block k has the rows from ``bounds[k]`` to ``bounds[k + 1]``.
    - ``what``: what it is, for messages; ``names``: those of the columns, or None.

    A subclass has ``_read(number)``, which returns one block as an array, and ``_length()``, how
    many rows there are by now.
    """

    ndim = 2
    names: Any = None

    def __init__(self, bounds, n_columns: int, dtype, what: str):
        self.bounds = np.asarray(bounds, dtype=np.int64)
        self.shape = (int(self.bounds[-1]), int(n_columns))
        self.dtype, self.what = np.dtype(dtype), what
        # What a complete pass has told, statistics of the columns among it.
        self.summary: Any = None
        self._spread: np.ndarray | None = None
        # What each block is asked for besides, by who trusts no block that it has not seen.
        self._check: Callable[[np.ndarray, int, str], None] | None = None

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def n_blocks(self) -> int:
        """How many blocks there are."""
        return len(self.bounds) - 1

    @property
    def n_bytes(self) -> int:
        """Bytes of all rows, as an array."""
        return self.shape[0] * self.shape[1] * self.dtype.itemsize

    @property
    def grain(self) -> int:
        """Every so many rows, one is kept in memory once all were read: `picked` is quick there."""
        return max(1, -(-self.shape[0] * self.shape[1] // _KEPT_ENTRIES))

    def _read(self, number: int) -> np.ndarray:
        raise NotImplementedError

    def _length(self) -> int:
        return self.shape[0]

    def place_of_block(self, number: int) -> str:
        """Where a block is, for messages: its number and its rows."""
        start, stop = self.bounds[number : number + 2]
        return f"block {number} of {self.what} (rows {start} to {stop - 1})"

    def read(self, number: int) -> np.ndarray:
        """One block of rows; a ValueError names it where it is not what was announced."""
        where = self.place_of_block(number)
        block = np.asarray(self._read(number))
        n_rows = int(self.bounds[number + 1] - self.bounds[number])
        check_block(block, where, self.shape[1], self.dtype, self.names)
        if len(block) != n_rows:
            raise ValueError(
                f"{_begin(where)} has {len(block)} rows now, but had {n_rows} when it was opened: "
                "what is trained on must not change meanwhile."
            )
        if self._check is not None:
            self._check(block, int(self.bounds[number]), where)
        return block

    def require(self, check: Callable[[np.ndarray, int, str], None]) -> None:
        """Let all blocks that are read from now on be checked: ``check(block, start, where)``."""
        self._check = check

    def check_length(self) -> None:
        """Raise a ValueError if there are more or fewer rows by now."""
        now = self._length()
        if now != self.shape[0]:
            raise ValueError(
                f"{_begin(self.what)} had {self.shape[0]} rows when it was opened, and has {now} "
                "now: what is trained on must not change meanwhile."
            )

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """(first row, block) for all blocks, in order, of which a few are read ahead.

        The first time, rows spread over all are kept.
        """
        kept: list | None = [] if self._spread is None else None
        starts = self.bounds.tolist()
        for number, block in enumerate(ahead(self.read, range(self.n_blocks), _AHEAD)):
            start = starts[number]
            if kept is not None:
                kept.append(np.array(block[-start % self.grain :: self.grain]))
            yield start, block
        if kept is not None:
            self._spread = np.concatenate(kept)

    def spread(self, n_rows: int) -> np.ndarray:
        """About so many rows, or as many as are kept, spread over all."""
        rows = self._kept()
        return rows[:: max(1, len(rows) // n_rows)]

    def _kept(self):
        if self._spread is None:
            deque(self.blocks(), maxlen=0)
        return self._spread

    def picked(self, index: np.ndarray) -> np.ndarray:
        """Some of the rows, in any order: those that are kept, or else blocks are read for them."""
        index = np.asarray(index, dtype=np.int64)
        if self._spread is not None and not (index % self.grain).any():
            return self._spread[index // self.grain]
        order = np.argsort(index, kind="stable")
        ordered = index[order]
        cuts = np.searchsorted(ordered, self.bounds)
        rows = np.empty((len(index), self.shape[1]), dtype=self.dtype)
        needed = np.flatnonzero(np.diff(cuts)).tolist()
        for number, block in zip(needed, ahead(self.read, needed, _AHEAD), strict=True):
            part = slice(cuts[number], cuts[number + 1])
            rows[order[part]] = block[ordered[part] - self.bounds[number]]
        return rows

    def __getitem__(self, key) -> np.ndarray:
        """Rows, as of an array: a slice, or an array of places or truth values."""
        if isinstance(key, slice):
            key = np.arange(*key.indices(self.shape[0]))
        key = np.asarray(key)
        return self.picked(np.flatnonzero(key) if key.dtype == bool else key)

    def mapped(self, function: Callable[[np.ndarray], np.ndarray], n_columns: int, dtype, what=""):
        """What a function makes of each block, as a source that reads this one."""
        return Mapped(self, function, n_columns, dtype, what or self.what)


class Mapped(Source):
    """What a function makes of the blocks of another source: as many rows, other columns."""

    def __init__(self, source, function, n_columns, dtype, what):
        super().__init__(source.bounds, n_columns, dtype, what)
        self._source, self._function = source, function

    def _read(self, number):
        return self._function(self._source.read(number))

    def _length(self):
        return self._source._length()


class Sliced(Source):
    """What has a shape, a dtype and slices of rows: h5py, zarr and dask arrays, memory maps.

    Blocks are as its ``chunks`` are, where it has some: as many together as make some megabytes.
    """

    def __init__(self, array: Any, what: str):
        self._array, self._mapping = array, memory_map(array)
        n_rows, n_columns = array.shape
        super().__init__(_bounds_of(array, n_rows), n_columns, array.dtype, what)

    def _read(self, number):
        start, stop = self.bounds[number : number + 2].tolist()
        block = self._array[start:stop]
        if self._mapping is None:
            return np.asarray(block)
        block = np.array(block)
        release_pages(self._array)
        return block

    def _length(self):
        return self._array.shape[0]

    @property
    def grain(self) -> int:
        """Any row of a memory map is quick to reach."""
        return super().grain if self._mapping is None else 1

    def blocks(self):
        """As those of any source; of a memory map no rows need be kept."""
        if self._mapping is None:
            yield from super().blocks()
            return
        starts = self.bounds.tolist()
        reads = ahead(self.read, range(self.n_blocks), _AHEAD)
        yield from zip(starts[:-1], reads, strict=True)

    def spread(self, n_rows):
        """About so many rows, spread over all."""
        if self._mapping is None:
            return super().spread(n_rows)
        return np.array(self._array[:: max(1, self.shape[0] // n_rows)])

    def picked(self, index):
        """Some of the rows, in any order."""
        if self._mapping is None:
            return super().picked(index)
        rows = np.array(self._array[np.asarray(index)])
        release_pages(self._array)
        return rows


def _bounds_of(array, n_rows):
    """Where blocks of rows begin that are whole chunks."""
    n_bytes = max(1, array.shape[1] * np.dtype(array.dtype).itemsize)
    wanted = max(1, _READ // n_bytes)
    chunks = getattr(array, "shards", None) or getattr(array, "chunks", None)
    if not chunks:
        return [*range(0, n_rows, wanted), n_rows]
    if isinstance(chunks[0], tuple | list):  # dask: each of its own length
        bounds = np.cumsum([0, *chunks[0]])
        return np.unique(bounds)
    step = chunks[0] * max(1, wanted // chunks[0])
    return [*range(0, n_rows, step), n_rows]


def check_block(block, where: str, n_columns: int, dtype, names=None) -> None:
    """Raise a ValueError that names a block which is not of the width and type of the others."""
    if block.ndim != 2 or block.shape[1] != n_columns:
        raise ValueError(
            f"{_begin(where)} has the shape {block.shape}, but the blocks before it have "
            f"{n_columns} columns: all blocks need the same."
        )
    if block.dtype == dtype:
        return
    if block.dtype.kind not in "fiub":
        column, value = _first_not_a_number(block)
        name = "" if names is None else f" ({names[column]!r})"
        raise ValueError(
            f"Column {column}{name} turns up non-numeric in {where}, which holds {value!r}. All "
            "blocks need numbers, as those before it have."
        )
    if not np.can_cast(block.dtype, dtype):
        raise ValueError(
            f"{_begin(where)} is of dtype {block.dtype}, but those before it are of {dtype}, which "
            "does not hold its numbers. Convert all blocks to one dtype."
        )


def _first_not_a_number(block):
    for column in range(block.shape[1]):
        for value in block[:, column].tolist():
            try:
                float(value)
            except (TypeError, ValueError):
                return column, value
    return 0, block[0, 0] if len(block) else None


def _begin(where):
    return where[:1].upper() + where[1:]


def ahead(function: Callable[[A], B], items: Iterable[A], depth: int) -> Iterator[B]:
    """``function(item)`` for each item, in order, so many of them computed ahead in a thread."""
    with ThreadPoolExecutor(1) as pool:
        pending: deque[Future[B]] = deque()
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > depth:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def block_bounds(n_rows, n_columns):
    """(start, stop) of successive blocks of rows of about 16 MiB in float64."""
    step = max(1, _BLOCK // (8 * max(1, n_columns)))
    for start in range(0, n_rows, step):
        yield start, min(start + step, n_rows)


def blocks_of(array, width=0):
    """(start, stop, rows) for successive blocks of an array, CSR matrix or source, in order.

    ``width`` is how many numbers are made of a row, where these are more than its columns.
    """
    width = max(width, array.shape[1])
    if not isinstance(array, Source):
        for start, stop in block_bounds(array.shape[0], width):
            yield start, stop, array[start:stop]
        return
    for begin, block in array.blocks():
        for start, stop in block_bounds(len(block), width):
            yield begin + start, begin + stop, block[start:stop]


def memory_map(array):
    """The shared file mapping behind an array, or None."""
    mode = None
    while isinstance(array, np.ndarray):
        mode = getattr(array, "mode", mode)
        array = array.base
    # A copy-on-write mapping ("c") may hold changes that the file does not.
    return array if isinstance(array, mmap.mmap) and mode in ("r", "r+", "w+") else None


def release_pages(array):
    """Give the pages read from a file mapping back to the system's cache.

    A process is charged for every page of a mapping that it touched; without this, an epoch over a
    4 GB file would count as 4 GB of memory.
    """
    mapping = memory_map(array)
    if mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapping.madvise(mmap.MADV_DONTNEED)
