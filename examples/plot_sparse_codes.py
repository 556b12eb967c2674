r"""
Explaining away: sparse codes of patches
========================================

A sparse code is the answer to a question about all atoms at once (Olshausen and Field 1996):

.. math::

    h(x) = \arg\min_h \tfrac{1}{2} \|x - h D\|^2 + \alpha \|h\|_1

Atoms compete: one that has explained a part of a patch leaves nothing of it to the others that
would fit as well. A feed-forward code looks at each atom by itself, so that all that fit answer.
Here is what the difference amounts to, for whitened patches of two photographs and 256 atoms that
:class:`~skae.SparseCoder` learns from them.

What follows is checked:

- atoms are local and oriented, more so than the patches themselves;
- at equal numbers of active atoms, two similar atoms are active together much more often under a
  soft threshold than in sparse codes;
- to reconstruct 80 % of the patches' variance, a soft threshold needs more than twice the atoms of
  sparse codes, and needs each code multiplied by the best factor, which sparse codes do not;
- how far a code is from the optimum can be checked by anyone: the duality gap is at most what
  was asked for.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_sample_images

from skae import PatchWhitener, SparseCoder
from skae.plots import FilterDisplay

EDGE, TOL = 8, 1e-4

rng = np.random.default_rng(0)
rows = []
for photograph in load_sample_images().images:
    grey = photograph.mean(axis=2)
    corners = rng.integers(0, np.array(grey.shape) - EDGE, size=(4500, 2))
    rows += [grey[r : r + EDGE, c : c + EDGE].ravel() for r, c in corners]
patches = rng.permutation(np.array(rows))
patches = PatchWhitener(epsilon=1.0, contrast=True, contrast_epsilon=0.01).fit_transform(patches)
train, test = patches[:8000].astype(np.float32), patches[8000:]

coder = SparseCoder(
    256,
    alpha=1.0,
    loss="squared_error",  # patches as they are: the whitening has scaled them
    optimizer="block",
    batch_size=256,
    max_iter=10,
    n_iter_no_change=None,
    inference_tol=TOL,
    random_state=0,
).fit(train)
atoms = coder.components_.astype(np.float64)

# %%
# Atoms
# -----
# Sixty-four of them. Learning began at patches, drawn at random; what has come of most of them are
# edges, bars and gratings; some are still noise, after so few patches.

FilterDisplay.from_estimator(coder, image_shape=(EDGE, EDGE), cmap="gray")
plt.show()


def extent(images):
    """Number of pixels that the energy of an image is spread over; the median over images."""
    share = images**2 / (images**2).sum(axis=1, keepdims=True)
    return np.median(1 / (share**2).sum(axis=1))


def selectivity(images):
    """1 where the spectrum has a single orientation, 0 where it has none; the median."""
    images = images.reshape(-1, EDGE, EDGE)
    power = np.abs(np.fft.fft2(images, s=(32, 32))) ** 2
    frequency = np.fft.fftfreq(32)
    angle = np.arctan2(frequency[:, np.newaxis], frequency)
    direction = (power * np.exp(2j * angle)).sum(axis=(1, 2)) / power.sum(axis=(1, 2))
    return np.median(np.abs(direction))


noise = np.random.default_rng(0).normal(size=(1000, EDGE**2))
for name, images in (("atoms", atoms), ("patches", test), ("noise", noise)):
    print(f"{name:8} extent {extent(images):5.1f} pixels, selectivity {selectivity(images):.2f}")
assert extent(atoms) < 0.85 * extent(test)
assert selectivity(atoms) > 1.25 * selectivity(test) > 1.25 * selectivity(noise)

# %%
# Codes of one patch
# ------------------
# The patch, what sparse codes make of it, and what a soft threshold of twice the alpha does; and
# the codes. What ``transform`` returns may be set after ``fit``: the dictionary is the same.


def codes(algorithm, alpha, images=test):
    """Codes by "lasso", the optimum, or by "threshold"."""
    return coder.set_params(transform_algorithm=algorithm, alpha=alpha).transform(images)


def best_multiple(images, reconstructions):
    """Each reconstruction times the factor that brings it nearest to its image."""
    square = (reconstructions**2).sum(axis=1, keepdims=True)
    factor = (images * reconstructions).sum(axis=1, keepdims=True) / np.where(square, square, 1)
    return factor * reconstructions


one = test[[np.argmax(np.abs(codes("lasso", 1.0)).max(axis=1))]]
figure, axes = plt.subplots(
    2, 3, figsize=(9, 4), layout="constrained", width_ratios=(1, 1, 4), sharey="col"
)
for line, algorithm, alpha in zip(axes, ("lasso", "threshold"), (1.0, 2.0), strict=True):
    code = codes(algorithm, alpha, one)
    for ax, image, title in zip(
        line, (one, best_multiple(one, code @ atoms)), ("patch", algorithm), strict=False
    ):
        ax.imshow(image.reshape(EDGE, EDGE), cmap="gray", vmin=one.min(), vmax=one.max())
        ax.set_title(title)
        ax.set_axis_off()
    line[2].stem(code[0], markerfmt=" ", basefmt="0.7")
    line[2].set_title(f"{np.count_nonzero(code)} of {len(atoms)} atoms")
plt.show()

# %%
# Errors and atoms
# ----------------
# A threshold leaves the sizes of codes to chance. So it is shown twice: as it is, and with the
# best factor for each patch, which only the patch itself can tell.

alphas = np.geomspace(0.3, 3, 9)
variance = (test**2).sum()
active, lost, together = {}, {}, {}
similar = np.argwhere(np.triu(np.abs(atoms @ atoms.T) > 0.4, k=1))
for algorithm in ("lasso", "threshold"):
    active[algorithm], together[algorithm] = [], []
    plain, scaled = [], []
    for alpha in alphas:
        code = codes(algorithm, alpha)
        plain.append(((test - code @ atoms) ** 2).sum() / variance)
        scaled.append(((test - best_multiple(test, code @ atoms)) ** 2).sum() / variance)
        active[algorithm].append((code != 0).sum(axis=1).mean())
        first, second = (code != 0)[:, similar].transpose(2, 0, 1)
        together[algorithm].append(2 * (first & second).sum() / (first.sum() + second.sum()))
    lost[algorithm], lost[f"{algorithm}, best factor"] = plain, scaled

figure, ax = plt.subplots(layout="constrained")
for name, curve in lost.items():
    if name != "lasso, best factor":
        ax.plot(active[name.split(",")[0]], curve, ".-", label=name)
ax.set(xlabel="active atoms", ylabel="part of the variance that is lost", yscale="log")
ax.legend()
plt.show()


def atoms_for(name, part):
    """Active atoms with which so large a part of the variance is lost."""
    assert lost[name][0] < part < lost[name][-1]
    return np.interp(part, lost[name], active[name.split(",")[0]])


for part in (0.4, 0.3, 0.2):
    few, many = atoms_for("lasso", part), atoms_for("threshold, best factor", part)
    print(f"{part:.0%} lost: sparse codes {few:.0f} atoms, threshold with best factor {many:.0f}")
    assert many > 1.15 * few
assert many > 2 * few
# As it is, no threshold gets below what sparse codes of a dozen atoms lose.
assert min(lost["threshold"]) > np.interp(12, active["lasso"][::-1], lost["lasso"][::-1])

# %%
# Explaining away
# ---------------
# Of two similar atoms, how often is the other one active where one is?


def both(algorithm, n_active):
    """That rate, where codes have so many active atoms."""
    return np.interp(n_active, active[algorithm][::-1], together[algorithm][::-1])


for n_active in (15, 40):
    rates = both("lasso", n_active), both("threshold", n_active)
    print(
        f"{len(similar)} similar pairs, codes of {n_active} atoms: both active at "
        f"{rates[0]:.0%} in sparse codes, {rates[1]:.0%} under a threshold"
    )
    assert rates[0] < 0.75 * rates[1]

# %%
# The certificate
# ---------------
# No code of a patch can have a smaller objective than the dual problem's value at any feasible
# point. The residual, scaled until no atom correlates with it by more than :math:`\alpha`, is one.

alpha = 1.0
code = codes("lasso", alpha)
residual = test - code @ atoms
objective = 0.5 * (residual**2).sum(axis=1) + alpha * np.abs(code).sum(axis=1)
dual = residual * np.minimum(1, alpha / np.abs(residual @ atoms.T).max(axis=1, keepdims=True))
bound = 0.5 * (test**2).sum(axis=1) - 0.5 * ((test - dual) ** 2).sum(axis=1)
gap = (objective - bound) / objective
print(f"largest relative gap: {gap.max():.1e}, asked for: {TOL:.0e}")
assert gap.max() <= TOL

# %%
# Limits
# ------
# - What is compared is reconstruction by few atoms. For a classifier that is no goal in itself,
#   and soft thresholds of a good dictionary can serve it as well (Coates and Ng 2011).
# - The best dictionary for thresholds is not this one, which was learned for sparse codes.
# - How much a threshold loses depends on how alike atoms are. Whitening the patches more fully
#   makes them less alike, and then it loses less.
