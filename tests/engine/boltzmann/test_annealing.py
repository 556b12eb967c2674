"""Annealed importance sampling against exact partition functions."""

import math

import pytest
import torch

from skae.engine.boltzmann.energies import TemperedPath
from skae.engine.boltzmann.samplers import (
    _estimate,
    annealed_importance_sampling,
    annealing_temperatures,
)
from skae.engine.optimisation.parameters import Parameters

KINDS = ["bernoulli", "gaussian", "gaussian_learned"]


def make_path(machine, base=0.0):
    return machine.tempered(torch.full_like(machine.visible_bias, base))


def estimate(path, n_temperatures=300, n_chains=100, seed=0, **settings):
    return annealed_importance_sampling(
        path,
        annealing_temperatures(n_temperatures),
        n_chains,
        torch.Generator().manual_seed(seed),
        **settings,
    )


# Every kind of units, and every size of the layers.
@pytest.mark.parametrize(
    ("size", "kind"),
    [
        *(((8, 5), kind) for kind in KINDS),
        *((size, KINDS[0]) for size in [(1, 1), (12, 12)]),
    ],
)
def test_estimates_are_within_their_error_bars(size, kind, make_machine):
    # With Gaussian units of larger weights a few chains carry the estimate, unless there are many
    # more temperatures.
    machine = make_machine(*size, kind, spread=0.5 if kind == "bernoulli" else 0.2)
    exact, path = float(machine.log_partition()), make_path(machine, base=0.3)
    # Of fewer chains the error bar varies, and with it the ratio, beyond a normal law's tails.
    n, n_chains = 20, 400
    estimates = [estimate(path, 60, n_chains, seed) for seed in range(n)]
    z = torch.tensor([(e.log_partition - exact) / e.standard_error for e in estimates])
    # Each estimate is log Z give or take its standard error: all of them are within 4 ...
    assert z.abs().max() < 4
    # ... their mean, of standard error 1 / sqrt(n), is about 0 (the logarithm's bias is half
    # an error bar's square, small here) ...
    assert abs(z.mean()) < 4.5 / math.sqrt(n)
    # ... and their spread 1, with relative standard error sqrt(1 / 2n): error bars are honest.
    assert abs(z.std() - 1) < 4.5 * math.sqrt(1 / (2 * n))


@pytest.mark.parametrize("kind", KINDS)
def test_large_weights_take_more_temperatures(kind, make_machine):
    machine = make_machine(12, 12, kind, spread=1.0 if kind == "bernoulli" else 0.4)
    exact, path = float(machine.log_partition()), make_path(machine)
    coarse = [estimate(path, 10, 100, seed) for seed in range(6)]
    fine = [estimate(path, 400, 100, seed) for seed in range(4)]
    errors = [
        math.sqrt(sum((e.log_partition - exact) ** 2 for e in es) / len(es))
        for es in (coarse, fine)
    ]
    # Smaller steps from one law to the next: weights vary less, so that the true error falls ...
    assert errors[1] < 0.5 * errors[0]
    # ... the claimed one does ...
    assert sum(e.standard_error for e in fine) < 0.5 * sum(e.standard_error for e in coarse[:4])
    # ... and more chains count.
    assert sum(e.effective_chains for e in fine) > sum(e.effective_chains for e in coarse[:4])
    # Forty times as many temperatures leave little: each estimate is within 4 of its errors.
    assert all(abs(e.log_partition - exact) < 4 * e.standard_error for e in fine)


def test_mean_weight_is_unbiased_however_few_the_temperatures(make_machine):
    machine = make_machine(4, 3)
    path = make_path(machine, base=-0.5)
    exact = math.exp(float(machine.log_partition()) - float(path.log_base_partition()))
    betas = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)
    result = annealed_importance_sampling(path, betas, 200_000, torch.Generator().manual_seed(1))
    weight = math.exp(result.log_partition - float(path.log_base_partition()))
    # E[w] = Z_1 / Z_0 for any path, here of one step between the ends: the weights' own error
    # tells how near 200 000 of them come.
    assert abs(weight / exact - 1) < 4.5 * result.standard_error
    # That is near enough to notice a wrong weight.
    assert result.standard_error < 0.02


