"""Predictive sparse decomposition with filters that look at small windows of images."""

import math
import warnings
from collections.abc import Sequence
from numbers import Integral, Real

import numpy as np

from skae._validation import Interval, StrOptions
from skae.engine.networks.units import UNITS
from skae.engine.sparse.linear_maps import PADDINGS, Convolution
from skae.engine.sparse.problem import L1
from skae.estimators.face.columns import Columns
from skae.estimators.face.parameters import attribute, estimator, parameter, preset
from skae.estimators.face.training import TrainedModel
from skae.estimators.face.transformer import Transformer, layer_weights
from skae.estimators.images.shapes import ImageParameters, resolve_extents, resolve_image_shape
from skae.estimators.sparse.inference import LOSSES, describe_coded_columns
from skae.estimators.sparse.psd import PSD, model_of

_FILTER_SHAPE = (5, 5)
# Steps of inference for the codes of `transform`, which have no next batch to improve in.
_MOST_STEPS = 5000
# Arrays of the size of a batch's codes that inference and gradient hold at a time.
_CODE_COPIES = 12


class ImageColumns(Columns):
    """Columns of images: one shift for each channel, and one scale for all."""

    @property
    def _is_scaled(self):
        return UNITS[self.parts[0][0]].standardizes

    def check_first_part(self, n_rows):
        """Report a first part of a stream that tells nothing of the images' contrast."""
        flat = (self.minimum == self.maximum).all() and np.allclose(self.mean, self.shift)
        if flat and self._is_scaled:
            warnings.warn(
                "The first call of partial_fit estimates mean and scale of the images for all "
                f"calls to come, and its images (n_samples={n_rows}) are constant: pass more rows "
                "at first, or scale them yourself and set loss='squared_error'.",
                stacklevel=4,
            )

    @classmethod
    def of_images(cls, columns, image_shape):
        """The same data, standardised by channel means and one standard deviation.

        Columns that each had a scale of their own would look different at every position, so
        that no filter would fit all of them.
        """
        images = cls(**vars(columns))
        if not images._is_scaled:
            return images
        mean = columns.mean.reshape(-1, image_shape[-1])
        shift = np.broadcast_to(mean.mean(axis=0), mean.shape).ravel().copy()
        deviation = np.where(columns.minimum == columns.maximum, 0.0, columns.scale)
        deviation = np.concatenate([deviation, np.abs(columns.mean - shift)])
        largest = deviation.max()
        if largest <= 1e-9 * np.abs(shift).max():
            scale = 1.0  # nothing but rounding errors to standardise
        else:
            scale = largest * math.sqrt(2 * np.mean(np.square(deviation / largest)))
        return images.replaced(shift=shift, scale=np.full_like(shift, scale))


