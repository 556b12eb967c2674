"""
Probabilities that know what few labels leave open
==================================================

Trained on few labels, a classifier finds the parameters that explain them best, and believes them:
its probabilities are too sure. :class:`~skae.PosteriorEnsemble` draws parameters from the law that
the criterion is the energy of, and averages. Claims, checked on tumours of the breast with 30
labels, over ten draws of these:

- the probabilities of the average are better calibrated than those of the trained parameters:
  their distance from how often they come true is smaller by a third at least;
- so its log-loss on new rows is lower on average.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split

from skae import PosteriorEnsemble, StackedClassifier

X, y = load_breast_cancer(return_X_y=True)
N_LABELS, N_SPLITS = 30, 10

# %%
# A trained model, and draws of its parameters
# --------------------------------------------
# The output is a logistic regression on the codes of an auto-encoder, with a weak penalty: a normal
# prior of variance 100 of its weights. ``n_fine_tuned_layers=0`` leaves the codes as they are, so
# that all parameters that are drawn have a prior.

model = StackedClassifier(
    (32,), layer="auto", output="linear", n_fine_tuned_layers=0, output_penalty=0.01, max_iter=200
)
truth, trained, averaged = [], [], []
for seed in range(N_SPLITS):
    train, test, its_y, y_test = train_test_split(
        X, y, train_size=N_LABELS, stratify=y, random_state=seed
    )
    ensemble = PosteriorEnsemble(model, burn_in=40, thinning=3, random_state=seed)
    ensemble.fit(train, its_y)
    truth.append(y_test)
    trained.append(ensemble.estimator_.predict_proba(test)[:, 1])
    averaged.append(ensemble.predict_proba(test)[:, 1])

print(f"acceptance {ensemble.acceptance_:.2f}, r_hat {ensemble.r_hat_:.3f}, ", end="")
print(f"effective size {ensemble.effective_size_:.0f}")

# %%
# Log-loss and calibration
# ------------------------
# The calibration error is the mean distance between what was said and what came true, over bins of
# the probability, by the number of rows in each.


def reliability(truth, said, n_bins=10):
    """Mean probability and frequency in each bin, and the calibration error."""
    place = np.minimum((said * n_bins).astype(int), n_bins - 1)
    count = np.bincount(place, minlength=n_bins)
    sums = [np.bincount(place, weights=of, minlength=n_bins) for of in (said, truth)]
    error = np.abs(sums[0] - sums[1]).sum() / len(said)
    seen = count > 0
    return sums[0][seen] / count[seen], sums[1][seen] / count[seen], error


losses = {
    name: np.array([log_loss(*pair) for pair in zip(truth, found, strict=True)])
    for name, found in (("trained", trained), ("average", averaged))
}
curves = {
    name: reliability(np.concatenate(truth), np.concatenate(found))
    for name, found in (("trained", trained), ("average", averaged))
}
for name, of_name in losses.items():
    print(f"{name}: log-loss {of_name.mean():.3f}, calibration error {curves[name][2]:.4f}")
gain = 1 - losses["average"].mean() / losses["trained"].mean()
print(
    f"lower by {gain:.0%}, in {(losses['average'] < losses['trained']).sum()} of {N_SPLITS} draws"
)

figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained")
left.plot(losses["trained"], losses["average"], "o")
top = max(map(max, losses.values())) * 1.05
left.plot([0, top], [0, top], color="0.6", lw=1)
left.set(xlabel="log-loss of the trained model", ylabel="log-loss of the average")
for name, (said, came_true, error) in curves.items():
    right.plot(said, came_true, marker=".", label=f"{name}: error {error:.3f}")
right.plot([0, 1], [0, 1], color="0.6", lw=1)
right.set(xlabel="probability", ylabel="frequency")
right.legend()
plt.show()

assert curves["average"][2] < 2 / 3 * curves["trained"][2]
assert gain > 0.04

# %%
# Decisions
# ---------
# To miss a malignant tumour (class 0) costs 20 times what a false alarm does. `predict` takes the
# class of the least expected cost under the average.

costs = np.array([[0, 20], [1, 0]])
spent = {}
for name, found in (("trained", trained), ("average", averaged)):
    says_benign = [20 * (1 - p) < p for p in found]
    spent[name] = np.mean(
        [costs[t, d.astype(int)].mean() for t, d in zip(truth, says_benign, strict=True)]
    )
    print(f"{name}: {spent[name]:.3f} per tumour")
careful = PosteriorEnsemble(model, burn_in=40, thinning=3, cost_matrix=costs, random_state=seed)
decided = careful.fit(train, its_y).predict(test)
assert (decided == (20 * (1 - averaged[-1]) < averaged[-1])).all()
