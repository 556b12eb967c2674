"""How Boltzmann machines learn: the training criterion, and the `Model` of a machine.

The gradient of -log P(x) is that of F(x) minus its expectation under the model, which a mean over
particles replaces, samples that came out of Gibbs steps:

    mean_i F(x_i) - mean_m F(v_m),   v constant

Contrastive divergence (CD-k, Hinton 2002) runs k steps from the data; persistent contrastive
divergence (PCD, or stochastic maximum likelihood; Younes 1999, Tieleman 2008) keeps its chains from
one gradient step to the next.
"""

import math
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch

from skae.engine.boltzmann.conditionals import REAL, real_columns
from skae.engine.boltzmann.energies import BipartiteMachine
from skae.engine.boltzmann.joint import joint_learning
from skae.engine.boltzmann.memory import followed, frozen_chains, note_moves
from skae.engine.boltzmann.samplers import gibbs_step
from skae.engine.boltzmann.trajectories import (
    note_checkpoint,
    tempered_particles,
    trajectory_of,
)
from skae.engine.networks.forward import Forward
from skae.engine.networks.layers import Network, affine_chains
from skae.engine.optimisation import processes
from skae.engine.optimisation.models import Model
from skae.engine.optimisation.runs import Objective

# How fast the size of variances' steps follows that of recent batches.
_STEADY_RATE = 0.01
# Of so many rows the law of a real column is computed exactly in one, which costs six gradient
# steps of a row with many hidden units; and what the criterion then costs on a row in all.
_CORRECTED, _CRITERION_COST = 8, 1.5


