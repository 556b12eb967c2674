"""What users pass to `fit` besides data: how a training is kept, stopped and averaged.

Each class says what is wanted. What is done is `skae.estimators.face.sessions`.
"""

import dataclasses
from collections.abc import Callable
from numbers import Integral, Real
from os import PathLike
from typing import Any, NamedTuple, Self


class Callback:
    """What scikit-learn asks of a callback: nothing is done at its calls."""

    def setup(self, estimator, context) -> None:
        """Refuse an estimator that knows no callbacks of skae.

        Parameters
        ----------
        estimator : estimator
            The one whose `fit` begins.
        context : CallbackContext
            Not used.

        Raises
        ------
        TypeError
            If the estimator is none of skae that is trained.
        """
        if "callbacks" not in getattr(estimator, "_parameter_constraints", {}):
            raise TypeError(
                f"{type(self).__name__} is for estimators of skae that are trained, not for "
                f"{type(estimator).__name__}. Set it on a part that is one."
            )

    def teardown(self, estimator, context) -> None:
        """Nothing.

        Parameters
        ----------
        estimator : estimator
            Not used.
        context : CallbackContext
            Not used.
        """

    def on_fit_task_begin(self, estimator, context) -> None:
        """Nothing.

        Parameters
        ----------
        estimator : estimator
            Not used.
        context : CallbackContext
            Not used.
        """

    def on_fit_task_end(self, estimator, context) -> bool:
        """Nothing.

        Parameters
        ----------
        estimator : estimator
            Not used.
        context : CallbackContext
            Not used.

        Returns
        -------
        stop : bool
            False.
        """
        return False

    def __sklearn_clone__(self) -> Self:
        return self


@dataclasses.dataclass(frozen=True)
class Checkpoint(Callback):
    """Let a fit survive: its whole state goes to a file, from which `fit` goes on.

    Pass it as ``callbacks`` to any estimator of skae that is trained. Where the process is killed,
    call `fit` again, in another one, with the same parameters and data: it goes on from the file,
    and ends with the bits of a fit that was never interrupted (on the same machine and number of
    threads). Trainings that were finished, as of the layers of a stack, are not repeated; after the
    last one the file stays, and `fit` returns the same model at once.

    The file holds parameters, the optimiser's moments, generators, Markov chains, statistics of
    dictionaries, curves and the best weights so far, as arrays and JSON: nothing in it could run.
    It is replaced when the new one is whole. Where it cannot be written, as on a full disk, the fit
    goes on with a warning. A file that is damaged is refused with a warning, and the one before is
    used.

    With ``distributed=True`` the first process has the file, which is of all; a group of as many
    processes, each with the same rows, goes on from it.

    Not in `partial_fit`, whose state `skae.save` stores between two calls, nor in batched searches.

    Read more in the :ref:`User Guide <survive>`.

    Parameters
    ----------
    path : str or path-like
        The file. Or a folder, where each fit has a file of its own, named by what it is a fit of:
        for searches and cross-validation, whose fits would else find each other's file.
    every : float, default=1.0
        How many minutes, or epochs, lie between two checkpoints.
    unit : {"minutes", "epochs"}, default="minutes"
        With "minutes", amid epochs, too.
    keep : int, default=2
        How many files are kept: ``path`` is the latest, ``path.1`` the one before, and so on.

    Raises
    ------
    ValueError
        By `fit`: if the file is of a fit of another model, version or data; the message names what
        differs.
    ModelFileError
        By `fit`: if there are files, and all are damaged.

    See Also
    --------
    save : Store a fitted model.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from skae import AutoEncoder, Checkpoint
    >>> X = np.random.default_rng(0).random((50, 4))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     checkpoint = Checkpoint(os.path.join(folder, "fit.skae"), every=1, unit="epochs")
    ...     model = AutoEncoder(2, max_iter=5, callbacks=[checkpoint], random_state=0).fit(X)
    ...     sorted(os.listdir(folder))
    ['fit.skae', 'fit.skae.1']
    """

    path: str | PathLike
    every: float = dataclasses.field(default=1.0, kw_only=True)
    unit: str = dataclasses.field(default="minutes", kw_only=True)
    keep: int = dataclasses.field(default=2, kw_only=True)

    def check(self) -> None:
        """Raise a ValueError for a parameter that is impossible, a TypeError for no path."""
        if not isinstance(self.path, str | PathLike):
            raise TypeError(f"The path of a Checkpoint must be a path. Got {self.path!r} instead.")
        if self.unit not in ("minutes", "epochs"):
            raise ValueError(
                "The unit of a Checkpoint must be 'minutes' or 'epochs'. "
                f"Got {self.unit!r} instead."
            )
        least = 1 if self.unit == "epochs" else 0
        if not isinstance(self.every, Real) or not self.every >= least:
            raise ValueError(
                f"The number of {self.unit} between checkpoints, every, must be at least {least}. "
                f"Got {self.every!r} instead."
            )
        if not isinstance(self.keep, Integral) or self.keep < 1:
            raise ValueError(
                f"A Checkpoint must keep one file or more. Got keep={self.keep!r} instead."
            )


