r"""Sparse codes under a penalty on groups that may overlap, by the method of multipliers.

Every group has its own copy z_g of sqrt(w_g) h_g, so that each can be shrunk by itself; the
code is what agrees with all copies best. With one state t of the copies, of which z is the
shrunk part and t - z the scaled multipliers,

    h = (Q + rho C)^-1 (b + rho sum_g sqrt(w_g) (2 z - t)_g),   t += r (sqrt(w) h - z)

(Douglas & Rachford 1956; Boyd et al. 2011). C = diag(sum_g w_g), so that all rows share one
inverse for each rho. r between 1 and 2 goes further than to the copies' agreement.
"""

import torch

from skae.engine.sparse_codes import SparseCodes, is_solved, objective_and_gap

RELAXATION = 1.6
N_ROUNDS = 10  # to find the multipliers of a start
N_BETWEEN = 10  # steps between two looks at the gap
# Copies at a time: on the CPU they stay in the cache.
COPIES_AT_ONCE = {"cpu": 2**18}
MANY_COPIES = 2**26


def admm(quadratic, penalty, *, tol=1e-4, max_iter=1000, start=None):
    """Sparse codes under `GroupL2`, by alternating directions of multipliers.

    One product with the inverse a step, as `fista` has one with Q, but far fewer steps.

    Parameters
    ----------
    quadratic : Quadratic
    penalty : GroupL2
    tol : float
        Largest duality gap, as a part of the row's objective.
    max_iter : int
        Steps at most, of each row.
    start : Tensor of shape (n_samples, n_components), default=None
        None starts at 0.

    Returns
    -------
    result : SparseCodes
        A unit is exactly 0 where any of its groups is.

    Notes
    -----
    Codes do not tell the multipliers of groups that overlap, which have to be found again
    for a ``start``: it saves steps, but even the optimum takes some.
    """
    gram, linear = quadratic.gram, quadratic.linear
    codes = torch.zeros_like(linear) if start is None else start.clone()
    result = SparseCodes(codes, torch.empty_like(linear[:, 0]), torch.empty_like(linear[:, 0]), 0)
    copies = penalty.copies(len(gram), gram)
    system = _System(gram, copies.coverage)
    n_rows = max(1, COPIES_AT_ONCE.get(gram.device.type, MANY_COPIES) // copies.root.numel())
    for first in range(0, len(linear), n_rows):
        rows = torch.arange(first, min(first + n_rows, len(linear)), device=gram.device)
        n_iter = _solve_(result, rows, quadratic, penalty, copies, system, tol, max_iter)
        result = result._replace(n_iter=max(result.n_iter, n_iter))
    return result


class _System:
    """(Q + rho C)^-1 for the rho of the moment, made once for each rho."""

    def __init__(self, gram, coverage):
        self.gram, self.coverage, self._inverses = gram, coverage, {}
        # About the mean eigenvalue of Q, and so of C^-1/2 Q C^-1/2 where coverage is even.
        self.rho = gram.diagonal().mean().item() or 1.0
        # Below, the inverse loses more digits than the copies gain.
        self.least = self.rho * torch.finfo(gram.dtype).eps ** 0.25

    @property
    def inverse(self):
        """Of shape (n_components, n_components)."""
        if self.rho not in self._inverses:
            matrix = self.gram + torch.diag(self.rho * self.coverage.squeeze(1))
            self._inverses[self.rho] = torch.cholesky_inverse(torch.linalg.cholesky(matrix))
        return self._inverses[self.rho]


def _solve_(result, rows, quadratic, penalty, copies, system, tol, max_iter):
    part, code = quadratic.take(rows), result.codes[rows]
    linear = part.linear.t().contiguous()
    correlation = linear - part.gram @ code.t()
    xi = _multipliers(penalty, copies, code.t(), correlation, N_ROUNDS if code.any() else 1)
    t = copies.gather(code.t()).add_(xi, alpha=1 / system.rho)
    n_iter, adapt_at = 0, N_BETWEEN
    while True:
        objective, gap = objective_and_gap(part, _Certified(penalty, copies, xi), code)
        result.codes[rows], result.objective[rows], result.gap[rows] = code, objective, gap
        keep = (~is_solved(part.energy, objective, gap, tol)).nonzero().squeeze(1)
        if not len(keep) or n_iter >= max_iter:
            return n_iter
        if len(keep) < len(rows):
            rows, part, linear, t = rows[keep], part.take(keep), linear[:, keep], t[:, :, keep]
        inverse, rho = system.inverse, system.rho
        for _ in range(min(N_BETWEEN, max_iter - n_iter)):
            z = penalty.shrink_copies(t, 1 / rho)
            reflected = torch.lerp(t, z, 2.0)
            units = inverse @ torch.add(linear, copies.scatter(reflected), alpha=rho)
            agreed = copies.gather(units)
            t.add_(agreed, alpha=RELAXATION).sub_(z, alpha=RELAXATION)
            n_iter += 1
        following = penalty.shrink_copies(t, 1 / rho)
        xi = (t - following).mul_(rho)
        code = _agreement(copies, following).t()
        if n_iter >= adapt_at:
            # Ever more seldom, since only a rho that stays is sure to converge.
            adapt_at = 2 * n_iter
            system.rho = max(_balanced(rho, copies, agreed, z, following, xi), system.least)
            t.sub_(following).mul_(rho / system.rho).add_(following)


def _agreement(copies, z):
    """The code that is nearest to all copies, 0 where any of them is."""
    code = copies.scatter(z) / copies.coverage
    return code.masked_fill_(copies.scatter((z == 0).to(z.dtype)) > 0, 0)


def _balanced(rho, copies, agreed, z, following, xi):
    """A rho under which neither the copies nor the multipliers lag behind (Wohlberg 2017)."""
    apart = (agreed - following).norm() / agreed.norm()
    moved = rho * copies.scatter(following - z).norm() / copies.scatter(xi).norm()
    if apart > 4 * moved > 0:
        return 2 * rho
    return rho / 2 if moved > 4 * apart > 0 else rho


def _multipliers(penalty, copies, units, correlation, n_rounds):
    """Multipliers xi of a code, dual feasible and with sum_g sqrt(w_g) xi_g near b - h Q.

    alpha z_g / |z_g| in groups that are active. What these leave of the correlation is shared
    among all groups, and cut to what each may carry, in turns.
    """
    z = copies.gather(units)
    xi = z / penalty.group_norm(z).clamp_(min=torch.finfo(z.dtype).tiny) * penalty.alpha
    for _ in range(n_rounds):
        xi = xi + copies.share(correlation - copies.scatter(xi))
        xi = xi - penalty.shrink_copies(xi, 1.0)
    return xi


class _Certified:
    """The penalty, whose dual bound has multipliers xi to go by."""

    def __init__(self, penalty, copies, xi):
        self.value = penalty.value
        self._penalty, self._copies, self._xi = penalty, copies, xi

    def dual_scale(self, correlation):
        # Any xi with sum_g sqrt(w_g) xi_g = c bounds: share what these leave out.
        rest = correlation.t() - self._copies.scatter(self._xi)
        return self._penalty.copies_scale(self._copies.share(rest).add_(self._xi))
