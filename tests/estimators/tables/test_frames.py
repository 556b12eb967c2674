"""Data frames with text, categories, dates and gaps: what they become, and what comes back."""

import datetime
import decimal
import pickle
import warnings

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from registry import CASES, LEARNERS, families
from scipy import integrate, sparse
from scipy.stats import ks_2samp, norm
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skae import (
    RBM,
    AutoEncoder,
    DenoisingAutoEncoder,
    SparseCoder,
    StackedAutoEncoder,
    StackedClassifier,
)

TABLE_CASES = [case for case in CASES if not case.takes("image_shape")]
SMALL = {"n_components": 3, "max_iter": 3, "random_state": 0}


def table(n_rows=120, seed=0):
    """A column of every kind that there is, without gaps."""
    rng = np.random.default_rng(seed)
    days = pd.to_timedelta(rng.integers(0, 1000, n_rows), unit="D")
    return pd.DataFrame(
        {
            "age": rng.integers(18, 90, n_rows),
            "fare": np.exp(rng.normal(size=n_rows)),
            "colour": rng.choice(["red", "green", "blue"], n_rows),
            "sex": pd.Series(rng.choice(["m", "f"], n_rows), dtype=object),
            "member": rng.random(n_rows) < 0.3,
            "grade": pd.Categorical(rng.choice(list("abcd"), n_rows), ordered=True),
            "born": pd.Timestamp("2020-01-01") + days,
            "seen": (pd.Timestamp("2021-06-01 12:30") + days).tz_localize("Europe/Berlin"),
            "stay": pd.to_timedelta(rng.random(n_rows) * 10, unit="D").as_unit("us"),
            "Int64": pd.array(rng.integers(0, 10, n_rows), dtype="Int64"),
            "Float64": pd.array(rng.random(n_rows), dtype="Float64"),
            "boolean": pd.array(rng.random(n_rows) < 0.5, dtype="boolean"),
            "arrow": pd.array(rng.choice(["x", "y", "z"], n_rows), dtype="string[pyarrow]"),
            "count": pd.array(rng.poisson(3, n_rows), dtype="int64[pyarrow]"),
        }
    )


def with_gaps(frame, part=0.1):
    return frame.mask(np.random.default_rng(1).random(frame.shape) < part)


FORMS = {
    "polars": pl.from_pandas,
    "pyarrow": pa.Table.from_pandas,
    "pandas of pyarrow": lambda frame: frame.convert_dtypes(dtype_backend="pyarrow"),
    "objects": lambda frame: frame.astype(object),
}


def fitted(frame, **parameters):
    return AutoEncoder(**SMALL, **parameters).fit(frame)


# What columns become


def test_columns_by_kind():
    encoding = fitted(table()).encoding_
    kinds = {variable.name: variable.kind for variable in encoding.variables}
    assert kinds == {
        **dict.fromkeys(["age", "fare", "Int64", "Float64", "count"], "number"),
        **dict.fromkeys(["colour", "grade", "arrow"], "category"),
        **dict.fromkeys(["sex", "member", "boolean"], "binary"),
        **dict.fromkeys(["born", "seen", "stay"], "date"),
    }
    # Names are those that scikit-learn's encoder would give.
    assert list(encoding.names[2:7]) == [
        "colour_blue",
        "colour_green",
        "colour_red",
        "sex_m",
        "member",
    ]
    assert encoding.n_columns == len(encoding.names) == len(encoding.kinds)


def test_numbers_are_clipped_by_median_and_quartiles():
    frame = table()
    rows = fitted(frame).encoding_.encode(frame)
    low, middle, high = np.percentile(frame["fare"], [25, 50, 75])
    z = (frame["fare"] - middle) / ((high - low) / 1.349)
    assert_allclose(rows[:, 1], z / np.sqrt(1 + (z / 3) ** 2), rtol=1e-5)
    # Dates far from 1970 lose nothing in float32: they are centred first.
    days = (frame["born"] - pd.Timestamp(0)).dt.days
    assert (
        len(np.unique(rows[:, list(fitted(frame).encoding_.names).index("born")])) == days.nunique()
    )


