"""The decoder as a linear map of codes: a matrix here, windows in
`skae.engine.sparse.convolutions`.

A map has atoms, which are parameters, and a geometry, which is not. Analysis is the product of
data with all atoms; synthesis, its adjoint, is the sum of the atoms weighted by codes. What a
unit of the encoder has besides its weights may serve many codes: it is spread over them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Dense:
    """A matrix D with one row for each code: synthesis is h D, analysis x D^T.

    Parameters
    ----------
    n_features, n_codes : int
    """

    n_features: int
    n_codes: int

    @property
    def filters_shape(self) -> tuple[int, int]:
        """The shape of D."""
        return self.n_codes, self.n_features

    def analyze(
        self, dictionary: torch.Tensor, x: torch.Tensor, shift: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The rows x D^T, plus a ``shift`` of each unit; of shape (n_samples, n_codes)."""
        if shift is None:
            return x @ dictionary.t()
        return torch.addmm(shift, x, dictionary.t())

    def synthesize(self, dictionary: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        """The rows h D, of shape (n_samples, n_features)."""
        return code @ dictionary

    def filter_gradient(self, x: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        """Gradient of sum(code * analyze(D, x)) with respect to D."""
        return code.t() @ x

    def spread(self, values: torch.Tensor) -> torch.Tensor:
        """What belongs to each unit, at each of its codes: there is one."""
        return values

    def collect(self, values: torch.Tensor) -> torch.Tensor:
        """The sums over each unit's codes, the adjoint of `spread`."""
        return values


def largest_eigenvalue(
    product: Callable[[torch.Tensor], torch.Tensor], start: torch.Tensor, n_steps: int = 12
) -> float:
    """The largest eigenvalue of a symmetric matrix without negative ones, from below.

    By the steps of Lanczos 1950, which come much nearer than as many powers of the matrix where
    other eigenvalues are almost as large. FISTA is stable for steps up to a third longer than
    that of the true value, so what they still miss does no harm.

    Parameters
    ----------
    product : callable
        The product of the matrix with a vector.
    start : Tensor of shape (n, )
        Noise, so that it has a part along every eigenvector.
    n_steps : int, default=12
        Products.

    Returns
    -------
    value : float
        Infinite where products are not finite.
    """
    vector, previous = start / torch.linalg.vector_norm(start), None
    diagonal: list[float] = []
    beside: list[float] = []
    for _ in range(min(n_steps, len(start))):
        image = product(vector)
        if beside:
            image.sub_(previous, alpha=beside[-1])
        diagonal.append(float(torch.dot(image, vector)))
        image.sub_(vector, alpha=diagonal[-1])
        beside.append(float(torch.linalg.vector_norm(image)))
        # Not so where the vectors span all that the start has a part in, or all has overflowed.
        if not 0 < beside[-1] < math.inf:
            break
        previous, vector = vector, image.div_(beside[-1])
    # The matrix as those vectors see it.
    on, off = torch.tensor([diagonal, beside], dtype=torch.float64)
    if not on.isfinite().all():
        return math.inf
    matrix = on.diag() + off[:-1].diag(1) + off[:-1].diag(-1)
    return float(torch.linalg.eigvalsh(matrix)[-1])


def squared_norm(linear_map: Any, filters: torch.Tensor, n_steps: int = 12) -> float:
    """The largest eigenvalue of synthesis times analysis, by `largest_eigenvalue`.

    Parameters
    ----------
    linear_map : Dense or Convolution
    filters : Tensor of shape ``linear_map.filters_shape``
    n_steps : int, default=12

    Returns
    -------
    value : float
    """

    def product(x):
        maps = linear_map.analyze(filters, x.unsqueeze(0))
        return linear_map.synthesize(filters, maps).squeeze(0)

    return largest_eigenvalue(product, noise_like(filters, linear_map.n_features), n_steps)


def noise_like(tensor: torch.Tensor, n: int) -> torch.Tensor:
    """N normal numbers of the dtype and on the device of a tensor, the same in every call."""
    generator = torch.Generator(tensor.device).manual_seed(0)
    return tensor.new_empty(n).normal_(generator=generator)
