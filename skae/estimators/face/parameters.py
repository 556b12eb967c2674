"""Constructor parameters, each declared once: default, legal values, meaning.

    @estimator
    class Model(BaseEstimator):
        alpha: float = parameter(0.0, [Interval(Real, 0, None, closed="left")], "float ...")

gives ``Model`` the constructor that scikit-learn expects (it only assigns), the
constraints that `validate_parameters` checks in ``fit``, and the "Parameters" section
of its docstring, where it says ``{parameters}``. A subclass inherits all of them, so a
named variant of a model is a class that restates a default.

The constructor parameters of training, which all learned models share.
"""

import dataclasses
import inspect
import textwrap
from numbers import Integral, Real

import torch
from sklearn.base import BaseEstimator

from skae._validation import Interval, StrOptions
from skae.engine.optimisation.optimizers import OPTIMIZERS
from skae.engine.optimisation.training import SCHEDULES


def parameter(default, constraints, doc, *, positional=False):
    """Declare a constructor parameter, by keyword only unless ``positional``.

    Parameters
    ----------
    default : None, str, number, bool or tuple
    constraints : list
        Legal values, as scikit-learn's parameter validation takes them.
    doc : str
        First line: the type. Then what it does. The default is added.
    """
    metadata = {"constraints": constraints, "doc": inspect.cleandoc(doc)}
    return dataclasses.field(default=default, kw_only=not positional, metadata=metadata)


def preset(cls, name, default):
    """The declaration of an inherited parameter with another default."""
    field = cls.__dataclass_fields__[name]
    return dataclasses.field(default=default, kw_only=field.kw_only, metadata=field.metadata)


def estimator(cls):
    """Class decorator that makes the constructor and composes the docstring."""
    cls = dataclasses.dataclass(eq=False, repr=False)(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    cls._parameter_constraints = {name: f.metadata["constraints"] for name, f in fields.items()}
    if cls.__doc__:
        # A class's own parameters come first in its documentation.
        declared = [name for base in cls.__mro__ for name in inspect.get_annotations(base)]
        order = [name for name in dict.fromkeys(declared) if name in fields]
        text = inspect.cleandoc(cls.__doc__)
        text = text.replace("{parameters}", "\n".join(_documented(fields[n]) for n in order))
        text = text.replace("{attributes}", inspect.cleandoc(getattr(cls, "_attributes_doc", "")))
        cls.__doc__ = text
    return cls


def validate_parameters(model):
    """Raise scikit-learn's InvalidParameterError where a parameter is out of bounds."""
    BaseEstimator._validate_params(model)


def _documented(field):
    kind, _, meaning = field.metadata["doc"].partition("\n")
    return f"{field.name} : {kind}, default={field.default!r}\n{textwrap.indent(meaning, '    ')}"


@estimator
class TrainingParameters:
    """Parameters of `skae.engine.optimisation.training.train`, as constructor parameters."""

    batch_size: int = parameter(
        100,
        [Interval(Integral, 1, None, closed="left")],
        """int
        Rows per gradient step. An epoch's batches differ in size by one row at most.""",
    )
    learning_rate: float = parameter(
        1e-3,
        [Interval(Real, 0, None, closed="neither")],
        """float
        Step size of the optimiser. Objectives are means over rows, so it does not
        depend on ``batch_size``.""",
    )
    learning_rate_schedule: str = parameter(
        "constant",
        [StrOptions(set(SCHEDULES))],
        """{"constant", "linear", "cosine"}
        Course of the learning rate over ``max_iter`` epochs: constant, or falling to
        zero linearly or along a half cosine.""",
    )
    optimizer: str = parameter(
        "adam",
        [StrOptions(set(OPTIMIZERS))],
        """{"adam", "sgd", "nesterov", "rmsprop", "adagrad"}
        The rule of the gradient steps, by torch's kernels.""",
    )
    momentum: float = parameter(
        0.9,
        [Interval(Real, 0, 1, closed="left")],
        """float
        Momentum of "sgd", "nesterov" and "rmsprop".""",
    )
    max_iter: int = parameter(
        100,
        [Interval(Integral, 1, None, closed="left")],
        """int
        Epochs at most.""",
    )
    tol: float = parameter(
        1e-4,
        [Interval(Real, 0, None, closed="left")],
        """float
        Progress that counts, as a fraction of the loss's whole fall so far.""",
    )
    n_iter_no_change: int = parameter(
        10,
        [Interval(Integral, 1, None, closed="left"), None],
        """int or None
        Epochs without progress after which training ends. None: never before
        ``max_iter``.""",
    )
    early_stopping: bool = parameter(
        False,
        ["boolean"],
        """bool
        Whether to hold out a part of the rows, watch the loss there instead of the
        training loss, and keep the weights of the best epoch.""",
    )
    validation_fraction: float = parameter(
        0.1,
        [Interval(Real, 0, 1, closed="neither")],
        """float
        Part of the rows that ``early_stopping`` holds out.""",
    )
    warm_start: bool = parameter(
        False,
        ["boolean"],
        """bool
        Whether `fit` continues from the weights of the last fit.""",
    )
    device: str = parameter(
        "auto",
        [str, torch.device],
        """str or torch.device
        "auto" takes CUDA, then MPS or XPU, then the CPU, when `fit` is called; or any
        device of torch, such as "cpu" or "cuda:1".""",
    )
    verbose: bool = parameter(
        False,
        ["verbose"],
        """bool or int
        Whether to show a progress line with losses and time left.""",
    )
    random_state: int = parameter(
        None,
        ["random_state"],
        """int, RandomState instance or None
        Seed of weights, batches and noise. The same int gives the same bits on the
        same device and number of threads.""",
    )

    _attributes_doc = """
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, where X had string names.
    weights_ : dict of str to ndarray
        All learned parameters by name.
    columns_ : Columns
        Losses, shift, scale, mean and range of the columns; the network sees
        (x - columns_.shift) / columns_.scale.
    n_iter_ : int
        Epochs run.
    loss_curve_ : list of float
        Training objective of each epoch, in nats per row: a mean over the epoch's
        batches, so it includes the epoch's progress.
    validation_curve_ : list of float
        Objective on the held-out rows after each epoch; empty without early stopping.
    stopping_reason_ : str
        "max_iter", "converged", "stopped" (by a callback), "interrupted" (Ctrl-C: the
        model so far was kept) or "diverged" (the best finite weights were kept).
    device_ : str
        Where the model was trained.
    """
