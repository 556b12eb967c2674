"""Every estimator on a GPU beside the CPU: the same results, and how much time they take.

1. Agreement. Estimators of every family are fitted on both devices. A GPU draws other numbers, so
   that scores are compared; and what each model says of the rows on one device it has to say on
   the other, up to rounding.
2. Steps. Time of a gradient step, on the CPU, on the GPU by one launch for each operation, and on
   the GPU replayed as a CUDA graph; the last two have to end with the same bits.
3. A search over 64 candidates: `BatchedGridSearchCV` on the GPU, beside `GridSearchCV` on the GPU
   and on all cores of the CPU, scores compared.
4. Sparse codes of 10,000 patches, on the GPU and on the CPU, beside SPAMS on all cores where it is
   installed; objectives compared.
5. `ManifoldTangentClassifier` on 5,000 digits of MNIST.

A time on the GPU includes the way there and back. The first run on each device is not counted.

    SKAE_DATA=... python examples/benchmarks/gpu.py [--parts agreement steps search codes tangent]
        [--device cuda]

``--device cpu`` rehearses it without a GPU. Needs about three minutes.
"""

import argparse
import os
import time
import warnings
from functools import partial

import numpy as np
import sklearn
import torch
from measuring import (
    interleave,
    load_digits_in_unit,
    load_mnist_in_unit,
    print_machine,
    print_table,
)
from sklearn.model_selection import GridSearchCV
from sparse_coding_speed import (
    encode_by_spams,
    load_patches,
    objectives,
    spams,
)

import skae
from skae.engine.optimisation import replay

FEW = {"max_iter": 20, "random_state": 0}
CHECKED = {
    "AutoEncoder": skae.AutoEncoder(32, **FEW),
    "AutoEncoder, deep": skae.AutoEncoder(8, hidden_layer_sizes=(32,), **FEW),
    "ContractiveAutoEncoder": skae.ContractiveAutoEncoder(32, **FEW),
    "DenoisingAutoEncoder": skae.DenoisingAutoEncoder(32, **FEW),
    "PSD": skae.PSD(32, **FEW),
    "SparseCoder": skae.SparseCoder(32, inference_tol=1e-6, **FEW),
    "RBM": skae.RBM(32, **FEW),
    "RBM, persistent": skae.RBM(32, persistent=True, **FEW),
    "DeepBeliefNetwork": skae.DeepBeliefNetwork((32, 16), **FEW),
    "DeepBoltzmannMachine": skae.DeepBoltzmannMachine((32, 16), **FEW),
    "DeepRecurrentAutoEncoder": skae.DeepRecurrentAutoEncoder((32, 16), **FEW),
    "GenerativeStochasticNetwork": skae.GenerativeStochasticNetwork((32, 16), **FEW),
    "TableFeatures": skae.TableFeatures(16, **FEW),
    "StackedAutoEncoder": skae.StackedAutoEncoder((32, 16), layer="contractive", **FEW),
    "StackedClassifier": skae.StackedClassifier((32,), layer="contractive", **FEW),
    "StackedRegressor": skae.StackedRegressor((32,), layer="contractive", **FEW),
    "ManifoldTangentClassifier": skae.ManifoldTangentClassifier((32,), max_iter=5, random_state=0),
}


def described(model, X):
    """What a fitted model says of rows."""
    if hasattr(model, "predict_proba"):
        return model.predict_proba(X)
    return model.predict(X) if hasattr(model, "predict") else model.transform(X)


def difference(a, b):
    """The largest absolute difference, as a part of the largest absolute value."""
    return float(np.abs(a - b).max() / np.abs(a).max())


