"""Rows in files, chunks, partitions and batches: fitted, transformed and scored by blocks.

What reads and mixes blocks is tested in tests/engine/optimisation/test_sources.py.
"""

import sys

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from several import in_processes

from skae import (
    PSD,
    RBM,
    AutoEncoder,
    Checkpoint,
    DeepBeliefNetwork,
    DeepBoltzmannMachine,
    DenoisingAutoEncoder,
    DenoisingImputer,
    ManifoldTangentClassifier,
    OutlierDetector,
    SparseCoder,
    StackedAutoEncoder,
    StackedClassifier,
    StackedRegressor,
    TableFeatures,
    TangentDistanceClassifier,
    transform_to_parquet,
)
from skae.engine.optimisation import rows, sources, windows
from skae.estimators import persistence
from skae.estimators.face import parts
from skae.frames import streams

N_ROWS, N_COLUMNS, N_IN_BLOCK = 1200, 6, 100
NAMES = [f"c{number}" for number in range(N_COLUMNS)]


@pytest.fixture(scope="module")
def X():  # noqa: N802
    random = np.random.default_rng(0)
    causes = random.normal(size=(N_ROWS, 2))
    noise = 0.3 * random.normal(size=(N_ROWS, N_COLUMNS))
    return (5 + causes @ random.normal(size=(2, N_COLUMNS)) + noise).astype(np.float32)


@pytest.fixture
def large(monkeypatch):
    """Rows as small as these are read by blocks, which are several to a window."""
    monkeypatch.setattr(rows, "SMALL", 1000)
    monkeypatch.setattr(sources, "_READ", 4 * N_COLUMNS * N_IN_BLOCK)
    monkeypatch.setattr(windows, "_WINDOW", 4 * N_COLUMNS * 400)
    monkeypatch.setattr(parts, "_PART", 8 * N_COLUMNS * 400)


def as_map(X, folder):
    np.save(folder / "rows.npy", X)
    return np.load(folder / "rows.npy", mmap_mode="r")


def as_zarr(X, folder):
    zarr = pytest.importorskip("zarr")
    chunks = N_IN_BLOCK, X.shape[1]
    array = zarr.create_array(folder / "rows.zarr", shape=X.shape, chunks=chunks, dtype=X.dtype)
    array[:] = X
    return array


def as_h5py(X, folder):
    h5py = pytest.importorskip("h5py")
    return h5py.File(folder / "rows.h5", "w").create_dataset(
        "rows", data=X, chunks=(N_IN_BLOCK, 2), maxshape=(None, X.shape[1])
    )


def as_dask(X, folder):
    da = pytest.importorskip("dask.array")
    return da.from_array(X, chunks=(N_IN_BLOCK, 4))


def as_parquet(X, folder):
    write_parquet(pd.DataFrame(X, columns=NAMES[: X.shape[1]]), folder / "rows.parquet")
    return pytest.importorskip("pyarrow.dataset").dataset(folder / "rows.parquet")


def write_parquet(frame, path):
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pa.Table.from_pandas(frame), path, row_group_size=N_IN_BLOCK)


def as_parquet_file(X, folder):
    as_parquet(X, folder)
    return pytest.importorskip("pyarrow.parquet").ParquetFile(folder / "rows.parquet")


def as_dask_frame(X, folder):
    dd = pytest.importorskip("dask.dataframe")
    return dd.from_pandas(pd.DataFrame(X, columns=NAMES[: X.shape[1]]), npartitions=12)


ARRAYS = {"map": as_map, "zarr": as_zarr, "h5py": as_h5py, "dask": as_dask}
TABLES = {"parquet": as_parquet, "parquet file": as_parquet_file, "dask frame": as_dask_frame}
FORMS = ARRAYS | TABLES
each_form = pytest.mark.parametrize("form", FORMS)


@pytest.fixture
def stored(form, X, tmp_path):
    return FORMS[form](X, tmp_path)


def weights_of(model):
    return np.concatenate([np.ravel(array) for array in model.weights_.values()])


BRIEFLY = {"max_iter": 6, "learning_rate": 0.01, "random_state": 0}


