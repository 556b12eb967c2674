"""Energies: gradients, symmetry, exact normalisers."""

import math

import pytest
import torch
from torch.testing import assert_close

from skae.engine.boltzmann.energies import BipartiteMachine
from skae.engine.boltzmann.samplers import annealed_importance_sampling, annealing_temperatures
from skae.engine.density.denoisers import Denoiser
from skae.engine.density.energies import (
    Energy,
    EnergyPath,
    log_partition_on_grid,
    why_no_energy,
)
from skae.engine.networks.layers import Network
from skae.engine.networks.units import Bernoulli, Gaussian
from skae.engine.optimisation.parameters import Parameters

NETWORKS = [
    Network((3, 5), "sigmoid"),
    Network((3, 5), "tanh"),
    Network((3, 5), "relu"),
    Network((3, 5), "linear"),
    Network((3, 5), "sigmoid", tied=False, potential=True),
    Network((3, 5, 2), "tanh", tied=False, potential=True),
    Network((3, 6, 4, 2), "softplus", tied=True, potential=True),
    Network((3, 5, 2), "tanh", tied=False, linear=True, potential=True),
]


@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_the_reconstruction_is_the_gradient(make_denoiser, generator, network):
    energy = Energy(make_denoiser(network, 0.6))
    x = torch.randn(7, 3, dtype=torch.float64, generator=generator).requires_grad_()
    (gradient,) = torch.autograd.grad(energy(x).sum(), x)
    # r(x) - x = -sigma^2 dE/dx
    assert_close(gradient, energy.gradient(x.detach()))
    # What has a potential has a symmetric Jacobian, the Hessian of the potential.
    jacobian = energy.denoiser.jacobian(x.detach()).dense()
    assert_close(jacobian, jacobian.transpose(1, 2))


def test_who_has_no_energy(make_denoiser):
    cases = [
        (make_denoiser(Network((3, 5)), units=Bernoulli()), "real columns"),
        (make_denoiser(Network((3, 5), tied=False)), "tied_weights=True"),
        (make_denoiser(Network((3, 5, 2))), "parametrization='energy'"),
        (make_denoiser(Network((3, 5), "softplus")), "'softplus' has no antiderivative"),
        (make_denoiser(Network((3, 5)), noise=torch.ones(3)), "one level of noise"),
    ]
    for denoiser, reason in cases:
        assert reason in why_no_energy(denoiser)
        with pytest.raises(ValueError, match=reason.replace("(", r"\(")):
            Energy(denoiser)


def rbm_like(n_visible, n_hidden, seed=0, spread=0.8):
    """A Gaussian RBM, and the auto-encoder of the same weights, whose noise is 1."""
    shapes = BipartiteMachine.shapes(n_visible, n_hidden)
    theta = Parameters(shapes, dtype=torch.float64)
    theta.flat.normal_(0.0, spread, generator=torch.Generator().manual_seed(seed))
    machine = BipartiteMachine(theta, Gaussian())
    return machine, theta


def as_auto_encoder(make_denoiser, theta):
    n_hidden, n_visible = theta["weight_0"].shape
    network = Network((n_visible, n_hidden))
    own = Parameters(network.parameter_shapes, dtype=torch.float64)
    for name in own:
        own[name].copy_(theta[name])
    return Energy(make_denoiser(network, 1.0, theta=own))


def test_it_is_the_free_energy_of_an_rbm(make_denoiser, generator):
    machine, theta = rbm_like(4, 6)
    energy = as_auto_encoder(make_denoiser, theta)
    x = torch.randn(9, 4, dtype=torch.float64, generator=generator)
    constant = 0.5 * theta["visible_bias_0"].square().sum()
    assert_close(energy(x) + constant, machine.free_energy(x))


@pytest.mark.parametrize("seed", range(2))
def test_normalisers(make_denoiser, seed):
    machine, theta = rbm_like(2, 5, seed)
    energy = as_auto_encoder(make_denoiser, theta)
    exact = float(machine.log_partition() + 0.5 * theta["visible_bias_0"].square().sum())
    corner = torch.full((2,), 2.0, dtype=torch.float64)
    # The grid grows from a corner of the density to all of it.
    assert log_partition_on_grid(energy, -corner, corner, 1.0) == pytest.approx(exact, abs=1e-6)
    zero = torch.zeros(2, dtype=torch.float64)
    path = EnergyPath(energy, zero, torch.full((2,), 4.0, dtype=torch.float64))
    draws = torch.Generator().manual_seed(seed)
    with torch.inference_mode():
        found = annealed_importance_sampling(path, annealing_temperatures(300), 200, draws)
    assert abs(found.log_partition - exact) < 4 * found.standard_error + 1e-3
    assert found.standard_error < 0.2
    assert path.accepted > 0.6


def test_an_energy_of_a_small_level(make_denoiser, generator):
    # The grid resolves what noise leaves, and annealing agrees with it.
    energy = Energy(make_denoiser(Network((2, 8, 3), "tanh", tied=False, potential=True), 0.3))
    corner = torch.full((2,), 3.0, dtype=torch.float64)
    exact = log_partition_on_grid(energy, -corner, corner, 0.3)
    finer = log_partition_on_grid(energy, -corner, corner, 0.15)
    assert exact == pytest.approx(finer, abs=1e-4)
    path = EnergyPath(energy, torch.zeros(2, dtype=torch.float64), corner)
    with torch.inference_mode():
        found = annealed_importance_sampling(path, annealing_temperatures(300), 300, generator)
    assert abs(found.log_partition - exact) < 4 * found.standard_error + 1e-3


def test_densities_without_an_end(make_denoiser):
    network = Network((2, 3), "linear")
    theta = Parameters(network.parameter_shapes, dtype=torch.float64)
    theta.flat.fill_(1.0)  # W^T W - I has a positive eigenvalue: E falls for ever
    energy = Energy(make_denoiser(network, 1.0, theta=theta))
    corner = torch.ones(2, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"no finite integral|bounded hidden units"):
        log_partition_on_grid(energy, -corner, corner, 1.0)


def test_steps_of_the_path_keep_its_laws(generator):
    # At every beta the law between two normal ones is normal: with precisions that are mixed.
    network = Network((2, 2), "linear")
    theta = Parameters(network.parameter_shapes, dtype=torch.float64)
    theta.flat.zero_()
    theta["weight_0"].copy_(torch.diag(torch.tensor([0.9, 0.5], dtype=torch.float64)))
    from functools import partial

    from skae.engine.networks.objectives import Reconstruction, auto_encoder
    from skae.engine.networks.units import SquaredError

    units = SquaredError()
    objective = partial(Reconstruction, network, units)
    model = auto_encoder(network, units, torch.zeros(2, dtype=torch.float64), objective)
    noise = 0.5
    energy = Energy(Denoiser(model, theta, noise))
    base = torch.tensor([1.0, 2.0], dtype=torch.float64)
    path = EnergyPath(energy, torch.zeros(2, dtype=torch.float64), base)
    own = (1 - torch.tensor([0.81, 0.25], dtype=torch.float64)) / noise**2
    for beta in (0.0, 0.5, 1.0):
        variance = 1 / ((1 - beta) / base + beta * own)
        x = variance.sqrt() * torch.randn(40_000, 2, dtype=torch.float64, generator=generator)
        for _ in range(3):
            x = path.step(path.energies(x), beta, generator)
        # Rows that have the law keep it: 40,000 of them tell a variance to 0.7 %.
        assert_close(x.var(0), variance, rtol=0.04, atol=0)
    assert math.isfinite(path.accepted)
