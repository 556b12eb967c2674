"""Nearest neighbours by tangent distance: a second reader of learned tangents."""

from numbers import Integral

import numpy as np
import torch
from sklearn.utils import check_consistent_length, column_or_1d

from skae._validation import (
    Interval,
    StrOptions,
    as_array,
    check_count,
    check_is_fitted,
    check_rows,
    column_names,
    computing_dtype,
)
from skae.engine.optimisation.devices import require_memory, resolve_device, widest_dtype
from skae.engine.optimisation.rows import StreamedRows
from skae.engine.tangents.distance import nearest_planes, orthonormal_bases
from skae.estimators.auto_encoders import AutoEncoder
from skae.estimators.face.columns import describe_columns
from skae.estimators.face.learning import learns
from skae.estimators.face.parameters import (
    attribute,
    estimator,
    fitted_property,
    parameter,
    preset,
    validate_parameters,
)
from skae.estimators.face.scikit_learn import BaseEstimator, ClassifierMixin
from skae.estimators.face.training import TrainedModel
from skae.estimators.supervised.predictors import ClassifyingStack
from skae.estimators.tangents.sources import SOURCES, SourceChoice, check_source, learned_source
from skae.estimators.targets import Classes
from skae.frames.encoding import Encoding

_CPU = torch.device("cpu")
_SIDES = {"one": 1, "two": 2}
# Neighbours of each row in local PCA.
_N_NEIGHBORS = 15


