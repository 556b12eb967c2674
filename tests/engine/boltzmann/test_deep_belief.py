"""Deep belief networks against the enumeration of all their states."""

import itertools
import math

import pytest
import torch
from scipy.stats import chi2
from torch.distributions import Normal

from skae.engine.boltzmann.energies import BipartiteMachine
from skae.engine.boltzmann.samplers import sample_downwards, variational_bound
from skae.engine.optimisation.parameters import Parameters

KINDS = ["bernoulli", "gaussian", "gaussian_learned"]
# Sizes of the layers from the bottom up: two machines, three, four.
STACKS = [(4, 3, 3), (4, 3, 2, 4), (3, 5, 2, 3, 2)]
# Kinds of units differ in the lowest machine alone, whatever there is above.
STACKS_OF_KINDS = [*((STACKS[0], kind) for kind in KINDS), *((s, KINDS[0]) for s in STACKS[1:])]
# Exact draws are taken for wrong ones once in 10^5 times.
LIMIT = 1e-5


@pytest.fixture
def make_stack(make_machine):
    """Makes machines whose layers have these sizes, from the data upwards."""

    def make(sizes, kind="bernoulli", spread=1.0):
        kinds = [kind] + ["bernoulli"] * (len(sizes) - 2)
        return [
            make_machine(*pair, kind, spread, seed)
            for seed, (*pair, kind) in enumerate(zip(sizes[:-1], sizes[1:], kinds, strict=True))
        ]

    return make


def transposed(machine):
    """The machine with its layers' roles exchanged."""
    shapes = BipartiteMachine.shapes(machine.n_hidden, machine.n_visible)
    other = machine.over(Parameters(shapes, dtype=torch.float64))
    other.weight.copy_(machine.weight.t())
    other.hidden_bias.copy_(machine.visible_bias)
    other.visible_bias.copy_(machine.hidden_bias)
    return other


def all_states(n_units):
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=n_units)), dtype=torch.float64)


def rows_for(machine, kind):
    """All states of the lowest layer, or some rows of a Gaussian one."""
    n_visible = machine.weight.shape[1]
    if kind == "bernoulli":
        return all_states(n_visible)
    return torch.randn(
        9, n_visible, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )


def log_bernoulli(states, logits):
    """Log-probabilities of all pairs of rows, (n_logits, n_states), unit by unit."""
    log_on, log_off = torch.log(torch.sigmoid(logits)), torch.log(torch.sigmoid(-logits))
    return log_on @ states.t() + log_off @ (1 - states).t()


def log_downward(machine, x, binary):
    """log P(x | h) of the rows x and of all states h, shape (n_rows, n_states)."""
    h = all_states(len(machine.weight))
    a = machine.visible_bias + h @ machine.weight
    if binary:
        return log_bernoulli(x, a).t()
    scale = torch.ones(x.shape[1]) if machine.precision is None else machine.precision.rsqrt()
    return Normal(a, scale).log_prob(x.unsqueeze(1)).sum(2)


def log_upward(machine, x):
    """log Q(h | x) of the rows x and of all states h, shape (n_rows, n_states)."""
    precision = 1.0 if machine.precision is None else machine.precision
    a = machine.hidden_bias + (x * precision) @ machine.weight.t()
    return log_bernoulli(all_states(a.shape[1]), a)


def log_top(machine, states):
    """log P(v) of the top machine alone; its free energy and log Z have tests of their own."""
    return -machine.free_energy(states) - machine.log_partition()


def log_likelihood(machines, x):
    """log P(v) of each row: all states of all hidden layers, summed from the top down."""
    if len(machines) == 1:
        return log_top(machines[0], x)
    above = log_likelihood(machines[1:], all_states(machines[0].n_hidden))
    return torch.logsumexp(log_downward(machines[0], x, machines[0].units.is_discrete) + above, 1)


def exact_bound(machines, x):
    """E_Q[log P(v, h) - log Q(h | v)] of each row, by all states of all hidden layers."""
    if len(machines) == 1:
        return log_top(machines[0], x)
    above = exact_bound(machines[1:], all_states(machines[0].n_hidden))
    log_q = log_upward(machines[0], x)
    terms = log_downward(machines[0], x, machines[0].units.is_discrete) - log_q + above
    return (torch.exp(log_q) * terms).sum(1)


def top_partition(machines):
    return machines[-1].log_partition()


