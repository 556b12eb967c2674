"""Sampling from Boltzmann machines, and their partition functions."""

import contextlib
import math
from typing import NamedTuple

import numpy as np
import torch

from skae._validation import (
    check_choice,
    check_count,
    check_is_fitted,
    computing_dtype,
    make_generator,
)
from skae.engine.boltzmann.chains import Schedule, gibbs_state, gibbs_step, run_chains
from skae.engine.boltzmann.energies import MAX_ENUMERATED, enumerable_units, log_partition
from skae.engine.boltzmann.tempering import (
    TemperedPath,
    annealed_importance_sampling,
    annealing_temperatures,
    parallel_tempering_step,
)
from skae.engine.optimisation.devices import require_memory, suitable_threads
from skae.engine.optimisation.parameters import Parameters
from skae.engine.optimisation.rows import make_rows
from skae.estimators.face.outcomes import report_annealing, report_frozen_chains, report_swaps
from skae.estimators.face.progress import StepLine

_CPU = torch.device("cpu")
# After fewer steps than this, nothing can be told of how chains move.
_TIME_TO_MOVE = 20


class LogPartition(NamedTuple):
    """log Z of a Boltzmann machine, in nats.

    Attributes
    ----------
    value : float
        log of the sum (for Gaussian units: integral in the units of the data) of
        exp(-F(x)) over all x.
    standard_error : float
        0 where it is exact.
    method : str
        "exact" or "ais".
    """

    value: float
    standard_error: float
    method: str


