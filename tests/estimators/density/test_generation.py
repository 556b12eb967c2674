"""Samples, moments and energies of fitted auto-encoders, and what is refused or warned of."""

import functools
import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.neighbors import KNeighborsClassifier

from skae import (
    PSD,
    AutoEncoder,
    ContractiveAutoEncoder,
    DenoisingAutoEncoder,
    StackedAutoEncoder,
)
from skae.diagnostics import compare_samples

TRAINED = {
    "learning_rate": 1e-2,
    "learning_rate_schedule": "cosine",
    "n_iter_no_change": None,
    "random_state": 0,
}
NOISY = {"loss": "squared_error", "corruption": "gaussian", "corruption_level": 0.5}


def normal_rows(seed=0, n=2000):
    """Rows of variances about 1.9 and 0.1 whose sample covariance is diagonal, and that."""
    X = np.random.default_rng(seed).normal(size=(n, 2))
    X -= X.mean(axis=0)
    X = X @ np.linalg.inv(np.linalg.cholesky(X.T @ X / n)).T
    return X * np.sqrt([1.9, 0.1]), np.array([1.9, 0.1])


@functools.cache
def linear_denoiser():
    X, _ = normal_rows()
    options = NOISY | TRAINED | {"max_iter": 60}
    return DenoisingAutoEncoder(2, activation="linear", **options).fit(X)


@pytest.mark.parametrize("noise", [1e300, 1e-300, 0.0, -1.0])
def test_levels_of_noise_whose_squares_are_no_numbers(noise):
    model, X = linear_denoiser(), normal_rows()[0][:3]
    calls = [
        lambda: model.energy(X, noise=noise),
        lambda: model.score_field(X, noise=noise),
        lambda: model.local_moments(X, noise=noise),
        lambda: model.log_partition_function(noise=noise),
        lambda: model.sample(2, noise=noise, burn_in=1),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"noise=.* must be from 1e-15 to 1e\+15"):
            call()


def test_a_linear_denoiser_knows_normal_data():
    model, (X, variances) = linear_denoiser(), normal_rows()
    total = variances + 0.25
    mean, covariance = model.local_moments(X[:50])
    # r = C (C + sigma^2)^-1 x, and its Jacobian times sigma^2 is Cov[x | noisy x].
    assert_allclose(mean, X[:50] * variances / total, atol=0.12)
    assert_allclose(covariance[0], np.diag(0.25 * variances / total), atol=0.02)
    assert_allclose(model.score_field(X[:50]), -X[:50] / total, atol=0.4)
    # The grid gives what is known of a normal density; annealing agrees.
    log_partition = model.log_partition_function()
    assert log_partition[1:3] == (0.0, "grid")
    assert log_partition.value == pytest.approx(0.5 * np.log(2 * np.pi * total).sum(), abs=0.1)
    other = model.log_partition_function("ais", n_temperatures=200, random_state=1)
    assert abs(other.value - log_partition.value) < 4 * other.standard_error + 0.01
    density = model.score_samples(X[:50], log_partition=log_partition)
    expected = -0.5 * (np.square(X[:50]) / total + np.log(2 * np.pi * total)).sum(axis=1)
    assert_allclose(density, expected, atol=0.6)
    # Without log Z it is what it was: the likelihood given the reconstruction.
    assert_allclose(
        model.score_samples(X[:50]), -0.5 * np.square(X[:50] - mean).sum(axis=1), rtol=1e-6
    )


