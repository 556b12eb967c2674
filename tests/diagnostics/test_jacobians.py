"""Diagnostics agree with definitions and with automatic differentiation."""

import numpy as np
import pytest
import torch

from skae import AutoEncoder, ContractiveAutoEncoder
from skae.diagnostics import _jacobians, constant_units, jacobian_norms, saturation


@pytest.fixture(scope="module", name="X")
def data():
    # Columns of different mean and scale, outside [0, 1]: they are standardised in fit.
    generator = np.random.default_rng(0)
    return generator.normal(size=(30, 6)) * [1, 10, 0.1, 3, 2, 1] + [5, 0, -1, 0, 100, 0]


def jacobian_norms_by_autograd(model, X):
    """|dh/dz|_F of each row by jacrev, from the fitted arrays alone."""
    n_layers = 1 + len(model.hidden_layer_sizes)
    weights = [torch.tensor(model.weights_[f"weight_{level}"]) for level in range(n_layers)]
    biases = [torch.tensor(model.weights_[f"hidden_bias_{level}"]) for level in range(n_layers)]
    function = {"sigmoid": torch.sigmoid, "tanh": torch.tanh, "linear": lambda p: p}

    def encode(z):
        for weight, bias in zip(weights, biases, strict=True):
            z = function[model.activation](weight @ z + bias)
        return z

    z = torch.tensor((X - model.columns_.shift) / model.columns_.scale)
    jacobians = torch.func.vmap(torch.func.jacrev(encode))(z)
    return torch.linalg.matrix_norm(jacobians).numpy()


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "linear"])
@pytest.mark.parametrize("hidden_layer_sizes", [(), (8,), (4, 9)])
def test_jacobian_norms_agree_with_autograd(X, activation, hidden_layer_sizes):
    model = AutoEncoder(
        5,
        hidden_layer_sizes=hidden_layer_sizes,
        activation=activation,
        tied_weights=False,
        max_iter=3,
        random_state=0,
    ).fit(X)
    norms = jacobian_norms(model, X)
    assert norms.shape == (30,)
    np.testing.assert_allclose(norms, jacobian_norms_by_autograd(model, X), rtol=1e-10)


def test_jacobian_norms_do_not_depend_on_the_blocks(X, monkeypatch):
    model = AutoEncoder(5, hidden_layer_sizes=(8,), max_iter=3, random_state=0).fit(X)
    whole = jacobian_norms(model, X)
    monkeypatch.setattr(_jacobians, "_FACTOR_ENTRIES", 100)  # two rows at a time
    np.testing.assert_allclose(jacobian_norms(model, X), whole, rtol=1e-12)


def test_contraction_is_the_mean_squared_jacobian_norm(X):
    # In one full batch and without a step worth speaking of, the objectives of two models
    # that differ in their contraction alone differ by contraction * mean |J|^2.
    settings = dict(learning_rate=1e-12, batch_size=len(X), max_iter=1, random_state=0)
    plain = AutoEncoder(5, **settings).fit(X)
    contractive = ContractiveAutoEncoder(5, contraction=0.3, **settings).fit(X)
    difference = contractive.loss_curve_[0] - plain.loss_curve_[0]
    np.testing.assert_allclose(difference, 0.3 * np.mean(jacobian_norms(plain, X) ** 2))


def test_constant_units():
    codes = np.array([[0.0, 5.0, 1.0], [1e-9, 5.0, 2.0]])
    # The first moves by rounding alone, the second not at all.
    np.testing.assert_array_equal(constant_units(codes), [True, True, False])


def test_saturation_counts_both_ends():
    codes = np.array([[0.01, 0.99, 0.5, 0.5], [0.2, 0.8, 0.3, 0.96]])
    np.testing.assert_array_equal(saturation(codes), [0.5, 0.25])
