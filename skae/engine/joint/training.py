"""Several trainings as one: each step moves all of them, and each ends by itself.

Most of the time of a small model goes into calls, not into arithmetic. Models of one shape do the
same to rows of the same number, so one call does for all: parameters are (n_models, n_parameters),
batches (n_models, n_samples, n_features). Each has its own rows, permutations, noise, learning rate
and penalties, is watched by itself, and ends when it would have ended alone.

`likeness` says which runs can be trained as one, `train_jointly` does it. An objective takes part
if it has a record `skae.engine.optimisation.runs.Joint`.
"""

import math
import time
from collections.abc import Callable, Hashable
from dataclasses import replace
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
import torch

from skae.engine.joint.streams import Stream, stacked, stream_key
from skae.engine.optimisation.devices import suitable_threads
from skae.engine.optimisation.optimizers import Rule
from skae.engine.optimisation.parameters import Parameters
from skae.engine.optimisation.replay import Replayed
from skae.engine.optimisation.rows import DenseRows
from skae.engine.optimisation.runs import Run, Training
from skae.engine.optimisation.schedules import SCHEDULES
from skae.engine.optimisation.training import train
from skae.engine.optimisation.watching import Watch

# Numbers of the batches whose noise is drawn at once.
_AT_ONCE = 2**21


def likeness(run: Run) -> Hashable | None:
    """What runs share that can be trained as one; None if this one is trained alone."""
    objective, data, settings = run.objective, run.data, run.settings
    goes_on = run.state is not None or objective.state
    if objective.joint is None or run.project is not None or goes_on:
        return None
    if not run.is_plain:
        return None
    if not (isinstance(data.rows, DenseRows) and isinstance(settings.optimizer, Rule)):
        return None
    layout = tuple(run.theta.shapes.items()), run.theta.flat.dtype, run.theta.flat.device
    steps = run.n_batches, settings.batch_size, type(settings.optimizer), data.rows.n_columns
    # Whether the watch looks at the same things at the same times.
    is_constant, waits = settings.schedule == "constant", settings.n_iter_no_change is not None
    holds_out = data.held_out is not None and len(data.held_out) > 0
    watched = holds_out, data.probe is None, is_constant, waits, objective.is_noisy
    return objective.joint.likeness, layout, steps, watched


