"""Learning dictionaries: the block update, gradients, statistics, and what dead atoms become."""

import numpy as np
import pytest
import torch

from skae.engine.optimisation import compilation
from skae.engine.optimisation.optimizers import OPTIMIZERS, initial_state
from skae.engine.optimisation.parameters import Parameters
from skae.engine.optimisation.rows import make_rows
from skae.engine.sparse.dictionaries import (
    DictionaryLearning,
    DictionarySteps,
    Successors,
    draw_atoms,
    draw_successors,
    normalize_atoms_,
    sparse_coding,
    update_atoms_,
)
from skae.engine.sparse.groups import GroupL2, map_groups
from skae.engine.sparse.problem import L1, fista, make_quadratic


def random_theta(generator, n_components=6, n_features=5, dtype=torch.float64):
    theta = Parameters({"dictionary": (n_components, n_features)}, dtype=dtype)
    theta.flat.normal_(generator=generator)
    normalize_atoms_(theta["dictionary"])
    return theta


@pytest.fixture
def theta(generator):
    return random_theta(generator)


@pytest.fixture
def x(generator):
    return torch.randn(40, 5, dtype=torch.float64, generator=generator)


@pytest.fixture
def statistics(generator):
    code = torch.randn(30, 6, dtype=torch.float64, generator=generator)
    data = torch.randn(30, 5, dtype=torch.float64, generator=generator)
    return code.t() @ code, code.t() @ data


def quadratic(D, A, B):
    """1/2 tr(D^T A D) - tr(D^T B), which is 1/2 sum_i |x_i - h_i D|^2 less a constant."""
    return float(0.5 * torch.trace(D.t() @ A @ D) - torch.trace(D.t() @ B))


def learning(penalty=None, **options):
    return DictionaryLearning(penalty or L1(0.2), **{"tol": 1e-12, "max_iter": 50_000, **options})


def statistics_of(theta, batches, weights=None):
    objective, out = learning(), theta.empty_like()
    generator = torch.Generator().manual_seed(0)
    for number, batch in enumerate(batches):
        weight = None if weights is None else weights[number]
        objective.gradient(theta, batch, generator, out, weight)
    return objective.state


def assert_same_statistics(one, other):
    for name in ("code_gram", "code_data"):
        # A gap of 1e-12 leaves codes that are 1e-6 off, the square root; 2e-9 was seen.
        torch.testing.assert_close(one[name], other[name], rtol=1e-7, atol=1e-9)
    assert one["n_seen"] == pytest.approx(other["n_seen"], rel=1e-12)


# The block update


def test_every_atom_descends_and_stays_of_unit_norm(theta, statistics):
    A, B = statistics
    D, value = theta["dictionary"], quadratic(theta["dictionary"], A, B)
    for atom in range(len(D)):
        # A single atom at a time: only its own row of the statistics has use on the diagonal.
        only = torch.zeros_like(A)
        only[atom] = A[atom]
        update_atoms_(D, only, B)
        # For one atom on the sphere the quadratic is linear: A_jj/2 |d|^2 is constant, and the
        # normalised sum of the others' residuals is its minimum.
        assert quadratic(D, A, B) <= value + 1e-12
        value = quadratic(D, A, B)
        torch.testing.assert_close(D[atom].norm(), torch.tensor(1.0).double())


@pytest.mark.parametrize("is_compiled", [True, False])
def test_an_update_is_that_of_a_slow_loop(theta, statistics, is_compiled, monkeypatch):
    if not is_compiled:  # which it is where numba is installed
        monkeypatch.setattr(compilation, "is_compiled", lambda: False)
    A, B = (part.numpy() for part in statistics)
    expected = theta["dictionary"].numpy().copy()
    for j in range(len(expected)):
        others = sum(A[j, k] * expected[k] for k in range(len(expected)) if k != j)
        best = (B[j] - others) / A[j, j]
        expected[j] = best / np.sqrt((best**2).sum())
    update_atoms_(theta["dictionary"], *statistics)
    # Mairal et al. 2010, algorithm 2: least squares for one atom, the others being as they are.
    np.testing.assert_allclose(theta["dictionary"].numpy(), expected, rtol=1e-12)


