"""Sampling from Boltzmann machines."""

import copy
import math
from collections.abc import Callable

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning

from skae._validation import check_choice, check_count, check_is_fitted, make_generator
from skae._warnings import warn
from skae.engine.boltzmann.samplers import (
    SAMPLERS,
    ClampedUnits,
    Schedule,
    check_sampler,
    gibbs_state,
    gibbs_step,
    make_chains,
    run_chains,
)
from skae.engine.networks.units import UNITS
from skae.engine.optimisation.devices import place_of
from skae.estimators.boltzmann import likelihoods
from skae.estimators.boltzmann.machines import (
    base_bias,
    checkpoints_of,
    machine_of,
    require_room,
    rows_of,
    sampling,
    whole,
)
from skae.estimators.density.fixed import Fixed, fixed_rows
from skae.estimators.density.sampling import outside_of_range
from skae.estimators.face.grids import is_binary
from skae.estimators.face.parameters import document_methods
from skae.estimators.face.rows import returns_rows

# After fewer steps than this, nothing can be told of how chains move.
_TIME_TO_MOVE = 20
# Temperatures that swap more rarely than this are too far apart.
_SWAPPED = 0.01


@document_methods
class BoltzmannSampling:
    """Methods of a `Transformer` whose parameters are a machine's: they run chains of it."""

    @returns_rows
    def gibbs(self, X, n_steps=1, *, random_state=None):
        """Visible states after some Gibbs steps from the rows of X.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Where the chains start.
        n_steps : int, default=1
            Steps; each draws all hidden units, then all visible ones.
        random_state : int, RandomState instance or None, default=None
            None: new random numbers at every call, so that calls can be chained. The
            same number at every call would repeat the same draws.

        Returns
        -------
        samples : ndarray or data frame of shape (n_samples, n_features)
            In the units of the data, as of `reconstruct`.
        """
        remedy = "Give what is observed to sample(fixed=...), which draws the gaps."
        X = whole(self._checked(X), "gibbs starts at", remedy)
        check_count("n_steps", n_steps, 1)
        machine = machine_of(self)
        generator = make_generator(random_state, machine.theta.flat.device)
        step = gibbs_step(machine, generator)
        result = np.empty(X.shape, dtype=self.components_.dtype)
        rows = rows_of(self, X, place_of(machine.theta.flat))
        with sampling(type(self).__name__, machine, X.shape[0]):
            for start, visible in rows.blocks(machine.n_visible + machine.n_hidden):
                state = gibbs_state(machine, machine.completed(visible), generator)
                schedule = Schedule(burn_in=n_steps)
                run = run_chains(step, state, schedule, keep=lambda s: machine.columns(s[0]))
                result[start : start + len(visible)] = run.samples[0].cpu().numpy()
        return self._decoded(self.columns_.with_constants(result))

    @returns_rows
    def sample(
        self,
        n_samples=1,
        *,
        n_steps=10,
        burn_in=1000,
        init=None,
        n_chains=None,
        n_temperatures=1,
        method="auto",
        fixed=None,
        random_state=None,
    ):
        """Draw rows from the model's distribution by chains of samples.

        Parameters
        ----------
        n_samples : int, default=1
            Rows to return.
        n_steps : int, default=10
            Steps from one sample of a chain to its next.
        burn_in : int, default=1000
            Steps before a chain's first sample.
        init : {array-like, sparse matrix} of shape (n_chains, n_features), default=None
            Rows at which the chains start. None: draws of independent units that have
            the means of the training data.
        n_chains : int, default=None
            Chains that run side by side. None: one for each row of ``init``, else
            ``n_samples``, but at most 100.
        n_temperatures : int, default=1
            More than 1: parallel tempering. Each chain is then the cold one of so many,
            from the machine to independent units, which swap states; modes between which
            plain steps hardly ever move are all visited.
        method : {"auto", "gibbs", "tempering", "trajectory"} or callable, default="auto"
            The sampler. "auto": "tempering" if ``n_temperatures`` is more than 1, else "gibbs".
            "trajectory": parallel tempering along the machine's own training, from which
            checkpoints were kept (``n_checkpoints``), in the place of temperatures: at
            ``n_temperatures`` places or, where that is 1, at every checkpoint. Or one of your own,
            a function of a machine and a generator that returns a step, from a state (visible
            units, hidden units) to the next; see `skae.engine.boltzmann.samplers`.
        fixed : dict or array-like of shape (n_features,) or (n_rows, n_features), default=None
            Values that columns are to have, samples given these: a dict from columns to values, or
            rows with NaN where nothing is fixed, one for all chains or one for each, in turn.
            They are in the range and on the grid of the column, such as whole numbers.

        Returns
        -------
        samples : ndarray or data frame of shape (n_samples, n_features)
            In the units of the data, in the container of `fit` or that of ``set_output``. The
            chains' first samples come first, then their second ones, and so on.

        Warns
        -----
        ConvergenceWarning
            If chains never left the states they started in; if neighbouring temperatures
            hardly ever swap states; if real columns of many samples are far outside of the range of
            the training rows.
        """
        check_is_fitted(self)
        for name, value, least in (
            ("n_samples", n_samples, 1),
            ("n_steps", n_steps, 1),
            ("burn_in", burn_in, 0),
            ("n_temperatures", n_temperatures, 1),
        ):
            check_count(name, value, least)
        make, settings = _sampler(method, n_temperatures)
        remedy = "Give what is observed to fixed=..., and start anywhere."
        start = None if init is None else whole(self._checked(init), "chains start at", remedy)
        if n_chains is None:
            n_chains = min(n_samples, 100) if start is None else min(n_samples, start.shape[0])
        check_count("n_chains", n_chains, 1)
        given = None if fixed is None else _given_rows(self, fixed, n_samples)
        n_chains = n_chains if given is None else max(n_chains, len(given.rows))

        machine, name = machine_of(self), type(self).__name__
        checkpoints = None
        if "checkpoints" in settings:
            checkpoints = checkpoints_of(self, machine, f"method={method!r}")
            n_temperatures = len(checkpoints) + 2 if n_temperatures == 1 else n_temperatures
        place = place_of(machine.theta.flat)
        seed = self.random_state if random_state is None else random_state
        generator = make_generator(seed, place.device)
        bias = machine.widened(base_bias(self.columns_, place))
        independent = machine.tempered(bias)
        schedule = Schedule(math.ceil(n_samples / n_chains), burn_in, n_steps)
        # The state, its hidden units, and a few temporaries of their size; what is kept.
        n_rows = 6 * n_chains * n_temperatures + 2 * n_chains * schedule.n_samples
        require_room(n_rows, machine, "Sampling", "n_samples, n_chains or n_temperatures")
        setting = sampling(name, machine, n_chains * n_temperatures, shows=bool(self.verbose))
        with setting as listener:
            if start is None:
                visible = independent.start(n_chains, generator)
            else:
                every = torch.arange(n_chains, device=place.device) % start.shape[0]
                visible = machine.completed(rows_of(self, start, place).take(every).clone())
            if n_chains == 1:
                # A companion, thrown away: two chains that never move, in different states,
                # are stuck; one alone may be where the only state is.
                visible = torch.cat([visible, independent.start(1, generator)])
            if given is not None:
                every = torch.arange(len(visible), device=place.device) % len(given.rows)
                rows = rows_of(self, given.rows, place).take(every)
                given = given.taken(np.arange(n_samples) % n_chains % len(given.rows))
                machine.units = _clamped(machine, rows)
                visible = machine.units.on(visible)
            known = {"base_bias": bias, "n_temperatures": n_temperatures}
            known["checkpoints"] = checkpoints
            chains = make_chains(make, machine, generator, **known)
            run = run_chains(
                chains.step,
                chains.start(visible),
                schedule,
                keep=lambda state: machine.columns(chains.visible(state)),
                watch=chains.watched,
                listener=listener,
            )
        if hasattr(chains.step, "swap_rates"):
            trouble = _report_swaps(chains.step.swap_rates, n_temperatures)
        else:
            trouble = report_stuck(~run.moved, chains.watched(run.state), "chains", n_chains)
        samples = run.samples[:, :n_chains].flatten(0, 1)[:n_samples]
        told = [
            trouble if schedule.n_steps >= _TIME_TO_MOVE else None,
            _report_range(self.columns_, samples),
        ]
        if any(told):
            warn(f"{name}: {' '.join(filter(None, told))}", ConvergenceWarning)
        samples = self.columns_.with_constants(samples.cpu().numpy())
        return self._decoded(samples, given)

    log_partition_function = likelihoods.log_partition_function
    annealed_likelihood = likelihoods.annealed_likelihood


