"""How many threads the steps of a training have: measured, where their bits do not tell.

Threads wait for each other at the end of every product. Where another process has a part of a
core, that takes longer than the product, whatever its size. So a training measures it, on some of
its own first steps: each is made on one thread, and again from the same state on as many as there
are. The parameters that it leads to must have the same bits both ways; else nothing is chosen, and
all threads are used. The number thus never shows in what is learned.
"""

import time
from collections.abc import Callable
from typing import TypeVar

import torch

from skae.engine.optimisation.devices import one_thread

T = TypeVar("T")

# Steps that are measured; the one before them pays for buffers that are made once.
_MEASURED = 4
# So many steps make up for making these twice.
_WORTH_IT = 100
# Larger states than so many numbers are not copied for it.
_MOST = 2**24


class StepThreads:
    """One thread or all of them for steps on the CPU, whichever was faster in the first ones.

    A step changes ``state``, tensors, in place, draws from ``generator``, and returns a tensor or
    None. Of ``n_steps`` in all, few are not worth it. Steps on batches of a size that was not
    measured are compared when it first comes.
    """

    def __init__(self, state: list[torch.Tensor], generator: torch.Generator, n_steps: int):
        self.state, self.generator = state, generator
        self.n_threads = torch.get_num_threads()
        self.seconds = {1: 0.0, self.n_threads: 0.0}
        n_numbers = sum(part.numel() for part in state)
        # The number chosen; None: not yet.
        self.chosen: int | None = None
        is_simple = state[0].device.type != "cpu" or self.n_threads == 1
        if is_simple or n_numbers > _MOST or n_steps < _WORTH_IT:
            self.chosen = self.n_threads
        self._n_compared, self._sizes = 0, set[int]()

    def run(self, step: Callable[[], T], size: int) -> T:
        """Make a step, on a batch of so many rows."""
        if self.chosen == self.n_threads:
            return step()
        if self.chosen == 1 and size in self._sizes:
            with one_thread():
                return step()
        return self._compare(step, size)

    def _compare(self, step, size):
        before, draws = [part.clone() for part in self.state], self.generator.get_state()
        with one_thread():
            value, seconds = _timed(step)
        after = [part.clone() for part in self.state]
        self.seconds[1] += seconds if self._n_compared > 0 else 0.0

        for part, copy in zip(self.state, before, strict=True):
            part.copy_(copy)
        self.generator.set_state(draws)
        other, seconds = _timed(step)
        self.seconds[self.n_threads] += seconds if self._n_compared > 0 else 0.0

        self._sizes.add(size)
        self._n_compared += 1
        if not _same(value, other) or not all(map(_same, self.state, after)):
            self.chosen = self.n_threads
        elif self.chosen is None and self._n_compared > _MEASURED:
            self.chosen = min(self.seconds, key=lambda n: self.seconds[n])
        return other


def _timed(step):
    started = time.perf_counter()
    value = step()
    return value, time.perf_counter() - started


def _same(a: torch.Tensor | None, b: torch.Tensor | None) -> bool:
    """Whether both have the same bits; NaN is like nothing."""
    return a is b or (a is not None and b is not None and torch.equal(a, b))