def test_no_rotation_of_an_atom_is_better_than_its_update(theta, statistics, generator):
    A, B = statistics
    D = theta["dictionary"]
    update_atoms_(D, A, B)
    best, last = quadratic(D, A, B), D[-1].clone()
    for _ in range(50):
        move = 0.3 * torch.randn(len(last), dtype=torch.float64, generator=generator)
        D[-1] = (last + move) / (last + move).norm()
        # The last atom was updated with all the others at their places: it is the minimum.
        assert quadratic(D, A, B) >= best - 1e-12


def test_the_dictionary_of_the_data_is_a_fixed_point(theta, generator):
    code = torch.randn(30, 6, dtype=torch.float64, generator=generator)
    D = theta["dictionary"].clone()
    update_atoms_(theta["dictionary"], code.t() @ code, code.t() @ (code @ D))
    # With x = h D there is no residual, and nothing to move for.
    torch.testing.assert_close(theta["dictionary"], D, rtol=0, atol=1e-12)


def test_repeated_updates_reach_a_stationary_point(theta, statistics):
    A, B = statistics
    D, values = theta["dictionary"], []
    for _ in range(2000):
        values.append(quadratic(D, A, B))
        update_atoms_(D, A, B)
    # Sweeps never go up,
    assert (np.diff(values) <= 1e-10).all()
    # and end where the gradient on each sphere vanishes: B_j - A_j D is a multiple of d_j.
    slope = B - A @ D
    along = (slope * D).sum(1, keepdim=True)
    torch.testing.assert_close(slope, along * D, rtol=0, atol=1e-7)


def test_atoms_without_use_stay(theta, statistics):
    A, B = statistics
    for unused in (0, 3):
        A[unused], A[:, unused], B[unused] = 0.0, 0.0, 0.0
    A[3, 3] = 1e-20  # rounding, compared with the use of the others
    before = theta["dictionary"].clone()
    update_atoms_(theta["dictionary"], A, B)
    # No row says anything about them; dividing by their use would make NaN or noise of them.
    assert torch.equal(theta["dictionary"][[0, 3]], before[[0, 3]])
    assert (theta["dictionary"][[1, 2, 4, 5]] != before[[1, 2, 4, 5]]).all()
    update_atoms_(theta["dictionary"], torch.zeros_like(A), torch.zeros_like(B))
    # Nor does any in a batch without codes.
    assert torch.isfinite(theta["dictionary"]).all()


def test_an_atom_whose_best_is_zero_stays(theta):
    D = theta["dictionary"]
    before = D.clone()
    A, B = torch.zeros(6, 6).double(), torch.zeros(6, 5).double()
    A[2, 2] = 1.0
    B[2] = 0.0
    update_atoms_(D, A, B)
    # d + (0 - d) / 1 = 0 has no direction.
    torch.testing.assert_close(D, before)


# Initial atoms


def test_normalising_leaves_zeros():
    D = torch.tensor([[3.0, 4.0], [0.0, 0.0], [-1e-8, 0.0]])
    # 3-4-5; zero has no direction; and small is not zero.
    expected = torch.tensor([[0.6, 0.8], [0.0, 0.0], [-1.0, 0.0]])
    torch.testing.assert_close(normalize_atoms_(D), expected)
    # In place.
    torch.testing.assert_close(D, expected)


def test_drawn_atoms_are_different_rows(x, generator):
    before = x.clone()
    atoms = draw_atoms(x, 25, generator)
    unit = x / x.norm(dim=1, keepdim=True)
    row = (atoms @ unit.t()).argmax(1)
    # Rows, at unit norm,
    torch.testing.assert_close(atoms, unit[row])
    # without replacement,
    assert len(row.unique()) == 25
    # by the generator alone,
    again = draw_atoms(x, 25, torch.Generator().manual_seed(0))
    assert torch.equal(again, draw_atoms(x, 25, torch.Generator().manual_seed(0)))
    assert not torch.equal(again, draw_atoms(x, 25, torch.Generator().manual_seed(1)))
    # and the data stay as they are.
    assert torch.equal(x, before)


def test_too_few_rows_are_mixed(x, generator):
    rows = x[:3].clone()
    atoms = draw_atoms(rows, 8, generator)
    assert atoms.shape == (8, 5)
    torch.testing.assert_close(atoms.norm(dim=1), torch.ones(8).double())
    # All rows are among them, and the others lie in their span: the rank does not grow.
    assert int(torch.linalg.matrix_rank(torch.cat([atoms, rows]))) == 3
    # No atom is there twice.
    cosine = (atoms @ atoms.t()).abs().fill_diagonal_(0)
    assert float(cosine.max()) < 1 - 1e-6


