"""Gaps that are filled: by what the columns tell, in the user's own types."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skae import RBM, DenoisingAutoEncoder, DenoisingImputer, StackedAutoEncoder


def quick(**parameters):
    """An imputer that learns in a moment."""
    member = DenoisingAutoEncoder(
        16, corruption="hiding", corruption_level=(0.1, 0.5), learning_rate=0.01, max_iter=20
    )
    return DenoisingImputer(member, **{"n_estimators": 2, "random_state": 0, **parameters})


def make_table(n=300, seed=0):
    """Columns of all kinds that one number is behind."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    level = np.select([x < -0.5, x < 0.5], ["low", "middle"], "high")
    return pd.DataFrame(
        {
            "x": x,
            "count": pd.array(np.round(20 + 5 * x).astype(int), dtype="Int64"),
            "level": pd.Categorical(level, ["low", "middle", "high"]),
            "text": np.where(x > 0, "yes", "no"),
            "flag": pd.array(x > 0.3, dtype="boolean"),
            "day": pd.Timestamp("2020-01-01") + pd.to_timedelta(np.round(30 * x), unit="D"),
            "noise": rng.normal(size=n),
        }
    )


def remove(table, seed=1, part=0.2):
    return table.mask(np.random.default_rng(seed).random(table.shape) < part)


@pytest.fixture(scope="module")
def table():
    return make_table()


@pytest.fixture(scope="module")
def imputer(table):
    return quick().fit(remove(table))


def test_a_frame_comes_back_as_it_is_but_for_its_gaps(table, imputer):
    gaps = remove(table, seed=2)
    before = gaps.copy()
    filled = imputer.transform(gaps)
    pd.testing.assert_frame_equal(gaps, before)
    # Users go on with their columns: names, order, index and dtypes are theirs.
    assert list(filled) == list(table)
    assert filled.index.equals(table.index)
    assert (filled.dtypes == gaps.dtypes).all()
    assert not filled.isna().any(axis=None)
    # What was observed is not the imputer's to change.
    pd.testing.assert_frame_equal(filled.where(gaps.notna()), gaps)


def test_fills_are_what_the_other_columns_tell(table, imputer):
    gaps = remove(table, seed=2)
    filled = imputer.transform(gaps)
    for name in ("x", "count", "day"):
        missing = gaps[name].isna()
        kind = "int64" if name == "day" else float
        true, guess = (part[name].astype(kind).astype(float) for part in (table, filled))
        left = np.sqrt(np.square((guess - true)[missing]).mean()) / true.std()
        # Dates and counts are x but for rounding; the mean would leave 1.
        assert left < 0.4, name
    for name in ("level", "text", "flag"):
        missing = gaps[name].isna()
        wrong = (filled[name] != table[name])[missing].mean()
        frequent = (table[name] != gaps[name].mode()[0])[missing].mean()
        # The most frequent category errs in about half of the cells.
        assert wrong < 0.5 * frequent, name
    # A column that nothing depends on is filled by about its mean.
    missing = gaps["noise"].isna()
    assert filled["noise"][missing].std() < 0.4 * table["noise"].std()


def test_one_model_alone_is_no_better_than_both(imputer):
    filler = next(filler for filler in imputer.fillers_ if filler.variable.name == "x")
    # Two good guesses of one number share its weight: 1.04 to 1.13 over ten seeds.
    assert 0.9 < filler.network + filler.normal < 1.3
    # Normal columns in a line: the normal distribution knows more than twenty epochs (0.85 to 0.2).
    assert filler.normal > 2 * filler.network > 0


