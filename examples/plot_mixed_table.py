r"""
A table of real, binary and categorical columns
===============================================

``loss`` as a list gives every column the units that suit it: Gaussian for real columns,
Bernoulli for binary ones, multinomial for each one-hot variable. The loss is their common
:math:`-\log P(x \mid r(x))`, in nats, so that columns of different kinds weigh what they say
and no scaler is needed. Claims, checked on rows that were held out:

- reconstructions come back in the units of the table;
- the score beats that of the marginal model, which predicts each column by its mean;
- a masked variable is predicted from the others better than by its frequencies, and not far
  from as well as is possible.
"""

import numpy as np
from scipy.special import expit, log_softmax, softmax
from sklearn.model_selection import train_test_split

from skae import DenoisingAutoEncoder

# %%
# The table
# ---------
# Two hidden factors drive four real columns of different scale, three binary columns and one
# variable of four categories.

rng = np.random.default_rng(0)
n_samples = 4000
loadings = np.array([[9, 8, 0, -0.6], [0, 6, 12, 0.8]])
center, noise = np.array([170, 70, 120, 5]), np.array([3, 4, 5, 0.3])
binary_loadings = np.array([[3, 0, 2], [0, 3, -2]])
category_loadings = np.array([[3, -3, 0, 0], [0, 3, -3, 0]])

factors = rng.normal(size=(n_samples, 2))
real = center + factors @ loadings + noise * rng.normal(size=(n_samples, 4))
binary = (rng.random((n_samples, 3)) < expit(factors @ binary_loadings)).astype(float)
category = np.array([rng.multinomial(1, p) for p in softmax(factors @ category_loadings, axis=1)])
X = np.hstack([real, binary, category])
X_train, X_test = train_test_split(X, random_state=0)

REAL, BINARY, CATEGORY = slice(0, 4), slice(4, 7), slice(7, 11)
dae = DenoisingAutoEncoder(
    32,
    loss=[("gaussian", REAL), ("bernoulli", BINARY), ("multinomial", CATEGORY)],
    tied_weights=False,
    learning_rate=5e-3,
    learning_rate_schedule="cosine",
    batch_size=50,
    max_iter=60,
    n_iter_no_change=None,
    random_state=0,
).fit(X_train)

# %%
# Units
# -----
# Real columns are reconstructed around their own means, binary ones as probabilities, the
# categories as probabilities that sum to one.

np.set_printoptions(precision=2, suppress=True)
reconstructions = dae.reconstruct(X_test)
print("a row            ", X_test[0])
print("its reconstruction", reconstructions[0])

correlations = [np.corrcoef(X_test[:, i], reconstructions[:, i])[0, 1] for i in range(4)]
print("correlation of real columns with their reconstructions", np.array(correlations))
assert min(correlations) > 0.8
assert ((reconstructions[:, BINARY] > 0) & (reconstructions[:, BINARY] < 1)).all()
assert np.allclose(reconstructions[:, CATEGORY].sum(axis=1), 1)

# %%
# Score
# -----
# The marginal model is a Gaussian, a coin or a frequency table for each column by itself.


def marginal_score(X_train, X_test):
    """Mean log-likelihood of the test rows, in nats, columns taken as independent."""
    mean, scale = X_train[:, REAL].mean(axis=0), X_train[:, REAL].std(axis=0)
    z = (X_test[:, REAL] - mean) / scale
    score = -(0.5 * z**2 + np.log(scale) + 0.5 * np.log(2 * np.pi)).sum(axis=1)
    p = X_train[:, BINARY].mean(axis=0)
    x = X_test[:, BINARY]
    score += (x * np.log(p) + (1 - x) * np.log(1 - p)).sum(axis=1)
    score += X_test[:, CATEGORY] @ np.log(X_train[:, CATEGORY].mean(axis=0))
    return score.mean()


print(f"marginal model {marginal_score(X_train, X_test):7.2f} nats per row")
print(f"auto-encoder   {dae.score(X_test):7.2f} nats per row")
assert dae.score(X_test) > marginal_score(X_train, X_test) + 3

# %%
# A masked variable
# -----------------
# The score above judges a reconstruction of what the code has seen. Here the category is hidden
# from it: its columns are set to 0, as the masking in training does. The exact answer,
# :math:`P(\text{category} \mid \text{other columns})`, is an integral over the two factors.

masked = X_test.copy()
masked[:, CATEGORY] = 0
predicted = dae.reconstruct(masked)[:, CATEGORY]

side = np.linspace(-4, 4, 81)
grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
log_weight = -0.5 * np.square(grid).sum(axis=1)
z = (X_test[:, None, REAL] - center - grid @ loadings) / noise
logits = grid @ binary_loadings
log_weight = log_weight - 0.5 * np.square(z).sum(axis=-1)
log_weight += X_test[:, BINARY] @ logits.T - np.logaddexp(0, logits).sum(axis=1)
exact = softmax(log_weight, axis=1) @ np.exp(log_softmax(grid @ category_loadings, axis=1))


def nats(probability):
    """Mean log-probability of the true category."""
    return (X_test[:, CATEGORY] * np.log(probability)).sum(axis=1).mean()


frequencies = nats(X_train[:, CATEGORY].mean(axis=0))
print(f"frequencies  {frequencies:6.3f} nats")
print(f"auto-encoder {nats(predicted):6.3f} nats")
print(f"exact        {nats(exact):6.3f} nats")
assert frequencies < nats(predicted) <= nats(exact) + 0.02
assert nats(predicted) - frequencies > 0.7 * (nats(exact) - frequencies)

# %%
import matplotlib.pyplot as plt

figure, ax = plt.subplots(layout="constrained")
ax.scatter(exact.ravel(), predicted.ravel(), s=4, alpha=0.3)
ax.plot([0, 1], [0, 1], color="black", linewidth=1)
ax.set_xlabel("exact probability of a category given the other columns")
ax.set_ylabel("auto-encoder's")
ax.set_aspect("equal")
plt.show()

# %%
# Limits
# ------
# ``score`` is :math:`\log P(x \mid r(x))` with :math:`r` computed from the same :math:`x`: it
# compares auto-encoders of equal code size, but it is not a density of the table, and a code
# wide enough can raise it by copying. Gaussian units keep the standard deviation of their
# column: a perfect reconstruction of a real column gains half a nat on average, no more.
