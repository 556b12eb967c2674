"""Stacks that predict: layers, and an output layer on top."""

from collections.abc import Sequence
from numbers import Integral, Real

import numpy as np

from skae._validation import Interval, check_is_fitted, check_pair, check_rows
from skae.estimators.face.outcomes import all_or_nothing
from skae.estimators.face.parameters import attribute, estimator, parameter, preset
from skae.estimators.face.scikit_learn import with_callbacks
from skae.estimators.face.training import TrainedModel
from skae.estimators.face.transformer import Transformer
from skae.estimators.stacks.auto_encoder import StackedAutoEncoder
from skae.estimators.supervised.fine_tuning import fit_stack, fitted_model
from skae.estimators.supervised.tasks import Criterion, Task
from skae.estimators.targets import Classes, Numbers

_RATE = Interval(Real, 0, 1, closed="left")


@estimator
class SupervisedStack(TrainedModel):
    """Layers that are pre-trained, an output on top, and the training of both on targets.

    A subclass says what its targets are (`_targets`) and what the training descends on
    (`_criterion`).
    """

    layer_sizes: Sequence[int] | int | None = preset(
        StackedAutoEncoder, "layer_sizes", default=None, kw_only=False
    )
    layer: str | Transformer = preset(StackedAutoEncoder, "layer", default="denoising")
    layers: Sequence | None = preset(StackedAutoEncoder, "layers", default=None)
    pretraining: str | Sequence | None = preset(
        StackedAutoEncoder, "pretraining", default="unsupervised"
    )
    n_fine_tuned_layers: int | None = parameter(
        default=None,
        constraints=[Interval(Integral, 0, None, closed="left"), None],
        doc="""int or None
        How many layers, counted from the top, are fine-tuned together with the output. None:
        all. 0: none, the output is a linear model on the codes.""",
    )
    output_penalty: float = parameter(
        default=1.0,
        constraints=[Interval(Real, 0, None, closed="left")],
        doc="""float
        Penalty on the output's weights: half the sum of their squares counts as much as the
        loss of ``output_penalty`` labelled rows. That is 1 / C of
        :class:`~sklearn.linear_model.LogisticRegression` (for two classes, which have two
        outputs here and one there, 2 / C) and alpha of
        :class:`~sklearn.linear_model.Ridge`. Fine-tuning starts from an output with a penalty
        of at least 1.""",
    )
    dropout: float | tuple[float, float] = parameter(
        default=0.0,
        constraints=[_RATE, tuple],
        doc="""float or tuple of two float
        Probability with which each unit of a layer's code is left out of a fine-tuning step; or
        first that of the columns of the data, where the lowest layer is fine-tuned, and then
        that of units.""",
    )

    stack_: StackedAutoEncoder = attribute(
        """StackedAutoEncoder
        The layers, fine-tuned: ``stack_.transform`` gives the codes that the output sees."""
    )
    output_weights_: np.ndarray = attribute(
        """ndarray of shape (n_outputs, n_codes)
        Weights of the output layer: one output for every class, or number."""
    )
    output_bias_: np.ndarray = attribute(
        """ndarray of shape (n_outputs,)
        Its biases."""
    )
    loss_curve_: list[float] = attribute(
        """list of float
        Supervised objective of each epoch of fine-tuning, in nats per labelled row."""
    )
    validation_curve_: list[float] = attribute(
        """list of float
        On held-out rows after each epoch: the error rate of classes, the loss of numbers. Empty
        without early stopping."""
    )
    n_iter_: int = attribute(
        """int
        Epochs of fine-tuning; where no layer is fine-tuned, steps of the linear model."""
    )
    n_labelled_: float = attribute(
        """float
        Rows with a target that were seen so far, each counted by its weight."""
    )

    _collapse_remedy = "Use a smaller learning_rate, or another kind of layer."

    @with_callbacks
    @all_or_nothing
    def fit(self, X, y, sample_weight=None):
        """Pre-train the layers, then train them and the output on the targets.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Training data.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Targets. Rows without one take part in pre-training, and in fine-tuning where the
            criterion has terms of them.
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
            each other, X is not finite, or y has nothing to learn from.
        """
        return fit_stack(self, X, y, sample_weight)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.target_tags.multi_output = True
        return tags

    def _targets(self) -> Classes | Numbers:
        """The kind of the targets, with what is known of them."""
        raise NotImplementedError

    def _criterion(self, task: Task) -> Criterion:
        """What training descends on, and which rows it needs."""
        raise NotImplementedError

    def _check_parameters(self):
        super()._check_parameters()
        check_pair("dropout", self.dropout, _RATE)

    def _outputs(self, X):
        """Pre-activations of the output of every row, of shape (n_samples, n_outputs)."""
        check_is_fitted(self)
        X = check_rows(self, X, reset=False)
        model, theta = fitted = fitted_model(self, X)
        n_outputs = len(self.output_bias_)
        return fitted.map_rows(lambda x: model.reconstruct(theta, x), X, (n_outputs,))
