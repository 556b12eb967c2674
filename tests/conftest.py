"""Fixtures that several test modules share."""

import os

# Before SciPy is imported: lets scikit-learn's array API check run instead of skipping it.
os.environ["SCIPY_ARRAY_API"] = "1"
# Before torch is: many small problems, one process for each core. Threads would wait for others'.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from sklearn.datasets import load_digits

from skae.engine.optimisation.parameters import Parameters
from skae.estimators.face.interruption import forget_interruption


@pytest.fixture(autouse=True)
def no_earlier_interruption():
    """Each test's first Ctrl-C is the first."""
    forget_interruption()


@pytest.fixture
def generator():
    """A seeded generator of torch on the CPU."""
    return torch.Generator().manual_seed(0)


@pytest.fixture
def random_theta(generator):
    """Makes float64 parameters of a network, biases included, all N(0, spread^2)."""

    def make(network, spread=0.5):
        theta = Parameters(network.parameter_shapes, dtype=torch.float64)
        theta.flat.normal_(0.0, spread, generator=generator)
        return theta

    return make


@pytest.fixture(scope="session")
def digits():
    """The 1797 digits of 8 x 8 pixels in [0, 1], and their classes."""
    X, y = load_digits(return_X_y=True)
    return X / 16, y
