"""What must hold between models, by mathematics: through the public estimators."""

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch.autograd.functional import hessian

from skae import AutoEncoder, ContractiveAutoEncoder, DenoisingAutoEncoder
from skae.engine.networks.corruptions import GaussianNoise
from skae.engine.networks.layers import Network, decode, encode
from skae.engine.networks.objectives import Reconstruction
from skae.engine.networks.penalties import ReconstructionContraction
from skae.engine.networks.units import Gaussian
from skae.engine.optimisation.parameters import Parameters

QUICK = {"learning_rate": 1e-2, "batch_size": 50, "random_state": 0, "device": "cpu"}
VARIANTS = {
    "plain": AutoEncoder,
    "denoising": DenoisingAutoEncoder,
    "contractive": ContractiveAutoEncoder,
}


@pytest.fixture
def table():
    """Correlated columns of different means and scales."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(120, 6)) @ rng.normal(size=(6, 6)) + rng.normal(size=6)


def squared_error(X, reconstruction):
    return ((X - reconstruction) ** 2).sum()


# The linear auto-encoder is principal component analysis (Baldi & Hornik 1989).


@pytest.mark.parametrize(("loss", "tied_weights"), [("squared_error", False), ("gaussian", True)])
def test_a_linear_auto_encoder_is_pca(loss, tied_weights):
    # Two directions stand out, so that the way to them is short.
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(6, 6)))[0] * [[3], [2], [0.7], [0.5], [0.3], [0.2]]
    table = rng.normal(size=(120, 6)) @ basis + rng.normal(size=6)
    # Encoder and decoder of their own are slower to agree: at most 2e-4 rad in twelve trainings.
    tolerance = 1e-6 if tied_weights else 1e-3
    model = AutoEncoder(
        2,
        activation="linear",
        loss=loss,
        tied_weights=tied_weights,
        batch_size=120,
        max_iter=600 if tied_weights else 1000,
        learning_rate=0.1 if tied_weights else 0.3,
        learning_rate_schedule="linear",
        n_iter_no_change=None,
        random_state=0,
        device="cpu",
    ).fit(table)
    scaler = StandardScaler(with_mean=loss == "gaussian", with_std=loss == "gaussian")
    X = scaler.fit_transform(table)
    pca = PCA(2).fit(X)
    # The decoder's columns span the leading principal subspace: all principal angles are zero.
    assert subspace_angles(model.decoder_components_.T, pca.components_.T).max() < tolerance
    # So the reconstruction is the projection on it: PCA's error, the least of any of rank 2. An
    # angle adds its square to the error, times the ratio of the variances.
    projected = pca.inverse_transform(pca.transform(X))
    least = squared_error(X, projected)
    np.testing.assert_allclose(
        squared_error(X, scaler.transform(model.reconstruct(table))),
        least,
        rtol=max(1e-9, 100 * tolerance**2),
    )
    np.testing.assert_allclose(
        model.reconstruct(table), scaler.inverse_transform(projected), atol=20 * tolerance
    )


# Switched off, a regulariser is not there.


@pytest.mark.parametrize(
    "model",
    [
        DenoisingAutoEncoder(5, corruption_level=0, max_iter=4, **QUICK),
        DenoisingAutoEncoder(5, corruption=None, max_iter=4, **QUICK),
        ContractiveAutoEncoder(5, contraction=0, max_iter=4, **QUICK),
        AutoEncoder(5, weight_decay=0.0, sparsity=0.0, hessian=0.0, max_iter=4, **QUICK),
    ],
    ids=["level_0", "no_corruption", "contraction_0", "weights_0"],
)
def test_no_regulariser_is_the_plain_auto_encoder(model, table):
    plain = AutoEncoder(5, max_iter=4, **QUICK).fit(table)
    model.fit(table)
    # A term that is off must not even draw a random number: the same bits result.
    assert model.loss_curve_ == plain.loss_curve_
    for name, weight in plain.weights_.items():
        np.testing.assert_array_equal(model.weights_[name], weight)
    np.testing.assert_array_equal(model.transform(table), plain.transform(table))


def test_denoising_and_contraction_combine(table):
    both = DenoisingAutoEncoder(5, contraction=0.1, max_iter=4, **QUICK).fit(table)
    same = ContractiveAutoEncoder(5, contraction=0.1, corruption="masking", max_iter=4, **QUICK)
    same.fit(table)
    # The variants are one family with other defaults: whichever name, the same model.
    for name, weight in both.weights_.items():
        np.testing.assert_array_equal(same.weights_[name], weight)


# Sample weights.


@pytest.mark.parametrize("model", VARIANTS)
def test_integer_weights_are_repeated_rows(model, table):
    counts = np.random.default_rng(1).integers(0, 4, size=len(table))
    settings = {"optimizer": "sgd", "max_iter": 20, "loss": "gaussian", "random_state": 0}
    if model == "denoising":  # its noise would differ between a row and its copies
        settings["corruption_level"] = 0
    model = VARIANTS[model](4, batch_size=10**6, device="cpu", **settings)
    weighted = model.fit(table, sample_weight=counts).weights_
    columns = model.columns_
    score = model.score(table, sample_weight=counts)
    repeated = np.repeat(table, counts, axis=0)
    model.fit(repeated)
    # A row of weight 2 is two rows, in the statistics of the columns ...
    np.testing.assert_allclose(model.columns_.mean, columns.mean, rtol=1e-12)
    np.testing.assert_allclose(model.columns_.scale, columns.scale, rtol=1e-12)
    # ... in every full gradient step ...
    for name, weight in weighted.items():
        np.testing.assert_allclose(model.weights_[name], weight, rtol=1e-8, atol=1e-10)
    # ... and in the score.
    np.testing.assert_allclose(model.score(repeated), score, rtol=1e-8)


# Noise on the input contracts the reconstruction (Bishop 1995; Alain & Bengio 2014).


class Quadrature:
    """Noise of N(0, level^2 I) in 2-D as a weighted grid: Gauss-Hermite, exact to order 39."""

    def __init__(self, level):
        self.level = level
        nodes, weights = np.polynomial.hermite_e.hermegauss(20)
        weights = weights / weights.sum()
        self.nodes = torch.cartesian_prod(torch.tensor(nodes), torch.tensor(nodes))
        self.weights = torch.outer(torch.tensor(weights), torch.tensor(weights)).flatten()

    def __call__(self, x, generator):
        return torch.add(x, self.nodes.to(x), alpha=self.level), None

    def mean_loss(self, theta, x, network):
        """The criterion at one row, averaged over the noise."""
        n_nodes = len(self.nodes)
        objective = Reconstruction(network, Gaussian(), self)
        return objective.value(theta, x.expand(n_nodes, 2), None, self.weights * n_nodes)


@pytest.fixture
def planar():
    """A trained auto-encoder of two columns as the engine sees it, and one row."""
    X = np.random.default_rng(0).normal(size=(100, 2))
    model = AutoEncoder(3, loss="squared_error", max_iter=20, **QUICK).fit(X)
    theta = Parameters.from_numpy(model.weights_, dtype=torch.float64, device="cpu")
    return theta, Network((2, 3)), torch.tensor(X[:1])


def reconstruct(theta, x, network):
    return decode(theta, encode(theta, x, network)[-1], network)[1]


def test_gaussian_noise_is_a_contraction_of_the_reconstruction(planar):
    theta, network, x = planar
    # At a row that is reconstructed exactly the second-order term is the contraction alone.
    theta["visible_bias_0"].add_((x - reconstruct(theta, x, network))[0])

    def discrepancy(sigma):
        contraction = ReconstructionContraction(sigma**2 / 2)
        contracted = Reconstruction(network, Gaussian(), penalties=[contraction])
        noisy = Quadrature(sigma).mean_loss(theta, x, network)
        return float(noisy - contracted.value(theta, x, None))

    # Taylor: E 1/2 |x - r(x + eps)|^2 = 1/2 |x - r|^2 + sigma^2 / 2 |dr/dx|_F^2 + O(sigma^4), so
    # halving sigma divides what is left by 16 (by 4, were the constant another one).
    for sigma in (0.04, 0.02):
        assert discrepancy(sigma) / discrepancy(sigma / 2) == pytest.approx(16, rel=0.02)


def test_elsewhere_the_curvature_of_the_reconstruction_adds_to_it(planar):
    theta, network, x = planar
    theta["visible_bias_0"].add_(0.3)  # a biased reconstruction

    def laplacian(column):
        return hessian(lambda x: reconstruct(theta, x, network)[0, column], x)[0, :, 0].trace()

    residual = (x - reconstruct(theta, x, network))[0]
    curvature = sum(residual[column] * laplacian(column) for column in range(2))

    def discrepancy(sigma):
        contraction = ReconstructionContraction(sigma**2 / 2)
        contracted = Reconstruction(network, Gaussian(), penalties=[contraction])
        noisy = Quadrature(sigma).mean_loss(theta, x, network)
        return float(noisy - contracted.value(theta, x, None) + sigma**2 / 2 * curvature)

    # Where r(x) != x the second order has one more term, -sigma^2 / 2 (x - r) . (Laplacian of r);
    # with it, the remainder is of fourth order again.
    for sigma in (0.04, 0.02):
        assert discrepancy(sigma) / discrepancy(sigma / 2) == pytest.approx(16, rel=0.02)


def test_for_linear_networks_noise_is_exactly_a_contraction(table):
    model = AutoEncoder(3, activation="linear", loss="squared_error", max_iter=5, **QUICK)
    weights = model.fit(table).weights_
    theta = Parameters.from_numpy(weights, dtype=torch.float64, device="cpu")
    network, sigma, n_draws = Network((6, 3), "linear"), 0.8, 40_000
    x = torch.tensor(table[:1])
    contraction = ReconstructionContraction(sigma**2 / 2)
    expected = Reconstruction(network, Gaussian(), penalties=[contraction]).value(theta, x, None)

    noise = GaussianNoise(sigma)
    corrupted, _ = noise(x.expand(n_draws, 6), torch.Generator().manual_seed(0))
    losses = 0.5 * (x - reconstruct(theta, corrupted, network)).square().sum(1)
    # A linear map has no higher orders: E 1/2 |x - r(x + eps)|^2 = 1/2 |x - r|^2
    # + sigma^2 / 2 |dr/dx|_F^2 at any sigma, here to within 4.5 standard errors of the mean.
    assert abs(losses.mean() - expected) < 4.5 * losses.std() / n_draws**0.5


# Denoising is score matching (Vincent 2011).


def energy(theta, x, sigma):
    """papers.md: (1/2 |x|^2 - c.x - sum_j softplus(W_j.x + b_j)) / sigma^2 of each row."""
    hidden = torch.addmm(theta["hidden_bias_0"], x, theta["weight_0"].t())
    # (torch's own softplus is linear beyond 20: right to 2e-9 only.)
    softplus = torch.logaddexp(hidden, torch.zeros_like(hidden)).sum(1)
    return (0.5 * x.square().sum(1) - x @ theta["visible_bias_0"] - softplus) / sigma**2


def test_the_reconstruction_is_a_step_down_the_energy(table):
    model = DenoisingAutoEncoder(
        4, corruption="gaussian", corruption_level=0.5, loss="squared_error", max_iter=10, **QUICK
    ).fit(table)
    theta = Parameters.from_numpy(model.weights_, dtype=torch.float64, device="cpu")
    x = torch.tensor(table, requires_grad=True)
    (slope,) = torch.autograd.grad(energy(theta, x, 0.5).sum(), x)
    # With tied weights, sigmoid codes and linear outputs, r(x) - x = -sigma^2 dE/dx.
    np.testing.assert_allclose(
        model.reconstruct(table) - table, -(0.5**2) * slope.numpy(), rtol=1e-9, atol=1e-12
    )


def test_the_denoising_gradient_is_that_of_score_matching(table):
    sigma, network = 0.5, Network((6, 4))
    model = DenoisingAutoEncoder(
        4, corruption="gaussian", corruption_level=sigma, loss="squared_error", max_iter=3, **QUICK
    ).fit(table)
    theta = Parameters.from_numpy(model.weights_, dtype=torch.float64, device="cpu")
    x, gradient = torch.tensor(table), theta.empty_like()
    objective = Reconstruction(network, Gaussian(), GaussianNoise(sigma))
    with torch.no_grad():
        loss = objective.gradient(theta, x, torch.Generator().manual_seed(3), gradient)

    flat = theta.flat.clone().requires_grad_()
    noisy, _ = GaussianNoise(sigma)(x, torch.Generator().manual_seed(3))
    noisy.requires_grad_()
    total = energy(Parameters(theta.shapes, flat), noisy, sigma).sum()
    (slope,) = torch.autograd.grad(total, noisy, create_graph=True)
    score_of_the_kernel = (x - noisy.detach()) / sigma**2
    criterion = 0.5 * (-slope - score_of_the_kernel).square().sum(1).mean()
    (expected,) = torch.autograd.grad(criterion, flat)
    # Vincent 2011: 1/2 |r(x~) - x|^2 is sigma^4 times the mismatch between the model's score,
    # -dE/dx~, and that of the Parzen kernel, (x - x~) / sigma^2; so are their gradients.
    torch.testing.assert_close(loss, sigma**4 * criterion.detach())
    torch.testing.assert_close(gradient.flat, sigma**4 * expected)


# Trends on real data.


def mean_squared_jacobian(model, X):
    code = model.transform(X)
    return ((code * (1 - code)) ** 2 @ (model.components_**2).sum(1)).mean()


def test_more_contraction_makes_a_smaller_jacobian(digits):
    X = digits[0][:1000]
    norms = [
        mean_squared_jacobian(
            ContractiveAutoEncoder(16, contraction=weight, max_iter=25, **QUICK).fit(X), X
        )
        for weight in (0.0, 0.03, 1.0)
    ]
    # The minimum of loss + weight * norm has a norm that falls as its weight grows (not
    # necessarily a local minimum after 25 epochs; but the effect is tens of per cent a step).
    assert (np.diff(norms) < -0.1 * np.array(norms[:-1])).all()


def cross_entropy(model, X, corrupted):
    r = model.reconstruct(corrupted)
    return -(X * np.log(r) + (1 - X) * np.log(1 - r)).sum(1).mean()


def test_more_corruption_makes_a_more_robust_reconstruction(digits):
    X = digits[0][:1000]
    corrupted = np.where(np.random.default_rng(0).random(X.shape) < 0.3, 0, X)
    damages, clean = [], []
    for level in (0.0, 0.2, 0.5):
        model = DenoisingAutoEncoder(32, corruption_level=level, max_iter=25, **QUICK).fit(X)
        clean.append(cross_entropy(model, X, X))
        damages.append(cross_entropy(model, X, corrupted) - clean[-1])
    # Trained to fill in what is missing, a model loses less when a part is missing ...
    assert (np.diff(damages) < -0.1 * np.array(damages[:-1])).all()
    # ... and pays for it on whole rows, where the plain loss is what the plain model minimises.
    assert (np.diff(clean) > 0).all()


# Not collapsed.


@pytest.mark.parametrize("model", VARIANTS)
def test_codes_vary_and_beat_an_untrained_network(model, digits):
    X, y = digits
    settings = {"n_components": 8, **QUICK, "learning_rate": 1e-3}
    trained = VARIANTS[model](max_iter=25, **settings).fit(X[:1000])
    untrained = VARIANTS[model](max_iter=1, **settings | {"learning_rate": 1e-9}).fit(X[:1000])

    def accuracy(model):
        classifier = LogisticRegression(C=100, max_iter=2000)
        classifier.fit(model.transform(X[:1000]), y[:1000])
        return classifier.score(model.transform(X[1000:]), y[1000:])

    # A unit that hardly moves over all digits tells nothing: each spans a tenth of (0, 1).
    assert (np.ptp(trained.transform(X), axis=0) > 0.1).all()
    # Eight learned features hold more of the class than eight random ones, by a clear margin.
    assert accuracy(trained) > accuracy(untrained) + 0.05
