"""Averages over draws of a model's parameters from the law that its criterion is the energy of."""

from math import ceil, inf
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
from scipy import special
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import get_tags
from sklearn.utils.metaestimators import available_if

from skae._validation import (
    HasMethods,
    Interval,
    StrOptions,
    check_count,
    check_is_fitted,
    make_generator,
    random_numbers,
)
from skae._warnings import warn
from skae.engine.posterior.chains import Plan, draw_parameters
from skae.estimators.face.learning import learns
from skae.estimators.face.parameters import attribute, estimator, parameter, validate_parameters
from skae.estimators.face.scikit_learn import BaseEstimator, MetaEstimatorMixin
from skae.estimators.posterior.problems import pose, require_model
from skae.estimators.posterior.worth import trouble_of, watched, worth
from skae.estimators.supervised.predictors import StackedClassifier
from skae.frames.making import stack_rows

# Rows up to which all of them are in every gradient, where the method is not chosen.
_FEW_ROWS = 3000
_ATTRIBUTES = (
    "n_features_in_", "feature_names_in_", "classes_", "output_classes_", "encoding_",
)  # fmt: skip


def _has(name):
    """Whether the estimator of an ensemble, the trained one after `fit`, has a method."""

    def check(self):
        model = self.estimator_ if hasattr(self, "estimator_") else self._of_draws()
        return hasattr(model, name) or not hasattr(model, "fit")  # which `fit` refuses

    return check


