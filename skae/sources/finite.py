"""What rows should not hold, found and named: NaN, infinity, groups that are not one-hot."""

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


def check_one_hot(X, groups, feature_names=None, parameter="loss"):
    """Raise a ValueError if the columns of a multinomial group do not sum to one.

    ``groups`` are the columns of each. For a loss, a row without any was not observed, whether it
    has NaN or zeros; of an energy's units, one is always on unless all are NaN.
    """
    if not groups:
        return
    columns = np.concatenate(groups)
    sizes = [len(group) for group in groups]
    first, number = np.cumsum([0, *sizes[:-1]]), np.repeat(np.arange(len(groups)), sizes)
    membership = sparse.csr_matrix(
        (np.ones(len(columns)), (columns, number)), shape=(X.shape[1], len(groups))
    )
    for start, _, block in blocks_of(X):
        total = _group_totals(block, columns, first, membership)
        wrong = np.abs(total - 1) > 1e-3
        if parameter == "loss":
            wrong &= np.abs(total) > 1e-3
        elif block.dtype.kind == "f":
            gaps = block.copy() if sparse.issparse(block) else np.isnan(block)
            if sparse.issparse(block):
                gaps.data = np.isnan(block.data)
            missing = _group_totals(gaps, columns, first, membership)
            wrong = np.where(missing > 0, missing < sizes, wrong)
        if wrong.any():
            place, number = np.argwhere(wrong)[0]
            own = groups[number]
            named = (own if feature_names is None else feature_names[own])[:4].tolist()
            or_zero = ", or to 0 where it was not observed" if parameter == "loss" else ""
            raise ValueError(
                f"Each multinomial group must sum to 1 in every row{or_zero}, but in row "
                f"{start + place} the group of columns "
                f"{named}{'...' if len(own) > 4 else ''} sums to {total[place, number]:.4g}. "
                "Encode one variable per group with OneHotEncoder (without drop), or use "
                f"{parameter}='bernoulli' for independent binary columns."
            )


def _group_totals(block, columns, first, membership):
    """The sum of every group of columns in every row."""
    if sparse.issparse(block):
        if block.dtype.kind == "f" and np.isnan(block.data).any():
            block = block.copy()
            np.nan_to_num(block.data, copy=False)
        return (block @ membership).toarray()
    part = block[:, columns].astype(np.float64)
    return np.add.reduceat(np.nan_to_num(part, copy=False), first, axis=1)
