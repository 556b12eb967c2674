r"""How deep Boltzmann machines learn: the criterion, the `Model`, and the machines that start them.

The bound of `skae.engine.boltzmann.deep` is maximal in the means of Q, so that its gradient is that
at fixed means: of F at completed rows, minus its expectation under the machine, for which
persistent chains stand. That is `ContrastiveDivergence` on completed rows.

**Pre-training** (Salakhutdinov & Hinton 2009). Layer l of a deep machine hears two neighbours; the
machine of the two layers l and l+1 that is trained for it hears one, and counts it twice where the
other will be:

    P(h_l+1 = 1 | h_l) = sigmoid(b + 2 W h_l),  but W h_l for the top layer
    P(h_l = 1 | h_l+1) = sigmoid(c + 2 W^T h_l+1),  but W^T h_1 for the columns

Logits of a layer between two machines are the mean of what the two say: its weights as they are
learned here, its bias the mean of both. (Of a machine with neither factor, as in the middle of a
stack, that halves the weights.)
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from skae.engine.boltzmann.conditionals import real_columns, variables_of
from skae.engine.boltzmann.deep import DeepMachine, deep_shapes, even_units
from skae.engine.boltzmann.energies import BipartiteMachine
from skae.engine.boltzmann.learning import (
    ContrastiveDivergence,
    boltzmann_machine,
    variance_bounds,
)
from skae.engine.boltzmann.memory import followed
from skae.engine.boltzmann.trajectories import trajectory_of
from skae.engine.networks.gaps import observed
from skae.engine.networks.units import Bernoulli
from skae.engine.optimisation import processes
from skae.engine.optimisation.models import Model


class MeanFieldDivergence(ContrastiveDivergence):
    """mean F(completed rows) - mean F(particles) + the penalties.

    ``machine(theta)`` is a `DeepMachine`, ``units`` are those of the columns, and ``fill``, of
    shape (n_columns,), is what columns are without any knowledge. Penalties see the means of all
    hidden layers, from the lowest up, as code. The offsets of all hidden layers follow their means.
    """

    def __init__(self, machine: Callable, units, fill: torch.Tensor, **learning):
        super().__init__(machine, **learning)
        self.criterion_cost = 1.0
        self.units, self.fill = units, fill
        self.variables = variables_of(units, len(fill), fill.device)

    def criterion(self, theta, x, generator, row_weight=None):
        """An estimate of -sum_i log Q(x_i | x without x_i) in nats: one variable of each row.

        Q is the mean field in which the variable is free, as the hidden units are. One term of each
        row, drawn, counts for all.
        """
        machine, (_, columns, is_padding, _) = self.machine(theta), self.variables
        n_variables = len(columns)
        variable = torch.randint(n_variables, (len(x),), generator=generator, device=x.device)
        columns, is_padding = columns[variable], is_padding[variable]
        x, is_given = observed(x, self.fill) if self.has_gaps else (x, None)
        is_given = torch.ones_like(x, dtype=torch.bool) if is_given is None else is_given
        # Of what was not observed there is nothing to predict.
        is_padding = is_padding | ~is_given.gather(1, columns)
        predicted = machine.predicted(x, is_given.scatter(1, columns, False), self.fill)
        terms = self._column_terms(machine, predicted, x).gather(1, columns)
        terms = terms.masked_fill(is_padding, 0.0).sum(1)
        losses = terms.mul_(n_variables).add_(self.log_volume)
        return losses.mean() if row_weight is None else (losses * row_weight).mean()

    def _column_terms(self, machine, predicted, x):
        """-log Q of each column in nats, of its pre-activation in the mean field."""
        terms, all_real = self.units.column_losses(predicted, x), real_columns(self.units)
        if not all_real:
            return terms
        precision = machine.precision
        own = terms.new_ones(x.shape[1]) if precision is None else precision[: x.shape[1]]
        constant = torch.zeros_like(own)
        for real in all_real:
            constant[real] = 0.5 * torch.log(2 * math.pi / own[real])
        return terms * own + constant

    def _completed(self, machine, x):
        return machine.completed(x)

    def _offsets(self, visible, hidden):
        mean = processes.current().mean_of_batch
        others = followed(self.state, "even_offset", mean(visible[:, len(self.fill) :].mean(0)))
        hidden = followed(self.state, "hidden_offset", mean(hidden.mean(0)))
        return torch.cat([self.visible_offset, others]), hidden


def deep_boltzmann_machine(
    units,
    sizes: Sequence[int],
    base_bias: torch.Tensor,
    fill: torch.Tensor,
    *,
    code_layer: int,
    mean_field: dict[str, Any],
    least_variance: float | np.ndarray | None = None,
    shift: torch.Tensor | None = None,
    scale: torch.Tensor | None = None,
    report: Callable | None = None,
    earlier: Callable | None = None,
    criterion: Callable = MeanFieldDivergence,
    **learning,
) -> Model:
    """The `Model` of a deep Boltzmann machine, whose code are the means of a hidden layer.

    ``sizes`` are those of the layers from the columns up, ``code_layer`` is 1 for the lowest hidden
    one, ``mean_field`` are ``n_sweeps`` and ``tol`` of a `DeepMachine`. Rows may have gaps, NaN,
    which are free in the mean field, as hidden units are. ``earlier`` is the model's; ``learning``
    are parameters of `ContrastiveDivergence`; the others are of
    `skae.engine.boltzmann.learning.boltzmann_machine` and of the ``criterion``, a
    `MeanFieldDivergence`.
    """
    sizes = tuple(sizes)
    machine: Callable = partial(DeepMachine, units=even_units(units, sizes), **mean_field)
    below_code = even_units(units, sizes[: code_layer + 1])
    lower: Callable = partial(DeepMachine, units=below_code, n_layers=code_layer, **mean_field)
    least_loss, project = variance_bounds(units, base_bias, least_variance)
    learning |= {"least_loss": least_loss, "persistent": True}

    def encode(theta, x):
        deep = machine(theta)
        return deep.posterior(given(deep, x))[code_layer - 1]

    def given(deep, x):
        with torch.no_grad():
            return deep.filled(x, fill)

    def reconstructed(theta, x):
        deep = machine(theta)
        x = given(deep, x)
        return torch.addmm(deep.biases[0], deep.posterior(x)[0], deep.weights[0])

    return Model(
        shapes=deep_shapes(sizes, learns_variance=least_variance is not None),
        start_=lambda theta, rows, index, generator: machine(theta).start_(base_bias, generator),
        encode=encode,
        decode=lambda theta, code: lower(theta).decoded(code),
        # By the lowest layer, which hears all others: the top one may be idle in a good machine.
        denoise=reconstructed,
        units=units,
        n_features=sizes[0],
        n_codes=sizes[code_layer],
        objective=lambda: criterion(machine, units, fill, **learning),
        shift=shift,
        scale=scale,
        project=project,
        inference="sweeps of the mean field",
        code_range=(0.0, 1.0),
        report=report,
        earlier=earlier,
        remember=trajectory_of,
        keeps_state=learning.get("n_checkpoints", 0) > 0,
    )


class HalfMachine(BipartiteMachine):
    """Two neighbouring layers of a deep machine, each of which may count the other twice.

    ``up`` and ``down`` are the factors, 1 or 2, of the input of its hidden and its visible units.
    """

    def __init__(self, theta, units, up: float = 1.0, down: float = 1.0):
        super().__init__(theta, units)
        self.up, self.down = up, down

    def hidden_input(self, visible: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """Pre-activation of the hidden units, b + up * W (v / s^2)."""
        precision = self.precision
        scaled = visible if precision is None else visible * precision
        return torch.addmm(self.hidden_bias, scaled, self.weight.t(), alpha=self.up, out=out)

    def visible_input(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits or means of the visible units, c + down * h W."""
        return torch.addmm(self.visible_bias, hidden, self.weight, alpha=self.down)


