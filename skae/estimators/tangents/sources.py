"""Where the tangents at rows of data come from: an encoder, the rows nearby, or the user.

A source has ``n_tangents`` and ``directions(X)``: directions in the units of the data at checked
rows, of shape (n_samples, n_tangents, n_features), and zero where there is none. `check_source`
refuses a choice of the user before any work, and `learned_source` makes a source of it.
"""

from collections.abc import Callable
from numbers import Integral
from typing import Any

import numpy as np
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator

from skae._validation import HasMethods, StrOptions, check_is_fitted, column_names
from skae._warnings import warn
from skae.diagnostics import local_pca_tangents, tangent_defects
from skae.diagnostics.jacobians import map_jacobians, map_parts
from skae.diagnostics.tangent_planes import leading_directions
from skae.engine.networks.singular_vectors import leading_singular_vectors
from skae.engine.optimisation.devices import Place
from skae.engine.optimisation.rows import fits_float32
from skae.estimators.face.columns import require_same_columns
from skae.estimators.face.outcomes import CollapsedCodeWarning, some_rows
from skae.estimators.face.parameters import check_function
from skae.estimators.face.transformer import Transformer, as_if_fitted

# What `tangent_source` may be, where there is no encoder of the model's own.
SourceChoice = str | tuple[str, int] | Transformer | Callable
SOURCES = [StrOptions({"local_pca"}), tuple, HasMethods(["fit", "transform"]), callable]

# "auto": the part of the Jacobian's squared norm that the tangents hold, found on so many rows
# among the leading singular values: few, or where these do not hold it so many, on fewer rows.
_SHARE, _ROWS, _FEW, _MOST, _FEWER_ROWS = 0.75, 200, 20, 100, 50
# "auto" for local PCA, whose spectrum does not fall where the manifold ends.
_LOCAL_PCA = 10
# The part of the rows from which on a defect is reported.
_MANY = 0.5
# A row's response, as a fraction of that of others, which is none.
_NOTHING = 1e-5
# Neighbours of each row in local PCA, for classifiers that are trained.
N_NEIGHBORS = 30
_ANYWHERE = Place(torch.float32, torch.device("cpu"))


class EncoderTangents:
    """Leading right singular vectors of a fitted encoder's Jacobian.

    Some of the checked rows X decide on ``n_tangents="auto"`` and tell whether it has collapsed.
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
    """Principal directions of each row's neighbours among checked rows X.

    The columns, those of the data, say how these are standardised.
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
        return (
            found * self.columns.scale.astype(found.dtype)
            if self.columns.is_standardized
            else found
        )

    def _standardized(self, X):
        X = _as_floats(X)
        if self.columns.is_standardized:
            # In float64: what varies may be small beside the shift.
            X = ((X - self.columns.shift) / self.columns.scale).astype(X.dtype)
        if (gaps := np.isnan(X)).any():
            X = np.where(gaps, self.columns.fill.astype(X.dtype), X)
        return X


