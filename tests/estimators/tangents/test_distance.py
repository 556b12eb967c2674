"""The nearest-neighbour classifier with tangent distance: its sources of tangents and its votes."""

import pickle

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline

from skae import (
    AutoEncoder,
    ContractiveAutoEncoder,
    SparseCoder,
    StackedAutoEncoder,
    TangentDistanceClassifier,
)
from skae.diagnostics import local_pca_tangents, principal_angles, tangents

N_FEATURES = 6


@pytest.fixture(name="X")
def noise():
    return np.random.default_rng(0).normal(size=(80, N_FEATURES))


@pytest.fixture(name="y")
def half_labelled(X):
    y = np.random.default_rng(1).integers(0, 3, len(X))
    y[::2] = -1
    return y


@pytest.fixture
def queries():
    return np.random.default_rng(2).normal(size=(15, N_FEATURES))


def known_directions(X):
    """Two directions for each row, which turn with it; neither orthogonal nor of unit length."""
    rolled = np.roll(X, 1, axis=1)
    return np.stack([5 * rolled, rolled + np.ones(X.shape[1])], axis=1)


def constant_direction(X):
    """The same one everywhere: an offset of all columns."""
    return np.ones((len(X), 1, X.shape[1]))


def least_squares(x, of_x, row, of_row):
    spanned = np.vstack([of_x, of_row]).T
    solution = np.linalg.lstsq(spanned, x - row, rcond=1e-10)[0]
    return np.linalg.norm(x - row - spanned @ solution)


@pytest.mark.parametrize("sides", ["one", "two"])
def test_neighbours_are_those_of_least_squares(X, y, queries, sides):
    model = TangentDistanceClassifier(
        4, tangent_source=known_directions, sides=sides, n_candidates=None
    ).fit(X, y)
    of_queries = known_directions(queries)[:, : 2 if sides == "two" else 0]
    labelled, of_rows = np.flatnonzero(y != -1), known_directions(X)
    expected = np.array(
        [
            [least_squares(x, of_x, X[row], of_rows[row]) for row in labelled]
            for x, of_x in zip(queries, of_queries, strict=True)
        ]
    )
    order = expected.argsort(axis=1)[:, :4]
    distances, index = model.kneighbors(queries)
    # The least distances over all coefficients of the planes, solved for one pair at a time.
    assert_allclose(distances, np.take_along_axis(expected, order, axis=1), rtol=1e-9)
    # Among all rows of fit, of which only the labelled ones are neighbours.
    assert_array_equal(index, labelled[order])
    # The same without distances, and for another number of neighbours.
    assert_array_equal(model.kneighbors(queries, 2, return_distance=False), index[:, :2])


@pytest.mark.parametrize("weights", ["uniform", "distance"])
@pytest.mark.parametrize(
    "no_tangents",
    [{"n_tangents": 0}, {"tangent_source": lambda X: np.zeros((len(X), 2, X.shape[1]))}],
    ids=["none", "zero"],
)
def test_without_tangents_it_is_nearest_neighbours(X, y, queries, weights, no_tangents):
    known = y != -1
    plain = KNeighborsClassifier(3, weights=weights).fit(X[known], y[known])
    for sides in ("one", "two"):
        model = TangentDistanceClassifier(3, weights=weights, sides=sides, **no_tangents)
        model.fit(X, y)
        # Planes of no dimension are points: Euclidean distances, and scikit-learn's votes.
        assert_allclose(model.kneighbors(queries)[0], plain.kneighbors(queries)[0])
        assert_allclose(model.predict_proba(queries), plain.predict_proba(queries))
        assert_array_equal(model.predict(queries), plain.predict(queries))


def test_rows_of_fit_vote_for_themselves(X, y):
    known = y != -1
    model = TangentDistanceClassifier(5, tangent_source=constant_direction).fit(X, y)
    # Distance 0 outweighs all other votes, wherever on its plane the row is.
    assert_array_equal(model.predict_proba(X[known]).max(1), 1)
    assert_array_equal(model.predict(X[known]), y[known])


@pytest.mark.parametrize("sides", ["one", "two"])
def test_a_known_invariance_is_one(X, y, queries, sides):
    model = TangentDistanceClassifier(
        3, tangent_source=constant_direction, sides=sides, n_candidates=None
    ).fit(X, y)
    offset = np.linspace(-50, 50, len(queries))[:, np.newaxis]
    distances, index = model.kneighbors(queries)
    moved_distances, moved_index = model.kneighbors(queries + offset)
    # Moving along the direction that all rows share leaves all distances.
    assert_allclose(moved_distances, distances, rtol=1e-8)
    assert_array_equal(moved_index, index)


