"""Rows that are read by blocks: what comes of them, and how they are mixed for training."""

import threading

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from skae.engine.optimisation import rows as rows_module
from skae.engine.optimisation import sources, windows
from skae.engine.optimisation.rows import all_rows, make_rows, summarize_columns
from skae.engine.optimisation.sources import Sliced, Source, ahead, blocks_of
from skae.engine.optimisation.windows import RowRange, WindowedRows

CPU = torch.device("cpu")
N_ROWS, N_COLUMNS, N_BLOCKS = 1000, 3, 40


class Listed(Source):
    """Blocks of rows that are in a list, which may be changed."""

    def __init__(self, blocks):
        bounds = np.cumsum([0, *map(len, blocks)])
        super().__init__(bounds, blocks[0].shape[1], blocks[0].dtype, "the list")
        self.list, self.n_read = list(blocks), 0

    def _read(self, number):
        self.n_read += 1
        return self.list[number]

    def _length(self):
        return sum(map(len, self.list))


@pytest.fixture
def array():
    return np.random.default_rng(0).normal(size=(N_ROWS, N_COLUMNS)).astype(np.float32)


@pytest.fixture
def source(array):
    return Listed(np.array_split(array, N_BLOCKS))


@pytest.fixture
def small_windows(monkeypatch):
    """Windows of eight blocks: five of them."""
    monkeypatch.setattr(windows, "_WINDOW", N_ROWS * N_COLUMNS * 4 // 5)


def windowed(source, shift=None, scale=None):
    return WindowedRows(source, shift, scale, dtype=torch.float32, device=CPU)


def epoch(rows, index, n_batches, seed=0):
    """Places and rows of an epoch's batches."""
    generator = torch.Generator().manual_seed(seed)
    batches = rows.batches(index, n_batches, generator)
    return zip(
        *[(batch.numpy(), rows.take(batch).numpy().copy()) for batch in batches], strict=True
    )


# A source is like an array


def test_a_source_is_like_its_array(array, source):
    assert source.shape == array.shape
    assert len(source) == N_ROWS
    starts, blocks = zip(*source.blocks(), strict=True)
    assert_array_equal(np.concatenate(blocks), array)
    assert_array_equal(starts, source.bounds[:-1])
    places = np.array([999, 3, 3, 0, 500])
    # In whatever order and however often they are asked for.
    assert_array_equal(source[places], array[places])
    assert_array_equal(source[10:700:7], array[10:700:7])
    assert_array_equal(source[array[:, 0] > 0], array[array[:, 0] > 0])
    doubled = source.mapped(lambda block: 2 * block[:, :2], 2, np.float32)
    assert_array_equal(doubled[:], 2 * array[:, :2])


def test_blocks_are_cut_to_what_is_made_of_them(array, source, monkeypatch):
    monkeypatch.setattr(sources, "_BLOCK", 8 * N_COLUMNS * 7)
    starts, stops, blocks = zip(*blocks_of(source), strict=True)
    assert max(map(len, blocks)) == 7
    assert list(starts[1:]) == list(stops[:-1])
    assert_array_equal(np.concatenate(blocks), array)


def test_one_pass_describes_columns_and_keeps_rows_of_all(array, source, monkeypatch):
    monkeypatch.setattr(sources, "_KEPT_ENTRIES", 300)
    summary = summarize_columns(source)
    assert_allclose(summary.mean, array.mean(0), atol=1e-6)
    assert_allclose(summary.std, array.std(0), rtol=1e-5)
    # Who asks again, or for some rows spread over all, reads nothing.
    assert summarize_columns(source) is summary
    assert_array_equal(source.spread(100), array[::10])
    assert_array_equal(source[np.array([70, 10, 990])], array[[70, 10, 990]])
    assert source.n_read == N_BLOCKS


@pytest.mark.parametrize("chunks", [None, (30, 2), (400, 3), ((100, 0, 500, 400), (1, 2))])
def test_blocks_are_whole_chunks(array, chunks, monkeypatch):
    monkeypatch.setattr(sources, "_READ", 100 * array[0].nbytes)

    class Chunked:
        shape, dtype = array.shape, array.dtype

        def __getitem__(self, rows):
            return array[rows]

    stored = Chunked()
    stored.chunks = chunks
    source = Sliced(stored, "the chunks")
    expected = {
        None: [100] * 10,
        (30, 2): [90] * 11 + [10],  # as many as make what is read at once
        (400, 3): [400, 400, 200],  # never a part of one
    }.get(chunks, [100, 500, 400])
    assert list(np.diff(source.bounds)) == expected
    assert_array_equal(np.concatenate([block for _, block in source.blocks()]), array)


def test_what_is_read_ahead_is_read_in_another_thread():
    threads, done = [], []

    def read(number):
        threads.append(threading.get_ident())
        done.append(number)
        return number

    results = ahead(read, range(6), 2)
    assert next(results) == 0
    # The next two are being read, and none of those after them.
    assert len(done) <= 3
    assert list(results) == [1, 2, 3, 4, 5]
    assert set(threads) != {threading.get_ident()}
    # No thread is left, also of those who stop early.
    n_threads, stopped = threading.active_count(), ahead(read, range(6), 2)
    next(stopped)
    stopped.close()
    assert threading.active_count() == n_threads


# Bad blocks


def test_a_block_of_another_width_is_named(source):
    source.list[17] = source.list[17][:, :2]
    with pytest.raises(ValueError, match=r"Block 17 of the list \(rows 425 to 449\).*3 columns"):
        summarize_columns(source)


def test_a_block_of_another_dtype_is_named(source):
    source.list[17] = source.list[17].astype(np.float64)
    with pytest.raises(ValueError, match=r"Block 17 .* is of dtype float64.*of float32"):
        summarize_columns(source)
    # What float32 holds is converted.
    source.list[17] = source.list[17].astype(np.float16)
    assert np.isfinite(summarize_columns(source).mean).all()


def test_a_column_that_turns_up_non_numeric_is_named(source):
    source.names = ["a", "b", "c"]
    source.list[17] = source.list[17].astype(object)
    source.list[17][4, 1] = "many"
    with pytest.raises(ValueError, match=r"Column 1 \('b'\) .* in block 17 .*'many'"):
        summarize_columns(source)


@pytest.mark.parametrize("n_more", [-1, 1])
def test_a_length_that_changes_is_told_before_an_epoch(source, array, n_more):
    rows = windowed(source)
    index = all_rows(source, None)
    list(epoch(rows, index, 10))
    source.list[5] = array[: len(source.list[5]) + n_more]
    with pytest.raises(ValueError, match=f"had 1000 rows.* has {1000 + n_more} now"):
        list(epoch(rows, index, 10))
    with pytest.raises(ValueError, match=r"Block 5 .* must not change"):
        summarize_columns(source)


# Windows


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize("n_batches", [1, 3, 17, 100, 1000])
def test_an_epoch_has_every_row_once(array, source, n_batches):
    shift, scale = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 1.0, 0.5])
    places, batches = epoch(windowed(source, shift, scale), all_rows(source, None), n_batches)
    assert len(places) == n_batches
    sizes = list(map(len, places))
    # No step rests on a remainder of a few rows.
    assert max(sizes) - min(sizes) <= 1
    places = np.concatenate(places)
    assert_array_equal(np.sort(places), np.arange(N_ROWS))
    expected = (torch.from_numpy(array[places]) - shift) / scale
    assert_allclose(np.concatenate(batches), expected, rtol=1e-6)