class ContrastiveDivergence(Objective):
    """mean F(data) - mean F(particles) + the penalties.

    - ``machine(theta)``: the machine of parameters, see `skae.engine.boltzmann.energies`.
    - ``n_gibbs_steps``: steps of the chains for each gradient, the k of CD-k.
    - ``persistent``: whether ``n_chains`` chains go on from where the last step left them.
    - ``penalties``: from `skae.engine.networks.penalties`, on P(h = 1 | x) as code.
    - ``visible_offset``, of shape (n_visible,): where given, units are centred. Steps follow the
      gradient with respect to the parameters of E(v - visible_offset, h - hidden_offset), where the
      hidden offsets follow the units' means (Montavon & Mueller 2012; Melchior et al. 2016).
    - ``log_volume``, added to the criterion: sum_i log scale_i of standardised columns makes it a
      density of the data. Without it, the criterion cannot fall below ``least_loss``.
    - ``has_real_columns``: whether visible units are Gaussian, or some of them are.
    - ``n_checkpoints``: of the parameters at most so many are kept on the way, see
      `skae.engine.boltzmann.trajectories`.
    - ``tempered``: whether persistent chains swap rows with companions at these.
    - ``units`` and ``n_hidden``: the visible units and how many hidden ones there are, of a
      restricted machine; with them, several can be trained as one.

    What carries over from step to step, in ``state``: persistent ``chains`` (hidden units), their
    ``n_steps`` and which of them ``moved``, the ``hidden_offset`` of centred units, the
    ``variance_square`` of recent steps, the ``checkpoints``, and the chains' ``companions`` there.
    """

    is_noisy = True
    reports_loss = False

    def __init__(
        self,
        machine: Callable,
        n_gibbs_steps: int = 1,
        persistent: bool = False,
        n_chains: int = 100,
        penalties: Sequence = (),
        visible_offset: torch.Tensor | None = None,
        log_volume: float = 0.0,
        least_loss: float = 0.0,
        has_real_columns: bool = False,
        n_checkpoints: int = 0,
        tempered: bool = False,
        units: Any = None,
        n_hidden: int | None = None,
    ):
        self.machine, self.n_gibbs_steps, self.persistent = machine, n_gibbs_steps, persistent
        self.n_chains, self.penalties = n_chains, penalties
        self.visible_offset, self.log_volume = visible_offset, log_volume
        self.floor = log_volume + least_loss
        self.has_real_columns = has_real_columns
        self.n_checkpoints, self.tempered = n_checkpoints, tempered
        self.units, self.n_hidden, self.begins_jointly = units, n_hidden, False
        self.criterion_cost = _CRITERION_COST if has_real_columns else 1.0
        self.state = {}
        self._shares: dict[Any, torch.Tensor] = {}
        self._buffers: dict[Any, Any] = {}
        self._all_moved, self._latest = False, None

    @cached_property
    def joint(self):
        """How several are trained as one, where the machine is the restricted one."""
        is_known = type(self) is ContrastiveDivergence and self.n_hidden is not None
        return joint_learning(self) if is_known else None

    def value(self, theta, x, generator, row_weight=None):
        """The scalar on one batch whose gradient, in a metric, is the learning rule.

        It says nothing about progress (see `criterion`), and leaves the persistent chains where
        they are. The metric is `gradient`'s: without centring and learned variances, it is the
        gradient itself. Sample weights have mean 1 over the whole training set.
        """
        machine = self.machine(theta)
        with torch.no_grad():
            x = self._completed(machine, x)
            visible, _ = self._run_chains(machine, x, generator)
        share = self._share(len(x), len(visible) - len(x), row_weight, theta.flat)
        value = -torch.dot(share, machine.free_energy(visible))
        if self.penalties:
            codes = machine.codes(x, machine.code(x))
            forward = self._forward(machine, x, row_weight, generator, codes)
            value = value + sum(p.weight * p.value(theta, forward) for p in self.penalties)
        return value

    def gradient(self, theta, x, generator, out, row_weight=None):
        """Write the gradient of `value` into ``out`` and advance the chains.

        Each row counts by its share q, -w_i / n for data and w_i / n, or mean(w) / m where chains
        are persistent, for particles; `BipartiteMachine.contrast_` has the formulas and the
        metric. Penalties add what they ask of the code to the rows of data. The step of log s^2 is
        divided by its root mean square over recent batches, where that exceeds 1: a rare large
        value must count for as much as it does in the mean.
        """
        machine, n = self._machine_of(theta), x.shape[0]
        if self.n_checkpoints > 0:
            self._note(machine, theta, generator)
        x = self._completed(machine, x)
        visible, hidden = self._run_chains(machine, x, generator, keep=True)
        share = self._share(n, visible.shape[0] - n, row_weight, theta.flat)
        delta = offsets = None
        if self.penalties:
            codes = machine.codes(visible[:n], hidden[:n])
            delta = self._penalty_delta(machine, x, generator, codes, row_weight, out)
        if self.visible_offset is not None:
            offsets = self._offsets(visible[:n], hidden[:n])
        volatile = machine.contrast_(visible, hidden, share, out, delta=delta, offsets=offsets)
        if volatile is not None:
            self._steady_(volatile)

    def criterion(self, theta, x, generator, row_weight=None):
        """An estimate of -log PL(x) in nats: one variable of each row, drawn, times all.

        `gradient` descends on the likelihood, which is not known; this tells how far. Terms of real
        columns are costly: a parabola stands for all, and what it is wrong by in some rows, one
        column of each, is the estimate of what it is wrong by, so that there is no bias.
        """
        machine, n = self._machine_of(theta), len(x)
        n_variables = machine.n_variables
        variable = torch.randint(n_variables, (n,), generator=generator, device=x.device)
        a = machine.hidden_input(x)
        losses = x.new_full((n,), self.log_volume)
        if self.has_real_columns:
            kind, columns, *_ = machine.variables
            nearly = machine.laplace_log_likelihoods(x, a)
            losses -= nearly.sum(1)
            is_real = kind[variable] == REAL
            rows = torch.arange(n, device=x.device)
            rows = rows[~is_real | (rows % _CORRECTED == 0)]
            x, a, variable, is_real = x[rows], a[rows], variable[rows], is_real[rows]
            share = torch.where(is_real, n / math.ceil(n / _CORRECTED), 1.0).to(x.dtype)
            terms = machine.conditional_log_likelihood(x, a, variable)
            terms = terms - nearly[rows, columns[variable, 0]] * is_real
            losses[rows] -= n_variables * share * terms
        else:
            losses -= n_variables * machine.conditional_log_likelihood(x, a, variable)
        return losses.mean() if row_weight is None else (losses * row_weight).mean()

    def _machine_of(self, theta):
        """The machine of parameters in training, as they are now."""
        if self._latest is None or self._latest[0] is not theta:
            self._latest = theta, self.machine(theta)
        return self._latest[1].renewed()

    def _run_chains(self, machine, x, generator, keep=False):
        """The rows of x and below them the particles, and P(h = 1 | v) of both."""
        before = self.state.get("chains")
        n = m = x.shape[0]  # len() of a tensor takes twice as long
        if self.persistent:
            m = self.n_chains if before is None else before.shape[0]
        visible, code, *parts = self._buffers_for(machine, n, m)
        data, particles, data_code, particle_code = parts
        data.copy_(x)
        if not self.persistent:
            before = machine.sample_hidden(x, generator, code=data_code)
        elif before is None:
            before = machine.sample_hidden(x[torch.arange(m, device=x.device) % n], generator)
        if self.tempered and "checkpoints" in self.state:
            machine.sample_visible(before, generator, out=particles)
            moved, companions = tempered_particles(
                machine, self.state, particles, generator, self.n_gibbs_steps
            )
            particles.copy_(moved)
            if keep:
                self.state["companions"] = companions
        else:
            hidden = before
            if self.n_gibbs_steps > 1:
                step = gibbs_step(machine, generator, visible_out=particles, code_out=particle_code)
                for _ in range(self.n_gibbs_steps - 1):
                    _, hidden = step((particles, hidden))
            # Of the last step's hidden units the means are wanted.
            machine.sample_visible(hidden, generator, out=particles)
        if not self.persistent:
            machine.code(particles, out=particle_code)
            return visible, code
        # One product for both phases: at small batches it costs little more than one of them.
        machine.code(visible, out=code)
        if keep:
            self.state["chains"] = machine.draw_hidden(particle_code, generator)
            self._all_moved = note_moves(self.state, before, self._all_moved)
        return visible, code

    def _note(self, machine, theta, generator):
        """Keep a checkpoint if it is time to, with companions where the chains are now."""
        stay = note_checkpoint(self.state, theta.flat, self.n_checkpoints)
        companions = self.state.get("companions")
        if stay is not None and companions is not None:
            new = machine.sample_visible(self.state["chains"], generator).unsqueeze(1)
            # Those of checkpoints count from the earliest, companions from the latest.
            order = companions.shape[1] - stay.flip(0)
            self.state["companions"] = torch.cat([new, companions], 1)[:, order]

    @property
    def frozen_chains(self) -> torch.Tensor | None:
        """Which persistent chains did not move in the last whole window, or None before it."""
        return frozen_chains(self.state)

    def _buffers_for(self, machine, n, m):
        # An epoch has batches of two sizes at most; their buffers are made once.
        if (n, m) not in self._buffers:
            new = machine.theta.flat.new_empty
            whole = new(n + m, machine.n_visible), new(n + m, machine.n_hidden)
            halves = [half for units in whole for half in (units[:n], units[n:])]
            self._buffers[n, m] = *whole, *halves
        return self._buffers[n, m]

    def _share(self, n, m, row_weight, like):
        if row_weight is not None:
            if not self.persistent:
                return torch.cat([row_weight / -n, row_weight / n])
            return torch.cat([row_weight / -n, (row_weight.mean() / m).expand(m)])
        if (n, m) not in self._shares:
            self._shares[n, m] = torch.cat(
                [like.new_full((n,), -1.0 / n), like.new_full((m,), 1.0 / m)]
            )
        return self._shares[n, m]

    def _steady_(self, change):
        """Divide by the root mean square of recent batches; clipping would favour one sign."""
        change.copy_(processes.current().mean_of_batch(change))
        square = change.square()
        self.state["variance_square"] = torch.lerp(
            self.state.get("variance_square", square), square, _STEADY_RATE
        )
        change.div_(self.state["variance_square"].sqrt().clamp_(min=1.0))

    def _completed(self, machine, x):
        """Rows as visible units of the machine."""
        return x

    def _offsets(self, visible, hidden):
        """The offsets of visible and hidden units."""
        mean = processes.current().mean_of_batch(hidden.mean(0))
        return self.visible_offset, followed(self.state, "hidden_offset", mean)

    def _penalty_delta(self, machine, x, generator, code, row_weight, out):
        """Write what the penalties ask of the parameters; return what they ask of the code.

        That is the gradient with respect to the pre-activation of each row's hidden units.
        """
        out.flat.zero_()
        forward = self._forward(machine, x, row_weight, generator, code)
        forward.slope, forward.delta = code * (1 - code), torch.zeros_like(code)
        for penalty in self.penalties:
            if hasattr(penalty, "add_gradient_"):
                penalty.add_gradient_(machine.theta, forward, out)
                continue
            # A penalty that has a value alone.
            own = code.clone().requires_grad_()
            passed = self._forward(machine, x, row_weight, generator, own)
            with torch.enable_grad():
                value = penalty.weight * penalty.value(machine.theta.tracked(out), passed)
                if value.requires_grad:
                    value.backward()
            if own.grad is not None:
                forward.delta.addcmul_(own.grad, forward.slope, value=len(code))
        return forward.delta.div_(len(x))

    def _forward(self, machine, x, row_weight, generator, code):
        return Forward(machine.network, machine.units, x, row_weight, generator, [code])