def test_draws_have_the_spread_of_the_data(table, imputer):
    gaps = table.copy()
    gaps.loc[: len(gaps) // 2, "noise"] = np.nan
    missing = gaps["noise"].isna()
    model = clone(imputer).set_params(sample_posterior=True).fit(remove(table))
    draws = [model.set_params(random_state=s).transform(gaps)["noise"][missing] for s in range(10)]
    spread = np.std(draws) / table["noise"].std()
    # The expected value has next to no spread; 1,500 draws have that of the data within 10 %.
    assert 0.85 < spread < 1.15
    assert not np.array_equal(draws[0], draws[1])
    again = model.set_params(random_state=0).transform(gaps)["noise"][missing]
    # A seed is a draw.
    np.testing.assert_array_equal(draws[0], again)


def test_draws_of_categories_have_their_probabilities(table):
    gaps = make_table(seed=5)
    gaps.loc[:, :] = gaps.mask(np.ones(gaps.shape, dtype=bool))
    model = quick(sample_posterior=True).fit(remove(table))
    drawn = model.transform(gaps)
    for name in ("level", "text"):
        want = table[name].value_counts(normalize=True)
        got = drawn[name].value_counts(normalize=True).reindex(want.index, fill_value=0)
        # Nothing is known of these rows: 300 draws from the frequencies, standard error 0.03.
        assert (got - want).abs().max() < 0.12, name


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_array_comes_back_as_an_array(dtype):
    rng = np.random.default_rng(0)
    X = (rng.normal(size=(100, 1)) + 0.1 * rng.normal(size=(100, 3))).astype(dtype)
    X = np.column_stack([X, np.round(5 * X[:, 0])]).astype(dtype)
    gaps = np.where(rng.random(X.shape) < 0.2, np.nan, X).astype(dtype)
    filled = quick().fit_transform(gaps)
    assert type(filled) is np.ndarray
    assert filled.dtype == dtype
    np.testing.assert_array_equal(filled[~np.isnan(gaps)], gaps[~np.isnan(gaps)])
    # Whole numbers stay whole.
    np.testing.assert_array_equal(filled[:, 3], np.round(filled[:, 3]))


def test_objects_and_categories_of_arrays():
    table = make_table()[["x", "text"]]
    filled = quick().fit_transform(remove(table).to_numpy(dtype=object))
    assert filled.dtype == object
    assert set(filled[:, 1]) == {"yes", "no"}
    codes = np.column_stack([table["x"], np.searchsorted([-1, 0, 1], table["x"])])
    codes[::5, 1] = np.nan
    filled = quick(categorical_features=[1]).fit_transform(codes)
    # Codes of categories are not averaged.
    assert set(np.unique(filled[:, 1])) <= {0, 1, 2, 3}


@pytest.mark.parametrize("library", ["polars", "pyarrow"])
def test_other_frames(library, table, imputer):
    frames = pytest.importorskip(library)
    plain = remove(table)[["x", "level", "text", "day"]]
    make = frames.from_pandas if library == "polars" else frames.Table.from_pandas
    frame = make(plain.astype({"level": "str"}).where(plain.notna(), None))
    model = quick(add_indicator=True).fit(frame)
    filled = model.transform(frame)
    assert type(filled) is type(frame)
    columns = list(getattr(filled, "columns" if library == "polars" else "column_names"))
    assert columns == list(model.get_feature_names_out())
    back = filled.to_pandas()
    assert not back.isna().any(axis=None)
    known = plain["x"].notna()
    np.testing.assert_array_equal(back["x"][known], plain["x"][known])


@pytest.mark.filterwarnings("ignore:X .* feature names:UserWarning")
def test_a_fit_to_one_library_fills_the_frames_of_another(table):
    plain = remove(table)[["x", "text", "noise"]]
    frames = {
        "pandas": plain,
        "polars": pl.from_pandas(plain),
        "pyarrow": pa.Table.from_pandas(plain, preserve_index=False),
        "array": plain.to_numpy(dtype=object),
    }
    expected = quick().fit_transform(plain)
    for name, given in frames.items():
        model = quick().fit(given)
        for other, frame in frames.items():
            filled = model.transform(frame)
            assert type(filled) is type(frame), (name, other)
            back = filled.to_pandas() if other in ("polars", "pyarrow") else filled
            back = pd.DataFrame(np.asarray(back), columns=list(plain)).astype(plain.dtypes)
            pd.testing.assert_frame_equal(back, expected)


def test_indicators_say_where_gaps_were(table):
    gaps = remove(table)
    gaps["x"] = table["x"]
    model = quick(add_indicator=True).fit(gaps)
    filled = model.transform(gaps)
    names = [f"missingindicator_{name}" for name in table if name != "x"]
    assert list(filled)[len(table.columns) :] == names
    np.testing.assert_array_equal(filled["missingindicator_text"], gaps["text"].isna())
    assert list(filled) == list(model.get_feature_names_out())
    X = gaps[["x", "noise"]].to_numpy()
    out = quick(add_indicator=True).fit_transform(X)
    np.testing.assert_array_equal(out[:, 2], np.isnan(X[:, 1]))
    # Steps of scikit-learn refuse columns of which some are named by text, and others by numbers.
    numbered = quick(add_indicator=True).fit_transform(pd.DataFrame(X))
    assert list(numbered) == ["x0", "x1", "missingindicator_x1"]
    # A mark does not take the place of a column.
    with pytest.raises(ValueError, match=r"'missingindicator_text'.*Rename it"):
        quick(add_indicator=True).fit(gaps.assign(missingindicator_text=1.0))


def test_a_sparse_column_stays_sparse(table):
    gaps = remove(table)[["x", "noise"]].astype({"noise": pd.SparseDtype("float64", 0.0)})
    assert (quick().fit_transform(gaps).dtypes == gaps.dtypes).all()


def test_a_column_that_was_never_observed():
    X = np.random.default_rng(0).normal(size=(60, 3))
    X[:, 1] = np.nan
    with pytest.warns(UserWarning, match=r"without any observed value are dropped: 'x1'"):
        model = quick().fit(X)
    assert model.transform(X).shape == (60, 2)
    assert list(model.get_feature_names_out()) == ["x0", "x2"]
    kept = quick(keep_empty_features=True).fit_transform(X)
    # As scikit-learn's imputers do.
    np.testing.assert_array_equal(kept[:, 1], 0)
    with pytest.raises(ValueError, match="no observed value in any"):
        quick().fit(np.full((10, 2), np.nan))


def test_values_that_no_training_row_had(table, imputer):
    rows = table.head(3).astype({"text": object, "level": object})
    rows.loc[0, "text"] = "perhaps"
    rows.loc[1, "x"] = np.nan
    rows.loc[2] = None
    rows = rows.astype({name: table[name].dtype for name in ("x", "count", "flag", "day")})
    filled = imputer.transform(rows)
    # An unknown category is no gap: it stays, and tells nothing of the others.
    assert filled.loc[0, "text"] == "perhaps"
    assert not filled.isna().any(axis=None)


ZONED = pd.Series(pd.to_datetime(["2020-01-01", None, "2020-02-01"], utc=True))
NEW = {
    # The name of a column, and its cells in the rows to be filled.
    "fewer categories": ("level", pd.Categorical(["low", None, "low"])),
    "text for categories": ("level", pd.Series(["low", None, "low"])),
    "categories for text": ("text", pd.Categorical(["no", None, "no"])),
    "no category": ("level", np.full(3, np.nan)),
    "no text": ("text", np.full(3, np.nan)),
    "no text of objects": ("text", pd.Series([None] * 3, dtype=object)),
    "no date": ("day", np.full(3, np.nan)),
    "a zone": ("day", ZONED),
    "dates of objects": ("day", pd.Series([ZONED[0].date(), None, None], dtype=object)),
    "nullable whole numbers": ("x", pd.array([1, None, 2], dtype="Int8")),
    "floats for whole numbers": ("count", np.array([1.5, np.nan, 3])),
    "truth values of objects": ("flag", pd.Series([True, None, False], dtype=object)),
}


@pytest.mark.parametrize("case", NEW)
def test_columns_come_otherwise_than_in_fit(case, table, imputer):
    """As a request of few rows has them, or a table that was read from another file."""
    name, cells = NEW[case]
    nothing = table.head(3).assign(**{name: table[name].where([False] * 300)})
    rows = table.head(3).assign(**{name: cells})
    filled, known = imputer.transform(rows)[name], rows[name].notna()
    # What has no value says nothing of its dtype.
    assert str(filled.dtype) == str((rows if known.any() else table)[name].dtype)
    assert filled[known].tolist() == rows[name][known].tolist()
    assert not filled.isna().any()
    assert len({type(cell) for cell in filled}) == 1
    if name in ("level", "text"):
        assert filled[~known].tolist() == imputer.transform(nothing)[name][~known].tolist()


def test_cells_of_arrow_stay_to_the_nanosecond():
    moments = pd.Series(
        [pd.Timestamp(2020, 1, 1 + k % 9) + pd.Timedelta(7, "ns") for k in range(40)]
    )
    column = pa.array(moments.where(np.arange(40) != 5))
    filled = quick().fit_transform(pa.table({"x": np.arange(40.0), "day": column}))["day"]
    assert filled.null_count == 0
    assert filled.take([0, 1, 39]).to_pylist() == column.take([0, 1, 39]).to_pylist()


def test_bad_input(table, imputer):
    with pytest.raises(NotFittedError):
        DenoisingImputer().transform(table)
    with pytest.raises(ValueError, match="infinity"):
        quick().fit(table.assign(x=np.inf))
    with pytest.raises(ValueError, match="infinity"):
        imputer.transform(table.assign(x=np.inf))
    with pytest.raises(ValueError, match="feature names"):
        imputer.transform(table[list(table)[::-1]])
    with pytest.raises(ValueError, match="'text' held"):
        imputer.transform(table.assign(text=1.0))
    with pytest.raises(ValueError, match="n_samples=1"):
        quick().fit(table.head(1))
    with pytest.raises(ValueError, match="n_estimators"):
        quick(n_estimators=1).fit(table)
    # These have no units for each column, or do not take gaps.
    for estimator in (RBM(2), StackedAutoEncoder((2,))):
        with pytest.raises(ValueError, match="must be an AutoEncoder"):
            DenoisingImputer(estimator).fit(table)


def test_a_tensor_with_a_history_is_an_array():
    X = np.random.default_rng(0).normal(size=(20, 2))
    X[3, 0] = np.nan
    filled = quick().fit_transform(torch.tensor(X, requires_grad=True))
    np.testing.assert_array_equal(filled, quick().fit_transform(X))


def test_it_is_a_step_before_any_model(table):
    y = (table["x"] > 0).to_numpy()
    numbers = remove(table)[["x", "count", "noise"]]
    search = GridSearchCV(
        make_pipeline(quick(), LogisticRegression()),
        {"denoisingimputer__estimator__n_components": [2, 8]},
        cv=2,
    ).fit(numbers, y)
    assert search.score(numbers, y) > 0.8
    again = pickle.loads(pickle.dumps(search.best_estimator_))
    np.testing.assert_array_equal(again.predict(numbers), search.predict(numbers))


def test_the_seed_fixes_the_result(table):
    gaps = remove(table)
    one, two, other = (quick(random_state=s).fit_transform(gaps)["x"] for s in (0, 0, 1))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, other)


def test_rows_that_are_alone_in_a_column():
    X = np.random.default_rng(0).normal(size=(40, 3))
    X[1:, 2] = np.nan
    # Whoever is left out, each member has to know of each column.
    assert np.isfinite(quick().fit_transform(X)).all()
    # Nobody can be left out: there is nothing to test members on.
    assert np.isfinite(quick().fit_transform(np.where(np.eye(6) > 0, 1.0, np.nan))).all()
