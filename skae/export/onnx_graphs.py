"""Fitted models, and whole pipelines with them, as ONNX graphs: converters for skl2onnx."""

from typing import Any

import numpy as np
from sklearn.base import is_classifier, is_regressor

from skae.estimators.boltzmann.deep_belief import DeepBeliefNetwork
from skae.estimators.face.transformer import Transformer
from skae.estimators.supervised.predictors import SupervisedStack
from skae.export.kinds import Select, Standardize
from skae.export.steps import part_of, steps_of


def to_onnx(model, X, **options) -> Any:
    """A fitted model, or a pipeline with such steps, as an ONNX graph.

    It registers the converters and calls ``skl2onnx.to_onnx``. The graph returns what
    ``transform``, or ``predict`` and ``predict_proba``, return, to rounding.

    Parameters
    ----------
    model : estimator
        A fitted model as `to_torch` takes it, or a :class:`~sklearn.pipeline.Pipeline` or another
        composition with such models among its steps.
    X : array-like of shape (n_samples, n_features)
        Some rows, of which the number and the type of the columns are read. float32 rows make a
        graph of float32, float64 rows one of float64.
    **options
        Those of ``skl2onnx.to_onnx``: ``target_opset``, ``options={"zipmap": False}`` for
        probabilities as one array, and so on.

    Returns
    -------
    graph : onnx.ModelProto
        ``graph.SerializeToString()`` is what a file for any runtime of ONNX holds.

    Raises
    ------
    ImportError
        If skl2onnx is not installed: it comes with ``pip install "skae[onnx]"``.
    ValueError
        If a model is no chain of affine maps and activations: see `to_torch`.
    """
    register_converters()
    from skl2onnx import to_onnx as converted

    is_ours = isinstance(model, Transformer | SupervisedStack | DeepBeliefNetwork)
    if is_ours and hasattr(X, "columns"):
        X = np.asarray(X, dtype=np.float64)  # one input of all columns, not one of each
    return converted(model, X, **options)


def register_converters() -> None:
    """Tell skl2onnx how to convert the models of this package.

    A process that calls ``skl2onnx.to_onnx`` or ``skl2onnx.convert_sklearn`` itself needs it once.

    Raises
    ------
    ImportError
        If skl2onnx is not installed: it comes with ``pip install "skae[onnx]"``.
    """
    try:
        from skl2onnx import update_registered_converter
    except ImportError as error:
        raise ImportError(
            'ONNX graphs need skl2onnx, which is not installed: pip install "skae[onnx]"'
        ) from error
    for cls in _concrete(Transformer, SupervisedStack, DeepBeliefNetwork):
        options = None
        if issubclass(cls, Transformer | DeepBeliefNetwork):
            functions = _transformer_shapes, _convert_transformer
        elif is_classifier(cls()):
            functions = _classifier_shapes, _convert_classifier
            options = {"zipmap": [True, False, "columns"], "nocl": [True, False]}
        elif is_regressor(cls()):
            functions = _regressor_shapes, _convert_regressor
        update_registered_converter(cls, f"Skae{cls.__name__}", *functions, options=options)


def _concrete(*classes):
    """The public classes among some and all that inherit from them."""
    import skae

    for name in skae.__all__:
        cls = getattr(skae, name)
        if isinstance(cls, type) and issubclass(cls, classes):
            yield cls


# What skl2onnx asks for: types and shapes of a model's outputs, and the nodes that compute them.


def _numbers(operator):
    """The type of the graph's numbers: that of rows, float32 for whole numbers."""
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType

    is_double = isinstance(operator.inputs[0].type, DoubleTensorType)
    return DoubleTensorType if is_double else FloatTensorType


def _transformer_shapes(operator):
    n_codes = operator.raw_operator._n_features_out
    n_rows = operator.inputs[0].get_first_dimension()
    operator.outputs[0].type = _numbers(operator)([n_rows, n_codes])


def _regressor_shapes(operator):
    n_outputs = len(operator.raw_operator.output_bias_)
    n_rows = operator.inputs[0].get_first_dimension()
    operator.outputs[0].type = _numbers(operator)([n_rows, n_outputs])


def _classifier_shapes(operator):
    from skl2onnx.common.shape_calculator import calculate_linear_classifier_output_shapes

    if len(operator.raw_operator.output_classes_) > 1:
        raise ValueError(
            f"This {type(operator.raw_operator).__name__} has several outputs, for which skl2onnx "
            "has no type. Export one classifier for each, or use skae.export.to_torch()."
        )
    calculate_linear_classifier_output_shapes(operator)


def _convert_transformer(scope, operator, container):
    _Graph(scope, operator, container).results_of("encoder", operator.outputs[0].full_name)


def _convert_regressor(scope, operator, container):
    _Graph(scope, operator, container).results_of("predictor", operator.outputs[0].full_name)


def _convert_classifier(scope, operator, container):
    from onnx import TensorProto

    labels, probabilities = (output.full_name for output in operator.outputs)
    graph = _Graph(scope, operator, container)
    graph.results_of("predictor", probabilities)
    classes, kind = operator.raw_operator.classes_, TensorProto.INT64
    if classes.dtype.kind in "OUS":
        classes, kind = np.array([str(name).encode() for name in classes]), TensorProto.STRING
    names = scope.get_unique_variable_name("classes")
    container.add_initializer(names, kind, [len(classes)], classes.tolist())
    index = graph.node("ArgMax", [probabilities], axis=1, keepdims=0)
    graph.node("Gather", [names, index], output=labels, axis=0)


class _Graph:
    """The nodes of one model, which are added one after the other."""

    def __init__(self, scope, operator, container):
        from onnx import TensorProto

        self.scope, self.operator, self.container = scope, operator, container
        is_double = _numbers(operator).__name__.startswith("Double")
        self.type = TensorProto.DOUBLE if is_double else TensorProto.FLOAT

    def results_of(self, part, output):
        """All nodes of a part of the model; the last one's output has such a name.

        Whole numbers, which float32 may not hold, are standardised in float64.
        """
        from onnx import TensorProto

        model, own = self.operator.raw_operator, self.type
        is_whole = type(self.operator.inputs[0].type).__name__.startswith(("Int", "UInt"))
        self.type = TensorProto.DOUBLE if is_whole else own
        name = self.node("Cast", [self.operator.inputs[0].full_name], to=self.type)
        for step in steps_of(model, part_of(model, part)):
            if self.type != own and not isinstance(step, Select | Standardize):
                name, self.type = self.node("Cast", [name], to=own), own
            name = step.nodes(self, name)
        self.node("Cast", [name], output=output, to=own)

    def columns(self, name, columns):
        """Some columns, in such an order."""
        from onnx import TensorProto

        return self.node("Gather", [name, self.constant(columns, TensorProto.INT64)], axis=1)

    def constant(self, values, kind=None):
        """The name of a constant tensor."""
        name = self.scope.get_unique_variable_name("constant")
        kind = self.type if kind is None else kind
        self.container.add_initializer(name, kind, list(values.shape), values.ravel().tolist())
        return name

    def node(self, operation, inputs, output=None, **options):
        """Add a node; the name of its output."""
        output = self.scope.get_unique_variable_name("value") if output is None else output
        name = self.scope.get_unique_operator_name(operation)
        self.container.add_node(operation, inputs, output, name=name, **options)
        return output