def boltzmann_machine(
    units,
    n_visible: int,
    n_hidden: int,
    base_bias: torch.Tensor,
    *,
    least_variance: float | np.ndarray | None = None,
    shift: torch.Tensor | None = None,
    scale: torch.Tensor | None = None,
    report: Callable | None = None,
    kind: Callable = BipartiteMachine,
    criterion: Callable = ContrastiveDivergence,
    **learning,
) -> Model:
    """The `Model` of a restricted Boltzmann machine, of such a kind, trained by such a criterion.

    Visible units of ``base_bias`` are independent and have the means of the data. Their variances
    are learned between ``least_variance``, a number or one for each column, and 1; where that is
    None, they are 1. ``report`` is the model's; ``learning`` are parameters of
    `ContrastiveDivergence`, but for ``least_loss`` and ``has_real_columns``.
    """
    machine, learns_variance = partial(kind, units=units), least_variance is not None
    shapes = BipartiteMachine.shapes(n_visible, n_hidden, learns_variance=learns_variance)
    least_loss, project = variance_bounds(units, base_bias, least_variance)
    if kind is BipartiteMachine:
        learning |= {"units": units, "n_hidden": n_hidden}
    learning |= {"least_loss": least_loss, "has_real_columns": bool(real_columns(units))}
    network = Network((n_visible, n_hidden))
    encoder, decoder = affine_chains(network)
    return Model(
        shapes=shapes,
        start_=lambda theta, rows, index, generator: machine(theta).start_(base_bias, generator),
        encode=lambda theta, x: machine(theta).code(x),
        decode=lambda theta, code: machine(theta).visible_input(code),
        units=units,
        n_features=n_visible,
        n_codes=n_hidden,
        objective=lambda: criterion(machine, **learning),
        shift=shift,
        scale=scale,
        project=project,
        # Learned variances scale the data within the encoder.
        encoder=None if learns_variance else encoder,
        encoder_at=_divided(encoder) if learns_variance else None,
        decoder=decoder,
        untied=BipartiteMachine.untied,
        code_range=(0.0, 1.0),
        report=report,
        remember=trajectory_of,
        keeps_state=learning.get("n_checkpoints", 0) > 0,
    )


def _divided(encoder) -> Callable:
    """The encoder of given parameters, which sees columns over their learned variances."""

    def at(theta):
        precision = torch.exp(-theta["log_variance"])
        return (encoder[0]._replace(gain=precision, shift=torch.zeros_like(precision)),)

    return at


def variance_bounds(
    units, base_bias: torch.Tensor, least_variance: float | np.ndarray | None
) -> tuple[float, Callable | None]:
    """What no loss falls below, and the constraint on learned variances; None: there are none.

    They lie between ``least_variance``, a number or one for each column, and 1.
    """
    least = torch.ones_like(base_bias)
    if least_variance is not None:
        least *= torch.as_tensor(least_variance, dtype=least.dtype, device=least.device)
    least_log = torch.log(least)

    def project(theta):
        log_variance = theta["log_variance"]
        torch.maximum(log_variance, least_log, out=log_variance).clamp_(max=0.0)

    # The peak of a Gaussian of the least variance is what no density of a column exceeds.
    peaks = [0.5 * torch.log(2 * math.pi * least[real]).sum() for real in real_columns(units)]
    return float(sum(peaks)), None if least_variance is None else project
