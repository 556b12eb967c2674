"""What a model is, as a value: its parameters, and what is done with them.

Every model of this package is one `Model`, whatever its family: an estimator makes it from its
constructor parameters and the columns of the data, `fit_model` trains it, and
`skae.engine.stacks.stacking.stacked` makes one of several.
"""

import math
from collections.abc import Callable, Hashable
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch

from skae.engine.optimisation import processes
from skae.engine.optimisation.averaging import Average
from skae.engine.optimisation.devices import Place, place_of, require_memory
from skae.engine.optimisation.parameters import Parameters
from skae.engine.optimisation.resuming import Keeper
from skae.engine.optimisation.rows import DenseRows, digest, map_rows, may_have_gaps
from skae.engine.optimisation.runs import Data, Epoch, Run, Settings, Training
from skae.engine.optimisation.sources import Source
from skae.engine.optimisation.training import train
from skae.engine.optimisation.windows import RowRange

# From a block of rows to one result for each.
Function = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Model:
    """A model as functions of its parameters, for columns as it sees them.

    - ``shapes``: name and shape of each parameter, as `Parameters` takes them.
    - ``start_(theta, rows, index, generator)`` sets the parameters with which training begins. Some
      are like the rows of the index.
    - ``encode(theta, x)``: the code, at the least cost.
    - ``decode(theta, code)``: the pre-activation of the units of the input.
    - ``units``, of `skae.engine.networks.units`: what a pre-activation says about a row.
    - ``objective()``: a new objective of the model's own training. None: its parameters are given.
    - ``shift``, ``scale``, of shape (n_features,): the model sees (x - shift) / scale. None: x.
    - ``fill``, of shape (n_features,): what stands, as the model sees it, for what was not observed
      of a row, NaN. None: rows have no gaps.
    - ``differentiable(theta, x)``: the code as autograd can follow it. None: ``encode`` itself.
    - ``denoise(theta, x)``: the pre-activation that training makes of a corrupted row, where that
      is not the decoded code. None: it is.
    - ``has_potential``: whether ``denoise`` is the gradient of an energy.
    - ``at_level(noise)``: the same model for rows with Gaussian noise of such a standard deviation.
      None: it is not told of it.
    - ``measure(theta, x, generator)``: what is known after training, tensors by name.
    - ``remember(objective)``: what the objective knows after training, tensors by name.
    - ``project(theta)``: a constraint that holds after every step.
    - ``encoder``, ``decoder``: both as chains of `skae.engine.networks.layers.AffineMap`, where
      that is what they are: gradients and Jacobians are closed forms then.
    - ``encoder_at(theta)``: the encoder as such a chain, whose constants are of the parameters.
      None: it is ``encoder``, or no chain.
    - ``inference``: how codes are found, where the encoder is no such chain.
    - ``code_range``: between what a code lies, whatever the data.
    - ``no_gradient``: why no gradient can go through the encoder. None: one can.
    - ``optimizer(objective)``: a rule of the steps of its own, in the place of the user's choice.
    - ``untied(weights)``: arrays of the untied auto-encoder of sigmoid units or, where an
      activation is chosen, of these, that encodes and decodes alike. None: encoder and decoder
      share no weights.
    - ``largest_alpha(theta, x)``: the weight of the sparsity penalty from which on each row's code
      is zero.
    - ``report(objective)``: what to warn of after a training on it, or None.
    - ``earlier(X, weight)``: the `Start` that an earlier phase of the same fit learns from rows in
      their own units. None: a fit begins as ``start_`` says.
    - ``numbers_per_row``: what a training step holds for each row, beyond the row and its code.
    - ``keeps_state``: whether what the objective knows of the rows so far outlives a training.
    """

    shapes: dict[str, tuple[int, ...]]
    start_: Callable[..., None]
    encode: Callable[[Parameters, torch.Tensor], torch.Tensor]
    decode: Callable[[Parameters, torch.Tensor], torch.Tensor]
    units: Any
    n_features: int
    n_codes: int
    objective: Callable[[], Any] | None
    shift: torch.Tensor | None = None
    scale: torch.Tensor | None = None
    fill: torch.Tensor | None = None
    differentiable: Callable[[Parameters, torch.Tensor], torch.Tensor] | None = None
    denoise: Callable[[Parameters, torch.Tensor], torch.Tensor] | None = None
    has_potential: bool = False
    at_level: Callable[[float], "Model"] | None = None
    measure: Callable[..., dict[str, torch.Tensor]] | None = None
    remember: Callable[[Any], dict[str, torch.Tensor]] | None = None
    project: Callable[[Parameters], None] | None = None
    encoder: tuple[Any, ...] | None = None
    decoder: tuple[Any, ...] | None = None
    encoder_at: Callable[[Parameters], tuple[Any, ...]] | None = None
    inference: str | None = None
    code_range: tuple[float, float] = (-math.inf, math.inf)
    no_gradient: str | None = None
    optimizer: Callable[[Any], Any] | None = None
    untied: Callable[[dict], dict] | None = None
    largest_alpha: Callable[[Parameters, torch.Tensor], torch.Tensor] | None = None
    report: Callable[[Any], str | None] | None = None
    earlier: Callable[[Any, np.ndarray | None], "Start"] | None = None
    numbers_per_row: int = 0
    keeps_state: bool = False

    @property
    def width(self) -> int:
        """How many numbers a pass of rows through the model makes of each.

        One for each column, unit and code, and what inference holds.
        """
        n_units = sum(shape[0] for shape in self.shapes.values() if len(shape) == 1)  # their biases
        return self.n_features + n_units + self.n_codes + self.numbers_per_row

    def code(self, theta: Parameters, x: torch.Tensor) -> torch.Tensor:
        """The code, as autograd can follow it."""
        return (self.differentiable or self.encode)(theta, x)

    def reconstruct(self, theta: Parameters, x: torch.Tensor) -> torch.Tensor:
        """Pre-activation of the units of the input, what training makes of a row."""
        if self.denoise is not None:
            return self.denoise(theta, x)
        return self.decode(theta, self.encode(theta, x))

    def filled(self, x: torch.Tensor) -> torch.Tensor:
        """Rows as the model sees them, without gaps."""
        return x if self.fill is None else torch.where(torch.isnan(x), self.fill, x)

    def standardized(self, x: torch.Tensor) -> torch.Tensor:
        """What the model sees of rows in their own units."""
        return x if self.scale is None else (x - self.shift) / self.scale

    def mean(self, output: torch.Tensor) -> torch.Tensor:
        """Rows in their own units, as the units' pre-activation reconstructs them."""
        mean = self.units.mean(output)
        return mean if self.scale is None else mean * self.scale + self.shift


