"""Regularised auto-encoders and their relatives as scikit-learn estimators."""

from skae.estimators.auto_encoders import (
    AutoEncoder,
    ContractiveAutoEncoder,
    DenoisingAutoEncoder,
)
from skae.estimators.face.outcomes import CollapsedCodeWarning
from skae.estimators.sparse.coder import SparseCoder
from skae.estimators.sparse.convolutional import ConvolutionalPSD
from skae.estimators.sparse.psd import PSD

__all__ = [
    "PSD",
    "AutoEncoder",
    "CollapsedCodeWarning",
    "ContractiveAutoEncoder",
    "ConvolutionalPSD",
    "DenoisingAutoEncoder",
    "SparseCoder",
]
__version__ = "0.1.0"
