r"""
Tangent distance: whose tangents help neighbours?
=================================================

:class:`~skae.TangentDistanceClassifier` measures the distance to the plane of tangents at each
labelled row, so that moves along them cost nothing. It is only as good as the tangents. Rows are
scikit-learn's digits, ten of each class with a label, and the tangents at a row come from local
PCA, from one contractive auto-encoder of all rows, or from one encoder for each of 20 clusters.
Claims, checked on three draws of everything:

- tangents of the one encoder are *worse* than none: the directions in which the data as a whole
  vary most also lead from class to class;
- those of an encoder for each cluster are better than none, as those of local PCA are: within a
  cluster most of what varies leaves the class alone.
"""

import numpy as np
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier

from skae import ContractiveAutoEncoder, TangentDistanceClassifier
from skae.diagnostics import local_pca_tangents, tangents

N_TANGENTS, N_NEIGHBORS, N_CLUSTERS, N_DRAWS = 3, 15, 20, 3
X, y = load_digits(return_X_y=True)
X = (X / 16).astype(np.float32)


def encoder(rows, n_components, steps):
    """A contractive auto-encoder, trained for so many steps."""
    n_batches = -(-len(rows) // 50)
    return ContractiveAutoEncoder(
        n_components,
        contraction=0.1,
        learning_rate=0.01,
        batch_size=50,
        max_iter=steps // n_batches,
        n_iter_no_change=None,
        random_state=0,
    ).fit(rows)


# %%
# Whatever gives directions at rows is a source of tangents: here functions that ask one encoder,
# or that of each row's cluster.


def tangents_of_one(rows):
    """Tangents at any rows, of an encoder of all."""
    one = encoder(rows, 256, steps=2000)
    return lambda X: tangents(one, X, N_TANGENTS).directions


def tangents_of_clusters(rows):
    """Tangents at any rows, of an encoder for each cluster."""
    clusters = KMeans(N_CLUSTERS, n_init=3, random_state=0).fit(rows)
    encoders = [encoder(rows[clusters.labels_ == k], 64, steps=1000) for k in range(N_CLUSTERS)]

    def directions(X):
        found = np.zeros((len(X), N_TANGENTS, X.shape[1]), X.dtype)
        regions = clusters.predict(X.astype(rows.dtype))
        for k in np.unique(regions):
            found[regions == k] = tangents(encoders[k], X[regions == k], N_TANGENTS).directions
        return found

    return directions


# %%
# Errors of the nearest of 100 labelled rows, at 497 rows that nothing was learned from.

errors = {}
for seed in range(N_DRAWS):
    rows, test, classes, y_test = train_test_split(X, y, train_size=1300, random_state=seed)
    rng = np.random.default_rng(seed)
    known = [rng.choice(np.flatnonzero(classes == k), 10, replace=False) for k in range(10)]
    known = np.concatenate(known)
    some = np.full(len(rows), -1)
    some[known] = classes[known]
    sources = {
        "one encoder": tangents_of_one(rows),
        "local PCA": ("local_pca", N_NEIGHBORS),
        "encoders of clusters": tangents_of_clusters(rows),
    }
    plain = KNeighborsClassifier(1).fit(rows[known], classes[known])
    errors.setdefault("no tangents", []).append(1 - plain.score(test, y_test))
    for name, source in sources.items():
        model = TangentDistanceClassifier(1, tangent_source=source, n_tangents=N_TANGENTS).fit(
            rows, some
        )
        errors.setdefault(name, []).append(1 - model.score(test, y_test))
for name, found in errors.items():
    print(f"{name:<22}{np.mean(found):6.1%}   " + "  ".join(f"{e:5.1%}" for e in found))

none, one, local, of_clusters = (np.array(found) for found in errors.values())
assert (one > none).all()
assert of_clusters.mean() < none.mean() - 0.01
assert local.mean() < none.mean() - 0.01

# %%
# Rows of the last draw beside their tangents.

import matplotlib.pyplot as plt

from skae.plots import TangentDisplay


def tangents_of_neighbours(X):
    """Tangents at any rows, of local PCA."""
    return local_pca_tangents(rows, N_TANGENTS, n_neighbors=N_NEIGHBORS, query=X).directions


sources["local PCA"] = tangents_of_neighbours
TangentDisplay.from_sources(sources, test[:4], n_tangents=N_TANGENTS)
plt.show()
