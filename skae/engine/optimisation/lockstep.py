"""The steps of a training that several processes make together, each on rows of its own.

All make the same number of steps. A batch is made of a part of each process's rows, and what is
computed of it, a mean over rows, is the mean of the processes' own, weighted by their rows in it:

    g = sum_r (n_r / n) g_r,    n = sum_r n_r.

So each process multiplies its gradient by its share, known beforehand, and one sum over all
follows.
`Lockstep` is that of a process by itself, where nothing is to be done.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch

from skae.engine.optimisation import processes


def n_batches_of(n_rows: int, batch_size: int) -> int:
    """Gradient steps of an epoch."""
    return max(1, math.ceil(n_rows / batch_size))


class Lockstep:
    """How the steps of one process by itself are made.

    ``n_rows`` are those of all processes, ``n_batches`` the steps of an epoch, and
    ``are_repeatable`` tells whether a step can be made twice without asking others.
    """

    are_repeatable = True

    def __init__(self, n_rows: int, batch_size: int):
        self.n_rows, self.n_batches = n_rows, n_batches_of(n_rows, batch_size)

    def batches(self, batches: Any, index: Any) -> Any:
        """The batches of an epoch of rows of an index, as steps are made of them."""
        return batches

    def gradient_at(self, function: Callable, gradient: torch.Tensor) -> Callable:
        """A function of a batch that writes a gradient, for the batch of all processes."""
        return function

    def weights_(self, flat: torch.Tensor) -> None:
        """What becomes of the weights after a step."""


class JoinedLockstep(Lockstep):
    """The same of several processes; ``n_own`` rows are this one's.

    Where their weights are averaged every few steps, each makes the steps between by itself. At the
    end of an epoch weights are averaged, too.
    """

    are_repeatable = False

    def __init__(self, everyone: processes.Processes, n_own: int, batch_size: int):
        n_rows = everyone.gather(n_own)
        if not all(n_rows):
            raise ValueError(
                f"Process {n_rows.index(0)} has no rows to train on; of {everyone.size} processes "
                f"each needs one at least. They have {n_rows}."
            )
        super().__init__(sum(n_rows), batch_size)
        self.everyone, self.n_own = everyone, n_own
        # Batches differ by one row at most, the larger ones first.
        sizes = [divmod(n, self.n_batches) for n in n_rows]
        self._shares = []
        for step in (0, *self._changes(sizes)):
            of_all = [size + (step < n_larger) for size, n_larger in sizes]
            self._shares.append((step, of_all[everyone.rank] / sum(of_all)))
        self._step = 0

    def _changes(self, sizes):
        """The steps from which on another process's batches are smaller."""
        found = {n_larger for _, n_larger in sizes}
        return sorted(step for step in found if 0 < step < self.n_batches)

    def batches(self, batches, index):
        """The batches of an epoch; one of no rows is of one that does not count."""
        return self._filled(batches, index[torch.zeros(1, dtype=torch.long)])

    def _filled(self, batches, stand_in) -> Iterator:
        places = dict(self._shares)
        for step, batch in enumerate(batches):
            self._step, self.everyone.share = step, places.get(step, self.everyone.share)
            yield batch if len(batch) else stand_in.to(batch.device)

    def gradient_at(self, function, gradient):
        """A function of a batch that writes the gradient of that of all processes."""
        everyone = self.everyone

        def shared(batch):
            value = function(batch)
            if everyone.average_every is None:
                everyone.sum_(gradient.mul_(everyone.share))
            return None if value is None else value * everyone.share

        return shared

    def weights_(self, flat):
        """Average the weights where it is time to."""
        every, n_steps = self.everyone.average_every, self._step + 1
        if every is not None and (n_steps % every == 0 or n_steps == self.n_batches):
            self.everyone.sum_(flat.mul_(self.n_own / self.n_rows))


def lockstep_of(n_own: int, batch_size: int) -> Lockstep:
    """That of a training of so many own rows."""
    everyone = processes.current()
    if not everyone.is_joined:
        return Lockstep(n_own, batch_size)
    return JoinedLockstep(everyone, n_own, batch_size)