def agreement(device):
    """Fit on both devices, and let each model speak on both."""
    X, y = load_digits_in_unit()
    X, y = X[:1000], y[:1000]
    rows, wrong = [], []
    for name, model in CHECKED.items():
        seconds, scores, carried = [], [], []
        for place, other in (("cpu", device), (device, "cpu")):
            start = time.perf_counter()
            one = sklearn.clone(model).set_params(device=place).fit(X, y)
            seconds.append(time.perf_counter() - start)
            scores.append(one.score(X, y))
            said = described(one, X)
            carried.append(difference(said, described(one.set_params(device=other), X)))
        # A GPU draws other numbers, the weights at the start included.
        apart = abs(scores[0] - scores[1]) / max(abs(scores[0]), 1.0)
        if not (apart < 0.1 and max(carried) < 1e-3 and np.isfinite(said).all()):
            wrong.append(name)
        cells = (f"{value:.1e}" for value in (apart, *carried))
        rows.append((name, *cells, *(f"{value:.2f}" for value in seconds)))
    moved = "CPU's on the GPU", "GPU's on the CPU"
    header = ("", "scores apart", *moved, "s on the CPU", f"s on {device}")
    print_table(f"{len(X)} digits, 20 epochs", header, rows)
    print(f"  disagree: {', '.join(wrong) or 'none'}", flush=True)


def without_replay(function):
    """Run a function that launches each operation by itself."""
    kept = dict(replay.RECORDERS)
    replay.RECORDERS.clear()
    try:
        return function()
    finally:
        replay.RECORDERS.update(kept)


def fitted_on(device, model, X):
    """A copy of a model, fitted there."""
    return sklearn.clone(model).set_params(device=device).fit(X)


def steps(device):
    """Time of gradient steps."""
    digits, mnist = load_digits_in_unit()[0], load_mnist_in_unit()
    sizes = [
        ("digits, 32 units, batch 32", digits, 32, 32, 20),
        ("MNIST, 256 units, batch 100", mnist, 256, 100, 4),
        ("MNIST, 1000 units, batch 100", mnist, 1000, 100, 4),
        ("MNIST, 1000 units, batch 1000", mnist, 1000, 1000, 20),
    ]
    kinds = {
        "plain": skae.AutoEncoder,
        "contractive": skae.ContractiveAutoEncoder,
        "denoising": skae.DenoisingAutoEncoder,
        "deep": partial(skae.AutoEncoder, hidden_layer_sizes=(500,)),
    }
    rows, unequal = [], []
    for title, X, n_components, batch_size, n_epochs in sizes:
        for kind, make in kinds.items():
            model = make(
                n_components, batch_size=batch_size, max_iter=n_epochs, n_iter_no_change=None,
                random_state=0,
            )  # fmt: skip
            fit = {
                "cpu": lambda model=model, X=X: (
                    sklearn.clone(model).set_params(device="cpu").fit(X)
                ),
                "launched": lambda model=model, X=X: without_replay(
                    lambda: sklearn.clone(model).set_params(device=device).fit(X)
                ),
                "replayed": lambda model=model, X=X: (
                    sklearn.clone(model).set_params(device=device).fit(X)
                ),
            }
            for name in ("launched", "replayed"):
                fit[name]()
            seconds, fitted = interleave(fit, 1)
            n_steps = n_epochs * round(len(X) / batch_size)
            cells = [f"{seconds[name][0] / n_steps * 1e6:.0f}" for name in fit]
            rows.append((f"{title}, {kind}", *cells))
            weights = [fitted[name].weights_ for name in ("launched", "replayed")]
            same = all(np.array_equal(weights[0][name], weights[1][name]) for name in weights[0])
            if not same:
                unequal.append(f"{title}, {kind}")
    header = ("microseconds a step, of a whole fit", "CPU", "launched", "replayed")
    print_table(f"steps, {torch.get_num_threads()} threads of the CPU", header, rows)
    print(f"  other bits when replayed: {', '.join(unequal) or 'none'}", flush=True)


