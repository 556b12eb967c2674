"""What y says: one column for each output, and which entries are known.

Rows without a target stay among the others, so y has marks of what is not known: NaN among numbers,
and a value that the user chooses among classes.
"""

from dataclasses import dataclass
from numbers import Real

import numpy as np
from sklearn.utils import check_array, check_consistent_length
from sklearn.utils.multiclass import check_classification_targets

from skae._validation import as_array, check_weights, is_missing
from skae._warnings import warn
from skae.engine.optimisation import processes


@dataclass(frozen=True)
class Table:
    """Targets of rows, one column for each output.

    ``values`` and ``known`` are of shape (n_samples, n_outputs); what stands where a target is not
    known means nothing. ``names`` are those of the outputs.
    """

    values: np.ndarray
    known: np.ndarray
    names: tuple

    @property
    def n_outputs(self) -> int:
        """How many outputs there are."""
        return self.values.shape[1]

    def label(self, number: int) -> str:
        """What to call an output in a message: "", where there is one alone."""
        return "" if self.n_outputs == 1 else f" in output {self.names[number]!r}"


def read_numbers(y) -> Table:
    """Numbers; NaN, None and NA stand for what is not known.

    Raises a ValueError for infinity, text and other shapes than of columns.
    """
    names, y = _output_names(y), as_array(y)
    kind = np.asarray(y).dtype.kind
    if kind in "mM":
        raise ValueError(
            "y must be numbers, but holds dates or durations. Count them in a unit of your choice, "
            "such as (y - y.min()) / np.timedelta64(1, 'D'); what is missing becomes NaN then."
        )
    if kind == "O":
        y = np.where(is_missing(np.asarray(y)), np.nan, y)
    options = {"ensure_2d": False, "ensure_all_finite": "allow-nan", "input_name": "y"}
    try:
        values = _columns(check_array(y, dtype=np.float64, **options))
    except (ValueError, TypeError) as error:
        if isinstance(error, TypeError) or "could not convert" in str(error):
            raise ValueError(f"y must be numbers: {error}.") from error
        raise
    return Table(values, ~np.isnan(values), _numbered(names, values))


def read_labels(y, unlabelled) -> Table:
    """Classes, of which ``unlabelled`` stands for an unknown one; NaN for any that is missing.

    NumPy may have changed the mark: -1 among strings is "-1", and a string is cut to the width of
    the others. The first is understood; of the second, and of what is missing without being
    a mark, of strings among numbers and of targets that are no classes, a ValueError tells.
    """
    names, values = _output_names(y), _any_targets(y)
    if values.dtype.kind == "f" and np.isinf(values).any():
        raise ValueError(
            f"Input y contains infinity or a value too large for dtype('{values.dtype}'), which is "
            "no class."
        )
    missing = is_missing(values)
    known = ~missing
    if unlabelled is None or unlabelled == unlabelled:
        if missing.any():
            raise ValueError(
                f"Input y contains NaN or None, first in row {np.argwhere(missing)[0, 0]}. If it "
                "stands for an unknown class, set unlabelled=numpy.nan; else leave the row out."
            )
        if unlabelled is not None:
            _refuse_cut_mark(values, unlabelled)
            known = np.asarray(~_is_mark(values, unlabelled), dtype=bool)
    labels = _of_one_kind(values[known])
    if len(labels):
        check_classification_targets(labels)
        values = np.full(values.shape, labels[0], dtype=labels.dtype)
        values[known] = labels
    return Table(values, known, _numbered(names, values))


def known_rows(y, unlabelled) -> tuple[np.ndarray, np.ndarray]:
    """Targets of any kind, one column for each output, and the rows all of whose are known."""
    values = _any_targets(y)
    known = ~is_missing(values)
    if unlabelled is not None and unlabelled == unlabelled:
        known[known] = ~_is_mark(values[known], unlabelled)  # NA compares with nothing
    known = np.asarray(known.all(axis=1))
    if values.dtype.kind == "O":
        labels = _of_one_kind(values[known])
        values = np.zeros(values.shape, labels.dtype)
        values[known] = labels
    return values, known


def _any_targets(y):
    """Targets of any kind, known or not, one column for each output."""
    options = {"ensure_2d": False, "ensure_all_finite": False, "input_name": "y"}
    return _columns(check_array(as_array(y), dtype=None, **options))


def require_same_rows(table: Table, predicted: np.ndarray, sample_weight, n_outputs: int):
    """Weights, or None, of true targets that are to be compared with predictions.

    Raises a ValueError for other numbers of rows or outputs, and for weights that are none.
    """
    check_consistent_length(predicted, table.values)
    require_outputs(table, n_outputs)
    return check_weights(sample_weight, predicted)


def require_outputs(table: Table, n_outputs: int) -> None:
    """Raise a ValueError for another number of outputs."""
    if table.n_outputs != n_outputs:
        raise ValueError(f"y has {table.n_outputs} outputs, but this model has {n_outputs}.")


def require_same_kind(labels: np.ndarray, classes: np.ndarray) -> None:
    """Raise a ValueError for strings where classes are numbers, and for numbers among strings."""
    if len(labels) and is_text(labels) != is_text(classes):
        kinds = ("strings", "numbers") if is_text(labels) else ("numbers", "strings")
        raise ValueError(
            f"y has {kinds[0]}, such as {labels.tolist()[0]!r}, but the classes of this model are "
            f"{kinds[1]}, {classes.tolist()[:5]}. Pass labels of the same type."
        )


def is_text(labels: np.ndarray) -> bool:
    """Whether labels of one kind are strings."""
    return labels.dtype.kind in "UT" or (labels.dtype == object and isinstance(labels[0], str))


