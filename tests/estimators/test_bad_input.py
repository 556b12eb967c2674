"""Errors come before training, name the remedy, and leave a fitted model as it was.

What checks data and weights is tested itself; each estimator is tested to call it.
"""

import datetime
import functools
import inspect
import itertools
import pickle
import warnings
from numbers import Real

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from numpy.testing import assert_array_equal
from registry import CASES, GRADIENT_LEARNERS, LEARNERS, TRAINED, families
from scipy import sparse
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.utils import get_tags
from sklearn.utils._param_validation import validate_parameter_constraints

from skae import (
    RBM,
    AutoEncoder,
    DenoisingAutoEncoder,
    DenoisingImputer,
    OutlierDetector,
    PosteriorEnsemble,
    StackedAutoEncoder,
)
from skae._validation import (
    Interval,
    check_choice,
    check_count,
    check_finite,
    check_number,
    check_rows,
    check_weights,
    make_generator,
)
from skae.estimators.face.columns import describe_columns

each_case = pytest.mark.parametrize("case", CASES, ids=str)
each_trained = pytest.mark.parametrize("case", TRAINED, ids=str)
each_gradient_learner = pytest.mark.parametrize("case", GRADIENT_LEARNERS, ids=str)
each_learner = pytest.mark.parametrize("case", LEARNERS, ids=str)


def state_of(model):
    # All but the parameters, in any order: what a fit notes beside its attributes is state as well.
    parameters = model.get_params(deep=False)
    return pickle.dumps(sorted((k, v) for k, v in vars(model).items() if k not in parameters))


def assert_refused(model, data, match, error=ValueError, y=None, **fit_parameters):
    """fit and partial_fit raise; an unfitted model stays unfitted, a fitted one as it was."""
    before = state_of(model)
    with pytest.raises(error, match=match):
        model.fit(data, y, **fit_parameters)
    assert state_of(model) == before
    if hasattr(model, "partial_fit"):
        if is_classifier(model):
            fit_parameters["classes"] = ["no", "yes"]
        with pytest.raises(error, match=match):
            model.partial_fit(data, y, **fit_parameters)
        assert state_of(model) == before


# The functions that check rows


class Rows(BaseEstimator):
    """An estimator that only looks at its data."""

    def fit(self, X):
        self.X_ = check_rows(self, X, reset=True)
        return self


def as_map(data, folder):
    joblib.dump(data, folder / "X.joblib")
    return joblib.load(folder / "X.joblib", mmap_mode="r")


FINITE_FORMS = {
    "array": lambda data, folder: data,
    "float32": lambda data, folder: data.astype(np.float32),
    "float16": lambda data, folder: data.astype(np.float16),
    "Fortran": lambda data, folder: np.asfortranarray(data),
    "CSR": lambda data, folder: sparse.csr_array(data),
    "CSC": lambda data, folder: sparse.csc_matrix(data),
    "map": as_map,
    "list": lambda data, folder: data.tolist(),
    "tensor": lambda data, folder: torch.tensor(data),
}


@pytest.mark.parametrize("form", FINITE_FORMS)
def test_not_finite(counts, form, tmp_path):
    for value, match in (
        (np.nan, r"NaN in row 7, column 2.*SimpleImputer"),
        (np.inf, r"infinity in row 7, column 2.*[Cc]lip"),
        (-np.inf, r"infinity in row 7, column 2.*[Cc]lip"),
    ):
        data = counts.astype(float)
        data[7, 2] = value
        # The place and what to do about it: a user with a million rows needs both.
        with pytest.raises(ValueError, match=match):
            Rows().fit(FINITE_FORMS[form](data, tmp_path))


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame])
def test_not_finite_in_a_frame(frame):
    data = frame({"age": [1.0, 2.0, 3.0], "size": [1.0, None, float("inf")]})
    # Frames have names, and a missing value of any kind is a NaN.
    with pytest.raises(ValueError, match=r"NaN in row 1, column 1 \('size'\).*SimpleImputer"):
        Rows().fit(data)


def test_missing_value_of_a_nullable_integer_column():
    data = pd.DataFrame({"n": pd.array([1, None, 3], dtype="Int64")})
    with pytest.raises(ValueError, match=r"NaN in row 1, column 0 \('n'\)"):
        Rows().fit(data)


def test_not_finite_in_later_blocks():
    # A block is 16 MiB of float64, so this is in the third.
    data = np.zeros((5, 2**20))
    data[4, 3] = np.nan
    # The row is counted from the start of the data, not of the block it was found in.
    with pytest.raises(ValueError, match="NaN in row 4, column 3"):
        check_finite(data)


def test_large_finite_numbers_are_finite():
    # The sum of a block overflows though no entry is infinite: that is no error here.
    check_finite(np.full((10, 2), 3e38, dtype=np.float32))


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (np.empty((0, 4)), "0 sample"),
        (np.empty((5, 0)), "0 feature"),
        (sparse.csr_array((0, 4)), "0 sample"),
        (pd.DataFrame({"a": []}), "0 sample"),
        ([], "array"),
        (np.arange(5.0), "reshape"),
        (pd.Series([1.0, 2.0]), "2-dimensional|2D"),
        (np.zeros((2, 2, 2)), "dim"),
        (3.0, "2D"),
        ([[1, 2], [3]], "sequence|inhomogeneous"),
    ],
    ids=str,
)
def test_shapes(data, match):
    with pytest.raises(ValueError, match=match):
        Rows().fit(data)