@estimator
class ConvolutionalPSD(Transformer):
    r"""Predictive sparse decomposition of images by convolutional or tiled filters.

    Explains an image :math:`x` by few of the filters :math:`D_k`, each at few positions, and
    learns an encoder :math:`f` that predicts which, at the cost of one convolution. It
    minimises, averaged over images,

    .. math::

        \min_h \; \tfrac{1}{2} \Bigl\| x - \sum_k D_k * h_k \Bigr\|^2 + \alpha \|h\|_1
        + \tfrac{\lambda}{2} \|h - f(x)\|^2, \qquad f(x)_k = g_k\, s(W_k * x + b_k)

    over filters :math:`D_k` of unit norm and over :math:`W, b, g`. Norms are sums over all
    positions of an image, so that :math:`\alpha` and :math:`\lambda` = ``prediction`` mean
    for each code what they mean for patches, whose filters are shifted copies of each other.

    Rows are images, flattened with the channels last; so are the maps of codes, whose
    ``output_shape_`` is the ``image_shape`` of the next stage. Between stages belong
    rectification and pooling.

    Read more in the :ref:`User Guide <convolutional>`.

    See Also
    --------
    sklearn.decomposition.MiniBatchDictionaryLearning : Sparse coding of patches.

    Notes
    -----
    Images are centred by one mean for each channel and divided by one standard deviation.
    Natural images gain from removing the local mean and contrast before.

    References
    ----------
    .. [1] K. Kavukcuoglu, P. Sermanet, Y.-L. Boureau, K. Gregor, M. Mathieu, Y. LeCun.
       Learning convolutional feature hierarchies for visual recognition. NIPS 2010.
    .. [2] K. Kavukcuoglu, M. Ranzato, R. Fergus, Y. LeCun. Learning invariant features
       through topographic filter maps. CVPR 2009.
    .. [3] Q. Le, J. Ngiam, Z. Chen, D. Chia, P. Koh, A. Ng. Tiled convolutional neural
       networks. NIPS 2010.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import ConvolutionalPSD
    >>> X, _ = load_digits(return_X_y=True)
    >>> psd = ConvolutionalPSD(8, image_shape=(8, 8), max_iter=5, random_state=0).fit(X[:100])
    >>> psd.output_shape_
    (8, 8, 8)
    >>> psd.transform(X[:300]).shape
    (300, 512)
    """

    n_components: int = parameter(
        default=16,
        constraints=[Interval(Integral, 1, None, closed="left")],
        doc="Number of filters, at each position.",
        kw_only=False,
    )
    image_shape: Sequence[int] | None = preset(ImageParameters, "image_shape", default=None)
    filter_shape: int | Sequence[int] | None = parameter(
        default=None,
        constraints=[Interval(Integral, 1, None, closed="left"), "array-like", None],
        kind="tuple of int, int or None",
        doc="Height and width of the filters. None: (5, 5), cut to the size of the images.",
    )
    stride: int = parameter(
        default=1,
        constraints=[Interval(Integral, 1, None, closed="left")],
        doc="Pixels from one position to the next.",
    )
    padding: str = parameter(
        default="same",
        constraints=[StrOptions(set(PADDINGS))],
        kind='{"valid", "same", "full"}',
        doc="""Positions of the filters:

        - "same": one for every ``stride`` pixels; filters at the border see zeros (the mean)
          beyond it;
        - "full": wherever they overlap the image, so that all pixels are reconstructed alike;
        - "valid": where they lie in the image. Fewer filters reconstruct the pixels near the
          border, which distorts them where images are small.""",
    )
    sharing: str = parameter(
        default="convolutional",
        constraints=[StrOptions({"convolutional", "tiled", "unshared"})],
        kind='{"convolutional", "tiled", "unshared"}',
        doc="""Whether all positions have the same filters, or those that are ``period`` positions
        apart, or none.""",
    )
    period: int = parameter(
        default=2,
        constraints=[Interval(Integral, 1, None, closed="left")],
        doc="""Distance, in positions, at which filters repeat, for ``sharing="tiled"``.""",
    )
    alpha: float = parameter(
        default=0.5,
        constraints=[Interval(Real, 0, None, closed="neither")],
        doc="Weight of the sum of absolute codes.",
    )
    prediction: float = parameter(
        default=1.0,
        constraints=[Interval(Real, 0, None, closed="left")],
        doc="""Weight of half the squared distance of codes from their prediction. 0 is plain
        convolutional sparse coding, for ``inference="optimal"``.""",
    )
    inference: str = preset(PSD, "inference", default="encoder")
    activation: str = preset(PSD, "activation", default="tanh")
    inference_max_iter: int = parameter(
        default=10,
        constraints=[Interval(Integral, 1, None, closed="left")],
        doc="Steps of inference for each gradient step, at most. They start at the prediction.",
    )
    inference_tol: float = parameter(
        default=1e-3,
        constraints=[Interval(Real, 0, None, closed="neither")],
        doc="Duality gap, as a part of the objective, at which inference ends.",
    )
    loss: str = parameter(
        default="auto",
        constraints=[StrOptions(LOSSES)],
        kind='{"auto", "gaussian", "squared_error"}',
        doc=""""gaussian", which "auto" is here, centres images by one mean for each channel and
        divides by one standard deviation, both estimated in `fit`; "squared_error" takes
        pixels as they are.""",
    )

    batch_size: int = preset(TrainedModel, "batch_size", default=50)
    learning_rate: float = preset(TrainedModel, "learning_rate", default=0.01)
    max_iter: int | str = preset(TrainedModel, "max_iter", default=30)

    _collapse_remedy = "Try a smaller alpha, a smaller or larger learning_rate, or loss='gaussian'."

    components_ = layer_weights(
        "weight_0",
        "ndarray of shape (n_filters, filter height * filter width * channels)",
        """Filters of the encoder, flattened with the channels last, for (x - columns_.shift) /
        columns_.scale. There are ``n_components`` of them, or as many for each position, row
        by row, of a block of ``period`` * ``period`` positions or of the whole map.""",
    )
    decoder_components_ = layer_weights(
        "decoder_weight_0",
        "ndarray of the shape of ``components_``",
        "Filters of the decoder, of unit norm.",
    )
    intercept_hidden_ = layer_weights(
        "hidden_bias_0",
        "ndarray of shape (n_filters,)",
        "Biases of the encoder, where it has them.",
    )
    image_shape_: tuple[int, int, int] = attribute(
        "tuple of int", "Height, width and channels of the images."
    )
    filter_shape_: tuple[int, int] = attribute("tuple of int", "Height and width of the filters.")
    output_shape_: tuple[int, int, int] = attribute(
        "tuple of int",
        """Height, width and ``n_components`` of the maps of codes: the ``image_shape`` of the next
        stage.""",
    )

    def _check_parameters(self):
        super()._check_parameters()
        if self.prediction == 0 and self.inference == "encoder":
            raise ValueError(
                "prediction=0 leaves the encoder untrained; use a positive prediction, or "
                "inference='optimal'."
            )

    def _facts(self, X, weight, original, *, is_whole):
        image_shape = resolve_image_shape(self.image_shape, X.shape[1])
        columns = describe_coded_columns(self, X, weight, original)
        filter_shape = self._find_filter_shape(image_shape)
        return {
            "columns_": ImageColumns.of_images(columns, image_shape),
            "image_shape_": image_shape,
            "filter_shape_": filter_shape,
            "output_shape_": self._convolution(image_shape, filter_shape).maps_shape,
        }

    def _model(self, place):
        convolution = self._convolution(self.image_shape_, self.filter_shape_)
        filter_shape = self._find_filter_shape(self.image_shape_)
        if convolution.maps_shape != self.output_shape_ or filter_shape != self.filter_shape_:
            raise ValueError(
                "filter_shape, stride or padding have changed since this ConvolutionalPSD was "
                "fitted, and with them its filters or the number of codes. Set them back, or call "
                "fit with warm_start=False."
            )
        return model_of(
            self,
            place,
            convolution,
            L1(float(self.alpha)),
            most_steps=_MOST_STEPS,
            from_zero=True,
            numbers_per_row=convolution.n_codes * _CODE_COPIES,
        )

    def _convolution(self, image_shape, filter_shape):
        period = {"convolutional": 1, "tiled": self.period, "unshared": None}[self.sharing]
        return Convolution(
            image_shape,
            filter_shape,
            int(self.n_components),
            int(self.stride),
            self.padding,
            period,
        )

    def _find_filter_shape(self, image_shape):
        sides = image_shape[:2]
        if self.filter_shape is None:
            shape = tuple(min(pair) for pair in zip(_FILTER_SHAPE, sides, strict=True))
        else:
            shape = resolve_extents("filter_shape", self.filter_shape)
        if any(extent > side for extent, side in zip(shape, sides, strict=True)):
            raise ValueError(
                f"filter_shape={self.filter_shape!r} is larger than the images, which are "
                f"{sides[0]} x {sides[1]} pixels (n_features={self.n_features_in_}). Use a smaller "
                "filter_shape or None, or set image_shape to what the rows are."
            )
        if any(self.stride > e and e < side for e, side in zip(shape, sides, strict=True)):
            raise ValueError(
                f"stride={self.stride} is larger than the filters of {shape[0]} x {shape[1]} "
                "pixels, so that no filter would see the pixels between. Use a smaller stride "
                "or a larger filter_shape."
            )
        return shape
