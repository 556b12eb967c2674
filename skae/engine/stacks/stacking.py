"""Stacks: models one on the other are a model.

Each layer has parameters of its own, which lie together in the stack's vector under the layer's
prefix, "0." for layer 0. With z_l what layer l sees, h_0 = x and d_l its decoder,

    encode:  z_l = (h_l - shift_l) / scale_l,   h_{l+1} = encode_l(z_l)
    decode:  h_l = mean_l(d_l(h_{l+1})) * scale_l + shift_l,   l = L-1 .. 1;   a = d_0(h_1)

Rows come standardised for the lowest layer, and ``a`` is the pre-activation of its units.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch

from skae.engine.networks.gaps import missing_constant, observed, observed_loss
from skae.engine.networks.layers import AffineChain, decoder_maps, encoder_maps
from skae.engine.optimisation.models import Model
from skae.engine.optimisation.parameters import Parameters
from skae.engine.optimisation.rows import DenseRows
from skae.engine.optimisation.runs import Composite, Objective, gradient_by_autograd


def stacked(models: Sequence[Model], first: int = 0, n_coding: int | None = None) -> Model:
    """Models one on the other, from the rows upwards, as one that reconstructs the rows.

    The first of them has the number ``first`` in its stack, from which the prefixes follow. The
    lowest ``n_coding`` make the code (None: all); the others have a part in training alone.
    """
    parts = [(f"{number}.", model) for number, model in enumerate(models, first)]
    coding = parts[:n_coding]
    used = [model for _, model in coding]
    bottom, top = used[0], used[-1]

    def start_(theta, rows, index, generator):
        for (prefix, model), (_, above) in zip(parts, [*parts[1:], (None, None)], strict=True):
            part = theta.part(prefix)
            model.start_(part, rows, index, generator)
            if above is not None:
                seen = model.filled if rows.has_gaps else (lambda x: x)
                blocks = (seen(x) for _, x in rows.blocks(model.width))
                codes = [above.standardized(model.encode(part, x)) for x in blocks]
                rows = DenseRows(torch.cat(codes))

    def encode(theta, x):
        for number, (prefix, model) in enumerate(coding):
            x = x if number == 0 else model.standardized(x)
            x = model.encode(theta.part(prefix), x)
        return x

    def decode(theta, code):
        for prefix, model in coding[:0:-1]:
            code = model.mean(model.decode(theta.part(prefix), code))
        return bottom.decode(theta.part(coding[0][0]), code)

    def project(theta):
        for prefix, model in parts:
            if model.project is not None:
                model.project(theta.part(prefix))

    def objective():
        return UnrolledReconstruction(whole if n_coding is None else stacked(models, first))

    def encoder_at(theta):
        lowest = replace(bottom, encoder=bottom.encoder_at(theta.part(coding[0][0])))
        return encoder_maps([lowest, *used[1:]], first)

    up, down = encoder_maps(used, first), decoder_maps(used, first)
    whole = Model(
        shapes={
            prefix + name: shape for prefix, model in parts for name, shape in model.shapes.items()
        },
        start_=start_,
        encode=encode,
        decode=decode,
        units=bottom.units,
        n_features=bottom.n_features,
        n_codes=top.n_codes,
        objective=objective,
        shift=bottom.shift,
        scale=bottom.scale,
        fill=bottom.fill,
        differentiable=lambda theta, x: codes_of_layers(used, theta, x, first)[-1],
        project=project if any(model.project is not None for model in models) else None,
        encoder=None if up is None else tuple(up),
        decoder=None if down is None else tuple(down),
        code_range=top.code_range,
        encoder_at=None if bottom.encoder_at is None else encoder_at,
        inference=next((model.inference for model in used if model.inference), None),
        no_gradient=next((model.no_gradient for model in used if model.no_gradient), None),
        numbers_per_row=sum(model.numbers_per_row for model in models),
    )
    return whole


def layerwise(models: Sequence[Model], first: int = 0) -> Model:
    """`stacked`, whose layers learn at the same time, each by its own criterion."""
    return replace(
        stacked(models, first),
        objective=lambda: Layerwise(models, [model.objective() for model in models], first),
    )


def codes_of_layers(
    models: Sequence[Model],
    theta: Parameters,
    x: torch.Tensor,
    first: int = 0,
    drop: Callable[[torch.Tensor, int], torch.Tensor] | None = None,
) -> list[torch.Tensor]:
    """The codes of every layer, from the lowest up, as autograd can follow them.

    Rows x come as the lowest of the models sees them, without gaps. ``drop(x, number)`` is what
    dropout leaves of the input of a layer, the lowest being 0, before the layer standardises it.
    """
    codes = []
    for number, model in enumerate(models):
        x = x if drop is None else drop(x, number)
        x = x if number == 0 else model.standardized(x)
        x = model.code(theta.part(f"{first + number}."), x)
        codes.append(x)
    return codes


class Layerwise(Composite):
    """sum_l L_l(theta_l; h_l): each layer's own criterion, on the codes of the layer below.

    The codes are constant in the gradient: every layer learns at the same time, and each by its
    own rule alone. The first of the layers has the number ``first`` in its stack.

    What a layer has to explain grows while those below learn, so a sum above that of the start is
    no explosion.
    """

    baseline = math.inf

    def __init__(self, models: Sequence[Model], objectives: Sequence, first: int = 0):
        self.models = models
        numbers = range(first, first + len(models))
        self.parts = {f"{number}.": part for number, part in zip(numbers, objectives, strict=True)}
        self.reports_loss = all(objective.reports_loss for objective in objectives)
        self.is_noisy = any(objective.is_noisy for objective in objectives)
        self.floor = sum(objective.floor for objective in objectives)

    def value(self, theta, x, generator, row_weight=None):
        """The sum of the layers' values on one batch, a scalar."""
        return sum(
            objective.value(theta.part(prefix), z, generator, row_weight)
            for prefix, objective, z in self._inputs(theta, x)
        )

    def criteria(self, theta, x, generator, row_weight=None):
        """The criterion of every layer, a list of scalars."""
        return [
            objective.criterion(theta.part(prefix), z, generator, row_weight)
            for prefix, objective, z in self._inputs(theta, x)
        ]

    def criterion(self, theta, x, generator, row_weight=None):
        """The sum of the layers' criteria, a scalar."""
        return sum(self.criteria(theta, x, generator, row_weight))

    def gradient(self, theta, x, generator, out, row_weight=None):
        """Write the gradient of `value` into ``out``; return the value, where it is reported."""
        total = 0.0
        for prefix, objective, z in self._inputs(theta, x):
            part, gradient = theta.part(prefix), out.part(prefix)
            value = objective.gradient(part, z, generator, gradient, row_weight)
            total = total + value if objective.reports_loss else total
        return total

    def _inputs(self, theta, x) -> Iterator:
        """Each layer's prefix, objective and input, which no gradient goes through."""
        last = len(self.models) - 1
        layers = zip(self.parts.items(), self.models, strict=True)
        for number, ((prefix, objective), model) in enumerate(layers):
            x = x if number == 0 else model.standardized(x)
            yield prefix, objective, x
            if number < last:
                with torch.no_grad():
                    x = model.filled(x) if number == 0 and self.has_gaps else x
                    x = model.encode(theta.part(prefix), x)


