r"""Tables as people have them, with text, categories, dates and gaps, as the rows of a network.

An `Encoding` says what the columns of a table have become: a number is one column, on a scale
without heavy tails; two values are a column of 0 and 1; more are one column for each of them.
What is missing, or was never seen in `fit`, is NaN in all columns of its variable: not observed.
A column that was never observed at all has become no column, and nothing else knows of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import count
from typing import NamedTuple

import numpy as np
from scipy import sparse

from skae._validation import check_no_infinity, column_indices
from skae._warnings import is_in_layer, warn
from skae.frames.columns import Cells, library_of, names_of, read_columns
from skae.frames.making import as_objects, as_times, make_frame
from skae.frames.variables import (
    VECTORIZER,
    Variable,
    category_variable,
    number_variable,
    refuse_numbers_as_text,
)

# What `numbers` may be that makes numbers of an array others.
_ENCODED = ("clipped", "normal_scores")
# Part of the rows of a text that may be pooled without a warning.
_POOLED = 0.25
# A text of so many values or fewer is no text to be read.
_MANY = 30
_NOTHING = "X has no observed value in any of its columns: all entries are missing."


@dataclass(frozen=True)
class Encoding:
    """What a table's columns have become: fitted state of an estimator.

    - ``variables``: a `Variable` for each column of the table, in order.
    - ``library``, ``labels``: of the frame; None for an array.
    - ``dtype``: of the encoded rows.
    - ``is_array``: whether these are the columns of an array, as they are, but for empty ones.
    """

    variables: tuple[Variable, ...]
    library: str | None
    labels: tuple | None
    dtype: np.dtype = field(default=np.dtype(np.float32))
    is_array: bool = False

    @property
    def n_columns(self) -> int:
        """How many encoded columns there are."""
        return max(variable.columns.stop for variable in self.variables)  # empty ones have none

    @property
    def empty(self) -> list[str]:
        """Names of the table's columns that were never observed."""
        return [variable.name for variable in self.variables if variable.is_empty]

    @cached_property
    def names(self) -> np.ndarray:
        """Names of the encoded columns: a category's are "colour_red", "colour_infrequent"."""
        found = [name for variable in self.variables for name in variable.names]
        return np.array(distinct_names(found), dtype=object)

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """The kind of the variable of each encoded column."""
        return tuple(
            v.kind for v in self.variables for _ in range(v.columns.stop - v.columns.start)
        )

    @cached_property
    def raw_columns(self) -> np.ndarray:
        """The number of the table's column that each encoded column is of."""
        widths = [v.columns.stop - v.columns.start for v in self.variables]
        return np.repeat(np.arange(len(widths)), widths)

    def encoded_columns(self, columns: np.ndarray) -> np.ndarray:
        """The encoded columns of some of the table's, in that order."""
        parts = [np.arange(v.columns.start, v.columns.stop) for v in self.variables]
        return np.concatenate([parts[c] for c in columns]) if len(columns) else np.arange(0)

    def encode(self, X) -> np.ndarray:
        """The rows of a table as an array; NaN is what was not observed.

        Raises a ValueError for infinity, and for columns that hold something else than in `fit`.
        """
        if self.is_array and library_of(X) is None:
            kept = np.flatnonzero([not variable.is_empty for variable in self.variables])
            rows = X[:, kept] if sparse.issparse(X) else np.take(X, kept, axis=1)
            return rows.astype(self.dtype, copy=False)
        return self._encoded(list(read_columns(X)))

    def _encoded(self, cells):
        rows = np.empty((len(cells[0].observed), self.n_columns), dtype=self.dtype)
        for number, (variable, column) in enumerate(zip(self.variables, cells, strict=True)):
            check_no_infinity(column.numbers, number, variable.name)
            variable.encode(column, rows[:, variable.columns])
        return rows

    def decode(
        self, values: np.ndarray, *, rounds: bool = False, known: Mapping[int, Cells] | None = None
    ):
        """A table of encoded rows, as the user's: a frame with its names and dtypes, or an array.

        An array is of the dtype of ``values``, or float64 where that would not hold its numbers; of
        dates, of theirs; of objects, where there is text or dates.
        Categories are the most probable ones (of those that are pooled, the most frequent one),
        whole numbers are whole, and no number is outside of what was seen in training. With
        ``rounds``, numbers have no more decimals than there. What is ``known`` of some columns, by
        their numbers, is as it was, to the last digit.
        """
        columns = [
            variable.decode(values[:, variable.columns], rounds=rounds)
            for variable in self.variables
        ]
        for number, cells in (known or {}).items():
            columns[number] = cells.over(columns[number])
        if self.library is None:
            dtype = self.variables[0].dtype
            if dtype is not None and dtype.kind in "mM":
                return np.column_stack([as_times(column, dtype) for column in columns])
            have_times = any(v.holds in ("dates", "durations") for v in self.variables)
            if not have_times and all(isinstance(column, np.ndarray) for column in columns):
                rows = np.column_stack(columns)
                with np.errstate(over="ignore"):
                    narrow = rows.astype(values.dtype)
                return rows if np.isinf(narrow).any() else narrow
            table = np.empty((len(values), len(columns)), dtype=object)
            for number, column in enumerate(self._as_objects(columns)):
                table[:, number] = column
            return table
        holds = [variable.holds for variable in self.variables]
        dtypes = [variable.dtype for variable in self.variables]
        columns = self._as_objects(columns)
        return make_frame(self.library, list(self.labels or ()), columns, holds, dtypes)

    def _as_objects(self, columns):
        """Columns with what was read of Python's objects as such."""
        return [
            as_objects(column, variable.objects, variable.decimals)
            if variable.objects and isinstance(column, np.ndarray) and not np.isnan(column).any()
            else column
            for variable, column in zip(self.variables, columns, strict=True)
        ]

    def log_derivative(self, encoded: np.ndarray, columns=None) -> np.ndarray:
        r"""The log-determinant of d encoded / d x of every row: sums over its observed numbers.

        .. math:: \log \frac{du}{dx} = \tfrac{3}{2} \log(1 - u^2 / 9) - \log \text{width}

        A density of the encoded rows times its exponential is one of the table's numbers. Only
        those of the encoded ``columns`` count, where they are given.
        """
        terms = self.log_derivatives(encoded)
        return (terms if columns is None else terms[:, np.unique(columns)]).sum(axis=1)

    def log_derivatives(self, encoded: np.ndarray) -> np.ndarray:
        """The terms of that sum, one for each encoded column."""
        terms = np.zeros((encoded.shape[0], self.n_columns))
        if self.is_array:  # which may be sparse
            return terms
        for variable in self.variables:
            if variable.is_empty or not variable.is_numeric:
                continue
            u = np.asarray(encoded[:, variable.columns.start], dtype=np.float64)
            terms[:, variable.columns.start] = np.where(np.isnan(u), 0.0, variable.log_slope(u))
        return terms


