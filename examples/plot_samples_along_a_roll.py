r"""
Samples along a swiss roll
==========================

A denoising auto-encoder knows the density of its data. With Gaussian noise of standard deviation
:math:`\sigma`, its reconstruction is the mean of the clean row given a noisy one, and the Jacobian
of the reconstruction that row's covariance (Vincent 2011; Alain and Bengio 2014):

.. math::

    r(x) = \mathrm{E}[\text{clean row} \mid x], \qquad
    \sigma^2 \frac{\partial r(x)}{\partial x} = \mathrm{Cov}[\text{clean row} \mid x]

Both together draw samples: add noise, then draw from the normal law with these two moments, and so
on. Claims, checked here on a section through a swiss roll, a curve that is rolled up in the plane
(:ref:`sphx_glr_auto_examples_plot_denoising_vector_field.py` compares the score with the truth):

- local covariances are ellipses along the roll, several times as long as wide;
- samples by them stay on the roll, and reach nearly all of it;
- with as much noise in all directions alike, samples are off the roll by twice as much or more.
"""

import numpy as np
from sklearn.datasets import make_swiss_roll

from skae import DenoisingAutoEncoder

X, t = make_swiss_roll(3000, random_state=0)
X = X[:, [0, 2]] / 10
turns = np.linspace(t.min(), t.max(), 2000)
roll = np.c_[turns * np.cos(turns), turns * np.sin(turns)] / 10

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
# Local covariances
# -----------------
# Those of points along the roll, but for its ends, and the angles of their long axes with it.

centers, tangents = (part[100:-100:30] for part in (roll, np.gradient(roll, axis=0)))
values, vectors = np.linalg.eigh(dae.local_moments(centers).covariance)
lengths = np.sqrt(np.maximum(values[:, ::-1], 0))
tangents /= np.linalg.norm(tangents, axis=1, keepdims=True)
cosine = np.abs((vectors[:, :, 1] * tangents).sum(axis=1))
ratio = np.median(lengths[:, 0] / np.maximum(lengths[:, 1], 0.01))
print(f"long axes are {ratio:.0f} times as long as short ones; cosine with the roll", end=" ")
print(f"{np.median(cosine):.3f}")
assert ratio > 2
assert np.median(cosine) > 0.97

# %%
# Samples
# -------
# Chains start at rows of the data.


def distance(samples):
    """How far samples are from the roll, each."""
    return np.sqrt(np.square(samples[:, None] - roll).sum(axis=-1).min(axis=1))


def missed(samples):
    """The part of the roll that has no sample within three standard deviations."""
    squares = np.square(roll[:, None] - samples).sum(axis=-1)
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
    print(f"{name:16s}  off the roll by {off:.3f}, misses {missed(samples):.1%} of it")
off = {name: distance(samples).mean() for name, samples in draws.items()}
assert off["local covariance"] < 0.5 * off["isotropic noise"]
assert missed(draws["local covariance"]) < 0.1

# %%
# The pictures: local covariances as ellipses of two standard deviations, and samples.

import matplotlib.pyplot as plt
from matplotlib.patches import Ellipse

figure, axes = plt.subplots(1, 3, figsize=(11, 4), layout="constrained", sharex=True, sharey=True)
ax = axes[0]
for center, (long, short), axis in zip(centers, lengths, vectors[:, :, 1], strict=True):
    angle = np.degrees(np.arctan2(axis[1], axis[0]))
    ax.add_patch(Ellipse(center, 4 * long, 4 * short, angle=angle, fill=False, color="tab:blue"))
ax.set_title("local covariances")
for ax, name in zip(axes[1:], ["local covariance", "isotropic noise"], strict=True):
    ax.scatter(*draws[name].T, s=3, color="tab:blue")
    ax.set_title(f"samples: {name}")
for ax in axes:
    ax.plot(*roll.T, color="tab:orange", linewidth=1)
    ax.set_aspect("equal")
plt.show()
