"""A stack that predicts numbers."""

import numpy as np

from skae.estimators.face.outcomes import all_or_nothing
from skae.estimators.face.parameters import attribute, estimator, preset
from skae.estimators.face.scikit_learn import RegressorMixin
from skae.estimators.supervised.classifier import StackedClassifier
from skae.estimators.supervised.fine_tuning import fit_part
from skae.estimators.supervised.predictors import SupervisedStack
from skae.estimators.supervised.tasks import labelled_criterion
from skae.estimators.targets import Numbers


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
    pre-training.

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

    supervision: float = preset(StackedClassifier, "supervision", default=1.0)
    unsupervised_weight: float = preset(StackedClassifier, "unsupervised_weight", default=0.0)

    target_mean_: np.ndarray = attribute(
        """ndarray of shape (n_outputs,)
        Means of the targets, by which they are standardised."""
    )
    target_scale_: np.ndarray = attribute(
        """ndarray of shape (n_outputs,)
        Their standard deviations; 1 for one that does not vary."""
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
        return fit_part(self, X, y, sample_weight)

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
        return self._targets().predicted(self._outputs(X))

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
        return self._targets().score(y, self.predict(X), sample_weight)

    def _targets(self):
        known = getattr(self, "target_mean_", None), getattr(self, "target_scale_", None)
        return Numbers(*known)

    def _criterion(self, task):
        return labelled_criterion(task, self.unsupervised_weight)
