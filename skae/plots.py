"""Pictures of fitted models, as Display objects that draw the arrays they store.

``from_estimator`` computes, draws and returns the display; ``plot`` draws it again,
for example into another axes. matplotlib is imported only when something is drawn:
``pip install "skae[plot]"``.
"""

import math

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skae.diagnostics import gradient_agreement


class FilterDisplay:
    """The filters of a one-layer model as a grid of images.

    Each filter is divided by its largest absolute weight, so that 0 has the same colour
    in all of them; the sizes of different filters cannot be compared.

    It is recommended to use `from_estimator` to create a display. All parameters are
    stored as attributes.

    Parameters
    ----------
    filters : ndarray of shape (n_filters, height, width)
        Weights, one image for each unit.

    Attributes
    ----------
    image_ : matplotlib AxesImage
        The grid: filters scaled to [-1, 1], with NaN between them.
    ax_ : matplotlib Axes
        Axes of the grid.
    figure_ : matplotlib Figure
        Figure of the axes.

    See Also
    --------
    ReconstructionDisplay : What the model makes of its input.

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
    def from_estimator(cls, estimator, *, image_shape=None, n_filters=64, ax=None, cmap="RdBu_r"):
        """Draw the first rows of ``components_``.

        Parameters
        ----------
        estimator : estimator
            Fitted, with ``components_`` of shape (n_components, n_features).
        image_shape : tuple of (height, width), default=None
            Pixels of one row of the data. None takes a square, where the number of
            features is one.
        n_filters : int, default=64
            Filters to draw at most.
        ax : matplotlib Axes, default=None
            Axes to draw into. None makes a figure.
        cmap : str or matplotlib Colormap, default="RdBu_r"
            Colours from -1 to 1.

        Returns
        -------
        display : FilterDisplay

        Raises
        ------
        ValueError
            If the features do not fill ``image_shape``, or do not fill a square.
        ImportError
            If matplotlib is missing.
        """
        check_is_fitted(estimator)
        filters = _as_images(np.asarray(estimator.components_)[:n_filters], image_shape)
        return cls(filters).plot(ax, cmap=cmap)

    def plot(self, ax=None, *, cmap="RdBu_r"):
        """Draw the grid.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw into. None makes a figure.
        cmap : str or matplotlib Colormap, default="RdBu_r"
            Colours from -1 to 1.

        Returns
        -------
        self : FilterDisplay
        """
        largest = np.abs(self.filters).max(axis=(1, 2), keepdims=True)
        scaled = self.filters / np.where(largest > 0, largest, 1)
        n_columns = math.ceil(math.sqrt(len(scaled)))
        grid = _tiled(scaled, n_columns)
        self.figure_, self.ax_ = _axes(ax, grid.shape)
        self.image_ = _draw_grid(self.ax_, grid, cmap=cmap, limits=(-1, 1))
        # The colour of 0 is often that of the page, so the lines between get their own.
        self.image_.set_cmap(self.image_.get_cmap().with_extremes(bad="0.7"))
        return self


class ReconstructionDisplay:
    """Images above their reconstructions.

    All images share one grey scale, so that a loss of contrast shows.

    It is recommended to use `from_estimator` to create a display. All parameters are
    stored as attributes.

    Parameters
    ----------
    inputs : ndarray of shape (n_images, height, width)
        Rows of the data.
    reconstructions : ndarray of shape (n_images, height, width)
        What the model makes of them.

    Attributes
    ----------
    image_ : matplotlib AxesImage
        The grid, with NaN between the images: rows of inputs alternate with rows of
        reconstructions.
    ax_ : matplotlib Axes
        Axes of the grid.
    figure_ : matplotlib Figure
        Figure of the axes.

    See Also
    --------
    FilterDisplay : The weights of the units.

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
    def from_estimator(
        cls, estimator, X, *, image_shape=None, n_images=10, n_columns=10, ax=None, cmap="gray"
    ):
        """Reconstruct the first rows of X and draw both.

        Parameters
        ----------
        estimator : estimator
            Fitted, with `transform` and `inverse_transform`.
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data.
        image_shape : tuple of (height, width), default=None
            Pixels of one row of X. None takes a square, where the number of features
            is one.
        n_images : int, default=10
            Rows of X to draw at most.
        n_columns : int, default=10
            Images beside each other.
        ax : matplotlib Axes, default=None
            Axes to draw into. None makes a figure.
        cmap : str or matplotlib Colormap, default="gray"
            Colours from the smallest to the largest value drawn.

        Returns
        -------
        display : ReconstructionDisplay

        Raises
        ------
        ValueError
            If the features do not fill ``image_shape``, or do not fill a square.
        ImportError
            If matplotlib is missing.
        """
        check_is_fitted(estimator)
        X = X[:n_images] if not hasattr(X, "iloc") else X.iloc[:n_images]
        reconstructions = np.asarray(estimator.inverse_transform(estimator.transform(X)))
        inputs = X.toarray() if hasattr(X, "toarray") else np.asarray(X)
        display = cls(_as_images(inputs, image_shape), _as_images(reconstructions, image_shape))
        return display.plot(ax, n_columns=n_columns, cmap=cmap)

    def plot(self, ax=None, *, n_columns=10, cmap="gray"):
        """Draw inputs above reconstructions.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw into. None makes a figure.
        n_columns : int, default=10
            Images beside each other.
        cmap : str or matplotlib Colormap, default="gray"
            Colours from the smallest to the largest value drawn.

        Returns
        -------
        self : ReconstructionDisplay
        """
        n_columns = min(n_columns, len(self.inputs))
        pairs = [
            _tiled(images[start : start + n_columns], n_columns)
            for start in range(0, len(self.inputs), n_columns)
            for images in (self.inputs, self.reconstructions)
        ]
        grid = np.vstack([pairs[0], *(_below_a_gap(pair) for pair in pairs[1:])])
        self.figure_, self.ax_ = _axes(ax, grid.shape)
        limits = (np.nanmin(grid), np.nanmax(grid))
        self.image_ = _draw_grid(self.ax_, grid, cmap=cmap, limits=limits)
        return self


