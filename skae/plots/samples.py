"""How good samples are, as pictures: errors of columns and of pairs of them."""

import math

import numpy as np

from skae._validation import check_count
from skae.diagnostics import compare_samples
from skae.plots.images import axes, document_display


@document_display
class SampleComparisonDisplay:
    """Errors of all columns and pairs of columns of samples, as one square for each set of them.

    On the diagonal of a square are the errors of single columns, beside it those of pairs. Squares
    share their colours.

    Made by `from_samples` or `from_comparison`; parameters are stored as attributes.

    Parameters
    ----------
    names : sequence of str
        Of the sets of samples.
    errors : ndarray of shape (n_sets, n_columns, n_columns)
        From 0 to 1; on the diagonals those of columns.
    detection_auc : ndarray of shape (n_sets,)
        Of a classifier that tells samples from data, which titles show.
    columns : sequence of str
        Names of the columns.

    Attributes
    ----------
    images_ : list of matplotlib AxesImage
        One for each set of samples that is drawn.

    See Also
    --------
    skae.diagnostics.compare_samples : What is drawn.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.mixture import GaussianMixture
    >>> from skae.plots import SampleComparisonDisplay
    >>> X = load_iris().data
    >>> samples = GaussianMixture(3, random_state=0).fit(X).sample(150)[0]
    >>> display = SampleComparisonDisplay.from_samples(X, samples, random_state=0)
    >>> display.errors.shape
    (1, 4, 4)
    """

    def __init__(self, names, errors, detection_auc, columns):
        self.names, self.errors = names, errors
        self.detection_auc, self.columns = detection_auc, columns

    @classmethod
    def from_samples(cls, X, samples, *, ax=None, **options):
        """Compute `skae.diagnostics.compare_samples` and draw it.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, n_features)
            Rows that the model learned from.
        samples : {array-like, DataFrame} of shape (n_drawn, n_features), or dict of them
            Samples, or several sets of them, by names.
        **options
            Those of `skae.diagnostics.compare_samples`.
        """
        return cls.from_comparison(compare_samples(X, samples, **options), ax=ax)

    @classmethod
    def from_comparison(cls, comparison, *, ax=None):
        """Draw what `skae.diagnostics.compare_samples` has returned.

        Parameters
        ----------
        comparison : SampleComparison
        """
        errors = comparison.pair_errors + [np.diag(own) for own in comparison.column_errors]
        names, auc = comparison.names, comparison.detection_auc
        return cls(names, errors, auc, comparison.columns).plot(ax)

    def plot(self, ax=None, *, n_names=30):
        """Draw the squares, into an axes that is given the first one alone.

        Parameters
        ----------
        n_names : int, default=30
            Columns up to which their names are shown.
        """
        check_count("n_names", n_names, 0)
        n_sets = 1 if ax is not None else len(self.names)
        self.figure_, self.ax_ = axes(ax, (math.ceil(n_sets / 2), min(n_sets, 2)))
        grid = [self.ax_] if n_sets == 1 else self._grid(n_sets)
        top = float(np.max(self.errors[:n_sets])) or 1.0
        self.images_ = []
        for number, one in enumerate(grid):
            image = one.imshow(self.errors[number], vmin=0, vmax=top, cmap="viridis")
            self.images_.append(image)
            title = f"{self.names[number]}: detected with AUC {self.detection_auc[number]:.2f}"
            one.set_title(title, fontsize="small")
            places = np.arange(len(self.columns)) if len(self.columns) <= n_names else []
            labels = [str(self.columns[place]) for place in places]
            one.set_xticks(places, labels, rotation=90, fontsize="x-small")
            one.set_yticks(places, labels if number % 2 == 0 else [""] * len(labels))
            one.tick_params(axis="y", labelsize="x-small")
        self.figure_.colorbar(self.images_[-1], ax=grid, label="error")
        return self

    def _grid(self, n_sets):
        """One axes for each set, in the place of the only one."""
        self.ax_.set_axis_off()
        spec = self.ax_.get_subplotspec().subgridspec(math.ceil(n_sets / 2), 2)
        return [self.figure_.add_subplot(spec[number // 2, number % 2]) for number in range(n_sets)]
