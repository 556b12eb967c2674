"""What a supervised training is to predict: classes or numbers, as the engine's units see them.

A kind of targets, `Classes` or `Numbers`, checks y, describes it (its classes; means and scales),
encodes it as `Targets`, decodes outputs to predictions, and scores these.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.metrics import r2_score
from sklearn.utils import check_array
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets, type_of_target

from skae.engine.networks.units import Gaussian, Mixed, Multinomial
from skae.engine.optimisation.devices import Place
from skae.engine.stacks.supervised import classification_error
from skae.engine.tangents.semi_supervised import shrunken_frequencies

_CPU = torch.device("cpu")
# Held-out rows are judged by their error rate and so much of their loss, up to so many nats.
_TIE, _MOST_NATS = 1e-6, 5.0


class Targets(NamedTuple):
    """Targets of rows, and the kind of them, whose output units they are of.

    ``values``, of shape (n_samples, n_outputs), are standardised numbers, or one-hot rows for
    classes, times how much they count and zero where the class is not known. ``weight`` is how
    much each row counts, where values do not say so; on average 1 over labelled rows, as the sums
    of one-hot rows are. ``labelled`` are rows with a target, and ``total`` is the sum of their
    weights, where those of all rows are 1 on average.
    """

    values: np.ndarray
    weight: np.ndarray | None
    labelled: np.ndarray
    total: float
    kind: "Classes | Numbers"

    def tensors(self, place: Place) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Values and weights as tensors."""
        weight = None if self.weight is None else place.tensor(self.weight)
        return place.tensor(self.values), weight

    def restricted(self, rows: np.ndarray) -> "Targets":
        """The same with the targets of the given rows alone."""
        keep = np.zeros(len(self.labelled), dtype=bool)
        keep[rows] = True
        restricted = self._replace(
            values=np.where(keep[:, None], self.values, 0.0), labelled=self.labelled & keep
        )
        if self.kind.groups is not None:
            return restricted
        weight = keep.astype(float) if self.weight is None else self.weight * keep
        return restricted._replace(weight=weight)

    def start_bias(self) -> torch.Tensor:
        """Pre-activation at which the output is the mean of the targets, as float64."""
        values = torch.tensor(self.values[self.labelled], dtype=torch.float64)
        if self.kind.groups is None:
            weight = None if self.weight is None else self.weight[self.labelled]
            return torch.tensor(np.average(values, axis=0, weights=weight), dtype=values.dtype)
        total = values.sum(0)
        for columns in self.kind.groups:
            total[columns] /= total[columns].sum().clamp(min=1e-30)
        return self.kind.units(_CPU).bias_for_mean(total)

    def class_frequencies(self, n_labels: float) -> torch.Tensor:
        """How often the classes of each output occur, as so many labels tell, as float64."""
        counts = torch.tensor(self.values[self.labelled].sum(0), dtype=torch.float64)
        # Values are 1 on average: that weights are repetitions, they do not say.
        counts *= n_labels / self.labelled.sum()
        for columns in self.kind.groups:
            counts[columns] = shrunken_frequencies(counts[columns])
        return counts


def _table(y):
    """One column for each output."""
    return y.reshape(len(y), -1)


def _require_outputs(table, n_outputs):
    if table.shape[1] != n_outputs:
        raise ValueError(f"y has {table.shape[1]} outputs, but this model has {n_outputs}.")


def _of_known(known, sample_weight):
    """The weights of the rows to judge by."""
    if not known.any():
        raise ValueError("No row is labelled, so there is nothing to judge by.")
    return None if sample_weight is None else np.asarray(sample_weight)[known]


