"""Regularised auto-encoders and their relatives as scikit-learn estimators."""

from skae.estimators.auto_encoders import AutoEncoder, ContractiveAutoEncoder, DenoisingAutoEncoder
from skae.estimators.boltzmann.deep_belief import DeepBeliefNetwork
from skae.estimators.boltzmann.deep_machine import DeepBoltzmannMachine
from skae.estimators.boltzmann.rbm import RBM
from skae.estimators.face.callbacks import Checkpoint, EarlyStopping, Snapshots
from skae.estimators.face.outcomes import CollapsedCodeWarning
from skae.estimators.face.processes import Distributed
from skae.estimators.images.patches import PatchFeatures
from skae.estimators.images.stages import LocalContrastNormalizer, PatchWhitener, Pooling, Rectifier
from skae.estimators.parquet import transform_to_parquet
from skae.estimators.persistence import ModelFileError, load, save
from skae.estimators.posterior.ensemble import PosteriorEnsemble
from skae.estimators.recurrent import DeepRecurrentAutoEncoder, GenerativeStochasticNetwork
from skae.estimators.search.backend import train_together
from skae.estimators.search.searches import BatchedGridSearchCV, BatchedRandomizedSearchCV
from skae.estimators.sparse.coder import SparseCoder
from skae.estimators.sparse.convolutional import ConvolutionalPSD
from skae.estimators.sparse.psd import PSD
from skae.estimators.stacks.auto_encoder import StackedAutoEncoder
from skae.estimators.supervised.folds import LabelledFolds
from skae.estimators.supervised.predictors import StackedClassifier, StackedRegressor
from skae.estimators.tables.features import TableFeatures
from skae.estimators.tables.imputer import DenoisingImputer
from skae.estimators.tables.outliers import OutlierDetector
from skae.estimators.tangents.classifier import ManifoldTangentClassifier
from skae.estimators.tangents.distance import TangentDistanceClassifier

__all__ = [
    "PSD",
    "RBM",
    "AutoEncoder",
    "BatchedGridSearchCV",
    "BatchedRandomizedSearchCV",
    "Checkpoint",
    "CollapsedCodeWarning",
    "ContractiveAutoEncoder",
    "ConvolutionalPSD",
    "DeepBeliefNetwork",
    "DeepBoltzmannMachine",
    "DeepRecurrentAutoEncoder",
    "DenoisingAutoEncoder",
    "DenoisingImputer",
    "Distributed",
    "EarlyStopping",
    "GenerativeStochasticNetwork",
    "LabelledFolds",
    "LocalContrastNormalizer",
    "ManifoldTangentClassifier",
    "ModelFileError",
    "OutlierDetector",
    "PatchFeatures",
    "PatchWhitener",
    "Pooling",
    "PosteriorEnsemble",
    "Rectifier",
    "Snapshots",
    "SparseCoder",
    "StackedAutoEncoder",
    "StackedClassifier",
    "StackedRegressor",
    "TableFeatures",
    "TangentDistanceClassifier",
    "load",
    "save",
    "train_together",
    "transform_to_parquet",
]

__version__ = "0.1.0"
