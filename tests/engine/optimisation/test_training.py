"""The training loop: batches, schedules, stopping, what is kept when things go wrong."""

import dataclasses
import itertools
import math

import pytest
import torch

from skae.engine.boltzmann.energies import BipartiteMachine
from skae.engine.boltzmann.learning import ContrastiveDivergence
from skae.engine.networks.corruptions import Masking
from skae.engine.networks.layers import Network, initialize_
from skae.engine.networks.objectives import Reconstruction
from skae.engine.networks.units import Bernoulli
from skae.engine.optimisation.optimizers import OPTIMIZERS, SGD
from skae.engine.optimisation.parameters import Parameters
from skae.engine.optimisation.rows import DenseRows
from skae.engine.optimisation.runs import (
    Data,
    Objective,
    Run,
    Settings,
    epochs_for,
    gradient_by_autograd,
)
from skae.engine.optimisation.schedules import SCHEDULES
from skae.engine.optimisation.training import train
from skae.engine.optimisation.watching import evaluate

N_ROWS = 23


class Scored(Objective):
    """An objective whose criterion is its value."""

    def criterion(self, theta, x, generator, row_weight=None):
        return self.value(theta, x, generator, row_weight)


class Quadratic(Scored):
    """1/2 |theta - x|^2, a mean over rows: its minimum is the rows' mean."""

    def value(self, theta, x, generator, row_weight=None):
        loss = 0.5 * (theta["point"] - x).square().sum(1)
        return (loss if row_weight is None else loss * row_weight).mean()

    def gradient(self, theta, x, generator, out, row_weight=None):
        difference = theta["point"] - x
        if row_weight is not None:
            difference = difference * row_weight.unsqueeze(1)
        out["point"].copy_(difference.mean(0))
        return self.value(theta, x, generator, row_weight)


class Recorder(Scored):
    """An objective without gradient that remembers the batches it was shown."""

    def __init__(self):
        self.batches, self.weights = [], []

    def value(self, theta, x, generator, row_weight=None):
        return torch.zeros((), dtype=x.dtype)

    def gradient(self, theta, x, generator, out, row_weight=None):
        self.batches.append(x[:, 0].tolist())
        self.weights.append(None if row_weight is None else row_weight.tolist())
        out.flat.zero_()
        return torch.zeros((), dtype=x.dtype)


class Script(Scored):
    """An objective whose loss in each epoch is scripted; theta counts the steps.

    A scripted exception is raised instead of returned.
    """

    def __init__(self, losses, validation_losses=()):
        self.losses, self.validation_losses = list(losses), list(validation_losses)
        self.epoch = 0

    def value(self, theta, x, generator, row_weight=None):
        # Before the first epoch, far above all that follows.
        losses = [1000.0, *self.validation_losses]
        return torch.tensor(losses[self.epoch], dtype=torch.float64)

    def gradient(self, theta, x, generator, out, row_weight=None):
        loss = self.losses[self.epoch]
        self.epoch += 1
        if isinstance(loss, type):
            raise loss
        out.flat.fill_(-1.0)  # one step of SGD with rate 1 adds 1
        return torch.tensor(loss, dtype=torch.float64)


class RateRecorder:
    """An optimiser that only remembers the learning rates it was given."""

    slots = ()

    def __init__(self):
        self.rates = []

    def update_(self, theta, gradient, state, learning_rate):
        self.rates.append(learning_rate)


@pytest.fixture
def theta():
    return Parameters({"point": (2,)}, torch.zeros(2, dtype=torch.float64))


@pytest.fixture
def rows():
    # The first column is the row's number, by which recorded batches are recognised.
    numbers = torch.arange(N_ROWS, dtype=torch.float64)
    return DenseRows(torch.stack([numbers, -numbers], 1))


def run(theta, objective, rows, **changes):
    """Train with settings that suit the fake objectives: SGD, rate 1, one batch an epoch."""
    names = [field.name for field in dataclasses.fields(Settings)]
    settings = {"optimizer": SGD(0.0), "learning_rate": 1.0, "max_iter": 10}
    settings |= {"batch_size": len(rows)}
    settings |= {name: changes.pop(name) for name in names if name in changes}
    parts = {"index": torch.arange(len(rows))}
    names = ["index", "probe", "held_out", "weight"]
    data = Data(rows, **parts | {name: changes.pop(name) for name in names if name in changes})
    generator = changes.pop("generator", None) or torch.Generator().manual_seed(0)
    return train(Run(theta, objective, data, Settings(**settings), generator, **changes))


