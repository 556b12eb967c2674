"""Fits that run side by side, each in a thread, and meet where they train.

Whoever fits many models, a search or an ensemble, does more than train: rows are split, scaled and
checked before, codes are made and scored after. All of that stays as it is. Each fit runs in a
thread of its own, and `Rendezvous.train`, which takes the place of training in these threads, waits
until all others have come to a training, too, or have ended. Then those of one shape are trained as
one, and those that are the same once.

Threads take turns: no more than ``n_running`` compute at a time. So nothing that is fitted has to
be safe with threads where that is 1.
"""

import math
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch

from skae.engine.joint.streams import stream_key
from skae.engine.joint.training import likeness, train_jointly
from skae.engine.optimisation.devices import one_thread
from skae.engine.optimisation.models import NO_EXTRAS, Fitted, Task, fit_alone, trainer
from skae.engine.optimisation.rows import digest
from skae.engine.optimisation.runs import Run
from skae.engine.optimisation.sharing import shared

# How trainings end that `Rendezvous.end` ends.
_CUT_SHORT = ("interrupted", "stopped")


class RendezvousEndedError(Exception):
    """The rendezvous was ended from outside, by Ctrl-C, before a fit had come to its end."""


class Rendezvous:
    """Where the fits of one search meet.

    Fits take part in rounds of at most ``size``: those of a round have all ended before the next
    one begins. ``n_announced`` fits are to come: see `announce`. Once ``goes_on()`` is false, which
    is asked before each training and after each of its epochs, all end as if by `end`.
    """

    def __init__(self, n_running: int, size: int, goes_on: Callable[[], bool] = lambda: True):
        self.n_running, self.size, self._goes_on = n_running, size, goes_on
        self.is_ended = False
        # Fits that were ended before they had trained all they wanted to.
        self.unfinished: set[int] = set()
        # Who waits for others, and who waits to take part; who computes has one of the turns.
        lock = threading.Lock()
        self._changed, self._entry = threading.Condition(lock), threading.Condition(lock)
        self._turns = threading.Semaphore(n_running)
        self._n_announced, self._is_open = 0, True
        self._members: set[int] = set()
        self._waiting: dict[int, Task] = {}
        self._results: dict[int, Fitted | Exception] = {}
        # What the fits of a round have in common.
        self._found: dict[Hashable, Any] = {}
        self._trains, self._knows_all = False, False

    def announce(self) -> None:
        """One fit more is to come."""
        with self._changed:
            self._n_announced += 1

    def knows_all(self, knows: bool) -> None:
        """Whether all fits that can be expected for now were announced: trainings may begin."""
        with self._changed:
            self._knows_all = knows
            self._wake_if_all_wait()

    def end(self) -> None:
        """All fits end, as soon as they come to a training."""
        with self._changed:
            self.is_ended = True
            self._changed.notify_all()

    @contextmanager
    def membership(self, number: int):
        """A context of the fit of such a number: what is trained in it is trained here."""
        with self._entry:
            self._entry.wait_for(lambda: self._is_open and len(self._members) < self.size)
            self._members.add(number)
            self._n_announced -= 1
        self._turns.acquire()
        token = trainer.set(lambda task: self.train(number, task))
        try:
            with shared(self._found):
                yield
        finally:
            trainer.reset(token)
            self._turns.release()
            with self._changed:
                self._members.discard(number)
                if not self._members:
                    self._found.clear()
                self._is_open = self._is_open or not self._members
                self._wake_if_all_wait()
                if self._is_open:
                    self._entry.notify_all()

    def train(self, number: int, task: Task) -> Fitted:
        """Wait for the others, and train with those that are alike.

        Raises what the training raised, and a RendezvousEndedError after `end`.
        """
        self._turns.release()
        if not self._goes_on():
            self.end()
        with self._changed:
            self._waiting[number] = task
            while number not in self._results and not self.is_ended:
                if self._all_wait() and not self._trains:
                    self._train_all()
                else:
                    self._changed.wait()
            self._waiting.pop(number, None)
            result = self._results.pop(number, None)
        self._turns.acquire()
        cut_short = isinstance(result, Fitted) and result.training.outcome in _CUT_SHORT
        if isinstance(result, Exception):
            raise result
        if result is not None and not (self.is_ended and cut_short):
            return result
        self.unfinished.add(number)
        raise RendezvousEndedError("The search was stopped before this model was trained.")

    def _wake_if_all_wait(self):
        """Wake the members if one of them is to train; the lock is held."""
        # Not at every change: many that wake to wait again take longer than what they wait for.
        if self._all_wait():
            self._changed.notify_all()

    def _all_wait(self):
        """Whether all members wait for a training, and no others are to come."""
        is_full = len(self._members) == self.size or not self._n_announced or not self._is_open
        pending = len(self._waiting) - len(self._results)
        return self._knows_all and is_full and pending == len(self._members)

    def _train_all(self):
        """Train what all members wait for; the lock is held, but for the training itself."""
        self._trains, self._is_open = True, False
        order = sorted(self._waiting)
        tasks = [self._waiting[number] for number in order]
        self._changed.release()
        try:
            results = train_all(tasks, lambda: self.is_ended or not self._goes_on())
        finally:
            self._changed.acquire()
            self._trains = False
        self.is_ended |= not self._goes_on()
        self._results.update(zip(order, results, strict=True))
        self._changed.notify_all()


