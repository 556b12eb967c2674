"""Rows that are unlike the others, by what models find improbable."""

import warnings
from inspect import signature
from math import ceil
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import get_tags
from sklearn.utils.validation import validate_data

from skae._validation import (
    HasMethods,
    Interval,
    StrOptions,
    check_is_fitted,
    check_names,
    check_rows,
    check_weights,
    random_numbers,
)
from skae.engine.networks.corruptions import GaussianNoise, Masking
from skae.estimators.auto_encoders import AutoEncoder
from skae.estimators.face.learning import learns
from skae.estimators.face.outcomes import CollapsedCodeWarning
from skae.estimators.face.parameters import attribute, estimator, parameter, validate_parameters
from skae.estimators.face.scikit_learn import BaseEstimator, OutlierMixin
from skae.estimators.face.training import TrainedModel
from skae.estimators.stacks.lowest_layer import lowest_layer
from skae.estimators.tables.scores import Surprise, score_of
from skae.frames.columns import is_plain, library_of
from skae.frames.encoding import Encoding, report_empty
from skae.frames.reading import encode_rows

# The kinds of members of the default ensemble, which take turns: their errors differ.
_KINDS: tuple[dict[str, Any], ...] = (
    {"n_components": 32, "activation": "tanh"},
    {"n_components": 64, "activation": "relu", "tied_weights": False},
)
# Gradient steps of each, at least.
_STEPS = 300
# Fences of a box plot, in widths of the lower half of its box.
_FENCE = 3.0


