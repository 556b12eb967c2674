"""What was not observed has no loss, and its column's fill as input."""

import math

import pytest
import torch

from skae.engine.networks.corruptions import GaussianNoise, Masking, Swap
from skae.engine.networks.gaps import observed
from skae.engine.networks.layers import Network
from skae.engine.networks.mixed import Mixed
from skae.engine.networks.objectives import Emphasis, Reconstruction
from skae.engine.networks.penalties import CodeL1, Contraction, HessianContraction, WeightDecay
from skae.engine.networks.units import Bernoulli, Gaussian, Multinomial, OneHotGroups
from skae.engine.optimisation.parameters import Parameters

N_ROWS, N_FEATURES = 11, 8
SCALE = torch.tensor([0.5, 3.0], dtype=torch.float64)
# Columns 0 and 1 are Gaussian, 2 Bernoulli, 3 to 5 and 6 to 7 one-hot.
MIXED = Mixed(
    [
        (Gaussian.of_columns(SCALE), slice(0, 2)),
        (Bernoulli(), torch.tensor([2])),
        (OneHotGroups([3, 2]), torch.tensor([3, 4, 5, 6, 7])),
    ]
)
GAUSSIAN = Gaussian.of_columns(torch.linspace(0.5, 4, N_FEATURES, dtype=torch.float64))
FILL = torch.tensor([0.1, -0.2, 0.4, 0, 0, 0, 0, 0], dtype=torch.float64)
PENALTIES = [CodeL1(0.2), Contraction(0.3), WeightDecay(0.1), HessianContraction(0.2, 0.3, 2)]
CORRUPTIONS = {
    "none": (None, None),
    "masking": (Masking(0.4), None),
    "emphasis": (Masking(0.4), Emphasis(1.6, 0.3)),
    "swap": (Swap(0.4), Emphasis(1.0, 0.2)),
    "gaussian": (GaussianNoise(0.3), None),
}


@pytest.fixture(name="x")
def rows_with_gaps(generator):
    x = torch.rand(N_ROWS, N_FEATURES, dtype=torch.float64, generator=generator)
    for group in (slice(3, 6), slice(6, 8)):
        chosen = x[:, group].argmax(1, keepdim=True)
        x[:, group] = torch.zeros_like(x[:, group]).scatter_(1, chosen, 1.0)
    gaps = torch.rand(N_ROWS, 5, generator=generator) < 0.3
    gaps[4] = True  # a row of which nothing is known
    of_variable = torch.tensor([0, 1, 2, 3, 3, 3, 4, 4])
    return x.masked_fill(gaps[:, of_variable], math.nan)


def make_objective(units, corruption="none", penalties=(), layer_sizes=(N_FEATURES, 4)):
    network = Network(layer_sizes, "sigmoid", True)
    objective = Reconstruction(network, units, *CORRUPTIONS[corruption], penalties, FILL)
    objective.has_gaps = True
    return objective


def seeded():
    return torch.Generator().manual_seed(11)


def test_rows_without_gaps_are_handed_on():
    x = torch.rand(3, 2)
    assert observed(x, torch.zeros(2)) == (x, None)
    for endless in (torch.tensor([[math.inf, -math.inf]]), torch.tensor([[1e38, 3e38, 3e38]])):
        assert observed(endless) == (endless, None)
    filled, mask = observed(torch.tensor([[math.nan, 2.0]]), torch.tensor([5.0, 6.0]))
    assert filled.tolist() == [[5.0, 2.0]]
    assert mask.tolist() == [[False, True]]


