"""What the models of sparse codes share: parameters of the inference, penalty, columns."""

import math
from collections.abc import Sequence
from numbers import Integral, Real

import numpy as np
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils import check_array

from skae._validation import Interval, as_array, check_is_fitted, check_rows, column_names
from skae._warnings import warn
from skae.engine.optimisation.devices import place_of
from skae.engine.sparse.groups import GroupL2, map_groups
from skae.engine.sparse.problem import (
    L1,
    OperatorQuadratic,
    Quadratic,
    infer,
    is_solved,
    largest_useful_alpha,
)
from skae.estimators.face.columns import describe_columns, require_same_columns
from skae.estimators.face.outcomes import report_unsolved
from skae.estimators.face.parameters import estimator, parameter

# What codes minimise is a squared error: of columns that are standardised, or as they are.
LOSSES = {"auto", "gaussian", "squared_error"}
# Where an estimator keeps vectors that add up to its input, first choice first.
_ATTRIBUTES = ("decoder_components_", "mixing_", "components_", "cluster_centers_")
# Cosine from which on two atoms count as one.
_SAME = 1 - 1e-6


@estimator
class SparseInference:
    """Parameters of the sparsity penalty and of `skae.engine.sparse.problem.infer`."""

    alpha: float = parameter(
        default=1.0,
        constraints=[Interval(Real, 0, None, closed="neither")],
        doc="""Weight of the sparsity penalty: an atom is used where it explains more than this. In
        the units of the columns (as standardised), for atoms of norm 1.""",
    )
    group_shape: int | Sequence[int] | None = parameter(
        default=None,
        constraints=[Interval(Integral, 1, None, closed="left"), "array-like", None],
        kind="int, tuple of int or None",
        doc="""Units of a neighbourhood along each axis of the map; one number holds for all axes.
        The penalty is then the sum, over the neighbourhoods around each unit on a map without
        borders, of the norms of the codes in them. None: the sum of absolute codes.""",
    )
    map_shape: int | Sequence[int] | None = parameter(
        default=None,
        constraints=[Interval(Integral, 1, None, closed="left"), "array-like", None],
        kind="int, tuple of int or None",
        doc="""Units along each axis of the map, whose product is the number of components; units
        are numbered row by row. One number is a ring. None: two axes, as nearly square as
        can be. Not used without ``group_shape``.""",
    )
    inference_tol: float = parameter(
        default=1e-4,
        constraints=[Interval(Real, 0, None, closed="left")],
        doc="Accuracy of the inferred codes: the largest duality gap, as a part of the objective.",
    )
    inference_max_iter: int = parameter(
        default=1000,
        constraints=[Interval(Integral, 1, None, closed="left")],
        doc="Steps of the inference at most, where it goes by steps.",
    )

    def largest_alpha(self, X):
        """The ``alpha`` from which on all optimal codes of X are zero.

        Returns
        -------
        alpha : float
            The largest correlation of a row with an atom, ``max |x D^T|``; for groups that
            overlap, a bound from above.
        """
        check_is_fitted(self)
        X = check_rows(self, X, reset=False, by_blocks=True)
        fitted = self._fitted_model(X)
        atoms = getattr(self, "decoder_components_", self.components_)
        dictionary = place_of(fitted.theta.flat).tensor(atoms)
        penalty = penalty_of(self, len(atoms))
        return float(
            fitted.map_rows(lambda x: largest_useful_alpha(penalty, x @ dictionary.t()), X).max()
        )

    @property
    def _accuracy(self):
        return {"tol": self.inference_tol, "max_iter": int(self.inference_max_iter)}


