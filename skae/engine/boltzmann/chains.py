"""A chain is a step function and a schedule.

    state -> step(state) -> step(step(state)) -> ...

A state is a tuple of tensors whose first axis is chains; all chains of a run advance together, as
one batch. What a step does is up to the sampler; how long to run and what to keep is the
schedule's.

A sampler is a function of a machine and a generator that returns a step. Those that users choose
by name are in `SAMPLERS`: block Gibbs sampling here, parallel tempering in
`skae.engine.boltzmann.tempering`. A sampler may also take, by these names, ``base_bias``, the
biases of independent visible units that have the means of the data, and ``n_temperatures``. Its
steps take states (visible, hidden). If they take other ones, the step has methods that say so:
``start(visible)`` returns the state to start from, ``visible(state)`` its visible units.
"""

import inspect
from collections.abc import Callable
from typing import NamedTuple

import torch

from skae.engine.optimisation.parameters import Registry

SAMPLERS = Registry()


class Schedule(NamedTuple):
    """How long chains run and which of their states are kept.

    Attributes
    ----------
    n_samples : int
        States kept of each chain.
    burn_in : int
        Steps before the first of them.
    thinning : int
        Steps from one to the next.
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

    Attributes
    ----------
    samples : Tensor of shape (n_samples, n_chains, ...)
        What was kept, in order.
    state : tuple of Tensor
        After the last step, to continue from.
    moved : Tensor of bool of shape (n_chains,)
        Whether a chain was ever elsewhere than at its start.
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
    """Advance chains by a schedule.

    Parameters
    ----------
    step : callable
        From a state to the next.
    state : tuple of Tensor
    schedule : Schedule
    keep : callable
        From a state to the tensor that is kept of it.
    watch : callable, default=None
        From a state to the tensor by which a chain is seen to move. None: ``keep``.
    listener : callable, default=None
        Called with (steps done, steps in all) after each.

    Returns
    -------
    run : Run

    Raises
    ------
    ValueError
        If a step returns no tuple.
    """
    watch = keep if watch is None else watch
    start, kept = watch(state), keep(state)
    samples = kept.new_empty(schedule.n_samples, *kept.shape)
    moved = torch.zeros(len(start), dtype=torch.bool, device=start.device)
    all_moved = False
    if schedule.keeps(0):
        samples[0] = keep(state)
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


def n_stuck(frozen: torch.Tensor, states: torch.Tensor, n_chains: int | None = None) -> int:
    """How many chains did not move, though there is somewhere else to be.

    Chains that rest in one state, all the same, may be where the machine nearly always is; chains
    that rest in different ones are stuck.

    Parameters
    ----------
    frozen : Tensor of bool of shape (n_chains,)
        Which did not move.
    states : Tensor of shape (n_chains, ...)
        Where they are.
    n_chains : int, default=None
        How many of the first ones count; the others are there for comparison.
    """
    resting = states[frozen]
    if len(resting) == 0 or bool((resting == resting[0]).all()):
        return 0
    return int(frozen[:n_chains].sum())


@SAMPLERS.named("gibbs")
def gibbs_step(machine, generator: torch.Generator, *, visible_out=None, code_out=None):
    """A step function on states (visible, hidden) that leaves P(v, h) invariant.

    Training takes the same steps as sampling, in memory that it uses again and again.

    Parameters
    ----------
    machine : BipartiteMachine
    generator : torch.Generator
    visible_out, code_out : Tensor, default=None
        Memory for the visible units and for the means of the hidden ones. None: new at each step.

    Returns
    -------
    step : callable
        (v, h) -> (v', h') with v' ~ P(v | h) and h' ~ P(h | v').
    """

    def step(state):
        _, hidden = state
        visible = machine.sample_visible(hidden, generator, out=visible_out)
        return visible, machine.sample_hidden(visible, generator, code=code_out)

    return step


def gibbs_state(machine, visible: torch.Tensor, generator: torch.Generator) -> tuple:
    """A state to start from: visible units, and hidden ones drawn given them."""
    return visible, machine.sample_hidden(visible, generator)


class Chains(NamedTuple):
    """What runs chains of a sampler on a machine.

    Attributes
    ----------
    step : callable
        From a state to the next.
    start : callable
        From visible units, one row for each chain, to the state to start from.
    visible : callable
        From a state to its visible units.
    watched : callable
        From a state to what stays the same where a chain does not move.
    """

    step: Callable
    start: Callable
    visible: Callable
    watched: Callable


def make_chains(make: Callable, machine, generator: torch.Generator, **settings) -> Chains:
    """The chains of a sampler on a machine.

    Parameters
    ----------
    make : callable
        A sampler.
    machine : BipartiteMachine
    generator : torch.Generator
    **settings
        ``base_bias`` and ``n_temperatures``, for samplers that take them.

    Raises
    ------
    ValueError
        If what the sampler returns is no step.
    """
    taken = inspect.signature(make).parameters
    step = make(machine, generator, **{n: value for n, value in settings.items() if n in taken})
    if not _takes_one(step):
        raise ValueError(f"{make!r} is no sampler: it returned {step!r}. {_SIGNATURE}")
    if hasattr(step, "start"):
        return Chains(step, step.start, step.visible, step.visible)
    # Gaussian units move at every step, whether or not the chain does.
    watched = _visible if machine.units.is_discrete else _hidden
    return Chains(step, lambda v: gibbs_state(machine, v, generator), _visible, watched)


def check_sampler(make) -> bool:
    """Raise a ValueError for what is no sampler; return whether it takes ``n_temperatures``."""
    try:
        parameters = inspect.signature(make)
        taken = [name for name in _SETTINGS if name in parameters.parameters]
        parameters.bind(None, None, **dict.fromkeys(taken))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{make!r} is no sampler. {_SIGNATURE}") from error
    return "n_temperatures" in taken


# What samplers may ask for beyond a machine and a generator.
_SETTINGS = ("base_bias", "n_temperatures")
_SIGNATURE = (
    "A sampler is a function (machine, generator) -> step, which may also take base_bias and "
    "n_temperatures, and step a function from a state (visible, hidden) to the next."
)


def _takes_one(step):
    try:
        inspect.signature(step).bind(None)
    except (TypeError, ValueError):
        return False
    return True


def _visible(state):
    return state[0]


def _hidden(state):
    return state[1]
