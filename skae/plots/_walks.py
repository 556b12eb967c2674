"""Where a row goes along a tangent."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skae.diagnostics import tangents
from skae.plots._drawing import as_images, axes, draw_grid, tiled
from skae.plots._rows import as_dense, first_rows


class TangentWalkDisplay:
    r"""Steps from a row of data along its tangents, decoded or not.

    One line of images for each tangent u of unit length: :math:`x + t u` for a row of t, or
    its reconstruction. A straight step leaves a curved manifold; the reconstruction
    leads back to it.

    It is recommended to use `from_estimator` to create a display. All parameters are stored
    as attributes.

    Parameters
    ----------
    walks : ndarray of shape (n_images, n_tangents, n_steps, height, width)
        What is drawn.
    steps : ndarray of shape (n_steps,)
        The values of t.

    Attributes
    ----------
    image_ : matplotlib AxesImage
        The grid, one line for each tangent of the first image, then those of the next, with
        NaN between the images.
    ax_ : matplotlib Axes
        Axes of the grid.
    figure_ : matplotlib Figure
        Figure of the axes.

    See Also
    --------
    TangentDisplay : The tangents themselves.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import ContractiveAutoEncoder
    >>> from skae.plots import TangentWalkDisplay
    >>> X = load_digits().data / 16
    >>> cae = ContractiveAutoEncoder(64, max_iter=20, random_state=0).fit(X)
    >>> display = TangentWalkDisplay.from_estimator(cae, X[:2], n_tangents=3)
    >>> display.walks.shape
    (2, 3, 7, 8, 8)
    """

    def __init__(self, walks, steps):
        self.walks, self.steps = walks, steps

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X,
        *,
        steps=(-3, -2, -1, 0, 1, 2, 3),
        n_tangents=3,
        directions=None,
        decode=True,
        n_images=5,
        image_shape=None,
        ax=None,
        cmap="gray",
    ):
        """Walk from the first rows of X along their tangents.

        Parameters
        ----------
        estimator : estimator
            Fitted, with `transform` and `inverse_transform`.
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data.
        steps : sequence of float, default=(-3, -2, -1, 0, 1, 2, 3)
            Values of t: Euclidean distances from the row, in the units of the data.
        n_tangents : int, default=3
            Tangents of each row.
        directions : array-like of shape (n_samples, n_directions, n_features), default=None
            Where to walk, such as the `tangents` of a `ManifoldTangentClassifier`, for at
            least the rows that are drawn; brought to unit length, the first ``n_tangents``
            are used. None: `skae.diagnostics.tangents` of the estimator.
        decode : bool, default=True
            Whether to draw the reconstruction of :math:`x + t u`, or that itself.
        n_images : int, default=5
            Rows of X to walk from at most.
        image_shape : tuple of (height, width), default=None
            Pixels of one row of X. None takes a square, where the number of features is one.
        ax : matplotlib Axes, default=None
            Axes to draw into. None makes a figure.
        cmap : str or matplotlib Colormap, default="gray"
            Colours from the smallest to the largest value of X that is drawn; values beyond
            take the colours of these.

        Returns
        -------
        display : TangentWalkDisplay

        Raises
        ------
        ValueError
            If there are fewer directions than tangents, or the features do not fill
            ``image_shape``, or do not fill a square.
        ImportError
            If matplotlib is missing.
        """
        check_is_fitted(estimator)
        rows = first_rows(X, n_images)
        if directions is None:
            directions = tangents(estimator, rows, n_tangents).directions
        directions = _unit_directions(directions, rows.shape, n_tangents)
        steps = np.asarray(steps, dtype=float)
        start = as_dense(rows)[:, np.newaxis, np.newaxis]
        walks = start + steps[:, np.newaxis] * directions[:, :, np.newaxis]
        shape = walks.shape
        walks = walks.reshape(-1, shape[-1])
        if decode:
            walks = estimator.inverse_transform(estimator.transform(walks))
        images = as_images(walks, image_shape)
        return cls(images.reshape(*shape[:3], *images.shape[1:]), steps).plot(ax, cmap=cmap)

    def plot(self, ax=None, *, cmap="gray"):
        """Draw one line of images for each tangent, with the values of t above.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw into. None makes a figure.
        cmap : str or matplotlib Colormap, default="gray"
            Colours from the smallest to the largest value at t nearest to 0; values beyond
            take the colours of these.

        Returns
        -------
        self : TangentWalkDisplay
        """
        n_steps, height, width = self.walks.shape[2:]
        grid = tiled(self.walks.reshape(-1, height, width), n_steps)
        start = self.walks[:, :, np.abs(self.steps).argmin()]
        self.figure_, self.ax_ = axes(ax, (grid.shape[0] + width, grid.shape[1]))
        # Straight steps leave the range of the data: its contrast is what should be seen.
        self.image_ = draw_grid(self.ax_, grid, cmap=cmap, limits=(start.min(), start.max()))
        self.image_.set_cmap(self.image_.get_cmap().with_extremes(bad="w"))
        for number, step in enumerate(self.steps):
            centre = number * (width + 1) + (width - 1) / 2
            label = f"t = {step:g}" if number == 0 else f"{step:g}"
            self.ax_.text(centre, -1, label, ha="center", va="bottom")
        return self


def _unit_directions(directions, shape, n_tangents):
    """The first directions of the first rows, each of length 1."""
    directions = np.asarray(directions, dtype=float)
    if directions.ndim != 3 or len(directions) < shape[0] or directions.shape[2] != shape[1]:
        raise ValueError(
            f"directions have shape {directions.shape}: pass an array of shape (n_samples, "
            f"n_directions, n_features), here of at least {shape[0]} rows and {shape[1]} features."
        )
    directions = directions[: shape[0], :n_tangents]
    length = np.linalg.norm(directions, axis=2, keepdims=True)
    return directions / np.where(length > 0, length, 1)