def distinct_names(names: list[str]) -> list[str]:
    """Names, of which one that was there before has "_2" behind it, or "_3" and so on.

    The categories 1 and "1" are named alike, and so are "red" of "a" and a column "a_red".
    """
    found: dict[str, None] = {}
    taken = set(names)
    for name in names:
        if name in found:
            name = next(n for k in count(2) if (n := f"{name}_{k}") not in taken)
            taken.add(name)
        found[name] = None
    return list(found)


def asks_for_encoding(parameters) -> bool:
    """Whether an estimator's parameters ask for an encoding of numbers alone, too."""
    return parameters.numbers in _ENCODED or not isinstance(parameters.categorical_features, str)


class Counted(NamedTuple):
    """A column as far as its rows count: ``cells``, and which of them count, or how many rows each
    of their values has.
    """

    cells: Cells
    n_rows: np.ndarray | None
    rows: np.ndarray | None = None

    def of_values(self):
        """The cells as values, and how many rows each has."""
        cells = self.cells.as_values()
        if self.n_rows is not None:
            return cells, self.n_rows
        known = (cells.codes >= 0) if self.rows is None else (cells.codes >= 0) & self.rows
        return cells, np.bincount(cells.codes[known], minlength=len(cells.values))

    @property
    def of_numbers(self):
        """The cells, and which of them count."""
        rows = self.rows
        return self.cells, np.ones(len(self.cells.observed), bool) if rows is None else rows


