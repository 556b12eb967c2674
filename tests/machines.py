"""Small Boltzmann machines with parameters that are drawn, for the tests of several files."""

import torch

from skae.engine.boltzmann.energies import BipartiteMachine
from skae.engine.networks.units import Bernoulli, Gaussian
from skae.engine.optimisation.parameters import Parameters


def drawn_parameters(shapes, spread, seed, dtype=torch.float64):
    """Parameters that are N(0, spread^2), the same for the same seed."""
    theta = Parameters(shapes, dtype=dtype)
    theta.flat.normal_(0.0, spread, generator=torch.Generator().manual_seed(seed))
    return theta


def make_machine(n_visible, n_hidden, kind="bernoulli", spread=1.0, seed=0):
    """A machine with such parameters, the same for the same arguments."""
    learned = kind == "gaussian_learned"
    shapes = BipartiteMachine.shapes(n_visible, n_hidden, learns_variance=learned)
    theta = drawn_parameters(shapes, spread, 1000 * seed + 100 * n_visible + n_hidden)
    return BipartiteMachine(theta, Bernoulli() if kind == "bernoulli" else Gaussian())