# Batches


@pytest.mark.parametrize("batch_size", [1, 4, 5, 22, 23, 1000])
def test_every_row_is_visited_once_per_epoch(batch_size, theta, rows):
    recorder = Recorder()
    run(theta, recorder, rows, batch_size=batch_size, max_iter=3)
    n_batches = math.ceil(N_ROWS / batch_size)
    assert len(recorder.batches) == 3 * n_batches
    visits = list(itertools.chain.from_iterable(recorder.batches))
    epochs = [visits[i * N_ROWS : (i + 1) * N_ROWS] for i in range(3)]
    for epoch in epochs:
        # An epoch is a permutation: each row once.
        assert sorted(epoch) == list(range(N_ROWS))
    # And a fresh one each time (that two of 23! agree has no chance).
    assert epochs[0] != epochs[1] != epochs[2]
    sizes = {len(batch) for batch in recorder.batches}
    # ceil(n / batch_size) parts as equal as can be, none above batch_size.
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= batch_size


def test_only_the_chosen_rows_are_visited(theta, rows):
    recorder = Recorder()
    run(theta, recorder, rows, index=torch.tensor([2, 3, 5, 7]), batch_size=2, max_iter=2)
    # ``index`` is the training set; held-out rows must never be trained on.
    assert sorted(itertools.chain.from_iterable(recorder.batches)) == [2, 2, 3, 3, 5, 5, 7, 7]


def test_weights_follow_their_rows(theta, rows):
    recorder = Recorder()
    weight = torch.arange(N_ROWS, dtype=torch.float64) / 11
    run(theta, recorder, rows, weight=weight, batch_size=4, max_iter=2)
    for batch, weights in zip(recorder.batches, recorder.weights, strict=True):
        # Row i has weight i / 11, in whatever batch it comes.
        assert weights == [weight[int(i)].item() for i in batch]


# Progress


def test_a_step_is_taken_against_the_gradient(theta, rows):
    run(theta, Quadratic(), rows, max_iter=1)
    # From 0 with rate 1, theta - (theta - mean) is the mean of all rows.
    torch.testing.assert_close(theta.flat, rows.tensor.mean(0))


def test_gradients_by_autograd_are_written_afresh(theta, rows):
    objective, out = Quadratic(), theta.empty_like()
    x, expected = rows.tensor, theta.empty_like()
    value = objective.gradient(theta, x, None, expected)
    for _ in range(2):
        # Whatever was there before, and whatever the last call has left.
        found = gradient_by_autograd(objective.value, theta, x, None, out, None)
        torch.testing.assert_close(out.flat, expected.flat)
        torch.testing.assert_close(found, value)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_all_optimizers_train_an_auto_encoder(optimizer, generator):
    network = Network((12, 4))
    x = torch.rand(60, 12, dtype=torch.float64, generator=generator).round()
    theta = Parameters(network.parameter_shapes, dtype=torch.float64)
    initialize_(theta, network, torch.zeros(12), generator)
    objective = Reconstruction(network, Bernoulli(), Masking(0.1))
    before = evaluate(theta, objective, Data(DenseRows(x), torch.arange(60)), torch.arange(60))
    training = run(
        theta,
        objective,
        DenseRows(x),
        optimizer=OPTIMIZERS[optimizer](0.5),
        learning_rate=0.03,
        batch_size=20,
        max_iter=40,
    )
    # Descent lowers the criterion, here on the same rows and with the same noise.
    assert (
        evaluate(theta, objective, Data(DenseRows(x), torch.arange(60)), torch.arange(60))
        < 0.95 * before
    )
    # The curve has one loss for each epoch, and ends lower than it began.
    assert len(training.loss_curve) == 40
    assert training.loss_curve[-1] < training.loss_curve[0]
    assert training.outcome == "max_iter"


