"""How a stack that predicts is trained: its layers, the start of its output, and the whole.

`fit_stack` reads from top to bottom. What differs from model to model are two values: the kind of
targets (`skae.estimators.supervised.targets`), which ``_targets`` returns, and the criterion on
which the whole descends, which ``_criterion`` returns for a `Task`.
"""

import copy
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.model_selection import train_test_split
from sklearn.utils import check_consistent_length

from skae._validation import check_rows, check_weights, make_generator
from skae.engine.optimisation.devices import Place
from skae.engine.optimisation.models import (
    FittedModel,
    Model,
    Start,
    rows_that_count,
    some_of,
    split,
)
from skae.engine.optimisation.parameters import Parameters
from skae.engine.optimisation.rows import LabelledRows
from skae.engine.optimisation.training import Data, Training
from skae.engine.stacks.stacking import Layerwise
from skae.engine.stacks.supervised import Supervised, with_output
from skae.estimators.face.outcomes import report_collapse, report_constant_units, some_rows
from skae.estimators.face.training import (
    CallbackBridge,
    place_for,
    rows_for,
    run_training,
    settings_of,
    usable_place,
    weights_at,
)
from skae.estimators.stacks.auto_encoder import StackedAutoEncoder
from skae.estimators.stacks.layers import (
    make_layers,
    models_of,
    needs_targets,
    require_gradients,
    weights_of,
    with_weights,
)
from skae.estimators.stacks.pretraining import facts_of, pretrained, was_interrupted
from skae.estimators.supervised.output_layers import fit_linear_output
from skae.estimators.supervised.targets import Classes, Numbers, Targets

_CPU = torch.device("cpu")
# Steps of the linear model that the output starts from, and of one that is the result.
_START_STEPS, _LINEAR_STEPS = 100, 1000
# The least penalty on the weights of the first.
_START_PENALTY = 1.0


class Read(NamedTuple):
    """What the user passed, checked.

    Attributes
    ----------
    data : {ndarray, CSR matrix} of shape (n_samples, n_features)
    weight : ndarray of shape (n_samples,), or None
        Sample weights of mean 1.
    table : ndarray of shape (n_samples, n_outputs)
        y, which may have gaps.
    kind : Classes or Numbers
        What it is.
    targets : Targets
        The table as the engine sees it.
    n_labelled : float
        Rows with a target, each counted by its weight as the user passed it.
    """

    data: Any
    weight: np.ndarray | None
    table: np.ndarray
    kind: Classes | Numbers
    targets: Targets
    n_labelled: float


class Task(NamedTuple):
    """What is fine-tuned, and on what.

    Attributes
    ----------
    stack : StackedAutoEncoder
        As it is before the first step.
    is_fresh : bool
        Whether it was pre-trained just now, and not fine-tuned yet.
    first : int
        The lowest layer that is trained.
    models : list of Model
        Those of the layers that are trained, perhaps none.
    weights : dict of str to ndarray
        Theirs, and the output's, from which training begins.
    place : Place
    data : {ndarray, CSR matrix} of shape (n_samples, n_features)
    rows : {ndarray, CSR matrix} of shape (n_samples, n_inputs)
        What the lowest layer that is trained sees of the data, before it standardises.
    weight : ndarray of shape (n_samples,), or None
    targets : Targets
        Of all rows, those that are held out among them.
    index : LongTensor
        The rows that count and are not held out.
    labelled : Tensor of bool of shape (n_samples,)
        Those whose targets are learned.
    options : dict
        What all criteria take: see `Supervised`.
    """

    stack: StackedAutoEncoder
    is_fresh: bool
    first: int
    models: list[Model]
    weights: dict[str, np.ndarray]
    place: Place
    data: Any
    rows: Any
    weight: np.ndarray | None
    targets: Targets
    index: torch.Tensor
    labelled: torch.Tensor
    options: dict

    @property
    def known(self) -> torch.Tensor:
        """The rows of the index that have a target."""
        return self.index[self.labelled[self.index]]

    @property
    def others(self) -> torch.Tensor:
        """Those that have none."""
        return self.index[~self.labelled[self.index]]

    def fraction(self, index: torch.Tensor) -> float:
        """The part of some rows that has a target."""
        return max(1, int(self.labelled[index].sum())) / max(1, len(index))


