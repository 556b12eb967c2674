"""Deep belief networks: a stack of restricted Boltzmann machines as a generative model."""

import numpy as np
import torch
from sklearn.base import BaseEstimator

from skae._validation import (
    check_count,
    check_is_fitted,
    check_number,
    check_weights,
    make_generator,
)
from skae.engine.deep_belief import sample_downwards, variational_bound
from skae.engine.parameters import Parameters

# Largest seed that can be handed on.
_MOST = 2**31 - 1


class DeepBeliefNetwork(BaseEstimator):
    random_state = None

    def fit(self, X):
        return self

    def sample(
        self,
        n_samples=1,
        *,
        n_steps=10,
        burn_in=1000,
        init=None,
        n_chains=None,
        n_temperatures=1,
        return_means=False,
        random_state=None,
    ):
        """Draw rows from the model's distribution.

        Gibbs chains run in the top machine; each state of its visible units then goes down
        once through the layers below.

        Parameters
        ----------
        n_samples : int, default=1
            Rows to return.
        n_steps : int, default=10
            Steps of the top machine from one sample of a chain to its next.
        burn_in : int, default=1000
            Steps before a chain's first sample.
        init : {array-like, sparse matrix} of shape (n_chains, n_features), default=None
            Rows at whose codes the chains start. None: draws of independent units that have
            the means of the training data's codes.
        n_chains : int, default=None
            Chains that run side by side. None: one for each row of ``init``, else
            ``n_samples``, but at most 100.
        n_temperatures : int, default=1
            More than 1: parallel tempering of the top machine, see :meth:`RBM.sample`.
        return_means : bool, default=False
            Whether to return means of the visible units given the layer above them instead
            of draws: the same rows without the noise of each column, as images are shown.
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
        bottom, top = self.layers_[0], self.layers_[-1]
        theta, units = bottom._machine()
        seed = self.random_state if random_state is None else random_state
        generator = make_generator(seed, theta.flat.device)
        if init is not None:
            init = self._below_top(bottom._checked(init))
        states = top.sample(
            n_samples,
            n_steps=n_steps,
            burn_in=burn_in,
            init=init,
            n_chains=n_chains,
            n_temperatures=n_temperatures,
            random_state=int(
                torch.randint(_MOST, (), generator=generator, device=generator.device)
            ),
        )
        samples = np.empty((n_samples, bottom.n_features_in_), bottom.weights_["weight_0"].dtype)
        with bottom._sampling(theta, n_samples, show=False):
            thetas = self._machines(theta)
            for start, block in top._rows(states, theta).blocks():
                visible = sample_downwards(thetas, block, units, generator, return_means)
                samples[start : start + len(block)] = bottom._in_data_units(visible)
        return samples

    def log_partition_function(
        self, method="auto", *, n_chains=100, n_temperatures=10_000, random_state=None
    ):
        """Log Z of the top machine, which normalises the whole model.

        Parameters
        ----------
        method : {"auto", "exact", "ais"}, default="auto"
            "exact" enumerates the smaller layer of the top machine, which may have 20 units.
            "auto" does so where it can.
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
        """
        check_is_fitted(self)
        return self.layers_[-1].log_partition_function(
            method,
            n_chains=n_chains,
            n_temperatures=n_temperatures,
            random_state=self.random_state if random_state is None else random_state,
        )

    def score_samples(self, X, *, log_partition=None, n_draws=20):
        """Lower bound on the log-likelihood of each row.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data.
        log_partition : LogPartition or float, default=None
            What `log_partition_function` returned, or its value. None: it is called, with its
            defaults, when a score first needs it, and its value kept; with more than 20
            units in each layer of the top machine, that takes much longer than the scores.
        n_draws : int, default=20
            Draws of the hidden layers over which each row's bound is a mean.

        Returns
        -------
        scores : ndarray of shape (n_samples,)
            In nats; higher is better. For Gaussian units, log-densities in the units of the
            data; for Bernoulli units, probabilities of rows of zeros and ones, and of no
            others. A row's score does not depend on the other rows (in float32, but for
            rounding), and is the same at every call.

        Notes
        -----
        The bound holds for the mean over draws, and for the true log Z. A single layer has no
        bound but its log-likelihood.
        """
        check_is_fitted(self)
        check_count("n_draws", n_draws, 1)
        bottom = self.layers_[0]
        X = bottom._checked(X)
        if log_partition is None:
            log_partition = self._kept_log_partition()
        log_partition = check_number(
            "log_partition", getattr(log_partition, "value", log_partition)
        )

        def bounds(theta, x):
            units = self.columns_.units(x.device)
            # The same random numbers for every block of rows, and at every call.
            generator = torch.Generator(x.device).manual_seed(0)
            return variational_bound(self._machines(theta), x, units, generator, n_draws)

        # That of the top machine is a part of its log Z.
        log_volume = sum(layer._log_volume for layer in self.layers_[:-1])
        return bottom._map_rows(X, bounds, (), standardize=True) - log_volume - log_partition

    def score(self, X, y=None, sample_weight=None, *, log_partition=None):
        """Mean of `score_samples` over the rows of X.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data.
        y : Ignored
            Not used, present for API consistency.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows in the mean.
        log_partition : LogPartition or float, default=None
            What `log_partition_function` returned, or its value; see `score_samples`.

        Returns
        -------
        score : float
            In nats per row; higher is better.
        """
        scores = self.score_samples(X, log_partition=log_partition)
        return float(np.average(scores, weights=check_weights(sample_weight, scores)))

    def _machines(self, theta):
        """The parameters of all layers, given those of the lowest, on its device and in its dtype."""
        return [theta] + [
            Parameters.from_numpy(layer.weights_, dtype=theta.flat.dtype, device=theta.flat.device)
            for layer in self.layers_[1:]
        ]

    def _below_top(self, X):
        """Codes of the last layer but one: what the top machine sees of the rows."""
        for layer in self.layers_[:-1]:
            X = layer._codes(X)
        return X

    def _kept_log_partition(self):
        weights = self.layers_[-1].weights_
        kept_for, kept = self.__dict__.get("_log_partition", (None, None))
        if kept_for is not weights:
            kept = self.log_partition_function()
            self._log_partition = weights, kept
        return kept
