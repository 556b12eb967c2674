"""Several machines that are trained as one end as each would have ended by itself."""

import numpy as np
import pytest
import torch

from skae.engine.boltzmann.learning import boltzmann_machine
from skae.engine.joint.rendezvous import train_all
from skae.engine.joint.training import likeness, train_jointly
from skae.engine.networks.penalties import CodeKL, WeightDecay
from skae.engine.networks.units import Bernoulli, Gaussian, Multinomial, SquaredError
from skae.engine.optimisation.devices import bernoulli, coins
from skae.engine.optimisation.models import AFRESH, Task, fit_alone, some_of
from skae.engine.optimisation.optimizers import OPTIMIZERS
from skae.engine.optimisation.rows import DenseRows
from skae.engine.optimisation.runs import Data, Settings
from skae.engine.optimisation.training import train

N_VISIBLE, N_HIDDEN = 6, 4


def make_task(
    seed=0, *, n_rows=47, units=None, hold_out=False, weighted=False, learning_rate=0.1,
    optimizer="sgd", centered=True, n_epochs=5, **learning,
):  # fmt: skip
    """A machine to be trained on rows of zeros and ones, with random numbers of a seed."""
    generator = torch.Generator().manual_seed(n_rows)
    x = (torch.rand(n_rows, N_VISIBLE, generator=generator, dtype=torch.float64) < 0.4).double()
    mean = x.mean(0)
    learning = {"n_chains": 10, "visible_offset": mean if centered else None} | learning
    units = Bernoulli() if units is None else units
    bias = torch.zeros(N_VISIBLE, dtype=torch.float64)
    model = boltzmann_machine(units, N_VISIBLE, N_HIDDEN, bias, **learning)
    index = torch.arange(n_rows)
    held_out = index[::4] if hold_out else None
    index = index[index % 4 > 0] if hold_out else index
    weight = None
    if weighted:
        weight = torch.linspace(0.2, 2.0, n_rows, dtype=torch.float64)
        weight = weight / weight.mean()
    settings = Settings(OPTIMIZERS[optimizer](0.5), learning_rate, batch_size=10, max_iter=n_epochs)
    data = Data(DenseRows(x), index, some_of(index, 20), held_out, weight)
    return Task(model, data, settings, AFRESH, torch.Generator().manual_seed(seed))


CASES = {
    "contrastive divergence": lambda k: make_task(k % 2, learning_rate=0.05 * (k + 1)),
    "three steps": lambda k: make_task(k, n_gibbs_steps=3, centered=False),
    "persistent": lambda k: make_task(k % 2, persistent=True, learning_rate=0.05 * (k + 1)),
    "persistent, one stream": lambda k: make_task(
        0, persistent=True, n_gibbs_steps=2, learning_rate=0.05 * (k + 1)
    ),
    "more chains than rows": lambda k: make_task(k, persistent=True, n_chains=30),
    "real columns": lambda k: make_task(k, units=Gaussian(), learning_rate=0.01 * (k + 1)),
    "penalties": lambda k: make_task(
        k, penalties=[WeightDecay(0.1 * k), CodeKL(0.2, 0.1 + 0.1 * k)]
    ),
    "folds differ by a row": lambda k: make_task(k, n_rows=47 - k, persistent=True),
    "weights, held-out rows": lambda k: make_task(
        k, weighted=True, hold_out=True, penalties=[WeightDecay(0.1)], optimizer="adam",
        learning_rate=0.01 * (k + 1),
    ),
    "weights, persistent, rows": lambda k: make_task(
        k, n_rows=47 - k, weighted=k > 0, persistent=True
    ),
    "lengths": lambda k: make_task(k, n_epochs=2 + 3 * k, persistent=True),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_as_each_by_itself(case):
    alone, together = [[CASES[case](k).run() for k in range(3)] for _ in range(2)]
    assert len({likeness(run) for run in together} - {None}) == 1
    trainings = [train(run) for run in alone]
    for run, other, one, two in zip(
        alone, together, trainings, train_jointly(together), strict=True
    ):
        torch.testing.assert_close(other.theta.flat, run.theta.flat, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(two.loss_curve, one.loss_curve, rtol=1e-9)
        np.testing.assert_allclose(two.validation_curve, one.validation_curve, rtol=1e-9)
        assert (two.outcome, two.kept_epoch) == (one.outcome, one.kept_epoch)
        assert (other.generator.get_state() == run.generator.get_state()).all()
        # Chains, which of them moved, and offsets.
        state, expected = other.objective.state, run.objective.state
        assert state.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(state[name], value, rtol=1e-8, atol=1e-10)


def test_what_cannot_be_one_is_alone():
    assert likeness(make_task(units=Multinomial()).run()) is None
    assert likeness(make_task(least_variance=0.1, units=Gaussian()).run()) is None
    assert likeness(make_task(n_checkpoints=2).run()) is None
    assert likeness(make_task().run()) != likeness(make_task(persistent=True).run())
    assert likeness(make_task().run()) != likeness(make_task(n_gibbs_steps=2).run())
    assert likeness(make_task().run()) != likeness(make_task(units=SquaredError()).run())
    going_on = make_task(persistent=True).run()
    going_on.objective.state["chains"] = torch.zeros(10, N_HIDDEN)
    assert likeness(going_on) is None


def test_what_is_not_alike_is_trained_all_the_same():
    tasks = [lambda k=k: make_task(persistent=k > 0, learning_rate=0.1 * (k + 1)) for k in range(3)]
    for task, found in zip(tasks, train_all([task() for task in tasks]), strict=True):
        expected = fit_alone(task()).weights["weight_0"]
        np.testing.assert_allclose(found.weights["weight_0"], expected, rtol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n_rows", [20, 3000])
def test_coins_are_those_of_draws(dtype, n_rows):
    """Few are drawn in another way than many."""
    one, two = (torch.Generator().manual_seed(3) for _ in range(2))
    probability = torch.rand(n_rows, 8, generator=torch.Generator().manual_seed(1), dtype=dtype)
    drawn, numbers = bernoulli(probability, one), coins(probability.shape, probability, two)
    assert ((numbers >= 0) & (numbers < 1)).all()
    # Where both round otherwise, once in millions, they may differ.
    assert ((numbers < probability) == (drawn > 0)).double().mean() > 0.9999
    assert (one.get_state() == two.get_state()).all()


@pytest.mark.parametrize("units", [Bernoulli(), Gaussian()])
def test_units_are_drawn_by_their_noise(units):
    a = torch.linspace(-2, 2, 60, dtype=torch.float64).view(20, 3)
    one, two = (torch.Generator().manual_seed(3) for _ in range(2))
    expected = units.sample(a, one)
    torch.testing.assert_close(units.drawn(a.clone(), units.noise(a.shape, a, two)), expected)