class Criterion(NamedTuple):
    """What the whole descends on, and which rows it needs.

    Attributes
    ----------
    objective : callable
        () -> a new `Supervised`.
    index : LongTensor
        The rows of an epoch, some perhaps several times.
    directions, position : as of `LabelledRows`, or None
    max_iter : int, default=None
        Epochs, where these are not the model's parameter.
    facts : dict
        What the model shows of it, by the attributes' names.
    """

    objective: Callable[[], Supervised]
    index: torch.Tensor
    directions: Any = None
    position: torch.Tensor | None = None
    max_iter: int | None = None
    facts: Mapping = MappingProxyType({})


def labelled_criterion(task: Task, unsupervised_weight: float) -> Criterion:
    """The loss of the rows with a target, and the layers' own criteria of all rows."""
    keeps_own = unsupervised_weight > 0 and len(task.models) > 0
    index = task.index if keeps_own else task.known

    def objective():
        own = [model.objective() for model in task.models] if keeps_own else None
        return Supervised(
            task.models,
            labelled_fraction=task.fraction(index),
            unsupervised=Layerwise(task.models, own, task.first) if keeps_own else None,
            unsupervised_weight=unsupervised_weight,
            **task.options,
        )

    return Criterion(objective, index)


def stack_of(model, data, **changes) -> StackedAutoEncoder:
    """The layers of a model as a stack that is to be trained.

    Parameters
    ----------
    model : SupervisedStack
    data : {ndarray, CSR matrix} of shape (n_samples, n_features)
    **changes
        Parameters of the stack that are not the model's.
    """
    own = model.get_params(deep=False)
    shared = {
        name: own[name] for name in StackedAutoEncoder().get_params(deep=False) if name in own
    }
    return StackedAutoEncoder(**shared | {"warm_start": False} | changes)


def fit_stack(model, X, y, sample_weight, make_stack: Callable = stack_of):
    """Pre-train the layers of a model, then train them and the output on the targets.

    Parameters
    ----------
    model : SupervisedStack
    X, y, sample_weight : as the user passed them
    make_stack : callable
        (model, data) -> the stack to be trained, a `StackedAutoEncoder`.

    Returns
    -------
    model : SupervisedStack
        Fitted.
    """
    model._check_parameters()
    is_fresh = not (model.warm_start and hasattr(model, "stack_"))
    read = _read(model, X, y, sample_weight, is_fresh=is_fresh)
    stack = make_stack(model, read.data)
    layers = _checked_layers(model, stack, X, read.data)
    model.n_labelled_, seen, held_out = read.n_labelled, read.targets, None
    if model.early_stopping and model.n_fine_tuned_layers != 0:
        index, held_out = held_out_rows(model, read.kind, read.table, read.targets)
        seen = seen.restricted(index)
    # A number that depends on the rows of an epoch is not known yet.
    n_epochs = None if isinstance(model.max_iter, str) else model.max_iter
    bridge = CallbackBridge(model, n_epochs, X, y, sample_weight)

    outcome, n_iter = "converged", 0
    if is_fresh:
        _pretrain_(stack, layers, X, read, sample_weight, seen)
        outcome = "interrupted" if was_interrupted(stack) else outcome
    else:
        stack = model.stack_
    # Who interrupts pre-training wants to wait no longer.
    n_tuned = 0 if outcome == "interrupted" else _n_tuned(model, stack.layers_)
    output = None if is_fresh else (model.output_weights_, model.output_bias_)
    if is_fresh or n_tuned == 0:
        output, n_iter = _start_of_output(model, stack, read.data, seen, is_final=n_tuned == 0)

    task = _task(model, read, seen, held_out, stack, n_tuned, output, is_fresh=is_fresh)
    criterion = model._criterion(task)
    weights, training = task.weights, Training([], [], {}, outcome, 0)
    if n_tuned:
        settings = settings_of(model, max_iter=criterion.max_iter or model.max_iter)
        start = Start(weights, was_learned=model.pretraining is not None)
        weights, training, *_ = _train(model, task, criterion, settings, start, held_out, bridge)
        n_iter = len(training.loss_curve)

    _keep(model, task, weights, training.outcome)
    vars(model).pop("_training_state", None)
    vars(model).update(criterion.facts)
    model.n_iter_, model.loss_curve_ = n_iter, training.loss_curve
    model.validation_curve_ = np.round(training.validation_curve, 5).tolist()
    if n_tuned:
        report_constant_units(model, model.stack_._codes(some_rows(read.data, read.weight)))
    bridge.finish()
    return model


