r"""
A topographic map of filters
============================

Sparse coding draws its atoms in no order. Predictive sparse decomposition with ``group_shape``
penalises codes by neighbourhoods :math:`N_g` on a map,

.. math::

    \alpha \sum_g \sqrt{\sum_{j \in N_g} h_j^2}

so that a unit costs little where its neighbours are active already (Kavukcuoglu, Ranzato, Fergus
and LeCun 2009). Units that tend to be active for the same inputs come to lie side by side, as do
the orientations in the visual cortex. Here the inputs are patches of two photographs, and the map
is a torus of 12 x 12 units with neighbourhoods of 3 x 3.

What follows is checked:

- the sizes :math:`|h|` of neighbours are more alike than those of random pairs, whether codes
  come from the encoder or from inference, and so are the atoms themselves;
- the likeness falls with the distance on the map;
- the same model without groups has no such order.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_sample_images

from skae import PSD

SIDE, EDGE = 12, 10

rng = np.random.default_rng(0)
rows = []
for photograph in load_sample_images().images:
    grey = photograph.mean(axis=2)
    corners = rng.integers(0, np.array(grey.shape) - EDGE, size=(4000, 2))
    rows += [grey[r : r + EDGE, c : c + EDGE].ravel() for r, c in corners]
patches = np.array(rows)
patches -= patches.mean(axis=1, keepdims=True)
patches /= patches.std(axis=1, keepdims=True) + 10
# Whitened (ZCA): neighbouring pixels no longer say the same.
variance, direction = np.linalg.eigh(np.cov(patches.T))
patches = patches @ (direction / np.sqrt(variance + 0.3)) @ direction.T
X = patches.astype(np.float32)

settings = {
    "learning_rate": 1e-2,
    "learning_rate_schedule": "cosine",
    "max_iter": 10,
    "inference_tol": 1e-2,
    "random_state": 0,
}
ordered = PSD(SIDE**2, alpha=0.4, group_shape=3, map_shape=(SIDE, SIDE), **settings).fit(X)
unordered = PSD(SIDE**2, alpha=1.5, **settings).fit(X)

# %%
# The atoms, where they lie on the map. Left and right edge are neighbours, as are top and bottom.

figure, axes = plt.subplots(1, 2, figsize=(10, 5.2), layout="constrained")
for ax, model, title in zip(axes, (ordered, unordered), ("groups", "no groups"), strict=True):
    atoms = model.decoder_components_
    atoms = atoms / np.abs(atoms).max(axis=1, keepdims=True)
    grid = np.pad(atoms.reshape(SIDE, SIDE, EDGE, EDGE), [(0, 0), (0, 0), (0, 1), (0, 1)])
    ax.imshow(grid.swapaxes(1, 2).reshape(SIDE * (EDGE + 1), -1), cmap="gray", vmin=-1, vmax=1)
    ax.set_title(title)
    ax.set_axis_off()
plt.show()

# %%
# Likeness against distance on the torus.

place = np.stack(np.divmod(np.arange(SIDE**2), SIDE), axis=1)
apart = np.abs(place[:, None] - place)
distance = np.minimum(apart, SIDE - apart).max(axis=2)


def by_distance(likeness):
    """The mean over pairs of units at each distance from 1."""
    return np.array([likeness[distance == d].mean() for d in range(1, SIDE // 2 + 1)])


def code_likeness(model, inference):
    """Correlation of |h| between units."""
    sizes = np.abs(model.set_params(inference=inference).transform(X[::4]))
    return np.corrcoef(sizes.T)


def filter_likeness(model):
    """Correlation of atoms' amplitude spectra: alike in orientation and frequency."""
    images = model.decoder_components_.reshape(-1, EDGE, EDGE)
    spectra = np.abs(np.fft.fft2(images, s=(2 * EDGE, 2 * EDGE))).reshape(len(images), -1)
    spectra -= spectra.mean(axis=0)
    return np.corrcoef(spectra)


curves = {
    "|code| of the encoder": code_likeness(ordered, "encoder"),
    "|code| by inference": code_likeness(ordered, "optimal"),
    "spectra of the atoms": filter_likeness(ordered),
    "|code|, no groups": code_likeness(unordered, "encoder"),
}
figure, ax = plt.subplots(layout="constrained")
for name, likeness in curves.items():
    curve = by_distance(likeness)
    ax.plot(range(1, len(curve) + 1), curve, ".-", label=name)
    print(f"{name:22} " + " ".join(f"{value:6.3f}" for value in curve))
ax.set_xlabel("distance on the map")
ax.set_ylabel("correlation")
ax.legend()
plt.show()

# %%
# The claims, checked. A random pair is a pair of any two units.

others = ~np.eye(SIDE**2, dtype=bool)
for name in list(curves)[:3]:
    curve, random_pair = by_distance(curves[name]), curves[name][others].mean()
    print(f"{name:22} neighbours {curve[0]:.3f}, random pairs {random_pair:.3f}")
    # Neighbours are alike ...
    assert curve[0] > random_pair + 0.1
    # ... units in the next but one neighbourhood less, far ones not at all.
    assert curve[0] > curve[1] > curve[3]
    assert abs(curve[-1] - random_pair) < 0.1
# Without groups, the map is in no order.
unordered_curve = by_distance(curves["|code|, no groups"])
assert abs(unordered_curve[0] - curves["|code|, no groups"][others].mean()) < 0.03
