"""Curves of the trainings that are in a model, a pipeline or a search."""

from typing import NamedTuple

import numpy as np
from sklearn.utils.validation import check_is_fitted


class Curves(NamedTuple):
    """Losses of each epoch of a training, on its rows and on those held out."""

    loss_curve: np.ndarray
    validation_curve: np.ndarray


def trainings_of(estimator, name: str) -> dict[str, Curves]:
    """The curves of a fitted model, or of the models in it, by names.

    Raises a ValueError if there are none.
    """
    check_is_fitted(estimator)
    found = _found(estimator, name)
    if not found:
        raise ValueError(
            f"Nothing in this {type(estimator).__name__} was trained by gradient steps, so that "
            "there is no loss_curve_. Pass a model of skae, or a pipeline or search that has one."
        )
    return found


def trainings_of_search(search) -> dict[str, Curves]:
    """The curves of the best model of a search, or of all folds of a cross-validation."""
    if isinstance(search, dict):
        if "estimator" not in search:
            raise ValueError(
                "This dict has no fitted models: call cross_validate with return_estimator=True."
            )
        parts = [trainings_of(e, f"fold {n}") for n, e in enumerate(search["estimator"])]
        return {name: curves for part in parts for name, curves in part.items()}
    if not hasattr(search, "best_estimator_"):
        raise ValueError(
            "This search has kept no fitted model: it is not fitted, or was made with refit=False. "
            "To see the curves of all candidates, call cross_validate with return_estimator=True "
            "for each."
        )
    chosen = ", ".join(f"{key}={value}" for key, value in search.best_params_.items())
    return trainings_of(search.best_estimator_, chosen or "best")


def _found(estimator, name):
    curve = getattr(estimator, "loss_curve_", None)
    if curve is not None and len(curve):
        return {name: Curves(np.array(curve), np.array(estimator.validation_curve_))}
    layers = getattr(estimator, "layer_loss_curves_", None)
    if layers:
        none = np.empty(0)
        return {f"{name}, layer {n}": Curves(np.array(own), none) for n, own in enumerate(layers)}
    inner = getattr(estimator, "best_estimator_", None)
    if inner is not None:
        return _found(inner, name)
    found: dict[str, Curves] = {}
    steps = dict(getattr(estimator, "steps", ())) or {
        str(number): one for number, one in enumerate(getattr(estimator, "estimators_", ()))
    }
    for step, one in steps.items():
        found |= _found(one, f"{name}: {step}")
    return found if len(found) != 1 else {name: next(iter(found.values()))}
