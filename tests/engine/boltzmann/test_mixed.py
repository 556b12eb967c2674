"""Machines whose visible columns are numbers, binary and categories, against enumeration."""

import itertools
import math

import pytest
import torch
from machines import drawn_parameters
from scipy.stats import chi2

from skae.engine.boltzmann.conditionals import REAL, pseudo_log_likelihood
from skae.engine.boltzmann.energies import BipartiteMachine
from skae.engine.boltzmann.learning import ContrastiveDivergence, boltzmann_machine
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
from skae.engine.networks.units import Bernoulli, Gaussian, Multinomial, OneHotGroups
from skae.engine.optimisation.models import some_of
from skae.engine.optimisation.optimizers import OPTIMIZERS
from skae.engine.optimisation.parameters import Parameters
from skae.engine.optimisation.rows import make_rows
from skae.engine.optimisation.runs import Data, Run, Settings
from skae.engine.optimisation.training import train

N_HIDDEN, N_CHAINS, LIMIT = 3, 10_000, 1e-5
# Kinds of columns: b a binary one, r a real one, a digit a category of so many columns.
LAYOUTS = ["b3r", "r2b3", "3", "34", "2r4b", "brrb", "rr", "b33"]
WITH_CATEGORIES = [layout for layout in LAYOUTS if not layout.isalpha()]


def columns_of(layout):
    """The kind and the columns of each variable."""
    start, found = 0, []
    for kind in layout:
        width = int(kind) if kind.isdigit() else 1
        found.append((kind, list(range(start, start + width))))
        start += width
    return found


def units_of(layout):
    """As estimators make them: the groups are one part where there are several."""
    found = columns_of(layout)
    groups = [columns for kind, columns in found if kind.isdigit()]
    parts = [
        (units(), torch.tensor([i for kind, c in found if kind == name for i in c]))
        for name, units in (("b", Bernoulli), ("r", Gaussian))
        if name in layout
    ]
    if len(groups) == 1:
        parts.append((Multinomial(), torch.tensor(groups[0])))
    if len(groups) > 1:
        parts.append(
            (OneHotGroups([len(g) for g in groups]), torch.tensor([i for g in groups for i in g]))
        )
    return parts[0][0] if len(parts) == 1 else Mixed(parts)


def make_machine(layout, *, learned=True, spread=1.0, n_hidden=N_HIDDEN, dtype=torch.float64):
    found = columns_of(layout)
    n_visible = found[-1][1][-1] + 1
    shapes = BipartiteMachine.shapes(n_visible, n_hidden, learns_variance=learned)
    theta = drawn_parameters(shapes, spread, n_visible, dtype)
    machine = BipartiteMachine(theta, units_of(layout))
    if learned:
        real = [c for kind, columns in found for c in columns if kind == "r"]
        discrete = torch.ones(n_visible, dtype=torch.bool)
        discrete[real] = False
        machine.log_variance[discrete] = 0.0
    return machine


def states_of(layout, machine):
    """All values of the discrete variables on grids of the real ones, and the volume of a cell."""
    axes, volume = [], 1.0
    w, c = machine.weight, machine.visible_bias
    for kind, columns in columns_of(layout):
        if kind == "b":
            axes.append(torch.tensor([[0.0], [1.0]]))
        elif kind.isdigit():
            axes.append(torch.eye(int(kind)))
        else:
            (i,) = columns
            s = 1.0 if machine.precision is None else float(machine.precision[i].rsqrt())
            low = float(c[i] + w[:, i].clamp(max=0).sum()) - 9 * s
            high = float(c[i] + w[:, i].clamp(min=0).sum()) + 9 * s
            axes.append(torch.arange(low, high, 0.7 * s, dtype=torch.float64).unsqueeze(1))
            volume *= 0.7 * s
    numbers = torch.cartesian_prod(*(torch.arange(len(axis)) for axis in axes))
    numbers = numbers.view(len(numbers), len(axes))
    picked = [axis.double()[numbers[:, k]] for k, axis in enumerate(axes)]
    return torch.cat(picked, 1), volume


