"""A deep auto-encoder of MNIST, 30 numbers for an image, beside PCA (Hinton & Salakhutdinov 2006).

Layers of 1000, 500, 250 and 30 units are pre-trained one after the other (RBMs, and a linear
auto-encoder on top), unrolled into a net of eight layers and fine-tuned on the cross-entropy of the
pixels. Trained on the first 50,000 images, judged on the last 10,000 by the squared error of an
image, the sum over its 784 pixels in [0, 1]. Published (test set; the net's training took 200
epochs of conjugate gradients): 3.00 for the net, 13.87 for PCA with 30 components.

Reached with seed 0: 3.04 (60 s on a shared NVIDIA H200); 3.05 (974 s, on a part of two busy cores;
training rows 2.52), PCA 14.18, which these images are harder for than those of the test set.

    SKAE_DATA=... python examples/reproductions/mnist_deep_autoencoder.py [--epochs N]
"""

import argparse
import time

import numpy as np
from recording import record
from sklearn.decomposition import PCA

from skae import RBM, AutoEncoder, StackedAutoEncoder
from skae.datasets import load_mnist

SIZES = (1000, 500, 250, 30)


def squared_error(X, reconstructions):
    """Mean over images of the sum over pixels."""
    return float(np.square(X - reconstructions).sum(1).mean())


def main(epochs=40, pretraining_epochs=8, rate=1e-3, seed=0):
    """Train, judge, print."""
    X, _ = load_mnist(return_X_y=True)
    fitting, judging = X[:50_000], X[50_000:]
    shared = {"max_iter": pretraining_epochs, "learning_rate_schedule": "linear"}
    layers = [RBM(size, learning_rate=0.1, **shared) for size in SIZES[:-1]]
    layers.append(AutoEncoder(SIZES[-1], activation="linear", **shared))
    stack = StackedAutoEncoder(
        layers=layers,
        fine_tuning=True,
        max_iter=epochs,
        batch_size=100,
        learning_rate=rate,
        learning_rate_schedule="linear",
        random_state=seed,
    )
    started = time.perf_counter()
    stack.fit(fitting)
    seconds = time.perf_counter() - started
    curve = stack.loss_curve_
    print("nats by epochs 1, 11, 21, ...:", " ".join(f"{loss:.2f}" for loss in curve[::10]))
    pca = PCA(SIZES[-1], random_state=0).fit(fitting)
    by_pca = pca.inverse_transform(pca.transform(judging))
    print(f"squared error of an image, published in brackets; {seconds:.0f} s, seed {seed}")
    print(f"deep auto-encoder {squared_error(judging, stack.reconstruct(judging)):6.2f} (3.00)")
    print(f"  on training rows {squared_error(fitting, stack.reconstruct(fitting)):6.2f}")
    print(f"PCA, 30           {squared_error(judging, by_pca):6.2f} (13.87)")
    for name, reconstructed in (("deep-auto-encoder", stack.reconstruct(judging)), ("pca", by_pca)):
        record(
            name,
            squared_error(judging, reconstructed),
            seeds=seed,
            settings={"epochs": epochs, "pretraining_epochs": pretraining_epochs, "rate": rate},
            started=started,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--epochs", type=int, default=40, help="of fine-tuning")
    parser.add_argument("--pretraining-epochs", type=int, default=8, help="of each layer")
    parser.add_argument("--rate", type=float, default=1e-3, help="of fine-tuning")
    parser.add_argument("--seed", type=int, default=0)
    main(**vars(parser.parse_args()))
