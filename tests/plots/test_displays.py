"""What all displays have in common."""

import ast
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

import skae.plots
from skae.diagnostics import ColumnLaw
from skae.plots import (
    CodeDisplay,
    FilterDisplay,
    GradientAgreementDisplay,
    LossCurveDisplay,
    ReconstructionDisplay,
    ReconstructionErrorDisplay,
    SampleColumnDisplay,
    SaturationDisplay,
    SpectrumDisplay,
    TangentDisplay,
    TangentWalkDisplay,
    UnitWeightDisplay,
)

LAW = ColumnLaw("a", None, ("x", "y"), np.array([[0.5, 0.5], [1, 0]]), np.array([0.5]), "texts")


@pytest.mark.parametrize(
    "display",
    [
        FilterDisplay(np.ones((2, 2, 2))),
        ReconstructionDisplay(np.ones((2, 2, 2)), np.zeros((2, 2, 2))),
        LossCurveDisplay({"a": [2.0, 1.0]}, {}),
        GradientAgreementDisplay(("pcd",), [1.0, 2.0], [[1.0, 0.5]], [[1.0, 0.9]]),
        SaturationDisplay({"a": np.array([[0.0, 0.5]])}),
        SpectrumDisplay({"a": np.array([[2.0, 1.0]])}),
        TangentDisplay(np.ones((1, 2, 2)), {"a": np.ones((1, 1, 2, 2))}),
        TangentWalkDisplay(np.ones((1, 1, 2, 2, 2)), np.array([0.0, 1.0])),
        CodeDisplay(np.ones((2, 2)), ("unit 0", "unit 1"), np.array(["a", "b"]), "kind"),
        UnitWeightDisplay(np.array([3]), np.array([[1.0, -2.0]]), ["a", "b"]),
        ReconstructionErrorDisplay(["a", "b"], {"model": np.array([0.5, 1.0])}),
        SampleColumnDisplay([LAW], ("samples",)),
    ],
    ids=lambda display: type(display).__name__,
)
def test_plot_draws_into_the_axes_given_and_returns_itself(display):
    figure, axes = plt.subplots(1, 2)
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
