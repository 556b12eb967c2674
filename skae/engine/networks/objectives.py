"""Training criteria of auto-encoders, built from units, corruptions and penalties."""

from dataclasses import replace
from functools import cached_property, partial
from typing import NamedTuple

import torch

from skae.engine.networks.corruptions import corrupted, drawn_by, has_mask, key_of, redrawn
from skae.engine.networks.forward import Forward
from skae.engine.networks.gaps import missing_constant, observed, observed_loss
from skae.engine.networks.joint import JointReconstruction, joint_inputs
from skae.engine.networks.layers import (
    AffineChain,
    Network,
    affine_chains,
    decode,
    encode,
    initialize_,
    output_of,
)
from skae.engine.networks.levels import OwnColumn, told_of
from skae.engine.networks.penalties import checked_value
from skae.engine.optimisation.models import Model
from skae.engine.optimisation.replay import is_pure
from skae.engine.optimisation.runs import Joint, Objective, gradient_by_autograd


class Emphasis(NamedTuple):
    """Weights of corrupted and of untouched components in the reconstruction loss."""

    corrupted: float
    untouched: float

    def column_weight(self, mask, dtype):
        """The weight of each component, of the shape of ``mask``."""
        weight = mask.to(dtype)
        return weight.mul_(self.corrupted - self.untouched).add_(self.untouched)


