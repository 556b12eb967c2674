r"""
What a contraction does to the code
===================================

:class:`~skae.ContractiveAutoEncoder` adds :math:`\lambda \|\partial h / \partial x\|_F^2` to
the reconstruction loss. Claims, checked here on rows that the models have not seen:

- the larger :math:`\lambda`, the smaller the Jacobian of the code;
- it gets smaller by saturation: most units sit near 0 or 1 for any one row (Rifai et al.,
  ICML 2011);
- the price is reconstruction.
"""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from skae import ContractiveAutoEncoder
from skae.diagnostics import jacobian_norms, saturation

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(
    X / 16, y, test_size=0.5, stratify=y, random_state=0
)

contractions = [0, 0.01, 0.1, 0.3, 1]
models = [
    ContractiveAutoEncoder(
        128,
        contraction=contraction,
        learning_rate=3e-3,
        learning_rate_schedule="linear",
        batch_size=50,
        max_iter=60,
        n_iter_no_change=None,
        random_state=0,
    ).fit(X_train)
    for contraction in contractions
]

# %%
# `|J|` is the mean over rows of the Jacobian's Frobenius norm; saturated is the fraction
# of code values below 0.05 or above 0.95; the score is the mean log-likelihood of the
# reconstruction in nats; the accuracy is that of a logistic regression on the frozen code.

norms, saturated, scores, accuracies = [], [], [], []
for model in models:
    codes = model.transform(X_test)
    norms.append(jacobian_norms(model, X_test).mean())
    saturated.append(saturation(codes).mean())
    scores.append(model.score(X_test))
    classifier = LogisticRegression(max_iter=1000).fit(model.transform(X_train), y_train)
    accuracies.append(classifier.score(codes, y_test))

print("contraction    |J|   saturated   score   accuracy")
for row in zip(contractions, norms, saturated, scores, accuracies, strict=True):
    print("{:>11g}  {:5.2f}  {:9.1%}  {:6.2f}  {:9.1%}".format(*row))

assert (np.diff(norms) < 0).all()
assert (np.diff(saturated) > 0).all()
assert (np.diff(scores) < 0).all()

# %%
# The values of the code: without contraction they lie on the slope of the sigmoid, with it at
# its ends.

import matplotlib.pyplot as plt

figure, axes = plt.subplots(1, 3, figsize=(9, 2.8), sharey=True, layout="constrained")
for ax, index in zip(axes, (0, 2, 4), strict=True):
    ax.hist(models[index].transform(X_test).ravel(), bins=40, range=(0, 1), density=True)
    ax.set_title(f"contraction {contractions[index]:g}")
    ax.set_xlabel("code value")
axes[0].set_ylabel("density")
plt.show()

# %%
# Limits
# ------
# A smaller Jacobian is not by itself a better feature. On images of 8 x 8 pixels a logistic
# regression on the raw pixels leaves little to gain, and no code here gains it:

raw = LogisticRegression(max_iter=1000).fit(X_train, y_train).score(X_test, y_test)
print(f"accuracy on raw pixels: {raw:.1%}")
print(f"best on a code:         {max(accuracies):.1%}")
print(f"strongest contraction:  {accuracies[-1]:.1%}")
assert accuracies[-1] < max(accuracies)

# %%
# With the strongest contraction the code has lost what tells digits apart. Choose the
# contraction by what the code is for, by cross-validating the whole pipeline:
#
# .. code-block:: python
#
#     pipeline = make_pipeline(ContractiveAutoEncoder(), LogisticRegression())
#     GridSearchCV(pipeline, {"contractiveautoencoder__contraction": [0, 0.01, 0.1, 1]})
