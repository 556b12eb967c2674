"""Stacks: layers of any kind, one on the codes of the other.

Each layer has parameters of its own, which lie together in the stack's vector under the layer's
prefix, and an encoder and a decoder as functions of them. With z_l the columns that layer l sees,
h_0 = x and d_l its decoder,

    encode:  z_l = (h_l - shift_l) / scale_l,   h_{l+1} = encode_l(z_l)
    decode:  h_l = mean_l(d_l(h_{l+1})) * scale_l + shift_l,   l = L-1 .. 1;   a = d_0(h_1)

Rows come standardised for the lowest layer, and ``a`` is the pre-activation of its output units.

The criterion of a stack that is unrolled into one deep auto-encoder.

Hinton & Salakhutdinov 2006: after pre-training, encoders and, in reverse order, decoders form one
network, all of which is trained on the reconstruction of the data.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch

from skae.engine.networks.affine_maps import AffineChain, decoder_maps, encoder_maps
from skae.engine.networks.objectives import gradient_by_autograd


class Level(NamedTuple):
    """One layer of a stack, as functions of its own parameters.

    Attributes
    ----------
    prefix : str
        Of the names of its parameters in the stack's.
    encode : callable
        (theta of the layer, z) -> code, differentiable.
    decode : callable
        (theta of the layer, code) -> pre-activation of the layer's input units.
    units : object of `skae.engine.networks.units`
        Of the layer's input.
    shift, scale : Tensor of shape (n_inputs,), or None
        Of the layer's input; None where it is taken as it is.
    encoder, decoder : tuple of AffineMap, or None
        Both as affine maps and activations, from the input and from the code on; None where they
        are anything else, which only autograd can follow.
    """

    prefix: str
    encode: Callable
    decode: Callable
    units: object
    shift: torch.Tensor | None = None
    scale: torch.Tensor | None = None
    encoder: tuple | None = None
    decoder: tuple | None = None

    def standardized(self, code):
        """What the layer sees of the code below."""
        return code if self.scale is None else (code - self.shift) / self.scale

    def mean(self, a):
        """The code below, as the layer's output units reconstruct it."""
        mean = self.units.mean(a)
        return mean if self.scale is None else mean * self.scale + self.shift


def encode_levels(theta, x, levels):
    """The codes of every layer, from the lowest up.

    Parameters
    ----------
    theta : Parameters
    x : Tensor of shape (n_samples, n_features)
        As the lowest layer sees it.
    levels : sequence of Level

    Returns
    -------
    codes : list of Tensor
    """
    codes = []
    for number, level in enumerate(levels):
        x = x if number == 0 else level.standardized(x)
        x = level.encode(theta.part(level.prefix), x)
        codes.append(x)
    return codes


def decode_levels(theta, code, levels):
    """Pre-activation of the lowest layer's output units, from the code of the last level.

    Parameters
    ----------
    theta : Parameters
    code : Tensor of shape (n_samples, n_components)
    levels : sequence of Level

    Returns
    -------
    output : Tensor of shape (n_samples, n_features)
    """
    for number, level in reversed(list(enumerate(levels))):
        output = level.decode(theta.part(level.prefix), code)
        if number == 0:
            return output
        code = level.mean(output)


