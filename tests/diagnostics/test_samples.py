"""Comparisons of samples with data: values against slow definitions, and against known truth."""

from itertools import combinations

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import ks_2samp
from sklearn.model_selection import train_test_split

from skae.diagnostics import compare_samples
from skae.diagnostics.two_samples import (
    correlations,
    energy_distance,
    kolmogorov_smirnov,
    total_variation,
)


def table(n_rows, seed):
    """Rows of one law: numbers, one with gaps, categories and a class, all of them dependent."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=n_rows)
    place = np.clip((a + rng.normal(size=n_rows) + 1).astype(int), 0, 2)
    frame = pd.DataFrame(
        {
            "a": a.round(1),
            "b": np.exp(a + rng.normal(size=n_rows)),
            "c": pd.Categorical(np.array(["x", "y", "z"])[place]),
            "ill": np.where(rng.random(n_rows) < 1 / (1 + np.exp(-3 * a)), "yes", "no"),
        }
    )
    frame.loc[rng.random(n_rows) < 0.1, "b"] = np.nan
    return frame


def shuffled(frame, seed=0):
    """Each column in an order of its own."""
    rng = np.random.default_rng(seed)
    columns = {name: frame[name].iloc[rng.permutation(len(frame))].array for name in frame}
    return pd.DataFrame(columns)


X = table(400, 0)


@pytest.fixture(scope="module")
def comparison():
    sets = {
        "new": table(400, 1),
        "copies": X.sample(400, replace=True, random_state=0),
        "shuffled": shuffled(X),
    }
    held_out = table(400, 2)
    return compare_samples(X, sets, target="ill", held_out=held_out, max_rows=300, random_state=0)


def test_good_samples_are_like_new_rows(comparison):
    new, held_out = 0, 3
    assert comparison.names[held_out] == "held-out rows"
    # Both are as many rows of the law of X.
    assert abs(comparison.detection_auc[new] - 0.5) < 0.1
    assert comparison.column_error[new] < 0.08
    assert comparison.pair_error[new] < 0.12
    assert abs(comparison.energy_distance[new]) < 0.03
    assert abs(comparison.near_copies[new] - comparison.near_copies_of_data) < 0.08
    assert abs(comparison.utility[new] - comparison.utility_of_data) < 0.06
    assert comparison.utility[held_out] == comparison.utility_of_data


def test_copies_are_told(comparison):
    assert comparison.near_copies[1] == 1.0
    assert comparison.near_copies_of_data < 0.15
    # A forest knows the class of a copy from the row that it copies, which is of the other class.
    assert comparison.detection_auc[1] < 0.4


def test_independent_columns_are_told_by_pairs_and_not_by_columns(comparison):
    # They have the very values of X.
    assert comparison.column_error[2] < 1e-12
    assert comparison.pair_error[2] > 1.5 * comparison.pair_error[0]
    assert comparison.detection_auc[2] > 0.62
    assert comparison.energy_distance[2] > comparison.energy_distance[0] + 0.02
    # Nothing can be learned of what depends on nothing.
    assert comparison.utility[2] < comparison.utility[0] - 0.15


def test_errors_are_those_of_slow_definitions():
    Y = table(300, 5)
    found = compare_samples(X, Y, max_rows=50, random_state=0)
    assert found.names == ("samples",)
    errors, pairs = found.column_errors[0], found.pair_errors[0]
    assert errors[0] == pytest.approx(ks_2samp(X["a"], Y["a"]).statistic)
    gaps = [frame["b"].fillna(-1.0) for frame in (X, Y)]  # below all numbers
    assert errors[1] == pytest.approx(ks_2samp(*gaps).statistic)
    shares = [frame["c"].value_counts(normalize=True).sort_index() for frame in (X, Y)]
    assert errors[2] == pytest.approx((shares[0] - shares[1]).abs().sum() / 2)
    expected = abs(X["a"].corr(X["b"]) - Y["a"].corr(Y["b"])) / 2
    assert pairs[0, 1] == pytest.approx(expected)

    edges = np.linspace(X["b"].min(), X["b"].max(), 11)[1:-1]
    binned = [
        frame.assign(b=np.where(frame["b"].isna(), -1, np.digitize(frame["b"], edges)))
        for frame in (X, Y)
    ]
    for one, other in [("b", "c"), ("c", "ill")]:
        joint = [pd.crosstab(frame[one], frame[other], normalize=True) for frame in binned]
        difference = joint[0].sub(joint[1], fill_value=0).fillna(0)
        # Combinations that one of them has alone are missing in the other.
        either = [of.reindex_like(difference).fillna(0) for of in joint]
        expected = (either[0] - either[1]).abs().to_numpy().sum() / 2
        place = [list(X).index(name) for name in (one, other)]
        assert pairs[tuple(place)] == pytest.approx(expected)
    assert (pairs == pairs.T).all()
    assert found.pair_error[0] == pytest.approx(
        np.mean([pairs[i, j] for i, j in combinations(range(4), 2)])
    )


def test_kernels():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 3)), rng.normal(size=(20, 3))
    assert kolmogorov_smirnov(np.array([np.nan, 1.0]), np.array([1.0, 1.0])) == 0.5
    assert total_variation(np.array([0, 0, 1, -1]), np.array([0, 2, 2, -1])) == pytest.approx(0.5)
    within = [np.sum(cdist(z, z)) / (len(z) * (len(z) - 1)) for z in (x, y)]
    assert energy_distance(x, y) == pytest.approx(2 * cdist(x, y).mean() - sum(within))
    x[:, 2] = 4.0
    expected = np.corrcoef(x[:, :2].T)
    assert np.allclose(correlations(x)[:2, :2], expected)
    assert (correlations(x)[2] == 0).all()  # what does not vary


def test_arrays_and_other_frames_have_the_same_measures():
    Z, Y = X[:100], table(80, 6)
    numbers = ["a", "b"]
    frames = compare_samples(Z[numbers], Y[numbers], target="b", max_rows=30, random_state=0)
    arrays = compare_samples(
        Z[numbers].to_numpy(), Y[numbers].to_numpy(), target=1, max_rows=30, random_state=0
    )
    assert arrays.columns == ("x0", "x1")
    for name, values in frames.measures.items():
        assert np.allclose(values, arrays.measures[name]), name
    other = compare_samples(pl.from_pandas(Z), pl.from_pandas(Y), max_rows=30, random_state=0)
    first = compare_samples(Z, Y, max_rows=30, random_state=0)
    assert np.allclose(other.pair_errors, first.pair_errors)
    assert other.detection_auc == first.detection_auc


def test_without_held_out_rows_training_rows_are_new_to_the_others():
    train, test = train_test_split(X, random_state=0)
    found = compare_samples(train, test, target="ill", max_rows=30, random_state=0)
    assert 0.04 < found.near_copies_of_data < 0.25
    assert 0.75 < found.utility_of_data < 1
    again = compare_samples(train, test, target="ill", max_rows=30, random_state=0)
    assert repr(found) == repr(again)


def test_it_prints_as_a_table_and_makes_a_frame(comparison):
    frame = comparison.to_frame()
    assert list(frame.index) == ["new", "copies", "shuffled", "held-out rows"]
    assert frame.loc["copies", "near_copies"] == 1.0
    lines = repr(comparison).splitlines()
    assert lines[2].split()[:2] == ["copies", f"{frame.loc['copies', 'column_error']:.3f}"]
    assert lines[-1].startswith("of data: near_copies")
    bare = compare_samples(X[["a", "b"]], X[["a", "b"]], max_rows=20, random_state=0)
    assert "utility" not in bare.to_frame()
    assert "utility" not in repr(bare)


def test_bad_input_is_refused():
    few = {"max_rows": 20, "random_state": 0}
    with pytest.raises(ValueError, match=r"'samples' has 3 columns, but X has 4"):
        compare_samples(X, X[["a", "b", "c"]], **few)
    with pytest.raises(ValueError, match="in the same order"):
        compare_samples(X, X[["b", "a", "c", "ill"]], **few)
    with pytest.raises(ValueError, match="both be data frames"):
        compare_samples(X[["a", "b"]], X[["a", "b"]].to_numpy(), **few)
    with pytest.raises(ValueError, match="'samples' has 9 rows"):
        compare_samples(X, X[:9], **few)
    with pytest.raises(ValueError, match=r"'bad'.*held numbers in fit, but holds text now"):
        compare_samples(X, {"bad": X.assign(a="word")}, **few)
    with pytest.raises(ValueError, match="no column of X"):
        compare_samples(X, X, target="age", **few)
    with pytest.raises(ValueError, match="infinity"):
        compare_samples(X[["a"]], X[["a"]].replace(0.0, np.inf), **few)
    with pytest.raises(ValueError, match="nothing to compare"):
        compare_samples(X, {}, **few)
    with pytest.raises(ValueError, match="is the name of held_out"):
        compare_samples(X, {"held-out rows": X}, held_out=X, **few)
    with pytest.raises(ValueError, match="max_rows"):
        compare_samples(X, X, max_rows=1)
    with pytest.raises(ValueError, match="one value only"):
        compare_samples(X.assign(ill="no"), X.assign(ill="no"), target="ill", **few)


def test_samples_of_one_class_teach_nothing():
    samples = table(100, 7).assign(ill="no")
    found = compare_samples(X, samples, target="ill", max_rows=20, random_state=0)
    assert found.utility[0] == 0.5


def test_samples_that_have_lost_a_column():
    data, new = table(120, 0), table(120, 1)
    found = compare_samples(data, {"lost": new.assign(b=np.nan)}, target="ill")
    lost = found.names.index("lost")
    assert found.detection_auc[lost] > 0.9
    assert np.isfinite(found.utility).all()
    with pytest.raises(ValueError, match="'b' has no observed value"):
        compare_samples(data.assign(b=np.nan), {"all": new}, target="b")
