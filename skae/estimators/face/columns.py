"""From the ``loss`` parameter and the data to output units and standardised columns."""

import warnings
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import sparse

from skae._validation import check_domain, check_finite, check_one_hot, column_indices
from skae.engine.networks.mixed import Mixed
from skae.engine.networks.units import UNITS
from skae.engine.optimisation import processes
from skae.engine.optimisation.rows import digest, merged, summarize_columns
from skae.engine.optimisation.sharing import content, once
from skae.engine.optimisation.sources import Source
from skae.estimators.face.grids import grid_of
from skae.estimators.face.kinds import kinds_of
from skae.frames.encoding import parts_of

# Columns from which on they may be pixels, and the part of them that spans half of the scale.
_PIXELS, _ON_ONE_SCALE = 32, 0.75
# Numbers by which padding may widen a row whatever its width: less than one more operation costs.
_PADDING = 1000
# Numbers whose squares lose digits, or all of themselves.
_SMALL = 1e-140


@dataclass(frozen=True, eq=False)
class Columns:
    """What a model knows of its input's columns; fitted state of an estimator.

    - ``parts``: losses and the positions of the columns they are for; every column once.
    - ``shift``, ``scale``: the network sees (x - shift) / scale, with mean and standard deviation
      of Gaussian columns, 0 and 1 for others.
    - ``mean``, ``minimum``, ``maximum``: of the training data.
    - ``parameter``: the estimator's parameter that chose the parts, for messages.
    - ``has_gaps``: whether entries of the training data were NaN: not observed.
    - ``grid``: of each column the few values that it has, or a number of decimals, or None.
    """

    parts: tuple
    shift: np.ndarray
    scale: np.ndarray
    mean: np.ndarray
    minimum: np.ndarray
    maximum: np.ndarray
    parameter: str = "loss"
    has_gaps: bool = False
    grid: tuple = ()

    def replaced(self, **changes):
        """The same with other values of some."""
        return replace(self, **changes)

    def check(self, X, feature_names=None):
        """Raise a ValueError where data leave the domain of their loss."""
        if any(UNITS[name].domain is not None for name, _ in self.parts):
            key = lambda: (known := content(X)) and ("summary", known)  # noqa: E731
            summary = once(key, lambda: summarize_columns(X))
            _check_parts(self.parts, X, summary, feature_names, self.parameter)

    def check_choice(self, choice):
        """Refuse to continue a model with other output units than it has."""
        names = {name for name, _ in self.parts}
        if isinstance(choice, str) and choice != "auto" and names != {choice}:
            raise ValueError(
                f"{self.parameter}={choice!r}, but this model was fitted with "
                f"{', '.join(sorted(names))} units, which training cannot change. Set "
                f"{self.parameter} back, or call fit with warm_start=False."
            )

    def check_first_part(self, n_rows):
        """Refuse or report a first part of a stream that tells too little of its columns."""
        scaled = [columns for name, columns in self.parts if UNITS[name].standardizes]
        if not scaled:
            return
        own = ", or scale them yourself and set loss='squared_error'"
        remedy = (
            "The first call of partial_fit estimates mean and scale of the columns for all calls "
            f"to come: pass more rows at first{own if self.parameter == 'loss' else ''}."
        )
        if n_rows < 2:
            raise ValueError(f"One row (n_samples=1) has no scale. {remedy}")
        columns = np.concatenate(scaled)
        constant = columns[self.minimum[columns] == self.maximum[columns]]
        if len(constant):
            warnings.warn(
                f"Columns {constant.tolist()[:5]} are constant so far. {remedy}", stacklevel=4
            )

    @property
    def is_standardized(self):
        """Whether the network sees other numbers than the user's."""
        return bool(self.shift.any() or (self.scale != 1).any())

    @property
    def are_intensities(self):
        """Whether all columns are amounts on one scale, as pixels of images and words of texts.

        Those are as they are, not standardised and not one-hot; or many that share a scale from 0
        upwards, whatever its end: most of them span half of it or more.
        """
        units = [UNITS[name] for name, _ in self.parts]
        if any(unit.sums_to_one for unit in units):
            return False
        if not any(unit.standardizes for unit in units):
            return True
        span = self.maximum - self.minimum
        span = span[span > 0]
        if len(span) < _PIXELS or self.minimum.min() < 0:
            return False
        return bool(np.mean(span >= self.maximum.max() / 2) >= _ON_ONE_SCALE)

    def standardized(self, statistic):
        """One of the statistics by name, as the network sees it."""
        return (getattr(self, statistic) - self.shift) / self.scale

    def standardization(self, place):
        """(shift, scale) as tensors, or (None, None) where columns are used as they are."""
        if not self.is_standardized:
            return None, None
        return place.tensor(self.shift), place.tensor(self.scale)

    @property
    def variables(self):
        """The columns of each variable, a tuple of arrays: a one-hot variable has several."""
        found = []
        for name, columns in self.parts:
            found += [columns] if UNITS[name].sums_to_one else [*np.reshape(columns, (-1, 1))]
        return tuple(sorted(found, key=lambda columns: columns[0]))

    @property
    def fill(self):
        """What the network sees where an entry was not observed, of shape (n_features,).

        The column's mean; all zeros in one-hot variables.
        """
        fill = self.standardized("mean")
        for name, columns in self.parts:
            if UNITS[name].sums_to_one:
                fill[columns] = 0
        return fill

    def mean_like(self, x):
        """The training mean as the network sees it, with dtype and device of a tensor."""
        return torch.tensor(self.standardized("mean")).to(x)

    def units(self, device):
        """The output units, on standardised columns."""
        parts, variables = [], {}
        for name, columns in self.parts:
            if UNITS[name].together is None:
                own = torch.as_tensor(self.scale[columns])
                parts.append((UNITS[name].of_columns(own), columns))
            else:
                variables.setdefault(name, []).append(columns)
        for name, alone in variables.items():
            for alike in _alike(alone):
                sizes = [len(columns) for columns in alike]
                units = UNITS[name].together(sizes, device) if len(sizes) > 1 else UNITS[name]()
                parts.append((units, np.concatenate(alike)))
        if len(parts) == 1 and (np.diff(parts[0][1]) == 1).all():
            return parts[0][0]
        # A copy: fitted state may be a read-only memory map, which torch does not have.
        return Mixed([(units, torch.tensor(columns, device=device)) for units, columns in parts])

    def with_constants(self, values):
        """Standardised samples, an array that is changed, with that value in columns of one value.

        What is standardised has no scale there: its units draw with variance 1 around the value.
        """
        for name, columns in self.parts:
            if UNITS[name].standardizes:
                constant = columns[self.minimum[columns] == self.maximum[columns]]
                values[:, constant] = self.standardized("minimum")[constant]
        return values

    def in_data_units(self, values):
        """Standardised rows, an array that may be changed, in the units of the data."""
        if self.is_standardized:
            values *= self.scale.astype(values.dtype)
            values += self.shift.astype(values.dtype)
        return values


