"""Fits that run side by side, each in a thread, and meet where they train.

Whoever fits many models, a search or an ensemble, does more than train: rows are split, scaled and
checked before, codes are made and scored after. All of that stays as it is. Each fit runs in a
thread of its own, and `Rendezvous.train`, which takes the place of training in these threads, waits
until all others have come to a training, too, or have ended. Then those of one shape are trained as
one, and those that are the same once.

Threads take turns: no more than ``n_running`` compute at a time. So nothing that is fitted has to
be safe with threads where that is 1.
"""

import threading
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import torch

from skae.engine.joint.training import likeness, train_jointly
from skae.engine.optimisation.models import Fitted, Task, fit_alone, trainer
from skae.engine.optimisation.rows import digest
from skae.engine.optimisation.runs import Run

# How trainings end that `Rendezvous.end` ends.
_CUT_SHORT = ("interrupted", "stopped")


class RendezvousEndedError(Exception):
    """The rendezvous was ended from outside, by Ctrl-C, before a fit had come to its end."""


class Rendezvous:
    """Where the fits of one search meet.

    Fits take part in rounds of at most ``size``: those of a round have all ended before the next
    one begins. ``n_announced`` fits are to come: see `announce`.
    """

    def __init__(self, n_running: int, size: int):
        self.n_running, self.size = n_running, size
        self.is_ended = False
        # Fits that were ended before they had trained all they wanted to.
        self.unfinished: set[int] = set()
        self._changed = threading.Condition()
        self._n_announced, self._is_open = 0, True
        self._members: set[int] = set()
        self._waiting: dict[int, Task] = {}
        self._results: dict[int, Fitted | Exception] = {}
        self._n_active, self._trains, self._knows_all = 0, False, False

    def announce(self) -> None:
        """One fit more is to come."""
        with self._changed:
            self._n_announced += 1

    def knows_all(self, knows: bool) -> None:
        """Whether all fits that can be expected for now were announced: trainings may begin."""
        with self._changed:
            self._knows_all = knows
            self._changed.notify_all()

    def end(self) -> None:
        """All fits end, as soon as they come to a training."""
        with self._changed:
            self.is_ended = True
            self._changed.notify_all()

    @contextmanager
    def membership(self, number: int):
        """A context of the fit of such a number: what is trained in it is trained here."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_open and len(self._members) < self.size)
            self._members.add(number)
            self._n_announced -= 1
            self._changed.notify_all()
            self._take_turn()
        token = trainer.set(lambda task: self.train(number, task))
        try:
            yield
        finally:
            trainer.reset(token)
            with self._changed:
                self._members.discard(number)
                self._is_open = self._is_open or not self._members
                self._n_active -= 1
                self._changed.notify_all()

    def train(self, number: int, task: Task) -> Fitted:
        """Wait for the others, and train with those that are alike.

        Raises what the training raised, and a RendezvousEndedError after `end`.
        """
        with self._changed:
            self._waiting[number] = task
            self._n_active -= 1
            self._changed.notify_all()
            while number not in self._results and not self.is_ended:
                if self._all_wait() and not self._trains:
                    self._train_all()
                else:
                    self._changed.wait()
            self._waiting.pop(number, None)
            result = self._results.pop(number, None)
            self._take_turn()
        cut_short = isinstance(result, Fitted) and result.training.outcome in _CUT_SHORT
        if isinstance(result, Exception):
            raise result
        if result is not None and not (self.is_ended and cut_short):
            return result
        self.unfinished.add(number)
        raise RendezvousEndedError("The search was stopped before this model was trained.")

    def _take_turn(self):
        """Wait until fewer fits compute than may; the lock is held."""
        self._changed.wait_for(lambda: self._n_active < self.n_running)
        self._n_active += 1

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
            results = train_all(tasks, lambda: self.is_ended)
        finally:
            self._changed.acquire()
            self._trains = False
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
    groups: dict[Any, list[int]] = {}
    for number, run in runs.items():
        kind = likeness(run)
        groups.setdefault((number,) if kind is None else kind, []).append(number)
    for members in groups.values():
        try:
            trainings = train_jointly([runs[number] for number in members], is_stopped)
            for number, training in zip(members, trainings, strict=True):
                results[number] = tasks[number].fitted(runs[number], training)
        except Exception as error:
            for number in members:
                alone = len(members) == 1
                results[number] = error if alone else _by_itself(tasks[number], states[number])
    for number, first in enumerate(same):
        if first != number:
            results[number] = _copied(results[first])
    return results


def _identity(task):
    """What decides the result of a task, or a value of its own where that is not known."""
    data, model, start = task.data, task.model, task.start
    rows = data.fingerprint
    if rows is None or task.listener is not None or start.state is not None:
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
