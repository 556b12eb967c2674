"""How a stack that predicts is trained: its layers, the start of its output, and the whole.

`fit_stack` reads from top to bottom. What differs from model to model are values: the kind of
targets (`skae.estimators.targets`), which ``_targets`` returns, the stack, and the criterion on
which the whole descends, which it makes of a `Task`.
"""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from skae._validation import column_names, make_generator
from skae.engine.optimisation import processes
from skae.engine.optimisation.models import FittedModel, Start, some_of
from skae.engine.optimisation.rows import LabelledRows
from skae.engine.optimisation.runs import Data, Training
from skae.engine.stacks.supervised import with_output
from skae.estimators.face.callbacks import refuse_callbacks
from skae.estimators.face.outcomes import report_collapse, report_constant_units, some_rows
from skae.estimators.face.training import (
    CallbackBridge,
    rows_for,
    run_training,
    settings_of,
    usable_place,
    weights_at,
)
from skae.estimators.stacks.auto_encoder import StackedAutoEncoder
from skae.estimators.stacks.continuing import continued
from skae.estimators.stacks.layers import (
    make_layers,
    models_of,
    needs_targets,
    require_gradients,
    with_weights,
)
from skae.estimators.stacks.pretraining import facts_of, pretrained, was_interrupted
from skae.estimators.supervised.kernels import KernelRidge
from skae.estimators.supervised.outputs import Linear, columns_of, output_of
from skae.estimators.supervised.tasks import (
    Criterion,
    FittedOutput,
    Task,
    held_out_rows,
    labelled_criterion,
    make_task,
    read_rows,
    weights_with_output,
)
from skae.estimators.supervised.watching import read_watched, watched_targets


def stack_of(model, data, **changes) -> StackedAutoEncoder:
    """The layers of a model as a stack to be trained; ``changes`` are its own parameters."""
    own = model.get_params(deep=False)
    not_shared = {"warm_start", "callbacks"}
    shared = own.keys() & StackedAutoEncoder().get_params(deep=False).keys() - not_shared
    stack = StackedAutoEncoder(**{name: own[name] for name in shared} | changes)
    for name in ("n_features_in_", "feature_names_in_", "encoding_", "_form"):
        if hasattr(model, name):
            setattr(stack, name, getattr(model, name))
    return stack


def own_criterion(model, task: Task) -> Criterion:
    """The loss of the rows with a target, and the layers' own with the weight of a parameter."""
    return labelled_criterion(task, model.unsupervised_weight, model.adversarial_step)


def fit_stack(
    model,
    X,
    y,
    sample_weight,
    make_stack: Callable = stack_of,
    make_criterion: Callable[[Any, Task], Criterion] = own_criterion,
):
    """Pre-train the layers of a model, then train them and the output on the targets.

    ``make_stack(model, data)`` is the stack to be trained, and ``make_criterion(model, task)`` what
    it then descends on together with the output. Returned is the model, fitted.
    """
    model._check_parameters()
    is_fresh = not (model.warm_start and hasattr(model, "stack_"))
    # Other criteria and outputs look at all rows at once.
    by_blocks = make_criterion is own_criterion and model.output in ("auto", "linear")
    read = read_rows(model, X, y, sample_weight, is_fresh=is_fresh, by_blocks=by_blocks)
    stack = make_stack(model, read.data)
    layers = _checked_layers(model, stack, X, read.data, None if is_fresh else model.stack_)
    model.n_labelled_, model.labelled_weight_ = _n_labelled(read.targets), read.targets.total
    seen, held_out = read.targets, None
    columns = columns_of(layers[0], stack, X, read.data) if is_fresh else model.stack_.columns_
    n_rows, n_labelled = read.data.shape[0], _n_labelled(seen)
    output = output_of(model, columns, read.data, n_labelled)
    if output.is_tuned and model.early_stopping and model.n_fine_tuned_layers != 0:
        index, held_out = held_out_rows(model, read.table, read.targets)
        seen = seen.restricted(index)
    if is_fresh and (own_layers := output.layers(model, n_rows)):
        stack.set_params(layers=own_layers, layer_sizes=None)
        layers = _checked_layers(model, stack, X, read.data, None)
    watched = read_watched(model)  # before any layer is trained
    bridge = CallbackBridge(model, model.max_iter, X, y, sample_weight)

    outcome = "converged"
    if is_fresh:
        _pretrain_(stack, layers, X, read, sample_weight, seen)
        outcome = "interrupted" if was_interrupted(stack) else outcome
    else:
        stack = _going_on(model, layers)
    # Who interrupts pre-training wants to wait no longer.
    is_tuned = output.is_tuned and outcome != "interrupted"
    n_tuned = _n_tuned(model, stack.layers_) if is_tuned else 0
    fitted = None if is_fresh or n_tuned == 0 else _linear_output(model)
    if fitted is None:
        options = model, stack, read.data, read.weight, seen
        fitted = output.fitted(*options, is_final=n_tuned == 0)

    rows = read, seen, held_out
    task = make_task(model, *rows, stack, n_tuned, fitted, is_fresh=is_fresh, watched=watched)
    criterion, n_iter = make_criterion(model, task), fitted.n_iter
    weights, training = task.weights, Training([], [], {}, outcome, 0)
    facts = {**fitted.facts, **criterion.facts}
    bridge.attributes_of = lambda weights: _learned(task, weights) | facts
    if n_tuned:
        settings = settings_of(model, max_iter=criterion.max_iter or model.max_iter)
        start = Start(weights, was_learned=model.pretraining is not None)
        weights, training = _tuned(
            model, task, criterion, settings, start, held_out, bridge, watched
        )
        n_iter = len(training.loss_curve)

    _keep(model, task, weights, training.outcome)
    if not n_tuned:
        bridge.report("output", bridge.attributes_of(weights))
    vars(model).pop("_training_state", None)
    vars(model).update(facts)
    model.n_iter_, model.loss_curve_ = n_iter, training.loss_curve
    model.validation_curve_ = np.round(training.validation_curve, 5).tolist()
    if n_tuned:
        report_constant_units(model, model.stack_._codes(some_rows(read.data, read.weight)))
    bridge.finish()
    return model