def fit_part(model, X, y, sample_weight, **announced):
    """One pass of fine-tuning; on the first call, after all that `fit_stack` does before it.

    Parameters
    ----------
    model : StackedClassifier or StackedRegressor
    X, y, sample_weight : as the user passed them
    **announced
        What the user knows of the targets to come, for ``described`` of their kind.

    Returns
    -------
    model : StackedClassifier or StackedRegressor
        Fitted.
    """
    model._check_parameters()
    is_fresh = not hasattr(model, "stack_")
    read = _read(model, X, y, sample_weight, is_fresh=is_fresh, **announced)
    stack = stack_of(model, read.data)
    layers = _checked_layers(model, stack, X, read.data)
    targets = read.targets
    if not targets.labelled.any():
        _require_use_of_others(model, is_fresh)
    if is_fresh:
        model.n_labelled_, earlier = read.n_labelled, []
        _pretrain_(stack, layers, X, read, sample_weight, targets)
        is_final = model.n_fine_tuned_layers == 0
        output, _ = _start_of_output(model, stack, read.data, targets, is_final=is_final)
        state = None
    else:
        model.n_labelled_ += read.n_labelled
        earlier, state = model.loss_curve_, vars(model).get("_training_state")
        stack, output = model.stack_, (model.output_weights_, model.output_bias_)
    n_tuned = _n_tuned(model, stack.layers_)
    task = _task(model, read, targets, None, stack, n_tuned, output, is_fresh=is_fresh)
    settings = settings_of(model, resumes=True, max_iter=1)
    start = Start(task.weights, state, resumes=True)
    fitted = _train(model, task, model._criterion(task), settings, start)
    _keep(model, task, fitted.weights, fitted.training.outcome)
    model._training_state = fitted.state
    model.loss_curve_, model.validation_curve_ = earlier + fitted.training.loss_curve, []
    model.n_iter_ = len(model.loss_curve_)
    if is_fresh:
        report_constant_units(model, model.stack_._codes(some_rows(read.data, read.weight)))
    return model


def fitted_model(model, X) -> FittedModel:
    """The layers and the output of a fitted model, to compute with such rows as X."""
    place, layers = usable_place(model, X), model.stack_.layers_
    units, n_outputs = model._targets().units(place.device), len(model.output_bias_)
    weights = _weights(layers, (model.output_weights_, model.output_bias_))
    theta = Parameters.from_numpy(weights, dtype=place.dtype, device=place.device)
    return FittedModel(with_output(models_of(layers, place), units, n_outputs), theta)


