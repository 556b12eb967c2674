r"""
Few labels on a table
=====================

A table of customers has a thousand rows, and a label for few of them. Its columns are as people
have them: incomes with a heavy tail, places and contracts as text, and gaps.
:class:`~skae.StackedClassifier` takes it as it is: it learns from all rows how the columns depend
on each other, and puts a ridge regression with a kernel of columns and codes on top, whose
probabilities are calibrated by what each labelled row would have been told without its label.
Nothing is tuned, and no labels are kept aside.

Claims, on five draws of the table:

- with 25 and with 100 labels, its probabilities have on average a smaller log-loss than those of
  logistic regression and of a random forest, on columns that were prepared with care;
- with 25 labels they are better than the frequency of the classes on every draw: few labels do
  not make it sure of what it cannot know.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from skae import StackedClassifier

N_ROWS, N_TEST, N_LABELS, N_DRAWS = 1000, 2000, (25, 100), 5

# %%
# The table
# ---------
# Two hidden traits shape all columns. Who leaves depends on one of them, and on whether the other
# is far from usual.


def customers(n_rows, seed):
    """A table of customers, and who of them left."""
    rng = np.random.default_rng(seed)
    thrift, age = rng.normal(size=(2, n_rows))
    place = np.array(["city", "suburb", "village"])
    contract = np.array(["monthly", "yearly", "two years"])
    table = pd.DataFrame(
        {
            "income": np.exp(8 + 0.8 * age - 0.6 * thrift + 0.5 * rng.normal(size=n_rows)),
            "age": np.round(45 + 12 * age + 4 * rng.normal(size=n_rows)),
            "calls": rng.poisson(np.exp(1 - 0.7 * thrift)),
            "days": 400 + 150 * age + 80 * thrift + 100 * rng.normal(size=n_rows),
            "place": place[np.digitize(age + 0.6 * rng.normal(size=n_rows), [-0.5, 0.7])],
            "contract": contract[np.digitize(thrift + 0.6 * rng.normal(size=n_rows), [-0.3, 0.9])],
            "online": rng.random(n_rows) < expit(-1.5 * age),
        }
    )
    table.loc[rng.random(n_rows) < 0.15, "income"] = np.nan
    table.loc[rng.random(n_rows) < 0.1, "contract"] = None
    left = rng.random(n_rows) < expit(2 * np.abs(age) - 2.5 - 2 * thrift)
    return table, left.astype(int)


def prepared():
    """What other classifiers need: gaps filled, numbers scaled, categories one-hot."""
    numbers = make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler())
    return make_column_transformer(
        (numbers, make_column_selector(dtype_include="number")),
        (OneHotEncoder(handle_unknown="ignore"), make_column_selector(dtype_exclude="number")),
    )


table, left = customers(N_ROWS, 0)
print(table.head())

# %%
# One fit
# -------
# Rows without a label have -1. What the closed form says of each labelled row, had its label not
# been known, is in ``kernel_output_.left_out``: an honest estimate without a row kept aside.


def hide_labels(y, n_labels):
    """The labels of the first rows of each class alike; -1 for the others."""
    some = np.full_like(y, -1)
    for place in (0, 1):
        rows = np.flatnonzero(y == place)[: round(n_labels * np.mean(y == place))]
        some[rows] = place
    return some


some = hide_labels(left, 100)
model = StackedClassifier(random_state=0).fit(table, some)
output = model.kernel_output_
said = output.left_out[:, 1]
right = (said > 0.5) == left[output.positions]
print(f"labelled rows that would be right without their label: {right.mean():.2f}")
(calibration,) = output.calibrations
print(f"slope of the log-odds: {calibration.slope:.2f}")

# %%
# Beside others
# -------------

ours, linear, forest, frequency = names = (
    "StackedClassifier",
    "logistic regression",
    "random forest",
    "frequency",
)
losses = {name: np.empty((N_DRAWS, len(N_LABELS))) for name in names}
for draw in range(N_DRAWS):
    table, left = customers(N_ROWS, 2 * draw)
    test, truth = customers(N_TEST, 2 * draw + 1)
    for column, n_labels in enumerate(N_LABELS):
        some = hide_labels(left, n_labels)
        known = some >= 0
        models = {
            ours: StackedClassifier(random_state=draw).fit(table, some),
            linear: make_pipeline(prepared(), LogisticRegression()),
            forest: make_pipeline(
                prepared(), RandomForestClassifier(300, min_samples_leaf=3, random_state=draw)
            ),
        }
        for name in (linear, forest):
            models[name].fit(table[known], left[known])
        for name, model in models.items():
            losses[name][draw, column] = log_loss(truth, model.predict_proba(test))
        share = np.full(N_TEST, left[known].mean())
        losses[frequency][draw, column] = log_loss(truth, share)

print(f"log-loss on new rows{'':10}" + "".join(f"{n:>8}" for n in N_LABELS) + "  labels")
for name, values in losses.items():
    print(f"{name:30}" + "".join(f"{value:8.3f}" for value in values.mean(axis=0)))

figure, ax = plt.subplots(layout="constrained")
for name, values in losses.items():
    error = values.std(axis=0, ddof=1) / np.sqrt(N_DRAWS)
    ax.errorbar(N_LABELS, values.mean(axis=0), error, marker=".", capsize=3, label=name)
ax.set(xlabel="labelled rows", ylabel="log-loss on new rows", xscale="log")
ax.set_xticks(N_LABELS, N_LABELS)
ax.minorticks_off()
ax.legend()
plt.show()

for name in (linear, forest):
    gain = losses[name] - losses[ours]
    print(f"{name}: gain {gain.mean(axis=0)} +- {gain.std(axis=0, ddof=1) / np.sqrt(N_DRAWS)}")
    assert (gain.mean(axis=0) > 0.005).all()
assert (losses[ours][:, 0] < losses[frequency][:, 0]).all()

# %%
# Limits
# ------
# - With labels of several thousand rows, boosted trees may be better; of more than 5,000,
#   ``output="auto"`` trains a deep net instead.
# - Where classes hang on one column by a sharp threshold, trees need fewer labels than a kernel.
