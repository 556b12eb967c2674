"""The training loop: the only one in the package."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch

from skae.engine.optimisation.devices import suitable_threads
from skae.engine.optimisation.optimizers import initial_state
from skae.engine.optimisation.parameters import Parameters
from skae.engine.optimisation.registry import Registry
from skae.engine.optimisation.watching import Watch

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

    Attributes
    ----------
    reports_loss : bool
        Whether `gradient` returns the criterion.
    is_noisy : bool
        Whether the criterion depends on the generator.
    floor : float
        What the criterion cannot fall below, whatever the parameters.
    baseline : float
        A criterion up to which training has not exploded, however good it was at the start.
    state : dict of str to Tensor or number
        What carries over from one call of the training loop to the next.
    """

    reports_loss = True
    is_noisy = False
    floor = 0.0
    baseline = -math.inf
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

    Attributes
    ----------
    optimizer : object of `skae.engine.optimisation.optimizers`
    learning_rate : float
    schedule : str
        A key of `SCHEDULES`: the learning rate's course over ``max_iter`` epochs.
    batch_size : int
        An epoch has ceil(n / batch_size) batches whose sizes differ by one at most, so that no
        step rests on a remainder of a few rows.
    max_iter : int
        Epochs.
    tol, n_iter_no_change : float and int
        Training has converged when the loss (on the held-out rows if there are any) has not
        fallen for ``n_iter_no_change`` epochs by ``tol`` of its whole fall so far. None for the
        second: never. A schedule is run to its end, unless rows are held out.
    """

    optimizer: Any
    learning_rate: float
    schedule: str = "constant"
    batch_size: int = 100
    max_iter: int = 100
    tol: float = 0.0
    n_iter_no_change: int | None = None

    def with_optimizer(self, optimizer: Any) -> "Settings":
        """The same with other steps."""
        return replace(self, optimizer=optimizer)

    def rate_at(self, progress: float) -> float:
        """The learning rate when this part of all steps is done."""
        return self.learning_rate * SCHEDULES[self.schedule](progress)

    def n_batches(self, n_rows: int) -> int:
        """Number of batches in an epoch."""
        return max(1, math.ceil(n_rows / self.batch_size))


@dataclass(frozen=True)
class Data:
    """Rows, and what each is for.

    Attributes
    ----------
    rows : DenseRows, StreamedRows or LabelledRows
    index : LongTensor
        The rows to train on.
    probe : LongTensor, default=None
        Some of them, on which the criterion is evaluated with noise that is always the same: at
        the start and the end, to notice a training that made things worse, and after every epoch
        where only that tells whether a noisy objective has converged, or what its loss is.
    held_out : LongTensor, default=None
        Rows that are watched instead of the training loss; the weights of the best epoch on them
        are kept.
    weight : Tensor of shape (n_rows,), default=None
        Sample weights of mean 1.
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


class Epoch(NamedTuple):
    """What a listener is told after each epoch."""

    number: int
    max_iter: int
    loss: float
    validation_loss: float | None
    seconds: float


class Training(NamedTuple):
    """What `train` returns: curves, state to continue from, and why it ended.

    ``outcome`` is "max_iter", "converged" (no progress for ``n_iter_no_change`` epochs), "stopped"
    (by the listener), "interrupted" (Ctrl-C) or "diverged". ``kept_epoch`` is the number of epochs
    behind the weights that were kept. ``setback`` is the part of the criterion's fall that was
    lost again by the end, where that is notable and the steps do not descend on the criterion
    itself; else 0.
    """

    loss_curve: list[float]
    validation_curve: list[float]
    optimizer_state: dict[str, torch.Tensor]
    outcome: str
    kept_epoch: int
    setback: float = 0.0


def train(
    theta: Parameters,
    objective: Objective,
    data: Data,
    settings: Settings,
    generator: torch.Generator,
    *,
    state: dict[str, torch.Tensor] | None = None,
    keeps_start: bool = False,
    project: Callable[[Parameters], None] | None = None,
    listener: Callable[[Epoch], Any] | None = None,
) -> Training:
    """Minimise an objective over rows by minibatch gradient steps, in place.

    Parameters
    ----------
    theta : Parameters
        Start and, on return, result.
    objective : Objective
    data : Data
    settings : Settings
    generator : torch.Generator
        Of the permutations and of the objective's noise.
    state : dict, default=None
        The optimiser's, from an earlier call, to continue it.
    keeps_start : bool, default=False
        Whether the parameters at the start are a model already, which only an epoch that is
        better on the held-out rows may replace.
    project : callable, default=None
        Applied to ``theta`` after every step: a constraint holds after the step.
    listener : callable, default=None
        Called with an `Epoch` after each; a true result ends training.

    Returns
    -------
    training : Training

    Notes
    -----
    Within an epoch nothing waits for the device: losses are summed there and read once.
    """
    optimizer, gradient = settings.optimizer, theta.empty_like()
    state = initial_state(optimizer, theta.flat) if state is None else state
    index = data.index.to(theta.flat.device)
    n_batches = settings.n_batches(len(index))
    watch = Watch(theta, objective, data, settings, keeps_start)

    def step(batch, progress):
        x, weight = data.batch(batch)
        value = objective.gradient(theta, x, generator, gradient, weight)
        optimizer.update_(theta.flat, gradient.flat, state, settings.rate_at(progress))
        if project is not None:
            project(theta)
        return value

    def run_epoch(number):
        order = torch.randperm(len(index), generator=generator, device=index.device)
        total = torch.zeros((), dtype=theta.flat.dtype, device=theta.flat.device)
        for k, batch in enumerate(torch.tensor_split(index[order], n_batches)):
            value = step(batch, (number + k / n_batches) / settings.max_iter)
            if objective.reports_loss:
                total += value
        return (total / n_batches).item() if objective.reports_loss else watch.probe()

    def run():
        started = time.perf_counter()
        watch.begin()
        for number in range(settings.max_iter):
            watch.before_epoch()
            loss = run_epoch(number)
            if not watch.after_epoch(loss):
                return "diverged"
            seconds = time.perf_counter() - started
            report = Epoch(number + 1, settings.max_iter, loss, watch.held_out_loss, seconds)
            if listener is not None and listener(report):
                return "stopped"
            if watch.is_stale:
                return "converged"
        return "max_iter"

    largest_product = theta.flat.numel() * math.ceil(len(index) / n_batches)
    with torch.no_grad(), suitable_threads(theta.flat.device, largest_product):
        try:
            outcome = run()
        except KeyboardInterrupt:
            outcome = "interrupted"
        outcome, kept_epoch = watch.conclude(outcome)
    curves = watch.loss_curve, watch.validation_curve
    return Training(*curves, state, outcome, kept_epoch, watch.setback)
