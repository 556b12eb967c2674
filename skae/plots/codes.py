"""Codes of rows as points, and what units respond to."""

from collections import Counter

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skae._validation import check_count
from skae.diagnostics import unit_weights
from skae.plots.bars import draw_groups, short
from skae.plots.images import as_dense, axes, document_display, require_codes

# Numbers of more values than this have a scale of colours; of others, each has a colour.
_FEW = 10
_OTHER = "0.7"


@document_display
class CodeDisplay:
    """Codes of rows as points of a plane, with colours.

    Made by `from_estimator`; parameters are stored as attributes.

    Parameters
    ----------
    points : ndarray of shape (n_samples, 2)
        Places of the rows.
    labels : tuple of (str, str)
        Of the axes.
    colors : ndarray of shape (n_samples,), default=None
        Numbers, or categories, of the rows.
    color_name : str, default=None
        What they are.

    Attributes
    ----------
    scatters_ : dict of matplotlib PathCollection
        One for each category, by its value; or one, by ``color_name``.

    See Also
    --------
    UnitWeightDisplay : What units respond to.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from skae import AutoEncoder
    >>> from skae.plots import CodeDisplay
    >>> X, y = load_wine(return_X_y=True, as_frame=True)
    >>> model = AutoEncoder(8, random_state=0).fit(X)
    >>> display = CodeDisplay.from_estimator(model, X, color=y)
    >>> display.points.shape, sorted(display.scatters_)
    ((178, 2), ['0', '1', '2'])
    """

    def __init__(self, points, labels, colors=None, color_name=None):
        self.points, self.labels = points, labels
        self.colors, self.color_name = colors, color_name

    @classmethod
    def from_estimator(cls, estimator, X, *, color=None, units=None, **options):
        """Draw the codes of the rows of X.

        Parameters
        ----------
        estimator : estimator
            Fitted, with `transform`; a pipeline as well.
        color : str, int or array-like of shape (n_samples,), default=None
            The name of a column of X, or its place in an array, or what is to be seen of each row,
            such as y.
        units : tuple of (int, int), default=None
            The two units that are drawn. None: the two directions along which codes vary most,
            their principal components.

        Raises
        ------
        ValueError
            If there are no two units, or colours are not one for each row.
        """
        check_is_fitted(estimator)
        require_codes(estimator)
        codes = np.asarray(as_dense(estimator.transform(X)), dtype=np.float64)
        if codes.shape[1] < 2:
            raise ValueError(
                "A plane needs two units, but this code has one: draw it against a column, or fit "
                "with more units."
            )
        if units is None:
            points, labels = _principal(codes)
        else:
            units = _checked_units(units, codes.shape[1])
            points, labels = codes[:, units], tuple(f"unit {unit}" for unit in units)
        colors, name = _colors(X, color, len(codes))
        return cls(points, labels, colors, name).plot(**options)

    def plot(self, ax=None, *, cmap="viridis", size=12):
        """Draw the points.

        Parameters
        ----------
        cmap : str or matplotlib Colormap, default="viridis"
            Colours of numbers.
        size : float, default=12
            Of a point.
        """
        self.figure_, self.ax_ = axes(ax)
        style, (x, y) = dict(s=size, linewidths=0, alpha=0.8), np.asarray(self.points).T
        if self.colors is None:
            self.scatters_ = {"rows": self.ax_.scatter(x, y, **style)}
        elif _is_scale(self.colors):
            values = np.asarray(self.colors, dtype=np.float64)
            known = ~np.isnan(values)
            self.ax_.scatter(x[~known], y[~known], color=_OTHER, **style)
            points = self.ax_.scatter(x[known], y[known], c=values[known], cmap=cmap, **style)
            self.scatters_ = {self.color_name: points}
            self.figure_.colorbar(points, ax=self.ax_, label=self.color_name)
        else:
            self._draw_categories(x, y, style)
        self.ax_.set(xlabel=self.labels[0], ylabel=self.labels[1])
        return self

    def _draw_categories(self, x, y, style):
        texts = np.array([short(value) for value in self.colors])
        kept = [text for text, _ in Counter(texts.tolist()).most_common(_FEW)]
        self.scatters_ = {}
        others = ~np.isin(texts, kept)
        if others.any():
            self.scatters_["others"] = self.ax_.scatter(
                x[others], y[others], color=_OTHER, label="others", **style
            )
        for number, text in enumerate(sorted(kept)):
            own = texts == text
            self.scatters_[text] = self.ax_.scatter(
                x[own], y[own], color=f"C{number}", label=text, **style
            )
        self.ax_.legend(title=self.color_name, markerscale=2)


