"""The layers of a stack: how they are chosen, and what must hold before any is trained."""

import copy
from collections.abc import Sequence
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator

from skae._validation import HasMethods, Interval, Registered, StrOptions, make_generator
from skae._warnings import of_layer
from skae.engine.networks.units import UNITS
from skae.engine.optimisation.devices import Place
from skae.estimators.auto_encoders import AutoEncoder
from skae.estimators.face.layer_sizes import checked_sizes, number_of, sizes_of_layers
from skae.estimators.face.outcomes import some_rows
from skae.estimators.face.parameters import estimator, parameter
from skae.estimators.face.transformer import (
    LAYERS,
    Transformer,
    as_if_fitted,
)
from skae.estimators.stacks.continuing import choice_of, continued, sizes_of
from skae.estimators.stacks.lowest_layer import shared_by_layers

_DEFAULT_SIZES = (256, 256)
# How one layer at a time may be trained, and how by a gradient through its codes.
_MODES = ("unsupervised", "supervised", "partly_supervised", None)
_BY_GRADIENT = ("supervised", "partly_supervised", "simultaneous")
# Made-up codes that tell what the model of a layer will be.
_TRIAL_ROWS, _TRIAL_NUMBERS = 500, 2**22
_ANYWHERE = Place(torch.float32, torch.device("cpu"))


@estimator
class StackParameters:
    """Which layers a stack has and how they are pre-trained: parameters of its constructor."""

    layer_sizes: Sequence[int] | int | None = parameter(
        default=None,
        constraints=[Interval(Integral, 1, None, closed="left"), "array-like", None],
        kind="tuple of int, int or None",
        doc="Numbers of units, from the data upwards. None: (256, 256), or those of ``layers``.",
        kw_only=False,
    )
    layer: str | Transformer = parameter(
        default="denoising",
        constraints=[Registered(LAYERS), HasMethods(["fit", "transform"])],
        kind='{"auto", "denoising", "contractive", "rbm", "psd"} or estimator',
        doc="""Kind of every layer: a name, or an estimator of which each layer is a copy with its
        number of units, so that ``layer__contraction`` is a parameter of all. "auto" is the
        plain auto-encoder. Layers chosen by name take ``batch_size``, ``device``, ``verbose`` and
        ``max_iter``, where it is a number, from the stack, and are else the class's default.""",
    )
    layers: Sequence | None = parameter(
        default=None,
        constraints=[list, tuple, None],
        kind="list of estimators or None",
        doc="""The layers themselves, instead of ``layer_sizes`` and ``layer``: auto-encoders of any
        kind, RBM, PSD, SparseCoder or a family of your own. The parameters of the first are
        ``layers__0__contraction`` and the like.""",
    )
    pretraining: str | Sequence | None = parameter(
        default="unsupervised",
        constraints=[
            StrOptions({"unsupervised", "supervised", "partly_supervised", "simultaneous"}),
            StrOptions({"prefit"}),
            list,
            tuple,
            None,
        ],
        kind="str, list of str or None",
        doc="""How the layers are trained before the whole:

        - "unsupervised": one after the other, each on the codes of the one below, by its own
          ``fit``;
        - "supervised": one after the other, each through a temporary output layer that predicts
          y from its codes, by the layer's own parameters of training;
        - "partly_supervised": the same on the sum of both criteria;
        - "simultaneous": all at once, each by its own criterion and optimiser, on the codes that
          the one below has at that step, for ``max_iter`` epochs;
        - "prefit": ``layers`` are fitted and taken as they are. To survive `clone`, as in a grid
          search, wrap each in :class:`sklearn.frozen.FrozenEstimator`;
        - None: not at all, random weights.

        A list has one of "unsupervised", "supervised", "partly_supervised" and None for each
        layer.""",
    )
    supervision: float = parameter(
        default=1.0,
        constraints=[Interval(Real, 0, None, closed="neither")],
        doc="""Weight of the supervised criterion in "partly_supervised" pre-training, where that of
        the layer's own is 1.""",
    )


