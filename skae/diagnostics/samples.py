"""How good samples of a model are, beside the data that it learned from."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import SimpleNamespace
from typing import Any

import numpy as np
from sklearn.metrics import r2_score, roc_auc_score
from sklearn.model_selection import KFold

from skae._validation import check_count, random_numbers
from skae.diagnostics.two_samples import (
    Copies,
    column_distances,
    energy_distance,
    pair_distances,
    read_alike,
)
from skae.frames.columns import library_of, names_of, read_columns
from skae.frames.encoding import Encoding
from skae.frames.reading import encode_rows

# Parts of the rows of which each is judged by a classifier of the others.
_FOLDS = 3
# The row that perfect samples would have.
HELD_OUT = "held-out rows"
_MEASURES = (
    "column_error", "pair_error", "detection_auc", "energy_distance", "near_copies", "utility",
)  # fmt: skip


@dataclass(frozen=True, repr=False)
class SampleComparison:
    """How far some sets of samples are from the data; see `compare_samples`.

    Attributes
    ----------
    names : tuple of str
        Of the sets of samples.
    column_error, pair_error : ndarray of shape (n_sets,)
        Mean distances of the columns, and of pairs of columns; from 0 to 1.
    detection_auc : ndarray of shape (n_sets,)
        Of a classifier that tells samples from data: 0.5 if it cannot.
    energy_distance : ndarray of shape (n_sets,)
        About 0 if the laws are equal.
    near_copies : ndarray of shape (n_sets,)
        Part of the samples that are nearer to a training row than new rows are.
    utility : ndarray of shape (n_sets,)
        AUC, or R^2 of numbers, on data, of a predictor that was trained on samples; NaN without a
        target.
    near_copies_of_data, utility_of_data : float
        What new rows of the data have there, and a predictor that was trained on data.
    columns : tuple of str
        Names of the columns.
    column_errors : ndarray of shape (n_sets, n_columns)
        Of each column.
    pair_errors : ndarray of shape (n_sets, n_columns, n_columns)
        Of each pair, 0 on the diagonal.
    """

    names: tuple
    column_error: np.ndarray
    pair_error: np.ndarray
    detection_auc: np.ndarray
    energy_distance: np.ndarray
    near_copies: np.ndarray
    utility: np.ndarray
    near_copies_of_data: float
    utility_of_data: float
    columns: tuple
    column_errors: np.ndarray
    pair_errors: np.ndarray

    @property
    def measures(self) -> dict[str, np.ndarray]:
        """The measures by their names, one number for each set of samples."""
        found = {name: getattr(self, name) for name in _MEASURES}
        return found if np.isfinite(self.utility_of_data) else found | {"utility": None}

    def to_frame(self):
        """The measures as a data frame of pandas, one row for each set of samples.

        Returns
        -------
        frame : DataFrame
        """
        import pandas as pd

        columns = {name: values for name, values in self.measures.items() if values is not None}
        return pd.DataFrame(columns, index=list(self.names))

    def __repr__(self):
        found = {name: values for name, values in self.measures.items() if values is not None}
        width = max(map(len, (*self.names, "samples")))
        lines = [f"{'samples':<{width}}  " + "  ".join(found)]
        for number, name in enumerate(self.names):
            cells = (f"{values[number]:>{len(title)}.3f}" for title, values in found.items())
            lines.append(f"{name:<{width}}  " + "  ".join(cells))
        new = f"of data: near_copies {self.near_copies_of_data:.3f}"
        if "utility" in found:
            new += f", utility {self.utility_of_data:.3f}"
        return "\n".join([*lines, new])


def compare_samples(X, samples, *, target=None, held_out=None, max_rows=2000, random_state=None):
    r"""Compare samples of a model with the data that it learned from.

    - ``column_error``: the mean, over columns, of :math:`\sup_t |F(t) - G(t)|` for numbers
      (Kolmogorov and Smirnov) and :math:`\frac{1}{2} \sum_k |p_k - q_k|` for categories (total
      variation).
    - ``pair_error``: the mean, over pairs of columns, of :math:`\frac{1}{2} |\rho - \rho'|` for two
      numbers, :math:`\rho` being their correlation, and of the total variation of the contingency
      table for others, of which numbers have ten bins.
    - ``detection_auc``: area under the ROC curve of a random forest that tells samples from data,
      as many of each, every row by trees that have not seen it [3]_. 0.5: it cannot. Below that,
      samples are copies of rows.
    - ``energy_distance``: :math:`2 E|x - y| - E|x - x'| - E|y - y'|` for rows x of the data and
      samples y [4]_, without bias, so that it may be below 0.
    - ``near_copies``: the part of the samples that are no further from their nearest row in X than
      one in twenty of new rows is. Of good samples about as many as of new rows,
      ``near_copies_of_data``.
    - ``utility``: of gradient-boosted trees that learn the target on the samples and are tested on
      data; the area under the ROC curve of classes (one against the others), R^2 of numbers as
      clipped.

    The first two are one minus the scores "column shapes" and "column pair trends" of SDMetrics
    [1]_, in which literature gives them, in percent [2]_. Of gaps these know little; here what is
    missing counts as a value: below all numbers, or a category of its own.

    Parameters
    ----------
    X : {array-like, DataFrame} of shape (n_samples, n_features)
        Rows that the model learned from. Frames may have text, categories, dates and gaps, as those
        that estimators take. Columns of an array are numbers.
    samples : {array-like, DataFrame} of shape (n_drawn, n_features), or dict of them
        Samples with the same columns, or several sets of them, by names: pass baselines so.
    target : str or int, default=None
        Name of a column, or its place in an array, that is predicted from the others for
        ``utility``. Text, categories and columns of two values are classes.
    held_out : {array-like, DataFrame} of shape (n_held_out, n_features), default=None
        Rows of the data that the model has not seen. They tell how far new rows are from X, they
        are what predictors are tested on, and they are compared as if they were samples, by the
        name "held-out rows": what perfect samples would have. None: each row of X is new to the
        others, and predictors are tested on X.
    max_rows : int, default=2000
        Rows of each set at most for the forest, energy and near-copies; more are drawn from.
    random_state : int, RandomState instance or None, default=None
        Of what is drawn. The same int gives the same figures.

    Returns
    -------
    comparison : SampleComparison
        It prints as a table; ``to_frame()`` makes it a data frame.

    Raises
    ------
    ValueError
        If samples have other columns than X, or a set has less than ten rows, or the target is no
        column, or does not vary.

    See Also
    --------
    skae.plots.SampleComparisonDisplay : Draws the errors of all columns and pairs.

    Notes
    -----
    The forest, distances and trees see what networks see (:ref:`raw_frames`): numbers clipped, one
    column for each category, those of less than 1 % of the rows together. For distances one-hot
    columns are divided by :math:`\sqrt 2`, so that different categories are 1 apart; a gap is 0,
    beside a column that marks it.

    References
    ----------
    .. [1] SDMetrics, quality report. https://docs.sdv.dev/sdmetrics
    .. [2] H. Zhang et al. Mixed-type tabular data synthesis with score-based diffusion in latent
       space. ICLR 2024; figures of TabDDPM (Kotelnikov et al., ICML 2023) and others there.
    .. [3] D. Lopez-Paz, M. Oquab. Revisiting classifier two-sample tests. ICLR 2017.
    .. [4] G. Szekely, M. Rizzo. Energy statistics: a class of statistics based on distances.
       Journal of Statistical Planning and Inference 143(8), 2013.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.mixture import GaussianMixture
    >>> from skae.diagnostics import compare_samples
    >>> X = load_iris().data
    >>> rng = np.random.default_rng(0)
    >>> sets = {
    ...     "mixture": GaussianMixture(3, random_state=0).fit(X).sample(150)[0],
    ...     "shuffled columns": rng.permuted(X, axis=0),
    ... }
    >>> found = compare_samples(X, sets, random_state=0)
    >>> bool(found.detection_auc[0] < found.detection_auc[1])
    True
    """
    check_count("max_rows", max_rows, 10)
    sets = dict(samples) if isinstance(samples, Mapping) else {"samples": samples}
    if held_out is not None:
        if HELD_OUT in sets:
            raise ValueError(f"samples has a set {HELD_OUT!r}, which is the name of held_out.")
        sets[HELD_OUT] = held_out
    if not sets:
        raise ValueError("samples is an empty dict: there is nothing to compare.")
    X, sets = as_table(X, "X"), {name: as_table(of, name) for name, of in sets.items()}
    names = names_in_common(X, sets)
    encoding, rows = _encoded(X)
    coded = {name: _encode(encoding, of, name) for name, of in sets.items()}
    drawn = _Draws(max_rows, random_numbers(random_state))
    predictor = _Predictor(encoding, target, names, drawn.seed)
    # Of these, the data's are made once.
    cells, data, some = list(read_columns(X)), _coordinates(encoding, rows), drawn.rows(rows)
    new = None if held_out is None else coded[HELD_OUT]
    copies = Copies(data, None if new is None else _coordinates(encoding, new))
    test = rows if new is None else new
    best = predictor.of_data(rows, new)

    found: dict[str, list] = {field.name: [] for field in fields(SampleComparison)}
    for name, of in sets.items():
        tables, own = read_alike(cells, list(read_columns(of))), drawn.rows(coded[name])
        errors = column_distances(*tables), pair_distances(*tables)
        pairs = errors[1][np.triu_indices(len(names), 1)]
        is_data = held_out is not None and name == HELD_OUT
        measures = {
            "column_error": errors[0].mean(),
            "pair_error": pairs.mean() if len(pairs) else 0.0,
            "detection_auc": _detection(some, own, drawn.seed),
            "energy_distance": energy_distance(
                _coordinates(encoding, some), _coordinates(encoding, own)
            ),
            "near_copies": copies.share(_coordinates(encoding, own)),
            "utility": best if is_data else predictor.score(coded[name], test),
            "column_errors": errors[0],
            "pair_errors": errors[1],
        }
        for measure, value in measures.items():
            found[measure].append(value)
    arrays: dict[str, Any] = {name: np.array(values) for name, values in found.items()}
    arrays |= {"names": tuple(sets), "columns": tuple(names)}
    arrays |= {"near_copies_of_data": copies.share_of_others, "utility_of_data": best}
    return SampleComparison(**arrays)


def as_table(X, name):
    """A frame as it is, else an array of two dimensions."""
    if library_of(X) is None:
        X = np.asarray(X.toarray() if hasattr(X, "toarray") else X)
        if X.ndim != 2 or X.dtype.kind not in "fiub":
            raise ValueError(
                f"{name!r} must be a data frame, or an array of numbers of shape (n_samples, "
                f"n_features); it has the shape {X.shape} and the dtype {X.dtype}."
            )
    if X.shape[0] < 10:
        raise ValueError(f"{name!r} has {X.shape[0]} rows; of less than 10 nothing can be said.")
    return X


def names_in_common(X, sets):
    """Names of the columns, if all sets have the same."""
    labels = names_of(X) if library_of(X) else None
    for name, of in sets.items():
        if of.shape[1] != X.shape[1]:
            raise ValueError(f"{name!r} has {of.shape[1]} columns, but X has {X.shape[1]}.")
        if (labels is None) != (library_of(of) is None):
            raise ValueError(
                f"X and {name!r} must both be data frames, or both be arrays: columns would not be "
                "read alike."
            )
        if labels is not None and names_of(of) != labels:
            raise ValueError(
                f"{name!r} has the columns {names_of(of)[:20]}, but X has {labels[:20]}, which "
                "should be the same, in the same order."
            )
    return [f"x{number}" for number in range(X.shape[1])] if labels is None else labels


def _encoded(X):
    """What estimators would make of the columns, and the encoded rows."""
    options = SimpleNamespace(
        numbers="clipped", categorical_features="from_dtype", max_categories=30, min_frequency=0.01
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of rare values, which are few here
        rows = encode_rows(options, options, X, reset=True)
    return options.encoding_, rows


def _encode(encoding, samples, name):
    try:
        return encoding.encode(samples)
    except ValueError as error:
        raise ValueError(f"{name!r}: {error}") from error


def _coordinates(encoding: Encoding, rows):
    """Encoded rows as points whose distances tell how unlike rows are."""
    scale = np.where([kind == "category" for kind in encoding.kinds], np.sqrt(0.5), 1.0)
    first = [v.columns.start for v in encoding.variables if not v.is_empty]
    gaps = np.isnan(rows[:, first]).astype(np.float64)
    return np.hstack([np.nan_to_num(rows * scale), gaps])


class _Draws:
    """Some of the rows of a set, and the seed of all that is fitted."""

    def __init__(self, max_rows, rng):
        self.max_rows, self.rng, self.seed = max_rows, rng, int(rng.randint(2**31 - 1))

    def rows(self, rows):
        if len(rows) <= self.max_rows:
            return rows
        return rows[self.rng.choice(len(rows), self.max_rows, replace=False)]


def _detection(data, samples, seed):
    """Area under the curve of a forest's out-of-bag votes, with as many rows of both."""
    from sklearn.ensemble import RandomForestClassifier  # which takes a while to import

    size = min(len(data), len(samples))
    rows = np.vstack([data[:size], samples[:size]])
    rows[:, np.isnan(rows).all(axis=0)] = 0.0
    is_sample = np.arange(len(rows)) >= size
    forest = RandomForestClassifier(100, min_samples_leaf=3, oob_score=True, random_state=seed)
    votes = forest.fit(rows, is_sample).oob_decision_function_
    return roc_auc_score(is_sample, votes[:, 1])


