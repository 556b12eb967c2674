"""Whether the estimators of skae still compute what they computed before a change.

``record`` fits every case of `CASES` with the skae that Python imports, and writes what the
fitted models return to a file; ``compare`` fits all of them again and prints, for every number
or array, by how much it differs::

    PYTHONPATH=/path/to/old python same_results.py record base.npz
    PYTHONPATH=/path/to/new python same_results.py compare base.npz --rtol 1e-6

A difference is relative: the largest absolute difference of two arrays, divided by the largest
absolute value of the old one. It is infinite where shapes, types or strings differ, or where one
of them is not there. ``--only PATTERN`` takes those cases alone whose names contain the pattern,
and ``--quiet`` prints what is over the tolerance alone.

If a parameter or method gets another name, adapt `CASES` or `METHODS` and `ATTRIBUTES`, and
leave the names of the cases as they are: by them the file finds what belongs together. A case
that raises is reported and does not stop the others; what a fitted model refuses, such as the
Jacobian of a code that has none, is recorded as the kind of the error.
"""

import argparse
import collections
import sys
import time
import traceback
import warnings

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from sklearn.datasets import load_diabetes, load_digits, load_iris, load_wine
from sklearn.decomposition import PCA

import skae
from skae import diagnostics

# Data.

DIGITS, DIGIT_CLASSES = load_digits(return_X_y=True)
DIGITS, DIGIT_CLASSES = DIGITS[:150] / 16, DIGIT_CLASSES[:150]
IRIS, IRIS_CLASSES = load_iris(return_X_y=True)
WINE, WINE_CLASSES = load_wine(return_X_y=True)
DIABETES, DIABETES_TARGETS = load_diabetes(return_X_y=True)
DIABETES, DIABETES_TARGETS = DIABETES[:150], DIABETES_TARGETS[:150]

