"""What an auto-encoder says of the density at rows: score, local moments, energy."""

from typing import NamedTuple

import numpy as np
import torch

from skae._validation import (
    check_choice,
    check_count,
    check_is_fitted,
    check_number,
    make_generator,
)
from skae.engine.boltzmann.samplers import annealed_importance_sampling, annealing_temperatures
from skae.engine.density.denoisers import Denoiser
from skae.engine.density.energies import (
    MAX_GRID,
    Energy,
    EnergyPath,
    grid_points,
    log_partition_on_grid,
)
from skae.engine.density.likelihoods import transition_log_likelihood
from skae.engine.optimisation.devices import Place, place_of, require_memory
from skae.engine.optimisation.models import FittedModel
from skae.estimators.density.models import denoiser_of, level_of, reachable, spread_of
from skae.estimators.density.sampling import Request, chain_states, one_level
from skae.estimators.face.densities import LogPartition, annealed_log_partition, log_volume
from skae.estimators.face.parts import maps_batches
from skae.estimators.face.progress import StepLine
from skae.estimators.face.training import usable_place
from skae.estimators.face.transformer import Transformer

_EXACT = Place(torch.float64, torch.device("cpu"))
# Columns up to which covariances are arrays.
_DENSE = 1000


class LocalMoments(NamedTuple):
    """Mean and covariance of the clean row given rows that have noise.

    Attributes
    ----------
    mean : ndarray of shape (n_samples, n_features)
        E[x | noisy x], the reconstruction.
    covariance : ndarray of shape (n_samples, n_features, n_features)
        Cov[x | noisy x], the Jacobian of the reconstruction times the noise's variance, made
        symmetric.
    """

    mean: np.ndarray
    covariance: np.ndarray


def score_field(self, X, *, noise=None):
    r"""The score of the density at rows, :math:`\partial \log p(x) / \partial x`.

    .. math:: \frac{r(x) - x}{\sigma^2}

    where p is the density of the data with Gaussian noise of standard deviation :math:`\sigma`
    (Vincent 2011; Alain & Bengio 2014).

    Parameters
    ----------
    X : {array-like, sparse matrix} of shape (n_samples, n_features)
        Rows, clean or noisy.
    noise : float, default=None
        The noise's standard deviation, in units of the columns as standardised. None: that of
        training, the corruption's or, of a contraction of the reconstruction,
        ``sqrt(2 * contraction)``.

    Returns
    -------
    score : ndarray of shape (n_samples, n_columns)
        Per unit of the data's columns; of a table with categories, of its columns as encoded.

    Raises
    ------
    ValueError
        If the model was trained on no Gaussian noise, and no other is given.
    """
    X = self._checked(X)
    denoiser = _gaussian_denoiser(self, usable_place(self, X), noise, "score_field")
    fitted = FittedModel(denoiser.model, denoiser.theta)
    score = fitted.map_rows(denoiser.score, X, (denoiser.model.n_features,))
    return score / self.columns_.scale.astype(score.dtype)


def local_moments(self, X, *, noise=None, directions=None):
    r"""Mean and covariance of the density around rows, as the noise of training sees them.

    .. math:: E[x \mid \tilde x] = r(\tilde x), \qquad
        \mathrm{Cov}[x \mid \tilde x] = \sigma^2 \, \frac{\partial r(\tilde x)}{\partial \tilde x}

    Parameters
    ----------
    X : {array-like, sparse matrix} of shape (n_samples, n_features)
        Rows.
    noise : float, default=None
        See :meth:`score_field`.
    directions : array-like of shape (n_directions, n_columns), default=None
        Where there are many columns: the covariance is returned as its products with these.

    Returns
    -------
    moments : LocalMoments
        ``mean`` of shape (n_samples, n_columns) and ``covariance``, of shape (n_samples,
        n_columns, n_columns) or, with ``directions``, (n_samples, n_directions, n_columns), in the
        units of the data; of a table with categories, of its columns as encoded.

    Raises
    ------
    ValueError
        If the model was trained on no Gaussian noise, and no other is given; if covariances of
        more than 1000 columns are asked for without ``directions``.
    """
    X = self._checked(X)
    denoiser = _gaussian_denoiser(self, usable_place(self, X), noise, "local_moments")
    place, n = place_of(denoiser.theta.flat), denoiser.model.n_features
    scale = self.columns_.scale
    if directions is None:
        if n > _DENSE:
            raise ValueError(
                f"The covariance has {n} x {n} numbers for each row. Pass directions: what it is "
                "times these is returned then."
            )
        rows = n
    else:
        directions = np.atleast_2d(np.asarray(directions, dtype=np.float64))
        if directions.ndim != 2 or directions.shape[1] != n:
            raise ValueError(f"directions has shape {directions.shape}, but rows have {n} columns.")
        rows, vectors = len(directions), place.tensor(directions * scale)
    n_bytes = X.shape[0] * rows * n * place.dtype.itemsize
    remedy = "Pass fewer rows, or directions."
    require_memory(n_bytes, place.device, "The covariances", remedy)

    def covariance(x):
        found = denoiser.covariance(x)
        return found.dense() if directions is None else found.times(vectors.expand(len(x), -1, -1))

    fitted = FittedModel(denoiser.model, denoiser.theta)
    mean = fitted.map_rows(denoiser.reconstruct, X, (n,))
    product = fitted.map_rows(covariance, X, (rows, n))
    product *= scale.astype(product.dtype)
    if directions is None:
        product *= scale.astype(product.dtype)[:, None]
    return LocalMoments(self.columns_.in_data_units(mean), product)


