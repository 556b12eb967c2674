"""What a training is at one of its steps, so that another process can go on from there.

A step is decided by the parameters, the optimiser's moments, the generator and what the objective
knows; how a training ends also by what the watch has seen. All of it together is a dict of numbers,
text and tensors. A training that goes on from it ends with the bits of one that never stopped.
"""

import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Keeper:
    """Who keeps what a training is, and gives it back.

    - ``held``: what was kept of an earlier run of the same training. None: there was none.
    - ``is_due(epoch, step)``: whether to keep it now, before a step of an epoch; both from 0.
    - ``keep(state)``: keep a dict of numbers, text, lists and tensors, which change later.
    """

    held: dict[str, Any] | None
    is_due: Callable[[int, int], bool]
    keep: Callable[[dict[str, Any]], None]


@dataclass
class Position:
    """Where a training is: before a ``step`` of an ``epoch``, both from 0.

    - ``total``: the sum of the losses of the epoch's steps so far.
    - ``order``: the generator's state from which the order of the epoch's rows was drawn.
    - ``now``: its state at the step. None: that after the order was drawn.
    - ``seconds``: how long the training has run before.
    """

    epoch: int = 0
    step: int = 0
    total: torch.Tensor | None = None
    order: torch.Tensor | None = None
    now: torch.Tensor | None = None
    seconds: float = 0.0


def kept(run, watch, position: Position) -> dict[str, Any]:
    """What a run is at a position."""
    return {
        "theta": run.theta.flat,
        "moments": dict(run.state),
        "objective": dict(run.objective.state),
        "memory": dict(run.objective.memory),
        "watch": watch.state,
        "average": None if run.average is None else run.average.state,
        "position": {**vars(position), "now": run.generator.get_state()},
    }


def restore_(run, watch, held: dict[str, Any]) -> Position:
    """Let a run that has not begun be what was kept of it; returned is the position."""
    device = run.theta.flat.device

    def placed(state):
        return {
            name: value.to(device) if isinstance(value, torch.Tensor) else value
            for name, value in state.items()
        }

    run.theta.flat.copy_(held["theta"])
    run.state = placed(held["moments"])
    run.objective.state = placed(held["objective"])
    run.objective.memory = held["memory"]
    watch.state = placed(held["watch"])
    if run.average is not None:
        run.average.state = placed(held["average"])
    position = Position(**held["position"])
    if position.total is not None:
        position.total = position.total.to(device)
    return position


def changes(own: Any, other: Any) -> list[list]:
    """What makes of another value, of nested dicts and lists, one's own: places and parts."""
    if own is other:
        return []
    mine, others = dict(_parts(own)), dict(_parts(other))
    if mine.keys() != others.keys():
        return [[[], own]]
    differ = (place for place in mine if pickle.dumps(mine[place]) != pickle.dumps(others[place]))
    return [[[*place], mine[place]] for place in differ]


def changed(value: Any, own: list[list]) -> Any:
    """What `changes` make of a value, which is changed."""
    for place, part in own:
        if not place:
            return part
        *way, name = place
        within = value
        for step in way:
            within = within[step]
        within[name] = part
    return value


def _parts(value: Any, place: tuple = ()) -> Iterator[tuple[tuple, Any]]:
    if not isinstance(value, dict | list) or not value:
        yield place, value
        return
    for name, part in value.items() if isinstance(value, dict) else enumerate(value):
        yield from _parts(part, (*place, name))