def _principal(codes):
    """Codes along their first two principal components, and labels with these' shares."""
    centered = codes - codes.mean(axis=0)
    _, values, directions = np.linalg.svd(centered, full_matrices=False)
    directions = directions[:2]
    largest = np.abs(directions).argmax(axis=1)
    directions *= np.sign(directions[[0, 1], largest])[:, None]
    shares = np.square(values[:2]) / (np.square(values).sum() or 1.0)
    labels = tuple(f"direction {n} ({share:.0%} of variance)" for n, share in enumerate(shares, 1))
    return centered @ directions.T, labels


def _checked_units(units, n_units):
    units = np.asarray(units)
    inside = units.shape == (2,) and units.dtype.kind in "iu"
    if not inside or (units < -n_units).any() or (units >= n_units).any():
        raise ValueError(
            f"units={units.tolist()!r} must be two numbers of units, of which there are {n_units}."
        )
    return units % n_units


def _colors(X, color, n_rows):
    """What is to be seen of each row, and what it is called."""
    if color is None:
        return None, None
    if isinstance(color, str | int | np.integer):
        try:
            values = X[color] if hasattr(X, "columns") else np.asarray(as_dense(X))[:, color]
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(f"color={color!r} is no column of X.") from error
        return np.asarray(values), str(color)
    values = np.asarray(color)
    if values.shape != (n_rows,):
        raise ValueError(
            f"color has the shape {values.shape}, but X has {n_rows} rows: pass one value for each "
            "row, or the name of a column."
        )
    return values, str(getattr(color, "name", None) or "color")


def _is_scale(colors):
    """Whether colours are numbers of many values."""
    return np.asarray(colors).dtype.kind in "iuf" and len(np.unique(colors)) > _FEW


@document_display
class UnitWeightDisplay:
    """Units, each with the columns that it responds to most.

    One group of bars for each unit, and one bar for each column, as long as its weight: to the
    right where the unit grows with it. Weights are of columns as they are standardised.

    Made by `from_estimator`; parameters are stored as attributes.

    Parameters
    ----------
    units : ndarray of shape (n_units,)
        Numbers of the units.
    weights : ndarray of shape (n_units, n_columns)
        Their weights.
    names : sequence of str
        Names of the columns.
    measure : str, default="weight"
        What the weights are: those of one layer, or mean derivatives of the code.

    Attributes
    ----------
    bars_ : list of matplotlib BarContainer
        One for each unit.
    columns_ : ndarray of shape (n_units, n_drawn)
        The columns that are drawn for each unit, that of the largest weight first.

    See Also
    --------
    skae.diagnostics.unit_weights : What is drawn.
    FilterDisplay : The same for images.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from skae import AutoEncoder
    >>> from skae.plots import UnitWeightDisplay
    >>> X = load_wine(as_frame=True).data
    >>> model = AutoEncoder(6, max_iter=20, random_state=0).fit(X)
    >>> display = UnitWeightDisplay.from_estimator(model, n_units=3)
    >>> display.weights.shape
    (3, 13)
    """

    def __init__(self, units, weights, names, measure="weight"):
        self.units, self.weights, self.names, self.measure = units, weights, names, measure

    @classmethod
    def from_estimator(cls, estimator, X=None, *, units=None, n_units=6, **options):
        """Compute `skae.diagnostics.unit_weights` and draw them.

        Parameters
        ----------
        estimator : AutoEncoder, RBM, PSD, StackedAutoEncoder or the like
            Fitted.
        X : {array-like, data frame} of shape (n_samples, n_features), default=None
            Data. Encoders of several layers need some hundred rows.
        units : sequence of int, default=None
            Numbers of the units to draw, the first at the top. None: those of the largest weights.
        n_units : int, default=6
            Units at most, where they are not given.

        Raises
        ------
        ValueError
            If there is no X and the encoder has several layers, or there is no such unit.
        """
        check_count("n_units", n_units, 1)
        names, weights = unit_weights(estimator, X)
        if units is None:
            units = np.argsort(-np.square(weights).sum(axis=1), kind="stable")[:n_units]
        units = np.asarray(units)
        outside = units.dtype.kind not in "iu" or units.ndim != 1 or not len(units)
        if outside or (units < 0).any() or (units >= len(weights)).any():
            raise ValueError(
                f"units={units.tolist()!r} must be numbers of units, from 0 to {len(weights) - 1}."
            )
        measure = "weight" if X is None else "mean derivative"
        return cls(units, weights[units], names, measure).plot(**options)

    def plot(self, ax=None, *, n_columns=5):
        """Draw one group of bars for each unit.

        Parameters
        ----------
        n_columns : int, default=5
            Columns of each unit at most.
        """
        weights = np.asarray(self.weights)
        self.figure_, self.ax_, self.columns_, self.bars_ = draw_groups(
            ax,
            [f"unit {unit}" for unit in self.units],
            weights,
            n_columns,
            sizes=np.abs(weights),
            label=lambda unit, column: short(self.names[column]),
            colors=np.where(weights > 0, "tab:red", "tab:blue"),
        )
        self.ax_.axvline(0, color="black", linewidth=0.8)
        self.ax_.set_xlabel(self.measure)
        return self
