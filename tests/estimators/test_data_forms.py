"""The same numbers give the same codes, in whatever container and dtype they come.

What reads rows and describes columns is tested itself; each estimator is tested to use it.
"""

import tracemalloc

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from registry import CASES, LEARNERS, TRANSFORMERS, families
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.utils import get_tags

import skae
from skae import AutoEncoder, Rectifier
from skae._validation import check_rows, computing_dtype
from skae.engine.optimisation.sources import memory_map
from skae.estimators.face.columns import describe_columns

each_case = pytest.mark.parametrize("case", CASES, ids=str)
each_learner = pytest.mark.parametrize("case", LEARNERS, ids=str)

CONTAINERS = [
    sparse.csr_matrix,
    sparse.csr_array,
    sparse.csc_matrix,
    sparse.csc_array,
    sparse.coo_array,
]
# Training amplifies the rounding of the columns' statistics by a few orders of magnitude.
ROUNDING = {"rtol": 1e-8, "atol": 1e-10}


class Rows(BaseEstimator):
    """An estimator that only looks at its data."""


def checked(X):
    return check_rows(Rows(), X, reset=True)


# The function that reads rows


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
def test_layouts_hold_the_same_numbers(X, layout, tmp_path):
    data = LAYOUTS[layout](X, tmp_path)
    rows = checked(data)
    assert_array_equal(rows, X)
    # In a dtype that torch has; a memory map stays one.
    assert rows.dtype == np.float64
    assert (layout.endswith("map") or layout == "np.memmap") == (memory_map(rows) is not None)
    model = AutoEncoder(3, max_iter=3, random_state=0)
    # Sums over columns may round otherwise in another layout.
    expected = model.fit(X).transform(X)
    assert_allclose(model.fit(data).transform(data), expected, **ROUNDING)


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64, np.uint8, bool])
def test_sparse_data_hold_the_same_numbers(counts, container, dtype):
    dense = counts.astype(dtype)
    rows = checked(container(dense))
    assert rows.format == "csr"
    assert rows.dtype == dtype
    assert_array_equal(rows.toarray(), dense)


@pytest.mark.parametrize(
    ("dtype", "kept", "computed"),
    [
        (np.float64, np.float64, torch.float64),
        (np.float32, np.float32, torch.float32),
        (np.float16, np.float32, torch.float32),
        (np.int8, np.int8, torch.float32),
        (np.int16, np.int16, torch.float32),
        (np.int32, np.int32, torch.float64),
        (np.int64, np.int64, torch.float64),
        (np.uint8, np.uint8, torch.float32),
        (np.uint16, np.uint16, torch.float32),
        (np.uint32, np.uint32, torch.float64),
        (np.uint64, np.uint64, torch.float64),
        (bool, bool, torch.float32),
    ],
)
def test_dtypes_hold_the_same_numbers(counts, dtype, kept, computed):
    rows = checked(counts.astype(dtype))
    assert rows.dtype == kept
    assert_array_equal(rows, counts.astype(dtype))
    # float32 wherever it holds the numbers exactly; a GPU of Apple's has no other.
    assert computing_dtype(rows, torch.device("cpu")) == computed
    assert computing_dtype(rows, torch.device("mps")) == torch.float32


def test_half_precision_tensors(counts):
    # Small integers are exact in bfloat16, which NumPy does not have.
    assert_array_equal(checked(torch.tensor(counts).bfloat16()), counts)


def test_a_tensor_with_gradient_is_left_alone(X):
    tensor = torch.tensor(X, requires_grad=True)
    AutoEncoder(3, max_iter=2).fit(tensor).transform(tensor)
    # Fitting reads the numbers: it neither tracks nor changes them.
    assert tensor.grad is None
    assert_array_equal(tensor.detach().numpy(), X)


def test_frame_columns_of_several_dtypes():
    columns = {
        "float": [0.5, -1.5, 2.0, 1.0],
        "integer": [1, 2, 3, 5],
        "boolean": [True, False, True, True],
        "small": np.array([1, 2, 3, 1], dtype=np.int8),
    }
    numbers = np.column_stack([np.asarray(c, dtype=float) for c in columns.values()])
    for frame in (pd.DataFrame(columns), pl.DataFrame(columns)):
        # Every numeric column counts as its numbers.
        assert_array_equal(checked(frame), numbers)