def top_law(machines):
    """All states of the top machine's visible units, and their probabilities."""
    states = all_states(machines[-1].n_visible)
    return states, torch.exp(log_top(machines[-1], states))


def p_value(rows, p):
    """Probability that exact draws fit the law p of all states no better than these rows do."""
    place = 2 ** torch.arange(rows.shape[1]).flip(0)
    counts = torch.bincount((rows.long() * place).sum(1), minlength=len(p))
    expected = p * len(rows)
    # The statistic has its law where every cell expects a few.
    assert expected.min() > 5
    return chi2.sf(float(((counts - expected) ** 2 / expected).sum()), len(p) - 1)


# Free energies of the hidden units


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (3, 5)])
def test_hidden_free_energy_sums_out_binary_visible_units(size, make_machine):
    machine = make_machine(*size)
    h = all_states(size[1])
    # Exchanging the layers exchanges their free energies.
    torch.testing.assert_close(machine.hidden_free_energy(h), transposed(machine).free_energy(h))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(1, 1), (5, 3), (3, 5)])
def test_ratio_of_conditionals_is_a_difference_of_free_energies(size, kind, make_stack):
    (machine,) = make_stack(size, kind)
    x, h = rows_for(machine, kind), all_states(size[1])
    ratio = log_downward(machine, x, machine.units.is_discrete) - log_upward(machine, x)
    difference = machine.hidden_free_energy(h) - machine.free_energy(x).unsqueeze(1)
    # Both are exp(-E) over a normaliser, so E cancels; densities include their constants.
    torch.testing.assert_close(ratio, difference)


@pytest.mark.parametrize("kind", KINDS)
def test_hidden_free_energy_has_the_machines_partition_function(kind, make_stack):
    (machine,) = make_stack((4, 6), kind)
    total = torch.logsumexp(-machine.hidden_free_energy(all_states(6)), 0)
    # Z = sum_h exp(-G(h)), whatever the visible units are.
    torch.testing.assert_close(total, machine.log_partition())


# The bound


@pytest.mark.parametrize(("sizes", "kind"), STACKS_OF_KINDS)
def test_bound_is_an_unbiased_estimate_of_its_expectation(sizes, kind, generator, make_stack):
    machines = make_stack(sizes, kind)
    x = rows_for(machines[0], kind)[:9]
    n = 250
    values = torch.stack([variational_bound(machines, x, generator) for _ in range(n)])
    expected = exact_bound(machines, x) + top_partition(machines)
    # The mean over draws of the estimate is the sum over all states of the hidden layers. Of the
    # rows together: what one of them draws may hang on rare states that were never seen.
    error = values.mean(1).std() / math.sqrt(n)
    assert (values.mean() - expected.mean()).abs() < 4.5 * error
    # And that is not trivially so: the estimate varies.
    assert error > 0


@pytest.mark.parametrize(("sizes", "kind"), STACKS_OF_KINDS)
def test_bound_is_below_the_log_likelihood(sizes, kind, generator, make_stack):
    machines = make_stack(sizes, kind)
    x = rows_for(machines[0], kind)
    n = 500
    bound = variational_bound(machines, x, generator, n) - top_partition(machines)
    spread = torch.stack([variational_bound(machines, x, generator) for _ in range(50)])
    exact = log_likelihood(machines, x)
    # By the inequality of Jensen, up to the error of the mean over the draws ...
    assert (bound < exact + 4.5 * spread.std(0) / math.sqrt(n)).all()
    # ... and strictly, for Q is no posterior once the machine above has other parameters.
    assert bound.mean() < exact.mean() - 0.01
    if kind == "bernoulli":
        # The oracle is a distribution: over all states its probabilities sum to 1.
        torch.testing.assert_close(torch.exp(exact).sum(), torch.tensor(1.0).double())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(4, 3), (3, 6)])
