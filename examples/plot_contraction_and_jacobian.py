r"""
What a contraction does to the code
===================================

:class:`~skae.ContractiveAutoEncoder` adds :math:`\lambda \|\partial h / \partial x\|_F^2` to
the reconstruction loss. Claims, checked here on tumours of the breast, each with thirty
measurements, that the models have not seen:

- the larger :math:`\lambda`, the smaller the Jacobian of the code;
- it gets smaller by saturation: most units sit near 0 or 1 for any one row (Rifai et al.,
  ICML 2011);
- the price of a strong one is reconstruction; a weak one costs next to nothing.
"""

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skae import ContractiveAutoEncoder
from skae.diagnostics import jacobian_norms, saturation

X, y = load_breast_cancer(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.5, stratify=y, random_state=0)

contractions = [0, 0.1, 0.3, 1, 3]
models = [
    ContractiveAutoEncoder(
        64,
        contraction=contraction,
        learning_rate=0.03,
        learning_rate_schedule="linear",
        batch_size=50,
        max_iter=150,
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
assert (np.diff(scores[2:]) < 0).all()
assert scores[1] > scores[0] - 0.3
assert scores[-1] < scores[0] - 0.5

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
# A smaller Jacobian is not by itself a better feature. A logistic regression on the measurements
# leaves nothing to gain here, and no code gains it:

raw = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(X_train, y_train)
print(f"accuracy on the measurements: {raw.score(X_test, y_test):.1%}")
print(f"best on a code:               {max(accuracies):.1%}")
print(f"strongest contraction:        {accuracies[-1]:.1%}")
assert max(accuracies) < raw.score(X_test, y_test) + 0.02

# %%
# And units are tied here: an encoder with weights of its own can make the Jacobian small by small
# weights alone, and the decoder makes up for it. Choose the contraction by what the code is for, by
# cross-validating the whole pipeline:
#
# .. code-block:: python
#
#     pipeline = make_pipeline(ContractiveAutoEncoder(), LogisticRegression())
#     GridSearchCV(pipeline, {"contractiveautoencoder__contraction": [0, 0.1, 1]})
