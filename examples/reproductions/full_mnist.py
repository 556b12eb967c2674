"""MNIST with all labels and no knowledge of images: the manifold tangent classifier.

Published (Rifai et al., NIPS 2011): an error of 0.81 % on the test set, two layers of 2000,
tangents of the labelled rows. Here: the first 50,000 images of MNIST's training set to learn from,
the last 10,000 to judge by, and the classifier of `semi_supervised_mnist.py` as it is: two layers
of 1000, pre-trained as the bare constructor does it. What makes predictions smooth without labels
acts on rows whose class is -1; so that it acts at labelled rows, too, all rows are passed twice,
once with their class and once without.

Reached: **0.88 %** after 40 epochs (13,360 steps in 52 minutes on some 60 % of a busy core, besides
the pre-training's 18), 0.086 % at the rows learned from; after 40 more 0.93 and 0.022 %. The
standard error of such a figure is 0.09: the published one is within chance, but was not reached,
and training for longer does not help. Nor do longer moves (``unlabelled_step=(0.4, 0.3)``, 25
epochs): 1.04 and 0.342 %. A third layer, pre-trained like the second, has 0.87 and 0.062 % after 30
epochs (47 minutes): no better. Dropout of 0.1 and 0.5 with batches of 1000 at 2e-3 for 100 epochs:
1.07 and 0.47 %. These five are all that were run. The other parameters are those
that were chosen for few labels, on the same 10,000 images; there are 50,000 labels here where the
published classifier had 60,000.

    SKAE_DATA=... python examples/reproductions/full_mnist.py
        [--layers FILE] [--epochs N] [--runs N]

``--layers`` keeps the pre-trained layers in a file, or takes them from it. A run lets the learning
rate fall to 0 in so many epochs; the next one goes on from there.
"""

import argparse
import time

import numpy as np
from recording import record
from semi_supervised_mnist import pretrained

from skae import ManifoldTangentClassifier
from skae.datasets import load_mnist


def main(layers=None, epochs=40, runs=2):
    """Fit, and print errors after each run."""
    X, y = load_mnist(return_X_y=True)
    rows, test = slice(0, 50_000), slice(50_000, 60_000)
    twice = np.concatenate([X[rows], X[rows]])
    classes = np.concatenate([y[rows], np.full(50_000, -1)])
    began = time.perf_counter()
    model = ManifoldTangentClassifier(
        layers=pretrained(X[rows], layers),
        pretraining="prefit",
        max_iter=epochs,
        warm_start=True,
        random_state=0,
        verbose=True,
    )
    started = time.perf_counter()
    for run in range(1, runs + 1):
        model.fit(twice, classes)
        errors = [100 * (1 - model.score(X[part], y[part])) for part in (rows, test)]
        print(
            f"{run * epochs} epochs: error {errors[1]:.2f} %, of the rows learned from "
            f"{errors[0]:.3f} %, {time.perf_counter() - started:.0f} s",
            flush=True,
        )
    record(
        "tangents-all-labels",
        errors[1],
        seeds=0,
        settings={"epochs": runs * epochs, "epochs of a run": epochs},
        started=began,
        details={"error of training rows": errors[0]},
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--layers", help="file of the pre-trained layers")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--runs", type=int, default=2)
    main(**vars(parser.parse_args()))
