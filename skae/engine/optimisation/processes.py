"""Processes that train one model together, each with rows of its own.

Whoever asks `current` gets what is true of the rows of all of them: sums, means, whether some or
all say so. One process by itself, `Processes`, answers with its own numbers as they are; so nothing
that asks needs to know whether there are others.

All processes ask the same in the same order, and get answers of the same bits. One that raises says
so to the others, which stop instead of waiting for it.
"""

import hashlib
import pickle
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from itertools import count
from typing import Any

import numpy as np
import torch
import torch.distributed

# Seconds after which one that waits asks whether another process has failed.
_PATIENCE = 0.5
# How often a process has joined others: all of them have as often.
_joined = count()


class Processes:
    """Those of a fit; this class: one by itself.

    ``rank`` is which of ``size`` processes this one is. ``average_every`` is after how many steps
    the processes' weights are averaged; None: they share every step. ``share`` is this one's part
    of the rows of the batch of all, in training. ``is_joined`` tells whether there may be others,
    who cannot be left alone.
    """

    rank, size, is_joined = 0, 1, False
    average_every: int | None = None
    share = 1.0

    def sum_(self, tensor: torch.Tensor) -> torch.Tensor:
        """Let a tensor be the sum of those of all processes."""
        return tensor

    def broadcast_(self, tensor: torch.Tensor) -> torch.Tensor:
        """Let a tensor be that of the first process."""
        return tensor

    def gather(self, value: Any) -> list:
        """The values of all processes, in order; of few bytes, which can be pickled."""
        return [value]

    def first(self, value: Any) -> Any:
        """The value of the first process."""
        return value

    def any(self, flag: bool) -> bool:
        """Whether it is so in any of the processes."""
        return flag

    def total(self, numbers: Any) -> Any:
        """The sums of numbers, an array or a single one, over all processes."""
        return numbers

    def average(self, values: np.ndarray, weights: np.ndarray | None = None) -> Any:
        """The mean over the rows of all processes."""
        return np.average(values, axis=0, weights=weights)

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """The mean of the numbers of all processes."""
        return values.mean()

    def ratio(self, total: torch.Tensor, n: int) -> float:
        """Sums over numbers of rows, of all processes."""
        return float(total) / n

    def rows(self, x: torch.Tensor) -> torch.Tensor:
        """Some rows of all processes, one below the other."""
        return x

    def own(self, generator: torch.Generator) -> torch.Generator:
        """Of a generator that is alike in all processes, one with numbers of each one's own."""
        return generator

    def require_same(self, facts: Mapping[str, Any]) -> None:
        """Raise a ValueError where processes differ in what is to be alike, values by names."""

    def mean_of_batch(self, mean: torch.Tensor) -> torch.Tensor:
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


