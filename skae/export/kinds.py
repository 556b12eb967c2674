"""The steps of an export: what each computes, as a module of torch and as nodes of ONNX.

A step has ``module(dtype)``, which returns a name and a module, and ``nodes(graph, name)``, which
adds what it makes of rows to a graph, and returns its name; see `skae.export.activations`.
"""

from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from torch import nn

from skae.engine.networks.layers import AffineMap
from skae.export.activations import ACTIVATIONS, OF_TABLES


class Standardized(nn.Module):
    """(x - shift) / scale, column by column; both are buffers."""

    def __init__(self, shift: torch.Tensor, scale: torch.Tensor):
        super().__init__()
        self.register_buffer("shift", shift)
        self.register_buffer("scale", scale)

    def forward(self, x):
        """Rows with shifted and scaled columns."""
        return (x - self.shift) / self.scale


class Filled(nn.Module):
    """Values, a buffer, in the place of NaN."""

    def __init__(self, values: torch.Tensor):
        super().__init__()
        self.register_buffer("values", values)

    def forward(self, x):
        """Rows without gaps."""
        return torch.where(torch.isnan(x), self.values, x)


class Selected(nn.Module):
    """Some of the columns; their numbers are a buffer."""

    def __init__(self, columns: torch.Tensor):
        super().__init__()
        self.register_buffer("columns", columns)

    def forward(self, x):
        """Rows of these columns."""
        return x.index_select(-1, self.columns)


class Shrunk(nn.Module):
    """sign(x) max(|x| - t, 0), or the same with a smooth bend; thresholds are a buffer."""

    def __init__(self, threshold: torch.Tensor, sharpness: torch.Tensor | None):
        super().__init__()
        self.register_buffer("threshold", threshold)
        self.register_buffer("sharpness", sharpness)

    def forward(self, x):
        """Codes."""
        if self.sharpness is None:
            return x - torch.clamp(x, -self.threshold, self.threshold)
        a, c = self.sharpness * x.abs(), self.sharpness * self.threshold
        top = torch.maximum(a, c)
        total = top + torch.log(torch.exp(a - top) + torch.exp(c - top) - torch.exp(-top))
        return x.sign() * (total / self.sharpness - self.threshold)


class ByColumns(nn.Module):
    """Modules that are each of its own columns, which together are all columns."""

    def __init__(self, modules, columns):
        super().__init__()
        self.parts = nn.ModuleList(modules)
        self.sizes = [len(own) for own in columns]
        joined = torch.cat(columns)
        self.register_buffer("columns", joined)
        self.register_buffer("places", torch.argsort(joined))

    def forward(self, x):
        """Rows whose columns have gone through their modules."""
        parts = x.index_select(-1, self.columns).split(self.sizes, -1)
        done = [module(part) for module, part in zip(self.parts, parts, strict=True)]
        return torch.cat(done, -1).index_select(-1, self.places)


class Standardize(NamedTuple):
    """(x - shift) / scale, column by column."""

    shift: np.ndarray
    scale: np.ndarray

    def module(self, dtype):
        """Both as buffers."""
        shift, scale = (torch.tensor(values, dtype=dtype) for values in self)
        return "standardize", Standardized(shift, scale)

    def nodes(self, graph, name):
        """Two of them."""
        centered = graph.node("Sub", [name, graph.constant(self.shift)])
        return graph.node("Div", [centered, graph.constant(self.scale)])


class Affine(NamedTuple):
    """x W^T + b, W of shape (n_outputs, n_inputs): the engine's map, with the values it has.

    There may be no b.
    """

    weight: np.ndarray
    bias: np.ndarray | None
    map: AffineMap

    def module(self, dtype):
        """Its weights can be trained."""
        n_outputs, n_inputs = self.weight.shape
        linear = nn.Linear(n_inputs, n_outputs, bias=self.bias is not None, dtype=dtype)
        with torch.no_grad():
            linear.weight.copy_(torch.tensor(self.weight, dtype=dtype))
            if self.bias is not None:
                linear.bias.copy_(torch.tensor(self.bias, dtype=dtype))
        return "linear", linear

    def nodes(self, graph, name):
        """A product, and a sum."""
        product = graph.node("MatMul", [name, graph.constant(self.weight.T)])
        if self.bias is None:
            return product
        return graph.node("Add", [product, graph.constant(self.bias)])


