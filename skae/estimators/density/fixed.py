"""Columns that samples are to have: what the user gave, as the network sees it."""

from typing import NamedTuple

import numpy as np

from skae._validation import check_rows, column_names
from skae.estimators.face.grids import on_grid
from skae.frames.columns import Cells, read_columns
from skae.frames.reading import labels_of
from skae.frames.variables import PARTS_OF_DAYS

# Values of a column that a message names, at most.
_NAMED = 20


class Fixed(NamedTuple):
    """Values that columns are to have.

    - ``rows``: as encoded, NaN in columns that are free, of shape (1 or more, n_columns).
    - ``cells``: of the table's columns, by number, as the user gave them.
    """

    rows: np.ndarray
    cells: dict[int, Cells]

    def taken(self, rows: np.ndarray) -> "Fixed":
        """Those of some rows."""
        cells = {number: column.taken(rows) for number, column in self.cells.items()}
        return Fixed(self.rows[rows], cells)

    def over(self, values: np.ndarray) -> np.ndarray:
        """Rows of numbers with these in their places."""
        return np.where(np.isnan(self.rows), values, self.rows).astype(values.dtype, copy=False)


def fixed_rows(model, fixed) -> Fixed:
    """What ``fixed`` is for a model, as it was given and as encoded.

    ``fixed`` is a dict from columns to values, or rows with NaN where nothing is fixed. Raises a
    ValueError for columns that are none, and for values that no sample has in a column: outside of
    its range, or off its grid.
    """
    cells: dict[int, Cells] = {}
    if isinstance(fixed, dict):
        rows = _of_dict(model, fixed, cells)
    else:
        rows = fixed
        if not hasattr(fixed, "columns") and np.ndim(fixed) == 1:
            rows = np.asarray(fixed).reshape(1, -1)
        encoding = model.encoding_
        cells = {} if encoding is None else dict(enumerate(read_columns(_table(rows))))
        rows = np.array(check_rows(model, rows, reset=False, gaps=True), dtype=np.float64)
        for number, column in cells.items():
            variable = encoding.variables[number]
            _check_known(variable, rows[:, variable.columns], column.observed)
    model.columns_.check(rows, column_names(model))
    if np.isnan(rows).all():
        raise ValueError("fixed has no value: all its entries are NaN. Use fixed=None.")
    _check_range(model, rows)
    _check_grid(model, rows, cells)
    return Fixed(rows, cells)


def _table(rows):
    return rows if hasattr(rows, "columns") or hasattr(rows, "schema") else np.asarray(rows)


def _of_dict(model, fixed, cells):
    """The row of a dict; what was read of encoded columns is noted in ``cells``, by number."""
    rows = np.full((1, len(model.columns_.mean)), np.nan)
    encoding, names = model.encoding_, getattr(model, "feature_names_in_", None)
    names = labels_of(model) if names is None else list(names)  # of columns named by no text
    for column, value in fixed.items():
        if column in names:
            number = names.index(column)
        elif isinstance(column, int | np.integer) and 0 <= column < model.n_features_in_:
            number = int(column)
        else:
            known = names[:20] if names else f"0 to {model.n_features_in_ - 1}"
            raise ValueError(f"fixed names the column {column!r}, but X has the columns {known}.")
        if encoding is None:
            try:
                rows[0, number] = value
            except (TypeError, ValueError, OverflowError) as error:
                raise ValueError(f"fixed[{column!r}]={value!r} is no number.") from error
            continue
        variable = encoding.variables[number]
        cell = np.empty((1, 1), dtype=object)
        cell[0, 0] = value
        try:
            (cells[number],) = read_columns(cell)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"fixed[{column!r}]={value!r} is no value of one cell. For rows with different "
                "values, pass an array or a frame with NaN where nothing is fixed."
            ) from error
        variable.encode(cells[number], rows[:, variable.columns])
        _check_known(variable, rows[:, variable.columns], cells[number].observed)
    return rows


def _check_known(variable, encoded, observed):
    if (np.isnan(encoded).any(axis=1) & observed).any():
        raise ValueError(
            f"fixed has a value of column {variable.name!r} that was not seen in fit. Known are "
            f"{[*variable.positions][:_NAMED] or [*variable.categories][:_NAMED]}."
        )


def _check_range(model, rows):
    columns = model.columns_
    slack = 1e-6 * np.maximum(np.abs(columns.minimum), np.abs(columns.maximum)) + 1e-12
    outside = (rows < columns.minimum - slack) | (rows > columns.maximum + slack)
    if outside.any():
        _, column = np.argwhere(outside)[0]
        ends, names = (columns.minimum[column], columns.maximum[column]), column_names(model)
        shown = "{:.6g}".format
        label = f"{column}" if names is None else f"{column} ({names[column]!r})"
        if model.encoding_ is not None:
            variable = model.encoding_.variables[model.encoding_.raw_columns[column]]
            ends, label = (variable.minimum, variable.maximum), repr(variable.name)
            shown = variable.shown
        raise ValueError(
            f"fixed has a value in column {label} that is outside of the "
            f"[{', '.join(map(shown, ends))}] of the training rows: of rows there the model knows "
            "nothing."
        )


def _check_grid(model, rows, cells):
    """Raise a ValueError for numbers that are off a column's grid, which samples would not keep."""
    columns, encoding = model.columns_, model.encoding_
    held = on_grid(rows.copy(), columns.grid, columns.minimum, columns.maximum)
    if encoding is None:
        names = column_names(model)
        for column, grid in enumerate(columns.grid):
            if grid is not None:
                label = f"{column}" if names is None else f"{column} ({names[column]!r})"
                _require_kept(label, rows[:, column], held[:, column], grid)
        return
    for number, cell in cells.items():
        variable = encoding.variables[number]
        own = variable.columns
        grid = columns.grid[own][0]
        if cell.numbers is None or variable.kind == "category" or variable.is_exact:
            continue
        if isinstance(grid, np.ndarray):
            grid = variable.decode(grid[:, None], rounds=True)
        elif variable.decimals is not None:
            grid = variable.decimals
        elif variable.is_whole:
            grid = PARTS_OF_DAYS[variable.parts]
        else:
            continue
        kept = variable.decode(held[:, own], rounds=True)
        _require_kept(repr(variable.name), cell.numbers, kept, grid, variable.shown)


def _require_kept(label, given, kept, grid, shown="{:.6g}".format):
    """Raise a ValueError unless numbers of a column are as its grid has them; NaN is free."""
    # What is stored in float32 has rounding errors.
    wrong = np.flatnonzero(np.abs(given - kept) > 1e-7 * np.abs(given) + 1e-12)
    if not len(wrong):
        return
    if isinstance(grid, np.ndarray):
        more = ", ..." if len(grid) > _NAMED else ""
        known = f"one of {', '.join(map(shown, grid[:_NAMED]))}{more}"
    elif isinstance(grid, str):
        known = f"in whole {grid}"
    else:
        known = f"a number of {grid} decimals at most" if grid else "a whole number"
    raise ValueError(
        f"fixed has {shown(given[wrong[0]])} in column {label}, which is {known} in the training "
        f"rows: no sample has it. The nearest that may be is {shown(kept[wrong[0]])}."
    )
