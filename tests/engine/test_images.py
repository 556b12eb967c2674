"""Kernels on images against slow loops that are written from their definitions."""

import math

import numpy as np
import pytest
import torch
from sklearn.feature_extraction.image import extract_patches_2d

from skae.engine.images import (
    draw_positions,
    local_contrast_normalize,
    patches,
    pool,
    pool_grid,
    rectify,
)

POOLED = {
    "average": np.mean,
    "max": np.max,
    "sum": np.sum,
    "l2": lambda window, axis: np.sqrt(np.sum(window**2, axis=axis)),
}


@pytest.fixture
def images(generator):
    return torch.randn(3, 7, 10, 2, dtype=torch.float64, generator=generator)


# Rectification


def test_rectification_splits_at_zero(images):
    x = images.numpy()
    split = rectify(images, "split").numpy()
    # Channels last: the positive parts of both channels, then the negative parts.
    np.testing.assert_array_equal(split[..., :2], np.maximum(x, 0))
    np.testing.assert_array_equal(split[..., 2:], np.maximum(-x, 0))
    # x = max(0, x) - max(0, -x), and |x| is their sum.
    np.testing.assert_array_equal(split[..., :2] - split[..., 2:], x)
    np.testing.assert_array_equal(rectify(images, "abs"), split[..., :2] + split[..., 2:])
    np.testing.assert_array_equal(rectify(images, "relu"), split[..., :2])


def test_threshold_of_a_rectifier_shrinks_magnitudes(images):
    positive, negative = rectify(images, "split", 0.5).split(2, dim=3)
    # The soft threshold, max(0, |x| - t) sign(x), is the difference of the two parts.
    torch.testing.assert_close(
        positive - negative, torch.nn.functional.softshrink(images, 0.5), atol=0, rtol=0
    )
    torch.testing.assert_close(rectify(images, "abs", 0.5), positive + negative, atol=0, rtol=0)


# Pooling


def pool_slowly(x, kind, size, stride):
    """By loops over windows, which are cut at the border; the last one is the first to reach it."""

    def starts(extent, size, stride):
        found = [0]
        while found[-1] + size < extent and found[-1] + stride < extent:
            found.append(found[-1] + stride)
        return found

    return np.stack(
        [
            np.stack(
                [
                    POOLED[kind](x[:, i : i + size[0], j : j + size[1]], axis=(1, 2))
                    for j in starts(x.shape[2], size[1], stride[1])
                ],
                axis=1,
            )
            for i in starts(x.shape[1], size[0], stride[0])
        ],
        axis=1,
    )


@pytest.mark.parametrize("kind", POOLED)
@pytest.mark.parametrize(
    ("size", "stride"),
    [
        ((2, 2), (2, 2)),  # does not divide 7
        ((3, 4), (2, 3)),
        ((1, 1), (3, 4)),  # leaves pixels out
        ((20, 3), (20, 1)),  # larger than the image
    ],
)
def test_pooling_is_that_of_a_loop(images, kind, size, stride):
    # One value for each window and channel, whatever the window's part inside of the image.
    np.testing.assert_allclose(
        pool(images, kind, size, stride).numpy(),
        pool_slowly(images.numpy(), kind, size, stride),
        rtol=1e-12,
    )


