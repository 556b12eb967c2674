"""Every byte of small model files flipped in turn, and every length tried.

    python tests/fuzz/model_file.py
    python tests/fuzz/model_file.py --bits    # every bit as well, which takes five times as long

For each model it prints how many damaged files were tried, how many were refused by
`skae.ModelFileError`, how many were the same model to the bit, and the longest time of one. The
exit status is 1 if one was anything else: another model, another error, code that ran, a file that
was opened, a process that was started, or more than a second.
"""

import os
import sys
import time
import warnings
from collections import Counter
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = os.environ["SCIPY_ARRAY_API"] = "1"
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import pandas as pd
from fuzz.properties import digest

import skae
from skae.estimators.persistence import from_bytes

# What a file that is read as data has no reason to do. (Headers of arrays are parsed as literals:
# that compiles, and does not execute.)
FORBIDDEN = (
    "exec", "open", "import", "os.", "subprocess.", "socket.", "pickle.find_class", "marshal.",
    "ctypes.", "shutil.", "code.__new__", "function.__new__",
)  # fmt: skip
SECONDS = 1.0


def models():
    """Small models of different kinds, by a name."""
    rows = np.random.default_rng(0).random((9, 3))
    table = pd.DataFrame({"a": [1.0, 2, 3, np.nan] * 3, "b": list("xyz") * 4})
    yield "AutoEncoder", skae.AutoEncoder(2, max_iter=1, random_state=0).fit(rows)
    yield "AutoEncoder of a table", skae.AutoEncoder(2, max_iter=1, random_state=0).fit(table)
    classes = np.array(["no", "yes"])[np.arange(9) % 2]
    classifier = skae.StackedClassifier((2,), max_iter=1, output="linear", random_state=0)
    yield "StackedClassifier", classifier.fit(rows, classes)


def damaged(data, bits):
    """(what was done, bytes) for all damaged files; with ``bits``, those with one bit flipped."""
    changes = (0xFF, *(1 << bit for bit in range(8))) if bits else (0xFF,)
    for place in range(len(data)):
        for change in changes:
            file = bytearray(data)
            file[place] ^= change
            yield "byte" if change == 0xFF else "bit", bytes(file)
    for length in range(len(data)):
        yield "length", data[:length]


def main():
    """Attack the files of all models."""
    seen: list[str] = []
    is_loading = [False]

    def watch(event, arguments):
        if is_loading[0] and event.startswith(FORBIDDEN):
            seen.append(f"{event} {str(arguments)[:200]}")

    warnings.simplefilter("ignore")
    failed = 0
    for name, model in models():
        path = Path(os.environ.get("TMPDIR", "/tmp")) / f"skae-attack-{os.getpid()}"
        skae.save(model, path)
        data = path.read_bytes()
        path.unlink()
        expected = digest(vars(from_bytes(data)))
        if not failed and not seen and name == "AutoEncoder":
            sys.addaudithook(watch)
        counts, longest = Counter(), 0.0
        for kind, file in damaged(data, "--bits" in sys.argv):
            counts[f"{kind}s"] += 1
            started, is_loading[0] = time.process_time(), True
            try:
                again = from_bytes(file)
                outcome = "same"
            except skae.ModelFileError:
                outcome = "refused"
            except BaseException as error:
                outcome = f"another error, {type(error).__name__}"
            is_loading[0] = False
            longest = max(longest, time.process_time() - started)
            if outcome == "same" and digest(vars(again)) != expected:
                outcome = "ANOTHER MODEL"
            counts[f"{kind}s {outcome}"] += 1
            failed += outcome not in ("same", "refused")
        failed += longest > SECONDS
        print(f"{name}, {len(data)} bytes: {dict(sorted(counts.items()))}, longest {longest:.3f} s")
    for event in dict.fromkeys(seen):
        print(f"FORBIDDEN: {event}")
    print(f"{failed + len(seen)} failures")
    return 1 if failed or seen else 0


if __name__ == "__main__":
    sys.exit(main())
