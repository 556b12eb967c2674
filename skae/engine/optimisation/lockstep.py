"""The steps of a training that several processes make together, each on rows of its own.

All make the same number of steps. A batch is made of a part of each process's rows, and what is
computed of it, a mean over rows, is the mean of the processes' own, weighted by their rows in it:

    g = sum_r (n_r / n) g_r,    n = sum_r n_r.

So each process multiplies its gradient by its share, known beforehand, and one sum over all
follows.
`Steps` are those of a process by itself, where nothing is to be done.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from skae.engine.optimisation.groups import Group


def n_batches_of(n_rows: int, batch_size: int) -> int:
    """Gradient steps of an epoch."""
    return max(1, math.ceil(n_rows / batch_size))


class Steps:
    """The steps of one process by itself.

    ``n_rows`` are those of all processes, ``n_batches`` the steps of an epoch, and
    ``are_repeatable`` tells whether one can be made twice without asking others.
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

    def sum_(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over processes, in place."""
        return tensor

    def mean(self, mean: torch.Tensor) -> torch.Tensor:
        """The mean over the batch of all processes, of that over this one's rows."""
        return mean

    def counted(self, weight: torch.Tensor) -> torch.Tensor:
        """Weights of the rows of a batch, as they count in sums."""
        return weight

    def spread(self, total: float) -> tuple[float, float]:
        """The sum of a number over processes, and over those before this one."""
        return total, 0.0

    def add_(self, sums: Sequence[torch.Tensor], add: Callable[..., None]) -> None:
        """Add to sums what ``add(*sums)`` adds of the rows of each process."""
        add(*sums)

    def best(self, value: Any, weight: float) -> Any:
        """The value of the process where a weight is largest."""
        return value


class SharedSteps(Steps):
    """The steps of several processes; ``n_own`` rows are this one's.

    Where the group averages weights every few steps, each makes the steps between by itself. At the
    end of an epoch weights are averaged, too.
    """

    are_repeatable = False

    def __init__(self, group: Group, n_own: int, batch_size: int):
        n_rows = group.gather(n_own)
        if not all(n_rows):
            raise ValueError(
                f"Process {n_rows.index(0)} has no rows to train on; of {group.size} processes "
                f"each needs one at least. They have {n_rows}."
            )
        super().__init__(sum(n_rows), batch_size)
        self.group, self.n_own = group, n_own
        # Batches differ by one row at most, the larger ones first.
        sizes = [divmod(n, self.n_batches) for n in n_rows]
        self._shares = []
        for step in range(self.n_batches) if self.n_batches < 2 else (0, *self._changes(sizes)):
            of_all = [size + (step < n_larger) for size, n_larger in sizes]
            self._shares.append((step, of_all[group.rank] / sum(of_all)))
        self.share, self._step, self._n_steps = self._shares[0][1], 0, 0

    def _changes(self, sizes):
        """The steps from which on another process's batches are smaller."""
        found = {n_larger for _, n_larger in sizes}
        return sorted(step for step in found if 0 < step < self.n_batches)

    @property
    def _are_apart(self):
        """Whether steps are made on own rows, and weights averaged."""
        return self.group.average_every is not None

    def batches(self, batches, index):
        """The batches of an epoch; one of no rows is of one that does not count."""
        return self._filled(batches, index[torch.zeros(1, dtype=torch.long)])

    def _filled(self, batches, stand_in) -> Iterator:
        places = dict(self._shares)
        for step, batch in enumerate(batches):
            self._step, self.share = step, places.get(step, self.share)
            yield batch if len(batch) else stand_in.to(batch.device)

    def gradient_at(self, function, gradient):
        """A function of a batch that writes the gradient of that of all processes."""

        def shared(batch):
            value = function(batch)
            if not self._are_apart:
                self.group.sum_(gradient.mul_(self.share))
            return None if value is None else value * self.share

        return shared

    def weights_(self, flat):
        """Average the weights where it is time to."""
        every, self._n_steps = self.group.average_every, self._n_steps + 1
        if every is None:
            return
        if self._n_steps % every == 0 or self._step == self.n_batches - 1:
            self.group.sum_(flat.mul_(self.n_own / self.n_rows))

    def sum_(self, tensor):
        """The sum over processes, in place."""
        return self.group.sum_(tensor)

    def mean(self, mean):
        """The mean over the batch of all processes; of this one, where steps are on own rows."""
        return mean if self._are_apart else self.group.sum_(mean * self.share)

    def counted(self, weight):
        """Weights of the rows of a batch: none, where it is there for want of rows."""
        return weight if self.share > 0 else torch.zeros_like(weight)

    def spread(self, total):
        """The sum of a number over processes, and over those before this one."""
        everywhere = torch.zeros(self.group.size, dtype=torch.float64)
        everywhere[self.group.rank] = total
        everywhere = self.group.sum_(everywhere)
        return float(everywhere.sum()), float(everywhere[: self.group.rank].sum())

    def add_(self, sums, add):
        """Add to sums what is added of the rows of each process."""
        own = [torch.zeros_like(part) for part in sums]
        add(*own)
        flat = self.group.sum_(torch.cat([part.reshape(-1) for part in own]))
        for part, added in zip(sums, flat.split([part.numel() for part in sums]), strict=True):
            part.add_(added.view_as(part))

    def best(self, value, weight):
        """The value of the process where a weight is largest."""
        found = self.group.gather((weight, value))
        return max(found, key=lambda pair: pair[0])[1]


def steps_of(group: Group, n_own: int, batch_size: int) -> Steps:
    """The steps of a training of so many own rows in a group."""
    if not group.is_joined:
        return Steps(n_own, batch_size)
    return SharedSteps(group, n_own, batch_size)