@estimator
class TangentDistanceClassifier(ClassifierMixin, BaseEstimator):
    r"""Nearest neighbours that forgive differences along the tangents of the data's manifold.

    At each row y there are directions :math:`B_y`, of shape (n_tangents, n_features), along which
    a small step stays in the class of y. The distance of a row x to a labelled row y is that to
    the plane which they span there or, with ``sides="two"``, that of the planes at both [1]_:

    .. math::

        d_1(x, y) = \min_t \| x - y - B_y^\top t \|, \qquad
        d_2(x, y) = \min_{s, t} \| x + B_x^\top s - y - B_y^\top t \|

    The ``n_neighbors`` nearest labelled rows vote.

    The directions come from an encoder, as the leading singular vectors of its Jacobian; from the
    principal components of each row's neighbours; or from you, for invariances that are known. The
    first two are learned from all rows given to `fit`, labelled or not. Use it where labels are few
    and rows are many, as the simplest reader of tangents: there is nothing to train but them.

    Read more in the :ref:`User Guide <manifold_tangents>`.

    See Also
    --------
    ManifoldTangentClassifier : A deep net that reads the same tangents.
    skae.diagnostics.tangents : The tangents of an encoder.
    sklearn.neighbors.KNeighborsClassifier : The same without tangents.

    Notes
    -----
    As those of :class:`~sklearn.neighbors.KNeighborsClassifier`, distances are in the units of
    the data, and so are local principal components: bring columns to one scale first.

    One-sided distances are found to all labelled rows. Two-sided ones take a small linear system
    for each pair, so that only the ``n_candidates`` rows that are nearest by the one-sided
    distance are looked at. Where planes share directions up to rounding, as where one invariance
    holds at all rows, their distance is the one in the directions that they do not share.

    The tangents of labelled rows are kept: n_labelled * n_tangents * n_features numbers.

    Planes have no end, so directions that also lead to other classes do harm. On handwritten digits
    those of local principal components help. Those of one encoder of all rows hold as much of the
    difference to rows of other classes as to rows of the same class, and distances with them are
    worse than plain ones; those of an encoder for each cluster of rows, passed as a function, help.
    Choose the source by cross-validation.

    References
    ----------
    .. [1] P. Simard, Y. LeCun, J. Denker. Efficient pattern recognition using a new
       transformation distance. NIPS 1993.
    .. [2] S. Rifai, Y. Dauphin, P. Vincent, Y. Bengio, X. Muller. The manifold tangent
       classifier. NIPS 2011.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.neighbors import KNeighborsClassifier
    >>> from skae import TangentDistanceClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> some = y.copy()
    >>> some[100:] = -1                                   # 100 labels, the others unknown
    >>> model = TangentDistanceClassifier(sides="two").fit(X, some)
    >>> plain = KNeighborsClassifier(1).fit(X[:100], y[:100])
    >>> bool(model.score(X[100:], y[100:]) > plain.score(X[100:], y[100:]) + 0.03)
    True
    """

    n_neighbors: int = parameter(
        default=5,
        constraints=[Interval(Integral, 1, None, closed="left")],
        doc="Labelled rows that vote.",
        kw_only=False,
    )
    tangent_source: SourceChoice = parameter(
        default="local_pca",
        constraints=SOURCES,
        kind='"local_pca", ("local_pca", int), estimator or callable',
        doc="""Where tangents come from: the principal components of each row's nearest neighbours
        among all rows of `fit`, 15 or as many as the tuple says; an encoder, such as
        ``ContractiveAutoEncoder()``, of which a clone is fitted to all rows of `fit` (one that is
        fitted is taken as it is if it is wrapped in :class:`~sklearn.frozen.FrozenEstimator`); or a
        function of X, of shape (n_samples, n_features), that returns directions of any lengths in
        the units of the data, of shape (n_samples, n_tangents, n_features).""",
    )
    n_tangents: int | str = parameter(
        default="auto",
        constraints=[Interval(Integral, 0, None, closed="left"), StrOptions({"auto"})],
        kind='int or "auto"',
        doc="""Directions at each row; 0 gives plain nearest neighbours. "auto": all that a function
        returns; of an encoder, as many as hold three quarters of the squared norm of its
        Jacobian in the median row; 10 for local PCA. Of these two, fewer where the planes would
        otherwise fill the space of the data.""",
    )
    sides: str = parameter(
        default="one",
        constraints=[StrOptions(set(_SIDES))],
        kind='{"one", "two"}',
        doc="Whether only the training row has a plane, or both rows.",
    )
    n_candidates: int | None = parameter(
        default=50,
        constraints=[Interval(Integral, 1, None, closed="left"), None],
        doc="""For ``sides="two"``, how many labelled rows are looked at for each row: those nearest
        to it by the one-sided distance. It is an approximation; None looks at all of them.""",
    )
    weights: str = parameter(
        default="distance",
        constraints=[StrOptions({"uniform", "distance"})],
        kind='{"uniform", "distance"}',
        doc="""Weights of votes: alike, or by the inverse of the distance; where it is 0, nobody
        else votes.""",
    )
    unlabelled: float | str | None = preset(ClassifyingStack, "unlabelled", default=-1)
    device: str | torch.device = preset(TrainedModel, "device", default="auto")

    classes_: np.ndarray = attribute("ndarray of shape (n_classes,)", "The classes.")
    n_tangents_: int = attribute("int", "Directions at each row.")
    labelled_: np.ndarray = attribute(
        "ndarray of shape (n_labelled,)", "Positions of the labelled rows among those of `fit`."
    )
    rows_: np.ndarray = attribute("ndarray of shape (n_labelled, n_features)", "These rows.")
    row_classes_: np.ndarray = attribute(
        "ndarray of shape (n_labelled,)", "Their classes, as positions in ``classes_``."
    )
    bases_: np.ndarray = attribute(
        "ndarray of shape (n_labelled, n_tangents_, n_features)",
        """Orthonormal bases of their tangents. Where directions depend on each other, the last ones
        are zero.""",
    )
    source_: object = attribute(
        "object or None", "What finds directions at any rows; None without tangents."
    )
    n_features_in_: int = attribute("int", "Number of features seen in `fit`.")
    feature_names_in_: np.ndarray = attribute(
        "ndarray of shape (n_features_in_,)", "Names of the features, where X had string names."
    )
    encoding_: Encoding | None = attribute(
        "Encoding or None",
        """What the columns of a data frame have become, see :class:`AutoEncoder`. None where X has
        numbers only.""",
    )

    @learns()
    def fit(self, X, y):
        """Learn tangents from all rows, and keep the labelled ones.

        Parameters
        ----------
        y : array-like of shape (n_samples,)
            Classes. Rows with an ``unlabelled`` one take part in the tangents alone.

        Raises
        ------
        ValueError
            Before anything is learned: if a parameter is out of its range, there are more
            tangents than the columns or the code allow, X is not finite, or fewer rows are
            labelled than vote, or all of them alike.
        MemoryError
            If the tangents of the labelled rows would not fit into memory.
        """
        validate_parameters(self)
        device = resolve_device(self.device)
        if y is None:
            raise ValueError(
                f"This {type(self).__name__} requires y to be passed, but the target y is None."
            )
        data = check_rows(self, X, reset=True, lowest=AutoEncoder())
        kind = Classes(self.unlabelled)
        table = kind.checked(column_or_1d(as_array(y), warn=True))
        check_consistent_length(data, table.values)
        (self.classes_,) = kind.described(table).classes
        self.labelled_ = np.flatnonzero(table.known)
        self._require_neighbours(self.n_neighbors)
        # With more directions at each of them, the planes of any two rows meet.
        self.source_ = self._learned_source(data, (data.shape[1] - 1) // _SIDES[self.sides])
        self.n_tangents_ = 0 if self.source_ is None else self.source_.n_tangents
        labels = table.values[self.labelled_, 0]
        self.row_classes_ = np.searchsorted(self.classes_, labels)
        self._keep_rows(data, device)
        return self

    def kneighbors(self, X, n_neighbors=None, return_distance=True):
        """The nearest labelled rows of each row.

        Parameters
        ----------
        n_neighbors : int, default=None
            How many; None for those that vote.
        return_distance : bool, default=True
            Whether to return distances, too.

        Returns
        -------
        distances : ndarray of shape (n_samples, n_neighbors)
            Tangent distances, the least first. Only if ``return_distance``.
        index : ndarray of shape (n_samples, n_neighbors)
            Positions of the neighbours among the rows of `fit`.
        """
        check_is_fitted(self)
        X = check_rows(self, X, reset=False)
        n_neighbors = self.n_neighbors if n_neighbors is None else n_neighbors
        check_count("n_neighbors", n_neighbors, 1)
        self._require_neighbours(n_neighbors)
        distances, index = self._nearest(X, n_neighbors)
        index = self.labelled_[index]
        return (distances, index) if return_distance else index

    def predict_proba(self, X):
        """The part of the votes for every class.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes)
        """
        distances, index = self.kneighbors(X)
        classes = self.row_classes_[np.searchsorted(self.labelled_, index)]
        votes = np.ones(distances.shape)
        if self.weights == "distance":
            # Relative to the nearest, so that no inverse overflows.
            np.divide(distances[:, :1], distances, out=votes, where=distances > 0)
        total = np.zeros((len(votes), len(self.classes_)))
        np.add.at(total, (np.arange(len(votes))[:, None], classes), votes)
        return total / total.sum(1, keepdims=True)

    def predict(self, X):
        """The class with most votes, of every row; the first of several.

        Returns
        -------
        classes : ndarray of shape (n_samples,)
        """
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(1)]

    def score(self, X, y, sample_weight=None):
        """Mean accuracy on the labelled rows.

        Parameters
        ----------
        y : array-like of shape (n_samples,)
            True classes; rows with an ``unlabelled`` one are left out.

        Returns
        -------
        score : float
        """
        check_is_fitted(self)
        kind = Classes(self.unlabelled, classes=[self.classes_])
        y = column_or_1d(as_array(y), warn=True)
        return kind.score(y, self.predict(X), sample_weight)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    @fitted_property
    def encoder_(self):
        """Estimator or None
        The fitted encoder, where tangents come from one.
        """
        return getattr(self.source_, "encoder", None)

    _encoded = TrainedModel._encoded

    def _require_neighbours(self, n_neighbors):
        if n_neighbors > len(self.labelled_):
            raise ValueError(
                f"n_neighbors={n_neighbors}, but only {len(self.labelled_)} rows (n_samples="
                f"{len(self.labelled_)}) are labelled. Use fewer neighbours, or label more rows."
            )
        n_candidates = len(self.labelled_) if self.n_candidates is None else self.n_candidates
        if self.sides == "two" and n_neighbors > n_candidates:
            raise ValueError(
                f"n_neighbors={n_neighbors} rows cannot be found among n_candidates="
                f"{n_candidates}. Use more candidates, or None for all rows."
            )

    def _learned_source(self, data, most):
        """The source of the tangents, of which there may be so many; None for no tangents."""
        choice, n_tangents = self.tangent_source, self.n_tangents
        if n_tangents == 0:
            return None
        is_learned = isinstance(choice, str | tuple) or hasattr(choice, "fit")
        # The user may know of more than can be learned.
        if is_learned and n_tangents != "auto" and n_tangents > most:
            raise ValueError(
                f"n_tangents={n_tangents}, but in a space of n_features={data.shape[1]} planes of "
                f"more than {most} dimensions meet, so that all distances would be 0. Use fewer "
                "tangents, or sides='one'."
            )
        check_source(choice, n_tangents, data, _N_NEIGHBORS, column_names(self))
        # In the units of the data.
        columns = describe_columns(data, "squared_error", None, data)
        source = learned_source(choice, n_tangents, data, _N_NEIGHBORS, columns)
        if is_learned and n_tangents == "auto":
            source.n_tangents = min(source.n_tangents, most, data.shape[0] - 1)
        return source if source.n_tangents > 0 else None

    def _keep_rows(self, data, device):
        """The labelled rows, dense, and the bases of the planes at them."""
        dtype = computing_dtype(data, device)
        n_rows, n_features = len(self.labelled_), data.shape[1]
        n_bytes = n_rows * (self.n_tangents_ + 1) * n_features * dtype.itemsize
        require_memory(
            n_bytes,
            _CPU,
            "Holding the tangents of the labelled rows",
            "Use fewer tangents, fewer labelled rows or float32 input.",
        )
        arrays = np.float64 if dtype == torch.float64 else np.float32
        self.rows_ = np.empty((n_rows, n_features), arrays)
        self.bases_ = np.empty((n_rows, self.n_tangents_, n_features), arrays)
        rows = StreamedRows(data[self.labelled_], None, None, dtype=dtype, device=device)
        for start, x in rows.blocks(self._width):
            self.rows_[start : start + len(x)] = x.cpu().numpy()
            self.bases_[start : start + len(x)] = self._bases_at(x).cpu().numpy()

    @property
    def _width(self):
        """Numbers that a row takes while its neighbours are sought."""
        return max((self.n_tangents_ + 1) * self.rows_.shape[1], len(self.labelled_))

    def _bases_at(self, x):
        if self.source_ is None:
            return x.new_zeros(len(x), 0, x.shape[1])
        directions = torch.from_numpy(self.source_.directions(x.cpu().numpy()))
        bases = orthonormal_bases(directions.to(x))
        missing = self.n_tangents_ - bases.shape[1]
        return torch.nn.functional.pad(bases, (0, 0, 0, missing)) if missing else bases

    def _nearest(self, X, n_neighbors):
        """Distances, and positions among the labelled rows."""
        device = resolve_device(self.device)
        dtype = torch.float32 if self.rows_.dtype == np.float32 else widest_dtype(device)
        require_memory(
            0 if device == _CPU else self.bases_.nbytes,
            device,
            "Holding the tangents of the labelled rows",
            "Use device='cpu', fewer tangents or float32 input.",
        )
        # Fitted state may be a read-only memory map, which torch does not have.
        kept = (a if a.flags.writeable else a.copy() for a in (self.rows_, self.bases_))
        rows, bases = (torch.from_numpy(a).to(device, dtype) for a in kept)
        # Distances stay, and ranking them is more accurate, where the rows are around 0.
        centre = rows.mean(0)
        rows = rows - centre
        distances = np.empty((X.shape[0], n_neighbors), self.rows_.dtype)
        index = np.empty((X.shape[0], n_neighbors), np.intp)
        streamed = StreamedRows(X, None, None, dtype=dtype, device=device)
        for start, x in streamed.blocks(self._width):
            block = slice(start, start + len(x))
            found = nearest_planes(
                x - centre,
                rows,
                bases,
                n_neighbors,
                x_bases=self._bases_at(x) if self.sides == "two" else None,
                n_candidates=self.n_candidates,
            )
            distances[block], index[block] = (a.cpu().numpy() for a in found)
        return distances, index
