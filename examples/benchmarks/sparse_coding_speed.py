"""Time of sparse inference and of dictionary learning, beside SPAMS, dictlearn and scikit-learn.

Inference. The codes argmin_h 1/2 |x - h D|^2 + alpha |h|_1 of the same rows with the same
dictionary, in float32:

- ``SparseCoder.transform`` of skae, with the dictionary given: with the extra ``fast``, whose
  search numba has compiled before, and without it;
- ``sparse_encode`` of scikit-learn, by coordinate descent ("lasso_cd") and by paths
  ("lasso_lars"), on as many of the rows as take a few seconds, scaled up to all;
- ``spams.lasso`` (``pip install "skae[benchmark]"``), with as many threads as torch;
- ``dictlearn.sparse_encode`` by 300 steps of FISTA, on a part of the rows, too; its objective is
  twice this one.

Every call pays for all that its user pays for, the Gram matrix included. The objective that
each reaches is computed from its codes in float64 and compared: what is faster because it
stops early would show. Runs alternate; "to SPAMS" is the least time of all repeats, over the least
of SPAMS, since another job only ever adds to a time. The data are

- 10,000 patches of 12 x 12 grey pixels of CIFAR-10, centred and contrast-normalised, with 256
  atoms; one time as they are, one time whitened. Atoms of whitened patches are nearly
  orthogonal, so that all methods take few steps; without whitening they are not;
- 1,000 digits of MNIST, 784 columns, with 1,000 atoms.

alpha is set so that codes have so many atoms on average. Dictionaries are learned by skae on
rows of their own.

Learning. ``SparseCoder.fit`` beside ``spams.trainDL`` and scikit-learn's
``MiniBatchDictionaryLearning``: the same rows, atoms, alpha, batches and passes over the data; and
the objective on rows that none has seen, by the same inference.

    SKAE_DATA=... python examples/benchmarks/sparse_coding_speed.py [--quick] [--repeats N]
        [--only patches]

Set OMP_NUM_THREADS or run under `taskset` to fix the cores; run on a quiet machine.
"""

import argparse
import os
import warnings
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import sklearn
import torch
from measuring import (
    interleave,
    load_mnist_in_unit,
    print_machine,
    print_table,
    spread,
    verdict,
)
from sklearn.datasets import load_digits
from sklearn.decomposition import MiniBatchDictionaryLearning, sparse_encode
from sklearn.exceptions import ConvergenceWarning

import skae
from skae import PatchWhitener, SparseCoder
from skae.engine.optimisation import compilation

try:
    import spams
except ImportError:
    spams = None
try:
    import dictlearn
except ImportError:
    dictlearn = None

# Rows of which the slow peers are given a part.
_ROWS_OF_PEERS = 500


class Problem(NamedTuple):
    """Rows, a dictionary, and the mean numbers of active atoms to ask for."""

    name: str
    load: object
    n_components: int
    n_active: tuple


def load_patches(whitened, n_rows=10_000):
    """(training rows, rows to encode): patches of 12 x 12 grey pixels, float32."""
    path = Path(os.environ.get("SKAE_DATA", "")) / "cifar10_10k.npz"
    generator = np.random.default_rng(0)
    if path.is_file():
        with np.load(path) as arrays:
            images = arrays["X"].mean(axis=3)
    else:
        print(f"{path} is absent: pieces of scikit-learn's digits, enlarged, stand in.")
        images = np.kron(load_digits().images, np.ones((4, 4))) * 16
        images += generator.normal(size=images.shape)
    n_images, height, width = images.shape
    rows, columns = np.arange(12)[:, np.newaxis], np.arange(12)
    image = generator.integers(0, n_images, 2 * n_rows)[:, np.newaxis, np.newaxis]
    top = generator.integers(0, height - 11, (2 * n_rows, 1, 1))
    left = generator.integers(0, width - 11, (2 * n_rows, 1, 1))
    patches = images[image, top + rows, left + columns].reshape(2 * n_rows, -1)
    if whitened:
        patches = PatchWhitener(random_state=0).fit(patches[:n_rows]).transform(patches)
    else:
        patches = patches - patches.mean(axis=1, keepdims=True)
        patches /= np.sqrt(patches.var(axis=1, keepdims=True) + 10)
    patches = (patches / np.sqrt(np.square(patches).sum(axis=1).mean())).astype(np.float32)
    return patches[:n_rows], patches[n_rows:]


