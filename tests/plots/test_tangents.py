"""Rows stand beside their own tangents, each on its scale."""

from itertools import pairwise

import numpy as np
import pytest
from scipy import sparse

from skae import AutoEncoder
from skae.diagnostics import local_pca_tangents, tangents
from skae.plots import TangentDisplay


def left_edges(images):
    return [image.get_extent()[0] for image in images]


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array])
def test_tangents_of_an_encoder(model, X, container):
    display = TangentDisplay.from_estimator(
        model, container(X), n_tangents=2, n_images=3, image_shape=(3, 4)
    )
    np.testing.assert_array_equal(display.inputs.reshape(3, 12), X[:3])
    found = display.directions["AutoEncoder"]
    # Those of the diagnostic, for the rows that are drawn.
    expected = tangents(model, X[:3], 2).directions
    np.testing.assert_allclose(found.reshape(3, 2, 12), expected, atol=1e-12)

    for number, (image, of_row) in enumerate(
        zip(display.input_images_, display.tangent_images_["AutoEncoder"], strict=True)
    ):
        np.testing.assert_array_equal(image.get_array(), display.inputs[number])
        # One grey scale for all rows, or a pale one would look like the others.
        assert image.get_clim() == (display.inputs.min(), display.inputs.max())
        for drawn, direction in zip(of_row, found[number], strict=True):
            np.testing.assert_allclose(drawn.get_array(), direction / np.abs(direction).max())
            # Symmetric limits: zero has the middle colour.
            assert drawn.get_clim() == (-1, 1)
            # A tangent stands in the line of its row, right of it.
            assert drawn.get_extent()[2:] == image.get_extent()[2:]
            assert drawn.get_extent()[0] > image.get_extent()[1]


def test_images_do_not_overlap_and_keep_their_shape(model, X):
    display = TangentDisplay.from_estimator(
        model, X, n_tangents=3, n_images=2, image_shape=(3, 4), name="code"
    )
    line = [display.input_images_[0], *display.tangent_images_["code"][0]]
    for image, following in pairwise(line):
        assert image.get_extent()[1] < following.get_extent()[0]
    left, right, bottom, top = line[0].get_extent()
    # Pixels are squares of size 1, and y grows downwards.
    assert (right - left, bottom - top) == (4, 3)
    # The gap between rows and tangents is wider than that between tangents.
    gaps = np.diff(left_edges(line))
    assert gaps[0] > gaps[1] == pytest.approx(gaps[2])
    # All images lie inside of the axes.
    assert display.ax_.get_xlim()[1] == pytest.approx(line[-1].get_extent()[1])


def test_sources_stand_side_by_side(model, X):
    def local(rows):
        return local_pca_tangents(X, 3, n_neighbors=9, query=rows).directions

    display = TangentDisplay.from_sources(
        {"code": model, "local PCA": local}, X, n_tangents=2, n_images=4, image_shape=(3, 4)
    )
    np.testing.assert_array_equal(display.directions["code"].reshape(4, 2, 12),
                                  tangents(model, X[:4], 2).directions)  # fmt: skip
    # Of three directions the first two were asked for.
    np.testing.assert_array_equal(
        display.directions["local PCA"].reshape(4, 2, 12), local(X[:4])[:, :2]
    )
    titles = [text.get_text() for text in display.ax_.texts]
    assert titles == ["input", "code", "local PCA"]
    for name in ("code", "local PCA"):
        (title,) = [text for text in display.ax_.texts if text.get_text() == name]
        first, last = display.tangent_images_[name][0][0], display.tangent_images_[name][0][-1]
        # A title is centred above its own columns.
        middle = (first.get_extent()[0] + last.get_extent()[1]) / 2
        assert title.get_position()[0] == pytest.approx(middle)


def test_local_pca_of_rows_among_others(X):
    display = TangentDisplay.from_local_pca(
        X[:30], query=X[30:], n_tangents=2, n_neighbors=9, n_images=3, image_shape=(3, 4)
    )
    np.testing.assert_array_equal(display.inputs.reshape(3, 12), X[30:33])
    # Neighbours come from the first argument, the rows to draw from the query.
    expected = local_pca_tangents(X[:30], 2, n_neighbors=9, query=X[30:33]).directions
    np.testing.assert_array_equal(
        display.directions["local PCA"].reshape(3, 2, 12), expected.astype(X.dtype)
    )


def test_without_a_query_the_rows_themselves_are_drawn(X):
    display = TangentDisplay.from_local_pca(X, n_tangents=2, n_images=3, image_shape=(3, 4))
    # A row's neighbours are found among all rows, not among those that are drawn.
    expected = local_pca_tangents(X, 2).directions[:3]
    np.testing.assert_allclose(
        np.abs(display.directions["local PCA"].reshape(3, 2, 12)), np.abs(expected), atol=1e-8
    )


class KnowsTangents:
    """What has tangents of its own, as a `ManifoldTangentClassifier` has: two columns."""

    def tangents(self, X):
        return np.broadcast_to(np.eye(12)[:2], (len(X), 2, 12))


def test_what_has_tangents_of_its_own_shows_them(X):
    display = TangentDisplay.from_estimator(KnowsTangents(), X, n_images=3, image_shape=(3, 4))
    # Five were asked for, but there are two.
    np.testing.assert_array_equal(
        display.directions["KnowsTangents"].reshape(3, 2, 12), KnowsTangents().tangents(X[:3])
    )


def test_rows_of_a_data_frame(X):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=[f"pixel {i}" for i in range(12)])
    model = AutoEncoder(5, max_iter=1, random_state=0).fit(frame)
    display = TangentDisplay.from_estimator(model, frame, n_images=2, image_shape=(3, 4))
    np.testing.assert_array_equal(display.inputs.reshape(2, 12), X[:2])


def test_a_tangent_of_zeros_is_drawn_as_zeros():
    display = TangentDisplay(np.ones((1, 2, 2)), {"none": np.zeros((1, 1, 2, 2))}).plot()
    # Dividing by its largest value would make it NaN.
    np.testing.assert_array_equal(display.tangent_images_["none"][0][0].get_array(), 0)


def test_directions_of_another_shape_are_refused(X):
    # One direction for each row is easily returned without the axis of directions.
    with pytest.raises(ValueError, match=r"directions of 'mine' have shape \(2, 12\).*n_direct"):
        TangentDisplay.from_sources({"mine": lambda rows: rows}, X, n_images=2, image_shape=(3, 4))


def test_more_tangents_than_the_code_has_are_refused(model, X):
    with pytest.raises(ValueError, match="at most 5"):
        TangentDisplay.from_estimator(model, X, n_tangents=6, image_shape=(3, 4))
