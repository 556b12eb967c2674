"""Sparse codes without an optimum: by greedy choice, or by a threshold."""

import math

import torch

from skae.engine.sparse.problem import L1, Quadratic

ROWS_AT_ONCE = 1024  # their correlations stay in the cache


def soft_threshold(correlation: torch.Tensor, alpha: float, positive: bool = False) -> torch.Tensor:
    """sign(c) max(0, |c| - alpha), the encoder of Coates & Ng 2011 for c = x D^T.

    It is the lasso's code where atoms are orthonormal, and one step towards it elsewhere.
    With ``positive``, max(0, c - alpha).
    """
    return L1(alpha, positive).shrink(correlation, 1.0)


def orthogonal_matching_pursuit(
    quadratic: Quadratic, n_nonzero: int, *, tol: float | None = None
) -> torch.Tensor:
    """Codes of at most ``n_nonzero`` atoms, by orthogonal matching pursuit.

    Each step takes the atom j that is most correlated with the residual, by |c_j| / |d_j|, and fits
    all atoms taken by least squares (Pati, Rezaiifar & Krishnaprasad 1993; from correlations alone:
    Rubinstein, Zibulevsky & Elad 2008). Where atoms have norm 1 this is scikit-learn's
    `orthogonal_mp_gram`. Where I are the atoms taken so far, it keeps the upper triangular R with
    R R^T = (Q_II)^-1, which grows by a column with each atom: nothing is ever factorised anew, and
    all rows step together. With a ridge, it is the augmented problem's rows that it fits: y for x.

    A row takes no further atom, not even its first, once the squared norm of its residual is at
    most ``tol``, nor where the arithmetic can not tell the best of the others from a combination of
    those taken: zero atoms, and copies of atoms taken, never enter a code.
    """
    n_components = len(quadratic.gram)
    if not 1 <= n_nonzero <= n_components:
        raise ValueError(
            f"n_nonzero={n_nonzero!r} must be from 1 to n_components={n_components}: a code "
            "can not have more atoms than the dictionary."
        )
    if tol is not None and not tol >= 0:
        raise ValueError(
            f"tol={tol!r} is a squared norm: it must be at least 0, or None for no such limit."
        )
    # Atoms of norm 1 from here on; a zero atom stays one, and correlates with nothing.
    inverse_norm = quadratic.gram.diagonal().clamp(min=0).rsqrt()
    inverse_norm.masked_fill_(inverse_norm.isinf(), 0)
    gram = quadratic.gram * inverse_norm * inverse_norm.unsqueeze(1)
    codes = torch.zeros_like(quadratic.linear)
    for first in range(0, len(codes), ROWS_AT_ONCE):
        rows = slice(first, first + ROWS_AT_ONCE)
        part = Quadratic(gram, quadratic.linear[rows] * inverse_norm, quadratic.energy[rows])
        _pursue_(codes[rows], part, n_nonzero, -math.inf if tol is None else tol)
    return codes.mul_(inverse_norm)


def _pursue_(codes, quadratic, n_nonzero, tol):
    gram, correlation, residual = quadratic.gram, quadratic.linear, 2 * quadratic.energy
    rounding = 32 * torch.finfo(gram.dtype).eps
    least = rounding * residual.sqrt()
    # Rows are the last axis of all that is small: each operation runs along them.
    n_rows = len(correlation)
    atoms = torch.zeros(n_nonzero, n_rows, dtype=torch.long, device=gram.device)
    weights = correlation.new_zeros(n_nonzero, n_rows)
    root = correlation.new_zeros(n_nonzero, n_nonzero, n_rows)
    countdown = torch.arange(len(gram) - 1, -1, -1, device=gram.device).to(gram)
    for n in range(n_nonzero):
        size, atom = _first_largest(correlation, countdown)
        cross = torch.take(gram, atoms[:n] * len(gram) + atom)
        # The new atom's part within the span of those taken, and its weights on them.
        within = (root[:n, :n] * cross.unsqueeze(1)).sum(0)
        combination = (root[:n, :n] * within).sum(1)
        beyond = 1 - (within * within).sum(0)
        takes = (size > least) & (beyond > rounding) & (residual > tol)
        takes &= (atoms[:n] != atom).all(0)
        if not takes.any():
            break
        scale = torch.where(takes, beyond.rsqrt(), 0)
        here = correlation.gather(1, atom.unsqueeze(1)).squeeze(1) * scale
        residual = residual - here * here
        root[:n, n] = combination.mul_(-scale)
        root[n, n] = scale
        weights[: n + 1] += root[: n + 1, n] * here
        atoms[n] = atom
        explained = torch.nn.functional.embedding_bag(
            atoms[: n + 1].t(), gram, per_sample_weights=weights[: n + 1].t(), mode="sum"
        )
        correlation = torch.sub(quadratic.linear, explained, out=explained)
    codes.scatter_add_(1, atoms.t(), weights.t())


def _first_largest(correlation, countdown):
    """The largest |c_j| of each row and its first j; torch's ``max(1)`` takes thrice as long."""
    size = correlation.abs()
    largest = size.amax(1)
    is_largest = size.ge_(largest.unsqueeze(1))
    return largest, len(countdown) - 1 - is_largest.mul_(countdown).amax(1).long()
