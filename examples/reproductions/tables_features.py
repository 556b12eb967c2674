"""
Features of raw tables that help the classifiers behind them
============================================================

Claim: the features of a bare ``TableFeatures()``, which takes a data frame as it is, help
a linear classifier more than carefully prepared columns do, and with few labels more than PCA and
untrained units of these; other classifiers lose nothing on average.

Each table is split into a training part (70 % of the rows, without labels) and a test part.
Features are learned on the training part; a logistic regression, an SVC and 15 nearest
neighbours, all with their default parameters, learn from all labels of the training part
(the SVC from 3,000 at most), or from 5 % of them (three draws, 20 at least). Contenders:

- columns: as a careful user prepares them (see ``real_tables.py``), the reference;
- PCA of these that keeps 95 % of the variance;
- random units: 256 sigmoid units of random weights on these;
- denoising: a bare ``DenoisingAutoEncoder()`` on the raw frame;
- both: the columns with these codes beside them;
- table features: a bare ``TableFeatures()`` on the raw frame.

Shown are areas under the ROC curve in percent: the mean gain over the columns and its standard
error over tables, in how many tables there is a gain, the median and the worst table.

Reached with ``--splits 5 --rows 2500`` (16 tables; mean gain over the columns, its standard error,
tables that gain):

=============== ================== ================== ==================
features        LR all             SVC all            kNN all
=============== ================== ================== ==================
PCA             -0.19 +- 0.15 (5)  -0.69 +- 0.18 (3)  +0.03 +- 0.11 (5)
random units    +1.67 +- 0.95 (12) +0.38 +- 0.11 (14) -0.24 +- 0.15 (4)
denoising       +0.18 +- 0.16 (11) +0.00 +- 0.12 (9)  -0.11 +- 0.31 (7)
both            +0.26 +- 0.13 (9)  +0.17 +- 0.06 (12) +0.13 +- 0.19 (8)
table features  +1.74 +- 0.89 (13) +0.03 +- 0.31 (8)  +0.20 +- 0.28 (8)
=============== ================== ================== ==================

=============== ================== ================== ==================
features        LR 5 %             SVC 5 %            kNN 5 %
=============== ================== ================== ==================
PCA             +0.03 +- 0.09 (10) -0.42 +- 0.14 (2)  -0.06 +- 0.08 (7)
random units    +0.66 +- 0.54 (10) +0.08 +- 0.23 (7)  -0.21 +- 0.27 (5)
denoising       +0.75 +- 0.34 (12) -0.21 +- 0.30 (4)  -0.26 +- 0.67 (6)
both            -0.03 +- 0.10 (4)  +0.29 +- 0.16 (11) +0.18 +- 0.23 (7)
table features  +2.36 +- 0.62 (14) +0.32 +- 0.49 (12) +1.20 +- 0.47 (12)
=============== ================== ================== ==================

So the claim holds for a linear model, above all with few labels: +1.70 +- 0.26 (15 tables) over
random units there, and neighbours gain 1.41 +- 0.51 (12 tables) over these. With all labels random
units give a linear model as much and an SVC more. Seconds of the CPU for a fit: 0.9, and 0.5 for
``DenoisingAutoEncoder()``.

**Tables below the columns by more than a point**: card_default, of three variables and so without a
code, for an SVC (-5.5 with 5 %, -3.6 with all labels); titanic and caravan for neighbours with all
labels (-1.1, -1.6). With 5 % no other table loses more than 0.6.

Variables are weighed among the columns by the fourth root of the share of their variance that the
others do not tell. Without that, on the same splits, table features had LR 5 % +2.09 +- 0.69 (worst
-2.3), SVC 5 % +0.06 +- 0.30 (-2.7), kNN 5 % +0.33 +- 0.36 (-3.8, orange_juice, where one column
tells nearly all and sixteen prices outvoted it: now +2.8, +4.4, +7.0). The first, third
and so on of the tables would not have chosen it: there LR, SVC and neighbours with 5 %, of 2,000
rows, change by -0.2, -0.1 and -0.2, on the other half by +0.8, +1.3 and +1.5; so the gain is of few
tables, and losses are small. The square root (-0.4, -0.2, -0.5; +1.1, +2.1, +2.1) loses more where
it does not help; shares of single one-hot columns in the place of variables are no better. Halving
the code lifts the worst table to -1.6 and halves the gains. Ridge regressions with 44 labels on
diamonds and house_prices lose 1.3 and 0.9 points of R^2 by the weights, 83.0 and 72.7 (columns
78.2 and 72.7).

The 442 patients of ``compare_features.py`` lose for two reasons, seen on 40 draws of labels before
there were these weights: clipped columns alone have R^2 37.8, standardised ones 39.2; and beside a
code the ridge that is chosen by left-out rows is far too small in a few draws of 44 (-21 at worst).

Run ``SKAE_DATA=... python examples/reproductions/tables_features.py`` (``--splits 5``,
``--tables adult titanic``, ``--rows 5000`` at most of each table).
"""

import argparse
import time
import warnings

import numpy as np
from real_tables import load_table, prepared_columns, table_names
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedShuffleSplit
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC

from skae import DenoisingAutoEncoder, TableFeatures

CLASSIFIERS = {
    "LR": LogisticRegression(max_iter=1000),
    "SVC": SVC(),
    "kNN": KNeighborsClassifier(15),
}
MOST_FOR_SVC, FEWEST_LABELS, N_DRAWS = 3000, 20, 3
MEASURES = [f"{name} {labels}" for labels in ("all", "5 %") for name in CLASSIFIERS]