def test_samples_of_normal_data_have_its_variances():
    model, (_, variances) = linear_denoiser(), normal_rows()
    samples = model.sample(8000, n_chains=2000, burn_in=60, random_state=0)
    assert samples.shape == (8000, 2)
    assert_allclose(samples.var(axis=0), variances, rtol=0.15)
    assert_allclose(samples.mean(axis=0), 0, atol=0.15)
    # Isotropic noise leaves too much across, the mean alone too little.
    wide = model.sample(4000, n_chains=2000, burn_in=60, method="isotropic", random_state=0)
    means = model.sample(4000, n_chains=2000, burn_in=60, return_means=True, random_state=0)
    assert wide[:, 1].var() > 2 * variances[1]
    assert means[:, 1].var() < 0.5 * variances[1]
    # The same seed gives the same rows, a pickled model as well; another one others.
    again = pickle.loads(pickle.dumps(model)).sample(10, burn_in=3)
    assert_array_equal(model.sample(10, burn_in=3), again)
    assert (model.sample(10, burn_in=3, random_state=5) != again).any()


def test_the_likelihood_of_a_chain():
    # Columns that are drawn by themselves have the data's law here, which is normal with a diagonal
    # covariance: the mixture over states is its density, from below.
    model, (X, variances) = linear_denoiser(), normal_rows()
    truth = -0.5 * (np.square(X[:200]) / variances + np.log(2 * np.pi * variances)).sum(axis=1)
    few, many = (
        model.chain_log_likelihood(X[:200], n_states=n, burn_in=50, random_state=0).mean()
        for n in (5, 2000)
    )
    assert few < many
    assert many == pytest.approx(truth.mean(), abs=0.15)
    # A row whose distance overflows has no likelihood, and is a number to compare.
    assert model.chain_log_likelihood([[1e300, -1e300]], n_states=5) == -np.inf
    # Per unit of the data, and of categories a probability.
    frame = table()
    scores = table_denoiser("hiding").chain_log_likelihood(frame.head(50), n_states=200, burn_in=20)
    shuffled = frame.head(50).assign(income=frame["income"].to_numpy()[-50:])
    other = table_denoiser("hiding").chain_log_likelihood(shuffled, n_states=200, burn_in=20)
    assert other.mean() < scores.mean() - 1
    with pytest.raises(ValueError, match="X has gaps"):
        model.chain_log_likelihood([[np.nan, 1.0]])
    with pytest.raises(ValueError, match="trained without"):
        fitted(ContractiveAutoEncoder).chain_log_likelihood(X)


def test_units_of_the_data():
    X, _ = normal_rows()
    scale, shift = np.array([10.0, 0.1]), np.array([5.0, -3.0])
    options = NOISY | TRAINED | {"max_iter": 30, "loss": "gaussian"}
    model = DenoisingAutoEncoder(2, activation="linear", **options).fit(X)
    other = DenoisingAutoEncoder(2, activation="linear", **options).fit(X * scale + shift)
    Z = X * scale + shift
    assert_allclose(
        other.score_field(Z[:9]), model.score_field(X[:9]) / scale, rtol=1e-3, atol=1e-4
    )
    mean, covariance = model.local_moments(X[:9])
    moments = other.local_moments(Z[:9])
    assert_allclose(moments.mean, mean * scale + shift, rtol=1e-3, atol=1e-4)
    assert_allclose(moments.covariance, covariance * np.outer(scale, scale), rtol=1e-3, atol=1e-6)
    product = other.local_moments(Z[:9], directions=np.eye(2)).covariance
    assert_allclose(product, moments.covariance, rtol=1e-5, atol=1e-9)
    # Densities are per unit of the data: they differ by the log of the volume.
    of_data = [
        one.score_samples(rows[:9], log_partition=one.log_partition_function())
        for one, rows in ((model, X), (other, Z))
    ]
    assert_allclose(of_data[1], of_data[0] - np.log(scale).sum(), atol=1e-2)


