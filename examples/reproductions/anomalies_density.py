"""
Odd rows by the density that an auto-encoder knows
==================================================

RESULTS
"""

import argparse
import os
import time
import warnings
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split

from skae import DenoisingAutoEncoder

SCORES = ("energy", "chain", "reconstruction")


def scores(X, seed):
    """Of each row, by three scores of one model; lower is odder."""
    standardized = (X - X.mean(axis=0)) / np.maximum(X.std(axis=0), 1e-9)
    rows = np.clip(standardized, -5, 5)
    model = DenoisingAutoEncoder(
        64, activation="tanh", loss="squared_error", corruption="gaussian", corruption_level=0.5,
        learning_rate=3e-3, learning_rate_schedule="cosine", max_iter=60, n_iter_no_change=None,
        random_state=seed,
    ).fit(rows)  # fmt: skip
    return {
        "energy": -model.energy(rows),
        "chain": model.chain_log_likelihood(rows, n_states=1000, burn_in=100),
        "reconstruction": model.score_samples(rows),
    }


def main():
    """Print the AUC of each table and score."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--rows", type=int, default=2000)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    found = []
    print(f"{'table':<20}" + "".join(f"{name:>16}" for name in SCORES) + "   seconds")
    for file in sorted(Path(os.environ["SKAE_DATA"], "anomalies").glob("*.npz")):
        with np.load(file) as arrays:
            X, y = arrays["X"].astype(np.float64), arrays["y"]
        if len(X) > options.rows:
            X, _, y, _ = train_test_split(X, y, train_size=options.rows, stratify=y, random_state=0)
        start = time.process_time()
        areas = [roc_auc_score(y, -of_rows) for of_rows in scores(X, 0).values()]
        found.append(areas)
        print(
            f"{file.stem:<20}" + "".join(f"{area:>16.3f}" for area in areas)
            + f"{time.process_time() - start:>10.1f}",
            flush=True,
        )  # fmt: skip
    print(f"{'mean':<20}" + "".join(f"{area:>16.3f}" for area in np.mean(found, axis=0)))


if __name__ == "__main__":
    main()
