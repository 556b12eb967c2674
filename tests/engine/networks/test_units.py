"""Output units: densities, means, samples and closed-form residuals."""

import itertools
import math

import pytest
import torch
from torch.autograd.functional import jacobian

from skae.engine.networks.mixed import Mixed
from skae.engine.networks.units import Bernoulli, Gaussian, Multinomial, OneHotGroups

SCALE = torch.tensor([0.5, 3.0, 7.0], dtype=torch.float64)


def make_mixed():
    # The columns of each part are scattered, so that no part is a contiguous slice.
    return Mixed(
        [
            (Bernoulli(), torch.tensor([0, 4])),
            (Multinomial(), torch.tensor([5, 1, 3])),
            (Gaussian.of_columns(SCALE[:2]), torch.tensor([2, 6])),
        ]
    )


UNITS = {
    "bernoulli": Bernoulli(),
    "squared_error": Gaussian(),
    "gaussian": Gaussian(constant=2.5),
    "multinomial": Multinomial(),
    "mixed": make_mixed(),
    "groups": OneHotGroups([3, 4]),
}
N_COLUMNS = 7


@pytest.fixture(params=UNITS)
def units(request):
    return UNITS[request.param]


@pytest.fixture
def batch(units, generator):
    """Pre-activations, data in the units' domain (values between 0 and 1 included)."""
    a = torch.randn(5, N_COLUMNS, dtype=torch.float64, generator=generator)
    x = torch.rand(5, N_COLUMNS, dtype=torch.float64, generator=generator)
    if isinstance(units, Multinomial):
        x = x / x.sum(1, keepdim=True)
    if isinstance(units, OneHotGroups):
        for group in (slice(0, 3), slice(3, 7)):
            x[:, group] /= x[:, group].sum(1, keepdim=True)
    if isinstance(units, Mixed):
        x[:, [5, 1, 3]] /= x[:, [5, 1, 3]].sum(1, keepdim=True)
    return a, x


@pytest.mark.parametrize("weighted", [False, True])
def test_value_and_residual_match_autograd_of_the_likelihood(units, batch, generator, weighted):
    a, x = batch
    weight = torch.rand(a.shape, dtype=a.dtype, generator=generator) + 0.5 if weighted else None
    leaf = a.clone().requires_grad_()
    total = units.negative_log_likelihood(leaf, x, weight).sum()
    (expected,) = torch.autograd.grad(total, leaf)
    value, residual = units.value_and_residual_(a, x, weight)
    # The value is the same sum of losses, less the offset that each row carries.
    torch.testing.assert_close(value, total.detach() - len(x) * units.constant)
    # The residual is by definition d/da of that sum.
    torch.testing.assert_close(residual, expected)
    # "In place" promises that ``a`` itself has become the gradient.
    assert residual is a


def test_unweighted_residual_is_mean_less_data(units, batch):
    a, x = batch
    mean = units.mean(a.clone())
    _, residual = units.value_and_residual_(a, x)
    # For an exponential family in its natural parameter, d/da -log P = r - x.
    torch.testing.assert_close(residual, mean - x)


def test_unit_column_weights_change_nothing(units, batch):
    a, x = batch
    plain = units.negative_log_likelihood(a, x)
    # Multiplying each column's loss by one is the identity.
    torch.testing.assert_close(units.negative_log_likelihood(a, x, torch.ones_like(a)), plain)


def test_bernoulli_probabilities_of_all_outcomes_sum_to_one(generator):
    a = torch.randn(4, dtype=torch.float64, generator=generator)
    outcomes = torch.tensor(list(itertools.product([0.0, 1.0], repeat=4)), dtype=torch.float64)
    loss = Bernoulli().negative_log_likelihood(a.expand(16, 4), outcomes)
    # exp(-loss) are the probabilities of the 2^4 disjoint outcomes.
    torch.testing.assert_close(torch.exp(-loss).sum(), torch.tensor(1.0, dtype=torch.float64))


