"""The columns of a table: what is lost of them, and samples beside data."""

import math

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skae._validation import check_count
from skae.diagnostics import column_laws, reconstruction_errors
from skae.plots.bars import short
from skae.plots.curves import ComparisonDisplay
from skae.plots.images import axes, document_display


@document_display
class ReconstructionErrorDisplay(ComparisonDisplay):
    """What is lost of each column in the reconstruction, of one model or of several.

    Bars are mean errors of the columns, the largest at the top. 1, at the line, is that of a guess
    that knows nothing of the row: the column's mean, or its most frequent value.

    Made by `from_estimator` or `from_estimators`; parameters are stored as attributes.

    Parameters
    ----------
    names : sequence of str
        Names of the columns.
    errors : dict of str to ndarray of shape (n_columns,)
        Mean errors, by the model's name.

    Attributes
    ----------
    bars_ : dict of str to matplotlib BarContainer
        By the model's name.
    columns_ : ndarray
        The columns that are drawn, from the top.

    See Also
    --------
    skae.diagnostics.reconstruction_errors : What is drawn.
    OutlierDisplay : The errors of single rows.
    ReconstructionDisplay : Reconstructions of images.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from skae import AutoEncoder
    >>> from skae.plots import ReconstructionErrorDisplay
    >>> X = load_wine(as_frame=True).data
    >>> models = {str(n): AutoEncoder(n, random_state=0).fit(X) for n in (2, 8)}
    >>> display = ReconstructionErrorDisplay.from_estimators(models, X)
    >>> bool(display.errors["8"].mean() < display.errors["2"].mean())
    True
    """

    def __init__(self, names, errors):
        self.names, self.errors = names, errors

    @classmethod
    def from_estimators(cls, estimators, X, **options):
        """Draw the mean `skae.diagnostics.reconstruction_errors` of several models.

        Parameters
        ----------
        X : {array-like, data frame} of shape (n_samples, n_features)
            Data.

        Raises
        ------
        ValueError
            If a model does not reconstruct.
        """
        found = {}
        for name, estimator in estimators.items():
            check_is_fitted(estimator)
            names, errors = reconstruction_errors(estimator, X)
            count = np.maximum((~np.isnan(errors)).sum(axis=0), 1)
            found[name] = np.nansum(errors, axis=0) / count
        return cls(names, found).plot(**options)

    def plot(self, ax=None, *, n_columns=20):
        """Draw one bar for each column and model.

        Parameters
        ----------
        n_columns : int, default=20
            Columns at most: those of the largest errors of any model.
        """
        check_count("n_columns", n_columns, 1)
        errors = np.array(list(self.errors.values()))
        self.columns_ = np.argsort(-errors.max(axis=0), kind="stable")[:n_columns]
        size, places = 0.8 / len(errors), np.arange(len(self.columns_))
        height = 0.25 * max(1, len(errors) / 2) * len(places) + 1
        self.figure_, self.ax_ = axes(ax, (height, 6.4))
        self.bars_ = {}
        for number, (name, own) in enumerate(self.errors.items()):
            middle = places + (number - (len(errors) - 1) / 2) * size
            self.bars_[name] = self.ax_.barh(middle, own[self.columns_], size, label=name)
        self.ax_.axvline(1, color="black", linewidth=0.8, linestyle="dashed")
        self.ax_.set_yticks(places, [short(self.names[c]) for c in self.columns_])
        self.ax_.set_ylim(len(places) - 0.5, -0.5)
        self.ax_.set_xlabel("mean error of the reconstruction; 1: nothing is known of the row")
        if len(errors) > 1:
            self.ax_.legend()
        return self


