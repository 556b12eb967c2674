"""Corruption of the input, for denoising criteria (Vincent et al. 2008, 2010).

A corruption is called with a batch and a generator and returns the corrupted copy and a mask of
the components that it touched, or None where it touches all. That is all a new one needs. One
that is chosen by a name is registered here with `corruption`, and has

- ``name`` and ``summary``, for users;
- ``has_mask``, whether it tells which components it touched;
- ``is_pure``, where it is: see `skae.engine.optimisation.replay`;
- a constructor that takes its level, and raises a ValueError if that is out of its range;
- ``for_columns(minimum, maximum, variables, fill)``, which returns it with what it needs to know of
  the columns.

The level of those here is a number, (low, high) for one that is drawn for each row, or one for
each column.
"""

import copy
import inspect
import math
from collections.abc import Hashable
from typing import TypeAlias

import numpy as np
import torch

from skae.engine.optimisation.devices import random_mask
from skae.engine.optimisation.parameters import Registry

# A corrupted batch, and the mask of what was touched.
Corrupted = tuple[torch.Tensor, torch.Tensor | None]
CORRUPTIONS = Registry()
corruption = CORRUPTIONS.register


Level: TypeAlias = float | tuple[float, float] | torch.Tensor


class _WithLevel:
    """What corruptions share: a level, which may differ by row or by column.

    A number; a tuple, between which each row's is drawn anew; or one number for each column.
    """

    name: str
    most = math.inf
    # Whether it adds independent Gaussian noise of standard deviation ``level``.
    is_gaussian = False

    def __init__(self, level: Level):
        self.level: Level = level
        if not (isinstance(level, tuple) or np.isscalar(level)):
            self.level = _by_column(level)
        ends = torch.as_tensor(self.level, dtype=torch.float64)
        if isinstance(level, tuple) and (len(level) != 2 or level[0] > level[1]):
            raise ValueError(
                f"corruption_level={level!r} has to be (low, high), between which each row's level "
                "is drawn; one level per column is a list or an array."
            )
        if not (torch.isfinite(ends).all() and (ends >= 0).all()):
            raise ValueError(
                f"corruption_level={level!r} must be finite and at least 0, in all its numbers."
            )
        if (ends > self.most).any():
            raise ValueError(
                f"corruption_level={level!r} is a probability for corruption={self.name!r}: it "
                f"must be at most {self.most:g}."
            )

    def for_columns(self, minimum, maximum, variables=None, fill=None):
        """The same with what it needs to know of some columns.

        ``minimum`` and ``maximum`` are tensors of shape (n_features,); ``variables`` are the
        columns of each variable, None where each is one; ``fill``, (n_features,), stands where
        nothing was observed.
        """
        one = copy.copy(self)
        one.level = _of_columns(self.level, minimum, variables)
        return one

    def level_of(self, x: torch.Tensor, generator: torch.Generator) -> float | torch.Tensor:
        """The level of a batch: a number, or of shape (n_samples, 1) or (n_features,)."""
        if not isinstance(self.level, tuple):
            return self.level
        low, high = self.level
        drawn = torch.rand((len(x), 1), generator=generator, dtype=x.dtype, device=x.device)
        return drawn.mul_(high - low).add_(low)


def _by_column(level):
    return torch.as_tensor(np.asarray(level, dtype=np.float64))


def _of_columns(level, like, variables):
    """A level for each column, where that is what it is; given by variable or by column."""
    if not isinstance(level, torch.Tensor):
        return level
    n_columns = len(like)
    n_variables = n_columns if variables is None else len(variables)
    if level.shape == (n_variables,) and n_variables != n_columns:
        of_column = torch.zeros(n_columns, dtype=torch.int64)
        for number, columns in enumerate(variables):
            of_column[columns] = number
        level = level[of_column]
    if level.shape != (n_columns,):
        or_one = "" if n_variables == n_columns else f", or for each of the {n_variables} variables"
        raise ValueError(
            f"corruption_level has {level.numel()} numbers of shape {tuple(level.shape)}, but "
            f"needs one for each of the {n_columns} columns{or_one}."
        )
    return level.to(like)