@pytest.mark.parametrize("n_machines", [2, 3, 4])
def test_bound_is_exact_where_each_machine_is_the_one_below_transposed(
    n_machines, size, kind, generator, make_stack, make_machine
):
    (machine,) = make_stack(size, kind)
    # With Gaussian units the prior of h_1 is that of a binary machine with other biases, and so
    # not of the transposed one: there the tie is between the second machine and the third.
    first = [machine] if machine.units.is_discrete else [machine, make_machine(size[1], size[0])]
    machines = list(first)
    while len(machines) < n_machines + len(first) - 1:
        machines.append(transposed(machines[-1]))
    x = rows_for(machine, kind)
    for seed in range(3):
        seeded = [torch.Generator().manual_seed(seed) for _ in range(2)]
        tied = variational_bound(machines, x, seeded[0]) - top_partition(machines)
        short = variational_bound(first, x, seeded[1]) - top_partition(first)
        # A machine that has the prior of the one below changes nothing, at any draw.
        torch.testing.assert_close(tied, short)
        if machine.units.is_discrete:
            # In particular two machines have the log-likelihood of the first alone.
            torch.testing.assert_close(tied, log_top(machine, x))


@pytest.mark.parametrize("kind", KINDS)
def test_bound_of_one_machine_is_minus_its_free_energy(kind, generator, make_stack):
    machines = make_stack((4, 3), kind)
    x = rows_for(machines[0], kind)
    before = generator.get_state()
    # Nothing is approximated, and so nothing is drawn.
    torch.testing.assert_close(
        variational_bound(machines, x, generator, 7), -machines[0].free_energy(x)
    )
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("sizes", [(6, 5, 4), (6, 5, 4, 3)])
def test_rows_do_not_depend_on_each_other(sizes, make_stack):
    machines = make_stack(sizes)
    x = all_states(6)

    def bound(rows):
        return variational_bound(machines, rows, torch.Generator().manual_seed(3), 5)

    whole = bound(x)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    # The random numbers are shared, so that place, company and block make no difference.
    torch.testing.assert_close(bound(x[order]), whole[order])
    torch.testing.assert_close(torch.cat([bound(part) for part in x.split(7)]), whole)


@pytest.mark.parametrize("sizes", [(8, 6, 4), (8, 20, 12, 4)])
def test_errors_of_rows_average_out(sizes, generator, make_stack):
    machines = make_stack(sizes)
    x = all_states(8)
    values = torch.stack([variational_bound(machines, x, generator) for _ in range(500)])
    independent = values.std(0).square().mean().sqrt() / math.sqrt(len(x))
    # Sharing the same numbers unrotated, rows would err alike, and their mean as much as one of
    # them: up to 16 times as much as with independent draws. Rotated ones are nearly as good as
    # these, where there are so many states of h_1 that rows hardly ever share one.
    assert values.mean(1).std() < 2 * independent


def test_more_draws_are_a_mean_of_single_ones(make_stack):
    machines = make_stack((5, 4, 3, 2))
    x, generator = all_states(5), torch.Generator().manual_seed(2)
    singles = [variational_bound(machines, x, generator) for _ in range(6)]
    together = variational_bound(machines, x, torch.Generator().manual_seed(2), 6)
    # The same random numbers in the same order.
    torch.testing.assert_close(together, torch.stack(singles).mean(0))


@pytest.mark.parametrize("kind", KINDS)
def test_bound_is_finite_for_extreme_weights(kind, generator, make_stack):
    machines = make_stack((4, 3, 5), kind)
    for machine in machines:
        machine.weight.mul_(1e4)
    # Every unit is certain then: logarithms of probabilities that underflow are still finite.
    assert torch.isfinite(
        variational_bound(machines, rows_for(machines[0], kind), generator, 3)
    ).all()


# The downward pass


