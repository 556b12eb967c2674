"""Regularised auto-encoders and their relatives as scikit-learn estimators."""

from skae.estimators.auto_encoders import AutoEncoder, ContractiveAutoEncoder, DenoisingAutoEncoder
from skae.estimators.face.outcomes import CollapsedCodeWarning
from skae.estimators.images.patches import PatchFeatures
from skae.estimators.images.stages import LocalContrastNormalizer, PatchWhitener, Pooling, Rectifier
from skae.estimators.sparse.coder import SparseCoder

__all__ = [
    "AutoEncoder",
    "CollapsedCodeWarning",
    "ContractiveAutoEncoder",
    "DenoisingAutoEncoder",
    "LocalContrastNormalizer",
    "PatchFeatures",
    "PatchWhitener",
    "Pooling",
    "Rectifier",
    "SparseCoder",
]

__version__ = "0.1.0"
