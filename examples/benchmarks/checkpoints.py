"""What it costs a fit to be kept on disk: a checkpoint, and the look whether one is due.

A fit that writes after every step is set beside one that writes nothing; what it takes longer,
divided by the number of writes, is the cost of one, with the copies of all tensors, checksums and
the wait for the disk (fsync). Printed is its share of a minute. A fit with a checkpoint that never
comes to be due tells what the looks cost, with the digest of the data and the one file that it
does write, of whole fits that are very short here.

    OMP_NUM_THREADS=1 python examples/benchmarks/checkpoints.py [--repeats 5]

The disk is that of the temporary folder (TMPDIR).
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from measuring import interleave, print_machine, print_table, spread, verdict

from skae import RBM, AutoEncoder, Checkpoint, StackedAutoEncoder

CASES = {
    "AutoEncoder 64-32": (64, AutoEncoder(32)),
    "AutoEncoder 784-1000": (784, AutoEncoder(1000)),
    "RBM 784-500, persistent": (784, RBM(500, persistent=True)),
    "StackedAutoEncoder 784-500-250-30, fine-tuned": (
        784,
        StackedAutoEncoder((500, 250, 30), layer="denoising", fine_tuning=True),
    ),
}


def main():
    """Measure all cases and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    repeats, rows = parser.parse_args().repeats, []
    print_machine()
    for name, (width, model) in CASES.items():
        X = np.random.default_rng(0).random((1000, width), dtype=np.float32)
        with tempfile.TemporaryDirectory() as folder:
            n_steps = 10 * 2 * (4 if "Stacked" in name else 1)
            shares, looks, size = measured(model, X, Path(folder), n_steps, repeats)
        rows.append([name, f"{size / 1e6:.2f}", spread(shares, 3), spread(looks, 2)])
        print(f"{name}: share of a minute {verdict(shares, 0.01)}", flush=True)
    print_table("Checkpoints", ["model", "file, MB", "of a minute", "time with looks"], rows)


def measured(model, X, folder, n_steps, repeats):
    """Shares of a minute that a write takes, ratios of times with looks, and bytes of a file."""

    def fit(**options):
        path = folder / f"fit{time.perf_counter_ns()}"
        callbacks = [Checkpoint(path, **options)] if options else None
        given = {"max_iter": 2, "batch_size": 100, "random_state": 0, "callbacks": callbacks}
        type(model)(**model.get_params(deep=False) | given).fit(X)
        sizes = [file.stat().st_size for file in folder.glob("fit*")]
        for file in folder.glob("fit*"):
            file.unlink()
        return max(sizes, default=0)

    fit()  # what is made once in a process
    seconds, results = interleave({"plain": fit, "kept": lambda: fit(every=0)}, repeats)
    cost = (seconds["kept"] - seconds["plain"]) / n_steps
    # Looks wait for nothing, so that processor time tells of them on a busy machine, too.
    runs = {"plain": fit, "looks": lambda: fit(every=1e9)}
    looks, _ = interleave(runs, repeats, clock=time.process_time)
    return cost / 60, looks["looks"] / looks["plain"], results["kept"]


if __name__ == "__main__":
    main()