def train_jointly(
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
    order = _neighbours(runs)
    joint = JointTraining([runs[k] for k in order])
    # The size of one model decides: to wake threads at each call costs more than they gain.
    with torch.no_grad(), suitable_threads(joint.theta.flat.device, runs[0].largest_product):
        try:
            joint.begin()
            while joint.members and not is_stopped():
                joint.run_epoch()
        except KeyboardInterrupt:
            pass
        joint.end({member: "interrupted" for member in joint.members})
    results = dict(zip(order, joint.trainings, strict=True))
    return [results[k] for k in range(len(runs))]


def _neighbours(runs):
    """The places of the runs, those next to each other that one call can do for."""
    paces: dict[Hashable, int] = {}
    units: dict[Hashable, int] = {}
    places = [
        (
            paces.setdefault(_pace(run), len(paces)),
            units.setdefault(run.objective.joint.closeness, len(units)),
            place,
        )
        for place, run in enumerate(runs)
    ]
    return [place for *_, place in sorted(places)]


def _pace(run):
    """What decides how far a run's steps go, the gradient apart."""
    settings = run.settings
    course = 0 if settings.schedule == "constant" else run.max_iter
    return settings.optimizer.key, settings.learning_rate, settings.schedule, course


class JointTraining:
    """Runs that are trained as one: what is known of them between two epochs.

    ``members`` are the places, among all runs, of those that have not ended; a row of ``theta``,
    and of what the optimiser keeps, is of each.
    """

    def __init__(self, runs: list[Run]):
        self.runs = runs
        self.trainings: list[Any] = [None] * len(runs)
        self.watches = [Watch(run) for run in runs]
        self.rule = runs[0].settings.optimizer
        # Where steps do not tell the criterion, each watch computes its own.
        self.reports_loss = runs[0].objective.reports_loss
        # The stream of each run, and of each stream the place of a run that has it.
        streams: dict[Hashable, tuple[Stream, int]] = {}
        keys = [stream_key(run) for run in runs]
        for place, (key, run) in enumerate(zip(keys, runs, strict=True)):
            if key not in streams:
                streams[key] = Stream(run), place
        self.stream_of_run = [streams[key] for key in keys]
        flat = torch.stack([run.theta.flat for run in runs])
        names = [slot for slot in self.rule.slots if slot != "step"]
        self.kept = {slot: torch.zeros_like(flat) for slot in names}
        self.n_epochs, self.n_steps, self.started = 0, 0, time.perf_counter()
        make = runs[0].objective.joint.make
        self._gather(list(range(len(runs))), flat, make([run.objective for run in runs], flat))

    def _gather(self, members, flat, objective):
        """Make what steps need of those that go on."""
        self.members, self.objective = members, objective
        self.theta = Parameters(self.runs[0].theta.shapes, flat)
        self.gradient, self._buffers = self.theta.empty_like(), {}
        self.streams, self.stream_of = self._streams_of(members)
        self._gradient_at = self._gradient
        if members and self.runs[members[0]].is_replayed:
            generators = [stream.generator for stream, _ in self.streams]
            self._gradient_at = Replayed(self._gradient, generators)
        self.steps, start = [], 0
        for _, same in groupby((self.runs[member] for member in members), key=_pace):
            run, *others = same
            stop = start + 1 + len(others)
            self.steps.append((run, self._step_of(start, stop)))
            start = stop

    def _streams_of(self, members):
        """The streams of some members, and which of them is that of each; None: each has its own.

        A stream comes with the place of a run that has it.
        """
        streams = list(dict.fromkeys(self.stream_of_run[member] for member in members))
        numbers = {stream: number for number, stream in enumerate(streams)}
        places = [numbers[self.stream_of_run[member]] for member in members]
        if places == list(range(len(members))):
            return streams, None
        return streams, torch.tensor(places, device=self.runs[0].theta.flat.device)

    def begin(self) -> None:
        """Note the criterion of each at the start."""
        losses: list[Any] = [None] * len(self.runs)
        if self.reports_loss:
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
        if losses is None:
            losses = [watch.criterion(watch.probe) for watch in watches]
        knows_all = watches[0].is_judged_by_loss or not self.reports_loss
        judged = [None] * len(watches) if knows_all else self._criteria()
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
        """Take the steps of an epoch; return the mean loss of each member, if steps tell it."""
        n_batches = self.runs[self.members[0]].n_batches
        orders = [stream.order() for stream, _ in self.streams]
        total = self.theta.flat.new_zeros(len(self.members))
        for k, losses in enumerate(self._gradients(orders, n_batches)):
            if self.reports_loss:
                total += losses
            for run, step in self.steps:
                settings, progress = run.settings, (self.n_epochs + k / n_batches) / run.max_iter
                step(settings.learning_rate * SCHEDULES[settings.schedule](progress))
            self.n_steps += 1
        return (total / n_batches).tolist() if self.reports_loss else None

    def _gradients(self, orders, n_batches):
        """Write the gradient at one batch after the other of all streams; yield each one's loss."""
        lengths, n_columns = {len(order) for order in orders}, self.runs[0].data.rows.n_columns
        ends = [part[-1] + 1 for part in np.array_split(np.arange(max(lengths)), n_batches)]
        sizes = np.diff(ends, prepend=0)
        draws = {stream.drawn_by for stream, _ in self.streams}
        are_drawn_at_once = (
            self.theta.flat.device.type == "cpu"
            and len(lengths) == 1
            and None not in draws
            and not any((sizes * n_columns % number).any() for number in draws)
        )
        if self._gradient_at != self._gradient or not are_drawn_at_once:
            batches = [torch.tensor_split(order, n_batches) for order in orders]
            for indices in zip(*batches, strict=True):
                yield self._gradient_at(*indices)
            return
        # Many batches cost as many calls as one.
        n_at_once = max(1, _AT_ONCE // (len(orders) * int(sizes[0]) * n_columns))
        for first in range(0, n_batches, n_at_once):
            own = ends[first : first + n_at_once]
            start = ends[first] - sizes[first]
            inputs = self._inputs([order[start : own[-1]] for order in orders])
            for stop, size in zip(own, sizes[first : first + n_at_once], strict=True):
                yield self._gradient_of(_rows_of(inputs, stop - size - start, stop - start))

    def _gradient(self, *indices):
        """Write the gradient at batches of all streams; return the loss of each member."""
        return self._gradient_of(self._inputs(indices))

    def _inputs(self, indices):
        """What all streams see of some of their rows."""
        parts = [
            stream.inputs(index, stream.generator)
            for (stream, _), index in zip(self.streams, indices, strict=True)
        ]
        return stacked(parts)

    def _gradient_of(self, inputs):
        inputs = _spread(inputs, self.stream_of, self._buffers)
        return self.objective.gradient(self.theta, inputs, self.gradient)

    def _step_of(self, start, stop):
        """What moves the parameters of neighbours that have one rule and one rate, by the rate."""
        rule = self.runs[self.members[start]].settings.optimizer
        state = {slot: kept[start:stop].view(-1) for slot, kept in self.kept.items()}
        if "step" in rule.slots:
            state["step"] = self._count(self.theta.flat)
        own = (part.flat[start:stop].view(-1) for part in (self.theta, self.gradient))
        return partial(rule.update_, *own, state)

    def _count(self, like):
        return torch.tensor(float(self.n_steps), dtype=torch.float32, device=like.device)

    def end(self, ends: dict[int, str]) -> None:
        """Some members have ended: keep what they have become, and go on with the others."""
        gone = [place for place, member in enumerate(self.members) if member in ends]
        stay = [place for place, member in enumerate(self.members) if member not in ends]
        watch = self.watches[self.members[0]] if self.members else None
        last = [None] * len(gone)
        if watch is not None and watch.watched is not None and not watch.probes_epochs:
            last = self._criteria(gone if stay else None)
        for place, criterion in zip(gone, last, strict=True):
            member = self.members[place]
            run, (stream, _) = self.runs[member], self.stream_of_run[member]
            run.theta.flat.copy_(self.theta.flat[place])
            run.objective.state.update(self.objective.state_of(place))
            run.generator.set_state(stream.generator.get_state())
            run.state = {slot: kept[place].clone() for slot, kept in self.kept.items()}
            if "step" in self.rule.slots:
                run.state["step"] = self._count(run.theta.flat)
            self.trainings[member] = self.watches[member].training(ends[member], criterion)
        members = [self.members[place] for place in stay]
        if not members:
            self.members = members
            return
        self.kept = {slot: kept[stay] for slot, kept in self.kept.items()}
        self._gather(members, self.theta.flat[stay], self.objective.of(stay))

    def _criteria(self, places=None):
        """The criterion of members on their watched rows, with the same noise at every call.

        ``places`` are theirs among all members; None: of all.
        """
        theta, objective = self.theta, self.objective
        streams, stream_of = self.streams, self.stream_of
        if places is not None:
            theta = Parameters(theta.shapes, theta.flat[places])
            objective = objective.of(places)
            streams, stream_of = self._streams_of([self.members[place] for place in places])
        size, device = self.runs[0].settings.batch_size, theta.flat.device
        generators = [torch.Generator(device) for _ in streams]
        for generator in generators:
            generator.manual_seed(0)
        watched = [self.watches[place].watched.to(device) for _, place in streams]
        means = [
            _mean_weight(stream.run.data, index)
            for (stream, _), index in zip(streams, watched, strict=True)
        ]
        parts = [torch.split(index, size) for index in watched]
        total = theta.flat.new_zeros(len(theta.flat))
        for k in range(max(map(len, parts))):
            own = [part[k] if k < len(part) else part[0][:0] for part in parts]
            inputs = [
                stream.inputs(index, generator, mean)
                for (stream, _), index, generator, mean in zip(
                    streams, own, generators, means, strict=True
                )
            ]
            count = torch.tensor([len(index) for index in own]).to(total)
            count = count if stream_of is None else count[stream_of]
            values = objective.criterion(theta, _spread(stacked(inputs), stream_of))
            total += torch.where(count > 0, values * count, 0.0)
        sizes = torch.tensor([len(index) for index in watched]).to(total)
        return (total / (sizes if stream_of is None else sizes[stream_of])).tolist()


def _rows_of(inputs, start, stop):
    """Some of the rows of all streams."""
    parts: dict[int, torch.Tensor] = {}
    for tensor in inputs:
        if tensor is not None and id(tensor) not in parts:
            parts[id(tensor)] = tensor[:, start:stop]
    return type(inputs)(*(None if tensor is None else parts[id(tensor)] for tensor in inputs))


def _spread(inputs, stream_of, buffers=None):
    """What each member sees, of what each stream has; in buffers, which are made where missing."""
    if stream_of is None:
        return inputs
    if len(inputs[0]) == 1:  # all see the same
        m = len(stream_of)
        seen = (None if part is None else part.expand(m, *part.shape[1:]) for part in inputs)
        return type(inputs)(*seen)
    copies: dict[int, torch.Tensor] = {}
    for name, tensor in zip(inputs._fields, inputs, strict=True):
        if tensor is not None and id(tensor) not in copies:
            out = None
            if buffers is not None:
                key = name, tensor.shape[1:]
                if key not in buffers:
                    buffers[key] = tensor.new_empty(len(stream_of), *tensor.shape[1:])
                out = buffers[key]
            copies[id(tensor)] = torch.index_select(tensor, 0, stream_of, out=out)
    return type(inputs)(*(None if tensor is None else copies[id(tensor)] for tensor in inputs))


def _mean_weight(data, index):
    return None if data.weight is None else data.weight[index].mean()
