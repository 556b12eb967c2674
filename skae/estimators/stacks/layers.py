"""The layers of a stack: how they are chosen, and what must hold before any is trained."""

import copy
from numbers import Integral, Real

import torch
from sklearn.base import clone

from skae._validation import HasMethods, Interval, StrOptions, make_generator
from skae.engine.stacks.stacking import Level
from skae.estimators.auto_encoders import (
    AutoEncoder,
    ContractiveAutoEncoder,
    DenoisingAutoEncoder,
)
from skae.estimators.boltzmann.rbm import RBM
from skae.estimators.face.parameters import estimator, parameter
from skae.estimators.sparse.coder import SparseCoder
from skae.estimators.sparse.psd import PSD
from skae.estimators.stacks.checks import (
    check_input,
    check_prefit,
    require_gradients,
    unfrozen,
)

LAYERS = {
    "auto": AutoEncoder,
    "denoising": DenoisingAutoEncoder,
    "contractive": ContractiveAutoEncoder,
    "rbm": RBM,
    "psd": PSD,
}
_DEFAULT_SIZES = (256, 256)
# How one layer at a time may be trained.
_MODES = ("unsupervised", "supervised", "partly_supervised", None)


@estimator
class StackParameters:
    """Constructor parameters that say which layers a stack has and how they are pre-trained."""

    layer_sizes: tuple = parameter(
        default=None,
        constraints=[Interval(Integral, 1, None, closed="left"), "array-like", None],
        doc="""tuple of int, int or None
        Numbers of units, from the data upwards. None: (256, 256), or those of ``layers``.""",
        kw_only=False,
    )
    layer: str = parameter(
        default="denoising",
        constraints=[StrOptions(set(LAYERS)), HasMethods(["fit", "transform"])],
        doc="""{"auto", "denoising", "contractive", "rbm", "psd"} or estimator
        Kind of every layer: a name, or an estimator of which each layer is a copy with its
        number of units, so that ``layer__contraction`` is a parameter of all. "auto" is the
        plain auto-encoder. Layers chosen by name take ``batch_size``, ``max_iter``, ``device``
        and ``verbose`` from the stack, and are else the class's default.""",
    )
    layers: list = parameter(
        default=None,
        constraints=[list, tuple, None],
        doc="""list of estimators or None
        The layers themselves, instead of ``layer_sizes`` and ``layer``: auto-encoders of any
        kind, RBM, PSD or SparseCoder. The parameters of the first are
        ``layers__0__contraction`` and the like.""",
    )
    pretraining: str = parameter(
        default="unsupervised",
        constraints=[
            StrOptions({"unsupervised", "supervised", "partly_supervised", "simultaneous"}),
            StrOptions({"prefit"}),
            list,
            tuple,
            None,
        ],
        doc="""str, list of str or None
        How the layers are trained before the whole:

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
        doc="""float
        Weight of the supervised criterion in "partly_supervised" pre-training, where that of
        the layer's own is 1.""",
    )

    def get_params(self, deep=True):
        """Parameters of this estimator and of its layers.

        Parameters
        ----------
        deep : bool, default=True
            Whether to include those of the layers, as ``layers__0__contraction``.

        Returns
        -------
        params : dict
        """
        params = super().get_params(deep=deep)
        if deep and isinstance(self.layers, list | tuple):
            for number, layer in enumerate(self.layers):
                params[f"layers__{number}"] = layer
                if hasattr(layer, "get_params") and not isinstance(layer, type):
                    for name, value in layer.get_params().items():
                        params[f"layers__{number}__{name}"] = value
        return params

    def set_params(self, **params):
        """Set parameters of this estimator or, as ``layers__0__contraction``, of its layers.

        Parameters
        ----------
        **params : dict
            Names and values.

        Returns
        -------
        self : object
            The estimator.
        """
        own = {name: value for name, value in params.items() if not name.startswith("layers__")}
        super().set_params(**own)
        for name in sorted(set(params) - set(own), key=len):
            number, _, below = name.removeprefix("layers__").partition("__")
            if not number.isdigit() or int(number) >= len(self.layers or ()):
                raise ValueError(
                    f"{name!r} is no parameter of this {type(self).__name__}, which has "
                    f"{len(self.layers or ())} layers in its parameter layers."
                )
            layers = list(self.layers)
            if below:
                layers[int(number)].set_params(**{below: params[name]})
            else:
                layers[int(number)] = params[name]
            self.layers = layers
        return self

    @property
    def _sizes(self):
        """The numbers of units that were asked for, or None."""
        if self.layer_sizes is None:
            return None if self.layers is not None else _DEFAULT_SIZES
        sizes = self.layer_sizes
        return (int(sizes),) if isinstance(sizes, Integral) else tuple(sizes)

    def _make_layers(self):
        """New estimators for all layers, checked as far as that is possible without data."""
        if self.layers is not None:
            if self._top_activation is not None:
                raise ValueError(
                    "code_activation is for layers that are made by their sizes: with layers=[...],"
                    " set the activation of the last one."
                )
            layers = [unfrozen(layer, number) for number, layer in enumerate(self.layers)]
            if self.pretraining != "prefit":
                layers = [clone(layer) for layer in layers]
        else:
            if self.pretraining == "prefit":
                raise ValueError("pretraining='prefit' needs fitted estimators: layers=[...].")
            sizes = self._checked_sizes()
            layers = [self._make_layer(size) for size in sizes[:-1]]
            layers.append(self._make_layer(sizes[-1], self._top_activation))
        self._check_layers(layers)
        if self.pretraining == "prefit":
            return layers
        seeds = _seeds(self.random_state, len(layers))
        for layer, below, seed in zip(layers, [None, *layers], seeds, strict=False):
            if layer.random_state is None:
                layer.set_params(random_state=seed)
            unbounded = below is not None and not below._codes_in_unit_interval
            if unbounded and layer._loss_choice == "auto":
                # Codes that happen to lie in [0, 1] today need not do so tomorrow.
                layer.set_params(**{layer._loss_parameter: "gaussian"})
        return layers

    def _checked_sizes(self):
        sizes = self._sizes
        if not sizes or any(not isinstance(n, Integral) or n < 1 for n in sizes):
            raise ValueError(
                f"layer_sizes={self.layer_sizes!r} must be integers of at least 1, one for each "
                "layer."
            )
        return sizes

    # The activation of the top layer, where it is not that of the others.
    _top_activation = None

    def _make_layer(self, size, activation=None):
        if isinstance(self.layer, str):
            layer = LAYERS[self.layer](**shared_by_layers(self))
        else:
            layer = clone(unfrozen(self.layer, 0, "layer"))
        if activation is not None:
            if not isinstance(layer, AutoEncoder):
                layer = AutoEncoder(**shared_by_layers(layer))
            layer.set_params(activation=activation)
        return layer.set_params(n_components=int(size))

    def _check_layers(self, layers):
        """Raise a ValueError for layers that cannot be stacked, and what to change."""
        if not layers:
            raise ValueError("layers=[] has no layer: a stack needs at least one.")
        sizes = self._sizes
        if self.layers is not None and sizes is not None:
            own = tuple(layer.n_components for layer in layers)
            if own != sizes:
                raise ValueError(
                    f"layer_sizes={sizes} contradicts layers, which have {own} components. Leave "
                    "layer_sizes at None where layers are given."
                )
        modes = self._modes(len(layers))
        for number, layer in enumerate(layers):
            layer._validate_parameters()
            if number > 0:
                check_input(layer, number, layers[number - 1])
            if isinstance(layer, SparseCoder) and modes[number] not in ("unsupervised", "prefit"):
                raise ValueError(
                    f"Layer {number} is a SparseCoder, which learns by its own fit alone: "
                    f"pretraining={self.pretraining!r} is not for it. Use 'unsupervised', or a PSD."
                )
        by_gradient = ("supervised", "partly_supervised", "simultaneous")
        trained = [
            layer if mode in by_gradient else None
            for layer, mode in zip(layers, modes, strict=True)
        ]
        require_gradients(trained, f"pretraining={self.pretraining!r}")
        if self.pretraining == "prefit":
            check_prefit(layers)

    def _modes(self, n_layers):
        """How each layer is pre-trained."""
        if self.pretraining is None or isinstance(self.pretraining, str):
            return [self.pretraining] * n_layers
        modes = list(self.pretraining)
        if len(modes) != n_layers or any(mode not in _MODES for mode in modes):
            raise ValueError(
                f"pretraining={self.pretraining!r} must be one name, or one of "
                f"{', '.join(map(repr, _MODES))} for each of the {n_layers} layers."
            )
        return modes

    @property
    def _needs_targets(self):
        one = self.pretraining is None or isinstance(self.pretraining, str)
        modes = [self.pretraining] if one else [*self.pretraining]
        return any(mode in ("supervised", "partly_supervised") for mode in modes)