@estimator
class OutlierDetector(OutlierMixin, BaseEstimator):
    r"""Finds rows that are unlike the others, and the columns that make them so.

    A model of the rows scores each of them; those below ``offset_`` are outliers. Without an
    ``estimator``, the model is a small ensemble of denoising auto-encoders of clipped columns, and
    the score of a row is, averaged over them,

    .. math::

        -\frac{3}{2} \sum_i \log \left(1 + \frac{(u_i - r_i(u))^2}{2 v_i}\right)
        - \frac{3}{4} \sum_i \log \left(1 + \frac{z_i^2}{9}\right)
        + \sum_k \log P(u_k \mid r(u))

    for numbers :math:`i`, clipped to :math:`u_i = z_i / \sqrt{1 + z_i^2 / 9}`, and truth values and
    categories :math:`k`. A residual counts by Student's density of two degrees of freedom, in units
    of the column's residuals over the training rows, whose squares have the mean :math:`v_i`. The
    second sum, half of the log-derivative of the clip, tells values apart that are far out, which
    the clip makes nearly alike.

    Use `fit_predict` where outliers are among the training rows, and `predict` of new rows where
    the training rows are usual ones (novelties).

    Read more in the :ref:`User Guide <odd_rows>`.

    See Also
    --------
    skae.plots.OutlierDisplay : Draws the columns that make rows odd.
    sklearn.ensemble.IsolationForest : Few random splits set outliers apart.

    Notes
    -----
    Members of the default model have 32 tied tanh units and 64 untied relu units by turns. Gaussian
    noise, of a standard deviation that is drawn for each row of a batch between 0 and 1/2, and then
    masking, of a probability drawn so as well, keep them from copying rows.

    Rows with gaps and data frames with text, categories and dates are read as every estimator here
    reads them.

    References
    ----------
    .. [1] S. Hawkins, H. He, G. Williams, R. Baxter. Outlier detection using replicator neural
       networks. DaWaK 2002.
    .. [2] P. Vincent, H. Larochelle, I. Lajoie, Y. Bengio, P.-A. Manzagol. Stacked denoising
       autoencoders. Journal of Machine Learning Research 11, 2010.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_wine
    >>> from skae import OutlierDetector
    >>> X = load_wine().data
    >>> X[7, 3] = 40.0                        # ash that is as alkaline as no other
    >>> detector = OutlierDetector(contamination=0.05, random_state=0).fit(X)
    >>> int(detector.predict(X)[7])
    -1
    >>> int(detector.score_columns(X)[7].argmin())
    3
    """

    estimator: Any = parameter(
        default=None,
        constraints=[HasMethods("fit"), None],
        kind="estimator or None",
        doc="""Model that is fitted to the rows: any with `score_samples`, higher for what is more
        like the training rows, or a pipeline that ends in one. The scores are its own: of
        auto-encoders, sparse coders and their stacks the log-likelihood of a row given its
        reconstruction; of an :class:`RBM` minus the free energy. None: denoising auto-encoders,
        see above.""",
        kw_only=False,
    )
    contamination: float | str = parameter(
        default="auto",
        constraints=[StrOptions({"auto"}), Interval(Real, 0, 0.5, closed="right")],
        kind='"auto" or float in (0, 0.5]',
        doc="""Part of the training rows that are outliers, which sets ``offset_``. "auto": a
        fence below them, the first quartile less three times its distance from the median.""",
    )
    n_members: int = parameter(
        default=4,
        constraints=[Interval(Integral, 1, None, closed="left")],
        doc="""Models whose scores are averaged: they differ by their seeds, and without an
        ``estimator`` by tied tanh and untied relu units in turns.""",
    )
    random_state: int | np.random.RandomState | None = parameter(
        default=None,
        constraints=["random_state"],
        kind="int, RandomState instance or None",
        doc="Seed of the members. The same int gives the same scores.",
    )

    estimators_: list = attribute("list of estimators", "The fitted members.")
    offset_: float = attribute(
        "float", "Rows whose score is below it are outliers: decision_function is the distance."
    )
    encoding_: Encoding | None = attribute(
        "Encoding or None", "What the columns of a table have become; None for plain numbers."
    )
    n_features_in_: int = attribute("int", "Number of features seen in `fit`.")
    feature_names_in_: np.ndarray = attribute(
        "ndarray of shape (n_features_in_,)",
        "Names of the features, where X had string names.",
    )

    @learns()
    def fit(self, X, y=None, sample_weight=None) -> Self:
        """Learn what rows are like, and below which score one is an outlier.

        Parameters
        ----------
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows in the objective and in ``offset_``.

        Raises
        ------
        ValueError
            If a parameter is out of its range, the estimator has no scores or takes no weights that
            are passed, or there is one row.
        """
        validate_parameters(self)
        models = self._unfitted(X)
        rows = self._rows(X, models[0], reset=True, finite=False, sample_weight=sample_weight)
        if rows.shape[0] < 2:
            raise ValueError(
                "Found array with 1 sample (n_samples=1), which is like no other: an "
                "OutlierDetector needs at least 2 rows, and tells more from hundreds."
            )
        weights = {} if sample_weight is None else {"sample_weight": sample_weight}
        if weights and not _takes_weights(models[0]):
            raise ValueError(
                f"estimator={models[0]!r} takes no sample_weight: fit it without weights, or "
                "leave out the rows that should not count."
            )
        self.estimators_ = [self._fitted(model, X, weights, rows.shape[0]) for model in models]
        scores = [
            score_of(model) if self.estimator is not None else Surprise(model, rows)
            for model in self.estimators_
        ]
        found = _mean_of(scores, X, rows)
        if not np.isfinite(found).all():
            raise ValueError(
                f"The score of training row {np.flatnonzero(~np.isfinite(found))[0]} is infinite, "
                "so that no threshold can be set. Rescale X, or leave the row out."
            )
        self.offset_ = _offset(found, check_weights(sample_weight, rows), self.contamination)
        self._scores = scores
        return self

    def score_samples(self, X) -> np.ndarray:
        """How like the training rows each row is.

        Returns
        -------
        scores : ndarray of shape (n_samples,)
            Higher is more like them; the mean over the members.
        """
        rows = self._checked(X)
        return _mean_of(self._scores, X, rows)

    def decision_function(self, X) -> np.ndarray:
        """Scores above the threshold: `score_samples` less ``offset_``.

        Returns
        -------
        scores : ndarray of shape (n_samples,)
            Negative for outliers.
        """
        return self.score_samples(X) - self.offset_

    def predict(self, X) -> np.ndarray:
        """Whether rows are outliers.

        Returns
        -------
        is_inlier : ndarray of shape (n_samples,)
            -1 for outliers, 1 for others.
        """
        return np.where(self.decision_function(X) < 0, -1, 1)

    def score_columns(self, X) -> np.ndarray:
        """What each column contributes to the scores of rows, and so why a row is odd.

        Returns
        -------
        contributions : ndarray of shape (n_samples, n_features_in_)
            The most negative ones are of the columns that make a row odd. They sum to
            `score_samples` up to a number that is the same for all rows without gaps, 0 for the
            default model. A category has one column, that of the table.

        Raises
        ------
        ValueError
            If the estimator has scores of whole rows only.
        """
        rows = self._checked(X)
        if not all(hasattr(score, "columns") for score in self._scores):
            raise ValueError(
                f"{type(self.estimator).__name__} scores whole rows, and cannot say what its "
                "columns contribute. Auto-encoders, sparse coders, their stacks and RBM can."
            )
        terms = np.mean([score.columns(rows) for score in self._scores], axis=0)
        if self.encoding_ is None:
            return terms
        of_columns = np.zeros((len(terms), len(self.encoding_.variables)))
        np.add.at(of_columns.T, self.encoding_.raw_columns, terms.T)
        return of_columns

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        is_model = hasattr(self.estimator, "fit")  # else `fit` refuses it
        inner = get_tags(self.estimator if is_model else AutoEncoder()).input_tags
        tags.input_tags.sparse, tags.input_tags.allow_nan = inner.sparse, inner.allow_nan
        return tags

    @property
    def _accepts_gaps(self):
        return self.__sklearn_tags__().input_tags.allow_nan

    def _encoded(self, X, *, reset: bool, sample_weight=None, lowest=None):
        """Rows of a table as an array, by the encoding that all members have."""
        # ``estimator`` may have been set since the fit: what was fitted says how rows are read.
        member = self._members(sparse.issparse(X))[0] if reset else self.estimators_[0]
        if not isinstance(member, TrainedModel):
            if reset:
                self.encoding_ = None
            return X
        lowest = lowest_layer(member) if hasattr(member, "layers") else member
        rows = encode_rows(self, lowest, X, reset=reset, weight=sample_weight)
        if reset:
            report_empty(self.encoding_)
        return rows

    def _checked(self, X):
        check_is_fitted(self)
        member = self.estimators_[0]
        return self._rows(X, member, reset=False, finite=isinstance(member, TrainedModel))

    def _rows(self, X, member, *, reset, finite, **options):
        """Checked rows; a table of more than numbers as it is, for a model that is none of ours.

        Such a model says by itself whether it can do with gaps.
        """
        if isinstance(member, TrainedModel) or library_of(X) is None or is_plain(X):
            return check_rows(self, X, reset=reset, finite=finite, **options)
        check_names(X)
        validate_data(self, X, reset=reset, skip_check_array=True)
        if reset:
            self.encoding_ = None
        return X

    def _members(self, is_sparse=False):
        """The models, without seeds."""
        if self.estimator is not None:
            return [self.estimator] * self.n_members
        numbers = "auto" if is_sparse else "clipped"
        return [default_member(k, numbers) for k in range(self.n_members)]

    def _unfitted(self, X):
        """The models with seeds of their own, as many as would differ."""
        members = self._members(sparse.issparse(X))
        if not hasattr(members[0], "score_samples"):
            raise ValueError(
                f"estimator={members[0]!r} has no scores of rows (score_samples): it cannot tell "
                "which are odd. AutoEncoder, DenoisingAutoEncoder, ContractiveAutoEncoder, "
                "SparseCoder, PSD, StackedAutoEncoder, RBM and DeepBeliefNetwork have."
            )
        draws = random_numbers(self.random_state)
        seeded = []
        for member in map(clone, members):
            names = [n for n in member.get_params() if n.split("__")[-1] == "random_state"]
            member.set_params(**{name: int(draws.randint(2**31 - 1)) for name in names})
            seeded.append(member)
        return seeded if names else seeded[:1]

    def _fitted(self, model, X, weights, n_rows):
        with warnings.catch_warnings():
            # This is told already, once.
            warnings.filterwarnings("ignore", ".* no observed value in fit", UserWarning)
            if self.estimator is not None:
                return model.fit(X, None, **weights)
            n_batches = ceil(n_rows / model.batch_size)
            model.set_params(max_iter=ceil(_STEPS / n_batches))
            # Columns that do not depend on each other have nothing to be learned; scores do well.
            for category in (CollapsedCodeWarning, ConvergenceWarning):
                warnings.simplefilter("ignore", category)
            return model.fit(X, **weights)


