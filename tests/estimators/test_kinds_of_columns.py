"""``loss="auto"``: what kind of variable each column is."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from scipy import sparse
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_digits, load_iris
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.preprocessing import OneHotEncoder

from skae import RBM, AutoEncoder
from skae.engine.optimisation.rows import summarize_columns
from skae.estimators.face.kinds import kinds_of

N = 400


def parts_of(X, names=None, weight=None):
    found = kinds_of(X, summarize_columns(X, weight), weight, names)
    return [(name, columns.tolist()) for name, columns in found]


@pytest.fixture(name="draws")
def generator_of_numpy():
    return np.random.default_rng(0)


def one_hot(draws, n_categories, n=N):
    return np.eye(n_categories)[draws.integers(n_categories, size=n)]


@pytest.mark.parametrize("what", [np.asarray, sparse.csr_matrix, lambda X: X.astype(np.float32)])
def test_a_table_of_all_kinds(what, draws):
    binary = draws.random((N, 2)) < 0.3
    X = what(
        np.column_stack(
            [
                *(binary[:, :1], one_hot(draws, 3), draws.normal(size=(N, 2)), one_hot(draws, 4)),
                *(one_hot(draws, 2), binary[:, 1:], draws.random((N, 1))),
            ]
        )
    )
    assert parts_of(X) == [
        ("bernoulli", [0, 12]),
        ("gaussian", [4, 5, 13]),
        ("multinomial", [1, 2, 3]),
        ("multinomial", [6, 7, 8, 9]),
        ("multinomial", [10, 11]),
    ]
    columns = AutoEncoder(2, max_iter=1).fit(X).columns_
    assert [len(variable) for variable in columns.variables] == [1, 3, 1, 1, 4, 2, 1, 1]
    assert (columns.scale[[0, 1, 2, 3, 6, 7, 8, 9, 10, 11, 12]] == 1).all()


def test_groups_with_gaps(draws):
    X = np.column_stack([one_hot(draws, 3), one_hot(draws, 2), draws.normal(size=N)])
    X[draws.random(N) < 0.2, :3] = np.nan
    X[draws.random(N) < 0.2, 3:5] = np.nan
    expected = [("gaussian", [5]), ("multinomial", [0, 1, 2]), ("multinomial", [3, 4])]
    assert parts_of(X) == expected
    assert parts_of(sparse.csr_matrix(X)) == expected


def test_rows_of_weight_zero_do_not_count(draws):
    X = np.column_stack([one_hot(draws, 3), draws.normal(size=N)])
    X[:3, 0] = 1
    weight = np.ones(N)
    weight[:3] = 0
    assert parts_of(X)[0][0] == "bernoulli"
    assert parts_of(X, weight=weight)[1] == ("multinomial", [0, 1, 2])


def test_a_category_that_was_dropped(draws):
    frame = pd.DataFrame({"a": draws.choice(list("xyz"), N), "b": draws.choice(list("uvw"), N)})
    encoder = OneHotEncoder(drop="first", sparse_output=False).set_output(transform="pandas")
    X = encoder.fit_transform(frame)
    # Zeros are a category here, not a gap; neither sums nor names tell of a variable.
    assert parts_of(X.to_numpy(), X.columns) == [("bernoulli", [0, 1, 2, 3])]
    whole = OneHotEncoder(sparse_output=False).fit_transform(frame)
    assert parts_of(whole) == [("multinomial", [0, 1, 2]), ("multinomial", [3, 4, 5])]


def test_names_tell_where_some_rows_have_no_category(draws):
    cities = ["new_york", "new_delhi", "paris", "rome"]
    frame = pd.DataFrame(
        {"marital_status": draws.choice(["a_b", "a_c", "d"], N), "city": draws.choice(cities, N)}
    )
    encoder = OneHotEncoder(sparse_output=False, handle_unknown="ignore")
    encoder.set_output(transform="pandas").fit(frame)
    frame.loc[:5, "city"] = "london"
    X = encoder.transform(frame).assign(city_age=draws.normal(size=N))
    assert parts_of(X.to_numpy(), X.columns) == [
        ("gaussian", [7]),
        ("multinomial", [0, 1, 2]),
        ("multinomial", [3, 4, 5, 6]),
    ]
    # Without the names it is not certain.
    assert parts_of(X.to_numpy())[0] == ("bernoulli", [3, 4, 5, 6])
    # Nor need they lie side by side.
    order = [0, 3, 1, 7, 4, 2, 5, 6]
    found = parts_of(X.to_numpy()[:, order], X.columns[order])
    assert ("multinomial", [0, 2, 5]) in found
    assert ("multinomial", [1, 4, 6, 7]) in found


def test_what_a_column_transformer_makes(draws):
    frame = pd.DataFrame(
        {
            "a": draws.choice(list("xyz"), N),
            "b": draws.choice(["u_1", "u_2"], N),
            "n": draws.normal(size=N),
        }
    )
    transformer = make_column_transformer((OneHotEncoder(), ["a", "b"]), remainder="passthrough")
    expected = [("gaussian", [5]), ("multinomial", [0, 1, 2]), ("multinomial", [3, 4])]
    assert parts_of(transformer.fit_transform(frame)) == expected
    model = AutoEncoder(2, max_iter=1).fit(transformer.fit_transform(frame))
    assert_array_equal(model.columns_.variables[1], [3, 4])


def test_a_variable_of_many_categories_does_not_widen_the_others(draws):
    X = np.column_stack([*(one_hot(draws, 2, 3000) for _ in range(100)), one_hot(draws, 200, 3000)])
    units = AutoEncoder(2, max_iter=1).fit(X).columns_.units("cpu")
    assert [type(part).__name__ for part, _ in units.parts] == ["OneHotGroups", "Multinomial"]
    assert units.parts[0][0].shape == (2, 100)


def test_images_and_texts_stay_as_they_are(digits, draws):
    X, _ = digits
    assert parts_of(X) == [("bernoulli", list(range(64)))]
    assert parts_of((X > 0.5).astype(float)) == [("bernoulli", list(range(64)))]
    counts = draws.poisson(0.1, size=(N, 50)) / 3
    words = sparse.csr_matrix(np.clip(counts * draws.random((N, 50)), 0, 1))
    assert parts_of(words) == [("bernoulli", list(range(50)))]


def test_numbers_that_happen_to_lie_in_the_unit_interval(draws):
    iris = load_iris().data
    iris = (iris - iris.min(0)) / (iris.max(0) - iris.min(0))
    # Each column has its 0 and its 1, as MinMaxScaler leaves it: they are numbers nonetheless.
    assert parts_of(iris) == [("gaussian", [0, 1, 2, 3])]
    # So they are beside one-hot columns, of which all entries are 0 or 1.
    X = np.column_stack([draws.random((N, 2)), one_hot(draws, 3)])
    assert parts_of(X) == [("gaussian", [0, 1]), ("multinomial", [2, 3, 4])]


def test_columns_of_counts_that_hold_only_0_and_1(draws):
    counts = draws.poisson([0.02, 2, 3, 4, 0.03, 5], size=(N, 6)).clip([0] * 6, [1, 9, 9, 9, 1, 9])
    assert parts_of(counts) == [("gaussian", [0, 1, 2, 3, 4, 5])]
    assert parts_of(sparse.csr_matrix(counts.astype(float))) == [("gaussian", [0, 1, 2, 3, 4, 5])]
    # So many ones would have brought larger numbers with them.
    often = np.column_stack([counts, draws.random(N) < 0.3])
    assert parts_of(often) == [("bernoulli", [6]), ("gaussian", [0, 1, 2, 3, 4, 5])]
    # Among numbers, or where few columns are counts, it is a truth value; so are one-hot columns.
    numbers = np.column_stack([counts[:, :3], draws.normal(size=(N, 3))])
    assert parts_of(numbers) == [("bernoulli", [0]), ("gaussian", [1, 2, 3, 4, 5])]
    rare = draws.choice(12, size=N)
    beside = np.column_stack([counts[:, 1:4], np.eye(12)[rare], draws.poisson(3, size=(N, 13))])
    assert [name for name, _ in parts_of(beside)] == ["gaussian", "multinomial"]


@pytest.mark.parametrize("cls", [AutoEncoder, RBM])
def test_raw_digits_are_searched_by_their_own_score(cls):
    X = load_digits().data
    folds = list(KFold(5).split(X))
    # In each fold some pixels hold only 0 and 1 where other rows have more.
    few = [(X[fit].max(axis=0) == 1) & (X[rest].max(axis=0) > 1) for fit, rest in folds]
    assert np.any(few)
    search = GridSearchCV(
        cls(max_iter=1, random_state=0), {"n_components": [4]}, cv=folds, error_score="raise"
    ).fit(X)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_columns_of_one_value(draws):
    X = np.column_stack([np.zeros(N), draws.normal(size=N), np.ones(N)])
    assert parts_of(X) == [("gaussian", [0, 1, 2])]
    assert parts_of(np.zeros((N, 3))) == [("bernoulli", [0, 1, 2])]


def test_two_columns_that_are_opposite_by_chance():
    # Few rows prove nothing.
    X = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    assert parts_of(X) == [("bernoulli", [0, 1])]


def test_lists_come_first(draws):
    X = np.column_stack([one_hot(draws, 3), draws.normal(size=N)])
    names = ["a", "b", "c", "d"]
    loss = [("bernoulli", ["a", "b", "c"]), ("gaussian", ["d"])]
    frame = pd.DataFrame(X, columns=names)
    parts = AutoEncoder(2, loss=loss, max_iter=1).fit(frame).columns_.parts
    assert [name for name, _ in parts] == ["bernoulli", "gaussian"]


@pytest.mark.parametrize("what", [np.asarray, sparse.csr_matrix])
def test_many_variables_are_found(what, draws):
    groups = [one_hot(draws, 5, 10_000) for _ in range(60)]
    X = np.column_stack([*groups, draws.random((10_000, 100)) < 0.3, draws.random((10_000, 100))])
    X = what(X.astype(np.float32))
    summary = summarize_columns(X)
    found = kinds_of(X, summary)
    assert sum(name == "multinomial" for name, _ in found) == 60