class UnrolledReconstruction(Objective):
    """mean_i -log P(x_i | r(x_i)), r through a whole model up and down.

    Hinton & Salakhutdinov 2006: after pre-training, the encoders of a stack and, in reverse
    order, its decoders form one network, all of which is trained to reconstruct the data. The
    gradient is a closed form where encoder and decoder are affine maps.
    """

    def __init__(self, model: Model):
        self.model, self.state, self.floor = model, {}, model.units.constant
        is_affine = model.encoder is not None and model.decoder is not None
        self._chain = AffineChain([*model.encoder, *model.decoder]) if is_affine else None
        self.has_closed_form = is_affine

    def value(self, theta, x, generator, row_weight=None):
        """The criterion on one batch, whose row weights are 1 on average, a scalar."""
        x, mask = observed(x, self.model.fill) if self.has_gaps else (x, None)
        output = self.model.decode(theta, self.model.code(theta, x))
        loss = observed_loss(self.model.units, output, x, mask)
        return loss.mean() if row_weight is None else (loss * row_weight).mean()

    criterion = value

    def gradient(self, theta, x, generator, out, row_weight=None):
        """Write the gradient of `value` into ``out``; return the value, detached."""
        if not self.has_closed_form:
            return gradient_by_autograd(self.value, theta, x, generator, out, row_weight)
        self._chain.clear_others_(out)
        scale, units = 1.0 / len(x), self.model.units
        x, mask = observed(x, self.model.fill) if self.has_gaps else (x, None)
        output = self._chain.forward(theta, x)
        column_weight = None if row_weight is None else row_weight.unsqueeze(1).expand_as(x)
        constant = self.floor
        if mask is not None:
            column_weight = mask.to(x.dtype) if row_weight is None else column_weight * mask
            constant = constant - missing_constant(units, mask, x.dtype)
        value, residual = units.value_and_residual_(output, x, column_weight, scale)
        self._chain.backward_(theta, residual, out, scale)
        total = x.new_ones(()) if row_weight is None else row_weight
        return value + (total * constant).mean()
