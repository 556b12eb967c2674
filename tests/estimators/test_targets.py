"""What y and weights may be: marks of unknown targets, kinds, sizes, containers, scores."""

from importlib.util import find_spec

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from registry import CASES, PREDICTORS
from sklearn import config_context

from skae import AutoEncoder, SparseCoder, StackedAutoEncoder
from skae._validation import check_weights
from skae.estimators.targets import Classes, Numbers, infer_targets

NAMES = np.array(["setosa", "virginica"])
WORDS = NAMES[np.arange(9) % 2]
SOME = np.arange(9) % 3 > 0
DAYS = np.array(["2020-01-01", "2020-01-02"], dtype="M8[D]")[np.arange(9) % 2]


def classes_of(y, **parameters):
    kind = Classes(**parameters)
    table = kind.checked(y)
    return kind.described(table), table


# Marks of what is not known


def marked(dtype, mark):
    labels = WORDS.astype(dtype)
    labels[~SOME] = mark
    return labels


@pytest.mark.parametrize(
    ("y", "mark"),
    [
        (marked("U9", -1), -1),  # NumPy makes "-1" of it
        (marked(object, -1), -1),
        ([-1 if not known else word for known, word in zip(SOME, WORDS, strict=True)], -1),
        (marked("U9", -1.0), -1.0),
        (marked(object, None), np.nan),
        (marked(object, np.nan), np.nan),
        (pd.Series(marked(object, None), dtype="string"), np.nan),
        (pd.Series(marked(object, None), dtype="category"), np.nan),
        (marked(object, "?"), "?"),
    ],
)
def test_marks_among_strings(y, mark):
    kind, table = classes_of(y, unlabelled=mark)
    # However it is stored, the mark is no class.
    assert_array_equal(kind.classes[0], NAMES)
    assert_array_equal(table.known[:, 0], SOME)
    assert_array_equal(kind.encoded(table).labelled, SOME)


@pytest.mark.parametrize(
    "y",
    [
        np.where(SOME, np.arange(9) % 2, np.nan),
        pd.Series(np.arange(9) % 2, dtype="Int64").where(pd.Series(SOME)),
        np.where(SOME, (np.arange(9) % 2).astype(object), None),
        np.ma.masked_array(np.arange(9) % 2, ~SOME),
    ],
)
def test_marks_among_numbers(y):
    kind, table = classes_of(y, unlabelled=np.nan)
    assert_array_equal(kind.classes[0], [0, 1])
    assert_array_equal(table.known[:, 0], SOME)
    for other in (np.ma.masked_array(WORDS, ~SOME), np.where(SOME, DAYS, np.datetime64("NaT"))):
        kind, table = classes_of(other, unlabelled=np.nan)
        assert_array_equal(table.known[:, 0], SOME)
        assert len(kind.classes[0]) == 2
    with pytest.raises(ValueError, match=r"NaN or None, first in row 0.*unlabelled=numpy\.nan"):
        # Not a mark unless it was chosen.
        Classes().checked(y)


def test_a_mark_that_numpy_has_cut():
    y = np.array(["a", "b", "a", "b"])
    y[0] = "unknown"
    with pytest.raises(ValueError, match=r"'u' may be what is left.*astype\(object\)"):
        Classes("unknown").checked(y)
    y = y.astype(object)
    y[0] = "unknown"
    assert Classes("unknown").checked(y).known.sum() == 3


@pytest.mark.parametrize(
    ("y", "is_noticed"),
    [
        ([-1, 0, 1] * 5, True),  # three classes, it seems
        ([-1, 0, 1] * 5 + [-1], True),  # also where they are not equally many
        (["-1", "0", "1"] * 5, True),
        ([-2, -1, 0, 1, 2] * 3, True),
        ([-1, -1, -1, 0, 1] * 3, False),
        ([-1, 0, 1, 2] * 5, False),
        ([0, 1, 1] * 5, False),
    ],
)
def test_minus_one_that_seems_to_be_a_class(y, is_noticed, recwarn):
    classes_of(y)
    told = [str(warning.message) for warning in recwarn]
    assert len(told) == is_noticed
    assert all("set unlabelled=None" in message for message in told)
    # Who says so is not told again.
    recwarn.clear()
    classes_of(y, unlabelled=None)
    assert len(recwarn) == 0


def test_an_output_with_one_class():
    y = pd.DataFrame({"cat": [0, 1, 0, 1], "yeti": [0, 0, 0, 0]})
    with pytest.warns(UserWarning, match="output 'yeti' are 0: it will be predicted"):
        kind, table = classes_of(y)
    # Labels that are there or not stay so, as in scikit-learn's networks.
    assert kind.is_multilabel
    assert_array_equal(kind.encoded(table).values[:, 2:], [[1, 0]] * 4)


# Kinds