def continued(layers, new, is_prefit):
    """Copies of fitted layers that go on with the parameters that new ones have.

    Parameters
    ----------
    layers : list of estimators
        Fitted.
    new : list of estimators
        As the stack's parameters would make them today.
    is_prefit : bool
        Whether the new ones are fitted themselves, and say nothing.

    Raises
    ------
    ValueError
        If there are other numbers of layers or of units than before.
    """
    layers = [copy.copy(layer) for layer in layers]
    if is_prefit:
        return layers
    sizes = [[layer.n_components for layer in part] for part in (layers, new)]
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"The layers of this stack have {sizes[0]} components, but its parameters ask for "
            f"{sizes[1]} now. Set them back, or call fit with warm_start=False."
        )
    for layer, other in zip(layers, new, strict=True):
        if type(layer) is type(other):
            # What a fit has settled stays: units, and whether weights are tied.
            settled = ("random_state", "tied_weights", "warm_start", layer._loss_parameter)
            for name, value in other.get_params(deep=False).items():
                if name not in settled:
                    setattr(layer, name, value)
    return layers


def shared_by_layers(model):
    """The parameters that say how training runs, not what is learned."""
    names = ("batch_size", "max_iter", "device", "verbose")
    return {name: getattr(model, name) for name in names}


def make_levels(layers, first, dtype, device, *, differentiable):
    """What the engine needs to know of fitted layers.

    Parameters
    ----------
    layers : list of estimators
    first : int
        Number of the first of them in its stack, from which the prefixes follow.
    dtype, device : of the constants
    differentiable : bool
        Whether autograd shall be able to follow the codes.

    Returns
    -------
    levels : list of Level
    """
    levels = []
    for number, layer in enumerate(layers, first):
        shift, scale = layer.columns_.standardization(dtype, device)
        levels.append(
            Level(
                f"{number}.",
                layer._differentiable_code if differentiable else layer._encode,
                layer._decode,
                layer.columns_.units(device),
                shift,
                scale,
                layer._affine_encoder,
                layer._affine_decoder,
            )
        )
    return levels


def _seeds(random_state, n_layers):
    generator = make_generator(random_state, torch.device("cpu"))
    return torch.randint(2**31 - 1, (n_layers,), generator=generator).tolist()
