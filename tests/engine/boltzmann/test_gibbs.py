"""Gibbs steps leave the enumerated law invariant, and lead to it."""

import math

import pytest
import torch

from skae.engine.boltzmann.samplers import Schedule, gibbs_state, gibbs_step, run_chains

N_CHAINS = 20_000
# Exact draws are taken for wrong ones once in 10^5 times.
LIMIT = 1e-5


def exact_draws(states, p, generator, n_chains=N_CHAINS):
    return states[torch.multinomial(p, n_chains, replacement=True, generator=generator)]


def joint_law(machine, states, p):
    """P(v, h) with v along the first axis, from P(v) and the product of P(h_j | v)."""
    on = torch.sigmoid(machine.hidden_input(states))
    joint = p.unsqueeze(1)
    for j in range(on.shape[1]):
        column = torch.stack([1 - on[:, j], on[:, j]], 1)
        joint = (column.unsqueeze(2) * joint.unsqueeze(1)).flatten(1)
    return joint


@pytest.mark.parametrize("size", [(3, 2), (5, 4), (2, 5)])
def test_step_leaves_the_joint_law_invariant(size, make_machine, law, p_value, generator):
    machine = make_machine(*size)
    states, p = law(machine)
    joint = joint_law(machine, states, p).t().flatten()
    state = gibbs_state(machine, exact_draws(states, p, generator), generator)
    # Hidden units drawn given exact visible ones: an exact draw of both.
    assert p_value(torch.cat(state, 1), joint) > LIMIT
    step = gibbs_step(machine, generator)
    for _ in range(3):
        state = step(state)
        # Each conditional draw leaves P(v, h) as it is, hence the step does.
        assert p_value(torch.cat(state, 1), joint) > LIMIT


@pytest.mark.parametrize("wrong", ["bias", "sign", "stale"])
def test_the_test_of_invariance_notices_a_wrong_step(wrong, make_machine, law, p_value, generator):
    machine = make_machine(5, 4)
    states, p = law(machine)
    visible, hidden = gibbs_state(machine, exact_draws(states, p, generator), generator)
    a = machine.visible_input(hidden)
    if wrong == "bias":
        a += 0.2
    if wrong == "sign":
        a = 2 * machine.visible_bias - a
    if wrong == "stale":
        a = machine.visible_bias.expand_as(visible)
    visible = machine.units.sample(a, generator)
    # A bias off by a fifth, a wrong sign, a forgotten term: all far beyond the limit.
    assert p_value(visible, p) < 1e-20


def test_hidden_units_are_those_of_the_new_visible_ones(make_machine, generator):
    machine = make_machine(5, 4)
    machine.weight.mul_(1e4)
    machine.hidden_bias.mul_(1e4)  # which is all that counts where no visible unit is on
    state = gibbs_state(machine, torch.zeros(50, 5).double(), generator)
    visible, hidden = gibbs_step(machine, generator)(state)
    # With such weights P(h | v) is 0 or 1: the state's two parts belong together.
    assert torch.equal(hidden, (machine.hidden_input(visible) > 0).double())


def test_step_ignores_the_old_visible_units(make_machine):
    machine = make_machine(5, 4)
    hidden = torch.ones(20, 4).double()
    ends = [
        gibbs_step(machine, torch.Generator().manual_seed(1))((visible, hidden))
        for visible in (torch.zeros(20, 5).double(), torch.full((20, 5), math.nan).double())
    ]
    # v' ~ P(v | h) and h' ~ P(h | v') need nothing of v.
    assert all(map(torch.equal, *ends))


def test_step_leaves_its_state_as_it_is(make_machine, generator):
    machine = make_machine(5, 4)
    state = gibbs_state(machine, torch.ones(20, 5).double(), generator)
    before = [part.clone() for part in state]
    gibbs_step(machine, generator)(state)
    # A state that was kept as a sample must not change afterwards.
    assert all(map(torch.equal, state, before))