TEXT = ["a", "b", "c"]
DATES = [datetime.datetime(2020, 1, day) for day in (1, 2, 3)]
NON_NUMERIC_FRAMES = {
    "pandas text": pd.DataFrame({"n": [1, 2, 3], "bad": TEXT}),
    "pandas object": pd.DataFrame({"n": [1, 2, 3], "bad": pd.Series([1, "b", 3], dtype=object)}),
    "pandas bytes": pd.DataFrame({"n": [1, 2, 3], "bad": [b"a", b"b", b"c"]}),
    "pandas category": pd.DataFrame({"n": [1, 2, 3], "bad": pd.Categorical(TEXT)}),
    "pandas numeric category": pd.DataFrame({"n": [1, 2, 3], "bad": pd.Categorical([1, 2, 1])}),
    "pandas datetime": pd.DataFrame({"n": [1, 2, 3], "bad": DATES}),
    "pandas duration": pd.DataFrame({"n": [1, 2, 3], "bad": pd.to_timedelta([1, 2, 3])}),
    "pandas period": pd.DataFrame({"n": [1, 2, 3], "bad": pd.period_range("2020", periods=3)}),
    "pandas interval": pd.DataFrame({"n": [1, 2, 3], "bad": pd.interval_range(0, 3)}),
    "pandas text and missing": pd.DataFrame({"n": [1, 2, 3], "bad": ["a", None, "b"]}),
    "polars text": pl.DataFrame({"n": [1, 2, 3], "bad": TEXT}),
    "polars category": pl.DataFrame({"n": [1, 2, 3], "bad": pl.Series(TEXT, dtype=pl.Categorical)}),
    "polars enum": pl.DataFrame({"n": [1, 2, 3], "bad": pl.Series(TEXT, dtype=pl.Enum(TEXT))}),
    "polars datetime": pl.DataFrame({"n": [1, 2, 3], "bad": DATES}),
    "polars date": pl.DataFrame({"n": [1, 2, 3], "bad": [date.date() for date in DATES]}),
    "polars list": pl.DataFrame({"n": [1, 2, 3], "bad": [[1], [2], [3]]}),
}


@pytest.mark.parametrize("name", NON_NUMERIC_FRAMES)
def test_non_numeric_columns(name):
    # The column and the encoder; columns that are numeric are not named.
    with pytest.raises(ValueError, match=r"'bad'.*OneHotEncoder") as caught:
        Rows().fit(NON_NUMERIC_FRAMES[name])
    assert "'n'" not in str(caught.value)


def test_python_dates_in_an_object_column():
    frame = pd.DataFrame({"n": [1, 2, 3], "bad": [date.date() for date in DATES]})
    # Python's own word for a value that float() does not take is TypeError.
    with pytest.raises(TypeError, match=r"'bad'.*dates"):
        Rows().fit(frame)


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (np.array([[1, "a"], [2, "b"]], dtype=object), "Column 1 .*'a'.*OneHotEncoder"),
        (np.array([["1", "a"], ["2", "b"]]), "OneHotEncoder"),
        ([[1, "a"], [2, "b"]], "OneHotEncoder"),
        (np.array([["2020-01-01"], ["2020-01-02"]], dtype="M8[D]"), "datetime64.*days"),
        (np.array([[1], [2]], dtype="m8[s]"), "timedelta64.*seconds"),
        (np.ones((3, 2)) + 1j, "[Cc]omplex"),
    ],
    ids=["objects", "strings", "lists", "dates", "durations", "complex"],
)
def test_non_numeric_arrays(data, match):
    with pytest.raises(ValueError, match=match):
        Rows().fit(data)


def test_many_non_numeric_columns_are_counted():
    # As strings, which pandas before 3 would take for objects.
    frame = pd.DataFrame({f"text{i}": TEXT for i in range(20)}, dtype="string")
    # Five names are an explanation, twenty are noise.
    with pytest.raises(ValueError, match=r"'text4' \(string\) and 15 more") as caught:
        Rows().fit(frame)
    assert "text5" not in str(caught.value)


# The functions that check weights, numbers and seeds

BAD_WEIGHTS = {
    "zero": (np.zeros(40), "zero"),
    "negative": (np.full(40, -1.0), "[Nn]egative"),
    "NaN": (np.r_[np.nan, np.ones(39)], "NaN"),
    "infinity": (np.r_[np.inf, np.ones(39)], "infinity"),
    "short": (np.ones(39), r"39.*40"),
    "2-D": (np.ones((40, 2)), "1D"),
    "text": (["a"] * 40, "must be real numbers"),
    "objects": (np.array([{}] * 40), "must be real numbers"),
    "complex": (np.full(40, 1 + 1j), "must be real numbers"),
}


@pytest.mark.parametrize("kind", BAD_WEIGHTS)
def test_sample_weights(X, kind):
    weight, match = BAD_WEIGHTS[kind]
    with pytest.raises(ValueError, match=match):
        check_weights(weight, X)


def test_weights_have_mean_one_and_any_size(X):
    weight = np.arange(40) % 3
    for size in (1.0, 1e-300, 5e307):
        checked = check_weights(size * weight, X)
        # Relative, over the rows that count.
        assert checked[weight > 0].mean() == pytest.approx(1)
        np.testing.assert_allclose(checked / checked.max(), weight / 2)
    assert check_weights(np.full(40, 7.0), X) is None