class FittedModel(NamedTuple):
    """A model and its parameters, to compute with."""

    model: Model
    theta: Parameters

    @classmethod
    def of(cls, model: Model, weights: dict[str, np.ndarray], place: Place) -> "FittedModel":
        """A model with what it has learned, arrays by name, at a place."""
        return cls(model, Parameters.from_numpy(weights, dtype=place.dtype, device=place.device))

    def reconstructed(self, X) -> np.ndarray:
        """The mean of the units' law that training makes of each row, as the model sees rows."""
        model, theta = self

        def mean(x):
            return model.units.mean(model.reconstruct(theta, x))

        return self.map_rows(mean, X, (model.n_features,))

    def map_rows(
        self,
        function: Function,
        X,
        shape: tuple[int, ...] = (),
        *,
        gaps: bool = False,
        width: int = 0,
    ) -> np.ndarray:
        """``function(x)`` for blocks of rows as the model sees them, each result of such a shape.

        Blocks are so short that what a pass through the model makes of them is small; ``width`` is
        how many numbers the function makes of a row, where these are more. What was not observed is
        filled or, with ``gaps``, NaN. X is an array or CSR matrix of shape
        (n_samples, n_features) in the units of the data; the results, of shape (n_samples, *shape),
        are float32 where X is, or is of small integers, else float64.
        """
        place, model = place_of(self.theta.flat), self.model
        # Whether a source has some, only a pass would tell, and to fill none costs little.
        has_gaps = model.fill is not None and not gaps
        has_gaps = has_gaps and (isinstance(X, Source) or may_have_gaps(X))
        of_rows = (lambda x: function(model.filled(x))) if has_gaps else function
        width = max(width, model.width)
        return map_rows(of_rows, X, shape, place, model.shift, model.scale, width)

    def codes(self, X) -> np.ndarray:
        """The rows' codes, of shape (n_samples, n_codes)."""
        return self.map_rows(lambda x: self.model.encode(self.theta, x), X, (self.model.n_codes,))

    def map_codes(self, function: Function, codes) -> np.ndarray:
        """``function(h)`` for blocks of codes, which returns rows of the data's width."""
        model = self.model
        place, shape = place_of(self.theta.flat), (model.n_features,)
        return map_rows(function, codes, shape, place, width=model.width)


