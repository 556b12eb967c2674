"""Several trainings as one: each step moves all of them, and each ends by itself.

Most of the time of a small model goes into calls, not into arithmetic. Models of one shape do the
same to rows of the same number, so one call does for all: parameters are (n_models, n_parameters),
batches (n_models, n_samples, n_features). Each has its own rows, permutations, noise, learning rate
and penalties, is watched by itself, and ends when it would have ended alone.

`likeness` says which runs can be trained as one, `train_together` does it. An objective takes part
if it has a ``likeness``, a hashable value that those share that can be one, and a method
``side_by_side(objectives, like)``, which returns one of all of them, with

- ``inputs(objective, x, generator, row_weight)``: what a step of one of them sees of a batch, a
  named tuple of tensors whose first axis is rows, or None; ``row_weight`` is one of them;
- ``criterion(theta, inputs)`` and ``gradient(theta, inputs, out)``, as those of an objective, for
  inputs with one axis more, the first; both return a number for each model.
"""

import hashlib
import math
import time
from collections.abc import Callable, Hashable
from dataclasses import replace
from itertools import groupby
from typing import Any

import torch
from torch.nn.functional import pad

from skae.engine.optimisation.devices import suitable_threads
from skae.engine.optimisation.optimizers import Rule
from skae.engine.optimisation.parameters import Parameters
from skae.engine.optimisation.rows import DenseRows, LabelledRows
from skae.engine.optimisation.training import SCHEDULES, Data, Run, Training, train
from skae.engine.optimisation.watching import Watch


def likeness(run: Run) -> Hashable | None:
    """What runs share that can be trained as one; None if this one is trained alone."""
    objective, data, settings = run.objective, run.data, run.settings
    if objective.likeness is None or run.project is not None or run.state is not None:
        return None
    if not (isinstance(data.rows, DenseRows) and isinstance(settings.optimizer, Rule)):
        return None
    layout = tuple(run.theta.shapes.items()), run.theta.flat.dtype, run.theta.flat.device
    steps = run.n_batches, settings.batch_size, type(settings.optimizer), data.rows.n_columns
    # Whether the watch looks at the same things at the same times.
    is_constant, waits = settings.schedule == "constant", settings.n_iter_no_change is not None
    holds_out = data.held_out is not None and len(data.held_out) > 0
    watched = holds_out, data.probe is None, is_constant, waits, objective.is_noisy
    return objective.likeness, layout, steps, watched


def train_together(
    runs: list[Run], is_stopped: Callable[[], bool] = lambda: False
) -> list[Training]:
    """Train runs of one `likeness`, each as `train` does.

    Their results are those of separate trainings, but for rounding. Once ``is_stopped()`` is true,
    and by Ctrl-C, all end.
    """
    if len(runs) == 1:
        run = runs[0]
        listener = run.listener or (lambda epoch: False)
        return [train(replace(run, listener=lambda epoch: listener(epoch) or is_stopped()))]
    # Neighbours take their steps in one call where rule and rate are the same.
    order = sorted(range(len(runs)), key=lambda k: _neighbourhood(runs[k]))
    company = Company([runs[k] for k in order])
    # The size of one model decides: to wake threads at each call costs more than they gain.
    product = runs[0].theta.flat.numel() * math.ceil(len(runs[0].data.index) / runs[0].n_batches)
    with torch.no_grad(), suitable_threads(company.theta.flat.device, product):
        try:
            company.begin()
            while company.members and not is_stopped():
                company.run_epoch()
        except KeyboardInterrupt:
            pass
        company.end({member: "interrupted" for member in company.members})
    results = dict(zip(order, company.trainings, strict=True))
    return [results[k] for k in range(len(runs))]


def _pace(run):
    """What decides how far a run's steps go, the gradient apart."""
    rule, settings = run.settings.optimizer, run.settings
    own = type(rule).__name__, sorted(vars(rule).items())
    course = 0 if settings.schedule == "constant" else run.max_iter
    return own, settings.learning_rate, settings.schedule, course


def _neighbourhood(run):
    return repr(_pace(run)), repr(run.objective.closeness)


class Stream:
    """Batches with their noise, as all runs see them that have these rows and random numbers."""

    def __init__(self, run: Run):
        self.run, self.generator = run, torch.Generator(run.generator.device)
        self.generator.set_state(run.generator.get_state())

    def order(self) -> torch.Tensor:
        """A permutation of the rows to train on, drawn."""
        return self.run.order(self.generator)

    def inputs(self, index: torch.Tensor, generator: torch.Generator, mean_weight=None) -> Any:
        """What the objective sees of some of the rows."""
        data, objective = self.run.data, self.run.objective
        weight = None if data.weight is None else data.weight[index]
        if weight is not None and mean_weight is not None:
            weight = weight / mean_weight
        # Rows of their own: others may be taken of the same before these are used.
        x = data.rows.tensor.index_select(0, index)
        return objective.side_by_side.inputs(objective, x, generator, weight)


