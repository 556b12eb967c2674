"""The compiled search for active atoms and signs, where numba is and where it is not."""

import numpy as np
import pytest
import torch
from sparse_problems import problem

from skae.engine.optimisation import compilation
from skae.engine.sparse import active_sets
from skae.engine.sparse import feature_sign as module
from skae.engine.sparse.dictionaries import add_products_, update_atoms_
from skae.engine.sparse.feature_sign import feature_sign
from skae.engine.sparse.homotopy import homotopy
from skae.engine.sparse.problem import (
    L1,
    choose_algorithm,
    fista,
    infer,
    is_solved,
    make_quadratic,
    objective_and_gap,
    ready_algorithm,
    usable_algorithm,
)

pytestmark = pytest.mark.skipif(not compilation.is_compiled(), reason="numba is not installed")
CPU = torch.device("cpu")


@pytest.fixture
def plain(monkeypatch):
    """An installation without numba."""
    monkeypatch.setattr(compilation, "is_compiled", lambda: False)


@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("pull", [0.0, 0.4])
def test_codes_are_those_of_the_other_solvers(positive, pull):
    D, x = problem(60, 40, 25)
    attractor = 0.3 * torch.flip(x @ D.t(), [0]) if pull else None
    quadratic = make_quadratic(D, x, ridge=pull, attractor=attractor)
    for alpha in (0.5, 0.05):
        penalty = L1(alpha, positive)
        result = feature_sign(quadratic, penalty)
        # Two ways to one minimum, the elastic net's and an encoder's pull included.
        others = [homotopy(quadratic, penalty, tol=1e-12)]
        others += [fista(quadratic, penalty, tol=1e-13, max_iter=20_000)]
        for other in others:
            torch.testing.assert_close(result.objective, other.objective, rtol=1e-9, atol=0)
        torch.testing.assert_close(result.codes, others[0].codes, rtol=0, atol=1e-9)
        # Certificates are of what is returned.
        objective, gap = objective_and_gap(quadratic, penalty, result.codes)
        torch.testing.assert_close(result.objective, objective, rtol=1e-12, atol=0)
        assert (gap <= 1e-12 * objective).all()
        assert (result.gap <= 1e-12 * objective).all()
        # c_j = alpha sign(h_j) where h_j is not 0, and no correlation beyond alpha.
        correlation, active = quadratic.correlation(result.codes), result.codes != 0
        torch.testing.assert_close(
            correlation[active], alpha * result.codes[active].sign(), rtol=1e-10, atol=0
        )
        reach = correlation if positive else correlation.abs()
        assert float(reach.max()) <= alpha * (1 + 1e-10)


def degenerate(kind, rng, n_components, n_features):
    """Dictionaries in which atoms depend on others, exactly and nearly, or are zero."""
    atoms = rng.integers(-1, 2, (n_components, n_features)).astype(float)
    if kind == "signs":
        return atoms
    if kind == "axes":
        return np.vstack([np.eye(n_features), -np.eye(n_features)])
    if kind == "copies":
        return np.vstack([atoms, atoms, -2 * atoms, 0 * atoms])
    atoms += rng.standard_normal(atoms.shape)
    return np.vstack([atoms, atoms + 1e-5 * rng.standard_normal(atoms.shape), -atoms])


@pytest.mark.parametrize("kind", ["signs", "axes", "copies", "near"])
@pytest.mark.parametrize(
    ("dtype", "scale"), [(torch.float32, 1e-8), (torch.float32, 1e7), (torch.float64, 1e8)]
)
def test_degenerate_atoms(kind, dtype, scale):
    tol = 1e-4 if dtype == torch.float32 else 1e-9
    for seed in range(12):
        rng = np.random.default_rng(seed)
        n_components, n_features = rng.integers(1, 20, 2)
        D = torch.tensor(degenerate(kind, rng, n_components, n_features)).to(dtype)
        x = torch.tensor(rng.integers(-2, 3, (12, n_features)) * scale).to(dtype)
        quadratic = make_quadratic(D, x)
        for alpha in (1.0, 0.1):
            for positive in (False, True):
                penalty = L1(alpha * scale, positive)
                result = feature_sign(quadratic, penalty)
                assert torch.isfinite(result.codes).all()
                if kind != "near":
                    # An atom that depends on active ones takes the place of one of them.
                    solved = is_solved(quadratic.energy, result.objective, result.gap, tol)
                    assert solved.all()
                result = infer(quadratic, penalty, tol=1e-4, algorithm="feature_sign")
                objective, gap = objective_and_gap(quadratic, penalty, result.codes)
                rounding = 100 * torch.finfo(dtype).eps * quadratic.energy
                # What rounding of nearly equal atoms leaves unsolved, another solver finishes.
                assert (gap <= 1e-4 * objective + rounding).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bits_depend_on_nothing_but_the_row(dtype, monkeypatch):
    D, x = problem(150, 40, 25, dtype=dtype)
    quadratic, penalty = make_quadratic(D, x), L1(0.05)
    once = feature_sign(quadratic, penalty)
    used = torch.get_num_threads()
    for n_threads, n_rows in ((1, 256), (2, 7), (3, 32)):
        monkeypatch.setattr(torch, "get_num_threads", lambda n=n_threads: n)
        monkeypatch.setattr(module, "_MOST_ROWS", n_rows)
        monkeypatch.setattr(module, "_FEWEST_ROWS", min(32, n_rows))
        again = feature_sign(quadratic, penalty)
        # Rows share neither numbers nor order: any split gives the same bits.
        assert all(torch.equal(a, b) for a, b in zip(once[:3], again[:3], strict=True))
    some = torch.tensor([140, 3, 77])
    part = feature_sign(quadratic.take(some), penalty)
    assert torch.equal(part.codes, once.codes[some])
    monkeypatch.undo()
    assert torch.get_num_threads() == used


