"""Numbers that are none, found and named: NaN and infinity."""

import numpy as np
from scipy import sparse

from skae.engine.optimisation.sources import Source, blocks_of, release_pages


def check_finite(X, feature_names=None, *, gaps=False):
    """Raise a ValueError that names row and column of the first NaN or infinity.

    With ``gaps`` NaN stands for what was not observed, and only infinity is wrong.
    """
    if X.dtype.kind != "f":
        return
    is_right = (lambda values: ~np.isinf(values)) if gaps else np.isfinite
    if sparse.issparse(X):
        if not is_right(X.data).all():
            entries = X.tocoo()
            bad = np.flatnonzero(~is_right(entries.data))[0]
            _raise_not_finite(entries.data[bad], entries.row[bad], entries.col[bad], feature_names)
        return
    for start, _, block in blocks_of(X):
        where = _block_of_row(X, start) if isinstance(X, Source) else ""
        check_block_finite(block, start, where, feature_names, gaps)
        release_pages(X)


def check_block_finite(block, start, where, feature_names, gaps):
    """The same for a block of rows, of which the first is ``start``, and which is ``where``."""
    # The sum is finite if all entries are; only otherwise look closer.
    with np.errstate(invalid="ignore", over="ignore"):
        finite = block.dtype.kind != "f" or np.isfinite(block.sum())
    if not finite:
        bad = np.argwhere(np.isinf(block) if gaps else ~np.isfinite(block))
        if len(bad):
            row, column = bad[0]
            _raise_not_finite(block[row, column], start + row, column, feature_names, where)


def _block_of_row(source, row):
    return source.place_of_block(int(np.searchsorted(source.bounds, row, side="right")) - 1)


IMPUTE = (
    "Impute missing values first, for example with skae's DenoisingImputer or "
    "sklearn.impute.SimpleImputer, or use a model that takes them as they are, such as an "
    "AutoEncoder or a stack of them"
)


def _raise_not_finite(value, row, column, feature_names, where=""):
    kind, remedy = ("NaN", IMPUTE) if np.isnan(value) else ("infinity", "Clip or remove it")
    name = "" if feature_names is None else f" ({feature_names[column]!r})"
    where = f", in {where}" if where else ""
    raise ValueError(
        f"Input X contains {kind} in row {row}, column {column}{name}{where}. {remedy}."
    )


def check_no_infinity(values, column, name):
    """Raise a ValueError that names row and column of the first infinity of a column."""
    if values is not None and np.isinf(values).any():
        row = np.flatnonzero(np.isinf(values))[0]
        _raise_not_finite(np.inf, row, column, {column: name})
