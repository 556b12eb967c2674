"""From a fitted layer to a part of one deep auto-encoder, which encodes and decodes as it does."""

import copy

import numpy as np

from skae.estimators.auto_encoders import AutoEncoder
from skae.estimators.boltzmann.rbm import RBM
from skae.estimators.stacks.layers import shared_by_layers


def unrolled(layer):
    """A fitted layer with decoder weights of its own, to be trained with the others.

    Parameters
    ----------
    layer : estimator

    Returns
    -------
    layer : estimator
        A copy. That of an RBM is an auto-encoder which encodes and decodes as it does.
    """
    if isinstance(layer, RBM):
        return _auto_encoder_of(layer)
    layer = copy.copy(layer)
    if isinstance(layer, AutoEncoder) and layer.tied_weights:
        layer.tied_weights = False
        tied = layer.weights_
        layer.weights_ = {
            name: tied[name.removeprefix("decoder_")].copy() for name in layer._parameter_shapes()
        }
    return layer


def _auto_encoder_of(rbm):
    """The auto-encoder that does in one pass what the machine does in the mean field."""
    layer = AutoEncoder(rbm.n_components, tied_weights=False, **shared_by_layers(rbm))
    vars(layer).update({name: value for name, value in vars(rbm).items() if name.endswith("_")})
    layer.columns_ = rbm.columns_._replace(parameter=layer._loss_parameter)
    weight = rbm.weights_["weight_0"]
    # The energy has v / s^2 for v; the means of visible units have no such factor.
    precision = np.exp(-rbm.weights_.get("log_variance", weight.dtype.type(0)))
    layer.weights_ = {
        "weight_0": weight * precision,
        "decoder_weight_0": weight,
        "hidden_bias_0": rbm.weights_["hidden_bias_0"],
        "visible_bias_0": rbm.weights_["visible_bias_0"],
    }
    return layer
