"""
Learned features for a support vector machine
=============================================

The main job of skae in one script: does an SVC profit from features that were learned
without labels? On scikit-learn's handwritten digits (1797 images of 8 x 8 pixels) it
compares raw pixels, PCA codes, the codes of scikit-learn's ``BernoulliRBM``, and the
codes of a denoising and a contractive auto-encoder.

What the table shows. "all labels": accuracy of the whole pipeline in 5-fold
cross-validation, features fitted on the training folds alone. "5 % of labels": features
fitted once on all images without labels, the SVC on 5 % of them (90 images), judged on
the other 95 %; mean and standard deviation over 20 draws. There the unlabelled images
can help: "gain" is the mean difference to raw pixels on the same draws, with its
standard error.

What it does not show. The digits are small and easy: with all labels an SVC on raw
pixels leaves about 1 % of errors, and no feature can gain much. The contraction weight is
chosen by `GridSearchCV` inside each training fold; with few labels it is the one that
stands in the code. The other settings of the two auto-encoders (relu units, small
batches, the level of noise) come from some twenty random trials on other draws of the
same digits; PCA and ``BernoulliRBM`` stand at usual values, untried. One data set says
nothing about others.

Run ``python examples/compare_features.py`` (add ``--quick`` for a short run, ``--out``
for the picture's file name).
"""

import argparse
import time

import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import (
    GridSearchCV,
    StratifiedKFold,
    StratifiedShuffleSplit,
    cross_val_score,
)
from sklearn.neural_network import BernoulliRBM
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import SVC

from skae import ContractiveAutoEncoder, DenoisingAutoEncoder

CONTRACTIONS = [0.003, 0.01, 0.03]


def make_features(quick):
    """The feature extractors to compare, by the name that the table shows."""
    shared = {
        "n_components": 256,
        "activation": "relu",
        "max_iter": 5 if quick else 100,
        "batch_size": 20,
        "random_state": 0,
    }
    return {
        "raw pixels": FunctionTransformer(),
        "PCA": PCA(n_components=40, random_state=0),
        "BernoulliRBM": BernoulliRBM(
            256, learning_rate=0.05, n_iter=shared["max_iter"] // 2, random_state=0
        ),
        "denoising AE": DenoisingAutoEncoder(corruption="gaussian", corruption_level=0.2, **shared),
        "contractive AE": ContractiveAutoEncoder(contraction=0.01, **shared),
    }


def few_labels(codes, y, draws):
    """Accuracy of an SVC on codes of all rows, with the labels of a few."""
    return np.array(
        [
            SVC(C=10).fit(codes[some], y[some]).score(codes[rest], y[rest])
            for some, rest in draws.split(codes, y)
        ]
    )


def draw(models, X, path):
    """One picture: filters, reconstructions and loss curves of the auto-encoders."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError('The picture needs matplotlib: pip install "skae[plot]"') from error
    from skae.plots import FilterDisplay, LossCurveDisplay, ReconstructionDisplay

    figure, axes = plt.subplot_mosaic(
        [["0 filters", "0 images", "losses"], ["1 filters", "1 images", "losses"]],
        figsize=(13, 7.5),
        width_ratios=(1, 1, 0.9),
    )
    for number, (name, model) in enumerate(models.items()):
        FilterDisplay.from_estimator(model, ax=axes[f"{number} filters"])
        axes[f"{number} filters"].set_title(f"{name}: filters")
        ReconstructionDisplay.from_estimator(
            model, X, n_images=24, n_columns=8, ax=axes[f"{number} images"]
        )
        axes[f"{number} images"].set_title("images above their reconstructions")
    LossCurveDisplay.from_estimators(models, ax=axes["losses"])
    axes["losses"].set_title("training objective, nats per image")
    figure.tight_layout()
    figure.savefig(path, dpi=100)


def main(quick=False, out="compare_features.png"):
    """Run the comparison, print the table, write the picture."""
    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(np.float32)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    draws = StratifiedShuffleSplit(3 if quick else 20, train_size=0.05, random_state=0)
    features, table = make_features(quick), {}
    started = time.perf_counter()

    for number, (name, feature) in enumerate(features.items(), 1):
        print(f"[{number}/{len(features)}] {name} ... ", end="", flush=True)
        model = Pipeline([("features", feature), ("svm", SVC(C=10))])
        if name == "contractive AE":
            # Inside each training fold, a part of it chooses the contraction weight.
            model = GridSearchCV(
                model,
                {"features__contraction": CONTRACTIONS[: 2 if quick else None]},
                cv=StratifiedShuffleSplit(1, test_size=0.3, random_state=1),
            )
        accuracy = cross_val_score(model, X, y, cv=folds)
        table[name] = accuracy, few_labels(feature.fit_transform(X), y, draws)
        print(f"done after {time.perf_counter() - started:.0f} s", flush=True)

    print(f"\n{'features':<16}{'all labels, %':>16}{'5 % of labels, %':>20}{'gain':>17}")
    reference = table["raw pixels"][1]
    for name, (accuracy, few) in table.items():
        gain = 100 * (few - reference)
        print(
            f"{name:<16}{100 * accuracy.mean():>9.2f} +- {100 * accuracy.std():.2f}"
            f"{100 * few.mean():>13.2f} +- {100 * few.std():.2f}"
            f"{gain.mean():>+10.2f} +- {gain.std() / np.sqrt(len(gain)):.2f}"
        )
    draw({name: features[name] for name in ("denoising AE", "contractive AE")}, X, out)
    print(f"\nPicture written to {out}; {time.perf_counter() - started:.0f} s in all.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[1])
    parser.add_argument("--quick", action="store_true", help="fewer epochs and draws")
    parser.add_argument("--out", default="compare_features.png", help="file of the picture")
    main(**vars(parser.parse_args()))
