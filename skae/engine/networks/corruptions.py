"""Corruption of the input, for denoising criteria (Vincent et al. 2008, 2010).

A corruption is called with a batch and a generator and returns the corrupted copy and a mask of
the components that it touched, or None where it touches all. That is all a new one needs. One
that is chosen by a name is registered here with `corruption`, and has

- ``name`` and ``summary``, for users;
- ``has_mask``, whether it tells which components it touched;
- a constructor that takes its level, and raises a ValueError if that is out of its range;
- ``for_columns(minimum, maximum)``, which returns it with what it needs to know of the columns.
"""

import inspect

import torch

from skae.engine.optimisation.devices import random_mask
from skae.engine.optimisation.parameters import Registry

# A corrupted batch, and the mask of what was touched.
Corrupted = tuple[torch.Tensor, torch.Tensor | None]
CORRUPTIONS = Registry()
corruption = CORRUPTIONS.register


class _OfComponents:
    """What corruptions of single components, each with a probability, share."""

    name: str
    has_mask = True

    def __init__(self, level: float):
        if level > 1:
            raise ValueError(
                f"corruption_level={level} is a probability for corruption={self.name!r}: it must "
                "be at most 1."
            )
        self.level = level


@corruption
class Masking(_OfComponents):
    """Each component is set to 0 with probability ``level``.

    In the coordinates of the network 0 is the column's mean for standardised (Gaussian) columns and
    "absent" for binary and one-hot ones.
    """

    name = "masking"
    summary = "components set to 0 (the mean, where columns are standardised)"

    def for_columns(self, minimum, maximum):
        """The same: 0 is 0 in all columns."""
        return self

    def __call__(self, x: torch.Tensor, generator: torch.Generator) -> Corrupted:
        """The corrupted batch and the boolean mask of what was set to 0."""
        masked = random_mask(x, self.level, generator)
        return x.masked_fill(masked, 0.0), masked


@corruption
class SaltAndPepper(_OfComponents):
    """Each component is set, with probability ``level``, to its column's minimum or maximum.

    A fair coin chooses. Both are tensors of shape (n_features,).
    """

    name = "salt_and_pepper"
    summary = "components set to their column's minimum or maximum"

    def __init__(self, level: float, minimum=0.0, maximum=1.0):
        super().__init__(level)
        self.minimum, self.maximum = minimum, maximum

    def for_columns(self, minimum, maximum):
        """The same with the ends of some columns."""
        return SaltAndPepper(self.level, minimum, maximum)

    def __call__(self, x: torch.Tensor, generator: torch.Generator) -> Corrupted:
        """The corrupted batch and the boolean mask of what was replaced."""
        replaced = random_mask(x, self.level, generator)
        salt = random_mask(x, 0.5, generator)
        return torch.where(replaced, torch.where(salt, self.maximum, self.minimum), x), replaced


@corruption
class GaussianNoise:
    """Independent noise, x + level * N(0, I), in the coordinates of the network."""

    name = "gaussian"
    summary = (
        "Gaussian noise of standard deviation ``corruption_level`` added, in units of the columns "
        "as standardised"
    )
    has_mask = False

    def __init__(self, level: float):
        self.level = level

    def for_columns(self, minimum, maximum):
        """The same: noise is as large in all columns."""
        return self

    def __call__(self, x: torch.Tensor, generator: torch.Generator) -> Corrupted:
        """The corrupted batch and None: every component is touched."""
        noise = torch.empty_like(x).normal_(generator=generator)
        return torch.add(x, noise, alpha=self.level), None


def make_corruption(choice, level: float):
    """The corruption that a name, or an object of the user's, stands for; None for none.

    ``level`` is that of a corruption by name. Raises a ValueError if it is out of its range, or the
    object cannot be called as a corruption is.
    """
    if choice is None or (isinstance(choice, str) and level == 0):
        return None
    if isinstance(choice, str):
        return CORRUPTIONS[choice](level)
    try:
        if isinstance(choice, type):
            raise TypeError("It is a class, not an object of it.")
        inspect.signature(choice).bind(None, None)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"corruption={choice!r} cannot be called as corruption(x, generator): it has to take a "
            "batch, a tensor of shape (n_samples, n_features), and a torch.Generator, and to "
            "return the corrupted batch and a boolean mask of what it changed, or None."
        ) from error
    return choice


def has_mask(choice) -> bool:
    """Whether a choice of a corruption may tell which components it touches."""
    if choice is None:
        return False
    part = CORRUPTIONS[choice] if isinstance(choice, str) else choice
    return getattr(part, "has_mask", True)


def corrupted(x: torch.Tensor, corruption, generator: torch.Generator) -> Corrupted:
    """What a corruption makes of a batch: the corrupted batch, and its mask or None.

    Raises a ValueError if it returns anything else, or has changed the batch itself, the target of
    the loss.
    """
    version = x._version
    result = corruption(x, generator)
    if x._version != version:
        raise ValueError(
            f"{_name(corruption)} changed the batch in place: it has to return a corrupted copy, "
            "since the batch itself is what is to be reconstructed."
        )
    if not isinstance(result, tuple) or len(result) != 2:
        raise ValueError(
            f"{_name(corruption)} has to return two things, the corrupted batch and a boolean mask "
            f"of what it changed, or None; not a {type(result).__name__}."
        )
    copy, mask = result
    if _kind(copy) != _kind(x):
        raise ValueError(
            f"{_name(corruption)} has to return a corrupted batch like the one that it was given, "
            f"a {_described(x)}; not a {_described(copy)}."
        )
    if mask is not None and (_kind(mask) != (x.shape, torch.bool, x.device)):
        raise ValueError(
            f"The mask that {_name(corruption)} returns has to be a tensor of torch.bool of shape "
            f"{tuple(x.shape)}, as the batch is, or None; not a {_described(mask)}."
        )
    return copy, mask


def _name(corruption):
    return f"corruption={getattr(corruption, '__name__', type(corruption).__name__)}"


def _kind(value):
    return isinstance(value, torch.Tensor) and (value.shape, value.dtype, value.device)


def _described(value):
    if not isinstance(value, torch.Tensor):
        return type(value).__name__
    return f"tensor of {value.dtype} of shape {tuple(value.shape)}"