def test_numbers_as_normal_scores():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "income": np.exp(rng.normal(size=2000)),
            "gain": np.where(rng.random(2000) < 0.9, 0, rng.integers(1, 9999, 2000)),
            "age": rng.integers(18, 60, 2000),
            "same": 3.0,
            "kind": rng.choice(list("abc"), 2000),
        }
    )
    frame.loc[7, "income"] = np.nan
    encoding = fitted(frame, numbers="normal_scores").encoding_
    rows = encoding.encode(frame)
    assert np.isnan(rows[7, 0])
    # Ranks, as quantiles of the normal law; a frequent value is in the middle of its own.
    income = frame["income"].rank() / 1999
    assert_allclose(norm.cdf(rows[:, 0]), income, atol=2e-3)
    none = (frame["gain"] == 0).mean()
    middle = 0.5 * (norm.ppf(0.5 / 2000) + norm.ppf(none))
    assert_allclose(rows[frame["gain"] == 0, 1], middle, atol=1e-3)
    # What was encoded comes back, and beyond the training rows the ends.
    back = encoding.decode(rows, rounds=True)
    assert_allclose(back["income"], frame["income"], rtol=1e-4)
    assert_array_equal(back[["gain", "age", "same"]], frame[["gain", "age", "same"]])
    far = encoding.encode(frame.assign(age=[1000, *frame["age"][1:]]))
    assert far[0, 2] == rows[:, 2].max()
    # Normal scores that were drawn have the columns' own distributions.
    drawn = rows.copy()
    drawn[:, :3] = rng.normal(size=(2000, 3))
    drawn = encoding.decode(drawn, rounds=True)
    assert (drawn["gain"] == 0).mean() == pytest.approx(none, abs=0.03)
    for name in ("income", "gain", "age"):
        assert ks_2samp(drawn[name], frame[name].dropna()).statistic < 0.06
    # The density of the user's numbers is the derivative of what encodes them.
    x = np.array([0.3, 1.0, 2.5])
    near = [encoding.encode(frame[:3].assign(income=x + step))[:, 0] for step in (-1e-3, 1e-3)]
    slope = (near[1] - near[0]) / 2e-3
    middle = encoding.encode(frame[:3].assign(income=x))
    assert_allclose(encoding.log_derivatives(middle)[:, 0], np.log(slope), atol=0.5)


def test_one_hot_rows_sum_to_one_and_binary_ones_are_zero_or_one():
    frame = table()
    encoding = fitted(frame).encoding_
    rows = encoding.encode(frame)
    for variable in encoding.variables:
        part = rows[:, variable.columns]
        if variable.kind == "category":
            assert_array_equal(part.sum(axis=1), 1)
        if variable.kind in ("category", "binary"):
            assert set(np.unique(part)) == {0.0, 1.0}


def test_units_follow_kinds():
    parts = fitted(table()).columns_.parts
    assert [name for name, _ in parts].count("multinomial") == 3
    assert dict(parts)["bernoulli"].shape == (3,)


def test_numbers_alone_are_an_array_as_ever():
    frame = table()[["age", "fare"]]
    for form in (frame, pl.from_pandas(frame), frame.astype({"fare": object})):
        model = fitted(form)
        assert model.encoding_ is None
        array = frame.to_numpy()
        assert_allclose(model.transform(form), fitted(array).transform(array), rtol=1e-12)


def test_two_whole_numbers_are_binary():
    frame = pd.DataFrame({"sex": [1, 2, 2, 1] * 10, "c": list("abca") * 10})
    model = fitted(frame)
    assert model.encoding_.variables[0].kind == "binary"
    assert_array_equal(model.encoding_.encode(frame)[:4, 0], [0, 1, 1, 0])
    assert set(model.reconstruct(frame)["sex"]) <= {1, 2}


def test_gaps_and_unseen_categories_are_not_observed():
    frame = table()
    encoding = fitted(frame).encoding_
    new = frame.copy().astype({"grade": object})
    new.loc[0, "colour"], new.loc[1, "colour"], new.loc[2, "grade"] = "purple", None, "z"
    new.loc[3, "fare"] = np.nan
    rows = encoding.encode(new)
    gaps = np.argwhere(np.isnan(rows))
    assert {(row, encoding.raw_columns[column]) for row, column in gaps} == {
        (0, 2),
        (1, 2),
        (2, 5),
        (3, 1),
    }
    # All columns of the variable.
    assert np.isnan(rows[0, 2:5]).all()