@dataclasses.dataclass(frozen=True, eq=False)
class EarlyStopping(Callback):
    """Watch rows or a score of your own, and keep the weights of the best epoch.

    As ``early_stopping=True``, which holds out a part of the training rows instead; ``tol`` and
    ``n_iter_no_change`` of the estimator say when to stop, and ``validation_curve_`` has the loss,
    or the score, after each epoch. Of stacks the training of the whole is watched.

    Read more in the :ref:`User Guide <callbacks>`.

    Parameters
    ----------
    X_val : array-like of shape (n_samples, n_features)
        Rows that are not trained on.
    y_val : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
        Their targets, for predictors, or for ``scoring``.
    sample_weight_val : array-like of shape (n_samples,), default=None
        Weights of the rows in the loss.
    scoring : str or callable, default=None
        What is watched in the place of the loss, higher is better: a name that scikit-learn knows,
        or ``scoring(estimator, X_val, y_val)``, which is called with the model after each epoch.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import AutoEncoder, EarlyStopping
    >>> X = load_digits().data / 16
    >>> stopping = EarlyStopping(X[1500:])
    >>> model = AutoEncoder(25, max_iter=10, callbacks=[stopping], random_state=0).fit(X[:1500])
    >>> len(model.validation_curve_) == model.n_iter_
    True
    """

    X_val: Any
    y_val: Any = None
    sample_weight_val: Any = dataclasses.field(default=None, kw_only=True)
    scoring: str | Callable | None = dataclasses.field(default=None, kw_only=True)

    def check(self) -> None:
        """Raise a ValueError for parameters that are impossible together."""
        if self.X_val is None:
            raise ValueError("EarlyStopping needs rows, X_val.")
        if self.scoring is not None and not (
            isinstance(self.scoring, str) or callable(self.scoring)
        ):
            raise ValueError(
                "The scoring of an EarlyStopping must be a name, a function or None. "
                f"Got {self.scoring!r} instead."
            )
        if self.scoring is not None and self.sample_weight_val is not None:
            raise ValueError(
                "EarlyStopping's sample_weight_val weighs rows in the loss, not in a score: let "
                "scoring be a function that knows the weights."
            )


