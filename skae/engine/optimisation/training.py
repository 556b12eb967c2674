"""The training loop: the only one in the package."""

import math
import time
from typing import NamedTuple

import torch

from skae.engine.optimisation.devices import suitable_threads
from skae.engine.optimisation.optimizers import initial_state


class Epoch(NamedTuple):
    """What a listener is told after each epoch."""

    number: int
    max_iter: int
    loss: float
    validation_loss: float | None
    seconds: float


class Training(NamedTuple):
    """What `train` returns: curves, state to continue from, and why it ended.

    ``outcome`` is "max_iter", "converged" (no progress for ``n_iter_no_change``
    epochs), "stopped" (by the listener), "interrupted" (Ctrl-C) or "diverged".
    ``kept_epoch`` is the number of epochs behind the weights that were kept. ``setback``
    is the part of the criterion's fall that was lost again by the end, where that is
    notable and the steps do not descend on the criterion itself; else 0.
    """

    loss_curve: list
    validation_curve: list
    optimizer_state: dict
    outcome: str
    kept_epoch: int
    setback: float = 0.0


SCHEDULES = {
    "constant": lambda progress: 1.0,
    "linear": lambda progress: 1.0 - progress,
    "cosine": lambda progress: 0.5 + 0.5 * math.cos(math.pi * progress),
}

# Rows, and dense entries, of one call of a criterion that is a mean over single rows.
_PROBE_ROWS, _PROBE_ENTRIES = 500, 2**21
# A rise of the criterion below this part of what it was at the start may be noise.
_NOTABLE = 0.1


def train(
    theta,
    objective,
    rows,
    *,
    index,
    generator,
    optimizer,
    learning_rate,
    schedule="constant",
    batch_size=100,
    max_iter=100,
    tol=0.0,
    n_iter_no_change=None,
    row_weight=None,
    validation_index=None,
    probe_index=None,
    keep_start=False,
    optimizer_state=None,
    project=None,
    listener=None,
):
    """Minimise an objective over the rows by minibatch gradient steps, in place.

    Parameters
    ----------
    theta : Parameters
        Start and, on return, result.
    objective : object with ``gradient`` and ``criterion``
        See `skae.engine.networks.objectives`.
    rows : DenseRows or StreamedRows
    index : LongTensor
        The rows to train on.
    generator : torch.Generator
        Of the permutations and of the objective's noise.
    optimizer : object of `skae.engine.optimisation.optimizers`
    learning_rate : float
    schedule : str
        A key of `SCHEDULES`: the learning rate's course over ``max_iter`` epochs.
    batch_size : int
        An epoch has ceil(n / batch_size) batches whose sizes differ by one at most, so
        that no step rests on a remainder of a few rows.
    max_iter : int
        Epochs.
    tol, n_iter_no_change : float and int
        Training has converged when the loss (on the held-out rows if there are any)
        has not fallen for ``n_iter_no_change`` epochs by ``tol`` of its whole fall so
        far. None for the second: never. A schedule is run to its end, unless rows are
        held out.
    row_weight : Tensor of shape (n_rows,), default=None
        Sample weights of mean 1.
    validation_index : LongTensor, default=None
        Held-out rows; where given, the weights of the best epoch on them are kept.
    probe_index : LongTensor, default=None
        Some of the training rows, on which the criterion is evaluated with noise that is
        always the same: at the start and the end, to notice a training that made things
        worse, and after every epoch where only that tells whether a noisy objective has
        converged, or what its loss is.
    keep_start : bool, default=False
        Whether the weights at the start are a model already, which only an epoch that is
        better on the held-out rows may replace.
    optimizer_state : dict, default=None
        From an earlier call, to continue it.
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
    gradient = theta.empty_like()
    state = initial_state(optimizer, theta.flat) if optimizer_state is None else optimizer_state
    index = index.to(theta.flat.device)
    n_batches = max(1, math.ceil(len(index) / batch_size))
    held_out = validation_index is not None and len(validation_index) > 0
    loss_curve, validation_curve = [], []
    watched_index = validation_index if held_out else probe_index
    may_converge = n_iter_no_change is not None and (held_out or schedule == "constant")
    probes_epochs = (
        held_out
        or not objective.reports_loss
        or (may_converge and probe_index is not None and objective.is_noisy)
    )
    loss_is_watched = not held_out and (not probes_epochs or not objective.reports_loss)
    judged = theta.flat if probes_epochs else theta.flat.clone()
    best = _Best(theta.flat, tol, n_iter_no_change)
    start = theta.flat.clone()
    outcome, started = "max_iter", time.perf_counter()
    rate = SCHEDULES[schedule]

    def run_epoch(epoch):
        order = torch.randperm(len(index), generator=generator, device=index.device)
        total = torch.zeros((), dtype=theta.flat.dtype, device=theta.flat.device)
        for step, batch in enumerate(torch.tensor_split(index[order], n_batches)):
            x = rows.take(batch)
            weight = None if row_weight is None else row_weight[batch]
            value = objective.gradient(theta, x, generator, gradient, weight)
            if objective.reports_loss:
                total += value
            progress = (epoch + step / n_batches) / max_iter
            optimizer.update_(theta.flat, gradient.flat, state, learning_rate * rate(progress))
            if project is not None:
                project(theta)
        return (total / n_batches).item() if objective.reports_loss else probe(probe_index)

    def probe(index):
        # A value may depend on the batch's size; where it is not what is judged, fewer calls.
        size = batch_size
        if not objective.reports_loss:
            size = max(size, min(_PROBE_ROWS, _PROBE_ENTRIES // rows.n_columns))
        return evaluate(theta, objective, rows, index, row_weight, size)

    largest_product = theta.flat.numel() * math.ceil(len(index) / n_batches)
    with torch.no_grad(), suitable_threads(theta.flat.device, largest_product):
        try:
            if watched_index is not None:
                best.begin(probe(watched_index), counts=keep_start or not held_out)
            for epoch in range(max_iter):
                if not probes_epochs:
                    # An epoch's own loss is evidence for the weights that it began with.
                    judged.copy_(theta.flat)
                loss = run_epoch(epoch)
                watched = loss if loss_is_watched else probe(watched_index)
                finite = math.isfinite(loss) and math.isfinite(watched)
                if not (finite and bool(torch.isfinite(theta.flat).all())):
                    outcome = "diverged"
                    break
                loss_curve.append(loss)
                if held_out:
                    validation_curve.append(watched)
                best.update(watched, judged)
                report = Epoch(
                    epoch + 1,
                    max_iter,
                    loss,
                    watched if held_out else None,
                    time.perf_counter() - started,
                )
                if listener is not None and listener(report):
                    outcome = "stopped"
                    break
                if may_converge and best.is_stale:
                    outcome = "converged"
                    break
        except KeyboardInterrupt:
            outcome = "interrupted"
        if outcome in ("max_iter", "converged", "diverged"):
            exploded = best.is_far_behind and not held_out
            if best.start is not None:
                if held_out or outcome == "diverged":
                    end = best.loss
                else:
                    end = best.last if probes_epochs else probe(watched_index)
                # Half as far again from what no parameters could undercut.
                worst = best.start + 0.5 * abs(best.start - objective.offset)
                # From a start that is nearly perfect, half as far again is next to nothing.
                worst = max(worst, getattr(objective, "harmless", worst))
                if not end <= worst:
                    exploded = True
                    # Nothing that was kept is better than the start.
                    if held_out or outcome == "diverged":
                        best.flat, best.epoch = start, 0
            outcome = "diverged" if exploded else outcome
        exploded = not bool(torch.isfinite(theta.flat).all())  # Ctrl-C amid an explosion
        if outcome == "diverged" or exploded or (held_out and validation_curve):
            theta.flat.copy_(best.flat)
            kept_epoch = best.epoch if probes_epochs else max(0, best.epoch - 1)
        else:
            kept_epoch = len(loss_curve)
    setback = 0.0 if objective.reports_loss or held_out else best.setback(objective.offset)
    return Training(loss_curve, validation_curve, state, outcome, kept_epoch, setback)


def evaluate(theta, objective, rows, index, row_weight=None, batch_size=100):
    """The criterion's mean over some rows, with the same noise at every call."""
    device = theta.flat.device
    index = index.to(device)
    generator = torch.Generator(device).manual_seed(0)
    if row_weight is not None:
        row_weight = row_weight / row_weight[index].mean()
    total = 0.0
    for batch in torch.split(index, batch_size):
        weight = None if row_weight is None else row_weight[batch]
        total += objective.criterion(theta, rows.take(batch), generator, weight) * len(batch)
    return float(total) / len(index)