def load_mnist():
    """(training rows, rows to encode), centred by the mean of the former."""
    X = load_mnist_in_unit(6_000)
    X = X - X[:5_000].mean(axis=0)
    return X[:5_000], X[5_000:]


PROBLEMS = [
    Problem("patches", partial(load_patches, False), 256, (5, 11, 25, 40)),
    Problem("whitened patches", partial(load_patches, True), 256, (5, 11, 25, 40)),
    Problem("MNIST", load_mnist, 1000, (20, 60)),
]


# --- contestants: each returns codes of its rows --------------------------------------


def encode_by_skae(X, D, alpha):
    coder = SparseCoder(dictionary=D, alpha=alpha, device="cpu").fit(X[:1000])
    return coder.transform(X)


def without_numba(function, *arguments, **options):
    """What a function does on an installation without the extra."""
    is_compiled = compilation.is_compiled
    compilation.is_compiled = lambda: False
    try:
        return function(*arguments, **options)
    finally:
        compilation.is_compiled = is_compiled


def encode_by_dictlearn(X, D, alpha):
    return dictlearn.sparse_encode(X, D, algorithm="fista", alpha=2 * alpha, max_iter=300)


def encode_by_sklearn(algorithm, X, D, alpha):
    return sparse_encode(X, D, algorithm=algorithm, alpha=alpha)


def encode_by_spams(X, D, alpha):
    codes = spams.lasso(
        np.asfortranarray(X.T),
        D=np.asfortranarray(D.T),
        lambda1=alpha,
        mode=2,
        numThreads=torch.get_num_threads(),
    )
    return codes.T


def objectives(X, D, codes, alpha):
    """The objective of each row, in float64."""
    codes = codes.toarray() if hasattr(codes, "toarray") else np.asarray(codes)
    X, D, codes = X.astype(np.float64), D.astype(np.float64), codes.astype(np.float64)
    return 0.5 * np.square(X - codes @ D).sum(axis=1) + alpha * np.abs(codes).sum(axis=1)


def find_alpha(X, D, n_active):
    """The alpha for which codes of some rows have ``n_active`` atoms on average."""
    low, high = 1e-4, float(np.abs(X @ D.T).max())
    for _ in range(16):
        alpha = np.sqrt(low * high)
        found = (encode_by_skae(X[:500], D, alpha) != 0).sum(axis=1).mean()
        low, high = (alpha, high) if found > n_active else (low, alpha)
    return float(alpha)


# --- comparisons ------------------------------------------------------------------------


def fastest(seconds, name, peer="SPAMS"):
    """The least time of a run over that of a peer: another job only ever adds to a time."""
    return seconds[name].min() / seconds[peer].min()


