"""The estimators as parts: pipelines, searches, pickles, continued training, scores."""

import copy
import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
from numpy.testing import assert_allclose, assert_array_equal
from registry import CASES, GRADIENT_LEARNERS, LEARNERS, PREDICTORS, TRANSFORMERS, families
from scipy.special import expit, log_softmax
from sklearn.base import clone
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.decomposition import PCA
from sklearn.feature_selection import SelectFromModel
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import OneHotEncoder

from skae import AutoEncoder, ContractiveAutoEncoder
from skae.engine.networks.corruptions import SaltAndPepper

each_case = pytest.mark.parametrize("case", CASES, ids=str)
each_transformer = pytest.mark.parametrize("case", TRANSFORMERS, ids=str)
each_learner = pytest.mark.parametrize("case", LEARNERS, ids=str)
each_gradient_learner = pytest.mark.parametrize("case", GRADIENT_LEARNERS, ids=str)


@pytest.fixture
def y():
    return np.arange(40) % 2


def small(**parameters):
    """A small auto-encoder."""
    return AutoEncoder(**{"n_components": 3, "max_iter": 3, "random_state": 0, **parameters})


def assert_same_weights(model, other, **close):
    assert model.weights_.keys() == other.weights_.keys()
    for name, weight in model.weights_.items():
        if close:
            assert_allclose(weight, other.weights_[name], **close)
        else:
            assert_array_equal(weight, other.weights_[name])


# Parts of larger models


@pytest.mark.parametrize("case", families(TRANSFORMERS), ids=str)
def test_pipeline(case, y):
    pipeline = make_pipeline(case.make(), LogisticRegression(max_iter=1000)).fit(case.X, y)
    # A pipeline does by itself what one does by hand.
    codes = case.fitted.transform(case.X)
    by_hand = LogisticRegression(max_iter=1000).fit(codes, y)
    assert_array_equal(pipeline.predict(case.X), by_hand.predict(codes))


def test_grid_search_in_parallel(X, y):
    pipeline = make_pipeline(
        ContractiveAutoEncoder(3, max_iter=2, random_state=0), LogisticRegression()
    )
    grid = {
        "contractiveautoencoder__contraction": [0.0, 0.1],
        "contractiveautoencoder__n_components": [2, 3],
    }
    with joblib.parallel_backend("threading"):
        parallel = GridSearchCV(pipeline, grid, cv=2, n_jobs=2).fit(X, y)
    serial = GridSearchCV(pipeline, grid, cv=2).fit(X, y)
    # Where a fit runs does not change what it learns.
    assert_array_equal(
        parallel.cv_results_["mean_test_score"], serial.cv_results_["mean_test_score"]
    )
    assert parallel.best_params_ == serial.best_params_


def test_grid_search_over_the_likelihood(X):
    search = GridSearchCV(small(), {"learning_rate": [1e-12, 0.01]}, cv=2).fit(X)
    # score(X) is higher for better models, so a search needs no scorer and no y.
    assert search.best_params_ == {"learning_rate": 0.01}


@pytest.mark.parametrize("case", families(LEARNERS), ids=str)
def test_cross_val_score(case):
    scores = cross_val_score(case.make(), case.X, cv=3)
    # Folds of 14, 13 and 13 rows: the first score is that of the first 14.
    assert scores.shape == (3,)
    assert_allclose(scores[0], case.fit(case.X[14:]).score(case.X[:14]))


def test_feature_union(X):
    union = FeatureUnion([("code", small()), ("pca", PCA(2, random_state=0))])
    codes = union.fit_transform(X)
    # The union places the codes beside the other features, and names both.
    assert_array_equal(codes[:, :3], small().fit_transform(X))
    assert len(union.get_feature_names_out()) == 5


