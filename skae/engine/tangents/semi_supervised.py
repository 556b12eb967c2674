"""Moves of a row that should not change what is predicted there, and how much they do.

Of all moves of one length, a prediction P(y | a(x)) answers most to the leading eigenvector of
J^T M J, with J the Jacobian of the output a and M the Fisher information of P(y | a): to second
order the divergence KL(P(y | a(x)) || P(y | a(x + v))) is v^T J^T M J v / 2. Miyato et al. (2018)
find it by one step of the power iteration, J^T M J e from a random e. J^T M e with a random e in
the place of J e costs half as much and does as well: M leaves little but the contrast between the
few classes that are likely. Within a plane spanned by the rows of B, or weighted by the singular
values of an encoder's Jacobian B, the move is B^T B times that.

The criterion of a classifier that few rows teach by their labels, and all by their manifold.
"""

from typing import NamedTuple

import torch

from skae.engine.networks.layers import AffineChain
from skae.engine.optimisation.devices import random_mask
from skae.engine.stacks.supervised import Supervised, normalized


def random_combination(directions: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """sum_j s_j u_j of each row, with independent signs s_j.

    From directions of shape (n_samples, n_directions, n_features). E_s |da|^2 of the change da of
    the output along it is sum_j |da/dx u_j|^2: a step costs that of twice the rows, however many
    directions there are (tangent propagation: Simard et al. 1992; Rifai et al., NIPS 2011).
    """
    signs = random_mask(directions[:, :, 0], 0.5, generator).to(directions.dtype)
    signs = signs.mul_(2).sub_(1)
    return torch.bmm(signs.unsqueeze(1), directions).squeeze(1)


class DirectedChain(AffineChain):
    """Affine maps in turn, together with the derivative of some outputs along a direction.

    With z_l the input of map l, p_l = W_l z_l + b_l and h = s(p), changes follow

        dp_l = W_l dz_l,   dh = s'(p) * dp

    Rows and their changes go through each matrix in one product. Backwards, p receives
    s'(p) * (adjoint of h) + s''(p) * dp * (adjoint of dh), and dp receives s'(p) * (adjoint of dh).
    """

    def forward(self, theta, x, direction, generator=None):
        """The output's pre-activation, and its derivative along ``direction`` at the first rows.

        ``direction`` is of shape (n_directed, n_features), and the derivative of (n_directed,
        n_outputs). With a generator, inputs drop out.
        """
        n, m = len(x), len(direction)
        buffers, self._trace = self._buffers_for(theta, n + m), []
        z, below = torch.cat([x, direction]), None
        for level, step in enumerate(self.maps):
            keep = None
            if step.dropout > 0 and generator is not None:
                keep = random_mask(z[:n], 1 - step.dropout, generator).to(z.dtype)
                keep = keep.mul_(1 / (1 - step.dropout))
                keep = torch.cat([keep, keep[:m]])
                z = z * keep
            if step.gain is not None:
                z = z * step.gain
                z[:n] += step.shift
            self._trace.append((keep, z, below))
            weight = theta[step.weight] if step.transposed else theta[step.weight].t()
            pre = torch.mm(z, weight, out=buffers[level])
            pre[:n] += theta[step.bias]
            if level == len(self.maps) - 1:
                return pre[:n], pre[n:]
            code = step.activation.function_(pre[:n])
            slope = step.activation.slope(code)
            below = code, slope, pre[n:]
            z = torch.cat([code, slope[:m] * pre[n:]])

    def backward_(self, theta, residual, change_residual, out):
        """Write the gradient into ``out``, from those by the output and by its change."""
        delta, n, m = torch.cat([residual, change_residual]), len(residual), len(change_residual)
        buffers = self._buffers_for(theta, n + m)
        for level in reversed(range(len(self.maps))):
            step, (keep, z, below) = self.maps[level], self._trace[level]
            self._add_gradient_(level, z, delta, delta[:n], buffers["ones"][:n], out)
            if level == 0:
                return
            weight = theta[step.weight].t() if step.transposed else theta[step.weight]
            delta = torch.mm(delta, weight, out=buffers["delta", level])
            if step.gain is not None:
                delta.mul_(step.gain)
            if keep is not None:
                delta.mul_(keep)
            code, slope, change = below
            of_code, of_change = delta[:n], delta[n:]
            activation = self.maps[level - 1].activation
            bend = activation.curvature(code[:m], slope[:m] * change * of_change)
            of_code.mul_(slope)
            of_change.mul_(slope[:m])
            of_code[:m].add_(bend)


class Span:
    """Directions of each row, (n_rows, n_directions, n_features), as the rows of a Jacobian B."""

    def __init__(self, directions: torch.Tensor):
        self.directions = directions

    def times(self, vectors: torch.Tensor) -> torch.Tensor:
        """B u of each row: (n_rows, m, n_in) -> (n_rows, m, n_out)."""
        return vectors @ self.directions.transpose(1, 2)

    def transposed_times(self, covectors: torch.Tensor) -> torch.Tensor:
        """B^T v of each row: (n_rows, m, n_out) -> (n_rows, m, n_in)."""
        return covectors @ self.directions


def doubtful_moves(jacobian, units, output: torch.Tensor, generator) -> torch.Tensor:
    """J^T M e of each row, with normal e: moves towards what the prediction takes for likely, too.

    J is the Jacobian of the output's pre-activations, and M of the targets' units.
    """
    noise = torch.empty_like(output).normal_(generator=generator)
    doubt = units.jacobian_product(output, noise.unsqueeze(2)).transpose(1, 2)
    return jacobian.transposed_times(doubt).squeeze(1)


def projected(plane, moves: torch.Tensor) -> torch.Tensor:
    """B^T B v of each row."""
    return plane.transposed_times(plane.times(moves.unsqueeze(1))).squeeze(1)


def divergence(units, output: torch.Tensor, moved: torch.Tensor) -> torch.Tensor:
    """KL(P(y | output) || P(y | moved)) of each row; the first counts as given."""
    given = units.mean(output.detach())
    entropy = units.negative_log_likelihood(output.detach(), given)
    return units.negative_log_likelihood(moved, given) - entropy


def entropy(units, output: torch.Tensor) -> torch.Tensor:
    """H(P(y | output)) of each row (Grandvalet & Bengio 2005), but for the units' constant."""
    return units.negative_log_likelihood(output, units.mean(output)) - units.constant


def imbalance(
    units, output: torch.Tensor, weight: torch.Tensor, prior: torch.Tensor
) -> torch.Tensor:
    """KL(m || prior) of the mean prediction m of some rows of classes, a scalar.

    One row of the prior, which is how often each class occurs, joins them for every class, so that
    few rows need not be balanced. Rows count by ``weight``, of shape (n_rows,).
    """
    n_classes = len(prior)
    mean = (weight @ units.mean(output) + n_classes * prior) / (weight.sum() + n_classes)
    tiny = torch.finfo(prior.dtype).tiny
    return (mean * (mean.clamp(min=tiny) / prior.clamp(min=tiny)).log()).sum()


def shrunken_frequencies(counts: torch.Tensor) -> torch.Tensor:
    """How often classes occur, from the counts of labels: drawn towards equally often.

    Observed frequencies p_k of n labels have a variance of (1 - sum of p_k^2) / (n - 1) in all.
    Where that is a part of their squared distance from equal ones, they move by that part (James
    and Stein's shrinkage; Hausser & Strimmer 2009).
    """
    equal = torch.full_like(counts, 1 / len(counts))
    n = counts.sum()
    if n <= 1:
        return equal
    observed = counts / n
    variance = (1 - observed.square().sum()) / (n - 1)
    distance = (observed - equal).square().sum()
    if variance >= distance:
        return equal
    return torch.lerp(observed, equal, variance / distance)


class Moves(NamedTuple):
    """How far predictions of unlabelled rows are not to change.

    ``penalty`` is the weight of the divergence between the predictions before and after a move,
    and ``length`` that of the move.
    """

    penalty: float
    length: float


NONE = Moves(0.0, 0.0)


class Arranged(NamedTuple):
    """A batch as it goes through the net: labelled rows, others, and these once more, moved.

    ``x`` has n_known + n_others * (1 + n_moves) rows, ``target``, ``target_weight`` and
    ``direction`` n_known (the latter perhaps none), and ``other_weight`` n_others.
    """

    x: torch.Tensor
    direction: torch.Tensor
    target: torch.Tensor
    target_weight: torch.Tensor | None
    other_weight: torch.Tensor


class SemiSupervised(Supervised):
    """The criterion of `Supervised` for classes, and what predictions do around each row.

        tangent_penalty * mean over rows with a target of sum_j |da/dx u_j|^2
        + mean over rows without one of
            sum over moves v of penalty * KL(P(y | x) || P(y | x + v))
            + entropy_penalty * H(P(y | x))
        + balance_penalty * KL(mean over rows without a target of P(y | x) || prior)

    The moves are the worst of their length ``within`` the plane of the row's tangents, and the
    worst ``anywhere``. ``planes(x, directions)`` are those of tangents at some rows, with the
    products of a Jacobian, where directions() are those that the batch has for them; without
    planes there are no moves within. Batches have ``directions`` at rows with a target, unless
    tangent_penalty is 0. ``prior``, of shape (n_outputs,), is how often each class occurs.
    """

    is_replayable = False  # which rows have a target is asked on the host

    def __init__(
        self,
        models,
        units,
        *,
        planes=None,
        tangent_penalty=0.0,
        within=NONE,
        anywhere=NONE,
        entropy_penalty=0.0,
        balance_penalty=0.0,
        prior=None,
        **options,
    ):
        super().__init__(models, units, **options)
        self.planes, self.prior = planes, prior
        self.tangent_penalty = tangent_penalty
        self.entropy_penalty, self.balance_penalty = entropy_penalty, balance_penalty
        self._moves, self.is_noisy = [], True  # moves and combinations are drawn
        if within.penalty > 0 and planes is not None:
            self._moves.append((within, True))
        if anywhere.penalty > 0:
            self._moves.append((anywhere, False))
        if self._chain is not None:
            self._chain = DirectedChain(self._chain.maps)

    def supervised_value(self, theta, batch, generator, row_weight=None):
        """All terms but those of the weights and of the layers, a scalar."""
        arranged = self._arranged(theta, batch, generator, row_weight)

        def function(x):
            return self.output(theta, x, generator)

        if not len(arranged.direction):
            output = function(arranged.x)
            change = output[:0]
        else:
            # A derivative forwards, as that of one backwards: torch's own imports what warns.
            direction = torch.zeros_like(arranged.x)
            direction[: len(arranged.direction)] = arranged.direction
            output, pull = torch.func.vjp(function, arranged.x)
            _, push = torch.func.vjp(lambda residual: pull(residual)[0], torch.zeros_like(output))
            change = push(direction)[0][: len(arranged.direction)]
        return self._output_terms(output, change, arranged)

    def supervised_gradient(self, theta, batch, generator, out, row_weight=None):
        """Autograd at the output, and backpropagation by hand from there."""
        arranged = self._arranged(theta, batch, generator, row_weight)
        output, change = self._chain.forward(theta, arranged.x, arranged.direction, generator)
        with torch.enable_grad():
            leaves = output.detach().requires_grad_(), change.detach().requires_grad_()
            value = self._output_terms(*leaves, arranged)
            residuals = torch.autograd.grad(value, leaves, materialize_grads=True)
        self._chain.backward_(theta, *residuals, out)
        return value.detach()

    @torch.no_grad()
    def _arranged(self, theta, batch, generator, row_weight):
        """The batch's rows in the order in which they go through the net, with the moved ones."""
        known = batch.target.sum(1) > 0
        labelled, others = known.nonzero().squeeze(1), (~known).nonzero().squeeze(1)
        x = self.filled(batch.x.detach())
        parts, direction = [x[labelled], x[others]], x[:0]
        if self.tangent_penalty > 0 and batch.directions is not None and len(labelled):
            direction = random_combination(batch.directions_of(labelled), generator)
        if self._moves and len(others):
            parts += self._moved(theta, x[others], batch, others, generator)
        ones = x.new_ones(len(others))
        return Arranged(
            torch.cat(parts),
            direction,
            batch.target[labelled],
            None if batch.weight is None else batch.weight[labelled],
            ones if row_weight is None else row_weight[others],
        )

    def _moved(self, theta, x, batch, others, generator):
        """Unlabelled rows after each of the moves."""
        output, jacobian = self.linearized(theta, x)
        free = doubtful_moves(jacobian, self.units, output, generator)
        found = []
        for move, is_within in self._moves:
            direction = free
            if is_within:
                plane = self.planes(x, lambda: batch.directions_of(others))
                direction = projected(plane, free)
            found.append(torch.add(x, normalized(direction), alpha=move.length))
        return found

    def _output_terms(self, output, change, arranged):
        """All terms that depend on outputs and their changes, a scalar."""
        n_known, n_others = len(arranged.target), len(arranged.other_weight)
        n = n_known + n_others
        loss = self.units.negative_log_likelihood(output[:n_known], arranged.target)
        if arranged.target_weight is not None:
            loss = loss * arranged.target_weight
        value = self.weight / (self.labelled_fraction * n) * loss.sum()
        if len(change):
            counted = change.square().sum(1) * arranged.target.sum(1)
            value = value + self.tangent_penalty / (self.labelled_fraction * n) * counted.sum()
        if not n_others:
            return value
        before, *after = output[n_known:].split(n_others)
        of_rows = self.entropy_penalty * entropy(self.units, before)
        for (move, _), moved in zip(self._moves, after, strict=True):
            of_rows = of_rows + move.penalty * divergence(self.units, before, moved)
        value = value + (of_rows * arranged.other_weight).sum() / ((1 - self.labelled_fraction) * n)
        if self.balance_penalty > 0:
            mean = imbalance(self.units, before, arranged.other_weight, self.prior)
            value = value + self.balance_penalty * mean
        return value
