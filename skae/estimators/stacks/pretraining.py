"""How the layers of a stack are trained, before it is trained as a whole."""

import copy
import math

import numpy as np
import torch

from skae._validation import make_generator
from skae._warnings import of_layer
from skae.engine.optimisation.models import (
    AFRESH,
    Start,
    parameters_at,
    require_memory_for,
    rows_that_count,
    some_of,
    split,
)
from skae.engine.optimisation.optimizers import Partwise
from skae.engine.optimisation.rows import LabelledRows, all_rows, made_of
from skae.engine.optimisation.runs import Data, Training
from skae.engine.stacks.stacking import Layerwise, layerwise
from skae.engine.stacks.supervised import Supervised, with_output
from skae.estimators.face.outcomes import report_constant_units, some_rows
from skae.estimators.face.stopping import NOTHING, watched_rows
from skae.estimators.face.training import (
    place_for,
    rows_for,
    rule_of,
    run_training,
    settings_of,
    weights_at,
)
from skae.estimators.stacks.layers import models_of, modes_of, weights_of, with_weights

UNTRAINED = Training([], [], {}, "untrained", 0)


def pretrained(
    stack, layers, X, data, sample_weight, weight, targets=None, *, goes_on=False, bridge=None
):
    """Layers trained as a stack's parameters say, and the `Training` of all of them together.

    That has no epochs where they are trained one after the other. ``layers`` are new ones of
    `make_layers`, or fitted ones that begin with what they have learned before (``goes_on``).
    ``X`` and ``sample_weight`` are as the user passed them, for the lowest layer, which may know
    columns by their names; ``data`` and ``weight`` are the same, checked. ``targets`` are there if
    layers are pre-trained on some, and ``bridge`` is told of epochs in which all layers are trained
    together, or of each layer.
    """
    if stack.pretraining == "prefit":
        if not goes_on:
            layers = [copy.copy(layer) for layer in layers]
            layers[0]._read(X, None, Start(layers[0].weights_))
        return layers, UNTRAINED
    layers = [copy.copy(layer) for layer in layers]
    for layer in layers if goes_on else ():
        layer.warm_start = True
    if stack.pretraining == "simultaneous":
        if not goes_on:
            layers = random_layers(layers, X, data, sample_weight)
        return _trained_together(stack, layers, data, weight, bridge)
    modes, codes = modes_of(stack, len(layers)), data
    if set(modes) == {None}:
        return (layers if goes_on else random_layers(layers, X, data, sample_weight)), UNTRAINED
    for number, mode in enumerate(modes):
        seen = X if number == 0 else codes
        with of_layer(number):
            if mode == "unsupervised":
                layers[number].fit(seen, sample_weight=sample_weight)
            elif not goes_on:
                layers[number] = random_layer(layers[number], seen, sample_weight)
            if mode in ("supervised", "partly_supervised"):
                supervision = stack.supervision if mode == "partly_supervised" else None
                layers[number] = _trained_on(layers[number], codes, weight, targets, supervision)
        if number + 1 < len(layers):
            if mode is not None and layers[number].stopping_reason_ == "interrupted":
                # The layers above have learned nothing: half a stack is no model.
                raise KeyboardInterrupt
            codes = codes_of(layers[number], codes)
        if bridge is not None:
            bridge.report("layer", {"layers_": layers[: number + 1]})
    return layers, UNTRAINED


def partly_trained(stack, layers, X, data, sample_weight, weight, *, goes_on):
    """Layers after one more pass over rows for each, by its own ``partial_fit``, and the passes.

    Arguments are those of `pretrained`. Layers that a stack's parameters say are not trained
    begin as there, and stay as they are.
    """
    if stack.pretraining in ("prefit", None):
        if not goes_on:
            layers, _ = pretrained(stack, layers, X, data, sample_weight, weight)
        return layers, 0
    n_passes, codes = 0, data
    for number, layer in enumerate(layers):
        n_before = len(getattr(layer, "loss_curve_", ()))
        with of_layer(number):
            layer.partial_fit(X if number == 0 else codes, sample_weight=sample_weight)
        n_passes += len(layer.loss_curve_) - n_before
        codes = codes_of(layer, codes) if number + 1 < len(layers) else codes
    return layers, n_passes


def facts_of(layers, training=None):
    """The attributes of a stack whose layers were trained, a dict by name.

    Curves are among them with the ``training`` of all layers together.
    """
    facts = {
        "layers_": layers,
        "n_iter_": sum(layer.n_iter_ for layer in layers),
        "stopping_reason_": layers[-1].stopping_reason_,
        "device_": layers[-1].device_,
    }
    if training is not None:
        facts["loss_curve_"] = training.loss_curve
        facts["validation_curve_"] = training.validation_curve
    return facts


def was_interrupted(stack):
    """Whether who waited for the pre-training of a stack's last layer wants to wait no longer."""
    trained = stack.pretraining not in ("prefit", None)
    return trained and stack.layers_[-1].stopping_reason_ == "interrupted"


def random_layers(layers, X, data, sample_weight=None):
    """Layers with the weights with which the training of each would begin.

    Those of several layers are scaled to what lets signals through all of them.
    """
    started, codes = [], data
    for number, layer in enumerate(layers):
        with of_layer(number):
            layer = random_layer(layer, X if number == 0 else codes, sample_weight)
        if len(layers) > 1:
            layer.weights_ = _widened(layer, place_for(layer, codes))
        started.append(layer)
        codes = codes_of(layer, codes) if number + 1 < len(layers) else codes
    return started


