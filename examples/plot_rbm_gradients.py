r"""
Contrastive divergence and reconstruction against the likelihood
================================================================

The log-likelihood of a restricted Boltzmann machine expands along its Gibbs chain
:math:`x = x_1, h_1, x_2, h_2, \ldots` (Bengio and Delalleau 2009):

.. math::

    \log P(x) = \sum_{s=1}^{k} \left[ \log \frac{P(x_s \mid h_s)}{P(h_s \mid x_s)}
    + \log \frac{P(h_s \mid x_{s+1})}{P(x_{s+1} \mid h_s)} \right] + \log P(x_{k+1})

CD-k follows the expected gradient of the sum and forgets the rest. The first term alone leaves
the gradient of :math:`\log P(x \mid h)` for drawn h, half a step of CD; with its mean
:math:`E[h \mid x]` in the place of h, it is the reconstruction error of an auto-encoder with tied
weights. How well do these directions agree with the true gradient? On machines so small that all
states can be visited, nothing has to be simulated to tell: here twelve pixels from the middle of
digits and eight hidden units, six machines, whose weights and biases are then multiplied by
1/4 to 4.

What follows holds on average over the six machines, and is checked:

- CD-k agrees the better the larger k is, and the worse the larger the weights are;
- the reconstruction error agrees in the sign of most parameters while weights are small, and no
  better than a coin once they are twice as large as training made them;
- it is the mean field that costs most of its agreement, not the missing half step: at small
  weights the first term is closer to the truth than the reconstruction error, and CD-1
  without draws is no closer than the first term;
- particles that persisted while the weights grew agree where CD of any practical k does not.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from skae import RBM
from skae.diagnostics import gradient_agreement
from skae.plots import GradientAgreementDisplay

images = load_digits().images[:, 2:6, 2:5]
X = (images > 7).reshape(len(images), -1).astype(np.float32)

steps = (1, 2, 5, 10, 25)
machines = [
    RBM(
        8,
        persistent=False,
        n_gibbs_steps=10,
        batch_size=20,
        optimizer="adam",
        learning_rate=0.01,
        max_iter=15,
        random_state=seed,
    ).fit(X)
    for seed in range(6)
]
results = [gradient_agreement(machine, X, n_gibbs_steps=steps) for machine in machines]
rules, scales = results[0].rules, results[0].scales
mean_weight, norm, cosine, signs = (
    np.mean([getattr(result, name) for result in results], axis=0)
    for name in ("mean_weight", "gradient_norm", "cosine", "sign_agreement")
)


def table(name, values):
    """Rules by scales, as text."""
    print(f"{name:15}" + "".join(f"{'x ' + format(scale, 'g'):>8}" for scale in scales))
    for rule, row in zip(rules, values, strict=True):
        print(f"{rule:15}" + "".join(f"{value:8.2f}" for value in row))
    print()


print("mean |weight|  " + "".join(f"{value:8.2f}" for value in mean_weight))
print("|gradient|     " + "".join(f"{value:8.2f}" for value in norm) + "\n")
table("cosine", cosine)
table("equal signs", signs)

# %%
# Against the number of Gibbs steps. The first term is half a step; the reconstruction error,
# dotted, knows of none.

first_cd, last_cd = rules.index("cd_1"), rules.index(f"cd_{steps[-1]}")
along_chain = [rules.index("first_term"), *range(first_cd, last_cd + 1)]
figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained", sharex=True)
for ax, values, label in zip(axes, (cosine, signs), ("cosine", "equal signs"), strict=True):
    for column, weight in enumerate(mean_weight):
        color = plt.cm.viridis(column / len(scales))
        ax.plot(
            [0.5, *steps], values[along_chain, column], ".-", color=color, label=f"{weight:.1f}"
        )
        ax.axhline(values[0, column], color=color, linestyle="dotted", linewidth=1)
    ax.set_xscale("log")
    ax.set_xticks([0.5, *steps], ["1/2", *map(str, steps)], minor=False)
    ax.minorticks_off()
    ax.set_xlabel("k of CD-k")
    ax.set_ylabel(f"{label} with the log-likelihood gradient")
figure.legend(
    *axes[0].get_legend_handles_labels(), title="mean |weight|", loc="outside right center"
)
plt.show()

# %%
# Against the size of the weights.

figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
display = GradientAgreementDisplay(rules, mean_weight, cosine, signs)
display.plot(axes[0], measure="cosine")
display.plot(axes[1], measure="sign_agreement")
axes[1].axhline(0.5, color="0.7", linewidth=1, zorder=0)
axes[1].get_legend().remove()
plt.show()

# %%
# The claims, checked.

reconstruction, first_term, mean_field = cosine[:3]
cd, pcd = cosine[first_cd : last_cd + 1], cosine[-1]
# More steps are better at every size of the weights, up to rounding.
assert (np.diff(cd, axis=0) > -1e-9).all()
# Larger weights are worse for every number of steps, and for the reconstruction error.
assert (np.diff(cd, axis=1) < 1e-9).all()
assert (cd[:, 0] - cd[:, -1] > 0.5).all()
assert (np.diff(reconstruction) < 0).all()
# Most signs are right while weights are small; a coin would do as well where they are large.
assert (signs[0, scales <= 0.5] > 0.7).all()
assert (signs[0, scales >= 2] < 0.55).all()
# Small weights: what the missing half step costs is little against what the mean field costs.
small = scales <= 0.5
assert (1 - first_term[small] < 0.8 * (1 - reconstruction[small])).all()
assert (mean_field[small] < first_term[small] + 0.03).all()
# Large weights: persistent particles still point the right way.
large = scales >= 2
assert (pcd[large] > cd[-1, large] + 0.03).all()

# %%
# Along training
# --------------
# Multiplied weights are not trained ones. While a machine is trained, its weights grow as well,
# and the same order shows: the reconstruction error loses its agreement within a few epochs,
# CD with ten steps does not.

epochs = (1, 3, 10)
paths = []
for seed in range(3):
    machine = RBM(
        8,
        persistent=False,
        n_gibbs_steps=10,
        batch_size=20,
        optimizer="adam",
        learning_rate=0.01,
        random_state=seed,
    )
    path = []
    for epoch in range(1, epochs[-1] + 1):
        machine.partial_fit(X)
        if epoch in epochs:
            path.append(gradient_agreement(machine, X, n_gibbs_steps=(1, 10), scales=(1,)))
    paths.append(path)

for number, epoch in enumerate(epochs):
    now = [path[number] for path in paths]
    weight, norm = (
        np.mean([getattr(a, n)[0] for a in now]) for n in ("mean_weight", "gradient_norm")
    )
    means = dict(zip(now[0].rules, np.mean([a.cosine[:, 0] for a in now], axis=0), strict=True))
    print(
        f"epoch {epoch:2}: |weight| {weight:.2f}, |gradient| {norm:.2f}; cosine of "
        + ", ".join(f"{rule} {means[rule]:.2f}" for rule in ("reconstruction", "cd_1", "cd_10"))
    )
    assert means["reconstruction"] < means["cd_1"] < means["cd_10"]
    assert means["cd_10"] > 0.9

# %%
# Limits
# ------
# - These are twelve pixels. In large machines the gradient is not known; chains that mix as fast
#   or as slowly as these may need more or fewer steps there.
# - Near the end of training the true gradient is close to zero, and any bias turns the direction:
#   part of the low agreement at the fitted size of the weights (x 1) is the end of training, not
#   the size. At x 2 and x 4 the gradient is large again, and the agreement lower still.
# - More steps helped each of these machines, but that is no theorem. On other data, CD-25 has
#   agreed less than CD-1 at large weights: the expansion need not converge monotonically.
# - Steps are expected ones. A step of training has the noise of its draws on top, and "pcd" has
#   it here, of 1000 particles: up to x 1 that is nearly all its difference from 1.
# - Agreement of a direction is not the quality of a model: training with one rule visits other
#   weights than training with another.
