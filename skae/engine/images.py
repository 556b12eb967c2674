"""Images as tensors of shape (n_images, height, width, channels): filter stages' other steps.

Between two banks of filters, what Jarrett et al. (ICCV 2009) found to matter: rectification,
local contrast normalisation, pooling. And patches, from which filters are learned.

Whitening: contrast normalisation of patches, then columns of variance one, uncorrelated.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch.nn import functional

# Differences within an image below so many units of rounding count as none.
_ROUNDING = 100


class Stage(NamedTuple):
    """A step between images, as a value."""

    output_shape: tuple[int, int, int]
    # From images of shape (n_images, height, width, channels) to ``output_shape``, or flattened.
    apply: Callable[[torch.Tensor], torch.Tensor]
    # Whether each value that comes out belongs to the one at its place that went in.
    keeps_columns: bool = False
    # What mapping one image holds at a time, beyond what goes in and comes out.
    n_values: int = 0


def rectify(images: torch.Tensor, kind: str, threshold: float = 0.0) -> torch.Tensor:
    """What lies above a threshold t: "abs" is max(0, abs(x) - t), "relu" max(0, x - t).

    "split" is the channels max(0, x - t) and then the channels max(0, -x - t).
    """
    if kind == "abs":
        return (images.abs() - threshold).clamp_(min=0)
    if kind == "split":
        images = torch.cat([images, -images], dim=3)
    return (images - threshold).clamp_(min=0)


def pool(
    images: torch.Tensor, kind: str, size: tuple[int, int], stride: tuple[int, int]
) -> torch.Tensor:
    """One value for each window and channel: "average", "max", "sum" or "l2", sqrt(sum x^2).

    Windows start at every ``stride``-th pixel until one reaches the border; what of it lies
    beyond is cut off, so that no pixel is left out and none is made up.
    """
    x = images.permute(0, 3, 1, 2)
    size = (min(size[0], x.shape[2]), min(size[1], x.shape[3]))
    if kind == "max":
        pooled = functional.max_pool2d(x, size, stride, ceil_mode=True)
    elif kind == "average":
        pooled = functional.avg_pool2d(x, size, stride, ceil_mode=True)
    else:
        x = x.square() if kind == "l2" else x
        pooled = functional.avg_pool2d(x, size, stride, ceil_mode=True, divisor_override=1)
        pooled = pooled.sqrt() if kind == "l2" else pooled
    return pooled.permute(0, 2, 3, 1)


def pool_grid(images: torch.Tensor, kind: str, grid: tuple[int, int]) -> torch.Tensor:
    """One value, as of `pool`, for each channel and cell of a grid that parts the image.

    Cells differ by one pixel at most, and the larger ones come first (Coates & Ng's quadrants
    of 27 pixels: 14 and 13); there are at most as many as pixels.
    """
    pooled = images.square() if kind == "l2" else images
    for axis, n_cells in zip((1, 2), grid, strict=True):
        n_pixels, n_cells = images.shape[axis], min(n_cells, images.shape[axis])
        sizes = [n_pixels // n_cells + (cell < n_pixels % n_cells) for cell in range(n_cells)]
        cells = torch.split(pooled, sizes, dim=axis)
        if kind == "max":
            reduced = [cell.amax(axis) for cell in cells]
        elif kind == "average":
            reduced = [cell.mean(axis) for cell in cells]
        else:
            reduced = [cell.sum(axis) for cell in cells]
        pooled = torch.stack(reduced, dim=axis)
    return pooled.sqrt_() if kind == "l2" else pooled


def local_contrast_normalize(images: torch.Tensor, size: int, sigma: float) -> torch.Tensor:
    """Each pixel's difference from its surroundings, in units of the contrast there.

    v = x - (w * x), then v / max(s, mean of s) with s^2 = w * v^2, where * averages over
    all channels of a Gaussian window of (odd) size x size pixels and standard deviation sigma,
    and the mean is over the pixels of the image.
    """
    # The result does not depend on the grey level and contrast of the whole image. Taking out
    # both first leaves exact zeros of a constant image, and no squares that under- or overflow.
    low, high = (f(images, (1, 2, 3), keepdim=True) for f in (torch.amin, torch.amax))
    contrast = high / 2 - low / 2
    scale = torch.where(contrast > 0, contrast, torch.ones_like(contrast))
    x = (images - (low / 2 + high / 2)) / scale
    rounding = _ROUNDING * torch.finfo(x.dtype).eps * torch.maximum(-low, high) / scale

    shifts = range(-(size // 2), size // 2 + 1)
    window = {shift: math.exp(-0.5 * (shift / sigma) ** 2) for shift in shifts}
    x = x - _smooth(x.mean(3), window).unsqueeze(3)
    local = _smooth(x.square().mean(3), window).sqrt_().unsqueeze(3)
    least = local.mean((1, 2, 3), keepdim=True)
    divisor = torch.maximum(torch.maximum(local, least), rounding)
    return x / torch.where(divisor > 0, divisor, torch.ones_like(divisor))


def _smooth(maps, window):
    """Weighted means over windows of maps (n, height, width), by the part that lies inside."""
    # Sums of shifted copies: the filter is separable, and convolutions on CUDA round to 10 bits.
    for axis in (1, 2):
        n_pixels = maps.shape[axis]
        smoothed, total = torch.zeros_like(maps), maps.new_zeros(n_pixels)
        for shift, weight in window.items():
            n_inside = n_pixels - abs(shift)
            if n_inside > 0:
                to, source = max(0, -shift), max(0, shift)
                part = maps.narrow(axis, source, n_inside)
                smoothed.narrow(axis, to, n_inside).add_(part, alpha=weight)
                total.narrow(0, to, n_inside).add_(weight)
        maps = smoothed / (total.unsqueeze(1) if axis == 1 else total)
    return maps


def patches(
    images: torch.Tensor, shape: tuple[int, int], stride: tuple[int, int] = (1, 1)
) -> torch.Tensor:
    """All patches of each image, a view of shape (n_images, rows, columns, *shape, channels)."""
    windows = images.unfold(1, shape[0], stride[0]).unfold(2, shape[1], stride[1])
    return windows.permute(0, 1, 2, 4, 5, 3)


def draw_positions(n_positions: int, n_draws: int, generator: torch.Generator) -> torch.Tensor:
    """Distinct integers below ``n_positions``, all equally likely, in ascending order.

    One from each of ``n_draws`` stretches of a circle; all, where there are no more.
    """
    if n_draws >= n_positions:
        return torch.arange(n_positions, device=generator.device)
    edges = torch.arange(n_draws + 1, device=generator.device) * n_positions // n_draws
    share = torch.rand(n_draws, dtype=torch.float64, generator=generator, device=generator.device)
    drawn = edges[:-1] + (share * edges.diff()).long()
    # Stretches differ in length by one; turning the circle makes up for it.
    turn = torch.randint(n_positions, (1,), generator=generator, device=generator.device)
    return drawn.add_(turn).remainder_(n_positions).sort().values


def center_rows(rows: torch.Tensor) -> torch.Tensor:
    """Each row minus its mean; exact zeros for a row of one value."""
    low, high = rows.amin(1, keepdim=True), rows.amax(1, keepdim=True)
    # Taken out first, the middle leaves nothing of a constant row for rounding.
    rows = rows - (low / 2 + high / 2)
    return rows.sub_(rows.mean(1, keepdim=True))


def normalize_contrast(rows: torch.Tensor, epsilon: float) -> torch.Tensor:
    """Each row minus its mean, by sqrt(its variance + epsilon) (Coates & Ng 2011).

    A row of variance 0 becomes 0, also for ``epsilon=0``.
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

    def add(self, rows: torch.Tensor) -> None:
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
    def covariance(self) -> torch.Tensor:
        """Of divisor n_rows - 1, so zero for one row."""
        return self.scatter / max(1, self.n_rows - 1)