def joint_energy(layout, machine, visible, hidden):
    """E of all pairs of rows, written out variable by variable."""
    w, c = machine.weight, machine.visible_bias
    energy = -(hidden @ machine.hidden_bias).unsqueeze(0).repeat(len(visible), 1)
    for kind, columns in columns_of(layout):
        for i in columns:
            variance = 1.0 if machine.precision is None else float(1 / machine.precision[i])
            v = visible[:, i]
            if kind == "r":
                energy = energy + ((v - c[i]) ** 2 / (2 * variance)).unsqueeze(1)
                v = v / variance
            else:
                energy = energy - (v * c[i]).unsqueeze(1)
            energy = energy - torch.outer(v, hidden @ w[:, i])
    return energy


def hidden_states(machine):
    grid = itertools.product([0.0, 1.0], repeat=machine.n_hidden)
    return torch.tensor(list(grid), dtype=torch.float64)


def some_rows(layout, machine, n, generator):
    states, _ = states_of(layout, machine)
    return states[torch.randint(len(states), (n,), generator=generator)]


@pytest.fixture(params=LAYOUTS)
def layout(request):
    return request.param


@pytest.mark.parametrize("learned", [False, True])
def test_free_energies_sum_out_the_other_layer(layout, learned):
    machine = make_machine(layout, learned=learned)
    (v, volume), h = states_of(layout, machine), hidden_states(machine)
    energy = joint_energy(layout, machine, v, h)
    some = torch.arange(0, len(v), 7)
    # E(v, h), F(v) = -log sum_h exp(-E(v, h)) and, over v, G(h), by their definitions.
    pairs = torch.cartesian_prod(some, torch.arange(len(h)))
    own = machine.energy(v[pairs[:, 0]], h[pairs[:, 1]])
    torch.testing.assert_close(own.view(len(some), -1), energy[some])
    torch.testing.assert_close(machine.free_energy(v), -torch.logsumexp(-energy, 1))
    expected = -torch.logsumexp(-energy, 0) - math.log(volume)
    torch.testing.assert_close(machine.hidden_free_energy(h), expected)
    # And log Z over both.
    log_z = torch.logsumexp(-energy.flatten(), 0) + math.log(volume)
    torch.testing.assert_close(machine.log_partition(), log_z)


def test_both_layers_given_each_other(layout):
    machine = make_machine(layout)
    (v, _), h = states_of(layout, machine), hidden_states(machine)
    energy = joint_energy(layout, machine, v, h)
    torch.testing.assert_close(machine.code(v), torch.softmax(-energy, 1) @ h)
    means = machine.units.mean(machine.visible_input(h))
    # E[v | h], also of categories: probabilities that sum to 1.
    torch.testing.assert_close(means, torch.softmax(-energy, 0).t() @ v)


def test_pseudo_likelihood_takes_a_category_as_one_variable(layout, generator):
    machine = make_machine(layout)
    x = some_rows(layout, machine, 12, generator)
    expected = []
    for kind, columns in columns_of(layout):
        if kind == "r":
            (i,) = columns
            t, volume = states_of("r", _only(machine, i))
            values = t.squeeze(1)
        elif kind == "b":
            values, volume = torch.tensor([0.0, 1.0]).double(), 1.0
        else:
            values, volume = torch.eye(int(kind)).double(), 1.0
        curve = []
        for value in values:
            changed = x.clone()
            changed[:, columns] = value
            curve.append(-machine.free_energy(changed))
        log_normalizer = torch.logsumexp(torch.stack(curve), 0) + math.log(volume)
        expected.append(-machine.free_energy(x) - log_normalizer)
    expected = torch.stack(expected, 1)
    # log P(x_g | x_-g) = -F(x) - log of the sum (integral) over what the variable may be.
    torch.testing.assert_close(pseudo_log_likelihood(machine, x), expected.sum(1))
    # One variable of each row, another in each: the kinds are told apart.
    n = machine.n_variables
    assert n == len(layout)
    variable = torch.arange(12) % n
    own = machine.conditional_log_likelihood(x, machine.hidden_input(x), variable)
    torch.testing.assert_close(own, expected[torch.arange(12), variable])
    some = torch.tensor([n - 1])
    torch.testing.assert_close(pseudo_log_likelihood(machine, x, some), n * expected[:, n - 1])


