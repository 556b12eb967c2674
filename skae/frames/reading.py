"""Rows as users pass them, frames or arrays, as the arrays that models read."""

import numpy as np
from scipy import sparse
from sklearn.utils import check_array

from skae._validation import as_array, check_no_infinity, hint_to_flatten
from skae.frames.columns import is_plain, library_of, names_of, read_columns
from skae.frames.encoding import (
    Counted,
    Encoding,
    asks_for_encoding,
    chosen_columns,
    make_encoding,
)
from skae.frames.forms import form_of
from skae.frames.variables import Variable, empty_variable


def encode_rows(model, parameters, X, *, reset: bool, weight=None):
    """Rows as an array where X is a table to be encoded, else X, or its numbers as an array.

    With ``reset``, ``model.encoding_`` is made, by the ``parameters`` of an estimator, or is that
    of this estimator, if it is another one that is fitted. It is None where X has numbers only and
    nothing asks for more; ``model._form`` says then what frame X was.
    """
    library = library_of(X)
    if not reset:
        encoding = getattr(model, "encoding_", None)
        if library:
            check_order(model, names_of(X))
        if encoding is not None and encoding.is_array and library is None:
            X = check_array(X, dtype="numeric", accept_sparse="csr", ensure_all_finite=False)
        if encoding is not None:
            rows = encoding.encode(X if library or encoding.is_array else _as_array(X))
            _check_number_of_rows(rows.shape[0])
            return rows
        return _numbers_of(X) if library and not is_plain(X) else X
    if parameters is not model and hasattr(parameters, "encoding_"):  # it is fitted
        model.encoding_ = parameters.encoding_
        model._form = getattr(parameters, "_form", None)
        return encode_rows(model, parameters, X, reset=False)
    model.encoding_ = model._form = None
    asked = asks_for_encoding(parameters)
    if library is None and not asked:
        return _without_empty(model, parameters, X, weight)
    if library and is_plain(X) and not asked and not _has_gaps(X):
        model._form = form_of(X)
        return X
    X = X if library else _as_array(X)
    chosen = chosen_columns(X, parameters.categorical_features)
    cells = list(read_columns(X))
    _check_size(cells)
    plain = all(c.holds == "numbers" and c.observed.all() for c in cells)
    if plain and not asked:
        for number, (column, name) in enumerate(zip(cells, _names(X), strict=True)):
            check_no_infinity(column.numbers, number, name)
        model._form = form_of(X)
        return np.column_stack([column.numbers for column in cells])
    counted = _counted(weight, len(cells[0].observed))
    labels = tuple(names_of(X)) if library else None
    columns = [Counted(column, None, counted) for column in cells]
    model.encoding_ = make_encoding(columns, _names(X), chosen, parameters, library, labels)
    return model.encoding_._encoded(cells)


def check_order(model, labels) -> None:
    """Raise a ValueError for a frame whose columns have the labels of `fit` in another order.

    scikit-learn compares labels that are strings, and no others.
    """
    known = labels_of(model)
    if labels != known and len(labels) == len(known) and set(labels) == set(known):
        raise ValueError(
            f"X has the columns {labels[:20]}, but in fit they were in the order {known[:20]}. "
            "Pass them in that order."
        )


def labels_of(model) -> list:
    """The labels of the columns that a model was fitted on; none of an array."""
    form = getattr(model, "encoding_", None) or getattr(model, "_form", None)
    return list(getattr(form, "labels", None) or ())


def _counted(weight, n_rows):
    """Which rows count: those of weight 0 do not."""
    weight = np.asarray(as_array(weight))  # it is checked later
    if weight.shape == (n_rows,) and weight.dtype.kind in "fiub" and (weight > 0).any():
        return weight > 0
    return np.ones(n_rows, dtype=bool)


def _without_empty(model, parameters, X, weight):
    """An array of numbers without its columns that were never observed; X itself if there are none.

    Pixels are not left out: an image would be none without them.
    """
    given = X
    if isinstance(X, list) or (isinstance(X, np.ndarray) and X.dtype.kind == "O"):
        try:
            X = np.asarray(X, dtype=np.float64)
        except (TypeError, ValueError):
            return given
    is_matrix = isinstance(X, np.ndarray) or sparse.issparse(X)
    if not (is_matrix and X.ndim == 2 and X.dtype.kind == "f" and all(X.shape)):
        return given
    if getattr(parameters, "image_shape", None) is not None:
        return given
    counted = np.flatnonzero(_counted(weight, X.shape[0]))
    if not len(counted):
        return given
    X_checked = X.tocsr() if sparse.issparse(X) else X
    # One row tells of most columns that they are none.
    first = X_checked[counted[0]]
    first = first.toarray().ravel() if sparse.issparse(first) else first
    empty = {
        number
        for number in np.flatnonzero(np.isnan(first))
        if _is_empty(X_checked, number, counted)
    }
    if not empty or len(empty) == X.shape[1]:
        return given
    start, variables = 0, []
    for number, name in enumerate(_names(X)):
        variable = Variable(
            name, "number", slice(start, start + 1), "numbers", X.dtype,
            minimum=-np.inf, maximum=np.inf,
        )  # fmt: skip
        variables.append(empty_variable(variable) if number in empty else variable)
        start += number not in empty
    dtype = np.dtype(np.float32 if X.dtype.itemsize <= 4 else np.float64)
    model.encoding_ = Encoding(tuple(variables), None, None, dtype, is_array=True)
    return model.encoding_.encode(X_checked)


def _is_empty(X, number, counted):
    column = X[:, [number]]
    column = column.toarray() if sparse.issparse(column) else column
    return bool(np.isnan(column[counted]).all())


def _as_array(X):
    if sparse.issparse(X):
        raise ValueError(
            "X is sparse, which neither categorical_features nor numbers='clipped' is for. Pass a "
            "data frame or an array, or use numbers='auto' and encoded columns."
        )
    with hint_to_flatten():
        return check_array(X, dtype=None, ensure_all_finite=False)


def _check_size(cells):
    if not cells:
        raise ValueError("Found array with 0 feature(s) while a minimum of 1 is required.")
    _check_number_of_rows(len(cells[0].observed))


def _check_number_of_rows(n_rows):
    if not n_rows:
        raise ValueError("Found array with 0 sample(s) while a minimum of 1 is required.")


def _numbers_of(X):
    """A frame for a model that knows numbers only, as an array; else the frame itself."""
    try:
        cells = list(read_columns(X))
    except (ValueError, TypeError):
        return X
    if all(c.numbers is not None and c.holds in ("numbers", "booleans") for c in cells):
        return np.column_stack([column.numbers for column in cells])
    return X


def _has_gaps(X):
    return any(not cells.observed.all() for cells in read_columns(X))


def _names(X):
    """Names of the columns for people: those of the frame, or x0, x1 and so on."""
    if library_of(X):
        return [str(name) for name in names_of(X)]
    return [f"x{number}" for number in range(X.shape[1])]
