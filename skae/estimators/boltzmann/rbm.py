"""Restricted Boltzmann machines."""

from collections.abc import Sequence
from numbers import Integral, Real

import numpy as np
import torch

from skae._validation import (
    Interval,
    Registered,
    StrOptions,
    check_is_fitted,
    check_number,
)
from skae.engine.boltzmann.conditionals import pseudo_log_likelihood, real_columns
from skae.engine.boltzmann.energies import BipartiteMachine
from skae.engine.boltzmann.learning import boltzmann_machine
from skae.engine.networks.penalties import CodeKL, WeightDecay, check_penalties
from skae.engine.networks.units import UNITS
from skae.estimators.boltzmann.machines import base_bias, without_nan
from skae.estimators.boltzmann.sampling import BoltzmannSampling, report_chains
from skae.estimators.face.densities import log_volume, mean_score
from skae.estimators.face.parameters import attribute, estimator, fitted_property, parameter, preset
from skae.estimators.face.parts import maps_batches
from skae.estimators.face.training import TrainedModel, decay_in_criterion
from skae.estimators.face.transformer import LAYERS, Transformer, layer_weights

# Persistent chains beyond this number cost more than they tell.
_MOST_CHAINS = 1000


@LAYERS.named("rbm")
@estimator
class RBM(BoltzmannSampling, Transformer):
    r"""Restricted Boltzmann machine, whose visible units are numbers, binary or categories.

    A model of the data's distribution, :math:`P(v) = \sum_h e^{-E(v, h)} / Z`, with binary
    hidden units :math:`h` and the energy

    .. math::

        E(v, h) = \sum_{i \text{ real}} \frac{(v_i - c_i)^2}{2 s_i^2}
        - \sum_{i \text{ discrete}} v_i c_i - h^T b - \sum_{ij} h_j W_{ji} \frac{v_i}{s_i^2}

    where :math:`s_i = 1` for discrete columns, which are Bernoulli units or, where several are one
    category, softmax units, of which one is 1. Given :math:`h` all variables are independent:
    Gaussian, Bernoulli, or categories with probabilities :math:`\mathrm{softmax}(c + W^T h)`.

    Its code is :math:`P(h = 1 \mid v)`. It learns by stochastic gradient steps on the
    negative log-likelihood,

    .. math::

        \frac{1}{n} \sum_i F(x_i) - \frac{1}{m} \sum_j F(v_j), \qquad
        F(v) = -\log \sum_h e^{-E(v, h)}

    where the particles :math:`v_j` come from ``n_gibbs_steps`` steps of Gibbs sampling that
    start at the data (contrastive divergence) or, if ``persistent``, go on from where the
    last gradient step left them (stochastic maximum likelihood).

    Read more in the :ref:`User Guide <rbm>`.

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
        doc="Number of binary hidden units.",
        kw_only=False,
    )
    visible: str | Sequence = parameter(
        default="auto",
        constraints=[Registered(UNITS), StrOptions({"auto"}), list, tuple],
        kind="str or list of (str, columns)",
        doc="""Visible units:

        - "bernoulli": for values in [0, 1]; what is between counts as a probability;
        - "gaussian": columns standardised by their mean and standard deviation, which
          are estimated in `fit`: a raw table needs no scaler;
        - "squared_error": Gaussian units of variance 1 in the data's own units;
        - "multinomial": all columns together are one one-hot variable;
        - "auto": column by column. Columns that together are one one-hot variable are
          "multinomial": categories of a data frame, and columns that ``loss="auto"`` of an
          :class:`AutoEncoder` takes for one by the data or by their names. The others are
          "bernoulli" if all data lie in [0, 1]; else those of 0 and 1 are "bernoulli" (but for
          those that are 1 in few rows, among amounts), and numbers "gaussian".

        A list chooses by columns, given in any way that :class:`~sklearn.compose.ColumnTransformer`
        takes them; every column once, and one entry "multinomial" for each one-hot variable.""",
    )
    visible_variance: str = parameter(
        default="learned",
        constraints=[StrOptions({"learned", "unit"})],
        kind='{"learned", "unit"}',
        doc="""Variance of each standardised Gaussian unit given the hidden ones: learned, or as
        large as the column's own.""",
    )
    minimum_variance: float = parameter(
        default=0.3,
        constraints=[Interval(Real, 0, 1, closed="right")],
        doc="""Lower bound of learned variances, as a fraction of the column's own, which bounds
        them from above. Small ones fit more closely, and are less stable: a unit's signal grows
        as its variance shrinks.""",
    )
    n_gibbs_steps: int = parameter(
        default=1,
        constraints=[Interval(Integral, 1, None, closed="left")],
        doc="Gibbs steps for each gradient step: the k of CD-k.",
    )
    persistent: bool = parameter(
        default=False,
        constraints=["boolean"],
        doc="""Whether chains, as many as ``batch_size`` but at most 1000, go on from one gradient
        step to the next, or start at the data each time.""",
    )
    centered: bool = parameter(
        default=True,
        constraints=["boolean"],
        doc="""Whether gradient steps count units from their mean activity, which makes
        training invariant to flipping 0 and 1.""",
    )
    weight_decay: float = parameter(
        default=0.0,
        constraints=[Interval(Real, 0, None, closed="left")],
        doc="""Weight of half the sum of squared weights; with ``optimizer="adamw"`` no term of the
        objective, but what shrinks all parameters in each step.""",
    )
    sparsity: float = parameter(
        default=0.0,
        constraints=[Interval(Real, 0, None, closed="left")],
        doc="""Weight of the penalty that draws the mean of each hidden unit, over a batch, to
        ``sparsity_target``.""",
    )
    sparsity_target: float = parameter(
        default=0.05,
        constraints=[Interval(Real, 0, 1, closed="neither")],
        doc="Mean activity that the penalty aims at.",
    )
    penalties: Sequence = parameter(
        default=(),
        constraints=[list, tuple],
        kind="list or tuple of penalties",
        doc="""More terms of the criterion, of your own, with P(h = 1 | v) as code: objects with a
        number ``weight`` and a method ``value(theta, forward)`` that returns a scalar tensor, as
        those of `skae.engine.networks.penalties`.""",
    )
    n_checkpoints: int = parameter(
        default=0,
        constraints=[Interval(Integral, 0, None, closed="left")],
        doc="""How many checkpoints of its parameters training keeps, at most, and at least half as
        many. Their numbers of gradient steps grow by a steady ratio. They are the path along which
        ``method="trajectory"`` samples and estimates log Z. 0: none.""",
    )
    tempered: bool = parameter(
        default=False,
        constraints=["boolean"],
        doc="""Whether persistent chains of training swap rows with companions that run at the
        checkpoints (parallel trajectory tempering): modes that drift apart are visited still. A
        step costs as much as one for each checkpoint.""",
    )
    n_scored_columns: int | None = parameter(
        default=100,
        constraints=[Interval(Integral, 1, None, closed="left"), None],
        doc="""Variables (columns, or the columns of a category together) whose terms
        `score_samples` sums, and scales up to all: always the same, drawn once for each number of
        them. None, or more than there are, takes all: the exact pseudo-likelihood.""",
    )

    optimizer: str = preset(TrainedModel, "optimizer", default="sgd")
    learning_rate: float = preset(TrainedModel, "learning_rate", default=0.05)
    momentum: float = preset(TrainedModel, "momentum", default=0.5)
    n_iter_no_change: int | None = preset(TrainedModel, "n_iter_no_change", default=None)

    components_ = layer_weights(
        "weight_0",
        "ndarray of shape (n_components, n_features_in_)",
        "Weights, one filter per row, for (x - columns_.shift) / columns_.scale.",
    )
    decoder_components_ = layer_weights(
        "weight_0", "ndarray of shape (n_components, n_features_in_)", "The same: ``components_``."
    )
    intercept_hidden_ = layer_weights(
        "hidden_bias_0", "ndarray of shape (n_components,)", "Biases of the hidden units."
    )
    intercept_visible_ = layer_weights(
        "visible_bias_0",
        "ndarray of shape (n_features_in_,)",
        "Biases of the visible units: logits, or means in standardised units.",
    )

    def _visible_scale(self):
        check_is_fitted(self)
        real = real_columns(self._visible)
        if not real:
            raise AttributeError(f"the visible units of this {type(self).__name__} are discrete")
        log_variance = self.weights_.get("log_variance", np.zeros(len(self.columns_.scale)))
        scale = np.full(len(log_variance), np.nan)
        for columns in real:
            variance = np.exp(log_variance[columns].astype(np.float64))
            scale[columns] = self.columns_.scale[columns] * np.sqrt(variance)
        return scale

    visible_scale_ = fitted_property(
        _visible_scale,
        doc="ndarray of shape (n_features_in_,)\nStandard deviations of Gaussian visible units "
        "given the hidden ones, in the units of the data; NaN for other columns.",
    )

    loss_curve_: list[float] = attribute(
        "list of float",
        """Negative pseudo-log-likelihood after each epoch, in nats per row: an estimate from one
        variable of each of some 500 rows, the same after every epoch. Where there are numbers,
        which cost more, all columns of fewer rows are computed roughly and the error of that is
        estimated; it takes a tenth of the time at most, or 32 rows.""",
    )

    trajectory_: np.ndarray = attribute(
        "ndarray of shape (n_checkpoints, n_parameters)",
        """Parameters that training passed, from its beginning, each all of ``weights_`` in one
        vector; without ``n_checkpoints`` none.""",
    )

    _loss_parameter = "visible"
    _collapse_remedy = (
        "Try a smaller learning_rate, more n_gibbs_steps, less weight_decay or sparsity, or "
        "visible='gaussian'."
    )

    def free_energy(self, X):
        """Free energy of each row, F(x) = -log sum_h exp(-E(x, h)), in nats.

        Returns
        -------
        energies : ndarray of shape (n_samples,)
            Lower is more probable: log P(x) = -F(x) - log Z, see `log_partition_function`.
        """
        model, theta = fitted = self._fitted_model(X := self._checked(X))
        energies = fitted.map_rows(BipartiteMachine(theta, model.units).free_energy, X)
        return without_nan(energies) - self._log_derivative(X)

    @maps_batches
    def score_samples(self, X, *, log_partition=None):
        """Log-likelihood of each row where log Z is given, else its pseudo-log-likelihood.

        Parameters
        ----------
        log_partition : LogPartition or float, default=None
            What `log_partition_function` returned, or its value.

        Returns
        -------
        scores : ndarray of shape (n_samples,)
            In nats; higher is better. log P(x) = -F(x) - log Z, or sum_i log P(x_i | x without
            x_i), which needs no log Z; x_i is a column, or a category of several. For Gaussian
            units, log-densities in the units of the data; for others, probabilities of rows of
            zeros and ones, and of no others. A row's score does not depend on the other rows (in
            float32, but for rounding), and is the same at every call.
        """
        if log_partition is not None:
            return -self.free_energy(X) - check_number(
                "log_partition", getattr(log_partition, "value", log_partition)
            )
        model, theta = fitted = self._fitted_model(X := self._checked(X))
        machine, variables = BipartiteMachine(theta, model.units), None
        if self.n_scored_columns is not None and self.n_scored_columns < machine.n_variables:
            fixed = torch.Generator().manual_seed(0)
            variables = torch.randperm(machine.n_variables, generator=fixed)
            variables = variables[: self.n_scored_columns].to(theta.flat.device)

        def scores(x):
            # Small blocks stay in the cache while all columns are visited.
            blocks = x.split(200)
            return torch.cat([pseudo_log_likelihood(machine, rows, variables) for rows in blocks])

        return fitted.map_rows(scores, X) - log_volume(self.columns_) + self._log_derivative(X)

    def score(self, X, y=None, sample_weight=None, *, log_partition=None):
        """Mean of `score_samples` over the rows of X.

        Parameters
        ----------
        log_partition : LogPartition or float, default=None
            What `log_partition_function` returned, or its value; see `score_samples`.

        Returns
        -------
        score : float
            In nats per row; higher is better.
        """
        return mean_score(self.score_samples(X, log_partition=log_partition), sample_weight)

    def _model(self, place):
        units, bias = self.columns_.units(place.device), base_bias(self.columns_, place)
        shift, scale = self.columns_.standardization(place)
        return boltzmann_machine(
            units,
            len(self.columns_.mean),
            int(self.n_components),
            bias,
            least_variance=self._least_variance(),
            shift=shift,
            scale=scale,
            report=report_chains if self.persistent else None,
            n_gibbs_steps=self.n_gibbs_steps,
            persistent=self.persistent,
            n_chains=min(self.batch_size, _MOST_CHAINS),
            penalties=self._all_penalties(),
            visible_offset=self.columns_.mean_like(bias) if self.centered else None,
            log_volume=log_volume(self.columns_),
            n_checkpoints=self.n_checkpoints,
            tempered=self.tempered,
        )

    def _machine(self, theta):
        """The machine of such parameters."""
        return BipartiteMachine(theta, self.columns_.units(theta.flat.device))

    def _least_variance(self):
        """Lower bounds of the columns' variances, or None where none is learned."""
        standardized = [c for name, c in self.columns_.parts if UNITS[name].standardizes]
        if self.visible_variance != "learned" or not standardized:
            return None
        least = np.ones(len(self.columns_.mean))
        least[np.concatenate(standardized)] = self.minimum_variance
        return least

    @property
    def _visible(self):
        """The visible units."""
        return self.columns_.units(torch.device("cpu"))

    def _all_penalties(self):
        """Those that parameters name, and the user's own."""
        decay = WeightDecay(decay_in_criterion(self))
        named = decay, CodeKL(self.sparsity, self.sparsity_target)
        return [*(penalty for penalty in named if penalty.weight > 0), *self.penalties]

    def _check_parameters(self):
        super()._check_parameters()
        check_tempering(self, self.persistent)
        check_visible(self.visible)
        check_penalties(self._all_penalties(), (0.0, 1.0))


def check_tempering(model, is_persistent: bool) -> None:
    """Raise a ValueError for chains of training that have nothing to swap with."""
    if model.tempered and not (is_persistent and model.n_checkpoints > 0):
        lacking = "n_checkpoints=10 or so" if is_persistent else "persistent=True"
        raise ValueError(
            "tempered=True lets persistent chains swap with companions at checkpoints of the "
            f"training: it needs {lacking}."
        )


def check_visible(chosen) -> None:
    """Raise a ValueError for units that cannot be the visible ones of a Boltzmann machine."""
    for name in [chosen] if isinstance(chosen, str) else [part[0] for part in chosen if part]:
        if name in UNITS and not hasattr(UNITS[name], "energy"):
            names = [known for known, kind in UNITS.items() if hasattr(kind, "energy")]
            raise ValueError(
                f"{name!r} cannot be the visible units of a Boltzmann machine. Use visible="
                f"'auto', or one of {', '.join(map(repr, names))} for all columns or for some."
            )
