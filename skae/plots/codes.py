"""What codes are like: where their values lie, and how fast their Jacobian's spectrum falls."""

from typing import NamedTuple

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skae.diagnostics import jacobian_spectrum
from skae.plots.drawing import axes

# Of the largest value: smaller ones are rounding, and a logarithmic axis ends there.
_LEAST = 1e-4


class Shares(NamedTuple):
    """Of code values, near either end of [0, 1]."""

    low: float
    high: float


class SaturationDisplay:
    """Histogram of code values, with the shares near 0 and 1, of one model or of several.

    Units of a contractive auto-encoder sit near 0 or 1, where the slope of the sigmoid, and with
    it their part in the Jacobian, is nearly 0.

    It is recommended to use `from_estimator` or `from_estimators` to create a display.
    All parameters are stored as attributes.

    Parameters
    ----------
    codes : dict of str to ndarray of shape (n_samples, n_components)
        Values in [0, 1], by the model's name.

    Attributes
    ----------
    histograms_ : dict of str to matplotlib StepPatch
        Share of code values in each bin, by the model's name.
    shares_ : dict of str to tuple of (low, high)
        Shares of values below ``margin`` and above 1 - ``margin``, by the model's name.
    ax_ : matplotlib Axes
        Axes of the histograms.
    figure_ : matplotlib Figure
        Figure of the axes.

    See Also
    --------
    SpectrumDisplay : What saturation does to the Jacobian.
    skae.diagnostics.saturation : Both shares together, for each row.

    References
    ----------
    .. [1] S. Rifai, P. Vincent, X. Muller, X. Glorot, Y. Bengio. Contractive
       auto-encoders: explicit invariance during feature extraction. ICML 2011.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import ContractiveAutoEncoder
    >>> from skae.plots import SaturationDisplay
    >>> X = load_digits().data / 16
    >>> cae = ContractiveAutoEncoder(64, max_iter=20, random_state=0).fit(X)
    >>> display = SaturationDisplay.from_estimator(cae, X)
    >>> low, high = display.shares_["ContractiveAutoEncoder"]
    >>> 0 < low + high < 1
    True
    """

    def __init__(self, codes):
        self.codes = codes

    @classmethod
    def from_estimator(cls, estimator, X, *, name=None, ax=None, **options):
        """Draw the codes of rows: `from_estimators` for one model.

        Parameters
        ----------
        estimator : estimator
            Fitted, with codes in [0, 1], as those of sigmoid units.
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data.
        name : str, default=None
            Label of the histogram. None takes the name of the estimator's class.
        ax : matplotlib Axes, default=None
            Axes to draw into. None makes a figure.
        **options
            Those of `plot`.

        Returns
        -------
        display : SaturationDisplay
        """
        name = type(estimator).__name__ if name is None else name
        return cls.from_estimators({name: estimator}, X, ax=ax, **options)

    @classmethod
    def from_estimators(cls, estimators, X, *, ax=None, **options):
        """Draw the codes of several models into one axes.

        Parameters
        ----------
        estimators : dict of str to estimator
            Fitted models by the name to show, with codes in [0, 1].
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data.
        ax : matplotlib Axes, default=None
            Axes to draw into. None makes a figure.
        **options
            Those of `plot`.

        Returns
        -------
        display : SaturationDisplay

        Raises
        ------
        ValueError
            If codes leave [0, 1], or the margin is not between 0 and 1/2.
        ImportError
            If matplotlib is missing.
        """
        for estimator in estimators.values():
            check_is_fitted(estimator)
        codes = {name: np.asarray(e.transform(X)) for name, e in estimators.items()}
        return cls(codes).plot(ax, **options)

    def plot(self, ax=None, *, margin=0.05, bins=20):
        """Draw one histogram for each model.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw into. None makes a figure.
        margin : float, default=0.05
            Distance from the ends that counts as saturated.
        bins : int, default=20
            Of equal width, between 0 and 1.

        Returns
        -------
        self : SaturationDisplay
        """
        if not 0 < margin < 0.5:
            raise ValueError(f"margin={margin!r} must be more than 0 and less than 1/2.")
        for name, codes in self.codes.items():
            _check_range(name, codes)
        self.figure_, self.ax_ = axes(ax)
        self.histograms_, self.shares_ = {}, {}
        for name, codes in self.codes.items():
            counts, edges = np.histogram(codes, bins=bins, range=(0, 1))
            share = Shares(float((codes < margin).mean()), float((codes > 1 - margin).mean()))
            self.shares_[name] = share
            self.histograms_[name] = self.ax_.stairs(
                counts / codes.size,
                edges,
                linewidth=1.5,
                label=f"{name}: {share.low:.0%} < {margin:g}, {share.high:.0%} > {1 - margin:g}",
            )
        for low, high in ((0, margin), (1 - margin, 1)):
            self.ax_.axvspan(low, high, color="0.93", zorder=0)
        self.ax_.set(xlim=(0, 1), xlabel="code value", ylabel="share of code values")
        self.ax_.legend(frameon=False)
        return self


def _check_range(name, codes):
    low, high = codes.min(), codes.max()
    if low < 0 or high > 1:
        raise ValueError(
            f"Codes of {name!r} are between {low:.3g} and {high:.3g}, and saturation is about "
            'values in [0, 1]: pass models with activation="sigmoid".'
        )


