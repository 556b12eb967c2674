"""Rows that methods return in the columns of the data, as the user's own."""

import copy
import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np

from skae._validation import output_container
from skae.estimators.face.grids import on_grid
from skae.frames.columns import library_of
from skae.frames.forms import as_frame, with_index_of
from skae.frames.making import convert_frame

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


def returns_rows(method: F) -> F:
    """Decorate a method that returns rows in the columns of `fit`, so that they are the user's.

    They are a frame of the library that ``set_output`` names; else, if `fit` saw a frame, of the
    library of the rows that the method was given, if these are a frame, and of that of `fit` if
    not; else an array. A frame has the names and dtypes of `fit`, and the index of what it was
    made of.
    """

    @functools.wraps(method)
    def framed(self, *args, **options):
        rows = method(self, *args, **options)
        given = args[0] if args else options.get("X")
        return in_user_form(self, rows, given)

    return cast(F, framed)


def in_data_form(model, values: np.ndarray, are_means: bool, given=None):
    """Rows as the network has them as the user's: within ranges, on grids, as a frame.

    What is ``given``, see `skae.estimators.density.fixed.Fixed`, is as it was.
    """
    if are_means:
        return model._decoded(values, given)
    values = model.columns_.in_data_units(values)
    ends = model.columns_.minimum, model.columns_.maximum
    values = on_grid(values, model.columns_.grid, *(end.astype(values.dtype) for end in ends))
    return decoded(model, values, given, rounds=True)


def decoded(model, values: np.ndarray, given=None, *, rounds: bool = False):
    """Rows in the units of the data as the user's, with what is given."""
    if model.encoding_ is None:
        return values if given is None else given.over(values)
    return model.encoding_.decode(values, rounds=rounds, known=given and given.cells)


def of_encoded_rows(transformer: T) -> T:
    """A copy of a fitted transformer that takes and returns rows as encoded, as arrays."""
    twin: Any = copy.copy(transformer)
    twin.n_features_in_, twin.encoding_, twin._form = len(twin.columns_.mean), None, None
    twin._sklearn_output_config = {"transform": "default"}
    vars(twin).pop("feature_names_in_", None)
    return twin


def in_user_form(model, rows, given=None):
    """Rows in the columns of a model's data as the user's; see `returns_rows`."""
    wanted, form = output_container(model), getattr(model, "_form", None)
    if library_of(rows) is None and form is not None:
        groups = [one for one in _variables(model) if len(one) > 1]
        rows = form.frame(np.asarray(rows), groups)
    if wanted is not None:
        names = getattr(model, "feature_names_in_", None)
        rows = as_frame(rows, wanted, _numbered(rows) if names is None else names)
    elif library_of(rows) is not None and library_of(given) is not None:
        rows = convert_frame(rows, library_of(given))
    return with_index_of(rows, given)


def in_wanted_library(model, rows):
    """A frame as one of the library that ``set_output`` names, whose conversion keeps dtypes."""
    wanted = output_container(model)
    if wanted is None or library_of(rows) is None:
        return rows
    return convert_frame(rows, wanted)


def _variables(model):
    columns = getattr(model, "columns_", None)
    return () if columns is None else columns.variables


def _numbered(rows):
    return [f"x{number}" for number in range(rows.shape[1])]
