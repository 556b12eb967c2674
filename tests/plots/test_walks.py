"""Walks start at the rows, go as far as they say, and are decoded where asked."""

import numpy as np
import pytest
from scipy import sparse

from skae.diagnostics import tangents
from skae.plots import TangentWalkDisplay

STEPS = (-1, 0, 2)


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array])
def test_straight_steps_have_the_length_they_claim(model, X, container):
    display = TangentWalkDisplay.from_estimator(
        model, container(X), steps=STEPS, n_tangents=2, n_images=4, image_shape=(3, 4),
        decode=False,
    )  # fmt: skip
    walks = display.walks.reshape(4, 2, 3, 12)
    # t = 0 is the row itself.
    np.testing.assert_allclose(walks[:, :, 1], np.broadcast_to(X[:4, None], (4, 2, 12)))
    directions = tangents(model, X[:4], 2).directions
    units = directions / np.linalg.norm(directions, axis=2, keepdims=True)
    # The length of a step is t in the units of the data, whatever the columns' scales.
    np.testing.assert_allclose(walks[:, :, 2] - walks[:, :, 1], 2 * units, atol=1e-12)
    np.testing.assert_allclose(walks[:, :, 0] - walks[:, :, 1], -units, atol=1e-12)


def test_decoded_steps_are_reconstructions(model, X):
    settings = dict(steps=STEPS, n_tangents=2, n_images=4, image_shape=(3, 4))
    straight = TangentWalkDisplay.from_estimator(model, X, decode=False, **settings)
    decoded = TangentWalkDisplay.from_estimator(model, X, **settings)
    # The same places, through the model.
    np.testing.assert_allclose(
        decoded.walks.reshape(-1, 12), model.reconstruct(straight.walks.reshape(-1, 12))
    )


def test_each_tangent_has_a_line(model, X):
    display = TangentWalkDisplay.from_estimator(
        model, X, steps=STEPS, n_tangents=2, n_images=2, image_shape=(3, 4), decode=False
    )
    grid = display.image_.get_array().filled(np.nan)
    # Two rows with two tangents, three steps, images of 3 x 4 with a line between neighbours.
    assert grid.shape == (4 * 4 - 1, 3 * 5 - 1)
    for image in range(2):
        for tangent in range(2):
            for step in range(3):
                top, left = 4 * (2 * image + tangent), 5 * step
                np.testing.assert_array_equal(
                    grid[top : top + 3, left : left + 4], display.walks[image, tangent, step]
                )
    assert [text.get_text() for text in display.ax_.texts] == ["t = -1", "0", "2"]
    for step, text in enumerate(display.ax_.texts):
        # Each label stands above the middle of its column.
        assert text.get_position()[0] == 5 * step + 1.5
    # The contrast is that of the rows, however far a straight step leaves their range.
    assert display.image_.get_clim() == (X[:2].min(), X[:2].max())


def test_given_directions_are_walked(model, X):
    directions = np.random.default_rng(0).normal(size=(40, 3, 12))
    directions[0, 1] = 0
    display = TangentWalkDisplay.from_estimator(
        model, X, steps=[0, 1], n_tangents=2, directions=directions, n_images=3,
        image_shape=(3, 4), decode=False,
    )  # fmt: skip
    walks = display.walks.reshape(3, 2, 2, 12)
    step = walks[:, :, 1] - walks[:, :, 0]
    lengths = np.linalg.norm(directions[:3, :2], axis=2, keepdims=True)
    lengths[0, 1] = 1
    # The first two of each row that is drawn, at unit length; one of zeros leads nowhere.
    np.testing.assert_allclose(step, directions[:3, :2] / lengths, atol=1e-12)


@pytest.mark.parametrize("shape", [(40, 12), (2, 1, 12), (40, 1, 11)])
def test_directions_that_do_not_fit_the_rows_are_refused(model, X, shape):
    # Without the axis of directions, for too few rows, of other features.
    with pytest.raises(ValueError, match=r"directions have shape .* at least 5 rows and 12 feat"):
        TangentWalkDisplay.from_estimator(model, X, directions=np.ones(shape), image_shape=(3, 4))
