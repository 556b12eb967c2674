"""Stacks that predict: layers, and an output layer on top."""

from collections.abc import Callable, Sequence
from numbers import Integral, Real

import numpy as np
from scipy import special

from skae._validation import (
    Interval,
    Registered,
    StrOptions,
    check_is_fitted,
    check_rows,
)
from skae.engine.stacks.kernel_output import KERNELS
from skae.estimators.face.learning import learns
from skae.estimators.face.parameters import (
    attribute,
    check_function,
    check_pair,
    estimator,
    parameter,
    preset,
)
from skae.estimators.face.scikit_learn import ClassifierMixin, RegressorMixin
from skae.estimators.face.training import TrainedModel
from skae.estimators.face.transformer import Transformer
from skae.estimators.stacks.auto_encoder import StackedAutoEncoder
from skae.estimators.stacks.lowest_layer import accepts_gaps
from skae.estimators.supervised.fine_tuning import fit_part, fit_stack, fitted_model
from skae.estimators.supervised.kernels import KernelOutput, kernel_outputs
from skae.estimators.supervised.watching import check_watching
from skae.estimators.targets import Classes, Numbers

_RATE = Interval(Real, 0, 1, closed="left")


@estimator
class SupervisedStack(TrainedModel):
    """Layers that are pre-trained, an output on top, and the training of both on targets.

    A subclass says what its targets are (`_targets`).
    """

    layer_sizes: Sequence[int] | int | None = preset(
        StackedAutoEncoder, "layer_sizes", default=None, kw_only=False
    )
    layer: str | Transformer = preset(StackedAutoEncoder, "layer", default="denoising")
    layers: Sequence | None = preset(StackedAutoEncoder, "layers", default=None)
    pretraining: str | Sequence | None = preset(
        StackedAutoEncoder, "pretraining", default="unsupervised"
    )
    max_iter: int | str = preset(StackedAutoEncoder, "max_iter", default="auto")
    output: str | Callable = parameter(
        default="auto",
        constraints=[StrOptions({"auto", "linear"}), Registered(KERNELS), callable],
        kind='{"auto", "linear", "kernel"} or callable',
        doc="""What is on top of the layers:

        - "linear": an affine map, fine-tuned together with the layers;
        - "kernel": a ridge regression on the targets with a kernel, the mean of exp(-d(x, z) / 2 m)
          over city block and Euclidean distances, m being the mean distance, and over the columns
          and the codes of each layer. Nothing is fine-tuned, and nothing is to be tuned: for few
          labels of tables. Logits of classes are calibrated by the outputs that each row would
          have if its label were not known, a closed form, so that no labels are kept aside. For
          numbers, these outputs choose how much the kernel counts, how much a linear function of
          the columns does beside it, and whether outliers are drawn in to 5 deviations from the
          median, by the quartiles. Of more than 5,000 labelled rows as many are drawn;
        - "auto": "kernel" where columns are a table's and at most 5,000 rows have a target. A
          table is a data frame of more than plain numbers, or numbers that are standardised, or
          one-hot variables, dense or sparse. Columns that all lie in [0, 1], as of ink on paper or
          of words, are none, nor many on one scale from 0, as pixels; nor those of more than 33
          million numbers in up to 10,000 rows. Without a choice of ``layer_sizes``, ``layer`` or
          ``layers`` there is one encoder of three layers below, which learns to undo swaps as
          :class:`TableFeatures`. Else "linear"; also where ``n_fine_tuned_layers``, ``dropout``,
          ``early_stopping``, ``unsupervised_weight`` or ``pretraining=None`` ask for a training
          of the whole, and in ``partial_fit``;
        - a kernel of your own: ``output(x, z, distances)`` returns similarities of shape
          (len(x), len(z)), 1 for equal rows, from tensors of rows and their mean ``city_block``
          and ``euclidean`` distances.""",
    )
    n_fine_tuned_layers: int | None = parameter(
        default=None,
        constraints=[Interval(Integral, 0, None, closed="left"), None],
        doc="""How many layers, counted from the top, are fine-tuned together with the output. None:
        all. 0: none, the output is a linear model on the codes.""",
    )
    output_penalty: float = parameter(
        default=1.0,
        constraints=[Interval(Real, 0, None, closed="left")],
        doc="""Penalty on the output's weights: half the sum of their squares counts as much as the
        loss of ``output_penalty`` labelled rows. That is 1 / C of
        :class:`~sklearn.linear_model.LogisticRegression` (for two classes, which have two outputs
        here and one there, 2 / C) and alpha of :class:`~sklearn.linear_model.Ridge`. Fine-tuning
        starts from an output with a penalty of at least 1, and a kernel output has no less.""",
    )
    dropout: float | tuple[float, float] = parameter(
        default=0.0,
        constraints=[_RATE, tuple],
        kind="float or tuple of two float",
        doc="""Probability with which each unit of a layer's code is left out of a fine-tuning step;
        or first that of the columns of the data, where the lowest layer is fine-tuned, and then
        that of units.""",
    )

    stack_: StackedAutoEncoder = attribute(
        "StackedAutoEncoder",
        "The layers, fine-tuned: ``stack_.transform`` gives the codes that the output sees.",
    )
    output_weights_: np.ndarray = attribute(
        "ndarray of shape (n_outputs, n_codes)",
        """Weights of the output layer: one output for every class, or number. Of a kernel output,
        of shape (n_outputs, n_anchors), the coefficients of its rows.""",
    )
    output_bias_: np.ndarray = attribute(
        "ndarray of shape (n_outputs,)",
        "Its biases; of a kernel output, the targets' means, from which it departs.",
    )
    kernel_output_: KernelOutput | None = attribute(
        "KernelOutput or None",
        """What else a kernel output is: its rows in all views (``anchors``), which of `fit` they
        are (``positions``), mean ``distances``, the output that each has by the regression on all
        others (``left_out``, standardised if they are numbers), and ``calibrations``: ``slope`` and
        ``shift`` of the logarithms of classes' outputs; or for numbers ``mixtures``, what was
        chosen for each, and the ``slopes`` of the columns. None: the output is linear.""",
    )
    loss_curve_: list[float] = attribute(
        "list of float",
        "Supervised objective of each epoch of fine-tuning, in nats per labelled row.",
    )
    validation_curve_: list[float] = attribute(
        "list of float",
        """On held-out rows after each epoch: the error rate of classes, the loss of numbers. Empty
        without early stopping.""",
    )
    n_iter_: int = attribute(
        "int", "Epochs of fine-tuning; where no layer is fine-tuned, steps of the linear model."
    )
    n_labelled_: int = attribute("int", "Rows with a target that were seen so far.")
    labelled_weight_: float = attribute(
        "float",
        """The sum of the weights of the labelled rows of `fit`, or of the last call of
        `partial_fit` that had some: the loss that ``output_penalty`` is compared with.""",
    )

    _collapse_remedy = "Use a smaller learning_rate, or another kind of layer."

    @learns(callbacks=True)
    def fit(self, X, y, sample_weight=None):
        """Pre-train the layers, then train them and the output on the targets.

        Parameters
        ----------
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Targets. Rows without one take part in pre-training, and in fine-tuning where the
            criterion has terms of them.

        Raises
        ------
        ValueError
            Before any layer is trained: if a parameter is out of its range, layers do not fit
            each other, X is not finite, or y has nothing to learn from.
        """
        return fit_stack(self, X, y, sample_weight)

    def predict(self, X):
        """The most probable class of every row, or the expected number in the units of y.

        Returns
        -------
        targets : ndarray of shape (n_samples,) or (n_samples, n_outputs)
            Numbers are float32 where X is, unless float32 would not tell the targets apart.
        """
        return self._targets().predicted(self._outputs(X))

    def score(self, X, y, sample_weight=None):
        """Mean accuracy of classes, or R^2 of numbers, of what is known.

        With several outputs, a row is right if all its classes are predicted, and rows with an
        unknown one are left out; of numbers it is the mean of each output's R^2.

        Parameters
        ----------
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            True targets, of the rows of X and as in `fit`.

        Returns
        -------
        score : float
        """
        return self._targets().score(y, self.predict(X), sample_weight)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.allow_nan = self._accepts_gaps
        tags.target_tags.multi_output = True
        return tags

    @property
    def _accepts_gaps(self):
        return accepts_gaps(self)

    def _targets(self) -> Classes | Numbers:
        """The kind of the targets, with what is known of them."""
        raise NotImplementedError

    def _check_parameters(self):
        super()._check_parameters()
        check_pair("dropout", self.dropout, _RATE)
        if callable(self.output):
            similarities = "similarities, a tensor of shape (len(x), len(z))"
            check_function("output", self.output, ("x", "z", "distances"), similarities)
        check_watching(self)

    def _outputs(self, X):
        """Pre-activations of the output of every row, of shape (n_samples, n_outputs)."""
        check_is_fitted(self)
        X = check_rows(self, X, reset=False, by_blocks=self.kernel_output_ is None)
        if self.kernel_output_ is not None:
            return kernel_outputs(self, X)
        model, theta = fitted = fitted_model(self, X)
        n_outputs = len(self.output_bias_)
        return fitted.map_rows(lambda x: model.reconstruct(theta, x), X, (n_outputs,))


