"""Contrastive divergence: its gradient against autograd, its limits against enumeration."""

import copy
import itertools
import math
from functools import partial

import pytest
import torch
from machines import drawn_parameters

from skae.engine.boltzmann import memory
from skae.engine.boltzmann.conditionals import pseudo_log_likelihood
from skae.engine.boltzmann.energies import BipartiteMachine, binary_states
from skae.engine.boltzmann.learning import ContrastiveDivergence
from skae.engine.networks.penalties import CodeKL, WeightDecay
from skae.engine.networks.units import Bernoulli, Gaussian
from skae.engine.optimisation.devices import bernoulli
from skae.engine.optimisation.parameters import Parameters

BINARY = partial(BipartiteMachine, units=Bernoulli())
N_ROWS, N_VISIBLE, N_HIDDEN, N_CHAINS = 9, 6, 4, 5
KINDS = ["bernoulli", "gaussian", "gaussian_learned"]
RULES = {
    "cd_1": {"n_gibbs_steps": 1},
    "cd_3": {"n_gibbs_steps": 3},
    "pcd": {"persistent": True},
    "pcd_3": {"persistent": True, "n_gibbs_steps": 3},
}
SHORT = ("cd_1", "pcd")
PENALTIES = {
    "none": (),
    "weight_decay": (WeightDecay(0.3),),
    "kl": (CodeKL(0.4, 0.1),),
    "both": (WeightDecay(0.3), CodeKL(0.4, 0.1)),
}


def make_theta(kind="bernoulli", spread=0.7, size=(N_VISIBLE, N_HIDDEN)):
    shapes = BipartiteMachine.shapes(*size, learns_variance=kind == "gaussian_learned")
    return drawn_parameters(shapes, spread, 2)


def make_objective(kind="bernoulli", rule="cd_1", penalties="none", **settings):
    units = Bernoulli() if kind == "bernoulli" else Gaussian()
    return ContrastiveDivergence(
        partial(BipartiteMachine, units=units),
        penalties=PENALTIES[penalties],
        **{"n_chains": N_CHAINS} | RULES[rule] | settings,
    )


def make_rows(kind="bernoulli", n_rows=N_ROWS):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(n_rows, N_VISIBLE, dtype=torch.float64, generator=generator)
    return torch.sigmoid(2 * x) if kind == "bernoulli" else x


def make_weight(weighted, n_rows=N_ROWS):
    if not weighted:
        return None
    return 2 * torch.rand(n_rows, dtype=torch.float64, generator=torch.Generator().manual_seed(4))


def seeded(seed=11):
    return torch.Generator().manual_seed(seed)


def autograd(objective, theta, x, generator, row_weight=None):
    flat = theta.flat.clone().requires_grad_()
    value = objective.value(Parameters(theta.shapes, flat), x, generator, row_weight)
    (gradient,) = torch.autograd.grad(value, flat)
    return gradient


def step(objective, theta, x, generator, row_weight=None):
    """What `gradient` writes, into memory that held NaN."""
    out = theta.empty_like()
    out.flat.fill_(math.nan)
    with torch.no_grad():
        objective.gradient(theta, x, generator, out, row_weight)
    return out


def in_the_metric(theta, gradient, earlier_square=None):
    """The step of a gradient: times s^2 for W and c, for log s^2 by its recent size.

    A positive diagonal, so that steps still descend and end where the gradient does.
    """
    gradient = Parameters(theta.shapes, gradient.clone())
    if "log_variance" in theta:
        variance = torch.exp(theta["log_variance"])
        gradient["weight_0"].mul_(variance)
        gradient["visible_bias_0"].mul_(variance)
        square = gradient["log_variance"].square()
        if earlier_square is not None:
            square = 0.99 * earlier_square + 0.01 * square
        gradient["log_variance"].div_(square.sqrt().clamp(min=1))
    return gradient.flat


def assert_within_standard_error(draws, expected):
    """The mean of independent draws is within 4.9 standard errors (1e-6 each) of what it estimates.

    Parameters whose draws are constant have no error, but rounding.
    """
    error = draws.std(0) / math.sqrt(len(draws))
    assert ((draws.mean(0) - expected).abs() <= 4.9 * error + 1e-12).all()


