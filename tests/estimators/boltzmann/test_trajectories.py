"""Checkpoints of a training, and likelihoods by annealing, as users ask for them."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError

import skae
from skae import RBM, DeepBoltzmannMachine
from skae.engine.boltzmann.energies import binary_states
from skae.estimators.boltzmann.machines import machine_of

SETTINGS = {"max_iter": 15, "random_state": 0, "device": "cpu", "n_checkpoints": 6}


def mixed_rows(n=300):
    rng = np.random.default_rng(0)
    z = rng.normal(size=n)
    group = np.where(z > 0.3, 2, np.where(z < -0.5, 0, 1))
    return np.c_[20 + 5 * z, z > rng.normal(size=n), np.eye(3)[group]]


VISIBLE = [("gaussian", [0]), ("bernoulli", [1]), ("multinomial", [2, 3, 4])]


@pytest.fixture(scope="module")
def rows():
    return mixed_rows()


@pytest.fixture(scope="module")
def machines(rows):
    rbm = RBM(6, visible=VISIBLE, persistent=True, **SETTINGS).fit(rows)
    deep = DeepBoltzmannMachine((5, 4), visible=VISIBLE, pretraining=None, **SETTINGS)
    return rbm, deep.fit(rows)


def log_likelihood(model, X):
    """log p(x) of rows, by all states of the other even layers."""
    machine = machine_of(model)
    scaled = torch.tensor((X - model.columns_.shift) / model.columns_.scale)
    n_others = machine.n_visible - X.shape[1]
    states = torch.cat(list(binary_states(n_others, scaled))) if n_others else scaled[:1, :0]
    energies = [
        machine.free_energy(torch.cat([scaled, state.expand(len(X), -1)], 1)) for state in states
    ]
    total = torch.logsumexp(-torch.stack(energies), 0).numpy()
    return total - model.log_partition_function().value


def test_trajectory_is_kept_if_asked_for(machines, rows):
    for model in machines:
        n_parameters = sum(array.size for array in model.weights_.values())
        assert 3 <= len(model.trajectory_) <= 6
        assert model.trajectory_.shape[1] == n_parameters
        # It goes from the start to what was learned: nearer with each checkpoint, nearly.
        flat = np.concatenate([array.ravel() for array in model.weights_.values()])
        distance = np.linalg.norm(model.trajectory_ - flat, axis=1)
        assert distance[-1] < 0.5 * distance[0]
        without = clone(model).set_params(n_checkpoints=0).fit(rows)
        # Keeping it changes nothing else, and a fit that keeps none forgets an earlier one's.
        for name, array in model.weights_.items():
            assert_array_equal(array, without.weights_[name])
        assert without.trajectory_.size == 0
    again = clone(machines[0]).fit(rows)
    again.set_params(n_checkpoints=0).fit(rows)
    assert again.trajectory_.size == 0


def test_partial_fits_and_files_go_on_with_it(rows, tmp_path):
    model = RBM(6, visible=VISIBLE, **SETTINGS)
    kept = []
    for _ in range(12):
        model.partial_fit(rows)
        kept.append(len(model.trajectory_))
        skae.save(model, tmp_path / "machine.skae")
        model = skae.load(tmp_path / "machine.skae")
    # More and more, and thinned where they would be too many.
    assert kept[-1] >= 3
    assert max(kept) <= 6
    assert kept[0] < max(kept)


@pytest.mark.parametrize("method", ["ais", "trajectory"])
def test_log_z_is_within_its_error(machines, method):
    for model in machines:
        exact = model.log_partition_function()
        assert exact.method == "exact"
        assert exact.effective_chains is None
        found = model.log_partition_function(method, n_temperatures=200, n_chains=300)
        assert found.method == method
        # Of densities in the units of the data: a shift by the scale of the column would show.
        assert abs(found.value - exact.value) < 4.5 * found.standard_error < 0.5
        assert 50 < found.effective_chains <= 300


@pytest.mark.parametrize("method", ["ais", "trajectory"])
def test_reverse_annealing_is_near_the_likelihood(machines, rows, method):
    for model in machines:
        found = model.annealed_likelihood(rows[:40], n_temperatures=200, method=method)
        truth = log_likelihood(model, rows[:40])
        # Also of a deep machine, whose score is a bound: chains begin at draws of hidden layers.
        assert found.scores.shape == found.effective_chains.shape == (40,)
        assert abs(np.mean(found.scores - truth)) < 0.05
        assert np.abs(found.scores - truth).max() < 0.5
        assert np.all(found.effective_chains <= 10 + 1e-9)
        assert found.effective_chains.mean() > 3
    # The seed fixes them.
    again = model.annealed_likelihood(rows[:40], n_temperatures=200, method=method)
    assert_array_equal(found.scores, again.scores)


def test_frames_have_densities_of_their_own_numbers(rows):
    pd = pytest.importorskip("pandas")
    group = np.array([*"abc"])[rows[:, 2:].argmax(axis=1)]
    frame = pd.DataFrame({"x": np.exp(rows[:, 0] / 10), "c": group})
    model = RBM(5, **SETTINGS).fit(frame)
    score = model.score_samples(frame[:30], log_partition=model.log_partition_function())
    found = model.annealed_likelihood(frame[:30], n_temperatures=100)
    assert_allclose(found.scores.mean(), score.mean(), atol=0.1)


def test_a_row_beyond_all_bounds_has_the_density_0():
    X = np.random.default_rng(0).poisson(3.0, size=(30, 3)).astype(float)
    machine = RBM(3, visible="gaussian", max_iter=2, random_state=0).fit(X)
    far = np.array([[1e200, 0.0, 0.0], [3.0, 3.0, 3.0]])
    found = machine.annealed_likelihood(far, n_chains=2, n_temperatures=10, random_state=0)
    assert found.scores[0] == -np.inf
    assert found.effective_chains[0] == 0
    assert np.isfinite(found.scores[1])
    assert np.isfinite(found.effective_chains[1])
    for model in (machine, DeepBoltzmannMachine((3, 2), visible="gaussian", max_iter=2).fit(X)):
        # Parts of it are infinite with both signs.
        assert model.free_energy(1.7e308 * np.array([[-1.0, 1.0, -1.0]])) == np.inf


def test_samples_along_the_trajectory(machines, rows):
    rbm, _ = machines
    plain = rbm.sample(1000, n_chains=1000, burn_in=40)
    along = rbm.sample(1000, n_chains=1000, burn_in=15, method="trajectory")
    few = rbm.sample(1000, n_chains=1000, burn_in=25, method="trajectory", n_temperatures=3)
    for samples in (along, few):
        # The same law: means within errors of 1000 draws, in the units of the data.
        difference = samples.mean(0) - plain.mean(0)
        assert np.all(np.abs(difference) < 5 * plain.std(0) * np.sqrt(2 / 1000))
    assert set(np.unique(along[:, 1:])) == {0.0, 1.0}


@pytest.mark.parametrize("call", ["sample", "log_partition_function", "annealed_likelihood"])
def test_without_checkpoints_there_is_no_trajectory(machines, rows, call):
    model = clone(machines[0]).set_params(n_checkpoints=0, max_iter=1).fit(rows)
    arguments = (rows,) if call == "annealed_likelihood" else ()
    with pytest.raises(ValueError, match=r"kept no checkpoints.*n_checkpoints=20"):
        getattr(model, call)(*arguments, method="trajectory")
    with pytest.raises(NotFittedError):
        getattr(clone(model), call)(*arguments)


def test_training_by_tempered_chains(rows):
    settings = SETTINGS | {"tempered": True, "learning_rate": 0.1}
    rbm = RBM(6, visible=VISIBLE, persistent=True, **settings).fit(rows)
    deep = DeepBoltzmannMachine((5, 4), visible=VISIBLE, **settings).fit(rows)
    normal = -np.log(rows[:, 0].std() * np.sqrt(2 * np.pi * np.e))
    p, q = rows[:, 1].mean(), rows[:, 2:].mean(axis=0)
    alone = normal + p * np.log(p) + (1 - p) * np.log(1 - p) + (q * np.log(q)).sum()
    for model in (rbm, deep):
        # It learns: better than independent columns, by a margin.
        assert log_likelihood(model, rows).mean() > alone + 0.15
    parts = RBM(6, visible=VISIBLE, persistent=True, tempered=True, **SETTINGS)
    for _ in range(6):
        parts.partial_fit(rows)
    assert parts._training_state["objective"]["companions"].shape[1] == len(parts.trajectory_)


@pytest.mark.parametrize(
    ("parameters", "lacking"),
    [({"n_checkpoints": 0, "persistent": True}, "n_checkpoints=10"), ({}, "persistent=True")],
)
def test_tempering_needs_chains_and_checkpoints(rows, parameters, lacking):
    with pytest.raises(ValueError, match=f"tempered=True .*needs {lacking}"):
        RBM(4, tempered=True, **{**SETTINGS, **parameters}).fit(rows)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_chains": 0}, "n_chains=0"),
        ({"n_temperatures": 3}, "n_temperatures=3"),
        ({"method": "exact"}, "method='exact' must be one of 'ais', 'trajectory'"),
    ],
)
def test_what_cannot_be_annealed_is_refused(machines, rows, arguments, message):
    with pytest.raises(ValueError, match=message):
        machines[0].annealed_likelihood(rows, **arguments)


def test_estimates_of_few_chains_are_reported():
    rng = np.random.default_rng(0)
    X = (rng.random((200, 30)) < np.where(rng.random((200, 1)) < 0.5, 0.9, 0.1)).astype(float)
    model = RBM(25, **{**SETTINGS, "learning_rate": 1.0, "max_iter": 40}).fit(X)
    with pytest.warns(ConvergenceWarning, match=r"rests on .* of 50 chains"):
        found = model.log_partition_function("trajectory", n_temperatures=4, n_chains=50)
    assert found.effective_chains < 5
