"""How the layers of a stack are trained, before it is trained as a whole."""

import numpy as np
import torch

from skae._validation import computing_dtype
from skae.engine.optimisation.devices import resolve_device
from skae.engine.optimisation.optimizers import OPTIMIZERS, Partwise
from skae.engine.optimisation.parameters import Parameters
from skae.engine.optimisation.rows import LabelledRows, make_rows
from skae.engine.stacks.stacking import Layerwise
from skae.engine.stacks.supervised import Supervised
from skae.estimators.face.fitting import rows_that_count
from skae.estimators.face.outcomes import of_layer, report_constant_units, some_rows
from skae.estimators.stacks.layers import make_levels

# Rows on which the curves of layers that learn at the same time are taken.
_CURVE_ROWS = 500


def pretrain_in_turn(layers, modes, X, data, sample_weight, weight, targets, supervision):
    """Train layers one after the other, each on the codes of the one below, in place.

    Parameters
    ----------
    layers : list of estimators
    modes : list of str or None
        For each, "unsupervised", "supervised", "partly_supervised" or None.
    X, sample_weight : as the user passed them
        For the lowest layer, which may know columns by their names.
    data, weight : the same, checked
    targets : Targets or None
    supervision : float
        Weight of the supervised criterion in partly supervised training.
    """
    codes = data
    for number, (layer, mode) in enumerate(zip(layers, modes, strict=True)):
        seen = X if number == 0 else codes
        with of_layer(number):
            if mode == "unsupervised":
                layer.fit(seen, sample_weight=sample_weight)
            elif not (layer.warm_start and hasattr(layer, "weights_")):
                start_layer(layer, seen, sample_weight)
                if set(modes) == {None} and len(layers) > 1:
                    _widen(layer)
            if mode in ("supervised", "partly_supervised"):
                own = mode == "partly_supervised"
                _pretrain_supervised(layer, codes, weight, targets, supervision, own=own)
        interrupted = mode is not None and layer.stopping_reason_ == "interrupted"
        if number + 1 < len(layers):
            if interrupted:
                # The layers above have learned nothing: half a stack is no model.
                raise KeyboardInterrupt
            codes = layer._codes(codes)


def start_layer(layer, X, sample_weight=None):
    """Give a layer the weights with which its training would begin, as if it were fitted."""
    data, weight = layer._prepare(X, sample_weight, fresh=True)
    device = resolve_device(layer.device)
    dtype = computing_dtype(data, device)
    generator = layer._generator(device)
    layer._require_memory((), dtype, device)
    theta = layer._initial_parameters(dtype, device, generator)
    rows = _rows_of(layer, data, dtype, device)
    layer._start_at_rows_(theta, rows, rows_that_count(len(rows), weight), generator)
    layer.weights_, layer.device_ = theta.to_numpy(), str(device)
    layer.n_iter_, layer.loss_curve_, layer.validation_curve_ = 0, [], []
    layer.stopping_reason_ = "untrained"


def _widen(layer):
    """Scale initial weights to what lets signals through several layers."""
    maps = layer._affine_encoder
    # A layer of several maps has begun with what lets signals through.
    if maps is not None and len(maps) == 1:
        activation = maps[0].activation
        factor = activation.deep_gain / activation.gain
        layer.weights_ = {
            name: array * array.dtype.type(factor) if "weight" in name else array
            for name, array in layer.weights_.items()
        }


def _pretrain_supervised(layer, data, weight, targets, supervision, *, own):
    """Train a layer through a temporary output layer."""
    device = resolve_device(layer.device)
    dtype = computing_dtype(data, device)
    generator = layer._generator(device)
    nothing = np.zeros((targets.values.shape[1], layer._n_features_out))
    output = nothing, targets.start_bias(torch.device("cpu")).numpy()
    theta = stack_parameters([layer], 0, dtype, device, output)
    (level,) = levels = make_levels([layer], 0, dtype, device, differentiable=True)
    criterion = layer._make_objective(theta.part(level.prefix))
    index = rows_that_count(data.shape[0], weight) if own else torch.arange(data.shape[0])
    labelled = torch.tensor(targets.labelled)
    probed = index[labelled[index]]
    index = index if own else probed
    held_out = None
    if layer.early_stopping:
        probed, held_out = layer._split(probed, generator)
        index = index[torch.tensor(~np.isin(index.numpy(), held_out.numpy()))]
    objective = Supervised(
        levels,
        targets.units(device),
        weight=supervision if own else 1.0,
        share=len(probed) / len(index),
        unsupervised=Layerwise(levels, [criterion]) if own else None,
    )
    rows = LabelledRows(_rows_of(layer, data, dtype, device), *targets.tensors(dtype, device))
    optimizer = OPTIMIZERS[layer.optimizer](layer.momentum)
    training = layer._descend(
        theta,
        objective,
        rows,
        weight,
        generator,
        index=index,
        probed=probed,
        held_out=held_out,
        optimizer=optimizer,
        max_iter=layer.max_iter,
        project=projection([layer], 0),
    )
    keep_parameters([layer], levels, theta)
    layer.n_iter_, layer.loss_curve_ = len(training.loss_curve), training.loss_curve
    layer.validation_curve_, layer.stopping_reason_ = training.validation_curve, training.outcome
    report_constant_units(layer, layer._codes(some_rows(data, weight)))