class Joined(Processes):
    """Several processes. A subclass has `sum_` and `broadcast_`."""

    is_joined = True

    def gather(self, value):
        """The values of all processes, in order."""
        own = np.frombuffer(pickle.dumps(value), dtype=np.uint8)
        lengths = self._placed(torch.tensor([len(own)]), [1] * self.size).tolist()
        whole = self._placed(torch.tensor(own), lengths).numpy()
        ends = np.cumsum(lengths)
        parts = zip(ends - lengths, ends, strict=True)
        return [pickle.loads(whole[start:end].tobytes()) for start, end in parts]

    def _placed(self, own, lengths):
        """One after the other of what each process has, of such lengths."""
        whole = torch.zeros(sum(lengths), dtype=own.dtype)
        start = sum(lengths[: self.rank])
        whole[start : start + len(own)] = own
        return self.sum_(whole)

    def first(self, value):
        """The value of the first process."""
        return self.gather(value if self.rank == 0 else None)[0]

    def any(self, flag):
        """Whether it is so in any of the processes."""
        return bool(self.sum_(torch.tensor([int(flag)])))

    def total(self, numbers):
        """The sums of numbers over all processes."""
        array = np.array(numbers)
        total = self.sum_(torch.from_numpy(array.reshape(-1))).numpy().reshape(array.shape)
        return total if array.ndim else total.item()

    def average(self, values, weights=None):
        """The mean over the rows of all processes."""
        weights = np.ones(len(values)) if weights is None else weights
        sums = weights @ values if weights.ndim == 1 else (weights * values).sum(0)
        return self.total(sums) / self.total(weights.sum(0))

    def mean(self, values):
        """The mean of the numbers of all processes."""
        sums = self.sum_(torch.stack([values.sum(), values.new_tensor(values.numel())]))
        return sums[0] / sums[1]

    def ratio(self, total, n):
        """Sums over numbers of rows, of all processes."""
        sums = self.sum_(torch.tensor([float(total), float(n)], dtype=torch.float64))
        return float(sums[0] / sums[1])

    def rows(self, x):
        """Some rows of all processes, one below the other."""
        lengths = self.gather(len(x))
        flat = self._placed(x.reshape(-1).cpu(), [n * x.shape[1] for n in lengths])
        return flat.view(-1, x.shape[1]).to(x.device)

    def own(self, generator):
        """A new generator with numbers of this process's own; the one given stays alike in all."""
        seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        number = hashlib.blake2b(f"{seed} {self.rank}".encode(), digest_size=7).digest()
        own = torch.Generator(generator.device)
        return own.manual_seed(int.from_bytes(number, "little"))

    def require_same(self, facts):
        """Raise a ValueError where processes differ."""
        everywhere = self.gather(dict(facts))
        for name, value in everywhere[0].items():
            for rank, others in enumerate(everywhere):
                if others.get(name) != value:
                    raise ValueError(
                        f"The processes of this fit differ in {name}: {value} in process 0, "
                        f"{others.get(name)} in process {rank}. All need the same; only rows, "
                        "targets and their weights are each process's own."
                    )

    def mean_of_batch(self, mean):
        """The mean over the batch of all processes; of this one, where steps are on own rows."""
        return mean if self.average_every is not None else self.sum_(mean * self.share)

    def counted(self, weight):
        """Weights of the rows of a batch: none, where it is there for want of rows."""
        return weight if self.share > 0 else torch.zeros_like(weight)

    def spread(self, total):
        """The sum of a number over processes, and over those before this one."""
        everywhere = torch.zeros(self.size, dtype=torch.float64)
        everywhere[self.rank] = total
        everywhere = self.sum_(everywhere)
        return float(everywhere.sum()), float(everywhere[: self.rank].sum())

    def add_(self, sums, add):
        """Add to sums what is added of the rows of each process."""
        own = [torch.zeros_like(part) for part in sums]
        add(*own)
        flat = self.sum_(torch.cat([part.reshape(-1) for part in own]))
        for part, added in zip(sums, flat.split([part.numel() for part in sums]), strict=True):
            part.add_(added.view_as(part))

    def best(self, value, weight):
        """The value of the process where a weight is largest."""
        found = self.gather((weight, value))
        return max(found, key=lambda pair: pair[0])[1]


class ProcessGroupError(RuntimeError):
    """Another process of the fit has failed, or does not answer."""