class Reconstruction(Objective):
    """mean_i -log P(x_i | r(corrupted x_i)) + the penalties.

    NaN in x is not observed: ``fill``, of shape (n_features,), takes its place in the input, which
    is not corrupted there, and it has no loss. Penalties see the rows so filled.

    ``corruption`` is of `skae.engine.networks.corruptions`, or None; ``emphasis`` weighs corrupted
    and untouched components, None alike; ``penalties`` are of `skae.engine.networks.penalties`.
    With ``walkback``, rows that so many steps of the model's own chain visit are inputs, too, each
    with the clean row for its target.
    """

    def __init__(
        self,
        network: Network,
        units,
        corruption=None,
        emphasis=None,
        penalties=(),
        fill=None,
        walkback=0,
        own_column=None,
    ):
        self.state, self.fill, self.walkback = {}, fill, walkback
        self.own_column = own_column
        self.network, self.units = network, units
        self.corruption, self.emphasis, self.penalties = corruption, emphasis, penalties
        # The value of perfect reconstructions, and whether `value` depends on the generator.
        self.floor = units.constant
        self.is_noisy = corruption is not None or any(
            getattr(penalty, "is_noisy", False) for penalty in penalties
        )
        # Whether `gradient` needs no autograd.
        needed = ("add_gradient_",) if network.depth == 1 else ("add_gradient_", "any_depth")
        has_all = all(hasattr(penalty, name) for penalty in penalties for name in needed)
        self.has_closed_form = has_all and not network.potential
        self._chain = AffineChain([map for maps in affine_chains(network) for map in maps])
        self._buffers: dict[torch.Size, dict[str, torch.Tensor]] = {}

    @property
    def is_repeatable(self):
        """Whether all parts say so: a user's own may remember something."""
        return all(map(is_pure, (self.corruption, *self.penalties)))

    @property
    def is_replayable(self):
        """Whether `gradient` can be recorded: gaps are looked for on the host."""
        plain = self.has_closed_form and not (self.has_gaps or self.walkback or self.network.told)
        return plain and self.is_repeatable

    @cached_property
    def joint(self) -> Joint | None:
        """How several are trained as one, where the closed form of one layer is all there is, or
        that of several without penalties.
        """
        is_simple = self.network.depth == 1 or not self.penalties
        is_plain = self.has_closed_form and not self.walkback and not self.network.told
        has_numbers = all(hasattr(penalty, "numbers") for penalty in self.penalties)
        if not (is_simple and is_plain and has_numbers):
            return None
        kinds = tuple(map(type, self.penalties))
        return Joint(
            likeness=(self.network, kinds, has_mask(self.corruption), self.emphasis),
            closeness=self.units.likeness,
            noise=(key_of(self.corruption), key_of(self.fill)),
            make=JointReconstruction,
            inputs=partial(joint_inputs, self),
            drawn_by=drawn_by(self.corruption),
        )

    def value(self, theta, x, generator, row_weight=None):
        """The criterion on one batch; the generator is of the corruption and the penalties'
        noise.
        """
        noisy, x, mask, column_weight, row_weight = self.inputs(theta, x, generator, row_weight)
        hidden = encode(theta, noisy, self.network)
        decoded, output = decode(theta, hidden[-1], self.network)
        if self.network.potential:
            output = output_of(theta, noisy, self.network)
        if self.own_column is not None:
            output = self.own_column.completed(output, noisy)
        forward = Forward(
            self.network, self.units, noisy, row_weight, generator, hidden, decoded, output
        )
        loss = observed_loss(self.units, output, x, mask, column_weight)
        total = forward.mean(loss)
        for penalty in self.penalties:
            value = checked_value(penalty.value(theta, forward), penalty, "value")
            total = total + penalty.weight * value
        return total

    criterion = value

    def gradient(self, theta, x, generator, out, row_weight=None):
        """Write the gradient of `value` into ``out``; return the value, detached."""
        if self.has_closed_form:
            return self.value_and_gradient(theta, x, generator, out, row_weight)
        return gradient_by_autograd(self.value, theta, x, generator, out, row_weight)

    def value_and_gradient(self, theta, x, generator, out, row_weight=None):
        """The same in closed form, without autograd, where the penalties have theirs.

        With residual e = r - x, delta = (e V^T) s'(p) + the penalties' part:

            dV = h^T e,  dc = sum e,  dW = delta^T x~,  db = sum delta

        e is 0 where x was not observed.
        """
        noisy, x, mask, column_weight, row_weight = self.inputs(theta, x, generator, row_weight)
        if mask is not None:
            seen = mask.to(x.dtype)
            column_weight = seen if column_weight is None else column_weight.mul_(seen)
        if row_weight is not None:
            rows = row_weight.unsqueeze(1)
            column_weight = rows.expand_as(x) if column_weight is None else column_weight * rows

        scale = 1.0 / len(x)
        if self.network.depth > 1:
            output = self._chain.forward(theta, noisy)
            value, residual = self._residual_(output, noisy, x, column_weight, scale)
            deltas = None
            if self.penalties:
                out.flat.zero_()
                deltas = self._deep_deltas(value, theta, out, noisy, row_weight, generator)
            self._chain.backward_(theta, residual, out, scale, deltas)
        else:
            forward = noisy, x, column_weight, row_weight, generator
            value = self._shallow_gradient(theta, out, *forward)
        if self.units.constant:
            constant = self.units.constant
            value.add_(constant if row_weight is None else row_weight.mean() * constant)
        if mask is not None and self.units.column_constant is not None:
            missing = missing_constant(self.units, mask, x.dtype)
            value.sub_(missing.mean() if row_weight is None else (row_weight * missing).mean())
        return value

    def _residual_(self, output, noisy, x, column_weight, scale):
        """The value, and its gradient by the network's output, in its place."""
        if self.own_column is None:
            return self.units.value_and_residual_(output, x, column_weight, scale)
        said, error = self.own_column.said_and_error(noisy)
        output.mul_(error).add_(said)
        value, residual = self.units.value_and_residual_(output, x, column_weight, scale)
        return value, residual.mul_(error)

    def _shallow_gradient(self, theta, out, noisy, x, column_weight, row_weight, generator):
        """Write the gradient for one layer; return the value less the units' constant."""
        nonlinearity, scale = self.network.nonlinearity, 1.0 / len(x)
        weight, decoder_weight = theta["weight_0"], self.network.decoder_weight(theta, 0)
        buffers = self._buffers_for(x, len(weight))
        code = torch.addmm(theta["hidden_bias_0"], noisy, weight.t(), out=buffers["code"])
        code = nonlinearity.function_(code)
        output = torch.addmm(theta["visible_bias_0"], code, decoder_weight, out=buffers["output"])
        value, residual = self._residual_(output, noisy, x, column_weight, scale)

        # Residual and delta are sums over rows; the products below make them means.
        self.network.decoder_weight(out, 0).addmm_(code.t(), residual, beta=0, alpha=scale)
        out["visible_bias_0"].addmv_(residual.t(), buffers["ones"], beta=0, alpha=scale)
        slope = nonlinearity.slope(code)
        delta = torch.mm(residual, decoder_weight.t(), out=buffers["delta"]).mul_(slope)
        if not self.network.tied:
            out["weight_0"].zero_()
        out["hidden_bias_0"].zero_()
        if self.penalties:
            forward = Forward(
                *(self.network, self.units, noisy, row_weight, generator, [code]),
                row_fraction=buffers["fraction"] if row_weight is None else None,
                slope=slope,
                delta=delta,
            )
            self._penalize_(value, theta, forward, out)
        out["weight_0"].addmm_(delta.t(), noisy, alpha=scale)
        out["hidden_bias_0"].addmv_(delta.t(), buffers["ones"], alpha=scale)
        return value

    def _deep_deltas(self, value, theta, out, noisy, row_weight, generator):
        """The penalties' part of the deltas of a deep encoder; adds to the value and ``out``."""
        hidden = self._chain.outputs(self.network.depth)
        deltas, slope = [torch.zeros_like(h) for h in hidden], self.network.nonlinearity.slope
        forward = Forward(
            *(self.network, self.units, noisy, row_weight, generator, hidden),
            slope=slope(hidden[-1]),
            delta=deltas[-1],
            deltas=deltas,
        )
        self._penalize_(value, theta, forward, out)
        return deltas

    def _penalize_(self, value, theta, forward, out):
        """Add each penalty to the value, and its gradient where it says."""
        for penalty in self.penalties:
            term = penalty.add_gradient_(theta, forward, out)
            value.add_(checked_value(term, penalty, "add_gradient_"), alpha=penalty.weight)

    def inputs(self, theta, x, generator, row_weight=None):
        """Corrupted rows, what they were, what of it was observed, and the weights of both."""
        x, mask = observed(x, self.fill) if self.has_gaps else (x, None)
        if self.network.told:
            noisy, level, weight = self.corruption.leveled(x, generator)
            noisy = noisy if mask is None else torch.where(mask, noisy, x)
            told = told_of(noisy, level)
            if self.own_column is not None:
                return told, x, mask, self.own_column.weights(weight, told), row_weight
            weight = weight[:, 0] if row_weight is None else weight[:, 0] * row_weight
            return told, x, mask, None, weight
        noisy, column_weight = self._corrupt(x, mask, generator)
        if not self.walkback or self.corruption is None:
            return noisy, x, mask, column_weight, row_weight
        inputs, weights = [noisy], [column_weight]
        for _ in range(self.walkback):
            with torch.no_grad():
                output = output_of(theta, noisy, self.network)
                drawn = redrawn(x, output, self.units, generator)
            noisy, column_weight = self._corrupt(drawn, mask, generator)
            inputs.append(noisy)
            weights.append(column_weight)
        n = len(inputs)  # each visited row counts alike
        x, mask, row_weight = (
            None if part is None else torch.cat([part] * n) for part in (x, mask, row_weight)
        )
        weight = None if column_weight is None else torch.cat(weights)
        return torch.cat(inputs), x, mask, weight, row_weight

    def _corrupt(self, x, seen, generator):
        if self.corruption is None:
            return x, None
        noisy, mask = corrupted(x, self.corruption, generator)
        if seen is not None:
            noisy = torch.where(seen, noisy, x)  # what is not there cannot be wrong
        if self.emphasis is None:
            return noisy, None
        if mask is None:
            raise ValueError(
                "emphasis tells corrupted components from others, but the corruption returns no "
                "mask of them. Return one, or use emphasis=None."
            )
        return noisy, self.emphasis.column_weight(mask, x.dtype)

    def _buffers_for(self, x, n_components):
        # An epoch has batches of two sizes at most; their buffers are made once.
        if x.shape not in self._buffers:
            self._buffers[x.shape] = {
                "code": x.new_empty(len(x), n_components),
                "delta": x.new_empty(len(x), n_components),
                "output": torch.empty_like(x),
                "ones": x.new_ones(len(x)),
                "fraction": x.new_full((len(x),), 1.0 / len(x)),
            }
        return self._buffers[x.shape]


