"""Sparse coding: codes by inference, with a dictionary that is learned or given."""

import math
from numbers import Integral, Real

import numpy as np
import torch
from scipy import sparse

from skae._validation import (
    Interval,
    StrOptions,
    check_is_fitted,
    check_rows,
    computing_dtype,
)
from skae.engine.optimisation.optimizers import OPTIMIZERS
from skae.engine.optimisation.parameters import Parameters
from skae.engine.optimisation.rows import block_bounds, make_rows
from skae.engine.optimisation.training import Training
from skae.engine.sparse.dictionaries import BlockUpdate, DictionaryLearning, draw_atoms
from skae.engine.sparse.inference import (
    choose_algorithm,
    orthogonal_matching_pursuit,
    soft_threshold,
)
from skae.engine.sparse.problem import make_quadratic
from skae.estimators.face.outcomes import report_vanished, some_rows
from skae.estimators.face.parameters import estimator, parameter, preset
from skae.estimators.face.training import TrainingParameters
from skae.estimators.face.transformer import TrainedTransformer
from skae.estimators.sparse.given import find_dictionary
from skae.estimators.sparse.inference import SparseInference, solve

# Rows, and dense entries, by which the algorithm of `transform` is chosen.
_PILOT_ROWS, _PILOT_ENTRIES = 64, 2**20
# Atoms that are learned at most where the user does not say how many.
_MOST_ATOMS = 256
# Codes while learning need not be as accurate as those that are handed out.
_LEARNING_TOL = 1e-2


