"""Columns that samples are to have: what the user gave, as the network sees it."""

import numpy as np

from skae._validation import check_rows, column_names
from skae.frames.columns import read_columns


def fixed_rows(model, fixed) -> np.ndarray:
    """Rows as encoded, NaN in columns that are free, of shape (1 or more, n_columns).

    ``fixed`` is a dict from columns to values, or rows with NaN where nothing is fixed. Raises a
    ValueError for columns that are none, and for values outside a column's domain.
    """
    if isinstance(fixed, dict):
        rows = _of_dict(model, fixed)
    else:
        rows = fixed
        if not hasattr(fixed, "columns") and np.ndim(fixed) == 1:
            rows = np.asarray(fixed).reshape(1, -1)
        encoding = model.encoding_
        cells = None if encoding is None else list(read_columns(_table(rows)))
        rows = np.array(check_rows(model, rows, reset=False), dtype=np.float64)
        for variable, column in zip(encoding.variables, cells, strict=True) if cells else ():
            _check_known(variable, rows[:, variable.columns], column.observed)
    model.columns_.check(rows, column_names(model))
    if np.isnan(rows).all():
        raise ValueError("fixed has no value: all its entries are NaN. Use fixed=None.")
    _check_range(model, rows)
    return rows


def _table(rows):
    return rows if hasattr(rows, "columns") or hasattr(rows, "schema") else np.asarray(rows)


def _of_dict(model, fixed):
    rows = np.full((1, len(model.columns_.mean)), np.nan)
    encoding, names = model.encoding_, getattr(model, "feature_names_in_", None)
    if encoding is not None and names is None:
        names = encoding.labels
    names = [] if names is None else list(names)
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
            except (TypeError, ValueError) as error:
                raise ValueError(f"fixed[{column!r}]={value!r} is no number.") from error
            continue
        variable = encoding.variables[number]
        cell = np.empty((1, 1), dtype=object)
        cell[0, 0] = value
        (cells,) = read_columns(cell)
        variable.encode(cells, rows[:, variable.columns])
        _check_known(variable, rows[:, variable.columns], cells.observed)
    return rows


def _check_known(variable, encoded, observed):
    if (np.isnan(encoded).any(axis=1) & observed).any():
        raise ValueError(
            f"fixed has a value of column {variable.name!r} that was not seen in fit. Known are "
            f"{[*variable.positions][:20] or [*variable.categories][:20]}."
        )


def _check_range(model, rows):
    columns = model.columns_
    slack = 1e-6 * np.maximum(np.abs(columns.minimum), np.abs(columns.maximum)) + 1e-12
    outside = (rows < columns.minimum - slack) | (rows > columns.maximum + slack)
    if outside.any():
        _, column = np.argwhere(outside)[0]
        ends, names = (columns.minimum[column], columns.maximum[column]), column_names(model)
        label = f"{column}" if names is None else f"{column} ({names[column]!r})"
        if model.encoding_ is not None:
            variable = model.encoding_.variables[model.encoding_.raw_columns[column]]
            ends, label = (variable.minimum, variable.maximum), repr(variable.name)
        raise ValueError(
            f"fixed has a value in column {label} that is outside of the [{ends[0]:.6g}, "
            f"{ends[1]:.6g}] of the training rows: of rows there the model knows nothing."
        )
