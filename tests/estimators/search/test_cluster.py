"""Searches whose fits go to a cluster."""

import logging

import joblib
import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV

from skae import AutoEncoder, BatchedGridSearchCV

dask, distributed = map(pytest.importorskip, ("dask", "distributed"))


def scores(search):
    """What a search has found, but for times."""
    found = search.cv_results_
    return {name: values for name, values in found.items() if "time" not in name}


@pytest.mark.filterwarnings("ignore")
def test_searches_on_a_cluster_find_the_same(monkeypatch, pytestconfig):
    if pytestconfig.getoption("--shift-seeds"):
        pytest.skip("seeds are shifted in this process alone, not in those of the workers")
    sent = {"scatter": 0, "submit": 0}
    for name in sent:
        own = getattr(distributed.Client, name)

        def counted(*args, own=own, name=name, **options):
            sent[name] += 1
            return own(*args, **options)

        monkeypatch.setattr(distributed.Client, name, counted)
    X = np.random.default_rng(0).normal(size=(60, 5))
    model = AutoEncoder(2, max_iter=3, random_state=0)
    grid = {"learning_rate": [1e-3, 1e-2, 1e-1], "n_components": [2, 3]}
    searches = [kind(model, grid, cv=2) for kind in (GridSearchCV, BatchedGridSearchCV)]
    alone = [scores(search.fit(X)) for search in searches]
    options = {"n_workers": 2, "threads_per_worker": 1, "silence_logs": logging.ERROR}
    with (
        # Processes of their own, which need not import all again.
        dask.config.set({"distributed.worker.multiprocessing-method": "fork"}),
        distributed.LocalCluster(dashboard_address=None, **options) as cluster,
        distributed.Client(cluster),
        joblib.parallel_config("dask"),
    ):
        for search, expected in zip(searches, alone, strict=True):
            sent.update(scatter=0, submit=0)
            found = scores(search.fit(X))
            assert found.keys() == expected.keys()
            for name, values in expected.items():
                if name.startswith("param"):
                    assert list(found[name]) == list(values), name
                    continue
                # The workers are processes of this machine; those of a batch may be other ones.
                np.testing.assert_allclose(found[name], values, 1e-9, err_msg=name)
            # Rows go to the cluster once; of a batched search to each worker with its only part.
            parts = {GridSearchCV: (1, 12), BatchedGridSearchCV: (0, 2)}[type(search)]
            assert sent["scatter"] == parts[0]
            assert sent["submit"] <= parts[1]
