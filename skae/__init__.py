"""Regularised auto-encoders and their relatives as scikit-learn estimators."""

from skae.estimators._auto_encoders import (
    AutoEncoder,
    ContractiveAutoEncoder,
    DenoisingAutoEncoder,
)
from skae.estimators._boltzmann import RBM
from skae.estimators._convolutional import ConvolutionalPSD
from skae.estimators._deep_belief import DeepBeliefNetwork
from skae.estimators._images import LocalContrastNormalizer, Pooling, Rectifier
from skae.estimators._manifold_tangents import ManifoldTangentClassifier
from skae.estimators._outcomes import CollapsedCodeWarning
from skae.estimators._patch_whitener import PatchWhitener
from skae.estimators._patches import PatchFeatures
from skae.estimators._predictive import PSD
from skae.estimators._sparse_coding import SparseCoder
from skae.estimators._stacked_auto_encoder import StackedAutoEncoder
from skae.estimators._stacked_classifier import StackedClassifier
from skae.estimators._stacked_regressor import StackedRegressor
from skae.estimators._tangent_distance import TangentDistanceClassifier

__all__ = [
    "PSD",
    "RBM",
    "AutoEncoder",
    "CollapsedCodeWarning",
    "ContractiveAutoEncoder",
    "ConvolutionalPSD",
    "DeepBeliefNetwork",
    "DenoisingAutoEncoder",
    "LocalContrastNormalizer",
    "ManifoldTangentClassifier",
    "PatchFeatures",
    "PatchWhitener",
    "Pooling",
    "Rectifier",
    "SparseCoder",
    "StackedAutoEncoder",
    "StackedClassifier",
    "StackedRegressor",
    "TangentDistanceClassifier",
]

__version__ = "0.1.0"
