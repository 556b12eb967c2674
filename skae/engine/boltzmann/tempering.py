"""From independent units to the machine, by degrees: tempered Gibbs steps.

At inverse temperature beta the energy is a mixture of that of independent units with
biases of their own, and the machine's:

    E_beta(v, h) = (1 - beta) E_v(v; base bias) + beta E(v, h)

At 0 all units are independent, at 1 it is the machine. Hot chains cross between modes;
parallel tempering hands what they find down to the cold one (Desjardins et al. 2010;
Cho et al. 2010), annealed importance sampling walks from 0 to 1.

Annealed importance sampling (Neal 2001; Salakhutdinov & Murray 2008).
"""

import math
from typing import NamedTuple

import torch

from skae.engine.boltzmann.chains import Schedule, run_chains
from skae.engine.boltzmann.energies import hidden_input, precision_of, visible_energy, visible_input
from skae.engine.networks.layers import softplus
from skae.engine.optimisation.draws import bernoulli


class TemperedPath:
    """The laws P_beta(v) between independent visible units and the machine.

    Parameters
    ----------
    theta : Parameters
    units : Bernoulli or Gaussian
    base_bias : Tensor of shape (n_visible,)
        Logits or means of the independent units at beta = 0.
    """

    def __init__(self, theta, units, base_bias):
        self.theta, self.units, self.base_bias = theta, units, base_bias
        self.precision = precision_of(theta)

    def start(self, n_chains, generator):
        """Exact draws of the visible units at beta = 0."""
        bias = self.base_bias.repeat(n_chains, 1)
        return self.units.sample(bias, generator, self.precision)

    def log_base_partition(self):
        """Log Z at beta = 0, with hidden units that are on or off alike."""
        nothing = torch.zeros_like(self.base_bias)
        visible = self.units.log_normalizer(nothing, self.base_bias, self.precision)
        return visible + len(self.theta["hidden_bias_0"]) * math.log(2.0)

    def energies(self, visible):
        """What `log_density` and `step` need to know of the rows, whatever the beta.

        Returns
        -------
        base, machine : Tensor of shape (n_chains,)
            Energies of the visible units alone, under the base and the machine's biases.
        a : Tensor of shape (n_chains, n_hidden)
            Pre-activations of the hidden units.
        """
        base = self.units.energy(visible, self.base_bias, self.precision)
        machine = visible_energy(self.theta, visible, self.units)
        return base, machine, hidden_input(self.theta, visible)

    def log_density(self, energies, beta):
        """Log of the unnormalised P_beta(v) of each row; ``beta`` a number or one per row."""
        base, machine, a = energies
        return softplus(_column(beta) * a).sum(1) - (1 - beta) * base - beta * machine

    def step(self, energies, beta, generator):
        """One block Gibbs step at ``beta``, h given v and v' given h; returns v'."""
        beta = _column(beta)
        hidden = bernoulli(torch.mul(energies[2], beta).sigmoid_(), generator)
        bias = self.base_bias
        pre = torch.lerp(bias.expand(len(hidden), -1), visible_input(self.theta, hidden), beta)
        return self.units.sample(pre, generator, self.precision)


def _column(beta):
    return beta.unsqueeze(1) if isinstance(beta, torch.Tensor) else beta


def parallel_tempering_step(path, betas, generator):
    """A step function on states (visible,) of chains at several temperatures.

    Neighbours swap their rows with probability min(1, P_a(v_b) P_b(v_a) / P_a(v_a) P_b(v_b)),
    even and odd pairs in turn; then every temperature takes a Gibbs step.

    Parameters
    ----------
    path : TemperedPath
    betas : Tensor of shape (n_temperatures,)
        From 1 downwards.
    generator : torch.Generator

    Returns
    -------
    step : callable
        On states of one tensor of shape (n_chains, n_temperatures, n_visible). Its
        attribute ``swap_rates()`` is the fraction of accepted swaps of each pair so far,
        of shape (n_temperatures - 1,); NaN where none was tried.
    """
    n_temperatures = len(betas)
    tried = torch.zeros(n_temperatures - 1, device=betas.device)
    accepted = torch.zeros_like(tried)
    parity = 0

    def step(state):
        (visible,) = state
        shape = visible.shape
        beta = betas.repeat(len(visible))
        energies = path.energies(visible.flatten(0, 1))
        if n_temperatures > 1:
            order = swap(energies, beta, len(visible))
            energies = [part[order] for part in energies]
        return (path.step(energies, beta, generator).view(shape),)

    def swap(energies, beta, n_chains):
        """Which row each temperature of each chain has after the swaps."""
        nonlocal parity
        upper = torch.arange(parity, n_temperatures - 1, 2, device=betas.device)
        parity = 1 - parity if n_temperatures > 2 else 0
        here, as_colder, as_warmer = (
            path.log_density(energies, b).view(n_chains, -1)
            for b in (beta, betas.roll(1).repeat(n_chains), betas.roll(-1).repeat(n_chains))
        )
        gain = as_colder[:, upper + 1] + as_warmer[:, upper]
        gain = gain - here[:, upper] - here[:, upper + 1]
        swaps = torch.log(torch.empty_like(gain).uniform_(generator=generator)) < gain
        tried[upper] += n_chains
        accepted[upper] += swaps.sum(0)
        order = torch.arange(len(beta), device=betas.device).view(n_chains, -1)
        order[:, upper] += swaps.long()
        order[:, upper + 1] -= swaps.long()
        return order.flatten()

    step.swap_rates = lambda: accepted / tried
    return step


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
