"""Tangent propagation: closed forms against the formula, and the formula against autograd."""

import pytest
import torch

from skae.engine.backpropagation import network_encoder
from skae.engine.networks import Network, encode
from skae.engine.parameters import Parameters
from skae.engine.rows import Labelled
from skae.engine.stacks import Level
from skae.engine.tangent_propagation import TangentPropagation, change_of_distribution
from skae.engine.units import Bernoulli, Multinomial

SIZES = (6, 5, 4)


def make_levels(activation, affine):
    """Two layers, the upper one on standardised codes."""
    levels = []
    for k in range(2):
        network = Network(SIZES[k : k + 2], activation)
        n = SIZES[k]
        level = Level(
            f"{k}.",
            lambda theta, x, network=network: encode(theta, x, network)[-1],
            None,
            Bernoulli(),
            torch.linspace(-0.4, 0.6, n, dtype=torch.float64) if k == 1 else None,
            torch.linspace(0.3, 1.7, n, dtype=torch.float64) if k == 1 else None,
            network_encoder(network) if affine else None,
        )
        levels.append(level)
    return levels, [Network(SIZES[k : k + 2], activation) for k in range(2)]


@pytest.fixture(
    name="case", params=[("sigmoid", True), ("tanh", True), ("softplus", True), ("tanh", False)]
)
def levels_and_batch(request):
    generator = torch.Generator().manual_seed(0)
    levels, networks = make_levels(*request.param)
    shapes = {
        level.prefix + name: shape
        for level, network in zip(levels, networks, strict=True)
        for name, shape in network.parameter_shapes.items()
    }
    shapes |= {"output_weight": (3, SIZES[-1]), "output_bias": (3,)}
    theta = Parameters(shapes, dtype=torch.float64, device="cpu")
    theta.flat.normal_(generator=generator)
    width = SIZES[0]
    x = torch.randn(7, width, dtype=torch.float64, generator=generator)
    directions = torch.randn(7, 2, width, dtype=torch.float64, generator=generator)
    target = torch.zeros(7, 3, dtype=torch.float64)
    target[0, 0], target[1, 2], target[2, 1] = 1, 1, 0.5
    return levels, theta, Labelled(x, target, None, directions)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gradient_is_that_of_the_value(case, dropout):
    levels, theta, batch = case
    objective = TangentPropagation(
        levels,
        Multinomial(),
        tangent_penalty=0.3,
        metric_penalty=0.7,
        entropy_penalty=0.4,
        share=3 / 7,
        dropout=(dropout, dropout),
        weight_decay=0.1,
    )
    closed, expected = theta.empty_like(), theta.empty_like()
    closed.flat.fill_(9.0)
    expected.flat.zero_()
    with torch.no_grad():
        value = objective.gradient(theta, batch, torch.Generator().manual_seed(1), closed)
    by_formula = objective.value(theta.tracked(expected), batch, torch.Generator().manual_seed(1))
    by_formula.backward()
    # The closed form is the formula's derivative, with the same draws.
    torch.testing.assert_close(closed.flat, expected.flat, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(value, by_formula.detach(), rtol=1e-12, atol=0)


def test_random_combinations_give_the_sum_over_directions(case):
    levels, theta, batch = case
    batch = batch._replace(target=torch.ones_like(batch.target) / 3)
    options = {"levels": levels, "units": Multinomial(), "share": 1.0}
    plain = TangentPropagation(**options)
    penalised = TangentPropagation(tangent_penalty=1.0, **options)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        draws = [penalised.value(theta, batch, generator) for _ in range(400)]
        base = plain.value(theta, batch, generator)
        jacobian = torch.func.vmap(torch.func.jacrev(lambda x: plain.output(theta, x[None])[0]))
        change = torch.einsum("nki,nmi->nmk", jacobian(batch.x), batch.directions)
    mean, error = torch.stack(draws).mean() - base, torch.stack(draws).std() / 20
    # Independent signs leave no cross terms in the mean.
    assert abs(mean - change.square().sum((1, 2)).mean()) < 4 * error + 1e-12


def test_the_metric_is_the_second_order_of_the_divergence():
    generator = torch.Generator().manual_seed(0)
    a, change = torch.randn(2, 5, 4, dtype=torch.float64, generator=generator)
    step = 1e-3
    p, q = torch.softmax(a, 1), torch.softmax(a + step * change, 1)
    divergence = (p * (p / q).log()).sum(1)
    # KL(p || p + dp) = 1/2 da^T M da + third order.
    expected = 2 * divergence / step**2
    found = change_of_distribution(Multinomial(), a, change)
    torch.testing.assert_close(found, expected, rtol=5e-3, atol=1e-6)
