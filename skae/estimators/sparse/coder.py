"""Sparse coding: codes by inference, with a dictionary that is learned or given."""

import math
from dataclasses import replace
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from scipy import sparse

from skae._validation import (
    Interval,
    Registered,
    StrOptions,
    check_is_fitted,
    check_rows,
    check_weights,
    column_names,
)
from skae.engine.optimisation import processes
from skae.engine.optimisation.devices import place_of
from skae.engine.optimisation.optimizers import OPTIMIZERS
from skae.engine.optimisation.sources import blocks_of
from skae.engine.sparse.dictionaries import DictionaryLearning, DictionarySteps, sparse_coding
from skae.engine.sparse.greedy import orthogonal_matching_pursuit, soft_threshold
from skae.engine.sparse.problem import choose_algorithm, make_quadratic, usable_algorithm
from skae.estimators.face.learning import learns
from skae.estimators.face.outcomes import report_vanished, some_rows
from skae.estimators.face.parameters import attribute, estimator, parameter, preset
from skae.estimators.face.parts import fits_batches, fits_batches_on, maps_lazily
from skae.estimators.face.training import TrainedModel, rows_for
from skae.estimators.face.transformer import Transformer, layer_weights
from skae.estimators.sparse.inference import (
    LOSSES,
    SparseInference,
    describe_coded_columns,
    find_dictionary,
    penalty_of,
    solve,
)
from skae.frames.reading import check_order, labels_of

# Rows, and dense entries, by which the algorithm of `transform` is chosen.
_PILOT_ROWS, _PILOT_ENTRIES = 64, 2**20
# Atoms that are learned at most where the user does not say how many.
_MOST_ATOMS = 256
# Codes while learning need not be as accurate as those that are handed out.
_LEARNING_TOL = 1e-2


