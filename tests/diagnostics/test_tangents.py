"""Tangents, learned and local, on manifolds whose tangents are known."""

import numpy as np
import pytest
import scipy.linalg
from scipy import sparse
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from skae import AutoEncoder, ContractiveAutoEncoder, SparseCoder
from skae.diagnostics import local_pca_tangents, principal_angles, tangents


@pytest.fixture(name="X")
def data(skewed_columns):
    return skewed_columns


@pytest.fixture(scope="module")
def circle():
    """Rows on an ellipse in a plane of a space of ten dimensions, and the unit tangents."""
    generator = np.random.default_rng(0)
    angle = 2 * np.pi * np.arange(300) / 300
    plane = np.linalg.qr(generator.normal(size=(10, 2)))[0].T * [[3], [2]]
    rows = np.column_stack([np.cos(angle), np.sin(angle)]) @ plane
    slopes = np.column_stack([-np.sin(angle), np.cos(angle)]) @ plane
    return rows, (slopes / np.linalg.norm(slopes, axis=1, keepdims=True))[:, np.newaxis]


def projections(directions):
    """Of each row, onto the span of its orthonormal directions: no signs, no order."""
    return directions.transpose(0, 2, 1) @ directions


def test_tangents_are_leading_singular_vectors(fitted, of, X, jacobians_by_autograd):
    _, values, right = np.linalg.svd(jacobians_by_autograd(fitted, X, of))
    found = tangents(fitted, X, 2, of=of)
    np.testing.assert_allclose(found.singular_values, values[:, :2], rtol=1e-7)
    standardised = found.directions / fitted.columns_.scale
    # For what the network sees they are orthonormal ...
    np.testing.assert_allclose(
        standardised @ standardised.transpose(0, 2, 1), np.broadcast_to(np.eye(2), (30, 2, 2)),
        atol=1e-7,
    )  # fmt: skip
    # ... and span what the decomposition of the Jacobian by autograd gives.
    np.testing.assert_allclose(projections(standardised), projections(right[:, :2]), atol=1e-6)


def test_a_step_along_a_tangent_moves_the_code_by_the_singular_value(fitted, X):
    directions, values = tangents(fitted, X, 3)
    step = 1e-5
    for number in range(3):
        ahead = fitted.transform(X + step * directions[:, number])
        behind = fitted.transform(X - step * directions[:, number])
        speed = np.linalg.norm(ahead - behind, axis=1) / (2 * step)
        # J u = s v with a unit vector v, also for a step in the units of the data.
        np.testing.assert_allclose(speed, values[:, number], rtol=1e-5, atol=1e-8)


def test_tangents_of_a_linear_code_span_its_filters(X):
    model = AutoEncoder(3, activation="linear", max_iter=5, random_state=0).fit(X)
    directions = tangents(model, X, 3).directions / model.columns_.scale
    filters = np.broadcast_to(model.components_, (30, 3, 6))
    # The Jacobian is the same matrix of weights everywhere, whose rows span all tangents.
    np.testing.assert_allclose(principal_angles(directions, filters), 0, atol=1e-6)


def test_trained_tangents_follow_a_circle(circle):
    rows, truth = circle
    model = ContractiveAutoEncoder(
        40, contraction=0.1, learning_rate=0.01, max_iter=100, random_state=0
    ).fit(rows)
    angles = np.degrees(principal_angles(tangents(model, rows, 1).directions, truth))
    # What the contraction leaves is the direction along which the data vary. A direction drawn
    # at random in ten dimensions is about 78 degrees off.
    assert np.median(angles) < 10


def test_tangents_of_a_large_jacobian_are_accurate(digits):
    X = digits[0][:20].repeat(3, axis=1)  # too many columns for a decomposition at once
    model = ContractiveAutoEncoder(150, max_iter=10, random_state=0).fit(
        digits[0][:500].repeat(3, 1)
    )
    found = tangents(model, X.astype(np.float32), 3)
    h = model.transform(X)
    jacobians = (h * (1 - h))[:, :, np.newaxis] * model.components_
    _, values, right = np.linalg.svd(jacobians)
    np.testing.assert_allclose(found.singular_values, values[:, :3], rtol=1e-3)
    separated = values[:, 3] < 0.95 * values[:, 2]
    angles = np.degrees(principal_angles(found.directions, right[:, :3].astype(np.float32)))
    # Where the spectrum falls after the third, an iteration finds the same span as the
    # decomposition of diag(h (1 - h)) W does.
    assert separated.sum() > 5
    assert angles[separated].max() < 2


