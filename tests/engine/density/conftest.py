"""Auto-encoders whose parameters are known, as denoisers."""

from functools import partial

import pytest
import torch

from skae.engine.density.denoisers import Denoiser
from skae.engine.networks.layers import Network
from skae.engine.networks.objectives import Reconstruction, auto_encoder
from skae.engine.networks.units import SquaredError
from skae.engine.optimisation.models import Model
from skae.engine.optimisation.parameters import Parameters


@pytest.fixture
def make_denoiser(random_theta):
    """Makes a denoiser of a network, with random parameters unless some are given."""

    def make(network, noise=1.0, units=None, theta=None, **options):
        units = SquaredError() if units is None else units
        theta = random_theta(network) if theta is None else theta
        bias = torch.zeros(network.layer_sizes[0], dtype=torch.float64)
        objective = partial(Reconstruction, network, units)
        return Denoiser(auto_encoder(network, units, bias, objective), theta, noise, **options)

    return make


@pytest.fixture
def normal_denoiser(make_denoiser):
    """Makes the best denoiser of normal columns: r = C (C + sigma^2)^-1 x, by one tied layer."""

    def make(variances, noise, tied=True, **options):
        variances = torch.as_tensor(variances, dtype=torch.float64)
        n = len(variances)
        network = Network((n, n), "linear", tied=tied)
        theta = Parameters(network.parameter_shapes, dtype=torch.float64)
        theta.flat.zero_()
        weight = torch.diag((variances / (variances + noise**2)).sqrt())
        for matrix in network.weight_matrices(theta):
            matrix.copy_(weight)
        return make_denoiser(network, noise, theta=theta, **options)

    return make


@pytest.fixture
def denoiser_of_function():
    """Makes a denoiser whose reconstruction is any function of rows."""

    def make(function, n_features, noise, units=None, **options):
        shapes = {"nothing": (1,)}
        model = Model(
            shapes=shapes,
            start_=lambda *given: None,
            encode=lambda theta, x: x,
            decode=lambda theta, x: function(x),
            units=SquaredError() if units is None else units,
            n_features=n_features,
            n_codes=n_features,
            objective=None,
        )
        return Denoiser(model, Parameters(shapes, dtype=torch.float64), noise, **options)

    return make
