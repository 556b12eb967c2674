"""Small machines that can be enumerated."""

import machines
import pytest
import torch
from scipy.stats import chi2

from skae.engine.boltzmann.energies import BipartiteMachine, binary_states
from skae.engine.networks.units import Bernoulli
from skae.engine.optimisation.parameters import Parameters


@pytest.fixture
def make_machine():
    """Makes machines with N(0, spread^2) parameters, the same for the same arguments."""
    return machines.make_machine


@pytest.fixture
def two_modes():
    """Eight binary units that all are 1 or all 0, as one hidden unit has it.

    The two patterns are equally likely. From either, the hidden unit would have to change
    against a field of 64, which it does once in exp(64) steps.
    """
    theta = Parameters(BipartiteMachine.shapes(8, 1), dtype=torch.float64)
    machine = BipartiteMachine(theta, Bernoulli())
    machine.weight.fill_(16.0)
    machine.visible_bias.fill_(-8.0)
    machine.hidden_bias.fill_(-64.0)
    return machine


@pytest.fixture
def law():
    """All states of binary visible units and P(v), by enumeration."""

    def enumerate_(machine):
        states = torch.cat(list(binary_states(machine.n_visible, machine.theta.flat)))
        return states, torch.softmax(-machine.free_energy(states), 0)

    return enumerate_


@pytest.fixture
def p_value():
    """Probability that exact draws fit the law of their states no better than these rows do."""

    def test(rows, p):
        numbers = (rows @ 2.0 ** torch.arange(rows.shape[1], dtype=rows.dtype)).long()
        counts = torch.bincount(numbers, minlength=len(p)).to(p.dtype)
        order = p.argsort()
        expected = p[order] * len(rows)
        # Rare states are pooled, from the rarest up, until each cell expects 5 or more; what
        # is left of them joins the last cell.
        cell = torch.div(torch.cumsum(expected, 0), 5, rounding_mode="floor").long()
        own = expected >= 5
        cell = torch.where(own, cell.max() + 1 + torch.arange(len(p)), cell)
        _, cell = torch.unique(cell, return_inverse=True)
        pooled, seen = (
            torch.zeros(int(cell.max()) + 1, dtype=p.dtype).index_add_(0, cell, values)
            for values in (expected, counts[order])
        )
        statistic = float(((seen - pooled) ** 2 / pooled).sum())
        return chi2.sf(statistic, len(pooled) - 1)

    return test