class GivenTangents:
    """Directions that the user knows: the first ``n_tangents`` of those of a function of X.

    The function is tried with the first of some checked rows.
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
        dense = _as_floats(X)
        found = np.asarray(self.function(dense))
        if found.ndim != 3 or found.shape[::2] != dense.shape or found.dtype.kind not in "fiu":
            raise ValueError(
                f"tangent_source returned an array of shape {found.shape} and dtype {found.dtype} "
                f"for {dense.shape[0]} rows, but numbers of shape ({dense.shape[0]}, n_tangents, "
                f"{dense.shape[1]}) are needed."
            )
        if not np.isfinite(found).all():
            raise ValueError("tangent_source returned NaN or infinity for some rows.")
        return found.astype(dense.dtype, copy=False)


def _as_floats(X):
    """Checked rows as a dense array, in float32 where that holds all of their numbers."""
    X = X.toarray() if sparse.issparse(X) else X
    return X.astype(np.float32 if fits_float32(X.dtype) else np.float64, copy=False)


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


def n_neighbors_of(choice: SourceChoice, default: int) -> int | None:
    """Neighbours of each row in local PCA; None where tangents come from elsewhere."""
    if isinstance(choice, str) and choice == "local_pca":
        return default
    return choice[1] if isinstance(choice, tuple) else None


def check_source(
    choice: SourceChoice, n_tangents: int | str, X, n_neighbors: int, names=None
) -> None:
    """Raise a ValueError, before any work, for a choice that can give no such tangents at rows.

    ``n_neighbors`` is of local PCA where the choice does not say; ``names`` are of the columns.
    """
    if isinstance(choice, tuple):
        kind, number = choice if len(choice) == 2 else (None, None)
        is_number = isinstance(number, Integral) and not isinstance(number, bool)
        if kind != "local_pca" or not is_number or number < 2:
            raise ValueError(
                f"tangent_source={choice!r}: a tuple must be ('local_pca', n_neighbors), with an "
                "integer of at least 2."
            )
    n_neighbors = n_neighbors_of(choice, n_neighbors)
    if n_neighbors is not None:
        _check_neighbourhood(n_tangents, n_neighbors, *X.shape)
    elif hasattr(choice, "fit"):
        _check_encoder(choice, n_tangents, X, names)
    else:
        tangents = "tangents of rows, an array of shape (len(X), n_tangents, n_features)"
        check_function("tangent_source", choice, ("X",), tangents)
        GivenTangents(choice, n_tangents, X)


def learned_source(choice: SourceChoice, n_tangents: int | str, X, n_neighbors: int, columns):
    """The source of tangents at any rows; arguments are those of `check_source`.

    An estimator is cloned and fitted to the data unless it is frozen. Local PCA finds neighbours
    in the units of the ``columns``.
    """
    n_neighbors = n_neighbors_of(choice, n_neighbors)
    if n_neighbors is not None:
        return LocalTangents(columns, n_tangents, n_neighbors, X)
    if not hasattr(choice, "fit"):
        return GivenTangents(choice, n_tangents, X)
    given: Any = choice
    encoder = given.estimator if isinstance(given, FrozenEstimator) else clone(given).fit(X)
    _check_code(encoder, encoder._model(_ANYWHERE), n_tangents)
    return EncoderTangents(encoder, n_tangents, X)


def is_of_choice(source, choice: SourceChoice | str, n_tangents: int | str, encoder) -> bool:
    """Whether a source is what a choice asks for, "encoder" being the given one."""
    if n_tangents not in ("auto", source.n_tangents):
        return False
    if isinstance(source, LocalTangents):
        return n_neighbors_of(choice, N_NEIGHBORS) == source.n_neighbors
    if isinstance(source, GivenTangents):
        return source.function is choice
    if isinstance(choice, str):
        return choice == "encoder" and source.encoder is encoder
    return isinstance(source.encoder, type(getattr(choice, "estimator", choice)))


def _check_neighbourhood(n_tangents, n_neighbors, n_samples, n_features):
    found = min(n_neighbors, n_samples)
    spanned = min(found - 1, n_features)
    if n_tangents != "auto" and n_tangents > spanned:
        raise ValueError(
            f"n_tangents={n_tangents}, but {found} neighbours of {n_features} columns span "
            f"{spanned} directions at most (n_samples={n_samples}). Use fewer tangents, "
            "n_tangents='auto', more rows or more neighbours: tangent_source=('local_pca', "
            f"{n_tangents + 1})."
        )


def _check_encoder(choice, n_tangents, X, names):
    encoder = choice.estimator if isinstance(choice, FrozenEstimator) else choice
    if not isinstance(encoder, Transformer):
        raise ValueError(
            f"tangent_source={choice!r} has no Jacobian that is known here. Use an auto-encoder, "
            "an RBM or a stack of them, 'local_pca', or a function of X."
        )
    if encoder is not choice:
        try:
            check_is_fitted(encoder)
        except NotFittedError as error:
            raise ValueError(
                f"tangent_source is a frozen {type(encoder).__name__} that is not fitted. Fit it "
                "first, or pass it as it is: a clone of it is fitted then."
            ) from error
        require_same_columns("tangent_source", column_names(encoder), names)
        n_columns = len(encoder.columns_.mean)
        if n_columns != X.shape[1]:
            raise ValueError(
                f"tangent_source was fitted on {n_columns} features, but X has "
                f"{X.shape[1]}. Fit it on data like X."
            )
        _check_code(encoder, encoder._model(_ANYWHERE), n_tangents)
    elif not hasattr(encoder, "layers"):
        # A stack knows its code once it is fitted.
        rows = some_rows(X, None, _ROWS)
        _check_code(encoder, as_if_fitted(encoder, rows, rows)._model(_ANYWHERE), n_tangents)


def _check_code(encoder, model, n_tangents):
    if model.no_gradient is not None:
        raise ValueError(
            f"The code of tangent_source={encoder!r} has no Jacobian: {model.no_gradient}. Use "
            "another encoder."
        )
    if n_tangents != "auto" and n_tangents > model.n_codes:
        raise ValueError(
            f"n_tangents={n_tangents}, but the code of {type(encoder).__name__} has "
            f"{model.n_codes} units. Use fewer tangents, or more units."
        )
