"""Some rows of the user's data, in whatever form they came."""

import numpy as np


def first_rows(X, n_rows):
    return X.iloc[:n_rows] if hasattr(X, "iloc") else X[:n_rows]


def as_dense(X):
    return X.toarray() if hasattr(X, "toarray") else np.asarray(X)
