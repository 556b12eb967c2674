"""Which kind of variable each column is, as the data and the columns' names tell.

What ``loss="auto"`` means, column by column:

- columns that are one one-hot variable: "multinomial", each variable for itself;
- columns of the two values 0 and 1: "bernoulli"; but where most columns are amounts, from 0 to more
  than 1, one with fewer ones than sqrt(2 n) in n rows is an amount, too;
- all others: "bernoulli" if they all lie in [0, 1] and a tenth of their entries or more is exactly
  0 or 1, as of ink on paper or of words in texts; else "gaussian".
"""

from itertools import pairwise

import numpy as np
from scipy import sparse

from skae.engine.optimisation import processes
from skae.engine.optimisation.rows import ColumnSummary, every
from skae.engine.optimisation.sources import Source, block_bounds, blocks_of, release_pages

# The part of entries that are exactly 0 or 1 from which on columns are no measurements.
_EXACT = 0.1
# Rows that are looked at for exact entries, spread over all.
_LOOKED_AT = 10_000
# Rows outside of a variable's most frequent category that tell it from chance.
_FEWEST = 5
# Where names tell of a variable, the part of its rows that may have none of its categories: such a
# row is not observed. More, and a category has been dropped.
_UNKNOWN = 0.05
# mean (1 - mean) - variance of columns of zeros and ones is 0 but for rounding.
_ROUNDING = 1e-12


def kinds_of(X, summary: ColumnSummary, row_weight=None, feature_names=None) -> tuple:
    """The losses of all columns, and which: ``((name, columns), ...)``."""
    inside = (summary.minimum >= 0) & (summary.maximum <= 1)
    spread = np.where(inside, summary.mean * (1 - summary.mean) - summary.std**2, np.inf)
    is_binary = inside & (np.abs(spread) <= _ROUNDING)
    one_hot = _groups(X, is_binary, row_weight, feature_names) if is_binary.sum() > 1 else []
    in_group = np.zeros(len(inside), dtype=bool)
    for columns in one_hot:
        in_group[columns] = True
    others = np.flatnonzero(~is_binary)
    is_constant = summary.minimum == summary.maximum
    if len(others) and inside[others].all() and _share_of_exact(X, others) >= _EXACT:
        bernoulli = ~in_group
    elif len(others):
        # A column of one value is as well off among those that are standardised.
        rare = _rare_amounts(summary, processes.current().total(X.shape[0]))
        bernoulli = is_binary & ~in_group & ~is_constant & ~rare
    else:
        bernoulli = ~in_group
    singles = [("bernoulli", bernoulli), ("gaussian", ~bernoulli & ~in_group)]
    parts = [(name, np.flatnonzero(chosen)) for name, chosen in singles if chosen.any()]
    return (*parts, *(("multinomial", columns) for columns in one_hot))


def _rare_amounts(summary, n_rows):
    """Which columns are amounts, whatever their values, where most columns are: the rare ones.

    Of n counts of mean p about n p^2 / 2 are 2 or more: below 1 none need be among these rows.
    """
    varies = summary.minimum < summary.maximum
    are_amounts = (summary.minimum == 0) & (summary.maximum > 1)
    most = 2 * np.count_nonzero(are_amounts) > np.count_nonzero(varies)
    return (n_rows * summary.mean**2 < 2) & most


