"""A stack that predicts classes."""

from numbers import Real

import numpy as np
import torch
from scipy import special
from sklearn.base import ClassifierMixin

from skae._validation import StrOptions, check_is_fitted
from skae.engine.stacks.supervised import classification_error
from skae.estimators.face.outcomes import all_or_nothing
from skae.estimators.face.parameters import estimator, parameter
from skae.estimators.supervised.predictors import StackedPredictor
from skae.estimators.supervised.targets import (
    check_class_weight,
    checked_classes,
    class_groups,
    encode_classes,
    find_classes,
    is_known,
)

# Held-out rows are judged by their error rate and so much of their loss, up to so many nats.
_TIE, _MOST_NATS = 1e-6, 5.0


@estimator
class StackedClassifier(ClassifierMixin, StackedPredictor):
    r"""A deep net that predicts classes, whose layers are pre-trained one by one.

    The layers are trained as those of :class:`StackedAutoEncoder`, with the labels or without.
    An output layer is added, and the whole minimises, averaged over labelled rows,

    .. math::

        -\log P\bigl(y \mid U h_L(x) + d\bigr) + \tfrac{\alpha}{2 n} \|U\|^2
        + \lambda \sum_l L_l\bigl(\theta_l; h_l(x)\bigr)

    where n is the number of labelled rows, P a softmax over classes and :math:`\lambda`
    ``unsupervised_weight``, the weight of the layers' own criteria, which take in unlabelled
    rows. The output starts as a logistic regression on the codes of pre-training. With several
    outputs, the first term is the sum of theirs, each a mean over the rows whose class is known.

    Use it where labels are few beside the rows, or where a deep net without pre-training
    overfits; with ``pretraining=None`` it is a multi-layer perceptron.

    Read more in the :ref:`User Guide <stacked_predictors>`.

    Parameters
    ----------
    {parameters}

    Attributes
    ----------
    {attributes}

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

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import StackedClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> some = y.copy()
    >>> some[200:] = -1                                   # 200 labels, the others unknown
    >>> model = StackedClassifier((128, 128), max_iter=20, random_state=0).fit(X, some)
    >>> bool(model.score(X[200:], y[200:]) > 0.75)
    True
    """

    unlabelled: int = parameter(
        default=-1,
        constraints=[Real, str, None],
        doc="""int, str or None
        The value in y that stands for an unknown class; a string where classes are strings.
        None: there is none, every value is a class, as where classes are -1 and 1.""",
    )
    class_weight: dict = parameter(
        default=None,
        constraints=[dict, list, StrOptions({"balanced"}), None],
        doc="""dict, list of dict, "balanced" or None
        Weights of classes in the supervised criterion; one dict for each output. "balanced":
        inversely as often as they occur among the labelled rows.""",
    )

    _attributes_doc = (
        """
    classes_ : ndarray of shape (n_classes,), or list of them
        The classes; for each output, where there are several. Where these are labels that are
        there or not (0 or 1), the numbers of the labels.
    output_classes_ : list of ndarray
        The classes of each output."""
        + StackedPredictor._attributes_doc
    )

    @all_or_nothing
    def partial_fit(self, X, y, classes=None, sample_weight=None):
        """Continue with one pass of fine-tuning over the rows of X, in batches.

        The first call pre-trains the layers on its rows as `fit` does, unless ``pretraining`` is
        None or "prefit"; it should have rows of every class. The optimiser's moments and the
        random state carry over from call to call. No rows are held out, and the learning rate
        is constant.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Training data.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Classes.
        classes : array-like of shape (n_classes,), or list of them, default=None
            All classes that there will be; for each output, where there are several. Needed by
            the first call.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.

        Returns
        -------
        self : object
            The fitted estimator.

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
        if classes is None and not hasattr(self, "classes_"):
            raise ValueError(
                "The first call of partial_fit needs classes=, all classes that there will be."
            )
        if classes is not None and hasattr(self, "classes_"):
            several = len(self.output_classes_) > 1
            given = [np.unique(names) for names in (classes if several else [classes])]
            same = len(given) == len(self.output_classes_) and all(
                np.array_equal(a, b) for a, b in zip(given, self.output_classes_, strict=True)
            )
            if not same:
                raise ValueError(
                    f"classes={classes!r} are not those of the first call of partial_fit, "
                    f"{[names.tolist() for names in self.output_classes_]}, which cannot change."
                )
        return self._partial_fit(X, y, sample_weight, classes=classes)

    def predict(self, X):
        """The most probable class of every row.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data.

        Returns
        -------
        classes : ndarray of shape (n_samples,) or (n_samples, n_outputs)
        """
        check_is_fitted(self)
        found = [
            names[output.argmax(1)]
            for names, output in zip(self.output_classes_, self._by_output(X), strict=True)
        ]
        return found[0] if self._is_single else np.column_stack(found)

    def predict_proba(self, X):
        """The probability of every class for every row.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes), or list of them
            One for each output, where there are several; where these are labels that are there
            or not, the probabilities of being there, of shape (n_samples, n_labels).
        """
        check_is_fitted(self)
        found = [special.softmax(output, axis=1) for output in self._by_output(X)]
        return self._one_or_several(found)

    def predict_log_proba(self, X):
        """Logarithms of what `predict_proba` returns.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data.

        Returns
        -------
        log_probabilities : ndarray of shape (n_samples, n_classes), or list of them
        """
        check_is_fitted(self)
        found = [special.log_softmax(output, axis=1) for output in self._by_output(X)]
        return self._one_or_several(found)

    def decision_function(self, X):
        """Logits: log-probabilities up to a constant in every row.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data.

        Returns
        -------
        logits : ndarray of shape (n_samples,) or (n_samples, n_classes), or list of them
            For two classes, the log-odds of the second one; with several outputs, one for each,
            as columns where all have two classes.
        """
        check_is_fitted(self)
        found = [
            output[:, 1] - output[:, 0] if output.shape[1] == 2 else output
            for output in self._by_output(X)
        ]
        if self._is_single:
            return found[0]
        return np.column_stack(found) if all(logits.ndim == 1 for logits in found) else found

    def score(self, X, y, sample_weight=None):
        """Mean accuracy: the part of the labelled rows all of whose classes are predicted.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            True classes; rows with an ``unlabelled`` one are left out.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.

        Returns
        -------
        score : float
        """
        check_is_fitted(self)
        table = self._checked_targets(y)
        known = np.all([is_known(column, self.unlabelled) for column in table.T], axis=0)
        if not known.any():
            raise ValueError("No row is labelled, so there is nothing to judge by.")
        right = (np.reshape(self.predict(X), table.shape) == table).all(1)
        weight = None if sample_weight is None else np.asarray(sample_weight)[known]
        return float(np.average(right[known], weights=weight))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    @property
    def _is_single(self):
        return len(self.output_classes_) == 1

    @property
    def _is_multilabel(self):
        """Whether the outputs are labels that are there or not."""
        several = len(self.output_classes_) > 1
        return several and all(np.array_equal(names, [0, 1]) for names in self.output_classes_)

    def _one_or_several(self, found):
        if self._is_multilabel:
            return np.column_stack([of_output[:, 1] for of_output in found])
        return found[0] if self._is_single else found

    def _by_output(self, X):
        output = self._outputs(X)
        return [output[:, columns] for columns in class_groups(self.output_classes_)]

    def _checked_targets(self, y):
        table = checked_classes(y)
        return table.reshape(len(table), -1)

    def _describe_targets(self, table, weight, classes=None):
        check_class_weight(self.class_weight, table.shape[1])
        if classes is None:
            counted = table if weight is None else table[weight > 0]
            found = find_classes(counted, self.unlabelled)
        else:
            several = table.shape[1] > 1
            found = [np.unique(names) for names in (classes if several else [classes])]
            if any(not is_known(names, self.unlabelled).all() for names in found):
                raise ValueError(
                    f"classes={classes!r} contains {self.unlabelled}, which stands for an unknown "
                    "class. If it is one of the classes, set unlabelled=None."
                )
            if len(found) != table.shape[1] or any(len(names) < 2 for names in found):
                raise ValueError(
                    f"classes={classes!r} must have at least two classes for each of the "
                    f"{table.shape[1]} outputs."
                )
        self.output_classes_, self.classes_ = found, found
        if len(found) == 1:
            self.classes_ = found[0]
        elif self._is_multilabel:
            self.classes_ = np.arange(len(found))

    def _encode_targets(self, table, weight):
        if table.shape[1] != len(self.output_classes_):
            raise ValueError(
                f"y has {table.shape[1]} outputs, but this model has {len(self.output_classes_)}."
            )
        return encode_classes(
            table,
            self.output_classes_,
            unlabelled=self.unlabelled,
            row_weight=weight,
            class_weight=self.class_weight,
        )

    def _strata(self, table, n_held_out):
        _, counts = np.unique(table[:, 0], return_counts=True)
        few = min(n_held_out, len(table) - n_held_out) < len(counts) or counts.min() < 2
        return None if few or table.shape[1] > 1 else table[:, 0]

    def _judge(self, targets):
        groups = [torch.tensor(columns) for columns in targets.groups]
        units = targets.units(torch.device("cpu"))

        def error(output, target):
            wrong = classification_error(
                [output[:, columns] for columns in groups],
                [target[:, columns] for columns in groups],
            )
            # The loss decides between epochs of the same error, and never against a row.
            loss = units.negative_log_likelihood(output, target).clamp(max=_MOST_NATS)
            return wrong + _TIE * loss

        return error
