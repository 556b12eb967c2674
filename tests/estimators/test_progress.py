"""The progress line, and scikit-learn's callbacks."""

import io
import re
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from registry import GRADIENT_LEARNERS, TRAINED, families
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skae import (
    AutoEncoder,
    DeepBeliefNetwork,
    ManifoldTangentClassifier,
    SparseCoder,
    StackedAutoEncoder,
    StackedClassifier,
    StackedRegressor,
)
from skae.estimators.face.progress import ProgressLine

LINE = re.compile(
    r"\[(?P<name>\w+)\] epoch (?P<number>\d+)/(?P<of>\d+), loss = (?P<loss>\S+?)"
    r"(, validation loss = (?P<validation>\S+?))?, (?P<left>\d+\.\d) s left"
)


each_trained = pytest.mark.parametrize("case", TRAINED, ids=str)
each_gradient_learner = pytest.mark.parametrize("case", GRADIENT_LEARNERS, ids=str)


@pytest.mark.parametrize("case", families(TRAINED), ids=str)
def test_silent_by_default(case, capsys):
    case.fit()
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("case", families(GRADIENT_LEARNERS), ids=str)
@pytest.mark.parametrize("early_stopping", [False, True])
def test_verbose_prints_a_line_for_each_epoch(case, capsys, early_stopping):
    model = case.fit(verbose=True, early_stopping=early_stopping)
    output, errors = capsys.readouterr()
    assert errors == ""
    lines = [LINE.fullmatch(line) for line in output.splitlines()]
    # Not a terminal: whole lines that a log file can hold.
    assert all(lines)
    assert [int(line["number"]) for line in lines] == [1, 2, 3]
    assert {line["of"] for line in lines} == {"3"}
    assert {line["name"] for line in lines} == {str(case)}
    # The numbers are those of the curves, to the digits that are printed.
    assert_allclose([float(line["loss"]) for line in lines], model.loss_curve_, rtol=1e-5)
    if early_stopping:
        shown = [float(line["validation"]) for line in lines]
        assert_allclose(shown, model.validation_curve_, rtol=1e-5)
    else:
        assert all(line["validation"] is None for line in lines)
    # After the last epoch no time is left.
    assert lines[-1]["left"] == "0.0"


@each_trained
def test_verbose_shows_every_training_and_changes_nothing(case, capsys):
    model = case.fit(verbose=1)
    lines = capsys.readouterr().out.splitlines()
    assert lines
    assert all(LINE.fullmatch(line) for line in lines)
    assert_array_equal(case.output(model), case.output(case.fit(verbose=0)))


class Terminal(io.StringIO):
    def isatty(self):
        return True


def epoch(number, max_iter=10, seconds=2.0):
    return SimpleNamespace(
        number=number, max_iter=max_iter, loss=1.5, validation_loss=None, seconds=seconds
    )


def test_time_left():
    stream = io.StringIO()
    ProgressLine("Model", stream)(epoch(4, max_iter=10, seconds=2.0))
    # Four epochs took 2 s, so the other six take 3 s.
    assert stream.getvalue() == "[Model] epoch 4/10, loss = 1.5, 3.0 s left\n"


@pytest.mark.parametrize("n_epochs", [3, 10])
def test_line_is_rewritten_on_a_terminal(n_epochs):
    terminal = Terminal()
    line = ProgressLine("Model", terminal)
    # A progress line never asks to stop.
    assert [line(epoch(number + 1)) for number in range(n_epochs)] == [False] * n_epochs
    # Each epoch erases the one before: no newline as yet.
    assert terminal.getvalue().count("\r\x1b[2K") == n_epochs
    assert "\n" not in terminal.getvalue()
    line.finish()
    line.finish()
    # However training ended, early too, the prompt starts on a line of its own.
    assert terminal.getvalue().endswith("s left\n")
    assert terminal.getvalue().count("\n") == 1


