"""Patches of images: their shape, how many there are, and random ones to learn from."""

import math
from numbers import Integral

import torch

from skae._validation import Interval, computing_dtype, make_generator
from skae.engine.images.stages import draw_positions, patches
from skae.estimators.face.parameters import estimator, parameter
from skae.estimators.images.shapes import resolve_extents, row_blocks

_CPU = torch.device("cpu")


@estimator
class PatchSampling:
    """How many patches are learned from, and which."""

    n_patches: int = parameter(
        default=50_000,
        constraints=[Interval(Integral, 1, None, closed="left")],
        doc="""int
        Patches to learn from, at most, drawn at random places of all images.""",
    )
    random_state: int = parameter(
        default=None,
        constraints=["random_state"],
        doc="""int, RandomState instance or None
        Seed of the patches' places.""",
    )


def draw_patches(X, image_shape, patch_shape, stride, n_patches, random_state):
    """Patches at random places of the images, in random order, as rows on the CPU.

    Parameters
    ----------
    X : ndarray or CSR matrix of shape (n_samples, n_features)
    image_shape, patch_shape : tuple of three int
    stride : tuple of two int
    n_patches : int
        All of them, where there are no more.
    random_state : int, RandomState instance or None

    Returns
    -------
    drawn : Tensor of shape (n_drawn, n_values)
    """
    generator, dtype = make_generator(random_state, _CPU), computing_dtype(X, _CPU)
    counts = count_patches(image_shape, patch_shape, stride)
    positions = draw_positions(X.shape[0] * math.prod(counts), n_patches, generator)
    order = torch.randperm(len(positions), generator=generator)
    image, row, column = torch.unravel_index(positions, (X.shape[0], *counts))
    needed, image = torch.unique_consecutive(image, return_inverse=True)
    drawn = torch.empty(len(positions), math.prod(patch_shape), dtype=dtype)
    done = 0
    for part, block in row_blocks(X, X.shape[1], dtype, _CPU, needed):
        stop = int(torch.searchsorted(image, part.stop))
        windows = patches(block.view(-1, *image_shape), patch_shape[:2], stride)
        here = slice(done, stop)
        chosen = windows[image[here] - part.start, row[here], column[here]]
        drawn[order[here]] = chosen.reshape(len(chosen), -1)
        done = stop
    return drawn


def count_patches(image_shape, patch_shape, stride):
    """Number of patches along height and width."""
    return tuple(
        1 + (extent - window) // step
        for extent, window, step in zip(image_shape[:2], patch_shape[:2], stride, strict=True)
    )


def resolve_patch_shape(model):
    """Height, width and channels of a model's patches, cut to images that are signals."""
    window = resolve_extents("patch_shape", model.patch_shape)
    height, width, channels = model.image_shape_
    cut = (min(window[0], height), min(window[1], width))
    if cut != window and model.image_shape is not None:
        raise ValueError(
            f"patch_shape={model.patch_shape!r} is larger than the images, of {height} x {width} "
            "pixels; use a smaller patch_shape."
        )
    return (*cut, channels)
