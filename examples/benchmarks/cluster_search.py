"""A search on a dask cluster of two workers beside the same search in one process.

What is compared. ``GridSearchCV`` over auto-encoders on digits, one thread for each process: by
itself, and within ``joblib.parallel_config("dask")`` on ``LocalCluster(n_workers=2,
threads_per_worker=1)``; and `BatchedGridSearchCV` both ways. A first search, which starts the
workers and lets them import skae, does not count. Seconds are of the wall and, of a cluster, of the
processor of the worker that had more to do: on a machine that others use the latter say more, but
they do not count what waits for the network.

    python examples/benchmarks/cluster_search.py [--repeats 2] [--epochs 60]
"""

import argparse
import logging
import time
import warnings

import distributed
import joblib
import numpy as np
import sklearn
import torch
from dask.distributed import Client, LocalCluster
from measuring import load_digits_in_unit, print_machine, print_table
from sklearn.model_selection import GridSearchCV

import skae
from skae import AutoEncoder, BatchedGridSearchCV


def prepared():
    """In each worker: one thread; what it imports. Returned is its processor's seconds so far."""
    torch.set_num_threads(1)
    return time.process_time()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=60)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    print_machine(skae, sklearn, torch, distributed)
    X, _ = load_digits_in_unit()
    own = {"max_iter": args.epochs, "n_iter_no_change": None, "random_state": 0, "device": "cpu"}
    grid = {"learning_rate": [1e-3, 2e-3, 4e-3, 8e-3], "weight_decay": [0.0, 1e-4]}
    searches = {
        kind.__name__: kind(AutoEncoder(64, **own), grid, cv=3, refit=False)
        for kind in (GridSearchCV, BatchedGridSearchCV)
    }
    found = {(name, where): [] for name in searches for where in ("one process", "dask")}
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, silence_logs=logging.ERROR) as cluster,
        Client(cluster) as client,
    ):
        with joblib.parallel_config("dask"):
            for search in searches.values():
                search.fit(X[:100])
        for _ in range(args.repeats):
            for name, search in searches.items():
                started = time.perf_counter(), time.process_time()
                search.fit(X)
                seconds = time.perf_counter() - started[0], time.process_time() - started[1]
                found[name, "one process"].append(seconds)
                scores, before = search.cv_results_["mean_test_score"], client.run(prepared)
                start = time.perf_counter()
                with joblib.parallel_config("dask"):
                    search.fit(X)
                wall, after = time.perf_counter() - start, client.run(prepared)
                cpu = max(after[worker] - before[worker] for worker in after)
                found[name, "dask"].append((wall, cpu))
                np.testing.assert_allclose(search.cv_results_["mean_test_score"], scores, 1e-5)
    rows = []
    for (name, where), seconds in found.items():
        least = np.min(seconds, axis=0)
        times = np.min(found[name, "one process"], axis=0) / least
        cells = np.column_stack([least, times]).ravel()
        rows.append([f"{name}, {where}", *(f"{cell:.2f}" for cell in cells)])
    print_table(
        f"24 fits of 64-64, {args.epochs} epochs of 1,198 rows; least of {args.repeats}",
        ["", "seconds", "times as fast", "of a processor", "times as fast"],
        rows,
    )


if __name__ == "__main__":
    main()
