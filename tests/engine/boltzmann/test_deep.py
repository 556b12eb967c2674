"""Deep machines against enumeration: laws, bounds, sweeps, gradients, chains."""

import itertools
import math

import pytest
import torch
from machines import drawn_parameters

from skae.engine.boltzmann.deep import DeepMachine, deep_shapes, even_units
from skae.engine.boltzmann.deep_training import (
    HalfMachine,
    MeanFieldDivergence,
    composed,
)
from skae.engine.boltzmann.energies import BipartiteMachine
from skae.engine.boltzmann.samplers import (
    Schedule,
    annealed_importance_sampling,
    annealing_temperatures,
    gibbs_state,
    gibbs_step,
    make_chains,
    parallel_tempering,
    run_chains,
)
from skae.engine.networks.mixed import Mixed
from skae.engine.networks.penalties import CodeKL, WeightDecay
from skae.engine.networks.units import Bernoulli, Gaussian, Multinomial
from skae.engine.optimisation.parameters import Parameters

SIZES = [(5, 4, 3), (5, 4, 3, 4)]
LIMIT = 1e-5


def columns_of(kind):
    """Units of five columns."""
    if kind == "mixed":
        every = torch.arange(5)
        return Mixed(
            [(Bernoulli(), every[:1]), (Gaussian(), every[1:3]), (Multinomial(), every[3:])]
        )
    return Bernoulli() if kind == "bernoulli" else Gaussian()


def make(sizes, kind="bernoulli", spread=1.0, seed=0, n_sweeps=2000, tol=1e-13):
    """A machine with N(0, spread^2) parameters, and its units."""
    units = columns_of(kind)
    shapes = deep_shapes(sizes, learns_variance=kind != "bernoulli")
    theta = drawn_parameters(shapes, spread, seed)
    if kind == "mixed":
        theta["log_variance"][[0, 3, 4]] = 0.0
    if kind != "bernoulli":
        theta["log_variance"].clamp_(-1.0, 0.0)
    return DeepMachine(theta, even_units(units, sizes), n_sweeps, tol)


def states(n):
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=n)), dtype=torch.float64)


def negative_energy(theta, layers):
    """-E of every combination of rows of the layers, one axis for each, as the formula says."""
    n_layers, total = len(layers), 0.0
    biases = [theta["visible_bias_0"], *(theta[f"hidden_bias_{k}"] for k in range(n_layers - 1))]
    for level, (rows, bias) in enumerate(zip(layers, biases, strict=True)):
        total = total + (rows @ bias).view([-1 if k == level else 1 for k in range(n_layers)])
    for level, (below, above) in enumerate(itertools.pairwise(layers)):
        table = below @ theta[f"weight_{level}"].t() @ above.t()
        shape = [1] * n_layers
        shape[level : level + 2] = table.shape
        total = total + table.view(shape)
    return total


def log_marginal(theta, sizes):
    """log sum over the hidden layers of exp(-E), of every state of the columns."""
    return torch.logsumexp(negative_energy(theta, [*map(states, sizes)]).flatten(1), 1)


def bound(machine, x):
    return -machine.free_energy_bound(machine.completed(x))


# Laws


@pytest.mark.parametrize("sizes", SIZES)
def test_energies_and_log_partition_are_those_of_the_formula(sizes):
    machine = make(sizes)
    marginal = log_marginal(machine.theta, sizes)
    # Z is the sum over all states of all layers, by the energy as it is written.
    torch.testing.assert_close(machine.log_partition(), torch.logsumexp(marginal, 0))
    # And P(v) what the bipartite machine leaves of it: a sum over the other even layers.
    others = states(sum(sizes[2::2]))
    pairs = [torch.cat([v.expand(len(others), -1), others], 1) for v in states(sizes[0])]
    own = torch.stack([torch.logsumexp(-machine.free_energy(rows), 0) for rows in pairs])
    torch.testing.assert_close(own, marginal)


