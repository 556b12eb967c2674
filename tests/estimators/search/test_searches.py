"""A batched search is scikit-learn's search, with the same results."""

import os
import signal
import tempfile
import threading
import time
import warnings
from pathlib import Path
from unittest import SkipTest

import joblib
import numpy as np
import pytest
import sklearn
from scipy.stats import loguniform
from sklearn.base import BaseEstimator, clone
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.ensemble import BaggingClassifier
from sklearn.exceptions import FitFailedWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import get_scorer
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    RandomizedSearchCV,
    cross_val_score,
)
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.svm import SVC
from sklearn.utils.estimator_checks import estimator_checks_generator

from skae import (
    RBM,
    AutoEncoder,
    BatchedGridSearchCV,
    BatchedRandomizedSearchCV,
    ContractiveAutoEncoder,
    DenoisingAutoEncoder,
    StackedClassifier,
    train_together,
)
from skae.engine.joint import rendezvous
from skae.estimators.face import columns
from skae.estimators.search import searches

SHORT = {"max_iter": 4, "batch_size": 20, "random_state": 0}


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(n_class=4, return_X_y=True)
    return X[:150] / 16, y[:150]


@pytest.fixture
def batches(monkeypatch):
    """How many models were trained together, one number for each batch."""
    sizes = []

    def counted(runs, *others):
        sizes.append(len(runs))
        return original(runs, *others)

    original = rendezvous.train_jointly
    monkeypatch.setattr(rendezvous, "train_jointly", counted)
    return sizes


def assert_same_results(one, two):
    """All of ``cv_results_`` but times."""
    assert list(one.cv_results_) == list(two.cv_results_)
    for name, values in one.cv_results_.items():
        if name.endswith("_time"):
            continue
        if name == "params" or name.startswith("param_"):
            assert repr(values) == repr(two.cv_results_[name])
        else:
            np.testing.assert_allclose(two.cv_results_[name], values, rtol=1e-9, err_msg=name)
    for name in ("best_index_", "n_splits_", "multimetric_"):
        assert getattr(one, name) == getattr(two, name)


def both(theirs, ours, *args, data, fit_params=None, **options):
    """Fitted searches of scikit-learn and of this package with the same arguments."""
    fit_params = {} if fit_params is None else fit_params
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [cls(*args, **options).fit(*data, **fit_params) for cls in (theirs, ours)]


def pipeline(model):
    return Pipeline([("scale", MinMaxScaler()), ("model", model), ("svm", SVC())])


@pytest.fixture(scope="module")
def of_a_pipeline(digits):
    """A search of scikit-learn over a pipeline, and what it was made of."""
    grid = {
        "model__contraction": [0.01, 0.1],
        "model__corruption_level": [0.1, 0.4],
        "svm__C": [0.1, 10.0],
    }
    model = pipeline(ContractiveAutoEncoder(6, corruption="masking", **SHORT))
    arguments = {"param_grid": grid, "cv": 3, "return_train_score": True}
    return model, arguments, GridSearchCV(model, **arguments).fit(*digits)


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_a_pipeline(digits, batches, of_a_pipeline, n_jobs):
    """What differs in a later step alone is trained once: 2 x 2 models on 3 folds, not x 2."""
    model, arguments, one = of_a_pipeline
    with joblib.parallel_config("threading"):
        two = BatchedGridSearchCV(model, **arguments, n_jobs=n_jobs).fit(*digits)
    assert_same_results(one, two)
    assert batches == [12]
    X, y = digits
    np.testing.assert_array_equal(two.predict(X), one.predict(X))
    np.testing.assert_array_equal(two.classes_, one.classes_)
    assert two.score(X, y) == one.score(X, y)