def test_the_field_around_a_circle():
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, 2 * np.pi, 2000)
    X = np.c_[np.cos(angle), np.sin(angle)]
    options = NOISY | TRAINED | {"corruption_level": 0.2, "learning_rate": 3e-3, "batch_size": 50}
    model = DenoisingAutoEncoder(
        16, hidden_layer_sizes=(64,), activation="relu", tied_weights=False, max_iter=40, **options
    ).fit(X)
    points = X[:300] * rng.uniform(0.6, 1.4, size=(300, 1))
    posterior = np.exp(-np.square(points[:, None] - X).sum(axis=2) / (2 * 0.04))
    best = posterior @ X / posterior.sum(axis=1, keepdims=True)
    score, found = (best - points) / 0.04, model.score_field(points)
    cosine = (score * found).sum(1) / np.linalg.norm(score, axis=1) / np.linalg.norm(found, axis=1)
    assert np.median(cosine) > 0.95
    # More of the covariance lies along the circle than across it.
    covariance = model.local_moments(X[:300]).covariance
    across = np.einsum("ni,nij,nj->n", X[:300], covariance, X[:300])
    assert np.median(across / np.trace(covariance, axis1=1, axis2=2)) < 0.25
    # Samples keep the circle; isotropic noise blurs it, by its own size.
    radius = np.linalg.norm(model.sample(400, burn_in=60, random_state=0), axis=1)
    blurred = model.sample(400, burn_in=60, method="isotropic", random_state=0)
    assert np.abs(radius - 1).mean() < 0.08
    assert np.abs(np.linalg.norm(blurred, axis=1) - 1).mean() > 1.5 * np.abs(radius - 1).mean()


def test_isotropic_noise_on_codes_is_bad(digits):
    X, y = digits
    options = TRAINED | {"learning_rate": 3e-3, "max_iter": 20}
    model = ContractiveAutoEncoder(128, contraction=0.1, **options).fit(X)
    nearest = KNeighborsClassifier(5).fit(X, y)
    share = np.bincount(y, minlength=10) / len(y)

    def distance(method):
        samples = model.sample(
            600, n_chains=100, n_steps=5, burn_in=100, method=method, noise=0.5, random_state=0
        )
        found = np.bincount(nearest.predict(samples), minlength=10) / len(samples)
        return 0.5 * np.abs(found - share).sum()

    # Steps as long, but alike in all directions, are undone by the contraction: chains stay where
    # they are drawn to, and miss classes.
    assert distance("contractive") < 0.25
    assert distance("isotropic") > distance("contractive") + 0.15


@functools.cache
def table(n=600):
    rng = np.random.default_rng(0)
    age = rng.integers(18, 90, n)
    male = rng.random(n) < 0.5
    income = np.round(300 * age + 8000 * male + rng.normal(0, 3000, n), 2)
    rich = income > np.median(income)
    job = np.where(rng.random(n) < 0.8, np.where(rich, "boss", "clerk"), "student")
    return pd.DataFrame(
        {"sex": np.where(male, "m", "f"), "age": age, "income": income, "job": pd.Categorical(job)}
    )


@functools.cache
def table_denoiser(corruption="gaussian"):
    model = DenoisingAutoEncoder(
        32, corruption=corruption, corruption_level=0.4, **(TRAINED | {"max_iter": 60})
    )
    return model.fit(table())


@pytest.mark.parametrize("corruption", ["gaussian", "swap", "hiding"])
def test_tables_come_back_as_they_came(corruption):
    frame, model = table(), table_denoiser(corruption)
    samples = model.sample(400, burn_in=30, n_steps=5, random_state=0)
    assert list(samples.columns) == list(frame.columns)
    assert samples.dtypes.equals(frame.dtypes)
    # Numbers in their range and on their grid: whole ages, incomes in cents.
    assert samples["age"].between(18, 89).all()
    assert_allclose(samples["income"], samples["income"].round(2), atol=1e-6)
    assert samples[["job", "sex"]].nunique().tolist() == [3, 2]
    # What goes together goes together: bosses have the income.
    means = samples.groupby("job", observed=True)["income"].mean()
    assert means["boss"] > means["clerk"] + 3000
    # Rows with gaps are somewhere to start from, as well.
    start = frame.head(20).copy()
    start.loc[:9, "income"] = np.nan
    assert len(model.sample(20, init=start, burn_in=2)) == 20


