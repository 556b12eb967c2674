"""Fits that are killed at random moments, by SIGKILL, until they have ended: their bits.

    python tests/fuzz/killed_fits.py               # fifty kills of each model
    python tests/fuzz/killed_fits.py --kills 10 --seed 1

Each fit runs in a process of its own, which writes after every step and is killed after a random
time, in the middle of steps and of writes. The next one goes on. A fit that ends before it was
killed often enough begins anew. All that the fits leave has to be, to the bit, what a fit leaves
that was never killed. The exit status is 1 if something was not. Children are forks, so this runs
where systems fork.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = os.environ["SCIPY_ARRAY_API"] = "1"
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from fuzz.properties import digest

import skae

ROWS = np.random.default_rng(0).normal(size=(200, 6))
CLASSES = (ROWS[:, 0] > 0).astype(int)
SETTINGS = {"max_iter": 10, "batch_size": 20, "random_state": 0}
MODELS = {
    "early stopping": skae.DenoisingAutoEncoder(4, early_stopping=True, **SETTINGS),
    "persistent chains": skae.RBM(4, persistent=True, **SETTINGS),
    "a dictionary": skae.SparseCoder(5, inference_tol=1e-2, **SETTINGS),
    "machines": skae.DeepBeliefNetwork((4, 3), **SETTINGS),
    "a deep machine": skae.DeepBoltzmannMachine((4, 3), n_chains=10, **SETTINGS),
    "layers and output": skae.StackedClassifier((4, 3), output="linear", **SETTINGS),
    "a mean": skae.AutoEncoder(4, **SETTINGS).set_params(callbacks=[skae.Snapshots(3)]),
}


def left(model):
    """What a fit has left, to the bit."""
    return digest({name: value for name, value in vars(model).items() if name != "callbacks"})


def fit(model, checkpoint):
    """A copy of a model, fitted and kept."""
    kept = skae.estimators.face.callbacks.callbacks_of(model).snapshots
    model = type(model)(**model.get_params(deep=False))
    return model.set_params(callbacks=[c for c in (kept, checkpoint) if c]).fit(ROWS, CLASSES)


def killed(name, model, n_kills, generator, folder):
    """Kill a model's fits so many times; how often one ended, and how many files were left."""
    plain = left(fit(model, None))
    checkpoint = skae.Checkpoint(folder / "fit", every=0)
    started = time.perf_counter()
    assert left(fit(model, checkpoint)) == plain, f"{name}: other bits by being kept"
    whole, n_killed, n_ended = time.perf_counter() - started, 0, 0
    for path in folder.iterdir():
        path.unlink()
    while n_killed < n_kills or not n_ended:
        child = os.fork()
        if child == 0:
            status = 2
            try:
                status = 0 if left(fit(model, checkpoint)) == plain else 3
            finally:
                os._exit(status)
        time.sleep(generator.uniform(0, 0.4 * whole))
        os.kill(child, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status == -signal.SIGKILL:
            n_killed += 1
            continue
        assert status == 0, f"{name}: " + ("an error" if status == 2 else "other bits")
        n_ended += 1
        for path in folder.iterdir():
            path.unlink()
    return f"{name}: killed {n_killed} times, ended {n_ended} times, with the bits of a whole fit"


def main():
    """Kill all models' fits, and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    given, failed = parser.parse_args(), 0
    generator = np.random.default_rng(given.seed)
    for name, model in MODELS.items():
        with tempfile.TemporaryDirectory() as folder:
            try:
                print(killed(name, model, given.kills, generator, Path(folder)), flush=True)
            except AssertionError as error:
                failed += 1
                print(error, flush=True)
    print(f"{failed} of {len(MODELS)} models lost something")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
