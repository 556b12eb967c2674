"""Courses of the learning rate over a training."""

import math

from skae.engine.optimisation.parameters import Registry

SCHEDULES = Registry()
schedule = SCHEDULES.register


@schedule
def constant(progress: float) -> float:
    """Stays as it is."""
    return 1.0


@schedule
def linear(progress: float) -> float:
    """Falls to zero linearly."""
    return 1.0 - progress


@schedule
def cosine(progress: float) -> float:
    """Falls to zero along a half cosine."""
    return 0.5 + 0.5 * math.cos(math.pi * progress)


# The part of a training in which the learning rate warms up, and where it begins.
_WARM_UP, _COLD = 0.05, 0.05


@schedule
def warmup_cosine(progress: float) -> float:
    """Rises from a twentieth during the first twentieth, then falls to zero along a half cosine."""
    if progress < _WARM_UP:
        return _COLD + (1 - _COLD) * progress / _WARM_UP
    return cosine((progress - _WARM_UP) / (1 - _WARM_UP))
