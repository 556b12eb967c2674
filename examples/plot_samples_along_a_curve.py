r"""
Samples of an auto-encoder
==========================

A denoising auto-encoder knows the density of its data. With Gaussian noise of standard deviation
:math:`\sigma` its reconstruction says where the density grows, and the Jacobian of the
reconstruction in which directions the data vary (Vincent 2011; Alain and Bengio 2014):

.. math::

    \frac{r(x) - x}{\sigma^2} = \frac{\partial \log p_\sigma(x)}{\partial x}, \qquad
    \sigma^2 \frac{\partial r(x)}{\partial x} = \mathrm{Cov}[\text{clean row} \mid x]

Both together draw samples: add noise, then draw from the normal law with these two moments, and so
on. The data here lie on a spiral, so that the true score can be computed.
"""

import numpy as np

from skae import DenoisingAutoEncoder

rng = np.random.default_rng(0)


def spiral(t):
    """Points of the curve for t in [0, 1]."""
    return (0.3 + 1.7 * t)[:, None] * np.c_[np.cos(3 * np.pi * t), np.sin(3 * np.pi * t)]


# Points that lie evenly along the curve, and data drawn from them.
fine = spiral(np.linspace(0, 1, 4000))
length = np.r_[0, np.cumsum(np.linalg.norm(np.diff(fine, axis=0), axis=1))]
curve = spiral(np.interp(np.linspace(0, length[-1], 1000), length, np.linspace(0, 1, 4000)))
X = curve[rng.integers(len(curve), size=3000)]

sigma = 0.1
dae = DenoisingAutoEncoder(
    32,
    hidden_layer_sizes=(128,),
    activation="relu",
    tied_weights=False,
    loss="squared_error",
    corruption="gaussian",
    corruption_level=sigma,
    learning_rate=3e-3,
    learning_rate_schedule="cosine",
    batch_size=50,
    max_iter=60,
    n_iter_no_change=None,
    random_state=0,
).fit(X)

# %%
# The score
# ---------
# At points within reach of the noise, the learned field and the true one point the same way.

points = X[:1000] + sigma * rng.normal(size=(1000, 2))
weight = np.exp(-np.square(points[:, None] - curve).sum(axis=-1) / (2 * sigma**2))
clean = weight @ curve / weight.sum(axis=1, keepdims=True)
score, field = (clean - points) / sigma**2, dae.score_field(points)
norms = np.linalg.norm(score, axis=1) * np.linalg.norm(field, axis=1)
cosine = (score * field).sum(axis=1) / norms
print(f"cosine of the learned and the true score: median {np.median(cosine):.3f}")
assert np.median(cosine) > 0.95

# %%
# Samples
# -------
# Chains start at rows of the data. With the local covariance they go along the curve and stay on
# it. With as much noise in all directions alike, samples are off the curve by as much as that.


def distance(samples):
    """How far samples are from the curve, each."""
    return np.sqrt(np.square(samples[:, None] - curve).sum(axis=-1).min(axis=1))


def missed(samples):
    """The part of the curve that has no sample within three standard deviations."""
    squares = np.square(curve[:, None] - samples).sum(axis=-1)
    return (squares.min(axis=1) > (3 * sigma) ** 2).mean()


draws = {
    name: dae.sample(1000, init=X[:100], burn_in=100, method=method, random_state=0)
    for name, method in {
        "local covariance": "local_covariance",
        "isotropic noise": "isotropic",
        "Langevin steps": "langevin",
    }.items()
}
for name, samples in draws.items():
    off = distance(samples).mean()
    print(f"{name:16s}  off the curve by {off:.3f}, misses {missed(samples):.1%} of it")
off = {name: distance(samples).mean() for name, samples in draws.items()}
assert off["local covariance"] < 0.6 * off["isotropic noise"]
assert missed(draws["local covariance"]) < 0.1

# %%
# The pictures: the field, local covariances as ellipses, and samples.

import matplotlib.pyplot as plt
from matplotlib.patches import Ellipse

figure, axes = plt.subplots(2, 2, figsize=(9, 9), layout="constrained", sharex=True, sharey=True)
side = np.linspace(-2.2, 2.2, 31)
plane = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
arrows = dae.score_field(plane) * sigma**2
arrows *= np.minimum(1, 0.14 / np.linalg.norm(arrows, axis=1, keepdims=True))
ax = axes[0, 0]
ax.plot(*curve.T, color="tab:orange", linewidth=2)
ax.quiver(*plane.T, *arrows.T, angles="xy", scale_units="xy", scale=1, width=0.004)
ax.set_title("the score, shortened")

ax = axes[0, 1]
centers = curve[::20]
for center, covariance in zip(centers, dae.local_moments(centers).covariance, strict=True):
    values, vectors = np.linalg.eigh(covariance)
    width, height = 4 * np.sqrt(np.maximum(values[::-1], 0))
    angle = np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1]))
    ax.add_patch(Ellipse(center, width, height, angle=angle, fill=False, color="tab:blue"))
ax.set_title("local covariances, two standard deviations")

for ax, name in zip(axes[1], ["local covariance", "isotropic noise"], strict=True):
    ax.plot(*curve.T, color="tab:orange", linewidth=1)
    ax.scatter(*draws[name].T, s=3, color="tab:blue")
    ax.set_title(f"samples: {name}")
for ax in axes.flat:
    ax.set_aspect("equal")
plt.show()
