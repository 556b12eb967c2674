"""Filters and reconstructions are drawn exactly as they are stored."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from skae import AutoEncoder
from skae.plots import (
    FilterDisplay,
    ReconstructionDisplay,
    TangentDisplay,
    TangentWalkDisplay,
)


def test_filters_are_drawn_each_scaled_to_its_largest_weight(model):
    display = FilterDisplay.from_estimator(model, image_shape=(3, 4))
    np.testing.assert_array_equal(display.filters.reshape(5, 12), model.components_)

    grid = display.image_.get_array().filled(np.nan)
    # Five filters of 3 x 4 on a 2 x 3 grid, with a line between neighbours.
    assert grid.shape == (2 * 4 - 1, 3 * 5 - 1)
    for number, unit in enumerate(model.components_):
        top, left = 4 * (number // 3), 5 * (number % 3)
        drawn = grid[top : top + 3, left : left + 4]
        np.testing.assert_allclose(drawn, unit.reshape(3, 4) / np.abs(unit).max())
    # The lines between filters and the empty sixth place hold no value.
    assert np.isnan(grid[3]).all()
    assert np.isnan(grid[:, 4]).all()
    assert np.isnan(grid[4:, 10:]).all()
    # Symmetric limits: zero has the middle colour.
    assert display.image_.get_clim() == (-1, 1)


def test_first_filters_only(model):
    display = FilterDisplay.from_estimator(model, image_shape=(3, 4), n_filters=2)
    np.testing.assert_array_equal(display.filters.reshape(2, 12), model.components_[:2])


def test_a_filter_of_zeros_is_drawn_as_zeros():
    display = FilterDisplay(np.zeros((1, 2, 2))).plot()
    # Dividing by its largest weight would make it NaN.
    np.testing.assert_array_equal(display.image_.get_array(), np.zeros((2, 2)))


def test_square_images_are_inferred():
    model = AutoEncoder(3, max_iter=1, random_state=0).fit(np.eye(9))
    assert FilterDisplay.from_estimator(model).filters.shape == (3, 3, 3)


def test_image_shape_errors_name_the_remedy(model, X):
    with pytest.raises(ValueError, match=r"12 features.*image_shape=\(height, width\)"):
        FilterDisplay.from_estimator(model)
    # So do they where rows are no images: of a table.
    with pytest.raises(ValueError, match=r"no pixels. .* ReconstructionErrorDisplay"):
        ReconstructionDisplay.from_estimator(model, X)
    with pytest.raises(ValueError, match="does not hold 12 features"):
        ReconstructionDisplay.from_estimator(model, X, image_shape=(4, 4))


def test_tables_are_no_images():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"size": rng.random(20), "hue": rng.choice(["red", "blue"], size=20)})
    table["kind"] = rng.choice(["a", "b"], size=20)
    table["age"] = rng.random(20)
    model = AutoEncoder(2, max_iter=1, random_state=0).fit(table)
    # Four columns would fill a square.
    for draw in (
        lambda: FilterDisplay.from_estimator(model),
        lambda: ReconstructionDisplay.from_estimator(model, table),
        lambda: TangentDisplay.from_estimator(model, table),
        lambda: TangentWalkDisplay.from_estimator(model, table),
    ):
        with pytest.raises(ValueError, match=r"AutoEncoder was fitted on a table.*OutlierDisplay"):
            draw()


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array])
def test_inputs_lie_above_their_reconstructions(model, X, container):
    display = ReconstructionDisplay.from_estimator(
        model, container(X), image_shape=(3, 4), n_images=5, n_columns=3
    )
    np.testing.assert_array_equal(display.inputs.reshape(5, 12), X[:5])
    np.testing.assert_allclose(display.reconstructions.reshape(5, 12), model.reconstruct(X[:5]))

    grid = display.image_.get_array().filled(np.nan)
    # Two blocks (three images, then two), each of inputs above reconstructions.
    assert grid.shape == (4 * 4 - 1, 3 * 5 - 1)
    for number in range(5):
        top, left = 8 * (number // 3), 5 * (number % 3)
        np.testing.assert_array_equal(grid[top : top + 3, left : left + 4], display.inputs[number])
        np.testing.assert_array_equal(
            grid[top + 4 : top + 7, left : left + 4], display.reconstructions[number]
        )
    # One scale for all, or a loss of contrast would not show.
    drawn = np.concatenate([display.inputs, display.reconstructions])
    assert display.image_.get_clim() == (drawn.min(), drawn.max())


def test_reconstructions_of_a_data_frame(model, X):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=[f"pixel {i}" for i in range(12)])
    model = AutoEncoder(5, max_iter=1, random_state=0).fit(frame)
    display = ReconstructionDisplay.from_estimator(model, frame, image_shape=(3, 4), n_images=2)
    np.testing.assert_array_equal(display.inputs.reshape(2, 12), X[:2])