def test_rows_of_zeros_are_no_atoms(x, generator):
    rows = x.clone()
    rows[::2] = 0
    atoms = draw_atoms(rows, 20, generator)
    # Twenty rows are left, which is enough.
    unit = rows[1::2] / rows[1::2].norm(dim=1, keepdim=True)
    torch.testing.assert_close((atoms @ unit.t()).amax(1), torch.ones(20).double())
    atoms = draw_atoms(torch.zeros(4, 5), 3, generator)
    # A table of zeros prefers no direction, but atoms have unit norm all the same.
    torch.testing.assert_close(atoms.norm(dim=1), torch.ones(3))
    assert atoms.dtype == torch.float32


# Value and gradient


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("groups", [False, True])
@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_the_gradient_is_that_of_the_value_with_codes_held_fixed(
    theta, x, generator, weighted, groups, ridge
):
    penalty = GroupL2(0.1, map_groups((2, 3), 2)) if groups else L1(0.2)
    options = {"tol": 1e-9, "ridge": ridge, "floor": 1.5}
    row_weight = torch.rand(40, dtype=torch.float64, generator=generator) if weighted else None
    out = theta.empty_like()
    objective = learning(penalty, **options)
    value = objective.gradient(theta, x, generator, out, row_weight)

    leaf = theta["dictionary"].clone().requires_grad_()
    expected = learning(penalty, **options).value({"dictionary": leaf}, x, generator, row_weight)
    expected.backward()
    # Codes minimise, so that moving them along has no effect of first order (Danskin).
    torch.testing.assert_close(out["dictionary"], leaf.grad, rtol=1e-7, atol=1e-9)
    # One number, by the residual and by the quadratic form.
    torch.testing.assert_close(value, expected.detach(), rtol=1e-7, atol=0)


def test_the_gradient_is_that_of_the_minimum_over_codes(theta, x, generator):
    out, direction = theta.empty_like(), torch.randn(6, 5, generator=generator).double()
    learning(tol=1e-13).gradient(theta, x, generator, out)
    step, ends = 1e-5, []
    for sign in (1, -1):
        moved = {"dictionary": theta["dictionary"] + sign * step * direction}
        ends.append(float(learning(tol=1e-13).value(moved, x, generator)))
    # Central differences of mean_i min_h, codes and all.
    slope = (ends[0] - ends[1]) / (2 * step)
    assert slope == pytest.approx(float((out["dictionary"] * direction).sum()), rel=1e-5)


def test_the_value_is_the_formula(theta, x, generator):
    D, alpha, ridge = theta["dictionary"], 0.2, 0.4
    code = fista(make_quadratic(D, x, ridge=ridge), L1(alpha), tol=1e-12, max_iter=50_000).codes
    loss = 0.5 * (x - code @ D).square().sum(1) + alpha * code.abs().sum(1)
    loss += 0.5 * ridge * code.square().sum(1)
    value = learning(ridge=ridge, floor=2.0).value(theta, x, generator)
    # 1/2 |x - h D|^2 + alpha |h|_1 + ridge / 2 |h|^2, plus what no dictionary changes.
    torch.testing.assert_close(value, loss.mean() + 2.0, rtol=1e-9, atol=0)


# Statistics

SPLITS = [[40], [20, 20], [1, 39], [39, 1], [3, 17, 1, 19], [1] * 40]


@pytest.mark.parametrize("split", SPLITS, ids=str)
def test_rows_count_alike_however_they_are_divided(theta, x, split):
    # The dictionary does not move here, so that codes are the same.
    state = statistics_of(theta, x.split(split))
    # A sum over rows, whose weights know of no batches.
    assert_same_statistics(state, statistics_of(theta, x.split([7, 13, 20])))


