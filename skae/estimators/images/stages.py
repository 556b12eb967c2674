"""Maps of images to images: what goes between banks of filters, and whitening by patches."""

import math
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.utils import check_array
from sklearn.utils.metaestimators import available_if
from torch.nn import functional

from skae._validation import Interval, StrOptions, as_array, computing_dtype
from skae.engine.images import (
    Stage,
    learn_whitening,
    local_contrast_normalize,
    normalize_contrast,
    patches,
    pool,
    pool_grid,
    rectify,
)
from skae.engine.optimisation.devices import require_memory
from skae.engine.optimisation.rows import StreamedRows, map_rows
from skae.estimators.face.parameters import attribute, estimator, parameter
from skae.estimators.face.rows import returns_rows
from skae.estimators.face.training import usable_place
from skae.estimators.images.shapes import (
    ImageTransformer,
    PatchSampling,
    draw_patches,
    require_fitted_parameters,
    resolve_extents,
    resolve_patch_shape,
)

_CPU = torch.device("cpu")
# Patches that whitening is learned from at once.
_BLOCK = 10_000
# Pixels: from about 0.026 down, exp(-1 / (2 sigma^2)) is zero in float64.
_NARROWEST = 0.01


@estimator
class Rectifier(ImageTransformer):
    r"""Magnitudes or positive parts of features: the nonlinearity after a filter bank.

    Each value becomes, with :math:`t` = ``threshold``,

    .. math::

        \max(0, |x| - t), \qquad \max(0, x - t), \qquad \text{or} \quad
        [\max(0, x - t),\ \max(0, -x - t)]

    for ``kind`` "abs", "relu" and "split" [2]_. Without it, the responses of a filter to an edge
    and to its negative would cancel in the average that :class:`Pooling` takes; of all steps of
    a stage it is the one that Jarrett et al. [1]_ found to matter most.

    Read more in the :ref:`User Guide <image_stages>`.

    See Also
    --------
    LocalContrastNormalizer : The next step of a stage.
    Pooling : The last step of a stage.

    References
    ----------
    .. [1] K. Jarrett, K. Kavukcuoglu, M. Ranzato, Y. LeCun. What is the best multi-stage
       architecture for object recognition? ICCV 2009.
    .. [2] A. Coates, A. Ng. The importance of encoding versus training with sparse coding
       and vector quantization. ICML 2011.

    Examples
    --------
    >>> from skae import Rectifier
    >>> Rectifier().fit_transform([[-1.0, 2.0]])
    array([[1., 2.]])
    >>> Rectifier("split").fit_transform([[-1.0, 2.0]])
    array([[0., 1., 2., 0.]])
    """

    kind: str = parameter(
        default="abs",
        constraints=[StrOptions({"abs", "relu", "split"})],
        kind='{"abs", "relu", "split"}',
        doc="""Magnitudes, positive parts, or at each pixel the positive parts of all channels and
        then the negative ones. Only "split" depends on ``image_shape``.""",
        kw_only=False,
    )
    threshold: float = parameter(
        default=0.0,
        constraints=[Interval(Real, 0, None, closed="left")],
        doc="What is taken off the magnitude: responses below it are noise.",
    )

    def _model(self, place):
        height, width, channels = self.image_shape_
        splits = self.kind == "split"
        return Stage(
            (height, width, 2 * channels if splits else channels),
            lambda images: rectify(images, self.kind, self.threshold),
            keeps_columns=not splits,
        )


