"""
Synthetic rows, and how good they are
=====================================

A denoising auto-encoder that is told the level of noise draws new rows of a table: numbers with
heavy tails and categories, as a frame of the same names and types. Claims, checked against rows
that were held out:

- a forest that is to tell drawn rows from real ones does far worse than with rows whose columns
  were drawn one by one, and worse than with rows of a normal distribution;
- trees that learn from drawn rows find the class of real ones better than those that learn from the
  other two: it is a product of two hidden factors, which is neither in single columns nor in
  correlations;
- few drawn rows are copies.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

from skae import DenoisingAutoEncoder
from skae.datasets import make_mixed_table
from skae.diagnostics import compare_samples

# %%
# The table
# ---------
# Eight numbers, four of them with heavy tails, two categories, and the class.

table, y = make_mixed_table(1500, missing=0, random_state=0)
table["class"] = np.where(y, "yes", "no")
train, held_out = train_test_split(table, test_size=0.4, random_state=0)

# %%
# The model
# ---------
# It sees ranks as quantiles of a normal distribution, so that drawn numbers have the columns' own
# distributions.

model = DenoisingAutoEncoder(
    128,
    hidden_layer_sizes=(128,),
    activation="relu",
    tied_weights=False,
    corruption="gaussian",
    corruption_level=(0.05, 3.0),
    level_as_input=True,
    numbers="normal_scores",
    learning_rate=2e-3,
    learning_rate_schedule="warmup_cosine",
    batch_size=100,
    max_iter=80,
    n_iter_no_change=None,
    random_state=0,
).fit(train)
drawn = model.sample(len(train), random_state=0)
print(drawn.head(3).round(2).to_string())

# %%
# Beside others
# -------------
# Columns drawn one by one, and a normal distribution of numbers and one-hot categories.

rng = np.random.default_rng(0)


def normal_rows(rows):
    """As many rows of a normal distribution, back in the table's columns."""
    coded = pd.get_dummies(rows).astype(float)
    new = rng.multivariate_normal(coded.mean(), coded.cov(), len(rows))
    new = pd.DataFrame(new, columns=coded.columns)
    for name in rows.select_dtypes(exclude="number"):
        columns = [column for column in coded if column.startswith(f"{name}_")]
        new[name] = new[columns].idxmax(axis=1).str.removeprefix(f"{name}_")
    return new[rows.columns]


sets = {
    "auto-encoder": drawn,
    "normal distribution": normal_rows(train),
    "columns one by one": train.apply(lambda column: rng.permutation(column)),
}
found = compare_samples(
    train, sets, target="class", held_out=held_out, max_rows=800, random_state=0
)
print(found)

ours, normal, shuffled, real = range(4)
assert found.detection_auc[ours] < found.detection_auc[normal] - 0.2
assert found.detection_auc[ours] < found.detection_auc[shuffled] - 0.2
assert found.utility[ours] > max(found.utility[normal], found.utility[shuffled]) + 0.15
assert found.near_copies[ours] < 0.1

# %%
# Pairs of columns show what a table of numbers cannot: here one with a heavy tail, on a scale of
# logarithms, and one without.

figure, axes = plt.subplots(1, 4, figsize=(10, 2.9), sharex=True, sharey=True, layout="constrained")
for ax, (name, rows) in zip(axes, {"real rows": held_out, **sets}.items(), strict=True):
    for value, of_class in rows.groupby("class"):
        positive = of_class[of_class["number_0"] > 0]
        ax.plot(positive["number_0"], positive["number_1"], ".", markersize=3, label=value)
    ax.set(title=name, xlabel="number_0", xscale="log")
axes[0].set(ylabel="number_1", xlim=(table["number_0"].min(), table["number_0"].max()))
axes[0].legend(title="class")
plt.show()

# %%
# Limits
# ------
# - Nothing here guarantees privacy. Near-copies are counted, but rows that are not copies may tell
#   of persons as well.
# - Trees that learned from real rows are better still: the last line of the table is what perfect
#   samples would reach.
# - Two smooth factors make this table. Rules between columns ("the sum of these two") are not
#   tried here.
# - Rows given the values of some columns need another training:
#   :ref:`sphx_glr_auto_examples_plot_what_if.py`.