@estimator
class SparseCoder(SparseInference, TrainedTransformer):
    r"""Sparse coding: each row as a combination of few atoms of a dictionary.

    The code of a row is found by inference, in which atoms compete to explain it
    ("explaining away"); no encoder is involved:

    .. math::

        h(x) = \arg\min_h \tfrac{1}{2} \|x - h D\|^2 + \alpha \|h\|_1
        + \tfrac{\rho}{2} \|h\|^2

    where :math:`\rho` is ``ridge`` (0 by default: the lasso). The dictionary D is learned, as
    the minimiser of the mean over the rows of the minimum above with atoms of norm 1, or it is
    given: as an array, or as any estimator with components, so that the filters of a Boltzmann
    machine, an auto-encoder, PCA or k-means can be used with sparse inference in place of their
    own feed-forward codes.

    Read more in the :ref:`User Guide <sparse_coding>`.

    Parameters
    ----------
    {parameters}

    Attributes
    ----------
    {attributes}

    See Also
    --------
    PSD : Learns an encoder that predicts sparse codes, which makes them cheap.
    sklearn.decomposition.MiniBatchDictionaryLearning : The same model, with slower inference.

    Notes
    -----
    Codes come with a certificate: inference goes on until the duality gap of every row is at
    most ``inference_tol`` of its objective, or below the rounding error; where
    ``inference_max_iter`` steps do not suffice for that, there is a warning.

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

    n_components: int = parameter(
        default=None,
        constraints=[Interval(Integral, 1, None, closed="left"), None],
        doc="""int or None
        Number of atoms that are learned. None: twice the features, but at most 256 and, in
        `fit`, one for five rows: where there are as many atoms as rows, every row becomes
        one. With groups, the size of the map.""",
        kw_only=False,
    )
    alpha: float = preset(SparseInference, "alpha", default=0.3)
    dictionary: object = parameter(
        default=None,
        constraints=[object],
        doc="""array-like of shape (n_components, n_features), estimator or None
        Atoms to use as they are; or an estimator with ``decoder_components_``, ``mixing_``,
        ``components_`` or ``cluster_centers_`` that add up to its input, which are scaled to
        norm 1, and whose shift and scale of the columns are applied. None learns them.""",
    )
    transform_algorithm: str = parameter(
        default="lasso",
        constraints=[StrOptions({"lasso", "omp", "threshold"})],
        doc="""{"lasso", "omp", "threshold"}
        What `transform` does: the optimum above; orthogonal matching pursuit, at most
        ``n_nonzero_coefs`` atoms by greedy choice; or a soft threshold, sign(c) max(abs(c) -
        alpha, 0) of c = x D^T, which is cheap and without explaining away. Learning always
        goes by the optimum.""",
    )
    n_nonzero_coefs: int = parameter(
        default=None,
        constraints=[Interval(Integral, 1, None, closed="left"), None],
        doc="""int or None
        Atoms of a code, for "omp". None: a tenth of the features, at least one.""",
    )
    positive: bool = parameter(
        default=False,
        constraints=["boolean"],
        doc="""bool
        Whether codes are at least 0.""",
    )
    ridge: float = parameter(
        default=0.0,
        constraints=[Interval(Real, 0, None, closed="left")],
        doc="""float
        Weight of half the sum of squared codes: the elastic net, whose codes change
        smoothly, and share between atoms that are alike.""",
    )
    split_sign: bool = parameter(
        default=False,
        constraints=["boolean"],
        doc="""bool
        Whether `transform` returns positive and negative parts of the codes as features of
        their own, max(h, 0) and then max(-h, 0): twice as many.""",
    )
    sparse_output: bool = parameter(
        default=False,
        constraints=["boolean"],
        doc="""bool
        Whether `transform` returns a CSR matrix.""",
    )
    loss: str = parameter(
        default="auto",
        constraints=[StrOptions({"auto", "gaussian", "squared_error"})],
        doc="""{"auto", "gaussian", "squared_error"}
        The columns that are coded: "gaussian" standardises them by their mean and standard
        deviation, which are estimated in `fit`; "squared_error" takes them as they are.
        "auto" is "gaussian" where the dictionary is learned, else "squared_error", after the
        shift and scale of an estimator that lends its components.""",
    )

    optimizer: str = parameter(
        default="block",
        constraints=[StrOptions({"block", *OPTIMIZERS})],
        doc="""{"block", "adam", "sgd", "nesterov", "rmsprop", "adagrad"}
        "block" solves for one atom after the other, given the codes of the rows so far, and
        has no learning rate; the others follow the gradient.""",
    )
    batch_size: int = preset(TrainingParameters, "batch_size", default=256)
    max_iter: int = preset(TrainingParameters, "max_iter", default=30)
    n_iter_no_change: int = preset(TrainingParameters, "n_iter_no_change", default=5)
    tol: float = preset(TrainingParameters, "tol", default=1e-3)

    _attributes_doc = (
        """
    components_ : ndarray of shape (n_components, n_features_in_)
        The dictionary, one atom per row, for
        (x - columns_.shift) / columns_.scale.
    n_components_ : int
        Number of atoms.
    inference_algorithm_ : str
        What `transform` infers codes with, chosen for some of the training rows: "homotopy",
        "fista" or, for groups, "admm"."""
        + TrainedTransformer._attributes_doc
    )

    @property
    def components_(self):
        """The dictionary, one atom per row."""
        if "weights_" not in vars(self):
            raise AttributeError(f"this {type(self).__name__} is not fitted")
        return self.weights_["dictionary"]

    def transform(self, X):
        """Codes of the rows of X.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data.

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
        X = check_rows(self, X, reset=False)
        if self.sparse_output:
            # Only one block of codes is dense at a time.
            bounds = block_bounds(X.shape[0], max(self._n_features_out, X.shape[1]))
            codes = sparse.vstack(
                [sparse.csr_matrix(self._codes(X[start:stop])) for start, stop in bounds], "csr"
            )
            some = codes.nnz > 0
        else:
            codes = self._codes(X)
            some = codes.any()
        if not some and self._has_vanished(X):
            report_vanished(self, X)
        return codes

    _collapse_remedy = "Use a smaller alpha, fewer components or columns that vary."

    @property
    def _keeps_statistics(self):
        # Without them, the first few rows of `partial_fit` would decide all that they use.
        return self.optimizer == "block" and self.dictionary is None

    @property
    def _loss_choice(self):
        if self.loss != "auto":
            return self.loss
        return "gaussian" if self.dictionary is None else "squared_error"

    @property
    def _n_features_out(self):
        return len(self.components_) * (2 if self.split_sign else 1)

    def _validate_parameters(self):
        if hasattr(self.n_components, "fit") or hasattr(self.n_components, "__len__"):
            raise ValueError(
                "n_components has to be a number. Pass a dictionary by its name, "
                "SparseCoder(dictionary=...)."
            )
        super()._validate_parameters()
        if self.group_shape is not None:
            if self.dictionary is None and self.n_components is not None:
                self._make_penalty(int(self.n_components), self.positive)
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

    def _prepare(self, X, sample_weight, *, fresh, whole=True):
        given = self.dictionary is not None
        if not (fresh or given) and self.stopping_reason_ == "given":
            raise ValueError(
                "This SparseCoder was fitted with a dictionary that was given, and training would "
                "continue with its atoms. Call fit with warm_start=False, or set dictionary again."
            )
        if given and not fresh:
            check_rows(self, X, reset=False, finite=False)
        # What is given is taken anew at every call: nothing is learned that could be lost.
        data, weight = super()._prepare(X, sample_weight, fresh=fresh or given, whole=whole)
        if given:
            atoms, self.columns_ = find_dictionary(
                self.dictionary, data, self.columns_, self.positive
            )
            self.weights_ = {"dictionary": atoms}
            self.n_components_ = len(atoms)
        elif fresh:
            n_rows = data.shape[0] if weight is None else np.count_nonzero(weight)
            self.n_components_ = self._find_n_components(n_rows if whole else None)
        self._make_penalty(self.n_components_, self.positive)
        return data, weight

    def _has_vanished(self, X):
        # Greedy codes do not depend on alpha.
        return self.transform_algorithm != "omp" and super()._has_vanished(X)

    def _find_n_components(self, n_rows):
        """Number of atoms to learn; ``n_rows`` is None where others will follow."""
        if self.n_components is not None:
            return int(self.n_components)
        default = min(_MOST_ATOMS, 2 * self.n_features_in_)
        if n_rows is not None:
            default = max(1, min(default, n_rows // 5))
        if self.group_shape is None:
            return default
        if self.map_shape is not None:
            return int(np.prod(self.map_shape))
        # A square map, on which a neighbourhood has room.
        return max(math.isqrt(default), int(np.max(self.group_shape))) ** 2

    def _train(self, X, weight, **options):
        if self.dictionary is None:
            training = super()._train(X, weight, **options)
        else:
            self.device_, self.stopping_reason_ = str(self._usable_device()), "given"
            training = Training([], [], {}, "given", 0)
        if not (options.get("resumable") and hasattr(self, "inference_algorithm_")):
            n_pilot = max(1, min(_PILOT_ROWS, _PILOT_ENTRIES // X.shape[1]))
            # One algorithm for all rows to come: a row's code does not depend on the others.
            self.inference_algorithm_ = self._choose_algorithm(some_rows(X, weight, n_pilot))
        return training

    def _choose_algorithm(self, X):
        device = self._usable_device()
        dtype = computing_dtype(X, device)
        theta = self._fitted_parameters(dtype, device)
        rows = make_rows(
            X, *self.columns_.standardization(dtype, device), dtype=dtype, device=device
        )
        x = rows.take(torch.arange(len(rows), device=device))
        quadratic = make_quadratic(theta["dictionary"], x, ridge=float(self.ridge))
        return choose_algorithm(quadratic, self._penalty, **self._inference)

    @property
    def _penalty(self):
        return self._make_penalty(self.n_components_, self.positive)

    def _parameter_shapes(self):
        n_components = self.n_components_ if self.n_components is None else int(self.n_components)
        if self.dictionary is not None:
            n_components = self.n_components_
        return {"dictionary": (n_components, self.n_features_in_)}

    def _initial_parameters(self, dtype, device, generator):
        return Parameters(self._parameter_shapes(), dtype=dtype, device=device)

    def _start_at_rows_(self, theta, rows, index, generator):
        n_components = len(theta["dictionary"])
        chosen = torch.randperm(len(index), generator=generator, device=generator.device)
        # More than enough: rows of zeros are no atoms.
        sample = rows.take(index.to(chosen.device)[chosen[: 2 * n_components]])
        theta["dictionary"].copy_(draw_atoms(sample, n_components, generator))

    def _make_objective(self, theta):
        return DictionaryLearning(
            self._penalty,
            ridge=float(self.ridge),
            offset=self.columns_.units(theta.flat.device).offset,
            tol=max(self.inference_tol, _LEARNING_TOL),
            max_iter=int(self.inference_max_iter),
            keeps_statistics=self.optimizer == "block",
        )

    def _make_optimizer(self, objective):
        if self.optimizer == "block":
            return BlockUpdate(objective)
        return super()._make_optimizer(objective)

    def _make_projection(self, objective):
        return None if objective is None else objective.refresh_

    @property
    def _hindered_gradient(self):
        if self.transform_algorithm == "threshold" and self.dictionary is None:
            return None
        return (
            "its codes are solved for, or its dictionary is given: use a PSD, which predicts such "
            "codes, or transform_algorithm='threshold' with a learned dictionary"
        )

    def _encode(self, theta, x):
        dictionary = theta["dictionary"]
        if self.transform_algorithm == "threshold":
            code = soft_threshold(x @ dictionary.t(), float(self.alpha), self.positive)
        else:
            quadratic = make_quadratic(dictionary, x, ridge=float(self.ridge))
            if self.transform_algorithm == "omp":
                n_nonzero = self.n_nonzero_coefs or max(1, x.shape[1] // 10)
                code = orthogonal_matching_pursuit(quadratic, min(n_nonzero, len(dictionary)))
            else:
                # Amid a training nothing is chosen yet.
                algorithm = getattr(self, "inference_algorithm_", "auto")
                code = solve(self, quadratic, self._penalty, algorithm=algorithm, **self._inference)
        if self.split_sign:
            return torch.cat([code.clamp(min=0), (-code).clamp_(min=0)], 1)
        return code

    def _decode(self, theta, code):
        if self.split_sign:
            positive, negative = code.chunk(2, dim=1)
            code = positive - negative
        return code @ theta["dictionary"]
