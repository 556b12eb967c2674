r"""Multi-prediction: how a deep Boltzmann machine learns to fill in whatever is missing of a row.

A random set S of the variables of each row is hidden, and predicted from all others by the mean
field, in which it is free as the hidden units are (Goodfellow, Mirza, Courville & Bengio 2013):

    J = mean over rows of  sum_{i in S} -log Q(x_i | x without S)

Its gradient goes back through every sweep of the mean field: what is trained is the recurrence by
which the machine is used afterwards, as it is used. No chains are run, no partition function is
needed, and one step trains all layers from small random weights.
"""

import torch

from skae.engine.boltzmann.deep_training import MeanFieldDivergence
from skae.engine.boltzmann.trajectories import note_checkpoint
from skae.engine.networks.gaps import observed
from skae.engine.optimisation.runs import gradient_by_autograd


class MultiPrediction(MeanFieldDivergence):
    """J + the penalties, which see the means of all hidden layers as code.

    ``level`` is the part of a row's variables that is hidden, on average: a number, or (low, high)
    for one that is drawn for each row, uniformly between the two. What a row has no value of, NaN,
    is neither given nor predicted.

    With a ``visible_offset`` the steps are those of the centred machine: they follow the gradient
    with respect to the parameters of a machine whose units count from these offsets, those of
    hidden units being their running means.
    """

    def __init__(self, machine, units, fill: torch.Tensor, level=0.5, **learning):
        super().__init__(machine, units, fill, **learning)
        self.level = level if isinstance(level, tuple) else (level, level)
        _, columns, is_padding, _ = self.variables
        number = torch.arange(len(columns), device=fill.device).unsqueeze(1).expand_as(columns)
        # Of which variable each column is.
        self.variable_of = torch.empty(len(fill), dtype=torch.int64, device=fill.device)
        self.variable_of[columns[~is_padding]] = number[~is_padding]

    def value(self, theta, x, generator, row_weight=None):
        """J and the penalties, differentiable."""
        return self._passed(theta, x, generator, row_weight)[0]

    def gradient(self, theta, x, generator, out, row_weight=None):
        """Write the gradient, or where units are centred its step, into ``out``."""
        if self.n_checkpoints > 0:
            note_checkpoint(self.state, theta.flat, self.n_checkpoints)
        means = []

        def value(*arguments):
            total, *means[:] = self._passed(*arguments)
            return total

        gradient_by_autograd(value, theta, x, generator, out, row_weight)
        if self.visible_offset is not None:
            machine = self.machine(theta)
            offsets = self._offsets(*(side.detach() for side in means))
            self._centre_(machine, out, offsets)
        if "log_variance" in out:
            self._steady_(out["log_variance"])

    def _passed(self, theta, x, generator, row_weight=None):
        """The value, and the means of both sides of the machine given what was not hidden."""
        machine, (low, high) = self.machine(theta), self.level
        seen, mask = observed(x, self.fill) if self.has_gaps else (x, None)
        draws = x.new_empty(len(x), len(self.variables.kind) + 1).uniform_(generator=generator)
        hidden = draws[:, 1:] < low + (high - low) * draws[:, :1]
        hidden = hidden[:, self.variable_of]
        predicted = hidden if mask is None else hidden & mask
        is_given = ~hidden if mask is None else mask & ~hidden
        visible = machine.inferred(seen, is_given, self.fill)
        code = machine.code(visible)
        output = machine.columns(machine.visible_input(code))
        terms = self._column_terms(machine, output, seen)
        losses = terms.masked_fill(~predicted, 0.0).sum(1)
        value = losses.mean() if row_weight is None else (losses * row_weight).mean()
        if self.penalties:
            codes = machine.codes(visible, code)
            forward = self._forward(machine, seen, row_weight, generator, codes)
            value = value + sum(p.weight * p.value(theta, forward) for p in self.penalties)
        return value, visible, code

    def _centre_(self, machine, out, offsets):
        """Make a gradient the step of the machine whose units count from the offsets.

        With o_l the offset of layer l, divided by s^2 where a weight sees v / s^2, it has the
        biases b_l + W_l-1 o_l-1 + W_l^T o_l+1 and the same weights.
        """
        visible, hidden = (offset.unsqueeze(0) for offset in offsets)
        own = [machine.columns(visible)[0], *(o[0] for o in machine.layers(visible, hidden))]
        n_layers, precision = len(own) - 1, machine.precision
        heard = [*own]
        if precision is not None:
            heard[0] = own[0] * precision[: machine.n_columns]
        biases = [out["visible_bias_0"], *(out[f"hidden_bias_{k}"] for k in range(n_layers))]
        weights = [out[f"weight_{k}"] for k in range(n_layers)]
        for level, weight in enumerate(weights):
            weight.addr_(biases[level + 1], heard[level], alpha=-1)
            weight.addr_(own[level + 1], biases[level], alpha=-1)
        for level, weight in enumerate(weights):
            biases[level].addmv_(weight.t(), own[level + 1], alpha=-1)
            biases[level + 1].addmv_(weight, heard[level], alpha=-1)
