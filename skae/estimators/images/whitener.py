"""Whitening that is learned from patches: the estimator."""

import math
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.utils import check_array
from sklearn.utils.metaestimators import available_if
from torch.nn import functional

from skae._validation import Interval, StrOptions, check_is_fitted, computing_dtype
from skae.engine.images.stages import Moments, center_rows, normalize_contrast, patches, whitening
from skae.engine.optimisation.devices import require_memory
from skae.estimators.face.parameters import estimator, parameter
from skae.estimators.images.sampling import PatchSampling, draw_patches, resolve_patch_shape
from skae.estimators.images.shapes import (
    ImageTransformer,
    require_fitted_parameters,
    row_blocks,
)

_CPU = torch.device("cpu")
# Patches that are learned from at once.
_BLOCK = 10_000


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

    Each patch :math:`x` becomes, with its own mean and variance over the :math:`d` values
    and with the mean :math:`\mu` and covariance :math:`V D V^\top` of all patches so
    normalised,

    .. math::

        z = V (D + e I)^{-1/2} V^\top (\hat x - \mu), \qquad
        \hat x = \frac{x - \bar x}{\sqrt{\operatorname{var}(x) + e_c}}

    where :math:`e` and :math:`e_c` are ``epsilon`` and ``contrast_epsilon`` in units of the
    training data. Neighbouring pixels are alike, so that without it dictionaries and
    Boltzmann machines spend their units on smooth blobs; on whitened patches they learn
    edges. Use it before anything that learns from patches; :class:`PatchFeatures` has it
    built in.

    Read more in the :ref:`User Guide <patches>`.

    Parameters
    ----------
    {parameters}

    Attributes
    ----------
    {attributes}

    See Also
    --------
    LocalContrastNormalizer : Normalises each pixel by its surroundings; learns nothing.

    Notes
    -----
    Both regularisers are relative to the data, so that pixels in [0, 1] and in
    0, ..., 255 give the same result. The defaults are about those of Coates & Ng, who
    add 10 to the variance of patches of pixels in 0, ..., 255, and 0.1 to the variances
    of whitened components.

    Directions in which the rows do not vary (constant columns, the mean that the contrast
    step takes out, fewer rows than columns) are left out for ``epsilon=0``. Otherwise they
    are divided by :math:`\sqrt e`.

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

    patch_shape: tuple = parameter(
        default=None,
        constraints=[Interval(Integral, 1, None, closed="left"), "array-like", None],
        doc="""tuple of two int, int or None
        Height and width of the patches. None: each row is one patch, which is whitened
        as a whole, and all rows are learned from. Otherwise each pixel of an image is
        whitened by the patch around it: the whitening's central filter is applied as a
        convolution, which gives an image of the same shape. Images are mirrored at
        their borders.""",
    )
    method: str = parameter(
        default="zca",
        constraints=[StrOptions({"zca", "pca"})],
        doc=r"""{"zca", "pca"}
        "zca" keeps whitened patches as close as can be to the patches, so that they
        look like images; "pca" leaves out the left factor V and gives components by
        falling variance, for ``patch_shape=None`` only.""",
    )
    epsilon: float = parameter(
        default=0.1,
        constraints=[Interval(Real, 0, None, closed="left")],
        doc="""float
        Added to all variances, as a part of their mean: components of less variance
        are noise, which a full whitening would make as large as all else.""",
    )
    contrast: bool = parameter(
        default=True,
        constraints=["boolean"],
        doc="""bool
        Whether the mean of each patch is subtracted, and its standard deviation divided
        by.""",
    )
    contrast_epsilon: float = parameter(
        default=0.01,
        constraints=[Interval(Real, 0, None, closed="left")],
        doc="""float
        Added to the variance of each patch, as a part of the mean of such variances:
        patches of less contrast stay small.""",
    )

    _attributes_doc = (
        """
    mean_ : ndarray of shape (n_values,)
        Mean of the patches, after the contrast step.
    whitening_ : ndarray of shape (n_values, n_values)
        The matrix W of z = W (x - mean_), one filter per row.
    inverse_whitening_ : ndarray of shape (n_values, n_values)
        The matrix that undoes it.
    contrast_epsilon_ : float
        ``contrast_epsilon`` in squared units of the data.
    patch_shape_ : tuple of int
        Height, width and channels of the patches."""
        + ImageTransformer._attributes_doc
    )

    @available_if(_whitens_rows)
    def inverse_transform(self, X):
        """Patches from whitened patches.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Whitened rows.

        Returns
        -------
        patches : ndarray of shape (n_samples, n_features)
            In the units of the data for ``contrast=False``. The mean and the contrast of
            each patch cannot be had back: for ``contrast=True`` these are the patches
            after the contrast step.

        Notes
        -----
        Only for ``patch_shape=None``: a convolution is not undone.
        """
        check_is_fitted(self)
        require_fitted_parameters(self)
        X = check_array(X, dtype=[np.float64, np.float32])
        if X.shape[1] != self.n_features_in_:
            raise ValueError(
                f"X has {X.shape[1]} columns, but whitened patches have {self.n_features_in_}; "
                "inverse_transform takes the output of transform."
            )
        return self._map_rows(
            X,
            lambda z: z @ _like(z, self.inverse_whitening_).t() + _like(z, self.mean_),
            self.n_features_in_,
        )

    _free_parameters = ("device", "n_patches", "random_state")

    @property
    def _keeps_columns(self):
        return self.method == "zca"

    @property
    def _whole_rows(self):
        return self.patch_shape is None

    @property
    def _values_per_image(self):
        return self.n_features_in_ if self._whole_rows else self._n_pixels * len(self.mean_)

    @property
    def _n_pixels(self):
        return math.prod(self.image_shape_[:2])

    def _find_output_shape(self):
        if not self._whole_rows and self.method == "pca":
            raise ValueError(
                "method='pca' has no central filter that would give an image; use method='zca', "
                "or patch_shape=None for rows that are patches."
            )
        return self.image_shape_

    def _learn(self, X):
        if self._whole_rows:
            self.patch_shape_ = self.image_shape_
        else:
            self.patch_shape_ = resolve_patch_shape(self)
        n_values = math.prod(self.patch_shape_)
        require_memory(
            6 * 8 * n_values**2,
            _CPU,
            f"Whitening patches of {n_values} values",
            "Give a smaller patch_shape.",
        )
        blocks = self._training_blocks(X)
        self.contrast_epsilon_ = 0.0
        if self.contrast:
            variances = torch.cat([center_rows(rows).square().mean(1) for rows in blocks()])
            _require_range(
                variances.mean(),
                n_values * variances.max(),
                computing_dtype(X, _CPU),
                lambda: any(center_rows(rows).any() for rows in blocks()),
            )
            self.contrast_epsilon_ = self.contrast_epsilon * float(variances.mean())
        moments = Moments(n_values)
        for rows in blocks():
            moments.add(self._contrasted(rows))
        variance = moments.covariance.trace()
        first = self._contrasted(next(blocks())[:1])
        _require_range(
            variance,
            variance,
            torch.float64,
            lambda: any((self._contrasted(rows) != first).any() for rows in blocks()),
        )
        learned = whitening(moments.covariance, self.epsilon, self.method)
        self.mean_ = moments.mean.numpy()
        self.whitening_ = learned.forward.numpy()
        self.inverse_whitening_ = learned.inverse.numpy()

    def _training_blocks(self, X):
        """A function that starts to give the training patches, in blocks in float64."""
        if self._whole_rows:
            # In float32, rounding would give directions without variance some of it.
            return lambda: (rows for _, rows in row_blocks(X, X.shape[1], torch.float64, _CPU))
        drawn = draw_patches(
            X, self.image_shape_, self.patch_shape_, (1, 1), self.n_patches, self.random_state
        )
        return lambda: (rows.double() for rows in drawn.split(_BLOCK))

    def _contrasted(self, rows):
        return normalize_contrast(rows, self.contrast_epsilon_) if self.contrast else rows

    def _map(self, images):
        filters = self.whitening_
        if self._whole_rows:
            rows = images.reshape(len(images), -1)
        else:
            height, width, channels = self.patch_shape_
            above, left = height // 2, width // 2
            border = (left, width - 1 - left, above, height - 1 - above)
            x = functional.pad(images.permute(0, 3, 1, 2), border, mode="reflect")
            rows = patches(x.permute(0, 2, 3, 1), (height, width)).reshape(-1, len(self.mean_))
            center = (above * width + left) * channels
            filters = filters[center : center + channels]
        return (self._contrasted(rows) - _like(rows, self.mean_)) @ _like(rows, filters).t()


def _require_range(variance, largest, dtype, varies):
    """Raise a ValueError if squares of the data overflow in a dtype, or vanish though it varies."""
    limits = torch.finfo(dtype)
    too_large = not largest <= limits.max  # NaN too
    if too_large or (variance < limits.tiny and varies()):
        raise ValueError(
            f"The values of X are too {'large' if too_large else 'small'}: their variance "
            f"{'over' if too_large else 'under'}flows in {str(dtype).removeprefix('torch.')}. "
            "Rescale X, for example by a division by its largest absolute value."
        )


def _like(rows, array):
    return torch.from_numpy(array).to(rows.device, rows.dtype)
