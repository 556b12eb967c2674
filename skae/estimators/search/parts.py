"""Tasks that are collected and divided among workers, each of which trains its part together."""

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import joblib

from skae.estimators.search.backend import MANY, Pool, RoundsBackend, TogetherBackend

Task = Callable[[], Any]


class Call(NamedTuple):
    """A task, and who is told of what it returns or raises."""

    task: Task
    callback: Callable[[Any], None]
    error_callback: Callable[[BaseException], None]


class Workers(Protocol):
    """Who does parts of tasks.

    ``unfinished`` are the numbers of those that `end` ended before they had trained all they wanted
    to.
    """

    unfinished: set[int]

    def begin(self) -> int:
        """Make ready; return how many workers there are."""

    def results(self, parts: Sequence[Sequence[Task]], first: int) -> Iterable[list[Any]]:
        """What the tasks of each part return, which a worker each does at the same time.

        ``first`` is the number of the first task among all that were begun.
        """

    def end(self) -> None:
        """All tasks end, as soon as they come to a training."""


class PartsBackend(RoundsBackend):
    """Gives each worker a part of the tasks, which it trains together.

    Tasks are collected as they are begun. Neighbours, which have more in common, go to one worker;
    and what several of its tasks have in common, such as the rows, goes there once.
    """

    def __init__(self, workers: Workers, size: int = MANY, **options):
        super().__init__(size, **options)
        self.workers, self._lock = workers, threading.Lock()
        self.begin_anew()

    @property
    def unfinished(self) -> set[int]:
        """Tasks that were ended before they had trained all they wanted to."""
        return self.workers.unfinished

    def begin_anew(self) -> None:
        """Nothing has come yet."""
        self._waiting: list[Call] = []
        self._n_begun, self._is_complete, self._is_busy = 0, False, False

    def all_have_come(self) -> None:
        """All tasks that are given out at first have come."""
        self._is_complete = True
        self._send()

    def end(self) -> None:
        """All tasks end, as soon as they come to a training, where workers can be told."""
        self.workers.end()

    def make_pool(self) -> Pool:
        """What collects tasks, and a thread that waits for the workers."""
        self._n_workers, self._executor = self.workers.begin(), ThreadPoolExecutor(1)

        def collect(function, arguments, callback, error_callback):
            with self._lock:
                self._waiting.append(Call(_Bound(function, arguments), callback, error_callback))
            self._send()

        return Pool(collect, partial(self._executor.shutdown, wait=False, cancel_futures=True))

    def _send(self):
        """Give the tasks that wait to the workers, where these have nothing to do."""
        with self._lock:
            if self._is_busy or not (self._is_complete and self._waiting):
                return
            calls, self._waiting, self._is_busy = self._waiting, [], True
            first, self._n_begun = self._n_begun, self._n_begun + len(calls)
        self._executor.submit(self._run, calls, first)

    def _run(self, calls, first):
        n_parts, n_done = min(self._n_workers, len(calls)), 0
        bounds = [len(calls) * number // n_parts for number in range(n_parts + 1)]
        parts = [[call.task for call in calls[start:stop]] for start, stop in pairwise(bounds)]
        try:
            for results in self.workers.results(parts, first):
                for result in results:
                    calls[n_done].callback(result)
                    n_done += 1
        except BaseException as error:
            for call in calls[n_done:]:
                call.error_callback(error)
        with self._lock:
            self._is_busy = False
        self._send()


class _Bound(NamedTuple):
    """A function and its arguments."""

    function: Callable
    arguments: tuple

    def __call__(self):
        return self.function(*self.arguments)


def together(tasks: Sequence[Task], backend: TogetherBackend) -> list[Any]:
    """What a worker does: do all tasks, whose models are trained as one."""
    with joblib.parallel_config(backend=backend):
        return joblib.Parallel()(joblib.delayed(task)() for task in tasks)
