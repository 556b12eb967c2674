r"""
Tangents of a noisy circle: learned, and by local PCA
=====================================================

Rows lie near a circle in a space of 30 dimensions, so that the true tangent at each is known.
A contractive auto-encoder learns one function for all regions; local PCA looks at each row's
nearest neighbours and at nothing else. Claims, checked here on rows that were not learned from:

- local PCA of a fixed number of neighbours gets *worse* as rows are added, since the
  neighbours come closer together than the noise is wide; the learned tangents get better, and
  are far better at 1000 rows;
- with enough contraction they are then within a degree of local PCA with the best number of
  neighbours, which nobody could choose without the truth;
- they are not better than that: with few rows and much noise, and on a curve that bends more,
  local PCA wins by far once its neighbourhoods have the right size.
"""

import numpy as np

from skae import ContractiveAutoEncoder
from skae.diagnostics import local_pca_tangents, principal_angles, tangents

n_features, n_test = 30, 500


def circle(n_samples, rng):
    """Points of a circle whose columns have variance 1 on average, and their tangents."""
    angle = rng.uniform(0, 2 * np.pi, n_samples)
    plane = np.linalg.qr(rng.normal(size=(n_features, 2)))[0].T * np.sqrt(n_features / 2)
    slope = np.column_stack([-np.sin(angle), np.cos(angle)]) @ plane
    return np.column_stack([np.cos(angle), np.sin(angle)]) @ plane, slope[:, np.newaxis], plane


def fit(X, contraction):
    """One layer, for 1000 steps however many rows there are."""
    return ContractiveAutoEncoder(
        60,
        contraction=contraction,
        loss="squared_error",
        learning_rate=3e-3,
        learning_rate_schedule="linear",
        batch_size=50,
        max_iter=50_000 // len(X),
        n_iter_no_change=None,
        random_state=0,
    ).fit(X)


def error(found, truth):
    """Median angle between two directions, in degrees."""
    return np.degrees(np.median(principal_angles(found.directions, truth)))


def best_local_pca(X, query, truth):
    """The least error of any number of neighbours: nobody could choose it without the truth."""
    sizes = [k for k in (5, 10, 20, 40, 80, 160, 320) if k <= len(X) / 2]
    errors = [error(local_pca_tangents(X, 1, n_neighbors=k, query=query), truth) for k in sizes]
    return min(errors)


# %%
# Median angle to the true tangent. A random direction is 83 degrees off.

errors = {}
print("  rows  noise  local PCA of 20  local PCA, best    contraction 1    contraction 3")
for n_samples in (100, 1000):
    for noise in (0.1, 0.3, 0.6):
        rng = np.random.default_rng(0)
        clean, truth, _ = circle(n_samples + n_test, rng)
        X = clean + noise * rng.normal(size=clean.shape)
        train, test, truth = X[:n_samples], X[n_samples:], truth[n_samples:]
        row = (
            error(local_pca_tangents(train, 1, query=test), truth),
            best_local_pca(train, test, truth),
            *(error(tangents(fit(train, c), test, 1), truth) for c in (1, 3)),
        )
        errors[n_samples, noise] = row
        print(
            "{:>6}  {:5.1f}  {:16.1f}  {:16.1f}  {:14.1f}  {:14.1f}".format(n_samples, noise, *row)
        )

for noise in (0.1, 0.3, 0.6):
    fixed, best, _, learned = errors[1000, noise]
    assert learned < fixed / 3
    assert learned < best + 1
# More rows: worse for a fixed number of neighbours, better for the encoder.
for noise in (0.1, 0.3, 0.6):
    few, many = np.array(errors[100, noise]), np.array(errors[1000, noise])
    assert many[0] > few[0]
    assert many[2] < few[2]
# Few rows and much noise.
assert errors[100, 0.6][1] < min(errors[100, 0.6][2:])

# %%
# 1000 rows, noise 0.3, seen in the plane of the circle. An arrow is the projection of a
# direction of unit length: where it is short, most of the direction points out of the plane.

import matplotlib.pyplot as plt

rng = np.random.default_rng(0)
clean, truth, plane = circle(1000 + n_test, rng)
X = clean + 0.3 * rng.normal(size=clean.shape)
train, test = X[:1000], X[1000:1080]
found = {
    "local PCA of 20 neighbours": local_pca_tangents(train, 1, query=test),
    "contractive auto-encoder": tangents(fit(train, 1), test, 1),
}
axes_of_plane = plane / np.linalg.norm(plane, axis=1, keepdims=True)
radius = np.sqrt(n_features / 2)
figure, axes = plt.subplots(1, 2, figsize=(9, 4.6), sharex=True, sharey=True, layout="constrained")
for ax, (title, of_rows) in zip(axes, found.items(), strict=True):
    points, arrows = test @ axes_of_plane.T, of_rows.directions[:, 0] @ axes_of_plane.T
    # The sign of a tangent means nothing: counter-clockwise throughout.
    arrows *= np.sign(points[:, :1] * arrows[:, 1:] - points[:, 1:] * arrows[:, :1])
    ax.add_patch(plt.Circle((0, 0), radius, fill=False, color="0.8", linewidth=3, zorder=0))
    ax.quiver(
        *points.T, *arrows.T, angles="xy", scale_units="xy", scale=1, width=0.005, color="tab:blue"
    )
    ax.set_title(title)
    ax.set_aspect("equal")
    ax.set_axis_off()
plt.show()

# %%
# Limits
# ------
# A circle bends little: all its tangents lie in one plane. A bump that wanders over a ring of
# 30 sensors is a closed curve, too, but leaves every plane soon. One layer of sigmoid
# units is too smooth a function to follow it exactly, however many rows there are, and local PCA of
# rows that are dense enough is not.


def bump(n_samples, rng):
    """Readings of sensors on a ring, scaled to variance 1, and their derivative."""
    angle = rng.uniform(0, 2 * np.pi, n_samples)
    away = angle[:, np.newaxis] - 2 * np.pi * np.arange(n_features) / n_features
    reading = np.exp(4 * (np.cos(away) - 1))
    scale = reading.std(axis=0).mean()
    return reading / scale, (-4 * np.sin(away) * reading / scale)[:, np.newaxis]


rng = np.random.default_rng(0)
clean, truth = bump(1000 + n_test, rng)
X = clean + 0.1 * rng.normal(size=clean.shape)
train, test, truth = X[:1000], X[1000:], truth[1000:]
best, learned = best_local_pca(train, test, truth), error(tangents(fit(train, 1), test, 1), truth)
print(
    f"wandering bump, 1000 rows, noise 0.1: local PCA, best {best:.1f}, contractive {learned:.1f}"
)
assert best < learned