def test_tables_of_another_library():
    frame = pl.DataFrame(table()[["sex", "age"]].to_dict("list"))
    model = DenoisingAutoEncoder(8, corruption="gaussian", max_iter=5, random_state=0).fit(frame)
    samples = model.sample(12, burn_in=5)
    assert samples.schema == frame.schema


def test_columns_that_are_fixed():
    model, frame = table_denoiser("hiding"), table()
    given = {"sex": "m", "age": 40}
    samples = model.sample(300, fixed=given, burn_in=40, random_state=0)
    assert (samples[["sex", "age"]] == ["m", 40]).all(axis=None)
    assert samples["income"].mean() == pytest.approx(300 * 40 + 8000, rel=0.2)
    assert samples["income"].std() < 0.8 * frame["income"].std()
    # Rows with gaps say the same, one for each chain; so does a dict for columns without names.
    rows = frame.head(5).copy()
    rows["income"] = np.nan
    samples = model.sample(10, fixed=rows, burn_in=5, random_state=0)
    assert_array_equal(samples["age"], np.tile(rows["age"], 2))
    assert_array_equal(samples["job"].astype(str), np.tile(rows["job"].astype(str), 2))
    assert (linear_denoiser().sample(5, fixed={1: 0.3}, burn_in=2)[:, 1] == 0.3).all()
    assert (linear_denoiser().sample(5, fixed=[0.5, np.nan], burn_in=2)[:, 0] == 0.5).all()


@pytest.mark.parametrize(
    ("fixed", "match"),
    [
        ({"sex": "x"}, r"column 'sex' that was not seen in fit. Known are \['f', 'm'\]"),
        ({"height": 3}, "names the column 'height', but X has the columns"),
        ({"age": 200}, r"column 'age' that is outside of the \[18, 89\]"),
        ({"age": "old"}, "Column 'age' held numbers in fit, but holds text"),
        ({"age": 40.5}, "fixed has 40.5 in column 'age', which is .* no sample has it"),
    ],
)
def test_fixed_values_outside_of_a_columns_domain(fixed, match):
    with pytest.raises(ValueError, match=match):
        table_denoiser().sample(3, fixed=fixed)


@pytest.mark.parametrize("encodes", [False, True])
def test_fixed_values_off_a_columns_grid(encodes):
    rng = np.random.default_rng(0)
    dose = rng.integers(0, 9000, 200) / 10
    rows = pd.DataFrame(
        {"smokes": rng.integers(0, 2, 200), "visits": rng.integers(0, 900, 200), "dose": dose}
    )
    if encodes:  # a table with text becomes other numbers
        rows["town"] = rng.choice([*"abc"], 200)
    model = DenoisingAutoEncoder(4, corruption="gaussian", max_iter=2, random_state=0).fit(rows)
    for name, value, known in (
        ("smokes", 0.5, "one of 0, 1 in"), ("visits", 7.25, "a whole number in"),
        ("dose", 70.55, "a number of 1 decimals at most"),
    ):  # fmt: skip
        match = rf"fixed has {value} in column .*{name}.*, which is {known}.* no sample has it"
        several = rows.head(3).astype({"smokes": float, "visits": float})
        several.loc[1, name], several["dose" if name != "dose" else "visits"] = value, np.nan
        for fixed in ({name: value}, several):
            with pytest.raises(ValueError, match=match):
                model.sample(3, fixed=fixed)
    # What training rows have, samples keep: each row of them, but for one column that is free.
    given = rows.head(30).assign(smokes=np.nan)
    samples = model.sample(30, fixed=given, burn_in=1, random_state=0)
    samples = np.asarray(samples)[:, 1:3].astype(float)
    assert_allclose(samples, rows.loc[:29, ["visits", "dose"]], rtol=1e-6)