def make_layers(stack, X, data, *, top_activation=None, learned=None):
    """New estimators for all layers of a stack, and what each of them is, or will be: a `Model`.

    All is checked before any of them is trained; a ValueError tells of layers that cannot be
    stacked, or not be trained as the parameters say. With ``pretraining="prefit"`` layers are the
    fitted ones that were given. ``X`` are the rows as the user passed them, ``data`` the same
    checked. ``top_activation`` is of the top layer, where it is not that of the others. Where
    ``learned`` layers go on, models are theirs.
    """
    of_sizes = stack.layers is None
    layers = (_layers_of_sizes if of_sizes else _given_layers)(stack, top_activation)
    modes = modes_of(stack, len(layers))
    for layer in layers:
        layer._check_parameters()
    if stack.pretraining == "prefit":
        return layers, _models_of_fitted(layers)
    generator = make_generator(stack.random_state, torch.device("cpu"))
    for layer in layers[1:]:
        layer.set_params(categorical_features="from_dtype", numbers="auto")
    seeds = torch.randint(2**31 - 1, (len(layers),), generator=generator).tolist()
    for layer, seed in zip(layers, seeds, strict=True):
        if layer.random_state is None:
            layer.random_state = seed
    if learned is not None and _kinds_of(learned) == _kinds_of(layers):
        models = models_of(continued(learned, layers, False), _ANYWHERE)
    else:
        models = _models_to_be(stack, layers, X, data)
    for number, (layer, model) in enumerate(zip(layers, models, strict=True)):
        if model.optimizer is not None and modes[number] != "unsupervised":
            raise ValueError(
                f"Layer {number} is a {type(layer).__name__}, which learns by its own fit alone: "
                f"pretraining={stack.pretraining!r} is not for it. Use 'unsupervised', or another "
                "kind of layer."
            )
    trained = [number for number, mode in enumerate(modes) if mode in _BY_GRADIENT]
    require_gradients(layers, models, trained, f"pretraining={stack.pretraining!r}")
    return layers, models


def modes_of(stack, n_layers):
    """How each layer is pre-trained, a list of names or None."""
    if stack.pretraining is None or isinstance(stack.pretraining, str):
        return [stack.pretraining] * n_layers
    modes = list(stack.pretraining)
    if len(modes) != n_layers or any(mode not in _MODES for mode in modes):
        raise ValueError(
            f"pretraining={stack.pretraining!r} must be one name, or one of "
            f"{', '.join(map(repr, _MODES))} for each of the {n_layers} layers."
        )
    return modes


def needs_targets(stack):
    """Whether a layer is pre-trained on targets."""
    modes = stack.pretraining
    modes = modes if isinstance(modes, list | tuple) else [modes]
    return "supervised" in modes or "partly_supervised" in modes


def require_gradients(layers, models, numbers, purpose):
    """Raise a ValueError if no gradient can go through the codes of layers of these numbers.

    ``purpose`` is what needs gradients, for the message.
    """
    for number in numbers:
        if models[number].no_gradient is not None:
            raise ValueError(
                f"Layer {number} ({type(layers[number]).__name__}) has no part in {purpose}, which "
                f"needs a gradient through its codes: {models[number].no_gradient}."
            )


def number_of_code(stack, n_layers):
    """The number, from 0, of the layer whose codes a stack returns; ValueError without one."""
    return number_of("code_layer", stack.code_layer, n_layers)


def models_of(layers, place):
    """The `Model` of every fitted layer."""
    return [layer._model(place) for layer in layers]


def weights_of(layers, first=0):
    """What layers have learned, by the number of each in its stack and the name of the weight."""
    return {
        f"{number}.{name}": array
        for number, layer in enumerate(layers, first)
        for name, array in layer.weights_.items()
    }


def with_weights(layers, weights, first=0):
    """Copies of layers that have learned other weights, named as `weights_of` names them."""
    copies = [copy.copy(layer) for layer in layers]
    for number, layer in enumerate(copies, first):
        prefix = f"{number}."
        layer.weights_ = {
            name.removeprefix(prefix): array
            for name, array in weights.items()
            if name.startswith(prefix)
        }
    return copies


def _given_layers(stack, top_activation):
    if top_activation is not None:
        raise ValueError(
            "code_activation is for layers that are made by their sizes: with layers=[...], "
            "set the activation of the last one."
        )
    layers = [_unfrozen(layer, f"layers[{number}]") for number, layer in enumerate(stack.layers)]
    if not layers:
        raise ValueError("layers=[] has no layer: a stack needs at least one.")
    if stack.layer_sizes is not None and sizes_of(layers) != _sizes(stack):
        raise ValueError(
            f"layer_sizes={_sizes(stack)} contradicts layers, which have {sizes_of(layers)} "
            "components. Leave layer_sizes at None where layers are given."
        )
    return layers if stack.pretraining == "prefit" else [clone(layer) for layer in layers]


def _layers_of_sizes(stack, top_activation):
    if stack.pretraining == "prefit":
        raise ValueError("pretraining='prefit' needs fitted estimators: layers=[...].")
    sizes = checked_sizes("layer_sizes", _sizes(stack))
    if isinstance(stack.layer, str):
        layer = LAYERS[stack.layer](**shared_by_layers(stack))
    else:
        layer = _unfrozen(stack.layer, "layer")
    layers = [clone(layer) for _ in sizes]
    if top_activation is not None:
        layers[-1] = _with_activation(layers[-1], top_activation)
    for layer, size in zip(layers, sizes, strict=True):
        layer.set_params(n_components=size)
    return layers