@dataclass(frozen=True)
class Classes:
    """Targets that are classes, of one output or of several.

    ``unlabelled`` stands for an unknown class, and ``class_weight`` is as of the classifiers.
    ``classes`` are those of each output, once they are known.
    """

    unlabelled: float | str | None = -1
    class_weight: dict | list | str | None = None
    classes: list[np.ndarray] | None = None

    def checked(self, y) -> np.ndarray:
        """Labels of shape (n_samples, n_outputs), if they can be classes."""
        return _table(checked_classes(y))

    def described(self, table, weight=None, classes=None) -> "Classes":
        """The same kind with the classes of a table, or those that were announced."""
        check_class_weight(self.class_weight, table.shape[1])
        if classes is None:
            counted = table if weight is None else table[weight > 0]
            return replace(self, classes=find_classes(counted, self.unlabelled))
        several = table.shape[1] > 1
        found = [np.unique(names) for names in (classes if several else [classes])]
        if any(not is_known(names, self.unlabelled).all() for names in found):
            raise ValueError(
                f"classes={classes!r} contains {self.unlabelled}, which stands for an unknown "
                "class. If it is one of the classes, set unlabelled=None."
            )
        if len(found) != table.shape[1] or any(len(names) < 2 for names in found):
            raise ValueError(
                f"classes={classes!r} must have at least two classes for each of the "
                f"{table.shape[1]} outputs."
            )
        return replace(self, classes=found)

    @property
    def facts(self) -> dict:
        """What an estimator shows of them, by the attributes' names."""
        shown: Any
        several = np.arange(len(self.classes)) if self.is_multilabel else self.classes
        shown = self.classes[0] if self.is_single else several
        return {"output_classes_": self.classes, "classes_": shown}

    def encoded(self, table, row_weight=None) -> Targets:
        """A table as targets, with row weights of mean 1 over the rows that count.

        A ValueError tells of a class that is none of the known ones.
        """
        _require_outputs(table, len(self.classes))
        counts, positions = [], []
        for number, (column, names) in enumerate(zip(table.T, self.classes, strict=True)):
            known = is_known(column, self.unlabelled)
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
            counts.append(self._weighed(number, count, known, column, names, position))
            positions.append(position)
        labelled = np.any([count > 0 for count in counts], axis=0)
        values = []
        for names, count, position in zip(self.classes, counts, positions, strict=True):
            one_hot = np.zeros((len(table), len(names)))
            # On average 1 over the labelled rows.
            part = labelled.sum() / count.sum() if count.any() else 0.0
            one_hot[np.arange(len(table)), position] = count * part
            values.append(one_hot)
        total = float(np.sum(counts)) / len(counts)
        return Targets(np.hstack(values), None, labelled, total, self)

    @property
    def groups(self) -> list[np.ndarray]:
        """The columns of each output."""
        ends = np.cumsum([len(names) for names in self.classes])
        return [
            np.arange(end - len(names), end) for names, end in zip(self.classes, ends, strict=True)
        ]

    def units(self, device: torch.device) -> Multinomial | Mixed:
        """Output units, a softmax for each output."""
        if self.is_single:
            return Multinomial()
        parts = [(Multinomial(), torch.tensor(group, device=device)) for group in self.groups]
        return Mixed(parts)

    def strata(self, table, n_held_out: int) -> np.ndarray | None:
        """Classes that both parts of some rows should have alike, where they can."""
        _, counts = np.unique(table[:, 0], return_counts=True)
        few = min(n_held_out, len(table) - n_held_out) < len(counts) or counts.min() < 2
        return None if few or table.shape[1] > 1 else table[:, 0]

    def validation_loss(self) -> Callable:
        """(output, target) -> the loss of each row by which held-out rows are judged."""
        groups = [torch.tensor(columns) for columns in self.groups]
        units = self.units(_CPU)

        def error(output, target):
            wrong = classification_error(
                [output[:, columns] for columns in groups],
                [target[:, columns] for columns in groups],
            )
            # The loss decides between epochs of the same error, and never against a row.
            loss = units.negative_log_likelihood(output, target).clamp(max=_MOST_NATS)
            return wrong + _TIE * loss

        return error

    @property
    def is_single(self) -> bool:
        """Whether there is one output."""
        return len(self.classes) == 1

    @property
    def is_multilabel(self) -> bool:
        """Whether the outputs are labels that are there or not."""
        return not self.is_single and all(np.array_equal(names, [0, 1]) for names in self.classes)

    def by_output(self, output: np.ndarray) -> list[np.ndarray]:
        """The pre-activations of each output."""
        return [output[:, columns] for columns in self.groups]

    def gathered(self, found: list[np.ndarray]) -> np.ndarray | list[np.ndarray]:
        """Probabilities of each output as scikit-learn returns them."""
        if self.is_multilabel:
            return np.column_stack([of_output[:, 1] for of_output in found])
        return found[0] if self.is_single else found

    def predicted(self, output: np.ndarray) -> np.ndarray:
        """The most probable classes."""
        found = [
            names[part.argmax(1)]
            for names, part in zip(self.classes, self.by_output(output), strict=True)
        ]
        return found[0] if self.is_single else np.column_stack(found)

    def score(self, y, predicted: np.ndarray, sample_weight=None) -> float:
        """The part of the rows all of whose classes are known, and predicted."""
        table = self.checked(y)
        known = np.all([is_known(column, self.unlabelled) for column in table.T], axis=0)
        right = (np.reshape(predicted, table.shape) == table).all(1)
        return float(np.average(right[known], weights=_of_known(known, sample_weight)))

    def _weighed(self, number, count, known, column, names, position):
        """How much the rows count for one output, by the weights of their classes."""
        several = isinstance(self.class_weight, list)
        one = self.class_weight[number] if several else self.class_weight
        if one is None or not known.any():
            return count
        if isinstance(one, dict):
            return count * _weights_of(names.tolist(), one)[position]
        count[known] *= compute_sample_weight(one, column[known])
        return count


