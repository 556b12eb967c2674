"""Draws of parameters against posteriors that are known: in closed form, or by quadrature."""

import math

import numpy as np
import pytest
import torch

from skae.diagnostics import effective_sample_size, potential_scale_reduction
from skae.engine.networks.units import Gaussian, Multinomial
from skae.engine.optimisation.models import Model
from skae.engine.optimisation.parameters import Parameters
from skae.engine.optimisation.rows import DenseRows, LabelledRows
from skae.engine.optimisation.runs import Data, Objective
from skae.engine.posterior.chains import Plan, StepSize, draw_parameters, leapfrog_
from skae.engine.posterior.energies import (
    Energy,
    Scale,
    curvature,
    hessian_product,
    largest_curvature,
    scale_of,
)
from skae.engine.stacks.supervised import Supervised, with_output


class Mean(Objective):
    """mean_i |x_i - theta|^2 / (2 sd^2), noisy where the rows are to be corrupted."""

    def __init__(self, sd=1.0, noise=0.0):
        self.state, self.sd, self.noise, self.is_noisy = {}, sd, noise, noise > 0

    def value(self, theta, x, generator, row_weight=None):
        noise = torch.empty_like(x).normal_(generator=generator)
        x = x + self.noise * noise
        return (x - theta["mean"]).square().sum(1).mean() / (2 * self.sd**2)

    def gradient(self, theta, x, generator, out, row_weight=None):
        noise = torch.empty_like(x).normal_(generator=generator)
        out["mean"].copy_(theta["mean"] - (x + self.noise * noise).mean(0)).div_(self.sd**2)


def mean_model(n_columns, sd=1.0, noise=0.0):
    nothing = lambda theta, x: x  # noqa: E731
    return Model(
        shapes={"mean": (n_columns,)},
        start_=lambda *arguments: None,
        encode=nothing,
        decode=nothing,
        units=None,
        n_features=n_columns,
        n_codes=n_columns,
        objective=lambda: Mean(sd, noise),
    )


def data_of(rows):
    return Data(rows, torch.arange(len(rows)))


def generator_of(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn(model, data, start, plan, n_rows, watched=lambda theta: theta.flat.numpy().copy()):
    """All moves' parameters, of shape (n_chains, n_moves, n_parameters), and the draws."""
    found = draw_parameters(
        model, data, start, plan, n_rows, generator=generator_of(), watched=watched
    )
    return found.traces[:, :, 1:], found


def assert_moments(traces, mean, variance):
    """Moments of chains within five standard errors of the truth, as effective sizes tell them."""
    size = effective_sample_size(traces)
    assert (size > 100).all()
    # Chains forget the start, which all of them share.
    assert (potential_scale_reduction(traces) < 1.1).all()
    flat = traces.reshape(-1, traces.shape[-1])
    error = np.sqrt(np.asarray(variance) / size)
    assert (np.abs(flat.mean(0) - mean) < 5 * error).all()
    # The variance of a normal law has the relative standard error sqrt(2 / n).
    square_size = effective_sample_size((traces - mean) ** 2)
    assert (np.abs(flat.var(0) / variance - 1) < 5 * np.sqrt(2 / square_size)).all()


@pytest.mark.parametrize("method", ["hmc", "mala"])
def test_posterior_of_a_gaussian_mean(method):
    rng = np.random.default_rng(0)
    x = torch.tensor(rng.normal(size=(50, 3)) * [1, 1, 1] + [0, 5, -2])
    plan = Plan(method, n_chains=2, n_draws=300, thinning=1, burn_in=40, n_steps=6)
    start = {"mean": np.zeros(3)}
    traces, found = drawn(mean_model(3, sd=2.0), data_of(DenseRows(x)), start, plan, 50.0)
    # A flat prior: N(mean of x, sd^2 / n).
    assert_moments(traces, x.mean(0).numpy(), 4.0 / 50)
    assert 0.4 < found.acceptance.mean() < 0.99
    assert len(found.weights) == 2 * 300
    # The chains' draws come by turns.
    assert np.array_equal(found.weights[1]["mean"], traces[1, 0])
    assert np.array_equal(found.weights[2]["mean"], traces[0, 1])


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_stochastic_gradients_widen_the_posterior_by_their_step_alone(noise):
    rng = np.random.default_rng(0)
    x = torch.tensor(rng.normal(size=(400, 2)))
    plan = Plan("sgld", n_chains=2, n_draws=150, burn_in=20, thinning=1, n_steps=8, batch_size=40)
    start = {"mean": x.mean(0).numpy()}
    traces, found = drawn(mean_model(2, noise=noise), data_of(DenseRows(x)), start, plan, 400.0)
    h = 0.25  # of the width of the law
    # In closed form: variances of the unadjusted chain are larger by 1 / (1 - h^2 / 4).
    expected = 1 / 400 / (1 - h**2 / 4)
    flat = traces.reshape(-1, 2)
    size = effective_sample_size((traces - flat.mean(0)) ** 2)
    assert (np.abs(flat.var(0) / expected - 1) < 5 * np.sqrt(2 / size)).all()
    # The noise of the corruption is that of ten passes, whose mean is about 0.
    error = np.sqrt(expected / effective_sample_size(traces)) + noise / math.sqrt(400 * 10)
    assert (np.abs(flat.mean(0) - x.mean(0).numpy()) < 5 * error).all()
    assert found.step_size == pytest.approx([h * math.sqrt(1.0)] * 2, rel=0.02)
    assert np.isnan(found.acceptance).all()


def output_model(x, target, units, penalty, weight=None):
    """A linear model of rows, as an output without layers, and its data."""
    n_outputs, n_rows = target.shape[1], len(x)
    objective = lambda: Supervised([], units, weight_decay=penalty / n_rows)  # noqa: E731
    model = with_output([], units, n_outputs, objective, n_features=x.shape[1])
    return model, data_of(LabelledRows(DenseRows(x), target, weight))


def test_posterior_of_ridge_regression():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(40, 3)) @ np.diag([3.0, 1.0, 0.3])
    y = x @ np.array([[0.5], [-1.0], [2.0]]) + 1 + rng.normal(size=(40, 1))
    units, penalty = Gaussian.of_columns(torch.ones(1)), 2.0
    model, data = output_model(torch.tensor(x), torch.tensor(y), units, penalty)
    start = {"output_weight": np.zeros((1, 3)), "output_bias": np.zeros(1)}
    plan = Plan("hmc", n_chains=2, n_draws=400, thinning=1, burn_in=50, n_steps=8)
    traces, _ = drawn(model, data, start, plan, 40.0)
    # N(A^-1 Z^T y, A^-1) with A = Z^T Z + the penalty on weights; Z has a column of ones.
    z = np.column_stack([x, np.ones(40)])
    precision = z.T @ z + np.diag([penalty] * 3 + [0.0])
    mean = np.linalg.solve(precision, z.T @ y).ravel()
    assert_moments(traces, mean, np.diag(np.linalg.inv(precision)))


