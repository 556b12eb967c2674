r"""Deep auto-encoders as one recurrence: every hidden layer hears the one below and the one above.

A layer's two neighbours each say what its pre-activation is. From the layer below, the encoder's
W_l h_l-1 + b_l; from the layer above, the decoder's W_l+1^T h_l+1 + c_l. It takes the mean of what
it hears (Savard 2011):

    h_l <- s( (up_l + down_l) / 2 ),   0 < l < L;      h_L <- s(up_L);      r = mean(c_0 + h_1 W_1)

The first step is a pass up, in which layers hear the one below alone: that of a stack of
auto-encoders with these weights. In every further step odd layers change, then even ones. The
row, corrupted, stays what h_1 hears, and a reconstruction is read out at each step.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from skae.engine.networks.corruptions import corrupted
from skae.engine.networks.forward import Forward
from skae.engine.networks.gaps import observed, observed_loss
from skae.engine.networks.layers import Network, decode, initialize_
from skae.engine.optimisation.models import Model
from skae.engine.optimisation.runs import Objective, gradient_by_autograd


class Step(NamedTuple):
    """The hidden layers after a step, from the lowest up, and the output's pre-activation."""

    hidden: list[torch.Tensor]
    output: torch.Tensor


@dataclass(frozen=True)
class Recurrence:
    """A tied network, the steps that it takes, and the noise of all layers but the lowest.

    ``noise`` is the standard deviation of what is added before and after the activation (Bengio et
    al. 2014), where there is a generator.
    """

    network: Network
    n_steps: int
    noise: float = 0.0

    def steps(self, theta, x: torch.Tensor, generator: torch.Generator | None = None) -> list[Step]:
        """What every step makes of rows."""
        depth, found = self.network.depth, []
        hidden: list[torch.Tensor] = []
        below = x
        for level in range(depth):
            below = self._activated(_up(theta, below, level), level, generator)
            hidden.append(below)
        found.append(Step(hidden, _down(theta, hidden[0], 0)))
        for _ in range(self.n_steps - 1):
            hidden = list(hidden)
            for level in (*range(0, depth, 2), *range(1, depth, 2)):
                pre = _up(theta, x if level == 0 else hidden[level - 1], level)
                if level + 1 < depth:
                    pre = 0.5 * (pre + _down(theta, hidden[level + 1], level + 1))
                hidden[level] = self._activated(pre, level, generator)
            found.append(Step(hidden, _down(theta, hidden[0], 0)))
        return found

    def _activated(self, pre, level, generator):
        is_noisy = self.noise > 0 and generator is not None and level > 0
        if is_noisy:
            pre = pre + self.noise * torch.empty_like(pre).normal_(generator=generator)
        mean = self.network.nonlinearity.function(pre)
        if is_noisy:
            mean = mean + self.noise * torch.empty_like(mean).normal_(generator=generator)
        return mean


def _up(theta, below, level):
    return torch.addmm(theta[f"hidden_bias_{level}"], below, theta[f"weight_{level}"].t())


def _down(theta, above, level):
    return torch.addmm(theta[f"visible_bias_{level}"], above, theta[f"weight_{level}"])


class RecurrentReconstruction(Objective):
    """mean_t mean_i -log P(x_i | r_t(corrupted x_i)) + the penalties, t over the steps.

    NaN in x is not observed: ``fill``, of shape (n_features,), takes its place in the input, and it
    has no part in the loss.
    """

    is_noisy = True

    def __init__(self, recurrence: Recurrence, units, corruption=None, penalties=(), fill=None):
        self.recurrence, self.units, self.corruption = recurrence, units, corruption
        self.penalties, self.state, self.floor = penalties, {}, units.constant
        self.fill = fill

    def value(self, theta, x, generator, row_weight=None):
        """The criterion on one batch; the generator is of the corruption and of hidden noise."""
        x, mask = observed(x, self.fill) if self.has_gaps else (x, None)
        noisy = x if self.corruption is None else corrupted(x, self.corruption, generator)[0]
        noisy = noisy if mask is None else torch.where(mask, noisy, x)
        steps = self.recurrence.steps(theta, noisy, generator)
        losses = [observed_loss(self.units, step.output, x, mask) for step in steps]
        network = self.recurrence.network
        forward = Forward(network, self.units, noisy, row_weight, generator, steps[-1].hidden)
        total = forward.mean(sum(losses) / len(losses))
        return total + sum(p.weight * p.value(theta, forward) for p in self.penalties)

    def gradient(self, theta, x, generator, out, row_weight=None):
        """Write the gradient of `value`, through all steps, into ``out``; return the value."""
        return gradient_by_autograd(self.value, theta, x, generator, out, row_weight)


def joined(layers: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Arrays of a recurrence, by name, from those of tied auto-encoders of one layer each.

    The first pass up is then that of their stack.
    """
    return {
        f"{name.removesuffix('0')}{level}": array
        for level, arrays in enumerate(layers)
        for name, array in arrays.items()
    }


def recurrent_auto_encoder(
    recurrence: Recurrence,
    units,
    output_bias: torch.Tensor,
    objective: Callable,
    *,
    layer: int,
    step: int,
    shift=None,
    scale=None,
    fill=None,
    earlier: Callable | None = None,
) -> Model:
    """The `Model` of a recurrence, whose code is a hidden ``layer`` after a ``step``, from 0.

    A code is decoded as by a stack, down through the layers below it. ``fill`` and ``earlier`` are
    the model's.
    """
    network = recurrence.network
    below = Network(network.layer_sizes[: layer + 2], network.activation)

    def code(theta, x):
        return recurrence.steps(theta, x)[step].hidden[layer]

    return Model(
        shapes=network.parameter_shapes,
        start_=lambda theta, rows, index, generator: initialize_(
            theta, network, output_bias, generator
        ),
        encode=code,
        decode=lambda theta, code: decode(theta, code, below)[1],
        denoise=lambda theta, x: recurrence.steps(theta, x)[-1].output,
        units=units,
        n_features=network.layer_sizes[0],
        n_codes=network.layer_sizes[layer + 1],
        objective=objective,
        shift=shift,
        scale=scale,
        fill=fill,
        earlier=earlier,
        inference="steps of a recurrence",
        code_range=network.nonlinearity.range,
    )
