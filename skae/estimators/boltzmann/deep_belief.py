"""Deep belief networks: stacks of restricted Boltzmann machines as generative models."""

from collections.abc import Sequence
from numbers import Integral

import numpy as np
import torch

from skae._validation import (
    HasMethods,
    Interval,
    StrOptions,
    check_count,
    check_is_fitted,
    check_number,
    check_rows,
    check_weights,
    make_generator,
)
from skae.engine.boltzmann.energies import BipartiteMachine
from skae.engine.boltzmann.samplers import sample_downwards, variational_bound
from skae.engine.optimisation.models import FittedModel
from skae.engine.stacks.stacking import stacked
from skae.estimators.boltzmann.machines import machine_of, rows_of, sampling
from skae.estimators.boltzmann.rbm import RBM
from skae.estimators.face.callbacks import Callback, callbacks_of, refuse_callbacks
from skae.estimators.face.densities import log_volume
from skae.estimators.face.learning import learns
from skae.estimators.face.parameters import (
    attribute,
    estimator,
    fitted_property,
    parameter,
    preset,
    validate_parameters,
)
from skae.estimators.face.parts import fits_batches, fits_batches_on, maps_batches
from skae.estimators.face.rows import of_encoded_rows, returns_rows
from skae.estimators.face.scikit_learn import (
    BaseEstimator,
    CallbackSupportMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
)
from skae.estimators.face.training import CallbackBridge, TrainedModel, usable_place
from skae.estimators.face.transformer import Transformer
from skae.estimators.stacks.layers import (
    StackParameters,
    continued,
    make_layers,
    models_of,
    number_of_code,
    weights_of,
)
from skae.estimators.stacks.lowest_layer import lowest_layer
from skae.estimators.stacks.pretraining import facts_of, partly_trained, pretrained
from skae.frames.encoding import Encoding

# Rows whose draws are made together: small blocks stay in the cache.
_BLOCK = 1000


