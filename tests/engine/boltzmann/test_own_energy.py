"""A machine of one's own: chains, annealing and learning ask its methods and nothing else."""

import math

import pytest
import torch
from scipy.stats import chi2

from skae.engine.boltzmann.energies import TemperedPath
from skae.engine.boltzmann.learning import ContrastiveDivergence
from skae.engine.boltzmann.samplers import (
    Schedule,
    annealed_importance_sampling,
    annealing_temperatures,
    gibbs_state,
    gibbs_step,
    make_chains,
    parallel_tempering,
    run_chains,
)
from skae.engine.networks.activations import softplus
from skae.engine.optimisation.devices import bernoulli
from skae.engine.optimisation.parameters import Parameters

N_CATEGORIES, N_HIDDEN, N_CHAINS = 6, 3, 20_000
LIMIT = 1e-5


class OneHot:
    """One variable of several categories, as visible units."""

    is_discrete = True

    def sample(self, a, generator, precision=None, out=None):
        index = torch.multinomial(torch.softmax(a, 1), 1, generator=generator)
        out = torch.empty_like(a) if out is None else out
        return out.zero_().scatter_(1, index, 1.0)

    def energy(self, x, bias, precision=None):
        return -x @ bias

    def log_normalizer(self, u, bias, precision=None):
        return torch.logsumexp(u + bias, -1)


class Choice:
    """E(v, h) = -v.c - h.b - h U v, v one of some categories; own names of parameters."""

    units, precision, network = OneHot(), None, None

    def __init__(self, theta):
        self.theta, self.table, self.on, self.base = theta, theta["u"], theta["b"], theta["c"]
        self.n_hidden, self.n_visible = self.table.shape

    def renewed(self):
        return self

    def hidden_input(self, visible, out=None):
        return torch.addmm(self.on, visible, self.table.t(), out=out)

    def visible_input(self, hidden):
        return self.base + hidden @ self.table

    def code(self, visible, out=None):
        return self.hidden_input(visible, out).sigmoid_()

    def draw_hidden(self, code, generator):
        return bernoulli(code, generator)

    def sample_hidden(self, visible, generator, code=None):
        return self.draw_hidden(self.code(visible, code), generator)

    def sample_visible(self, hidden, generator, out=None):
        return self.units.sample(self.visible_input(hidden), generator, out=out)

    def visible_energy(self, visible):
        return self.units.energy(visible, self.base)

    def free_energy(self, visible):
        return self.visible_energy(visible) - softplus(self.hidden_input(visible)).sum(1)

    def tempered(self, base_bias):
        return TemperedPath(self, base_bias)

    def contrast_(self, visible, hidden, share, out, *, delta=None, offsets=None):
        torch.mm((hidden * share.unsqueeze(1)).t(), visible, out=out["u"])
        torch.mv(hidden.t(), share, out=out["b"])
        torch.mv(visible.t(), share, out=out["c"])


@pytest.fixture
def machine(generator):
    shapes = {"u": (N_HIDDEN, N_CATEGORIES), "b": (N_HIDDEN,), "c": (N_CATEGORIES,)}
    theta = Parameters(shapes, dtype=torch.float64)
    theta.flat.normal_(generator=generator)
    return Choice(theta)


def law(machine):
    """P(v) of every category."""
    return torch.softmax(-machine.free_energy(torch.eye(N_CATEGORIES).double()), 0)


def p_value(rows, p):
    expected = p * len(rows)
    return chi2.sf(float(((rows.sum(0) - expected) ** 2 / expected).sum()), len(p) - 1)


def test_gibbs_chains_reach_its_law(machine, generator):
    start = torch.eye(N_CATEGORIES).double()[:1].repeat(N_CHAINS, 1)
    run = run_chains(
        gibbs_step(machine, generator),
        gibbs_state(machine, start, generator),
        Schedule(burn_in=30),
        keep=lambda state: state[0],
    )
    # Every category as often as the enumerated law says; the start was far from it.
    assert p_value(run.samples[0], law(machine)) > LIMIT
    assert p_value(start, law(machine)) < 1e-20


def test_tempered_chains_reach_its_law(machine, generator):
    base = torch.zeros(N_CATEGORIES, dtype=torch.float64)
    settings = {"base_bias": base, "n_temperatures": 3}
    chains = make_chains(parallel_tempering, machine, generator, **settings)
    start = chains.start(machine.tempered(base).start(N_CHAINS, generator))
    run = run_chains(chains.step, start, Schedule(burn_in=20), keep=chains.visible)
    # The cold chains have the law of the machine, whatever the hot ones have.
    assert p_value(run.samples[0], law(machine)) > LIMIT


def test_annealing_estimates_its_partition_function(machine, generator):
    path = machine.tempered(torch.zeros(N_CATEGORIES, dtype=torch.float64))
    estimate = annealed_importance_sampling(path, annealing_temperatures(100), 200, generator)
    every = torch.eye(N_CATEGORIES).double()
    exact = float(torch.logsumexp(-machine.free_energy(every), 0))
    # log Z by summing over six categories, within four of the estimate's errors.
    assert abs(estimate.log_partition - exact) < 4 * estimate.standard_error
    # (At beta = 0 the categories are alike, with hidden units that are on or off alike.)
    expected = math.log(N_CATEGORIES) + N_HIDDEN * math.log(2)
    assert float(path.log_base_partition()) == pytest.approx(expected)


@pytest.mark.parametrize("persistent", [False, True])
def test_it_learns_by_the_same_rule(persistent, machine, generator):
    every, theta = torch.eye(N_CATEGORIES).double(), machine.theta
    x = every[torch.randint(N_CATEGORIES, (2000,), generator=generator)]

    def log_likelihood():
        return float((x @ torch.log(law(machine))).mean())

    before = log_likelihood()
    objective = ContrastiveDivergence(Choice, persistent=persistent, n_chains=2000)
    gradient = theta.empty_like()
    with torch.no_grad():
        for _ in range(300):
            objective.gradient(theta, x, generator, gradient)
            theta.flat.sub_(gradient.flat, alpha=0.5)
    # Data that are uniform over six categories have log-likelihood -log 6 at best.
    assert before < -math.log(N_CATEGORIES) - 0.1
    assert abs(log_likelihood() + math.log(N_CATEGORIES)) < 0.02
