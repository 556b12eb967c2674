"""Errors come before training, name the remedy, and leave a fitted model as it was."""

import datetime
import pickle
import warnings

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from numpy.testing import assert_array_equal
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.utils._param_validation import InvalidParameterError

from skae import RBM, AutoEncoder, ContractiveAutoEncoder, DenoisingAutoEncoder
from skae.engine.optimisation.optimizers import Adam
from skae.engine.optimisation.rows import DenseRows


@pytest.fixture
def no_training(monkeypatch):
    """Any training step fails the test."""

    def train(*args, **kwargs):
        raise AssertionError("training started")

    monkeypatch.setattr("skae.estimators.face.fitting.train", train)


def state_of(model):
    return pickle.dumps({k: v for k, v in vars(model).items() if k.endswith("_")})


def assert_refused(model, data, match, error=ValueError, **fit_parameters):
    """fit and partial_fit raise; an unfitted model stays unfitted, a fitted one as it was."""
    for method in ("fit", "partial_fit"):
        before = state_of(model)
        with pytest.raises(error, match=match):
            getattr(model, method)(data, **fit_parameters)
        assert state_of(model) == before


# Not finite


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


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize("form", FINITE_FORMS)
@pytest.mark.parametrize(
    ("value", "match"),
    [
        (np.nan, r"NaN in row 7, column 2.*SimpleImputer"),
        (np.inf, r"infinity in row 7, column 2.*[Cc]lip"),
        (-np.inf, r"infinity in row 7, column 2.*[Cc]lip"),
    ],
)
def test_not_finite(make_model, counts, form, value, match, tmp_path):
    data = counts.astype(float)
    data[7, 2] = value
    # The place and what to do about it: a user with a million rows needs both.
    assert_refused(make_model(), FINITE_FORMS[form](data, tmp_path), match)


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame])
def test_not_finite_in_a_frame(make_model, frame):
    data = frame({"age": [1.0, 2.0, 3.0], "size": [1.0, None, float("inf")]})
    # Frames have names, and a missing value of any kind is a NaN.
    assert_refused(make_model(), data, r"NaN in row 1, column 1 \('size'\).*SimpleImputer")


@pytest.mark.usefixtures("no_training")
def test_missing_value_of_a_nullable_integer_column(make_model):
    data = pd.DataFrame({"n": pd.array([1, None, 3], dtype="Int64")})
    assert_refused(make_model(), data, r"NaN in row 1, column 0 \('n'\)")


def test_not_finite_in_later_blocks(make_model, X, monkeypatch):
    monkeypatch.setattr("skae.engine.optimisation.rows._BLOCK", 8 * 4 * 7)
    data = X.copy()
    data[31, 3] = np.nan
    # The row is counted from the start of the data, not of the block it was found in.
    assert_refused(make_model(), data, "NaN in row 31, column 3")


@pytest.mark.parametrize("method", ["transform", "score_samples", "score", "reconstruct"])
def test_not_finite_after_training(make_model, X, method):
    model = make_model().fit(X)
    data = X.copy()
    data[3, 1] = np.nan
    with pytest.raises(ValueError, match=r"NaN in row 3, column 1.*SimpleImputer"):
        getattr(model, method)(data)


def test_codes_that_are_not_finite(make_model, X):
    with pytest.raises(ValueError, match="NaN"):
        make_model().fit(X).inverse_transform(np.full((2, 3), np.nan))


@pytest.mark.filterwarnings("ignore:overflow")
def test_large_finite_numbers_are_finite(make_model, X):
    # The sum of a block overflows though no entry is infinite: that is no error here.
    model = make_model().fit(np.full((10, 2), 3e38, dtype=np.float32))
    assert np.isfinite(model.columns_.mean).all()


# Shapes


@pytest.mark.usefixtures("no_training")
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
def test_shapes(make_model, data, match):
    assert_refused(make_model(), data, match)


@pytest.mark.parametrize("method", ["transform", "score_samples", "score", "reconstruct"])
def test_wrong_number_of_features(make_model, X, method):
    model = make_model().fit(X)
    # Both numbers are named.
    with pytest.raises(ValueError, match=r"3 features.*expecting 4 features"):
        getattr(model, method)(X[:, :3])


