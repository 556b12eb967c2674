"""Training criteria of auto-encoders, built from units, corruptions and penalties."""

from typing import NamedTuple

import torch

from skae.engine.networks.corruptions import corrupted
from skae.engine.networks.layers import (
    Network,
    decode,
    encode,
    initialize_,
    network_decoder,
    network_encoder,
)
from skae.engine.networks.penalties import checked_value
from skae.engine.optimisation.models import Model
from skae.engine.optimisation.training import Objective, gradient_by_autograd


class Forward:
    """What one pass through the network leaves for the penalties to read.

    Attributes
    ----------
    x : Tensor of shape (n_samples, n_features)
        The encoder's input: the corrupted one, where there is corruption.
    row_weight : Tensor of shape (n_samples,), or None
        Sample weights; None where all rows count alike.
    row_fraction : Tensor of shape (n_samples,)
        What each row counts in the mean over the batch, row_weight / n_samples.
    network : Network
    units : object of `skae.engine.networks.units`
        Of the input.
    hidden, decoded : list of Tensor
        Outputs of the encoder's layers, and of the decoder's inner layers.
    output : Tensor of shape (n_samples, n_features), or None
        Pre-activation of the output units.
    slope, delta : Tensor of shape (n_samples, n_components), or None
        On the closed-form path of one-layer networks: the code's slope s'(p), and
        n_samples times the objective's gradient with respect to its pre-activation p,
        which the penalties add to.
    """

    def __init__(
        self,
        network,
        units,
        x,
        row_weight,
        generator,
        hidden,
        decoded=(),
        output=None,
        row_fraction=None,
    ):
        self.network, self.units = network, units
        self.x, self.row_weight, self.generator = x, row_weight, generator
        self.hidden, self.decoded, self.output = hidden, decoded, output
        if row_fraction is None:
            row_fraction = torch.ones_like(x[:, 0]) if row_weight is None else row_weight
            row_fraction = row_fraction / len(x)
        self.row_fraction = row_fraction
        self.slope = self.delta = None

    @property
    def code(self):
        """Output of the encoder's last layer."""
        return self.hidden[-1]

    def mean(self, values):
        """The weighted mean over rows of a tensor whose first axis is rows."""
        return torch.matmul(self.row_fraction, values)

    def weighted_(self, values):
        """Each row times its sample weight, in place."""
        return values if self.row_weight is None else values.mul_(self.row_weight.unsqueeze(1))


class Emphasis(NamedTuple):
    """Weights of corrupted and of untouched components in the reconstruction loss."""

    corrupted: float
    untouched: float

    def column_weight(self, mask, dtype):
        """The weight of each component, of the shape of ``mask``."""
        weight = mask.to(dtype)
        return weight.mul_(self.corrupted - self.untouched).add_(self.untouched)


