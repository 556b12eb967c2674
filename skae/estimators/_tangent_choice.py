"""Which source of tangents a user chose: checked before any work, then learned from the rows."""

import numpy as np
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator

from skae._validation import check_is_fitted
from skae.estimators._columns import describe_columns
from skae.estimators._tangent_sources import EncoderTangents, GivenTangents, LocalTangents


def learned_source(choice, n_tangents, most, n_neighbors, data):
    """The source of tangents at any rows, or None for no tangents.

    Parameters
    ----------
    choice : "local_pca", estimator or callable
        An estimator is cloned and fitted to the data unless it is frozen.
    n_tangents : int or "auto"
    most : int
        How many may be learned; the user may know of more.
    n_neighbors : int
        Of local PCA.
    data : {ndarray, CSR matrix} of shape (n_samples, n_features)
        Checked rows.

    Raises
    ------
    ValueError
        If so many directions cannot be learned, or none, or a function returns something else.
    """
    if isinstance(choice, type):
        raise ValueError(f"tangent_source={choice!r} is a class: pass an instance of it.")
    if n_tangents == 0:
        return None
    if not isinstance(choice, str) and not hasattr(choice, "fit"):
        return GivenTangents(choice, n_tangents, data[:2].astype(np.float64))
    _check_n_tangents(n_tangents, most, data)
    if hasattr(choice, "fit"):
        source = EncoderTangents(_fitted_encoder(choice, n_tangents, data), n_tangents, data)
    else:
        _check_neighbourhood(n_tangents, n_neighbors, data.shape[0])
        # In the units of the data.
        columns = describe_columns(data, "squared_error", None, data, None)
        source = LocalTangents(columns, n_tangents, n_neighbors, data)
    if n_tangents == "auto":
        source.n_tangents = min(source.n_tangents, most, data.shape[0] - 1)
    return source if source.n_tangents > 0 else None


def _check_n_tangents(n_tangents, most, data):
    if n_tangents != "auto" and n_tangents > most:
        raise ValueError(
            f"n_tangents={n_tangents}, but in a space of n_features={data.shape[1]} planes of more "
            f"than {most} dimensions meet, so that all distances would be 0. Use fewer tangents, "
            "or sides='one'."
        )


def _check_neighbourhood(n_tangents, n_neighbors, n_samples):
    found = min(n_neighbors, n_samples)
    if n_tangents != "auto" and n_tangents >= found:
        raise ValueError(
            f"n_tangents={n_tangents}, but {found} neighbours span {found - 1} directions at most "
            f"(local_pca_neighbors={n_neighbors}, n_samples={n_samples}). Use fewer tangents, more "
            "neighbours or more rows."
        )


def _fitted_encoder(choice, n_tangents, data):
    frozen = isinstance(choice, FrozenEstimator)
    encoder = choice.estimator if frozen else clone(choice)
    if not hasattr(encoder, "_jacobian"):
        raise ValueError(
            f"tangent_source={choice!r} has no Jacobian that is known here. Use an auto-encoder, "
            "an RBM or a stack of them, 'local_pca', or a function of X."
        )
    if frozen:
        _check_frozen(encoder, data.shape[1])
    _check_code(encoder, n_tangents)
    if not frozen:
        encoder.fit(data)
        _check_code(encoder, n_tangents)
    return encoder


def _check_frozen(encoder, n_features):
    try:
        check_is_fitted(encoder)
    except NotFittedError as error:
        raise ValueError(
            f"tangent_source is a frozen {type(encoder).__name__} that is not fitted. Fit it "
            "first, or pass it as it is: a clone of it is fitted then."
        ) from error
    if encoder.n_features_in_ != n_features:
        raise ValueError(
            f"tangent_source was fitted on {encoder.n_features_in_} features, but X has "
            f"{n_features}. Fit it on data like X."
        )


def _check_code(encoder, n_tangents):
    # A stack knows its units and what hinders them once it is fitted.
    hindrance = getattr(encoder, "_hindered_gradient", None)
    n_units = getattr(encoder, "_n_features_out", None)
    if hindrance is not None:
        raise ValueError(
            f"The code of tangent_source={encoder!r} has no Jacobian: {hindrance}. Use another "
            "encoder."
        )
    if n_units is not None and n_tangents != "auto" and n_tangents > n_units:
        raise ValueError(
            f"n_tangents={n_tangents}, but the code of {type(encoder).__name__} has {n_units} "
            "units. Use fewer tangents, or more units."
        )
