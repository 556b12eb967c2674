"""
Gaussian visible units on raw data
==================================

`skae.RBM` with Gaussian units on raw columns, whose standard deviations span five orders of
magnitude: breast cancer (30 columns of sizes and shapes) and Olivetti faces (64 x 64 grey levels
from 0 to 242). Everything is reported in the data's units: reconstruction errors, densities in
nats, means and standard deviations of samples.

Breast cancer (standard deviations 0.0023 to 577):

    hidden units, variance   error   log-likelihood   pseudo-log-l.   std of samples / data
    16, learned, CD-1        0.49      3.49            11.55          0.74 [0.58, 0.97]
    16, learned              0.47      8.99            11.88          0.99 [0.91, 1.09]
    16, unit                 0.50      3.92             6.01          1.25 [1.14, 1.42]
    128, learned             0.37                      15.35          1.04 [0.96, 1.12]
    128, unit                0.45                       6.16          1.27 [1.12, 1.37]
    independent Gaussians             -3.54            -3.54

Olivetti faces (standard deviations 21 to 51 grey levels):

    hidden units, variance   error   grey levels   pseudo-log-l.   std of samples / data
    200, learned             0.54    18.77         -17705          1.07 [0.69, 1.62]
    200, unit                0.54    18.59         -18668          1.33 [0.94, 1.95]
    independent Gaussians                          -20240

The error is that of test rows, root mean squared, as a fraction of the column's standard
deviation (median over columns); likelihoods are of test rows, in nats; the means of samples of
persistent chains are within 0.87 standard deviations of the data's. After CD-1 the machine's own
distribution is another one than the data's (means of samples up to 1.79 standard deviations
off), which only the exact likelihood shows: reconstructions and pseudo-likelihood are about as
good as those after persistent chains.

Samples of machines with unit variance must be wider than the data: each column has the data's
own variance given the hidden units, and what the hidden units do comes on top.

Three quarters to train on, a quarter to test on (seed 0). Stochastic gradient descent, batches
of 20, falling linearly to 0; persistent chains with five Gibbs steps unless said otherwise. The
independent Gaussians have the training columns' means and standard deviations. Log Z is exact
where there are at most 16 hidden units; pseudo-likelihoods of faces are over 1000 pixels, scaled
up. Samples: 500 of breast cancer and 100 faces after 1000 Gibbs steps; of breast cancer also 250
by parallel tempering with 10 temperatures, after 500 (between 4096 pixels at so few temperatures
no swap is ever accepted, and `sample` warns).

Rerun: ``python examples/reproductions/gaussian_rbm.py [--out FILE]`` (107 s on one busy core;
the figures are those of OMP_NUM_THREADS=1). The faces need the environment variable SKAE_DATA to
name a folder with ``olivetti_faces.npz`` (X of shape (400, 64, 64), y), and are left out
otherwise. ``--out`` writes a picture of them. It fails if a machine is not better than
independent Gaussians, or a column of samples is far from the data's scale.
"""

import argparse
import copy
import os
import time
from pathlib import Path

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

from skae import RBM

TABLE_RUNS = {
    "16, learned, CD-1": {"n_components": 16, "persistent": False, "n_gibbs_steps": 1},
    "16, learned": {"n_components": 16},
    "16, unit": {"n_components": 16, "visible_variance": "unit"},
    "128, learned": {"n_components": 128, "learning_rate": 0.01, "max_iter": 200},
    "128, unit": {
        "n_components": 128,
        "learning_rate": 0.01,
        "max_iter": 200,
        "visible_variance": "unit",
    },
}
FACE_RUNS = {
    "200, learned": {"n_components": 200, "learning_rate": 0.01},
    "200, unit": {"n_components": 200, "learning_rate": 0.01, "visible_variance": "unit"},
}


def load_faces():
    """Faces, one row of 4096 grey levels each, and whose they are; None where absent."""
    path = Path(os.environ.get("SKAE_DATA", ""), "olivetti_faces.npz")
    if not path.is_file():
        print(f"\n{path} is absent: no faces. Set SKAE_DATA.")
        return None
    with np.load(path) as data:
        return data["X"].reshape(len(data["X"]), -1).astype(np.float32), data["y"]


def fit(X, **parameters):
    """A machine, and the seconds it took."""
    defaults = {"persistent": True, "n_gibbs_steps": 5, "learning_rate": 0.05, "max_iter": 300}
    started = time.perf_counter()
    rbm = RBM(
        visible="gaussian",
        batch_size=20,
        learning_rate_schedule="linear",
        device="cpu",
        random_state=0,
        **{**defaults, **parameters},
    ).fit(X)
    return rbm, time.perf_counter() - started


def independent(rbm):
    """The same machine without hidden units' influence: Gaussians of the columns' own scale."""
    silent = copy.deepcopy(rbm)
    silent.weights_ = {name: np.zeros_like(value) for name, value in rbm.weights_.items()}
    return silent