def chosen_columns(X, features) -> set:
    """Positions of the columns that the user says are categories."""
    if isinstance(features, str):
        return set()
    features = np.asarray(features)
    if features.dtype.kind == "b" and features.shape != (X.shape[1],):
        raise ValueError(
            f"categorical_features is a mask of shape {features.shape}, but X has {X.shape[1]} "
            "columns."
        )
    if features.dtype.kind not in "biuUO" or features.ndim != 1:
        raise ValueError(
            f"categorical_features={features!r} must be 'from_dtype', a mask, or indexes or names "
            "of columns."
        )
    if library_of(X) and features.dtype.kind in "UO":
        names = names_of(X)
        unknown = [name for name in features.tolist() if name not in names]
        if unknown:
            raise ValueError(
                f"categorical_features names {unknown[:5]}, but X has the columns {names[:20]}."
            )
        return {names.index(name) for name in features.tolist()}
    if features.dtype.kind in "UO":
        raise ValueError("categorical_features has names, but X is no data frame: use indexes.")
    try:
        return set(column_indices(np.empty((1, X.shape[1])), features).tolist())
    except ValueError as error:
        raise ValueError(f"categorical_features={features.tolist()}: {error}.") from error


def make_encoding(columns, names, chosen, parameters, library, labels) -> Encoding:
    """The encoding of `Counted` columns, as an estimator's parameters say."""
    ranks, start, variables, pooling = parameters.numbers == "normal_scores", 0, [], []
    clips = parameters.numbers != "standardized" and not ranks
    for number, (counted, name) in enumerate(zip(columns, names, strict=True)):
        column = counted.cells
        check_no_infinity(column.numbers, number, name)
        is_chosen = number in chosen
        if is_chosen and column.holds in ("dates", "durations"):
            raise ValueError(
                f"categorical_features names column {name!r}, which holds {column.holds}. Leave it "
                "out, or convert it to text."
            )
        if column.codes is not None or (is_chosen and column.holds != "booleans"):
            if column.holds == "texts" and not is_chosen:
                refuse_numbers_as_text(column, name)
            cells, n_rows = counted.of_values()
            variable, share = category_variable(cells, n_rows, name, parameters)
            is_text = column.holds == "texts" and len(column.values) > _MANY
            pooling += [name] if is_text and share > _POOLED else []
        else:
            cells, rows = counted.of_numbers
            variable = number_variable(cells, rows, name, clips, ranks)
        variable = replace(variable, columns=slice(start, start + len(variable.names)))
        start = variable.columns.stop
        variables.append(variable)
    if not start:
        raise ValueError(_NOTHING)
    if pooling and not is_in_layer():
        _warn_of_text(pooling)
    dtype = np.dtype(np.float32 if clips or ranks else np.float64)
    return Encoding(tuple(variables), library, labels, dtype)


def report_empty(encoding: Encoding | None) -> None:
    """Warn of columns that were never observed, once for a stack and its layers."""
    if encoding is None or not encoding.empty or is_in_layer():
        return
    names, one = encoding.empty, len(encoding.empty) == 1
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    warn(
        f"{'Column' if one else 'Columns'} {', '.join(map(repr, names[:5]))}{more} of X "
        f"{'has' if one else 'have'} no observed value in fit. The model leaves "
        f"{'it' if one else 'them'} out, whatever comes later, and gives "
        f"{'it' if one else 'them'} back missing. Drop {'it' if one else 'them'}, or fit on rows "
        "that have some values there.",
        UserWarning,
    )


def _warn_of_text(names):
    warn(
        f"Text of many values in {'column' if len(names) == 1 else 'columns'} "
        f"{', '.join(map(repr, names))}: more than a quarter of the rows have a rare value, and "
        "count as one category, 'infrequent'. Raise max_categories and lower min_frequency, or "
        f"use more of the text: {VECTORIZER}.",
        UserWarning,
    )


def parts_of(encoding: Encoding) -> tuple[tuple[str, np.ndarray], ...]:
    """Units that suit the encoded columns, and which these are: the parts of `Columns`."""
    parts: dict[str, list] = {"gaussian": [], "bernoulli": []}
    groups = []
    for variable in encoding.variables:
        columns = range(variable.columns.start, variable.columns.stop)
        if variable.kind == "category":
            groups.append(("multinomial", np.array(columns)))
        else:
            parts["gaussian" if variable.is_numeric else "bernoulli"] += columns
    merged = [(name, np.array(columns)) for name, columns in parts.items() if columns]
    return (*merged, *groups)
