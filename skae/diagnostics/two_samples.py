"""Measures of how far the rows of two tables are apart: columns, pairs, distances."""

from typing import NamedTuple

import numpy as np
from scipy import sparse
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors

from skae.frames.columns import Cells

# Bins of a number beside a category.
_BINS = 10
# Distances that count as equal: those of equal rows are not exactly 0.
_ROUNDING = 1e-6


class Table(NamedTuple):
    """Columns, read, that two tables have in common.

    ``numbers``, of shape (n_samples, n_numbers), are NaN where missing; ``codes``, of shape
    (n_samples, n_columns), number the values of a category, or the bins of a number, and are -1
    where missing. ``is_number``, of shape (n_columns,), tells which column is which.
    """

    numbers: np.ndarray
    codes: np.ndarray
    is_number: np.ndarray


def read_alike(data: list[Cells], samples: list[Cells]) -> tuple[Table, Table]:
    """Two tables, by the same numbers of values and the same bins: ten, as wide as each other,
    between the extremes of the data.
    """
    is_number = np.array([c.numbers is not None and c.holds != "booleans" for c in data])
    numbers: tuple[list, list] = ([], [])
    codes: tuple[list, list] = ([], [])
    for own, other, numeric in zip(data, samples, is_number, strict=True):
        if numeric:
            pair = [np.asarray(cells.numbers, dtype=np.float64) for cells in (own, other)]
            edges = _edges(pair[0])
            coded = [np.where(np.isnan(x), -1, np.searchsorted(edges, x, "right")) for x in pair]
            for kept, x in zip(numbers, pair, strict=True):
                kept.append(x)
        else:
            coded = codes_alike(own.as_values(), other.as_values())
        for kept, x in zip(codes, coded, strict=True):
            kept.append(x)
    tables = [
        Table(np.column_stack([np.empty((len(of[0]), 0)), *those]), np.column_stack(of), is_number)
        for those, of in zip(numbers, codes, strict=True)
    ]
    return tables[0], tables[1]


def _edges(x):
    known = x[~np.isnan(x)]
    return np.linspace(known.min(), known.max(), _BINS + 1)[1:-1] if len(known) else np.zeros(1)


def codes_alike(own, other):
    """Codes of two columns, by one numbering of the values of both."""
    number = {value: code for code, value in enumerate(dict.fromkeys([*own.values, *other.values]))}
    return [
        np.array([*(number[value] for value in cells.values), -1])[cells.codes]
        for cells in (own, other)
    ]


def column_distances(data: Table, samples: Table) -> np.ndarray:
    r"""How far the laws of each column are apart, of shape (n_columns,), from 0 to 1.

    Of numbers the statistic of Kolmogorov and Smirnov, :math:`\sup_t |F(t) - G(t)|`, of categories
    the total variation, :math:`\frac{1}{2} \sum_k |p_k - q_k|`. What is missing counts as a value.
    """
    found = np.empty(len(data.is_number))
    found[data.is_number] = [
        kolmogorov_smirnov(x, y) for x, y in zip(data.numbers.T, samples.numbers.T, strict=True)
    ]
    for column in np.flatnonzero(~data.is_number):
        found[column] = total_variation(data.codes[:, column], samples.codes[:, column])
    return found


def kolmogorov_smirnov(x: np.ndarray, y: np.ndarray) -> float:
    """The largest difference of two distribution functions; NaN is below all numbers."""
    x, y = (np.sort(np.where(np.isnan(values), -np.inf, values)) for values in (x, y))
    points = np.concatenate([x, y])
    below = [np.searchsorted(values, points, "right") / len(values) for values in (x, y)]
    return float(np.abs(below[0] - below[1]).max())


def total_variation(x: np.ndarray, y: np.ndarray) -> float:
    """Half the sum of differences of frequencies, for codes of at least -1."""
    size = 2 + max(x.max(), y.max())
    frequencies = [np.bincount(codes + 1, minlength=size) / len(codes) for codes in (x, y)]
    return float(np.abs(frequencies[0] - frequencies[1]).sum() / 2)


