"""Training for samples: walkback, levels that the network is told, energies."""

import math

import pytest
import torch
from torch.testing import assert_close

from skae.engine.networks.corruptions import GaussianNoise, Masking, redrawn
from skae.engine.networks.layers import Network, output_of
from skae.engine.networks.levels import OwnColumn, told_of
from skae.engine.networks.mixed import Mixed
from skae.engine.networks.objectives import Reconstruction
from skae.engine.networks.penalties import WeightDecay
from skae.engine.networks.units import Bernoulli, Gaussian, Multinomial
from skae.engine.optimisation.runs import gradient_by_autograd


def seeded():
    return torch.Generator().manual_seed(3)


OWN = OwnColumn(
    torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=torch.float64),
    torch.tensor([0.0, 0.0, 1.0, 0.0], dtype=torch.float64),
)
CASES = {
    "walkback": (Network((4, 5)), Masking(0.4), {"walkback": 2}),
    "walkback, deep": (Network((4, 5, 3), "tanh", tied=False), GaussianNoise(0.5), {"walkback": 1}),
    "told": (Network((4, 5), tied=False, told=True), GaussianNoise((0.1, 2.0)), {}),
    "told, deep": (Network((4, 5, 3), "tanh", tied=False, told=True), GaussianNoise(0.3), {}),
    "own columns": (
        Network((4, 5), tied=False, told=True), GaussianNoise((0.1, 2.0)), {"own_column": OWN}
    ),
    "own columns, deep": (
        Network((4, 5, 3), "tanh", tied=False, told=True), GaussianNoise(0.3), {"own_column": OWN}
    ),
}  # fmt: skip


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_closed_forms(random_theta, generator, name, gaps, weighted):
    network, corruption, options = CASES[name]
    theta = random_theta(network)
    penalties = [WeightDecay(0.1)] if network.depth == 1 else []
    x = torch.randn(6, 4, dtype=torch.float64, generator=generator)
    fill = torch.zeros(4, dtype=torch.float64)
    if gaps:
        x[0, 1] = x[3, 2] = math.nan
    objective = Reconstruction(
        network, Gaussian(), corruption, penalties=penalties, fill=fill, **options
    )
    objective.has_gaps = gaps
    weight = torch.linspace(0.5, 1.5, 6, dtype=torch.float64) if weighted else None
    assert objective.has_closed_form
    out, expected = theta.empty_like(), theta.empty_like()
    value = objective.gradient(theta, x, seeded(), out, weight)
    other = gradient_by_autograd(objective.value, theta, x, seeded(), expected, weight)
    assert_close(value, other)
    assert_close(out.flat, expected.flat)


def test_every_visited_row_has_the_clean_one_for_its_target(random_theta, generator):
    network = Network((4, 5))
    theta = random_theta(network)
    x = torch.rand(7, 4, dtype=torch.float64, generator=generator)
    objective = Reconstruction(network, Bernoulli(), Masking(0.3), walkback=3)
    noisy, target, *_ = objective.inputs(theta, x, seeded())
    assert_close(target, torch.cat([x] * 4))
    # First the rows corrupted, as without walkback; then draws of the model, corrupted.
    plain = Reconstruction(network, Bernoulli(), Masking(0.3)).inputs(theta, x, seeded())[0]
    assert_close(noisy[:7], plain)
    assert set(noisy[7:].unique().tolist()) == {0.0, 1.0}


def test_draws_vary_as_much_as_rows_differ_from_reconstructions(generator):
    units = Mixed([(Gaussian(), slice(0, 2)), (Bernoulli(), slice(2, 3))])
    n = 40_000
    output = torch.tensor([1.0, -2.0, 0.4], dtype=torch.float64).expand(n, 3)
    x = torch.randn(n, 3, dtype=torch.float64, generator=generator)
    x = x * torch.tensor([0.3, 2.0, 0.0], dtype=torch.float64) + output
    drawn = redrawn(x, output, units, generator)
    assert_close(drawn[:, :2].mean(0), output[0, :2], rtol=0.02, atol=0.03)
    spread = torch.tensor([0.3, 2.0], dtype=torch.float64)
    assert_close(drawn[:, :2].std(0), spread, rtol=0.02, atol=0)
    assert float(drawn[:, 2].mean()) == pytest.approx(1 / (1 + math.exp(-0.4)), abs=0.01)