def test_multinomial_probabilities_of_all_categories_sum_to_one(generator):
    a = torch.randn(6, dtype=torch.float64, generator=generator)
    one_hot = torch.eye(6, dtype=torch.float64)
    loss = Multinomial().negative_log_likelihood(a.expand(6, 6), one_hot)
    # exp(-loss) are the probabilities of the 6 categories, one of which must occur.
    torch.testing.assert_close(torch.exp(-loss).sum(), torch.tensor(1.0, dtype=torch.float64))


def test_mixed_probabilities_of_all_outcomes_sum_to_one(generator):
    units = Mixed([(Multinomial(), torch.tensor([3, 0, 2])), (Bernoulli(), torch.tensor([1, 4]))])
    outcomes = torch.zeros(12, 5, dtype=torch.float64)
    for row, (category, bit_1, bit_4) in enumerate(itertools.product([3, 0, 2], (0, 1), (0, 1))):
        outcomes[row, category] = 1
        outcomes[row, 1], outcomes[row, 4] = bit_1, bit_4
    a = torch.randn(5, dtype=torch.float64, generator=generator).expand(12, 5)
    loss = units.negative_log_likelihood(a, outcomes)
    # Parts are independent given a: probabilities of the 3 * 2 * 2 joint outcomes sum to one.
    torch.testing.assert_close(torch.exp(-loss).sum(), torch.tensor(1.0, dtype=torch.float64))


def test_gaussian_density_integrates_to_one_in_the_units_of_the_data():
    mean, scale = torch.tensor([10.0, -4.0], dtype=torch.float64), SCALE[:2]
    # A grid over +-9 standard deviations around the mean of each RAW column.
    steps = torch.linspace(-9, 9, 181, dtype=torch.float64)
    grid = torch.cartesian_prod(mean[0] + scale[0] * steps, mean[1] + scale[1] * steps)
    cell = (scale * (steps[1] - steps[0])).prod()
    a = torch.tensor([[0.3, -0.2]], dtype=torch.float64).expand(len(grid), 2)
    loss = Gaussian.of_columns(scale).negative_log_likelihood(a, (grid - mean) / scale)
    # With its offset the loss is a density of the data's own columns, not of standardised ones
    # (the trapezoidal sum of a Gaussian on such a grid is exact to rounding).
    torch.testing.assert_close(
        (torch.exp(-loss) * cell).sum(), torch.tensor(1.0, dtype=torch.float64)
    )


def test_gaussian_loss_without_offset_is_half_the_squared_error(generator):
    a, x = torch.randn(2, 4, 3, dtype=torch.float64, generator=generator)
    # The definition of "squared_error".
    torch.testing.assert_close(
        Gaussian().negative_log_likelihood(a, x), 0.5 * ((x - a) ** 2).sum(1)
    )


def test_mixed_is_the_sum_of_its_parts(generator):
    units = make_mixed()
    a = torch.randn(4, N_COLUMNS, dtype=torch.float64, generator=generator)
    x = torch.rand(4, N_COLUMNS, dtype=torch.float64, generator=generator)
    loss = sum(
        part.negative_log_likelihood(a[:, columns], x[:, columns]) for part, columns in units.parts
    )
    # Independent groups of columns: log-likelihoods add.
    torch.testing.assert_close(units.negative_log_likelihood(a, x), loss)
    # And so do their constants.
    assert units.constant == sum(part.constant for part, _ in units.parts)
    for part, columns in units.parts:
        # Each group's mean comes from that group's pre-activations alone.
        torch.testing.assert_close(units.mean(a)[:, columns], part.mean(a[:, columns]))


def test_jacobian_product_matches_autograd_of_the_mean(units, batch, generator):
    a, _ = batch
    matrix = torch.randn(*a.shape, 3, dtype=a.dtype, generator=generator)
    expected = torch.stack([jacobian(units.mean, row.unsqueeze(0)).squeeze() for row in a])
    # By definition dr/da @ matrix, row by row.
    torch.testing.assert_close(units.jacobian_product(a, matrix), expected @ matrix)


