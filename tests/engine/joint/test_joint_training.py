"""Several trainings as one end as each would have ended by itself."""

import threading

import numpy as np
import pytest
import torch

from skae.engine.joint import rendezvous
from skae.engine.joint.rendezvous import Rendezvous, RendezvousEndedError, train_all
from skae.engine.joint.streams import stacked
from skae.engine.joint.training import likeness, train_jointly
from skae.engine.networks.corruptions import GaussianNoise, Masking, SaltAndPepper, Swap
from skae.engine.networks.layers import Network, initialize_
from skae.engine.networks.mixed import Mixed
from skae.engine.networks.objectives import Emphasis, Reconstruction, auto_encoder
from skae.engine.networks.penalties import (
    CodeKL,
    CodeL1,
    Contraction,
    HessianContraction,
    WeightDecay,
)
from skae.engine.networks.units import Bernoulli, Gaussian, Multinomial
from skae.engine.optimisation.models import AFRESH, Task, fit_alone, some_of, trainer
from skae.engine.optimisation.optimizers import OPTIMIZERS
from skae.engine.optimisation.parameters import Parameters
from skae.engine.optimisation.rows import DenseRows
from skae.engine.optimisation.runs import Data, Run, Settings
from skae.engine.optimisation.training import train

N_FEATURES = 6
MIXED = Mixed(
    [
        (Bernoulli(), torch.tensor([0, 3])),
        (Gaussian(torch.tensor([0.3, 0.2])), torch.tensor([1, 5])),
        (Multinomial(), torch.tensor([2, 4])),
    ]
)


def make_rows(n_rows=47, seed=0, gaps=False):
    """Rows that all kinds of units can be of: of zeros and ones, two columns one-hot."""
    generator = torch.Generator().manual_seed(seed)
    x = (torch.rand(n_rows, N_FEATURES, generator=generator, dtype=torch.float64) < 0.4).double()
    x[:, 4] = 1 - x[:, 2]
    if gaps:
        x[::5, 1] = torch.nan
    return DenseRows(x, has_gaps=gaps)


def make_run(
    seed=0,
    *,
    rows=None,
    units=None,
    tied=True,
    activation="sigmoid",
    hidden=(),
    corruption=None,
    penalties=(),
    emphasis=None,
    optimizer="adam",
    momentum=0.9,
    hold_out=False,
    weighted=False,
    listener=None,
    **settings,
):
    rows = make_rows() if rows is None else rows
    network = Network((N_FEATURES, *hidden, 4), activation, tied)
    fill = torch.zeros(N_FEATURES, dtype=torch.float64) if rows.has_gaps else None
    units = Bernoulli() if units is None else units
    objective = Reconstruction(network, units, corruption, emphasis, penalties, fill)
    objective.has_gaps = rows.has_gaps
    generator = torch.Generator().manual_seed(seed)
    theta = Parameters(network.parameter_shapes, dtype=torch.float64)
    initialize_(theta, network, torch.zeros(N_FEATURES, dtype=torch.float64), generator)
    index = torch.arange(len(rows))
    held_out = index[::4] if hold_out else None
    index = index[index % 4 > 0] if hold_out else index
    weight = None
    if weighted:
        weight = torch.linspace(0.2, 2.0, len(rows), dtype=torch.float64)
        weight = weight / weight.mean()
    settings = {"learning_rate": 0.02, "batch_size": 10, "max_iter": 6} | settings
    settings["optimizer"] = OPTIMIZERS[optimizer](momentum)
    data = Data(rows, index, some_of(index, 20), held_out, weight)
    return Run(theta, objective, data, Settings(**settings), generator, listener=listener)