@pytest.fixture(scope="module")
def in_memory(X):
    return AutoEncoder(3, **BRIEFLY).fit(X)


# Each form


@pytest.mark.parametrize("form", ["map", "zarr", "h5py", "dask", "dask frame"])
def test_what_is_small_is_read_at_once(X, stored):
    in_memory = AutoEncoder(3, max_iter=2, random_state=0).fit(X)
    # The same bits as rows in memory, since they are in memory.
    model = AutoEncoder(3, max_iter=2, random_state=0).fit(stored)
    assert_array_equal(weights_of(model), weights_of(in_memory))


@pytest.mark.usefixtures("large")
@each_form
def test_rows_are_read_by_blocks(form, X, stored, in_memory):
    model = AutoEncoder(3, **BRIEFLY).fit(stored)
    # What is known of columns is the same, but for rounding.
    assert_allclose(model.columns_.mean, in_memory.columns_.mean, rtol=1e-6)
    assert_allclose(model.columns_.scale, in_memory.columns_.scale, rtol=1e-6)
    codes, expected = np.asarray(model.transform(stored)), model.transform(rows_like(X, form))
    assert codes.dtype == np.float32
    assert_allclose(codes, expected, rtol=1e-5, atol=1e-6)
    # In nats: as good as rows that were mixed as a whole.
    score = model.score(stored)
    assert_allclose(score, np.mean(model.score_samples(rows_like(X, form))), rtol=1e-5)
    assert abs(score - in_memory.score(X)) < 0.05
    # One seed has the same bits, however threads take turns; another has others.
    again = AutoEncoder(3, **BRIEFLY).fit(stored)
    assert_array_equal(weights_of(again), weights_of(model))
    assert again.loss_curve_ == model.loss_curve_
    before = model.score(stored)
    assert abs(model.partial_fit(stored).score(stored) - before) < 0.5


def rows_like(X, form):
    return pd.DataFrame(X, columns=NAMES) if form in TABLES else X


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("form", ["map", "zarr", "parquet"])
def test_weights_and_held_out_rows(form, X, stored):
    weight = np.arange(N_ROWS) % 3
    repeated = np.repeat(X, weight, axis=0)
    model = AutoEncoder(3, max_iter=2, random_state=0).fit(stored, sample_weight=weight)
    assert_allclose(model.columns_.mean, repeated.mean(0), rtol=1e-5)
    # A row of weight 0 is left out.
    assert_allclose(model.columns_.maximum, X[weight > 0].max(0))
    held = AutoEncoder(3, early_stopping=True, max_iter=2, random_state=0).fit(stored)
    assert len(held.validation_curve_) == held.n_iter_
    again = AutoEncoder(3, early_stopping=True, max_iter=2, random_state=0).fit(stored)
    assert held.validation_curve_ == again.validation_curve_


@pytest.mark.usefixtures("large")
def test_sorted_rows_are_learned_as_well_as_mixed_ones(X, tmp_path, monkeypatch):
    # Sixteen blocks to a window, as there are of 4 MiB.
    monkeypatch.setattr(sources, "_READ", 4 * N_COLUMNS * 25)
    ordered = X[np.argsort(X[:, 0])]
    model = AutoEncoder(3, random_state=0).fit(as_map(ordered, tmp_path))
    in_memory = AutoEncoder(3, random_state=0).fit(ordered)
    # Each block is of other rows, but they come in random order. In nats; over seeds 0.04 to 0.14.
    assert abs(model.score(X) - in_memory.score(X)) < 0.3
    mean = AutoEncoder(3, max_iter=1, learning_rate=1e-300, random_state=0).fit(X).score(X)
    assert model.score(X) > mean + 1.0


# Each family

FAMILIES = {
    "rbm": lambda: RBM(4),
    "psd": lambda: PSD(4),
    "coder": lambda: SparseCoder(5),
    "stack": lambda: StackedAutoEncoder((4, 2)),
    "whole stack": lambda: StackedAutoEncoder((4, 2), pretraining="simultaneous", fine_tuning=True),
    "belief network": lambda: DeepBeliefNetwork((4, 3)),
    "deep machine": lambda: DeepBoltzmannMachine((4, 3), n_chains=10),
    "classifier": lambda: StackedClassifier((4, 2)),
    "regressor": lambda: StackedRegressor((4, 2), output="linear"),
}


