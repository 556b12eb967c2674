"""Predictions of many rows: what is held at a time does not grow with them."""

import sys
import textwrap
import warnings

import numpy as np
import pytest
import torch
from fresh import in_fresh_process, result_of
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from skae import (
    PSD,
    RBM,
    DeepBeliefNetwork,
    DeepBoltzmannMachine,
    DenoisingAutoEncoder,
    ManifoldTangentClassifier,
    StackedAutoEncoder,
    StackedClassifier,
    StackedRegressor,
)
from skae.diagnostics import jacobian_norms, jacobian_products, jacobians
from skae.engine.networks import singular_vectors
from skae.engine.optimisation import sources

# Bytes of a block in float64, and of one made small so that few rows are many blocks.
SMALL_BLOCK, N_ROWS, WIDE = 2**18, 400, 400


class LargestTensor(TorchDispatchMode):
    """The bytes of the largest tensor that is made in its block."""

    size = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        made = [part for part in tree_leaves(result) if isinstance(part, torch.Tensor)]
        self.size = max([self.size, *(part.untyped_storage().nbytes() for part in made)])
        return result


def noisy(**parameters):
    return DenoisingAutoEncoder(2, corruption="gaussian", **parameters)


MODELS = {
    "deep": lambda: noisy(hidden_layer_sizes=(WIDE,)),
    "energy": lambda: noisy(hidden_layer_sizes=(WIDE,), parametrization="energy"),
    "stack": lambda: StackedAutoEncoder((WIDE, 2)),
    "classifier": lambda: StackedClassifier((WIDE, 2)),
    "regressor": lambda: StackedRegressor((WIDE, 2)),
    "tangents": lambda: ManifoldTangentClassifier((WIDE,)),
    "machine": lambda: RBM(WIDE),
    "belief network": lambda: DeepBeliefNetwork((WIDE, 3)),
    "deep machine": lambda: DeepBoltzmannMachine((WIDE, 3), n_chains=5),
    "psd": lambda: PSD(WIDE),
}
CODES = {
    "transform": lambda model, X: model.transform(X),
    "inverse_transform": lambda model, X: model.inverse_transform(
        np.ones((len(X), model._n_features_out))
    ),
    "norms": jacobian_norms,
    "products": lambda model, X: jacobian_products(model, X, np.ones((len(X), 5, 4))),
    "scores": lambda model, X: model.score_samples(X),
}
MACHINES = CODES | {
    "gibbs": lambda model, X: model.gibbs(X, random_state=0),
    "scores": lambda model, X: model.score_samples(X, log_partition=0.0),
}
BELIEFS = CODES | {"scores": lambda model, X: model.score_samples(X, log_partition=0.0, n_draws=1)}
METHODS = {
    "deep": CODES | {"score field": lambda model, X: model.score_field(X)},
    "energy": CODES | {"energy": lambda model, X: model.energy(X)},
    "classifier": {"predictions": lambda model, X: model.predict_proba(X)},
    "regressor": {"predictions": lambda model, X: model.predict(X)},
    "tangents": {"predictions": lambda model, X: model.predict_proba(X)},
    "machine": MACHINES,
    "belief network": BELIEFS,
    "deep machine": MACHINES,
}


@pytest.fixture(scope="module")
def X():  # noqa: N802
    return np.random.default_rng(0).normal(size=(N_ROWS, 4))


@pytest.mark.parametrize("name", MODELS)
def test_blocks_of_rows_count_what_is_made_of_them(name, X, monkeypatch):
    y = (X[:40, 0] > 0).astype(int)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of models that are hardly trained
        model = MODELS[name]().set_params(max_iter=1, random_state=0).fit(X[:40], y)
    monkeypatch.setattr(sources, "_BLOCK", SMALL_BLOCK)
    monkeypatch.setattr(jacobians, "_FACTOR_ENTRIES", SMALL_BLOCK // 8)
    monkeypatch.setattr(singular_vectors, "_ENTRIES", SMALL_BLOCK // 8)
    for what, method in METHODS.get(name, CODES).items():
        with LargestTensor() as largest:
            method(model, X)
        # All rows through the wide layer at once are 1.3 MB, five blocks.
        assert largest.size <= 2 * SMALL_BLOCK, what


SCRIPT = """
    import resource
    import numpy as np
    from skae import AutoEncoder

    X = np.random.default_rng(0).normal(size=(200_000, 4))
    model = AutoEncoder(2, hidden_layer_sizes=(500,), max_iter=1, random_state=0).fit(X[:40])
    model.transform(X[:40])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model.transform(X)
    result = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has other units elsewhere")
def test_a_process_does_not_grow_with_hidden_widths():
    grown = in_fresh_process(result_of, textwrap.dedent(SCRIPT))
    # In KiB. All rows through the 500 units at once would be 0.8 GB.
    assert grown < 200_000
