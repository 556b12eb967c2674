r"""
Two stages of convolutional filters
===================================

:class:`~skae.ConvolutionalPSD` explains an image by few of its filters, each at few positions,
and learns an encoder that predicts which:

.. math::

    \min_h \; \tfrac{1}{2} \Bigl\| x - \sum_k D_k * h_k \Bigr\|^2 + \alpha \|h\|_1
    + \tfrac{\lambda}{2} \|h - f(x)\|^2

Its codes are maps, so they are images again, with one channel for each filter: after
rectification and pooling, a second stage learns from them what the first one learned from
pixels (Kavukcuoglu et al. 2010). The images here are two photographs, cut into tiles from which
the local mean and contrast are taken off.

What follows is checked:

- filters of the first stage are edges and bars: each answers to few orientations, which random
  filters do not;
- no filter dies, and the optimal codes are sparse;
- one convolution reconstructs images that were not seen nearly as well as optimal codes do. The
  codes themselves it predicts roughly: they choose one of several shifted filters that explain
  the same, which no single convolution can tell;
- filters of the second stage combine several of the first.
"""

import copy

import matplotlib.pyplot as plt
import numpy as np
from scipy.ndimage import gaussian_filter
from sklearn.datasets import load_digits, load_sample_images

from skae import ConvolutionalPSD

SIDE, FILTER = 24, 7


def photographs():
    """Grey images, at half their size; digits where no package can read photographs."""
    try:
        images = load_sample_images().images
    except ImportError:
        rows = load_digits().images[:240].reshape(10, 24, 8, 8)
        return [np.kron(np.hstack(row), np.ones((3, 3))) for row in rows]
    grey = [image[:426, :640].mean(axis=2) for image in images]
    return [image.reshape(213, 2, 320, 2).mean(axis=(1, 3)) for image in grey]


def normalized(image):
    """The difference from the local mean, in units of the local contrast."""
    detail = image - gaussian_filter(image, 2.0)
    contrast = np.sqrt(gaussian_filter(detail**2, 2.0))
    return detail / np.maximum(contrast, contrast.mean())