def test_whole_floats_are_numbers():
    whole = np.array([3.0, 7.0, 3.0, 1.0])
    assert infer_targets(whole).kind.groups is None
    assert infer_targets(whole.astype(int)).kind.groups is not None
    assert infer_targets(whole.astype(int).astype(str)).kind.groups is not None
    # A classifier's floats are classes: the user said so.
    assert_array_equal(classes_of(whole)[0].classes[0], [1, 3, 7])


def test_scores_of_labels_of_another_type():
    kind = Classes(classes=[np.array([0, 1])])
    with pytest.raises(ValueError, match=r"y has strings, such as '0'.*are numbers"):
        kind.score(["0", "1"], np.array([0, 1]))
    kind = Classes(classes=[NAMES])
    with pytest.raises(ValueError, match=r"y has numbers.*are strings"):
        kind.score([0, 1], NAMES)


# Sizes


@pytest.mark.parametrize("size", [1e-300, 1e-200, 1.0, 1e200, 1e300])
def test_numbers_of_any_size(size):
    y = np.array([[1.0, 2.0], [2.0, 5.0], [4.0, 3.0], [3.0, 7.0]])
    kind = Numbers()
    kind = kind.described(kind.checked(y * size))
    assert_allclose(kind.mean / size, y.mean(0))
    assert_allclose(kind.scale / size, y.std(0))
    targets = kind.encoded(kind.checked(y * size))
    # Standardised targets, predictions and scores do not depend on the unit.
    assert_allclose(targets.values, (y - y.mean(0)) / y.std(0))
    assert_allclose(kind.predicted(targets.values) / size, y)
    guess = y[:, ::-1] * size
    plain = Numbers(y.mean(0), y.std(0)).score(y, y[:, ::-1])
    assert kind.score(y * size, guess) == pytest.approx(plain)


def test_numbers_whose_differences_overflow():
    kind = Numbers()
    with pytest.raises(ValueError, match=r"overflow. Rescale it"):
        kind.described(kind.checked([1.7e308, -1.7e308]))
    with pytest.raises(ValueError, match="infinity"):
        kind.checked([np.inf, 1.0])


def test_text_is_no_number():
    for y in (WORDS, WORDS.astype(object)):
        with pytest.raises(ValueError, match="y must be numbers: could not convert"):
            Numbers().checked(y)
    # As numbers they would be nanoseconds, and those that are missing the least number of all.
    for y in (DAYS, DAYS - DAYS[0]):
        with pytest.raises(ValueError, match=r"dates or durations.* np.timedelta64"):
            Numbers().checked(y)
    with pytest.raises(ValueError, match=r"y must be numbers.*Timestamp"):
        Numbers().checked(pd.Series(DAYS.astype("M8[s]")).dt.tz_localize("UTC"))
    assert_array_equal(Numbers().checked(["1.5", "2"]).values, [[1.5], [2.0]])


def test_a_row_that_misses_one_number():
    y = np.array([[1.0, 2.0], [2.0, np.nan], [4.0, 6.0], [5.0, np.nan]])
    kind = Numbers()
    kind = kind.described(table := kind.checked(y))
    # Each output's moments are of the rows that have it ...
    assert_allclose(kind.mean, [3, 4])
    assert_allclose(kind.scale, [np.std([1, 2, 4, 5]), 2])
    targets = kind.encoded(table)
    assert targets.labelled.all()
    # ... and its loss is a mean over these.
    assert_allclose(targets.weight, [[1, 2], [1, 0], [1, 2], [1, 0]])
    assert targets.total == 3
    assert kind.score(y, kind.predicted(targets.values)) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="in output 1"):
        kind.described(kind.checked(np.where(np.arange(2) == 1, np.nan, y)))


# Weights


def test_balanced_weights_with_weights_of_rows():
    y, weight = np.array([0, 0, 0, 1, 1, 2]), np.array([1.0, 2, 3, 1, 1, 4])
    kind, table = classes_of(y, class_weight="balanced")
    values = kind.encoded(table, weight / weight.mean()).values
    # n / (3 n_c) of the weighted rows, as compute_class_weight of scikit-learn 1.9 says.
    expected = weight.sum() / (3 * np.bincount(y, weight))
    counts = (weight * expected[y]) / np.mean(weight * expected[y])
    # All classes count alike in sum.
    assert_allclose(values.sum(1), counts)
    assert_allclose(values.sum(0), 2.0)


def test_frequencies_do_not_follow_class_weights():
    y = np.repeat([0, 1], [600, 300])
    kind, table = classes_of(y, class_weight={0: 1.0, 1: 9.0})
    found = kind.encoded(table).class_frequencies()
    plain, table = classes_of(y)
    # How much a class matters says nothing of how often it occurs.
    assert_allclose(found, plain.encoded(table).class_frequencies())
    assert abs(float(found[0]) - 2 / 3) < 0.01


