"""Affine maps one after the other, forwards and backwards, without autograd.

    p_l = (g_l * h_l + t_l) W_l^T + b_l,   h_{l+1} = s_l(p_l)

For nets of a few small layers autograd costs several times the arithmetic; for large ones,
buffers that are used again save the memory's bandwidth.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from skae.engine.networks.jacobians import DifferentiatedJacobian, LayeredJacobian
from skae.engine.networks.layers import ACTIVATIONS, Activation
from skae.engine.optimisation.draws import random_mask


class AffineMap(NamedTuple):
    """h -> s((gain * h + shift) W^T + b), or with W in the place of W^T.

    Attributes
    ----------
    weight, bias : str
        Names of the parameters.
    activation : Activation
    transposed : bool
        Whether the matrix has one row for each *input*, as those of decoders have.
    gain, shift : Tensor of shape (n_inputs,), or None
        Constants. None leaves the input as it is.
    dropout : float
        Probability with which each input is left out while training; those that stay are
        divided by 1 - dropout.
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

    Parameters
    ----------
    maps : sequence of AffineMap
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
        buffers, self._trace = self._buffers_for(theta, len(x)), []
        for level, step in enumerate(self.maps):
            code, keep = x, None
            if step.dropout > 0 and generator is not None:
                keep = random_mask(x, 1 - step.dropout, generator).to(x.dtype)
                x = x * keep.mul_(1 / (1 - step.dropout))
            if step.gain is not None:
                x = torch.addcmul(step.shift, x, step.gain)
            self._trace.append((code, keep, x))
            weight = theta[step.weight]
            weight = weight if step.transposed else weight.t()
            pre = torch.addmm(theta[step.bias], x, weight, out=buffers[level])
            is_last = level == len(self.maps) - 1
            x = pre if is_last else step.activation.function_(pre)
        return x

    def backward_(self, theta, residual, out, scale):
        """Write ``scale`` times the gradient, from that of the output, into ``out``.

        Parameters
        ----------
        theta : Parameters
            As in the last call of `forward`.
        residual : Tensor of shape (n_samples, n_outputs)
            Derivative of the sum over rows by the output's pre-activation. May be changed.
        out : Parameters
            Only the parameters of the chain are written.
        scale : float
        """
        delta, n = residual, len(residual)
        ones = self._buffers_for(theta, n)["ones"]
        for level in reversed(range(len(self.maps))):
            step, (code, keep, x) = self.maps[level], self._trace[level]
            self._add_gradient_(level, x, delta, delta, ones, out, scale)
            if level == 0:
                return
            weight = theta[step.weight]
            weight = weight.t() if step.transposed else weight
            delta = torch.mm(delta, weight, out=self._buffers_for(theta, n)["delta", level])
            if step.gain is not None:
                delta.mul_(step.gain)
            if keep is not None:
                delta.mul_(keep)
            delta.mul_(self.maps[level - 1].activation.slope(code))

    def _add_gradient_(self, level, x, delta, bias_delta, ones, out, scale=1.0):
        """Add ``scale`` times the gradient of one map's parameters, from its input and delta."""
        step, (first_weight, first_bias) = self.maps[level], self._begins[level]
        left, right = (x, delta) if step.transposed else (delta, x)
        out[step.weight].addmm_(left.t(), right, beta=0 if first_weight else 1, alpha=scale)
        out[step.bias].addmv_(bias_delta.t(), ones, beta=0 if first_bias else 1, alpha=scale)

    def _buffers_for(self, theta, n):
        # Batches differ in size: smaller ones take the first rows of the largest one's buffers.
        if n > len(self._buffers.get("ones", ())):
            buffers = {"ones": theta.flat.new_ones(n)}
            for level, step in enumerate(self.maps):
                shape = theta[step.weight].shape
                n_in, n_out = shape if step.transposed else reversed(shape)
                buffers[level] = theta.flat.new_empty(n, n_out)
                buffers["delta", level] = theta.flat.new_empty(n, n_in)
            self._buffers, self._views = buffers, {}
        if n not in self._views:
            self._views[n] = {name: buffer[:n] for name, buffer in self._buffers.items()}
        return self._views[n]


def encoder_maps(models, first=0, dropout=(0.0, 0.0)):
    """The encoders of models one on the other as affine maps, or None if one of them is none.

    Parameters
    ----------
    models : sequence of Model
    first : int, default=0
        Number of the first of them in its stack: the parameters of layer 0 begin with "0.".
    dropout : tuple of two float
        Of the lowest model's input, and of the others'.

    Returns
    -------
    maps : list of AffineMap, or None
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

    Parameters
    ----------
    models : sequence of Model
    first : int, default=0
        Number of the first of them in its stack.

    Returns
    -------
    maps : list of AffineMap, or None
        The last one's activation is left to the units of the lowest model.
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


def network_encoder(network):
    """The encoder of a `skae.engine.networks.layers.Network` as affine maps, from the input on."""
    return tuple(
        AffineMap(f"weight_{level}", f"hidden_bias_{level}", network.nonlinearity)
        for level in range(network.depth)
    )


def network_decoder(network):
    """Its decoder as affine maps, from the code down."""
    matrix = "weight" if network.tied else "decoder_weight"
    linear = ACTIVATIONS["linear"]
    return tuple(
        AffineMap(
            f"{matrix}_{level}",
            f"visible_bias_{level}",
            network.nonlinearity if level > 0 else linear,
            transposed=True,
        )
        for level in reversed(range(network.depth))
    )


def linearized(theta, x, maps):
    """The output of maps in turn at some rows, and their Jacobian there, by its factors.

    Parameters
    ----------
    theta : Parameters
    x : Tensor of shape (n_samples, n_inputs)
    maps : sequence of AffineMap

    Returns
    -------
    output : Tensor of shape (n_samples, n_outputs)
    jacobian : LayeredJacobian
    """
    slopes, weights = [], []
    for step in maps:
        weight = theta[step.weight].t() if step.transposed else theta[step.weight]
        z = x if step.gain is None else torch.addcmul(step.shift, x, step.gain)
        x = step.activation.function(torch.addmm(theta[step.bias], z, weight.t()))
        slopes.append(step.activation.slope(x))
        weights.append(weight if step.gain is None else weight * step.gain)
    return x, LayeredJacobian(slopes, weights)


def jacobian_of(model, theta, x, of="encoder"):
    """The Jacobian of a model's code, or of its reconstruction, at rows as the model sees them.

    Parameters
    ----------
    model : Model
    theta : Parameters
    x : Tensor of shape (n_samples, n_features)
    of : {"encoder", "reconstruction"}

    Returns
    -------
    jacobian : LayeredJacobian or DifferentiatedJacobian

    Raises
    ------
    ValueError
        If no gradient can go through the encoder.
    """
    if model.no_gradient is not None:
        raise ValueError(f"The code has no Jacobian: {model.no_gradient}.")
    if of == "encoder" and model.encoder is not None:
        return linearized(theta, x, model.encoder)[1]
    activation = model.units.activation
    if of == "reconstruction" and None not in (model.encoder, model.decoder, activation):
        *inner, last = model.decoder
        last = last._replace(activation=activation)
        return linearized(theta, x, [*model.encoder, *inner, last])[1]

    def function(x):
        code = model.code(theta, x)
        return code if of == "encoder" else model.units.mean(model.decode(theta, code))

    return DifferentiatedJacobian(function, x)


def _prefixed(maps: Sequence[AffineMap], prefix: str) -> list[AffineMap]:
    return [step._replace(weight=prefix + step.weight, bias=prefix + step.bias) for step in maps]
