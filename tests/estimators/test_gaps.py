"""Rows with gaps: NaN is what was not observed, wherever rows go."""

import re

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from registry import CASES
from scipy import sparse
from sklearn.frozen import FrozenEstimator
from sklearn.utils import get_tags

from skae import (
    RBM,
    AutoEncoder,
    DenoisingAutoEncoder,
    ManifoldTangentClassifier,
    OutlierDetector,
    StackedAutoEncoder,
    StackedClassifier,
    StackedRegressor,
    TableFeatures,
)

QUICK = {"max_iter": 3, "random_state": 0}
pytestmark = pytest.mark.filterwarnings("ignore:.*reached max_iter")


@pytest.fixture(name="table")
def correlated_numbers():
    """Three hundred rows of eight numbers that vary in three directions, and their classes."""
    draws = np.random.default_rng(0)
    factors = draws.normal(size=(300, 3))
    X = factors @ draws.normal(size=(3, 8)) + 0.3 * draws.normal(size=(300, 8)) + np.arange(8)
    return X, (factors[:, 0] > 0).astype(int)


def with_gaps(X, part=0.2, seed=1):
    return np.where(np.random.default_rng(seed).random(X.shape) < part, np.nan, X)


def test_a_gap_is_the_columns_mean_to_the_code_and_nothing_to_the_score(table):
    X, _ = table
    X = X[:50]
    model = AutoEncoder(4, **QUICK).fit(X)
    assert not model.columns_.has_gaps
    gappy = with_gaps(X)
    filled = np.where(np.isnan(gappy), model.columns_.mean, gappy)
    # They come as news to a model that was trained without.
    assert_allclose(model.transform(gappy), model.transform(filled))
    assert_allclose(model.reconstruct(gappy), model.reconstruct(filled))
    scale = model.columns_.scale
    z = (gappy - model.reconstruct(filled)) / scale
    densities = -0.5 * z**2 - np.log(scale) - 0.5 * np.log(2 * np.pi)
    assert_allclose(model.score_samples(gappy), np.nansum(densities, axis=1))
    # The code of nothing observed; and nothing to say of its likelihood.
    nothing = np.full((1, 8), np.nan)
    assert_allclose(model.transform(nothing), model.transform([model.columns_.mean]))
    assert_allclose(model.score_samples(nothing), 0, atol=1e-12)


def test_statistics_are_of_what_was_observed(table):
    X = with_gaps(table[0])
    weight = np.random.default_rng(2).random(len(X))
    weight[:20] = 0
    for data in (X, sparse.csr_matrix(X), X.astype(np.float32)):
        columns = AutoEncoder(4, **QUICK).fit(data, sample_weight=weight).columns_
        assert columns.has_gaps
        seen = pd.DataFrame(X)
        tolerance = {"rtol": 1e-5 if getattr(data, "dtype", None) == np.float32 else 1e-10}
        for j in range(8):
            here = seen[j].notna() & (weight > 0)
            mean = np.average(seen[j][here], weights=weight[here])
            std = np.sqrt(np.average((seen[j][here] - mean) ** 2, weights=weight[here]))
            assert_allclose(columns.mean[j], mean, **tolerance)
            assert_allclose(columns.scale[j], std, **tolerance)
            assert columns.minimum[j] == pytest.approx(seen[j][here].min(), rel=1e-6)


@pytest.mark.parametrize("model", [AutoEncoder, DenoisingAutoEncoder])
def test_training_with_gaps_ends_near_training_without(model, table):
    X, _ = table
    settings = {"max_iter": 80, "learning_rate": 0.02, "random_state": 0}
    plain = model(3, **settings).fit(X)
    gappy = model(3, **settings).fit(with_gaps(X, 0.1))
    mean_only = -0.5 * 8 - np.log(X.std(0)).sum() - 4 * np.log(2 * np.pi)
    gain, gain_with_gaps = plain.score(X) - mean_only, gappy.score(X) - mean_only
    # A tenth of the numbers less costs no more than a tenth of what is learned.
    assert gain > 2
    assert gain_with_gaps > 0.9 * gain