@pytest.mark.parametrize("n_threads", [1, 2])
def test_an_interruption_is_heard_between_blocks(n_threads, monkeypatch):
    begun = []

    def interrupted(gram, linear, *rest):
        begun.append(len(linear))
        raise KeyboardInterrupt

    monkeypatch.setattr(active_sets, "code_rows", interrupted)
    monkeypatch.setattr(torch, "get_num_threads", lambda: n_threads)
    D, x = problem(2000)
    with pytest.raises(KeyboardInterrupt):
        feature_sign(make_quadratic(D, x), L1(0.1))
    # Of eight blocks or more, those begin that had begun, and perhaps their successors.
    assert max(begun) <= 256
    assert len(begun) <= 2 * n_threads


def test_a_search_that_is_cut_off_says_so():
    D, x = problem(60)
    quadratic, penalty = make_quadratic(D, x), L1(0.01)
    result = feature_sign(quadratic, penalty, max_iter=2)
    objective, gap = objective_and_gap(quadratic, penalty, result.codes)
    torch.testing.assert_close(result.objective, objective, rtol=1e-10, atol=0)
    torch.testing.assert_close(result.gap, gap, rtol=1e-9, atol=1e-12)
    assert result.n_iter == 2
    assert not is_solved(quadratic.energy, result.objective, result.gap, 1e-6).all()


def test_no_rows_no_numbers_and_numbers_that_are_none():
    D, x = problem(3)
    empty = feature_sign(make_quadratic(D, x[:0]), L1(0.1))
    assert empty.codes.shape == (0, 30)
    assert empty.n_iter == 0
    x[1] = torch.nan
    x[2] = 1e200
    quadratic = make_quadratic(D, x)
    result = feature_sign(quadratic, L1(0.1))
    # A row that has exploded ends, and leaves the others alone.
    alone = feature_sign(quadratic.take([0]), L1(0.1))
    assert torch.equal(result.codes[0], alone.codes[0])
    assert not is_solved(x.new_zeros(3), result.objective, result.gap, 1e-4)[1]


def test_without_numba_the_other_solvers_do_it(plain):
    quadratic, penalty = make_quadratic(*problem()), L1(0.5)
    # Who asks for it by name is told what is missing; who does not gets the same codes.
    with pytest.raises(ImportError, match=r'pip install "skae\[fast\]"'):
        infer(quadratic, penalty, algorithm="feature_sign")
    assert choose_algorithm(quadratic, penalty) in ("homotopy", "fista")
    assert usable_algorithm("feature_sign", CPU) == "homotopy"
    assert usable_algorithm("fista", CPU) == "fista"
    assert ready_algorithm(penalty, None, CPU) == "fista"
    assert infer(quadratic, penalty).codes.any()


def test_with_numba_it_is_chosen_on_a_cpu():
    quadratic, penalty = make_quadratic(*problem(70, 200, 40)), L1(0.5)
    assert choose_algorithm(quadratic, penalty) == "feature_sign"
    assert usable_algorithm("feature_sign", CPU) == "feature_sign"
    # Nobody compiles for accelerators.
    assert usable_algorithm("feature_sign", torch.device("cuda")) == "homotopy"
    assert ready_algorithm(penalty, None, CPU) == "feature_sign"
    assert ready_algorithm(penalty, None, torch.device("cuda")) == "fista"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_atoms_move_as_without_numba(dtype, monkeypatch):
    D, x = problem(200, 40, 15, dtype=dtype)
    D[7] = 0
    code = feature_sign(make_quadratic(D, x), L1(0.6)).codes
    code[:, 11] = 0
    weight = torch.linspace(0, 2, 200, dtype=torch.float64).to(dtype)
    found = []
    for is_compiled in (True, False):
        monkeypatch.setattr(compilation, "is_compiled", lambda answer=is_compiled: answer)
        gram, data = D.new_zeros(40, 40), D.new_zeros(40, 15)
        add_products_(gram, data, code, x, weight, is_sparse=True)
        moved = D.clone()
        update_atoms_(moved, gram, data)
        found.append((gram, data, moved))
    atol = 1e-4 if dtype == torch.float32 else 1e-12
    for compiled, plain in zip(*found, strict=True):
        torch.testing.assert_close(compiled, plain, rtol=0, atol=atol)
    # Atoms without use, a zero among them, stay; the others have moved, and have norm 1.
    assert torch.equal(found[0][2][[7, 11]], D[[7, 11]])
    assert float((found[0][2] - D).abs().amax(1).median()) > 0.01
    norms = found[0][2].norm(dim=1)
    assert torch.allclose(norms[norms > 0], D.new_ones(()), atol=1e-5)


class Numba:
    """Stands in for numba: a cache that fails, when asked for or when written."""

    def __init__(self, at):
        self.at = at

    def njit(self, cache=False, **options):
        if cache and self.at == "decoration":
            raise RuntimeError("no locator available")

        def decorate(function):
            def call(*arguments):
                if cache and self.at == "call":
                    raise OSError("No space left on device")
                return function(*arguments)

            return call

        return decorate


@pytest.mark.parametrize("at", ["decoration", "call", "never"])
def test_a_cache_that_can_not_be_written_breaks_nothing(at, monkeypatch):
    monkeypatch.setattr(compilation, "find_numba", lambda: Numba(at))
    # Read-only installations, homes and full disks: then every process compiles for itself.
    assert compilation.compiled(lambda x: 2 * x)(21) == 42
