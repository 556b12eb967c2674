"""What a training is of, as records: rows, settings, what is descended on, and how it ended."""

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import torch

from skae.engine.optimisation.averaging import Average
from skae.engine.optimisation.lockstep import Lockstep, lockstep_of, n_batches_of
from skae.engine.optimisation.parameters import Parameters
from skae.engine.optimisation.replay import is_worth_recording
from skae.engine.optimisation.resuming import Keeper
from skae.engine.optimisation.rows import digest


def epochs_for(n_rows: int, n_columns: int, batch_size: int) -> int:
    """Epochs that make 400 + 100 sqrt(n_columns) gradient steps or a few more; at least 5."""
    n_steps = 400 + 100 * math.sqrt(n_columns)
    return max(5, math.ceil(n_steps / n_batches_of(n_rows, batch_size)))


class Objective:
    """What a training descends on, and by what it is judged.

    A subclass has

    - ``value(theta, x, generator, row_weight)``, the formula of the paper as a differentiable
      scalar, a mean over the batch, so that a learning rate does not depend on the batch's size;
    - ``gradient(theta, x, generator, out, row_weight)``, which writes the scalar's gradient into
      ``out``: in closed form where there is one, else by `gradient_by_autograd`;
    - ``criterion(theta, x, generator, row_weight)``, the loss in nats by which training is judged.
      Mostly it is the value. Where the value says nothing about progress, as in contrastive
      divergence, it is another number.

    It says of itself

    - ``reports_loss``: whether `gradient` returns the criterion;
    - ``is_noisy``: whether the criterion depends on the generator;
    - ``criterion_cost``: what the criterion costs on a row, in gradient steps of a row. Where it is
      more than 1, it is evaluated on fewer rows;
    - ``floor``: what the criterion cannot fall below, whatever the parameters;
    - ``baseline``: a criterion up to which training has not exploded, however good its start;
    - ``state``, tensors or numbers by name: what carries over from one training to the next;
    - ``is_repeatable``: whether a step leaves no trace but in the parameters and the generator, so
      that it can be made twice from one start;
    - ``is_replayable``: whether `gradient` is the same operations for all batches of one length, on
      tensors that stay where they are, so that it can be recorded once: it makes no tensor from
      the host's numbers and reads none there. See `skae.engine.optimisation.replay`;
    - ``joint``: how it takes part in a training of several at once, a `Joint`. None: it does not;
    - ``memory``, numbers or text by name: what decides later steps besides ``state``, and ends with
      the training.

    It is told, by the rows it is trained on,

    - ``has_gaps``: whether x may be NaN, not observed, where its model has a ``fill``.
    """

    reports_loss = True
    is_noisy = False
    criterion_cost = 1.0
    floor = 0.0
    baseline = -math.inf
    has_gaps = False
    is_repeatable = False
    is_replayable = False
    joint: Any = None
    memory: dict[str, Any] = {}  # replaced as a whole, never changed
    state: dict[str, Any]

    def value(self, theta, x, generator, row_weight=None) -> torch.Tensor:
        """The formula, differentiable."""
        raise NotImplementedError

    def gradient(self, theta, x, generator, out, row_weight=None) -> torch.Tensor | None:
        """Write the gradient of the value into ``out``; return the criterion, or None."""
        raise NotImplementedError

    def criterion(self, theta, x, generator, row_weight=None) -> torch.Tensor:
        """The loss by which training is judged, in nats."""
        return self.value(theta, x, generator, row_weight)


class Composite(Objective):
    """An objective with ``parts``, others by what their names are prefixed with in its state.

    What carries over from step to step is theirs. The first of them sees the rows as they come, and
    so their gaps.
    """

    parts: dict[str, Objective]
    _has_gaps = False

    @property
    def has_gaps(self):
        """Whether rows may have gaps."""
        return self._has_gaps

    @has_gaps.setter
    def has_gaps(self, has_gaps):
        self._has_gaps = has_gaps
        for part in [*self.parts.values()][:1]:
            part.has_gaps = has_gaps

    @property
    def is_repeatable(self):
        """Whether all parts are."""
        return all(part.is_repeatable for part in self.parts.values())

    @property
    def is_replayable(self):
        """Whether all parts are."""
        return all(part.is_replayable for part in self.parts.values())

    @property
    def state(self):
        """The states of all parts."""
        return self._joined("state")

    @state.setter
    def state(self, state):
        self._part("state", state)

    @property
    def memory(self):
        """Their memories."""
        return self._joined("memory")

    @memory.setter
    def memory(self, memory):
        self._part("memory", memory)

    def _joined(self, kind):
        return {
            prefix + name: value
            for prefix, part in self.parts.items()
            for name, value in getattr(part, kind).items()
        }

    def _part(self, kind, whole):
        for prefix, part in self.parts.items():
            own = (name for name in whole if name.startswith(prefix))
            setattr(part, kind, {name.removeprefix(prefix): whole[name] for name in own})