@estimator
class ClassifyingStack(ClassifierMixin, SupervisedStack):
    """What stacks that predict classes share, whatever they descend on."""

    unlabelled: float | str | None = parameter(
        default=-1,
        constraints=[Real, str, None],
        kind="int, str or None",
        doc="""The value in y that stands for an unknown class; a string where classes are strings.
        None: there is none, every value is a class, as where classes are -1 and 1.""",
    )
    class_weight: dict | list | str | None = parameter(
        default=None,
        constraints=[dict, list, StrOptions({"balanced"}), None],
        kind='dict, list of dict, "balanced" or None',
        doc="""Weights of classes in the supervised criterion; one dict for each output. "balanced":
        inversely as often as they occur among the labelled rows.""",
    )

    classes_: np.ndarray | list[np.ndarray] = attribute(
        "ndarray of shape (n_classes,), or list of them",
        """The classes; for each output, where there are several. Where these are labels that are
        there or not (0 or 1), the numbers of the labels.""",
    )
    output_classes_: list[np.ndarray] = attribute("list of ndarray", "The classes of each output.")

    # Not scikit-learn's, which knows of no rows without a target.
    score = SupervisedStack.score

    def predict_proba(self, X):
        """The probability of every class for every row.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes), or list of them
            One for each output, where there are several; where these are labels that are there
            or not, the probabilities of being there, of shape (n_samples, n_labels).
        """
        return self._by_output(X, lambda output: special.softmax(output, axis=1))

    def predict_log_proba(self, X):
        """Logarithms of what `predict_proba` returns.

        Returns
        -------
        log_probabilities : ndarray of shape (n_samples, n_classes), or list of them
        """
        return self._by_output(X, lambda output: special.log_softmax(output, axis=1))

    def decision_function(self, X):
        """Logits: log-probabilities up to a constant in every row.

        Returns
        -------
        logits : ndarray of shape (n_samples,) or (n_samples, n_classes), or list of them
            For two classes, the log-odds of the second one; with several outputs, one for each,
            as columns where all have two classes.
        """
        outputs = self._outputs(X)
        found = [
            output[:, 1] - output[:, 0] if output.shape[1] == 2 else output
            for output in self._targets().by_output(outputs)
        ]
        if len(found) == 1:
            return found[0]
        return np.column_stack(found) if all(logits.ndim == 1 for logits in found) else found

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def _targets(self):
        classes = getattr(self, "output_classes_", None)
        return Classes(self.unlabelled, self.class_weight, classes)

    def _by_output(self, X, function):
        """What scikit-learn returns of the probabilities, or of their logarithms."""
        outputs, kind = self._outputs(X), self._targets()
        return kind.gathered([function(output) for output in kind.by_output(outputs)])