def test_the_second_side_takes_rows_nearer(X, y, queries):
    distances = [
        TangentDistanceClassifier(
            3,
            sides=sides,
            n_tangents=n_tangents,
            tangent_source=("local_pca", 6),
            n_candidates=None,
        )
        .fit(X, y)
        .kneighbors(queries)[0]
        for sides, n_tangents in (("two", 2), ("one", 2), ("one", 0))
    ]
    # Minima over more and more points: two-sided <= one-sided <= Euclidean.
    assert (distances[0] <= distances[1] * (1 + 1e-12)).all()
    assert (distances[1] <= distances[2] * (1 + 1e-12)).all()


def test_local_pca_is_that_of_all_rows(X, y):
    model = TangentDistanceClassifier(1, n_tangents=3, tangent_source=("local_pca", 8)).fit(X, y)
    expected = local_pca_tangents(X, 3, n_neighbors=8).directions[y != -1]
    # Unlabelled rows are neighbours, too. Bases differ by a rotation; projections do not.
    assert_allclose(
        model.bases_.transpose(0, 2, 1) @ model.bases_,
        expected.transpose(0, 2, 1) @ expected,
        atol=1e-10,
    )
    alone = TangentDistanceClassifier(1, n_tangents=3, tangent_source=("local_pca", 8)).fit(
        X[y != -1], y[y != -1]
    )
    # Without the unlabelled ones the planes are others.
    assert not np.allclose(alone.bases_, model.bases_, atol=0.1)


def test_an_encoder_is_cloned_and_fitted_to_all_rows(X, y):
    encoder = ContractiveAutoEncoder(5, max_iter=5, random_state=0)
    model = TangentDistanceClassifier(1, tangent_source=encoder, n_tangents=2).fit(X, y)
    # What the user passed is left as it was.
    assert not hasattr(encoder, "weights_")
    alone = clone(encoder).fit(X)
    # The same training on the same rows, labelled or not.
    assert_array_equal(model.encoder_.transform(X), alone.transform(X))
    directions = tangents(alone, X[y != -1], 2).directions
    projected = directions @ model.bases_.transpose(0, 2, 1) @ model.bases_
    # In the units of the data, although the encoder has standardised the columns.
    assert_allclose(projected, directions, atol=1e-10)


@pytest.mark.parametrize("sides", ["one", "two"])
def test_a_frozen_encoder_is_taken_as_it_is(X, y, queries, sides):
    encoder = AutoEncoder(5, max_iter=5, random_state=0).fit(X)
    model = TangentDistanceClassifier(
        1, tangent_source=FrozenEstimator(encoder), n_tangents=2, sides=sides
    )
    # Clones, as in a grid search, keep it.
    model = clone(model).fit(X, y)
    assert model.encoder_ is encoder
    given = TangentDistanceClassifier(
        1, tangent_source=lambda rows: tangents(encoder, rows, 2).directions, sides=sides
    ).fit(X, y)
    # Its tangents are those that diagnostics finds.
    assert_allclose(model.kneighbors(queries)[0], given.kneighbors(queries)[0], rtol=1e-9)


def test_a_stack_is_an_encoder(X, y, queries):
    stack = StackedAutoEncoder((6, 4), max_iter=2, random_state=0)
    model = TangentDistanceClassifier(1, tangent_source=stack, n_tangents=2).fit(X, y)
    # The Jacobian of the top code; a stack that was not fitted becomes one that is.
    assert model.encoder_.n_features_in_ == N_FEATURES
    assert model.kneighbors(queries)[0].shape == (len(queries), 1)


@pytest.mark.parametrize("sides", ["one", "two"])
def test_automatic_numbers_leave_a_distance(y, sides):
    for n_features in (1, 2, 3, 4, 9):
        X = np.random.default_rng(0).normal(size=(len(y), n_features))
        model = TangentDistanceClassifier(sides=sides).fit(X, y)
        # Planes that fill the space would be at distance 0 of each other, all of them.
        assert model.n_tangents_ * (2 if sides == "two" else 1) < n_features
        assert (model.kneighbors(X[y == -1])[0] > 0).all()


def test_forms_of_data_do_not_matter(X, y, queries):
    model = TangentDistanceClassifier(2, n_tangents=2, sides="two").fit(X, y)
    distances, _ = model.kneighbors(queries)
    scattered = clone(model).fit(sparse.csr_array(X), y)
    # Sparse rows are the same rows.
    assert_allclose(scattered.kneighbors(sparse.csr_array(queries))[0], distances, rtol=1e-9)
    single = clone(model).fit(X.astype(np.float32), y)
    found = single.kneighbors(queries.astype(np.float32))
    # float32 in, float32 out, and the same up to its rounding.
    assert found[0].dtype == np.float32
    assert_allclose(found[0], distances, rtol=1e-3)
    whole = np.random.default_rng(3).integers(0, 200, size=X.shape, dtype=np.uint8)
    directions = TangentDistanceClassifier(1, tangent_source=known_directions)
    # Integers are numbers: directions of them are not cut to integers.
    assert_allclose(
        directions.fit(whole, y).bases_, directions.fit(whole.astype(float), y).bases_, atol=1e-4
    )


