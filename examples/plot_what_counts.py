"""
Which columns count, and how?
=============================

A pipeline takes the raw table, so scikit-learn's tools that ask a fitted model about its columns
ask about those of the table: a category as a whole, a number in its own units. Nothing has to be
traced back through encoders and codes. Claims, checked on customers of whom it is known
why they leave:

- permuted one by one, the three columns that decide cost the most, and the two that have nothing to
  do with it less than two points of the area under the ROC curve;
- partial dependence shows how they decide: the young and the old leave, those between stay, and a
  contract by month is the one that is left;
- a linear model of prepared columns cannot bend: its area is smaller by five points at least, and
  age counts for less than half as much there.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.inspection import partial_dependence, permutation_importance
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from skae import TableFeatures

# %%
# The table
# ---------
# Customers leave by age, contract and calls. Income goes with age, and says nothing else. Town and
# height say nothing. One age in ten is missing.


def customers(seed, n_rows=1500):
    """A table, and who left."""
    rng = np.random.default_rng(seed)
    age = rng.normal(size=n_rows)
    table = pd.DataFrame(
        {
            "age": np.round(45 + 14 * age),
            "income": np.exp(8 + 0.4 * age + 0.8 * rng.normal(size=n_rows)),
            "contract": rng.choice(["by month", "one year", "two years"], n_rows),
            "calls": rng.poisson(2, size=n_rows),
            "town": rng.choice(["Ulm", "Jena", "Trier"], n_rows),
            "height": rng.normal(170, 9, size=n_rows),
        }
    )
    by_month = np.where(table["contract"] == "by month", 1.5, -0.8)
    chance = expit(4 * (np.abs(age) - 0.8) + by_month + 0.7 * (table["calls"] - 2))
    table.loc[rng.random(n_rows) < 0.1, "age"] = np.nan
    return table, (rng.random(n_rows) < chance).astype(int)


table, left = customers(0)
test, truth = customers(100)
print(table.head(3).round(1).to_string())

numbers = make_pipeline(SimpleImputer(), StandardScaler())
prepared = make_column_transformer(
    (numbers, make_column_selector(dtype_include="number")),
    (OneHotEncoder(), ["contract", "town"]),
)
models = {
    "table features": make_pipeline(
        TableFeatures(random_state=0), LogisticRegression(max_iter=1000)
    ),
    "prepared columns": make_pipeline(prepared, LogisticRegression()),
}
areas = {}
for name, model in models.items():
    model.fit(table, left)
    areas[name] = roc_auc_score(truth, model.predict_proba(test)[:, 1])
    print(f"{name:<17} area under the ROC curve {areas[name]:.1%}")

# %%
# Which columns?
# --------------
# The cells of one column are permuted among new rows. What counts is by how much the area under the
# ROC curve falls.

falls = pd.DataFrame(
    {
        name: permutation_importance(
            model, test, truth, scoring="roc_auc", n_repeats=5, random_state=0
        ).importances_mean
        for name, model in models.items()
    },
    index=table.columns,
)
print(falls.round(3).to_string())
axes = falls.plot.barh(figsize=(6.5, 3.4), xlabel="fall of the area, when the column is permuted")
axes.invert_yaxis()
plt.tight_layout()
plt.show()

# %%
# How do they count?
# ------------------
# The mean probability of new rows, in which age, or the contract, is set to one value. (The grid of
# ages is made of quantiles, for which a gap is no number: rows without an age are left out.)

known = test[test["age"].notna()]
figure, (left_axes, right_axes) = plt.subplots(
    1, 2, figsize=(8.5, 3.4), sharey=True, layout="constrained"
)
curves, bars = {}, {}
for name, model in models.items():
    age = partial_dependence(model, known, ["age"], kind="average", grid_resolution=15)
    curves[name] = pd.Series(age["average"][0], age["grid_values"][0])
    contract = partial_dependence(
        model, known, ["contract"], kind="average", categorical_features=["contract"]
    )
    bars[name] = pd.Series(contract["average"][0], contract["grid_values"][0])
    left_axes.plot(curves[name], marker=".", label=name)
left_axes.set(xlabel="age", ylabel="mean probability to leave", ylim=(0, 1))
left_axes.legend()
pd.DataFrame(bars).plot.bar(ax=right_axes, rot=0, legend=False, xlabel="contract")
plt.show()

# %%
# The claims, with a margin:

fall, bent, months = falls["table features"], curves["table features"], bars["table features"]
print(f"by age: {bent.iloc[0]:.2f}, at least {bent.min():.2f}, {bent.iloc[-1]:.2f}")
print(months.round(2).to_string())
causes, useless = ["age", "contract", "calls"], ["town", "height"]
assert fall[causes].min() > fall["income"] + 0.015
assert fall[useless].abs().max() < 0.02
assert min(bent.iloc[0], bent.iloc[-1]) > bent.min() + 0.15
assert months["by month"] > months.drop("by month").max() + 0.15
assert falls["prepared columns"]["age"] < 0.4 * fall["age"]
assert areas["table features"] > areas["prepared columns"] + 0.05

# %%
# Limits
# ------
# - What is asked is the model, not the world. Income is no cause, but the models have use for it:
#   it tells something of the age, above all where that is missing.
# - Columns that say the same share the fall: permuted one by one, each counts for little.
# - Where the model is wrong, so is what it says of its columns, as the straight line of age shows.