def test_decimals_are_numbers():
    cents = np.arange(12.0).reshape(6, 2) / 4
    frame = pl.DataFrame(cents, schema=["a", "b"]).cast(pl.Decimal(10, 2))
    objects = pd.DataFrame(frame.rows(), columns=["a", "b"])
    for decimals in (frame, frame.to_arrow(), objects):
        assert_array_equal(checked(decimals), cents)
        # Whatever reads the rows.
        assert_array_equal(Rectifier().fit(decimals).transform(decimals), cents)


def test_sparse_data_frame(counts):
    frame = pd.DataFrame.sparse.from_spmatrix(sparse.csr_matrix(counts.astype(float)))
    rows = checked(frame)
    # pandas' sparse columns hold the same numbers.
    assert_array_equal(rows.toarray() if sparse.issparse(rows) else rows, counts)


# The function that describes columns


def described(X, loss="gaussian", weight=None):
    return describe_columns(checked(X), loss, weight, X)


@pytest.mark.parametrize("container", [np.asfortranarray, sparse.csr_array])
@pytest.mark.parametrize("weighted", [False, True])
def test_columns_are_described_alike(counts, container, weighted):
    weight = np.arange(40) % 3 if weighted else None
    repeated = counts if weight is None else np.repeat(counts, weight, axis=0)
    columns = described(container(counts.astype(float)), weight=weight)
    # In sparse data as in dense; weights are repetitions.
    assert_allclose(columns.mean, repeated.mean(0))
    assert_allclose(columns.shift, repeated.mean(0))
    assert_allclose(columns.scale, repeated.std(0))
    assert_array_equal(columns.minimum, repeated.min(0))
    assert_array_equal(columns.maximum, repeated.max(0))


def test_duplicate_entries_of_a_sparse_matrix_add_up():
    duplicated = sparse.csr_matrix(([1.0, 1.0, 3.0, 1.0], [0, 0, 1, 0], [0, 2, 3, 4]), shape=(3, 2))
    # SciPy's meaning of repeated entries: rows (2, 0), (0, 3), (1, 0).
    columns = described(duplicated)
    assert_array_equal(columns.mean, [1, 1])
    assert_array_equal(columns.maximum, [2, 3])
    model = AutoEncoder(3, max_iter=2, random_state=0).fit(duplicated)
    assert_array_equal(model.transform(duplicated), model.transform([[2, 0], [0, 3], [1, 0]]))


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, -3.0, 1e12, 1e-12, -1e9])
def test_constant_columns(X, value):
    columns = described(np.column_stack([X, np.full(len(X), value)]))
    # A constant has nothing to standardise: its scale is 1, not its rounding error.
    assert columns.scale[4] == 1.0
    # Rounding of the mean of 0.1 or -1e9 stays rounding.
    assert_allclose(columns.shift[4], value, rtol=1e-12)
    assert (columns.scale[:4] != 1.0).all()


@pytest.mark.parametrize("offset", [1e6, -1e8])
def test_large_offsets_do_not_matter(X, offset):
    # Columns are standardised in two passes' accuracy, in float64: a date in seconds or a
    # coordinate in metres is as good as a small number.
    assert_allclose(described(X + offset).scale, X.std(0), rtol=1e-6)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ([[0.0, 1.0], [1.0, 1.0]], ["bernoulli"]),
        ([[False, True], [True, True]], ["bernoulli"]),
        ([[0.0, 0.5], [0.2, 0.7]], ["bernoulli"]),
        ([[0.0, 1.0], [1.0, 1.5]], ["bernoulli", "gaussian"]),
        ([[-0.1, 1.0], [1.0, 1.0]], ["gaussian"]),
    ],
)
def test_auto_is_bernoulli_for_data_in_the_unit_interval(data, expected):
    assert [name for name, _ in described(np.array(data), "auto").parts] == expected


def test_columns_of_one_kind_are_one_part(X):
    kinds = np.eye(3)[np.arange(40) % 3]
    loss = [("gaussian", [i]) for i in range(4)]
    loss += [("multinomial", [4, 5, 6]), ("multinomial", [7, 8, 9])]
    parts = described(np.column_stack([X, kinds, kinds]), loss).parts
    # The loss is a sum over columns, however they were listed; one-hot variables stay apart.
    assert [name for name, _ in parts] == ["gaussian", "multinomial", "multinomial"]
    assert_array_equal(parts[0][1], [0, 1, 2, 3])
    assert_array_equal(parts[2][1], [7, 8, 9])