@pytest.mark.parametrize(
    ("sizes", "method"),
    [(SIZES[0], "gibbs"), (SIZES[1], "gibbs"), (SIZES[1], "tempering")],
)
def test_chains_reach_the_law(sizes, method, p_value, generator):
    machine = make(sizes, spread=0.7)
    p = torch.softmax(log_marginal(machine.theta, sizes), 0)
    start = machine.completed(torch.ones(20_000, sizes[0], dtype=torch.float64))
    if method == "gibbs":
        step, state = gibbs_step(machine, generator), gibbs_state(machine, start, generator)
        run = run_chains(step, state, Schedule(burn_in=60), keep=lambda state: state[0])
    else:
        base = machine.widened(torch.zeros(sizes[0], dtype=torch.float64))
        chains = make_chains(
            parallel_tempering, machine, generator, base_bias=base, n_temperatures=3
        )
        run = run_chains(
            chains.step, chains.start(start), Schedule(burn_in=30), keep=chains.visible
        )
    rows = machine.columns(run.samples[0])
    # As often as the enumerated law says; states of `p_value` count from the first column up.
    order = (states(sizes[0]) @ 2.0 ** torch.arange(sizes[0], dtype=torch.float64)).long()
    law = torch.empty_like(p)
    law[order] = p
    assert p_value(rows, law) > LIMIT


@pytest.mark.parametrize(
    ("sizes", "kind"),
    [(SIZES[0], "bernoulli"), (SIZES[0], "mixed"), (SIZES[1], "gaussian")],
)
def test_annealing_finds_log_z(sizes, kind):
    machine = make(sizes, kind, spread=0.6)
    path = machine.tempered(machine.widened(torch.zeros(sizes[0], dtype=torch.float64)))
    exact = float(machine.log_partition())
    for seed in range(3):
        noise = torch.Generator().manual_seed(seed)
        estimate = annealed_importance_sampling(path, annealing_temperatures(300), 200, noise)
        # Sums and integrals over all but the odd layers, by enumeration of these.
        assert abs(estimate.log_partition - exact) < 3 * estimate.standard_error
        assert estimate.effective_chains > 20


# The bound


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("sizes", SIZES)
def test_bound_is_below_the_truth_on_every_row(sizes, seed):
    machine = make(sizes, seed=seed)
    gap = log_marginal(machine.theta, sizes) - bound(machine, states(sizes[0]))
    # KL(Q || P(h | v)) is what the bound lacks: never negative, and not zero where h1 and h2 depend
    # on each other.
    assert gap.min() > -1e-12
    assert gap.max() > 1e-3
    # Without weights between the hidden layers Q is the posterior.
    for level in range(1, len(sizes) - 1):
        machine.theta[f"weight_{level}"].zero_()
    machine = DeepMachine(machine.theta, machine.units)
    gap = log_marginal(machine.theta, sizes) - bound(machine, states(sizes[0]))
    torch.testing.assert_close(gap, torch.zeros_like(gap), atol=1e-12, rtol=0)


@pytest.mark.parametrize("kind", ["bernoulli", "gaussian", "mixed"])
@pytest.mark.parametrize("sizes", SIZES)
def test_sweeps_never_lower_the_bound(sizes, kind):
    x = states(5)
    bounds = []
    for n_sweeps in range(12):
        machine = make(sizes, kind, spread=2.0, n_sweeps=n_sweeps, tol=0.0)
        bounds.append(bound(machine, x))
    change = torch.stack(bounds).diff(dim=0)
    # Each half of a sweep is the maximum over one side given the other.
    assert change.min() > -1e-12
    # From a first pass that is no maximum.
    assert change[0].max() > 1e-2


@pytest.mark.parametrize("sizes", SIZES)
def test_rows_do_not_depend_on_each_other(sizes):
    machine = make(sizes, spread=1.5, tol=1e-3, n_sweeps=30)
    x = states(5)
    alone = torch.cat([machine.completed(row.unsqueeze(0)) for row in x])
    # A row rests when its own means do.
    torch.testing.assert_close(machine.completed(x), alone, atol=1e-12, rtol=0)


