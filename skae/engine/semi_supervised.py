"""The criterion of a classifier that few rows teach by their labels, and all by their manifold."""

from typing import NamedTuple

import torch

from skae.engine.backpropagation import linearized
from skae.engine.consistency import (
    divergence,
    doubtful_moves,
    entropy,
    imbalance,
    normalized,
    projected,
)
from skae.engine.jacobians import DifferentiatedJacobian
from skae.engine.supervised import Supervised
from skae.engine.tangent_propagation import DirectedChain, random_combination, squared_change


class Moves(NamedTuple):
    """How far, and at what price, predictions of unlabelled rows are not to change.

    Attributes
    ----------
    penalty : float
        Weight of the divergence between the predictions before and after.
    length : float
        Of the move.
    """

    penalty: float
    length: float


NONE = Moves(0.0, 0.0)


class Arranged(NamedTuple):
    """A batch as it goes through the net: labelled rows, others, and these once more, moved.

    Attributes
    ----------
    x : Tensor of shape (n_known + n_others * (1 + n_moves), n_features)
    direction : Tensor of shape (n_known, n_features), or (0, n_features)
        Of the labelled rows.
    target, target_weight : Tensor of shape (n_known, ...)
        Theirs; the latter may be None.
    other_weight : Tensor of shape (n_others,)
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

    The moves are the worst of their length within the plane of the row's tangents, and the
    worst of all (see `skae.engine.consistency`).

    Parameters
    ----------
    levels, units, **options
        As of `Supervised`. Targets are classes.
    planes : callable or None
        (x, directions) -> the planes of tangents at some rows, with the products of a Jacobian,
        where directions() are those that the batch has for them. None: there are no planes, and
        no moves within them.
    tangent_penalty : float
        Batches have ``directions`` at rows with a target, unless it is 0.
    within, anywhere : Moves
        Within the tangents' planes, and in any direction.
    entropy_penalty, balance_penalty : float
    prior : Tensor of shape (n_outputs,)
        How often each class occurs; needed for ``balance_penalty``.
    """

    def __init__(
        self,
        levels,
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
        super().__init__(levels, units, **options)
        self.planes, self.prior = planes, prior
        self.tangent_penalty = tangent_penalty
        self.entropy_penalty, self.balance_penalty = entropy_penalty, balance_penalty
        self._moves = []
        if within.penalty > 0 and planes is not None:
            self._moves.append((within, True))
        if anywhere.penalty > 0:
            self._moves.append((anywhere, False))
        if self._chain is not None:
            self._chain = DirectedChain(self._chain.maps)

    @property
    def is_noisy(self):
        """Whether `value` depends on the generator: it does, moves and combinations are drawn."""
        return True

    def supervised_value(self, theta, batch, generator, row_weight=None):
        """The criterion without the layers' own criteria, a scalar."""
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
        value = self._output_terms(output, change, arranged)
        if self.weight_decay > 0:
            value = value + 0.5 * self.weight_decay * theta["output_weight"].square().sum()
        return value

    def _loss_gradient(self, theta, batch, generator, out, row_weight):
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
        x = batch.x.detach()
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
        output, jacobian = self._linearized(theta, x)
        free = doubtful_moves(jacobian, self.units, output, generator)
        found = []
        for move, is_within in self._moves:
            direction = free
            if is_within:
                plane = self.planes(x, lambda: batch.directions_of(others))
                direction = projected(plane, free)
            found.append(torch.add(x, normalized(direction), alpha=move.length))
        return found

    def _linearized(self, theta, x):
        """The output at some rows and its Jacobian there, without dropout."""
        if self._chain is not None:
            return linearized(theta, x, self._chain.maps)
        return self.output(theta, x), DifferentiatedJacobian(lambda x: self.output(theta, x), x)

    def _output_terms(self, output, change, arranged):
        """All terms that depend on outputs and their changes, a scalar."""
        n_known, n_others = len(arranged.target), len(arranged.other_weight)
        n = n_known + n_others
        loss = self.units.negative_log_likelihood(output[:n_known], arranged.target)
        if arranged.target_weight is not None:
            loss = loss * arranged.target_weight
        value = self.weight / (self.share * n) * loss.sum()
        if len(change):
            counted = squared_change(change) * arranged.target.sum(1)
            value = value + self.tangent_penalty / (self.share * n) * counted.sum()
        if not n_others:
            return value
        before, *after = output[n_known:].split(n_others)
        of_rows = self.entropy_penalty * entropy(self.units, before)
        for (move, _), moved in zip(self._moves, after, strict=True):
            of_rows = of_rows + move.penalty * divergence(self.units, before, moved)
        value = value + (of_rows * arranged.other_weight).sum() / ((1 - self.share) * n)
        if self.balance_penalty > 0:
            mean = imbalance(self.units, before, arranged.other_weight, self.prior)
            value = value + self.balance_penalty * mean
        return value
