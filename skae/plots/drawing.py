"""What all displays share: some rows of the data, images as grids, axes to draw into."""

import math

import numpy as np


def as_images(rows, image_shape):
    """Arrays of rows (..., n_features) as images (..., height, width), of squares for None."""
    n_features = rows.shape[-1]
    if image_shape is None:
        side = math.isqrt(n_features)
        if side * side != n_features:
            raise ValueError(
                f"{n_features} features do not fill a square; pass image_shape=(height, width)."
            )
        image_shape = (side, side)
    if len(image_shape) != 2 or math.prod(image_shape) != n_features:
        raise ValueError(
            f"image_shape={image_shape!r} does not hold {n_features} features; it must be "
            "(height, width) with height * width equal to their number."
        )
    return rows.reshape(*rows.shape[:-1], *image_shape)


def scaled(images):
    """Images divided by their largest absolute values: 0 has the same colour in all of them."""
    largest = np.abs(images).max(axis=(1, 2), keepdims=True)
    return images / np.where(largest > 0, largest, 1)


def tiled(images, n_columns):
    """Images beside and below each other, with one line of NaN between them."""
    n_images, height, width = images.shape
    n_rows = -(-n_images // n_columns)
    grid = np.full((n_rows * (height + 1) - 1, n_columns * (width + 1) - 1), np.nan)
    for number, image in enumerate(images):
        top, left = (number // n_columns) * (height + 1), (number % n_columns) * (width + 1)
        grid[top : top + height, left : left + width] = image
    return grid


def axes(ax, grid_shape=None):
    """(figure, axes): those given, or new ones as high as the grid asks for."""
    if ax is not None:
        return ax.figure, ax
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            'skae.plots draws with matplotlib, which is missing: pip install "skae[plot]"'
        ) from error
    if grid_shape is None:
        return plt.subplots()
    height, width = grid_shape
    figsize = (6.4, float(np.clip(6.4 * height / width, 0.8, 9)))
    return plt.subplots(figsize=figsize, layout="constrained")


def draw_grid(ax, grid, *, cmap, limits):
    """Pixels as they are, in colours between two limits, without axes."""
    ax.set_axis_off()
    return ax.imshow(grid, cmap=cmap, vmin=limits[0], vmax=limits[1], interpolation="nearest")


def first_rows(X, n_rows):
    """Some rows of the user's data, in the form that they came in."""
    return X.iloc[:n_rows] if hasattr(X, "iloc") else X[:n_rows]


def as_dense(X):
    """An array of what may be a sparse matrix or a data frame."""
    return X.toarray() if hasattr(X, "toarray") else np.asarray(X)