def test_the_forms_of_data_are_one(table, tmp_path):
    X = with_gaps(table[0])
    np.save(tmp_path / "rows.npy", X)
    expected = AutoEncoder(4, **QUICK).fit(X)
    for data in (sparse.csr_matrix(X), np.load(tmp_path / "rows.npy", mmap_mode="r")):
        model = AutoEncoder(4, **QUICK).fit(data)
        assert_allclose(model.transform(data), expected.transform(X), rtol=1e-9)
        assert_allclose(model.score_samples(data), expected.score_samples(X), rtol=1e-9)
    # What a mask hides is not what stands below it.
    masked = np.ma.masked_array(np.where(np.isnan(X), 1e9, X), np.isnan(X))
    model = AutoEncoder(4, **QUICK).fit(masked)
    assert_array_equal(model.transform(masked), expected.transform(X))


def test_a_row_of_gaps_teaches_nothing(table):
    X = with_gaps(table[0][:20])
    settings = {"max_iter": 1, "batch_size": 100, "random_state": 0, "optimizer": "sgd"}
    settings |= {"learning_rate": 0.01}
    nothing = np.vstack([X, np.full((20, 8), np.nan)])
    model = AutoEncoder(3, **settings).fit(nothing)
    other = AutoEncoder(3, **settings | {"learning_rate": 0.005}).fit(X)
    # Half the rows have no loss, so that one step is half as long.
    assert_allclose(model.weights_["weight_0"], other.weights_["weight_0"], rtol=1e-9)


def a_frame(X):
    return pd.DataFrame(X, columns=[f"c{i}" for i in range(X.shape[1])])


def a_list(X):
    return X.tolist()


@pytest.mark.parametrize(
    ("what", "column"),
    [(np.asarray, 2), (np.asarray, 7), (sparse.csr_matrix, 7), (a_frame, 7), (a_list, 2)],
)
def test_a_column_of_gaps_carries_nothing(what, column, table):
    """It has no input and no loss: the model is that of the other columns."""
    X = table[0].copy()
    X[:, column] = np.nan
    others = np.delete(np.arange(8), column)
    numbers = {"numbers": "clipped" if what is a_frame else "auto"}
    other = AutoEncoder(4, **numbers, **QUICK).fit(what(np.ascontiguousarray(X[:, others])))
    with pytest.warns(
        UserWarning, match=f"Column '(x|c){column}' of X has no observed value.*Drop it"
    ) as w:
        model = AutoEncoder(4, **numbers, **QUICK).fit(what(X))
    assert [warning.filename for warning in w] == [__file__]
    codes = other.transform(what(np.ascontiguousarray(X[:, others])))
    assert_array_equal(model.transform(what(X)), codes)
    assert_array_equal(
        model.score_samples(what(X)), other.score_samples(what(np.ascontiguousarray(X[:, others])))
    )
    back, expected = np.asarray(model.inverse_transform(codes)), other.inverse_transform(codes)
    assert np.isnan(back[:, column]).all()
    assert_array_equal(back[:, others], np.asarray(expected))
    # Whatever comes later, too.
    X[:, column] = 1.0
    assert_array_equal(model.transform(what(X)), codes)
    drawn = np.asarray(model.sample(3, method="langevin", noise=0.1, random_state=0))
    is_missing = np.isnan(drawn).all(axis=0)
    assert_array_equal(is_missing, np.arange(8) == column)
    with pytest.raises(ValueError, match="no observed value"):
        AutoEncoder(4, **QUICK).fit(what(X * np.nan))


@pytest.mark.parametrize("what", [np.asarray, sparse.csr_matrix])
def test_a_column_that_rows_without_weight_have(what, table):
    X = table[0].copy()
    X[1:, 2] = np.nan
    weight = np.r_[0, np.ones(len(X) - 1)]
    with pytest.warns(UserWarning, match="Column 'x2' of X has no observed value"):
        model = AutoEncoder(4, **QUICK).fit(what(X), sample_weight=weight)
    assert np.isfinite(model.transform(what(X))).all()
    assert np.isnan(model.reconstruct(what(X))[:, 2]).all()
    # One that has been known once is a gap like others.
    model = AutoEncoder(4, **QUICK).fit(what(X))
    assert np.isfinite(model.transform(what(X[1:]))).all()
    with pytest.raises(ValueError, match="infinity in row 7, column 3"):
        model.transform(what(np.where(np.arange(8 * len(X)).reshape(-1, 8) == 59, np.inf, X)))


