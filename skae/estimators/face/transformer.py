"""The scikit-learn face that all learned transformers share."""

import inspect
import warnings
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import clone
from sklearn.utils import check_array

from skae._validation import (
    Interval,
    StrOptions,
    as_array,
    check_is_fitted,
    check_rows,
    check_weights,
    column_names,
    make_generator,
)
from skae.engine.networks.gaps import observed, observed_loss
from skae.engine.networks.units import UNITS
from skae.engine.optimisation.devices import Place, widest_dtype
from skae.engine.optimisation.models import (
    AFRESH,
    FittedModel,
    Model,
    Start,
    some_of,
    split,
)
from skae.engine.optimisation.parameters import Registry
from skae.engine.optimisation.rows import all_rows, without_gaps
from skae.engine.optimisation.runs import Data, Training
from skae.engine.optimisation.sources import blocks_of
from skae.estimators.face.callbacks import refuse_callbacks
from skae.estimators.face.columns import Columns, describe_columns
from skae.estimators.face.densities import mean_score
from skae.estimators.face.learning import learns
from skae.estimators.face.outcomes import report_collapse, some_rows
from skae.estimators.face.parameters import attribute, estimator, fitted_property, parameter
from skae.estimators.face.parts import fits_batches, fits_batches_on, maps_batches, maps_lazily
from skae.estimators.face.rows import decoded, returns_rows
from skae.estimators.face.scikit_learn import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from skae.estimators.face.stopping import NOTHING, watched_rows
from skae.estimators.face.training import (
    CallbackBridge,
    TrainedModel,
    check_same_weights,
    place_for,
    rows_for,
    run_training,
    settings_of,
    started,
    usable_place,
    weights_at,
)
from skae.frames.encoding import Encoding

# Kinds of layers that a stack knows by a name: families add theirs where they are defined.
LAYERS = Registry()


def layer_weights(name: str, kind: str, meaning: str, *others: str) -> Any:
    """An attribute that is one of the learned parameters, where there is one layer."""

    def read(self):
        weights = self.__dict__.get("weights_")
        if weights is None:
            reason = "is not fitted"
        elif "weight_1" in weights:
            reason = "has hidden layers; see weights_"
        else:
            for one in (name, *others):
                if one in weights:
                    return weights[one]
            reason = f"has no {name} in its weights_"
        raise AttributeError(f"this {type(self).__name__} {reason}")

    return fitted_property(read, doc=f"{kind}\n{inspect.cleandoc(meaning)}")


