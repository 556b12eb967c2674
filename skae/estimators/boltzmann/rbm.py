"""Restricted Boltzmann machines."""

import math
from numbers import Integral, Real

import numpy as np
import torch

from skae._validation import (
    Interval,
    StrOptions,
    check_is_fitted,
    check_number,
    check_rows,
    check_weights,
)
from skae.engine.boltzmann.energies import free_energy, hidden_input, visible_input
from skae.engine.boltzmann.learning import ContrastiveDivergence
from skae.engine.boltzmann.pseudo_likelihood import pseudo_log_likelihood
from skae.engine.networks.affine_maps import network_decoder, network_encoder
from skae.engine.networks.layers import Network, initialize
from skae.engine.networks.penalties import CodeKL, WeightDecay
from skae.engine.optimisation.parameters import Parameters
from skae.estimators.boltzmann.sampling import BoltzmannSampling
from skae.estimators.face.layers import LayerAttributes
from skae.estimators.face.outcomes import report_frozen_chains
from skae.estimators.face.parameters import estimator, parameter, preset
from skae.estimators.face.training import TrainingParameters
from skae.estimators.face.transformer import TrainedTransformer

# Persistent chains beyond this number cost more than they tell.
_MOST_CHAINS = 1000


@estimator
class RBM(BoltzmannSampling, LayerAttributes, TrainedTransformer):
    r"""Restricted Boltzmann machine with Bernoulli or Gaussian visible units.

    A model of the data's distribution, :math:`P(v) = \sum_h e^{-E(v, h)} / Z`, with binary
    hidden units :math:`h` and the energy

    .. math::

        E(v, h) = -v^T c - h^T b - h^T W v \quad \text{(Bernoulli)}, \qquad
        E(v, h) = \sum_i \frac{(v_i - c_i)^2}{2 s_i^2} - h^T b - \sum_{ij} h_j W_{ji}
        \frac{v_i}{s_i^2} \quad \text{(Gaussian)}

    Its code is :math:`P(h = 1 \mid v)`. It learns by stochastic gradient steps on the
    negative log-likelihood,

    .. math::

        \frac{1}{n} \sum_i F(x_i) - \frac{1}{m} \sum_j F(v_j), \qquad
        F(v) = -\log \sum_h e^{-E(v, h)}

    where the particles :math:`v_j` come from ``n_gibbs_steps`` steps of Gibbs sampling that
    start at the data (contrastive divergence) or, if ``persistent``, go on from where the
    last gradient step left them (stochastic maximum likelihood).

    Read more in the :ref:`User Guide <rbm>`.

    Parameters
    ----------
    {parameters}

    Attributes
    ----------
    {attributes}

    See Also
    --------
    DenoisingAutoEncoder : Learns a reconstruction instead of a distribution.
    sklearn.neural_network.BernoulliRBM : Binary units, persistent chains, one step.

    References
    ----------
    .. [1] G. Hinton. Training products of experts by minimizing contrastive divergence.
       Neural Computation 14, 2002.
    .. [2] T. Tieleman. Training restricted Boltzmann machines using approximations to the
       likelihood gradient. ICML 2008.
    .. [3] K. Cho, A. Ilin, T. Raiko. Improved learning of Gaussian-Bernoulli restricted
       Boltzmann machines. ICANN 2011.
    .. [4] J. Melchior, A. Fischer, L. Wiskott. How to center deep Boltzmann machines.
       Journal of Machine Learning Research 17, 2016.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import RBM
    >>> X = load_digits().data / 16
    >>> rbm = RBM(n_components=16, max_iter=20, random_state=0).fit(X)
    >>> rbm.transform(X).shape
    (1797, 16)
    >>> log_partition = rbm.log_partition_function()
    >>> log_partition.method
    'exact'
    >>> log_likelihood = rbm.score(X > 0.5, log_partition=log_partition)
    """

    n_components: int = parameter(
        default=256,
        constraints=[Interval(Integral, 1, None, closed="left")],
        doc="""int
        Number of binary hidden units.""",
        kw_only=False,
    )
    visible: str = parameter(
        default="auto",
        constraints=[StrOptions({"auto", "bernoulli", "gaussian"})],
        doc="""{"auto", "bernoulli", "gaussian"}
        Visible units:

        - "bernoulli": for values in [0, 1]; what is between counts as a probability;
        - "gaussian": columns standardised by their mean and standard deviation, which
          are estimated in `fit`: a raw table needs no scaler;
        - "auto": "bernoulli" if all data lie in [0, 1], else "gaussian".""",
    )
    visible_variance: str = parameter(
        default="learned",
        constraints=[StrOptions({"learned", "unit"})],
        doc="""{"learned", "unit"}
        Variance of each Gaussian unit given the hidden ones: learned, or as large as the
        column's own.""",
    )
    minimum_variance: float = parameter(
        default=0.3,
        constraints=[Interval(Real, 0, 1, closed="right")],
        doc="""float
        Lower bound of learned variances, as a fraction of the column's own, which bounds
        them from above. Small ones
        fit more closely, and are less stable: a unit's signal grows as its variance
        shrinks.""",
    )
    n_gibbs_steps: int = parameter(
        default=1,
        constraints=[Interval(Integral, 1, None, closed="left")],
        doc="""int
        Gibbs steps for each gradient step: the k of CD-k.""",
    )
    persistent: bool = parameter(
        default=False,
        constraints=["boolean"],
        doc="""bool
        Whether chains, as many as ``batch_size`` but at most 1000, go on from one gradient
        step to the next, or start at the data each time.""",
    )
    centered: bool = parameter(
        default=True,
        constraints=["boolean"],
        doc="""bool
        Whether gradient steps count units from their mean activity, which makes
        training invariant to flipping 0 and 1.""",
    )
    weight_decay: float = parameter(
        default=0.0,
        constraints=[Interval(Real, 0, None, closed="left")],
        doc="""float
        Weight of half the sum of squared weights.""",
    )
    sparsity: float = parameter(
        default=0.0,
        constraints=[Interval(Real, 0, None, closed="left")],
        doc="""float
        Weight of the penalty that draws the mean of each hidden unit, over a batch, to
        ``sparsity_target``.""",
    )
    sparsity_target: float = parameter(
        default=0.05,
        constraints=[Interval(Real, 0, 1, closed="neither")],
        doc="""float
        Mean activity that the penalty aims at.""",
    )
    n_scored_columns: int = parameter(
        default=100,
        constraints=[Interval(Integral, 1, None, closed="left"), None],
        doc="""int or None
        Columns whose terms `score_samples` sums, and scales up to all: always the same,
        drawn once for each number of features. None, or more than there are, takes all:
        the exact pseudo-likelihood.""",
    )

    optimizer: str = preset(TrainingParameters, "optimizer", default="sgd")
    learning_rate: float = preset(TrainingParameters, "learning_rate", default=0.05)
    momentum: float = preset(TrainingParameters, "momentum", default=0.5)
    n_iter_no_change: int = preset(TrainingParameters, "n_iter_no_change", default=None)

    _loss_parameter = "visible"
    _collapse_remedy = (
        "Try a smaller learning_rate, more n_gibbs_steps, less weight_decay or sparsity, or "
        "visible='gaussian'."
    )
    _attributes_doc = """
    components_ : ndarray of shape (n_components, n_features_in_)
        Weights, one filter per row, for (x - columns_.shift) / columns_.scale.
    decoder_components_ : ndarray of shape (n_components, n_features_in_)
        The same: ``components_``.
    intercept_hidden_ : ndarray of shape (n_components,)
        Biases of the hidden units.
    intercept_visible_ : ndarray of shape (n_features_in_,)
        Biases of the visible units: logits, or means in standardised units.
    visible_scale_ : ndarray of shape (n_features_in_,)
        Standard deviations of Gaussian visible units given the hidden ones, in the units
        of the data.""" + TrainedTransformer._attributes_doc.replace(
        """Training objective of each epoch, in nats per row: a mean over the epoch's
        batches, so it includes the epoch's progress.""",
        """Negative pseudo-log-likelihood after each epoch, in nats per row: an estimate
        from one column of each of some 500 rows, the same after every epoch.""",
    )

    def free_energy(self, X):
        """Free energy of each row, F(x) = -log sum_h exp(-E(x, h)), in nats.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data.

        Returns
        -------
        energies : ndarray of shape (n_samples,)
            Lower is more probable: log P(x) = -F(x) - log Z, see
            `log_partition_function`.
        """
        X = self._checked(X)

        def energies(theta, x):
            return free_energy(theta, x, self.columns_.units(x.device))

        return self._map_rows(X, energies, (), standardize=True)

    def score_samples(self, X, *, log_partition=None):
        """Log-likelihood of each row where log Z is given, else its pseudo-log-likelihood.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data.
        log_partition : LogPartition or float, default=None
            What `log_partition_function` returned, or its value.

        Returns
        -------
        scores : ndarray of shape (n_samples,)
            In nats; higher is better. log P(x) = -F(x) - log Z, or
            sum_i log P(x_i | x without x_i), which needs no log Z. For Gaussian units,
            log-densities in the units of the data; for Bernoulli units, probabilities of
            rows of zeros and ones, and of no others. A row's score does not depend on the
            other rows (in float32, but for rounding), and is the same at every call.
        """
        if log_partition is not None:
            return -self.free_energy(X) - check_number(
                "log_partition", getattr(log_partition, "value", log_partition)
            )
        X = self._checked(X)
        n_features, columns = self.n_features_in_, None
        if self.n_scored_columns is not None and self.n_scored_columns < n_features:
            fixed = torch.Generator().manual_seed(0)
            columns = torch.randperm(n_features, generator=fixed)[: self.n_scored_columns]

        def scores(theta, x):
            units = self.columns_.units(x.device)
            chosen = None if columns is None else columns.to(x.device)
            # Small blocks stay in the cache while all columns are visited.
            return torch.cat(
                [pseudo_log_likelihood(theta, rows, units, chosen) for rows in x.split(200)]
            )

        return self._map_rows(X, scores, (), standardize=True) - self._log_volume

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
            What `log_partition_function` returned, or its value: the score is then the mean
            log-likelihood, else the mean pseudo-log-likelihood.

        Returns
        -------
        score : float
            In nats per row; higher is better.
        """
        scores = self.score_samples(X, log_partition=log_partition)
        return float(np.average(scores, weights=check_weights(sample_weight, scores)))

    @property
    def visible_scale_(self):
        """Standard deviations of Gaussian visible units, in the units of the data."""
        check_is_fitted(self)
        if not self._is_gaussian:
            raise AttributeError(f"the visible units of this {type(self).__name__} are binary")
        log_variance = self.weights_.get("log_variance", 0.0)
        return self.columns_.scale * np.exp(0.5 * np.asarray(log_variance, dtype=np.float64))

    @property
    def _is_gaussian(self):
        return self.columns_.parts[0][0] == "gaussian"

    @property
    def _network(self):
        return Network((self.n_features_in_, int(self.n_components)), "sigmoid", tied=True)

    def _parameter_shapes(self):
        shapes = dict(self._network.parameter_shapes)
        if self.visible_variance == "learned" and self._is_gaussian:
            shapes["log_variance"] = (self.n_features_in_,)
        return shapes

    def _initial_parameters(self, dtype, device, generator):
        theta = Parameters(self._parameter_shapes(), dtype=dtype, device=device)
        theta.flat.zero_()
        bias = self._base_bias(theta)
        start = initialize(self._network, bias, dtype=dtype, device=device, generator=generator)
        for name in start:
            theta[name].copy_(start[name])
        # Hidden units begin at 1/2: what they add to the visible units' input is taken off
        # again, so that these begin at the means of the data.
        theta["visible_bias_0"].sub_(start["weight_0"].sum(0), alpha=0.5)
        return theta

    def _make_objective(self, theta):
        penalties = []
        if self.weight_decay > 0:
            penalties.append(WeightDecay(self.weight_decay, self._network))
        if self.sparsity > 0:
            penalties.append(CodeKL(self.sparsity, self._network, self.sparsity_target))
        # The peak of a Gaussian of the least variance is what no density of a column exceeds.
        least = self.minimum_variance if self.visible_variance == "learned" else 1.0
        least_loss = 0.5 * self.n_features_in_ * math.log(2 * math.pi * least)
        return ContrastiveDivergence(
            self.columns_.units(theta.flat.device),
            self.n_gibbs_steps,
            self.persistent,
            min(self.batch_size, _MOST_CHAINS),
            penalties,
            self.columns_.mean_like(theta.flat) if self.centered else None,
            self._log_volume,
            least_loss if self._is_gaussian else 0.0,
        )

    def _make_projection(self, objective):
        def project(theta):
            theta["log_variance"].clamp_(math.log(self.minimum_variance), 0.0)

        return project if "log_variance" in self._parameter_shapes() else None

    def _report_objective(self, objective):
        if self.persistent and objective.frozen_chains is not None:
            frozen, states = objective.frozen_chains, objective.state["chains"]
            report_frozen_chains(self, frozen, states, "persistent chains")

    _codes_in_unit_interval = True

    @property
    def _affine_encoder(self):
        # Learned variances scale the data within the encoder.
        affine = "log_variance" not in self._parameter_shapes()
        return network_encoder(self._network) if affine else None

    @property
    def _affine_decoder(self):
        return network_decoder(self._network)

    def _encode(self, theta, x):
        return torch.sigmoid(hidden_input(theta, x))

    def _decode(self, theta, code):
        return visible_input(theta, code)

    def _checked(self, X):
        check_is_fitted(self)
        X = check_rows(self, X, reset=False)
        self.columns_.check(X, self._feature_names)
        return X

    def _base_bias(self, theta):
        """Biases of visible units that are independent and have the data's means."""
        mean = self.columns_.mean_like(theta.flat)
        return self.columns_.units(theta.flat.device).bias_for_mean(mean)

    @property
    def _log_volume(self):
        """What a log-density of standardised columns exceeds that of the data by."""
        return float(np.log(self.columns_.scale).sum())
