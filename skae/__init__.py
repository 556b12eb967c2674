"""Regularised auto-encoders and their relatives as scikit-learn estimators."""

from skae.estimators._auto_encoders import (
    AutoEncoder,
    ContractiveAutoEncoder,
    DenoisingAutoEncoder,
)
from skae.estimators._boltzmann import RBM
from skae.estimators._outcomes import CollapsedCodeWarning

__all__ = [
    "RBM",
    "AutoEncoder",
    "CollapsedCodeWarning",
    "ContractiveAutoEncoder",
    "DenoisingAutoEncoder",
]

__version__ = "0.1.0"
