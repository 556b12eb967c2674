"""
What if? Rows drawn given some columns
======================================

What would rows be like that have this colour and that shape? An auto-encoder that has learned to
find hidden cells of rows draws the other columns given these. Claims, checked against real rows
that it has not seen:

- drawn rows have the values that were asked for;
- over the pairs of values, the class is as frequent in drawn rows as in real ones: the mean
  difference is less than a tenth, where frequencies go from 0 to 1;
- so are the means of the numbers: correlated by more than 0.9 over the pairs.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.model_selection import train_test_split

from skae import DenoisingAutoEncoder
from skae.datasets import make_mixed_table

table, y = make_mixed_table(3000, missing=0, random_state=0)
table["class"] = np.where(y, "yes", "no")
train, test = train_test_split(table, test_size=0.6, random_state=0)

model = DenoisingAutoEncoder(
    64,
    hidden_layer_sizes=(64,),
    activation="relu",
    tied_weights=False,
    corruption="hiding",
    corruption_level=(0.1, 0.9),
    numbers="normal_scores",
    learning_rate=3e-3,
    learning_rate_schedule="warmup_cosine",
    batch_size=50,
    max_iter=60,
    n_iter_no_change=None,
    random_state=0,
).fit(train)

# %%
# Rows that were asked for
# ------------------------
# What is fixed is a frame, with gaps where nothing is: here for each real row another one of the
# same colour and shape.

asked = test[["colour", "shape"]].reindex(columns=table.columns)
drawn = model.sample(
    len(asked), fixed=asked, n_chains=len(asked), burn_in=20, random_state=0
).set_axis(asked.index)
print(drawn.head(3).round(2).to_string())
assert (drawn[["colour", "shape"]] == test[["colour", "shape"]]).all(axis=None)

# %%
# Beside real rows
# ----------------
# For each pair of values, of which there are thirty real rows at least.

numbers = ["number_1", "number_3", "number_5", "number_7"]


def by_pair(rows):
    """The frequency of the class and the standardised means of numbers, for each pair."""
    scaled = (rows[numbers] - train[numbers].mean()) / train[numbers].std()
    scaled["class"] = rows["class"] == "yes"
    groups = scaled.groupby([rows["colour"], rows["shape"]])
    return groups.mean()[groups.size() >= 30]


real, found = by_pair(test), by_pair(drawn)
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.9), layout="constrained")
left.plot([0, 1], [0, 1], color="0.7", lw=1)
left.plot(real["class"], found["class"], "o")
left.set(xlabel="frequency in real rows", ylabel="in drawn rows", title="class")
right.plot([-1.5, 1.5], [-1.5, 1.5], color="0.7", lw=1)
for name in numbers:
    right.plot(real[name], found[name], "o", markersize=4, label=name)
right.set(xlabel="mean of real rows", title="numbers, in standard deviations")
right.legend()
plt.show()

difference = (found - real).abs().mean()
print(difference.round(3).to_string())
correlation = real.corrwith(found)
print(f"least correlation over {len(real)} pairs: {correlation.min():.2f}")
assert difference["class"] < 0.1
assert correlation.min() > 0.9

# %%
# Limits
# ------
# - Means of drawn rows lie a little nearer to the middle than those of real rows.
# - Which columns may be fixed was open in training, where 10 to 90 % of each row were hidden. Rows
#   of a model that was trained with Gaussian noise of many levels
#   (:ref:`sphx_glr_auto_examples_plot_synthetic_rows.py`) hardly follow fixed categories.
# - "What if" means: among rows like these. What would happen if one *changed* a colour is another
#   question, which no table of observations answers by itself.