def test_sample_has_the_mean_that_the_units_claim(units, generator):
    n_draws = 20_000
    a = torch.randn(1, N_COLUMNS, dtype=torch.float64, generator=generator)
    a = a.expand(n_draws, N_COLUMNS).contiguous()
    draws = units.sample(a, generator)
    error = draws.mean(0) - units.mean(a)[0]
    # A sample mean is within 4.5 standard errors but for one time in 10^5.
    assert (error.abs() < 4.5 * draws.std(0) / n_draws**0.5).all()


def test_gaussian_sample_has_unit_variance(generator):
    n_draws = 20_000
    draws = Gaussian().sample(torch.zeros(n_draws, 4, dtype=torch.float64), generator)
    # The variance of a sample variance of N(0, 1) is 2 / n.
    assert ((draws.var(0) - 1).abs() < 4.5 * (2 / n_draws) ** 0.5).all()


def test_discrete_samples_are_outcomes(generator):
    a = torch.randn(100, 5, dtype=torch.float64, generator=generator)
    binary = Bernoulli().sample(a, generator)
    # A binary column is 0 or 1.
    assert ((binary == 0) | (binary == 1)).all()
    one_hot = Multinomial().sample(a, generator)
    # A one-hot variable has a single 1 and zeros.
    assert (one_hot.sum(1) == 1).all()
    assert (one_hot.max(1).values == 1).all()


def test_sample_is_determined_by_the_generator(units):
    a = torch.zeros(50, N_COLUMNS, dtype=torch.float64)
    first, second = (units.sample(a, torch.Generator().manual_seed(7)) for _ in range(2))
    # The same seed gives the same draws: nothing else is random.
    assert torch.equal(first, second)


def test_bias_for_mean_inverts_the_mean(units):
    mean = torch.tensor([0.05, 0.4, 0.1, 0.3, 0.98, 0.3, 0.7], dtype=torch.float64)
    if isinstance(units, Multinomial):
        mean = mean / mean.sum()
    if isinstance(units, OneHotGroups):
        mean[:3] /= mean[:3].sum()
        mean[3:] /= mean[3:].sum()
    # (In the mixed case columns 5, 1, 3 sum to 1: they are one categorical distribution.)
    bias = units.bias_for_mean(mean)
    # Within the clamp the bias is the mean's natural parameter, so the way back is exact.
    torch.testing.assert_close(units.mean(bias), mean)


@pytest.mark.parametrize("units", [Bernoulli(), Multinomial()])
def test_bias_of_constant_columns_is_finite(units):
    bias = units.bias_for_mean(torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64))
    # Probability 0 has natural parameter -inf, from which no gradient step returns.
    assert torch.isfinite(bias).all()
    # It still has to put most of the mass where the data have it.
    assert units.mean(bias)[1] > 0.9


def test_losses_are_finite_for_extreme_pre_activations():
    a = torch.tensor([[800.0, -800.0]], dtype=torch.float64)
    for units in (Bernoulli(), Multinomial()):
        for x in (torch.tensor([[1.0, 0.0]]).double(), torch.tensor([[0.0, 1.0]]).double()):
            # -log P is at most linear in a, so it is finite where exp(a) overflows.
            assert torch.isfinite(units.negative_log_likelihood(a, x)).all()
            value, residual = units.value_and_residual_(a.clone(), x)
            # r - x is bounded by 1.
            assert torch.isfinite(value)
            assert (residual.abs() <= 1).all()


# As visible units of a Boltzmann machine

BIAS = torch.tensor([0.7, -1.2, 0.3], dtype=torch.float64)
PRECISIONS = {"unit": None, "learned": torch.tensor([0.4, 2.5, 6.0], dtype=torch.float64)}