def train_all(
    tasks: list[Task], is_stopped: Callable[[], bool] = lambda: False
) -> list[Fitted | Exception]:
    """Train models, those of one shape as one and those that are the same once.

    Returns what `fit_model` returns of each, or the exception that it raises.
    """
    results: list[Any] = [None] * len(tasks)
    firsts: dict[Any, int] = {}
    same = [firsts.setdefault(_identity(task), number) for number, task in enumerate(tasks)]
    runs: dict[int, Run] = {}
    states = {number: tasks[number].generator.get_state() for number in firsts.values()}
    for number in firsts.values():
        try:
            runs[number] = tasks[number].run()
        except Exception as error:
            results[number] = error
    groups: dict[Hashable, list[int]] = {}
    alone: list[list[int]] = []
    for number, run in runs.items():
        kind = likeness(run)
        members = [] if kind is None else groups.setdefault(kind, [])
        members.append(number)
        if kind is None:
            alone.append(members)

    def train_members(members):
        try:
            trainings = train_jointly([runs[number] for number in members], is_stopped)
            for number, training in zip(members, trainings, strict=True):
                results[number] = tasks[number].fitted(runs[number], training)
        except Exception as error:
            for number in members:
                is_alone = len(members) == 1
                results[number] = error if is_alone else _by_itself(tasks[number], states[number])

    parts = [part for members in groups.values() for part in _parts(members, runs)]
    on_cpu = [part for part in parts if runs[part[0]].theta.flat.device.type == "cpu"]
    _side_by_side(train_members, on_cpu)
    for members in parts:
        if members not in on_cpu:
            train_members(members)
    for members in alone:
        train_members(members)
    for number, first in enumerate(same):
        if first != number:
            results[number] = _copied(results[first])
    return results


# Models of a part: more hardly gain anything, and need memory. A GPU does more at a time.
_MOST, _MOST_ON_DEVICE = 32, 256
# Multiply-adds of one model's largest product from which on models are faster one after the other:
# calls hardly count then, and what a step of several reads and writes leaves the core's cache.
_LARGE = 4_000_000
# Multiply-adds of a step's largest product, of all models of a part, that are worth a thread.
_WORTH_A_THREAD = 1_000_000
# Python runs one thread at a time: 16 of them, on as many cores, took longer than one by far.
_MOST_THREADS = 2


def _parts(members, runs):
    """Runs that can be one, in parts for the threads that there are; those of one stream together.

    Threads that are woken at each call cost more than they give where products are small; those
    that have a part each meet at the end alone.
    """
    first = runs[members[0]]
    listens = any(runs[number].listener is not None for number in members)
    is_on_cpu = first.theta.flat.device.type == "cpu"
    n_parts = math.ceil(len(members) / (_MOST if is_on_cpu else _MOST_ON_DEVICE))
    if is_on_cpu and not listens:
        work = len(members) * first.largest_product
        n_threads = min(_threads(), len(members), work // _WORTH_A_THREAD)
        is_large = first.largest_product >= _LARGE
        n_parts = len(members) if is_large else max(n_parts, n_threads)
    streams: dict[Hashable, list[int]] = {}
    for number in members if n_parts > 1 else ():
        streams.setdefault(stream_key(runs[number]), []).append(number)
    order = [number for stream in streams.values() for number in stream] or members
    ends = [len(order) * k // n_parts for k in range(n_parts + 1)]
    return [order[start:stop] for start, stop in pairwise(ends)]


def _threads():
    return min(torch.get_num_threads(), _MOST_THREADS)


def _side_by_side(function, parts):
    """Call a function of each part, as many at a time as there are threads."""
    n_threads = min(_threads(), len(parts))
    if n_threads < 2:
        for part in parts:
            function(part)
        return
    with one_thread(), ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(function, parts))


def _identity(task):
    """What decides the result of a task, or a value of its own where that is not known."""
    data, model, start = task.data, task.model, task.start
    rows = data.fingerprint
    is_plain = task.listener is None and task.extras == NO_EXTRAS and start.state is None
    if rows is None or not is_plain:
        return object()
    identity = None if task.identity is None else task.identity()
    if identity is None:
        return object()
    weights = sorted((start.weights or {}).items())
    arrays = tuple((name, digest(torch.from_numpy(array))) for name, array in weights)
    columns = tuple(digest(part) for part in (model.shift, model.scale, model.fill))
    state = digest(task.generator.get_state())
    return identity, rows, state, arrays, columns, start.was_learned


def _by_itself(task, state):
    task.generator.set_state(state)
    try:
        return fit_alone(task)
    except Exception as error:
        return error


def _copied(result):
    """The same result, in arrays of its own."""
    if not isinstance(result, Fitted):
        return result
    weights = {name: array.copy() for name, array in result.weights.items()}
    return result._replace(weights=weights)
