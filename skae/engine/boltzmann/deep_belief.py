r"""The deep belief network: a stack of restricted Boltzmann machines as one model.

    P(v, h_1, ..., h_L) = P_1(v | h_1) P_2(h_1 | h_2) ... P_L(h_L-1, h_L)

Only the top machine keeps its own prior; below it, each machine gives the downward conditional
P_l. Its upward one, Q_l(h_l | h_l-1), is no longer the posterior but an approximation of it. With
E_l the energy of machine l, and the free energies of its two layers,

    F_l(x) = -log sum_h exp(-E_l(x, h))       G_l(h) = -log sum_x exp(-E_l(x, h))

both conditionals are exp(-E_l) normalised, so that log P_l(x | h) / Q_l(h | x) is G_l(h) - F_l(x),
and the variational lower bound (Hinton, Osindero & Teh 2006) is

    log P(v) >= -F_1(v) + sum_l=1..L-1 E_Q[G_l(h_l) - F_l+1(h_l)] - log Z_L

Each machine replaces the prior that the one below has of its hidden units. What is averaged is the
logarithm of a ratio of the two: it is constant where they agree.

A list ``machines`` goes from the data upwards. The visible units of all but the lowest are binary.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch


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
