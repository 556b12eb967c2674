r"""
The likelihood along a training, with error bars
================================================

Training keeps some of the parameters that it passes (``n_checkpoints``). They tell how the
likelihood rose, and they are a path: :math:`\log Z` can be estimated by annealing along the
training's own machines (Bereux et al. 2025) as well as by temperatures. Here the machine is small
enough to sum over its states, so that the log-likelihood of new rows is known at every checkpoint.
Rows are thirty answers, yes or no, of people with three hidden attitudes.

Which path carries more chains depends on the machine. Where nothing freezes, as here, temperatures
do as well; a noisy training is a detour then. Where modes have parted they lose all but few.

What follows is checked:

- both estimates are within four of their standard errors of the truth, at every checkpoint;
- at the end reverse annealing, which errs to the low side, agrees within 0.15 nats per row;
- the likelihood of new rows rises by more than three nats.
"""

import copy

import matplotlib.pyplot as plt
import numpy as np
from scipy.special import expit

from skae import RBM

# Three attitudes of each person, and which of thirty questions are answered with yes.
rng = np.random.default_rng(0)
attitudes = rng.normal(size=(1800, 3))
logits = attitudes @ rng.normal(0, 2.5, size=(3, 30)) + rng.normal(size=30)
X = (rng.random(logits.shape) < expit(logits)).astype(float)
train, test = X[:1300], X[1300:]

rbm = RBM(
    12,
    persistent=True,
    learning_rate=0.1,
    learning_rate_schedule="linear",
    max_iter=60,
    n_checkpoints=12,
    random_state=0,
).fit(train)


def at_checkpoint(number):
    """The machine as it was, with the checkpoints up to there."""
    machine, parts = copy.copy(rbm), []
    flat = rbm.trajectory_[number]
    for array in rbm.weights_.values():
        parts.append(flat[: array.size].reshape(array.shape))
        flat = flat[array.size :]
    machine.weights_ = dict(zip(rbm.weights_, parts, strict=True))
    machine.trajectory_ = rbm.trajectory_[: number + 1]
    return machine


machines = [*map(at_checkpoint, range(len(rbm.trajectory_))), rbm]
exact, along, tempered = (
    [m.log_partition_function(method, n_temperatures=400, random_state=1) for m in machines]
    for method in ("exact", "trajectory", "ais")
)


def likelihood(estimates):
    """Mean log-likelihood of the test rows by each log Z."""
    pairs = zip(machines, estimates, strict=True)
    return np.array([machine.score(test, log_partition=log_z) for machine, log_z in pairs])


# %%
# The estimates
# -------------

fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
number = np.arange(1, len(machines) + 1)
truth = likelihood(exact)
left.plot(number, truth, "k-")
left.set(xlabel="checkpoint", ylabel="nats per new row", title="Log-likelihood")
for label, estimates, shift in (("training", along, -0.1), ("temperatures", tempered, 0.1)):
    errors = [2 * estimate.standard_error for estimate in estimates]
    n_chains = [f"{estimate.effective_chains:.0f}" for estimate in estimates]
    print(f"chains of 100 that count, along {label}: {', '.join(n_chains)}")
    excess = likelihood(estimates) - truth
    right.errorbar(number + shift, excess, errors, fmt="o", ms=3, label=label)
right.axhline(0, color="k", lw=1)
right.set(xlabel="checkpoint", title="Estimated less exact, two standard errors")
right.legend(title="annealed along", loc="upper left")
plt.show()

backwards = rbm.annealed_likelihood(test, n_temperatures=300, random_state=1)
print(f"exact {truth[-1]:.3f}, by reverse annealing {backwards.scores.mean():.3f}")

# %%
# What was claimed
# ----------------

for estimates in (along, tempered):
    for known, found in zip(exact, estimates, strict=True):
        assert abs(found.value - known.value) < 4 * found.standard_error
assert abs(backwards.scores.mean() - truth[-1]) < 0.15
assert truth[-1] > truth[0] + 3