def coins(x: torch.Tensor, level: float | torch.Tensor, generator: torch.Generator):
    """Independent coins shaped like ``x``, True with a probability of whatever shape."""
    if not isinstance(level, torch.Tensor):
        return random_mask(x, level, generator)
    draws = torch.rand(x.shape, generator=generator, dtype=x.dtype, device=x.device)
    return draws < level


class _OfComponents(_WithLevel):
    """What corruptions of single components, each with a probability, share."""

    has_mask = True
    most = 1.0


@corruption
class Masking(_OfComponents):
    """Each component is set to 0 with probability ``level``.

    In the coordinates of the network 0 is the column's mean for standardised (Gaussian) columns and
    "absent" for binary and one-hot ones.
    """

    is_pure = True
    name = "masking"
    summary = "components set to 0 (the mean, where columns are standardised)"

    def __call__(self, x: torch.Tensor, generator: torch.Generator) -> Corrupted:
        """The corrupted batch and the boolean mask of what was set to 0."""
        masked = coins(x, self.level_of(x, generator), generator)
        return x.masked_fill(masked, 0.0), masked


@corruption
class Hiding(_OfComponents):
    """Each component is hidden, with probability ``level``, as one that was not observed is.

    ``fill``, of shape (n_features,), takes its place: what stands for gaps. To restore the row is
    then to fill gaps. The categories of a one-hot variable need no draw together: to hide the one
    that is 1 hides the variable, and the others are 0 already.
    """

    is_pure = True
    name = "hiding"
    summary = "components hidden, as gaps are: the column's mean, and zeros of one-hot variables"
    fill: torch.Tensor | float = 0.0

    def for_columns(self, minimum, maximum, variables=None, fill=None):
        """The same with what stands for gaps of some columns."""
        one = super().for_columns(minimum, maximum, variables, fill)
        one.fill = self.fill if fill is None else fill
        return one

    def __call__(self, x: torch.Tensor, generator: torch.Generator) -> Corrupted:
        """The corrupted batch and the boolean mask of what was hidden."""
        hidden = coins(x, self.level_of(x, generator), generator)
        return torch.where(hidden, self.fill, x), hidden


@corruption
class SaltAndPepper(_OfComponents):
    """Each component is set, with probability ``level``, to its column's minimum or maximum.

    A fair coin chooses. Both are tensors of shape (n_features,).
    """

    is_pure = True
    name = "salt_and_pepper"
    summary = "components set to their column's minimum or maximum"

    def __init__(self, level: Level, minimum=0.0, maximum=1.0):
        super().__init__(level)
        self.minimum, self.maximum = minimum, maximum

    def for_columns(self, minimum, maximum, variables=None, fill=None):
        """The same with the ends of some columns."""
        one = super().for_columns(minimum, maximum, variables, fill)
        one.minimum, one.maximum = minimum, maximum
        return one

    def __call__(self, x: torch.Tensor, generator: torch.Generator) -> Corrupted:
        """The corrupted batch and the boolean mask of what was replaced."""
        replaced = coins(x, self.level_of(x, generator), generator)
        salt = random_mask(x, 0.5, generator)
        return torch.where(replaced, torch.where(salt, self.maximum, self.minimum), x), replaced


@corruption
class GaussianNoise(_WithLevel):
    """Independent noise, x + level * N(0, I), in the coordinates of the network."""

    is_pure = True
    name = "gaussian"
    summary = (
        "Gaussian noise of standard deviation ``corruption_level`` added, in units of the columns "
        "as standardised"
    )
    has_mask = False
    is_gaussian = True

    def __call__(self, x: torch.Tensor, generator: torch.Generator) -> Corrupted:
        """The corrupted batch and None: every component is touched."""
        level = self.level_of(x, generator)
        noise = torch.empty_like(x).normal_(generator=generator)
        if isinstance(level, torch.Tensor):
            return torch.addcmul(x, noise, level.expand_as(x)), None
        return torch.add(x, noise, alpha=level), None

    def leveled(self, x: torch.Tensor, generator: torch.Generator):
        """The corrupted batch, each row's level and its weight, both of shape (n_samples, 1).

        Of a range (low, high), log s is drawn uniformly. The weight makes the error of all levels
        alike, (1 + s^2) / s^2, and is 1 on average.
        """
        low, high = self.level if isinstance(self.level, tuple) else (self.level, self.level)
        level = torch.rand((len(x), 1), generator=generator, dtype=x.dtype, device=x.device)
        level = low * (high / low) ** level
        mean = 1.0 + 1 / low**2
        if high > low:
            mean = 1.0 + (1 / low**2 - 1 / high**2) / (2 * math.log(high / low))
        noise = torch.empty_like(x).normal_(generator=generator)
        return torch.addcmul(x, noise, level), level, (1 + level**-2) / mean