def test_energy_is_the_loss_less_a_constant(generator):
    x = torch.rand(5, 3, dtype=torch.float64, generator=generator)
    for units in (Bernoulli(), Gaussian()):
        loss = units.negative_log_likelihood(BIAS.expand(5, 3), x)
        constant = loss - units.energy(x, BIAS)
        # Units alone have P(x) = exp(-E) / Z with Z a constant; the squared error has none of
        # its own, the Bernoulli loss that of its 2^3 outcomes.
        log_z = units.log_normalizer(torch.zeros(3).double(), BIAS) if units.is_discrete else 0.0
        torch.testing.assert_close(constant, torch.ones(5).double() * log_z)


def test_gaussian_energy_counts_squares_by_their_precision(generator):
    x = torch.randn(5, 3, dtype=torch.float64, generator=generator)
    precision = PRECISIONS["learned"]
    # 1/2 |(x - c) / s|^2.
    torch.testing.assert_close(
        Gaussian().energy(x, BIAS, precision), 0.5 * (((x - BIAS) / precision**-0.5) ** 2).sum(1)
    )


def test_bernoulli_log_normalizer_is_the_sum_over_all_outcomes(generator):
    outcomes = torch.tensor(list(itertools.product([0.0, 1.0], repeat=3)), dtype=torch.float64)
    u = 2 * torch.randn(6, 3, dtype=torch.float64, generator=generator)
    log_terms = u @ outcomes.t() - Bernoulli().energy(outcomes, BIAS)
    # By definition: log sum_x exp(u.x - energy(x)), for each row of u.
    torch.testing.assert_close(Bernoulli().log_normalizer(u, BIAS), torch.logsumexp(log_terms, 1))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_gaussian_log_normalizer_is_the_integral(precision, generator):
    precision = PRECISIONS[precision]
    scale = torch.ones(3).double() if precision is None else precision.rsqrt()
    u = torch.randn(6, 3, dtype=torch.float64, generator=generator)
    steps = torch.linspace(-10, 10, 81, dtype=torch.float64)
    expected = torch.zeros(6, dtype=torch.float64)
    for i in range(3):
        # One column at a time: the integrand factorises. The maximum is at u + c.
        x = (u[:, i] + BIAS[i]).unsqueeze(1) + scale[i] * steps
        exponent = u[:, i : i + 1] * x / scale[i] ** 2 - 0.5 * ((x - BIAS[i]) / scale[i]) ** 2
        expected += torch.logsumexp(exponent, 1) + torch.log(scale[i] * (steps[1] - steps[0]))
    # By definition: log int exp(sum_i u_i x_i / s_i^2 - energy(x)) dx.
    torch.testing.assert_close(Gaussian().log_normalizer(u, BIAS, precision), expected)


