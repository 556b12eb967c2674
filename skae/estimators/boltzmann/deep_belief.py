"""Deep belief networks: stacks of restricted Boltzmann machines as generative models."""

from typing import ClassVar

import numpy as np
import torch

from skae._validation import (
    HasMethods,
    StrOptions,
    check_count,
    check_is_fitted,
    check_number,
    check_rows,
    check_weights,
    computing_dtype,
    make_generator,
)
from skae.engine.boltzmann.deep_belief import sample_downwards, variational_bound
from skae.estimators.boltzmann.rbm import RBM
from skae.estimators.face.parameters import estimator, parameter
from skae.estimators.stacks.auto_encoder import StackedAutoEncoder

# Rows whose draws are made together: small blocks stay in the cache.
_BLOCK = 1000


@estimator
class DeepBeliefNetwork(StackedAutoEncoder):
    r"""Stack of restricted Boltzmann machines as one model of the data's distribution.

    The top machine gives the joint law of its two layers, each machine below it the law of its
    visible units given the hidden ones,

    .. math::

        P(v, h_1, \ldots, h_L) = P_1(v \mid h_1) \, P_2(h_1 \mid h_2) \cdots
        P_L(h_{L-1}, h_L)

    The machines are trained one after the other, each on the codes of the one below. With
    :math:`Q_l(h_l \mid h_{l-1})` the conditional of machine :math:`l`, by which codes are
    computed, and :math:`Q` the product of all but the last, a row's score is the variational
    lower bound

    .. math::

        \log P(v) \ge \mathbb{E}_Q \left[ \sum_{l=1}^{L-1} \log
        \frac{P_l(h_{l-1} \mid h_l)}{Q_l(h_l \mid h_{l-1})} - F_L(h_{L-1}) \right] - \log Z_L,
        \qquad h_0 = v

    where :math:`F_L` is the free energy of the top machine. Use it to draw samples, or to compare
    models of a distribution. For features alone, and to fine-tune them, use
    :class:`StackedAutoEncoder` with ``layer="rbm"``.

    Read more in the :ref:`User Guide <stacks>`.

    Parameters
    ----------
    {parameters}

    Attributes
    ----------
    {attributes}

    See Also
    --------
    RBM : One layer, whose likelihood is known up to its constant.
    StackedAutoEncoder : Layers of any kind, for features.

    References
    ----------
    .. [1] G. Hinton, S. Osindero, Y.-W. Teh. A fast learning algorithm for deep belief nets.
       Neural Computation 18, 2006.
    .. [2] R. Salakhutdinov, I. Murray. On the quantitative analysis of deep belief networks.
       ICML 2008.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import DeepBeliefNetwork
    >>> X = load_digits().data > 7
    >>> network = DeepBeliefNetwork((32, 16), max_iter=20, random_state=0).fit(X)
    >>> network.sample(5).shape
    (5, 64)
    >>> log_partition = network.log_partition_function()
    >>> log_partition.method
    'exact'
    >>> bound = network.score(X, log_partition=log_partition)
    """

    layer: str = parameter(
        default="rbm",
        constraints=[StrOptions({"rbm"}), HasMethods(["fit", "transform"])],
        doc="""{"rbm"} or RBM
        Every layer: an RBM of default parameters, which takes ``batch_size``, ``max_iter``,
        ``device`` and ``verbose`` from the network, or one of which each layer is a copy with its
        number of units, so that ``layer__learning_rate`` is a parameter of all.""",
    )
    layers: list = parameter(
        default=None,
        constraints=[list, tuple, None],
        doc="""list of RBM or None
        The layers themselves, instead of ``layer_sizes`` and ``layer``. All but the first have
        Bernoulli visible units. The parameters of the first are ``layers__0__learning_rate`` and
        the like.""",
    )
    pretraining: str = parameter(
        default="unsupervised",
        constraints=[StrOptions({"unsupervised", "prefit"})],
        doc="""{"unsupervised", "prefit"}
        How the layers are trained:

        - "unsupervised": one after the other, each on the codes of the one below, by its own
          ``fit``;
        - "prefit": ``layers`` are fitted and taken as they are. To survive `clone`, as in a grid
          search, wrap each in :class:`sklearn.frozen.FrozenEstimator`.""",
    )

    # Nothing is supervised, and the whole is not trained: the layers have these parameters.
    supervision: ClassVar[float]
    fine_tuning: ClassVar[bool]
    code_activation: ClassVar[str]
    learning_rate: ClassVar[float]
    learning_rate_schedule: ClassVar[str]
    optimizer: ClassVar[str]
    momentum: ClassVar[float]
    tol: ClassVar[float]
    n_iter_no_change: ClassVar[int]
    early_stopping: ClassVar[bool]
    validation_fraction: ClassVar[float]

    _attributes_doc = """
    layers_ : list of RBM
        The fitted machines, from the data upwards.
    layer_loss_curves_ : list of list of float
        Negative pseudo-log-likelihood of each machine after each epoch, in nats per row.
    n_iter_ : int
        Epochs of all machines.
    weights_ : dict of str to ndarray
        All learned parameters, those of layer 0 as ``"0.weight_0"`` and the like.
    columns_ : Columns
        Units, shift, scale, mean and range of the data's columns; the lowest machine sees
        (x - columns_.shift) / columns_.scale.
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, where X had string names.
    loss_curve_ : list of float
        Empty, since nothing is trained as a whole. See ``layer_loss_curves_``.
    validation_curve_ : list of float
        Likewise.
    stopping_reason_ : str
        Why the training of the top machine ended: "max_iter", "converged" or "interrupted".
    device_ : str
        Where it was trained.
    """

    def fit(self, X, y=None, sample_weight=None):
        """Train the machines, one after the other.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Training data.
        y : Ignored
            Not used, present for API consistency.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows; a row of weight 0 is left out.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            Before any layer is trained: if a parameter is out of its range, layers are not
            machines that fit each other, or X is not what it should be.
        """
        return super().fit(X, y, sample_weight)

    def partial_fit(self, X, y=None, sample_weight=None):
        """Continue learning with one pass over the rows of X for every machine in turn.

        Each continues on the codes of those below as they are then.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Training data.
        y : Ignored
            Not used, present for API consistency.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.

        Returns
        -------
        self : object
            The fitted estimator.
        """
        return super().partial_fit(X, y, sample_weight)

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
        device = self._usable_device()
        dtype = computing_dtype(bottom.weights_["weight_0"], device)
        machines = self._machines(self._fitted_parameters(dtype, device))
        seed = self.random_state if random_state is None else random_state
        generator = make_generator(seed, device)
        if init is not None:
            init = self._checked(init)
            init = self._codes_below(init, len(machines) - 1) if len(machines) > 1 else init
        states = top.sample(
            n_samples,
            n_steps=n_steps,
            burn_in=burn_in,
            init=init,
            n_chains=n_chains,
            n_temperatures=n_temperatures,
            random_state=int(torch.randint(2**31, (), generator=generator, device=device)),
        )
        units = self.columns_.units(device)
        samples = np.empty((n_samples, self.n_features_in_), bottom.weights_["weight_0"].dtype)
        with bottom._sampling(machines[0], n_samples, show=False):
            for start, block in top._rows(states, machines[-1]).blocks():
                visible = sample_downwards(machines, block, units, generator, return_means)
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
        X = self._checked(X)
        if log_partition is None:
            log_partition = self._kept_log_partition()
        value = check_number("log_partition", getattr(log_partition, "value", log_partition))

        def bounds(theta, x):
            machines, units = self._machines(theta), self.columns_.units(x.device)
            generator = torch.Generator(x.device)
            # The same random numbers for every block of rows, and at every call.
            return torch.cat(
                [
                    variational_bound(machines, rows, units, generator.manual_seed(0), n_draws)
                    for rows in x.split(_BLOCK)
                ]
            )

        # That of the top machine is a part of its log Z.
        log_volume = sum(layer._log_volume for layer in self.layers_[:-1])
        return self._map_rows(X, bounds, (), standardize=True) - log_volume - value

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

    def _check_layers(self, layers):
        for number, layer in enumerate(layers):
            if not isinstance(layer, RBM):
                raise ValueError(
                    f"Layer {number} is {layer!r}, but a DeepBeliefNetwork is made of RBMs. Use "
                    "StackedAutoEncoder for other layers."
                )
            if number > 0 and "gaussian" in (layer.visible, *_fitted_units(layer)):
                raise ValueError(
                    f"Layer {number} has Gaussian visible units, but those are the hidden units of "
                    f"layer {number - 1}, which are binary. Use visible='bernoulli'."
                )
        super()._check_layers(layers)

    def _checked(self, X):
        X = check_rows(self, X, reset=False)
        self.columns_.check(X, self._feature_names)
        return X

    def _machines(self, theta):
        """The parameters of every layer, as views of the whole's."""
        return [theta.part(f"{number}.") for number in range(len(self.layers_))]

    def _kept_log_partition(self):
        """Log Z of the top machine as it is now, computed once."""
        weights = self.layers_[-1].weights_
        kept_for, kept = self.__dict__.get("_log_partition", (None, None))
        if kept_for is not weights:
            kept = self.log_partition_function()
            self._log_partition = weights, kept
        return kept


def _fitted_units(layer):
    return [name for name, _ in layer.columns_.parts] if hasattr(layer, "columns_") else []
