"""Functions of single numbers, or of rows, as modules of torch and as nodes of ONNX.

A graph has ``node(operation, inputs)`` and ``constant(values)``, which return names.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from skae.engine.networks.activations import LEAK


class Activation(NamedTuple):
    """``module()`` is a new module; ``nodes(graph, name)`` the name of what it makes of rows."""

    module: Callable[[], nn.Module]
    nodes: Callable[[Any, str], str]


class Clamped(nn.Module):
    """Numbers from 0 to 1."""

    def forward(self, x):
        """Rows whose numbers are between 0 and 1."""
        return torch.clamp(x, 0, 1)


class Bent(nn.Module):
    """x / sqrt(1 + (x / 3)^2), which lies between -3 and 3."""

    def forward(self, x):
        """Rows of clipped numbers."""
        return x / torch.sqrt(1 + torch.square(x / 3))


def _leaky(graph, name):
    """max(x, x / 10): runtimes have no leaky relu of float64."""
    return graph.node("Max", [name, graph.node("Mul", [name, graph.constant(np.full(1, LEAK))])])


def _softplus(graph, name):
    """max(x, 0) + log(1 + exp(-|x|)): runtimes have no softplus of float64."""
    small = graph.node("Exp", [graph.node("Neg", [graph.node("Abs", [name])])])
    log = graph.node("Log", [graph.node("Add", [small, graph.constant(np.ones(1))])])
    return graph.node("Add", [graph.node("Relu", [name]), log])


def _bent(graph, name):
    """X / sqrt(1 + (x / 3)^2)."""
    third = graph.node("Div", [name, graph.constant(np.full(1, 3.0))])
    square = graph.node("Mul", [third, third])
    root = graph.node("Sqrt", [graph.node("Add", [square, graph.constant(np.ones(1))])])
    return graph.node("Div", [name, root])


def _clamped(graph, name):
    """To [0, 1]; a gap stays one, which it does not in every runtime's minimum."""
    zero, one = graph.constant(np.zeros(1)), graph.constant(np.ones(1))
    clamped = graph.node("Max", [graph.node("Min", [name, one]), zero])
    return graph.node("Where", [graph.node("IsNaN", [name]), name, clamped])


def _node(operation, **options):
    return lambda graph, name: graph.node(operation, [name], **options)


# Those of networks, as the engine names them.
ACTIVATIONS = {
    "leaky_relu": Activation(lambda: nn.LeakyReLU(LEAK), _leaky),
    "linear": Activation(nn.Identity, lambda graph, name: name),
    "relu": Activation(nn.ReLU, _node("Relu")),
    "sigmoid": Activation(nn.Sigmoid, _node("Sigmoid")),
    "softmax": Activation(lambda: nn.Softmax(dim=-1), _node("Softmax", axis=-1)),
    # It turns linear where nothing is missing in float64.
    "softplus": Activation(lambda: nn.Softplus(threshold=80.0), _softplus),
    "tanh": Activation(nn.Tanh, _node("Tanh")),
}
# Those of columns of tables.
OF_TABLES = {"bend": Activation(Bent, _bent), "clamp": Activation(Clamped, _clamped)}
