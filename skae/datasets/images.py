"""Images that users pass: checked, cut into patches, turned, stretched, shifted and bent."""

import math

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from sklearn.datasets import load_digits, load_sample_images
from torch.nn import functional

from skae._validation import check_count, check_number, make_generator

# Least standard deviation of a patch, where black is 0 and white is 1.
LEAST_CONTRAST = 0.1
# Images whose coordinates are held at a time: they fit into a processor's cache.
_BLOCK = 512
# Waves of a smooth random field that are left out, by their variance relative to the largest.
_NEGLIGIBLE = 1e-5
_AMOUNTS = "rotation", "scaling", "shear", "translation", "elastic_amplitude"


def make_rng(random_state):
    """A generator of NumPy, from any random_state that estimators take."""
    return np.random.default_rng(make_generator(random_state, "cpu").initial_seed())


def check_images(images, name="images"):
    """Grey images in [0, 1] as float32 of shape (n_images, height, width).

    Rows that are flat stand for square images; 8-bit integers are divided by 255.
    """
    images = _in_unit_interval(images, name)
    side = math.isqrt(images.shape[1]) if images.ndim == 2 else 0
    if side and side**2 == images.shape[1]:
        images = images.reshape(-1, side, side)
    if images.ndim != 3 or not images.size:
        raise ValueError(
            f"{name} must have shape (n_images, height, width), or (n_images, n_pixels) if they "
            f"are square, with at least one image, but has {images.shape}. Reshape them."
        )
    return images


def _check_photographs(photographs, shape):
    """Photographs as float32 of shape (n_images, height, width), grey; None: samples."""
    if photographs is None:
        try:
            photographs = load_sample_images().images
        except ImportError as error:
            raise ImportError(
                f"{error} Install pillow, with which scikit-learn reads its sample photographs, or "
                "pass photographs."
            ) from error
    photographs = _in_unit_interval(photographs, "photographs")
    if photographs.ndim == 4:
        photographs = photographs.mean(axis=3)
    if photographs.ndim != 3 or not photographs.size or np.less(photographs.shape[1:], shape).any():
        raise ValueError(
            "photographs must have shape (n_images, height, width) or (n_images, height, width, "
            f"channels) and be no smaller than the {shape[0]} x {shape[1]} pixels of the images "
            f"to make, but grey they have shape {photographs.shape}. Pass larger ones; a single "
            "photograph needs a first axis: photograph[np.newaxis]."
        )
    return photographs


def check_labels(labels, images):
    """Labels as an array, one for each image; None stays None."""
    if labels is None:
        return None
    labels = np.asarray(labels)
    if labels.shape != images.shape[:1]:
        raise ValueError(
            f"labels has shape {labels.shape}, but there are {len(images)} images. Pass one "
            "label for each image, or labels=None."
        )
    return labels


def _in_unit_interval(values, name):
    values = np.asarray(values)
    if values.dtype.kind not in "fiub":
        raise ValueError(
            f"{name} must be one array of numbers, but its dtype is {values.dtype}. Crop images "
            "of several sizes to one size first."
        )
    if values.dtype == np.uint8:
        return values.astype(np.float32) / np.float32(255)
    values = values.astype(np.float32, copy=False)
    # Not (... < 0).any(): a NaN has to fail, too.
    if values.size and not (values.min() >= 0 and values.max() <= 1):
        raise ValueError(
            f"{name} must lie in [0, 1], unless of dtype uint8, but spans [{values.min():.4g}, "
            f"{values.max():.4g}]. Divide by the largest value that a pixel can have."
        )
    return values


def draw_patches(photographs, n_patches, shape, rng):
    """Patches of shape (n_patches, *shape), at positions uniform among all that have contrast."""
    photographs = _check_photographs(photographs, shape)
    variance = _window_variances(photographs, shape)
    positions = np.flatnonzero(variance >= LEAST_CONTRAST**2)
    if not len(positions):
        raise ValueError(
            f"photographs have no patch of {shape[0]} x {shape[1]} pixels whose standard deviation "
            f"is at least {LEAST_CONTRAST}; the largest is {np.sqrt(variance.max()):.2g}. Pass "
            "photographs with more contrast, or stretch theirs to [0, 1]."
        )
    drawn = rng.choice(positions, size=n_patches)
    windows = sliding_window_view(photographs, shape, axis=(1, 2))
    return windows[np.unravel_index(drawn, variance.shape)]


