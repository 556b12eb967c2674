"""A fitted model as a short list of steps, which torch and ONNX have in common.

An encoder, a decoder, or a stack with its output is a chain of affine maps and activations, between
columns that are shifted and scaled. What is no such chain is refused, with the reason.
"""

import numpy as np
import torch

from skae._validation import check_is_fitted
from skae.engine.optimisation.devices import Place
from skae.engine.optimisation.models import FittedModel
from skae.estimators.boltzmann.deep_belief import DeepBeliefNetwork
from skae.estimators.face.transformer import Transformer
from skae.estimators.supervised.fine_tuning import fitted_model
from skae.estimators.supervised.predictors import ClassifyingStack, SupervisedStack
from skae.export.activations import ACTIVATIONS
from skae.export.kinds import Affine, Apply, Fill, Standardize, Step
from skae.export.sparse_codes import SPARSE, sparse_steps
from skae.export.tables import encoded_columns

# What can be exported of a model.
PARTS = ("encoder", "decoder", "predictor")
_CPU = Place(torch.float64, torch.device("cpu"))


def part_of(model, part: str | None) -> str:
    """The part that is asked for, or that which users of a model mostly want."""
    if not isinstance(model, Transformer | DeepBeliefNetwork | SupervisedStack):
        raise TypeError(
            f"A {type(model).__name__} cannot be exported: models with weights can, such as "
            "auto-encoders, Boltzmann machines, stacks, and what predicts on top of stacks. "
            "skae.save() writes any model to a file."
        )
    check_is_fitted(model)
    legal = PARTS[2:] if isinstance(model, SupervisedStack) else PARTS[:2]
    if part is not None and part not in legal:
        raise ValueError(
            f"part={part!r}, but a {type(model).__name__} has {' and '.join(map(repr, legal))}."
            + (" Export its stack_ for the others." if legal == PARTS[2:] else "")
        )
    return legal[0] if part is None else part


def steps_of(model, part: str) -> list[Step]:
    """The steps of a part of a fitted model, from rows in their own units, or from codes, on.

    Raises a ValueError that says why, where the part is no chain of affine maps and activations.
    """
    if part == "predictor":
        return _predictor(model)
    name = type(model).__name__
    engine = model._model(_CPU)
    is_more = isinstance(model, Transformer) and type(model).transform is not Transformer.transform
    if is_more and engine.inference is None and not isinstance(model, SPARSE):
        raise ValueError(
            f"A {name} does more with rows than its encoder: skae.save() writes it to a file."
        )
    if isinstance(model, SPARSE):
        steps, trouble = sparse_steps(model, part)
        if trouble is not None:
            _refuse(f"The {part} of this {name}", trouble)
    else:
        theta = FittedModel.of(engine, model.weights_, _CPU).theta
        maps = _encoder(engine, theta) if part == "encoder" else engine.decoder
        if maps is None or engine.inference is not None:
            _refuse(f"The {part} of this {name}", engine.inference)
        steps = _chain(theta, maps)
    if part == "encoder":
        return [*encoded_columns(model), *_seen(engine, model), *steps]
    if model.encoding_ is not None:
        raise ValueError(
            f"The decoder of this {name} makes the rows of a table, with whole numbers and the "
            "range of every column, which no module does. Export the encoder; skae.save() writes "
            "any model to a file."
        )
    steps.append(_mean(engine.units, engine.n_features, name))
    return [*steps, *_in_data_units(engine.shift, engine.scale)]


def _predictor(model):
    name, stack = type(model).__name__, model.stack_
    if model.kernel_output_ is not None:
        _refuse(f"The output of this {name}", "a kernel of rows and codes. Use output='linear'")
    engine, theta = fitted_model(model, np.zeros((1, model.n_features_in_)))
    encoder = _encoder(engine, theta)
    if encoder is None:
        _refuse(f"The encoder of the layers of this {name}", engine.inference)
    maps = [*encoder, *engine.decoder]
    steps = [*encoded_columns(stack), *_seen(engine, stack), *_chain(theta, maps)]
    kind = model._targets()
    if isinstance(model, ClassifyingStack):
        return [*steps, Apply(tuple(("softmax", columns) for columns in kind.groups))]
    return [*steps, *_in_data_units(kind.mean, kind.scale)]


def _encoder(engine, theta):
    """The encoder as affine maps, or None."""
    return engine.encoder if engine.encoder_at is None else engine.encoder_at(theta)


def _refuse(what, inference):
    but = "" if inference is None else f", but {inference}"
    raise ValueError(
        f"{what} is no chain of affine maps and activations, as exports have to be{but}. "
        "skae.save() writes any model to a file."
    )


def _seen(engine, model):
    """What the model sees of rows, which may have gaps whether those of `fit` had some or not."""
    steps: list[Step] = []
    if engine.scale is not None:
        steps.append(Standardize(_array(engine.shift), _array(engine.scale)))
    if engine.fill is not None and getattr(model, "_accepts_gaps", False):
        steps.append(Fill(_array(engine.fill)))
    return steps


def _in_data_units(shift, scale):
    """The map x -> x scale + shift."""
    if scale is None:
        return []
    shift, scale = _array(shift), _array(scale)
    return [Standardize(-shift / scale, 1 / scale)]


def _chain(theta, maps):
    """Steps of maps one after the other. The last one's activation is its own."""
    steps: list[Step] = []
    for one in maps:
        if one.gain is not None:
            gain, shift = _array(one.gain), _array(one.shift)
            steps.append(Standardize(-shift / gain, 1 / gain))
        weight, bias = _array(theta[one.weight]), _array(theta[one.bias])
        steps.append(Affine(weight.T if one.transposed else weight, bias, one))
        if one.activation.name != "linear":
            steps.append(_applied([(one.activation.name, np.arange(len(bias)))]))
    return steps


def _mean(units, n_columns, name):
    pieces = units.pieces(n_columns)
    if pieces is None:
        _refuse(f"The output of this {name}", f"the mean of {type(units).__name__} units")
    return _applied(pieces)


def _applied(pieces):
    known = sorted(ACTIVATIONS)
    for kind, _ in pieces:
        if kind not in known:
            _refuse("A model", f"has the activation {kind!r}, which is not among {known}")
    return Apply(tuple((kind, np.asarray(columns)) for kind, columns in pieces))


def _array(values):
    return torch.as_tensor(values).cpu().double().numpy()
