"""Stacks that predict: an output layer on top, and supervised fine-tuning."""

from numbers import Integral, Real

import numpy as np
import torch
from sklearn.model_selection import train_test_split
from sklearn.utils import check_consistent_length

from skae._validation import Interval, check_rows, check_weights, computing_dtype
from skae.engine.devices import resolve_device
from skae.engine.rows import LabelledRows, make_rows
from skae.engine.stacks import Layerwise
from skae.engine.supervised import Supervised
from skae.estimators._layer_checks import require_gradients
from skae.estimators._outcomes import all_or_nothing, report_constant_units, some_rows
from skae.estimators._output_layers import fit_linear_output
from skae.estimators._parameters import estimator, parameter
from skae.estimators._pretraining import keep_parameters, projection, stack_parameters
from skae.estimators._progress import CallbackBridge, with_callbacks
from skae.estimators._stack_layers import StackParameters, make_levels
from skae.estimators._stacked_auto_encoder import StackedAutoEncoder
from skae.estimators._training import (
    TrainedModel,
    mean_weight,
    optimizer_state,
    rows_that_count,
    to_arrays,
    to_tensor,
)
from skae.estimators._training_parameters import TrainingParameters

_CPU = torch.device("cpu")
# Steps of the linear model that the output starts from, and of one that is the result.
_START_STEPS, _LINEAR_STEPS = 100, 1000
# The least penalty on the weights of the first.
_START_ALPHA = 1.0


