"""The restricted Boltzmann machine as functions of (parameters, states).

    E(v, h) = E_v(v) - h.b - h W (v / s^2)       F(v) = -log sum_h exp(-E(v, h))

with E_v(v) = -v.c for Bernoulli visible units (s = 1) and 1/2 |(v - c) / s|^2 for
Gaussian ones; the units' ``energy`` says which. Hidden units are Bernoulli. Both
conditionals factorise:

    P(h_j = 1 | v) = sigmoid(b + W (v / s^2))_j
    v | h          : Bernoulli units with logits c + h W, or N(c + h W, s^2)

Parameters are named as in a network of one tied layer, so that `encode`, `decode` and
the penalties apply to both. ``log_variance`` is there where s is learned (the
parametrisation of Cho, Ilin & Raiko 2011); otherwise s = 1.
"""

import torch

from skae.engine.networks.layers import softplus
from skae.engine.optimisation.draws import bernoulli

# Enumeration visits 2^n states of the smaller layer that can be enumerated.
MAX_ENUMERATED = 20
# Numbers of a block of states, or of what the other layer is given them, held at a time.
_BLOCK = 2**22


def precision_of(theta):
    """1 / s^2 of each visible unit, or None where it is 1."""
    return torch.exp(-theta["log_variance"]) if "log_variance" in theta else None


def hidden_input(theta, visible, out=None):
    """Pre-activation of the hidden units, b + W (v / s^2), shape (n_samples, n_hidden)."""
    precision = precision_of(theta)
    scaled = visible if precision is None else visible * precision
    return torch.addmm(theta["hidden_bias_0"], scaled, theta["weight_0"].t(), out=out)


def visible_input(theta, hidden):
    """Logits or means of the visible units, c + h W, shape (n_samples, n_visible)."""
    return torch.addmm(theta["visible_bias_0"], hidden, theta["weight_0"])


def sample_hidden(theta, visible, generator):
    """One draw of every hidden unit given the visible ones."""
    return bernoulli(hidden_input(theta, visible).sigmoid_(), generator)


def sample_visible(theta, hidden, units, generator, out=None):
    """One draw of every visible unit given the hidden ones."""
    return units.sample(visible_input(theta, hidden), generator, precision_of(theta), out)


def visible_energy(theta, visible, units):
    """E_v(v) of each row: the energy of the visible units alone."""
    return units.energy(visible, theta["visible_bias_0"], precision_of(theta))


def energy(theta, visible, hidden, units):
    """E(v, h) of each pair of rows, shape (n_samples,)."""
    interaction = (hidden * hidden_input(theta, visible)).sum(-1)
    return visible_energy(theta, visible, units) - interaction


def free_energy(theta, visible, units):
    """F(v) = E_v(v) - sum_j softplus(b + W (v / s^2))_j of each row, shape (n_samples,)."""
    return visible_energy(theta, visible, units) - softplus(hidden_input(theta, visible)).sum(-1)


def enumerable_units(theta, units):
    """How many units exact enumeration would have to enumerate."""
    n_hidden, n_visible = theta["weight_0"].shape
    return min(n_hidden, n_visible) if units.is_discrete else n_hidden


def log_partition(theta, units):
    """Log Z, by enumerating one layer and summing or integrating the other analytically.

    log Z = log sum_h exp(h.b + log int exp(h W (v / s^2) - E_v(v)) dv), or the same over
    the visible units where they are fewer. Costs 2^n for n units: see `enumerable_units`.
    Differentiable.
    """
    n_hidden, n_visible = theta["weight_0"].shape
    over_hidden = n_hidden == enumerable_units(theta, units)
    precision, totals = precision_of(theta), []
    n_enumerated = n_hidden if over_hidden else n_visible
    for states in binary_states(n_enumerated, theta.flat, width=n_hidden + n_visible):
        if over_hidden:
            u = states @ theta["weight_0"]
            log_terms = states @ theta["hidden_bias_0"]
            log_terms = log_terms + units.log_normalizer(u, theta["visible_bias_0"], precision)
        else:
            log_terms = -free_energy(theta, states, units)
        totals.append(torch.logsumexp(log_terms, 0))
    return torch.logsumexp(torch.stack(totals), 0)


def binary_states(n_units, like, width=None):
    """All 2^n states of binary units, in blocks of rows of zeros and ones.

    Parameters
    ----------
    n_units : int
    like : Tensor
        Of whose dtype and device the states shall be.
    width : int, default=None
        Numbers that will be held for each state; ``n_units`` where it is None.
    """
    step = max(1, _BLOCK // (n_units if width is None else width))
    place = 2 ** torch.arange(n_units, device=like.device)
    for start in range(0, 2**n_units, step):
        number = torch.arange(start, min(start + step, 2**n_units), device=like.device)
        yield (number.unsqueeze(1) & place).ne(0).to(like.dtype)
