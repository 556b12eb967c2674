"""Patches of photographs that show something."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from sklearn.datasets import load_sample_images

from skae.datasets._arguments import check_photographs

# Least standard deviation of a patch, where black is 0 and white is 1.
LEAST_CONTRAST = 0.1


def draw_patches(photographs, n_patches, shape, rng):
    """Patches of shape (n_patches, *shape), at positions uniform among all that have contrast."""
    if photographs is None:
        photographs = _sample_photographs()
    photographs = check_photographs(photographs, shape)
    variance = _window_variances(photographs, shape)
    positions = np.flatnonzero(variance >= LEAST_CONTRAST**2)
    if not len(positions):
        raise ValueError(
            f"photographs have no patch of {shape[0]} x {shape[1]} pixels whose standard deviation "
            f"is at least {LEAST_CONTRAST}; the largest is {np.sqrt(variance.max()):.2g}. Pass "
            "photographs with more contrast, or stretch theirs to [0, 1]."
        )
    drawn = rng.choice(positions, size=n_patches)
    windows = sliding_window_view(photographs, shape, axis=(1, 2))
    return windows[np.unravel_index(drawn, variance.shape)]


def _sample_photographs():
    try:
        return load_sample_images().images
    except ImportError as error:
        raise ImportError(
            f"{error} Install pillow, with which scikit-learn reads its sample photographs, or "
            "pass photographs."
        ) from error


def _window_variances(photographs, shape):
    # In double precision, and around the middle grey: variances are differences of large sums.
    centred = photographs.astype(np.float64) - 0.5
    mean = _window_sums(centred, shape) / np.prod(shape)
    return np.maximum(_window_sums(centred**2, shape) / np.prod(shape) - mean**2, 0)


def _window_sums(images, shape):
    """Sum over the window that begins at each pixel, from sums over all that is above and left."""
    height, width = shape
    corner = np.pad(images.cumsum(axis=1).cumsum(axis=2), ((0, 0), (1, 0), (1, 0)))
    below = corner[:, height:] - corner[:, :-height]
    return below[:, :, width:] - below[:, :, :-width]