class LossCurveDisplay:
    """Loss against epoch, of one model or of several.

    It is recommended to use `from_estimator` or `from_estimators` to create a display.
    All parameters are stored as attributes.

    Parameters
    ----------
    loss_curves : dict of str to array-like
        Training loss of each epoch, by the model's name.
    validation_curves : dict of str to array-like
        Loss on held-out rows, by the model's name; models may be left out or have an
        empty curve.

    Attributes
    ----------
    lines_ : dict of str to matplotlib Line2D
        Training curves, by the model's name.
    validation_lines_ : dict of str to matplotlib Line2D
        Validation curves, dashed, by the model's name.
    ax_ : matplotlib Axes
        Axes of the curves.
    figure_ : matplotlib Figure
        Figure of the axes.

    Notes
    -----
    Curves of models with different penalties or corruptions are different objectives:
    compare such models by `score` on held-out rows instead.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import AutoEncoder
    >>> from skae.plots import LossCurveDisplay
    >>> X, _ = load_digits(return_X_y=True)
    >>> ae = AutoEncoder(25, max_iter=10, early_stopping=True, random_state=0).fit(X / 16)
    >>> display = LossCurveDisplay.from_estimator(ae)
    >>> len(display.loss_curves["AutoEncoder"])
    10
    """

    def __init__(self, loss_curves, validation_curves):
        self.loss_curves, self.validation_curves = loss_curves, validation_curves

    @classmethod
    def from_estimator(cls, estimator, *, name=None, ax=None):
        """Draw ``loss_curve_`` and ``validation_curve_``.

        Parameters
        ----------
        estimator : estimator
            Fitted.
        name : str, default=None
            Label of the curves. None takes the name of the estimator's class.
        ax : matplotlib Axes, default=None
            Axes to draw into. None makes a figure.

        Returns
        -------
        display : LossCurveDisplay

        Raises
        ------
        ImportError
            If matplotlib is missing.
        """
        name = type(estimator).__name__ if name is None else name
        return cls.from_estimators({name: estimator}, ax=ax)

    @classmethod
    def from_estimators(cls, estimators, *, ax=None):
        """Draw the curves of several models into one axes.

        Parameters
        ----------
        estimators : dict of str to estimator
            Fitted models by the name to show.
        ax : matplotlib Axes, default=None
            Axes to draw into. None makes a figure.

        Returns
        -------
        display : LossCurveDisplay

        Raises
        ------
        ImportError
            If matplotlib is missing.
        """
        for estimator in estimators.values():
            check_is_fitted(estimator)
        return cls(
            {name: np.array(e.loss_curve_) for name, e in estimators.items()},
            {name: np.array(e.validation_curve_) for name, e in estimators.items()},
        ).plot(ax)

    def plot(self, ax=None):
        """Draw the curves.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw into. None makes a figure.

        Returns
        -------
        self : LossCurveDisplay
        """
        self.figure_, self.ax_ = _axes(ax)
        self.lines_, self.validation_lines_ = {}, {}
        for name, curve in self.loss_curves.items():
            (line,) = self.ax_.plot(np.arange(1, len(curve) + 1), curve, label=name)
            self.lines_[name] = line
            held_out = self.validation_curves.get(name, ())
            if len(held_out):
                (self.validation_lines_[name],) = self.ax_.plot(
                    np.arange(1, len(held_out) + 1),
                    held_out,
                    linestyle="dashed",
                    color=line.get_color(),
                    label=f"{name}, held out",
                )
        self.ax_.set_xlabel("epoch")
        self.ax_.set_ylabel("loss per row")
        self.ax_.legend()
        return self


