"""Rows of a table read as images: their shape, maps of them, and patches drawn from them.

Rows are images flattened with the channels last: height, width, channels.
"""

import math
from numbers import Integral

import numpy as np
import torch

from skae._validation import Interval, check_is_fitted, check_rows, computing_dtype, make_generator
from skae.engine.images import Stage, draw_positions, patches
from skae.engine.optimisation.devices import Place, resolve_device
from skae.engine.optimisation.rows import StreamedRows, block_bounds, map_rows
from skae.estimators.face.learning import learns
from skae.estimators.face.parameters import attribute, estimator, parameter, validate_parameters
from skae.estimators.face.scikit_learn import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    OneToOneFeatureMixin,
    TransformerMixin,
)
from skae.estimators.face.training import usable_place

_CPU = torch.device("cpu")

_FORMS = (
    "Give (height, width) or (height, width, channels), with -1 for one unknown extent, "
    "or (-1, -1, channels) for square images."
)


def resolve_image_shape(image_shape, n_features, name="image_shape"):
    """Height, width and channels of rows of ``n_features`` columns.

    (height, width) is an image of one channel, and None a signal, (1, n_features, 1). One -1 is
    inferred from ``n_features``; two leading ones are the side of a square. ``name`` is what the
    parameter is called in messages.

    Raises
    ------
    ValueError
        If the extents are no integers, not positive, or do not give ``n_features`` columns.
    """
    if image_shape is None:
        return (1, int(n_features), 1)
    extents = [int(extent) if _is_integer(extent) else 0 for extent in image_shape]
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


def resolve_extents(name, extents):
    """A window's height and width, each at least 1, from one int or two."""
    pair = (extents, extents) if isinstance(extents, Integral) else tuple(extents)
    if len(pair) != 2 or not all(_is_integer(extent) and extent >= 1 for extent in pair):
        raise ValueError(f"{name}={extents!r} must be (height, width), two integers of at least 1.")
    return int(pair[0]), int(pair[1])


def _is_integer(value):
    return isinstance(value, Integral) and not isinstance(value, bool)