def penalty_of(estimator, n_components: int) -> L1 | GroupL2:
    """The sparsity penalty that an estimator's parameters are, for so many components. A ValueError
    tells of groups that do not fit a map of so many units.
    """
    alpha, positive = float(estimator.alpha), getattr(estimator, "positive", False)
    if estimator.group_shape is None:
        return L1(alpha, positive)
    map_shape, hint = estimator.map_shape, ""
    if map_shape is None:
        divisors = range(1, math.isqrt(n_components) + 1)
        height = max(divisor for divisor in divisors if n_components % divisor == 0)
        map_shape = (height, n_components // height)
        hint = (
            f" The map is the squarest of n_components={n_components} units: use another "
            f"n_components, or map_shape={n_components} and a number as group_shape: a ring."
        )
    try:
        groups = map_groups(map_shape, estimator.group_shape, n_components=n_components)
    except ValueError as error:
        raise ValueError(f"{error}{hint}") from error
    return GroupL2(alpha, groups, positive)


def describe_coded_columns(estimator, X, weight, original, auto="gaussian"):
    """The `Columns` of rows whose codes minimise a squared error; ``auto`` is loss="auto"."""
    choice = auto if estimator.loss == "auto" else estimator.loss
    names = column_names(estimator)
    return describe_columns(X, choice, weight, original, names, encoding=estimator.encoding_)


def solve(
    model,
    quadratic: Quadratic | OperatorQuadratic,
    penalty: L1 | GroupL2,
    *,
    tol,
    max_iter,
    **options,
) -> torch.Tensor:
    """Optimal codes for an estimator's `transform`, with a warning where they are not. Arguments
    are those of `skae.engine.sparse.problem.infer`.
    """
    result = infer(quadratic, penalty, tol=tol, max_iter=max_iter, **options)
    solved = is_solved(quadratic.energy, result.objective, result.gap, tol)
    n_unsolved = len(solved) - int(solved.sum())
    is_single = quadratic.linear.dtype == torch.float32
    report_unsolved(model, n_unsolved, len(solved), tol, max_iter, is_single)
    return result.codes


def find_dictionary(dictionary, X, columns, positive=False, labels=None):
    """The atoms of the ``dictionary`` parameter, and the columns that they are for.

    An array is taken as it is. An estimator lends its decoder's components, components or cluster
    centres, at unit norm, and the shift and scale that it gave its input; one that is not fitted is
    fitted on X first. Where codes are ``positive``, an atom and its negative are two; ``labels``
    name the columns of X. A ValueError tells that there are no atoms to be found, or not for such
    features as X has.
    """
    atoms, shift, scale = dictionary, None, None
    if hasattr(dictionary, "fit"):
        model = _fitted(dictionary, X)
        names = [name for name in _ATTRIBUTES if getattr(model, name, None) is not None]
        if not names:
            raise ValueError(
                f"dictionary={dictionary!r} has none of {', '.join(_ATTRIBUTES)} once it is "
                "fitted. Pass an estimator of one linear layer, or an array of atoms."
            )
        atoms = getattr(model, names[0])
        atoms = atoms.toarray() if sparse.issparse(atoms) else atoms
        atoms = check_array(atoms, dtype=np.float64, input_name=names[0])
        atoms = atoms.T if names[0] == "mixing_" else atoms
        norm = np.linalg.norm(atoms, axis=1, keepdims=True)
        atoms = atoms / np.where(norm > 0, norm, 1)
        require_same_columns("The dictionary", column_names(model), labels)
        if hasattr(model, "columns_"):
            shift, scale = model.columns_.shift, model.columns_.scale
        elif hasattr(model, "mean_"):
            shift = np.asarray(model.mean_, dtype=np.float64)
            scale = np.ones_like(shift)  # the components are of columns as they are
    else:
        atoms = _as_atoms(dictionary)
    if atoms.shape[1] != X.shape[1]:
        raise ValueError(
            f"The dictionary has atoms of {atoms.shape[1]} features, but X has {X.shape[1]}. Its "
            "shape has to be (n_components, n_features): one atom per row."
        )
    _warn_of_degenerate(atoms, positive)
    return atoms, columns if shift is None else columns.replaced(shift=shift, scale=scale)


def _as_atoms(array):
    array = array.toarray() if sparse.issparse(array) else array
    try:
        # A copy: what the user does to the array does not change the model.
        options = {"dtype": [np.float64, np.float32], "input_name": "dictionary"}
        return check_array(as_array(array), copy=True, **options)
    except (TypeError, ValueError) as error:
        raise ValueError(
            "dictionary has to be a finite array of shape (n_components, n_features), one atom "
            f"per row, an estimator or None. {error}"
        ) from error


def _fitted(model, X):
    try:
        check_is_fitted(model)
    except NotFittedError:
        return clone(model).fit(X)
    return model


def _warn_of_degenerate(atoms, positive):
    atoms = atoms.astype(np.float64)
    norm = np.linalg.norm(atoms, axis=1)
    zero = np.flatnonzero(norm == 0)
    if len(zero):
        warn(
            f"{len(zero)} atoms of the dictionary, the first of them {zero[:5].tolist()}, are "
            "zero: they will not be used. Remove them.",
            UserWarning,
        )
    unit = atoms / np.where(norm > 0, norm, 1)[:, np.newaxis]
    # In float32 first, which takes half the time and nearly always finds none.
    rough = unit.astype(np.float32)
    rough = rough @ rough.T
    np.fill_diagonal(rough, 0)
    if max(rough.max(), 0 if positive else -rough.min()) < _SAME - 1e-5:
        return
    cosine = unit @ unit.T
    same = np.triu((cosine if positive else np.abs(cosine)) > _SAME, k=1)
    if same.any():
        first, second = np.argwhere(same)[0]
        warn(
            f"Atoms {first} and {second} are the first of {same.sum()} pairs of atoms of the "
            "dictionary that are multiples of each other: codes are not unique. Remove one of "
            "each pair.",
            UserWarning,
        )
