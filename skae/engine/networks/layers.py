"""Layers as functions of (parameters, input): networks, and affine maps one after the other.

A network is a description; its weights live in a `Parameters` vector. Every weight
matrix is stored with one row for each unit of the layer nearer to the code, so that
encoder and decoder have the same shape and tying them is using one for both:

    encode:  h_0 = x,   h_{l+1} = s(h_l W_l^T + b_l)
    decode:  g_L = h_L, g_l = s(g_{l+1} V_l + c_l),  l = L-1 .. 1;  a = g_1 V_0 + c_0

with V_l = W_l where the weights are tied. A linear decoder is one affine map whatever the depth,

    decode:  a = h_L V_0 + c_0

``a`` is the pre-activation of the output; what it means is up to the output units
(`skae.engine.networks.units`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import torch

from skae.engine.networks.activations import ACTIVATIONS, Activation
from skae.engine.networks.jacobians import LayeredJacobian
from skae.engine.networks.products import add_, add_product_, affine
from skae.engine.optimisation.devices import random_mask


@dataclass(frozen=True)
class Network:
    """The shape of an auto-encoder: layer sizes, activation, and what decodes.

    Sizes go from the number of features to the number of components; the activation, a key of
    `ACTIVATIONS`, is that of every layer but the output; where weights are ``tied``, the decoder
    uses the encoder's, which a linear one of several layers cannot. The decoder is the encoder
    mirrored, or one affine map from the code to the output if it is ``linear``. With a
    ``potential``, a row is not reconstructed as decode(encode(x)), but as `output_of` says. One
    that is ``told`` the noise of a row has one more input: see `told_of`.
    """

    layer_sizes: tuple
    activation: str = "sigmoid"
    tied: bool = True
    linear: bool = False
    potential: bool = False
    told: bool = False

    def __post_init__(self):
        if self.told and (self.tied or self.potential):
            raise ValueError("A network that is told the noise has weights of its own to decode.")
        if self.tied and len(self.decoder_sizes) < len(self.layer_sizes):
            raise ValueError("A linear decoder of several layers has weights of its own.")

    @property
    def depth(self):
        """Number of layers of the encoder."""
        return len(self.layer_sizes) - 1

    @property
    def decoder_sizes(self):
        """Sizes of the output and of the decoder's layers, up to the code."""
        return (self.layer_sizes[0], self.layer_sizes[-1]) if self.linear else self.layer_sizes

    @property
    def decoder_depth(self):
        """Number of layers of the decoder, the output included."""
        return len(self.decoder_sizes) - 1

    @property
    def nonlinearity(self):
        """The activation's functions."""
        return ACTIVATIONS[self.activation]

    @property
    def parameter_shapes(self):
        """Name and shape of each parameter, as `Parameters` takes them."""
        shapes = {}
        for level, (below, above) in enumerate(pairwise(self.layer_sizes)):
            shapes[f"weight_{level}"] = (above, below + (self.told and level == 0))
            decodes = level < self.decoder_depth
            if decodes and not self.tied:
                shapes[f"decoder_weight_{level}"] = (self.decoder_sizes[level + 1], below)
            shapes[f"hidden_bias_{level}"] = (above,)
            if decodes:
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
    """The outputs of every layer of the encoder, the code last, for x of (n_samples,
    n_features).
    """
    hidden = []
    for level in range(network.depth):
        pre = torch.addmm(theta[f"hidden_bias_{level}"], x, theta[f"weight_{level}"].t())
        x = network.nonlinearity.function(pre)
        hidden.append(x)
    return hidden


def decode(theta, code, network):
    """The decoder's hidden layers, from that next to the code outwards, and the output's
    pre-activation.
    """
    decoded = []
    for level in reversed(range(network.decoder_depth)):
        weight = network.decoder_weight(theta, level)
        pre = torch.addmm(theta[f"visible_bias_{level}"], code, weight)
        if level == 0:
            return decoded, pre
        code = network.nonlinearity.function(pre)
        decoded.append(code)


def output_of(theta, x, network):
    """The output's pre-activation for rows, decode(encode(x)) or, with a potential, r(x).

        r = r0 + J^T (x - r0),   J = dr0/dx,   r0 = decode(encode(x))

    so that, of real columns, x - r is the gradient of |x - r0(x)|^2 / 2.
    """
    if not network.potential:
        return decode(theta, encode(theta, x, network)[-1], network)[1]
    plain, jacobian = linearized(theta, x, [m for maps in affine_chains(network) for m in maps])
    return plain + jacobian.transposed_times((x - plain).unsqueeze(1))[:, 0]


