"""Regularised auto-encoders and their relatives as scikit-learn estimators."""

from skae.estimators.auto_encoders import AutoEncoder, ContractiveAutoEncoder, DenoisingAutoEncoder
from skae.estimators.boltzmann.rbm import RBM
from skae.estimators.face.outcomes import CollapsedCodeWarning
from skae.estimators.images.patches import PatchFeatures
from skae.estimators.images.stages import LocalContrastNormalizer, PatchWhitener, Pooling, Rectifier
from skae.estimators.sparse.coder import SparseCoder
from skae.estimators.sparse.convolutional import ConvolutionalPSD
from skae.estimators.sparse.psd import PSD

__all__ = [
    "PSD",
    "RBM",
    "AutoEncoder",
    "CollapsedCodeWarning",
    "ContractiveAutoEncoder",
    "ConvolutionalPSD",
    "DenoisingAutoEncoder",
    "LocalContrastNormalizer",
    "PatchFeatures",
    "PatchWhitener",
    "Pooling",
    "Rectifier",
    "SparseCoder",
]

__version__ = "0.1.0"