def pretrain_together(stack, layers, data, weight, bridge=None):
    """Train all layers at the same time, each by its own criterion and rule, in place.

    Parameters
    ----------
    stack : estimator
        Whose parameters of training count, but for the rules and learning rates of steps.
    layers : list of estimators
        With the weights to start from.
    data : ndarray or CSR matrix of shape (n_samples, n_features)
    weight : ndarray of shape (n_samples,), or None
    bridge : CallbackBridge, default=None

    Returns
    -------
    training : Training
    """
    device = resolve_device(stack.device)
    dtype = computing_dtype(data, device)
    generator = stack._generator(device)
    theta = stack_parameters(layers, 0, dtype, device)
    levels = make_levels(layers, 0, dtype, device, differentiable=True)
    criteria = [
        layer._make_objective(theta.part(level.prefix))
        for layer, level in zip(layers, levels, strict=True)
    ]
    objective = Layerwise(levels, criteria)
    rows = _rows_of(layers[0], data, dtype, device)
    index, held_out = rows_that_count(data.shape[0], weight), None
    if stack.early_stopping:
        index, held_out = stack._split(index, generator)
    some = index[:: max(1, len(index) // _CURVE_ROWS)]
    curves = [[] for _ in layers]

    def note(epoch):
        for curve, loss in zip(curves, _mean_criteria(objective, theta, rows, some), strict=True):
            curve.append(loss)
        return False

    training = stack._descend(
        theta,
        objective,
        rows,
        weight,
        generator,
        index=index,
        held_out=held_out,
        optimizer=Partwise(_rules(layers, theta, levels)),
        learning_rate=1.0,
        max_iter=stack.max_iter,
        project=projection(layers, 0),
        bridge=bridge,
        listener=note,
    )
    keep_parameters(layers, levels, theta)
    for layer, curve in zip(layers, curves, strict=True):
        layer.n_iter_, layer.loss_curve_ = len(curve), curve
        layer.stopping_reason_ = training.outcome
    return training


def _mean_criteria(objective, theta, rows, index):
    """The criterion of every layer on some rows, with the same noise at every call."""
    generator = torch.Generator(theta.flat.device).manual_seed(0)
    index = index.to(theta.flat.device)
    return [float(loss) for loss in objective.criteria(theta, rows.take(index), generator)]


def stack_parameters(layers, first, dtype, device, output=None):
    """The fitted parameters of layers as one vector, with those of an output layer.

    Parameters
    ----------
    layers : list of estimators
    first : int
        Number of the first of them in its stack.
    dtype, device : of the parameters
    output : tuple of ndarray, default=None
        The output's weights and biases. None: there is no output layer.
    """
    arrays = {
        f"{number}.{name}": array
        for number, layer in enumerate(layers, first)
        for name, array in layer.weights_.items()
    }
    if output is not None:
        arrays["output_weight"], arrays["output_bias"] = output
    return Parameters.from_numpy(arrays, dtype=dtype, device=device)


def keep_parameters(layers, levels, theta):
    """Store what was learned in the layers."""
    for layer, level in zip(layers, levels, strict=True):
        layer.weights_ = theta.part(level.prefix).to_numpy()


def projection(layers, first):
    """The layers' own constraints after every step, or None where they have none.

    Parameters
    ----------
    layers : list of estimators
    first : int
        Number of the first of them in its stack.
    """
    projections = [
        (f"{number}.", project)
        for number, layer in enumerate(layers, first)
        if (project := layer._make_projection(None)) is not None
    ]

    def project_all(theta):
        for prefix, project in projections:
            project(theta.part(prefix))

    return project_all if projections else None


def _rules(layers, theta, levels):
    start = 0
    for layer, level in zip(layers, levels, strict=True):
        stop = start + theta.part(level.prefix).flat.numel()
        yield OPTIMIZERS[layer.optimizer](layer.momentum), start, stop, layer.learning_rate
        start = stop


def _rows_of(layer, data, dtype, device):
    shift_and_scale = layer.columns_.standardization(dtype, device)
    return make_rows(data, *shift_and_scale, dtype=dtype, device=device)
