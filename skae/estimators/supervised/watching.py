"""Rows with targets, or scores, of the user's own by which fine-tuning is judged."""

import numpy as np
import torch

from skae.engine.optimisation.models import Model
from skae.engine.optimisation.rows import LabelledRows
from skae.engine.optimisation.runs import Data
from skae.estimators.face.callbacks import callbacks_of
from skae.estimators.face.stopping import NOTHING, Watched, judge_of
from skae.estimators.face.training import rows_for
from skae.estimators.supervised.tasks import Read, Task, layers_below, read_rows


def check_watching(model) -> None:
    """Raise a ValueError if a model has an `EarlyStopping` and nothing that it could watch."""
    stopping = callbacks_of(model).stopping
    if stopping is None:
        return
    name = type(model).__name__
    if stopping.y_val is None:
        raise ValueError(f"EarlyStopping of a {name} needs targets: pass y_val with X_val.")
    if model.n_fine_tuned_layers == 0 or model.output not in ("auto", "linear"):
        raise ValueError(
            f"EarlyStopping watches the fine-tuning of a {name}, and there is none with "
            f"output={model.output!r} and n_fine_tuned_layers={model.n_fine_tuned_layers}. Use "
            "output='linear' and fine-tune layers, or no EarlyStopping."
        )


def read_watched(model) -> Read | None:
    """The checked rows and targets of a model's `EarlyStopping`; None if it watches none.

    Raises a ValueError where they do not fit the model, whose columns and targets are known.
    """
    stopping = callbacks_of(model).stopping
    if stopping is None:
        return None
    try:
        read = read_rows(
            model, stopping.X_val, stopping.y_val, stopping.sample_weight_val, is_fresh=False
        )
    except ValueError as error:
        raise ValueError(f"EarlyStopping's X_val and y_val: {error}") from error
    if not read.targets.labelled.any():
        raise ValueError("EarlyStopping's y_val: no row has a target.")
    return read


def watched_targets(model, task: Task, engine: Model, read: Read | None, attributes_of) -> Watched:
    """What a model's `EarlyStopping` watches in a task; ``read`` is of `read_watched`.

    ``attributes_of(weights)`` is what makes a copy of the model usable.
    """
    stopping = callbacks_of(model).stopping
    if stopping is None or read is None:
        return NOTHING
    if stopping.scoring is not None:
        return Watched(judge=judge_of(model, stopping, attributes_of))
    below = None if task.first == 0 else layers_below(task.stack, task.first)
    data = read.data if below is None else below._codes(read.data)
    rows = LabelledRows(rows_for(engine, data, task.place), *read.targets.tensors(task.place))
    counts = (
        read.targets.labelled if read.weight is None else read.targets.labelled & (read.weight > 0)
    )
    return Watched(apart=Data(rows, torch.tensor(np.flatnonzero(counts))))