@estimator
class SparseCoder(SparseInference, Transformer):
    r"""Sparse coding: each row as a combination of few atoms of a dictionary.

    Codes are found by inference, in which atoms compete to explain a row, without an encoder:

    .. math::

        h(x) = \arg\min_h \tfrac{1}{2} \|x - h D\|^2 + \alpha \|h\|_1
        + \tfrac{\rho}{2} \|h\|^2

    where :math:`\rho` is ``ridge`` (0 by default: the lasso). The dictionary D is learned, with
    atoms of norm 1, to minimise the mean of that over the rows; or it is given, as an array or as
    an estimator with components, such as a Boltzmann machine, an auto-encoder, PCA or k-means.

    Read more in the :ref:`User Guide <sparse_coding>`.

    See Also
    --------
    PSD : Learns an encoder that predicts sparse codes, which makes them cheap.
    sklearn.decomposition.MiniBatchDictionaryLearning : The same model, with slower inference.

    Notes
    -----
    Inference goes on until the duality gap of every row is at most ``inference_tol`` of its
    objective, or below the rounding error; a warning tells where ``inference_max_iter`` steps do
    not suffice.

    With the extra ``fast`` (``pip install "skae[fast]"``), codes on a CPU are found by a search
    that numba compiles, which is several times as fast: see :ref:`sparse_coding`.

    Standardised rows of d columns have a norm of about sqrt(d), so that wide tables want a
    larger ``alpha``: see `largest_alpha`. Text, as TF-IDF, wants ``loss="squared_error"``.

    A dictionary that is an estimator is fitted in `fit` unless it is fitted already.
    Cross-validation clones it with the coder, and so fits it in every fold; wrap it in
    :class:`~sklearn.frozen.FrozenEstimator` to keep it as it is.

    `score` is that of the reconstructions and does not count the penalty, so it grows as
    ``alpha`` falls: choose ``alpha`` by what the codes are for.

    References
    ----------
    .. [1] B. Olshausen, D. Field. Emergence of simple-cell receptive field properties by
       learning a sparse code for natural images. Nature 381, 1996.
    .. [2] J. Mairal, F. Bach, J. Ponce, G. Sapiro. Online learning for matrix factorization
       and sparse coding. Journal of Machine Learning Research 11, 2010.
    .. [3] A. Coates, A. Ng. The importance of encoding versus training with sparse coding and
       vector quantization. ICML 2011.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import SparseCoder
    >>> X, _ = load_digits(return_X_y=True)
    >>> coder = SparseCoder(n_components=32, alpha=2.0, max_iter=5, random_state=0).fit(X)
    >>> codes = coder.transform(X)
    >>> codes.shape, bool((codes != 0).mean() < 0.5)
    ((1797, 32), True)

    The components of another model as the dictionary:

    >>> from sklearn.decomposition import PCA
    >>> SparseCoder(dictionary=PCA(8)).fit_transform(X).shape
    (1797, 8)
    """

    n_components: int | None = parameter(
        default=None,
        constraints=[Interval(Integral, 1, None, closed="left"), None],
        doc="""Number of atoms that are learned. None: twice the features, but at most 256 and, in
        `fit`, one for five rows. With groups, the size of the map.""",
        kw_only=False,
    )
    alpha: float = preset(SparseInference, "alpha", default=0.3)
    dictionary: Any = parameter(
        default=None,
        constraints=[object],
        kind="array-like of shape (n_components, n_features), estimator or None",
        doc="""Atoms to use as they are; or an estimator with ``decoder_components_``, ``mixing_``,
        ``components_`` or ``cluster_centers_`` that add up to its input, which are scaled to
        norm 1, and whose shift and scale of the columns are applied. None learns them.""",
    )
    transform_algorithm: str = parameter(
        default="lasso",
        constraints=[StrOptions({"lasso", "omp", "threshold"})],
        kind='{"lasso", "omp", "threshold"}',
        doc="""What `transform` does: the optimum above; orthogonal matching pursuit, at most
        ``n_nonzero_coefs`` atoms by greedy choice; or a soft threshold, sign(c) max(abs(c) -
        alpha, 0) of c = x D^T, which is cheap and without explaining away. Learning always
        goes by the optimum.""",
    )
    n_nonzero_coefs: int | None = parameter(
        default=None,
        constraints=[Interval(Integral, 1, None, closed="left"), None],
        doc="""Atoms of a code, for "omp". None: a tenth of the features, at least one.""",
    )
    positive: bool = parameter(
        default=False, constraints=["boolean"], doc="Whether codes are at least 0."
    )
    ridge: float = parameter(
        default=0.0,
        constraints=[Interval(Real, 0, None, closed="left")],
        doc="""Weight of half the sum of squared codes: the elastic net, whose codes change
        smoothly, and share between atoms that are alike.""",
    )
    split_sign: bool = parameter(
        default=False,
        constraints=["boolean"],
        doc="""Whether `transform` returns positive and negative parts of the codes as features of
        their own, max(h, 0) and then max(-h, 0): twice as many.""",
    )
    sparse_output: bool = parameter(
        default=False, constraints=["boolean"], doc="Whether `transform` returns a CSR matrix."
    )
    loss: str = parameter(
        default="auto",
        constraints=[StrOptions(LOSSES)],
        kind='{"auto", "gaussian", "squared_error"}',
        doc="""The columns that are coded: "gaussian" standardises them by their mean and standard
        deviation, which are estimated in `fit`; "squared_error" takes them as they are.
        "auto" is "gaussian" where the dictionary is learned, else "squared_error", after the
        shift and scale of an estimator that lends its components.""",
    )

    optimizer: str = parameter(
        default="block",
        constraints=[StrOptions({"block"}), Registered(OPTIMIZERS)],
        kind='{"block", "adam", "sgd", "nesterov", "rmsprop", "adagrad"}',
        doc=""""block" solves for one atom after the other, given the codes of the rows so far, and
        has no learning rate; the others follow the gradient.""",
    )
    batch_size: int = preset(TrainedModel, "batch_size", default=256)
    max_iter: int | str = preset(TrainedModel, "max_iter", default="auto")
    n_iter_no_change: int | None = preset(TrainedModel, "n_iter_no_change", default=5)
    tol: float = preset(TrainedModel, "tol", default=1e-3)

    components_ = layer_weights(
        "dictionary",
        "ndarray of shape (n_components, n_features_in_)",
        "The dictionary, one atom per row, for (x - columns_.shift) / columns_.scale.",
    )
    n_components_: int = attribute("int", "Number of atoms.")
    inference_algorithm_: str = attribute(
        "str",
        """What `transform` infers codes with, chosen for some of the training rows:
        "feature_sign" (with the extra ``fast``, on a CPU) or else "homotopy", "fista" or, for
        groups, "admm".""",
    )

    stopping_reason_: str = attribute(
        "str",
        """Why training ended: "max_iter", "converged", "stopped" (by a callback), "interrupted"
        (Ctrl-C), "diverged", or "given": there was none, since the dictionary was given.""",
    )

    _collapse_remedy = "Use a smaller alpha, fewer components or columns that vary."

    @learns(batches=fits_batches)
    def fit(self, X, y=None, sample_weight=None):
        """Learn a dictionary from the rows of X, or find the one that is given.

        Raises
        ------
        ValueError
            If a parameter is out of its range; if X is empty, not numeric or not finite; if
            there are no atoms in what is given, or not for such rows. Whatever the error, the
            estimator stays as it was before.
        """
        if self.warm_start:
            self._leave_given_dictionary(X)
        super().fit(X, y, sample_weight)
        self.inference_algorithm_ = self._suitable_algorithm(X, sample_weight)
        return self

    @learns(batches=fits_batches_on)
    def partial_fit(self, X, y=None, sample_weight=None):
        """Continue learning with one pass over the rows of X, in batches.

        The first call chooses the number of atoms, the statistics of the columns and the
        algorithm of `transform`. What the rows so far say of the atoms, the optimiser's moments
        and the random state carry over. A dictionary that is given is taken anew at every call.
        """
        self._leave_given_dictionary(X)
        super().partial_fit(X, y, sample_weight)
        if not hasattr(self, "inference_algorithm_"):
            self.inference_algorithm_ = self._suitable_algorithm(X, sample_weight)
        return self

    @maps_lazily
    def transform(self, X):
        """Codes of the rows of X.

        Returns
        -------
        codes : {ndarray, CSR matrix} of shape (n_samples, n_components)
            Twice as many columns with ``split_sign``. In float32 for float32 input and
            small integers, else in float64.

        Warns
        -----
        CollapsedCodeWarning
            If all codes are zero; with the largest useful ``alpha``.
        """
        check_is_fitted(self)
        X = check_rows(self, X, reset=False, by_blocks=True)
        if self.sparse_output:
            # Only one block of codes is dense at a time.
            blocks = (rows for _, _, rows in blocks_of(X, self._n_features_out))
            codes = sparse.vstack([sparse.csr_matrix(self._codes(b)) for b in blocks], "csr")
            some = codes.nnz > 0
        else:
            codes = self._codes(X)
            some = codes.any()
        if not some:
            report_vanished(self, X)
        return codes

    def _check_parameters(self):
        if hasattr(self.n_components, "fit") or hasattr(self.n_components, "__len__"):
            raise ValueError(
                "n_components has to be a number. Pass a dictionary by its name, "
                "SparseCoder(dictionary=...)."
            )
        super()._check_parameters()
        if self.group_shape is not None:
            if self.dictionary is None and self.n_components is not None:
                penalty_of(self, int(self.n_components))
            if self.transform_algorithm != "lasso":
                raise ValueError(
                    f"group_shape={self.group_shape!r} is for codes by optimisation: use "
                    f"transform_algorithm='lasso', not {self.transform_algorithm!r}, or no groups."
                )
        if self.transform_algorithm == "omp" and self.positive:
            raise ValueError(
                "transform_algorithm='omp' fits by least squares, whose codes have any sign: use "
                "'lasso' or positive=False."
            )

    def _facts(self, X, weight, original, *, is_whole):
        auto, is_given = "gaussian", self.dictionary is not None
        if is_given:  # nothing is learned of the columns, and nothing drawn from them
            auto = "squared_error"
        columns = describe_coded_columns(self, X, weight, original, auto, has_grid=not is_given)
        if is_given:
            atoms, columns = find_dictionary(
                self.dictionary, X, columns, self.positive, column_names(self)
            )
            check_order(self.dictionary, labels_of(self))
            facts = {"n_components_": len(atoms), "weights_": {"dictionary": atoms}}
        else:
            n_rows = X.shape[0] if weight is None else np.count_nonzero(weight)
            n_rows = processes.current().total(n_rows)
            n_atoms = self._find_n_components(X.shape[1], n_rows if is_whole else None)
            facts = {"n_components_": n_atoms}
        penalty_of(self, facts["n_components_"])  # raises where groups do not fit
        return {**facts, "columns_": columns}

    def _model(self, place):
        is_given = self.dictionary is not None
        # A number that was changed after `fit` is noticed by the weights that it asks for.
        n_components = self.n_components_
        if self.n_components is not None and not is_given:
            n_components = int(self.n_components)
        penalty = penalty_of(self, n_components)
        units = self.columns_.units(place.device)
        shift, scale = self.columns_.standardization(place)

        def objective():
            return DictionaryLearning(
                penalty,
                ridge=float(self.ridge),
                floor=units.constant,
                tol=max(self.inference_tol, _LEARNING_TOL),
                max_iter=int(self.inference_max_iter),
                keeps_statistics=self.optimizer == "block",
            )

        def optimizer(objective):
            rule = OPTIMIZERS.get(self.optimizer)
            return DictionarySteps(objective, rule and rule(self.momentum))

        model = sparse_coding(
            n_components,
            len(self.columns_.mean),
            penalty,
            lambda dictionary, x: self._infer(dictionary, x, penalty),
            split_sign=self.split_sign,
            units=units,
            objective=None if is_given else objective,
            optimizer=optimizer,
            shift=shift,
            scale=scale,
            no_gradient=None
            if self.transform_algorithm == "threshold" and not is_given
            else "its codes are solved for, or its dictionary is given: use a PSD, which predicts "
            "such codes, or transform_algorithm='threshold' with a learned dictionary",
            # Else the first few rows of `partial_fit` would decide all that they use.
            keeps_state=self.optimizer == "block",
        )
        if self.transform_algorithm == "omp":  # greedy codes do not depend on alpha
            return replace(model, largest_alpha=None)
        return model

    def _infer(self, dictionary, x, penalty):
        """Codes of rows by the algorithm of `transform`."""
        if self.transform_algorithm == "threshold":
            return soft_threshold(x @ dictionary.t(), penalty.alpha, penalty.positive)
        quadratic = make_quadratic(dictionary, x, ridge=float(self.ridge))
        if self.transform_algorithm == "omp":
            n_nonzero = self.n_nonzero_coefs or max(1, x.shape[1] // 10)
            return orthogonal_matching_pursuit(quadratic, min(n_nonzero, len(dictionary)))
        # Amid a training nothing is chosen yet.
        algorithm = getattr(self, "inference_algorithm_", "auto")
        algorithm = usable_algorithm(algorithm, x.device)
        return solve(self, quadratic, penalty, algorithm=algorithm, **self._accuracy)

    def _suitable_algorithm(self, X, sample_weight):
        """The solver that suits training rows: one for all rows to come.

        So a row's code does not depend on those that come with it.
        """
        X = check_rows(self, X, reset=False, finite=False, by_blocks=True)
        n_pilot = max(1, min(_PILOT_ROWS, _PILOT_ENTRIES // X.shape[1]))
        X = some_rows(X, check_weights(sample_weight, X), n_pilot)
        model, theta = self._fitted_model(X)
        rows = rows_for(model, X, place_of(theta.flat))
        x = rows.take(torch.arange(len(rows), device=theta.flat.device))
        quadratic = make_quadratic(theta["dictionary"], x, ridge=float(self.ridge))
        chosen = choose_algorithm(quadratic, penalty_of(self, self.n_components_), **self._accuracy)
        return processes.current().first(chosen)

    def _leave_given_dictionary(self, X):
        """Let a dictionary that is given begin afresh; refuse to train one that was given."""
        if not hasattr(self, "weights_"):
            return
        if self.dictionary is not None:
            check_rows(self, X, reset=False, finite=False, by_blocks=True)
            del self.weights_
        elif self.stopping_reason_ == "given":
            raise ValueError(
                "This SparseCoder was fitted with a dictionary that was given, and training would "
                "continue with its atoms. Call fit with warm_start=False, or set dictionary again."
            )

    def _find_n_components(self, n_columns, n_rows):
        """Number of atoms to learn; ``n_rows`` is None where others will follow."""
        if self.n_components is not None:
            return int(self.n_components)
        default = min(_MOST_ATOMS, 2 * n_columns)
        if n_rows is not None:
            default = max(1, min(default, n_rows // 5))
        if self.group_shape is None:
            return default
        if self.map_shape is not None:
            return int(np.prod(self.map_shape))
        # A square map, on which a neighbourhood has room.
        return max(math.isqrt(default), int(np.max(self.group_shape))) ** 2
