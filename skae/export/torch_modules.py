"""Fitted models as modules of torch, and modules back into models."""

import copy
from collections import OrderedDict

import numpy as np
import torch
from torch import nn

from skae.engine.networks.activations import LEAK
from skae.export.kinds import Affine, Apply, Fill, Select, Shrink, Standardize
from skae.export.steps import part_of, steps_of

# Modules of activations. Softplus turns linear where nothing is missing in float64.
_ACTIVATIONS = {
    "leaky_relu": lambda: nn.LeakyReLU(LEAK),
    "linear": nn.Identity,
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "softmax": lambda: nn.Softmax(dim=-1),
    "softplus": lambda: nn.Softplus(threshold=80.0),
    "tanh": nn.Tanh,
}


class Clamped(nn.Module):
    """Numbers from 0 to 1."""

    def forward(self, x):
        """Rows whose numbers are between 0 and 1."""
        return torch.clamp(x, 0, 1)


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


class Bent(nn.Module):
    """x / sqrt(1 + (x / 3)^2), which lies between -3 and 3."""

    def forward(self, x):
        """Rows of clipped numbers."""
        return x / torch.sqrt(1 + torch.square(x / 3))


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


# Of columns of tables.
_OF_TABLES = {"bend": Bent, "clamp": Clamped}


def to_torch(model, part: str | None = None, *, dtype: torch.dtype = torch.float32):
    r"""A part of a fitted model as a plain module of torch.

    .. math:: x \mapsto s_L(W_L \cdots s_1(W_1 (x - \mu) / \sigma + b_1) \cdots + b_L)

    A :class:`torch.nn.Sequential` of :class:`torch.nn.Linear`, activations and, where the model
    standardises columns, of one module that does so. It takes rows in their own units, or codes,
    and returns what the model's method returns, to rounding. Parameters ask for a gradient, so that
    it can be trained further; `from_torch` brings them back.

    Parameters
    ----------
    model : estimator
        A fitted auto-encoder, RBM, stack or deep belief network, or a classifier or regressor on a
        stack with ``output="linear"``.
    part : {"encoder", "decoder", "predictor"}, default=None
        "encoder" is ``transform``, "decoder" ``inverse_transform``. "predictor" is
        ``predict_proba`` of a classifier (of several outputs side by side) and ``predict`` of a
        regressor, of shape (n_samples, n_outputs). None: the encoder, or the predictor.
    dtype : torch.dtype, default=torch.float32
        Of parameters and rows.

    Returns
    -------
    module : torch.nn.Sequential
        On the CPU, in training mode as all new modules.

    Raises
    ------
    NotFittedError
        If the model is not fitted.
    TypeError
        If the model has no weights to export.
    ValueError
        If the model has no such part, or if the part is no chain of affine maps and activations:
        codes that are found by iterations, kernel outputs, tables with text.

    Examples
    --------
    >>> import torch
    >>> from sklearn.datasets import load_iris
    >>> from skae import AutoEncoder
    >>> from skae.export import to_torch
    >>> X = load_iris().data
    >>> model = AutoEncoder(n_components=3, max_iter=20, random_state=0).fit(X)
    >>> encoder = to_torch(model, dtype=torch.float64)
    >>> encoder
    Sequential(
      (standardize_0): Standardized()
      (linear_1): Linear(in_features=4, out_features=3, bias=True)
      (activation_2): Sigmoid()
    )
    >>> with torch.no_grad():
    ...     codes = encoder(torch.tensor(X))
    >>> bool(abs(codes.numpy() - model.transform(X)).max() < 1e-12)
    True
    """
    modules = OrderedDict()
    for number, step in enumerate(steps_of(model, part_of(model, part))):
        name, module = _module(step, dtype)
        modules[f"{name}_{number}"] = module
    return nn.Sequential(modules)