class Shrink(NamedTuple):
    r"""sign(x) max(|x| - t, 0) with thresholds t or, with a sharpness c, smooth at the bend.

    .. math:: \mathrm{sign}(x) \bigl(\log(e^{c t} + e^{c |x|} - 1) / c - t\bigr)
    """

    threshold: np.ndarray
    sharpness: np.ndarray | None

    def module(self, dtype):
        """Both as buffers."""
        sharpness = None if self.sharpness is None else torch.tensor(self.sharpness, dtype=dtype)
        return "shrink", Shrunk(torch.tensor(self.threshold, dtype=dtype), sharpness)

    def nodes(self, graph, name):
        """With a bend as sharp as a threshold or a smooth one."""
        threshold = graph.constant(self.threshold)
        size, sign = graph.node("Abs", [name]), graph.node("Sign", [name])
        if self.sharpness is None:
            rest = graph.node("Relu", [graph.node("Sub", [size, threshold])])
            return graph.node("Mul", [sign, rest])
        sharpness = graph.constant(self.sharpness)
        c = graph.constant(self.sharpness * self.threshold)
        a = graph.node("Mul", [sharpness, size])
        top = graph.node("Max", [a, c])
        parts = [graph.node("Exp", [graph.node("Sub", [one, top])]) for one in (a, c)]
        least = graph.node("Exp", [graph.node("Neg", [top])])
        inner = graph.node("Sub", [graph.node("Add", parts), least])
        total = graph.node("Add", [top, graph.node("Log", [inner])])
        shrunk = graph.node("Sub", [graph.node("Div", [total, sharpness]), threshold])
        return graph.node("Mul", [sign, shrunk])


class Select(NamedTuple):
    """Some of the columns."""

    columns: np.ndarray

    def module(self, dtype):
        """Their numbers are a buffer."""
        return "select", Selected(torch.tensor(self.columns))

    def nodes(self, graph, name):
        """One of them."""
        return graph.columns(name, self.columns)


class Fill(NamedTuple):
    """The values in the place of NaN, column by column."""

    values: np.ndarray

    def module(self, dtype):
        """The values are a buffer."""
        return "fill", Filled(torch.tensor(self.values, dtype=dtype))

    def nodes(self, graph, name):
        """Two of them."""
        gaps = graph.node("IsNaN", [name])
        return graph.node("Where", [gaps, graph.constant(self.values), name])


class Apply(NamedTuple):
    """Activations by name, each of its own columns; they are all of them.

    So are "bend", x / sqrt(1 + (x / 3)^2), and "clamp", to [0, 1].
    """

    pieces: tuple[tuple[str, np.ndarray], ...]

    @property
    def activations(self):
        """Those of the names."""
        return [(ACTIVATIONS | OF_TABLES)[name] for name, _ in self.pieces]

    def module(self, dtype):
        """Of all columns, or by columns."""
        modules = [activation.module() for activation in self.activations]
        if len(modules) == 1:
            return "activation", modules[0]
        columns = [torch.tensor(columns) for _, columns in self.pieces]
        return "activation", ByColumns(modules, columns)

    def nodes(self, graph, name):
        """Those of each, put side by side."""
        if len(self.pieces) == 1:
            return self.activations[0].nodes(graph, name)
        columns = [own for _, own in self.pieces]
        parts = [
            activation.nodes(graph, graph.columns(name, own))
            for activation, own in zip(self.activations, columns, strict=True)
        ]
        joined = graph.node("Concat", parts, axis=1)
        return graph.columns(joined, np.argsort(np.concatenate(columns)))


Step: TypeAlias = Standardize | Fill | Affine | Apply | Shrink | Select