class Reconstruction(Objective):
    """mean_i -log P(x_i | r(corrupted x_i)) + the penalties.

    Parameters
    ----------
    network : Network
    units : Bernoulli, Gaussian, Multinomial or Mixed
    corruption : callable, default=None
        From `skae.engine.networks.corruptions`; None leaves the input as it is.
    emphasis : Emphasis, default=None
        Weights of corrupted and untouched components; None weighs them alike.
    penalties : sequence, default=()
        From `skae.engine.networks.penalties`.
    """

    def __init__(self, network: Network, units, corruption=None, emphasis=None, penalties=()):
        self.state = {}
        self.network, self.units = network, units
        self.corruption, self.emphasis, self.penalties = corruption, emphasis, penalties
        self._buffers: dict[torch.Size, dict[str, torch.Tensor]] = {}

    @property
    def floor(self):
        """The value of perfect reconstructions."""
        return self.units.constant

    @property
    def is_noisy(self):
        """Whether `value` depends on the generator."""
        return self.corruption is not None or any(
            getattr(penalty, "is_noisy", False) for penalty in self.penalties
        )

    @property
    def has_closed_form(self):
        """Whether `gradient` needs no autograd."""
        return self.network.depth == 1 and all(
            hasattr(penalty, "add_gradient_") for penalty in self.penalties
        )

    def value(self, theta, x, generator, row_weight=None):
        """The criterion on one batch.

        Parameters
        ----------
        theta : Parameters
        x : Tensor of shape (n_samples, n_features)
        generator : torch.Generator
            Of the corruption and of the penalties' noise.
        row_weight : Tensor of shape (n_samples,), default=None
            Sample weights, of mean 1 over the whole training set.

        Returns
        -------
        value : Tensor, a scalar
        """
        noisy, column_weight = self._corrupt(x, generator)
        hidden = encode(theta, noisy, self.network)
        decoded, output = decode(theta, hidden[-1], self.network)
        forward = Forward(
            self.network, self.units, noisy, row_weight, generator, hidden, decoded, output
        )
        loss = self.units.negative_log_likelihood(output, x, column_weight)
        total = forward.mean(loss)
        for penalty in self.penalties:
            value = checked_value(penalty.value(theta, forward), penalty, "value")
            total = total + penalty.weight * value
        return total

    criterion = value

    def gradient(self, theta, x, generator, out, row_weight=None):
        """Write the gradient of `value` into ``out``; return the value, detached."""
        if self.has_closed_form:
            return self.value_and_gradient(theta, x, generator, out, row_weight)
        return gradient_by_autograd(self.value, theta, x, generator, out, row_weight)

    def value_and_gradient(self, theta, x, generator, out, row_weight=None):
        """The same in closed form, without autograd, for one layer.

        With residual e = r - x, delta = (e V^T) s'(p) + the penalties' part:

            dV = h^T e,  dc = sum e,  dW = delta^T x~,  db = sum delta
        """
        nonlinearity = self.network.nonlinearity
        weight, decoder_weight = theta["weight_0"], self.network.decoder_weight(theta, 0)
        buffers = self._buffers_for(x, len(weight))
        scale = 1.0 / len(x)

        noisy, column_weight = self._corrupt(x, generator)
        if row_weight is not None:
            rows = row_weight.unsqueeze(1)
            column_weight = rows.expand_as(x) if column_weight is None else column_weight * rows

        code = torch.addmm(theta["hidden_bias_0"], noisy, weight.t(), out=buffers["code"])
        code = nonlinearity.function_(code)
        output = torch.addmm(theta["visible_bias_0"], code, decoder_weight, out=buffers["output"])
        value, residual = self.units.value_and_residual_(output, x, column_weight, scale)
        if self.units.constant:
            constant = self.units.constant
            value.add_(buffers["constant"] if row_weight is None else row_weight.mean() * constant)

        # Residual and delta are sums over rows; the products below make them means.
        self.network.decoder_weight(out, 0).addmm_(code.t(), residual, beta=0, alpha=scale)
        out["visible_bias_0"].addmv_(residual.t(), buffers["ones"], beta=0, alpha=scale)
        slope = nonlinearity.slope(code)
        delta = torch.mm(residual, decoder_weight.t(), out=buffers["delta"]).mul_(slope)
        if not self.network.tied:
            out["weight_0"].zero_()
        out["hidden_bias_0"].zero_()
        if self.penalties:
            fraction = buffers["fraction"] if row_weight is None else None
            forward = Forward(
                self.network,
                self.units,
                noisy,
                row_weight,
                generator,
                [code],
                row_fraction=fraction,
            )
            forward.slope, forward.delta = slope, delta
            for penalty in self.penalties:
                term = penalty.add_gradient_(theta, forward, out)
                value.add_(checked_value(term, penalty, "add_gradient_"), alpha=penalty.weight)
        out["weight_0"].addmm_(delta.t(), noisy, alpha=scale)
        out["hidden_bias_0"].addmv_(delta.t(), buffers["ones"], alpha=scale)
        return value

    def _corrupt(self, x, generator):
        if self.corruption is None:
            return x, None
        noisy, mask = corrupted(x, self.corruption, generator)
        if self.emphasis is None:
            return noisy, None
        if mask is None:
            raise ValueError(
                "emphasis tells corrupted components from others, but the corruption returns no "
                "mask of them. Return one, or use emphasis=None."
            )
        return noisy, self.emphasis.column_weight(mask, x.dtype)

    def _buffers_for(self, x, n_components):
        # An epoch has batches of two sizes at most; their buffers are made once.
        if x.shape not in self._buffers:
            self._buffers[x.shape] = {
                "code": x.new_empty(len(x), n_components),
                "delta": x.new_empty(len(x), n_components),
                "output": torch.empty_like(x),
                "ones": x.new_ones(len(x)),
                "fraction": x.new_full((len(x),), 1.0 / len(x)),
                "constant": x.new_full((), self.units.constant),
            }
        return self._buffers[x.shape]


def auto_encoder(network: Network, units, output_bias, objective, shift=None, scale=None) -> Model:
    """The `Model` of a network of affine maps.

    Parameters
    ----------
    network : Network
    units : object of `skae.engine.networks.units`
    output_bias : Tensor of shape (n_features,)
        With which training begins.
    objective : callable
        () -> a new `Reconstruction`.
    shift, scale : Tensor of shape (n_features,), default=None
    """
    return Model(
        shapes=network.parameter_shapes,
        start_=lambda theta, rows, index, generator: initialize_(
            theta, network, output_bias, generator
        ),
        encode=lambda theta, x: encode(theta, x, network)[-1],
        decode=lambda theta, code: decode(theta, code, network)[1],
        units=units,
        n_features=network.layer_sizes[0],
        n_codes=network.layer_sizes[-1],
        objective=objective,
        shift=shift,
        scale=scale,
        encoder=network_encoder(network),
        decoder=network_decoder(network),
        untied=network.untied_weights if network.tied else None,
        code_range=network.nonlinearity.range,
    )
