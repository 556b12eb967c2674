"""Everything that checks what a user passes: parameters, arrays, weights, domains.

The only file that imports private names of scikit-learn.
"""

import math
from collections import Counter
from contextlib import contextmanager
from numbers import Integral, Real

import numpy as np
import torch
from sklearn import get_config
from sklearn.model_selection._search import BaseSearchCV
from sklearn.utils._array_api import (
    _convert_to_numpy,
    _max_precision_float_dtype,
    get_namespace_and_device,
)
from sklearn.utils._indexing import _get_column_indices
from sklearn.utils._missing import is_pandas_na
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions, make_constraint
from sklearn.utils._set_output import _get_output_config
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from skae._seeds import make_generator, random_numbers
from skae.engine.optimisation import processes
from skae.engine.optimisation.devices import widest_dtype
from skae.engine.optimisation.rows import fits_float32
from skae.engine.optimisation.sources import Source
from skae.sources.finding import found, head_of
from skae.sources.finite import (
    IMPUTE,
    check_block_finite,
    check_finite,
    check_no_infinity,
    check_one_hot,
)
from skae.sources.tables import Tables

__all__ = [
    "BaseSearchCV", "HasMethods", "Interval", "Registered", "StrOptions", "as_array",
    "check_choice", "check_count", "check_domain", "check_finite", "check_is_fitted", "check_names",
    "check_no_infinity", "check_number", "check_one_hot", "check_rows",
    "check_weights", "column_indices", "column_names", "computing_dtype", "hint_to_flatten",
    "is_missing", "make_constraint", "make_generator", "of_namespace", "output_container",
    "random_numbers",
]  # fmt: skip


class Registered(StrOptions):
    """A constraint: keys of a dict, also those that have joined it by the time of the check."""

    def __init__(self, names):
        super().__init__(set(names))
        self.options = names


def as_array(values):
    """A tensor of any device, dtype or history as an array; anything else as it is.

    What a masked array hides is missing: NaN, or None among objects.
    """
    if isinstance(values, np.ma.MaskedArray):
        return _of_masked(values)
    if not isinstance(values, torch.Tensor):
        return values
    values = values.detach().cpu()
    return (values.float() if values.dtype == torch.bfloat16 else values).resolve_neg().numpy()


def _of_masked(values):
    mask, kind = np.ma.getmaskarray(values), values.dtype.kind
    if not mask.any():
        return np.asarray(values)
    dtype = values.dtype if kind in "fmM" else np.float64 if kind in "biu" else object
    found = np.array(values.data, dtype=dtype)
    found[mask] = {"f": np.nan, "O": None}.get(found.dtype.kind, "NaT")
    return found


def of_namespace(X):
    """Rows as an array of NumPy, and the function that makes such an array one as X is.

    The function is None, and X as it is, unless scikit-learn's configuration dispatches arrays and
    X is one of another library.
    """
    dispatches = get_config()["array_api_dispatch"] and not isinstance(X, np.ndarray)
    if not dispatches or not (isinstance(X, torch.Tensor) or hasattr(X, "__array_namespace__")):
        return X, None
    namespace, _, device = get_namespace_and_device(X)
    widest = _max_precision_float_dtype(namespace, device)

    def back(found):
        if found.dtype.kind not in "fiub":
            return found
        dtype = {"dtype": widest} if found.dtype == np.float64 else {}
        return namespace.asarray(found, device=device, **dtype)

    tensor = isinstance(X, torch.Tensor)
    return as_array(X) if tensor else _convert_to_numpy(X, namespace), back


def is_missing(values: np.ndarray) -> np.ndarray:
    """Which entries of an array are NaN, NaT, None or NA, whatever its dtype."""
    if values.dtype.kind in "fmM":
        return np.isnan(values)
    if values.dtype != object:
        return np.zeros(values.shape, dtype=bool)
    found = [v is None or is_pandas_na(v) or v != v for v in values.flat]
    return np.reshape(np.array(found, dtype=bool), values.shape)


