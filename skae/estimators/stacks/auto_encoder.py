"""Stacks of layers as one transformer."""

import copy
from numbers import Integral

import torch
from sklearn.utils import check_consistent_length
from sklearn.utils.metaestimators import available_if

from skae._validation import Interval, Registered, as_array, check_rows, check_weights
from skae.engine.networks.activations import ACTIVATIONS
from skae.engine.optimisation.devices import Place
from skae.engine.optimisation.models import Start
from skae.engine.stacks.stacking import stacked
from skae.estimators.auto_encoders import AutoEncoder
from skae.estimators.face.callbacks import callbacks_of, refuse_callbacks
from skae.estimators.face.learning import learns
from skae.estimators.face.outcomes import report_collapse, some_rows
from skae.estimators.face.parameters import (
    attribute,
    estimator,
    fitted_property,
    parameter,
    preset,
)
from skae.estimators.face.parts import fits_batches, fits_batches_on
from skae.estimators.face.stopping import own_rows
from skae.estimators.face.training import CallbackBridge
from skae.estimators.face.transformer import Transformer
from skae.estimators.stacks import sampling
from skae.estimators.stacks.continuing import continued
from skae.estimators.stacks.layers import (
    StackParameters,
    make_layers,
    models_of,
    needs_targets,
    number_of_code,
    require_gradients,
    weights_of,
    with_weights,
)
from skae.estimators.stacks.lowest_layer import accepts_gaps, lowest_layer, shared_by_layers
from skae.estimators.stacks.pretraining import facts_of, partly_trained, pretrained, was_interrupted
from skae.estimators.targets import infer_targets


