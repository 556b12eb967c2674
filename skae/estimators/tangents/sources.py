"""Where the tangents at rows of data come from: an encoder, the rows nearby, or the user.

A source has ``n_tangents`` and ``directions(X)``: directions in the units of the data at checked
rows, of shape (n_samples, n_tangents, n_features), and zero where there is none.

Which source of tangents a user chose: checked before any work, then learned from the rows.
"""

import numpy as np
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator

from skae._validation import check_is_fitted
from skae.diagnostics import local_pca_tangents, tangent_defects
from skae.diagnostics.jacobians import map_jacobians, map_parts
from skae.diagnostics.tangent_planes import leading_directions
from skae.engine.networks.singular_vectors import leading_singular_vectors
from skae.estimators.face.columns import describe_columns
from skae.estimators.face.outcomes import CollapsedCodeWarning, some_rows, warn

# "auto": the part of the Jacobian's squared norm that the tangents hold, found on so many rows
# among the leading singular values: few, or where these do not hold it so many, on fewer rows.
_SHARE, _ROWS, _FEW, _MOST, _FEWER_ROWS = 0.75, 200, 20, 100, 50
# "auto" for local PCA, whose spectrum does not fall where the manifold ends.
_LOCAL_PCA = 10
# The part of the rows from which on a defect is reported.
_MANY = 0.5
# A row's response, as a fraction of that of others, which is none.
_NOTHING = 1e-5


class EncoderTangents:
    """Leading right singular vectors of an encoder's Jacobian.

    Parameters
    ----------
    encoder : estimator
        Fitted.
    n_tangents : int or "auto"
    X : {ndarray, CSR matrix} of shape (n_samples, n_features)
        Checked rows, some of which decide on "auto" and tell whether the encoder has collapsed.
    """

    def __init__(self, encoder, n_tangents, X):
        self.encoder = encoder
        most = min(X.shape[1], encoder._n_features_out)
        if n_tangents == "auto":
            values, n_tangents = _sufficient_values(encoder, X, most)
            n_tangents = min(n_tangents, X.shape[1] // 2)
        else:
            rows = some_rows(X, None, _ROWS)
            _, values = leading_directions(encoder, rows, min(most, n_tangents + 1))
        self.n_tangents, self.scale = n_tangents, float(values.max())
        self._report(values, most)

    def directions(self, X):
        """Directions at checked rows; zero where the code does not respond."""
        found, values = leading_directions(self.encoder, X, self.n_tangents)
        found[values <= _NOTHING * self.scale] = 0
        return found

    def _report(self, values, most):
        """Warn of an encoder that responds to nothing, or to all directions alike."""
        defects = tangent_defects(values)
        name = type(self.encoder).__name__
        if defects.zero.mean() >= _MANY or self.scale == 0:
            warn(
                f"The code of the {name} does not respond to its input at "
                f"{defects.zero.mean():.0%} of the rows: it has collapsed there, and they have no "
                "tangents. Use a weaker contraction, a smaller learning rate of the layers or "
                "more epochs, or tangent_source='local_pca'.",
                CollapsedCodeWarning,
            )
        elif values.shape[1] == most > 1 and defects.flat.mean() >= _MANY:
            warn(
                f"The code of the {name} responds to all directions alike at "
                f"{defects.flat.mean():.0%} of the rows, so its leading directions are no "
                "tangents. Use a stronger contraction, more epochs, or "
                "tangent_source='local_pca'.",
                CollapsedCodeWarning,
            )


class LocalTangents:
    """Principal directions of each row's neighbours, in standardised columns.

    Parameters
    ----------
    columns : Columns
        Of the data.
    n_tangents : int or "auto"
    n_neighbors : int
    X : ndarray of shape (n_samples, n_features)
        Checked rows among which neighbours are found.
    """

    def __init__(self, columns, n_tangents, n_neighbors, X):
        self.columns, self.n_neighbors = columns, n_neighbors
        self.rows = self._standardized(X)
        if n_tangents == "auto":
            n_tangents = min(_LOCAL_PCA, X.shape[1] // 2, n_neighbors - 1)
        self.n_tangents = n_tangents

    def directions(self, X):
        """Directions at checked rows; zero where neighbours are one and the same row."""
        found, values = local_pca_tangents(
            self.rows,
            self.n_tangents,
            n_neighbors=min(self.n_neighbors, len(self.rows)),
            query=self._standardized(X),
        )
        found[values <= 0] = 0
        return found * self.columns.scale.astype(found.dtype) if self._scales else found

    @property
    def _scales(self):
        return self.columns.is_standardized

    def _standardized(self, X):
        X = X.toarray() if sparse.issparse(X) else X
        if not self._scales:
            return X
        shift, scale = (a.astype(X.dtype) for a in (self.columns.shift, self.columns.scale))
        return (X - shift) / scale


class GivenTangents:
    """Directions that the user knows.

    Parameters
    ----------
    function : callable
        X -> directions of shape (n_samples, n_tangents, n_features).
    n_tangents : int or "auto"
        So many of them, from the first.
    X : ndarray of shape (n_samples, n_features)
        Checked rows, with which the function is tried.
    """

    def __init__(self, function, n_tangents, X):
        self.function = function
        n_given = self._given(X[:2]).shape[1]
        if n_tangents != "auto" and n_tangents > n_given:
            raise ValueError(
                f"n_tangents={n_tangents}, but tangent_source returns {n_given} directions for "
                "each row. Use n_tangents='auto' for all of them."
            )
        self.n_tangents = n_given if n_tangents == "auto" else n_tangents

    def directions(self, X):
        """The first ``n_tangents`` directions at checked rows."""
        return self._given(X)[:, : self.n_tangents]

    def _given(self, X):
        dense = X.toarray() if sparse.issparse(X) else X
        found = np.asarray(self.function(dense))
        if found.ndim != 3 or found.shape[::2] != dense.shape or found.dtype.kind not in "fiu":
            raise ValueError(
                f"tangent_source returned an array of shape {found.shape} and dtype {found.dtype} "
                f"for {dense.shape[0]} rows, but numbers of shape ({dense.shape[0]}, n_tangents, "
                f"{dense.shape[1]}) are needed."
            )
        if not np.isfinite(found).all():
            raise ValueError("tangent_source returned NaN or infinity for some rows.")
        return found.astype(dense.dtype if dense.dtype.kind == "f" else np.float32, copy=False)


def _sufficient_values(encoder, X, most):
    """Leading singular values at some rows, and how many hold the share in the median one."""
    # All take much longer. Few would never hold the share of a flat spectrum so wide.
    tries = [(_FEW, _ROWS), (_MOST, _FEWER_ROWS)] if most * _SHARE > _FEW else [(_MOST, _ROWS)]
    for n_values, n_rows in tries:
        n_values = min(n_values, most)
        values, squared_norms = _leading_values(encoder, some_rows(X, None, n_rows), n_values)
        held = np.cumsum(values**2, axis=1) < _SHARE * squared_norms[:, None]
        needed = int(np.median(held.sum(1))) + 1
        if needed <= n_values:
            break
    return values, min(needed, n_values)


def _leading_values(encoder, X, n_values):
    """Leading singular values of the Jacobian at checked rows, and its squared norm."""

    def found(jacobian, rows):
        values = leading_singular_vectors(jacobian, n_values).values
        squared_norm = map_parts(jacobian, lambda part: part.squared_norm())
        return torch.cat([values, squared_norm.unsqueeze(1)], dim=1)

    both = map_jacobians(encoder, X, found, (n_values + 1,), "encoder")
    return both[:, :-1], both[:, -1]


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