def random_units(columns, n_units=256, seed=0):
    """A function of prepared columns: sigmoid units of random weights."""
    generator = np.random.default_rng(seed)
    n_columns = columns.shape[1]
    weight = generator.normal(0, 1.5 / np.sqrt(n_columns), size=(n_columns, n_units))
    bias = generator.normal(0, 0.5, size=n_units)
    return lambda columns: 1 / (1 + np.exp(-(columns @ weight + bias)))


def make_features(train, test, seed):
    """(name, features of the training rows, of the test rows, seconds) of every contender."""
    prepared = prepared_columns().fit(train)
    columns = [prepared.transform(part).astype(np.float32) for part in (train, test)]
    yield "columns", *columns, 0.0
    pca = PCA(0.95, svd_solver="full").fit(columns[0])
    yield "PCA", *map(pca.transform, columns), 0.0
    yield "random units", *map(random_units(columns[0], seed=seed), columns), 0.0
    started = time.process_time()
    denoising = DenoisingAutoEncoder(random_state=seed, device="cpu").fit(train)
    seconds = time.process_time() - started
    codes = [denoising.transform(part) for part in (train, test)]
    yield "denoising", *codes, seconds
    yield "both", *(np.hstack(pair) for pair in zip(columns, codes, strict=True)), seconds
    started = time.process_time()
    features = TableFeatures(random_state=seed, device="cpu").fit(train)
    seconds = time.process_time() - started
    yield "table features", *(features.transform(part) for part in (train, test)), seconds


def areas(train, y_train, test, y_test, draws):
    """The area under the ROC curve of every measure, in percent."""
    found = []
    order = np.random.default_rng(0).permutation(len(y_train))
    for labelled in ([order], draws):
        for name, classifier in CLASSIFIERS.items():
            of_draws = []
            for rows in labelled:
                rows = rows[:MOST_FOR_SVC] if name == "SVC" else rows
                classifier.fit(train[rows], y_train[rows])
                if name == "kNN":
                    scores = classifier.predict_proba(test)[:, 1]
                else:
                    scores = classifier.decision_function(test)
                of_draws.append(roc_auc_score(y_test, scores))
            found.append(100 * np.mean(of_draws))
    return found


def compare(name, n_splits, n_rows):
    """Mean areas over splits of one table: {contender: (measures, seconds)}."""
    X, y = load_table(name)
    if len(y) > n_rows:
        rows = np.random.default_rng(0).permutation(len(y))[:n_rows]
        X, y = X.iloc[rows].reset_index(drop=True), y[rows]
    found = {}
    splits = StratifiedShuffleSplit(n_splits, test_size=0.3, random_state=0)
    for seed, (train, test) in enumerate(splits.split(X, y)):
        n_labels = max(FEWEST_LABELS, round(0.05 * len(train)))
        draw = StratifiedShuffleSplit(N_DRAWS, train_size=n_labels, random_state=seed)
        draws = [rows for rows, _ in draw.split(train, y[train])]
        for contender, *features, seconds in make_features(X.iloc[train], X.iloc[test], seed):
            of_train, of_test = features
            measured = areas(of_train, y[train], of_test, y[test], draws)
            found.setdefault(contender, []).append([*measured, seconds])
    return {contender: np.mean(rows, axis=0) for contender, rows in found.items()}


def show(tables):
    """The table of mean gains."""
    contenders = list(next(iter(tables.values())))
    values = {c: np.array([found[c] for found in tables.values()]) for c in contenders}
    reference = values["columns"][:, :-1]
    print(f"\n{len(tables)} tables{'':<17}" + "".join(f"{m:>22}" for m in MEASURES))
    print(f"{'columns':<25}" + "".join(f"{mean:>22.1f}" for mean in reference.mean(axis=0)))
    for name in contenders[1:]:
        gain = values[name][:, :-1] - reference
        error = gain.std(axis=0, ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else 0 * gain[0]
        cells = zip(gain.mean(axis=0), error, (gain > 0).sum(axis=0), strict=True)
        print(f"{name:<25}" + "".join(f"{f'{m:+.2f} +- {e:.2f} ({n})':>22}" for m, e, n in cells))
        print(f"{'  median':<25}" + "".join(f"{m:>+22.2f}" for m in np.median(gain, axis=0)))
        worst = gain.argmin(axis=0)
        cells = [
            f"{g:+.1f} {[*tables][t][:13]}" for g, t in zip(gain.min(axis=0), worst, strict=True)
        ]
        print(f"{'  worst':<25}" + "".join(f"{cell:>22}" for cell in cells))
        print(f"{'  seconds':<25}{values[name][:, -1].mean():>22.1f}")
    for other in ("random units", "denoising"):
        gain = (values["table features"] - values[other])[:, :-1]
        error = gain.std(axis=0, ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else 0 * gain[0]
        cells = zip(gain.mean(axis=0), error, (gain > 0).sum(axis=0), strict=True)
        print(
            f"{f'table features - {other}':<25.25}"
            + "".join(f"{f'{m:+.2f} +- {e:.2f} ({n})':>22}" for m, e, n in cells)
        )


def main(splits=5, tables=None, rows=5000):
    """Compare on all tables, print each as it is done, then the means."""
    found = {}
    for name in tables or table_names():
        started = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # text of many values, which is pooled
            found[name] = compare(name, splits, rows)
        print(f"{name} ({time.perf_counter() - started:.0f} s)", flush=True)
        for contender, measured in found[name].items():
            print(f"  {contender:<16}" + "".join(f"{m:>8.2f}" for m in measured), flush=True)
    show(found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[1])
    parser.add_argument("--splits", type=int, default=5, help="random splits of each table")
    parser.add_argument("--rows", type=int, default=5000, help="rows of a table at most")
    parser.add_argument("--tables", nargs="*", help="names of tables; all by default")
    main(**vars(parser.parse_args()))