# Each estimator uses them


def forms_of(X, folder):
    names = [f"c{i}" for i in range(X.shape[1])]
    return {
        "pandas": pd.DataFrame(X, columns=names),
        "polars": pl.DataFrame(X, schema=names),
        "map": as_numpy_map(np.asfortranarray(X), folder),
        "list": X.tolist(),
        "sparse": sparse.csc_array(X),
    }


@pytest.mark.parametrize("case", families(CASES), ids=str)
def test_forms_of_data(case, tmp_path):
    expected = case.output(case.fitted)
    for form, data in forms_of(case.X, tmp_path).items():
        if form == "sparse" and not get_tags(case.make()).input_tags.sparse:
            continue
        # A model does not remember how its training data were stored.
        model = case.fitted if form == "list" else case.fit(data)
        for shown in (data, case.X)[: 1 if hasattr(model, "feature_names_in_") else 2]:
            output = case.output(model, shown)
            if case.is_classifier:
                assert_array_equal(output, expected, err_msg=form)
            else:
                assert_allclose(output, expected, rtol=1e-6, atol=1e-8, err_msg=form)


@pytest.mark.parametrize("case", families(TRANSFORMERS), ids=str)
def test_dtype_of_the_output(case):
    images, model = np.round(20 * (case.X - case.X.min(0))), case.make()
    for dtype, expected in (
        (np.float64, np.float64),
        (np.float32, np.float32),
        (np.int64, np.float64),
        (np.uint8, np.float32),
    ):
        data = images.astype(dtype)
        codes = model.fit_transform(data)
        # As documented: float32 for float32, booleans and small integers, else float64.
        assert codes.dtype == model.transform(data).dtype == expected
        if hasattr(model, "score_samples"):
            assert model.score_samples(data).dtype == expected
            assert model.inverse_transform(codes).dtype == expected
        if hasattr(model, "weights_"):
            # The weights are kept in the precision in which they were trained.
            assert all(weight.dtype == expected for weight in model.weights_.values())


@each_case
def test_input_is_never_changed(case):
    for layout, dtype in (("C", np.float64), ("F", np.float32)):
        data = np.array(case.X, dtype=dtype, order=layout)
        before = data.copy()
        model = case.fit(data)
        output = case.output(model, data)
        output_before = output.copy()
        if case.is_transformer and hasattr(model, "inverse_transform"):
            model.inverse_transform(output)
        for name in ("score_samples", "gibbs", "free_energy"):
            if hasattr(model, name):
                getattr(model, name)(data)
        # In-place kernels work on copies: what the user passed is the user's.
        assert_array_equal(data, before)
        assert_array_equal(output, output_before)


@pytest.mark.parametrize("variance", ["unit", "learned"])
@pytest.mark.parametrize("standardized", [False, True])
def test_input_of_a_gaussian_machine_is_never_changed(X, variance, standardized):
    data = (X - X.mean(axis=0)) / X.std(axis=0) if standardized else X
    before = data.copy()
    model = skae.RBM(3, visible="gaussian", visible_variance=variance, max_iter=2, random_state=0)
    model.fit(data).partial_fit(data).sample(40, init=data, burn_in=2)
    # Data that need no standardisation are used as they are, and not used up.
    assert_array_equal(data, before)


@pytest.mark.parametrize("case", families(TRANSFORMERS), ids=str)
def test_output_frames(case):
    names = [f"c{i}" for i in range(case.X.shape[1])]
    expected = case.output(case.fitted)
    frame = pd.DataFrame(case.X, columns=names, index=range(100, 140))
    model = case.make().set_output(transform="pandas").fit(frame)
    codes = model.transform(frame)
    # The rows' own index, and the names that the model gives.
    assert list(codes.index) == list(frame.index)
    assert_array_equal(model.get_feature_names_out(), codes.columns)
    assert_array_equal(model.feature_names_in_, names)
    assert_allclose(codes, expected, **ROUNDING)
    if case in LEARNERS:
        # scikit-learn's names for learned features.
        assert codes.columns[0] == f"{str(case).lower()}0"
        # What comes out of transform goes into inverse_transform.
        assert model.inverse_transform(codes).shape == case.X.shape
    in_polars = (
        case.make().set_output(transform="polars").fit_transform(pl.DataFrame(case.X, schema=names))
    )
    assert isinstance(in_polars, pl.DataFrame)
    assert_allclose(in_polars.to_numpy(), expected, **ROUNDING)


