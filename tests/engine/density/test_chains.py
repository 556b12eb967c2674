"""Chains against the laws that they should have."""

import itertools
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from skae.engine.boltzmann.samplers import Schedule, run_chains
from skae.engine.density.chains import (
    CHAINS,
    annealed,
    contractive,
    denoising,
    isotropic,
    langevin,
    levels_between,
    local_covariance,
)
from skae.engine.density.denoisers import Clamp
from skae.engine.networks.corruptions import SaltAndPepper
from skae.engine.networks.layers import Network
from skae.engine.networks.units import Bernoulli

VARIANCES, NOISE = (1.9, 0.1), 0.5
N_CHAINS = 30_000


def stationary_variance(step, variances=VARIANCES, n_steps=50, n_chains=N_CHAINS, seed=0):
    start = torch.Generator().manual_seed(100 + seed)
    x = torch.randn(n_chains, len(variances), dtype=torch.float64, generator=start)
    x = x * torch.tensor(variances, dtype=torch.float64).sqrt()
    schedule = Schedule(3, n_steps - 20, 10)
    run = run_chains(step, (x, x), schedule, keep=lambda state: state[0])
    return run.samples.flatten(0, 1).var(0)


# What each step leaves of data with variances 1.9 and 0.1, corrupted with sigma = 0.5. All are
# fixed points of v' = f(v): for the first, r = v0 / (v0 + s^2) y and y has the variance v + s^2.
TABLE = {
    "corrupted, drawn from N(r, s^2 J)": (local_covariance, {}, (1.900, 0.100)),
    "corrupted, r alone": (local_covariance, {"draws": False}, (0.891, 0.022)),
    "corrupted, drawn from N(r, s^2 I)": (isotropic, {}, (2.033, 0.294)),
    "not corrupted, N(r, s^2 J)": (local_covariance, {"corrupts": False}, (1.009, 0.078)),
    "Langevin steps of s^2": (langevin, {}, (2.214, 0.426)),
}


@pytest.mark.parametrize("name", TABLE)
def test_stationary_covariances(normal_denoiser, generator, name):
    make, options, expected = TABLE[name]
    step = make(normal_denoiser(VARIANCES, NOISE), generator, **options)
    found = stationary_variance(step)
    assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=0.02, atol=5e-4)


@pytest.mark.parametrize("noise", [0.2, 3.0])
def test_normal_data_are_sampled_at_any_level(normal_denoiser, generator, noise):
    # Without tied weights the draw goes by eigenvectors of the covariance.
    step = local_covariance(normal_denoiser((1.0, 0.5), noise, tied=False), generator)
    found = stationary_variance(step, (1.0, 0.5), n_steps=30, n_chains=20_000)
    assert_close(found, torch.tensor([1.0, 0.5], dtype=torch.float64), rtol=0.04, atol=0)


def test_levels_come_down_to_the_data(normal_denoiser, generator):
    # The best denoiser at each level: annealing ends in the data's law, the better the more levels.
    class AtEveryLevel:
        clamp, is_drawn = None, None

        def at(self, level):
            return normal_denoiser(VARIANCES, level)

    errors = []
    for n in (10, 80):
        high = 5.0
        x = (torch.tensor(VARIANCES, dtype=torch.float64) + high**2).sqrt() * torch.randn(
            100_000, 2, dtype=torch.float64, generator=generator
        )
        x, mean = annealed(AtEveryLevel(), levels_between(0.05, high, n), x, generator)
        assert x.shape == mean.shape
        ratio = x.var(0) / torch.tensor(VARIANCES, dtype=torch.float64)
        errors.append(float((ratio - 1).abs().max()))
    assert errors[1] < 0.06
    assert errors[1] < 0.5 * errors[0]
    levels = levels_between(0.1, 10, 3)
    assert levels == pytest.approx([10, 1, 0.1])


# Three bits: all states and all corrupted ones can be counted.

BITS = torch.tensor(list(itertools.product((0.0, 1.0), repeat=3)), dtype=torch.float64)


class ThreeBits:
    """A law of three bits that hang together, and the best reconstruction of corrupted rows."""

    def __init__(self, level):
        law = torch.tensor([0.22, 0.08, 0.07, 0.13, 0.13, 0.07, 0.08, 0.22], dtype=torch.float64)
        self.law = law / law.sum()
        # Salt and pepper: each bit is replaced by a fair coin with this probability.
        flips = level / 2
        apart = (BITS.unsqueeze(1) != BITS.unsqueeze(0)).sum(2).double()
        self.corrupted = flips**apart * (1 - flips) ** (3 - apart)
        joint = self.law.unsqueeze(1) * self.corrupted
        self.posterior = (joint / joint.sum(0)).T
        self.mean = self.posterior @ BITS

    def reconstruct(self, x):
        index = (x @ torch.tensor([4.0, 2.0, 1.0], dtype=x.dtype)).round().long()
        return torch.logit(self.mean[index].clamp(1e-9, 1 - 1e-9))

    def stationary(self, given):
        """The law that corrupting and then drawing from ``given``, by corrupted row, leaves."""
        step = self.corrupted @ given
        return torch.linalg.matrix_power(step, 200)[0]

    @property
    def factorised(self):
        """P(x' | corrupted) where bits are drawn by themselves."""
        on = self.mean.unsqueeze(1)
        return torch.where(BITS.bool(), on, 1 - on).prod(2)


