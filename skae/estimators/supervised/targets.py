"""What a supervised training is to predict: classes or numbers, as the engine's units see them."""

from typing import NamedTuple

import numpy as np
import torch
from sklearn.utils import check_array
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets, type_of_target

from skae.engine.networks.units import Gaussian, Mixed, Multinomial
from skae.engine.tangents.semi_supervised import shrunken_frequencies


class Targets(NamedTuple):
    """Targets of rows, and the output units that they are of.

    Attributes
    ----------
    values : ndarray of shape (n_samples, n_outputs)
        One-hot rows for classes, times how much they count and zero where the class is not
        known; standardised numbers.
    weight : ndarray of shape (n_samples,), or None
        How much each row counts, where ``values`` do not say so; on average 1 over labelled
        rows, as the sums of one-hot rows are.
    labelled : ndarray of bool of shape (n_samples,)
        Rows with a target, at least one.
    groups : list of ndarray, or None
        For classes, the columns of each output.
    scale : ndarray of shape (n_outputs,), or None
        For numbers, by what they were divided.
    total : float
        Sum of the labelled rows' weights, where those of all rows are 1 on average.
    """

    values: np.ndarray
    weight: np.ndarray | None
    labelled: np.ndarray
    groups: list | None
    scale: np.ndarray | None
    total: float

    def units(self, device):
        """The output units."""
        return output_units(self.groups, self.scale, device)

    def tensors(self, dtype, device):
        """Values and weights on the device."""
        weight = self.weight
        weight = None if weight is None else torch.tensor(weight, dtype=dtype, device=device)
        return torch.tensor(self.values, dtype=dtype, device=device), weight

    def restricted(self, rows):
        """The same with the targets of the given rows alone."""
        keep = np.zeros(len(self.labelled), dtype=bool)
        keep[rows] = True
        values = np.where(keep[:, None], self.values, 0.0)
        weight = keep.astype(float) if self.weight is None else self.weight * keep
        if self.groups is not None:
            return self._replace(values=values, labelled=self.labelled & keep)
        return self._replace(values=values, weight=weight, labelled=self.labelled & keep)

    def start_bias(self, device):
        """Pre-activation at which the output is the mean of the targets, as float64."""
        values = torch.tensor(self.values[self.labelled], dtype=torch.float64, device=device)
        if self.groups is None:
            weight = None if self.weight is None else self.weight[self.labelled]
            return torch.tensor(np.average(values.cpu().numpy(), axis=0, weights=weight)).to(values)
        total = values.sum(0)
        for columns in self.groups:
            total[columns] /= total[columns].sum().clamp(min=1e-30)
        return self.units(device).bias_for_mean(total)

    def class_frequencies(self, n_labels):
        """How often the classes of each output occur, as so many labels tell, as float64."""
        counts = torch.tensor(self.values[self.labelled].sum(0), dtype=torch.float64)
        # Values are 1 on average: that weights are repetitions, they do not say.
        counts *= n_labels / self.labelled.sum()
        for columns in self.groups:
            counts[columns] = shrunken_frequencies(counts[columns])
        return counts


def checked_classes(y):
    """The labels as an array, if they can be classes."""
    y = check_array(y, ensure_2d=False, dtype=None, input_name="y")
    if y.dtype == object and len({isinstance(label, str) for label in y.flat}) > 1:
        raise ValueError(
            "y mixes strings with other values. Where classes are strings, let a string stand "
            "for the unknown class, such as unlabelled='?'."
        )
    check_classification_targets(y)
    return y


def output_units(groups, scale, device):
    """Multinomial units for every group of columns, or Gaussian ones of a scale."""
    if groups is None:
        return Gaussian.of_scale(torch.as_tensor(scale))
    if len(groups) == 1:
        return Multinomial()
    return Mixed([(Multinomial(), torch.tensor(columns, device=device)) for columns in groups])


def class_groups(classes):
    """The columns of each output, for the classes of each."""
    ends = np.cumsum([len(names) for names in classes])
    return [np.arange(end - len(names), end) for names, end in zip(classes, ends, strict=True)]


def find_classes(y, unlabelled, *, require_two=True):
    """The classes of every output.

    Parameters
    ----------
    y : ndarray of shape (n_samples, n_outputs)
    unlabelled : int or None
        The value that stands for an unknown class.
    require_two : bool
        Whether one class alone is an error.

    Returns
    -------
    classes : list of ndarray

    Raises
    ------
    ValueError
        If no row is labelled, or all are of one class.
    """
    classes = []
    for column in y.T:
        names = np.unique(column[is_known(column, unlabelled)])
        if len(names) == 0:
            raise ValueError(
                f"All labels are {unlabelled}, which stands for an unknown class, so there is "
                "nothing to predict. Pass the labels of some rows, or learn features without "
                "labels with StackedAutoEncoder."
            )
        if len(names) == 1 and require_two:
            unknown = (~is_known(column, unlabelled)).any()
            hint = (
                f" {unlabelled} stands for an unknown class: if it is one of the classes, set "
                "unlabelled=None."
                if unknown
                else ""
            )
            raise ValueError(
                f"y has one class only, {names.tolist()[0]!r}; a classifier needs at least "
                f"two.{hint}"
            )
        classes.append(names)
    return classes


def is_known(column, unlabelled):
    """Which labels are classes."""
    if unlabelled is None or isinstance(unlabelled, str) != (column.dtype.kind in "OUST"):
        return np.ones(len(column), dtype=bool)
    return column != unlabelled


