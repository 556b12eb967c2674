"""Curves of training."""

import numpy as np

from skae import AutoEncoder
from skae.plots import LossCurveDisplay


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
