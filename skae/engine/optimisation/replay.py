"""Gradients that are recorded once and replayed: one launch in place of one for each operation.

A small step on a GPU is a few dozen kernels of some microseconds each, and a call of torch that
launches one takes longer than that. A CUDA graph launches them together.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

# Gradient steps of one length from which on a recording, some milliseconds, is worth its time.
_FEWEST_STEPS = 50

Function = Callable[[], Any]


def _cuda_graph(function: Function, generator: torch.Generator) -> Function:
    graph = torch.cuda.CUDAGraph()
    graph.register_generator_state(generator)
    # Other threads may use the device meanwhile.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        result = function()
    # The generator's place was set on the recording's own stream, and replays read it on another.
    torch.cuda.synchronize(generator.device)

    def replay():
        graph.replay()
        return result

    return replay


# How a function is recorded, by the type of its device: what is returned does the same operations
# on the same tensors, and returns what the function did.
RECORDERS: dict[str, Callable[[Function, torch.Generator], Function]] = {"cuda": _cuda_graph}


class Replayed:
    """A function of indices that is recorded at its second call with so many of them.

    Whatever it does has to be the same for all indices of one length, on tensors that stay where
    they are; and it may not read them on the host. Before it is recorded it has run once, so that
    buffers are made. What it returns is valid until the next call.
    """

    def __init__(self, function: Callable[[torch.Tensor], Any], generator: torch.Generator):
        self._function, self._generator = function, generator
        self._begun: set[int] = set()
        self._replays: dict[int, tuple[torch.Tensor, Function]] = {}

    def __call__(self, index: torch.Tensor) -> Any:
        """What the function does with such indices."""
        n = len(index)
        if n not in self._begun:
            self._begun.add(n)
            return self._function(index)
        if n not in self._replays:
            held = index.clone()
            record = RECORDERS[index.device.type]
            self._replays[n] = held, record(partial(self._function, held), self._generator)
        held, replay = self._replays[n]
        held.copy_(index)
        return replay()


def is_worth_recording(place: torch.device, n_steps: int) -> bool:
    """Whether a recording saves more time than it takes."""
    return place.type in RECORDERS and n_steps >= _FEWEST_STEPS


def says_replayable(part: Any) -> bool:
    """Whether a part of an objective can be recorded: its own class says so, not one above it."""
    return part is None or vars(type(part)).get("is_replayable", False)
