r"""
Missing halves of digits, filled in step by step
================================================

In a :class:`~skae.DeepRecurrentAutoEncoder` every hidden layer hears the one below and the one
above (Savard 2011). At the first step, a pass up, the lowest layer knows of a digit what is seen of
it. At the next ones it hears what the higher layers take the whole for.

Here the lower half of test digits of 8 x 8 pixels is missing. What follows is checked:

- the error in the missing half falls by more than 3 % from the first step to the last;
- the last step is better than an auto-encoder of one layer, with the units of the lowest one,
  that was trained for as long on the same gaps;
- it explains more than a fifth of what the mean of the training digits leaves of that half.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from skae import DeepRecurrentAutoEncoder, DenoisingAutoEncoder
from skae.plots import FilterDisplay

X = (load_digits().data / 16).astype(np.float32)
order = np.random.default_rng(0).permutation(len(X))
train, test = X[order[:1300]], X[order[1300:]]


def lose_halves(x, generator):
    """Corruption that blanks the upper or the lower half of each image."""
    upper = x.new_empty(len(x), 1).bernoulli_(0.5, generator=generator).bool()
    is_upper = (x.new_ones(x.shape[1]).cumsum(0) <= 32).unsqueeze(0)
    lost = is_upper == upper
    return x.masked_fill(lost, 0.0), lost


training = {
    "corruption": lose_halves,
    "loss": "bernoulli",
    "learning_rate": 3e-3,
    "max_iter": 50,
    "n_iter_no_change": None,
    "random_state": 0,
}
model = DeepRecurrentAutoEncoder((64, 64), n_steps=4, **training).fit(train)
shallow = DenoisingAutoEncoder(64, **training).fit(train)

# %%
# Errors by step
# --------------

seen = test.copy()
seen[:, 32:] = 0


def error(rows):
    """Mean squared error of the missing half."""
    return np.square(rows[:, 32:] - test[:, 32:]).mean()


steps = [model.denoise(seen, step=step) for step in range(4)]
errors = np.array([error(rows) for rows in steps])
of_mean = error(np.tile(train.mean(axis=0), (len(test), 1)))
of_shallow = error(shallow.reconstruct(seen))
print("errors of the missing half by step:", errors.round(4))
print(f"the mean of the digits {of_mean:.4f}, one layer {of_shallow:.4f}")
assert errors[-1] < 0.97 * errors[0]
assert errors[-1] < of_shallow
assert errors[-1] < 0.8 * of_mean

figure, ax = plt.subplots(figsize=(5, 3.2), layout="constrained")
ax.plot(range(1, 5), errors, "o-", label="recurrence")
ax.axhline(of_shallow, color="0.6", label="auto-encoder of one layer")
ax.set(xlabel="step", ylabel="squared error of a missing pixel", xticks=range(1, 5))
ax.legend()
plt.show()

# %%
# Completed digits
# ----------------

figure, axes = plt.subplots(1, 4, figsize=(12, 3.4), layout="constrained")
shown = {"test digits": test, "what is seen": seen, "first step": steps[0], "last step": steps[-1]}
for ax, (title, rows) in zip(axes, shown.items(), strict=True):
    FilterDisplay(2 * rows[:64].reshape(-1, 8, 8) - 1).plot(ax, cmap="gray_r")
    ax.set_title(title)
plt.show()

# %%
# Limits
# ------
# - A squared error favours means: where the upper half leaves open which digit it is, the lower
#   half that is filled in is a blend of several. Samples would be sharper, and further off.
# - The gaps of training are those of the test. Trained on single missing pixels, it would know less
#   of halves.
