"""Deep auto-encoders whose layers hear both their neighbours, step by step."""

from collections.abc import Callable, Sequence
from functools import partial
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.frozen import FrozenEstimator

from skae._validation import HasMethods, Interval, check_count, check_is_fitted, make_generator
from skae.engine.networks.corruptions import corrupted, make_corruption
from skae.engine.networks.layers import Network
from skae.engine.networks.penalties import WeightDecay
from skae.engine.networks.recurrence import (
    Recurrence,
    RecurrentReconstruction,
    joined,
    recurrent_auto_encoder,
)
from skae.engine.optimisation.models import FittedModel, Start
from skae.estimators.auto_encoders import AutoEncoder
from skae.estimators.density.models import corruption_of
from skae.estimators.face.layer_sizes import checked_sizes, number_of
from skae.estimators.face.parameters import estimator, parameter, preset
from skae.estimators.face.rows import returns_rows
from skae.estimators.face.training import decay_in_criterion, rows_for, usable_place
from skae.estimators.face.transformer import Transformer

# What a layer that others stand on has learned, where its weights are tied.
_TIED = {"weight_0", "hidden_bias_0", "visible_bias_0"}


@estimator
class DeepRecurrentAutoEncoder(Transformer):
    r"""Deep auto-encoder in which every hidden layer hears the one below and the one above.

    Between the layers are tied weights. A hidden layer takes the mean of what its neighbours say of
    it, in ``n_steps`` steps:

    .. math::

        h_l \leftarrow s\Bigl(\tfrac{1}{2} \bigl(W_l h_{l-1} + b_l\bigr)
        + \tfrac{1}{2} \bigl(W_{l+1}^T h_{l+1} + c_l\bigr)\Bigr), \qquad
        h_L \leftarrow s(W_L h_{L-1} + b_L), \qquad h_0 = \tilde x

    The first step is a pass up, in which layers hear the one below alone. After each step a
    reconstruction is read from the lowest layer, and all count in what is minimised, averaged over
    rows:

    .. math::

        \frac{1}{T} \sum_{t=1}^{T} -\log P\bigl(x \mid r_t(\tilde x)\bigr)
        + \tfrac{\alpha}{2} \|W\|^2

    where :math:`\tilde x` is the input, corrupted if ``corruption`` is set. One hidden layer is the
    :class:`AutoEncoder`, whatever the steps. Use it where parts of a row are to be filled in from
    what the whole is taken for: high layers tell low ones what is missing.

    Read more in the :ref:`User Guide <recurrent>`.

    See Also
    --------
    DeepBoltzmannMachine : The same recurrence as the posterior of a distribution.
    StackedAutoEncoder : Layers trained in turn, heard once.

    References
    ----------
    .. [1] F. Savard. Reseaux de neurones a relaxation entraines par critere d'autoencodeur
       debruitant. Master's thesis, Universite de Montreal, 2011.
    .. [2] Y. Bengio, E. Laufer, G. Alain, J. Yosinski. Deep generative stochastic networks
       trainable by backprop. ICML 2014.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import DeepRecurrentAutoEncoder
    >>> X = load_digits().data / 16
    >>> model = DeepRecurrentAutoEncoder((32, 16), n_steps=3, max_iter=5, random_state=0).fit(X)
    >>> model.transform(X).shape
    (1797, 16)
    >>> model.denoise(X, step=0).shape
    (1797, 64)
    """

    layer_sizes: Sequence[int] | int = parameter(
        default=(256, 256),
        constraints=[Interval(Integral, 1, None, closed="left"), "array-like"],
        kind="tuple of int, or int",
        doc="Numbers of units of the hidden layers, from the data upwards.",
        kw_only=False,
    )
    n_steps: int = parameter(
        default=4,
        constraints=[Interval(Integral, 1, None, closed="left")],
        doc="Steps of the recurrence, the pass up included.",
    )
    hidden_noise: float = parameter(
        default=0.0,
        constraints=[Interval(Real, 0, None, closed="left")],
        doc="""Standard deviation of Gaussian noise on all hidden layers but the lowest, before and
        after the activation, in training and in `sample`.""",
    )
    activation: str = preset(AutoEncoder, "activation", default="sigmoid")
    loss: str | Sequence = preset(AutoEncoder, "loss", default="auto")
    corruption: str | Callable | None = preset(AutoEncoder, "corruption", default="masking")
    corruption_level: float | tuple[float, float] | Sequence[float] = preset(
        AutoEncoder, "corruption_level", default=0.25
    )
    weight_decay: float = preset(AutoEncoder, "weight_decay", default=0.0)
    pretraining: Transformer | Sequence | None = parameter(
        default=None,
        constraints=[HasMethods(["fit", "transform"]), list, tuple, None],
        kind="StackedAutoEncoder, list of estimators, or None",
        doc="""What training begins at. None: small random weights. A fitted
        :class:`StackedAutoEncoder` or its layers, from the lowest: their weights, with which the
        first pass up is that of the stack. Layers are auto-encoders of one layer with tied weights
        and this ``activation``, or RBMs (``visible_variance="unit"``), of these ``layer_sizes``,
        fitted on the same columns, and fitting leaves them as they are. To survive `clone`, as in
        a grid search, wrap each in :class:`sklearn.frozen.FrozenEstimator`.""",
    )
    code_layer: int = parameter(
        default=-1,
        constraints=[Interval(Integral, None, None, closed="neither")],
        doc="""Number of the hidden layer that `transform` returns and `inverse_transform` takes; 0
        is the lowest, -1 the top one. May be set after `fit`.""",
    )
    code_step: int = parameter(
        default=-1,
        constraints=[Interval(Integral, None, None, closed="neither")],
        doc="Number of the step after which; -1 is the last one. May be set after `fit`.",
    )
    max_iter: int | str = preset(Transformer, "max_iter", default="auto")

    _accepts_gaps = True

    @returns_rows
    def denoise(self, X, *, step=-1):
        """Reconstructions of the rows of X that are read out after a step.

        Parameters
        ----------
        step : int, default=-1
            Number of the step, from 0, the pass up, to -1, the last.

        Returns
        -------
        reconstructions : ndarray or data frame of shape (n_samples, n_features)
            In the units of the data, as of `reconstruct`.
        """
        X = self._checked(X)
        number = number_of("step", step, self.n_steps, "steps")
        model, theta = fitted = self._fitted_model(X)
        recurrence = self._recurrence

        def read_out(x):
            return model.units.mean(recurrence.steps(theta, x)[number].output)

        return self._decoded(fitted.map_rows(read_out, X, (model.n_features,)))

    @returns_rows
    def sample(self, n_samples=1, *, burn_in=100, init=None, random_state=None):
        """Draw rows by chains that are corrupted, go through all steps, and are drawn anew.

        Parameters
        ----------
        n_samples : int, default=1
            Rows to return, each the end of a chain.
        burn_in : int, default=100
            Steps of each chain.
        init : {array-like, sparse matrix} of shape (n_chains, n_features), default=None
            Rows at which chains start, in turn. None: the means of the training data.

        Returns
        -------
        samples : ndarray or data frame of shape (n_samples, n_features)
            In the units of the data, in the container of `fit` or that of ``set_output``: binary
            columns and categories are drawn, numbers are drawn with the variance of standardised
            columns.

        Raises
        ------
        ValueError
            If there was no noise in training: nothing would move.
        """
        check_is_fitted(self)
        check_count("n_samples", n_samples, 1)
        check_count("burn_in", burn_in, 1)
        if self.corruption is None and self.hidden_noise == 0:
            raise ValueError(
                "sample needs noise that training has undone: fit with a corruption, or with "
                "hidden_noise."
            )
        start = self.columns_.mean[None] if init is None else self._checked(init)
        place = usable_place(self, next(iter(self.weights_.values())))
        model, theta = FittedModel.of(self._model(place), self.weights_, place)
        seed = self.random_state if random_state is None else random_state
        generator = make_generator(seed, place.device)
        every = torch.arange(n_samples, device=place.device) % start.shape[0]
        with torch.no_grad():
            x = model.filled(rows_for(model, start, place).take(every).clone())
            corruption, recurrence = corruption_of(self, place), self._recurrence
            for _ in range(burn_in):
                noisy = x if corruption is None else corrupted(x, corruption, generator)[0]
                output = recurrence.steps(theta, noisy, generator)[-1].output
                x = model.units.sample(output, generator)
        return self._decoded(x.cpu().numpy())

    def _model(self, place):
        units = self.columns_.units(place.device)
        bias = units.bias_for_mean(place.tensor(self.columns_.standardized("mean")))
        shift, scale = self.columns_.standardization(place)
        recurrence, fill = self._recurrence, place.tensor(self.columns_.fill)
        decay = decay_in_criterion(self)
        penalties = [WeightDecay(decay)] if decay > 0 else []
        noise = corruption_of(self, place)
        return recurrent_auto_encoder(
            recurrence,
            units,
            bias,
            partial(RecurrentReconstruction, recurrence, units, noise, penalties, fill),
            layer=number_of("code_layer", self.code_layer, recurrence.network.depth),
            step=number_of("code_step", self.code_step, self.n_steps, "steps"),
            shift=shift,
            scale=scale,
            fill=fill,
            earlier=None if self.pretraining is None else partial(_start_of_layers, self),
        )

    @property
    def _recurrence(self):
        """The recurrence that the parameters ask for."""
        sizes = len(self.columns_.mean), *checked_sizes("layer_sizes", self.layer_sizes)
        network = Network(sizes, self.activation)
        return Recurrence(network, int(self.n_steps), float(self.hidden_noise))

    def _check_parameters(self):
        super()._check_parameters()
        sizes = checked_sizes("layer_sizes", self.layer_sizes)
        number_of("code_layer", self.code_layer, len(sizes))
        number_of("code_step", self.code_step, self.n_steps, "steps")
        if self.pretraining is not None:
            _layers_of(self, sizes)
        make_corruption(self.corruption, self.corruption_level)