@pytest.mark.parametrize(
    "model",
    [
        StackedAutoEncoder((6, 4), fine_tuning=True, **QUICK),
        StackedClassifier(output="kernel", random_state=0),
        StackedClassifier((8,), output="linear", **QUICK),
        ManifoldTangentClassifier((8,), max_iter=3, random_state=0),
        OutlierDetector(n_members=2, random_state=0),
        TableFeatures(max_iter=2, random_state=0),
        RBM(4, max_iter=3, random_state=0),
    ],
    ids=repr,
)
def test_a_column_of_gaps_is_told_once(model, table):
    X, y = table[0][:100].copy(), table[1][:100]
    X[:, 2] = np.nan
    for rows in (a_frame(X), X):
        with pytest.warns(UserWarning, match="no observed value in fit") as w:
            model.fit(rows, y)
        assert len([one for one in w if "no observed value" in str(one.message)]) == 1
        call = "transform" if hasattr(model, "transform") else "predict"
        assert np.isfinite(getattr(model, call)(rows)).all()
    if hasattr(model, "score_columns"):
        terms = model.score_columns(X)
        assert terms.shape == X.shape
        assert not terms[:, 2].any()


def test_a_first_part_of_a_stream_without_a_column(table):
    X = table[0].copy()
    X[:100, 2] = np.nan
    with pytest.warns(UserWarning, match="Column 'x2'.*fit on rows that have some"):
        model = AutoEncoder(4, random_state=0).partial_fit(X[:100])
    assert np.isfinite(model.partial_fit(X[100:]).transform(X)).all()


def test_infinity_among_gaps(table):
    X = with_gaps(table[0])
    X[7, 3] = np.inf
    model = AutoEncoder(4, **QUICK).fit(with_gaps(table[0]))
    for call in (AutoEncoder(4).fit, model.transform, model.score_samples, model.partial_fit):
        for what in (np.asarray, sparse.csr_matrix):
            with pytest.raises(ValueError, match="infinity in row 7, column 3"):
                call(what(X))


def test_gaps_in_a_stream(table):
    X, _ = table
    model = AutoEncoder(4, random_state=0).partial_fit(X[:100])
    model.partial_fit(with_gaps(X[100:]))
    assert all(np.isfinite(weights).all() for weights in model.weights_.values())
    stack = StackedAutoEncoder((4, 3), fine_tuning=True, random_state=0).partial_fit(X[:100])
    stack.partial_fit(with_gaps(X[100:]))
    assert np.isfinite(stack.transform(X)).all()


@pytest.mark.parametrize("pretraining", ["unsupervised", "simultaneous", "partly_supervised"])
@pytest.mark.parametrize("fine_tuning", [False, True])
def test_stacks(pretraining, fine_tuning, table):
    X, y = table
    gappy = with_gaps(X)
    settings = {"pretraining": pretraining, "fine_tuning": fine_tuning, **QUICK}
    stack = StackedAutoEncoder((6, 4), **settings).fit(gappy, y)
    codes = gappy
    for layer in stack.layers_:
        codes = layer.transform(codes)
    assert_allclose(stack.transform(gappy), codes, rtol=1e-9)
    assert np.isfinite(stack.score_samples(gappy)).all()
    assert stack.columns_.has_gaps
    assert not stack.layers_[1].columns_.has_gaps


