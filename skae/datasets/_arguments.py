"""What the functions of this package take: seeds, images, labels."""

import math

import numpy as np

from skae._validation import make_generator


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