@estimator
class PosteriorEnsemble(MetaEstimatorMixin, BaseEstimator):
    r"""A model as an average over its parameters, drawn from their posterior.

    A training criterion is an energy of parameters and data (joint energy in parameters and data,
    JEPADA [1]_). Training finds the parameters of the least energy; here they are drawn from

    .. math::

        P(\theta \mid X) \propto e^{-E(X, \theta) / T}, \qquad
        E(X, \theta) = n \, v(X, \theta)

    for the criterion v of the ``estimator``, a mean over rows, of n rows. At temperature T = 1 that
    is the sum of the rows' losses in nats, the likelihood, and n times the penalties, which are the
    prior: ``weight_decay`` :math:`\alpha` is a normal law of variance :math:`1 / (n \alpha)` of
    each weight; ``output_penalty`` :math:`\rho`, of the output's weights, one of
    :math:`1 / \rho`. Parameters without a penalty, such as biases, have a flat prior: where data
    do not bound them, chains wander.

    Predictions are averages over the draws of what models compute, never of parameters. Use it for
    probabilities that know what few labels leave open, and for decisions by them.

    Read more in the :ref:`User Guide <posterior_ensembles>`.

    See Also
    --------
    sklearn.ensemble.BaggingClassifier : Averages over models of resampled rows.
    skae.diagnostics.potential_scale_reduction : What ``r_hat_`` is.
    skae.diagnostics.effective_sample_size : What ``effective_size_`` is.

    Notes
    -----
    Chains begin at the parameters that training has found. Each parameter has a step of its own, by
    how the energy curves there; a common factor is adapted while the chains burn in, and then
    fixed. Where all rows are used, proposals are accepted or rejected, in double precision, and the
    law is exact. Stochastic gradients reject nothing, and widen the law by about 2 % along the
    narrowest direction, less along others; they are compared with those of the same rows at the
    start of the chain, which spares most of their noise [4]_.

    A criterion with noise of its own, as of a denoising auto-encoder, is an energy on average over
    the noise, which only stochastic gradients serve.

    References
    ----------
    .. [1] Y. Bengio, A. Courville, P. Vincent. Representation learning: a review and new
       perspectives. IEEE Transactions on Pattern Analysis and Machine Intelligence 35(8), 2013.
    .. [2] R. Neal. MCMC using Hamiltonian dynamics. Handbook of Markov Chain Monte Carlo, 2011.
    .. [3] M. Welling, Y. W. Teh. Bayesian learning via stochastic gradient Langevin dynamics. ICML
       2011.
    .. [4] J. Baker, P. Fearnhead, E. Fox, C. Nemeth. Control variates for stochastic gradient MCMC.
       Statistics and Computing 29, 2019.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.metrics import log_loss
    >>> from skae import PosteriorEnsemble, StackedClassifier
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> model = StackedClassifier(
    ...     (32,), layer="auto", output="linear", n_fine_tuned_layers=0, output_penalty=0.01
    ... )
    >>> ensemble = PosteriorEnsemble(model, burn_in=40, thinning=3, random_state=0)
    >>> ensemble = ensemble.fit(X[:30], y[:30])
    >>> of_draws = log_loss(y[30:], ensemble.predict_proba(X[30:]))
    >>> of_one = log_loss(y[30:], ensemble.estimator_.predict_proba(X[30:]))
    >>> bool(of_draws < of_one)
    True
    """

    estimator: Any = parameter(
        default=None,
        constraints=[HasMethods("fit"), None],
        kind="estimator or None",
        doc="""Model whose parameters are drawn: :class:`AutoEncoder` and its variants,
        :class:`StackedAutoEncoder` with ``fine_tuning``, :class:`StackedClassifier` and
        :class:`StackedRegressor` with ``output="linear"``, :class:`ManifoldTangentClassifier`. Of
        stacks with an output the layers that are fine-tuned are drawn. None: a
        :class:`StackedClassifier` whose output alone is drawn.""",
        kw_only=False,
    )
    n_members: int = parameter(
        default=40,
        constraints=[Interval(Integral, 1, None, closed="left")],
        doc="Draws that are kept, of all chains together.",
    )
    method: str = parameter(
        default="auto",
        constraints=[StrOptions({"auto", "hmc", "mala", "sgld"})],
        kind='{"auto", "hmc", "mala", "sgld"}',
        doc="""How parameters are drawn:

        - "hmc": Hamiltonian trajectories, accepted or rejected [2]_;
        - "mala": Langevin proposals, accepted or rejected: trajectories of one step;
        - "sgld": Langevin steps with the gradients of batches [3]_;
        - "auto": "sgld" for more than 3,000 rows, and for criteria with noise of their own; else
          "hmc".""",
    )
    n_chains: int = parameter(
        default=4,
        constraints=[Interval(Integral, 1, None, closed="left")],
        doc="Chains, each of which begins at the trained parameters. One cannot tell ``r_hat_``.",
    )
    burn_in: int = parameter(
        default=100,
        constraints=[Interval(Integral, 0, None, closed="left")],
        doc="Moves of each chain before its first draw, in which the step size is adapted.",
    )
    thinning: int = parameter(
        default=10,
        constraints=[Interval(Integral, 1, None, closed="left")],
        doc="Moves of a chain from one draw to the next.",
    )
    n_steps: int = parameter(
        default=10,
        constraints=[Interval(Integral, 1, None, closed="left")],
        doc="""Gradients of a move at most: a trajectory has 1 to ``n_steps`` steps, drawn anew for
        each; of the other methods a move is so many steps.""",
    )
    step_size: float | str = parameter(
        default="auto",
        constraints=[StrOptions({"auto"}), Interval(Real, 0, None, closed="neither")],
        kind='float or "auto"',
        doc="""Size of a step, in units in which the energy curves about as much along all
        parameters. "auto" is adapted to an acceptance of 0.8 for "hmc" and 0.6 for "mala", and a
        quarter of the width of the narrowest direction for "sgld".""",
    )
    temperature: float = parameter(
        default=1.0,
        constraints=[Interval(Real, 0, None, closed="neither")],
        doc="""T. Below 1, parameters closer to the trained ones. :class:`StackedRegressor` takes
        the variance of y for that of its errors; their part that is left, 1 - R^2, is the
        temperature that counts them as they are.""",
    )
    batch_size: int = parameter(
        default=100,
        constraints=[Interval(Integral, 1, None, closed="left")],
        doc="Rows of a stochastic gradient.",
    )
    cost_matrix: Any = parameter(
        default=None,
        constraints=["array-like", None],
        kind="array-like of shape (n_classes, n_classes) or None",
        doc="""What it costs to predict the class of the column where that of the row is true.
        `predict` takes the class of the least expected cost. None: the most probable one.""",
    )
    random_state: int | np.random.RandomState | None = parameter(
        default=None,
        constraints=["random_state"],
        kind="int, RandomState instance or None",
        doc="Seed of the training and of the chains. The same int gives the same draws.",
    )

    estimator_: Any = attribute("estimator", "The trained model, from which chains began.")
    estimators_: list = attribute("list of estimators", "The model with each draw of parameters.")
    method_: str = attribute("str", "How parameters were drawn.")
    acceptance_: float = attribute(
        "float",
        "Mean probability with which proposals were accepted; NaN for stochastic gradients.",
    )
    step_size_: np.ndarray = attribute(
        "ndarray of shape (n_chains,)", "The step size of each chain, after it has burnt in."
    )
    r_hat_: float = attribute(
        "float",
        """Whether chains agree on outputs for some training rows: the median over these, 1 at best.
        NaN for one chain.""",
    )
    effective_size_: float = attribute(
        "float",
        """How many independent draws the moves after burning in are worth: the median over outputs
        for some training rows. NaN where too few moves tell.""",
    )
    n_features_in_: int = attribute("int", "Number of features seen in `fit`.")
    feature_names_in_: np.ndarray = attribute(
        "ndarray of shape (n_features_in_,)", "Names of the features, where X had string names."
    )
    encoding_: Any = attribute(
        "Encoding or None", "What the columns of a table have become; None for plain numbers."
    )
    output_classes_: list[np.ndarray] = attribute("list of ndarray", "The classes of each output.")
    classes_: np.ndarray = attribute(
        "ndarray of shape (n_classes,), or list of them", "The classes, where these are predicted."
    )

    @learns()
    def fit(self, X, y=None, sample_weight=None) -> Self:
        """Train the model, then draw parameters.

        Parameters
        ----------
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Targets, for models that predict some.

        Raises
        ------
        ValueError
            If a parameter is out of its range, or the parameters of the model have no energy.
        """
        validate_parameters(self)
        require_model(self._of_draws())
        draws = random_numbers(self.random_state)
        model = clone(self._of_draws())
        names = [n for n in model.get_params() if n.split("__")[-1] == "random_state"]
        model.set_params(**{name: int(draws.randint(2**31 - 1)) for name in names})
        weights = {} if sample_weight is None else {"sample_weight": sample_weight}
        self.estimator_ = model.fit(X, y, **weights)
        for name in _ATTRIBUTES:
            if hasattr(model, name):
                setattr(self, name, getattr(model, name))
        self._check_costs()
        self._draw(X, y, sample_weight, int(draws.randint(2**31 - 1)))
        return self

    @available_if(_has("predict_proba"))
    def predict_proba(self, X):
        """The probability of every class, a mean over the draws.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes), or list of them
            As of the estimator.
        """
        return self._kind().gathered(self._probabilities(X))

    @available_if(_has("predict_proba"))
    def predict_log_proba(self, X):
        """Logarithms of what `predict_proba` returns.

        Returns
        -------
        log_probabilities : ndarray of shape (n_samples, n_classes), or list of them
        """
        found = self.predict_proba(X)
        return [np.log(p) for p in found] if isinstance(found, list) else np.log(found)

    @available_if(_has("predict"))
    def predict(self, X):
        """The class of the least expected cost, or the expected number.

        Returns
        -------
        targets : ndarray of shape (n_samples,) or (n_samples, n_outputs)
        """
        check_is_fitted(self)
        kind = self._kind()
        if kind.groups is None:
            return kind.predicted(np.mean([m._outputs(X) for m in self.estimators_], axis=0))
        found = self._probabilities(X)
        if self.cost_matrix is not None:
            found = [-found[0] @ np.asarray(self.cost_matrix, dtype=np.float64)]
        return kind.predicted(np.hstack(found))

    @available_if(_has("predict"))
    def score(self, X, y, sample_weight=None) -> float:
        """Mean accuracy of classes, or R^2 of numbers, of rows whose targets are known.

        Parameters
        ----------
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            True targets.

        Returns
        -------
        score : float
        """
        return self._kind().score(y, self.predict(X), sample_weight)

    @available_if(_has("score_samples"))
    def score_samples(self, X) -> np.ndarray:
        """Log-densities of rows: of the mean density over the draws.

        Returns
        -------
        scores : ndarray of shape (n_samples,)
            In nats; higher is better.
        """
        check_is_fitted(self)
        scores = [member.score_samples(X) for member in self.estimators_]
        return special.logsumexp(scores, axis=0) - np.log(len(scores))

    @available_if(_has("sample"))
    def sample(self, n_samples=1, *, random_state=None, **options):
        """Draw rows, of parameters that are drawn: about as many of each member.

        Parameters
        ----------
        n_samples : int, default=1
            Rows in all.
        random_state : int, RandomState instance or None, default=None
            Of the rows. None: fresh ones.
        **options
            Those of the estimator's own `sample`.

        Returns
        -------
        samples : ndarray of shape (n_samples, n_features), or data frame
        """
        check_is_fitted(self)
        check_count("n_samples", n_samples, 1)
        draws, members = random_numbers(random_state), self.estimators_
        chosen = draws.permutation(len(members))[: min(n_samples, len(members))]
        parts = []
        for number, member in enumerate(chosen):
            size = (n_samples + number) // len(chosen)
            seed = int(draws.randint(2**31 - 1))
            parts.append(members[member].sample(size, random_state=seed, **options))
        return stack_rows(parts)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        model = self._of_draws()
        if hasattr(model, "__sklearn_tags__"):  # else `fit` refuses it
            inner = get_tags(model)
            tags.estimator_type, tags.target_tags = inner.estimator_type, inner.target_tags
            tags.classifier_tags, tags.regressor_tags = inner.classifier_tags, inner.regressor_tags
            tags.input_tags = inner.input_tags
        return tags

    def _of_draws(self):
        """The model that is trained."""
        if self.estimator is not None:
            return self.estimator
        return StackedClassifier(output="linear", n_fine_tuned_layers=0)

    def _kind(self):
        """Of which kind targets are."""
        check_is_fitted(self)
        return self.estimator_._targets()

    def _probabilities(self, X):
        """Mean probabilities of the classes of each output, of shape (n_samples, n_classes)."""
        kind, total = self._kind(), None
        for member in self.estimators_:
            found = [special.softmax(o, axis=1) for o in kind.by_output(member._outputs(X))]
            total = found if total is None else [a + b for a, b in zip(total, found, strict=True)]
        return [of_output / len(self.estimators_) for of_output in total]

    def _check_costs(self):
        if self.cost_matrix is None:
            return
        costs = np.asarray(self.cost_matrix, dtype=np.float64)
        classes = getattr(self, "output_classes_", [])
        n_classes = len(classes[0]) if len(classes) == 1 else 0
        if not n_classes:
            raise ValueError("cost_matrix is for models that predict the classes of one output.")
        if costs.shape != (n_classes, n_classes) or not np.isfinite(costs).all():
            raise ValueError(
                f"cost_matrix of shape {costs.shape} must have a finite number for each true class "
                f"(rows) and predicted class (columns): shape ({n_classes}, {n_classes})."
            )

    def _draw(self, X, y, sample_weight, seed):
        """Draw the members, and tell how well the chains did."""
        n_doubles = {"auto": _FEW_ROWS, "sgld": 0}.get(self.method, inf)
        problem = pose(self.estimator_, X, y, sample_weight, n_doubles=n_doubles)
        self.method_ = self._method_for(problem)
        plan = Plan(
            method=self.method_,
            n_chains=self.n_chains,
            n_draws=ceil(self.n_members / self.n_chains),
            thinning=self.thinning,
            burn_in=self.burn_in,
            n_steps=self.n_steps,
            step_size=None if self.step_size == "auto" else float(self.step_size),
            temperature=self.temperature,
            batch_size=self.batch_size,
        )
        generator = make_generator(seed, problem.data.rows.place.device)
        found = draw_parameters(
            problem.model, problem.data, problem.weights, plan, problem.n_rows,
            generator=generator, watched=watched(problem),
        )  # fmt: skip
        kinds = {name: array.dtype for name, array in problem.weights.items()}
        self.estimators_ = [
            problem.keep({name: array.astype(kinds[name]) for name, array in weights.items()})
            for weights in found.weights[: self.n_members]
        ]
        self.acceptance_, self.step_size_ = float(np.mean(found.acceptance)), found.step_size
        self.effective_size_, self.r_hat_ = worth(found.traces)
        trouble = trouble_of(self.acceptance_, self.effective_size_, self.r_hat_)
        if trouble is not None:
            warn(trouble, ConvergenceWarning)

    def _method_for(self, problem):
        is_noisy = problem.model.objective().is_noisy
        if self.method == "auto":
            return "sgld" if is_noisy or len(problem.data.index) > _FEW_ROWS else "hmc"
        if is_noisy and self.method != "sgld":
            raise ValueError(
                f"The criterion of {type(self.estimator_).__name__} has noise of its own, such as "
                f"corruption or dropout, by which method={self.method!r} cannot accept or reject. "
                "Use method='sgld' or 'auto', or a model without noise."
            )
        return self.method
