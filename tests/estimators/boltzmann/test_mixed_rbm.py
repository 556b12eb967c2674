"""RBM on tables whose columns are numbers, binary and categories."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import OneHotEncoder

from skae import RBM, DeepBeliefNetwork, DeepBoltzmannMachine, StackedAutoEncoder
from skae.engine.boltzmann.energies import BipartiteMachine
from skae.engine.networks.units import UNITS, Units
from skae.estimators.boltzmann.sampling import machine_of

COLOURS = np.array(["blue", "green", "red", "white"])


def make_table(n=600, seed=0):
    """A class that shows in all columns: a size, a weight, a colour, a truth value, a shape."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(3, size=n)
    colour = np.where(rng.random(n) < 0.8, kind, rng.integers(4, size=n))
    return pd.DataFrame(
        {
            "size": 3.0 * kind + rng.normal(size=n),
            "colour": COLOURS[colour],
            "heavy": (kind == 2) ^ (rng.random(n) < 0.1),
            "weight": np.exp(0.5 * kind + 0.2 * rng.normal(size=n)),
            "shape": np.array(["disc", "ring", "star"])[(kind + (rng.random(n) < 0.2)) % 3],
        }
    )


def as_array(table):
    """The same with one-hot columns: two numbers, one binary, groups of 4 and 3."""
    encoder = OneHotEncoder(sparse_output=False)
    one_hot = encoder.fit_transform(table[["colour", "shape"]])
    return np.column_stack([table[["size", "weight"]], table["heavy"], one_hot]).astype(float)


SETTINGS = {"max_iter": 30, "random_state": 0}
UNITS_OF_ARRAY = [
    ("bernoulli", [2]),
    ("gaussian", [0, 1]),
    ("multinomial", [3, 4, 5, 6]),
    ("multinomial", [7, 8, 9]),
]


@pytest.fixture(scope="module")
def table():
    return make_table()


@pytest.fixture(scope="module")
def fitted(table):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return RBM(8, **SETTINGS).fit(table)


def names_of(model):
    return sorted(name for name, _ in model.columns_.parts)


def test_auto_tells_the_units_of_a_frame(fitted):
    assert names_of(fitted) == ["bernoulli", "gaussian", "multinomial", "multinomial"]
    # One variable for each column of the table, in its order.
    assert [len(columns) for columns in fitted.columns_.variables] == [1, 4, 1, 1, 3]
    assert fitted.components_.shape == (8, 10)
    scale = fitted.visible_scale_
    # Numbers have a width, categories have none.
    assert_array_equal(np.isfinite(scale), np.isin(np.arange(10), [0, 6]))
    assert (scale[[0, 6]] <= fitted.columns_.scale[[0, 6]]).all()


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_auto_tells_the_units_of_an_array(table):
    X, settings = as_array(table), SETTINGS | {"max_iter": 3}
    auto = RBM(8, **settings).fit(X)
    named = RBM(8, visible=UNITS_OF_ARRAY, **settings).fit(X)
    assert names_of(auto) == names_of(named)
    assert_array_equal(auto.weights_["weight_0"], named.weights_["weight_0"])
    # The same by the names of a frame's columns.
    frame = pd.DataFrame(X, columns=[f"c{i}" for i in range(10)])
    by_name = [(name, [f"c{i}" for i in columns]) for name, columns in UNITS_OF_ARRAY]
    again = RBM(8, visible=by_name, **settings).fit(frame)
    # (Its numbers lie otherwise in memory, which sums feel in the last place.)
    assert_allclose(again.weights_["weight_0"], named.weights_["weight_0"], rtol=1e-9)
    copy = clone(named).fit(X)
    assert_array_equal(copy.weights_["weight_0"], named.weights_["weight_0"])
    # Columns in [0, 1] are binary as ever, beside groups and alone.
    grey = np.random.default_rng(0).random((50, 4))
    assert names_of(RBM(2, max_iter=1).fit(grey)) == ["bernoulli"]
    beside = np.column_stack([grey, np.tile(np.eye(5), (10, 1))])
    assert names_of(RBM(2, max_iter=1).fit(beside)) == ["bernoulli", "multinomial"]


