r"""
A linear auto-encoder finds PCA's subspace
==========================================

An auto-encoder with linear code and squared error can do no better than project onto the
leading principal components (Bourlard and Kamp 1988; Baldi and Hornik 1989). So PCA is the
known truth here, and this example checks the whole chain of objective, gradient and
optimiser against it: the two subspaces must coincide.
"""

import numpy as np
from scipy.linalg import subspace_angles
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from skae import AutoEncoder

X = load_digits().data / 16
n_components = 10

pca = PCA(n_components).fit(X)
settings = dict(
    activation="linear",
    loss="squared_error",
    learning_rate=0.02,
    learning_rate_schedule="cosine",
    batch_size=100,
    max_iter=300,
    n_iter_no_change=None,
    random_state=0,
)
tied = AutoEncoder(n_components, **settings).fit(X)
untied = AutoEncoder(n_components, tied_weights=False, **settings).fit(X)

# %%
# The principal angles between two subspaces are all 0 where the subspaces coincide. The
# *decoder* is compared: it is what spans the reconstructions.

for name, model in {"tied": tied, "untied": untied}.items():
    angles = np.degrees(subspace_angles(model.decoder_components_.T, pca.components_.T))
    print(f"{name:>6}: largest of {n_components} principal angles {angles.max():.3f} degrees")
    assert angles.max() < 1

# %%
# The reconstruction errors agree as well. That of PCA is a lower bound.


def squared_error(model):
    """Mean squared distance of the rows to their reconstructions."""
    return np.square(X - model.inverse_transform(model.transform(X))).sum(axis=1).mean()


for name, model in {"PCA": pca, "tied": tied, "untied": untied}.items():
    print(f"{name:>6}: squared error {squared_error(model):.5f} per row")
    assert squared_error(pca) - 1e-9 <= squared_error(model) < 1.001 * squared_error(pca)

# %%
# With tied weights the minimum has one more property: the filters are orthonormal, although
# nothing asks for it.

gram = tied.components_ @ tied.components_.T
print(f"largest deviation from orthonormal filters: {abs(gram - np.eye(n_components)).max():.4f}")
assert np.allclose(gram, np.eye(n_components), atol=0.02)

# %%
# Limits
# ------
# The loss fixes the subspace, not the axes in it: single filters are a rotation of PCA's, and
# they come in no order of importance. The rows of the *untied* encoder need not lie in the
# subspace either, as pixels that hardly vary hardly move their weights away from the random
# start:

angles = np.degrees(subspace_angles(untied.components_.T, pca.components_.T))
print(f"untied encoder: largest principal angle {angles.max():.1f} degrees")

# %%
# And if a linear code is what is wanted, PCA is exact and faster.

import matplotlib.pyplot as plt

from skae.plots import FilterDisplay

figure, axes = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
FilterDisplay(pca.components_.reshape(-1, 8, 8)).plot(axes[0])
FilterDisplay.from_estimator(tied, ax=axes[1])
axes[0].set_title("principal components")
axes[1].set_title("filters of the tied auto-encoder")
plt.show()