@pytest.mark.parametrize("kind", POOLED)
@pytest.mark.parametrize("grid", [(2, 2), (3, 4), (9, 99)])
def test_grid_parts_the_image(images, kind, grid):
    x = images.numpy()
    # Independent of the kernel: array_split parts pixels so, with the longer parts first.
    by_rows = np.array_split(np.arange(7), min(grid[0], 7))
    by_columns = np.array_split(np.arange(10), min(grid[1], 10))
    pooled = pool_grid(images, kind, grid)
    assert pooled.shape == (3, len(by_rows), len(by_columns), 2)
    expected = [[POOLED[kind](x[:, r][:, :, c], axis=(1, 2)) for c in by_columns] for r in by_rows]
    # Each pixel belongs to exactly one cell.
    np.testing.assert_allclose(
        pooled.numpy(), np.moveaxis(np.array(expected), 2, 0), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize(("n_pixels", "n_cells"), [(27, 2), (10, 4), (3, 8)])
def test_cells_of_a_grid_are_alike_in_size(n_pixels, n_cells):
    ones = torch.ones(1, n_pixels, 1, 1)
    sizes = pool_grid(ones, "sum", (n_cells, 1)).flatten()
    # The sum of ones counts pixels: all are counted once.
    assert sizes.sum() == n_pixels
    # n pixels cannot be parted more evenly than into floor and ceiling of n / cells.
    assert sizes.max() - sizes.min() <= 1


def test_pooling_does_not_change_its_input(images):
    before = images.clone()
    for kind in POOLED:
        pool(images, kind, (1, 1), (1, 1))
        pool_grid(images, kind, (1, 1))
        pool_grid(images, kind, (7, 10))
    # Images of one stage may be used again.
    assert torch.equal(images, before)


# Local contrast normalisation


def normalize_slowly(x, size, sigma):
    """The formula of Jarrett et al., pixel by pixel."""
    height, width, channels = x.shape
    radius = size // 2

    def weighted_mean(values, j, k):
        total, sum_of_weights = 0.0, 0.0
        for p in range(-radius, radius + 1):
            for q in range(-radius, radius + 1):
                if 0 <= j + p < height and 0 <= k + q < width:
                    w = math.exp(-(p * p + q * q) / (2 * sigma**2))
                    total += w * values[j + p, k + q].sum()
                    sum_of_weights += w * channels
        return total / sum_of_weights

    pixels = [(j, k) for j in range(height) for k in range(width)]
    v, s = np.empty_like(x), np.empty((height, width))
    for j, k in pixels:
        v[j, k] = x[j, k] - weighted_mean(x, j, k)
    for j, k in pixels:
        s[j, k] = math.sqrt(weighted_mean(v**2, j, k))
    return v / np.maximum(s, s.mean())[:, :, np.newaxis]


@pytest.mark.parametrize(("size", "sigma"), [(3, 1.0), (9, 2.25), (25, 4.0), (1, 1.0)])
def test_contrast_normalisation_is_the_published_formula(images, size, sigma):
    x = images * torch.tensor([1.0, 1e3, 1e-3]).view(3, 1, 1, 1) + 5
    # Weights sum to one over channels and the part of the window inside of the image.
    for image, normalized in zip(x, local_contrast_normalize(x, size, sigma), strict=True):
        np.testing.assert_allclose(
            normalized.numpy(), normalize_slowly(image.numpy(), size, sigma), rtol=1e-6, atol=1e-9
        )


def test_contrast_normalisation_of_each_image_is_its_own(images):
    together = local_contrast_normalize(images, 5, 1.25)
    alone = torch.cat([local_contrast_normalize(image[None], 5, 1.25) for image in images])
    # The mean contrast is that of the image, not of the batch.
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("level", [0.1, -1e30])
def test_constant_images_become_zero(dtype, level):
    flat = torch.full((2, 6, 5, 3), level, dtype=dtype)
    # No pixel differs from its surroundings.
    assert torch.equal(local_contrast_normalize(flat, 9, 2.25), torch.zeros_like(flat))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rounding_is_not_contrast(dtype):
    level = 0.1 * torch.ones(1, 6, 5, 3, dtype=dtype)
    nearly = torch.where(
        torch.arange(5).view(5, 1) % 2 == 0, level, torch.nextafter(level, level + 1)
    )
    # Differences of the last bit would otherwise come out as ones.
    assert local_contrast_normalize(nearly, 5, 1.25).abs().max() < 0.02


def test_dark_and_bright_borders_are_no_contrast():
    step = torch.zeros(1, 20, 20, 1)
    step[:, :, 10:] = 1
    normalized = local_contrast_normalize(step + 3, 5, 1.25)
    # Far from the step all is level, at the border as well: padding by zeros would show there.
    assert normalized[:, :, [0, 1, 18, 19]].abs().max() < 1e-5
    assert normalized.abs().max() > 0.5


@pytest.mark.parametrize("scale", [1e-40, 1e38])
def test_contrast_normalisation_has_no_units(images, scale):
    x = (images / images.abs().max()).float()
    # Scaled images are the same images, also where squares of their pixels are no float32.
    torch.testing.assert_close(
        local_contrast_normalize(x * scale, 5, 1.25),
        local_contrast_normalize(x, 5, 1.25),
        rtol=1e-4,
        atol=1e-4,
    )


# Patches


@pytest.mark.parametrize("shape", [(3, 4), (1, 1), (7, 10), (6, 2)])
def test_patches_are_those_of_scikit_learn_in_its_order(images, shape):
    expected = np.concatenate([extract_patches_2d(image, shape) for image in images.numpy()])
    found = patches(images, shape)
    # Row by row of each image; within a patch rows, columns, channels.
    np.testing.assert_array_equal(found.reshape(-1, *shape, 2).numpy(), expected)


def test_strided_patches_are_every_so_many(images):
    # A stride leaves places out.
    assert torch.equal(patches(images, (3, 4), (2, 3)), patches(images, (3, 4))[:, ::2, ::3])


def test_patches_are_a_view(images):
    # Only what is used of them is copied.
    assert patches(images, (3, 3)).data_ptr() == images.data_ptr()


@pytest.mark.parametrize(("n_positions", "n_draws"), [(10, 10), (10, 25), (11, 10), (10**13, 50)])
def test_positions_are_distinct_and_within(n_positions, n_draws, generator):
    drawn = draw_positions(n_positions, n_draws, generator)
    # As many as asked for, or all.
    assert len(drawn) == min(n_positions, n_draws)
    # Ascending, so each once.
    assert (drawn.diff() > 0).all()
    assert drawn[0] >= 0
    assert drawn[-1] < n_positions


def test_positions_are_equally_likely(generator):
    n_repeats = 4000
    counts = torch.zeros(10)
    for _ in range(n_repeats):
        counts[draw_positions(10, 4, generator)] += 1
    # Four of ten each time: within five standard errors of a binomial share.
    error = math.sqrt(0.4 * 0.6 / n_repeats)
    assert (counts / n_repeats - 0.4).abs().max() < 5 * error
