"""Training rows that are read by blocks, and are mixed within windows of some blocks.

In each epoch the blocks come in an order that is drawn. Some of them together are a window, whose
rows are trained on in an order that is drawn as well, while the next window is read in a thread.
What does not fill a batch goes on into the next window. So each batch is a sample of one window,
and each window one of all blocks: as random as rows are within a window's blocks.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from skae.engine.optimisation.devices import Place
from skae.engine.optimisation.sources import Source, ahead, blocks_of

# Bytes of the rows of a window, as the model sees them; there are two at a time.
_WINDOW = 64 * 2**20
# Bytes of rows that are standardised at a time: they stay in a processor's cache meanwhile.
_CACHED = 2**20
# Bytes of held-out rows at most: they stay in memory.
_HELD_OUT = 32 * 2**20


class RowRange:
    """The places of all rows of a source but some, without a list of them.

    ``grain`` is that of the source: `some` takes rows that are kept in memory. ``most`` is how many
    rows can be held out.
    """

    def __init__(self, n_rows: int, grain: int = 1, most: int = 2**31, without=None):
        self.n_rows, self.grain, self.most = n_rows, grain, most
        self.without = np.arange(0) if without is None else without  # in order

    @classmethod
    def of(cls, source: Source) -> "RowRange":
        """All rows of a source."""
        most = max(1, _HELD_OUT // max(1, 8 * source.shape[1]))
        return cls(source.shape[0], source.grain, most)

    def __len__(self):
        return self.n_rows - len(self.without)

    def __getitem__(self, places: torch.Tensor) -> torch.Tensor:
        """The rows at some places among these."""
        found = places.cpu().numpy()
        gaps = self.without - np.arange(len(self.without))
        return torch.from_numpy(found + np.searchsorted(gaps, found, side="right"))

    def to(self, device) -> "RowRange":
        """Itself: it is on no device."""
        return self

    def some(self, n_rows: int) -> torch.Tensor:
        """About so many of the rows, spread over all of them."""
        step = self.grain * math.ceil(max(1, math.ceil(self.n_rows / n_rows)) / self.grain)
        rows = np.arange(0, self.n_rows, step)
        return torch.from_numpy(rows[~np.isin(rows, self.without)])

    def split(self, fraction: float, generator: torch.Generator) -> tuple["RowRange", torch.Tensor]:
        """The rows to train on and those that are held out, drawn: not more than fit in memory."""
        n_held_out = min(max(1, round(fraction * len(self))), self.most)
        # Of few among many, hardly any is drawn twice: no permutation of all is needed.
        drawn = torch.randint(
            len(self), (n_held_out,), generator=generator, device=generator.device
        )
        held_out = self[torch.unique(drawn)]
        rest = np.union1d(self.without, held_out.numpy())
        return RowRange(self.n_rows, self.grain, self.most, rest), held_out

    def counts(self, bounds: np.ndarray) -> np.ndarray:
        """How many of the rows each block has."""
        return np.diff(bounds - np.searchsorted(self.without, bounds))

    def within(self, start: int, stop: int) -> np.ndarray:
        """Those between two rows."""
        rows = np.arange(start, stop)
        first, last = np.searchsorted(self.without, (start, stop))
        return np.delete(rows, self.without[first:last] - start) if last > first else rows


class _Chosen:
    """Rows of a list, as those of a `RowRange` are asked for."""

    def __init__(self, index: torch.Tensor):
        self._rows = np.sort(index.cpu().numpy())

    def counts(self, bounds):
        return np.diff(np.searchsorted(self._rows, bounds))

    def within(self, start, stop):
        first, last = np.searchsorted(self._rows, (start, stop))
        return self._rows[first:last]


class WindowedRows:
    """Rows of a source, standardised, (x - shift) / scale, and mixed within windows."""

    is_resident = False
    # Only reading all of them would tell them from others.
    fingerprint = None

    def __init__(self, source: Source, shift, scale, *, dtype, device, has_gaps=False):
        self.source, self.has_gaps = source, has_gaps
        self.place, self.n_columns = Place(dtype, device), source.shape[1]
        self._dtype = torch.empty(0, dtype=dtype).numpy().dtype
        self._shift, self._scale = (_host(part, self._dtype) for part in (shift, scale))
        self._buffers: list[tuple[np.ndarray, np.ndarray]] = []
        # The window's rows, a batch of their places in the file, and the same in the window.
        self._window: tuple[Any, Any, Any] = None, None, None
        self._kept: tuple[Any, Any] = np.arange(0), None
        self._out: dict[int, torch.Tensor] = {}

    def __len__(self):
        return self.source.shape[0]

    def take(self, index):
        """The rows of a LongTensor of indices; valid until the next call."""
        rows, batch, places = self._window
        if index is batch and batch is not None:
            return self._gathered(rows, places)
        index = index.cpu().numpy()
        at, kept = self._kept
        if len(at):
            places = np.searchsorted(at, index).clip(max=len(at) - 1)
            if (at[places] == index).all():
                return self._gathered(kept, torch.from_numpy(places).to(kept.device))
        return self._seen(self.source.picked(index))

    def _gathered(self, rows, places):
        n = places.shape[0]
        if n not in self._out:
            self._out[n] = rows.new_empty(n, self.n_columns)
        return torch.index_select(rows, 0, places, out=self._out[n])

    def keep(self, *indices: torch.Tensor | None) -> None:
        """Keep some rows in memory, which will be taken again and again."""
        wanted = [index.cpu().numpy() for index in indices if index is not None and len(index)]
        if wanted:
            at = np.unique(np.concatenate(wanted))
            self._kept = at, self._seen(self.source.picked(at))

    def blocks(self, width=0):
        """(start, tensor) for successive blocks of rows, of which so many numbers are made."""
        for start, _, block in blocks_of(self.source, width):
            yield start, self._seen(block)

    def _seen(self, block):
        seen = np.empty_like(block, dtype=self._dtype)
        self._standardize(block, seen)
        return torch.from_numpy(seen).to(self.place.device)

    def _standardize(self, block, out):
        turns = block.flags.f_contiguous and out.flags.c_contiguous and len(out) > 1
        if turns and block.dtype == out.dtype and block.flags.writeable:
            # By small squares, where NumPy would go through all columns for each row.
            torch.from_numpy(out).copy_(torch.from_numpy(block))
            block = out
        step = max(1, _CACHED // max(1, out[:1].nbytes))
        for start in range(0, len(block), step):
            part, rows = out[start : start + step], block[start : start + step]
            if self._scale is None:
                part[:] = rows
            else:
                np.subtract(rows, self._shift, out=part, dtype=part.dtype, casting="unsafe")
                np.divide(part, self._scale, out=part)

    def batches(self, index, n_batches: int, generator) -> Iterator[torch.Tensor]:
        """The rows of an epoch's batches, whose sizes differ by one at most, as the loop takes
        them: the rows of each have been read when it comes.
        """
        self.source.check_length()
        index = _Chosen(index) if isinstance(index, torch.Tensor) else index
        in_block = index.counts(self.source.bounds)
        windows = self._windows(in_block, generator)
        counts = [int(in_block[window].sum()) for window in windows]
        parts, carried = _portions(counts, n_batches)
        most = max(map(sum, zip(counts, carried[:-1], strict=True)))

        def read(number):
            buffer, places = self._buffer(number % 2, most)
            end = carried[number]
            for block in windows[number]:
                start, stop = self.source.bounds[block : block + 2].tolist()
                rows, begin = index.within(start, stop), end
                end += len(rows)
                block = self.source.read(int(block))
                block = block if len(rows) == stop - start else block[rows - start]
                self._standardize(block, buffer[begin:end])
                places[begin:end] = rows
            return buffer[:end], places[:end]

        device, left = self.place.device, None
        # The rows that were left have been copied when their window is overwritten.
        for number, (buffer, places) in enumerate(ahead(read, range(len(windows)), 1)):
            if left is not None:
                buffer[: carried[number]], places[: carried[number]] = left
            rows, at = torch.from_numpy(buffer).to(device), torch.from_numpy(places).to(device)
            order = torch.randperm(len(at), generator=generator, device=generator.device)
            order = order.to(device)
            *batches, rest = torch.split(order, [*parts[number], carried[number + 1]])
            for chosen in batches:
                batch = at[chosen]
                self._window = rows, batch, chosen
                yield batch
            rest = rest.cpu().numpy()
            left = buffer[rest], places[rest]
        self._window = None, None, None

    def _windows(self, in_block, generator):
        """The blocks of each window, in an order that is drawn."""
        blocks = torch.randperm(len(in_block), generator=generator, device=generator.device)
        blocks = blocks.cpu().numpy()
        blocks = blocks[in_block[blocks] > 0]
        n_bytes = int(in_block.sum()) * self.n_columns * self._dtype.itemsize
        # Blocks that are large are two to a window all the same, or nothing would be mixed.
        n_windows = max(1, min(math.ceil(n_bytes / _WINDOW), len(blocks) // 2))
        return np.array_split(blocks, n_windows)

    def _buffer(self, number, n_rows):
        """Memory for a window: rows, and their places in the file."""
        while len(self._buffers) <= number:
            self._buffers.append((np.empty((0, 0)), np.arange(0)))
        if len(self._buffers[number][1]) < n_rows:
            rows = np.empty((n_rows, self.n_columns), dtype=self._dtype)
            self._buffers[number] = rows, np.empty(n_rows, dtype=np.int64)
        return self._buffers[number]


def _portions(counts, n_batches):
    """The sizes of the batches of each window, and how many rows come to it from the one before.

    The last entry of the latter is what is left at the end: none.
    """
    size, n_larger = divmod(sum(counts), n_batches)
    parts: list[list[int]] = []
    carried, done = [0], 0
    for count in counts:
        have, own = carried[-1] + count, []
        while done < n_batches and have >= size + (done < n_larger):
            own.append(size + (done < n_larger))
            have -= own[-1]
            done += 1
        parts.append(own)
        carried.append(have)
    return parts, carried


def _host(numbers, dtype):
    return None if numbers is None else np.asarray(numbers.cpu().numpy(), dtype=dtype)
