"""Trainings that go on from what was kept of them, and means of their weights."""

import itertools

import pytest
import torch
from numpy.testing import assert_allclose

from skae.engine.optimisation.averaging import Average
from skae.engine.optimisation.optimizers import OPTIMIZERS
from skae.engine.optimisation.parameters import Parameters
from skae.engine.optimisation.resuming import Keeper
from skae.engine.optimisation.rows import DenseRows
from skae.engine.optimisation.runs import Data, Objective, Run, Settings
from skae.engine.optimisation.training import train
from skae.engine.sparse.dictionaries import DictionaryLearning
from skae.engine.stacks.stacking import Layerwise
from skae.estimators.face.sessions import arrays, tensors

N_ROWS, MAX_ITER = 21, 4


class Moody(Objective):
    """1/2 |theta - x|^2 whose gradient depends on noise, on what it knows, and on its mood."""

    is_noisy = True

    def __init__(self):
        self.state, self.mood, self.reports_loss = {}, 0, True

    @property
    def memory(self):
        return {"mood": self.mood}

    @memory.setter
    def memory(self, memory):
        self.mood = memory["mood"]

    def value(self, theta, x, generator, row_weight=None):
        return 0.5 * (theta["point"] - x).square().sum(1).mean()

    def gradient(self, theta, x, generator, out, row_weight=None):
        self.mood = (self.mood + 1) % 3
        self.state["sum"] = self.state.get("sum", 0.0) + float(x.sum()) / 3
        self.state["last"] = x.mean(0)
        noise = torch.randn(x.shape[1], generator=generator, dtype=x.dtype)
        pull = 0.1 * self.state["sum"] + self.mood + noise + self.state["last"]
        out["point"].copy_((theta["point"] - x).mean(0) + pull)
        return self.value(theta, x, generator)


def make_run(keeper=None, *, rule="adam", held_out=None, average=False, schedule="linear"):
    rows = torch.randn(N_ROWS + 5, 3, generator=torch.Generator().manual_seed(1))
    theta = Parameters({"point": (3,)}, dtype=torch.float32)
    theta.flat.zero_()
    index = torch.arange(N_ROWS)
    held_out = torch.arange(N_ROWS, N_ROWS + 5) if held_out else None
    return Run(
        theta,
        Moody(),
        Data(DenseRows(rows), index, index[::3], held_out),
        Settings(OPTIMIZERS[rule](0.9), 0.1, schedule, batch_size=8, max_iter=MAX_ITER),
        torch.Generator().manual_seed(0),
        keeper=keeper,
        average=Average(theta, 2) if average else None,
    )


@pytest.mark.parametrize("rule", ["adam", "sgd", "rmsprop"])
@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("average", [False, True])
def test_a_training_goes_on_from_every_step(rule, held_out, average):
    options = {"rule": rule, "held_out": held_out, "average": average}
    kept = []
    keeper = Keeper(None, lambda epoch, step: True, lambda state: kept.append(arrays(state)))
    run = make_run(keeper, **options)
    whole = train(run)
    places = [(state["position"]["epoch"], state["position"]["step"]) for state in kept]
    # 21 rows in batches of up to 8 are three steps.
    assert places == list(itertools.product(range(MAX_ITER), range(3)))
    for state in kept:
        other = make_run(Keeper(tensors(state), lambda *_: False, lambda _: None), **options)
        training = train(other)
        # To the bit, whatever the generator, the objective or the watch had seen.
        assert torch.equal(other.theta.flat, run.theta.flat)
        assert training.loss_curve == whole.loss_curve
        assert training.validation_curve == whole.validation_curve
        assert training[3:] == whole[3:]
        assert other.objective.state["sum"] == run.objective.state["sum"]
        assert torch.equal(other.generator.get_state(), run.generator.get_state())


def test_to_keep_changes_nothing():
    plain, run = make_run(), make_run(Keeper(None, lambda *_: True, lambda _: None))
    assert train(plain).loss_curve == train(run).loss_curve
    assert torch.equal(plain.theta.flat, run.theta.flat)


def test_time_goes_on():
    kept, seconds = [], []
    keeper = Keeper(None, lambda epoch, step: epoch == 2, kept.append)
    train(make_run(keeper))
    state = kept[0]
    state["position"]["seconds"] = 1000.0
    run = make_run(Keeper(tensors(arrays(state)), lambda *_: False, kept.append))
    run.listener = lambda epoch: seconds.append(epoch.seconds)
    train(run)
    # What is left is estimated by the time that all epochs have taken.
    assert len(seconds) == 2
    assert min(seconds) > 1000


@pytest.mark.parametrize("n_epochs", [None, 1, 3])
@pytest.mark.parametrize("decay", [1.0, 0.5])
def test_means_are_those_of_the_formula(n_epochs, decay):
    theta = Parameters({"a": (2,), "b": (3, 1)}, dtype=torch.float64)
    theta.flat.zero_()
    average = Average(theta, n_epochs, decay)
    assert not average.has_begun
    weights = torch.randn(6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for number, flat in enumerate(weights, 1):
        average.update_(flat)
        last = weights[max(0, number - (n_epochs or 6)) : number]
        shares = decay ** torch.arange(len(last) - 1, -1, -1, dtype=torch.float64)
        mean = (shares[:, None] * last).sum(0) / shares.sum()
        assert_allclose(average.theta.flat, mean, rtol=1e-12, atol=1e-14)
    assert average.theta["b"].shape == (3, 1)
    # What was given is left alone.
    assert not theta.flat.any()


def test_a_dictionary_remembers_its_algorithm():
    learning = DictionaryLearning(penalty=None)
    learning.memory = {"algorithm": "fista", "n_inferred": 7}
    assert learning.memory == {"algorithm": "fista", "n_inferred": 7}
    # In a stack, each layer has its own.
    both = Layerwise([None, None], [learning, DictionaryLearning(penalty=None)])
    others = Layerwise(
        [None, None], [DictionaryLearning(penalty=None), DictionaryLearning(penalty=None)]
    )
    others.memory = both.memory
    assert others.parts["0."].memory == learning.memory
    assert others.parts["1."].memory == {"algorithm": None, "n_inferred": 0}
