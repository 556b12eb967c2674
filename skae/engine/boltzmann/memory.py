"""What learning keeps from step to step: which chains have moved, and offsets of centred units."""

from typing import Any

import torch

# How fast the offsets of centred hidden units follow their mean (Melchior et al. 2016).
_OFFSET_RATE = 0.01
# Persistent chains are watched over windows of this many gradient steps.
_WINDOW = 50


def note_moves(state: dict[str, Any], before: torch.Tensor, have_all: bool) -> bool:
    """Note which chains have moved, in windows: weights that grow may freeze them later.

    ``before`` is where they were. Returns whether all have moved in this window; ``have_all`` is
    what the last call returned.
    """
    n_steps = int(state.get("n_steps", 0))
    if n_steps % _WINDOW == 0:
        if "moved" in state:
            state["moved_before"] = state["moved"]
        state["moved"] = torch.zeros(before.shape[:-1], dtype=torch.bool, device=before.device)
        have_all = False
    state["n_steps"] = n_steps + 1
    if have_all:
        return True
    state["moved"] |= (state["chains"] != before).any(-1)
    return bool(state["moved"].all())


def frozen_chains(state: dict[str, Any]) -> torch.Tensor | None:
    """Which chains did not move in the last whole window, or None before it."""
    n_steps = int(state.get("n_steps", 0))
    whole = "moved" if n_steps > 0 and n_steps % _WINDOW == 0 else "moved_before"
    return ~state[whole] if whole in state else None


def followed(state: dict[str, Any], name: str, mean: torch.Tensor) -> torch.Tensor:
    """The offsets of units, before they follow the batch's means."""
    offset = state.setdefault(name, mean)
    state[name] = torch.lerp(offset, mean, _OFFSET_RATE)
    return offset
