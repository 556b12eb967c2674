"""Energies of restricted Boltzmann machines against enumeration and quadrature."""

import itertools
import math

import pytest
import torch

from skae.engine.boltzmann import energies
from skae.engine.boltzmann.energies import BipartiteMachine, binary_states
from skae.engine.optimisation.parameters import Parameters

# (visible, hidden): fewer hidden units, more of them, as many; one state block and several.
SIZES = [(1, 1), (7, 4), (4, 7), (6, 6), (2, 10)]
KINDS = ["bernoulli", "gaussian", "gaussian_learned"]


def all_states(n_units):
    """All states of binary units, the first unit slowest: not the order of `binary_states`."""
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=n_units)), dtype=torch.float64)


def joint_energy(machine, visible, hidden):
    """E of all pairs of rows, of shape (n_visible_states, n_hidden_states), by its formula."""
    w, b, c = machine.weight, machine.hidden_bias, machine.visible_bias
    pairs = visible @ w.t() @ hidden.t()
    return -(visible @ c).unsqueeze(1) - hidden @ b - pairs


def gaussian_joint_energy(machine, visible, hidden):
    w, b, c = machine.weight, machine.hidden_bias, machine.visible_bias
    variance = torch.ones_like(c) if machine.precision is None else 1 / machine.precision
    alone = ((visible - c) ** 2 / (2 * variance)).sum(1)
    return alone.unsqueeze(1) - hidden @ b - (visible / variance) @ w.t() @ hidden.t()


def any_joint_energy(machine, visible, hidden):
    formula = joint_energy if machine.units.is_discrete else gaussian_joint_energy
    return formula(machine, visible, hidden)


def grid(machine):
    """Points that cover the law of one or two Gaussian units, and the volume of a cell.

    The law is a mixture of Gaussians; 10 standard deviations around the means' range leave
    out 1e-22 of it, and the trapezoidal rule at 0.4 of them errs by exp(-2 pi^2 / 0.4^2).
    """
    w, c = machine.weight, machine.visible_bias
    precision = torch.ones(len(c)) if machine.precision is None else machine.precision
    scale = precision.rsqrt()
    axes = [
        torch.arange(
            float(c[i] + w[:, i].clamp(max=0).sum() - 10 * scale[i]),
            float(c[i] + w[:, i].clamp(min=0).sum() + 10 * scale[i]),
            0.4 * float(scale[i]),
            dtype=torch.float64,
        )
        for i in range(len(c))
    ]
    return torch.cartesian_prod(*axes).view(-1, len(c)), (0.4 * scale.double()).prod()


def transposed(machine):
    """The machine with its layers' roles exchanged."""
    shapes = BipartiteMachine.shapes(machine.n_hidden, machine.n_visible)
    other = machine.over(Parameters(shapes, dtype=torch.float64))
    other.weight.copy_(machine.weight.t())
    other.hidden_bias.copy_(machine.visible_bias)
    other.visible_bias.copy_(machine.hidden_bias)
    return other


@pytest.fixture
def visible(generator):
    """Makes rows in the units' domain; binary units also have values between 0 and 1."""

    def make(n_rows, n_visible, kind):
        x = torch.randn(n_rows, n_visible, dtype=torch.float64, generator=generator)
        return torch.sigmoid(x) if kind == "bernoulli" else x

    return make


