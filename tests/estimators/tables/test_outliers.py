"""The detector behaves as scikit-learn's do, finds planted rows, and says why they are odd."""

import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, clone
from sklearn.compose import make_column_transformer
from sklearn.ensemble import IsolationForest
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skae import (
    RBM,
    AutoEncoder,
    DeepBeliefNetwork,
    OutlierDetector,
    Pooling,
    SparseCoder,
    StackedAutoEncoder,
    StackedClassifier,
)
from skae.estimators.tables import outliers


def correlated(n_rows=400, n_columns=8, seed=0):
    """Rows of two hidden factors, in columns of different scale and place."""
    generator = np.random.default_rng(seed)
    loadings = np.random.default_rng(1).normal(size=(2, n_columns))
    rows = generator.normal(size=(n_rows, 2)) @ loadings
    rows += 0.3 * generator.normal(size=rows.shape)
    return rows * np.geomspace(0.01, 100, n_columns) + 5


def with_odd_rows(n_odd, seed=0):
    """The same, the first rows with columns of other rows: each value usual, their company not."""
    X = correlated(seed=seed)
    generator = np.random.default_rng(seed + 10)
    for column in X.T:
        column[:n_odd] = generator.permutation(column)[:n_odd]
    return X, np.arange(len(X)) < n_odd


@pytest.fixture(scope="module")
def detector():
    """A default one, of rows as they should be."""
    return OutlierDetector(random_state=0).fit(correlated())


def test_scores_and_predictions_are_those_of_scikit_learns_detectors(detector):
    X, _ = with_odd_rows(20)
    assert np.allclose(detector.decision_function(X), detector.score_samples(X) - detector.offset_)
    # The contract of IsolationForest: negative is an outlier, -1.
    assert set(detector.predict(X)) == {-1, 1}
    assert ((detector.predict(X) == -1) == (detector.decision_function(X) < 0)).all()


@pytest.mark.parametrize("contamination", [0.01, 0.1, 0.5])
def test_contamination_is_the_part_of_training_rows_that_are_outliers(contamination):
    X = correlated()
    model = OutlierDetector(AutoEncoder(3, max_iter=3), contamination=contamination, random_state=0)
    assert abs((model.fit_predict(X) == -1).mean() - contamination) <= 1 / len(X)


def test_few_usual_rows_are_outliers_by_default(detector):
    # Rows like those of training; the fence of a box plot leaves out few of them.
    assert (detector.predict(correlated(seed=5)) == -1).mean() < 0.06
    X, is_odd = with_odd_rows(100, seed=5)
    # A fifth of the odd ones at least, with every value by itself a usual one.
    assert (detector.predict(X)[is_odd] == -1).mean() > 0.2


def test_rows_of_odd_company_are_found_where_they_are_no_part_of_training(detector):
    X, is_odd = with_odd_rows(60, seed=20)
    forest = IsolationForest(random_state=0).fit(correlated()).score_samples(X)
    area = roc_auc_score(is_odd, -detector.score_samples(X))
    # Columns depend on each other, which splits of one column at a time hardly see.
    assert area > 0.85
    assert area > roc_auc_score(is_odd, -forest) + 0.1


def test_a_tenth_of_odd_training_rows_does_little_harm():
    X, is_odd = with_odd_rows(40, seed=0)
    dirty = OutlierDetector(n_members=2, random_state=0).fit(X).score_samples(X)
    clean = OutlierDetector(n_members=2, random_state=0).fit(X[~is_odd]).score_samples(X)
    # Training rows are few beside the odd ones among them, whose company is of no rule.
    assert roc_auc_score(is_odd, -dirty) > roc_auc_score(is_odd, -clean) - 0.1


def test_values_far_out_stay_apart_although_the_network_sees_them_clipped(detector):
    X = np.repeat(correlated()[:1], 3, axis=0)
    X[:, 2] += correlated()[:, 2].std() * np.array([10, 100, 1000])
    # Clipped, they are 2.87, 2.999 and 3.
    assert (np.diff(detector.score_samples(X)) < -1).all()
    assert (detector.score_columns(X).argmin(axis=1) == 2).all()


# Columns


@pytest.mark.parametrize(
    ("model", "tolerance"),
    [
        (None, 1e-9),
        (AutoEncoder(3, max_iter=3), 1e-9),
        (StackedAutoEncoder((6, 3), max_iter=2), 1e-9),
        (SparseCoder(4, max_iter=2), 1e-9),
        # An integral, by the midpoint rule.
        (RBM(4, visible="gaussian", max_iter=3), 1e-2),
    ],
    ids=str,
)
def test_contributions_of_columns_sum_to_the_score(model, tolerance, monkeypatch):
    monkeypatch.setattr(outliers, "_STEPS", 30)  # of three hundred
    X = correlated(200)
    fitted = OutlierDetector(model, n_members=2, random_state=0).fit(X)
    rest = fitted.score_columns(X).sum(axis=1) - fitted.score_samples(X)
    # Up to what no row changes, such as the normalizer of a density.
    assert np.ptp(rest) < tolerance
    if model is None:
        assert np.abs(rest).max() < tolerance


