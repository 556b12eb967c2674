"""Features of tables: what they are made of, on which scale, and that they help."""

import pickle

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skae import AutoEncoder, TableFeatures
from skae.estimators.tables.features import own_shares

QUICK = {"n_components": 7, "hidden_layer_sizes": (6, 5), "max_iter": 3, "random_state": 0}


@pytest.fixture
def table():
    """Numbers with a heavy tail, whole numbers, text, truth values, and gaps in two of them."""
    generator = np.random.default_rng(0)
    age = generator.integers(18, 80, size=200).astype(float)
    town = generator.choice(["Aix", "Bern", "Como"], size=200).astype(object)
    income = np.exp(generator.normal(size=200) + age / 40)
    age[::11], town[::13] = np.nan, None
    return pd.DataFrame(
        {
            "age": age,
            "income": income,
            "town": town,
            "member": generator.random(200) < 0.4,
            "visits": generator.poisson(3, size=200),
        }
    )


@pytest.fixture
def model(table):
    return TableFeatures(**QUICK).fit(table)


def test_blocks_are_the_columns_and_the_code(model, table):
    features = model.transform(table)
    names = model.get_feature_names_out().tolist()
    columns = ["age", "income", "town_Aix", "town_Bern", "town_Como", "member", "visits"]
    # The columns as encoded, and one for the gaps of each variable that has some.
    assert names[:9] == [*columns, "age_missing", "town_missing"]
    # Then the units of the highest layer.
    assert names[9:] == [f"tablefeatures{k}" for k in range(7)]
    assert [len(block.names) for block in model.blocks_] == [9, 7]
    assert features.shape == (200, 16)
    assert features.dtype == np.float32


def test_code_is_that_of_the_network(model, table):
    block = model.blocks_[-1]
    code = model.transform(table)[:, -7:] * block.scale + block.center
    assert_allclose(code, AutoEncoder.transform(model, table), atol=1e-5)


def test_every_block_has_its_length(model, table):
    features, start = model.transform(table).astype(np.float64), 0
    lengths = []
    for block in model.blocks_:
        part = features[:, start : start + len(block.names)]
        assert_allclose(part.mean(axis=0), 0, atol=1e-6)
        lengths.append(np.square(part).sum(axis=1).mean())
        start += len(block.names)
    # The columns count as much as the code.
    assert_allclose(lengths, [1, 1], rtol=1e-5)


def test_columns_are_what_the_network_sees(model, table):
    features, block = model.transform(table), model.blocks_[0]
    columns = features[:, :9] * block.scale + block.center
    gaps = table["age"].isna().to_numpy()
    # A gap is told by its column, and has the mean of what is known in its place.
    assert_allclose(columns[:, 7], gaps, atol=1e-6)
    assert_allclose(columns[:, 8], table["town"].isna(), atol=1e-6)
    assert_allclose(columns[gaps, 0], 0, atol=1e-5)
    # Numbers have variance 1, and the tail of incomes is clipped without changing their order.
    assert_allclose(columns[:, 1].std(), 1, rtol=1e-5)
    order = np.argsort(table["income"].to_numpy())
    assert (np.diff(columns[order, 1]) > -1e-6).all()
    # One-hot columns stay 0 and 1; a row without a town has none of them.
    assert_allclose(columns[:, 2:5].sum(axis=1), table["town"].notna(), atol=1e-5)