@pytest.mark.parametrize("units", [GAUSSIAN, MIXED], ids=["gaussian", "mixed"])
def test_the_loss_is_that_of_the_observed_columns_alone(units, x, random_theta):
    objective = make_objective(units)
    theta = random_theta(objective.network)
    filled = torch.where(torch.isnan(x), FILL, x)
    code = torch.sigmoid(filled @ theta["weight_0"].t() + theta["hidden_bias_0"])
    a = code @ theta["weight_0"] + theta["visible_bias_0"]
    expected = 0.0
    scale = torch.linspace(0.5, 4, N_FEATURES, dtype=torch.float64)
    for i in range(N_ROWS):
        for j in range(N_FEATURES if units is GAUSSIAN else 2):
            if not torch.isnan(x[i, j]):
                density = torch.distributions.Normal(a[i, j], 1.0).log_prob(x[i, j])
                expected -= density - (scale if units is GAUSSIAN else SCALE)[j].log()
        if units is MIXED:
            if not torch.isnan(x[i, 2]):
                expected -= x[i, 2] * torch.sigmoid(a[i, 2]).log()
                expected -= (1 - x[i, 2]) * torch.sigmoid(-a[i, 2]).log()
            for group in (slice(3, 6), slice(6, 8)):
                if not torch.isnan(x[i, group]).any():
                    expected -= torch.log_softmax(a[i, group], 0)[x[i, group].argmax()]
    value = objective.value(theta, x, seeded())
    torch.testing.assert_close(value, expected / N_ROWS)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("penalties", [(), PENALTIES], ids=["plain", "penalties"])
@pytest.mark.parametrize("corruption", CORRUPTIONS)
@pytest.mark.parametrize("units", [GAUSSIAN, MIXED], ids=["gaussian", "mixed"])
def test_closed_form_matches_autograd(units, corruption, penalties, weighted, x, random_theta):
    objective = make_objective(units, corruption, penalties)
    theta = random_theta(objective.network)
    weight = torch.linspace(0.2, 1.8, N_ROWS, dtype=torch.float64) if weighted else None
    flat = theta.flat.clone().requires_grad_()
    expected = objective.value(Parameters(theta.shapes, flat), x, seeded(), weight)
    (gradient,) = torch.autograd.grad(expected, flat)
    out = theta.empty_like()
    value = objective.gradient(theta, x, seeded(), out, weight)
    torch.testing.assert_close(value, expected.detach())
    torch.testing.assert_close(out.flat, gradient)
    assert objective.has_closed_form


@pytest.mark.parametrize("penalties", [[], [WeightDecay(0.1)]], ids=["plain", "penalties"])
def test_several_layers(penalties, x, random_theta):
    objective = make_objective(MIXED, "swap", penalties, (N_FEATURES, 5, 3))
    theta = random_theta(objective.network)
    flat = theta.flat.clone().requires_grad_()
    expected = objective.value(Parameters(theta.shapes, flat), x, seeded())
    (gradient,) = torch.autograd.grad(expected, flat)
    out = theta.empty_like()
    value = objective.gradient(theta, x, seeded(), out)
    torch.testing.assert_close(value, expected.detach())
    torch.testing.assert_close(out.flat, gradient)


def test_what_stands_in_a_gap_does_not_matter_to_the_loss(x, random_theta):
    objective = make_objective(MIXED)
    theta = random_theta(objective.network)
    theta["weight_0"].zero_()  # the code knows nothing of the input
    value = objective.value(theta, x, seeded())
    objective.fill = FILL + 100
    torch.testing.assert_close(objective.value(theta, x, seeded()), value)


@pytest.mark.parametrize("corruption", ["masking", "gaussian", "swap"])
def test_gaps_are_not_corrupted(corruption, x):
    objective = make_objective(MIXED, corruption)
    filled, mask = observed(x, FILL)
    noisy, _ = objective._corrupt(filled, mask, seeded())
    assert torch.equal(noisy[~mask], filled[~mask])
    assert not torch.equal(noisy[mask], filled[mask])


def test_a_multinomial_of_gaps_is_one_of_zeros(x, random_theta):
    objective = make_objective(MIXED)
    theta = random_theta(objective.network)
    zeros = x.clone()
    zeros[:, 3:] = zeros[:, 3:].nan_to_num(0.0)
    # Both say: not observed.
    torch.testing.assert_close(
        objective.value(theta, x, seeded()), objective.value(theta, zeros, seeded())
    )


def test_one_multinomial():
    units = Multinomial()
    a, x = torch.randn(4, 3), torch.eye(3)[[0, 1, 2, 0]]
    x[3] = 0
    losses = units.negative_log_likelihood(a, x)
    assert losses[3] == 0
    _, residual = units.value_and_residual_(a, x)
    assert not residual[3].any()
