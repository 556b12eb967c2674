"""Corruption of the input, for denoising criteria (Vincent et al. 2008, 2010).

A corruption is called with a batch and a generator and returns the corrupted copy
and a mask of the components that it touched.
"""

import torch


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


def random_mask(x, probability, generator):
    """Independent coins: True with ``probability``, a boolean tensor shaped like ``x``.

    Four coins are cut from each 64-bit draw: a generator's draws are what a mask
    costs, and 16 bits resolve a probability to 1 / 65536.
    """
    n_coins = x.numel()
    draws = torch.empty((n_coins + 3) // 4, dtype=torch.int64, device=x.device)
    draws.random_(-(2**63), None, generator=generator)
    threshold = round(probability * 2**16) - 2**15
    if threshold > 2**15 - 1:
        return torch.ones_like(x, dtype=torch.bool)
    return (draws.view(torch.int16)[:n_coins] < threshold).view(x.shape)