@estimator
class StackedPredictor(StackParameters, TrainedModel):
    """What classifier and regressor share: all but what the targets are.

    A subclass turns y into `Targets` and outputs into predictions.
    """

    n_fine_tuned_layers: int = parameter(
        None,
        [Interval(Integral, 0, None, closed="left"), None],
        """int or None
        How many layers, counted from the top, are fine-tuned together with the output. None:
        all. 0: none, the output is a linear model on the codes.""",
    )
    unsupervised_weight: float = parameter(
        0.0,
        [Interval(Real, 0, None, closed="left")],
        """float
        Weight of the layers' own criteria while fine-tuning; each on the codes of the one
        below, and of all rows, labelled or not.""",
    )
    alpha: float = parameter(
        1.0,
        [Interval(Real, 0, None, closed="left")],
        """float
        Penalty on the output's weights, as 1 / C of
        :class:`~sklearn.linear_model.LogisticRegression` and alpha of
        :class:`~sklearn.linear_model.Ridge`: half the sum of their squares counts as much as
        the loss of ``alpha`` labelled rows.""",
    )
    dropout: float = parameter(
        0.0,
        [Interval(Real, 0, 1, closed="left")],
        """float
        Probability with which each hidden unit is left out of a fine-tuning step.""",
    )
    input_dropout: float = parameter(
        0.0,
        [Interval(Real, 0, 1, closed="left")],
        """float
        The same for the columns of the data, where the lowest layer is fine-tuned.""",
    )

    _attributes_doc = """
    stack_ : StackedAutoEncoder
        The layers, fine-tuned: ``stack_.transform`` gives the codes that the output sees.
    coef_ : ndarray of shape (n_outputs, n_codes)
        Weights of the output layer: one output for every class, or number.
    intercept_ : ndarray of shape (n_outputs,)
        Its biases.
    loss_curve_ : list of float
        Supervised objective of each epoch of fine-tuning, in nats per labelled row.
    validation_curve_ : list of float
        On held-out rows after each epoch: the error rate of classes, the loss of numbers. Empty
        without early stopping.
    n_iter_ : int
        Epochs of fine-tuning; where no layer is fine-tuned, steps of the linear model.
    stopping_reason_ : str
        "max_iter", "converged", "stopped" (by a callback), "interrupted" (Ctrl-C: the
        model so far was kept) or "diverged" (the best finite weights were kept).
    device_ : str
        Where the model was trained.
    n_labelled_ : float
        Rows with a target that were seen so far, each counted by its weight.
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, where X had string names.
    """

    @with_callbacks
    @all_or_nothing
    def fit(self, X, y, sample_weight=None):
        """Pre-train the layers, then train them and the output on the targets.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Training data.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Targets. Rows without one take part in pre-training, and in fine-tuning by
            ``unsupervised_weight``.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows; a row of weight 0 is left out.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            Before any layer is trained: if a parameter is out of its range, layers do not fit
            each other, X is not finite, or y has nothing to learn from.
        """
        stack, layers = self._make_stack()
        continues = self.warm_start and hasattr(self, "stack_")
        data, table, weight = self._checked_rows(X, y, sample_weight, reset=not continues)
        if not continues:
            self._describe_targets(table, weight)
        targets = self._encode_targets(table, weight)
        self.n_labelled_ = targets.total * mean_weight(sample_weight)
        seen, held_out = targets, None
        if self.early_stopping:
            index, held_out = self._split_labelled(targets, table)
            seen = targets.restricted(index)
        bridge = CallbackBridge(self, self.max_iter, X, y, sample_weight)
        if not continues:
            self.__dict__.pop("_training_state", None)
            stack._fit_from(layers, X, sample_weight, weight, seen)
            self.stack_ = stack
            self._start_output(data, seen)
        else:
            self.stack_ = self.stack_._shallow_copy()
        if self._n_tuned:
            training = self._descend_on(
                data, weight, targets, seen.labelled, held_out, self.max_iter, bridge=bridge
            )
            self.n_iter_ = len(training.loss_curve)
            self.loss_curve_ = training.loss_curve
            self.validation_curve_ = training.validation_curve
            report_constant_units(self, self.stack_._codes(some_rows(data, weight)))
        bridge.finish()
        return self

    def _partial_fit(self, X, y, sample_weight, **options):
        """One pass of fine-tuning; on the first call, after all that `fit` does before it."""
        stack, layers = self._make_stack()
        fresh = not hasattr(self, "stack_")
        data, table, weight = self._checked_rows(X, y, sample_weight, reset=fresh)
        if fresh:
            self._describe_targets(table, weight, **options)
        targets = self._encode_targets(table, weight)
        if not targets.labelled.any() and not self._keeps_unsupervised:
            raise ValueError(
                "No row of this call has a target, so it teaches nothing. Leave it out, or set "
                "unsupervised_weight > 0."
            )
        if fresh and stack._needs_targets and not targets.labelled.any():
            raise ValueError(
                f"pretraining={self.pretraining!r} needs rows with targets in the first call of "
                "partial_fit, which has none."
            )
        n_before = 0.0 if fresh else self.n_labelled_
        self.n_labelled_ = n_before + targets.total * mean_weight(sample_weight)
        if fresh:
            stack._fit_from(layers, X, sample_weight, weight, targets)
            self.stack_ = stack
            self._start_output(data, targets)
        else:
            # The layers of before stay as they are should this call fail.
            self.stack_ = self.stack_._shallow_copy()
        training = self._descend_on(
            data, weight, targets, targets.labelled, None, 1, resumable=True
        )
        self.loss_curve_ = ([] if fresh else self.loss_curve_) + training.loss_curve
        self.validation_curve_ = []
        self.n_iter_ = len(self.loss_curve_)
        return self

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.target_tags.multi_output = True
        return tags

    _collapse_remedy = "Use a smaller learning_rate, or another kind of layer."

    @property
    def _n_tuned(self):
        """How many layers are fine-tuned."""
        n_layers = len(self.stack_.layers_)
        return (
            n_layers
            if self.n_fine_tuned_layers is None
            else min(self.n_fine_tuned_layers, n_layers)
        )

    @property
    def _keeps_unsupervised(self):
        return self.unsupervised_weight > 0 and self.n_fine_tuned_layers != 0

    def _make_stack(self):
        """The stack with this model's parameters, and its new layers, all checked."""
        self._validate_parameters()
        names = {**StackParameters.__dataclass_fields__, **TrainingParameters.__dataclass_fields__}
        shared = {name: getattr(self, name) for name in names}
        stack = StackedAutoEncoder(**{**shared, "warm_start": False})
        layers = stack._make_layers()
        n_frozen = (
            0
            if self.n_fine_tuned_layers is None
            else max(0, len(layers) - self.n_fine_tuned_layers)
        )
        require_gradients([None] * n_frozen + layers[n_frozen:], "fine-tuning")
        if self.n_fine_tuned_layers is not None and self.n_fine_tuned_layers > len(layers):
            raise ValueError(
                f"n_fine_tuned_layers={self.n_fine_tuned_layers}, but there are {len(layers)} "
                "layers. None fine-tunes all."
            )
        return stack, layers

    def _checked_rows(self, X, y, sample_weight, *, reset):
        if y is None:
            raise ValueError(
                f"This {type(self).__name__} requires y to be passed, but the target y is None."
            )
        data = check_rows(self, X, reset=reset)
        table = self._checked_targets(y)
        check_consistent_length(data, table)
        return data, table, check_weights(sample_weight, data)

    def _split_labelled(self, targets, table):
        """Labelled rows to train on, and those to hold out, with like parts of every class."""
        index = torch.tensor(np.flatnonzero(targets.labelled))
        generator = self._generator(_CPU)
        index, held_out = (part.numpy() for part in self._split(index, generator))
        stratify = self._strata(table[np.concatenate([index, held_out])], len(held_out))
        if stratify is None:
            return index, held_out
        return train_test_split(
            np.concatenate([index, held_out]),
            test_size=len(held_out),
            stratify=stratify,
            random_state=int(torch.randint(2**31 - 1, (), generator=generator)),
        )

    def _start_output(self, data, targets):
        """An output layer to begin with, or the one to end with where no layer is fine-tuned."""
        n_outputs, is_final = targets.values.shape[1], self._n_tuned == 0
        self.loss_curve_, self.validation_curve_ = [], []
        self.device_, self.stopping_reason_ = self.stack_.device_, "converged"
        if (self.pretraining is None and not is_final) or not targets.labelled.any():
            # Random codes have no output that would be worth keeping.
            self.coef_ = np.zeros((n_outputs, self.stack_._n_features_out))
            self.intercept_ = targets.start_bias(_CPU).numpy()
            self.n_iter_ = 0
            return
        max_iter = _LINEAR_STEPS if is_final else _START_STEPS
        # Large weights on top would tear the layers apart at the first steps.
        alpha = self.alpha if is_final else max(self.alpha, _START_ALPHA)
        alpha *= targets.labelled.sum() / self.n_labelled_
        self.coef_, self.intercept_, self.n_iter_ = fit_linear_output(
            self.stack_._codes(data), targets, alpha, max_iter, is_final=is_final
        )

    def _descend_on(
        self, data, weight, targets, labelled, held_out, max_iter, *, resumable=False, bridge=None
    ):
        """Train the fine-tuned layers and the output; keep what they learned."""
        layers = self.stack_.layers_
        first = len(layers) - self._n_tuned
        layers = layers[first:]
        device = resolve_device(self.device)
        rows = data if first == 0 else self.stack_._codes_below(data, first)
        dtype = computing_dtype(rows, device)
        state = self.__dict__.get("_training_state") if resumable else None
        goes_on = state is not None and torch.device(self.device_).type == device.type
        generator = self._generator(device, state["generator"] if goes_on else None)
        theta = stack_parameters(layers, first, dtype, device, (self.coef_, self.intercept_))
        levels = make_levels(layers, first, dtype, device, differentiable=True)
        index = rows_that_count(len(labelled), weight)
        probed = index[torch.tensor(labelled)[index]]
        if not self._keeps_unsupervised:
            index = probed
        elif held_out is not None:
            index = index[torch.tensor(~np.isin(index.numpy(), held_out))]
        criteria = [
            layer._make_objective(theta.part(level.prefix))
            for layer, level in zip(layers, levels, strict=True)
        ]
        objective = Supervised(
            levels,
            targets.units(device),
            share=max(1, len(probed)) / len(index),
            weight_decay=self.alpha / (self.n_labelled_ or 1.0),
            dropout=(self.input_dropout if first == 0 else self.dropout, self.dropout),
            unsupervised=Layerwise(levels, criteria) if self._keeps_unsupervised else None,
            unsupervised_weight=self.unsupervised_weight,
            judge=None if held_out is None else self._judge(targets),
        )
        optimizer = self._make_optimizer(objective)
        if state is not None:
            objective.state = {
                name: to_tensor(array, dtype, device) for name, array in state["objective"].items()
            }
        slots = optimizer.slots
        self._require_memory_for(theta.shapes, slots, dtype, device)
        columns = layers[0].columns_ if layers else None
        shift_and_scale = columns.standardization(dtype, device) if layers else (None, None)
        training = self._descend(
            theta,
            objective,
            LabelledRows(
                make_rows(rows, *shift_and_scale, dtype=dtype, device=device),
                *targets.tensors(dtype, device),
            ),
            weight,
            generator,
            index=index,
            probed=probed if len(probed) else index,
            held_out=None if held_out is None else torch.tensor(held_out),
            optimizer=optimizer,
            max_iter=max_iter,
            resumable=resumable,
            optimizer_state=optimizer_state(state, optimizer, dtype, device),
            project=projection(layers, first),
            bridge=bridge,
        )
        keep_parameters(layers, levels, theta)
        self.coef_ = theta["output_weight"].cpu().numpy().copy()
        self.intercept_ = theta["output_bias"].cpu().numpy().copy()
        self.device_, self.stopping_reason_ = str(device), training.outcome
        if resumable:
            self._training_state = {
                "generator": generator.get_state().numpy(),
                "optimizer": to_arrays(training.optimizer_state),
                "objective": to_arrays(objective.state),
            }
        else:
            self.__dict__.pop("_training_state", None)
        return training

    def _judge(self, targets):
        """The loss by which held-out rows are judged, where it is not that of training."""
        return None

    def _outputs(self, X):
        """Pre-activations of the output of every row, of shape (n_samples, n_outputs)."""
        X = check_rows(self, X, reset=False)

        def outputs(theta, x):
            code = self.stack_._encode(theta, x)
            weight, bias = (torch.tensor(array).to(code) for array in (self.coef_, self.intercept_))
            return torch.addmm(bias, code, weight.t())

        return self.stack_._map_rows(X, outputs, (len(self.intercept_),), standardize=True)
