"""Images that users pass, checked, and patches that are cut out of photographs."""

import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from sklearn.datasets import load_sample_images

from skae._validation import make_generator

# Least standard deviation of a patch, where black is 0 and white is 1.
LEAST_CONTRAST = 0.1


def make_rng(random_state):
    """A generator of NumPy, from any random_state that estimators take."""
    return np.random.default_rng(make_generator(random_state, "cpu").initial_seed())


def check_images(images, name="images"):
    """Grey images in [0, 1] as float32 of shape (n_images, height, width).

    Rows that are flat stand for square images; 8-bit integers are divided by 255.
    """
    images = _in_unit_interval(images, name)
    side = math.isqrt(images.shape[1]) if images.ndim == 2 else 0
    if side and side**2 == images.shape[1]:
        images = images.reshape(-1, side, side)
    if images.ndim != 3 or not images.size:
        raise ValueError(
            f"{name} must have shape (n_images, height, width), or (n_images, n_pixels) if they "
            f"are square, with at least one image, but has {images.shape}. Reshape them."
        )
    return images


def check_photographs(photographs, shape):
    """Photographs as float32 of shape (n_images, height, width), grey and in [0, 1]."""
    photographs = _in_unit_interval(photographs, "photographs")
    if photographs.ndim == 4:
        photographs = photographs.mean(axis=3)
    if photographs.ndim != 3 or not photographs.size or np.less(photographs.shape[1:], shape).any():
        raise ValueError(
            "photographs must have shape (n_images, height, width) or (n_images, height, width, "
            f"channels) and be no smaller than the {shape[0]} x {shape[1]} pixels of the images "
            f"to make, but grey they have shape {photographs.shape}. Pass larger ones; a single "
            "photograph needs a first axis: photograph[np.newaxis]."
        )
    return photographs


def check_labels(labels, images):
    """Labels as an array, one for each image; None stays None."""
    if labels is None:
        return None
    labels = np.asarray(labels)
    if labels.shape != images.shape[:1]:
        raise ValueError(
            f"labels has shape {labels.shape}, but there are {len(images)} images. Pass one "
            "label for each image, or labels=None."
        )
    return labels


def _in_unit_interval(values, name):
    values = np.asarray(values)
    if values.dtype.kind not in "fiub":
        raise ValueError(
            f"{name} must be one array of numbers, but its dtype is {values.dtype}. Crop images "
            "of several sizes to one size first."
        )
    if values.dtype == np.uint8:
        return values.astype(np.float32) / np.float32(255)
    values = values.astype(np.float32, copy=False)
    # Not (... < 0).any(): a NaN has to fail, too.
    if values.size and not (values.min() >= 0 and values.max() <= 1):
        raise ValueError(
            f"{name} must lie in [0, 1], unless of dtype uint8, but spans [{values.min():.4g}, "
            f"{values.max():.4g}]. Divide by the largest value that a pixel can have."
        )
    return values


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