@corruption
class Swap(_OfComponents):
    """Each variable of a row is replaced, with probability ``level``, by that of another row.

    The other row is any of the batch, drawn anew for every variable; the columns of a one-hot
    variable go together. What a column is like does not change by it, only what goes with what.
    """

    is_pure = True
    name = "swap"
    summary = (
        "each variable, of one column or one-hot, replaced by that of another row of the batch, "
        "drawn anew"
    )
    # Of which variable each column is; None where each is one.
    of_column: torch.Tensor | None = None
    first: torch.Tensor | None = None

    def for_columns(self, minimum, maximum, variables=None, fill=None):
        """The same with the variables of some columns."""
        one = super().for_columns(minimum, maximum, variables, fill)
        if variables is not None and len(variables) < len(minimum):
            of_column = torch.zeros(len(minimum), dtype=torch.int64)
            for number, columns in enumerate(variables):
                of_column[columns] = number
            one.of_column = of_column.to(minimum.device)
            first = [int(columns[0]) for columns in variables]
            one.first = torch.tensor(first, device=minimum.device)
        return one

    def __call__(self, x: torch.Tensor, generator: torch.Generator) -> Corrupted:
        """The corrupted batch and the boolean mask of what was swapped."""
        n = len(x)
        if n == 1:
            return x.clone(), torch.zeros_like(x, dtype=torch.bool)
        level = self.level_of(x, generator)
        if self.first is not None and isinstance(level, torch.Tensor) and level.dim() == 1:
            level = level[self.first]
        width = x.shape[1] if self.first is None else len(self.first)
        draws = torch.rand((n, width), generator=generator, dtype=x.dtype, device=x.device)
        swapped = draws < level
        # Below its level a draw is uniform once more: it tells how many rows on the other one is.
        steps = draws.div_(level).mul_(n - 1).nan_to_num_(0.0, 0.0).clamp_(max=n - 2).long()
        source = torch.arange(1, n + 1, device=x.device).unsqueeze(1).add(steps).remainder_(n)
        if self.of_column is not None:
            swapped, source = swapped[:, self.of_column], source[:, self.of_column]
        return torch.where(swapped, x.gather(0, source), x), swapped


def make_corruption(choice, level: Level):
    """The corruption that a name, or an object of the user's, stands for; None for none.

    ``level`` is that of a corruption by name. Raises a ValueError if it is out of its range, or the
    object cannot be called as a corruption is.
    """
    if choice is None or (isinstance(choice, str) and np.isscalar(level) and level == 0):
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


def key_of(part) -> Hashable:
    """What decides what a corruption, or a tensor or number of it, does: a hashable value."""
    if isinstance(part, torch.Tensor):
        return tuple(part.reshape(-1).tolist())
    if isinstance(part, _WithLevel):
        return type(part), *((name, key_of(value)) for name, value in sorted(vars(part).items()))
    return part if isinstance(part, (int, float, tuple, type(None))) else id(part)


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


def redrawn(x: torch.Tensor, output: torch.Tensor, units, generator: torch.Generator):
    """Draws from P(x | r), where the model's own chain goes from corrupted rows.

    Corrupted again they are inputs as well: walkback (Bengio, Yao, Alain & Vincent 2013). It pulls
    in what a chain would else find far from the data. ``output`` is the pre-activation of the
    units; real columns vary as much as rows ``x`` differ from their reconstructions.
    """
    variance = (x - units.mean(output)).square().mean(0)
    return units.sample(output, generator, 1 / variance.clamp(min=1e-12))


def _name(corruption):
    return f"corruption={getattr(corruption, '__name__', type(corruption).__name__)}"


def _kind(value):
    return isinstance(value, torch.Tensor) and (value.shape, value.dtype, value.device)


def _described(value):
    if not isinstance(value, torch.Tensor):
        return type(value).__name__
    return f"tensor of {value.dtype} of shape {tuple(value.shape)}"