class SpectrumDisplay:
    """Singular values of a code's Jacobian, the largest first, of one model or several.

    A line is the mean over rows, the band around it holds most rows. A spectrum that falls
    fast is that of a code that follows few directions at each row.

    It is recommended to use `from_estimator` or `from_estimators` to create a display.
    All parameters are stored as attributes.

    Parameters
    ----------
    singular_values : dict of str to ndarray of shape (n_samples, n_values)
        Decreasing in each row, by the model's name.

    Attributes
    ----------
    lines_ : dict of str to matplotlib Line2D
        Means over rows, by the model's name.
    bands_ : dict of str to matplotlib collection
        Between two quantiles of rows, by the model's name; empty without quantiles.
    ax_ : matplotlib Axes
        Axes of the lines.
    figure_ : matplotlib Figure
        Figure of the axes.

    See Also
    --------
    TangentDisplay : The directions of the largest ones.
    SaturationDisplay : How a contractive code comes by small ones.
    skae.diagnostics.jacobian_spectrum : What is drawn.
    skae.diagnostics.local_rank : The fall of a spectrum as a number.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import AutoEncoder, ContractiveAutoEncoder
    >>> from skae.plots import SpectrumDisplay
    >>> X = load_digits().data / 16
    >>> models = {
    ...     "plain": AutoEncoder(32, max_iter=10, random_state=0).fit(X),
    ...     "contractive": ContractiveAutoEncoder(32, max_iter=10, random_state=0).fit(X),
    ... }
    >>> display = SpectrumDisplay.from_estimators(models, X[:100], normalize=True)
    >>> display.singular_values["plain"].shape
    (100, 32)
    """

    def __init__(self, singular_values):
        self.singular_values = singular_values

    @classmethod
    def from_estimator(cls, estimator, X, *, name=None, **options):
        """Compute `skae.diagnostics.jacobian_spectrum` and draw it.

        Parameters
        ----------
        estimator : estimator
            Fitted, with a code that has a Jacobian.
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data. Some hundred rows are enough.
        name : str, default=None
            Label of the line. None takes the name of the estimator's class.
        **options
            Those of `from_estimators`.

        Returns
        -------
        display : SpectrumDisplay
        """
        name = type(estimator).__name__ if name is None else name
        return cls.from_estimators({name: estimator}, X, **options)

    @classmethod
    def from_estimators(cls, estimators, X, *, n_values=None, of="encoder", ax=None, **options):
        """Draw the spectra of several models into one axes.

        Parameters
        ----------
        estimators : dict of str to estimator
            Fitted models by the name to show.
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data. Some hundred rows are enough.
        n_values : int, default=None
            How many of the largest. None: all.
        of : {"encoder", "reconstruction"}, default="encoder"
            Whether to differentiate the code or the reconstruction.
        ax : matplotlib Axes, default=None
            Axes to draw into. None makes a figure.
        **options
            Those of `plot`.

        Returns
        -------
        display : SpectrumDisplay

        Raises
        ------
        ValueError
            If a code has no gradient, a Jacobian has fewer singular values, or an
            argument is out of its range.
        ImportError
            If matplotlib is missing.
        """
        values = {name: jacobian_spectrum(e, X, n_values, of=of) for name, e in estimators.items()}
        return cls(values).plot(ax, **options)

    def plot(self, ax=None, *, normalize=False, scale="log", quantiles=(0.1, 0.9)):
        """Draw one line and one band for each model.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw into. None makes a figure.
        normalize : bool, default=False
            Whether to divide the values of each row by its first. Rows where all are 0
            stay so.
        scale : {"log", "linear"}, default="log"
            Of the vertical axis. It is linear where all values are 0.
        quantiles : tuple of (lower, upper), default=(0.1, 0.9)
            Of rows, for the band around the mean. None: no band.

        Returns
        -------
        self : SpectrumDisplay
        """
        if scale not in ("log", "linear"):
            raise ValueError(f"scale={scale!r} must be 'log' or 'linear'.")
        if quantiles is not None and not 0 <= quantiles[0] < quantiles[1] <= 1:
            raise ValueError(
                f"quantiles={quantiles!r} must be (lower, upper) with 0 <= lower < upper <= 1, or "
                "None for no band."
            )
        self.figure_, self.ax_ = axes(ax)
        self.lines_, self.bands_ = {}, {}
        for name, values in self.singular_values.items():
            if normalize:
                first = values[:, :1]
                values = np.divide(values, first, out=np.zeros_like(values), where=first > 0)
            number = np.arange(1, values.shape[1] + 1)
            (line,) = self.ax_.plot(number, values.mean(axis=0), label=name)
            self.lines_[name] = line
            if quantiles is not None:
                lower, upper = np.quantile(values, quantiles, axis=0)
                self.bands_[name] = self.ax_.fill_between(
                    number, lower, upper, color=line.get_color(), alpha=0.15, linewidth=0
                )
        self._limit(scale)
        self.ax_.set_xlabel("number of the singular value")
        self.ax_.set_ylabel("singular value" + (", relative to the first" if normalize else ""))
        self.ax_.legend(frameon=False)
        return self

    def _limit(self, scale):
        means = [line.get_ydata() for line in self.lines_.values()]
        self.ax_.set_xlim(left=1, right=max(len(values) for values in means))
        means = np.concatenate(means)
        if scale == "linear" or means.max() == 0:
            self.ax_.set_ylim(bottom=0)
            return
        self.ax_.set_yscale("log")
        # A band whose lower edge is 0 would stretch a logarithmic axis without end.
        self.ax_.set_ylim(bottom=means[means > _LEAST * means.max()].min() / 2)