def test_column_transformer(X):
    frame = pd.DataFrame(X, columns=list("abcd")).assign(kind=["x", "y"] * 20)
    transformer = ColumnTransformer(
        [("code", small(), list("abcd")), ("kind", OneHotEncoder(), ["kind"])]
    )
    codes = transformer.fit_transform(frame)
    # Text goes to its encoder and numbers go to the model.
    assert_allclose(codes[:, :3], small().fit_transform(X), rtol=1e-8, atol=1e-10)
    assert codes.shape == (40, 5)


def test_mixed_table_from_column_transformer_to_losses():
    frame = pd.DataFrame({"kind": ["x", "y", "z", "x"] * 10, "size": np.linspace(-3, 9, 40)})
    encode = ColumnTransformer(
        [("kind", OneHotEncoder(sparse_output=False), ["kind"])],
        remainder="passthrough",
        verbose_feature_names_out=False,
    ).set_output(transform="pandas")
    loss = [
        ("multinomial", make_column_selector("^kind_")),
        ("gaussian", make_column_selector("^size$")),
    ]
    pipeline = make_pipeline(encode, small(loss=loss))
    # Columns chosen by name find their way through a pipeline and a clone.
    assert clone(pipeline).fit(frame).transform(frame).shape == (40, 3)


def test_stacking_in_a_pipeline(X):
    deep = make_pipeline(small(n_components=4), small(n_components=2)).fit(X)
    # Sigmoid codes are numbers in (0, 1), hardly ever exactly 0 or 1: to a model that knows nothing
    # of the one below they are to be standardised. In a stack they are Bernoulli.
    assert [name for name, _ in deep[1].columns_.parts] == ["gaussian"]
    assert deep.transform(X).shape == (40, 2)
    assert deep.inverse_transform(deep.transform(X)).shape == X.shape


@each_case
def test_clone_has_parameters_and_nothing_learned(case):
    model = case.fitted
    copied = clone(model)
    # A clone is what the constructor made: parameters without what was learned.
    assert not [name for name in vars(copied) if name.endswith("_")]
    assert repr(copied.get_params()) == repr(model.get_params())
    assert_array_equal(case.output(copied.fit(case.X, case.y)), case.output(model))


# Copies and files


@each_case
def test_pickle_restores_the_model(case):
    model = case.fitted
    pickled = pickle.dumps(model)
    restored = pickle.loads(pickled)
    assert_array_equal(case.output(restored), case.output(model))
    # A restored model is complete: it scores and reports.
    if hasattr(model, "score"):
        assert restored.score(case.X, case.y) == model.score(case.X, case.y)
    # No tensors: a pickle loads without a device and does not depend on torch's formats.
    assert b"torch" not in pickled


@pytest.mark.parametrize("case", families(LEARNERS), ids=str)
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_pickle_holds_weights_only(case, method):
    generator = np.random.default_rng(0)
    data = generator.normal(size=(200, 49))
    shape = {"image_shape": (7, 7)} if case.takes("image_shape") else {}
    model = case.make(batch_size=200, max_iter=1, **shape)
    if not hasattr(model, method):
        return
    pickled = pickle.dumps(getattr(model, method)(data))
    # Weights, statistics of 49 columns and Adam's two moments; never the 78 kB of data.
    weights = sum(weight.nbytes for weight in model.weights_.values())
    assert len(pickled) < 5 * weights + 30_000


@pytest.mark.parametrize(
    "loss", ["auto", [("gaussian", [0, 1]), ("bernoulli", [2]), ("squared_error", [3])]]
)
def test_mixed_model_works_from_read_only_memory_maps(X, tmp_path, loss):
    X = X.copy()
    X[:, 2] = X[:, 2] > np.median(X[:, 2])
    model = small(loss=loss).fit(X).partial_fit(X)
    expected = pickle.loads(pickle.dumps(model)).partial_fit(X)
    joblib.dump(model, tmp_path / "model.joblib")
    mapped = joblib.load(tmp_path / "model.joblib", mmap_mode="r")
    assert isinstance(mapped.weights_["weight_0"], np.memmap)
    # Weights that cannot be written are enough for everything that reads them ...
    assert_array_equal(mapped.score_samples(X), model.score_samples(X))
    assert_array_equal(mapped.reconstruct(X), model.reconstruct(X))
    # ... and training continues from a copy.
    assert_same_weights(mapped.partial_fit(X), expected)