def test_fixed_rows_that_are_none():
    model = linear_denoiser()
    for fixed, match in (
        ({0: 50.0}, "column 0 that is outside of the"),
        ({2: 1.0}, "names the column 2, but X has the columns 0 to 1"),
        ({0: "a"}, "is no number"),
        ([np.nan, np.nan], "fixed has no value"),
        (np.zeros((4, 2)), "fixed has 4 rows, more than n_samples=3"),
        ([1.0, 2.0, 3.0], "3 features"),
    ):
        with pytest.raises(ValueError, match=match):
            model.sample(3, fixed=fixed)


def test_grids_of_columns():
    rng = np.random.default_rng(0)
    X = np.c_[
        rng.integers(0, 2, 500), rng.integers(0, 9, 500) / 8, rng.normal(size=500).round(2),
        rng.integers(0, 10**4, 500), rng.normal(size=500),
    ]  # fmt: skip
    model = DenoisingAutoEncoder(
        8, loss=[("bernoulli", [0]), ("gaussian", [1, 2, 3, 4])], corruption="gaussian",
        max_iter=3, random_state=0,
    ).fit(X)  # fmt: skip
    assert_array_equal(model.columns_.grid[0], [0, 1])
    assert_array_equal(model.columns_.grid[1], np.arange(9) / 8)
    assert model.columns_.grid[2:] == (2, 0, None)
    samples = model.sample(200, burn_in=5)
    assert set(samples[:, 0]) == {0, 1}
    assert np.isin(samples[:, 1], np.arange(9) / 8).all()
    assert_allclose(samples[:, 2:4], np.c_[samples[:, 2].round(2), samples[:, 3].round()])
    assert ((samples >= X.min(axis=0)) & (samples <= X.max(axis=0))).all()


@pytest.mark.parametrize(
    ("method", "return_means"), [("auto", False), ("contractive", True), ("isotropic", False)]
)
def test_stacks_sample(digits, method, return_means):
    X = digits[0][:400]
    options = TRAINED | {"max_iter": 5}
    layers = [ContractiveAutoEncoder(n, **options) for n in (64, 16)]
    stack = StackedAutoEncoder(layers=layers, random_state=0).fit(X)
    samples = stack.sample(30, method=method, burn_in=5, return_means=return_means)
    assert samples.shape == (30, 64)
    assert ((samples >= 0) & (samples <= 1)).all()
    if not return_means:
        assert_allclose(samples * 16, np.round(samples * 16), atol=1e-5)
    assert_array_equal(
        stack.sample(3, init=X[:3], burn_in=2), stack.sample(3, init=X[:3], burn_in=2)
    )
    # One layer alone is that layer.
    one = stack.set_params(code_layer=0).sample(4, burn_in=3, random_state=2)
    assert one.shape == (4, 64)


def test_stacks_whose_top_has_no_chain(digits):
    X = digits[0][:100]
    layers = [AutoEncoder(8, max_iter=2), PSD(4, max_iter=2)]
    stack = StackedAutoEncoder(layers=layers, random_state=0).fit(X)
    with pytest.raises(ValueError, match="of the kind PSD here"):
        stack.sample(3)


def test_an_energy_at_any_depth():
    X, _ = normal_rows(n=300)
    options = NOISY | TRAINED | {"max_iter": 8, "tied_weights": False}
    model = DenoisingAutoEncoder(
        4, hidden_layer_sizes=(8,), activation="tanh", parametrization="energy", **options
    ).fit(X)
    assert model.loss_curve_[-1] < model.loss_curve_[0]
    # The score is minus the gradient of the energy, by finite differences.
    step = 1e-4
    for column in range(2):
        move = step * np.eye(2)[column]
        slope = (model.energy(X[:20] + move) - model.energy(X[:20] - move)) / (2 * step)
        assert_allclose(model.score_field(X[:20])[:, column], -slope, rtol=1e-3, atol=1e-4)
    covariance = model.local_moments(X[:5]).covariance
    assert_allclose(covariance, covariance.transpose(0, 2, 1), atol=1e-6)
    assert np.isfinite(model.log_partition_function().value)
    assert model.sample(20, burn_in=10).shape == (20, 2)


