"""Encoders and decoders as functions of (parameters, input).

A network is a description; its weights live in a `Parameters` vector. Every weight
matrix is stored with one row for each unit of the layer nearer to the code, so that
encoder and decoder have the same shape and tying them is using one for both:

    encode:  h_0 = x,   h_{l+1} = s(h_l W_l^T + b_l)
    decode:  g_L = h_L, g_l = s(g_{l+1} V_l + c_l),  l = L-1 .. 1;  a = g_1 V_0 + c_0

with V_l = W_l where the weights are tied. ``a`` is the pre-activation of the output;
what it means is up to the output units (`skae.engine.networks.units`).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch.nn import functional

from skae.engine.optimisation.registry import Registry


def softplus(p):
    """log(1 + exp(p)); torch's own turns linear at 20, where 2e-9 is still missing."""
    return functional.softplus(p, threshold=80.0)


class Activation(NamedTuple):
    """An elementwise non-linearity h = s(p), with derivatives as functions of h.

    ``slope(h)`` is s'(p) and ``curvature(h, slope)`` is s''(p), which is linear in its
    second argument: ``curvature(h, slope * v)`` is s''(p) v. Both are differentiable in
    h, so the same lines serve autograd and the closed forms.
    ``function_`` works in place where torch can. ``gain`` scales the initial weights of
    one layer, ``deep_gain`` those of several. Outputs lie in ``range``. Users choose it by its
    ``name``.
    """

    name: str
    summary: str
    function: Callable
    function_: Callable
    slope: Callable
    curvature: Callable
    gain: float
    deep_gain: float
    range: tuple[float, float] = (-math.inf, math.inf)


ACTIVATIONS = Registry()
activation = ACTIVATIONS.register

activation(
    # Glorot's 4 makes up for the slope of 1/4 at 0, without which signals die out within
    # three layers. One layer does better without it: standardised columns would saturate
    # its units from the start, and the output has no such slope.
    Activation(
        "sigmoid",
        "1 / (1 + exp(-p)), between 0 and 1",
        torch.sigmoid,
        torch.sigmoid_,
        lambda h: torch.addcmul(h, h, h, value=-1),
        lambda h, slope: torch.addcmul(slope, slope, h, value=-2),
        1.0,
        4.0,
        (0.0, 1.0),
    )
)
activation(
    Activation(
        "tanh",
        "the hyperbolic tangent, between -1 and 1",
        torch.tanh,
        torch.tanh_,
        lambda h: 1 - h * h,
        lambda h, slope: -2 * h * slope,
        1.0,
        1.0,
        (-1.0, 1.0),
    )
)
activation(
    Activation(
        "relu",
        "max(p, 0)",
        torch.relu,
        torch.relu_,
        lambda h: (h > 0).to(h.dtype),
        lambda h, slope: torch.zeros_like(h),
        math.sqrt(2.0),
        math.sqrt(2.0),
        (0.0, math.inf),
    )
)
activation(
    Activation(
        "softplus",
        "log(1 + exp(p)), a smooth relu",
        softplus,
        softplus,
        lambda h: -torch.expm1(-h),
        lambda h, slope: slope * torch.exp(-h),
        2.0,
        2.0,
        (0.0, math.inf),
    )
)
activation(
    Activation(
        "linear",
        "p itself",
        lambda p: p,
        lambda p: p,
        torch.ones_like,
        lambda h, slope: torch.zeros_like(h),
        1.0,
        1.0,
    )
)


@dataclass(frozen=True)
class Network:
    """The shape of an auto-encoder: layer sizes, activation, tied weights or not.

    Parameters
    ----------
    layer_sizes : tuple of int
        From the number of features to the number of components.
    activation : str
        A key of `ACTIVATIONS`, for every layer but the output.
    tied : bool
        Whether the decoder uses the encoder's weights.
    """

    layer_sizes: tuple
    activation: str = "sigmoid"
    tied: bool = True

    @property
    def depth(self):
        """Number of layers of the encoder."""
        return len(self.layer_sizes) - 1

    @property
    def nonlinearity(self):
        """The activation's functions."""
        return ACTIVATIONS[self.activation]

    @property
    def parameter_shapes(self):
        """Name and shape of each parameter, as `Parameters` takes them."""
        shapes = {}
        for level, (below, above) in enumerate(
            zip(self.layer_sizes[:-1], self.layer_sizes[1:], strict=True)
        ):
            shapes[f"weight_{level}"] = (above, below)
            if not self.tied:
                shapes[f"decoder_weight_{level}"] = (above, below)
            shapes[f"hidden_bias_{level}"] = (above,)
            shapes[f"visible_bias_{level}"] = (below,)
        return shapes

    def decoder_weight(self, theta, level):
        """The weight V_level, of shape (n_above, n_below)."""
        return theta[f"weight_{level}" if self.tied else f"decoder_weight_{level}"]

    def untied_weights(self, weights):
        """The arrays of this network, tied, as those of the untied one that does the same."""
        shapes = replace(self, tied=False).parameter_shapes
        return {name: weights[name.removeprefix("decoder_")].copy() for name in shapes}

    def weight_matrices(self, theta):
        """All weight matrices, each once."""
        return [theta[name] for name in theta if "weight" in name]


def encode(theta, x, network):
    """The outputs of every layer of the encoder, the code last.

    Parameters
    ----------
    theta : Parameters
    x : Tensor of shape (n_samples, n_features)
    network : Network

    Returns
    -------
    hidden : list of Tensor, the l-th of shape (n_samples, layer_sizes[l + 1])
    """
    hidden = []
    for level in range(network.depth):
        pre = torch.addmm(theta[f"hidden_bias_{level}"], x, theta[f"weight_{level}"].t())
        x = network.nonlinearity.function(pre)
        hidden.append(x)
    return hidden


def decode(theta, code, network):
    """The decoder's hidden layers, and the output's pre-activation.

    Parameters
    ----------
    theta : Parameters
    code : Tensor of shape (n_samples, layer_sizes[-1])
    network : Network

    Returns
    -------
    decoded : list of Tensor, from the layer next to the code outwards
    output : Tensor of shape (n_samples, n_features)
    """
    decoded = []
    for level in reversed(range(network.depth)):
        weight = network.decoder_weight(theta, level)
        pre = torch.addmm(theta[f"visible_bias_{level}"], code, weight)
        if level == 0:
            return decoded, pre
        code = network.nonlinearity.function(pre)
        decoded.append(code)


def initialize_(theta, network, output_bias, generator):
    """Set the parameters with which training begins.

    Weights are uniform in +-gain * sqrt(6 / (fan_in + fan_out)) (Glorot & Bengio
    2010), hidden biases are zero, and the output's bias is given: where it makes
    the units' mean the data's mean, the first epochs need not learn it.
    """
    theta.flat.zero_()
    nonlinearity = network.nonlinearity
    gain = nonlinearity.gain if network.depth == 1 else nonlinearity.deep_gain
    for weight in network.weight_matrices(theta):
        bound = gain * math.sqrt(6.0 / sum(weight.shape))
        # Drawn in float32 for every dtype, so that both start from the same weights.
        draw = torch.empty(weight.shape, dtype=torch.float32, device=weight.device)
        weight.copy_(draw.uniform_(-bound, bound, generator=generator))
    theta["visible_bias_0"].copy_(output_bias)