def test_a_pickled_model_predicts_the_same(X, y, queries):
    model = TangentDistanceClassifier(2, n_tangents=2, sides="two").fit(X, y)
    again = pickle.loads(pickle.dumps(model))
    # Fitted state is arrays and a source made of arrays.
    assert_array_equal(again.predict_proba(queries), model.predict_proba(queries))


def test_classes_may_be_strings(X, y, queries):
    names = np.array(["one", "two", "three", "?"])[y]
    model = TangentDistanceClassifier(n_tangents=1, unlabelled="?").fit(X, names)
    numbers = TangentDistanceClassifier(n_tangents=1).fit(X, y)
    # Sorted, without that for an unknown class.
    assert_array_equal(model.classes_, ["one", "three", "two"])
    # The names of the same predictions.
    assert_array_equal(
        model.predict(queries), np.array(["one", "two", "three"])[numbers.predict(queries)]
    )


def test_score_leaves_unlabelled_rows_out(X, y):
    model = TangentDistanceClassifier(n_tangents=1).fit(X[:60], y[:60])
    known = y != -1
    right = model.predict(X[known]) == y[known]
    weight = np.arange(len(y)) + 1.0
    # The part of the labelled rows, by number or by weight.
    assert model.score(X, y) == pytest.approx(right.mean())
    assert model.score(X, y, weight) == pytest.approx(np.average(right, weights=weight[known]))
    with pytest.raises(ValueError, match="No row is labelled"):
        # A part of nothing.
        model.score(X, np.full(len(y), -1))


def test_numbers_of_tangents_can_be_searched():
    generator = np.random.default_rng(0)
    y = np.arange(90) % 3
    # Three classes, each a line along (1, ..., 1), which is much longer than they are apart.
    X = generator.normal(size=(3, N_FEATURES))[y] + 0.1 * generator.normal(size=(90, N_FEATURES))
    X = X + 30 * generator.normal(size=(90, 1))
    model = TangentDistanceClassifier(tangent_source=constant_direction)
    search = GridSearchCV(model, {"n_tangents": [0, 1]}, cv=3).fit(X, y)
    plain = KNeighborsClassifier(weights="distance")
    scores = search.cv_results_["mean_test_score"]
    # None at all are plain nearest neighbours, in every fold.
    assert scores[0] == pytest.approx(cross_val_score(plain, X, y, cv=3).mean())
    # Up to that direction, classes are points with little noise.
    assert scores[0] < 0.9
    assert scores[1] == 1


# Bad input


