"""A search on a cluster: the workers of dask train together what each of them has."""

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, NamedTuple

import joblib
from joblib.parallel import ThreadingBackend, get_active_backend

from skae.estimators.search.backend import MANY, TogetherBackend


def cluster_client() -> Any:
    """The client of dask that joblib's tasks go to in this context; None if they do not."""
    backend, _ = get_active_backend()
    return getattr(backend, "client", None)


class _Call(NamedTuple):
    """A task, and who is told of what it returns or raises."""

    function: Callable[[], Any]
    callback: Callable[[Any], None]
    error_callback: Callable[[BaseException], None]


class ClusterBackend(ThreadingBackend):
    """Gives each worker of a cluster a part of the tasks, which it trains together.

    Tasks are collected as they are begun. Neighbours, which have more in common, go to one worker;
    and what several of its tasks have in common, such as the rows, goes there once.
    """

    def __init__(self, client: Any = None, n_running: int = 1, size: int = MANY, **options):
        super().__init__(**options)
        self.client, self.n_running, self.size = client, n_running, size
        self._waiting: list[_Call] = []
        self._n_sent, self._is_complete = 0, False
        self._lock = threading.Lock()

    def effective_n_jobs(self, n_jobs):
        """The number of tasks that may be begun at a time."""
        return self.size

    def configure(self, n_jobs=1, parallel=None, **options):
        """Begin anew; return the number of tasks that may be begun at a time."""
        self.parallel, self._n_jobs = parallel, self.size
        self._waiting, self._n_sent, self._is_complete = [], 0, False
        return self.size

    @contextlib.contextmanager
    def retrieval_context(self):
        """All tasks that are given out at first have come."""
        self._is_complete = True
        self._send()
        yield

    def _get_pool(self):
        if self._pool is None:
            workers = len(self.client.scheduler_info()["workers"])
            self._n_workers, self._pool = max(1, workers), _Pool(self)
            self._executor = ThreadPoolExecutor(self._n_workers)
        return self._pool

    def terminate(self):
        """End what still runs."""
        if self._pool is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
        super().terminate()

    def add(self, call: _Call) -> None:
        """Collect a task."""
        with self._lock:
            self._waiting.append(call)
        self._send()

    def _send(self):
        """Give the tasks that wait to the workers, where these have nothing to do."""
        with self._lock:
            if not (self._is_complete and self._n_sent == 0 and self._waiting):
                return
            calls, self._waiting = self._waiting, []
            n_parts = min(self._n_workers, len(calls))
            bounds = [len(calls) * number // n_parts for number in range(n_parts + 1)]
            self._n_sent = n_parts
        for start, stop in pairwise(bounds):
            self._executor.submit(self._run, calls[start:stop])

    def _run(self, calls):
        try:
            functions = [call.function for call in calls]
            how = self.n_running, self.size
            results = self.client.submit(_together, functions, *how, pure=False).result()
        except BaseException as error:
            for call in calls:
                call.error_callback(error)
        else:
            for call, result in zip(calls, results, strict=True):
                call.callback(result)
        with self._lock:
            self._n_sent -= 1
        self._send()


class _Pool:
    """What joblib knows as a pool of the standard library's multiprocessing."""

    def __init__(self, backend):
        self._backend = backend

    def apply_async(self, func, args, callback, error_callback):
        """Begin ``func(*args)``; a callback is told of what it returns or raises."""
        self._backend.add(_Call(_Bound(func, args), callback, error_callback))

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


def _together(functions, n_running, size):
    """What a worker does: call all functions, whose models are trained as one."""
    with joblib.parallel_config(backend=TogetherBackend(n_running, size)):
        return joblib.Parallel()(joblib.delayed(function)() for function in functions)
