"""How the layers of a fitted stack go on, with the parameters of today."""

import copy

import torch

from skae.engine.optimisation.devices import Place
from skae.estimators.face.training import check_same_weights

_ANYWHERE = Place(torch.float32, torch.device("cpu"))


def continued(layers, new, is_prefit):
    """Copies of fitted layers that go on with the parameters of the new ones.

    If the latter are fitted themselves, they say nothing else. A ValueError tells of layers of
    another kind, number, units or weights than before.
    """
    layers = [copy.copy(layer) for layer in layers]
    before, now = [*sizes_of(layers)], [*sizes_of(new)]
    if before != now:
        raise ValueError(
            f"The layers of this stack have {before} components, but its parameters ask for {now} "
            "now. Set them back, or call fit with warm_start=False."
        )
    for number, (layer, other) in enumerate(zip(layers, new, strict=True)):
        unrolled = getattr(layer, "unrolled_from_", None)
        kind = unrolled or type(layer).__name__
        if kind != type(other).__name__:
            raise ValueError(
                f"Layer {number} of this stack is a {kind}, but its parameters ask for a "
                f"{type(other).__name__} now. Set them back, or call fit with warm_start=False."
            )
        if is_prefit or type(layer) is not type(other):
            continue
        if number == 0:
            layer.columns_.check_choice(choice_of(other))
        # What a fit has settled stays: units and, once unrolled, that weights are not tied.
        settled = {"random_state", "warm_start", layer._loss_parameter}
        settled |= {"tied_weights"} if unrolled else set()
        for name, value in other.get_params(deep=False).items():
            if name not in settled:
                setattr(layer, name, value)
        check_same_weights(layer, layer._model(_ANYWHERE), layer.weights_)
    return layers


def sizes_of(layers):
    """The numbers of units of layers."""
    return tuple(layer.n_components for layer in layers)


def choice_of(layer):
    """The units that a layer was told to have."""
    return getattr(layer, layer._loss_parameter)
