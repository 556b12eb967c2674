"""Pictures of fitted models, as Display objects that draw the arrays they store.

``from_estimator`` computes, draws and returns the display; ``plot`` draws it again,
for example into another axes. matplotlib is imported only when something is drawn, which
raises an ImportError where it is missing: ``pip install "skae[plot]"``.
"""

from skae.plots.codes import CodeDisplay, UnitWeightDisplay
from skae.plots.columns import ReconstructionErrorDisplay, SampleColumnDisplay
from skae.plots.curves import (
    GradientAgreementDisplay,
    LossCurveDisplay,
    SaturationDisplay,
    SpectrumDisplay,
)
from skae.plots.images import FilterDisplay, ReconstructionDisplay
from skae.plots.outliers import OutlierDisplay
from skae.plots.samples import SampleComparisonDisplay
from skae.plots.tangents import TangentDisplay, TangentWalkDisplay

__all__ = [
    "CodeDisplay",
    "FilterDisplay",
    "GradientAgreementDisplay",
    "LossCurveDisplay",
    "OutlierDisplay",
    "ReconstructionDisplay",
    "ReconstructionErrorDisplay",
    "SampleColumnDisplay",
    "SampleComparisonDisplay",
    "SaturationDisplay",
    "SpectrumDisplay",
    "TangentDisplay",
    "TangentWalkDisplay",
    "UnitWeightDisplay",
]
