"""Pre-trained nets on MNIST: every kind of layer and of pre-training beside the published errors.

What is compared. Nets are trained on the first 50,000 images of MNIST's training set and judged on
its last 10,000. One hidden layer of 1000 units (Rifai et al., ICML and ECML 2011): auto-encoder,
denoising with masking and with Gaussian noise, RBM, contractive, and contractive with the Hessian
term. Their codes as they are, under a logistic regression of all labels ("frozen", standardised;
the best of three penalties). And layers one on the other (Bengio et al. 2006; Larochelle et al.
2009; Vincent et al. 2010; Rifai et al. 2011): two contractive ones; three auto-encoders, denoising
auto-encoders or RBMs; supervised greedy; all layers at the same time; random weights.

All are fine-tuned alike, with what the papers did not have: dropout, and adversarial moves of the
rows. With ``--plain`` they are fine-tuned as published, too (Adam at 1e-3, falling linearly to 0,
no dropout), which is among the details of the records.

What it does not show. The published errors are of the test set, 10,000 other images, for nets
whose sizes and epochs were chosen on those that are judged here; ours are of one seed, and the
recipe was chosen with contractive layers on the images that are judged here. An error of 1.2 % has
a standard error of 0.11.

Reached with the settings as they are (seed 0, one NVIDIA H200 that ten other jobs used; error in %,
published in brackets). One layer: contractive 1.09 (1.14), with the Hessian term 1.12 (1.04: the
one that is above), denoising with Gaussian noise 1.14 (1.18) and with masking 1.14 (1.57), RBM 1.12
(1.30), random weights 1.29 (1.9). Two contractive layers 0.97 (1.04). Three layers: RBM 0.98 (1.2),
denoising 1.00 (1.2), auto-encoders 1.02 (1.4), supervised greedy 0.96 (2.0), random weights 1.07
(2.4). So with this fine-tuning little is left of what pre-training gives at 50,000 labels: 0.05 to
0.2 points. Pre-training takes 1 to 50 seconds there, fine-tuning 22 to 58. Frozen codes:
contractive 1.93, with the Hessian term 1.72 (1.20), denoising 2.03 (2.05), RBM 2.22 (2.04). One
layer of an auto-encoder, on one thread of a busy processor in an hour: 1.22 (1.78), its frozen
codes 3.51 (2.17), far above.

Reached earlier, with shorter pre-training (30 epochs, batches of 100) and, in the place of this
recipe, fine-tuned as published for 20 epochs / with dropout for 30, seed 0. One layer: contractive
1.46 / 1.44, RBM 1.71 / 1.66, denoising with Gaussian noise 1.69 / 1.60. Three layers of 500: RBM
1.43 / 1.46, auto-encoder 1.74 / 1.58, simultaneous, denoising 1.50 / 1.37, supervised greedy 2.02 /
1.64, random weights 1.83 / 1.93.

What was tried for the recipe, by nets of this kind that were trained side by side as one
(contractive 0.3, one layer of 1000; error in %). As published: 1.46 after 30 epochs and after 120.
Dropout of 0.5, and 0.2 of the pixels: 1.30 after 40 epochs, 1.21 after 120; 0.1 or 0.3 of the
pixels 1.19; 0.7 of the units 1.31; half the learning rate 1.32; Gaussian noise of 0.3 in the place
of dropped pixels 1.23; labels smoothed by 0.1 1.37; columns of weights of norm 2.5 at most 1.55;
averages of the last weights no better than the last (1.26). In batches of 500 at 2e-3: dropout
1.19, adversarial moves of length 1 (0.14 of the rows' distance from their mean) and dropout of the
units 1.09 (1.14 after 40 epochs), of the pixels, too, 1.07, moves of length 2 1.16. Two contractive
layers with dropout: 1.14 to 1.25. Frozen codes, standardised, the best of four penalties: auto-
encoder 3.09, denoising 2.19 (Gaussian noise of 0.7), RBM 1.80, contractive 1.83, with the Hessian
term 1.67 and 1.70, two contractive layers 1.67.

    SKAE_DATA=... python examples/reproductions/mnist_stacks.py [--rows NAME ...] [--seed N]
        [--epochs N] [--plain] [--frozen-only]

Without ``--rows`` all are trained, which takes hours on a processor and minutes on a GPU.
"""

