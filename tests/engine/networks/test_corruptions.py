"""Corruptions against the laws they are named after."""

import math

import pytest
import torch

from skae.engine.networks.corruptions import (
    GaussianNoise,
    Hiding,
    Masking,
    SaltAndPepper,
    Swap,
)
from skae.engine.optimisation.devices import random_mask

N_ROWS, N_COLUMNS = 2000, 7
MINIMUM = torch.linspace(-3, -1, N_COLUMNS, dtype=torch.float64)
MAXIMUM = torch.linspace(5, 9, N_COLUMNS, dtype=torch.float64)


@pytest.fixture
def x(generator):
    # In (0, 1): never 0, nor any column's minimum or maximum, so replaced entries are visible.
    return torch.rand(N_ROWS, N_COLUMNS, dtype=torch.float64, generator=generator).add_(1e-3)


def make_corruption(name, level):
    if name == "masking":
        return Masking(level)
    if name == "gaussian":
        return GaussianNoise(level)
    return SaltAndPepper(level, MINIMUM, MAXIMUM)


def assert_frequency(hits, probability):
    """Binomial law: the frequency is within 4.5 standard errors but for once in 10^5."""
    n = hits.numel()
    error = hits.double().mean().item() - probability
    assert abs(error) <= 4.5 * math.sqrt(probability * (1 - probability) / n)


def test_the_four_coins_of_a_draw_are_alike_and_independent(generator):
    coins = random_mask(torch.empty(40_000, 4), 0.3, generator).double()
    for lane in coins.T:
        # Each 16-bit part of the draw is uniform, so that each lane has the same frequency.
        assert_frequency(lane, 0.3)
    correlation = torch.corrcoef(coins.T).fill_diagonal_(0)
    # Correlations of n independent coins have standard error 1 / sqrt(n).
    assert correlation.abs().max() < 4.5 / math.sqrt(len(coins))


def test_successive_coins_of_a_column_are_independent(generator):
    coins = random_mask(torch.empty(160_000), 0.5, generator).double()
    correlation = torch.corrcoef(torch.stack([coins[:-1], coins[1:]]))[0, 1]
    # No serial correlation: its standard error is 1 / sqrt(n).
    assert correlation.abs() < 4.5 / math.sqrt(len(coins))


def test_random_mask_resolves_small_probabilities(generator):
    # 16 bits resolve 1 / 65536: over 2^21 coins such a probability gives 32 hits, not none.
    hits = random_mask(torch.empty(2**21), 2.0**-16, generator).sum().item()
    # Poisson law of mean 32.
    assert abs(hits - 32) <= 4.5 * math.sqrt(32)


@pytest.mark.parametrize("level", [0.1, 0.5, 0.8])
@pytest.mark.parametrize("name", ["masking", "salt_and_pepper"])
def test_corrupted_entries_follow_the_binomial_law(name, level, x, generator):
    corrupted, mask = make_corruption(name, level)(x, generator)
    # Each component is touched independently with probability ``level``.
    assert_frequency(mask, level)
    # The mask tells the truth: exactly the touched entries differ (no x is 0, minimum, maximum).
    assert torch.equal(mask, corrupted != x)
    # What is untouched is bitwise the input.
    assert torch.equal(corrupted[~mask], x[~mask])


def test_masking_sets_to_zero(x, generator):
    corrupted, mask = Masking(0.4)(x, generator)
    # Masked means 0, nothing else.
    assert not corrupted[mask].any()


def test_salt_and_pepper_tosses_a_fair_coin_between_the_ends(x, generator):
    corrupted, mask = SaltAndPepper(0.6, MINIMUM, MAXIMUM)(x, generator)
    salt, pepper = mask & (corrupted == MAXIMUM), mask & (corrupted == MINIMUM)
    # A replaced entry is its own column's minimum or maximum, exactly.
    assert torch.equal(salt | pepper, mask)
    # The coin is fair ...
    assert_frequency(salt[mask], 0.5)
    for column in range(N_COLUMNS):
        # ... in every column.
        assert_frequency(salt[:, column][mask[:, column]], 0.5)