def _only(machine, i):
    """The machine with one visible unit, whose grid is the same."""
    shapes = BipartiteMachine.shapes(1, machine.n_hidden, learns_variance=True)
    one = BipartiteMachine(Parameters(shapes, dtype=torch.float64), Gaussian())
    one.weight.copy_(machine.weight[:, i : i + 1])
    one.visible_bias.copy_(machine.visible_bias[i : i + 1])
    one.log_variance.copy_(machine.log_variance[i : i + 1])
    return one


def test_probabilities_of_categories_count_in_parts(generator):
    machine = make_machine("b3r")
    x = some_rows("b3r", machine, 5, generator)
    x[:, 1:4] = torch.softmax(torch.randn(5, 3, generator=generator).double(), 1)
    variable = torch.tensor([1])
    ends = []
    for k in range(3):
        end = x.clone()
        end[:, 1:4] = torch.eye(3)[k]
        a = machine.hidden_input(end)
        ends.append(machine.conditional_log_likelihood(end, a, variable))
    value = machine.conditional_log_likelihood(x, machine.hidden_input(x), variable)
    # sum_k x_k log P_k, with P of what is not the variable, which sums to 1.
    ends = torch.stack(ends, 1)
    torch.testing.assert_close(value, (x[:, 1:4] * ends).sum(1))
    torch.testing.assert_close(torch.exp(ends).sum(1), torch.ones(5).double())


def test_blocks_of_rows_change_nothing(monkeypatch, generator):
    machine = make_machine("2r4b")
    x = some_rows("2r4b", machine, 9, generator)
    whole = pseudo_log_likelihood(machine, x)
    monkeypatch.setattr("skae.engine.boltzmann.conditionals._GRID_BLOCK", 1)
    torch.testing.assert_close(pseudo_log_likelihood(machine, x), whole)


@pytest.mark.parametrize("layout", WITH_CATEGORIES)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_give_no_number(layout, value, generator):
    machine = make_machine(layout)
    x = some_rows(layout, machine, 6, generator)
    machine.weight.fill_(value)
    assert not torch.isfinite(pseudo_log_likelihood(machine, x)).any()
    # Chains go on, so that the training loop sees that it has diverged.
    machine.sample_visible(torch.ones(6, N_HIDDEN).double(), generator)


# Gradients


@pytest.mark.parametrize("learned", [False, True])
def test_the_step_is_the_gradient_of_the_free_energy(layout, learned, generator):
    machine = make_machine(layout, learned=learned)
    x = some_rows(layout, machine, 8, generator)
    share = torch.randn(8, generator=generator).double()
    share -= share.mean()  # as of rows less particles
    out = machine.theta.empty_like()
    machine.contrast_(x.clone(), machine.code(x), share, out)
    gradient = machine.theta.empty_like()
    gradient.flat.zero_()
    tracked = BipartiteMachine(machine.theta.tracked(gradient), machine.units)
    (-(share * tracked.free_energy(x)).sum()).backward()
    own = machine.over(gradient)
    if learned:
        # Steps of weights and biases are longer by s^2, see `contrast_`.
        own.weight.div_(machine.precision)
        own.visible_bias.div_(machine.precision)
        for kind, columns in columns_of(layout):
            if kind != "r":  # no parameter: it stays 0
                own.log_variance[columns] = 0.0
    torch.testing.assert_close(out.flat, gradient.flat)