def test_rare_categories_are_pooled():
    frame = pd.DataFrame({"t": ["a"] * 50 + ["b"] * 30 + ["c", "d", "e", "e"], "x": range(84)})
    model = fitted(frame, min_frequency=0.1)
    (text, _) = model.encoding_.variables
    assert text.names == ["t_a", "t_b", "t_infrequent"]
    assert text.pooled == ("e", "c", "d")
    # What comes back is the most frequent one of them: a value that there is.
    assert text.decode(np.eye(3)) == ["a", "b", "e"]
    assert len(fitted(frame, min_frequency=2).encoding_.variables[0].categories) == 4
    most = fitted(frame, min_frequency=None, max_categories=2).encoding_.variables[0]
    assert most.categories == ("a", "infrequent")
    assert len(fitted(frame, min_frequency=None).encoding_.variables[0].categories) == 5


def test_a_category_named_infrequent_is_none_of_the_pooled():
    values = ["infrequent"] * 40 + ["a"] * 40 + ["b", "c"]
    text = fitted(
        pd.DataFrame({"t": values, "x": range(82)}), min_frequency=0.1
    ).encoding_.variables[0]
    assert text.positions == {"a": 0, "infrequent": 1, "b": 2, "c": 2}


@pytest.mark.parametrize("most", [2, 3, None])
def test_numbers_that_are_categories_are_pooled_too(most):
    values = np.repeat([7.0, 3.0, 5.0, 9.0], [40, 30, 20, 10])
    X = np.column_stack([values, np.arange(100.0)])
    model = AutoEncoder(**SMALL, categorical_features=[0], max_categories=most).fit(X)
    (grade, _) = model.encoding_.variables
    back = grade.decode(model.encoding_.encode(X)[:, grade.columns])
    # What is pooled comes back as the most frequent value of it.
    expected = {2: [7, 3, 3, 3], 3: [7, 3, 5, 5], None: [7, 3, 5, 9]}[most]
    assert_array_equal(back, np.repeat(expected, [40, 30, 20, 10]))


def test_another_number_than_the_two_categories_is_none_of_them():
    X = np.column_stack([np.resize([1.0, 2.0], 40), np.arange(40.0)])
    model = AutoEncoder(**SMALL, categorical_features=[0]).fit(X)
    # 1.5 is not halfway between two categories, and 7 is not the second: nothing is known of them.
    given = np.array([[1, 0], [2, 0], [1.5, 0], [7, 0]])
    assert_array_equal(model.encoding_.encode(given)[:, 0], [0, 1, np.nan, np.nan])


def test_numbers_that_float32_does_not_hold_come_back():
    X = 1e200 * np.random.default_rng(0).normal(size=(40, 3))
    model = AutoEncoder(**SMALL, numbers="clipped").fit(X)
    # Nets of clipped numbers compute in float32, whatever the units of the data.
    back = model.inverse_transform(model.transform(X))
    assert back.dtype == np.float64
    assert np.isfinite(back).all()


def test_rows_of_weight_zero_do_not_count():
    frame = table()
    weight = np.r_[np.ones(100), np.zeros(20)]
    frame.loc[110, "colour"] = "purple"
    model = AutoEncoder(**SMALL).fit(frame, sample_weight=weight)
    short = AutoEncoder(**SMALL).fit(frame[:100])
    assert list(model.encoding_.names) == list(short.encoding_.names)
    assert_array_equal(model.encoding_.encode(frame), short.encoding_.encode(frame))


def test_constant_columns_are_harmless():
    frame = table().assign(one=1.0, same="a", never=False)
    model = fitted(frame)
    assert_array_equal(model.reconstruct(frame)[["one", "same"]], frame[["one", "same"]])
    assert np.isfinite(model.score(frame))
    # Another value than the only one there was.
    assert np.isfinite(model.transform(frame.assign(one=1e300, same="b", never=True))).all()


def test_numeric_columns_may_be_categories():
    frame = table()[["age", "Int64", "fare"]]
    for chosen in (["Int64"], [1], [False, True, False]):
        model = fitted(frame, categorical_features=chosen)
        assert [v.kind for v in model.encoding_.variables] == ["number", "category", "number"]
        assert (model.reconstruct(frame).dtypes == frame.dtypes).all()
    codes = np.random.default_rng(0).integers(0, 4, (60, 1))
    X = np.hstack([codes, np.random.default_rng(0).normal(size=(60, 2))])
    model = fitted(X, categorical_features=[0])
    assert list(model.encoding_.names) == ["x0_0", "x0_1", "x0_2", "x0_3", "x1", "x2"]
    assert model.n_features_in_ == 3
    reconstructions = model.reconstruct(X)
    assert isinstance(reconstructions, np.ndarray)
    assert set(reconstructions[:, 0]) <= set(range(4))


