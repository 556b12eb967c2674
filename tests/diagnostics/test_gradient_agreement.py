"""Learning rules of small RBMs against the exact gradient of the log-likelihood."""

import numpy as np
import pytest
import torch
from scipy import sparse

from skae import RBM, AutoEncoder
from skae.diagnostics import gradient_agreement
from skae.engine.boltzmann import exact_gradients
from skae.engine.boltzmann.energies import BipartiteMachine
from skae.engine.optimisation.parameters import Parameters


@pytest.fixture(scope="module", name="X")
def data():
    """Two noisy prototypes and their inverses, nine columns of zeros and ones."""
    generator = np.random.default_rng(0)
    prototypes = np.array([[1, 1, 1, 0, 0, 0, 1, 0, 1], [1, 0, 0, 1, 0, 0, 1, 0, 0]])
    X = np.vstack([prototypes, 1 - prototypes])[generator.integers(4, size=200)]
    return np.where(generator.random(X.shape) < 0.1, 1 - X, X).astype(float)


def fitted(X, seed=0, **parameters):
    return RBM(
        5, persistent=False, n_gibbs_steps=5, max_iter=30, optimizer="adam", learning_rate=0.02,
        random_state=seed, **parameters,
    ).fit(X)  # fmt: skip


@pytest.fixture(scope="module")
def rbm(X):
    return fitted(X)


@pytest.fixture(scope="module")
def agreement(rbm, X):
    return gradient_agreement(rbm, X)


def test_shapes_and_names(agreement, rbm):
    # One row for each rule, in the order of their names.
    assert agreement.rules == (
        "reconstruction", "first_term", "mean_field",
        "cd_1", "cd_2", "cd_5", "cd_10", "cd_25", "pcd",
    )  # fmt: skip
    # One column for each scale.
    assert agreement.cosine.shape == agreement.sign_agreement.shape == (9, 5)
    # The machine is the fitted one times each scale.
    expected = np.abs(rbm.components_).mean() * agreement.scales
    np.testing.assert_allclose(agreement.mean_weight, expected)


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_agreement_is_measured_on_the_machine_at_that_scale(agreement, rbm, X, scale):
    theta = Parameters.from_numpy(rbm.weights_, dtype=torch.float64, device="cpu")
    theta.flat.mul_(scale)
    machine = BipartiteMachine(theta, rbm.columns_.units(torch.device("cpu")))
    x = torch.tensor(X)
    truth = exact_gradients.log_likelihood_gradient(machine, x).flat.numpy()
    step = exact_gradients.contrastive_divergence_gradients(machine, x, (2,))[0].flat.numpy()
    column = list(agreement.scales).index(scale)
    cosine = step @ truth / np.sqrt((step @ step) * (truth @ truth))
    # The definition of the cosine, from the kernels that have tests of their own.
    np.testing.assert_allclose(agreement.cosine[4, column], cosine)
    # Of the fraction of equal signs.
    same = np.mean(np.sign(step) == np.sign(truth))
    np.testing.assert_allclose(agreement.sign_agreement[4, column], same)
    # And of the gradient's size.
    np.testing.assert_allclose(agreement.gradient_norm[column], np.linalg.norm(truth))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_more_gibbs_steps_agree_no_less(X, seed):
    steps = (1, 2, 3, 5, 10, 25, 100)
    agreement = gradient_agreement(
        fitted(X, seed), X, n_gibbs_steps=steps, scales=(0.25, 0.5, 1), n_particles=1
    )
    # No theorem (with weights of twice the size some of these turn back), but so it is here.
    assert (np.diff(agreement.cosine[3:-1], axis=0) > -1e-12).all()
    # And rules that ignored k would pass, but for this.
    assert (agreement.cosine[-2] > agreement.cosine[3] + 1e-4).all()


def test_contrastive_divergence_agrees_less_as_weights_grow(agreement):
    cosine = agreement.cosine[3:8]
    # Chains forget the data more slowly: the bias of a fixed k grows.
    assert (np.diff(cosine, axis=1) < 1e-12).all()
    # From nothing to much: by 0.2 to 0.5 for machines of several seeds.
    assert (cosine[:, 0] - cosine[:, -1] > 0.1).all()


def test_endless_chains_agree_in_full(rbm, X):
    agreement = gradient_agreement(rbm, X, n_gibbs_steps=(5000,), scales=(0.5, 1))
    # In the limit CD is the gradient itself.
    np.testing.assert_allclose(agreement.cosine[3], 1, rtol=1e-12)
    # With the sign of each parameter.
    np.testing.assert_array_equal(agreement.sign_agreement[3], 1)