def test_its_mean_over_the_law_is_the_gradient_of_the_likelihood(layout):
    machine = make_machine(layout, learned=False)
    v, _ = states_of(layout, machine)
    x, out = v[::5], machine.theta.empty_like()
    p = torch.softmax(-machine.free_energy(v), 0)
    share = torch.cat([torch.full((len(x),), -1 / len(x)).double(), p])
    rows = torch.cat([x, v])
    machine.contrast_(rows.clone(), machine.code(rows), share, out)
    gradient = machine.theta.empty_like()
    gradient.flat.zero_()
    tracked = BipartiteMachine(machine.theta.tracked(gradient), machine.units)
    (tracked.free_energy(x).mean() + tracked.log_partition()).backward()
    # d/dtheta of -mean log P(x) = mean F(x) + log Z, by autograd through the exact log Z.
    torch.testing.assert_close(out.flat, gradient.flat)


@pytest.mark.parametrize(("layout", "persistent"), [("b3r", False), ("2r4b", True)])
def test_learning_comes_near_the_law_of_the_rows(layout, persistent, generator):
    units = units_of(layout)
    teacher = make_machine(layout, learned=False, spread=2.0)
    # Without a bias of their own, no state is nearly certain.
    mean = teacher.units.mean(torch.zeros(1, teacher.n_visible).double())[0]
    teacher.visible_bias.copy_(-0.5 * teacher.weight.sum(0))
    teacher.hidden_bias.copy_(-teacher.weight @ mean)
    v, _ = states_of(layout, teacher)
    p = torch.softmax(-teacher.free_energy(v), 0)
    x = v[torch.multinomial(p, 4000, replacement=True, generator=generator)]
    bias = units.bias_for_mean(x.mean(0))
    model = boltzmann_machine(
        units, teacher.n_visible, N_HIDDEN, bias, persistent=persistent, n_gibbs_steps=3
    )
    theta = Parameters(model.shapes, dtype=torch.float64)
    model.start_(theta, None, None, generator)
    machine, objective, out = BipartiteMachine(theta, units), model.objective(), theta.empty_like()

    def gap():
        """Mean log P of the rows under the teacher less that under the machine."""
        own = -machine.free_energy(x) - machine.log_partition()
        return float((-teacher.free_energy(x) - teacher.log_partition() - own).mean())

    with torch.no_grad():
        independent = gap()
        for k in range(600):
            batch = x[torch.randint(len(x), (400,), generator=generator)]
            objective.gradient(theta, batch, generator, out)
            theta.flat.sub_(out.flat, alpha=0.2 / (1 + k / 200))
        # Most of what independent units miss is learned.
        assert independent > 0.05
        assert gap() < 0.35 * independent


def test_variances_of_discrete_columns_stay_one(generator):
    layout, units = "b3r", units_of("b3r")
    least = torch.tensor([1.0, 1.0, 1.0, 1.0, 0.3]).numpy()
    model = boltzmann_machine(units, 5, N_HIDDEN, torch.zeros(5).double(), least_variance=least)
    theta = Parameters(model.shapes, dtype=torch.float64)
    model.start_(theta, None, None, generator)
    machine, objective, out = BipartiteMachine(theta, units), model.objective(), theta.empty_like()
    x = some_rows(layout, make_machine(layout), 50, generator)
    x[:, 4] *= 0.01
    with torch.no_grad():
        for _ in range(100):
            objective.gradient(theta, x, generator, out)
            theta.flat.sub_(out.flat, alpha=0.1)
            model.project(theta)
    assert machine.log_variance[:4].abs().max() == 0
    # A column that hardly varies has the least variance that it may have.
    assert float(machine.log_variance[4]) == pytest.approx(math.log(0.3))


def test_no_criterion_is_below_the_floor():
    units = units_of("b3r")
    model = boltzmann_machine(units, 5, 2, torch.zeros(5), least_variance=[1, 1, 1, 1, 0.5])
    # Discrete terms cannot be negative; a density has its peak at 1 / sqrt(2 pi s^2).
    assert model.objective().floor == pytest.approx(0.5 * math.log(2 * math.pi * 0.5))
    assert boltzmann_machine(Multinomial(), 5, 2, torch.zeros(5)).objective().floor == 0