def test_loss_curve_is_the_mean_of_the_batches(theta, rows):
    training = run(theta, Quadratic(), rows, learning_rate=0.0, batch_size=1, max_iter=2)
    expected = Quadratic().value(theta, rows.tensor, None).item()
    # With rate 0 nothing moves: every epoch's loss is the mean over all rows.
    assert training.loss_curve == pytest.approx([expected, expected], rel=1e-12)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules(schedule, theta, rows):
    optimizer = RateRecorder()
    run(
        theta,
        Recorder(),
        rows,
        optimizer=optimizer,
        schedule=schedule,
        learning_rate=0.4,
        batch_size=6,
        max_iter=5,
    )
    progress = [step / 20 for step in range(20)]
    late = [(p - 0.05) / 0.95 for p in progress[1:]]
    expected = {
        "constant": [0.4] * 20,
        "linear": [0.4 * (1 - p) for p in progress],
        "cosine": [0.4 * (1 + math.cos(math.pi * p)) / 2 for p in progress],
        # One step in twenty is the whole warm-up.
        "warmup_cosine": [0.02] + [0.2 * (1 + math.cos(math.pi * p)) for p in late],
    }[schedule]
    # A course over all steps of the training, from the full rate towards zero at its end.
    assert optimizer.rates == pytest.approx(expected, rel=1e-12)


def test_warm_up_rises_to_the_full_rate():
    rates = [SCHEDULES["warmup_cosine"](k / 1000) for k in range(1000)]
    # A straight line from a twentieth to the full rate, reached where the half cosine begins.
    assert rates[:50] == pytest.approx([0.05 + 0.95 * k / 50 for k in range(50)])
    assert rates[50] == max(rates) == 1.0
    assert rates[50:] == sorted(rates[50:], reverse=True)
    assert rates[-1] < 1e-5


@pytest.mark.parametrize(
    ("n_rows", "n_columns", "batch_size", "n_epochs"),
    [(40, 4, 100, 600), (1000, 4, 100, 60), (1001, 4, 100, 55), (10**6, 100, 100, 5)],
)
def test_epochs_make_up_enough_steps(n_rows, n_columns, batch_size, n_epochs):
    # 400 + 100 sqrt(n_columns) steps, in whole epochs of whole batches; never fewer than five.
    assert epochs_for(n_rows, n_columns, batch_size) == n_epochs


def test_epochs_may_be_left_to_the_rows(theta, rows):
    heard = []
    training = run(theta, Recorder(), rows, max_iter=None, listener=heard.append)
    # One batch an epoch: the rule's number of steps, which listeners are told beforehand.
    assert len(training.loss_curve) == epochs_for(N_ROWS, 2, N_ROWS) == 542
    assert heard[0].max_iter == 542


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([float(100 - k) for k in range(40)], 4 / 37.5),  # a straight line
        ([100.0, *[0.0] * 39], 0.0),  # at its end since long
        ([100.0, *[50.0] * 31, *[50.0, 70.0] * 2, *[40.0, 60.0] * 2], 10 / 50),  # noisy
        ([float(k) for k in range(40)], 0.0),  # it rises
    ],
)
def test_unfinished_is_the_share_of_the_last_tenth(losses, expected, theta, rows):
    training = run(theta, Script(losses, [1.0] * 40), rows, max_iter=40)
    # Mean losses of the last four epochs against the four before, over the whole fall.
    assert training.unfinished == pytest.approx(expected)
    # A schedule has brought the steps to nothing: more of the same was never to come.
    training = run(theta, Script(losses, [1.0] * 40), rows, max_iter=40, schedule="linear")
    assert training.unfinished == 0


def test_training_resumes_where_it_ended(rows):
    def start():
        return Parameters({"point": (2,)}, torch.zeros(2, dtype=torch.float64))

    settings = {"optimizer": OPTIMIZERS["adam"](0.0), "learning_rate": 0.1, "batch_size": 5}
    whole, halves, generator = start(), start(), torch.Generator().manual_seed(0)
    full = run(whole, Quadratic(), rows, max_iter=6, **settings)
    first = run(halves, Quadratic(), rows, max_iter=3, generator=generator, **settings)
    second = run(
        halves,
        Quadratic(),
        rows,
        max_iter=3,
        generator=generator,
        state=first.optimizer_state,
        **settings,
    )
    # Parameters, moments and generator are all the state there is: two halves are the whole.
    assert torch.equal(halves.flat, whole.flat)
    assert first.loss_curve + second.loss_curve == full.loss_curve


def test_training_depends_on_its_generator_alone(theta, rows):
    state = torch.get_rng_state()
    first = run(theta, Quadratic(), rows, batch_size=3, learning_rate=0.1)
    theta.flat.zero_()
    second = run(theta, Quadratic(), rows, batch_size=3, learning_rate=0.1)
    theta.flat.zero_()
    other = torch.Generator().manual_seed(1)
    third = run(theta, Quadratic(), rows, batch_size=3, learning_rate=0.1, generator=other)
    # Same seed, same bits; another seed, other batches.
    assert first.loss_curve == second.loss_curve != third.loss_curve
    # The global generator is neither read nor changed.
    assert torch.equal(torch.get_rng_state(), state)


