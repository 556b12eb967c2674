r"""Energies of auto-encoders: densities exp(-E(x)) / Z whose score is that of the reconstruction.

Where r(x) - x = -sigma^2 dE/dx for some E, the reconstruction knows a density explicitly. That is
so for one layer with tied weights and real outputs, S the antiderivative of its activation s,

    E(x) = (|x|^2 / 2 - c.x - sum_j S(W_j.x + b_j)) / sigma^2

(for sigmoid units and sigma = 1 the free energy of the Gaussian restricted Boltzmann machine of the
same weights, up to a constant), and at any depth where r is made so, of a network r0,

    E(x) = |x - r0(x)|^2 / (2 sigma^2),      r = r0 + J_r0^T (x - r0)

With bounded hidden units both grow as |x|^2, so that Z is finite. With other activations it may be
none. The reconstruction error of an ordinary auto-encoder is no such energy.
"""

import math
from collections.abc import Callable, Iterator

import torch

from skae.engine.density.denoisers import Denoiser
from skae.engine.networks.activations import Activation
from skae.engine.networks.layers import AffineMap

# Points of a grid at most, and how many are evaluated at a time.
MAX_GRID = 4_000_000
_BLOCK = 65_536
# Points of a grid for each standard deviation of the noise: no energy has narrower wells.
_FINENESS = 4
_MOST_WIDENINGS = 24


class Energy:
    """E(x) of a `Denoiser` and its gradient, (x - r(x)) / sigma^2, at rows as the model sees them.

    Raises a ValueError, which says why, if there is none.
    """

    def __init__(self, denoiser: Denoiser):
        if reason := why_no_energy(denoiser):
            raise ValueError(reason)
        self.denoiser = denoiser
        self.variance = float(denoiser.noise) ** 2

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """E(x) of each row, of shape (n_samples,)."""
        model, theta = self.denoiser.model, self.denoiser.theta
        if model.has_potential:
            error = x - model.decode(theta, model.encode(theta, x))
            return 0.5 * error.square().sum(1) / self.variance
        (up,), (down,) = model.encoder, model.decoder  # type: ignore[misc]
        return tied_potential(theta, x, up, down.bias) / self.variance

    def gradient(self, x: torch.Tensor) -> torch.Tensor:
        """dE/dx, of the shape of x."""
        return (x - self.denoiser.reconstruct(x)) / self.variance


def tied_potential(theta, x: torch.Tensor, layer: AffineMap, visible_bias: str) -> torch.Tensor:
    """|x|^2 / 2 - c.x - sum_j S(W_j.x + b_j), whose gradient is x - r(x) for one tied layer."""
    inner = torch.addmm(theta[layer.bias], x, theta[layer.weight].t())
    of_units = layer.activation.antiderivative
    if of_units is None:
        raise ValueError(f"{layer.activation.name!r} has no antiderivative in closed form")
    return 0.5 * x.square().sum(1) - x @ theta[visible_bias] - of_units(inner).sum(1)


def why_no_energy(denoiser: Denoiser) -> str | None:
    """Why the reconstruction is the gradient of no energy, and what would be; None if it is one."""
    model = denoiser.model
    if isinstance(denoiser.noise, torch.Tensor):
        return "an energy needs one level of noise, the same for all columns"
    if model.has_potential:
        return None
    if not model.units.is_linear:
        return "no output but that of real columns (loss='gaussian', 'squared_error') has an energy"
    up, down = model.encoder, model.decoder
    is_tied = up is not None and down is not None and len(up) == len(down) == 1
    if not is_tied or up[0].weight != down[0].weight:  # type: ignore[index]
        return (
            "a reconstruction has an energy with one layer and tied_weights=True, or with "
            "parametrization='energy' at any depth"
        )
    activation: Activation = up[0].activation  # type: ignore[index]
    if activation.antiderivative is None:
        return f"activation={activation.name!r} has no antiderivative in closed form"
    return None


def grid_points(low: torch.Tensor, high: torch.Tensor, spacing: float) -> int:
    """How many points a grid between two corners has."""
    return math.prod(int(n) for n in torch.ceil((high - low) / spacing) + 1)


