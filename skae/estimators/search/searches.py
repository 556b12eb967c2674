"""scikit-learn's searches, with their candidates' models trained together."""

import math
import re
import signal
import threading
from collections.abc import Iterable
from contextlib import ExitStack, contextmanager
from typing import Any, Self

import joblib
import numpy as np
import torch
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.utils import get_tags
from sklearn.utils.metaestimators import available_if

from skae._documentation import complete, entries
from skae._validation import BaseSearchCV
from skae.engine.optimisation.devices import available_memory
from skae.estimators.face.training import TrainedModel
from skae.estimators.search.backend import MANY, TogetherBackend, number_of_jobs
from skae.estimators.search.cluster import ClusterWorkers, cluster_client
from skae.estimators.search.parts import PartsBackend
from skae.estimators.search.processes import Processes, processes_of

# What the parameters mean that both searches have.
_OF_SPLIT = re.compile(r"split\d+_test_")
_SHARED = entries("""
    estimator : estimator
        A model of this package, or what has one, such as a pipeline.
    scoring : str, callable, list, tuple or dict, default=None
        Scores of a fitted estimator. None: its method ``score``.
    n_jobs : int, default=None
        Processes among which the fits are divided, as joblib counts jobs; each trains its part
        together, and does what else is fitted. None: one, this process. In a context of joblib
        whose backend is "threading": threads of this process, which trains all models together,
        while so many fits at a time do what is not training of models of this package.
    refit : bool, str or callable, default=True
        Whether to fit the best candidate on all rows, by itself, or by which score, or how to
        choose.
    cv : int, cross-validation generator or iterable, default=None
        Folds. None: five.
    verbose : int, default=0
        How much to print.
    pre_dispatch : int or str, default="2*n_jobs"
        Fits that are begun at a time. Fewer make smaller batches.
    error_score : "raise" or float, default=nan
        Score of a candidate whose fit fails.
    return_train_score : bool, default=False
        Whether ``cv_results_`` has scores on training rows, too.
""")


class Batched(BaseSearchCV):
    """A search whose candidates' models are trained together."""

    def fit(self, X, y=None, **params: Any) -> Self:
        """Fit all candidates on all folds, models of one shape as one, and refit the best.

        Parameters
        ----------
        X : array-like, sparse matrix or data frame of shape (n_samples, n_features)
            Training data.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Targets.
        **params : dict
            Passed on to fits, scorers and splitter, as in the search of scikit-learn.

        Returns
        -------
        self : object
            The search.

        Raises
        ------
        ValueError
            If the estimator has no model of this package, or no parameter of such a name.
        KeyboardInterrupt
            After Ctrl-C: no more is trained. ``cv_results_`` has the scores of what was finished,
            NaN for the rest, and in "finished" which candidates were.
        """
        grids = _grids(self)
        _check_names(self.estimator, grids)
        _check_has_model(self.estimator, grids)
        size = _together(X)
        backend = _backend_for(self.n_jobs, size)
        with ExitStack() as stack:
            stack.enter_context(joblib.parallel_config(backend=backend))
            self._evaluation = backend, stack
            try:
                return super().fit(X, y, **params)
            finally:
                self.__dict__.pop("_evaluation", None)

    @available_if(lambda search: hasattr(search.estimator, "transform"))
    def fit_transform(self, X, y=None, **params: Any):
        """Search, and transform X by the best estimator.

        Parameters
        ----------
        X, y, params
            As in `fit`.

        Returns
        -------
        X_new : ndarray
            What ``best_estimator_`` makes of X.
        """
        return self.fit(X, y, **params).transform(X)

    def __sklearn_tags__(self):
        # A search over a transformer is one; scikit-learn's own does not say so.
        tags, own = super().__sklearn_tags__(), get_tags(self.estimator)
        tags.transformer_tags, tags.input_tags = own.transformer_tags, own.input_tags
        return tags

    def _run_search(self, evaluate_candidates, *, callback_ctx=None):
        # Workers get the search, too, without this.
        backend, stack = self.__dict__.pop("_evaluation")
        context = {} if callback_ctx is None else {"callback_ctx": callback_ctx}
        if isinstance(getattr(backend, "workers", None), ClusterWorkers):
            super()._run_search(evaluate_candidates, **context)
            stack.close()
            return
        results: dict[str, Any] = {}

        def evaluate(*args, **options):
            results.update(evaluate_candidates(*args, **options))
            return results

        with _ended_by_interrupt(backend) as interrupt:
            try:
                super()._run_search(evaluate, **context)
            except Exception:
                if not interrupt.is_set():
                    raise
        # What is fitted from here on is fitted by itself.
        stack.close()
        if interrupt.is_set():
            if results:
                finished = _finished(results, backend.unfinished)
                self.cv_results_ = {**results, "finished": finished}
            raise KeyboardInterrupt