def test_projection_is_applied_after_every_step(theta, rows):
    def project(theta):
        theta["point"].clamp_(max=1.0)

    seen = []
    run(
        theta,
        Quadratic(),
        rows,
        batch_size=5,
        max_iter=3,
        learning_rate=0.5,
        project=project,
        listener=lambda epoch: seen.append(theta.flat.clone()),
    )
    # The steps pull towards (11, -11); the constraint holds after every one of them.
    assert all(flat.max() == 1.0 for flat in seen)
    # What is not constrained goes on.
    assert theta.flat[1] < -5


# Stopping


@pytest.mark.parametrize(("tol", "patience", "n_epochs"), [(0.0, 2, 10), (0.01, 2, 6), (0.5, 3, 7)])
def test_convergence_counts_epochs_without_progress(tol, patience, n_epochs, theta, rows):
    losses = [100.0, 60.0, 20.0, 10.0, 9.8, 9.6, 9.4, 9.2, 9.0, 8.8]
    training = run(
        theta, Script(losses), rows, tol=tol, n_iter_no_change=patience, max_iter=len(losses)
    )
    # Progress is a fall by more than tol of the whole fall so far. After 10.0 (a fall of 90) one
    # of 0.2 per epoch is progress for tol = 0, and none for 0.01 or 0.5: the patience runs out.
    assert len(training.loss_curve) == min(n_epochs, len(losses))
    assert training.outcome == ("converged" if n_epochs < len(losses) else "max_iter")


@pytest.mark.parametrize(("scale", "offset"), [(1000.0, 0.0), (1e-3, 0.0), (1.0, -500.0)])
def test_convergence_does_not_depend_on_the_unit_of_the_loss(scale, offset, theta, rows):
    losses = [100.0, 60.0, 20.0, 10.0, 9.8, 9.6, 9.4, 9.2, 9.0, 8.8]
    settings = {"tol": 0.01, "n_iter_no_change": 3, "max_iter": len(losses)}
    plain = run(theta, Script(losses), rows, **settings)
    other = run(theta, Script([scale * loss + offset for loss in losses]), rows, **settings)
    # The fall so far is the scale, so multiples and shifts of a loss stop at the same epoch.
    assert len(plain.loss_curve) == len(other.loss_curve) < len(losses)


def test_without_patience_training_goes_on(theta, rows):
    training = run(theta, Script([1.0] * 10), rows, tol=1.0, n_iter_no_change=None)
    # None means never before max_iter.
    assert (training.outcome, len(training.loss_curve)) == ("max_iter", 10)


def test_validation_keeps_the_best_epochs_weights(theta, rows):
    script = Script([1.0] * 8, validation_losses=[9.0, 5.0, 3.0, 4.0, 3.5, 6.0, 7.0, 7.5])
    held_out = torch.tensor([0, 1])
    training = run(
        theta, script, rows, index=torch.arange(2, N_ROWS), held_out=held_out, max_iter=8
    )
    # Theta counts epochs: the best held-out loss was after the third.
    assert theta.flat.tolist() == [3.0, 3.0]
    # The curve tells what happened to the end.
    assert training.validation_curve == script.validation_losses


def test_validation_decides_on_convergence(theta, rows):
    script = Script(
        [10.0 - i for i in range(8)], validation_losses=[9.0, 5.0, 5.0, 5.0, 5.0, 1.0, 1.0, 1.0]
    )
    training = run(
        theta,
        script,
        rows,
        held_out=torch.tensor([0]),
        n_iter_no_change=3,
        max_iter=8,
    )
    # The training loss falls to the end, but held-out rows have seen no progress for 3 epochs.
    assert (training.outcome, len(training.loss_curve)) == ("converged", 5)


