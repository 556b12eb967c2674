"""Rows and weights drawn as images, and what all displays share: grids, axes to draw into."""

import math

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skae._documentation import complete, entries, joined, public_functions, sections

# Arguments that mean the same in all displays.
_ARGUMENTS = entries(
    """
    estimator : estimator
        Fitted, with `transform` and `inverse_transform`.
    estimators : dict of str to estimator
        Fitted models by the name to show.
    X : {array-like, sparse matrix} of shape (n_samples, n_features)
        Data.
    image_shape : tuple of (height, width), default=None
        Pixels of one row of the data. None takes a square, where the number of features is one.
    of : {"encoder", "reconstruction"}, default="encoder"
        Whether to differentiate the code or the reconstruction.
    measure : {"cosine", "sign_agreement"}, default="cosine"
        What to draw.
    ax : matplotlib Axes, default=None
        Axes to draw into. None makes a figure.
    **options
        Those of `plot`.
    """
)
_DRAWN = "ax_, figure_ : matplotlib Axes and Figure\n    Where it is drawn."


def document_display(cls):
    """Class decorator that completes the docstrings of a display and of its methods."""
    found = sections(cls.__doc__ or "")
    if "Attributes" in found:
        found["Attributes"] += f"\n{_DRAWN}"
        cls.__doc__ = joined(found)
    for name, _, function in public_functions(cls):
        returned = f"{'self' if name == 'plot' else 'display'} : {cls.__name__}"
        complete(function, _ARGUMENTS, returned)
    return cls


# What to do about rows that are no images.
_NO_PIXELS = (
    "The columns of a table are no pixels. Of skae.plots, UnitWeightDisplay draws the weights of "
    "units by the names of columns, ReconstructionErrorDisplay what is lost of each column, "
    "OutlierDisplay which cells of a row are odd, CodeDisplay rows by their codes, and "
    "SampleColumnDisplay samples beside the data."
)


def require_pixels(estimator):
    """Raise a ValueError for a model of a table, whose columns became others."""
    if getattr(estimator, "encoding_", None) is not None:
        raise ValueError(
            f"This {type(estimator).__name__} was fitted on a table, with text, categories, dates "
            f"or gaps, whose rows are no images. {_NO_PIXELS}"
        )


def require_codes(estimator, method="transform"):
    """Raise a ValueError for a model without codes, or without a way back from them."""
    if not hasattr(estimator, method):
        raise ValueError(
            f"{type(estimator).__name__} has no codes ({method}). Pass an auto-encoder, a machine "
            "or a stack, such as the stack_ of a StackedClassifier."
        )