def fit_part(model, X, y, sample_weight, **announced):
    """One pass of fine-tuning; on the first call, after all that `fit_stack` does before it.

    ``announced`` is what the user knows of targets to come, for ``described`` of their kind.
    """
    model._check_parameters()
    refuse_callbacks(model)
    if model.output not in ("auto", "linear"):
        raise ValueError(
            f"output={model.output!r} needs all labelled rows at once: partial_fit learns a linear "
            "output. Set output='linear', or call fit with all rows."
        )
    is_fresh = not hasattr(model, "stack_")
    options = {"is_fresh": is_fresh, "by_blocks": True, **announced}
    read = read_rows(model, X, y, sample_weight, **options)
    stack = stack_of(model, read.data)
    layers = _checked_layers(model, stack, X, read.data, None if is_fresh else model.stack_)
    targets = read.targets
    if not _n_labelled(targets):
        _require_use_of_others(model, is_fresh)
    n_labelled, weight = (0, 1.0) if is_fresh else (model.n_labelled_, model.labelled_weight_)
    model.n_labelled_ = n_labelled + _n_labelled(targets)
    # Of this call alone: passes over the same rows are no new ones, and no penalty fades.
    model.labelled_weight_ = targets.total or weight
    if is_fresh:
        earlier, state = [], None
        _pretrain_(stack, layers, X, read, sample_weight, targets)
    else:
        earlier, state = model.loss_curve_, vars(model).get("_training_state")
        stack = _going_on(model, layers)
    output = None if is_fresh else _linear_output(model)
    if output is None:
        options = model, stack, read.data, read.weight, targets
        output = Linear().fitted(*options, is_final=model.n_fine_tuned_layers == 0)
    n_tuned = _n_tuned(model, stack.layers_)
    task = make_task(model, read, targets, None, stack, n_tuned, output, is_fresh=is_fresh)
    settings = settings_of(model, resumes=True, max_iter=1)
    start = Start(task.weights, state, resumes=True)
    engine, data = _posed(task, own_criterion(model, task))
    generator = make_generator(model.random_state, task.place.device)
    fitted = run_training(model, engine, data, start, generator=generator, settings=settings)
    _keep(model, task, fitted.weights, fitted.training.outcome)
    vars(model).update(output.facts)
    model._training_state = fitted.state
    model.loss_curve_, model.validation_curve_ = earlier + fitted.training.loss_curve, []
    model.n_iter_ = len(model.loss_curve_)
    if is_fresh:
        report_constant_units(model, model.stack_._codes(some_rows(read.data, read.weight)))
    return model


def _n_labelled(targets):
    """How many rows have a target, in all processes of the fit."""
    return processes.current().total(int(targets.labelled.sum()))


def fitted_model(model, X) -> FittedModel:
    """The layers and the output of a fitted model, to compute with such rows as X."""
    place, layers = usable_place(model, X), model.stack_.layers_
    units, n_outputs = model._targets().units(place.device), len(model.output_bias_)
    weights = weights_with_output(layers, _output(model))
    return FittedModel.of(with_output(models_of(layers, place), units, n_outputs), weights, place)


