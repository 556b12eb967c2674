"""Pseudo-likelihood against enumeration and quadrature."""

import itertools
import math

import machines
import pytest
import torch

from skae.engine.boltzmann.conditionals import pseudo_log_likelihood
from skae.engine.optimisation.parameters import Parameters

SIZES = [(1, 1), (1, 6), (7, 4), (4, 7), (12, 12)]
KINDS = ["bernoulli", "gaussian", "gaussian_learned"]


def make_machine(n_visible, n_hidden, kind="bernoulli", spread=1.0, dtype=torch.float64):
    """A machine with biases N(0, 1) and weights N(0, spread^2)."""
    machine = machines.make_machine(n_visible, n_hidden, kind)
    machine.weight.mul_(spread)
    return converted(machine, dtype)


def converted(machine, dtype):
    return machine.over(Parameters(machine.theta.shapes, machine.theta.flat.to(dtype)))


def make_rows(machine, n_rows, generator):
    """Rows that the machine might have made, and rows from anywhere."""
    n_hidden, n_visible = machine.weight.shape
    hidden = torch.randint(2, (n_rows, n_hidden), generator=generator).to(machine.theta.flat)
    likely = machine.sample_visible(hidden, generator)
    anywhere = torch.randn(n_rows, n_visible, dtype=torch.float64, generator=generator) * 3
    anywhere = (anywhere > 0).to(likely) if machine.units.is_discrete else anywhere.to(likely)
    return torch.cat([likely, anywhere])


def replaced(x, i, value):
    x = x.clone()
    x[:, i] = value
    return x


def terms(machine, x):
    """Log P(x_i | x_-i) of each row and column, by enumeration or quadrature of exp(-F)."""
    columns = []
    for i in range(x.shape[1]):
        if machine.units.is_discrete:
            off, on = (-machine.free_energy(replaced(x, i, value)) for value in (0.0, 1.0))
            log_on = on - torch.logaddexp(on, off)
            log_off = off - torch.logaddexp(on, off)
            columns.append(x[:, i] * log_on + (1 - x[:, i]) * log_off)
            continue
        precision = machine.precision
        scale = 1.0 if precision is None else float(precision[i].rsqrt())
        w, c = machine.weight[:, i], machine.visible_bias[i]
        low = float(c + w.clamp(max=0).sum() - 10 * scale)
        high = float(c + w.clamp(min=0).sum() + 10 * scale)
        t = torch.arange(low, high, 0.3 * scale, dtype=torch.float64)
        curve = torch.stack([-machine.free_energy(replaced(x, i, value)) for value in t])
        log_normalizer = torch.logsumexp(curve, 0) + math.log(0.3 * scale)
        columns.append(-machine.free_energy(x) - log_normalizer)
    return torch.stack(columns, 1)


@pytest.fixture
def rows(generator):
    return lambda machine, n_rows=20: make_rows(machine, n_rows, generator)


@pytest.mark.parametrize("spread", [0.1, 4.0])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_terms_are_conditional_probabilities(size, kind, spread, rows):
    machine = make_machine(*size, kind, spread)
    x = rows(machine)
    # log P(x_i | x_-i) = -F(x) - log of the sum (or, by quadrature, integral) of exp(-F) over x_i.
    torch.testing.assert_close(pseudo_log_likelihood(machine, x), terms(machine, x).sum(1))


@pytest.mark.parametrize("size", [(1, 1), (7, 4), (4, 7)])
def test_terms_are_ratios_of_enumerated_probabilities(size):
    machine = make_machine(*size)
    v, h = (
        torch.tensor(list(itertools.product([0.0, 1.0], repeat=n)), dtype=torch.float64)
        for n in size
    )
    minus_energy = (
        (v @ machine.visible_bias).unsqueeze(1)
        + h @ machine.hidden_bias
        + v @ machine.weight.t() @ h.t()
    )
    p = torch.softmax(minus_energy.flatten(), 0).view(len(v), len(h)).sum(1)
    place = 2 ** torch.arange(size[0] - 1, -1, -1)
    expected = torch.zeros(len(v), dtype=torch.float64)
    for i in range(size[0]):
        flipped = torch.arange(len(v)) ^ place[i]
        expected += torch.log(p / (p + p[flipped]))
    # P(v_i | v_-i) = P(v) / (P(v) + P(v with bit i flipped)), from the joint law's 2^n numbers.
    torch.testing.assert_close(pseudo_log_likelihood(machine, v), expected)