@estimator
class GenerativeStochasticNetwork(DeepRecurrentAutoEncoder):
    r"""Deep recurrent auto-encoder with noise in its hidden layers, trained to be sampled.

    :class:`DeepRecurrentAutoEncoder` with other defaults: salt and pepper on the input, tanh units,
    and Gaussian noise before and after the activation of all hidden layers but the lowest. Its
    chain corrupts a row, goes through the steps, and draws the row anew from what is read out
    (Bengio et al. 2014).

    Read more in the :ref:`User Guide <recurrent>`.

    References
    ----------
    .. [1] Y. Bengio, E. Laufer, G. Alain, J. Yosinski. Deep generative stochastic networks
       trainable by backprop. ICML 2014.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import GenerativeStochasticNetwork
    >>> X = load_digits().data > 7
    >>> gsn = GenerativeStochasticNetwork((64, 64), max_iter=5, random_state=0).fit(X)
    >>> gsn.sample(3).shape
    (3, 64)
    """

    hidden_noise: float = preset(DeepRecurrentAutoEncoder, "hidden_noise", default=1.0)
    activation: str = preset(DeepRecurrentAutoEncoder, "activation", default="tanh")
    corruption: str | Callable | None = preset(
        DeepRecurrentAutoEncoder, "corruption", default="salt_and_pepper"
    )
    corruption_level: float | tuple[float, float] | Sequence[float] = preset(
        DeepRecurrentAutoEncoder, "corruption_level", default=0.4
    )


