"""Random draws against the laws they are named after, on both code paths."""

import math

import pytest
import torch

from skae.engine.optimisation import devices
from skae.engine.optimisation.devices import bernoulli, random_mask

# One call below and one above the size at which the way of drawing changes; both odd, so that
# the last of the draws cut from 64 bits is half used.
FEW, MANY = devices._MANY - 1, 10 * devices._MANY + 1
DTYPES = [torch.float32, torch.float64]


def assert_frequency(hits, probability):
    """Binomial law: the frequency is within 4.5 standard errors but for once in 10^5."""
    n = hits.numel()
    error = hits.double().mean().item() - probability
    assert abs(error) <= 4.5 * math.sqrt(probability * (1 - probability) / n)


def from_bits(monkeypatch, halves):
    """Let all random 64-bit integers consist of the given 32-bit ones, in their order."""

    def random_(self, low, high, *, generator):
        return self.copy_(halves.view(torch.int64))

    monkeypatch.setattr(torch.Tensor, "random_", random_)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_draws", [FEW, MANY])
@pytest.mark.parametrize("probability", [0.003, 0.3, 0.5, 0.997])
def test_draws_follow_the_binomial_law(probability, n_draws, dtype, generator):
    p = torch.full((n_draws,), probability, dtype=dtype)
    result = torch.cat([bernoulli(p, generator) for _ in range(200_000 // n_draws + 1)])
    # Each draw is 1 with the given probability.
    assert_frequency(result, probability)
    # The outcomes are numbers of the probabilities' kind, for products with the weights.
    assert result.dtype == dtype
    # And there are two of them.
    assert ((result == 0) | (result == 1)).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["few", "many", "transposed", "strided"])
def test_each_entry_has_its_own_probability(layout, dtype, generator):
    n_rows = 150 if layout == "few" else 5000
    p = torch.rand(128, dtype=dtype, generator=generator)
    p[0], p[1] = 0.0, 1.0
    p = p.repeat(n_rows, 1)
    if layout == "transposed":
        p = p.t().contiguous().t()
    if layout == "strided":
        p = torch.stack([p, 1 - p], 2)[:, :, 0]
    before = p.clone()
    result = torch.cat([bernoulli(p, generator) for _ in range(40_000 // n_rows)])
    frequency, expected = result.double().mean(0), p[0].double()
    error = (expected * (1 - expected) / len(result)).sqrt()
    # Rows and columns are not mixed up, however the tensor lies in memory: each column's
    # frequency is within 4.9 of its own standard errors (once in 10^6, for 128 of them), and
    # 0 and 1 have none.
    assert ((frequency - expected).abs() <= 4.9 * error).all()
    # The probabilities, which the gradient needs, are left as they are.
    assert torch.equal(p, before)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_draws", [FEW, MANY])
def test_out_receives_the_draws(n_draws, dtype):
    p = torch.full((n_draws,), 0.4, dtype=dtype)
    rows = torch.full((2, n_draws), 7.0, dtype=dtype)
    result = bernoulli(p, torch.Generator().manual_seed(3), out=rows[1])
    # The memory is the caller's ...
    assert result.data_ptr() == rows[1].data_ptr()
    # ... what lay there does not matter: the draws are those of a fresh tensor ...
    assert torch.equal(rows[1], bernoulli(p, torch.Generator().manual_seed(3)))
    # ... and what lies beside it is not touched.
    assert (rows[0] == 7.0).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_draws", [FEW, 2**22])
def test_certain_outcomes(n_draws, dtype, generator):
    # A uniform number in [0, 1) is never below 0 ...
    assert not bernoulli(torch.zeros(n_draws, dtype=dtype), generator).any()
    # ... and always below 1.
    assert bernoulli(torch.ones(n_draws, dtype=dtype), generator).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_certain_outcomes_are_so_for_all_bits(dtype, monkeypatch, generator):
    n_draws = 2 * devices._MANY
    ends = torch.tensor([-(2**31), -(2**31) + 1, -1, 0, 1, 2**31 - 65, 2**31 - 64, 2**31 - 1])
    from_bits(monkeypatch, ends.to(torch.int32).repeat(n_draws // len(ends)))
    # No 32 bits, the lowest least of all, read as a number below 0.
    assert not bernoulli(torch.zeros(n_draws, dtype=dtype), generator).any()
    # All of them, the highest too, read as a number below 1.
    assert bernoulli(torch.ones(n_draws, dtype=dtype), generator).all()


@pytest.mark.parametrize(("dtype", "resolution"), [(torch.float32, 2**-24), (torch.float64, 0)])
def test_a_draw_compares_its_bits_with_the_probability(dtype, resolution, monkeypatch, generator):
    n_draws = 2 * devices._MANY
    bits = torch.randint(-(2**31), 2**31, (n_draws,), generator=generator)
    p = torch.rand(n_draws, dtype=dtype, generator=generator)
    uniform = bits.double() / 2**32 + 0.5
    near = torch.arange(0, n_draws, 2)
    p[near] = uniform[near].to(dtype)  # ties, and what rounding makes of them
    from_bits(monkeypatch, bits.to(torch.int32))
    drawn = bernoulli(p, generator)
    clear = (p.double() - uniform).abs() >= max(resolution, 2**-60)
    # 1 exactly where 32 bits, read as a number in [0, 1), are below p; only float32 is too
    # coarse to tell which of two numbers is below where they agree in 24 bits.
    assert torch.equal(drawn[clear] == 1, (uniform < p.double())[clear])
    # (Float64 is exact: there only true ties are left out, in which nothing is below.)
    assert resolution or not drawn[~clear].any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n_draws", "total"), [(FEW, 2**22), (2**24, 2**24)])
def test_small_probabilities_are_resolved(n_draws, total, dtype, generator):
    n_calls = total // n_draws
    p = torch.full((n_draws,), 64 / total, dtype=dtype)
    n_hits = sum(bernoulli(p, generator).sum().item() for _ in range(n_calls))
    mean = 64 / total * n_draws * n_calls
    # Poisson law of that mean, about 64: rare events happen, as often as they should.
    assert abs(n_hits - mean) <= 4.5 * math.sqrt(mean)


@pytest.mark.parametrize("n_draws", [FEW, MANY])
def test_draws_are_independent(n_draws, generator):
    p = torch.full((n_draws,), 0.3, dtype=torch.float64)
    series = torch.cat([bernoulli(p, generator) for _ in range(200_000 // n_draws + 1)])
    for lag in (1, 2, 3):
        pair = torch.stack([series[:-lag], series[lag:]])
        # No serial correlation, be it between the halves of 64 bits or from one to the next:
        # its standard error is 1 / sqrt(n).
        assert torch.corrcoef(pair)[0, 1].abs() < 4.5 / math.sqrt(len(series))


@pytest.mark.parametrize("n_draws", [FEW, MANY])
def test_draws_depend_on_their_generator_alone(n_draws):
    p, state = torch.full((n_draws,), 0.5), torch.get_rng_state()
    generator = torch.Generator().manual_seed(5)
    first, second = bernoulli(p, generator), bernoulli(p, generator)
    # The same seed gives the same draws, bit for bit.
    assert torch.equal(first, bernoulli(p, torch.Generator().manual_seed(5)))
    # The generator moves on: the next draws are others.
    assert not torch.equal(first, second)
    # torch's global generator was not drawn from.
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("probability", [0.01, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("n_coins", [100_000, 99_999, 99_998, 99_997])
def test_random_mask_follows_the_binomial_law(n_coins, probability, generator):
    mask = random_mask(torch.empty(n_coins), probability, generator)
    # One coin for each entry, whatever remainder the four coins per draw leave.
    assert (mask.shape, mask.dtype) == ((n_coins,), torch.bool)
    # Every coin shows True with the given probability.
    assert_frequency(mask, probability)


def test_random_mask_is_exact_at_the_ends(monkeypatch, generator):
    quarters = torch.arange(-(2**15), 2**15, dtype=torch.int16)
    from_bits(monkeypatch, quarters.view(torch.int32))
    x = torch.empty(2**16)
    # With every 16-bit number once: probability 0 takes none of them, 1 takes all ...
    assert not random_mask(x, 0.0, generator).any()
    assert random_mask(x, 1.0, generator).all()
    # ... and k / 65536 takes k.
    assert random_mask(x, 12345 / 2**16, generator).sum() == 12345


@pytest.mark.parametrize("n", [7, 1000, 50_000])
def test_both_precisions_draw_alike(n):
    probability = torch.linspace(0.01, 0.99, n, dtype=torch.float64)
    found = [
        bernoulli(probability.to(dtype), torch.Generator().manual_seed(0)).double()
        for dtype in (torch.float32, torch.float64)
    ]
    # But for draws within rounding of their probability, which are none or very few.
    assert (found[0] != found[1]).double().mean() < 1e-4
