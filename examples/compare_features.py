"""
Learned features for tables and for images
==========================================

The main job of skae in one script: do models that you use already profit from features that were
learned without labels? It asks so on two tables and on images, and prints what it finds.

**Tables**: a linear model learns from 10 % of the labels, over 20 draws of them, from columns as a
careful user prepares them, from these through 256 units of random weights, and from
``TableFeatures()``, which takes the raw table. One table is made of two hidden factors
(:func:`~skae.datasets.make_mixed_table`: eight numbers, two categories, gaps); its class is their
product, which a linear model of the columns cannot see. The other is real and bundled with
scikit-learn: nine measurements and the sex of 442 patients, and how their diabetes went on.
Shown are the area under the ROC curve and the explained variance R^2.

**Odd rows**: one wine of scikit-learn's 178 gets the flavanoids of another grower's wines. The
value is usual by itself. ``OutlierDetector()`` says how odd each row is, and which column makes it
so.

**Images**: handwritten digits (1797 images of 8 x 8 pixels) by an SVC on raw pixels, PCA codes, the
codes of scikit-learn's ``BernoulliRBM``, and those of a denoising and a contractive auto-encoder.
"all labels": accuracy of the whole pipeline in 5-fold cross-validation, features fitted on the
training folds alone. "5 % of labels": features fitted once on all images without labels, the SVC
on 5 % of them (90 images), judged on the other 95 %; mean and standard deviation over 20 draws.
"gain" is the mean difference to the first line on the same draws, with its standard error.

What it does not show. The first table is made for what codes can do and columns cannot; on real
tables gains are a few points or none (``examples/reproductions/tables_features.py`` has 16 of
them), and the real table here is one without. The digits are small and easy: with all labels an
SVC on raw pixels leaves about 1 % of errors, and no feature can gain much. The contraction weight
is chosen by `GridSearchCV` inside each training fold; with few labels it is the one that stands in
the code. The other settings of the two auto-encoders (relu units, small batches, the level of
noise) come from some twenty random trials on other draws of the same digits; PCA and
``BernoulliRBM`` stand at usual values, untried. The two table models stand at their defaults.

Run ``python examples/compare_features.py`` (add ``--quick`` for a short run, ``--out``
for the picture's file name).
"""

import argparse
import time

import numpy as np
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.datasets import load_diabetes, load_digits, load_wine
from sklearn.decomposition import PCA
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import (
    GridSearchCV,
    ShuffleSplit,
    StratifiedKFold,
    StratifiedShuffleSplit,
    cross_val_score,
)
from sklearn.neural_network import BernoulliRBM
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.svm import SVC

from skae import ContractiveAutoEncoder, DenoisingAutoEncoder, OutlierDetector, TableFeatures
from skae.datasets import make_mixed_table

CONTRACTIONS = [0.003, 0.01, 0.03]


def load_tables():
    """Name, rows, target of the two tables; the measure of the last is R^2."""
    patients = load_diabetes(as_frame=True, scaled=False)
    sex = patients.data["sex"].map({1.0: "one", 2.0: "other"})
    return {
        "made of two factors": make_mixed_table(random_state=0),
        "442 patients": (patients.data.assign(sex=sex), patients.target.to_numpy()),
    }


def make_table_features(quick):
    """What a linear model is given, by the name that the table shows."""
    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    columns = make_column_transformer(
        (numbers, make_column_selector(dtype_include="number")),
        (OneHotEncoder(sparse_output=False), make_column_selector(dtype_exclude="number")),
    )
    return {
        "prepared columns": columns,
        "random units": make_pipeline(columns, FunctionTransformer(random_units)),
        "TableFeatures": TableFeatures(max_iter=5 if quick else "auto", random_state=0),
    }


def random_units(columns):
    """256 sigmoid units of random weights."""
    rng = np.random.default_rng(0)
    weight = rng.normal(0, 1.5 / np.sqrt(columns.shape[1]), size=(columns.shape[1], 256))
    return 1 / (1 + np.exp(-columns @ weight - rng.normal(0, 0.5, size=256)))


def linear_score(codes, y, some, rest):
    """Area under the ROC curve of classes, R^2 of numbers, in percent."""
    if len(np.unique(y)) == 2:
        model = LogisticRegression(max_iter=1000).fit(codes[some], y[some])
        return 100 * roc_auc_score(y[rest], model.predict_proba(codes[rest])[:, 1])
    return 100 * RidgeCV(np.logspace(-3, 3, 13)).fit(codes[some], y[some]).score(
        codes[rest], y[rest]
    )


def compare_tables(quick):
    """Scores of all draws, by table and features."""
    draws = ShuffleSplit(3 if quick else 20, train_size=0.1, random_state=0)
    scores = {}
    for table, (X, y) in load_tables().items():
        for name, features in make_table_features(quick).items():
            codes = features.fit_transform(X)
            scores[table, name] = np.array(
                [linear_score(codes, y, some, rest) for some, rest in draws.split(codes)]
            )
    return scores


