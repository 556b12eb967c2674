"""Predictors of codes: their formulas, their derivatives, and what is folded into weights."""

import pytest
import torch

from skae.engine.sparse.linear_maps import Convolution, Dense
from skae.engine.sparse.predictive import PREDICTORS, Shrinkage, SmoothShrinkage

MAPS = {
    "dense": Dense(12, 7),
    "convolution": Convolution((4, 3, 1), (2, 2), 3, padding="same"),
    "tiles": Convolution((4, 3, 1), (2, 2), 3, padding="full", period=2),
}
each_predictor = pytest.mark.parametrize("activation", PREDICTORS)


def draw(*shape, generator):
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def random_parameters(activation, n, generator):
    """Gains of both signs, thresholds of at least 0, one of them 0."""
    parameters = {name: draw(n, generator=generator) for name in PREDICTORS[activation].names}
    if "threshold" in parameters:
        parameters["threshold"].abs_()[0] = 0.0
    parameters["gain"].abs_()[::2].neg_()
    return list(parameters.values())


@each_predictor
def test_derivatives_are_those_of_the_function(activation, generator):
    predictor, u = PREDICTORS[activation], 2 * draw(50, 9, generator=generator)
    parameters = random_parameters(activation, 9, generator)
    tracked = [value.expand(50, 9).clone().requires_grad_() for value in (u, *parameters)]
    expected = torch.autograd.grad(predictor.function(*tracked).sum(), tracked)
    slope, slopes = predictor.derivatives(u, *parameters)
    for closed, by_autograd in zip((slope, *slopes), expected, strict=True):
        # Code by code, the closed form against autograd.
        torch.testing.assert_close(closed.expand(50, 9), by_autograd)


@each_predictor
@pytest.mark.parametrize("name", MAPS)
def test_codes_in_few_passes_are_the_formula(activation, name, generator):
    linear_map, predictor = MAPS[name], PREDICTORS[activation]
    weight = draw(*linear_map.filters_shape, generator=generator)
    x = draw(20, linear_map.n_features, generator=generator)
    parameters = random_parameters(activation, len(weight), generator)
    u = linear_map.analyze(weight, x)
    expected = predictor.function(u, *[linear_map.spread(values) for values in parameters])
    given = [values.clone() for values in (weight, x, *parameters)]
    codes = predictor.encode(linear_map, *given)
    # Gains of either sign may go into weights, biases and thresholds: s(-p) = -s(p).
    torch.testing.assert_close(codes, expected)
    # What was handed in belongs to the caller.
    for values, original in zip(given, (weight, x, *parameters), strict=True):
        assert torch.equal(values, original)


def test_shrinkage_is_the_soft_threshold(generator):
    u = 2 * draw(50, 9, generator=generator)
    bias, gain, t = random_parameters("shrinkage", 9, generator)
    pre = u + bias
    # The proximal operator of t |h|, unit by unit, written by cases.
    cases = torch.where(pre > t, pre - t, torch.where(pre < -t, pre + t, 0.0))
    codes = Shrinkage.function(u, bias, gain, t)
    torch.testing.assert_close(codes, gain * cases)
    # What is below the threshold is 0 to the last bit.
    assert (codes[pre.abs() <= t] == 0).all()


@each_predictor
def test_start_is_odd_and_does_not_exceed_its_product(activation):
    names = PREDICTORS[activation].names
    theta = {name: torch.empty(1, dtype=torch.float64) for name in names}
    PREDICTORS[activation].start(theta, 0.3)
    u = torch.linspace(-5, 5, 101, dtype=torch.float64)
    codes = PREDICTORS[activation].function(u, *theta.values())
    # No side is preferred before there are data ...
    torch.testing.assert_close(codes, -codes.flip(0))
    # ... and codes are at most what a step of inference could make of the products.
    assert (codes.abs() <= u.abs() + 1e-12).all()
    assert (codes * u >= 0).all()
    assert codes[-1] > 0


def test_smooth_shrinkage_is_nearly_a_soft_threshold():
    u = torch.linspace(-5, 5, 101, dtype=torch.float64)
    bias, gain, zero = torch.tensor(1.0).double(), torch.tensor(2.0).double(), torch.zeros(1)
    sharp = SmoothShrinkage.function(u, bias, gain, torch.tensor(7.0).double())
    # A sharp bend is the soft threshold at b ...
    expected = 2 * torch.nn.functional.softshrink(u, 1.0)
    torch.testing.assert_close(sharp, expected, atol=0.01, rtol=0)
    # ... and any bend is odd, with 0 at 0 ...
    blunt = SmoothShrinkage.function(u, bias, gain, zero.double())
    torch.testing.assert_close(blunt, -blunt.flip(0))
    assert blunt[50] == 0
    # ... and lies between threshold and identity.
    assert (blunt[51:] > expected[51:]).all()
    assert (blunt[51:] < 2 * u[51:]).all()
    # Large products do not overflow.
    huge = SmoothShrinkage.function(torch.tensor([1e4]).double(), bias, gain, zero.double())
    torch.testing.assert_close(huge, torch.tensor([2 * (1e4 - 1)]).double())