def test_one_visible_unit_has_its_likelihood(rows):
    for kind in KINDS:
        machine = make_machine(1, 6, kind)
        x = rows(machine)
        expected = -machine.free_energy(x) - machine.log_partition()
        # Nothing is given: PL(v) = log P(v).
        torch.testing.assert_close(pseudo_log_likelihood(machine, x), expected)


def test_values_between_are_probabilities(generator):
    machine = make_machine(6, 4)
    x = torch.rand(30, 6, dtype=torch.float64, generator=generator)
    a = machine.hidden_input(x)
    for i in range(6):
        column = torch.tensor([i])
        value = machine.conditional_log_likelihood(x, a, column)
        ends = [replaced(x, i, end) for end in (0.0, 1.0)]
        off, on = (
            machine.conditional_log_likelihood(end, machine.hidden_input(end), column)
            for end in ends
        )
        # x log P + (1 - x) log(1 - P), where P does not depend on x_i itself.
        torch.testing.assert_close(value, x[:, i] * on + (1 - x[:, i]) * off)
        # P and 1 - P are all the outcomes there are.
        torch.testing.assert_close(torch.exp(off) + torch.exp(on), torch.ones(30).double())


@pytest.mark.parametrize("kind", KINDS[1:])
def test_conditional_densities_integrate_to_one(kind, rows):
    machine = make_machine(3, 5, kind, spread=2.0)
    x = rows(machine, 1)[:1]
    for i in range(3):
        t = torch.linspace(-60, 60, 4001, dtype=torch.float64)
        curve = x.repeat(len(t), 1)
        curve[:, i] = t
        column = torch.tensor([i])
        values = machine.conditional_log_likelihood(curve, machine.hidden_input(curve), column)
        total = torch.exp(values).sum() * (t[1] - t[0])
        # P(x_i | x_-i) is a density of x_i (the sum is exact to rounding for smooth densities).
        torch.testing.assert_close(total, torch.tensor(1.0, dtype=torch.float64))


@pytest.mark.parametrize("kind", KINDS)
def test_some_columns_stand_for_all(kind, rows):
    machine = make_machine(6, 4, kind)
    x = rows(machine)
    expected, columns = terms(machine, x), torch.tensor([4, 1])
    # The sum over the chosen columns, times 6 / 2.
    torch.testing.assert_close(
        pseudo_log_likelihood(machine, x, columns), 3 * expected[:, columns].sum(1)
    )
    # All columns in another order are all columns.
    torch.testing.assert_close(
        pseudo_log_likelihood(machine, x, torch.randperm(6)),
        pseudo_log_likelihood(machine, x),
    )