def test_bound_is_the_energy_and_the_entropy():
    machine = make(SIZES[1])
    x = states(5)
    completed = machine.completed(x)
    means = machine.layers(completed, machine.code(completed))
    rows = [[layer[k : k + 1] for layer in (x, *means)] for k in range(len(x))]
    energies = -torch.stack([negative_energy(machine.theta, row).squeeze() for row in rows])
    entropy = sum(-(m * torch.log(m) + (1 - m) * torch.log(1 - m)).sum(1) for m in means)
    # -E(x, mu) + H(mu), over all hidden layers.
    torch.testing.assert_close(bound(machine, x), entropy - energies)


@pytest.mark.parametrize("sizes", [(5, 4), *SIZES])
def test_second_layer_of_zero_weights_is_the_rbm(sizes):
    machine = make(sizes)
    for level in range(1, len(sizes) - 1):
        machine.theta[f"weight_{level}"].zero_()
        machine.theta[f"hidden_bias_{level}"].zero_()
    machine = DeepMachine(machine.theta, machine.units)
    theta = Parameters(BipartiteMachine.shapes(5, 4), dtype=torch.float64)
    for name in theta:
        theta[name].copy_(machine.theta[name])
    rbm, x = BipartiteMachine(theta, Bernoulli()), states(5)
    free = sum(sizes[2:]) * math.log(2)
    # Units that hear nothing are on or off alike.
    torch.testing.assert_close(bound(machine, x), free - rbm.free_energy(x))
    torch.testing.assert_close(machine.log_partition(), rbm.log_partition() + free)
    torch.testing.assert_close(machine.posterior(x)[0], rbm.code(x))


# Passes up and down


@pytest.mark.parametrize("sizes", [(5, 4), *SIZES])
def test_doubled_upward_pass_is_the_stack(sizes):
    generator, biases = torch.Generator().manual_seed(0), []
    biases = [torch.randn(n, dtype=torch.float64, generator=generator) for n in sizes]
    machines = []
    for number, (below, above) in enumerate(itertools.pairwise(sizes)):
        theta = Parameters(BipartiteMachine.shapes(below, above), dtype=torch.float64)
        theta.flat.normal_(generator=generator)
        theta["visible_bias_0"].copy_(biases[number])
        theta["hidden_bias_0"].copy_(biases[number + 1])
        up = 1.0 if number == len(sizes) - 2 else 2.0
        machines.append(HalfMachine(theta, Bernoulli(), up=up))
    arrays = composed([machine.theta.to_numpy() for machine in machines])
    theta = Parameters.from_numpy(arrays, dtype=torch.float64, device="cpu")
    deep, codes = DeepMachine(theta, Bernoulli()), states(5)
    for machine, means in zip(machines, deep.upward(codes), strict=True):
        codes = machine.code(codes)
        # Where machines agree on the bias of a layer that they share, as the stack codes.
        torch.testing.assert_close(means, codes)


@pytest.mark.parametrize("kind", ["bernoulli", "mixed"])
@pytest.mark.parametrize("sizes", SIZES)
def test_last_passes_stay_at_the_fixed_point(sizes, kind):
    machine = make(sizes, kind)
    x = states(5)
    completed = machine.completed(x)
    for mean, code in zip(
        machine.layers(completed, machine.code(completed)), machine.posterior(x), strict=True
    ):
        # The pass that gradients go through changes nothing where sweeps have settled.
        torch.testing.assert_close(mean, code, atol=1e-9, rtol=0)
    code = machine.posterior(x)[-1]
    even = machine._given_top(code)
    output = machine.columns(machine.visible_input(machine.code(even)))
    if len(sizes) == 3:
        torch.testing.assert_close(machine.decoded(code), output, atol=1e-9, rtol=0)


