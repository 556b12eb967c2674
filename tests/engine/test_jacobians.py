"""Closed-form Jacobians of layered maps against torch.func.jacrev."""

import pytest
import torch
from torch.func import jacrev, vmap

from skae.engine import jacobians
from skae.engine.networks import Network, decode, encode
from skae.engine.objectives import Forward
from skae.engine.penalties import ReconstructionContraction, encoder_layers
from skae.engine.units import Bernoulli, Gaussian, Mixed, Multinomial

N_FEATURES = 6
DEPTHS = {1: (N_FEATURES, 4), 2: (N_FEATURES, 5, 3), 3: (N_FEATURES, 4, 5, 2)}
SMOOTH = ["sigmoid", "tanh", "softplus", "linear"]
UNITS = {
    "bernoulli": Bernoulli(),
    "gaussian": Gaussian(offset=1.5),
    "multinomial": Multinomial(),
    "mixed": Mixed(
        [
            (Bernoulli(), torch.tensor([4, 0])),
            (Multinomial(), torch.tensor([5, 1, 3])),
            (Gaussian(offset=0.5), torch.tensor([2])),
        ]
    ),
}


@pytest.fixture
def x(generator):
    return torch.randn(7, N_FEATURES, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("activation", SMOOTH)
@pytest.mark.parametrize("depth", DEPTHS)
def test_encoder_jacobian_matches_autograd(depth, activation, random_theta, x):
    network = Network(DEPTHS[depth], activation)
    theta = random_theta(network)
    layers = encoder_layers(theta, encode(theta, x, network), network)
    expected = vmap(jacrev(lambda row: encode(theta, row.unsqueeze(0), network)[-1].squeeze(0)))(x)
    # The chain rule, J = D_L W_L ... D_1 W_1, is dh/dx.
    torch.testing.assert_close(jacobians.jacobian(*layers), expected)
    # |J|_F^2 is the sum of its squared entries, though J is never built for it.
    torch.testing.assert_close(jacobians.squared_norm(*layers), expected.square().sum((1, 2)))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("activation", SMOOTH)
@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("units", UNITS)
def test_reconstruction_contraction_matches_autograd(
    units, depth, activation, tied, random_theta, x
):
    network, units = Network(DEPTHS[depth], activation, tied), UNITS[units]
    theta = random_theta(network)

    def reconstruct(x):
        return units.mean(decode(theta, encode(theta, x, network)[-1], network)[1])

    rows = (torch.autograd.functional.jacobian(reconstruct, row.unsqueeze(0)) for row in x)
    expected = torch.stack([jacobian.square().sum() for jacobian in rows])

    hidden = encode(theta, x, network)
    decoded, output = decode(theta, hidden[-1], network)
    for row, squared_norm in enumerate(expected):
        weight = torch.zeros(len(x), dtype=x.dtype)
        weight[row] = len(x)
        forward = Forward(
            x=x, row_weight=weight, generator=None, hidden=hidden, decoded=decoded, output=output
        )
        value = ReconstructionContraction(1.0, network, units).value(theta, forward)
        # With all weight on one row, the mean over rows is that row's |dr/dx|_F^2.
        torch.testing.assert_close(value, squared_norm)


@pytest.mark.parametrize("shape", [(4, 9), (9, 4)])
def test_factored_norm_is_the_same_on_both_of_its_ways(shape, generator):
    n_hidden, n_in = shape
    factor = torch.randn(3, 5, n_hidden, dtype=torch.float64, generator=generator)
    weight = torch.randn(n_hidden, n_in, dtype=torch.float64, generator=generator)
    # |F W|_F^2 = tr(F W W^T F^T): whichever product is smaller, the number is the same.
    torch.testing.assert_close(
        jacobians.factored_squared_norm(factor, weight), (factor @ weight).square().sum((1, 2))
    )


def test_factor_without_an_output_slope_is_that_of_slope_one(generator):
    slopes = [torch.rand(3, 4, dtype=torch.float64, generator=generator), None]
    weights = [
        torch.randn(shape, dtype=torch.float64, generator=generator) for shape in ((4, 5), (2, 4))
    ]
    ones = [slopes[0], torch.ones(3, 2, dtype=torch.float64)]
    # None stands for a linear last layer, whose slope is 1.
    torch.testing.assert_close(
        jacobians.jacobian_factor(slopes, weights), jacobians.jacobian_factor(ones, weights)
    )