def test_gaussian_noise_has_the_variance_of_its_level(x, generator):
    level = 0.7
    corrupted, mask = GaussianNoise(level)(x, generator)
    noise = (corrupted - x) / level
    # Mean of n standard normals: standard error 1 / sqrt(n).
    assert abs(noise.mean()) < 4.5 / math.sqrt(noise.numel())
    # Their variance: standard error sqrt(2 / n).
    assert abs(noise.var() - 1) < 4.5 * math.sqrt(2 / noise.numel())
    # Their fourth moment is 3, with standard error sqrt(96 / n): Gaussian, not uniform.
    assert abs((noise**4).mean() - 3) < 4.5 * math.sqrt(96 / noise.numel())
    # Every component is touched: there is no mask.
    assert mask is None


@pytest.mark.parametrize("name", ["masking", "salt_and_pepper", "gaussian"])
def test_level_zero_is_the_identity(name, x, generator):
    corrupted, _ = make_corruption(name, 0.0)(x, generator)
    # Probability 0 touches nothing, and 0 * noise adds nothing.
    assert torch.equal(corrupted, x)


@pytest.mark.parametrize("name", ["masking", "salt_and_pepper"])
def test_level_one_touches_everything(name, x, generator):
    corrupted, mask = make_corruption(name, 1.0)(x, generator)
    # Probability 1 leaves no entry.
    assert mask.all()
    assert (corrupted != x).all()


@pytest.mark.parametrize("name", ["masking", "salt_and_pepper", "gaussian"])
def test_corruption_depends_on_its_generator_alone(name, x):
    corruption, before = make_corruption(name, 0.3), x.clone()
    global_state = torch.get_rng_state()
    first, second = (corruption(x, torch.Generator().manual_seed(5))[0] for _ in range(2))
    third, _ = corruption(x, torch.Generator().manual_seed(6))
    # The same seed gives the same corruption, bit for bit; another seed another one.
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
    # The clean batch is the target of the loss: it must survive.
    assert torch.equal(x, before)
    # torch's global generator was not drawn from.
    assert torch.equal(torch.get_rng_state(), global_state)


@pytest.mark.parametrize("name", ["masking", "salt_and_pepper", "gaussian"])
def test_successive_corruptions_differ(name, x, generator):
    corruption = make_corruption(name, 0.3)
    first, second = (corruption(x, generator)[0] for _ in range(2))
    # Each epoch must see fresh noise: the generator moves on.
    assert not torch.equal(first, second)


VARIABLES = ([0], [1, 2, 3], [4], [5, 6])
BY_VARIABLE = tuple(torch.tensor(columns).numpy() for columns in VARIABLES)


@pytest.mark.parametrize("level", [0.1, 0.5, 1.0])
def test_swap_keeps_what_columns_are_like(level, x, generator):
    swap = Swap(level).for_columns(MINIMUM, MAXIMUM)
    swapped, mask = swap(x, generator)
    assert_frequency(mask, level)
    assert torch.equal(swapped[~mask], x[~mask])
    # Rows are all different: what was swapped is another's, and of its own column.
    assert (swapped != x)[mask].all()
    for column in range(N_COLUMNS):
        assert torch.isin(swapped[:, column], x[:, column]).all()
    # The mean of n draws from a column has a standard error of its deviation / sqrt(n).
    errors = (swapped - x).mean(0) / (x.std(0) * math.sqrt(2 * level / N_ROWS))
    assert errors.abs().max() < 4.5


def test_swap_takes_every_other_row_alike(generator):
    x = torch.arange(5.0).unsqueeze(1).expand(5, 4000).contiguous()
    swapped, _ = Swap(1.0)(x, generator)
    for row in range(5):
        counts = torch.stack([(swapped[row] == other).sum() for other in range(5)])
        assert counts[row] == 0
        for other in set(range(5)) - {row}:
            assert_frequency(swapped[row] == other, 0.25)


def test_swap_moves_the_columns_of_a_variable_together(x, generator):
    x = 0.9 * x + torch.arange(N_ROWS, dtype=x.dtype).unsqueeze(1)  # the whole part tells the row
    swapped, mask = Swap(0.5).for_columns(MINIMUM, MAXIMUM, BY_VARIABLE)(x, generator)
    of_row = swapped.floor()
    for columns in VARIABLES:
        assert (of_row[:, columns] == of_row[:, columns[:1]]).all()
        assert (mask[:, columns] == mask[:, columns[:1]]).all()
        assert_frequency(mask[:, columns[0]], 0.5)
    # Variables for themselves.
    assert (of_row[:, 0] != of_row[:, 1])[mask[:, 0] & mask[:, 1]].double().mean() > 0.99


