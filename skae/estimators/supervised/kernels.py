"""Outputs that are ridge regressions with a kernel, and the layers of tables below them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch

from skae._validation import make_generator
from skae.engine.networks.layers import outputs_of
from skae.engine.optimisation.devices import Place, place_of
from skae.engine.optimisation.models import rows_that_count, some_of
from skae.engine.stacks.kernel_output import (
    KERNELS,
    Calibration,
    Distances,
    Kernel,
    Mixture,
    calibrated,
    chosen_mixture,
    kernel_ridge,
    mean_distances,
    mean_kernel,
)
from skae.engine.stacks.stacking import codes_of_layers
from skae.estimators.auto_encoders import DenoisingAutoEncoder
from skae.estimators.face.callbacks import callbacks_of
from skae.estimators.face.columns import Columns
from skae.estimators.stacks.auto_encoder import StackedAutoEncoder
from skae.estimators.stacks.layers import models_of
from skae.estimators.supervised.tasks import FittedOutput
from skae.estimators.tables.features import TableFeatures
from skae.estimators.targets import Targets

_CPU = torch.device("cpu")
# Labelled rows that a kernel output learns from, at most. Its matrix has the square of it.
MOST_ROWS = 5000
# Rows that tell how far rows are from each other.
_ROWS_OF_DISTANCES = 10_000
# Numbers of these rows, at most, for whose distances nobody who did not ask for them should wait.
_MOST_NUMBERS = 2**25
# The least penalty: a kernel of many rows could say anything of each of them.
_LEAST_PENALTY = 1.0
# Steps of the layers of tables: more of them, no better outputs.
_STEPS = 400
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
      rows, at each of them; of numbers, as they are without their mean and in their deviation.
    - ``calibrations``: of the classes of each output; empty for numbers.
    - ``mixtures``: of numbers, what the outputs at rows that were left out have chosen for each;
      ``slopes``, of shape (n_columns, n_outputs): by which the columns count by themselves, as they
      differ from ``center``, their means.
    """

    kernel: str | Kernel
    anchors: tuple[np.ndarray, ...]
    distances: tuple[Distances, ...]
    positions: np.ndarray
    left_out: np.ndarray
    calibrations: tuple[Calibration, ...] = ()
    mixtures: tuple[Mixture, ...] = ()
    center: np.ndarray | None = None
    slopes: np.ndarray | None = None

    def function(self, weights: np.ndarray, bias: np.ndarray, groups, place: Place) -> Callable:
        """From the views of some rows to pre-activations of the output's units."""
        kernel = KERNELS[self.kernel] if isinstance(self.kernel, str) else self.kernel
        anchors = [place.tensor(anchor) for anchor in self.anchors]
        coefficients, offset = place.tensor(weights.T), place.tensor(bias)
        size = max(1, _BLOCK // len(self.positions))

        center = None if self.center is None else place.tensor(self.center)
        slopes = None if self.slopes is None else place.tensor(self.slopes)

        def outputs(views):
            blocks = zip(*(view.split(size) for view in views), strict=True)
            found = [mean_kernel(kernel, block, anchors, self.distances) for block in blocks]
            total = torch.cat([torch.addmm(offset, part, coefficients) for part in found])
            return total if center is None else total.addmm_(views[0] - center, slopes)

        def log_odds(views):
            found = outputs(views)
            for calibration, columns in zip(self.calibrations, groups, strict=True):
                found[:, columns] = calibration.log_odds(found[:, columns])
            return found

        return log_odds if self.calibrations else outputs


def suits(model, columns: Columns, n_rows: int, n_labelled: int) -> bool:
    """Whether a kernel is the output of a model whose parameters leave that to the data.

    ``columns`` are what its lowest layer knows of them.
    """
    asks_for_tuning = model.n_fine_tuned_layers is not None or model.pretraining is None
    watches = model.early_stopping or callbacks_of(model).stopping is not None
    asks_for_tuning |= watches or np.max(model.dropout) > 0
    asks_for_tuning |= getattr(model, "unsupervised_weight", 0) > 0
    asks_for_tuning |= getattr(model, "adversarial_step", 0) > 0
    fits = min(n_rows, _ROWS_OF_DISTANCES) * len(columns.mean) <= _MOST_NUMBERS
    if asks_for_tuning or n_labelled > MOST_ROWS or not fits:
        return False
    encoding = model.encoding_
    is_table = encoding is not None and not encoding.is_array
    return is_table or not columns.are_intensities


@dataclass(frozen=True)
class KernelRidge:
    """The output that is a ridge regression with a kernel, by its name or the function."""

    kernel: str | Kernel
    # Layers below it stay as they are.
    is_tuned: ClassVar[bool] = False

    def layers(self, model, n_rows: int) -> list | None:
        """The layer below it; None where the model's parameters say what layers it has.

        It is what `TableFeatures` is, for fewer steps.
        """
        default = model.layers is None and model.layer_sizes is None
        default = default and model.layer == type(model).layer
        if not default or model.pretraining != "unsupervised":
            return None
        names = DenoisingAutoEncoder().get_params().keys() - {"numbers", "max_iter"}
        recipe = {n: value for n, value in TableFeatures().get_params().items() if n in names}
        n_epochs = max(2, round(_STEPS * recipe["batch_size"] / max(n_rows, recipe["batch_size"])))
        shown = {"device": model.device, "verbose": model.verbose}
        return [DenoisingAutoEncoder(**recipe | shown, max_iter=n_epochs)]

    def fitted(
        self, model, stack: StackedAutoEncoder, data, weight, targets: Targets, *, is_final: bool
    ) -> FittedOutput:
        """The output for the codes of the rows of data that have a target."""
        output, coefficients, offset = fit_kernel_output(
            model, stack, data, weight, targets, self.kernel
        )
        return FittedOutput(coefficients, offset, 1, {"kernel_output_": output})


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
    views = views_of(stack, data[some])
    distances = tuple(mean_distances(view, of_some) for view in views)
    anchors = views_of(stack, data[positions])
    function = KERNELS[kernel] if isinstance(kernel, str) else kernel
    matrix = mean_kernel(function, anchors, anchors, distances).double()
    if not torch.isfinite(matrix).all():
        raise ValueError(
            f"The kernel {kernel!r} returned NaN or infinity for some of {len(positions)} rows."
        )

    values = torch.tensor(targets.values[positions], dtype=torch.float64)
    # Weights count as the user passed them.
    groups = targets.kind.groups
    known = [(targets.values[:, columns].sum(1) > 0).sum() for columns in groups or ()]
    if groups is None and targets.weight is not None and targets.weight.ndim == 2:
        known = list((targets.weight > 0).sum(axis=0))
    scale = model.labelled_weight_ / np.mean(known or targets.labelled.sum())
    penalty = max(model.output_penalty, _LEAST_PENALTY)
    calibrations: list[Calibration] = []
    of_numbers: dict = {}
    if groups is None:
        given = np.ones(len(positions)) if targets.weight is None else targets.weight[positions]
        linear = None
        if isinstance(kernel, str):  # else it is the user's, and all there is
            linear = _linear_kernel(views[0], of_some, anchors[0])
        weights, bias, left_out, of_numbers = _of_numbers(
            matrix, linear, values, given, scale, penalty
        )
    else:
        weights, left_out = np.zeros(values.shape), np.full(values.shape, np.nan)
        bias = np.zeros(values.shape[1])
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
        **of_numbers,
    )
    return output, np.ascontiguousarray(weights.T), bias


