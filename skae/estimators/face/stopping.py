"""Rows and scores of the user's own by which a training is judged, `EarlyStopping`."""

import copy
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from sklearn.metrics import check_scoring

from skae._validation import check_rows, check_weights, column_names
from skae.engine.optimisation.devices import Place
from skae.engine.optimisation.models import Model, rows_that_count
from skae.engine.optimisation.parameters import Parameters
from skae.engine.optimisation.runs import Data, Training
from skae.estimators.face.callbacks import EarlyStopping, callbacks_of
from skae.estimators.face.training import rows_for, weights_at


class Watched(NamedTuple):
    """By what a training is judged in the place of rows that are held out: one or the other.

    - ``apart``: data to be watched.
    - ``judge(theta)``: a loss.
    """

    apart: Data | None = None
    judge: Callable[[Parameters], float] | None = None

    def shown(self, training: Training) -> Training:
        """A training whose validation curve is what the user asked for, scores and not losses."""
        if self.judge is None:
            return training
        return training._replace(validation_curve=[-loss for loss in training.validation_curve])


NOTHING = Watched()


def own_rows(estimator, **options) -> tuple[Any, np.ndarray | None] | None:
    """The checked rows and weights of an estimator's `EarlyStopping`; None if it has none.

    Raises a ValueError where they do not fit the estimator, whose columns are known.
    """
    stopping = callbacks_of(estimator).stopping
    if stopping is None:
        return None
    given = stopping.sample_weight_val
    try:
        rows = check_rows(estimator, stopping.X_val, reset=False, sample_weight=given, **options)
        weight = check_weights(given, rows)
    except ValueError as error:
        raise ValueError(f"EarlyStopping's X_val: {error}") from error
    return rows, weight


def watched_rows(
    estimator, model: Model, place: Place, attributes_of: Callable[[dict], dict]
) -> Watched:
    """What an estimator's `EarlyStopping` watches of a model of rows.

    ``attributes_of(weights)`` is what makes a copy of the estimator usable, see `CallbackBridge`.
    """
    stopping, found = callbacks_of(estimator).stopping, own_rows(estimator)
    if stopping is None or found is None:
        return NOTHING
    rows, weight = found
    if stopping.scoring is not None:
        return Watched(judge=judge_of(estimator, stopping, attributes_of))
    if stopping.y_val is not None:
        raise ValueError(
            f"{type(estimator).__name__} learns from rows alone: EarlyStopping's y_val is for a "
            "scoring. Pass one, or no y_val."
        )
    try:
        estimator.columns_.check(rows, column_names(estimator))
    except ValueError as error:
        raise ValueError(f"EarlyStopping's X_val: {error}") from error
    return Watched(apart=data_of(model, rows, weight, place))


def data_of(model: Model, rows, weight: np.ndarray | None, place: Place) -> Data:
    """Checked rows to be watched, as a model sees them."""
    index = rows_that_count(rows.shape[0], weight)
    return Data(rows_for(model, rows, place), index, weight=weights_at(weight, place))


def judge_of(
    estimator, stopping: EarlyStopping, attributes_of: Callable[[dict], dict]
) -> Callable[[Parameters], float]:
    """The negative score of a copy of an estimator with other parameters, as a function of these.

    Raises a ValueError for a name of a score that scikit-learn does not know.
    """
    score = check_scoring(estimator, stopping.scoring)

    def judge(theta):
        trial = copy.copy(estimator)
        for name, value in attributes_of(theta.to_numpy()).items():
            setattr(trial, name, value)
        found = score(trial, stopping.X_val, stopping.y_val)
        if not math.isfinite(found):
            raise ValueError(f"EarlyStopping's scoring returned {found!r}, which is no score.")
        return -float(found)

    return judge
