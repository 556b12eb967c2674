"""Rows of a data set as batches on a device, and what their columns are like.

`make_rows` chooses: one tensor on the device where the data fit; windows of blocks of what is read
from files; else (sparse matrices, data larger than the memory) rows that are made dense and moved
one batch at a time.
"""

import hashlib
import math
from collections.abc import Hashable, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from scipy import sparse

from skae.engine.optimisation.devices import Place, available_memory, place_of
from skae.engine.optimisation.sources import (
    Sliced,
    Source,
    block_bounds,
    blocks_of,
    memory_map,
    release_pages,
    scattered,
)
from skae.engine.optimisation.windows import RowRange, WindowedRows

# What is read from a file up to this size is read at once: nothing is faster, and rows are mixed as
# those in memory are. joblib hands its workers every larger array as a memory map.
SMALL = 256 * 2**20
# Pages of a memory map are given back after about this many bytes were read: not after
# every batch, since reading a page again costs several times what using it does.
_RESIDENT = 256 * 2**20
# The system maps this many bytes around every row that is touched.
_FAULT_AROUND = 64 * 2**10


class DenseRows:
    """Rows held as one tensor on the device."""

    is_resident = True  # batches are taken without the host

    def __init__(self, tensor, has_gaps=False):
        self.tensor, self.has_gaps, self._buffers = tensor, has_gaps, {}
        self.place, self.n_columns = place_of(tensor), tensor.shape[1]

    def __len__(self):
        return len(self.tensor)

    def take(self, index):
        """The rows of a LongTensor of indices, which may be on the host; valid until the next
        call.
        """
        index, n = index.to(self.place.device), index.shape[0]
        if n not in self._buffers:
            self._buffers[n] = self.tensor.new_empty(n, self.n_columns)
        return torch.index_select(self.tensor, 0, index, out=self._buffers[n])

    def blocks(self, width=0):
        """(start, tensor) for successive blocks of rows, of which so many numbers are made."""
        for start, stop in block_bounds(len(self), max(width, self.n_columns)):
            yield start, self.tensor[start:stop]

    @cached_property
    def fingerprint(self) -> Hashable:
        """What tells these rows from others."""
        return self.tensor.shape, digest(self.tensor)

    def twin(self) -> "DenseRows":
        """The same rows for another training, which may take some at the same time."""
        twin = DenseRows(self.tensor, self.has_gaps)
        twin.fingerprint = self.fingerprint  # known once for all
        return twin


class StreamedRows:
    """Rows of an array or CSR matrix, read and standardised, (x - shift) / scale, batch by
    batch.
    """

    is_resident = False
    # Only reading all of them would tell them from others.
    fingerprint = None

    def __init__(self, array, shift, scale, *, dtype, device, has_gaps=False):
        self.array, self.shift, self.scale, self.has_gaps = array, shift, scale, has_gaps
        self.place, self.n_columns = Place(dtype, device), array.shape[1]
        self._touched = 0

    def __len__(self):
        return self.array.shape[0]

    def take(self, index):
        """The rows of a LongTensor of indices, as a new tensor."""
        return self._standardised(self.array[index.cpu().numpy()])

    def blocks(self, width=0):
        """(start, tensor) for successive blocks of rows, of which so many numbers are made."""
        for start, _, block in blocks_of(self.array, width):
            yield start, self._standardised(block)

    def _standardised(self, part):
        dtype = np.float64 if self.place.dtype == torch.float64 else np.float32
        with np.errstate(over="ignore"):
            dense = np.array(part.toarray() if sparse.issparse(part) else part, dtype=dtype)
        self._touched += len(dense) * max(_FAULT_AROUND, part.dtype.itemsize * dense.shape[1])
        if self._touched > _RESIDENT:
            release_pages(self.array)
            self._touched = 0
        tensor = torch.from_numpy(dense).to(self.place.device)
        return tensor if self.scale is None else tensor.sub_(self.shift).div_(self.scale)


