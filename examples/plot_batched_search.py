r"""
A search whose candidates are trained as one
============================================

How much noise, and how strong a contraction? The answer is another one for each data set, so people
search. :class:`~skae.BatchedGridSearchCV` trains all candidates of one shape on all folds as one
model. Claims, checked here on 300 handwritten digits:

- its scores are those of :class:`~sklearn.model_selection.GridSearchCV`, which trains one after the
  other;
- candidates that differ in the classifier alone share their auto-encoder;
- what the search finds is right on rows that it has not seen: the best candidates there are better
  than the worst, and both scores rank candidates alike.
"""

import time
import warnings

import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import spearmanr
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import Pipeline

from skae import BatchedGridSearchCV, DenoisingAutoEncoder

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(
    X / 16, y, train_size=300, stratify=y, random_state=0
)

encoder = DenoisingAutoEncoder(
    32, max_iter=40, n_iter_no_change=None, learning_rate=1e-2, random_state=0
)
model = Pipeline([("encoder", encoder), ("classifier", LogisticRegression(max_iter=100))])
noises, contractions = [0.1, 0.3, 0.5, 0.8], [0.001, 0.03, 1.0]
grid = {
    "encoder__corruption_level": noises,
    "encoder__contraction": contractions,
    "classifier__C": [0.1, 10.0],
}

# %%
# Twenty-four candidates on three folds: 72 fits of the pipeline, 36 auto-encoders.

searches, seconds = {}, {}
for search in (BatchedGridSearchCV(model, grid, cv=3), GridSearchCV(model, grid, cv=3)):
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of regressions that have not converged
        search.fit(X_train, y_train)
    name = type(search).__name__
    searches[name], seconds[name] = search, time.perf_counter() - start
    print(f"{name:>20}: {seconds[name]:5.1f} s, best {search.best_score_:.1%}")

batched, plain = searches.values()
difference = np.abs(
    batched.cv_results_["mean_test_score"] - plain.cv_results_["mean_test_score"]
).max()
print(f"scores differ by {difference:.1e} at most")
assert difference < 0.005
assert abs(batched.best_score_ - plain.best_score_) < 0.005

# %%
# On the other 1,497 rows.

results = batched.cv_results_
scores = results["mean_test_score"]


def score_on_test_rows(parameters):
    fitted = clone(model).set_params(**parameters).fit(X_train, y_train)
    return fitted.score(X_test, y_test)


order = np.argsort(scores)
some = order[np.linspace(0, len(order) - 1, 7).astype(int)]
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    unseen = np.array([score_on_test_rows(results["params"][k]) for k in some])
for k, score in zip(some, unseen, strict=True):
    print(f"folds {scores[k]:.1%}, other rows {score:.1%}: {results['params'][k]}")

agreement = spearmanr(scores[some], unseen).statistic
print(f"rank correlation {agreement:.2f}")
assert unseen[-1] > unseen[0] + 0.05
assert agreement > 0.6

# %%
# What each pair of noise and contraction is worth, by its better classifier.

shape = 2, len(contractions), len(noises)
table = scores.reshape(shape).max(axis=0)
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
drawn = axes.imshow(100 * table, cmap="viridis")
axes.set(
    xticks=range(len(noises)),
    xticklabels=noises,
    yticks=range(len(contractions)),
    yticklabels=contractions,
    xlabel="part of the pixels that are masked",
    ylabel="contraction",
    title="Accuracy on held-out folds (%)",
)
middle = 50 * (table.max() + table.min())
for (row, column), value in np.ndenumerate(100 * table):
    color = "white" if value < middle else "black"
    axes.text(column, row, f"{value:.1f}", ha="center", va="center", color=color)
figure.colorbar(drawn)
