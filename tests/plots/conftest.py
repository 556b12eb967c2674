"""Figures without a screen, and a small fitted model to draw."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest

from skae import AutoEncoder

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="session", name="X")
def data():
    return np.random.default_rng(0).random((40, 12))


@pytest.fixture(scope="session")
def model(X):
    return AutoEncoder(5, max_iter=3, early_stopping=True, random_state=0).fit(X)
