"""Stacks of layers as one transformer."""

import copy
from numbers import Integral

import numpy as np
from sklearn.utils.metaestimators import available_if

from skae._validation import Interval, StrOptions, check_rows, check_weights
from skae.engine.networks.affine_maps import decoder_maps, encoder_maps
from skae.engine.networks.layers import ACTIVATIONS
from skae.engine.optimisation.training import Training
from skae.engine.stacks.stacking import UnrolledReconstruction, decode_levels, encode_levels
from skae.estimators.face.outcomes import all_or_nothing, of_layer, report_collapse, some_rows
from skae.estimators.face.parameters import estimator, parameter
from skae.estimators.face.progress import CallbackBridge, with_callbacks
from skae.estimators.face.transformer import TrainedTransformer
from skae.estimators.stacks.checks import require_gradients
from skae.estimators.stacks.layers import StackParameters, continued, make_levels
from skae.estimators.stacks.pretraining import (
    pretrain_in_turn,
    pretrain_together,
    projection,
)
from skae.estimators.stacks.unrolling import unrolled
from skae.estimators.supervised.targets import infer_targets


@estimator
class StackedAutoEncoder(StackParameters, TrainedTransformer):
    r"""Layers of auto-encoders and their relatives, each on the codes of the one below.

    Layer :math:`l` minimises its own criterion :math:`L_l` on the codes of the layers below it,

    .. math::

        \frac{1}{n} \sum_i L_l\bigl(\theta_l;\; h_l(x_i)\bigr), \qquad
        h_0(x) = x, \quad h_{l+1}(x) = \mathrm{encode}_l\bigl(h_l(x)\bigr)

    one after the other, from the data upwards, or all at the same time. With ``fine_tuning``,
    encoders and decoders are then unrolled into one deep auto-encoder, whose decoder has weights
    of its own, and the whole is trained on

    .. math::

        -\log P\bigl(x \mid r(x)\bigr), \qquad
        r = \mathrm{decode}_0 \circ \ldots \circ \mathrm{decode}_{L-1} \circ \mathrm{encode}_{L-1}
        \circ \ldots \circ \mathrm{encode}_0

    Use it for features more abstract than one layer finds, and, with ``fine_tuning`` and a small
    top layer, to compress data. To predict a target, use :class:`StackedClassifier` or
    :class:`StackedRegressor`.

    Read more in the :ref:`User Guide <stacks>`.

    Parameters
    ----------
    {parameters}

    Attributes
    ----------
    {attributes}

    See Also
    --------
    AutoEncoder : With ``hidden_layer_sizes``, deep from the start, without pre-training.
    StackedClassifier : A stack that predicts classes.
    DeepBeliefNetwork : A stack of RBMs as a distribution of the data.

    References
    ----------
    .. [1] G. Hinton, R. Salakhutdinov. Reducing the dimensionality of data with neural
       networks. Science 313, 2006.
    .. [2] Y. Bengio, P. Lamblin, D. Popovici, H. Larochelle. Greedy layer-wise training of deep
       networks. NIPS 2006.
    .. [3] H. Larochelle, Y. Bengio, J. Louradour, P. Lamblin. Exploring strategies for training
       deep neural networks. Journal of Machine Learning Research 10, 2009.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import StackedAutoEncoder
    >>> X, _ = load_digits(return_X_y=True)
    >>> stack = StackedAutoEncoder((64, 16), max_iter=10, random_state=0).fit(X)
    >>> stack.transform(X).shape
    (1797, 16)
    >>> stack.set_params(code_layer=0).transform(X).shape
    (1797, 64)
    """

    fine_tuning: bool = parameter(
        default=False,
        constraints=["boolean"],
        doc="""bool
        Whether to unroll the stack and train the whole on the reconstruction of the data, for
        ``max_iter`` epochs.""",
    )
    code_activation: str = parameter(
        default=None,
        constraints=[StrOptions(set(ACTIVATIONS)), None],
        doc="""{"sigmoid", "tanh", "relu", "softplus", "linear"} or None
        Activation of the top layer, where ``layer`` and not ``layers`` chooses them. None: that
        of the others. A top layer of RBM or PSD kind becomes an auto-encoder then.""",
    )
    code_layer: int = parameter(
        default=-1,
        constraints=[Interval(Integral, None, None, closed="neither")],
        doc="""int
        Number of the layer whose codes `transform` returns and `inverse_transform` takes; -1 is
        the top one. May be set after `fit`.""",
    )

    _attributes_doc = """
    layers_ : list of estimators
        The fitted layers, from the data upwards. What they have learned is what the stack has
        learned, also in training as a whole. With ``fine_tuning``, auto-encoders whose decoders
        have weights of their own.
    layer_loss_curves_ : list of list of float
        Training objective of each layer and epoch of pre-training.
    loss_curve_ : list of float
        Objective of each epoch in which all layers were trained together: that of fine-tuning,
        else of simultaneous training, else empty.
    n_iter_ : int
        Epochs of all layers and of the whole.""" + TrainedTransformer._attributes_doc.replace(
        """
    weights_ : dict of str to ndarray
        All learned parameters by name.""",
        """
    weights_ : dict of str to ndarray
        All learned parameters, those of layer 0 as ``"0.weight_0"`` and the like.""",
    ).replace(
        """
    n_iter_ : int
        Epochs run.
    loss_curve_ : list of float
        Training objective of each epoch, in nats per row: a mean over the epoch's
        batches, so it includes the epoch's progress.""",
        "",
    )

    @with_callbacks
    @all_or_nothing
    def fit(self, X, y=None, sample_weight=None):
        """Train the layers, and then the whole if ``fine_tuning``.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Training data.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Only for supervised pre-training: classes (integers, of which -1 stands for an
            unknown one, booleans or strings) or numbers (NaN for unknown ones).
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows; a row of weight 0 is left out.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            Before any layer is trained: if a parameter is out of its range, layers do not fit
            each other or what is to be done with them, or X or y are not what they should be.
        """
        self._validate_parameters()
        layers = self._make_layers()
        data = check_rows(self, X, reset=True)
        weight = check_weights(sample_weight, data)
        targets = self._targets(y, weight, data.shape[0]) if self._needs_targets else None
        bridge = CallbackBridge(self, self.max_iter, X, y, sample_weight)
        self._fit_layers(layers, X, data, sample_weight, weight, targets, bridge)
        self.__dict__.pop("_training_state", None)
        bridge.finish()
        return self

    def _learns_in_parts(self):
        if self._needs_targets:
            raise AttributeError(
                f"partial_fit trains every layer by its own criterion, but pretraining="
                f"{self.pretraining!r}. Use pretraining='unsupervised', or call fit."
            )
        return True

    @available_if(_learns_in_parts)
    @all_or_nothing
    def partial_fit(self, X, y=None, sample_weight=None):
        """Continue learning with one pass over the rows of X for every layer in turn.

        Each layer continues on the codes of those below as they are then, by its own
        `partial_fit`. With ``fine_tuning``, only the first call does so, and every call makes a
        pass of the unrolled whole: pre-train a stack on many rows first, and pass its layers
        with ``pretraining="prefit"``. Not there with supervised pre-training.

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
        self._validate_parameters()
        fresh = not hasattr(self, "layers_")
        layers = self._make_layers()
        if not fresh:
            layers = continued(self.layers_, layers, self.pretraining == "prefit")
        data = check_rows(self, X, reset=fresh)
        weight = check_weights(sample_weight, data)
        trains = self.pretraining not in ("prefit", None) and not (self.fine_tuning and not fresh)
        if fresh and self.pretraining is None:
            modes = self._modes(len(layers))
            pretrain_in_turn(layers, modes, X, data, sample_weight, weight, None, 1.0)
        if fresh and self.pretraining == "prefit":
            layers[0]._prepare(X, None, fresh=False)
        codes, before = data, [len(getattr(layer, "loss_curve_", ())) for layer in layers]
        for number, layer in enumerate(layers):
            if trains:
                with of_layer(number):
                    layer.partial_fit(X if number == 0 else codes, sample_weight=sample_weight)
            if trains and number + 1 < len(layers):
                codes = layer._codes(codes)
        curve = [] if fresh else self.loss_curve_
        n_iter = 0 if fresh else self.n_iter_
        self._keep_layers(layers, Training([], [], {}, "max_iter", 0))
        if self.fine_tuning:
            self.layers_ = [unrolled(layer) for layer in self.layers_]
            training = self._train(
                data, weight, fresh=False, max_iter=1, hold_out=False, resumable=True
            )
            curve = curve + training.loss_curve
        after = [len(getattr(layer, "loss_curve_", ())) for layer in layers]
        n_iter += sum(after) - sum(before) + bool(self.fine_tuning)
        self.loss_curve_, self.n_iter_ = curve, n_iter
        return self

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = self._needs_targets
        return tags

    _collapse_remedy = (
        "Look at layers_ for the first one whose codes do not vary; try weaker penalties, a "
        "smaller learning_rate or another kind of layer."
    )

    @property
    def weights_(self):
        """All learned parameters, by the number of their layer and their name."""
        return {
            f"{number}.{name}": array
            for number, layer in enumerate(self.layers_)
            for name, array in layer.weights_.items()
        }

    @weights_.setter
    def weights_(self, weights):
        for number, layer in enumerate(self.layers_):
            prefix = f"{number}."
            layer.weights_ = {
                name.removeprefix(prefix): array
                for name, array in weights.items()
                if name.startswith(prefix)
            }

    @property
    def columns_(self):
        """Units and statistics of the data's columns: those of the lowest layer."""
        return self.layers_[0].columns_

    @property
    def layer_loss_curves_(self):
        """Training objective of each layer and epoch of pre-training."""
        return [layer.loss_curve_ for layer in self.layers_]

    def _targets(self, y, weight, n_rows):
        if y is None:
            raise ValueError(
                f"With pretraining={self.pretraining!r} this {type(self).__name__} requires y to "
                "be passed, but the target y is None. Pass it, or use pretraining='unsupervised'."
            )
        y = np.atleast_1d(np.asarray(y))
        if len(y) != n_rows:
            raise ValueError(f"y has {len(y)} entries, but X has {n_rows} rows.")
        return infer_targets(y, weight)

    def _fit_from(self, layers, X, sample_weight, weight, targets):
        """`fit` with layers that were made and targets that were encoded already."""
        data = check_rows(self, X, reset=True, finite=False)
        self._fit_layers(layers, X, data, sample_weight, weight, targets)

    def _shallow_copy(self):
        """A copy whose layers can be trained on without changing this one's."""
        new = copy.copy(self)
        new.layers_ = [copy.copy(layer) for layer in self.layers_]
        return new

    def _fit_layers(self, layers, X, data, sample_weight, weight, targets, bridge=None):
        """Pre-train the layers and fine-tune the whole, as the parameters say."""
        continues = self.warm_start and hasattr(self, "layers_")
        trained = Training([], [], {}, "max_iter", 0)
        if continues:
            layers = continued(self.layers_, layers, self.pretraining == "prefit")
            for layer in layers:
                layer.warm_start = True
        if not (continues and self.fine_tuning) and self.pretraining != "prefit":
            if self.pretraining == "simultaneous":
                if not continues:
                    pretrain_in_turn(
                        layers, [None] * len(layers), X, data, sample_weight, weight, None, 1.0
                    )
                trained = pretrain_together(self, layers, data, weight, bridge)
            else:
                modes = self._modes(len(layers))
                pretrain_in_turn(
                    layers, modes, X, data, sample_weight, weight, targets, self.supervision
                )
        elif self.pretraining == "prefit" and not continues:
            layers[0]._prepare(X, None, fresh=False)
            layers = [copy.copy(layer) for layer in layers]
        n_epochs = 0 if continues and self.fine_tuning else sum(layer.n_iter_ for layer in layers)
        self._keep_layers(layers, trained)
        # Who interrupts the training of the last layer wants to wait no longer.
        interrupted = self._was_interrupted and not continues
        if self.fine_tuning and not interrupted:
            self.layers_ = [unrolled(layer) for layer in layers]
            trained = self._train(
                data,
                weight,
                fresh=False,
                max_iter=self.max_iter,
                hold_out=self.early_stopping,
                start_is_model=self.pretraining is not None and not continues,
                bridge=bridge,
            )
            self.loss_curve_ = trained.loss_curve
            self.validation_curve_ = trained.validation_curve
            n_epochs += len(trained.loss_curve)
        self.n_iter_ = n_epochs
        if trained.loss_curve:
            report_collapse(self, some_rows(data, weight), trained)

    @property
    def _was_interrupted(self):
        """Whether pre-training was, in its last layer."""
        trained = self.pretraining not in ("prefit", None)
        return trained and self.layers_[-1].stopping_reason_ == "interrupted"

    def _keep_layers(self, layers, training):
        self.layers_ = layers
        self.loss_curve_, self.validation_curve_ = training.loss_curve, training.validation_curve
        self.stopping_reason_, self.device_ = layers[-1].stopping_reason_, layers[-1].device_

    def _check_layers(self, layers):
        super()._check_layers(layers)
        if self.fine_tuning:
            require_gradients(layers, "fine-tuning")

    def _make_layers(self):
        layers = super()._make_layers()
        if not -len(layers) <= self.code_layer < len(layers):
            raise ValueError(
                f"code_layer={self.code_layer}, but there are {len(layers)} layers, from 0 to "
                f"{len(layers) - 1}."
            )
        return layers

    @property
    def _top_activation(self):
        return self.code_activation

    @property
    def _n_levels(self):
        """Number of layers up to the code."""
        n_layers = len(self.layers_)
        if not -n_layers <= self.code_layer < n_layers:
            raise ValueError(f"code_layer={self.code_layer}, but there are {n_layers} layers.")
        return self.code_layer % n_layers + 1

    @property
    def _n_features_out(self):
        return self.layers_[self._n_levels - 1]._n_features_out

    def _parameter_shapes(self):
        return {
            f"{number}.{name}": shape
            for number, layer in enumerate(self.layers_)
            for name, shape in layer._parameter_shapes().items()
        }

    def _levels(self, like, n_levels, *, differentiable=False):
        layers = self.layers_[:n_levels]
        return make_levels(layers, 0, like.dtype, like.device, differentiable=differentiable)

    @property
    def _hindered_gradient(self):
        reasons = [layer._hindered_gradient for layer in self.layers_[: self._n_levels]]
        return next(filter(None, reasons), None)

    def _affine_maps(self, like):
        levels = self._levels(like, self._n_levels)
        return encoder_maps(levels), decoder_maps(levels)

    def _codes_of(self, theta, x, n_levels, *, differentiable=False):
        """The codes after so many layers; the data, as the lowest layer sees them, after none."""
        levels = self._levels(x, n_levels, differentiable=differentiable)
        return encode_levels(theta, x, levels)[-1] if levels else x

    def _codes_below(self, X, number):
        """What layer ``number`` sees of checked rows, before it is standardised."""

        def codes(theta, x):
            return self._codes_of(theta, x, number)

        width = self.layers_[number - 1]._n_features_out
        return self._map_rows(X, codes, (width,), standardize=True)

    def _encode(self, theta, x):
        return self._codes_of(theta, x, self._n_levels)

    def _differentiable_code(self, theta, x):
        return self._codes_of(theta, x, self._n_levels, differentiable=True)

    def _decode(self, theta, code):
        return decode_levels(theta, code, self._levels(code, self._n_levels))

    def _make_objective(self, theta):
        levels = self._levels(theta.flat, len(self.layers_), differentiable=True)
        return UnrolledReconstruction(levels)

    def _make_projection(self, objective):
        return projection(self.layers_, 0)
