"""Pseudo-likelihood against enumeration and quadrature."""

import itertools
import math

import pytest
import torch

from skae.engine.boltzmann.energies import free_energy, hidden_input, log_partition, precision_of
from skae.engine.boltzmann.energies import sample_visible as draw_visible
from skae.engine.boltzmann.pseudo_likelihood import (
    conditional_log_likelihood,
    pseudo_log_likelihood,
)
from skae.engine.networks.layers import Network
from skae.engine.networks.units import Bernoulli, Gaussian
from skae.engine.optimisation.parameters import Parameters

SIZES = [(1, 1), (1, 6), (7, 4), (4, 7), (12, 12)]
KINDS = ["bernoulli", "gaussian", "gaussian_learned"]


def make_machine(n_visible, n_hidden, kind="bernoulli", spread=1.0, dtype=torch.float64):
    shapes = dict(Network((n_visible, n_hidden)).parameter_shapes)
    if kind == "gaussian_learned":
        shapes["log_variance"] = (n_visible,)
    theta = Parameters(shapes, dtype=torch.float64)
    generator = torch.Generator().manual_seed(100 * n_visible + n_hidden)
    theta.flat.normal_(0.0, 1.0, generator=generator)
    theta["weight_0"].mul_(spread)
    theta = Parameters(shapes, theta.flat.to(dtype))
    return theta, Bernoulli() if kind == "bernoulli" else Gaussian()


def make_rows(theta, units, n_rows, generator):
    """Rows that the machine might have made, and rows from anywhere."""
    n_hidden, n_visible = theta["weight_0"].shape
    hidden = torch.randint(2, (n_rows, n_hidden), generator=generator).to(theta.flat)
    likely = draw_visible(theta, hidden, units, generator)
    anywhere = torch.randn(n_rows, n_visible, dtype=torch.float64, generator=generator) * 3
    anywhere = (anywhere > 0).to(likely) if units.is_discrete else anywhere.to(likely)
    return torch.cat([likely, anywhere])


def replaced(x, i, value):
    x = x.clone()
    x[:, i] = value
    return x


def terms(theta, x, units):
    """Log P(x_i | x_-i) of each row and column, by enumeration or quadrature of exp(-F)."""
    columns = []
    for i in range(x.shape[1]):
        if units.is_discrete:
            off, on = (-free_energy(theta, replaced(x, i, value), units) for value in (0.0, 1.0))
            log_on = on - torch.logaddexp(on, off)
            log_off = off - torch.logaddexp(on, off)
            columns.append(x[:, i] * log_on + (1 - x[:, i]) * log_off)
            continue
        precision = precision_of(theta)
        scale = 1.0 if precision is None else float(precision[i].rsqrt())
        w, c = theta["weight_0"][:, i], theta["visible_bias_0"][i]
        low = float(c + w.clamp(max=0).sum() - 10 * scale)
        high = float(c + w.clamp(min=0).sum() + 10 * scale)
        t = torch.arange(low, high, 0.3 * scale, dtype=torch.float64)
        curve = torch.stack([-free_energy(theta, replaced(x, i, value), units) for value in t])
        log_normalizer = torch.logsumexp(curve, 0) + math.log(0.3 * scale)
        columns.append(-free_energy(theta, x, units) - log_normalizer)
    return torch.stack(columns, 1)


@pytest.fixture
def rows(generator):
    return lambda theta, units, n_rows=20: make_rows(theta, units, n_rows, generator)


@pytest.mark.parametrize("spread", [0.1, 1.0, 4.0])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_terms_are_conditional_probabilities(size, kind, spread, rows):
    theta, units = make_machine(*size, kind, spread)
    x = rows(theta, units)
    # log P(x_i | x_-i) = -F(x) - log of the sum (or, by quadrature, integral) of exp(-F) over x_i.
    torch.testing.assert_close(
        pseudo_log_likelihood(theta, x, units), terms(theta, x, units).sum(1)
    )


