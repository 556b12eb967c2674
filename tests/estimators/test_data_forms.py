"""The same numbers give the same codes, in whatever container and dtype they come."""

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

from skae import AutoEncoder

SPARSE = [
    sparse.csr_matrix,
    sparse.csr_array,
    sparse.csc_matrix,
    sparse.csc_array,
    sparse.coo_array,
]

# Training amplifies the rounding of the columns' statistics by a few orders of magnitude.
ROUNDING = {"rtol": 1e-8, "atol": 1e-10}


def as_read_only(X, folder):
    X = X.copy()
    X.flags.writeable = False
    return X


def as_numpy_map(X, folder):
    path = folder / "X.npy"
    np.save(path, X)
    return np.load(path, mmap_mode="r")


def as_raw_map(X, folder):
    path = folder / "X.dat"
    X.tofile(path)
    return np.memmap(path, dtype=X.dtype, mode="r", shape=X.shape)


def as_joblib_map(X, folder):
    path = folder / "X.joblib"
    joblib.dump(X, path)
    return joblib.load(path, mmap_mode="r")


def as_tracked_tensor(X, folder):
    return torch.tensor(X, requires_grad=True)


LAYOUTS = {
    "list": lambda X, folder: X.tolist(),
    "Fortran order": lambda X, folder: np.asfortranarray(X),
    "strided": lambda X, folder: np.repeat(np.repeat(X, 2, axis=0), 3, axis=1)[::2, ::3],
    "reversed": lambda X, folder: np.ascontiguousarray(X[::-1, ::-1])[::-1, ::-1],
    "big-endian": lambda X, folder: X.astype(">f8"),
    "long double": lambda X, folder: X.astype(np.longdouble),
    "objects": lambda X, folder: X.astype(object),
    "read-only": as_read_only,
    "np.load map": as_numpy_map,
    "np.memmap": as_raw_map,
    "joblib map": as_joblib_map,
    "Fortran map": lambda X, folder: as_numpy_map(np.asfortranarray(X), folder),
    "pandas": lambda X, folder: pd.DataFrame(X),
    "named pandas": lambda X, folder: pd.DataFrame(X, columns=list("abcd")),
    "nullable pandas": lambda X, folder: pd.DataFrame(X).convert_dtypes(),
    "polars": lambda X, folder: pl.DataFrame(X, schema=list("abcd")),
    "tensor": lambda X, folder: torch.tensor(X),
    "tensor with gradient": as_tracked_tensor,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_give_the_same_codes(make_model, X, layout, tmp_path):
    other = LAYOUTS[layout](X, tmp_path)
    expected = make_model().fit(X)
    model = make_model().fit(other)
    # The numbers are the same; sums over columns may round otherwise in another layout.
    for name, weight in expected.weights_.items():
        assert_allclose(model.weights_[name], weight, **ROUNDING)
    assert_allclose(model.transform(other), expected.transform(X), **ROUNDING)
    assert_allclose(model.score_samples(other), expected.score_samples(X), **ROUNDING)
    assert_allclose(model.reconstruct(other), expected.reconstruct(X), **ROUNDING)


@pytest.mark.parametrize("container", SPARSE)
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64, np.uint8, bool])
def test_sparse_data_give_the_codes_of_dense_data(make_model, counts, container, dtype):
    dense = counts.astype(dtype)
    expected = make_model().fit(dense)
    model = make_model().fit(container(dense))
    # The batches are the same numbers after densifying, in the same order; only the
    # statistics of the columns add up in another order, in float64 for every dtype.
    close = ROUNDING if model.transform(dense).dtype == np.float64 else {"rtol": 1e-4}
    assert_allclose(model.transform(container(dense)), expected.transform(dense), **close)
    assert_allclose(model.score_samples(container(dense)), expected.score_samples(dense), **close)
    # A model does not remember how its training data were stored.
    assert_array_equal(model.transform(dense), model.transform(container(dense)))