def as_images(rows, image_shape):
    """Arrays of rows (..., n_features) as images (..., height, width), of squares for None."""
    n_features = rows.shape[-1]
    if image_shape is None:
        side = math.isqrt(n_features)
        if side * side != n_features:
            raise ValueError(
                f"{n_features} features do not fill a square. Where rows are images, pass "
                f"image_shape=(height, width). {_NO_PIXELS}"
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


@document_display
class FilterDisplay:
    """The filters of a one-layer model as a grid of images.

    Each is divided by its largest absolute weight, so that 0 has the same colour in all of them;
    the sizes of different filters cannot be compared.

    Made by `from_estimator`; parameters are stored as attributes.

    Parameters
    ----------
    filters : ndarray of shape (n_filters, height, width)
        Weights, one image for each unit.

    Attributes
    ----------
    image_ : matplotlib AxesImage
        The grid: filters scaled to [-1, 1], with NaN between them.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import DenoisingAutoEncoder
    >>> from skae.plots import FilterDisplay
    >>> X, _ = load_digits(return_X_y=True)
    >>> dae = DenoisingAutoEncoder(25, max_iter=10, random_state=0).fit(X / 16)
    >>> display = FilterDisplay.from_estimator(dae)
    >>> display.filters.shape
    (25, 8, 8)
    """

    def __init__(self, filters):
        self.filters = filters

    @classmethod
    def from_estimator(cls, estimator, *, image_shape=None, n_filters=64, **options):
        """Draw the first rows of ``components_``.

        Parameters
        ----------
        estimator : estimator
            Fitted, with ``components_`` of shape (n_components, n_features).
        n_filters : int, default=64
            Filters to draw at most.

        Raises
        ------
        ValueError
            If the features do not fill the image, or there are no such weights.
        """
        check_is_fitted(estimator)
        require_pixels(estimator)
        if getattr(estimator, "components_", None) is None:
            raise ValueError(
                f"This {type(estimator).__name__} has no filters of one layer (components_). Draw "
                "TangentDisplay, which takes encoders of any depth, or those of its lowest layer, "
                "layers_[0], if it has some; of a table, UnitWeightDisplay with X."
            )
        filters = as_images(np.asarray(estimator.components_)[:n_filters], image_shape)
        return cls(filters).plot(**options)

    def plot(self, ax=None, *, cmap="RdBu_r"):
        """Draw the grid.

        Parameters
        ----------
        cmap : str or matplotlib Colormap, default="RdBu_r"
            Colours from -1 to 1.
        """
        grid = tiled(scaled(self.filters), math.ceil(math.sqrt(len(self.filters))))
        self.figure_, self.ax_ = axes(ax, grid.shape)
        self.image_ = draw_grid(self.ax_, grid, cmap=cmap, limits=(-1, 1))
        # The colour of 0 is often that of the page, so the lines between get their own.
        self.image_.set_cmap(self.image_.get_cmap().with_extremes(bad="0.7"))
        return self


@document_display
class ReconstructionDisplay:
    """Images above their reconstructions.

    All images share one grey scale, so that a loss of contrast shows.

    Made by `from_estimator`; parameters are stored as attributes.

    Parameters
    ----------
    inputs : ndarray of shape (n_images, height, width)
        Rows of the data.
    reconstructions : ndarray of shape (n_images, height, width)
        What the model makes of them.

    Attributes
    ----------
    image_ : matplotlib AxesImage
        The grid, with NaN between images: rows of inputs alternate with reconstructions.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import DenoisingAutoEncoder
    >>> from skae.plots import ReconstructionDisplay
    >>> X, _ = load_digits(return_X_y=True)
    >>> dae = DenoisingAutoEncoder(25, max_iter=10, random_state=0).fit(X / 16)
    >>> display = ReconstructionDisplay.from_estimator(dae, X / 16, n_images=5)
    >>> display.reconstructions.shape
    (5, 8, 8)
    """

    def __init__(self, inputs, reconstructions):
        self.inputs, self.reconstructions = inputs, reconstructions

    @classmethod
    def from_estimator(cls, estimator, X, *, image_shape=None, n_images=10, **options):
        """Reconstruct the first rows of X and draw both.

        Parameters
        ----------
        n_images : int, default=10
            Rows of X to draw at most.

        Raises
        ------
        ValueError
            If the features do not fill the image, or the model does not reconstruct.
        """
        check_is_fitted(estimator)
        require_codes(estimator, "inverse_transform")
        require_pixels(estimator)
        X = first_rows(X, n_images)
        reconstructions = np.asarray(estimator.inverse_transform(estimator.transform(X)))
        display = cls(as_images(as_dense(X), image_shape), as_images(reconstructions, image_shape))
        return display.plot(**options)

    def plot(self, ax=None, *, n_columns=10, cmap="gray"):
        """Draw inputs above reconstructions.

        Parameters
        ----------
        n_columns : int, default=10
            Images beside each other.
        cmap : str or matplotlib Colormap, default="gray"
            Colours from the smallest to the largest value drawn.
        """
        n_columns = min(n_columns, len(self.inputs))
        pairs = [
            tiled(images[start : start + n_columns], n_columns)
            for start in range(0, len(self.inputs), n_columns)
            for images in (self.inputs, self.reconstructions)
        ]
        gap = np.full((1, pairs[0].shape[1]), np.nan)
        grid = np.vstack([part for pair in pairs for part in (gap, pair)][1:])
        self.figure_, self.ax_ = axes(ax, grid.shape)
        limits = (np.nanmin(grid), np.nanmax(grid))
        self.image_ = draw_grid(self.ax_, grid, cmap=cmap, limits=limits)
        return self