def check_rows(
    estimator, X, *, reset, finite=True, sample_weight=None, lowest=None, by_blocks=False, gaps=None
):
    """Two-dimensional numeric data, as an array or CSR matrix in its own dtype.

    With ``by_blocks``, rows that are not in memory and too many to be read at once are a
    `skae.engine.optimisation.sources.Source`; else they are refused.

    Nothing is converted as a whole: a memory map stays one, integers stay integers;
    batches are converted where they are used. Only a data frame that is more than a table of
    numbers becomes an array, by the estimator's ``encoding_``, which it gets with ``reset``:
    ``sample_weight`` tells then which rows count, and ``lowest`` is the estimator whose parameters
    say how tables are read, where it is another one. ``gaps`` tells whether NaN may be among the
    rows; None: as the estimator says.

    Raises
    ------
    ValueError
        Wrong shape or number of features, columns that are not what they were in `fit`, NaN or
        infinity; the message names the column and the remedy.
    """
    by_blocks = by_blocks and hasattr(estimator, "_encoded")
    gaps = getattr(estimator, "_accepts_gaps", False) if gaps is None else gaps
    X = found(as_array(X), type(estimator).__name__, by_blocks=by_blocks)
    with hint_to_flatten():
        if isinstance(X, Source | Tables):
            return _checked_source(estimator, X, reset, finite, sample_weight, lowest, gaps)
        return _checked_rows(estimator, X, reset, finite, sample_weight, lowest, gaps)


def _checked_source(estimator, X, reset, finite, sample_weight, lowest, gaps):
    """Rows that are read by blocks, as a source of numbers whose blocks are checked when read."""
    head = X.empty if isinstance(X, Tables) else X
    check_names(head)
    validate_data(estimator, head, reset=reset, skip_check_array=True)
    if isinstance(X, Source):
        dtype = _torch_dtype(X.dtype)
        if dtype != X.dtype:
            X = X.mapped(lambda block: block.astype(dtype), X.shape[1], dtype)
    X = estimator._encoded(X, reset=reset, sample_weight=sample_weight, lowest=lowest)
    names = column_names(estimator)
    if finite:
        X.require(lambda *block: check_block_finite(*block, names, gaps))
    return X


def _checked_rows(estimator, X, reset, finite, sample_weight, lowest, gaps):
    check_names(X)
    if hasattr(estimator, "_encoded"):
        is_frame = hasattr(X, "columns") or hasattr(X, "column_names")
        if is_frame:  # names come first: columns are read by their places
            validate_data(estimator, X, reset=reset, skip_check_array=True)
        elif not reset and getattr(estimator, "encoding_", None) is not None:
            given = X if hasattr(X, "shape") else np.asarray(X)
            if len(given.shape) == 2:
                validate_data(estimator, given, reset=False, skip_check_array=True)
        rows = estimator._encoded(X, reset=reset, sample_weight=sample_weight, lowest=lowest)
        if rows is not X:
            if not is_frame and reset:
                given = X if hasattr(X, "shape") else np.asarray(X)
                validate_data(estimator, given, reset=True, skip_check_array=True)
            if finite or estimator.encoding_ is not None:
                _check_encoded(rows, estimator, gaps)
            return rows
    _refuse_non_numeric_columns(X)
    try:
        options = dict(accept_sparse="csr", dtype="numeric", ensure_all_finite=False)
        X_checked = validate_data(estimator, X, reset=reset, **options)
    except ValueError as error:
        if "could not convert string" in str(error) or "dtype='numeric'" in str(error):
            raise ValueError(f"{error}. {_ENCODE}") from error
        raise
    if X_checked.dtype.kind == "O":  # decimals of polars and pyarrow
        X_checked = _numbers("X", X_checked).astype(np.float64)
    if X_checked.dtype.kind not in "fiub":
        raise ValueError(f"X is not numeric but of dtype {X_checked.dtype}. {_ENCODE}")
    X_checked = X_checked.astype(_torch_dtype(X_checked.dtype), copy=False)
    if finite:
        check_finite(X_checked, column_names(estimator), gaps=gaps)
    return X_checked


