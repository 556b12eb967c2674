r"""
A restricted Boltzmann machine as a density, and its samples
============================================================

A restricted Boltzmann machine is a distribution: it can say how probable a row is, once its
partition function Z is known, and rows can be drawn from it. Both are put to use here on digits
of 8 x 8 black and white pixels. With 18 hidden units :math:`\log Z` is an exact sum over
:math:`2^{18}` states; with 64 it is estimated by annealed importance sampling.

What follows is checked:

- machines explain new digits far better than independent pixels do;
- with the same number of gradient steps, persistent chains (PCD) reach a higher log-likelihood
  of the training rows than chains of one step from the data (CD-1);
- the pseudo-log-likelihood, which is what `score` is without log Z, does not see it: on these rows,
  with small machines, it puts PCD lower beside CD-1 than the log-likelihood does;
- annealed importance sampling finds the exact log Z, within a few of its standard errors;
- Gibbs chains remember where they started, and parallel tempering makes them forget. What they
  then agree on need not be what the data are like.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from skae import RBM
from skae.plots import FilterDisplay

digits = load_digits()
X = (digits.data > 7).astype(np.float32)

settings = {"learning_rate_schedule": "linear", "batch_size": 20}
rules = {"CD-1": {"persistent": False}, "PCD": {"persistent": True}}

# %%
# Likelihood and pseudo-likelihood
# --------------------------------
# Three splits into 1300 training rows and 497 test rows. On each, two machines that differ in
# nothing but their chains; the columns are nats per image.

results, by_pixel = {rule: [] for rule in rules}, []
for seed in range(3):
    order = np.random.default_rng(seed).permutation(len(X))
    train, test = X[order[:1300]], X[order[1300:]]
    mean = train.mean(axis=0).clip(1e-3, 1 - 1e-3)
    by_pixel.append((test * np.log(mean) + (1 - test) * np.log(1 - mean)).sum(axis=1).mean())
    for rule, chains in rules.items():
        rbm = RBM(18, learning_rate=0.3, max_iter=120, random_state=seed, **settings, **chains)
        log_z = rbm.fit(train).log_partition_function()
        assert log_z.method == "exact"
        likelihood = [rbm.score(rows, log_partition=log_z.value) for rows in (train, test)]
        results[rule].append(likelihood + [rbm.score(rows) for rows in (train, test)])

names = ("log P, training", "log P, test", "pseudo, training", "pseudo, test")
print(" " * 8 + "".join(f"{name:>18}" for name in names))
print(f"{'pixels':8}{'':18}{np.mean(by_pixel):18.2f}")
for rule, values in results.items():
    print(f"{rule:8}" + "".join(f"{value:18.2f}" for value in np.mean(values, axis=0)))
gain = np.subtract(results["PCD"], results["CD-1"])
print(f"{'gain':8}" + "".join(f"{value:18.2f}" for value in gain.mean(axis=0)))
print(f"{'+-':8}" + "".join(f"{value:18.2f}" for value in gain.std(axis=0, ddof=1) / 3**0.5))

for values in results.values():
    # Independent pixels are left behind by nats, on every split.
    assert (np.array(values)[:, 1] > np.array(by_pixel) + 4).all()
# PCD has the higher likelihood of the training rows on average. On test rows the gain is hardly
# larger than its error.
assert gain[:, 0].mean() > 0.05
# Their pseudo-likelihood does not follow.
assert gain[:, 2].mean() < gain[:, 0].mean() - 0.1

# %%
# The last of these machines once more, as if its partition function were out of reach. A hundred
# chains walk from independent pixels to the machine, in steps of which there may be too few: the
# standard error tells.

for n_temperatures in (100, 1000, 5000):
    annealed = rbm.log_partition_function("ais", n_temperatures=n_temperatures)
    print(
        f"{n_temperatures:6} temperatures: log Z = {annealed.value:.2f} "
        f"+- {annealed.standard_error:.2f}, exact {log_z.value:.2f}"
    )
assert abs(annealed.value - log_z.value) < 5 * annealed.standard_error
assert annealed.standard_error < 0.05

# %%
# More units than can be enumerated
# ---------------------------------
# With 64 hidden units PCD is ahead again: on the training rows, by more than the errors of the two
# estimates of log Z. Here the pseudo-likelihood of these rows agrees.

machines, scores = {}, {}
for rule, chains in rules.items():
    rbm = RBM(64, learning_rate=0.1, max_iter=100, random_state=2, **settings, **chains).fit(train)
    log_z = rbm.log_partition_function(n_temperatures=2000)
    machines[rule], scores[rule] = rbm, rbm.score(train, log_partition=log_z.value)
    print(
        f"{rule:6} log P: training {scores[rule]:.2f}, "
        f"test {rbm.score(test, log_partition=log_z.value):.2f} (+- {log_z.standard_error:.2f}); "
        f"pseudo: training {rbm.score(train):.2f}, test {rbm.score(test):.2f}"
    )
    assert log_z.method == "ais"
    assert rbm.score(test, log_partition=log_z.value) > by_pixel[-1] + 4
assert scores["PCD"] > scores["CD-1"] + 0.1

# %%
# Filters of the machine trained with PCD; training rows; and samples, from chains that start at
# independent pixels.

rbm = machines["PCD"]
samples = rbm.sample(64, burn_in=1000)
tempered = rbm.sample(64, burn_in=200, n_temperatures=5)
figure, axes = plt.subplots(2, 2, figsize=(8, 8.4), layout="constrained")
FilterDisplay.from_estimator(rbm, ax=axes[0, 0])
axes[0, 0].set_title("filters")
pictures = {
    "training rows": (axes[0, 1], train[:64]),
    "1000 Gibbs steps": (axes[1, 0], samples),
    "200 steps, 5 temperatures": (axes[1, 1], tempered),
}
for title, (ax, rows) in pictures.items():
    FilterDisplay(2 * rows.reshape(-1, 8, 8) - 1).plot(ax, cmap="gray_r")
    ax.set_title(title)
plt.show()

# %%
# Where chains started, and where they end
# ----------------------------------------
# Three machines that have seen nothing but zeros and ones. On each, 300 chains start at one zero,
# 300 at one one. Samples of the machine owe nothing to their start: the share of zeros has to be
# the same from both. "Work" counts Gibbs steps at all temperatures together.

some = digits.target < 2
X_two, is_zero = X[some], digits.target[some] == 0
means = np.stack([X_two[~is_zero].mean(axis=0), X_two[is_zero].mean(axis=0)])
runs = ((1, 100), (1, 500), (1, 5000), (5, 20), (5, 100))


def share_of_zeros(rbm, start, n_temperatures, n_steps):
    """Fraction of samples that are closer to the mean zero than to the mean one."""
    rows = rbm.sample(
        300, init=start[:1], n_chains=300, burn_in=n_steps, n_temperatures=n_temperatures
    )
    distance = ((rows[:, None] - means) ** 2).sum(axis=2)
    return (distance[:, 1] < distance[:, 0]).mean()


shares = np.empty((3, len(runs), 2))
for seed in range(3):
    rbm = RBM(16, learning_rate=0.1, max_iter=150, random_state=seed, **settings, **rules["PCD"])
    rbm.fit(X_two)
    for number, run in enumerate(runs):
        for side, start in enumerate((X_two[is_zero], X_two[~is_zero])):
            shares[seed, number, side] = share_of_zeros(rbm, start, *run)

print(f"share of zeros in the data: {is_zero.mean():.2f}; from a zero / from a one:")
print("temperatures  steps  work" + "".join(f"    machine {seed + 1}" for seed in range(3)))
for (n_temperatures, n_steps), row in zip(runs, shares.transpose(1, 0, 2), strict=True):
    pairs = "".join(f"  {zero:.2f} / {one:.2f}" for zero, one in row)
    print(f"{n_temperatures:12}{n_steps:7}{n_temperatures * n_steps:6}{pairs}")

memory = dict(zip(runs, (shares[:, :, 0] - shares[:, :, 1]).T, strict=True))
# Plain chains remember; with as many steps, tempered ones have forgotten.
assert (memory[1, 100] > 0.3).all()
assert (abs(memory[5, 100]) < 0.15).all()
# With the same work, plain ones remember more on average.
assert memory[1, 500].mean() > memory[5, 100].mean() + 0.05
# Those that run for long enough forget as well.
assert (abs(memory[1, 5000]) < 0.15).all()
# What the chains agree on is not what the data are like.
assert abs(shares[:, -1].mean(axis=1) - is_zero.mean()).max() > 0.1

# %%
# Limits
# ------
# - Zeros and ones: the chains agree with one another, not with the data. Particles
#   that hardly ever cross between the modes cannot tell training how large each mode is, and
#   each image by itself looks as it should.
# - The gains of PCD here are tenths of a nat, on digits of 64 pixels and machines trained for long.
#   Single splits may fall out either way. On MNIST, the published difference between
#   CD-1 and CD-25 is 39 nats (Salakhutdinov and Murray 2008).
# - Which of the two the pseudo-likelihood prefers changes with the size of the machine, as above,
#   and on test rows from split to split.
# - Tempered chains cost as many steps as there are temperatures. On all ten digits, where
#   plain chains forget within some hundred steps, they do not pay. Where two modes share nothing,
#   say a pattern and its negative, five or ten temperatures are not enough.
# - Standard errors of annealed estimates come from the chains that there are. What none of them
#   found is in no error.