def test_a_category_of_one_value_alone():
    # Where all else is missing, it is 0, as a text that is the only one is.
    X = np.column_stack([np.where(np.arange(60) % 3, 7.0, np.nan), np.arange(60.0)])
    model = fitted(X, categorical_features=[0])
    encoded = model.encoding_.encode(X)[:, 0]
    assert_array_equal(encoded, np.where(np.arange(60) % 3, 0.0, np.nan))
    assert (model.reconstruct(X)[:, 0] == 7.0).all()


def test_clipping_an_array():
    X = np.random.default_rng(0).standard_t(2, size=(80, 3))
    model = fitted(X, numbers="clipped")
    assert model.columns_.maximum.max() < 3
    assert model.reconstruct(X).shape == X.shape
    assert not np.allclose(model.transform(X), fitted(X).transform(X))
    standardized = fitted(table(), numbers="standardized")
    assert_allclose(standardized.encoding_.encode(table())[:, 1], table()["fare"])


# What comes back


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_one_table_give_the_same_codes(form):
    frame = with_gaps(table())
    other = FORMS[form](frame)
    model = fitted(frame)
    # A fit on one library's frame reads another's with the same names.
    assert_allclose(model.transform(other), model.transform(frame), atol=1e-6)
    assert_allclose(fitted(other).transform(other), model.transform(frame), atol=1e-4)


@pytest.mark.parametrize("form", ["pandas", *FORMS])
def test_reconstructions_have_the_users_dtypes(form):
    frame = table()
    given = FORMS.get(form, lambda frame: frame)(frame)
    back = fitted(given).reconstruct(given)
    if form == "pyarrow":
        assert back.schema.names == given.schema.names
        assert back.schema.types == given.schema.types
        back = back.to_pandas()
    elif form != "objects":
        assert list(back.dtypes) == list(given.dtypes)
        assert list(back.columns) == list(given.columns)
        if form != "polars":
            shuffled = given.sample(20, random_state=0)
            assert list(fitted(given).reconstruct(shuffled).index) == list(shuffled.index)
        back = back.to_pandas() if form == "polars" else back
    # Whole numbers, and none outside of what was there.
    assert back["age"].between(frame["age"].min(), frame["age"].max()).all()
    assert (back["age"] == np.round(back["age"].astype(float))).all()
    assert set(back["colour"]) <= {"red", "green", "blue"}


@pytest.mark.parametrize("form", ["pandas", "polars", "pyarrow", "pandas of pyarrow"])
def test_decode_undoes_encode(form):
    frame = table()
    given = FORMS.get(form, lambda frame: frame)(frame)
    encoding = fitted(given).encoding_
    back = encoding.decode(encoding.encode(given))
    back = back.to_pandas() if form in ("polars", "pyarrow") else back
    for name in frame:
        if name in ("fare", "Float64"):
            assert_allclose(back[name].astype(float), frame[name].astype(float), rtol=1e-3)
        elif name in ("seen", "stay"):
            difference = pd.Series(back[name]).astype(frame[name].dtype) - frame[name]
            assert difference.abs().max() < pd.Timedelta(minutes=2)
        else:
            assert list(back[name]) == list(frame[name]), name


def test_extreme_numbers_are_clipped_and_come_back_inside_the_range():
    frame = table()
    model = fitted(frame)
    far = frame.assign(fare=np.where(np.arange(120) % 2, 1e300, -1e300))
    rows = model.encoding_.encode(far)
    assert np.isfinite(rows).all()
    assert_allclose(np.unique(rows[:, 1]), [-3, 3], rtol=1e-5)
    assert np.isfinite(model.score_samples(far)).all()
    back = model.encoding_.decode(rows)["fare"]
    assert {back.min(), back.max()} == {frame["fare"].min(), frame["fare"].max()}