SINGLE = DIGITS.astype(np.float32)
BINARY = (DIGITS > 0.5).astype(float)
ONE_HOT = np.eye(3)[IRIS_CLASSES]
MIXED = np.hstack([IRIS, ONE_HOT, IRIS[:, :2] > IRIS[:, :2].mean(0)])
MIXED_LOSS = [("gaussian", slice(0, 4)), ("multinomial", [4, 5, 6]), ("bernoulli", [7, 8])]
COUNTS = sparse.csr_matrix(np.where(DIGITS > 0.6, DIGITS, 0.0))
# Every fifth row does not count.
WEIGHT = 0.5 * (np.arange(150) % 5)
FEW_CLASSES = np.where(np.arange(150) % 3 == 0, DIGIT_CLASSES, -1)
TWO_CLASSES = np.column_stack([DIGIT_CLASSES % 2, DIGIT_CLASSES // 4])
LABELS = np.column_stack([DIGIT_CLASSES % 2, DIGIT_CLASSES > 4]).astype(int)
NAMES = np.array(["setosa", "versicolor", "virginica"])[IRIS_CLASSES]
TWO_TARGETS = np.column_stack([DIABETES_TARGETS, DIABETES[:, 0] ** 2])
FEW_TARGETS = np.where(np.arange(150) % 3 == 0, DIABETES_TARGETS, np.nan)
ATOMS = np.random.default_rng(0).standard_normal((20, 64))


def _table():
    """A data frame of 150 rows with numbers, a whole one with gaps, text and truth values."""
    rng = np.random.default_rng(0)
    age = rng.integers(18, 80, size=150).astype(float)
    return pd.DataFrame(
        {
            "age": np.where(rng.random(150) < 0.1, np.nan, age),
            "income": rng.lognormal(8, 1, size=150) * age,
            "town": rng.choice(["Aix", "Bern", "Como", None], size=150, p=[0.5, 0.3, 0.1, 0.1]),
            "member": age + 20 * rng.standard_normal(150) > 50,
            "visits": rng.poisson(3, size=150),
            "since": pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(900, size=150), "D"),
        }
    )


TABLE = _table()
TABLE_CLASSES = np.where(np.arange(150) % 3 == 0, TABLE["visits"].to_numpy() > 3, -1)

# Parameters of nearly all cases.
FEW = {"max_iter": 3, "batch_size": 25, "random_state": 0, "device": "cpu"}
CODE = {"n_components": 12, **FEW}
STACK = {"layer_sizes": (12, 8), **FEW}
IMAGE = {"image_shape": (8, 8), "device": "cpu"}

# What is recorded of a fitted model, where it has it.

METHODS = {
    "transform": lambda model, X, y: model.transform(X),
    "reconstruct": lambda model, X, y: model.reconstruct(X),
    "inverse_transform": lambda model, X, y: model.inverse_transform(model.transform(X)),
    "get_feature_names_out": lambda model, X, y: model.get_feature_names_out(),
    "score_samples": lambda model, X, y: model.score_samples(X),
    "score": lambda model, X, y: model.score(X, y),
    "predict": lambda model, X, y: model.predict(X),
    "predict_proba": lambda model, X, y: model.predict_proba(X),
    "predict_log_proba": lambda model, X, y: model.predict_log_proba(X),
    "decision_function": lambda model, X, y: model.decision_function(X),
    "kneighbors": lambda model, X, y: model.kneighbors(X),
    "tangents": lambda model, X, y: model.tangents(X),
    "free_energy": lambda model, X, y: model.free_energy(X),
    "gibbs": lambda model, X, y: model.gibbs(X, 2, random_state=0),
    "sample": lambda model, X, y: model.sample(4, burn_in=20, random_state=0),
    "log_partition_function": lambda model, X, y: model.log_partition_function(),
    "score_columns": lambda model, X, y: model.score_columns(X),
    "largest_alpha": lambda model, X, y: model.largest_alpha(X),
    "prediction_gap": lambda model, X, y: model.prediction_gap(X),
}

ATTRIBUTES = (
    "weights_",
    "components_",
    "decoder_components_",
    "intercept_hidden_",
    "intercept_visible_",
    "visible_scale_",
    "columns_",
    "loss_curve_",
    "validation_curve_",
    "layer_loss_curves_",
    "n_iter_",
    "stopping_reason_",
    "n_features_in_",
    "n_components_",
    "inference_algorithm_",
    "image_shape_",
    "filter_shape_",
    "patch_shape_",
    "output_shape_",
    "mean_",
    "whitening_",
    "inverse_whitening_",
    "contrast_epsilon_",
    "output_weights_",
    "output_bias_",
    "classes_",
    "n_labelled_",
    "target_mean_",
    "target_scale_",
    "n_tangents_",
    "labelled_",
    "bases_",
)

JACOBIANS = {
    "jacobian_norms": lambda model, X: diagnostics.jacobian_norms(model, X),
    "jacobian_norms.reconstruction": lambda model, X: diagnostics.jacobian_norms(
        model, X, of="reconstruction"
    ),
    "jacobian_spectrum": lambda model, X: diagnostics.jacobian_spectrum(model, X),
    "jacobian_products": lambda model, X: diagnostics.jacobian_products(
        model, X, np.ones((X.shape[0], 1, X.shape[1]))
    ),
    "diagnostics.tangents": lambda model, X: diagnostics.tangents(model, X, 2),
}


def results(model, X, y=None):
    """What a fitted model has learned and returns for some of the rows.

    Parameters
    ----------
    model : estimator
        Fitted.
    X : {ndarray, CSR matrix} of shape (n_samples, n_features)
    y : ndarray of shape (n_samples,) or (n_samples, n_outputs), default=None

    Returns
    -------
    found : dict of str to object
    """
    some = X[::5]
    targets = None if y is None else y[::5]
    found = {name: getattr(model, name) for name in ATTRIBUTES if hasattr(model, name)}
    for name, method in METHODS.items():
        if hasattr(model, name):
            found[name] = _or_error(method, model, some, targets)
    if hasattr(model, "reconstruct"):
        for name, method in JACOBIANS.items():
            found[name] = _or_error(method, model, X[:6])
    return found


def _or_error(function, *arguments):
    try:
        return function(*arguments)
    except Exception as error:
        return f"raises {type(error).__name__}"


def fitted(model, X, y=None, **options):
    """`results` of a model after one fit.

    Parameters
    ----------
    model : estimator
    X, y : array-like
        Training data. y is passed where it is not None.
    **options
        What else `fit` takes.

    Returns
    -------
    found : dict of str to object
    """
    targets = () if y is None else (y,)
    return results(model.fit(X, *targets, **options), X, y)


def fitted_twice(model, X, y=None, **options):
    """`results` after a fit, and a second one that continues from the first."""
    first = fitted(model, X, y, **options)
    model.set_params(warm_start=True)
    return {"first": first, "second": fitted(model, X, y, **options)}


def fitted_in_parts(model, X, y=None, **options):
    """`results` after two passes of `partial_fit` over the halves of the rows."""
    for start in (0, 1, 0, 1):
        targets = () if y is None else (y[start::2],)
        model.partial_fit(X[start::2], *targets, **options)
        # Those of a stream are known to its first call.
        options.pop("classes", None)
    return results(model, X, y)


def fitted_and_continued(model, X, y=None, **options):
    """`results` after a fit, and after passes of `partial_fit` that continue from there."""
    return {"fit": fitted(model, X, y, **options), "parts": fitted_in_parts(model, X, y)}


def given_weights(model, X, y=None):
    """`results` of a fit with weights of rows, and the score with the same weights."""
    found = fitted(model, X, y, sample_weight=WEIGHT)
    found["weighted_score"] = model.score(X, y, sample_weight=WEIGHT)
    return found


def given_layers(model, layers, X, y=None):
    """`results` of a stack of layers that are fitted before, one on the codes of the other."""
    codes = X
    for layer in layers:
        codes = layer.fit_transform(codes)
    return fitted(model.set_params(layers=layers, pretraining="prefit"), X, y)


def boltzmann(model, X):
    """`fitted`, and estimates by annealing and by tempered chains."""
    found = fitted(model, X)
    found["annealed"] = model.log_partition_function(
        "ais", n_chains=20, n_temperatures=100, random_state=0
    )
    found["tempered"] = model.sample(3, burn_in=20, n_temperatures=3, random_state=0)
    found["log_likelihood"] = model.score_samples(
        X[::5], log_partition=model.log_partition_function()
    )
    return found


def gradients(model, X):
    """Agreement of the gradients of contrastive divergence with the exact one."""
    return diagnostics.gradient_agreement(
        model.fit(X), X, n_gibbs_steps=(1, 3), scales=(0.5, 1), n_particles=50, random_state=0
    )._asdict()


def local_diagnostics():
    """Diagnostics that need no model of skae."""
    first = diagnostics.local_pca_tangents(WINE, 3, n_neighbors=8)
    second = diagnostics.local_pca_tangents(WINE, 3, n_neighbors=12)
    codes = np.clip(DIGITS, 0.1, 0.9)
    return {
        "local_pca_tangents": first,
        "principal_angles": diagnostics.principal_angles(first.directions, second.directions),
        "local_rank": diagnostics.local_rank(first.singular_values),
        "tangent_defects": diagnostics.tangent_defects(first.singular_values),
        "constant_units": diagnostics.constant_units(codes),
        "saturation": diagnostics.saturation(codes, margin=0.15),
    }


def code_diagnostics(model, X):
    """Diagnostics of the charts of a fitted encoder."""
    active = diagnostics.active_units(model.fit(X), X[:20])
    return {"active_units": active, "chart_overlap": diagnostics.chart_overlap(active, active)}


def axes(X):
    """Two directions at every row, as a source of tangents."""
    directions = np.zeros((X.shape[0], 2, X.shape[1]))
    directions[:, 0, 0] = directions[:, 1, 1] = 1.0
    directions[:, 0, 2] = np.asarray(X)[:, 0]
    return directions


# Shorter names for what the cases are made of.
AE, DAE = skae.AutoEncoder, skae.DenoisingAutoEncoder
CAE, RBM, PSD = skae.ContractiveAutoEncoder, skae.RBM, skae.PSD
Coder, ConvPSD, DBN = skae.SparseCoder, skae.ConvolutionalPSD, skae.DeepBeliefNetwork
Stack, Classifier = skae.StackedAutoEncoder, skae.StackedClassifier
Regressor, Tangent = skae.StackedRegressor, skae.ManifoldTangentClassifier
Distance, Features = skae.TangentDistanceClassifier, skae.PatchFeatures


def contractive(**options):
    """A layer of the tangent classifier."""
    few = {"max_iter": 3, "batch_size": 200, "device": "cpu"}
    return CAE(learning_rate=2e-3, learning_rate_schedule="linear", **few, **options)


MTC = {
    "layers": [
        contractive(n_components=16, contraction=0.064),
        contractive(n_components=12, contraction=0.016),
    ],
    **FEW,
    "batch_size": 50,
}

FILTERS = {"n_components": 3, "image_shape": (8, 8), **FEW, "max_iter": 2}
PATCHES = {"n_patches": 300, "image_shape": (8, 8), "random_state": 0}

CASES = {
    # Auto-encoders.
    "ae.bernoulli": lambda: fitted(AE(**CODE), DIGITS),
    "ae.gaussian": lambda: fitted(AE(**CODE), WINE),
    "ae.squared_error": lambda: fitted(AE(loss="squared_error", **CODE), IRIS),
    "ae.multinomial": lambda: fitted(AE(loss="multinomial", **CODE), ONE_HOT),
    "ae.mixed": lambda: fitted(AE(loss=MIXED_LOSS, **CODE), MIXED),
    "ae.single": lambda: fitted(AE(**CODE), SINGLE),
    "ae.sparse_rows": lambda: fitted(AE(**CODE), COUNTS),
    "ae.sparse_rows.gaussian": lambda: fitted(AE(loss="gaussian", **CODE), COUNTS),
    "ae.deep": lambda: fitted(AE(hidden_layer_sizes=(20, 16), **CODE), DIGITS),
    "ae.deep.untied": lambda: fitted(
        AE(hidden_layer_sizes=20, tied_weights=False, activation="tanh", **CODE), DIGITS
    ),
    "ae.untied": lambda: fitted(AE(tied_weights=False, **CODE), WINE),
    "ae.relu": lambda: fitted(AE(activation="relu", **CODE), DIGITS),
    "ae.softplus": lambda: fitted(AE(activation="softplus", **CODE), IRIS),
    "ae.linear": lambda: fitted(AE(activation="linear", loss="squared_error", **CODE), IRIS),
    "ae.weight_decay": lambda: fitted(AE(weight_decay=0.1, **CODE), DIGITS),
    "ae.sparsity.kl": lambda: fitted(AE(sparsity=0.5, sparsity_target=0.1, **CODE), DIGITS),
    "ae.sparsity.l1": lambda: fitted(
        AE(sparsity=0.1, sparsity_penalty="l1", activation="tanh", **CODE), DIGITS
    ),
    "ae.sgd": lambda: fitted(AE(optimizer="sgd", learning_rate=0.1, **CODE), DIGITS),
    "ae.nesterov": lambda: fitted(
        AE(optimizer="nesterov", learning_rate_schedule="linear", **CODE), DIGITS
    ),
    "ae.rmsprop": lambda: fitted(
        AE(optimizer="rmsprop", learning_rate_schedule="cosine", **CODE), DIGITS
    ),
    "ae.adagrad": lambda: fitted(AE(optimizer="adagrad", **CODE), DIGITS),
    "ae.converges": lambda: fitted(
        AE(**{**CODE, "max_iter": 60}, tol=0.05, n_iter_no_change=2, learning_rate=0.05), DIGITS
    ),
    "ae.early_stopping": lambda: fitted(
        AE(early_stopping=True, validation_fraction=0.2, **CODE), DIGITS
    ),
    "ae.warm_start": lambda: fitted_twice(AE(**CODE), DIGITS),
    "ae.partial_fit": lambda: fitted_in_parts(AE(**CODE), DIGITS),
    "ae.fit_then_partial_fit": lambda: fitted_and_continued(AE(**CODE), WINE),
    "ae.sample_weight": lambda: given_weights(AE(**CODE), DIGITS),
    "ae.random_state": lambda: fitted(
        AE(**{**CODE, "random_state": np.random.RandomState(3)}), DIGITS
    ),
    "ae.charts": lambda: code_diagnostics(AE(**CODE), DIGITS),
    # Denoising auto-encoders.
    "dae.masking": lambda: fitted(DAE(**CODE), DIGITS),
    "dae.salt_and_pepper": lambda: fitted(DAE(corruption="salt_and_pepper", **CODE), WINE),
    "dae.gaussian": lambda: fitted(DAE(corruption="gaussian", corruption_level=0.5, **CODE), WINE),
    "dae.emphasis": lambda: fitted(DAE(emphasis=(1.0, 0.2), **CODE), DIGITS),
    "dae.salt_and_pepper.emphasis": lambda: fitted(
        DAE(corruption="salt_and_pepper", emphasis=(2.0, 1.0), **CODE), DIGITS
    ),
    "dae.mixed": lambda: fitted(DAE(loss=MIXED_LOSS, **CODE), MIXED),
    "dae.deep": lambda: fitted(DAE(hidden_layer_sizes=(16,), **CODE), DIGITS),
    "dae.partial_fit": lambda: fitted_in_parts(DAE(**CODE), DIGITS),
    "dae.early_stopping": lambda: fitted(DAE(early_stopping=True, **CODE), DIGITS),
    "dae.all_penalties": lambda: fitted(
        DAE(weight_decay=0.01, sparsity=0.1, contraction=0.1, hessian=0.1, **CODE), DIGITS
    ),
    # Contractive auto-encoders.
    "cae": lambda: fitted(CAE(**CODE), DIGITS),
    "cae.gaussian": lambda: fitted(CAE(contraction=0.5, **CODE), WINE),
    "cae.tanh": lambda: fitted(CAE(activation="tanh", **CODE), DIGITS),
    "cae.relu.untied": lambda: fitted(CAE(activation="relu", tied_weights=False, **CODE), IRIS),
    "cae.deep": lambda: fitted(CAE(hidden_layer_sizes=(16,), **CODE), DIGITS),
    "cae.hessian": lambda: fitted(
        CAE(hessian=0.5, hessian_noise=0.2, hessian_samples=2, **CODE), DIGITS
    ),
    "cae.hessian.deep": lambda: fitted(CAE(hessian=0.5, hidden_layer_sizes=(16,), **CODE), DIGITS),
    "cae.reconstruction": lambda: fitted(CAE(contraction_target="reconstruction", **CODE), DIGITS),
    "cae.reconstruction.untied": lambda: fitted(
        CAE(contraction_target="reconstruction", tied_weights=False, **CODE), WINE
    ),
    "cae.reconstruction.deep": lambda: fitted(
        CAE(contraction_target="reconstruction", hidden_layer_sizes=(16,), **CODE), DIGITS
    ),
    "cae.mixed": lambda: fitted(
        CAE(contraction_target="reconstruction", loss=MIXED_LOSS, **CODE), MIXED
    ),
    "cae.single": lambda: fitted(CAE(hessian=0.1, **CODE), SINGLE),
    "cae.sparse_rows": lambda: fitted(CAE(**CODE), COUNTS),
    "cae.warm_start": lambda: fitted_twice(CAE(**CODE), WINE),
    # Restricted Boltzmann machines.
    "rbm.bernoulli": lambda: boltzmann(RBM(**CODE), BINARY),
    "rbm.gaussian": lambda: boltzmann(RBM(learning_rate=0.01, **CODE), WINE),
    "rbm.gaussian.unit_variance": lambda: fitted(
        RBM(visible_variance="unit", learning_rate=0.01, **CODE), WINE
    ),
    "rbm.cd3": lambda: fitted(RBM(n_gibbs_steps=3, **CODE), DIGITS),
    "rbm.persistent": lambda: fitted(RBM(persistent=True, **CODE), DIGITS),
    "rbm.persistent.gaussian": lambda: fitted(
        RBM(persistent=True, n_gibbs_steps=2, learning_rate=0.01, **CODE), WINE
    ),
    "rbm.not_centered": lambda: fitted(RBM(centered=False, **CODE), DIGITS),
    "rbm.sparsity": lambda: fitted(RBM(sparsity=0.5, sparsity_target=0.1, **CODE), DIGITS),
    "rbm.weight_decay": lambda: fitted(RBM(weight_decay=0.01, **CODE), DIGITS),
    "rbm.scored_columns": lambda: fitted(RBM(n_scored_columns=10, **CODE), DIGITS),
    "rbm.single": lambda: boltzmann(RBM(**CODE), SINGLE),
    "rbm.sparse_rows": lambda: fitted(RBM(**CODE), COUNTS),
    "rbm.early_stopping": lambda: fitted(RBM(early_stopping=True, **CODE), DIGITS),
    "rbm.warm_start": lambda: fitted_twice(RBM(persistent=True, **CODE), DIGITS),
    "rbm.partial_fit": lambda: fitted_in_parts(RBM(**CODE), DIGITS),
    "rbm.partial_fit.persistent": lambda: fitted_in_parts(RBM(persistent=True, **CODE), DIGITS),
    "rbm.sample_weight": lambda: given_weights(RBM(**CODE), DIGITS),
    "rbm.gradients": lambda: gradients(RBM(**{**CODE, "n_components": 6}), BINARY[:, 18:26]),
    # Sparse coding.
    "coder.lasso": lambda: fitted(Coder(alpha=0.5, **CODE), DIGITS),
    "coder.default_atoms": lambda: fitted(Coder(alpha=0.5, **FEW), IRIS),
    "coder.omp": lambda: fitted(
        Coder(transform_algorithm="omp", n_nonzero_coefs=3, **CODE), DIGITS
    ),
    "coder.threshold": lambda: fitted(Coder(transform_algorithm="threshold", **CODE), DIGITS),
    "coder.positive": lambda: fitted(Coder(positive=True, alpha=0.2, **CODE), DIGITS),
    "coder.ridge": lambda: fitted(Coder(ridge=0.1, **CODE), WINE),
    "coder.groups": lambda: fitted(Coder(group_shape=2, map_shape=(3, 4), **CODE), DIGITS),
    "coder.groups.ring": lambda: fitted(Coder(group_shape=3, map_shape=12, **CODE), WINE),
    "coder.dictionary": lambda: fitted(Coder(dictionary=ATOMS, **FEW), DIGITS),
    "coder.dictionary.pca": lambda: fitted(Coder(dictionary=PCA(8), alpha=0.1, **FEW), DIGITS),
    "coder.split_sign": lambda: fitted(Coder(split_sign=True, **CODE), DIGITS),
    "coder.sparse_output": lambda: fitted(Coder(sparse_output=True, **CODE), DIGITS),
    "coder.adam": lambda: fitted(Coder(optimizer="adam", **CODE), DIGITS),
    "coder.squared_error": lambda: fitted(Coder(loss="squared_error", alpha=0.1, **CODE), DIGITS),
    "coder.single": lambda: fitted(Coder(inference_tol=1e-3, **CODE), SINGLE),
    "coder.sparse_rows": lambda: fitted(Coder(**CODE), COUNTS),
    "coder.early_stopping": lambda: fitted(Coder(early_stopping=True, **CODE), DIGITS),
    "coder.warm_start": lambda: fitted_twice(Coder(**CODE), DIGITS),
    "coder.partial_fit": lambda: fitted_in_parts(Coder(**CODE), DIGITS),
    "coder.partial_fit.adam": lambda: fitted_in_parts(Coder(optimizer="adam", **CODE), DIGITS),
    "coder.sample_weight": lambda: given_weights(Coder(**CODE), DIGITS),
    # Predictive sparse decomposition.
    "psd.shrinkage": lambda: fitted(PSD(**CODE), DIGITS),
    "psd.tanh": lambda: fitted(PSD(activation="tanh", **CODE), DIGITS),
    "psd.groups": lambda: fitted(PSD(group_shape=2, **CODE), DIGITS),
    "psd.optimal": lambda: fitted(PSD(inference="optimal", **CODE), DIGITS),
    "psd.optimal.groups": lambda: fitted(
        PSD(inference="optimal", group_shape=2, inference_tol=1e-2, **CODE), WINE
    ),
    "psd.squared_error": lambda: fitted(PSD(loss="squared_error", **CODE), DIGITS),
    "psd.prediction": lambda: fitted(PSD(prediction=1.0, alpha=0.5, **CODE), WINE),
    "psd.single": lambda: fitted(PSD(inference_tol=1e-3, **CODE), SINGLE),
    "psd.early_stopping": lambda: fitted(PSD(early_stopping=True, **CODE), DIGITS),
    "psd.warm_start": lambda: fitted_twice(PSD(**CODE), DIGITS),
    "psd.partial_fit": lambda: fitted_in_parts(PSD(**CODE), DIGITS),
    "psd.sample_weight": lambda: given_weights(PSD(**CODE), DIGITS),
    # Convolutional predictive sparse decomposition.
    "conv.tanh": lambda: fitted(ConvPSD(**FILTERS), DIGITS),
    "conv.shrinkage": lambda: fitted(ConvPSD(activation="shrinkage", **FILTERS), DIGITS),
    "conv.full": lambda: fitted(ConvPSD(padding="full", filter_shape=3, **FILTERS), DIGITS),
    "conv.valid.stride": lambda: fitted(ConvPSD(padding="valid", stride=2, **FILTERS), DIGITS),
    "conv.tiled": lambda: fitted(ConvPSD(sharing="tiled", period=2, **FILTERS), DIGITS),
    "conv.unshared": lambda: fitted(
        ConvPSD(sharing="unshared", filter_shape=(4, 4), stride=4, **FILTERS), DIGITS
    ),
    "conv.optimal": lambda: fitted(ConvPSD(inference="optimal", **FILTERS), DIGITS[:60]),
    "conv.squared_error": lambda: fitted(
        ConvPSD(loss="squared_error", alpha=0.1, **FILTERS), DIGITS
    ),
    "conv.channels": lambda: fitted(
        ConvPSD(**{**FILTERS, "image_shape": (4, 8, 2)}, filter_shape=3), SINGLE
    ),
    "conv.partial_fit": lambda: fitted_in_parts(ConvPSD(**FILTERS), DIGITS),
    "conv.warm_start": lambda: fitted_twice(ConvPSD(**FILTERS), DIGITS),
    # Stacks as transformers.
    "stack.denoising": lambda: fitted(Stack(**STACK), DIGITS),
    "stack.auto": lambda: fitted(Stack(layer="auto", **STACK), WINE),
    "stack.contractive": lambda: fitted(Stack(layer="contractive", **STACK), DIGITS),
    "stack.rbm": lambda: fitted(Stack(layer="rbm", **STACK), DIGITS),
    "stack.psd": lambda: fitted(Stack(layer="psd", **STACK), DIGITS),
    "stack.prototype": lambda: fitted(
        Stack(layer=CAE(activation="tanh", contraction=0.2, **FEW), **STACK), WINE
    ),
    "stack.layers": lambda: fitted(Stack(layers=[RBM(**CODE), DAE(8, **FEW)], **FEW), DIGITS),
    "stack.layers.coder": lambda: fitted(
        Stack(layers=[Coder(alpha=0.5, **CODE), AE(6, **FEW)], **FEW), DIGITS
    ),
    "stack.untrained": lambda: fitted(Stack(pretraining=None, **STACK), DIGITS),
    "stack.simultaneous": lambda: fitted(Stack(pretraining="simultaneous", **STACK), DIGITS),
    "stack.supervised": lambda: fitted(
        Stack(pretraining="supervised", **STACK), DIGITS, DIGIT_CLASSES
    ),
    "stack.supervised.numbers": lambda: fitted(
        Stack(pretraining="supervised", **STACK), DIABETES, DIABETES_TARGETS
    ),
    "stack.partly_supervised": lambda: fitted(
        Stack(pretraining="partly_supervised", supervision=2.0, **STACK), DIGITS, FEW_CLASSES
    ),
    "stack.modes": lambda: fitted(
        Stack(pretraining=["unsupervised", "supervised"], **STACK), DIGITS, DIGIT_CLASSES
    ),
    "stack.prefit": lambda: given_layers(Stack(**FEW), [DAE(**CODE), DAE(8, **FEW)], DIGITS),
    "stack.prefit.fine_tuning": lambda: given_layers(
        Stack(fine_tuning=True, **FEW), [RBM(**CODE), RBM(8, **FEW)], DIGITS
    ),
    "stack.fine_tuning": lambda: fitted(Stack(fine_tuning=True, **STACK), DIGITS),
    "stack.fine_tuning.rbm": lambda: fitted(
        Stack(fine_tuning=True, layer="rbm", code_activation="linear", **STACK), DIGITS
    ),
    "stack.fine_tuning.gaussian": lambda: fitted(
        Stack(fine_tuning=True, early_stopping=True, **STACK), WINE
    ),
    "stack.fine_tuning.untrained": lambda: fitted(
        Stack(fine_tuning=True, pretraining=None, **STACK), DIGITS
    ),
    "stack.code_layer": lambda: fitted(Stack(code_layer=0, **STACK), DIGITS),
    "stack.single": lambda: fitted(Stack(fine_tuning=True, **STACK), SINGLE),
    "stack.sparse_rows": lambda: fitted(Stack(**STACK), COUNTS),
    "stack.sample_weight": lambda: given_weights(Stack(fine_tuning=True, **STACK), DIGITS),
    "stack.warm_start": lambda: fitted_twice(Stack(**STACK), DIGITS),
    "stack.warm_start.fine_tuning": lambda: fitted_twice(Stack(fine_tuning=True, **STACK), DIGITS),
    "stack.partial_fit": lambda: fitted_in_parts(Stack(**STACK), DIGITS),
    "stack.partial_fit.fine_tuning": lambda: fitted_in_parts(
        Stack(fine_tuning=True, **STACK), DIGITS
    ),
    # Deep belief networks.
    "dbn": lambda: fitted(DBN((12, 8), **FEW), BINARY),
    "dbn.gaussian": lambda: fitted(
        DBN(layers=[RBM(learning_rate=0.01, **CODE), RBM(8, **FEW)], random_state=0), WINE
    ),
    "dbn.one_layer": lambda: fitted(DBN((10,), **FEW), BINARY),
    "dbn.prototype": lambda: fitted(DBN((12, 8), layer=RBM(persistent=True, **FEW), **FEW), SINGLE),
    "dbn.prefit": lambda: given_layers(
        DBN(random_state=0, device="cpu"), [RBM(**CODE), RBM(8, **FEW)], BINARY
    ),
    "dbn.partial_fit": lambda: fitted_in_parts(DBN((12, 8), **FEW), BINARY),
    "dbn.warm_start": lambda: fitted_twice(DBN((12, 8), **FEW), BINARY),
    # Stacks as classifiers.
    "classifier": lambda: fitted(Classifier(**STACK), DIGITS, DIGIT_CLASSES),
    "classifier.two_classes": lambda: fitted(Classifier(**STACK), DIGITS, DIGIT_CLASSES > 4),
    "classifier.names": lambda: fitted(Classifier(unlabelled="unknown", **STACK), IRIS, NAMES),
    "classifier.few_labels": lambda: fitted(Classifier(**STACK), DIGITS, FEW_CLASSES),
    "classifier.early_stopping": lambda: fitted(
        Classifier(early_stopping=True, validation_fraction=0.2, **STACK), DIGITS, DIGIT_CLASSES
    ),
    "classifier.dropout": lambda: fitted(
        Classifier(dropout=(0.2, 0.3), **STACK), DIGITS, DIGIT_CLASSES
    ),
    "classifier.unsupervised": lambda: fitted(
        Classifier(unsupervised_weight=0.1, **STACK), DIGITS, FEW_CLASSES
    ),
    "classifier.no_fine_tuning": lambda: fitted(
        Classifier(n_fine_tuned_layers=0, **STACK), DIGITS, DIGIT_CLASSES
    ),
    "classifier.one_fine_tuned": lambda: fitted(
        Classifier(n_fine_tuned_layers=1, **STACK), DIGITS, DIGIT_CLASSES
    ),
    "classifier.one_fine_tuned.dropout": lambda: fitted(
        Classifier(n_fine_tuned_layers=1, dropout=0.2, unsupervised_weight=0.1, **STACK),
        DIGITS,
        FEW_CLASSES,
    ),
    "classifier.two_outputs": lambda: fitted(Classifier(**STACK), DIGITS, TWO_CLASSES),
    "classifier.labels": lambda: fitted(Classifier(**STACK), DIGITS, LABELS),
    "classifier.balanced": lambda: fitted(
        Classifier(class_weight="balanced", **STACK), DIGITS, DIGIT_CLASSES
    ),
    "classifier.class_weight": lambda: fitted(
        Classifier(class_weight={0: 1.0, 1: 3.0, 2: 0.5}, **STACK), WINE, WINE_CLASSES
    ),
    "classifier.sample_weight": lambda: given_weights(Classifier(**STACK), DIGITS, DIGIT_CLASSES),
    "classifier.alpha": lambda: fitted(Classifier(output_penalty=0.1, **STACK), WINE, WINE_CLASSES),
    "classifier.contractive": lambda: fitted(
        Classifier(layer="contractive", **STACK), WINE, WINE_CLASSES
    ),
    "classifier.rbm": lambda: fitted(Classifier(layer="rbm", **STACK), DIGITS, DIGIT_CLASSES),
    "classifier.psd": lambda: fitted(Classifier(layer="psd", **STACK), DIGITS, DIGIT_CLASSES),
    "classifier.coder": lambda: fitted(
        Classifier(layers=[Coder(alpha=0.5, **CODE)], n_fine_tuned_layers=0, **FEW),
        DIGITS,
        DIGIT_CLASSES,
    ),
    "classifier.untrained": lambda: fitted(
        Classifier(pretraining=None, **STACK), DIGITS, DIGIT_CLASSES
    ),
    "classifier.supervised": lambda: fitted(
        Classifier(pretraining="supervised", **STACK), DIGITS, DIGIT_CLASSES
    ),
    "classifier.partly_supervised": lambda: fitted(
        Classifier(pretraining="partly_supervised", **STACK), DIGITS, FEW_CLASSES
    ),
    "classifier.simultaneous": lambda: fitted(
        Classifier(pretraining="simultaneous", **STACK), DIGITS, DIGIT_CLASSES
    ),
    "classifier.prefit": lambda: given_layers(
        Classifier(**FEW), [DAE(**CODE), DAE(8, **FEW)], DIGITS, DIGIT_CLASSES
    ),
    "classifier.single": lambda: fitted(Classifier(**STACK), SINGLE, DIGIT_CLASSES),
    "classifier.sparse_rows": lambda: fitted(Classifier(**STACK), COUNTS, DIGIT_CLASSES),
    "classifier.warm_start": lambda: fitted_twice(Classifier(**STACK), DIGITS, DIGIT_CLASSES),
    "classifier.partial_fit": lambda: fitted_in_parts(
        Classifier(**STACK), DIGITS, DIGIT_CLASSES, classes=np.arange(10)
    ),
    "classifier.fit_then_partial_fit": lambda: fitted_and_continued(
        Classifier(**STACK), DIGITS, DIGIT_CLASSES
    ),
    # Stacks as regressors.
    "regressor": lambda: fitted(Regressor(**STACK), DIABETES, DIABETES_TARGETS),
    "regressor.few_targets": lambda: fitted(
        Regressor(unsupervised_weight=0.1, **STACK), DIABETES, FEW_TARGETS
    ),
    "regressor.two_outputs": lambda: fitted(Regressor(**STACK), DIABETES, TWO_TARGETS),
    "regressor.early_stopping": lambda: fitted(
        Regressor(early_stopping=True, **STACK), DIABETES, DIABETES_TARGETS
    ),
    "regressor.dropout": lambda: fitted(
        Regressor(dropout=(0.1, 0.2), **STACK), DIABETES, DIABETES_TARGETS
    ),
    "regressor.no_fine_tuning": lambda: fitted(
        Regressor(n_fine_tuned_layers=0, **STACK), DIABETES, DIABETES_TARGETS
    ),
    "regressor.one_fine_tuned": lambda: fitted(
        Regressor(n_fine_tuned_layers=1, **STACK), DIABETES, DIABETES_TARGETS
    ),
    "regressor.supervised": lambda: fitted(
        Regressor(pretraining="supervised", **STACK), DIABETES, DIABETES_TARGETS
    ),
    "regressor.sample_weight": lambda: given_weights(
        Regressor(**STACK), DIABETES, DIABETES_TARGETS
    ),
    "regressor.single": lambda: fitted(
        Regressor(**STACK), DIABETES.astype(np.float32), DIABETES_TARGETS
    ),
    "regressor.warm_start": lambda: fitted_twice(Regressor(**STACK), DIABETES, DIABETES_TARGETS),
    "regressor.partial_fit": lambda: fitted_in_parts(
        Regressor(**STACK), DIABETES, DIABETES_TARGETS
    ),
    # Tangents.
    "mtc.encoder": lambda: fitted(Tangent(**MTC), DIGITS, FEW_CLASSES),
    "mtc.all_labels": lambda: fitted(Tangent(n_tangents=4, **MTC), DIGITS, DIGIT_CLASSES),
    "mtc.local_pca": lambda: fitted(
        Tangent(tangent_source=("local_pca", 10), n_tangents=3, **MTC),
        DIGITS,
        FEW_CLASSES,
    ),
    "mtc.function": lambda: fitted(Tangent(tangent_source=axes, **MTC), DIGITS, FEW_CLASSES),
    "mtc.hessian": lambda: fitted(
        Tangent(
            **MTC
            | {
                "layers": [
                    contractive(n_components=n, contraction=0.1, hessian=0.1) for n in (16, 12)
                ]
            }
        ),
        DIGITS,
        FEW_CLASSES,
    ),
    "mtc.supervised_penalty": lambda: fitted(
        Tangent(
            tangent_penalty=0.5,
            unlabelled_penalty=0.0,
            entropy_penalty=0.0,
            **MTC,
        ),
        DIGITS,
        FEW_CLASSES,
    ),
    "mtc.one_fine_tuned": lambda: fitted(
        Tangent(n_fine_tuned_layers=1, **MTC), DIGITS, FEW_CLASSES
    ),
    "mtc.no_fine_tuning": lambda: fitted(
        Tangent(n_fine_tuned_layers=0, **MTC), DIGITS, FEW_CLASSES
    ),
    "mtc.options": lambda: fitted(Tangent(dropout=0.1, **MTC), DIGITS, FEW_CLASSES),
    "mtc.early_stopping": lambda: fitted(
        Tangent(early_stopping=True, tangent_source="local_pca", **MTC), DIGITS, FEW_CLASSES
    ),
    "mtc.prototype": lambda: fitted(
        Tangent((16, 12), layer=DAE(**FEW), **FEW | {"batch_size": 50}), WINE, WINE_CLASSES
    ),
    "mtc.single": lambda: fitted(Tangent(**MTC), SINGLE, FEW_CLASSES),
    "mtc.sample_weight": lambda: given_weights(Tangent(**MTC), DIGITS, FEW_CLASSES),
    "distance.one": lambda: fitted(Distance(3, device="cpu"), DIGITS, FEW_CLASSES),
    "distance.two": lambda: fitted(
        Distance(3, sides="two", n_candidates=10, n_tangents=4, device="cpu"), DIGITS, FEW_CLASSES
    ),
    "distance.uniform": lambda: fitted(
        Distance(weights="uniform", tangent_source=("local_pca", 8), device="cpu"),
        WINE,
        WINE_CLASSES,
    ),
    "distance.plain": lambda: fitted(Distance(n_tangents=0, device="cpu"), IRIS, NAMES),
    "distance.encoder": lambda: fitted(
        Distance(tangent_source=CAE(**CODE), device="cpu"), DIGITS, FEW_CLASSES
    ),
    "distance.function": lambda: fitted(
        Distance(tangent_source=axes, device="cpu"), DIGITS, FEW_CLASSES
    ),
    "distance.single": lambda: fitted(Distance(device="cpu"), SINGLE, DIGIT_CLASSES),
    # Images.
    "whitener.rows": lambda: fitted(skae.PatchWhitener(device="cpu"), DIGITS),
    "whitener.pca": lambda: fitted(
        skae.PatchWhitener(method="pca", contrast=False, epsilon=0.01, device="cpu"), DIGITS
    ),
    "whitener.patches": lambda: fitted(
        skae.PatchWhitener(patch_shape=(3, 3), device="cpu", **PATCHES), DIGITS
    ),
    "whitener.single": lambda: fitted(skae.PatchWhitener(device="cpu"), SINGLE),
    "features.default": lambda: fitted(Features(DAE(**CODE), **PATCHES), DIGITS),
    "features.own_encoder": lambda: fitted(Features(patch_shape=4, **PATCHES), DIGITS),
    "features.max": lambda: fitted(
        Features(PSD(**CODE), patch_shape=4, stride=2, pooling="max", whitening=False, **PATCHES),
        DIGITS,
    ),
    "features.maps": lambda: fitted(
        Features(Coder(alpha=0.5, **CODE), patch_shape=4, pooling_grid=None, **PATCHES), SINGLE
    ),
    "features.sum": lambda: fitted(
        Features(RBM(**CODE), whitening=skae.PatchWhitener(epsilon=0.5), pooling="sum", **PATCHES),
        DIGITS,
    ),
    "rectifier.abs": lambda: fitted(skae.Rectifier(**IMAGE), DIGITS - 0.5),
    "rectifier.threshold": lambda: [
        fitted(skae.Rectifier(kind, threshold=0.2, **IMAGE), DIGITS - 0.5)
        for kind in ("relu", "split")
    ],
    "pooling": lambda: {
        kind: fitted(skae.Pooling(kind=kind, **IMAGE), DIGITS)
        for kind in ("average", "max", "sum", "l2")
    },
    "pooling.stride": lambda: fitted(skae.Pooling(size=3, stride=2, **IMAGE), SINGLE),
    "pooling.grid": lambda: fitted(skae.Pooling(grid=(2, 3), **IMAGE), DIGITS),
    "contrast": lambda: fitted(skae.LocalContrastNormalizer(size=5, **IMAGE), DIGITS),
    "contrast.sigma": lambda: fitted(
        skae.LocalContrastNormalizer(size=3, sigma=2.0, **IMAGE), SINGLE
    ),
    # Tables.
    "tables.auto_encoder": lambda: fitted_and_continued(DAE(**CODE), TABLE),
    "tables.rbm": lambda: fitted(RBM(**CODE), TABLE.dropna()),
    "tables.stack": lambda: fitted(Stack(fine_tuning=True, **STACK), TABLE),
    "tables.simultaneous": lambda: fitted(Stack(pretraining="simultaneous", **STACK), TABLE),
    "tables.features": lambda: fitted_and_continued(
        skae.TableFeatures(12, hidden_layer_sizes=16, **FEW), TABLE
    ),
    "tables.features_of_numbers": lambda: fitted(skae.TableFeatures(**FEW), WINE),
    "tables.imputer": lambda: fitted(skae.DenoisingImputer(n_estimators=2, random_state=0), TABLE),
    "tables.outliers": lambda: fitted(skae.OutlierDetector(random_state=0), TABLE),
    "tables.outliers_of_numbers": lambda: fitted(
        skae.OutlierDetector(CAE(**CODE), random_state=0), WINE
    ),
    "tables.classifier": lambda: fitted(
        skae.StackedClassifier(random_state=0, device="cpu"), TABLE, TABLE_CLASSES
    ),
    "tables.kernel": lambda: fitted(
        skae.StackedClassifier(output="kernel", **STACK), WINE, WINE_CLASSES
    ),
    "tables.several_outputs": lambda: fitted(
        skae.StackedClassifier(output="kernel", **STACK), DIGITS, TWO_CLASSES
    ),
    "tables.regressor": lambda: fitted_twice(
        skae.StackedRegressor(**STACK), DIABETES, DIABETES_TARGETS
    ),
    "tables.tuned": lambda: fitted_twice(
        skae.StackedClassifier(output="linear", **STACK), TABLE, TABLE_CLASSES
    ),
    "tables.parts": lambda: fitted_in_parts(
        skae.StackedClassifier(**STACK), TABLE, TABLE_CLASSES, classes=[False, True]
    ),
    "tables.tangents": lambda: fitted(
        Tangent((12, 8), output="linear", **FEW), TABLE, TABLE_CLASSES
    ),
    # Without models.
    "diagnostics": local_diagnostics,
}


def flattened(name, value):
    """Everything in a result as arrays of numbers or strings.

    Parameters
    ----------
    name : str
    value : object
        Of numbers, strings, arrays, matrices, and dicts, lists and tuples of these.

    Returns
    -------
    arrays : dict of str to ndarray
    """
    if sparse.issparse(value):
        return {f"{name}.csr": value.toarray()}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, dict):
        parts = value.items()
    elif isinstance(value, list | tuple) and not _is_row(value):
        parts = enumerate(value)
    else:
        array = np.asarray("None" if value is None else value)
        if array.dtype == object:
            array = array.astype(str)
        return {name: array}
    arrays = {}
    for part, inner in parts:
        arrays.update(flattened(f"{name}/{part}", inner))
    return arrays