def test_wrong_number_of_features_in_continued_training(make_model, X):
    model = make_model().fit(X)
    before = state_of(model)
    for method in (model.partial_fit, model.set_params(warm_start=True).fit):
        with pytest.raises(ValueError, match=r"3 features.*expecting 4 features"):
            method(X[:, :3])
    assert state_of(model) == before


def test_wrong_number_of_codes(make_model, X):
    # inverse_transform says what it takes.
    with pytest.raises(ValueError, match=r"4 columns.*have 3.*output of transform"):
        make_model().fit(X).inverse_transform(X)


def test_other_feature_names(make_model, X):
    model = make_model().fit(pd.DataFrame(X, columns=list("abcd")))
    with pytest.raises(ValueError, match="feature names"):
        model.transform(pd.DataFrame(X, columns=list("abce")))


@pytest.mark.parametrize(
    "method", ["transform", "inverse_transform", "score", "score_samples", "reconstruct"]
)
def test_not_fitted(make_model, X, method):
    with pytest.raises(NotFittedError, match="fit"):
        getattr(make_model(), method)(X)


# Not numeric

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


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize("name", NON_NUMERIC_FRAMES)
def test_non_numeric_columns(make_model, name):
    # The column and the encoder; columns that are numeric are not named.
    with pytest.raises(ValueError, match=r"'bad'.*OneHotEncoder") as caught:
        make_model().fit(NON_NUMERIC_FRAMES[name])
    assert "'n'" not in str(caught.value)
    assert_refused(make_model(), NON_NUMERIC_FRAMES[name], "OneHotEncoder")


@pytest.mark.usefixtures("no_training")
def test_python_dates_in_an_object_column(make_model):
    frame = pd.DataFrame({"n": [1, 2, 3], "bad": [date.date() for date in DATES]})
    # Python's own word for a value that float() does not take is TypeError.
    assert_refused(make_model(), frame, "'bad'.*dates", TypeError)


@pytest.mark.usefixtures("no_training")
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
def test_non_numeric_arrays(make_model, data, match):
    assert_refused(make_model(), data, match)


def test_many_non_numeric_columns_are_counted(make_model):
    frame = pd.DataFrame({f"text{i}": TEXT for i in range(20)})
    # Five names are an explanation, twenty are noise.
    with pytest.raises(ValueError, match=r"'text4' \(str\) and 15 more") as caught:
        make_model().fit(frame)
    assert "text5" not in str(caught.value)


def test_text_after_training(make_model, X):
    model = make_model().fit(X)
    with pytest.raises(ValueError, match="OneHotEncoder"):
        model.transform(X.astype(str))


# Domains of losses


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize("value", [-0.1, 1.5, 255.0])
@pytest.mark.parametrize("convert", [np.asarray, sparse.csr_array])
def test_bernoulli_outside_the_unit_interval(make_unit_model, counts, value, convert):
    data = np.minimum(counts, 1).astype(float)
    data[5, 3] = value
    # Column, range and both remedies.
    match = rf"column 3 spans \[.*{value:g}.*{make_unit_model.units}='gaussian'.*MinMaxScaler"
    assert_refused(make_unit_model(**{make_unit_model.units: "bernoulli"}), convert(data), match)


def test_bernoulli_outside_the_unit_interval_in_a_frame(make_unit_model):
    frame = pd.DataFrame({"yes": [0.0, 1.0], "no": [0.0, 2.0]})
    assert_refused(
        make_unit_model(**{make_unit_model.units: "bernoulli"}), frame, r"column 1 \('no'\)"
    )


def test_bernoulli_is_checked_where_the_likelihood_is_used(make_unit_model, counts):
    data = np.minimum(counts, 1).astype(float)
    model = make_unit_model().fit(data)
    # -log P(x) has no value for x = 2 ...
    for method in (model.score, model.score_samples, model.partial_fit):
        with pytest.raises(ValueError, match=f"{make_unit_model.units}='gaussian'"):
            method(data + 1)
    # ... while an encoder is defined everywhere.
    assert np.isfinite(model.transform(data + 1)).all()


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize("convert", [np.asarray, sparse.csr_matrix, sparse.csr_array])
@pytest.mark.parametrize(
    "loss", ["multinomial", [("gaussian", [0]), ("multinomial", slice(1, None))]]
)
def test_multinomial_groups_that_do_not_sum_to_one(make_auto_encoder, convert, loss):
    data = np.column_stack([np.zeros(20), np.eye(4)[np.arange(20) % 4]])
    data[11, 1:] = [0, 1, 1, 0]
    # Row, columns, sum and both remedies.
    match = r"row 11 .*columns \[.*sums to 2.*OneHotEncoder.*loss='bernoulli'"
    assert_refused(make_auto_encoder(loss=loss), convert(data), match)