@estimator
class LocalContrastNormalizer(ImageTransformer):
    r"""Differences from the surroundings of each pixel, in units of the contrast there.

    Subtractive, then divisive normalisation: for pixel :math:`j, k` of channel :math:`i`,

    .. math::

        v_{ijk} &= x_{ijk} - \sum_{ipq} w_{pq}\, x_{i,j+p,k+q} \\
        y_{ijk} &= v_{ijk} / \max(c, \sigma_{jk}), \qquad
        \sigma_{jk} = \Bigl(\sum_{ipq} w_{pq}\, v_{i,j+p,k+q}^2\Bigr)^{1/2}

    where :math:`w` is a Gaussian window of weights that sum to one over all channels and
    pixels inside of the image, and :math:`c` is the mean of :math:`\sigma_{jk}` over the
    image. Features that are near compete, and images become alike in brightness and contrast.
    Use it on raw images, and after a rectified filter bank.

    Read more in the :ref:`User Guide <image_stages>`.

    See Also
    --------
    PatchWhitener : Takes out correlations that were learned from the data.

    Notes
    -----
    Nothing is learned in `fit`. The result does not change if an image is made brighter or its
    contrast is scaled. A constant image becomes zero, also where rounding made pixels differ.

    References
    ----------
    .. [1] K. Jarrett, K. Kavukcuoglu, M. Ranzato, Y. LeCun. What is the best multi-stage
       architecture for object recognition? ICCV 2009.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import LocalContrastNormalizer
    >>> X, _ = load_digits(return_X_y=True)
    >>> LocalContrastNormalizer(image_shape=(8, 8), size=5).fit_transform(X).shape
    (1797, 64)
    """

    size: int = parameter(
        default=9,
        constraints=[Interval(Integral, 1, None, closed="left")],
        doc="Height and width of the window, an odd number of pixels.",
    )
    sigma: float | None = parameter(
        default=None,
        constraints=[Interval(Real, 0, None, closed="neither"), None],
        doc="Standard deviation of the window, in pixels. None is a quarter of ``size``.",
    )

    def _check_parameters(self):
        super()._check_parameters()
        if self.size % 2 == 0:
            raise ValueError(
                f"size={self.size} has no pixel in its middle; use size={self.size + 1}."
            )

    def _model(self, place):
        sigma = self.size / 4 if self.sigma is None else max(float(self.sigma), _NARROWEST)
        return Stage(
            self.image_shape_,
            lambda images: local_contrast_normalize(images, self.size, sigma),
            keeps_columns=True,
        )


@estimator
class Pooling(ImageTransformer):
    r"""One value for each window and channel: features that forgive small shifts.

    For a window :math:`N` of pixels, "average" is :math:`\frac{1}{|N|} \sum_N x`, "sum" is
    :math:`\sum_N x`, "max" is :math:`\max_N x` and "l2" is :math:`(\sum_N x^2)^{1/2}`.
    Windows are of a ``size`` and lie ``stride`` apart, for a stage that others follow [1]_; or
    they are the cells of a ``grid``, such as four quadrants, for a last stage of few features [2]_.

    Read more in the :ref:`User Guide <image_stages>`.

    See Also
    --------
    Rectifier : Goes before the average, in which signs would cancel.

    Notes
    -----
    Windows start at every ``stride``-th pixel until one reaches the border, beyond which it is
    cut off: no pixel is left out if the stride is at most the size, and none is made up. Cells
    of a grid overlap nowhere, and differ by one pixel in size at most.

    References
    ----------
    .. [1] K. Jarrett, K. Kavukcuoglu, M. Ranzato, Y. LeCun. What is the best multi-stage
       architecture for object recognition? ICCV 2009.
    .. [2] A. Coates, A. Ng. The importance of encoding versus training with sparse coding
       and vector quantization. ICML 2011.

    Examples
    --------
    >>> import numpy as np
    >>> from skae import Pooling
    >>> image = np.arange(16.0).reshape(1, 16)
    >>> Pooling(image_shape=(4, 4), size=2).fit_transform(image)
    array([[ 2.5,  4.5, 10.5, 12.5]])
    >>> Pooling(image_shape=(4, 4), grid=(1, 2), kind="max").fit_transform(image)
    array([[13., 15.]])
    """

    size: int | tuple[int, int] = parameter(
        default=(2, 2),
        constraints=[Interval(Integral, 1, None, closed="left"), "array-like"],
        kind="tuple of two int, or int",
        doc="Height and width of the windows; larger ones are cut to the image.",
    )
    stride: int | tuple[int, int] | None = parameter(
        default=None,
        constraints=[Interval(Integral, 1, None, closed="left"), "array-like", None],
        kind="tuple of two int, int or None",
        doc="Pixels from one window to the next. None is ``size``: windows side by side.",
    )
    grid: int | tuple[int, int] | None = parameter(
        default=None,
        constraints=[Interval(Integral, 1, None, closed="left"), "array-like", None],
        kind="tuple of two int, int or None",
        doc="Cells along height and width, at most one per pixel, in the place of ``size``.",
    )
    kind: str = parameter(
        default="average",
        constraints=[StrOptions({"average", "max", "sum", "l2"})],
        kind='{"average", "max", "sum", "l2"}',
        doc="What is taken of each window.",
    )

    def _check_parameters(self):
        super()._check_parameters()
        if self.grid is not None and self.stride is not None:
            raise ValueError(
                f"grid={self.grid!r} says where the cells are, so that stride={self.stride!r} "
                "has no meaning; set one of them to None."
            )

    def _model(self, place):
        *sides, channels = self.image_shape_
        if self.grid is not None:
            grid = resolve_extents("grid", self.grid)
            shape = (*map(min, grid, sides), channels)
            return Stage(shape, lambda images: pool_grid(images, self.kind, grid))
        size = resolve_extents("size", self.size)
        stride = size if self.stride is None else resolve_extents("stride", self.stride)
        shape = (*map(_count_windows, sides, size, stride), channels)
        return Stage(shape, lambda images: pool(images, self.kind, size, stride))


