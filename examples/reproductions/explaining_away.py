r"""
Explaining away: sparse inference on atoms that other models learned, CIFAR-10
==============================================================================

TODO
"""

import os
import sys
import time
from pathlib import Path

import numpy as np
from scipy.linalg import solve
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.cluster import MiniBatchKMeans
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import StratifiedKFold, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from skae import RBM, AutoEncoder, PatchFeatures, PatchWhitener, SparseCoder

N_ATOMS, N_DEVELOPMENT = 256, 2000
RIDGES = (100, 300, 1000, 2000, 4000, 8000, 16_000, 32_000)
ALPHAS = {"lasso": (1.0, 1.5), "threshold": (0.5, 1.0)}


def load():
    """Images as rows of uint8, and labels."""
    folder = os.environ.get("SKAE_DATA")
    path = Path(folder or "", "cifar10_10k.npz")
    if not folder or not path.exists():
        sys.exit("Set SKAE_DATA to a folder with cifar10_10k.npz; nothing was run.")
    with np.load(path) as data:
        return data["X"].reshape(10_000, -1), data["y"]


class RandomPatches(TransformerMixin, BaseEstimator):
    """Patches as atoms: a model that learns nothing."""

    def fit(self, X, y=None):
        """Keep the first rows, which `PatchFeatures` gives in random order."""
        self.components_ = X[:N_ATOMS]
        return self

    def transform(self, X):
        """Not judged; `PatchFeatures` asks for it."""
        return X @ self.components_.T


def triangle(distances):
    """Coates & Ng's code of k-means: how much nearer than average each centre is."""
    return np.maximum(distances.mean(1, keepdims=True) - distances, 0)


def models(seed):
    """What learns the atoms, by name."""
    training = {"max_iter": 15, "learning_rate_schedule": "linear", "random_state": seed}
    sparse = {"sparsity": 1.0, "sparsity_target": 0.05}
    return {
        "RBM": RBM(N_ATOMS, visible_variance="unit", learning_rate=0.01, **sparse, **training),
        "auto-encoder": AutoEncoder(
            N_ATOMS, learning_rate=3e-3, n_iter_no_change=None, **sparse, **training
        ),
        "k-means": make_pipeline(
            MiniBatchKMeans(N_ATOMS, n_init=1, random_state=seed), FunctionTransformer(triangle)
        ),
        "random patches": RandomPatches(),
        "sparse coding": SparseCoder(N_ATOMS, alpha=1.5, max_iter=10, random_state=seed),
    }


def features_by(encoder, images, seed):
    """Pooled codes of patches, whitened and encoded by what was learned from the images."""
    return PatchFeatures(
        encoder,
        image_shape=(32, 32, 3),
        patch_shape=6,
        stride=2,
        whitening=make_pipeline(PatchWhitener(), StandardScaler()),
        n_patches=50_000,
        random_state=seed,
    ).fit(images)


def ridge_decisions(X, y, ridges, test):
    """One-against-all ridge regressions on centred X: decisions on ``test`` for each ridge."""
    targets = np.where(y[:, np.newaxis] == np.arange(10), 1, -1).astype(X.dtype)
    mean = targets.mean(0)
    gram, moment = X.T @ X, X.T @ (targets - mean)
    for ridge in ridges:
        weights = solve(gram + ridge * np.eye(len(gram), dtype=X.dtype), moment, assume_a="pos")
        yield test @ weights + mean


def correct(features, labels, train, test):
    """Which test images a linear classifier gets right; its ridge is chosen within ``train``."""
    fit, validation = train_test_split(train, test_size=0.2, stratify=labels[train], random_state=0)
    scaled = StandardScaler().fit(features[fit]).transform(features)
    decisions = ridge_decisions(scaled[fit], labels[fit], RIDGES, scaled[validation])
    accuracies = [(d.argmax(1) == labels[validation]).mean() for d in decisions]
    ridge = RIDGES[int(np.argmax(accuracies))]
    scaled = StandardScaler().fit(features[train]).transform(features)
    (decisions,) = ridge_decisions(scaled[train], labels[train], [ridge], scaled[test])
    return decisions.argmax(1) == labels[test]


def splits(labels, always=()):
    """Train and test rows of five folds, with rows that are always in the training part."""
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    for train, test in folds.split(labels[len(always) :], labels[len(always) :]):
        yield np.concatenate([always, train + len(always)]).astype(int), test + len(always)


def judge(features, labels, n_always=0):
    """Accuracy of each fold, and for every image outside the first ``n_always`` if it is right."""
    right, folds = np.zeros(len(labels)), []
    for train, test in splits(labels, np.arange(n_always)):
        right[test] = correct(features, labels, train, test)
        folds.append(right[test].mean())
    return 100 * np.array(folds), 100 * right[n_always:]


def main(seed=0, n_images=10_000):
    """Learn the atoms, judge the encodings, and print what the docstring reports."""
    X, y = load()
    X, y = X[:n_images], y[:n_images]
    development = slice(0, N_DEVELOPMENT)
    for name, model in models(seed).items():
        started = time.process_time()
        own = features_by(model, X[development], seed)
        learned = own.encoder_[0] if name == "k-means" else own.encoder_
        print(f"{name}: learned in {time.process_time() - started:.0f} s", flush=True)
        right = {}
        if name not in ("random patches", "sparse coding"):
            folds, right["own"] = judge(own.transform(X), y, N_DEVELOPMENT)
            print(f"  own code: {folds.mean():.1f} +- {folds.std(ddof=1):.1f} %", flush=True)
        for encoding, alphas in ALPHAS.items():
            started, best, accuracies = time.process_time(), None, []
            for alpha in alphas:
                coder = SparseCoder(
                    dictionary=FrozenEstimator(learned),
                    alpha=alpha,
                    transform_algorithm=encoding,
                    split_sign=True,
                )
                mapped = features_by(coder, X[development], seed)
                features = mapped.transform(X[development])
                accuracies.append(judge(features, y[development])[0].mean())
                if accuracies[-1] == max(accuracies):
                    best = alpha, mapped, features
            alpha, mapped, features = best
            features = np.vstack([features, mapped.transform(X[N_DEVELOPMENT:])])
            folds, right[encoding] = judge(features, y, N_DEVELOPMENT)
            gain = ""
            if "own" in right:
                difference = right[encoding] - right["own"]
                error = difference.std(ddof=1) / len(difference) ** 0.5
                gain = f", {difference.mean():+.1f} +- {error:.1f} beside its own code"
            tried = ", ".join(f"{a}: {s:.1f}" for a, s in zip(alphas, accuracies, strict=True))
            print(
                f"  {encoding}, alpha {alpha} (of {tried}): {folds.mean():.1f} "
                f"+- {folds.std(ddof=1):.1f} %{gain}; {time.process_time() - started:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
