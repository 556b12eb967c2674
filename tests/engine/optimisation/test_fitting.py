"""One function fits any model: afresh, on from weights, on from a whole state."""

import dataclasses

import numpy as np
import pytest
import torch

from skae.engine.networks.corruptions import Masking
from skae.engine.networks.layers import Network
from skae.engine.networks.objectives import Reconstruction, auto_encoder
from skae.engine.networks.units import Bernoulli, Gaussian
from skae.engine.optimisation.devices import Place
from skae.engine.optimisation.models import (
    AFRESH,
    FittedModel,
    Start,
    fit_model,
    parameters_at,
    rows_that_count,
    some_of,
    split,
)
from skae.engine.optimisation.optimizers import OPTIMIZERS, SGD
from skae.engine.optimisation.parameters import Parameters
from skae.engine.optimisation.rows import DenseRows
from skae.engine.optimisation.runs import Data, Settings

NETWORK = Network((6, 3))
CPU = torch.device("cpu")


def make_model(corruption=None, **changes):
    def objective():
        return Reconstruction(NETWORK, Bernoulli(), corruption)

    model = auto_encoder(NETWORK, Bernoulli(), torch.zeros(6), objective)
    return dataclasses.replace(model, **changes)


def seeded():
    return torch.Generator().manual_seed(5)