@pytest.mark.one_draw(reason="workers do not know moved seeds")
def test_several_processes(digits, batches, of_a_pipeline, monkeypatch, tmp_path):
    """Each trains a part together; none of it is trained here, and nothing is left behind."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    model, arguments, one = of_a_pipeline
    two = BatchedGridSearchCV(model, **arguments, n_jobs=2).fit(*digits)
    assert_same_results(one, two)
    assert batches == []
    np.testing.assert_array_equal(two.predict(digits[0]), one.predict(digits[0]))
    assert not list(tmp_path.glob("skae-*"))
    invalid = {"model__contraction": [0.1, -1.0]}
    with pytest.raises(ValueError, match="contraction"):
        BatchedGridSearchCV(model, invalid, cv=2, n_jobs=2, error_score="raise").fit(*digits)
    assert not list(tmp_path.glob("skae-*"))


def test_a_fold_is_described_once(digits, monkeypatch):
    """Not by every candidate; the refit is by itself."""
    described = []

    def counted(X, *others):
        described.append(X.shape)
        return original(X, *others)

    original = columns._described
    monkeypatch.setattr(columns, "_described", counted)
    grid = {"contraction": [0.01, 0.1, 1.0], "loss": ["auto", "gaussian"]}
    model = ContractiveAutoEncoder(4, **SHORT)
    BatchedGridSearchCV(model, grid, cv=3).fit(digits[0])
    assert described == [(100, 64)] * 6 + [(150, 64)]


def test_grids_several_scores_and_estimators_in_a_grid(digits, batches):
    """Candidates of other shapes, other models and none at all."""
    grid = [
        {"model__n_components": [4, 6], "model__learning_rate": [1e-3, 1e-2]},
        {"model": [DenoisingAutoEncoder(6, **SHORT), RBM(6, **SHORT), PCA(6), "passthrough"]},
    ]
    model = pipeline(AutoEncoder(6, **SHORT))
    options = {"cv": 2, "scoring": ["accuracy", "f1_macro"], "refit": "f1_macro"}
    one, two = both(GridSearchCV, BatchedGridSearchCV, model, grid, data=digits, **options)
    assert_same_results(one, two)
    # Four models of each of two sizes, and the second grid's two on two folds.
    assert sorted(batches) == [2, 2, 4, 4]


def test_a_model_by_itself_with_weights_and_early_stopping(digits):
    X, _ = digits
    weight = np.linspace(0.5, 2.0, len(X))
    grid = {"sparsity": [0.01, 0.1], "early_stopping": [False, True]}
    model = AutoEncoder(6, **SHORT)
    one, two = both(
        GridSearchCV, BatchedGridSearchCV, model, grid, data=(X,), cv=3,
        fit_params={"sample_weight": weight},
    )  # fmt: skip
    assert_same_results(one, two)
    np.testing.assert_allclose(two.transform(X), one.transform(X))
    np.testing.assert_array_equal(two.fit_transform(X, sample_weight=weight), two.transform(X))


def test_routed_metadata(digits):
    X, y = digits
    groups, weight = np.arange(len(X)) % 5, np.linspace(0.5, 2.0, len(X))
    with sklearn.config_context(enable_metadata_routing=True):
        model = AutoEncoder(6, **SHORT).set_fit_request(sample_weight=True)
        model = make_pipeline(model, LogisticRegression().set_fit_request(sample_weight=False))
        scorer = get_scorer("accuracy").set_score_request(sample_weight=False)
        one, two = both(
            GridSearchCV, BatchedGridSearchCV, model, {"autoencoder__contraction": [0.1, 0.2]},
            data=(X, y), cv=GroupKFold(3), fit_params={"sample_weight": weight, "groups": groups},
            scoring=scorer,
        )  # fmt: skip
    assert_same_results(one, two)


def test_drawn_candidates(digits):
    drawn = {"learning_rate": loguniform(1e-3, 1e-1), "corruption_level": [0.1, 0.2, 0.3]}
    model = DenoisingAutoEncoder(6, **SHORT)
    one, two = both(
        RandomizedSearchCV, BatchedRandomizedSearchCV, model, drawn, data=digits,
        n_iter=5, random_state=3, cv=2,
    )  # fmt: skip
    assert_same_results(one, two)


def test_stacks_and_fine_tuning(digits, batches):
    """Layers are trained as one, what comes after by itself; all scores are the same."""
    model = StackedClassifier((6, 4), layer="auto", max_iter=3, batch_size=20, random_state=0)
    grid = {"layer": [AutoEncoder(**SHORT, contraction=c) for c in (0.1, 0.2)]}
    one, two = both(GridSearchCV, BatchedGridSearchCV, model, grid, data=digits, cv=2)
    assert_same_results(one, two)
    # Both layers of four stacks, then each by itself.
    assert batches == [4, 4, 1, 1, 1, 1]


def test_only_invalid_candidates_get_the_error_score(digits):
    X, _ = digits
    grid = {"contraction": [0.1, -1.0, 0.2]}
    search = BatchedGridSearchCV(AutoEncoder(6, **SHORT), grid, cv=2, error_score=-999.0)
    with pytest.warns(FitFailedWarning, match="contraction"):
        search.fit(X)
    scores = search.cv_results_["mean_test_score"]
    assert scores[1] == -999.0
    assert (scores[[0, 2]] != -999.0).all()
    with pytest.raises(ValueError, match="contraction"):
        clone(search).set_params(error_score="raise").fit(X)


def test_seeds_that_nobody_has_chosen_differ(digits):
    search = BatchedGridSearchCV(
        AutoEncoder(6, max_iter=2), {"n_components": [6, 6, 6]}, cv=KFold(2), refit=False
    ).fit(digits[0])
    assert len(set(search.cv_results_["mean_test_score"])) == 3


def test_large_models_are_trained_one_after_the_other(digits, monkeypatch, batches):
    """Several would not fit into a core's cache; results stay the same."""
    monkeypatch.setattr(rendezvous, "_LARGE", 20 * 64 * 6)  # the rows of a batch, columns, units
    grid = {"contraction": [0.1, 0.2], "n_components": [5, 6]}
    options = {"data": digits, "cv": 2, "refit": False}
    one, two = both(GridSearchCV, BatchedGridSearchCV, AutoEncoder(**SHORT), grid, **options)
    for name in ("mean_test_score", "std_test_score"):
        np.testing.assert_allclose(two.cv_results_[name], one.cv_results_[name], rtol=1e-9)
    assert sorted(batches) == [1, 1, 1, 1, 4]


