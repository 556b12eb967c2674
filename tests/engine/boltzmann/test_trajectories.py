"""Checkpoints of a training as a path: what is kept, laws on it, chains, log Z."""

import math

import pytest
import torch

from skae.engine.boltzmann.deep import DeepMachine, deep_shapes, even_units
from skae.engine.boltzmann.energies import BipartiteMachine
from skae.engine.boltzmann.learning import ContrastiveDivergence
from skae.engine.boltzmann.samplers import (
    SAMPLERS,
    Schedule,
    annealed_importance_sampling,
    annealing_temperatures,
    make_chains,
    run_chains,
)
from skae.engine.boltzmann.trajectories import (
    TrajectoryPath,
    checkpoint_machines,
    evenly_spaced,
    note_checkpoint,
    trajectory_of,
)
from skae.engine.networks.mixed import Mixed
from skae.engine.networks.units import Bernoulli, Gaussian, Multinomial
from skae.engine.optimisation.parameters import Parameters

LIMIT = 1e-5


def units_of(kind):
    """Units of five columns."""
    every = torch.arange(5)
    parts = [(Bernoulli(), every[:1]), (Gaussian(), every[1:3]), (Multinomial(), every[3:])]
    return {"bernoulli": Bernoulli(), "gaussian": Gaussian(), "mixed": Mixed(parts)}[kind]


def trained(sizes, kind="bernoulli", spread=0.8, n_checkpoints=3, seed=0):
    """A machine of N(0, spread^2) parameters, and checkpoints that lead to it, not straight."""
    generator = torch.Generator().manual_seed(seed)
    theta = Parameters(deep_shapes(sizes, learns_variance=kind != "bernoulli"), dtype=torch.float64)
    theta.flat.normal_(0.0, spread, generator=generator)
    if kind != "bernoulli":
        theta["log_variance"].fill_(-0.3)
    if kind == "mixed":
        theta["log_variance"][[0, 3, 4]] = 0.0
    growth = torch.linspace(0, 1, n_checkpoints + 1, dtype=torch.float64)[:-1, None]
    noise = torch.empty(n_checkpoints, len(theta.flat), dtype=torch.float64)
    checkpoints = growth * theta.flat + 0.2 * spread * noise.normal_(generator=generator)
    if kind != "bernoulli":
        for flat in checkpoints:
            Parameters(theta.shapes, flat)["log_variance"].copy_(theta["log_variance"])
    return DeepMachine(theta, even_units(units_of(kind), sizes)), checkpoints


def path_of(machine, checkpoints, base=0.2, **settings):
    bias = torch.full((machine.n_columns,), base, dtype=torch.float64)
    return TrajectoryPath(
        checkpoint_machines(machine, checkpoints), machine.widened(bias), **settings
    )


@pytest.fixture
def parted():
    """Two patterns of eight units, equally likely all along a training, and its checkpoints.

    Where the units' biases change with a temperature, as they do from a base other than their
    own, the second pattern is rare on the way.
    """

    def theta_of(weight):
        theta = Parameters(BipartiteMachine.shapes(8, 1), dtype=torch.float64)
        theta["weight_0"].fill_(weight)
        theta["visible_bias_0"].fill_(-weight / 2)
        theta["hidden_bias_0"].fill_(-4 * weight)
        return theta

    checkpoints = torch.stack([theta_of(w).flat for w in (0.5, 1.0, 2.0, 4.0)])
    machine = BipartiteMachine(theta_of(8.0), Bernoulli())
    base = torch.full((8,), -1.5, dtype=torch.float64)
    return machine, checkpoints, base


# What is kept


@pytest.mark.parametrize("most", [1, 2, 7, 20])
def test_checkpoints_are_few_and_at_steady_ratios(most):
    state, n_steps = {}, 8000
    for step in range(n_steps):
        before = state.get("checkpoints", torch.empty(0, 1)).flatten()
        stay = note_checkpoint(state, torch.tensor([float(step)]), most)
        kept = state.get("checkpoints", torch.empty(0, 1)).flatten()
        # The newest is the one of this step whenever there is a new one.
        if stay is not None:
            assert kept.tolist() == torch.cat([before, torch.tensor([float(step)])])[stay].tolist()
            assert kept[-1] == step
        assert len(kept) <= most
    assert len(kept) >= most // 2
    # In order, each further from the start than the one before by the same factor, but for
    # rounding of the first ones; and none of long ago is the last.
    ratios = (kept[1:] / kept[:-1])[kept[:-1] > 50]
    assert len(ratios) == 0 or ratios.max() / ratios.min() < 1.06
    assert kept[-1] * state["checkpoint_ratio"] >= n_steps - 1