@estimator
class ImageParameters(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """A transformer of images: what they are, and what is known of them after a fit."""

    image_shape: tuple[int, ...] | None = parameter(
        default=None,
        constraints=["array-like", None],
        kind="tuple of int or None",
        doc="""Shape (height, width) or (height, width, channels) of the images that rows are, with
        the channels last. One extent may be -1: it is inferred, as is the side of square images in
        (-1, -1, channels). None takes rows as signals, (1, n_features, 1).""",
    )

    n_features_in_: int = attribute("int", "Number of features seen in `fit`.")
    feature_names_in_: np.ndarray = attribute(
        "ndarray of shape (n_features_in_,)", "Names of the features, where X had string names."
    )
    image_shape_: tuple[int, int, int] = attribute(
        "tuple of int", "Height, width and channels of the images that come in."
    )
    output_shape_: tuple[int, int, int] = attribute(
        "tuple of int", "Those of the images that come out: the ``image_shape`` of the next step."
    )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    @property
    def _n_features_out(self):
        return math.prod(self.output_shape_)


@estimator
class ImageTransformer(ImageParameters):
    """A transformer that maps each image to another one, one block of rows at a time.

    A subclass says what it is by `_model` and, where it needs them, `_check_parameters`, `_facts`.
    """

    device: str | torch.device = parameter(
        default="auto",
        constraints=[str, torch.device],
        kind="str or torch.device",
        doc=""""auto" takes CUDA, then MPS or XPU, then the CPU; or any device of torch, such
        as "cpu" or "cuda:1".""",
    )

    @learns()
    def fit(self, X, y=None):
        """Find the shape of the images, and learn from them where there is something to.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Images, one flattened image per row.

        Raises
        ------
        ValueError
            If a parameter is out of its range, or X is no matrix of such images.
        """
        self._check_parameters()
        X = check_rows(self, X, reset=True)
        self.image_shape_ = resolve_image_shape(self.image_shape, X.shape[1])
        vars(self).update(self._facts(X))
        self.output_shape_ = self._model(Place(torch.float64, _CPU)).output_shape
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
            Those of shape ``output_shape_``; float32 for float32 and small integers, else float64.

        Raises
        ------
        ValueError
            If X is no matrix of such images, or a parameter that the map goes by has changed.
        """
        require_fitted_parameters(self)
        X = check_rows(self, X, reset=False)
        place = usable_place(self, X)
        stage = self._model(place)

        def flattened(rows):
            return stage.apply(rows.view(-1, *self.image_shape_)).reshape(len(rows), -1)

        return map_rows(flattened, X, (self._n_features_out,), place, width=stage.n_values)

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
        keeps = self._model(Place(torch.float64, _CPU)).keeps_columns
        names = OneToOneFeatureMixin if keeps else ClassNamePrefixFeaturesOutMixin
        return names.get_feature_names_out(self, input_features)

    def _check_parameters(self):
        """Raise a ValueError for parameters that are impossible, alone or together."""
        validate_parameters(self)
        resolve_device(self.device)

    def _facts(self, X):
        """Attributes that are learned from checked rows, a dict by name."""
        return {}

    def _model(self, place) -> Stage:
        """The `Stage` that this estimator is, for images of ``image_shape_``."""
        raise NotImplementedError


# What is read in a fit and not by the map that it leaves.
_READ_BY_FIT = ("device", "n_patches", "random_state")


def remember_parameters(model, *others):
    """At the end of a fit: keep the parameters that the map goes by, which ``others`` are not."""
    kept = model.get_params(deep=False).items()
    skipped = (*_READ_BY_FIT, *others)
    model._fitted_parameters = {name: _plain(value) for name, value in kept if name not in skipped}


def require_fitted_parameters(model):
    """Raise an error without a fit, or if a parameter that the map goes by has changed since."""
    check_is_fitted(model)
    for name, before in vars(model).get("_fitted_parameters", {}).items():
        now = _plain(getattr(model, name))
        if now != before:
            raise ValueError(
                f"{name} has changed since this {type(model).__name__} was fitted (from "
                f"{before!r} to {now!r}). Set it back, or call fit again."
            )


def _plain(value):
    # By value: (2, 2), [2, 2] and an array are the same, and a list may change in place.
    value = value.tolist() if hasattr(value, "tolist") else value
    return tuple(map(_plain, value)) if isinstance(value, list | tuple) else value


@estimator
class PatchSampling:
    """How many patches are learned from, and which."""

    n_patches: int = parameter(
        default=50_000,
        constraints=[Interval(Integral, 1, None, closed="left")],
        doc="Patches to learn from, at most, drawn at random places of all images.",
    )
    random_state: int | np.random.RandomState | None = parameter(
        default=None,
        constraints=["random_state"],
        kind="int, RandomState instance or None",
        doc="Seed of the patches' places.",
    )


def draw_patches(X, image_shape, patch_shape, stride, n_patches, random_state):
    """At most ``n_patches`` patches at random places of the images of X, in random order.

    They are rows of a tensor of shape (n_drawn, n_values) on the CPU.
    """
    generator, dtype = make_generator(random_state, _CPU), computing_dtype(X, _CPU)
    counts = count_patches(image_shape, patch_shape, stride)
    positions = draw_positions(X.shape[0] * math.prod(counts), n_patches, generator)
    order = torch.randperm(len(positions), generator=generator)
    # torch.unravel_index imports a computer algebra, which changes the filters of warnings.
    image, place = positions // math.prod(counts), positions % math.prod(counts)
    row, column = place // counts[1], place % counts[1]
    needed, image = torch.unique_consecutive(image, return_inverse=True)
    drawn = torch.empty(len(positions), math.prod(patch_shape), dtype=dtype)
    rows, done = StreamedRows(X, None, None, dtype=dtype, device=_CPU), 0
    for start, stop in block_bounds(len(needed), X.shape[1]):
        images = rows.take(needed[start:stop]).view(-1, *image_shape)
        here = slice(done, int(torch.searchsorted(image, stop)))
        windows = patches(images, patch_shape[:2], stride)
        chosen = windows[image[here] - start, row[here], column[here]]
        drawn[order[here]] = chosen.reshape(len(chosen), -1)
        done = here.stop
    return drawn


def count_patches(image_shape, patch_shape, stride):
    """Number of patches along height and width."""
    return tuple(
        1 + (extent - window) // step
        for extent, window, step in zip(image_shape[:2], patch_shape[:2], stride, strict=True)
    )


def resolve_patch_shape(model):
    """Height, width and channels of a model's patches, cut to images that are signals."""
    window = resolve_extents("patch_shape", model.patch_shape)
    height, width, channels = model.image_shape_
    cut = (min(window[0], height), min(window[1], width))
    if cut != window and model.image_shape is not None:
        raise ValueError(
            f"patch_shape={model.patch_shape!r} is larger than the images, of {height} x {width} "
            "pixels; use a smaller patch_shape."
        )
    return (*cut, channels)
