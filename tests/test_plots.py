"""Displays draw exactly the arrays they store."""

import ast
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from scipy import sparse

import skae.plots
from skae import RBM, AutoEncoder
from skae.diagnostics import gradient_agreement
from skae.plots import (
    FilterDisplay,
    GradientAgreementDisplay,
    LossCurveDisplay,
    ReconstructionDisplay,
)

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    matplotlib.pyplot.close("all")


@pytest.fixture(scope="module", name="X")
def data():
    return np.random.default_rng(0).random((40, 12))


@pytest.fixture(scope="module")
def model(X):
    return AutoEncoder(5, max_iter=3, early_stopping=True, random_state=0).fit(X)


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
    with pytest.raises(ValueError, match="does not hold 12 features"):
        ReconstructionDisplay.from_estimator(model, X, image_shape=(4, 4))


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


def test_loss_curves(model):
    display = LossCurveDisplay.from_estimator(model)
    for line, curve in [
        (display.lines_["AutoEncoder"], model.loss_curve_),
        (display.validation_lines_["AutoEncoder"], model.validation_curve_),
    ]:
        # Epochs count from one, as n_iter_ and max_iter do.
        np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3])
        np.testing.assert_array_equal(line.get_ydata(), curve)


def test_loss_curves_of_several_models(model, X):
    other = AutoEncoder(2, max_iter=2, random_state=0).fit(X)
    display = LossCurveDisplay.from_estimators({"five": model, "two": other})
    assert list(display.lines_) == ["five", "two"]
    # Nothing was held out for the second model, so it has no dashed line.
    assert list(display.validation_lines_) == ["five"]
    labels = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert labels == ["five", "five, held out", "two"]


@pytest.mark.parametrize("measure", ["cosine", "sign_agreement"])
def test_gradient_agreement_is_drawn_against_the_size_of_the_weights(X, measure):
    rbm = RBM(3, persistent=False, max_iter=2, random_state=0).fit(X)
    settings = dict(n_gibbs_steps=(1, 3), scales=(0.5, 2), n_particles=50, growth=0.1)
    display = GradientAgreementDisplay.from_estimator(
        rbm, X, **settings, random_state=1, measure=measure
    )
    agreement = gradient_agreement(rbm, X, **settings, random_state=1)
    # One line for each rule, in the order of the diagnostic.
    assert tuple(display.lines_) == agreement.rules
    for line, values in zip(display.lines_.values(), getattr(agreement, measure), strict=True):
        # Arguments reach the diagnostic, and its arrays the axes.
        np.testing.assert_array_equal(line.get_ydata(), values)
        np.testing.assert_array_equal(line.get_xdata(), agreement.mean_weight)
    # The other measure can be drawn from what is stored, without computing again.
    other = {"cosine": "sign_agreement", "sign_agreement": "cosine"}[measure]
    drawn = display.plot(measure=other).lines_["cd_3"].get_ydata()
    np.testing.assert_array_equal(drawn, getattr(agreement, other)[4])


def test_an_unknown_measure_is_named():
    display = GradientAgreementDisplay(("pcd",), [1.0], [[1.0]], [[1.0]])
    # A wrong name would otherwise end as an AttributeError, or draw another attribute.
    with pytest.raises(ValueError, match="measure='rules' must be one of 'cosine'"):
        display.plot(measure="rules")


@pytest.mark.parametrize(
    "display",
    [
        FilterDisplay(np.ones((2, 2, 2))),
        ReconstructionDisplay(np.ones((2, 2, 2)), np.zeros((2, 2, 2))),
        LossCurveDisplay({"a": [2.0, 1.0]}, {}),
        GradientAgreementDisplay(("pcd",), [1.0, 2.0], [[1.0, 0.5]], [[1.0, 0.9]]),
    ],
    ids=lambda display: type(display).__name__,
)
def test_plot_draws_into_the_axes_given_and_returns_itself(display):
    figure, axes = matplotlib.pyplot.subplots(1, 2)
    assert display.plot(axes[1]) is display
    assert display.ax_ is axes[1]
    assert display.figure_ is figure
    assert axes[1].has_data()
    assert not axes[0].has_data()


def test_missing_matplotlib_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r'pip install "skae\[plot\]"'):
        LossCurveDisplay({"a": [1.0]}, {}).plot()


def test_plots_import_neither_matplotlib_nor_estimators_nor_engine():
    body = ast.parse(Path(skae.plots.__file__).read_text()).body
    names = [a.name for n in body if isinstance(n, ast.Import) for a in n.names]
    names += [n.module for n in body if isinstance(n, ast.ImportFrom)]
    # A model can be looked at on a machine without matplotlib; arrows point downwards.
    assert not [n for n in names if n.startswith(("matplotlib", "skae.estimators", "skae.engine"))]
