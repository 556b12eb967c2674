"""Tempered laws and parallel tempering against enumeration and quadrature."""

import math

import pytest
import torch

from skae.engine.boltzmann.energies import TemperedPath, binary_states
from skae.engine.boltzmann.samplers import (
    ParallelTempering,
    Schedule,
    gibbs_state,
    gibbs_step,
    run_chains,
)
from skae.engine.optimisation.parameters import Parameters

N_CHAINS = 20_000
LIMIT = 1e-5
KINDS = ["bernoulli", "gaussian", "gaussian_learned"]
BETAS = [0.0, 0.3, 0.8, 1.0]


def make_path(make_machine, n_visible, n_hidden, kind="bernoulli", spread=1.0):
    machine = make_machine(n_visible, n_hidden, kind, spread)
    generator = torch.Generator().manual_seed(9)
    return machine.tempered(torch.randn(n_visible, dtype=torch.float64, generator=generator))


def tempered_energies(path, visible, beta):
    """E_beta of each row with each hidden state, by its definition."""
    hidden = torch.cat(list(binary_states(len(path.machine.hidden_bias), visible)))
    theta = path.machine.theta
    base = path.machine.over(Parameters(theta.shapes, theta.flat.clone()))
    base.visible_bias.copy_(path.base_bias)
    columns = [
        (1 - beta) * base.visible_energy(visible)
        + beta * path.machine.energy(visible, h.expand(len(visible), -1))
        for h in hidden
    ]
    return torch.stack(columns, 1)


def tempered_law(path, beta):
    """All binary visible states and P_beta(v)."""
    states = torch.cat(list(binary_states(len(path.base_bias), path.base_bias)))
    log_p = torch.logsumexp(-tempered_energies(path, states, beta), 1)
    return states, torch.softmax(log_p, 0)


def exact_draws(states, p, generator, n_chains=N_CHAINS):
    return states[torch.multinomial(p, n_chains, replacement=True, generator=generator)]


# The path


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(6, 4), (4, 6), (1, 1)])
def test_log_density_sums_out_the_hidden_units(size, kind, make_machine, generator):
    path = make_path(make_machine, *size, kind)
    visible = torch.randn(20, size[0], dtype=torch.float64, generator=generator)
    visible = (visible > 0).double() if kind == "bernoulli" else visible
    energies = path.energies(visible)
    for beta in BETAS:
        expected = torch.logsumexp(-tempered_energies(path, visible, beta), 1)
        # log sum_h exp(-E_beta(v, h)), over all 2^n hidden states.
        torch.testing.assert_close(path.log_density(energies, beta), expected)
    beta = torch.rand(20, dtype=torch.float64, generator=generator)
    each = [
        path.log_density(path.energies(v.unsqueeze(0)), float(b))
        for v, b in zip(visible, beta, strict=True)
    ]
    # With a temperature for each row, each row has its own.
    torch.testing.assert_close(path.log_density(energies, beta), torch.cat(each))


@pytest.mark.parametrize("size", [(6, 4), (12, 12)])
def test_log_partitions_at_both_ends(size, make_machine):
    path = make_path(make_machine, *size)
    states = torch.cat(list(binary_states(size[0], path.base_bias)))
    energies = path.energies(states)
    # At 0 it is the sum over all states of the base, 2^n_hidden times that of the visible units.
    torch.testing.assert_close(
        path.log_base_partition(), torch.logsumexp(path.log_density(energies, 0.0), 0)
    )
    # At 1 it is the machine's own.
    torch.testing.assert_close(
        path.machine.log_partition(), torch.logsumexp(path.log_density(energies, 1.0), 0)
    )


