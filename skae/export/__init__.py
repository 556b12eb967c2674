"""Fitted models for other libraries: modules of torch, and ONNX graphs of whole pipelines."""

from skae.export.onnx_graphs import register_converters, to_onnx
from skae.export.torch_modules import from_torch, to_torch

__all__ = ["from_torch", "register_converters", "to_onnx", "to_torch"]