class Joint(NamedTuple):
    """How an objective takes part in a training of several at once, `skae.engine.joint`.

    - ``likeness``: a hashable value that those share that can be one.
    - ``closeness``: those that share it are neighbours there, since one call can do for them.
    - ``noise``: those that share it see the same noise, given the same random numbers.
    - ``make(objectives, like)``: the one of several, for parameters like a tensor. It has
      ``gradient(theta, inputs, out)`` and, where that tells the loss, ``criterion(theta, inputs)``,
      as those of an objective, for tensors with one axis more, the first; both return a number for
      each. ``of(places)`` is that of some of them, ``state_of(place)`` the ``state`` of one.
    - ``inputs(x, generator, row_weight)``: what a step of this one sees of a batch, a named tuple
      of tensors whose first axis is rows, or None; ``row_weight`` is one of them.
    - ``drawn_by``: where batches have a multiple of so many numbers, the inputs of several are, on
      the CPU, those of one after the other. None: they are not.
    """

    likeness: Hashable
    closeness: Hashable
    noise: Hashable
    make: Callable[[list[Any], torch.Tensor], Any]
    inputs: Callable[..., Any]
    drawn_by: int | None = None


def gradient_by_autograd(
    function: Callable[..., torch.Tensor],
    theta: Parameters,
    x: Any,
    generator: torch.Generator,
    out: Parameters,
    row_weight: torch.Tensor | None,
) -> torch.Tensor:
    """Write the gradient of such a function as ``value`` into ``out``; return its value."""
    out.flat.zero_()
    with torch.enable_grad():
        value = function(theta.tracked(out), x, generator, row_weight)
        value.backward()
    return value.detach()


@dataclass(frozen=True)
class Settings:
    """How a training runs.

    - ``max_iter``: epochs at most. None: as many as `epochs_for` says.
    - ``schedule``, a key of `SCHEDULES`: the learning rate's course over these epochs.
    - ``batch_size``: an epoch has ceil(n / batch_size) batches whose sizes differ by one at most,
      so that no step rests on a remainder of a few rows.
    - ``tol``, ``n_iter_no_change``: training has converged when the loss (on the held-out rows if
      there are any) has not fallen for so many epochs by ``tol`` of its whole fall so far. None:
      never. A schedule is run to its end, unless rows are held out.
    """

    optimizer: Any
    learning_rate: float
    schedule: str = "constant"
    batch_size: int = 100
    max_iter: int | None = 100
    tol: float = 0.0
    n_iter_no_change: int | None = None


@dataclass(frozen=True)
class Data:
    """Rows, and what each is for.

    - ``index``: the rows to train on, a LongTensor or a `RowRange`.
    - ``probe``: some of them, on which the criterion is evaluated with noise that is always the
      same: at the start and the end, to notice a training that made things worse, and after every
      epoch where only that tells whether a noisy objective has converged, or what its loss is.
    - ``held_out``: rows that are watched instead of the training loss; the weights of the best
      epoch on them are kept.
    - ``apart``: other data, whose index is watched in the same way, in the place of ``held_out``.
    - ``weight``, of shape (n_rows,): sample weights of mean 1.
    """

    rows: Any
    index: Any
    probe: torch.Tensor | None = None
    held_out: torch.Tensor | None = None
    weight: torch.Tensor | None = None
    apart: "Data | None" = None

    @property
    def has_gaps(self) -> bool:
        """Whether any of the rows may have some."""
        return self.rows.has_gaps or (self.apart is not None and self.apart.has_gaps)

    def __post_init__(self):
        if hasattr(self.rows, "keep"):
            self.rows.keep(self.probe, self.held_out)

    @cached_property
    def fingerprint(self) -> Hashable | None:
        """What tells rows, and what each is for, from others; None where nothing does."""
        rows = self.rows.fingerprint
        if rows is None:
            return None
        parts = self.index, self.held_out, self.probe, self.weight
        apart = None if self.apart is None else self.apart.fingerprint
        if self.apart is not None and apart is None:
            return None
        return rows, apart, *(digest(part) for part in parts)

    def batch(self, index: torch.Tensor) -> tuple[Any, torch.Tensor | None]:
        """Some of the rows, and their weights."""
        weight = None if self.weight is None else self.weight[index]
        return self.rows.take(index), weight