def test_order_of_weighing_and_stepping(make_machine):
    path = make_path(make_machine(3, 2))
    calls = []

    class Recorded(TemperedPath):
        def log_density(self, energies, beta):
            calls.append(("weigh", beta))
            return super().log_density(energies, beta)

        def step(self, energies, beta, generator):
            calls.append(("step", beta))
            return super().step(energies, beta, generator)

    betas = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    recorded = Recorded(path.machine, path.base_bias)
    annealed_importance_sampling(recorded, betas, 5, torch.Generator().manual_seed(1))
    # A state drawn at one beta is weighed at the next before it moves there.
    assert set(calls[:2]) == {("weigh", 0.0), ("weigh", 0.5)}
    assert calls[2] == ("step", 0.5)
    assert set(calls[3:5]) == {("weigh", 0.5), ("weigh", 1.0)}


@pytest.mark.parametrize("kind", KINDS)
def test_independent_units_are_exact(kind, make_machine):
    machine = make_machine(6, 4, kind)
    machine.weight.zero_()
    machine.hidden_bias.zero_()
    path = machine.tempered(machine.visible_bias.clone())
    result = estimate(path, 20, 10)
    # Base and machine are the same law: every weight is 1.
    assert result.log_partition == pytest.approx(float(machine.log_partition()), rel=1e-12)
    assert result.standard_error < 1e-12
    assert result.effective_chains == pytest.approx(10, rel=1e-12)


def test_two_modes_are_weighed_though_no_chain_visits_both(two_modes):
    exact = float(two_modes.log_partition())
    result = estimate(make_path(two_modes), 2000, 400)
    # Chains settle in either mode as they cool: together they have all of Z.
    assert abs(result.log_partition - exact) < 4 * result.standard_error
    # Half of Z would be off by log 2, far more than the error.
    assert result.standard_error < 0.15


def test_single_precision_agrees_with_double(make_machine):
    machine = make_machine(12, 12)
    exact = float(machine.log_partition())
    single = machine.over(Parameters(machine.theta.shapes, machine.theta.flat.float()))
    result = estimate(make_path(single), 2000, 100)
    # Thousands of rounded terms are summed in double precision: the error bar still holds.
    assert abs(result.log_partition - exact) < 4 * result.standard_error
    assert result.standard_error < 0.05


@pytest.mark.parametrize("n_temperatures", [4, 5, 30, 59, 100, 10_000])
def test_temperatures_lead_from_zero_to_one(n_temperatures):
    betas = annealing_temperatures(n_temperatures)
    # As many as asked for, in the precision of their small differences.
    assert (len(betas), betas.dtype) == (n_temperatures, torch.float64)
    # From independent units to the machine, exactly.
    assert (betas[0], betas[-1]) == (0.0, 1.0)
    # Each is nearer to the machine than the one before.
    assert (betas.diff() > 0).all()


def test_temperatures_are_denser_towards_one():
    betas = annealing_temperatures(1 + 29 * 10)
    n_below = [(betas < bound - 1e-12).sum().item() for bound in (0.5, 0.9, 1.0)]
    # One interval of every 29 below 0.5, eight from there to 0.9, twenty above.
    assert n_below == [10, 90, 290]


@pytest.mark.parametrize(
    ("weights", "effective"), [([1, 1, 1, 1], 4), ([1, 1, 0, 0], 2), ([1, 0, 0, 0], 1)]
)
def test_effective_chains_count_those_that_matter(weights, effective):
    log_weight = torch.log(torch.tensor(weights, dtype=torch.float64)) + 800
    result = _estimate(log_weight, 2.0)
    # (sum w)^2 / sum w^2 is the number of equal weights that are not 0.
    assert result.effective_chains == pytest.approx(effective, rel=1e-12)
    # The estimate is the base plus the logarithm of the weights' mean, though exp(800) overflows.
    expected = 2.0 + 800 + math.log(sum(weights) / 4)
    assert result.log_partition == pytest.approx(expected, rel=1e-12)
    relative = torch.tensor(weights, dtype=torch.float64)
    relative /= relative.mean()
    # The error of log(mean w) is that of the mean, relative to it.
    assert result.standard_error == pytest.approx(float(relative.std() / 2), rel=1e-12)


def test_listener_hears_of_each_temperature(make_machine):
    heard = []
    estimate(make_path(make_machine(3, 2)), 30, 5, listener=lambda *numbers: heard.append(numbers))
    # One step for each temperature but the first.
    assert heard == [(n, 29) for n in range(1, 30)]


def test_estimate_depends_on_its_generator_alone(make_machine):
    path, state = make_path(make_machine(4, 3)), torch.get_rng_state()
    # The same seed, the same estimate; another seed, another one.
    assert estimate(path, seed=1) == estimate(path, seed=1)
    assert estimate(path, seed=1) != estimate(path, seed=2)
    # torch's global generator was not drawn from.
    assert torch.equal(torch.get_rng_state(), state)
