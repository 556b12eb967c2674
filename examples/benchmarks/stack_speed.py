"""Time of supervised training: skae beside a torch loop and scikit-learn's MLPClassifier.

What is compared. Epochs of a net without pre-training (``pretraining=None``), of the same sizes,
batches and optimiser (Adam at 1e-3), float32:

- ``StackedClassifier`` of skae;
- torch as people write it by hand: ``nn.Sequential`` of linear and sigmoid layers, all data in one
  tensor, a permutation and ``index_select`` in every epoch, ``cross_entropy``, ``optim.Adam`` with
  its fused kernel, the loss read once an epoch;
- ``MLPClassifier`` of scikit-learn with logistic units, its stopping and penalty switched off.

What makes it fair. Every contestant gets the same NumPy array, and its time is that of the whole
`fit` of a number of epochs, less that of a `fit` of one epoch, by epoch: what is paid once
(validation, conversion, imports) is not counted. All run interleaved in one process. Final losses
on the training rows are printed: they must have learned alike.

    SKAE_DATA=... python examples/benchmarks/stack_speed.py [--repeats N] [--only NAME]
"""

import argparse
import itertools
import time
import warnings
from typing import NamedTuple

import numpy as np
import sklearn
import torch
from measuring import (
    load_digits_in_unit,
    load_mnist_in_unit,
    print_machine,
    print_table,
    spread,
    verdict,
)
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import log_loss
from sklearn.neural_network import MLPClassifier
from torch import nn

import skae
from skae import AutoEncoder, StackedClassifier


class Configuration(NamedTuple):
    """One net on one data set."""

    name: str
    load: object
    sizes: tuple
    batch_size: int
    n_epochs: int


def load_mnist():
    """The first 10,000 images, with labels where they are not needed: digits of the position."""
    X = load_mnist_in_unit(10_000)
    # Any labels make the same work; these can be learned.
    y = np.argmax(X @ np.random.default_rng(0).normal(size=(784, 10)), axis=1)
    return X, y


def load_iris_in_unit():
    """Iris, four columns in [0, 1]."""
    X, y = load_iris(return_X_y=True)
    return (X / X.max(0)).astype(np.float32), y


CONFIGURATIONS = [
    Configuration("iris, 4-10-3, batch 32", load_iris_in_unit, (10,), 32, 201),
    Configuration("digits, 64-100-10, batch 200", load_digits_in_unit, (100,), 200, 61),
    Configuration("digits, 64-32-32-10, batch 32", load_digits_in_unit, (32, 32), 32, 31),
    Configuration("MNIST, 784-256-256-10, batch 100", load_mnist, (256, 256), 100, 6),
    Configuration("MNIST, 784-1000-1000-1000-10, batch 100", load_mnist, (1000,) * 3, 100, 3),
]


def fit_skae(configuration, X, y, n_epochs):
    """Fit and return the function that gives probabilities."""
    model = StackedClassifier(
        layers=[AutoEncoder(size) for size in configuration.sizes],
        pretraining=None,
        batch_size=configuration.batch_size,
        max_iter=n_epochs,
        n_iter_no_change=None,
        output_penalty=0.0,
        device="cpu",
        random_state=0,
    )
    return model.fit(X, y).predict_proba


def fit_torch(configuration, X, y, n_epochs):
    """The same by hand."""
    generator = torch.Generator().manual_seed(0)
    data, target = torch.from_numpy(X), torch.from_numpy(y.astype(np.int64))
    sizes = (X.shape[1], *configuration.sizes)
    parts = []
    for below, above in itertools.pairwise(sizes):
        parts += [nn.Linear(below, above), nn.Sigmoid()]
        bound = 4 * (6 / (below + above)) ** 0.5
        nn.init.uniform_(parts[-2].weight, -bound, bound, generator=generator)
        nn.init.zeros_(parts[-2].bias)
    net = nn.Sequential(*parts, nn.Linear(sizes[-1], int(y.max()) + 1))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)
    for _ in range(n_epochs):
        total = torch.zeros(())
        for batch in torch.randperm(len(data), generator=generator).split(configuration.batch_size):
            optimizer.zero_grad()
            output = net(data.index_select(0, batch))
            loss = nn.functional.cross_entropy(output, target.index_select(0, batch))
            loss.backward()
            optimizer.step()
            total += loss.detach()
        total.item()

    def probabilities(rows):
        with torch.no_grad():
            return net(torch.from_numpy(rows)).softmax(1).numpy()

    return probabilities


def fit_sklearn(configuration, X, y, n_epochs):
    """The same by scikit-learn."""
    model = MLPClassifier(
        configuration.sizes,
        activation="logistic",
        alpha=0.0,
        batch_size=configuration.batch_size,
        max_iter=n_epochs,
        n_iter_no_change=n_epochs + 1,
        tol=0.0,
        random_state=0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(X, y).predict_proba


CONTESTANTS = {"skae": fit_skae, "torch": fit_torch, "MLPClassifier": fit_sklearn}


def time_epoch(fit, configuration, X, y):
    """Seconds of an epoch, and the fitted function."""
    seconds = []
    for n_epochs in (1, configuration.n_epochs):
        started = time.perf_counter()
        probabilities = fit(configuration, X, y, n_epochs)
        seconds.append(time.perf_counter() - started)
    return (seconds[1] - seconds[0]) / (configuration.n_epochs - 1), probabilities


def main(repeats=5, only=None):
    """Run all contestants, print ratios."""
    print_machine(skae, torch, sklearn)
    for configuration in CONFIGURATIONS:
        if only is not None and only not in configuration.name:
            continue
        X, y = configuration.load()
        seconds = {name: [] for name in CONTESTANTS}
        losses = {}
        names = list(CONTESTANTS)
        for repeat in range(repeats):
            for name in names[repeat % 3 :] + names[: repeat % 3]:
                taken, probabilities = time_epoch(CONTESTANTS[name], configuration, X, y)
                seconds[name].append(taken)
                losses[name] = log_loss(y, probabilities(X))
        ours = np.array(seconds["skae"])
        rows = []
        for name in names:
            ratio = ours / np.array(seconds[name])
            goal = {"torch": 1.1, "MLPClassifier": 1.0}.get(name)
            said = "" if goal is None else verdict(ratio, goal)
            milliseconds = f"{1000 * np.median(seconds[name]):.2f}"
            rows.append((name, milliseconds, spread(ratio), f"{losses[name]:.3f}", said))
        header = ("", "ms an epoch", "skae / this", "final loss", "goal")
        print_table(configuration.name, header, rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", help="part of a configuration's name")
    main(**vars(parser.parse_args()))