# Chains


def discrete_law(layout, machine):
    """P of each state of the discrete variables, real ones being integrated over."""
    v, _ = states_of(layout, machine)
    p = torch.softmax(-machine.free_energy(v), 0)
    discrete = [c for kind, columns in columns_of(layout) for c in columns if kind != "r"]
    states, number = torch.unique(v[:, discrete], dim=0, return_inverse=True)
    return discrete, states, torch.zeros(len(states)).double().index_add_(0, number, p)


def p_value(rows, states, p):
    number = (rows.unsqueeze(1) == states).all(2).double().argmax(1)
    assert (states[number] == rows).all()
    counts, expected = torch.bincount(number, minlength=len(p)), p * len(rows)
    kept = expected >= 5
    cells = [torch.cat([c[kept], c[~kept].sum().view(1)]) for c in (counts.double(), expected)]
    statistic = float(((cells[0] - cells[1]) ** 2 / cells[1].clamp(min=1e-9)).sum())
    return chi2.sf(statistic, int(kept.sum()) - 1)


@pytest.mark.parametrize(
    ("layout", "sampler"),
    [
        *((layout, "gibbs") for layout in ("b3r", "2r4b", "3")),
        ("b3r", "tempering"),
    ],
)
def test_chains_reach_the_law(layout, sampler, generator):
    # Weights of which 60 steps of Gibbs sampling are enough, whatever their draw.
    machine = make_machine(layout, spread=0.7)
    base = torch.zeros(machine.n_visible).double()
    start = machine.tempered(base).start(N_CHAINS, generator)
    if sampler == "gibbs":
        step, state = gibbs_step(machine, generator), gibbs_state(machine, start, generator)
        run = run_chains(step, state, Schedule(burn_in=60), keep=lambda s: s[0])
    else:
        settings = {"base_bias": base, "n_temperatures": 3}
        chains = make_chains(parallel_tempering, machine, generator, **settings)
        state = chains.start(start)
        run = run_chains(chains.step, state, Schedule(burn_in=30), keep=chains.visible)
    rows = run.samples[0]
    discrete, states, p = discrete_law(layout, machine)
    # Every state of binary columns and categories as often as the enumerated law says ...
    assert p_value(rows[:, discrete], states, p) > LIMIT
    assert p_value(start[:, discrete], states, p) < LIMIT
    # ... and the real columns have its mean and variance, within five standard errors.
    v, _ = states_of(layout, machine)
    law = torch.softmax(-machine.free_energy(v), 0)
    for kind, columns in columns_of(layout):
        if kind == "r":
            exact = law @ v[:, columns[0]]
            spread = law @ (v[:, columns[0]] - exact) ** 2
            error = (spread / N_CHAINS).sqrt()
            assert abs(rows[:, columns[0]].mean() - exact) < 5 * error
            # That of a variance follows from the fourth moment, which a rare far mode makes large.
            error = ((law @ (v[:, columns[0]] - exact) ** 4 - spread**2) / N_CHAINS).sqrt()
            assert abs(rows[:, columns[0]].var() - spread) < 5 * error


def test_memory_for_draws_changes_nothing(layout):
    machine = make_machine(layout)
    hidden = hidden_states(machine)
    first = machine.sample_visible(hidden, torch.Generator().manual_seed(0))
    out = torch.full_like(first, 7.0)
    second = machine.sample_visible(hidden, torch.Generator().manual_seed(0), out=out)
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert second is out


