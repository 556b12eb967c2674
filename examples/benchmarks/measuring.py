"""What the benchmarks share: interleaved timings, tables of ratios, peak memory, data.

A ratio is taken within each repeat, between two runs that follow each other, and the
median of these ratios is reported with their range: a machine that slows down for a
minute slows both sides of a ratio.
"""

import concurrent.futures
import multiprocessing
import os
import platform
import threading
import time
from pathlib import Path

import numpy as np
from scipy import ndimage
from sklearn.datasets import load_digits


def interleave(runs, n_repeats, clock=time.perf_counter):
    """Time every run once per repeat, in an order that rotates from repeat to repeat.

    Parameters
    ----------
    runs : dict of str to callable
    n_repeats : int
    clock : callable
        What tells the seconds. ``time.process_time``, with one thread, is for a busy machine.

    Returns
    -------
    seconds : dict of str to ndarray of shape (n_repeats,)
    results : dict of str to object
        What each run returned the last time.
    """
    names = list(runs)
    seconds, results = {name: np.zeros(n_repeats) for name in names}, {}
    for repeat in range(n_repeats):
        turn = repeat % len(names)
        for name in names[turn:] + names[:turn]:
            start = clock()
            results[name] = runs[name]()
            seconds[name][repeat] = clock() - start
    return seconds, results


def spread(values, digits=2):
    """Median and range, as "1.23 [1.20, 1.31]"."""
    return (
        f"{np.median(values):.{digits}f} [{np.min(values):.{digits}f}, {np.max(values):.{digits}f}]"
    )


def verdict(values, goal, *, at_least=False):
    """Whether the median is within a goal, in words."""
    met = np.median(values) >= goal if at_least else np.median(values) <= goal
    return f"{'at least' if at_least else 'at most'} {goal:g}: {'met' if met else 'MISSED'}"


def print_table(title, header, rows):
    """Print rows under a header, each column as wide as it needs."""
    table = [[str(cell) for cell in row] for row in [header, *rows]]
    widths = [max(len(row[column]) for row in table) for column in range(len(header))]
    print(f"\n{title}\n")
    for number, row in enumerate(table):
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        print("  " + "  ".join(cells).rstrip())
        if number == 0:
            print("  " + "  ".join("-" * width for width in widths))
    print(flush=True)


def print_machine(*modules):
    """Print the cores, the load and the versions that a result depends on."""
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    versions = ", ".join(f"{module.__name__} {module.__version__}" for module in modules)
    print(f"{os.cpu_count()} cores, {platform.machine()}{load}; {versions}")


def in_fresh_process(function, *arguments):
    """Call a function of a script in a new process that has only imported the script."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as executor:
        return executor.submit(function, *arguments).result()


class PeakMemory:
    """Context manager: peak memory of this process in its block, beyond the start.

    Linux only: it reads /proc/self/status every 20 ms from a thread.

    Attributes
    ----------
    peak : dict of str to float
        Bytes beyond the start, of the resident set ("VmRSS") and its parts:
        "RssAnon" is what the process allocated, "RssFile" is mapped files.
    """

    fields = ("VmRSS", "RssAnon", "RssFile")

    def __enter__(self):
        self._start = self._read()
        self._peak, self._ended = dict(self._start), threading.Event()
        self._sampler = threading.Thread(target=self._sample)
        self._sampler.start()
        return self

    def __exit__(self, *exception):
        self._ended.set()
        self._sampler.join()
        self.peak = {field: self._peak[field] - self._start[field] for field in self.fields}

    def _sample(self):
        ended = False
        while not ended:
            ended = self._ended.wait(0.02)
            for field, size in self._read().items():
                self._peak[field] = max(self._peak[field], size)

    def _read(self):
        sizes = {}
        for line in Path("/proc/self/status").read_text().splitlines():
            field, _, size = line.partition(":")
            if field in self.fields:
                sizes[field] = int(size.split()[0]) * 1024
        return sizes


def load_digits_in_unit():
    """The 1797 digits of scikit-learn, 64 columns in [0, 1], float32, and their labels."""
    X, y = load_digits(return_X_y=True)
    return (X / 16).astype(np.float32), y


def load_mnist_in_unit(n_rows=10_000):
    """The first rows of MNIST, 784 columns in [0, 1], float32.

    Where ``$SKAE_DATA/mnist_train.npz`` is absent, scikit-learn's digits enlarged to
    28 x 28 and repeated stand in: the same work for a timing, not the same losses.
    """
    path = Path(os.environ.get("SKAE_DATA", "")) / "mnist_train.npz"
    if path.is_file():
        with np.load(path) as arrays:
            X = arrays["X"][:n_rows]
        return (X.reshape(len(X), -1) / 255).astype(np.float32)
    print(f"{path} is absent: scikit-learn's digits, enlarged to 28 x 28, stand in for MNIST.")
    images = ndimage.zoom(load_digits().images / 16, (1, 3.5, 3.5), order=1).clip(0, 1)
    return np.resize(images.reshape(len(images), -1), (n_rows, 784)).astype(np.float32)