def test_fine_tuning_scores_what_was_observed(table):
    X, _ = table
    settings = {"learning_rate": 0.01, "max_iter": 60, "random_state": 0}
    stack = StackedAutoEncoder(
        (6, 4), layer=AutoEncoder(4, **settings), fine_tuning=True, **settings
    )
    stack.fit(with_gaps(X, 0.1))
    assert stack.loss_curve_[-1] < stack.loss_curve_[0]
    # The curve is in nats of what was observed, as the score is.
    assert stack.loss_curve_[-1] == pytest.approx(-stack.score(with_gaps(X, 0.1)), rel=0.02)


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_classifiers_and_regressors(weight, table):
    X, y = table
    gappy = with_gaps(X)
    settings = {"max_iter": 10, "random_state": 0, "unsupervised_weight": weight}
    model = StackedClassifier((8,), **settings).fit(gappy, y)
    assert model.score(gappy, y) > 0.8
    assert np.isfinite(model.predict_proba(np.full((1, 8), np.nan))).all()
    model = StackedRegressor((8,), **settings).fit(gappy, X[:, 0])
    assert np.isfinite(model.predict(gappy)).all()
    # Fitted layers that have known no gaps.
    layer = FrozenEstimator(AutoEncoder(8, **QUICK).fit(X))
    model = StackedClassifier(layers=[layer], pretraining="prefit", **settings).fit(gappy, y)
    assert np.isfinite(model.predict_proba(gappy)).all()
    part = StackedClassifier((8,), random_state=0).partial_fit(X, y, classes=[0, 1])
    part.partial_fit(gappy, y)
    assert np.isfinite(part.predict_proba(gappy)).all()


@pytest.mark.parametrize("source", ["encoder", "local_pca"])
def test_tangent_classifier(source, table):
    X, y = table
    gappy, labels = with_gaps(X), np.where(np.arange(len(y)) < 60, y, -1)
    model = ManifoldTangentClassifier((8,), tangent_source=source, max_iter=3, random_state=0)
    model.fit(gappy, labels)
    assert np.isfinite(model.predict_proba(gappy)).all()
    assert np.isfinite(model.tangents(gappy[:5])).all()


def test_the_others_refuse_and_say_what_can():
    for case in CASES:
        model, X = case.make(), np.asarray(case.X, dtype=np.float64).copy()
        X[3, 1] = np.nan
        allows = get_tags(model).input_tags.allow_nan
        if not allows:
            with pytest.raises(ValueError, match=r"DenoisingImputer.*AutoEncoder"):
                model.fit(X, case.y)


@pytest.mark.parametrize("layer", ["rbm", "psd", RBM(4)])
def test_a_stack_takes_gaps_where_its_lowest_layer_does(layer, table):
    X, _ = table
    assert not StackedAutoEncoder((4,), layer=layer)._accepts_gaps
    with pytest.raises(ValueError, match=re.escape("NaN in row 0, column 0")):
        StackedAutoEncoder((4,), layer=layer).fit(X * np.nan)
    mixed = StackedAutoEncoder(layers=[AutoEncoder(4, **QUICK), RBM(3, **QUICK)], **QUICK)
    assert np.isfinite(mixed.fit(with_gaps(X)).transform(with_gaps(X))).all()


@pytest.mark.filterwarnings("ignore:.*no observed value")
def test_frames_of_a_model_of_an_array_whose_last_column_was_never_observed(table):
    X, others = table[0].copy(), np.delete(table[0], -1, axis=1)
    X[:, -1] = np.nan
    model, other = (AutoEncoder(4, **QUICK).fit(rows) for rows in (X, others))
    assert_array_equal(model.transform(pd.DataFrame(X)), other.transform(others))
    assert_array_equal(model.score_samples(X), other.score_samples(others))


def test_rows_without_a_category(table):
    draws = np.random.default_rng(0)
    one_hot = np.eye(3)[draws.integers(3, size=300)]
    X = np.column_stack([one_hot, table[0]])
    model = AutoEncoder(4, **QUICK).fit(X)
    zeros, gaps = X.copy(), X.copy()
    zeros[:10, :3], gaps[:10, :3] = 0, np.nan
    # An unknown category, which an encoder makes zeros of, is not observed: so says NaN.
    assert_array_equal(model.transform(zeros), model.transform(gaps))
    assert_allclose(model.score_samples(zeros), model.score_samples(gaps))
    assert_allclose(model.score_samples(zeros)[10:], model.score_samples(X)[10:])
    wrong = X.copy()
    wrong[5, :3] = 1
    for call in (model.score_samples, model.partial_fit):
        with pytest.raises(ValueError, match=r"in row 5 .*\[0, 1, 2\] sums to 3"):
            call(wrong)
