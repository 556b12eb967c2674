"""The steps between banks of filters: rectification, contrast normalisation, pooling."""

from numbers import Integral, Real

from skae._validation import Interval, StrOptions
from skae.engine.images.stages import local_contrast_normalize, pool, pool_grid, rectify
from skae.estimators.face.parameters import estimator, parameter
from skae.estimators.images.shapes import ImageTransformer, resolve_extents

# Pixels: from about 0.026 down, exp(-1 / (2 sigma^2)) is zero in float64.
_NARROWEST = 0.01


@estimator
class Rectifier(ImageTransformer):
    r"""Magnitudes or positive parts of features: the nonlinearity after a filter bank.

    Each value becomes, with :math:`t` = ``threshold``,

    .. math::

        \max(0, |x| - t), \qquad \max(0, x - t), \qquad \text{or} \quad
        [\max(0, x - t),\ \max(0, -x - t)]

    for ``kind`` "abs", "relu" and "split". Without it, the responses of a filter to an
    edge and to its negative would cancel in the average that :class:`Pooling` takes; of
    all steps of a stage it is the one that Jarrett et al. [1]_ found to matter most.

    Read more in the :ref:`User Guide <image_stages>`.

    Parameters
    ----------
    {parameters}

    Attributes
    ----------
    {attributes}

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
        doc="""{"abs", "relu", "split"}
        Magnitudes, positive parts, or the channels' positive parts followed by their
        negative parts at each pixel, which doubles the channels. Only "split" depends
        on ``image_shape``.""",
        kw_only=False,
    )
    threshold: float = parameter(
        default=0.0,
        constraints=[Interval(Real, 0, None, closed="left")],
        doc="""float
        What is taken off the magnitude: responses below it are noise.""",
    )

    _attributes_doc = ImageTransformer._attributes_doc

    @property
    def _keeps_columns(self):
        return self.kind != "split"

    def _find_output_shape(self):
        height, width, channels = self.image_shape_
        return (height, width, 2 * channels if self.kind == "split" else channels)

    def _map(self, images):
        return rectify(images, self.kind, self.threshold)


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
    image. Nearby features and features of one place compete, and images become alike in
    brightness and contrast. Use it on raw images, and after a rectified filter bank.

    Read more in the :ref:`User Guide <image_stages>`.

    Parameters
    ----------
    {parameters}

    Attributes
    ----------
    {attributes}

    See Also
    --------
    PatchWhitener : Takes out correlations that were learned from the data.

    Notes
    -----
    Each image is normalised by itself; nothing is learned in `fit`. The result does not
    change if an image is made brighter or its contrast is scaled. A constant image
    becomes zero, also where rounding made its pixels differ.

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
        doc="""int
        Height and width of the window, an odd number of pixels.""",
    )
    sigma: float = parameter(
        default=None,
        constraints=[Interval(Real, 0, None, closed="neither"), None],
        doc="""float or None
        Standard deviation of the window, in pixels. None is a quarter of ``size``; a
        tiny one makes a window of one pixel.""",
    )

    _attributes_doc = ImageTransformer._attributes_doc
    _keeps_columns = True

    def _find_output_shape(self):
        if self.size % 2 == 0:
            raise ValueError(
                f"size={self.size} has no pixel in its middle; use size={self.size + 1}."
            )
        return self.image_shape_

    def _map(self, images):
        sigma = self.size / 4 if self.sigma is None else max(float(self.sigma), _NARROWEST)
        return local_contrast_normalize(images, self.size, sigma)


@estimator
class Pooling(ImageTransformer):
    r"""One value for each window and channel: features that forgive small shifts.

    For a window :math:`N` of pixels, "average" is :math:`\frac{1}{|N|} \sum_N x`, "sum" is
    :math:`\sum_N x`, "max" is :math:`\max_N x` and "l2" is :math:`(\sum_N x^2)^{1/2}`.
    Windows are of a ``size`` and lie ``stride`` apart, for a stage that others follow [1]_;
    or they are the cells of a ``grid`` that parts the image, such as its four quadrants,
    for a last stage whose number of features shall be small [2]_.

    Read more in the :ref:`User Guide <image_stages>`.

    Parameters
    ----------
    {parameters}

    Attributes
    ----------
    {attributes}

    See Also
    --------
    Rectifier : Goes before the average, in which signs would cancel.

    Notes
    -----
    Windows start at every ``stride``-th pixel from the upper left until one reaches the
    border. What of a window lies beyond the image is cut off: no pixel is left out if the
    stride is at most the size, and none is made up. Cells of a grid overlap nowhere, and
    differ by one pixel in size at most.

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

    size: tuple = parameter(
        default=(2, 2),
        constraints=[Interval(Integral, 1, None, closed="left"), "array-like"],
        doc="""tuple of two int, or int
        Height and width of the windows; larger ones are cut to the image.""",
    )
    stride: tuple = parameter(
        default=None,
        constraints=[Interval(Integral, 1, None, closed="left"), "array-like", None],
        doc="""tuple of two int, int or None
        Pixels from one window to the next. None is ``size``: windows side by side.""",
    )
    grid: tuple = parameter(
        default=None,
        constraints=[Interval(Integral, 1, None, closed="left"), "array-like", None],
        doc="""tuple of two int, int or None
        Number of cells along height and width that part the image, at most one per
        pixel. Takes the place of ``size``.""",
    )
    kind: str = parameter(
        default="average",
        constraints=[StrOptions({"average", "max", "sum", "l2"})],
        doc="""{"average", "max", "sum", "l2"}
        What is taken of each window.""",
    )

    _attributes_doc = ImageTransformer._attributes_doc

    def _find_output_shape(self):
        if self.grid is not None and self.stride is not None:
            raise ValueError(
                f"grid={self.grid!r} says where the cells are, so that stride={self.stride!r} "
                "has no meaning; set one of them to None."
            )
        height, width, channels = self.image_shape_
        if self.grid is not None:
            rows, columns = resolve_extents("grid", self.grid)
            return (min(rows, height), min(columns, width), channels)
        size, stride = self._windows
        return (*map(_count_windows, self.image_shape_, size, stride), channels)

    def _map(self, images):
        if self.grid is not None:
            return pool_grid(images, self.kind, resolve_extents("grid", self.grid))
        return pool(images, self.kind, *self._windows)

    @property
    def _windows(self):
        size = resolve_extents("size", self.size)
        return size, size if self.stride is None else resolve_extents("stride", self.stride)


def _count_windows(extent, size, stride):
    size = min(size, extent)
    n_windows = 1 - (size - extent) // stride
    # A window that would begin beyond the border is none.
    return n_windows if (n_windows - 1) * stride < extent else n_windows - 1
