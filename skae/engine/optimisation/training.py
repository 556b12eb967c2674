"""The training loop of one model: what is trained, on what, how, and in which order.

What the loop asks, whether there is progress and which weights were best, answers
`skae.engine.optimisation.watching`. Several models in one loop are
`skae.engine.optimisation.together`.
"""

import math
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch

from skae.engine.optimisation.devices import suitable_threads
from skae.engine.optimisation.optimizers import initial_state
from skae.engine.optimisation.parameters import Parameters, Registry
from skae.engine.optimisation.replay import Replayed, is_worth_recording
from skae.engine.optimisation.threads import StepThreads
from skae.engine.optimisation.watching import Epoch, Watch

SCHEDULES = Registry()
schedule = SCHEDULES.register


@schedule
def constant(progress: float) -> float:
    """Stays as it is."""
    return 1.0


@schedule
def linear(progress: float) -> float:
    """Falls to zero linearly."""
    return 1.0 - progress


@schedule
def cosine(progress: float) -> float:
    """Falls to zero along a half cosine."""
    return 0.5 + 0.5 * math.cos(math.pi * progress)


# The part of a training in which the learning rate warms up, and where it begins.
_WARM_UP, _COLD = 0.05, 0.05


@schedule
def warmup_cosine(progress: float) -> float:
    """Rises from a twentieth during the first twentieth, then falls to zero along a half cosine."""
    if progress < _WARM_UP:
        return _COLD + (1 - _COLD) * progress / _WARM_UP
    return cosine((progress - _WARM_UP) / (1 - _WARM_UP))


def epochs_for(n_rows: int, n_columns: int, batch_size: int) -> int:
    """Epochs that make 400 + 100 sqrt(n_columns) gradient steps or a few more; at least 5."""
    n_steps = 400 + 100 * math.sqrt(n_columns)
    return max(5, math.ceil(n_steps / n_batches_of(n_rows, batch_size)))


def n_batches_of(n_rows: int, batch_size: int) -> int:
    """Gradient steps of an epoch."""
    return max(1, math.ceil(n_rows / batch_size))


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
    - ``is_replayable``: whether `gradient` is the same operations for all batches of one length, on
      tensors that stay where they are, so that it can be recorded once: it makes no tensor from
      the host's numbers and reads none there. See `skae.engine.optimisation.replay`;
    - ``is_repeatable``: whether a step leaves no trace but in the parameters and the generator, so
      that it can be made twice from one start.

    Of several of one ``likeness``, unless it is None, ``side_by_side`` makes one; those of one
    ``closeness`` are neighbours there. ``noise_key`` tells which see the same noise, given the same
    random numbers. See `skae.engine.optimisation.together`.

    It is told, by the rows it is trained on,

    - ``has_gaps``: whether x may be NaN, not observed, where its model has a ``fill``.
    """

    reports_loss = True
    is_noisy = False
    criterion_cost = 1.0
    floor = 0.0
    baseline = -math.inf
    is_repeatable = False
    has_gaps = False
    is_replayable = False
    likeness: Hashable | None = None
    closeness: Hashable | None = None
    noise_key: Hashable | None = None
    side_by_side: Any = None
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

    - ``index``: the rows to train on.
    - ``probe``: some of them, on which the criterion is evaluated with noise that is always the
      same: at the start and the end, to notice a training that made things worse, and after every
      epoch where only that tells whether a noisy objective has converged, or what its loss is.
    - ``held_out``: rows that are watched instead of the training loss; the weights of the best
      epoch on them are kept.
    - ``weight``, of shape (n_rows,): sample weights of mean 1.
    """

    rows: Any
    index: torch.Tensor
    probe: torch.Tensor | None = None
    held_out: torch.Tensor | None = None
    weight: torch.Tensor | None = None

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

    @property
    def n_batches(self) -> int:
        """Gradient steps of an epoch."""
        return n_batches_of(len(self.data.index), self.settings.batch_size)

    @property
    def max_iter(self) -> int:
        """Epochs at most."""
        if self.settings.max_iter is not None:
            return self.settings.max_iter
        n_rows, n_columns = len(self.data.index), self.data.rows.n_columns
        return epochs_for(n_rows, n_columns, self.settings.batch_size)

    @property
    def is_replayed(self) -> bool:
        """Whether gradients are recorded once and replayed."""
        if not (self.objective.is_replayable and self.data.rows.is_resident):
            return False
        # Batches have two lengths at most.
        n_steps = self.n_batches * self.max_iter // 2
        return is_worth_recording(self.theta.flat.device, n_steps)

    def order(self, generator: torch.Generator) -> torch.Tensor:
        """A permutation of the rows to train on, drawn."""
        index = self.data.index.to(self.theta.flat.device)
        return index[torch.randperm(len(index), generator=generator, device=index.device)]

    def training(self, watch: "Watch", outcome: str, **ends: Any) -> Training:
        """What is returned of a run that ended so, as it was watched."""
        outcome, kept_epoch = watch.conclude(outcome, **ends)
        curves = watch.loss_curve, watch.validation_curve
        unfinished = watch.recent_progress if outcome == "max_iter" else 0.0
        assert self.state is not None
        return Training(*curves, self.state, outcome, kept_epoch, watch.setback, unfinished)


def train(run: Run) -> Training:
    """Minimise an objective over rows by minibatch gradient steps, in place.

    Within an epoch nothing waits for the device: losses are summed there and read once.
    """
    theta, objective, data, settings = run.theta, run.objective, run.data, run.settings
    optimizer, gradient = settings.optimizer, theta.empty_like()
    if run.state is None:
        run.state = initial_state(optimizer, theta.flat)
    n_batches, max_iter = run.n_batches, run.max_iter
    watch = Watch(run)
    largest_product = theta.flat.numel() * math.ceil(len(data.index) / n_batches)

    def gradient_at(batch):
        x, weight = data.batch(batch)
        return objective.gradient(theta, x, run.generator, gradient, weight)

    if run.is_replayed:
        gradient_at = Replayed(gradient_at, [run.generator])

    def step(batch, progress):
        value = gradient_at(batch)
        rate = settings.learning_rate * SCHEDULES[settings.schedule](progress)
        optimizer.update_(theta.flat, gradient.flat, run.state, rate)
        if run.project is not None:
            run.project(theta)
        return value

    def run_epoch(number):
        total = torch.zeros((), dtype=theta.flat.dtype, device=theta.flat.device)
        for k, batch in enumerate(torch.tensor_split(run.order(run.generator), n_batches)):
            progress = (number + k / n_batches) / max_iter
            value = threads.run(partial(step, batch, progress), batch.shape[0])
            if objective.reports_loss:
                total += value
        return (
            (total / n_batches).item() if objective.reports_loss else watch.criterion(watch.probe)
        )

    def run_epochs():
        started = time.perf_counter()
        watch.begin()
        for number in range(max_iter):
            watch.before_epoch()
            loss = run_epoch(number)
            reason = watch.after_epoch(loss) or watch.told(number, time.perf_counter() - started)
            if reason is not None:
                return reason
        return "max_iter"

    with torch.no_grad(), suitable_threads(theta.flat.device, largest_product):
        threads = StepThreads(
            [theta.flat, *run.state.values()],
            run.generator,
            n_steps=n_batches * max_iter if objective.is_repeatable else 0,
        )
        try:
            outcome = run_epochs()
        except KeyboardInterrupt:
            outcome = "interrupted"
        return run.training(watch, outcome)