def test_one_hot_encoding_with_a_dropped_category(make_auto_encoder):
    data = np.eye(3)[np.arange(20) % 3][:, 1:]
    assert_refused(make_auto_encoder(loss="multinomial"), data, r"row 0 .*sums to 0.*without drop")


MIXED_ERRORS = {
    "overlap": ([("gaussian", [0, 1, 2]), ("squared_error", [2, 3])], "column 2 .*twice"),
    "twice in one": ([("gaussian", [0, 1, 3, 3, 2])], "column 3 .*twice"),
    "missing": ([("gaussian", [0]), ("squared_error", [2])], "leaves out 2 .*first of them 1 "),
    "empty": ([], "leaves out 4"),
    "unknown name": ([("normal", [0, 1, 2, 3])], "entry 0 is .'normal'"),
    "auto inside": ([("gaussian", [0]), ("auto", [1, 2, 3])], "entry 1 is .'auto'"),
    "not pairs": (["gaussian"], "list of .name, columns."),
    "outside": ([("gaussian", [0, 1, 2, 3, 4])], r"\[0, 3\]"),
    "unknown column": ([("gaussian", ["a", "b", "c", "z"])], "'z'"),
}


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize("case", MIXED_ERRORS)
def test_mixed_loss(make_auto_encoder, X, case):
    loss, match = MIXED_ERRORS[case]
    # Every column needs exactly one loss of a known name; the offender is named.
    assert_refused(
        make_auto_encoder(loss=loss), pd.DataFrame(X, columns=list("abcd")), f"(?s){match}"
    )


def test_mixed_loss_names_features(make_auto_encoder, X):
    frame = pd.DataFrame(X, columns=list("abcd"))
    loss = [("gaussian", ["a", "b", "c"]), ("squared_error", ["c", "d"])]
    assert_refused(make_auto_encoder(loss=loss), frame, r"column 2 \('c'\) twice")


# Parameters

OUT_OF_RANGE = {
    "n_components": [0, -1, 2.5, "3", None],
    "hidden_layer_sizes": [0, None, "53"],
    "activation": ["Sigmoid", "swish", None],
    "loss": ["mse", None, 3],
    "tied_weights": ["yes", 2, None],
    "alpha": [-1.0, np.nan, np.inf, "0", None],
    "sparsity": [-0.1, np.nan, np.inf, None],
    "sparsity_penalty": ["l2", None],
    "sparsity_target": [0, 1, -0.5, np.nan, None],
    "corruption": ["dropout", True, 0.5],
    "corruption_level": [-0.1, np.nan, np.inf, None],
    "emphasis": [1.0, "both"],
    "contraction": [-0.1, np.nan, np.inf, None, "strong"],
    "contraction_target": ["decoder", None],
    "hessian": [-1, np.nan, np.inf, None],
    "hessian_noise": [0, -0.1, np.nan, None],
    "hessian_samples": [0, -1, 1.5, None],
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
    "visible": ["squared_error", "binary", None, 0],
    "visible_variance": ["shared", None, 1.0],
    "minimum_variance": [0, -0.1, 1.5, np.nan, None],
    "n_gibbs_steps": [0, -1, 1.5, "1", None],
    "persistent": ["yes", 2, None],
    "centered": ["yes", 2, None],
    "weight_decay": [-1e-4, np.nan, np.inf, "0", None],
    "n_scored_columns": [0, -1, 2.5, "all"],
    "device": [None, 0],
    "verbose": [-1, "yes", None],
    "random_state": [-1, 1.5, "seed"],
}


CLASSES = (AutoEncoder, DenoisingAutoEncoder, ContractiveAutoEncoder, RBM)
PARAMETERS = [(cls, name) for cls in CLASSES for name in cls().get_params()]