class Whitening(NamedTuple):
    """The matrix that whitens centred rows, z = W (x - mean), and the one that undoes it."""

    forward: torch.Tensor
    inverse: torch.Tensor


def whitening(covariance: torch.Tensor, epsilon: float, method: str) -> Whitening:
    """The whitening of rows of a given covariance.

    With C = V diag(d) V^T and e = epsilon * mean(d), "pca" is diag(d + e)^(-1/2) V^T, its
    components by falling variance, and "zca" is V diag(d + e)^(-1/2) V^T, the one that
    changes rows least. Directions of variance 0 are left out where e is 0.
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
    return Whitening(directions * shrink @ directions.t(), directions * scale @ directions.t())


class LearnedWhitening(NamedTuple):
    """What is learned of patches: (x^ - mean) W^T, where x^ is x after the contrast step."""

    mean: torch.Tensor
    matrices: Whitening
    # In squared units of the data; 0 without the contrast step.
    contrast_epsilon: float


def learn_whitening(
    blocks: Callable[[], Iterator[torch.Tensor]],
    method: str,
    epsilon: float,
    contrast_epsilon: float | None,
    dtype: torch.dtype,
) -> LearnedWhitening:
    """Whitening of rows in float64 that ``blocks()`` gives block by block, always the same.

    ``contrast_epsilon`` is a part of the mean variance of rows, or None for no contrast step;
    squares of the rows have to be in the range of ``dtype``, in which they will be whitened. Raises
    a ValueError if the variance of the rows over- or underflows.
    """
    least = 0.0
    if contrast_epsilon is not None:
        variances = torch.cat([center_rows(rows).square().mean(1) for rows in blocks()])
        largest = next(blocks()).shape[1] * variances.max()
        centred = (center_rows(rows) for rows in blocks())
        _require_range(variances.mean(), largest, dtype, centred)
        least = contrast_epsilon * float(variances.mean())

    def normalized():
        for rows in blocks():
            yield rows if contrast_epsilon is None else normalize_contrast(rows, least)

    first = next(normalized())[:1]
    moments = Moments(first.shape[1])
    for rows in normalized():
        moments.add(rows)
    variance = moments.covariance.trace()
    changes = (rows != first for rows in normalized())
    _require_range(variance, variance, torch.float64, changes)
    return LearnedWhitening(moments.mean, whitening(moments.covariance, epsilon, method), least)


def _require_range(variance, largest, dtype, changes):
    """Raise a ValueError if squares of the data overflow in a dtype, or vanish though they vary."""
    limits = torch.finfo(dtype)
    too_large = not largest <= limits.max  # NaN too
    if too_large or (variance < limits.tiny and any(part.any() for part in changes)):
        raise ValueError(
            f"The values of X are too {'large' if too_large else 'small'}: their variance "
            f"{'over' if too_large else 'under'}flows in {str(dtype).removeprefix('torch.')}. "
            "Rescale X, for example by a division by its largest absolute value."
        )