@estimator
class StackedClassifier(ClassifyingStack):
    r"""A deep net that predicts classes, whose layers are pre-trained one by one.

    The layers are trained as those of :class:`StackedAutoEncoder`, with the labels or without.
    An output layer is added, and the whole minimises, averaged over labelled rows,

    .. math::

        -\log P\bigl(y \mid U h_L(x) + d\bigr) + \tfrac{\rho}{2 n} \|U\|^2
        + \lambda \sum_l L_l\bigl(\theta_l; h_l(x)\bigr)

    where n is the number of labelled rows, P a softmax over classes, :math:`\rho`
    ``output_penalty`` and :math:`\lambda` ``unsupervised_weight``, the weight of the layers' own
    criteria, which take in unlabelled rows. The output starts as a logistic regression on the
    codes of pre-training. With several outputs, the first term is the sum of theirs, each a mean
    over the rows whose class is known.

    With ``adversarial_step`` the first term is half that of x and half that of :math:`x + v_x`,
    with :math:`v_x` the move of that length that raises it most, to first order: along its
    gradient by x [4]_. Predictions change little around labelled rows then, which is what
    regularises a net that has many labels.

    On tables of at most 5,000 labels the output is a ridge regression with a kernel instead, which
    ``output`` describes, and nothing is fine-tuned.

    Use it where labels are few beside the rows, or where a deep net without pre-training
    overfits; with ``pretraining=None`` it is a multi-layer perceptron.

    Read more in the :ref:`User Guide <stacked_predictors>`.

    See Also
    --------
    StackedRegressor : The same for numbers.
    StackedAutoEncoder : The layers alone, as a transformer.
    sklearn.neural_network.MLPClassifier : Deep nets without pre-training.

    References
    ----------
    .. [1] Y. Bengio, P. Lamblin, D. Popovici, H. Larochelle. Greedy layer-wise training of deep
       networks. NIPS 2006.
    .. [2] H. Larochelle, Y. Bengio, J. Louradour, P. Lamblin. Exploring strategies for training
       deep neural networks. Journal of Machine Learning Research 10, 2009.
    .. [3] P. Vincent, H. Larochelle, I. Lajoie, Y. Bengio, P.-A. Manzagol. Stacked
       denoising autoencoders. Journal of Machine Learning Research 11, 2010.
    .. [4] I. Goodfellow, J. Shlens, C. Szegedy. Explaining and harnessing adversarial examples.
       ICLR 2015. (There every column moves by the same amount.)

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import StackedClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> some = y.copy()
    >>> some[200:] = -1                                   # 200 labels, the others unknown
    >>> model = StackedClassifier((64, 64), max_iter=20, random_state=0).fit(X, some)
    >>> bool(model.score(X[200:], y[200:]) > 0.75)
    True
    """

    supervision: float = preset(StackedAutoEncoder, "supervision", default=1.0)
    unsupervised_weight: float = parameter(
        default=0.0,
        constraints=[Interval(Real, 0, None, closed="left")],
        doc="""Weight of the layers' own criteria while fine-tuning; each on the codes of the one
        below, and of all rows, labelled or not.""",
    )
    adversarial_step: float = parameter(
        default=0.0,
        constraints=[Interval(Real, 0, None, closed="left")],
        doc="""Length of the moves :math:`v_x` of labelled rows while fine-tuning, as a part of the
        rows' root mean square distance from their mean. 0: rows stay where they are. A step costs
        some three times as much with them. 0.14 does well on images of digits.""",
    )

    @learns()
    def partial_fit(self, X, y, classes=None, sample_weight=None):
        """Continue with one pass of fine-tuning over the rows of X, in batches.

        The first call pre-trains the layers on its rows as `fit` does, unless ``pretraining`` is
        None or "prefit"; it should have rows of every class. The optimiser's moments and the random
        state carry over from call to call. No rows are held out, and the learning rate is constant.

        Parameters
        ----------
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Classes.
        classes : array-like of shape (n_classes,), or list of them, default=None
            All classes that there will be; for each output, where there are several. Needed by
            the first call.

        Raises
        ------
        ValueError
            If y has a class that was not announced.
        """
        if self.class_weight == "balanced":
            raise ValueError(
                "class_weight='balanced' would depend on the rows of each call. Pass a dict: "
                "sklearn.utils.class_weight.compute_class_weight finds the weights."
            )
        known = getattr(self, "output_classes_", None)
        if classes is None and known is None:
            raise ValueError(
                "The first call of partial_fit needs classes=, all classes that there will be."
            )
        if classes is not None and known is not None:
            if len(known) > 1 and np.array_equal(classes, self.classes_):
                classes = known  # the numbers of labels that are there or not
            given = [np.unique(names) for names in (classes if len(known) > 1 else [classes])]
            if len(given) != len(known) or not all(map(np.array_equal, given, known)):
                raise ValueError(
                    f"classes={classes!r} are not those of the first call of partial_fit, "
                    f"{[names.tolist() for names in known]}, which cannot change."
                )
        return fit_part(self, X, y, sample_weight, classes=classes)


