"""Predictive sparse decomposition: its gradient, its codes and its two limits."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Lasso

from skae.engine.optimisation.parameters import Parameters
from skae.engine.sparse.groups import GroupL2, map_groups
from skae.engine.sparse.linear_maps import Dense
from skae.engine.sparse.predictive import (
    PREDICTORS,
    PredictiveDecomposition,
    excess_of_prediction,
    initialize_,
    parameter_shapes,
    predict,
    project_,
)
from skae.engine.sparse.problem import L1, infer, largest_useful_alpha, make_quadratic

N, D, K = 12, 6, 9
DENSE = Dense(D, K)
EXACT = {"tol": 1e-14, "max_iter": 20000}


@pytest.fixture(params=sorted(PREDICTORS))
def activation(request):
    return request.param


@pytest.fixture
def x(generator):
    return 2 * torch.randn(N, D, dtype=torch.float64, generator=generator)


def random_parameters(activation, generator):
    theta = Parameters(parameter_shapes(DENSE, activation), dtype=torch.float64)
    theta.flat.normal_(0.0, 0.5, generator=generator)
    if "threshold" in theta:
        theta["threshold"].abs_()
    project_(theta)
    return theta


def started(activation, alpha, generator, *, from_zero=False, dtype=torch.float64):
    theta = Parameters(parameter_shapes(DENSE, activation), dtype=dtype)
    initialize_(theta, DENSE, activation, alpha, generator, from_zero=from_zero)
    return theta


@pytest.fixture
def theta(activation, generator):
    return random_parameters(activation, generator)


def penalties():
    return {
        "l1": L1(0.3),
        "positive": L1(0.3, positive=True),
        "groups": GroupL2(0.3, map_groups((3, 3), 2)),
    }


@pytest.mark.parametrize("name", penalties())
@pytest.mark.parametrize("weighted", [False, True])
def test_gradient_is_that_of_the_formula_at_constant_codes(name, weighted, theta, x, activation):
    weight = torch.linspace(0.0, 2.0, N, dtype=torch.float64) if weighted else None
    objective = PredictiveDecomposition(DENSE, penalties()[name], 1.7, activation, 2.5, **EXACT)
    out = theta.empty_like()
    value = objective.gradient(theta, x, None, out, weight)
    code = objective.infer(theta, x, predict(theta, x, DENSE, activation)).codes

    expected = theta.empty_like()
    expected.flat.zero_()
    formula = objective.value(theta.tracked(expected), x, None, weight, code)
    formula.backward()
    # The closed form against autograd through the formula, codes held fixed.
    torch.testing.assert_close(out.flat, expected.flat, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(value, formula.detach())
    # What training is judged by is the same number, at codes of its own inference.
    torch.testing.assert_close(objective.criterion(theta, x, None, weight), value)


def test_gradient_is_that_of_the_minimum_over_codes(theta, x, activation):
    objective = PredictiveDecomposition(DENSE, L1(0.3), 1.7, activation, **EXACT)
    out, step = theta.empty_like(), 1e-5
    objective.gradient(theta, x, None, out)
    for number in range(0, len(theta.flat), 7):
        values = []
        for sign in (1, -1):
            moved = Parameters(theta.shapes, theta.flat.clone())
            moved.flat[number] += sign * step
            values.append(objective.value(moved, x))
        # The envelope theorem: min_h E changes as E does at the minimiser, though the
        # minimiser moves. Central differences, each inferring codes anew.
        difference = float(values[0] - values[1]) / (2 * step)
        assert difference == pytest.approx(float(out.flat[number]), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("prediction", [0.1, 1.0, 10.0])
def test_codes_solve_the_joint_problem(prediction, theta, x, activation):
    alpha = 0.4
    objective = PredictiveDecomposition(DENSE, L1(alpha), prediction, activation, **EXACT)
    predicted = predict(theta, x, DENSE, activation)
    code = objective.infer(theta, x, predicted).codes
    dictionary = theta["decoder_weight_0"]
    descent = (x - code @ dictionary) @ dictionary.t() + prediction * (predicted - code)
    # 0 is a subgradient: the smooth part's slope is alpha sign(h) where h is not 0 ...
    active = code != 0
    torch.testing.assert_close(descent[active], alpha * code[active].sign(), rtol=0, atol=1e-6)
    # ... and at most alpha where it is.
    assert descent[~active].abs().max() <= alpha * (1 + 1e-6)
    assert active.any()
    assert not active.all()


def test_codes_of_no_prediction_are_those_of_the_lasso(theta, x, activation):
    alpha = 0.4
    code = (
        PredictiveDecomposition(DENSE, L1(alpha), 1e-9, activation, **EXACT)
        .infer(theta, x, torch.zeros(N, K, dtype=torch.float64))
        .codes
    )
    lasso = Lasso(alpha / D, fit_intercept=False, tol=1e-14, max_iter=100_000)
    lasso.fit(theta["decoder_weight_0"].t().numpy(), x.t().numpy())
    # An encoder of weight 0 pulls at nothing: what is left is scikit-learn's problem.
    np.testing.assert_allclose(code.numpy(), lasso.coef_, rtol=1e-5, atol=1e-6)


def test_codes_of_strong_prediction_are_the_predicted_ones(theta, x, activation):
    predicted = predict(theta, x, DENSE, activation)
    code = (
        PredictiveDecomposition(DENSE, L1(0.4), 1e6, activation, **EXACT)
        .infer(theta, x, predicted)
        .codes
    )
    # The encoder's term is all that counts: h deviates by the rest's gradient / 1e6.
    torch.testing.assert_close(code, predicted, rtol=0, atol=1e-4)


def test_gradient_of_strong_prediction_is_that_of_a_sparse_auto_encoder(theta, x, activation):
    alpha, out = 0.4, theta.empty_like()
    PredictiveDecomposition(DENSE, L1(alpha), 1e7, activation, **EXACT).gradient(
        theta, x, None, out
    )
    expected = theta.empty_like()
    expected.flat.zero_()
    tracked = theta.tracked(expected)
    code = predict(tracked, x, DENSE, activation)
    residual = x - code @ tracked["decoder_weight_0"]
    (0.5 * residual.square().sum(1) + alpha * code.abs().sum(1)).mean().backward()
    # min_h E is the Moreau envelope of the sparse coding objective at f(x), which tends to that
    # objective itself: an auto-encoder with an L1 penalty.
    active = (predict(theta, x, DENSE, activation) != 0).any(0)
    for name in ("weight_0", "decoder_weight_0", *PREDICTORS[activation].names):
        torch.testing.assert_close(out[name][active], expected[name][active], rtol=1e-4, atol=1e-4)


def test_excess_of_prediction_is_against_the_lasso(theta, x, activation):
    alpha, penalty = 0.4, L1(0.4)
    excess, optimum = excess_of_prediction(theta, x, DENSE, penalty, activation, **EXACT)
    dictionary, predicted = theta["decoder_weight_0"], predict(theta, x, DENSE, activation)
    lasso = Lasso(alpha / D, fit_intercept=False, tol=1e-14, max_iter=100_000)
    best = torch.tensor(lasso.fit(dictionary.t().numpy(), x.t().numpy()).coef_)

    def objective(code):
        square = (x - code @ dictionary).square().sum(1)
        return 0.5 * square + alpha * code.abs().sum(1)

    # The formula, by scikit-learn's solution.
    torch.testing.assert_close(optimum, objective(best), rtol=1e-9, atol=0)
    torch.testing.assert_close(excess, objective(predicted) - objective(best), rtol=1e-6, atol=1e-9)


def test_excess_of_an_optimal_prediction_is_zero(generator):
    theta = random_parameters("shrinkage", generator)
    theta["weight_0"].copy_(torch.eye(K, D))
    theta["decoder_weight_0"].copy_(torch.eye(K, D))
    theta["decoder_weight_0"][D:] = theta["decoder_weight_0"][0]
    theta["weight_0"][D:] = 0.0
    theta["hidden_bias_0"].zero_()
    theta["gain"].fill_(1.0)
    theta["threshold"].fill_(0.4)
    x = 2 * torch.randn(N, D, dtype=torch.float64, generator=generator)
    excess, _ = excess_of_prediction(theta, x, DENSE, L1(0.4), "shrinkage", **EXACT)
    # Orthogonal atoms: one soft threshold is the exact solution.
    torch.testing.assert_close(excess, torch.zeros_like(excess), rtol=0, atol=1e-12)


def test_projection_keeps_directions_and_signs(theta, activation):
    theta["decoder_weight_0"].mul_(torch.arange(1, K + 1).unsqueeze(1))
    before = theta["decoder_weight_0"].clone()
    project_(theta)
    dictionary = theta["decoder_weight_0"]
    norms = torch.linalg.vector_norm(dictionary, dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms))
    # Scaled, not turned.
    torch.testing.assert_close(dictionary * before.norm(dim=1, keepdim=True), before)
    if activation != "tanh":
        theta["threshold"].fill_(-0.1)
        project_(theta)
        # A negative threshold would make the encoder jump at 0.
        assert (theta["threshold"] == 0).all()


def test_start_is_a_step_of_iterated_shrinkage(x):
    alpha = 0.3
    theta = started("shrinkage", alpha, torch.Generator().manual_seed(3))
    dictionary = theta["decoder_weight_0"]
    step = 1 / torch.linalg.matrix_norm(dictionary, ord=2) ** 2
    expected = L1(alpha).shrink(step * x @ dictionary.t(), float(step))
    # ISTA from zero: shrink the gradient step.
    torch.testing.assert_close(
        predict(theta, x, DENSE, "shrinkage"), expected, rtol=1e-6, atol=1e-9
    )


@pytest.mark.parametrize("from_zero", [False, True])
def test_start_is_the_same_in_both_dtypes(from_zero, activation):
    starts = [
        started(
            activation, 0.3, torch.Generator().manual_seed(0), from_zero=from_zero, dtype=dtype
        ).flat.double()
        for dtype in (torch.float32, torch.float64)
    ]
    # One draw for both, and arithmetic on it.
    torch.testing.assert_close(*starts, rtol=1e-5, atol=1e-7)


def test_every_start_learns(x, activation, generator):
    for from_zero in (False, True):
        theta = started(activation, 0.3, generator, from_zero=from_zero)
        out = theta.empty_like()
        PredictiveDecomposition(DENSE, L1(0.3), 1.0, activation).gradient(theta, x, None, out)
        # A hard threshold above all products would have no slope to leave by: then W is not 0.
        assert out["weight_0"].any(1).all()


@pytest.mark.parametrize("name", penalties())
def test_codes_vanish_from_the_largest_useful_alpha_on(name, x, generator):
    dictionary = random_parameters("tanh", generator)["decoder_weight_0"]
    make = {
        "l1": L1,
        "positive": lambda alpha: L1(alpha, positive=True),
        "groups": lambda alpha: GroupL2(alpha, map_groups((3, 3), 2)),
    }[name]
    correlation = x @ dictionary.t()
    for of in (1e-3, 1e3):
        # Nothing explains a row of zeros.
        assert not largest_useful_alpha(make(of), torch.zeros_like(correlation)).any()
        alphas = largest_useful_alpha(make(of), correlation)
        for row, alpha in zip(x, alphas, strict=True):
            quadratic = make_quadratic(dictionary, row.unsqueeze(0))
            # Zero is optimal at the bound, whatever alpha the penalty in hand has ...
            assert not infer(quadratic, make(1.001 * float(alpha))).codes.any()
            if name != "groups":
                # ... and not below it, where it is no mere bound.
                assert infer(quadratic, make(0.999 * float(alpha)), tol=1e-12).codes.any()
    expected = correlation.amax(1) if name == "positive" else correlation.abs().amax(1)
    if name != "groups":
        torch.testing.assert_close(alphas, expected)
    else:
        # Groups that hold a unit four times penalise it more than |h| does.
        assert (alphas < expected).all()