def test_tangents_keep_the_dtype_and_take_sparse_rows(X):
    model = AutoEncoder(4, max_iter=2, random_state=0).fit(X)
    # float32 in, float32 out, for both arrays.
    assert {array.dtype for array in tangents(model, X.astype(np.float32), 2)} == {
        np.dtype(np.float32)
    }
    found = tangents(model, sparse.csr_matrix(X), 2)
    # The same numbers in another format.
    for array, expected in zip(found, tangents(model, X, 2), strict=True):
        np.testing.assert_allclose(array, expected, rtol=1e-10)


def test_more_tangents_than_the_code_can_have_are_refused(X):
    narrow = AutoEncoder(3, max_iter=1, random_state=0).fit(X)
    wide = AutoEncoder(9, max_iter=1, random_state=0).fit(X)
    for model, most in ((narrow, 3), (wide, 6)):
        for of in ("encoder", "reconstruction"):
            # The rank is at most the number of features, and at most that of units, through
            # which reconstructions go, too.
            with pytest.raises(ValueError, match=f"at most {most} tangents"):
                tangents(model, X, most + 1, of=of)
            assert tangents(model, X, most, of=of).directions.shape == (30, most, 6)
    for n_tangents in (0, 2.5):
        # A plane has a whole number of dimensions.
        with pytest.raises(ValueError, match="n_tangents="):
            tangents(narrow, X, n_tangents)
    # Codes that solve a problem have no Jacobian of which the engine knows.
    with pytest.raises(ValueError, match="SparseCoder has no Jacobian"):
        tangents(SparseCoder(4, max_iter=2, random_state=0).fit(X), X, 2)


def test_local_pca_finds_the_tangents_of_a_circle(circle):
    rows, truth = circle
    directions, values = local_pca_tangents(rows, 2, n_neighbors=9)
    # Neighbours on both sides are a chord whose direction is the tangent, by symmetry, but for
    # the change of curvature along the ellipse.
    assert np.degrees(principal_angles(directions[:, :1], truth)).max() < 0.5
    # Across the tangent there is the curvature alone, of second order.
    assert (values[:, 1] < 0.1 * values[:, 0]).all()


def test_local_pca_finds_a_linear_subspace():
    generator = np.random.default_rng(1)
    basis = generator.normal(size=(3, 20))
    X = generator.normal(size=(60, 3)) @ basis + 5
    directions, values = local_pca_tangents(X, 4, n_neighbors=10)
    planes = np.broadcast_to(basis, (60, 3, 20))
    # Differences of rows of an affine subspace lie in its directions, which do not change.
    np.testing.assert_allclose(principal_angles(directions[:, :3], planes), 0, atol=1e-7)
    # There is nothing in a fourth direction, which is orthogonal to the others all the same.
    np.testing.assert_allclose(values[:, 3], 0, atol=1e-12)
    gram = directions @ directions.transpose(0, 2, 1)
    np.testing.assert_allclose(gram, np.broadcast_to(np.eye(4), gram.shape), atol=1e-12)


@pytest.mark.parametrize("with_query", [False, True])
def test_local_pca_agrees_with_scikit_learn(with_query, monkeypatch):
    generator = np.random.default_rng(2)
    X, query = generator.normal(size=(50, 6)), generator.normal(size=(7, 6))
    # Three rows at a time.
    monkeypatch.setattr("skae.engine.optimisation.sources._BLOCK", 8 * 8 * 6 * 3)
    wanted = query if with_query else X
    found = local_pca_tangents(X, 2, n_neighbors=8, query=query if with_query else None)
    nearest = NearestNeighbors(n_neighbors=8).fit(X).kneighbors(wanted, return_distance=False)
    pcas = [PCA(2).fit(X[index]) for index in nearest]
    # Principal components are the right singular vectors of centred rows, and the explained
    # variance is the square of the standard deviation along them.
    components = np.stack([pca.components_ for pca in pcas])
    np.testing.assert_allclose(projections(found.directions), projections(components), atol=1e-9)
    variances = np.stack([pca.explained_variance_ for pca in pcas])
    np.testing.assert_allclose(found.singular_values**2, variances, rtol=1e-9)