@pytest.mark.parametrize(
    ("weight", "match"),
    [
        (np.ones(3), "expected"),
        (-np.ones(4), "Negative"),
        (np.ones((4, 1)), "1D"),
        (np.array([1, np.nan, 1, 1]), "NaN"),
        (np.zeros(4), "all zero|non-zero"),
    ],
)
@pytest.mark.parametrize(
    "kind", [Classes(classes=[np.arange(2)]), Numbers(np.zeros(1), np.ones(1))]
)
def test_weights_of_a_score(kind, weight, match):
    y = np.array([0, 1, 0, 1])
    with pytest.raises(ValueError, match=match):
        kind.score(y, y.astype(float), weight)


@pytest.mark.parametrize("y", [np.zeros((2, 4)), np.zeros(3), np.zeros((4, 2)), np.zeros(8)])
@pytest.mark.parametrize(
    "kind", [Classes(classes=[np.arange(2)]), Numbers(np.zeros(1), np.ones(1))]
)
def test_scores_of_other_shapes(kind, y):
    with pytest.raises(ValueError, match=r"inconsistent numbers|outputs"):
        kind.score(y, np.zeros(4))


# Containers


TENSORS = {
    "gradient": lambda array: torch.tensor(array, dtype=torch.float64, requires_grad=True),
    "bfloat16": lambda array: torch.tensor(array).bfloat16(),
    "float16": lambda array: torch.tensor(array).half(),
}


@pytest.mark.parametrize("make", TENSORS.values(), ids=TENSORS)
def test_tensors_as_targets_and_weights(make):
    y = np.array([1.0, 2.0, 4.0, 2.0])
    for kind in (Numbers(), Classes()):
        assert_array_equal(kind.checked(make(y)).values, kind.checked(y).values)
    assert_allclose(check_weights(make(y), y), check_weights(y, y))
    assert_array_equal(infer_targets(make(y)).values, infer_targets(y).values)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_tensors_where_scikit_learn_keeps_them(case):
    """With array-API dispatch its checks return tensors as they are."""
    if find_spec("sklearn.externals.array_api_compat") is None:
        pytest.importorskip("array_api_compat")
    y = case.y if case.y is None or case.is_regressor else (case.y == "yes").astype(int)
    model = case.make().fit(case.X, y)
    with config_context(array_api_dispatch=True):
        X, tensor = torch.tensor(case.X), None if y is None else torch.tensor(y)
        again = case.make().fit(X, tensor)
        found = case.output(again, X)
        assert isinstance(found, torch.Tensor), type(found)
        assert_array_equal(found, case.output(model))
        if case.is_classifier or case.is_regressor:
            assert again.score(X, tensor) == model.score(case.X, y)
        if hasattr(model, "inverse_transform"):
            codes = model.transform(case.X)
            rows = again.inverse_transform(torch.tensor(codes))
            assert isinstance(rows, torch.Tensor), type(rows)
            assert_array_equal(rows, model.inverse_transform(codes))
        for name in ("reconstruct", "score_samples", "predict_proba", "decision_function"):
            if hasattr(model, name):
                found, expected = getattr(again, name)(X), getattr(model, name)(case.X)
                assert isinstance(found, torch.Tensor), name
                assert found.dtype == torch.from_numpy(expected).dtype
                assert_array_equal(found, expected)
    # Without dispatch, tensors go in and arrays come out.
    assert not isinstance(case.output(model, X), torch.Tensor)


@pytest.mark.parametrize("make", TENSORS.values(), ids=TENSORS)
def test_tensors_as_codes_and_dictionaries(make, X):
    model = AutoEncoder(3, max_iter=1, random_state=0).fit(X, sample_weight=make(np.ones(40)))
    codes = np.array([[0.5, 0.25, 1.0]])
    assert_allclose(model.inverse_transform(make(codes)), model.inverse_transform(codes), rtol=1e-5)
    atoms = np.eye(4)
    assert_allclose(
        SparseCoder(dictionary=make(atoms)).fit(X).transform(X),
        SparseCoder(dictionary=atoms).fit(X).transform(X),
        rtol=1e-5,
    )


@pytest.mark.parametrize("case", PREDICTORS, ids=str)
def test_predictors_check_what_they_score(case):
    model = case.fitted
    for y, weight in ((case.y[:-1], None), (case.y, np.ones(39)), (case.y, -np.ones(40))):
        with pytest.raises(ValueError, match=r"inconsistent|expected|Negative"):
            model.score(case.X, y, sample_weight=weight)
    if case.is_classifier:
        with pytest.raises(ValueError, match="such as 0, but the classes"):
            model.score(case.X, np.arange(40) % 2)


def test_stacks_check_targets_of_pretraining(X):
    stack = StackedAutoEncoder((3,), pretraining="supervised", max_iter=1)
    with pytest.raises(ValueError, match=r"inconsistent numbers"):
        stack.fit(X, np.arange(39) % 2)
