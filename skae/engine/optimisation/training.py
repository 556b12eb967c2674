"""The training loop, the only one in the package, and the watch that it keeps.

`train` says what is done and in which order; `Watch` answers what it asks: which weights were best,
whether there is still progress, whether training exploded.
"""

import math
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from skae.engine.optimisation.devices import suitable_threads
from skae.engine.optimisation.optimizers import initial_state
from skae.engine.optimisation.parameters import Parameters, Registry

# Rows, and dense entries, of one call of a criterion that is a mean over single rows.
_PROBE_ROWS, _PROBE_ENTRIES = 500, 2**21
# Where a criterion costs more than steps do: the part of an epoch's cost that it may have, and the
# rows that it needs at least.
_PROBE_SHARE, _FEWEST_PROBED = 0.1, 32
# A rise of the criterion below this part of what it was at the start may be noise.
_NOTABLE = 0.1
# How far the end may be above the start, as a part of how far that is above the floor; after so few
# epochs as may overshoot, and after more.
_WORSE, _MUCH_WORSE, _OVERSHOOTS = 0.5, 2.0, 2

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
    - ``state``, tensors or numbers by name: what carries over from one training to the next.

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
    has_gaps = False
    likeness: Hashable | None = None
    closeness: Hashable | None = None
    noise_key: Hashable | None = None
    side_by_side: Callable[..., Any]
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

    def step(batch, progress):
        x, weight = data.batch(batch)
        value = objective.gradient(theta, x, run.generator, gradient, weight)
        rate = settings.learning_rate * SCHEDULES[settings.schedule](progress)
        optimizer.update_(theta.flat, gradient.flat, run.state, rate)
        if run.project is not None:
            run.project(theta)
        return value

    def run_epoch(number):
        total = torch.zeros((), dtype=theta.flat.dtype, device=theta.flat.device)
        for k, batch in enumerate(torch.tensor_split(run.order(run.generator), n_batches)):
            value = step(batch, (number + k / n_batches) / max_iter)
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

    largest_product = theta.flat.numel() * math.ceil(len(data.index) / n_batches)
    with torch.no_grad(), suitable_threads(theta.flat.device, largest_product):
        try:
            outcome = run_epochs()
        except KeyboardInterrupt:
            outcome = "interrupted"
        return run.training(watch, outcome)


