"""Regularised auto-encoders and their relatives as scikit-learn estimators."""

from skae.estimators.auto_encoders import (
    AutoEncoder,
    ContractiveAutoEncoder,
    DenoisingAutoEncoder,
)
from skae.estimators.face.outcomes import CollapsedCodeWarning
from skae.estimators.stacks.auto_encoder import StackedAutoEncoder
from skae.estimators.supervised.classifier import StackedClassifier
from skae.estimators.supervised.regressor import StackedRegressor
from skae.estimators.tangents.classifier import ManifoldTangentClassifier
from skae.estimators.tangents.distance import TangentDistanceClassifier

__all__ = [
    "AutoEncoder",
    "CollapsedCodeWarning",
    "ContractiveAutoEncoder",
    "DenoisingAutoEncoder",
    "ManifoldTangentClassifier",
    "StackedAutoEncoder",
    "StackedClassifier",
    "StackedRegressor",
    "TangentDistanceClassifier",
]
__version__ = "0.1.0"
