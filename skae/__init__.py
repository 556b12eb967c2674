"""Regularised auto-encoders and their relatives as scikit-learn estimators."""

from skae.estimators.auto_encoders import (
    AutoEncoder,
    ContractiveAutoEncoder,
    DenoisingAutoEncoder,
)
from skae.estimators.boltzmann.rbm import RBM
from skae.estimators.face.outcomes import CollapsedCodeWarning

__all__ = [
    "RBM",
    "AutoEncoder",
    "CollapsedCodeWarning",
    "ContractiveAutoEncoder",
    "DenoisingAutoEncoder",
]
__version__ = "0.1.0"