def test_polars_types():
    frame = pl.DataFrame(
        {
            # Older versions of polars do not say the precision where it is not given.
            "price": pl.Series(
                [decimal.Decimal(n % 7) / 4 for n in range(40)], dtype=pl.Decimal(38, 2)
            ),
            "kind": pl.Series(["a", "b", "c", "b"] * 10, dtype=pl.Categorical),
            "size": pl.Series(["S", "M", "L", None] * 10, dtype=pl.Enum(["S", "M", "L"])),
            "yes": [True, False, None, True] * 10,
            "day": [datetime.date(2020, 1, 1 + n % 20) for n in range(40)],
            "hour": [datetime.time(n % 24) for n in range(40)],
            "int": pl.Series(range(40), dtype=pl.UInt8),
        }
    )
    model = fitted(frame)
    assert [v.kind for v in model.encoding_.variables] == [
        "number", "category", "category", "binary", "date", "date", "number",
    ]  # fmt: skip
    assert model.reconstruct(frame).dtypes == frame.dtypes
    assert AutoEncoder(**SMALL).fit(frame[["price", "int"]]).encoding_ is None


def test_arrow_types():
    """Batches, and text as views, as newer libraries give it away."""
    frame = with_gaps(table())[["age", "fare", "colour"]]
    given = pa.Table.from_pandas(frame, preserve_index=False)
    views = given.set_column(2, "colour", given.column(2).cast(pa.string_view()))
    expected = fitted(given).transform(given)
    for other in (views, given.combine_chunks().to_batches()[0]):
        model = fitted(other)
        assert_array_equal(model.transform(other), expected)
        assert model.reconstruct(other).schema.types == other.schema.types


# Scores


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_density_of_a_numeric_column(dtype):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"x": np.exp(rng.normal(size=300)).astype(dtype), "c": rng.choice(list("ab"), 300)}
    )
    encoding = fitted(frame).encoding_
    (number, _) = encoding.variables

    # Close where the density is large, and as far out as it goes.
    x = number.center + number.width * np.sinh(np.linspace(-10, 10, 4001))
    u = encoding.encode(pd.DataFrame({"x": x, "c": "a"}))
    density = np.exp(norm.logpdf(u[:, 0]) + encoding.log_derivative(u, [0]))
    total = integrate.trapezoid(density, x)
    # The clip leaves (-3, 3) of the real line: what a normal distribution has there.
    assert total == pytest.approx(norm.cdf(3) - norm.cdf(-3), abs=1e-3)


def test_scores_are_of_the_users_numbers():
    frame = table()
    model = fitted(frame)
    # Pounds for dollars: the density of x / 2 is twice that of x.
    half = frame.assign(fare=frame["fare"] / 2)
    other = fitted(half)
    assert_allclose(other.score_samples(half), model.score_samples(frame) + np.log(2), atol=1e-3)


def test_likelihood_of_a_machine_is_of_the_users_numbers():
    frame = table()[["fare", "Float64", "colour"]]
    half = frame.assign(fare=frame["fare"] / 2)
    models = [RBM(4, max_iter=5, random_state=0).fit(data) for data in (frame, half)]
    log_z = [model.log_partition_function() for model in models]
    scores = [
        m.score(data, log_partition=z)
        for m, data, z in zip(models, (frame, half), log_z, strict=True)
    ]
    assert scores[1] == pytest.approx(scores[0] + np.log(2), abs=1e-3)
    assert list(models[0].sample(5).columns) == list(frame.columns)
    assert list(models[0].gibbs(frame).dtypes) == list(frame.dtypes)


# Estimators of each family


@pytest.mark.parametrize("case", families(TABLE_CASES), ids=str)
def test_every_family_takes_frames(case):
    frame = table(40)
    model = case.fit(frame)
    out = case.output(model, frame)
    again = pickle.loads(pickle.dumps(model))
    same = case.output(again, pl.from_pandas(frame))
    if not hasattr(out, "columns") and out.dtype.kind == "f":
        assert_allclose(same, out, atol=1e-5)
    assert model.n_features_in_ == len(model.feature_names_in_) == frame.shape[1]
    assert_array_equal(case.output(clone(model).fit(frame, case.y), frame), out)
    if hasattr(model, "reconstruct"):
        assert list(model.reconstruct(frame).dtypes) == list(frame.dtypes)
        assert np.isfinite(model.score_samples(frame)).all()
        assert len(model.get_feature_names_out()) == out.shape[1]