@pytest.mark.parametrize("case", families(LEARNERS), ids=str)
def test_copies_are_independent(case):
    model = case.fit(warm_start=True)
    codes, curve = case.output(model), list(getattr(model, "loss_curve_", []))
    deep = copy.deepcopy(model).fit(case.X)
    copy.copy(model).fit(case.X)
    # Training a copy leaves the original alone: it makes new arrays instead of writing into the
    # old ones.
    assert_array_equal(case.output(model), codes)
    assert list(getattr(model, "loss_curve_", [])) == curve
    assert (case.output(deep) != codes).any()


@pytest.mark.parametrize("case", families(LEARNERS), ids=str)
def test_model_trained_on_a_gpu_works_without_one(case):
    model = case.fitted
    codes, score = case.output(model), model.score(case.X)
    # What a model that was trained on another machine's GPU looks like here.
    model.set_params(device="cuda:7").device_ = "cuda:7"
    loaded = pickle.loads(pickle.dumps(model))
    # Codes need weights, not the device on which they were learned ...
    assert_array_equal(case.output(loaded), codes)
    assert loaded.score(case.X) == score
    assert_allclose(loaded.inverse_transform(codes), model.reconstruct(case.X))
    # ... while training there was asked for, and is not silently done elsewhere.
    with pytest.raises(ValueError, match=r"'cuda:7' is not available.*'auto' or 'cpu'"):
        loaded.fit(case.X)
    assert_array_equal(case.output(loaded), codes)


# Sample weights


def test_integer_weights_are_repetitions_in_one_batch(X):
    weight = np.arange(40) % 3
    settings = {"n_components": 2, "max_iter": 5, "batch_size": 1000}
    weighted = small(**settings).fit(X, sample_weight=weight)
    repeated = small(**settings).fit(np.repeat(X, weight, axis=0))
    # In one batch a row of weight 2 is two rows: in the statistics and in the gradient.
    assert_allclose(weighted.transform(X), repeated.transform(X), rtol=1e-8)


@pytest.mark.parametrize("case", families(LEARNERS), ids=str)
def test_scale_of_the_weights_does_not_matter(case):
    weight = 1.0 + np.arange(40) % 3
    # Weights are relative, so that a learning rate does not depend on their unit.
    assert_same_weights(
        case.make().fit(case.X, sample_weight=1e6 * weight),
        case.make().fit(case.X, sample_weight=weight),
        rtol=1e-8,
        atol=1e-10,
    )
    # Equal weights are no weights.
    assert_same_weights(case.make().fit(case.X, sample_weight=np.full(40, 7.0)), case.fitted)


@each_learner
def test_rows_of_weight_zero_do_not_count(case):
    weight = (np.arange(40) < 30).astype(float)
    outliers = case.X.copy()
    outliers[30:] = 1e9
    # Neither the statistics of the columns nor a gradient sees a row of weight zero.
    assert_same_weights(
        case.make().fit(outliers, sample_weight=weight), case.make().fit(case.X[:30])
    )


@pytest.mark.parametrize("case", families(LEARNERS), ids=str)
def test_score_takes_weights(case):
    model = case.fitted
    weight = np.arange(40) % 3
    # The weighted mean of the rows' scores, so that equal weights change nothing.
    rows = model.score_samples(case.X)
    assert_allclose(model.score(case.X, sample_weight=weight), np.average(rows, weights=weight))
    assert model.score(case.X, sample_weight=np.ones(40)) == model.score(case.X)
    # A score that is not finite does not count either, where its row does not.
    some, of_some = case.X.copy(), weight > 0
    some[~of_some] = 1e200 if model.columns_.is_standardized else case.X[0]
    found = model.score(some, sample_weight=of_some.astype(float))
    assert_allclose(found, rows[of_some].mean())