class Training(NamedTuple):
    """What `train` returns: curves, state to continue from, and why it ended.

    ``outcome`` is "max_iter", "converged" (no progress for ``n_iter_no_change`` epochs), "stopped"
    (by the listener), "interrupted" (Ctrl-C) or "diverged". ``kept_epoch`` is the number of epochs
    behind the weights that were kept. ``unfinished`` is the part of the loss's whole fall that the
    last tenth of the epochs brought, where neither a schedule nor a lack of progress had ended it.
    ``setback`` is the part of the criterion's fall that was lost again by the end, where that is
    notable and the steps do not descend on the criterion itself; else 0.
    """

    loss_curve: list[float]
    validation_curve: list[float]
    optimizer_state: dict[str, torch.Tensor]
    outcome: str
    kept_epoch: int
    setback: float = 0.0
    unfinished: float = 0.0


class Epoch(NamedTuple):
    """What a listener is told after each epoch."""

    number: int
    max_iter: int
    loss: float
    validation_loss: float | None
    seconds: float


@dataclass
class Run:
    """One training: of what, on which rows, and how.

    - ``theta`` is the start and, after the training, the result.
    - ``generator`` is that of the permutations and of the objective's noise.
    - ``state`` is the optimiser's, of an earlier training that this one continues.
    - With ``keeps_start`` the parameters at the start are a model already, which only an epoch that
      is better on the held-out rows may replace.
    - ``project(theta)`` is applied after every step: a constraint holds after the step.
    - ``listener(epoch)`` is called after each; a true result ends training.
    - ``keeper`` keeps what the training is at some of its steps; it goes on from what that holds.
    - ``average`` is a mean of the epochs' weights, which is judged and kept in their place.
    - ``judge(theta)`` is a loss by which each epoch's weights are judged, in the place of the
      criterion on rows that are held out.
    - ``lockstep`` is how steps are made where several processes train it, each on its own rows.
    """

    theta: Parameters
    objective: Objective
    data: Data
    settings: Settings
    generator: torch.Generator
    state: dict[str, torch.Tensor] | None = None
    keeps_start: bool = False
    project: Callable[[Parameters], None] | None = None
    listener: Callable[[Epoch], Any] | None = None
    keeper: Keeper | None = None
    average: Average | None = None
    judge: Callable[[Parameters], float] | None = None
    lockstep: Lockstep = field(init=False)

    def __post_init__(self):
        self.lockstep = lockstep_of(len(self.data.index), self.settings.batch_size)

    @property
    def n_batches(self) -> int:
        """Gradient steps of an epoch."""
        return self.lockstep.n_batches

    @property
    def max_iter(self) -> int:
        """Epochs at most."""
        if self.settings.max_iter is not None:
            return self.settings.max_iter
        n_columns = self.data.rows.n_columns
        return epochs_for(self.lockstep.n_rows, n_columns, self.settings.batch_size)

    @property
    def is_plain(self) -> bool:
        """Whether it is judged and kept as all trainings are by default."""
        extras = self.keeper, self.average, self.judge, self.data.apart
        return all(extra is None for extra in extras)

    @property
    def largest_product(self) -> int:
        """Multiply-adds of the largest product of a step, about."""
        return self.theta.flat.numel() * math.ceil(len(self.data.index) / self.n_batches)

    @property
    def is_replayed(self) -> bool:
        """Whether gradients are recorded once and replayed."""
        is_own = self.lockstep.are_repeatable and self.data.rows.is_resident
        if not (self.objective.is_replayable and is_own):
            return False
        # Batches have two lengths at most.
        n_steps = self.n_batches * self.max_iter // 2
        return is_worth_recording(self.theta.flat.device, n_steps)

    @property
    def reads_ahead(self) -> bool:
        """Whether rows are drawn while an epoch goes on, as they are read."""
        return hasattr(self.data.rows, "batches")

    def batches(self, generator: torch.Generator) -> Any:
        """The rows of each batch of an epoch, drawn: as they are read, or of a permutation."""
        if self.reads_ahead:
            batches = self.data.rows.batches(self.data.index, self.n_batches, generator)
        else:
            batches = torch.tensor_split(self.order(generator), self.n_batches)
        return self.lockstep.batches(batches, self.data.index)

    def order(self, generator: torch.Generator) -> torch.Tensor:
        """A permutation of the rows to train on, drawn."""
        index = self.data.index.to(self.theta.flat.device)
        return index[torch.randperm(len(index), generator=generator, device=index.device)]