def tiles(image):
    """Tiles side by side, as rows."""
    down, across = (extent // SIDE for extent in image.shape)
    image = image[: down * SIDE, : across * SIDE]
    return image.reshape(down, SIDE, across, SIDE).swapaxes(1, 2).reshape(-1, SIDE * SIDE)


X = np.concatenate([tiles(normalized(image)) for image in photographs()]).astype(np.float32)
X = np.random.default_rng(0).permutation(X)
train, test = X[:-40], X[-40:]

first = ConvolutionalPSD(
    16,
    image_shape=(SIDE, SIDE),
    filter_shape=FILTER,
    alpha=1.0,
    batch_size=10,
    max_iter=25,
    learning_rate_schedule="linear",
    random_state=0,
).fit(train)

# %%
# Filters of the first stage
# --------------------------
# The selectivity of a filter for orientations is that of its spectrum: the length of the mean of
# the unit vectors at twice the angle of each frequency, weighted by the power there. It is 1 for
# a grating and 0 for what has no direction.


def selectivity(filters):
    """Between 0 and 1, for filters of shape (n, side, side)."""
    filters = filters - filters.mean(axis=(1, 2), keepdims=True)
    power = np.abs(np.fft.fft2(filters, s=(32, 32))) ** 2
    frequency = np.fft.fftfreq(32)
    angle = np.arctan2(frequency[:, np.newaxis], frequency)
    return np.abs((power * np.exp(2j * angle)).sum(axis=(1, 2))) / power.sum(axis=(1, 2))


def show(filters, title):
    """Filters side by side, each on its own scale."""
    figure, axes = plt.subplots(2, len(filters) // 2, figsize=(8, 2.4), layout="constrained")
    for ax, values in zip(axes.flat, filters, strict=True):
        size = np.abs(values).max()
        ax.imshow(values, cmap="gray", vmin=-size, vmax=size)
        ax.axis("off")
    figure.suptitle(title)


dictionary = first.decoder_components_.reshape(-1, FILTER, FILTER)
encoder = first.components_.reshape(-1, FILTER, FILTER)
random = np.random.default_rng(0).normal(size=(1000, FILTER, FILTER))
show(dictionary, "decoder, first stage")
show(encoder, "encoder, first stage")
plt.show()

# Averages hide the few filters that are blobs: compare medians.
learned, chance = np.median(selectivity(dictionary)), np.median(selectivity(random))
print(f"selectivity for orientations: learned {learned:.2f}, random {chance:.2f}")
assert learned > 2 * chance

# %%
# Codes, predicted and optimal
# ----------------------------
# What predictions are compared with are sparse codes: the minimum without the prediction term,
# to a known gap.

by_inference = copy.deepcopy(first).set_params(inference="optimal")
predicted, optimal = first.transform(test), by_inference.transform(test)
use = (optimal != 0).reshape(-1, 16).mean(axis=0)
print(f"filters are used at {use.min():.1%} to {use.max():.1%} of all positions")
assert use.min() > 0.005
assert use.mean() < 0.2

cosine = np.vdot(predicted, optimal) / (np.linalg.norm(predicted) * np.linalg.norm(optimal))
print(f"cosine of predicted and optimal codes: {cosine:.2f}")
assert cosine > 0.25

lost = {
    name: np.square(model.reconstruct(test) - test).sum() / np.square(test - test.mean()).sum()
    for name, model in (("encoder", first), ("inference", by_inference))
}
print(", ".join(f"{part:.0%} of the variance is lost by {name}" for name, part in lost.items()))
assert lost["encoder"] < min(0.35, 2 * lost["inference"])

figure, axes = plt.subplots(3, 6, figsize=(8, 4.2), layout="constrained")
names = ("image", "encoder", "inference")
rows = (test, first.reconstruct(test), by_inference.reconstruct(test))
for line, name, images in zip(axes, names, rows, strict=True):
    for ax, values in zip(line, images, strict=False):
        ax.imshow(values.reshape(SIDE, SIDE), cmap="gray", vmin=-3, vmax=3)
        ax.set_xticks([])
        ax.set_yticks([])
    line[0].set_ylabel(name)
plt.show()

# %%
# The second stage
# ----------------
# Sizes of codes, without their signs, and means over blocks of 2 x 2: then a filter that sees
# 5 x 5 blocks sees 16 x 16 pixels.


def pooled(images):
    """Rectified and pooled maps of the first stage, as rows."""
    height, width, n_maps = first.output_shape_
    maps = np.abs(first.transform(images)).reshape(-1, height // 2, 2, width // 2, 2, n_maps)
    return maps.mean(axis=(2, 4)).reshape(len(images), -1)


second = ConvolutionalPSD(
    16,
    image_shape=(SIDE // 2, SIDE // 2, 16),
    filter_shape=5,
    batch_size=10,
    max_iter=15,
    learning_rate_schedule="linear",
    random_state=0,
).fit(pooled(train))

weights = second.decoder_components_.reshape(16, 5, 5, 16)
share = np.square(weights).sum(axis=(1, 2))  # of each map in each filter; sums to 1
effective = 1 / np.square(share).sum(axis=1)
print(f"a filter of the second stage combines about {np.median(effective):.1f} maps of the first")
assert np.median(effective) > 2

codes = second.transform(pooled(test)).reshape(-1, 16)
assert (codes.std(axis=0) > 0.01).all()

# %%
# To look at them: each block is drawn as the sum of the first stage's filters, by their weights.

pictures = np.zeros((16, 2 * 4 + FILTER, 2 * 4 + FILTER))
for i in range(5):
    for j in range(5):
        pictures[:, 2 * i : 2 * i + FILTER, 2 * j : 2 * j + FILTER] += np.tensordot(
            weights[:, i, j], dictionary, axes=1
        )
show(pictures, "decoder, second stage")
plt.show()

# %%
# Limits
# ------
# - Rectification loses the sign, so that the pictures of the second stage show one of the images
#   that a filter answers to, not all.
# - Prediction is cheap and not exact: where codes themselves count, ``inference="optimal"`` has
#   them to any precision.
# - Two photographs are few. What the filters are like depends on what the images are of.
