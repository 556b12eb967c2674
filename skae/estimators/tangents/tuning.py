"""The layers and the criterion of the manifold tangent classifier, given its data."""

import math
from numbers import Integral
from typing import Any

import numpy as np
import torch
from sklearn.utils import gen_even_slices

from skae.diagnostics import jacobian_products
from skae.engine.networks.layers import jacobian_of
from skae.engine.optimisation.devices import require_memory
from skae.engine.optimisation.parameters import Parameters
from skae.engine.optimisation.rows import make_rows, summarize_columns
from skae.engine.stacks.stacking import stacked
from skae.engine.tangents.semi_supervised import Moves, SemiSupervised, Span
from skae.estimators.auto_encoders import ContractiveAutoEncoder
from skae.estimators.stacks.auto_encoder import StackedAutoEncoder
from skae.estimators.supervised.fine_tuning import stack_of
from skae.estimators.supervised.tasks import Criterion, Task, labelled_criterion, layers_below
from skae.estimators.tangents.sources import (
    EncoderTangents,
    check_source,
    learned_source,
)

# Layers by default: how many, and units for each column of the data, their fewest and their most.
_N_LAYERS, _UNITS = 2, (4, 100, 1000)
# A contractive layer by name: its contraction for each column of its input, and its training.
_CONTRACTION = 1e-3
_TRAINING: dict[str, Any] = {
    "learning_rate": 2e-3,
    "learning_rate_schedule": "linear",
    "batch_size": 200,
}
# "auto": steps, and the fewest and most epochs that these may be.
_PRETRAINING = 10_000, 5, 400
_FINE_TUNING = 2_000, 5, 200
# The least part of the rows of an epoch that is labelled.
_LABELLED_FRACTION = 1 / 3
# Penalties are about steps so long, as a part of the rows' distance from their mean.
_LENGTH = 0.1
# Rows whose tangents are found at a time.
_ROWS = 5000
# Neighbours of each row in local PCA.
N_NEIGHBORS = 30
_CPU = torch.device("cpu")


def pair(value: float | tuple[float, float]) -> tuple[float, float]:
    """Within the tangents' planes, and in any direction: one number holds for both."""
    return value if isinstance(value, tuple) else (value, value)


def uses_own_tangents(model) -> bool:
    """Whether tangents are those of the classifier's own layers."""
    return isinstance(model.tangent_source, str) and model.tangent_source == "encoder"


def tangent_stack(model, data) -> StackedAutoEncoder:
    """The layers of a tangent classifier, of the width and trained for the time that data ask for.

    Parameters
    ----------
    model : ManifoldTangentClassifier
    data : {ndarray, CSR matrix} of shape (n_samples, n_features)
    """
    n_samples, n_features = data.shape
    sizes = model.layer_sizes
    if sizes is None and model.layers is None:
        sizes = (_n_units(n_features),) * _N_LAYERS
    elif isinstance(sizes, Integral):
        sizes = (sizes,)
    is_named = model.layers is None and isinstance(model.layer, str)
    is_contractive = is_named and model.layer == "contractive"
    batch_size = _TRAINING["batch_size"] if is_contractive else model.batch_size
    max_iter = _epochs(n_samples / batch_size, *_PRETRAINING)
    stack = stack_of(model, data, layer_sizes=sizes, max_iter=max_iter)
    # Others are refused where the stack is checked.
    are_sizes = sizes is not None and all(isinstance(n, Integral) and int(n) > 0 for n in sizes)
    if is_contractive and are_sizes and model.pretraining != "prefit":
        stack.layers = [
            ContractiveAutoEncoder(
                int(size),
                contraction=_CONTRACTION * width,
                max_iter=max_iter,
                device=model.device,
                verbose=model.verbose,
                **_TRAINING,
            )
            for width, size in zip((n_features, *sizes), sizes, strict=False)
        ]
    if uses_own_tangents(model):
        widths = [getattr(layer, "n_components", None) for layer in stack.layers or ()]
        widths += sizes if are_sizes else ()
        _check_rank(model.n_tangents, n_features, min(filter(None, [n_features, *widths])))
    else:
        check_source(model.tangent_source, model.n_tangents, data, n_neighbors=N_NEIGHBORS)
    return stack