@pytest.mark.parametrize("layout", ["b3r", "2r4b", "b33"])
def test_annealing_estimates_log_z(layout, generator):
    machine = make_machine(layout)
    base = machine.visible_bias.clone()
    path = machine.tempered(base)
    estimate = annealed_importance_sampling(path, annealing_temperatures(300), 300, generator)
    exact = float(machine.log_partition())
    assert abs(estimate.log_partition - exact) < 4 * estimate.standard_error
    # At beta = 0 units are independent, hidden ones on or off alike.
    nothing = machine.over(Parameters(machine.theta.shapes, machine.theta.flat.clone()))
    nothing.weight.zero_()
    nothing.hidden_bias.zero_()
    assert float(path.log_base_partition()) == pytest.approx(float(nothing.log_partition()))


@pytest.mark.parametrize("spread", [0.3, 1.0])
def test_the_criterion_is_an_unbiased_estimate(spread, layout, generator):
    machine = make_machine(layout, spread=spread)
    x = some_rows(layout, machine, 3, generator)
    rows, n, generator = x.repeat(4000, 1), machine.n_variables, generator.manual_seed(3)
    a = machine.hidden_input(x)
    terms = torch.stack(
        [machine.conditional_log_likelihood(x, a, torch.tensor([k])) for k in range(n)], 1
    )
    has_real = "r" in layout
    nearly = machine.laplace_log_likelihoods(x, a)[:, machine.variables.columns[:, 0]]
    # What is drawn: of discrete variables the term, of a real one what the parabola is wrong by, in
    # an eighth of the rows.
    size = n * (terms - nearly) * torch.where(machine.variables.kind == REAL, 8**0.5, 1.0)
    error = math.sqrt(float(size.square().mean()) / len(rows))
    objective = ContrastiveDivergence(
        lambda theta: machine, log_volume=2.0, has_real_columns=has_real
    )
    value = float(objective.criterion(machine.theta, rows, generator))
    # In the mean it is -log PL(x), whatever the parabolas are worth.
    assert abs(value - 2.0 + float(terms.sum(1).mean())) <= 5 * error + 1e-9


def test_parabolas_are_near_where_weights_are_small(generator):
    machine = make_machine("2r4b")
    real = [2]
    gaps = []
    for scale in (1.0, 0.3, 0.1):
        machine.weight.mul_(scale)
        x = machine.sample_visible(
            torch.randint(2, (200, N_HIDDEN), generator=generator).double(), generator
        )
        a = machine.hidden_input(x)
        nearly = machine.laplace_log_likelihoods(x, a)
        exact = machine.conditional_log_likelihood(x, a, torch.tensor([1]))
        gaps.append(float((nearly[:, 2] - exact).abs().mean()))
        # Discrete columns have none.
        assert nearly[:, [i for i in range(x.shape[1]) if i not in real]].abs().max() == 0
    # The law is a Gaussian where hidden units have no say; what is wrong is of third order.
    assert gaps[2] < 1e-3 < gaps[0]
    assert gaps[2] < 0.1 * gaps[1] < 0.1 * gaps[0]


def test_fewer_rows_are_probed_where_terms_are_costly():
    seen = []

    class Counted(ContrastiveDivergence):
        def criterion(self, theta, x, generator, row_weight=None):
            seen.append(len(x))
            return super().criterion(theta, x, generator, row_weight)

    for layout, n_rows, expected in (("brrb", 5000, 333), ("brrb", 200, 32), ("b33", 5000, 500)):
        seen.clear()
        machine = make_machine(layout, learned=False)
        objective = Counted(
            lambda theta, units=machine.units: BipartiteMachine(theta, units),
            has_real_columns="r" in layout,
        )
        x = torch.zeros(n_rows, machine.n_visible).double()
        index = torch.arange(n_rows)
        rows = make_rows(x.numpy(), None, None, dtype=torch.float64, device=torch.device("cpu"))
        data = Data(rows, index, some_of(index))
        settings = Settings(OPTIMIZERS["sgd"](0.0), 0.01, max_iter=2)
        train(Run(machine.theta, objective, data, settings, torch.Generator().manual_seed(0)))
        # A tenth of an epoch's time at most, but 32 rows at least; 500 of cheap ones.
        assert set(seen) == {expected}
