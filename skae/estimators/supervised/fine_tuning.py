"""Training of an output layer and of the layers below it, on targets."""

import math
from numbers import Integral, Real
from typing import NamedTuple

import numpy as np
import torch

from skae._validation import Interval, computing_dtype
from skae.engine.optimisation.devices import resolve_device
from skae.engine.optimisation.rows import LabelledRows, make_rows
from skae.engine.stacks.stacking import Layerwise
from skae.engine.stacks.supervised import Supervised
from skae.estimators.face.fitting import (
    TrainedModel,
    kept_state,
    optimizer_state,
    rows_that_count,
    to_tensor,
)
from skae.estimators.face.parameters import estimator, parameter
from skae.estimators.stacks.layers import StackParameters, make_levels
from skae.estimators.stacks.pretraining import keep_parameters, projection, stack_parameters
from skae.estimators.supervised.output_layers import fit_linear_output

_CPU = torch.device("cpu")
# Steps of the linear model that the output starts from, and of one that is the result.
_START_STEPS, _LINEAR_STEPS = 100, 1000
# The least penalty on the weights of the first.
_START_ALPHA = 1.0


class FineTuning(NamedTuple):
    """What is fine-tuned, and on what.

    Attributes
    ----------
    data : {ndarray, CSR matrix} of shape (n_samples, n_features)
    rows : {ndarray, CSR matrix} of shape (n_samples, n_codes)
        What the lowest layer that is trained sees of them, before it standardises.
    weight : ndarray of shape (n_samples,), or None
    targets : Targets
    labelled : ndarray of bool of shape (n_samples,)
        Rows whose targets are learned.
    first : int
        The lowest layer that is trained.
    theta : Parameters
        As they are before the first step.
    """

    data: object
    rows: object
    weight: np.ndarray | None
    targets: object
    labelled: np.ndarray
    first: int
    theta: object


@estimator
class FineTunedStack(StackParameters, TrainedModel):
    """A pre-trained stack with an output layer, as far as that is trained.

    A fitted one has its layers in ``stack_`` and its output in ``coef_`` and ``intercept_``.
    """

    n_fine_tuned_layers: int = parameter(
        default=None,
        constraints=[Interval(Integral, 0, None, closed="left"), None],
        doc="""int or None
        How many layers, counted from the top, are fine-tuned together with the output. None:
        all. 0: none, the output is a linear model on the codes.""",
    )
    unsupervised_weight: float = parameter(
        default=0.0,
        constraints=[Interval(Real, 0, None, closed="left")],
        doc="""float
        Weight of the layers' own criteria while fine-tuning; each on the codes of the one
        below, and of all rows, labelled or not.""",
    )
    alpha: float = parameter(
        default=1.0,
        constraints=[Interval(Real, 0, None, closed="left")],
        doc="""float
        Penalty on the output's weights: half the sum of their squares counts as much as the
        loss of ``alpha`` labelled rows. That is 1 / C of
        :class:`~sklearn.linear_model.LogisticRegression` (for two classes, which have two
        outputs here and one there, 2 / C) and alpha of
        :class:`~sklearn.linear_model.Ridge`. Fine-tuning starts from an output with at least
        ``alpha=1``.""",
    )
    dropout: float = parameter(
        default=0.0,
        constraints=[Interval(Real, 0, 1, closed="left")],
        doc="""float
        Probability with which each unit of a layer's code is left out of a fine-tuning step.""",
    )
    input_dropout: float = parameter(
        default=0.0,
        constraints=[Interval(Real, 0, 1, closed="left")],
        doc="""float
        The same for the columns of the data, where the lowest layer is fine-tuned.""",
    )

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

    @property
    def _uses_unlabelled(self):
        """Whether rows without a target take part in fine-tuning."""
        return self._keeps_unsupervised

    def _start_output(self, data, weight, targets):
        """An output layer to begin with, or the one to end with where no layer is fine-tuned."""
        n_outputs, is_final = targets.values.shape[1], self._n_tuned == 0
        self.loss_curve_, self.validation_curve_ = [], []
        self.device_ = self.stack_.device_
        self.stopping_reason_ = "interrupted" if self.stack_._was_interrupted else "converged"
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

    def _fine_tune(
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
        task = FineTuning(data, rows, weight, targets, labelled, first, theta)
        index = rows_that_count(len(labelled), weight)
        probed = index[torch.tensor(labelled)[index]]
        if not self._uses_unlabelled:
            index = probed
        elif held_out is not None:
            index = index[torch.tensor(~np.isin(index.numpy(), held_out))]
        index, share = self._proportioned(index, torch.tensor(labelled))
        criteria = [
            layer._make_objective(theta.part(level.prefix))
            for layer, level in zip(layers, levels, strict=True)
        ]
        judge = None if held_out is None else self._judge(targets)
        objective = self._make_criterion(
            task,
            levels,
            targets.units(device),
            share=share,
            weight_decay=self.alpha / (self.n_labelled_ or 1.0),
            dropout=(self.input_dropout if first == 0 else self.dropout, self.dropout),
            unsupervised=Layerwise(levels, criteria) if self._keeps_unsupervised else None,
            unsupervised_weight=self.unsupervised_weight,
            judge=judge,
            harmless=self._loss_of_nothing(targets, labelled if held_out is None else held_out),
        )
        optimizer = self._make_optimizer(objective)
        if state is not None and state["shapes"] == theta.shapes:
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
                *self._make_directions(task),
            ),
            weight,
            generator,
            index=index,
            probed=probed if len(probed) else index,
            held_out=None if held_out is None else torch.tensor(held_out),
            optimizer=optimizer,
            max_iter=max_iter,
            resumable=resumable,
            optimizer_state=optimizer_state(state, optimizer, theta),
            start_is_model=self.pretraining is not None and not resumable,
            project=projection(layers, first),
            bridge=bridge,
        )
        keep_parameters(layers, levels, theta)
        self.coef_ = theta["output_weight"].cpu().numpy().copy()
        self.intercept_ = theta["output_bias"].cpu().numpy().copy()
        self.device_, self.stopping_reason_ = str(device), training.outcome
        if resumable:
            self._training_state = kept_state(theta, generator, training, objective)
        else:
            self.__dict__.pop("_training_state", None)
        return training

    def _make_criterion(self, task, levels, units, **options):
        """What fine-tuning minimises, for a `FineTuning`."""
        return Supervised(levels, units, **options)

    def _make_directions(self, task):
        """Directions of some rows, as the lowest fine-tuned layer sees them, and whose they are.

        As of `skae.engine.optimisation.rows.LabelledRows`; None and None where there are none.
        """
        return None, None

    def _proportioned(self, index, labelled):
        """The rows of an epoch, some perhaps several times, and the share of labelled ones."""
        return index, max(1, int(labelled[index].sum())) / len(index)

    def _loss_of_nothing(self, targets, rows):
        """What an output that knows nothing but the targets' mean would be judged at."""
        values, weight = targets.tensors(torch.float64, _CPU)
        rows = torch.as_tensor(rows)
        values, weight = values[rows], None if weight is None else weight[rows]
        if not len(values):
            return -math.inf
        judge = self._judge(targets) if rows.dtype != torch.bool else None
        judge = judge or targets.units(_CPU).negative_log_likelihood
        loss = judge(targets.start_bias(_CPU).expand_as(values), values)
        return float((loss if weight is None else loss * weight).mean())

    def _judge(self, targets):
        """The loss by which held-out rows are judged, where it is not that of training."""
        return None
