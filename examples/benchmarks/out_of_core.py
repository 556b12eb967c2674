"""Rows that do not fit into memory: time of an epoch and peak memory, beside rows that do.

What is compared. Rows of float32 are written by blocks into a temporary folder, as a memory map,
Parquet of row groups of 16 MB, or an array of zarr or h5py in chunks of 4 MB. An ``AutoEncoder`` is
fitted on them in a fresh process, whose peak memory beyond the interpreter with torch and skae
imported is sampled every 20 ms; so are ``transform`` and, of Parquet, `skae.transform_to_parquet`.
The time of one more epoch (a fit of two epochs less one of one, so that what is read to describe
the columns does not count) is set beside that of as many rows in memory: a part of them, an array,
is visited as often as all rows have it.

What makes it fair. All fits alternate, each in a fresh process; what is written has been in the
system's cache as far as that has room, for all alike. Batches, units and threads are the same.
Seconds are of the wall and of the processors, where a thread that reads ahead counts as well; on a
machine that others use, the latter say more.

    python examples/benchmarks/out_of_core.py [--gigabytes 8] [--form map parquet zarr h5py]
        [--columns 64] [--units 16] [--repeats 1] [--folder /tmp]

Linux only. Needs ``--gigabytes`` on the disk, for one form after the other, and gives them back.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import sklearn
import torch
from measuring import PeakMemory, in_fresh_process, print_machine, print_table, spread, verdict

import skae
from skae import AutoEncoder, transform_to_parquet

BLOCK, BATCH_SIZE, PART = 4 * 2**20, 100, 256 * 10**6


def rows_of(number, n_rows, n_columns):
    """A block of rows with structure: a few hidden causes and noise, on a raw scale."""
    random = np.random.default_rng(number)
    causes = random.standard_normal((n_rows, 8), np.float32)
    loadings = np.random.default_rng(-1 % 2**32).standard_normal((8, n_columns), np.float32)
    return 3 + causes @ loadings + random.standard_normal((n_rows, n_columns), np.float32)


def write(form, folder, n_rows, n_columns):
    """Write all rows, block by block; return where."""
    step = max(1, BLOCK // (4 * n_columns))
    path = Path(folder) / f"rows.{form}"
    blocks = [(start, min(step, n_rows - start)) for start in range(0, n_rows, step)]
    if form == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        names = [f"column {number}" for number in range(n_columns)]
        schema = pa.schema([(name, pa.float32()) for name in names])
        with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
            for place in range(0, len(blocks), 4):
                group = [rows_of(k, n, n_columns) for k, n in blocks[place : place + 4]]
                columns = np.ascontiguousarray(np.concatenate(group).T)
                writer.write_table(pa.table(list(columns), schema=schema), len(columns[0]))
        return path
    if form == "map":
        file = np.lib.format.open_memmap(path, "w+", np.float32, (n_rows, n_columns))
    elif form == "zarr":
        import zarr

        file = zarr.create_array(
            path, shape=(n_rows, n_columns), chunks=(step, n_columns), dtype="f4", compressors=None
        )
    else:
        import h5py

        file = h5py.File(path, "w").create_dataset(
            "rows", (n_rows, n_columns), "f4", chunks=(step, n_columns)
        )
    for start, n in blocks:
        file[start : start + n] = rows_of(start, n, n_columns)
    if form == "map":
        file.flush()
    elif form == "h5py":
        file.file.close()
    return path


def opened(form, path):
    """What was written, as a user would open it."""
    if form == "map":
        return np.load(path, mmap_mode="r")
    if form == "parquet":
        import pyarrow.dataset as ds

        return ds.dataset(path)
    if form == "zarr":
        import zarr

        return zarr.open_array(path, mode="r")
    import h5py

    return h5py.File(path, "r")["rows"]


def fit(form, path, n_columns, n_units, n_epochs, methods=False):
    """Seconds of the wall and of processors of a fit, and peak memory of it and other methods.

    ``form`` is "memory" for a part of the rows that is made in memory, and ``path`` its rows then.
    """
    X = rows_of(0, path, n_columns) if form == "memory" else opened(form, path)
    model = AutoEncoder(
        n_units, batch_size=BATCH_SIZE, max_iter=n_epochs, device="cpu", random_state=0
    )
    peaks = {}
    with PeakMemory() as memory:
        start = time.perf_counter(), time.process_time()
        model.set_params(n_iter_no_change=None).fit(X)
        seconds = time.perf_counter() - start[0], time.process_time() - start[1]
    peaks["fit"] = memory.peak["VmRSS"]
    if methods:
        with PeakMemory() as memory:
            n_bytes = model.transform(X).nbytes
        peaks[f"transform, {n_bytes / 1e9:.2f} GB of codes"] = memory.peak["VmRSS"]
    if methods and form == "parquet":
        with PeakMemory() as memory:
            transform_to_parquet(model, X, Path(path).with_name("codes"))
        peaks["transform_to_parquet"] = memory.peak["VmRSS"]
        Path(path).with_name("codes").unlink()
    return seconds, peaks


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gigabytes", type=float, default=8)
    parser.add_argument("--form", nargs="+", default=["map", "parquet", "zarr", "h5py"])
    parser.add_argument("--columns", type=int, default=64)
    parser.add_argument("--units", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--folder", default=None)
    arguments = parser.parse_args()
    if not sys.platform.startswith("linux"):
        parser.exit(message="This benchmark reads /proc/self/status: Linux only.\n")
    print_machine(torch, sklearn, skae)
    n_columns, n_units = arguments.columns, arguments.units
    n_rows = int(arguments.gigabytes * 1e9) // (4 * n_columns)
    part = min(n_rows // 2, PART // (4 * n_columns))
    n_parts = round(n_rows / part)
    n_rows = n_parts * part
    for form in arguments.form:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            path = write(form, folder, n_rows, n_columns)
            ratios, epochs, peaks = [], {form: [], "memory": []}, {}
            for repeat in range(arguments.repeats):
                of = {form: (path, (1, 2)), "memory": (part, (1, 1 + n_parts))}
                own = {}
                for name, (where, (few, many)) in of.items():
                    both = [
                        in_fresh_process(
                            fit, name, where, n_columns, n_units, n, repeat == 0 and n == 1
                        )
                        for n in (few, many)
                    ]
                    own[name] = np.subtract(both[1][0], both[0][0])
                    epochs[name].append(own[name])
                    if name == form and repeat == 0:
                        peaks = both[0][1] | {"fit": max(found["fit"] for _, found in both)}
                ratios.append(own[form] / own["memory"])
        ratios = np.array(ratios)
        print_table(
            f"{form}: {n_rows:,} x {n_columns} float32, {n_rows * n_columns * 4 / 1e9:.2f} GB, "
            f"{n_units} units, {arguments.repeats} repeats, {torch.get_num_threads()} threads",
            ("one more epoch", "seconds", "of processors"),
            [
                (name, spread(np.array(times)[:, 0]), spread(np.array(times)[:, 1]))
                for name, times in epochs.items()
            ]
            + [("ratio", spread(ratios[:, 0]), spread(ratios[:, 1]))],
        )
        print(f"  ratio of the processors' seconds {verdict(ratios[:, 1], 1.3)}")
        for name, peak in peaks.items():
            print(f"  peak of {name}: {peak / 1e9:.3f} GB beyond the start", end="; ")
            print(verdict([peak / 1e9], 1.0), flush=True)


if __name__ == "__main__":
    main()
