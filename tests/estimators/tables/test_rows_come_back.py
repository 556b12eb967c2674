"""Rows in the columns of the data come back as the frame that they were, from every estimator."""

import datetime
import pickle
import warnings
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import sklearn
from numpy.testing import assert_allclose, assert_array_equal
from pandas.testing import assert_frame_equal
from registry import CASES

import skae
from skae import (
    AutoEncoder,
    DenoisingAutoEncoder,
    DenoisingImputer,
    PatchWhitener,
    StackedAutoEncoder,
)

N = 40
ROWS = {
    "reconstruct": lambda model, X: model.reconstruct(X),
    "denoise": lambda model, X: model.denoise(X),
    "gibbs": lambda model, X: model.gibbs(X, random_state=0),
    "inverse_transform": lambda model, X: model.inverse_transform(model.transform(X)),
    "sample": lambda model, X: model.sample(5, burn_in=1, random_state=0),
}


def mixed_frame():
    """Numbers, whole ones, categories, text, truth values, nullable ones and dates."""
    rng = np.random.default_rng(0)
    h = rng.normal(size=N)
    return pd.DataFrame(
        {
            "age": (40 + 10 * h).round().astype("int64"),
            "income": np.exp(h + rng.normal(size=N)),
            "town": pd.Categorical(rng.choice(["Ulm", "Jena", "Trier"], N)),
            "size": rng.choice(["big", "small"], N),
            "member": h > 0,
            "maybe": pd.array(rng.random(N) > 0.5, dtype="boolean"),
            "kids": pd.array(rng.integers(0, 4, N), dtype="Int64"),
            "since": pd.Timestamp("2020-01-01") + pd.to_timedelta((10 * h).round(), unit="D"),
        },
        index=[f"row {number}" for number in range(N)],
    )


def plain_frame():
    """Numbers alone, of several dtypes."""
    rng = np.random.default_rng(0)
    h = rng.normal(size=N)
    columns = {
        "a": h + rng.normal(size=N),
        "b": rng.integers(0, 9, N).astype("int16"),
        "c": (3 * h).astype("float32"),
        "d": rng.integers(0, 2, N).astype("uint8"),
    }
    return pd.DataFrame(columns, index=[f"row {number}" for number in range(N)])


CONTAINERS = {
    "pandas": lambda X: X,
    "pandas of pyarrow": lambda X: X.convert_dtypes(dtype_backend="pyarrow"),
    "polars": pl.from_pandas,
    "pyarrow": lambda X: pa.Table.from_pandas(X, preserve_index=False),
}


def differences(rows, X, keeps_index):
    """What a frame has otherwise than the one that it should be like."""
    if type(rows) is not type(X):
        return f"is {type(rows).__name__}"
    if isinstance(X, pa.Table):
        return None if rows.schema.remove_metadata() == X.schema.remove_metadata() else rows.schema
    if list(rows.columns) != list(X.columns) or list(rows.dtypes) != list(X.dtypes):
        return f"has {list(zip(rows.columns, rows.dtypes, strict=True))}"
    if keeps_index and isinstance(X, pd.DataFrame) and not rows.index.equals(X.index):
        return "has lost the index"
    return None


def test_rows_are_the_frame_that_went_in():
    """Each estimator with two frames, and one of them with all."""
    wrong, n_tried = {}, 0
    for case in CASES:
        methods = [name for name in ROWS if hasattr(case.cls, name)]
        if not methods or case.takes("image_shape") or case.takes("estimator"):
            continue
        # Without noise there is nothing to sample.
        more = {"contraction": 0.1} if case.takes("contraction") else {}
        for frame in (mixed_frame, plain_frame):
            own = ("pandas",) if frame is mixed_frame else ("polars",)
            for container in CONTAINERS if str(case) == "RBM" else own:
                X = CONTAINERS[container](frame())
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of models that are hardly trained
                    model = case.make(max_iter=1, **more).fit(X)
                    for name in methods:
                        rows = ROWS[name](model, X)
                        keeps = name not in ("inverse_transform", "sample")
                        n_tried, found = n_tried + 1, differences(rows, X, keeps)
                        if found is not None:
                            wrong[f"{case}.{name}, {container}"] = found
    assert wrong == {}
    assert n_tried >= 80


