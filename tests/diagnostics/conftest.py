"""Small fitted models of every kind that has a Jacobian, and their Jacobians by autograd."""

import numpy as np
import pytest
import torch

from skae import PSD, RBM, AutoEncoder, StackedAutoEncoder

SMALL = dict(max_iter=3, batch_size=10, random_state=0)
MODELS = {
    "one layer": AutoEncoder(5, **SMALL),
    "three layers": AutoEncoder(
        5, hidden_layer_sizes=(4, 9), activation="tanh", tied_weights=False, **SMALL
    ),
    "mixed outputs": AutoEncoder(
        5, loss=[("gaussian", [0, 1, 2, 4, 5]), ("bernoulli", [3])], **SMALL
    ),
    "rbm of learned variances": RBM(5, visible_variance="learned", **SMALL),
    # Codes of tanh units leave [0, 1], so that the upper layer standardises them.
    "stack": StackedAutoEncoder(
        layers=[AutoEncoder(n, activation="tanh", **SMALL) for n in (7, 5)]
    ),
    "stack of three kinds": StackedAutoEncoder(
        layers=[
            RBM(8, visible_variance="learned", **SMALL),
            PSD(7, inference="encoder", alpha=0.1, **SMALL),
            AutoEncoder(5, **SMALL),
        ]
    ),
    "psd": PSD(5, inference="encoder", alpha=0.1, **SMALL),
}


@pytest.fixture(scope="session")
def skewed_columns():
    """Thirty rows of columns of different mean and scale, one of them in [0, 1]."""
    generator = np.random.default_rng(0)
    X = generator.normal(size=(30, 6)) * [1, 10, 0.1, 0.1, 2, 1] + [5, 0, -1, 0.5, 100, 0]
    return np.clip(X, [-np.inf] * 3 + [0] + [-np.inf] * 2, [np.inf] * 3 + [1] + [np.inf] * 2)


@pytest.fixture(scope="session", params=MODELS)
def fitted(request, skewed_columns):
    """A fitted model with 5 code units."""
    return MODELS[request.param].fit(skewed_columns)


@pytest.fixture(params=["encoder", "reconstruction"])
def of(request):
    """What is differentiated."""
    return request.param


@pytest.fixture(scope="session")
def jacobians_by_autograd():
    """A function: Jacobians of each row for standardised columns, by torch.func.jacrev."""

    def jacobians(estimator, X, of="encoder"):
        model, theta = estimator._fitted_model(X)

        def function(row):
            code = model.code(theta, row[None])
            return (code if of == "encoder" else model.units.mean(model.decode(theta, code)))[0]

        z = (X - estimator.columns_.shift) / estimator.columns_.scale
        z = torch.tensor(z, device=theta.flat.device)
        return torch.func.vmap(torch.func.jacrev(function))(z).detach().cpu().numpy()

    return jacobians