def find_odd_wine():
    """A table of wines in which one value is odd, its row, and the column's contributions."""
    wine, grower = load_wine(return_X_y=True, as_frame=True)
    row = 10
    wine.loc[row, "flavanoids"] = wine.loc[grower == 2, "flavanoids"].median()
    detector = OutlierDetector(random_state=0).fit(wine)
    rank = int((detector.score_samples(wine) <= detector.score_samples(wine)[row]).sum())
    columns = detector.score_columns(wine)[row]
    order = columns.argsort()
    by_distance = ((wine - wine.mean()) / wine.std()).iloc[row].abs().rank(ascending=False)
    return rank, wine.columns[order], columns[order], int(by_distance["flavanoids"])


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


def draw(tables, odd, accuracies, model, X, path):
    """One picture: what three tasks gain, and what was learned from the images."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError('The picture needs matplotlib: pip install "skae[plot]"') from error
    from skae.plots import ReconstructionDisplay

    ours, others = "tab:blue", "0.75"
    figure, axes = plt.subplot_mosaic(
        [["features", "odd", "few"], ["images", "images", "images"]],
        figsize=(13, 7.5),
        height_ratios=(1.5, 1),
        layout="constrained",
    )
    ax = axes["features"]
    names = list(dict.fromkeys(name for _, name in tables))
    groups = list(dict.fromkeys(table for table, _ in tables))
    for number, name in enumerate(names):
        heights = [tables[table, name].mean() for table in groups]
        places = np.arange(len(groups)) + 0.27 * (number - 1)
        shade = ours if name == "TableFeatures" else str(0.85 - 0.25 * number)
        ax.bar_label(ax.bar(places, heights, 0.25, color=shade, label=name), fmt="%.0f")
    ax.set_xticks(range(len(groups)), [f"{groups[0]}\narea, %", f"{groups[1]}\nR², %"])
    ax.set(ylim=(0, 119), title="Features for a table\nscore of a linear model, 10 % of labels")
    ax.legend(loc="upper right")

    ax = axes["odd"]
    _, columns, contributions, _ = odd
    top = slice(4, None, -1)
    ax.barh(columns[top], -contributions[top], color=[others] * 4 + [ours])
    ax.set(title="Odd rows\nwhich column makes this wine odd?", xlabel="oddness of the value")

    ax = axes["few"]
    names = [name for name in accuracies if name != "raw pixels"][::-1]
    gains = [100 * (accuracies[name][1] - accuracies["raw pixels"][1]) for name in names]
    ax.barh(
        names,
        [gain.mean() for gain in gains],
        xerr=[gain.std() / np.sqrt(len(gain)) for gain in gains],
        color=[ours if " AE" in name else others for name in names],
    )
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set_title("Few labels\n90 of 1,797 digits have one")
    ax.set_xlabel("points gained over raw pixels")

    ReconstructionDisplay.from_estimator(model, X, n_images=32, n_columns=16, ax=axes["images"])
    axes["images"].set_title("Images, and below them what their codes keep")
    figure.savefig(path, dpi=100)


def print_tables(scores, odd):
    """The comparison on tables."""
    print(f"{'10 % of labels':<38}{'score, %':>16}{'gain':>17}")
    for (table, name), values in scores.items():
        gain = values - scores[table, "prepared columns"]
        print(
            f"{table:<21}{name:<17}{values.mean():>9.1f} +- {values.std():.1f}"
            f"{gain.mean():>+11.1f} +- {gain.std() / np.sqrt(len(gain)):.1f}"
        )
    rank, columns, _, by_distance = odd
    print(
        f"the wine with one odd value: number {rank} of 178 by oddness; oddest column "
        f"{columns[0]} (number {by_distance} by distance from the mean)\n"
    )


def main(quick=False, out="compare_features.png"):
    """Run the comparison, print the tables, write the picture."""
    started = time.perf_counter()
    print("tables ... ", end="", flush=True)
    tables, odd = compare_tables(quick), find_odd_wine()
    print(f"done after {time.perf_counter() - started:.0f} s\n", flush=True)
    print_tables(tables, odd)

    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(np.float32)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    draws = StratifiedShuffleSplit(3 if quick else 20, train_size=0.05, random_state=0)
    features, table = make_features(quick), {}

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
    draw(tables, odd, table, features["denoising AE"], X, out)
    print(f"\nPicture written to {out}; {time.perf_counter() - started:.0f} s in all.")


# sphinx_gallery_thumbnail_path = 'images/compare_features.png'
if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[1])
    parser.add_argument("--quick", action="store_true", help="fewer epochs and draws")
    parser.add_argument("--out", default="compare_features.png", help="file of the picture")
    main(**vars(parser.parse_args()))