def energy(self, X, *, noise=None):
    r"""Energy of each row, whose gradient is :math:`(x - r(x)) / \sigma^2`.

    With one layer, tied weights and real outputs it is

    .. math:: E(x) = \frac{1}{\sigma^2} \left( \tfrac{1}{2} |x|^2 - c \cdot x
        - \sum_j S(W_j x + b_j) \right), \qquad S' = s

    and with ``parametrization="energy"``, of any number of layers,
    :math:`|x - r_0(x)|^2 / (2 \sigma^2)`.

    Parameters
    ----------
    X : {array-like, sparse matrix} of shape (n_samples, n_features)
        Rows.
    noise : float, default=None
        See :meth:`score_field`.

    Returns
    -------
    energies : ndarray of shape (n_samples,)
        In nats; lower is more probable: :math:`\log p(x) = -E(x) - \log Z`, see
        :meth:`log_partition_function`.

    Raises
    ------
    ValueError
        If the reconstruction is the gradient of no energy; the message says what would be.
    """
    X = self._checked(X)
    denoiser = _gaussian_denoiser(self, usable_place(self, X), noise, "energy")
    found = _energy_of(self, denoiser)
    fitted = FittedModel(denoiser.model, denoiser.theta)
    return fitted.map_rows(found, X) - self._log_derivative(X)


def log_partition_function(
    self, method="auto", *, noise=None, n_chains=100, n_temperatures=1000, random_state=None
):
    """Log Z of the energy, on a grid or by annealed importance sampling.

    Parameters
    ----------
    method : {"auto", "grid", "ais"}, default="auto"
        "grid" sums over a grid, exactly for all purposes, which takes few columns: two, or three
        where noise is not small. "ais" anneals chains from independent normal columns to the
        energy. "auto" takes the grid where it can.
    noise : float, default=None
        See :meth:`score_field`.
    n_chains : int, default=100
        Chains of annealed importance sampling.
    n_temperatures : int, default=1000
        Steps of each from independent columns to the energy. More make the standard error
        smaller, and honest.

    Returns
    -------
    log_partition : LogPartition
        ``value``, ``standard_error`` and ``method``.

    Raises
    ------
    ValueError
        If the reconstruction is the gradient of no energy, or the energy has no finite integral.
    """
    check_is_fitted(self)
    check_choice("method", method, ("auto", "grid", "ais"))
    check_count("n_chains", n_chains, 2)
    check_count("n_temperatures", n_temperatures, 4)
    volume = log_volume(self.columns_)
    exact = _gaussian_denoiser(self, _EXACT, noise, "log_partition_function")
    found = _energy_of(self, exact)
    spread = found.variance**0.5
    low, high = (_EXACT.tensor(self.columns_.standardized(e)) for e in ("minimum", "maximum"))
    low, high = low - 6 * spread, high + 6 * spread
    # The grid may have to grow once or twice.
    fits = grid_points(low, high, spread / 4) <= MAX_GRID / 4
    if method == "grid" or (method == "auto" and fits):
        with torch.inference_mode():
            value = log_partition_on_grid(found, low, high, spread)
        return LogPartition(value + volume, 0.0, "grid")

    denoiser = _gaussian_denoiser(self, None, noise, "log_partition_function")
    place = place_of(denoiser.theta.flat)
    seed = self.random_state if random_state is None else random_state
    generator = make_generator(seed, place.device)
    mean, spread = spread_of(self, place)
    path = EnergyPath(_energy_of(self, denoiser), mean, spread**2 + found.variance)
    betas = annealing_temperatures(n_temperatures)
    line = StepLine(type(self).__name__)
    listener = line if self.verbose else None
    with torch.inference_mode():
        try:
            estimate = annealed_importance_sampling(path, betas, n_chains, generator, listener)
        finally:
            line.finish()
    more = (
        "; where that does not help, the energy has no finite integral, which bounded hidden units "
        "(activation='sigmoid' or 'tanh') ensure"
    )
    name = type(self).__name__
    return annealed_log_partition(name, estimate, n_chains, n_temperatures, volume, more)