def as_pandas(rows):
    """An array or a frame as one of pandas, without dtypes of categories."""
    rows = rows.to_pandas() if isinstance(rows, pl.DataFrame) else pd.DataFrame(rows)
    texts = [name for name in rows if isinstance(rows[name].dtype, pd.CategoricalDtype)]
    return rows.astype(dict.fromkeys(texts, str)).reset_index(drop=True)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_set_output_says_whose_frame(library):
    """Also where arrays or another library's frames went in, and by the whole configuration."""
    kind = {"pandas": pd.DataFrame, "polars": pl.DataFrame}[library]
    for X in (plain_frame().to_numpy(), plain_frame(), pl.from_pandas(mixed_frame())):
        for model in (DenoisingAutoEncoder(3, max_iter=1), StackedAutoEncoder((4, 3), max_iter=1)):
            model = model.set_params(random_state=0).fit(X)
            plain = model.reconstruct(X)
            model.set_output(transform=library)
            names = list(getattr(X, "columns", ["x0", "x1", "x2", "x3"]))
            for rows in (model.reconstruct(X), model.inverse_transform(model.transform(X))):
                assert isinstance(rows, kind)
                assert list(rows.columns) == names
                expected = as_pandas(plain).set_axis(names, axis=1)
                # Codes of polars are read in float64, so that numbers are rounded otherwise.
                assert_frame_equal(as_pandas(rows), expected, check_dtype=False, rtol=1e-5)
            model.set_output(transform="default")
            assert type(model.reconstruct(X)) is type(plain)
    gappy = mixed_frame()
    gappy.loc[gappy.index[:5], "income"] = np.nan
    member = AutoEncoder(3, max_iter=1)
    imputer = DenoisingImputer(member, n_estimators=2, add_indicator=True, random_state=0)
    for X in (gappy, pl.from_pandas(gappy), CONTAINERS["pyarrow"](gappy)):
        filled = imputer.set_output(transform=library).fit_transform(X)
        assert isinstance(filled, kind)
        assert filled.shape == (N, 9)
    with sklearn.config_context(transform_output=library), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for case in CASES:
            if hasattr(case.cls, "sample") and case.takes("max_iter"):
                more = {"contraction": 0.1} if case.takes("contraction") else {}
                rows = case.make(max_iter=1, **more).fit(case.X).sample(3, burn_in=1)
                assert isinstance(rows, kind), str(case)
                assert rows.shape == (3, case.X.shape[1]), str(case)


def test_values_are_those_of_arrays():
    """A frame of numbers has what arrays have, to the nearest number that its dtype can hold."""
    X = plain_frame()
    model = AutoEncoder(3, max_iter=5, random_state=0).fit(X)
    of_array = AutoEncoder(3, max_iter=5, random_state=0).fit(X.to_numpy())
    rows, numbers = model.reconstruct(X), of_array.reconstruct(X.to_numpy())
    assert isinstance(numbers, np.ndarray)
    assert_allclose(rows["a"], numbers[:, 0], rtol=1e-12)
    assert_array_equal(rows["b"], np.round(numbers[:, 1]))
    # Of a one-hot variable in whole numbers, the most probable value is 1, and no other.
    kinds = pd.get_dummies(np.array(["x", "y", "z"])[np.arange(N) % 3], dtype="int64")
    kinds["a"] = X["a"].to_numpy()
    one_hot = AutoEncoder(1, max_iter=2, random_state=0).fit(kinds)
    assert len(one_hot.columns_.variables) == 2
    assert (one_hot.reconstruct(kinds)[["x", "y", "z"]].sum(axis=1) == 1).all()
    # Reconstructions beyond what a dtype can hold do not come around.
    codes = 1e6 * model.transform(X)
    raw = of_array.inverse_transform(codes)[:, 1]
    ends = np.iinfo("int16")
    assert raw.min() < ends.min or raw.max() > ends.max
    assert_array_equal(model.inverse_transform(codes)["b"], np.round(raw).clip(ends.min, ends.max))
    # The layers below an output are a model of the same rows.
    stack = skae.StackedClassifier((3,), output="linear", max_iter=1, random_state=0)
    stack = stack.fit(X, (X["a"] > 0).astype(int)).stack_
    assert differences(stack.reconstruct(X), X, keeps_index=True) is None
    # The frame of codes says which row is which.
    model.set_output(transform="pandas")
    assert model.inverse_transform(model.transform(X)).index.equals(X.index)
    # Rows of another library come back as its own; an array as the frame of fit.
    model.set_output(transform="default")
    assert isinstance(model.reconstruct(pl.from_pandas(X)), pl.DataFrame)
    whitener = PatchWhitener(contrast=False).fit(X[["a", "c"]])
    whitener.set_output(transform="pandas")
    back = whitener.inverse_transform(whitener.transform(X[["a", "c"]]))
    assert list(back.columns) == ["a", "c"]
    assert back.index.equals(X.index)


def objects():
    """Columns of Python's objects, one kind in each."""
    h = np.random.default_rng(0).normal(size=60)
    day, utc = datetime.datetime(2020, 1, 1), datetime.UTC
    spans = [datetime.timedelta(hours=int(10 * x)) for x in h]
    columns = {
        "flag": (h > 0).tolist(),
        "count": [int(10 * x) for x in h],
        "price": [Decimal(int(400 * x)).scaleb(-2) for x in h],
        "day": [day.date() + datetime.timedelta(int(10 * x)) for x in h],
        "moment": [day + span for span in spans],
        "zoned": [day.replace(tzinfo=utc) + span for span in spans],
        "span": spans,
        "stamp": [pd.Timestamp(day + span, tz="Europe/Berlin") for span in spans],
        "delta": [pd.Timedelta(span) for span in spans],
    }
    return pd.DataFrame({name: pd.Series(cells, dtype=object) for name, cells in columns.items()})


