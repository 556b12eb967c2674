"""Multi-prediction and gaps of deep machines, against enumeration and finite differences."""

import itertools
import math
from functools import partial

import pytest
import torch
from machines import drawn_parameters

from skae.engine.boltzmann.deep import DeepMachine, deep_shapes, even_units
from skae.engine.boltzmann.multi_prediction import MultiPrediction
from skae.engine.networks.mixed import Mixed
from skae.engine.networks.penalties import CodeKL, WeightDecay
from skae.engine.networks.units import Bernoulli, Gaussian, Multinomial
from skae.engine.optimisation.parameters import Parameters

SIZES = [(5, 4), (5, 4, 3), (5, 4, 3, 4)]
KINDS = ["bernoulli", "gaussian", "mixed"]
BY_KIND = torch.arange(5).split([1, 2, 2])
UNITS = {
    "bernoulli": Bernoulli(),
    "gaussian": Gaussian(),
    "mixed": Mixed(list(zip((Bernoulli(), Gaussian(), Multinomial()), BY_KIND, strict=True))),
}
FILL = torch.tensor([0.3, 0.1, -0.2, 0.4, 0.6], dtype=torch.float64)


def make(sizes, kind="bernoulli", spread=0.7, seed=0, n_sweeps=2000, tol=1e-13):
    """A machine with N(0, spread^2) parameters, variances learned where columns are real."""
    theta = drawn_parameters(deep_shapes(sizes, learns_variance=kind != "bernoulli"), spread, seed)
    if kind != "bernoulli":
        theta["log_variance"].clamp_(-1.0, 0.0)
    if kind == "mixed":
        theta["log_variance"][[0, 3, 4]] = 0.0
    return DeepMachine(theta, even_units(UNITS[kind], sizes), n_sweeps, tol)


def objective_of(machine, kind="bernoulli", fill=FILL, **learning):
    settings = {"n_sweeps": machine.n_sweeps, "tol": machine.tol}
    of_theta = partial(DeepMachine, units=machine.units, **settings)
    return MultiPrediction(of_theta, UNITS[kind], fill, **learning)


def states(n):
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=n)), dtype=torch.float64)


def rows_of(kind, n=12):
    """Rows of five columns of such kinds."""
    noise = torch.Generator().manual_seed(5)
    x = torch.rand(n, 5, generator=noise, dtype=torch.float64).round()
    if kind == "gaussian":
        x = torch.randn(n, 5, generator=noise, dtype=torch.float64)
    if kind == "mixed":
        x[:, 1:3] = torch.randn(n, 2, generator=noise, dtype=torch.float64)
        x[:, 3:] = torch.eye(2, dtype=torch.float64)[torch.arange(n) % 2]
    return x


def with_gaps(kind, n=12):
    """Rows, of which a third of the variables is NaN, and one row is whole."""
    x = rows_of(kind, n)
    gaps = torch.rand(n, 5, generator=torch.Generator().manual_seed(6)) < 0.35
    gaps[:, 4] = gaps[:, 3] if kind == "mixed" else gaps[:, 4]
    gaps[0] = False
    return x.masked_fill(gaps, math.nan)


def noise(seed=1):
    return torch.Generator().manual_seed(seed)


# The mean field with gaps


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", SIZES)
def test_gaps_are_at_the_fixed_point_of_the_formula(sizes, kind):
    machine, x = make(sizes, kind, spread=0.5), with_gaps(kind)
    gaps = torch.isnan(x)
    visible = machine.inferred(x, ~gaps, FILL)
    hidden = machine.layers(visible, machine.code(visible))
    below = machine.columns(visible)
    torch.testing.assert_close(below[~gaps], x[~gaps], atol=0, rtol=0)
    # Every layer hears its neighbours; a column that is free hears the lowest.
    theta, precision = machine.theta, torch.ones(5, dtype=torch.float64)
    if kind != "bernoulli":
        precision = torch.exp(-theta["log_variance"])
    a = theta["visible_bias_0"] + hidden[0] @ theta["weight_0"]
    free = UNITS[kind].mean(a)
    torch.testing.assert_close(below[gaps], free[gaps], atol=1e-9, rtol=0)
    layers = [below * precision, *hidden]
    for level in range(1, len(sizes)):
        a = theta[f"hidden_bias_{level - 1}"] + layers[level - 1] @ theta[f"weight_{level - 1}"].t()
        if level + 1 < len(sizes):
            a = a + layers[level + 1] @ theta[f"weight_{level}"]
        torch.testing.assert_close(layers[level], torch.sigmoid(a), atol=1e-9, rtol=0)


