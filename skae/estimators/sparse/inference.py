"""What the models of sparse codes share: parameters of the inference, penalty, columns."""

import math
from collections.abc import Sequence
from numbers import Integral, Real

import torch

from skae._validation import Interval, check_is_fitted, check_rows
from skae.engine.optimisation.devices import place_of
from skae.engine.sparse.groups import GroupL2, map_groups
from skae.engine.sparse.inference import infer
from skae.engine.sparse.problem import (
    L1,
    OperatorQuadratic,
    Quadratic,
    is_solved,
    largest_useful_alpha,
)
from skae.estimators.face.columns import describe_columns
from skae.estimators.face.outcomes import report_unsolved
from skae.estimators.face.parameters import estimator, parameter

# What codes minimise is a squared error: of columns that are standardised, or as they are.
LOSSES = {"auto", "gaussian", "squared_error"}


@estimator
class SparseInference:
    """Parameters of the sparsity penalty and of `skae.engine.sparse.inference.infer`."""

    alpha: float = parameter(
        default=1.0,
        constraints=[Interval(Real, 0, None, closed="neither")],
        doc="""float
        Weight of the sparsity penalty: an atom is used where it explains more than this. In
        the units of the columns (as standardised), for atoms of norm 1.""",
    )
    group_shape: int | Sequence[int] | None = parameter(
        default=None,
        constraints=[Interval(Integral, 1, None, closed="left"), "array-like", None],
        doc="""int, tuple of int or None
        Units of a neighbourhood along each axis of the map; one number holds for all axes.
        The penalty is then the sum, over the neighbourhoods around each unit on a map without
        borders, of the norms of the codes in them. None: the sum of absolute codes.""",
    )
    map_shape: int | Sequence[int] | None = parameter(
        default=None,
        constraints=[Interval(Integral, 1, None, closed="left"), "array-like", None],
        doc="""int, tuple of int or None
        Units along each axis of the map, whose product is the number of components; units
        are numbered row by row. One number is a ring. None: two axes, as nearly square as
        can be. Not used without ``group_shape``.""",
    )
    inference_tol: float = parameter(
        default=1e-4,
        constraints=[Interval(Real, 0, None, closed="left")],
        doc="""float
        Accuracy of the inferred codes: the largest duality gap, as a part of the objective.""",
    )
    inference_max_iter: int = parameter(
        default=1000,
        constraints=[Interval(Integral, 1, None, closed="left")],
        doc="""int
        Steps of the inference at most, where it goes by steps.""",
    )

    def largest_alpha(self, X):
        """The ``alpha`` from which on all optimal codes of X are zero.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data.

        Returns
        -------
        alpha : float
            The largest correlation of a row with an atom, ``max |x D^T|``; for groups that
            overlap, a bound from above.
        """
        check_is_fitted(self)
        X = check_rows(self, X, reset=False)
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
    """The sparsity penalty that an estimator's parameters are, for so many components.

    Raises
    ------
    ValueError
        If the groups do not fit a map of so many units.
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
    names = getattr(estimator, "feature_names_in_", None)
    return describe_columns(X, choice, weight, original, names)


def solve(
    model,
    quadratic: Quadratic | OperatorQuadratic,
    penalty: L1 | GroupL2,
    *,
    tol,
    max_iter,
    **options,
) -> torch.Tensor:
    """Optimal codes for an estimator's `transform`, with a warning where they are not.

    Parameters
    ----------
    model : estimator
    quadratic, penalty, tol, max_iter, **options
        As `skae.engine.sparse.inference.infer` takes them.

    Returns
    -------
    codes : Tensor of shape (n_samples, n_components)
    """
    result = infer(quadratic, penalty, tol=tol, max_iter=max_iter, **options)
    solved = is_solved(quadratic.energy, result.objective, result.gap, tol)
    n_unsolved = len(solved) - int(solved.sum())
    is_single = quadratic.linear.dtype == torch.float32
    report_unsolved(model, n_unsolved, len(solved), tol, max_iter, is_single)
    return result.codes