class BatchedGridSearchCV(Batched, GridSearchCV):
    r"""Search over a grid of parameters whose models are trained together.

    It is :class:`~sklearn.model_selection.GridSearchCV`, with the same parameters, attributes and
    results, but models of one shape that its candidates and folds ask for are trained as one: each
    has its own parameters :math:`\theta_k`, rows, permutations, noise, learning rate and penalties,
    and minimises

    .. math::

        \frac{1}{n_k} \sum_i \ell_k(x_i, \theta_k), \qquad k = 1, \ldots, m

    by itself, while one batched product does for all m of them. A model stops, converges or
    diverges by itself. Scores are those of :class:`~sklearn.model_selection.GridSearchCV`, but for
    rounding.

    The estimator is a model of this package, or a :class:`~sklearn.pipeline.Pipeline` or anything
    else that has one. Trained as one are auto-encoders of one layer of one size, with all their
    penalties but the second-order ones, and every corruption, deep ones without penalties, and
    restricted Boltzmann machines, unless variances are learned; what several candidates have in
    common, as those that differ in later steps of a pipeline, is trained once; other models are
    trained one after the other.

    Parameters
    ----------
    param_grid : dict or list of dict
        Names of parameters and lists of values, as ``{"contraction": [0.01, 0.1]}`` or, of a step
        of a pipeline, ``{"cae__contraction": [0.01, 0.1], "svm__C": [1, 10]}``.

    Attributes
    ----------
    cv_results_ : dict of ndarray
        Scores, parameters, ranks and times of all candidates. A fit's time includes that of waiting
        for the others. After Ctrl-C "finished" tells which candidates were done.
    best_estimator_ : estimator
        The best candidate, fitted on all rows.
    best_score_ : float
        Its mean score on the folds.
    best_params_ : dict
        Its parameters.
    best_index_ : int
        Its place in ``cv_results_``.
    scorer_ : callable or dict
        The scorer that was used.
    n_splits_ : int
        Number of folds.
    refit_time_ : float
        Seconds of the last fit.
    multimetric_ : bool
        Whether there are several scores.
    classes_ : ndarray of shape (n_classes,)
        Of a classifier, its classes.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns, where X had some.

    See Also
    --------
    BatchedRandomizedSearchCV : The same for candidates that are drawn.
    train_together : The same for anything of scikit-learn that fits many models.

    Notes
    -----
    All fits of a round are alive at the same time, each with its copy of its rows: rounds are as
    large as memory allows, at most 192 fits.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.pipeline import Pipeline
    >>> from sklearn.svm import SVC
    >>> from skae import BatchedGridSearchCV, ContractiveAutoEncoder
    >>> X, y = load_digits(n_class=4, return_X_y=True)
    >>> cae = ContractiveAutoEncoder(16, max_iter=5, random_state=0)
    >>> model = Pipeline([("cae", cae), ("svm", SVC())])
    >>> grid = {"cae__contraction": [0.01, 0.1, 1.0], "svm__C": [1, 10]}
    >>> search = BatchedGridSearchCV(model, grid, cv=3).fit(X, y)
    >>> bool(search.best_score_ > 0.9)
    True
    """


