"""Penalties against their formulae; their closed-form gradients are in test_objectives."""

import math

import pytest
import torch
from torch.func import jacrev, vmap

from skae.engine.networks.forward import Forward
from skae.engine.networks.layers import Network, decode, encode
from skae.engine.networks.penalties import (
    CodeKL,
    CodeL1,
    Contraction,
    HessianContraction,
    ReconstructionContraction,
    WeightDecay,
    encoder_layers,
)
from skae.engine.networks.pulled_back import directions_of, pulled_squared_norm
from skae.engine.networks.units import Bernoulli

SHALLOW, DEEP = Network((6, 4), "sigmoid", False), Network((6, 5, 3), "tanh", False)


@pytest.fixture
def x(generator):
    return torch.randn(8, 6, dtype=torch.float64, generator=generator)


def run(theta, x, network, row_weight=None, generator=None):
    hidden = encode(theta, x, network)
    decoded, output = decode(theta, hidden[-1], network)
    return Forward(network, Bernoulli(), x, row_weight, generator, hidden, decoded, output)


def encoder_jacobians(theta, x, network):
    return vmap(jacrev(lambda row: encode(theta, row.unsqueeze(0), network)[-1].squeeze(0)))(x)


@pytest.mark.parametrize("network", [SHALLOW, DEEP])
def test_weight_decay_leaves_biases_free(network, random_theta, x):
    theta = random_theta(network)
    penalty = WeightDecay(1.0)
    expected = sum(theta[name].square().sum() for name in theta if "bias" not in name)
    # Half the sum of all squared weights, those of the decoder included.
    value = penalty.value(theta, run(theta, x, network))
    torch.testing.assert_close(value, 0.5 * expected)


@pytest.mark.parametrize("network", [SHALLOW, DEEP])
def test_l1_is_the_mean_norm_of_the_code(network, random_theta, x):
    theta = random_theta(network)
    forward = run(theta, x, network)
    # (1 / n) sum_i |h_i|_1, negative codes included.
    torch.testing.assert_close(CodeL1(1.0).value(theta, forward), forward.code.abs().sum() / len(x))


def test_kl_sparsity_is_a_divergence(random_theta, x):
    theta = random_theta(SHALLOW)
    forward = run(theta, x, SHALLOW)
    activity = forward.code.mean(0)
    target = torch.full_like(activity, 0.1)
    expected = torch.distributions.kl_divergence(
        torch.distributions.Bernoulli(target), torch.distributions.Bernoulli(activity)
    ).sum()
    # sum_j KL(Bernoulli(target) || Bernoulli(activity_j)), by torch's own formula.
    torch.testing.assert_close(CodeKL(1.0, 0.1).value(theta, forward), expected)

    theta["weight_0"].zero_()
    theta["hidden_bias_0"].fill_(math.log(0.1 / 0.9))
    # With every activity at its target, a divergence is zero.
    value = CodeKL(1.0, 0.1).value(theta, run(theta, x, SHALLOW))
    torch.testing.assert_close(value, torch.zeros_like(value), atol=1e-14, rtol=0)


def test_kl_sparsity_is_finite_for_saturated_units(random_theta, x):
    theta = random_theta(SHALLOW)
    for bias in (800.0, -800.0):
        theta["hidden_bias_0"].fill_(bias)
        # Activities of exactly 0 or 1 would have infinite divergence; they are kept off the ends.
        assert torch.isfinite(CodeKL(1.0, 0.05).value(theta, run(theta, x, SHALLOW)))


def test_kl_sparsity_of_a_heavy_batch_is_that_of_its_rows(random_theta, x):
    theta, penalty = random_theta(SHALLOW), CodeKL(1.0, 0.1)
    heavy = torch.full((len(x),), 3.0, dtype=x.dtype)
    # Weights have mean 1 over the training set, not over each batch; an activity is a fraction
    # of the time, so that rows which all weigh 3 have the activity of rows which all weigh 1.
    torch.testing.assert_close(
        penalty.value(theta, run(theta, x, SHALLOW, heavy)),
        penalty.value(theta, run(theta, x, SHALLOW)),
    )


@pytest.mark.parametrize("network", [SHALLOW, DEEP])
def test_contraction_is_a_mean_over_rows_of_a_sum_over_entries(network, random_theta, x):
    theta = random_theta(network)
    expected = encoder_jacobians(theta, x, network).square().sum((1, 2)).mean()
    # Frobenius norms are sums over entries, averaged over rows (not over entries).
    value = Contraction(1.0).value(theta, run(theta, x, network))
    torch.testing.assert_close(value, expected)


def test_contraction_of_sigmoid_codes_is_the_published_formula(random_theta, x):
    theta = random_theta(SHALLOW)
    forward = run(theta, x, SHALLOW)
    h, norms = forward.code, theta["weight_0"].square().sum(1)
    # Rifai et al. 2011: |J|_F^2 = sum_j (h_j (1 - h_j))^2 sum_i W_ji^2.
    expected = (((h * (1 - h)) ** 2) @ norms).mean()
    torch.testing.assert_close(Contraction(1.0).value(theta, forward), expected)