@pytest.fixture
def data():
    x = torch.rand(40, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return Data(DenseRows(x), torch.arange(40))


def settings(optimizer="adam", **changes):
    rule = OPTIMIZERS[optimizer](0.5)
    return Settings(**{"optimizer": rule, "learning_rate": 0.1, "batch_size": 16} | changes)


def assert_same_bits(weights, others):
    assert weights.keys() == others.keys()
    for name, array in weights.items():
        np.testing.assert_array_equal(array, others[name])


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_training_that_resumes_is_one_training(optimizer, data):
    model = make_model(Masking(0.3))
    whole = fit_model(model, data, settings(optimizer, max_iter=5), generator=seeded())
    first = fit_model(model, data, settings(optimizer, max_iter=2), generator=seeded())
    # Weights, moments, random numbers and what the objective knows are all that there is: another
    # generator is set to where the first one was.
    start = Start(first.weights, first.state, resumes=True)
    other = torch.Generator().manual_seed(77)
    second = fit_model(model, data, settings(optimizer, max_iter=3), start, generator=other)
    assert_same_bits(second.weights, whole.weights)
    curves = first.training.loss_curve + second.training.loss_curve
    assert curves == whole.training.loss_curve


def test_a_start_from_weights_has_new_moments_and_random_numbers(data):
    model = make_model(Masking(0.3))
    first = fit_model(model, data, settings(max_iter=2), generator=seeded())
    plain = fit_model(model, data, settings(max_iter=1), Start(first.weights), generator=seeded())
    start = Start(first.weights, first.state)
    kept = fit_model(model, data, settings(max_iter=1), start, generator=seeded())
    # A state is there to resume from; who does not resume does not touch it.
    assert_same_bits(plain.weights, kept.weights)
    start = dataclasses.replace(start, resumes=True)
    resumed = fit_model(model, data, settings(max_iter=1), start, generator=seeded())
    assert not np.array_equal(resumed.weights["weight_0"], plain.weights["weight_0"])


def test_weights_at_the_start_are_those_that_were_given(data):
    weights = fit_model(make_model(), data, settings(max_iter=1), generator=seeded()).weights
    theta = parameters_at(Start(weights), make_model(), data, None)
    # No random number is drawn for them: there is no generator here.
    assert_same_bits(theta.to_numpy(), weights)
    # Weights of a fit are copies: they do not change with a later one.
    before = {name: array.copy() for name, array in weights.items()}
    fit_model(make_model(), data, settings(max_iter=1), Start(weights), generator=seeded())
    assert_same_bits(weights, before)


@pytest.mark.parametrize("state", ["other device", "other optimizer", "other shapes"])
def test_a_state_that_does_not_fit_is_not_used(state, data):
    model = make_model(Masking(0.3))
    first = fit_model(model, data, settings(max_iter=2), generator=seeded())
    kept = dict(first.state)
    if state == "other device":
        kept["device"] = "cuda"
    elif state == "other optimizer":
        kept["optimizer"] = {"velocity": np.zeros(3)}
    else:
        kept["shapes"] = {"weight_0": (6, 3)}
    start = Start(first.weights, kept, resumes=True)
    resumed = fit_model(model, data, settings(max_iter=1), start, generator=seeded())
    whole = Start(first.weights, first.state, resumes=True)
    whole = fit_model(model, data, settings(max_iter=1), whole, generator=seeded())
    # Moments of other parameters, and random numbers of another device's generator, are worse
    # than none: training goes on with new ones.
    assert np.isfinite(resumed.training.loss_curve).all()
    assert not np.array_equal(resumed.weights["weight_0"], whole.weights["weight_0"])


@pytest.mark.parametrize("was_learned", [False, True])
def test_weights_that_are_given_are_a_model(was_learned, data):
    held_out = dataclasses.replace(data, index=torch.arange(30), held_out=torch.arange(30, 40))
    good = fit_model(make_model(), held_out, settings(max_iter=30), generator=seeded()).weights
    start = Start(good, was_learned=was_learned)
    worse = settings("sgd", learning_rate=100.0, max_iter=2)
    fitted = fit_model(make_model(), held_out, worse, start, generator=seeded())
    # Nothing that made them worse on the held-out rows replaces them.
    assert fitted.training.kept_epoch == 0
    assert_same_bits(fitted.weights, good)
    # Weights that were drawn are no model: the better of two epochs is kept, though it is worse.
    afresh = fit_model(make_model(), held_out, settings(max_iter=2), generator=seeded())
    assert afresh.training.kept_epoch > 0


def test_epochs_that_resume_are_not_probed(data):
    calls = []

    class Counting(Reconstruction):
        def criterion(self, *args):
            calls.append(1)
            return super().criterion(*args)

    model = make_model(objective=lambda: Counting(NETWORK, Bernoulli()))
    probed = dataclasses.replace(data, probe=some_of(data.index))
    first = fit_model(model, probed, settings(max_iter=1), generator=seeded())
    n_calls = len(calls)
    start = Start(first.weights, first.state, resumes=True)
    fit_model(model, probed, settings(max_iter=1), start, generator=seeded())
    # One epoch tells nothing of how training goes, and `partial_fit` is called with little data.
    assert n_calls > 0
    assert len(calls) == n_calls


@pytest.mark.parametrize("keeps_state", [False, True])
def test_what_the_objective_knows_outlives_a_training_where_the_model_says_so(keeps_state, data):
    class Remembering(Reconstruction):
        def gradient(self, theta, x, generator, out, row_weight=None):
            self.state = {"seen": self.state.get("seen", 0) + len(x)}
            return super().gradient(theta, x, generator, out, row_weight)

    model = make_model(objective=lambda: Remembering(NETWORK, Bernoulli()), keeps_state=keeps_state)
    first = fit_model(model, data, settings(max_iter=1), generator=seeded())
    start = Start(first.weights, first.state)
    second = fit_model(model, data, settings(max_iter=1), start, generator=seeded())
    assert int(second.objective.state["seen"]) == (80 if keeps_state else 40)
    assert int(second.state["objective"]["seen"]) == (80 if keeps_state else 40)


def test_a_model_may_have_its_own_steps_and_constraint(data):
    seen = []

    def optimizer(objective):
        seen.append(objective)
        return SGD(0.0)

    def project(theta):
        theta["weight_0"].clamp_(min=0.0)

    model = make_model(optimizer=optimizer, project=project)
    fitted = fit_model(model, data, settings(max_iter=2), generator=seeded())
    # The rule is made for the objective of this training, in the place of the user's choice.
    assert seen == [fitted.objective]
    assert fitted.state["optimizer"].keys() == {"velocity"}
    assert (fitted.weights["weight_0"] >= 0).all()


def test_a_listener_is_told_the_parameters(data):
    told = []

    def listener(theta, epoch):
        told.append((epoch.number, theta["weight_0"].clone().numpy()))
        return epoch.number == 2

    fitted = fit_model(
        make_model(), data, settings(max_iter=9), generator=seeded(), listener=listener
    )
    assert fitted.training.outcome == "stopped"
    assert [number for number, _ in told] == [1, 2]
    np.testing.assert_array_equal(told[-1][1], fitted.weights["weight_0"])


def test_memory_is_asked_for_before_anything_is_made(data):
    def start_(*args):
        raise AssertionError("parameters were made")

    huge = make_model(shapes={"weight_0": (2**24, 2**24)}, start_=start_)
    with pytest.raises(MemoryError, match=r"Training Toy needs .* GiB on cpu.* fewer components"):
        fit_model(huge, data, settings(), generator=seeded(), name="Toy")
    long = make_model(numbers_per_row=2**50, start_=start_)
    # What a step holds for each row of a batch counts too.
    with pytest.raises(MemoryError, match=r"Inference for one batch .* a smaller batch_size"):
        fit_model(long, data, settings(), generator=seeded())


def test_rows_that_count_are_split_and_probed():
    assert rows_that_count(4, None).tolist() == [0, 1, 2, 3]
    # A row of weight 0 is left out.
    assert rows_that_count(4, np.array([0.0, 2.0, 0.0, 1.0])).tolist() == [1, 3]
    index = torch.arange(100) * 3
    kept, held_out = split(index, 0.2, seeded())
    assert (len(kept), len(held_out)) == (80, 20)
    # Each row is in one part, and the draw is up to the generator alone.
    assert sorted([*kept.tolist(), *held_out.tolist()]) == index.tolist()
    assert torch.equal(split(index, 0.2, seeded())[1], held_out)
    assert len(split(index, 1e-9, seeded())[1]) == 1
    with pytest.raises(ValueError, match=r"hold out 1 of n_samples=1 rows .* validation_fraction"):
        split(torch.arange(1), 0.1, seeded())
    # A probe is spread over all rows.
    assert some_of(torch.arange(2000)).tolist() == list(range(0, 2000, 4))
    assert some_of(torch.arange(7)).tolist() == list(range(7))


# The record


def test_a_model_sees_standardised_columns_and_answers_in_the_datas_units(data):
    shift, scale = torch.linspace(-1, 1, 6).double(), torch.linspace(1, 3, 6).double()
    objective = None
    model = auto_encoder(NETWORK, Gaussian(), torch.zeros(6), objective, shift, scale)
    theta = Parameters(model.shapes, dtype=torch.float64)
    model.start_(theta, data.rows, data.index, seeded())
    x = data.rows.tensor
    torch.testing.assert_close(model.standardized(x) * scale + shift, x)
    # For Gaussian units the mean is the pre-activation, in the data's own units.
    output = model.reconstruct(theta, model.standardized(x))
    torch.testing.assert_close(model.mean(output), output * scale + shift)
    fitted = FittedModel(model, theta)
    mapped = fitted.map_rows(lambda z: z.sum(1), x.numpy())
    np.testing.assert_allclose(mapped, model.standardized(x).sum(1).numpy())
    codes = fitted.map_rows(lambda z: model.encode(theta, z), x.numpy(), (3,))
    means = fitted.map_codes(lambda h: model.decode(theta, h), codes)
    # Codes are taken as they are.
    np.testing.assert_allclose(means, output.numpy())
    plain = make_model()
    assert plain.standardized(x) is x
    # Without a differentiable code of its own, the code is what `encode` returns.
    assert torch.equal(plain.code(theta, x), plain.encode(theta, x))


def test_single_precision_stays_single(data):
    rows = DenseRows(data.rows.tensor.float())
    assert rows.place == Place(torch.float32, CPU)
    single = dataclasses.replace(data, rows=rows)
    fitted = fit_model(make_model(), single, settings(max_iter=1), AFRESH, generator=seeded())
    # Parameters are of the rows' precision ...
    assert {array.dtype for array in fitted.weights.values()} == {np.dtype(np.float32)}
    # ... and start from the same draws in either.
    double = parameters_at(AFRESH, make_model(), data, seeded())
    starts = parameters_at(AFRESH, make_model(), single, seeded())
    torch.testing.assert_close(starts.flat.double(), double.flat, rtol=1e-7, atol=0)