def report_stuck(frozen, states, what, n_chains=None) -> str | None:
    """What to tell of chains that did not move, though there is somewhere else to be.

    Chains that rest in one state, all the same, may be where the machine nearly always is; chains
    that rest in different ones are stuck. Of ``frozen`` and ``states``, with one row for each
    chain, the first ``n_chains`` count; the others are there for comparison.
    """
    resting, frozen = states[frozen], frozen[:n_chains]
    if len(resting) == 0 or bool((resting == resting[0]).all()) or not bool(frozen.any()):
        return None
    return (
        f"{int(frozen.sum())} of {len(frozen)} {what} never left the states they started in: the "
        "weights are so large that Gibbs steps do not move. Sample with n_temperatures > 1, or fit "
        "with a smaller learning_rate or more weight_decay."
    )


def report_chains(objective) -> str | None:
    """What to tell of the persistent chains of a training."""
    frozen = objective.frozen_chains
    if frozen is None:
        return None
    return report_stuck(frozen, objective.state["chains"], "persistent chains")


def _report_swaps(swap_rates, n_temperatures) -> str | None:
    """What to tell where what hot chains find does not come down to the cold ones."""
    rate = float(swap_rates.nan_to_num(nan=1.0).min())
    if rate >= _SWAPPED:
        return None
    return (
        f"neighbouring temperatures swap states in {rate:.1%} of the steps only, so the cold "
        "chains hardly profit from the hot ones. Use more n_temperatures (now "
        f"{n_temperatures})."
    )


