"""Curves of training."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skae.plots._drawing import axes


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
