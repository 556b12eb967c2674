"""Rows beside the directions in which they may vary, and where these lead, as images."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skae.diagnostics import local_pca_tangents, tangents
from skae.plots.images import (
    as_dense,
    as_images,
    axes,
    document_display,
    draw_grid,
    first_rows,
    require_pixels,
    scaled,
    tiled,
)

# Between images, and between groups of them, as parts of an image's width.
_GAP, _WIDE_GAP = 0.08, 0.35


@document_display
class TangentDisplay:
    """Images, each beside its tangents: the directions in which it may vary.

    One line for each image, one group of columns for each source of tangents. A tangent shows
    what a step along it adds (red) and takes away (blue), divided by its largest absolute value,
    so that 0 has the same colour in all of them; its sign means nothing.

    Made by `from_estimator`, `from_local_pca`, `from_sources`; parameters are stored as attributes.

    Parameters
    ----------
    inputs : ndarray of shape (n_images, height, width)
        Rows of the data.
    directions : dict of str to ndarray of shape (n_images, n_tangents, height, width)
        Tangents at these rows, by the name of their source, which may differ in number.

    Attributes
    ----------
    input_images_ : list of matplotlib AxesImage
        The rows of the data, on one grey scale.
    tangent_images_ : dict of str to list of list of matplotlib AxesImage
        Tangents scaled to [-1, 1]: by source, one list for each row of the data.

    See Also
    --------
    TangentWalkDisplay : Where a tangent leads.
    skae.diagnostics.tangents : What is drawn for an encoder.
    skae.diagnostics.local_pca_tangents : What is drawn for local PCA.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import ContractiveAutoEncoder
    >>> from skae.diagnostics import local_pca_tangents
    >>> from skae.plots import TangentDisplay
    >>> X = load_digits().data / 16
    >>> cae = ContractiveAutoEncoder(64, max_iter=20, random_state=0).fit(X)
    >>> display = TangentDisplay.from_estimator(cae, X[:3], n_tangents=5)
    >>> display.directions["ContractiveAutoEncoder"].shape
    (3, 5, 8, 8)

    Beside tangents from somewhere else, by functions of rows:

    >>> sources = {
    ...     "contractive": cae,
    ...     "local PCA": lambda rows: local_pca_tangents(X, 5, query=rows).directions,
    ... }
    >>> display = TangentDisplay.from_sources(sources, X[:3], n_tangents=5)
    >>> list(display.directions)
    ['contractive', 'local PCA']
    """

    def __init__(self, inputs, directions):
        self.inputs, self.directions = inputs, directions

    @classmethod
    def from_estimator(cls, estimator, X, *, name=None, **options):
        """Draw the first rows of X beside what an estimator takes for their tangents.

        Parameters
        ----------
        estimator : estimator
            Fitted encoder, for its `skae.diagnostics.tangents`, or `ManifoldTangentClassifier`.
        name : str, default=None
            Title of the tangents. None takes the name of the estimator's class.
        **options
            Those of `from_sources`.
        """
        name = type(estimator).__name__ if name is None else name
        return cls.from_sources({name: estimator}, X, **options)

    @classmethod
    def from_local_pca(
        cls, X, *, query=None, n_tangents=5, n_neighbors=20, name="local PCA", **options
    ):
        """Draw rows beside the principal directions of their nearest neighbours.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows among which neighbours are found.
        query : {array-like, sparse matrix} of shape (n_queries, n_features), default=None
            Rows to draw. None: those of X.
        n_tangents : int, default=5
            Tangents at each row; less than ``n_neighbors``.
        n_neighbors : int, default=20
            Size of a neighbourhood.
        name : str, default="local PCA"
            Title of the tangents.
        **options
            Those of `from_sources`.

        Raises
        ------
        ValueError
            If there are too few neighbours for the tangents.
        """

        def local(rows):
            return local_pca_tangents(X, n_tangents, n_neighbors=n_neighbors, query=rows).directions

        query = X if query is None else query
        return cls.from_sources({name: local}, query, n_tangents=n_tangents, **options)

    @classmethod
    def from_sources(cls, sources, X, *, n_tangents=5, n_images=5, image_shape=None, **options):
        """Draw the first rows of X beside their tangents from several sources.

        Parameters
        ----------
        sources : dict of str to estimator or callable
            By the title to show: fitted estimators, as for `from_estimator`, and functions of rows
            that return directions (n_rows, n_directions, n_features), the most important first.
        n_tangents : int, default=5
            Tangents of each source; of a source that has fewer, all.
        n_images : int, default=5
            Rows of X to draw at most.

        Raises
        ------
        ValueError
            If a source has no tangents at these rows, or features do not fill the image.
        """
        for source in sources.values():
            require_pixels(source)
        rows = first_rows(X, n_images)
        inputs = as_images(as_dense(rows), image_shape)
        directions = {}
        for name, source in sources.items():
            found = _directions(name, source, rows, n_tangents)
            directions[name] = as_images(found, inputs.shape[1:])
        return cls(inputs, directions).plot(**options)

    def plot(self, ax=None, *, cmap="RdBu_r"):
        """Draw each row of the data beside its tangents.

        Parameters
        ----------
        cmap : str or matplotlib Colormap, default="RdBu_r"
            Colours of tangents from -1 to 1.
        """
        n_images, height, width = self.inputs.shape
        across, down = width * (1 + _GAP), height + width * _GAP
        starts, right = {}, across
        for name, directions in self.directions.items():
            starts[name] = right = right + width * _WIDE_GAP
            right += directions.shape[1] * across
        total = (right - width * _GAP, n_images * down - width * _GAP)
        self.figure_, self.ax_ = axes(ax, (total[1] + 0.35 * width, total[0]))

        def draw(images, left, number, **colours):
            top = number * down
            return [
                self.ax_.imshow(
                    image,
                    extent=(left + k * across, left + k * across + width, top + height, top),
                    interpolation="nearest",
                    **colours,
                )
                for k, image in enumerate(images)
            ]

        limits = dict(vmin=self.inputs.min(), vmax=self.inputs.max())
        self.input_images_ = [
            image
            for i, x in enumerate(self.inputs)
            for image in draw([x], 0, i, cmap="gray", **limits)
        ]
        colours = dict(cmap=cmap, vmin=-1, vmax=1)
        self.tangent_images_ = {
            name: [draw(scaled(u), starts[name], i, **colours) for i, u in enumerate(directions)]
            for name, directions in self.directions.items()
        }
        self.ax_.set(xlim=(0, total[0]), ylim=(total[1], 0), aspect="equal")
        self.ax_.set_axis_off()
        widths = {k: d.shape[1] * across - width * _GAP for k, d in self.directions.items()}
        for title, wide in {"input": width, **widths}.items():
            centre = starts.get(title, 0) + wide / 2
            self.ax_.text(centre, -0.06 * width, title, ha="center", va="bottom")
        return self


def _directions(name, source, rows, n_tangents):
    """The first directions of a source, of shape (n_rows, at most n_tangents, n_features)."""
    if hasattr(source, "tangents"):
        found = source.tangents(rows)
    elif callable(source):
        found = source(rows)
    else:
        found = tangents(source, rows, n_tangents).directions
    found = np.asarray(found)
    if found.ndim != 3 or (len(found), found.shape[2]) != rows.shape:
        raise ValueError(
            f"The directions of {name!r} have shape {found.shape}: a source returns an array "
            f"(n_rows, n_directions, n_features), here ({rows.shape[0]}, n_directions, "
            f"{rows.shape[1]})."
        )
    return found[:, :n_tangents]


@document_display
class TangentWalkDisplay:
    r"""Steps from a row of data along its tangents, decoded or not.

    One line of images for each tangent u of unit length: :math:`x + t u` for some t, or its
    reconstruction. A straight step leaves a curved manifold; the reconstruction leads back to it.

    Made by `from_estimator`; parameters are stored as attributes.

    Parameters
    ----------
    walks : ndarray of shape (n_images, n_tangents, n_steps, height, width)
        What is drawn.
    steps : ndarray of shape (n_steps,)
        The values of t.

    Attributes
    ----------
    image_ : matplotlib AxesImage
        The grid, with NaN between images: a line for each tangent of the first row, and so on.

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
        cls, estimator, X, *, steps=(-3, -2, -1, 0, 1, 2, 3), n_tangents=3, directions=None,
        decode=True, n_images=5, image_shape=None, **options,
    ):  # fmt: skip
        """Walk from the first rows of X along their tangents.

        Parameters
        ----------
        steps : sequence of float, default=(-3, -2, -1, 0, 1, 2, 3)
            Values of t: Euclidean distances from the row, in the units of the data.
        n_tangents : int, default=3
            Tangents of each row.
        directions : array-like of shape (n_samples, n_directions, n_features), default=None
            Where to walk, such as the `tangents` of a `ManifoldTangentClassifier`, at least for
            the rows that are drawn; the first ``n_tangents``, brought to unit length. None:
            `skae.diagnostics.tangents` of the estimator.
        decode : bool, default=True
            Whether to draw the reconstruction of :math:`x + t u`, or that itself.
        n_images : int, default=5
            Rows of X to walk from at most.

        Raises
        ------
        ValueError
            If directions do not fit the rows, or features do not fill the image.
        """
        check_is_fitted(estimator)
        require_pixels(estimator)
        rows = first_rows(X, n_images)
        if directions is None:
            directions = tangents(estimator, rows, n_tangents).directions
        directions = _unit_directions(directions, rows.shape, n_tangents)
        steps = np.asarray(steps, dtype=float)
        start = as_dense(rows)[:, np.newaxis, np.newaxis]
        walks = start + steps[:, np.newaxis] * directions[:, :, np.newaxis]
        if decode:
            codes = estimator.transform(walks.reshape(-1, walks.shape[-1]))
            walks = np.asarray(estimator.inverse_transform(codes)).reshape(walks.shape)
        return cls(as_images(walks, image_shape), steps).plot(**options)

    def plot(self, ax=None, *, cmap="gray"):
        """Draw one line of images for each tangent, with the values of t above.

        Parameters
        ----------
        cmap : str or matplotlib Colormap, default="gray"
            Colours of values from the smallest to the largest one at t nearest to 0.
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