def _count_windows(extent, size, stride):
    size = min(size, extent)
    n_windows = 1 - (size - extent) // stride
    # A window that would begin beyond the border is none.
    return n_windows if (n_windows - 1) * stride < extent else n_windows - 1


def _whitens_rows(model):
    if model.patch_shape is None:
        return True
    raise AttributeError(
        f"patch_shape={model.patch_shape!r} whitens images by a convolution, which is not undone; "
        "inverse_transform needs patch_shape=None."
    )


@estimator
class PatchWhitener(PatchSampling, ImageTransformer):
    r"""Contrast normalisation and whitening of patches, or of whole images by patches.

    Each patch :math:`x` becomes, with its own mean and variance over the :math:`d` values and with
    the mean :math:`\mu` and covariance :math:`V D V^\top` of all patches so normalised,

    .. math::

        z = V (D + e I)^{-1/2} V^\top (\hat x - \mu), \qquad
        \hat x = \frac{x - \bar x}{\sqrt{\operatorname{var}(x) + e_c}}

    where :math:`e` and :math:`e_c` are ``epsilon`` and ``contrast_epsilon`` in units of the
    training data. Neighbouring pixels are alike, so that without it dictionaries and Boltzmann
    machines spend their units on smooth blobs; on whitened patches they learn edges [2]_.
    :class:`PatchFeatures` has it built in.

    Read more in the :ref:`User Guide <patches>`.

    See Also
    --------
    LocalContrastNormalizer : Normalises each pixel by its surroundings; learns nothing.

    Notes
    -----
    Both regularisers are relative to the data: pixels in [0, 1] and in 0, ..., 255 give the same
    result. The defaults are about those of Coates & Ng [1]_, who add 10 to the variance of patches
    of pixels in 0, ..., 255, and 0.1 to the variances of whitened components.

    Directions in which the rows do not vary (constant columns, the mean that the contrast step
    takes out) are left out for ``epsilon=0``, and otherwise divided by :math:`\sqrt e`.

    References
    ----------
    .. [1] A. Coates, A. Ng. The importance of encoding versus training with sparse coding
       and vector quantization. ICML 2011.
    .. [2] A. Bell, T. Sejnowski. The "independent components" of natural scenes are edge
       filters. Vision Research 37, 1997.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from skae import PatchWhitener
    >>> X, _ = load_digits(return_X_y=True)
    >>> Z = PatchWhitener(contrast=False).fit_transform(X)
    >>> bool(np.abs(np.corrcoef(Z[:, 20], Z[:, 21])[0, 1]) < 0.1)
    True
    """

    patch_shape: int | tuple[int, int] | None = parameter(
        default=None,
        constraints=[Interval(Integral, 1, None, closed="left"), "array-like", None],
        kind="tuple of two int, int or None",
        doc="""Height and width of the patches. None: each row is one patch, and all are learned
        from. Otherwise each pixel is whitened by the patch around it: the whitening's central
        filter is applied as a convolution, to images that are mirrored at their borders.""",
    )
    method: str = parameter(
        default="zca",
        constraints=[StrOptions({"zca", "pca"})],
        kind='{"zca", "pca"}',
        doc=r""""zca" keeps whitened patches as close as can be to the patches: they look like
        images; "pca", for ``patch_shape=None`` only, leaves out the left factor V and gives
        components by falling variance.""",
    )
    epsilon: float = parameter(
        default=0.1,
        constraints=[Interval(Real, 0, None, closed="left")],
        doc="Added to all variances, as a part of their mean: components of less are noise.",
    )
    contrast: bool = parameter(
        default=True,
        constraints=["boolean"],
        doc="Whether each patch loses its mean and is divided by its standard deviation.",
    )
    contrast_epsilon: float = parameter(
        default=0.01,
        constraints=[Interval(Real, 0, None, closed="left")],
        doc="Added to each patch's variance, as a part of their mean: those of less stay small.",
    )

    mean_: np.ndarray = attribute(
        "ndarray of shape (n_values,)", "Mean of the patches, after the contrast step."
    )
    whitening_: np.ndarray = attribute(
        "ndarray of shape (n_values, n_values)",
        "The matrix W of z = W (x - mean_), one filter per row.",
    )
    inverse_whitening_: np.ndarray = attribute(
        "ndarray of shape (n_values, n_values)", "The matrix that undoes it."
    )
    contrast_epsilon_: float = attribute(
        "float", "``contrast_epsilon`` in squared units of the data."
    )
    patch_shape_: tuple[int, int, int] = attribute(
        "tuple of int", "Height, width and channels of the patches."
    )

    @available_if(_whitens_rows)
    @returns_rows
    def inverse_transform(self, X):
        """Patches from whitened patches.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Whitened rows.

        Returns
        -------
        patches : ndarray or data frame of shape (n_samples, n_features)
            In the units of the data for ``contrast=False``, else as after the contrast step: the
            mean and the contrast of each patch are lost. A data frame if ``set_output`` asks for
            one.

        Notes
        -----
        Only for ``patch_shape=None``: a convolution is not undone.
        """
        require_fitted_parameters(self)
        X = check_array(as_array(X), dtype=[np.float64, np.float32])
        if X.shape[1] != self.n_features_in_:
            raise ValueError(
                f"X has {X.shape[1]} columns, but whitened patches have {self.n_features_in_}; "
                "inverse_transform takes the output of transform."
            )
        place = usable_place(self, X)
        inverse, mean = place.tensor(self.inverse_whitening_), place.tensor(self.mean_)
        return map_rows(lambda z: z @ inverse.t() + mean, X, X.shape[1:], place)

    def _check_parameters(self):
        super()._check_parameters()
        if self.patch_shape is not None and self.method == "pca":
            raise ValueError(
                "method='pca' has no central filter that would give an image; use method='zca', "
                "or patch_shape=None for rows that are patches."
            )

    def _facts(self, X):
        whole = self.patch_shape is None
        patch_shape = self.image_shape_ if whole else resolve_patch_shape(self)
        n_values = math.prod(patch_shape)
        what, remedy = f"Whitening patches of {n_values} values", "Give a smaller patch_shape."
        require_memory(6 * 8 * n_values**2, _CPU, what, remedy)
        blocks, dtype = self._training_blocks(X, patch_shape), computing_dtype(X, _CPU)
        contrast_epsilon = self.contrast_epsilon if self.contrast else None
        learned = learn_whitening(blocks, self.method, self.epsilon, contrast_epsilon, dtype)
        return {
            "patch_shape_": patch_shape,
            "contrast_epsilon_": learned.contrast_epsilon,
            "mean_": learned.mean.numpy(),
            "whitening_": learned.matrices.forward.numpy(),
            "inverse_whitening_": learned.matrices.inverse.numpy(),
        }

    def _training_blocks(self, X, patch_shape):
        """A function that starts to give the training patches, in blocks in float64."""
        if self.patch_shape is None:
            # In float32, rounding would give directions without variance some of it.
            rows = StreamedRows(X, None, None, dtype=torch.float64, device=_CPU)
            return lambda: (block for _, block in rows.blocks())
        drawn = draw_patches(
            X, self.image_shape_, patch_shape, (1, 1), self.n_patches, self.random_state
        )
        return lambda: (rows.double() for rows in drawn.split(_BLOCK))

    def _model(self, place):
        filters, mean = place.tensor(self.whitening_), place.tensor(self.mean_)

        def whitened(rows, filters):
            if self.contrast:
                rows = normalize_contrast(rows, self.contrast_epsilon_)
            return (rows - mean) @ filters.t()

        if self.patch_shape is None:
            keeps = self.method == "zca"
            return Stage(self.image_shape_, lambda x: whitened(x.flatten(1), filters), keeps)
        height, width, channels = self.patch_shape_
        above, left = height // 2, width // 2
        border = (left, width - 1 - left, above, height - 1 - above)
        center = (above * width + left) * channels

        def convolved(images):
            x = functional.pad(images.permute(0, 3, 1, 2), border, mode="reflect")
            rows = patches(x.permute(0, 2, 3, 1), (height, width)).reshape(-1, len(mean))
            return whitened(rows, filters[center : center + channels])

        n_values = math.prod(self.image_shape_[:2]) * len(mean)
        return Stage(self.image_shape_, convolved, keeps_columns=True, n_values=n_values)
