r"""
A search whose candidates are trained as one
============================================

How much noise, and how strong a contraction? The answer is another one for each data set, so people
search. :class:`~skae.BatchedGridSearchCV` trains all candidates of one shape on all folds as one
model. Claims, checked here on 300 labelled rows of a table with numbers, categories and gaps, whose
class depends on a product of two hidden factors:

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
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import Pipeline

from skae import BatchedGridSearchCV, DenoisingAutoEncoder
from skae.datasets import make_mixed_table

X, y = make_mixed_table(random_state=0)
X_train, X_test, y_train, y_test = train_test_split(
    X, y, train_size=300, stratify=y, random_state=0
)

encoder = DenoisingAutoEncoder(
    32,
    activation="tanh",
    tied_weights=False,
    learning_rate=1e-2,
    max_iter=30,
    n_iter_no_change=None,
    random_state=0,
)
model = Pipeline([("encoder", encoder), ("classifier", LogisticRegression(max_iter=100))])
noises, contractions = [0.1, 0.3, 0.8], [0.001, 0.03, 1.0]
grid = {
    "encoder__corruption_level": noises,
    "encoder__contraction": contractions,
    "classifier__C": [0.1, 10.0],
}

# %%
# Eighteen candidates on three folds: 54 fits of the pipeline, 27 auto-encoders.

searches, seconds = {}, {}
settings = dict(cv=3, scoring="roc_auc")
for search in (
    BatchedGridSearchCV(model, grid, **settings),
    GridSearchCV(model, grid, **settings),
):
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
# On the other 1,200 rows.

results = batched.cv_results_
scores = results["mean_test_score"]


def score_on_test_rows(parameters):
    fitted = clone(model).set_params(**parameters).fit(X_train, y_train)
    return roc_auc_score(y_test, fitted.predict_proba(X_test)[:, 1])


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
    xlabel="part of the variables that are masked",
    ylabel="contraction",
    title="Area under the ROC curve on held-out folds (%)",
)
middle = 50 * (table.max() + table.min())
for (row, column), value in np.ndenumerate(100 * table):
    color = "white" if value < middle else "black"
    axes.text(column, row, f"{value:.1f}", ha="center", va="center", color=color)
figure.colorbar(drawn)
plt.show()
