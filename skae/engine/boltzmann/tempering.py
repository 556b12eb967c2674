"""Steps between independent units and a machine: parallel tempering and annealing.

Both walk along the laws P_beta between beta = 0, where all units are independent, and beta = 1, the
machine, which `skae.engine.boltzmann.energies.TemperedPath` describes. Hot chains cross between
modes. Parallel tempering hands what they find down to the cold one (Desjardins et al. 2010; Cho et
al. 2010); annealed importance sampling walks from 0 to 1 and weighs the walks (Neal 2001;
Salakhutdinov & Murray 2008).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch

from skae.engine.boltzmann.chains import SAMPLERS, Schedule, run_chains


class ParallelTempering:
    """A step on states (visible,) of chains at several temperatures.

    Neighbours swap their rows with probability min(1, P_a(v_b) P_b(v_a) / P_a(v_a) P_b(v_b)),
    even and odd pairs in turn; then every temperature takes a Gibbs step.

    Parameters
    ----------
    path : TemperedPath
    betas : Tensor of shape (n_temperatures,)
        From 1 downwards.
    generator : torch.Generator
    """

    def __init__(self, path, betas: torch.Tensor, generator: torch.Generator):
        self.path, self.betas, self.generator = path, betas, generator
        self._tried = torch.zeros(len(betas) - 1, device=betas.device)
        self._accepted = torch.zeros_like(self._tried)
        self._parity = 0

    def start(self, visible: torch.Tensor) -> tuple:
        """The state in which all temperatures of a chain have its row."""
        return (visible.unsqueeze(1).repeat(1, len(self.betas), 1),)

    def visible(self, state: tuple) -> torch.Tensor:
        """The rows of the cold chains."""
        return state[0][:, 0]

    def __call__(self, state: tuple) -> tuple:
        """The next state: one tensor of shape (n_chains, n_temperatures, n_visible)."""
        (visible,) = state
        beta = self.betas.repeat(len(visible))
        energies = self.path.energies(visible.flatten(0, 1))
        if len(self.betas) > 1:
            order = self._swap(energies, beta, len(visible))
            energies = [part[order] for part in energies]
        return (self.path.step(energies, beta, self.generator).view(visible.shape),)

    @property
    def swap_rates(self) -> torch.Tensor:
        """The fraction of accepted swaps of each pair so far; NaN where none was tried."""
        return self._accepted / self._tried

    def _swap(self, energies, beta, n_chains):
        """Which row each temperature of each chain has after the swaps."""
        betas, device = self.betas, self.betas.device
        upper = torch.arange(self._parity, len(betas) - 1, 2, device=device)
        self._parity = 1 - self._parity if len(betas) > 2 else 0
        here, as_colder, as_warmer = (
            self.path.log_density(energies, b).view(n_chains, -1)
            for b in (beta, betas.roll(1).repeat(n_chains), betas.roll(-1).repeat(n_chains))
        )
        gain = as_colder[:, upper + 1] + as_warmer[:, upper]
        gain = gain - here[:, upper] - here[:, upper + 1]
        swaps = torch.log(torch.empty_like(gain).uniform_(generator=self.generator)) < gain
        self._tried[upper] += n_chains
        self._accepted[upper] += swaps.sum(0)
        order = torch.arange(len(beta), device=device).view(n_chains, -1)
        order[:, upper] += swaps.long()
        order[:, upper + 1] -= swaps.long()
        return order.flatten()


@SAMPLERS.named("tempering")
def parallel_tempering(machine, generator, base_bias, n_temperatures) -> ParallelTempering:
    """Parallel tempering at so many temperatures, equally far apart from 1 to 0."""
    if n_temperatures < 2:
        raise ValueError(f"Tempering needs n_temperatures of at least 2, not {n_temperatures}.")
    betas = torch.linspace(1, 0, n_temperatures).to(base_bias)
    return ParallelTempering(machine.tempered(base_bias), betas, generator)


class AnnealedEstimate(NamedTuple):
    """log Z by importance sampling, and how far to trust it.

    Attributes
    ----------
    log_partition : float
        Estimate of log Z.
    standard_error : float
        Of the estimate, from the spread of the chains' weights: sqrt(var(w) / n) / mean(w).
    effective_chains : float
        (sum w)^2 / sum w^2. Where it is near 1, one chain decides and the error is
        not to be trusted.
    """

    log_partition: float
    standard_error: float
    effective_chains: float


def annealed_importance_sampling(
    path,
    betas: torch.Tensor,
    n_chains: int,
    generator: torch.Generator,
    listener: Callable | None = None,
) -> AnnealedEstimate:
    """Estimate the machine's log Z by walking chains from beta = 0 to 1.

    A chain starts with an exact draw at beta = 0, whose log Z is known, and takes one
    Gibbs step at each beta in between; its weight

        w = prod_k P_{beta_k}(v_k) / P_{beta_k-1}(v_k)    (unnormalised)

    has expectation Z_1 / Z_0.

    Parameters
    ----------
    path : TemperedPath
    betas : Tensor of shape (n_temperatures,)
        Increasing, from 0 to 1, on the CPU.
    n_chains : int
    generator : torch.Generator
    listener : callable, default=None
        Called with (steps done, steps in all).

    Returns
    -------
    estimate : AnnealedEstimate
    """
    pairs = zip(betas[:-1].tolist(), betas[1:].tolist(), strict=True)

    def step(state):
        visible, log_weight = state
        before, beta = next(pairs)
        energies = path.energies(visible)
        change = path.log_density(energies, beta) - path.log_density(energies, before)
        return path.step(energies, beta, generator), log_weight + change.to(log_weight.dtype)

    visible = path.start(n_chains, generator)
    # A sum of thousands of small terms; MPS has no float64.
    precise = torch.float32 if visible.device.type == "mps" else torch.float64
    state = visible, torch.zeros(n_chains, dtype=precise, device=visible.device)
    schedule = Schedule(n_samples=1, burn_in=len(betas) - 1)
    run = run_chains(step, state, schedule, keep=lambda state: state[1], listener=listener)
    return _estimate(run.samples[0], float(path.log_base_partition()))


def annealing_temperatures(n_temperatures: int) -> torch.Tensor:
    """Inverse temperatures from 0 to 1, denser towards 1 (after Salakhutdinov & Murray).

    Of every 29 intervals one covers [0, 0.5], eight [0.5, 0.9] and twenty [0.9, 1].
    """
    n_intervals = n_temperatures - 1
    first = max(1, round(n_intervals / 29))
    second = max(1, round(n_intervals * 8 / 29))
    third = max(1, n_intervals - first - second)
    parts = [
        torch.linspace(low, high, n + 1, dtype=torch.float64)[:-1]
        for low, high, n in ((0.0, 0.5, first), (0.5, 0.9, second), (0.9, 1.0, third))
    ]
    return torch.cat([*parts, torch.ones(1, dtype=torch.float64)])


def _estimate(log_weight, log_base):
    n_chains = len(log_weight)
    log_mean = float(torch.logsumexp(log_weight, 0)) - math.log(n_chains)
    relative = torch.exp(log_weight - log_mean)
    error = float(relative.std()) / math.sqrt(n_chains)
    effective = float(relative.sum() ** 2 / relative.square().sum())
    return AnnealedEstimate(log_base + log_mean, error, effective)
