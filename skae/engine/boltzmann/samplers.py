r"""Samples from Boltzmann machines: chains of one, and draws through a stack of them.

A chain is a step function and a schedule:

    state -> step(state) -> step(step(state)) -> ...

A state is a tuple of tensors whose first axis is chains; all chains of a run advance together, as
one batch. What a step does is up to the sampler; how long to run and what to keep is the
schedule's.

A sampler is a function of a machine and a generator that returns a step. Those that users choose
by name are in `SAMPLERS`. A sampler may also take, by these names, ``base_bias``, the biases of
independent visible units that have the means of the data, ``n_temperatures``, and ``checkpoints``,
what the machine's parameters were in training, of shape (n_checkpoints, n_parameters). Its steps
take states (visible, hidden). If they take other ones, the step has methods that say so:
``start(visible)`` returns the state to start from, ``visible(state)`` its visible units.

Parallel tempering and annealing walk along the laws P_beta between beta = 0, where all units are
independent, and beta = 1, the machine: a `TemperedPath` of `skae.engine.boltzmann.energies`. Hot
chains cross between modes. Parallel tempering hands what they find down to the cold one (Desjardins
et al. 2010; Cho et al. 2010); annealed importance sampling walks from 0 to 1 and weighs the walks
(Neal 2001; Salakhutdinov & Murray 2008).

A deep belief network is a stack of restricted Boltzmann machines as one model,

    P(v, h_1, ..., h_L) = P_1(v | h_1) P_2(h_1 | h_2) ... P_L(h_L-1, h_L)

Only the top machine, in which chains run, keeps its own prior; below it, each machine gives the
downward conditional P_l. Its upward one, Q_l(h_l | h_l-1), is no longer the posterior but an
approximation of it. With E_l the energy of machine l, and the free energies of its two layers,

    F_l(x) = -log sum_h exp(-E_l(x, h))       G_l(h) = -log sum_x exp(-E_l(x, h))

both conditionals are exp(-E_l) normalised, so that log P_l(x | h) / Q_l(h | x) is G_l(h) - F_l(x),
and the variational lower bound (Hinton, Osindero & Teh 2006) is

    log P(v) >= -F_1(v) + sum_l=1..L-1 E_Q[G_l(h_l) - F_l+1(h_l)] - log Z_L

Each machine replaces the prior that the one below has of its hidden units. What is averaged is the
logarithm of a ratio of the two: it is constant where they agree.

A list ``machines`` goes from the data upwards. The visible units of all but the lowest are binary.
"""

import inspect
import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch

from skae.engine.optimisation.devices import widest_dtype
from skae.engine.optimisation.parameters import Registry

SAMPLERS = Registry()


class Schedule(NamedTuple):
    """How long chains run and which of their states are kept.

    ``n_samples`` of each chain: the first after ``burn_in`` steps, ``thinning`` from one to the
    next.
    """

    n_samples: int = 1
    burn_in: int = 0
    thinning: int = 1

    @property
    def n_steps(self) -> int:
        """Steps in all."""
        return self.burn_in + (self.n_samples - 1) * self.thinning

    def keeps(self, n_done: int) -> bool:
        """Whether the state after ``n_done`` steps is kept."""
        after = n_done - self.burn_in
        return after >= 0 and after % self.thinning == 0


class Run(NamedTuple):
    """What `run_chains` returns.

    - ``samples``, of shape (n_samples, n_chains, ...): what was kept, in order.
    - ``state``: that after the last step, to continue from.
    - ``moved``, of shape (n_chains,): whether a chain was ever elsewhere than at its start.
    """

    samples: torch.Tensor
    state: tuple
    moved: torch.Tensor