def held_out_rows(
    model, kind: Classes | Numbers, table: np.ndarray, targets: Targets
) -> tuple[np.ndarray, np.ndarray]:
    """Labelled rows to train on, and those to hold out, with like parts of every class."""
    generator = make_generator(model.random_state, _CPU)
    labelled = torch.tensor(np.flatnonzero(targets.labelled))
    index, held_out = split(labelled, model.validation_fraction, generator)
    both, n_held_out = torch.cat([index, held_out]).numpy(), len(held_out)
    strata = kind.strata(table[both], n_held_out)
    if strata is None:
        return index.numpy(), held_out.numpy()
    seed = int(torch.randint(2**31 - 1, (), generator=generator))
    index, held_out = train_test_split(
        both, test_size=n_held_out, stratify=strata, random_state=seed
    )
    return index, held_out


def layers_below(stack: StackedAutoEncoder, number: int) -> StackedAutoEncoder:
    """The layers of a fitted stack below one of them, as a stack of checked rows."""
    below = copy.copy(stack)
    below.layers_, below.code_layer = stack.layers_[:number], -1
    vars(below).pop("feature_names_in_", None)
    return below


def _read(model, X, y, sample_weight, *, is_fresh, **announced):
    """What the user passed, checked; the model notes what it says of columns and targets."""
    if y is None:
        raise ValueError(
            f"This {type(model).__name__} requires y to be passed, but the target y is None."
        )
    data, kind = check_rows(model, X, reset=is_fresh), model._targets()
    table = kind.checked(y)
    check_consistent_length(data, table)
    weight = check_weights(sample_weight, data)
    if is_fresh:
        kind = kind.described(table, weight, **announced)
        vars(model).update(kind.facts)
    targets = kind.encoded(table, weight)
    return Read(data, weight, table, kind, targets, targets.total * _mean_weight(sample_weight))


def _mean_weight(sample_weight):
    """The mean of the sample weights, as the user passed them, over the rows that count."""
    if sample_weight is None:
        return 1.0
    weight = np.ravel(np.asarray(sample_weight, dtype=np.float64))
    return float(weight[weight > 0].mean())


def _checked_layers(model, stack, X, data):
    """New layers of a stack, which can be trained as the model's parameters say."""
    layers, models = make_layers(stack, X, data)
    n_tuned, n_layers = model.n_fine_tuned_layers, len(layers)
    if n_tuned is not None and n_tuned > n_layers:
        raise ValueError(
            f"n_fine_tuned_layers={n_tuned}, but there are {n_layers} layers. None fine-tunes all."
        )
    tuned = range(n_layers - _n_tuned(model, layers), n_layers)
    require_gradients(layers, models, tuned, "fine-tuning")
    return layers


def _n_tuned(model, layers):
    """How many of the layers are fine-tuned."""
    n_tuned = model.n_fine_tuned_layers
    return len(layers) if n_tuned is None else min(n_tuned, len(layers))


def _require_use_of_others(model, is_fresh):
    """Refuse a part of a stream whose rows have no targets, where these teach nothing."""
    if model.unsupervised_weight == 0 or model.n_fine_tuned_layers == 0:
        raise ValueError(
            "No row of this call has a target, so it teaches nothing. Leave it out, or set "
            "unsupervised_weight > 0 and fine-tune layers."
        )
    if is_fresh and needs_targets(model):
        raise ValueError(
            f"pretraining={model.pretraining!r} needs rows with targets in the first call of "
            "partial_fit, which has none."
        )


def _pretrain_(stack, layers, X, read, sample_weight, targets):
    """Fit a stack by training its layers."""
    layers, training = pretrained(stack, layers, X, read.data, sample_weight, read.weight, targets)
    check_rows(stack, X, reset=True, finite=False)
    vars(stack).update(facts_of(layers, training))
    if training.loss_curve:
        report_collapse(stack, some_rows(read.data, read.weight), training)


def _start_of_output(model, stack, data, targets, *, is_final):
    """The output to begin with, or the one to end with: weights and biases, and steps."""
    if (model.pretraining is None and not is_final) or not targets.labelled.any():
        # Random codes have no output that would be worth keeping.
        bias = targets.start_bias().numpy()
        return (np.zeros((len(bias), stack._n_features_out)), bias), 0
    max_iter = _LINEAR_STEPS if is_final else _START_STEPS
    # Large weights on top would tear the layers apart at the first steps.
    penalty = model.output_penalty if is_final else max(model.output_penalty, _START_PENALTY)
    penalty *= targets.labelled.sum() / model.n_labelled_
    weights, bias, n_iter = fit_linear_output(
        stack._codes(data), targets, penalty, max_iter, is_final=is_final
    )
    return (weights, bias), n_iter