def test_every_parameter_is_tried():
    # A new parameter comes with its illegal values, and one that is gone takes them along.
    assert OUT_OF_RANGE.keys() == {name for _, name in PARAMETERS}


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(("model_class", "name"), PARAMETERS)
def test_impossible_parameters(model_class, X, name):
    for value in OUT_OF_RANGE[name]:
        model = model_class(**{name: value})
        # scikit-learn's error: the parameter, its legal values, and what it got.
        match = f"(?s)'{name}' parameter of {type(model).__name__} must be .*Got "
        assert_refused(model, X, match, InvalidParameterError)


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
]


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(("parameters", "match"), COMBINATIONS, ids=str)
def test_parameters_that_do_not_go_together(make_auto_encoder, X, parameters, match):
    assert_refused(make_auto_encoder(**parameters), X, match)


@pytest.mark.parametrize(
    "parameters",
    [
        {"n_components": np.int64(3)},
        {"hidden_layer_sizes": [4, 3]},
        {"hidden_layer_sizes": 4},
        {"device": torch.device("cpu")},
        {"corruption": "masking", "emphasis": [1.0, 0.5]},
        {"hidden_layer_sizes": np.array([4, 3])},
        {"corruption": "masking", "corruption_level": 1.0},
        {"corruption": "masking", "emphasis": (1, 0)},
        {"corruption": "gaussian", "corruption_level": 2.0},
        {"sparsity": 0.1, "sparsity_penalty": "l1", "activation": "relu", "n_components": 20},
        {"n_iter_no_change": None},
        {"tol": 0},
        {"momentum": 0, "optimizer": "nesterov"},
        {"random_state": np.random.RandomState(0)},
        {"device": "cpu"},
        {"verbose": 0},
        {"batch_size": 10**12},
        {"alpha": 1},
        {"early_stopping": np.True_},
    ],
    # An address would be another one in each process.
    ids=lambda parameters: str(parameters).partition(" at 0x")[0],
)
@pytest.mark.filterwarnings("ignore::skae.CollapsedCodeWarning")
def test_edges_of_the_ranges_are_legal(make_auto_encoder, X, parameters):
    # What is written as legal works.
    assert np.isfinite(make_auto_encoder(**parameters).fit_transform(X)).all()


def test_constructor_never_raises(make_model):
    # scikit-learn's rule: parameters are checked in fit, so that set_params can mend them.
    model = make_model(n_components=-1, device=3, **{make_model.units: None})
    assert model.get_params()["n_components"] == -1


# Weights, devices, memory, splits


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(
    ("weight", "match"),
    [
        (np.zeros(40), "zero"),
        (np.full(40, -1.0), "[Nn]egative"),
        (np.r_[np.nan, np.ones(39)], "NaN"),
        (np.r_[np.inf, np.ones(39)], "infinity"),
        (np.ones(39), r"39.*40"),
        (np.ones((40, 2)), "1D"),
        (["a"] * 40, "convert"),
    ],
    ids=["zero", "negative", "NaN", "infinity", "short", "2-D", "text"],
)
def test_sample_weights(make_model, X, weight, match):
    assert_refused(make_model(), X, match, sample_weight=weight)


@pytest.mark.parametrize(
    ("weight", "match"),
    [(np.zeros(40), "zero"), (np.full(40, -1.0), "[Nn]egative"), (np.ones(39), "39")],
    ids=["zero", "negative", "short"],
)
def test_sample_weights_of_score(make_model, X, weight, match):
    with pytest.raises(ValueError, match=match):
        make_model().fit(X).score(X, sample_weight=weight)


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(
    ("device", "match"),
    [
        ("gpu", "'gpu' is not a device of torch; use 'auto', 'cpu'"),
        ("", "not a device of torch"),
        ("cuda:99", "'cuda:99' is not available on this machine; use .*'cpu'"),
        ("meta", "not available"),
    ],
)
def test_devices(make_model, X, device, match):
    assert_refused(make_model(device=device), X, match)


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize("n_components", [10**9, 10**30])
def test_too_little_memory(make_model, X, n_components):
    # At once, not after the system has begun to swap; products above 2**63 included.
    model = make_model(n_components=n_components)
    assert_refused(model, X, "GiB.*fewer components", MemoryError)


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(
    "parameters",
    [
        {"hidden_layer_sizes": (10**7, 10**7)},
        {"n_components": 10**10, "hidden_layer_sizes": (10**10,)},
    ],
    ids=str,
)
def test_too_little_memory_for_layers(make_auto_encoder, X, parameters):
    assert_refused(make_auto_encoder(**parameters), X, "GiB.*fewer components", MemoryError)