@pytest.mark.parametrize(
    ("parameters", "match"),
    [
        ({"n_tangents": 6}, "n_features=6 planes of more than 5 dimensions meet"),
        ({"n_tangents": 3, "sides": "two"}, "more than 2 dimensions meet.*sides='one'"),
        ({"n_tangents": 4, "tangent_source": ("local_pca", 4)}, "4 neighbours .*span 3 directions"),
        ({"tangent_source": ("local_pca", 2.5)}, "must be .'local_pca', n_neighbors"),
        ({"tangent_source": "encoder"}, "tangent_source"),
        ({"n_neighbors": 41}, r"only 40 rows \(n_samples=40\) are labelled.*fewer neighbours"),
        ({"sides": "two", "n_candidates": 4}, "n_candidates=4.*None for all rows"),
        ({"tangent_source": ContractiveAutoEncoder}, "is a class: pass an instance"),
        ({"tangent_source": FrozenEstimator(AutoEncoder(5))}, "not fitted. Fit it first"),
        ({"tangent_source": AutoEncoder(3), "n_tangents": 4}, "has 3 units. Use fewer tangents"),
        (
            {"tangent_source": StackedAutoEncoder((5, 3), max_iter=1), "n_tangents": 4},
            "has 3 units. Use fewer tangents",
        ),
        ({"tangent_source": SparseCoder(3)}, "has no Jacobian.*Use another encoder"),
        ({"tangent_source": make_pipeline(AutoEncoder(3))}, "no Jacobian that is known here"),
        ({"tangent_source": lambda X: X}, r"shape \(2, 6\).*needed"),
        ({"tangent_source": lambda X: X[:, np.newaxis, :3]}, r"\(2, n_tangents, 6\) are needed"),
        ({"tangent_source": lambda X: X[:, np.newaxis] / 0.0}, "NaN or infinity"),
        ({"tangent_source": known_directions, "n_tangents": 3}, "returns 2 directions"),
        ({"tangent_source": "svd"}, "tangent_source"),
        ({"device": "cuda:99"}, "device='cuda:99'"),
    ],
    # An address would be another one in each process.
    ids=lambda value: str(value).partition(" at 0x")[0],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_bad_parameters_name_the_remedy(X, y, parameters, match):
    # Before any work, but for a stack, whose units are known once it is fitted.
    with pytest.raises(ValueError, match=match):
        TangentDistanceClassifier(**parameters).fit(X, y)


def test_a_frozen_encoder_of_other_data_is_refused(X, y):
    encoder = FrozenEstimator(AutoEncoder(3, max_iter=1).fit(X[:, :4]))
    # Its tangents are in another space.
    with pytest.raises(ValueError, match="fitted on 4 features, but X has 6"):
        TangentDistanceClassifier(tangent_source=encoder).fit(X, y)


def test_bad_classes_name_the_remedy(X, y):
    model = TangentDistanceClassifier()
    with pytest.raises(ValueError, match="All labels are -1"):
        # Nobody votes.
        model.fit(X, np.full(len(y), -1))
    with pytest.raises(ValueError, match="one class only"):
        # Everybody votes the same.
        model.fit(X, np.where(y < 0, -1, 1))
    with pytest.raises(ValueError, match="mixes strings"):
        # What is unknown has to be told from what is known.
        model.fit(X, np.where(y < 0, -2, y.astype(str).astype(object)))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        # One class for each row.
        model.fit(X, y[:-1])


def test_a_failed_fit_leaves_the_model_as_it_was(X, y, queries):
    model = TangentDistanceClassifier(n_tangents=2).fit(X, y)
    before = model.predict_proba(queries)
    with pytest.raises(ValueError, match="n_tangents=6"):
        # Other classes, and a parameter that is refused after they were found.
        model.set_params(n_tangents=6).fit(X, np.where(y < 0, 7, y))
    assert_array_equal(model.set_params(n_tangents=2).predict_proba(queries), before)


def test_too_many_neighbours_are_refused(X, y, queries):
    model = TangentDistanceClassifier(n_tangents=1).fit(X, y)
    # As many as are labelled can be found, and no more.
    assert model.kneighbors(queries, 40)[1].shape == (len(queries), 40)
    with pytest.raises(ValueError, match="only 40 rows"):
        model.kneighbors(queries, 41)
    with pytest.raises(ValueError, match="n_neighbors=0 must be an integer"):
        model.kneighbors(queries, 0)


def test_memory_is_checked_before_it_is_taken(X, y, monkeypatch):
    monkeypatch.setattr("skae.engine.optimisation.devices.available_memory", lambda device: 1000)
    # The planes of all labelled rows are kept: 40 * 3 * 6 * 8 bytes.
    with pytest.raises(MemoryError, match=r"tangents of the labelled rows.*Use fewer tangents"):
        TangentDistanceClassifier(n_tangents=2).fit(X, y)


def test_a_frozen_encoder_sees_the_columns_that_it_knows(X, y):
    frame = pd.DataFrame(X, columns=list("abcdef"))
    encoder = AutoEncoder(4, max_iter=1, random_state=0).fit(frame)
    model = TangentDistanceClassifier(1, tangent_source=FrozenEstimator(encoder), n_tangents=2)
    with pytest.raises(ValueError, match=r"fitted on the columns.*same order"):
        # Their tangents would be those of other columns.
        model.fit(frame[list("fedcba")], y)
    model.fit(frame, y)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32])
@pytest.mark.parametrize("source", ["local_pca", known_directions])
def test_integers_have_the_tangents_of_floats(y, dtype, source):
    X = np.random.default_rng(0).integers(0, 200, size=(80, N_FEATURES))
    settings = {"tangent_source": source, "n_tangents": 2}
    model = TangentDistanceClassifier(3, **settings).fit(X.astype(dtype), y)
    exact = TangentDistanceClassifier(3, **settings).fit(X.astype(np.float64), y)
    # Small integers compute in float32, which holds all of them; none are cast to integers.
    assert model.rows_.dtype == (np.float64 if dtype == np.int64 else np.float32)
    rows = X[:5].astype(dtype)
    found, expected = model.source_.directions(rows), exact.source_.directions(X[:5] * 1.0)
    assert np.degrees(principal_angles(found, expected)).max() < 0.1
    assert_array_equal(model.predict(X.astype(dtype)), exact.predict(X * 1.0))