def _output(model) -> FittedOutput:
    """What the output of a fitted model has learned."""
    facts = {"kernel_output_": model.kernel_output_}
    return FittedOutput(model.output_weights_, model.output_bias_, 0, facts)


def _linear_output(model) -> FittedOutput | None:
    """The same, where training can go on from it: not from a kernel's."""
    return _output(model) if model.kernel_output_ is None else None


def _checked_layers(model, stack, X, data, learned):
    """New layers of a stack, which can be trained as the model's parameters say."""
    are_given = learned is not None and learned.layers is not None
    if are_given and (of_tables := KernelRidge(model.output).layers(model, data.shape[0])):
        stack.set_params(layers=of_tables, layer_sizes=None)
    layers, models = make_layers(stack, X, data, learned=getattr(learned, "layers_", None))
    chosen = getattr(layers[0], layers[0]._loss_parameter) != "auto"
    if learned is not None and chosen and model.pretraining != "prefit":
        learned.columns_.check(data, column_names(model))
    n_tuned, n_layers = model.n_fine_tuned_layers, len(layers)
    if n_tuned is not None and n_tuned > n_layers:
        raise ValueError(
            f"n_fine_tuned_layers={n_tuned}, but there are {n_layers} layers. None fine-tunes all."
        )
    tuned = range(n_layers - _n_tuned(model, layers), n_layers)
    require_gradients(layers, models, tuned, "fine-tuning")
    return layers


def _going_on(model, layers):
    """The stack of a fitted model, whose layers go on with the parameters of new ones."""
    stack = copy.copy(model.stack_)
    stack.layers_ = continued(stack.layers_, layers, model.pretraining == "prefit")
    return stack


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
    vars(stack).update(facts_of(layers, training))
    if training.loss_curve:
        some = some_rows(read.data, read.weight)
        report_collapse(stack, stack._fitted_model(some), some, training)


def pose_again(
    model,
    X,
    y,
    sample_weight,
    make_criterion: Callable[[Any, Task], Criterion] = own_criterion,
    *,
    n_doubles: float,
):
    """What the fine-tuning of a fitted model descends on, and how its result is kept.

    ``make_criterion`` is that of `fit_stack`. Returned are the engine's model, the data, the
    weights, how many rows have a target, each by its weight, and a function that makes a fitted
    model of other weights. Up to ``n_doubles`` rows are in double precision.
    """
    if model.kernel_output_ is not None:
        raise ValueError(
            f"The output of this {type(model).__name__} is a regression with a kernel in closed "
            "form, which has no parameters to draw. Set output='linear'."
        )
    read = read_rows(model, X, y, sample_weight, is_fresh=False)
    if read.data.shape[0] <= n_doubles:
        read = read._replace(data=read.data.astype(np.float64))
    output, n_tuned = _output(model), _n_tuned(model, model.stack_.layers_)
    task = make_task(model, read, read.targets, None, model.stack_, n_tuned, output, is_fresh=False)

    def keep(weights):
        twin = copy.copy(model)
        _keep(twin, task, weights, model.stopping_reason_)
        return twin

    engine, data = _posed(task, make_criterion(model, task))
    return engine, data, task.weights, read.targets.total, keep


def _tuned(model, task, criterion, settings, start, held_out, bridge, read):
    """Weights and `Training` of layers and output; ``read`` are rows of one's own to watch."""
    engine, data = _posed(task, criterion, held_out)
    watched = watched_targets(model, task, engine, read, bridge.attributes_of)
    data = replace(data, apart=watched.apart)
    options = {"settings": settings, "bridge": bridge, "judge": watched.judge}
    generator = make_generator(model.random_state, task.place.device)
    fitted = run_training(model, engine, data, start, generator=generator, **options)
    return fitted.weights, watched.shown(fitted.training)


def _posed(task, criterion, held_out=None):
    """The engine's model of layers and output, and the rows that they are trained on."""
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
    return engine, Data(rows, criterion.index, probe, held_out, weight)


def _keep(model, task, weights, outcome):
    """Let a model have what layers and output have learned, in layers of its own."""
    vars(model).update(_learned(task, weights))
    model.device_ = str(task.place.device) if task.models else task.stack.device_
    model.stopping_reason_ = outcome


def _learned(task, weights):
    """What layers and output have learned, by the names of a model's attributes."""
    layers, stack = task.stack.layers_, copy.copy(task.stack)
    learned = with_weights(layers[task.first :], weights, task.first)
    stack.layers_ = [*layers[: task.first], *learned]
    output = {"output_weights_": weights["output_weight"], "output_bias_": weights["output_bias"]}
    return {"stack_": stack, **output}
