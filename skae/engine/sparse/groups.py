r"""Groups of code units that are active together: the penalty on them, and its solver.

The penalty alpha sum_g sqrt(sum_{j in g} w_gj h_j^2) turns whole groups on and off. Where the
groups are overlapping neighbourhoods on a map (a ring, a torus), units that are active for the same
inputs come to lie side by side: topographic maps (Kavukcuoglu, Ranzato, Fergus & LeCun, CVPR 2009).

Codes are found by the method of multipliers (Douglas & Rachford 1956; Boyd et al. 2011). Every
group has its own copy z_g of sqrt(w_g) h_g, so that each can be shrunk by itself; the code is what
agrees with all copies best. With one state t of the copies, of which z is the shrunk part and
t - z the scaled multipliers,

    h = (Q + rho C)^-1 (b + rho sum_g sqrt(w_g) (2 z - t)_g),   t += r (sqrt(w) h - z)

C = diag(sum_g w_g), so that all rows share one inverse for each rho. r between 1 and 2 goes
further than to the copies' agreement.
"""

import math
from numbers import Integral
from typing import Any, NamedTuple

import torch

from skae.engine.sparse.problem import SOLVERS, Quadratic, SparseCodes, is_solved, objective_and_gap


class Groups(NamedTuple):
    """Groups of units, all of one size; a unit may be in several.

    ``members`` are the units of each group, of shape (n_groups, group_size). ``weight``, of that
    shape or (group_size,), is w > 0: how much each member counts.
    """

    members: torch.Tensor
    weight: torch.Tensor


def map_groups(
    map_shape: int | tuple, group_shape: int | tuple, *, n_components: int | None = None
) -> Groups:
    """Neighbourhoods on a ring (one axis) or a torus (two) of units, numbered row by row.

    There is one around each unit; one number as ``group_shape`` holds for all axes. A ValueError
    tells of shapes that do not fit one another or ``n_components``.

    >>> map_groups(4, 3).members
    tensor([[3, 0, 1],
            [0, 1, 2],
            [1, 2, 3],
            [2, 3, 0]])
    """
    sizes = _axes("map_shape", map_shape)
    extents = _axes("group_shape", group_shape, len(sizes))
    if n_components is not None and math.prod(sizes) != n_components:
        raise ValueError(
            f"map_shape={map_shape!r} has {math.prod(sizes)} units, but n_components="
            f"{n_components}: choose the map's shape so that its product is n_components."
        )
    members = torch.zeros(1, 1, dtype=torch.long)
    for size, extent in zip(sizes, extents, strict=True):
        if extent > size:
            raise ValueError(
                f"group_shape has {extent} units along an axis of map_shape that has {size}: "
                "choose smaller groups, or a larger map."
            )
        around = torch.arange(extent) - (extent - 1) // 2
        along = (torch.arange(size).unsqueeze(1) + around) % size
        members = members[:, None, :, None] * size + along[None, :, None, :]
        members = members.reshape(-1, members.shape[2] * extent)
    return Groups(members, torch.ones(members.shape[1], dtype=torch.float64))


def _axes(name, value, n_axes=None):
    """A size for each axis, as a tuple."""
    sizes = tuple(value) if isinstance(value, tuple | list) else (value,) * (n_axes or 1)
    if not sizes or any(not isinstance(size, Integral) or size < 1 for size in sizes):
        raise ValueError(f"{name}={value!r} must be integers of at least 1, one for each axis.")
    if n_axes is not None and len(sizes) != n_axes:
        raise ValueError(
            f"{name}={value!r} has {len(sizes)} axes, but the map has {n_axes}: give one number "
            "for each axis of map_shape, or one for all."
        )
    return sizes


class Copies:
    """sqrt(w_gj) h_j for every unit j of every group g, and back.

    Tensors have the rows of the data last, so that each operation runs along them: codes are
    (n_components, n_samples), copies are (group_size, n_groups, n_samples). ``coverage`` is
    sum_g w_gj, of shape (n_components, 1). It computes with dtype and device of ``like``.
    """

    def __init__(self, groups: Groups, n_components: int, like: torch.Tensor):
        check_groups(groups, n_components)
        self.shape = groups.members.t().shape
        self._units = groups.members.t().reshape(-1).to(like.device)
        counts = torch.bincount(self._units, minlength=n_components)
        self._order = self._units.argsort()
        self._first = counts.cumsum(0) - counts
        weight = groups.weight.expand(groups.members.shape).t().reshape(-1).to(like)
        self.root = weight.sqrt().view(*self.shape, 1)
        self._ordered_root = self.root.view(-1)[self._order]
        self._is_flat = bool((weight == 1).all())
        self.coverage = weight.new_zeros(n_components).index_add_(0, self._units, weight)
        self.coverage.unsqueeze_(1)

    def gather(self, units: torch.Tensor) -> torch.Tensor:
        """The copies of units: sqrt(w_gj) h_j."""
        copies = units.index_select(0, self._units).view(*self.shape, units.shape[1])
        return copies if self._is_flat else copies.mul_(self.root)

    def scatter(self, copies: torch.Tensor) -> torch.Tensor:
        """The transpose of `gather`: sum_g sqrt(w_gj) z_gj."""
        return torch.nn.functional.embedding_bag(
            self._order,
            copies.view(-1, copies.shape[2]),
            self._first,
            per_sample_weights=None if self._is_flat else self._ordered_root,
            mode="sum",
        )

    def share(self, units: torch.Tensor) -> torch.Tensor:
        """The smallest copies whose `scatter` is ``units``."""
        return self.gather(units / self.coverage)


