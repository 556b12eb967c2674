"""Time of `import skae` beyond what its users import anyway.

What is compared. Two kinds of fresh Python processes: one imports torch and the parts of
scikit-learn, NumPy and SciPy that every user of an estimator has loaded; the other
imports the same and then skae, whose part is also timed by itself there: the difference
of two long imports is noisier than that.

What makes it fair. The two alternate, so that both find the files in the system's cache
and meet the same load; one of each runs first, untimed. The clock starts inside the
process, before its first import: the start of the interpreter is not counted.

    python examples/benchmarks/import_time.py [--quick] [--repeats N]
"""

import argparse
import json
import subprocess
import sys

import numpy as np
import sklearn
import torch
from measuring import interleave, print_machine, print_table, spread, verdict

BASE = """
import numpy, scipy.sparse, torch, sklearn
import sklearn.base, sklearn.utils.validation, sklearn.pipeline, sklearn.model_selection
"""
REPORT = """
import time
start = time.perf_counter()
{base}
middle = time.perf_counter()
{ours}
end = time.perf_counter()
import json, sys
print(json.dumps([end - start, end - middle, sorted(sys.modules)]))
"""


def import_in_fresh_process(ours):
    """Seconds of all imports, of ``ours`` alone, and the modules loaded after them."""
    command = [sys.executable, "-c", REPORT.format(base=BASE, ours=ours)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(output)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="3 repeats")
    parser.add_argument("--repeats", type=int, default=None, help="default: 11, or 3 if quick")
    arguments = parser.parse_args()
    n_repeats = arguments.repeats or (3 if arguments.quick else 11)

    print_machine(torch, sklearn)
    kept = {"base": [], "base + skae": []}
    runs = {
        "base": lambda: kept["base"].append(import_in_fresh_process("")),
        "base + skae": lambda: kept["base + skae"].append(import_in_fresh_process("import skae")),
    }
    interleave(runs, 1)
    for values in kept.values():
        values.clear()
    interleave(runs, n_repeats)
    base, both = (np.array([total for total, _, _ in kept[name]]) for name in runs)
    alone = np.array([ours for _, ours, _ in kept["base + skae"]])
    print_table(
        f"imports in fresh processes, {n_repeats} repeats",
        ("", "seconds", "this / base"),
        [("base", spread(base), "1"), ("base + skae", spread(both), spread(both / base))],
    )
    print(f"  difference of the two: {spread(both - base, 3)} s")
    print(f"  import skae alone: {spread(alone, 3)} s; goal {verdict(alone, 0.2)}")
    before, after = (set(kept[name][-1][2]) for name in runs)
    extra = after - before
    foreign = sorted({name.split(".")[0] for name in extra} - {"skae"})
    print(f"  it loads {len(extra)} more modules; top-level packages beyond skae: {foreign}")


if __name__ == "__main__":
    main()