def test_statistics_are_sums_that_forget_by_rows(theta, x):
    state = statistics_of(theta, x.split([25, 15]))
    quadratic = make_quadratic(theta["dictionary"], x)
    h, x = fista(quadratic, L1(0.2), tol=1e-12, max_iter=50_000).codes.numpy(), x.numpy()
    A, B = np.zeros((6, 6)), np.zeros((6, 5))
    for t in range(40):
        # The integral of (s / n)^2 over the row's place, s from t to t + 1.
        weight = ((t + 1) ** 3 - t**3) / (3 * 40**2)
        A += weight * np.outer(h[t], h[t])
        B += weight * np.outer(h[t], x[t])
    np.testing.assert_allclose(state["code_gram"], A, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(state["code_data"], B, rtol=1e-7, atol=1e-9)
    # Every row was seen once.
    assert state["n_seen"] == 40


def test_a_weight_is_a_number_of_repetitions(theta, x):
    counts = torch.arange(40) % 4
    keep = counts > 0
    rows, weights = x[keep], counts[keep].double()
    weighted = statistics_of(theta, rows.split([11, 19]), weights.split([11, 19]))
    repeated = statistics_of(theta, [rows.repeat_interleave(counts[keep], 0)])
    # A row of weight 3 is three rows.
    assert_same_statistics(weighted, repeated)


def test_no_statistics_are_kept_for_steps_along_the_gradient(theta, x, generator):
    objective = learning(keeps_statistics=False)
    objective.gradient(theta, x, generator, theta.empty_like())
    # They would be n_components^2 numbers for nothing.
    assert set(objective.state) == {"n_seen", "idle"}
    objective.keeps_statistics = True
    objective.gradient(theta, x, generator, theta.empty_like())
    # A training that goes on by the block update begins them.
    assert {"code_gram", "code_data"} < set(objective.state)


def test_a_step_without_a_rule_solves_by_the_statistics(theta, x, generator):
    objective, gradient = learning(), theta.empty_like()
    objective.gradient(theta, x, generator, gradient)
    expected = theta["dictionary"].clone()
    update_atoms_(expected, objective.state["code_gram"], objective.state["code_data"])
    before = float(objective.value(theta, x, generator))
    DictionarySteps(objective).update_(theta.flat, gradient.flat, {}, 1e9)
    # The learning rate has no say.
    torch.testing.assert_close(theta["dictionary"], expected)
    # From statistics of these very rows, the objective falls.
    assert float(objective.value(theta, x, generator)) < before


def test_a_step_with_a_rule_is_the_rules(theta, x, generator):
    objective, gradient = learning(keeps_statistics=False), theta.empty_like()
    objective.gradient(theta, x, generator, gradient)
    rule = OPTIMIZERS["sgd"](0.5)
    steps = DictionarySteps(objective, rule)
    # Its moments are kept under its own names.
    assert steps.slots == rule.slots
    expected = theta.flat - 0.1 * gradient.flat
    state = initial_state(steps, theta.flat)
    steps.update_(theta.flat, gradient.flat, state, 0.1)
    torch.testing.assert_close(theta.flat, expected)


# Dead atoms


def dead_ends(generator):
    """Atoms and rows in the plane of the first two axes, but for two atoms and two rows."""
    theta = Parameters({"dictionary": (4, 6)}, dtype=torch.float64)
    theta["dictionary"].copy_(torch.eye(6).double()[[0, 1, 4, 5]])
    x = torch.zeros(60, 6, dtype=torch.float64)
    x[:, :2] = torch.randn(60, 2, dtype=torch.float64, generator=generator)
    x[50], x[51] = torch.eye(6)[2] * 100, torch.eye(6)[3] * 100
    return theta, x


class Still:
    """A rule that moves nothing."""

    slots = ()

    def update_(self, theta, gradient, state, learning_rate):
        pass


def step(objective, theta, x, generator, n_steps=1):
    out = theta.empty_like()
    for _ in range(n_steps):
        objective.gradient(theta, x, generator, out)
        DictionarySteps(objective, Still()).update_(theta.flat, out.flat, {}, 1.0)


@pytest.mark.parametrize("keeps_statistics", [False, True])
def test_dead_atoms_become_rows_that_are_reconstructed_badly(generator, keeps_statistics):
    theta, x = dead_ends(generator)
    objective = learning(keeps_statistics=keeps_statistics)
    step(objective, theta, x, generator, 200)
    D = theta["dictionary"]
    # Those in use stay where they are: nothing moved them.
    torch.testing.assert_close(D[:2], torch.eye(6).double()[:2])
    # Nearly all of the error is in two rows, each of which is orthogonal to all atoms.
    torch.testing.assert_close(D[2:].abs().sum(0), torch.eye(6).double()[2:4].sum(0))
    # What is in use now is not dead any more.
    assert (objective.state["idle"] == 0).all()


def test_successors_start_without_statistics(generator):
    theta, x = dead_ends(generator)
    objective = learning()
    step(objective, theta, x[:50], generator)
    for name in ("code_gram", "code_data", "idle"):
        objective.state[name].fill_(1.0)
    objective.successors = Successors(torch.tensor([3]), x[51:52] / 100)
    objective.replace_dead_(theta["dictionary"])
    torch.testing.assert_close(theta["dictionary"][3], torch.eye(6).double()[3])
    # What was summed up belongs to the atom that is gone; the others keep what is theirs.
    state = objective.state
    assert not state["code_gram"][3].any()
    assert not state["code_gram"][:, 3].any()
    assert not state["code_data"][3].any()
    assert (state["code_gram"][:3, :3] == 1).all()
    assert (state["code_data"][:3] == 1).all()
    assert state["idle"].tolist() == [1, 1, 1, 0]
    # A place is taken once.
    theta["dictionary"].zero_()
    objective.replace_dead_(theta["dictionary"])
    assert not theta["dictionary"].any()


def test_patience_does_not_depend_on_the_batch_size():
    first = []
    for size in (10, 50):
        generator = torch.Generator().manual_seed(0)
        theta, x = dead_ends(generator)
        objective, n_seen = learning(), 0
        while torch.equal(theta["dictionary"][2:], torch.eye(6).double()[4:]):
            for batch in x[:50].split(size):
                step(objective, theta, batch, generator)
            n_seen += 50
        first.append(n_seen)
    # Idle time is counted in uses of the others, so in rows and not in steps.
    assert first[0] == first[1]


def test_no_atom_is_replaced_while_all_codes_vanish(generator):
    theta, x = dead_ends(generator)
    before = theta["dictionary"].clone()
    step(learning(L1(1e3)), theta, x, generator, 500)
    # None is used less than the others: alpha is too large, which no successors mend.
    torch.testing.assert_close(theta["dictionary"], before)


def test_nobody_succeeds_where_nothing_is_missed(x, generator):
    idle, error = torch.zeros(4), torch.ones(40).double()
    # No atom is dead ...
    assert draw_successors(idle, x, error, generator) is None
    idle[2] = 1e9
    # ... no row is reconstructed badly ...
    assert draw_successors(idle, x, 0 * error, generator) is None
    # ... or those that are have no direction.
    assert draw_successors(idle, 0 * x, error, generator) is None
    assert draw_successors(idle, x, error, generator).dead.tolist() == [2]


def test_few_atoms_are_replaced_at_a_time(x, generator):
    idle = 1e9 + torch.arange(40).double()
    dead, atoms = draw_successors(idle, x, x.square().sum(1), generator)
    # More at once would all go for the same bad rows; those first that were idle for longest.
    assert dead.tolist() == list(range(39, 31, -1))
    unit = x / x.norm(dim=1, keepdim=True)
    # Each is a row, and no two are the same.
    torch.testing.assert_close((atoms @ unit.t()).amax(1), torch.ones(8).double())
    assert len((atoms @ unit.t()).argmax(1).unique()) == 8


# The model


def test_the_model_starts_at_rows_and_keeps_norms(x, generator):
    model = sparse_coding(
        6, 5, L1(0.2), lambda D, x: x @ D.t(), units=None, objective=None, split_sign=True
    )
    theta = Parameters(model.shapes, dtype=torch.float64)
    rows = make_rows(x.numpy(), None, None, dtype=torch.float64, device=torch.device("cpu"))
    model.start_(theta, rows, torch.arange(20, 40), generator)
    unit = x / x.norm(dim=1, keepdim=True)
    # Atoms are rows of the index.
    assert ((theta["dictionary"] @ unit.t()).argmax(1) >= 20).all()
    directions = theta["dictionary"].clone()
    theta["dictionary"].mul_(torch.arange(1, 7).unsqueeze(1))
    # Steps along the gradient leave the spheres; the constraint holds after the step.
    model.project(theta)
    torch.testing.assert_close(theta["dictionary"], directions)
    # Split signs are put together again.
    assert model.n_codes == 12
    torch.testing.assert_close(
        model.reconstruct(theta, x), x @ theta["dictionary"].t() @ theta["dictionary"]
    )