def test_evaluation_is_the_mean_and_repeats_its_noise(generator):
    network = Network((6, 3))
    theta = Parameters(network.parameter_shapes, dtype=torch.float64)
    theta.flat.normal_(generator=generator)
    rows = DenseRows(torch.rand(N_ROWS, 6, dtype=torch.float64, generator=generator))
    index = torch.tensor([1, 4, 9, 16, 22])
    clean = Reconstruction(network, Bernoulli())
    with torch.no_grad():
        expected = clean.value(theta, rows.tensor[index], None).item()
        # Batches weigh by their sizes, so that splitting 5 rows as 2 + 2 + 1 changes nothing.
        for batch_size in (1, 2, 5, 1024):
            value = evaluate(theta, clean, Data(rows, index), index, batch_size=batch_size)
            assert value == pytest.approx(expected, rel=1e-12)
        noisy = Reconstruction(network, Bernoulli(), Masking(0.5))
        # Validation losses of different epochs are comparable: the noise is the same.
        assert evaluate(theta, noisy, Data(rows, index), index) == evaluate(
            theta, noisy, Data(rows, index), index
        )


def test_a_listener_hears_and_stops(theta, rows):
    heard = []

    def listener(epoch):
        heard.append(epoch)
        return epoch.number == 3

    script = Script([5.0, 4.0, 3.0, 2.0], validation_losses=[8.0, 7.0, 6.0, 5.0])
    training = run(theta, script, rows, held_out=torch.tensor([0]), listener=listener)
    assert training.outcome == "stopped"
    # It is told after every epoch what there is to know ...
    assert [epoch.number for epoch in heard] == [1, 2, 3]
    assert [epoch.loss for epoch in heard] == training.loss_curve == [5.0, 4.0, 3.0]
    assert [epoch.validation_loss for epoch in heard] == training.validation_curve
    assert {epoch.max_iter for epoch in heard} == {10}
    # ... and time does not run backwards.
    assert 0 <= heard[0].seconds <= heard[1].seconds <= heard[2].seconds


# What is kept when things go wrong


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_divergence_leaves_the_best_finite_weights(bad, theta, rows):
    training = run(theta, Script([5.0, 4.0, bad, 1.0]), rows)
    assert training.outcome == "diverged"
    # Finite epochs only; and the weights that the best of them, the second, began with.
    assert training.loss_curve == [5.0, 4.0]
    assert theta.flat.tolist() == [1.0, 1.0]


def test_weights_that_are_not_finite_are_divergence_too(theta, rows):
    class Overflow(Script):
        def gradient(self, theta, x, generator, out, row_weight=None):
            loss = super().gradient(theta, x, generator, out, row_weight)
            if self.epoch == 3:
                out.flat.fill_(math.nan)
            return loss

    training = run(theta, Overflow([5.0, 4.0, 3.0, 2.0]), rows)
    # The loss is that of the weights before the step; the weights themselves must be finite.
    assert training.outcome == "diverged"
    assert theta.flat.tolist() == [1.0, 1.0]


def test_divergence_in_the_first_epoch_leaves_the_start(theta, rows):
    theta.flat.fill_(7.0)
    training = run(theta, Script([math.nan]), rows)
    # Nothing finite was learned: what is left is where training began.
    assert (training.outcome, training.loss_curve) == ("diverged", [])
    assert theta.flat.tolist() == [7.0, 7.0]


def test_an_exploded_loss_is_divergence(theta, rows):
    training = run(theta, Script([5.0, 4.0, 50.0, 5000.0]), rows, max_iter=4)
    # Finite, but far above where it began: the weights that the best epoch began with are kept.
    assert training.outcome == "diverged"
    assert theta.flat.tolist() == [1.0, 1.0]


def test_a_learning_rate_that_is_too_large_is_noticed(theta, rows):
    training = run(theta, Quadratic(), rows, learning_rate=3.0, max_iter=2000)
    # Each step doubles the distance from the minimum, until it overflows.
    assert training.outcome == "diverged"
    assert torch.isfinite(theta.flat).all()
    assert all(map(math.isfinite, training.loss_curve))


def test_divergence_does_not_keep_worse_weights_than_the_start(theta, rows):
    start = Quadratic().value(theta, rows.tensor, None)
    training = run(theta, Quadratic(), rows, learning_rate=3.0, max_iter=2000)
    assert training.outcome == "diverged"
    # Every step went away from the minimum: the best weights are those of the start.
    assert Quadratic().value(theta, rows.tensor, None) <= start


@pytest.mark.parametrize("held_out", [False, True])
def test_interruption_leaves_a_usable_model(held_out, theta, rows):
    script = Script([5.0, 4.0, KeyboardInterrupt], validation_losses=[3.0, 3.5])
    watched = torch.tensor([0]) if held_out else None
    training = run(theta, script, rows, held_out=watched)
    # Ctrl-C ends a training, not a program: two epochs were run.
    assert training.outcome == "interrupted"
    assert training.loss_curve == [5.0, 4.0]
    # What is kept is what a regular end would keep: the last epoch's weights, or the best one's.
    assert theta.flat.tolist() == ([1.0, 1.0] if held_out else [2.0, 2.0])