def _report_range(columns, samples) -> str | None:
    """What to tell of samples whose real columns have left the range of the training rows."""
    place = place_of(samples)
    low, high = (place.tensor(columns.standardized(end)) for end in ("minimum", "maximum"))
    varies = low < high
    if not bool(varies.any()):
        return None
    ends = low[varies], high[varies]
    trouble = outside_of_range(samples[:, varies], *ends, torch.ones_like(ends[0]))
    if trouble is None:
        return None
    return (
        f"{trouble}, where the energy falls without end. Fit with a smaller learning_rate, more "
        "weight_decay or persistent=True, whose chains find such places and raise their energy."
    )


def _given_rows(model, fixed, n_samples) -> Fixed:
    """What is fixed; a ValueError for what cannot be."""
    twin, columns = copy.copy(model), model.columns_
    least, most, grid = columns.minimum.copy(), columns.maximum.copy(), list(columns.grid)
    binary = is_binary(grid)
    for name, own in columns.parts:
        if UNITS[name].domain is not None:
            # A machine knows of all states, also those that no training row was in.
            least[own], most[own] = ends = UNITS[name].domain
            for column in own:
                grid[column] = np.array(ends, dtype=float) if binary[column] else None
    # Of rows with gaps, as of a loss, categories may be unknown.
    twin.columns_ = columns.replaced(
        parameter="loss", minimum=least, maximum=most, grid=tuple(grid)
    )
    given = fixed_rows(twin, fixed)
    rows = given.rows
    if len(rows) > n_samples:
        raise ValueError(
            f"fixed has {len(rows)} rows, more than n_samples={n_samples}: use one for all "
            "samples, or n_samples as many as there are rows."
        )
    is_given = ~np.isnan(rows)
    if is_given.all():
        raise ValueError("fixed gives all columns a value: nothing is left to draw.")
    for name, columns in model.columns_.parts:
        own = is_given[:, columns]
        if UNITS[name].sums_to_one and (own.any(axis=1) & ~own.all(axis=1)).any():
            raise ValueError(
                f"fixed gives values to some of the columns {list(columns)}, which are one "
                "category: fix all of them or none."
            )
    return given


def _clamped(machine, rows) -> ClampedUnits:
    """The visible units of a machine, of which some have the values of rows; NaN is free."""
    others = rows.new_full((len(rows), machine.n_visible - rows.shape[1]), math.nan)
    rows = torch.cat([rows, others], 1)
    return ClampedUnits(machine.units, ~torch.isnan(rows), rows.nan_to_num(0.0))


def _sampler(method, n_temperatures) -> tuple[Callable, list[str]]:
    """The sampler that was asked for, and the settings it takes; a ValueError for what is none."""
    if isinstance(method, str):
        check_choice("method", method, ("auto", *SAMPLERS))
    if method == "auto":
        method = "tempering" if n_temperatures > 1 else "gibbs"
    make = SAMPLERS.get(method, method) if isinstance(method, str) else method
    taken = check_sampler(make)
    if "n_temperatures" not in taken and n_temperatures > 1:
        raise ValueError(
            f"n_temperatures={n_temperatures} is for method='tempering', not for {method!r}."
        )
    return make, taken
