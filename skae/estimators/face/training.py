"""What all models that are trained share: parameters of training, how it is run and shown."""

import functools
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning

from skae._validation import (
    Interval,
    Registered,
    StrOptions,
    computing_dtype,
)
from skae._warnings import warn
from skae.engine.optimisation import processes
from skae.engine.optimisation.devices import Place, resolve_device
from skae.engine.optimisation.models import Extras, Fitted, Listener, Model, Start, fit_model
from skae.engine.optimisation.optimizers import OPTIMIZERS, Rule
from skae.engine.optimisation.parameters import Parameters
from skae.engine.optimisation.rows import DenseRows, StreamedRows
from skae.engine.optimisation.runs import Data, Settings
from skae.engine.optimisation.schedules import SCHEDULES
from skae.engine.optimisation.sharing import shared_rows
from skae.engine.optimisation.sources import Source
from skae.estimators.face.bridges import CallbackBridge
from skae.estimators.face.callbacks import Callback
from skae.estimators.face.fingerprints import likeness_of
from skae.estimators.face.interruption import follows_on_interrupted, note_interruption
from skae.estimators.face.outcomes import report_outcome
from skae.estimators.face.parameters import (
    attribute,
    estimator,
    get_nested_params,
    parameter,
    set_nested_params,
    validate_parameters,
)
from skae.estimators.face.processes import Distributed
from skae.estimators.face.progress import ProgressLine
from skae.estimators.face.scikit_learn import BaseEstimator, CallbackSupportMixin
from skae.estimators.face.sessions import About, trained
from skae.frames.encoding import Encoding, report_empty
from skae.frames.reading import encode_rows
from skae.frames.streams import encode_source
from skae.sources.tables import Tables

_CPU = torch.device("cpu")
# Settings of training that are parameters as they are.
_SAME = ("learning_rate", "batch_size", "max_iter", "tol", "n_iter_no_change")