def check_names(X):
    """Raise a ValueError for a data frame of which several columns have one name."""
    names = list(getattr(X, "column_names", getattr(X, "columns", ())))
    if len(set(names)) < len(names):
        twice = [repr(name) for name, count in Counter(names).items() if count > 1]
        more = f" and {len(twice) - 5} more" if len(twice) > 5 else ""
        raise ValueError(
            f"Several columns of X are named {', '.join(twice[:5])}{more}, so that names do not "
            "tell them apart. Give each column a name of its own, or leave out what is there twice."
        )


def _check_encoded(rows, estimator, gaps):
    """Refuse gaps that an estimator cannot have; the message names the user's column."""
    encoding = estimator.encoding_
    if encoding is None or encoding.is_array:
        check_finite(rows, column_names(estimator), gaps=gaps)
    elif not gaps and np.isnan(rows).any():
        row, column = np.argwhere(np.isnan(rows))[0]
        variable = encoding.variables[encoding.raw_columns[column]]
        raise ValueError(
            f"Input X contains NaN, or a category that was not there in fit, in row {row} of "
            f"column {variable.name!r}. {IMPUTE}."
        )


def column_names(estimator):
    """Names of the columns that a model sees: those of ``encoding_``, or of the user's frame."""
    encoding = getattr(estimator, "encoding_", None)
    return getattr(estimator, "feature_names_in_", None) if encoding is None else encoding.names


_ENCODE = (
    "Pass a data frame, whose text, categories and dates are encoded, or encode them as numbers "
    "first, for example with sklearn.preprocessing.OneHotEncoder inside a ColumnTransformer, and "
    "dates and durations as counts of days or seconds."
)


@contextmanager
def hint_to_flatten():
    """Add to the error of an array of too many axes what is to be done with images."""
    try:
        yield
    except ValueError as error:
        if "Found array with dim" in str(error):
            raise ValueError(
                f"{error} Here images are rows, too: pass X.reshape(len(X), -1); what is for "
                "images takes their image_shape."
            ) from error
        raise


def _torch_dtype(dtype):
    # torch has no long doubles and no foreign byte order; half floats are for storage.
    if dtype.kind == "f" and dtype.itemsize not in (4, 8):
        return np.float32 if dtype.itemsize < 4 else np.float64
    return dtype.newbyteorder("=")


def _refuse_non_numeric_columns(X):
    # Column by column, before the whole is copied as objects.
    if hasattr(X, "columns") and hasattr(X, "dtypes"):
        dtypes = list(X.dtypes)
        labels = [repr(name) for name in X.columns]
        values = [X.iloc[:, i] if _holds_objects(t) else None for i, t in enumerate(dtypes)]
    elif isinstance(X, np.ndarray) and X.ndim == 2 and _holds_objects(X.dtype):
        dtypes, labels, values = [X.dtype] * X.shape[1], range(X.shape[1]), X.T
    else:
        return
    bad = [f"{label} ({t})" for label, t in zip(labels, dtypes, strict=True) if not _is_numeric(t)]
    if bad:
        more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
        raise ValueError(f"X has non-numeric columns: {', '.join(bad[:5])}{more}. {_ENCODE}")
    for label, dtype, column in zip(labels, dtypes, values, strict=True):
        if _holds_objects(dtype):
            try:
                np.asarray(column, dtype=np.float64)
            except (TypeError, ValueError) as error:
                message = f"Column {label} of X is not numeric: {error}. {_ENCODE}"
                kind = TypeError if isinstance(error, TypeError) else ValueError
                raise kind(message) from error


def _is_numeric(dtype):
    """Whether a dtype of NumPy, pandas or polars may hold numbers."""
    if hasattr(dtype, "is_numeric"):  # polars
        return dtype.is_numeric() or str(dtype) in ("Boolean", "Null")
    return getattr(dtype, "kind", "f") in "fiubc" or _holds_objects(dtype)


