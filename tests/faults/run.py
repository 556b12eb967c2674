"""Apply deliberate faults, one at a time, and see whether the tests notice.

    python tests/faults/run.py                      # all of them
    python tests/faults/run.py penalties rows       # those whose file or snippet has such a word
    python tests/faults/run.py --shard 0/4          # every fourth, from the first

Each fault is applied to a copy of the package in a temporary folder, where the test files that
should notice it run on one process until one fails. The last line counts those that were noticed;
the exit status is 1 if some were not.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from deliberate import FAULTS, apply

ROOT = Path(__file__).parents[2]
PYTEST = ("-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist")


def run(folder, arguments, timeout):
    """Run Python in the copy; its exit status and the last lines of what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        return 1, "ran into the time limit"
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return done.returncode, (failed or (done.stdout + done.stderr).splitlines() or [""])[-1]


def copy_of_the_package(folder):
    """Package, tests and what they read, where no fault has been applied yet."""
    for name in ("skae", "tests", "doc", "examples"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder / name)
    _, where = run(folder, ["-c", "import skae; print(skae.__file__)"], 120)
    assert where.startswith(str(folder)), f"the tests would see {where}"


def main():
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("words", nargs="*", help="only faults whose file or snippet has one")
    parser.add_argument("--shard", default="0/1", help="k/n: every n-th, from the k-th")
    parser.add_argument("--timeout", type=float, default=300, help="seconds for one fault")
    options = parser.parse_args()
    first, step = map(int, options.shard.split("/"))
    chosen = [
        fault
        for fault in FAULTS
        if not options.words or any(word in fault.file + fault.snippet for word in options.words)
    ][first::step]
    missed = []
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        copy_of_the_package(folder)
        for fault in chosen:
            path, started = folder / "skae" / fault.file, time.perf_counter()
            before = path.read_text()
            path.write_text(apply(fault, before))
            status, last = run(folder, [*PYTEST, *fault.tests], options.timeout)
            path.write_text(before)
            # 1: a test failed. 2: a test module could not even be imported.
            noticed = status in (1, 2)
            missed += [] if noticed else [fault]
            seconds = time.perf_counter() - started
            print(
                f"{'noticed' if noticed else 'MISSED '} {seconds:5.1f} s  {fault.file}: {fault.what}"
            )
            print(f"    {last.strip()[:160]}", flush=True)
    print(f"{len(chosen) - len(missed)} of {len(chosen)} deliberate faults were noticed.")
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