class Labelled(NamedTuple):
    """A batch of rows with what is to be said of each.

    - ``x``, of shape (n_samples, n_features), and ``target``, (n_samples, n_outputs).
    - ``weight``, (n_samples,) or (n_samples, n_outputs): how much each row's target, or each
      number of it, counts. None: all alike.
    - ``directions``, (n_directed, n_directions, n_features): in which rows may move without their
      target changing; or None.
    - ``position``, (n_samples,): where those of each row are in ``directions``. None: in order.
    """

    x: torch.Tensor
    target: torch.Tensor
    weight: torch.Tensor | None
    directions: torch.Tensor | None = None
    position: torch.Tensor | None = None

    def directions_of(self, index: torch.Tensor) -> torch.Tensor:
        """Directions of some of the rows, all of which have some."""
        return self.directions[index if self.position is None else self.position[index]]


class LabelledRows:
    """Rows whose batches come with their targets, of shape (n_samples, n_outputs).

    ``directions`` are rows, too: all directions of a row, one after the other, of rows that have
    some. ``position`` says where those of each row are among them, negative where it has none;
    None: each row has some.
    """

    def __init__(self, rows, target, weight=None, directions=None, position=None):
        self.rows, self.target, self.weight = rows, target, weight
        self.directions, self.position = directions, position
        self.place, self.n_columns = rows.place, rows.n_columns
        self.has_gaps = rows.has_gaps
        for name in ("batches", "keep"):  # of rows that are read as they are needed
            if hasattr(rows, name):
                setattr(self, name, getattr(rows, name))
        # Which rows have directions is asked on the host.
        self.is_resident = rows.is_resident and directions is None

    def __len__(self):
        return len(self.rows)

    def take(self, index):
        """The rows of a LongTensor of indices, as `Labelled`; valid until the next call."""
        index = index.to(self.place.device)
        weight = None if self.weight is None else self.weight[index]
        target = self.target.index_select(0, index)
        return Labelled(self.rows.take(index), target, weight, *self._directions_at(index))

    @cached_property
    def fingerprint(self) -> Hashable:
        """What tells these rows and their targets from others; None where nothing does."""
        if self.directions is not None or self.rows.fingerprint is None:
            return None
        return self.rows.fingerprint, digest(self.target), digest(self.weight)

    def _directions_at(self, index):
        if self.directions is None:
            return None, None
        position = None
        if self.position is not None:
            index = self.position[index]
            has_some = index >= 0
            index, position = index[has_some], has_some.cumsum(0) - 1
        # The number of directions cannot be inferred from a batch in which no row has any.
        shape = len(index), self.directions.n_columns // self.n_columns, self.n_columns
        return self.directions.take(index).view(shape), position


def digest(values: torch.Tensor | np.ndarray | None) -> bytes | None:
    """A fingerprint of the bytes of a tensor or of a contiguous array; None of None."""
    if values is None:
        return None
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().contiguous().numpy()
    return hashlib.blake2b(values.data.cast("B"), digest_size=16).digest()


