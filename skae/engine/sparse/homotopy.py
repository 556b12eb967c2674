r"""Exact lasso codes by homotopy, for many rows at a time.

The minimiser h(m) of 1/2 |y|^2 - b h + 1/2 h Q h + m |h|_1 is piecewise linear in the weight m.
Osborne et al. 2000 and Efron et al. 2004 (LARS) follow it from m = max |b|, where h = 0, down to
alpha; a code of n atoms takes little more than n steps. While the set A of active atoms, with
signs s, stays the same,

    h_A(m) = z - m u,    z = Q_AA^-1 b_A,    u = Q_AA^-1 s,    b - h Q = e + m a

with e = b - z Q_A and a = u Q_A. The next event is the largest m at which an atom outside reaches
the bound, |e_j + m a_j| = m, that is m = e_j / (sign(e_j) - a_j), or an active one reaches zero,
m = z_j / u_j. Either changes Q_AA^-1 by a matrix of rank one, kappa v v^T, and therewith z, u, e
and a by multiples of v and of v Q: a step costs one sparse product and eight passes over the
correlations. All rows step together, each along its own path.
"""

from copy import copy
from typing import NamedTuple

import torch
from torch.nn import functional

from skae.engine.optimisation.devices import suitable_threads
from skae.engine.sparse.problem import L1, SOLVERS, Quadratic, SparseCodes, combine, is_solved

# Rows that step together: as many as keep a pass over their correlations in the cache.
_BLOCK_ENTRIES = 2**20
# A pivot below this part of an atom's squared norm: the atom depends on the active ones.
_DEPENDENT = {torch.float32: 1e-4, torch.float64: 1e-9}
# Rows that are worth the fixed cost of a step.
_FEWEST_ROWS = 64
# Slots are made free once so many of them are taken by atoms that have left.
_FULL, _ROOM = 0.75, 8
# Rows that have arrived are carried along until they are this part of all.
_CARRIED = 0.3
# The inverses of a block grow with the square of the active atoms: beyond this many entries,
# which still fit into the cache, halves of it go on by themselves.
_MOST_ENTRIES = 2**21