def test_training_keeps_what_its_parameters_were(make_machine, generator):
    machine = make_machine(5, 3)
    x = torch.randint(2, (20, 5), generator=generator).double()
    objective = ContrastiveDivergence(machine.over, n_checkpoints=6)
    gradient, passed = machine.theta.empty_like(), []
    assert trajectory_of(objective)["trajectory_"].shape == (0, 0)
    with torch.no_grad():
        for _ in range(60):
            passed.append(machine.theta.flat.clone())
            objective.gradient(machine.theta, x, generator, gradient)
            machine.theta.flat.sub_(gradient.flat, alpha=0.1)
    kept = trajectory_of(objective)["trajectory_"]
    assert 3 <= len(kept) <= 6
    # Each of them is one of those that training passed, bit by bit, in that order.
    found = [next(k for k, flat in enumerate(passed) if bool((flat == one).all())) for one in kept]
    assert found == sorted(found)


# Laws


@pytest.mark.parametrize("kind", ["bernoulli", "gaussian", "mixed"])
def test_path_goes_through_the_checkpoints(kind, generator):
    machine, checkpoints = trained((5, 4, 3), kind)
    path = path_of(machine, checkpoints)
    visible = path.start(50, generator)
    energies = path.energies(visible)
    for number, one in enumerate(checkpoint_machines(machine, checkpoints), 1):
        # At k of K is the k-th machine ...
        expected = -one.free_energy(visible)
        torch.testing.assert_close(path.log_density(energies, number / 4), expected)
    # ... between two of them the machine of parameters between theirs ...
    between = Parameters(machine.theta.shapes, checkpoints[0].lerp(checkpoints[1], 0.4))
    expected = -machine.over(between).free_energy(visible)
    torch.testing.assert_close(path.log_density(energies, 1.4 / 4), expected)
    # ... and at 0 independent units, whose law is normalised.
    base = path.base_bias
    alone = -machine.units.energy(visible, base, machine.precision)
    normalized = alone + machine.n_hidden * math.log(2.0) - path.log_base_partition()
    torch.testing.assert_close(
        path.log_density(energies, 0.0) - path.log_base_partition(), normalized
    )


def test_rows_of_several_places_are_each_of_their_own(generator):
    machine, checkpoints = trained((5, 4, 3))
    path = path_of(machine, checkpoints, n_kept=4)
    energies = path.energies(path.start(12, generator))
    beta = torch.tensor([0.1, 0.3, 1.0, 0.9], dtype=torch.float64).repeat(3)
    together = path.log_density(energies, beta)
    for row, one in enumerate(beta.tolist()):
        alone = path.log_density((energies[0][row : row + 1],), one)
        torch.testing.assert_close(together[row : row + 1], alone)
    stepped = path.step(energies, beta, generator)
    assert stepped.shape == energies[0].shape
    assert set(stepped.unique().tolist()) == {0.0, 1.0}


# Estimates and chains against enumeration


@pytest.mark.parametrize(
    ("sizes", "kind"),
    [
        ((5, 4), "mixed"),
        ((5, 4, 3), "bernoulli"),
        ((5, 4, 3), "gaussian"),
        ((5, 4, 3, 4), "mixed"),
    ],
)
def test_log_z_along_the_trajectory_is_within_its_errors(sizes, kind):
    machine, checkpoints = trained(sizes, kind, spread=0.5)
    exact, path = float(machine.log_partition()), path_of(machine, checkpoints)
    ratios = []
    for seed in range(4):
        noise = torch.Generator().manual_seed(seed)
        places = evenly_spaced(path, 40, noise, 12)
        estimate = annealed_importance_sampling(path, places, 200, noise)
        assert estimate.effective_chains > 20
        ratios.append((estimate.log_partition - exact) / estimate.standard_error)
    ratios = torch.tensor(ratios)
    # Sums and integrals by enumeration: within four errors each time, and of no side on average.
    assert ratios.abs().max() < 4
    assert abs(ratios.mean()) < 4.5 / math.sqrt(len(ratios))


def test_modes_that_temperatures_lose_are_kept(parted):
    machine, checkpoints, base = parted
    exact = float(machine.log_partition())
    tempered = machine.tempered(base)
    path = TrajectoryPath(checkpoint_machines(machine, checkpoints), base)
    errors, carried = {"tempered": [], "path": []}, {"tempered": [], "path": []}
    for seed in range(5):
        noise = torch.Generator().manual_seed(seed)
        places = evenly_spaced(path, 200, noise, 50)
        for name, own, betas in (
            ("tempered", tempered, annealing_temperatures(200)),
            ("path", path, places),
        ):
            found = annealed_importance_sampling(own, betas, 100, noise)
            errors[name].append(abs(found.log_partition - exact))
            carried[name].append(found.effective_chains)
    # Both patterns stay as likely along the training, so that most chains count; by temperatures
    # few chains carry the half of Z that is the rare one's, or none.
    assert min(carried["path"]) > 60
    missed = zip(carried["tempered"], errors["tempered"], strict=True)
    assert all(n_chains < 40 or error > 0.5 for n_chains, error in missed)
    assert max(errors["path"]) < 0.3
    assert sum(errors["path"]) < 0.5 * sum(errors["tempered"])


