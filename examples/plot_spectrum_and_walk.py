r"""
How a contractive code falls off, and where its tangents lead
=============================================================

The singular values of the Jacobian :math:`\partial h / \partial x` tell in how many directions a
code follows its input. Claims, checked here on digits that the models have not seen:

- the spectrum of a contractive auto-encoder falls fastest: fewer directions hold nine tenths of
  the squared norm than for a plain or a denoising one (Rifai et al., ICML 2011);
- its units are the most saturated, which is how it gets there;
- its leading directions are tangents: a step along them stays closer to digits that no model has
  seen than a step of the same length along a random direction, and the decoded step closer
  still.
"""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neighbors import NearestNeighbors

from skae import AutoEncoder, ContractiveAutoEncoder, DenoisingAutoEncoder
from skae.diagnostics import jacobian_spectrum, local_rank, saturation, tangents
from skae.plots import SaturationDisplay, SpectrumDisplay, TangentWalkDisplay

X, y = load_digits(return_X_y=True)
X_train, X_test = train_test_split(X / 16, test_size=0.5, stratify=y, random_state=0)

training = dict(
    learning_rate=3e-3,
    learning_rate_schedule="linear",
    batch_size=50,
    max_iter=100,
    n_iter_no_change=None,
    random_state=0,
)
models = {
    "plain": AutoEncoder(128, **training),
    "denoising": DenoisingAutoEncoder(128, corruption="gaussian", corruption_level=0.3, **training),
    "contractive": ContractiveAutoEncoder(128, contraction=1, **training),
}
for model in models.values():
    model.fit(X_train)

# %%
# `rank` is the number of directions that hold 90 % of the squared norm of the Jacobian, in the
# mean over rows; saturated is the share of code values below 0.05 or above 0.95.

ranks, saturated = {}, {}
print("model         rank   saturated")
for name, model in models.items():
    ranks[name] = local_rank(jacobian_spectrum(model, X_test)).mean()
    saturated[name] = saturation(model.transform(X_test)).mean()
    print(f"{name:<12} {ranks[name]:5.1f}  {saturated[name]:10.1%}")

assert ranks["contractive"] < 0.5 * min(ranks["plain"], ranks["denoising"])
assert saturated["contractive"] > 2 * max(saturated["plain"], saturated["denoising"])

# %%
# The fall of the spectrum, and where the values of the codes lie:

import matplotlib.pyplot as plt

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
SpectrumDisplay.from_estimators(models, X_test[:300], ax=left)
SaturationDisplay.from_estimators(models, X_test, ax=right)
plt.show()

# %%
# From three digits along the first two tangents of each, by straight steps and decoded. So strong a
# contraction reconstructs with less contrast, but what it draws has the strokes of digits.

cae = models["contractive"]
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.1), layout="constrained")
for ax, decode in ((left, False), (right, True)):
    TangentWalkDisplay.from_estimator(cae, X_test, n_images=3, n_tangents=2, decode=decode, ax=ax)
left.set_title("x + t u", pad=18)
right.set_title("its reconstruction", pad=18)
plt.show()

# %%
# How far from data is the end of a step? The distance is that to the nearest of the digits
# that neither trained the model nor are walked from, in the mean over rows and five tangents.
# A step of 0 has the distance of the row itself.

start, others = X_test[:300], X_test[300:]
neighbours = NearestNeighbors(n_neighbors=1).fit(others)
along = tangents(cae, start, 5).directions
across = np.random.default_rng(0).normal(size=along.shape)


def distance(directions, step, *, decode):
    """From data, after a step along each direction, decoded or not."""
    units = directions / np.linalg.norm(directions, axis=2, keepdims=True)
    ends = (start[:, np.newaxis] + step * units).reshape(-1, X.shape[1])
    return neighbours.kneighbors(cae.reconstruct(ends) if decode else ends)[0].mean()


distances = {
    "tangents, decoded": [distance(along, t, decode=True) for t in (0, 1, 2, 3)],
    "tangents": [distance(along, t, decode=False) for t in (0, 1, 2, 3)],
    "random": [distance(across, t, decode=False) for t in (0, 1, 2, 3)],
}
print("step                  0     1     2     3")
for name, row in distances.items():
    print(f"{name:<18}", "  ".join(f"{value:.2f}" for value in row))

decoded, straight, random = (np.array(row[1:]) for row in distances.values())
assert (decoded < straight).all()
assert (straight < random).all()

# %%
# Limits
# ------
# To be close to data is easy for who does not move. A decoded step along a random direction ends
# near data as well, because the code ignores most of it and the reconstruction returns to where
# it came from. The tangents are the directions in which the decoded row does move:


def moved(directions, step=2):
    """How far the reconstruction gets from that of the start."""
    units = directions / np.linalg.norm(directions, axis=2, keepdims=True)
    ends = cae.reconstruct((start[:, np.newaxis] + step * units).reshape(-1, X.shape[1]))
    begin = np.repeat(cae.reconstruct(start), directions.shape[1], axis=0)
    return np.linalg.norm(ends - begin, axis=1).mean()


print(f"a step of 2 moves the reconstruction by {moved(along):.2f} along tangents,")
print(f"by {moved(across):.2f} along random directions")
assert moved(along) > 2 * moved(across)