def test_the_column_that_was_changed_contributes_most(detector):
    X = correlated(100, seed=3)
    places = np.arange(100) % 8
    X[np.arange(100), places] += 6 * X.std(axis=0)[places]
    # By chance an eighth.
    assert (detector.score_columns(X).argmin(axis=1) == places).mean() > 0.9


def table(n_rows=300, seed=0):
    """A raw frame: the category and the truth value follow from the number, but for some rows."""
    generator = np.random.default_rng(seed)
    length = generator.normal(10, 3, n_rows)
    kind = np.where(length < 8, "short", np.where(length < 12, "middle", "long")).astype(object)
    frame = pd.DataFrame({"length": length, "kind": kind, "is_long": length > 10})
    frame["weight"] = 2 * length + generator.normal(size=n_rows)
    frame.loc[frame.index[::17], "weight"] = np.nan
    frame.loc[frame.index[5::23], "kind"] = None
    return frame


@pytest.fixture(scope="module")
def of_table():
    """A default one of the frame."""
    return OutlierDetector(random_state=0).fit(table())


@pytest.mark.parametrize(("column", "value"), [("kind", "long"), ("is_long", True)])
def test_a_category_that_does_not_go_with_the_rest_is_named(column, value, of_table):
    frame, fitted = table(), of_table
    rows = frame[frame["length"] < 7].dropna().iloc[:10].copy()
    usual = fitted.score_samples(rows)
    rows[column] = value
    contributions = fitted.score_columns(rows)
    # One for each column of the table, whatever the columns of the network.
    assert contributions.shape == (10, 4)
    assert (frame.columns[contributions.argmin(axis=1)] == column).mean() >= 0.8
    assert (fitted.score_samples(rows) < usual).mean() >= 0.9


def test_what_was_not_observed_contributes_nothing(of_table):
    frame = table()
    contributions = of_table.score_columns(frame)
    assert (contributions[frame.isna().to_numpy()] == 0).all()


def test_a_model_of_whole_rows_has_no_contributions_of_columns():
    fitted = OutlierDetector(GaussianMixture(2)).fit(correlated())
    with pytest.raises(ValueError, match="GaussianMixture scores whole rows"):
        fitted.score_columns(correlated())


# Models


def test_scores_are_those_of_the_model():
    X = correlated()
    model = AutoEncoder(3, max_iter=3, loss="gaussian")
    fitted = OutlierDetector(model, n_members=1, random_state=0).fit(X)
    assert np.allclose(fitted.score_samples(X), fitted.estimators_[0].score_samples(X))
    machine = RBM(4, visible="gaussian", max_iter=3)
    fitted = OutlierDetector(machine, n_members=2, random_state=0).fit(X)
    energies = [member.free_energy(X) for member in fitted.estimators_]
    # A mean over members, which differ by their seeds.
    assert np.allclose(fitted.score_samples(X), -np.mean(energies, axis=0))
    assert not np.allclose(*energies)
    assert not hasattr(machine, "weights_")


@pytest.mark.parametrize(
    "model",
    [
        DeepBeliefNetwork((4, 3), max_iter=1),
        make_pipeline(StandardScaler(), AutoEncoder(3, max_iter=2)),
        GaussianMixture(2),
    ],
    ids=lambda model: type(model).__name__,
)
def test_any_model_with_scores_will_do(model):
    X = correlated(100)
    X = (X - X.min(axis=0)) / np.ptp(X, axis=0)
    fitted = OutlierDetector(model, contamination=0.1, n_members=1, random_state=0).fit(X)
    assert (fitted.predict(X) == -1).sum() == 10
    # One that is not to be fitted again stays as it is.
    frozen = OutlierDetector(FrozenEstimator(fitted.estimators_[0]), contamination=0.1).fit(X)
    np.testing.assert_array_equal(frozen.score_samples(X), fitted.score_samples(X))


@pytest.mark.parametrize("model", [Pooling(), StackedClassifier((3,), layer="auto")])
def test_a_model_without_scores_is_refused_with_those_that_have(model):
    with pytest.raises(ValueError, match=r"has no scores of rows.*AutoEncoder.*RBM"):
        OutlierDetector(model).fit(correlated())


# What users pass


class KnowsNothing(BaseEstimator):
    """A model of others that does not know how odd the last row is."""

    def __init__(self, score=np.nan):
        self.score = score

    def fit(self, X, y=None):
        return self

    def score_samples(self, X):
        return np.where(np.arange(len(X)) == len(X) - 1, self.score, 0.0)