def test_posterior_of_logistic_regression():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(25, 1))
    is_one = rng.random(25) < 1 / (1 + np.exp(-2 * x[:, 0]))
    target = torch.tensor(np.column_stack([~is_one, is_one]).astype(float))
    model, data = output_model(torch.tensor(x), target, Multinomial(), 1.0)
    start = {"output_weight": np.zeros((2, 1)), "output_bias": np.zeros(2)}
    plan = Plan("hmc", n_chains=2, n_draws=400, thinning=1, burn_in=50, n_steps=8)

    def log_odds(theta):
        weight, bias = theta["output_weight"], theta["output_bias"]
        return np.array([float(weight[1] - weight[0]), float(bias[1] - bias[0])])

    traces, _ = drawn(model, data, start, plan, 25.0, log_odds)
    # By quadrature: the difference of two weights with the prior N(0, 1) each has N(0, 2).
    w, b = np.meshgrid(np.linspace(-3, 9, 241), np.linspace(-6, 6, 241), indexing="ij")
    logits = (w[..., None] * x[:, 0] + b[..., None]) * np.where(is_one, 1, -1)
    log_density = -np.logaddexp(0, -logits).sum(-1) - w**2 / 4
    density = np.exp(log_density - log_density.max())
    density /= density.sum()
    mean = np.array([(density * w).sum(), (density * b).sum()])
    variance = np.array([(density * w**2).sum(), (density * b**2).sum()]) - mean**2
    assert_moments(traces, mean, variance)


def test_temperature():
    x = torch.tensor(np.random.default_rng(0).normal(size=(50, 1)))
    options = {"n_chains": 2, "n_draws": 200, "thinning": 1, "burn_in": 40, "n_steps": 4}
    hot, cold = (
        drawn(mean_model(1), data_of(DenseRows(x)), {"mean": x.mean(0).numpy()}, plan, 50.0)[0]
        for plan in (Plan(**options, temperature=4.0), Plan(**options, temperature=1e-8))
    )
    assert_moments(hot, x.mean(0).numpy(), 4 / 50)
    # Temperature 0 leaves nothing but the most probable parameters.
    assert np.abs(cold - x.mean(0).numpy()).max() < 1e-4