@pytest.mark.parametrize("level", [0.1, 0.4, 0.8])
def test_three_bits(denoiser_of_function, generator, level):
    bits = ThreeBits(level)
    denoiser = denoiser_of_function(
        bits.reconstruct,
        3,
        0.0,
        units=Bernoulli(),
        corrupt=SaltAndPepper(level),
        is_drawn=torch.ones(3, dtype=torch.bool),
        variance=torch.ones(3, dtype=torch.float64),
    )
    x = BITS[torch.multinomial(bits.law, 10_000, replacement=True, generator=generator)]
    schedule = Schedule(10, 60, 5)
    run = run_chains(denoising(denoiser, generator), (x, x), schedule, keep=lambda s: s[0])
    index = (run.samples.flatten(0, 1) @ torch.tensor([4.0, 2, 1], dtype=torch.float64)).long()
    found = torch.bincount(index, minlength=8).double() / len(index)
    expected = bits.stationary(bits.factorised)
    # The chain is that of the transition matrix: 100,000 draws, correlated, tell shares to 0.003.
    assert (found - expected).abs().max() < 0.008
    # It is not quite the data's law, the less the more is corrupted; drawn together they are.
    distance = 0.5 * float((expected - bits.law).abs().sum())
    assert {0.1: 0.01, 0.4: 0.06, 0.8: 0.12}[level] < distance < 0.25
    assert_close(bits.stationary(bits.posterior), bits.law, rtol=1e-6, atol=1e-9)


def test_codes_move_along_the_data(make_denoiser, generator):
    # x' = g(h + J J^T eps): the covariance of the move is sigma^2 (J J^T)^2.
    denoiser = make_denoiser(Network((3, 2), "linear"), 0.3)
    weight, bias = denoiser.theta["weight_0"], denoiser.theta["visible_bias_0"]
    x = torch.zeros(100_000, 3, dtype=torch.float64)
    code = denoiser.model.encode(denoiser.theta, x)
    state = contractive(denoiser, generator)((x, x))
    moves = torch.linalg.lstsq(weight.T, (state[0] - bias).T).solution.T - code
    gram = weight @ weight.T
    assert_close(moves.T @ moves / len(x), 0.09 * gram @ gram, rtol=0.03, atol=1e-3)
    # For comparison, as long moves in all directions alike.
    state = isotropic(replace(denoiser, moves_codes=True), generator)((x, x))
    others = torch.linalg.lstsq(weight.T, (state[0] - bias).T).solution.T - code
    expected = torch.eye(2, dtype=torch.float64) * moves.square().sum(1).mean() / 2
    assert_close(others.T @ others / len(x), expected, rtol=0.03, atol=4e-3)


def test_columns_that_are_kept(make_denoiser, generator):
    # Two columns of correlation 0.8: given one, the other is normal with known moments.
    covariance = torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=torch.float64)
    noise = 0.5
    optimum = torch.linalg.solve(covariance + noise**2 * torch.eye(2), covariance)
    values, basis = torch.linalg.eigh(optimum)
    network = Network((2, 2), "linear")
    denoiser = make_denoiser(network, noise)
    denoiser.theta.flat.zero_()
    denoiser.theta["weight_0"].copy_(basis * values.sqrt() @ basis.T)
    n = 5_000
    mask = torch.tensor([True, False]).expand(n, 2)
    values = torch.tensor([1.5, 0.0], dtype=torch.float64).expand(n, 2)
    kept = type(denoiser)(**{**vars(denoiser), "clamp": Clamp(mask, values)})
    x = torch.zeros(n, 2, dtype=torch.float64)
    run = run_chains(
        local_covariance(kept, generator),
        (x, x),
        Schedule(1, 25),
        keep=lambda state: state[0],
    )
    x = run.samples[0]
    assert (x[:, 0] == 1.5).all()
    # Shrunk a little: the model sees noise where nothing is noisy.
    assert float(x[:, 1].mean()) == pytest.approx(0.8 * 1.5, abs=0.1)
    assert float(x[:, 1].var()) == pytest.approx(0.36, abs=0.06)


def test_names():
    assert list(CHAINS) == [
        "local_covariance",
        "denoising",
        "contractive",
        "isotropic",
        "langevin",
    ]
