"""The scikit-learn face that all learned transformers share."""

import functools
import math
import warnings
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_array

from skae import diagnostics
from skae._validation import (
    Interval,
    StrOptions,
    check_is_fitted,
    check_rows,
    check_weights,
    computing_dtype,
    make_generator,
)
from skae.engine.devices import require_memory, resolve_device
from skae.engine.optimizers import OPTIMIZERS
from skae.engine.parameters import Parameters
from skae.engine.rows import StreamedRows, make_rows, summarize_columns
from skae.engine.training import SCHEDULES, train
from skae.estimators._columns import describe_columns
from skae.estimators._parameters import estimator, parameter, validate_parameters
from skae.estimators._progress import (
    CallbackBridge,
    CallbackSupportMixin,
    ProgressLine,
    with_callbacks,
)

_CPU = torch.device("cpu")


class CollapsedCodeWarning(UserWarning):
    """Some code units are constant over the training rows: they carry nothing."""


def _all_or_nothing(fit):
    """Decorate a fit so that, where it raises, the model stays as it was."""

    @functools.wraps(fit)
    def guarded(self, *args, **kwargs):
        before = _fitted_state(self)
        try:
            return fit(self, *args, **kwargs)
        except BaseException:
            for name in _fitted_state(self):
                delattr(self, name)
            vars(self).update(before)
            raise

    return guarded


def _fitted_state(model):
    names = [name for name in vars(model) if name.endswith("_") or name == "_training_state"]
    return {name: vars(model)[name] for name in names}