def describe_columns(
    X,
    loss,
    row_weight,
    original,
    feature_names=None,
    parameter="loss",
    *,
    gaps=False,
    encoding=None,
    has_grid=True,
):
    """Choose the losses of the columns of X and estimate what they need.

    ``loss`` is what the estimators document, the value of their ``parameter``; ``original`` is X as
    the user passed it, for columns chosen by name, of which ``encoding`` made X, if it is not None.
    ``gaps`` tells whether NaN may be among the entries; without ``has_grid`` nobody will ask for
    the values of single columns.

    Raises a ValueError for infinity, for NaN that may not be or is all that a column has, and for
    columns outside their loss's domain, chosen twice or not at all.
    """

    def key():
        """What decides the result, where X and the name of a loss are all of it."""
        rows = content(X) if isinstance(loss, str) and encoding is None else None
        if rows is None:
            return None
        names = None if feature_names is None else tuple(feature_names)
        return "columns", rows, digest(row_weight), loss, names, parameter, gaps, has_grid

    names = None if feature_names is None else [*map(str, feature_names)]
    processes.current().require_same({"the number of columns": X.shape[1], "their names": names})
    chosen = loss, row_weight, original, feature_names, parameter
    return once(key, lambda: _described(X, *chosen, gaps, encoding, has_grid))


