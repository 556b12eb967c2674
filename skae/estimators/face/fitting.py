"""The training loop as estimators call it: with their parameters, and reports of how it ended."""

import math

import numpy as np
import torch
from sklearn.base import BaseEstimator

from skae._validation import make_generator
from skae.engine.optimisation.devices import require_memory
from skae.engine.optimisation.optimizers import OPTIMIZERS
from skae.engine.optimisation.training import train
from skae.estimators.face.outcomes import report_outcome
from skae.estimators.face.parameters import estimator, validate_parameters
from skae.estimators.face.progress import CallbackSupportMixin, ProgressLine
from skae.estimators.face.training import TrainingParameters

# Rows on which a criterion is evaluated to see how training goes.
_PROBE_ROWS = 500


@estimator
class TrainedModel(TrainingParameters, CallbackSupportMixin, BaseEstimator):
    """What is trained by gradient steps, whatever it predicts or returns."""

    def _descend(
        self,
        theta,
        objective,
        rows,
        weight,
        generator,
        *,
        index,
        optimizer,
        max_iter,
        probed=None,
        held_out=None,
        learning_rate=None,
        resumable=False,
        keep_start=False,
        start_is_model=False,
        optimizer_state=None,
        project=None,
        bridge=None,
        listener=None,
    ):
        """Run the loop on ``theta`` with this model's parameters; warn of how it ended.

        ``listener`` is told of every epoch, besides those that show progress. ``probed`` are the
        rows of which some tell how training goes, where not all of ``index`` can. Where the
        ``start_is_model``, it is kept, with a warning, if training makes it worse only.
        """
        line = ProgressLine(type(self).__name__)
        listeners = [line] if self.verbose else []
        if bridge is not None and bridge.active:
            bridge.fitted_attributes = lambda: {"weights_": theta.to_numpy()}
            listeners.append(bridge)
        if listener is not None:
            listeners.append(listener)
        may_probe = not (resumable and objective.reports_loss)
        probed = index if probed is None else probed
        training = train(
            theta,
            objective,
            rows,
            index=index,
            generator=generator,
            optimizer=optimizer,
            learning_rate=self.learning_rate if learning_rate is None else learning_rate,
            schedule="constant" if resumable else self.learning_rate_schedule,
            batch_size=self.batch_size,
            max_iter=max_iter,
            tol=self.tol,
            n_iter_no_change=self.n_iter_no_change,
            row_weight=None if weight is None else torch.tensor(weight).to(theta.flat),
            validation_index=held_out,
            probe_index=probed[:: math.ceil(len(probed) / _PROBE_ROWS)] if may_probe else None,
            keep_start=keep_start or start_is_model,
            optimizer_state=optimizer_state,
            project=project,
            listener=(lambda epoch: any([tell(epoch) for tell in listeners]))
            if listeners
            else None,
        )
        line.finish()
        rate = None if learning_rate is None else "that of the layers"
        report_outcome(self, training, start_is_model, rate)
        return training

    def _validate_parameters(self):
        validate_parameters(self)

    def _make_optimizer(self, objective):
        """The rule of the steps."""
        return OPTIMIZERS[self.optimizer](self.momentum)

    def _generator(self, device, state=None):
        """A generator from ``random_state``, or one that goes on from an earlier state."""
        generator = make_generator(self.random_state, device)
        if state is not None:
            generator.set_state(torch.tensor(state))
        return generator

    def _split(self, index, generator):
        """The rows to train on and those that are held out."""
        n_held_out = max(1, round(self.validation_fraction * len(index)))
        if n_held_out >= len(index):
            raise ValueError(
                f"early_stopping would hold out {n_held_out} of n_samples={len(index)} rows and "
                "leave none to train on; use a smaller validation_fraction, more rows, or "
                "early_stopping=False."
            )
        order = torch.randperm(len(index), generator=generator, device=generator.device).cpu()
        return index[order[n_held_out:]], index[order[:n_held_out]]

    def _require_memory_for(self, shapes, slots, dtype, device):
        """Raise a MemoryError if parameters of such shapes could not be trained."""
        n_parameters = sum(math.prod(shape) for shape in shapes.values())
        copies = 3 + len(slots)  # theta, its gradient, the best so far, moments
        require_memory(
            n_parameters * copies * dtype.itemsize, device, f"Training {type(self).__name__}"
        )


def rows_that_count(n_rows, weight):
    """Indices of the rows whose weight is not 0."""
    return torch.arange(n_rows) if weight is None else torch.tensor(np.flatnonzero(weight))


def mean_weight(sample_weight):
    """The mean of the sample weights, as the user gave them, over the rows that count."""
    if sample_weight is None:
        return 1.0
    weight = np.ravel(np.asarray(sample_weight, dtype=np.float64))
    return float(weight[weight > 0].mean())


def to_arrays(state):
    """A state of tensors and counts as arrays."""
    return {name: torch.as_tensor(value).cpu().numpy() for name, value in state.items()}


def to_tensor(array, dtype, device):
    """An array of a state as a tensor."""
    return torch.tensor(array, dtype=dtype if array.dtype.kind == "f" else None, device=device)


def kept_state(theta, generator, training, objective):
    """What a later call needs to go on from here, as arrays."""
    return {
        "shapes": dict(theta.shapes),
        "generator": generator.get_state().numpy(),
        "optimizer": to_arrays(training.optimizer_state),
        "objective": to_arrays(objective.state),
    }


def optimizer_state(state, optimizer, theta):
    """The optimiser's kept state for `train`, or None if there is none that fits."""
    # Moments of other parameters are worse than none, also where they are as many.
    if (
        state is None
        or set(state["optimizer"]) != set(optimizer.slots)
        or state["shapes"] != theta.shapes
    ):
        return None
    dtype, device = theta.flat.dtype, theta.flat.device
    return {
        slot: torch.tensor(a, dtype=torch.float32 if a.ndim == 0 else dtype, device=device)
        for slot, a in state["optimizer"].items()
    }