def encode_classes(y, classes, *, unlabelled=None, row_weight=None, class_weight=None):
    """Classes as targets.

    Parameters
    ----------
    y : ndarray of shape (n_samples, n_outputs)
    classes : list of ndarray
    unlabelled : int or None
    row_weight : ndarray of shape (n_samples,), or None
        Of mean 1 over the rows that count.
    class_weight : dict, list of dict, "balanced" or None

    Returns
    -------
    targets : Targets

    Raises
    ------
    ValueError
        If y has a class that is none of ``classes``.
    """
    counts, positions = [], []
    for number, (column, names) in enumerate(zip(y.T, classes, strict=True)):
        known = is_known(column, unlabelled)
        if row_weight is not None:
            known &= row_weight > 0
        position = np.searchsorted(names, np.where(known, column, names[0]))
        position = np.minimum(position, len(names) - 1)
        wrong = known & (names[position] != column)
        if wrong.any():
            raise ValueError(
                f"y has the class {column[wrong].tolist()[0]!r}, which is none of the classes "
                f"{names.tolist()} of this model. Pass all classes to the first call of "
                "partial_fit as classes=, or call fit with warm_start=False."
            )
        count = known.astype(np.float64) if row_weight is None else known * row_weight
        if class_weight is not None and known.any():
            one = class_weight[number] if isinstance(class_weight, list) else class_weight
            if isinstance(one, dict):
                count *= _weights_of(names.tolist(), one)[position]
            else:
                count[known] *= compute_sample_weight(one, column[known])
        counts.append(count)
        positions.append(position)
    labelled = np.any([count > 0 for count in counts], axis=0)
    total_weight = float(np.sum(counts)) / len(counts)
    values = []
    for names, count, position in zip(classes, counts, positions, strict=True):
        one_hot = np.zeros((len(y), len(names)))
        # On average 1 over the labelled rows.
        total = count.sum()
        one_hot[np.arange(len(y)), position] = count * (labelled.sum() / total if total else 0.0)
        values.append(one_hot)
    return Targets(np.hstack(values), None, labelled, class_groups(classes), None, total_weight)


def check_class_weight(class_weight, n_outputs):
    """Raise a ValueError unless weights of classes are finite and at least 0, not all of them 0."""
    if isinstance(class_weight, list) and len(class_weight) != n_outputs:
        raise ValueError(
            f"class_weight has {len(class_weight)} dicts for {n_outputs} outputs; it needs one "
            "for each."
        )
    for one in class_weight if isinstance(class_weight, list) else [class_weight]:
        if isinstance(one, dict):
            weights = np.array([float(weight) for weight in one.values()])
            if not (np.isfinite(weights) & (weights >= 0)).all() or (
                len(weights) and not weights.any()
            ):
                raise ValueError(
                    f"class_weight={one!r} must be finite weights of at least 0, not all of them 0."
                )


def _weights_of(names, class_weight):
    # Not scikit-learn's function: a part of a stream may lack classes that the dict weighs.
    unknown = set(class_weight) - set(names)
    if unknown and not set(names) <= set(class_weight):
        raise ValueError(
            f"class_weight has weights of {sorted(map(str, unknown))}, which are none of the "
            f"classes {names}."
        )
    return np.array([class_weight.get(name, 1.0) for name in names])


def encode_numbers(y, mean, scale, row_weight=None):
    """Numbers as targets, NaN where they are not known.

    Parameters
    ----------
    y : ndarray of shape (n_samples, n_outputs)
    mean, scale : ndarray of shape (n_outputs,)
    row_weight : ndarray of shape (n_samples,), or None
        Of mean 1 over the rows that count.

    Returns
    -------
    targets : Targets
    """
    labelled = ~np.isnan(y).any(1)
    values = np.where(labelled[:, None], (y - mean) / scale, 0.0)
    weight = labelled.astype(np.float64) if row_weight is None else labelled * row_weight
    total = float(weight.sum())
    if row_weight is not None:
        labelled = labelled & (row_weight > 0)
    if weight.all() and (weight == weight[0]).all():
        weight = None
    elif total > 0:
        weight = weight * (labelled.sum() / total)
    return Targets(values, weight, labelled, None, scale, total)


def moments(y, row_weight=None):
    """Mean and scale of every output; 1 for the scale of one that does not vary."""
    known = ~np.isnan(y).any(1)
    if row_weight is not None:
        known &= row_weight > 0
    if not known.any():
        raise ValueError(
            "All rows that count have a NaN among their targets, which stands for an unknown one, "
            "so there is nothing to predict. Pass the targets of some rows, or learn features "
            "without any."
        )
    weight = None if row_weight is None else row_weight[known]
    mean = np.average(y[known], axis=0, weights=weight)
    scale = np.sqrt(np.average((y[known] - mean) ** 2, axis=0, weights=weight))
    varies = scale > 10 * np.finfo(np.float64).eps * np.abs(y[known]).max(0)
    return mean, np.where(varies, scale, 1.0)


def infer_targets(y, row_weight=None, unlabelled=-1):
    """Targets of an estimator that is neither classifier nor regressor, by the look of y.

    Integers, booleans and strings are classes, other numbers are numbers.
    """
    y = np.asarray(y)
    table = y.reshape(len(y), -1)
    numbers = table.dtype.kind == "f" and np.isnan(table).any()
    if numbers or type_of_target(y).startswith("continuous"):
        return encode_numbers(table, *moments(table, row_weight), row_weight)
    check_classification_targets(y)
    classes = find_classes(table, unlabelled)
    return encode_classes(table, classes, unlabelled=unlabelled, row_weight=row_weight)