@pytest.mark.parametrize("size", [(1, 1), (7, 4), (4, 7)])
def test_terms_are_ratios_of_enumerated_probabilities(size):
    theta, units = make_machine(*size)
    v, h = (
        torch.tensor(list(itertools.product([0.0, 1.0], repeat=n)), dtype=torch.float64)
        for n in size
    )
    minus_energy = (
        (v @ theta["visible_bias_0"]).unsqueeze(1)
        + h @ theta["hidden_bias_0"]
        + v @ theta["weight_0"].t() @ h.t()
    )
    p = torch.softmax(minus_energy.flatten(), 0).view(len(v), len(h)).sum(1)
    place = 2 ** torch.arange(size[0] - 1, -1, -1)
    expected = torch.zeros(len(v), dtype=torch.float64)
    for i in range(size[0]):
        flipped = torch.arange(len(v)) ^ place[i]
        expected += torch.log(p / (p + p[flipped]))
    # P(v_i | v_-i) = P(v) / (P(v) + P(v with bit i flipped)), from the joint law's 2^n numbers.
    torch.testing.assert_close(pseudo_log_likelihood(theta, v, units), expected)


def test_one_visible_unit_has_its_likelihood(rows):
    for kind in KINDS:
        theta, units = make_machine(1, 6, kind)
        x = rows(theta, units)
        expected = -free_energy(theta, x, units) - log_partition(theta, units)
        # Nothing is given: PL(v) = log P(v).
        torch.testing.assert_close(pseudo_log_likelihood(theta, x, units), expected)


def test_values_between_are_probabilities(generator):
    theta, units = make_machine(6, 4)
    x = torch.rand(30, 6, dtype=torch.float64, generator=generator)
    a = hidden_input(theta, x)
    for i in range(6):
        column = torch.tensor([i])
        value = conditional_log_likelihood(theta, x, a, column, units)
        ends = [replaced(x, i, end) for end in (0.0, 1.0)]
        off, on = (
            conditional_log_likelihood(theta, end, hidden_input(theta, end), column, units)
            for end in ends
        )
        # x log P + (1 - x) log(1 - P), where P does not depend on x_i itself.
        torch.testing.assert_close(value, x[:, i] * on + (1 - x[:, i]) * off)
        # P and 1 - P are all the outcomes there are.
        torch.testing.assert_close(torch.exp(off) + torch.exp(on), torch.ones(30).double())


@pytest.mark.parametrize("kind", KINDS[1:])
def test_conditional_densities_integrate_to_one(kind, rows):
    theta, units = make_machine(3, 5, kind, spread=2.0)
    x = rows(theta, units, 1)[:1]
    for i in range(3):
        t = torch.linspace(-60, 60, 4001, dtype=torch.float64)
        curve = x.repeat(len(t), 1)
        curve[:, i] = t
        column = torch.tensor([i])
        values = conditional_log_likelihood(theta, curve, hidden_input(theta, curve), column, units)
        total = torch.exp(values).sum() * (t[1] - t[0])
        # P(x_i | x_-i) is a density of x_i (the sum is exact to rounding for smooth densities).
        torch.testing.assert_close(total, torch.tensor(1.0, dtype=torch.float64))


@pytest.mark.parametrize("kind", KINDS)
def test_some_columns_stand_for_all(kind, rows):
    theta, units = make_machine(6, 4, kind)
    x = rows(theta, units)
    expected, columns = terms(theta, x, units), torch.tensor([4, 1])
    # The sum over the chosen columns, times 6 / 2.
    torch.testing.assert_close(
        pseudo_log_likelihood(theta, x, units, columns), 3 * expected[:, columns].sum(1)
    )
    # All columns in another order are all columns.
    torch.testing.assert_close(
        pseudo_log_likelihood(theta, x, units, torch.randperm(6)),
        pseudo_log_likelihood(theta, x, units),
    )