def test_memory_makes_rounds(digits, monkeypatch, batches):
    """Where few fits have room, fewer are trained together; results stay the same."""
    X, _ = digits
    grid = {"contraction": [0.1, 0.2, 0.3]}
    model = AutoEncoder(6, **SHORT)
    monkeypatch.setattr(searches, "available_memory", lambda device: 4 * 32 * X.size)
    one, two = both(GridSearchCV, BatchedGridSearchCV, model, grid, data=(X,), cv=2)
    assert_same_results(one, two)
    assert batches == [2, 2, 2]


def test_bad_input(digits):
    model = pipeline(AutoEncoder(6, **SHORT))
    X, y = digits
    with pytest.raises(
        ValueError, match=r"Invalid parameter 'model__depth'.*'model__n_components'"
    ):
        BatchedGridSearchCV(model, {"model__depth": [1]}).fit(X, y)
    with pytest.raises(ValueError, match="no model of skae"):
        BatchedGridSearchCV(SVC(), {"C": [1]}).fit(X, y)
    with pytest.raises(ValueError, match="no model of skae"):
        BatchedRandomizedSearchCV(pipeline(PCA(2)), {"svm__C": [1]}).fit(X, y)
    with pytest.raises(ValueError, match="need to be a non-empty sequence"):
        BatchedGridSearchCV(model, {"model__n_components": []}).fit(X, y)
    with pytest.raises(ValueError, match="n_splits=5"):
        BatchedGridSearchCV(model, {"svm__C": [1]}, cv=KFold(5)).fit(X[:3], y[:3])


