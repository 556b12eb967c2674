"""What must hold of layers before a stack of them is trained."""

import numpy as np
from sklearn.frozen import FrozenEstimator

from skae.estimators.auto_encoders import AutoEncoder
from skae.estimators.boltzmann.rbm import RBM
from skae.estimators.sparse.coder import SparseCoder
from skae.estimators.sparse.psd import PSD

_KINDS = (AutoEncoder, RBM, PSD, SparseCoder)


def require_gradients(layers, purpose):
    """Raise a ValueError if no gradient can go through a layer; those that are None stay out."""
    for number, layer in enumerate(layers):
        if layer is not None and layer._hindered_gradient is not None:
            raise ValueError(
                f"Layer {number} ({type(layer).__name__}) has no part in {purpose}, which needs a "
                f"gradient through its codes: {layer._hindered_gradient}."
            )


def unfrozen(layer, number, name="layers"):
    """A layer as it was given, out of its FrozenEstimator; ValueError if it is none of ours."""
    if isinstance(layer, FrozenEstimator):
        layer = layer.estimator
    if isinstance(layer, type) or not isinstance(layer, _KINDS):
        where = f"layers[{number}]" if name == "layers" else name
        kind = f"the class {layer.__name__}" if isinstance(layer, type) else repr(layer)
        raise ValueError(
            f"{where} is {kind}, but a stack is made of instances of AutoEncoder, "
            "DenoisingAutoEncoder, ContractiveAutoEncoder, RBM, PSD and SparseCoder."
        )
    return layer


def check_input(layer, number, below):
    """Whether what comes out of one layer can go into the next."""
    units, parameter_name = layer._loss_choice, layer._loss_parameter
    if not isinstance(units, str) or units == "multinomial":
        raise ValueError(
            f"Layer {number} ({type(layer).__name__}) has {parameter_name}={units!r}, which is for "
            f"columns of data; the codes of layer {number - 1} are of one kind. Use "
            f"{parameter_name}='auto'."
        )
    if units == "bernoulli" and not below._codes_in_unit_interval:
        raise ValueError(
            f"Layer {number} ({type(layer).__name__}) has {parameter_name}='bernoulli', but the "
            f"codes of layer {number - 1} ({below}) are not bound to [0, 1]. Choose "
            f"{parameter_name}='gaussian' for layer {number}, or a layer {number - 1} of sigmoid "
            "units."
        )
    atoms = getattr(layer, "dictionary", None)
    if atoms is not None and not hasattr(atoms, "fit"):
        n_columns = np.shape(atoms)[-1]
        n_below = below.n_components
        doubled = getattr(below, "split_sign", False)
        if n_below is not None and n_columns != n_below * (2 if doubled else 1):
            raise ValueError(
                f"Layer {number} has a dictionary of atoms with {n_columns} entries, but layer "
                f"{number - 1} gives {n_below} components. The numbers must agree."
            )


def check_prefit(layers):
    """Whether layers are fitted, and each on as many columns as the one below gives."""
    for number, layer in enumerate(layers):
        if not hasattr(layer, "weights_"):
            raise ValueError(
                f"pretraining='prefit', but layer {number} ({type(layer).__name__}) is not fitted. "
                "Fit it first; where the stack is cloned, as in a grid search, wrap it in "
                "sklearn.frozen.FrozenEstimator."
            )
        below = layers[number - 1]
        if number > 0 and layer.n_features_in_ != below._n_features_out:
            raise ValueError(
                f"Layer {number} was fitted on {layer.n_features_in_} features, but layer "
                f"{number - 1} gives {below._n_features_out}. The numbers must agree."
            )
