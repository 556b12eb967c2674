"""Rows of a table read as images: what shape they have, and estimators that map them.

Rows are images flattened with the channels last: height, width, channels.
"""

import math
from numbers import Integral

import numpy as np
import torch
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    OneToOneFeatureMixin,
    TransformerMixin,
)

from skae._validation import check_is_fitted, check_rows, computing_dtype
from skae.engine.optimisation.devices import resolve_device
from skae.engine.optimisation.rows import StreamedRows, block_bounds
from skae.estimators.face.outcomes import all_or_nothing
from skae.estimators.face.parameters import estimator, parameter, validate_parameters

_CPU = torch.device("cpu")

_FORMS = (
    "Give (height, width) or (height, width, channels), with -1 for one unknown extent, "
    "or (-1, -1, channels) for square images."
)


def resolve_image_shape(image_shape, n_features, name="image_shape"):
    """Height, width and channels of rows of ``n_features`` columns.

    Parameters
    ----------
    image_shape : tuple of two or three int, or None
        (height, width) is an image of one channel, and None a signal,
        (1, n_features, 1). One -1 is inferred from ``n_features``; two leading ones
        are the side of a square.
    n_features : int
    name : str, default="image_shape"
        What the parameter is called, for messages.

    Returns
    -------
    height, width, channels : tuple of int

    Raises
    ------
    ValueError
        If the extents are no integers, or not positive, or do not give
        ``n_features`` columns.
    """
    if image_shape is None:
        return (1, int(n_features), 1)
    extents = [
        int(extent) if isinstance(extent, Integral) and not isinstance(extent, bool) else 0
        for extent in image_shape
    ]
    legal = len(extents) in (2, 3) and all(extent == -1 or extent > 0 for extent in extents)
    unknown = [axis for axis, extent in enumerate(extents) if extent == -1]
    if not legal or (len(unknown) > 1 and unknown != [0, 1]):
        raise ValueError(f"{name}={image_shape!r} is not the shape of an image. {_FORMS}")
    known = math.prod(extent for extent in extents if extent != -1)
    inferred = n_features // known
    if len(unknown) == 2:
        inferred = math.isqrt(inferred)
    resolved = [inferred if extent == -1 else extent for extent in extents]
    if math.prod(resolved) != n_features:
        product = " * ".join("s" if extent == -1 else str(extent) for extent in extents)
        raise ValueError(
            f"{name}={image_shape!r} does not fit rows of n_features={n_features} columns: "
            f"{product} is not {n_features}{' for any integer s' if unknown else ''}. {_FORMS}"
        )
    return tuple(resolved) if len(resolved) == 3 else (*resolved, 1)


@estimator
class ImageParameters:
    """What the images are, as a constructor parameter."""

    image_shape: tuple = parameter(
        default=None,
        constraints=["array-like", None],
        doc="""tuple of int or None
        Shape (height, width) or (height, width, channels) of the images that rows are,
        flattened with the channels last. One extent may be -1: it is inferred from the
        number of columns, as is the side of square images in (-1, -1, channels). None
        takes rows as signals, (1, n_features, 1).""",
    )

    _attributes_doc = """
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, where X had string names.
    image_shape_ : tuple of int
        Height, width and channels of the images that come in.
    output_shape_ : tuple of int
        Height, width and channels of the images that come out: the ``image_shape`` of
        the next step.
    """


