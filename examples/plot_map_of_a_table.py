"""
A map of a table
================

A code of two numbers puts the rows of a table on a plane. Principal components do so by a flat
projection; an auto-encoder may bend. Claims, checked on a machine's log, whose eight sensors follow
two settings that nobody wrote down:

- of new rows the map loses less than a third of the variance that two principal components lose;
- the settings can be read off the map: neighbours in it know speed and load better than those in
  the plane of components, with an error that is smaller by 15 % at least.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.model_selection import cross_val_predict, train_test_split
from sklearn.neighbors import KNeighborsRegressor
from sklearn.preprocessing import StandardScaler

from skae import DenoisingAutoEncoder

# %%
# The table
# ---------
# Speed and load are hidden. The housing resonates at a speed of 0.6; the cooler starts at a power
# of 0.3.

rng = np.random.default_rng(0)
n_rows = 1500
speed, load = rng.uniform(0, 1, size=(2, n_rows))
power = speed * (0.3 + 0.7 * load)
clean = {
    "current": load + 0.3 * speed**2,
    "volume": speed - 0.2 * load,
    "watts": power,
    "vibration": np.exp(-(((speed - 0.6) / 0.12) ** 2)),
    "heat": power - 0.8 * np.maximum(power - 0.3, 0),
    "cooler": np.maximum(power - 0.3, 0),
    "slip": load**2 * (1 - speed),
    "pressure": np.sin(3 * load),
}
table = pd.DataFrame({name: x + 0.03 * rng.normal(size=n_rows) for name, x in clean.items()})
train, test = train_test_split(table, test_size=500, random_state=0)
print(table.head(3).round(2).to_string())

# %%
# The map
# -------
# A layer of 64 units on each side lets the code bend. A little noise in training makes it smooth.

model = DenoisingAutoEncoder(
    2,
    hidden_layer_sizes=(64,),
    activation="tanh",
    tied_weights=False,
    corruption="gaussian",
    corruption_level=0.1,
    learning_rate=5e-3,
    learning_rate_schedule="cosine",
    batch_size=50,
    max_iter=100,
    n_iter_no_change=None,
    random_state=0,
).fit(train)
scaler = StandardScaler().fit(train)
pca = PCA(2).fit(scaler.transform(train))


def lost(reconstructions):
    """Part of the variance of the test rows that is lost, columns counted alike."""
    rest = (test - reconstructions) / scaler.scale_
    return np.square(rest).to_numpy().sum() / np.square(scaler.transform(test)).sum()


planes = {
    "principal components": pca.transform(scaler.transform(test)),
    "auto-encoder": model.transform(test),
}
rest = {
    "principal components": lost(
        scaler.inverse_transform(pca.inverse_transform(planes["principal components"]))
    ),
    "auto-encoder": lost(model.reconstruct(test)),
}
print({name: f"{part:.1%} lost" for name, part in rest.items()})
assert rest["auto-encoder"] < 0.33 * rest["principal components"]

# %%
# What neighbours know
# --------------------
# Speed and load of each row are predicted by those of its ten neighbours in the plane.

settings = np.column_stack([speed, load])[test.index]
errors = {}
for name, plane in planes.items():
    guess = cross_val_predict(KNeighborsRegressor(10), plane, settings, cv=5)
    error = np.sqrt(np.square(guess - settings).mean(axis=0))
    errors[name] = np.linalg.norm(error)
    print(f"{name:<20} error of the speed {error[0]:.3f}, of the load {error[1]:.3f}")

figure, axes = plt.subplots(2, 2, figsize=(8, 6.4), layout="constrained")
for line, (label, hidden) in zip(axes, {"speed": 0, "load": 1}.items(), strict=True):
    for ax, (name, plane) in zip(line, planes.items(), strict=True):
        points = ax.scatter(*plane.T, c=settings[:, hidden], s=10)
        ax.set(title=f"{name}, by {label}", xticks=[], yticks=[])
    figure.colorbar(points, ax=line, label=label)
plt.show()

assert errors["auto-encoder"] < 0.85 * errors["principal components"]

# %%
# Limits
# ------
# - Directions of the map, and which way it is turned, are another ones for each seed. Distances in
#   it mean little: bent maps stretch.
# - Two hidden settings make this table. Where there are more, two numbers cannot hold them, and
#   what is left out is not seen in the picture; the part of the variance that is lost tells.
# - The noise of the sensors, here small, bounds what can be lost. A table of linear relations gains
#   nothing over principal components.