def _is_row(values):
    return all(isinstance(value, bool | int | float | str | np.generic) for value in values)


def run(pattern=""):
    """Fit all cases.

    Parameters
    ----------
    pattern : str
        What is in the names of the cases to fit.

    Returns
    -------
    arrays : dict of str to ndarray
    errors : dict of str to str
        What was raised, by the case.
    """
    arrays, errors = {}, {}
    for name, case in CASES.items():
        if pattern not in name:
            continue
        start = time.perf_counter()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                arrays.update(flattened(name, case()))
            except Exception:
                errors[name] = traceback.format_exc(limit=-3)
                continue
        kinds = sorted({warning.category.__name__ for warning in caught})
        arrays[f"{name}/warnings"] = np.array(" ".join(kinds))
        took = time.perf_counter() - start
        if took > 2:
            print(f"{name} took {took:.1f} s")
    return arrays, errors


def difference(old, new):
    """The largest absolute difference as a part of the largest absolute old value.

    Parameters
    ----------
    old, new : ndarray

    Returns
    -------
    difference : float
        0 where both are the same, infinite where they cannot be compared.
    """
    if old.shape != new.shape or old.dtype.kind != new.dtype.kind:
        return np.inf
    if old.dtype.kind not in "biufc":
        return 0.0 if np.array_equal(old, new) else np.inf
    if old.dtype != new.dtype:
        return np.inf
    old, new = old.astype(float), new.astype(float)
    same = (old == new) | (np.isnan(old) & np.isnan(new))
    if same.all():
        return 0.0
    apart = np.abs(new - old)[~same].max()
    scale = np.abs(old[np.isfinite(old)]).max(initial=0.0)
    return float(apart / scale) if np.isfinite(apart) and scale > 0 else np.inf