@estimator
class TrainedModel(CallbackSupportMixin, BaseEstimator):
    """What is trained by gradient steps, whatever it predicts or returns."""

    batch_size: int = parameter(
        default=100,
        constraints=[Interval(Integral, 1, None, closed="left")],
        doc="Rows per gradient step. An epoch's batches differ in size by one row at most.",
    )
    learning_rate: float = parameter(
        default=1e-3,
        constraints=[Interval(Real, 0, None, closed="neither")],
        doc="""Step size of the optimiser. Objectives are means over rows, so it does not
        depend on ``batch_size``.""",
    )
    learning_rate_schedule: str = parameter(
        default="constant",
        constraints=[Registered(SCHEDULES)],
        kind="{{names}}",
        doc="""Course of the learning rate over ``max_iter`` epochs:

        {summaries}

        A schedule is run to its end, unless ``early_stopping`` ends it.""",
    )
    optimizer: str = parameter(
        default="adam",
        constraints=[Registered(OPTIMIZERS)],
        kind="{{names}}",
        doc="""The rule of the gradient steps, by torch's kernels:

        {summaries}""",
    )
    momentum: float = parameter(
        default=0.9,
        constraints=[Interval(Real, 0, 1, closed="left")],
        doc="""Momentum of "sgd", "nesterov" and "rmsprop".""",
    )
    max_iter: int | str = parameter(
        default=100,
        constraints=[Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        kind='int or "auto"',
        doc="""Epochs at most. "auto": so many that there are 400 + 100 sqrt(n_features) gradient
        steps or a few more, but 5 at least.""",
    )
    tol: float = parameter(
        default=1e-4,
        constraints=[Interval(Real, 0, None, closed="left")],
        doc="Progress that counts, as a fraction of the loss's whole fall so far.",
    )
    n_iter_no_change: int | None = parameter(
        default=10,
        constraints=[Interval(Integral, 1, None, closed="left"), None],
        doc="""Epochs without progress after which training ends. None: never before
        ``max_iter``.""",
    )
    early_stopping: bool = parameter(
        default=False,
        constraints=["boolean"],
        doc="""Whether to hold out a part of the rows, watch the loss there instead of the
        training loss, and keep the weights of the best epoch.""",
    )
    validation_fraction: float = parameter(
        default=0.1,
        constraints=[Interval(Real, 0, 1, closed="neither")],
        doc="Part of the rows that ``early_stopping`` holds out.",
    )
    warm_start: bool = parameter(
        default=False,
        constraints=["boolean"],
        doc="Whether `fit` continues from the weights of the last fit.",
    )
    device: str | torch.device = parameter(
        default="auto",
        constraints=[str, torch.device],
        kind="str or torch.device",
        doc=""""auto" takes CUDA, then MPS or XPU, then the CPU, when `fit` is called; or any
        device of torch, such as "cpu" or "cuda:1".""",
    )
    verbose: bool | int = parameter(
        default=False,
        constraints=["verbose"],
        kind="bool or int",
        doc="Whether to show a progress line with losses and time left.",
    )
    random_state: int | np.random.RandomState | None = parameter(
        default=None,
        constraints=["random_state"],
        kind="int, RandomState instance or None",
        doc="""Seed of weights, batches and noise. The same int gives the same bits on the
        same device and number of threads.""",
    )

    callbacks: Callback | Sequence[Callback] | None = parameter(
        default=None,
        constraints=[list, tuple, Callback, None],
        kind="list of callbacks, callback or None",
        doc="""What accompanies `fit`: a :class:`Checkpoint`, from which a fit that was killed goes
        on, an :class:`EarlyStopping` on rows or a score of your own, :class:`Snapshots`, whose mean
        is kept. ``set_callbacks`` of scikit-learn 1.9 or newer takes them as well.""",
    )

    distributed: bool | Distributed = parameter(
        default=False,
        constraints=["boolean", Distributed],
        kind="bool or Distributed",
        doc="""Whether `fit` and `partial_fit` are made together by all processes of
        torch.distributed, each with rows of its own: see :doc:`/guide/processes`. ``batch_size`` is
        then that of all. A :class:`Distributed` says how they work together.""",
    )

    n_features_in_: int = attribute("int", "Number of features seen in `fit`.")
    feature_names_in_: np.ndarray = attribute(
        "ndarray of shape (n_features_in_,)", "Names of the features, where X had string names."
    )
    encoding_: Encoding | None = attribute(
        "Encoding or None",
        """What the columns of a data frame have become: ``encoding_.names`` are those that the
        network sees, ``encoding_.encode(X)`` is X as it sees it. None where X has numbers only,
        some in every column.""",
    )
    n_iter_: int = attribute("int", "Epochs run.")
    loss_curve_: list[float] = attribute(
        "list of float",
        """Training objective of each epoch, in nats per row: a mean over the epoch's batches, so it
        includes the epoch's progress.""",
    )
    validation_curve_: list[float] = attribute(
        "list of float",
        "Objective on the held-out rows after each epoch; empty without early stopping.",
    )
    stopping_reason_: str = attribute(
        "str",
        """"max_iter", "converged", "stopped" (by a callback), "interrupted" (Ctrl-C: the model so
        far was kept; pressed again in a fit that follows at once, it stops a search) or "diverged"
        (the best finite weights were kept).""",
    )
    device_: str = attribute("str", "Where the model was trained.")

    # Why no processes can share a fit. None: they can.
    _made_by_one: ClassVar[str | None] = None

    @classmethod
    @functools.cache
    def _get_param_names(cls):
        # Of a class it is always the same, and scikit-learn asks for it several times a clone.
        return super()._get_param_names()

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters of this estimator and of those that it is made of.

        Parameters
        ----------
        deep : bool, default=True
            Whether to include those of estimators in a parameter, such as ``layer__contraction``
            or, in a list, ``layers__0__contraction``.

        Returns
        -------
        params : dict
        """
        return get_nested_params(self, deep)

    def set_params(self, **params: Any) -> Self:
        """Set parameters of this estimator or of those that it is made of.

        Parameters
        ----------
        **params : dict
            Names and values, those of estimators in a list as ``layers__0__contraction``.

        Returns
        -------
        self : object
            The estimator.
        """
        return set_nested_params(self, params)

    def _encoded(self, X, *, reset: bool, sample_weight=None, lowest=None):
        """Rows of a table as an array; with ``reset``, ``encoding_`` is made as ``lowest`` says."""
        parameters = self if lowest is None else lowest
        if isinstance(X, Source | Tables):
            return encode_source(self, parameters, X, reset=reset, weight=sample_weight)
        rows = encode_rows(self, parameters, X, reset=reset, weight=sample_weight)
        if reset:
            report_empty(self.encoding_)
            if self.encoding_ is not None and processes.current().is_joined:
                raise ValueError(
                    "Columns of text, categories, dates or without any number are encoded by all "
                    "rows of a table, of which a process has some alone. Encode the table "
                    "beforehand, or use distributed=False."
                )
        return rows

    def _check_parameters(self) -> None:
        """Raise a ValueError for parameters that are impossible, alone or together."""
        validate_parameters(self)


def settings_of(estimator: TrainedModel, *, resumes: bool = False, **changes: Any) -> Settings:
    """The settings of training that an estimator's parameters are, with changes.

    A training that goes on (``resumes``) has no schedule: nobody knows its end.
    """
    own = {name: _plain(getattr(estimator, name)) for name in _SAME} | changes
    if own["max_iter"] == "auto":
        own["max_iter"] = None
    if "optimizer" not in own:
        own["optimizer"] = rule_of(estimator)
    return Settings(schedule="constant" if resumes else estimator.learning_rate_schedule, **own)


def _plain(value):
    """A number of NumPy as one of Python, which neither overflows nor is strange to torch."""
    return value.item() if isinstance(value, np.generic) else value


def rule_of(estimator: TrainedModel) -> Rule | None:
    """The rule of the gradient steps; None where the model has one of its own."""
    rule = OPTIMIZERS.get(estimator.optimizer)
    if rule is None:
        return None
    if not getattr(rule, "decouples_decay", False):
        return rule(estimator.momentum)
    return rule(estimator.momentum, getattr(estimator, "weight_decay", 0.0))


def decay_in_criterion(estimator: TrainedModel) -> float:
    """The weight of the decay, where the rule of the steps does not do it itself."""
    rule = OPTIMIZERS.get(estimator.optimizer)
    decouples = getattr(rule, "decouples_decay", False)
    return 0.0 if decouples else estimator.weight_decay  # type: ignore[attr-defined]


def place_for(estimator: TrainedModel, X) -> Place:
    """Where an estimator computes with rows: on its device, in the precision that they need."""
    device = resolve_device(estimator.device)
    return Place(computing_dtype(X, device), device)


def usable_place(estimator: TrainedModel, X) -> Place:
    """The same for a fitted model, on the CPU where this machine has not the device asked for.

    Parameters may have been set since the fit: what is illegal is refused by its name.
    """
    validate_parameters(estimator)
    try:
        return place_for(estimator, X)
    except ValueError:
        return Place(computing_dtype(X, _CPU), _CPU)


def rows_for(model: Model, X, place: Place) -> DenseRows | StreamedRows:
    """Rows as a model sees them; fits that run side by side hold those that they share once."""
    return shared_rows(X, model.shift, model.scale, place)


def weights_at(weight: np.ndarray | None, place: Place) -> torch.Tensor | None:
    """Sample weights as a tensor, or None."""
    return None if weight is None else place.tensor(weight)


def started(
    estimator: TrainedModel, model: Model, start: Start, X, weight: np.ndarray | None
) -> Start:
    """Where a training of checked rows begins: after what a fit learns before it, if it does."""
    if start.weights is None and not start.resumes and model.earlier is not None:
        start = model.earlier(X, weight)
    if start.weights is not None:
        check_same_weights(estimator, model, start.weights)
    return start


def check_same_weights(
    estimator: TrainedModel, model: Model, weights: dict[str, np.ndarray]
) -> None:
    """Raise a ValueError if parameters have changed that set which weights there are."""
    if {name: array.shape for name, array in weights.items()} != dict(model.shapes):
        raise ValueError(
            f"Parameters that set which weights this {type(estimator).__name__} has, such as "
            "the number or sizes of its layers, have changed since it was fitted. Set them "
            "back, or call fit with warm_start=False."
        )


def run_training(
    estimator: TrainedModel,
    model: Model,
    data: Data,
    start: Start,
    *,
    generator: torch.Generator,
    settings: Settings | None = None,
    bridge: CallbackBridge | None = None,
    listener: Listener | None = None,
    notes: list[list[float]] | None = None,
    judge: Callable[[Parameters], float] | None = None,
    rate: str | None = None,
    role: Hashable = None,
) -> Fitted:
    """`fit_model`, with an estimator's progress line and callbacks; warns of how it ended.

    ``settings`` are by default those that the estimator's parameters are. ``listener`` is told of
    the parameters and every `Epoch`, besides those that show progress, and adds to the ``notes``.
    ``judge`` is as of a `Run`. ``rate`` is what the learning rate is, where it is not the
    estimator's, and ``role`` what tells the model from others of the same estimator, where its
    parameters and the number of codes do not.
    """
    settings = settings_of(estimator) if settings is None else settings
    name = type(estimator).__name__
    line = ProgressLine(name) if estimator.verbose else None
    listeners: list[Listener] = []
    if line is not None:
        listeners.append(lambda theta, epoch: line(epoch))
    if bridge is not None and bridge.active:
        listeners.append(bridge.listen)
    if listener is not None:
        listeners.append(listener)
    tell = (lambda *told: any([tell(*told) for tell in listeners])) if listeners else None
    follows = follows_on_interrupted()
    options = {"generator": generator, "listener": tell, "name": name}
    options["identity"] = partial(likeness_of, estimator, model.n_codes, role)
    fitted = trained(
        About(name, model, data.has_gaps, generator, [] if notes is None else notes),
        lambda extras: fit_model(model, data, settings, start, **options, extras=extras),
        Extras(judge=judge),
    )
    if line is not None:
        line.finish()
    if fitted.training.outcome == "interrupted":
        note_interruption(follows)
    report_outcome(estimator, fitted.training, settings.max_iter, start.was_learned, rate)
    trouble = None if model.report is None else model.report(fitted.objective)
    if trouble is not None:
        warn(f"{name}: {trouble}", ConvergenceWarning)
    return fitted
