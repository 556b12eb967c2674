r"""What a reconstruction says of the density: its score and its local moments.

Corrupt rows by Gaussian noise, y = x + sigma * N(0, I), and let p be the density of y. The
reconstruction with the least squared error is the mean of the clean row, and its Jacobian is that
row's covariance (Vincent 2011; Alain & Bengio 2014; the formulas are Tweedie's):

    r(y) = E[x | y] = y + sigma^2 d log p(y) / dy,     J(y) = dr/dy = Cov[x | y] / sigma^2

Both hold at every sigma, and with one sigma for each column. Cross-entropy of columns of 0 and 1
and of one-hot variables is least at the same mean, so that the same is the score of mixed tables.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from skae.engine.networks.differentials import jacobian_of
from skae.engine.networks.layers import linearized
from skae.engine.optimisation.models import Model
from skae.engine.optimisation.parameters import Parameters

# Up to so many columns covariances are written out, and their roots exact.
FEW_COLUMNS = 32
# Steps of Lanczos for more: the spectra of reconstructions fall fast.
_LANCZOS_STEPS = 12


class Clamp(NamedTuple):
    """Columns that chains keep: a mask, and values where it is True, both of shape (n, n_features).

    There is one row for each chain, or one for all.
    """

    mask: torch.Tensor
    values: torch.Tensor

    def on(self, x: torch.Tensor) -> torch.Tensor:
        """Rows with what is kept."""
        return torch.where(self.mask, self.values, x)


@dataclass(frozen=True)
class Denoiser:
    """A model whose reconstruction estimates the clean row of a corrupted one.

    - ``noise``: standard deviation of the Gaussian noise that it removes, as the model sees rows; a
      number, or one for each column. NaN: it was not trained on such noise.
    - ``moves_codes``: whether the noise is that of codes, in chains, and not of rows.
    - ``corrupt(x, generator)``: what it was trained to undo; returns the corrupted rows and a mask.
    - ``is_drawn``, of shape (n_features,): the columns that chains draw by the model's units, 0 and
      1 or one-hot. Others are real.
    - ``variance``, (n_features,): of real columns given their reconstruction.
    - ``clamp``: columns that chains keep, or None.
    """

    model: Model
    theta: Parameters
    noise: float | torch.Tensor = math.nan
    corrupt: Callable | None = None
    is_drawn: torch.Tensor | None = None
    variance: torch.Tensor | None = None
    clamp: Clamp | None = None
    moves_codes: bool = False

    def at(self, noise: float | torch.Tensor) -> "Denoiser":
        """The same for another level of noise, of which the model is told, if it asks for it."""
        tell = self.model.at_level
        if tell is None or isinstance(noise, torch.Tensor):
            return replace(self, noise=noise)
        return replace(self, model=tell(noise), noise=noise)

    def reconstruct(self, x: torch.Tensor) -> torch.Tensor:
        """r(x), of the shape of x."""
        return self.model.units.mean(self.model.reconstruct(self.theta, x))

    def score(self, x: torch.Tensor) -> torch.Tensor:
        """D log p(x) / dx = (r(x) - x) / sigma^2, p the density of rows with the noise."""
        return (self.reconstruct(x) - x) / self.noise**2

    def jacobian(self, x: torch.Tensor):
        """dr/dx at rows, as an object that multiplies (`skae.engine.networks.jacobians`)."""
        return jacobian_of(self.model, self.theta, x, "reconstruction")

    def noisy(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Rows with the Gaussian noise."""
        return x + self.noise * torch.empty_like(x).normal_(generator=generator)

    def covariance(self, x: torch.Tensor) -> "LocalCovariance":
        """sigma^2 J(x), the covariance of the clean row given a noisy one."""
        is_symmetric = self.model.has_potential and not isinstance(self.noise, torch.Tensor)
        return LocalCovariance(self.jacobian(x), self.noise, is_symmetric)

    def normal_draw(self, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Draws from N(0, sigma^2 J(x)), one for each row."""
        rest = self._tied_draw(x, generator)
        if rest is None:
            rest = self.covariance(x).root_times(torch.empty_like(x).normal_(generator=generator))
        return rest

    def _tied_draw(self, x, generator):
        """The same for one tied layer, sigma sqrt(r') * ((sqrt(s') * eps) W), or None.

        Its Jacobian diag(r') W^T diag(s') W is as good as symmetric: times diag(r')^(1/2) on both
        sides, instead of diag(r') on one, it has the same eigenvalues.
        """
        model = self.model
        maps = model.encoder, model.decoder
        if model.denoise is not None or None in (*maps, model.units.activation):
            return None
        if isinstance(self.noise, torch.Tensor) or not len(maps[0]) == len(maps[1]) == 1:
            return None
        (up,), (down,) = maps
        if up.weight != down.weight:
            return None
        down = down._replace(activation=model.units.activation)
        inner, outer = linearized(self.theta, x, [up, down])[1].slopes
        eps = torch.empty_like(inner).normal_(generator=generator)
        draw = (inner.clamp(min=0).sqrt() * eps) @ self.theta[up.weight]
        return draw * outer.clamp(min=0).sqrt() * self.noise


class LocalCovariance:
    """C = (J S + S J^T) / 2 at some rows, S = diag(sigma^2), by products with J and J^T.

    Where the reconstruction is the mean, J S is symmetric and has no negative eigenvalue; here it
    is made so, unless J is known to be symmetric, as that of an energy is.
    """

    def __init__(self, jacobian, noise: float | torch.Tensor, is_symmetric: bool = False):
        self.jacobian, self.noise, self.is_symmetric = jacobian, noise, is_symmetric
        self.n_rows, self.n_columns = jacobian.n_rows, jacobian.n_in

    def times(self, vectors: torch.Tensor) -> torch.Tensor:
        """C v of each row: (n_rows, m, n_columns) to the same."""
        variance = self.noise**2
        if self.is_symmetric:
            return variance * self.jacobian.transposed_times(vectors)
        forwards = self.jacobian.times(vectors * variance)
        return 0.5 * (forwards + variance * self.jacobian.transposed_times(vectors))

    def dense(self) -> torch.Tensor:
        """C itself, of shape (n_rows, n_columns, n_columns)."""
        product = self.jacobian.dense() * self.noise**2
        return 0.5 * (product + product.transpose(1, 2))

    def root_times(self, vectors: torch.Tensor) -> torch.Tensor:
        """C^(1/2) v of each row, (n_rows, n_columns): exact for few columns, else by Lanczos."""
        if self.n_columns <= FEW_COLUMNS:
            values, basis = torch.linalg.eigh(self.dense())
            part = torch.einsum("nij,ni->nj", basis, vectors)
            return torch.einsum("nij,nj->ni", basis, values.clamp(min=0).sqrt() * part)
        return lanczos_root(self.times, vectors, _LANCZOS_STEPS)


def lanczos_root(times: Callable, vectors: torch.Tensor, n_steps: int) -> torch.Tensor:
    r"""A^(1/2) v of each row for a symmetric A, by so many products with it.

    .. math:: A^{1/2} v \approx |v| \, Q_m T_m^{1/2} e_1, \qquad Q_m^T A Q_m = T_m

    where Q_m spans v, A v, ..., A^(m-1) v. Negative eigenvalues of T count as 0.
    """
    n, n_columns = vectors.shape
    n_steps = min(n_steps, n_columns)
    length = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    tiny = torch.finfo(vectors.dtype).tiny
    basis = vectors.new_zeros(n, n_steps, n_columns)
    triangle = vectors.new_zeros(n, n_steps, n_steps)
    basis[:, 0] = vectors / length.clamp(min=tiny)
    scale = vectors.new_zeros(n, 1)
    for k in range(n_steps):
        product = times(basis[:, k : k + 1])[:, 0]
        scale = torch.maximum(scale, torch.linalg.vector_norm(product, dim=1, keepdim=True))
        triangle[:, k, k] = (product * basis[:, k]).sum(1)
        known = basis[:, : k + 1]
        for _ in range(2):  # once leaves what rounding made of it
            part = torch.bmm(known, product.unsqueeze(2))
            product = product - torch.bmm(part.transpose(1, 2), known)[:, 0]
        if k + 1 == n_steps:
            break
        size = torch.linalg.vector_norm(product, dim=1, keepdim=True)
        # What is left where the space is exhausted is rounding, which would be amplified.
        goes_on = size > 100 * torch.finfo(vectors.dtype).eps * scale
        triangle[:, k, k + 1] = triangle[:, k + 1, k] = torch.where(goes_on, size, 0.0)[:, 0]
        basis[:, k + 1] = torch.where(goes_on, product / size.clamp(min=tiny), 0.0)
    values, inner = torch.linalg.eigh(triangle)
    first = torch.einsum("nij,nj,nj->ni", inner, values.clamp(min=0).sqrt(), inner[:, 0])
    return length * torch.einsum("nkd,nk->nd", basis, first)
