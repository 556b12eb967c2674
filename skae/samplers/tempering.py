"""From independent units to the machine, by degrees: tempered Gibbs steps.

At inverse temperature beta the energy is a mixture of that of independent units with
biases of their own, and the machine's:

    E_beta(v, h) = (1 - beta) E_v(v; base bias) + beta E(v, h)

At 0 all units are independent, at 1 it is the machine. Hot chains cross between modes;
parallel tempering hands what they find down to the cold one (Desjardins et al. 2010;
Cho et al. 2010), annealed importance sampling walks from 0 to 1.
"""

import math

import torch

from skae.engine.draws import bernoulli
from skae.engine.energies import hidden_input, precision_of, visible_energy, visible_input
from skae.engine.networks import softplus


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
