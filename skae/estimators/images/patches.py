"""Features of images from features of their patches: whitening, encoding, pooling."""

import math
from numbers import Integral

import numpy as np
import torch
from scipy import sparse
from sklearn.base import clone

from skae._validation import Interval, StrOptions, check_rows, computing_dtype
from skae.engine.images import patches, pool_grid
from skae.engine.optimisation.rows import StreamedRows
from skae.estimators.auto_encoders import DenoisingAutoEncoder
from skae.estimators.face.learning import learns
from skae.estimators.face.parameters import attribute, estimator, parameter, validate_parameters
from skae.estimators.images.shapes import (
    ImageParameters,
    PatchSampling,
    count_patches,
    draw_patches,
    remember_parameters,
    require_fitted_parameters,
    resolve_extents,
    resolve_image_shape,
    resolve_patch_shape,
)
from skae.estimators.images.stages import PatchWhitener

_CPU = torch.device("cpu")


@estimator
class PatchFeatures(PatchSampling, ImageParameters):
    r"""Features of images by any encoder of their patches, pooled over a grid.

    All patches :math:`p` of an image are whitened and encoded, and for each cell :math:`C`
    of a grid that parts the image and each feature :math:`k` the result is

    .. math::

        \frac{1}{|C|} \sum_{p \in C} h_k(\text{whiten}(p))

    or the maximum or the sum. Whitening and encoder (a dictionary, a Boltzmann machine, an
    auto-encoder, k-means) learn from random patches. A linear classifier on the result is the
    pipeline of Coates & Ng [1]_, for small images in which what there is matters more than where.

    Read more in the :ref:`User Guide <patches>`.

    See Also
    --------
    PatchWhitener : The whitening.
    Pooling : Pooling of maps into windows.

    Notes
    -----
    Neither all patches nor all codes of the data are in memory at once. The columns of one cell
    of the grid are next to each other.

    References
    ----------
    .. [1] A. Coates, A. Ng. The importance of encoding versus training with sparse coding
       and vector quantization. ICML 2011.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.decomposition import FastICA
    >>> from skae import PatchFeatures
    >>> X, _ = load_digits(return_X_y=True)
    >>> model = PatchFeatures(
    ...     FastICA(8, random_state=0), image_shape=(8, 8), patch_shape=4, n_patches=2000,
    ...     pooling="max", random_state=0,
    ... )
    >>> model.fit_transform(X).shape
    (1797, 32)
    >>> model.output_shape_
    (2, 2, 8)
    """

    encoder: object = parameter(
        default=None,
        constraints=[object],
        kind="transformer or None",
        doc="""What encodes patches: anything with `fit` and `transform` of rows. None is
        ``DenoisingAutoEncoder(64, max_iter=10)`` with the ``random_state`` of this model.""",
        kw_only=False,
    )
    patch_shape: int | tuple[int, int] = parameter(
        default=(6, 6),
        constraints=[Interval(Integral, 1, None, closed="left"), "array-like"],
        kind="tuple of two int, or int",
        doc="Height and width of the patches, which are cut to the signals of no ``image_shape``.",
    )
    stride: int | tuple[int, int] = parameter(
        default=1,
        constraints=[Interval(Integral, 1, None, closed="left"), "array-like"],
        kind="int or tuple of two int",
        doc="Pixels from one patch to the next.",
    )
    whitening: object = parameter(
        default=True,
        constraints=[object],
        kind="bool or transformer",
        doc="What patches go through first: True is a :class:`PatchWhitener`; or any transformer.",
    )
    pooling: str = parameter(
        default="average",
        constraints=[StrOptions({"average", "max", "sum"})],
        kind='{"average", "max", "sum"}',
        doc="What is taken of the codes in each cell.",
    )
    pooling_grid: int | tuple[int, int] | None = parameter(
        default=(2, 2),
        constraints=[Interval(Integral, 1, None, closed="left"), "array-like", None],
        kind="tuple of two int, int or None",
        doc="""Cells along height and width, at most one per patch. None: the codes of all patches,
        as an image with one channel per code: the filter bank of a stage that others follow.""",
    )

    encoder_: object = attribute("transformer", "The fitted encoder, of whitened patches.")
    whitener_: object = attribute("transformer or None", "The fitted whitening.")
    patch_shape_: tuple[int, int, int] = attribute(
        "tuple of int", "Height, width and channels of the patches."
    )

    @learns()
    def fit(self, X, y=None):
        """Learn whitening and encoder from random patches of the images of X.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Images, one flattened image per row.
        y : Ignored
            Not used, present for API consistency: a patch has not the class of its image.

        Raises
        ------
        ValueError
            If a parameter is out of its range; if X is no matrix of such images; if patches are
            larger than these.
        """
        validate_parameters(self)
        encoder, whitener = self._make_encoder(), self._make_whitener()
        stride, cells = resolve_extents("stride", self.stride), self._cells
        X = check_rows(self, X, reset=True)
        self.image_shape_ = resolve_image_shape(self.image_shape, X.shape[1])
        self.patch_shape_ = resolve_patch_shape(self)
        drawn = draw_patches(
            X, self.image_shape_, self.patch_shape_, stride, self.n_patches, self.random_state
        ).numpy()
        self.whitener_ = None if whitener is None else whitener.fit(drawn)
        self.encoder_ = encoder.fit(self._whitened(drawn))
        n_codes = self._codes(drawn[:1]).shape[1]
        counts = count_patches(self.image_shape_, self.patch_shape_, stride)
        self.output_shape_ = (*map(min, cells or counts, counts), n_codes)
        # The encoder and the whitening are fitted clones: what was given is not read again.
        remember_parameters(self, "encoder", "whitening")
        return self

    def transform(self, X):
        """Pooled codes of the images of X.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Images, one flattened image per row.

        Returns
        -------
        features : ndarray of shape (n_samples, rows * columns * n_codes)
            The codes in the cells of the grid, of shape ``output_shape_``; float32 for float32
            and small integers, else float64.

        Raises
        ------
        ValueError
            If X is no matrix of such images, or a parameter that the map goes by has changed.
        """
        require_fitted_parameters(self)
        X = check_rows(self, X, reset=False)
        stride, n_values = resolve_extents("stride", self.stride), math.prod(self.patch_shape_)
        counts = count_patches(self.image_shape_, self.patch_shape_, stride)
        dtype = computing_dtype(X, _CPU)
        result = torch.empty(X.shape[0], self._n_features_out, dtype=dtype).numpy()
        rows = StreamedRows(X, None, None, dtype=dtype, device=_CPU)
        values_per_image = math.prod(counts) * max(n_values, self.output_shape_[2])
        for start, block in rows.blocks(values_per_image):
            images = block.view(-1, *self.image_shape_)
            windows = patches(images, self.patch_shape_[:2], stride).reshape(-1, n_values)
            codes = np.require(self._codes(windows.numpy()), result.dtype, ["C", "W"])
            maps = torch.from_numpy(codes).view(len(block), *counts, -1)
            if self._cells is not None:
                maps = pool_grid(maps, self.pooling, self._cells)
            result[start : start + len(block)] = maps.reshape(len(block), -1).numpy()
        return result

    @property
    def _cells(self):
        grid = self.pooling_grid
        return None if grid is None else resolve_extents("pooling_grid", grid)

    def _make_encoder(self):
        if self.encoder is None:
            return DenoisingAutoEncoder(64, max_iter=10, random_state=self.random_state)
        return _clone_transformer("encoder", self.encoder)

    def _make_whitener(self):
        if isinstance(self.whitening, bool):
            return PatchWhitener() if self.whitening else None
        return _clone_transformer("whitening", self.whitening)

    def _whitened(self, rows):
        return rows if self.whitener_ is None else np.asarray(self.whitener_.transform(rows))

    def _codes(self, rows):
        codes = self.encoder_.transform(self._whitened(rows))
        return codes.toarray() if sparse.issparse(codes) else np.asarray(codes)


def _clone_transformer(name, model):
    if not (hasattr(model, "fit") and hasattr(model, "transform")):
        raise ValueError(
            f"{name}={model!r} has to be a transformer: an instance with fit and transform."
        )
    return clone(model)