@pytest.mark.parametrize("kind", KINDS)
def test_each_row_may_have_its_own_column(kind, rows, generator):
    theta, units = make_machine(6, 4, kind)
    x = rows(theta, units)
    column = torch.randint(6, (len(x),), generator=generator)
    value = conditional_log_likelihood(theta, x, hidden_input(theta, x), column, units)
    expected = terms(theta, x, units).gather(1, column.unsqueeze(1)).squeeze(1)
    # The term of row n is that of its own column.
    torch.testing.assert_close(value, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_do_not_depend_on_each_other(kind, rows):
    theta, units = make_machine(6, 4, kind, spread=2.0)
    x = rows(theta, units)
    whole = pseudo_log_likelihood(theta, x, units)
    parts = torch.cat([pseudo_log_likelihood(theta, row, units) for row in x.split(1)])
    # A row's value is a function of that row.
    torch.testing.assert_close(parts, whole)
    if kind != "bernoulli":
        x[-1] = 1e4
        # A far outlier shares no grid with the others.
        torch.testing.assert_close(pseudo_log_likelihood(theta, x, units)[:-1], whole[:-1])


def test_blocks_of_rows_change_nothing(monkeypatch, rows):
    theta, units = make_machine(6, 4, "gaussian_learned")
    x = rows(theta, units)
    whole = pseudo_log_likelihood(theta, x, units)
    monkeypatch.setattr("skae.engine.boltzmann.pseudo_likelihood._BLOCK", 1)
    # How many rows are held at a time is a matter of memory.
    torch.testing.assert_close(pseudo_log_likelihood(theta, x, units), whole)


@pytest.mark.parametrize("kind", KINDS)
def test_single_precision_agrees_with_double(kind, rows):
    theta, units = make_machine(10, 8, kind)
    single, _ = make_machine(10, 8, kind, dtype=torch.float32)
    double = Parameters(theta.shapes, single.flat.double())
    x = rows(single, units)
    value = pseudo_log_likelihood(single, x, units)
    assert value.dtype == torch.float32
    scale = free_energy(double, x.double(), units).abs() + 10
    error = (value.double() - pseudo_log_likelihood(double, x.double(), units)).abs()
    # Each of 10 terms is a difference of free energies, whose sums of 18 numbers are rounded by
    # some units of 2^-24 of their size.
    assert (error <= 10 * 18 * 2**-24 * scale).all()


# Weights that explode


def bound(theta, units, n_columns):
    """No conditional law of the machine reaches a higher density.

    A probability is at most 1; a mixture of Gaussians of one width is nowhere denser than one
    of them at its mean.
    """
    if units.is_discrete:
        return 0.0
    log_variance = theta["log_variance"].sum().item() if "log_variance" in theta else 0.0
    return -0.5 * (n_columns * math.log(2 * math.pi) + log_variance)


def slack(theta, x, units, n_columns):
    """By how much rounding may exceed the bound.

    Each term is a difference of free energies, rounded by a few units of the last place; and,
    as x itself is among the points of the quadrature, no density is above 1 / their spacing,
    which is at least 0.7 standard deviations.
    """
    largest = free_energy(theta, x, units).abs().max().item()
    rounding = 8 * torch.finfo(x.dtype).eps * largest
    return n_columns * min(rounding, 0.5 * math.log(2 * math.pi) - math.log(0.7))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("spread", [1e2, 1e3, 1e6])
@pytest.mark.parametrize("kind", KINDS)
def test_extreme_weights_do_not_pass_for_good_ones(kind, spread, dtype, rows):
    theta, units = make_machine(6, 4, kind, spread, dtype)
    x = rows(theta, units, 300)
    value = pseudo_log_likelihood(theta, x, units)
    # A training that explodes must be seen to: the value is a number ...
    assert not torch.isnan(value).any()
    # ... and never above what any machine of these units can reach.
    assert value.max() <= bound(theta, units, 6) + slack(theta, x, units, 6)
    # Rows from anywhere are next to impossible for it.
    assert value[300:].mean() < -spread


@pytest.mark.parametrize("kind", KINDS)
def test_moderate_weights_reach_their_bound_at_best(kind, rows):
    theta, units = make_machine(6, 4, kind, 50.0)
    value = pseudo_log_likelihood(theta, rows(theta, units, 300), units)
    # Modes are far apart, so that given the others' units a column is in a known one: the best
    # rows come near the bound of the test above, which is hence not idle ...
    assert value.max() > bound(theta, units, 6) - 1.0
    # ... and holds.
    assert value.max() <= bound(theta, units, 6) + 1e-9


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_give_no_number(value, kind, rows):
    theta, units = make_machine(6, 4, kind)
    x = rows(theta, units)
    theta["weight_0"].fill_(value)
    result = pseudo_log_likelihood(theta, x, units)
    # The training loop reads divergence from a value that is not finite; an error would be
    # taken for one of the program.
    assert not torch.isfinite(result).any()
