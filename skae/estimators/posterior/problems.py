"""What a fitted model was trained on, posed again: its energy, and how draws are kept."""

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from skae._validation import check_weights
from skae.engine.optimisation.models import Model, rows_that_count
from skae.engine.optimisation.runs import Data
from skae.estimators.face.training import place_for, rows_for, weights_at
from skae.estimators.face.transformer import Transformer
from skae.estimators.supervised.fine_tuning import own_criterion, pose_again
from skae.estimators.supervised.predictors import SupervisedStack
from skae.estimators.tangents.classifier import ManifoldTangentClassifier, tangent_criterion


class Problem(NamedTuple):
    """The engine's model, the data, and the weights from which chains begin.

    ``n_rows`` is what the objective, a mean over rows, is multiplied by: their number, or the sum
    of their weights as the user passed them; of predictors, of the rows with a target.
    ``keep(weights)`` is a fitted model of other weights.
    """

    model: Model
    data: Data
    weights: dict[str, np.ndarray]
    n_rows: float
    keep: Callable[[dict[str, np.ndarray]], Any]


def pose(model, X, y, sample_weight, *, n_doubles: float) -> Problem:
    """The problem that a fitted model has solved.

    Up to ``n_doubles`` rows are in double precision: small differences of their energies are not
    lost in rounding.

    Raises a ValueError that says why, if its parameters have no energy.
    """
    require_model(model)
    name = type(model).__name__
    if isinstance(model, SupervisedStack):
        has_tangents = isinstance(model, ManifoldTangentClassifier)
        criterion = tangent_criterion if has_tangents else own_criterion
        options = {"n_doubles": n_doubles}
        problem = Problem(*pose_again(model, X, y, sample_weight, criterion, **options))
    else:
        _refuse_layers_alone(model, name)
        problem = _pose_transformer(model, X, sample_weight, n_doubles)
    objective = None if problem.model.objective is None else problem.model.objective()
    if objective is None or not objective.reports_loss:
        raise ValueError(
            f"The steps of {name} do not descend on a sum over rows that would be an energy of its "
            "parameters."
        )
    if problem.model.project is not None:
        raise ValueError(
            f"The parameters of {name} are bound by a constraint after every step, which chains "
            "would leave."
        )
    return problem


def require_model(model) -> None:
    """Refuse, before it is fitted, what has no parameters to be drawn."""
    if not isinstance(model, SupervisedStack | Transformer):
        raise ValueError(
            f"{type(model).__name__} is no model whose parameters can be drawn: auto-encoders, "
            "StackedAutoEncoder with fine_tuning=True, StackedClassifier, StackedRegressor and "
            "ManifoldTangentClassifier are."
        )


def _refuse_layers_alone(model, name):
    if not getattr(model, "fine_tuning", True):
        raise ValueError(
            f"The layers of this {name} were trained one by one, and have no energy in common. Set "
            "fine_tuning=True."
        )


def _pose_transformer(model, X, sample_weight, n_doubles):
    rows = model._checked(X)
    weight = check_weights(sample_weight, rows)
    if rows.shape[0] <= n_doubles:
        rows = rows.astype(np.float64)
    place = place_for(model, rows)
    engine = model._model(place)
    index = rows_that_count(rows.shape[0], weight)
    data = Data(rows_for(engine, rows, place), index, weight=weights_at(weight, place))
    given = 1.0 if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)[index]
    n_rows = float(np.sum(np.broadcast_to(given, len(index))))

    def keep(weights):
        twin = copy.copy(model)
        twin.weights_ = weights
        return twin

    return Problem(engine, data, model.weights_, n_rows, keep)