# Energies


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_energy_is_the_formula(size, kind, visible, make_machine):
    machine = make_machine(*size, kind)
    v, h = visible(9, size[0], kind), all_states(size[1])
    pairs = torch.cartesian_prod(torch.arange(len(v)), torch.arange(len(h)))
    value = machine.energy(v[pairs[:, 0]], h[pairs[:, 1]]).view(len(v), len(h))
    # The definition, written out for every pair.
    torch.testing.assert_close(value, any_joint_energy(machine, v, h))
    # Without hidden units on, no weight and no hidden bias is left in it.
    off = torch.zeros(1, size[1], dtype=torch.float64)
    torch.testing.assert_close(machine.visible_energy(v), any_joint_energy(machine, v, off)[:, 0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [*SIZES, (12, 12)])
def test_free_energy_sums_out_the_hidden_units(size, kind, visible, make_machine):
    machine = make_machine(*size, kind)
    v, h = visible(9, size[0], kind), all_states(size[1])
    expected = -torch.logsumexp(-any_joint_energy(machine, v, h), 1)
    # F(v) = -log sum_h exp(-E(v, h)), over all 2^n states.
    torch.testing.assert_close(machine.free_energy(v), expected)


def test_free_energy_is_finite_for_extreme_weights(visible, make_machine):
    for kind in KINDS:
        machine = make_machine(4, 3, kind)
        machine.weight.mul_(1e6)
        v, h = visible(9, 4, kind), all_states(3)
        expected = any_joint_energy(machine, v, h).min(1).values
        # exp(1e6) overflows, its logarithm does not; one state decides, the others add at most
        # log 2^3.
        assert ((expected - machine.free_energy(v)).abs() <= math.log(8)).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_hidden_units_given_visible_ones(size, kind, visible, make_machine):
    machine = make_machine(*size, kind)
    v, h = visible(9, size[0], kind), all_states(size[1])
    posterior = torch.softmax(-any_joint_energy(machine, v, h), 1)
    # P(h | v) is the ratio of exp(-E(v, h)) to its sum; a unit's mean is that of the law.
    torch.testing.assert_close(torch.sigmoid(machine.hidden_input(v)), posterior @ h)
    independent = torch.where(
        h.unsqueeze(0) > 0, (posterior @ h).unsqueeze(1), 1 - (posterior @ h).unsqueeze(1)
    )
    # And the units are independent of each other given v: no more than their means is needed.
    torch.testing.assert_close(independent.prod(2), posterior)


@pytest.mark.parametrize("size", SIZES)
def test_binary_visible_units_given_hidden_ones(size, make_machine):
    machine = make_machine(*size)
    v, h = all_states(size[0]), all_states(size[1])
    posterior = torch.softmax(-joint_energy(machine, v, h), 0)
    # The same the other way round: P(v | h) = exp(-E) / sum over v.
    torch.testing.assert_close(torch.sigmoid(machine.visible_input(h)), posterior.t() @ v)


@pytest.mark.parametrize("kind", KINDS[1:])
@pytest.mark.parametrize("size", [(1, 1), (1, 4), (2, 3)])
def test_gaussian_visible_units_given_hidden_ones(size, kind, make_machine):
    machine = make_machine(*size, kind)
    (v, _), h = grid(machine), all_states(size[1])
    posterior = torch.softmax(-gaussian_joint_energy(machine, v, h), 0)
    mean = posterior.t() @ v
    # P(v | h) is exp(-E) normalised over v: its mean, by quadrature ...
    torch.testing.assert_close(machine.visible_input(h), mean)
    precision = machine.precision
    variance = torch.ones(size[0]).double() if precision is None else 1 / precision
    square = ((v.unsqueeze(1) - mean) ** 2 * posterior.unsqueeze(2)).sum(0)
    # ... and its variance, the same for all hidden states.
    torch.testing.assert_close(square, variance.expand(len(h), -1))


@pytest.mark.parametrize("n_rows", [300, 30_000])
@pytest.mark.parametrize("kind", KINDS)
def test_samples_have_the_conditionals_moments(kind, n_rows, visible, generator, make_machine):
    machine = make_machine(6, 5, kind)
    v = visible(1, 6, kind).repeat(n_rows, 1)
    repeats = 60_000 // n_rows
    hidden = torch.cat([machine.sample_hidden(v, generator) for _ in range(repeats)])
    p = torch.sigmoid(machine.hidden_input(v[:1]))[0]
    # The frequencies of n draws are within 4.5 standard errors of the probability.
    assert ((hidden.mean(0) - p).abs() <= 4.5 * (p * (1 - p) / len(hidden)).sqrt()).all()
    h = hidden[:1].repeat(n_rows, 1)
    draws = torch.cat([machine.sample_visible(h, generator) for _ in range(repeats)])
    mean, n_draws = machine.units.mean(machine.visible_input(h[:1]))[0], len(draws)
    precision = machine.precision
    variance = torch.ones(6).double() if precision is None else 1 / precision
    variance = mean * (1 - mean) if kind == "bernoulli" else variance
    # The same for the visible units ...
    assert ((draws.mean(0) - mean).abs() <= 4.5 * (variance / n_draws).sqrt()).all()
    if kind != "bernoulli":
        # ... and a Gaussian's sample variance has relative standard error sqrt(2 / n).
        assert ((draws.var(0) / variance - 1).abs() <= 4.5 * math.sqrt(2 / n_draws)).all()


# Partition functions


@pytest.mark.parametrize("spread", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("size", [*SIZES, (3, 10), (10, 3)])
def test_log_partition_is_the_sum_over_all_states(size, spread, make_machine):
    machine = make_machine(*size, spread=spread)
    expected = torch.logsumexp(
        -joint_energy(machine, all_states(size[0]), all_states(size[1])).flatten(), 0
    )
    # Z = sum over all (v, h) of exp(-E), by brute force.
    torch.testing.assert_close(machine.log_partition(), expected)


def test_log_partition_of_ten_and_ten_units(make_machine):
    machine = make_machine(10, 10)
    value = machine.log_partition()
    expected = torch.logsumexp(-joint_energy(machine, all_states(10), all_states(10)).flatten(), 0)
    # The sum over 2^20 states.
    torch.testing.assert_close(value, expected)


@pytest.mark.parametrize("size", [*SIZES, (12, 12), (3, 14), (14, 3), (13, 13)])
def test_log_partition_is_the_same_by_either_layer(size, make_machine):
    machine = make_machine(*size)
    value = machine.log_partition()
    # Exchanging the layers exchanges the names in E, not Z. (Of equal layers the hidden one is
    # enumerated: of the transposed machine that is the other one.)
    torch.testing.assert_close(transposed(machine).log_partition(), value)
    by_visible = [
        -machine.free_energy(states) for states in binary_states(size[0], machine.theta.flat)
    ]
    # Z = sum_v exp(-F(v)), whichever layer the function has chosen.
    torch.testing.assert_close(torch.logsumexp(torch.cat(by_visible), 0), value)


@pytest.mark.parametrize("kind", KINDS[1:])
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (2, 1), (2, 3), (2, 12)])
def test_gaussian_log_partition_is_the_integral(size, kind, make_machine):
    machine = make_machine(*size, kind)
    v, cell = grid(machine)
    log_density = -machine.free_energy(v) - machine.log_partition()
    # exp(-F) / Z is a density: by quadrature its integral is one.
    torch.testing.assert_close((torch.exp(log_density) * cell).sum(), torch.tensor(1.0).double())
    if size[1] <= 5:
        total = torch.logsumexp(
            -gaussian_joint_energy(machine, v, all_states(size[1])).flatten(), 0
        )
        # And Z itself is the integral over v of the sum over h of exp(-E).
        torch.testing.assert_close(machine.log_partition(), total + torch.log(cell))


