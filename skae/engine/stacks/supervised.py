"""The criterion of a stack with an output layer that predicts targets.

Targets are what output units are about: one-hot rows for classes (`Multinomial`), standardised
numbers (`Gaussian`). A row without a target has zeros for it and weight 0, or, for classes, zeros
alone: the sum of no terms.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from skae.engine.networks.jacobians import DifferentiatedJacobian
from skae.engine.networks.layers import AffineChain, AffineMap, encoder_maps, linearized
from skae.engine.optimisation.devices import random_mask
from skae.engine.optimisation.models import Model
from skae.engine.optimisation.parameters import Parameters
from skae.engine.optimisation.rows import Labelled
from skae.engine.optimisation.runs import Composite, Objective, gradient_by_autograd
from skae.engine.stacks.stacking import Layerwise, codes_of_layers, stacked


def with_output(
    models: Sequence[Model],
    units,
    n_outputs: int,
    objective: Callable[[], Objective] = Objective,
    *,
    first: int = 0,
    n_features: int | None = None,
) -> Model:
    """Layers with an output layer on top, as one model: its code is theirs, its units the target's.

    No layers at all make a linear model of rows of ``n_features`` columns. The first layer has the
    number ``first`` in its stack. ``objective()`` is a new `Supervised` of the same layers, and
    without one the model only computes.
    """
    layers = stacked(models, first) if models else _no_layers(n_features)

    def start_(theta, rows, index, generator):
        layers.start_(theta, rows, index, generator)
        theta["output_weight"].zero_()
        theta["output_bias"].zero_()

    output = {"output_weight": (n_outputs, layers.n_codes), "output_bias": (n_outputs,)}
    return replace(
        layers,
        shapes=layers.shapes | output,
        start_=start_,
        decode=linear_output,
        units=units,
        objective=objective,
        decoder=(AffineMap("output_weight", "output_bias"),),
    )


def _no_layers(n_features):
    """The model whose code are the rows themselves."""
    return Model(
        shapes={},
        start_=lambda theta, rows, index, generator: None,
        encode=lambda theta, x: x,
        decode=linear_output,
        units=None,
        n_features=n_features,
        n_codes=n_features,
        objective=Objective,
        encoder=(),
    )


def linear_output(theta: Parameters, code: torch.Tensor) -> torch.Tensor:
    """U h + d of each row, the pre-activation of the target's units."""
    return torch.addmm(theta["output_bias"], code, theta["output_weight"].t())