@pytest.mark.parametrize(
    "dtype",
    [
        np.float32,
        np.float16,
        np.int8,
        np.int16,
        np.int32,
        np.int64,
        np.uint8,
        np.uint16,
        np.uint32,
        np.uint64,
    ],
)
def test_dtypes_give_the_same_codes(make_model, counts, dtype):
    model = make_model().fit(counts.astype(np.float64))
    # Small integers are exact in each dtype: only the rounding of the arithmetic differs.
    assert_allclose(
        model.transform(counts.astype(dtype)),
        model.transform(counts.astype(np.float64)),
        rtol=1e-5,
    )


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (np.float64, np.float64),
        (np.float32, np.float32),
        (np.int64, np.float64),
        (np.uint8, np.float32),
        (bool, np.float32),
    ],
)
def test_dtype_of_the_output(make_model, counts, dtype, expected):
    data = counts.astype(dtype)
    model = make_model().fit(data)
    codes = model.transform(data)
    # As documented: float32 for float32, booleans and small integers, else float64.
    assert codes.dtype == expected
    assert model.fit_transform(data).dtype == expected
    assert model.score_samples(data).dtype == expected
    assert model.inverse_transform(codes).dtype == expected
    # The weights are kept in the precision in which they were trained.
    assert all(weight.dtype == expected for weight in model.weights_.values())


def test_booleans_take_bernoulli_units(make_unit_model, counts):
    model = make_unit_model().fit(counts > 0)
    # Booleans lie in [0, 1], so loss="auto" sees binary data.
    assert [name for name, _ in model.columns_.parts] == ["bernoulli"]
    reconstruction = model.reconstruct(counts > 0)
    # Means of Bernoulli units are probabilities.
    assert ((reconstruction > 0) & (reconstruction < 1)).all()


def test_half_precision_tensors(make_model, counts):
    half = torch.tensor(counts).bfloat16()
    # Small integers are exact in bfloat16, which NumPy does not have.
    assert_array_equal(
        make_model().fit(half).transform(half),
        make_model().fit(counts.astype(np.float32)).transform(counts.astype(np.float32)),
    )


def test_a_tensor_with_gradient_is_left_alone(make_model, X):
    tensor = torch.tensor(X, requires_grad=True)
    make_model().fit(tensor).transform(tensor)
    # Fitting reads the numbers: it neither tracks nor changes them.
    assert tensor.grad is None
    assert_array_equal(tensor.detach().numpy(), X)