def search(device):
    """A search over 64 candidates."""
    X = load_digits_in_unit()[0]
    model = skae.ContractiveAutoEncoder(
        64, max_iter=30, n_iter_no_change=None, random_state=0, device=device
    )
    grid = {
        "contraction": list(np.geomspace(1e-3, 1, 8)),
        "learning_rate": list(np.geomspace(3e-4, 3e-3, 8)),
    }
    on_cpu = sklearn.clone(model).set_params(device="cpu")
    n_cores = os.cpu_count()
    searches = {
        "batched, GPU": skae.BatchedGridSearchCV(model, grid, cv=3, refit=False),
        "batched, CPU": skae.BatchedGridSearchCV(on_cpu, grid, cv=3, refit=False),
        "GridSearchCV, GPU": GridSearchCV(model, grid, cv=3, refit=False),
        f"GridSearchCV, CPU, {n_cores} workers": GridSearchCV(
            on_cpu, grid, cv=3, refit=False, n_jobs=n_cores
        ),
    }
    found = {}
    for name, one in searches.items():
        few = {key: values[:2] for key, values in grid.items()}
        one.set_params(param_grid=few).fit(X)
        start = time.perf_counter()
        one.set_params(param_grid=grid).fit(X)
        found[name] = time.perf_counter() - start, one.cv_results_["mean_test_score"]
    ours = found["batched, GPU"]
    rows = [
        (name, f"{seconds:.2f}", f"{seconds / ours[0]:.1f}", f"{np.abs(s - ours[1]).max():.1e}")
        for name, (seconds, s) in found.items()
    ]
    header = ("", "seconds", "to batched, GPU", "scores apart")
    print_table("64 candidates x 3 folds, digits, 64 units, 30 epochs", header, rows)


def codes(device):
    """Sparse codes of patches."""
    training, X = load_patches(False)
    learner = skae.SparseCoder(
        256, alpha=0.1, loss="squared_error", max_iter=5, random_state=0, device="cpu"
    )
    D = learner.fit(training).components_
    rows = []
    for alpha in (0.4, 0.2, 0.1, 0.05):

        def coded(place, alpha=alpha):
            coder = skae.SparseCoder(dictionary=D, alpha=alpha, device=place).fit(X[:1000])
            return coder.transform(X)

        runs = {device: partial(coded, device), "cpu": partial(coded, "cpu")}
        if spams is not None:
            runs["SPAMS"] = partial(encode_by_spams, X, D, alpha)
        for run in runs.values():
            run()
        seconds, results = interleave(runs, 3)
        best = min(objectives(X, D, result, alpha).mean() for result in results.values())
        n_active = (np.asarray(results["cpu"]) != 0).sum(1).mean()
        for name in runs:
            excess = objectives(X, D, results[name], alpha).mean() / best - 1
            rows.append(
                (f"{n_active:.0f} active, {name}", f"{seconds[name].min():.3f}", f"{excess:.0e}")
            )
    header = ("", "seconds", "objective above the best")
    print_table(f"{len(X)} patches, 256 atoms, {torch.get_num_threads()} threads", header, rows)


def tangent(device):
    """The manifold tangent classifier."""
    X = load_mnist_in_unit(6000)
    path = os.path.join(os.environ.get("SKAE_DATA", ""), "mnist_train.npz")
    if not os.path.isfile(path):
        print("  MNIST is absent: its classes have no stand-in.")
        return
    with np.load(path) as arrays:
        y = arrays["y"][:6000]
    rows = []
    for place in ("cpu", device):
        model = skae.ManifoldTangentClassifier((256,), random_state=0, device=place)
        start = time.perf_counter()
        model.fit(X[:5000], y[:5000])
        seconds = time.perf_counter() - start
        rows.append((place, f"{seconds:.1f}", f"{1 - model.score(X[5000:], y[5000:]):.4f}"))
    header = ("", "seconds", "error of 1,000 others")
    print_table("ManifoldTangentClassifier, 5,000 digits of MNIST, 256 units", header, rows)


PARTS = {f.__name__: f for f in (agreement, steps, search, codes, tangent)}


def main():
    """Run the parts that were asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--device", default="cuda")
    arguments = parser.parse_args()
    print_machine(torch, sklearn, skae)
    if arguments.device.startswith("cuda"):
        print(torch.cuda.get_device_name())
    warnings.simplefilter("ignore")
    for name in arguments.parts:
        start = time.perf_counter()
        PARTS[name](arguments.device)
        print(f"  {name}: {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