def test_a_batch_of_one_row_has_none_to_swap_with(x, generator):
    swapped, mask = Swap(0.9)(x[:1], generator)
    assert torch.equal(swapped, x[:1])
    assert not mask.any()


@pytest.mark.parametrize("kind", [Masking, SaltAndPepper, Swap])
def test_levels_by_row_and_by_column(kind, x, generator):
    _, mask = kind((0.2, 0.8)).for_columns(MINIMUM, MAXIMUM)(x.expand(-1, 7), generator)
    assert_frequency(mask[:, 0], 0.5)
    # Rows differ by more than coins of one level: their variance is that of the levels, too.
    n = N_COLUMNS
    spread = mask.double().mean(1).var().item()
    # E p(1-p) / n + Var p, for p uniform on [0.2, 0.8].
    assert spread == pytest.approx(0.22 / n + 0.03, rel=0.15)
    levels = [0.0, 1.0, 0.3, 0.3, 0.0, 0.5, 0.5]
    _, mask = kind(levels).for_columns(MINIMUM, MAXIMUM)(x, generator)
    assert not mask[:, [0, 4]].any()
    assert mask[:, 1].all()
    assert_frequency(mask[:, 2], 0.3)
    assert_frequency(mask[:, 5], 0.5)


def test_noise_by_row_and_by_column(x, generator):
    noisy, _ = GaussianNoise([0.0, 2.0, *[0.5] * 5]).for_columns(MINIMUM, MAXIMUM)(x, generator)
    deviations = (noisy - x).std(0)
    assert deviations[0] == 0
    assert deviations[1] == pytest.approx(2.0, rel=0.1)
    noisy, _ = GaussianNoise((0.0, 2.0))(x, generator)
    # E level^2 = 4 / 3.
    assert (noisy - x).square().mean() == pytest.approx(4 / 3, rel=0.1)


@pytest.mark.parametrize("kind", [Masking, Swap, GaussianNoise])
def test_a_level_for_each_variable(kind, x, generator):
    of_variable = kind([0.0, 0.7, 0.0, 0.2]).for_columns(MINIMUM, MAXIMUM, BY_VARIABLE)
    of_column = kind([0, 0.7, 0.7, 0.7, 0, 0.2, 0.2]).for_columns(MINIMUM, MAXIMUM, BY_VARIABLE)
    assert torch.equal(of_variable.level, of_column.level)
    corrupted, _ = of_variable(x, generator)
    assert ((corrupted != x).any(0) == (of_variable.level > 0)).all()


@pytest.mark.parametrize(
    ("level", "match"),
    [
        ((0.5, 0.2), "low, high"),
        ((0.1, 0.2, 0.3), "low, high"),
        ((0.1, 1.2), "at most 1"),
        ([0.1, 1.2], "at most 1"),
        ([0.1, math.nan], "finite"),
        ((-0.1, 0.5), "at least 0"),
    ],
)
def test_levels_out_of_range(level, match):
    with pytest.raises(ValueError, match=match):
        Masking(level)


def test_levels_of_another_number_of_columns():
    with pytest.raises(ValueError, match=r"3 numbers.*each of the 7 columns, or .*4 variables"):
        Masking([0.1, 0.2, 0.3]).for_columns(MINIMUM, MAXIMUM, BY_VARIABLE)


def test_hiding_puts_what_stands_for_gaps(x, generator):
    fill = torch.linspace(10, 20, N_COLUMNS, dtype=torch.float64)
    hiding = Hiding(0.3).for_columns(MINIMUM, MAXIMUM, None, fill)
    noisy, hidden = hiding(x, generator)
    # What is hidden looks as if it had never been observed, and nothing else has changed.
    assert torch.equal(noisy, torch.where(hidden, fill, x))
    assert_frequency(hidden, 0.3)
    ranged, hidden = Hiding((0.0, 0.6)).for_columns(MINIMUM, MAXIMUM)(x, generator)
    # Without columns 0 stands for a gap. Levels differ by row: the variance of the parts of
    # rows is that of the levels, 0.6^2 / 12, on top of the binomial one of at most 0.25 / 7.
    assert torch.equal(ranged == 0, hidden)
    assert hidden.double().mean(dim=1).var() > 0.04