@pytest.mark.parametrize(
    ("check", "arguments", "match"),
    [
        (check_count, ("n", 0, 1), "n=0 must be an integer of at least 1"),
        (check_count, ("n", 2.0, 1), r"n=2\.0 must be an integer"),
        (check_count, ("n", True, 1), "n=True must be an integer"),
        (check_number, ("n", np.nan), "n=nan must be a finite number"),
        (check_number, ("n", "1"), "n='1' must be a finite number"),
        (check_number, ("n", False), "n=False must be a finite number"),
        (check_choice, ("n", "c", ["a", "b"]), "n='c' must be one of 'a', 'b'"),
        (make_generator, (-1, torch.device("cpu")), "random_state=-1 must be"),
        (make_generator, (2**63, torch.device("cpu")), "random_state=9223372036854775808 must be"),
        (make_generator, (0.5, torch.device("cpu")), r"random_state=0\.5 must be"),
    ],
)
def test_arguments(check, arguments, match):
    with pytest.raises(ValueError, match=match):
        check(*arguments)


# The function that describes columns


def described(X, loss, frame=None):
    names = None if frame is None else np.array(frame.columns)
    return describe_columns(X, loss, None, X if frame is None else frame, names)


@pytest.mark.parametrize("value", [-0.1, 1.5, 255.0])
@pytest.mark.parametrize("convert", [np.asarray, sparse.csr_array])
def test_bernoulli_outside_the_unit_interval(counts, value, convert):
    data = np.minimum(counts, 1).astype(float)
    data[5, 3] = value
    # Column, range and both remedies.
    match = rf"column 3 spans \[.*{value:g}.*loss='gaussian'.*MinMaxScaler"
    with pytest.raises(ValueError, match=match):
        described(convert(data), "bernoulli")


def test_bernoulli_outside_the_unit_interval_in_a_frame():
    frame = pd.DataFrame({"yes": [0.0, 1.0], "no": [0.0, 2.0]})
    with pytest.raises(ValueError, match=r"column 1 \('no'\)"):
        described(frame.to_numpy(), "bernoulli", frame)


@pytest.mark.parametrize("convert", [np.asarray, sparse.csr_matrix, sparse.csr_array])
@pytest.mark.parametrize(
    "loss", ["multinomial", [("gaussian", [0]), ("multinomial", slice(1, None))]], ids=str
)
def test_multinomial_groups_that_do_not_sum_to_one(convert, loss):
    data = np.column_stack([np.zeros(20), np.eye(4)[np.arange(20) % 4]])
    data[11, 1:] = [0, 1, 1, 0]
    # Row, columns, sum and both remedies.
    match = r"row 11 .*columns \[.*sums to 2.*OneHotEncoder.*loss='bernoulli'"
    with pytest.raises(ValueError, match=match):
        described(convert(data), loss)


def test_one_hot_encoding_with_a_dropped_category():
    data = np.eye(3)[np.arange(20) % 3][:, 1:]
    # A row without a category was not observed; a category that is missing is not told from it.
    assert described(data, "multinomial").parts[0][0] == "multinomial"
    data[4] = 1
    with pytest.raises(ValueError, match=r"row 4 .*sums to 2.*without drop"):
        described(data, "multinomial")


MIXED_ERRORS = {
    "overlap": ([("gaussian", [0, 1, 2]), ("squared_error", [2, 3])], r"column 2 \('c'\) twice"),
    "twice in one": ([("gaussian", [0, 1, 3, 3, 2])], "column 3 .*twice"),
    "missing": ([("gaussian", [0]), ("squared_error", [2])], "leaves out 2 .*first of them 1 "),
    "empty": ([], "leaves out 4"),
    "unknown name": ([("normal", [0, 1, 2, 3])], "entry 0 is .'normal'"),
    "auto inside": ([("gaussian", [0]), ("auto", [1, 2, 3])], "entry 1 is .'auto'"),
    "not pairs": (["gaussian"], "list of .name, columns."),
    "outside": ([("gaussian", [0, 1, 2, 3, 4])], r"\[0, 3\]"),
    "unknown column": ([("gaussian", ["a", "b", "c", "z"])], "'z'"),
    "by name": ([("gaussian", ["a", "b", "c"]), ("squared_error", ["c", "d"])], r"\('c'\) twice"),
}


@pytest.mark.parametrize("case", MIXED_ERRORS)
def test_mixed_loss(X, case):
    loss, match = MIXED_ERRORS[case]
    # Every column needs exactly one loss of a known name; the offender is named.
    with pytest.raises(ValueError, match=f"(?s){match}"):
        described(X, loss, pd.DataFrame(X, columns=list("abcd")))


def test_columns_whose_variance_overflows(X):
    data = X.copy()
    data[:, 2] *= 1e200
    with pytest.raises(ValueError, match=r"Column 2 is so large .*Rescale it"):
        described(data, "gaussian")


# Each estimator calls them


def bad_data(X, takes_gaps=False, takes_text=False):
    with_nan, with_infinity = X.copy(), X.copy()
    with_nan[3, 1], with_infinity[5, 2] = np.nan, np.inf
    text = pd.DataFrame(X, columns=[f"c{i}" for i in range(X.shape[1])]).assign(c1="a")
    return [
        *([] if takes_gaps else [(with_nan, r"NaN in row 3, column 1.*SimpleImputer")]),
        (with_infinity, "infinity in row 5, column 2.*[Cc]lip"),
        *([] if takes_text else [(text, "'c1'.*OneHotEncoder")]),
        (X.astype(str), "OneHotEncoder|to_numeric|Convert it"),
        (X[:0], "0 sample"),
        (X[0], "[Rr]eshape"),
        (X[np.newaxis], "dim"),
        (X + 1j, "[Cc]omplex"),
    ]