@pytest.mark.parametrize("kind", KINDS)
def test_log_partition_of_independent_units(kind, make_machine):
    machine = make_machine(4, 3, kind)
    machine.weight.zero_()
    b, c = machine.hidden_bias, machine.visible_bias
    hidden = torch.log1p(torch.exp(b)).sum()
    if kind == "bernoulli":
        visible = torch.log1p(torch.exp(c)).sum()
    else:
        log_variance = (
            machine.log_variance if machine.log_variance is not None else torch.zeros(4).double()
        )
        visible = 0.5 * (math.log(2 * math.pi) + log_variance).sum()
    # Without weights Z is the product of each unit's own normaliser.
    torch.testing.assert_close(machine.log_partition(), hidden + visible)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(1, 3), (2, 3), (2, 2)])
def test_gradient_of_log_partition_is_the_models_expectation(size, kind, make_machine):
    machine = make_machine(*size, kind)
    flat = machine.theta.flat.clone().requires_grad_()
    value = machine.over(Parameters(machine.theta.shapes, flat)).log_partition()
    (gradient,) = torch.autograd.grad(value, flat)
    gradient = machine.over(Parameters(machine.theta.shapes, gradient))

    v = all_states(size[0]) if kind == "bernoulli" else grid(machine)[0]
    h = all_states(size[1])
    log_p = -any_joint_energy(machine, v, h)
    p = torch.exp(log_p - torch.logsumexp(log_p.flatten(), 0))
    precision = machine.precision
    scale = torch.ones(size[0]).double() if precision is None else precision
    # d log Z / d theta = -E[dE / d theta] under P(v, h). For b it is E[h] ...
    torch.testing.assert_close(gradient.hidden_bias, p.sum(0) @ h)
    # ... for W E[h v^T / s^2] ...
    torch.testing.assert_close(gradient.weight, h.t() @ p.t() @ v * scale)
    c = machine.visible_bias
    if kind == "bernoulli":
        # ... for c E[v] ...
        torch.testing.assert_close(gradient.visible_bias, p.sum(1) @ v)
    else:
        # ... or E[v - c] / s^2 ...
        torch.testing.assert_close(gradient.visible_bias, (p.sum(1) @ v - c) * scale)
    if kind == "gaussian_learned":
        pairs = (v * (p @ h @ machine.weight)).sum(0)
        square = 0.5 * (p.sum(1).unsqueeze(1) * (v - c) ** 2).sum(0)
        # ... and for z of s^2 = exp(z) E[(v - c)^2 / 2 - v (h W)] / s^2.
        torch.testing.assert_close(gradient.log_variance, (square - pairs) * scale)


