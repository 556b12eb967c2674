"""Codes of two units that keep neighbours."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.datasets import load_digits
from sklearn.neighbors import NearestNeighbors

from skae import AutoEncoder, DenoisingAutoEncoder

STEPS = {"batch_size": 200, "learning_rate": 1e-2, "max_iter": 80, "random_state": 0}


@pytest.fixture(name="X", scope="module")
def digits():
    return load_digits().data[:400] / 16


def neighbours_of(rows):
    return NearestNeighbors(n_neighbors=10).fit(rows).kneighbors(return_distance=False)


def test_neighbours_stay_neighbours(X):
    shape = {"hidden_layer_sizes": (64, 64), "activation": "leaky_relu", "tied_weights": False}
    kept = []
    for weight in (0.0, 10.0):
        model = AutoEncoder(2, neighborhood=weight, loss="gaussian", **shape, **STEPS).fit(X)
        pairs = zip(neighbours_of(X), neighbours_of(model.transform(X)), strict=True)
        kept.append(np.mean([len(set(own) & set(drawn)) for own, drawn in pairs]) / 10)
    # Of ten neighbours, 4.2 remain on the map of the plain network, 5.6 to 5.9 with the penalty.
    assert kept[1] > kept[0] + 0.08


def test_it_goes_with_noise_gaps_and_one_layer(X):
    X = X.copy()
    X[::7, 2] = np.nan
    model = DenoisingAutoEncoder(2, neighborhood=1.0, perplexity=3, contraction=0.01)
    model.set_params(**{**STEPS, "max_iter": 5})
    codes = model.fit_transform(X)
    assert codes.shape == (400, 2)
    assert np.isfinite(model.loss_curve_).all()
    assert_allclose(model.fit(X).transform(X), codes)


def test_it_does_not_go_with_a_level_that_is_told(X):
    told = {"level_as_input": True, "corruption": "gaussian", "corruption_level": (0.1, 1.0)}
    with pytest.raises(ValueError, match="level_as_input=True does not go with neighborhood"):
        AutoEncoder(2, neighborhood=1.0, **told).fit(X)