def run_chains(
    step: Callable,
    state: tuple,
    schedule: Schedule,
    *,
    keep: Callable,
    watch: Callable | None = None,
    listener: Callable | None = None,
) -> Run:
    """Advance chains by a schedule; a ValueError if a step returns no tuple.

    ``keep`` goes from a state to the tensor that is kept of it, ``watch`` to that by which a chain
    is seen to move (None: the same). ``listener(steps done, steps in all)`` is called after each.
    """
    watch = watch or keep
    start, kept = watch(state), keep(state)
    samples = kept.new_empty(schedule.n_samples, *kept.shape)
    moved = torch.zeros(len(start), dtype=torch.bool, device=start.device)
    all_moved = False
    if schedule.keeps(0):
        samples[0] = kept
    for n_done in range(1, schedule.n_steps + 1):
        state = step(state)
        if not isinstance(state, tuple):
            raise ValueError(
                f"A step returned a {type(state).__name__}: it has to return a state as it took "
                "one, a tuple of tensors with one row for each chain."
            )
        if not all_moved:
            moved |= (watch(state) != start).view(len(moved), -1).any(1)
            all_moved = bool(moved.all())
        if schedule.keeps(n_done):
            samples[(n_done - schedule.burn_in) // schedule.thinning] = keep(state)
        if listener is not None:
            listener(n_done, schedule.n_steps)
    return Run(samples, state, moved)


@SAMPLERS.named("gibbs")
def gibbs_step(machine, generator: torch.Generator, *, visible_out=None, code_out=None):
    """A step (v, h) -> (v', h') with v' ~ P(v | h) and h' ~ P(h | v'): it leaves P(v, h) invariant.

    Training takes the same steps as sampling, in memory that it uses again and again:
    ``visible_out`` for the visible units, ``code_out`` for the means of the hidden ones.
    """

    def step(state):
        _, hidden = state
        visible = machine.sample_visible(hidden, generator, out=visible_out)
        return visible, machine.sample_hidden(visible, generator, code=code_out)

    return step


class ClampedUnits:
    """Visible units of a machine of which some have given values in each chain.

    ``is_given`` and ``values`` have shape (n_chains, n_visible). Draws of several rows for each
    chain lie together. What is drawn are the others given these: energies are as they were.
    """

    def __init__(self, units, is_given: torch.Tensor, values: torch.Tensor):
        self.units, self.is_given, self.values = units, is_given, values

    def __getattr__(self, name):
        return getattr(self.units, name)

    def sample(self, a, generator, precision=None, out=None) -> torch.Tensor:
        """One draw of each column that is free, and the values of the others."""
        return self.on(self.units.sample(a, generator, precision, out))

    def on(self, visible: torch.Tensor) -> torch.Tensor:
        """Write the given values into rows, and return these."""
        n_rows, n_chains = len(visible), len(self.values)
        chain = torch.arange(n_rows, device=visible.device) * n_chains // n_rows
        return visible.copy_(torch.where(self.is_given[chain], self.values[chain], visible))


def gibbs_state(machine, visible: torch.Tensor, generator: torch.Generator) -> tuple:
    """A state to start from: visible units, and hidden ones drawn given them."""
    return visible, machine.sample_hidden(visible, generator)


class ParallelTempering:
    """A step on states (visible,) of chains at several temperatures, ``betas`` from 1 downwards.

    Neighbours swap their rows with probability min(1, P_a(v_b) P_b(v_a) / P_a(v_a) P_b(v_b)),
    even and odd pairs in turn, from those of a ``parity``; then every temperature takes a Gibbs
    step along a `TemperedPath`.
    """

    def __init__(self, path, betas: torch.Tensor, generator: torch.Generator, parity: int = 0):
        self.path, self.betas, self.generator = path, betas, generator
        self._tried = torch.zeros(len(betas) - 1, dtype=torch.float32, device=betas.device)
        self._accepted = torch.zeros_like(self._tried)
        self._parity = parity if len(betas) > 2 else 0

    def start(self, visible: torch.Tensor) -> tuple:
        """The state in which all temperatures of a chain have its row."""
        return (visible.unsqueeze(1).repeat(1, len(self.betas), 1),)

    def visible(self, state: tuple) -> torch.Tensor:
        """The rows of the cold chains."""
        return state[0][:, 0]

    def __call__(self, state: tuple) -> tuple:
        """The next state: one tensor of shape (n_chains, n_temperatures, n_visible)."""
        (visible,) = state
        beta = self.betas.repeat(len(visible))
        energies = self.path.energies(visible.flatten(0, 1))
        if len(self.betas) > 1:
            order = self._swap(energies, beta, len(visible))
            energies = [part[order] for part in energies]
        return (self.path.step(energies, beta, self.generator).view(visible.shape),)

    @property
    def swap_rates(self) -> torch.Tensor:
        """The fraction of accepted swaps of each pair so far; NaN where none was tried."""
        return self._accepted / self._tried

    def _swap(self, energies, beta, n_chains):
        """Which row each temperature of each chain has after the swaps."""
        betas, device = self.betas, self.betas.device
        upper = torch.arange(self._parity, len(betas) - 1, 2, device=device)
        self._parity = 1 - self._parity if len(betas) > 2 else 0
        here, as_colder, as_warmer = (
            self.path.log_density(energies, b).view(n_chains, -1)
            for b in (beta, betas.roll(1).repeat(n_chains), betas.roll(-1).repeat(n_chains))
        )
        gain = as_colder[:, upper + 1] + as_warmer[:, upper]
        gain = gain - here[:, upper] - here[:, upper + 1]
        swaps = torch.log(torch.empty_like(gain).uniform_(generator=self.generator)) < gain
        self._tried[upper] += n_chains
        self._accepted[upper] += swaps.sum(0)
        order = torch.arange(len(beta), device=device).view(n_chains, -1)
        order[:, upper] += swaps.long()
        order[:, upper + 1] -= swaps.long()
        return order.flatten()


@SAMPLERS.named("tempering")
def parallel_tempering(machine, generator, base_bias, n_temperatures) -> ParallelTempering:
    """Parallel tempering at so many temperatures, equally far apart from 1 to 0."""
    if n_temperatures < 2:
        raise ValueError(f"Tempering needs n_temperatures of at least 2, not {n_temperatures}.")
    betas = torch.linspace(1, 0, n_temperatures, dtype=torch.float32).to(base_bias)
    return ParallelTempering(machine.tempered(base_bias), betas, generator)


class Chains(NamedTuple):
    """What runs chains of a sampler on a machine.

    ``step`` goes from a state to the next, ``start`` from visible units, one row for each chain, to
    the state to start from, ``visible`` from a state to its visible units, and ``watched`` to what
    stays the same where a chain does not move.
    """

    step: Callable
    start: Callable
    visible: Callable
    watched: Callable


def make_chains(make: Callable, machine, generator: torch.Generator, **settings) -> Chains:
    """The chains of a sampler, ``make``, on a machine; a ValueError if what it returns is no step.

    ``settings`` are ``base_bias``, ``n_temperatures`` and ``checkpoints``, for samplers that take
    them.
    """
    taken = inspect.signature(make).parameters
    step = make(machine, generator, **{n: value for n, value in settings.items() if n in taken})
    try:
        inspect.signature(step).bind(None)
    except (TypeError, ValueError):
        raise ValueError(f"{make!r} is no sampler: it returned {step!r}. {_SIGNATURE}") from None
    if hasattr(step, "start"):
        return Chains(step, step.start, step.visible, step.visible)
    # Gaussian units move at every step, whether or not the chain does.
    watched = _visible if machine.units.is_discrete else _hidden
    return Chains(step, lambda v: gibbs_state(machine, v, generator), _visible, watched)


def check_sampler(make) -> list[str]:
    """Raise a ValueError for what is no sampler; return the names of the settings it takes."""
    try:
        parameters = inspect.signature(make)
        taken = [name for name in _SETTINGS if name in parameters.parameters]
        parameters.bind(None, None, **dict.fromkeys(taken))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{make!r} is no sampler. {_SIGNATURE}") from error
    return taken


# What samplers may ask for beyond a machine and a generator.
_SETTINGS = ("base_bias", "n_temperatures", "checkpoints")
_SIGNATURE = (
    "A sampler is a function (machine, generator) -> step, which may also take base_bias, "
    "n_temperatures and checkpoints, and step a function from a state (visible, hidden) to the "
    "next."
)


def _visible(state):
    return state[0]


def _hidden(state):
    return state[1]


class AnnealedEstimate(NamedTuple):
    """log Z by importance sampling, and how far to trust it.

    The ``standard_error`` is from the spread of the chains' weights: sqrt(var(w) / n) / mean(w).
    Where ``effective_chains``, (sum w)^2 / sum w^2, are near 1, one chain decides and the error
    means nothing.
    """

    log_partition: float
    standard_error: float
    effective_chains: float


def annealed_importance_sampling(
    path,
    betas: torch.Tensor,
    n_chains: int,
    generator: torch.Generator,
    listener: Callable | None = None,
) -> AnnealedEstimate:
    """Estimate the machine's log Z by walking chains from beta = 0 to 1.

    A chain starts with an exact draw at beta = 0, whose log Z is known, and takes one Gibbs step at
    each beta in between. The expectation of its weight is Z_1 / Z_0:

        w = prod_k P(v_k; beta_k) / P(v_k; beta_k-1)    (unnormalised)

    ``betas`` increase from 0 to 1, on the CPU; ``path`` is a `TemperedPath`, and ``listener`` that
    of `run_chains`.
    """
    pairs = zip(betas[:-1].tolist(), betas[1:].tolist(), strict=True)

    def step(state):
        visible, log_weight = state
        before, beta = next(pairs)
        energies = path.energies(visible)
        change = path.log_density(energies, beta) - path.log_density(energies, before)
        return path.step(energies, beta, generator), log_weight + change.to(log_weight.dtype)

    visible = path.start(n_chains, generator)
    # A sum of thousands of small terms; MPS has no float64.
    precise = widest_dtype(visible.device)
    state = visible, torch.zeros(n_chains, dtype=precise, device=visible.device)
    schedule = Schedule(burn_in=len(betas) - 1)
    run = run_chains(step, state, schedule, keep=lambda state: state[1], listener=listener)
    return _estimate(run.samples[0], float(path.log_base_partition()))


def reverse_annealing(
    path,
    betas: torch.Tensor,
    visible: torch.Tensor,
    generator: torch.Generator,
    listener: Callable | None = None,
) -> torch.Tensor:
    """Log of an unbiased estimate of each row's probability under annealing, (n_samples,).

    Annealing that draws at beta = 0 and takes one Gibbs step at each later beta ends in rows of a
    law P_a(v) of its own, near that of the machine. A chain that starts at the row and takes the
    steps backwards, each of which is its own reverse, weighs how it could have come there, x_K = v,
    x_k drawn from x_k+1 at beta_k+1 (Burda, Grosse & Salakhutdinov 2015):

        w = exp(-F(v)) / Z_0 prod_k=K-1..0 P(x_k; beta_k) / P(x_k; beta_k+1)    (unnormalised)

    E[w] = P_a(v), so that log w is, in expectation, a lower bound on log P_a(v). Where rows are
    drawn from the machine itself, E[w exp(F(v))] = 1 / Z: an upper bound on log Z. Arguments are
    those of `annealed_importance_sampling`; ``visible`` are all visible units.
    """
    pairs = pairwise(betas.flip(0).tolist())

    def step(state):
        energies, log_weight = state
        beta, before = next(pairs)
        energies = path.energies(path.step(energies, beta, generator))
        change = path.log_density(energies, before) - path.log_density(energies, beta)
        return energies, log_weight + change.to(log_weight.dtype)

    precise = widest_dtype(visible.device)
    energies = path.energies(visible)
    log_weight = path.log_density(energies, 1.0).to(precise)
    schedule = Schedule(burn_in=len(betas) - 1)
    state = energies, log_weight - path.log_base_partition().to(precise)
    return run_chains(step, state, schedule, keep=lambda s: s[1], listener=listener).samples[0]


def _estimate(log_weight, log_base):
    n_chains = len(log_weight)
    log_mean = float(torch.logsumexp(log_weight, 0)) - math.log(n_chains)
    relative = torch.exp(log_weight - log_mean)
    error = float(relative.std()) / math.sqrt(n_chains)
    effective = float(relative.sum() ** 2 / relative.square().sum())
    return AnnealedEstimate(log_base + log_mean, error, effective)


def annealing_temperatures(n_temperatures: int) -> torch.Tensor:
    """Inverse temperatures from 0 to 1, denser towards 1 (after Salakhutdinov & Murray).

    Of every 29 intervals one covers [0, 0.5], eight [0.5, 0.9] and twenty [0.9, 1].
    """
    n_intervals = n_temperatures - 1
    first = max(1, round(n_intervals / 29))
    second = max(1, round(n_intervals * 8 / 29))
    third = max(1, n_intervals - first - second)
    parts = [
        torch.linspace(low, high, n + 1, dtype=torch.float64)[:-1]
        for low, high, n in ((0.0, 0.5, first), (0.5, 0.9, second), (0.9, 1.0, third))
    ]
    return torch.cat([*parts, torch.ones(1, dtype=torch.float64)])


def sample_downwards(
    machines: Sequence, states: torch.Tensor, generator: torch.Generator, means: bool = False
) -> torch.Tensor:
    """The visible units of the lowest machine, given states of those of the top one, h_L-1.

    With ``means``, the last step gives the means of P_1(v | h_1) instead of a draw. Of a single
    machine, h_1 is drawn given the states first.
    """
    lowest = machines[0]
    if len(machines) == 1:
        if not means:
            return states
        states = lowest.sample_hidden(states, generator)
    for machine in reversed(machines[1:-1]):
        states = machine.sample_visible(states, generator)
    if means:
        return lowest.units.mean(lowest.visible_input(states))
    return lowest.sample_visible(states, generator)


def variational_bound(
    machines: Sequence, visible: torch.Tensor, generator: torch.Generator, n_draws: int = 1
) -> torch.Tensor:
    """The lower bound on log P(v) + log Z_L of each row in nats, by draws of Q.

    It is a mean over draws of h_1, ..., h_L-1; with a single machine it is -F(v), exactly. A row's
    value is the same whatever rows are beside it. Rows of Gaussian units are standardised, and so
    is the density.
    """
    bound = -machines[0].free_energy(visible)
    if len(machines) == 1:
        return bound
    first, gains = machines[0].hidden_input(visible), torch.zeros_like(bound)
    for _ in range(n_draws):
        gains += _gain(machines, first, generator)
    return bound.add_(gains, alpha=1 / n_draws)


def _gain(machines, pre, generator):
    """sum_l G_l(h_l) - F_l+1(h_l) for one draw; ``pre`` is the input of h_1."""
    gain = 0.0
    for lower, upper in pairwise(machines):
        states = _rotated_draw(pre, generator)
        gain = gain + lower.hidden_free_energy(states) - upper.free_energy(states)
        pre = upper.hidden_input(states)
    return gain


def _rotated_draw(pre, generator):
    """Units that are 1 with probability sigmoid(pre), by random numbers that all rows share.

    Each is rotated by its unit's input, modulo 1 (Cranley & Patterson 1976): uniform still, a
    function of the row alone, and hardly correlated between rows whose inputs differ.
    """
    shared = torch.rand(pre.shape[1], generator=generator, dtype=pre.dtype, device=pre.device)
    return torch.remainder(shared + pre, 1.0).lt(torch.sigmoid(pre)).to(pre.dtype)
