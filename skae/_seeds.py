"""Where random numbers come from: seeds, and generators of torch and NumPy that have them."""

from collections.abc import Callable
from contextvars import ContextVar
from numbers import Integral

import numpy as np
import torch
from sklearn.utils import check_random_state


def fresh_seed():
    """A seed of 32 bits from the entropy of the system.

    The global state of NumPy is neither read nor changed.
    """
    return int(np.random.SeedSequence().generate_state(1)[0])


# Where seeds for ``random_state=None`` come from in a context: a function. None: `fresh_seed`.
seeds: ContextVar[Callable[[], int] | None] = ContextVar("seeds", default=None)


def next_seed():
    """A seed for ``random_state=None``."""
    source = seeds.get()
    return fresh_seed() if source is None else source()


def make_generator(random_state, device):
    """A torch generator on the device, seeded from any random_state of scikit-learn."""
    if random_state is None:
        seed = next_seed()
    elif isinstance(random_state, np.random.RandomState):
        seed = int(random_state.randint(2**31 - 1))
    elif isinstance(random_state, Integral) and 0 <= random_state < 2**63:
        seed = int(random_state)
    else:
        raise ValueError(
            f"random_state={random_state!r} must be None, an integer from 0 to 2**63 - 1 or a "
            "numpy.random.RandomState."
        )
    return torch.Generator(device).manual_seed(seed)


def random_numbers(random_state):
    """A RandomState of any random_state of scikit-learn; of a fresh seed for None."""
    return check_random_state(next_seed() if random_state is None else random_state)
