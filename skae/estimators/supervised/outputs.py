"""The output of a stack that predicts, a value that fits itself: which one, and the linear."""

import warnings
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.linalg import LinAlgWarning
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge

from skae.engine.optimisation import processes
from skae.engine.optimisation.sources import Source
from skae.engine.stacks.kernel_output import KERNELS
from skae.estimators.face.columns import Columns
from skae.estimators.face.outcomes import some_rows
from skae.estimators.face.transformer import as_if_fitted
from skae.estimators.stacks.auto_encoder import StackedAutoEncoder
from skae.estimators.supervised.kernels import KernelRidge, suits
from skae.estimators.supervised.tasks import FittedOutput
from skae.estimators.targets import Targets

# Steps of the linear model that the output starts from, and of one that is the result.
_START_STEPS, _LINEAR_STEPS = 100, 1000
# Rows that the first is fitted on, where not all are in memory.
_START_ROWS = 20_000
# Weights up to which the final one is solved by Newton's steps: its Hessian is dense.
_NEWTON_WEIGHTS = 200
# The least penalty on the weights of the first.
_START_PENALTY = 1.0
# Penalty without which linear models of many columns have no unique solution.
_LEAST = 1e-8


@dataclass(frozen=True)
class Linear:
    """The output that is an affine map of the codes."""

    # It is trained together with the layers below it.
    is_tuned: ClassVar[bool] = True

    def layers(self, model, n_rows: int) -> None:
        """The layers that it would rather have: none but those of the model."""

    def fitted(
        self, model, stack: StackedAutoEncoder, data, weight, targets: Targets, *, is_final: bool
    ) -> FittedOutput:
        """The output to begin with or, if it ``is_final``, to end with."""
        facts = {"kernel_output_": None}
        everyone = processes.current()
        if everyone.is_joined and is_final:
            raise ValueError(
                "n_fine_tuned_layers=0 fits the output to all codes at once, of which a process "
                "has some alone. Fine-tune a layer, or use distributed=False."
            )
        is_random = model.pretraining is None and not is_final
        if everyone.is_joined or is_random or not targets.labelled.any():
            # Random codes have no output that would be worth keeping; nor have some rows' alone.
            bias = targets.start_bias().numpy()
            return FittedOutput(np.zeros((len(bias), stack._n_features_out)), bias, 0, facts)
        max_iter = _LINEAR_STEPS if is_final else _START_STEPS
        # Large weights on top would tear the layers apart at the first steps.
        penalty = model.output_penalty if is_final else max(model.output_penalty, _START_PENALTY)
        penalty *= targets.labelled.sum() / model.labelled_weight_
        if isinstance(data, Source) and not is_final:
            # A start is as good that knows some of the rows.
            rows = np.flatnonzero(targets.labelled)
            rows = rows[:: max(1, len(rows) // _START_ROWS)]
            data, targets = data[rows], targets.taken(rows)
        codes = stack._codes(data)
        weights, bias, n_iter = fit_linear_output(
            codes, targets, penalty, max_iter, is_final=is_final
        )
        return FittedOutput(weights, bias, n_iter, facts)


def output_of(model, columns: Columns, data, n_labelled: int) -> Linear | KernelRidge:
    """The output that a model's parameters ask for, or else the rows and their columns."""
    is_joined = processes.current().is_joined
    suits_any = "linear", "auto" if is_joined else "linear"
    if model.output in suits_any or isinstance(data, Source):
        return Linear()
    if is_joined:
        raise ValueError(
            f"output={model.output!r} compares all rows with each other, of which a process has "
            "some alone. Use output='linear' or distributed=False."
        )
    if model.output != "auto":
        return KernelRidge(model.output)
    is_kernel = suits(model, columns, data.shape[0], n_labelled)
    return KernelRidge(next(iter(KERNELS))) if is_kernel else Linear()


def columns_of(layer, stack: StackedAutoEncoder, X, data) -> Columns:
    """What the lowest layer of a stack knows of the columns, or will know."""
    if stack.pretraining == "prefit":
        return layer.columns_
    return as_if_fitted(layer, some_rows(data, None), X, stack.encoding_).columns_


def fit_linear_output(codes, targets, penalty, max_iter, *, is_final):
    """Weights, biases and the steps of the output that is best on given codes, by scikit-learn.

    It minimises the sum of -log P(y | U h + d) over labelled rows + penalty / 2 |U|^2, in at most
    so many steps where there is no closed form. What ``is_final`` is a model, which should have
    converged, and else a start.
    """
    rows = np.flatnonzero(targets.labelled)
    if targets.kind.groups is None:
        codes, values = codes[rows].astype(np.float64), targets.values[rows]
        weight = None if targets.weight is None else targets.weight[rows]
        return *_fit_numbers(codes, values, weight, penalty), 1
    parts = [
        _fit_classes(codes, targets.values[:, columns], penalty, max_iter, is_final)
        for columns in targets.kind.groups
    ]
    weights, biases, n_iter = zip(*parts, strict=True)
    return np.vstack(weights), np.concatenate(biases), max(n_iter)


def _fit_numbers(codes, values, weight, penalty):
    """Weights and biases of numbers; one by one, where rows miss some."""
    if weight is None or weight.ndim == 1:
        model = Ridge(alpha=max(penalty, _LEAST)).fit(codes, values, weight)
        return np.reshape(model.coef_, (values.shape[1], -1)), np.ravel(model.intercept_)
    known, weights, biases = weight > 0, [], []
    penalty *= known.mean()  # it is compared with the rows that each output has
    for number, own in enumerate(known.T):
        of_own = weight[own, number] / weight[own, number].mean()
        model = Ridge(alpha=max(penalty, _LEAST)).fit(codes[own], values[own, number], of_own)
        weights.append(model.coef_)
        biases.append(model.intercept_)
    return np.array(weights), np.array(biases)


def _fit_classes(codes, values, penalty, max_iter, is_final):
    """The same for one output of classes, whose one-hot rows say how much they count."""
    count = values.sum(1)
    rows = np.flatnonzero(count > 0)
    position, count = values[rows].argmax(1), count[rows]
    seen = np.unique(position)
    n_classes = values.shape[1]
    weight, bias = np.zeros((n_classes, codes.shape[1])), np.zeros(n_classes)
    if len(seen) < 2:
        if len(seen):
            bias[seen] = np.log(len(rows) + 1.0)
        return weight, bias, 1
    # Two classes have one logit, whose weight is the difference of the outputs'.
    C = (2.0 if len(seen) == 2 else 1.0) / max(penalty, _LEAST)
    n_weights = (codes.shape[1] + 1) * len(seen)
    # Newton's last step is as good as rounding allows. So a weight of 2 is a repeated row up to
    # rounding, and chains that begin here have no difference to enlarge.
    newton = n_weights <= _NEWTON_WEIGHTS and codes.dtype == np.float64
    how = {"solver": "newton-cholesky", "tol": 1e-8} if newton else {"tol": 1e-6}
    model = LogisticRegression(C=C, max_iter=max_iter, **(how if is_final else {}))
    with warnings.catch_warnings():
        if not is_final:
            warnings.simplefilter("ignore", ConvergenceWarning)
        # Where codes are collinear, it goes on with lbfgs by itself.
        warnings.simplefilter("ignore", LinAlgWarning)
        model.fit(codes[rows], position, sample_weight=count)
    if len(seen) == 2:
        weight[seen] = np.vstack([-model.coef_, model.coef_]) / 2
        bias[seen] = np.concatenate([-model.intercept_, model.intercept_]) / 2
    else:
        weight[seen], bias[seen] = model.coef_, model.intercept_
        bias[seen] -= bias[seen].mean()
    if len(seen) < n_classes:
        # A class that is not there: as improbable as one row in all.
        unseen = np.setdiff1d(np.arange(n_classes), seen)
        bias[unseen] = (codes[rows] @ weight.T + bias)[:, seen].mean() - np.log(len(rows) + 1.0)
    return weight, bias, int(np.max(model.n_iter_))