def log_density(X, train):
    """Mean log-density of the rows under independent Gaussians, by the formula."""
    mean, std = train.mean(0, dtype=np.float64), train.std(0, dtype=np.float64)
    z = (X - mean) / std
    return float(-(0.5 * z**2 + np.log(std) + 0.5 * np.log(2 * np.pi)).sum(1).mean())


def report_fit(name, rbm, seconds, train, test):
    """Print errors and densities; return the gain over independent Gaussians in nats."""
    residual = test - rbm.reconstruct(test)
    fraction = np.sqrt(np.square(residual).mean(0)) / train.std(0)
    ours, theirs = rbm.score(test), independent(rbm).score(test)
    print(
        f"{name}: fit {seconds:.0f} s\n"
        f"  reconstruction error of test rows: {middle(fraction)} of a column's standard deviation,"
        f" {np.sqrt(np.square(residual).mean()):.2f} in data units\n"
        f"  test pseudo-log-likelihood {ours:.2f} nats ({len(test)} train rows"
        f" {rbm.score(train[: len(test)]):.2f}), independent Gaussians {theirs:.2f}"
        f" (all columns, by the formula: {log_density(test, train):.2f})"
    )
    if rbm.n_components <= 16:
        log_z = rbm.log_partition_function("exact").value
        print(
            f"  test log-likelihood {rbm.score(test, log_partition=log_z):.2f} nats"
            f" (train {rbm.score(train, log_partition=log_z):.2f}),"
            f" independent Gaussians {log_density(test, train):.2f}, exact"
        )
    ratio = rbm.visible_scale_ / train.std(0)
    print(f"  standard deviation of a unit given the hidden ones: {middle(ratio)} of its column's")
    return ours - theirs


def report_samples(rbm, train, n_samples, tempering=True):
    """Print samples' means and spreads beside the data's; return those of plain Gibbs steps."""
    kinds = {"Gibbs": rbm.sample(n_samples, burn_in=1000)}
    if tempering:
        kinds["tempering"] = rbm.sample(n_samples // 2, burn_in=500, n_temperatures=10)
    mean, std = train.mean(0), train.std(0)
    for kind, samples in kinds.items():
        means, spreads = samples.mean(0) / mean, samples.std(0) / std
        shift = np.abs(samples.mean(0) - mean) / std
        print(
            f"  samples / data, {kind}: mean {middle(means)}, standard deviation"
            f" {middle(spreads)}; means at most {shift.max():.2f} standard deviations off",
            flush=True,
        )
        # Columns whose mean is far from 0 on the scale of their spread can tell a wrong factor.
        assert spreads.min() > 0.2
        assert spreads.max() < 5
        assert shift.max() < 3
    return kinds["Gibbs"]


def middle(values):
    """Median and range."""
    return f"{np.median(values):.2f} [{np.min(values):.2f}, {np.max(values):.2f}]"


def draw(path, test, pictures):
    """Write a picture: a row of originals, and of each kind of face made from or like them."""
    import matplotlib.pyplot as plt

    rows = {"test faces": test, **pictures}
    figure, axes = plt.subplots(len(rows), 10, figsize=(10, 1.2 * len(rows)))
    for (name, faces), line in zip(rows.items(), axes, strict=True):
        for face, ax in zip(faces, line, strict=False):
            ax.imshow(face.reshape(64, 64), cmap="gray", vmin=0, vmax=242)
            ax.set(xticks=[], yticks=[])
        line[0].set_title(name, fontsize=8, loc="left")
    figure.subplots_adjust(0.01, 0.01, 0.99, 0.97, wspace=0.03, hspace=0.2)
    figure.savefig(path, dpi=100)


def main():
    """Fit the machines and print what the docstring reports."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", default=None, help="file for a picture of the faces")
    arguments, started, gains = parser.parse_args(), time.perf_counter(), []

    X, y = load_breast_cancer(return_X_y=True)
    train, test = train_test_split(X, test_size=0.25, random_state=0, stratify=y)
    spread = train.std(0)
    print(f"breast cancer, standard deviations {spread.min():.3g} to {spread.max():.3g}")
    for name, parameters in TABLE_RUNS.items():
        rbm, seconds = fit(train, n_scored_columns=None, **parameters)
        gains.append(report_fit(name, rbm, seconds, train, test))
        report_samples(rbm, train, 500)

    faces = load_faces()
    if faces is not None:
        X, y = faces
        train, test = train_test_split(X, test_size=0.25, random_state=0, stratify=y)
        spread, pictures = train.std(0), {}
        print(f"\nOlivetti faces, standard deviations {spread.min():.3g} to {spread.max():.3g}")
        for name, parameters in FACE_RUNS.items():
            rbm, seconds = fit(train, n_scored_columns=1000, max_iter=100, **parameters)
            gains.append(report_fit(name, rbm, seconds, train, test))
            samples = report_samples(rbm, train, 100, tempering=False)
            pictures[f"{name}: reconstructions"] = rbm.reconstruct(test[:10])
            pictures[f"{name}: samples"] = samples
        if arguments.out:
            draw(arguments.out, test, pictures)
    print(f"\n{time.perf_counter() - started:.0f} s")
    assert min(gains) > 0


if __name__ == "__main__":
    main()
