r"""
The energy of a mixture, and the law of a chain
===============================================

An auto-encoder of one layer, with tied weights and real outputs, is the gradient of an energy, and
so a density:

.. math::

    r(x) - x = -\sigma^2 \frac{\partial E(x)}{\partial x}, \qquad p(x) = \frac{e^{-E(x)}}{Z}

Trained to undo Gaussian noise, it is that of rows with the noise. Without an energy there is
another density: the law of a chain, which is the mixture over all its states of what it may draw
next, with uncountably many components and no width to choose (Bengio et al. 2013). Here both are
set beside the truth, a mixture of three normal laws. Claims, checked here:

- the energy's density and the true one have more than 80 % in common;
- rows that a chain draws have about the moments of the data, after many steps, wherever it started;
- the chain's likelihood of new rows grows with the number of its states, and comes within half a
  nat of the true one.
"""

import numpy as np

from skae import DenoisingAutoEncoder

rng = np.random.default_rng(0)
means = np.array([[-1.5, -0.5], [0.5, 1.2], [1.2, -1.0]])
roots = np.array([[[0.5, 0.3], [0.0, 0.3]], [[0.5, -0.2], [0.0, 0.3]], [[0.3, 0.0], [0.2, 0.5]]])
shares = np.array([0.5, 0.3, 0.2])


def draw(n):
    """Rows of the mixture."""
    which = rng.choice(3, size=n, p=shares)
    return means[which] + np.einsum("nij,nj->ni", roots[which], rng.normal(size=(n, 2)))


def log_density(rows, noise=0.0):
    """The true one, of rows with so much noise."""
    terms = []
    for mean, root, share in zip(means, roots, shares, strict=True):
        covariance = root @ root.T + noise**2 * np.eye(2)
        square = np.einsum("ni,ij,nj->n", rows - mean, np.linalg.inv(covariance), rows - mean)
        constant = np.log(share / (2 * np.pi)) - 0.5 * np.linalg.slogdet(covariance)[1]
        terms.append(constant - 0.5 * square)
    return np.logaddexp.reduce(terms)


X, new = draw(4000), draw(1000)
sigma = 0.4
options = {
    "activation": "tanh",
    "loss": "squared_error",
    "corruption": "gaussian",
    "corruption_level": sigma,
    "learning_rate": 1e-2,
    "learning_rate_schedule": "cosine",
    "batch_size": 50,
    "max_iter": 60,
    "n_iter_no_change": None,
    "random_state": 0,
}
dae = DenoisingAutoEncoder(64, **options).fit(X)

# %%
# The energy
# ----------
# Its normaliser is summed over a grid.

log_partition = dae.log_partition_function()
side = np.linspace(-4, 4, 161)
plane = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
density = np.exp(dae.score_samples(plane, log_partition=log_partition))
truth = np.exp(log_density(plane, sigma))
in_common = np.minimum(density, truth).sum() * (side[1] - side[0]) ** 2
print(f"log Z {log_partition.value:.2f}; in common with the truth: {in_common:.1%}")
assert in_common > 0.8

# %%
# The chain
# ---------
# Chains start at the origin, where there are few data.

start = np.zeros((1000, 2))
samples = dae.sample(4000, init=start, burn_in=200, n_steps=20, random_state=0)
covariances = [np.cov(rows.T) for rows in (X, samples)]
apart = np.linalg.norm(samples.mean(axis=0) - X.mean(axis=0)) / X.std()
error = np.linalg.norm(covariances[1] - covariances[0]) / np.linalg.norm(covariances[0])
print(f"means apart by {apart:.2f} standard deviations, covariances by {error:.0%}")
assert apart < 0.3
assert error < 0.3

bounds = {}
for n_states in (10, 100, 1000, 10_000):
    scores = dae.chain_log_likelihood(new, n_states=n_states, random_state=0)
    bounds[n_states] = scores.mean()
true = log_density(new).mean()
print("log-likelihood of new rows:", {n: round(float(b), 2) for n, b in bounds.items()}, end=" ")
print(f"true {true:.2f}")
assert bounds[10] < bounds[10_000] - 0.1
assert true - 0.5 < bounds[10_000] < true

# %%
# Pictures: the density of the energy and the true one of noisy rows; rows of the data and of the
# chain. Moments are right, but both fill the gaps between the groups: where there are few data one
# layer of units has learned little, and the noise is as wide as the gaps.

import matplotlib.pyplot as plt

figure, axes = plt.subplots(2, 2, figsize=(8, 8), layout="constrained", sharex=True, sharey=True)
for ax, values, title in zip(
    axes[0], (density, truth), ("density of the energy", "true density, with noise"), strict=True
):
    ax.contourf(side, side, np.sqrt(values).reshape(161, 161), levels=12, cmap="Blues")
    ax.set_title(title)
for ax, rows, title in zip(
    axes[1], (samples, X), ("the chain, after many steps", "data"), strict=True
):
    ax.scatter(*rows[:2000].T, s=3, color="tab:blue")
    ax.set_title(title)
for ax in axes.flat:
    ax.set(aspect="equal", xlim=(-4, 4), ylim=(-4, 4))
plt.show()