def pair_distances(data: Table, samples: Table) -> np.ndarray:
    r"""How far the laws of pairs of columns are apart, of shape (n_columns, n_columns).

    Of two numbers half the difference of their correlations, over rows that have both; of others
    the total variation of their contingency tables, of which numbers have ten bins. 0 to 1; the
    diagonal is 0.
    """
    n_columns, numeric = len(data.is_number), data.is_number
    found = np.zeros((n_columns, n_columns))
    if not numeric.all():
        found = _contingency_distances(data.codes, samples.codes)
    apart = correlations(data.numbers) - correlations(samples.numbers)
    found[np.ix_(numeric, numeric)] = np.abs(apart) / 2
    np.fill_diagonal(found, 0.0)
    return (found + found.T) / 2


def correlations(x: np.ndarray) -> np.ndarray:
    """Correlations of columns over the rows that have both; 0 with what does not vary."""
    seen = ~np.isnan(x)
    known = seen.any(axis=0)
    center = np.zeros(x.shape[1])
    center[known] = np.nanmean(x[:, known], axis=0)
    z = np.where(seen, x - center, 0.0)
    z /= np.abs(z).max(axis=0, initial=1e-300)  # sums of squares do not overflow
    seen = seen.astype(np.float64)
    count = np.maximum(seen.T @ seen, 1)
    first, second = z.T @ seen / count, np.square(z).T @ seen / count
    variance = second - np.square(first)
    covariance = z.T @ z / count - first * first.T
    scale = np.sqrt(np.maximum(variance, 0) * np.maximum(variance, 0).T)
    varies = scale > 1e-12
    return np.where(varies, covariance / np.where(varies, scale, 1.0), 0.0)


def _contingency_distances(codes, other):
    """Total variations of all pairs at once, by products of one-hot matrices."""
    sizes = 2 + np.maximum(codes.max(axis=0), other.max(axis=0))
    start = np.cumsum([0, *sizes[:-1]])

    def joint(table):
        places = (table + 1 + start).ravel()
        rows = np.repeat(np.arange(len(table)), len(sizes))
        hot = sparse.csr_matrix((np.ones(len(rows)), (rows, places)), (len(table), sizes.sum()))
        return hot.T @ hot / len(table)

    column = np.repeat(np.arange(len(sizes)), sizes)
    member = sparse.csr_matrix((np.ones(len(column)), (np.arange(len(column)), column)))
    return (member.T @ abs(joint(codes) - joint(other)) @ member).toarray() / 2


def energy_distance(x: np.ndarray, y: np.ndarray) -> float:
    r"""2 E|x - y| - E|x - x'| - E|y - y'| without bias: 0 on average if the laws are equal."""
    within = [cdist(z, z).sum() / (len(z) * (len(z) - 1)) for z in (x, y)]
    return float(2 * cdist(x, y).mean() - sum(within))


class Copies:
    """Tells rows that are closer to training rows than new rows are.

    A row is a near-copy if it is no further from its nearest training row than one in twenty of
    the ``others``: rows that were held out. None: each training row, beside all others.
    """

    def __init__(self, training: np.ndarray, others: np.ndarray | None):
        self.search = NearestNeighbors(n_neighbors=1).fit(training)
        if others is None:
            distances = self.search.kneighbors(training, 2)[0][:, 1]
        else:
            distances = self.distances(others)
        self.least = float(np.quantile(distances, 0.05)) + _ROUNDING
        self.share_of_others = float(np.mean(distances <= self.least))

    def distances(self, rows: np.ndarray) -> np.ndarray:
        """To the nearest training row."""
        return self.search.kneighbors(rows)[0][:, 0]

    def share(self, rows: np.ndarray) -> float:
        """The part of some rows that are near-copies."""
        return float(np.mean(self.distances(rows) <= self.least))