@estimator
class Transformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, TrainedModel):
    """A transformer that is trained by gradient steps.

    A subclass has one method, `_model`, which returns the engine's `Model` that it is, given its
    parameters and the columns of the data. What it knows of the data before training, `_facts`
    returns.
    """

    categorical_features: str | Sequence = parameter(
        default="from_dtype",
        constraints=[StrOptions({"from_dtype"}), "array-like"],
        kind='{"from_dtype"} or array-like of bool, int or str',
        doc="""Which columns are categories: "from_dtype", those of a data frame that are text,
        categories or truth values; or a mask, indexes or names of columns that are so as well,
        also of an array. The others of a data frame are numbers, dates or durations. In a stack,
        this and ``max_categories``, ``min_frequency`` and ``numbers`` are of the lowest layer.""",
    )
    max_categories: int | None = parameter(
        default=30,
        constraints=[Interval(Integral, 2, None, closed="left"), None],
        kind="int or None",
        doc="""Categories of a column at most. The rarest are one category together,
        "infrequent".""",
    )
    min_frequency: float | int | None = parameter(
        default=0.01,
        constraints=[
            Interval(Real, 0, 1, closed="left"),
            Interval(Integral, 1, None, closed="left"),
            None,
        ],
        kind="float, int or None",
        doc="Part, or number, of the rows below which a category is infrequent.",
    )
    numbers: str = parameter(
        default="auto",
        constraints=[StrOptions({"auto", "clipped", "standardized", "normal_scores"})],
        kind='{"auto", "clipped", "standardized", "normal_scores"}',
        doc="""What the network sees of numbers: "clipped", z / sqrt(1 + (z / 3)^2), where z is x
        less its median over its interquartile range (as a part of that of a normal distribution),
        which heavy tails leave alone; "standardized", x less its mean over its standard deviation;
        "normal_scores", normal quantiles of ranks among training rows; "auto", the first where a
        data frame has text, categories, dates or gaps, else the second.""",
    )

    weights_: dict[str, np.ndarray] = attribute(
        "dict of str to ndarray", "All learned parameters by name."
    )
    columns_: Columns = attribute(
        "Columns",
        """Losses, shift, scale, mean and range of the columns; the network sees (x -
        columns_.shift) / columns_.scale.""",
    )

    # The constructor parameter that chooses the units of the columns.
    _loss_parameter = "loss"
    # Whether NaN among the rows stands for what was not observed.
    _accepts_gaps = False
    _collapse_remedy = (
        "Try weaker penalties, a smaller learning_rate, another activation or, for "
        "loss='squared_error', scaled columns."
    )

    @learns(callbacks=True, batches=fits_batches)
    def fit(self, X, y=None, sample_weight=None) -> Self:
        """Learn from the rows of X.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Training data. Memory maps and sparse matrices are read one batch at a time.

        Raises
        ------
        ValueError
            If a parameter is out of its range; if X is empty, not numeric, not finite
            or outside the domain of the loss; if training diverged at once. Whatever
            the error, the estimator stays as it was before.
        MemoryError
            If the parameters would not fit into the device's memory.
        """
        self._check_parameters()
        goes_on = self.warm_start and hasattr(self, "weights_")
        start = Start(self.weights_, self.__dict__.get("_training_state")) if goes_on else AFRESH
        data, weight = self._read(X, sample_weight, start)
        bridge = CallbackBridge(self, self.max_iter, X, y, sample_weight)
        training, fitted = self._learn(
            data, weight, start, holds_out=self.early_stopping, bridge=bridge
        )
        self.n_iter_ = len(training.loss_curve)
        self.loss_curve_, self.validation_curve_ = training.loss_curve, training.validation_curve
        report_collapse(self, fitted, some_rows(data, weight), training)
        bridge.finish()
        return self

    @learns(batches=fits_batches_on)
    def partial_fit(self, X, y=None, sample_weight=None) -> Self:
        """Continue learning with one pass over the rows of X, in batches.

        The first call chooses the loss and the statistics of the columns from its rows, which
        should be like those to come; later calls keep them. The optimiser's moments and the random
        state carry over from call to call. No rows are held out, and the learning rate is constant.
        """
        self._check_parameters()
        refuse_callbacks(self)
        state = self.__dict__.get("_training_state")
        start = Start(getattr(self, "weights_", None), state, resumes=True)
        data, weight = self._read(X, sample_weight, start)
        if start.weights is None:
            self.columns_.check_first_part(data.shape[0])
        training, _ = self._learn(data, weight, start)
        earlier = self.loss_curve_ if start.weights is not None else []
        self.validation_curve_ = self.validation_curve_ if start.weights is not None else []
        self.loss_curve_ = earlier + training.loss_curve
        self.n_iter_ = len(self.loss_curve_)
        return self

    @maps_lazily
    def transform(self, X):
        """Codes of the rows of X.

        Returns
        -------
        codes : ndarray of shape (n_samples, n_components)
            In float32 for float32 input and small integers, else in float64.
        """
        check_is_fitted(self)
        return self._codes(check_rows(self, X, reset=False, by_blocks=True))

    @returns_rows
    def inverse_transform(self, X):
        """Reconstruct data from codes.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_components)
            Codes.

        Returns
        -------
        reconstructions : ndarray or data frame of shape (n_samples, n_features)
            Mean of the output units, in the units of the data; in the container, with the names and
            dtypes, of what `fit` saw, or in that of ``set_output``.

        Raises
        ------
        ValueError
            If codes make no rows by themselves, as with ``level_as_input=True``.
        """
        check_is_fitted(self)
        X = check_array(as_array(X), dtype=[np.float64, np.float32], accept_sparse="csr")
        if X.shape[1] != self._n_features_out:
            raise ValueError(
                f"X has {X.shape[1]} columns, but codes of this {type(self).__name__} have "
                f"{self._n_features_out}; inverse_transform takes the output of transform."
            )
        model, theta = fitted = self._fitted_model(X)
        means = fitted.map_codes(lambda h: model.units.mean(model.decode(theta, h)), X)
        return self._decoded(means)

    @returns_rows
    def reconstruct(self, X):
        """Reconstructions of the rows of X: ``inverse_transform(transform(X))``; of a network
        that is told the noise of rows (``level_as_input``), r(X) at the lowest level.

        Returns
        -------
        reconstructions : ndarray or data frame of shape (n_samples, n_features)
            In the units of the data; as X is, or in the container of ``set_output``. A data frame
            has the names, the dtypes and, in pandas, the index that went in.
        """
        check_is_fitted(self)
        if self._model(usable_place(self, self.columns_.mean)).at_level is None:
            return self.inverse_transform(self.transform(X))
        rows = self._checked(X)
        return self._decoded(self._fitted_model(rows).reconstructed(rows))

    @maps_batches
    def score_samples(self, X) -> np.ndarray:
        """Log-likelihood of each row given its reconstruction, log P(x | r(x)), in nats.

        Returns
        -------
        scores : ndarray of shape (n_samples,)
            Higher is better. Without corruption and without penalties, and of what was observed
            of the row alone.
        """
        model, theta = fitted = self._fitted_model(X := self._checked(X))

        def loss(x):
            filled, mask = observed(x, model.fill)
            # Sums in float64 depend less on how many rows there are beside.
            wide = widest_dtype(x.device)
            output = model.reconstruct(theta, filled).to(wide)
            found = observed_loss(model.units, output, filled.to(wide), mask)
            # Parts of a row that is too far away overflow with both signs.
            return found.masked_fill(found.isnan(), torch.inf)

        return self._log_derivative(X) - fitted.map_rows(loss, X, gaps=True)

    def score(self, X, y=None, sample_weight=None) -> float:
        """Mean of `score_samples` over the rows of X.

        Returns
        -------
        score : float
            In nats per row (for ``loss="squared_error"``, half squared errors); higher is better.
        """
        return mean_score(self.score_samples(X), sample_weight)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.allow_nan = self._accepts_gaps
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _model(self, place: Place) -> Model:
        """The `Model` that this estimator is, for ``columns_`` and its parameters."""
        raise NotImplementedError

    def _facts(self, X, weight: np.ndarray | None, original, *, is_whole: bool) -> dict[str, Any]:
        """Attributes that are known before training, a dict by name, ``columns_`` among them.

        X are checked rows, which were made of the ``original``; ``is_whole`` tells whether these
        are all rows that there will be.
        """
        names, parameter = column_names(self), self._loss_parameter
        options = {"gaps": self._accepts_gaps, "encoding": self.encoding_}
        choice = getattr(self, parameter)
        columns = describe_columns(X, choice, weight, original, names, parameter, **options)
        return {"columns_": columns}

    @property
    def _n_features_out(self):
        return self._model(Place(torch.float32, torch.device("cpu"))).n_codes

    def _read(self, X, sample_weight, start):
        """Checked rows and weights, with ``columns_`` known: the last step without cost."""
        afresh = start.weights is None
        options = {"sample_weight": sample_weight, "by_blocks": True}
        data = check_rows(self, X, reset=afresh, finite=not afresh, **options)
        weight = check_weights(sample_weight, data)
        if afresh:
            vars(self).update(self._facts(data, weight, X, is_whole=not start.resumes))
        else:
            self.columns_.check_choice(getattr(self, self._loss_parameter))
            self.columns_.check(data, column_names(self))
        return data, weight

    def _learn(
        self,
        X,
        weight: np.ndarray | None,
        start: Start,
        *,
        holds_out: bool = False,
        bridge: CallbackBridge | None = None,
    ) -> tuple[Training, FittedModel]:
        """Train the model on checked rows, and keep what it learned."""
        place = place_for(self, X)
        model = self._model(place)
        self.__dict__.pop("_training_state", None)
        if model.objective is None:  # all is known already
            self.device_, self.stopping_reason_ = str(place.device), "given"
            if bridge is not None:
                bridge.report("given", {})
            return Training([], [], {}, "given", 0), FittedModel.of(model, self.weights_, place)
        start = started(self, model, start, X, weight)
        vars(self).update(start.facts)
        generator = make_generator(self.random_state, place.device)
        index, held_out = all_rows(X, weight, place.dtype.itemsize), None
        if holds_out:
            index, held_out = split(index, self.validation_fraction, generator)
        rows, weights = rows_for(model, X, place), weights_at(weight, place)
        watched = watched_rows(self, model, place, bridge.attributes_of) if bridge else NOTHING
        data = Data(rows, index, some_of(index), held_out, weights, watched.apart)
        passes = {"max_iter": 1} if start.resumes else {}
        settings = settings_of(self, resumes=start.resumes, **passes)
        how = {"generator": generator, "settings": settings, "judge": watched.judge}
        fitted = run_training(self, model, data, start, bridge=bridge, **how)
        vars(self).update(fitted.measured)
        self.weights_, self.device_ = fitted.weights, str(place.device)
        self.stopping_reason_ = fitted.training.outcome
        if start.resumes or model.keeps_state:
            self._training_state = fitted.state
        return watched.shown(fitted.training), FittedModel.of(model, fitted.weights, place)

    def _fitted_model(self, X) -> FittedModel:
        """The engine's model with its parameters, to compute with such rows as X."""
        place = usable_place(self, X)
        model = self._model(place)
        check_same_weights(self, model, self.weights_)
        return FittedModel.of(model, self.weights_, place)

    def _checked(self, X):
        """Rows of the user, in the domain of the units."""
        check_is_fitted(self)
        X = check_rows(self, X, reset=False, by_blocks=True)
        self.columns_.check(X, column_names(self))
        return X

    def _decoded(self, values: np.ndarray, given=None):
        """Rows as the network has them, an array that may be changed, as the user's are."""
        return decoded(self, self.columns_.in_data_units(values), given)

    def _log_derivative(self, X) -> np.ndarray | float:
        """What makes a log-density of checked rows one of the user's numbers."""
        if self.encoding_ is None:
            return 0.0
        scaled = [columns for name, columns in self.columns_.parts if UNITS[name].standardizes]
        columns = np.concatenate([np.arange(0), *scaled])
        parts = [self.encoding_.log_derivative(rows, columns) for _, _, rows in blocks_of(X)]
        return np.concatenate(parts)

    def _codes(self, X) -> np.ndarray:
        """Codes of checked rows."""
        return self._fitted_model(X).codes(X)


def as_if_fitted(
    transformer: Transformer, X, original, encoding: Encoding | None = None
) -> Transformer:
    """A copy of a transformer that knows the columns of checked rows, and has learned nothing.

    Its ``_model`` is the one that it will be. X was made of the ``original`` by ``encoding``.
    """
    trial = clone(transformer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own fit will warn
        trial.n_features_in_, trial.encoding_ = X.shape[1], encoding
        X = without_gaps(X)  # few rows may have none of a column
        vars(trial).update(trial._facts(X, None, original, is_whole=True))
    return trial
