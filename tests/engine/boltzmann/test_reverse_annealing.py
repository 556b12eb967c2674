"""Reverse annealing against the enumerated law in which annealing ends."""

import math

import pytest
import torch

from skae.engine.boltzmann.deep import DeepMachine, deep_shapes
from skae.engine.boltzmann.energies import binary_states
from skae.engine.boltzmann.samplers import annealing_temperatures, reverse_annealing
from skae.engine.networks.units import Bernoulli
from skae.engine.optimisation.parameters import Parameters


def law_of_annealing(machine, path, betas):
    """Where annealing ends: P_0 times the matrices of its Gibbs steps, all by enumeration."""
    visible = torch.cat(list(binary_states(machine.n_visible, machine.theta.flat)))
    hidden = torch.cat(list(binary_states(machine.n_hidden, machine.theta.flat)))
    p = torch.softmax(path.log_density(path.energies(visible), 0.0), 0)
    for beta in betas[1:].tolist():
        a = beta * machine.hidden_input(visible)
        up = torch.softmax(a @ hidden.t(), 1)
        b = torch.lerp(path.base_bias, machine.visible_input(hidden), beta)
        p = p @ up @ torch.softmax(b @ visible.t(), 1)
    return visible, p


def deep(sizes=(3, 3, 2), spread=1.2):
    theta = Parameters(deep_shapes(sizes), dtype=torch.float64)
    theta.flat.normal_(0.0, spread, generator=torch.Generator().manual_seed(4))
    return DeepMachine(theta, Bernoulli())


def estimates(machine, path, betas, x, n, generator):
    visible, log_draw = machine.drawn(x.repeat_interleave(n, 0), generator)
    log_weight = reverse_annealing(path, betas, visible, generator) - log_draw
    return log_weight.view(len(x), n)


@pytest.mark.parametrize("kind", ["restricted", "deep"])
def test_mean_weight_is_the_probability_of_annealing(kind, make_machine, generator):
    machine = make_machine(4, 3, spread=1.2) if kind == "restricted" else deep()
    bias = torch.full((4 if kind == "restricted" else 3,), 0.3, dtype=torch.float64)
    path, betas = machine.tempered(machine.widened(bias)), torch.tensor([0.0, 0.3, 0.7, 1.0])
    visible, p = law_of_annealing(machine, path, betas)
    x, number = machine.columns(visible).unique(dim=0, return_inverse=True)
    annealed = p.new_zeros(len(x)).index_add_(0, number, p)
    weight = estimates(machine, path, betas, x, 4000, generator).exp()
    errors = (weight.mean(1) - annealed) / (weight.std(1) / math.sqrt(weight.shape[1]))
    # Of every row the mean weight is the probability that annealing ends there, however few its
    # steps, which are far from enough here.
    assert errors.abs().max() < 4.5
    exact = torch.softmax(-machine.free_energy(visible), 0)
    own = p.new_zeros(len(x)).index_add_(0, number, exact)
    assert (annealed / own).log().abs().max() > 0.1
    # Its logarithm errs to the low side.
    assert (weight.log().mean(1) < annealed.log()).all()


@pytest.mark.parametrize("kind", ["restricted", "deep"])
def test_many_steps_give_the_likelihood(kind, make_machine, generator):
    machine = make_machine(4, 3, spread=1.2) if kind == "restricted" else deep()
    bias = torch.zeros(4 if kind == "restricted" else 3, dtype=torch.float64)
    path = machine.tempered(machine.widened(bias))
    visible = torch.cat(list(binary_states(machine.n_visible, machine.theta.flat)))
    x, number = machine.columns(visible).unique(dim=0, return_inverse=True)
    exact = torch.softmax(-machine.free_energy(visible), 0)
    truth = exact.new_zeros(len(x)).index_add_(0, number, exact).log()
    gaps = []
    for n_temperatures in (10, 300):
        betas = annealing_temperatures(n_temperatures)
        found = estimates(machine, path, betas, x, 100, generator)
        gaps.append(truth - (torch.logsumexp(found, 1) - math.log(100)))
    # Few steps leave annealing short of the machine; with many the two agree on every row.
    assert gaps[1].abs().max() < 0.1
    assert gaps[1].abs().mean() < 0.5 * gaps[0].abs().mean()


def test_rows_of_the_machine_bound_log_z_from_above(make_machine, generator):
    machine = make_machine(8, 6, spread=1.0)
    path = machine.tempered(torch.zeros(8, dtype=torch.float64))
    visible = torch.cat(list(binary_states(8, machine.theta.flat)))
    p = torch.softmax(-machine.free_energy(visible), 0)
    rows = visible[torch.multinomial(p, 20_000, replacement=True, generator=generator)]
    for betas in (torch.tensor([0.0, 0.5, 1.0]), annealing_temperatures(30)):
        log_weight = reverse_annealing(path, betas, rows, generator) + machine.free_energy(rows)
        ratio = torch.exp(log_weight + machine.log_partition())
        # E[w exp(F)] = 1 / Z, whatever the steps ...
        assert abs(float(ratio.mean()) - 1) < 4.5 * float(ratio.std()) / math.sqrt(len(ratio))
        # ... so that its logarithm, of few rows, is an upper bound in the mean.
        few = -torch.log(ratio.view(-1, 10).mean(1))
        assert float(few.mean()) > 0


def test_steps_are_told_of(make_machine, generator):
    machine, told = make_machine(4, 3), []
    path = machine.tempered(torch.zeros(4, dtype=torch.float64))
    betas = annealing_temperatures(8)
    x = torch.zeros(2, 4, dtype=torch.float64)
    reverse_annealing(path, betas, x, generator, lambda *step: told.append(step))
    assert told == [(n, 7) for n in range(1, 8)]
