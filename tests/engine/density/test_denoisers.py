"""Scores and local moments against laws that are known."""

import math

import pytest
import torch
from scipy.special import ive
from torch.testing import assert_close

from skae.engine.boltzmann.energies import binary_states
from skae.engine.density.denoisers import LocalCovariance, lanczos_root
from skae.engine.networks.layers import Network
from skae.engine.networks.units import Bernoulli


def test_normal_data(normal_denoiser, generator):
    variances, noise = torch.tensor([1.9, 0.1], dtype=torch.float64), 0.5
    x = torch.randn(20, 2, dtype=torch.float64, generator=generator)
    for tied in (True, False):
        denoiser = normal_denoiser(variances, noise, tied)
        total = variances + noise**2
        # The score of N(0, C + sigma^2), and the covariance of x given a noisy copy of it.
        assert_close(denoiser.score(x), -x / total)
        covariance = torch.diag(variances * noise**2 / total)
        assert_close(denoiser.covariance(x).dense(), covariance.expand(20, 2, 2))


def test_points_at_sums_of_filters(make_denoiser, generator):
    # One tied sigmoid layer at sigma = 1 is the best denoiser of data at the points c + W^T h, with
    # weights P(h) of its own: everything about the posterior can be counted.
    denoiser = make_denoiser(Network((4, 6)), 1.0)
    theta = denoiser.theta
    hidden = torch.cat(list(binary_states(6, theta.flat)))
    points = hidden @ theta["weight_0"] + theta["visible_bias_0"]
    log_weight = hidden @ theta["hidden_bias_0"] + 0.5 * points.square().sum(1)
    y = 2 * torch.randn(30, 4, dtype=torch.float64, generator=generator)
    distance = torch.cdist(y, points).square()
    share = torch.softmax(log_weight - distance / 2, 1)
    mean = share @ points
    assert_close(denoiser.reconstruct(y), mean)
    gap = points - mean.unsqueeze(1)
    covariance = torch.einsum("nk,nki,nkj->nij", share, gap, gap)
    assert_close(denoiser.covariance(y).dense(), covariance)
    # The score is the gradient of the log-density of the points with noise.
    probe = y.clone().requires_grad_()
    log_density = torch.logsumexp(log_weight - torch.cdist(probe, points).square() / 2, 1).sum()
    (gradient,) = torch.autograd.grad(log_density, probe)
    assert_close(denoiser.score(y), gradient)


def circle(x, radius, noise):
    """E[clean row | noisy row] for rows that are uniform on a circle."""
    rho = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    k = radius * rho / noise**2
    ratio = torch.special.i1e(k) / torch.special.i0e(k)
    return radius * ratio * x / rho


@pytest.mark.parametrize("noise", [0.2, 0.5, 1.0])
def test_a_circle(denoiser_of_function, noise):
    radius = 1.5
    denoiser = denoiser_of_function(lambda x: circle(x, radius, noise), 2, noise)
    x = torch.tensor([[1.0, 0.0], [0.0, 2.2], [0.3, 0.4]], dtype=torch.float64)
    rho = torch.linalg.vector_norm(x, dim=1)
    k = (radius * rho / noise**2).numpy()
    ratio = torch.from_numpy(ive(1, k) / ive(0, k))
    k = torch.from_numpy(k)
    radial = radius**2 * (1 - ratio / k - ratio**2)
    tangential = radius**2 * ratio / k
    outward = x / rho.unsqueeze(1)
    along = torch.stack([-outward[:, 1], outward[:, 0]], 1)
    covariance = denoiser.covariance(x)
    for direction, variance in ((outward, radial), (along, tangential)):
        product = covariance.times(direction.unsqueeze(1))[:, 0]
        assert_close(product, variance.unsqueeze(1) * direction)
    # The clean row is known better across the circle than along it.
    assert (radial < tangential).all()


def test_the_ball_around_a_point(normal_denoiser):
    # In a small ball of radius d the mean of a smooth density moves by d^2 / (n + 2) times its
    # score: what r(x) - x is for noise of that variance.
    variances = torch.tensor([1.0, 0.4], dtype=torch.float64)
    x = torch.tensor([[0.5, -0.3]], dtype=torch.float64)
    side = torch.linspace(-1, 1, 401, dtype=torch.float64)
    inside = torch.cartesian_prod(side, side)
    inside = inside[inside.square().sum(1) <= 1]
    errors = []
    for d in (0.4, 0.2, 0.1):
        points = x + d * inside
        share = torch.softmax(-(points.square() / variances).sum(1) / 2, 0)
        mean = share @ points
        covariance = (points - mean).T @ (share.unsqueeze(1) * (points - mean))
        denoiser = normal_denoiser(variances, d / 2)
        errors.append(float((denoiser.reconstruct(x)[0] - mean).abs().max() / d**2))
        of_denoiser = denoiser.covariance(x).dense()[0]
        assert_close(of_denoiser, covariance, rtol=0, atol=0.15 * d**2)
    # Relative to the shift the error falls as d^2.
    assert errors[1] < 0.35 * errors[0]
    assert errors[2] < 0.35 * errors[1]