@pytest.mark.parametrize("sizes", SIZES)
def test_free_column_is_predicted_by_the_mean_field(sizes):
    machine = make(sizes, spread=0.4)
    x = states(5)
    is_given = torch.ones_like(x, dtype=torch.bool)
    fill = torch.full((5,), 0.5, dtype=torch.float64)
    log_p = log_marginal(machine.theta, sizes)
    for column in range(5):
        is_given.fill_(True)
        is_given[:, column] = False
        predicted = machine.predicted(x, is_given, fill)[:, column]
        other = x.clone()
        other[:, column] = 1.0
        on = (other @ 2.0 ** torch.arange(4, -1, -1, dtype=torch.float64)).long()
        other[:, column] = 0.0
        off = (other @ 2.0 ** torch.arange(4, -1, -1, dtype=torch.float64)).long()
        exact = log_p[on] - log_p[off]
        # Nearly the log-odds of the column given all others, where weights are small; its own
        # value has no say.
        assert (predicted - exact).abs().max() < 0.15
        assert (predicted - exact).abs().mean() < 0.4 * exact.abs().mean()
        torch.testing.assert_close(predicted[on], predicted[off])


# Learning


def objective_of(machine, kind="bernoulli", **learning):
    settings = {"n_sweeps": machine.n_sweeps, "tol": machine.tol}
    fill = torch.full((5,), 0.5, dtype=torch.float64)
    return MeanFieldDivergence(
        lambda theta: DeepMachine(theta, machine.units, **settings),
        columns_of(kind),
        fill,
        persistent=True,
        n_chains=8,
        **learning,
    )


@pytest.mark.parametrize(
    ("sizes", "kind"),
    [(SIZES[0], "bernoulli"), (SIZES[0], "mixed"), (SIZES[1], "gaussian"), (SIZES[1], "mixed")],
)
def test_gradient_is_that_of_the_reoptimised_bound(sizes, kind):
    machine = make(sizes, kind, spread=0.5)
    theta, x = machine.theta, states(5)[[3, 9, 20, 30]]
    if kind == "mixed":
        x[:, 3:] = torch.eye(2, dtype=torch.float64)[[0, 1, 1, 0]]

    def data_phase(flat):
        own = DeepMachine(Parameters(theta.shapes, flat), machine.units, 2000, 1e-14)
        return float(own.free_energy_bound(own.completed(x)).mean())

    tracked, gradient = Parameters(theta.shapes, theta.flat), theta.empty_like()
    gradient.flat.zero_()
    completed = machine.completed(x)
    own = DeepMachine(tracked.tracked(gradient), machine.units)
    own.free_energy(completed).mean().backward()
    finite = torch.empty_like(theta.flat)
    for k in range(len(finite)):
        ends = []
        for step in (1e-5, -1e-5):
            flat = theta.flat.clone()
            flat[k] += step
            ends.append(data_phase(flat))
        finite[k] = (ends[0] - ends[1]) / 2e-5
    # The means are at the maximum: that they move changes the bound in second order only.
    torch.testing.assert_close(gradient.flat, finite, atol=2e-8, rtol=1e-6)


