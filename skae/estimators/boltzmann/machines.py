"""Fitted Boltzmann machines as the engine sees them, and the setting in which their chains run."""

import contextlib

import numpy as np
import torch

from skae.engine.boltzmann.energies import BipartiteMachine
from skae.engine.optimisation.devices import Place, place_of, require_memory, suitable_threads
from skae.engine.optimisation.parameters import Parameters
from skae.engine.optimisation.rows import make_rows, may_have_gaps, summarize_columns
from skae.estimators.face.progress import StepLine
from skae.estimators.face.training import check_same_weights, usable_place


def machine_of(model, place: Place | None = None) -> BipartiteMachine:
    """The machine that an estimator is, at a place, or on its device in its weights' precision."""
    place = usable_place(model, next(iter(model.weights_.values()))) if place is None else place
    check_same_weights(model, model._model(place), model.weights_)
    theta = Parameters.from_numpy(model.weights_, dtype=place.dtype, device=place.device)
    return model._machine(theta)


def rows_of(model, X, place: Place):
    """Rows as a fitted machine sees them."""
    shift, scale = model.columns_.standardization(place)
    return make_rows(X, shift, scale, dtype=place.dtype, device=place.device)


def whole(X, purpose: str, remedy: str):
    """Checked rows X; a ValueError if they have gaps, which are for the mean field alone."""
    if may_have_gaps(X) and summarize_columns(X).n_missing.any():
        raise ValueError(f"X has gaps, NaN, but {purpose} whole rows. {remedy}")
    return X


def base_bias(columns, place: Place) -> torch.Tensor:
    """Biases of visible units that are independent and have the data's means."""
    return columns.units(place.device).bias_for_mean(place.tensor(columns.standardized("mean")))


@contextlib.contextmanager
def sampling(name: str, machine: BipartiteMachine, n_chains: int, *, shows: bool = False):
    """The setting in which chains run; gives the listener that shows their progress, or None."""
    line = StepLine(name)
    threads = suitable_threads(machine.theta.flat.device, n_chains * machine.weight.numel())
    with torch.inference_mode(), threads:
        try:
            yield line if shows else None
        finally:
            line.finish()


def require_room(n_rows: int, machine: BipartiteMachine, purpose: str, remedy: str) -> None:
    """Raise a MemoryError if so many states of a machine have no room where it is."""
    flat = machine.theta.flat
    n_bytes = n_rows * (machine.n_visible + machine.n_hidden) * flat.element_size()
    require_memory(n_bytes, flat.device, purpose, f"Use a smaller {remedy}.")


def checkpoints_of(model, machine: BipartiteMachine, purpose: str) -> torch.Tensor:
    """The parameters that a fitted machine's training passed; a ValueError if it kept none.

    ``purpose`` is what needs them, for the message.
    """
    kept = getattr(model, "trajectory_", None)
    if kept is None or len(kept) == 0:
        raise ValueError(
            f"{purpose} goes along the training of this {type(model).__name__}, which has kept no "
            "checkpoints. Fit with n_checkpoints=20 or so, for 10 gradient steps at least."
        )
    flat = machine.theta.flat
    if kept.shape[1] != len(flat):
        raise ValueError(
            f"trajectory_ has {kept.shape[1]} parameters in each checkpoint, but this "
            f"{type(model).__name__} has {len(flat)}. Fit it again."
        )
    return place_of(flat).tensor(kept)


def without_nan(energies: np.ndarray) -> np.ndarray:
    """Energies of rows; infinite of one that is so far away that parts overflow with both signs."""
    return np.where(np.isnan(energies), np.inf, energies)