@pytest.mark.usefixtures("no_training")
def test_early_stopping_needs_two_rows(make_model, X):
    model = make_model(early_stopping=True)
    with pytest.raises(ValueError, match=r"n_samples=1 .*early_stopping=False"):
        model.fit(X[:1])


def test_early_stopping_counts_rows_with_weight(make_model, X):
    weight = (np.arange(40) == 3).astype(float)
    with pytest.raises(ValueError, match="n_samples=1 "):
        make_model(early_stopping=True).fit(X, sample_weight=weight)


# Failures and what was there before


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_failed_fit_leaves_a_fitted_model_as_it_was(make_model, X, method):
    frame = pd.DataFrame(X, columns=list("abcd"))
    model = make_model().fit(frame)
    codes = model.transform(frame)
    before = state_of(model)
    bad = frame.copy()
    bad.iloc[0, 0] = np.nan
    for data in (bad, bad.rename(columns=str.upper), bad[["a", "b"]], frame[:0], frame.astype(str)):
        with pytest.raises(ValueError):  # noqa: PT011
            getattr(model, method)(data)
    # All or nothing: not the names, the number of features or the scales of the bad data.
    assert state_of(model) == before
    assert_array_equal(model.transform(frame), codes)


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_failure_inside_training_leaves_a_fitted_model_as_it_was(
    make_model, X, method, monkeypatch
):
    model = make_model().fit(X)
    before = state_of(model)

    def failing(*args, **kwargs):
        raise RuntimeError("out of memory")

    monkeypatch.setattr("skae.estimators.face.fitting.train", failing)
    with pytest.raises(RuntimeError):
        getattr(model, method)(1000 * X[:, :3] if method == "fit" else X)
    # Statistics of the new data with weights of the old would be silently wrong codes.
    assert state_of(model) == before


def test_failed_first_fit_leaves_an_unfitted_model(make_model, X):
    model = make_model(device="cuda:99")
    with pytest.raises(ValueError, match="not available"):
        model.fit(X)
    with pytest.raises(NotFittedError):
        model.transform(X)
    # The remedy works on the same object.
    assert model.set_params(device="cpu").fit_transform(X).shape == (40, 3)


# While training


DIVERGING = {"activation": "linear", "optimizer": "sgd", "learning_rate": 1e6}


def without_chains(make_model):
    """Settings for which only divergence and interruption are worth a ConvergenceWarning."""
    return {"persistent": False} if make_model.units == "visible" else {}


def fit_and_collect(model, data, **fit_parameters):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(data, **fit_parameters)
    return [str(w.message) for w in caught if issubclass(w.category, ConvergenceWarning)]


def test_divergence_at_once(make_auto_encoder, X):
    model = make_auto_encoder(batch_size=1, loss="squared_error", max_iter=50, **DIVERGING)
    # Forty steps of 1e6: not one epoch ends with a finite loss, so nothing was learned.
    assert_refused(model, 1000 * X, r"epoch 1.*smaller learning_rate \(now 1e\+06\)")


def test_divergence_at_once_leaves_a_fitted_model_as_it_was(make_auto_encoder, X):
    model = make_auto_encoder().fit(X)
    before = state_of(model)
    model.set_params(batch_size=1, **DIVERGING)
    with pytest.raises(ValueError, match="smaller learning_rate"):
        model.fit(1000 * X)
    assert state_of(model) == before


@pytest.fixture
def explode(monkeypatch):
    """A function that makes Adam's n-th step, counted from 1, multiply the weights."""

    def arrange(n, factor):
        step, steps = Adam.update_, []

        def exploding_step(self, theta, gradient, state, learning_rate):
            step(self, theta, gradient, state, learning_rate)
            steps.append(learning_rate)
            if len(steps) == n:
                theta.mul_(factor)

        monkeypatch.setattr(Adam, "update_", exploding_step)

    return arrange


