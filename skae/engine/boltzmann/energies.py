r"""An energy is an object: parameters, and every law that follows from them.

`BipartiteMachine` is the restricted Boltzmann machine. Chains, tempering, annealing, learning
and stacks of machines work with any object that answers the same questions. What they ask:

- chains: ``sample_hidden(visible, generator, code=None)`` and ``sample_visible(hidden, generator,
  out=None)``, the two halves of a block Gibbs step, and ``units.is_discrete``, whether visible
  units that did not move tell of a chain that did not;
- tempering and annealing: ``tempered(base_bias)``, a path with the methods of `TemperedPath`;
- learning: ``renewed()``, the machine of its parameters after a step; ``n_visible`` and
  ``n_hidden``; ``code(visible, out=None)``, means of the hidden units given the visible ones, and
  ``draw_hidden(code, generator)``; ``free_energy(visible)``; ``contrast_``, which writes a step;
  ``n_variables`` and ``conditional_log_likelihood`` for the curve of the loss,
  ``laplace_log_likelihoods`` where that is to be estimated by few of its terms; with penalties
  ``network`` and ``units``, which they read, and ``codes(visible, hidden)``;
- deep belief networks: both inputs, both free energies.

A machine of several layers is a bipartite one between its even and its odd layers: a
`skae.engine.boltzmann.deep.DeepMachine`, whose ``visible`` and ``hidden`` hold several layers side
by side. ``completed``, ``columns`` and ``widened`` go between the data's columns and the former.
"""

import math
from functools import cached_property

import numpy as np
import torch

from skae.engine.boltzmann.conditionals import (
    Variables,
    conditional_log_likelihood,
    laplace_log_likelihoods,
    real_columns,
    variables_of,
)
from skae.engine.networks.activations import softplus
from skae.engine.networks.layers import Network, initialize_
from skae.engine.networks.products import affine
from skae.engine.optimisation.devices import bernoulli

# Enumeration visits 2^n states of the smaller layer that can be enumerated.
MAX_ENUMERATED = 20
# Numbers of a block of states, or of what the other layer is given them, held at a time.
_BLOCK = 2**22