def _described(X, loss, row_weight, original, feature_names, parameter, gaps, encoding, has_grid):
    summary = _summary(X, row_weight)
    has_gaps = bool(summary.n_missing.any())
    if has_gaps and not gaps:
        check_finite(X, feature_names)
        processes.current().any(False)
    _check_observed(summary, feature_names)
    if not (np.isfinite(summary.minimum).all() and np.isfinite(summary.maximum).all()):
        check_finite(X, feature_names, gaps=True)
        processes.current().any(False)  # another process may have raised
    if not np.isfinite(summary.std).all():
        column = np.flatnonzero(~np.isfinite(summary.std))[0]
        raise ValueError(
            f"Column {_label(column, feature_names)} is so large that its standard deviation "
            "overflows. Rescale it."
        )
    parts = None
    if isinstance(loss, str) and loss == "auto":
        if encoding is not None and not encoding.is_array:
            parts = parts_of(encoding)
        else:
            parts = kinds_of(X, summary, row_weight, feature_names)
            in_unit = (summary.minimum >= 0).all() and (summary.maximum <= 1).all()
            if parameter != "loss" and in_unit:
                parts = _without_reals(parts)
    if parts is None:
        parts = _resolve_parts(loss, summary, original, feature_names, encoding, parameter)
    _check_parts(parts, X, summary, feature_names, parameter)

    shift, scale = np.zeros(X.shape[1]), np.ones(X.shape[1])
    for name, columns in parts:
        if UNITS[name].standardizes:
            shift[columns] = summary.mean[columns]
            # A constant column has nothing to standardise, beyond its rounding errors: what was
            # computed in float64 varies by some of them, what is stored in float32 by one.
            size = np.maximum(np.abs(summary.minimum), np.abs(summary.maximum))
            is_single = X.dtype.kind == "f" and X.dtype.itemsize <= 4
            rounding = size * (np.finfo(np.float32).eps if is_single else 1e-14)
            std = _spread(X, summary, row_weight, size)
            constant = (summary.minimum == summary.maximum) | (std <= rounding)
            constant |= std < np.finfo(np.float64).tiny  # over which other rows would overflow
            scale[columns] = np.where(constant, 1.0, std)[columns]
    statistics = summary.mean, summary.minimum, summary.maximum
    grid = grid_of(X) if has_grid else (None,) * X.shape[1]
    return Columns(parts, shift, scale, *statistics, parameter, has_gaps, grid)


def require_same_columns(what, learned, names):
    """Raise a ValueError if what was fitted on named columns is for others, or in another order."""
    if learned is not None and names is not None and [*learned] != [*names]:
        raise ValueError(
            f"{what} was fitted on the columns {[*learned][:10]}, but X has {[*names][:10]}. Bring "
            "them into the same order."
        )


def _spread(X, summary, row_weight, size):
    """Standard deviations, also of numbers so small that their squares vanish."""
    small = np.flatnonzero((size < _SMALL) & (summary.minimum < summary.maximum))
    if not len(small):
        return summary.std
    std, factor = summary.std.copy(), 1 / np.maximum(size[small], np.finfo(np.float64).tiny)
    if isinstance(X, Source):
        scaled = X.mapped(lambda rows: rows[:, small] * factor, len(small), np.float64)
        std[small] = _summary(scaled, row_weight).std / factor
        return std
    scaled = X[:, small].astype(np.float64)
    scaled = scaled.multiply(factor).tocsr() if sparse.issparse(scaled) else scaled * factor
    std[small] = _summary(scaled, row_weight).std / factor
    return std


