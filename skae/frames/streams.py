"""Tables that are read by blocks, encoded as the rows of a network.

What `Encoding` says of columns is learned in one pass. Exact are the categories and how many rows
each has, the least and the greatest number, whether there are more than two, whether all are whole,
and whether there are gaps. Quartiles, normal scores and decimals are those of rows spread over all,
some hundred thousand.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from skae._validation import as_array, check_no_infinity
from skae.engine.optimisation.rows import summarize_columns
from skae.engine.optimisation.sources import Source
from skae.frames.columns import Cells, is_plain, library_of, names_of, read_columns
from skae.frames.encoding import Counted, asks_for_encoding, chosen_columns, make_encoding
from skae.frames.forms import form_of
from skae.frames.reading import check_order
from skae.sources.tables import Tables

# Rows, and entries, of which quartiles are taken; and values of a column of categories at most.
_ROWS, _ENTRIES, _MOST_VALUES = 100_000, 8_000_000, 1_000_000


def encode_source(model, parameters, X: Source | Tables, *, reset: bool, weight=None) -> Source:
    """`encode_rows` of what is read by blocks: numbers as they are, or encoded.

    With ``reset``, ``model.encoding_`` is made by the ``parameters`` of an estimator.
    """
    if reset and parameters is not model and hasattr(parameters, "encoding_"):  # it is fitted
        model.encoding_ = parameters.encoding_
        model._form = getattr(parameters, "_form", None)
        return encode_source(model, parameters, X, reset=False)
    if not reset:
        encoding = getattr(model, "encoding_", None)
        if isinstance(X, Tables):
            check_order(model, names_of(X.empty))
        if encoding is not None:
            return _encoded(X, encoding)
        return X if isinstance(X, Source) else _numbers_of(X)
    model.encoding_ = model._form = None
    asked = asks_for_encoding(parameters)
    if isinstance(X, Source) and not asked:
        return X
    if isinstance(X, Tables) and not asked and _are_plain(X.empty):
        numbers = _numbers_of(X)
        if not summarize_columns(numbers).n_missing.any():  # the pass that describes columns
            model._form = form_of(X.empty)
            return numbers
    model.encoding_ = _described(X, parameters, weight)
    return _encoded(X, model.encoding_)


def _encoded(X, encoding):
    shape = encoding.n_columns, encoding.dtype
    if isinstance(X, Source):
        return X.mapped(encoding.encode, *shape)
    return X.encoded(encoding.encode, *shape, encoding.names)


def _numbers_of(tables):
    """The numbers of a table that has no others, as a source."""
    names = names_of(tables.empty)
    dtype = _dtype_of(tables.empty) if _are_plain(tables.empty) else np.dtype(np.float64)

    def numbers(frame):
        if library_of(frame) == "pyarrow" and _are_plain(frame):
            columns = [frame.column(number).to_numpy() for number in range(frame.num_columns)]
            return np.asarray(columns, dtype=dtype).T
        if is_plain(frame):
            return frame.to_numpy(dtype=dtype)
        columns = []
        for name, cells in zip(names, read_columns(frame), strict=True):
            if cells.numbers is None or cells.holds not in ("numbers", "booleans"):
                raise ValueError(
                    f"Column {name!r} holds {cells.holds}, where only numbers were in fit."
                )
            columns.append(cells.numbers)
        return np.asarray(columns, dtype=dtype).T

    return tables.encoded(numbers, len(names), dtype, names)


def _are_plain(frame):
    """Whether all columns of a frame are numbers of a dtype that arrays have."""
    if library_of(frame) != "pyarrow":
        return is_plain(frame)
    import pyarrow as pa

    return all(pa.types.is_integer(t) or pa.types.is_floating(t) for t in frame.schema.types)


def _dtype_of(frame):
    """A dtype that holds the numbers of all columns, and NaN."""
    if library_of(frame) == "pyarrow":
        dtypes = [t.to_pandas_dtype() for t in frame.schema.types]
    else:
        dtypes = list(frame.dtypes)
    return np.result_type(np.float32, *dtypes)


@dataclass
class _Column:
    """What is known of a column after some blocks."""

    name: str
    first: Cells | None = None
    counts: dict[Any, int] = field(default_factory=dict)
    sample: list[np.ndarray] = field(default_factory=list)
    witnesses: list[float] = field(default_factory=list)

    def see(self, cells, counted, some, is_chosen):
        """One more block: which of its rows count, and which are among those spread over all."""
        known = cells.observed
        if not known.any() and self.first is not None:
            return
        if is_chosen and cells.holds not in ("dates", "durations", "booleans"):
            cells = cells.as_values()
        if self.first is None or not (self.counts or self.witnesses):
            self.first = cells
        elif cells.holds != self.first.holds and not self._are_alike(cells):
            raise ValueError(
                f"Column {self.name!r} holds {cells.holds}, but held {self.first.holds} in the "
                "blocks before. Convert it to one of them."
            )
        if cells.codes is not None:
            found = np.bincount(cells.codes[known & counted], minlength=len(cells.values))
            for place in np.flatnonzero(found):
                value = cells.values[place]
                self.counts[value] = self.counts.get(value, 0) + int(found[place])
            if len(self.counts) > _MOST_VALUES:
                raise ValueError(
                    f"Column {self.name!r} has more than {_MOST_VALUES} different values, which "
                    "are no categories. Leave it out, or convert it to numbers."
                )
            return
        x = cells.numbers[known & counted]
        self.sample.append(cells.numbers[some & known & counted])
        if len(x):
            self._note(x)

    def _are_alike(self, cells):
        both = {cells.holds, self.first.holds}
        same = (cells.codes is None) == (self.first.codes is None)
        return same and (both <= {"texts", "categories"} or both <= {"numbers", "booleans"})

    def _note(self, x):
        """Keep the extremes, three different numbers, and one that is not whole."""
        seen = {float(x.min()), float(x.max()), *self.witnesses}
        broken = np.flatnonzero(x != np.round(x))
        other = np.flatnonzero((x != x.min()) & (x != x.max()))
        seen.update(float(x[places[0]]) for places in (broken, other) if len(places))
        ordered = sorted(seen)
        middle = ordered[len(ordered) // 2]
        fraction = [value for value in ordered if value != round(value)][:1]
        self.witnesses = sorted({ordered[0], middle, ordered[-1], *fraction})

    def counted(self):
        """The column as far as it counts: its cells, and how many rows each value has."""
        if self.first is None:
            return Counted(Cells("numbers", None, np.full(1, np.nan)), None)
        if self.first.codes is not None:
            values = list(self.counts)
            codes = np.arange(len(values))
            cells = self.first._replace(codes=codes, values=values)
            return Counted(cells, np.array([self.counts[v] for v in values], dtype=np.int64))
        sample = np.concatenate(self.sample)
        # Where all rows are in the sample, it is as if they were in memory.
        numbers = np.concatenate([sample, np.setdiff1d(self.witnesses, sample), [np.nan]])
        return Counted(self.first._replace(numbers=numbers), None)


def _described(X, parameters, weight):
    """The encoding of a table, learned in one pass over its blocks."""
    head = X.empty if isinstance(X, Tables) else np.empty((1, X.shape[1]))
    library = library_of(head)
    labels = tuple(names_of(head)) if library else None
    names = [str(n) for n in labels] if labels else [f"x{n}" for n in range(X.shape[1])]
    chosen = chosen_columns(head, parameters.categorical_features)
    columns = [_Column(name) for name in names]
    step = max(1, -(-X.shape[0] // min(_ROWS, max(1, _ENTRIES // X.shape[1]))))
    weight = np.asarray(as_array(weight))  # it is checked later
    weighs = weight.shape == (X.shape[0],) and weight.dtype.kind in "fiub"
    for number in range(len(X.bounds) - 1):
        start, stop = X.bounds[number : number + 2].tolist()
        block, counted = X.read(number), np.ones(stop - start, dtype=bool)
        if weighs:
            counted = weight[start:stop] > 0
        some = np.arange(start, stop) % step == 0
        try:
            for place, (column, cells) in enumerate(zip(columns, read_columns(block), strict=True)):
                check_no_infinity(cells.numbers, place, column.name)
                column.see(cells, counted, some, place in chosen)
        except (ValueError, TypeError) as error:
            raise type(error)(f"In {X.place_of_block(number)}: {error}") from error
    found = [column.counted() for column in columns]
    return make_encoding(found, names, chosen, parameters, library, labels)