# Of one or two rows, atoms of a dictionary may find nothing to do.
@pytest.mark.filterwarnings("ignore::skae.CollapsedCodeWarning")
@each_learner
def test_small_shapes_and_constant_data(case):
    width = case.X.shape[1]
    random = np.random.default_rng(0).random((40, width))
    for data in (random[:1], random[:2], np.full((30, width), 0.1), np.full((30, width), -1e9)):
        model = case.fit(data)
        # One row, fewer rows than a batch, nothing to learn: no error, no division by zero.
        assert np.isfinite(np.asarray(model.transform(data))).all()
        assert np.isfinite(model.score(data))
        assert model.reconstruct(data).shape == data.shape


@pytest.mark.parametrize("shape", [(1, 1), (20, 1), (5, 4), (2, 30)], ids=str)
@pytest.mark.parametrize("convert", [np.asarray, sparse.csr_array])
def test_more_units_than_columns(shape, convert):
    data = convert(np.random.default_rng(0).random(shape))
    for units in ("bernoulli", "gaussian", "squared_error"):
        model = AutoEncoder(7, loss=units, max_iter=2, random_state=0)
        assert model.fit_transform(data).shape == (shape[0], 7)
        assert np.isfinite(model.score_samples(data)).all()
        assert model.reconstruct(data).shape == shape


def test_sparse_matrix_is_densified_in_small_parts_only(monkeypatch):
    data = sparse.random_array(
        (200, 30_000), density=1e-4, format="csr", rng=np.random.default_rng(0)
    )
    sizes, to_dense = [], type(data).toarray

    def recording_to_dense(self, *args, **kwargs):
        sizes.append(self.shape[0] * self.shape[1])
        return to_dense(self, *args, **kwargs)

    monkeypatch.setattr(type(data), "toarray", recording_to_dense)
    tracemalloc.start()
    try:
        AutoEncoder(1, max_iter=1, batch_size=50, random_state=0).fit(data).transform(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # A batch, or a block of 16 MiB, is dense at a time: never the 48 MB as a whole.
    assert sizes
    assert max(sizes) <= max(50 * 30_000, 2**21)
    assert peak < 40e6


def test_sparse_columns_without_a_nonzero_entry():
    data = sparse.csr_array(([1.0, 2.0], ([0, 3], [1, 1])), shape=(5, 3))
    codes = AutoEncoder(1, max_iter=2, random_state=0).fit_transform(data)
    # Empty columns and rows are zeros like others: constant columns say nothing.
    assert np.isfinite(codes).all()
    assert_array_equal(codes[1], codes[2])


@pytest.mark.parametrize("n_rows", [15, 16, 17, 33])
def test_all_rows_are_trained_on_whatever_the_batch_size(n_rows):
    data = np.eye(n_rows)[:, ::-1]
    settings = {"max_iter": 1, "batch_size": 16, "loss": "squared_error", "random_state": 0}
    untrained = AutoEncoder(2, learning_rate=1e-300, **settings).fit(data)
    before, after = untrained.weights_, AutoEncoder(2, **settings).fit(data).weights_
    # Row i is the only one to feed column i, so each column's weights move if no row,
    # such as those of a last short batch, was dropped.
    assert (before["weight_0"] != after["weight_0"]).any(axis=0).all()


def test_blocks_do_not_show():
    # Blocks have 16 MiB of float64: these rows are three.
    X = np.random.default_rng(0).normal(size=(5, 2**20))
    X[3:] += 5
    columns = described(X)
    # Statistics of the columns merge over blocks to the same numbers.
    assert_allclose(columns.mean, X.mean(0))
    assert_allclose(columns.scale, X.std(0))
    model = AutoEncoder(1, max_iter=1, learning_rate=1e-300, random_state=0).fit(X[:2])
    # Rows are mapped block by block; each row's result is its own.
    alone = np.concatenate([model.transform(X[i : i + 1]) for i in range(5)])
    assert_allclose(model.transform(X), alone, rtol=1e-8)