def check_groups(groups: Groups, n_components: int) -> None:
    """Raise a ValueError unless groups fit a code and leave none of its units out."""
    members, weight = groups
    if members.ndim != 2 or not members.numel():
        raise ValueError(
            f"Groups need members of shape (n_groups, group_size), not {tuple(members.shape)}."
        )
    if members.min() < 0 or members.max() >= n_components:
        raise ValueError(
            f"Groups name units from {int(members.min())} to {int(members.max())}, but the code "
            f"has n_components={n_components}: units are numbered from 0 to n_components - 1."
        )
    if (members.sort(1).values.diff(dim=1) == 0).any():
        raise ValueError("A group holds one unit twice: give it once, with a larger weight.")
    missing = torch.bincount(members.reshape(-1), minlength=n_components) == 0
    if missing.any():
        raise ValueError(
            f"Unit {int(missing.nonzero()[0])} is in no group, so that nothing would penalise it: "
            "give it a group of its own."
        )
    if (
        weight.shape not in (members.shape, members.shape[1:])
        or not ((weight > 0) & weight.isfinite()).all()
    ):
        raise ValueError(
            "Groups need finite weights larger than 0, of shape (group_size,) or (n_groups, "
            "group_size): leave a unit out of a group instead of giving it weight 0."
        )


class GroupL2:
    """The penalty alpha sum_g sqrt(sum_{j in g} w_gj h_j^2), with alpha > 0."""

    solver = "admm"
    has_paths = False

    def __init__(self, alpha: float, groups: Groups, positive: bool = False):
        if not alpha > 0:
            raise ValueError(f"alpha={alpha!r} must be larger than 0 for a penalty on groups.")
        self.alpha, self.groups, self.positive = alpha, groups, positive
        self._copies: dict[Any, Any] = {}

    def copies(self, n_components: int, like: torch.Tensor) -> Copies:
        """The `Copies` of units in these groups, made once for each dtype and device."""
        key = n_components, like.dtype, like.device
        if key not in self._copies:
            self._copies[key] = Copies(self.groups, n_components, like)
        return self._copies[key]

    def value(self, code: torch.Tensor) -> torch.Tensor:
        """The penalty of each row of codes."""
        copies = self.copies(code.shape[1], code)
        return self.alpha * copies.gather(code.t()).square_().sum(0).sqrt_().sum(0)

    def dual_scale(self, correlation: torch.Tensor) -> torch.Tensor:
        """A factor s of at most 1 for which s c is dual feasible.

        c is, if c = sum_g sqrt(w_g) xi_g with all |xi_g| <= alpha. Here each unit's c_j is
        shared among its groups by their weights: that is exact where groups do not overlap.
        """
        copies = self.copies(correlation.shape[1], correlation)
        return self.copies_scale(copies.share(correlation.t()))

    def copies_scale(self, xi: torch.Tensor) -> torch.Tensor:
        """The same for multipliers xi of the copies."""
        largest = self.group_norm(xi).amax(0)
        return (self.alpha / largest.clamp_(min=self.alpha)).clamp_(max=1)

    def shrink_copies(self, copies: torch.Tensor, step: float) -> torch.Tensor:
        """argmin_z 1/2 |z - copies|^2 + alpha step sum_g |z_g|."""
        norm = self.group_norm(copies)
        factor = 1 - (self.alpha * step / norm).clamp_(max=1)
        return (copies.clamp(min=0) if self.positive else copies) * factor

    def group_norm(self, copies: torch.Tensor) -> torch.Tensor:
        """|z_g| of copies; of their positive parts, where codes have to be non-negative."""
        return (copies.clamp(min=0) if self.positive else copies).square().sum(0).sqrt_()


RELAXATION = 1.6
N_ROUNDS = 10  # to find the multipliers of a start
N_BETWEEN = 10  # steps between two looks at the gap
# Copies at a time: on the CPU they stay in the cache.
COPIES_AT_ONCE = {"cpu": 2**18}
MANY_COPIES = 2**26


@SOLVERS.register
def admm(
    quadratic: Quadratic,
    penalty: Any,
    *,
    tol: float = 1e-4,
    max_iter: int = 1000,
    start: torch.Tensor | None = None,
) -> SparseCodes:
    """Sparse codes under `GroupL2`, by alternating directions of multipliers.

    One product with the inverse a step, as `fista` has one with Q, but far fewer steps, of which
    each row takes ``max_iter`` at most. A unit is exactly 0 where any of its groups is. Codes do
    not tell the multipliers of groups that overlap, which have to be found again for a ``start``:
    it saves steps, but even the optimum takes some.
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
