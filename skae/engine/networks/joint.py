"""Criteria of several auto-encoders of one shape as one: tensors have one axis more, the first."""

from copy import copy
from types import MappingProxyType
from typing import Any, NamedTuple

import torch

from skae.engine.networks.forward import Forward
from skae.engine.networks.gaps import missing_constant
from skae.engine.networks.layers import AffineChain, affine_chains
from skae.engine.networks.penalties import of_some, together
from skae.engine.networks.products import affine
from skae.engine.optimisation.parameters import Parameters


class Inputs(NamedTuple):
    """What a step sees of rows.

    - ``noisy`` and ``x``, of shape (n_samples, n_features): corrupted rows, and what they were.
    - ``column_weight``, of the same shape, weighs components. None: all alike.
    - ``row_weight``, (n_samples,), weighs rows. None: all alike.
    - ``missing``, (n_samples,): of the units' constant, the part of what was not observed.
    """

    noisy: torch.Tensor
    x: torch.Tensor
    column_weight: torch.Tensor | None = None
    row_weight: torch.Tensor | None = None
    missing: torch.Tensor | None = None


def joint_inputs(objective: Any, x, generator, row_weight=None) -> Inputs:
    """What a step of one `Reconstruction` sees of a batch."""
    noisy, x, mask, column_weight, row_weight = objective.inputs(None, x, generator, row_weight)
    missing = None
    if mask is not None:
        seen = mask.to(x.dtype)
        column_weight = seen if column_weight is None else column_weight.mul_(seen)
        missing = missing_constant(objective.units, mask, x.dtype)
        missing = missing if isinstance(missing, torch.Tensor) else None
    return Inputs(noisy, x, column_weight, row_weight, missing)