def test_walkback_trains_and_samples(digits):
    X = digits[0][:300]
    options = TRAINED | {"max_iter": 4, "corruption_level": 0.3}
    plain = DenoisingAutoEncoder(16, **options).fit(X)
    walked = DenoisingAutoEncoder(16, walkback=3, **options).fit(X)
    # It sees rows that corruption alone does not make.
    assert not np.allclose(plain.components_, walked.components_)
    assert np.isfinite(walked.loss_curve_).all()
    assert walked.sample(12, burn_in=5).shape == (12, 64)
    with pytest.raises(ValueError, match="walkback=2 goes on from corrupted rows"):
        AutoEncoder(4, walkback=2).fit(X)


def test_levels_from_a_range():
    X, variances = normal_rows()
    options = NOISY | TRAINED | {"corruption_level": (0.1, 3.0), "max_iter": 40}
    options |= {"hidden_layer_sizes": (32,), "activation": "tanh"}
    blind = DenoisingAutoEncoder(16, **options).fit(X)
    model = DenoisingAutoEncoder(16, level_as_input=True, **options).fit(X)
    samples = model.sample(1500, random_state=0)  # annealed
    assert_allclose(samples.var(axis=0), variances, rtol=0.35)
    # One that is not told the level takes a blend of all levels for each of them.
    assert blind.sample(500, random_state=0)[:, 1].var() < 0.5 * variances[1]
    # What it knows depends on the level that it is told: less noise leaves less unknown.
    little, much = (model.local_moments(X[:20], noise=s).covariance[:, 0, 0] for s in (0.2, 2.0))
    assert (little < much).all()
    assert model.transform(X).shape == (2000, 16)
    fewer = model.sample(50, n_steps=5, noise=(2.0, 0.2), random_state=0)
    assert fewer.shape == (50, 2)


def test_levels_given_some_columns():
    rng = np.random.default_rng(0)
    x = rng.normal(size=2000)
    X = np.column_stack([x, 0.9 * x + np.sqrt(1 - 0.81) * rng.normal(size=2000)])
    options = NOISY | TRAINED | {"corruption_level": (0.1, 3.0), "max_iter": 40}
    options |= {"hidden_layer_sizes": (32,), "activation": "tanh", "level_as_input": True}
    model = DenoisingAutoEncoder(16, **options).fit(X)
    asked = np.column_stack([X[:500, 0], np.full(500, np.nan)])
    drawn = model.sample(500, fixed=asked, n_chains=500, random_state=0)
    assert_allclose(drawn[:, 0], X[:500, 0], rtol=1e-5)
    # The other follows it, as it does in the data.
    slope, _ = np.polyfit(*drawn.T, 1)
    assert 0.65 < slope < 1.1


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"corruption": "masking"}, "level_as_input=True is for corruption='gaussian'"),
        ({"corruption_level": (0.0, 1.0)}, "a corruption_level above 0"),
        ({"walkback": 1}, "does not go with walkback"),
        ({"parametrization": "energy"}, "does not go with parametrization"),
        ({"contraction": 0.1}, "does not go with contraction"),
    ],
)
def test_levels_that_cannot_be_told(options, match):
    with pytest.raises(ValueError, match=match):
        fitted(**{"level_as_input": True, **NOISY, **options})


# What does not apply names what does


def fitted(cls=DenoisingAutoEncoder, X=None, **options):
    X = normal_rows(n=100)[0] if X is None else X
    return cls(3, max_iter=2, random_state=0, **options).fit(X)