class Noting(BaseEstimator):
    """A step that notes by what its fits would be run side by side."""

    backends = []

    def fit(self, X, y=None):
        backend, _ = joblib.parallel.get_active_backend()
        self.backends.append((type(backend).__name__, threading.current_thread().name))
        return self

    def transform(self, X):
        return X

    def fit_transform(self, X, y=None):
        return self.fit(X).transform(X)


def test_the_last_fit_is_an_ordinary_one(digits):
    model = Pipeline([("note", Noting()), ("model", AutoEncoder(6, **SHORT))])
    Noting.backends.clear()
    BatchedGridSearchCV(model, {"model__contraction": [0.1, 0.2]}, cv=2).fit(digits[0])
    *_, (backend, thread) = Noting.backends
    assert len(Noting.backends) == 5
    assert thread == threading.main_thread().name
    assert backend == type(joblib.parallel.get_active_backend()[0]).__name__


class Interrupting(BaseEstimator):
    """A step that presses Ctrl-C in one of its fits."""

    def __init__(self, presses=False):
        self.presses = presses

    def fit(self, X, y=None):
        if self.presses and not BEFORE["rendezvous"]().is_ended:
            os.kill(os.getpid(), signal.SIGINT)
            # The signal is handled in the main thread, which waits there.
            for _ in range(500):
                if BEFORE["rendezvous"]().is_ended:
                    break
                threading.Event().wait(0.01)
        return self

    def transform(self, X):
        return X

    def fit_transform(self, X, y=None):
        return self.fit(X).transform(X)


BEFORE = {}


def test_one_press_of_ctrl_c_stops_a_search(digits, monkeypatch):
    """What was scored before is kept and marked, the rest is not trained."""
    X, y = digits
    backends = []
    original = searches.TogetherBackend
    monkeypatch.setattr(
        searches, "TogetherBackend", lambda *args: backends.append(original(*args)) or backends[0]
    )
    BEFORE["rendezvous"] = lambda: backends[0].rendezvous
    # Two fits at a time have room: those of the first candidate end before the others begin.
    monkeypatch.setattr(searches, "available_memory", lambda device: 1)
    model = Pipeline([("press", Interrupting()), ("model", AutoEncoder(6, **SHORT))])
    search = BatchedGridSearchCV(model, {"press__presses": [False, True, False]}, cv=2)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), pytest.warns(FitFailedWarning, match="stopped"):
        search.fit(X, y)
    assert signal.getsignal(signal.SIGINT) is handler
    assert search.cv_results_["finished"].tolist() == [True, False, False]
    assert np.isfinite(search.cv_results_["mean_test_score"]).tolist() == [True, False, False]
    assert not hasattr(search, "best_estimator_")
    assert threading.active_count() < 50


class InterruptingOnce(BaseEstimator):
    """A step that presses Ctrl-C at a process, and waits until the mark of its search is gone."""

    def __init__(self, process=0, folder=""):
        self.process, self.folder = process, folder

    def fit(self, X, y=None):
        if self.process and X[0, 0] == 0:
            os.kill(self.process, signal.SIGINT)
            for _ in range(1000):
                if not list(Path(self.folder).glob("skae-search-*")):
                    break
                time.sleep(0.01)
        return self

    def transform(self, X):
        return X

    def fit_transform(self, X, y=None):
        return self.fit(X).transform(X)