class Watch:
    """What a training is judged by: its own loss, or a criterion on rows that are always the same.

    An epoch's own loss is a mean over its steps: evidence for the weights with which it began. A
    criterion on watched rows is evidence for those with which it ended.

    ``loss_curve`` and ``judgements``, by what each was judged, have one entry for each finite
    epoch; so has ``validation_curve`` where rows are held out, which then decide everything.
    """

    def __init__(self, run: Run):
        theta, objective, data, settings = run.theta, run.objective, run.data, run.settings
        self.theta, self.objective, self.data, self.settings = theta, objective, data, settings
        self.run, self.keeps_start = run, run.keeps_start
        self.loss_curve: list[float] = []
        self.validation_curve: list[float] = []
        self.judgements: list[float] = []
        self.holds_out = data.held_out is not None and len(data.held_out) > 0
        self.probe = _affordable(data, objective)
        self.watched = data.held_out if self.holds_out else self.probe
        # A lack of progress ends training; but a schedule is run to its end.
        self.patience = settings.n_iter_no_change or math.inf
        if not self.holds_out and settings.schedule != "constant":
            self.patience = math.inf
        may_converge = self.patience < math.inf and data.probe is not None
        self.probes_epochs = (
            self.holds_out or not objective.reports_loss or (may_converge and objective.is_noisy)
        )
        self.start, self.start_loss = theta.flat.clone(), math.nan
        self.best, self.best_loss, self.best_epoch = theta.flat.clone(), math.inf, 0
        self.judged = theta.flat if self.probes_epochs else theta.flat.clone()
        self.reference, self.n_stale = math.inf, 0

    @property
    def is_stale(self) -> bool:
        """Whether there was no progress for as long as the settings wait."""
        return self.n_stale >= self.patience

    @property
    def setback(self) -> float:
        """The part of the fall from the start that was lost again, where that is much."""
        if self.objective.reports_loss or self.holds_out:
            return 0.0  # judged by it as it went
        if math.isnan(self.start_loss) or not self.judgements:
            return 0.0
        lowest = min(self.best_loss, self.start_loss)
        fall, rise = self.start_loss - lowest, self.judgements[-1] - lowest
        if rise <= _NOTABLE * abs(self.start_loss - self.objective.floor):
            return 0.0
        return rise / fall if fall > 0 else math.inf

    @property
    def recent_progress(self) -> float:
        """The part of the whole fall so far that the last tenth of the epochs brought.

        0 where a schedule has brought the learning rate to nothing, so that no more was to come,
        and where steps do not descend on the criterion, whose fall is no evidence then.
        """
        if not self.objective.reports_loss:
            return 0.0
        curve = self.judgements
        n_recent = len(curve) // 10
        if n_recent == 0 or self.settings.schedule != "constant":
            return 0.0
        # Means of epochs, since single ones are noisy.
        before, recent = (sum(c) for c in (curve[-2 * n_recent : -n_recent], curve[-n_recent:]))
        fall = curve[0] - recent / n_recent
        return max(0.0, (before - recent) / n_recent / fall) if fall > 0 else 0.0

    @property
    def is_judged_by_loss(self) -> bool:
        """Whether an epoch's own loss is what it is judged by.

        Where the loss is itself a probe, it need not be computed again.
        """
        return not self.holds_out and not (self.probes_epochs and self.objective.reports_loss)

    def begin(self, loss: float | None = None) -> None:
        """Note the criterion at the start; if that is a model, it is the best until beaten.

        ``loss`` is the criterion on the watched rows, where that is known already.
        """
        if loss is None:
            loss = math.nan if self.watched is None else self.criterion(self.watched)
        if math.isfinite(loss):
            self.start_loss = loss
            if self.keeps_start or not self.holds_out:
                self.best_loss = loss

    def before_epoch(self) -> None:
        """Note the weights for which the coming epoch's own loss is evidence."""
        if not self.probes_epochs:
            self.judged.copy_(self.theta.flat)

    def after_epoch(self, loss: float, judgement: float | None = None) -> str | None:
        """Judge an epoch by its loss; return "diverged" unless it and the weights are finite.

        ``judgement`` is the criterion on the watched rows, where that is known already.
        """
        if self.is_judged_by_loss:
            judgement = loss
        elif judgement is None:
            judgement = self.criterion(self.watched)
        finite = math.isfinite(loss) and math.isfinite(judgement)
        if not (finite and bool(torch.isfinite(self.theta.flat).all())):
            return "diverged"
        self.loss_curve.append(loss)
        self.judgements.append(judgement)
        if self.holds_out:
            self.validation_curve.append(judgement)
        if judgement < self.best_loss:
            self.best_loss, self.best_epoch = judgement, len(self.judgements)
            self.best.copy_(self.judged)
        # The fall so far is the scale: it does not depend on the loss's unit or zero.
        fall = self.judgements[0] - self.best_loss
        if judgement < self.reference - self.settings.tol * fall:
            self.reference, self.n_stale = judgement, 0
        else:
            self.n_stale += 1
        return None

    def told(self, number: int, seconds: float) -> str | None:
        """Tell the listener of an epoch; return why training ends after it, or None."""
        if self.run.listener is not None:
            held_out = self.validation_curve[-1] if self.holds_out else None
            loss, max_iter = self.loss_curve[-1], self.run.max_iter
            if self.run.listener(Epoch(number + 1, max_iter, loss, held_out, seconds)):
                return "stopped"
        return "converged" if self.is_stale else None

    def conclude(self, outcome: str, last: float | None = None) -> tuple[str, int]:
        """Put the weights to be kept into ``theta``; return the outcome, and their epoch.

        The outcome of a loop that ended regularly is "diverged" where the end is worse than the
        start. ``last`` is the criterion on the watched rows at the end, where it is known already.
        """
        ended = outcome in ("max_iter", "converged")
        if self.holds_out or outcome == "diverged":
            regular = ended or outcome == "diverged"
            if regular and self._is_worse_than_start(self.best_loss):
                # Nothing that was found is better than the start.
                outcome, self.best, self.best_epoch = "diverged", self.start, 0
        elif ended and self._has_gone_wrong(last):
            outcome = "diverged"
        is_broken = not bool(torch.isfinite(self.theta.flat).all())  # Ctrl-C amid an explosion
        if outcome == "diverged" or is_broken or self.validation_curve:
            self.theta.flat.copy_(self.best)
            early = 0 if self.probes_epochs else 1
            return outcome, max(0, self.best_epoch - early)
        return outcome, len(self.loss_curve)

    def criterion(self, index: torch.Tensor) -> float:
        """The criterion on some rows, as it is now."""
        # A value may depend on the batch's size; where it is not what is judged, fewer calls.
        size = self.settings.batch_size
        if not self.objective.reports_loss:
            size = max(size, min(_PROBE_ROWS, _PROBE_ENTRIES // self.data.rows.n_columns))
        return evaluate(self.theta, self.objective, self.data, index, size)

    def _has_gone_wrong(self, criterion):
        """Whether the end is far behind the first epoch, though still finite, or the start."""
        first, last = self.judgements[0], self.judgements[-1]
        # The loss of few noisy rows moves by its own size; explosions grow by powers.
        if last - first > 100 * max(abs(first), 1.0):
            return True
        if math.isnan(self.start_loss):
            return False  # nothing to compare the end to
        if not self.probes_epochs:
            last = self.criterion(self.watched) if criterion is None else criterion
        return self._is_worse_than_start(last)

    def _is_worse_than_start(self, loss):
        """Whether a criterion is worse than that of the start by more than chance."""
        if math.isnan(self.start_loss):
            return False
        # Half as far again from what no parameters could undercut; the first steps of a wide net
        # overshoot, and the loss falls from the next epoch on.
        factor = _WORSE if len(self.judgements) > _OVERSHOOTS else _MUCH_WORSE
        worst = self.start_loss + factor * abs(self.start_loss - self.objective.floor)
        # From a start that is nearly perfect, half as far again is next to nothing.
        return not loss <= max(worst, self.objective.baseline)


def _affordable(data, objective):
    """The rows to evaluate a criterion on after every epoch: fewer where it costs much."""
    if data.probe is None or objective.criterion_cost <= 1:
        return data.probe
    most = max(_FEWEST_PROBED, int(_PROBE_SHARE * len(data.index) / objective.criterion_cost))
    if most >= len(data.probe):
        return data.probe
    places = torch.linspace(0, len(data.probe) - 1, most, dtype=torch.float64)
    return data.probe[places.round().long()]


def evaluate(
    theta: Parameters, objective: Objective, data: Data, index: torch.Tensor, batch_size: int = 100
) -> float:
    """The criterion's mean over some rows, with the same noise at every call."""
    device = theta.flat.device
    index = index.to(device)
    generator = torch.Generator(device).manual_seed(0)
    mean_weight = None if data.weight is None else data.weight[index].mean()
    total = torch.zeros((), dtype=theta.flat.dtype, device=device)
    for batch in torch.split(index, batch_size):
        x, weight = data.batch(batch)
        weight = None if weight is None else weight / mean_weight
        total = total + objective.criterion(theta, x, generator, weight) * len(batch)
    return float(total) / len(index)