@pytest.mark.usefixtures("small_windows")
def test_rows_that_do_not_count_are_never_trained_on(array, source):
    rows = windowed(source)
    counted = np.flatnonzero(np.arange(N_ROWS) % 3 > 0)
    places, batches = epoch(rows, torch.from_numpy(counted), 20)
    assert_array_equal(np.sort(np.concatenate(places)), counted)
    assert_array_equal(np.concatenate(batches), array[np.concatenate(places)])
    kept, held_out = all_rows(source, None).split(0.2, torch.Generator().manual_seed(0))
    assert len(kept) + len(held_out) == N_ROWS
    # Drawn with replacement, a few twice.
    assert 160 <= len(held_out) <= 200
    places, _ = epoch(rows, kept, 20)
    both = np.concatenate([*places, held_out.numpy()])
    assert_array_equal(np.sort(both), np.arange(N_ROWS))
    # The places of a range without some are those of the rows that are left.
    assert_array_equal(
        kept[torch.arange(len(kept))], np.setdiff1d(np.arange(N_ROWS), held_out.numpy())
    )


@pytest.mark.usefixtures("small_windows")
def test_rows_that_are_taken_again_and_again_stay_in_memory(array, source):
    rows = windowed(source)
    places = torch.tensor([900, 5, 300])
    rows.keep(places, None)
    n_read = source.n_read
    for _ in range(3):
        assert_array_equal(rows.take(places), array[places])
        assert_array_equal(rows.take(places[:2]), array[places[:2]])
    assert source.n_read == n_read
    # Others are read.
    assert_array_equal(rows.take(places + 1), array[places + 1])


