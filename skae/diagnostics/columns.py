"""What a model makes of the columns of a table: weights, errors and laws by their names."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skae._validation import check_count, column_names
from skae.diagnostics.jacobians import check_differentiable, map_jacobians, map_parts
from skae.diagnostics.samples import as_table, names_in_common
from skae.diagnostics.two_samples import codes_alike, kolmogorov_smirnov, total_variation
from skae.engine.optimisation.devices import undisturbed
from skae.frames.columns import Cells, library_of, names_of, read_columns

# Whole numbers of so many values or fewer have a bar for each.
_FEW = 20
# Of the data, beyond either end of the bins.
_TAIL = 0.005


class UnitWeights(NamedTuple):
    """What units respond to: ``names`` of the columns, ``weights`` (n_components, n_columns)."""

    names: tuple[str, ...]
    weights: np.ndarray


class ColumnErrors(NamedTuple):
    """Errors of cells: ``names`` of the columns, ``errors`` of shape (n_samples, n_columns)."""

    names: tuple[str, ...]
    errors: np.ndarray


class ColumnLaw(NamedTuple):
    """How the values of a column are spread, in data and in samples.

    Attributes
    ----------
    name : str
        Of the column.
    edges : ndarray of shape (n_bins + 1,) or None
        Of the bins of numbers and dates. None: there is one for each of the ``labels``.
    labels : tuple of str or None
        Values with a bin of their own, the most frequent first, or the least number.
    shares : ndarray of shape (1 + n_sets, n_bins)
        Parts of the rows of the data, and of each set of samples, that are in the bins.
    distances : ndarray of shape (n_sets,)
        ``column_errors`` of `compare_samples`.
    holds : str
        "numbers", "booleans", "texts", "categories", "dates" or "durations", in days; dates are
        counted from 1970.
    """

    name: str
    edges: np.ndarray | None
    labels: tuple[str, ...] | None
    shares: np.ndarray
    distances: np.ndarray
    holds: str


@undisturbed
def unit_weights(estimator, X=None):
    r"""Weights of code units by the columns that the network sees.

    Of an encoder of one layer its weights, ``components_``; of any encoder, where X is given, the
    mean derivatives

    .. math:: \frac{1}{n} \sum_i \frac{\partial h_j(x_i)}{\partial x}

    Parameters
    ----------
    estimator : AutoEncoder, RBM, PSD, StackedAutoEncoder or the like
        Fitted.
    X : {array-like, sparse matrix, data frame} of shape (n_samples, n_features), default=None
        Data. Some hundred rows are enough.

    Returns
    -------
    found : UnitWeights
        ``names`` and ``weights``, of columns as they are standardised, so that they can be
        compared. A category has a column for each of its values.

    Raises
    ------
    ValueError
        If there is no X and the encoder has several layers, or if its code has no gradient.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from skae import AutoEncoder
    >>> from skae.diagnostics import unit_weights
    >>> X = load_wine(as_frame=True).data
    >>> found = unit_weights(AutoEncoder(3, max_iter=20, random_state=0).fit(X))
    >>> found.names[:2], found.weights.shape
    (('alcohol', 'malic_acid'), (3, 13))
    """
    check_is_fitted(estimator)
    if X is None:
        weights = _first_layer(estimator)
    else:
        rows = check_differentiable(estimator, X, "encoder")
        weights = np.zeros((estimator._n_features_out, rows.shape[1]))

        def add(jacobian, places):
            dense = map_parts(jacobian, lambda part: part.dense())
            weights[:] += dense.sum(0).double().cpu().numpy() / rows.shape[0]
            return dense[:, 0, :1]

        map_jacobians(estimator, rows, add, (1,), "encoder")
    names = column_names(estimator)
    if names is None:
        names = [f"x{number}" for number in range(weights.shape[1])]
    return UnitWeights(tuple(map(str, names)), weights)


def _first_layer(estimator):
    weights = getattr(estimator, "components_", None)
    if weights is None:
        raise ValueError(
            f"This {type(estimator).__name__} has no weights of units for the columns alone "
            "(components_), as encoders of one layer have. Pass X: then the mean derivatives of "
            "the code are taken, of an encoder of any depth."
        )
    return np.asarray(weights, dtype=np.float64)


def reconstruction_errors(estimator, X):
    r"""Errors of the cells of a table in its reconstruction, in units that columns share.

    .. math::

        e_{ij} = \frac{(x_{ij} - r_{ij})^2}{\frac{1}{n} \sum_i (x_{ij} - \bar x_j)^2}, \qquad
        e_{ij} = \frac{[x_{ij} \ne r_{ij}]}{\frac{1}{n} \sum_i [x_{ij} \ne m_j]}

    of numbers and dates, and of categories and truth values with the most frequent value
    :math:`m_j`. The mean of a column is 1 for a guess that knows nothing of the row, 1 - R^2 of
    numbers, and 0 for a perfect reconstruction.

    Parameters
    ----------
    estimator : estimator
        Fitted, with `reconstruct`.
    X : {array-like, sparse matrix, data frame} of shape (n_samples, n_features)
        Data.

    Returns
    -------
    found : ColumnErrors
        ``names`` of the columns and ``errors`` of shape (n_samples, n_features); NaN in what was
        not observed. Columns that do not vary are measured as they are.

    Raises
    ------
    ValueError
        If the estimator does not reconstruct.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from skae import AutoEncoder
    >>> from skae.diagnostics import reconstruction_errors
    >>> X = load_wine(as_frame=True).data
    >>> found = reconstruction_errors(AutoEncoder(8, random_state=0).fit(X), X)
    >>> bool((found.errors.mean(axis=0) < 1).all())
    True
    """
    if not hasattr(estimator, "reconstruct"):
        raise ValueError(
            f"{type(estimator).__name__} does not reconstruct rows. Pass an auto-encoder, a "
            "machine or a stack, such as the stack_ of a StackedClassifier; of an "
            "OutlierDetector, draw OutlierDisplay."
        )
    X = X.toarray() if hasattr(X, "toarray") else X
    X = X if library_of(X) else np.asarray(X)
    back = estimator.reconstruct(X)
    back = back if library_of(back) else np.asarray(back)
    names = names_of(X) if library_of(X) else [f"x{number}" for number in range(X.shape[1])]
    pairs = zip(read_columns(X), read_columns(back), strict=True)
    return ColumnErrors(tuple(map(str, names)), np.column_stack([_errors(*p) for p in pairs]))


def _errors(own: Cells, other: Cells):
    if _is_number(own):
        x, r = (np.asarray(cells.numbers, dtype=np.float64) for cells in (own, other))
        known = x[~np.isnan(x)]
        center = known.mean() if len(known) else 0.0
        return np.square(x - r) / (np.square(known - center).mean() if np.ptp(known) else 1.0)
    x, r = codes_alike(own.as_values(), other.as_values())
    known = x[x >= 0]
    least = 1 - np.bincount(known).max() / len(known) if len(known) else 0.0
    return np.where(x >= 0, (x != r) / (least or 1.0), np.nan)


def _is_number(cells):
    return cells.numbers is not None and cells.holds != "booleans"


def column_laws(X, samples, *, n_bins=20):
    """How the values of each column are spread, in data and in samples, by the same bins.

    Parameters
    ----------
    X : {array-like, data frame} of shape (n_samples, n_features)
        Rows that the model learned from.
    samples : {array-like, data frame} of shape (n_drawn, n_features), or dict of them
        Samples, or several sets of them, by names.
    n_bins : int, default=20
        Bins of numbers, from the value that 0.5 % of the data are below to the one that 0.5 % are
        above; what lies outside is in the last ones. Whole numbers of few values have a bin for
        each. Values with a bin of their own at most.

    Returns
    -------
    laws : list of ColumnLaw
        One for each column. Shares are of what was observed.

    Raises
    ------
    ValueError
        If samples have other columns than X, or a set has less than ten rows.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from skae.diagnostics import column_laws
    >>> X = load_wine(as_frame=True).data
    >>> law = column_laws(X, X + 0.5)[0]
    >>> law.name, law.shares.shape, bool(law.distances[0] > 0.2)
    ('alcohol', (2, 20), True)
    """
    check_count("n_bins", n_bins, 2)
    sets = dict(samples) if isinstance(samples, Mapping) else {"samples": samples}
    X, sets = as_table(X, "X"), {name: as_table(of, name) for name, of in sets.items()}
    names = names_in_common(X, sets)
    columns = zip(read_columns(X), *map(read_columns, sets.values()), strict=True)
    return [_law(str(name), parts, n_bins) for name, parts in zip(names, columns, strict=True)]


def _law(name, parts, n_bins):
    if not _is_number(parts[0]):
        first = parts[0].as_values()
        found = [codes_alike(first, cells.as_values()) for cells in parts[1:]]
        distances = np.array([total_variation(*pair) for pair in found])
        labels, shares = _of_values([cells.as_values() for cells in parts], n_bins)
        return ColumnLaw(name, None, labels, shares, distances, parts[0].holds)
    values = [np.asarray(cells.numbers, dtype=np.float64) for cells in parts]
    distances = np.array([kolmogorov_smirnov(values[0], other) for other in values[1:]])
    known = [x[~np.isnan(x)] for x in values]
    whole = np.unique(known[0])
    if len(whole) > min(_FEW, n_bins) or (whole != np.round(whole)).any():
        edges = np.linspace(*np.quantile(known[0], [_TAIL, 1 - _TAIL]), n_bins + 1)
        if edges[0] == edges[-1]:
            edges = np.linspace(edges[0] - 0.5, edges[0] + 0.5, n_bins + 1)
        counts = [np.histogram(x.clip(edges[0], edges[-1]), edges)[0] for x in known]
        return ColumnLaw(name, edges, None, _parts(counts), distances, parts[0].holds)
    nearest = [np.abs(x[:, None] - whole).argmin(axis=1) for x in known]
    labels = tuple(f"{value:g}" for value in whole)
    counts = [np.bincount(places, minlength=len(whole)) for places in nearest]
    return ColumnLaw(name, None, labels, _parts(counts), distances, parts[0].holds)


def _of_values(columns, n_most):
    """The most frequent values of the first of some columns, and which part each has of them."""
    counts = np.bincount(columns[0].codes[columns[0].observed], minlength=len(columns[0].values))
    kept = [columns[0].values[place] for place in np.argsort(-counts, kind="stable")[:n_most]]
    shares = []
    for cells in columns:
        own = np.bincount(cells.codes[cells.observed], minlength=len(cells.values))
        number = dict(zip(cells.values, own / max(1, own.sum()), strict=True))
        shares.append([number.get(value, 0.0) for value in kept])
    return tuple(map(str, kept)), np.array(shares)


def _parts(counts):
    return np.array([own / max(1, own.sum()) for own in counts])
