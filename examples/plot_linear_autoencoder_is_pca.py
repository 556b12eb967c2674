r"""
A linear auto-encoder finds PCA's subspace
==========================================

An auto-encoder with linear code and squared error can do no better than project onto the
leading principal components (Bourlard and Kamp 1988; Baldi and Hornik 1989). So PCA is the
known truth here, and this example checks the whole chain of objective, gradient and
optimiser against it, on wines with thirteen measurements each:

- the decoder of two units spans the plane of the first two principal components, up to a degree;
- the reconstruction error is the same, up to a thousandth;
- with tied weights the filters are orthonormal, although nothing asks for it;
- codes are the principal components, but for a rotation of the plane.
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy.linalg import orthogonal_procrustes, subspace_angles
from sklearn.datasets import load_wine
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from skae import AutoEncoder

wine, grower = load_wine(return_X_y=True, as_frame=True)
wine = wine.rename(columns={"od280/od315_of_diluted_wines": "od280/od315"})
X = StandardScaler().fit_transform(wine)
n_components = 2

pca = PCA(n_components).fit(X)
settings = dict(
    activation="linear",
    loss="squared_error",
    learning_rate=0.02,
    learning_rate_schedule="cosine",
    batch_size=30,
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
    print(f"{name:>6}: larger of the two principal angles {angles.max():.3f} degrees")
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
# The plane
# ---------
# Wines by both codes, and arrows for the columns: how far a unit of each moves the code. The
# pictures are the same but for a turn (or a mirror), since the loss fixes the plane and not the
# axes in it.

planes = {
    "principal components": (pca.transform(X), pca.components_),
    "codes of the tied auto-encoder": (tied.transform(X), tied.components_),
}
figure, axes = plt.subplots(1, 2, figsize=(9, 4.4), layout="constrained")
for ax, (name, (codes, filters)) in zip(axes, planes.items(), strict=True):
    codes = codes - codes.mean(axis=0)
    ax.scatter(*codes.T, c=grower, cmap="Set2", s=12)
    for column, end in zip(wine.columns, 6 * filters.T, strict=True):
        if np.hypot(*end) > 2.2:
            ax.plot([0, end[0]], [0, end[1]], color="0.2", lw=1)
            ax.annotate(column, end, fontsize=7, ha="center")
    ax.set(title=name, aspect="equal", xlim=(-5.5, 5.5), ylim=(-5.5, 5.5))
plt.show()

ours, theirs = (codes - codes.mean(axis=0) for codes, _ in planes.values())
turn, _ = orthogonal_procrustes(theirs, ours)
rest = np.square(theirs @ turn - ours).sum() / np.square(ours).sum()
print(f"turned upon each other, the codes differ by {rest:.1e} of their variance")
assert rest < 1e-3

# %%
# Limits
# ------
# Units come in no order of importance, and each is a mixture of PCA's. Untied weights fix no more
# than the product of encoder and decoder, so that its filters are neither orthogonal nor of norm 1:

gram = untied.components_ @ untied.components_.T
print("products of untied filters", *gram.round(2).tolist())

# %%
# And if a linear code is what is wanted, PCA is exact and faster.