# Rows on which a criterion is evaluated to see how training goes.
_PROBE_ROWS = 500
# Rows, and entries, that parameters may begin as, where not all are in memory.
_START_ROWS, _START_ENTRIES = 10_000, 5_000_000


@dataclass(frozen=True)
class Start:
    """Where a training begins: afresh, on from weights, or on from a whole state.

    - ``weights``, arrays by name. None: afresh, as the model says.
    - ``state``, the ``Fitted.state`` of an earlier training. None: new moments and a new generator.
    - ``resumes``: whether the training goes on as if it had not been interrupted: with the moments,
      the random numbers and what the objective knows. Else only the last, where a model keeps it.
    - ``was_learned``: whether the weights are what an earlier phase of the same fit has learned,
      which a training that makes them worse may not replace.
    - ``facts``: what else is known of that phase, by the names of attributes.
    """

    weights: dict[str, np.ndarray] | None = None
    state: dict[str, Any] | None = None
    resumes: bool = False
    was_learned: bool = False
    facts: dict[str, Any] = field(default_factory=dict)


AFRESH = Start()
# Called with the parameters and an epoch after each; a true result ends training.
Listener = Callable[[Parameters, Epoch], Any]


class Fitted(NamedTuple):
    """What `fit_model` returns: the learned ``weights``, arrays by name, how the training went, the
    objective after the last step, the ``state`` from which a later training can resume, and what
    the model was ``measured`` to be on some of the rows, or remembers of its training.
    """

    weights: dict[str, np.ndarray]
    training: Training
    objective: Any
    state: dict[str, Any]
    measured: dict[str, np.ndarray]


class Extras(NamedTuple):
    """What else a training can be given.

    - ``keeper``: as of a `Run`.
    - ``average(theta)``: a mean of the weights after epochs, made anew, which is judged and kept.
    - ``judge``: as of a `Run`.
    """

    keeper: Keeper | None = None
    average: Callable[[Parameters], Average] | None = None
    judge: Callable[[Parameters], float] | None = None


NO_EXTRAS = Extras()