def test_weights_are_routed(X, y):
    weight = 1.0 + np.arange(40) % 3
    with sklearn.config_context(enable_metadata_routing=True):
        model = small().set_fit_request(sample_weight=True)
        pipeline = make_pipeline(model, LogisticRegression().set_fit_request(sample_weight=False))
        pipeline.fit(X, y, sample_weight=weight)
        # The weights reached the model through the pipeline ...
        assert_same_weights(pipeline[0], small().fit(X, sample_weight=weight))

        model.set_score_request(sample_weight=True)
        result = cross_validate(model, X, cv=2, params={"sample_weight": weight})
    by_hand = small().fit(X[20:], sample_weight=weight[20:])
    # ... and through cross-validation, which splits them as it splits the rows.
    assert_allclose(result["test_score"][0], by_hand.score(X[:20], sample_weight=weight[:20]))


# Continued training


@each_gradient_learner
def test_warm_start_continues(case):
    def weights(model):
        return np.concatenate([array.ravel() for array in model.weights_.values()])

    model = case.fit(warm_start=True, max_iter=20)
    learned, afresh = weights(model), weights(case.fit(max_iter=3))
    model.set_params(max_iter=3).fit(case.X)
    # It goes on from the weights of the one before, not from where that one began.
    moved = np.linalg.norm(weights(model) - learned)
    assert moved < 0.5 * np.linalg.norm(afresh - learned)
    # The record is that of the last fit alone.
    assert model.n_iter_ == len(model.loss_curve_) == 3


@pytest.mark.parametrize("case", families(CASES), ids=str)
def test_fit_without_warm_start_forgets(case):
    model = case.fit(case.X[::-1] + 100)
    # Nothing of an earlier fit is left: neither weights nor statistics of columns.
    model.fit(case.X, case.y)
    assert_array_equal(case.output(model), case.output(case.fitted))


def test_warm_start_with_other_layers_is_refused(X):
    model = small(warm_start=True).fit(X)
    expected = model.transform(X)
    for change in ({"n_components": 5}, {"hidden_layer_sizes": (4,)}, {"tied_weights": False}):
        changed = copy.deepcopy(model).set_params(**change)
        # Weights of other shapes cannot be continued, and codes would be wrong.
        for method in (changed.fit, changed.partial_fit, changed.transform):
            with pytest.raises(ValueError, match="warm_start=False"):
                method(X)
        assert_array_equal(changed.set_params(**model.get_params()).transform(X), expected)


@each_gradient_learner
def test_partial_fit_returns_self_and_learns(case):
    model = case.make()
    # What scikit-learn documents, and its BernoulliRBM forgets. Four rows leave much to learn, also
    # where one pass is nearly all that there is.
    assert model.partial_fit(case.X[:4]) is model
    first = model.score(case.X)
    for _ in range(9):
        model.partial_fit(case.X)
    assert model.score(case.X) > first
    # One epoch per call, all of them on record.
    assert model.n_iter_ == len(model.loss_curve_) == 10


@each_gradient_learner
def test_partial_fit_carries_moments_and_noise_over(case):
    # Without a schedule, epochs of fit and calls of partial_fit are the same steps: the
    # moments and the generator carry over from call to call, also through a file.
    settings = {"learning_rate_schedule": "constant", "n_iter_no_change": None}
    fitted = case.fit(max_iter=4, **settings)
    continued = case.make(**settings)
    for _ in range(4):
        continued = pickle.loads(pickle.dumps(continued)).partial_fit(case.X)
    assert_same_weights(continued, fitted)


@each_gradient_learner
def test_partial_fit_after_fit_continues_it(case):
    # One epoch of a tenth of the rows: none has converged.
    model = case.fit(case.X[:4], max_iter=1)
    score = model.score(case.X)
    for _ in range(10):
        model.partial_fit(case.X)
    assert model.score(case.X) > score
    assert model.n_iter_ == 1 + 10