class HalfDivergence(ContrastiveDivergence):
    """The criterion of a `HalfMachine`, which has no energy: judged by reconstructions."""

    def criterion(self, theta, x, generator, row_weight=None):
        """The mean of -log P(x | E[h | x]), in nats."""
        machine = self.machine(theta)
        output = machine.visible_input(machine.code(x))
        losses = machine.units.negative_log_likelihood(output, x)
        return losses.mean() if row_weight is None else (losses * row_weight).mean()


def half_machine(
    number: int, n_machines: int, units, sizes: Sequence[int], base_bias, **options
) -> Model:
    """The `Model` of one of the machines that start a deep one, the lowest being 0.

    ``options`` are of `skae.engine.boltzmann.learning.boltzmann_machine`.
    """
    up = 1.0 if number == n_machines - 1 else 2.0
    down = 1.0 if number == 0 else 2.0
    return boltzmann_machine(
        units if number == 0 else Bernoulli(),
        sizes[number],
        sizes[number + 1],
        base_bias,
        kind=partial(HalfMachine, up=up, down=down),
        criterion=HalfDivergence,
        **options,
    )


# What weights above a machine that has learned begin as, beside those of a start afresh: what they
# add at random to its input costs likelihood.
_QUIET = 0.3


def extended(
    lowest: dict[str, np.ndarray], sizes: Sequence[int], generator: torch.Generator
) -> dict[str, np.ndarray]:
    """Arrays of a deep machine, by name, from those of a restricted one that is its lowest part.

    Weights further up are small and random. Hidden units begin at 1/2: what they add to the input
    of their neighbours is taken off again.
    """
    arrays = {name: array.copy() for name, array in lowest.items()}
    dtype = arrays["weight_0"].dtype
    for level, (below, above) in enumerate(pairwise(sizes[1:]), 1):
        bound = _QUIET * math.sqrt(6.0 / (below + above))
        weight = torch.empty(above, below).uniform_(-bound, bound, generator=generator)
        arrays[f"weight_{level}"] = weight.numpy().astype(dtype)
        arrays[f"hidden_bias_{level - 1}"] -= 0.5 * arrays[f"weight_{level}"].sum(0)
        arrays[f"hidden_bias_{level}"] = -0.5 * arrays[f"weight_{level}"].sum(1)
    return arrays


def composed(machines: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Arrays of a deep machine, by name, from those of the machines that start it."""
    lowest = machines[0]
    arrays = {"visible_bias_0": lowest["visible_bias_0"]}
    above = [*(machine["visible_bias_0"] for machine in machines[1:]), None]
    for level, (machine, other) in enumerate(zip(machines, above, strict=True)):
        bias = machine["hidden_bias_0"]
        arrays[f"weight_{level}"] = machine["weight_0"]
        arrays[f"hidden_bias_{level}"] = bias if other is None else 0.5 * (bias + other)
    return arrays | {name: lowest[name] for name in lowest if name == "log_variance"}
