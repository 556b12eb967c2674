"""Lines: losses of a training, and how far learning rules follow the gradient."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skae.diagnostics import gradient_agreement
from skae.plots.drawing import axes


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
        self.figure_, self.ax_ = axes(ax)
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
    def from_estimator(cls, estimator, X, *, measure="cosine", ax=None, **options):
        """Compute `skae.diagnostics.gradient_agreement` and draw it.

        Parameters
        ----------
        estimator : RBM
            Fitted, with at most 12 visible and 12 hidden units, all of them binary.
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data, with values in [0, 1].
        measure : {"cosine", "sign_agreement"}, default="cosine"
            What to draw.
        ax : matplotlib Axes, default=None
            Axes to draw into. None makes a figure.
        **options
            Those of `skae.diagnostics.gradient_agreement`.

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
        found = gradient_agreement(estimator, X, **options)
        display = cls(found.rules, found.mean_weight, found.cosine, found.sign_agreement)
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
        self.figure_, self.ax_ = axes(ax)
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