def log_marginal(machine, kind, x):
    """log of the sum and integral of exp(-E) over hidden units and gaps, by all hidden states."""
    theta, sizes = machine.theta, machine.sizes
    layers = [states(n) for n in sizes[1:]]
    grid = [rows[k] for rows, k in zip(layers, _numbers(sizes[1:]), strict=True)]
    total = sum(h @ theta[f"hidden_bias_{k}"] for k, h in enumerate(grid))
    for level in range(1, len(grid)):
        total = total + ((grid[level] @ theta[f"weight_{level}"]) * grid[level - 1]).sum(1)
    # Given the lowest hidden layer columns are independent: (n_states, n_columns).
    heard, bias = grid[0] @ theta["weight_0"], theta["visible_bias_0"]
    v = theta["log_variance"].exp() if kind != "bernoulli" else torch.ones_like(bias)
    result = []
    for row in x:
        terms, gaps = total.clone(), torch.isnan(row)
        real = {"bernoulli": [], "gaussian": range(5), "mixed": [1, 2]}[kind]
        binary = [c for c in range(5) if c not in real and not (kind == "mixed" and c > 2)]
        for c in binary:
            a = heard[:, c] + bias[c]
            terms += torch.nn.functional.softplus(a) if gaps[c] else a * row[c]
        for c in real:
            if gaps[c]:
                mean = bias[c] + heard[:, c]
                shift = (mean.square() - bias[c] ** 2) / (2 * v[c])
                terms += shift + 0.5 * torch.log(2 * math.pi * v[c])
            else:
                terms += (row[c] * heard[:, c] - 0.5 * (row[c] - bias[c]) ** 2) / v[c]
        if kind == "mixed":
            a = heard[:, 3:] + bias[3:]
            terms += torch.logsumexp(a, 1) if gaps[3] else a @ row[3:]
        result.append(torch.logsumexp(terms, 0))
    return torch.stack(result)


def _numbers(sizes):
    every = torch.cartesian_prod(*(torch.arange(2**n) for n in sizes))
    return every.view(-1, len(sizes)).t()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", SIZES)
def test_bound_is_below_the_truth_of_what_is_observed(sizes, kind):
    machine, x = make(sizes, kind), with_gaps(kind)
    completed = machine.completed(machine.filled(x, FILL))
    truth = log_marginal(machine, kind, x)
    gap = truth + machine.free_energy_bound(completed, torch.isnan(x))
    assert gap.min() > -1e-10
    assert gap.max() > 1e-3
    # Without weights nothing depends on anything, and Q is the law of the gaps.
    machine.theta["weight_0"].zero_()
    for level in range(1, len(sizes) - 1):
        machine.theta[f"weight_{level}"].zero_()
    machine = machine.renewed()
    completed = machine.completed(machine.filled(x, FILL))
    truth = log_marginal(machine, kind, x)
    found = -machine.free_energy_bound(completed, torch.isnan(x))
    torch.testing.assert_close(found, truth)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", SIZES)
def test_sweeps_never_lower_the_bound_with_gaps(sizes, kind):
    x = with_gaps(kind)
    gaps, bounds = torch.isnan(x), []
    for n_sweeps in range(10):
        machine = make(sizes, kind, spread=1.5, n_sweeps=n_sweeps, tol=0.0)
        bounds.append(-machine.free_energy_bound(machine.inferred(x, ~gaps, FILL), gaps))
    change = torch.stack(bounds).diff(dim=0)
    assert change.min() > -1e-11
    assert change[0].max() > 1e-2