@pytest.mark.parametrize("sizes", STACKS)
def test_downward_pass_has_the_law_of_the_network(sizes, generator, make_stack):
    machines = make_stack(sizes, spread=0.7)
    states, p = top_law(machines)
    top = states[torch.multinomial(p, 40_000, replacement=True, generator=generator)]
    visible = sample_downwards(machines, top, generator)
    law = torch.exp(log_likelihood(machines, all_states(sizes[0])))
    # Ancestral sampling: exact draws at the top lead to exact draws at the bottom.
    assert p_value(visible, law) > LIMIT
    # The test tells a network from one whose lowest biases are a little different.
    machines[0].visible_bias.add_(0.2)
    assert p_value(sample_downwards(machines, top, generator), law) < 1e-20


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", STACKS)
def test_downward_pass_has_the_moments_of_the_conditionals(sizes, kind, generator, make_stack):
    machines = make_stack(sizes, kind)
    states = all_states(sizes[-2])[-2:-1]
    # P(h_1) given one state of h_L-1, layer by layer over all states.
    log_p = torch.where((all_states(sizes[-2]) == states).all(1), 0.0, -math.inf)
    for machine in reversed(machines[1:-1]):
        x = all_states(machine.weight.shape[1])
        log_p = torch.logsumexp(log_downward(machine, x, True) + log_p, 1)
    means = machines[0].units.mean(machines[0].visible_input(all_states(sizes[1])))
    p = torch.exp(log_p).double()
    expected = p @ means
    between = p @ (means - expected) ** 2
    if kind == "bernoulli":
        within = p @ (means * (1 - means))
    else:
        learned = kind == "gaussian_learned"
        within = torch.exp(machines[0].log_variance) if learned else torch.ones(sizes[0])
    rows, n = states.repeat(40_000, 1), 40_000
    draws = sample_downwards(machines, rows, generator)
    # Mean and variance of v given h_L-1, by the law of total variance.
    assert ((draws.mean(0) - expected).abs() < 4.5 * ((between + within) / n).sqrt()).all()
    fourth = (draws - expected).pow(4).mean(0)
    error = ((fourth - (between + within) ** 2).clamp(min=1e-12) / n).sqrt()
    assert ((draws.var(0) - between - within).abs() < 4.5 * error).all()
    smooth = sample_downwards(machines, rows, generator, means=True)
    # The means given h_1 vary less: by what h_1 does.
    assert ((smooth.mean(0) - expected).abs() <= 4.5 * (between / n).sqrt() + 1e-9).all()
    torch.testing.assert_close(smooth.var(0), between, rtol=0.1, atol=1e-9)
    # Every one of them is the mean at some state of h_1.
    assert torch.cdist(smooth[:500], means).amin(1).max() < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_downward_pass_of_one_machine(kind, generator, make_stack):
    machines = make_stack((4, 3), kind)
    x = rows_for(machines[0], kind)
    # The top machine's visible units are those of the network.
    assert torch.equal(sample_downwards(machines, x, generator), x)
    means = machines[0].units.mean(machines[0].visible_input(all_states(3)))
    on = torch.sigmoid(machines[0].hidden_input(x))
    n = 20_000
    smooth = sample_downwards(machines, x[:1].expand(n, -1), generator, means=True)
    # Means need a state of h_1: a draw given the visible units, so each is one of eight.
    assert torch.cdist(smooth, means).amin(1).max() < 1e-5
    h = all_states(3)
    p = torch.where(h > 0, on[0], 1 - on[0]).prod(1)
    # Which occur as often as Q(h_1 | v) says.
    assert ((smooth.mean(0) - p @ means).abs() < 4.5 * smooth.std(0) / math.sqrt(n)).all()


@pytest.mark.parametrize("means", [False, True])
def test_downward_pass_leaves_its_states_as_they_are(means, generator, make_stack):
    machines = make_stack((4, 3, 5, 2))
    states = all_states(5)
    before = states.clone()
    sample_downwards(machines, states, generator, means)
    # They may be the state of a chain that goes on.
    assert torch.equal(states, before)


@pytest.mark.parametrize("kind", KINDS)
def test_single_precision_stays_single(kind, generator, make_stack):
    machines = make_stack((4, 3, 5), kind)
    single = [
        machine.over(Parameters(machine.theta.shapes, machine.theta.flat.float()))
        for machine in machines
    ]
    x = rows_for(machines[0], kind)
    for function in (
        lambda machines, dtype: variational_bound(machines, x.to(dtype), generator, 2),
        lambda machines, dtype: sample_downwards(machines, all_states(3).to(dtype), generator),
    ):
        # What comes in float32 goes out in float32, and float64 likewise.
        assert function(single, torch.float32).dtype == torch.float32
        assert function(machines, torch.float64).dtype == torch.float64


def test_draws_come_from_the_generator_alone(make_stack):
    machines = make_stack((4, 3, 5, 2))
    x, states = all_states(4), all_states(5)
    global_state = torch.get_rng_state()
    for function in (
        lambda generator: variational_bound(machines, x, generator),
        lambda generator: sample_downwards(machines, states, generator),
        lambda generator: sample_downwards(machines, states, generator, means=True),
    ):
        ends = [function(torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
        # The same seed, the same draws; another seed, others.
        assert torch.equal(ends[0], ends[1])
        assert not torch.equal(ends[0], ends[2])
    # torch's global generator was not drawn from.
    assert torch.equal(torch.get_rng_state(), global_state)
