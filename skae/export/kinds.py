"""The steps that torch and ONNX have in common."""

from typing import NamedTuple, TypeAlias

import numpy as np

from skae.engine.networks.layers import AffineMap


class Standardize(NamedTuple):
    """(x - shift) / scale, column by column."""

    shift: np.ndarray
    scale: np.ndarray


class Affine(NamedTuple):
    """x W^T + b, W of shape (n_outputs, n_inputs): the engine's map, with the values it has.

    There may be no b.
    """

    weight: np.ndarray
    bias: np.ndarray | None
    map: AffineMap


class Shrink(NamedTuple):
    r"""sign(x) max(|x| - t, 0) with thresholds t or, with a sharpness c, smooth at the bend.

    .. math:: \mathrm{sign}(x) \bigl(\log(e^{c t} + e^{c |x|} - 1) / c - t\bigr)
    """

    threshold: np.ndarray
    sharpness: np.ndarray | None


class Select(NamedTuple):
    """Some of the columns."""

    columns: np.ndarray


class Fill(NamedTuple):
    """The values in the place of NaN, column by column."""

    values: np.ndarray


class Apply(NamedTuple):
    """Activations by name, and "softmax", each of its own columns; they are all of them.

    So are "bend", x / sqrt(1 + (x / 3)^2), and "clamp", to [0, 1].
    """

    pieces: tuple[tuple[str, np.ndarray], ...]


Step: TypeAlias = Standardize | Fill | Affine | Apply | Shrink | Select
