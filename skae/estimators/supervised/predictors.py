"""Stacks that predict: an output layer on top, and supervised fine-tuning."""

import numpy as np
import torch
from sklearn.model_selection import train_test_split
from sklearn.utils import check_consistent_length

from skae._validation import check_rows, check_weights
from skae.estimators.face.fitting import mean_weight
from skae.estimators.face.outcomes import all_or_nothing, report_constant_units, some_rows
from skae.estimators.face.parameters import estimator
from skae.estimators.face.progress import CallbackBridge, with_callbacks
from skae.estimators.face.training import TrainingParameters
from skae.estimators.stacks.auto_encoder import StackedAutoEncoder
from skae.estimators.stacks.checks import require_gradients
from skae.estimators.stacks.layers import StackParameters
from skae.estimators.supervised.fine_tuning import FineTunedStack

_CPU = torch.device("cpu")


@estimator
class StackedPredictor(FineTunedStack):
    """What classifier and regressor share: all but what the targets are.

    A subclass turns y into `Targets` and outputs into predictions.
    """

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
        if self.early_stopping and self.n_fine_tuned_layers != 0:
            index, held_out = self._split_labelled(targets, table)
            seen = targets.restricted(index)
        n_epochs = self._n_epochs(seen.labelled)
        bridge = CallbackBridge(self, n_epochs, X, y, sample_weight)
        if not continues:
            self.__dict__.pop("_training_state", None)
            self._adapt(stack, layers, data)
            stack._fit_from(layers, X, sample_weight, weight, seen)
            self.stack_ = stack
            self._start_output(data, weight, seen)
        else:
            self.stack_ = self.stack_._shallow_copy()
            if not self._n_tuned:
                self._start_output(data, weight, seen)
        # Who interrupts pre-training wants to wait no longer.
        if self._n_tuned and (continues or not self.stack_._was_interrupted):
            training = self._fine_tune(
                data, weight, targets, seen.labelled, held_out, n_epochs, bridge=bridge
            )
            self.n_iter_ = len(training.loss_curve)
            self.loss_curve_ = training.loss_curve
            self.validation_curve_ = np.round(training.validation_curve, 5).tolist()
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
                "unsupervised_weight > 0 and fine-tune layers."
            )
        if fresh and stack._needs_targets and not targets.labelled.any():
            raise ValueError(
                f"pretraining={self.pretraining!r} needs rows with targets in the first call of "
                "partial_fit, which has none."
            )
        n_before = 0.0 if fresh else self.n_labelled_
        self.n_labelled_ = n_before + targets.total * mean_weight(sample_weight)
        if fresh:
            self._adapt(stack, layers, data)
            stack._fit_from(layers, X, sample_weight, weight, targets)
            self.stack_ = stack
            self._start_output(data, weight, targets)
        else:
            # The layers of before stay as they are should this call fail.
            self.stack_ = self.stack_._shallow_copy()
        training = self._fine_tune(data, weight, targets, targets.labelled, None, 1, resumable=True)
        self.loss_curve_ = ([] if fresh else self.loss_curve_) + training.loss_curve
        self.validation_curve_ = []
        if fresh:
            report_constant_units(self, self.stack_._codes(some_rows(data, weight)))
        self.n_iter_ = len(self.loss_curve_)
        return self

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.target_tags.multi_output = True
        return tags

    _collapse_remedy = "Use a smaller learning_rate, or another kind of layer."

    def _make_stack(self):
        """The stack with this model's parameters, and its new layers, all checked."""
        self._validate_parameters()
        stack = StackedAutoEncoder(**self._stack_parameters())
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

    def _stack_parameters(self):
        """The parameters of the stack below the output."""
        names = {**StackParameters.__dataclass_fields__, **TrainingParameters.__dataclass_fields__}
        return {name: getattr(self, name) for name in names} | {"warm_start": False}

    def _adapt(self, stack, layers, data):
        """Set what a stack and its layers take from the data, before they are trained."""

    def _n_epochs(self, labelled):
        """Epochs of fine-tuning."""
        return self.max_iter

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

    def _outputs(self, X):
        """Pre-activations of the output of every row, of shape (n_samples, n_outputs)."""
        X = check_rows(self, X, reset=False)

        def outputs(theta, x):
            code = self.stack_._codes_of(theta, x, len(self.stack_.layers_))
            weight, bias = (torch.tensor(array).to(code) for array in (self.coef_, self.intercept_))
            return torch.addmm(bias, code, weight.t())

        return self.stack_._map_rows(X, outputs, (len(self.intercept_),), standardize=True)