def tangent_criterion(model, task: Task) -> Criterion:
    """What the whole of a tangent classifier descends on.

    Parameters
    ----------
    model : ManifoldTangentClassifier
    task : Task
    """
    if task.is_fresh:
        encoder, source = task.stack, _source(model, task)
    else:
        encoder, source = model.encoder_, model.source_
    facts = {"encoder_": encoder, "source_": source, "n_tangents_": source.n_tangents}
    if not task.models:
        return labelled_criterion(task, 0.0)._replace(facts=facts)
    (within, anywhere), steps = pair(model.unlabelled_penalty), pair(model.unlabelled_step)
    uses_others = max(within, anywhere, model.entropy_penalty, model.balance_penalty) > 0
    index = _with_labelled(task) if uses_others else task.known
    columns = encoder.layers_[task.first].columns_
    length = _spread(columns, task.rows, task.weight)
    planes = None
    if within > 0 and source.n_tangents > 0:
        planes = _frozen_planes(task) if uses_own_tangents(model) else _held_planes
    needed = task.labelled & (model.tangent_penalty > 0)
    if planes is _held_planes:
        needed |= ~task.labelled
    prior = task.targets.class_frequencies(model.n_labelled_)

    def objective():
        return SemiSupervised(
            task.models,
            planes=planes,
            tangent_penalty=model.tangent_penalty,
            within=Moves(within, steps[0] * length),
            anywhere=Moves(anywhere, steps[1] * length),
            entropy_penalty=model.entropy_penalty,
            balance_penalty=model.balance_penalty,
            prior=prior.to(task.place.device, task.place.dtype),
            labelled_fraction=task.fraction(index),
            **task.options,
        )

    directions, position = _directions(encoder, source, task, needed, _LENGTH * length)
    max_iter = model.max_iter
    if max_iter == "auto":
        n_rows = len(task.known)
        if uses_others:
            n_rows = len(task.others) + max(n_rows, _wanted(len(task.others)))
        max_iter = _epochs(n_rows / model.batch_size, *_FINE_TUNING)
    return Criterion(objective, index, directions, position, max_iter, facts)


def _source(model, task):
    """What finds the tangents, learned from the rows that count."""
    counted = task.data if task.weight is None else task.data[task.weight > 0]
    if uses_own_tangents(model):
        return EncoderTangents(task.stack, model.n_tangents, counted)
    columns = task.stack.columns_
    choice = model.tangent_source
    return learned_source(choice, model.n_tangents, counted, columns, n_neighbors=N_NEIGHBORS)


def _check_rank(n_tangents, n_features, most):
    if n_tangents != "auto" and n_tangents > most:
        raise ValueError(
            f"n_tangents={n_tangents}, but the data have {n_features} columns and the code a rank "
            f"of at most {most}: ask for at most {most}, use n_tangents='auto', or make the layers "
            "larger."
        )


def _n_units(n_features):
    """Of each layer, where the user does not say."""
    per_column, fewest, most = _UNITS
    return min(max(per_column * n_features, fewest), most)


def _epochs(n_batches, n_steps, fewest, most):
    """As many as make up the steps, within bounds."""
    return int(np.clip(round(n_steps / max(n_batches, 1)), fewest, most))


def _wanted(n_others):
    """Labelled rows that an epoch with so many others should have, at least."""
    return _LABELLED_FRACTION / (1 - _LABELLED_FRACTION) * n_others


def _with_labelled(task):
    """Rows of which each unlabelled one is there once, and labelled ones as often as it takes."""
    wanted = _wanted(len(task.others))
    if len(task.known) == 0 or len(task.known) >= wanted:
        return task.index
    return torch.cat([task.others, task.known.repeat(math.ceil(wanted / len(task.known)))])


def _frozen_planes(task):
    """The Jacobians of the code at any rows, with the parameters of the start."""
    layers, place = stacked(task.models, task.first), task.place
    weights = {name: task.weights[name] for name in layers.shapes}
    theta = Parameters.from_numpy(weights, dtype=place.dtype, device=place.device)
    return lambda x, directions: jacobian_of(layers, theta, x)


def _held_planes(x, directions):
    """Those that the directions of the batch span."""
    return Span(directions())


def _spread(columns, rows, weight):
    """Root mean square distance of standardised rows from their mean."""
    deviation = summarize_columns(rows, weight).std
    if columns.is_standardized:
        deviation = deviation / columns.scale
    return float(np.linalg.norm(deviation))


def _directions(encoder, source, task, needed, length):
    """Directions of the rows that need some, as the lowest tuned layer sees them, and whose."""
    needed = np.flatnonzero(needed)
    if not len(needed) or source.n_tangents == 0:
        return None, None
    columns, place = encoder.layers_[task.first].columns_, task.place
    shape = len(needed), source.n_tangents, len(columns.scale)
    require_memory(
        math.prod(shape) * place.dtype.itemsize, _CPU, "Holding the tangents of the rows"
    )
    found = np.empty(shape, dtype=np.float64 if place.dtype == torch.float64 else np.float32)
    for part in gen_even_slices(len(found), math.ceil(len(found) / _ROWS)):
        rows = task.data[needed[part]]
        directions = source.directions(rows)
        if task.first > 0:
            directions = jacobian_products(layers_below(encoder, task.first), rows, directions)
        found[part] = directions
    if columns.is_standardized:
        found /= columns.scale.astype(found.dtype)
    found *= length
    position = torch.full((len(task.labelled),), -1)
    position[needed] = torch.arange(len(found))
    rows = make_rows(found.reshape(len(found), -1), dtype=place.dtype, device=place.device)
    return rows, position.to(place.device)