@dataclass(frozen=True)
class Numbers:
    """Targets that are numbers, one or several for each row; NaN where one is not known.

    ``mean`` and ``scale`` are of shape (n_outputs,), once they are known; the scale of a target
    that does not vary is 1.
    """

    mean: np.ndarray | None = None
    scale: np.ndarray | None = None

    def checked(self, y) -> np.ndarray:
        """Numbers of shape (n_samples, n_outputs)."""
        return _table(
            check_array(
                y, ensure_2d=False, dtype=np.float64, ensure_all_finite="allow-nan", input_name="y"
            )
        )

    def described(self, table, weight=None) -> "Numbers":
        """The same kind with mean and scale of a table."""
        known = ~np.isnan(table).any(1)
        if weight is not None:
            known &= weight > 0
        if not known.any():
            raise ValueError(
                "All rows that count have a NaN among their targets, which stands for an unknown "
                "one, so there is nothing to predict. Pass the targets of some rows, or learn "
                "features without any."
            )
        y, weight = table[known], None if weight is None else weight[known]
        mean = np.average(y, axis=0, weights=weight)
        scale = np.sqrt(np.average((y - mean) ** 2, axis=0, weights=weight))
        varies = scale > 10 * np.finfo(np.float64).eps * np.abs(y).max(0)
        return Numbers(mean, np.where(varies, scale, 1.0))

    @property
    def facts(self) -> dict:
        """What an estimator shows of them, by the attributes' names."""
        return {"target_mean_": self.mean, "target_scale_": self.scale}

    def encoded(self, table, row_weight=None) -> Targets:
        """A table as targets, with row weights of mean 1 over the rows that count."""
        _require_outputs(table, len(self.mean))
        labelled = ~np.isnan(table).any(1)
        values = np.where(labelled[:, None], (table - self.mean) / self.scale, 0.0)
        weight = labelled.astype(np.float64) if row_weight is None else labelled * row_weight
        total = float(weight.sum())
        if row_weight is not None:
            labelled = labelled & (row_weight > 0)
        if weight.all() and (weight == weight[0]).all():
            weight = None
        elif total > 0:
            weight = weight * (labelled.sum() / total)
        return Targets(values, weight, labelled, total, self)

    groups = None

    def units(self, device: torch.device) -> Gaussian:
        """Output units, of numbers that were divided by the scale."""
        return Gaussian.of_columns(torch.tensor(self.scale))

    def strata(self, table, n_held_out: int) -> None:
        """Numbers have no classes that two parts of the rows could have alike."""

    def validation_loss(self) -> None:
        """Held-out rows are judged by the loss of training."""

    def predicted(self, output: np.ndarray) -> np.ndarray:
        """Expected targets, in the units of y."""
        # float32 would lose targets that are small beside their mean.
        found = output * self.scale + self.mean
        return found[:, 0] if len(self.mean) == 1 else found

    def score(self, y, predicted: np.ndarray, sample_weight=None) -> float:
        """R^2 of the rows all of whose targets are known."""
        table = self.checked(y)
        known = ~np.isnan(table).any(1)
        weight = _of_known(known, sample_weight)
        return r2_score(
            table[known], np.reshape(predicted, table.shape)[known], sample_weight=weight
        )


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


def find_classes(y, unlabelled):
    """The classes of every output, from labels of shape (n_samples, n_outputs).

    A ValueError tells of an output without labels, or with one class alone.
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
        if len(names) == 1:
            hint = (
                f" {unlabelled} stands for an unknown class: if it is one of the classes, set "
                "unlabelled=None."
            )
            raise ValueError(
                f"y has one class only, {names.tolist()[0]!r}; a classifier needs at least two."
                + ("" if is_known(column, unlabelled).all() else hint)
            )
        classes.append(names)
    return classes


def is_known(column, unlabelled):
    """Which labels are classes."""
    if unlabelled is None or isinstance(unlabelled, str) != (column.dtype.kind in "OUST"):
        return np.ones(len(column), dtype=bool)
    return column != unlabelled


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


def infer_targets(y, row_weight: np.ndarray | None = None, unlabelled=-1) -> Targets:
    """Targets of an estimator that is neither classifier nor regressor, by the look of y.

    Integers, booleans and strings are classes, other numbers are numbers.
    """
    table = _table(y := np.asarray(y))
    has_gaps = table.dtype.kind == "f" and np.isnan(table).any()
    if has_gaps or type_of_target(y).startswith("continuous"):
        kind: Numbers | Classes = Numbers()
    else:
        check_classification_targets(y)
        kind = Classes(unlabelled)
    return kind.described(table, row_weight).encoded(table, row_weight)