@pytest.mark.usefixtures("large")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore::skae.CollapsedCodeWarning")
@pytest.mark.parametrize("name", FAMILIES)
def test_families_are_trained_by_blocks(name, X, tmp_path):
    mapped = sources.Sliced(as_map(X, tmp_path), "the rows")
    y = (X[:, 0] > 5).astype(int)
    y = X[:, 0].astype(float) if name == "regressor" else y
    model = FAMILIES[name]().set_params(max_iter=2, random_state=0).fit(mapped, y)
    again = FAMILIES[name]().set_params(max_iter=2, random_state=0).fit(mapped, y)
    method = "predict" if hasattr(model, "predict") else "transform"
    results = getattr(model, method)(mapped)
    assert_array_equal(getattr(again, method)(X), getattr(model, method)(X))
    assert_allclose(results, getattr(model, method)(X), rtol=1e-5, atol=1e-6)
    assert_allclose(model.score(mapped, y), model.score(X, y), rtol=1e-5)


ALL_AT_ONCE = [
    ManifoldTangentClassifier((4,)),
    TangentDistanceClassifier(),
    OutlierDetector(),
    TableFeatures(),
    DenoisingImputer(),
    StackedClassifier((4,), output="kernel"),
]


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("model", ALL_AT_ONCE, ids=lambda model: type(model).__name__)
def test_who_needs_all_rows_at_once_says_so(model, X, tmp_path):
    source = sources.Sliced(as_map(X, tmp_path), "the rows")
    targets = [] if isinstance(model, DenoisingImputer | OutlierDetector) else [X[:, 0] > 5]
    with pytest.raises(ValueError, match=r"needs all rows in memory at once.*1200 rows of 6"):
        model.fit(source, *targets)


# Batches, once


def batches(X, size=130):
    for start in range(0, len(X), size):
        yield X[start : start + size]


@pytest.mark.usefixtures("large")
@pytest.mark.filterwarnings("ignore::skae.CollapsedCodeWarning")
@pytest.mark.parametrize(
    "make",
    [AutoEncoder, RBM, SparseCoder, lambda n: StackedAutoEncoder((n,))],
    ids=["auto-encoder", "rbm", "coder", "stack"],
)
def test_an_iterable_of_batches_is_one_pass(make, X):
    model = make(4).set_params(max_iter=1, random_state=0).fit(batches(X))
    by_hand = make(4).set_params(max_iter=1, random_state=0)
    for part in np.split(X, [520, 1040]):  # batches of 130 rows, as many as are a part
        by_hand.partial_fit(part)
    assert_array_equal(weights_of(model), weights_of(by_hand))
    assert_array_equal(model.transform(batches(X)), model.transform(X))
    assert_allclose(model.score(batches(X)), model.score(X), rtol=1e-6)
    # A fit begins anew, and a partial_fit goes on.
    assert_array_equal(weights_of(model.fit(batches(X))), weights_of(by_hand))
    assert (weights_of(model.partial_fit(batches(X))) != weights_of(by_hand)).any()


