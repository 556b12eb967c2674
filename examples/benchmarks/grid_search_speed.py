"""Time of a grid search over a pipeline with skae, by one worker and by two.

What is compared. `GridSearchCV` over 8 candidates of Pipeline(ContractiveAutoEncoder,
LogisticRegression) on scikit-learn's digits, with ``n_jobs=1`` and with ``n_jobs=2``.
For two workers twice: "cold", where joblib has to start them, so that each imports torch,
scikit-learn and skae; and "warm", where the workers of an earlier search are reused.

What makes it fair. The same search in the same process, interleaved; no refit. The best
candidate and its score must be the same for all. One worker may use all cores for its
products of matrices; two are given half of the cores each by joblib. The number of
threads that torch and the BLAS really use in a worker is printed: together they must not
exceed the cores.

    python examples/benchmarks/grid_search_speed.py [--quick] [--repeats N]
"""

import argparse
import os

import numpy as np
import sklearn
import torch
from joblib import Parallel, delayed
from joblib.externals.loky import get_reusable_executor
from measuring import interleave, load_digits_in_unit, print_machine, print_table, spread, verdict
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_info

import skae
from skae import ContractiveAutoEncoder


def search(n_jobs, n_epochs):
    """Run the grid search; return the best parameters and score."""
    X, y = load_digits_in_unit()
    model = ContractiveAutoEncoder(
        64, max_iter=n_epochs, n_iter_no_change=None, device="cpu", random_state=0
    )
    pipeline = Pipeline([("cae", model), ("classifier", LogisticRegression(max_iter=1000))])
    grid = {"cae__contraction": [0.01, 0.1, 1.0, 10.0], "classifier__C": [1.0, 100.0]}
    found = GridSearchCV(pipeline, grid, cv=3, n_jobs=n_jobs, refit=False).fit(X, y)
    return found.best_params_, float(found.best_score_)


def stop_workers():
    """End joblib's workers, so that the next search has to start them."""
    get_reusable_executor().shutdown(wait=True)


def worker_threads():
    """Process, and threads that torch and the other libraries use, where this runs."""
    # A fit first: some thread pools exist only after their first use.
    X, _ = load_digits_in_unit()
    ContractiveAutoEncoder(8, max_iter=1, device="cpu").fit(X)
    pools = {pool["user_api"]: pool["num_threads"] for pool in threadpool_info()}
    return os.getpid(), torch.get_num_threads(), pools


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer epochs and repeats")
    parser.add_argument("--repeats", type=int, default=None, help="default: 5, or 1 if quick")
    arguments = parser.parse_args()
    n_repeats = arguments.repeats or (1 if arguments.quick else 5)
    n_epochs = 30 if arguments.quick else 100

    print_machine(torch, sklearn, skae)
    search(1, 1)

    def run_cold():
        stop_workers()
        return search(2, n_epochs)

    def run_warm():
        return search(2, n_epochs)

    # One run, because it must follow the cold one whatever the order of the repeats.
    seconds = {name: [] for name in ("n_jobs=1", "n_jobs=2, cold", "n_jobs=2, warm")}
    found = {}
    for _ in range(n_repeats):
        runs = {"n_jobs=1": lambda: search(1, n_epochs), "n_jobs=2, cold": run_cold}
        runs["n_jobs=2, warm"] = run_warm
        times, results = interleave(runs, 1)
        found.update(results)
        for name, values in times.items():
            seconds[name].extend(values)
    seconds = {name: np.array(values) for name, values in seconds.items()}

    alone = seconds["n_jobs=1"]
    print_table(
        f"8 candidates x 3 folds, {n_epochs} epochs, {n_repeats} repeats",
        ("", "seconds", "n_jobs=1 / this", "best score"),
        [
            (name, spread(times), spread(alone / times), f"{found[name][1]:.4f}")
            for name, times in seconds.items()
        ],
    )
    print(f"  warm: goal {verdict(alone / seconds['n_jobs=2, warm'], 1.6, at_least=True)}")
    start = seconds["n_jobs=2, cold"] - seconds["n_jobs=2, warm"]
    print(f"  starting two workers, each of which imports torch, costs {spread(start)} s")
    same = all(parameters == found["n_jobs=1"][0] for parameters, _ in found.values())
    print(f"  the same best candidate: {same}")
    workers = {pid: rest for pid, *rest in Parallel(2)(delayed(worker_threads)() for _ in range(8))}
    for pid, (torch_threads, pools) in workers.items():
        print(f"  worker {pid}: torch {torch_threads} threads; libraries' pools {pools}")
    total = sum(torch_threads for torch_threads, _ in workers.values())
    verdict_of_threads = "no oversubscription" if total <= os.cpu_count() else "OVERSUBSCRIBED"
    print(f"  {total} threads of torch on {os.cpu_count()} cores: {verdict_of_threads}")
    stop_workers()


if __name__ == "__main__":
    main()