class Supervised(Composite):
    """mean_i w_i -log P(y_i | o(h(x_i))) + decay / 2 |U|^2 + the layers' own criteria.

    The output is o(h) = U h + d, with ``output_weight`` U and ``output_bias`` d.

    - ``models``: layers between the rows and the output, the first of them with the number
      ``first`` in its stack; none makes the output a linear model. ``units``: of the target.
    - ``dropout``: of the rows' columns, and of hidden units. ``weight``: of the first term.
    - ``labelled_fraction``: the part of the rows that have a target. The first term, a mean over
      all rows, is divided by it, so that it is one over the rows with a target.
    - ``adversarial_step``: where it is positive, the first term is half that of the rows, and half
      that of the rows after a move of this length that raises their loss most (`with_moved`).
    - ``unsupervised``: the layers' own criteria, times ``unsupervised_weight``.
    - ``validation_loss(output, target)``: the loss of each row, of which `criterion` is the mean;
      None is -log P. ``baseline``: as of `Objective`.
    """

    def __init__(
        self,
        models: Sequence[Model],
        units,
        *,
        first: int = 0,
        weight_decay: float = 0.0,
        dropout: tuple[float, float] = (0.0, 0.0),
        weight: float = 1.0,
        labelled_fraction: float = 1.0,
        adversarial_step: float = 0.0,
        unsupervised: Layerwise | None = None,
        unsupervised_weight: float = 1.0,
        validation_loss: Callable | None = None,
        baseline: float = Objective.baseline,
    ):
        self.models, self.units, self.first = models, units, first
        self.weight_decay, self.dropout, self.weight = weight_decay, dropout, weight
        self.labelled_fraction, self.adversarial_step = labelled_fraction, adversarial_step
        self.unsupervised, self.unsupervised_weight = unsupervised, unsupervised_weight
        self.parts = {} if unsupervised is None else {"": unsupervised}
        self.validation_loss, self.baseline = validation_loss, baseline
        maps = encoder_maps(models, first, dropout)
        output = AffineMap("output_weight", "output_bias", dropout=dropout[min(len(models), 1)])
        self._chain = None if maps is None else AffineChain([*maps, output])
        self._scratch, self.has_closed_form = None, maps is not None
        self.floor = weight * units.constant if validation_loss is None else 0.0
        self.is_noisy = max(dropout) > 0 or (unsupervised is not None and unsupervised.is_noisy)

    @property
    def is_replayable(self):
        """Whether `gradient` can be recorded: the host looks for gaps, and has some constants."""
        on_device = not self.has_gaps and self.units.column_constant is None
        return self.has_closed_form and on_device and super().is_replayable

    def filled(self, x: torch.Tensor) -> torch.Tensor:
        """Rows without gaps, as the lowest of the layers fills them."""
        return self.models[0].filled(x) if self.has_gaps and self.models else x

    def output(
        self, theta: Parameters, x: torch.Tensor, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """Pre-activation of the target's units, of shape (n_samples, n_outputs).

        With a generator, inputs and hidden units drop out.
        """

        def drop(x, number):
            rate = self.dropout[min(number, 1)]
            if rate == 0 or generator is None:
                return x
            keep = random_mask(x, 1 - rate, generator).to(x.dtype)
            return x * keep.mul_(1 / (1 - rate))

        code = [x, *codes_of_layers(self.models, theta, x, self.first, drop)][-1]
        return linear_output(theta, drop(code, len(self.models)))

    def value(self, theta, batch: Labelled, generator, row_weight=None) -> torch.Tensor:
        """The criterion on one batch, a scalar.

        The batch says how much targets count, on average 1; ``row_weight``, of shape (n_samples,),
        is about the rows in the layers' own criteria. The generator is of dropout and of these.
        """
        value = self.supervised_value(theta, batch, generator, row_weight)
        if self.weight_decay > 0:
            value = value + 0.5 * self.weight_decay * theta["output_weight"].square().sum()
        if self.unsupervised is None:
            return value
        own = self.unsupervised.value(theta, batch.x, generator, row_weight)
        return value + self.unsupervised_weight * own

    def supervised_value(self, theta, batch, generator, row_weight=None):
        """The first term, a scalar.

        With `supervised_gradient`, what a subclass with other terms of the output replaces.
        """
        batch = self.with_moved(theta, batch)
        output = self.output(theta, self.filled(batch.x), generator)
        loss = mean_loss(self.units, output, batch.target, batch.weight)
        return self.weight / self.labelled_fraction * loss

    @torch.no_grad()
    def with_moved(self, theta: Parameters, batch: Labelled) -> Labelled:
        """A batch, and once more its rows, moved to where their loss is highest to first order.

            x + step * g / |g|,   g = d -log P(y | o(h(x))) / dx

        (adversarial training: Goodfellow, Shlens & Szegedy 2015, with moves of one length.) The
        rows find their moves without dropout, and no gradient goes through these.
        """
        if self.adversarial_step == 0:
            return batch
        x = self.filled(batch.x)
        output, jacobian = self.linearized(theta, x)
        residual, weight = self.units.mean(output) - batch.target, batch.weight
        if weight is not None:
            residual = residual * _by_column(weight)
        slope = jacobian.transposed_times(residual.unsqueeze(1)).squeeze(1)
        moved = torch.add(x, normalized(slope), alpha=self.adversarial_step)
        target, weight = batch.target, None if weight is None else torch.cat([weight, weight])
        return Labelled(torch.cat([x, moved]), torch.cat([target, target]), weight)

    def linearized(self, theta: Parameters, x: torch.Tensor):
        """The output at some rows and its Jacobian there, without dropout."""
        if self._chain is not None:
            return linearized(theta, x, self._chain.maps)
        return self.output(theta, x), DifferentiatedJacobian(lambda x: self.output(theta, x), x)

    def criterion(self, theta, batch, generator, row_weight=None):
        """The loss of the output: without dropout, penalties and the layers' own criteria.

        A mean over the given rows, all of which should have a target.
        """
        output = self.output(theta, self.filled(batch.x))
        of_rows, weight = self.validation_loss, 1.0 if self.validation_loss else self.weight
        return weight * mean_loss(self.units, output, batch.target, batch.weight, of_rows)

    def gradient(self, theta, batch, generator, out, row_weight=None):
        """Write the gradient of `value` into ``out``.

        Returned is the value without the layers' own criteria, a scalar.
        """
        if self.has_closed_form:
            self._chain.clear_others_(out)
            value = self.supervised_gradient(theta, batch, generator, out, row_weight)
        else:
            function = self.supervised_value
            value = gradient_by_autograd(function, theta, batch, generator, out, row_weight)
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

    def supervised_gradient(self, theta, batch, generator, out, row_weight=None):
        """Write that of `supervised_value`, by backpropagation through affine maps; return it."""
        batch = self.with_moved(theta, batch)
        scale = self.weight / (self.labelled_fraction * len(batch.x))
        output = self._chain.forward(theta, self.filled(batch.x), generator)
        weight = batch.weight
        column_weight = None if weight is None else _by_column(weight).expand_as(output)
        value, residual = self.units.value_and_residual_(output, batch.target, column_weight, scale)
        self._chain.backward_(theta, residual, out, scale)
        if self.units.constant:
            value += self.weight / self.labelled_fraction * _mean_constant(self.units, weight)
        return value


def classification_error(output: list[torch.Tensor], target: list[torch.Tensor]) -> torch.Tensor:
    """The part of a row's classes that are not the most probable, as far as they are known.

    There are tensors of shape (n_samples, n_classes) for each output; rows of zeros in a target
    do not count.
    """
    return sum(
        t.sum(1) * (a.argmax(1) != t.argmax(1)) for a, t in zip(output, target, strict=True)
    ) / len(output)


def mean_loss(units, output, target, weight=None, of_rows: Callable | None = None):
    """The mean over rows of -log P(target | output), or of ``of_rows(output, target)``, a scalar.

    ``weight`` is of shape (n_samples,) or, where targets of a row count differently, (n_samples,
    n_outputs); the units are then numbers.
    """
    if weight is None or weight.ndim == 1:
        loss = (of_rows or units.negative_log_likelihood)(output, target)
        return loss.mean() if weight is None else (loss * weight).mean()
    losses = units.column_losses(output, target, weight).sum(1).mean()
    return losses + _mean_constant(units, weight)


def _mean_constant(units, weight):
    """The mean over rows of the constant of -log P."""
    if weight is None or weight.ndim == 1:
        return units.constant * (1.0 if weight is None else weight.mean())
    return weight.mean(0) @ units.column_constant.to(weight)


def normalized(moves: torch.Tensor) -> torch.Tensor:
    """Each row divided by its norm; zero where it has none."""
    # By the largest entry first: squares of what a sure prediction answers underflow.
    moves = moves / moves.abs().amax(1, keepdim=True).clamp(min=torch.finfo(moves.dtype).tiny)
    return moves / moves.norm(dim=1, keepdim=True).clamp(min=1)


def _by_column(weight):
    return weight.unsqueeze(1) if weight.ndim == 1 else weight