def test_interruption_by_the_listener_counts(theta, rows):
    def listener(epoch):
        if epoch.number == 2:
            raise KeyboardInterrupt

    training = run(theta, Quadratic(), rows, listener=listener)
    # Ctrl-C may come at any time, also while progress is being shown.
    assert (training.outcome, len(training.loss_curve)) == ("interrupted", 2)


def test_other_errors_pass_and_restore_the_threads(theta, rows, set_threads):
    set_threads(2)
    # An error of the objective is the caller's to see, not to be taken for an interruption.
    with pytest.raises(ZeroDivisionError):
        run(theta, Script([5.0, ZeroDivisionError]), rows)
    # The loop's limit of threads ends with it.
    assert torch.get_num_threads() == 2


# Objectives whose gradient says nothing about progress


class Silent(Quadratic):
    """Descends like `Quadratic` but returns nothing: only its criterion tells how far."""

    reports_loss = False

    def gradient(self, theta, x, generator, out, row_weight=None):
        super().gradient(theta, x, generator, out, row_weight)


class SilentScript(Script):
    """Scripted criteria: on the probe, on the held-out row 0; theta counts the steps."""

    reports_loss = False

    def criterion(self, theta, x, generator, row_weight=None):
        losses = [1000.0, *(self.validation_losses if (x == 0).all() else self.losses)]
        loss = losses[self.epoch]
        if isinstance(loss, type):
            raise loss
        return torch.tensor(loss, dtype=torch.float64)

    def gradient(self, theta, x, generator, out, row_weight=None):
        self.epoch += 1
        out.flat.fill_(-1.0)  # one step of SGD with rate 1 adds 1


class SilentNoise(Silent):
    """A criterion with noise far above any progress."""

    is_noisy = True

    def criterion(self, theta, x, generator, row_weight=None):
        noise = torch.randn((), dtype=x.dtype, generator=generator)
        return self.value(theta, x, generator, row_weight) + 1e6 * noise


PROBE = torch.tensor([2, 9, 14, 21])


@pytest.mark.parametrize("weighted", [False, True])
def test_criterion_on_the_probe_is_the_loss(weighted, theta, rows):
    weight = torch.linspace(0.5, 1.5, N_ROWS, dtype=torch.float64) if weighted else None
    heard, points = [], []

    def listener(epoch):
        heard.append(epoch.loss)
        points.append(theta["point"].clone())

    settings = {"batch_size": 6, "learning_rate": 0.1, "max_iter": 4, "weight": weight}
    training = run(theta, Silent(), rows, probe=PROBE, listener=listener, **settings)
    share = torch.ones(4).double() if weight is None else weight[PROBE]
    expected = [
        (0.5 * (point - rows.tensor[PROBE]).square().sum(1) * share).sum().item()
        / share.sum().item()
        for point in points
    ]
    # The criterion's weighted mean over the probe's rows, by the weights after each epoch.
    assert training.loss_curve == pytest.approx(expected, rel=1e-12)
    # The listener is told the same.
    assert heard == training.loss_curve
    other = Parameters(theta.shapes, torch.zeros(2, dtype=torch.float64))
    run(other, Quadratic(), rows, **settings)
    # What is learned is up to the gradient; returning its loss makes no difference.
    assert torch.equal(other.flat, theta.flat)


def test_noise_of_the_criterion_is_always_the_same(theta, rows):
    settings = {"learning_rate": 0.0, "max_iter": 3, "probe": PROBE}
    training = run(theta, SilentNoise(), rows, **settings)
    # With rate 0 nothing moves, and equal noise makes equal losses: epochs are comparable.
    assert len(set(training.loss_curve)) == 1
    quiet, noisy = (Parameters(theta.shapes, torch.zeros(2, dtype=torch.float64)) for _ in range(2))
    settings |= {"learning_rate": 0.1, "batch_size": 5}
    run(quiet, Silent(), rows, **settings)
    run(noisy, SilentNoise(), rows, **settings)
    # The probe has a generator of its own: batches do not depend on what it draws.
    assert torch.equal(quiet.flat, noisy.flat)


