"""Decoders as linear maps of codes: a matrix, or filters that look at small windows of images.

A map has atoms, which are parameters, and a geometry, which is not. Analysis is the product of
data with all atoms; synthesis, its adjoint, is the sum of the atoms weighted by codes. What a
unit of the encoder has besides its weights may serve many codes: it is spread over them.

Which windows of an image use the same filters is a period: windows that are so many positions
apart share theirs. Period 1 is a convolution, None gives every window filters of its own, and
what is between are tiles.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch.nn.functional import conv2d, conv_transpose2d, fold, pad, unfold
from torch.nn.grad import conv2d_weight

from skae.engine.optimisation.devices import exact_convolutions

PADDINGS = ("valid", "same", "full")
# Below it, synthesis by blocks takes longer to prepare than it saves.
_MANY_CODES = 2**16


@dataclass(frozen=True)
class Dense:
    """A matrix D of shape (n_codes, n_features): synthesis is h D, analysis x D^T."""

    n_features: int
    n_codes: int

    @property
    def filters_shape(self) -> tuple[int, int]:
        """The shape of D."""
        return self.n_codes, self.n_features

    def analyze(
        self, dictionary: torch.Tensor, x: torch.Tensor, shift: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The rows x D^T, plus a ``shift`` of each unit; of shape (n_samples, n_codes)."""
        if shift is None:
            return x @ dictionary.t()
        return torch.addmm(shift, x, dictionary.t())

    def synthesize(self, dictionary: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        """The rows h D, of shape (n_samples, n_features)."""
        return code @ dictionary

    def filter_gradient(self, x: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        """Gradient of sum(code * analyze(D, x)) with respect to D."""
        return code.t() @ x

    def spread(self, values: torch.Tensor) -> torch.Tensor:
        """What belongs to each unit, at each of its codes: there is one."""
        return values

    def collect(self, values: torch.Tensor) -> torch.Tensor:
        """The sums over each unit's codes, the adjoint of `spread`."""
        return values


@dataclass(frozen=True)
class Convolution:
    """Where windows lie and which filters they use; images and maps are flat, channel last.

    ``image_shape`` is (height, width, channels), ``filter_shape`` the (height, width) of a window,
    and each window has ``n_filters``. Neighbouring windows are ``stride`` pixels apart. Padding
    "valid" has the windows that lie in the image, "same" one for each ``stride`` pixels, "full" all
    that overlap the image, outside of which pixels are 0. Windows ``period`` positions apart share
    their filters; with None, no windows do.
    """

    image_shape: tuple
    filter_shape: tuple
    n_filters: int
    stride: int = 1
    padding: str = "valid"
    period: int | None = 1

    @cached_property
    def _axes(self):
        """(windows, zeros before the first pixel) along height and width."""
        sides = zip(self.image_shape[:2], self.filter_shape, strict=True)
        return [self._windows(*side) for side in sides]

    def _windows(self, image, side):
        if self.padding == "valid":
            return (image - side) // self.stride + 1, 0
        if self.padding == "full":
            return -(-(image + side - 1) // self.stride), side - 1
        n_windows = -(-image // self.stride)
        return n_windows, max((n_windows - 1) * self.stride + side - image, 0) // 2

    @property
    def maps_shape(self) -> tuple[int, int, int]:
        """(height, width, n_filters) of the maps of codes."""
        return (*(n_windows for n_windows, _ in self._axes), self.n_filters)

    @property
    def tile(self) -> tuple[int, int]:
        """Height and width, in windows, of the block in which no two windows share filters."""
        return tuple(n if self.period is None else min(self.period, n) for n, _ in self._axes)

    @property
    def n_features(self) -> int:
        """Pixels of an image, times channels."""
        height, width, channels = self.image_shape
        return height * width * channels

    @property
    def n_codes(self) -> int:
        """Codes of an image."""
        height, width, n_filters = self.maps_shape
        return height * width * n_filters

    @property
    def filters_shape(self) -> tuple[int, int]:
        """All filters as rows (filter height, filter width, channels), tile by tile."""
        rows, columns = self.tile
        height, width = self.filter_shape
        return rows * columns * self.n_filters, height * width * self.image_shape[2]

    def analyze(
        self, filters: torch.Tensor, images: torch.Tensor, shift: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The products (n_samples, n_codes) of every window of images (n_samples, n_features) with
        its filters, plus a ``shift`` of each.
        """
        images = self._padded(images)
        if self.tile == (1, 1):
            with exact_convolutions(images.device):
                maps = conv2d(images, self._kernels(filters), shift, stride=self.stride)
            return maps.permute(0, 2, 3, 1).reshape(len(maps), -1)
        products = torch.bmm(self._patches(images), self._banks(filters).transpose(1, 2))
        maps = self._joined(products, len(images))
        return maps if shift is None else maps.add_(self.spread(shift))

    def synthesize(self, filters: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
        """The sum of the filters at their windows, weighted by the maps: analysis' adjoint.

        From maps (n_samples, n_codes) to images (n_samples, n_features).
        """
        if self.tile == (1, 1):
            maps, kernels = self._unflattened(maps, self.maps_shape), self._kernels(filters)
            block = self._block(maps)
            if block == (1, 1):
                with exact_convolutions(maps.device):
                    images = conv_transpose2d(maps, kernels, stride=self.stride)
            else:
                images = _transposed_by_blocks(maps, kernels, block)
        else:
            patches = torch.bmm(self._split(maps), self._banks(filters))
            images = self._overlaid(patches, len(maps))
        return self._cropped(images)

    def filter_gradient(self, images: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
        """Gradient of sum(maps * analyze(filters, images)) with respect to the filters."""
        images = self._padded(images)
        if self.tile == (1, 1):
            shape = (self.n_filters, self.image_shape[2], *self.filter_shape)
            maps = self._unflattened(maps, self.maps_shape)
            with exact_convolutions(images.device):
                gradient = conv2d_weight(images, shape, maps, stride=self.stride)
        else:
            gradient = torch.bmm(self._split(maps).transpose(1, 2), self._patches(images))
            gradient = gradient.view(-1, self.image_shape[2], *self.filter_shape)
        return gradient.permute(0, 2, 3, 1).reshape(self.filters_shape)

    def spread(self, values: torch.Tensor) -> torch.Tensor:
        """What belongs to each filter, at each of its codes: (n, ) to (n_codes, )."""
        height, width, n_filters = self.maps_shape
        down, rows, across, columns = self._tiling
        maps = values.view(rows, columns, n_filters).repeat(down, across, 1)
        return maps[:height, :width].reshape(-1)

    def collect(self, values: torch.Tensor) -> torch.Tensor:
        """The sums over each filter's codes, the adjoint of `spread`: (n_codes, ) to (n, )."""
        return self._split(values.unsqueeze(0)).sum(1).reshape(-1)

    # Flat rows with channels last are what torch calls a view in the format "channels last".

    def _unflattened(self, flat, shape):
        return flat.view(len(flat), *shape).permute(0, 3, 1, 2)

    def _kernels(self, filters):
        return self._unflattened(filters, (*self.filter_shape, self.image_shape[2]))

    def _block(self, maps):
        """Height and width of the pixel blocks by which synthesis is fastest."""
        # oneDNN's kernels fill vectors of 8 or 16 floats with channels: few leave them empty.
        suits = maps.dtype == torch.float32 and maps.device.type == "cpu" and self.stride == 1
        if not suits or maps.numel() < _MANY_CODES:
            return 1, 1
        height, width, channels = self.image_shape
        side = 4 if channels == 1 else 2 if channels <= 8 else 1
        return min(side, height), min(side, width)

    @cached_property
    def _margins(self):
        """Pixels to add (leave out, if negative) left, right, above, below, for whole tiles."""
        margins = []
        for axis in (1, 0):
            (n_windows, before), tile = self._axes[axis], self.tile[axis]
            n_windows += -n_windows % tile
            covered = (n_windows - 1) * self.stride + self.filter_shape[axis]
            margins += [before, covered - before - self.image_shape[axis]]
        return margins

    def _padded(self, images):
        images = self._unflattened(images, self.image_shape)
        return pad(images, self._margins) if any(self._margins) else images

    def _cropped(self, images):
        if any(self._margins):
            images = pad(images, [-margin for margin in self._margins])
        return images.permute(0, 2, 3, 1).reshape(len(images), -1)

    # Where filters are not shared by all windows, products are taken tile position by tile
    # position: (rows * columns, n_samples * n_tiles, ...).

    def _banks(self, filters):
        n_banks, channels = self.tile[0] * self.tile[1], self.image_shape[2]
        banks = filters.view(n_banks, self.n_filters, -1, channels).transpose(2, 3)
        return banks.reshape(n_banks, self.n_filters, -1)

    def _patches(self, images):
        patches = unfold(images, self.filter_shape, stride=self.stride)
        return self._by_bank(patches.transpose(1, 2))

    def _overlaid(self, patches, n_samples):
        height, width, _ = self.image_shape
        left, right, top, bottom = self._margins
        patches = self._by_sample(patches, n_samples).flatten(1, 2).transpose(1, 2)
        covered = (top + height + bottom, left + width + right)
        return fold(patches, covered, self.filter_shape, stride=self.stride)

    def _split(self, maps):
        maps = maps.view(len(maps), *self.maps_shape)
        missing = [-n % t for n, t in zip(self.maps_shape, self.tile, strict=False)]
        return self._by_bank(pad(maps, (0, 0, 0, missing[1], 0, missing[0])))

    def _joined(self, products, n_samples):
        height, width, _ = self.maps_shape
        maps = self._by_sample(products, n_samples)
        return maps[:, :height, :width].reshape(n_samples, -1)

    @property
    def _tiling(self):
        """Tiles along the height, windows of one, and the same along the width."""
        (rows, columns), (height, width, _) = self.tile, self.maps_shape
        return -(-height // rows), rows, -(-width // columns), columns

    def _by_bank(self, windows):
        _, rows, _, columns = self._tiling
        windows = windows.reshape(len(windows), *self._tiling, windows.shape[-1])
        windows = windows.permute(2, 4, 0, 1, 3, 5)
        return windows.reshape(rows * columns, -1, windows.shape[-1])

    def _by_sample(self, windows, n_samples):
        down, rows, across, columns = self._tiling
        windows = windows.view(rows, columns, n_samples, down, across, windows.shape[-1])
        windows = windows.permute(2, 3, 0, 4, 1, 5)
        return windows.reshape(n_samples, down * rows, across * columns, windows.shape[-1])


def _transposed_by_blocks(maps, kernels, block):
    """conv_transpose2d of stride 1 as a convolution whose channels are the pixels of blocks.

    It multiplies more, by zeros, but two to six times as fast where images have few channels.
    """
    n_images, _, height, width = maps.shape
    _, channels, rows, columns = kernels.shape
    down, across = block
    flipped = kernels.transpose(0, 1).flip(2, 3)
    shifted = [
        pad(flipped, (right, across - 1 - right, below, down - 1 - below))
        for below in range(down)
        for right in range(across)
    ]
    shifted = torch.cat(shifted).contiguous(memory_format=torch.channels_last)
    covered = height + rows - 1, width + columns - 1
    missing = [-pixels % side for pixels, side in zip(covered, block, strict=True)]
    if any(missing):
        maps = pad(maps, (0, missing[1], 0, missing[0]))
    blocks = conv2d(maps, shifted, stride=block, padding=(rows - 1, columns - 1))
    n_down, n_across = blocks.shape[2:]
    images = blocks.permute(0, 2, 3, 1).reshape(n_images, n_down, n_across, *block, channels)
    images = images.transpose(2, 3).reshape(n_images, n_down * down, n_across * across, channels)
    return images[:, : covered[0], : covered[1]].permute(0, 3, 1, 2)


def largest_eigenvalue(
    product: Callable[[torch.Tensor], torch.Tensor], start: torch.Tensor, n_steps: int = 12
) -> float:
    """The largest eigenvalue of a symmetric matrix without negative ones, from below.

    By ``n_steps`` steps of Lanczos 1950, each a ``product`` of the matrix with a vector, from a
    ``start`` of noise, which has a part along every eigenvector. They come much nearer than as many
    powers of the matrix where other eigenvalues are almost as large; FISTA is stable for steps up
    to a third longer than that of the true value, so what they still miss does no harm. Infinite
    where products are not finite.
    """
    vector, previous = start / torch.linalg.vector_norm(start), None
    diagonal: list[float] = []
    beside: list[float] = []
    for _ in range(min(n_steps, len(start))):
        image = product(vector)
        if beside:
            image.sub_(previous, alpha=beside[-1])
        diagonal.append(float(torch.dot(image, vector)))
        image.sub_(vector, alpha=diagonal[-1])
        beside.append(float(torch.linalg.vector_norm(image)))
        # Not so where the vectors span all that the start has a part in, or all has overflowed.
        if not 0 < beside[-1] < math.inf:
            break
        previous, vector = vector, image.div_(beside[-1])
    # The matrix as those vectors see it.
    on, off = torch.tensor([diagonal, beside], dtype=torch.float64)
    if not on.isfinite().all():
        return math.inf
    matrix = on.diag() + off[:-1].diag(1) + off[:-1].diag(-1)
    return float(torch.linalg.eigvalsh(matrix)[-1])


def squared_norm(linear_map: Any, filters: torch.Tensor, n_steps: int = 12) -> float:
    """The largest eigenvalue of synthesis times analysis, by `largest_eigenvalue`."""

    def product(x):
        maps = linear_map.analyze(filters, x.unsqueeze(0))
        return linear_map.synthesize(filters, maps).squeeze(0)

    return largest_eigenvalue(product, noise_like(filters, linear_map.n_features), n_steps)


def noise_like(tensor: torch.Tensor, n: int) -> torch.Tensor:
    """N normal numbers of the dtype and on the device of a tensor, the same in every call."""
    generator = torch.Generator(tensor.device).manual_seed(0)
    return tensor.new_empty(n).normal_(generator=generator)