class BoltzmannSampling:
    """Methods that run chains of a fitted machine.

    For a `TrainedTransformer` whose parameters are a machine's. The subclass adds
    ``_checked`` (rows of the user, in the units' domain), ``_base_bias`` and ``_log_volume``.
    """

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
        theta, units = self._machine()
        generator = make_generator(random_state, theta.flat.device)
        step = gibbs_step(theta, units, generator)
        schedule = Schedule(burn_in=n_steps)
        result = np.empty(X.shape, dtype=self.weights_["weight_0"].dtype)
        with self._sampling(theta, X.shape[0], show=False):
            for start, visible in self._rows(X, theta).blocks():
                state = gibbs_state(theta, visible, generator)
                run = run_chains(step, state, schedule, keep=_visible)
                result[start : start + len(visible)] = self._in_data_units(run.samples[0])
        return result

    def sample(
        self,
        n_samples=1,
        *,
        n_steps=10,
        burn_in=1000,
        init=None,
        n_chains=None,
        n_temperatures=1,
        random_state=None,
    ):
        """Draw rows from the model's distribution by Gibbs sampling.

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
        random_state : int, RandomState instance or None, default=None
            None: the estimator's own, so that two calls return the same rows.

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
        start = None if init is None else self._checked(init)
        if n_chains is None:
            n_chains = min(n_samples, 100) if start is None else min(n_samples, start.shape[0])
        check_count("n_chains", n_chains, 1)

        theta, units = self._machine()
        generator = self._seeded(random_state, theta)
        path = TemperedPath(theta, units, self._base_bias(theta))
        schedule = Schedule(math.ceil(n_samples / n_chains), burn_in, n_steps)
        # The state, its hidden units, and a few temporaries of their size; what is kept.
        n_rows = 6 * n_chains * n_temperatures + 2 * n_chains * schedule.n_samples
        self._require_room(n_rows, theta, "Sampling", "n_samples, n_chains or n_temperatures")
        with self._sampling(theta, n_chains * n_temperatures) as listener:
            if start is None:
                visible = path.start(n_chains, generator)
            else:
                every = torch.arange(n_chains, device=theta.flat.device) % start.shape[0]
                visible = self._rows(start, theta).take(every).clone()
            if n_chains == 1:
                # A companion, thrown away: two chains that never move, in different states,
                # are stuck; one alone may be where the only state is.
                visible = torch.cat([visible, path.start(1, generator)])
            if n_temperatures == 1:
                state = gibbs_state(theta, visible, generator)
                step, keep = gibbs_step(theta, units, generator), _visible
                # Gaussian units move at every step, whether or not the chain does.
                watch = _visible if units.is_discrete else _hidden
            else:
                betas = torch.linspace(1, 0, n_temperatures).to(visible)
                state = (visible.unsqueeze(1).repeat(1, n_temperatures, 1),)
                step, keep, watch = parallel_tempering_step(path, betas, generator), _coldest, None
            run = run_chains(step, state, schedule, keep=keep, watch=watch, listener=listener)
        if schedule.n_steps >= _TIME_TO_MOVE and n_temperatures == 1:
            report_frozen_chains(self, ~run.moved, watch(run.state), "chains", n_chains)
        elif schedule.n_steps >= _TIME_TO_MOVE:
            report_swaps(self, step.swap_rates(), n_temperatures)
        samples = run.samples[:, :n_chains].flatten(0, 1)
        return self._in_data_units(samples[:n_samples])

    def log_partition_function(
        self, method="auto", *, n_chains=100, n_temperatures=10_000, random_state=None
    ):
        """Log Z, exactly or by annealed importance sampling.

        Parameters
        ----------
        method : {"auto", "exact", "ais"}, default="auto"
            "exact" enumerates the smaller layer (with Gaussian units: the hidden one),
            which may have 20 units. "auto" does so where it can.
        n_chains : int, default=100
            Chains of annealed importance sampling.
        n_temperatures : int, default=10000
            Steps of each from independent units to the machine. More make the standard
            error smaller, and honest.
        random_state : int, RandomState instance or None, default=None
            Of the chains. None: the estimator's own.

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
        units = self.columns_.units(_CPU)
        exact = Parameters.from_numpy(self.weights_, dtype=torch.float64, device=_CPU)
        n_enumerated = enumerable_units(exact, units)
        if method == "exact" and n_enumerated > MAX_ENUMERATED:
            layer = "the smaller layer" if units.is_discrete else "the hidden layer"
            raise ValueError(
                f"Exact log Z enumerates all 2^n states of {layer}, which has n={n_enumerated} "
                f"units; at most {MAX_ENUMERATED} are possible. Use method='ais'."
            )
        if method != "ais" and n_enumerated <= MAX_ENUMERATED:
            with torch.inference_mode():
                value = float(log_partition(exact, units))
            return LogPartition(value + self._log_volume, 0.0, "exact")

        theta, units = self._machine()
        generator = self._seeded(random_state, theta)
        path = TemperedPath(theta, units, self._base_bias(theta))
        betas = annealing_temperatures(n_temperatures)
        self._require_room(6 * n_chains, theta, "Annealing", "n_chains")
        with self._sampling(theta, n_chains) as listener:
            estimate = annealed_importance_sampling(path, betas, n_chains, generator, listener)
        report_annealing(self, estimate, n_chains, n_temperatures)
        value = estimate.log_partition + self._log_volume
        return LogPartition(value, estimate.standard_error, "ais")

    def _machine(self):
        """The fitted parameters on the device, in their own precision, and the visible units."""
        device = self._usable_device()
        dtype = computing_dtype(self.weights_["weight_0"], device)
        return self._fitted_parameters(dtype, device), self.columns_.units(device)

    def _require_room(self, n_rows, theta, purpose, remedy):
        n_units = sum(theta["weight_0"].shape)
        n_bytes = n_rows * n_units * theta.flat.element_size()
        require_memory(n_bytes, theta.flat.device, purpose, f"Use a smaller {remedy}.")

    def _seeded(self, random_state, theta):
        seed = self.random_state if random_state is None else random_state
        return make_generator(seed, theta.flat.device)

    @contextlib.contextmanager
    def _sampling(self, theta, n_chains, show=True):
        """The setting in which chains run; gives the listener that shows their progress."""
        line = StepLine(type(self).__name__)
        threads = suitable_threads(theta.flat.device, n_chains * theta["weight_0"].numel())
        with torch.inference_mode(), threads:
            try:
                yield line if show and self.verbose else None
            finally:
                line.finish()

    def _rows(self, X, theta):
        dtype, device = theta.flat.dtype, theta.flat.device
        shift_and_scale = self.columns_.standardization(dtype, device)
        return make_rows(X, *shift_and_scale, dtype=dtype, device=device)

    def _in_data_units(self, visible):
        samples = visible.cpu().numpy()
        if self.columns_.is_standardized:
            samples = samples * self.columns_.scale.astype(samples.dtype)
            samples += self.columns_.shift.astype(samples.dtype)
        return samples


def _visible(state):
    return state[0]


def _hidden(state):
    return state[1]


def _coldest(state):
    return state[0][:, 0]