@pytest.mark.parametrize("layout", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("loss", ["gaussian", "squared_error"])
def test_input_is_never_changed(make_auto_encoder, X, layout, dtype, loss):
    assert_not_changed(make_auto_encoder(loss=loss), np.array(X, dtype=dtype, order=layout))


@pytest.mark.parametrize("layout", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("variance", ["unit", "learned"])
def test_input_of_a_gaussian_machine_is_never_changed(make_rbm, X, layout, dtype, variance):
    model = make_rbm(visible="gaussian", visible_variance=variance)
    for data in (X, (X - X.mean(axis=0)) / X.std(axis=0)):
        assert_not_changed(model, np.array(data, dtype=dtype, order=layout))


@pytest.mark.parametrize("layout", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("centered", [False, True])
def test_input_of_a_binary_machine_is_never_changed(make_rbm, counts, layout, dtype, centered):
    model = make_rbm(visible="bernoulli", centered=centered)
    assert_not_changed(model, np.array(counts > 0, dtype=dtype, order=layout))


def assert_not_changed(model, data):
    before = data.copy()
    model.fit(data).partial_fit(data)
    codes = model.transform(data)
    codes_before = codes.copy()
    model.inverse_transform(codes)
    model.score_samples(data)
    if hasattr(model, "gibbs"):
        model.gibbs(data)
        model.sample(40, init=data, burn_in=2)
        model.free_energy(data)
    # In-place kernels work on copies: what the user passed is the user's.
    assert_array_equal(data, before)
    assert_array_equal(codes, codes_before)


def test_sparse_matrix_is_densified_in_small_parts_only(make_model, monkeypatch):
    data = sparse.random_array(
        (200, 200_000), density=1e-4, format="csr", rng=np.random.default_rng(0)
    )
    sizes = []
    to_dense = type(data).toarray

    def recording_to_dense(self, *args, **kwargs):
        sizes.append(self.shape[0] * self.shape[1])
        return to_dense(self, *args, **kwargs)

    monkeypatch.setattr(type(data), "toarray", recording_to_dense)
    model = make_model(n_components=1, max_iter=1, batch_size=8).fit(data)
    model.transform(data)
    # A batch, or a block of 16 MiB, is dense at a time: never the 320 MB as a whole.
    assert sizes
    assert max(sizes) <= max(8 * 200_000, 2**21)


def test_wide_sparse_matrix_needs_little_memory(make_auto_encoder):
    import tracemalloc

    data = sparse.random_array(
        (200, 200_000), density=1e-4, format="csr", rng=np.random.default_rng(0)
    )
    model = make_auto_encoder(n_components=1, max_iter=1, batch_size=8, corruption=None)
    tracemalloc.start()
    try:
        model.fit(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Dense, the matrix would take 320 MB; NumPy's share of one block is a few of 16 MiB.
    assert peak < 120e6


def test_sparse_columns_without_a_nonzero_entry(make_model):
    data = sparse.csr_array(([1.0, 2.0], ([0, 3], [1, 1])), shape=(5, 3))
    codes = make_model(n_components=1).fit_transform(data)
    # Empty columns and rows are zeros like others: constant columns say nothing.
    assert np.isfinite(codes).all()
    assert_array_equal(codes[1], codes[2])


def test_duplicate_entries_of_a_sparse_matrix_add_up(make_model):
    duplicated = sparse.csr_matrix(([1.0, 1.0, 3.0, 1.0], [0, 0, 1, 0], [0, 2, 3, 4]), shape=(3, 2))
    model = make_model().fit(duplicated)
    # SciPy's meaning of repeated entries.
    assert_array_equal(
        model.transform(duplicated),
        make_model().fit(duplicated.toarray()).transform([[2, 0], [0, 3], [1, 0]]),
    )


def test_pandas_output(make_model, X):
    frame = pd.DataFrame(X, columns=["age", "size", "cost", "time"], index=range(100, 140))
    model = make_model().set_output(transform="pandas").fit(frame)
    codes = model.transform(frame)
    prefix = type(model).__name__.lower()
    # scikit-learn's names for learned features, and the rows' own index.
    assert list(codes.columns) == [f"{prefix}{i}" for i in range(3)]
    assert list(codes.index) == list(frame.index)
    assert_allclose(codes, make_model().fit(X).transform(X), **ROUNDING)
    assert_array_equal(model.feature_names_in_, frame.columns)
    assert_array_equal(model.get_feature_names_out(), codes.columns)
    # What comes out of transform goes into inverse_transform.
    assert model.inverse_transform(codes).shape == X.shape


def test_polars_in_and_out(make_model, X):
    frame = pl.DataFrame(X, schema=["age", "size", "cost", "time"])
    model = make_model().set_output(transform="polars")
    codes = model.fit_transform(frame)
    assert isinstance(codes, pl.DataFrame)
    # Both ways through the container keep the numbers.
    assert_allclose(codes.to_numpy(), make_model().fit(X).transform(X), **ROUNDING)
    assert_array_equal(model.feature_names_in_, frame.columns)
    assert model.inverse_transform(codes).shape == X.shape


def test_frame_columns_of_several_dtypes(make_model):
    columns = {
        "float": [0.5, -1.5, 2.0, 1.0],
        "integer": [1, 2, 3, 5],
        "boolean": [True, False, True, True],
        "small": np.array([1, 2, 3, 1], dtype=np.int8),
    }
    numbers = np.column_stack([np.asarray(c, dtype=float) for c in columns.values()])
    expected = make_model().fit(numbers).transform(numbers)
    for frame in (pd.DataFrame(columns), pl.DataFrame(columns)):
        # Every numeric column counts as its numbers.
        assert_array_equal(make_model().fit(frame).transform(frame), expected)


def test_sparse_data_frame(make_model, counts):
    frame = pd.DataFrame.sparse.from_spmatrix(sparse.csr_matrix(counts.astype(float)))
    # pandas' sparse columns hold the same numbers.
    assert_allclose(
        make_model().fit(frame).transform(frame),
        make_model().fit(counts.astype(float)).transform(counts.astype(float)),
        **ROUNDING,
    )


@pytest.mark.parametrize(
    "shape", [(1, 4), (1, 1), (20, 1), (5, 4), (2, 30)], ids=lambda shape: f"{shape[0]}x{shape[1]}"
)
@pytest.mark.parametrize("convert", [np.asarray, sparse.csr_array])
@pytest.mark.parametrize("units", ["bernoulli", "gaussian", "auto"])
def test_small_shapes(make_unit_model, shape, convert, units):
    data = convert(np.random.default_rng(0).random(shape))
    if make_unit_model.units == "loss" and units == "auto":
        units = "squared_error"  # "auto" is "bernoulli" here
    model = make_unit_model(n_components=7, batch_size=50, **{make_unit_model.units: units})
    codes = model.fit_transform(data)
    # One row, one column, fewer rows than a batch, more units than features: all work.
    assert codes.shape == (shape[0], 7)
    assert np.isfinite(codes).all()
    assert np.isfinite(model.score_samples(data)).all()
    assert model.reconstruct(data).shape == shape


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, -3.0, 1e12, 1e-12])
@pytest.mark.parametrize("units", ["auto", "gaussian"])
def test_constant_data(make_model, value, units):
    data = np.full((30, 4), value)
    model = make_model(**{make_model.units: units}).fit(data)
    # Nothing to learn is no error, no warning and no division by a scale of zero.
    assert np.isfinite(model.transform(data)).all()
    assert np.isfinite(model.score(data))


def test_constant_columns_beside_others(make_model, X):
    constant = np.column_stack([X, np.full(len(X), 0.1), np.full(len(X), -1e9)])
    model = make_model().fit(constant)
    # A constant has nothing to standardise: its scale is 1, not its rounding error.
    assert_array_equal(model.columns_.scale[4:], 1.0)
    # Rounding of the mean of 0.1 or -1e9 stays rounding.
    assert_allclose(model.columns_.shift[4:], [0.1, -1e9], rtol=1e-12)
    assert np.isfinite(model.transform(constant)).all()


@pytest.mark.parametrize("offset", [1e6, -1e8])
def test_large_offsets_do_not_matter(make_model, X, offset):
    # Columns are standardised in two passes' accuracy, in float64: a date in seconds or a
    # coordinate in metres is as good as a small number.
    assert_allclose(
        make_model().fit(X + offset).transform(X + offset),
        make_model().fit(X).transform(X),
        atol=1e-5,
    )


@pytest.mark.parametrize("n_rows", [15, 16, 17, 33])
def test_all_rows_are_trained_on_whatever_the_batch_size(n_rows):
    data = np.eye(n_rows)[:, ::-1]
    model = AutoEncoder(2, max_iter=1, batch_size=16, loss="squared_error", random_state=0)
    untrained = AutoEncoder(
        2, max_iter=1, batch_size=16, loss="squared_error", learning_rate=1e-300, random_state=0
    )
    before, after = untrained.fit(data).weights_["weight_0"], model.fit(data).weights_["weight_0"]
    # Row i is the only one to feed column i, so each column's weights move if no row,
    # such as those of a last short batch, was dropped.
    assert (before != after).any(axis=0).all()


def test_blocks_do_not_show(make_model, X, monkeypatch):
    model = make_model().fit(X)
    expected = model.transform(X), model.score_samples(X), model.reconstruct(X)
    monkeypatch.setattr("skae.engine.optimisation.rows._BLOCK", 8 * 4 * 7)
    # Rows are mapped block by block, seven at a time here; each row's result is its own.
    assert_allclose(model.transform(X), expected[0], rtol=1e-12)
    assert_allclose(model.score_samples(X), expected[1], rtol=1e-12)
    assert_allclose(model.reconstruct(X), expected[2], rtol=1e-12)
    again = make_model().fit(X)
    # Statistics of the columns merge over blocks to the same numbers.
    assert_allclose(again.columns_.shift, model.columns_.shift, rtol=1e-12)
    assert_allclose(again.columns_.scale, model.columns_.scale, rtol=1e-12)


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array])
def test_streamed_and_resident_rows_train_alike(make_model, X, container, tmp_path, monkeypatch):
    resident = make_model().fit(X)
    monkeypatch.setattr("skae.engine.optimisation.rows._SMALL_MAP", 0)
    data = as_numpy_map(X, tmp_path) if container is np.asarray else container(X)
    streamed = make_model().fit(data)
    # Rows that are read one batch at a time are the same rows.
    for name, weight in resident.weights_.items():
        assert_allclose(streamed.weights_[name], weight, **ROUNDING)