def _stream_key(run):
    """What decides which batches a run sees, with which noise; None if nobody knows."""
    noise = run.objective.noise_key
    if noise is None:
        return object()
    return fingerprint(run.data), digest(run.generator.get_state()), noise


def fingerprint(data: Data) -> Hashable | None:
    """What tells rows, and what each is for, from others; None where only reading them would."""
    rows, targets = data.rows, tuple[Any, ...]()
    if isinstance(rows, LabelledRows) and rows.directions is None:
        rows, targets = rows.rows, (rows.target, rows.weight)
    if not isinstance(rows, DenseRows):
        return None
    parts = rows.tensor, data.index, data.held_out, data.probe, data.weight, *targets
    return rows.tensor.shape, *(digest(part) for part in parts)


def digest(tensor: torch.Tensor | None) -> bytes | None:
    """A fingerprint of a tensor's bytes; None of None."""
    if tensor is None:
        return None
    array = tensor.detach().cpu().contiguous().numpy()
    return hashlib.blake2b(memoryview(array).cast("B"), digest_size=16).digest()


class Company:
    """Runs that are trained as one: what is known of them between two epochs.

    ``members`` are the places, among all runs, of those that have not ended; a row of ``theta``,
    and of what the optimiser keeps, is of each.
    """

    def __init__(self, runs: list[Run]):
        self.runs = runs
        self.trainings: list[Any] = [None] * len(runs)
        self.watches = [Watch(run) for run in runs]
        keys, streams = [_stream_key(run) for run in runs], {}
        for key, run in zip(keys, runs, strict=True):
            if key not in streams:
                streams[key] = Stream(run)
        self.stream_of_run = [streams[key] for key in keys]
        flat = torch.stack([run.theta.flat for run in runs])
        names = [slot for slot in runs[0].settings.optimizer.slots if slot != "step"]
        self.kept = {slot: torch.zeros_like(flat) for slot in names}
        self.n_epochs, self.n_steps, self.started = 0, 0, time.perf_counter()
        self._gather(list(range(len(runs))), flat)

    def _gather(self, members, flat):
        """Make what steps need of those that go on."""
        self.members = members
        self.theta = Parameters(self.runs[0].theta.shapes, flat)
        self.gradient = self.theta.empty_like()
        if not members:
            return
        runs = [self.runs[member] for member in members]
        self.objective = runs[0].objective.side_by_side([run.objective for run in runs], flat)
        self.streams = list(dict.fromkeys(self.stream_of_run[member] for member in members))
        places = [self.streams.index(self.stream_of_run[member]) for member in members]
        self.stream_of = None
        if places != list(range(len(members))):
            self.stream_of = torch.tensor(places, device=flat.device)
        self.paces, start = [], 0
        for _, same in groupby(runs, key=lambda run: repr(_pace(run))):
            same = list(same)
            self.paces.append((same[0], start, start + len(same)))
            start += len(same)

    def begin(self) -> None:
        """Note the criterion of each at the start."""
        watched = self.watches[0].watched
        losses = [math.nan] * len(self.runs) if watched is None else self._criteria()
        for watch, loss in zip(self.watches, losses, strict=True):
            watch.begin(loss)

    def run_epoch(self) -> None:
        """One epoch of all members, after which some of them may have ended."""
        watches = [self.watches[member] for member in self.members]
        for watch in watches:
            watch.before_epoch()
        losses = self._epoch()
        self.n_epochs += 1
        for watch, row in zip(watches, self.theta.flat, strict=True):
            watch.theta.flat.copy_(row)
        judged = [None] * len(watches) if watches[0].is_judged_by_loss else self._criteria()
        seconds, ends = time.perf_counter() - self.started, {}
        for member, watch, *found in zip(self.members, watches, losses, judged, strict=True):
            reason = watch.after_epoch(*found) or watch.told(self.n_epochs - 1, seconds)
            if reason is None and self.n_epochs == self.runs[member].max_iter:
                reason = "max_iter"
            if reason is not None:
                ends[member] = reason
        if ends:
            self.end(ends)

    def _epoch(self):
        """Take the steps of an epoch; return the mean loss of each member."""
        n_batches = self.runs[self.members[0]].n_batches
        batches = [torch.tensor_split(stream.order(), n_batches) for stream in self.streams]
        total = self.theta.flat.new_zeros(len(self.members))
        for k in range(n_batches):
            parts = [
                stream.inputs(own[k], stream.generator)
                for stream, own in zip(self.streams, batches, strict=True)
            ]
            total += self.objective.gradient(self.theta, self._of_members(parts), self.gradient)
            for run, start, stop in self.paces:
                self._step(run, start, stop, (self.n_epochs + k / n_batches) / run.max_iter)
            self.n_steps += 1
        return (total / n_batches).tolist()

    def _step(self, run, start, stop, progress):
        """Move the parameters of neighbours that have one rule and one rate."""
        settings, flat = run.settings, self.theta.flat
        state = {slot: kept[start:stop].view(-1) for slot, kept in self.kept.items()}
        if "step" in settings.optimizer.slots:
            state["step"] = self._count(flat)
        rate = settings.learning_rate * SCHEDULES[settings.schedule](progress)
        parts = flat[start:stop].view(-1), self.gradient.flat[start:stop].view(-1)
        settings.optimizer.update_(*parts, state, rate)

    def _count(self, like):
        return torch.tensor(float(self.n_steps), dtype=torch.float32, device=like.device)

    def end(self, ends: dict[int, str]) -> None:
        """Some members have ended: keep what they have become, and go on with the others."""
        last = [None] * len(self.members)
        watch = self.watches[self.members[0]] if self.members else None
        if watch is not None and watch.watched is not None and not watch.probes_epochs:
            last = self._criteria()
        for place, member in enumerate(self.members):
            if member in ends:
                run, stream = self.runs[member], self.stream_of_run[member]
                run.theta.flat.copy_(self.theta.flat[place])
                run.generator.set_state(stream.generator.get_state())
                run.state = {slot: kept[place].clone() for slot, kept in self.kept.items()}
                if "step" in run.settings.optimizer.slots:
                    run.state["step"] = self._count(run.theta.flat)
                training = run.training(self.watches[member], ends[member], last=last[place])
                self.trainings[member] = training
        stay = [place for place, member in enumerate(self.members) if member not in ends]
        self.kept = {slot: kept[stay] for slot, kept in self.kept.items()}
        self._gather([self.members[place] for place in stay], self.theta.flat[stay])

    def _criteria(self):
        """The criterion of each member on its watched rows, with the same noise at every call."""
        streams, size = self.streams, self.runs[0].settings.batch_size
        device = self.theta.flat.device
        generators = [torch.Generator(device) for _ in streams]
        for generator in generators:
            generator.manual_seed(0)
        watched = [self.watches[self.runs.index(s.run)].watched.to(device) for s in streams]
        means = [_mean_weight(s.run.data, index) for s, index in zip(streams, watched, strict=True)]
        parts = [torch.split(index, size) for index in watched]
        total = self.theta.flat.new_zeros(len(self.members))
        for k in range(max(map(len, parts))):
            own = [part[k] if k < len(part) else part[0][:0] for part in parts]
            inputs = [
                stream.inputs(index, generator, mean)
                for stream, index, generator, mean in zip(
                    streams, own, generators, means, strict=True
                )
            ]
            count = torch.tensor([len(index) for index in own]).to(total)
            count = count if self.stream_of is None else count[self.stream_of]
            values = self.objective.criterion(self.theta, self._of_members(inputs))
            total += torch.where(count > 0, values * count, 0.0)
        sizes = torch.tensor([len(index) for index in watched]).to(total)
        return (total / (sizes if self.stream_of is None else sizes[self.stream_of])).tolist()

    def _of_members(self, parts):
        """What each member sees, of what each stream has: fewer rows are filled up with zeros."""
        inputs = stacked(parts)
        if self.stream_of is None:
            return inputs
        copies = {}
        for tensor in inputs:
            if tensor is not None and id(tensor) not in copies:
                copies[id(tensor)] = tensor.index_select(0, self.stream_of)
        return type(inputs)(*(None if t is None else copies[id(t)] for t in inputs))