class Layerwise:
    """Sum over layers of each one's own criterion, on the codes of the layer below.

    The codes are constant in the gradient: every layer learns at the same time, and each by its
    own rule alone.

    Parameters
    ----------
    levels : sequence of Level
    objectives : sequence
        The criterion of each, from `skae.engine.networks.objectives` and its relatives.
    """

    def __init__(self, levels, objectives):
        self.levels, self.objectives = levels, objectives

    @property
    def reports_loss(self):
        """Whether `gradient` returns the criterion."""
        return all(objective.reports_loss for objective in self.objectives)

    @property
    def is_noisy(self):
        """Whether `criterion` depends on the generator."""
        return any(objective.is_noisy for objective in self.objectives)

    @property
    def offset(self):
        """The part of the criterion that no parameter changes."""
        return sum(objective.offset for objective in self.objectives)

    @property
    def state(self):
        """The states of all layers' objectives, their names prefixed."""
        return {
            level.prefix + name: value
            for level, objective in zip(self.levels, self.objectives, strict=True)
            for name, value in objective.state.items()
        }

    @state.setter
    def state(self, state):
        for level, objective in zip(self.levels, self.objectives, strict=True):
            objective.state = {
                name.removeprefix(level.prefix): value
                for name, value in state.items()
                if name.startswith(level.prefix)
            }

    def value(self, theta, x, generator, row_weight=None):
        """The sum of the layers' values on one batch, a scalar."""
        return sum(
            objective.value(theta.part(level.prefix), z, generator, row_weight)
            for level, objective, z in self._inputs(theta, x)
        )

    def criteria(self, theta, x, generator, row_weight=None):
        """The criterion of every layer, a list of scalars."""
        return [
            objective.criterion(theta.part(level.prefix), z, generator, row_weight)
            for level, objective, z in self._inputs(theta, x)
        ]

    def criterion(self, theta, x, generator, row_weight=None):
        """The sum of the layers' criteria, a scalar."""
        return sum(self.criteria(theta, x, generator, row_weight))

    def gradient(self, theta, x, generator, out, row_weight=None):
        """Write the gradient of `value` into ``out``; return the value, where it is reported."""
        total = 0.0
        for level, objective, z in self._inputs(theta, x):
            part, gradient = theta.part(level.prefix), out.part(level.prefix)
            value = objective.gradient(part, z, generator, gradient, row_weight)
            total = total + value if objective.reports_loss else total
        return total

    def _inputs(self, theta, x):
        """Each layer's level, objective and input, which no gradient goes through."""
        last = len(self.levels) - 1
        for number, (level, objective) in enumerate(zip(self.levels, self.objectives, strict=True)):
            x = x if number == 0 else level.standardized(x)
            yield level, objective, x
            if number < last:
                with torch.no_grad():
                    x = level.encode(theta.part(level.prefix), x)


class UnrolledReconstruction:
    """mean_i -log P(x_i | r(x_i)), r through all layers up and down.

    Parameters
    ----------
    levels : sequence of Level
    """

    reports_loss = True
    is_noisy = False

    def __init__(self, levels):
        self.levels, self.units, self.state = levels, levels[0].units, {}
        up, down = encoder_maps(levels), decoder_maps(levels)
        self._chain = AffineChain(up + down) if up and down else None

    @property
    def offset(self):
        """The part of the value that no parameter changes."""
        return self.units.offset

    @property
    def has_closed_form(self):
        """Whether `gradient` needs no autograd."""
        return self._chain is not None

    def value(self, theta, x, generator, row_weight=None):
        """The criterion on one batch.

        Parameters
        ----------
        theta : Parameters
        x : Tensor of shape (n_samples, n_features)
        generator : torch.Generator
            Not used.
        row_weight : Tensor of shape (n_samples,), default=None
            Sample weights, of mean 1 over the whole training set.

        Returns
        -------
        value : Tensor, a scalar
        """
        output = decode_levels(theta, encode_levels(theta, x, self.levels)[-1], self.levels)
        loss = self.units.negative_log_likelihood(output, x)
        return loss.mean() if row_weight is None else (loss * row_weight).mean()

    criterion = value

    def gradient(self, theta, x, generator, out, row_weight=None):
        """Write the gradient of `value` into ``out``; return the value, detached."""
        if self.has_closed_form:
            return self.value_and_gradient(theta, x, generator, out, row_weight)
        return gradient_by_autograd(self.value, theta, x, generator, out, row_weight)

    def value_and_gradient(self, theta, x, generator, out, row_weight=None):
        """The same by backpropagation through affine maps, without autograd."""
        self._chain.clear_others_(out)
        scale = 1.0 / len(x)
        output = self._chain.forward(theta, x)
        column_weight = None if row_weight is None else row_weight.unsqueeze(1).expand_as(x)
        value, residual = self.units.value_and_residual_(output, x, column_weight, scale)
        self._chain.backward_(theta, residual, out, scale)
        share = 1.0 if row_weight is None else row_weight.mean()
        return value + share * self.offset