import argparse
import itertools
import time

from recording import record
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skae import (
    RBM,
    AutoEncoder,
    ContractiveAutoEncoder,
    DenoisingAutoEncoder,
    StackedAutoEncoder,
    StackedClassifier,
)
from skae.datasets import load_mnist

ADAM = {"batch_size": 500, "learning_rate_schedule": "linear", "learning_rate": 2e-3}
CONTRACTIVE = {"contraction": 0.3, "learning_rate": 4e-3}
KINDS = {
    "auto": (AutoEncoder, {"learning_rate": 5e-3}),
    "masking": (DenoisingAutoEncoder, {"corruption": "masking", "corruption_level": 0.5}),
    "gaussian": (DenoisingAutoEncoder, {"corruption": "gaussian", "corruption_level": 0.7}),
    "contractive": (ContractiveAutoEncoder, CONTRACTIVE),
    "hessian": (ContractiveAutoEncoder, {**CONTRACTIVE, "hessian": 10.0}),
    "rbm": (
        RBM,
        {"batch_size": 100, "learning_rate": 0.1, "momentum": 0.9, "weight_decay": 2e-4},
    ),
}

# Name: kind of layers, number of layers, pre-training, its epochs, published error in %.
ROWS = {
    "1 auto": ("auto", 1, "unsupervised", 80, 1.78),
    "1 masking": ("masking", 1, "unsupervised", 80, 1.57),
    "1 gaussian": ("gaussian", 1, "unsupervised", 80, 1.18),
    "1 rbm": ("rbm", 1, "unsupervised", 40, 1.30),
    "1 contractive": ("contractive", 1, "unsupervised", 80, 1.14),
    "1 hessian": ("hessian", 1, "unsupervised", 80, 1.04),
    "1 random": ("auto", 1, None, 0, 1.9),
    "2 contractive": ("contractive", 2, "unsupervised", 80, 1.04),
    "3 auto": ("auto", 3, "unsupervised", 40, 1.4),
    "3 masking": ("masking", 3, "unsupervised", 40, 1.2),
    "3 rbm": ("rbm", 3, "unsupervised", 30, 1.2),
    "3 supervised": ("auto", 3, "supervised", 20, 2.0),
    "3 simultaneous": ("masking", 3, "simultaneous", 40, None),
    "3 random": ("auto", 3, None, 0, 2.4),
}
# What rows are called in the list of published figures: fine-tuned, and frozen.
FIGURES = {
    "1 auto": ("one-layer-auto", "frozen-auto"),
    "1 masking": ("one-layer-masking", None),
    "1 gaussian": ("one-layer-gaussian", "frozen-denoising"),
    "1 rbm": ("one-layer-rbm", "frozen-rbm"),
    "1 contractive": ("one-layer-contractive", "frozen-contractive"),
    "1 hessian": ("one-layer-hessian", "frozen-hessian"),
    "2 contractive": ("two-layers-contractive", None),
    "3 auto": ("three-layers-auto", None),
    "3 masking": ("three-layers-denoising", None),
    "3 rbm": ("three-layers-rbm", None),
    "3 supervised": ("three-layers-supervised", None),
    "3 random": ("three-layers-random", None),
}
# Inverse penalties of the logistic regression on frozen codes.
FROZEN_C = (0.001, 0.01, 0.1)
# Of fine-tuning: as published, and with what regularises nets that have many labels.
PUBLISHED = {"learning_rate": 1e-3, "batch_size": 100}
REGULARISED = {
    "learning_rate": 2e-3,
    "batch_size": 500,
    "dropout": (0.1, 0.5),
    "adversarial_step": 0.14,
}


def layers_of(kind, n_layers, n_epochs, n_units, seed):
    """The layers of a kind, with the settings of all rows of that kind."""
    layer_class, parameters = KINDS[kind]
    settings = {**ADAM, "max_iter": max(1, n_epochs), "random_state": seed, **parameters}
    return [layer_class(n_units, **settings) for _ in range(n_layers)]


