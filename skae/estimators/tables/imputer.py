"""Gaps filled by what the columns tell of each other."""

import warnings
from collections.abc import Sequence
from itertools import pairwise
from numbers import Integral
from types import SimpleNamespace
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import clone
from sklearn.utils.validation import validate_data

from skae._validation import (
    HasMethods,
    Interval,
    as_array,
    check_is_fitted,
    check_names,
    hint_to_flatten,
    random_numbers,
)
from skae._warnings import warn
from skae.engine.networks.normal import Normal, conditional_means, fit_normal
from skae.estimators.auto_encoders import DenoisingAutoEncoder
from skae.estimators.face.learning import learns
from skae.estimators.face.outcomes import CollapsedCodeWarning
from skae.estimators.face.parameters import (
    attribute,
    estimator,
    parameter,
    preset,
    validate_parameters,
)
from skae.estimators.face.rows import in_wanted_library
from skae.estimators.face.scikit_learn import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from skae.estimators.face.transformer import Transformer
from skae.estimators.tables import filling
from skae.estimators.tables.fillers import Filler, require_member
from skae.frames.columns import library_of, read_columns
from skae.frames.encoding import Encoding
from skae.frames.reading import encode_rows
from skae.sources.finding import found

# Part of the cells that members are tested on.
_HIDDEN = 0.2
# Rows that they are tested on, several times where there are few.
_TESTED = 20_000
# Multiply-adds of one iteration of the normal distribution's fit.
_WORK = 2e9


