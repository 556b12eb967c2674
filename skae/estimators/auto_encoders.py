"""Regularised auto-encoders: one family, whose named variants restate a default."""

from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from numbers import Integral, Real

import numpy as np

from skae._validation import Interval, Registered, StrOptions
from skae.engine.networks.activations import ACTIVATIONS
from skae.engine.networks.corruptions import CORRUPTIONS, has_mask, make_corruption
from skae.engine.networks.layers import Network
from skae.engine.networks.objectives import Emphasis, Reconstruction, auto_encoder
from skae.engine.networks.penalties import CONTRACTIONS, SPARSITY_PENALTIES, check_penalties
from skae.engine.networks.units import UNITS
from skae.estimators.density import densities, models, sampling
from skae.estimators.face.layer_sizes import checked_sizes
from skae.estimators.face.parameters import attribute, estimator, parameter, preset
from skae.estimators.face.transformer import LAYERS, Transformer, layer_weights
from skae.estimators.penalties import penalties_of


@LAYERS.named("auto")
@estimator
class AutoEncoder(Transformer):
    r"""Auto-encoder with any of the family's regularisers.

    Learns a code :math:`h = s(W x + b)` from which a decoder reconstructs the input.
    It minimises, averaged over rows,

    .. math::

        -\log P(x \mid r(\tilde x)) + \lambda \|J_h(\tilde x)\|_F^2 + \gamma\,
        \mathbb{E}_\epsilon \|J_h(\tilde x) - J_h(\tilde x + \epsilon)\|_F^2
        + \beta\, \Omega(h) + \tfrac{\alpha}{2} \|W\|^2 + \nu\, \mathrm{KL}(P \| Q_h)

    where :math:`\tilde x` is the input, corrupted if ``corruption`` is set,
    :math:`J_h = \partial h / \partial x`, and :math:`\lambda, \gamma, \beta, \alpha, \nu` are
    ``contraction``, ``hessian``, ``sparsity``, ``weight_decay`` and ``neighborhood``, by which
    neighbours in the data, P, remain neighbours in the code. All are 0 by default: the
    plain auto-encoder. :class:`DenoisingAutoEncoder` and :class:`ContractiveAutoEncoder`
    are this class with other defaults, and may be combined.

    Read more in the :ref:`User Guide <auto_encoders>`.

    See Also
    --------
    DenoisingAutoEncoder : Reconstructs the clean input from a corrupted one.
    ContractiveAutoEncoder : Penalises the sensitivity of the code.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skae import AutoEncoder
    >>> X, _ = load_iris(return_X_y=True)
    >>> codes = AutoEncoder(n_components=8, random_state=0).fit_transform(X)
    >>> codes.shape
    (150, 8)
    """

    n_components: int = parameter(
        default=256,
        constraints=[Interval(Integral, 1, None, closed="left")],
        doc="Number of code units.",
        kw_only=False,
    )
    hidden_layer_sizes: int | Sequence[int] = parameter(
        default=(),
        constraints=[Interval(Integral, 1, None, closed="left"), "array-like"],
        kind="tuple of int, or int",
        doc="Layers between input and code, mirrored in the decoder.",
    )
    activation: str = parameter(
        default="sigmoid",
        constraints=[Registered(ACTIVATIONS)],
        kind="{{names}}",
        doc="""Activation of every layer but the output, whose units ``loss`` sets:

        {summaries}""",
    )
    loss: str | Sequence = parameter(
        default="auto",
        constraints=[Registered(UNITS), StrOptions({"auto"}), list, tuple],
        kind="str or list of (str, columns)",
        doc="""Units of the output, and so the reconstruction loss -log P(x | r(x)), in nats:

        {summaries}
        - "auto": column by column. Columns of the values 0 and 1 are "bernoulli" (but among
          amounts, those that are 1 in few rows are amounts, too), and those that together
          are one one-hot variable are "multinomial": told by the data, where columns side by side
          sum to 1 in every row, or by names such as those that
          :class:`~sklearn.preprocessing.OneHotEncoder` gives. All other columns are
          "gaussian"; "bernoulli" if all of them lie in [0, 1] and a tenth of their entries or
          more are exactly 0 or 1, as in images and texts.

        A row whose columns of a "multinomial" are all 0 was not observed there.

        A list chooses by columns, given in any way that :class:`~sklearn.compose.ColumnTransformer`
        takes them; every column once, and one entry "multinomial" for each one-hot variable.""",
    )
    tied_weights: bool = parameter(
        default=True,
        constraints=["boolean"],
        doc="""Whether the decoder uses the transposed weights of the encoder, which a linear
        decoder of several layers cannot.""",
    )
    decoder: str = parameter(
        default="mirrored",
        constraints=[StrOptions({"mirrored", "linear"})],
        kind='{"mirrored", "linear"}',
        doc="""What reconstructs the input from the code: the layers of the encoder the other way
        round, or one affine map however many layers there are. Of a deep encoder, that asks for
        codes that show linearly what the columns are.""",
    )
    max_iter: int | str = preset(Transformer, "max_iter", default="auto")
    weight_decay: float = parameter(
        default=0.0,
        constraints=[Interval(Real, 0, None, closed="left")],
        doc="""Weight of half the sum of squared weights; with ``optimizer="adamw"`` no term of the
        objective, but what shrinks all parameters in each step.""",
    )
    sparsity: float = parameter(
        default=0.0,
        constraints=[Interval(Real, 0, None, closed="left")],
        doc="Weight of the penalty that makes codes sparse.",
    )
    sparsity_penalty: str = parameter(
        default="kl",
        constraints=[Registered(SPARSITY_PENALTIES)],
        kind="{{names}}",
        doc="""What makes codes sparse:

        {summaries}""",
    )
    sparsity_target: float = parameter(
        default=0.05,
        constraints=[Interval(Real, 0, 1, closed="neither")],
        doc="""Mean activity that the "kl" penalty aims at.""",
    )
    corruption: str | Callable | None = parameter(
        default=None,
        constraints=[Registered(CORRUPTIONS), callable, None],
        kind="{{names}}, callable or None",
        doc="""Noise on the input during training:

        {summaries}
        - noise of your own: a function of a batch, in the coordinates of the network, and a
          generator, which returns the corrupted batch and a boolean mask of what it changed, or
          None for the mask. It leaves the batch itself as it is.""",
    )
    corruption_level: float | tuple[float, float] | Sequence[float] = parameter(
        default=0.25,
        constraints=[Interval(Real, 0, None, closed="left"), tuple, "array-like"],
        kind="float, tuple (low, high) or array-like of shape (n_features,)",
        doc="""Probability of a component's corruption, at most 1; for "gaussian" the standard
        deviation of the noise, in units of the columns as standardised. A tuple: each row's is
        drawn anew, uniformly between the two. A list or an array: one for each column, or for
        each variable, where some of them are one-hot.""",
    )
    level_as_input: bool = parameter(
        default=False,
        constraints=["boolean"],
        doc="""Whether the network is told the level of a row's noise, one more input, for
        ``corruption="gaussian"`` with a range of levels, whose logarithm is then uniform; all count
        alike in the loss. For `sample` by annealing. The decoder has its own weights then, and adds
        to what columns say of themselves: codes alone make no rows.""",
    )
    walkback: int = parameter(
        default=0,
        constraints=[Interval(Integral, 0, None, closed="left")],
        doc="""Steps that the model's own chain goes on from each corrupted row in training: what
        it visits is reconstructed as the same clean row, so that no chain finds rows of its own.
        For `sample`; each costs as much as a plain training.""",
    )
    parametrization: str = parameter(
        default="reconstruction",
        constraints=[StrOptions({"reconstruction", "energy"})],
        kind='{"reconstruction", "energy"}',
        doc="""What the network is: "reconstruction", r itself, decode(encode(x)); "energy", of
        real columns, ``x - sigma^2 dE/dx`` with the energy ``|x - r_0(x)|^2 / (2 sigma^2)``, r_0
        being decode(encode(x)), so that there is an `energy` at any depth.""",
    )
    emphasis: Sequence[float] | None = parameter(
        default=None,
        constraints=["array-like", None],
        kind="tuple of two float or None",
        doc="""Weights, in the reconstruction loss, of components that were corrupted and of
        those that were not. None weighs them alike.""",
    )
    contraction: float = parameter(
        default=0.0,
        constraints=[Interval(Real, 0, None, closed="left")],
        doc="""Weight of the squared Frobenius norm of the Jacobian that
        ``contraction_target`` names.""",
    )
    contraction_target: str = parameter(
        default="encoder",
        constraints=[Registered(CONTRACTIONS)],
        kind="{{names}}",
        doc="""Which Jacobian ``contraction`` penalises:

        {summaries}""",
    )
    contraction_directions: int | str | None = parameter(
        default="auto",
        constraints=[Interval(Integral, 1, None, closed="left"), StrOptions({"auto"}), None],
        kind='int, "auto" or None',
        doc="""With several layers: by how many random directions of its output each row's Jacobian
        is seen, drawn anew in every step. The mean of :math:`\\|J^T v\\|^2` over m of them is the
        squared norm without bias; its standard error is at most :math:`\\sqrt{2 / m}` of it for a
        row, :math:`\\sqrt{2 / (m n)}` for a batch of n alike. None: by all directions, the norm
        itself, which takes the time of as many. "auto": 2. The norm of one layer is exact.""",
    )
    hessian: float = parameter(
        default=0.0,
        constraints=[Interval(Real, 0, None, closed="left")],
        doc="""Weight of the CAE+H term: the change of the encoder's Jacobian between a row and
        noisy copies of it.""",
    )
    hessian_noise: float = parameter(
        default=0.1,
        constraints=[Interval(Real, 0, None, closed="neither")],
        doc="Standard deviation of that noise.",
    )
    hessian_samples: int = parameter(
        default=4,
        constraints=[Interval(Integral, 1, None, closed="left")],
        doc="Noisy copies of each row.",
    )
    neighborhood: float = parameter(
        default=0.0,
        constraints=[Interval(Real, 0, None, closed="left")],
        doc="""Weight of the divergence, in each batch, of who is near whom in the code from who is
        near whom in the data, as in t-SNE; needs batch_size^2 numbers. See :ref:`maps`.""",
    )
    perplexity: float = parameter(
        default=5.0,
        constraints=[Interval(Real, 1, None, closed="left")],
        doc="To how many rows of a batch, about, a row is near, for ``neighborhood``.",
    )

    penalties: Sequence = parameter(
        default=(),
        constraints=[list, tuple],
        kind="list or tuple of penalties",
        doc="""More terms of the criterion, of your own: objects with a number ``weight`` and a
        method ``value(theta, forward)`` that returns a scalar tensor, as those of
        `skae.engine.networks.penalties`, which says what else they may have.""",
    )

    spread_: np.ndarray = attribute(
        "ndarray of shape (n_features_in_,)",
        "Standard deviation of each column, as the network sees it.",
    )
    residual_variance_: np.ndarray = attribute(
        "ndarray of shape (n_features_in_,)",
        """Mean square of what the reconstruction of a corrupted row misses, of each column as the
        network sees it.""",
    )

    _accepts_gaps = True

    sample = sampling.sample
    score_field = densities.score_field
    local_moments = densities.local_moments
    energy = densities.energy
    log_partition_function = densities.log_partition_function
    score_samples = densities.score_samples
    chain_log_likelihood = densities.chain_log_likelihood

    components_ = layer_weights(
        "weight_0",
        "ndarray of shape (n_components, n_features_in_)",
        """Weights of the encoder, one filter per row, for (x - columns_.shift) / columns_.scale;
        where there is one layer.""",
    )
    decoder_components_ = layer_weights(
        "decoder_weight_0",
        "ndarray of shape (n_components, n_features_in_)",
        "Weights of the decoder, where there is one layer; ``components_`` if tied.",
        "weight_0",
    )
    intercept_hidden_ = layer_weights(
        "hidden_bias_0",
        "ndarray of shape (n_components,)",
        "Biases of the code, where there is one layer.",
    )
    intercept_visible_ = layer_weights(
        "visible_bias_0",
        "ndarray of shape (n_features_in_,)",
        "Biases of the output, where there is one layer.",
    )

    def _model(self, place):
        sizes = (
            len(self.columns_.mean),
            *checked_sizes("hidden_layer_sizes", self.hidden_layer_sizes, may_be_empty=True),
            int(self.n_components),
        )
        linear = self.decoder == "linear"
        potential, told = self.parametrization == "energy", bool(self.level_as_input)
        if told:
            models.check_noise(self)  # which may have changed since `fit`
        tied = self.tied_weights and not (linear and len(sizes) > 2) and not told
        network = Network(sizes, self.activation, tied, linear, potential, told)
        units = self.columns_.units(place.device)
        bias = units.bias_for_mean(place.tensor(self.columns_.standardized("mean")))
        shift, scale = self.columns_.standardization(place)
        fill = place.tensor(self.columns_.fill)
        own = models.own_column_of(self, place)
        train = partial(_reconstruction, self, network, units, place, own)
        return auto_encoder(network, units, bias, train, shift, scale, fill, own)

    def _check_parameters(self):
        super()._check_parameters()
        models.check_noise(self)
        checked_sizes("hidden_layer_sizes", self.hidden_layer_sizes, may_be_empty=True)
        make_corruption(self.corruption, self.corruption_level)
        if self.emphasis is not None and not has_mask(self.corruption):
            names = [repr(name) for name in CORRUPTIONS if has_mask(name)]
            raise ValueError(
                "emphasis tells corrupted components from others, so it needs "
                f"corruption={' or '.join(names)}, not {self.corruption!r}."
            )
        if self.emphasis is not None and not (
            len(self.emphasis) == 2
            and all(isinstance(weight, Real) and 0 <= weight < inf for weight in self.emphasis)
            and any(self.emphasis)
        ):
            raise ValueError(
                f"emphasis={self.emphasis!r} must be two finite weights of at least 0, not both "
                "0: of corrupted and of untouched components."
            )
        check_penalties(penalties_of(self), ACTIVATIONS[self.activation].range)