def assert_alike(makers):
    """Runs that are trained as one end as runs that are trained one after the other."""
    alone, together = [make() for make in makers], [make() for make in makers]
    kinds = {likeness(run) for run in together}
    assert len(kinds) == 1
    assert None not in kinds
    trainings = [train(run) for run in alone]
    for run, other, one, two in zip(
        alone, together, trainings, train_jointly(together), strict=True
    ):
        torch.testing.assert_close(other.theta.flat, run.theta.flat, rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(two.loss_curve, one.loss_curve, rtol=1e-10)
        np.testing.assert_allclose(two.validation_curve, one.validation_curve, rtol=1e-10)
        assert (two.outcome, two.kept_epoch) == (one.outcome, one.kept_epoch)
        assert (other.generator.get_state() == run.generator.get_state()).all()
        for slot, kept in one.optimizer_state.items():
            torch.testing.assert_close(two.optimizer_state[slot], kept, rtol=1e-8, atol=1e-12)


PENALTIES = {
    "decay": lambda k: [WeightDecay(0.01 * k)],
    "l1": lambda k: [CodeL1(0.02 * k)],
    "kl": lambda k: [CodeKL(0.1 * k, 0.1 + 0.05 * k)],
    "contraction": lambda k: [Contraction(0.1 * k)],
    "all": lambda k: [WeightDecay(0.01), CodeKL(0.1, 0.2), Contraction(0.1 * k)],
}
CORRUPTIONS = {
    "masking": lambda k: Masking(0.1 * k),
    "gaussian": lambda k: GaussianNoise((0.05 * k, 0.1 * k)),
    "pepper": lambda k: SaltAndPepper(0.1 * k),
    "swap": lambda k: Swap(0.1 * k),
}


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("tied", [True, False])
def test_penalties(penalty, tied):
    makers = [
        lambda k=k: make_run(k % 2, penalties=PENALTIES[penalty](k + 1), tied=tied)
        for k in range(4)
    ]
    assert_alike(makers)


@pytest.mark.parametrize("tied", [True, False])
def test_deep_networks(tied):
    makers = [
        lambda k=k: make_run(
            k, rows=make_rows(47 - k), hidden=(7, 5), tied=tied, activation="tanh", units=MIXED,
            corruption=Masking(0.2),
        )
        for k in range(3)
    ]  # fmt: skip
    assert_alike(makers)


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_corruptions(corruption):
    makers = [
        lambda k=k: make_run(k % 2, corruption=CORRUPTIONS[corruption](k + 1)) for k in range(4)
    ]
    assert_alike(makers)


def test_emphasis_and_gaps():
    rows = make_rows(gaps=True)
    makers = [
        lambda k=k: make_run(
            k, rows=rows, corruption=Masking(0.2), emphasis=Emphasis(1.0, 0.3), units=MIXED
        )
        for k in range(3)
    ]
    assert_alike(makers)


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "nesterov", "rmsprop", "adagrad", "adamw"])
def test_rules_and_rates(optimizer):
    makers = [
        lambda k=k: make_run(k, optimizer=optimizer, learning_rate=0.01 * (1 + k % 2), momentum=0.5)
        for k in range(3)
    ]
    assert_alike(makers)


def test_units_and_lengths_differ():
    """Folds differ by a row, and in which columns are what: it is one batch still."""
    makers = [
        lambda n=n, u=u, w=w: make_run(1, rows=make_rows(n, seed=n), units=u, weighted=w)
        for n, u, w in [(47, Bernoulli(), False), (46, MIXED, True), (47, Gaussian(), True)]
    ]
    assert_alike(makers)


@pytest.mark.parametrize("schedule", ["constant", "linear", "warmup_cosine"])
def test_each_ends_by_itself(schedule):
    """By its own number of epochs, by its own patience."""
    makers = [
        lambda k=k: make_run(
            k,
            max_iter=3 + 4 * k,
            schedule=schedule,
            tol=0.2,
            n_iter_no_change=1 + k,
            penalties=[Contraction(0.1 * k)],
        )
        for k in range(4)
    ]
    assert_alike(makers)


def test_held_out_rows():
    makers = [
        lambda k=k: make_run(
            k % 2, hold_out=True, weighted=True, corruption=Masking(0.1 * (k + 1)),
            learning_rate=[0.02, 0.3][k % 2], max_iter=8, n_iter_no_change=2,
        )
        for k in range(4)
    ]  # fmt: skip
    assert_alike(makers)


@pytest.mark.parametrize("units", [Bernoulli(), Gaussian(), MIXED])
def test_all_see_the_same_batches(units):
    """Rows, noise and their weights are there once for all."""
    emphasis = Emphasis(1.0, 0.3)
    makers = [
        lambda k=k: make_run(
            0, units=units, weighted=True, hold_out=True, corruption=Masking(0.2),
            emphasis=emphasis, penalties=PENALTIES["all"](k + 1),
        )
        for k in range(3)
    ]  # fmt: skip
    assert_alike(makers)


