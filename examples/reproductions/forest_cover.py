r"""
Forest cover: the manifold tangent classifier on a table
========================================================

Published (Rifai et al., NIPS 2011; all 581,012 rows): test error of a support vector machine
4.11 %, of a distributed one 3.46 %, of the manifold tangent classifier 3.13 %.

Here: a class-balanced sample of 12,120 rows, 70 % to train on and 30 % to test on, stratified,
seeds 0 to 4; all labels. So few rows leave errors many times the published ones: what can be
compared is the order of the methods. The last three are one rectifier net of 200 and 200 units,
which takes the two one-hot variables as such: without pre-training, with contractive layers, and
with the penalty on the output's change along 8 tangents. The grid of the support vector machine is
searched on a fifth of the training rows of each split; the settings of the net were chosen on a
fifth of those of split 0.

Needs the environment variable SKAE_DATA to name a folder with ``forest_cover_12k.npz`` (X of
shape (12120, 54), y). Rerun, all or some of the rows:

    SKAE_DATA=... python examples/reproductions/forest_cover.py [SVM] [boosting] [trees] [net] ...

Reached, test error in % over the five splits (mean, standard deviation): net 14.95 +- 0.62,
extremely randomised trees 15.15 +- 0.57, boosting 15.45 +- 0.82, MTC 15.52 +- 0.69, SVM 18.28 +-
0.38. So MTC is before SVM, as published, and level with boosting; a plain net is before both, and
pre-training and tangents gain nothing here. The net takes 10 s a split, with pre-training and
tangents 20 s, the SVM half a minute, on a busy core.

What counts is how the net is fine-tuned: with 60 epochs and a dropout of 0.1 instead of 30 epochs
without, its error falls by one point (15.90 before), and so does that of MTC (16.58). On a fifth of
the training rows of splits 0 and 1, by which this was chosen (boosting: 16.15 %), the net has 14.85
% instead of 16.12 %; 400 units and 0.2 15.14 %, a third layer 15.29 %, 300 units, 0.15 and 100
epochs 15.14 %; hat functions of each measurement 18.3 to 19.8 %, which learn the training rows by
heart. Pre-training has 15.56 % there, with a tangent penalty of 0.01 15.20 %, of 0.002 15.29 %,
with 2 epochs of pre-training instead of 10 15.59 %, with 400 units 15.23 %, and tangents by local
PCA of a net that is not pre-trained 16.35 %.

What follows was measured before that, without dropout.

Nor do moves of unlabelled rows help, with all training rows passed a second time without their
class (CAE, test error of splits 0 and 1): none 16.45 %, worst moves in any direction, of
a length (the second ``unlabelled_step``) of 0.05 16.24 %, 0.1 18.40 %, 0.2 (the default, meant for
images) 19.95 %. Classes are not separated by empty regions here.

Errors on a fifth of split 0's training rows (1697 rows, a standard error of 0.9 points, one seed),
by which the settings of the net were chosen among ten: one-hot columns as such 16.15 %,
standardised 17.21 % (with ten times the contraction 17.44 %; 300 units, smaller batches and more
epochs 16.68 %). Tangent penalties 0.002 and 0.01: 16.26 and 16.21 %; with standardised columns
17.09 % for 0.002, and 18.39 % for 0.01 along 4 tangents. 400 units with dropout 0.15: 16.44 %.
None of these differences can be told from chance but perhaps the largest, and no gain by tangents
was seen. Sigmoid units (500, one layer) 26.7 % without and 28.4 % with tangents: they had not
learned the training rows either. The others there: support vectors 18.44 % (C = 10, gamma = 0.1),
boosting 16.50 %, extremely randomised trees 14.91 %, a scikit-learn net of 200 and 200 units 16.85
%.
"""

import os
import sys
import time
from pathlib import Path

import numpy as np
from recording import record
from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier
from sklearn.model_selection import GridSearchCV, ShuffleSplit, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from skae import ContractiveAutoEncoder, ManifoldTangentClassifier

# Ten measurements, and two one-hot variables: wilderness area and soil type.
COLUMNS = [
    ("gaussian", list(range(10))),
    ("multinomial", list(range(10, 14))),
    ("multinomial", list(range(14, 54))),
]
N_SPLITS = 5


def load():
    """Rows of float32, and classes."""
    folder = os.environ.get("SKAE_DATA")
    path = Path(folder or "", "forest_cover_12k.npz")
    if not folder or not path.exists():
        sys.exit("Set SKAE_DATA to a folder with forest_cover_12k.npz; nothing was run.")
    with np.load(path, allow_pickle=True) as data:
        return data["X"].astype(np.float32), data["y"]


def net(seed, *, tangent_penalty=0.0, pretraining="unsupervised", sizes=(200, 200)):
    """A rectifier net on contractive layers; with a tangent penalty, the published classifier."""
    options = {
        "activation": "relu",
        "contraction": 0.05,
        "learning_rate": 2e-3,
        "learning_rate_schedule": "linear",
        "batch_size": 200,
        "max_iter": 10,
        "n_iter_no_change": None,
    }
    layers = [
        ContractiveAutoEncoder(size, loss="auto" if level else COLUMNS, **options)
        for level, size in enumerate(sizes)
    ]
    return ManifoldTangentClassifier(
        layers=layers,
        pretraining=pretraining,
        n_tangents=8,
        tangent_penalty=tangent_penalty,
        unlabelled_penalty=0.0,
        batch_size=200,
        learning_rate=4e-3,
        dropout=(0.0, 0.1),
        max_iter=60,
        random_state=seed,
    )


def support_vectors(seed):
    """With the width and the cost that do best on a fifth of the training rows."""
    grid = {"svc__C": [3, 10, 30], "svc__gamma": [0.1, 0.2]}
    held_out = ShuffleSplit(1, test_size=0.2, random_state=seed)
    return GridSearchCV(make_pipeline(StandardScaler(), SVC()), grid, cv=held_out)


METHODS = {
    "SVM": support_vectors,
    "boosting": lambda seed: HistGradientBoostingClassifier(random_state=seed),
    "trees": lambda seed: ExtraTreesClassifier(300, random_state=seed),
    "net": lambda seed: net(seed, pretraining=None),
    "CAE": net,
    "MTC": lambda seed: net(seed, tangent_penalty=0.01),
}
# What is recorded: the error of the manifold tangent classifier less that of another one.
COMPARED = {"forest-cover-svm": "SVM", "forest-cover-boosting": "boosting"}


def main():
    """Print the error of every method, or of those named, on every split."""
    X, y = load()
    began, found = time.perf_counter(), {}
    for name in sys.argv[1:] or METHODS:
        started, errors = time.perf_counter(), []
        for seed in range(N_SPLITS):
            train, test, y_train, y_test = train_test_split(
                X, y, test_size=0.3, stratify=y, random_state=seed
            )
            model = METHODS[name](seed).fit(train, y_train)
            errors.append(100 * (1 - model.score(test, y_test)))
        print(
            f"{name:<9}{np.mean(errors):6.2f} +- {np.std(errors, ddof=1):.2f} %, splits "
            f"{np.round(errors, 2).tolist()}, {time.perf_counter() - started:.0f} s",
            flush=True,
        )
        found[name] = np.array(errors)
        for figure, other in COMPARED.items():
            if name in ("MTC", other) and {"MTC", other} <= set(found):
                record(
                    figure,
                    found["MTC"] - found[other],
                    seeds=range(N_SPLITS),
                    settings={"rows": len(y)},
                    started=began,
                    details={method: errors.tolist() for method, errors in found.items()},
                )


if __name__ == "__main__":
    main()
