"""Encoders, decoders, activations, initial weights."""

import math

import pytest
import torch

from skae.engine.networks.activations import ACTIVATIONS
from skae.engine.networks.layers import Network, decode, encode, initialize_
from skae.engine.optimisation.parameters import Parameters


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_slope_and_curvature_are_the_derivatives(name, generator):
    activation = ACTIVATIONS[name]
    p = torch.randn(200, dtype=torch.float64, generator=generator).mul_(2).requires_grad_()
    h = activation.function(p)
    (slope,) = torch.autograd.grad(h.sum(), p, create_graph=True)
    # ``slope`` is s'(p), written as a function of h = s(p).
    torch.testing.assert_close(activation.slope(h), slope)
    curvature = torch.zeros_like(p)
    if slope.requires_grad:
        (curvature,) = torch.autograd.grad(
            slope.sum(), p, allow_unused=True, materialize_grads=True
        )
    # ``curvature`` is s''(p).
    torch.testing.assert_close(activation.curvature(h, slope), curvature)
    # ... and linear in its second argument, so that factors may be passed through it.
    torch.testing.assert_close(activation.curvature(h, 3 * h * slope), 3 * h * curvature)


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "softplus"])
def test_slope_is_differentiable_through_the_output(name, generator):
    activation = ACTIVATIONS[name]
    p = torch.randn(50, dtype=torch.float64, generator=generator).requires_grad_()
    h = activation.function(p)
    slope = activation.slope(h)
    (derivative,) = torch.autograd.grad(slope.sum(), p)
    # d s'(p) / dp = s''(p): deep contractions take autograd through these lines.
    torch.testing.assert_close(derivative, activation.curvature(h, slope).detach())


@pytest.mark.parametrize("tied", [True, False])
def test_two_layers_compute_the_documented_formula(tied, random_theta, generator):
    network = Network((5, 4, 3), "tanh", tied)
    theta = random_theta(network)
    x = torch.randn(6, 5, dtype=torch.float64, generator=generator)
    hidden = encode(theta, x, network)
    h_1 = torch.tanh(x @ theta["weight_0"].T + theta["hidden_bias_0"])
    h_2 = torch.tanh(h_1 @ theta["weight_1"].T + theta["hidden_bias_1"])
    # h_{l+1} = s(h_l W_l^T + b_l), every layer kept.
    torch.testing.assert_close(hidden, [h_1, h_2])

    decoded, output = decode(theta, h_2, network)
    prefix = "weight" if tied else "decoder_weight"
    g_1 = torch.tanh(h_2 @ theta[f"{prefix}_1"] + theta["visible_bias_1"])
    # g_l = s(g_{l+1} V_l + c_l) for the inner layers ...
    torch.testing.assert_close(decoded, [g_1])
    # ... and no activation on the output: its meaning is up to the units.
    torch.testing.assert_close(output, g_1 @ theta[f"{prefix}_0"] + theta["visible_bias_0"])


def test_a_linear_decoder_is_one_affine_map(random_theta, generator):
    network = Network((5, 4, 3), "tanh", tied=False, linear=True)
    theta = random_theta(network)
    code = torch.randn(6, 3, dtype=torch.float64, generator=generator)
    decoded, output = decode(theta, code, network)
    # a = h V + c, whatever lies below the code; and there is nothing else to decode with.
    torch.testing.assert_close(output, code @ theta["decoder_weight_0"] + theta["visible_bias_0"])
    assert decoded == []
    assert network.parameter_shapes == {
        "weight_0": (4, 5),
        "decoder_weight_0": (3, 5),
        "visible_bias_0": (5,),
        "hidden_bias_0": (4,),
        "weight_1": (3, 4),
        "hidden_bias_1": (3,),
    }
    with pytest.raises(ValueError, match="weights of its own"):
        Network((5, 4, 3), tied=True, linear=True)


@pytest.mark.parametrize("tied", [True, False])
def test_a_linear_decoder_of_one_layer_is_the_mirrored_one(tied):
    shapes = Network((5, 4), tied=tied).parameter_shapes
    # One layer has one affine map to its output anyway, which may be tied.
    assert Network((5, 4), tied=tied, linear=True).parameter_shapes == shapes


@pytest.mark.parametrize("tied", [True, False])
def test_parameters_of_a_network(tied):
    network = Network((5, 4, 3), "sigmoid", tied)
    shapes = network.parameter_shapes
    n_weights, n_biases = 5 * 4 + 4 * 3, (4 + 3) + (4 + 5)
    # Tying shares the weight matrices between encoder and decoder, and no biases.
    expected = (1 if tied else 2) * n_weights + n_biases
    assert sum(math.prod(shape) for shape in shapes.values()) == expected
    assert network.depth == 2


@pytest.mark.parametrize("tied", [True, False])
def test_weight_matrices_lists_each_matrix_once(tied, random_theta):
    network = Network((5, 4, 3), "sigmoid", tied)
    theta = random_theta(network)
    matrices = network.weight_matrices(theta)
    # Weight decay sums over these: two per level if untied, else one, and never a bias.
    assert len(matrices) == (2 if tied else 4)
    assert len({m.data_ptr() for m in matrices}) == len(matrices)
    assert all(m.dim() == 2 for m in matrices)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_initial_weights_are_uniform_in_glorots_bound(activation, generator):
    network = Network((60, 40), activation, tied=False)
    bias = torch.linspace(-1, 1, 60, dtype=torch.float64)
    theta = Parameters(network.parameter_shapes, dtype=torch.float64)
    initialize_(theta, network, bias, generator)
    bound = network.nonlinearity.gain * math.sqrt(6 / 100)
    for name in ("weight_0", "decoder_weight_0"):
        weight = theta[name]
        # Uniform in +-bound: nothing beyond it, and 2400 draws come close to it.
        assert 0.98 * bound < weight.abs().max() <= bound
        # Its variance is bound^2 / 3; the relative standard error is sqrt(0.8 / n).
        error = weight.var() / (bound**2 / 3) - 1
        assert abs(error) < 4.5 * math.sqrt(0.8 / weight.numel())
    # Hidden biases start at zero, the output's bias where it was asked to.
    assert not theta["hidden_bias_0"].any()
    assert torch.equal(theta["visible_bias_0"], bias)
    # Encoder and decoder weights are separate draws.
    assert not torch.equal(theta["weight_0"], theta["decoder_weight_0"])


def test_initial_weights_are_determined_by_the_generator():
    network = Network((6, 5, 4))
    first, second = (Parameters(network.parameter_shapes) for _ in range(2))
    for theta in (first, second):
        theta.flat.fill_(torch.nan)
        initialize_(theta, network, torch.zeros(6), torch.Generator().manual_seed(3))
    # The same seed gives the same weights, bit for bit; inner biases are never left unset.
    assert torch.equal(first.flat, second.flat)
