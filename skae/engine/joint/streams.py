"""What the members of a joint training see of their rows: those of one seed see it once."""

from collections.abc import Hashable
from typing import Any

import torch
from torch.nn.functional import pad

from skae.engine.optimisation.rows import digest
from skae.engine.optimisation.runs import Run


class Stream:
    """Batches with their noise, as all runs see them that have these rows and random numbers."""

    def __init__(self, run: Run):
        self.run, self.generator = run, torch.Generator(run.generator.device)
        self.generator.set_state(run.generator.get_state())

    def order(self) -> torch.Tensor:
        """A permutation of the rows to train on, drawn."""
        return self.run.order(self.generator)

    def inputs(self, index: torch.Tensor, generator: torch.Generator, mean_weight=None) -> Any:
        """What the objective sees of some of the rows."""
        data, objective = self.run.data, self.run.objective
        weight = None if data.weight is None else data.weight[index]
        if weight is not None and mean_weight is not None:
            weight = weight / mean_weight
        # Rows of their own: others may be taken of the same before these are used.
        x = data.rows.tensor.index_select(0, index)
        return objective.joint.inputs(x, generator, weight)


def stream_key(run: Run) -> Hashable:
    """What decides which batches a run sees, with which noise."""
    return run.data.fingerprint, digest(run.generator.get_state()), run.objective.joint.noise


def stacked(parts: list[Any]) -> Any:
    """Named tuples of tensors as one of tensors with an axis more, the first.

    Those with fewer rows are filled up with rows of weight 0. A mean over the rows of the result,
    by its ``row_weight``, is for each the mean over its own. Tensors that have another number of
    rows, of other things, are as they are.
    """
    lengths = [len(part[0]) for part in parts]
    n = max(lengths)
    if min(lengths) < n:
        parts = [
            part._replace(row_weight=_row_weight(part) * (n / max(1, length)))
            for part, length in zip(parts, lengths, strict=True)
        ]
    done: dict[tuple[int, ...], torch.Tensor] = {}
    fields = []
    for name, *tensors in zip(parts[0]._fields, *parts, strict=True):
        key = tuple(map(id, tensors))
        if key not in done and any(tensor is not None for tensor in tensors):
            like = next(tensor for tensor in tensors if tensor is not None)
            fill = 1.0 if name.endswith("weight") else 0.0
            tensors = [
                like.new_full((length, *like.shape[1:]), fill) if tensor is None else tensor
                for tensor, length in zip(tensors, lengths, strict=True)
            ]
            done[key] = torch.stack(
                [
                    _filled_up(tensor, n) if len(tensor) == length else tensor
                    for tensor, length in zip(tensors, lengths, strict=True)
                ]
            )
        fields.append(done.get(key))
    return type(parts[0])(*fields)


def _row_weight(part):
    if part.row_weight is not None:
        return part.row_weight
    return part[0].new_ones(len(part[0]))


def _filled_up(tensor, n):
    if len(tensor) == n:
        return tensor
    return pad(tensor, (0, 0) * (tensor.dim() - 1) + (0, n - len(tensor)))