@pytest.mark.parametrize("n_samples", [300, 6])
def test_shares_are_what_a_regression_on_the_others_leaves(n_samples):
    generator = np.random.default_rng(0)
    hidden = generator.normal(size=(n_samples, 2))
    noise = generator.normal(size=(n_samples, 4))
    rows = np.column_stack(
        [
            hidden @ generator.normal(size=(2, 4)) + 0.3 * noise,
            np.eye(3)[np.digitize(hidden[:, 0], [-0.5, 0.5])],
        ]
    )
    weight = generator.integers(1, 4, size=n_samples).astype(float)
    rows = rows - np.average(rows, axis=0, weights=weight)
    variables = [[0], [1], [2], [3], [4, 5, 6]]
    found = own_shares(rows, variables, weight)
    scaled = rows / np.sqrt(np.average(rows**2, axis=0, weights=weight))
    for own in variables:
        others = np.setdiff1d(np.arange(7), own)
        ridge = Ridge(0.01 * weight.sum(), fit_intercept=False)
        ridge.fit(scaled[:, others], scaled[:, own], sample_weight=weight)
        left = scaled[:, own] - ridge.predict(scaled[:, others]).reshape(n_samples, -1)
        # The least value of squared error and penalty is the conditional variance.
        least = np.average(left**2, axis=0, weights=weight).sum()
        least += 0.01 * np.square(ridge.coef_).sum() + 0.01 * len(own)
        assert_allclose(found[own], least / (1.01 * len(own)), rtol=1e-8)


def test_columns_that_repeat_each_other_count_less():
    generator = np.random.default_rng(0)
    one, other = generator.normal(size=(2, 300))
    copies = one[:, np.newaxis] + 0.05 * generator.normal(size=(300, 8))
    table = pd.DataFrame(np.column_stack([copies, other])).add_prefix("column ")
    features = TableFeatures(**QUICK).fit_transform(table)
    lengths = np.square(features[:, :9]).mean(axis=0)
    # Of nine columns, eight say the same: by equal weights the other one had a ninth of the length.
    assert lengths[8] > 0.4
    # Columns that have nothing to do with each other count alike.
    alone = TableFeatures(**QUICK).fit_transform(generator.normal(size=(3000, 5)))
    assert_allclose(np.square(alone[:, :5]).mean(axis=0), 0.2, rtol=0.02)


def test_weights_count_in_the_scaling(table):
    weight = np.arange(200) % 3
    model = TableFeatures(**QUICK).fit(table, sample_weight=weight)
    features = model.transform(table).astype(np.float64)
    # Weighted means are 0, and weighted mean squares 1 for the columns and 1 for the code.
    assert_allclose(np.average(features, axis=0, weights=weight), 0, atol=1e-5)
    assert_allclose(np.average(np.square(features).sum(axis=1), weights=weight), 2, rtol=1e-5)


def test_code_alone(table):
    model = TableFeatures(include_columns=False, **QUICK).fit(table)
    features = model.transform(table).astype(np.float64)
    assert features.shape == (200, 7)
    assert_allclose(np.square(features).sum(axis=1).mean(), 1, rtol=1e-5)
    assert model.get_feature_names_out()[0] == "tablefeatures0"


def test_few_variables_have_no_code(table):
    few = table[["age", "income", "town", "member"]]
    model = TableFeatures(**QUICK).fit(few)
    # Four variables, though eight columns: the columns alone, unless the code is asked for.
    assert model.transform(few).shape == (200, 8)
    assert TableFeatures(include_columns=False, **QUICK).fit_transform(few).shape == (200, 7)
    # What was one number in a row is found again from the columns.
    rows = model.inverse_transform(model.transform(few))
    assert_allclose(rows["income"], few["income"], rtol=1e-3)
    known = few["town"].notna()
    assert rows["town"][known].tolist() == few["town"][known].tolist()


def test_rows_from_features(model, table):
    rows = model.inverse_transform(model.transform(table))
    # A frame like the one that was given, with what the code says of every cell.
    assert isinstance(rows, pd.DataFrame)
    assert rows.columns.tolist() == table.columns.tolist()
    assert rows["town"].isin(["Aix", "Bern", "Como"]).all()
    assert not rows["age"].isna().any()
    plain = AutoEncoder.reconstruct(model, table)
    pd.testing.assert_frame_equal(rows, plain)
    with pytest.raises(ValueError, match=r"8 columns.*have 16.*output of transform"):
        model.inverse_transform(np.zeros((2, 8)))