def test_local_pca_takes_sparse_rows_and_keeps_the_dtype():
    X = np.random.default_rng(3).integers(0, 3, size=(30, 5))
    dense = local_pca_tangents(X.astype(np.float64), 2, n_neighbors=6)
    single = local_pca_tangents(X.astype(np.uint8), 2, n_neighbors=6)
    # Small integers are exact in float32, and trained on in float32 as well.
    assert {array.dtype for array in single} == {np.dtype(np.float32)}
    assert {array.dtype for array in dense} == {np.dtype(np.float64)}
    compressed = local_pca_tangents(sparse.csr_matrix(X.astype(np.float64)), 2, n_neighbors=6)
    # The same numbers have the same neighbours in either format, but for ties in distance, which
    # none of these first rows has at its edge.
    edges = NearestNeighbors(n_neighbors=7).fit(X).kneighbors(X)[0]
    clear = edges[:, 6] > edges[:, 5] + 1e-9
    assert clear.sum() >= 3
    np.testing.assert_allclose(
        compressed.singular_values[clear], dense.singular_values[clear], atol=1e-9
    )


def test_equal_neighbours_have_no_spread():
    X = np.full((12, 4), 2.0)
    X[6:] = 7.0
    directions, values = local_pca_tangents(X, 3, n_neighbors=5)
    # Six rows are the same, so nothing varies around them, and any plane is as good as another.
    np.testing.assert_array_equal(values, 0)
    gram = directions @ directions.transpose(0, 2, 1)
    np.testing.assert_allclose(gram, np.broadcast_to(np.eye(3), gram.shape), atol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(n_tangents=5, n_neighbors=5), "use n_neighbors=6 at least"),
        (dict(n_tangents=7), "ask for at most 6"),
        (dict(n_tangents=2, n_neighbors=31), "n_neighbors=30 at most"),
        (dict(n_tangents=0), "n_tangents=0 must be an integer"),
        (dict(n_tangents=1, n_neighbors=1), "n_neighbors=1 must be an integer of at least 2"),
        (dict(n_tangents=1, query=np.ones((2, 5))), "query has 5 columns, but X has 6"),
        (dict(n_tangents=1, query=np.full((2, 6), np.nan)), "query contains NaN"),
    ],
)
def test_impossible_neighbourhoods_are_refused(X, options, message):
    # Each message says what would be possible.
    with pytest.raises(ValueError, match=message):
        local_pca_tangents(X, **options)


def test_principal_angles_agree_with_scipy():
    generator = np.random.default_rng(4)
    first, second = generator.normal(size=(5, 3, 8)), generator.normal(size=(5, 2, 8))
    angles = principal_angles(first, second)
    for i in range(5):
        # scipy gives the same angles of one pair of planes, largest first.
        expected = scipy.linalg.subspace_angles(first[i].T, second[i].T)[::-1]
        np.testing.assert_allclose(angles[i], expected, atol=1e-10)
    # Planes do not depend on the basis that spans them, nor on which comes first.
    mixed = generator.normal(size=(5, 3, 3)) @ first
    np.testing.assert_allclose(principal_angles(second, mixed), angles, atol=1e-9)
    # Memory decides how many rows are compared at a time, and nothing else.
    assert principal_angles(first.astype(np.float32), second.astype(np.float32)).dtype == np.float32


def test_small_angles_are_not_lost_to_rounding():
    tilt = 1e-10
    first = np.array([[[1.0, 0.0, 0.0]]])
    second = np.array([[[np.cos(tilt), np.sin(tilt), 0.0]]])
    # The cosine of this angle is 1 in float64; its sine is not 0.
    np.testing.assert_allclose(principal_angles(first, second), [[tilt]], rtol=1e-6)


@pytest.mark.parametrize(
    "shape", [(2, 4), (3, 1, 4), (2, 1, 5), (2, 5, 4)], ids=["flat", "rows", "features", "many"]
)
def test_planes_that_cannot_be_compared_are_refused(shape):
    # Angles are between planes of one space, of which no more than 4 directions are independent.
    with pytest.raises(ValueError, match="Directions have shapes"):
        principal_angles(np.ones((2, 1, 4)), np.ones(shape))