def log_partition_on_grid(
    energy: Callable, low: torch.Tensor, high: torch.Tensor, noise: float
) -> float:
    """Log of the integral of exp(-E), by the trapezoidal rule on a grid that grows as it must.

    It begins between two corners, where data lie. Raises a ValueError if it would need more than
    `MAX_GRID` points, or if there is more to be found however far it goes.
    """
    spacing = noise / _FINENESS
    before = -math.inf
    for _ in range(_MOST_WIDENINGS):
        if grid_points(low, high, spacing) > MAX_GRID:
            raise ValueError(
                f"A grid for this energy would have more than {MAX_GRID:,} points. Use "
                "method='ais'; or the energy has no finite integral, which bounded hidden units "
                "(activation='sigmoid' or 'tanh') ensure."
            )
        blocks = _grid_blocks(low, high, spacing)
        total = torch.stack([torch.logsumexp(-energy(x).double(), 0) for x in blocks])
        value = float(torch.logsumexp(total, 0)) + len(low) * math.log(spacing)
        if not math.isfinite(value):
            break
        if value - before < 1e-7:
            return value
        before, margin = value, 0.25 * (high - low)
        low, high = low - margin, high + margin
    raise ValueError(
        "This energy has no finite integral: its density does not fall off away from the data. Use "
        "bounded hidden units, activation='sigmoid' or 'tanh', or more weight_decay."
    )


def _grid_blocks(low, high, spacing) -> Iterator[torch.Tensor]:
    axes = [
        torch.arange(math.ceil((b - a) / spacing) + 1).to(low) * spacing + a
        for a, b in zip(low.tolist(), high.tolist(), strict=True)
    ]
    shape = [len(axis) for axis in axes]
    for start in range(0, math.prod(shape), _BLOCK):
        index = torch.arange(start, min(start + _BLOCK, math.prod(shape)), device=low.device)
        columns = []
        for axis in reversed(axes):
            columns.append(axis[index % len(axis)])
            index = torch.div(index, len(axis), rounding_mode="floor")
        yield torch.stack(columns[::-1], 1)


class EnergyPath:
    """Laws between independent normal columns and a density, for annealed importance sampling.

    log p_beta = (1 - beta) log N(x; mean, variance) - beta E(x), unnormalised. Steps between them
    are of Hamiltonian Monte Carlo: the noise bounds how narrow the density is, and with it the
    length of a step, which is shortened where too few are accepted.
    """

    def __init__(
        self, energy: Energy, mean: torch.Tensor, variance: torch.Tensor, n_leapfrogs: int = 4
    ):
        self.energy, self.mean, self.variance = energy, mean, variance
        self.n_leapfrogs = n_leapfrogs
        self.accepted, self._n_steps, self._factor = 0.0, 0, 0.7

    def start(self, n_chains: int, generator: torch.Generator) -> torch.Tensor:
        """Rows drawn at beta = 0."""
        noise = self.mean.new_empty(n_chains, len(self.mean)).normal_(generator=generator)
        return self.mean + self.variance.sqrt() * noise

    def energies(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Rows, and the logarithms of both ends' densities there."""
        square = (x - self.mean).square() / self.variance
        base = -0.5 * (square + torch.log(2 * math.pi * self.variance)).sum(1)
        return [x, base, -self.energy(x)]

    def log_density(self, energies: list[torch.Tensor], beta: float) -> torch.Tensor:
        """Unnormalised log-density of each row."""
        return (1 - beta) * energies[1] + beta * energies[2]

    def log_base_partition(self) -> float:
        """Log Z at beta = 0, where the density is normalised."""
        return 0.0

    def step(
        self, energies: list[torch.Tensor], beta: float, generator: torch.Generator
    ) -> torch.Tensor:
        """Rows after a step that leaves the law of beta as it is."""
        start = x = energies[0]
        curvature = (1 - beta) / self.variance + beta / self.energy.variance
        size = self._factor * curvature.rsqrt()
        velocity = first = torch.empty_like(x).normal_(generator=generator)
        velocity = velocity - 0.5 * size * self._slope(x, beta)
        for k in range(self.n_leapfrogs):
            x = x + size * velocity
            last = k + 1 == self.n_leapfrogs
            velocity = velocity - (0.5 if last else 1.0) * size * self._slope(x, beta)
        before = self.log_density(energies, beta) - 0.5 * first.square().sum(1)
        after = self.log_density(self.energies(x), beta) - 0.5 * velocity.square().sum(1)
        draw = torch.empty_like(before).uniform_(generator=generator).log_()
        moves = draw < after - before
        self._adapt(float(moves.to(x.dtype).mean()))
        return torch.where(moves.unsqueeze(1), x, start)

    def _slope(self, x, beta):
        return (1 - beta) * (x - self.mean) / self.variance + beta * self.energy.gradient(x)

    def _adapt(self, rate):
        self._n_steps += 1
        self.accepted += (rate - self.accepted) / self._n_steps
        self._factor = min(0.9, self._factor * 1.01) if rate > 0.8 else self._factor * 0.97