@estimator
class TrainedTransformer(
    CallbackSupportMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator
):
    """A transformer that is trained by gradient steps on an objective.

    A subclass says what it learns by methods that return values: `_parameter_shapes`,
    `_initial_parameters`, `_make_objective`, `_encode` and `_decode`. The rest is here:
    validation, devices, the call of the training loop, fitted state.
    """

    batch_size: int = parameter(
        100,
        [Interval(Integral, 1, None, closed="left")],
        """int
        Rows per gradient step. An epoch's batches differ in size by one row at most.""",
    )
    learning_rate: float = parameter(
        1e-3,
        [Interval(Real, 0, None, closed="neither")],
        """float
        Step size of the optimiser. Objectives are means over rows, so it does not
        depend on ``batch_size``.""",
    )
    learning_rate_schedule: str = parameter(
        "constant",
        [StrOptions(set(SCHEDULES))],
        """{"constant", "linear", "cosine"}
        Course of the learning rate over ``max_iter`` epochs: constant, or falling to
        zero linearly or along a half cosine.""",
    )
    optimizer: str = parameter(
        "adam",
        [StrOptions(set(OPTIMIZERS))],
        """{"adam", "sgd", "nesterov", "rmsprop", "adagrad"}
        The rule of the gradient steps, by torch's kernels.""",
    )
    momentum: float = parameter(
        0.9,
        [Interval(Real, 0, 1, closed="left")],
        """float
        Momentum of "sgd", "nesterov" and "rmsprop".""",
    )
    max_iter: int = parameter(
        100,
        [Interval(Integral, 1, None, closed="left")],
        """int
        Epochs at most.""",
    )
    tol: float = parameter(
        1e-4,
        [Interval(Real, 0, None, closed="left")],
        """float
        Progress that counts, as a fraction of the loss's whole fall so far.""",
    )
    n_iter_no_change: int = parameter(
        10,
        [Interval(Integral, 1, None, closed="left"), None],
        """int or None
        Epochs without progress after which training ends. None: never before
        ``max_iter``.""",
    )
    early_stopping: bool = parameter(
        False,
        ["boolean"],
        """bool
        Whether to hold out a part of the rows, watch the loss there instead of the
        training loss, and keep the weights of the best epoch.""",
    )
    validation_fraction: float = parameter(
        0.1,
        [Interval(Real, 0, 1, closed="neither")],
        """float
        Part of the rows that ``early_stopping`` holds out.""",
    )
    warm_start: bool = parameter(
        False,
        ["boolean"],
        """bool
        Whether `fit` continues from the weights of the last fit.""",
    )
    device: str = parameter(
        "auto",
        [str],
        """str
        "auto" takes CUDA, then MPS or XPU, then the CPU, when `fit` is called; or any
        device of torch, such as "cpu" or "cuda:1".""",
    )
    verbose: bool = parameter(
        False,
        ["verbose"],
        """bool or int
        Whether to show a progress line with losses and time left.""",
    )
    random_state: int = parameter(
        None,
        ["random_state"],
        """int, RandomState instance or None
        Seed of weights, batches and noise. The same int gives the same bits on the
        same device and number of threads.""",
    )

    _attributes_doc = """
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, where X had string names.
    weights_ : dict of str to ndarray
        All learned parameters by name.
    columns_ : Columns
        Losses, mean, scale and range of the columns; the network sees
        (x - columns_.mean) / columns_.scale.
    n_iter_ : int
        Epochs run.
    loss_curve_ : list of float
        Training objective of each epoch, in nats per row: a mean over the epoch's
        batches, so it includes the epoch's progress.
    validation_curve_ : list of float
        Objective on the held-out rows after each epoch; empty without early stopping.
    stopping_reason_ : str
        "max_iter", "converged", "stopped" (by a callback), "interrupted" (Ctrl-C: the
        model so far was kept) or "diverged" (the best finite weights were kept).
    device_ : str
        Where the model was trained.
    """

    @with_callbacks
    @_all_or_nothing
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
        self.__dict__.pop("_training_state", None)
        self.n_iter_ = len(training.loss_curve)
        self.loss_curve_ = training.loss_curve
        self.validation_curve_ = training.validation_curve
        self._warn_if_collapsed(data, weight)
        bridge.finish()
        return self

    @_all_or_nothing
    def partial_fit(self, X, y=None, sample_weight=None):
        """Continue learning with one pass over the rows of X, in batches.

        The first call chooses the loss and the statistics of the columns from its
        rows; later calls keep them. The optimiser's moments and the random state carry
        over from call to call. No rows are held out.

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
        data, weight = self._prepare(X, sample_weight, fresh=fresh)
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
        return self._map_rows(X, self._encode, (self._n_features_out,), standardize=True)

    def inverse_transform(self, X):
        """Reconstruct data from codes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_components)
            Codes.

        Returns
        -------
        reconstructions : ndarray of shape (n_samples, n_features)
            Mean of the output units, in the units of the data.
        """
        check_is_fitted(self)
        X = check_array(X, dtype=[np.float64, np.float32])
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
            means += self.columns_.mean.astype(means.dtype)
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

        def log_likelihood(theta, x):
            output = self._decode(theta, self._encode(theta, x))
            return -self.columns_.units(theta.flat.device).negative_log_likelihood(output, x)

        return self._map_rows(X, log_likelihood, (), standardize=True)

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
            In nats per row; higher is better.
        """
        scores = self.score_samples(X)
        return float(np.average(scores, weights=check_weights(sample_weight, scores)))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _validate_parameters(self):
        validate_parameters(self)

    @property
    def _n_features_out(self):
        return self.n_components

    @property
    def _feature_names(self):
        return getattr(self, "feature_names_in_", None)

    def _prepare(self, X, sample_weight, *, fresh):
        """Checked rows and weights, with ``columns_`` known: the last step without cost."""
        data = check_rows(self, X, reset=fresh, finite=not fresh)
        weight = check_weights(sample_weight, data)
        if fresh:
            self.columns_ = describe_columns(data, self.loss, weight, X, self._feature_names)
        else:
            self.columns_.check(data, self._feature_names)
        return data, weight

    def _train(self, X, weight, *, fresh, max_iter, hold_out, resumable=False, bridge=None):
        """Set up theta, objective and rows, call the loop, keep what it learned."""
        device = resolve_device(self.device)
        dtype = computing_dtype(X, device)
        optimizer = OPTIMIZERS[self.optimizer](self.momentum)
        generator = make_generator(self.random_state, device)
        state = self.__dict__.get("_training_state") if resumable and not fresh else None
        if state is not None and torch.device(self.device_).type == device.type:
            generator.set_state(torch.tensor(state["generator"]))
        self._require_memory(optimizer, dtype, device)
        if fresh:
            theta = self._initial_parameters(dtype, device, generator)
        else:
            theta = self._fitted_parameters(dtype, device)
        index = torch.arange(X.shape[0]) if weight is None else torch.tensor(np.flatnonzero(weight))
        index, held_out = self._split(index, generator) if hold_out else (index, None)

        progress_line = ProgressLine(type(self).__name__)
        listeners = [progress_line] if self.verbose else []
        if bridge is not None and bridge.active:
            bridge.fitted_attributes = lambda: {"weights_": theta.to_numpy()}
            listeners.append(bridge)
        training = train(
            theta,
            self._make_objective(theta),
            make_rows(X, *self.columns_.standardization(dtype, device), dtype=dtype, device=device),
            index=index,
            generator=generator,
            optimizer=optimizer,
            learning_rate=self.learning_rate,
            schedule=self.learning_rate_schedule,
            batch_size=self.batch_size,
            max_iter=max_iter,
            tol=self.tol,
            n_iter_no_change=self.n_iter_no_change,
            row_weight=None if weight is None else torch.tensor(weight, dtype=dtype, device=device),
            validation_index=held_out,
            optimizer_state=_to_tensors(state, optimizer, dtype, device),
            listener=(lambda epoch: any([tell(epoch) for tell in listeners]))
            if listeners
            else None,
        )
        progress_line.finish()
        self._report_outcome(training)
        self.weights_ = theta.to_numpy()
        self.device_ = str(device)
        self.stopping_reason_ = training.outcome
        if resumable:
            self._training_state = {
                "generator": generator.get_state().numpy(),
                "optimizer": {k: v.cpu().numpy() for k, v in training.optimizer_state.items()},
            }
        return training

    def _report_outcome(self, training):
        n_epochs = len(training.loss_curve)
        if training.outcome == "diverged":
            message = (
                f"{type(self).__name__} diverged in epoch {n_epochs + 1}: the loss is not finite "
                f"or exploded. Use a smaller learning_rate (now {self.learning_rate:g})"
            )
            if training.kept_epoch == 0:
                raise ValueError(f"{message}. Nothing was learned.")
            warnings.warn(
                f"{message}. The best finite weights were kept.", ConvergenceWarning, stacklevel=6
            )
        elif training.outcome == "interrupted":
            warnings.warn(
                f"{type(self).__name__} was interrupted after {n_epochs} epochs; "
                "the model fitted so far was kept.",
                ConvergenceWarning,
                stacklevel=6,
            )

    def _split(self, index, generator):
        n_held_out = max(1, round(self.validation_fraction * len(index)))
        if n_held_out >= len(index):
            raise ValueError(
                f"early_stopping would hold out {n_held_out} of n_samples={len(index)} rows and "
                "leave none to train on; use a smaller validation_fraction, more rows, or "
                "early_stopping=False."
            )
        order = torch.randperm(len(index), generator=generator, device=generator.device).cpu()
        return index[order[n_held_out:]], index[order[:n_held_out]]

    def _require_memory(self, optimizer, dtype, device):
        n_parameters = sum(math.prod(shape) for shape in self._parameter_shapes().values())
        copies = 3 + len(optimizer.slots)  # theta, its gradient, the best so far, moments
        require_memory(
            n_parameters * copies * dtype.itemsize, device, f"Training {type(self).__name__}"
        )

    def _warn_if_collapsed(self, X, weight):
        rows = np.arange(X.shape[0]) if weight is None else np.flatnonzero(weight)
        rows = X[rows[:: max(1, len(rows) // 1000)]]
        seen = summarize_columns(rows)
        codes = self._map_rows(rows, self._encode, (self._n_features_out,), standardize=True)
        dead = diagnostics.constant_units(codes)
        if dead.any() and (seen.minimum < seen.maximum).any():
            warnings.warn(
                f"{dead.sum()} of {len(dead)} code units are constant on the training rows. "
                "Try weaker penalties, a smaller learning_rate or, for relu, another activation.",
                CollapsedCodeWarning,
                stacklevel=5,
            )

    def _fitted_parameters(self, dtype, device):
        fitted = {name: array.shape for name, array in self.weights_.items()}
        if fitted != dict(self._parameter_shapes()):
            raise ValueError(
                f"The number or sizes of the layers of this {type(self).__name__} have changed "
                "since it was fitted, so that its weights no longer apply. Set them back, or "
                "call fit with warm_start=False."
            )
        return Parameters.from_numpy(self.weights_, dtype=dtype, device=device)

    def _map_rows(self, X, function, shape, *, standardize=False):
        """``function(theta, block)`` for all rows, one block at a time, as an array."""
        try:
            device = resolve_device(self.device)
        except ValueError:  # fitted on a device that this machine does not have
            device = torch.device("cpu")
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
            for start, block in rows.blocks():
                result[start : start + len(block)] = function(theta, block).cpu().numpy()
        return result


def _to_tensors(state, optimizer, dtype, device):
    """The optimiser's state for `train`, or None if there is none that fits."""
    if state is None or set(state["optimizer"]) != set(optimizer.slots):
        return None
    return {
        slot: torch.tensor(a, dtype=torch.float32 if a.ndim == 0 else dtype, device=device)
        for slot, a in state["optimizer"].items()
    }
