"""Likelihoods of Boltzmann machines: exact, annealed, along the training, and backwards."""

import math
from typing import NamedTuple

import numpy as np
import torch

from skae._validation import check_choice, check_count, check_is_fitted, make_generator
from skae.engine.boltzmann.energies import MAX_ENUMERATED
from skae.engine.boltzmann.samplers import (
    annealed_importance_sampling,
    annealing_temperatures,
    reverse_annealing,
)
from skae.engine.boltzmann.trajectories import (
    TrajectoryPath,
    checkpoint_machines,
    evenly_spaced,
)
from skae.engine.optimisation.devices import Place, place_of
from skae.estimators.boltzmann.machines import (
    base_bias,
    checkpoints_of,
    machine_of,
    require_room,
    rows_of,
    sampling,
    whole,
)
from skae.estimators.face.densities import LogPartition, annealed_log_partition, log_volume

_EXACT = Place(torch.float64, torch.device("cpu"))
# Chains of reverse annealing that run side by side.
_CHAINS = 1000


def log_partition_function(
    self, method="auto", *, n_chains=100, n_temperatures=10_000, random_state=None
):
    """Log Z, exactly or by annealed importance sampling.

    Parameters
    ----------
    method : {"auto", "exact", "ais", "trajectory"}, default="auto"
        - "exact" enumerates the smaller layer (the hidden one, unless all visible units are
          binary), which may have 20 units;
        - "ais" anneals from independent units to the machine by temperatures;
        - "trajectory" anneals along the machine's own training, which has to have kept checkpoints
          (``n_checkpoints``): where temperatures lose the modes, all but few of the chains count;
        - "auto" is the first where it is possible, else the second.
    n_chains : int, default=100
        Chains of annealed importance sampling.
    n_temperatures : int, default=10000
        Steps of each from independent units to the machine. More make the standard
        error smaller, and honest.

    Returns
    -------
    log_partition : LogPartition
        ``value``, ``standard_error``, ``method`` and ``effective_chains``.

    Raises
    ------
    ValueError
        If too many units would have to be enumerated, or training has kept no checkpoints.

    Warns
    -----
    ConvergenceWarning
        If few of the chains carry the estimate.

    References
    ----------
    .. [1] R. Salakhutdinov, I. Murray. On the quantitative analysis of deep belief
       networks. ICML 2008.
    .. [2] N. Bereux, A. Decelle, C. Furtlehner, L. Rosset, B. Seoane. Fast training and sampling of
       restricted Boltzmann machines. arXiv 2405.15376, 2024.
    """
    check_is_fitted(self)
    check_choice("method", method, ("auto", "exact", *_PATHS))
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
    if method not in _PATHS and n_enumerated <= MAX_ENUMERATED:
        with torch.inference_mode():
            return LogPartition(float(exact.log_partition()) + volume, 0.0, "exact")

    machine, name = machine_of(self), type(self).__name__
    method = "ais" if method == "auto" else method
    generator = _generator(self, machine, random_state)
    require_room(6 * n_chains, machine, "Annealing", "n_chains")
    with sampling(name, machine, n_chains, shows=bool(self.verbose)) as listener:
        path, betas = _PATHS[method](self, machine, n_temperatures, generator)
        estimate = annealed_importance_sampling(path, betas, n_chains, generator, listener)
    return annealed_log_partition(name, estimate, n_chains, n_temperatures, volume, method=method)


class AnnealedLikelihood(NamedTuple):
    """Log-likelihoods by reverse annealing.

    Attributes
    ----------
    scores : ndarray of shape (n_samples,)
        Of each row, in nats.
    effective_chains : ndarray of shape (n_samples,)
        (sum w)^2 / sum w^2 of the weights of each row's chains: how many carry it.
    """

    scores: np.ndarray
    effective_chains: np.ndarray


