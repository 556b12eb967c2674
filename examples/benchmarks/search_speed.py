"""Time of a batched search beside scikit-learn's, by one worker and by two.

What is compared. `BatchedGridSearchCV` and `GridSearchCV`, the same grids: 8 contractions x 3 folds
on scikit-learn's digits with 64 and with 16 units; a pipeline of 4 contractions x 4 levels of noise
x 3 C of a support vector machine; and, with ``--mnist``, 4 contractions x 2 folds of 10,000 MNIST
rows with 256 units. No refit.

What makes it fair. The same search in the same process, interleaved. `GridSearchCV` has workers
that run already, and is taken by the better of one and two. All cores are for whoever runs. All
scores have to be the same.

    python examples/benchmarks/search_speed.py [--quick] [--mnist] [--repeats N]
"""

import argparse

import numpy as np
import sklearn
import torch
from measuring import (
    interleave,
    load_digits_in_unit,
    load_mnist_in_unit,
    print_machine,
    print_table,
    spread,
    verdict,
)
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.svm import SVC

import skae
from skae import BatchedGridSearchCV, ContractiveAutoEncoder

FEW = {"contraction": [0.01 * k for k in range(1, 9)]}
PIPELINE = {
    "cae__contraction": [0.01, 0.03, 0.1, 0.3],
    "cae__corruption_level": [0.05, 0.1, 0.2, 0.4],
    "svm__C": [1.0, 10.0, 100.0],
}


def model(n_components, n_epochs, **parameters):
    """An auto-encoder that is trained for so many epochs."""
    return ContractiveAutoEncoder(
        n_components, max_iter=n_epochs, n_iter_no_change=None, random_state=0, **parameters
    )


def compare(title, estimator, grid, data, cv, goal, n_repeats):
    """Run all searches, and print how they compare."""
    runs = {
        "GridSearchCV, n_jobs=1": GridSearchCV(estimator, grid, cv=cv, n_jobs=1, refit=False),
        "GridSearchCV, n_jobs=2": GridSearchCV(estimator, grid, cv=cv, n_jobs=2, refit=False),
        "batched, n_jobs=1": BatchedGridSearchCV(estimator, grid, cv=cv, refit=False),
        "batched, n_jobs=2": BatchedGridSearchCV(estimator, grid, cv=cv, n_jobs=2, refit=False),
    }
    runs = {name: (lambda search=search: search.fit(*data)) for name, search in runs.items()}
    runs["GridSearchCV, n_jobs=2"]()  # its workers run from now on
    seconds, found = interleave(runs, n_repeats)
    scores = [search.cv_results_["mean_test_score"] for search in found.values()]
    best = np.minimum(seconds["GridSearchCV, n_jobs=1"], seconds["GridSearchCV, n_jobs=2"])
    rows = [
        (name, spread(times), spread(best / times), f"{score.max():.5f}")
        for (name, times), score in zip(seconds.items(), scores, strict=True)
    ]
    print_table(title, ("", "seconds", "better GridSearchCV / this", "best score"), rows)
    ours = np.minimum(seconds["batched, n_jobs=1"], seconds["batched, n_jobs=2"])
    print(f"  goal {verdict(best / ours, goal, at_least=True)}")
    worst = max(np.abs(score - scores[0]).max() for score in scores)
    print(f"  scores differ by {worst:.1e} at most")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer epochs and repeats")
    parser.add_argument("--mnist", action="store_true", help="MNIST, too: some minutes")
    parser.add_argument("--repeats", type=int, default=None, help="default: 5, or 1 if quick")
    arguments = parser.parse_args()
    n_repeats = arguments.repeats or (1 if arguments.quick else 5)
    n_epochs = 10 if arguments.quick else 30

    print_machine(torch, sklearn, skae)
    X, y = load_digits_in_unit()
    for n_components, goal in ((64, 2.5), (16, 4.0)):
        title = f"digits, {n_components} units, 8 candidates x 3 folds, {n_epochs} epochs"
        compare(title, model(n_components, n_epochs), FEW, (X,), 3, goal, n_repeats)
    noisy = model(64, n_epochs, corruption="masking")
    pipeline = Pipeline([("cae", noisy), ("svm", SVC())])
    title = f"digits, pipeline, 4 x 4 x 3 candidates x 3 folds, {n_epochs} epochs"
    compare(title, pipeline, PIPELINE, (X, y), 3, 6.0, n_repeats)
    if arguments.mnist:
        grid = {"contraction": FEW["contraction"][:4]}
        X = load_mnist_in_unit()
        title = f"MNIST, {len(X)} rows, 256 units, 4 candidates x 2 folds, {n_epochs // 3} epochs"
        compare(title, model(256, n_epochs // 3), grid, (X,), 2, 1.3, n_repeats)


if __name__ == "__main__":
    main()
