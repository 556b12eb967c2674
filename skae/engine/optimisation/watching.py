"""By what a training is judged: which weights were best, and whether it goes on or exploded."""

import math
from typing import Any

import torch

from skae.engine.optimisation import processes
from skae.engine.optimisation.parameters import Parameters
from skae.engine.optimisation.runs import Data, Epoch, Objective, Run, Training

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
# What a watch has seen of a training, by the names of its attributes.
_SEEN = (
    *("loss_curve", "validation_curve", "judgements", "start", "start_loss"),
    *("best", "best_loss", "best_epoch", "reference", "n_stale"),
)


class Watch:
    """What a training is judged by: its own loss, or a criterion on rows that are always the same.

    An epoch's own loss is a mean over its steps: evidence for the weights with which it began. A
    criterion on watched rows is evidence for those with which it ended.

    ``loss_curve`` and ``judgements``, by what each was judged, have one entry for each finite
    epoch; so has ``validation_curve`` where rows are held out, which then decide everything.
    """

    def __init__(self, run: Run):
        theta, objective, data, settings = run.theta, run.objective, run.data, run.settings
        self.objective, self.data, self.settings = objective, data, settings
        self.run, self.keeps_start, self.average = run, run.keeps_start, run.average
        # What is judged and kept: the weights that are trained, or a mean of those of epochs.
        self.trained = theta
        self.theta = theta if self.average is None else self.average.theta
        self.loss_curve: list[float] = []
        self.validation_curve: list[float] = []
        self.judgements: list[float] = []
        self.holds_out = data.held_out is not None and len(data.held_out) > 0
        self.holds_out |= run.judge is not None or data.apart is not None
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
        self.judged = self.theta.flat if self.probes_epochs else theta.flat.clone()
        self.reference, self.n_stale = math.inf, 0

    @property
    def state(self) -> dict[str, Any]:
        """All that it has seen, lists, numbers and tensors by name."""
        return {name: getattr(self, name) for name in self._seen}

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        for name in self._seen:
            value = getattr(self, name)
            if isinstance(value, torch.Tensor):
                value.copy_(state[name])
            else:
                setattr(self, name, state[name])

    @property
    def _seen(self) -> tuple[str, ...]:
        own = () if self.probes_epochs else ("judged",)  # else it is what is trained
        return *_SEEN, *own

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
            loss = self.judgement() if self.holds_out or self.watched is not None else math.nan
        if math.isfinite(loss):
            self.start_loss = loss
            if self.keeps_start or not self.holds_out:
                self.best_loss = loss

    def before_epoch(self) -> None:
        """Note the weights for which the coming epoch's own loss is evidence."""
        if not self.probes_epochs:
            self.judged.copy_(self.trained.flat)

    def after_epoch(self, loss: float, judgement: float | None = None) -> str | None:
        """Judge an epoch by its loss; return "diverged" unless it and the weights are finite.

        ``judgement`` is the criterion on the watched rows, where that is known already.
        """
        if not (math.isfinite(loss) and self._is_finite):
            return "diverged"
        if self.average is not None:
            self.average.update_(self.trained.flat)
            if self.run.project is not None:
                self.run.project(self.theta)
        if self.is_judged_by_loss:
            judgement = loss
        elif judgement is None:
            judgement = self.judgement()
        if not math.isfinite(judgement):
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
        stops = False
        if self.run.listener is not None:
            held_out = self.validation_curve[-1] if self.holds_out else None
            loss, max_iter = self.loss_curve[-1], self.run.max_iter
            # What a listener does, it may do in one of several processes.
            with processes.within(processes.ALONE):
                stops = self.run.listener(Epoch(number + 1, max_iter, loss, held_out, seconds))
        if processes.current().any(bool(stops)):
            return "stopped"
        return "converged" if self.is_stale else None

    def training(self, outcome: str, last: float | None = None) -> Training:
        """What is returned of the run, which ended so: see `conclude`."""
        outcome, kept_epoch = self.conclude(outcome, last)
        unfinished = self.recent_progress if outcome == "max_iter" else 0.0
        state, curves = self.run.state, (self.loss_curve, self.validation_curve)
        assert state is not None
        return Training(*curves, state, outcome, kept_epoch, self.setback, unfinished)

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
        is_broken = not self._is_finite  # Ctrl-C amid an explosion
        if outcome == "diverged" or is_broken or self.validation_curve:
            self.trained.flat.copy_(self.best)
            early = 0 if self.probes_epochs else 1
            return outcome, max(0, self.best_epoch - early)
        if self.average is not None and self.average.has_begun:
            self.trained.flat.copy_(self.theta.flat)
        return outcome, len(self.loss_curve)

    @property
    def _is_finite(self):
        return bool(torch.isfinite(self.trained.flat).all())

    def judgement(self) -> float:
        """What the weights are judged by, as they are now: the loss on watched rows."""
        if self.run.judge is not None:
            with processes.within(processes.ALONE):
                loss = float(self.run.judge(self.theta))
            return processes.current().first(loss)
        if self.data.apart is not None:
            return self._evaluated(self.data.apart, self.data.apart.index)
        return self.criterion(self.watched)

    def criterion(self, index: torch.Tensor) -> float:
        """The criterion on some rows, as it is now."""
        return self._evaluated(self.data, index)

    def _evaluated(self, data, index):
        # A value may depend on the batch's size; where it is not what is judged, fewer calls.
        size = self.settings.batch_size
        if not self.objective.reports_loss:
            size = max(size, min(_PROBE_ROWS, _PROBE_ENTRIES // data.rows.n_columns))
        return evaluate(self.theta, self.objective, data, index, size)

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
        # Another loss than the criterion has another scale, of which nothing is known.
        if math.isnan(self.start_loss) or self.run.judge is not None:
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
    theta: Parameters,
    objective: Objective,
    data: Data,
    index: torch.Tensor,
    batch_size: int = 100,
) -> float:
    """The criterion's mean over some rows of each process, with the same noise at every call."""
    device, everyone = theta.flat.device, processes.current()
    index = index.to(device)
    generator = torch.Generator(device).manual_seed(0)
    mean_weight = None if data.weight is None else everyone.mean(data.weight[index])
    total = torch.zeros((), dtype=theta.flat.dtype, device=device)
    for batch in torch.split(index, batch_size):
        x, weight = data.batch(batch)
        weight = None if weight is None else weight / mean_weight
        total = total + objective.criterion(theta, x, generator, weight) * len(batch)
    return everyone.ratio(total, len(index))