# The gradient


@pytest.mark.parametrize(
    ("kind", "penalties", "rule", "weighted"),
    [
        *((kind, "none", rule, False) for kind in KINDS for rule in RULES),
        *((kind, part, rule, True) for kind in KINDS for part in PENALTIES for rule in SHORT),
    ],
)
def test_gradient_matches_autograd_of_the_value(kind, penalties, rule, weighted):
    theta, x, weight = make_theta(kind), make_rows(kind), make_weight(weighted)
    objective = make_objective(kind, rule, penalties)
    before = theta.flat.clone(), x.clone()
    for seed in (11, 12):  # with chains that begin, and with chains that go on
        gradient = autograd(objective, theta, x, seeded(seed), weight)
        expected = in_the_metric(theta, gradient, objective.state.get("variance_square"))
        # The closed form is the derivative of ``value`` with the same particles, in the metric
        # of the step where variances are learned; what was in ``out`` is gone.
        torch.testing.assert_close(step(objective, theta, x, seeded(seed), weight).flat, expected)
    # A gradient is an observation: neither the parameters nor the batch may change.
    assert torch.equal(theta.flat, before[0])
    assert torch.equal(x, before[1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rule", RULES)
def test_value_is_a_difference_of_free_energies(rule, kind):
    theta, x, weight = make_theta(kind), make_rows(kind), make_weight(True)
    objective = make_objective(kind, rule)
    generator = seeded()
    first = torch.arange(N_CHAINS) % N_ROWS if "pcd" in rule else torch.arange(N_ROWS)
    particles = x[first]
    for _ in range(objective.n_gibbs_steps):
        hidden = BINARY(theta).sample_hidden(particles, generator)
        particles = objective.machine(theta).sample_visible(hidden, generator)
    plain = objective.value(theta, x, seeded())
    positive = objective.machine(theta).free_energy(x)
    negative = objective.machine(theta).free_energy(particles)
    # mean F(data) - mean F(particles), the particles being k Gibbs steps away from the rows.
    torch.testing.assert_close(plain, positive.mean() - negative.mean())
    weighted = objective.value(theta, x, seeded(), weight)
    # A particle that began at a row counts as often as the row; chains that go on belong to no
    # row, and count as often as the data in all.
    particle_weight = weight.mean() if "pcd" in rule else weight
    expected = (weight * positive).mean() - (particle_weight * negative).mean()
    torch.testing.assert_close(weighted, expected)


def test_penalties_are_added_to_the_value():
    theta, x = make_theta(), make_rows()
    plain = make_objective().value(theta, x, seeded())
    value = make_objective(penalties="both").value(theta, x, seeded())
    activity = torch.sigmoid(BINARY(theta).hidden_input(x)).mean(0)
    divergence = 0.1 * torch.log(0.1 / activity) + 0.9 * torch.log(0.9 / (1 - activity))
    expected = 0.3 * 0.5 * theta["weight_0"].square().sum() + 0.4 * divergence.sum()
    # The weighted sum of the penalties' own formulas (up to the 1e-9 that keeps logs finite).
    torch.testing.assert_close(value - plain, expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("rule", ["cd_1", "pcd"])
def test_batches_of_several_sizes_do_not_mix(rule):
    theta, x = make_theta(), make_rows()
    objective = make_objective(rule=rule)
    for rows in (slice(0, 5), slice(5, 9), slice(2, 7), slice(0, 2)):
        expected = autograd(objective, theta, x[rows], seeded())
        # Buffers and shares are reused between batches, but each gradient is of its own batch.
        torch.testing.assert_close(step(objective, theta, x[rows], seeded()).flat, expected)


class CodeCube:
    """A penalty of a user's own, on codes and on visible biases, without a closed form."""

    def __init__(self, weight):
        self.weight = weight

    def value(self, theta, forward):
        bias = theta["visible_bias_0"]
        return forward.mean(forward.code.pow(3).sum(1)) + bias.pow(4).sum()


@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
@pytest.mark.parametrize("rule", ["cd_1", "pcd"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_penalty_of_ones_own_needs_a_value_alone(kind, rule, weighted):
    theta, x, weight = make_theta(kind), make_rows(kind), make_weight(weighted)
    own = CodeCube(0.7), WeightDecay(0.3)
    objective = make_objective(kind, rule)
    objective.penalties = own
    gradient = autograd(objective, theta, x, seeded(), weight)
    # What autograd makes of the value joins the closed form of the rest, in the same metric.
    torch.testing.assert_close(
        step(objective, theta, x, seeded(), weight).flat, in_the_metric(theta, gradient)
    )


# Centring


def centred_step(objective, theta, x, seed, visible_offset, hidden_offset, row_weight=None):
    """A A^T times the gradient of the value, by autograd through theta = A phi.

    In E(v - mu, h - lambda; phi) the terms linear in v and h are those of a machine with
    c = c' - lambda W and b = b' - W mu; A is linear in phi = (W, b', c').
    """

    def machine(flat):
        phi = Parameters(theta.shapes, flat)
        hidden_bias = phi["hidden_bias_0"] - phi["weight_0"] @ visible_offset
        visible_bias = phi["visible_bias_0"] - hidden_offset @ phi["weight_0"]
        parts = {name: phi[name] for name in phi}
        parts |= {"hidden_bias_0": hidden_bias, "visible_bias_0": visible_bias}
        return torch.cat([parts[name].reshape(-1) for name in theta.shapes])

    phi = torch.zeros_like(theta.flat)
    a = torch.autograd.functional.jacobian(machine, phi)
    # Where phi is for this theta, the chain rule gives A^T times the gradient; the check below
    # does so by autograd through the centred machine.
    start = torch.linalg.solve(a, theta.flat).requires_grad_()
    value = objective.value(Parameters(theta.shapes, machine(start)), x, seeded(seed), row_weight)
    (gradient,) = torch.autograd.grad(value, start)
    return a @ gradient


def with_offset(objective, hidden_offset):
    objective.state["hidden_offset"] = hidden_offset.clone()
    return objective


OFFSETS = (
    torch.linspace(0.1, 0.8, N_VISIBLE, dtype=torch.float64),
    torch.linspace(0.7, 0.2, N_HIDDEN, dtype=torch.float64),
)


@pytest.mark.parametrize(
    ("kind", "penalties", "rule", "weighted"),
    [
        *((kind, "none", rule, False) for kind in KINDS for rule in RULES),
        *(("bernoulli", "both", rule, True) for rule in SHORT),
    ],
)
def test_centred_step_is_that_of_the_centred_machine(kind, penalties, rule, weighted):
    theta, x, weight = make_theta(kind), make_rows(kind), make_weight(weighted)
    visible_offset, hidden_offset = OFFSETS
    if kind == "gaussian_learned":
        visible_offset = torch.zeros_like(visible_offset)  # columns are standardised
    objective = make_objective(kind, rule, penalties, visible_offset=visible_offset)
    with_offset(objective, hidden_offset)
    expected = centred_step(objective, theta, x, 11, visible_offset, hidden_offset, weight)
    # A gradient step in the centred machine's parameters, expressed in the plain ones.
    torch.testing.assert_close(
        step(objective, theta, x, seeded(), weight).flat, in_the_metric(theta, expected)
    )


@pytest.mark.parametrize("rule", RULES)
def test_centring_on_zero_changes_nothing(rule):
    theta, x = make_theta(), make_rows()
    zero = torch.zeros_like(OFFSETS[0])
    centred = make_objective(rule=rule, visible_offset=zero)
    with_offset(centred, torch.zeros_like(OFFSETS[1]))
    # v - 0 and h - 0.
    torch.testing.assert_close(
        step(centred, theta, x, seeded()).flat,
        step(make_objective(rule=rule), theta, x, seeded()).flat,
    )


def flipped(theta, layer):
    """The machine of 1 - v, or of 1 - h; exp(-E) differs by a factor that is constant."""
    other = theta.empty_like()
    other["weight_0"].copy_(-theta["weight_0"])
    sign = {"visible": (-1, 1), "hidden": (1, -1)}[layer]
    other["visible_bias_0"].copy_(sign[0] * theta["visible_bias_0"])
    other["hidden_bias_0"].copy_(sign[1] * theta["hidden_bias_0"])
    if layer == "visible":
        other["hidden_bias_0"].add_(theta["weight_0"].sum(1))
    else:
        other["visible_bias_0"].add_(theta["weight_0"].sum(0))
    return other


class MirroredHidden(BipartiteMachine):
    """The same coins, whose other side is called 1, of hidden units."""

    def draw_hidden(self, code, generator):
        return 1 - bernoulli(1 - code, generator)


class MirroredVisible(BipartiteMachine):
    """The same of visible units."""

    def sample_visible(self, hidden, generator, out=None):
        coins = bernoulli(1 - torch.sigmoid(self.visible_input(hidden)), generator)
        return torch.sub(1, coins, out=out)


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("layer", ["visible", "hidden"])
def test_centred_training_does_not_know_which_value_is_called_one(layer, centred):
    theta, x = make_theta(), make_rows()
    offsets = mirrored_offsets = OFFSETS
    if layer == "visible":
        mirrored_rows, mirrored_offsets = 1 - x, (1 - OFFSETS[0], OFFSETS[1])
    else:
        mirrored_rows, mirrored_offsets = x, (OFFSETS[0], 1 - OFFSETS[1])

    def steps(machine, theta, x, offsets):
        objective = ContrastiveDivergence(
            partial(machine, units=Bernoulli()),
            n_gibbs_steps=3,
            visible_offset=offsets[0] if centred else None,
        )
        return step(with_offset(objective, offsets[1]), theta, x, seeded())

    here = steps(BipartiteMachine, theta, x, offsets)
    mirrored = MirroredVisible if layer == "visible" else MirroredHidden
    there = steps(mirrored, flipped(theta, layer), mirrored_rows, mirrored_offsets)
    same = torch.allclose(there.flat, flipped(here, layer).flat, rtol=1e-9, atol=1e-12)
    # Flipping is linear in the parameters, so it maps steps as it maps machines; the centred
    # rule commutes with it, and the plain gradient, which prefers 0, does not.
    assert same == centred


def test_hidden_offsets_follow_the_mean():
    theta, x = make_theta(), make_rows()
    objective = make_objective(visible_offset=OFFSETS[0])
    objective.value(theta, x, seeded())
    # An evaluation leaves no trace.
    assert objective.state == {}
    first = torch.sigmoid(BINARY(theta).hidden_input(x)).mean(0)
    expected = centred_step(objective, theta, x, 11, OFFSETS[0], first)
    # The first step's offset is the mean activity of its own batch ...
    torch.testing.assert_close(step(objective, theta, x, seeded()).flat, expected)
    torch.testing.assert_close(objective.state["hidden_offset"], first)
    theta.flat.mul_(-1)
    second = torch.sigmoid(BINARY(theta).hidden_input(x)).mean(0)
    step(objective, theta, x, seeded())
    # ... from which it moves to later ones' by a hundredth of the way, after the step.
    torch.testing.assert_close(objective.state["hidden_offset"], 0.99 * first + 0.01 * second)


# Persistent chains


def test_chains_advance_with_gradients_only():
    theta, x = make_theta(), make_rows()
    objective = make_objective(rule="pcd")
    objective.value(theta, x, seeded())
    # A value is an observation: there are no chains yet.
    assert "chains" not in objective.state
    step(objective, theta, x, seeded())
    chains = objective.state["chains"].clone()
    objective.value(theta, x, seeded(1))
    objective.criterion(theta, x, seeded(1))
    # Nor do values and criteria move them.
    assert torch.equal(objective.state["chains"], chains)
    step(objective, theta, x, seeded(1))
    # A gradient does (that 5 chains of 4 bits stay by chance has probability 2^-20 or so).
    assert not torch.equal(objective.state["chains"], chains)


def test_chains_are_kept_by_their_hidden_units():
    theta, x, generator = make_theta(), make_rows(), seeded()
    objective = make_objective(rule="pcd_3")
    reference = BINARY(theta).sample_hidden(x[:N_CHAINS], generator_copy := seeded())
    for _ in range(3):
        step(objective, theta, x, generator)
        for _ in range(3):
            visible = objective.machine(theta).sample_visible(reference, generator_copy)
            reference = BINARY(theta).sample_hidden(visible, generator_copy)
        # One unbroken chain h -> v -> h of three steps for each gradient, whatever the theta.
        assert torch.equal(objective.state["chains"], reference)
        theta.flat.mul_(0.9)


def test_state_carries_over():
    theta, x = make_theta(), make_rows()
    whole = make_objective(rule="pcd", visible_offset=OFFSETS[0])
    generator = seeded()
    expected = [step(whole, theta, x, generator).flat for _ in range(6)]
    generator, state, parts = seeded(), {}, []
    for _ in range(3):
        objective = make_objective(rule="pcd", visible_offset=OFFSETS[0])
        objective.state = copy.deepcopy(state)
        parts += [step(objective, theta, x, generator).flat for _ in range(2)]
        state = objective.state
    # Chains and offsets are all that carries over: three objectives in turn are one.
    assert all(map(torch.equal, parts, expected))


@pytest.mark.parametrize("n_chains", [1, 4, 23])
def test_number_of_chains_does_not_depend_on_the_batch(n_chains):
    theta, x = make_theta(), make_rows()
    objective = make_objective(rule="pcd", n_chains=n_chains)
    for n_rows in (3, 9, 5):
        step(objective, theta, x[:n_rows], seeded())
        # Particles estimate the model's expectation; how many there are is the user's choice.
        assert objective.state["chains"].shape == (n_chains, N_HIDDEN)
    other = make_objective(rule="pcd", n_chains=n_chains)
    step(other, theta, x[:3], seeded())
    generator, first = seeded(), torch.arange(n_chains) % 3
    start = BINARY(theta).sample_hidden(x[first], generator)
    visible = BINARY(theta).sample_visible(start, generator)
    # They start at the rows of the first batch, in turn where there are more chains than rows.
    assert torch.equal(other.state["chains"], BINARY(theta).sample_hidden(visible, generator))


def test_chains_of_an_earlier_setting_go_on():
    theta, x = make_theta(), make_rows()
    earlier = make_objective(rule="pcd", n_chains=7)
    step(earlier, theta, x, seeded())
    later = make_objective(rule="pcd", n_chains=3)
    later.state = earlier.state
    # partial_fit with another batch_size finds the chains there are: nothing about them says
    # how many rows a batch has.
    assert torch.isfinite(step(later, theta, x, seeded()).flat).all()


def test_chains_that_did_not_move_are_known(monkeypatch):
    monkeypatch.setattr(memory, "_WINDOW", 8)
    theta, x = make_theta(), make_rows()
    theta.flat.zero_()
    objective, seed = make_objective(rule="pcd", n_chains=40), 0

    def window():
        """Which chains moved in eight steps."""
        nonlocal seed
        before, moved = objective.state["chains"], False
        for _ in range(8):
            seed += 1
            step(objective, theta, x, seeded(seed))
            moved = moved | (objective.state["chains"] != before).any(1)
            before = objective.state["chains"]
        return moved

    objective.state["chains"] = torch.ones(40, N_HIDDEN).double()
    step(objective, theta, x, seeded(seed))
    # Of less than a window nothing is said.
    assert objective.frozen_chains is None
    objective.state = {"chains": torch.ones(40, N_HIDDEN).double()}
    moved = window()
    # Independent fair units repeat their state once in 2^4 times, eight times in 2^32.
    assert moved.all()
    assert not objective.frozen_chains.any()
    theta["hidden_bias_0"].fill_(1e3)
    window()
    moved = window()
    # All units are on for good: chains that moved when weights were small are frozen now.
    assert not moved.any()
    assert objective.frozen_chains.all()
    theta.flat.zero_()
    step(objective, theta, x, seeded(99))
    # In the midst of a window the last whole one counts.
    assert objective.frozen_chains.all()
    window()
    assert not objective.frozen_chains.any()
    before = objective.state["n_steps"]
    objective.value(theta, x, seeded())
    # A value is no step.
    assert objective.state["n_steps"] == before


# Weights


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("penalties", ["none", "both"])
@pytest.mark.parametrize("rule", ["pcd", "pcd_3"])
def test_rows_without_weight_are_not_there(rule, penalties, centred):
    theta, x, weight = make_theta(), make_rows(), make_weight(True)
    weight[[1, 4]] = 0.0
    kept = [i for i in range(N_ROWS) if i not in (1, 4)]

    def gradient(rows, row_weight):
        offset = OFFSETS[0] if centred else None
        objective = make_objective(rule=rule, penalties=penalties, visible_offset=offset)
        # The chains of an earlier step, which know nothing of these rows.
        objective.state = {"chains": torch.ones(N_CHAINS, N_HIDDEN).double()}
        with_offset(objective, OFFSETS[1])
        return step(objective, theta, rows, seeded(), row_weight).flat

    # The data's part is a sum over rows, each with its weight / 9, in which those of weight 0
    # have no part, nor in the total that the particles count for.
    torch.testing.assert_close(
        gradient(x, weight), gradient(x[kept], weight[kept] * (len(kept) / N_ROWS))
    )


@pytest.mark.parametrize("rule", RULES)
def test_equal_weights_scale_the_gradient(rule):
    theta, x = make_theta(), make_rows()
    plain = step(make_objective(rule=rule), theta, x, seeded()).flat
    weight = torch.full((N_ROWS,), 2.5, dtype=torch.float64)
    # Both phases count 2.5 times.
    torch.testing.assert_close(
        step(make_objective(rule=rule), theta, x, seeded(), weight).flat, 2.5 * plain
    )


# Limits


def exact_gradient(theta, x, machine=BINARY):
    """The gradient of -mean log P(x)."""
    flat = theta.flat.clone().requires_grad_()
    followed = machine(Parameters(theta.shapes, flat))
    loss = followed.free_energy(x).mean() + followed.log_partition()
    return torch.autograd.grad(loss, flat)[0]


@pytest.mark.parametrize(
    ("kind", "persistent"),
    [("bernoulli", False), ("bernoulli", True), ("gaussian", True), ("gaussian_learned", False)],
)
def test_many_steps_give_the_gradient_of_the_likelihood(persistent, kind):
    # Variances that are learned start near those of the rows, so that no step is clipped.
    spread = 0.2 if kind == "gaussian_learned" else 0.4
    theta, x = make_theta(kind, spread=spread), make_rows(kind, 200)
    objective = make_objective(kind, n_gibbs_steps=30, persistent=persistent, n_chains=200)
    generator, draws = seeded(), []
    for _ in range(60):
        objective.state = {}  # independent chains each time
        draws.append(step(objective, theta, x, generator).flat)
    draws = torch.stack(draws)
    expected = in_the_metric(theta, exact_gradient(theta, x, objective.machine))
    if kind == "gaussian_learned":
        n_variances = len(theta["log_variance"])
        # (No clipping here, of which the mean of clipped draws would be the victim.)
        assert draws[:, -n_variances:].abs().max() < 1
    # Chains forget their start: particles are samples of the model, and the mean step is the
    # likelihood's gradient, known by enumeration, within its own error.
    assert_within_standard_error(draws, expected)
    error = draws.std(0) / math.sqrt(len(draws))
    flat = theta.flat.clone().requires_grad_()
    data = objective.machine(Parameters(theta.shapes, flat)).free_energy(x).mean()
    # The test can tell: without the particles' part, steps would be far off.
    of_data = in_the_metric(theta, torch.autograd.grad(data, flat)[0])
    assert ((of_data - expected).abs() > 10 * error).any()


def test_persistent_chains_reach_the_model_though_each_takes_one_step():
    theta, x = make_theta(), make_rows(n_rows=50)
    generator, draws = seeded(), []
    for _ in range(60):
        objective = make_objective(rule="pcd", n_chains=200)
        for _ in range(30):
            last = step(objective, theta, x, generator).flat
        draws.append(last)
    # With theta at rest the chains equilibrate over the steps, unlike CD-1's.
    assert_within_standard_error(torch.stack(draws), exact_gradient(theta, x))


def test_bias_falls_with_the_number_of_steps():
    theta, x = make_theta(spread=2.0), make_rows(n_rows=200)
    expected, biases, errors = exact_gradient(theta, x), [], []
    for n_gibbs_steps in (1, 5, 50):
        objective, generator = make_objective(n_gibbs_steps=n_gibbs_steps), seeded()
        draws = torch.stack([step(objective, theta, x, generator).flat for _ in range(40)])
        biases.append((draws.mean(0) - expected).norm().item())
        errors.append((draws.var(0) / len(draws)).sum().sqrt().item())
    # The law of the particles tends to the model's from that of the data: with large weights
    # slowly, so that CD-1's bias is far above its error, and above that of CD-5, which is above
    # that of CD-50, as far as the error of that one lets see.
    assert biases[0] > 10 * errors[0]
    assert biases[0] > 1.5 * biases[1]
    assert biases[2] < biases[1] / 1.5 + 2 * errors[2]


@pytest.mark.parametrize("rule", RULES)
def test_the_truth_is_a_fixed_point(rule):
    theta = make_theta(spread=1.0)
    states = torch.cat(list(binary_states(N_VISIBLE, theta.flat)))
    p = torch.softmax(-BINARY(theta).free_energy(states), 0)
    generator, draws = seeded(), []
    for _ in range(200):
        rows = states[torch.multinomial(p, 400, replacement=True, generator=generator)]
        draws.append(step(make_objective(rule=rule, n_chains=400), theta, rows, generator).flat)
    # If the data come from the model, Gibbs steps do not change their law: both phases agree on
    # the mean, for any number of steps.
    assert_within_standard_error(torch.stack(draws), torch.zeros_like(theta.flat))


# The criterion


@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
@pytest.mark.parametrize("kind", KINDS)
def test_criterion_estimates_the_pseudo_likelihood(kind, weighted):
    theta, x, weight = make_theta(kind), make_rows(kind), make_weight(weighted)
    objective, generator = make_objective(kind, log_volume=3.5, least_loss=-2.0), seeded()
    draws = torch.stack([objective.criterion(theta, x, generator, weight) for _ in range(100)])
    losses = 3.5 - pseudo_log_likelihood(objective.machine(theta), x)
    expected = losses.mean() if weight is None else (losses * weight).mean()
    # A column drawn uniformly, times their number, is an unbiased estimate of the sum over all;
    # the offset belongs to each row's loss.
    assert_within_standard_error(draws.unsqueeze(1), expected)
    # (Columns differ, so it is an estimate: were it the sum itself, nothing would be drawn.)
    assert draws.std() > 0


def test_criterion_draws_a_column_for_each_row():
    theta, x = make_theta(), make_rows(n_rows=1)
    objective = make_objective()
    single = {objective.criterion(theta, x, seeded(i)).item() for i in range(200)}
    # One row's estimate is one of as many as there are columns.
    assert len(single) == N_VISIBLE
    pairs = {objective.criterion(theta, x.repeat(2, 1), seeded(i)).item() for i in range(600)}
    sums = {round(a + b, 9) for a, b in itertools.product(single, repeat=2)}
    # Two equal rows have columns of their own: means of all pairs occur, not of equal ones only.
    assert {round(2 * value, 9) for value in pairs} == sums


def test_criterion_depends_on_its_generator_alone():
    theta, x = make_theta(), make_rows()
    objective, state = make_objective(rule="pcd"), torch.get_rng_state()
    first = objective.criterion(theta, x, seeded())
    step(objective, theta, x, seeded())
    # The probe after each epoch repeats its noise: the same parameters give the same number,
    # wherever the chains are.
    assert torch.equal(objective.criterion(theta, x, seeded()), first)
    # torch's global generator was not drawn from.
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("rule", RULES)
def test_gradient_depends_on_its_generator_alone(rule):
    theta, x, state = make_theta(), make_rows(), torch.get_rng_state()
    first, second = (step(make_objective(rule=rule), theta, x, seeded()).flat for _ in range(2))
    third = step(make_objective(rule=rule), theta, x, seeded(12)).flat
    # The same seed gives the same particles, bit for bit; another seed others.
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
    # torch's global generator was not drawn from.
    assert torch.equal(torch.get_rng_state(), state)


def test_what_the_training_loop_reads():
    objective = make_objective(log_volume=1.5, least_loss=-0.25)
    # The value says nothing of progress; the criterion is drawn.
    assert (objective.reports_loss, objective.is_noisy, objective.floor) == (False, True, 1.25)
    with torch.no_grad():
        result = objective.gradient(
            theta := make_theta(), make_rows(), seeded(), theta.empty_like()
        )
    # So there is no number to return that might be taken for a loss.
    assert result is None
