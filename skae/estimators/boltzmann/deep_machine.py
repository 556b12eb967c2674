"""Deep Boltzmann machines."""

from collections.abc import Sequence
from functools import partial
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.frozen import FrozenEstimator

from skae._validation import HasMethods, Interval, StrOptions, check_is_fitted, check_number
from skae.engine.boltzmann.deep import DeepMachine, even_units
from skae.engine.boltzmann.deep_training import MeanFieldDivergence, deep_boltzmann_machine
from skae.engine.boltzmann.multi_prediction import MultiPrediction
from skae.engine.networks.corruptions import make_corruption
from skae.engine.networks.penalties import check_penalties
from skae.engine.optimisation.devices import place_of
from skae.estimators.boltzmann.deep_pretraining import pretrained
from skae.estimators.boltzmann.machines import base_bias, without_nan
from skae.estimators.boltzmann.rbm import RBM, check_tempering, check_visible
from skae.estimators.boltzmann.sampling import BoltzmannSampling, report_chains
from skae.estimators.face.densities import log_volume
from skae.estimators.face.layer_sizes import checked_sizes, number_of
from skae.estimators.face.parameters import attribute, estimator, fitted_property, parameter, preset
from skae.estimators.face.parts import maps_batches
from skae.estimators.face.rows import returns_rows
from skae.estimators.face.training import TrainedModel
from skae.estimators.face.transformer import Transformer