@each_gradient_learner
def test_fit_after_partial_fit_forgets(case):
    model = case.make().partial_fit(case.X + 100).partial_fit(case.X + 100)
    # fit starts anew from random_state: weights, moments, statistics and record.
    assert_same_weights(model.fit(case.X), case.fitted)
    # Nor does anything from before it decide what comes next.
    assert_same_weights(model.partial_fit(case.X), case.fitted.partial_fit(case.X))


def test_partial_fit_keeps_the_first_statistics(X):
    model = small().partial_fit(X)
    mean = model.columns_.shift.copy()
    model.partial_fit(X[:5] + 3)
    # The network's coordinates stay, or its weights would change their meaning.
    assert_array_equal(model.columns_.shift, mean)


def test_partial_fit_may_change_its_optimizer(X):
    model = small(optimizer="adam").partial_fit(X)
    model.set_params(optimizer="rmsprop").partial_fit(X)
    # Moments of another rule are of no use: it starts with its own.
    assert np.isfinite(model.transform(X)).all()


# Scores and reconstructions


def weights_of(model, n_layers=1):
    encoder = [
        (model.weights_[f"weight_{i}"], model.weights_[f"hidden_bias_{i}"]) for i in range(n_layers)
    ]
    decoder = [
        (
            model.weights_[("weight_" if model.tied_weights else "decoder_weight_") + str(i)],
            model.weights_[f"visible_bias_{i}"],
        )
        for i in range(n_layers)
    ]
    return encoder, decoder


def output_by_hand(model, z, n_layers=1):
    """The output's pre-activation for standardised rows, by NumPy alone."""
    encoder, decoder = weights_of(model, n_layers)
    for weight, bias in encoder:
        z = expit(z @ weight.T + bias)
    for level in reversed(range(n_layers)):
        weight, bias = decoder[level]
        z = z @ weight + bias
        z = expit(z) if level else z
    return z


def squared(z, a):
    return 0.5 * ((z - a) ** 2).sum(1)


def cross_entropy(x, a):
    return -(x * np.log(expit(a)) + (1 - x) * np.log(1 - expit(a))).sum(1)