def from_torch(model, module: nn.Module, part: str | None = None):
    """A copy of a fitted model with the weights and biases of a module.

    Parameters
    ----------
    model : estimator
        The model whose `to_torch` made the module, or one of the same shape.
    module : torch.nn.Module
        Its :class:`torch.nn.Linear`, in the order in which they were made, have the new values.
        Where weights are tied, those of the decoder are the encoder's as well.
    part : {"encoder", "decoder", "predictor"}, default=None
        As in `to_torch`.

    Returns
    -------
    model : estimator
        Of the same class. What `partial_fit` would go on from besides the weights, such as
        moments of the optimiser, is forgotten.

    Raises
    ------
    ValueError
        If the module has other numbers or shapes of linear maps than the part of the model, or
        weights that are no numbers.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skae import AutoEncoder
    >>> from skae.export import from_torch, to_torch
    >>> X = load_iris().data
    >>> model = AutoEncoder(n_components=3, max_iter=20, random_state=0).fit(X)
    >>> encoder = to_torch(model)
    >>> _ = encoder.linear_1.bias.data.fill_(0.0)       # or any training in torch
    >>> from_torch(model, encoder).weights_["hidden_bias_0"]
    array([0., 0., 0.])
    """
    part = part_of(model, part)
    maps = [step for step in steps_of(model, part) if isinstance(step, Affine)]
    linear = [one for one in module.modules() if isinstance(one, nn.Linear)]
    shapes, own = [tuple(one.weight.shape) for one in linear], [one.weight.shape for one in maps]
    biased = [one.bias is not None for one in linear]
    if shapes != own or biased != [step.bias is not None for step in maps]:
        raise ValueError(
            f"The module has linear maps of the shapes {shapes}, but the {part} of this "
            f"{type(model).__name__} has {own}, and biases where it has some. Change the values "
            "of the module that to_torch made, not its layers."
        )
    model = copy.deepcopy(model)
    for step, one in zip(maps, linear, strict=True):
        found = [one.weight] if one.bias is None else [one.weight, one.bias]
        values = [part.detach().cpu().double().numpy() for part in found]
        if not all(np.isfinite(part).all() for part in values):
            raise ValueError("The module has weights that are NaN or infinite: its training failed")
        _set(model, step.map.weight, values[0].T if step.map.transposed else values[0])
        if len(values) > 1:
            _set(model, step.map.bias, values[1])
    return model


def _module(step, dtype):
    """The name and the module of a step."""

    def tensor(values):
        return torch.tensor(values, dtype=dtype)

    if isinstance(step, Standardize):
        return "standardize", Standardized(tensor(step.shift), tensor(step.scale))
    if isinstance(step, Fill):
        return "fill", Filled(tensor(step.values))
    if isinstance(step, Select):
        return "select", Selected(torch.tensor(step.columns))
    if isinstance(step, Shrink):
        sharpness = None if step.sharpness is None else tensor(step.sharpness)
        return "shrink", Shrunk(tensor(step.threshold), sharpness)
    if isinstance(step, Apply):
        modules = [_ACTIVATIONS.get(name, _OF_TABLES.get(name))() for name, _ in step.pieces]
        if len(modules) == 1:
            return "activation", modules[0]
        columns = [torch.tensor(columns) for _, columns in step.pieces]
        return "activation", ByColumns(modules, columns)
    n_outputs, n_inputs = step.weight.shape
    linear = nn.Linear(n_inputs, n_outputs, bias=step.bias is not None, dtype=dtype)
    with torch.no_grad():
        linear.weight.copy_(tensor(step.weight))
        if step.bias is not None:
            linear.bias.copy_(tensor(step.bias))
    return "linear", linear


def _set(model, name, values):
    """Give a parameter, by its name in the engine, new values."""
    if name in ("output_weight", "output_bias"):
        attribute = {"output_weight": "output_weights_", "output_bias": "output_bias_"}[name]
        setattr(model, attribute, values.astype(getattr(model, attribute).dtype))
        model.__dict__.pop("_training_state", None)
        return
    number, dot, rest = name.partition(".")
    if dot:
        stack = getattr(model, "stack_", model)
        _set(stack.layers_[int(number)], rest, values)
        stack.__dict__.pop("_training_state", None)
        return
    model.weights_[name] = values.astype(model.weights_[name].dtype)
    model.__dict__.pop("_training_state", None)
