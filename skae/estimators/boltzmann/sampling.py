"""Sampling from Boltzmann machines, and their partition functions."""

import contextlib
import math
from collections.abc import Callable

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning

from skae._validation import check_choice, check_count, check_is_fitted, make_generator
from skae._warnings import warn
from skae.engine.boltzmann.energies import MAX_ENUMERATED, BipartiteMachine
from skae.engine.boltzmann.samplers import (
    SAMPLERS,
    Schedule,
    annealed_importance_sampling,
    annealing_temperatures,
    check_sampler,
    gibbs_state,
    gibbs_step,
    make_chains,
    run_chains,
)
from skae.engine.optimisation.devices import Place, place_of, require_memory, suitable_threads
from skae.engine.optimisation.parameters import Parameters
from skae.engine.optimisation.rows import make_rows
from skae.estimators.face.densities import LogPartition, annealed_log_partition, log_volume
from skae.estimators.face.parameters import document_methods
from skae.estimators.face.progress import StepLine
from skae.estimators.face.training import check_same_weights, usable_place

_EXACT = Place(torch.float64, torch.device("cpu"))
# After fewer steps than this, nothing can be told of how chains move.
_TIME_TO_MOVE = 20
# Temperatures that swap more rarely than this are too far apart.
_SWAPPED = 0.01


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