def _window_variances(photographs, shape):
    # In double precision, and around the middle grey: variances are differences of large sums.
    centred = photographs.astype(np.float64) - 0.5
    mean = _window_sums(centred, shape) / np.prod(shape)
    return np.maximum(_window_sums(centred**2, shape) / np.prod(shape) - mean**2, 0)


def _window_sums(images, shape):
    """Sum over the window that begins at each pixel, from sums over all that is above and left."""
    height, width = shape
    corner = np.pad(images.cumsum(axis=1).cumsum(axis=2), ((0, 0), (1, 0), (1, 0)))
    below = corner[:, height:] - corner[:, :-height]
    return below[:, :, width:] - below[:, :, :-width]


def rotate_images(images, angles):
    """Images (n, height, width), turned counter-clockwise about their centres by angles in radians.

    Bilinear; what comes from outside of the image is 0.
    """
    return _by_blocks(images, lambda block, rows: _warp(block, _rotations(-angles[rows])))


def deform_images(
    images,
    *,
    rotation=10.0,
    scaling=0.1,
    shear=0.1,
    translation=0.04,
    elastic_amplitude=0.03,
    elastic_smoothness=0.14,
    random_state=None,
):
    r"""Images after small random deformations, each image after one of its own.

    A pixel at :math:`p`, from the centre of the image, moves to

    .. math::

        R_\theta \begin{pmatrix} 1 & k \\ 0 & 1 \end{pmatrix}
        \begin{pmatrix} s_x & 0 \\ 0 & s_y \end{pmatrix} p + t

    with an angle :math:`\theta`, slant :math:`k`, factors :math:`s` and shift :math:`t` that are
    drawn uniformly; then it is displaced by a smooth random field. Values between pixels are
    bilinear; what comes from outside of the image is 0.

    Parameters
    ----------
    images : array-like of shape (n_images, height, width) or (n_images, n_pixels)
        Values in [0, 1], or integers of dtype uint8, which are divided by 255. Rows that are
        flat stand for square images.
    rotation : float, default=10.0
        Largest angle, in degrees, to either side.
    scaling : float, default=0.1
        Largest relative change of height and of width. Each is drawn by itself.
    shear : float, default=0.1
        Largest slant: tangent of the angle by which upright strokes lean.
    translation : float, default=0.04
        Largest shift along each axis, as a fraction of the longer side of the image.
    elastic_amplitude : float, default=0.03
        Standard deviation of the elastic displacement along each axis, as a fraction of the
        longer side.
    elastic_smoothness : float, default=0.14
        Standard deviation of the Gaussian that smoothes white noise to elastic displacements,
        as a fraction of the longer side: how far they go together.
    random_state : int, RandomState instance or None, default=None
        Seed of the draws.

    Returns
    -------
    deformed : ndarray of the same shape, float32
        Values in [0, 1].

    Raises
    ------
    ValueError
        Images that are not grey images in [0, 1], or a parameter outside of its range.

    See Also
    --------
    DeformedDigits : An endless stream of such images.

    Notes
    -----
    The elastic field is Gaussian, of mean 0 and covariance
    :math:`a^2 \exp(-|p - q|^2 / (4 \sigma^2))` between two points, which is the law of smoothed
    white noise far from borders. It is drawn in the basis of its leading eigenvectors: some 70
    numbers for each axis of 28 x 28 pixels instead of 784. For these, the defaults are
    displacements of 0.8 pixels, smooth over 4 pixels.

    References
    ----------
    P. Y. Simard, D. Steinkraus and J. C. Platt, "Best practices for convolutional neural
    networks applied to visual document analysis", ICDAR 2003.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae.datasets import deform_images
    >>> X = load_digits().data / 16
    >>> deformed = deform_images(X, random_state=0)
    >>> deformed.shape, deformed.dtype
    ((1797, 64), dtype('float32'))
    """
    grey = check_images(images)
    amounts = rotation, scaling, shear, translation, elastic_amplitude
    deformation = _Deformation(grey.shape[1:], amounts, elastic_smoothness)
    return deformation.draw(grey, make_rng(random_state)).reshape(np.shape(images))