class _Best:
    """The lowest loss so far, its epoch and weights, and how long ago progress was."""

    def __init__(self, flat, tol, n_iter_no_change):
        self.flat, self.loss, self.first = flat.clone(), math.inf, None
        self.last, self.reference, self.n_stale = None, math.inf, 0
        self.start, self.n_epochs, self.epoch = None, 0, 0
        self.tol, self.n_iter_no_change = tol, n_iter_no_change

    def begin(self, loss, counts):
        """Note the loss of the start; if it ``counts``, the start is best until beaten."""
        if math.isfinite(loss):
            self.start = loss
            self.loss = loss if counts else self.loss

    def update(self, loss, flat):
        if self.first is None:
            self.first = loss
        self.last = loss
        self.n_epochs += 1
        if loss < self.loss:
            self.loss, self.epoch = loss, self.n_epochs
            self.flat.copy_(flat)
        # The fall so far is the scale: it does not depend on the loss's unit or zero.
        if loss < self.reference - self.tol * (self.first - self.loss):
            self.reference, self.n_stale = loss, 0
        else:
            self.n_stale += 1

    @property
    def is_stale(self):
        return self.n_iter_no_change is not None and self.n_stale >= self.n_iter_no_change

    def setback(self, offset):
        """The part of the fall from the start that was lost again, where that is much."""
        if self.start is None or self.last is None:
            return 0.0
        lowest = min(self.loss, self.start)
        fall, rise = self.start - lowest, self.last - lowest
        if rise <= _NOTABLE * abs(self.start - offset):
            return 0.0
        return rise / fall if fall > 0 else math.inf

    @property
    def is_far_behind(self):
        """Whether the loss has exploded, though it is still finite."""
        if self.last is None or self.last <= self.first:
            return False
        # The loss of few noisy rows moves by its own size; explosions grow by powers.
        return self.last - self.first > 100 * max(abs(self.first), 1.0)