def auto_encoder(
    network: Network,
    units,
    output_bias,
    objective,
    shift=None,
    scale=None,
    fill=None,
    own_column: OwnColumn | None = None,
) -> Model:
    """The `Model` of a network of affine maps.

    ``output_bias`` is that with which training begins; ``objective()`` is a new `Reconstruction`.
    ``fill`` is of the model and the same, ``own_column`` of a network that is told the noise.
    """
    if network.potential and not units.is_linear:
        raise ValueError(
            "parametrization='energy' is for real columns only: use loss='gaussian' or "
            "'squared_error', or parametrization='reconstruction'."
        )
    encoder, decoder = affine_chains(network)

    def measure(theta, x, generator):
        return measured_columns(theta, x, objective(), generator)

    def at_level(level):
        def denoise(theta, x):
            told = told_of(x, level)
            output = output_of(theta, told, network)
            return output if own_column is None else own_column.completed(output, told)

        return replace(
            model,
            encode=lambda theta, x: encode(theta, told_of(x, level), network)[-1],
            decode=_no_rows_of_codes if own_column else model.decode,
            denoise=denoise,
        )

    model = Model(
        shapes=network.parameter_shapes,
        start_=lambda theta, rows, index, generator: initialize_(
            theta, network, output_bias, generator
        ),
        encode=lambda theta, x: encode(theta, x, network)[-1],
        decode=lambda theta, code: decode(theta, code, network)[1],
        units=units,
        n_features=network.layer_sizes[0],
        n_codes=network.layer_sizes[-1],
        objective=objective,
        shift=shift,
        scale=scale,
        fill=fill,
        denoise=(lambda theta, x: output_of(theta, x, network)) if network.potential else None,
        has_potential=network.potential,
        measure=measure,
        at_level=at_level if network.told else None,
        encoder=None if network.told else encoder,
        inference="a network that is told the noise" if network.told else None,
        decoder=decoder,
        untied=network.untied_weights if network.tied else None,
        code_range=network.nonlinearity.range,
    )
    # Rows that are encoded are clean: they have as little noise as any that it was trained on.
    return at_level(lowest_level(objective())) if network.told else model


def _no_rows_of_codes(theta, code):
    raise ValueError(
        "A code of a network with level_as_input=True makes no row by itself: its reconstruction "
        "is also of what each column of the row says. Use reconstruct(X) and sample(), or "
        "level_as_input=False."
    )


def lowest_level(objective) -> float:
    """The lowest level of noise of a training."""
    level = objective.corruption.level
    return float(level[0] if isinstance(level, tuple) else level)


def measured_columns(theta, x, objective, generator):
    """Of each column its standard deviation, ``spread_``, and the mean of (x - r)^2.

    r is of rows corrupted as in training: ``residual_variance_``.
    """
    objective.has_gaps, objective.walkback = objective.fill is not None, 0
    noisy, x, mask, _, _ = objective.inputs(theta, x, generator)
    output = output_of(theta, noisy, objective.network)
    if objective.own_column is not None:
        output = objective.own_column.completed(output, noisy)
    mean = objective.units.mean(output)

    def over_rows(values):
        if mask is None:
            return values.mean(0)
        return (values * mask).sum(0) / mask.sum(0).clamp(min=1)

    spread = over_rows((x - over_rows(x)).square()).sqrt()
    return {"residual_variance_": over_rows((x - mean).square()), "spread_": spread}