@estimator
class StackedAutoEncoder(StackParameters, Transformer):
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

    max_iter: int | str = preset(Transformer, "max_iter", default="auto")
    fine_tuning: bool = parameter(
        default=False,
        constraints=["boolean"],
        doc="""Whether to unroll the stack and train the whole on the reconstruction of the data,
        for ``max_iter`` epochs.""",
    )
    code_activation: str | None = parameter(
        default=None,
        constraints=[Registered(ACTIVATIONS), None],
        kind='{"sigmoid", "tanh", "relu", "softplus", "leaky_relu", "linear"} or None',
        doc="""Activation of the top layer, where ``layer`` and not ``layers`` chooses them. None:
        that of the others. A top layer of a kind that has no such activation, as an RBM, becomes an
        auto-encoder then.""",
    )
    code_layer: int = parameter(
        default=-1,
        constraints=[Interval(Integral, None, None, closed="neither")],
        doc="""Number of the layer whose codes `transform` returns and `inverse_transform` takes; -1
        is the top one. May be set after `fit`.""",
    )

    layers_: list = attribute(
        "list of estimators",
        """The fitted layers, from the data upwards. What they have learned is what the stack has
        learned, also in training as a whole. With ``fine_tuning``, their decoders have weights
        of their own.""",
    )
    loss_curve_: list[float] = attribute(
        "list of float",
        """Objective of each epoch in which all layers were trained together: that of fine-tuning,
        else of simultaneous training, else empty.""",
    )
    n_iter_: int = attribute("int", "Epochs of all layers and of the whole.")

    _collapse_remedy = (
        "Look at layers_ for the first one whose codes do not vary; try weaker penalties, a "
        "smaller learning_rate or another kind of layer."
    )

    sample = sampling.sample

    @learns(callbacks=True, batches=fits_batches)
    def fit(self, X, y=None, sample_weight=None):
        """Train the layers, and then the whole if ``fine_tuning``.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Training data.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Only for supervised pre-training: classes (integers or strings, of which -1 stands
            for an unknown one, or booleans) or numbers (floats, whole or not; NaN for unknown
            ones).

        Raises
        ------
        ValueError
            Before any layer is trained: if a parameter is out of its range, layers do not fit
            each other or what is to be done with them, or X or y are not what they should be.
        """
        self._check_parameters()
        goes_on = self.warm_start and hasattr(self, "layers_")
        data, weight = self._rows_for(X, sample_weight, goes_on)
        own_rows(self, lowest=lowest_layer(self))  # before any layer is trained
        rows, layers = (X, data, sample_weight, weight), self._layers_for(X, data, goes_on)
        targets = self._targets(y, weight, data) if needs_targets(self) else None
        bridge = CallbackBridge(self, self.max_iter, X, y, sample_weight)
        if goes_on and self.fine_tuning:
            vars(self).update(facts_of(layers) | {"n_iter_": 0})
        else:
            tells = bridge if not self.fine_tuning or self.pretraining == "simultaneous" else None
            layers, training = pretrained(
                self, layers, *rows, targets, goes_on=goes_on, bridge=tells
            )
            vars(self).update(facts_of(layers, training))
        self.__dict__.pop("_training_state", None)
        # Who interrupts the training of the last layer wants to wait no longer.
        if self.fine_tuning and (goes_on or not was_interrupted(self)):
            self.layers_ = [unrolled(layer) for layer in layers]
            bridge.attributes_of = lambda weights: {"weights_": weights}
            was_learned = self.pretraining is not None and not goes_on
            start = Start(self.weights_, was_learned=was_learned)
            training, _ = self._learn(
                data, weight, start, holds_out=self.early_stopping, bridge=bridge
            )
            self.loss_curve_ = training.loss_curve
            self.validation_curve_ = training.validation_curve
            self.n_iter_ += len(training.loss_curve)
        if training.loss_curve:
            some = some_rows(data, weight)
            report_collapse(self, self._fitted_model(some), some, training)
        bridge.finish()
        return self

    def _learns_in_parts(self):
        if needs_targets(self):
            raise AttributeError(
                f"partial_fit trains every layer by its own criterion, but pretraining="
                f"{self.pretraining!r}. Use pretraining='unsupervised', or call fit."
            )
        return True

    @available_if(_learns_in_parts)
    @learns(batches=fits_batches_on)
    def partial_fit(self, X, y=None, sample_weight=None):
        """Continue learning with one pass over the rows of X for every layer in turn.

        Each layer continues on the codes of those below as they are then, by its own
        `partial_fit`. With ``fine_tuning``, only the first call does so, and every call makes a
        pass of the unrolled whole: pre-train a stack on many rows first, and pass its layers
        with ``pretraining="prefit"``. Not there with supervised pre-training.
        """
        self._check_parameters()
        refuse_callbacks(self)
        goes_on = hasattr(self, "layers_")
        data, weight = self._rows_for(X, sample_weight, goes_on)
        layers = self._layers_for(X, data, goes_on)
        curve, n_iter = (self.loss_curve_, self.n_iter_) if goes_on else ([], 0)
        # Once unrolled, the layers learn no more by themselves.
        if not (goes_on and self.fine_tuning):
            layers, n_passes = partly_trained(
                self, layers, X, data, sample_weight, weight, goes_on=goes_on
            )
            n_iter += n_passes
        vars(self).update(facts_of(layers))
        if self.fine_tuning:
            self.layers_ = [unrolled(layer) for layer in layers]
            state = self.__dict__.get("_training_state")
            training, _ = self._learn(data, weight, Start(self.weights_, state, resumes=True))
            curve, n_iter = curve + training.loss_curve, n_iter + 1
        self.loss_curve_, self.validation_curve_, self.n_iter_ = curve, [], n_iter
        return self

    @fitted_property  # type: ignore[misc]
    def weights_(self):
        """Dict of str to ndarray
        All learned parameters, those of layer 0 as ``"0.weight_0"`` and the like.
        """
        return weights_of(self.layers_)

    @weights_.setter  # type: ignore[no-redef]
    def weights_(self, weights):
        self.layers_ = with_weights(self.layers_, weights)

    @fitted_property  # type: ignore[misc]
    def columns_(self):
        """Columns
        Losses, shift, scale, mean and range of the data's columns: those of the lowest layer,
        which sees (x - columns_.shift) / columns_.scale.
        """
        return self.layers_[0].columns_

    @property
    def _accepts_gaps(self):
        return accepts_gaps(self)

    @fitted_property
    def layer_loss_curves_(self):
        """List of list of float
        Training objective of each layer and epoch of pre-training.
        """
        return [layer.loss_curve_ for layer in self.layers_]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = needs_targets(self)
        return tags

    def _model(self, place):
        n_coding = number_of_code(self, len(self.layers_)) + 1
        return stacked(models_of(self.layers_, place), n_coding=n_coding)

    def _check_parameters(self):
        super()._check_parameters()
        has_whole = self.fine_tuning or self.pretraining == "simultaneous"
        if callbacks_of(self).stopping is not None and not has_whole:
            raise ValueError(
                f"EarlyStopping watches the training of a whole {type(self).__name__}, and there "
                "is none: its layers are trained one after the other. Use fine_tuning=True or "
                "pretraining='simultaneous', or early_stopping=True in a layer."
            )

    def _rows_for(self, X, sample_weight, goes_on):
        """Checked rows and weights, read as the lowest layer reads tables."""
        options = {"sample_weight": sample_weight, "lowest": lowest_layer(self)}
        options["by_blocks"] = True
        data = check_rows(self, X, reset=not goes_on, **options)
        return data, check_weights(sample_weight, data)

    def _layers_for(self, X, data, goes_on):
        """Checked layers to train: new ones, or those of before with the parameters of today."""
        learned, top = self.layers_ if goes_on else None, self.code_activation
        layers, models = make_layers(self, X, data, top_activation=top, learned=learned)
        number_of_code(self, len(layers))
        if self.fine_tuning:
            require_gradients(layers, models, range(len(layers)), "fine-tuning")
        return continued(self.layers_, layers, self.pretraining == "prefit") if goes_on else layers

    def _targets(self, y, weight, data):
        if y is None:
            raise ValueError(
                f"With pretraining={self.pretraining!r} this {type(self).__name__} requires y to "
                "be passed, but the target y is None. Pass it, or use pretraining='unsupervised'."
            )
        check_consistent_length(data, as_array(y))
        return infer_targets(y, weight)


def unrolled(layer):
    """A copy of a fitted layer with decoder weights of its own, to be trained with the others.

    It encodes and decodes as the layer does. Where its weights are no others than those of an
    auto-encoder, it is one.
    """
    model = layer._model(Place(torch.float32, torch.device("cpu")))
    if model.untied is None:
        return copy.copy(layer)
    if hasattr(layer, "tied_weights"):
        twin = copy.copy(layer)
        twin.tied_weights = False
    else:
        twin = AutoEncoder(model.n_codes, tied_weights=False, **shared_by_layers(layer))
        vars(twin).update({name: value for name, value in vars(layer).items() if name[-1] == "_"})
        twin.columns_ = layer.columns_.replaced(parameter=twin._loss_parameter)
    twin.weights_ = model.untied(layer.weights_)
    twin.unrolled_from_ = getattr(layer, "unrolled_from_", type(layer).__name__)
    return twin