def initialize_(theta, network, output_bias, generator):
    """Set the parameters with which training begins.

    Weights are uniform in +-gain * sqrt(6 / (fan_in + fan_out)) (Glorot & Bengio 2010), hidden
    biases are zero, and the output's bias is given: where it makes the units' mean the data's mean,
    the first epochs need not learn it.
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


class AffineMap(NamedTuple):
    """h -> s((gain * h + shift) W^T + b), or with W in the place of W^T.

    ``weight`` and ``bias`` are names of parameters. The matrix is ``transposed`` where it has one
    row for each *input*, as those of decoders have. ``gain`` and ``shift``, of shape (n_inputs,),
    are constants; None leaves the input as it is. While training, each input is left out with
    probability ``dropout``; those that stay are divided by 1 - dropout.
    """

    weight: str
    bias: str
    activation: Activation = ACTIVATIONS["linear"]
    transposed: bool = False
    gain: torch.Tensor | None = None
    shift: torch.Tensor | None = None
    dropout: float = 0.0


class AffineChain:
    """Maps applied in turn. The last one's activation is left to the output units.

    They may be those of several models: all tensors have an axis more then, the first.
    """

    def __init__(self, maps):
        self.maps = list(maps)
        # Backwards, the first to write a parameter's gradient need not read it.
        seen, self._begins = set(), []
        for step in reversed(self.maps):
            self._begins.insert(0, [name not in seen for name in (step.weight, step.bias)])
            seen |= {step.weight, step.bias}
        self.parameters = seen
        self._buffers, self._views, self._trace = {}, {}, None

    def clear_others_(self, out):
        """Zero the gradient of the parameters that `backward_` does not write."""
        for name in out:
            if name not in self.parameters:
                out[name].zero_()

    def forward(self, theta, x, generator=None):
        """Pre-activation of the output; with a generator, inputs drop out."""
        buffers, self._trace = self._buffers_for(theta, x.shape[-2]), []
        for level, step in enumerate(self.maps):
            code, keep = x, None
            if step.dropout > 0 and generator is not None:
                keep = random_mask(x, 1 - step.dropout, generator).to(x.dtype)
                x = x * keep.mul_(1 / (1 - step.dropout))
            if step.gain is not None:
                x = torch.addcmul(step.shift, x, step.gain)
            self._trace.append((code, keep, x))
            weight = theta[step.weight]
            weight = weight if step.transposed else weight.mT
            pre = affine(theta[step.bias], x, weight, buffers[level])
            is_last = level == len(self.maps) - 1
            x = pre if is_last else step.activation.function_(pre)
        return x

    def outputs(self, n_maps):
        """What the lowest maps, but not the last of all, made of the rows that went `forward`."""
        return [code for code, _, _ in self._trace[1 : n_maps + 1]]

    def backward_(self, theta, residual, out, scale, deltas=None):
        """Write ``scale`` times the gradient, from that of the output, into ``out``.

        ``theta`` is as in the last call of `forward`. ``residual``, of shape (n_samples,
        n_outputs), is the derivative of the sum over rows by the output's pre-activation; it may be
        changed. ``deltas`` are what else there is of such derivatives, by the pre-activations of
        the lowest maps; with them, the gradient is added to what is in ``out``. Of ``out`` only the
        parameters of the chain are written.
        """
        delta, n = residual, residual.shape[-2]
        ones = self._buffers_for(theta, n)["ones"]
        for level in reversed(range(len(self.maps))):
            step, (code, keep, x) = self.maps[level], self._trace[level]
            begins = self._begins[level] if deltas is None else (False, False)
            self._add_gradient_(level, x, delta, delta, ones, out, scale, begins)
            if level == 0:
                return
            weight = theta[step.weight]
            weight = weight.mT if step.transposed else weight
            delta = torch.matmul(delta, weight, out=self._buffers_for(theta, n)["delta", level])
            if step.gain is not None:
                delta.mul_(step.gain)
            if keep is not None:
                delta.mul_(keep)
            delta.mul_(self.maps[level - 1].activation.slope(code))
            if deltas is not None and level <= len(deltas):
                delta.add_(deltas[level - 1])

    def _add_gradient_(self, level, x, delta, bias_delta, ones, out, scale=1.0, begins=None):
        """Add ``scale`` times the gradient of one map's parameters, from its input and delta."""
        step, (first_weight, first_bias) = self.maps[level], begins or self._begins[level]
        left, right = (x, delta) if step.transposed else (delta, x)
        add_product_(out[step.weight], left, right, is_first=first_weight, scale=scale)
        if bias_delta.dim() == 2:
            out[step.bias].addmv_(bias_delta.t(), ones, beta=0 if first_bias else 1, alpha=scale)
        else:
            add_(out[step.bias], bias_delta.sum(1), is_first=first_bias, scale=scale)

    def _buffers_for(self, theta, n):
        # Batches differ in size: smaller ones take the first rows of the largest one's buffers.
        if n > len(self._buffers.get("ones", ())):
            buffers, models = {"ones": theta.flat.new_ones(n)}, theta.flat.shape[:-1]
            for level, step in enumerate(self.maps):
                shape = theta[step.weight].shape[-2:]
                n_in, n_out = shape if step.transposed else reversed(shape)
                buffers[level] = theta.flat.new_empty(*models, n, n_out)
                buffers["delta", level] = theta.flat.new_empty(*models, n, n_in)
            self._buffers, self._views = buffers, {}
        if n not in self._views:
            self._views[n] = {
                name: buffer[..., :n] if name == "ones" else buffer[..., :n, :]
                for name, buffer in self._buffers.items()
            }
        return self._views[n]