def compare_inference(problem, n_repeats, quick):
    training, X = problem.load()
    X = X[:2000] if quick else X
    learner = SparseCoder(
        problem.n_components, alpha=0.1, loss="squared_error", max_iter=5, random_state=0
    )
    D = learner.fit(training).components_
    for n_active in problem.n_active:
        alpha = find_alpha(X, D, n_active)
        part = X[:: max(1, len(X) // _ROWS_OF_PEERS)]
        peers = {}
        if not quick:
            for algorithm in ("lasso_lars", "lasso_cd"):
                peers[f"scikit-learn, {algorithm}"] = partial(encode_by_sklearn, algorithm, part)
            if dictlearn is not None:
                peers["dictlearn, fista"] = partial(encode_by_dictlearn, part)
        runs = {"skae": partial(encode_by_skae, X)}
        if compilation.is_compiled() and not quick:
            runs["skae without numba"] = partial(without_numba, encode_by_skae, X)
        if spams is not None:
            runs["SPAMS"] = partial(encode_by_spams, X)
        contestants = {
            name: partial(run, D=D, alpha=alpha) for name, run in {**runs, **peers}.items()
        }
        for name in runs:
            contestants[name]()  # warm-up
        seconds, codes = interleave(contestants, n_repeats)
        for name in peers:
            seconds[name] *= len(X) / len(part)
        reached = {}
        for name, found in codes.items():
            rows = part if name in peers else X
            reached[name] = objectives(rows, D, found, alpha)
        rows = []
        for name in contestants:
            reference = reached["skae"][:: max(1, len(X) // _ROWS_OF_PEERS) if name in peers else 1]
            excess = reached[name].sum() / reference.sum() - 1
            ratio = seconds[name] / seconds["skae"]
            to_spams = "" if spams is None else f"{fastest(seconds, name):.2f}"
            cells = [spread(seconds[name], 3), spread(ratio), to_spams, f"{excess:+.1e}"]
            rows.append([name, *cells])
        active = (codes["skae"] != 0).sum(axis=1).mean()
        print_table(
            f"{problem.name}: {len(X)} x {X.shape[1]}, {len(D)} atoms, alpha {alpha:.3g}, "
            f"{active:.1f} active",
            ["", "seconds", "times skae", "to SPAMS", "objective"],
            rows,
        )
        if spams is not None:
            print(f"  of SPAMS's time, {verdict(fastest(seconds, 'skae'), 0.7)}")


def learn_by_spams(X, size, alpha, n_batches):
    return spams.trainDL(
        np.asfortranarray(X.T),
        K=size,
        lambda1=alpha,
        mode=2,
        iter=n_batches,
        batchsize=256,
        numThreads=torch.get_num_threads(),
        verbose=False,
    ).T


def compare_learning(n_repeats, quick):
    training, held_out = load_patches(False)
    training, held_out = training[: 2000 if quick else None], held_out[:2000]
    n_epochs, alpha, size = 2, 0.17, 256
    options = {"alpha": alpha, "max_iter": n_epochs, "batch_size": 256, "random_state": 0}
    ours = SparseCoder(size, loss="squared_error", n_iter_no_change=None, device="cpu", **options)
    theirs = MiniBatchDictionaryLearning(size, max_no_improvement=None, tol=0.0, **options)
    runs = {"skae": lambda: ours.fit(training).components_}
    if compilation.is_compiled():
        runs["skae without numba"] = partial(without_numba, runs["skae"])
    if spams is not None:
        n_batches = n_epochs * -(-len(training) // 256)
        runs["SPAMS"] = partial(learn_by_spams, training, size, alpha, n_batches)
    if not quick:
        runs["scikit-learn"] = lambda: theirs.fit(training).components_
    runs["skae"]()  # warm-up
    seconds, dictionaries = interleave(runs, n_repeats)
    rows = []
    for name, D in dictionaries.items():
        D = np.ascontiguousarray(D, dtype=np.float32)
        found = objectives(held_out, D, encode_by_skae(held_out, D, alpha), alpha).mean()
        ratio = seconds[name] / seconds["skae"]
        to_spams = "" if spams is None else f"{fastest(seconds, name):.2f}"
        rows.append([name, spread(seconds[name], 2), spread(ratio), to_spams, f"{found:.5f}"])
    print_table(
        f"learning {size} atoms from {len(training)} patches, {n_epochs} passes, alpha {alpha}",
        ["", "seconds", "times skae", "to SPAMS", "objective on other rows"],
        rows,
    )
    if spams is not None:
        print(f"  of SPAMS's time, {verdict(fastest(seconds, 'skae'), 1)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer rows, and SPAMS alone")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", default="", help="part of a problem's name, or 'learning'")
    arguments = parser.parse_args()
    print_machine(skae, torch, sklearn)
    print(f"threads: {torch.get_num_threads()}; numba: {compilation.is_compiled()}")
    if spams is None:
        print('SPAMS is absent (pip install "skae[benchmark]"): left out.')
    warnings.simplefilter("ignore", ConvergenceWarning)  # of scikit-learn, in float32
    for problem in PROBLEMS:
        if arguments.only in problem.name:
            compare_inference(problem, arguments.repeats, arguments.quick)
    if arguments.only in "learning":
        compare_learning(arguments.repeats, arguments.quick)


if __name__ == "__main__":
    main()
