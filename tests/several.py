"""Several processes, as threads of one: what each computes is what it would as a process."""

import threading

from skae.engine.optimisation import processes


class ThreadProcesses(processes.Joined):
    """One of several threads, each of which is a process of a fit."""

    def __init__(self, rank, size, meeting, average_every=None):
        self.rank, self.size, self.average_every = rank, size, average_every
        self._barrier, self._slots = meeting

    def _parts(self, tensor):
        self._slots[self.rank] = tensor.detach().clone()
        self._barrier.wait()
        parts = list(self._slots)
        self._barrier.wait()
        assert len({(part.shape, part.dtype) for part in parts}) == 1, "they ask different things"
        return parts

    def sum_(self, tensor):
        first, *others = self._parts(tensor)
        for other in others:
            first = first + other
        return tensor.copy_(first)

    def broadcast_(self, tensor):
        return tensor.copy_(self._parts(tensor)[0])


def in_processes(size, function, average_every=None):
    """What ``function(rank)`` returns in each process, all of them in one fit; or raises in one."""
    meeting = threading.Barrier(size, timeout=60), [None] * size
    found, errors = [None] * size, []

    def work(rank):
        try:
            with processes.within(ThreadProcesses(rank, size, meeting, average_every)):
                found[rank] = function(rank)
        except threading.BrokenBarrierError as error:
            errors.append(error)
        except BaseException as error:
            errors.insert(0, error)
            meeting[0].abort()

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return found