@pytest.mark.parametrize(
    ("model", "arguments", "match"),
    [
        (fitted(AutoEncoder), {}, "trained without noise and without a contraction"),
        (fitted(), {"method": "local_covariance"}, "Use method='denoising'"),
        (fitted(), {"method": "langevin"}, "train with corruption='gaussian'"),
        (fitted(), {"method": "annealed"}, r"corruption_level=\(low, high\)"),
        (fitted(ContractiveAutoEncoder), {"method": "denoising"}, "Use method='contractive'"),
        (fitted(corruption="gaussian"), {"method": "annealed"}, "method='local_covariance'"),
        (fitted(), {"method": "gibbs"}, "method='gibbs' must be one of 'auto', 'annealed'"),
        (fitted(), {"noise": -1.0}, "must be from"),
        (fitted(), {"n_samples": 0}, "n_samples=0 must be an integer of at least 1"),
        (fitted(), {"burn_in": -1}, "burn_in=-1"),
    ],
)
def test_methods_that_do_not_apply(model, arguments, match):
    with pytest.raises(ValueError, match=match):
        model.sample(**{"n_samples": 2, **arguments})


def test_langevin_moves_numbers_only():
    X = np.random.default_rng(0).integers(0, 2, (50, 4))
    model = fitted(X=X, corruption="gaussian")
    with pytest.raises(ValueError, match="columns of 0 and 1"):
        model.sample(3, method="langevin")
    assert set(np.unique(model.sample(20, burn_in=3))) <= {0, 1}


@pytest.mark.parametrize("method", ["score_field", "local_moments", "energy"])
def test_densities_need_a_level(method):
    model = fitted()
    X = normal_rows(n=100)[0]
    with pytest.raises(ValueError, match=f"{method} needs the level of the Gaussian noise"):
        getattr(model, method)(X)
    getattr(fitted(loss="squared_error", corruption="gaussian"), method)(X)
    # A contraction of the reconstruction is noise of a variance of twice its weight.
    contracted = fitted(
        ContractiveAutoEncoder, contraction=0.125, contraction_target="reconstruction"
    )
    given = getattr(contracted, method)(X, noise=0.5)
    assert_allclose(getattr(contracted, method)(X)[0], given[0], rtol=1e-6)
    with pytest.raises(NotFittedError):
        getattr(DenoisingAutoEncoder(), method)(X)


def test_who_has_no_energy(digits):
    X = digits[0][:100]
    for options, match in (
        ({}, "real columns"),
        ({"loss": "gaussian", "tied_weights": False}, "tied_weights=True, or with param"),
        ({"loss": "gaussian", "activation": "softplus"}, "no antiderivative"),
    ):
        model = fitted(X=X, corruption="gaussian", **options)
        with pytest.raises(ValueError, match=f"has no energy: .*{match}"):
            model.energy(X)
        with pytest.raises(ValueError, match=match):
            model.log_partition_function()
    with pytest.raises(ValueError, match="parametrization='energy' is for real columns only"):
        fitted(X=X, corruption="gaussian", parametrization="energy")


def test_normalisers_that_are_infinite():
    X, _ = normal_rows(n=200)
    model = fitted(X=X, activation="linear", **NOISY)
    model.weights_["weight_0"] = 2 * np.eye(3)[:, :2]
    with pytest.raises(ValueError, match="bounded hidden units"):
        model.log_partition_function()


# Chains that went wrong


def with_weights(**weights):
    """The denoiser of normal rows with other weights."""
    model = pickle.loads(pickle.dumps(linear_denoiser()))
    for name, value in weights.items():
        model.weights_[name] = np.asarray(value, dtype=model.weights_[name].dtype)
    return model


def test_chains_that_leave_the_data_are_reported():
    with pytest.warns(ConvergenceWarning, match="far outside of the range of the training data"):
        with_weights(weight_0=1.2 * np.eye(2)).sample(20, random_state=0)


def test_chains_that_collapse_are_reported():
    model = with_weights(weight_0=0.01 * np.eye(2))
    with pytest.warns(ConvergenceWarning, match="samples have collapsed"):
        model.sample(20, random_state=0)


