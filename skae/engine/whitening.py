"""Whitening: contrast normalisation of patches, then columns of variance one, uncorrelated."""

from typing import NamedTuple

import torch


def center_rows(rows):
    """Each row minus its mean; exact zeros for a row of one value."""
    low, high = rows.amin(1, keepdim=True), rows.amax(1, keepdim=True)
    # Taken out first, the middle leaves nothing of a constant row for rounding.
    rows = rows - (low / 2 + high / 2)
    return rows.sub_(rows.mean(1, keepdim=True))


def normalize_contrast(rows, epsilon):
    """Each row minus its mean, by sqrt(its variance + epsilon) (Coates & Ng 2011).

    Parameters
    ----------
    rows : Tensor of shape (n_rows, n_columns)
    epsilon : float
        In squared units of the data. A row of variance 0 becomes 0 also where this is 0.

    Returns
    -------
    normalized : Tensor of shape (n_rows, n_columns)
    """
    rows = center_rows(rows)
    scale = rows.square().mean(1, keepdim=True).add_(epsilon).sqrt_()
    return rows.div_(torch.where(scale > 0, scale, torch.ones_like(scale)))


class Moments:
    """Mean and covariance of rows, gathered over blocks in float64."""

    def __init__(self, n_columns):
        self.n_rows = 0
        self.mean = torch.zeros(n_columns, dtype=torch.float64)
        self.scatter = torch.zeros(n_columns, n_columns, dtype=torch.float64)

    def add(self, rows):
        """Count the rows of a block."""
        mean = rows.mean(0)
        rows = rows - mean
        n_rows = self.n_rows + len(rows)
        # Chan et al. 1979: merge the moments of this block into those so far.
        change = mean - self.mean
        self.scatter.addmm_(rows.t(), rows)
        self.scatter.addr_(change, change, alpha=self.n_rows * len(rows) / n_rows)
        self.mean.add_(change, alpha=len(rows) / n_rows)
        self.n_rows = n_rows

    @property
    def covariance(self):
        """Of divisor n_rows - 1, so zero for one row."""
        return self.scatter / max(1, self.n_rows - 1)


class Whitening(NamedTuple):
    """The matrix that whitens centred rows, z = W (x - mean), and the one that undoes it."""

    forward: torch.Tensor
    inverse: torch.Tensor


def whitening(covariance, epsilon, method):
    """The whitening of rows of a given covariance.

    With C = V diag(d) V^T and e = epsilon * mean(d), "pca" is diag(d + e)^(-1/2) V^T, its
    components by falling variance, and "zca" is V diag(d + e)^(-1/2) V^T, the one that
    changes rows least. Directions of variance 0 are left out where e is 0.

    Parameters
    ----------
    covariance : Tensor of shape (n_columns, n_columns)
    epsilon : float
    method : {"zca", "pca"}

    Returns
    -------
    whitening : Whitening
    """
    variance, directions = torch.linalg.eigh(covariance)
    variance, directions = variance.flip(0).clamp_(min=0), directions.flip(1)
    # Eigenvectors have no sign of their own: their largest entry is to be positive.
    largest = directions.gather(0, directions.abs().argmax(0, keepdim=True))
    directions = directions * largest.sign()

    rounding = len(variance) * torch.finfo(variance.dtype).eps * variance[0]
    variance = torch.where(variance > rounding, variance, torch.zeros_like(variance))
    scale = torch.sqrt(variance + epsilon * variance.mean())
    shrink = torch.where(scale > 0, 1 / scale, torch.zeros_like(scale))
    if method == "pca":
        return Whitening((directions * shrink).t(), directions * scale)
    return Whitening(
        directions * shrink @ directions.t(),
        directions * scale @ directions.t(),
    )
