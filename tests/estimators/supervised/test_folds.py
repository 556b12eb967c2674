"""Folds of labelled rows."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from sklearn.model_selection import GroupKFold, LeaveOneOut, cross_val_score

from skae import LabelledFolds, StackedClassifier

X = np.random.default_rng(0).normal(size=(60, 3))
CLASSES = (X[:, 0] > 0).astype(int)
KNOWN = np.arange(60) % 3 == 0

CASES = {
    "integers": (np.where(KNOWN, CLASSES, -1), -1),
    "strings": (np.where(KNOWN, np.array(["no", "yes"])[CLASSES], "?"), "?"),
    "minus one among strings": (np.where(KNOWN, CLASSES.astype("U2"), "-1"), -1),
    "text of pandas": (pd.Series(np.where(KNOWN, "yes", None), dtype="string"), -1),
    "objects": (np.where(KNOWN, CLASSES.astype(object), None), -1),
    "numbers": (np.where(KNOWN, X[:, 0], np.nan), None),
    "two outputs": (np.where(KNOWN[:, None], np.c_[CLASSES, 1 - CLASSES], [1, -1]), -1),
}


@pytest.mark.parametrize(("y", "unlabelled"), CASES.values(), ids=CASES)
def test_unlabelled_rows_are_in_every_training_fold_alone(y, unlabelled):
    folds = LabelledFolds(4, unlabelled=unlabelled)
    tested = []
    for train, test in folds.split(X, y):
        assert set(np.flatnonzero(~KNOWN)) <= set(train)
        assert not set(train) & set(test)
        assert len(train) + len(test) == 60
        tested.append(test)
    # Every labelled row is tested once, as cross-validation has it.
    assert_array_equal(np.sort(np.concatenate(tested)), np.flatnonzero(KNOWN))
    assert folds.get_n_splits() == folds.get_n_splits(X, y) == 4


def test_labelled_rows_are_stratified():
    y, _ = CASES["integers"]
    parts = [np.mean(CLASSES[test]) for _, test in LabelledFolds(2).split(X, y)]
    # Both halves have their share of both classes, to within one row.
    assert abs(parts[0] - parts[1]) < 2.5 / 20


def test_splitters_of_scikit_learn():
    y, _ = CASES["integers"]
    assert LabelledFolds(LeaveOneOut()).get_n_splits(X, y) == 20
    groups = np.arange(60) // 6
    for train, test in LabelledFolds(GroupKFold(3)).split(X, y, groups):
        # Groups of labelled rows stay together.
        assert not set(groups[train[KNOWN[train]]]) & set(groups[test])


def test_scorers_see_labelled_rows_alone():
    y, _ = CASES["integers"]
    model = StackedClassifier((4,), max_iter=5, output="linear", random_state=0)
    scores = cross_val_score(model, X, y, cv=LabelledFolds(3), scoring="roc_auc")
    # Of two classes: with the mark among the labels there would be three, and no such score.
    assert np.isfinite(scores).all()


def test_what_cannot_be_split():
    with pytest.raises(ValueError, match="needs y"):
        next(LabelledFolds().split(X))
    with pytest.raises(ValueError, match="No row is labelled"):
        next(LabelledFolds().split(X, np.full(60, -1)))
    with pytest.raises(ValueError, match="inconsistent"):
        next(LabelledFolds().split(X, CLASSES[:-1]))