@estimator
class DeepBeliefNetwork(
    ClassNamePrefixFeaturesOutMixin, TransformerMixin, CallbackSupportMixin, BaseEstimator
):
    r"""Stack of restricted Boltzmann machines as one model of the data's distribution.

    The top machine gives the joint law of its two layers, each machine below it the law of its
    visible units given the hidden ones,

    .. math::

        P(v, h_1, \ldots, h_L) = P_1(v \mid h_1) \, P_2(h_1 \mid h_2) \cdots
        P_L(h_{L-1}, h_L)

    The machines are trained one after the other, each on the codes of the one below. With
    :math:`Q_l(h_l \mid h_{l-1})` the conditional of machine :math:`l`, by which codes are computed,
    and :math:`Q` the product of all but the last, a row's score is the variational lower bound

    .. math::

        \log P(v) \ge \mathbb{E}_Q \left[ \sum_{l=1}^{L-1} \log
        \frac{P_l(h_{l-1} \mid h_l)}{Q_l(h_l \mid h_{l-1})} - F_L(h_{L-1}) \right] - \log Z_L,
        \qquad h_0 = v

    where :math:`F_L` is the free energy of the top machine. Use it to draw samples, or to compare
    models of a distribution. For features alone, and to fine-tune them, use
    :class:`StackedAutoEncoder` with ``layer="rbm"``.

    Read more in the :ref:`User Guide <stacks>`.

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

    layer_sizes: Sequence[int] | int | None = preset(
        StackParameters, "layer_sizes", default=None, kw_only=False
    )
    layer: str | RBM = parameter(
        default="rbm",
        constraints=[StrOptions({"rbm"}), HasMethods(["fit", "transform"])],
        kind='{"rbm"} or RBM',
        doc="""Every layer: an RBM of default parameters, which takes ``batch_size``, ``max_iter``,
        ``device`` and ``verbose`` from the network, or one of which each layer is a copy with its
        number of units, so that ``layer__learning_rate`` is a parameter of all.""",
    )
    layers: Sequence[RBM] | None = parameter(
        default=None,
        constraints=[list, tuple, None],
        kind="list of RBM or None",
        doc="""The layers themselves, instead of ``layer_sizes`` and ``layer``. All but the first
        have Bernoulli visible units. The parameters of the first are ``layers__0__learning_rate``
        and the like.""",
    )
    pretraining: str = parameter(
        default="unsupervised",
        constraints=[StrOptions({"unsupervised", "prefit"})],
        kind='{"unsupervised", "prefit"}',
        doc="""How the layers are trained:

        - "unsupervised": one after the other, each on the codes of the one below, by its own
          ``fit``;
        - "prefit": ``layers`` are fitted and taken as they are. To survive `clone`, as in a grid
          search, wrap each in :class:`sklearn.frozen.FrozenEstimator`.""",
    )

    code_layer: int = parameter(
        default=-1,
        constraints=[Interval(Integral, None, None, closed="neither")],
        doc="""Number of the layer whose codes `transform` returns and `inverse_transform` takes; -1
        is the top one. May be set after `fit`.""",
    )
    batch_size: int = preset(TrainedModel, "batch_size", default=100)
    max_iter: int | str = preset(TrainedModel, "max_iter", default=100)
    warm_start: bool = preset(TrainedModel, "warm_start", default=False)
    device: str | torch.device = preset(TrainedModel, "device", default="auto")
    verbose: bool | int = preset(TrainedModel, "verbose", default=False)
    random_state: int | np.random.RandomState | None = preset(
        TrainedModel, "random_state", default=None
    )

    callbacks: Callback | Sequence[Callback] | None = preset(
        TrainedModel, "callbacks", default=None
    )

    layers_: list[RBM] = attribute("list of RBM", "The fitted machines, from the data upwards.")
    n_features_in_: int = attribute("int", "Number of features seen in `fit`.")
    feature_names_in_: np.ndarray = attribute(
        "ndarray of shape (n_features_in_,)", "Names of the features, where X had string names."
    )
    encoding_: Encoding | None = attribute(
        "Encoding or None",
        """What the columns of a data frame have become, see :class:`RBM`. None where X has numbers
        only.""",
    )

    @fitted_property
    def weights_(self):
        """dict of str to ndarray
        All learned parameters, those of layer 0 as ``"0.weight_0"`` and the like.
        """  # noqa: D403
        return weights_of(self.layers_)

    @fitted_property
    def columns_(self):
        """Columns
        Units, shift, scale, mean and range of the data's columns; the lowest machine sees
        (x - columns_.shift) / columns_.scale.
        """
        return self.layers_[0].columns_

    @fitted_property
    def layer_loss_curves_(self):
        """list of list of float
        Negative pseudo-log-likelihood of each machine after each epoch, in nats per row.
        """  # noqa: D403
        return [layer.loss_curve_ for layer in self.layers_]

    n_iter_: int = attribute("int", "Epochs of all machines.")
    stopping_reason_: str = attribute(
        "str",
        """Why the training of the top machine ended: "max_iter", "converged" or "interrupted".""",
    )
    device_: str = attribute("str", "Where it was trained.")

    # As every estimator of this package, and every transformer by its model and columns.
    get_params = TrainedModel.get_params
    set_params = TrainedModel.set_params
    inverse_transform = Transformer.inverse_transform
    reconstruct = Transformer.reconstruct
    transform = Transformer.transform
    _checked = Transformer._checked
    _encoded = Transformer._encoded
    _decoded = Transformer._decoded
    _log_derivative = Transformer._log_derivative
    _n_features_out = Transformer._n_features_out
    # The mean of the scores of rows.
    score = RBM.score

    @learns(callbacks=True, batches=fits_batches)
    def fit(self, X, y=None, sample_weight=None):
        """Train the machines, one after the other.

        Raises
        ------
        ValueError
            Before any layer is trained: if a parameter is out of its range, layers are not
            machines that fit each other, or X is not what it should be.
        """
        if callbacks_of(self).stopping is not None:
            raise ValueError(
                "A DeepBeliefNetwork is trained machine by machine, each on the codes of the one "
                "below, which no EarlyStopping watches. Use early_stopping=True in a machine."
            )
        goes_on = self.warm_start and hasattr(self, "layers_")
        layers, data, weight = self._layers_for(X, sample_weight, goes_on=goes_on)
        bridge = CallbackBridge(self, self.max_iter, X, y, sample_weight)
        layers, _ = pretrained(
            self, layers, X, data, sample_weight, weight, goes_on=goes_on, bridge=bridge
        )
        vars(self).update(facts_of(layers))
        bridge.finish()
        return self

    @learns(batches=fits_batches_on)
    def partial_fit(self, X, y=None, sample_weight=None):
        """Continue learning with one pass over the rows of X for every machine in turn.

        Each continues on the codes of those below as they are then.
        """
        refuse_callbacks(self)
        goes_on = hasattr(self, "layers_")
        layers, data, weight = self._layers_for(X, sample_weight, goes_on=goes_on, is_part=True)
        n_iter = self.n_iter_ if goes_on else 0
        layers, n_passes = partly_trained(
            self, layers, X, data, sample_weight, weight, goes_on=goes_on
        )
        vars(self).update(facts_of(layers) | {"n_iter_": n_iter + n_passes})
        return self

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
        n_steps, burn_in, n_temperatures : int
            Of the top machine's chains, see :meth:`RBM.sample`.
        init : {array-like, sparse matrix} of shape (n_chains, n_features), default=None
            Rows at whose codes the chains start. None: draws of independent units that have
            the means of the training data's codes.
        n_chains : int, default=None
            Chains that run side by side, see :meth:`RBM.sample`.
        method : str or callable, default="auto"
            The sampler of the top machine, see :meth:`RBM.sample`.
        return_means : bool, default=False
            Whether to return means of the visible units given the layer above them instead
            of draws: the same rows without the noise of each column, as images are shown.

        Returns
        -------
        samples : ndarray or data frame of shape (n_samples, n_features)
            In the units of the data, and in the container and order of :meth:`RBM.sample`.

        Warns
        -----
        ConvergenceWarning
            If chains, or states between temperatures, hardly ever move.
        """
        check_is_fitted(self)
        kept = next(iter(self.weights_.values()))
        place = usable_place(self, kept)
        machines = [machine_of(layer, place) for layer in self.layers_]
        seed = self.random_state if random_state is None else random_state
        generator = make_generator(seed, place.device)
        if init is not None:
            init = self._checked(init)
            init = self._codes(init, len(machines) - 1) if len(machines) > 1 else init
        top = of_encoded_rows(self.layers_[-1])
        states = top.sample(
            n_samples,
            n_steps=n_steps,
            burn_in=burn_in,
            init=init,
            n_chains=n_chains,
            n_temperatures=n_temperatures,
            method=method,
            random_state=int(torch.randint(2**31, (), generator=generator, device=place.device)),
        )
        samples = np.empty((n_samples, len(self.columns_.mean)), kept.dtype)
        with sampling(type(self).__name__, machines[0], n_samples):
            for start, block in rows_of(top, states, place).blocks(self._model(place).width):
                visible = sample_downwards(machines, block, generator, return_means)
                samples[start : start + len(block)] = visible.cpu().numpy()
        return self._decoded(self.columns_.with_constants(samples))

    def log_partition_function(
        self, method="auto", *, n_chains=100, n_temperatures=10_000, random_state=None
    ):
        """Log Z of the top machine, which normalises the whole model.

        Parameters
        ----------
        method : {"auto", "exact", "ais"}, default="auto"
            How, see :meth:`RBM.log_partition_function`.
        n_chains, n_temperatures : int
            Of annealed importance sampling.

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

    @maps_batches
    def score_samples(self, X, *, log_partition=None, n_draws=20):
        """Lower bound on the log-likelihood of each row.

        Parameters
        ----------
        log_partition : LogPartition or float, default=None
            What `log_partition_function` returned, or its value. None: it is called, with its
            defaults, when a score first needs it, and its value kept; with more than 20
            units in each layer of the top machine, that takes much longer than the scores.
        n_draws : int, default=20
            Draws of the hidden layers over which each row's bound is a mean.

        Returns
        -------
        scores : ndarray of shape (n_samples,)
            In nats, of the same densities or probabilities as :meth:`RBM.score_samples`; higher is
            better. A row's score does not depend on the other rows (in float32, but for rounding),
            and is the same at every call.

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

        fitted = self._fitted_model(X, len(self.layers_))
        theta = fitted.theta
        machines = [
            BipartiteMachine(theta.part(f"{number}."), layer.columns_.units(theta.flat.device))
            for number, layer in enumerate(self.layers_)
        ]
        generator = torch.Generator(theta.flat.device)

        def bounds(x):
            blocks = x.split(_BLOCK)
            # The same random numbers for every block of rows, and at every call.
            return torch.cat(
                [variational_bound(machines, b, generator.manual_seed(0), n_draws) for b in blocks]
            )

        # That of the top machine is a part of its log Z.
        volume = sum(log_volume(layer.columns_) for layer in self.layers_[:-1])
        return fitted.map_rows(bounds, X) - volume - value + self._log_derivative(X)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _layers_for(self, X, sample_weight, *, goes_on, is_part=False):
        """Checked layers to train, with checked rows and weights."""
        validate_parameters(self)
        options = {"sample_weight": sample_weight, "lowest": lowest_layer(self)}
        options["by_blocks"] = True
        data = check_rows(self, X, reset=not goes_on, **options)
        weight = check_weights(sample_weight, data)
        layers, models = make_layers(self, X, data)
        for number, (layer, model) in enumerate(zip(layers, models, strict=True)):
            if not isinstance(layer, RBM):
                raise ValueError(
                    f"Layer {number} is {layer!r}, but a DeepBeliefNetwork is made of RBMs. Use "
                    "StackedAutoEncoder for other layers."
                )
            if number > 0 and not model.units.is_binary:
                name = getattr(model.units, "name", "mixed")
                raise ValueError(
                    f"Layer {number} has {name} visible units, but those are the "
                    f"hidden units of layer {number - 1}, which are binary. Use "
                    "visible='bernoulli'."
                )
        number_of_code(self, len(layers))
        if goes_on:
            layers = continued(self.layers_, layers, self.pretraining == "prefit")
        return layers, data, weight

    def _model(self, place, n_coding=None):
        """The layers as one `Model`, whose code is that of the first so many."""
        if n_coding is None:
            n_coding = number_of_code(self, len(self.layers_)) + 1
        return stacked(models_of(self.layers_, place), n_coding=n_coding)

    def _fitted_model(self, X, n_coding=None):
        """That model with its parameters, to compute with such rows as X."""
        place = usable_place(self, X)
        return FittedModel.of(self._model(place, n_coding), self.weights_, place)

    def _codes(self, X, n_coding=None):
        """Codes of checked rows."""
        model, theta = fitted = self._fitted_model(X, n_coding)
        return fitted.map_rows(lambda x: model.encode(theta, x), X, (model.n_codes,))

    def _kept_log_partition(self):
        """Log Z of the top machine as it is now, computed once."""
        weights = self.layers_[-1].weights_
        kept_for, kept = self.__dict__.get("_log_partition", (None, None))
        if kept_for is not weights:
            kept = self.log_partition_function()
            self._log_partition = weights, kept
        return kept