def test_arrays_of_numbers():
    generator = np.random.default_rng(0)
    X = generator.normal(size=(60, 6)).cumsum(axis=1)
    X[3, 2] = np.nan
    model = TableFeatures(**QUICK).fit(X)
    assert model.get_feature_names_out()[:7].tolist() == [
        *(f"x{k}" for k in range(6)),
        "x2_missing",
    ]
    features = model.transform(X)
    assert np.isfinite(features).all()
    rows = model.inverse_transform(features)
    # An array comes back as one, within the range of the data.
    assert isinstance(rows, np.ndarray)
    assert (rows >= np.nanmin(X, axis=0) - 1e-5).all()
    assert (rows <= np.nanmax(X, axis=0) + 1e-5).all()


def test_frames_come_out(model, table):
    frame = clone(model).set_output(transform="pandas").fit_transform(table)
    assert frame.columns.tolist() == model.get_feature_names_out().tolist()
    assert frame.index.equals(table.index)
    assert_allclose(frame, model.transform(table), atol=1e-6)


def test_each_feature_has_a_name_of_its_own(table):
    """Whatever columns and categories are called: polars has no two columns of one name."""
    table["town_Aix"] = table.pop("income")
    table["code"] = pd.Categorical([1, "1", 2.5, "infrequent"] * 50)
    table["tablefeatures1"] = table["visits"]
    features = TableFeatures(**QUICK).set_output(transform="polars").fit(table).transform(table)
    names = features.columns
    assert len(set(names)) == len(names)
    assert {"town_Aix", "town_Aix_2", "code_1", "code_1_2", "tablefeatures1_2"} <= set(names)


def test_copies_and_continuation(model, table):
    copy = pickle.loads(pickle.dumps(model))
    assert_array_equal(copy.transform(table), model.transform(table))
    model.partial_fit(table)
    features = model.transform(table).astype(np.float64)
    # What has learned more is scaled anew.
    assert np.abs(features - copy.transform(table)).max() > 1e-3
    assert_allclose(np.square(features).sum(axis=1).mean(), 2, rtol=1e-5)


def test_before_fit(table):
    for method in ("transform", "inverse_transform"):
        with pytest.raises(NotFittedError):
            getattr(TableFeatures(), method)(table)
    with pytest.raises(NotFittedError):
        TableFeatures().get_feature_names_out()


def test_inside_a_search(table):
    y = (table["income"] > table["income"].median()).astype(int)
    pipeline = make_pipeline(TableFeatures(**QUICK), LogisticRegression())
    grid = {
        "tablefeatures__corruption_level": [0.1, 0.3],
        "tablefeatures__include_columns": [True, False],
    }
    search = GridSearchCV(pipeline, grid, cv=2, error_score="raise").fit(table, y)
    # The number is among the features, but for noise.
    assert search.best_score_ > 0.8


def made_table(seed, n_rows=1500):
    """Ten columns that two hidden numbers make, and a class that depends on these in a bent way."""
    generator = np.random.default_rng(seed)
    hidden = generator.normal(size=(n_rows, 2))
    numbers = np.tanh(hidden @ generator.normal(size=(2, 8))) + 0.5 * generator.normal(
        size=(n_rows, 8)
    )
    table = pd.DataFrame(numbers, columns=[f"n{k}" for k in range(8)])
    table["a"] = np.digitize(hidden[:, 0] + 0.5 * generator.normal(size=n_rows), [-1, 0, 1])
    table["b"] = np.digitize(hidden[:, 1] + 0.5 * generator.normal(size=n_rows), [-1, 0, 1])
    table[["a", "b"]] = table[["a", "b"]].map("ABCD".__getitem__)
    return table, (np.abs(hidden[:, 0]) > np.abs(hidden[:, 1])).astype(int)


def test_a_linear_model_profits_from_what_hangs_together():
    table, y = made_table(0)
    codes = TableFeatures(random_state=0).fit_transform(table)
    few = np.random.default_rng(0).permutation(len(y))[:150]
    rest = np.setdiff1d(np.arange(len(y)), few)
    of_codes, of_columns = (
        LogisticRegression().fit(part[few], y[few]).score(part[rest], y[rest])
        for part in (codes, codes[:, :16])
    )
    # The class bends with what the columns have in common: codes show it, columns do not.
    assert of_codes > of_columns + 0.03