def test_a_noisy_criterion_is_watched_on_a_probe():
    makers = [
        lambda k=k: make_run(k, corruption=Masking(0.3), n_iter_no_change=2, tol=0.3, max_iter=9)
        for k in range(3)
    ]
    assert_alike(makers)


def test_one_that_diverges_leaves_the_others_alone():
    makers = [
        lambda rate=rate: make_run(
            0, learning_rate=rate, optimizer="sgd", units=Gaussian(), activation="linear",
            momentum=0.0,
        )
        for rate in (0.01, 1e200, 0.02)
    ]  # fmt: skip
    assert_alike(makers)
    runs = [make() for make in makers]
    assert [training.outcome for training in train_jointly(runs)] == [
        "max_iter", "diverged", "max_iter",
    ]  # fmt: skip


def test_a_listener_hears_of_its_own_run():
    heard = {0: [], 1: []}
    runs = [
        make_run(k, max_iter=4, listener=lambda epoch, k=k: heard[k].append(epoch.loss) or k)
        for k in (0, 1)
    ]
    one, two = train_jointly(runs)
    assert (one.outcome, two.outcome) == ("max_iter", "stopped")
    assert heard == {0: one.loss_curve, 1: two.loss_curve}
    assert len(heard[1]) == 1


def test_streams_share_their_noise():
    """What sees the same rows and the same noise draws it once, and the results are the same."""
    counted = []

    class Counted(Masking):
        def __call__(self, x, generator):
            counted.append(len(x))
            return super().__call__(x, generator)

    runs = [make_run(0, corruption=Counted(0.2), penalties=[WeightDecay(0.1 * k)]) for k in (1, 2)]
    train_jointly(runs)
    n_together = len(counted)
    counted.clear()
    train(make_run(0, corruption=Counted(0.2), penalties=[WeightDecay(0.1)]))
    assert n_together == len(counted)


def test_what_cannot_be_one_is_alone():
    assert likeness(make_run(penalties=[HessianContraction(0.1, 0.1, 1)])) is None
    assert likeness(make_run()) != likeness(make_run(penalties=[CodeL1(0.1)]))
    assert likeness(make_run()) != likeness(make_run(batch_size=20))
    assert likeness(make_run()) != likeness(make_run(activation="tanh"))


def test_fewer_rows_are_filled_up_with_rows_without_weight():
    runs = [make_run(rows=make_rows(n)) for n in (5, 3)]
    parts = [run.objective.joint.inputs(run.data.rows.tensor, run.generator) for run in runs]
    inputs = stacked(parts)
    assert inputs.x.shape == (2, 5, N_FEATURES)
    np.testing.assert_allclose(inputs.row_weight, [[1] * 5, [5 / 3] * 3 + [0, 0]])


def make_task(seed=0, identity=None, penalties=(), listener=None, corruption=None):
    network, rows = Network((N_FEATURES, 4)), make_rows()
    bias = torch.zeros(N_FEATURES, dtype=torch.float64)

    def objective():
        return Reconstruction(network, Bernoulli(), corruption, None, penalties)

    model = auto_encoder(network, Bernoulli(), bias, objective)
    index = torch.arange(len(rows))
    data = Data(rows, index, some_of(index))
    settings = Settings(OPTIMIZERS["adam"](0.9), 0.02, batch_size=10, max_iter=3)
    generator = torch.Generator().manual_seed(seed)
    return Task(model, data, settings, AFRESH, generator, listener, identity=identity)


DECAYS = [[WeightDecay(0.01 * k)] for k in range(1, 6)]


class Broken:
    """A penalty that cannot be computed."""

    weight = 1.0

    def value(self, theta, forward):
        raise ArithmeticError("broken")