def annealed_likelihood(
    self, X, *, n_chains=10, n_temperatures=1000, method="ais", random_state=None
):
    r"""Log-likelihood of rows by reverse annealing, which errs to the low side.

    Chains that anneal from independent units to the machine in ``n_temperatures`` steps end in
    rows of a law :math:`P_a` near the machine's. For each row of X, chains that go the same steps
    backwards, from it to independent units, tell how likely the others were to come there:

    .. math:: P_a(x) = \mathbb{E} \left[ \frac{e^{-F(x_K)}}{Z_0} \prod_{k<K}
        \frac{e^{-F_k(x_k)}}{e^{-F_{k+1}(x_k)}} \right], \qquad x_K = x

    The logarithm of a mean over chains is, in expectation, no more than :math:`\log P_a(x)`. No
    :math:`\log Z` is needed. Where `score_samples` rests on one that is estimated too low, as
    annealing does if it misses modes, scores are too high; these are then too low, so that the
    truth lies between the two. More temperatures, and more chains, close the gap.

    Parameters
    ----------
    X : {array-like, sparse matrix} of shape (n_samples, n_features)
        Rows. Each costs as much as ``n_chains`` chains of annealing.
    n_chains : int, default=10
        Chains for each row.
    n_temperatures : int, default=1000
        Steps of each.
    method : {"ais", "trajectory"}, default="ais"
        The path, see `log_partition_function`.

    Returns
    -------
    likelihood : AnnealedLikelihood
        ``scores`` of the rows, as of `score_samples`, and ``effective_chains``.

    Raises
    ------
    ValueError
        If training has kept no checkpoints that ``method="trajectory"`` needs.

    Notes
    -----
    Annealing ends in the law of the machine only as steps grow in number: the mean over rows of the
    data may lie above the machine's own if these are likelier under :math:`P_a`, which is rare.

    References
    ----------
    .. [1] Y. Burda, R. Grosse, R. Salakhutdinov. Accurate and conservative estimates of MRF
       log-likelihood using reverse annealing. AISTATS 2015.
    """
    remedy = "The bound of score_samples is of what is observed."
    X = whole(self._checked(X), "reverse annealing is of", remedy)
    check_choice("method", method, tuple(_PATHS))
    check_count("n_chains", n_chains, 1)
    check_count("n_temperatures", n_temperatures, 4)
    machine, name = machine_of(self), type(self).__name__
    generator = _generator(self, machine, random_state)
    rows = rows_of(self, X, place_of(machine.theta.flat))
    n_rows, shown = max(1, _CHAINS // n_chains), bool(self.verbose)
    require_room(6 * n_rows * n_chains, machine, "Annealing", "n_chains")
    log_weight = []
    with sampling(name, machine, n_rows * n_chains, shows=shown) as listener:
        path, betas = _PATHS[method](self, machine, n_temperatures, generator)
        for some in torch.arange(X.shape[0]).split(n_rows):
            x = rows.take(some.to(generator.device)).repeat_interleave(n_chains, 0)
            visible, log_draw = machine.drawn(x, generator)
            weight = reverse_annealing(path, betas, visible, generator, listener)
            log_weight.append((weight - log_draw).view(len(some), n_chains))
    # Of a row whose energy overflows, the difference of two infinities: its density is 0.
    impossible = {"nan": -math.inf, "posinf": math.inf, "neginf": -math.inf}
    log_weight = torch.cat(log_weight).double().nan_to_num(**impossible)
    log_sum = torch.logsumexp(log_weight, 1)
    effective = torch.exp(2 * log_sum - torch.logsumexp(2 * log_weight, 1))
    effective = effective.nan_to_num(nan=0.0).cpu().numpy()
    scores = (log_sum - math.log(n_chains)).cpu().numpy() - log_volume(self.columns_)
    return AnnealedLikelihood(scores + self._log_derivative(X), effective)


def _temperatures(model, machine, n_temperatures, generator):
    """The path from independent units to the machine, and the temperatures on it."""
    bias = machine.widened(base_bias(model.columns_, place_of(machine.theta.flat)))
    return machine.tempered(bias), annealing_temperatures(n_temperatures)


def _trajectory(model, machine, n_temperatures, generator):
    """The path along the training, and places on it between which laws differ equally."""
    bias = machine.widened(base_bias(model.columns_, place_of(machine.theta.flat)))
    checkpoints = checkpoints_of(model, machine, "method='trajectory'")
    path = TrajectoryPath(checkpoint_machines(machine, checkpoints), bias)
    n_pilot = max(2 * len(checkpoints), n_temperatures // 10)
    return path, evenly_spaced(path, n_temperatures, generator, n_pilot)


# From independent units to a machine, by the names that users know.
_PATHS = {"ais": _temperatures, "trajectory": _trajectory}


def _generator(model, machine, random_state):
    seed = model.random_state if random_state is None else random_state
    return make_generator(seed, machine.theta.flat.device)