class _Linear(NamedTuple):
    """A linear kernel of the columns of anchors: (x - center) (z - center) / ``width``."""

    center: torch.Tensor
    width: float
    centered: torch.Tensor
    matrix: torch.Tensor


def _linear_kernel(columns, weight, anchor):
    """That of the labelled rows, whose mean over some rows with itself is 1."""
    columns = columns.double()
    weight = columns.new_ones(len(columns)) if weight is None else weight.double()
    weight = weight / weight.sum()
    center = weight @ columns
    width = float(weight @ (columns - center).square().sum(1)) or 1.0
    centered = anchor.double() - center
    return _Linear(center, width, centered, centered @ centered.T / width)


def _of_numbers(matrix, linear, values, weight, scale, penalty):
    """Coefficients, offset, left-out outputs, and what else is known of numbers, one by one."""
    shape = values.shape
    weights, left_out, bias = np.zeros(shape), np.full(shape, np.nan), np.zeros(shape[1])
    mixtures, slopes = [], []
    given = weight if weight.ndim == 2 else np.repeat(weight[:, None], shape[1], axis=1)
    for number, own in enumerate(given.T):
        known = np.flatnonzero(own) if weight.ndim == 2 else np.arange(len(own))
        y = values[known, number]
        mean = own[known].mean() if weight.ndim == 2 else 1.0
        of_known = torch.tensor(own[known] * (scale / mean))
        kernel, mixture = matrix[known][:, known], Mixture()
        if linear is not None:
            of_columns = linear.matrix[known][:, known]
            mixture = chosen_mixture(kernel, of_columns, y, of_known, penalty)
            kernel = mixture.kernel * kernel + mixture.linear * of_columns
        y = y.clamp(mixture.least, mixture.most).unsqueeze(1)
        ridge = kernel_ridge(kernel, y, of_known, penalty)
        coefficients = ridge.coefficients[:, 0]
        weights[known, number] = mixture.kernel * coefficients.numpy()
        left_out[known, number] = ridge.left_out[:, 0].numpy()
        bias[number] = float(ridge.offset)
        if linear is not None:
            mixtures.append(mixture)
            share = mixture.linear / linear.width
            slopes.append(share * (coefficients @ linear.centered[known]).numpy())
    if linear is None:
        return weights, bias, left_out, {}
    facts = {
        "mixtures": tuple(mixtures),
        "center": linear.center.numpy(),
        "slopes": np.stack(slopes, axis=1),
    }
    return weights, bias, left_out, facts


def views_of(stack: StackedAutoEncoder, X) -> list[torch.Tensor]:
    """Checked rows as the lowest layer sees them, without gaps, and the codes of every layer."""
    fitted = stack._fitted_model(X)
    parts = _views(stack, fitted)
    one = fitted.theta.flat.new_zeros(1, fitted.model.n_features)
    widths = [part.shape[1] for part in parts(one)]
    found = fitted.map_rows(lambda x: torch.cat(parts(x), dim=1), X, (sum(widths),))
    return list(torch.from_numpy(found).split(widths, dim=1))


def kernel_outputs(model, X) -> np.ndarray:
    """Pre-activations of the output of a fitted model for checked rows."""
    fitted = model.stack_._fitted_model(X)
    parts = _views(model.stack_, fitted)
    weights = model.output_weights_, model.output_bias_
    groups, place = model._targets().groups, place_of(fitted.theta.flat)
    outputs = model.kernel_output_.function(*weights, groups, place)
    return fitted.map_rows(lambda x: outputs(parts(x)), X, (len(model.output_bias_),))


def _views(stack, fitted):
    """From rows as the lowest layer sees them to these and the codes of all layers."""
    model, theta = fitted
    if model.encoder is not None:
        return lambda x: [x, *outputs_of(theta, x, model.encoder)]
    models = models_of(stack.layers_, place_of(theta.flat))
    return lambda x: [x, *codes_of_layers(models, theta, x)]