def test_particles_that_follow_slowly_agree_more(X):
    # Parameters from NumPy, so that the outcome does not rest on a training.
    rbm, rng = fitted(X), np.random.default_rng(1)
    rbm.weights_ = {name: rng.normal(size=weight.shape) for name, weight in rbm.weights_.items()}
    slow, jumped = (
        gradient_agreement(rbm, X, scales=(3,), n_particles=5_000, growth=growth).cosine[-1, 0]
        for growth in (0.01, 3)
    )
    # Three hundred steps on the way keep the particles near the machine's law.
    assert slow > 0.9
    # One step from fair coins to strong weights does not.
    assert jumped < slow - 0.3


def test_only_the_particles_depend_on_the_random_state(rbm, X):
    first, same, other = (
        gradient_agreement(rbm, X, scales=(1,), n_particles=20, random_state=seed).cosine
        for seed in (1, 1, 2)
    )
    # A seed fixes the result.
    np.testing.assert_array_equal(first, same)
    # Expected steps have no noise.
    np.testing.assert_array_equal(first[:-1], other[:-1])
    # Simulated particles have.
    assert first[-1] != other[-1]


def test_sparse_rows_give_the_same(rbm, X):
    dense = gradient_agreement(rbm, X, scales=(1,), n_particles=20)
    # What is stored for zeros makes no difference.
    np.testing.assert_allclose(
        gradient_agreement(rbm, sparse.csr_array(X), scales=(1,), n_particles=20).cosine,
        dense.cosine,
    )


def test_the_machine_stays_as_it_was(rbm, X):
    before = {name: array.copy() for name, array in rbm.weights_.items()}
    gradient_agreement(rbm, X, scales=(2,), n_particles=1)
    for name, array in before.items():
        # Scales are of copies.
        np.testing.assert_array_equal(rbm.weights_[name], array)


@pytest.mark.parametrize(("n_visible", "n_hidden"), [(13, 2), (2, 13)])
def test_a_machine_that_is_too_large_is_refused(n_visible, n_hidden):
    X = np.eye(n_visible)
    rbm = RBM(n_hidden, visible="bernoulli", persistent=False, max_iter=1, random_state=0).fit(X)
    match = f"at most 12 units each are possible.*{n_visible} visible and {n_hidden} hidden"
    # The message says how many units are possible, and how many there are.
    with pytest.raises(ValueError, match=match):
        gradient_agreement(rbm, X)


def test_twelve_units_are_possible():
    X = np.eye(12)
    rbm = RBM(12, visible="bernoulli", persistent=False, max_iter=1, random_state=0).fit(X)
    agreement = gradient_agreement(rbm, X, n_gibbs_steps=(1,), scales=(1,), n_particles=10)
    # The limit that the message names is within it; nearly all of CD-1 is right at the start.
    assert agreement.cosine[3, 0] > 0.9


def test_gaussian_units_are_refused(X):
    rbm = RBM(3, visible="gaussian", persistent=False, max_iter=1, random_state=0).fit(X)
    # There is no list of the states of a real variable.
    with pytest.raises(ValueError, match=r"needs binary visible units.*Gaussian"):
        gradient_agreement(rbm, X)


def test_other_models_are_refused(X):
    ae = AutoEncoder(3, max_iter=1, random_state=0).fit(X)
    # Its parameters have the same names and shapes, and no probability behind them.
    with pytest.raises(ValueError, match="about an RBM, not AutoEncoder"):
        gradient_agreement(ae, X)


def test_data_outside_of_the_domain_are_refused(rbm, X):
    # Values that are no probabilities have no gradient to agree with.
    with pytest.raises(ValueError, match="needs values in"):
        gradient_agreement(rbm, X + 1)


@pytest.mark.parametrize(
    ("parameters", "match"),
    [
        ({"n_gibbs_steps": (1, 0)}, "n_gibbs_steps=0 must be an integer of at least 1"),
        ({"n_gibbs_steps": ()}, "n_gibbs_steps=None must be"),
        ({"n_particles": 0}, "n_particles=0 must be"),
        ({"scales": (1, 0.5)}, "increasing order"),
        ({"scales": (0, 1)}, "must be positive"),
        ({"scales": ()}, "must be positive"),
        ({"scales": (1, np.nan)}, "must be positive"),
        ({"growth": 0}, "growth=0 must be positive"),
    ],
)
def test_arguments_out_of_range_are_named(rbm, X, parameters, match):
    # The message names the argument, its value and what is possible.
    with pytest.raises(ValueError, match=match):
        gradient_agreement(rbm, X, **parameters)
