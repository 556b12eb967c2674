"""Apply deliberate faults, one at a time, and see whether the tests notice.

    python tests/faults/run.py                      # all of them
    python tests/faults/run.py penalties test_rbm   # those with such a word
    python tests/faults/run.py --shard 0/4          # every fourth, from the first

Each fault is applied to a copy of the package in a temporary folder, where the test files that
should notice it run on one process until one fails. The last line counts those that were noticed;
the exit status is 1 if some were not.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = os.environ["SCIPY_ARRAY_API"] = "1"
sys.path.insert(0, str(Path(__file__).parent))

# Imported once: every fault's tests run in a fork of this process, which imports skae alone.
import joblib  # noqa: F401
import pandas  # noqa: F401
import pytest
import scipy.stats  # noqa: F401
import sklearn.datasets
import sklearn.model_selection
import sklearn.utils.estimator_checks  # noqa: F401
import torch  # noqa: F401
from deliberate import FAULTS, apply, locate

ROOT = Path(__file__).parents[2]
PYTEST = ("-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist")


def run(folder, tests, timeout):
    """Run test files in the copy; pytest's exit status and what it said last."""
    output = folder / "output.txt"
    child = os.fork()
    if child == 0:
        os.setsid()
        os.chdir(folder)
        with output.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        os.environ["PYTHONPATH"] = str(folder)
        sys.path.insert(0, str(folder))
        import skae

        assert skae.__file__.startswith(str(folder)), skae.__file__
        status = pytest.main([*PYTEST, *tests])
        sys.stdout.flush()
        os._exit(status)
    started = time.perf_counter()
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        if time.perf_counter() - started > timeout:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return 1, "ran into the time limit"
        time.sleep(0.05)
    lines = output.read_text().splitlines()
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return os.waitstatus_to_exitcode(status), (failed or lines or [""])[-1]


def copy_of_the_package(folder):
    """Package, tests and what they read, where no fault has been applied yet."""
    for name in ("skae", "tests", "doc", "examples"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder / name)


def main():
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument(
        "words", nargs="*", help="only faults whose place, description or tests have one"
    )
    parser.add_argument("--shard", default="0/1", help="k/n: every n-th, from the k-th")
    parser.add_argument("--timeout", type=float, default=300, help="seconds for one fault")
    options = parser.parse_args()
    first, step = map(int, options.shard.split("/"))
    chosen = [
        fault
        for fault in FAULTS
        if not options.words
        or any(word in " ".join([fault.place, fault.what, *fault.tests]) for word in options.words)
    ][first::step]
    missed = []
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        copy_of_the_package(folder)
        for fault in chosen:
            path, started = locate(fault, folder / "skae"), time.perf_counter()
            before = path.read_text()
            apply(fault, path)
            status, last = run(folder, fault.tests, options.timeout)
            path.write_text(before)
            noticed = status == pytest.ExitCode.TESTS_FAILED  # not: could not be collected
            missed += [] if noticed else [fault]
            seconds = time.perf_counter() - started
            print(
                f"{'noticed' if noticed else 'MISSED '} {seconds:5.1f} s  "
                f"{fault.place}: {fault.what}"
            )
            print(f"    {last.strip()[:160]}", flush=True)
    print(f"{len(chosen) - len(missed)} of {len(chosen)} deliberate faults were noticed.")
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
