r"""
A denoising auto-encoder points towards the data
================================================

Trained to undo small Gaussian noise of standard deviation :math:`\sigma`, an auto-encoder
learns a vector field: :math:`r(x) - x` points to where the data are denser. For squared error
and any :math:`\sigma` the best possible reconstruction is known (Vincent 2011; Alain and
Bengio 2014):

.. math:: r^*(x) - x = \sigma^2 \, \frac{\partial \log p_\sigma(x)}{\partial x}

where :math:`p_\sigma` is the density of the corrupted data. The data here are points on a
spiral, so that both the direction to the curve and :math:`p_\sigma` can be computed, and the
learned field is compared with them.
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
# Test points lie off the curve, at distances that the noise reaches and a little beyond:
# between half a standard deviation and two and a half.

inner = curve[50:-50]
tangent = np.gradient(inner, axis=0)
normal = np.c_[-tangent[:, 1], tangent[:, 0]]
normal /= np.linalg.norm(normal, axis=1, keepdims=True)
offset = rng.choice([-1, 1], len(inner)) * rng.uniform(0.5, 2.5, len(inner)) * sigma
points = inner + offset[:, None] * normal

squared_distance = np.square(points[:, None] - curve).sum(axis=-1)
to_curve = curve[squared_distance.argmin(axis=1)] - points
# The mean of the clean point given the corrupted one: r*.
posterior = np.exp(-squared_distance / (2 * sigma**2))
optimum = posterior @ curve / posterior.sum(axis=1, keepdims=True) - points
field = dae.reconstruct(points) - points


def cosine(a, b):
    """Of the angle between the rows of a and b."""
    return (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


print(f"cosine with the direction to the curve: mean {cosine(field, to_curve).mean():.3f}")
print(f"cosine with the exact score:            mean {cosine(field, optimum).mean():.3f}")
print(f"slope of |r(x) - x| against the truth:  {(field * optimum).sum() / (optimum**2).sum():.3f}")
assert cosine(field, to_curve).mean() > 0.95
assert cosine(field, optimum).mean() > 0.95

# %%
# The field over the plane, arrows no longer than 0.12:

import matplotlib.pyplot as plt

side = np.linspace(-2.2, 2.2, 37)
plane = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
arrows = dae.reconstruct(plane) - plane
arrows *= np.minimum(1, 0.12 / np.linalg.norm(arrows, axis=1, keepdims=True))
figure, ax = plt.subplots(figsize=(6.4, 6.4), layout="constrained")
ax.plot(*curve.T, color="tab:orange", linewidth=3, label="where the data lie")
ax.quiver(*plane.T, *arrows.T, angles="xy", scale_units="xy", scale=1, width=0.003)
ax.set_aspect("equal")
ax.set_title("r(x) - x")
ax.legend(loc="upper right")
plt.show()

# %%
# Limits
# ------
# The field is learned where corrupted data fall. Farther out the network extrapolates, and
# what it does there is a property of its activation, not of the data. relu is linear far away,
# which here happens to point back.

away = rng.uniform(-3, 3, size=(5000, 2))
squared_distance = np.square(away[:, None] - curve).sum(axis=-1)
away, squared_distance = (
    a[squared_distance.min(axis=1) > 0.5**2] for a in (away, squared_distance)
)
to_curve = curve[squared_distance.argmin(axis=1)] - away
field = dae.reconstruct(away) - away
lengths = np.linalg.norm(field, axis=1) / np.linalg.norm(to_curve, axis=1)
print(
    f"beyond 5 sigma: cosine {cosine(field, to_curve).mean():.3f}, "
    f"length {lengths.mean():.2f} of the distance"
)

# %%
# The shape of the network matters as well: in two dimensions a single layer of sigmoid units
# with tied weights is too smooth a function to follow the turns of this spiral.

shallow = DenoisingAutoEncoder(
    200,
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
field = shallow.reconstruct(points) - points
print(f"one sigmoid layer: cosine with the exact score {cosine(field, optimum).mean():.3f}")
