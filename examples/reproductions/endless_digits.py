"""An endless stream of deformed digits: does the advantage of pre-training persist?

Nets of three layers of 500 sigmoid units see a stream of deformed MNIST digits, each row once, by
`partial_fit`. One starts from random weights, one from denoising auto-encoders that have seen
other rows of the stream without their labels. The error is that on rows before they are
learned from, in windows of the stream, so that over-fitting has no part in it (Erhan et al. 2010
ask whether pre-training helps even then). Every net runs at two constant learning rates.

Reached with seed 0, 200,000 rows of pre-training (37 s) and 400,000 of training (48 to 59 s
each): the advantage is largest at first and persists, but shrinks. Error in % at a rate of 1e-3
by thousands of rows seen, random weights / pre-trained: up to 8: 57.8 / 35.0, 20: 27.3 / 12.3,
40: 20.1 / 10.2, 80: 14.3 / 8.6, 160: 9.1 / 6.7, 240: 6.5 / 5.3, 320: 5.7 / 4.8, 400: 5.0 / 4.4.
On the last 10,000 digits of MNIST, not deformed: 1.87 / 1.71. At 3e-4, random weights end at 7.8
and pre-trained ones at 5.4. The net has by then seen each original eight times, deformed in
different ways.

    SKAE_DATA=... python examples/reproductions/endless_digits.py [--rows N] [--out FILE]
"""

import argparse
import itertools
import time

import numpy as np
from recording import record

from skae import DenoisingAutoEncoder, StackedAutoEncoder, StackedClassifier
from skae.datasets import DeformedDigits, load_mnist

CHUNK = 2000
SIZES = (500, 500, 500)
RATES = (3e-4, 1e-3)


def stream_of(images, labels, seed):
    """Chunks of the stream, for ever."""
    return iter(DeformedDigits(images, labels, batch_size=CHUNK, random_state=seed))


def pretrain(images, labels, n_rows, seed):
    """A stack that has seen rows of another stream without labels."""
    stack = StackedAutoEncoder(SIZES, layer=DenoisingAutoEncoder(batch_size=100), random_state=seed)
    for X, _ in itertools.islice(stream_of(images, labels, seed + 1000), n_rows // CHUNK):
        stack.partial_fit(X)
    return stack


def errors_on_the_way(model, images, labels, n_rows, seed):
    """Error of each chunk before it is learned from."""
    errors = []
    for X, y in itertools.islice(stream_of(images, labels, seed), n_rows // CHUNK):
        if errors or hasattr(model, "stack_"):
            errors.append(1 - model.score(X, y))
        else:
            errors.append(0.9)
        model.partial_fit(X, y, classes=np.arange(10))
    return np.array(errors)


def main(rows=400_000, pretraining_rows=200_000, out=None, seed=0):
    """Run all nets, print the curves, draw them if asked to."""
    X, y = load_mnist(return_X_y=True)
    images, labels = X[:50_000], y[:50_000]
    began = started = time.perf_counter()
    stack = pretrain(images, labels, pretraining_rows, seed)
    print(f"pre-training on {pretraining_rows} rows: {time.perf_counter() - started:.0f} s")
    curves = {}
    for name, rate in itertools.product(("random", "pre-trained"), RATES):
        if name == "random":
            layers, pretraining = [DenoisingAutoEncoder(size) for size in SIZES], None
        else:
            layers, pretraining = stack.layers_, "prefit"
        model = StackedClassifier(
            layers=layers, pretraining=pretraining, learning_rate=rate, random_state=seed
        )
        started = time.perf_counter()
        curves[f"{name}, rate {rate:g}"] = errors_on_the_way(model, images, labels, rows, seed)
        seconds = time.perf_counter() - started
        test = 100 * (1 - model.score(X[50_000:], y[50_000:]))
        print(
            f"{name}, rate {rate:g}: {seconds:.0f} s, the last 10,000 digits {test:.2f} %",
            flush=True,
        )
    n = rows // CHUNK
    marks = [
        slice(n * low // 100, n * high // 100)
        for low, high in (
            (0, 2),
            (2, 5),
            (5, 10),
            (10, 20),
            (20, 40),
            (40, 60),
            (60, 80),
            (80, 100),
        )
    ]
    print("error in % by rows seen, in thousands")
    ends = "".join(f"{mark.stop * CHUNK / 1000:>9.0f}" for mark in marks)
    print(f"{'':<26}{ends}")
    for name, curve in curves.items():
        print(f"{name:<26}" + "".join(f"{100 * curve[mark].mean():>9.2f}" for mark in marks))
    if rows >= 10_000_000:
        ends = {name: 100 * curve[marks[-1]].mean() for name, curve in curves.items()}
        best = {
            kind: min(error for name, error in ends.items() if name.startswith(kind))
            for kind in ("random", "pre-trained")
        }
        record(
            "endless-digits",
            best["pre-trained"] - best["random"],
            seeds=seed,
            settings={"rows": rows, "pretraining_rows": pretraining_rows},
            started=began,
            details=ends,
        )
    if out is not None:
        draw(curves, out)


def draw(curves, path):
    """The curves, smoothed over ten chunks, on logarithmic axes."""
    import matplotlib.pyplot as plt

    _, ax = plt.subplots()
    for name, curve in curves.items():
        smooth = np.convolve(curve, np.full(10, 0.1), mode="valid")
        ax.loglog(CHUNK * (10 + np.arange(len(smooth))), 100 * smooth, label=name)
    ax.set(xlabel="rows seen", ylabel="error on the next rows, %")
    ax.legend()
    ax.figure.savefig(path, dpi=100)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--pretraining-rows", type=int, default=200_000)
    parser.add_argument("--out", help="file of a picture")
    parser.add_argument("--seed", type=int, default=0)
    main(**vars(parser.parse_args()))