@pytest.mark.parametrize("sizes", [(5, 4), (5, 4, 3), (5, 4, 3, 4)])
def test_tempered_chains_reach_the_law(sizes, p_value, generator, law):
    machine, checkpoints = trained(sizes, spread=0.7)
    base = machine.widened(torch.zeros(5, dtype=torch.float64))
    settings = {"base_bias": base, "n_temperatures": 4, "checkpoints": checkpoints}
    chains = make_chains(SAMPLERS["trajectory"], machine, generator, **settings)
    start = torch.ones(4000, machine.n_visible, dtype=torch.float64)
    run = run_chains(chains.step, chains.start(start), Schedule(burn_in=20), keep=chains.visible)
    # All even layers as often as their enumerated law says, from a start far from it.
    _, p = law(machine)
    assert p_value(run.samples[0], p) > LIMIT
    assert p_value(start, p) < 1e-20


def test_chains_cross_where_gibbs_steps_do_not(parted, generator):
    machine, checkpoints, base = parted
    settings = {"base_bias": base, "n_temperatures": 6, "checkpoints": checkpoints}
    chains = make_chains(SAMPLERS["trajectory"], machine, generator, **settings)
    start = torch.ones(200, 8, dtype=torch.float64)
    run = run_chains(chains.step, chains.start(start), Schedule(burn_in=100), keep=chains.visible)
    # All chains began at one pattern; half of them are at the other one.
    assert 0.35 < float((run.samples[0].mean(1) > 0.5).double().mean()) < 0.65
    assert float(chains.step.swap_rates.min()) > 0.3


@pytest.mark.parametrize("tempered", [False, True])
def test_chains_of_training_cross_if_tempered(tempered, parted, generator):
    machine, checkpoints, _ = parted
    objective = ContrastiveDivergence(
        machine.over, persistent=True, n_chains=200, n_checkpoints=10, tempered=tempered
    )
    objective.state["checkpoints"] = checkpoints
    x, gradient = torch.ones(10, 8, dtype=torch.float64), machine.theta.empty_like()
    with torch.no_grad():
        for _ in range(120):
            # No step is taken: the law of the chains is that of one machine.
            objective.gradient(machine.theta, x, generator, gradient)
    on = float(machine.visible_input(objective.state["chains"]).gt(0).double().mean())
    # All chains began at one of the two patterns.
    assert (0.35 < on < 0.65) if tempered else on == 1.0
    # A checkpoint was added at step 10, of this machine, and later ones: companions follow.
    if tempered:
        n_checkpoints = len(objective.state["checkpoints"])
        assert 5 <= n_checkpoints <= 10
        assert objective.state["companions"].shape == (200, n_checkpoints, 8)


def test_companions_stay_with_their_checkpoints(generator):
    shapes = BipartiteMachine.shapes(6, 1)

    def machine_of(theta):
        return BipartiteMachine(theta, Bernoulli())

    objective = ContrastiveDivergence(
        machine_of, persistent=True, n_chains=500, n_checkpoints=4, tempered=True
    )
    theta, gradient = (
        Parameters(shapes, dtype=torch.float64),
        Parameters(shapes, dtype=torch.float64),
    )
    theta.flat.zero_()
    x = torch.ones(10, 6, dtype=torch.float64)
    with torch.no_grad():
        for step in range(200):
            # Visible units alone, whose biases grow: the law at each checkpoint is known.
            theta["visible_bias_0"].fill_(-2 + 0.02 * step)
            objective.gradient(theta, x, generator, gradient)
    means = objective.state["companions"].mean((0, 2)).flip(0)
    bias = torch.stack(
        [Parameters(shapes, c)["visible_bias_0"][0] for c in objective.state["checkpoints"]]
    )
    # 3000 draws each, by a swap or not.
    assert (means - torch.sigmoid(bias)).abs().max() < 4.5 * 0.5 / math.sqrt(3000)
    assert bias.diff().min() > 0.1


def test_places_are_those_between_which_laws_differ_equally(generator):
    machine, checkpoints = trained((5, 4, 3), spread=1.5)
    path = path_of(machine, checkpoints)
    places = evenly_spaced(path, 9, generator, 80, n_chains=500)
    assert places[[0, -1]].tolist() == [0, 1]
    assert bool((places.diff() > 0).all())

    def gaps(betas):
        """How far each law is from the next, by exact draws of the chains."""
        visible, found = path.start(1000, generator), []
        for before, beta in zip(betas[:-1].tolist(), betas[1:].tolist(), strict=True):
            for _ in range(10):
                visible = path.step(path.energies(visible), before, generator)
            energies = path.energies(visible)
            change = path.log_density(energies, beta) - path.log_density(energies, before)
            found.append(float(change.std()))
        return torch.tensor(found)

    equal = torch.linspace(0, 1, 9, dtype=torch.float64)
    # Nowhere are two laws as far apart as by equal steps of the path.
    assert gaps(places).max() < 0.92 * gaps(equal).max()
