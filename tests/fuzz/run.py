"""Many random attacks on all estimators, counted.

    python tests/fuzz/run.py --cases 20000 --seed 1

Each case is an estimator with random parameters, random rows and a random sequence of calls; see
`attacks.py` for what is tried and `properties.py` for what has to hold. Failures are shortened and
printed once for each kind of message; the exit status is 1 if there are any. The same seed tries
the same cases.
"""

import argparse
import os
import re
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = os.environ["SCIPY_ARRAY_API"] = "1"
sys.path.insert(0, str(Path(__file__).parents[1]))

from fuzz.attacks import CASES, attacks
from fuzz.properties import ViolatedError, check
from hypothesis import HealthCheck, Phase, given, seed, settings

# Cases of one estimator after the other.
CHUNK = 50


def main():
    """Run the cases in chunks, each with its own seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    size = max(1, min(CHUNK, options.cases // len(CASES)))
    started, counter, failures = time.process_time(), Counter(), {}
    n_cases = n_failed = 0
    for chunk in range(-(-options.cases // size)):
        wanted = min(size, options.cases - chunk * size)

        @seed(options.seed * 100_003 + chunk)
        @settings(
            max_examples=wanted,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(attacks(CASES[chunk % len(CASES)]))
        def one(attack):
            nonlocal n_cases, n_failed
            n_cases += 1
            counter[f"case: {attack.estimator}"] += 1
            try:
                check(attack, counter)
            except Exception as error:
                n_failed += 1
                message = _kind(error)
                kind = f"{attack.estimator}: {message}"
                if kind not in failures:
                    failures[kind] = [0, attack]
                    cause = error.__cause__ or error
                    where = "".join(traceback.format_tb(cause.__traceback__)[-3:])
                    print(f"\n{kind}\n{error}\n{attack!r}\n{where}", flush=True)
                failures[kind][0] += 1

        one()
        if chunk % len(CASES) == len(CASES) - 1:
            seconds = time.process_time() - started
            print(f"# {n_cases} cases, {n_failed} failed, {seconds:.0f} s", flush=True)
    print("\n".join(f"{number:8d} {name}" for name, number in sorted(counter.items())))
    for kind, (number, _) in sorted(failures.items(), key=lambda item: -item[1][0]):
        print(f"{number:8d} FAILED {kind}")
    print(f"{n_cases} cases, {n_failed} failed, {time.process_time() - started:.0f} s of CPU")
    return 1 if n_failed else 0


def _kind(error):
    """What a failure is about, without its numbers."""
    name = "" if isinstance(error, ViolatedError) else f"{type(error).__name__}: "
    text = re.sub(r"^call \d+, ", "", str(error))
    return re.sub(r"[-+\d.e]*\d[-+\d.e]*", "#", name + text.splitlines()[0])[:150]


if __name__ == "__main__":
    sys.exit(main())