@estimator
class DeepBoltzmannMachine(BoltzmannSampling, Transformer):
    r"""Boltzmann machine with several hidden layers, each of which hears both its neighbours.

    A model of the data's distribution, :math:`P(v) = \sum_h e^{-E(v, h_1, \ldots, h_L)} / Z`, with
    binary hidden units and

    .. math::

        E(v, h_1, \ldots, h_L) = E_v(v) - \sum_{l=1}^{L} h_l^T b_l
        - h_1^T W_1 \frac{v}{s^2} - \sum_{l=2}^{L} h_l^T W_l h_{l-1}

    where :math:`E_v` and s are those of :class:`RBM`: columns are numbers, binary or categories.
    Given the even layers (the visible one is layer 0) all units of the odd ones are independent,
    and the other way round, so that Gibbs chains go from one half to the other.

    The posterior of the hidden units is not known. A product
    :math:`Q(h \mid v) = \prod_l \mathrm{Bernoulli}(\mu_l)` stands for it, found by sweeps over odd
    and even layers, none of which lowers the bound

    .. math::

        \log P(v) \ge -E(v, \mu_1, \ldots, \mu_L) + H(\mu) - \log Z, \qquad
        \mu_l \leftarrow \sigma(b_l + W_l \mu_{l-1} + W_{l+1}^T \mu_{l+1})

    Training climbs that bound by stochastic maximum likelihood: the gradient at fixed
    :math:`\mu`, with persistent chains in the place of the model's expectation. Codes are the means
    of a layer.

    With ``criterion="multi_prediction"`` it learns to fill in what is missing of a row instead. A
    random set S of the variables of each row is hidden and free in the mean field, as the hidden
    units are, and what is minimised, through all sweeps, is

    .. math::

        \mathbb{E}_S \sum_{i \in S} -\log Q(x_i \mid x_{\setminus S})

    NaN is then what was not observed: it is neither given nor predicted in `fit`, and free in the
    mean field afterwards. `denoise` predicts it, a class among the columns as well.

    Use it where the posterior should take all layers into account: what a low layer sees then
    depends on what a high one takes the row for. :class:`DeepBeliefNetwork` learns layer by layer,
    and passes rows upwards only.

    Read more in the :ref:`User Guide <deep_boltzmann>`.

    See Also
    --------
    RBM : One hidden layer, whose posterior is known.
    DeepBeliefNetwork : Layers trained in turn, with a joint law of the top two only.

    References
    ----------
    .. [1] R. Salakhutdinov, G. Hinton. Deep Boltzmann machines. AISTATS 2009.
    .. [2] G. Montavon, K.-R. Mueller. Deep Boltzmann machines and the centering trick. Neural
       Networks: Tricks of the Trade, 2012.
    .. [3] I. Goodfellow, M. Mirza, A. Courville, Y. Bengio. Multi-prediction deep Boltzmann
       machines. NIPS 2013.
    .. [4] J. Melchior, A. Fischer, L. Wiskott. How to center deep Boltzmann machines. Journal of
       Machine Learning Research 17, 2016.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import DeepBoltzmannMachine
    >>> X = load_digits().data > 7
    >>> dbm = DeepBoltzmannMachine((32, 16), max_iter=5, random_state=0).fit(X[:600])
    >>> dbm.transform(X).shape
    (1797, 16)
    >>> dbm.sample(5).shape
    (5, 64)
    >>> bound = dbm.score(X, log_partition=dbm.log_partition_function(n_temperatures=200))
    """

    layer_sizes: Sequence[int] | int = parameter(
        default=(256, 256),
        constraints=[Interval(Integral, 1, None, closed="left"), "array-like"],
        kind="tuple of int, or int",
        doc="Numbers of units of the hidden layers, from the data upwards.",
        kw_only=False,
    )
    visible: str | Sequence = preset(RBM, "visible", default="auto")
    visible_variance: str = preset(RBM, "visible_variance", default="learned")
    minimum_variance: float = preset(RBM, "minimum_variance", default=0.3)
    pretraining: str | RBM | FrozenEstimator | None = parameter(
        default="unsupervised",
        constraints=[StrOptions({"unsupervised"}), HasMethods(["fit", "transform"]), None],
        kind='{"unsupervised"}, RBM, FrozenEstimator or None',
        doc="""How training begins:

        - None: at small random weights, of which ``centered`` machines learn as well, though the
          top layer may stay idle;
        - "unsupervised": at those of machines of two neighbouring layers each, trained one after
          the other by contrastive divergence on the codes of the one below. What the middle layers
          will hear from two sides counts twice then (Salakhutdinov & Hinton 2009);
        - an RBM: the same, by the parameters that it has for training (``learning_rate``,
          ``max_iter``, ``batch_size``, ``n_gibbs_steps``, ``weight_decay``, ...); its number and
          kind of units do not count;
        - a fitted RBM in a :class:`~sklearn.frozen.FrozenEstimator`: as that machine, with small
          random weights further up. What it took long to learn is kept; a small ``learning_rate``
          that falls to 0 goes on from there.""",
    )
    criterion: str = parameter(
        default="likelihood",
        constraints=[StrOptions({"likelihood", "multi_prediction"})],
        kind='{"likelihood", "multi_prediction"}',
        doc="""What training descends on: minus the bound on the likelihood, by chains, or the loss
        of what is hidden of a row, which needs none. Gaps, NaN, are for the latter; set after
        `fit`, it lets a machine of the former take rows with gaps.""",
    )
    corruption_level: float | tuple[float, float] = parameter(
        default=0.5,
        constraints=[Interval(Real, 0, 1, closed="right"), tuple],
        kind="float or tuple (low, high)",
        doc="""Probability that ``criterion="multi_prediction"`` hides a variable of a row, which
        is a column, or the columns of a category. A tuple: each row's is drawn anew, uniformly
        between the two.""",
    )
    n_gibbs_steps: int = parameter(
        default=5,
        constraints=[Interval(Integral, 1, None, closed="left")],
        doc="Steps of the persistent chains for each gradient step on the likelihood.",
    )
    n_chains: int = parameter(
        default=100,
        constraints=[Interval(Integral, 1, None, closed="left")],
        doc="Persistent chains of the likelihood.",
    )
    mean_field_steps: int = parameter(
        default=30,
        constraints=[Interval(Integral, 1, None, closed="left")],
        doc="""Sweeps over all hidden layers, for each row, at most. Multi-prediction goes through
        them forwards and backwards in each gradient step: 5 to 10 are usual there.""",
    )
    mean_field_tol: float = parameter(
        default=1e-4,
        constraints=[Interval(Real, 0, None, closed="left")],
        doc="A row whose means all change by less in a sweep needs no more of them.",
    )
    centered: bool = preset(RBM, "centered", default=True)
    weight_decay: float = preset(RBM, "weight_decay", default=0.0)
    sparsity: float = preset(RBM, "sparsity", default=0.0)
    sparsity_target: float = preset(RBM, "sparsity_target", default=0.05)
    penalties: Sequence = parameter(
        default=(),
        constraints=[list, tuple],
        kind="list or tuple of penalties",
        doc="""More terms of the criterion, of your own, with the means of all hidden layers side by
        side, from the lowest up, as code: objects with a number ``weight`` and a method
        ``value(theta, forward)`` that returns a scalar tensor, as those of
        `skae.engine.networks.penalties`.""",
    )
    n_checkpoints: int = preset(RBM, "n_checkpoints", default=0)
    tempered: bool = preset(RBM, "tempered", default=False)
    code_layer: int = parameter(
        default=-1,
        constraints=[Interval(Integral, None, None, closed="neither")],
        doc="""Number of the hidden layer whose means `transform` returns and `inverse_transform`
        takes; 0 is the lowest, -1 the top one. May be set after `fit`.""",
    )

    optimizer: str = preset(TrainedModel, "optimizer", default="sgd")
    learning_rate: float = preset(TrainedModel, "learning_rate", default=0.05)
    learning_rate_schedule: str = preset(TrainedModel, "learning_rate_schedule", default="linear")
    momentum: float = preset(TrainedModel, "momentum", default=0.5)
    n_iter_no_change: int | None = preset(TrainedModel, "n_iter_no_change", default=None)

    loss_curve_: list[float] = attribute(
        "list of float",
        """After each epoch the sum over columns of -log Q(x_i | the other columns), in nats per
        row, where Q is the mean field: an estimate from one variable of each of some 500 rows, the
        same after every epoch.""",
    )
    layer_loss_curves_: list[list[float]] = attribute(
        "list of list of float",
        """Reconstruction error of each machine after each epoch of pre-training, in nats per row;
        empty without.""",
    )

    trajectory_: np.ndarray = attribute(
        "ndarray of shape (n_checkpoints, n_parameters)",
        """Parameters that the training of the whole passed, from its beginning, each all of
        ``weights_`` in one vector; without ``n_checkpoints`` none.""",
    )

    @fitted_property
    def components_(self):
        """ndarray of shape (layer_sizes[0], n_features_in_)
        Weights of the lowest layer, one filter per row, for (x - columns_.shift) / columns_.scale.
        """  # noqa: D403
        check_is_fitted(self)
        return self.weights_["weight_0"]

    _visible_scale = RBM._visible_scale
    visible_scale_ = RBM.visible_scale_

    _loss_parameter = "visible"
    _collapse_remedy = (
        "Try a smaller learning_rate, more n_gibbs_steps, less weight_decay or sparsity, fewer "
        "layers or pretraining='unsupervised'."
    )

    score = RBM.score
    _least_variance = RBM._least_variance
    _visible = RBM._visible
    _all_penalties = RBM._all_penalties

    @returns_rows
    def denoise(self, X):
        """Means of all columns, in the mean field given what is observed of the rows of X.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows; with ``criterion="multi_prediction"``, NaN is not observed.

        Returns
        -------
        means : ndarray or data frame of shape (n_samples, n_features)
            In the units of the data, as of `reconstruct`: predictions of what is NaN, of a category
            its probabilities or, in a data frame, the most probable one; and reconstructions, by
            the lowest hidden layer, of what is not.
        """
        X = self._checked(X)
        return self._decoded(self._fitted_model(X).reconstructed(X))

    def free_energy(self, X):
        """Upper bound on the free energy of each row, E(x, mu) - H(mu), in nats.

        Returns
        -------
        energies : ndarray of shape (n_samples,)
            Lower is more probable: log P(x) >= -F(x) - log Z, see `log_partition_function`. Exact
            where there is one hidden layer. Of rows with gaps, it bounds that of what is observed.
        """
        return self._free_energies(self._checked(X))

    @maps_batches
    def score_samples(self, X, *, log_partition=None):
        """Lower bound on the log-likelihood of each row.

        Parameters
        ----------
        log_partition : LogPartition or float, default=None
            What `log_partition_function` returned, or its value. None: it is called, with its
            defaults, when a score first needs it, and its value kept; with more than 20 units in
            the smaller half of the layers, that takes much longer than the scores.

        Returns
        -------
        scores : ndarray of shape (n_samples,)
            In nats, of the same densities or probabilities as :meth:`RBM.score_samples` where
            ``log_partition`` is given; higher is better. A row's score does not depend on the other
            rows (in float32, but for rounding), and is the same at every call.
        """
        X = self._checked(X)
        if log_partition is None:
            weights = self.weights_
            kept_for, kept = self.__dict__.get("_log_partition", (None, None))
            if kept_for is not weights:
                kept = self.log_partition_function()
                self._log_partition = weights, kept
            log_partition = kept
        value = getattr(log_partition, "value", log_partition)
        return -self._free_energies(X) - check_number("log_partition", value)

    def _free_energies(self, X):
        """Bounds on the free energies of checked rows."""
        _, theta = fitted = self._fitted_model(X)
        machine, fill = self._machine(theta), self._fill(place_of(theta.flat))

        def bounds(x):
            gaps = torch.isnan(x)
            return machine.free_energy_bound(machine.completed(machine.filled(x, fill)), gaps)

        return without_nan(fitted.map_rows(bounds, X)) - self._log_derivative(X)

    def _model(self, place):
        bias = base_bias(self.columns_, place)
        shift, scale = self.columns_.standardization(place)
        fill, learning = self._fill(place), MeanFieldDivergence
        if self.criterion == "multi_prediction":
            learning = partial(MultiPrediction, level=self.corruption_level)
        return deep_boltzmann_machine(
            self.columns_.units(place.device),
            self._sizes,
            bias,
            fill,
            code_layer=number_of("code_layer", self.code_layer, len(self._sizes) - 1) + 1,
            mean_field={"n_sweeps": self.mean_field_steps, "tol": self.mean_field_tol},
            least_variance=self._least_variance(),
            shift=shift,
            scale=scale,
            report=report_chains,
            earlier=None if self.pretraining is None else partial(pretrained, self),
            criterion=learning,
            n_gibbs_steps=self.n_gibbs_steps,
            n_chains=self.n_chains,
            penalties=self._all_penalties(),
            visible_offset=fill if self.centered else None,
            log_volume=log_volume(self.columns_),
            n_checkpoints=self.n_checkpoints,
            tempered=self.tempered,
        )

    def _facts(self, X, weight, original, *, is_whole):
        facts = super()._facts(X, weight, original, is_whole=is_whole)
        return facts | {"layer_loss_curves_": []}

    def _fill(self, place):
        """What columns are without any knowledge: their means."""
        return self.columns_.mean_like(base_bias(self.columns_, place))

    def _machine(self, theta):
        """The machine of such parameters."""
        units = even_units(self.columns_.units(theta.flat.device), self._sizes)
        return DeepMachine(theta, units, self.mean_field_steps, self.mean_field_tol)

    @property
    def _accepts_gaps(self):
        return self.criterion == "multi_prediction"

    @property
    def _sizes(self):
        """Numbers of units of all layers, the columns included."""
        return (len(self.columns_.mean), *checked_sizes("layer_sizes", self.layer_sizes))

    def _check_parameters(self):
        super()._check_parameters()
        sizes = checked_sizes("layer_sizes", self.layer_sizes)
        number_of("code_layer", self.code_layer, len(sizes))
        is_fitted = isinstance(self.pretraining, FrozenEstimator)
        lowest = self.pretraining.estimator if is_fitted else self.pretraining
        if lowest is not None and not isinstance(lowest, str | RBM):
            raise ValueError(
                f"pretraining={self.pretraining!r} is no RBM, whose parameters of training the "
                "machines that start this one would take. Use RBM(...), 'unsupervised' or None."
            )
        if is_fitted:
            check_is_fitted(lowest)
        if self.tempered and self.criterion != "likelihood":
            raise ValueError(
                "tempered=True is of the chains of criterion='likelihood': multi-prediction has "
                "none. Set tempered=False."
            )
        check_tempering(self, is_persistent=True)
        make_corruption("hiding", self.corruption_level)
        if np.max(self.corruption_level) == 0:
            raise ValueError(
                f"corruption_level={self.corruption_level!r} hides nothing that could be "
                "predicted. Use 0.5, or (0, 1) for every part of a row."
            )
        check_visible(self.visible)
        check_penalties(self._all_penalties(), (0.0, 1.0))