def _reconstruction(model, network, units, place, own_column):
    """The criterion that the parameters of an auto-encoder ask for."""
    emphasis = None if model.emphasis is None else Emphasis(*model.emphasis)
    parts = models.corruption_of(model, place), emphasis, penalties_of(model)
    fill = place.tensor(model.columns_.fill)
    return Reconstruction(network, units, *parts, fill, int(model.walkback), own_column)


@LAYERS.named("denoising")
@estimator
class DenoisingAutoEncoder(AutoEncoder):
    r"""Auto-encoder that reconstructs the clean input from a corrupted one.

    It minimises, averaged over rows and corruptions,

    .. math::

        -\log P(x \mid r(\tilde x)), \qquad \tilde x \sim q(\tilde x \mid x)

    with :math:`q` set by ``corruption`` and ``corruption_level``. To undo the corruption the code
    has to hold what is regular in the data: how each column depends on the others.
    :class:`AutoEncoder` with ``corruption="masking"``; all of its regularisers can be added.

    Read more in the :ref:`User Guide <denoising>`.

    See Also
    --------
    ContractiveAutoEncoder : Penalises the sensitivity of the code instead.

    References
    ----------
    .. [1] P. Vincent, H. Larochelle, I. Lajoie, Y. Bengio, P.-A. Manzagol. Stacked
       denoising autoencoders. Journal of Machine Learning Research 11, 2010.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skae import DenoisingAutoEncoder
    >>> X, _ = load_iris(return_X_y=True)
    >>> dae = DenoisingAutoEncoder(n_components=8, random_state=0).fit(X)
    >>> dae.transform(X).shape
    (150, 8)
    """

    corruption: str | Callable | None = preset(AutoEncoder, "corruption", default="masking")