def find_classes(table: Table, unlabelled, counts=None) -> list[np.ndarray]:
    """The classes of every output, of the rows that count: a mask, or None for all.

    Raises a ValueError for an output without labels, and for a single one that has one class
    alone. Where there are several, such an output predicts that class: of labels that are there
    or not, it is no other than what is seen.
    """
    classes = []
    for number, column in enumerate(table.values.T):
        known = table.known[:, number] if counts is None else table.known[:, number] & counts
        # Also of the rows of the other processes of the fit.
        names = np.unique(np.concatenate(processes.current().gather(np.unique(column[known]))))
        if len(names) == 0:
            raise ValueError(
                f"All labels{table.label(number)} are {unlabelled}, which stands for an unknown "
                "class, or are of rows of weight 0, so there is nothing to predict. Pass the "
                "labels of some rows, or learn features without labels with StackedAutoEncoder."
            )
        if len(names) == 1 and table.n_outputs == 1:
            hint = (
                f" {unlabelled} stands for an unknown class: if it is one of the classes, set "
                "unlabelled=None."
            )
            raise ValueError(
                f"y has one class only, {names.tolist()[0]!r}; a classifier needs at least two."
                + ("" if table.known.all() else hint)
            )
        if len(names) == 1:
            warn(
                f"All known labels{table.label(number)} are {names.tolist()[0]!r}: it will be "
                "predicted for every row.",
                UserWarning,
            )
            if _is_binary(table, number):
                names = np.array([0, 1], dtype=names.dtype)
        classes.append(names)
    _warn_of_collision(table.values, table.known, unlabelled)
    return classes


def _is_binary(table, number):
    """Whether an output of numbers has 0 and 1 alone, as labels that are there or not."""
    column = table.values[table.known[:, number], number]
    return column.dtype.kind in "iuf" and bool(np.isin(column, (0, 1)).all())


def _columns(y):
    """One column for each output."""
    return y.reshape(len(y), -1)


def _output_names(y):
    names = getattr(y, "columns", None)
    return None if names is None else tuple(names)


def _numbered(names, values):
    return tuple(range(values.shape[1])) if names is None else names


def _texts(mark):
    """What a number may have become among strings."""
    return {str(mark), f"{mark:g}", f"{float(mark)}"}


def _is_mark(values, unlabelled) -> np.ndarray:
    """Which labels stand for an unknown class."""
    if values.dtype == object:
        texts = {unlabelled} if isinstance(unlabelled, str) else _texts(unlabelled)
        marks = [v in texts if isinstance(v, str) else v == unlabelled for v in values.flat]
        return np.reshape(np.array(marks, dtype=bool), values.shape)
    if values.dtype.kind in "UT":
        texts = {unlabelled} if isinstance(unlabelled, str) else _texts(unlabelled)
        return np.isin(values, sorted(texts))
    if isinstance(unlabelled, str):
        return np.zeros(values.shape, dtype=bool)
    return np.asarray(values == unlabelled)


def _refuse_cut_mark(values, unlabelled):
    if values.dtype.kind != "U":
        return
    mark = str(unlabelled)
    width = values.dtype.itemsize // 4
    if len(mark) > width and (values == mark[:width]).any():
        raise ValueError(
            f"y holds strings of {width} characters at most, of which {mark[:width]!r} may be what "
            f"is left of the mark {mark!r} of unknown classes. Make room for it before you set it, "
            "by y.astype(object). If it is a class, pass y.astype(object), too."
        )


def _of_one_kind(labels):
    """Known labels with a dtype of their own; a ValueError tells of strings among numbers."""
    if labels.dtype != object or not len(labels):
        return labels
    kinds = {isinstance(label, str) for label in labels}
    if len(kinds) > 1:
        raise ValueError(
            "y mixes strings with other values. Where classes are strings, let a string stand "
            "for the unknown class, such as unlabelled='?', or -1."
        )
    if kinds == {True} or not all(isinstance(label, Real | np.bool_) for label in labels):
        return labels
    return np.array(labels.tolist())


def _warn_of_collision(values, known, unlabelled):
    """Warn where -1 seems to be a class: beside others below it, or as frequent as 0 or 1 beside
    these, as far as chance tells. Any other mark was chosen.
    """
    if not isinstance(unlabelled, Real) or unlabelled != -1 or known.all():
        return
    for column, own in zip(values.T, known.T, strict=True):
        names, counts = np.unique(column[own], return_counts=True)
        try:
            numbers = names.astype(np.float64)
        except ValueError:
            continue
        n_unknown, most = (~own).sum(), counts.max(initial=0)
        is_usual = 0 < n_unknown <= most + np.sqrt(most)
        is_one_of_three = np.array_equal(numbers, [0, 1]) and is_usual
        if (numbers < -1).any() or is_one_of_three:
            warn(
                f"y has -1 beside {names.tolist()[:5]}: {n_unknown} rows are taken for "
                "unlabelled. If -1 is one of the classes, set unlabelled=None; else another mark, "
                "such as unlabelled=-2 or numpy.nan, says so.",
                UserWarning,
            )


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


def weights_of_classes(names, class_weight):
    """The weights that a dict gives to classes, 1 to those that it does not name."""
    # Not scikit-learn's function: a part of a stream may lack classes that the dict weighs.
    unknown = set(class_weight) - set(names)
    if unknown and not set(names) <= set(class_weight):
        raise ValueError(
            f"class_weight has weights of {sorted(map(str, unknown))}, which are none of the "
            f"classes {names}."
        )
    return np.array([class_weight.get(name, 1.0) for name in names])
