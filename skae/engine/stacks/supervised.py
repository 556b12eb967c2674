"""The criterion of a stack with an output layer that predicts targets.

Targets are what output units are about: one-hot rows for classes (`Multinomial`), standardised
numbers (`Gaussian`). A row without a target has zeros for it and weight 0, or, for classes, zeros
alone: the sum of no terms.
"""

import math

import torch

from skae.engine.networks.affine_maps import AffineChain, AffineMap, encoder_maps
from skae.engine.networks.objectives import gradient_by_autograd
from skae.engine.optimisation.draws import random_mask


class Supervised:
    """mean_i w_i -log P(y_i | o(h(x_i))) + decay / 2 |U|^2 + the layers' own criteria.

    The output is o(h) = U h + d, with ``output_weight`` U and ``output_bias`` d.

    Parameters
    ----------
    levels : sequence of Level
        Layers between the rows and the output; none makes the output a linear model.
    units : object of `skae.engine.networks.units`
        Of the target.
    weight_decay : float
        Weight of half the sum of the output's squared weights.
    dropout : tuple of two float
        Of the rows' columns, and of hidden units.
    weight : float
        Of the first term.
    share : float
        Part of the rows that have a target: the first term, a mean over all rows, is divided by
        it, so that it is one over the rows with a target.
    unsupervised : Layerwise, default=None
        The layers' own criteria, of the same levels.
    unsupervised_weight : float
    judge : callable, default=None
        (output, target) -> loss of each row, by which `criterion` judges; None is -log P.
    harmless : float
        A criterion up to which training has not exploded, however good it was at the start.
    """

    reports_loss = True

    def __init__(
        self,
        levels,
        units,
        *,
        weight_decay=0.0,
        dropout=(0.0, 0.0),
        weight=1.0,
        share=1.0,
        unsupervised=None,
        unsupervised_weight=1.0,
        judge=None,
        harmless=-math.inf,
    ):
        self.levels, self.units, self.weight_decay = levels, units, weight_decay
        self.dropout, self.judge, self.harmless = dropout, judge, harmless
        self.weight, self.share = weight, share
        self.unsupervised, self.unsupervised_weight = unsupervised, unsupervised_weight
        maps = encoder_maps(levels, dropout)
        output = AffineMap("output_weight", "output_bias", dropout=dropout[min(len(levels), 1)])
        self._chain = None if maps is None else AffineChain([*maps, output])
        self._scratch = None

    @property
    def offset(self):
        """The part of the criterion that no parameter changes."""
        return self.weight * self.units.offset if self.judge is None else 0.0

    @property
    def is_noisy(self):
        """Whether `value` depends on the generator."""
        unsupervised = self.unsupervised is not None and self.unsupervised.is_noisy
        return any(rate > 0 for rate in self.dropout) or unsupervised

    @property
    def state(self):
        """That of the layers' own criteria."""
        return {} if self.unsupervised is None else self.unsupervised.state

    @state.setter
    def state(self, state):
        if self.unsupervised is not None:
            self.unsupervised.state = state

    @property
    def has_closed_form(self):
        """Whether the gradient of the supervised part needs no autograd."""
        return self._chain is not None

    def output(self, theta, x, generator=None):
        """Pre-activation of the target's units, of shape (n_samples, n_outputs).

        With a generator, inputs and hidden units drop out.
        """
        for number, level in enumerate(self.levels):
            x = self._dropped(x, self.dropout[min(number, 1)], generator)
            x = x if number == 0 else level.standardized(x)
            x = level.encode(theta.part(level.prefix), x)
        x = self._dropped(x, self.dropout[min(len(self.levels), 1)], generator)
        return torch.addmm(theta["output_bias"], x, theta["output_weight"].t())

    def value(self, theta, batch, generator, row_weight=None):
        """The criterion on one batch.

        Parameters
        ----------
        theta : Parameters
        batch : Labelled
            Rows, their targets and how much these count, on average 1.
        generator : torch.Generator
            Of the dropout and of the layers' own criteria.
        row_weight : Tensor of shape (n_samples,), default=None
            Sample weights of the rows in the layers' own criteria.

        Returns
        -------
        value : Tensor, a scalar
        """
        value = self.supervised_value(theta, batch, generator, row_weight)
        if self.unsupervised is None:
            return value
        own = self.unsupervised.value(theta, batch.x, generator, row_weight)
        return value + self.unsupervised_weight * own

    def supervised_value(self, theta, batch, generator, row_weight=None):
        """The criterion without the layers' own criteria, a scalar."""
        value = self._target_loss(self.output(theta, batch.x, generator), batch)
        if self.weight_decay > 0:
            value = value + 0.5 * self.weight_decay * theta["output_weight"].square().sum()
        return value

    def criterion(self, theta, batch, generator, row_weight=None):
        """How the output is judged: without dropout, penalties and the layers' own criteria.

        A mean over the given rows, all of which should have a target.
        """
        output = self.output(theta, batch.x)
        if self.judge is not None:
            return _mean(self.judge(output, batch.target), batch.weight)
        loss = self.units.negative_log_likelihood(output, batch.target)
        return self.weight * _mean(loss, batch.weight)

    def gradient(self, theta, batch, generator, out, row_weight=None):
        """Write the gradient of `value` into ``out``.

        Returns
        -------
        value : Tensor, a scalar
            That of the supervised part, without the layers' own criteria.
        """
        if not self.has_closed_form:
            value = gradient_by_autograd(
                self.supervised_value, theta, batch, generator, out, row_weight
            )
        else:
            self._chain.clear_others_(out)
            value = self._loss_gradient(theta, batch, generator, out, row_weight)
            if self.weight_decay > 0:
                matrix = theta["output_weight"]
                out["output_weight"].add_(matrix, alpha=self.weight_decay)
                square = torch.dot(matrix.view(-1), matrix.view(-1))
                value += square.mul_(0.5 * self.weight_decay)
        if self.unsupervised is not None:
            if self._scratch is None:
                self._scratch = out.empty_like()
                self._scratch.flat.zero_()
            self.unsupervised.gradient(theta, batch.x, generator, self._scratch, row_weight)
            out.flat.add_(self._scratch.flat, alpha=self.unsupervised_weight)
        return value

    def _target_loss(self, output, batch):
        """The first term, for the output's pre-activations."""
        loss = self.units.negative_log_likelihood(output, batch.target)
        return self.weight / self.share * _mean(loss, batch.weight)

    def _loss_gradient(self, theta, batch, generator, out, row_weight):
        """The first term's gradient by backpropagation, without autograd."""
        scale = self.weight / (self.share * len(batch.x))
        output = self._chain.forward(theta, batch.x, generator)
        weight = batch.weight
        column_weight = None if weight is None else weight.unsqueeze(1).expand_as(output)
        value, residual = self.units.value_and_residual_(output, batch.target, column_weight, scale)
        self._chain.backward_(theta, residual, out, scale)
        if self.units.offset:
            offset = self.weight / self.share * self.units.offset
            value += offset if weight is None else offset * weight.mean()
        return value

    @staticmethod
    def _dropped(x, rate, generator):
        if rate == 0 or generator is None:
            return x
        keep = random_mask(x, 1 - rate, generator).to(x.dtype)
        return x * keep.mul_(1 / (1 - rate))


def classification_error(output, target):
    """The part of a row's classes that are not the most probable, as far as they are known.

    Parameters
    ----------
    output, target : list of Tensor of shape (n_samples, n_classes)
        One for each output; rows of zeros in ``target`` do not count.
    """
    return sum(
        t.sum(1) * (a.argmax(1) != t.argmax(1)) for a, t in zip(output, target, strict=True)
    ) / len(output)


def _mean(values, weight):
    return values.mean() if weight is None else (values * weight).mean()