@estimator
class DenoisingImputer(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    r"""Fills gaps in numbers and categories by what the other columns tell.

    Two models learn from rows with gaps how columns depend on each other: denoising
    auto-encoders, which hide a part of what was observed and learn to restore it,

    .. math::

        -\sum_{i \text{ observed}} \log P(x_i \mid r(\tilde x)), \qquad
        \tilde x_i = x_i \text{ or, with a probability drawn for each row, } \bar x_i

    and a normal distribution of the columns, categories one-hot, by expectation and
    maximisation, which is hard to beat where they depend on each other linearly. Each of
    ``n_estimators`` pairs is trained without a part of the rows, and guesses hidden cells of these.
    The weights of the two guesses, for each column, are those of least squares there, not negative:

    .. math::

        \hat x = \bar x + a \, (r(x) - \bar x) + b \, (E[x \mid x_{\text{observed}}] - \bar x)

    A column that nothing depends on is filled by its mean, or its most frequent category.

    Whatever was observed stays as it is. Data frames come back as data frames with their dtypes,
    arrays as arrays. Numbers that are whole are filled by whole numbers, within what was seen in
    `fit`.

    Read more in the :ref:`User Guide <filling_gaps>`.

    See Also
    --------
    sklearn.impute.IterativeImputer : A regression of each column on the others, in turns.
    sklearn.impute.KNNImputer : The mean of neighbours.

    Notes
    -----
    Gaps are taken to be missing at random: whether a cell is missing may depend on what was
    observed in its row, not on its own value. Draws (``sample_posterior``) add to each number a
    residual of held-out cells of its column, and are independent for the cells of a row, given what
    was observed of it.

    References
    ----------
    .. [1] P. Vincent, H. Larochelle, I. Lajoie, Y. Bengio, P.-A. Manzagol. Stacked denoising
       autoencoders. Journal of Machine Learning Research 11, 2010.
    .. [2] A. P. Dempster, N. M. Laird, D. B. Rubin. Maximum likelihood from incomplete data via the
       EM algorithm. Journal of the Royal Statistical Society B 39, 1977.
    .. [3] L. Breiman. Stacked regressions. Machine Learning 24, 1996.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from skae import DenoisingImputer
    >>> rng = np.random.default_rng(0)
    >>> height = rng.normal(170, 10, size=300)
    >>> table = pd.DataFrame({
    ...     "height": height,
    ...     "weight": height - 100 + rng.normal(0, 3, size=300),
    ...     "size": np.where(height > 175, "L", np.where(height > 165, "M", "S")),
    ... })
    >>> with_gaps = table.mask(rng.random(table.shape) < 0.2)
    >>> imputer = DenoisingImputer(n_estimators=2, random_state=0)
    >>> filled = imputer.fit_transform(with_gaps)
    >>> int(filled.isna().sum().sum())
    0
    >>> bool((filled["size"] == table["size"]).mean() > 0.9)
    True
    """

    estimator: Any = parameter(
        default=None,
        constraints=[HasMethods(["fit", "reconstruct"]), None],
        kind="AutoEncoder or None",
        doc="""Auto-encoder that members are copies of. Its ``loss`` "auto" stands for the units
        that suit the columns. None: two layers of 128 relu units, ``corruption="hiding"`` of a
        level between 0.1 and 0.5, ``optimizer="adamw"`` and ``max_iter="auto"``.""",
        kw_only=False,
    )
    n_estimators: int = parameter(
        default=4,
        constraints=[Interval(Integral, 2, None, closed="left")],
        doc="""Members, each trained without one of as many parts of the rows, whose guesses are
        averaged.""",
    )
    sample_posterior: bool = parameter(
        default=False,
        constraints=["boolean"],
        doc="""Whether `transform` draws what it fills in, with the spread that the guess leaves,
        instead of the expected number and the most probable category. Each ``random_state`` is
        another draw, which may be set after `fit`: several make a multiple imputation.""",
    )
    add_indicator: bool = parameter(
        default=False,
        constraints=["boolean"],
        doc="""Whether columns follow that say where gaps were, one for each column that had some in
        `fit`: "missingindicator_" and its name.""",
    )
    keep_empty_features: bool = parameter(
        default=False,
        constraints=["boolean"],
        doc="""Whether columns that were never observed in `fit` stay, with gaps filled by 0. They
        are dropped else, with a warning.""",
    )
    categorical_features: str | Sequence = preset(
        Transformer, "categorical_features", default="from_dtype"
    )
    max_categories: int | None = preset(Transformer, "max_categories", default=30)
    min_frequency: float | int | None = preset(Transformer, "min_frequency", default=0.01)
    random_state: int | np.random.RandomState | None = parameter(
        default=None,
        constraints=["random_state"],
        kind="int, RandomState instance or None",
        doc="Seed of the members, of the cells that are hidden, and of draws in `transform`.",
    )

    estimators_: list = attribute("list of AutoEncoder", "The fitted members.")
    normal_: Normal = attribute(
        "Normal", "Mean and covariance of the columns as they are learned from, standardised."
    )
    fillers_: tuple[Filler, ...] = attribute(
        "tuple of Filler",
        """Of each column that was observed: the ``network`` and ``normal`` weights of the two
        guesses, the ``mean`` and the ``residuals``.""",
    )
    encoding_: Encoding = attribute("Encoding", "What the columns have become.")
    indicator_features_: np.ndarray = attribute(
        "ndarray of int", "Columns that had gaps in `fit`, which ``add_indicator`` adds columns of."
    )
    n_features_in_: int = attribute("int", "Number of features seen in `fit`.")
    feature_names_in_: np.ndarray = attribute(
        "ndarray of shape (n_features_in_,)", "Names of the features, where X had string names."
    )

    @learns()
    def fit(self, X, y=None) -> Self:
        """Learn how the columns of X depend on each other.

        Parameters
        ----------
        X : {array-like, data frame} of shape (n_samples, n_features)
            Rows with gaps: NaN, None or NA.

        Raises
        ------
        ValueError
            If a parameter is out of its range; if X has infinity, a single row or nothing observed.
        """
        validate_parameters(self)
        X, rows = self._read(X, reset=True)
        if len(rows) < 2:
            raise ValueError(
                "Found array with 1 sample (n_samples=1): a DenoisingImputer needs at least 2 rows."
            )
        self.indicator_features_ = np.flatnonzero(filling.gaps_of(X).any(axis=0))
        self._check_empty(X)
        self._place(rows)
        self.get_feature_names_out()  # which refuses a name that is there twice
        rows, rng = self._standardized(rows), random_numbers(self.random_state)
        member = _default() if self.estimator is None else self.estimator
        require_member(member)
        self.estimators_, normals, tests = [], [], []
        for inside in _parts(rows, min(self.n_estimators, len(rows)), rng):
            seed = int(rng.randint(2**31 - 1))
            self.estimators_.append(self._fitted(member, rows[inside], seed))
            normals.append(_fitted_normal(rows[inside], rng))
            hidden, full = self._hide(rows[~inside], rng)
            tests.append((hidden, full, *self._guesses(hidden, self.estimators_[-1:], normals[-1])))
        parts = zip(*normals, strict=True)
        self.normal_ = Normal(*(sum(part) / len(normals) for part in parts))
        hidden, full, network, normal = map(np.concatenate, zip(*tests, strict=True))
        self._weigh(hidden, full, network, normal, rng)
        return self

    def transform(self, X):
        """The rows of X without gaps.

        Parameters
        ----------
        X : {array-like, data frame} of shape (n_samples, n_features)
            Rows with gaps.

        Returns
        -------
        X_filled : ndarray or data frame of shape (n_samples, n_features_out)
            As X is: a data frame with its dtypes, or an array; or a frame of the library that
            ``set_output`` names.
        """
        check_is_fitted(self)
        X, rows = self._read(X, reset=False)
        gaps = filling.gaps_of(X)
        has_gaps = gaps.any(axis=1)
        filled = np.zeros_like(rows)
        filled[:, self._columns] = rows[:, self._columns]
        filled[has_gaps] = self._filled(rows[has_gaps])
        is_kept = np.isin(np.arange(gaps.shape[1]), self._kept)
        out = filling.fill_cells(X, gaps & is_kept, self.encoding_, filled)
        out = filling.select_columns(out, self._kept)
        if self.add_indicator:
            marks = gaps[:, self.indicator_features_]
            out = filling.append_marks(out, marks, self.get_feature_names_out())
        return in_wanted_library(self, out)

    def get_feature_names_out(self, input_features=None) -> np.ndarray:
        """Names of the columns that `transform` returns.

        Parameters
        ----------
        input_features : array-like of str or None, default=None
            Names of the columns of X, where `fit` has not seen them.

        Returns
        -------
        names : ndarray of str objects

        Raises
        ------
        ValueError
            If ``add_indicator`` would add a column that is there already.
        """
        check_is_fitted(self, "n_features_in_")
        names = super().get_feature_names_out(input_features)
        marks = self.indicator_features_ if self.add_indicator else np.arange(0)
        return filling.with_names_of_marks(names[self._kept], names[marks])

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _read(self, X, *, reset):
        """X as an array if it is no frame, and its rows as encoded."""
        check_names(X := found(as_array(X), type(self).__name__))
        if library_of(X):
            validate_data(self, X, reset=reset, skip_check_array=True)
        else:
            with hint_to_flatten():
                options = {"dtype": None, "ensure_all_finite": False}
                X = validate_data(self, X, reset=reset, **options)
        features = self.categorical_features
        if isinstance(features, str):  # what has the dtype is so whatever the mask says
            features = np.zeros(X.shape[1], dtype=bool)
        parameters = SimpleNamespace(
            numbers="standardized",
            categorical_features=features,
            max_categories=self.max_categories,
            min_frequency=self.min_frequency,
        )
        return X, encode_rows(self, parameters, X, reset=reset)

    def _check_empty(self, X):
        """Refuse or report columns that were never observed."""
        empty = self.encoding_.empty
        if empty and not self.keep_empty_features:
            warn(
                f"Columns without any observed value are dropped: {', '.join(map(repr, empty))}. "
                "With keep_empty_features=True they stay and are filled by 0.",
                UserWarning,
            )
        texts = [c.codes is not None for c in read_columns(X)] if self.keep_empty_features else []
        for variable, is_text in zip(self.encoding_.variables, texts, strict=False):
            if is_text and variable.is_empty:
                raise ValueError(
                    f"Column {variable.name!r} is text that was never observed, which 0 cannot "
                    "fill. Drop it, or set keep_empty_features=False."
                )

    def _place(self, rows):
        """Know the columns of observed variables, and how they are standardised."""
        self._kept = np.array(
            [
                number
                for number, variable in enumerate(self.encoding_.variables)
                if self.keep_empty_features or not variable.is_empty
            ]
        )
        observed = [v for v in self.encoding_.variables if not v.is_empty]
        self._columns = np.concatenate([np.r_[v.columns] for v in observed])
        is_number = np.concatenate([np.full(len(np.r_[v.columns]), v.is_numeric) for v in observed])
        mean = np.nanmean(rows[:, self._columns], axis=0)
        scale = np.nanstd(rows[:, self._columns], axis=0)
        self._shift = np.where(is_number, mean, 0.0)
        self._scale = np.where(is_number & (scale > 1e-12 * np.abs(mean)), scale, 1.0)
        starts = np.cumsum([0, *(len(np.r_[v.columns]) for v in observed)])
        slices = [slice(int(a), int(b)) for a, b in pairwise(starts)]
        self.fillers_ = tuple(
            Filler(v, s, np.where(is_number[s], 0.0, mean[s]), 0.0, 0.0, np.zeros(1))
            for v, s in zip(observed, slices, strict=True)
        )

    def _standardized(self, rows):
        return (rows[:, self._columns] - self._shift) / self._scale

    def _units(self):
        """The ``loss`` of members: units that suit the columns."""
        of_kind: dict[str, list] = {"gaussian": [], "bernoulli": []}
        groups = []
        for filler in self.fillers_:
            columns = [*range(filler.columns.start, filler.columns.stop)]
            if filler.variable.kind == "category":
                groups.append(("multinomial", columns))
            else:
                of_kind["gaussian" if filler.variable.is_numeric else "bernoulli"] += columns
        return [*((name, columns) for name, columns in of_kind.items() if columns), *groups]

    def _fitted(self, member, rows, seed):
        member = clone(member)
        if member.get_params()["loss"] == "auto":
            member.set_params(loss=self._units())
        with warnings.catch_warnings():
            # Where columns tell nothing of each other, the weights are 0.
            warnings.simplefilter("ignore", CollapsedCodeWarning)
            return member.set_params(random_state=seed).fit(rows.astype(np.float32))

    def _hide(self, rows, rng):
        """Rows with more gaps, several times where they are few, and the same without."""
        n_times = int(np.clip(_TESTED // max(1, int(self.n_estimators) * len(rows)), 1, 4))
        full = np.tile(rows, (n_times, 1))
        hidden = rng.random_sample((len(full), len(self.fillers_))) < _HIDDEN
        widths = [filler.columns.stop - filler.columns.start for filler in self.fillers_]
        return np.where(np.repeat(hidden, widths, axis=1), np.nan, full), full

    def _guesses(self, rows, members, normal):
        """The networks' and the normal distribution's guesses of all cells."""
        if not len(rows):  # where each row is alone in some column
            return rows, rows
        rows_32 = rows.astype(np.float32)
        networks = [np.asarray(member.reconstruct(rows_32)) for member in members]
        # Copies: fitted state may be a read-only memory map.
        normal = Normal(*(torch.tensor(part) for part in normal))
        expected = conditional_means(torch.tensor(rows), normal).numpy()
        return sum(networks).astype(np.float64) / len(networks), expected

    def _weigh(self, hidden, full, network, normal, rng):
        """Know what counts of the guesses, and what they leave, by cells that were hidden."""
        fillers = []
        for filler in self.fillers_:
            columns = filler.columns
            tested = np.isnan(hidden[:, columns.start]) & ~np.isnan(full[:, columns.start])
            cells = (part[tested, columns] for part in (full, network, normal))
            fillers.append(filler.weighed(*cells, rng))
        self.fillers_ = tuple(fillers)

    def _filled(self, rows):
        """Encoded rows with all that is not observed filled."""
        filled = np.zeros_like(rows)
        if not len(rows):
            return filled
        rows = self._standardized(rows)
        network, normal = self._guesses(rows, self.estimators_, self.normal_)
        rng = random_numbers(self.random_state) if self.sample_posterior else None
        for filler in self.fillers_:
            missing = np.isnan(rows[:, filler.columns.start])
            guess = filler.guess(network[missing, filler.columns], normal[missing, filler.columns])
            rows[missing, filler.columns] = guess if rng is None else filler.draw(guess, rng)
        filled[:, self._columns] = rows * self._scale + self._shift
        return filled


def _default():
    return DenoisingAutoEncoder(
        128,
        hidden_layer_sizes=(128,),
        activation="relu",
        decoder="linear",
        corruption="hiding",
        corruption_level=(0.1, 0.5),
        optimizer="adamw",
        weight_decay=0.01,
        batch_size=128,
        learning_rate=5e-3,
        learning_rate_schedule="warmup_cosine",
        max_iter="auto",
    )


def _parts(rows, n_parts, rng):
    """Masks of the rows of each member: all but one part, and whoever is alone in a column."""
    part = rng.permutation(len(rows)) % n_parts
    seen = ~np.isnan(rows)
    for number in range(n_parts):
        inside = part != number
        lost = ~seen[inside].any(axis=0)
        yield inside | seen[:, lost].any(axis=1)


def _fitted_normal(rows, rng):
    """The normal distribution of some rows: as many as there is time for."""
    rows = rows[~np.isnan(rows).all(axis=1)]
    most = int(max(1000, _WORK / (1 + np.isnan(rows).sum(axis=1).max(initial=0)) ** 3))
    if len(rows) > most:
        some = rows[rng.choice(len(rows), size=most, replace=False)]
        rows = some if (~np.isnan(some)).any(axis=0).all() else rows
    return Normal(*(part.numpy() for part in fit_normal(torch.tensor(rows))))