# Nothing is learned at this rate.
@pytest.mark.filterwarnings("ignore::skae.CollapsedCodeWarning")
def test_line_is_ended_by_fit(X, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    settings = {
        "max_iter": 50,
        "learning_rate": 1e-9,
        "n_iter_no_change": 1,
        "tol": 1.0,
        "random_state": 0,
    }
    AutoEncoder(3, verbose=True, **settings).fit(X)
    # Converged before max_iter: the line is ended all the same.
    assert terminal.getvalue().endswith("s left\n")
    assert terminal.getvalue().count("\n") == 1


# scikit-learn's callbacks, from 1.9

try:
    from sklearn.callback import ProgressBar, ScoringMonitor
except ImportError:
    ProgressBar = ScoringMonitor = None

needs_callbacks = pytest.mark.skipif(ScoringMonitor is None, reason="needs scikit-learn 1.9")


class Recorder:
    """Writes down what it is told; asks to stop after some epochs."""

    def __init__(self, stop_after=None):
        self.stop_after, self.events, self.scores = stop_after, [], []

    def setup(self, estimator, context):
        self.events.append("setup")

    def teardown(self, estimator, context):
        self.events.append("teardown")

    def on_fit_task_begin(self, estimator, context, *, X):
        self.events.append(f"begin {context.task_name} {context.task_id}")

    def on_fit_task_end(self, estimator, context, *, X, fitted_estimator):
        self.events.append(f"end {context.task_name} {context.task_id}")
        self.scores.append(fitted_estimator.score(X))
        return (
            self.stop_after is not None
            and context.task_name == "epoch"
            and context.task_id + 1 >= self.stop_after
        )


@needs_callbacks
@each_gradient_learner
def test_callback_hears_of_every_epoch(case):
    recorder = Recorder()
    model = case.make().set_callbacks(recorder).fit(case.X)
    epochs = [f"{when} epoch {i}" for i in range(3) for when in ("begin", "end")]
    # In scikit-learn's order: the fit around its epochs, set up before and torn down after.
    assert recorder.events == ["setup", "begin fit 0", *epochs, "end fit 0", "teardown"]
    # The estimator passed to a callback is usable at each epoch; the last is the result.
    assert np.isfinite(recorder.scores).all()
    assert recorder.scores[-1] == model.score(case.X)
    assert len(set(recorder.scores[:3])) == 3
    # The hooks change nothing, and leave nothing behind on the estimator.
    assert_array_equal(case.output(model), case.output(case.fitted))
    assert not hasattr(model, "_callback_fit_ctx")


@needs_callbacks
@each_gradient_learner
def test_callback_stops_training(case):
    settings = {"learning_rate_schedule": "constant", "n_iter_no_change": None}
    model = case.make(max_iter=1000, **settings).set_callbacks(Recorder(stop_after=2)).fit(case.X)
    assert (model.stopping_reason_, model.n_iter_) == ("stopped", 2)
    # Stopped after two epochs is two epochs of training.
    assert_array_equal(case.output(model), case.output(case.fit(max_iter=2, **settings)))


@needs_callbacks
@each_gradient_learner
def test_callback_is_torn_down_after_an_error(case, explode):
    recorder = Recorder()
    model = case.make(optimizer="exploding")
    explode(1, np.nan)
    with pytest.raises(ValueError, match="learning_rate"):
        model.set_callbacks(recorder).fit(case.X)
    # A bar that stays open would corrupt the terminal.
    assert recorder.events[-1] == "teardown"
    assert not hasattr(model, "_callback_fit_ctx")


@needs_callbacks
@each_gradient_learner
def test_error_in_a_callback_leaves_a_fitted_model_as_it_was(case):
    class Failing(Recorder):
        def on_fit_task_end(self, estimator, context):
            raise RuntimeError("disk is full")

    model = case.fitted
    codes = case.output(model)
    with pytest.raises(RuntimeError, match="disk is full"):
        model.set_callbacks(Failing()).fit(case.X + 100)
    assert_array_equal(case.output(model), codes)


def likelihood_monitor():
    # scikit-learn 1.9 scores only where there is a y, and by named scorers only.
    return ScoringMonitor(scoring={"score": lambda model, X, y: model.score(X)})


@needs_callbacks
def test_scoring_monitor(X):
    monitor = likelihood_monitor()
    model = AutoEncoder(3, max_iter=3).set_callbacks(monitor).fit(X, X[:, 0])
    epochs = [row for row in monitor.get_logs().data if row["task_name"] == "epoch"]
    # The likelihood at each epoch, the last of them that of the result.
    assert len(epochs) == 3
    assert epochs[-1]["score"] == model.score(X)


class Sum(RegressorMixin, BaseEstimator):
    """The end of a pipeline that costs nothing."""

    def fit(self, X, y=None):
        self.is_fitted_ = True
        return self

    def predict(self, X):
        return X.sum(axis=1)


@needs_callbacks
@pytest.mark.filterwarnings("ignore:.*does not support callbacks")
@pytest.mark.parametrize("compose", ["alone", "pipeline", "search"])
def test_progress_bar(X, capsys, compose):
    pytest.importorskip("rich")
    model = AutoEncoder(3, max_iter=2, random_state=0)
    if compose == "pipeline":
        model = make_pipeline(model, Sum())
    if compose == "search":
        model = GridSearchCV(model, {"n_components": [2, 3]}, cv=2)
    if not hasattr(model, "set_callbacks"):
        pytest.skip(f"{type(model).__name__} has no callbacks in this scikit-learn")
    model.set_callbacks(ProgressBar()).fit(X, X[:, 0])
    # The bar runs through, in whatever the model is a part of, and names it.
    assert "AutoEncoder" in capsys.readouterr().out


@needs_callbacks
def test_callback_of_a_part_of_a_pipeline(X):
    recorder, monitor = Recorder(), likelihood_monitor()
    model = AutoEncoder(3, max_iter=2, random_state=0).set_callbacks(recorder, monitor)
    make_pipeline(model, Sum()).fit(X, X[:, 0])
    # Set on a part, a callback hears of that part's epochs.
    assert recorder.events.count("end epoch 0") == 1
    assert recorder.events[-1] == "teardown"
    assert [row["task_name"] for row in monitor.get_logs().data].count("epoch") == 2


@needs_callbacks
def test_callback_of_a_searched_model(X):
    monitor = likelihood_monitor()
    model = AutoEncoder(3, max_iter=2, random_state=0).set_callbacks(monitor)
    search = GridSearchCV(model, {"n_components": [2, 3]}, cv=2).fit(X, X[:, 0])
    rows = [row for row in monitor.get_logs().data if row["task_name"] == "epoch"]
    # Two values in two folds and the final fit, two epochs each.
    assert len(rows) == (2 * 2 + 1) * 2
    assert np.isfinite([row["score"] for row in rows]).all()
    assert search.best_estimator_.n_iter_ == 2


def stacks():
    """Models without epochs of their own in `fit`, and those that predict."""
    return {
        "layer-wise": StackedAutoEncoder((3, 2), layer="auto", max_iter=2, random_state=0),
        "simultaneous": StackedAutoEncoder(
            (3, 2), layer="auto", pretraining="simultaneous", max_iter=2, random_state=0
        ),
        "unrolled": StackedAutoEncoder((3,), fine_tuning=True, max_iter=2, random_state=0),
        "machines": DeepBeliefNetwork((3, 2), max_iter=2, random_state=0),
        "given": SparseCoder(dictionary=np.eye(4)),
        "classifier": StackedClassifier((3,), max_iter=2, output="linear", random_state=0),
        "output": StackedClassifier((3,), max_iter=2, n_fine_tuned_layers=0, random_state=0),
        "regressor": StackedRegressor((3,), max_iter=2, output="linear", random_state=0),
        "tangents": ManifoldTangentClassifier(
            (3,), layer="auto", max_iter=2, output="linear", random_state=0
        ),
    }


@needs_callbacks
@pytest.mark.filterwarnings("ignore")  # of models that are hardly trained
@pytest.mark.parametrize("kind", stacks())
def test_callbacks_of_stacks_and_predictors(X, kind):
    data = (X.mean(0) < X).astype(float) if kind == "machines" else X
    y = (X[:, 0] > 0).astype(int)
    monitor = ScoringMonitor(scoring={"score": lambda model, X, y: model.score(X, y)})
    model = stacks()[kind].set_callbacks(monitor).fit(data, y * (1.0 if kind == "regressor" else 1))
    rows = [row for row in monitor.get_logs().data if row["task_name"] != "fit"]
    # A layer, the output or a lent dictionary is one task; epochs of the whole are tasks each.
    assert len(rows) == (1 if kind in ("given", "output") else 2)
    # Scored is what has learned so far, the last time the result; not the start.
    assert rows[-1]["score"] == pytest.approx(model.score(data, y), rel=1e-6)