@estimator
class StackedRegressor(RegressorMixin, SupervisedStack):
    r"""A deep net that predicts numbers, whose layers are pre-trained one by one.

    The layers are trained as those of :class:`StackedAutoEncoder`. A linear output layer is
    added, and the whole minimises, averaged over rows with a target,

    .. math::

        \sum_k \frac{(y_k - \hat y_k(x))^2}{2 s_k^2} + \tfrac{\rho}{2 n} \|U\|^2
        + \lambda \sum_l L_l\bigl(\theta_l; h_l(x)\bigr) + \text{const.}

    where n is the number of rows with a target, :math:`s_k` the standard deviation of target k,
    so that targets need no scaling, :math:`\rho` ``output_penalty`` and :math:`\lambda`
    ``unsupervised_weight``. A target that is NaN is unknown: its row takes part in pre-training,
    and in the layers' own criteria. The output starts as a ridge regression on the codes of
    pre-training. On tables it is one with a kernel, which ``output`` describes, where at most 5,000
    rows have a target; nothing is fine-tuned then.

    Read more in the :ref:`User Guide <stacked_predictors>`.

    See Also
    --------
    StackedClassifier : The same for classes.
    StackedAutoEncoder : The layers alone, as a transformer.
    sklearn.neural_network.MLPRegressor : Deep nets without pre-training.

    References
    ----------
    .. [1] Y. Bengio, P. Lamblin, D. Popovici, H. Larochelle. Greedy layer-wise training of deep
       networks. NIPS 2006.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from skae import StackedRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = StackedRegressor((64,), max_iter=30, learning_rate=1e-4, random_state=0)
    >>> bool(model.fit(X[:300], y[:300]).score(X[300:], y[300:]) > 0.4)
    True
    """

    supervision: float = preset(StackedClassifier, "supervision", default=1.0)
    unsupervised_weight: float = preset(StackedClassifier, "unsupervised_weight", default=0.0)
    adversarial_step: float = preset(StackedClassifier, "adversarial_step", default=0.0)

    target_mean_: np.ndarray = attribute(
        "ndarray of shape (n_outputs,)", "Means of the targets, by which they are standardised."
    )
    target_scale_: np.ndarray = attribute(
        "ndarray of shape (n_outputs,)", "Their standard deviations; 1 for one that does not vary."
    )

    @learns()
    def partial_fit(self, X, y, sample_weight=None):
        """Continue with one pass of fine-tuning over the rows of X, in batches.

        The first call pre-trains the layers on its rows as `fit` does, unless ``pretraining`` is
        None or "prefit", and takes mean and scale of the targets from them. The optimiser's
        moments and the random state carry over from call to call. No rows are held out, and the
        learning rate is constant.

        Parameters
        ----------
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Targets.
        """
        return fit_part(self, X, y, sample_weight)

    score = SupervisedStack.score

    def _targets(self):
        known = getattr(self, "target_mean_", None), getattr(self, "target_scale_", None)
        return Numbers(*known)