def test_tasks_are_trained_once_where_they_are_the_same():
    epochs = []

    def count(theta, epoch):
        epochs.append(epoch.number)

    tasks = [make_task(identity=lambda: "one") for _ in range(3)]
    one, two, three = train_all([*tasks[:2], make_task(1, lambda: "one")])
    np.testing.assert_array_equal(one.weights["weight_0"], two.weights["weight_0"])
    assert one.weights["weight_0"] is not two.weights["weight_0"]
    assert np.abs(one.weights["weight_0"] - three.weights["weight_0"]).max() > 0.01
    # Who listens hears of each.
    train_all([make_task(identity=lambda: "one", listener=count) for _ in range(2)])
    assert sorted(epochs) == [1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize(("n_threads", "most", "sizes"), [(1, 2, [2, 2, 1]), (2, 9, [2, 3])])
def test_many_are_trained_in_parts(monkeypatch, n_threads, most, sizes):
    """By their number, and for the threads that there are; each by what it has alone."""
    found = []

    def counted(runs, *others):
        found.append(len(runs))
        return train_jointly(runs, *others)

    monkeypatch.setattr(rendezvous, "train_jointly", counted)
    monkeypatch.setattr(rendezvous, "_MOST", most)
    monkeypatch.setattr(rendezvous, "_WORTH_A_THREAD", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: n_threads)
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)
    noise = Masking(0.2)
    results = train_all([make_task(k % 2, corruption=noise, penalties=DECAYS[k]) for k in range(5)])
    assert sorted(found) == sorted(sizes)
    for k, result in enumerate(results):
        expected = fit_alone(make_task(k % 2, corruption=noise, penalties=DECAYS[k]))
        np.testing.assert_allclose(
            result.weights["weight_0"], expected.weights["weight_0"], rtol=1e-9
        )


def test_an_error_is_that_of_its_own_task():
    good, bad = train_all([make_task(), make_task(penalties=[Broken()])])
    assert isinstance(bad, ArithmeticError)
    np.testing.assert_allclose(good.weights["weight_0"], fit_alone(make_task()).weights["weight_0"])


def test_one_that_fails_leaves_the_others_of_its_batch_alone():
    def broken(x, generator):
        raise ArithmeticError("broken")

    def whole(x, generator):
        return x.clone(), torch.zeros_like(x, dtype=torch.bool)

    tasks = [make_task(corruption=noise) for noise in (whole, broken)]
    assert len({likeness(make_task(corruption=noise).run()) for noise in (whole, broken)}) == 1
    good, bad = train_all(tasks)
    assert isinstance(bad, ArithmeticError)
    expected = fit_alone(make_task(corruption=whole))
    np.testing.assert_array_equal(good.weights["weight_0"], expected.weights["weight_0"])


def run_in_threads(rendezvous, functions):
    """Each function as a member of the rendezvous, in a thread; what they return or raise."""
    results = [None] * len(functions)

    def member(number):
        try:
            with rendezvous.membership(number):
                results[number] = functions[number]()
        except Exception as error:
            results[number] = error

    threads = [threading.Thread(target=member, args=(k,)) for k in range(len(functions))]
    for _ in functions:
        rendezvous.announce()
    for thread in threads:
        thread.start()
    rendezvous.knows_all(True)
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    return results


@pytest.mark.parametrize("n_running", [1, 3])
@pytest.mark.parametrize("size", [1, 2, 10])
def test_fits_meet_where_they_train(n_running, size):
    """Some train twice, some fail before; rounds are smaller than their number, or not."""

    def fit(seed, n_fits):
        if n_fits == 0:
            raise KeyError(seed)
        return [trainer.get()(make_task(seed)) for _ in range(n_fits)]

    functions = [lambda k=k: fit(k, k % 3) for k in range(6)]
    results = run_in_threads(Rendezvous(n_running, size), functions)
    for k, found in enumerate(results):
        if k % 3 == 0:
            assert isinstance(found, KeyError)
            continue
        expected = fit_alone(make_task(k)).weights["weight_0"]
        assert len(found) == k % 3
        for fitted in found:
            np.testing.assert_allclose(fitted.weights["weight_0"], expected, rtol=1e-9)
    # Nothing of it is left to this thread.
    assert trainer.get() is fit_alone


def test_a_rendezvous_that_is_ended_trains_no_more():
    rendezvous = Rendezvous(1, 10)

    def fit(k):
        if k == 2:
            rendezvous.end()
        return trainer.get()(make_task(k))

    results = run_in_threads(rendezvous, [lambda k=k: fit(k) for k in range(3)])
    assert all(isinstance(found, RendezvousEndedError) for found in results)
    assert rendezvous.unfinished == {0, 1, 2}