@LAYERS.named("contractive")
@estimator
class ContractiveAutoEncoder(AutoEncoder):
    r"""Auto-encoder whose code is insensitive to all but the data's own variations.

    It minimises, averaged over rows,

    .. math::

        -\log P(x \mid r(x)) + \lambda \left\| \frac{\partial h(x)}{\partial x} \right\|_F^2,
        \qquad \text{for sigmoid codes }
        \|J\|_F^2 = \sum_j (h_j (1 - h_j))^2 \sum_i W_{ji}^2

    with :math:`\lambda` = ``contraction``. The penalty shrinks the code's response in all
    directions; the reconstruction defends the directions along which the data vary.
    :class:`AutoEncoder` with a contraction; all of its regularisers can be added.

    Read more in the :ref:`User Guide <contractive>`.

    See Also
    --------
    DenoisingAutoEncoder : Contracts the reconstruction by noise instead.

    References
    ----------
    .. [1] S. Rifai, P. Vincent, X. Muller, X. Glorot, Y. Bengio. Contractive
       auto-encoders: explicit invariance during feature extraction. ICML 2011.
    .. [2] S. Rifai, G. Mesnil, P. Vincent, X. Muller, Y. Bengio, Y. Dauphin, X. Glorot.
       Higher order contractive auto-encoder. ECML 2011.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.svm import SVC
    >>> from skae import ContractiveAutoEncoder
    >>> X, y = load_digits(return_X_y=True)
    >>> model = make_pipeline(ContractiveAutoEncoder(64, max_iter=20, random_state=0), SVC())
    >>> bool(model.fit(X[:1000], y[:1000]).score(X[1000:], y[1000:]) > 0.9)
    True
    """

    contraction: float = preset(AutoEncoder, "contraction", default=0.1)