@pytest.mark.parametrize("kind", KINDS[1:])
def test_gaussian_log_partitions_at_both_ends(kind, make_machine):
    path = make_path(make_machine, 1, 5, kind)
    scale = 1.0 if path.precision is None else float(path.precision.rsqrt())
    visible = torch.arange(-40 * scale, 40 * scale, 0.4 * scale, dtype=torch.float64).unsqueeze(1)
    energies = path.energies(visible)
    for beta, expected in (
        (0.0, path.log_base_partition()),
        (1.0, path.machine.log_partition()),
    ):
        total = torch.logsumexp(path.log_density(energies, beta), 0) + math.log(0.4 * scale)
        # The integral over v, by quadrature.
        torch.testing.assert_close(total, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_start_draws_from_the_base(kind, make_machine, generator):
    path = make_path(make_machine, 6, 4, kind)
    draws = path.start(N_CHAINS, generator)
    mean = path.units.mean(path.base_bias)
    if kind == "bernoulli":
        variance = mean * (1 - mean)
    else:
        variance = torch.ones(6).double() if path.precision is None else 1 / path.precision
    # Independent units with the base's biases: their means ...
    assert ((draws.mean(0) - mean).abs() < 4.5 * (variance / N_CHAINS).sqrt()).all()
    correlation = torch.corrcoef(draws.t()).fill_diagonal_(0)
    # ... their independence ...
    assert correlation.abs().max() < 4.5 / math.sqrt(N_CHAINS)
    if kind != "bernoulli":
        # ... and their variances, with relative standard error sqrt(2 / n).
        assert ((draws.var(0) / variance - 1).abs() < 4.5 * math.sqrt(2 / N_CHAINS)).all()


def test_start_has_the_law_of_beta_zero(make_machine, p_value, generator):
    path = make_path(make_machine, 5, 3)
    # All 2^5 states at the rates of P_0.
    assert p_value(path.start(N_CHAINS, generator), tempered_law(path, 0.0)[1]) > LIMIT


@pytest.mark.parametrize("per_row", [False, True])
@pytest.mark.parametrize("beta", BETAS)
def test_step_leaves_each_tempered_law_invariant(beta, per_row, make_machine, p_value, generator):
    path = make_path(make_machine, 5, 4)
    states, p = tempered_law(path, beta)
    visible = exact_draws(states, p, generator)
    given = torch.full((N_CHAINS,), beta, dtype=torch.float64) if per_row else beta
    for _ in range(3):
        visible = path.step(path.energies(visible), given, generator)
        # h ~ P_beta(h | v) and v' ~ P_beta(v' | h) leave P_beta(v) as it is.
        assert p_value(visible, p) > LIMIT
    other = path.step(path.energies(visible), 0.5 + 0.5 * (beta < 0.5), generator)
    # The test can tell: a step at another temperature leads elsewhere.
    assert p_value(other, p) < 1e-20


@pytest.mark.parametrize("kind", KINDS[1:])
@pytest.mark.parametrize("beta", BETAS)
def test_gaussian_step_leaves_the_tempered_law_invariant(beta, kind, make_machine, generator):
    path = make_path(make_machine, 1, 4, kind)
    scale = 1.0 if path.precision is None else float(path.precision.rsqrt())
    fine = torch.arange(-20 * scale, 20 * scale, 0.01 * scale, dtype=torch.float64).unsqueeze(1)
    p = torch.softmax(path.log_density(path.energies(fine), beta), 0)
    visible = exact_draws(fine, p, generator)  # exact but for a hundredth of a deviation
    for _ in range(3):
        visible = path.step(path.energies(visible), beta, generator)
    for power in (1, 2, 3):
        moments, expected = visible[:, 0] ** power, p @ fine[:, 0] ** power
        # The first moments stay those of the law, within 4.5 standard errors.
        assert (moments.mean() - expected).abs() < 4.5 * moments.std() / math.sqrt(N_CHAINS)


@pytest.mark.parametrize("kind", KINDS)
def test_at_one_a_step_is_a_gibbs_step(kind, make_machine, generator):
    path = make_path(make_machine, 6, 4, kind)
    visible = path.start(30, generator)
    state = gibbs_state(path.machine, visible, torch.Generator().manual_seed(5))
    hot = path.step(path.energies(visible), 1.0, torch.Generator().manual_seed(5))
    generator = torch.Generator().manual_seed(5)
    gibbs_state(path.machine, visible, generator)
    cold = path.units.sample(
        torch.addmm(path.machine.visible_bias, state[1], path.machine.weight),
        generator,
        path.machine.precision,
    )
    # h | v and v' | h of the machine itself, with the same draws.
    torch.testing.assert_close(hot, cold)


# Parallel tempering


def ladder(n_temperatures):
    return torch.linspace(1, 0, n_temperatures, dtype=torch.float64)


def slow_path(make_machine):
    """Four units, all 1 or all 0, that Gibbs steps never turn: swaps alone move between the two."""
    machine = make_machine(4, 1)
    machine.weight.fill_(8.0)
    machine.visible_bias.fill_(-4.0)
    machine.hidden_bias.fill_(-15.0)  # exp(1) to 1 for all 1
    return machine.tempered(torch.zeros(4, dtype=torch.float64))


@pytest.mark.parametrize(
    ("n_temperatures", "slow"),
    [(1, False), (2, False), (5, False), (5, True)],
)
def test_product_of_the_tempered_laws_is_invariant(
    n_temperatures, slow, make_machine, p_value, generator
):
    path = slow_path(make_machine) if slow else make_path(make_machine, 4, 5)
    betas = ladder(n_temperatures)
    laws = [tempered_law(path, float(beta)) for beta in betas]
    visible = torch.stack([exact_draws(*law, generator) for law in laws], 1)
    step, state = ParallelTempering(path, betas, generator), (visible,)
    for _ in range(5):
        state = step(state)
        for i, (_, p) in enumerate(laws):
            # Swaps by the ratio of the joint law before and after keep that law, Gibbs steps too:
            # each temperature keeps its own ...
            assert p_value(state[0][:, i], p) > LIMIT
    for i in range(n_temperatures - 1):
        pair = state[0][:, i : i + 2].flatten(1)
        joint = laws[i + 1][1].unsqueeze(1) * laws[i][1]
        # ... and neighbours stay independent of each other.
        assert p_value(pair, joint.flatten()) > LIMIT


@pytest.mark.parametrize("wrong", ["never", "always", "uphill", "reversed"])
def test_the_test_of_invariance_notices_wrong_swaps(wrong, make_machine, p_value, generator):
    # Gibbs steps that mix well would hide a wrong swap.
    path = slow_path(make_machine)
    (states, cold), (_, hot) = tempered_law(path, 1.0), tempered_law(path, 0.0)
    visible = exact_draws(states, cold, generator)
    for _ in range(5):
        other = exact_draws(states, hot, generator)
        here, there = path.energies(visible), path.energies(other)
        gain = path.log_density(there, 1.0) + path.log_density(here, 0.0)
        gain -= path.log_density(here, 1.0) + path.log_density(there, 0.0)
        swaps = {
            "never": gain == math.inf,
            "always": gain < math.inf,
            "uphill": gain > 0,
            "reversed": gain < 0,
        }[wrong]
        visible = torch.where(swaps.unsqueeze(1), other, visible)
        visible = path.step(path.energies(visible), 1.0, generator)
    if wrong == "never":
        # Gibbs steps alone keep the cold law ...
        assert p_value(visible, cold) > LIMIT
    else:
        # ... and swaps without a coin, or by the inverse ratio, do not.
        assert p_value(visible, cold) < 1e-20


def test_cold_chain_finds_both_modes_where_plain_steps_do_not(two_modes, law, p_value, generator):
    machine = two_modes
    _, p = law(machine)
    path, betas = machine.tempered(torch.zeros(8, dtype=torch.float64)), ladder(12)
    visible = torch.zeros(1500, 8, dtype=torch.float64)
    plain = run_chains(
        gibbs_step(machine, generator),
        gibbs_state(machine, visible, generator),
        Schedule(burn_in=150),
        keep=lambda state: state[0],
    )
    step = ParallelTempering(path, betas, generator)
    tempered = run_chains(
        step,
        (visible.unsqueeze(1).repeat(1, 12, 1),),
        Schedule(burn_in=150),
        keep=lambda state: state[0][:, 0],
    )
    # Plain steps never leave the mode they start in: a unit that is 1 is a rare exception.
    assert plain.samples[0].mean() < 0.01
    assert p_value(plain.samples[0], p) < 1e-20
    # Hot chains cross, and hand down what they find: the cold law is the enumerated one.
    assert p_value(tempered.samples[0], p) > LIMIT
    # Every pair of neighbours swaps, or nothing would reach the cold one.
    assert (step.swap_rates > 0.05).all()


def test_swap_rates_are_the_expected_ones(make_machine, generator):
    path, betas = make_path(make_machine, 4, 3, spread=2.0), ladder(4)
    laws = [tempered_law(path, float(beta)) for beta in betas]
    states = laws[0][0]
    log_density = [path.log_density(path.energies(states), float(beta)) for beta in betas]
    step = ParallelTempering(path, betas, generator)
    # No steps, no rates.
    assert step.swap_rates.isnan().all()
    state = (torch.stack([exact_draws(*law, generator, 10_000) for law in laws], 1),)
    for _ in range(10):
        state = step(state)
    for i, rate in enumerate(step.swap_rates):
        change = log_density[i] - log_density[i + 1]
        accept = torch.exp((change.unsqueeze(0) - change.unsqueeze(1)).clamp(max=0))
        expected = (laws[i][1].unsqueeze(1) * accept * laws[i + 1][1]).sum()
        # E[min(1, ratio)] under the product law: each pair was tried at every other step, by
        # 10 000 chains (the steps are correlated: the error is that of the chains alone).
        assert abs(rate - expected) < 4.5 * math.sqrt(float(expected * (1 - expected)) / 10_000)


def test_even_and_odd_pairs_take_turns(make_machine, generator):
    path = make_path(make_machine, 4, 3)
    path.machine.theta.flat.zero_()
    path.base_bias.zero_()
    step = ParallelTempering(path, ladder(5), generator)
    state, rates = (path.start(7 * 5, generator).view(7, 5, 4),), []
    for _ in range(2):
        state = step(state)
        rates.append(step.swap_rates.nan_to_num(nan=-1.0).tolist())
    # All temperatures are the same law here, so that each swap that is tried is made: those of
    # pairs 0 and 2 in the first step, of all after the second.
    assert rates == [[1.0, -1.0, 1.0, -1.0], [1.0, 1.0, 1.0, 1.0]]


def test_swapped_rows_go_to_their_neighbours(make_machine, generator):
    path = make_path(make_machine, 4, 3)
    path.machine.theta.flat.zero_()
    path.base_bias.zero_()
    moves = []

    class Still(TemperedPath):
        def step(self, energies, beta, generator):
            moves.append((energies[3].view(-1, 4).clone(), beta.view(-1, 4).clone()))
            return super().step(energies[:3], beta, generator)

        def energies(self, visible):
            return (*super().energies(visible), torch.arange(len(visible)))

        def log_density(self, energies, beta):
            return super().log_density(energies[:3], beta)

    still = Still(path.machine, path.base_bias)
    step = ParallelTempering(still, ladder(4), generator)
    state = (path.start(12, generator).view(3, 4, 4),)
    for _ in range(2):
        state = step(state)
    rows = torch.arange(12).view(3, 4)
    # Where all swaps are made, the first step exchanges 0 with 1 and 2 with 3 in each chain ...
    assert torch.equal(moves[0][0], rows[:, [1, 0, 3, 2]])
    # ... and the second 1 with 2.
    assert torch.equal(moves[1][0], rows[:, [0, 2, 1, 3]])
    # Temperatures stay where they are.
    assert torch.equal(moves[0][1], ladder(4).expand(3, 4))


def test_chains_do_not_mix(make_machine):
    path = make_path(make_machine, 4, 3)
    path.machine.weight.mul_(0)
    path.machine.visible_bias.fill_(0)
    path.base_bias.fill_(0)
    seen = []

    class Watched(TemperedPath):
        def step(self, energies, beta, generator):
            seen.append(energies[0].view(-1, 3))
            return super().step(energies, beta, generator)

        def energies(self, visible):
            base, machine, a = super().energies(visible)
            chain = torch.arange(len(visible)) // 3
            return base * 0 + chain, machine * 0 + chain, a

    watched = Watched(path.machine, path.base_bias)
    step = ParallelTempering(watched, ladder(3), torch.Generator().manual_seed(0))
    state = (torch.zeros(5, 3, 4).double(),)
    for _ in range(2):
        state = step(state)
    # Temperatures of one chain swap with each other, never with those of another chain.
    assert all(
        torch.equal(chain, torch.arange(5.0).double().unsqueeze(1).expand(5, 3)) for chain in seen
    )
    # Swaps there were.
    assert (step.swap_rates > 0).all()


def test_state_is_left_as_it_is(make_machine, generator):
    path = make_path(make_machine, 4, 3)
    state = (path.start(20, generator).view(5, 4, 4),)
    before = state[0].clone()
    ParallelTempering(path, ladder(4), generator)(state)
    # A state that was kept as a sample must not change afterwards.
    assert torch.equal(state[0], before)


def test_tempering_depends_on_its_generator_alone(make_machine):
    path, global_state = make_path(make_machine, 4, 3), torch.get_rng_state()

    def end(seed):
        generator = torch.Generator().manual_seed(seed)
        step = ParallelTempering(path, ladder(4), generator)
        state = (path.start(20, generator).view(5, 4, 4),)
        return run_chains(step, state, Schedule(burn_in=4), keep=lambda state: state[0]).samples

    # The same seed, the same chains; another seed, others.
    assert torch.equal(end(1), end(1))
    assert not torch.equal(end(1), end(2))
    # torch's global generator was not drawn from.
    assert torch.equal(torch.get_rng_state(), global_state)