def banana():
    """Parameters of two dimensions whose energy is no quadratic, and the gradient."""
    theta = Parameters({"a": (2,)}, torch.tensor([0.7, -0.4], dtype=torch.float64))

    def force(at, out):
        a, b = at["a"]
        out["a"].copy_(torch.stack([a - 4 * a * (b - a**2), 2 * (b - a**2)]))
        return out.flat

    return theta, force


def test_trajectories_are_reversible_and_keep_volume():
    theta, force = banana()
    scale = Scale(torch.tensor([1.3, 0.6], dtype=torch.float64))

    def run(position, momentum, step=0.1, n_steps=15):
        at = Parameters(theta.shapes, position.clone())
        momentum, gradient = momentum.clone(), at.empty_like()
        force(at, gradient)
        leapfrog_(at, momentum, gradient, force, scale, step, n_steps)
        return at.flat, momentum

    start = theta.flat, torch.tensor([0.3, 1.1], dtype=torch.float64)
    position, momentum = run(*start)
    back, negative = run(position, -momentum)
    assert torch.allclose(back, start[0], atol=1e-12)
    assert torch.allclose(-negative, start[1], atol=1e-12)
    joint = lambda z: torch.cat(run(z[:2], z[2:]))  # noqa: E731
    z, columns = torch.cat(start), []
    for number in range(4):
        shift = torch.zeros(4, dtype=torch.float64)
        shift[number] = 1e-6
        columns.append((joint(z + shift) - joint(z - shift)) / 2e-6)
    assert abs(float(torch.linalg.det(torch.stack(columns, 1))) - 1) < 1e-7


def test_energies_are_sums_over_rows():
    x = torch.tensor(np.random.default_rng(0).normal(size=(30, 2)))
    theta = Parameters({"mean": (2,)}, torch.tensor([0.5, -1.0], dtype=torch.float64))
    energy = Energy(Mean(), data_of(DenseRows(x)), 30.0, temperature=2.0)
    expected = 0.5 * float((x - theta["mean"]).square().sum()) / 2
    assert energy.value(theta) == pytest.approx(expected)
    out, batches = theta.empty_like(), theta.empty_like()
    whole = energy.gradient_(theta, out).clone()
    assert torch.allclose(whole, 30 * (theta["mean"] - x.mean(0)) / 2)
    assert torch.allclose(energy.mean_gradient_(theta, batches, 7, 1), whole)
    theta.flat.fill_(math.nan)
    assert energy.value(theta) == math.inf  # so that such a proposal is rejected


def test_curvature():
    hessian = torch.tensor([[4.0, 1.0, 0.0], [1.0, 2.0, 0.5], [0.0, 0.5, 1.0]]).double()
    theta = Parameters({"a": (2,), "b": (1,)}, torch.tensor([1.0, 2.0, 3.0]).double())
    force = lambda at, out: out.flat.copy_(hessian @ at.flat)  # noqa: E731
    direction = torch.tensor([1.0, -2.0, 0.5]).double()
    product = hessian_product(theta, force, direction, theta.empty_like())
    assert torch.allclose(product, hessian @ direction, atol=1e-8)
    assert theta.flat.tolist() == [1.0, 2.0, 3.0]
    found = curvature(theta, force, generator_of())
    assert abs(float(found[2]) - 1.0) < 0.5
    assert 2 < float(found[0]) < 5
    ones = Scale(torch.ones(3).double())
    largest = largest_curvature(theta, force, ones, generator_of())
    assert largest == pytest.approx(float(torch.linalg.eigvalsh(hessian)[-1]), rel=0.01)
    # The inverse root of the whole Hessian leaves no direction narrower than the others.
    dense = scale_of(theta, force, generator_of())
    assert torch.allclose(dense.factor @ hessian @ dense.factor, torch.eye(3).double(), atol=1e-6)
    assert torch.allclose(dense(direction), dense.factor @ direction)
    diagonal = scale_of(theta, force, generator_of(), n_dense=2)
    assert torch.allclose(diagonal.factor, found.rsqrt())
    assert largest_curvature(theta, force, dense, generator_of()) == pytest.approx(1, rel=1e-4)


def test_step_sizes_come_to_the_acceptance_aimed_at():
    size, step, rng = StepSize(0.01, 0.8), 0.01, np.random.default_rng(0)
    for _ in range(300):
        step = size.update(float(np.clip(math.exp(-step) + rng.normal(0, 0.05), 0, 1)))
    assert math.exp(-size.final) == pytest.approx(0.8, abs=0.02)