def _holds_objects(dtype):
    return isinstance(dtype, np.dtype) and dtype.kind == "O"


def check_count(name, value, least):
    """Raise a ValueError unless an argument of a method is an integer of at least ``least``."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name}={value!r} must be an integer of at least {least}.")


def check_number(name, value):
    """An argument of a method as a float; ValueError unless it is a finite real number."""
    if not isinstance(value, Real) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(f"{name}={value!r} must be a finite number.")
    return float(value)


def check_choice(name, value, choices):
    """Raise a ValueError unless an argument of a method is one of its legal values."""
    if value not in choices:
        raise ValueError(f"{name}={value!r} must be one of {', '.join(map(repr, choices))}.")


def check_weights(sample_weight, X):
    """Sample weights of mean 1 as float64, or None where all rows count alike.

    Raises
    ------
    ValueError
        If weights are negative, all zero, not finite or of the wrong shape.
    """
    if sample_weight is None:
        return None
    weight = _numbers("sample_weight", as_array(sample_weight))
    weight = _check_sample_weight(weight, X, dtype=np.float64, ensure_non_negative=True)
    everyone = processes.current()
    if not weight.any():
        raise ValueError(
            "Sample weights are all zero, so that no row would count; "
            "at least one sample weight must be positive."
        )
    if not everyone.any(bool((weight != everyone.first(weight[0])).any())):
        return None
    # So that sums of huge weights do not overflow.
    weight = weight / max(everyone.gather(weight.max()))
    return weight * (everyone.total(np.count_nonzero(weight)) / everyone.total(weight.sum()))


def _numbers(name, values):
    """An array-like of real numbers as it is; a ValueError for one of something else."""
    found = np.asarray(values)
    if found.dtype.kind == "O":
        try:
            found = found.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name} must be real numbers: {error}.") from error
    if found.dtype.kind not in "biuf":
        raise ValueError(f"{name} must be real numbers, but is of dtype {found.dtype}.")
    return values


def check_domain(name, domain, minimum, maximum, columns, feature_names=None, parameter="loss"):
    """Raise a ValueError if columns leave the domain of the named loss."""
    if domain is None:
        return
    least, most = domain
    outside = np.flatnonzero((minimum < least) | (maximum > most))
    if len(outside):
        first, column = outside[0], columns[outside[0]]
        label = "" if feature_names is None else f" ({feature_names[column]!r})"
        raise ValueError(
            f"{parameter}={name!r} needs values in [{least:g}, {most:g}], but column "
            f"{column}{label} spans [{minimum[first]:.4g}, {maximum[first]:.4g}]. Use "
            f"{parameter}='gaussian' for such data, or scale them with "
            "sklearn.preprocessing.MinMaxScaler(clip=True)."
        )


def output_container(estimator) -> str | None:
    """The library whose frames ``set_output``, or scikit-learn's configuration, asks for."""
    wanted = _get_output_config("transform", estimator)["dense"]
    return None if wanted == "default" else wanted


def computing_dtype(X, device):
    """float64 where the data need it, else float32.

    float32 holds integers of up to 16 bits and booleans exactly, so such data (images,
    counts) train at float32's speed.
    """
    return torch.float32 if fits_float32(X.dtype) else widest_dtype(device)


def column_indices(X, columns):
    """The positions of columns chosen in any way that ColumnTransformer allows."""
    X = head_of(X)
    if not hasattr(X, "shape"):
        X = np.asarray(X)
    if callable(columns):
        columns = columns(X)
    try:
        found = _get_column_indices(X, columns)
    except ValueError as error:
        if isinstance(error.__cause__, KeyError):  # scikit-learn has not always named it
            raise ValueError(f"X has no column {error.__cause__}") from error
        raise
    return np.asarray(found, dtype=np.intp)