@document_methods
class BoltzmannSampling:
    """Methods of a `Transformer` whose parameters are a machine's: they run chains of it."""

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
        samples : ndarray of shape (n_samples, n_features)
            In the units of the data.
        """
        X = self._checked(X)
        check_count("n_steps", n_steps, 1)
        machine = machine_of(self)
        generator = make_generator(random_state, machine.theta.flat.device)
        step = gibbs_step(machine, generator)
        result = np.empty(X.shape, dtype=self.components_.dtype)
        with sampling(type(self).__name__, machine, X.shape[0]):
            for start, visible in rows_of(self, X, place_of(machine.theta.flat)).blocks():
                state = gibbs_state(machine, machine.completed(visible), generator)
                schedule = Schedule(burn_in=n_steps)
                run = run_chains(step, state, schedule, keep=lambda s: machine.columns(s[0]))
                result[start : start + len(visible)] = run.samples[0].cpu().numpy()
        return self._decoded(result)

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
        method : {"auto", "gibbs", "tempering"} or callable, default="auto"
            The sampler. "auto": "tempering" if ``n_temperatures`` is more than 1, else "gibbs". Or
            one of your own, a function of a machine and a generator that returns a step, from a
            state (visible units, hidden units) to the next; see `skae.engine.boltzmann.samplers`.

        Returns
        -------
        samples : ndarray of shape (n_samples, n_features)
            In the units of the data. The chains' first samples come first, then their
            second ones, and so on.

        Warns
        -----
        ConvergenceWarning
            If chains never left the states they started in; if neighbouring temperatures
            hardly ever swap states.
        """
        check_is_fitted(self)
        for name, value, least in (
            ("n_samples", n_samples, 1),
            ("n_steps", n_steps, 1),
            ("burn_in", burn_in, 0),
            ("n_temperatures", n_temperatures, 1),
        ):
            check_count(name, value, least)
        make = _sampler(method, n_temperatures)
        start = None if init is None else self._checked(init)
        if n_chains is None:
            n_chains = min(n_samples, 100) if start is None else min(n_samples, start.shape[0])
        check_count("n_chains", n_chains, 1)

        machine, name = machine_of(self), type(self).__name__
        place = place_of(machine.theta.flat)
        seed = self.random_state if random_state is None else random_state
        generator = make_generator(seed, place.device)
        bias = machine.widened(base_bias(self.columns_, place))
        independent = machine.tempered(bias)
        schedule = Schedule(math.ceil(n_samples / n_chains), burn_in, n_steps)
        # The state, its hidden units, and a few temporaries of their size; what is kept.
        n_rows = 6 * n_chains * n_temperatures + 2 * n_chains * schedule.n_samples
        _require_room(n_rows, machine, "Sampling", "n_samples, n_chains or n_temperatures")
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
            settings = {"base_bias": bias, "n_temperatures": n_temperatures}
            chains = make_chains(make, machine, generator, **settings)
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
        if trouble is not None and schedule.n_steps >= _TIME_TO_MOVE:
            warn(f"{name}: {trouble}", ConvergenceWarning)
        samples = run.samples[:, :n_chains].flatten(0, 1)[:n_samples]
        return self._decoded(samples.cpu().numpy())

    def log_partition_function(
        self, method="auto", *, n_chains=100, n_temperatures=10_000, random_state=None
    ):
        """Log Z, exactly or by annealed importance sampling.

        Parameters
        ----------
        method : {"auto", "exact", "ais"}, default="auto"
            "exact" enumerates the smaller layer (the hidden one, unless all visible units are
            binary), which may have 20 units. "auto" does so where it can.
        n_chains : int, default=100
            Chains of annealed importance sampling.
        n_temperatures : int, default=10000
            Steps of each from independent units to the machine. More make the standard
            error smaller, and honest.

        Returns
        -------
        log_partition : LogPartition
            ``value``, ``standard_error`` and ``method``.

        Raises
        ------
        ValueError
            If too many units would have to be enumerated.

        References
        ----------
        .. [1] R. Salakhutdinov, I. Murray. On the quantitative analysis of deep belief
           networks. ICML 2008.
        """
        check_is_fitted(self)
        check_choice("method", method, ("auto", "exact", "ais"))
        check_count("n_chains", n_chains, 2)
        check_count("n_temperatures", n_temperatures, 4)
        exact = machine_of(self, _EXACT)
        n_enumerated, volume = exact.n_enumerated, log_volume(self.columns_)
        if method == "exact" and n_enumerated > MAX_ENUMERATED:
            layer = "the smaller layer" if exact.units.is_binary else "the hidden layer"
            raise ValueError(
                f"Exact log Z enumerates all 2^n states of {layer}, which has n={n_enumerated} "
                f"units; at most {MAX_ENUMERATED} are possible. Use method='ais'."
            )
        if method != "ais" and n_enumerated <= MAX_ENUMERATED:
            with torch.inference_mode():
                return LogPartition(float(exact.log_partition()) + volume, 0.0, "exact")

        machine, name = machine_of(self), type(self).__name__
        place = place_of(machine.theta.flat)
        seed = self.random_state if random_state is None else random_state
        generator = make_generator(seed, place.device)
        path = machine.tempered(machine.widened(base_bias(self.columns_, place)))
        betas = annealing_temperatures(n_temperatures)
        _require_room(6 * n_chains, machine, "Annealing", "n_chains")
        with sampling(name, machine, n_chains, shows=bool(self.verbose)) as listener:
            estimate = annealed_importance_sampling(path, betas, n_chains, generator, listener)
        return annealed_log_partition(name, estimate, n_chains, n_temperatures, volume)


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


def _sampler(method, n_temperatures) -> Callable:
    """The sampler that was asked for; a ValueError for what is none."""
    if isinstance(method, str):
        check_choice("method", method, ("auto", *SAMPLERS))
    if method == "auto":
        method = "tempering" if n_temperatures > 1 else "gibbs"
    make = SAMPLERS.get(method, method) if isinstance(method, str) else method
    if not check_sampler(make) and n_temperatures > 1:
        raise ValueError(
            f"n_temperatures={n_temperatures} is for method='tempering', not for {method!r}."
        )
    return make


def _require_room(n_rows, machine, purpose, remedy):
    flat = machine.theta.flat
    n_bytes = n_rows * (machine.n_visible + machine.n_hidden) * flat.element_size()
    require_memory(n_bytes, flat.device, purpose, f"Use a smaller {remedy}.")
