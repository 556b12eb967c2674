"""A fitted auto-encoder as a `Denoiser`: its noise, its columns, its rows."""

import math
from numbers import Real

import numpy as np
import torch

from skae.engine.density.denoisers import Denoiser
from skae.engine.networks.corruptions import make_corruption
from skae.engine.networks.levels import OwnColumn
from skae.engine.networks.penalties import CONTRACTIONS
from skae.engine.networks.units import UNITS
from skae.engine.optimisation.devices import Place
from skae.engine.optimisation.parameters import Parameters
from skae.engine.optimisation.rows import make_rows
from skae.estimators.face.grids import is_binary
from skae.estimators.face.training import check_same_weights, usable_place

# Standard deviations whose squares float32 holds, with room for sums over columns.
_LEAST, _MOST = 1e-15, 1e15


def check_noise(model) -> None:
    """Raise a ValueError for parameters that the noise of training does not go with."""
    if model.walkback and model.corruption is None:
        raise ValueError(
            f"walkback={model.walkback} goes on from corrupted rows: it needs a corruption."
        )
    if not model.level_as_input:
        return
    corruption = make_corruption(model.corruption, model.corruption_level)
    level = corruption.level if getattr(corruption, "is_gaussian", False) else None
    low = level[0] if isinstance(level, tuple) else level
    if not isinstance(low, Real) or low <= 0:
        raise ValueError(
            "level_as_input=True is for corruption='gaussian' with a corruption_level above 0, a "
            "number or (low, high), which the network can be told."
        )
    names = ("walkback", "contraction", "hessian", "neighborhood")
    given = [name for name in names if getattr(model, name) > 0]
    given += ["parametrization='energy'"] if model.parametrization == "energy" else []
    if given:
        raise ValueError(f"level_as_input=True does not go with {given[0]}.")


def reachable(level):
    """A level of noise, or several, as it is; a ValueError where its square is no usable number."""
    found = np.asarray(level, dtype=np.float64)
    if not ((found >= _LEAST) & (found <= _MOST)).all():
        raise ValueError(
            f"noise={level!r} must be from {_LEAST:g} to {_MOST:g}, in units of the columns as "
            "standardised: its square multiplies and divides."
        )
    return level


def level_of(model) -> float | tuple[float, float] | np.ndarray | None:
    """The level of the Gaussian noise that a model was trained to remove, or None.

    That of its corruption; or the one that a contraction of the reconstruction amounts to,
    sigma^2 = 2 * contraction (Alain & Bengio 2014).
    """
    corruption = make_corruption(model.corruption, model.corruption_level)
    if getattr(corruption, "is_gaussian", False):
        level = corruption.level
        if isinstance(level, torch.Tensor):
            return level.numpy()
        if isinstance(level, tuple):
            return level if level[0] < level[1] else float(level[0])
        return float(level)
    if corruption is None and model.contraction > 0:
        return noise_of_contraction(model)
    return None


def noise_of_contraction(model) -> float | None:
    """The noise that contracting the reconstruction amounts to; None for the code's contraction."""
    penalty = CONTRACTIONS[model.contraction_target](model.contraction)
    return getattr(penalty, "noise", None)


def place_of_model(model) -> Place:
    """Where a fitted model computes without rows: in the precision of its weights."""
    return usable_place(model, next(iter(model.weights_.values())))


def denoiser_of(
    estimator, place: Place | None = None, *, noise=None, level=None, like: Denoiser | None = None
) -> Denoiser:
    """The denoiser that a fitted auto-encoder is, for a level of Gaussian noise, if it has one.

    ``level`` is another one of its corruption than that of training; ``like`` has columns that
    chains keep.
    """
    place = place_of_model(estimator) if place is None else place
    model = estimator._model(place)
    check_same_weights(estimator, model, estimator.weights_)
    theta = Parameters.from_numpy(estimator.weights_, dtype=place.dtype, device=place.device)
    corrupt = model.objective().corruption
    if level is not None:
        corrupt = corruption_of(estimator, place, level)
    drawn = drawn_columns(estimator)
    variance = getattr(estimator, "residual_variance_", None)
    variance = np.ones(model.n_features) if variance is None else variance
    own = math.nan if noise is None else noise
    if isinstance(own, np.ndarray):
        own = place.tensor(own)
    return Denoiser(
        model,
        theta,
        own,
        corrupt,
        torch.tensor(drawn, device=place.device),
        place.tensor(variance),
        None if like is None else like.clamp,
    )


def drawn_columns(estimator) -> np.ndarray:
    """Which columns are 0 and 1, or one-hot, and so drawn by the units: (n_features,) of bool."""
    drawn = np.zeros(len(estimator.columns_.mean), dtype=bool)
    binary = is_binary(estimator.columns_.grid)
    for name, columns in estimator.columns_.parts:
        drawn[columns] = UNITS[name].is_discrete & binary[columns]
        if UNITS[name].sums_to_one:
            drawn[columns] = True
    return drawn


def own_column_of(estimator, place: Place) -> OwnColumn | None:
    """What columns say by themselves, for a model that is told how much noise they have.

    Standardised ones, and those that are 0 and 1 or one-hot, as tables have them. Pixels say
    little: images are far fewer than these allow, and what they say the network had to take back.
    """
    if not estimator.level_as_input:
        return None
    real, drawn = np.zeros((2, len(estimator.columns_.mean)))
    is_drawn = drawn_columns(estimator)
    for name, columns in estimator.columns_.parts:
        real[columns] = UNITS[name].standardizes and UNITS[name].is_linear
        drawn[columns] = is_drawn[columns].all()  # some grey pixels have two values only
    if not (real.any() or drawn.any()):
        return None
    return OwnColumn(place.tensor(real), place.tensor(drawn))


def corruption_of(model, place: Place, level=None):
    """The corruption of a model's training, told of its columns, or None."""
    level = model.corruption_level if level is None else level
    corruption = make_corruption(model.corruption, level)
    if hasattr(corruption, "for_columns"):
        columns = model.columns_
        ends = [columns.standardized(end) for end in ("minimum", "maximum")]
        fill = place.tensor(columns.fill)
        return corruption.for_columns(*map(place.tensor, ends), columns.variables, fill)
    return corruption


def rows_of(model, X, place: Place):
    """Rows as a fitted model sees them, NaN where they have gaps."""
    shift, scale = model.columns_.standardization(place)
    return make_rows(X, shift, scale, dtype=place.dtype, device=place.device)


def spread_of(model, place: Place) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of every column, as the network sees them."""
    mean = place.tensor(model.columns_.standardized("mean"))
    return mean, place.tensor(model.spread_).clamp(min=1e-6)