@SOLVERS.register
def homotopy(
    quadratic: Quadratic,
    penalty: L1,
    *,
    tol: float = 1e-4,
    max_iter: int | None = None,
    start: torch.Tensor | None = None,
) -> SparseCodes:
    """Lasso codes by following the path of minimisers, from 0: exact but for rounding.

    ``max_iter`` steps at most; None: twice as many as there are components, and 20. Codes with a
    gap above ``tol`` of the objective are refined. Rows whose path was cut off, because it is too
    long or the dictionary too ill-conditioned for the arithmetic, show by their gap. ``start`` is
    ignored.
    """
    n_rows, n_components = quadratic.linear.shape
    if max_iter is None:
        max_iter = 2 * n_components + 20
    if n_rows == 0:
        return SparseCodes(quadratic.linear.clone(), quadratic.energy, quadratic.energy, 0)
    result = SparseCodes(
        torch.zeros_like(quadratic.linear),
        quadratic.energy.clone(),
        torch.zeros_like(quadratic.energy),
        0,
    )
    size = min(n_rows, max(1, _BLOCK_ENTRIES // n_components))
    # Memory costs more to get than to fill.
    workspace = quadratic.linear.new_empty(3, size, n_components)
    n_iter = 0
    # Threads of torch would have to meet after each of a thousand small operations.
    with suitable_threads(quadratic.linear.device, 0):
        for first in range(0, n_rows, size):
            block = slice(first, first + size)
            parts = [part[block] for part in result[:3]]
            paths = _Paths(quadratic.take(block), penalty, parts, workspace)
            n_iter = max(n_iter, paths.follow(max_iter, tol))
    return result._replace(n_iter=n_iter)


class _Event(NamedTuple):
    """What happens to each row: tensors of shape (n_rows,)."""

    adds: torch.Tensor  # an atom enters,
    drops: torch.Tensor  # or one leaves; neither where the path has arrived
    atom: torch.Tensor  # the one that would enter
    slot: torch.Tensor  # of the one that leaves
    constant: torch.Tensor  # e of the atom that would enter, its a, and the sign of its code
    slope: torch.Tensor
    side: torch.Tensor


class _Paths:
    """The paths of a block of rows, all at the same number of steps.

    Slot by slot: ``atoms``, ``sign`` (0 in a slot that is free), ``z``, ``u`` and ``inverse``
    have rows as their last axis, along which tiny matrices vectorise. Every step uses one
    more slot. ``members`` repeats the atoms, row by row, as an index.
    """

    def __init__(self, quadratic, penalty, result, workspace):
        self.gram, self.linear, self.energy = quadratic
        self.alpha, self.positive = penalty.alpha, penalty.positive
        self.penalty, self.result = penalty, result
        n_rows, n_components = self.linear.shape
        new = self.linear.new_empty
        self.flat_gram = self.gram.reshape(-1)
        self.square_norm = self.gram.diagonal().contiguous()
        self.rows = torch.arange(n_rows, device=self.linear.device)
        # A slope of exactly 0 would make 0/0 of an atom that is orthogonal to the row.
        self.constant, self.slope, self.ratio = workspace[:, :n_rows]
        self.constant.copy_(self.linear)
        self.slope.fill_(-1e-30)
        self.weight = new(n_rows).fill_(torch.inf)
        self.dropped = self.rows.new_zeros(n_rows, 0)
        self.n_slots = self.n_iter = 0
        self.members = self.rows.new_empty(n_rows, 0)
        self.atoms = self.members.t().int()
        self.sign, self.z, self.u = new(0, n_rows), new(0, n_rows), new(0, n_rows)
        self.inverse = new(0, 0, n_rows)
        # Numbers and their column in one integer, so that one maximum finds both.
        self.integer = torch.int32 if self.linear.dtype == torch.float32 else torch.int64
        self.column = torch.arange(n_components, dtype=self.integer, device=self.linear.device)
        self.column_bits = (1 << (n_components - 1).bit_length()) - 1

    def follow(self, max_iter, tol):
        """Step until all rows have arrived at alpha, or for ``max_iter`` steps; count them."""
        while len(self.rows) * self.n_slots**2 <= _MOST_ENTRIES or len(self.rows) < _FEWEST_ROWS:
            if self.n_slots == len(self.z):
                self._grow()
            event = self._next_event()
            still = event.adds | event.drops
            if self.n_iter == max_iter:
                still.fill_(False)
            n_still = int(still.sum())
            if n_still == 0 or n_still < (1 - _CARRIED) * len(still):
                self._finish((~still).nonzero().squeeze(1), tol)
                if n_still == 0:
                    return self.n_iter
                keep = still.nonzero().squeeze(1)
                vars(self).update(vars(self._part(keep)))
                event = _Event(*(part[keep] for part in event))
            self._update(event)
            self.n_iter += 1
        halves = torch.arange(len(self.rows), device=self.rows.device).tensor_split(2)
        return max(self._part(half).follow(max_iter, tol) for half in halves)

    def _next_atom(self):
        """The atom outside of the active set that reaches the bound first, and whether any does."""
        ratio, n_rows = self.ratio[: len(self.rows)], len(self.rows)
        if self.positive:
            # Only from below: where e < 0, there is no bound ahead.
            torch.div(
                self.constant.clamp(min=0), torch.neg(self.slope, out=ratio).add_(1), out=ratio
            )
        else:
            torch.div(
                self.constant, torch.sign(self.constant, out=ratio).sub_(self.slope), out=ratio
            )
        # An active atom is at the bound all along; one that has just left it is there now.
        ratio.scatter_(1, self.members[:, : self.n_slots], 0)
        if self.dropped.shape[1]:
            ratio.scatter_(1, self.dropped, 0)
            self.dropped = self.rows.new_zeros(n_rows, 0)
        keys = ratio.view(self.integer).bitwise_and_(~self.column_bits).bitwise_or_(self.column)
        best = keys.amax(1)
        return best.bitwise_and(self.column_bits).long(), best > self.column_bits

    def _next_event(self):
        """What each row's path meets next: an atom that enters, one that leaves, or alpha.

        Moves ``weight`` there.
        """
        atom, found = self._next_atom()
        constant, slope = (
            part.gather(1, atom.unsqueeze(1)).squeeze(1) for part in (self.constant, self.slope)
        )
        if self.positive:
            constant, side = constant.clamp_(min=0), torch.ones_like(constant)
        else:
            side = constant.sign()
        # A copy of an active atom may enter "later" than now, at a bound it has been at before.
        enters = torch.minimum(constant / (side - slope), self.weight).mul_(found)
        leaves, slot = torch.zeros_like(enters), torch.zeros_like(atom)
        if self.n_slots:
            z, u, sign = (part[: self.n_slots] for part in (self.z, self.u, self.sign))
            # Only codes that shrink as the weight falls.
            ratio = (z / u).masked_fill_(u * sign >= 0, 0.0)
            leaves = torch.minimum(ratio.amax(0), self.weight)
        going = self.weight > self.alpha
        adds = going & (enters > leaves.clamp(min=self.alpha))
        drops = (going & (leaves > self.alpha)).logical_and_(~adds)
        leaving = drops.nonzero().squeeze(1)
        if len(leaving):
            slot[leaving] = ratio.index_select(1, leaving).argmax(0)
        self.weight = torch.where(adds | drops, torch.maximum(enters, leaves), self.alpha)
        return _Event(adds, drops, atom, slot, constant, slope, side)

    def _update(self, event):
        """Change the inverse by kappa v v^T, and what follows from it."""
        n_slots, n_rows = self.n_slots, len(self.rows)
        self.atoms[n_slots] = event.atom
        self.members[:, n_slots] = event.atom
        # Entering: v = (-Q_AA^-1 q, 1) and kappa = 1 / (Q_jj - q Q_AA^-1 q), q = Q_Aj.
        vector = self.v[: n_slots + 1]
        vector[n_slots] = 1.0
        if n_slots:
            pairs = torch.add(self.atoms[:n_slots], event.atom.int(), alpha=len(self.gram))
            q = self.flat_gram.index_select(0, pairs.view(-1)).view(n_slots, n_rows)
            inverse = self.inverse[:n_slots, :n_slots]
            torch.sum(inverse * q, 1, out=vector[:n_slots]).neg_()
        leaving = event.drops.nonzero().squeeze(1)
        slots = event.slot[leaving]
        if len(leaving):
            # Leaving: v is a column of the inverse, and kappa = -1 / its diagonal entry.
            vector[:n_slots, leaving] = self.inverse[slots, :n_slots, leaving].t()
            vector[n_slots, leaving] = 0.0
        product = functional.embedding_bag(
            self.atoms[: n_slots + 1].t().contiguous(),
            self.gram,
            per_sample_weights=vector.t().contiguous(),
            mode="sum",
        )
        pivot = product.gather(1, event.atom.unsqueeze(1)).squeeze(1)
        depends = pivot <= _DEPENDENT[pivot.dtype] * self.square_norm[event.atom]
        kappa = pivot.reciprocal_().masked_fill_(depends | ~event.adds, 0.0)
        z_step, u_step = kappa * event.constant, kappa * (event.side - event.slope)
        self.sign[n_slots] = event.side * (kappa != 0)
        if len(leaving):
            kappa[leaving] = -1 / self.inverse[slots, slots, leaving]
            z_step[leaving] = kappa[leaving] * self.z[slots, leaving]
            u_step[leaving] = kappa[leaving] * self.u[slots, leaving]
        self.constant.addcmul_(product, z_step.unsqueeze(1), value=-1)
        self.slope.addcmul_(product, u_step.unsqueeze(1))
        self.n_slots = n_slots + 1
        self.z[: n_slots + 1].addcmul_(vector, z_step)
        self.u[: n_slots + 1].addcmul_(vector, u_step)
        self.inverse[: n_slots + 1, : n_slots + 1].addcmul_(
            (vector * kappa).unsqueeze(1), vector.unsqueeze(0)
        )
        if len(leaving):
            self._clear(slots, leaving)

    def _clear(self, slots, leaving):
        """Free the slots of atoms that left, exactly."""
        side = self.sign[slots, leaving]
        for part in (self.z, self.u, self.sign):
            part[slots, leaving] = 0.0
        self.inverse[slots, :, leaving] = 0.0
        self.inverse[:, slots, leaving] = 0.0
        # For a step, an atom that left is at the bound that it leaves, which is no event; the
        # other bound would be.
        gone = self.members[leaving, slots]
        stays = self.constant[leaving, gone] * side >= 0
        # A free slot names an active atom: atoms that were dependent may not be any more.
        sign, members = self.sign[: self.n_slots, leaving].t(), self.members[leaving]
        active = members.gather(1, sign.abs().argmax(1, keepdim=True))
        members = torch.where(sign == 0, active, members[:, : self.n_slots])
        self.members[leaving, : self.n_slots] = members
        self.atoms[: self.n_slots, leaving] = members.t().int()
        # For the other rows, any atom that is excluded anyway will do.
        self.dropped = self.members[:, :1].clone()
        self.dropped[leaving[stays], 0] = gone[stays]

    def _grow(self):
        """Make room for more slots: by those that are free in every row, or by new ones."""
        n_slots, n_rows = self.n_slots, len(self.rows)
        n_active = int((self.sign != 0).sum(0).max()) if n_slots else 0
        if n_active < _FULL * n_slots:
            # The active atoms of every row move up into its first slots.
            order = (self.sign == 0).int().argsort(dim=0, stable=True)[:n_active]
            for name in ("atoms", "sign", "z", "u"):
                setattr(self, name, getattr(self, name).gather(0, order))
            self.members = self.members.gather(1, order.t())
            inverse = self.inverse.gather(0, order.unsqueeze(1).expand(-1, n_slots, -1))
            self.inverse = inverse.gather(1, order.unsqueeze(0).expand(n_active, -1, -1))
            self.n_slots = n_slots = n_active
        room = n_slots + _ROOM
        self.members = functional.pad(self.members, (0, _ROOM))
        for name in ("atoms", "sign", "z", "u"):
            part = getattr(self, name)
            grown = part.new_zeros(room, n_rows)
            grown[:n_slots] = part
            setattr(self, name, grown)
        inverse = self.inverse.new_zeros(room, room, n_rows)
        inverse[:n_slots, :n_slots] = self.inverse
        self.inverse = inverse
        self.v = self.z.new_empty(room, n_rows)

    def _part(self, rows):
        """The same paths for some of the rows."""
        part = copy(self)
        for name in ("rows", "weight", "constant", "slope", "members", "dropped"):
            setattr(part, name, getattr(self, name).index_select(0, rows))
        for name in ("atoms", "sign", "z", "u", "inverse", "v"):
            array = getattr(self, name)
            setattr(part, name, array.index_select(array.ndim - 1, rows))
        return part

    def _finish(self, done, tol):
        """Write the codes of rows at their present weight, with objective and gap."""
        codes, objective, gap = self.result
        n_slots, rows = self.n_slots, self.rows[done]
        if n_slots == 0:
            return
        z, u, sign = (p[:n_slots].index_select(1, done).t() for p in (self.z, self.u, self.sign))
        members = self.members[:, :n_slots].index_select(0, done)
        linear, energy = self.linear.index_select(0, rows), self.energy[rows]
        code = torch.addcmul(z, u, self.weight[done].unsqueeze(1), value=-1)
        arrived = self.weight[done] <= self.alpha
        for attempt in range(3):
            code = torch.where(code * sign > 0, code, 0.0)
            product = functional.embedding_bag(
                members, self.gram, per_sample_weights=code.contiguous(), mode="sum"
            )
            correlation = linear - product
            of_members = correlation.gather(1, members)
            reached, excess = combine(
                energy,
                (linear.gather(1, members) * code).sum(1),
                (of_members * code).sum(1),
                self.penalty.value(code),
                self.penalty.dual_scale(correlation),
            )
            if attempt == 2 or bool((is_solved(energy, reached, excess, tol) | ~arrived).all()):
                break
            # One step of iterative refinement: what rounding left of b_A - h Q_AA - alpha s.
            residual = of_members.sub_(sign, alpha=self.alpha)
            residual.mul_(sign.abs() * arrived.unsqueeze(1))
            inverse = self.inverse[:n_slots, :n_slots].index_select(2, done)
            code = code + torch.einsum("ijn,nj->ni", inverse, residual)
        objective[rows], gap[rows] = reached, excess
        flat = (rows.unsqueeze(1) * codes.shape[1] + members).view(-1)
        codes.view(-1).scatter_add_(0, flat, code.reshape(-1))
