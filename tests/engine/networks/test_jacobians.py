"""Closed-form Jacobians of layered maps against torch.func.jacrev."""

import pytest
import torch
from torch.func import jacrev, vmap
from torch.testing import assert_close

from skae.engine.networks import jacobians
from skae.engine.networks.activations import ACTIVATIONS
from skae.engine.networks.forward import Forward
from skae.engine.networks.jacobians import DifferentiatedJacobian, LayeredJacobian, OutputJacobian
from skae.engine.networks.layers import Network, affine_chains, decode, encode, linearized
from skae.engine.networks.mixed import Mixed
from skae.engine.networks.penalties import ReconstructionContraction, encoder_layers
from skae.engine.networks.units import Bernoulli, Gaussian, Multinomial

N_FEATURES = 6
DEPTHS = {1: (N_FEATURES, 4), 2: (N_FEATURES, 5, 3), 3: (N_FEATURES, 4, 5, 2)}
SHALLOW = Network((N_FEATURES, 4), "sigmoid")
SMOOTH = ["sigmoid", "tanh", "softplus", "linear"]
UNITS = {
    "bernoulli": Bernoulli(),
    "gaussian": Gaussian(constant=1.5),
    "multinomial": Multinomial(),
    "mixed": Mixed(
        [
            (Bernoulli(), torch.tensor([4, 0])),
            (Multinomial(), torch.tensor([5, 1, 3])),
            (Gaussian(constant=0.5), torch.tensor([2])),
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


@pytest.mark.parametrize("activation", SMOOTH)
@pytest.mark.parametrize("depth", [*DEPTHS, "linear"])
def test_reconstruction_contraction_matches_autograd(depth, activation, random_theta, x):
    if depth == "linear":
        network = Network(DEPTHS[3], activation, tied=False, linear=True)
    else:
        # Each depth and activation is tied and untied in turn.
        tied = (depth + SMOOTH.index(activation)) % 2 == 0
        network = Network(DEPTHS[depth], activation, tied)
    theta = random_theta(network)
    for units in UNITS.values():

        def reconstruct(x, units=units):
            return units.mean(decode(theta, encode(theta, x, network)[-1], network)[1])

        rows = (torch.autograd.functional.jacobian(reconstruct, row.unsqueeze(0)) for row in x)
        expected = torch.stack([jacobian.square().sum() for jacobian in rows])

        hidden = encode(theta, x, network)
        decoded, output = decode(theta, hidden[-1], network)
        for row, squared_norm in enumerate(expected):
            weight = torch.zeros(len(x), dtype=x.dtype)
            weight[row] = len(x)
            forward = Forward(network, units, x, weight, None, hidden, decoded, output)
            value = ReconstructionContraction(1.0).value(theta, forward)
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


def layered(theta, x, network):
    return LayeredJacobian(*encoder_layers(theta, encode(theta, x, network), network))


def code_of(theta, network):
    return lambda rows: encode(theta, rows, network)[-1]


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("depth", DEPTHS)
def test_layered_jacobian_is_the_derivative(depth, activation, random_theta, x):
    network = Network(DEPTHS[depth], activation)
    theta = random_theta(network)
    jacobian, code = layered(theta, x, network), code_of(theta, network)
    dense = jacobian.dense()
    # The chain rule, by torch's own reverse mode.
    expected = vmap(jacrev(lambda row: code(row.unsqueeze(0)).squeeze(0)))(x)
    torch.testing.assert_close(dense, expected)

    step = 1e-5 * torch.eye(N_FEATURES, dtype=x.dtype)
    differences = [(code(x + e) - code(x - e)) / 2e-5 for e in step]
    # The definition of a derivative; the error of central differences is of order 1e-10.
    torch.testing.assert_close(dense, torch.stack(differences, 2), rtol=0, atol=1e-8)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("kind", ["layered", "differentiated"])
def test_products_are_those_with_the_matrix(kind, depth, activation, random_theta, x, generator):
    network = Network(DEPTHS[depth], activation)
    theta = random_theta(network)
    closed_form = layered(theta, x, network)
    jacobian = closed_form
    if kind == "differentiated":
        jacobian = DifferentiatedJacobian(code_of(theta, network), x)
    n_rows, n_in, n_out = len(x), N_FEATURES, DEPTHS[depth][-1]
    u = torch.randn(n_rows, 3, n_in, dtype=x.dtype, generator=generator)
    v = torch.randn(n_rows, 2, n_out, dtype=x.dtype, generator=generator)
    matrix = closed_form.dense()
    # Sizes are those of the function.
    assert (jacobian.n_rows, jacobian.n_out, jacobian.n_in) == (n_rows, n_out, n_in)
    # Both ways to the Jacobian give the same matrix,
    torch.testing.assert_close(jacobian.dense(), matrix)
    # whose products with u,
    torch.testing.assert_close(jacobian.times(u), torch.einsum("roi,rmi->rmo", matrix, u))
    # (one set of directions for all rows included),
    shared = torch.einsum("roi,mi->rmo", matrix, u[0])
    torch.testing.assert_close(jacobian.times(u[:1]), shared)
    # of its transpose with v,
    transposed = torch.einsum("roi,rmo->rmi", matrix, v)
    torch.testing.assert_close(jacobian.transposed_times(v), transposed)
    # and of both in turn with v, are what a matrix product gives,
    gram = torch.einsum("roi,rmi->rmo", matrix, transposed)
    torch.testing.assert_close(jacobian.gram_times(v), gram)
    # and |J|_F^2 is the sum of its squared entries.
    torch.testing.assert_close(jacobian.squared_norm(), matrix.square().sum((1, 2)))
    # A selection of rows is the Jacobian at these rows.
    index = torch.tensor([4, 1])
    torch.testing.assert_close(jacobian.rows(index).dense(), matrix[index])


@pytest.mark.parametrize("n_hidden", [4, 9])
def test_products_with_a_linear_output(n_hidden, generator):
    slope = torch.rand(3, n_hidden, dtype=torch.float64, generator=generator)
    weights = [
        torch.randn(shape, dtype=torch.float64, generator=generator)
        for shape in ((n_hidden, 4), (2, n_hidden))
    ]
    jacobian = LayeredJacobian([slope, None], weights)
    v = torch.randn(3, 5, 2, dtype=torch.float64, generator=generator)
    matrix = weights[1] @ (slope.unsqueeze(2) * weights[0])
    # None is slope 1, in every product, whether or not there are more units than inputs.
    torch.testing.assert_close(jacobian.dense(), matrix)
    torch.testing.assert_close(jacobian.transposed_times(v), v @ matrix)
    torch.testing.assert_close(jacobian.gram_times(v), v @ matrix @ matrix.mT)
    # The same numbers in float64, where they were float32.
    single = LayeredJacobian([slope.float(), None], [weight.float() for weight in weights])
    torch.testing.assert_close(single.double().dense(), matrix, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_function_is_differentiated_where_gradients_are_off(mode, random_theta, x):
    theta = random_theta(SHALLOW)
    with mode():
        jacobian = DifferentiatedJacobian(code_of(theta, SHALLOW), x + 0)
        eye = torch.eye(N_FEATURES, dtype=x.dtype).expand(len(x), -1, -1)
        products = jacobian.times(eye), jacobian.transposed_times(eye[:, :4, :4])
    expected = layered(theta, x, SHALLOW).dense()
    # A diagnostic may be called from code that switched autograd off for its own tensors.
    torch.testing.assert_close(products[0].mT, expected)
    torch.testing.assert_close(products[1], expected)


@pytest.mark.parametrize(("slopes", "n_weights"), [([None], 1), ([1], 2), ([1, 1, 1], 2)])
def test_slopes_and_weights_have_to_match(slopes, n_weights):
    slopes = [None if slope is None else torch.ones(2, 3) for slope in slopes]
    # One slope for each layer; alone, it also says how many rows there are.
    with pytest.raises(ValueError, match="one slope for each weight"):
        LayeredJacobian(slopes, [torch.eye(3)] * n_weights)


def test_average_of_one_layer_is_the_mean_of_the_squares(random_theta, x):
    jacobian = layered(random_theta(SHALLOW), x, SHALLOW)
    matrix = jacobian.dense()
    mean = (matrix.mT @ matrix).mean(0, keepdim=True)
    average = jacobian.average()
    # sum_j W_j W_j^T slope_j^2 is linear in the squared slopes.
    torch.testing.assert_close(average.dense().mT @ average.dense(), mean)
    # A linear output stays linear.
    two_layers = LayeredJacobian([*jacobian.slopes, None], [*jacobian.weights, torch.eye(4)])
    assert two_layers.average().slopes[1] is None


def test_units_that_are_no_elementwise_function(random_theta, generator):
    # A one-hot variable of three columns, a binary and a real one.
    units = Mixed(
        [(Multinomial(), slice(0, 3)), (Bernoulli(), slice(3, 4)), (Gaussian(), slice(4, 5))]
    )
    network = Network((5, 4), "tanh")
    theta = random_theta(network)
    x = torch.randn(6, 5, dtype=torch.float64, generator=generator)
    maps = [step for chain in affine_chains(network) for step in chain]
    output, inner = linearized(theta, x, maps)
    jacobian = OutputJacobian(inner, units, output)

    def mean(x):
        return units.mean(linearized(theta, x, maps)[0])

    other = DifferentiatedJacobian(mean, x)
    vectors = torch.randn(6, 2, 5, dtype=torch.float64, generator=generator)
    assert_close(jacobian.dense(), other.dense())
    assert_close(jacobian.times(vectors), other.times(vectors))
    assert_close(jacobian.transposed_times(vectors), other.transposed_times(vectors))
    assert_close(jacobian.gram_times(vectors), other.gram_times(vectors))
    assert_close(jacobian.squared_norm(), other.squared_norm())
    assert_close(jacobian.rows(slice(2)).dense(), other.dense()[:2])
    assert (jacobian.n_rows, jacobian.n_out, jacobian.n_in) == (6, 5, 5)
    assert jacobian.like.dtype == torch.float64
