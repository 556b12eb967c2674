"""What a model is, as a value: its parameters, and what is done with them.

Every model of this package is one `Model`, whatever its family: an estimator makes it from its
constructor parameters and the columns of the data, `skae.engine.optimisation.fitting.fit_model`
trains it, and `skae.engine.stacks.stacking.stacked` makes one of several.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from skae.engine.optimisation.devices import place_of
from skae.engine.optimisation.parameters import Parameters
from skae.engine.optimisation.rows import map_rows

# From a block of rows to one result for each.
Function = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Model:
    """A model as functions of its parameters, for columns as it sees them.

    Attributes
    ----------
    shapes : dict of str to tuple of int
        Name and shape of each parameter, as `Parameters` takes them.
    start_ : callable
        (theta, rows, index, generator) -> None: sets the parameters with which training begins.
        Some are like the rows of the index.
    encode : callable
        (theta, x) -> code, at the least cost.
    decode : callable
        (theta, code) -> pre-activation of the units of the input.
    units : object of `skae.engine.networks.units`
        Of the input: what a pre-activation says about a row.
    n_features, n_codes : int
        Columns of the input, and of the code.
    objective : callable, or None
        () -> a new objective of the model's own training. None: its parameters are given.
    shift, scale : Tensor of shape (n_features,), or None
        The model sees (x - shift) / scale. None: it sees x.
    differentiable : callable, default=None
        What ``encode`` returns, as autograd can follow it. None: ``encode`` itself.
    project : callable, default=None
        theta -> None: a constraint that holds after every step.
    encoder, decoder : tuple of AffineMap, default=None
        Both as chains of affine maps and activations, where that is what they are: gradients and
        Jacobians are closed forms then.
    code_range : tuple of two float
        Between what a code lies, whatever the data.
    no_gradient : str, default=None
        Why no gradient can go through the encoder. None: one can.
    optimizer : callable, default=None
        (objective) -> a rule of the steps of its own, in the place of the user's choice.
    untied : callable, default=None
        (weights, a dict of arrays) -> those of the untied auto-encoder of sigmoid units or, where
        an activation is chosen, of these, that encodes and decodes alike. None: encoder and
        decoder have no weights in common.
    largest_alpha : callable, default=None
        (theta, x) -> the weight of the sparsity penalty from which on each row's code is zero.
    report : callable, default=None
        (objective) -> what to warn of after a training on it, or None.
    numbers_per_row : int
        What a training step holds in memory for each row, beyond the row and its code.
    keeps_state : bool
        Whether what the objective knows of the rows so far outlives a training.
    """

    shapes: dict[str, tuple[int, ...]]
    start_: Callable[..., None]
    encode: Callable[[Parameters, torch.Tensor], torch.Tensor]
    decode: Callable[[Parameters, torch.Tensor], torch.Tensor]
    units: Any
    n_features: int
    n_codes: int
    objective: Callable[[], Any] | None
    shift: torch.Tensor | None = None
    scale: torch.Tensor | None = None
    differentiable: Callable[[Parameters, torch.Tensor], torch.Tensor] | None = None
    project: Callable[[Parameters], None] | None = None
    encoder: tuple[Any, ...] | None = None
    decoder: tuple[Any, ...] | None = None
    code_range: tuple[float, float] = (-math.inf, math.inf)
    no_gradient: str | None = None
    optimizer: Callable[[Any], Any] | None = None
    untied: Callable[[dict], dict] | None = None
    largest_alpha: Callable[[Parameters, torch.Tensor], torch.Tensor] | None = None
    report: Callable[[Any], str | None] | None = None
    numbers_per_row: int = 0
    keeps_state: bool = False

    def code(self, theta: Parameters, x: torch.Tensor) -> torch.Tensor:
        """The code, as autograd can follow it."""
        return (self.differentiable or self.encode)(theta, x)

    def reconstruct(self, theta: Parameters, x: torch.Tensor) -> torch.Tensor:
        """Pre-activation of the units of the input, from the code of a row."""
        return self.decode(theta, self.encode(theta, x))

    def standardized(self, x: torch.Tensor) -> torch.Tensor:
        """What the model sees of rows in their own units."""
        return x if self.scale is None else (x - self.shift) / self.scale

    def mean(self, output: torch.Tensor) -> torch.Tensor:
        """Rows in their own units, as the units' pre-activation reconstructs them."""
        mean = self.units.mean(output)
        return mean if self.scale is None else mean * self.scale + self.shift


class FittedModel(NamedTuple):
    """A model and its parameters, to compute with."""

    model: Model
    theta: Parameters

    def map_rows(self, function: Function, X, shape: tuple[int, ...] = ()) -> np.ndarray:
        """``function(x)`` for blocks of rows as the model sees them, as an array.

        Parameters
        ----------
        function : callable
            From a Tensor of rows to a Tensor of results of such a shape, one for each.
        X : ndarray or CSR matrix of shape (n_samples, n_features)
            In the units of the data.
        shape : tuple of int, default=()

        Returns
        -------
        results : ndarray of shape (n_samples, *shape)
            In float32 where X is, or is of small integers, else in float64.
        """
        return self._mapped(function, X, shape, self.model.shift, self.model.scale)

    def map_codes(self, function: Function, codes) -> np.ndarray:
        """``function(h)`` for blocks of codes, which returns rows of the data's width."""
        return self._mapped(function, codes, (self.model.n_features,), None, None)

    def _mapped(self, function, X, shape, shift, scale):
        return map_rows(function, X, shape, place_of(self.theta.flat), shift, scale)