def test_probe_is_evaluated_in_large_calls(theta, rows):
    sizes = []

    class Sized(Silent):
        def criterion(self, theta, x, generator, row_weight=None):
            sizes.append(len(x))
            return super().criterion(theta, x, generator, row_weight)

    run(theta, Sized(), rows, batch_size=2, max_iter=2, probe=torch.arange(N_ROWS))
    # Nothing in a criterion depends on the batch's size: one call before and one after each
    # epoch, not one for each two rows.
    assert sizes == [N_ROWS] * 3


def test_held_out_rows_are_judged_by_the_criterion_too(theta, rows):
    script = SilentScript(
        [9.0, 8.0, 7.0, 6.0, 5.0, 4.0], validation_losses=[9.0, 5.0, 3.0, 4.0, 3.5, 6.0]
    )
    training = run(
        theta,
        script,
        rows,
        index=torch.arange(1, N_ROWS),
        held_out=torch.tensor([0]),
        probe=PROBE,
        max_iter=6,
    )
    # One curve from the probe, one from the held-out rows.
    assert training.loss_curve == script.losses
    assert training.validation_curve == script.validation_losses
    # The weights of the best epoch on the held-out rows, the third, are kept.
    assert theta.flat.tolist() == [3.0, 3.0]
    assert training.kept_epoch == 3


def test_criterion_decides_on_convergence(theta, rows):
    losses = [9.0, 5.0, 4.0, 4.0, 4.0, 1.0, 1.0]
    training = run(theta, SilentScript(losses), rows, probe=PROBE, n_iter_no_change=2, max_iter=7)
    # Two epochs without a fall of the criterion use up the patience.
    assert (training.outcome, training.loss_curve) == ("converged", losses[:5])
    # Unlike on held-out rows, what was learned last is kept.
    assert theta.flat.tolist() == [5.0, 5.0]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_criterion_that_is_not_finite_is_divergence(bad, theta, rows):
    training = run(theta, SilentScript([5.0, 4.0, bad, 1.0]), rows, probe=PROBE)
    assert training.outcome == "diverged"
    # Finite epochs only; and the weights that the best of them, the second, ended with: its
    # criterion was measured after it.
    assert training.loss_curve == [5.0, 4.0]
    assert theta.flat.tolist() == [2.0, 2.0]
    assert training.kept_epoch == 2


def test_explosion_of_the_criterion_is_divergence(theta, rows):
    training = run(theta, SilentScript([5.0, 4.0, 50.0, 5000.0]), rows, probe=PROBE, max_iter=4)
    # Finite, but far above where it began: the best epoch's weights are kept.
    assert training.outcome == "diverged"
    assert theta.flat.tolist() == [2.0, 2.0]


def test_weights_that_are_not_finite_are_divergence_whatever_the_criterion(theta, rows):
    class Overflow(SilentScript):
        def gradient(self, theta, x, generator, out, row_weight=None):
            super().gradient(theta, x, generator, out, row_weight)
            if self.epoch == 3:
                out.flat.fill_(math.nan)

    training = run(theta, Overflow([5.0, 4.0, 3.0, 2.0]), rows, probe=PROBE)
    # A criterion may not see them all: a hidden unit that is off hides its weights.
    assert training.outcome == "diverged"
    assert theta.flat.tolist() == [2.0, 2.0]


@pytest.mark.parametrize(
    ("baseline", "outcome"), [(2.0, "max_iter"), (0.5, "diverged"), (None, "diverged")]
)
def test_a_start_that_is_nearly_perfect_may_be_left(baseline, outcome, theta, rows):
    class GoodStart(SilentScript):
        def criterion(self, theta, x, generator, row_weight=None):
            return torch.tensor([0.1, *self.losses][self.epoch], dtype=torch.float64)

    script = GoodStart([0.9, 0.8, 0.7])
    if baseline is not None:
        script.baseline = baseline
    training = run(theta, script, rows, probe=PROBE, max_iter=3)
    # 0.7 is seven times the loss of the start, and nothing beside that of a model which knows
    # nothing, where the objective says what that is.
    assert training.outcome == outcome
    assert theta.flat.tolist() == ([3.0, 3.0] if outcome == "max_iter" else [0.0, 0.0])


