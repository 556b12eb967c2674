"""A chain is a step function and a schedule.

    state -> step(state) -> step(step(state)) -> ...

A state is a tuple of tensors whose first axis is chains; all chains of a run advance
together, as one batch. What a step does is up to the sampler (`skae.engine.boltzmann.chains`,
`skae.engine.boltzmann.tempering`); how long to run and what to keep is the schedule's.

Block Gibbs sampling: all visible units given the hidden ones, and the reverse.
"""

from typing import NamedTuple

import torch

from skae.engine.boltzmann.energies import sample_hidden, sample_visible


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
    def n_steps(self):
        """Steps in all."""
        return self.burn_in + (self.n_samples - 1) * self.thinning

    def keeps(self, n_done):
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


def run_chains(step, state, schedule, *, keep, watch=None, listener=None):
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
        if not all_moved:
            moved |= (watch(state) != start).view(len(moved), -1).any(1)
            all_moved = bool(moved.all())
        if schedule.keeps(n_done):
            samples[(n_done - schedule.burn_in) // schedule.thinning] = keep(state)
        if listener is not None:
            listener(n_done, schedule.n_steps)
    return Run(samples, state, moved)


def gibbs_step(theta, units, generator):
    """A step function on states (visible, hidden) that leaves P(v, h) invariant.

    Parameters
    ----------
    theta : Parameters
    units : Bernoulli or Gaussian
    generator : torch.Generator

    Returns
    -------
    step : callable
        (v, h) -> (v', h') with v' ~ P(v | h) and h' ~ P(h | v').
    """

    def step(state):
        _, hidden = state
        visible = sample_visible(theta, hidden, units, generator)
        return visible, sample_hidden(theta, visible, generator)

    return step


def gibbs_state(theta, visible, generator):
    """A state to start from: visible units, and hidden ones drawn given them."""
    return visible, sample_hidden(theta, visible, generator)