def _share_of_exact(X, columns):
    """The part of some columns' entries that are exactly 0 or 1, of rows spread over all."""
    X = every(X, max(1, X.shape[0] // _LOOKED_AT))
    n_entries = X.shape[0] * len(columns)
    if sparse.issparse(X):
        chosen = np.zeros(X.shape[1], dtype=bool)
        chosen[columns] = True
        values = X.data[chosen[X.indices]]
        n_exact = n_entries - len(values) + np.isin(values, (0, 1)).sum()
    else:
        everything = len(columns) == X.shape[1]
        n_exact = 0
        for start, stop in block_bounds(*X.shape):
            block = X[start:stop] if everything else X[start:stop, columns]
            n_exact += np.count_nonzero(block == 0) + np.count_nonzero(block == 1)
        release_pages(X)
    total = processes.current().total
    return total(n_exact) / total(n_entries)


def _groups(X, is_binary, row_weight, feature_names):
    """One-hot variables among columns of zeros and ones, as arrays of columns."""
    columns = np.flatnonzero(is_binary)
    n_rows, everyone = X.shape[0], processes.current()
    # Numbers for the rows: the sums of a column's ones tell which rows have them, but for a chance
    # of one in a billion. All are whole, so that sums are exact.
    draws = _Numbers(row_weight, everyone.rank)
    if not isinstance(X, Source):
        draws = draws[0:n_rows]
    ones, missing = _projections(X, columns, draws)
    ones, missing, total = map(everyone.total, (ones, missing, draws.sum(0)))
    found, taken = [], np.zeros(len(columns), dtype=bool)
    for start, stop in _runs(columns):
        for first, last in _in_run(ones[start:stop], missing[start:stop], total):
            part = slice(start + first, start + last)
            counts = ones[part, 2]
            if counts.sum() - counts.max() >= _FEWEST:
                found.append(columns[part])
                taken[part] = True
    if feature_names is not None and not taken.all():
        seen = np.maximum(total[2] - missing[:, 2], 1)
        found += _named_groups(X, columns, ones[:, 2], seen, taken, feature_names)
    return sorted(found, key=lambda columns: columns[0])


class _Numbers:
    """Random numbers for rows that are not in memory, of one block after the other."""

    shape = (0, 3)

    def __init__(self, row_weight=None, seed=0):
        self._weight, self._random = row_weight, np.random.default_rng(seed)
        self._total = np.zeros(3)

    def __getitem__(self, rows):
        n_rows = rows.stop - rows.start
        draws = self._random.integers(1, 2**15, size=(n_rows, 2)).astype(np.float64)
        draws = np.column_stack([draws, np.ones(n_rows)])
        if self._weight is not None:
            draws[self._weight[rows] == 0] = 0
        self._total += draws.sum(0)
        return draws

    def sum(self, axis):
        """The sums of all that were drawn."""
        return self._total


def _projections(X, columns, draws):
    """The sums of the rows' numbers over the ones of each column, and over its gaps."""
    shape = len(columns), draws.shape[1]
    if sparse.issparse(X):
        part, missing = X, np.zeros((X.shape[1], shape[1]))
        if X.dtype.kind == "f" and np.isnan(X.data).any():
            part = X.copy()
            gaps = np.isnan(part.data)
            where = sparse.csr_matrix((gaps.astype(float), X.indices, X.indptr), shape=X.shape)
            part.data[gaps] = 0
            missing = where.T @ draws
        return (part.T @ draws)[columns], missing[columns]
    ones, missing = np.zeros(shape), np.zeros(shape)
    for start, stop, block in blocks_of(X):
        block = block[:, columns].astype(np.float64)
        numbers = draws[start:stop]
        found = block.T @ numbers
        if np.isnan(found).any():
            gaps = np.isnan(block)
            missing += gaps.T @ numbers
            block[gaps] = 0
            found = block.T @ numbers
        ones += found
        release_pages(X)
    return ones, missing


def _runs(columns):
    """(start, stop) of the runs of columns that lie one after the other."""
    breaks = np.flatnonzero(np.diff(columns) > 1) + 1
    bounds = [0, *breaks.tolist(), len(columns)]
    return [(start, stop) for start, stop in pairwise(bounds) if stop - start > 1]


def _in_run(ones, missing, total):
    """(first, last) of columns whose sum is 1 in every row that has them, from the left."""
    upto = np.vstack([np.zeros(ones.shape[1]), np.cumsum(ones, axis=0)])
    first, found = 0, []
    while first < len(ones) - 1:
        wanted = upto[first] + total - missing[first]
        last = int(np.searchsorted(upto[:, 0], wanted[0]))
        if (
            first + 2 <= last < len(upto)
            and (upto[last] == wanted).all()
            and (missing[first:last] == missing[first]).all()
        ):
            found.append((first, last))
            first = last
        else:
            first += 1
    return found


def _named_groups(X, columns, counts, seen, taken, feature_names):
    """One-hot variables whose columns are named as those of OneHotEncoder: variable_category."""
    by_prefix: dict[str, list[int]] = {}
    for position in np.flatnonzero(~taken):
        name = str(feature_names[columns[position]])
        for end, letter in enumerate(name[:-1], 1):
            if letter in "_=":
                by_prefix.setdefault(name[:end], []).append(position)
    found = []
    for positions in sorted(by_prefix.values(), key=len, reverse=True):
        share = (counts[positions] / seen[positions]).sum()
        own = counts[positions]
        if (
            len(positions) < 2
            or taken[positions].any()
            or not 1 - _UNKNOWN <= share <= 1 + _ROUNDING
            or own.sum() - own.max() < _FEWEST
        ):
            continue
        group = columns[positions]
        if _is_exclusive(X, group):
            taken[positions] = True
            found.append(group)
    return found


def _is_exclusive(X, columns):
    """Whether no row has two of some columns of zeros and ones, in any process of the fit."""

    def has_two(block):
        block = block[:, columns]
        block = block.toarray() if sparse.issparse(block) else block
        return np.nansum(block, axis=1).max(initial=0) > 1

    return not processes.current().any(any(has_two(block) for _, _, block in blocks_of(X)))