def test_a_row_is_filled_alone():
    machine, x = make(SIZES[2], spread=1.5, n_sweeps=30, tol=1e-3), with_gaps("bernoulli")
    alone = torch.cat([machine.filled(row.unsqueeze(0), FILL) for row in x])
    torch.testing.assert_close(machine.filled(x, FILL), alone, atol=1e-12, rtol=0)
    # Whole rows stay what they are.
    whole = rows_of("bernoulli")
    assert machine.filled(whole, FILL) is whole


# The criterion


@pytest.mark.parametrize("n_sweeps", [1, 6])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", SIZES)
def test_gradient_is_that_of_finite_differences(sizes, kind, n_sweeps):
    machine = make(sizes, kind, spread=0.5, n_sweeps=n_sweeps, tol=0.0)
    theta, x = machine.theta, with_gaps(kind)
    weight = torch.linspace(0.2, 1.8, len(x), dtype=torch.float64)
    penalties = [WeightDecay(0.1), CodeKL(0.3, 0.1)]
    objective = objective_of(machine, kind, level=(0.2, 0.9), penalties=penalties)
    objective.has_gaps = True
    out, finite = theta.empty_like(), torch.empty_like(theta.flat)
    objective._steady_ = lambda change: None  # a matter of many steps
    objective.gradient(theta, x, noise(), out, weight)
    for k in range(len(finite)):
        slopes = []
        for step in (1e-4, 5e-5):
            ends = []
            for sign in (1, -1):
                flat = theta.flat.clone()
                flat[k] += sign * step
                moved = Parameters(theta.shapes, flat)
                ends.append(float(objective.value(moved, x, noise(), weight)))
            slopes.append((ends[0] - ends[1]) / (2 * step))
        # Without the error of the order step^2.
        finite[k] = (4 * slopes[1] - slopes[0]) / 3
    torch.testing.assert_close(out.flat, finite, atol=2e-8, rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_value_is_the_loss_of_what_is_hidden(kind):
    # Without weights every column is predicted by its bias alone, whatever is given.
    machine = make(SIZES[1], kind)
    machine.theta["weight_0"].zero_()
    theta, x, units = machine.theta, with_gaps(kind), UNITS[kind]
    observed = ~torch.isnan(x)
    losses = units.column_losses(theta["visible_bias_0"].expand_as(x), x.nan_to_num())
    if kind != "bernoulli":
        real = slice(1, 3) if kind == "mixed" else slice(None)
        v = theta["log_variance"].exp()
        losses = losses / v
        losses[:, real] += 0.5 * torch.log(2 * math.pi * v[real])
    each = (losses * observed).sum(1)
    objective = objective_of(machine, kind, level=1.0)
    objective.has_gaps = True
    torch.testing.assert_close(objective.value(theta, x, noise()), each.mean())
    # Of a part that is hidden, that part, on average.
    objective = objective_of(machine, kind, level=(0.1, 0.5))
    objective.has_gaps = True
    many = torch.stack([objective.value(theta, x, noise(seed)) for seed in range(700)])
    error = float(many.std()) / math.sqrt(len(many))
    assert abs(float(many.mean()) - 0.3 * float(each.mean())) < 4.5 * error


def test_a_category_is_hidden_as_a_whole():
    machine = make(SIZES[1], "mixed")
    objective = objective_of(machine, "mixed", level=0.5)
    assert objective.variable_of.tolist() == [0, 1, 2, 3, 3]
    # Its own columns have no say in what is predicted of it: the other category, the same loss.
    x = rows_of("mixed")[:1]
    other = x.clone()
    other[:, 3:] = 1 - x[:, 3:]
    given = torch.tensor([[True, True, True, False, False]])
    found = [machine.predicted(row, given, FILL) for row in (x, other)]
    torch.testing.assert_close(*found, atol=0, rtol=0)


def test_judged_by_every_variable_that_is_observed():
    machine, x = make(SIZES[1], spread=0.4), with_gaps("bernoulli")
    objective = objective_of(machine)
    objective.has_gaps = True
    seen, mask = x.nan_to_num(), ~torch.isnan(x)
    exact = 0.0
    for column in range(5):
        given = mask.clone()
        given[:, column] = False
        a = machine.predicted(x, given, FILL)
        exact = exact + (Bernoulli().column_losses(a, seen) * mask)[:, column].mean()
    with torch.no_grad():
        many = [objective.criterion(machine.theta, x, noise(seed)) for seed in range(700)]
    many = torch.stack(many)
    assert abs(many.mean() - exact) < 4.5 * many.std() / math.sqrt(len(many))


# Centred steps


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", SIZES)
def test_centred_step_is_the_gradient_of_centred_parameters(sizes, kind):
    machine = make(sizes, kind, spread=0.5, n_sweeps=4, tol=0.0)
    theta, x = machine.theta, rows_of(kind)
    plain, centred = theta.empty_like(), theta.empty_like()
    objective_of(machine, kind).gradient(theta, x, noise(), plain)
    objective = objective_of(machine, kind, visible_offset=FILL)
    objective.gradient(theta, x, noise(), centred)
    offsets = [FILL, *(torch.empty(0) for _ in sizes[1:])]
    even, odd = objective.state["even_offset"], objective.state["hidden_offset"]
    for level, span in list(enumerate(machine.spans))[1:]:
        both = torch.cat([FILL, even])
        offsets[level] = odd[span] if level % 2 else both[span]
    heard = [*offsets]
    if kind != "bernoulli":
        heard[0] = FILL * torch.exp(-theta["log_variance"])

    def of_centred(flat):
        """Parameters of the machine, given those of the machine that counts from the offsets."""
        new = Parameters(theta.shapes, flat.clone())
        biases = ["visible_bias_0", *(f"hidden_bias_{k}" for k in range(len(sizes) - 1))]
        for level in range(len(sizes) - 1):
            weight = new[f"weight_{level}"]
            new[biases[level]].sub_(weight.t() @ offsets[level + 1])
            new[biases[level + 1]].sub_(weight @ heard[level])
        return new.flat

    identity = torch.eye(len(theta.flat), dtype=torch.float64)
    jacobian = torch.stack([of_centred(row) for row in identity], 1)
    # Down the gradient there, which moves the machine's own parameters so.
    expected = Parameters(theta.shapes, jacobian @ (jacobian.t() @ plain.flat))
    for name in theta:
        if name != "log_variance":
            torch.testing.assert_close(centred[name], expected[name])


@pytest.mark.parametrize("centred", [True, False])
def test_centred_machines_do_not_notice_flipped_columns(centred):
    flips, found = [1, 3], []
    for own in ([], flips):
        machine, x, fill = (
            make(SIZES[2], spread=0.3, seed=2),
            rows_of("bernoulli", 40),
            FILL.clone(),
        )
        theta, out = machine.theta, machine.theta.empty_like()
        fill = torch.tensor([0.3, 0.5, 0.5, 0.4, 0.6], dtype=torch.float64)
        x[:, own], fill[own] = 1 - x[:, own], 1 - fill[own]
        # The same law, of 1 - v in the place of v.
        theta["hidden_bias_0"].add_(theta["weight_0"][:, own].sum(1))
        theta["weight_0"][:, own] *= -1
        theta["visible_bias_0"][own] *= -1
        offset = fill if centred else None
        objective = objective_of(machine, fill=fill, visible_offset=offset)
        for step in range(20):
            objective.gradient(theta, x, noise(step), out)
            theta.flat.sub_(out.flat, alpha=0.5)
        found.append(theta["weight_1"])
    difference = (found[0] - found[1]).abs().max()
    assert (difference < 1e-9) == centred
    assert centred or difference > 1e-4


# What is kept


def test_checkpoints_are_kept():
    machine = make(SIZES[1], spread=0.3, n_sweeps=3)
    objective, out = objective_of(machine, n_checkpoints=4), machine.theta.empty_like()
    passed = []
    for step in range(40):
        passed.append(machine.theta.flat.clone())
        objective.gradient(machine.theta, rows_of("bernoulli"), noise(step), out)
        machine.theta.flat.sub_(out.flat, alpha=0.1)
    kept = objective.state["checkpoints"]
    assert 2 <= len(kept) <= 4
    for flat in kept:
        assert any(torch.equal(flat, one) for one in passed)