@pytest.mark.parametrize("case", families(LEARNERS), ids=str)
def test_frames_in_parts(case):
    if case.takes("image_shape"):
        pytest.skip("rows are images")
    first, later = (
        table(60),
        table(60, seed=1).assign(
            colour="purple" if getattr(case.make(), "_accepts_gaps", False) else "red"
        ),
    )
    model = case.make().partial_fit(first)
    names = list(model.encoding_.names)
    model.partial_fit(later)
    # The first part says which categories there are.
    assert list(model.encoding_.names) == names
    model = case.fit(first)
    before = model.encoding_
    assert model.set_params(warm_start=True).fit(table(60, seed=2)).encoding_ is before


def test_stacks_read_tables_as_their_lowest_layer_does():
    frame = table()
    stack = StackedAutoEncoder(
        layer=AutoEncoder(min_frequency=0.3, max_iter=2), layer_sizes=(4, 3), random_state=0
    )
    stack.fit(frame)
    assert list(stack.encoding_.names) == list(stack.layers_[0].encoding_.names)
    assert (
        "colour_infrequent" in stack.encoding_.names or "grade_infrequent" in stack.encoding_.names
    )
    assert stack.layers_[1].encoding_ is None
    named = StackedAutoEncoder((3,), numbers="standardized", max_iter=2, random_state=0).fit(frame)
    assert not named.layers_[0].encoding_.variables[0].clips
    prefit = StackedAutoEncoder(layers=stack.layers_, pretraining="prefit").fit(frame)
    assert_array_equal(prefit.transform(frame), stack.transform(frame))
    tuned = StackedAutoEncoder((4, 3), fine_tuning=True, max_iter=2, random_state=0).fit(frame)
    assert list(tuned.reconstruct(frame).dtypes) == list(frame.dtypes)


@pytest.mark.filterwarnings("ignore:.*reached max_iter")
def test_a_classifier_of_a_raw_table_with_gaps():
    frame = with_gaps(table())
    y = (table()["age"] > 50).to_numpy()
    model = StackedClassifier((8,), max_iter=30, learning_rate=0.01, random_state=0).fit(frame, y)
    assert model.score(frame, y) > 0.8
    some = StackedClassifier((8,), n_fine_tuned_layers=1, max_iter=2, random_state=0).fit(frame, y)
    assert some.predict_proba(pl.from_pandas(frame)).shape == (120, 2)


def test_pipeline_search_and_output(tmp_path):
    frame, y = with_gaps(table()), (table()["age"] > 50).to_numpy()
    pipe = make_pipeline(DenoisingAutoEncoder(8, max_iter=3, random_state=0), LogisticRegression())
    grid = {"denoisingautoencoder__max_categories": [2, 30]}
    search = GridSearchCV(pipe, grid, cv=2).fit(frame, y)
    joblib.dump(search, tmp_path / "search.joblib")
    assert_array_equal(
        joblib.load(tmp_path / "search.joblib").predict(frame), search.predict(frame)
    )
    codes = fitted(frame).set_output(transform="pandas").transform(frame)
    assert list(codes.columns) == ["autoencoder0", "autoencoder1", "autoencoder2"]


def test_losses_by_raw_names():
    frame = table()[["fare", "colour", "sex"]]
    loss = [("gaussian", ["fare"]), ("multinomial", ["colour"]), ("multinomial", ["sex"])]
    parts = fitted(frame, loss=loss).columns_.parts
    # Two values are one column of 0 and 1: the same distribution.
    assert [(name, columns.tolist()) for name, columns in parts] == [
        ("gaussian", [0]), ("multinomial", [1, 2, 3]), ("bernoulli", [4]),
    ]  # fmt: skip
    with pytest.raises(ValueError, match="'colour_blue'"):
        fitted(frame, loss=[("gaussian", ["fare"]), ("bernoulli", ["sex"])])


def test_a_dictionary_is_for_columns_in_their_order():
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(50, 3)), columns=list("abc"))
    model = fitted(frame)
    SparseCoder(dictionary=model, alpha=0.1).fit(frame)
    with pytest.raises(ValueError, match=r"\['a', 'b', 'c'\], but X has \['c', 'b', 'a'\]"):
        SparseCoder(dictionary=model, alpha=0.1).fit(frame[["c", "b", "a"]])
    numbered = frame.set_axis(range(3), axis=1)
    model = clone(model).fit(numbered)
    with pytest.raises(ValueError, match=r"X has the columns \[2, 1, 0\], but in fit"):
        SparseCoder(dictionary=model, alpha=0.1).fit(numbered[[2, 1, 0]])