def test_it_learns_what_columns_say_of_each_other():
    train, test = make_table(seed=0), make_table(400, seed=100)
    model = RBM(16, max_iter=60, random_state=0, persistent=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(train)
    machine = machine_of(model)
    # Independent columns: no weights, biases at the means, and variances of 1.
    independent = RBM(16, random_state=0, max_iter=1, learning_rate=1e-30).fit(train)
    independent.weights_ = {
        name: np.zeros_like(array) for name, array in independent.weights_.items()
    }
    means = torch.tensor(independent.columns_.standardized("mean"))
    bias = machine.units.bias_for_mean(means.to(machine.theta.flat))
    independent.weights_["visible_bias_0"] = bias.cpu().numpy()
    # The pseudo-likelihood of new rows has risen by nats, far above that of independence ...
    assert model.score(test) > independent.score(test) + 1.5
    assert model.loss_curve_[-1] < model.loss_curve_[0] - 1.0
    # ... and so has the likelihood itself, whose log Z is exact (hidden units are few).
    log_z = model.log_partition_function()
    assert log_z.method == "exact"
    apart = independent.score(test, log_partition=independent.log_partition_function())
    assert model.score(test, log_partition=log_z) > apart + 0.8


def test_scores_are_of_the_users_numbers(fitted, table):
    # In other units the density of a number is another one by the factor of the units.
    grams = table.assign(weight=1000 * table["weight"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        other = RBM(8, **SETTINGS).fit(grams)
    shift = np.log(1000)
    assert_allclose(fitted.score_samples(table) - shift, other.score_samples(grams), atol=2e-3)
    assert_allclose(fitted.free_energy(table).shape, (600,))
    # And log P is a sum over categories: exp of it, over them, is at most that of the rest.
    log_z = fitted.log_partition_function()
    row = table.iloc[:1]
    by_colour = [
        fitted.score_samples(row.assign(colour=colour), log_partition=log_z)[0]
        for colour in COLOURS
    ]
    own = fitted.score_samples(row, log_partition=log_z)[0]
    assert own == pytest.approx(by_colour[list(COLOURS).index(row["colour"].iloc[0])])
    assert len({round(float(value), 6) for value in by_colour}) == 4


def test_some_variables_stand_for_all(fitted, table):
    some = clone(fitted).set_params(n_scored_columns=2)
    vars(some).update({k: v for k, v in vars(fitted).items() if k.endswith("_")})
    number = torch.randperm(5, generator=torch.Generator().manual_seed(0))[:2]
    machine = machine_of(fitted)
    rows = torch.tensor(fitted.encoding_.encode(table).astype(np.float64))
    x = rows.sub(torch.tensor(fitted.columns_.shift)).div(torch.tensor(fitted.columns_.scale))
    x = x.to(machine.theta.flat)
    terms = [
        machine.conditional_log_likelihood(x, machine.hidden_input(x), n.view(1)) for n in number
    ]
    estimate = 2.5 * sum(terms).double().cpu().numpy()
    constant = some.score_samples(table) - estimate
    log_derivative = fitted.encoding_.log_derivative(fitted.encoding_.encode(table))
    volume = np.log(fitted.columns_.scale).sum()
    # Five variables, of which two are scored.
    assert_allclose(constant, log_derivative - volume, atol=1e-3)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_samples_are_tables(fitted, table):
    # Longer chains: what CD-1 leaves of categories' frequencies depends on the seed.
    longer = RBM(8, n_gibbs_steps=5, **SETTINGS | {"max_iter": 100}).fit(table)
    drawn = longer.sample(2000, burn_in=200, random_state=0)
    assert list(drawn.columns) == list(table.columns)
    assert dict(drawn.dtypes) == dict(table.dtypes)
    assert set(drawn["colour"]) <= set(COLOURS)
    # Categories about as often as in the data, and they go with the other columns.
    share = drawn["colour"].value_counts(normalize=True)
    assert (share - table["colour"].value_counts(normalize=True)).abs().max() < 0.12
    assert drawn.groupby("colour")["size"].mean()["red"] > (
        drawn.groupby("colour")["size"].mean()["blue"] + 2
    )
    assert drawn["heavy"][drawn["shape"] == "star"].mean() > 0.6
    walked = fitted.gibbs(table.iloc[:5], 2, random_state=0)
    assert dict(walked.dtypes) == dict(table.dtypes)
    tempered = fitted.sample(20, burn_in=50, n_temperatures=4, random_state=0)
    assert set(tempered["shape"]) <= {"disc", "ring", "star"}
    assert list(fitted.reconstruct(table).columns) == list(table.columns)


@pytest.mark.parametrize("n_components", [6])
def test_annealing_agrees_with_enumeration(n_components, table):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = RBM(n_components, **SETTINGS).fit(table)
    exact = model.log_partition_function("exact")
    annealed = model.log_partition_function("ais", n_temperatures=300, random_state=0)
    assert abs(annealed.value - exact.value) < 4 * annealed.standard_error + 1e-3


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_unit_variances_and_other_kinds_of_numbers(table):
    X = as_array(table)
    unit = RBM(4, visible=UNITS_OF_ARRAY, visible_variance="unit", max_iter=2).fit(X)
    assert "log_variance" not in unit.weights_
    own = [("squared_error", [0]), ("gaussian", [1]), UNITS_OF_ARRAY[0], *UNITS_OF_ARRAY[2:]]
    model = RBM(4, visible=own, max_iter=20, learning_rate=0.01, random_state=0).fit(X)
    # Only standardised columns learn their variance.
    assert_array_equal(model.weights_["log_variance"][[0, *range(2, 10)]], 0)
    assert model.weights_["log_variance"][1] < 0
    assert model.visible_scale_[0] == 1
    whole = RBM(4, visible="multinomial", max_iter=2, random_state=0).fit(X[:, 3:7])
    assert whole.sample(3, burn_in=5, random_state=0).sum(1).tolist() == [1, 1, 1]
    with pytest.raises(AttributeError, match="discrete"):
        _ = whole.visible_scale_


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_partial_fit_and_warm_start_go_on(table):
    model = RBM(4, random_state=0).partial_fit(table).partial_fit(table)
    assert model.n_iter_ == 2
    assert np.isfinite(model.loss_curve_).all()
    warm = RBM(4, random_state=0, max_iter=2, warm_start=True).fit(table).fit(table)
    assert np.isfinite(warm.score(table))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_stacks_on_top_of_it(table):
    network = DeepBeliefNetwork((8, 6), max_iter=5, random_state=0).fit(table)
    assert names_of(network) == ["bernoulli", "gaussian", "multinomial", "multinomial"]
    assert names_of(network.layers_[1]) == ["bernoulli"]
    drawn = network.sample(50, burn_in=50, random_state=0)
    assert dict(drawn.dtypes) == dict(table.dtypes)
    means = network.sample(5, burn_in=5, return_means=True, random_state=0)
    assert set(means["colour"]) <= set(COLOURS)
    bound = network.score_samples(table)
    assert bound.shape == (600,)
    assert np.isfinite(bound).all()
    # The bound of one layer is its likelihood.
    single = DeepBeliefNetwork((8,), max_iter=5, random_state=0).fit(table)
    log_z = single.log_partition_function()
    own = single.layers_[0].score_samples(table, log_partition=log_z)
    assert_allclose(single.score_samples(table, log_partition=log_z), own, atol=1e-3)
    stack = StackedAutoEncoder((8, 6), layer="rbm", max_iter=5, random_state=0).fit(table)
    assert stack.transform(table).shape == (600, 6)
    # Codes are of one kind.
    layers = [RBM(8), RBM(6, visible=[("bernoulli", slice(None))])]
    with pytest.raises(ValueError, match="Layer 1"):
        DeepBeliefNetwork(layers=layers).fit(table)


def test_machine_is_the_engines(fitted):
    machine = machine_of(fitted)
    assert isinstance(machine, BipartiteMachine)
    assert machine.n_variables == 5


# Bad input


def test_gaps_are_refused_with_what_takes_them(fitted, table):
    gap = table.copy()
    gap.loc[3, "colour"] = None
    for call in (lambda: RBM(2).fit(gap), lambda: fitted.transform(gap)):
        with pytest.raises(
            ValueError, match=r"in row 3 of column 'colour'.*such as an AutoEncoder"
        ):
            call()
    unseen = table.copy()
    unseen.loc[3, "colour"] = "purple"
    with pytest.raises(
        ValueError, match=r"category that was not there in fit, in row 3 of column 'colour'"
    ):
        fitted.score_samples(unseen)
    # Of one-hot columns one is on; none is a gap.
    X = as_array(table)
    X[7, 3:7] = 0
    with pytest.raises(ValueError, match=r"must sum to 1 in every row, but in row 7"):
        RBM(2, visible=UNITS_OF_ARRAY).fit(X)


def test_lists_name_each_column_once(table):
    X = as_array(table)
    with pytest.raises(ValueError, match="visible leaves out 1 columns"):
        RBM(2, visible=[("gaussian", list(range(9)))]).fit(X)
    with pytest.raises(ValueError, match="visible chooses column 3 twice"):
        RBM(2, visible=[*UNITS_OF_ARRAY, ("gaussian", [3])]).fit(X)
    with pytest.raises(ValueError, match="visible must be a name or a list"):
        RBM(2, visible=[("poisson", list(range(10)))]).fit(X)
    with pytest.raises(ValueError, match=r"visible='bernoulli' needs values in \[0, 1\]"):
        RBM(2, visible=[("bernoulli", list(range(10)))]).fit(X)


def test_units_without_an_energy_are_refused(table, monkeypatch):
    class Toy(Units):
        name, summary = "toy", "of a test"

    monkeypatch.setitem(UNITS, "toy", Toy)
    for visible in ("toy", [("toy", [0]), ("gaussian", list(range(1, 10)))]):
        with pytest.raises(ValueError, match=r"'toy' cannot be .*one of 'bernoulli', "):
            RBM(2, visible=visible).fit(as_array(table))


MACHINES = [RBM(6, max_iter=10), DeepBoltzmannMachine((6, 4), max_iter=5)]


@pytest.mark.parametrize("machine", MACHINES, ids=["RBM", "deep"])
def test_chains_that_leave_the_data_are_told(machine):
    for seed in range(5):
        rng = np.random.default_rng(seed)
        X = rng.normal(size=(200, 2)) @ rng.normal(size=(2, 4)) + rng.normal(size=4)
        model = clone(machine).set_params(random_state=seed).fit(X)
        model.sample(100, burn_in=20)  # no warning
        model.weights_ = {
            name: 20 * array if name.startswith("weight") else array
            for name, array in model.weights_.items()
        }
        with pytest.warns(ConvergenceWarning, match=r"\d+% of the samples are far outside"):
            model.sample(100, burn_in=20)


@pytest.mark.parametrize("machine", [*MACHINES, DeepBeliefNetwork((6, 4), max_iter=5)], ids=repr)
def test_real_columns_without_variance(machine):
    rng = np.random.default_rng(0)
    varying = rng.normal(size=(100, 2))
    # Constants of any size; one that is only nearly so has a scale.
    X = np.column_stack([varying, np.full(100, 2e-3), np.full(100, 1e8), varying[:, 0] * 1e-9 + 1])
    model = clone(machine).set_params(random_state=0).fit(X)
    for result in (model.transform(X), model.reconstruct(X)):
        assert np.isfinite(result).all()
    samples = model.sample(50, burn_in=5, random_state=0)
    assert_array_equal(samples[:, 2:4], np.tile([2e-3, 1e8], (50, 1)))
    assert_allclose(samples[:, 4], 1, atol=1e-7)
    assert samples[:, 4].std() > 1e-10
    # No column varies: as an auto-encoder does, a machine knows the value and nothing else.
    model.fit(np.tile(X[:1], (30, 1)))
    assert np.isfinite(model.transform(X)).all()
    assert_array_equal(model.sample(5, random_state=0), X[:1].repeat(5, 0))