def codes_of(layer, X):
    """Codes of checked rows; where they are too many to be in memory, as they are needed."""
    return made_of(layer._codes, X, layer._n_features_out)


def random_layer(layer, X, sample_weight=None):
    """A layer with the weights with which its training would begin, as if it were fitted."""
    layer = copy.copy(layer)
    data, weight = layer._read(X, sample_weight, AFRESH)
    place = place_for(layer, data)
    model = layer._model(place)
    require_memory_for(model, settings_of(layer), place, type(layer).__name__)
    index = all_rows(data, weight, place.dtype.itemsize)
    generator = make_generator(layer.random_state, place.device)
    rows = Data(rows_for(model, data, place), index)
    theta = parameters_at(AFRESH, model, rows, generator)
    layer.weights_, layer.device_ = theta.to_numpy(), str(place.device)
    layer.n_iter_, layer.loss_curve_, layer.validation_curve_ = 0, [], []
    layer.stopping_reason_ = UNTRAINED.outcome
    return layer


def _widened(layer, place):
    encoder = layer._model(place).encoder
    # A layer of several maps has begun with what lets signals through.
    if encoder is None or len(encoder) > 1:
        return layer.weights_
    factor = encoder[0].activation.deep_gain / encoder[0].activation.gain
    return {
        name: array * array.dtype.type(factor) if "weight" in name else array
        for name, array in layer.weights_.items()
    }


def _trained_on(layer, X, weight, targets, supervision):
    """A layer that is trained on targets, through a temporary output layer.

    ``supervision`` is the weight of the targets beside the layer's own criterion. None: that has
    no part in the training.
    """
    place = place_for(layer, X)
    generator = make_generator(layer.random_state, place.device)
    models = models_of([layer], place)
    has_own = supervision is not None
    index = rows_that_count(X.shape[0], weight) if has_own else torch.arange(X.shape[0])
    labelled, held_out = index[torch.tensor(targets.labelled)[index]], None
    index = index if has_own else labelled
    if layer.early_stopping:
        labelled, held_out = split(labelled, layer.validation_fraction, generator)
        index = index[torch.tensor(~np.isin(index.numpy(), held_out.numpy()))]
    units, n_outputs = targets.kind.units(place.device), targets.values.shape[1]

    def objective():
        return Supervised(
            models,
            units,
            weight=supervision if has_own else 1.0,
            labelled_fraction=len(labelled) / len(index),
            unsupervised=Layerwise(models, [models[0].objective()]) if has_own else None,
        )

    output = {
        "output_weight": np.zeros((n_outputs, models[0].n_codes)),
        "output_bias": targets.start_bias().numpy(),
    }
    rows = LabelledRows(rows_for(models[0], X, place), *targets.tensors(place))
    fitted = run_training(
        layer,
        with_output(models, units, n_outputs, objective),
        Data(rows, index, some_of(labelled), held_out, weights_at(weight, place)),
        Start(weights_of([layer]) | output),
        generator=generator,
        settings=settings_of(layer),
    )
    (layer,) = with_weights([layer], fitted.weights)
    _note(layer, fitted.training)
    report_constant_units(layer, layer._codes(some_rows(X, weight)))
    return layer


def _trained_together(stack, layers, X, weight, bridge):
    """Layers that are trained at the same time, each by its own criterion and rule.

    The other parameters of the training are the stack's.
    """
    place = place_for(stack, X)
    generator = make_generator(stack.random_state, place.device)
    models = models_of(layers, place)
    whole, watched = layerwise(models), NOTHING
    index, held_out = all_rows(X, weight, place.dtype.itemsize), None
    if stack.early_stopping:
        index, held_out = split(index, stack.validation_fraction, generator)
    rows = rows_for(whole, X, place)
    some = some_of(index).to(place.device)
    probed, curves = whole.objective(), [[] for _ in layers]
    probed.has_gaps, criteria = rows.has_gaps, probed.criteria

    def note(theta, epoch):
        same_noise = torch.Generator(place.device).manual_seed(0)
        for curve, loss in zip(curves, criteria(theta, rows.take(some), same_noise), strict=True):
            curve.append(float(loss))
        return False

    if bridge is not None:
        bridge.attributes_of = lambda weights: {"layers_": with_weights(layers, weights)}
        stack.layers_ = layers  # whose columns are those of the rows that are watched
        watched = watched_rows(stack, whole, place, bridge.attributes_of)
    weights = weights_at(weight, place)
    fitted = run_training(
        stack,
        whole,
        Data(rows, index, some_of(index), held_out, weights, watched.apart),
        Start(weights_of(layers)),
        generator=generator,
        settings=settings_of(stack, optimizer=Partwise(_rules(layers, models)), learning_rate=1.0),
        bridge=bridge,
        listener=note,
        notes=curves,
        judge=watched.judge,
        rate="that of the layers",
    )
    layers = with_weights(layers, fitted.weights)
    for layer, curve in zip(layers, curves, strict=True):
        _note(layer, fitted.training._replace(loss_curve=curve, validation_curve=[]))
    return layers, watched.shown(fitted.training)


def _rules(layers, models):
    """The rule, place and learning rate of each layer's part of the parameters."""
    start = 0
    for layer, model in zip(layers, models, strict=True):
        stop = start + sum(math.prod(shape) for shape in model.shapes.values())
        yield rule_of(layer), start, stop, layer.learning_rate
        start = stop


def _note(layer, training):
    """Keep how a layer was trained."""
    layer.n_iter_, layer.loss_curve_ = len(training.loss_curve), training.loss_curve
    layer.validation_curve_, layer.stopping_reason_ = training.validation_curve, training.outcome