def make_rows(array, shift=None, scale=None, *, dtype, device):
    """The rows of an array, CSR matrix or source as training batches, (x - shift) / scale.

    They say whether they have gaps, NaN.
    """
    n_bytes = array.shape[0] * array.shape[1] * dtype.itemsize
    available = available_memory(device)
    source = source_behind(array, dtype.itemsize)
    if source is not None:
        gaps = may_have_gaps(array)
        return WindowedRows(source, shift, scale, dtype=dtype, device=device, has_gaps=gaps)
    if sparse.issparse(array) or (available is not None and n_bytes > available // 2):
        gaps = may_have_gaps(array)
        return StreamedRows(array, shift, scale, dtype=dtype, device=device, has_gaps=gaps)
    array = np.ascontiguousarray(array)
    if not array.flags.writeable or min(array.strides) < 0:
        array = array.copy()  # torch has no read-only tensors, and one reversed row is contiguous
    tensor = torch.from_numpy(array).to(device, dtype)
    if scale is not None:
        tensor = (tensor - shift).div_(scale)
    return DenseRows(tensor, may_have_gaps(array))


def source_behind(array, itemsize: int = 8) -> Source | None:
    """The source of rows that are read by blocks: itself, or that of a memory map whose numbers
    would be larger, of so many bytes each, than what is read at once. None: rows are in memory.
    """
    if isinstance(array, Source):
        return array
    is_large = array.shape[0] * array.shape[1] * itemsize > SMALL
    if is_large and memory_map(array) is not None:
        return Sliced(array, "the memory map")
    return None


def all_rows(array, weight, itemsize: int = 8) -> torch.Tensor | RowRange:
    """The places of the rows whose weight is not 0."""
    if weight is not None:
        return torch.tensor(np.flatnonzero(weight))
    source = source_behind(array, itemsize)
    return torch.arange(array.shape[0]) if source is None else RowRange.of(source)


def every(array, step: int):
    """One of so many rows, spread over all of them; of a source about as many."""
    if isinstance(array, Source):
        return array.spread(max(1, array.shape[0] // step))
    if memory_map(array) is None:
        return array[::step]
    return scattered(array, np.arange(0, array.shape[0], step))


def made_of(function, array, n_columns: int):
    """``function(array)``, so many columns of numbers for each row; of a source whose rows have
    more of them than are read at once, a source again.
    """
    dtype = np.dtype(np.float32 if fits_float32(array.dtype) else np.float64)
    n_bytes = array.shape[0] * n_columns * dtype.itemsize
    if isinstance(array, Source) and n_bytes > SMALL:
        return array.mapped(function, n_columns, dtype, f"what a layer makes of {array.what}")
    return function(array)


def may_have_gaps(array):
    """Whether NaN is in rows, or a sum of their numbers is beyond all bounds."""
    if array.dtype.kind != "f":
        return False
    if isinstance(array, Source):
        return bool(summarize_columns(array).n_missing.any())
    if sparse.issparse(array):
        return bool(np.isnan(array.data).any())
    found = False
    with np.errstate(invalid="ignore", over="ignore"):
        for _, _, block in blocks_of(array):
            # A sum is NaN if an entry is, and takes a tenth of the time of a look at all.
            found = bool(np.isnan(block.sum()))
            release_pages(array)
            if found:
                break
    return found


def without_gaps(X):
    """Rows with zeros for what was not observed."""
    if X.dtype.kind != "f" or not may_have_gaps(X):
        return X
    X = X.copy()
    np.nan_to_num(X.data if sparse.issparse(X) else X, copy=False)
    return X


def fits_float32(dtype):
    """Whether float32 holds all numbers of a NumPy dtype: integers of up to 16 bits are exact."""
    return dtype in (np.float32, np.bool_) or (dtype.kind in "iu" and dtype.itemsize <= 2)


def map_rows(function, array, shape, place, shift=None, scale=None, width=0):
    """``function(block)`` for all rows, one block at a time, as an array on the host.

    The function goes from a tensor of rows, (x - shift) / scale, to one of results, each of such a
    ``shape``; ``width`` is how many numbers it holds for each row, where these are more than its
    result. Returns an array of shape (n_samples, *shape).
    """
    rows = StreamedRows(array, shift, scale, dtype=place.dtype, device=place.device)
    # On MPS the arithmetic is float32 whatever comes in; float64 comes back.
    dtype = np.float32 if fits_float32(array.dtype) else np.float64
    results = np.empty((array.shape[0], *shape), dtype=dtype)
    with torch.inference_mode():
        for start, block in rows.blocks(max(width, math.prod(shape))):
            results[start : start + len(block)] = function(block).cpu().numpy()
    return results


class ColumnSummary(NamedTuple):
    """Weighted mean and standard deviation, minimum and maximum of every column.

    Of what was observed, whose weights sum to ``total``: ``n_missing`` entries were not. A column
    without any has the mean NaN and a minimum above its maximum.
    """

    mean: np.ndarray
    std: np.ndarray
    minimum: np.ndarray
    maximum: np.ndarray
    n_missing: np.ndarray
    total: np.ndarray


def summarize_columns(array, row_weight=None):
    """Statistics of the columns in one pass over blocks of rows, in float64.

    Rows of weight zero do not count, and NaN was not observed. Infinity shows in the minimum or
    maximum of its column.
    """
    if sparse.issparse(array):
        return _summarize_csr(array, row_weight)
    if isinstance(array, Source) and row_weight is None:
        if array.summary is None:
            array.summary = _summarize(array, None)
        return array.summary
    return _summarize(array, row_weight)


def _summarize(array, row_weight):
    n_features = array.shape[1]
    mean, square = np.zeros(n_features), np.zeros(n_features)
    minimum, maximum = np.full(n_features, np.inf), np.full(n_features, -np.inf)
    n_missing, total = np.zeros(n_features, dtype=np.int64), np.zeros(n_features)
    with np.errstate(invalid="ignore", over="ignore"):
        for start, stop, block in blocks_of(array):
            block = block.astype(np.float64)
            weight = np.ones(len(block)) if row_weight is None else row_weight[start:stop]
            if row_weight is not None:
                block, weight = block[weight > 0], weight[weight > 0]
            release_pages(array)
            if len(block) == 0:
                continue
            np.fmin(minimum, np.fmin.reduce(block, 0), out=minimum)
            np.fmax(maximum, np.fmax.reduce(block, 0), out=maximum)
            block_total, gaps = weight.sum(), None
            block_sum = weight @ block
            if np.isnan(block_sum).any():
                gaps = np.isnan(block)
                n_missing += gaps.sum(0)
                block[gaps] = 0.0
                block_total, block_sum = weight @ ~gaps, weight @ block
            # Chan et al. 1979: merge the moments of this block into those so far.
            block_mean = block_sum / np.where(block_total > 0, block_total, 1.0)
            block -= block_mean
            if gaps is not None:
                block[gaps] = 0.0
            block_square = weight @ np.square(block, out=block)
            change = block_mean - mean
            merged = total + block_total
            part = block_total / np.where(merged > 0, merged, 1.0)
            square += block_square + change**2 * (total * part)
            mean += change * part
            total = merged
        mean = np.where(total > 0, mean, np.nan)
        return ColumnSummary(mean, np.sqrt(square / total), minimum, maximum, n_missing, total)


def merged(summaries: Sequence[ColumnSummary]) -> ColumnSummary:
    """The summary of all rows, of those of parts of them; of one part its own."""
    if len(summaries) == 1:
        return summaries[0]
    means, stds, minima, maxima, n_missing, totals = map(np.stack, zip(*summaries, strict=True))
    total, means = totals.sum(0), np.where(totals > 0, means, 0.0)
    with np.errstate(invalid="ignore", over="ignore"):
        mean = np.where(total > 0, (totals * means).sum(0) / total, np.nan)
        squares = np.where(totals > 0, stds, 0.0) ** 2 + (means - mean) ** 2
        std = np.sqrt((totals * squares).sum(0) / total)
        extremes = np.fmin.reduce(minima, 0), np.fmax.reduce(maxima, 0)
        return ColumnSummary(mean, std, *extremes, n_missing.sum(0), total)


def _summarize_csr(array, row_weight):
    # The stored entries alone; the zeros between them are counted, never written out.
    weight = np.ones(array.shape[0]) if row_weight is None else row_weight
    if (weight == 0).any():
        array, weight = array[weight > 0], weight[weight > 0]
    if not array.has_canonical_format:
        array = array.copy()
        array.sum_duplicates()
    n_features, total = array.shape[1], weight.sum()
    values, columns = array.data.astype(np.float64), array.indices
    entry_weight = np.repeat(weight, np.diff(array.indptr))
    n_stored = np.bincount(columns, minlength=n_features)
    gaps = np.isnan(values)
    n_missing = np.bincount(columns[gaps], minlength=n_features)
    if gaps.any():
        total = total - np.bincount(columns[gaps], entry_weight[gaps], n_features)
        values, columns, entry_weight = (a[~gaps] for a in (values, columns, entry_weight))

    def column_sums(entries):
        return np.bincount(columns, entries, n_features).astype(np.float64)

    with np.errstate(invalid="ignore", over="ignore"):
        mean = column_sums(entry_weight * values) / total
        mean[n_missing == array.shape[0]] = np.nan
        square = column_sums(entry_weight * (values - mean[columns]) ** 2)
        square += (total - column_sums(entry_weight)) * mean**2
        has_zero = n_stored < array.shape[0]
        minimum, maximum = np.where(has_zero, 0.0, np.inf), np.where(has_zero, 0.0, -np.inf)
        np.minimum.at(minimum, columns, values)
        np.maximum.at(maximum, columns, values)
        total = np.broadcast_to(total, n_features)
        return ColumnSummary(mean, np.sqrt(square / total), minimum, maximum, n_missing, total)


def varies(array):
    """Whether any column of an array or CSR matrix has two values, NaN not counted."""
    if sparse.issparse(array):
        summary = summarize_columns(array)
        return bool((summary.minimum < summary.maximum).any())
    if len(array) > 1 and ((array[0] < array[1]) | (array[0] > array[1])).any():
        return True  # mostly two rows tell
    return bool((np.fmin.reduce(array, 0) < np.fmax.reduce(array, 0)).any())
