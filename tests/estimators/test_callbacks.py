"""Training that is judged by rows or scores of the user's own, and means of weights."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from registry import TRAINED, families
from sklearn.base import clone
from sklearn.datasets import load_digits

from skae import (
    AutoEncoder,
    BatchedGridSearchCV,
    Checkpoint,
    DeepBeliefNetwork,
    DenoisingAutoEncoder,
    EarlyStopping,
    Snapshots,
    SparseCoder,
    StackedAutoEncoder,
    StackedClassifier,
    StackedRegressor,
)

X = np.random.default_rng(0).random((80, 5))
Y = (X[:, 0] + X[:, 1] > 1).astype(int)
SETTINGS = {"max_iter": 6, "batch_size": 20, "random_state": 0}
DEEP = {"layer": "denoising", "layer_sizes": (4, 3), **SETTINGS}


def watched(model, *given, **options):
    return clone(model).set_params(callbacks=[EarlyStopping(*given, **options)])


def test_own_rows_are_watched():
    model = watched(AutoEncoder(3, **SETTINGS), X[60:]).fit(X[:60])
    # The curve is the loss of those rows by the weights of each epoch, the last of which are kept
    # where they are the best.
    assert len(model.validation_curve_) == model.n_iter_
    assert_allclose(min(model.validation_curve_), -model.score(X[60:]), rtol=1e-6)
    # All rows are trained on: the steps are those of a training that nobody watches.
    plain = AutoEncoder(3, n_iter_no_change=None, **SETTINGS).fit(X[:60])
    assert_allclose(model.loss_curve_, plain.loss_curve_[: model.n_iter_])


def test_the_best_epoch_is_kept():
    # A rate at which the loss on other rows rises again.
    settings = SETTINGS | {"learning_rate": 0.3, "max_iter": 30, "n_iter_no_change": 5}
    model = watched(AutoEncoder(5, **settings), X[60:]).fit(X[:10])
    curve = model.validation_curve_
    assert model.stopping_reason_ == "converged"
    assert np.argmin(curve) < len(curve) - 1
    assert_allclose(-model.score(X[60:]), min(curve), rtol=1e-6)


def test_weights_of_own_rows_count():
    weight = np.r_[np.ones(10), np.zeros(10)]
    first = watched(AutoEncoder(3, **SETTINGS), X[60:], sample_weight_val=weight).fit(X[:60])
    second = watched(AutoEncoder(3, **SETTINGS), X[60:70]).fit(X[:60])
    assert_array_equal(first.validation_curve_, second.validation_curve_)


def test_a_score_is_watched():
    seen = []

    def count(model, rows, targets):
        seen.append(model.transform(rows).shape)
        return [1.0, 3.0, 2.0, 2.0, 2.0, 2.0, 2.0][len(seen) - 1]

    settings = SETTINGS | {"n_iter_no_change": 3}
    model = watched(AutoEncoder(3, **settings), X[60:], scoring=count).fit(X[:60])
    # Once at the start, then after each epoch; the best of them was the first one.
    assert model.validation_curve_ == [3.0, 2.0, 2.0, 2.0]
    assert model.stopping_reason_ == "converged"
    one = AutoEncoder(3, **SETTINGS | {"max_iter": 1}).fit(X[:60])
    assert_array_equal(model.transform(X), one.transform(X))
    assert set(seen) == {(20, 3)}


@pytest.mark.parametrize("scoring", [None, "accuracy"])
def test_classifiers_watch_own_targets(scoring):
    model = StackedClassifier(**DEEP)
    model = watched(model, X[60:], Y[60:], scoring=scoring).fit(X[:60], Y[:60])
    best = min(model.validation_curve_) if scoring is None else 1 - max(model.validation_curve_)
    # The curve has error rates, or what the score says.
    assert_allclose(best, 1 - model.score(X[60:], Y[60:]), atol=1e-5)
    assert len(model.validation_curve_) == model.n_iter_


def test_own_targets_that_are_not_known_do_not_count():
    unknown = np.where(np.arange(20) < 10, Y[60:], -1)
    model = StackedClassifier(n_fine_tuned_layers=1, **DEEP)
    first = watched(model, X[60:], unknown).fit(X[:60], Y[:60])
    second = watched(model, X[60:70], Y[60:70]).fit(X[:60], Y[:60])
    assert first.validation_curve_ == second.validation_curve_


def test_regressors_watch_own_targets():
    y = X @ np.arange(5.0)
    model = watched(StackedRegressor(**DEEP), X[60:], y[60:], scoring="r2").fit(X[:60], y[:60])
    assert_allclose(max(model.validation_curve_), model.score(X[60:], y[60:]), atol=1e-5)


@pytest.mark.parametrize("options", [{"fine_tuning": True}, {"pretraining": "simultaneous"}])
def test_stacks_watch_the_training_of_the_whole(options):
    model = watched(StackedAutoEncoder(**DEEP, **options), X[60:]).fit(X[:60])
    assert len(model.validation_curve_) == len(model.loss_curve_) > 0


@pytest.mark.parametrize(
    ("model", "stopping", "words"),
    [
        (AutoEncoder(3), EarlyStopping(X[:, :4]), "EarlyStopping's X_val: X has 4 features"),
        (AutoEncoder(3), EarlyStopping(X * np.inf), "EarlyStopping's X_val: .*infinity"),
        (AutoEncoder(3, loss="bernoulli"), EarlyStopping(X + 1), "EarlyStopping's X_val: "),
        (AutoEncoder(3), EarlyStopping(None), "needs rows, X_val"),
        (AutoEncoder(3), EarlyStopping(X, Y), "y_val is for a scoring"),
        (AutoEncoder(3), EarlyStopping(X, scoring=3), "scoring of an EarlyStopping must be a name"),
        (AutoEncoder(3), EarlyStopping(X, scoring="no such"), "no such"),
        (AutoEncoder(3), EarlyStopping(X, scoring=lambda *_: np.nan), "returned nan, which is no"),
        (
            AutoEncoder(3),
            EarlyStopping(X, scoring=len, sample_weight_val=np.ones(80)),
            "weighs rows in the loss",
        ),
        (AutoEncoder(3, early_stopping=True), EarlyStopping(X), "Choose one"),
        (StackedAutoEncoder((3,)), EarlyStopping(X), "Use fine_tuning=True"),
        (DeepBeliefNetwork((3,)), EarlyStopping(X), "Use early_stopping=True in a machine"),
        (StackedClassifier((3,)), EarlyStopping(X), "pass y_val with X_val"),
        (StackedClassifier((3,)), EarlyStopping(X, Y[:3]), "X_val and y_val: .*inconsistent"),
        (StackedClassifier((3,)), EarlyStopping(X, Y + 5), "X_val and y_val: "),
        (StackedClassifier((3,)), EarlyStopping(X, Y * 0 - 1), "no row has a target"),
        (StackedClassifier((3,), output="kernel"), EarlyStopping(X, Y), "Use output='linear'"),
        (StackedClassifier((3,), n_fine_tuned_layers=0), EarlyStopping(X, Y), "there is none"),
    ],
)
def test_what_cannot_be_watched_is_refused_before_training(model, stopping, words):
    # An hour of training would come before an error at its end.
    model = clone(model).set_params(callbacks=stopping, max_iter=10**9)
    with pytest.raises(ValueError, match=words):
        model.fit(X, Y)


def test_watching_makes_a_table_be_fine_tuned():
    table = X * 100 - 50
    given = {"layer_sizes": (4,), "layer": "denoising", **SETTINGS}
    assert StackedClassifier(**given).fit(table, Y).kernel_output_ is not None
    model = watched(StackedClassifier(**given), table, Y).fit(table, Y)
    assert model.kernel_output_ is None


class Listens:
    """A callback of scikit-learn that keeps the weights after each epoch."""

    def __init__(self):
        self.weights = []

    def setup(self, estimator, context):
        """Nothing."""

    def teardown(self, estimator, context):
        """Nothing."""

    def on_fit_task_begin(self, estimator, context):
        """Nothing."""

    def on_fit_task_end(self, estimator, context, *, fitted_estimator=None):
        if context.task_name == "epoch":
            self.weights.append(fitted_estimator.weights_)


@pytest.mark.parametrize(
    ("snapshots", "shares"),
    [
        (Snapshots(3), [0, 0, 0, 1 / 3, 1 / 3, 1 / 3]),
        (Snapshots(None), [1 / 6] * 6),
        (Snapshots(2, decay=0.5), [0, 0, 0, 0, 1 / 3, 2 / 3]),
        (Snapshots(None, decay=0.5), np.array([1, 2, 4, 8, 16, 32]) / 63),
        (Snapshots(100), [1 / 6] * 6),
        (Snapshots(1), [0, 0, 0, 0, 0, 1]),
    ],
    ids=str,
)
def test_the_mean_of_the_last_epochs_is_kept(snapshots, shares):
    listener = Listens()
    plain = DenoisingAutoEncoder(3, **SETTINGS)
    if not hasattr(plain, "set_callbacks"):
        pytest.skip("scikit-learn has no callbacks in this version")
    plain.set_callbacks(listener).fit(X)
    model = DenoisingAutoEncoder(3, callbacks=snapshots, **SETTINGS).fit(X)
    # Training itself is not changed.
    assert model.loss_curve_ == plain.loss_curve_
    for name, weights in model.weights_.items():
        mean = sum(s * w[name] for s, w in zip(shares, listener.weights, strict=True))
        assert_allclose(weights, mean, rtol=1e-10, atol=1e-12)


def test_a_mean_is_judged_in_the_place_of_what_is_trained():
    model = AutoEncoder(3, callbacks=[Snapshots(3), EarlyStopping(X[60:])], **SETTINGS)
    model.fit(X[:60])
    # The loss is that of means, of which the best is kept.
    assert_allclose(min(model.validation_curve_), -model.score(X[60:]), rtol=1e-6)
    plain = watched(AutoEncoder(3, **SETTINGS), X[60:]).fit(X[:60])
    assert plain.validation_curve_[0] == model.validation_curve_[0]
    assert plain.validation_curve_[2] != model.validation_curve_[2]


def test_a_mean_keeps_constraints():
    model = SparseCoder(4, callbacks=Snapshots(None), inference_tol=1e-2, **SETTINGS).fit(X)
    # A mean of vectors of unit norm is shorter.
    assert_allclose(np.linalg.norm(model.components_, axis=1), 1.0, rtol=1e-6)


def test_a_mean_of_noisy_steps_is_nearer_to_the_optimum():
    rows = load_digits().data[:500] / 16
    settings = {"learning_rate": 0.1, "batch_size": 10, "max_iter": 20, "n_iter_no_change": None}
    gains = []
    for seed in range(2):
        model = AutoEncoder(20, random_state=seed, **settings)
        mean = clone(model).set_params(callbacks=Snapshots(10)).fit(rows)
        gains.append(mean.score(rows) - model.fit(rows).score(rows))
    # Steps of a large rate leave weights to jump around the optimum, and their mean lies between:
    # 0.2 to 0.4 nats for eight seeds.
    assert min(gains) > 0.1


@pytest.mark.parametrize("case", families(TRAINED), ids=str)
def test_every_family_keeps_a_mean(case):
    plain, mean = case.fit(), case.fit(callbacks=Snapshots(None))
    same = np.array_equal(case.output(plain), case.output(mean))
    # Outputs that are sure of their classes may agree.
    assert not same or case.is_classifier


@pytest.mark.parametrize(
    ("snapshots", "words"),
    [
        (Snapshots(0), "n_epochs of Snapshots must be an integer of at least 1, or None"),
        (Snapshots(2.5), "n_epochs of Snapshots"),
        (Snapshots(decay=0), "decay of Snapshots must be more than 0"),
        (Snapshots(decay=1.5), "decay of Snapshots"),
    ],
)
def test_bad_snapshots_are_refused(snapshots, words):
    with pytest.raises(ValueError, match=words):
        AutoEncoder(3, callbacks=snapshots, max_iter=10**9).fit(X)


@pytest.mark.parametrize("callback", [Snapshots(3), EarlyStopping(X[60:])], ids=["mean", "rows"])
def test_batched_searches_train_such_models_by_themselves(callback):
    grid = {"learning_rate": [1e-3, 1e-2]}
    model = AutoEncoder(3, callbacks=callback, **SETTINGS)
    search = BatchedGridSearchCV(model, grid, cv=2).fit(X)
    plain = clone(model).set_params(**search.best_params_).fit(X)
    # Refitted by itself or in a search, it is the same.
    assert_array_equal(search.best_estimator_.transform(X), plain.transform(X))
    assert len(set(search.cv_results_["mean_test_score"])) == 2


def test_copies_share_rows_of_validation():
    stopping = EarlyStopping(X)
    model = AutoEncoder(3, callbacks=[stopping])
    # A search makes many copies.
    assert clone(model).callbacks[0] is stopping
    assert clone(AutoEncoder(3, callbacks=stopping)).callbacks is stopping
    assert repr(Checkpoint("fit")) == "Checkpoint(path='fit', every=1.0, unit='minutes', keep=2)"