class _Predictor:
    """Predicts a column from the others."""

    def __init__(self, encoding, target, names, seed):
        self.target, self.seed = target, seed
        if target is None:
            return
        if target in names:
            place = list(names).index(target)
        elif isinstance(target, int | np.integer) and 0 <= target < len(names):
            place = int(target)
        else:
            raise ValueError(f"target={target!r} is no column of X, which has {names[:20]}.")
        self.variable = encoding.variables[place]
        if len(names) < 2:
            raise ValueError("X has the target alone, and no column to predict it from.")
        if self.variable.is_empty:
            raise ValueError(f"target={target!r} has no observed value.")
        own = np.arange(self.variable.columns.start, self.variable.columns.stop)
        self.others = np.setdiff1d(np.arange(encoding.n_columns), own)

    def _read(self, rows):
        """Features and the target, of the rows that have one."""
        own = rows[:, self.variable.columns]
        known = ~np.isnan(own[:, 0])
        own, others = own[known], rows[known][:, self.others]
        return others, own.argmax(axis=1) if own.shape[1] > 1 else own[:, 0]

    def score(self, rows, test) -> float:
        """How well a predictor of some rows does on others."""
        if self.target is None:
            return np.nan
        x, y = self._read(test)
        known, of_known = self._read(rows)
        return self._judged(y, self._predicted(known, of_known, x, np.unique(y)))

    def of_data(self, rows, test) -> float:
        """The same of data, cross-fitted where there are none to test on."""
        if self.target is None:
            return np.nan
        if test is not None:
            return self.score(rows, test)
        x, y = self._read(rows)
        classes = np.unique(y)
        found = np.zeros((len(y), len(classes)) if not self.variable.is_numeric else len(y))
        for train, part in KFold(_FOLDS, shuffle=True, random_state=self.seed).split(x):
            found[part] = self._predicted(x[train], y[train], x[part], classes)
        return self._judged(y, found)

    def _predicted(self, x, y, new, classes):
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

        # Trees have no bins for columns that samples have lost.
        x, new = x.copy(), new.copy()
        lost = np.isnan(x).all(axis=0)
        x[:, lost] = new[:, lost] = 0.0
        if self.variable.is_numeric:
            model = HistGradientBoostingRegressor(random_state=self.seed)
            return model.fit(x, y).predict(new)
        found = np.full((len(new), len(classes)), 1e-12)
        if len(np.unique(y)) > 1:
            model = HistGradientBoostingClassifier(random_state=self.seed).fit(x, y)
            known = np.isin(model.classes_, classes)
            place = np.searchsorted(classes, model.classes_[known])
            found[:, place] = model.predict_proba(new)[:, known]
        return found / found.sum(axis=1, keepdims=True)

    def _judged(self, y, found):
        if len(np.unique(y)) < 2:
            raise ValueError(f"target={self.target!r} has one value only, which needs no guess.")
        if self.variable.is_numeric:
            return float(r2_score(y, found))
        if found.shape[1] == 2:
            return float(roc_auc_score(y, found[:, 1]))
        return float(roc_auc_score(y, found, multi_class="ovr"))
