"""Norms and products of Jacobians agree with autograd and with finite differences."""

import numpy as np
import pytest
import torch
from scipy import sparse

from skae import AutoEncoder, ContractiveAutoEncoder, SparseCoder, StackedClassifier
from skae.diagnostics import jacobian_norms, jacobian_products, jacobians
from skae.engine.optimisation import sources


@pytest.fixture(name="X")
def data(skewed_columns):
    return skewed_columns


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


@pytest.mark.parametrize(
    ("activation", "hidden_layer_sizes"), [("sigmoid", ()), ("tanh", (8,)), ("linear", (4, 9))]
)
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
    # Both are the same derivative, one by closed forms and one by the chain rule of torch.
    np.testing.assert_allclose(norms, jacobian_norms_by_autograd(model, X), rtol=1e-10)


def test_jacobian_norms_of_all_kinds_agree_with_autograd(fitted, of, X, jacobians_by_autograd):
    expected = np.linalg.norm(jacobians_by_autograd(fitted, X, of), axis=(1, 2))
    # The Frobenius norm is that of the matrix of all partial derivatives.
    np.testing.assert_allclose(jacobian_norms(fitted, X, of=of), expected, rtol=1e-10)


@pytest.mark.parametrize("hidden_layer_sizes", [(), (20,)])
def test_jacobian_norms_do_not_depend_on_the_blocks(hidden_layer_sizes, of, X, monkeypatch):
    model = AutoEncoder(
        30, hidden_layer_sizes=hidden_layer_sizes, tied_weights=False, max_iter=2, random_state=0
    ).fit(X)
    expected = np.tile(jacobian_norms(model, X, of=of), 5)
    # More rows than have their Jacobians in memory at a time, which do not know of each other.
    monkeypatch.setattr(jacobians, "_FACTOR_ENTRIES", 2**11)
    monkeypatch.setattr(sources, "_BLOCK", 2**12)
    np.testing.assert_allclose(
        jacobian_norms(model, np.tile(X, (5, 1)), of=of),
        expected,
        rtol=1e-12,
    )


def test_contraction_is_the_mean_squared_jacobian_norm(X):
    # In one full batch and without a step worth speaking of, the objectives of two models
    # that differ in their contraction alone differ by contraction * mean |J|^2.
    settings = dict(learning_rate=1e-12, batch_size=len(X), max_iter=1, random_state=0)
    plain = AutoEncoder(5, **settings).fit(X)
    contractive = ContractiveAutoEncoder(5, contraction=0.3, **settings).fit(X)
    difference = contractive.loss_curve_[0] - plain.loss_curve_[0]
    np.testing.assert_allclose(difference, 0.3 * np.mean(jacobian_norms(plain, X) ** 2))


def central_differences(function, X, direction, step=1e-5):
    return (function(X + step * direction) - function(X - step * direction)) / (2 * step)


def test_products_are_derivatives_in_the_units_of_the_data(fitted, of, X):
    directions = np.random.default_rng(1).normal(size=X.shape) * X.std(axis=0)
    products = jacobian_products(fitted, X, directions, of=of)
    function = fitted.transform if of == "encoder" else fitted.reconstruct
    expected = central_differences(function, X, directions)
    # What a user sees change is what transform and reconstruct return, for data in their units.
    np.testing.assert_allclose(products, expected, rtol=1e-5, atol=1e-7 * np.abs(expected).max())


def test_products_agree_with_autograd(fitted, of, X, jacobians_by_autograd):
    directions = np.random.default_rng(2).normal(size=(30, 3, 6))
    products = jacobian_products(fitted, X, directions, of=of)
    jacobians = jacobians_by_autograd(fitted, X, of) / fitted.columns_.scale
    if of == "reconstruction":
        jacobians *= fitted.columns_.scale[:, np.newaxis]
    # By the chain rule, standardising multiplies the Jacobian by diagonal matrices.
    np.testing.assert_allclose(
        products, directions @ jacobians.transpose(0, 2, 1), rtol=1e-9, atol=1e-11
    )
    # Rows of directions do not mix: each of several is what it would be alone.
    np.testing.assert_allclose(
        jacobian_products(fitted, X, directions[:, 1], of=of), products[:, 1], rtol=1e-12
    )


def test_each_block_of_rows_meets_its_own_directions(X, monkeypatch):
    model = AutoEncoder(5, max_iter=3, random_state=0).fit(X)
    directions = np.random.default_rng(3).normal(size=(30, 60, 6))
    expected = np.tile(jacobian_products(model, X, directions), (5, 1, 1))
    monkeypatch.setattr(sources, "_BLOCK", 2**15)
    many = jacobian_products(model, np.tile(X, (5, 1)), np.tile(directions, (5, 1, 1)))
    # More rows than are mapped at a time: rows and directions stay together.
    np.testing.assert_allclose(many, expected, rtol=1e-11, atol=1e-12)


def test_dtypes_and_formats_of_the_data_are_kept(X):
    model = AutoEncoder(5, max_iter=3, random_state=0).fit(X)
    single = jacobian_products(model, X.astype(np.float32), X[:, ::-1])
    # What comes in float32 is computed in float32, whatever the directions' dtype.
    assert single.dtype == jacobian_norms(model, X.astype(np.float32)).dtype == np.float32
    double = jacobian_products(model, X, X[:, ::-1])
    assert double.dtype == jacobian_norms(model, X).dtype == np.float64
    # Precision is all in which they differ; codes change by at most 1/4 of the input's change.
    np.testing.assert_allclose(single, double, rtol=1e-3, atol=1e-4 * np.abs(double).max())
    compressed = jacobian_norms(model, sparse.csr_matrix(X))
    # A sparse matrix holds the same numbers.
    np.testing.assert_allclose(compressed, jacobian_norms(model, X), rtol=1e-12)


def test_codes_without_a_gradient_are_refused(X):
    coder = SparseCoder(4, max_iter=2, random_state=0).fit(X)
    # Codes that solve a problem have no Jacobian of which the engine knows.
    with pytest.raises(ValueError, match="SparseCoder has no Jacobian"):
        jacobian_norms(coder, X)
    # A classifier's outputs are no code; its stack has one.
    with pytest.raises(ValueError, match="stack_ of a StackedClassifier"):
        jacobian_norms(StackedClassifier((3,)), X)
    model = AutoEncoder(3, max_iter=1, random_state=0).fit(X)
    # There are two functions to differentiate.
    with pytest.raises(ValueError, match="of='decoder' must be one of"):
        jacobian_norms(model, X, of="decoder")


@pytest.mark.parametrize("shape", [(6,), (29, 6), (30, 2, 5), (30, 2, 2, 6)])
def test_directions_have_to_fit_the_rows(X, shape):
    model = AutoEncoder(3, max_iter=1, random_state=0).fit(X)
    # A direction belongs to one row and has one entry for each feature.
    with pytest.raises(ValueError, match=r"pass an array of shape \(30, 6\), or \(30, m, 6\)"):
        jacobian_products(model, X, np.ones(shape))


def test_directions_have_to_be_finite(X):
    model = AutoEncoder(3, max_iter=1, random_state=0).fit(X)
    directions = np.ones_like(X)
    directions[2, 3] = np.nan
    # A derivative along NaN would be NaN without a reason.
    with pytest.raises(ValueError, match="directions contains NaN"):
        jacobian_products(model, X, directions)