def fine_tuned(stack, X, y, rows, seed, **settings):
    """The error in % of a net whose layers and output learn the classes."""
    fitting, judging = rows
    model = StackedClassifier(
        layers=stack.layers_,
        pretraining="prefit",
        learning_rate_schedule="linear",
        random_state=seed,
        **settings,
    )
    model.fit(X[fitting], y[fitting])
    return 100 * (1 - model.score(X[judging], y[judging]))


def of_frozen_codes(stack, X, y, rows, C):
    """The error in % of a logistic regression on standardised codes."""
    fitting, judging = rows
    model = make_pipeline(StandardScaler(), LogisticRegression(C=C, tol=1e-3, max_iter=300))
    model.fit(stack.transform(X[fitting]), y[fitting])
    return 100 * (1 - model.score(stack.transform(X[judging]), y[judging]))


def main(
    rows=None,
    seed=0,
    epochs=100,
    units=1000,
    train=50_000,
    pretraining_epochs=None,
    plain=False,
    frozen_only=False,
):
    """Pre-train, fine-tune and judge the rows; print a line for each."""
    X, y = load_mnist(return_X_y=True)
    parts = slice(0, train), slice(50_000, 60_000)
    header = f"{'row':<16}{'frozen':>8}{'plain':>8}{'regularised':>13}{'published':>11}"
    print(f"{header}   seconds of each, pre-training first", flush=True)
    for name in ROWS if rows is None else rows:
        kind, n_layers, pretraining, n_epochs, published = ROWS[name]
        n_epochs = n_epochs if pretraining_epochs is None else pretraining_epochs
        stack = StackedAutoEncoder(
            layers=layers_of(kind, n_layers, n_epochs, units, seed),
            pretraining=pretraining,
            max_iter=max(1, n_epochs),
            random_state=seed,
        )
        began, times = time.perf_counter(), [time.perf_counter()]
        stack.fit(X[parts[0]], y[parts[0]])
        times.append(time.perf_counter())
        frozen = {}
        if name in FIGURES and FIGURES[name][1] is not None:
            frozen = {C: of_frozen_codes(stack, X, y, parts, C) for C in FROZEN_C}
        times.append(time.perf_counter())
        of_plain = None
        if plain:
            n = max(1, epochs // 5)
            of_plain = fine_tuned(stack, X, y, parts, seed, max_iter=n, **PUBLISHED)
        times.append(time.perf_counter())
        error = None
        if not frozen_only:
            error = fine_tuned(stack, X, y, parts, seed, max_iter=epochs, **REGULARISED)
        times.append(time.perf_counter())
        best = f"{min(frozen.values()):.2f}" if frozen else "-"
        shown = [f"{found:.2f}" if found is not None else "-" for found in (of_plain, error)]
        seconds = " ".join(f"{after - before:.0f}" for before, after in itertools.pairwise(times))
        print(
            f"{name:<16}{best:>8}{shown[0]:>8}{shown[1]:>13}{published or '-':>11}   {seconds}",
            flush=True,
        )
        if train < 50_000 or name not in FIGURES:
            continue
        settings = {"units": units, "pretraining_epochs": n_epochs}
        fine_tuned_name, frozen_name = FIGURES[name]
        if error is not None:
            record(
                fine_tuned_name,
                error,
                seeds=seed,
                settings={**settings, "epochs": epochs, **REGULARISED},
                started=began,
                details={"error_as_published": of_plain} if plain else None,
            )
        if frozen_name is not None:
            record(
                frozen_name,
                min(frozen.values()),
                seeds=seed,
                settings={**settings, "codes": "standardised"},
                started=began,
                details={f"error_at_C_{C:g}": found for C, found in frozen.items()},
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rows", nargs="*", choices=ROWS, help="default: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=100, help="of fine-tuning")
    parser.add_argument("--units", type=int, default=1000, help="of each layer")
    parser.add_argument("--train", type=int, default=50_000, help="rows to train on")
    parser.add_argument("--plain", action="store_true", help="fine-tune as published, too")
    parser.add_argument("--frozen-only", action="store_true", help="fine-tune nothing")
    parser.add_argument("--pretraining-epochs", type=int, help="default: of each row its own")
    main(**vars(parser.parse_args()))
