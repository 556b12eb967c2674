"""A stack that predicts numbers."""

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils import check_array

from skae._validation import check_is_fitted
from skae.estimators.face.outcomes import all_or_nothing
from skae.estimators.face.parameters import estimator
from skae.estimators.supervised.predictors import StackedPredictor
from skae.estimators.supervised.targets import encode_numbers, moments


@estimator
class StackedRegressor(RegressorMixin, StackedPredictor):
    r"""A deep net that predicts numbers, whose layers are pre-trained one by one.

    The layers are trained as those of :class:`StackedAutoEncoder`. A linear output layer is
    added, and the whole minimises, averaged over rows with a target,

    .. math::

        \sum_k \frac{(y_k - \hat y_k(x))^2}{2 s_k^2} + \tfrac{\alpha}{2 n} \|U\|^2
        + \lambda \sum_l L_l\bigl(\theta_l; h_l(x)\bigr) + \text{const.}

    where n is the number of rows with a target, :math:`s_k` the standard deviation of target k,
    so that targets need no scaling, and :math:`\lambda` ``unsupervised_weight``. A target that
    is NaN is unknown: its row takes part in pre-training, and in the layers' own criteria. The
    output starts as a ridge regression on the codes of pre-training.

    Read more in the :ref:`User Guide <stacked_predictors>`.

    Parameters
    ----------
    {parameters}

    Attributes
    ----------
    {attributes}

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

    _attributes_doc = (
        """
    target_mean_ : ndarray of shape (n_outputs,)
        Means of the targets, by which they are standardised.
    target_scale_ : ndarray of shape (n_outputs,)
        Their standard deviations; 1 for one that does not vary."""
        + StackedPredictor._attributes_doc
    )

    @all_or_nothing
    def partial_fit(self, X, y, sample_weight=None):
        """Continue with one pass of fine-tuning over the rows of X, in batches.

        The first call pre-trains the layers on its rows as `fit` does, unless ``pretraining`` is
        None or "prefit", and takes mean and scale of the targets from them. The optimiser's
        moments and the random state carry over from call to call. No rows are held out, and the
        learning rate is constant.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Training data.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Targets.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.

        Returns
        -------
        self : object
            The fitted estimator.
        """
        return self._partial_fit(X, y, sample_weight)

    def predict(self, X):
        """The expected target of every row.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data.

        Returns
        -------
        targets : ndarray of shape (n_samples,) or (n_samples, n_outputs)
            In the units of y.
        """
        check_is_fitted(self)
        output = self._outputs(X)
        # float32 would lose targets that are small beside their mean.
        found = output * self.target_scale_ + self.target_mean_
        return found[:, 0] if self._is_single else found

    def score(self, X, y, sample_weight=None):
        """Coefficient of determination, R^2, of the predictions for rows with a target.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            True targets; rows with a NaN are left out.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.

        Returns
        -------
        score : float
        """
        check_is_fitted(self)
        table = self._checked_targets(y)
        known = ~np.isnan(table).any(1)
        if not known.any():
            raise ValueError("No row has a target, so there is nothing to judge by.")
        predicted = np.reshape(self.predict(X), (len(table), -1))
        weight = None if sample_weight is None else np.asarray(sample_weight)[known]
        return r2_score(table[known], predicted[known], sample_weight=weight)

    def _checked_targets(self, y):
        table = check_array(
            y, ensure_2d=False, dtype=np.float64, ensure_all_finite="allow-nan", input_name="y"
        )
        return table.reshape(len(table), -1)

    def _describe_targets(self, table, weight):
        self.target_mean_, self.target_scale_ = moments(table, weight)

    def _encode_targets(self, table, weight):
        if table.shape[1] != len(self.target_mean_):
            raise ValueError(
                f"y has {table.shape[1]} outputs, but this model has {len(self.target_mean_)}."
            )
        return encode_numbers(table, self.target_mean_, self.target_scale_, weight)

    def _strata(self, table, n_held_out):
        return None

    @property
    def _is_single(self):
        return len(self.target_mean_) == 1