def test_one_press_of_ctrl_c_stops_a_search_by_processes(digits, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    # Four fits are begun at first, two by each process: the last candidate's begin after them.
    monkeypatch.setattr(searches, "available_memory", lambda device: 1)
    X = digits[0].copy()
    X[:, 0] = np.arange(len(X)) < 75  # so that the second fit of each candidate does not press
    step = InterruptingOnce(folder=str(tmp_path))
    model = Pipeline([("press", step), ("model", AutoEncoder(6, **SHORT))])
    grid = {"press__process": [0, 0, os.getpid()]}
    search = BatchedGridSearchCV(model, grid, cv=KFold(2), n_jobs=2)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), pytest.warns(FitFailedWarning, match="stopped"):
        search.fit(X)
    assert signal.getsignal(signal.SIGINT) is handler
    assert search.cv_results_["finished"].tolist() == [True, True, False]
    assert np.isfinite(search.cv_results_["mean_test_score"]).tolist() == [True, True, False]
    assert not hasattr(search, "best_estimator_")
    assert not list(tmp_path.glob("skae-search-*"))


def test_an_ensemble_in_one_fit(digits, batches):
    """Members differ by seed and resampled rows; what they predict is what they do without it."""
    X, y = digits
    model = make_pipeline(AutoEncoder(6, max_iter=3, batch_size=20), LogisticRegression())
    ensemble = BaggingClassifier(model, n_estimators=4, random_state=0)
    with train_together():
        together = clone(ensemble).fit(X, y)
    assert batches == [4]
    alone = ensemble.fit(X, y)
    assert batches == [4]
    np.testing.assert_allclose(together.predict_proba(X), alone.predict_proba(X), rtol=1e-6)


def test_cross_validation_in_one_fit(digits, batches):
    X, y = digits
    model = pipeline(AutoEncoder(6, **SHORT))
    with train_together(n_jobs=2):
        together = cross_val_score(model, X, y, cv=3)
    assert batches == [3]
    np.testing.assert_allclose(together, cross_val_score(model, X, y, cv=3))


class Quiet(AutoEncoder):
    """A model that ignores warnings while it is fitted, the longer the more units it has."""

    def fit(self, X, y=None):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for _ in range(self.n_components):
                super().fit(X)
        return self


def test_filters_of_warnings_are_left_as_they_were(digits):
    """Though some fits wait, and end, within filters of others."""
    X, _ = digits
    before = list(warnings.filters)
    grid = {"n_components": [1, 3, 2], "learning_rate": [1e-3, 1e-2]}
    BatchedGridSearchCV(Quiet(**SHORT), grid, cv=2, refit=False).fit(X)
    assert list(warnings.filters) == before
    with train_together():
        cross_val_score(Quiet(2, **SHORT), X, cv=2)
    assert list(warnings.filters) == before
    with train_together(), pytest.raises(ValueError, match="contraction"):
        cross_val_score(Quiet(2, contraction=-1.0), X, cv=2, error_score="raise")
    assert list(warnings.filters) == before


def test_what_a_fit_raises_comes_through(digits):
    with train_together(), pytest.raises(ValueError, match="contraction"):
        cross_val_score(AutoEncoder(6, contraction=-1.0), digits[0], error_score="raise")


def test_scikit_learn_contract():
    """All of scikit-learn's checks, which its own search of a transformer cannot take."""
    model = AutoEncoder(4, max_iter=2, random_state=0)
    search = BatchedGridSearchCV(model, {"contraction": [0.1]}, cv=2)
    failed = {}
    for estimator, check in estimator_checks_generator(search):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                check(estimator)
            except SkipTest:
                pass
            except Exception as error:
                failed[check.func.__name__] = str(error)[:200]
    assert failed == {}


def test_warnings_point_to_the_line_that_searches(digits):
    search = BatchedGridSearchCV(
        AutoEncoder(6, max_iter=30, learning_rate=1e-4, random_state=0),
        {"contraction": [0.1, 0.2]}, cv=2,
    )  # fmt: skip
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        search.fit(digits[0])
    # At least those of two candidates on two folds, and of the best one on all rows.
    assert len(caught) >= 5
    assert {warning.filename for warning in caught} == {__file__}