# Bad input


def refuses(match, frame, error=ValueError, **parameters):
    model = AutoEncoder(**SMALL, **parameters)
    with pytest.raises(error, match=match):
        model.fit(frame)
    assert not hasattr(model, "encoding_")


NUMBERS = np.arange(40.0)


@pytest.mark.parametrize(
    ("column", "match"),
    [
        (
            [f"person {i}" for i in range(40)],
            "'bad' has a different value in every row.*TableVectorizer",
        ),
        (
            pd.Categorical([f"person {i}" for i in range(40)]),
            "different value in every row.*Drop it",
        ),
        (["1,234", "$12"] * 20, r"'bad'.*read as numbers.*'1,234', '\$12'.*pd.to_numeric"),
        (["1", "2.5e3", "-4 %", None] * 10, "read as numbers.*categorical_features"),
        (np.where(NUMBERS == 7, np.inf, NUMBERS), "infinity in row 7, column 1 .'bad'"),
        (np.where(NUMBERS == 7, -np.inf, np.nan), "infinity in row 7"),
        (NUMBERS + 1j, "'bad'.*complex"),
        (pd.Series([1, "b"] * 20, dtype=object), "'bad'.*mixes text and numbers.*to_numeric"),
        ([b"a", b"b"] * 20, "'bad'.*bytes"),
        (pd.interval_range(0, 40), "'bad'.*interval"),
    ],
    ids=range(10),
)
def test_bad_columns_are_named(column, match):
    refuses(match, pd.DataFrame({"n": NUMBERS, "bad": column}))


@pytest.mark.parametrize("form", ["pandas", *FORMS])
def test_columns_of_every_kind_that_were_never_observed(form):
    frame, make = table(), FORMS.get(form, lambda frame: frame)
    age = frame[["age"]].astype(float)
    empty = make(pd.concat([age, frame.drop(columns="age").mask(frame.notna())], axis=1))
    with pytest.warns(UserWarning, match="Columns 'fare', .* and 8 more of X have no observed"):
        model = fitted(empty, corruption="gaussian")
    assert list(model.encoding_.names) == ["age"]
    for back in (model.reconstruct(empty), model.sample(5, random_state=0)):
        back = back if isinstance(back, pd.DataFrame) else back.to_pandas()
        assert list(back) == list(frame)
        assert_array_equal(back.isna().all(axis=0), np.arange(14) > 0)
    if form == "pandas":
        kept = ["colour", "grade", "born", "seen", "stay", "Int64", "boolean", "arrow", "count"]
        assert model.reconstruct(empty)[kept].dtypes.equals(empty[kept].dtypes)
    # Whatever comes later, of whatever type.
    later = make(frame.assign(age=age, fare="much"))
    assert_array_equal(model.transform(later), model.transform(empty))
    with pytest.raises(ValueError, match="no observed value in any"):
        fitted(make(frame.mask(frame.notna())))


@pytest.mark.parametrize("method", ["transform", "score_samples", "partial_fit"])
def test_frames_without_rows(method):
    model = fitted(table())
    with pytest.raises(ValueError, match="0 sample"):
        getattr(model, method)(table()[:0])


@pytest.mark.parametrize("library", ["pandas", "pyarrow"])
def test_two_columns_of_one_name(library):
    for case in CASES:
        names = ["a", "b", *(f"c{number}" for number in range(case.X.shape[1] - 2))]
        frame = pd.DataFrame(case.X, columns=names)
        if library == "pandas":
            frame = frame.set_axis(["b", *names[1:]], axis=1)
        else:
            frame = pa.table(frame).rename_columns(["b", *names[1:]])
        # Those of scikit-learn would tell it in words of another library, if at all.
        with pytest.raises(ValueError, match=r"columns of X are named 'b', .*name of its own"):
            case.fit(frame)


@pytest.mark.parametrize("cell", [[1], {"a": 1}, (1, 2), np.ones(2)], ids=str)
def test_containers_in_cells(cell):
    column = pd.Series([cell] * 40, dtype=object)
    refuses("'bad'.*string or a number", pd.DataFrame({"n": NUMBERS, "bad": column}), TypeError)


