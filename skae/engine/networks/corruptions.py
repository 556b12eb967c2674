"""Corruption of the input, for denoising criteria (Vincent et al. 2008, 2010).

A corruption is called with a batch and a generator and returns the corrupted copy
and a mask of the components that it touched.
"""

import torch

from skae.engine.optimisation.draws import random_mask


class Masking:
    """Each component is set to 0 with probability ``level``.

    In the coordinates of the network 0 is the column's mean for standardised
    (Gaussian) columns and "absent" for binary and one-hot ones.
    """

    def __init__(self, level):
        self.level = level

    def __call__(self, x, generator):
        """The corrupted batch and the boolean mask of what was set to 0."""
        masked = random_mask(x, self.level, generator)
        return x.masked_fill(masked, 0.0), masked


class SaltAndPepper:
    """Each component is set, with probability ``level``, to its column's minimum or
    maximum, by the toss of a fair coin.

    Parameters
    ----------
    level : float
    minimum, maximum : Tensor of shape (n_features,)
    """

    def __init__(self, level, minimum, maximum):
        self.level, self.minimum, self.maximum = level, minimum, maximum

    def __call__(self, x, generator):
        """The corrupted batch and the boolean mask of what was replaced."""
        replaced = random_mask(x, self.level, generator)
        salt = random_mask(x, 0.5, generator)
        return torch.where(replaced, torch.where(salt, self.maximum, self.minimum), x), replaced


class GaussianNoise:
    """Independent noise, x + level * N(0, I), in the coordinates of the network."""

    def __init__(self, level):
        self.level = level

    def __call__(self, x, generator):
        """The corrupted batch and None: every component is touched."""
        noise = torch.empty_like(x).normal_(generator=generator)
        return torch.add(x, noise, alpha=self.level), None
