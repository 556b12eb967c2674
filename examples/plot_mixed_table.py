r"""
A table of numbers, truth values and categories
===============================================

A data frame goes in as it is: its columns become numbers, zeros and ones, or one column for each
category, each with the units that suit it: Gaussian, Bernoulli, multinomial. The loss is their
common :math:`-\log P(x \mid r(x))`, in nats, so that columns of different kinds weigh what they
say, and neither scaler nor encoder nor imputer is needed. Claims, checked on rows that were held
out:

- reconstructions come back as a frame, with the names, units and types of the table;
- the score beats that of the marginal model, which predicts each column by its mean;
- a missing category is guessed from the other columns far better than by its frequencies, and
  nearly as well as is possible (over seeds 0 to 2: 79.4, 80.0, 77.7 % right; 79.7, 79.4, 78.4 % are
  possible, 40.4, 36.5, 37.1 % of rows have the most frequent one).
"""

import numpy as np
import pandas as pd
from scipy.special import expit, log_softmax, softmax
from sklearn.model_selection import train_test_split

from skae import DenoisingAutoEncoder

# %%
# The table
# ---------
# Two hidden factors drive four numbers of different scale, three truth values and one variable of
# four categories.

rng = np.random.default_rng(0)
n_samples = 4000
loadings = np.array([[9, 8, 0, -0.6], [0, 6, 12, 0.8]])
center, noise = np.array([170, 70, 120, 5]), np.array([3, 4, 5, 0.3])
binary_loadings = np.array([[3, 0, 2], [0, 3, -2]])
category_loadings = np.array([[3, -3, 0, 0], [0, 3, -3, 0]])

factors = rng.normal(size=(n_samples, 2))
real = center + factors @ loadings + noise * rng.normal(size=(n_samples, 4))
binary = rng.random((n_samples, 3)) < expit(factors @ binary_loadings)
category = [rng.choice(4, p=p) for p in softmax(factors @ category_loadings, axis=1)]

NUMBERS, FLAGS = ["height", "weight", "pressure", "sugar"], ["smokes", "drinks", "runs"]
REGIONS = np.array(["east", "north", "south", "west"])
table = pd.DataFrame(real, columns=NUMBERS)
table[FLAGS] = binary
table["region"] = pd.Categorical(REGIONS[category])
train, test = train_test_split(table, random_state=0)

dae = DenoisingAutoEncoder(
    32,
    tied_weights=False,
    learning_rate=5e-3,
    learning_rate_schedule="cosine",
    batch_size=50,
    max_iter=60,
    n_iter_no_change=None,
    random_state=0,
).fit(train)

# %%
# What comes back
# ---------------
# Numbers in their own units, truth values, and categories.

print(dae.encoding_.names)
reconstructions = dae.reconstruct(test)
print(test.head(3))
print(reconstructions.head(3))
assert (reconstructions.dtypes == table.dtypes).all()

correlations = [np.corrcoef(test[name], reconstructions[name])[0, 1] for name in NUMBERS]
print("correlation of numbers with their reconstructions", np.round(correlations, 2))
assert min(correlations) > 0.8

# %%
# Score
# -----
# The marginal model is a Gaussian, a coin or a frequency table for each column by itself. Scores
# are log-densities of the numbers in their own units, whatever the network sees of them.


def marginal_score(train, test):
    """Mean log-likelihood of the test rows, in nats, columns taken as independent."""
    scale = train[NUMBERS].std()
    z = (test[NUMBERS] - train[NUMBERS].mean()) / scale
    score = -(0.5 * z**2 + np.log(scale) + 0.5 * np.log(2 * np.pi)).sum(axis=1)
    p = train[FLAGS].mean()
    score += np.log(np.where(test[FLAGS], p, 1 - p)).sum(axis=1)
    frequencies = train["region"].value_counts(normalize=True)
    return (score + np.log(test["region"].map(frequencies).astype(float))).mean()


print(f"marginal model {marginal_score(train, test):7.2f} nats per row")
print(f"auto-encoder   {dae.score(test):7.2f} nats per row")
assert dae.score(test) > marginal_score(train, test) + 3

# %%
# A missing variable
# ------------------
# The score above judges a reconstruction of what the code has seen. Here the region is missing: it
# is no input, and its reconstruction a guess. The best guess is the most probable region given the
# other columns, :math:`P(\text{region} \mid \text{others})`, an integral over the two factors.

guessed = dae.reconstruct(test.assign(region=None))["region"]

side = np.linspace(-4, 4, 81)
grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
log_weight = -0.5 * np.square(grid).sum(axis=1)
z = (test[NUMBERS].to_numpy()[:, None] - center - grid @ loadings) / noise
logits = grid @ binary_loadings
log_weight = log_weight - 0.5 * np.square(z).sum(axis=-1)
log_weight += test[FLAGS].to_numpy(dtype=float) @ logits.T - np.logaddexp(0, logits).sum(axis=1)
exact = softmax(log_weight, axis=1) @ np.exp(log_softmax(grid @ category_loadings, axis=1))

truth = test["region"].astype(str).to_numpy()
right = {
    "most frequent": (truth == train["region"].mode()[0]).mean(),
    "auto-encoder": (truth == guessed.astype(str).to_numpy()).mean(),
    "best possible": (truth == REGIONS[exact.argmax(axis=1)]).mean(),
}
for name, part in right.items():
    print(f"{name:<14} {part:.1%} of the regions")
gain = right["best possible"] - right["most frequent"]
assert right["auto-encoder"] - right["most frequent"] > 0.85 * gain

# %%
import matplotlib.pyplot as plt

figure, ax = plt.subplots(layout="constrained")
ax.barh([*right], [*right.values()])
ax.set_xlabel("missing regions guessed right")
plt.show()

# %%
# Limits
# ------
# ``score`` is :math:`\log P(x \mid r(x))` with :math:`r` computed from the same :math:`x`: it
# compares auto-encoders of equal code size, but it is not a density of the table, and a code
# wide enough can raise it by copying. Gaussian units keep the standard deviation of their
# column: a perfect reconstruction of a number gains half a nat on average, no more.