def test_lists_in_polars():
    refuses("'bad'.*List", pl.DataFrame({"n": NUMBERS, "bad": [[1]] * 40}), TypeError)


@pytest.mark.parametrize("features", [["nobody"], [7], [True, False], 0.5 * np.ones(2)], ids=str)
def test_categories_that_are_not_there(features):
    refuses(
        "categorical_features|index",
        table()[["age", "colour", "sex"]],
        categorical_features=features,
    )


def test_text_of_many_values_is_pooled_with_one_warning():
    rng = np.random.default_rng(0)
    frame = table().assign(
        job=[f"job {n}" for n in rng.integers(0, 60, 120)], town=[f"t{n % 50}" for n in range(120)]
    )
    for model in (AutoEncoder(**SMALL), StackedAutoEncoder((4, 3), max_iter=2, random_state=0)):
        with pytest.warns(UserWarning, match="columns 'job', 'town'.*TableVectorizer") as caught:
            model.fit(frame)
        assert len(caught) == 1
    # Named as categories, they are what the user wants.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted(frame.astype({"job": "category", "town": "category"}))


CHANGES = {
    "order": (lambda f: f[[*f.columns[::-1]]], "order"),
    "name": (lambda f: f.rename(columns={"fare": "price"}), "price"),
    "number": (lambda f: f.drop(columns="fare"), "fare"),
    "text for numbers": (
        lambda f: f.assign(fare="a"),
        "'fare' held numbers in fit, but holds text now",
    ),
    "numbers for text": (
        lambda f: f.assign(colour=1.5),
        "'colour' held text in fit, but holds numbers",
    ),
    "dates for numbers": (lambda f: f.assign(fare=f["born"]), "'fare' held numbers.*dates"),
    "numbers for dates": (lambda f: f.assign(born=1.0), "'born' held dates.*numbers"),
    "durations for dates": (lambda f: f.assign(born=f["stay"]), "'born' held dates.*durations"),
    "infinity": (lambda f: f.assign(fare=np.inf), "infinity in row 0, column 1 .'fare'"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_columns_that_changed(change):
    function, match = CHANGES[change]
    model = fitted(table())
    for method in (model.transform, model.score, model.reconstruct, model.partial_fit):
        with pytest.raises(ValueError, match=match):
            method(function(table()))


@pytest.mark.parametrize("labels", [[0, 1, 2], [("a", 1), ("a", 2), ("b", 1)]], ids=str)
def test_columns_without_names_keep_their_order(labels):
    """scikit-learn compares the labels of columns that are strings alone."""
    columns = pd.Index(labels)
    numbers = pd.DataFrame(np.random.default_rng(0).random((40, 3)), columns=columns)
    text = numbers.copy()
    text[labels[0]] = ["a", "b"] * 20
    for frame, case in [(numbers, case) for case in families(LEARNERS)] + [(text, None)]:
        if case is not None and case.takes("image_shape"):
            continue
        model = AutoEncoder(**SMALL).fit(frame) if case is None else case.fit(frame)
        method = getattr(model, "transform", None) or model.predict
        method(frame)
        with pytest.raises(ValueError, match="in fit they were in the order"):
            method(frame[frame.columns[::-1]])
    with pytest.raises(ValueError, match="in fit they were in the order"):
        model.partial_fit(frame[frame.columns[::-1]])


def test_whole_rows_and_columns_may_be_missing_later():
    frame = table()
    model = fitted(frame)
    empty = frame.astype(object)
    empty.loc[0] = None
    empty["fare"] = None
    assert np.isfinite(model.transform(empty)).all()
    # Nothing observed, nothing to be said.
    assert model.score_samples(empty)[0] == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("name", ["RBM", "PSD", "SparseCoder"])
def test_models_without_gaps_name_the_column_and_the_remedy(name):
    case = next(case for case in CASES if str(case) == name)
    with pytest.raises(ValueError, match=r"NaN.*'colour'.*DenoisingImputer"):
        case.fit(table(40).assign(colour=["red", None, "blue", "green"] * 10))
    model = case.fit(table(40))
    with pytest.raises(ValueError, match=r"category that was not there in fit.*'colour'"):
        model.transform(table(40).assign(colour="purple"))


def test_sparse_matrices_have_no_categories():
    refuses("sparse", sparse.csr_matrix(np.eye(5)), numbers="clipped")