@each_case
def test_bad_data_are_refused(case):
    model = case.make()
    fitted = case.fitted
    takes_gaps, takes_text = get_tags(model).input_tags.allow_nan, hasattr(fitted, "encoding_")
    for data, match in bad_data(case.X, takes_gaps, takes_text):
        y = None if case.y is None else case.y[: len(data)]
        assert_refused(model, data, match, y=y)
        assert_refused(fitted, data, match, y=y)
        with pytest.raises(ValueError, match=match):
            case.output(fitted, data)
    with pytest.raises(NotFittedError, match="fit"):
        case.output(model)
    narrow = case.X[:, : case.X.shape[1] // 2]
    # Both numbers are named.
    with pytest.raises(ValueError, match=rf"{narrow.shape[1]} features.*{case.X.shape[1]} feat"):
        case.output(fitted, narrow)


@pytest.mark.parametrize("case", families(CASES), ids=str)
def test_other_feature_names(case):
    frame = pd.DataFrame(case.X, columns=[f"c{i}" for i in range(case.X.shape[1])])
    with pytest.raises(ValueError, match="feature names"):
        case.output(case.fit(frame), frame.rename(columns={"c1": "other"}))


@pytest.mark.parametrize("case", families(LEARNERS), ids=str)
def test_bad_data_are_refused_by_every_method(case):
    model = case.fitted
    methods = [name for name in ("score_samples", "score", "reconstruct") if hasattr(model, name)]
    data = case.X.copy()
    data[3, 1] = np.nan
    for name in methods:
        with pytest.raises(NotFittedError, match="fit"):
            getattr(case.make(), name)(case.X)
        if get_tags(model).input_tags.allow_nan:
            assert np.isfinite(getattr(model, name)(data)).all()
        else:
            with pytest.raises(ValueError, match=r"NaN in row 3, column 1.*SimpleImputer"):
                getattr(model, name)(data)
        with pytest.raises(ValueError, match=r"features.*expecting"):
            getattr(model, name)(case.X[:, :3])
    codes = case.output(model)
    with pytest.raises(ValueError, match="NaN"):
        model.inverse_transform(np.full_like(codes, np.nan))
    # inverse_transform says what it takes.
    wide = np.column_stack([codes, codes])
    match = rf"{wide.shape[1]} columns.*have {codes.shape[1]}.*output of transform"
    with pytest.raises(ValueError, match=match):
        model.inverse_transform(wide)


@pytest.mark.parametrize("case", families(LEARNERS), ids=str)
def test_wrong_number_of_features_in_continued_training(case):
    model = case.fitted
    before = state_of(model)
    for method in (model.partial_fit, model.set_params(warm_start=True).fit):
        with pytest.raises(ValueError, match=r"3 features.*expecting"):
            method(case.X[:, :3])
    assert state_of(model) == before


@each_case
def test_bad_targets_are_refused(case):
    if case.y is not None:
        for y, match in (
            (None, "y"),
            (case.y[:-1], "39|inconsistent"),
            (case.y[:, None, None], "y|dim"),
        ):
            with pytest.raises(ValueError, match=match):
                case.make().fit(case.X, y)


def test_likelihoods_are_of_the_domain_of_the_loss(counts):
    data = np.minimum(counts, 1).astype(float)
    model = AutoEncoder(3, max_iter=2, random_state=0).fit(data)
    # -log P(x) has no value for x = 2 ...
    for method in (model.fit, model.score, model.score_samples, model.partial_fit):
        with pytest.raises(ValueError, match="loss='gaussian'"):
            method(data + 1) if method != model.fit else AutoEncoder(loss="bernoulli").fit(data + 1)
    # ... while an encoder is defined everywhere.
    assert np.isfinite(model.transform(data + 1)).all()


@pytest.mark.parametrize("case", families(TRAINED), ids=str)
def test_bad_weights_are_refused(case):
    model = case.fitted if case in LEARNERS else None
    for weight, match in BAD_WEIGHTS.values():
        assert_refused(case.make(), case.X, match, y=case.y, sample_weight=weight)
        if model is not None:
            with pytest.raises(ValueError, match=match):
                model.score(case.X, sample_weight=weight)


@pytest.mark.parametrize("case", families(CASES), ids=str)
def test_bad_devices_are_refused(case):
    if case.takes("device"):
        for device, match in (
            ("gpu", "'gpu' is not a device of torch; use 'auto', 'cpu'"),
            ("", "not a device of torch"),
            ("cuda:99", "'cuda:99' is not available on this machine; use .*'cpu'"),
            ("meta", "not available"),
        ):
            assert_refused(case.make(device=device), case.X, match, y=case.y)


@pytest.mark.parametrize("case", [c for c in CASES if c.takes("n_components")], ids=str)
@pytest.mark.parametrize("n_components", [10**9, 10**30])
def test_too_little_memory(case, n_components):
    # At once, not after the system has begun to swap; products above 2**63 included.
    model = case.make(n_components=n_components)
    assert_refused(model, case.X, "GiB.*fewer components", MemoryError)


@pytest.mark.parametrize("case", [c for c in CASES if c.takes("layer_sizes")], ids=str)
def test_too_little_memory_for_layers(case):
    model = case.make(layer_sizes=(10**9,))
    assert_refused(model, case.X, "GiB", MemoryError, y=case.y)


@pytest.mark.parametrize("sizes", [(10**7, 10**7), (10**10,)])
def test_too_little_memory_for_hidden_layers(X, sizes):
    model = AutoEncoder(sizes[0], hidden_layer_sizes=sizes)
    assert_refused(model, X, "GiB.*fewer components", MemoryError)


@pytest.mark.parametrize("case", [c for c in TRAINED if c.takes("early_stopping")], ids=str)
def test_early_stopping_needs_rows(case):
    weight = (np.arange(40) == 3).astype(float)
    y = None if case.y is None else case.y[:1]
    make = case.make
    if case.is_transformer and case.takes("layers"):
        make = functools.partial(make, pretraining="simultaneous")
    # Rows of weight zero are none.
    for X, targets, given in ((case.X[:1], y, None), (case.X, case.y, weight)):
        with pytest.raises(ValueError, match=r"n_samples=1\b.*early_stopping=False|class"):
            make(early_stopping=True).fit(X, targets, sample_weight=given)


# Parameters


class Strange:
    """Nothing that any parameter takes."""

    def __repr__(self):
        return "Strange()"


@each_case
def test_strange_parameters_are_refused(case):
    for name in case.make().get_params(deep=False):
        model = case.make(**{name: Strange()})
        # The parameter, its legal values, and what it got.
        assert_refused(model, case.X, rf"(?s){name}.*Strange", y=case.y)


# What is illegal in every class that has a parameter of such a name.
OUT_OF_RANGE = {
    "n_components": [0, -1, 2.5, "3"],
    "layer_sizes": [0, -1, 2.5],
    "hidden_layer_sizes": [0, None, "53"],
    "activation": ["Sigmoid", "swish", None],
    "loss": ["mse", None, 3],
    "tied_weights": ["yes", 2, None],
    "weight_decay": [-1.0, np.nan, np.inf, "0", None],
    "alpha": [-1.0, np.nan, np.inf, "0", None],
    "output_penalty": [-1.0, np.nan, np.inf, "0", None],
    "sparsity": [-0.1, np.nan, np.inf, None],
    "sparsity_penalty": ["l2", None],
    "sparsity_target": [0, 1, -0.5, np.nan, None],
    "corruption": ["dropout", True, 0.5],
    "corruption_level": [-0.1, np.nan, np.inf, None],
    "emphasis": [1.0, "both"],
    "penalties": ["l1", None, 0.1],
    "contraction": [-0.1, np.nan, np.inf, None, "strong"],
    "contraction_target": ["decoder", None],
    "contraction_directions": [0, -1, 1.5, "all"],
    "hessian": [-1, np.nan, np.inf, None],
    "hessian_noise": [0, -0.1, np.nan, None],
    "hessian_samples": [0, -1, 1.5, None],
    "neighborhood": [-1, np.nan, np.inf, None],
    "perplexity": [0.5, np.nan, np.inf, None],
    "batch_size": [0, -5, 10.5, "auto", None],
    "learning_rate": [0, -1e-3, np.nan, np.inf, "adaptive", None],
    "learning_rate_schedule": ["invscaling", None],
    "optimizer": ["lbfgs", None, torch.optim.Adam],
    "momentum": [-0.1, 1, np.nan, None],
    "max_iter": [0, -1, 1.5, None],
    "tol": [-1e-3, np.nan, None],
    "n_iter_no_change": [0, -1, 2.5],
    "early_stopping": ["yes", None],
    "validation_fraction": [0, 1, 1.5, np.nan, None],
    "warm_start": ["yes", None],
    "visible": ["multinomial", "binary", None, 0],
    "visible_variance": ["shared", None, 1.0],
    "minimum_variance": [0, -0.1, 1.5, np.nan, None],
    "n_gibbs_steps": [0, -1, 1.5, "1", None],
    "persistent": ["yes", 2, None],
    "centered": ["yes", 2, None],
    "n_scored_columns": [0, -1, 2.5, "all"],
    "device": [None, 0],
    "verbose": [-1, "yes", None],
    "random_state": [-1, 1.5, "seed"],
    "pretraining": ["greedy", 1],
    "supervision": [0, -1.0, np.nan, None],
    "dropout": [-0.1, 1, np.nan, None],
    "unsupervised_weight": [-0.1, np.nan, np.inf, None],
    "adversarial_step": [-0.1, np.nan, np.inf, None],
    "inference_tol": [-1.0, np.nan, None],
    "inference_max_iter": [0, -1, 1.5, None],
    "n_neighbors": [0, -1, 1.5, None],
    "n_tangents": [-1, 1.5, "all", None],
}


@each_case
def test_impossible_parameters(case):
    for name, values in OUT_OF_RANGE.items():
        for value in values if case.takes(name) else ():
            model = case.make(**{name: value})
            assert_refused(model, case.X, rf"(?s){name}", y=case.y)


@pytest.mark.parametrize(
    "case", [case for case in families(LEARNERS) if case.takes("activation")], ids=str
)
def test_impossible_parameters_that_are_set_after_the_fit(case):
    model = case.make().fit(case.X, case.y).set_params(activation=np.int8(2))
    with pytest.raises(ValueError, match="activation"):
        model.transform(case.X)


def test_defaults_are_legal():
    # A fit that has them does not look at them once more.
    for case in CASES:
        parameters = inspect.signature(case.cls).parameters
        defaults = {
            name: one.default for name, one in parameters.items() if one.default is not one.empty
        }
        validate_parameter_constraints(case.cls._parameter_constraints, defaults, str(case))


def test_constructor_never_raises():
    # scikit-learn's rule: parameters are checked in fit, so that set_params can mend them.
    for case in CASES:
        model = case.make(**dict.fromkeys(case.make().get_params(deep=False), "nonsense"))
        assert set(model.get_params(deep=False).values()) == {"nonsense"}


COMBINATIONS = [
    ({"hidden_layer_sizes": (0,)}, r"hidden_layer_sizes=\(0,\).*at least 1"),
    ({"hidden_layer_sizes": (4, -2)}, "hidden_layer_sizes.*at least 1"),
    ({"hidden_layer_sizes": (4.5,)}, "hidden_layer_sizes.*integers"),
    ({"hidden_layer_sizes": [[4]]}, "hidden_layer_sizes.*integers"),
    ({"corruption": "masking", "corruption_level": 1.01}, "corruption_level=1.01.*at most 1"),
    ({"corruption": "salt_and_pepper", "corruption_level": 2}, "corruption_level=2.*at most 1"),
    ({"corruption": None, "emphasis": (1.0, 0.5)}, "emphasis.*corruption='masking'"),
    ({"corruption": "gaussian", "emphasis": (1.0, 0.5)}, "emphasis.*not 'gaussian'"),
    ({"corruption": "masking", "emphasis": (1.0,)}, "emphasis.*two finite weights"),
    ({"corruption": "masking", "emphasis": (1.0, -1.0)}, "emphasis.*two finite weights"),
    ({"corruption": "masking", "emphasis": (0, 0)}, "emphasis.*not both"),
    ({"corruption": "masking", "emphasis": (np.nan, 1)}, "emphasis.*two finite weights"),
    ({"corruption": "masking", "emphasis": ("a", "b")}, "emphasis.*two finite weights"),
    ({"sparsity": 0.1, "activation": "relu"}, "activation='sigmoid'.*sparsity_penalty='l1'"),
    ({"sparsity": 0.1, "activation": "tanh"}, "activation='sigmoid'.*sparsity_penalty='l1'"),
    ({"corruption": lambda x: x}, r"cannot be called as corruption\(x, generator\)"),
    ({"penalties": [3]}, r"penalties=3 is no penalty: .*value\(theta, forward\)"),
]


@pytest.mark.parametrize(("parameters", "match"), COMBINATIONS, ids=range(len(COMBINATIONS)))
def test_parameters_that_do_not_go_together(X, parameters, match):
    assert_refused(AutoEncoder(3, **parameters), X, match)


@pytest.mark.parametrize(
    "parameters",
    [
        {"n_components": np.int64(3)},
        {"hidden_layer_sizes": [4, 3]},
        {"hidden_layer_sizes": 4},
        {"hidden_layer_sizes": np.array([4, 3])},
        {"device": torch.device("cpu")},
        {"corruption": "masking", "emphasis": [1.0, 0.5]},
        {"corruption": "masking", "corruption_level": 1.0},
        {"corruption": "masking", "emphasis": (1, 0)},
        {"corruption": "gaussian", "corruption_level": 2.0},
        {"sparsity": 0.1, "sparsity_penalty": "l1", "activation": "relu", "n_components": 20},
        {"n_iter_no_change": None, "tol": 0, "verbose": 0, "weight_decay": 1},
        {"momentum": 0, "optimizer": "nesterov"},
        {"random_state": np.random.RandomState(0)},
        {"batch_size": 10**12},
        {"early_stopping": np.True_},
    ],
    # An address would be another one in each process.
    ids=lambda parameters: str(parameters).partition(" at 0x")[0],
)
@pytest.mark.filterwarnings("ignore::skae.CollapsedCodeWarning")
def test_edges_of_the_ranges_are_legal(X, parameters):
    # What is written as legal works.
    model = AutoEncoder(**{"n_components": 3, "max_iter": 3, **parameters})
    assert np.isfinite(model.fit_transform(X)).all()


COUNTS = ("batch_size", "max_iter", "n_estimators")


@pytest.mark.parametrize("case", [c for c in CASES if any(map(c.takes, COUNTS))], ids=str)
def test_small_integers_of_numpy_are_numbers(case):
    """One of 8 bits overflows above 127, and torch takes none where it wants an integer."""
    names = [name for name in COUNTS if case.takes(name)]
    parameters = {name: getattr(case.make(), name) for name in names}
    assert all(isinstance(value, int) for value in parameters.values())
    of_numpy = {name: np.int8(value) for name, value in parameters.items()}
    expected, found = case.fit(**parameters), case.fit(**of_numpy)
    np.testing.assert_array_equal(case.output(found), case.output(expected))


# Failures and what was there before


@pytest.mark.parametrize("case", families(TRAINED), ids=str)
def test_failure_inside_training_leaves_a_fitted_model_as_it_was(case, fail_in_training):
    model = case.fitted
    model.set_params(**{name: True for name in model.get_params() if name.endswith("verbose")})
    before, expected = state_of(model), case.output(model)
    fail_in_training(RuntimeError("an error in the middle"))
    with pytest.raises(RuntimeError, match="in the middle"):
        model.fit(1000 * case.X, case.y)
    # Statistics of the new data with weights of the old would be silently wrong codes.
    assert state_of(model) == before
    assert_array_equal(case.output(model), expected)


def test_failure_of_a_users_part_leaves_a_fitted_model_as_it_was(X):
    class Failing:
        weight = 1.0

        def value(self, theta, forward):
            raise RuntimeError("out of memory")

    model = AutoEncoder(3, max_iter=3, random_state=0).fit(X)
    before = state_of(model)
    model.set_params(penalties=[Failing()])
    for method in (model.fit, model.partial_fit):
        with pytest.raises(RuntimeError, match="out of memory"):
            method(1000 * X)
        assert state_of(model) == before


@pytest.mark.parametrize("case", families(CASES), ids=str)
def test_failed_first_fit_leaves_an_unfitted_model(case):
    choices = {"device": "cuda:99", "image_shape": (5, 5), "estimator": "a name"}
    name, wrong = next((name, wrong) for name, wrong in choices.items() if case.takes(name))
    model = case.make(**{name: wrong})
    with pytest.raises(ValueError, match=r"not available|image_shape|estimator"):
        model.fit(case.X, case.y)
    with pytest.raises(NotFittedError):
        case.output(model)
    # The remedy works on the same object.
    mended = model.set_params(**{name: case.make().get_params()[name]})
    assert len(case.output(mended.fit(case.X, case.y))) == 40


# While training


def without_chains(case):
    """Settings for which only divergence and interruption are worth a ConvergenceWarning."""
    return {"persistent": False} if case.takes("persistent") else {}


def fit_and_collect(model, data, **fit_parameters):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(data, **fit_parameters)
    return [str(w.message) for w in caught if issubclass(w.category, ConvergenceWarning)]


DIVERGING = {"activation": "linear", "optimizer": "sgd", "learning_rate": 1e6, "batch_size": 1}


def test_divergence_at_once(X):
    fitted = AutoEncoder(3, max_iter=3, random_state=0).fit(X)
    before = state_of(fitted)
    for model in (AutoEncoder(3, loss="squared_error", max_iter=50), fitted):
        model.set_params(**DIVERGING)
        # Forty steps of 1e6: not one epoch ends with a finite loss, so nothing was learned.
        assert_refused(model, 1000 * X, r"epoch 1.*smaller learning_rate \(now 1e\+06\)")
    assert state_of(fitted) == before


@each_gradient_learner
def test_divergence_in_partial_fit_leaves_the_model_as_it_was(case, explode):
    model = case.make().partial_fit(case.X)
    before = state_of(model)
    explode(1, np.nan)
    model.set_params(optimizer="exploding")
    with pytest.raises(ValueError, match="smaller learning_rate"):
        model.partial_fit(case.X)
    assert state_of(model) == before


@pytest.mark.parametrize(
    ("name", "early_stopping", "factor"),
    [
        *itertools.product(["AutoEncoder"], [False, True], [1e9, 1e200, np.inf, np.nan]),
        *itertools.product(["RBM", "PSD"], [False], [1e9, np.nan]),
    ],
)
def test_divergence_later_keeps_the_best_finite_weights(name, explode, factor, early_stopping):
    case = next(case for case in GRADIENT_LEARNERS if str(case) == name)
    settings = {"batch_size": 1000, "n_iter_no_change": None, **without_chains(case)}
    settings |= {"optimizer": "exploding", "learning_rate": 0.01, "momentum": 0.5}
    explode(0, 1.0)
    untrained = case.fit(**settings | {"learning_rate": 1e-300, "max_iter": 1})
    explode(30, factor)
    model = case.make(max_iter=32, early_stopping=early_stopping, **settings)
    messages = fit_and_collect(model, case.X)
    if early_stopping and factor == 1e9:
        # The weights of the best epoch on held-out rows are kept anyway.
        assert model.stopping_reason_ in ("max_iter", "diverged")
    else:
        # Usable and marked; a loss that is 1e18 times what it was has diverged as well.
        assert model.stopping_reason_ == "diverged"
        (message,) = messages
        assert "epoch" in message
        assert "smaller learning_rate (now 0.01)" in message
    assert all(np.isfinite(weight).all() for weight in model.weights_.values())
    if not early_stopping:
        # What was learned before the explosion is kept.
        assert model.score(case.X) > untrained.score(case.X)


@pytest.mark.parametrize("seed", range(3))
def test_noise_of_the_objective_is_not_divergence(seed):
    data = np.random.default_rng(0).random((2, 30))
    model = DenoisingAutoEncoder(7, loss="gaussian", max_iter=3, random_state=seed)
    # With two rows the corruption moves the loss up and down by itself; 1e-3 is no step
    # at which anything explodes.
    assert fit_and_collect(model, data) == []
    assert model.stopping_reason_ == "max_iter"


def test_warning_points_at_the_call(X, explode):
    explode(30, np.nan)
    # All forty rows are one batch, so the step is in the thirtieth epoch: no stop may come before.
    steps = {"batch_size": 1000, "learning_rate": 0.05, "optimizer": "exploding"}
    model = AutoEncoder(3, **steps, max_iter=40, n_iter_no_change=None, random_state=0)
    with pytest.warns(ConvergenceWarning) as caught:
        model.fit(X)
    # The user's line, not one of the library's.
    assert caught[0].filename == __file__


@each_gradient_learner
def test_interruption_keeps_the_model(case, interrupt):
    interrupt(epoch=2)
    settings = {"learning_rate_schedule": "constant", "n_iter_no_change": None}
    settings |= without_chains(case)
    model = case.make(max_iter=1000, verbose=True, **settings)
    (message,) = fit_and_collect(model, case.X)
    assert "interrupted after 2 epochs" in message
    # Usable and marked.
    assert model.stopping_reason_ == "interrupted"
    assert model.n_iter_ == len(model.loss_curve_) == 2
    # What was learned until then is what a fit of two epochs learns.
    expected = case.fit(max_iter=2, **settings)
    assert_array_equal(case.output(model), case.output(expected))
    # It can go on from there.
    assert model.set_params(verbose=False).partial_fit(case.X).n_iter_ == 3


def test_interruption_inside_an_epoch_keeps_finite_weights(X):
    class Interrupting:
        weight, n_calls = 0.0, 0

        def value(self, theta, forward):
            Interrupting.n_calls += 1
            if Interrupting.n_calls == 15:
                raise KeyboardInterrupt
            return forward.mean(forward.code.sum(1))

    settings = {**DIVERGING, "batch_size": 2, "learning_rate": 1e20, "loss": "squared_error"}
    model = AutoEncoder(3, penalties=[Interrupting()], **settings)
    # Ctrl-C in the middle of an epoch that is exploding must not save infinities.
    try:
        fit_and_collect(model, X)
    except ValueError as error:
        assert "learning_rate" in str(error)  # noqa: PT017
    else:
        assert all(np.isfinite(weight).all() for weight in model.weights_.values())


def test_interruption_before_training_is_passed_on(X):
    def interrupted(X):
        raise KeyboardInterrupt

    model = AutoEncoder(3, max_iter=3, random_state=0).fit(X)
    before = state_of(model)
    # Columns are chosen before anything is learned.
    model.set_params(loss=[("gaussian", interrupted)])
    with pytest.raises(KeyboardInterrupt):
        model.fit(X + 1)
    # Nothing was learned that could be kept.
    assert state_of(model) == before


@pytest.mark.parametrize("case", families(CASES), ids=str)
def test_images_that_are_not_flat(case):
    images = np.zeros((40, 6, 6))
    with pytest.raises(ValueError, match=r"dim 3.*X\.reshape\(len\(X\), -1\)"):
        case.make().fit(images, case.y)


def numbers_of(cls):
    """Names of the constructor parameters that are real numbers."""
    for name, constraints in cls._parameter_constraints.items():
        if any(isinstance(c, Interval) and c.type is Real and c.right is None for c in constraints):
            yield name


@each_case
def test_numbers_that_float32_has_not(case):
    for name in numbers_of(case.cls):
        # Where models compute in float32, torch's kernels raise errors of their own.
        with pytest.raises(ValueError, match=rf"'{name}' parameter .* at most 1e\+30"):
            case.fit(**{name: 1e31})
        with pytest.raises(ValueError, match=f"'{name}' parameter"):
            case.fit(**{name: np.inf})


@each_case
def test_truth_values_are_numbers(case):
    constraints = case.cls._parameter_constraints
    for name, legal in constraints.items():
        if "boolean" in legal or not any(isinstance(one, Interval) for one in legal):
            continue
        for value in (True, False):
            # Both where an estimator is made and where a parameter is set; clones have it, too.
            model = case.make(**{name: value})
            assert type(getattr(clone(model), name)) is int
            assert getattr(model.set_params(**{name: value}), name) == value


def test_a_truth_value_trains_as_its_number(X):
    chosen = ("contraction", "hessian", "weight_decay", "sparsity", "learning_rate")
    models = [
        AutoEncoder(3, max_iter=2, random_state=0, **dict.fromkeys(chosen, number)).fit(X)
        for number in (True, 1.0)
    ]
    assert_array_equal(*(model.components_ for model in models))


@pytest.mark.parametrize("name", ["layer_sizes", "hidden_layer_sizes"])
def test_sizes_that_are_none_after_a_fit_are_named(name):
    for case in TRAINED:
        if case.takes(name) and "layer" not in case.cls._parameter_constraints:
            model = case.fitted.set_params(**{name: "many"})
            with pytest.raises(ValueError, match=f"(?s){name}.*'many'"):
                case.output(model)


def test_a_level_to_be_told_that_there_is_none_of_after_a_fit(X):
    model = AutoEncoder(3, max_iter=1, random_state=0).fit(X).set_params(level_as_input=True)
    with pytest.raises(ValueError, match="level_as_input=True is for corruption='gaussian'"):
        model.reconstruct(X)


@each_case
def test_parameters_are_set_all_or_none(case):
    model = case.make()
    before = dict(model.get_params())
    first = next(iter(case.cls._parameter_constraints))
    with pytest.raises(ValueError, match="Invalid parameter 'nonsense'"):
        model.set_params(**{first: 3, "nonsense": 1})
    after = model.get_params()
    assert all(after[name] is value for name, value in before.items())


def test_parameters_of_layers_are_set_all_or_none():
    layers = [AutoEncoder(2), AutoEncoder(3)]
    model = StackedAutoEncoder(layers=layers)
    for wrong in ({"layers__1__nonsense": 1}, {"layers__2": AutoEncoder()}):
        with pytest.raises(ValueError, match=r"Invalid parameter|no parameter"):
            model.set_params(max_iter=7, layers__0=RBM(), layers__1__n_components=5, **wrong)
        assert model.layers is layers
        assert model.max_iter == StackedAutoEncoder().max_iter
        assert (layers[1].n_components, type(layers[0])) == (3, AutoEncoder)


@pytest.mark.parametrize("cls", [DenoisingImputer, OutlierDetector, PosteriorEnsemble])
def test_a_class_in_the_place_of_an_estimator_is_refused(cls, X):
    with pytest.raises(ValueError, match=r"is a class: pass an instance of it, AutoEncoder\(\)"):
        cls(AutoEncoder).fit(X)
