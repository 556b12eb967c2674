"""Where in [0, 1] the values of codes lie."""

from typing import NamedTuple

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skae.plots._drawing import axes


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
    def from_estimator(cls, estimator, X, *, name=None, margin=0.05, bins=20, ax=None):
        """Draw the codes of rows.

        Parameters
        ----------
        estimator : estimator
            Fitted, with codes in [0, 1], as those of sigmoid units.
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data.
        name : str, default=None
            Label of the histogram. None takes the name of the estimator's class.
        margin : float, default=0.05
            Distance from the ends that counts as saturated.
        bins : int, default=20
            Of equal width, between 0 and 1.
        ax : matplotlib Axes, default=None
            Axes to draw into. None makes a figure.

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
        name = type(estimator).__name__ if name is None else name
        return cls.from_estimators({name: estimator}, X, margin=margin, bins=bins, ax=ax)

    @classmethod
    def from_estimators(cls, estimators, X, *, margin=0.05, bins=20, ax=None):
        """Draw the codes of several models into one axes.

        Parameters
        ----------
        estimators : dict of str to estimator
            Fitted models by the name to show, with codes in [0, 1].
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data.
        margin : float, default=0.05
            Distance from the ends that counts as saturated.
        bins : int, default=20
            Of equal width, between 0 and 1.
        ax : matplotlib Axes, default=None
            Axes to draw into. None makes a figure.

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
        return cls(codes).plot(ax, margin=margin, bins=bins)

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