class DeformedDigits:
    r"""Endless stream of deformed digits.

    Each batch holds originals that are drawn at random, with replacement, and deformed as by
    :func:`deform_images`. No two rows are alike, so a model that learns from the stream cannot
    learn rows by heart: its loss on a new batch estimates its generalisation. Feed batches to
    ``partial_fit``, and cut the stream with :func:`itertools.islice`.

    Parameters
    ----------
    images : array-like of shape (n_images, height, width) or (n_images, n_pixels), default=None
        Originals, in [0, 1] or of dtype uint8. None: the 1797 digits of 8 x 8 pixels that come
        with scikit-learn. Those of :func:`load_mnist` make what is known as infinite MNIST.
    labels : array-like of shape (n_images,), default=None
        Their classes. Without any, batches have ``None`` in the place of classes.
    batch_size : int, default=1000
        Rows of a batch.
    rotation, scaling, shear, translation, elastic_amplitude, elastic_smoothness : float
        As for :func:`deform_images`: degrees, relative change, tangent, and fractions of the
        longer side. All amounts may be 0.
    random_state : int, RandomState instance or None, default=None
        Seed of the draws, used when the stream is made: iterating twice gives the same twice.

    Yields
    ------
    X : ndarray of shape (batch_size, n_pixels), float32
        Values in [0, 1].
    y : ndarray of shape (batch_size,) or None
        Classes of the originals.

    Raises
    ------
    ValueError
        Images or labels of the wrong form, or a parameter outside of its range.

    See Also
    --------
    deform_images : The deformation of given images, and its paper.

    References
    ----------
    G. Loosli, S. Canu and L. Bottou, "Training invariant support vector machines using selective
    sampling", in Large Scale Kernel Machines, MIT Press 2007.

    Examples
    --------
    >>> from itertools import islice
    >>> from skae import DenoisingAutoEncoder
    >>> from skae.datasets import DeformedDigits
    >>> model = DenoisingAutoEncoder(32, random_state=0)
    >>> for X, y in islice(DeformedDigits(batch_size=200, random_state=0), 5):
    ...     model = model.partial_fit(X)
    >>> X.shape, y.shape
    ((200, 64), (200,))
    """

    def __init__(
        self,
        images=None,
        labels=None,
        *,
        batch_size=1000,
        rotation=10.0,
        scaling=0.1,
        shear=0.1,
        translation=0.04,
        elastic_amplitude=0.03,
        elastic_smoothness=0.14,
        random_state=None,
    ):
        if images is None:
            if labels is not None:
                raise ValueError("labels were given without images. Pass the images, too.")
            digits = load_digits()
            images, labels = digits.images / 16, digits.target
        check_count("batch_size", batch_size, least=1)
        self._images = check_images(images)
        self._labels = check_labels(labels, self._images)
        self._batch_size = batch_size
        amounts = rotation, scaling, shear, translation, elastic_amplitude
        self._deformation = _Deformation(self._images.shape[1:], amounts, elastic_smoothness)
        self._seed = make_generator(random_state, "cpu").initial_seed()

    def __iter__(self):
        rng = make_rng(self._seed)
        while True:
            drawn = rng.integers(len(self._images), size=self._batch_size)
            X = self._deformation.draw(self._images[drawn], rng).reshape(self._batch_size, -1)
            yield X, None if self._labels is None else self._labels[drawn]


