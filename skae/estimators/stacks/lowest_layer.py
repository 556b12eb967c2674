"""The layer of a stack that sees the data: it says how tables are read, and whether gaps may be."""

from sklearn.base import clone
from sklearn.frozen import FrozenEstimator

from skae.estimators.auto_encoders import AutoEncoder
from skae.estimators.face.transformer import LAYERS, Transformer

# How the lowest layer reads tables. Others see codes.
_OF_TABLES = ("categorical_features", "max_categories", "min_frequency", "numbers")


def shared_by_layers(model):
    """The parameters that say how training runs and how tables are read, not what is learned.

    Each kind of layer knows by itself how long it trains, where the model does not say.
    """
    names = ("batch_size", "max_iter", "device", "verbose", *_OF_TABLES)
    own = {name: getattr(model, name) for name in names if hasattr(model, name)}
    return {name: value for name, value in own.items() if (name, value) != ("max_iter", "auto")}


def lowest_layer(stack):
    """The estimator that the lowest layer of a stack is, or will be a clone of."""
    if stack.layers is None and isinstance(stack.layer, str):
        return LAYERS[stack.layer](**shared_by_layers(stack)) if stack.layer in LAYERS else stack
    layer = stack.layer if stack.layers is None else (*stack.layers, None)[0]
    layer = layer.estimator if isinstance(layer, FrozenEstimator) else layer
    if not isinstance(layer, Transformer):
        return AutoEncoder()  # it is refused where layers are made
    return layer if stack.pretraining == "prefit" else clone(layer)


def accepts_gaps(stack) -> bool:
    """Whether the lowest of the layers that parameters ask for takes NaN for not observed."""
    given = isinstance(stack.layers, list | tuple) and len(stack.layers) > 0
    lowest = stack.layers[0] if given else stack.layer
    if isinstance(lowest, str):
        lowest = LAYERS.get(lowest)
    return getattr(getattr(lowest, "estimator", lowest), "_accepts_gaps", False) is True