@pytest.mark.parametrize("factor", [1e9, 1e200, np.inf, np.nan])
@pytest.mark.parametrize("early_stopping", [False, True])
def test_divergence_later_keeps_the_best_finite_weights(
    make_gradient_model, X, explode, factor, early_stopping
):
    settings = {"batch_size": 1000, "learning_rate": 0.05, "optimizer": "adam"}
    settings |= without_chains(make_gradient_model)
    untrained = make_gradient_model(learning_rate=1e-300, max_iter=1).fit(X)
    explode(30, factor)
    model = make_gradient_model(max_iter=32, n_iter_no_change=None, early_stopping=early_stopping)
    messages = fit_and_collect(model.set_params(**settings), X)
    if early_stopping and factor == 1e9:
        # The weights of the best epoch on held-out rows are kept anyway.
        assert model.stopping_reason_ in ("max_iter", "diverged")
    else:
        # Usable and marked; a loss that is 1e18 times what it was has diverged as well.
        assert model.stopping_reason_ == "diverged"
        assert len(messages) == 1
        assert "epoch" in messages[0]
        assert "smaller learning_rate (now 0.05)" in messages[0]
    assert all(np.isfinite(weight).all() for weight in model.weights_.values())
    # What was learned before the explosion is kept.
    assert model.score(X) > untrained.score(X)


@pytest.mark.parametrize("seed", range(5))
def test_noise_of_the_objective_is_not_divergence(seed):
    data = np.random.default_rng(0).random((2, 30))
    model = DenoisingAutoEncoder(7, loss="gaussian", max_iter=3, random_state=seed)
    # With two rows the corruption moves the loss up and down by itself; 1e-3 is no step
    # at which anything explodes.
    assert fit_and_collect(model, data) == []
    assert model.stopping_reason_ == "max_iter"


def test_divergence_in_partial_fit_leaves_the_model_as_it_was(make_gradient_model, X):
    model = make_gradient_model().partial_fit(X)
    before = state_of(model)
    model.set_params(batch_size=1, optimizer="sgd", learning_rate=1e300)
    with pytest.raises(ValueError, match="smaller learning_rate"):
        model.partial_fit(X)
    assert state_of(model) == before


def test_warning_points_at_the_call(make_gradient_model, X, explode):
    explode(30, np.nan)
    model = make_gradient_model(batch_size=1000, learning_rate=0.05, optimizer="adam", max_iter=40)
    with pytest.warns(ConvergenceWarning) as caught:
        model.fit(X)
    # The user's line, not one of the library's.
    assert caught[0].filename == __file__


class _Interrupting:
    """Stands in for the progress line and presses Ctrl-C after some epochs."""

    n_epochs = 2

    def __init__(self, name):
        self.name = name

    def __call__(self, epoch):
        if epoch.number == self.n_epochs:
            raise KeyboardInterrupt
        return False

    def finish(self):
        pass


def test_interruption_keeps_the_model(make_model, X, monkeypatch):
    monkeypatch.setattr("skae.estimators.face.fitting.ProgressLine", _Interrupting)
    settings = {"learning_rate_schedule": "constant", "n_iter_no_change": None}
    settings |= without_chains(make_model)
    model = make_model(max_iter=1000, verbose=True, **settings)
    (message,) = fit_and_collect(model, X)
    assert "interrupted after 2 epochs" in message
    # Usable and marked.
    assert model.stopping_reason_ == "interrupted"
    assert model.n_iter_ == len(model.loss_curve_) == 2
    # What was learned until then is what a fit of two epochs learns.
    assert_array_equal(model.transform(X), make_model(max_iter=2, **settings).fit(X).transform(X))
    # It can go on from there.
    model.set_params(verbose=False).partial_fit(X)
    assert model.n_iter_ == 3


def test_interruption_inside_an_epoch_keeps_finite_weights(make_auto_encoder, X, monkeypatch):
    take, n_batches = DenseRows.take, []

    def interrupted_take(self, index):
        n_batches.append(len(index))
        if len(n_batches) == 15:
            raise KeyboardInterrupt
        return take(self, index)

    monkeypatch.setattr(DenseRows, "take", interrupted_take)
    model = make_auto_encoder(batch_size=2, loss="squared_error", **DIVERGING)
    # Ctrl-C in the middle of an epoch that is exploding must not save infinities.
    model.set_params(learning_rate=1e20)
    try:
        fit_and_collect(model, X)
    except ValueError as error:
        assert "learning_rate" in str(error)  # noqa: PT017
    else:
        assert all(np.isfinite(weight).all() for weight in model.weights_.values())


def test_interruption_before_training_is_passed_on(make_model, X, monkeypatch):
    model = make_model().fit(X)
    before = state_of(model)

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("skae.estimators.face.transformer.describe_columns", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X + 1)
    # Nothing was learned that could be kept.
    assert state_of(model) == before