class GradientAgreementDisplay:
    """How far learning rules of an RBM follow the log-likelihood as its weights grow.

    It is recommended to use `from_estimator` to create a display. All parameters are
    stored as attributes.

    Parameters
    ----------
    rules : sequence of str
        Names of the learning rules.
    mean_weight : ndarray of shape (n_scales,)
        Mean absolute weight.
    cosine : ndarray of shape (n_rules, n_scales)
        Of the angle between a rule's step and the gradient of the log-likelihood.
    sign_agreement : ndarray of shape (n_rules, n_scales)
        Fraction of parameters that both move in the same direction.

    Attributes
    ----------
    lines_ : dict of str to matplotlib Line2D
        One line for each rule.
    ax_ : matplotlib Axes
        Axes of the lines.
    figure_ : matplotlib Figure
        Figure of the axes.

    See Also
    --------
    skae.diagnostics.gradient_agreement : What is drawn, and what the rules are.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import RBM
    >>> from skae.plots import GradientAgreementDisplay
    >>> X = load_digits().images[:, 2:5, 2:5].reshape(-1, 9) > 7
    >>> rbm = RBM(6, persistent=False, max_iter=20, random_state=0).fit(X)
    >>> display = GradientAgreementDisplay.from_estimator(rbm, X, n_gibbs_steps=(1, 10))
    >>> display.cosine.shape
    (6, 5)
    """

    def __init__(self, rules, mean_weight, cosine, sign_agreement):
        self.rules, self.mean_weight = rules, mean_weight
        self.cosine, self.sign_agreement = cosine, sign_agreement

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X,
        *,
        n_gibbs_steps=(1, 2, 5, 10, 25),
        scales=(0.25, 0.5, 1, 2, 4),
        n_particles=1000,
        growth=0.01,
        random_state=None,
        measure="cosine",
        ax=None,
    ):
        """Compute `skae.diagnostics.gradient_agreement` and draw it.

        Parameters
        ----------
        estimator : RBM
            Fitted, with at most 12 visible and 12 hidden units, all of them binary.
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data, with values in [0, 1].
        n_gibbs_steps : sequence of int, default=(1, 2, 5, 10, 25)
            The values of k for "cd_k".
        scales : sequence of float, default=(0.25, 0.5, 1, 2, 4)
            What weights and biases are multiplied by, in increasing order.
        n_particles : int, default=1000
            Persistent particles of "pcd".
        growth : float, default=0.01
            By how much the scale grows from one Gibbs step of the particles to the next.
        random_state : int, RandomState instance or None, default=None
            Of the particles. None: the estimator's own.
        measure : {"cosine", "sign_agreement"}, default="cosine"
            What to draw.
        ax : matplotlib Axes, default=None
            Axes to draw into. None makes a figure.

        Returns
        -------
        display : GradientAgreementDisplay

        Raises
        ------
        ValueError
            If the machine is too large or not binary, or an argument is out of its range.
        ImportError
            If matplotlib is missing.
        """
        agreement = gradient_agreement(
            estimator,
            X,
            n_gibbs_steps=n_gibbs_steps,
            scales=scales,
            n_particles=n_particles,
            growth=growth,
            random_state=random_state,
        )
        display = cls(
            agreement.rules, agreement.mean_weight, agreement.cosine, agreement.sign_agreement
        )
        return display.plot(ax, measure=measure)

    def plot(self, ax=None, *, measure="cosine"):
        """Draw one line for each rule.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw into. None makes a figure.
        measure : {"cosine", "sign_agreement"}, default="cosine"
            What to draw.

        Returns
        -------
        self : GradientAgreementDisplay
        """
        labels = {"cosine": "cosine", "sign_agreement": "equal signs"}
        if measure not in labels:
            raise ValueError(f"measure={measure!r} must be one of {', '.join(map(repr, labels))}.")
        self.figure_, self.ax_ = _axes(ax)
        self.lines_ = {}
        for rule, values in zip(self.rules, getattr(self, measure), strict=True):
            (line,) = self.ax_.plot(self.mean_weight, values, marker=".", label=rule)
            self.lines_[rule] = line
        self.ax_.set_xscale("log")
        # The sizes that there are, in the place of powers of ten.
        self.ax_.minorticks_off()
        self.ax_.set_xticks(self.mean_weight, [f"{size:.2g}" for size in self.mean_weight])
        self.ax_.set_xlabel("mean absolute weight")
        self.ax_.set_ylabel(f"{labels[measure]} with the log-likelihood gradient")
        self.ax_.legend()
        return self


def _as_images(rows, image_shape):
    n_features = rows.shape[1]
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
    return rows.reshape(-1, *image_shape)


def _tiled(images, n_columns):
    """Images beside and below each other, with one line of NaN between them."""
    n_images, height, width = images.shape
    n_rows = -(-n_images // n_columns)
    grid = np.full((n_rows * (height + 1) - 1, n_columns * (width + 1) - 1), np.nan)
    for number, image in enumerate(images):
        top, left = (number // n_columns) * (height + 1), (number % n_columns) * (width + 1)
        grid[top : top + height, left : left + width] = image
    return grid


def _below_a_gap(grid):
    return np.vstack([np.full((1, grid.shape[1]), np.nan), grid])


def _axes(ax, grid_shape=None):
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


def _draw_grid(ax, grid, *, cmap, limits):
    ax.set_axis_off()
    return ax.imshow(grid, cmap=cmap, vmin=limits[0], vmax=limits[1], interpolation="nearest")