@pytest.mark.parametrize("penalized", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("sizes", SIZES)
def test_closed_form_is_the_gradient_of_the_value(sizes, weighted, penalized):
    machine = make(sizes, spread=0.5)
    theta, x = machine.theta, states(5)[[3, 9, 20, 30]]
    weight = torch.tensor([0.5, 1.5, 0.7, 1.3]).double() if weighted else None
    penalties = [WeightDecay(0.1)] if penalized else []
    objective = objective_of(machine, penalties=penalties)
    value = theta.empty_like()
    value.flat.zero_()
    with torch.enable_grad():
        seed = torch.Generator().manual_seed(1)
        objective.value(theta.tracked(value), x, seed, weight).backward()
    out = theta.empty_like()
    with torch.no_grad():
        objective.gradient(theta, x, torch.Generator().manual_seed(1), out, weight)
    # Completed rows and particles are constant in both.
    torch.testing.assert_close(out.flat, value.flat)


@pytest.mark.parametrize("sizes", SIZES)
def test_every_step_is_at_the_parameters_of_the_time(sizes):
    theta, x = make(sizes, spread=0.5).theta, states(5)[[3, 9, 20, 30]]
    machine = make(sizes, spread=0.5)
    objective, results = objective_of(machine), []
    objective.gradient(theta, x, torch.Generator().manual_seed(1), theta.empty_like())
    theta.flat.add_(0.3)  # as steps do, in place
    for one in (objective, objective_of(machine)):
        one.state, out = {}, theta.empty_like()
        one.gradient(theta, x, torch.Generator().manual_seed(1), out)
        criterion = one.criterion(theta, x, torch.Generator().manual_seed(2))
        results.append((out.flat, criterion))
    torch.testing.assert_close(results[0][0], results[1][0])
    torch.testing.assert_close(results[0][1], results[1][1])


def test_sparsity_reaches_all_layers():
    # The gradient of the penalty at fixed means of the neighbours, layer by layer.
    machine = make(SIZES[1], spread=0.5)
    theta, x = machine.theta, states(5)[[3, 9, 20, 30]]
    plain, sparse = theta.empty_like(), theta.empty_like()
    for out, penalties in ((plain, []), (sparse, [CodeKL(0.3, 0.1)])):
        objective = objective_of(machine, penalties=penalties)
        with torch.no_grad():
            objective.gradient(theta, x, torch.Generator().manual_seed(1), out)
    completed = machine.completed(x)
    means = [x, *machine.layers(completed, machine.code(completed))]
    expected = theta.empty_like()
    expected.flat.zero_()
    tracked = theta.tracked(expected)
    with torch.enable_grad():
        for level in range(1, 4):
            weight, bias = tracked[f"weight_{level - 1}"], tracked[f"hidden_bias_{level - 1}"]
            a = bias + means[level - 1] @ weight.t()
            if level < 3:
                a = a + means[level + 1] @ tracked[f"weight_{level}"]
            on, off = torch.sigmoid(a).mean(0), 1 - torch.sigmoid(a).mean(0)
            divergence = 0.1 * torch.log(0.1 / on) + 0.9 * torch.log(0.9 / off)
            (0.3 * divergence.sum()).backward()
    torch.testing.assert_close(sparse.flat - plain.flat, expected.flat, atol=1e-8, rtol=1e-5)


@pytest.mark.parametrize("centred", [True, False])
def test_centred_machines_do_not_notice_flipped_columns(centred):
    sizes, n = SIZES[1], 40
    x = states(5)[torch.randint(32, (n,), generator=torch.Generator().manual_seed(3))]
    found = []
    for flips in ([], [1, 3]):
        machine, rows = make(sizes, spread=0.3, seed=2), x.clone()
        theta, gradient = machine.theta, machine.theta.empty_like()
        rows[:, flips] = 1 - rows[:, flips]
        # The same law, of 1 - v in the place of v.
        theta["hidden_bias_0"].add_(theta["weight_0"][:, flips].sum(1))
        theta["weight_0"][:, flips] *= -1
        theta["visible_bias_0"][flips] *= -1
        every = states(5 + sizes[2])
        for _ in range(20):
            machine = DeepMachine(theta, machine.units, 2000, 1e-13)
            p = torch.softmax(-machine.free_energy(every), 0)
            visible = torch.cat([machine.completed(rows), every])
            hidden = machine.code(visible)
            offsets = visible[:n].mean(0), hidden[:n].mean(0)
            share = torch.cat([p.new_full((n,), -1 / n), p])
            machine.contrast_(
                visible, hidden, share, gradient, offsets=offsets if centred else None
            )
            theta.flat.sub_(gradient.flat, alpha=0.5)
        machine = DeepMachine(theta, machine.units, 2000, 1e-13)
        found.append(bound(machine, rows) - machine.log_partition())
    difference = (found[0] - found[1]).abs().max()
    # After twenty steps of the exact gradient both are the same law still; without offsets, steps
    # depend on which value is called 1.
    assert (difference < 1e-10) == centred
    assert centred or difference > 1e-3
