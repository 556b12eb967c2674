"""Matrices as linear maps, and the largest eigenvalue by products alone."""

import pytest
import torch

from skae.engine.sparse.linear_maps import Dense, largest_eigenvalue, noise_like, squared_norm
from skae.engine.sparse.problem import L1, Quadratic, fista, gram_matrix, make_quadratic


def test_synthesis_and_gradient_are_adjoints(generator):
    def draw(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    linear_map = Dense(4, 7)
    dictionary, x, code, shift = draw(7, 4), draw(5, 4), draw(5, 7), draw(7)
    product = (code * linear_map.analyze(dictionary, x)).sum()
    # <h, x D^T> = <h D, x> = <D, h^T x>: linear in data and dictionary.
    torch.testing.assert_close((linear_map.synthesize(dictionary, code) * x).sum(), product)
    torch.testing.assert_close((linear_map.filter_gradient(x, code) * dictionary).sum(), product)
    # Each unit has one code: nothing is shared.
    torch.testing.assert_close(
        linear_map.analyze(dictionary, x, shift),
        linear_map.analyze(dictionary, x) + linear_map.spread(shift),
    )


# Eigenvalues of Q: what makes products alone say little about the largest of them.
N = 150
SPECTRA = {
    "all equal": torch.ones(N),
    "almost equal": 1 - 1e-6 * torch.linspace(0, 1, N),
    "one above all others": torch.cat([torch.full((N - 1,), 0.73), torch.ones(1)]),
    "evenly spread": torch.linspace(0, 1, N),
    "ill-conditioned": torch.logspace(-12, 0, N),
    "rank one": torch.cat([torch.zeros(N - 1), torch.ones(1)]),
    "in pairs": torch.linspace(0.5, 1, N // 2).repeat(2),
}
each_spectrum = pytest.mark.parametrize("spectrum", SPECTRA)


def dictionary_of(spectrum, seed=0):
    """D with the eigenvalues of D D^T that are asked for, in random directions."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(N, N, dtype=torch.float64, generator=generator)
    directions, _ = torch.linalg.qr(noise)
    return directions * SPECTRA[spectrum].double().sqrt()


@each_spectrum
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_largest_eigenvalue_is_found_from_below(spectrum, dtype):
    rounding = 100 * torch.finfo(dtype).eps
    for seed in range(10):
        dictionary = dictionary_of(spectrum, seed).to(dtype)
        by_matrix = Quadratic(gram_matrix(dictionary), None, None).curvature()
        by_products = squared_norm(Dense(N, N), dictionary)
        # A Ritz value is an average of eigenvalues (here of at most 1), so not above them. A step
        # of 1 / (3/4) is as long as FISTA bears: that is far away.
        assert 0.9 < by_matrix <= 1 + rounding
        assert 0.9 < by_products <= 1 + rounding


@each_spectrum
def test_fista_is_stable_on_spectra_of_all_kinds(spectrum):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(20, N, dtype=torch.float64, generator=generator)
    quadratic = make_quadratic(dictionary_of(spectrum), x)
    result = fista(quadratic, L1(0.05), tol=1e-6, max_iter=5000)
    # Steps that are too long diverge, and then no gap closes.
    assert (result.gap <= 1e-6 * result.objective).all()
    assert result.n_iter < 5000


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [1, 3, 200])
def test_degenerate_matrices(n, dtype):
    def curvature(gram):
        return Quadratic(gram, None, None).curvature()

    eye, ones = torch.eye(n, dtype=dtype), torch.ones(n, n, dtype=dtype)
    # Every vector is an eigenvector: the first product tells all.
    assert curvature(2 * eye) == pytest.approx(2, rel=1e-6)
    # The mean is the one direction there is, in any unit.
    for scale in (1e-36, 1.0, 1e30):
        assert curvature(scale * ones) == pytest.approx(scale * n, rel=1e-5)
    # Nothing, and nothing that can be computed with: no error, but no step either.
    assert curvature(0 * eye) == 0
    assert not curvature(float("nan") * ones) < float("inf")
    assert largest_eigenvalue((float("inf") * ones).mv, noise_like(ones, n)) == float("inf")


@pytest.mark.parametrize("n", [1, 200])
def test_codes_of_atoms_of_zeros_are_zeros(n):
    x = torch.ones(3, 5)
    result = fista(make_quadratic(torch.zeros(n, 5), x), L1(0.1), start=torch.ones(3, n))
    # What explains nothing is not worth its penalty, though no curvature bounds the step.
    assert not result.codes.any()
    torch.testing.assert_close(result.objective, 0.5 * x.square().sum(1))


def test_the_same_start_in_every_call():
    state = torch.get_rng_state()
    # No draw from a generator of the process, and none that differs between two calls.
    assert torch.equal(noise_like(torch.ones(2), 9), noise_like(torch.zeros(5), 9))
    assert torch.equal(torch.get_rng_state(), state)