class BipartiteMachine:
    r"""The restricted Boltzmann machine with such parameters.

        E(v, h) = E_v(v) - h.b - h W (v / s^2)       F(v) = -log sum_h exp(-E(v, h))

    with ``E_v(v) = -v.c`` for Bernoulli visible units and one-hot columns (s = 1) and
    ``1/2 |(v - c) / s|^2`` for Gaussian ones; of mixed columns it is the sum. The units' ``energy``
    says which. Hidden units are Bernoulli. Both conditionals factorise:

        P(h_j = 1 | v) = sigmoid(b + W (v / s^2))_j
        v | h ~ Bernoulli(c + h W), softmax(c + h W) over a category's columns, N(c + h W, s^2)

    It is a view: where the parameters ``theta`` change, so does the machine; the conditionals are
    also those of several machines of one shape, with one axis more, the first. Here alone stand
    their names, which are those of a network of one tied layer, so that penalties and affine maps
    apply to both. ``log_variance`` is among them where s is learned (the parametrisation of Cho,
    Ilin & Raiko 2011), and 0 for discrete columns; otherwise it is None, and s = 1.
    """

    _step: "BipartiteMachine | None" = None

    def __init__(self, theta, units):
        self.theta, self.units = theta, units
        self.weight = theta["weight_0"]
        self.hidden_bias, self.visible_bias = theta["hidden_bias_0"], theta["visible_bias_0"]
        self.log_variance = None
        if "log_variance" in theta:
            self.log_variance = theta["log_variance"]
        self.n_hidden, self.n_visible = self.weight.shape[-2:]

    @staticmethod
    def shapes(n_visible: int, n_hidden: int, *, learns_variance: bool = False) -> dict:
        """Name and shape of each parameter."""
        shapes = dict(Network((n_visible, n_hidden)).parameter_shapes)
        return shapes | {"log_variance": (n_visible,)} if learns_variance else shapes

    @staticmethod
    def untied(weights: dict) -> dict:
        """Arrays of a machine as those of the auto-encoder that does the same in the mean field."""
        n_hidden, n_visible = weights["weight_0"].shape
        arrays = Network((n_visible, n_hidden)).untied_weights(weights)
        if "log_variance" in weights:
            # The energy has v / s^2 for v; the means of visible units have no such factor.
            arrays["weight_0"] *= np.exp(-weights["log_variance"])
        return arrays

    @property
    def network(self) -> Network:
        """The network of one tied layer with the same parameters, but for the variances."""
        return Network((self.n_visible, self.n_hidden))

    @cached_property
    def variables(self) -> Variables:
        """Which columns are one variable, and of which kind."""
        return variables_of(self.units, self.n_visible, self.visible_bias.device)

    @property
    def n_variables(self) -> int:
        """How many variables the visible units are."""
        return len(self.variables.kind)

    @property
    def precision(self) -> torch.Tensor | None:
        """1 / s^2 of each visible unit, or None where it is 1."""
        return None if self.log_variance is None else torch.exp(-self.log_variance)

    # What of its layers are columns of the data: here all visible units are.

    def completed(self, x: torch.Tensor) -> torch.Tensor:
        """Visible units that go with rows of data: the rows themselves."""
        return x

    def drawn(self, x: torch.Tensor, generator: torch.Generator) -> tuple:
        """Visible units that go with rows, drawn, and the logarithm of how likely the draw was.

        There is nothing to draw here.
        """
        return x, x.new_zeros(len(x))

    def columns(self, visible: torch.Tensor) -> torch.Tensor:
        """The data's columns among the visible units: all of them."""
        return visible

    def widened(self, bias: torch.Tensor) -> torch.Tensor:
        """Biases of independent visible units that have those of the data's columns."""
        return bias

    def codes(self, visible: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """What penalties see as the code: the hidden units."""
        return hidden

    def over(self, theta) -> "BipartiteMachine":
        """The same kind of machine over other parameters, or over a gradient."""
        return BipartiteMachine(theta, self.units)

    def renewed(self) -> "BipartiteMachine":
        """The machine of its parameters as they are now: a view is always that."""
        return self

    # Conditionals

    def hidden_input(self, visible: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """Pre-activation of the hidden units, b + W (v / s^2), shape (n_samples, n_hidden)."""
        precision = self.precision
        scaled = visible if precision is None else visible * precision
        return affine(self.hidden_bias, scaled, self.weight.mT, out)

    def visible_input(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits or means of the visible units, c + h W, shape (n_samples, n_visible)."""
        return affine(self.visible_bias, hidden, self.weight)

    def code(self, visible: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """P(h = 1 | v), shape (n_samples, n_hidden)."""
        return self.hidden_input(visible, out).sigmoid_()

    def sample_hidden(self, visible, generator, code=None) -> torch.Tensor:
        """One draw of every hidden unit given the visible ones; ``code`` is memory for P(h | v)."""
        return self.draw_hidden(self.code(visible, code), generator)

    def draw_hidden(self, code: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """One draw of hidden units that have such means."""
        return bernoulli(code, generator)

    def sample_visible(self, hidden, generator, out=None) -> torch.Tensor:
        """One draw of every visible unit given the hidden ones."""
        return self.units.sample(self.visible_input(hidden), generator, self.precision, out)

    def conditional_log_likelihood(self, visible, a, variable) -> torch.Tensor:
        """Log P(v_i | v_-i) of each row, for one variable i each or the same in all rows.

        ``a`` is the rows' `hidden_input`; ``variable`` has shape (n_samples,) or (1,).
        """
        return conditional_log_likelihood(self, visible, a, variable)

    def laplace_log_likelihoods(self, visible, a) -> torch.Tensor:
        """Log P(v_i | v_-i) of every real column, nearly, shape of ``visible``; 0 of others."""
        return laplace_log_likelihoods(self, visible, a)

    # Energies

    def visible_energy(self, visible: torch.Tensor) -> torch.Tensor:
        """E_v(v) of each row: the energy of the visible units alone."""
        return self.units.energy(visible, self.visible_bias, self.precision)

    def energy(self, visible: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """E(v, h) of each pair of rows, shape (n_samples,)."""
        interaction = (hidden * self.hidden_input(visible)).sum(-1)
        return self.visible_energy(visible) - interaction

    def free_energy(self, visible: torch.Tensor) -> torch.Tensor:
        """F(v) = E_v(v) - sum_j softplus(b + W (v / s^2))_j of each row, shape (n_samples,)."""
        return self.visible_energy(visible) - softplus(self.hidden_input(visible)).sum(-1)

    def hidden_free_energy(self, hidden: torch.Tensor) -> torch.Tensor:
        """G(h) = -h.b - log int exp(h W (v / s^2) - E_v(v)) dv of each row, shape (n_samples,)."""
        u = hidden @ self.weight
        visible = self.units.log_normalizer(u, self.visible_bias, self.precision)
        return -(hidden @ self.hidden_bias) - visible

    @property
    def n_enumerated(self) -> int:
        """How many units exact enumeration has to enumerate: of the visible ones, only binary."""
        smaller = min(self.n_hidden, self.n_visible)
        return smaller if self.units.is_binary else self.n_hidden

    def log_partition(self) -> torch.Tensor:
        """Log Z, by enumerating one layer and summing or integrating the other analytically.

        log Z = log sum_h exp(-G(h)), or log sum_v exp(-F(v)) where the visible units are fewer.
        Costs 2^n for n units: see `n_enumerated`. Differentiable.
        """
        over_hidden = self.n_hidden == self.n_enumerated
        of_states = self.hidden_free_energy if over_hidden else self.free_energy
        width = self.n_hidden + self.n_visible
        blocks = binary_states(self.n_enumerated, self.theta.flat, width=width)
        totals = [torch.logsumexp(-of_states(states), 0) for states in blocks]
        return torch.logsumexp(torch.stack(totals), 0)

    def tempered(self, base_bias: torch.Tensor) -> "TemperedPath":
        """The laws between independent visible units with such biases and this machine."""
        return TemperedPath(self, base_bias)

    # Learning

    def start_(self, base_bias: torch.Tensor, generator: torch.Generator) -> None:
        """Set the parameters with which training begins.

        Visible units of ``base_bias``, without hidden ones, have the means of the data.
        """
        initialize_(self.theta, self.network, base_bias, generator)
        # Hidden units begin at 1/2: what they add to the visible units' input is taken off
        # again, so that these begin at the means of the data.
        self.visible_bias.sub_(self.weight.sum(0), alpha=0.5)

    def contrast_(
        self, visible, hidden, share, out, *, delta=None, offsets=None
    ) -> torch.Tensor | None:
        """Write the step of sum_i q_i (-F(v_i)) over rows into ``out``.

        With h = P(h = 1 | v) and q the share of each row:

            dW = (q h)^T v / s^2,   db = sum q h,   dc = sum q v / s^2

        Learned variances s^2 make these steps longest where the units are most sensitive: dW and
        dc are multiplied by s^2 again. Those of discrete columns do not change. Where units are
        centred, the step is that of the centred machine: v and h are counted from their offsets in
        dW, and dc -= dW^T (hidden offset), db -= dW (visible offset).

        ``visible`` and ``hidden``, their `code`, are overwritten. ``delta``, of shape (n_first,
        n_hidden), is what penalties add to the gradient with respect to the hidden units'
        pre-activation in the first rows; ``out`` then holds what they ask of the parameters, and
        is added to. ``offsets`` has shapes (n_visible,) and (n_hidden,).

        Returns the part of ``out`` whose size varies so much that it has to be kept steady, or
        None.
        """
        if self._step is None or self._step.theta is not out:  # the same one in all of a training
            self._step = BipartiteMachine(out, self.units)
        step, precision = self._step, self.precision
        keep = 0 if delta is None else 1
        if precision is not None:
            if delta is None:
                step.log_variance.zero_()
            else:
                step.weight.div_(precision)
                step.visible_bias.div_(precision)
            for real in real_columns(self.units):
                own, weight, factor = visible[:, real], self.weight[:, real], precision[real]
                # d/dz for s^2 = exp(z): sum over rows of q ((v - c)^2 / 2 - v (h W)) / s^2.
                square = (own - self.visible_bias[real]).square_().mul_(0.5)
                square.addcmul_(own, hidden @ weight, value=-1)
                change = torch.mv(square.t(), share)
                if delta is not None:
                    change.sub_((own[: len(delta)] * (delta @ weight)).sum(0))
                step.log_variance[real] += change.mul_(factor)
        step.visible_bias.addmv_(visible.t(), share, beta=keep)
        step.hidden_bias.addmv_(hidden.t(), share, beta=keep)
        if offsets is not None:
            visible.sub_(offsets[0])
            hidden.sub_(offsets[1])
        hidden.mul_(share.unsqueeze(1))
        if delta is not None:
            hidden[: len(delta)] += delta
            step.hidden_bias.add_(delta.sum(0))
        step.weight.addmm_(hidden.t(), visible, beta=keep)
        self._cut_(step.weight)
        if offsets is not None:
            step.visible_bias.addmv_(step.weight.t(), offsets[1], alpha=-1)
            step.hidden_bias.addmv_(step.weight, offsets[0], alpha=-1)
        return step.log_variance

    def _cut_(self, weight):
        """Set a step to 0 where units do not hear each other: here all do."""


class TemperedPath:
    """The laws P_beta(v) between independent visible units and a machine.

    At inverse temperature beta the energy is a mixture of that of independent units with biases of
    their own, and the machine's:

        E_beta(v, h) = (1 - beta) E_v(v; base bias) + beta E(v, h)

    ``base_bias``, of shape (n_visible,), are the logits or means of the independent units.
    """

    def __init__(self, machine: BipartiteMachine, base_bias: torch.Tensor):
        self.machine, self.base_bias = machine, base_bias
        self.units, self.precision = machine.units, machine.precision

    def start(self, n_chains: int, generator: torch.Generator) -> torch.Tensor:
        """Exact draws of the visible units at beta = 0."""
        return self.units.sample(self.base_bias.repeat(n_chains, 1), generator, self.precision)

    def log_base_partition(self) -> torch.Tensor:
        """Log Z at beta = 0, with hidden units that are on or off alike."""
        nothing = torch.zeros_like(self.base_bias)
        visible = self.units.log_normalizer(nothing, self.base_bias, self.precision)
        return visible + self.machine.n_hidden * math.log(2.0)

    def energies(self, visible: torch.Tensor) -> tuple:
        """What `log_density` and `step` need to know of the rows, whatever the beta.

        The energies of the visible units alone, under the base and the machine's biases, and the
        pre-activations of the hidden units, shape (n_chains, n_hidden).
        """
        base = self.units.energy(visible, self.base_bias, self.precision)
        return base, self.machine.visible_energy(visible), self.machine.hidden_input(visible)

    def log_density(self, energies, beta) -> torch.Tensor:
        """Log of the unnormalised P_beta(v) of each row; ``beta`` a number or one per row."""
        base, machine, a = energies
        return softplus(_column(beta) * a).sum(1) - (1 - beta) * base - beta * machine

    def step(self, energies, beta, generator: torch.Generator) -> torch.Tensor:
        """One block Gibbs step at ``beta``, h given v and v' given h; returns v'."""
        beta = _column(beta)
        hidden = bernoulli(torch.mul(energies[2], beta).sigmoid_(), generator)
        bias = self.base_bias.expand(len(hidden), -1)
        pre = torch.lerp(bias, self.machine.visible_input(hidden), beta)
        return self.units.sample(pre, generator, self.precision)


def _column(beta):
    return beta.unsqueeze(1) if isinstance(beta, torch.Tensor) else beta


def binary_states(n_units: int, like: torch.Tensor, width: int | None = None):
    """All 2^n states of binary units, in blocks of rows of zeros and ones, dtype as of ``like``.

    A block is small enough for ``width`` numbers to be held for each state, or for ``n_units``.
    """
    step = max(1, _BLOCK // (n_units if width is None else width))
    digit = 2 ** torch.arange(n_units, device=like.device)
    for start in range(0, 2**n_units, step):
        number = torch.arange(start, min(start + step, 2**n_units), device=like.device)
        yield (number.unsqueeze(1) & digit).ne(0).to(like.dtype)