@maps_batches
def score_samples(self, X, *, log_partition=None, noise=None):
    """Log-density of each row where log Z is given, else log P(x | r(x)).

    Parameters
    ----------
    X : {array-like, sparse matrix} of shape (n_samples, n_features)
        Data.
    log_partition : LogPartition or float, default=None
        What :meth:`log_partition_function` returned, or its value. None: the log-likelihood of each
        row given its reconstruction.
    noise : float, default=None
        With ``log_partition``, see :meth:`score_field`.

    Returns
    -------
    scores : ndarray of shape (n_samples,)
        In nats; higher is better. log p(x) = -E(x) - log Z; or log P(x | r(x)), without corruption
        and without penalties, and of what was observed of the row alone.
    """
    if log_partition is None:
        return Transformer.score_samples(self, X)
    value = getattr(log_partition, "value", log_partition)
    return -self.energy(X, noise=noise) - check_number("log_partition", value)


def chain_log_likelihood(self, X, *, n_states=1000, burn_in=200, noise=None, random_state=None):
    r"""Log-likelihood of each row under the law of the chain "denoising", from below.

    .. math:: \log \frac1m \sum_{k=1}^m P(x \mid r(\tilde s_k)), \qquad
        \tilde s_k \text{ the corrupted states of the chain}

    The chain's law is the mixture over all its states of what it may draw next; the mean over
    finitely many is a bound that grows with their number. No width has to be chosen.

    Parameters
    ----------
    X : {array-like, sparse matrix} of shape (n_samples, n_features)
        Rows without gaps.
    n_states : int, default=1000
        States of the chain, m.
    burn_in : int, default=200
        Steps before the first of them, see :meth:`sample`.
    noise : float, default=None
        Another level of the corruption than that of training.

    Returns
    -------
    scores : ndarray of shape (n_samples,)
        In nats; for columns of real numbers, log-densities in the units of the data.

    Raises
    ------
    ValueError
        If the model was trained without corruption.

    References
    ----------
    .. [1] Y. Bengio, L. Yao, K. Cho. Bounding the test log-likelihood of generative models. 2013.
    """
    X = self._checked(X)
    check_count("n_states", n_states, 1)
    request = Request("denoising", noise, burn_in=burn_in)
    states, _ = chain_states(self, n_states, request, random_state)
    level = {} if noise is None else {"level": noise}
    denoiser = denoiser_of(self, usable_place(self, X), **level)
    place = place_of(denoiser.theta.flat)
    seed = self.random_state if random_state is None else random_state
    generator = make_generator(seed, place.device)
    corrupted, _ = denoiser.corrupt(place.tensor(states), generator)  # type: ignore[misc]
    output = denoiser.model.reconstruct(denoiser.theta, corrupted)

    def scores(x):
        if bool(torch.isnan(x).any()):
            raise ValueError("X has gaps: the likelihood is of whole rows.")
        return transition_log_likelihood(denoiser, x, output)

    volume = float(np.log(self.columns_.scale[~denoiser.is_drawn.cpu().numpy()]).sum())
    fitted = FittedModel(denoiser.model, denoiser.theta)
    return fitted.map_rows(scores, X, gaps=True) - volume + self._log_derivative(X)


def _gaussian_denoiser(model, place, noise, purpose) -> Denoiser:
    """The denoiser for a level of Gaussian noise; a ValueError where none is known."""
    denoiser = denoiser_of(model, place)
    if noise is not None:
        return denoiser.at(reachable(check_number("noise", noise)))
    level = level_of(model)
    if level is None:
        raise ValueError(
            f"{purpose} needs the level of the Gaussian noise that the reconstruction removes, "
            f"but this {type(model).__name__} was trained on none. Train with "
            "corruption='gaussian' or contraction_target='reconstruction'; noise=... takes the "
            "reconstruction for one that removes such noise."
        )
    return denoiser.at(reachable(one_level(level, denoiser)))


def _energy_of(model, denoiser):
    try:
        return Energy(denoiser)
    except ValueError as error:
        raise ValueError(f"This {type(model).__name__} has no energy: {error}.") from None
