"""Models of sparse codes as steps: what predicts codes, and dictionaries."""

import numpy as np
import torch

from skae.engine.networks.layers import AffineMap
from skae.estimators.sparse.coder import SparseCoder
from skae.estimators.sparse.psd import PSD
from skae.export.kinds import Affine, Apply, Shrink, Standardize, Step

# Models whose codes, or decoders, are steps though their encoder is no chain of the engine.
SPARSE = PSD | SparseCoder


def sparse_steps(model, part: str) -> tuple[list[Step], str | None]:
    """The steps between standardised columns and codes, and why there are none, or None."""
    if part == "decoder":
        if getattr(model, "split_sign", False):
            return [], "codes with split_sign come in two parts"
        name = "dictionary" if isinstance(model, SparseCoder) else "decoder_weight_0"
        atoms = _array(model.weights_[name])
        return [Affine(atoms.T, None, AffineMap(name, "", transposed=True))], None
    if isinstance(model, SparseCoder):
        return [], "a problem that is solved for each row"
    if model.inference != "encoder":
        return [], "inference='optimal' solves one for each row. Use inference='encoder'"
    return _predicted(model), None


def _predicted(model: PSD) -> list[Step]:
    """The codes g s(W x + b), by the kind of s."""
    weights = {name: _array(values) for name, values in model.weights_.items()}
    bias = weights.get("hidden_bias_0")
    steps: list[Step] = [Affine(weights["weight_0"], bias, AffineMap("weight_0", "hidden_bias_0"))]
    if "threshold" not in weights:
        steps.append(Apply((("tanh", np.arange(len(weights["gain"]))),)))
    else:
        sharpness = weights.get("log_sharpness")
        steps.append(Shrink(weights["threshold"], None if sharpness is None else np.exp(sharpness)))
    with np.errstate(divide="ignore"):
        # Where a gain is 0, a code divided by infinity is, too.
        return [*steps, Standardize(np.zeros(len(weights["gain"])), 1 / weights["gain"])]


def _array(values):
    return torch.as_tensor(values).cpu().double().numpy()
