"""Codes of rows as a Parquet file, written block by block."""

import os
from typing import Any

import numpy as np

from skae._validation import as_array, check_is_fitted
from skae.engine.optimisation.sources import Source, ahead, blocks_of
from skae.estimators.face.parts import parts_of, with_place
from skae.sources.finding import is_batches, opened
from skae.sources.tables import Tables


def transform_to_parquet(transformer: Any, X: Any, path: str | os.PathLike) -> Any:
    """Write what a transformer makes of rows to a Parquet file, a block at a time.

    Neither the rows nor the results need fit into memory: each block of rows, such as a row group
    of a Parquet dataset, is read, transformed and written as a row group, the next one being read
    meanwhile.

    Parameters
    ----------
    transformer : object
        A fitted transformer with ``get_feature_names_out``, which names the columns; also a
        `Pipeline` of some.
    X : rows
        Whatever ``transform`` of this package takes: a dataset of pyarrow, an array of h5py, zarr
        or dask, a memory map, an iterable of batches, or rows in memory.
    path : str or path
        The file to be written. One that is there is replaced once all has been written.

    Returns
    -------
    dataset : pyarrow.dataset.Dataset
        The file, opened.

    Raises
    ------
    ImportError
        Without pyarrow, which ``pip install skae[files]`` brings.

    Examples
    --------
    >>> import os, tempfile
    >>> from sklearn.datasets import load_iris
    >>> from skae import AutoEncoder, transform_to_parquet
    >>> X, _ = load_iris(return_X_y=True)
    >>> model = AutoEncoder(3, max_iter=2, random_state=0).fit(X)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     codes = transform_to_parquet(model, X, os.path.join(folder, "codes.parquet"))
    ...     codes.count_rows(), codes.schema.names
    (150, ['autoencoder0', 'autoencoder1', 'autoencoder2'])
    """
    try:
        import pyarrow as pa
        import pyarrow.dataset
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(
            "transform_to_parquet writes with pyarrow: pip install skae[files]"
        ) from error
    check_is_fitted(transformer)
    names, writer = [str(name) for name in transformer.get_feature_names_out()], None
    unfinished = f"{os.fspath(path)}.unfinished"
    try:
        for where, rows in _blocks(X):
            codes = np.asarray(with_place(where, transformer.transform, rows))
            table = pa.table([np.ascontiguousarray(column) for column in codes.T], names)
            if writer is None:
                writer = pa.parquet.ParquetWriter(unfinished, table.schema)
            writer.write_table(table)
        if writer is None:
            raise ValueError("X has no rows: found 0 sample(s) while a minimum of 1 is required.")
        writer.close()
        os.replace(unfinished, path)
    finally:
        if writer is not None:
            writer.close()
        if os.path.exists(unfinished):
            os.remove(unfinished)
    return pa.dataset.dataset(os.fspath(path))


def _blocks(X):
    """(where, rows) of all rows, one block after the other."""
    if is_batches(X):
        yield from parts_of(X)
        return
    X = opened(as_array(X))
    if isinstance(X, Source | Tables):
        numbers = range(len(X.bounds) - 1)
        for number, rows in zip(numbers, ahead(X.read, numbers, 1), strict=True):
            yield X.place_of_block(number), rows
    elif isinstance(X, np.ndarray) and X.ndim == 2:
        for start, stop, rows in blocks_of(X):
            yield f"rows {start} to {stop - 1}", rows
    else:
        yield "X", X
