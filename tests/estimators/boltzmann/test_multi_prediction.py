"""Deep Boltzmann machines that learn to fill in, and what all do with gaps."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import load_digits

import skae
from skae import DeepBoltzmannMachine, StackedClassifier

QUICK = {
    "criterion": "multi_prediction", "pretraining": None, "mean_field_steps": 5, "batch_size": 50,
    "learning_rate": 0.2, "max_iter": 3, "random_state": 0, "device": "cpu",
}  # fmt: skip
PARTS = [("bernoulli", np.arange(64)), ("multinomial", np.arange(64, 74))]


@pytest.fixture(scope="module")
def digits():
    """Black and white digits with their classes as ten more columns."""
    images, labels = load_digits(return_X_y=True)
    rows = np.column_stack([images > 7, np.eye(10)[labels]]).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(rows))
    return rows[order], labels[order]


@pytest.fixture(scope="module")
def trained(digits):
    rows, _ = digits
    return DeepBoltzmannMachine((48, 24), visible=PARTS, **{**QUICK, "max_iter": 20}).fit(
        rows[:1200]
    )


def halved(rows, seed=0):
    """Rows without their class and without half the pixels, and where these are missing."""
    rows, gaps = rows.copy(), np.zeros(rows.shape, dtype=bool)
    gaps[:, :64] = np.random.default_rng(seed).random((len(rows), 64)) < 0.5
    rows[gaps], rows[:, 64:] = np.nan, np.nan
    return rows, gaps


# What it is for


@pytest.mark.parametrize("seed", range(3))
def test_it_fills_gaps_and_tells_classes_with_half_the_pixels(digits, seed):
    rows, labels = digits
    train, test = rows[:1200], rows[1200:]
    settings = {**QUICK, "max_iter": 20, "random_state": seed}
    model = DeepBoltzmannMachine((48, 24), visible=PARTS, **settings).fit(train)
    gappy, gaps = halved(test, seed)
    means = model.denoise(gappy)
    error = np.square(means - test)[gaps].mean()
    of_mean = np.square(np.broadcast_to(train.mean(0), test.shape) - test)[gaps].mean()
    assert error < 0.75 * of_mean
    # One class in ten by chance; it was never told which columns would be missing.
    assert_allclose(means[:, 64:].sum(1), 1, rtol=1e-5)
    assert np.mean(means[:, 64:].argmax(1) == labels[1200:]) > 0.65
    whole = test.copy()
    whole[:, 64:] = np.nan
    assert np.mean(model.denoise(whole)[:, 64:].argmax(1) == labels[1200:]) > 0.8


def test_it_learns_from_rows_with_gaps(digits):
    rows, labels = digits
    train, random = rows[:1200].copy(), np.random.default_rng(0)
    train[:, :64][random.random((1200, 64)) < 0.2] = np.nan
    train[300:, 64:] = np.nan  # one row in four has a class
    model = DeepBoltzmannMachine((48, 24), visible=PARTS, **{**QUICK, "max_iter": 30}).fit(train)
    gappy, gaps = halved(rows[1200:])
    means = model.denoise(gappy)
    of_mean = np.square(np.nanmean(train, 0) - rows[1200:])[gaps].mean()
    assert np.square(means - rows[1200:])[gaps].mean() < 0.8 * of_mean
    assert np.mean(means[:, 64:].argmax(1) == labels[1200:]) > 0.5
    assert model.loss_curve_[-1] < model.loss_curve_[0]
    # Nothing that was not observed has a say: only that it was not.
    assert np.isfinite(model.weights_["weight_0"]).all()
    assert not np.isnan(model.columns_.mean).any()


def test_machines_of_the_likelihood_take_gaps_as_well(digits):
    rows, labels = digits
    settings = {**QUICK, "criterion": "likelihood", "max_iter": 15, "n_gibbs_steps": 1}
    model = DeepBoltzmannMachine((48, 24), visible=PARTS, **settings).fit(rows[:1200])
    gappy, _ = halved(rows[1200:])
    with pytest.raises(ValueError, match="NaN"):
        model.denoise(gappy)
    means = model.set_params(criterion="multi_prediction").denoise(gappy)
    assert np.mean(means[:, 64:].argmax(1) == labels[1200:]) > 0.4


# What it says of rows with gaps


def test_gaps_are_in_the_mean_field(trained, digits):
    model = clone(trained).set_params(mean_field_steps=1000, mean_field_tol=1e-7)
    vars(model).update({n: v for n, v in vars(trained).items() if n[-1] == "_"})
    x, gaps = halved(digits[0][1200:1230])
    gaps[:, 64:] = True
    weights = {name: array.astype(float) for name, array in model.weights_.items()}

    def sigmoid(a):
        return 1 / (1 + np.exp(-a))

    v = np.where(gaps, model.columns_.mean, x)
    top = np.full((30, 24), 0.5)
    for _ in range(3000):
        below = sigmoid(
            v @ weights["weight_0"].T + weights["hidden_bias_0"] + top @ weights["weight_1"]
        )
        top = sigmoid(below @ weights["weight_1"].T + weights["hidden_bias_1"])
        a = below @ weights["weight_0"] + weights["visible_bias_0"]
        classes = np.exp(a[:, 64:] - a[:, 64:].max(1, keepdims=True))
        mean = np.column_stack([sigmoid(a[:, :64]), classes / classes.sum(1, keepdims=True)])
        v = np.where(gaps, mean, x)
    # Sweeps may end at another fixed point, of the few rows that have several.
    for found, expected in ((model.denoise(x), mean), (model.transform(x), top)):
        assert np.median(abs(found - expected).max(1)) < 1e-3
        assert np.mean(abs(found - expected).max(1) < 5e-3) > 0.8


def test_scores_are_of_what_is_observed(trained, digits):
    rows = digits[0][1200:1260]
    log_z = trained.log_partition_function("ais", n_temperatures=300, n_chains=50)
    whole = trained.score_samples(rows, log_partition=log_z)
    gappy, _ = halved(rows)
    some = trained.score_samples(gappy, log_partition=log_z)
    # Less is asked: more probable. And a row's score is its own, whatever stands beside it.
    assert np.all(some > whole)
    both = np.concatenate([rows, gappy])
    assert_allclose(trained.score_samples(both, log_partition=log_z), np.r_[whole, some], rtol=1e-4)
    # Of nothing at all: the whole of the law, of which Q is a part.
    nothing = trained.score_samples(np.full((1, 74), np.nan), log_partition=log_z)
    assert nothing[0] < 3 * log_z.standard_error
    assert np.isfinite(trained.reconstruct(gappy)).all()


def test_a_class_in_a_frame_comes_back():
    rng = np.random.default_rng(0)
    z = rng.normal(size=500)
    frame = pd.DataFrame({
        "length": 10 + 2 * z + rng.normal(size=500),
        "weight": 5 - z + 0.5 * rng.normal(size=500),
        "kind": np.where(z > 0, "oak", "elm"),
    })  # fmt: skip
    settings = {**QUICK, "max_iter": 40, "learning_rate": 0.05}
    model = DeepBoltzmannMachine((8, 4), **settings).fit(frame)
    asked = frame.assign(kind=None)
    asked.loc[::3, "weight"] = np.nan
    filled = model.denoise(asked)
    assert list(filled.columns) == list(frame.columns)
    assert np.mean(filled["kind"] == frame["kind"]) > 0.8
    hidden = asked["weight"].isna()
    error = np.square(filled["weight"] - frame["weight"])[hidden].mean()
    assert error < 0.8 * frame["weight"].var()


def test_it_is_fine_tuned_on_rows_with_gaps(trained, digits):
    rows, labels = digits
    model = clone(trained).set_params(visible="auto", **QUICK).fit(rows[:600, :64])
    gappy, _ = halved(rows)
    net = StackedClassifier(
        layers=[model], pretraining="prefit", output="linear", max_iter=8, random_state=0
    ).fit(gappy[:900, :64], labels[:900])
    assert net.score(gappy[900:, :64], labels[900:]) > 0.5


# As any other training


def test_same_fits_have_same_weights_and_survive_files(trained, digits, tmp_path):
    rows, _ = digits
    again = clone(trained).fit(rows[:1200])
    for name, array in trained.weights_.items():
        assert_array_equal(again.weights_[name], array)
    skae.save(trained, tmp_path / "machine.skae")
    loaded = skae.load(tmp_path / "machine.skae")
    gappy, _ = halved(rows[1200:1300])
    assert_array_equal(loaded.denoise(gappy), trained.denoise(gappy))
    assert loaded.get_params()["criterion"] == "multi_prediction"


def test_training_goes_on(digits, tmp_path):
    rows, _ = digits
    settings = {**QUICK, "max_iter": 2}
    model = DeepBoltzmannMachine((12, 8), visible=PARTS, warm_start=True, **settings)
    losses = [model.fit(rows[:300]).loss_curve_[-1] for _ in range(3)]
    assert losses[2] < losses[0]
    part = DeepBoltzmannMachine((12, 8), visible=PARTS, n_checkpoints=4, **settings)
    for _ in range(6):
        part.partial_fit(rows[:300])
        skae.save(part, tmp_path / "part.skae")
        part = skae.load(tmp_path / "part.skae")
    assert part.loss_curve_[-1] < part.loss_curve_[0]
    assert len(part.trajectory_) >= 2


def test_pretraining_and_penalties_count(digits):
    rows = digits[0][:400]
    afresh = DeepBoltzmannMachine((16, 12), visible=PARTS, **QUICK).fit(rows)
    begun = clone(afresh).set_params(pretraining="unsupervised").fit(rows)
    assert begun.loss_curve_[0] < afresh.loss_curve_[0]
    decayed = clone(afresh).set_params(weight_decay=0.1).fit(rows)
    assert (
        np.square(decayed.weights_["weight_0"]).sum()
        < 0.7 * np.square(afresh.weights_["weight_0"]).sum()
    )
    sparse = clone(afresh).set_params(sparsity=2.0).fit(rows)
    assert sparse.transform(rows).mean() < 0.7 * afresh.transform(rows).mean()


# Bad input


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"criterion": "nonsense"}, "criterion"),
        ({"corruption_level": 0.0}, "corruption_level"),
        ({"corruption_level": (0, 0)}, r"corruption_level=\(0, 0\) hides nothing.*0\.5"),
        ({"corruption_level": (0.5, 0.1)}, r"has to be \(low, high\)"),
        ({"corruption_level": (0.5, 1.1)}, "at most 1"),
        ({"tempered": True, "n_checkpoints": 4}, "tempered=True is of the chains.*tempered=False"),
        ({"pretraining": "unsupervised"}, r"gaps.*pretraining=None"),
        ({"criterion": "likelihood"}, "NaN in row 2, column 5"),
    ],
)
def test_what_cannot_be_learned_is_refused(digits, parameters, message):
    rows = digits[0][:50].copy()
    rows[2, 5] = np.nan
    model = DeepBoltzmannMachine((4, 3), visible=PARTS, **{**QUICK, **parameters})
    with pytest.raises(ValueError, match=message):
        model.fit(rows)
    assert not hasattr(model, "weights_")


def test_what_needs_whole_rows_says_so(trained, digits):
    gappy, _ = halved(digits[0][:3])
    with pytest.raises(ValueError, match=r"gibbs starts at whole rows.*fixed"):
        trained.gibbs(gappy)
    with pytest.raises(ValueError, match="chains start at whole rows"):
        trained.sample(3, init=gappy)
    with pytest.raises(ValueError, match=r"annealing is of whole rows.*score_samples"):
        trained.annealed_likelihood(gappy)
    # What they are for: some columns given, the others drawn.
    drawn = trained.sample(3, fixed=gappy, burn_in=5)
    observed = ~np.isnan(gappy)
    assert_array_equal(drawn[observed], gappy[observed])


def test_a_part_of_a_category_is_no_gap(trained, digits):
    rows = digits[0][:20].copy()
    rows[7, 64:70] = np.nan
    with pytest.raises(ValueError, match=r"in row 7 the group of columns.*sums to"):
        trained.denoise(rows)
    rows[7, 64:] = 0
    with pytest.raises(ValueError, match=r"in row 7 the group of columns.*sums to 0"):
        trained.denoise(rows)
