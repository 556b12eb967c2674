"""Rows that come in parts: batches of an iterable, which is read once, and chunks of dask."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

import numpy as np
from scipy import sparse
from sklearn.base import clone

from skae._validation import as_array, check_is_fitted
from skae.engine.optimisation.rows import fits_float32
from skae.frames.columns import library_of
from skae.frames.making import stack_rows
from skae.sources.finding import is_batches

F = TypeVar("F", bound=Callable[..., Any])
# Bytes of the batches that are one part: their rows are mixed with each other.
_PART = 64 * 2**20


def fits_batches(fit: F) -> F:
    """Decorate a fit so that it takes an iterable of batches, for one pass by ``partial_fit``."""

    @functools.wraps(fit)
    def guarded(self, X, y=None, sample_weight=None):
        if not is_batches(X):
            return fit(self, X, y, sample_weight)
        if self.max_iter not in (1, "auto") or getattr(self, "early_stopping", False):
            raise ValueError(
                f"X is an iterable of batches, which is read once, but max_iter={self.max_iter!r}"
                f" and early_stopping={getattr(self, 'early_stopping', False)} read rows again and "
                "again. Set max_iter=1 and early_stopping=False, or pass what can be read again: "
                "a memory map, an array of h5py, zarr or dask, a dataset of Parquet."
            )
        model = self if self.warm_start else clone(self)
        model.partial_fit(X, y, sample_weight)
        vars(self).update({name: vars(model)[name] for name in vars(model).keys() - _own(self)})
        return self

    return cast(F, guarded)


def _own(model):
    return model.get_params(deep=False).keys()


def fits_batches_on(partial_fit: F) -> F:
    """Decorate a ``partial_fit`` so that it takes an iterable of batches, part after part."""

    @functools.wraps(partial_fit)
    def guarded(self, X, y=None, sample_weight=None):
        if not is_batches(X):
            return partial_fit(self, X, y, sample_weight)
        if y is not None or sample_weight is not None:
            raise ValueError(
                "An iterable of batches has rows alone: y and sample_weight are for rows that can "
                "be counted. Call partial_fit for each batch."
            )
        for where, part in parts_of(X):
            with_place(where, partial_fit, self, part)
        return self

    return cast(F, guarded)


def maps_batches(method: F) -> F:
    """Decorate a method whose results are one for each row so that it takes batches, too."""

    @functools.wraps(method)
    def mapped(self, X, *args, **options):
        if not is_batches(X):
            return method(self, X, *args, **options)
        parts = [with_place(at, method, self, part, *args, **options) for at, part in parts_of(X)]
        if sparse.issparse(parts[0]):
            return sparse.vstack(parts, "csr")
        return stack_rows(parts)

    return cast(F, mapped)


def maps_lazily(transform: F) -> F:
    """Decorate a ``transform`` so that of what dask computes later it returns what it will."""
    transform = maps_batches(transform)

    @functools.wraps(transform)
    def mapped(self, X):
        if hasattr(X, "map_blocks") and hasattr(X, "rechunk") and hasattr(X, "dask"):
            return _of_chunks(self, X)
        if hasattr(X, "map_partitions") and hasattr(X, "_meta") and hasattr(X, "partitions"):
            return _of_partitions(self, X)
        return transform(self, X)

    return cast(F, mapped)


def _of_chunks(model, X):
    """Codes of a dask array, as one with the same chunks of rows."""
    check_is_fitted(model)
    if X.shape[1] != model.n_features_in_:
        raise ValueError(
            f"X has {X.shape[1]} features, but {type(model).__name__} is expecting "
            f"{model.n_features_in_} features as input"
        )
    dtype = np.float32 if fits_float32(X.dtype) else np.float64
    codes = np.empty((0, len(model.get_feature_names_out())), dtype=dtype)
    X = X.rechunk({1: -1})
    chunks = X.chunks[0], (codes.shape[1],)
    return X.map_blocks(_transformed, model=model, dtype=codes.dtype, chunks=chunks, meta=codes)


def _of_partitions(model, X):
    """Codes of a frame of dask, as one with the same partitions and index."""
    import pandas as pd

    names = list(model.get_feature_names_out())
    dtype = _dtype_of_codes(model, X)
    meta = pd.DataFrame(np.empty((0, len(names)), dtype=dtype), columns=names)
    return X.map_partitions(_frame_of_codes, model=model, names=names, dtype=dtype, meta=meta)


def _transformed(block, model):
    return model.transform(block)


def _frame_of_codes(frame, model, names, dtype):
    import pandas as pd

    codes = np.empty((0, len(names)))
    if len(frame):
        codes = np.asarray(model.transform(frame))
    return pd.DataFrame(codes.astype(dtype), columns=names, index=frame.index)


def _dtype_of_codes(model, X):
    encoding = getattr(model, "encoding_", None)
    dtypes = [encoding.dtype] if encoding is not None else list(X.dtypes)
    return np.float32 if fits_float32(np.result_type(*dtypes)) else np.float64


def with_place(where: str, method, *args, **options):
    """Call a method; its ValueError says of which batches it is."""
    try:
        return method(*args, **options)
    except ValueError as error:
        raise ValueError(f"In {where}: {error}") from error


def parts_of(batches) -> Iterator[tuple[str, Any]]:
    """(which batches, their rows) of an iterable, some megabytes at a time.

    Raises a ValueError that names the batch which has other columns than the first, or is no rows.
    """
    collected: list[Any] = []
    n_bytes, first, number = 0, 0, -1
    width, library = None, None
    for number, batch in enumerate(batches):
        batch = _rows_of(batch, number)
        width, library = width or batch.shape[1], library or library_of(batch)
        if batch.shape[1] != width or library_of(batch) != library:
            raise ValueError(
                f"Batch {number} has {batch.shape[1]} columns of {library_of(batch) or 'an array'},"
                f" but the batches before it have {width} of {library or 'an array'}: all need the "
                "same."
            )
        collected.append(batch)
        n_bytes += 8 * batch.shape[0] * batch.shape[1]
        if n_bytes >= _PART:
            yield f"batches {first} to {number}", _together(collected)
            collected, n_bytes, first = [], 0, number + 1
    if collected:
        yield f"batches {first} to {number}", _together(collected)
    if number < 0:
        raise ValueError(
            "The iterable of batches gave none: found 0 sample(s) while a minimum of 1 is "
            "required. What has been read once, such as a generator, is empty then."
        )


def _rows_of(batch, number):
    batch = as_array(batch)
    if isinstance(batch, tuple):
        raise ValueError(
            f"Batch {number} is a tuple: batches are rows alone, without targets. Call partial_fit "
            "for each."
        )
    if library_of(batch) == "pyarrow" and not hasattr(batch, "num_chunks"):
        import pyarrow as pa

        batch = batch if isinstance(batch, pa.Table) else pa.Table.from_batches([batch])
    if not hasattr(batch, "shape"):
        batch = np.asarray(batch)
    if len(batch.shape) != 2:
        raise ValueError(f"Batch {number} has the shape {batch.shape}, but needs two axes.")
    if isinstance(batch, np.ndarray) and batch.dtype.kind not in "fiub":
        raise ValueError(f"Batch {number} is not numeric but of dtype {batch.dtype}.")
    return batch


def _together(batches):
    if len(batches) == 1:
        return batches[0]
    return sparse.vstack(batches, "csr") if sparse.issparse(batches[0]) else stack_rows(batches)
