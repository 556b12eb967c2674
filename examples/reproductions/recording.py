"""What a reproduction measured, kept in a file: `record`, of which `published.py` makes a table."""

import datetime
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import sklearn
import torch
from figures import FIGURES

import skae

RECORDS = Path(__file__).parent / "records"


def record(figure, values, *, seeds, settings, started, details=None, folder=RECORDS):
    """Write one measured figure to ``records/FIGURE.json``; a file that is there is replaced.

    Parameters
    ----------
    figure : str
        A name of `figures.FIGURES`, where the published value stands.
    values : float or sequence of float
        One value for each seed, in the unit of its group.
    seeds : int or sequence of int
        Of the fits, or of the draws of labels or splits.
    settings : dict
        What the figure depends on: rows, epochs, what was chosen and by what.
    started : float
        ``time.perf_counter()`` before the first fit.
    details : dict, default=None
        Other numbers of the same runs: by-products, errors of validation.
    folder : path-like
        Where records are.

    Returns
    -------
    path : Path
        The file.
    """
    if figure not in FIGURES:
        raise ValueError(f"{figure!r} is none of the published figures: add it to figures.py.")
    values, seeds = np.atleast_1d(values).astype(float), np.atleast_1d(seeds)
    if len(values) != len(seeds) or not np.isfinite(values).all():
        raise ValueError(f"{len(values)} values for {len(seeds)} seeds, or not finite: {values}.")
    content = {
        "figure": figure,
        "values": values.tolist(),
        "seeds": seeds.tolist(),
        "mean": float(values.mean()),
        # Standard deviation over seeds.
        "spread": float(values.std(ddof=1)) if len(values) > 1 else None,
        "published": FIGURES[figure].published,
        "settings": settings,
        "details": details or {},
        "command": command(),
        "commit": COMMIT,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "seconds": round(time.perf_counter() - started, 1),
        "machine": machine(),
    }
    path = Path(folder, f"{figure}.json")
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=1, default=_plain) + "\n", encoding="utf-8")
    return path


def read_records(folder=RECORDS):
    """What was recorded, by the name of its figure."""
    paths = sorted(Path(folder).glob("*.json"))
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in paths}


def command():
    """The command line that runs this script again, from the root of the repository."""
    script = Path(sys.argv[0])
    arguments = [argument if " " not in argument else f'"{argument}"' for argument in sys.argv[1:]]
    return " ".join(["python", f"examples/reproductions/{script.name}", *arguments])


def commit():
    """The commit of the code, "changed" after it if the package is not as committed.

    Where there is no repository, the environment variable SKAE_COMMIT, or None.
    """
    root = Path(__file__).parents[2]

    def git(*arguments):
        call = ["git", "-C", str(root), *arguments]
        return subprocess.run(call, capture_output=True, text=True, check=True).stdout.strip()

    try:
        named = git("rev-parse", "--short=10", "HEAD")
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "skae", "examples")
        changes = [line for line in changed.splitlines() if "reproductions/records/" not in line]
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("SKAE_COMMIT")
    return f"{named}, changed" if changes else named


def machine():
    """Processor, GPU if torch has one, threads, and versions of what does the work."""
    packages = {"skae": skae, "torch": torch, "scikit-learn": sklearn, "numpy": np}
    return {
        "processor": _processor(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: package.__version__ for name, package in packages.items()},
    }


def _processor():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


# Of the code that runs, whatever is committed meanwhile.
COMMIT = commit()


def _plain(value):
    """Numbers and arrays of NumPy, as JSON knows them."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"A record holds numbers, text, lists and dicts, not {type(value).__name__}.")
