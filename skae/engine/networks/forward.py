"""What one pass of rows through a network leaves for the penalties to read."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from skae.engine.networks.layers import Network


@dataclass(eq=False)
class Forward:
    """What one pass through the network leaves for the penalties to read.

    - ``units``, of `skae.engine.networks.units`: those of the input.
    - ``x``, of shape (n_samples, n_features): the encoder's input, the corrupted one where there is
      corruption.
    - ``row_weight``, (n_samples,): sample weights; None where all rows count alike.
    - ``hidden``, ``decoded``: outputs of the encoder's layers, and of the decoder's inner layers.
    - ``output``, (n_samples, n_features): pre-activation of the output units.
    - ``row_fraction``, (n_samples,): what each row counts in the mean over the batch, row_weight /
      n_samples.
    - ``slope``, ``delta``, (n_samples, n_components), on the closed-form path: the code's slope
      s'(p), and n_samples times the objective's gradient with respect to its pre-activation p,
      which the penalties add to.
    - ``deltas``: the same of all layers of a deep encoder, the code's last.

    Of several networks that are trained as one, all tensors have one axis more, the first.
    """

    network: Network
    units: Any
    x: torch.Tensor
    row_weight: torch.Tensor | None
    generator: torch.Generator | None
    hidden: Sequence[torch.Tensor]
    decoded: Sequence[torch.Tensor] = ()
    output: torch.Tensor | None = None
    row_fraction: torch.Tensor | None = None
    slope: torch.Tensor | None = None
    delta: torch.Tensor | None = None
    deltas: Sequence[torch.Tensor] = ()

    def __post_init__(self):
        if self.row_fraction is None:
            x, weight = self.x, self.row_weight
            weight = torch.ones_like(x[..., 0]) if weight is None else weight
            self.row_fraction = weight / x.shape[-2]

    @property
    def code(self):
        """Output of the encoder's last layer."""
        return self.hidden[-1]

    def mean(self, values):
        """The weighted mean over rows of a tensor that has a number, or several, for each row."""
        if self.x.dim() == 2:
            return torch.matmul(self.row_fraction, values)
        if values.dim() == 2:
            return (self.row_fraction * values).sum(-1)
        return torch.matmul(self.row_fraction.unsqueeze(-2), values).squeeze(-2)

    def weighted_(self, values):
        """Each row times its sample weight, in place."""
        return values if self.row_weight is None else values.mul_(self.row_weight.unsqueeze(-1))