def test_a_pipeline_reads_tables_by_itself():
    frame = table(60)
    names = frame.select_dtypes("number").columns.tolist()
    numbers = make_column_transformer((make_pipeline(SimpleImputer(), StandardScaler()), names))
    detector = OutlierDetector(make_pipeline(numbers, GaussianMixture(random_state=0)), n_members=1)
    scores = detector.fit(frame).score_samples(frame)
    assert (scores == clone(detector.estimator).fit(frame).score_samples(frame)).all()
    with pytest.raises(ValueError, match="same order"):
        detector.predict(frame[frame.columns[::-1]])
    # Steps that fill gaps do so in fit and after it.
    X = correlated(30)
    X[3, 2] = np.nan
    detector.set_params(estimator=make_pipeline(SimpleImputer(), GaussianMixture())).fit(X)
    assert np.isfinite(detector.score_samples(X)).all()


def test_scores_that_are_no_numbers_are_refused():
    """All rows would be inliers: no number is below NaN."""
    X = correlated(30)
    with pytest.raises(ValueError, match=r"KnowsNothing\(\) gives row 29 the score NaN"):
        OutlierDetector(KnowsNothing()).fit(X)
    with pytest.raises(ValueError, match="score of training row 29 is infinite"):
        OutlierDetector(KnowsNothing(-np.inf)).fit(X)


def test_weights_for_a_model_that_takes_none_are_refused():
    X, weight = correlated(30), np.ones(30)
    with pytest.raises(ValueError, match=r"GaussianMixture.* takes no sample_weight"):
        OutlierDetector(GaussianMixture(2)).fit(X, sample_weight=weight)
    # One that is fitted has nothing to weigh, but the threshold has.
    frozen = OutlierDetector(FrozenEstimator(GaussianMixture(2, random_state=0).fit(X)))
    assert frozen.fit(X, sample_weight=weight).offset_ == frozen.fit(X).offset_


@pytest.mark.parametrize("contamination", [0, 0.6, -0.1, "some", np.nan])
def test_contamination_out_of_range_is_refused(contamination):
    with pytest.raises(ValueError, match="contamination"):
        OutlierDetector(contamination=contamination).fit(correlated())


def test_what_cannot_be_scored_is_refused(detector):
    with pytest.raises(NotFittedError):
        OutlierDetector().predict(correlated())
    with pytest.raises(ValueError, match="1 sample"):
        OutlierDetector().fit(correlated()[:1])
    with pytest.raises(ValueError, match="infinity"):
        detector.score_samples(np.full((2, 8), np.inf))


def test_columns_of_one_value_say_nothing_until_they_change():
    X = correlated(200)
    X[:, 3] = 7.0
    fitted = OutlierDetector(random_state=0).fit(X)
    # The nets reproduce it but for what noise left in their weights.
    assert np.abs(fitted.score_columns(X)[:, 3]).mean() < 0.2
    X[0, 3] = 9.0
    assert fitted.score_columns(X[:1]).argmin() == 3
    # Rows that are all alike: none of them is odd.
    same = np.ones((20, 3))
    assert (OutlierDetector(n_members=1, random_state=0).fit_predict(same) == 1).all()


def test_weights_of_zero_leave_rows_out_of_the_offset():
    X, is_odd = with_odd_rows(40)
    X[is_odd] *= 30  # had they a part in it, they would be the tenth that is left out
    model = OutlierDetector(AutoEncoder(3, max_iter=3), contamination=0.1, random_state=0)
    weighted = model.fit(X, sample_weight=np.where(is_odd, 0.0, 1.0))
    share = (weighted.predict(X[~is_odd]) == -1).mean()
    assert share == pytest.approx(0.1, abs=0.01)


def test_the_same_seed_gives_the_same_scores_also_after_a_pickle(monkeypatch):
    monkeypatch.setattr(outliers, "_STEPS", 30)  # of three hundred
    X = correlated(200)
    detector = OutlierDetector(n_members=1, random_state=0).fit(X)
    again = clone(detector).fit(X)
    assert (again.score_samples(X) == detector.score_samples(X)).all()
    loaded = pickle.loads(pickle.dumps(detector))
    assert (loaded.score_samples(X) == detector.score_samples(X)).all()
    # What was fitted scores, whatever is set for the next fit.
    frame = pd.DataFrame(X).add_prefix("x").assign(kind=["a", "b"] * 100)
    of_frame = clone(detector).fit(frame)
    before, encoding = of_frame.score_samples(frame), of_frame.encoding_
    of_frame.set_params(estimator=FrozenEstimator(GaussianMixture()))
    assert (of_frame.score_samples(frame) == before).all()
    assert of_frame.encoding_ is encoding
    assert (
        clone(detector).set_params(random_state=1).fit(X).score_samples(X)
        != (detector.score_samples(X))
    ).any()