@pytest.mark.parametrize("size", [(6, 3), (3, 6)])
def test_chains_from_anywhere_reach_the_law(size, make_machine, law, p_value, generator):
    machine = make_machine(*size, spread=0.7)
    _, p = law(machine)
    visible = torch.ones(N_CHAINS, size[0], dtype=torch.float64)
    run = run_chains(
        gibbs_step(machine, generator),
        gibbs_state(machine, visible, generator),
        Schedule(burn_in=50),
        keep=lambda state: state[0],
    )
    # The chain is ergodic and the machine small: after 50 steps the start is forgotten.
    assert p_value(run.samples[0], p) > LIMIT
    # The start itself was far from it.
    assert p_value(visible, p) < 1e-20


@pytest.mark.parametrize("kind", ["gaussian", "gaussian_learned"])
def test_gaussian_units_reach_their_moments(kind, make_machine, generator):
    machine = make_machine(2, 3, kind, spread=0.7)
    states = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 3)
    precision = torch.ones(2) if machine.precision is None else machine.precision
    mean = machine.visible_input(states)
    # P(h) is exp(h.b) times the Gaussian integrals; written out, not asked of the units.
    exponent = 0.5 * ((mean**2 - machine.visible_bias**2) * precision).sum(1)
    p = torch.softmax(states @ machine.hidden_bias + exponent, 0)
    first = p @ mean
    second = p @ (mean**2) + 1 / precision

    visible = torch.full((N_CHAINS, 2), 3.0, dtype=torch.float64)
    step = gibbs_step(machine, generator)
    state = gibbs_state(machine, visible, generator)
    for _ in range(50):
        state = step(state)
    v, h = state
    numbers = ((h @ torch.tensor([4.0, 2.0, 1.0]).double()).long()).bincount(minlength=8)
    error = (p * (1 - p) / N_CHAINS).sqrt()
    # Hidden states occur as often as they should, within 4.5 standard errors ...
    assert ((numbers / N_CHAINS - p).abs() < 4.5 * error).all()
    # ... and the visible units, a mixture of Gaussians, have its first two moments.
    assert ((v.mean(0) - first).abs() < 4.5 * v.std(0) / N_CHAINS**0.5).all()
    assert (((v**2).mean(0) - second).abs() < 4.5 * (v**2).std(0) / N_CHAINS**0.5).all()


def test_chains_depend_on_their_generator_alone(make_machine):
    machine = make_machine(5, 4)

    def end(seed):
        generator = torch.Generator().manual_seed(seed)
        state = gibbs_state(machine, torch.zeros(30, 5).double(), generator)
        step = gibbs_step(machine, generator)
        return run_chains(step, state, Schedule(burn_in=5), keep=lambda state: state[0]).samples

    global_state = torch.get_rng_state()
    # The same seed, the same chains; another seed, others.
    assert torch.equal(end(1), end(1))
    assert not torch.equal(end(1), end(2))
    # torch's global generator was not drawn from.
    assert torch.equal(torch.get_rng_state(), global_state)


def test_plain_steps_stay_in_the_mode_they_start_in(two_modes, law, generator):
    machine = two_modes
    states, p = law(machine)
    # The two patterns have nearly all of the probability, half each, by enumeration ...
    assert p[0] > 0.495
    assert p[-1] > 0.495
    visible = torch.zeros(500, 8, dtype=torch.float64)
    state = visible, machine.sample_hidden(visible, generator)
    run = run_chains(
        gibbs_step(machine, generator), state, Schedule(burn_in=300), keep=lambda s: s[0]
    )
    # ... but one hidden unit would have to change against a field of 64: no chain ever crosses.
    assert run.samples[0].mean() < 0.01
    # (Energy alone does not tell: both modes have the same.)
    torch.testing.assert_close(machine.free_energy(states[:1]), machine.free_energy(states[-1:]))
