"""Ensembles of draws: posteriors in closed form, averages, decisions, diagnostics, bad input."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
from scipy import special
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.exceptions import ConvergenceWarning

from skae import (
    RBM,
    AutoEncoder,
    DenoisingAutoEncoder,
    ManifoldTangentClassifier,
    PosteriorEnsemble,
    SparseCoder,
    StackedAutoEncoder,
    StackedClassifier,
    StackedRegressor,
)

SHORT = {"n_members": 20, "n_chains": 1, "burn_in": 20, "thinning": 2, "n_steps": 5}
# Of a whole network, which has many more parameters: fewer steps would be worth too few draws.
LONGER = SHORT | {"burn_in": 40, "n_steps": 20}
OUTPUT = {"layer": "auto", "output": "linear", "n_fine_tuned_layers": 0, "max_iter": 3}


def classes(n_rows=60, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_rows, 4))
    return X, (X[:, 0] + X[:, 1] + 0.5 * rng.normal(size=n_rows) > 0).astype(int)


@pytest.fixture(scope="module")
def fitted():
    X, y = classes()
    model = StackedClassifier((3,), **OUTPUT, random_state=0)
    return PosteriorEnsemble(model, **SHORT, random_state=0).fit(X, np.array(["no", "yes"])[y])


def test_regression_has_the_posterior_of_ridge():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(50, 4))
    y = 3 * X[:, 0] + rng.normal(size=50) + 10
    model = StackedRegressor((3,), **OUTPUT, output_penalty=2.0, random_state=0)
    options = {"n_members": 200, "n_chains": 2, "burn_in": 30, "thinning": 1, "n_steps": 8}
    ensemble = PosteriorEnsemble(model, **options, random_state=0).fit(X, y)
    assert is_regressor(ensemble)
    # On codes, with the variance of y as that of errors: N(A^-1 Z^T t, A^-1) of standardised t.
    codes = ensemble.estimator_.stack_.transform(X)
    z = np.column_stack([codes, np.ones(50)])
    precision = z.T @ z + np.diag([2.0] * 3 + [0.0])
    t = (y - y.mean()) / y.std()
    expected = z @ np.linalg.solve(precision, z.T @ t) * y.std() + y.mean()
    variance = np.einsum("ij,ji->i", z, np.linalg.solve(precision, z.T)) * y.var()
    draws = np.array([member.predict(X) for member in ensemble.estimators_])
    n = min(ensemble.effective_size_, 200)
    assert n > 75
    error = np.sqrt(variance / n)
    assert (np.abs(ensemble.predict(X) - expected) < 6 * error).all()
    assert (np.abs(draws.var(axis=0) / variance - 1) < 6 * np.sqrt(2 / n)).all()
    assert np.allclose(ensemble.predict(X), draws.mean(axis=0))


def test_weights_are_repetitions():
    X, y = classes(30)
    weight = np.arange(30) % 3
    model = StackedClassifier((3,), **OUTPUT | {"max_iter": 1}, batch_size=1000, random_state=0)
    ensemble = PosteriorEnsemble(model, **SHORT, random_state=0)
    weighted = clone(ensemble).fit(X, y, sample_weight=weight)
    repeated = clone(ensemble).fit(np.repeat(X, weight, axis=0), np.repeat(y, weight))
    # The energy is the same sum, and so are all draws.
    assert np.allclose(weighted.predict_proba(X), repeated.predict_proba(X), atol=1e-4)


def test_probabilities_are_averages_and_decisions_the_cheapest(fitted):
    X, _ = classes()
    assert is_classifier(fitted)
    assert fitted.classes_.tolist() == ["no", "yes"]
    found = fitted.predict_proba(X)
    mean = np.mean([member.predict_proba(X) for member in fitted.estimators_], axis=0)
    assert np.allclose(found, mean)
    assert np.allclose(fitted.predict_log_proba(X), np.log(mean))
    assert (fitted.predict(X) == fitted.classes_[mean.argmax(axis=1)]).all()
    assert fitted.score(X, fitted.predict(X)) == 1.0
    costly = clone(fitted).set_params(cost_matrix=[[0, 1], [20, 0]])
    costly = costly.fit(X, np.array(["no", "yes"])[classes()[1]])
    # To miss a "yes" costs 20 times what a false one does.
    assert (costly.predict(X) == np.where(20 * mean[:, 1] > mean[:, 0], "yes", "no")).all()
    assert (costly.predict(X) != fitted.predict(X)).any()


def test_draws_are_the_same_for_a_seed_on_one_and_two_threads(fitted, set_threads):
    X, y = classes()
    expected = [member.output_weights_ for member in fitted.estimators_]
    # They are not all alike.
    assert np.std(expected, axis=0).min() > 0.05
    for number in (1, 2):
        set_threads(number)
        again = clone(fitted).fit(X, np.array(["no", "yes"])[y])
        for one, other in zip(expected, again.estimators_, strict=True):
            assert np.array_equal(one, other.output_weights_)
    loaded = pickle.loads(pickle.dumps(fitted))
    assert np.array_equal(loaded.predict_proba(X), fitted.predict_proba(X))


def test_densities_are_averages_for_auto_encoders():
    X, _ = classes(40)
    model = AutoEncoder(2, activation="tanh", weight_decay=0.1, max_iter=20)
    ensemble = PosteriorEnsemble(model, **LONGER, random_state=0).fit(X)
    assert ensemble.method_ == "hmc"
    scores = [member.score_samples(X) for member in ensemble.estimators_]
    expected = special.logsumexp(scores, axis=0) - np.log(20)
    assert np.allclose(ensemble.score_samples(X), expected)
    assert not hasattr(ensemble, "predict")
    assert not hasattr(ensemble, "predict_proba")


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_whole_stacks_and_noisy_criteria_are_drawn():
    X, y = classes()
    moves = SHORT | {"n_members": 10, "burn_in": 5}
    stack = StackedAutoEncoder((3, 2), layer="auto", fine_tuning=True, max_iter=2)
    ensemble = PosteriorEnsemble(stack, **moves, random_state=0).fit(X)
    assert ensemble.method_ == "hmc"
    # All layers move.
    first, last = (ensemble.estimators_[k].weights_ for k in (0, -1))
    assert all(np.abs(first[name] - last[name]).max() > 1e-3 for name in first)
    tangents = ManifoldTangentClassifier(
        (4,), layer=AutoEncoder(max_iter=2), n_tangents=1, output="linear", max_iter=2
    )
    for model in (tangents, DenoisingAutoEncoder(2, max_iter=3)):
        ensemble = PosteriorEnsemble(model, **moves, random_state=0).fit(X, y)
        assert ensemble.method_ == "sgld"
        assert np.isnan(ensemble.acceptance_)
    again = clone(ensemble).fit(X, y)
    assert np.array_equal(again.score_samples(X), ensemble.score_samples(X))


def test_frames_with_categories_and_gaps():
    X, y = classes()
    frame = pd.DataFrame(X, columns=list("abcd")).assign(
        town=np.where(X[:, 2] > 0, "Ulm", "Jena"), a=np.where(X[:, 3] > 1, np.nan, X[:, 0])
    )
    model = StackedClassifier((3,), **OUTPUT)
    ensemble = PosteriorEnsemble(model, **SHORT, random_state=0).fit(frame, y)
    assert ensemble.feature_names_in_.tolist() == list(frame.columns)
    assert ensemble.predict_proba(frame).shape == (60, 2)


class Sampling(AutoEncoder):
    """An auto-encoder with samples that tell which parameters they are of."""

    def sample(self, n_samples=1, *, random_state=None):
        """Rows of the first weight."""
        return np.full((n_samples, 4), self.weights_["weight_0"].flat[0])


def test_samples_are_of_all_members():
    X, _ = classes(40)
    model = Sampling(2, activation="tanh", weight_decay=0.1, max_iter=20)
    ensemble = PosteriorEnsemble(model, **LONGER, random_state=0).fit(X)
    of_members = {member.weights_["weight_0"].flat[0] for member in ensemble.estimators_}
    found = ensemble.sample(50, random_state=0)
    assert found.shape == (50, 4)
    _, counts = np.unique(found[:, 0], return_counts=True)
    assert set(found[:, 0]) == of_members
    assert set(counts) <= {50 // len(of_members) + k for k in range(-2, 4)}
    assert len(np.unique(ensemble.sample(5, random_state=0)[:, 0])) <= 5
    with pytest.raises(ValueError, match="n_samples"):
        ensemble.sample(0)


def test_what_chains_are_worth_is_told():
    X, y = classes()
    model = StackedClassifier((3,), **OUTPUT, random_state=0)
    few = {"n_members": 4, "n_chains": 1, "thinning": 1, "burn_in": 20}
    with pytest.warns(ConvergenceWarning, match="independent ones, too few"):
        PosteriorEnsemble(model, **few, random_state=0).fit(X, y)
    with pytest.warns(ConvergenceWarning, match="smaller step_size"):
        PosteriorEnsemble(model, **SHORT, step_size=50.0, random_state=0).fit(X, y)
    with pytest.warns(ConvergenceWarning, match="larger step_size"):
        PosteriorEnsemble(model, **SHORT, step_size=1e-5, random_state=0).fit(X, y)
    options = SHORT | {"n_members": 60, "n_chains": 2, "thinning": 2}
    good = PosteriorEnsemble(model, **options, random_state=0).fit(X, y)
    assert 0.9 < good.r_hat_ < 1.1
    assert good.effective_size_ > 10
    assert good.step_size_.shape == (2,)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (RBM(3, max_iter=2), "do not descend on a sum over rows"),
        (SparseCoder(3, max_iter=2), "constraint after every step|do not descend"),
        (StackedAutoEncoder((3,), max_iter=2), "fine_tuning=True"),
        (StackedClassifier((3,), output="kernel", max_iter=2), "output='linear'"),
    ],
    ids=lambda of: type(of).__name__ if not isinstance(of, str) else "",
)
@pytest.mark.filterwarnings("ignore::skae.CollapsedCodeWarning")
def test_models_without_an_energy_are_refused(model, message):
    X, y = classes()
    ensemble = PosteriorEnsemble(model, **SHORT, random_state=0)
    with pytest.raises(ValueError, match=message):
        ensemble.fit(X, y)
    # As it was before.
    assert not hasattr(ensemble, "estimator_")


def test_bad_input_is_refused():
    X, y = classes()
    model = StackedClassifier((3,), **OUTPUT, random_state=0)
    noisy = StackedClassifier((3,), layer="auto", output="linear", dropout=0.5, max_iter=2)
    with pytest.raises(ValueError, match="noise of its own"):
        PosteriorEnsemble(noisy, **SHORT, method="hmc", random_state=0).fit(X, y)
    for costs in ([[0, 1]], [[0, np.nan], [1, 0]]):
        with pytest.raises(ValueError, match=r"cost_matrix of shape .* shape \(2, 2\)"):
            PosteriorEnsemble(model, **SHORT, cost_matrix=costs, random_state=0).fit(X, y)
    with pytest.raises(ValueError, match="classes of one output"):
        PosteriorEnsemble(AutoEncoder(2, max_iter=2), cost_matrix=[[0]], random_state=0).fit(X)
    with pytest.raises(ValueError, match="temperature"):
        PosteriorEnsemble(model, temperature=0.0).fit(X, y)
    with pytest.raises(ValueError, match="requires y"):
        PosteriorEnsemble(model, **SHORT).fit(X)


def test_methods_are_those_of_the_model_that_was_trained(fitted):
    ensemble = copy.deepcopy(fitted)
    ensemble.estimator = AutoEncoder(2)  # for another fit
    assert not hasattr(ensemble, "score_samples")
    assert hasattr(ensemble, "predict_proba")
    assert hasattr(clone(ensemble), "score_samples")
