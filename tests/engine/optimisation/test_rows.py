"""Batches from tensors, matrices and memory maps; statistics of columns."""

import mmap

import numpy as np
import pytest
import torch
from scipy import sparse

from skae.engine.optimisation import rows as rows_module
from skae.engine.optimisation import sources
from skae.engine.optimisation.rows import (
    DenseRows,
    LabelledRows,
    StreamedRows,
    make_rows,
    summarize_columns,
    varies,
)
from skae.engine.optimisation.sources import block_bounds, memory_map, release_pages
from skae.engine.optimisation.windows import WindowedRows

CPU = torch.device("cpu")
N_ROWS, N_COLUMNS = 300, 20


@pytest.fixture
def array():
    array = np.random.default_rng(0).normal(size=(N_ROWS, N_COLUMNS))
    array[array < -0.5] = 0  # zeros, for the sparse matrix to leave out
    return array


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of a few rows, so that 300 rows are many blocks."""
    monkeypatch.setattr(sources, "_BLOCK", 8 * N_COLUMNS * 7)


def store(array, kind, folder):
    """The array as itself, as CSR, or as a memory map opened in a mode."""
    if kind == "dense":
        return array
    if kind == "csr":
        return sparse.csr_matrix(array)
    if kind == "csr_array":
        return sparse.csr_array(array)
    path = folder / "array.npy"
    np.save(path, array)
    return np.load(path, mmap_mode=kind)


SHIFT, SCALE = (torch.linspace(a, b, N_COLUMNS, dtype=torch.float64) for a, b in ((-1, 2), (1, 3)))
KINDS = ["dense", "csr", "csr_array", "r", "r+", "c"]


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("standardised", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_streamed_rows_are_the_dense_rows(kind, standardised, dtype, array, tmp_path):
    shift, scale = (SHIFT.to(dtype), SCALE.to(dtype)) if standardised else (None, None)
    stored = store(array, kind, tmp_path)
    expected = torch.tensor(array, dtype=dtype)
    if standardised:
        expected = (expected - shift) / scale
    index = torch.tensor([299, 3, 3, 0, 150])

    streamed = StreamedRows(stored, shift, scale, dtype=dtype, device=CPU)
    dense = make_rows(array, shift, scale, dtype=dtype, device=CPU)
    assert isinstance(dense, DenseRows)
    for rows in (streamed, dense):
        assert len(rows) == N_ROWS
        # However rows are stored, a batch is the rows asked for, in order, standardised.
        assert torch.equal(rows.take(index), expected[index])
        # Asking again gives the same rows, whatever pages were released in between.
        assert torch.equal(rows.take(index), expected[index])
        starts, blocks = zip(*rows.blocks(), strict=True)
        # Blocks are all the rows once, in order, and say where they start.
        assert torch.equal(torch.cat(blocks), expected)
        assert list(starts) == list(np.cumsum([0, *map(len, blocks)])[:-1])
        assert len(blocks) > 40


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int16, np.int64, np.float32])
def test_rows_convert_to_the_computing_dtype(dtype):
    array = np.random.default_rng(0).integers(0, 2, size=(10, 3)).astype(dtype)
    for rows in (
        make_rows(array, dtype=torch.float32, device=CPU),
        StreamedRows(array, None, None, dtype=torch.float32, device=CPU),
    ):
        batch = rows.take(torch.tensor([1, 5]))
        # Small integers are exact in float32: nothing changes but the type.
        assert batch.dtype == torch.float32
        np.testing.assert_array_equal(batch.numpy(), array[[1, 5]].astype(np.float32))


def test_twins_take_rows_by_themselves(array):
    rows = make_rows(array, SHIFT, SCALE, dtype=torch.float64, device=CPU)
    twin = rows.twin()
    one, two = rows.take(torch.tensor([1, 5])), twin.take(torch.tensor([2, 3]))
    assert torch.equal(one, rows.tensor[[1, 5]])
    assert torch.equal(two, rows.tensor[[2, 3]])
    assert twin.fingerprint == rows.fingerprint
    assert twin.has_gaps == rows.has_gaps


def test_numbers_beyond_the_computing_dtype_are_infinite():
    rows = StreamedRows(np.array([[1e300, -1.0]]), None, None, dtype=torch.float32, device=CPU)
    assert rows.take(torch.tensor([0])).tolist() == [[np.inf, -1.0]]


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.float32])
def test_whether_columns_vary(dtype):
    same = np.ones((4, 3), dtype=dtype)
    assert not varies(same)
    assert not varies(same[:1])
    for row in range(4):
        other = same.copy()
        other[row, 1] = 0
        assert varies(other)
        assert varies(sparse.csr_matrix(other))
    if dtype == np.float32:
        same[1, 2] = np.nan
        assert not varies(same)


@pytest.mark.parametrize("kind", KINDS)
def test_batches_are_never_views_of_the_users_data(kind, array, tmp_path):
    stored = store(array, kind, tmp_path)
    for make in (make_rows, lambda a, **k: StreamedRows(a, None, None, **k)):
        rows = make(stored, dtype=torch.float64, device=CPU)
        rows.take(torch.arange(5)).fill_(-77.0)
    plain = stored.toarray() if sparse.issparse(stored) else np.asarray(stored)
    # What a training does to a batch must not reach the data.
    np.testing.assert_array_equal(plain, array)


def test_make_rows_chooses_by_where_the_data_are(array, tmp_path, monkeypatch):
    def kind_of(array):
        return type(make_rows(array, dtype=torch.float64, device=CPU))

    mapped = store(array, "r", tmp_path)
    # A dense array that fits is one tensor; a small map is read at once, being faster so.
    assert kind_of(array) is DenseRows
    assert kind_of(mapped) is DenseRows
    # A sparse matrix is never made dense as a whole.
    assert kind_of(sparse.csr_matrix(array)) is StreamedRows
    monkeypatch.setattr(rows_module, "SMALL", 1000)
    # A large map stays on the disk, and is read by blocks.
    assert kind_of(mapped) is WindowedRows
    # So does anything larger than half the memory that is left.
    assert kind_of(array) is DenseRows
    monkeypatch.setattr(rows_module, "available_memory", lambda device: array.nbytes)
    assert kind_of(array) is StreamedRows


@pytest.mark.parametrize(("n_rows", "n_columns"), [(0, 3), (1, 1), (1000, 10**6), (10**6, 7)])
def test_block_bounds_tile_the_rows(n_rows, n_columns):
    bounds = list(block_bounds(n_rows, n_columns))
    # Successive blocks touch, none is empty, and together they are 0 .. n_rows.
    assert [start for start, _ in bounds] == [0, *(stop for _, stop in bounds)][: len(bounds)]
    assert all(start < stop for start, stop in bounds)
    assert sum(stop - start for start, stop in bounds) == n_rows
    # Each is at most 16 MiB in float64, or a single row.
    assert all((b - a) * n_columns * 8 <= 2**24 or b - a == 1 for a, b in bounds)


VIEWS = {
    "itself": lambda array: array,
    "rows": lambda array: array[5:],
    "transpose": lambda array: array.T,
    "plain": np.asarray,
    "plain_rows": lambda array: np.asarray(array)[5:],
    "plain_view": lambda array: np.asarray(array).view(),
}


@pytest.mark.parametrize("view", VIEWS)
def test_copy_on_write_changes_survive(view, array, tmp_path):
    mapped = store(array, "c", tmp_path)
    mapped[...] += 1000.0
    seen = VIEWS[view](mapped)
    # Changes of a copy-on-write map exist in memory only: giving its pages back loses them, so
    # such a map is never released, through whatever view of it rows are read.
    assert memory_map(seen) is None
    rows = StreamedRows(seen, None, None, dtype=torch.float64, device=CPU)
    for _ in range(3):
        rows.take(torch.arange(10))
        list(rows.blocks())
        summarize_columns(seen)
    np.testing.assert_array_equal(mapped, array + 1000.0)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("mode", ["r", "r+"])
def test_shared_maps_are_found_and_released_without_loss(mode, view, array, tmp_path):
    mapped = store(array, mode, tmp_path)
    expected = array.copy()
    if mode == "r+":
        mapped[7] = expected[7] = 123.0
    seen = VIEWS[view](mapped)
    # These modes share the file's pages, so releasing them is safe and worth it.
    assert isinstance(memory_map(seen), mmap.mmap)
    release_pages(seen)
    # Released pages come back from the file, with the changes that were written through it.
    np.testing.assert_array_equal(mapped, expected)
    if mode == "r+":
        mapped.flush()
        np.testing.assert_array_equal(np.load(tmp_path / "array.npy"), expected)


def test_arrays_in_memory_are_no_maps(array):
    # Nothing to release: and a private mapping of one's own making is not ours to touch.
    assert memory_map(array) is None
    assert memory_map(array[3:]) is None
    private = np.frombuffer(mmap.mmap(-1, 800), dtype=np.float64)
    private[...] = 5.0
    release_pages(private)
    assert (private == 5.0).all()
    release_pages(sparse.csr_matrix(array))


def numpy_summary(array, weight):
    # Exact rational arithmetic would be better still; longdouble has 11 more bits than the code.
    array, weight = array.astype(np.longdouble), weight.astype(np.longdouble)
    mean = weight @ array / weight.sum()
    std = np.sqrt(weight @ (array - mean) ** 2 / weight.sum())
    kept = array[weight > 0]
    nothing = np.zeros(array.shape[1])
    return mean, std, kept.min(0), kept.max(0), nothing, nothing + weight.sum()


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weighted", [False, True])
def test_summary_matches_numpy(kind, weighted, array, tmp_path):
    weight = np.random.default_rng(1).integers(0, 3, size=N_ROWS).astype(float)
    weight[:20] = 0  # whole blocks without weight
    summary = summarize_columns(store(array, kind, tmp_path), weight if weighted else None)
    expected = numpy_summary(array, weight if weighted else np.ones(N_ROWS))
    # One pass over blocks computes the moments that two passes over everything define.
    for statistic, value in zip(summary, expected, strict=True):
        np.testing.assert_allclose(statistic, value.astype(float), rtol=1e-13, atol=1e-14)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("offset", [1e6, 1e9])
def test_summary_is_stable_under_large_offsets(offset, array):
    shifted = array + offset
    summary = summarize_columns(shifted)
    _, std, *_ = numpy_summary(shifted, np.ones(N_ROWS))
    # Deviations are taken from the mean before they are squared, so the error is that of a mean
    # (eps * offset, here a few times) and not that of mean^2 (eps * offset^2).
    rounding = 4 * np.finfo(float).eps * offset
    np.testing.assert_allclose(summary.std, std.astype(float), rtol=0, atol=rounding)


@pytest.mark.usefixtures("small_blocks")
def test_summary_of_weights_is_that_of_repeated_rows(array):
    counts = np.random.default_rng(2).integers(0, 4, size=N_ROWS)
    weighted = summarize_columns(array, counts.astype(float))
    repeated = summarize_columns(np.repeat(array, counts, axis=0))
    # An integer weight is a number of copies.
    for a, b in zip(weighted, repeated, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("bad", [np.inf, -np.inf])
def test_summary_shows_what_is_not_finite(bad, array):
    array[250, 4] = bad
    summary = summarize_columns(array)
    finite = np.isfinite(summary.minimum) & np.isfinite(summary.maximum)
    # A bad value shows in the range of its own column (and nowhere else), without a warning.
    assert np.flatnonzero(~finite).tolist() == [4]


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_summary_is_of_what_was_observed(kind, weighted, array, tmp_path):
    draws = np.random.default_rng(3)
    array = np.where(draws.random(array.shape) < 0.3, np.nan, array)
    array[:, 2] = np.nan
    array[: N_ROWS // 2, 3] = np.nan  # in whole blocks
    weight = draws.integers(0, 3, size=N_ROWS).astype(float) if weighted else np.ones(N_ROWS)
    summary = summarize_columns(store(array, kind, tmp_path), weight if weighted else None)
    for column in range(array.shape[1]):
        here = ~np.isnan(array[:, column]) & (weight > 0)
        assert summary.n_missing[column] == (weight > 0).sum() - here.sum()
        found = np.array([statistic[column] for statistic in summary[:4]])
        if column == 2:
            assert np.isnan(found[0])
            assert found[2] > found[3]
        else:
            expected = numpy_summary(array[here][:, [column]], weight[here])[:4]
            expected = np.concatenate(expected).astype(float)
            np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("kind", KINDS)
def test_summary_leaves_the_data_alone(kind, array, tmp_path):
    stored = store(array, kind, tmp_path)
    summarize_columns(stored)
    plain = stored.toarray() if sparse.issparse(stored) else np.asarray(stored)
    # Blocks are centred in copies.
    np.testing.assert_array_equal(plain, array)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_labelled_rows_are_rows_with_their_targets(kind, weighted, array, tmp_path):
    stored = store(array, kind, tmp_path)
    target = torch.arange(3.0 * N_ROWS, dtype=torch.float64).view(N_ROWS, 3)
    weight = torch.linspace(0, 2, N_ROWS, dtype=torch.float64) if weighted else None
    for rows in (
        make_rows(stored, SHIFT, SCALE, dtype=torch.float64, device=CPU),
        StreamedRows(stored, SHIFT, SCALE, dtype=torch.float64, device=CPU),
    ):
        labelled = LabelledRows(rows, target, weight)
        # As many rows and columns as without targets, which are no columns.
        assert len(labelled) == N_ROWS
        assert labelled.n_columns == N_COLUMNS
        for index in (torch.tensor([299, 3, 3, 0, 150]), torch.tensor([7])):
            x, y, w, directions, _ = labelled.take(index)
            # Rows in the order asked for, as they are without targets, ...
            assert torch.equal(x, (torch.tensor(array) - SHIFT)[index] / SCALE)
            # ... each with what is to be said of it ...
            assert torch.equal(y, target[index])
            # ... and how much that counts, or None where all count alike.
            assert w is None if weight is None else torch.equal(w, weight[index])
            # Nothing was said of where the rows may move.
            assert directions is None


def test_targets_of_a_batch_are_no_views(array):
    target, weight = torch.ones(N_ROWS, 2), torch.ones(N_ROWS)
    rows = make_rows(array, dtype=torch.float64, device=CPU)
    batch = LabelledRows(rows, target, weight).take(torch.arange(5))
    for tensor in (batch.x, batch.target, batch.weight):
        tensor.zero_()
    # What a training does to a batch must not reach the targets.
    assert target.all()
    assert weight.all()


def test_directions_follow_their_rows():
    rows = DenseRows(torch.arange(12.0).view(6, 2))
    directions = DenseRows(torch.arange(16.0).view(4, 4))
    place = torch.tensor([2, -1, 0, 3, -1, 1])
    labelled = LabelledRows(rows, torch.zeros(6, 1), None, directions, place)
    batch = labelled.take(torch.tensor([3, 1, 0, 3]))
    found = batch.directions_of(torch.tensor([0, 2, 3]))
    # Rows 3, 0 and 3 again have the third, second and third of the stored ones.
    expected = torch.arange(16.0).view(4, 2, 2)[[3, 2, 3]]
    torch.testing.assert_close(found, expected)
