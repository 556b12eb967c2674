"""How a training goes: which weights were best, whether it still makes progress, or exploded."""

import math

import torch

# Rows, and dense entries, of one call of a criterion that is a mean over single rows.
_PROBE_ROWS, _PROBE_ENTRIES = 500, 2**21
# A rise of the criterion below this part of what it was at the start may be noise.
_NOTABLE = 0.1


class Watch:
    """What a training is judged by: its own loss, or a criterion on rows that are always the same.

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
    """

    def __init__(self, theta, objective, data, settings, keeps_start):
        self.theta, self.objective, self.data, self.settings = theta, objective, data, settings
        self.keeps_start = keeps_start
        self.loss_curve, self.validation_curve = [], []
        self.holds_out = data.held_out is not None and len(data.held_out) > 0
        self.watched = data.held_out if self.holds_out else data.probe
        self.may_converge = settings.n_iter_no_change is not None and (
            self.holds_out or settings.schedule == "constant"
        )
        noisy = self.may_converge and data.probe is not None and objective.is_noisy
        self.probes_epochs = self.holds_out or not objective.reports_loss or noisy
        self.watches_loss = not self.holds_out and (
            not self.probes_epochs or not objective.reports_loss
        )
        self.start = theta.flat.clone()
        self.judged = theta.flat if self.probes_epochs else theta.flat.clone()
        self.best, self.best_loss, self.best_epoch = theta.flat.clone(), math.inf, 0
        self.start_loss = self.first_loss = self.last_loss = None
        self.reference, self.n_stale, self.n_epochs = math.inf, 0, 0

    def begin(self):
        """Note the criterion at the start; if that is a model, it is the best until beaten."""
        if self.watched is None:
            return
        loss = self._criterion(self.watched)
        if math.isfinite(loss):
            self.start_loss = loss
            if self.keeps_start or not self.holds_out:
                self.best_loss = loss

    def before_epoch(self):
        """Note the weights for which the coming epoch's own loss is evidence."""
        if not self.probes_epochs:
            self.judged.copy_(self.theta.flat)

    def after_epoch(self, loss):
        """Note an epoch's loss, and return whether it and the weights are finite."""
        watched = loss if self.watches_loss else self._criterion(self.watched)
        finite = math.isfinite(loss) and math.isfinite(watched)
        if not (finite and bool(torch.isfinite(self.theta.flat).all())):
            return False
        self.loss_curve.append(loss)
        if self.holds_out:
            self.validation_curve.append(watched)
        self._update(watched)
        return True

    def probe(self):
        """The criterion on the rows that are always the same."""
        return self._criterion(self.data.probe)

    @property
    def held_out_loss(self):
        """The last criterion on held-out rows, or None."""
        return self.validation_curve[-1] if self.validation_curve else None

    @property
    def is_stale(self):
        """Whether there was no progress for as long as the settings wait."""
        return self.may_converge and self.n_stale >= self.settings.n_iter_no_change

    @property
    def setback(self):
        """The part of the fall from the start that was lost again, where that is much."""
        if self.objective.reports_loss or self.holds_out:
            return 0.0
        if self.start_loss is None or self.last_loss is None:
            return 0.0
        lowest = min(self.best_loss, self.start_loss)
        fall, rise = self.start_loss - lowest, self.last_loss - lowest
        if rise <= _NOTABLE * abs(self.start_loss - self.objective.floor):
            return 0.0
        return rise / fall if fall > 0 else math.inf

    def conclude(self, outcome):
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
        """
        if outcome in ("max_iter", "converged", "diverged") and self._has_exploded(outcome):
            outcome = "diverged"
        broken = not bool(torch.isfinite(self.theta.flat).all())  # Ctrl-C amid an explosion
        if outcome == "diverged" or broken or self.validation_curve:
            self.theta.flat.copy_(self.best)
            # A loss of an epoch is of the weights with which it began.
            early = 0 if self.probes_epochs else 1
            return outcome, max(0, self.best_epoch - early)
        return outcome, len(self.loss_curve)

    def _has_exploded(self, outcome):
        exploded = self._is_far_behind and not self.holds_out
        if outcome == "diverged":
            exploded = True
        if self.start_loss is None:
            return exploded
        if self.holds_out or outcome == "diverged":
            end = self.best_loss
        else:
            end = self.last_loss if self.probes_epochs else self._criterion(self.watched)
        # Half as far again from what no parameters could undercut.
        worst = self.start_loss + 0.5 * abs(self.start_loss - self.objective.floor)
        # From a start that is nearly perfect, half as far again is next to nothing.
        if end <= max(worst, self.objective.baseline):
            return exploded
        if self.holds_out or outcome == "diverged":
            # Nothing that was found is better than the start.
            self.best, self.best_epoch = self.start, 0
        return True

    @property
    def _is_far_behind(self):
        """Whether the loss has exploded, though it is still finite."""
        if self.last_loss is None or self.last_loss <= self.first_loss:
            return False
        # The loss of few noisy rows moves by its own size; explosions grow by powers.
        return self.last_loss - self.first_loss > 100 * max(abs(self.first_loss), 1.0)

    def _update(self, loss):
        self.first_loss = loss if self.first_loss is None else self.first_loss
        self.last_loss = loss
        self.n_epochs += 1
        if loss < self.best_loss:
            self.best_loss, self.best_epoch = loss, self.n_epochs
            self.best.copy_(self.judged)
        # The fall so far is the scale: it does not depend on the loss's unit or zero.
        if loss < self.reference - self.settings.tol * (self.first_loss - self.best_loss):
            self.reference, self.n_stale = loss, 0
        else:
            self.n_stale += 1

    def _criterion(self, index):
        # A value may depend on the batch's size; where it is not what is judged, fewer calls.
        size = self.settings.batch_size
        if not self.objective.reports_loss:
            size = max(size, min(_PROBE_ROWS, _PROBE_ENTRIES // self.data.rows.n_columns))
        return evaluate(self.theta, self.objective, self.data, index, size)


def evaluate(theta, objective, data, index, batch_size=100):
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
    mean_weight = 1.0 if data.weight is None else data.weight[index].mean()
    total = 0.0
    for batch in torch.split(index, batch_size):
        x, weight = data.batch(batch)
        weight = None if weight is None else weight / mean_weight
        total += objective.criterion(theta, x, generator, weight) * len(batch)
    return float(total) / len(index)
