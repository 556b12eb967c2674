"""Annealed importance sampling (Neal 2001; Salakhutdinov & Murray 2008)."""

import math
from typing import NamedTuple

import torch

from skae.samplers.chains import Schedule, run_chains


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


def annealed_importance_sampling(path, betas, n_chains, generator, listener=None):
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


def annealing_temperatures(n_temperatures):
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