def _mean_weight(data, index):
    return None if data.weight is None else data.weight[index].mean()


def stacked(parts: list[Any]) -> Any:
    """Named tuples of tensors as one of tensors with an axis more, the first.

    Those with fewer rows are filled up with rows of weight 0. A mean over the rows of the result,
    by its ``row_weight``, is for each the mean over its own.
    """
    lengths = [len(part[0]) for part in parts]
    n = max(lengths)
    if min(lengths) < n:
        parts = [
            part._replace(row_weight=_row_weight(part) * (n / max(1, length)))
            for part, length in zip(parts, lengths, strict=True)
        ]
    done: dict[tuple[int, ...], torch.Tensor] = {}
    fields = []
    for name, *tensors in zip(parts[0]._fields, *parts, strict=True):
        key = tuple(map(id, tensors))
        if key not in done and any(tensor is not None for tensor in tensors):
            like = next(tensor for tensor in tensors if tensor is not None)
            fill = 1.0 if name.endswith("weight") else 0.0
            tensors = [
                like.new_full((length, *like.shape[1:]), fill) if tensor is None else tensor
                for tensor, length in zip(tensors, lengths, strict=True)
            ]
            done[key] = torch.stack([_filled_up(tensor, n) for tensor in tensors])
        fields.append(done.get(key))
    return type(parts[0])(*fields)


def _row_weight(part):
    if part.row_weight is not None:
        return part.row_weight
    return part[0].new_ones(len(part[0]))


def _filled_up(tensor, n):
    if len(tensor) == n:
        return tensor
    return pad(tensor, (0, 0) * (tensor.dim() - 1) + (0, n - len(tensor)))