@pytest.mark.parametrize("kind", KINDS)
def test_each_row_may_have_its_own_column(kind, rows, generator):
    machine = make_machine(6, 4, kind)
    x = rows(machine)
    column = torch.randint(6, (len(x),), generator=generator)
    value = machine.conditional_log_likelihood(x, machine.hidden_input(x), column)
    expected = terms(machine, x).gather(1, column.unsqueeze(1)).squeeze(1)
    # The term of row n is that of its own column.
    torch.testing.assert_close(value, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_do_not_depend_on_each_other(kind, rows):
    machine = make_machine(6, 4, kind, spread=2.0)
    x = rows(machine)
    whole = pseudo_log_likelihood(machine, x)
    parts = torch.cat([pseudo_log_likelihood(machine, row) for row in x.split(1)])
    # A row's value is a function of that row.
    torch.testing.assert_close(parts, whole)
    if kind != "bernoulli":
        x[-1] = 1e4
        # A far outlier shares no grid with the others.
        torch.testing.assert_close(pseudo_log_likelihood(machine, x)[:-1], whole[:-1])


def test_blocks_of_rows_change_nothing(monkeypatch, rows):
    machine = make_machine(6, 4, "gaussian_learned")
    x = rows(machine)
    whole = pseudo_log_likelihood(machine, x)
    monkeypatch.setattr("skae.engine.boltzmann.conditionals._GRID_BLOCK", 1)
    # How many rows are held at a time is a matter of memory.
    torch.testing.assert_close(pseudo_log_likelihood(machine, x), whole)


@pytest.mark.parametrize("kind", KINDS)
def test_single_precision_agrees_with_double(kind, rows):
    machine = make_machine(10, 8, kind)
    single = converted(machine, torch.float32)
    double = converted(single, torch.float64)
    x = rows(single)
    value = pseudo_log_likelihood(single, x)
    assert value.dtype == torch.float32
    scale = double.free_energy(x.double()).abs() + 10
    error = (value.double() - pseudo_log_likelihood(double, x.double())).abs()
    # Each of 10 terms is a difference of free energies, whose sums of 18 numbers are rounded by
    # some units of 2^-24 of their size.
    assert (error <= 10 * 18 * 2**-24 * scale).all()


# Weights that explode


def bound(machine, n_columns):
    """No conditional law of the machine reaches a higher density.

    A probability is at most 1; a mixture of Gaussians of one width is nowhere denser than one
    of them at its mean.
    """
    if machine.units.is_discrete:
        return 0.0
    learned = machine.log_variance is not None
    log_variance = machine.log_variance.sum().item() if learned else 0.0
    return -0.5 * (n_columns * math.log(2 * math.pi) + log_variance)


def slack(machine, x, n_columns):
    """By how much rounding may exceed the bound.

    Each term is a difference of free energies, rounded by a few units of the last place; and,
    as x itself is among the points of the quadrature, no density is above 1 / their spacing,
    which is at least 0.7 standard deviations.
    """
    largest = machine.free_energy(x).abs().max().item()
    rounding = 8 * torch.finfo(x.dtype).eps * largest
    return n_columns * min(rounding, 0.5 * math.log(2 * math.pi) - math.log(0.7))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("spread", [1e2, 1e6])
@pytest.mark.parametrize("kind", KINDS)
def test_extreme_weights_do_not_pass_for_good_ones(kind, spread, dtype, rows):
    machine = make_machine(6, 4, kind, spread, dtype)
    x = rows(machine, 100)
    value = pseudo_log_likelihood(machine, x)
    # A training that explodes must be seen to: the value is a number ...
    assert not torch.isnan(value).any()
    # ... and never above what any machine of these units can reach.
    assert value.max() <= bound(machine, 6) + slack(machine, x, 6)
    # Rows from anywhere are next to impossible for it.
    assert value[100:].mean() < -spread


@pytest.mark.parametrize("kind", KINDS)
def test_moderate_weights_reach_their_bound_at_best(kind, rows):
    machine = make_machine(6, 4, kind, 50.0)
    value = pseudo_log_likelihood(machine, rows(machine, 1500))
    # Modes are far apart, so that given the others' units a column is in a known one: the best
    # rows come near the bound of the test above, which is hence not idle ...
    assert value.max() > bound(machine, 6) - 1.0
    # ... and holds.
    assert value.max() <= bound(machine, 6) + 1e-9


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_give_no_number(value, kind, rows):
    machine = make_machine(6, 4, kind)
    x = rows(machine)
    machine.weight.fill_(value)
    result = pseudo_log_likelihood(machine, x)
    # The training loop reads divergence from a value that is not finite; an error would be
    # taken for one of the program.
    assert not torch.isfinite(result).any()
