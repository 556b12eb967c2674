"""The scikit-learn face that all learned transformers share."""

import math

import numpy as np
import torch
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_array

from skae._validation import (
    check_is_fitted,
    check_rows,
    check_weights,
    computing_dtype,
)
from skae.engine.networks.affine_maps import linearized
from skae.engine.networks.jacobians import DifferentiatedJacobian
from skae.engine.optimisation.devices import resolve_device
from skae.engine.optimisation.optimizers import OPTIMIZERS
from skae.engine.optimisation.parameters import Parameters
from skae.engine.optimisation.rows import StreamedRows, make_rows
from skae.estimators.face.columns import describe_columns
from skae.estimators.face.fitting import (
    TrainedModel,
    kept_state,
    optimizer_state,
    rows_that_count,
    to_tensor,
)
from skae.estimators.face.outcomes import all_or_nothing, report_collapse, some_rows
from skae.estimators.face.parameters import estimator
from skae.estimators.face.progress import CallbackBridge, with_callbacks

_CPU = torch.device("cpu")


@estimator
class TrainedTransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, TrainedModel):
    """A transformer that is trained by gradient steps on an objective.

    A subclass says what it learns by methods that return values: `_parameter_shapes`,
    `_initial_parameters`, `_make_objective`, `_encode` and `_decode`. The rest is here:
    validation, devices, the call of the training loop, fitted state.
    """

    @with_callbacks
    @all_or_nothing
    def fit(self, X, y=None, sample_weight=None):
        """Learn from the rows of X.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Training data. Memory maps and sparse matrices are read one batch at a time.
        y : Ignored
            Not used, present for API consistency.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows in the objective; a row of weight 0 is left out.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            If a parameter is out of its range; if X is empty, not numeric, not finite
            or outside the domain of the loss; if training diverged at once. Whatever
            the error, the estimator stays as it was before.
        MemoryError
            If the parameters would not fit into the device's memory.
        """
        self._validate_parameters()
        continues = self.warm_start and hasattr(self, "weights_")
        data, weight = self._prepare(X, sample_weight, fresh=not continues)
        bridge = CallbackBridge(self, self.max_iter, X, y, sample_weight)
        training = self._train(
            data,
            weight,
            fresh=not continues,
            max_iter=self.max_iter,
            hold_out=self.early_stopping,
            bridge=bridge,
        )
        if not self._keeps_statistics:
            self.__dict__.pop("_training_state", None)
        self.n_iter_ = len(training.loss_curve)
        self.loss_curve_ = training.loss_curve
        self.validation_curve_ = training.validation_curve
        report_collapse(self, some_rows(data, weight), training)
        bridge.finish()
        return self

    @all_or_nothing
    def partial_fit(self, X, y=None, sample_weight=None):
        """Continue learning with one pass over the rows of X, in batches.

        The first call chooses the loss and the statistics of the columns from its
        rows, which should be like those to come; later calls keep them. The optimiser's
        moments and the random state carry over from call to call. No rows are held out,
        and the learning rate is constant.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Training data.
        y : Ignored
            Not used, present for API consistency.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows in the objective.

        Returns
        -------
        self : object
            The fitted estimator.
        """
        self._validate_parameters()
        fresh = not hasattr(self, "weights_")
        data, weight = self._prepare(X, sample_weight, fresh=fresh, whole=False)
        if fresh:
            self.columns_.check_first_part(data.shape[0])
        training = self._train(
            data, weight, fresh=fresh, max_iter=1, hold_out=False, resumable=True
        )
        earlier = ([], []) if fresh else (self.loss_curve_, self.validation_curve_)
        self.loss_curve_ = earlier[0] + training.loss_curve
        self.validation_curve_ = earlier[1]
        self.n_iter_ = len(self.loss_curve_)
        return self

    def transform(self, X):
        """Codes of the rows of X.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data.

        Returns
        -------
        codes : ndarray of shape (n_samples, n_components)
            In float32 for float32 input and small integers, else in float64.
        """
        check_is_fitted(self)
        X = check_rows(self, X, reset=False)
        return self._codes(X)

    def inverse_transform(self, X):
        """Reconstruct data from codes.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_components)
            Codes.

        Returns
        -------
        reconstructions : ndarray of shape (n_samples, n_features)
            Mean of the output units, in the units of the data.
        """
        check_is_fitted(self)
        X = check_array(X, dtype=[np.float64, np.float32], accept_sparse="csr")
        if X.shape[1] != self._n_features_out:
            raise ValueError(
                f"X has {X.shape[1]} columns, but codes of this {type(self).__name__} have "
                f"{self._n_features_out}; inverse_transform takes the output of transform."
            )

        def reconstruct(theta, code):
            return self.columns_.units(theta.flat.device).mean(self._decode(theta, code))

        means = self._map_rows(X, reconstruct, (self.n_features_in_,))
        if self.columns_.is_standardized:
            means *= self.columns_.scale.astype(means.dtype)
            means += self.columns_.shift.astype(means.dtype)
        return means

    def reconstruct(self, X):
        """Reconstructions of the rows of X: ``inverse_transform(transform(X))``.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data.

        Returns
        -------
        reconstructions : ndarray of shape (n_samples, n_features)
            In the units of the data.
        """
        return self.inverse_transform(self.transform(X))

    def score_samples(self, X):
        """Log-likelihood of each row given its reconstruction, log P(x | r(x)), in nats.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data.

        Returns
        -------
        scores : ndarray of shape (n_samples,)
            Higher is better. Without corruption and without penalties.
        """
        check_is_fitted(self)
        X = check_rows(self, X, reset=False)
        self.columns_.check(X, self._feature_names)

        return -self._losses(X, self._reconstruct)

    def score(self, X, y=None, sample_weight=None):
        """Mean of `score_samples` over the rows of X.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data.
        y : Ignored
            Not used, present for API consistency.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows in the mean.

        Returns
        -------
        score : float
            In nats per row (for ``loss="squared_error"``, half squared errors); higher is
            better.
        """
        scores = self.score_samples(X)
        return float(np.average(scores, weights=check_weights(sample_weight, scores)))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    # Whether what the objective knows of the rows so far outlives `fit`.
    _keeps_statistics = False
    # The constructor parameter that chooses the output units.
    _loss_parameter = "loss"
    _collapse_remedy = (
        "Try weaker penalties, a smaller learning_rate, another activation or, for "
        "loss='squared_error', scaled columns."
    )

    @property
    def _loss_choice(self):
        """The output units, or "auto"."""
        return getattr(self, self._loss_parameter)

    # What a stack asks of its layers: whether codes lie in [0, 1] whatever the data; why no
    # gradient can go through the encoder, if that is so; and encoder and decoder as affine maps
    # and activations, where that is what they are.
    _codes_in_unit_interval = False
    _hindered_gradient = None
    _affine_encoder = None
    _affine_decoder = None

    def _differentiable_code(self, theta, x):
        """What `_encode` returns, as autograd can follow it."""
        return self._encode(theta, x)

    @property
    def _n_features_out(self):
        return self.n_components

    @property
    def _feature_names(self):
        return getattr(self, "feature_names_in_", None)

    def _prepare(self, X, sample_weight, *, fresh, whole=True):
        """Checked rows and weights, with ``columns_`` known: the last step without cost.

        ``whole`` tells whether these are all rows that there will be.
        """
        data = check_rows(self, X, reset=fresh, finite=not fresh)
        weight = check_weights(sample_weight, data)
        if fresh:
            self.columns_ = describe_columns(
                data,
                self._loss_choice,
                weight,
                X,
                self._feature_names,
                self._loss_parameter,
            )
        else:
            self.columns_.check_choice(self._loss_choice)
            self.columns_.check(data, self._feature_names)
        return data, weight

    def _train(
        self,
        X,
        weight,
        *,
        fresh,
        max_iter,
        hold_out,
        start_is_model=False,
        resumable=False,
        bridge=None,
    ):
        """Set up theta, objective and rows, call the loop, keep what it learned."""
        device = resolve_device(self.device)
        dtype = computing_dtype(X, device)
        kept = None if fresh else self.__dict__.get("_training_state")
        state = kept if resumable else None
        goes_on = state is not None and torch.device(self.device_).type == device.type
        generator = self._generator(device, state["generator"] if goes_on else None)
        slots = OPTIMIZERS[self.optimizer].slots if self.optimizer in OPTIMIZERS else ()
        self._require_memory(slots, dtype, device)
        if fresh:
            theta = self._initial_parameters(dtype, device, generator)
        else:
            theta = self._fitted_parameters(dtype, device)
        rows = make_rows(
            X, *self.columns_.standardization(dtype, device), dtype=dtype, device=device
        )
        index = rows_that_count(X.shape[0], weight)
        index, held_out = self._split(index, generator) if hold_out else (index, None)

        if fresh:
            self._start_at_rows_(theta, rows, index, generator)

        objective = self._make_objective(theta)
        optimizer = self._make_optimizer(objective)
        if kept is not None and (resumable or self._keeps_statistics):
            objective.state = {
                name: to_tensor(array, dtype, device) for name, array in kept["objective"].items()
            }
        training = self._descend(
            theta,
            objective,
            rows,
            weight,
            generator,
            index=index,
            held_out=held_out,
            optimizer=optimizer,
            max_iter=max_iter,
            resumable=resumable,
            keep_start=not fresh,
            start_is_model=start_is_model,
            optimizer_state=optimizer_state(state, optimizer, theta),
            project=self._make_projection(objective),
            bridge=bridge,
        )
        if training.outcome != "diverged":
            self._report_objective(objective)
        self.weights_ = theta.to_numpy()
        self.device_ = str(device)
        self.stopping_reason_ = training.outcome
        if resumable or self._keeps_statistics:
            self._training_state = kept_state(theta, generator, training, objective)
        return training

    def _start_at_rows_(self, theta, rows, index, generator):
        """Set, in place, those initial parameters that are like the data."""

    def _make_projection(self, objective):
        """What `train` applies to the parameters after every step, or None."""
        return None

    def _report_objective(self, objective):
        """Warn of what only the objective's own state tells at the end of a training."""

    def _require_memory(self, slots, dtype, device):
        self._require_memory_for(self._parameter_shapes(), slots, dtype, device)

    def _fitted_parameters(self, dtype, device):
        fitted = {name: array.shape for name, array in self.weights_.items()}
        if fitted != dict(self._parameter_shapes()):
            raise ValueError(
                f"Parameters that set which weights this {type(self).__name__} has, such as "
                "the number or sizes of its layers, have changed since it was fitted. Set them "
                "back, or call fit with warm_start=False."
            )
        return Parameters.from_numpy(self.weights_, dtype=dtype, device=device)

    def _affine_maps(self, like):
        """Encoder and decoder as affine maps with constants ``like`` a tensor, or None."""
        return self._affine_encoder, self._affine_decoder

    def _jacobian(self, theta, x, of="encoder"):
        """That of the code, or of the "reconstruction", at standardised rows."""
        encoder, decoder = self._affine_maps(x)
        units = self.columns_.units(x.device)
        if self._hindered_gradient is not None:
            raise ValueError(
                f"The code of this {type(self).__name__} has no Jacobian: "
                f"{self._hindered_gradient}."
            )
        if of == "encoder" and encoder is not None:
            return linearized(theta, x, encoder)[1]
        if of == "reconstruction" and None not in (encoder, decoder, units.activation):
            *inner, last = decoder
            last = last._replace(activation=units.activation)
            return linearized(theta, x, [*encoder, *inner, last])[1]

        def function(x):
            units = self.columns_.units(x.device)
            code = self._differentiable_code(theta, x)
            return code if of == "encoder" else units.mean(self._decode(theta, code))

        return DifferentiatedJacobian(function, x)

    def _reconstruct(self, theta, x):
        return self._decode(theta, self._encode(theta, x))

    def _losses(self, X, outputs):
        """-log P(x | r) of each row, for pre-activations ``outputs(theta, x)``."""

        def loss(theta, x):
            units = self.columns_.units(theta.flat.device)
            return units.negative_log_likelihood(outputs(theta, x), x)

        return self._map_rows(X, loss, (), standardize=True)

    def _explained(self, X):
        """The part of the loss of the training rows' mean that reconstructions of X save."""

        def mean(theta, x):
            units = self.columns_.units(theta.flat.device)
            return units.bias_for_mean(self.columns_.mean_like(x)).expand_as(x)

        offset = self.columns_.units(_CPU).offset
        of_mean = self._losses(X, mean).mean() - offset
        return 1 - (self._losses(X, self._reconstruct).mean() - offset) / of_mean

    def _codes(self, X):
        return self._map_rows(X, self._encode, (self._n_features_out,), standardize=True)

    def _usable_device(self):
        """The device that was asked for, or the CPU on a machine that does not have it."""
        try:
            return resolve_device(self.device)
        except ValueError:
            return _CPU

    def _map_rows(self, X, function, shape, *, standardize=False):
        """``function(theta, block)`` for all rows, one block at a time, as an array."""
        device = self._usable_device()
        dtype = computing_dtype(X, device)
        theta = self._fitted_parameters(dtype, device)
        shift, scale = self.columns_.standardization(dtype, device) if standardize else (None, None)
        rows = StreamedRows(X, shift, scale, dtype=dtype, device=device)
        # On MPS the arithmetic is float32 whatever comes in; float64 comes back.
        result = np.empty(
            (X.shape[0], *shape),
            dtype=np.float64 if computing_dtype(X, _CPU) == torch.float64 else np.float32,
        )
        with torch.inference_mode():
            for start, block in rows.blocks(math.prod(shape)):
                result[start : start + len(block)] = function(theta, block).cpu().numpy()
        return result