@pytest.mark.usefixtures("large")
def test_batches_may_be_frames(X):
    frame = pd.DataFrame(X, columns=NAMES)
    frame["kind"] = np.where(X[:, 0] > 5, "large", "small")
    model = AutoEncoder(3, max_iter=1, random_state=0)
    model.fit(frame[start : start + 200] for start in range(0, N_ROWS, 200))
    assert model.encoding_.names[-1] == "kind_small"
    codes = model.transform(frame[start : start + 200] for start in range(0, N_ROWS, 200))
    assert_allclose(codes, model.transform(frame), rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("large")
def test_bad_batches(X):
    model = AutoEncoder(3, max_iter=1, random_state=0)
    with pytest.raises(ValueError, match="read once, but max_iter=3"):
        AutoEncoder(3, max_iter=3).fit(batches(X))
    with pytest.raises(ValueError, match=r"gave none: found 0 sample\(s\)"):
        model.fit(iter([]))
    with pytest.raises(ValueError, match=r"Batch 2 has 5 columns.* 6 of an array"):
        model.fit([*batches(X[:260]), X[:50, :5]].__iter__())
    with pytest.raises(ValueError, match="Batch 1 is not numeric"):
        model.fit(iter([X[:50], np.full((5, N_COLUMNS), "a")]))
    with pytest.raises(ValueError, match="Batch 0 is a tuple"):
        model.fit(iter([(X, X)]))
    broken = X.copy()
    broken[1100, 2] = np.inf
    with pytest.raises(ValueError, match=r"In batches 8 to 9: .*infinity in row 60, column 2"):
        model.fit(batches(broken))
    with pytest.raises(ValueError, match="rows alone: y and sample_weight"):
        model.partial_fit(batches(X), X[:, 0])
    with pytest.raises(ValueError, match="read once: StackedClassifier cannot"):
        StackedClassifier((3,)).fit(batches(X), X[:, 0] > 5)
    # Whatever went wrong, the model is as it was before.
    assert not hasattr(model, "weights_")


# Results that are computed later, or written


@pytest.mark.parametrize("name", ["dask", "dask frame"])
def test_codes_of_dask_are_of_dask(name, X, tmp_path):
    model = AutoEncoder(3, max_iter=2, random_state=0).fit(rows_like(X, name))
    lazy = model.transform(FORMS[name](X, tmp_path))
    assert type(lazy).__module__.startswith("dask")
    codes = lazy.compute()
    assert_allclose(codes, model.transform(rows_like(X, name)), rtol=1e-5, atol=1e-6)
    if name == "dask frame":
        assert list(lazy.columns) == list(model.get_feature_names_out())
        assert (lazy.dtypes == codes.dtypes).all()
    else:
        assert (lazy.shape, lazy.dtype) == (codes.shape, codes.dtype)
        with pytest.raises(ValueError, match="X has 5 features, but AutoEncoder is expecting 6"):
            model.transform(FORMS[name](X[:, :5], tmp_path))


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("form", ["parquet", "zarr", "memory", "batches"])
def test_codes_are_written(form, X, tmp_path):
    pytest.importorskip("pyarrow")
    model = AutoEncoder(3, max_iter=2, random_state=0).fit(rows_like(X, form))
    given = {"memory": lambda X, folder: X, "batches": lambda X, folder: batches(X)}
    path = tmp_path / "codes.parquet"
    codes = transform_to_parquet(model, (FORMS | given)[form](X, tmp_path), path)
    assert codes.schema.names == list(model.get_feature_names_out())
    expected = model.transform(rows_like(X, form))
    assert_allclose(codes.to_table().to_pandas(), expected, rtol=1e-5, atol=1e-6)
    if form == "parquet":
        return
    # An error leaves neither half a file nor takes what was there.
    with pytest.raises(ValueError, match="In batches 0 to 0: X has 5 features"):
        transform_to_parquet(model, batches(X[:100, :5]), path)
    assert sorted(file.name for file in tmp_path.glob("codes*")) == ["codes.parquet"]
    assert codes.count_rows() == N_ROWS


# Tables with more than numbers


def mixed_table():
    random = np.random.default_rng(1)
    frame = pd.DataFrame(
        {
            "number": random.normal(size=N_ROWS) ** 3,
            "whole": random.integers(0, 50, N_ROWS),
            "two": 5.0 * random.integers(0, 2, N_ROWS),
            "text": random.choice(list("abcd"), N_ROWS, p=[0.5, 0.3, 0.195, 0.005]),
            "is": random.random(N_ROWS) < 0.3,
            "day": pd.Timestamp("2020") + pd.to_timedelta(random.integers(0, 999, N_ROWS), "D"),
        }
    )
    frame.loc[3, "number"] = np.nan
    frame.loc[frame["whole"] > 45, "text"] = None
    # In the last block alone.
    frame.loc[N_ROWS - 1, "number"] = 1234.5
    frame.loc[N_ROWS - 30 :, "text"] = "e"
    return frame


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("form", ["parquet", "dask frame"])
def test_tables_are_encoded_by_blocks(form, tmp_path, monkeypatch):
    frame = mixed_table()
    write_parquet(frame, tmp_path / "rows.parquet")
    if form == "parquet":
        stored = pytest.importorskip("pyarrow.dataset").dataset(tmp_path / "rows.parquet")
    else:
        stored = pytest.importorskip("dask.dataframe").from_pandas(frame, npartitions=12)
    in_memory = AutoEncoder(3, max_iter=5, random_state=0).fit(frame)
    model = AutoEncoder(3, max_iter=5, random_state=0).fit(stored)
    assert list(model.encoding_.names) == list(in_memory.encoding_.names)
    # Of a seventh of the rows, among which the greatest number is not.
    monkeypatch.setattr(streams, "_ROWS", N_ROWS // 7)
    of_some = AutoEncoder(3, max_iter=1, random_state=0).fit(stored).encoding_.variables
    for variable, expected in zip(of_some, in_memory.encoding_.variables, strict=True):
        assert (variable.minimum, variable.maximum) == (expected.minimum, expected.maximum)
    both = zip(model.encoding_.variables, in_memory.encoding_.variables, strict=True)
    for variable, expected in both:
        # Exact whatever block they are in: categories, counts, extremes, whole numbers.
        for name in ("kind", "categories", "pooled", "minimum", "maximum", "is_whole", "columns"):
            found, wanted = getattr(variable, name), getattr(expected, name)
            assert repr(found) == repr(wanted), (variable.name, name)
        # Quartiles are those of rows spread over all: here all of them.
        assert_allclose(variable.width, expected.width, rtol=1e-12)
    assert_allclose(model.transform(stored), model.transform(frame), rtol=1e-5, atol=1e-6)
    assert abs(model.score(stored) - in_memory.score(frame)) < 0.3


def test_a_dataset_has_columns_that_are_not_in_its_files(X, tmp_path, large):
    for month in (1, 2):
        (tmp_path / f"month={month}").mkdir()
        frame = pd.DataFrame(X[::month], columns=NAMES)
        write_parquet(frame, tmp_path / f"month={month}" / "rows.parquet")
    rows = pytest.importorskip("pyarrow.dataset").dataset(tmp_path, partitioning="hive")
    # It is in the name of each file, of which there are 1,200 and 600 rows.
    columns = AutoEncoder(2, max_iter=1, random_state=0).fit(rows).columns_
    assert_allclose(columns.mean[-1], 4 / 3)


@pytest.mark.usefixtures("large")
def test_a_column_that_becomes_text_is_named(X, tmp_path):
    dd = pytest.importorskip("dask.dataframe")
    dask = pytest.importorskip("dask")
    frame = pd.DataFrame(X, columns=NAMES)

    def part(number):
        rows = frame[100 * number : 100 * number + 100].astype(object if number == 9 else float)
        if number == 9:
            rows.iloc[50, 2] = "many"
        return rows

    parts_of_frame = [dask.delayed(part)(number) for number in range(12)]
    broken = dd.from_delayed(parts_of_frame, meta=frame[:0].astype(float), verify_meta=False)
    with pytest.raises(ValueError, match=r"In block 9 of the frame.*\(rows 900.*'c2'.*mixes text"):
        AutoEncoder(3, max_iter=1).fit(broken)


# Bad input


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize(
    ("value", "make", "says"),
    [
        (np.nan, RBM, "contains NaN in row 1034, column 2.*in block 10 of the zarr Array"),
        (np.inf, AutoEncoder, "contains infinity in row 1034, column 2.*in block 10"),
    ],
)
def test_what_is_not_finite_is_found_before_training(value, make, says, X, tmp_path):
    broken = X.copy()
    broken[1034, 2] = value
    stored = as_zarr(broken, tmp_path)
    with pytest.raises(ValueError, match=says):
        make(3, max_iter=1).fit(stored)
    model = make(3, max_iter=1, random_state=0).fit(X)
    # So it is in one pass of anything else.
    for method in ("transform", "score", "partial_fit"):
        with pytest.raises(ValueError, match=says):
            getattr(model, method)(stored)


@pytest.mark.usefixtures("large")
def test_gaps_are_not_observed_in_whatever_block(X, tmp_path):
    gappy = X.copy()
    gappy[1034, 2] = np.nan
    model = AutoEncoder(3, max_iter=2, random_state=0).fit(as_zarr(gappy, tmp_path))
    assert model.columns_.has_gaps
    assert np.isfinite(model.transform(gappy)).all()


@pytest.mark.usefixtures("large")
def test_bad_sources(X, tmp_path, monkeypatch):
    dataset = as_h5py(X, tmp_path)
    model = AutoEncoder(3, max_iter=2, random_state=0)

    def grow(epoch):
        dataset.resize((N_ROWS + 7, N_COLUMNS))

    monkeypatch.setattr("skae.estimators.face.training.ProgressLine", lambda name: grow)
    with pytest.raises(ValueError, match=r"h5py Dataset had 1200 rows.* has 1207 now"):
        AutoEncoder(3, max_iter=2, random_state=0, verbose=True).fit(dataset)
    model.fit(X)
    with pytest.raises(ValueError, match="X has 4 features, but AutoEncoder is expecting 6"):
        model.transform(dataset.file.create_dataset("other", data=X[:, :4]))
    with pytest.raises(ValueError, match=r"0 sample\(s\)"):
        model.fit(dataset.file.create_dataset("empty", shape=(0, 3), dtype="f4"))
    with pytest.raises(ValueError, match=r"not numeric|non-numeric|convert string"):
        model.fit(dataset.file.create_dataset("texts", data=[[b"a", b"b"]] * 5))
    da = pytest.importorskip("dask.array")
    lazy = da.from_array(X)
    with pytest.raises(ValueError, match="compute_chunk_sizes"):
        model.fit(lazy[lazy[:, 0] > 5])
    lazy = pytest.importorskip("polars").DataFrame(X).lazy()
    with pytest.raises(ValueError, match=r"polars LazyFrame.* Pass what X\.collect\(\) returns"):
        model.fit(lazy)


def test_the_extra_is_named_that_brings_what_is_needed(X, tmp_path, monkeypatch):
    model = AutoEncoder(2, max_iter=1, random_state=0).fit(X)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"pip install skae\[files\]"):
        transform_to_parquet(model, X, tmp_path / "codes.parquet")


@pytest.mark.parametrize("unit", ["epochs", "minutes"])
def test_a_killed_fit_of_rows_that_are_read_ahead_goes_on(X, tmp_path, large, monkeypatch, unit):
    class KilledError(BaseException):
        """Stands for SIGKILL."""

    write, written = persistence.write, []

    def kill(*args, **options):
        if len(written) == 3:
            raise KilledError
        write(*args, **options)
        written.append(args)

    # The last is of two processes, of which the second has its rows in memory.
    for number, (form, size) in enumerate([(as_map, 1), (as_parquet, 1), (as_zarr, 2)]):
        rows = form(X, tmp_path)

        def fit(rank=None, callbacks=None, rows=rows, size=size):
            if rank is None and size > 1:
                return in_processes(size, lambda rank: fit(rank, callbacks))[0]
            own = {"max_iter": 5, "batch_size": 70, "random_state": 0, "early_stopping": True}
            return DenoisingAutoEncoder(2, callbacks=callbacks, **own).fit(X[:90] if rank else rows)

        plain = fit()
        every = {"every": 1 if unit == "epochs" else 0, "unit": unit}
        checkpoint = Checkpoint(tmp_path / f"{number}.skae", **every)
        monkeypatch.setattr(persistence, "write", kill)
        written.clear()
        with pytest.raises(KilledError):
            fit(callbacks=checkpoint)
        monkeypatch.setattr(persistence, "write", write)
        # Blocks, windows, batches and noise are drawn as if nothing had happened.
        found = fit(callbacks=checkpoint)
        assert found.validation_curve_ == plain.validation_curve_
        assert found.loss_curve_ == plain.loss_curve_
        assert np.array_equal(found.components_, plain.components_)