def encoder_maps(models, first=0, dropout=(0.0, 0.0)):
    """The encoders of models one on the other as affine maps, or None if one of them is none.

    ``first`` is the lowest model's number in its stack: the parameters of layer 0 begin with "0.".
    ``dropout`` is that of the lowest model's input, and of the others'.
    """
    if any(model.encoder is None for model in models):
        return None
    maps = []
    for number, model in enumerate(models):
        lowest, *others = _prefixed(model.encoder, f"{first + number}.")
        if number > 0 and model.scale is not None:
            gain, shift = 1 / model.scale, -model.shift / model.scale
            lowest = lowest._replace(gain=gain, shift=shift)
        maps += [lowest._replace(dropout=dropout[min(number, 1)]), *others]
    return maps


def decoder_maps(models, first=0):
    """The decoders of models one on the other as affine maps, from the code down, or None.

    The last one's activation is left to the units of the lowest model, the ``first`` of its stack.
    """
    if any(model.decoder is None for model in models):
        return None
    if any(model.units.activation is None for model in models[1:]):
        return None
    maps, left = [], None
    for number, model in reversed(list(enumerate(models))):
        highest, *others = _prefixed(model.decoder, f"{first + number}.")
        if left is not None:
            highest = highest._replace(gain=left.scale, shift=left.shift)
        part = [highest, *others]
        if number > 0:
            part[-1] = part[-1]._replace(activation=model.units.activation)
        maps += part
        left = model
    return maps


def affine_chains(network: Network) -> tuple[tuple[AffineMap, ...], tuple[AffineMap, ...]]:
    """A network as affine maps: its encoder, from the input on, and its decoder, from the code."""
    encoder: list[AffineMap] = []
    decoder: list[AffineMap] = []
    matrix = "weight" if network.tied else "decoder_weight"
    for level in range(network.depth):
        function = network.nonlinearity
        encoder.append(AffineMap(f"weight_{level}", f"hidden_bias_{level}", function))
    for level in range(network.decoder_depth):
        function = ACTIVATIONS["linear"] if level == 0 else network.nonlinearity
        names = f"{matrix}_{level}", f"visible_bias_{level}"
        decoder.insert(0, AffineMap(*names, function, transposed=True))
    return tuple(encoder), tuple(decoder)


def outputs_of(theta, x: torch.Tensor, maps: Sequence[AffineMap]) -> list[torch.Tensor]:
    """The outputs, (n_samples, n_outputs), of maps in turn: s((gain * h + shift) W^T + b)."""
    outputs = []
    for step in maps:
        weight = theta[step.weight] if step.transposed else theta[step.weight].t()
        x = x if step.gain is None else torch.addcmul(step.shift, x, step.gain)
        x = step.activation.function(torch.addmm(theta[step.bias], x, weight))
        outputs.append(x)
    return outputs


def linearized(theta, x, maps):
    """The output of maps in turn at some rows, (n_samples, n_outputs), and their Jacobian there."""
    slopes, weights = [], []
    for step in maps:
        weight = theta[step.weight].t() if step.transposed else theta[step.weight]
        z = x if step.gain is None else torch.addcmul(step.shift, x, step.gain)
        x = step.activation.function(torch.addmm(theta[step.bias], z, weight.t()))
        slopes.append(step.activation.slope(x))
        weights.append(weight if step.gain is None else weight * step.gain)
    return x, LayeredJacobian(slopes, weights)


def _prefixed(maps: Sequence[AffineMap], prefix: str) -> list[AffineMap]:
    return [step._replace(weight=prefix + step.weight, bias=prefix + step.bias) for step in maps]
