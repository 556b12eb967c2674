"""Lines and histograms: losses, code values, spectra of Jacobians, learning rules."""

from typing import NamedTuple

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skae._validation import check_choice
from skae.diagnostics import gradient_agreement, jacobian_spectrum
from skae.plots.images import axes, document_display, require_codes
from skae.plots.trainings import trainings_of, trainings_of_search

# Of the largest value: smaller ones are rounding, and a logarithmic axis ends there.
_LEAST = 1e-4


@document_display
class ComparisonDisplay:
    """A display of several models, or of one."""

    @classmethod
    def from_estimator(cls, estimator, X=None, *, name=None, **options):
        """Draw one model: `from_estimators` of it alone.

        Parameters
        ----------
        estimator : estimator
            Fitted.
        X : {array-like, sparse matrix} of shape (n_samples, n_features), default=None
            Data, for all displays but loss curves.
        name : str, default=None
            Label. None takes the name of the estimator's class.
        **options
            Those of `from_estimators`.

        Returns
        -------
        display : object
            Of this class.
        """
        name = type(estimator).__name__ if name is None else name
        data = () if X is None else (X,)
        return cls.from_estimators({name: estimator}, *data, **options)


@document_display
class LossCurveDisplay(ComparisonDisplay):
    """Loss against epoch, of one model or of several.

    Made by `from_estimator`, `from_estimators` or `from_search`; parameters are stored as
    attributes.

    Parameters
    ----------
    loss_curves : dict of str to array-like
        Training loss of each epoch, by the model's name.
    validation_curves : dict of str to array-like
        Loss on held-out rows, by the model's name; those of some models may be missing or empty.

    Attributes
    ----------
    lines_ : dict of str to matplotlib Line2D
        Training curves, by the model's name.
    validation_lines_ : dict of str to matplotlib Line2D
        Validation curves, dashed, by the model's name.

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
    def from_estimators(cls, estimators, *, ax=None):
        """Draw ``loss_curve_`` and ``validation_curve_`` of several models into one axes.

        Parameters
        ----------
        estimators : dict of str to estimator
            Fitted models by the name to show; or pipelines and the like, of whose models in them
            curves are drawn.

        Raises
        ------
        ValueError
            If nothing was trained by gradient steps.
        """
        found = [trainings_of(estimator, name) for name, estimator in estimators.items()]
        return cls._of_trainings(
            {name: curves for part in found for name, curves in part.items()}, ax
        )

    @classmethod
    def from_search(cls, search, *, ax=None):
        """Draw the curves of what a search, or a cross-validation, has kept.

        Parameters
        ----------
        search : GridSearchCV, BatchedGridSearchCV or the like, or dict
            Fitted, with ``refit``: the curves of ``best_estimator_`` are drawn. Or what
            `sklearn.model_selection.cross_validate` returns with ``return_estimator=True``: those
            of every fold.

        Raises
        ------
        ValueError
            If no fitted model was kept, or none was trained by gradient steps.
        """
        return cls._of_trainings(trainings_of_search(search), ax)

    @classmethod
    def _of_trainings(cls, found, ax):
        curves = {name: training.loss_curve for name, training in found.items()}
        held_out = {name: training.validation_curve for name, training in found.items()}
        return cls(curves, held_out).plot(ax)

    def plot(self, ax=None):
        """Draw the curves."""
        self.figure_, self.ax_ = axes(ax)
        self.lines_, self.validation_lines_ = {}, {}
        for name, curve in self.loss_curves.items():
            (line,) = self.ax_.plot(np.arange(1, len(curve) + 1), curve, label=name)
            self.lines_[name] = line
            held_out = self.validation_curves.get(name, ())
            if len(held_out):
                style = dict(ls="dashed", color=line.get_color(), label=f"{name}, held out")
                epochs = np.arange(1, len(held_out) + 1)
                (self.validation_lines_[name],) = self.ax_.plot(epochs, held_out, **style)
        self.ax_.set(xlabel="epoch", ylabel="loss per row")
        self.ax_.legend()
        return self


class Shares(NamedTuple):
    """Of code values, near either end of [0, 1]."""

    low: float
    high: float


@document_display
class SaturationDisplay(ComparisonDisplay):
    """Histogram of code values, with the shares near 0 and 1, of one model or of several.

    Units of a contractive auto-encoder sit near 0 or 1, where the slope of the sigmoid, and with
    it their part in the Jacobian, is nearly 0.

    Made by `from_estimator` or `from_estimators`; parameters are stored as attributes.

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

    See Also
    --------
    SpectrumDisplay : What saturation does to the Jacobian.
    skae.diagnostics.saturation : Both shares together, for each row.
    skae.diagnostics.jacobian_norms : What is nearly 0 then, with the paper.

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
    def from_estimators(cls, estimators, X, **options):
        """Draw the codes of several models into one axes.

        Parameters
        ----------
        estimators : dict of str to estimator
            Fitted models by the name to show, with codes in [0, 1], as those of sigmoid units.

        Raises
        ------
        ValueError
            If codes leave [0, 1], or the margin is not between 0 and 1/2.
        """
        for estimator in estimators.values():
            check_is_fitted(estimator)
            require_codes(estimator)
        codes = {name: np.asarray(e.transform(X)) for name, e in estimators.items()}
        return cls(codes).plot(**options)

    def plot(self, ax=None, *, margin=0.05, bins=20):
        """Draw one histogram for each model.

        Parameters
        ----------
        margin : float, default=0.05
            Distance from the ends that counts as saturated.
        bins : int, default=20
            Of equal width, between 0 and 1.
        """
        if not 0 < margin < 0.5:
            raise ValueError(f"margin={margin!r} must be more than 0 and less than 1/2.")
        for name, codes in self.codes.items():
            low, high = codes.min(), codes.max()
            if low < 0 or high > 1:
                raise ValueError(
                    f"Codes of {name!r} are between {low:.3g} and {high:.3g}, and saturation is "
                    'about values in [0, 1]: pass models with activation="sigmoid".'
                )
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