def test_levels_that_are_told(generator):
    x = torch.zeros(50_000, 2, dtype=torch.float64)
    noisy, level, weight = GaussianNoise((0.1, 10.0)).leveled(x, generator)
    # Levels are uniform on a logarithmic scale, rows have the noise of theirs.
    assert float(level.log10().mean()) == pytest.approx(0, abs=0.02)
    assert float(level.log10().std()) == pytest.approx(2 / math.sqrt(12), rel=0.02)
    assert_close((noisy / level).std(0), torch.ones(2, dtype=torch.float64), rtol=0.02, atol=0)
    # The weight is 1 on average, and undoes that more noise leaves larger errors.
    assert float(weight.mean()) == pytest.approx(1, rel=0.03)
    ratio = weight * level.square() / (1 + level.square())
    assert_close(ratio, ratio[:1].expand_as(ratio))
    # What the network sees is about as large whatever the level, and says it.
    seen = told_of(noisy, level)
    assert_close(seen[:, 2:], 0.5 * level.log())
    assert float(seen[:, :2].abs().max()) < 6
    _, one, weight = GaussianNoise(0.5).leveled(x, generator)
    assert_close(one, torch.full_like(one, 0.5))
    assert_close(weight, torch.ones_like(weight))


def test_what_columns_say_by_themselves(generator):
    # A network that adds log-odds and nothing else is right where columns are independent.
    level, odds = 0.6, torch.tensor([0.0, 0.7, 0.2, -0.4, 0.9], dtype=torch.float64)
    own = OwnColumn(
        torch.tensor([1.0, 0, 0, 0, 0], dtype=torch.float64),
        torch.tensor([0.0, 1, 1, 1, 1], dtype=torch.float64),
    )
    units = Mixed(
        [(Gaussian(), slice(0, 1)), (Bernoulli(), slice(1, 2)), (Multinomial(), slice(2, 5))]
    )
    y = torch.randn(50, 5, dtype=torch.float64, generator=generator)
    mean = units.mean(own.completed(odds.expand(50, 5), told_of(y, level)))
    assert_close(mean[:, 0], y[:, 0] / (1 + level**2))
    like = torch.stack([odds[1], odds[0]]) - (y[:, 1:2] - torch.tensor([1.0, 0.0])).square() / (
        2 * level**2
    )
    assert_close(mean[:, 1], torch.softmax(like, 1)[:, 0])
    apart = (y[:, None, 2:] - torch.eye(3, dtype=torch.float64)).square().sum(2)
    assert_close(mean[:, 2:], torch.softmax(odds[2:] - apart / (2 * level**2), 1))


def test_all_levels_count_alike():
    level = torch.tensor([[0.1], [1.0], [4.0]], dtype=torch.float64)
    told = told_of(torch.zeros(3, 4, dtype=torch.float64), level)
    weights = OWN.weights(1 + level**-2, told)
    error = OWN.said_and_error(told)[1]
    # Of real numbers as errors of the network; of what is drawn in nats; others as they are told.
    assert_close((weights * error.square())[:, :3], torch.ones(3, 3, dtype=torch.float64))
    assert_close(weights[:, 3:], 1 + level**-2)


def test_networks_that_are_told_nothing_else():
    for options in ({"tied": True}, {"tied": False, "potential": True}):
        with pytest.raises(ValueError, match="weights of its own"):
            Network((3, 2), told=True, **options)


def test_an_output_with_a_potential(random_theta, generator):
    network = Network((3, 4, 2), "tanh", tied=False, potential=True)
    theta = random_theta(network)
    x = torch.randn(5, 3, dtype=torch.float64, generator=generator)
    plain = Network((3, 4, 2), "tanh", tied=False)
    jacobian = torch.func.vmap(
        torch.func.jacrev(lambda row: output_of(theta, row.unsqueeze(0), plain)[0])
    )(x)
    r0 = output_of(theta, x, plain)
    expected = r0 + torch.einsum("nij,ni->nj", jacobian, x - r0)
    assert_close(output_of(theta, x, network), expected)
    # Its training has no closed form, and descends all the same.
    objective = Reconstruction(network, Gaussian(), GaussianNoise(0.3))
    assert not objective.has_closed_form
    out = theta.empty_like()
    assert math.isfinite(float(objective.gradient(theta, x, seeded(), out)))
    assert float(out.flat.abs().max()) > 0