@pytest.mark.parametrize("layer_sizes", [(6, 4), (6, 5, 3)])
def test_hessian_contraction_of_a_linear_encoder_is_zero(layer_sizes, random_theta, x, generator):
    network = Network(layer_sizes, "linear")
    theta = random_theta(network)
    forward = run(theta, x, network, generator=generator)
    # A linear map has the same Jacobian everywhere.
    assert float(HessianContraction(1.0, 0.5, 2).value(theta, forward)) == 0.0


@pytest.mark.parametrize("network", [SHALLOW, DEEP])
def test_hessian_contraction_is_the_mean_change_of_the_jacobian(network, random_theta, x):
    theta, noise, n_samples = random_theta(network), 0.3, 3
    forward = run(theta, x, network, generator=torch.Generator().manual_seed(1))
    value = HessianContraction(1.0, noise, n_samples).value(theta, forward)

    same = torch.Generator().manual_seed(1)
    here, total = encoder_jacobians(theta, x, network), 0.0
    for _ in range(n_samples):
        neighbour = x + noise * torch.empty_like(x).normal_(generator=same)
        change = here - encoder_jacobians(theta, neighbour, network)
        total += change.square().sum((1, 2)).mean()
    # Mean over eps and rows of |J(x) - J(x + eps)|_F^2.
    torch.testing.assert_close(value, total / n_samples)


@pytest.mark.parametrize("sizes", [(1, 4), (1, 3, 2)])
def test_hessian_contraction_tends_to_the_second_derivative(sizes, random_theta, generator):
    network, noise, n_samples = Network(sizes, "tanh"), 1e-4, 2000
    theta = random_theta(network)
    x = torch.tensor([[0.4]], dtype=torch.float64)
    forward = run(theta, x, network, generator=generator)
    value = HessianContraction(1.0, noise, n_samples).value(theta, forward)
    second = jacrev(jacrev(lambda row: encode(theta, row, network)[-1]))(x)
    # For one input, |J(x) - J(x + eps)|^2 = eps^2 |h''|^2 + o(eps^2); the mean of n
    # eps^2 / noise^2 is 1 with standard error sqrt(2 / n).
    ratio = float(value / (noise**2 * second.square().sum()))
    assert abs(ratio - 1) < 4.5 * math.sqrt(2 / n_samples)


@pytest.mark.parametrize("kind", [Contraction, ReconstructionContraction])
def test_random_directions_estimate_the_norm(kind, random_theta, x, generator):
    theta, n_copies, m = random_theta(DEEP), 400, 2
    exact = kind(1.0).value(theta, run(theta, x, DEEP))
    many = x.repeat(n_copies, 1)
    estimate = kind(1.0, m).value(theta, run(theta, many, DEEP, generator=generator))
    # A row's estimate has a standard error of sqrt(2 / m) of its norm at most, and the mean over
    # n_copies of it 1 / sqrt(n_copies) of that; so has, at most, the mean over several rows.
    bound = math.sqrt(2 / m / n_copies)
    assert 0 < abs(float(estimate / exact) - 1) < 4.5 * bound
    # As many directions as there are outputs: the norm itself, without noise.
    n_out = 6 if kind is ReconstructionContraction else 3
    whole = kind(1.0, n_out).value(theta, run(theta, x, DEEP))
    torch.testing.assert_close(whole, exact)


def test_the_error_of_random_directions_is_as_stated(random_theta, x, generator):
    theta, m, n_draws = random_theta(DEEP), 2, 4000
    jacobian = encoder_jacobians(theta, x[:1], DEEP)[0]
    gram = jacobian @ jacobian.t()
    slopes, weights = encoder_layers(theta, encode(theta, x[:1], DEEP), DEEP)
    slopes = [slope.expand(n_draws, -1) for slope in slopes]
    code = x.new_empty(n_draws, len(gram))
    estimates = pulled_squared_norm(slopes, weights, directions_of(code, m, generator))
    # The variance of the mean of m estimates, of independent signs: 2 / m sum_j!=k (J J^T)_jk^2.
    expected = 2 / m * float((gram - gram.diag().diag()).square().sum())
    assert expected <= 2 / m * float(gram.trace()) ** 2
    assert abs(float(estimates.var()) / expected - 1) < 0.2
    assert abs(float(estimates.mean()) - float(gram.trace())) < 4.5 * (expected / n_draws) ** 0.5


PENALTIES = {
    "l1": CodeL1(1.0),
    "contraction": Contraction(1.0),
    "reconstruction": ReconstructionContraction(1.0),
}


@pytest.mark.parametrize(
    ("name", "network"),
    [("kl", SHALLOW), *((name, network) for name in PENALTIES for network in (SHALLOW, DEEP))],
)
def test_row_weights_count_rows(name, network, random_theta, x):
    theta = random_theta(network)
    penalty = CodeKL(1.0, 0.1) if name == "kl" else PENALTIES[name]
    counts = torch.tensor([1, 2, 0, 1, 3, 1, 0, 2])
    repeated = penalty.value(theta, run(theta, x.repeat_interleave(counts, 0), network))
    weight = counts.double() * len(x) / counts.sum()
    # Weights of mean 1 proportional to counts are a mean over the repeated rows.
    torch.testing.assert_close(penalty.value(theta, run(theta, x, network, weight)), repeated)