@estimator
class ImageTransformer(
    ImageParameters, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator
):
    """A transformer that maps each image to another one, one block of rows at a time.

    A subclass says what it maps to by methods that return values: `_find_output_shape`
    and `_map`; and where it learns something, `_learn`.
    """

    device: str = parameter(
        default="auto",
        constraints=[str, torch.device],
        doc="""str or torch.device
        "auto" takes CUDA, then MPS or XPU, then the CPU; or any device of torch, such
        as "cpu" or "cuda:1".""",
    )

    @all_or_nothing
    def fit(self, X, y=None):
        """Find the shape of the images, and learn from them where there is something to.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Images, one flattened image per row.
        y : Ignored
            Not used, present for API consistency.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            If a parameter is out of its range; if X is empty, not numeric or not
            finite; if its rows do not fit ``image_shape``.
        """
        validate_parameters(self)
        resolve_device(self.device)
        X = check_rows(self, X, reset=True)
        self.image_shape_ = resolve_image_shape(self.image_shape, X.shape[1])
        self.output_shape_ = self._find_output_shape()
        self._learn(X)
        remember_parameters(self)
        return self

    def transform(self, X):
        """Map the images of X.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Images, one flattened image per row.

        Returns
        -------
        images : ndarray of shape (n_samples, height * width * channels)
            Images of shape ``output_shape_``, flattened; in float32 for float32 input
            and small integers, else in float64.

        Raises
        ------
        ValueError
            If X is not numeric or not finite, or has another number of columns than in
            `fit`; if a parameter that says what the map is has changed since then.
        """
        check_is_fitted(self)
        require_fitted_parameters(self)
        X = check_rows(self, X, reset=False)
        return self._map_rows(
            X, lambda rows: self._map(rows.view(-1, *self.image_shape_)), self._n_features_out
        )

    def get_feature_names_out(self, input_features=None):
        """Names of the columns: those of X where each column has one counterpart in X.

        Parameters
        ----------
        input_features : array-like of str or None, default=None
            Names of the columns of X.

        Returns
        -------
        names : ndarray of str
        """
        require_fitted_parameters(self)
        names = OneToOneFeatureMixin if self._keeps_columns else ClassNamePrefixFeaturesOutMixin
        return names.get_feature_names_out(self, input_features)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    _keeps_columns = False
    _free_parameters = ("device",)

    @property
    def _n_features_out(self):
        return math.prod(self.output_shape_)

    def _learn(self, X):
        """Set fitted attributes from checked rows."""

    @property
    def _values_per_image(self):
        """Values that mapping one image takes: what bounds the size of a block."""
        return self.n_features_in_

    def _blocks(self, X):
        """(slice, tensor) for successive blocks of rows, on the device."""
        device = _usable_device(self.device)
        return row_blocks(X, self._values_per_image, computing_dtype(X, device), device)

    def _map_rows(self, X, function, n_columns):
        """``function(block)`` for all rows, one block at a time, as an array."""
        result = np.empty((X.shape[0], n_columns), dtype=result_dtype(X))
        with torch.inference_mode():
            for rows, block in self._blocks(X):
                result[rows] = function(block).reshape(len(block), -1).cpu().numpy()
        return result


def remember_parameters(model):
    """At the end of a fit: keep the parameters that the map goes by."""
    model._fitted_parameters = _map_parameters(model)


def require_fitted_parameters(model):
    """Raise a ValueError if a parameter that the map goes by has changed since the fit."""
    now = _map_parameters(model)
    for name, before in vars(model).get("_fitted_parameters", {}).items():
        if now[name] != before:
            raise ValueError(
                f"{name} has changed since this {type(model).__name__} was fitted (from "
                f"{before!r} to {now[name]!r}). Set it back, or call fit again."
            )


def _map_parameters(model):
    parameters = model.get_params(deep=False)
    return {
        name: _plain(value)
        for name, value in parameters.items()
        if name not in model._free_parameters
    }


def _plain(value):
    # By value: (2, 2), [2, 2] and an array are the same, and a list may change in place.
    value = value.tolist() if hasattr(value, "tolist") else value
    return tuple(map(_plain, value)) if isinstance(value, list | tuple) else value


def row_blocks(X, values_per_row, dtype, device, index=None):
    """(slice, tensor) for blocks of the rows (of those of an ``index``), in order.

    A block is so small that it holds some millions of values, at so many for each row.
    """
    rows = StreamedRows(X, None, None, dtype=dtype, device=device)
    index = torch.arange(len(rows)) if index is None else index
    for start, stop in block_bounds(len(index), values_per_row):
        yield slice(start, stop), rows.take(index[start:stop])


def result_dtype(X):
    """The dtype of results: float64 comes back for it even where the device has none."""
    return np.float64 if computing_dtype(X, _CPU) == torch.float64 else np.float32


def resolve_extents(name, extents):
    """A window's height and width, each at least 1, from one int or two."""
    pair = (extents, extents) if isinstance(extents, Integral) else tuple(extents)
    if len(pair) != 2 or any(
        not isinstance(extent, Integral) or isinstance(extent, bool) or extent < 1
        for extent in pair
    ):
        raise ValueError(f"{name}={extents!r} must be (height, width), two integers of at least 1.")
    return int(pair[0]), int(pair[1])


def _usable_device(name):
    try:
        return resolve_device(name)
    except ValueError:
        return _CPU  # fitted elsewhere