@dataclass(frozen=True)
class Task:
    """A model to be trained on rows, of which the data say what each is for.

    - ``generator`` is that of the start, of the batches and of the objective's noise; it is set
      back where training resumes.
    - ``listener`` is called with the parameters and an `Epoch` after each; a true result ends
      training.
    - Messages call the model by ``name``.
    - ``identity()``: two tasks of one identity, rows and generator's state have the same result.
      None: no two are known to be alike.
    """

    model: Model
    data: Data
    settings: Settings
    start: Start
    generator: torch.Generator
    listener: Listener | None = None
    name: str = "a model"
    identity: Callable[[], Hashable] | None = None
    extras: Extras = NO_EXTRAS

    def run(self) -> Run:
        """The training that is to be run: with parameters at their start."""
        model, data, start, settings = self.model, self.data, self.start, self.settings
        if model.objective is None:
            raise TypeError(f"{self.name} has no objective: its parameters are given.")
        objective, generator, extras = model.objective(), self.generator, self.extras
        objective.has_gaps = data.has_gaps
        if model.optimizer is not None:
            settings = replace(settings, optimizer=model.optimizer(objective))
        require_memory_for(model, settings, data.rows.place, self.name)
        everyone = processes.current()
        if everyone.is_joined:
            everyone.require_same(self._common(start))
        theta = parameters_at(start, model, data, generator)
        everyone.broadcast_(theta.flat)
        generator = everyone.own(generator)
        if start.resumes and objective.reports_loss:
            data = replace(data, probe=None)  # one epoch tells nothing of how training goes
        moments, tell = None, self.listener
        if start.state is not None and start.state["shapes"] == theta.shapes:
            if start.resumes or model.keeps_state:
                objective.state = _to_tensors(start.state["objective"], data.rows.place)
            if start.resumes:
                generator = _resumed(generator, start.state)
                moments = _moments(start.state, settings.optimizer, theta)
        return Run(
            *(theta, objective, data, settings, generator),
            state=moments,
            keeps_start=start.weights is not None,
            project=model.project,
            listener=None if tell is None else lambda epoch: tell(theta, epoch),
            keeper=extras.keeper,
            average=None if extras.average is None else extras.average(theta),
            judge=extras.judge,
        )

    def _common(self, start: Start) -> dict[str, Any]:
        """What is alike in all processes that make one training."""
        state = None if start.resumes and start.state is not None else self.generator.get_state()
        settings = self.settings
        return {
            "the parameters of the model": dict(self.model.shapes),
            "the precision of the rows": str(self.data.rows.place.dtype),
            "random_state": digest(state),
            "batch_size, max_iter or learning_rate": (
                *(settings.batch_size, settings.max_iter, settings.learning_rate),
                *(settings.schedule, settings.tol, settings.n_iter_no_change),
            ),
        }

    def fitted(self, run: Run, training: Training) -> Fitted:
        """What was learned, of a run that has ended."""
        state = {
            "shapes": dict(run.theta.shapes),
            "device": self.data.rows.place.device.type,
            "generator": run.generator.get_state().numpy(),
            "optimizer": _to_arrays(training.optimizer_state),
            "objective": _to_arrays(run.objective.state),
        }
        if (everyone := processes.current()).is_joined:
            everyone.require_same({"the weights that were learned": digest(run.theta.flat)})
        weights = run.theta.to_numpy()
        found = measured(self.model, run.theta, self.data)
        if self.model.remember is not None:
            found |= _to_arrays(self.model.remember(run.objective))
        return Fitted(weights, training, run.objective, state, found)


def fit_alone(task: Task) -> Fitted:
    """Train one model by itself."""
    run = task.run()
    return task.fitted(run, train(run))


# How tasks are trained that are begun in a context: see `skae.engine.joint.rendezvous`.
trainer: ContextVar[Callable[[Task], Fitted]] = ContextVar("trainer", default=fit_alone)


def fit_model(
    model: Model,
    data: Data,
    settings: Settings,
    start: Start = AFRESH,
    *,
    generator: torch.Generator,
    listener: Listener | None = None,
    name: str = "a model",
    identity: Callable[[], Hashable] | None = None,
    extras: Extras = NO_EXTRAS,
) -> Fitted:
    """Train a model on rows: `Task` says what each argument is.

    Raises a MemoryError before parameters are made that would not fit into the device's memory, a
    TypeError if the model has no objective.
    """
    others = listener, name, identity, extras
    return trainer.get()(Task(model, data, settings, start, generator, *others))