class _Deformation:
    """The law that deformations of images of one shape are drawn from."""

    def __init__(self, shape, amounts, elastic_smoothness):
        rotation, scaling, shear, translation, elastic_amplitude = amounts
        for name, value in zip(_AMOUNTS, amounts, strict=True):
            if check_number(name, value) < 0:
                raise ValueError(f"{name}={value!r} must be at least 0, which is none of it.")
        if check_number("elastic_smoothness", elastic_smoothness) <= 0:
            raise ValueError(
                f"elastic_smoothness={elastic_smoothness!r} must be positive. Set "
                "elastic_amplitude=0 for no elastic deformation."
            )
        if scaling >= 1:
            raise ValueError(f"scaling={scaling!r} must be below 1, or images shrink to nothing.")
        side = max(shape)
        self.rotation, self.scaling, self.shear = np.deg2rad(rotation), scaling, shear
        self.translation, self.waves = side * translation, None
        if elastic_amplitude:
            waves = _smooth_waves(shape, side * elastic_smoothness)
            self.waves = np.float32(side * elastic_amplitude) * waves
        self.nothing = not any(amounts)

    def draw(self, images, rng):
        """The images of shape (n, height, width), each deformed by a draw of its own."""
        if self.nothing:
            return images.copy()
        return _by_blocks(images, lambda block, rows: self._draw_block(block, rng))

    def _draw_block(self, images, rng):
        n = len(images)

        def uniform(most, *shape):
            return rng.uniform(-most, most, size=(n, *shape))

        # From where a pixel comes: the inverse of each step, in reverse.
        inverse = _rotations(-uniform(self.rotation))
        slant = np.broadcast_to(np.eye(2), (n, 2, 2)).copy()
        slant[:, 0, 1] = -uniform(self.shear)
        inverse = slant @ inverse / (1 + uniform(self.scaling, 2))[:, :, np.newaxis]
        shift = -np.einsum("nij,nj->ni", inverse, uniform(self.translation, 2))
        field = None
        if self.waves is not None:
            field = rng.standard_normal((2 * n, len(self.waves)), dtype=np.float32) @ self.waves
        return _warp(images, inverse, shift, field)


def _smooth_waves(shape, smoothness):
    """Waves whose sum, weighted by standard normal draws, is a smooth field of variance 1."""
    distances = (np.subtract.outer(np.arange(n), np.arange(n)) for n in shape)
    laws = (np.linalg.eigh(np.exp(-((d / (2 * smoothness)) ** 2))) for d in distances)
    variances, waves = zip(*laws, strict=True)
    variance = np.multiply.outer(*variances).ravel()
    wave = np.einsum("ik,jl->klij", *waves).reshape(len(variance), -1)
    kept = variance > _NEGLIGIBLE * variance.max()
    return (np.sqrt(variance[kept])[:, np.newaxis] * wave[kept]).astype(np.float32)


def _rotations(angles):
    """Matrices that turn (x, y), with y downwards, counter-clockwise as seen: (n, 2, 2)."""
    cos, sin = np.cos(angles), np.sin(angles)
    return np.stack([cos, sin, -sin, cos], axis=1).reshape(-1, 2, 2)


def _by_blocks(images, function):
    """function(block of images, rows of the block) for all images."""
    result = np.empty(images.shape, dtype=np.float32)
    for start in range(0, len(images), _BLOCK):
        rows = slice(start, start + _BLOCK)
        result[rows] = function(images[rows], rows)
    return result


def _warp(images, linear, shift=None, field=None):
    """Images whose value at p is the given image's value at linear p + shift + field(p).

    Points are (x, y) in pixels from the centre; ``field`` has the rows x, y of each image.
    """
    n, height, width = images.shape
    y, x = np.mgrid[:height, :width].reshape(2, -1) - 0.5 * np.array([[height - 1], [width - 1]])
    # As a third coordinate, 1 takes up the shift.
    points = torch.from_numpy(np.stack([x, y, np.ones_like(x)]).astype(np.float32))
    shift = np.zeros((n, 2)) if shift is None else shift
    linear = np.concatenate([linear, shift[:, :, np.newaxis]], axis=2).astype(np.float32)
    source = torch.from_numpy(linear).reshape(2 * n, 3) @ points
    if field is not None:
        source += torch.from_numpy(field)
    # grid_sample's unit is half the side.
    half = torch.tensor([2 / width, 2 / height], dtype=source.dtype).view(2, 1, 1)
    source = source.view(n, 2, height, width) * half
    # A copy, because torch warns of arrays that are read-only.
    warped = functional.grid_sample(
        torch.from_numpy(np.array(images)).unsqueeze(1),
        source.permute(0, 2, 3, 1),
        mode="bilinear",
        padding_mode="zeros",
        align_corners=False,
    )
    return warped.squeeze(1).clamp_(0, 1).numpy()
