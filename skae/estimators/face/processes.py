"""Fits that several processes make together, `distributed=True`."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from numbers import Integral, Real

from skae import _seeds
from skae.engine.optimisation import processes
from skae.engine.optimisation.models import fit_alone, trainer
from skae.estimators.face.callbacks import callbacks_of
from skae.estimators.face.fingerprints import parameters_of
from skae.sources.finding import is_batches

# Parameters that are each process's own.
_OWN = ("verbose", "callbacks", "device")


@dataclasses.dataclass(frozen=True)
class Distributed:
    """How the processes of one fit work together: a value of ``distributed``.

    ``distributed=True`` is ``Distributed()``: before each step, gradients are summed over the
    processes, so that the fit is that of one process with all rows. Where the network is slow,
    ``average_every=k`` sends k times less: each process makes k steps on its own rows, and then
    their weights are averaged.

    Read more in :doc:`/guide/processes`.

    Parameters
    ----------
    average_every : int or None, default=None
        Steps that each process makes by itself, after which weights are averaged, by the rows that
        the processes have. None: all steps are made together.
    timeout : float, default=600.0
        Seconds after which a process that waits for another one gives up. One that has failed is
        not waited for.

    Examples
    --------
    >>> from skae import AutoEncoder, Distributed
    >>> model = AutoEncoder(32, distributed=Distributed(average_every=16, timeout=60))
    """

    average_every: int | None = dataclasses.field(default=None, kw_only=True)
    timeout: float = dataclasses.field(default=600.0, kw_only=True)

    def check(self) -> None:
        """Raise a ValueError for a parameter that is out of its range."""
        every = self.average_every
        if every is not None and not (isinstance(every, Integral) and every >= 1):
            raise ValueError(
                "The average_every of Distributed must be an integer of at least 1, or None. "
                f"Got {every!r} instead."
            )
        if not isinstance(self.timeout, Real) or not 0 < self.timeout < 1e8:
            raise ValueError(
                "The timeout of Distributed must be a number of seconds, more than 0. "
                f"Got {self.timeout!r} instead."
            )


@contextmanager
def shared_by_processes(estimator, fit: Callable, X, args: tuple, options: dict) -> Iterator[None]:
    """A context of a fit that, with ``distributed``, all processes make together."""
    given = getattr(estimator, "distributed", False)
    how = Distributed() if given is True else given
    if not isinstance(how, Distributed) or processes.current().is_joined:
        yield
        return
    how.check()
    with processes.joined(how.average_every, how.timeout) as everyone, same_seeds():
        _require_shareable(estimator, X)
        everyone.require_same(_common(estimator, fit.__name__, args, options))
        yield


@contextmanager
def same_seeds() -> Iterator[None]:
    """A context in which ``random_state=None`` is the same seed in all processes."""
    token = _seeds.seeds.set(lambda: processes.current().first(_seeds.fresh_seed()))
    try:
        yield
    finally:
        _seeds.seeds.reset(token)


def _require_shareable(estimator, X):
    """Raise a ValueError for a fit that processes cannot make together, with the reason."""
    name = type(estimator).__name__
    reason = estimator._made_by_one
    if reason is not None:
        raise ValueError(f"{name} is fitted by one process, distributed=False: {reason}.")
    if trainer.get() is not fit_alone:
        raise ValueError(
            f"{name} has distributed=True in a search that trains its candidates as one. Use "
            "scikit-learn's search, whose fits the processes share one after the other, or "
            "distributed=False."
        )
    if is_batches(X):
        raise ValueError(
            f"X is an iterable of batches, of which each process of {name} may have more or fewer, "
            "but all need the same number of calls. Call partial_fit for each batch."
        )


def _common(estimator, method, args, options):
    """What has to be alike in all processes, by names of values."""
    checkpoint, stopping, _ = callbacks_of(estimator)
    given = [part is not None for part in (*args, *options.values())]
    fitted = sorted(name for name in vars(estimator) if name.endswith("_"))
    return {
        "what they call": f"{type(estimator).__name__}.{method}",
        **parameters_of(estimator, _OWN),
        "which of y and sample_weight are given": f"{given} {sorted(options)}",
        "what was fitted before": ", ".join(fitted),
        "their callbacks": repr([type(c).__name__ for c in callbacks_of(estimator) if c]),
        "how often their Checkpoint writes": ""
        if checkpoint is None
        else f"{checkpoint.every} {checkpoint.unit}",
        "what EarlyStopping has": ""
        if stopping is None
        else repr([value is not None for value in vars(stopping).values()]),
    }
