"""How a training goes: which weights were best, whether it still makes progress, or exploded."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from skae.engine.optimisation.parameters import Parameters
    from skae.engine.optimisation.training import Data, Objective, Settings

# Rows, and dense entries, of one call of a criterion that is a mean over single rows.
_PROBE_ROWS, _PROBE_ENTRIES = 500, 2**21
# A rise of the criterion below this part of what it was at the start may be noise.
_NOTABLE = 0.1


class Watch:
    """What a training is judged by: its own loss, or a criterion on rows that are always the same.

    An epoch's own loss is a mean over its steps: evidence for the weights with which it began. A
    criterion on watched rows is evidence for those with which it ended.

    Parameters
    ----------
    theta : Parameters
    objective : Objective
    data : Data
    settings : Settings
    keeps_start : bool
        Whether the parameters at the start are a model already, see `train`.

    Attributes
    ----------
    loss_curve, validation_curve : list of float
        One entry for each finite epoch; the second is empty where no rows are held out.
    judgements : list of float
        What each finite epoch was judged by.
    """

    def __init__(
        self,
        theta: Parameters,
        objective: Objective,
        data: Data,
        settings: Settings,
        keeps_start: bool,
    ):
        self.theta, self.objective, self.data, self.settings = theta, objective, data, settings
        self.keeps_start = keeps_start
        self.loss_curve: list[float] = []
        self.validation_curve: list[float] = []
        self.judgements: list[float] = []
        self.start, self.start_loss = theta.flat.clone(), math.nan
        self.best, self.best_loss, self.best_epoch = theta.flat.clone(), math.inf, 0
        self._judged = theta.flat if self.probes_epochs else theta.flat.clone()
        self._reference, self._n_stale = math.inf, 0

    @property
    def holds_out(self) -> bool:
        """Whether rows are held out, which then decide everything."""
        return self.data.held_out is not None and len(self.data.held_out) > 0

    @property
    def may_converge(self) -> bool:
        """Whether a lack of progress ends training: a schedule is run to its end."""
        return self.settings.n_iter_no_change is not None and (
            self.holds_out or self.settings.schedule == "constant"
        )

    @property
    def probes_epochs(self) -> bool:
        """Whether a criterion on watched rows judges the epochs."""
        if self.holds_out or not self.objective.reports_loss:
            return True
        return self.may_converge and self.data.probe is not None and self.objective.is_noisy

    @property
    def held_out_loss(self) -> float | None:
        """The last criterion on held-out rows, or None."""
        return self.validation_curve[-1] if self.validation_curve else None

    @property
    def is_stale(self) -> bool:
        """Whether there was no progress for as long as the settings wait."""
        patience = self.settings.n_iter_no_change
        return self.may_converge and patience is not None and self._n_stale >= patience

    @property
    def has_exploded(self) -> bool:
        """Whether the last epoch is far behind the first one, though it is still finite."""
        if not self.judgements:
            return False
        first, last = self.judgements[0], self.judgements[-1]
        # The loss of few noisy rows moves by its own size; explosions grow by powers.
        return last - first > 100 * max(abs(first), 1.0)

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

    def begin(self) -> None:
        """Note the criterion at the start; if that is a model, it is the best until beaten."""
        watched = self._watched
        loss = math.nan if watched is None else self._criterion(watched)
        if math.isfinite(loss):
            self.start_loss = loss
            if self.keeps_start or not self.holds_out:
                self.best_loss = loss

    def before_epoch(self) -> None:
        """Note the weights for which the coming epoch's own loss is evidence."""
        if not self.probes_epochs:
            self._judged.copy_(self.theta.flat)

    def after_epoch(self, loss: float) -> bool:
        """Note an epoch's loss, and return whether it and the weights are finite."""
        # Where the loss is itself a probe, it need not be computed again.
        is_judged_by_loss = not self.holds_out and not (
            self.probes_epochs and self.objective.reports_loss
        )
        judgement = loss if is_judged_by_loss else self._criterion(self._watched)
        finite = math.isfinite(loss) and math.isfinite(judgement)
        if not (finite and bool(torch.isfinite(self.theta.flat).all())):
            return False
        self.loss_curve.append(loss)
        if self.holds_out:
            self.validation_curve.append(judgement)
        self._judge(judgement)
        return True

    def probe(self) -> float:
        """The criterion on the rows that are always the same."""
        return self._criterion(self.data.probe)

    def conclude(self, outcome: str) -> tuple[str, int]:
        """Put the weights to be kept into ``theta``.

        Parameters
        ----------
        outcome : str
            Why the loop ended.

        Returns
        -------
        outcome : str
            "diverged" where the end is worse than the start.
        kept_epoch : int
            Number of epochs behind the weights that are kept.
        """
        if self.holds_out or outcome == "diverged":
            ended = outcome in ("max_iter", "converged", "diverged")
            if ended and self._is_worse_than_start(self.best_loss):
                # Nothing that was found is better than the start.
                outcome, self.best, self.best_epoch = "diverged", self.start, 0
        elif outcome in ("max_iter", "converged") and (
            self.has_exploded or self._is_worse_than_start(self._end())
        ):
            outcome = "diverged"
        is_broken = not bool(torch.isfinite(self.theta.flat).all())  # Ctrl-C amid an explosion
        if outcome == "diverged" or is_broken or self.validation_curve:
            self.theta.flat.copy_(self.best)
            early = 0 if self.probes_epochs else 1
            return outcome, max(0, self.best_epoch - early)
        return outcome, len(self.loss_curve)

    @property
    def _watched(self):
        return self.data.held_out if self.holds_out else self.data.probe

    def _end(self):
        """The criterion of the weights at the end."""
        if math.isnan(self.start_loss):
            return math.nan  # with nothing to compare it to
        return self.judgements[-1] if self.probes_epochs else self._criterion(self._watched)

    def _is_worse_than_start(self, loss):
        """Whether a criterion is worse than that of the start by more than chance."""
        if math.isnan(self.start_loss):
            return False
        # Half as far again from what no parameters could undercut.
        worst = self.start_loss + 0.5 * abs(self.start_loss - self.objective.floor)
        # From a start that is nearly perfect, half as far again is next to nothing.
        return not loss <= max(worst, self.objective.baseline)

    def _judge(self, loss):
        """Note whether an epoch was the best, and whether it made progress."""
        self.judgements.append(loss)
        if loss < self.best_loss:
            self.best_loss, self.best_epoch = loss, len(self.judgements)
            self.best.copy_(self._judged)
        # The fall so far is the scale: it does not depend on the loss's unit or zero.
        fall = self.judgements[0] - self.best_loss
        if loss < self._reference - self.settings.tol * fall:
            self._reference, self._n_stale = loss, 0
        else:
            self._n_stale += 1

    def _criterion(self, index):
        # A value may depend on the batch's size; where it is not what is judged, fewer calls.
        size = self.settings.batch_size
        if not self.objective.reports_loss:
            size = max(size, min(_PROBE_ROWS, _PROBE_ENTRIES // self.data.rows.n_columns))
        return evaluate(self.theta, self.objective, self.data, index, size)


def evaluate(
    theta: Parameters, objective: Objective, data: Data, index: torch.Tensor, batch_size: int = 100
) -> float:
    """The criterion's mean over some rows, with the same noise at every call.

    Parameters
    ----------
    theta : Parameters
    objective : Objective
    data : Data
    index : LongTensor
    batch_size : int, default=100

    Returns
    -------
    criterion : float
    """
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
