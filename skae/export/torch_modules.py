"""Fitted models as modules of torch, and modules back into models."""

import copy
from collections import OrderedDict

import numpy as np
import torch
from torch import nn

from skae.export.kinds import Affine
from skae.export.steps import part_of, steps_of


def to_torch(model, part: str | None = None, *, dtype: torch.dtype = torch.float32):
    r"""A part of a fitted model as a plain module of torch.

    .. math:: x \mapsto s_L(W_L \cdots s_1(W_1 (x - \mu) / \sigma + b_1) \cdots + b_L)

    A :class:`torch.nn.Sequential` of :class:`torch.nn.Linear`, activations and, where the model
    standardises columns or fills gaps (NaN), of modules that do so. It takes rows in their own
    units, or codes, and returns what the model's method returns, to rounding. Parameters ask for a
    gradient, so that it can be trained further; `from_torch` brings them back.

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
      (fill_1): Filled()
      (linear_2): Linear(in_features=4, out_features=3, bias=True)
      (activation_3): Sigmoid()
    )
    >>> with torch.no_grad():
    ...     codes = encoder(torch.tensor(X))
    >>> bool(abs(codes.numpy() - model.transform(X)).max() < 1e-12)
    True
    """
    modules = OrderedDict()
    for number, step in enumerate(steps_of(model, part_of(model, part))):
        name, module = step.module(dtype)
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
    >>> _ = encoder.linear_2.bias.data.fill_(0.0)       # or any training in torch
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