@pytest.mark.usefixtures("small_windows")
def test_the_order_is_that_of_the_seed(source):
    index = all_rows(source, None)
    orders = []
    for seed in (0, 0, 1):
        places, _ = epoch(windowed(source), index, 10, seed)
        orders.append(np.concatenate(places))
    first, again, other = orders
    assert_array_equal(first, again)
    assert (first != other).any()
    # Windows are of blocks from anywhere, not of those that come next in the file.
    assert np.corrcoef(first, np.arange(N_ROWS))[0, 1] < 0.7
    assert np.corrcoef(other, np.arange(N_ROWS))[0, 1] < 0.7


@pytest.mark.usefixtures("small_windows")
def test_how_random_batches_of_sorted_rows_are():
    # Sorted rows are the worst case: a block has rows of one kind, and knows nothing of the others.
    n_rows, n_in_window, size = 40_000, 8, 50
    values = np.linspace(-1, 1, n_rows, dtype=np.float32)[:, None]
    source = Listed(np.array_split(values, 320))
    rows, variance = windowed(source), values.var()
    rows._windows = lambda in_block, generator: np.array_split(
        torch.randperm(len(in_block), generator=generator).numpy(), 320 // n_in_window
    )
    means = []
    for seed in range(5):
        _, batches = epoch(rows, all_rows(source, None), n_rows // size, seed)
        means += [batch.mean() for batch in batches]
    # As the guide says: a batch of b rows from a window of w blocks is as good as one of
    # 1 / (1 / b + 1 / w) rows drawn from all. 200 windows: 10 % of it are two standard errors.
    expected = variance * (1 / size + 1 / n_in_window)
    assert_allclose(np.var(means), expected, rtol=0.3)
    # In order of the file, without any window, it would be the variance of all rows.
    assert np.var(means) < 0.25 * variance


def test_a_window_has_two_blocks_at_least(monkeypatch, array):
    monkeypatch.setattr(windows, "_WINDOW", 1)
    source = Listed(np.array_split(array, 10))
    rows = windowed(source)
    found = rows._windows(np.diff(source.bounds), torch.Generator().manual_seed(0))
    assert list(map(len, found)) == [2] * 5


def test_some_rows_of_a_range_are_those_that_are_kept():
    index = RowRange(1000, grain=7)
    some = index.some(100)
    assert not (some % 7).any()
    assert 50 <= len(some) <= 100


def test_make_rows_reads_large_maps_by_windows(array, tmp_path, monkeypatch):
    monkeypatch.setattr(rows_module, "SMALL", 1000)
    monkeypatch.setattr(sources, "_READ", 600)
    np.save(tmp_path / "rows.npy", array)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    rows = make_rows(mapped, dtype=torch.float32, device=CPU)
    places, batches = epoch(rows, all_rows(mapped, None, 4), 10)
    assert_array_equal(np.sort(np.concatenate(places)), np.arange(N_ROWS))
    assert_array_equal(np.concatenate(batches), array[np.concatenate(places)])
    starts, blocks = zip(*rows.blocks(), strict=True)
    assert_array_equal(torch.cat(blocks), array)
    assert starts[0] == 0
