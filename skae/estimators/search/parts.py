"""Tasks that are collected and divided among workers, each of which trains its part together."""

import contextlib
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import joblib
from joblib.parallel import ThreadingBackend

from skae.estimators.search.backend import MANY, TogetherBackend

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


class PartsBackend(ThreadingBackend):
    """Gives each worker a part of the tasks, which it trains together.

    Tasks are collected as they are begun. Neighbours, which have more in common, go to one worker;
    and what several of its tasks have in common, such as the rows, goes there once. At most
    ``size`` are given out at first.
    """

    def __init__(self, workers: Workers, size: int = MANY, **options):
        super().__init__(**options)
        self.workers, self.size = workers, size
        self._waiting: list[Call] = []
        self._n_begun, self._is_complete, self._is_busy = 0, False, False
        self._lock = threading.Lock()

    @property
    def unfinished(self) -> set[int]:
        """Tasks that were ended before they had trained all they wanted to."""
        return self.workers.unfinished

    def end(self) -> None:
        """All tasks end, as soon as they come to a training, where workers can be told."""
        self.workers.end()

    def effective_n_jobs(self, n_jobs):
        """The number of tasks that may be begun at a time."""
        return self.size

    def configure(self, n_jobs=1, parallel=None, **options):
        """Begin anew; return the number of tasks that may be begun at a time."""
        self.parallel, self._n_jobs = parallel, self.size
        self._waiting, self._n_begun, self._is_complete, self._is_busy = [], 0, False, False
        return self.size

    @contextlib.contextmanager
    def retrieval_context(self):
        """All tasks that are given out at first have come."""
        self._is_complete = True
        self._send()
        yield

    def _get_pool(self):
        if self._pool is None:
            self._n_workers, self._pool = self.workers.begin(), _Pool(self)
            self._executor = ThreadPoolExecutor(1)
        return self._pool

    def terminate(self):
        """End what still runs."""
        self.end()
        if self._pool is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
        super().terminate()

    def add(self, call: Call) -> None:
        """Collect a task."""
        with self._lock:
            self._waiting.append(call)
        self._send()

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


class _Pool:
    """What joblib knows as a pool of the standard library's multiprocessing."""

    def __init__(self, backend):
        self._backend = backend

    def apply_async(self, func, args, callback, error_callback):
        """Begin ``func(*args)``; a callback is told of what it returns or raises."""
        self._backend.add(Call(_Bound(func, args), callback, error_callback))

    def close(self):
        """No more is begun."""

    def terminate(self):
        """Nothing is left."""


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
