r"""The energy of parameters that an objective is, its gradient, and how it curves.

.. math:: U(\theta) = \frac{n}{T} \, v(\theta)

for an objective v, a mean over rows and penalties, n rows and a temperature T. At T = 1 it is the
sum over rows of their losses, in nats, and n times the penalties: those are minus the logarithm of
the prior, up to a constant.
"""

import math
from collections.abc import Callable

import torch

from skae.engine.optimisation.parameters import Parameters
from skae.engine.optimisation.runs import Data, Objective

# Probes of the diagonal of the Hessian, and products for its largest eigenvalue.
_PROBES, _PRODUCTS = 12, 12
# A parameter's curvature is no less than this part of the mean of all.
_LEAST_CURVATURE = 0.01


class Energy:
    """n / T times an objective, over all rows of the data or a batch of them.

    ``seed``, where it is given, is of the objective's own noise: the same seed, the same noise.
    """

    def __init__(self, objective: Objective, data: Data, n_rows: float, temperature: float = 1.0):
        self.objective, self.data = objective, data
        objective.has_gaps = data.rows.has_gaps
        self.factor = n_rows / temperature
        self.device = data.rows.place.device
        self.index = data.index.to(self.device)
        self.generator = torch.Generator(self.device)
        self._whole = None

    def value(self, theta: Parameters, seed: int = 0) -> float:
        """The energy of parameters, by all rows; infinite where it is no number."""
        x, weight = self.whole
        self.generator.manual_seed(seed)
        found = self.factor * self.objective.value(theta, x, self.generator, weight).item()
        return found if math.isfinite(found) else math.inf

    def gradient_(
        self, theta: Parameters, out: Parameters, index: torch.Tensor | None = None, seed: int = 0
    ) -> torch.Tensor:
        """Write the gradient of the energy, as all rows or those of an index tell it."""
        x, weight = self.whole if index is None else self.data.batch(index)
        self.generator.manual_seed(seed)
        self.objective.gradient(theta, x, self.generator, out, weight)
        return out.flat.mul_(self.factor)

    def mean_gradient_(
        self, theta: Parameters, out: Parameters, batch_size: int, n_passes: int
    ) -> torch.Tensor:
        """Write the gradient by all rows, batch by batch, and over several draws of the noise."""
        total = torch.zeros_like(theta.flat)
        n_batches = math.ceil(len(self.index) / batch_size)
        for number in range(n_passes):
            for k, part in enumerate(torch.tensor_split(self.index, n_batches)):
                gradient = self.gradient_(theta, out, part, seed=number * n_batches + k)
                total.add_(gradient, alpha=len(part) / len(self.index) / n_passes)
        out.flat.copy_(total)
        return out.flat

    @property
    def whole(self):
        """All rows, and their weights."""
        if self._whole is None:
            self._whole = self.data.batch(self.index)
        return self._whole


Gradient = Callable[[Parameters, Parameters], torch.Tensor]


def hessian_product(
    theta: Parameters, gradient: Gradient, direction: torch.Tensor, scratch: Parameters
) -> torch.Tensor:
    """H v by a central difference of gradients, which leaves theta as it is."""
    step = torch.finfo(theta.flat.dtype).eps ** (1 / 3) / float(direction.abs().max())
    start = theta.flat.clone()
    theta.flat.add_(direction, alpha=step)
    above = gradient(theta, scratch).clone()
    theta.flat.copy_(start).sub_(direction, alpha=step)
    above.sub_(gradient(theta, scratch)).div_(2 * step)
    theta.flat.copy_(start)
    return above


class Scale:
    """Coordinates in which the energy curves about as much in all directions: theta = S z.

    ``factor`` is the symmetric S, of shape (n, n), or its diagonal, of shape (n,).
    """

    def __init__(self, factor: torch.Tensor):
        self.factor = factor

    def __call__(self, vector: torch.Tensor) -> torch.Tensor:
        """S v."""
        return self.factor * vector if self.factor.ndim == 1 else torch.mv(self.factor, vector)


def scale_of(
    theta: Parameters, gradient: Gradient, generator: torch.Generator, n_dense: int = 1000
) -> Scale:
    """About the inverse root of the Hessian, the whole of it for up to ``n_dense`` parameters.

    Directions that do not curve, or downwards, are as wide as their absolute curvature says, within
    a bound.
    """
    if theta.flat.numel() > n_dense:
        return Scale(curvature(theta, gradient, generator).rsqrt_())
    scratch, columns = theta.empty_like(), []
    for direction in torch.eye(theta.flat.numel()).to(theta.flat):
        columns.append(hessian_product(theta, gradient, direction, scratch))
    hessian = torch.stack(columns)
    values, vectors = torch.linalg.eigh((hessian + hessian.T) / 2)
    values = values.abs_()
    values.clamp_(min=_LEAST_CURVATURE * float(values.mean()) + 1e-30)
    return Scale((vectors * values.rsqrt()) @ vectors.T)


def curvature(theta: Parameters, gradient: Gradient, generator: torch.Generator) -> torch.Tensor:
    """About how the energy curves along each parameter, of the shape of ``theta.flat``.

    The diagonal of the Hessian by random signs z, E[z * H z] (Bekas, Kokiopoulou & Saad 2007), half
    way to its mean over the parameter's array, since few probes leave it noisy.
    """
    scratch, total = theta.empty_like(), torch.zeros_like(theta.flat)
    for _ in range(_PROBES):
        signs = torch.empty_like(theta.flat).uniform_(-1, 1, generator=generator).sign_()
        total.add_(signs * hessian_product(theta, gradient, signs, scratch), alpha=1 / _PROBES)
    diagonal = Parameters(theta.shapes, total)
    for name in diagonal:
        view = diagonal[name]
        mean = view.mean().abs()
        view.clamp_(min=0).add_(mean).mul_(0.5)
    return total.clamp_(min=_LEAST_CURVATURE * float(total.mean()) + 1e-30)


def largest_curvature(
    theta: Parameters, gradient: Gradient, scale: Scale, generator: torch.Generator
) -> float:
    """The largest eigenvalue of the Hessian in units of the scale, by power iteration."""
    scratch = theta.empty_like()
    vector = torch.empty_like(theta.flat).normal_(generator=generator)
    found = 1.0
    for _ in range(_PRODUCTS):
        vector /= torch.linalg.vector_norm(vector)
        vector = scale(hessian_product(theta, gradient, scale(vector), scratch))
        found = float(torch.linalg.vector_norm(vector))
        if not math.isfinite(found) or found == 0:
            return 1.0
    return found