@pytest.mark.parametrize("units", [Bernoulli(), Gaussian()], ids=["bernoulli", "gaussian"])
def test_log_normalizer_generates_the_means(units, generator):
    u = torch.randn(4, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    (mean,) = torch.autograd.grad(units.log_normalizer(u, BIAS).sum(), u)
    # The derivative of an exponential family's log normaliser is the mean.
    torch.testing.assert_close(mean, units.mean(u + BIAS).detach())


@pytest.mark.parametrize("given", [False, True], ids=["", "out"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_gaussian_sample_has_the_variance_of_its_precision(precision, given, generator):
    n_draws, precision = 20_000, PRECISIONS[precision]
    variance = torch.ones(3).double() if precision is None else 1 / precision
    a = BIAS.repeat(n_draws, 1)
    out = torch.full_like(a, torch.nan) if given else None
    draws = Gaussian().sample(a, generator, precision, out)
    # Sample means have standard error s / sqrt(n), whatever ``out`` held ...
    assert ((draws.mean(0) - BIAS).abs() < 4.5 * (variance / n_draws).sqrt()).all()
    # ... and sample variances of N(0, s^2) relative standard error sqrt(2 / n).
    assert ((draws.var(0) / variance - 1).abs() < 4.5 * (2 / n_draws) ** 0.5).all()
    # The means are read only.
    assert torch.equal(a, BIAS.repeat(n_draws, 1))
    # What was given is what is filled.
    assert not given or draws is out


def test_precision_means_nothing_to_binary_units():
    a = BIAS.repeat(50, 1)
    draws = [
        Bernoulli().sample(a, torch.Generator().manual_seed(1), precision)
        for precision in PRECISIONS.values()
    ]
    # A Bernoulli variable's variance is that of its mean.
    assert torch.equal(*draws)


@pytest.mark.parametrize("weighted", [False, True])
def test_losses_of_columns_sum_to_that_of_the_row(units, batch, weighted):
    a, x = batch
    weight = torch.linspace(0, 2, a.numel(), dtype=a.dtype).view_as(a) if weighted else None
    losses = units.column_losses(a, x, weight)
    assert losses.shape == a.shape
    expected = units.negative_log_likelihood(a, x, weight) - units.constant
    torch.testing.assert_close(losses.sum(1), expected)


@pytest.mark.parametrize("sizes", [[2, 4, 1], [3, 3], [5], [1, 1]])
def test_groups_are_their_softmaxes_one_by_one(sizes, generator):
    units, n = OneHotGroups(sizes), sum(sizes)
    a = torch.randn(5, n, dtype=torch.float64, generator=generator)
    x = torch.rand(5, n, dtype=torch.float64, generator=generator)
    weight = torch.rand(5, n, dtype=torch.float64, generator=generator)
    matrix = torch.randn(5, n, 2, dtype=torch.float64, generator=generator)
    ends = [0, *itertools.accumulate(sizes)]
    parts = [(Multinomial(), slice(start, stop)) for start, stop in itertools.pairwise(ends)]
    apart = Mixed(parts)
    for w in (None, weight):
        for name in ("negative_log_likelihood", "column_losses"):
            torch.testing.assert_close(getattr(units, name)(a, x, w), getattr(apart, name)(a, x, w))
        for value, other in zip(
            units.value_and_residual_(a.clone(), x, w, 0.3),
            apart.value_and_residual_(a.clone(), x, w, 0.3),
            strict=True,
        ):
            torch.testing.assert_close(value, other)
    torch.testing.assert_close(units.mean(a), apart.mean(a))
    torch.testing.assert_close(units.mean(a[0]), apart.mean(a)[0])
    torch.testing.assert_close(units.jacobian_product(a, matrix), apart.jacobian_product(a, matrix))
    torch.testing.assert_close(units.bias_for_mean(x[0]), apart.bias_for_mean(x[0]))
    drawn = units.sample(a, generator)
    for start, stop in itertools.pairwise(ends):
        assert (drawn[:, start:stop].sum(1) == 1).all()


def test_groups_far_apart_do_not_underflow():
    units = OneHotGroups([2, 3])
    a = torch.tensor([[900.0, 899.0, -900.0, -901.0, -950.0]])
    mean = units.mean(a)
    torch.testing.assert_close(mean[:, :2], torch.softmax(a[:, :2], 1))
    torch.testing.assert_close(mean[:, 2:], torch.softmax(a[:, 2:], 1))


def test_columns_side_by_side_are_a_slice():
    mixed = Mixed([(Bernoulli(), torch.tensor([0, 1, 2])), (Gaussian(), torch.tensor([3, 5, 4]))])
    assert mixed.parts[0][1] == slice(0, 3)
    assert mixed.parts[1][1].tolist() == [3, 5, 4]


def test_constants_of_columns_are_in_their_places():
    mixed = make_mixed()
    expected = torch.zeros(N_COLUMNS, dtype=torch.float64)
    expected[[2, 6]] = torch.log(SCALE[:2]) + 0.5 * math.log(2 * math.pi)
    torch.testing.assert_close(mixed.column_constant, expected)
    assert mixed.constant == pytest.approx(float(expected.sum()))