@pytest.mark.parametrize("noise", [0.7, "by column"])
@pytest.mark.parametrize("kind", ["tied", "untied", "bernoulli"])
def test_draws_have_the_local_covariance(make_denoiser, generator, noise, kind):
    if noise == "by column":
        noise = torch.tensor([0.5, 1.0, 0.8], dtype=torch.float64)
    units = Bernoulli() if kind == "bernoulli" else None
    # A deep net with positive slopes whose Jacobian has no symmetry of its own.
    network = Network((3, 4), "sigmoid", tied=kind != "untied")
    denoiser = make_denoiser(network, noise, units)
    x = torch.randn(1, 3, dtype=torch.float64, generator=generator)
    draws = denoiser.normal_draw(x.expand(50_000, -1), generator)
    covariance = denoiser.covariance(x).dense()[0]
    values, basis = torch.linalg.eigh(covariance)
    expected = basis * values.clamp(min=0) @ basis.T
    found = draws.T @ draws / len(draws)
    if kind == "bernoulli" and isinstance(noise, float):
        # Made symmetric by D^(1/2) on both sides: the same eigenvalues as J.
        jacobian = denoiser.jacobian(x).dense()[0]
        values = torch.linalg.eigvals(jacobian).real.sort().values * noise**2
        assert_close(torch.linalg.eigvalsh(found), values, rtol=0.05, atol=2e-3)
    else:
        assert_close(found, expected, rtol=0.05, atol=4e-3 * float(values.max()))


def test_lanczos_root(generator):
    basis = torch.linalg.qr(torch.randn(40, 40, dtype=torch.float64, generator=generator))[0]
    values = torch.linspace(0, 1, 40, dtype=torch.float64) ** 4
    matrix = basis * values @ basis.T
    vectors = torch.randn(5, 40, dtype=torch.float64, generator=generator)
    exact = vectors @ (basis * values.sqrt() @ basis.T)

    def root(n_steps):
        return lanczos_root(lambda v: v @ matrix, vectors, n_steps)

    assert_close(root(40), exact, rtol=1e-5, atol=1e-6)
    assert (root(12) - exact).norm() < 0.05 * exact.norm()
    # A space that is exhausted after two steps, and one that has nothing at all.
    few = torch.diag(torch.tensor([2.0, 2.0, 0.5], dtype=torch.float64))
    vector = torch.ones(1, 3, dtype=torch.float64)
    assert_close(lanczos_root(lambda v: v @ few, vector, 3), vector @ few.sqrt())
    assert_close(lanczos_root(lambda v: 0 * v, vector, 3), torch.zeros_like(vector))


def test_wide_and_few_columns_agree(make_denoiser, generator, monkeypatch):
    denoiser = make_denoiser(Network((6, 5, 4), "tanh", tied=False), 0.6)
    x = torch.randn(4, 6, dtype=torch.float64, generator=generator)
    eps = torch.randn(4, 6, dtype=torch.float64, generator=generator)
    covariance = denoiser.covariance(x)
    exact = covariance.root_times(eps)
    monkeypatch.setattr("skae.engine.density.denoisers.FEW_COLUMNS", 1)
    assert_close(covariance.root_times(eps), exact, rtol=1e-6, atol=1e-8)
    dense = covariance.dense()
    assert_close(covariance.times(eps.unsqueeze(1))[:, 0], torch.einsum("nij,nj->ni", dense, eps))


def test_a_level_for_each_column(normal_denoiser):
    # With one sigma for each column the covariance is J S, S = diag(sigma^2).
    variances = torch.tensor([1.0, 2.0], dtype=torch.float64)
    noise = torch.tensor([0.5, 1.5], dtype=torch.float64)
    denoiser = normal_denoiser(variances, noise)
    x = torch.ones(1, 2, dtype=torch.float64)
    total = variances + noise**2
    assert_close(denoiser.score(x)[0], -1 / total)
    expected = torch.diag(variances * noise**2 / total)
    assert_close(denoiser.covariance(x).dense()[0], expected)


def test_covariances_of_an_energy_need_one_product(make_denoiser, generator):
    denoiser = make_denoiser(Network((3, 5, 2), "tanh", tied=False, potential=True), 0.5)
    x = torch.randn(4, 3, dtype=torch.float64, generator=generator)
    vectors = torch.randn(4, 2, 3, dtype=torch.float64, generator=generator)
    both = LocalCovariance(denoiser.jacobian(x), 0.5)
    assert_close(denoiser.covariance(x).times(vectors), both.times(vectors))
    assert math.isfinite(float(denoiser.reconstruct(x).sum()))
