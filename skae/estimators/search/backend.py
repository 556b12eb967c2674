"""Many fits in one: a joblib backend under which models of one shape are trained as one."""

import itertools
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import joblib
from joblib.parallel import ThreadingBackend

from skae._warnings import as_seen_from, users_line
from skae.engine.joint.rendezvous import Rendezvous

# Fits that are begun at a time: more hardly gain anything, though some may be of the same model.
MANY = 192


class Pool(NamedTuple):
    """What joblib knows as a pool of the standard library's multiprocessing.

    ``apply_async(function, arguments, callback, error_callback)`` begins a task, of whose end a
    callback is told.
    """

    apply_async: Callable
    close: Callable[[], None] = lambda: None
    terminate: Callable[[], None] = lambda: None


class RoundsBackend(ThreadingBackend):
    """Tasks come in rounds of at most ``size``; what is done with them is its subclasses'."""

    def __init__(self, size: int, **options):
        super().__init__(**options)
        self.size = size

    def begin_anew(self) -> None:
        """Nothing has come yet."""
        raise NotImplementedError

    def all_have_come(self) -> None:
        """All tasks that are given out at first have come."""
        raise NotImplementedError

    def make_pool(self) -> Pool:
        """What takes the tasks."""
        raise NotImplementedError

    def end(self) -> None:
        """All tasks end, as soon as they come to a training, where they can be told."""
        raise NotImplementedError

    # What joblib asks for

    def effective_n_jobs(self, n_jobs):
        """The number of tasks that may be begun at a time."""
        return self.size

    def configure(self, n_jobs=1, parallel=None, **options):
        """Begin anew; return the number of tasks that may be begun at a time."""
        self.parallel, self._n_jobs = parallel, self.size
        self.begin_anew()
        return self.size

    @contextmanager
    def retrieval_context(self):
        """All tasks that are given out at first have come."""
        self.all_have_come()
        yield

    def terminate(self):
        """End what still runs."""
        self.end()
        super().terminate()

    def _get_pool(self):
        if self._pool is None:
            self._pool = self.make_pool()
        return self._pool


class TogetherBackend(RoundsBackend):
    """Runs each task in a thread of its own, in turn; models that the tasks train are trained as
    one.

    ``n_running`` tasks compute at a time. All end once ``goes_on()`` is false.
    """

    def __init__(
        self,
        n_running: int = 1,
        size: int = MANY,
        goes_on: Callable[[], bool] = lambda: True,
        **options,
    ):
        super().__init__(size, **options)
        self._how = n_running, size, goes_on
        self.begin_anew()

    @property
    def unfinished(self) -> set[int]:
        """Tasks that were ended before they had trained all they wanted to."""
        return self.rendezvous.unfinished

    def begin_anew(self) -> None:
        """Nothing has come yet."""
        self.rendezvous, self._numbers = Rendezvous(*self._how), itertools.count()

    def all_have_come(self) -> None:
        """All tasks that are given out at first have come."""
        self.rendezvous.knows_all(True)

    def end(self) -> None:
        """All tasks end, as soon as they come to a training."""
        self.rendezvous.end()

    def make_pool(self) -> Pool:
        """Threads, no more of which are started than there are tasks."""
        executor = ThreadPoolExecutor(self.size)

        def begin(function, arguments, callback, error_callback):
            number, rendezvous = next(self._numbers), self.rendezvous
            rendezvous.announce()

            def in_company():
                try:
                    with rendezvous.membership(number), as_seen_from(self._line):
                        result = function(*arguments)
                except BaseException as error:
                    error_callback(error)
                else:
                    callback(result)

            return executor.submit(in_company)

        no_more = partial(executor.shutdown, wait=False, cancel_futures=True)
        return Pool(begin, no_more, executor.shutdown)

    def start_call(self):
        """Tasks are about to come."""
        self.rendezvous.knows_all(False)
        self._line = users_line()
        # Filters of warnings are global: a task that waits within some of its own would leave them.
        self._filters = warnings.catch_warnings()
        self._filters.__enter__()

    def stop_call(self):
        """All tasks are done."""
        self._filters.__exit__(None, None, None)


def train_together(n_jobs: int | None = None):
    """Let scikit-learn train models of this package together, whoever fits many of them.

    Within this context, whatever fits through joblib
    (:func:`~sklearn.model_selection.cross_validate`, :class:`~sklearn.ensemble.BaggingClassifier`,
    :class:`~sklearn.ensemble.VotingClassifier`, :class:`~sklearn.multiclass.OneVsRestClassifier`,
    searches) runs as it always does, but models of one shape that it fits side by side are trained
    as one: parameters, learning rates, penalties, noise and seeds are of each, one product does for
    all. Each result is that of a fit by itself, but for rounding. What cannot be trained so is
    trained one after the other.

    Parameters
    ----------
    n_jobs : int or None, default=None
        Threads that do what is not training, such as the fits of other steps, at a time. None: one,
        so that nothing has to be safe with threads. -1: all processors.

    Returns
    -------
    context : joblib.parallel_config
        To be used in a ``with`` statement.

    See Also
    --------
    BatchedGridSearchCV : A search in such a context.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.ensemble import BaggingClassifier
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from skae import AutoEncoder, train_together
    >>> X, y = load_digits(n_class=3, return_X_y=True)
    >>> model = make_pipeline(AutoEncoder(16, max_iter=10), LogisticRegression())
    >>> with train_together():
    ...     ensemble = BaggingClassifier(model, n_estimators=5, random_state=0).fit(X, y)
    >>> bool(ensemble.score(X, y) > 0.95)
    True
    """
    return joblib.parallel_config(backend=TogetherBackend(number_of_jobs(n_jobs)))


def number_of_jobs(n_jobs: int | None) -> int:
    """How many threads a number of jobs stands for, as joblib counts."""
    if n_jobs is None:
        return 1
    return joblib.effective_n_jobs(n_jobs) if n_jobs < 0 else max(1, n_jobs)