@document_display
class SampleColumnDisplay:
    """Samples beside the data, column by column: the parts of the rows that have each value.

    Data are grey. Columns are in the order of how far samples are from data, the furthest first.

    Made by `from_samples` or `from_estimator`; parameters are stored as attributes.

    Parameters
    ----------
    laws : list of ColumnLaw
        Of each column, see `skae.diagnostics.column_laws`.
    names : sequence of str
        Of the sets of samples.

    Attributes
    ----------
    axes_ : list of matplotlib Axes
        One for each column that is drawn.
    columns_ : list of int
        The columns that are drawn.

    See Also
    --------
    SampleComparisonDisplay : Errors of columns and of pairs of them.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from skae import RBM
    >>> from skae.plots import SampleColumnDisplay
    >>> X = load_wine(as_frame=True).data
    >>> machine = RBM(16, max_iter=20, random_state=0).fit(X)
    >>> display = SampleColumnDisplay.from_estimator(machine, X, n_samples=200, burn_in=50)
    >>> len(display.laws), len(display.axes_)
    (13, 12)
    """

    def __init__(self, laws, names):
        self.laws, self.names = laws, names

    @classmethod
    def from_samples(cls, X, samples, *, n_bins=20, ax=None, n_columns=12):
        """Compute `skae.diagnostics.column_laws` and draw them.

        Parameters
        ----------
        X : {array-like, data frame} of shape (n_samples, n_features)
            Rows that the model learned from.
        samples : {array-like, data frame} of shape (n_drawn, n_features), or dict of them
            Samples, or several sets of them, by names.
        n_bins : int, default=20
            Bins of numbers.
        n_columns : int, default=12
            Columns at most.
        """
        sets = samples if isinstance(samples, dict) else {"samples": samples}
        laws = column_laws(X, sets, n_bins=n_bins)
        return cls(laws, tuple(sets)).plot(ax, n_columns=n_columns)

    @classmethod
    def from_estimator(
        cls, estimator, X, *, n_samples=1000, random_state=0, ax=None, n_columns=12, **options
    ):
        """Draw samples of a model, and then them.

        Parameters
        ----------
        estimator : estimator
            Fitted, with `sample`.
        X : {array-like, data frame} of shape (n_samples, n_features)
            Rows that the model learned from.
        n_samples : int, default=1000
            Rows that are drawn.
        random_state : int, RandomState instance or None, default=0
            Of the samples.
        n_columns : int, default=12
            Columns at most.
        **options
            Those of its `sample`.

        Raises
        ------
        ValueError
            If the model has no samples.
        """
        check_is_fitted(estimator)
        if not hasattr(estimator, "sample"):
            raise ValueError(
                f"{type(estimator).__name__} has no samples. Auto-encoders that were trained with "
                "noise, RBM and stacks of them have; from_samples draws those of other models."
            )
        drawn = estimator.sample(n_samples, random_state=random_state, **options)
        name = type(estimator).__name__
        return cls.from_samples(X, {name: drawn}, ax=ax, n_columns=n_columns)

    def plot(self, ax=None, *, n_columns=12):
        """Draw the columns, into an axes that is given the first one alone.

        Parameters
        ----------
        n_columns : int, default=12
            Columns at most.
        """
        check_count("n_columns", n_columns, 1)
        order = np.argsort([-law.distances.max(initial=0) for law in self.laws], kind="stable")
        self.columns_ = order[: 1 if ax is not None else n_columns].tolist()
        n_wide = min(3, len(self.columns_))
        n_high = math.ceil(len(self.columns_) / n_wide)
        self.figure_, self.ax_ = axes(ax, (0.8 * n_high, n_wide))
        self.axes_ = [self.ax_] if len(self.columns_) == 1 else self._grid(n_high, n_wide)
        for own, column in zip(self.axes_, self.columns_, strict=True):
            self._draw(own, self.laws[column])
        handles = self.axes_[0].get_legend_handles_labels()
        if ax is None and len(self.columns_) > 1:  # below all of them
            self.figure_.legend(*handles, loc="outside lower center", ncols=4, fontsize="small")
        else:
            self.axes_[0].legend(*handles, fontsize="x-small")
        return self

    def _grid(self, n_high, n_wide):
        """One axes for each column, in the place of the only one."""
        self.ax_.set_axis_off()
        spec = self.ax_.get_subplotspec().subgridspec(n_high, n_wide)
        places = [divmod(number, n_wide) for number in range(len(self.columns_))]
        return [self.figure_.add_subplot(spec[place]) for place in places]

    def _draw(self, ax, law):
        if law.edges is None:
            places, size = np.arange(len(law.labels)), 0.8 / len(self.names)
            ax.bar(places, law.shares[0], 1.0, color="0.8", label="data")
            for number, (name, shares) in enumerate(zip(self.names, law.shares[1:], strict=True)):
                middle = places + (number - (len(self.names) - 1) / 2) * size
                ax.bar(middle, shares, 0.6 * size, color=f"C{number}", label=name)
            every = max(1, math.ceil(len(places) / 6))
            ax.set_xticks(places[::every], [short(label)[:10] for label in law.labels[::every]])
        else:
            edges = law.edges
            ax.stairs(law.shares[0], edges, fill=True, color="0.8", label="data")
            for number, (name, shares) in enumerate(zip(self.names, law.shares[1:], strict=True)):
                ax.stairs(shares, edges, color=f"C{number}", label=name)
            if law.holds == "dates":
                ax.xaxis_date()
                ax.set_xticks(edges[[len(edges) // 5, -1 - len(edges) // 5]])
            else:
                ax.locator_params(axis="x", nbins=4)
        ax.set_title(short(law.name), fontsize="small")
        ax.set_yticks([])
        ax.tick_params(labelsize="x-small")