@pytest.mark.parametrize("size", [(9, 4), (4, 9)])
def test_gradient_of_log_partition_by_either_layer(size, make_machine):
    machine = make_machine(*size)
    flat = machine.theta.flat.clone().requires_grad_()
    followed = machine.over(Parameters(machine.theta.shapes, flat))
    (gradient,) = torch.autograd.grad(followed.log_partition(), flat)
    v, h = all_states(size[0]), all_states(size[1])
    p = torch.softmax(-joint_energy(machine, v, h).flatten(), 0).view(len(v), len(h))
    expected = machine.over(machine.theta.empty_like())
    expected.weight.copy_(h.t() @ p.t() @ v)
    expected.hidden_bias.copy_(p.sum(0) @ h)
    expected.visible_bias.copy_(p.sum(1) @ v)
    # Expected statistics of the enumerated joint law, whichever layer was summed analytically.
    torch.testing.assert_close(gradient, expected.theta.flat)


def test_enumerated_units_are_those_of_the_smaller_discrete_layer(make_machine):
    # Either layer of a binary machine can be enumerated: the smaller one is taken.
    assert make_machine(7, 4).n_enumerated == 4
    assert make_machine(4, 7).n_enumerated == 4
    # Gaussian units have no states to enumerate.
    assert make_machine(4, 7, "gaussian").n_enumerated == 7


@pytest.mark.parametrize("n_units", [1, 5, 12, 14])
def test_binary_states_are_all_there_once(n_units):
    blocks = list(binary_states(n_units, torch.zeros(1, dtype=torch.float32)))
    states = torch.cat(blocks)
    # 2^n of them, in the dtype of the parameters they multiply.
    assert (states.shape, states.dtype) == ((2**n_units, n_units), torch.float32)
    numbers = states.double() @ 2.0 ** torch.arange(n_units, dtype=torch.float64)
    # As binary numbers they are 0 to 2^n - 1, each once.
    assert torch.equal(numbers.sort().values, torch.arange(2.0**n_units, dtype=torch.float64))
    # Memory does not grow with 2^n: a block is bounded.
    assert max(map(len, blocks)) <= energies._BLOCK
