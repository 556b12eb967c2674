"""Outputs that are ridge regressions with a kernel: of what they are, and when."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from skae._validation import make_generator
from skae.engine.networks.units import UNITS
from skae.engine.optimisation.devices import Place
from skae.engine.optimisation.models import rows_that_count, some_of
from skae.engine.stacks.kernel_output import (
    KERNELS,
    Calibration,
    Distances,
    Kernel,
    calibrated,
    kernel_ridge,
    mean_distances,
    mean_kernel,
)
from skae.engine.stacks.stacking import codes_of_layers
from skae.estimators.stacks.auto_encoder import StackedAutoEncoder
from skae.estimators.stacks.layers import models_of
from skae.estimators.targets import Targets

_CPU = torch.device("cpu")
# Labelled rows that a kernel output learns from, at most. Its matrix has the square of it.
MOST_ROWS = 5000
# Rows that tell how far rows are from each other.
_ROWS_OF_DISTANCES = 10_000
# The least penalty: a kernel of many rows could say anything of each of them.
_LEAST_PENALTY = 1.0
# Numbers of a block of the kernel.
_BLOCK = 2**22


@dataclass(frozen=True)
class KernelOutput:
    """A fitted kernel output, beside its coefficients and offset.

    - ``kernel``: the name or the function.
    - ``anchors``: rows with a target in each view, arrays of shape (n_anchors, n_columns): the
      columns as the lowest layer sees them, and the codes of each layer. ``distances``: of each
      view, over all rows.
    - ``positions``: which of the rows of `fit` they are.
    - ``left_out``, of shape (n_anchors, n_outputs): the output of the regression on all other
      rows, at each of them.
    - ``calibrations``: of the classes of each output; empty for numbers.
    """

    kernel: str | Kernel
    anchors: tuple[np.ndarray, ...]
    distances: tuple[Distances, ...]
    positions: np.ndarray
    left_out: np.ndarray
    calibrations: tuple[Calibration, ...] = ()

    def function(self, weights: np.ndarray, bias: np.ndarray, groups, place: Place) -> Callable:
        """From the views of some rows to pre-activations of the output's units."""
        kernel = KERNELS[self.kernel] if isinstance(self.kernel, str) else self.kernel
        anchors = [place.tensor(anchor) for anchor in self.anchors]
        coefficients, offset = place.tensor(weights.T), place.tensor(bias)
        size = max(1, _BLOCK // len(self.positions))

        def outputs(views):
            blocks = zip(*(view.split(size) for view in views), strict=True)
            found = [mean_kernel(kernel, block, anchors, self.distances) for block in blocks]
            return torch.cat([torch.addmm(offset, part, coefficients) for part in found])

        def log_odds(views):
            found = outputs(views)
            for calibration, columns in zip(self.calibrations, groups, strict=True):
                found[:, columns] = calibration.log_odds(found[:, columns])
            return found

        return log_odds if self.calibrations else outputs


def kernel_of(model, stack: StackedAutoEncoder, data, n_labelled: int) -> str | Kernel | None:
    """The kernel of the output that a model will have; None where the output is linear."""
    if model.output != "auto":
        is_kernel = callable(model.output) or model.output in KERNELS
        return model.output if is_kernel else None
    asks_for_tuning = model.n_fine_tuned_layers is not None or model.pretraining is None
    asks_for_tuning |= model.early_stopping or np.max(model.dropout) > 0
    asks_for_tuning |= getattr(model, "unsupervised_weight", 0) > 0
    few = n_labelled <= MOST_ROWS
    return next(iter(KERNELS)) if few and not asks_for_tuning and _is_table(stack, data) else None


def _is_table(stack, data):
    """Whether columns are a table's: of a data frame, numbers or one-hot variables."""
    if not isinstance(data, np.ndarray):
        return False
    units = [UNITS[name] for name, _ in stack.columns_.parts]
    return getattr(stack, "encoding_", None) is not None or any(u.standardizes or u.sums_to_one for u in units)


def fit_kernel_output(
    model, stack: StackedAutoEncoder, data, weight, targets: Targets, kernel: str | Kernel
) -> tuple[KernelOutput, np.ndarray, np.ndarray]:
    """The output, and its weights and biases, for the rows of data that have a target.

    Where these are more than the most, it is for some of them, drawn.
    """
    positions = np.flatnonzero(targets.labelled)
    if len(positions) > MOST_ROWS:
        generator = make_generator(model.random_state, _CPU)
        drawn = torch.randperm(len(positions), generator=generator)[:MOST_ROWS].sort().values
        positions = positions[drawn.numpy()]
    some = some_of(rows_that_count(data.shape[0], weight), _ROWS_OF_DISTANCES).numpy()
    of_some = None if weight is None else torch.tensor(weight[some])
    distances = tuple(mean_distances(view, of_some) for view in views_of(stack, data[some]))
    anchors = views_of(stack, data[positions])
    function = KERNELS[kernel] if isinstance(kernel, str) else kernel
    matrix = mean_kernel(function, anchors, anchors, distances).double()
    if matrix.shape != (len(positions),) * 2 or not torch.isfinite(matrix).all():
        raise ValueError(
            f"The kernel {kernel!r} returned {tuple(matrix.shape)} values, not all of them finite, "
            f"for {len(positions)} rows: output must be a function (x, z, distances) that returns "
            "finite similarities of shape (len(x), len(z))."
        )

    values = torch.tensor(targets.values[positions], dtype=torch.float64)
    # Weights count as the user passed them.
    groups = targets.kind.groups
    known = [(targets.values[:, columns].sum(1) > 0).sum() for columns in groups or ()]
    scale = model.n_labelled_ / np.mean(known or targets.labelled.sum())
    penalty = max(model.output_penalty, _LEAST_PENALTY)
    if groups is None:
        given = np.ones(len(positions)) if targets.weight is None else targets.weight[positions]
        ridge = kernel_ridge(matrix, values, torch.tensor(given * scale), penalty)
        weights, bias, left_out = (part.numpy() for part in ridge)
        calibrations = ()
    else:
        weights, left_out = np.zeros(values.shape), np.full(values.shape, np.nan)
        bias, calibrations = np.zeros(values.shape[1]), []
        for columns in groups:
            count = values[:, columns].sum(1)
            known = torch.nonzero(count > 0).squeeze(1)
            of_known, count = values[known][:, columns], count[known]
            count = count * (scale / count.mean())
            classes = of_known / of_known.sum(1, keepdim=True)
            ridge = kernel_ridge(matrix[known][:, known], classes, count, penalty)
            calibrations.append(calibrated(ridge.left_out, classes * count.unsqueeze(1)))
            where = np.ix_(known.numpy(), columns)
            weights[where], left_out[where] = ridge.coefficients.numpy(), ridge.left_out.numpy()
            bias[columns] = ridge.offset.numpy()
    output = KernelOutput(
        kernel,
        tuple(anchor.numpy() for anchor in anchors),
        distances,
        positions,
        left_out,
        tuple(calibrations),
    )
    return output, np.ascontiguousarray(weights.T), bias


def views_of(stack: StackedAutoEncoder, X) -> list[torch.Tensor]:
    """Checked rows as the lowest layer sees them, without gaps, and the codes of every layer."""
    _, theta = fitted = stack._fitted_model(X)
    models = models_of(stack.layers_, Place(theta.flat.dtype, theta.flat.device))
    widths = [models[0].n_features, *(model.n_codes for model in models)]

    def views(x):
        return torch.cat([x, *codes_of_layers(models, theta, x)], dim=1)

    found = fitted.map_rows(views, X, (sum(widths),))
    return list(torch.from_numpy(found).split(widths, dim=1))


def kernel_outputs(model, X) -> np.ndarray:
    """Pre-activations of the output of a fitted model for checked rows."""
    _, theta = fitted = model.stack_._fitted_model(X)
    place = Place(theta.flat.dtype, theta.flat.device)
    models = models_of(model.stack_.layers_, place)
    outputs = model.kernel_output_.function(
        model.output_weights_, model.output_bias_, model._targets().groups, place
    )
    shape = (len(model.output_bias_),)
    return fitted.map_rows(lambda x: outputs([x, *codes_of_layers(models, theta, x)]), X, shape)