def _task(model, read, seen, held_out, stack, n_tuned, output, *, is_fresh):
    first = len(stack.layers_) - n_tuned
    layers = stack.layers_[first:]
    rows = read.data if first == 0 else layers_below(stack, first)._codes(read.data)
    place = place_for(model, rows)
    index, labelled = rows_that_count(len(seen.labelled), read.weight), seen.labelled
    if held_out is not None:
        index = index[torch.tensor(~np.isin(index.numpy(), held_out))]
    validation_loss = None if held_out is None else read.kind.validation_loss()
    judged = labelled if held_out is None else held_out
    dropout = model.dropout if isinstance(model.dropout, tuple) else (0.0, model.dropout)
    options = {
        "units": read.kind.units(place.device),
        "first": first,
        "weight_decay": model.output_penalty / (model.n_labelled_ or 1.0),
        "dropout": (dropout[min(first, 1)], dropout[1]),
        "validation_loss": validation_loss,
        "baseline": _loss_of_nothing(read, judged, validation_loss),
    }
    return Task(
        stack=stack,
        is_fresh=is_fresh,
        first=first,
        models=models_of(layers, place),
        weights=_weights(layers, output, first),
        place=place,
        data=read.data,
        rows=rows,
        weight=read.weight,
        targets=read.targets,
        index=index,
        labelled=torch.tensor(labelled),
        options=options,
    )


def _loss_of_nothing(read, rows, validation_loss):
    """What an output that knows nothing but the targets' mean would be judged at."""
    values, weight = read.targets.tensors(Place(torch.float64, _CPU))
    rows = torch.as_tensor(rows)
    values, weight = values[rows], None if weight is None else weight[rows]
    if not len(values):
        return -math.inf
    judge = validation_loss or read.kind.units(_CPU).negative_log_likelihood
    loss = judge(read.targets.start_bias().expand_as(values), values)
    return float((loss if weight is None else loss * weight).mean())


def _weights(layers, output, first=0):
    """What layers and the output have learned, by the names of the engine."""
    weights, bias = output
    return weights_of(layers, first) | {"output_weight": weights, "output_bias": bias}


def _train(model, task, criterion, settings, start, held_out=None, bridge=None):
    """Train layers and output on a criterion."""
    engine = with_output(
        task.models,
        task.options["units"],
        len(task.weights["output_bias"]),
        criterion.objective,
        first=task.first,
        n_features=task.rows.shape[1],
    )
    rows = LabelledRows(
        rows_for(engine, task.rows, task.place),
        *task.targets.tensors(task.place),
        criterion.directions,
        criterion.position,
    )
    probe = some_of(task.known if len(task.known) else criterion.index)
    held_out = None if held_out is None else torch.tensor(held_out)
    weight = weights_at(task.weight, task.place)
    return run_training(
        model,
        engine,
        Data(rows, criterion.index, probe, held_out, weight),
        start,
        generator=make_generator(model.random_state, task.place.device),
        settings=settings,
        bridge=bridge,
    )


def _keep(model, task, weights, outcome):
    """Let a model have what layers and output have learned, in layers of its own."""
    learned = with_weights(task.stack.layers_[task.first :], weights, task.first)
    model.stack_ = copy.copy(task.stack)
    model.stack_.layers_ = [*task.stack.layers_[: task.first], *learned]
    model.output_weights_, model.output_bias_ = weights["output_weight"], weights["output_bias"]
    model.device_ = str(task.place.device) if task.models else task.stack.device_
    model.stopping_reason_ = outcome