def _summary(X, row_weight):
    """The summary of the columns, over the rows of all processes of the fit."""
    return merged(processes.current().gather(summarize_columns(X, row_weight)))


def _check_observed(summary, feature_names):
    """Raise a ValueError for columns of which nothing was observed."""
    nothing = np.flatnonzero(summary.minimum > summary.maximum)
    if len(nothing):
        more = f" and {len(nothing) - 1} more" if len(nothing) > 1 else ""
        raise ValueError(
            f"Column {_label(nothing[0], feature_names)}{more} of X has no observed value: it is "
            "NaN in every row, so nothing can be learned of it. Leave it out, for example with "
            "sklearn.impute.SimpleImputer, which drops such columns."
        )


def _without_reals(parts):
    """The parts of columns that all lie in [0, 1], as units of an energy: none is real."""
    groups = [part for part in parts if UNITS[part[0]].sums_to_one]
    others = [columns for name, columns in parts if not UNITS[name].sums_to_one]
    single = [("bernoulli", np.sort(np.concatenate(others)))] if others else []
    return (*single, *groups)


def _resolve_parts(loss, summary, original, feature_names, encoding, parameter):
    n_features = len(summary.mean)
    if isinstance(loss, str):
        return ((loss, np.arange(n_features)),)

    parts, owner = [], np.full(n_features, -1)
    for number, part in enumerate(loss):
        if not (isinstance(part, (tuple, list)) and len(part) == 2 and part[0] in UNITS):
            raise ValueError(
                f"{parameter} must be a name or a list of (name, columns) with names in "
                f"{tuple(UNITS)}; entry {number} is {part!r}."
            )
        columns = column_indices(original, part[1])
        columns = columns if encoding is None else encoding.encoded_columns(columns)
        counts = (owner >= 0) + np.bincount(columns, minlength=n_features)
        if (counts > 1).any():
            raise ValueError(
                f"{parameter} chooses column {_label(np.argmax(counts > 1), feature_names)} twice; "
                "each column needs exactly one loss."
            )
        owner[columns] = number
        # One column of two values, 0 and 1, is no group of columns.
        is_binary = encoding is not None and len(columns) == 1 and UNITS[part[0]].sums_to_one
        parts.append(("bernoulli" if is_binary else part[0], columns))
    missing = np.flatnonzero(owner < 0)
    if len(missing):
        raise ValueError(
            f"{parameter} leaves out {len(missing)} columns, the first of them "
            f"{_label(missing[0], feature_names)}; each column needs exactly one loss."
        )
    # Columns of one kind are one part; only one-hot variables stay apart.
    merged = {}
    for name, columns in parts:
        if len(columns):
            key = (name, len(merged) if UNITS[name].sums_to_one else None)
            merged.setdefault(key, []).append(columns)
    return tuple((name, np.concatenate(columns)) for (name, _), columns in merged.items())


def _check_parts(parts, X, summary, feature_names, parameter):
    for name, columns in parts:
        ends = summary.minimum[columns], summary.maximum[columns]
        check_domain(name, UNITS[name].domain, *ends, columns, feature_names, parameter)
    groups = [columns for name, columns in parts if UNITS[name].sums_to_one]
    check_one_hot(X, groups, feature_names, parameter)


def _alike(groups):
    """Groups of columns by their sizes, so that padding to the largest adds little to any."""
    sizes = np.array([len(group) for group in groups])
    if len(sizes) * sizes.max() <= 2 * sizes.sum() + _PADDING:
        return [groups]
    octaves = np.ceil(np.log2(sizes)).astype(int)
    return [
        [group for group, own in zip(groups, octaves, strict=True) if own == octave]
        for octave in np.unique(octaves)
    ]


def _label(column, feature_names):
    return f"{column}" if feature_names is None else f"{column} ({feature_names[column]!r})"