@dataclasses.dataclass(frozen=True)
class Snapshots(Callback):
    r"""Keep a mean of the weights after the last epochs, in the place of those after the last one.

    .. math::

        \bar\theta_n = \frac{\sum_{a=0}^{k-1} \gamma^a \theta_{n-a}}{\sum_{a=0}^{k-1} \gamma^a}

    k being ``n_epochs``, and :math:`\gamma` ``decay``. Training itself goes on from
    :math:`\theta_n`; the mean is what held-out rows judge, and what `fit` keeps. A mean of the
    weights of a stochastic descent lies nearer to the optimum than each of them. In a stack it is
    taken in every training, of each layer and of the whole.

    Read more in the :ref:`User Guide <callbacks>`.

    Parameters
    ----------
    n_epochs : int or None, default=10
        How many of the last epochs count; each takes as much memory as the parameters. None: all.
    decay : float, default=1.0
        The weight of an epoch over that of the next one. With ``n_epochs=None`` and less than 1 it
        is an exponential mean.

    References
    ----------
    .. [1] B. Polyak, A. Juditsky. Acceleration of stochastic approximation by averaging. SIAM
       Journal on Control and Optimization 30, 1992.
    .. [2] P. Izmailov, D. Podoprikhin, T. Garipov, D. Vetrov, A. G. Wilson. Averaging weights leads
       to wider optima and better generalization. UAI 2018.

    Examples
    --------
    >>> import numpy as np
    >>> from skae import AutoEncoder, Snapshots
    >>> X = np.random.default_rng(0).random((50, 4))
    >>> model = AutoEncoder(2, max_iter=5, callbacks=[Snapshots(3)], random_state=0).fit(X)
    >>> model.transform(X).shape
    (50, 2)
    """

    n_epochs: int | None = 10
    decay: float = dataclasses.field(default=1.0, kw_only=True)

    def check(self) -> None:
        """Raise a ValueError for a parameter that is out of its range."""
        if self.n_epochs is not None and not (
            isinstance(self.n_epochs, Integral) and self.n_epochs >= 1
        ):
            raise ValueError(
                "The n_epochs of Snapshots must be an integer of at least 1, or None. "
                f"Got {self.n_epochs!r} instead."
            )
        if not isinstance(self.decay, Real) or not 0 < self.decay <= 1:
            raise ValueError(
                "The decay of Snapshots must be more than 0 and at most 1. "
                f"Got {self.decay!r} instead."
            )


class Chosen(NamedTuple):
    """The callbacks of skae that an estimator has, one of each kind at most."""

    checkpoint: Checkpoint | None = None
    stopping: EarlyStopping | None = None
    snapshots: Snapshots | None = None


_KINDS = Checkpoint, EarlyStopping, Snapshots


def callbacks_of(estimator) -> Chosen:
    """The callbacks of an estimator: of its parameter, and of scikit-learn's ``set_callbacks``.

    Raises a ValueError for what is none of skae's in the parameter, and for two of a kind.
    """
    given = getattr(estimator, "callbacks", None)
    own = [] if given is None else [*given] if isinstance(given, list | tuple) else [given]
    for callback in own:
        if not isinstance(callback, _KINDS):
            names = ", ".join(kind.__name__ for kind in _KINDS)
            raise ValueError(
                f"callbacks of {type(estimator).__name__} are {names}. Got {callback!r} instead; "
                "set those of scikit-learn by set_callbacks."
            )
    others = vars(estimator).get("_skl_callbacks", ())
    own += [callback for callback in others if isinstance(callback, _KINDS)]
    for kind in _KINDS:
        n_given = sum(isinstance(callback, kind) for callback in own)
        if n_given > 1:
            raise ValueError(
                f"{type(estimator).__name__} has {n_given} callbacks of the kind {kind.__name__}: "
                "pass one."
            )
    return Chosen(
        next((c for c in own if isinstance(c, Checkpoint)), None),
        next((c for c in own if isinstance(c, EarlyStopping)), None),
        next((c for c in own if isinstance(c, Snapshots)), None),
    )


def refuse_callbacks(estimator) -> None:
    """Raise a ValueError if an estimator has any whose `partial_fit` is called."""
    names = [type(c).__name__ for c in callbacks_of(estimator) if c is not None]
    if names:
        raise ValueError(
            f"partial_fit of {type(estimator).__name__} knows no {' nor '.join(names)}: what it "
            "has learned so far is the state from which the next call goes on, and skae.save "
            "stores it. Set callbacks=None, or call fit."
        )