def test_objects_come_back_as_what_they_were(tmp_path):
    """Else a column has values of two types, which neither compare nor are written to a file."""
    X = objects()
    model = DenoisingAutoEncoder(4, corruption="gaussian", max_iter=1, random_state=0).fit(X)
    skae.save(model, tmp_path / "model")
    gappy = X.mask(np.random.default_rng(1).random(X.shape) < 0.2)
    member = DenoisingAutoEncoder(4, corruption="hiding", max_iter=1)
    imputer = DenoisingImputer(member, n_estimators=2, random_state=0).fit(gappy)
    for rows in (
        model.reconstruct(X),
        skae.load(tmp_path / "model").sample(5, random_state=0),
        imputer.transform(gappy),
    ):
        for name in X:
            assert {type(cell) for cell in rows[name]} == {type(X[name][0])}, name
        assert {cell.as_tuple().exponent for cell in rows["price"]} == {-2}
        assert all(max(rows[name]).utcoffset() is not None for name in ("zoned", "stamp"))
    filled = imputer.fit(gappy.to_numpy()).transform(gappy.to_numpy())
    assert [type(cell) for cell in filled[1]] == [type(cell) for cell in X.loc[1]]
    dates = X[["moment"]].astype("M8[us]").to_numpy(copy=True)
    dates[3] = np.datetime64("NaT")
    filled = imputer.fit(dates).transform(dates)
    assert filled.dtype == dates.dtype
    assert_array_equal(np.delete(filled, 3), np.delete(dates, 3))
    with pytest.raises(ValueError, match=r"'count' .* of more than 308 digits"):
        model.fit(X.assign(count=pd.Series([10**400, *X["count"][1:]], dtype=object)))


def test_times_are_as_fine_as_those_of_training():
    """Rounding errors, and dtypes of seconds, would else take 11:00 for 10:59:59."""
    rng = np.random.default_rng(0)
    hours = pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 5000, 80), unit="h")
    X = pd.DataFrame({"seen": hours, "a": rng.normal(size=80)})
    X["clock"] = pd.Series([datetime.time(x) for x in hours.hour], dtype="time32[s][pyarrow]")
    model = DenoisingAutoEncoder(4, corruption="gaussian", max_iter=2, random_state=0).fit(X)
    rows = model.sample(20, burn_in=5, random_state=0)
    assert (rows["seen"] == rows["seen"].dt.round("h")).all()
    assert all(clock.minute == clock.second == 0 for clock in rows["clock"])
    with pytest.raises(ValueError, match=r"2020-01-02T05:30:00 .* in whole hours"):
        model.sample(1, fixed={"seen": pd.Timestamp("2020-01-02 05:30")})
    with pytest.raises(ValueError, match=r"fixed\['a'\]=\[1, 2\] is no value of one cell"):
        model.sample(1, fixed={"a": [1, 2]})


@pytest.mark.parametrize("dtype", ["Int64", "UInt64", "int64[pyarrow]", "uint64[pyarrow]"])
def test_the_greatest_whole_numbers(dtype):
    """Floats of 64 bits may be beyond those of a dtype by rounding."""
    most = np.iinfo(dtype.lower().partition("[")[0]).max
    cells = pd.array([most - (row % 5) for row in range(40)], dtype=dtype)
    X = pd.DataFrame({"a": np.arange(40.0), "b": pd.array([None, *cells[1:]], dtype=dtype)})
    rows = AutoEncoder(2, max_iter=1, random_state=0).fit(X).reconstruct(X)
    assert rows["b"].dtype == X["b"].dtype
    assert int(rows["b"].min()) >= most - 5000


def test_forms_travel(tmp_path):
    """Copies and files of models know the frames that they were fitted on."""
    sparse = pd.DataFrame({"a": np.arange(N) % 3, "b": np.arange(N) % 2 / 2})
    sparse = sparse.astype({"a": "Sparse[int64]", "b": pd.SparseDtype("float64", 0.5)})
    rows = AutoEncoder(3, max_iter=1, random_state=0).fit(sparse).reconstruct(sparse)
    assert (rows.dtypes == sparse.dtypes).all()
    for frame in (mixed_frame(), plain_frame()):
        for name, container in CONTAINERS.items():
            X = container(frame)
            model = AutoEncoder(3, max_iter=1, random_state=0).fit(X)
            skae.save(model, tmp_path / "model")
            for again in (pickle.loads(pickle.dumps(model)), skae.load(tmp_path / "model")):
                assert again.reconstruct(X).equals(model.reconstruct(X)), name