class TorchProcesses(Joined):
    """The processes of torch.distributed, over connections of their own.

    None waits longer than ``timeout`` seconds for the others.
    """

    def __init__(self, average_every: int | None = None, timeout: float = 600.0):
        distributed = torch.distributed
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()
        self.average_every, self.timeout = average_every, timeout
        self._key = f"skae/{next(_joined)}/failed"
        try:
            self._handle = distributed.new_group(timeout=timedelta(seconds=timeout))
        except RuntimeError as error:
            raise ProcessGroupError(
                f"Process {self.rank} waited {timeout:g} seconds for the other {self.size - 1} to "
                f"call fit, too. All have to. ({error})"
            ) from error
        # Whoever frees a tensor last needs the interpreter. That must not be a thread of the
        # group while the interpreter waits for its end, as torch 2.6 does. So tensors are held
        # until the group's threads have let go of them.
        self._held: dict[int, torch.Tensor] = {}
        # Where what is summed has to lie.
        backend = distributed.get_backend(self._handle)
        self._device = {"gloo": "cpu", "nccl": "cuda"}.get(backend)

    def sum_(self, tensor):
        """Let a tensor be the sum of those of all processes."""
        return self._done(torch.distributed.all_reduce, tensor)

    def broadcast_(self, tensor):
        """Let a tensor be that of the first process."""
        return self._done(torch.distributed.broadcast, tensor, src=0)

    def _done(self, collective: Callable[..., Any], tensor, **options):
        there = self._device in (None, tensor.device.type)
        moved = tensor if there else tensor.to(self._device)
        self._held = {key: held for key, held in self._held.items() if held._use_count() > 1}
        self._held[id(moved)] = moved
        try:
            work = collective(moved, group=self._handle, async_op=True, **options)
        except RuntimeError as error:
            raise self._failure(error) from error
        started = time.monotonic()
        while True:
            try:
                work.wait(timedelta(seconds=_PATIENCE))
                break
            except RuntimeError as error:
                waited = time.monotonic() - started
                if work.is_completed() or waited > self.timeout or self._note() is not None:
                    raise self._failure(error) from error
        return tensor if there else tensor.copy_(moved)

    def _failure(self, error):
        """What to raise: what another process has said of itself, or that it is gone."""
        note, until = self._note(), time.monotonic() + 2 * _PATIENCE
        while note is None and time.monotonic() < until:  # it may say so a moment later
            time.sleep(_PATIENCE / 10)
            note = self._note()
        if note is not None:
            return ProcessGroupError(f"{note} Process {self.rank} stopped with it.")
        return ProcessGroupError(
            f"Another of the {self.size} processes of this fit has ended, or did not answer within "
            f"{self.timeout:g} seconds. Process {self.rank} stopped. ({error})"
        )

    def _note(self) -> str | None:
        """What a process that failed has left for the others."""
        try:
            store = torch.distributed.distributed_c10d._get_default_store()
            return store.get(self._key).decode() if store.check([self._key]) else None
        except (RuntimeError, ValueError):  # who keeps the notes is gone
            return None

    def tell(self, error: BaseException) -> None:
        """Tell the other processes why this one leaves them."""
        if isinstance(error, ProcessGroupError):
            return
        text = f"Process {self.rank} of {self.size} failed: {type(error).__name__}: {error}"
        try:
            torch.distributed.distributed_c10d._get_default_store().set(self._key, text)
        except (RuntimeError, ValueError):
            return

    def leave(self) -> None:
        """Give the connections back."""
        handle, self._handle = self._handle, None
        torch.distributed.destroy_process_group(handle)


ALONE = Processes()
_current: ContextVar[Processes] = ContextVar("current processes", default=ALONE)


def current() -> Processes:
    """Those of the fit that runs."""
    return _current.get()


@contextmanager
def within(processes: Processes) -> Iterator[Processes]:
    """A context of a fit that they make."""
    token = _current.set(processes)
    try:
        yield processes
    finally:
        _current.reset(token)


@contextmanager
def joined(average_every: int | None, timeout: float) -> Iterator[Processes]:
    """The same for the processes of torch.distributed, all of which end it, or none.

    Raises a RuntimeError in a process that belongs to none, and where another one fails.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        raise RuntimeError(
            "distributed=True is for a process that is one of several, and this one is alone. "
            "Start the script by `torchrun --nproc-per-node=2 script.py`, and call "
            "torch.distributed.init_process_group('gloo') in it before fit (for GPUs 'nccl', after "
            "torch.cuda.set_device); or set distributed=False."
        )
    processes = TorchProcesses(average_every, timeout)
    try:
        with within(processes):
            yield processes
        processes.any(False)
    except BaseException as error:
        processes.tell(error)
        raise
    finally:
        processes.leave()
