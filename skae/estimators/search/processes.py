"""A search by several processes of this machine: each trains together what it has."""

import os
import signal
import tempfile
import threading
from contextlib import contextmanager, suppress

import joblib
from joblib.parallel import get_active_backend

from skae.estimators.search.backend import MANY, TogetherBackend
from skae.estimators.search.parts import together


def processes_of(n_jobs: int | None) -> int:
    """How many processes are to fit models, as joblib counts jobs; 1 where jobs are threads."""
    backend, _ = get_active_backend()
    is_of_threads = getattr(backend, "uses_threads", False)
    return 1 if is_of_threads else joblib.effective_n_jobs(n_jobs)


class Processes:
    """Processes of joblib, which go on as long as there is a file, which `end` removes."""

    def __init__(self, n_processes: int, size: int = MANY):
        self.n_processes, self.size = n_processes, size
        self.unfinished: set[int] = set()
        self._mark: str | None = None

    def end(self) -> None:
        """All tasks end, as soon as they come to a training."""
        if self._mark is not None:
            with suppress(FileNotFoundError):
                os.remove(self._mark)

    def begin(self):
        """Make the file; return how many processes there are."""
        file, self._mark = tempfile.mkstemp(prefix="skae-search-")
        os.close(file)
        return self.n_processes

    def results(self, parts, first):
        """What the tasks of each part return."""
        size = max(2, self.size // self.n_processes)
        # The processes that joblib's own searches have, if these ran before.
        work = joblib.Parallel(n_jobs=self.n_processes, backend="loky")
        done = work(joblib.delayed(_while_marked)(part, size, self._mark) for part in parts)
        for results, unfinished in done:
            self.unfinished |= {first + number for number in unfinished}
            first += len(results)
            yield results


def _while_marked(tasks, size, mark):
    """What tasks return, and which were ended since the file that marks their search is gone."""
    backend = TogetherBackend(1, size, lambda: os.path.exists(mark))
    with _deaf():
        return together(tasks, backend), sorted(backend.unfinished)


@contextmanager
def _deaf():
    """A context that Ctrl-C does not reach: who began the search hears it, and says so."""
    if threading.current_thread() is not threading.main_thread():
        yield  # which never hears it
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