@document_display
class SpectrumDisplay(ComparisonDisplay):
    """Singular values of a code's Jacobian, the largest first, of one model or several.

    A line is the mean over rows, the band around it holds most rows. A spectrum that falls
    fast is that of a code that follows few directions at each row.

    Made by `from_estimator` or `from_estimators`; parameters are stored as attributes.

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

    See Also
    --------
    TangentDisplay : The directions of the largest ones.
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
    def from_estimators(cls, estimators, X, *, n_values=None, of="encoder", **options):
        """Draw the `skae.diagnostics.jacobian_spectrum` of several models into one axes.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data. Some hundred rows are enough.
        n_values : int, default=None
            How many of the largest. None: all.

        Raises
        ------
        ValueError
            If a code has no gradient, a Jacobian has fewer singular values, or an
            argument is out of its range.
        """
        values = {name: jacobian_spectrum(e, X, n_values, of=of) for name, e in estimators.items()}
        return cls(values).plot(**options)

    def plot(self, ax=None, *, normalize=False, scale="log", quantiles=(0.1, 0.9)):
        """Draw one line and one band for each model.

        Parameters
        ----------
        normalize : bool, default=False
            Whether to divide the values of each row by its first, where that is not 0.
        scale : {"log", "linear"}, default="log"
            Of the vertical axis. It is linear where all values are 0.
        quantiles : tuple of (lower, upper), default=(0.1, 0.9)
            Of rows, for the band around the mean. None: no band.
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
        relative = ", relative to the first" if normalize else ""
        self.ax_.set(xlabel="number of the singular value", ylabel=f"singular value{relative}")
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


@document_display
class GradientAgreementDisplay:
    """How far learning rules of an RBM follow the log-likelihood as its weights grow.

    Made by `from_estimator`; parameters are stored as attributes.

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
    def from_estimator(cls, estimator, X, *, measure="cosine", ax=None, **options):
        """Compute `skae.diagnostics.gradient_agreement` and draw it.

        Parameters
        ----------
        estimator : RBM
            Fitted, with at most 12 visible and 12 hidden units, all of them binary.
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data, with values in [0, 1].
        **options
            Those of `skae.diagnostics.gradient_agreement`.

        Raises
        ------
        ValueError
            If the machine is too large or not binary, or an argument is out of its range.
        """
        found = gradient_agreement(estimator, X, **options)
        display = cls(found.rules, found.mean_weight, found.cosine, found.sign_agreement)
        return display.plot(ax, measure=measure)

    def plot(self, ax=None, *, measure="cosine"):
        """Draw one line for each rule."""
        labels = {"cosine": "cosine", "sign_agreement": "equal signs"}
        check_choice("measure", measure, labels)
        self.figure_, self.ax_ = axes(ax)
        self.lines_ = {}
        for rule, values in zip(self.rules, getattr(self, measure), strict=True):
            (self.lines_[rule],) = self.ax_.plot(self.mean_weight, values, marker=".", label=rule)
        self.ax_.set_xscale("log")
        # The sizes that there are, in the place of powers of ten.
        self.ax_.minorticks_off()
        self.ax_.set_xticks(self.mean_weight, [f"{size:.2g}" for size in self.mean_weight])
        ylabel = f"{labels[measure]} with the log-likelihood gradient"
        self.ax_.set(xlabel="mean absolute weight", ylabel=ylabel)
        self.ax_.legend()
        return self
