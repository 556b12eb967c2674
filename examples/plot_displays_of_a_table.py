"""
Pictures of a model of a table
==============================

What is drawn of a model of images by its pixels is drawn of a model of a table by the names of
columns. Claims, checked on wines of three growers, each with thirteen measurements and a
category, and a column of random numbers that nothing else knows of:

- :class:`~skae.plots.ReconstructionErrorDisplay`: what is lost most is the column that nothing
  depends on, and units have little weight for it;
- :class:`~skae.plots.CodeDisplay`: the grower, whom the model was not told, can be read off the
  plane of two directions of the code;
- :class:`~skae.plots.OutlierDisplay`: a value that is odd in its row is the longest bar, also of a
  model that is no detector;
- :class:`~skae.plots.SampleColumnDisplay`: what samples have wrong shows by column.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.datasets import load_wine
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier

from skae import DenoisingAutoEncoder
from skae.diagnostics import column_laws
from skae.plots import (
    CodeDisplay,
    OutlierDisplay,
    ReconstructionErrorDisplay,
    SampleColumnDisplay,
    UnitWeightDisplay,
)

table, grower = load_wine(return_X_y=True, as_frame=True)
rng = np.random.default_rng(0)
table["lottery"] = rng.normal(size=len(table))
table["colour"] = pd.cut(table["color_intensity"], [0, 3, 6, 20], labels=["pale", "red", "dark"])
wines = {0: "north", 1: "middle", 2: "south"}

model = DenoisingAutoEncoder(
    3, corruption_level=0.5, learning_rate=0.01, batch_size=30, random_state=0
)
model.fit(table)

# %%
# Which columns does the code keep?
# ---------------------------------
# Errors are 1 where nothing is known of a row but the column's mean.

display = ReconstructionErrorDisplay.from_estimator(model, table)
display.ax_.set_title("lost in a code of three units")
plt.show()

errors = dict(zip(display.names, display.errors["DenoisingAutoEncoder"], strict=True))
others = [error for name, error in errors.items() if name != "lottery"]
print(f"lottery {errors['lottery']:.2f}, median of the others {np.median(others):.2f}")
assert errors["lottery"] > 0.9
assert np.median(others) < 0.6
assert errors["lottery"] == max(errors.values())

# %%
# What do units respond to?
# -------------------------
# Weights are those of columns as standardised, so that they can be compared. A category has a
# column for each of its values.

display = UnitWeightDisplay.from_estimator(model, n_columns=4)
plt.show()

size = np.abs(model.components_).sum(axis=0)
place = list(model.encoding_.names).index("lottery")
print(f"weights of the lottery are {size[place] / np.median(size):.2f} of a usual column's")
assert size[place] < 0.8 * np.median(size)

# %%
# Where are the rows?
# -------------------
# The colours are a column that the model has not seen.

display = CodeDisplay.from_estimator(model, table, color=grower.map(wines).rename("grower"))
plt.show()

neighbours = KNeighborsClassifier(9)
accuracy = cross_val_score(neighbours, display.points, grower, cv=5).mean()
print(f"neighbours in this plane know {accuracy:.0%} of the growers")
assert accuracy > 0.85

# %%
# Why is this row odd?
# --------------------
# A wine of the north gets the flavanoids of the south.

changed = table.copy()
changed.loc[10, "flavanoids"] = table.loc[grower == 2, "flavanoids"].median()
display = OutlierDisplay.from_estimator(model, changed, rows=[10], n_columns=4)
plt.show()

assert changed.columns[display.columns_[0][0]] == "flavanoids"

# %%
# Are samples like the data?
# --------------------------
# Columns are in the order of how far samples are from data.

samples = model.sample(500, random_state=0)
shifted = samples.assign(alcohol=samples["alcohol"] + table["alcohol"].std())
display = SampleColumnDisplay.from_samples(
    table, {"samples": samples, "shifted": shifted}, n_columns=6
)
plt.show()

distances = np.array([law.distances for law in column_laws(table, {"a": samples, "b": shifted})])
print(f"mean distance of the columns {distances[:, 0].mean():.2f}; shifted {distances[0, 1]:.2f}")
assert table.columns[display.columns_[0]] == "alcohol"
assert distances[:, 0].mean() < 0.2
