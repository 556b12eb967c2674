"""Gradients that are recorded once and replayed: one launch in place of one for each operation.

A small step on a GPU is a few dozen kernels of some microseconds each, and a call of torch that
launches one takes longer than that. A CUDA graph launches them together.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

# Gradient steps of one length from which on a recording, some milliseconds, is worth its time.
_FEWEST_STEPS = 50

Function = Callable[[], Any]
Recorder = Callable[[Function, Sequence[torch.Generator]], Function]


def _cuda_graph(function: Function, generators: Sequence[torch.Generator]) -> Function:
    graph = torch.cuda.CUDAGraph()
    for generator in generators:
        graph.register_generator_state(generator)
    # Other threads may use the device meanwhile.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        result = function()
    # The generators' places were set on the recording's own stream; replays read them on another.
    torch.cuda.synchronize()

    def replay():
        graph.replay()
        return result

    return replay


# How a function is recorded, by the type of its device: what is returned does the same operations
# on the same tensors, and returns what the function did.
RECORDERS: dict[str, Recorder] = {"cuda": _cuda_graph}


class Replayed:
    """A function of indices that is recorded at its second call with so many of them.

    Whatever it does has to be the same for all indices of such lengths, on tensors that stay where
    they are; and it may not read them on the host. Before it is recorded it has run once, so that
    buffers are made. It draws by ``generators`` alone. What it returns is valid until the next
    call.
    """

    def __init__(self, function: Callable[..., Any], generators: Sequence[torch.Generator]):
        self._function, self._generators = function, generators
        self._begun: set[tuple[int, ...]] = set()
        self._replays: dict[tuple[int, ...], tuple[list[torch.Tensor], Function]] = {}

    def __call__(self, *indices: torch.Tensor) -> Any:
        """What the function does with such indices."""
        lengths = tuple(map(len, indices))
        if lengths not in self._begun:
            self._begun.add(lengths)
            return self._function(*indices)
        if lengths not in self._replays:
            held = [index.clone() for index in indices]
            record = RECORDERS[indices[0].device.type]
            self._replays[lengths] = held, record(partial(self._function, *held), self._generators)
        held, replay = self._replays[lengths]
        for kept, index in zip(held, indices, strict=True):
            kept.copy_(index)
        return replay()


def is_worth_recording(place: torch.device, n_steps: int) -> bool:
    """Whether a recording saves more time than it takes."""
    return place.type in RECORDERS and n_steps >= _FEWEST_STEPS


def is_pure(part: Any) -> bool:
    """Whether a part of an objective says ``is_pure``: its own class, not one above it.

    Such a part remembers nothing from one batch to the next, and does the same operations on
    tensors for all batches of one length. So a step may be made twice, and be recorded.
    """
    return part is None or vars(type(part)).get("is_pure", False)