def test_chains_that_freeze_are_reported():
    X, _ = normal_rows()
    none = np.zeros(2)
    model = with_weights(weight_0=np.eye(2), hidden_bias_0=none, visible_bias_0=none)
    with pytest.warns(ConvergenceWarning, match="chains hardly moved"):
        model.sample(20, init=X[:20], noise=1e-4, random_state=0)


def test_a_good_chain_is_not_reported(recwarn):
    linear_denoiser().sample(20, random_state=0)
    assert not [w for w in recwarn if issubclass(w.category, ConvergenceWarning)]


def test_an_estimate_on_few_chains_is_reported():
    model = with_weights(weight_0=1.5 * np.eye(2))
    with pytest.warns(ConvergenceWarning, match="so its standard error is too small"):
        model.log_partition_function("ais", n_chains=20, n_temperatures=20)


def test_a_chain_of_ones_own():
    def still(denoiser, generator):
        def step(state):
            x, _ = state
            return x, denoiser.reconstruct(x)

        return step

    X, _ = normal_rows()
    model = linear_denoiser()
    samples = model.sample(5, init=X[:5], method=still, burn_in=3)
    assert_allclose(samples, X[:5], rtol=1e-6)


def test_codes_that_make_no_rows():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 3))
    X[:, 1] = X[:, 0]
    options = NOISY | TRAINED | {"corruption_level": (0.1, 3.0), "level_as_input": True}
    model = DenoisingAutoEncoder(16, **options | {"max_iter": 5, "loss": "gaussian"}).fit(X)
    # The reconstruction at the lowest level adds to the rows themselves: it is close whatever.
    assert np.abs(model.reconstruct(X) - X).mean() < 0.1
    for make in (
        lambda: model.inverse_transform(model.transform(X)),
        lambda: model.sample(3, method="contractive"),
    ):
        with pytest.raises(ValueError, match="makes no row by itself"):
            make()
    with pytest.raises(ValueError, match=r"noise=1.0 has to be a tuple"):
        model.sample(3, noise=1.0)
    # Pixels as they are say nothing of themselves, and codes make rows.
    plain = DenoisingAutoEncoder(4, **options | {"max_iter": 2}).fit(X)
    assert plain.inverse_transform(plain.transform(X)).shape == X.shape


def test_samples_of_a_table_have_its_columns_and_pairs():
    rng = np.random.default_rng(0)
    income = np.exp(rng.normal(size=600))
    table = pd.DataFrame(
        {
            "income": np.round(income, 2),
            "gain": np.where(rng.random(600) < 0.8, 0, rng.integers(1, 9999, 600)),
            "rich": np.where(income + 0.3 * rng.normal(size=600) > 1, "yes", "no"),
        }
    )
    options = TRAINED | {"max_iter": 60, "activation": "relu", "hidden_layer_sizes": (32,)}
    options |= {"tied_weights": False, "corruption": "gaussian", "corruption_level": (0.05, 3.0)}
    model = DenoisingAutoEncoder(16, level_as_input=True, numbers="normal_scores", **options).fit(
        table
    )
    samples = model.sample(600, random_state=0)
    found = compare_samples(table, samples, random_state=0)
    assert found.column_error[0] < 0.15
    assert found.pair_error[0] < 0.15
    assert samples["gain"].isin(table["gain"]).mean() > 0.5  # most are 0
    medians = samples.groupby("rich")["income"].median()
    assert medians["yes"] > 1.5 * medians["no"]


def test_random_layers_have_nothing_to_sample():
    X = np.random.default_rng(0).normal(size=(30, 4))
    stack = StackedAutoEncoder((3,), layer="denoising", pretraining=None, random_state=0).fit(X)
    with pytest.raises(ValueError, match=r"random layer of a stack.*nothing has been learned"):
        stack.sample(2)