class MaskingAndNoise:
    """Gaussian noise, then masking, both of a level that is drawn anew for each row of a batch."""

    has_mask = True

    def __init__(self, level: tuple[float, float] = (0.0, 0.5)):
        self.noise, self.masking = GaussianNoise(level), Masking(level)

    def __call__(self, x: torch.Tensor, generator: torch.Generator):
        """The corrupted batch and the mask of what was set to 0."""
        return self.masking(self.noise(x, generator)[0], generator)


def default_member(number: int, numbers: str) -> AutoEncoder:
    """One of the models of the default ensemble."""
    return AutoEncoder(
        **_KINDS[number % len(_KINDS)],
        corruption=MaskingAndNoise(),
        numbers=numbers,
        batch_size=64,
        learning_rate=5e-3,
        learning_rate_schedule="warmup_cosine",
        n_iter_no_change=None,
        device="cpu",
    )


def _mean_of(scores, X, rows):
    """Scores of the rows of a table, or of these as encoded, averaged over members."""
    return np.mean([score.rows(X if score.reads_tables else rows) for score in scores], axis=0)


def _takes_weights(model):
    """Whether a model's fit has weights of rows, or keyword arguments that may be such."""
    given = signature(model.fit).parameters.values()
    return any(a.name == "sample_weight" or a.kind == a.VAR_KEYWORD for a in given)


def _offset(scores, weight, contamination):
    """The score below which rows are outliers."""
    if contamination == "auto":
        low, middle = _percentile(scores, weight, 25), _percentile(scores, weight, 50)
        return float(low - _FENCE * (middle - low))
    return float(_percentile(scores, weight, 100 * contamination))


def _percentile(values, weight, percent):
    if weight is None:
        return np.percentile(values, percent)
    order = np.argsort(values)
    share = np.cumsum(weight[order])
    place = np.searchsorted(share, share[-1] * percent / 100)
    return values[order[min(place, len(values) - 1)]]