def _with_activation(layer, activation):
    """The layer, or an auto-encoder in its place where it cannot have the activation."""
    legal = layer._parameter_constraints.get("activation", ())
    if not any(isinstance(choice, StrOptions) and activation in choice.options for choice in legal):
        layer = AutoEncoder(**shared_by_layers(layer))
    return layer.set_params(activation=activation)


def _unfrozen(layer, where):
    """A layer as it was given, out of its FrozenEstimator; ValueError if it is none of ours."""
    if isinstance(layer, FrozenEstimator):
        layer = layer.estimator
    if not isinstance(layer, Transformer) or hasattr(layer, "layers"):
        kind = f"the class {layer.__name__}" if isinstance(layer, type) else repr(layer)
        raise ValueError(
            f"{where} is {kind}, but a stack is made of instances of AutoEncoder, "
            "DenoisingAutoEncoder, ContractiveAutoEncoder, RBM, PSD and SparseCoder."
        )
    return layer


def _sizes(stack):
    """The numbers of units that were asked for."""
    return sizes_of_layers(_DEFAULT_SIZES if stack.layer_sizes is None else stack.layer_sizes)


def _kinds_of(layers):
    return [(type(layer), layer.n_components) for layer in layers]


def _models_of_fitted(layers):
    models = []
    for number, layer in enumerate(layers):
        if not hasattr(layer, "weights_"):
            raise ValueError(
                f"pretraining='prefit', but layer {number} ({type(layer).__name__}) is not fitted. "
                "Fit it first; where the stack is cloned, as in a grid search, wrap it in "
                "sklearn.frozen.FrozenEstimator."
            )
        if number > 0:
            _check_choice(layer, number)
            if choice_of(layer) != "auto" and not _takes_codes_of(models[-1], layer.columns_):
                raise _misfit(layers, number)
            if layer.n_features_in_ != models[-1].n_codes:
                raise ValueError(
                    f"Layer {number} was fitted on {layer.n_features_in_} features, but layer "
                    f"{number - 1} gives {models[-1].n_codes}. The numbers must agree."
                )
        models.append(layer._model(_ANYWHERE))
    return models


def _models_to_be(stack, layers, X, data):
    """What each layer will be, from some of the rows and made-up codes."""
    draws, models = np.random.default_rng(0), []
    rows, original, encoding = some_rows(data, None, _TRIAL_ROWS), X, stack.encoding_
    for number, layer in enumerate(layers):
        if number > 0:
            _check_choice(layer, number)
            width = models[-1].n_codes
            n_rows = max(2, min(_TRIAL_ROWS, _TRIAL_NUMBERS // width))
            # Some are exactly 0 and 1: in [0, 1] is where "auto" takes codes to be Bernoulli.
            codes = draws.random((n_rows, width), dtype=np.float32)
            rows = original = np.clip(1.5 * codes - 0.25, 0, 1)
            encoding = None
        with of_layer(number):
            trial = as_if_fitted(layer, rows, original, encoding)
        if number > 0 and not _takes_codes_of(models[-1], trial.columns_):
            if choice_of(layer) != "auto":
                raise _misfit(layers, number)
            # Codes that happen to lie in [0, 1] today need not do so tomorrow.
            setattr(layer, layer._loss_parameter, "gaussian")
            trial = as_if_fitted(layer, rows, original, encoding)
        elif number > 0 and choice_of(layer) == "auto":
            # Codes are what a layer below makes, whatever numbers they are: where these decide,
            # they are of the units that they can be of.
            with of_layer(number):
                blind = as_if_fitted(layer, codes, codes)
            if blind.columns_.parts[0][0] != trial.columns_.parts[0][0]:
                setattr(layer, layer._loss_parameter, trial.columns_.parts[0][0])
        models.append(trial._model(_ANYWHERE))
    return models


def _check_choice(layer, number):
    """Raise a ValueError for units that codes cannot be of."""
    choice, parameter_name = choice_of(layer), layer._loss_parameter
    if not isinstance(choice, str) or (choice in UNITS and UNITS[choice].sums_to_one):
        raise ValueError(
            f"Layer {number} ({type(layer).__name__}) has {parameter_name}={choice!r}, which is "
            f"for columns of data; the codes of layer {number - 1} are of one kind. Use "
            f"{parameter_name}='auto'."
        )


def _takes_codes_of(model, columns):
    """Whether the codes of a model lie in the domain of columns, whatever the data."""
    least, most = model.code_range
    for name, _ in columns.parts:
        low, high = UNITS[name].domain or model.code_range
        if least < low or high < most:
            return False
    return True


def _misfit(layers, number):
    layer, below = layers[number], layers[number - 1]
    name = layer._loss_parameter
    return ValueError(
        f"Layer {number} ({type(layer).__name__}) has {name}={choice_of(layer)!r}, but the codes "
        f"of layer {number - 1} ({below}) are not bound to [0, 1]. Choose {name}='gaussian' for "
        f"layer {number}, or a layer {number - 1} of sigmoid units."
    )
