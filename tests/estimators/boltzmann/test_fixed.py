"""Samples of Boltzmann machines given some of the columns."""

import itertools

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skae import RBM, DeepBoltzmannMachine, DenoisingAutoEncoder

SETTINGS = {"random_state": 0, "device": "cpu"}
VISIBLE = [("bernoulli", [0, 1, 2]), ("multinomial", [3, 4, 5])]


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(300, 1))
    group = np.digitize(z[:, 0] + 0.3 * rng.normal(size=300), [-0.5, 0.5])
    return np.c_[(z + rng.normal(size=(300, 3)) > 0), np.eye(3)[group]]


@pytest.fixture(scope="module")
def machines(rows):
    settings = {**SETTINGS, "max_iter": 30, "learning_rate": 0.2, "visible": VISIBLE}
    rbm = RBM(4, persistent=True, n_checkpoints=4, **settings).fit(rows)
    return rbm, DeepBoltzmannMachine((4, 3), pretraining=None, **settings).fit(rows)


def conditional(model, is_given, values):
    """All rows with the given values, and how likely each is among them, by its energies."""
    every = np.array([
        [*bits, *group] for bits in itertools.product([0.0, 1.0], repeat=3) for group in np.eye(3)
    ])  # fmt: skip
    every = every[(every[:, is_given] == values).all(axis=1)]
    weights = model.weights_

    def softplus(a):
        return np.logaddexp(0, a)

    hidden = every @ weights["weight_0"].T + weights["hidden_bias_0"]
    visible = every @ weights["visible_bias_0"]
    if "weight_1" not in weights:
        log_p = visible + softplus(hidden).sum(axis=1)
    else:
        states = np.array(list(itertools.product([0.0, 1.0], repeat=3)))
        heard = hidden[:, None] + states @ weights["weight_1"]
        log_p = np.logaddexp.reduce(
            softplus(heard).sum(axis=2) + states @ weights["hidden_bias_1"], axis=1
        ) + visible  # fmt: skip
    p = np.exp(log_p - log_p.max())
    return every, p / p.sum()


@pytest.mark.parametrize(
    ("number", "columns", "settings"),
    [
        (0, [0, 2], {}),
        (0, [3, 4, 5], {"n_temperatures": 3}),
        (0, [1, 3, 4, 5], {"method": "trajectory", "n_temperatures": 3}),
        (1, [0, 2], {"n_temperatures": 3}),
        (1, [1, 3, 4, 5], {}),
    ],
)
def test_samples_have_the_conditional_law(machines, number, columns, settings):
    model = machines[number]
    values = np.array([1.0, 0.0]) if columns == [0, 2] else np.array([1, 0, 1, 0][-len(columns) :])
    n, fixed = 2000, np.full(6, np.nan)
    fixed[columns] = values
    samples = model.sample(n, n_chains=n, burn_in=15, fixed=fixed, **settings)
    assert np.all(samples[:, columns] == values)
    every, p = conditional(model, columns, values)
    found = (samples[:, None] == every).all(axis=2).mean(axis=0)
    # As often as by enumeration of what is left, within errors of so many draws; what the columns
    # are without the others would differ.
    assert np.all(np.abs(found - p) < 4.5 * np.sqrt(p * (1 - p) / n) + 1e-3)
    free = model.sample(n, n_chains=n, burn_in=15, **settings)
    marginal = (free[:, None] == every).all(axis=2).sum(axis=0) + 1e-9
    assert np.abs(marginal / marginal.sum() - p).max() < 0.1


def test_each_chain_may_have_its_own(machines):
    rbm, _ = machines
    fixed = np.full((3, 6), np.nan)
    fixed[0, 0], fixed[1, 3:], fixed[2, :2] = 1, [0, 0, 1], [0, 1]
    samples = rbm.sample(12, fixed=fixed, burn_in=5, n_temperatures=2, n_chains=3)
    for row, sample in zip(np.tile(fixed, (4, 1)), samples, strict=True):
        given = ~np.isnan(row)
        assert_array_equal(sample[given], row[given])
    # One chain, and more chains than were asked for.
    assert (rbm.sample(5, fixed={0: 1.0}, n_chains=1, burn_in=2)[:, 0] == 1).all()
    assert rbm.sample(3, fixed=fixed, n_chains=1, burn_in=2)[1, 5] == 1
    # The machine is as it was.
    assert len(np.unique(rbm.sample(100, burn_in=30)[:, 0])) == 2