class JointReconstruction:
    """The criteria of `Reconstruction` of several networks of one shape, which differ in their
    parameters, their rows and the weights of their penalties; these are for one layer.

    Inputs have the shapes of `Inputs` with an axis more, the first; so have the parameters.
    """

    def __init__(self, objectives: list[Any], like: torch.Tensor):
        first = objectives[0]
        self.network, self.all_units = first.network, [each.units for each in objectives]
        kinds = zip(*(objective.penalties for objective in objectives), strict=True)
        self.penalties = [together(penalties, like) for penalties in kinds]
        self.chain = None
        if self.network.depth > 1:
            self.chain = AffineChain([map for maps in affine_chains(self.network) for map in maps])
        constants = [float(units.constant) for units in self.all_units]
        self.constant = torch.tensor(constants, dtype=like.dtype, device=like.device)
        self.units = _neighbours(self.all_units)
        self._buffers: dict[int, dict[str, torch.Tensor]] = {}

    def of(self, places: list[int]) -> "JointReconstruction":
        """The criteria of some of the networks."""
        some = copy(self)
        some._buffers = {}
        some.all_units = [self.all_units[place] for place in places]
        some.units, some.constant = _neighbours(some.all_units), self.constant[places]
        some.penalties = [of_some(penalty, places) for penalty in self.penalties]
        if self.chain is not None:
            some.chain = AffineChain(self.chain.maps)  # its buffers are of so many networks
        return some

    def state_of(self, place: int) -> dict[str, Any]:
        """What one of the criteria would have learned of its rows: nothing."""
        return {}

    def criterion(self, theta: Parameters, inputs: Inputs) -> torch.Tensor:
        """The criterion of each, of shape (n_models,)."""
        if self.chain is not None:
            return self._value_and_residual(self.chain.forward(theta, inputs.noisy), inputs)[0]
        code, output = self._forward(theta, inputs.noisy)
        value, _ = self._value_and_residual(output, inputs)
        forward = self._seen(inputs, code, output)
        for penalty in self.penalties:
            value.addcmul_(penalty.value(theta, forward), penalty.weight[:, 0])
        return value

    def gradient(self, theta: Parameters, inputs: Inputs, out: Parameters) -> torch.Tensor:
        """Write the gradients into ``out``; return the criterion of each."""
        noisy, scale = inputs.noisy, 1.0 / inputs.noisy.shape[1]
        if self.chain is not None:
            output = self.chain.forward(theta, noisy)
            value, residual = self._value_and_residual(output, inputs)
            self.chain.backward_(theta, residual, out, scale)
            return value
        buffers = self._buffers_for(theta, noisy)
        code, output = self._forward(theta, noisy, buffers)
        value, residual = self._value_and_residual(output, inputs)
        decoder = self.network.decoder_weight(theta, 0)
        # Products have memory of their own, where they are batched; ``out`` has them as parts.
        product = torch.bmm(code.mT, residual, out=buffers["product"])
        torch.mul(product, scale, out=self.network.decoder_weight(out, 0))
        torch.mul(residual.sum(1), scale, out=out["visible_bias_0"])
        slope = self.network.nonlinearity.slope(code)
        delta = torch.bmm(residual, decoder.mT, out=buffers["delta"])
        delta.mul_(slope)
        for name in ("hidden_bias_0",) if self.network.tied else ("hidden_bias_0", "weight_0"):
            out[name].zero_()
        if self.penalties:
            fraction = buffers["fraction"] if inputs.row_weight is None else None
            parts = {"slope": slope, "delta": delta, "row_fraction": fraction}
            forward = self._seen(inputs, code, output, **parts)
            for penalty in self.penalties:
                term = penalty.add_gradient_(theta, forward, out)
                value.addcmul_(term, penalty.weight[:, 0])
        product = torch.bmm(delta.mT, noisy, out=buffers["product"])
        out["weight_0"].add_(product, alpha=scale)
        out["hidden_bias_0"].add_(delta.sum(1), alpha=scale)
        return value

    def _forward(self, theta, noisy, buffers=MappingProxyType({})):
        into, out = buffers.get("code"), buffers.get("output")
        code = affine(theta["hidden_bias_0"], noisy, theta["weight_0"].mT, into)
        code = self.network.nonlinearity.function_(code)
        decoder = self.network.decoder_weight(theta, 0)
        return code, affine(theta["visible_bias_0"], code, decoder, out)

    def _buffers_for(self, theta, noisy):
        # An epoch has batches of two sizes at most; their buffers are made once.
        n_models, n = noisy.shape[:2]
        if n not in self._buffers:
            weight = theta["weight_0"]
            shapes = {"code": (n, weight.shape[1]), "output": (n, weight.shape[2])}
            shapes |= {"delta": shapes["code"], "product": weight.shape[1:]}
            found = {name: noisy.new_empty(n_models, *shape) for name, shape in shapes.items()}
            self._buffers[n] = found | {"fraction": noisy.new_full((n_models, n), 1.0 / n)}
        return self._buffers[n]

    def _value_and_residual(self, output, inputs):
        """The loss of each model, and the gradient by the output, in its place."""
        column_weight, row_weight, missing = inputs[2:]
        if row_weight is not None:
            of_rows = row_weight.unsqueeze(-1).expand_as(output)
            column_weight = of_rows if column_weight is None else column_weight * of_rows
        scale = 1.0 / output.shape[1]
        values, start = [], 0
        for units, stop in self.units:
            own = None if column_weight is None else column_weight[start:stop]
            part = output[start:stop], inputs.x[start:stop], own, scale
            value, residual = units.value_and_residual_(*part)
            if residual.data_ptr() != part[0].data_ptr():
                part[0].copy_(residual)
            values.append(value)
            start = stop
        value = torch.cat(values)
        share = 1.0 if row_weight is None else row_weight.mean(-1)
        value = value + self.constant * share
        if missing is not None:
            value -= (missing if row_weight is None else row_weight * missing).mean(-1)
        return value, output

    def _seen(self, inputs, code, output, **parts):
        own = self.network, None, inputs.noisy, inputs.row_weight, None, [code], (), output
        return Forward(*own, **parts)


def _neighbours(all_units):
    """Units of neighbours whose columns are alike, and where these end."""
    found: list[tuple[Any, int]] = []
    for number, units in enumerate(all_units, start=1):
        if found and found[-1][0].likeness == units.likeness:
            found[-1] = found[-1][0], number
        else:
            found.append((units, number))
    return found
