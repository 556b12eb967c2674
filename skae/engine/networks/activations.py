"""Activations: elementwise non-linearities with their derivatives, by name."""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch.nn import functional

from skae.engine.optimisation.parameters import Registry


def softplus(p):
    """log(1 + exp(p)); torch's own turns linear at 20, where 2e-9 is still missing."""
    return functional.softplus(p, threshold=80.0)


class Activation(NamedTuple):
    """An elementwise non-linearity h = s(p), with derivatives as functions of h.

    ``slope(h)`` is s'(p) and ``curvature(h, slope)`` is s''(p), which is linear in its second
    argument: ``curvature(h, slope * v)`` is s''(p) v. Both are differentiable in h, so the same
    lines serve autograd and the closed forms. ``function_`` works in place where torch can.
    ``gain`` scales the initial weights of one layer, ``deep_gain`` those of several. Outputs lie in
    ``range``. Users choose it by its ``name``. ``antiderivative`` is S(p), S' = s, which energies
    are made of; None where it has no closed form.
    """

    name: str
    summary: str
    function: Callable
    function_: Callable
    slope: Callable
    curvature: Callable
    gain: float = 1.0
    deep_gain: float = 1.0
    range: tuple[float, float] = (-math.inf, math.inf)
    antiderivative: Callable | None = None


# The slope of "leaky_relu" below 0.
LEAK = 0.1

ACTIVATIONS = Registry()
activation = ACTIVATIONS.register

for _activation in (
    # Glorot's 4 makes up for the slope of 1/4 at 0, without which signals die out within
    # three layers. One layer does better without it: standardised columns would saturate
    # its units from the start, and the output has no such slope.
    Activation(
        "sigmoid",
        "1 / (1 + exp(-p)), between 0 and 1",
        torch.sigmoid,
        torch.sigmoid_,
        slope=lambda h: torch.addcmul(h, h, h, value=-1),
        curvature=lambda h, slope: torch.addcmul(slope, slope, h, value=-2),
        deep_gain=4.0,
        range=(0.0, 1.0),
        antiderivative=softplus,
    ),
    Activation(
        "tanh",
        "the hyperbolic tangent, between -1 and 1",
        torch.tanh,
        torch.tanh_,
        slope=lambda h: 1 - h * h,
        curvature=lambda h, slope: -2 * h * slope,
        range=(-1.0, 1.0),
        # log cosh p, which overflows nowhere
        antiderivative=lambda p: p.abs() + softplus(-2 * p.abs()) - math.log(2.0),
    ),
    Activation(
        "relu",
        "max(p, 0)",
        torch.relu,
        torch.relu_,
        slope=lambda h: (h > 0).to(h.dtype),
        curvature=lambda h, slope: torch.zeros_like(h),
        gain=math.sqrt(2.0),
        deep_gain=math.sqrt(2.0),
        range=(0.0, math.inf),
        antiderivative=lambda p: 0.5 * torch.relu(p).square(),
    ),
    Activation(
        "softplus",
        "log(1 + exp(p)), a smooth relu",
        softplus,
        softplus,
        slope=lambda h: -torch.expm1(-h),
        curvature=lambda h, slope: slope * torch.exp(-h),
        gain=2.0,
        deep_gain=2.0,
        range=(0.0, math.inf),
    ),
    # The slope is told by the sign of h, which is that of p.
    Activation(
        "leaky_relu",
        "p where it is positive, p / 10 elsewhere: no unit dies, codes have no bounds",
        partial(functional.leaky_relu, negative_slope=LEAK),
        partial(functional.leaky_relu_, negative_slope=LEAK),
        slope=lambda h: (h > 0).to(h.dtype).mul_(1 - LEAK).add_(LEAK),
        curvature=lambda h, slope: torch.zeros_like(h),
        gain=math.sqrt(2.0),
        deep_gain=math.sqrt(2.0),
        antiderivative=lambda p: 0.5 * p * functional.leaky_relu(p, negative_slope=LEAK),
    ),
    Activation(
        "linear",
        "p itself",
        lambda p: p,
        lambda p: p,
        slope=torch.ones_like,
        curvature=lambda h, slope: torch.zeros_like(h),
        antiderivative=lambda p: 0.5 * p.square(),
    ),
):
    activation(_activation)