def test_frames_are_fixed_by_names(rows):
    frame = pd.DataFrame({"x": rows[:, 0] * 3 + np.arange(300) / 300, "c": np.array([*"abc"])[
        rows[:, 3:].argmax(axis=1)]})  # fmt: skip
    model = RBM(4, max_iter=20, **SETTINGS).fit(frame)
    samples = model.sample(200, fixed={"c": "b"}, burn_in=10)
    assert set(samples["c"]) == {"b"}
    assert samples["x"].nunique() > 100
    samples = model.sample(200, fixed={"x": 1.5}, burn_in=10)
    assert_allclose(samples["x"].astype(float), 1.5, rtol=1e-6)
    with pytest.raises(ValueError, match="not seen in fit"):
        model.sample(fixed={"c": "z"})


@pytest.mark.parametrize("kind", [RBM, DenoisingAutoEncoder])
def test_what_is_fixed_comes_back_to_the_last_digit(kind):
    """Also a category that the model sees as one of the infrequent ones, and no other."""
    rng = np.random.default_rng(0)
    kinds = rng.choice(["a"] * 40 + ["b"] * 20 + ["rare", "seldom", "once"], 200)
    frame = pd.DataFrame({"x": rng.normal(size=200).round(2), "k": kinds, "y": rng.random(200)})
    noise = {} if kind is RBM else {"corruption": "gaussian"}
    model = kind(4, max_iter=1, min_frequency=0.1, **noise, **SETTINGS).fit(frame)
    assert len(model.encoding_.variables[1].pooled) == 3
    given = frame.iloc[[0, *(np.flatnonzero(kinds == one)[0] for one in ("once", "rare"))]]
    given = given.assign(y=np.nan)
    given.iloc[0, 1] = None
    samples = model.sample(7, fixed=given, n_chains=5, burn_in=1)
    # In turn for the chains, of which the sixth sample is the first one's again.
    expected = given.iloc[[0, 1, 2, 0, 1, 0, 1]].reset_index(drop=True)
    assert_array_equal(samples["x"], expected["x"])
    assert_array_equal(samples["k"][expected["k"].notna()], expected["k"].dropna())
    assert set(model.sample(3, fixed={"k": "once"}, burn_in=1)["k"]) == {"once"}
    # Columns that have numbers for names are known by these, and not by their places.
    numbers = frame[["x", "y"]].set_axis([1, 0], axis=1)
    model = kind(4, max_iter=1, **noise, **SETTINGS).fit(numbers)
    assert (model.sample(3, fixed={0: numbers[0][5]}, burn_in=1)[0] == numbers[0][5]).all()


@pytest.mark.parametrize(
    ("fixed", "message"),
    [
        ({9: 1.0}, "fixed names the column 9"),
        ({3: 1.0}, "one category: fix all of them or none"),
        (np.full(6, np.nan), "fixed has no value"),
        ([0, 0, 1, 0, 0, 1], "nothing is left to draw"),
        ({0: 2.0}, "column 0"),
        ({0: 0.5}, "fixed has 0.5 in column 0, which is one of 0, 1 in the training rows"),
        (np.zeros((4, 6)), "fixed has 4 rows, more than n_samples=3|sum to"),
    ],
)
def test_what_cannot_be_fixed_is_refused(machines, fixed, message):
    for model in machines:
        with pytest.raises(ValueError, match=message):
            model.sample(3, fixed=fixed)


@pytest.mark.filterwarnings("ignore:.*chains never left the states")
@pytest.mark.parametrize("kind", [RBM, DeepBoltzmannMachine])
def test_classes_are_recalled_and_drawn(kind, digits):
    X, y = digits
    X = np.c_[X > 0.45, np.eye(10)[y]]
    parts = [("bernoulli", np.arange(64)), ("multinomial", np.arange(64, 74))]
    deep = {"mean_field_steps": 5, "n_gibbs_steps": 1} if kind is DeepBoltzmannMachine else {}
    size = (60, 20) if deep else 60
    model = kind(size, visible=parts, max_iter=15, learning_rate=0.1, **deep, **SETTINGS)
    model.fit(X[:800] if deep else X[:1500])
    gap = np.where(np.arange(74) < 64, X[1500:], np.nan)
    n = 10 * len(gap)
    # The class of an image that was not seen: the most frequent of ten draws given its pixels.
    drawn = model.sample(n, fixed=gap, n_chains=len(gap), burn_in=20, n_steps=2)[:, 64:]
    recalled = drawn.reshape(10, len(gap), 10).sum(axis=0).argmax(axis=1)
    assert np.mean(recalled == y[1500:]) > 0.6
    # And images of a class: of ten means of classes, that of their own is the nearest one, mostly.
    images = model.sample(300, fixed=np.c_[np.full((10, 64), np.nan), np.eye(10)], burn_in=100)
    means = np.array([X[y == c, :64].mean(axis=0) for c in range(10)])
    distances = ((images[:, None, :64] - means) ** 2).sum(axis=2)
    assert np.mean(distances.argmin(axis=1) == images[:, 64:].argmax(axis=1)) > 0.35
