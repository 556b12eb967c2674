"""Samples of auto-encoders: which chain, from where, and whether it went well."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning

from skae._validation import (
    check_choice,
    check_count,
    check_is_fitted,
    check_number,
    make_generator,
)
from skae._warnings import warn
from skae.engine.boltzmann.samplers import Schedule, run_chains
from skae.engine.density.chains import CHAINS, annealed, levels_between
from skae.engine.density.denoisers import Clamp, Denoiser
from skae.engine.optimisation.devices import place_of, require_memory, suitable_threads
from skae.estimators.density.fixed import Fixed, fixed_rows
from skae.estimators.density.models import denoiser_of, level_of, reachable, rows_of, spread_of
from skae.estimators.face.parameters import check_function
from skae.estimators.face.progress import StepLine
from skae.estimators.face.rows import in_data_form, returns_rows

METHODS = ("annealed", *CHAINS)
# After fewer steps than this, nothing can be told of how chains move.
_TIME_TO_MOVE = 20
# Samples that vary by less than this part of the data's spread have collapsed; chains that went by
# less than this from their start have not moved.
_COLLAPSED, _FROZEN = 0.1, 0.02
# Parts of the range of a column by which a chain may leave it, and of entries that may do so.
_AROUND, _OUTSIDE = 1.0, 0.05
_FEWEST = 10
_N_LEVELS = 40


class Request(NamedTuple):
    """The arguments of `sample` that say what is drawn."""

    method: Any = "auto"
    noise: Any = None
    n_steps: int | None = None
    burn_in: int = 200
    init: Any = None
    n_chains: int | None = None
    fixed: Any = None
    return_means: bool = False


class Plan(NamedTuple):
    """What `sample` was asked for: a method, the levels of its noise, and its schedule."""

    method: str | Callable
    noise: float | torch.Tensor | tuple[float, float]
    n_chains: int
    schedule: Schedule


@returns_rows
def sample(
    self,
    n_samples=1,
    *,
    method="auto",
    noise=None,
    n_steps=None,
    burn_in=200,
    init=None,
    n_chains=None,
    fixed=None,
    return_means=False,
    random_state=None,
):
    """Draw rows from the density that the model has learned, by chains of its reconstruction.

    Parameters
    ----------
    n_samples : int, default=1
        Rows to return.
    method : str or callable, default="auto"
        How rows are drawn:

        - "annealed": each row comes down through ``n_steps`` levels of Gaussian noise, from the
          highest to the lowest. For models trained on a range of levels.
        - "local_covariance": Gaussian noise, then a draw with mean r and covariance sigma^2 dr/dx,
          the local moments of the density.
        - "langevin": steps along the score (r(x) - x) / sigma^2, with noise.
        - "denoising": the corruption of training, then a draw from P(x | r).
        - "contractive": codes move by J J^T times Gaussian noise, J = dh/dx, and are decoded.
        - "isotropic": for comparison, as much noise in all directions alike, which is bad.
        - a function of a `skae.engine.density.denoisers.Denoiser` and a generator that returns a
          step, from (rows, means) to the next.

        "auto" takes the one that the training is for: "annealed" for a range of levels of Gaussian
        noise, "local_covariance" for one, "denoising" for other corruption, "contractive" for a
        contraction of the code.
    noise : float or tuple (high, low), default=None
        Standard deviation of the Gaussian noise, in units of the columns as standardised; highest
        and lowest one for "annealed". None: that of training. For "contractive" that of the
        noise on codes, 1 by default; for "denoising" another level of its corruption.
    n_steps : int, default=None
        Steps from one sample of a chain to its next; levels of "annealed". None: 10, and 40.
    burn_in : int, default=200
        Steps before a chain's first sample.
    init : array-like of shape (n_chains, n_features), default=None
        Rows at which the chains start, with or without gaps. None: columns drawn by themselves,
        with the means of the training data.
    n_chains : int, default=None
        Chains that run side by side. None: one for each row of ``init``, else ``n_samples``, but at
        most 100. Rows of "annealed" are all drawn by themselves.
    fixed : dict or array-like of shape (n_features,) or (n_rows, n_features), default=None
        Values that columns are to have, samples given these: a dict from columns to values, or rows
        with NaN where nothing is fixed, one for all chains or one for each.
        They are in the range and on the grid of the column, such as whole numbers.
    return_means : bool, default=False
        Whether to return the means from which the last step drew: the same rows without the noise
        of each column, as images are shown.

    Returns
    -------
    samples : ndarray or data frame of shape (n_samples, n_features)
        In the units of the data, on the grid and in the range of the training data's columns; a
        data frame, if that is what the model was fitted on or ``set_output`` asks for. The chains'
        first samples come first, then their second ones, and so on.

    Raises
    ------
    ValueError
        If the training is not what the method is for; the message names one that it is for.

    Warns
    -----
    ConvergenceWarning
        If chains leave the range of the data, do not move, or collapse to few rows.

    References
    ----------
    .. [1] S. Rifai, Y. Bengio, Y. Dauphin, P. Vincent. A generative process for sampling
       contractive auto-encoders. ICML 2012.
    .. [2] Y. Bengio, L. Yao, G. Alain, P. Vincent. Generalized denoising auto-encoders as
       generative models. NIPS 2013.
    .. [3] G. Alain, Y. Bengio. What regularized auto-encoders learn from the data-generating
       distribution. Journal of Machine Learning Research 15, 2014.
    """
    request = Request(method, noise, n_steps, burn_in, init, n_chains, fixed, return_means)
    values, given = chain_states(self, n_samples, request, random_state)
    return in_data_form(self, values, return_means, given)


def chain_states(self, n_samples, request, random_state) -> tuple[np.ndarray, Fixed | None]:
    """What `sample` draws for such a `Request`, as the network sees it, and what was fixed."""
    method, noise, n_steps, burn_in, init, n_chains, fixed, return_means = request
    check_is_fitted(self)
    if not hasattr(self, "spread_"):
        raise ValueError(
            f"This {type(self).__name__} is a random layer of a stack, as with pretraining=None: "
            "nothing has been learned that could be sampled. Pre-train it."
        )
    check_count("n_samples", n_samples, 1)
    check_count("burn_in", burn_in, 0)
    if n_steps is not None:
        check_count("n_steps", n_steps, 1)
    method = _method_of(self, method)
    start = None if init is None else self._checked(init)
    if n_chains is None:
        n_chains = min(n_samples, 100) if start is None else min(n_samples, start.shape[0])
    check_count("n_chains", n_chains, 1)
    denoiser = denoiser_of(self)
    place = place_of(denoiser.theta.flat)
    given = None if fixed is None else fixed_rows(self, fixed)
    if given is not None:
        rows = rows_of(self, given.rows, place)
        if len(rows) > n_samples:
            raise ValueError(
                f"fixed has {len(rows)} rows, more than n_samples={n_samples}: use one for all "
                "samples, or n_samples as many as there are rows."
            )
        n_chains = max(n_chains, len(rows))
        every = torch.arange(n_samples if method == "annealed" else n_chains) % len(rows)
        given = given.taken(every[torch.arange(n_samples) % len(every)].numpy())
        rows = rows.take(every.to(place.device)).clone()
        clamp = Clamp(~torch.isnan(rows), rows.nan_to_num(0.0))
        denoiser = replace(denoiser, clamp=clamp)
    denoiser, noise = _with_noise(self, denoiser, method, noise)
    seed = self.random_state if random_state is None else random_state
    generator = make_generator(seed, place.device)
    if method == "annealed":
        plan = Plan(method, noise, n_samples, Schedule(1, n_steps or _N_LEVELS))
    else:
        schedule = Schedule(math.ceil(n_samples / n_chains), burn_in, n_steps or 10)
        plan = Plan(method, noise, n_chains, schedule)
    n_rows = 8 * plan.n_chains + 2 * plan.n_chains * plan.schedule.n_samples
    n_bytes = n_rows * denoiser.model.n_features * place.dtype.itemsize
    require_memory(n_bytes, place.device, "Sampling", "Use a smaller n_samples or n_chains.")
    threads = suitable_threads(place.device, plan.n_chains * denoiser.theta.flat.numel())
    line = StepLine(type(self).__name__)
    with torch.inference_mode(), threads:
        x = _first_rows(self, denoiser, start, plan.n_chains, generator)
        try:
            kept, trouble = _run(self, denoiser, plan, x, generator, line, bool(return_means))
        finally:
            line.finish()
        kept = kept.flatten(0, 1)[:n_samples]
        if not return_means:
            kept = with_values(denoiser, kept, generator)
    if trouble:
        warn(f"{type(self).__name__}: {trouble}", ConvergenceWarning)
    return kept.cpu().numpy(), given


def _method_of(model, method):
    """The method that was asked for, or that suits how the model was trained."""
    if callable(method):
        step = "a step, from (rows, means) to the next"
        check_function("method", method, ("denoiser", "generator"), step)
        return method
    check_choice("method", method, ("auto", *METHODS))
    if method != "auto":
        return method
    level = level_of(model)
    if isinstance(level, tuple):
        return "annealed"
    if level is not None:
        return "local_covariance"
    if model.corruption is not None:
        return "denoising"
    if model.contraction > 0:
        return "contractive"
    raise ValueError(
        f"This {type(model).__name__} was trained without noise and without a contraction: its "
        "reconstruction is near the identity wherever it can be, and says nothing of the density. "
        "Train with corruption='gaussian' or another one, or with contraction > 0; or name a "
        f"method, one of {', '.join(map(repr, METHODS))}."
    )


def _with_noise(model, denoiser, method, noise):
    """The denoiser for a method, and the levels of noise; a ValueError where there are none."""
    name, level = type(model).__name__, level_of(model)
    if method in ("contractive", "isotropic") and (noise is not None or level is None):
        noise = 1.0 if noise is None else _positive(noise)
        return replace(denoiser.at(noise), moves_codes=level is None), noise
    if method == "denoising":
        if denoiser.corrupt is None:
            raise ValueError(
                f"method='denoising' repeats the corruption of training, but this {name} was "
                "trained without. Use method='contractive', or train with a corruption."
            )
        if noise is not None:
            if callable(model.corruption):
                raise ValueError("noise sets the level of a corruption by name, not of a callable.")
            denoiser = denoiser_of(model, level=_positive(noise), like=denoiser)
        return denoiser, math.nan
    if method == "annealed":
        if noise is not None and not isinstance(noise, tuple) and isinstance(level, tuple):
            raise ValueError(
                f"method='annealed' goes through a range of levels: noise={noise!r} has to be a "
                "tuple (high, low)."
            )
        noise = level if noise is None else noise
        if not isinstance(noise, tuple) or len(noise) != 2:
            raise ValueError(
                "method='annealed' goes through a range of levels of Gaussian noise, but this "
                f"{name} knows {'one' if level is not None else 'none'}. Train with "
                "corruption='gaussian' and corruption_level=(low, high), or use method="
                f"{'local_covariance' if level is not None else _alternative(model)!r}."
            )
        low, high = sorted(map(_positive, (max(noise), min(noise) or max(noise) / 100)))
        return denoiser, (low, high)
    if method == "langevin" and denoiser.is_drawn is not None and bool(denoiser.is_drawn.any()):
        raise ValueError(
            "method='langevin' moves real numbers, but this model has columns of 0 and 1 or of "
            "categories. Use method='local_covariance' or 'denoising', which draw these."
        )
    if noise is not None:
        return denoiser.at(_positive(noise)), noise
    if callable(method) and level is None:
        return denoiser, math.nan
    if level is None:
        raise ValueError(
            f"method={method!r} needs the level of the Gaussian noise that the reconstruction "
            f"removes, but this {name} was trained on none. Use method={_alternative(model)!r}, or "
            "train with corruption='gaussian'; noise=... takes the reconstruction for one that "
            "removes such noise."
        )
    return denoiser.at(reachable(one_level(level, denoiser))), level


def one_level(level, denoiser: Denoiser) -> float | torch.Tensor:
    """A level of noise where a range of them was learned: the middle of what it is told, or all."""
    if isinstance(level, np.ndarray):
        return place_of(denoiser.theta.flat).tensor(level)
    if not isinstance(level, tuple):
        return level
    low, high = level
    if denoiser.model.at_level is not None:
        return math.sqrt(max(low, high / 100) * high)
    return math.sqrt((low * low + low * high + high * high) / 3)


def _alternative(model):
    return "denoising" if model.corruption is not None else "contractive"


def _positive(noise) -> float:
    return reachable(check_number("noise", noise))


def _first_rows(model, denoiser, start, n_chains, generator):
    """Rows at which chains start, as the network sees them."""
    place = place_of(denoiser.theta.flat)
    if start is not None:
        every = torch.arange(n_chains, device=place.device) % start.shape[0]
        x = denoiser.model.filled(rows_of(model, start, place).take(every).clone())
    else:
        mean, spread = spread_of(model, place)
        bias = denoiser.model.units.bias_for_mean(mean).expand(n_chains, -1)
        noise = torch.empty_like(bias).normal_(generator=generator)
        drawn = denoiser.model.units.sample(bias.contiguous(), generator)
        x = torch.where(denoiser.is_drawn, drawn, mean + spread * noise)
    return x if denoiser.clamp is None else denoiser.clamp.on(x)


def _run(model, denoiser, plan, x, generator, line, means):
    """What was kept, (n of a chain, n_chains, n_features), and what to warn of, or None."""
    place = place_of(denoiser.theta.flat)
    listener = line if model.verbose else None
    which = 1 if means else 0
    if plan.method == "annealed":
        low, high = plan.noise
        _, spread = spread_of(model, place)
        mean = spread_of(model, place)[0]
        x = mean + torch.empty_like(x).normal_(generator=generator) * (high**2 + spread**2).sqrt()
        levels = levels_between(low, high, plan.schedule.burn_in)
        state = annealed(denoiser, levels, x, generator)
        return state[which].unsqueeze(0), _trouble(model, denoiser, state[0], None, place)
    make = CHAINS.get(plan.method, plan.method) if isinstance(plan.method, str) else plan.method
    step = make(denoiser, generator)
    if not callable(step):
        raise ValueError(
            f"method={make!r} is no chain: it returned {step!r}, but has to return a function that "
            "goes from (rows, means) to the next."
        )
    run = run_chains(
        step, (x, x), plan.schedule, keep=lambda state: state[which], listener=listener
    )
    moved = None if plan.schedule.n_steps < _TIME_TO_MOVE else run.state[0] - x
    return run.samples, _trouble(model, denoiser, run.samples.flatten(0, 1), moved, place)


def _trouble(model, denoiser, x, moved, place) -> str | None:
    """What to tell of chains that left the data's range, do not move or have collapsed."""
    columns = model.columns_
    free = slice(None)
    if denoiser.clamp is not None:
        free = ~denoiser.clamp.mask.all(0)
        if not bool(free.any()):
            return None
    ends = [place.tensor(columns.standardized(end)) for end in ("minimum", "maximum")]
    spread = spread_of(model, place)[1]
    varies = ends[0] < ends[1]
    varies[~(torch.ones_like(varies) if isinstance(free, slice) else free)] = False
    if not bool(varies.any()):
        return None
    x, spread = x[:, varies], spread[varies]
    low, high = ends[0][varies], ends[1][varies]
    trouble = outside_of_range(x, low, high, spread)
    if trouble is not None:
        return (
            f"{trouble}, where the reconstruction leads chains away. Train with more noise, "
            "walkback or bounded hidden units (activation='sigmoid', 'tanh'), or use a smaller "
            "noise here."
        )
    if moved is not None and _is_frozen(moved[:, varies] / spread, denoiser.is_drawn[varies], x):
        return (
            "chains hardly moved from where they started. Use a larger noise, more n_steps, or "
            "train with more noise or a weaker contraction."
        )
    if len(x) >= _FEWEST and denoiser.clamp is None:
        ratio = float((x.std(0) / spread).square().mean().sqrt())
        if ratio < _COLLAPSED:
            return (
                f"the samples have collapsed: they vary {ratio:.1%} as much as the training data. "
                "Use a larger noise, or train longer, with less noise or a weaker contraction; "
                "method='local_covariance' keeps the spread that r alone takes away."
            )
    return None


def outside_of_range(x, low, high, spread) -> str | None:
    """How many samples are far outside of the training rows' range, where that is many."""
    around = _AROUND * (high - low + spread.mean())
    outside = (x < low - around) | (x > high + around) | ~torch.isfinite(x)
    part = float(outside.any(1).float().mean())
    if part <= _OUTSIDE:
        return None
    return f"{part:.0%} of the samples are far outside of the range of the training data"


def _is_frozen(moved, is_drawn, x):
    """Whether chains are where they were; of columns of 0 and 1 alone, in different states."""
    if bool(is_drawn.all()):
        return not bool(moved.any()) and not bool((x == x[0]).all())
    went = moved[:, ~is_drawn].square().mean(1).sqrt()
    return float(went.median()) < _FROZEN


def with_values(denoiser, x, generator):
    """Rows whose columns of 0 and 1 and one-hot ones are so, where a chain has only their means."""
    drawn = denoiser.is_drawn
    if not bool(drawn.any()) or bool(((x[:, drawn] == 0) | (x[:, drawn] == 1)).all()):
        return x
    units = denoiser.model.units
    bias = units.bias_for_mean(x.clamp(0, 1)).contiguous()
    return torch.where(drawn, units.sample(bias, generator), x)