class BatchedRandomizedSearchCV(Batched, RandomizedSearchCV):
    """Search over parameters that are drawn, with models that are trained together.

    It is :class:`~sklearn.model_selection.RandomizedSearchCV`, with the same parameters, attributes
    and results; what is trained together, and how, says :class:`BatchedGridSearchCV`.

    Parameters
    ----------
    param_distributions : dict or list of dict
        Names of parameters, and lists of values or distributions of scipy.
    n_iter : int, default=10
        Candidates that are drawn.
    random_state : int, RandomState instance or None, default=None
        Seed of the draws.

    See Also
    --------
    BatchedGridSearchCV : The same for all candidates of a grid, with the same attributes.

    Examples
    --------
    >>> from scipy.stats import loguniform
    >>> from sklearn.datasets import load_iris
    >>> from skae import BatchedRandomizedSearchCV, DenoisingAutoEncoder
    >>> X, _ = load_iris(return_X_y=True)
    >>> model = DenoisingAutoEncoder(8, max_iter=5, random_state=0)
    >>> drawn = {"learning_rate": loguniform(1e-3, 1e-2), "corruption_level": [0.1, 0.3]}
    >>> search = BatchedRandomizedSearchCV(model, drawn, n_iter=4, random_state=0).fit(X)
    >>> sorted(search.best_params_)
    ['corruption_level', 'learning_rate']
    """


for _search in (BatchedGridSearchCV, BatchedRandomizedSearchCV):
    complete(_search, _SHARED)


@contextmanager
def _ended_by_interrupt(backend: TogetherBackend | PartsBackend):
    """A context in which the first Ctrl-C ends what the backend trains; yields whether it came.

    The second one is an ordinary KeyboardInterrupt.
    """
    pressed = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield pressed  # only the main thread hears of it
        return
    before = signal.getsignal(signal.SIGINT)

    def end(number, frame):
        if pressed.is_set() and callable(before):
            before(number, frame)
        pressed.set()
        backend.end()

    signal.signal(signal.SIGINT, end)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)


def _finished(results: dict[str, Any], unfinished: Iterable[int]) -> np.ndarray:
    """Which candidates were trained and scored on all folds."""
    # Columns of scores are "split0_test_score" and so on, of each metric.
    n_splits = len({name.partition("_")[0] for name in results if _OF_SPLIT.match(name)})
    finished = np.ones(len(results["params"]), dtype=bool)
    finished[[number // n_splits for number in unfinished]] = False
    return finished


def _grids(search) -> list[dict[str, Any]]:
    """The parameters and values of a search, a dict or several."""
    grid = getattr(search, "param_grid", None)
    grid = search.param_distributions if grid is None else grid
    return [grid] if isinstance(grid, dict) else list(grid)


def _check_names(estimator, grids) -> None:
    """Raise a ValueError for parameters that the estimator does not have."""
    known = estimator.get_params(deep=True)
    for name in (name for grid in grids if isinstance(grid, dict) for name in grid):
        # A step that is itself searched over brings parameters of its own.
        step, has_parts, _ = name.rpartition("__")
        is_replaced = has_parts and any(step in grid for grid in grids)
        if name not in known and not is_replaced:
            raise ValueError(
                f"Invalid parameter {name!r}: {type(estimator).__name__} has the parameters "
                f"{sorted(known)}."
            )


def _check_has_model(estimator, grids) -> None:
    """Raise a ValueError if nothing that is fitted is a model of this package."""
    values = [estimator, *estimator.get_params(deep=True).values()]
    for grid in grids:
        for choice in grid.values() if isinstance(grid, dict) else ():
            values += list(choice) if isinstance(choice, list | tuple) else []
    if not any(isinstance(value, TrainedModel) for value in values):
        raise ValueError(
            f"{type(estimator).__name__} has no model of skae that could be trained together with "
            "others: put one in it, such as ContractiveAutoEncoder as a step of a pipeline, or use "
            "the search of scikit-learn."
        )


def _backend_for(n_jobs: int | None, size: int) -> Any:
    """What a search does its fits by, of which so many may be alive together."""
    client = cluster_client()
    if client is not None:
        return PartsBackend(ClusterWorkers(client, number_of_jobs(n_jobs), size), size)
    n_processes = processes_of(n_jobs)
    if n_processes > 1:
        return PartsBackend(Processes(n_processes, size), size)
    return TogetherBackend(number_of_jobs(n_jobs), size)


def _together(X) -> int:
    """How many fits may be alive together: each has its rows, as they came, split and scaled."""
    available = available_memory(torch.device("cpu"))
    if available is None:
        return MANY
    shape = getattr(X, "shape", None)
    needed = 4 * 8 * max(1, math.prod(np.asarray(X).shape if shape is None else shape))
    return int(min(MANY, max(2, available // 2 // needed)))