SHAPES = [
    {},
    {"tied_weights": False},
    {"hidden_layer_sizes": (5, 4)},
    {"hidden_layer_sizes": (5,), "tied_weights": False},
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gaussian_score(X, shape):
    model = small(loss="gaussian", **shape).fit(X)
    mean, scale = X.mean(0), X.std(0)
    a = output_by_hand(model, (X - mean) / scale, 1 + len(shape.get("hidden_layer_sizes", ())))
    # The density of x itself: that of z = (x - mean) / scale over the product of scales.
    constant = np.log(scale).sum() + 2 * np.log(2 * np.pi)
    assert_allclose(model.score_samples(X), -(squared((X - mean) / scale, a) + constant))
    assert_allclose(model.score(X), model.score_samples(X).mean())
    # Reconstructions come in the units of the data.
    assert_allclose(model.reconstruct(X), a * scale + mean)


def test_gaussian_score_is_a_density(X):
    model = AutoEncoder(3, loss="gaussian", max_iter=5, random_state=0)
    score = model.fit(X).score(X)
    # Metres instead of kilometres: a density changes by the determinant, log 1000 each.
    assert_allclose(model.fit(1000 * X).score(1000 * X), score - 4 * np.log(1000))


def test_squared_error_score(X):
    model = small(loss="squared_error").fit(X)
    a = output_by_hand(model, X)
    # The input's own units, nothing estimated, no constant.
    assert_allclose(model.score_samples(X), -squared(X, a))
    assert_allclose(model.reconstruct(X), a)


def test_bernoulli_score(counts):
    data = np.minimum(counts, 1).astype(float)
    model = small(loss="bernoulli").fit(data)
    a = output_by_hand(model, data)
    assert_allclose(model.score_samples(data), -cross_entropy(data, a))
    # The mean of a Bernoulli unit is its probability.
    assert_allclose(model.reconstruct(data), expit(a))


def test_multinomial_score():
    data = np.eye(5)[np.arange(40) % 5]
    model = small(loss="multinomial").fit(data)
    a = output_by_hand(model, data)
    # The log of the probability of the category that is there.
    assert_allclose(model.score_samples(data), (data * log_softmax(a, axis=1)).sum(1))
    assert_allclose(model.reconstruct(data).sum(1), 1)


@pytest.fixture
def mixed_frame(X):
    kinds = np.eye(3)[np.arange(40) % 3]
    return pd.DataFrame(
        {
            "height": X[:, 0],
            "red": kinds[:, 0],
            "owned": (X[:, 1] > 3).astype(float),
            "green": kinds[:, 1],
            "error": X[:, 3],
            "blue": kinds[:, 2],
            "width": X[:, 2],
        }
    )


MIXED = {
    "names": [
        ("gaussian", ["width", "height"]),
        ("multinomial", ["red", "green", "blue"]),
        ("bernoulli", "owned"),
        ("squared_error", ["error"]),
    ],
    "positions": [
        ("gaussian", [6, 0]),
        ("multinomial", (1, 3, 5)),
        ("bernoulli", 2),
        ("squared_error", [-3]),
    ],
    "masks and slices": [
        ("gaussian", np.isin(np.arange(7), [0, 6])),
        ("multinomial", slice(1, 6, 2)),
        ("bernoulli", slice(2, 3)),
        ("squared_error", [False] * 4 + [True] + [False] * 2),
    ],
    "selectors": [
        ("gaussian", make_column_selector("^(?:height|width)$")),
        ("multinomial", make_column_selector("^(?:red|green|blue)$")),
        ("bernoulli", make_column_selector("owned")),
        ("squared_error", make_column_selector("error")),
    ],
    "one by one": [
        ("gaussian", ["height"]),
        ("gaussian", ["width"]),
        ("multinomial", ["blue", "red", "green"]),
        ("bernoulli", ["owned"]),
        ("squared_error", ["error"]),
        ("bernoulli", []),
    ],
}


@pytest.mark.parametrize("loss", MIXED)
def test_mixed_score(mixed_frame, loss):
    model = small(loss=MIXED[loss]).fit(mixed_frame)
    x = mixed_frame.to_numpy()
    mean, scale = np.zeros(7), np.ones(7)
    mean[[0, 6]], scale[[0, 6]] = x[:, [0, 6]].mean(0), x[:, [0, 6]].std(0)
    z = (x - mean) / scale
    a = output_by_hand(model, z)
    expected = (
        squared(z[:, [0, 6]], a[:, [0, 6]])
        + np.log(scale).sum()
        + np.log(2 * np.pi)
        - (x[:, [1, 3, 5]] * log_softmax(a[:, [1, 3, 5]], axis=1)).sum(1)
        + cross_entropy(x[:, [2]], a[:, [2]])
        + squared(x[:, [4]], a[:, [4]])
    )
    # Each column under its own loss, however it was chosen; the losses add up.
    assert_allclose(model.score_samples(mixed_frame), -expected)
    reconstruction = model.reconstruct(mixed_frame).to_numpy()
    # Each column is reconstructed by the mean of its own unit, in its own place.
    assert_allclose(reconstruction[:, [0, 4, 6]], (a * scale + mean)[:, [0, 4, 6]])
    assert_allclose(reconstruction[:, [1, 3, 5]], np.exp(log_softmax(a[:, [1, 3, 5]], axis=1)))
    assert_allclose(reconstruction[:, 2], expit(a[:, 2]))


def test_inverse_transform_of_codes(X):
    model = small().fit(X)
    codes = model.transform(X)
    assert_array_equal(model.inverse_transform(codes), model.reconstruct(X))
    # Codes are standardised nowhere: the decoder is a function of the code alone.
    _, ((weight, bias),) = weights_of(model)
    some = np.random.default_rng(0).random((5, 3))
    assert_allclose(
        model.inverse_transform(some),
        (some @ weight + bias) * model.columns_.scale + model.columns_.shift,
    )


def test_fitted_attributes_of_one_layer(X):
    model = small().fit(X)
    assert model.components_.shape == (3, 4)
    # Tied weights: the decoder's filters are the encoder's.
    assert_array_equal(model.decoder_components_, model.components_)
    # The attributes are what transform computes with.
    z = (X - model.columns_.shift) / model.columns_.scale
    assert_allclose(model.transform(X), expit(z @ model.components_.T + model.intercept_hidden_))
    assert model.intercept_visible_.shape == (4,)
    untied = small(tied_weights=False).fit(X)
    assert (untied.decoder_components_ != untied.components_).any()


def test_fitted_attributes_of_several_layers(X):
    deep = small(hidden_layer_sizes=(5,)).fit(X)
    # No single matrix describes a deep encoder; hasattr says so.
    assert not hasattr(deep, "components_")
    assert not hasattr(small(), "components_")
    with pytest.raises(AttributeError, match="weights_"):
        _ = deep.intercept_hidden_


# Such long steps may leave units of PSD without codes.
@pytest.mark.filterwarnings("ignore::skae.CollapsedCodeWarning")
@pytest.mark.parametrize("case", families(GRADIENT_LEARNERS), ids=str)
def test_early_stopping_keeps_the_best_weights(case):
    settings = {"early_stopping": True, "learning_rate": 0.3, "n_iter_no_change": 5, "tol": 0}
    settings |= {"learning_rate_schedule": "constant"}
    # A dictionary for rows without structure soon suits its own rows alone.
    noise = np.random.default_rng(0).normal(size=(12, 4)) if str(case) == "SparseCoder" else None
    model = case.fit(noise, max_iter=200, **settings)
    # One entry per epoch beside the training loss; the end came with no progress.
    assert len(model.validation_curve_) == len(model.loss_curve_) == model.n_iter_
    best = int(np.argmin(model.validation_curve_))
    assert (model.stopping_reason_, best < model.n_iter_ - 1) == ("converged", True)
    # The same training, ended at its best epoch, has the weights that were kept.
    assert_same_weights(model, case.fit(noise, max_iter=best + 1, **settings))


def test_a_stream_must_begin_with_rows_that_show_a_scale(X):
    table = 100 + 10 * X
    # One row has a mean but no spread: whatever scale were taken, later rows would not fit it.
    with pytest.raises(ValueError, match=r"n_samples=1.*first call of partial_fit"):
        AutoEncoder(3).partial_fit(table[:1])
    held = table.copy()
    held[:10, 2] = 7.0
    # A column that happens to be constant at first would be used unscaled ever after.
    with pytest.warns(UserWarning, match=r"Columns \[2\] are constant so far"):
        AutoEncoder(3, random_state=0).partial_fit(held[:10])


def test_salt_and_pepper_are_the_ends_of_the_columns():
    X = np.random.default_rng(0).integers(5, 9, size=(40, 4)).astype(float)
    X[:2] = [[5.0], [8.0]]
    ends = SaltAndPepper(0.5, 5.0, 8.0)
    settings = {"loss": "squared_error", "corruption_level": 0.5}
    named = small(corruption="salt_and_pepper", **settings).fit(X)
    own = small(corruption=lambda x, generator: ends(x, generator), **settings).fit(X)
    # A corruption by its name knows the data's columns.
    assert_same_weights(named, own)


@pytest.mark.parametrize("case", PREDICTORS, ids=str)
def test_weights_of_codes_are_not_shown_as_those_of_columns(case):
    """Tools read ``coef_`` as weights of columns, and would select these by numbers of units."""
    model = case.fit()
    assert not hasattr(model, "coef_")
    assert not hasattr(model, "feature_importances_")
    with pytest.raises(ValueError, match=r"should have `coef_` or `feature_importances_`"):
        SelectFromModel(model, prefit=True).transform(case.X)