@pytest.mark.parametrize("losses", [[-5.1, -5.2, -5.3], [-5.0, -5.0, -5.0], [-4.9, -5.1, -4.95]])
def test_densities_above_one_are_no_divergence(losses, theta, rows):
    class Continued(SilentScript):
        def criterion(self, theta, x, generator, row_weight=None):
            if self.epoch == 0:
                return torch.tensor(-5.0, dtype=torch.float64)  # an earlier training's end
            return super().criterion(theta, x, generator, row_weight)

    script = Continued(losses)
    training = run(theta, script, rows, probe=PROBE, max_iter=3)
    # With learned variances a log-density may be positive, its loss negative: falling, or as
    # good as unchanged, it has not exploded.
    assert (training.outcome, theta.flat.tolist()) == ("max_iter", [3.0, 3.0])


def test_interruption_leaves_a_usable_model_without_losses(theta, rows):
    for held_out in (False, True):
        theta.flat.zero_()
        script = SilentScript([5.0, 4.0, KeyboardInterrupt], validation_losses=[3.0, 3.5])
        training = run(
            theta,
            script,
            rows,
            probe=PROBE,
            held_out=torch.tensor([0]) if held_out else None,
        )
        # Ctrl-C while the criterion is evaluated, after the third epoch's step: two were run.
        assert (training.outcome, training.loss_curve) == ("interrupted", [5.0, 4.0])
        # What a regular end would keep: the weights there are, or the best epoch's.
        assert theta.flat.tolist() == ([1.0, 1.0] if held_out else [3.0, 3.0])


def test_contrastive_divergence_learns(generator):
    patterns = torch.tensor([[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1], [1, 0, 1, 0, 1, 0]])
    x = patterns[torch.randint(3, (300,), generator=generator)].double()
    theta = Parameters(BipartiteMachine.shapes(6, 8), dtype=torch.float64)
    theta.flat.normal_(0, 0.1, generator=generator)

    def machine(theta):
        return BipartiteMachine(theta, Bernoulli())

    def log_likelihood():
        log_z = machine(theta).log_partition()
        return (-machine(theta).free_energy(x).mean() - log_z).item()

    before = log_likelihood()
    objective = ContrastiveDivergence(machine, persistent=True, n_chains=200)
    probe = torch.arange(0, 300, 3)
    training = run(
        theta,
        objective,
        DenseRows(x),
        learning_rate=0.1,
        batch_size=50,
        max_iter=60,
        probe=probe,
    )
    # -log P cannot be below the entropy of the data, log 3; independent units leave more than
    # 3 nats, and the machine learns about half of what is between, and more (exactly, by
    # enumeration).
    assert before < -3.0
    assert -math.log(3) - 1.0 < log_likelihood() < -math.log(3) + 0.1
    # The criterion falls along with it, and its last value is that of the weights that are kept.
    assert training.loss_curve[-1] < 0.5 * training.loss_curve[0]
    value = evaluate(theta, objective, Data(DenseRows(x), probe), probe)
    assert training.loss_curve[-1] == pytest.approx(value, rel=1e-12)


def test_projection_comes_before_the_criterion(theta, rows):
    def project(theta):
        theta["point"].clamp_(max=1.0)

    calls = []

    class Checked(Silent):
        def gradient(self, theta, x, generator, out, row_weight=None):
            calls.append(theta.flat.max().item())
            super().gradient(theta, x, generator, out, row_weight)

        def criterion(self, theta, x, generator, row_weight=None):
            calls.append(theta.flat.max().item())
            return super().criterion(theta, x, generator, row_weight)

    run(theta, Checked(), rows, batch_size=5, max_iter=3, project=project, probe=PROBE)
    # Steps of rate 1 lead to the batches' means, up to 22: neither the next gradient nor the
    # criterion ever sees weights outside the constraint ...
    assert max(calls) == 1.0
    # ... of which there were one before, and per epoch 5 gradients and one criterion.
    assert len(calls) == 1 + 3 * 6


@pytest.mark.parametrize(
    ("losses", "setback"),
    [
        ([600.0, 500.0], 0.0),
        ([500.0, 590.0], 0.0),  # less than a tenth of 1000: it may be noise
        ([500.0, 800.0], 0.6),
        ([1150.0], math.inf),
    ],
)
def test_setback_is_the_part_of_the_fall_that_was_lost(losses, setback, theta, rows):
    # From the 1000 of the start to the best loss, and back to the last.
    training = run(theta, SilentScript(losses), rows, max_iter=len(losses), probe=PROBE)
    assert training.setback == pytest.approx(setback)
    # Steps that descend on the loss itself are judged by it as they go.
    training = run(theta, Script(losses, losses), rows, max_iter=len(losses), probe=PROBE)
    assert training.setback == 0