def measured(model: Model, theta: Parameters, data: Data) -> dict[str, np.ndarray]:
    """What a model measures itself to be, on some of the rows, with noise of the measure's own."""
    if model.measure is None:
        return {}
    everyone = processes.current()
    n_rows = max(1, min(2000, 2_000_000 // model.n_features) // everyone.size)
    rows = everyone.rows(data.rows.take(some_of(data.index, n_rows)))
    generator = torch.Generator(rows.device).manual_seed(0)
    with torch.no_grad():
        return _to_arrays(model.measure(theta, rows, generator))


def parameters_at(start: Start, model: Model, data: Data, generator: torch.Generator) -> Parameters:
    """The parameters with which a training begins, the same in all processes of a fit."""
    place, everyone = data.rows.place, processes.current()
    if start.weights is not None:
        return Parameters.from_numpy(start.weights, dtype=place.dtype, device=place.device)
    theta = Parameters(model.shapes, dtype=place.dtype, device=place.device)
    rows, index = data.rows, data.index
    # Of what is read by blocks, or by several processes, some rows are enough.
    if everyone.is_joined or hasattr(rows, "batches"):
        n_rows = min(_START_ROWS, max(_PROBE_ROWS, _START_ENTRIES // model.n_features))
        some = rows.take(some_of(index, max(1, n_rows // everyone.size)))
        rows = DenseRows(everyone.rows(getattr(some, "x", some)).clone(), rows.has_gaps)
        index = torch.arange(len(rows))
    model.start_(theta, rows, index, generator)
    return theta


def require_memory_for(model: Model, settings: Settings, place: Place, name: str) -> None:
    """Raise a MemoryError if the model could not be trained at a place."""
    n_parameters = sum(map(math.prod, model.shapes.values()))
    copies = 3 + len(settings.optimizer.slots)  # theta, its gradient, the best so far, moments
    size = place.dtype.itemsize
    require_memory(n_parameters * copies * size, place.device, f"Training {name}")
    if model.numbers_per_row:
        require_memory(
            settings.batch_size * model.numbers_per_row * size,
            place.device,
            "Inference for one batch",
            "Use a smaller batch_size, a larger stride or fewer components.",
        )


def rows_that_count(n_rows: int, weight: np.ndarray | None) -> torch.Tensor:
    """Indices of the rows whose weight is not 0."""
    return torch.arange(n_rows) if weight is None else torch.tensor(np.flatnonzero(weight))


def some_of(index: Any, n_rows: int = _PROBE_ROWS) -> torch.Tensor:
    """About so many of the rows of an index, spread over all of it."""
    if isinstance(index, RowRange):
        return index.some(n_rows)
    return index[:: max(1, math.ceil(len(index) / n_rows))]


def split(index: Any, fraction: float, generator: torch.Generator) -> tuple[Any, torch.Tensor]:
    """The rows to train on and those that are held out, drawn.

    Raises a ValueError if no row would be left to train on.
    """
    generator = processes.current().own(generator)  # which draws as many numbers as it has rows
    if isinstance(index, RowRange):
        return index.split(fraction, generator)
    n_held_out = max(1, round(fraction * len(index)))
    if n_held_out >= len(index):
        raise ValueError(
            f"early_stopping would hold out {n_held_out} of n_samples={len(index)} rows and "
            "leave none to train on; use a smaller validation_fraction, more rows, or "
            "early_stopping=False."
        )
    order = torch.randperm(len(index), generator=generator, device=generator.device).cpu()
    return index[order[n_held_out:]], index[order[:n_held_out]]


def _resumed(generator: torch.Generator, state: dict) -> torch.Generator:
    if state["device"] == generator.device.type:
        generator.set_state(torch.tensor(state["generator"]))
    return generator


def _moments(state: dict, optimizer: Any, theta: Parameters) -> dict[str, torch.Tensor] | None:
    """The optimiser's kept state, or None if there is none that fits."""
    if set(state["optimizer"]) != set(optimizer.slots):
        return None
    place = place_of(theta.flat)
    return {
        # torch counts steps in float32.
        slot: torch.tensor(
            array, dtype=torch.float32 if array.ndim == 0 else place.dtype, device=place.device
        )
        for slot, array in state["optimizer"].items()
    }


def _to_arrays(state: dict) -> dict[str, np.ndarray]:
    """A state of tensors and counts as arrays."""
    return {
        name: value.cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
        for name, value in state.items()
    }


def _to_tensors(arrays: dict[str, np.ndarray], place: Place) -> dict[str, torch.Tensor]:
    return {
        name: torch.tensor(
            array, dtype=place.dtype if array.dtype.kind == "f" else None, device=place.device
        )
        for name, array in arrays.items()
    }