def _record(path):
    arrays, errors = run()
    np.savez_compressed(path, **arrays)
    print(f"{len(CASES) - len(errors)} cases, {len(arrays)} arrays in {path}")
    refused = collections.defaultdict(list)
    for name, array in arrays.items():
        if array.ndim == 0 and str(array).startswith("raises"):
            case, _, method = name.partition("/")
            refused[f"{method} {array}"].append(case)
    for what, cases in refused.items():
        print(f"  {what}: {', '.join(cases)}")
    return errors


def _compare(path, rtol, pattern, quiet):
    with np.load(path) as file:
        recorded = {name: file[name] for name in file if pattern in name.split("/")[0]}
    found, errors = run(pattern)
    differences = {}
    for name in [*recorded, *(name for name in found if name not in recorded)]:
        if name.split("/")[0] in errors:
            continue
        both = name in recorded and name in found
        differences[name] = difference(recorded[name], found[name]) if both else np.inf
        if not quiet:
            print(f"{differences[name]:8.1e} {name}")
    over = {name: value for name, value in differences.items() if value > rtol}
    n_equal = sum(value == 0 for value in differences.values())
    print(
        f"\n{len(differences)} compared, {n_equal} exactly equal, {len(over)} over {rtol:g}, "
        f"the largest {max(differences.values(), default=0.0):.1e}"
    )
    for name, value in over.items():
        print(f"  {value:.1e} {name} {_explained(recorded.get(name), found.get(name))}")
    return errors, over


def _explained(old, new):
    if old is None or new is None:
        return "is new" if old is None else "is missing"
    if old.shape != new.shape or old.dtype != new.dtype:
        return f"was {old.dtype} of shape {old.shape}, is {new.dtype} of shape {new.shape}"
    return f"was {old}, is {new}" if old.ndim == 0 else ""


def main():
    """Record or compare, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("task", choices=["record", "compare"])
    parser.add_argument("file")
    parser.add_argument("--rtol", type=float, default=1e-6, help="the largest difference allowed")
    parser.add_argument("--only", default="", help="a part of the names of cases to compare")
    parser.add_argument("--quiet", action="store_true", help="print what is over it alone")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"skae of {skae.__file__}, torch {torch.__version__}, numpy {np.__version__}")
    start, over = time.perf_counter(), {}
    if arguments.task == "record":
        errors = _record(arguments.file)
    else:
        errors, over = _compare(arguments.file, arguments.rtol, arguments.only, arguments.quiet)
    for name, message in errors.items():
        print(f"\n{name} raised\n{message}")
    print(f"{len(errors)} cases raised; took {time.perf_counter() - start:.0f} s")
    return 1 if errors or over else 0


if __name__ == "__main__":
    sys.exit(main())
