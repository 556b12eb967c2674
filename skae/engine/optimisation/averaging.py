"""Means of the weights that a training has had after its last epochs."""

from collections import deque
from typing import Any

import torch

from skae.engine.optimisation.parameters import Parameters


class Average:
    r"""sum_a decay^a theta_{n-a} / sum_a decay^a over the last epochs' weights, a = 0, 1, ...

    ``n_epochs`` is how many epochs count, each of which is a copy of the parameters. None: all of
    them, without copies. ``theta`` are parameters with the mean; until an epoch has ended, with
    those of the start.
    """

    def __init__(self, theta: Parameters, n_epochs: int | None, decay: float = 1.0):
        self.theta = theta.empty_like()
        self.theta.flat.copy_(theta.flat)
        self.n_epochs, self.decay = n_epochs, decay
        self._last: deque[torch.Tensor] = deque(maxlen=n_epochs or 1)
        self._share = 0.0  # what all epochs so far weigh together

    @property
    def has_begun(self) -> bool:
        """Whether an epoch has ended."""
        return self._share > 0

    @property
    def state(self) -> dict[str, Any]:
        """What decides later means, tensors and numbers by name."""
        copies = dict(enumerate(self._last)) if self.n_epochs is not None else {}
        return {"mean": self.theta.flat, "share": self._share} | {
            str(number): weights for number, weights in copies.items()
        }

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        self.theta.flat.copy_(state["mean"])
        self._share = state["share"]
        self._last.clear()
        self._last.extend(state[str(number)] for number in range(len(state) - 2))

    def update_(self, flat: torch.Tensor) -> None:
        """Let the weights after one epoch more count."""
        if self.n_epochs is None:
            self._share = 1.0 + self.decay * self._share
            self.theta.flat.lerp_(flat, 1.0 / self._share)
            return
        self._last.append(flat.clone())
        shares = [self.decay**age for age in reversed(range(len(self._last)))]
        self._share = sum(shares)
        # Anew for each epoch: what is subtracted from a sum would leave its rounding there.
        self.theta.flat.zero_()
        for weights, share in zip(self._last, shares, strict=True):
            self.theta.flat.add_(weights, alpha=share / self._share)
