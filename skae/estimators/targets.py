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

from skae._validation import as_array, is_missing
from skae.engine.networks.mixed import Mixed
from skae.engine.networks.units import Gaussian, Multinomial
from skae.engine.optimisation import processes
from skae.engine.optimisation.devices import Place
from skae.engine.stacks.supervised import classification_error
from skae.engine.tangents.semi_supervised import shrunken_frequencies
from skae.estimators.labels import (
    Table,
    check_class_weight,
    find_classes,
    read_labels,
    read_numbers,
    require_outputs,
    require_same_kind,
    require_same_rows,
    weights_of_classes,
)

_CPU = torch.device("cpu")
# Held-out rows are judged by their error rate and so much of their loss, up to so many nats.
_TIE, _MOST_NATS = 1e-6, 5.0
# Numbers beyond which sums and differences of two overflow.
_LARGEST = np.finfo(np.float64).max / 1e3


class Targets(NamedTuple):
    """Targets of rows, and the kind of them, whose output units they are of.

    ``values``, of shape (n_samples, n_outputs), are standardised numbers, or one-hot rows for
    classes, times how much they count and zero where the class is not known. ``weight`` is how
    much each row counts, where values do not say so; on average 1 over labelled rows, as the sums
    of one-hot rows are; of shape (n_samples, n_outputs) where some rows miss one number of several.
    ``labelled`` are rows with a target, and ``total`` is the sum of their weights, where those of
    all rows are 1 on average; ``class_totals``, one for each class, those without the weights of
    classes, or None for numbers.
    """

    values: np.ndarray
    weight: np.ndarray | None
    labelled: np.ndarray
    total: float
    kind: "Classes | Numbers"
    class_totals: np.ndarray | None = None

    def tensors(self, place: Place) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Values and weights as tensors."""
        weight = None if self.weight is None else place.tensor(self.weight)
        return place.tensor(self.values), weight

    def times(self, factor: float) -> "Targets":
        """The same with totals of weights that are so many times as large."""
        totals = None if self.class_totals is None else self.class_totals * factor
        return self._replace(total=self.total * factor, class_totals=totals)

    def restricted(self, rows: np.ndarray) -> "Targets":
        """The same with the targets of the given rows alone."""
        keep = np.zeros(len(self.labelled), dtype=bool)
        keep[rows] = True
        restricted = self._replace(
            values=np.where(keep[:, None], self.values, 0.0), labelled=self.labelled & keep
        )
        if self.kind.groups is not None:
            return restricted
        keep = keep if self.weight is None or self.weight.ndim == 1 else keep[:, None]
        weight = keep.astype(float) if self.weight is None else self.weight * keep
        return restricted._replace(weight=weight)

    def taken(self, rows: np.ndarray) -> "Targets":
        """Those of some of the rows."""
        weight = None if self.weight is None else self.weight[rows]
        return self._replace(values=self.values[rows], weight=weight, labelled=self.labelled[rows])

    def start_bias(self) -> torch.Tensor:
        """Pre-activation at which the output is the mean of the targets, as float64."""
        values = torch.tensor(self.values[self.labelled], dtype=torch.float64)
        if self.kind.groups is None:
            weight = None if self.weight is None else self.weight[self.labelled]
            mean = processes.current().average(values.numpy(), weight)
            return torch.tensor(mean, dtype=values.dtype)
        total = processes.current().sum_(values.sum(0))
        for columns in self.kind.groups:
            total[columns] /= total[columns].sum().clamp(min=1e-30)
        return self.kind.units(_CPU).bias_for_mean(total)

    def class_frequencies(self) -> torch.Tensor:
        """How often the classes of each output occur, as so many labels tell, as float64.

        Weights of classes are about the loss, not about how often they occur.
        """
        counts = torch.tensor(self.class_totals, dtype=torch.float64)
        for columns in self.kind.groups:
            counts[columns] = shrunken_frequencies(counts[columns])
        return counts


def _of_known(known, weight):
    """The weights of the rows to judge by."""
    of_known = known[known] if weight is None else weight[known]
    if not of_known.any():
        raise ValueError("No row is labelled and counts, so there is nothing to judge by.")
    return None if weight is None else of_known


@dataclass(frozen=True)
class Classes:
    """Targets that are classes, of one output or of several.

    ``unlabelled`` stands for an unknown class, and ``class_weight`` is as of the classifiers.
    ``classes`` are those of each output, once they are known.
    """

    unlabelled: float | str | None = -1
    class_weight: dict | list | str | None = None
    classes: list[np.ndarray] | None = None

    def checked(self, y) -> Table:
        """Labels, if they can be classes."""
        return read_labels(y, self.unlabelled)

    def described(self, table, weight=None, classes=None) -> "Classes":
        """The same kind with the classes of a table, or those that were announced."""
        check_class_weight(self.class_weight, table.n_outputs)
        if classes is None:
            counts = None if weight is None else weight > 0
            return replace(self, classes=find_classes(table, self.unlabelled, counts))
        announced = classes if table.n_outputs > 1 else [classes]
        if table.n_outputs > 1 and np.array_equal(classes, np.arange(table.n_outputs)):
            announced = [[0, 1]] * table.n_outputs  # the numbers of labels that are there or not
        tables = [read_labels(np.unique(as_array(names)), self.unlabelled) for names in announced]
        found = [np.unique(names.values[names.known]) for names in tables]
        if any(not names.known.all() for names in tables):
            raise ValueError(
                f"classes={classes!r} contains {self.unlabelled}, which stands for an unknown "
                "class. If it is one of the classes, set unlabelled=None."
            )
        if len(found) != table.n_outputs or any(len(names) < 2 for names in found):
            raise ValueError(
                f"classes={classes!r} must have at least two classes for each of the "
                f"{table.n_outputs} outputs."
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
        require_outputs(table, len(self.classes))
        counts, positions, totals, everyone = [], [], [], processes.current()
        for number, names in enumerate(self.classes):
            column, known = table.values[:, number], table.known[:, number].copy()
            require_same_kind(column[known], names)
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
            totals.append(everyone.total(np.bincount(position, count, len(names))))
            counts.append(count * self._weights(number, totals[-1])[position])
            positions.append(position)
        labelled = np.any([count > 0 for count in counts], axis=0)
        values, n_labelled = [], everyone.total(int(labelled.sum()))
        for names, count, position in zip(self.classes, counts, positions, strict=True):
            one_hot = np.zeros((len(labelled), len(names)))
            # On average 1 over the labelled rows.
            whole = everyone.total(count.sum())
            part = n_labelled / whole if whole > 0 else 0.0
            one_hot[np.arange(len(labelled)), position] = count * part
            values.append(one_hot)
        total = everyone.total(float(np.sum(counts))) / len(counts)
        return Targets(np.hstack(values), None, labelled, total, self, np.concatenate(totals))

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

    def strata(self, table, rows, n_held_out: int) -> np.ndarray | None:
        """Classes that both parts of some rows should have alike, where they can."""
        labels = table.values[rows, 0]
        _, counts = np.unique(labels, return_counts=True)
        few = min(n_held_out, len(labels) - n_held_out) < len(counts) or counts.min() < 2
        return None if few or table.n_outputs > 1 else labels

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
        weight = require_same_rows(table, predicted, sample_weight, len(self.classes))
        for column, known, names in zip(table.values.T, table.known.T, self.classes, strict=True):
            require_same_kind(column[known], names)
        known = table.known.all(axis=1)
        right = (predicted.reshape(table.values.shape) == table.values).all(1)
        return float(np.average(right[known], weights=_of_known(known, weight)))

    def _weights(self, number, totals):
        """Weights of the classes of one output, from how often they occur.

        "balanced" weighs them as scikit-learn does, by the rows' weights too.
        """
        several = isinstance(self.class_weight, list)
        one = self.class_weight[number] if several else self.class_weight
        if isinstance(one, dict):
            return weights_of_classes(self.classes[number].tolist(), one)
        if one is None or not totals.any():
            return np.ones(len(totals))
        return totals.sum() / (np.sum(totals > 0) * np.where(totals > 0, totals, 1.0))


@dataclass(frozen=True)
class Numbers:
    """Targets that are numbers, one or several for each row; NaN where one is not known.

    ``mean`` and ``scale`` are of shape (n_outputs,), once they are known; the scale of a target
    that does not vary is 1.
    """

    mean: np.ndarray | None = None
    scale: np.ndarray | None = None

    def checked(self, y) -> Table:
        """Numbers, if they can be such."""
        return read_numbers(y)

    def described(self, table, weight=None) -> "Numbers":
        """The same kind with mean and scale of a table, of each output over its known numbers."""
        mean, scale = np.zeros(table.n_outputs), np.ones(table.n_outputs)
        everyone = processes.current()
        for number, (column, known) in enumerate(zip(table.values.T, table.known.T, strict=True)):
            known = known if weight is None else known & (weight > 0)
            if not everyone.any(bool(known.any())):
                raise ValueError(
                    f"All rows that count have NaN among their targets{table.label(number)}, which "
                    "stands for an unknown target, so there is nothing to predict. Pass the "
                    "targets of some rows, or learn features without any."
                )
            y = column[known]
            size = max(everyone.gather(np.abs(y).max(initial=0.0)))
            if size > _LARGEST:
                raise ValueError(
                    f"y has numbers of {size:.3g}{table.label(number)}, of which differences "
                    "overflow. Rescale it."
                )
            # By their size first: squares of large ones overflow, those of small ones vanish.
            y = y / (size or 1.0)
            of_known = None if weight is None else weight[known]
            centre = everyone.average(y, of_known)
            spread = np.sqrt(everyone.average((y - centre) ** 2, of_known))
            ends = everyone.gather((y.min(initial=np.inf), y.max(initial=-np.inf)))
            least, most = (list(part) for part in zip(*ends, strict=True))
            varies = spread > 10 * np.finfo(np.float64).eps and min(least) < max(most)
            mean[number] = centre * size
            scale[number] = spread * size if varies and spread * size > 0 else 1.0
        return Numbers(mean, scale)

    @property
    def facts(self) -> dict:
        """What an estimator shows of them, by the attributes' names."""
        return {"target_mean_": self.mean, "target_scale_": self.scale}

    def encoded(self, table, row_weight=None) -> Targets:
        """A table as targets, with row weights of mean 1 over the rows that count."""
        require_outputs(table, len(self.mean))
        known = table.known if row_weight is None else table.known & (row_weight > 0)[:, None]
        values = np.where(known, (table.values - self.mean) / self.scale, 0.0)
        labelled, everyone = known.any(axis=1), processes.current()
        misses_some = everyone.any(not np.array_equal(known.any(1), known.all(1)))
        count = known if misses_some else labelled
        if row_weight is not None:
            count = (count.T * row_weight).T
        total = everyone.total(float(count.sum())) / (known.shape[1] if misses_some else 1)
        first = everyone.first(count.flat[0])
        if not everyone.any(not (first and (count == first).all())):
            return Targets(values, None, labelled, total, self)
        # On average 1 over the labelled rows, in every output.
        sums = np.maximum(everyone.total(count.sum(axis=0)), np.finfo(np.float64).tiny)
        n_labelled = everyone.total(int(labelled.sum()))
        return Targets(values, count * (n_labelled / sums), labelled, total, self)

    groups = None

    def units(self, device: torch.device) -> Gaussian:
        """Output units, of numbers that were divided by the scale."""
        return Gaussian.of_columns(torch.tensor(self.scale))

    def strata(self, table, rows, n_held_out: int) -> None:
        """Numbers have no classes that two parts of the rows could have alike."""

    def validation_loss(self) -> None:
        """Held-out rows are judged by the loss of training."""

    def predicted(self, output: np.ndarray) -> np.ndarray:
        """Expected targets, in the units of y."""
        found = output * self.scale + self.mean
        if output.dtype == np.float32 and self._fits_float32:
            found = found.astype(np.float32)
        return found[:, 0] if len(self.mean) == 1 else found

    @property
    def _fits_float32(self):
        """Whether float32 tells targets apart that differ by a thousandth of their scale."""
        limits, size = np.finfo(np.float32), np.abs(self.mean) + 100 * self.scale
        resolves = np.abs(self.mean) * limits.eps < 1e-3 * self.scale
        return bool((resolves & (size < limits.max) & (self.scale > 1e6 * limits.tiny)).all())

    def score(self, y, predicted: np.ndarray, sample_weight=None) -> float:
        """R^2 of each output on the rows whose number is known; their mean."""
        table = self.checked(y)
        weight = require_same_rows(table, predicted, sample_weight, len(self.mean))
        found = []
        for column, known, own in zip(
            table.values.T, table.known.T, predicted.reshape(table.values.shape).T, strict=True
        ):
            of_known = _of_known(known, weight)
            if weight is not None:  # a row of no weight does not count, however far it is
                own = np.where(weight > 0, own, column)
            size = np.abs(column[known]).max() or 1.0  # squares may overflow or vanish
            found.append(r2_score(column[known] / size, own[known] / size, sample_weight=of_known))
        return float(np.mean(found))


def infer_targets(y, row_weight: np.ndarray | None = None, unlabelled=-1) -> Targets:
    """Targets of an estimator that is neither classifier nor regressor, by the type of y.

    Integers, booleans and strings are classes. Floats are numbers, whole or not: counts and prices
    are no classes unless the user says so.
    """
    given = np.asarray(as_array(y))
    is_float = given.dtype.kind == "f"
    if given.dtype.kind == "O":
        is_float = any(isinstance(label, float | np.floating) for label in given.flat)
        unlabelled = np.nan if is_missing(given).any() else unlabelled
    kind: Numbers | Classes = Numbers() if is_float else Classes(unlabelled)
    table = kind.checked(y)
    return kind.described(table, row_weight).encoded(table, row_weight)
