"""Features of tables: the columns on good scales, and codes of how they depend on each other."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Self

import numpy as np
import torch
from scipy import sparse
from sklearn.utils import check_array

from skae._validation import as_array, check_is_fitted, check_rows, check_weights, column_names
from skae.estimators.auto_encoders import AutoEncoder
from skae.estimators.face.learning import learns
from skae.estimators.face.parameters import attribute, estimator, parameter, preset
from skae.estimators.face.rows import returns_rows
from skae.estimators.face.transformer import Transformer
from skae.frames.encoding import distinct_names
from skae.sources.finding import found

# So few variables have little to do with each other: codes of them take more than they give.
_FEW_VARIABLES = 5
# What is added to the correlations of columns, so that copies of a column keep a share.
_LEAST_OWN = 0.01


class Block(NamedTuple):
    """Features that are scaled together; fitted state of `TableFeatures`.

    - ``names``: of its features.
    - ``center``, of shape (n_features,), is subtracted; then all are divided by ``scale``, a number
      or one for each feature.
    """

    names: tuple[str, ...]
    center: np.ndarray
    scale: float | np.ndarray


@estimator
class TableFeatures(AutoEncoder):
    r"""Features of a table for the next model: its columns, and codes of how they hang together.

    Takes a data frame as it is, with numbers, text, categories, dates and gaps, and learns
    without labels. An encoder of three layers learns to predict each variable of a row by the
    others: in each row of a batch, every variable is swapped, with probability
    ``corruption_level``, for that of another row, and a linear decoder has to find the row as
    it was,

    .. math::

        -\log P(x \mid V h_L(\tilde x) + c), \qquad
        h_{l+1} = \max(W_l h_l + b_l, 0), \quad h_0 = \tilde x

    The features of a row, which is not corrupted then, are its columns as the network sees
    them (numbers clipped and standardised, categories one-hot, and for each variable with
    gaps whether there is one) and its code, the output of the highest layer. Columns that repeat
    each other would count again and again in distances. So the squared weight of a variable is the
    square root of the share of its variance that no linear function of the others tells. Both
    blocks have mean 0 and rows of mean squared length 1, so that neighbours, kernels and linear
    models can use them as they are. A table of fewer than 5 variables gets no code, which would be
    worth less than the columns, unless ``include_columns=False``.

    Read more in the :ref:`User Guide <table_features>`, with what was measured.

    See Also
    --------
    DenoisingAutoEncoder : Codes of one layer alone.

    References
    ----------
    .. [1] P. Vincent, H. Larochelle, I. Lajoie, Y. Bengio, P.-A. Manzagol. Stacked
       denoising autoencoders. Journal of Machine Learning Research 11, 2010.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from skae import TableFeatures
    >>> rng = np.random.default_rng(0)
    >>> age = rng.integers(18, 80, size=300)
    >>> table = pd.DataFrame({
    ...     "age": np.where(rng.random(300) < 0.1, np.nan, age),
    ...     "income": rng.lognormal(8, 1, size=300),
    ...     "town": rng.choice(["Aix", "Bern", "Como"], size=300),
    ...     "member": rng.random(300) < 0.4,
    ...     "visits": rng.poisson(3, size=300),
    ... })
    >>> model = make_pipeline(
    ...     TableFeatures(max_iter=20, random_state=0), LogisticRegression()
    ... ).fit(table, age > 50)
    >>> features = model[0].transform(table)
    >>> features.shape
    (300, 136)
    >>> model[0].get_feature_names_out()[:4].tolist()
    ['age', 'income', 'town_Aix', 'town_Bern']
    """

    include_columns: bool = parameter(
        default=True,
        constraints=["boolean"],
        doc="Whether the columns are among the features, or the code alone.",
    )
    n_components: int = preset(AutoEncoder, "n_components", default=128, kw_only=False)
    hidden_layer_sizes: int | Sequence[int] = preset(
        AutoEncoder, "hidden_layer_sizes", default=(128, 128)
    )
    activation: str = preset(AutoEncoder, "activation", default="relu")
    decoder: str = preset(AutoEncoder, "decoder", default="linear")
    corruption: str | Callable | None = preset(AutoEncoder, "corruption", default="swap")
    corruption_level: float | tuple[float, float] | Sequence[float] = preset(
        AutoEncoder, "corruption_level", default=0.2
    )
    numbers: str = preset(Transformer, "numbers", default="clipped")
    batch_size: int = preset(AutoEncoder, "batch_size", default=128)
    learning_rate: float = preset(AutoEncoder, "learning_rate", default=2e-3)
    learning_rate_schedule: str = preset(
        AutoEncoder, "learning_rate_schedule", default="warmup_cosine"
    )

    _made_by_one = "what its features are scaled by is measured on all rows of a table"

    blocks_: tuple[Block, ...] = attribute(
        "tuple of Block",
        """The columns, if they are among the features, and the code: ``names`` of the features,
        the ``center`` that is subtracted, the ``scale`` by which it is divided: one number for the
        code, one for each of the columns.""",
    )
    columns_with_gaps_: np.ndarray = attribute(
        "ndarray of int",
        "The columns that have a feature for their gaps, since training rows had some there; of a "
        "one-hot variable, its first.",
    )

    @learns()
    def fit(self, X, y=None, sample_weight=None) -> Self:
        """Learn from the rows of X.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training data; a data frame may have text, categories, dates and gaps.

        Raises
        ------
        ValueError
            If a parameter is out of its range; if X is empty, or has columns of which nothing can
            be learned; if training diverged at once. Whatever the error, the estimator stays as it
            was before.
        MemoryError
            If the parameters would not fit into the device's memory.
        """
        X = found(as_array(X), type(self).__name__)
        super().fit(X, y, sample_weight)
        self._learn_blocks(X, sample_weight)
        return self

    @learns()
    def partial_fit(self, X, y=None, sample_weight=None) -> Self:
        """Continue learning with one pass over the rows of X, in batches.

        The first call chooses the loss and the statistics of the columns from its rows, which
        should be like those to come; later calls keep them. Each call scales the features anew, by
        its own rows. The learning rate is constant.
        """
        X = found(as_array(X), type(self).__name__)
        super().partial_fit(X, y, sample_weight)
        self._learn_blocks(X, sample_weight)
        return self

    def transform(self, X):
        """Columns and codes of the rows of X.

        Returns
        -------
        features : ndarray of shape (n_samples, n_features_out)
            The columns, then the code; `get_feature_names_out` names them.
        """
        check_is_fitted(self)
        features = self._features(check_rows(self, X, reset=False))
        center = np.concatenate([block.center for block in self.blocks_])
        scale = np.concatenate([np.broadcast_to(b.scale, len(b.names)) for b in self.blocks_])
        features -= center.astype(features.dtype)
        features /= scale.astype(features.dtype)
        return features

    @returns_rows
    def inverse_transform(self, X):
        """Rows of the data from features: from the code.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features_out)
            Features, as `transform` returns them.

        Returns
        -------
        rows : ndarray or data frame of shape (n_samples, n_features)
            As the data were, or in the container of ``set_output``: the mean of numbers, the most
            probable categories. Where there is no code, what the columns say.
        """
        check_is_fitted(self)
        X = check_array(as_array(X), dtype=[np.float64, np.float32])
        n_features = sum(len(block.names) for block in self.blocks_)
        if X.shape[1] != n_features:
            raise ValueError(
                f"X has {X.shape[1]} columns, but features of this TableFeatures have "
                f"{n_features}; inverse_transform takes the output of transform."
            )
        block = self.blocks_[-1]
        scale, center = (np.asarray(part, dtype=X.dtype) for part in (block.scale, block.center))
        code = X[:, -len(block.names) :] * scale + center
        if self._has_code:
            return super().inverse_transform(code)
        return self._decoded(code[:, : len(self.columns_.mean)].copy())

    def get_feature_names_out(self, input_features=None) -> np.ndarray:
        """Names of the features.

        Parameters
        ----------
        input_features : array-like of str or None, default=None
            Not used, present for API consistency.

        Returns
        -------
        names : ndarray of str objects
            Columns by their own names, or that of a column and "_" and the category; "_missing"
            for its gaps; "tablefeatures0" and so on for the units of the code.
        """
        check_is_fitted(self)
        return np.array([name for block in self.blocks_ for name in block.names], dtype=object)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        if self.numbers in ("clipped", "normal_scores"):
            tags.input_tags.sparse = False
            tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    @property
    def _has_code(self):
        """Whether there is a code among the features."""
        return not self.include_columns or len(self.columns_.variables) >= _FEW_VARIABLES

    def _learn_blocks(self, X, sample_weight):
        """Know the blocks of the features: their means and lengths on training rows."""
        X = check_rows(self, X, reset=False)
        weight = check_weights(sample_weight, X)
        self.columns_with_gaps_ = self._with_gaps(X)
        features, start, blocks = self._features(X), 0, []
        for names in self._names():
            part = features[:, start : start + len(names)].astype(np.float64)
            center = np.average(part, axis=0, weights=weight)
            part -= center
            scale = 1.0
            if not start and self.include_columns:
                scale = own_shares(part, self._variables(), weight) ** -0.25
            square = np.average(np.square(part / scale).sum(axis=1), weights=weight)
            blocks.append(Block(tuple(names), center, scale * (float(np.sqrt(square)) or 1.0)))
            start += len(names)
        self.blocks_ = tuple(blocks)

    def _with_gaps(self, X):
        """The columns of checked rows that have gaps; of a one-hot variable, its first."""
        has_gaps = np.zeros(X.shape[1], dtype=bool)
        if X.dtype.kind == "f":
            if sparse.issparse(X):
                has_gaps[X.indices[np.isnan(X.data)]] = True
            else:
                has_gaps |= np.isnan(X).any(axis=0)
        for columns in self.columns_.variables:
            has_gaps[columns[1:]] = False
        return np.flatnonzero(has_gaps)

    def _variables(self):
        """The features of the columns, those of one variable together; each mark of gaps alone."""
        n_columns = len(self.columns_.mean)
        marks = np.arange(n_columns, n_columns + len(self.columns_with_gaps_))
        return [*self.columns_.variables, *marks[:, np.newaxis]]

    def _names(self):
        """Names of the features, a list for each block."""
        own, code = [], []
        if self.include_columns:
            known = column_names(self)
            names = [f"x{k}" for k in range(len(self.columns_.mean))] if known is None else known
            of_gaps = [f"{self._variable(c, names)}_missing" for c in self.columns_with_gaps_]
            own = [*map(str, names), *of_gaps]
        if self._has_code:
            code = [f"tablefeatures{unit}" for unit in range(self._n_features_out)]
        names = distinct_names([*own, *code])
        return [block for block in (names[: len(own)], names[len(own) :]) if block]

    def _variable(self, column, names):
        """The name of the variable that a column is of."""
        encoding = self.encoding_
        if encoding is None:
            return names[column]
        return encoding.variables[encoding.raw_columns[column]].name

    def _features(self, X):
        """Features of checked rows, neither centred nor scaled."""
        model, theta = fitted = self._fitted_model(X)
        gaps = torch.tensor(self.columns_with_gaps_, device=theta.flat.device)

        def features(x):
            filled = model.filled(x)
            parts = [filled, torch.isnan(x[:, gaps]).to(x.dtype)] if self.include_columns else []
            if self._has_code:
                parts.append(model.encode(theta, filled))
            return torch.cat(parts, dim=1)

        return fitted.map_rows(features, X, (sum(map(len, self._names())),), gaps=True)


def own_shares(centred: np.ndarray, variables: Sequence, weight: np.ndarray | None) -> np.ndarray:
    """For each column, the share of its variable that no linear function of the others tells.

    With C = A^T A + e I the covariance of the columns divided by their deviations, plus a little on
    its diagonal, and P its inverse, trace(P_vv^-1) / trace(C_vv), the conditional covariance's
    trace. Of fewer rows than columns P = (I - A^T (A A^T + e I)^-1 A) / e, so that time grows with
    the cube of the smaller number, and memory with its square.

    Parameters
    ----------
    centred : ndarray of shape (n_samples, n_columns)
        Columns of mean 0.
    variables : list of array-like of int
        The columns of each variable.
    weight : ndarray of shape (n_samples,) or None
        Sample weights.

    Returns
    -------
    shares : ndarray of shape (n_columns,)
        Numbers in (0, 1]; 1 of columns of one value.
    """
    n_samples, n_columns = centred.shape
    deviation = np.sqrt(np.average(np.square(centred), axis=0, weights=weight))
    share_of_row = 1 / n_samples if weight is None else weight[:, np.newaxis] / weight.sum()
    rows = centred / np.where(deviation > 0, deviation, 1.0) * np.sqrt(share_of_row)
    if n_samples < n_columns:
        told = np.linalg.solve(rows @ rows.T + _LEAST_OWN * np.eye(n_samples), rows)
    else:
        precision = np.linalg.inv(rows.T @ rows + _LEAST_OWN * np.eye(n_columns))
    variance, shares = np.square(rows).sum(axis=0) + _LEAST_OWN, np.ones(n_columns)
    for own in variables:
        if n_samples < n_columns:
            of_own = (np.eye(len(own)) - rows[:, own].T @ told[:, own]) / _LEAST_OWN
        else:
            of_own = precision[np.ix_(own, own)]
        shares[own] = np.trace(np.linalg.inv(of_own)) / variance[own].sum()
    return shares
