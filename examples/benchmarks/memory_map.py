"""Memory and time of a fit on a memory map larger than one would load.

What is compared. A float32 file of 4 GB is written by blocks into a temporary folder;
``AutoEncoder(n_components=64)`` is fitted on ``np.load(path, mmap_mode="r")`` in a fresh
process, whose peak memory beyond the interpreter with torch and skae imported is sampled
every 20 ms. The time of one more epoch (a fit of two epochs less one of one) is set
beside the time of only reading the same rows in the same kind of random order, one batch
at a time.

What makes it fair. Fit and reading alternate, each in a fresh process; a first reading,
untimed, leaves to all the same state of the system's cache (on a machine with more free
memory than the file, the file is cached: then this measures copying, not the disk). The
data have structure: 16 hidden causes and some noise, in [0, 1] or, with ``--gaussian``,
on a raw scale, where skae standardises each batch.

    python examples/benchmarks/memory_map.py [--quick] [--gigabytes 4] [--gaussian]

Linux only. Needs the file's size on the disk of the temporary folder (TMPDIR).
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import sklearn
import torch
from measuring import (
    PeakMemory,
    in_fresh_process,
    interleave,
    print_machine,
    print_table,
    spread,
    verdict,
)

import skae
from skae import AutoEncoder

N_FEATURES, N_CAUSES, BATCH_SIZE, N_COMPONENTS = 1024, 16, 100, 64


def write_rows(path, gigabytes, gaussian):
    """Write structured rows by blocks of 32 MB."""
    random = np.random.default_rng(0)
    loadings = random.normal(size=(N_CAUSES, N_FEATURES)).astype(np.float32)
    n_rows = int(gigabytes * 1e9) // (4 * N_FEATURES)
    file = np.lib.format.open_memmap(path, "w+", np.float32, (n_rows, N_FEATURES))
    for start in range(0, n_rows, 8192):
        n = min(8192, n_rows - start)
        block = random.standard_normal((n, N_CAUSES), np.float32) @ loadings
        block += random.standard_normal((n, N_FEATURES), np.float32)
        file[start : start + n] = 10 + 3 * block if gaussian else 1 / (1 + np.exp(-block))
    file.flush()
    return n_rows


def fit(path, n_epochs):
    """Fit on the memory map; return seconds and peak memory beyond the start."""
    X = np.load(path, mmap_mode="r")
    model = AutoEncoder(
        N_COMPONENTS, batch_size=BATCH_SIZE, max_iter=n_epochs, device="cpu", random_state=0
    )
    with PeakMemory() as memory:
        start = time.perf_counter()
        model.fit(X)
        seconds = time.perf_counter() - start
    return seconds, memory.peak


def read(path):
    """Copy all rows in random order, one batch at a time; return seconds."""
    X = np.load(path, mmap_mode="r")
    start = time.perf_counter()
    order = np.random.default_rng(0).permutation(len(X))
    for batch in np.array_split(order, -(-len(X) // BATCH_SIZE)):
        X[batch]
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="0.5 GB and one repeat")
    parser.add_argument("--gigabytes", type=float, default=None, help="default: 4, or 0.5 if quick")
    parser.add_argument("--gaussian", action="store_true", help="raw columns, not in [0, 1]")
    parser.add_argument("--repeats", type=int, default=None, help="default: 3, or 1 if quick")
    arguments = parser.parse_args()
    if not sys.platform.startswith("linux"):
        parser.exit(message="This benchmark reads /proc/self/status: Linux only.\n")
    gigabytes = arguments.gigabytes or (0.5 if arguments.quick else 4)
    n_repeats = arguments.repeats or (1 if arguments.quick else 3)

    print_machine(torch, sklearn, skae)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.npy"
        n_rows = write_rows(path, gigabytes, arguments.gaussian)
        in_fresh_process(read, path)
        kept = {"fit, 1 epoch": [], "fit, 2 epochs": [], "reading": []}
        runs = {
            "fit, 1 epoch": lambda: kept["fit, 1 epoch"].append(in_fresh_process(fit, path, 1)),
            "fit, 2 epochs": lambda: kept["fit, 2 epochs"].append(in_fresh_process(fit, path, 2)),
            "reading": lambda: kept["reading"].append((in_fresh_process(read, path), None)),
        }
        interleave(runs, n_repeats)

    seconds = {name: np.array([time for time, _ in values]) for name, values in kept.items()}
    seconds["one more epoch"] = seconds["fit, 2 epochs"] - seconds["fit, 1 epoch"]
    print_table(
        f"{n_rows} x {N_FEATURES} float32, {gigabytes:g} GB, batch {BATCH_SIZE}, "
        f"{N_COMPONENTS} components, {n_repeats} repeats",
        ("", "seconds", "this / reading"),
        [
            (name, spread(times), spread(times / seconds["reading"]))
            for name, times in seconds.items()
        ],
    )
    peaks = [peak for name in ("fit, 1 epoch", "fit, 2 epochs") for _, peak in kept[name]]
    for field in PeakMemory.fields:
        print(f"  peak {field} beyond the start: {spread([p[field] / 1e6 for p in peaks], 0)} MB")
    resident = np.array([peak["VmRSS"] / 1e9 for peak in peaks])
    print(f"  peak resident memory in GB: {spread(resident)}; goal {verdict(resident, 1.0)}")


if __name__ == "__main__":
    main()