def _layers_of(model, sizes):
    """The fitted layers that a recurrence begins with; a ValueError for what is no such layers."""
    given = model.pretraining
    given = given.estimator if isinstance(given, FrozenEstimator) else given
    if not isinstance(given, list | tuple):
        if not hasattr(given, "layers_"):
            raise ValueError(
                f"pretraining={given!r} is no fitted StackedAutoEncoder. Fit it first, or pass a "
                "list of fitted layers."
            )
        given = given.layers_
    layers = [one.estimator if isinstance(one, FrozenEstimator) else one for one in given]
    for number, layer in enumerate(layers):
        if not isinstance(layer, Transformer) or not hasattr(layer, "weights_"):
            raise ValueError(
                f"Layer {number} of pretraining, {layer!r}, is no fitted layer. Fit it first; "
                "where the model is cloned, as in a grid search, wrap it in "
                "sklearn.frozen.FrozenEstimator."
            )
        if set(layer.weights_) != _TIED:
            raise ValueError(
                f"Layer {number} of pretraining, a {type(layer).__name__}, has the weights "
                f"{sorted(layer.weights_)}, but a recurrence has {sorted(_TIED)} of each: use "
                "auto-encoders of one layer with tied weights, or RBMs with "
                "visible_variance='unit'."
            )
        activation = getattr(layer, "activation", "sigmoid")
        if activation != model.activation:
            raise ValueError(
                f"Layer {number} of pretraining has activation={activation!r}, but this "
                f"{type(model).__name__} has {model.activation!r}. Set one of them."
            )
    found = tuple(len(layer.weights_["hidden_bias_0"]) for layer in layers)
    if found != sizes:
        raise ValueError(f"layer_sizes={sizes}, but the layers of pretraining have {found} units.")
    return layers


def _start_of_layers(model, X, weight):
    """The `Start` at what a stack's layers have learned of the same columns."""
    sizes = checked_sizes("layer_sizes", model.layer_sizes)
    layers = _layers_of(model, sizes)
    own, theirs = model.columns_, layers[0].columns_
    for name in ("shift", "scale"):
        one, other = getattr(own, name), getattr(theirs, name)
        if one.shape != other.shape or not np.allclose(one, other, rtol=1e-4, atol=1e-8):
            raise ValueError(
                "The layers of pretraining were fitted on columns of another number, kind or "
                f"scale: {name} differs. Fit them on the same rows, with the same loss."
            )
    return Start(joined([layer.weights_ for layer in layers]), was_learned=True)
