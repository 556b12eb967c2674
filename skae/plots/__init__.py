"""Pictures of fitted models, as Display objects that draw the arrays they store.

``from_estimator`` computes, draws and returns the display; ``plot`` draws it again,
for example into another axes. matplotlib is imported only when something is drawn:
``pip install "skae[plot]"``.
"""

from skae.plots._curves import LossCurveDisplay
from skae.plots._gradient_agreement import GradientAgreementDisplay
from skae.plots._images import FilterDisplay, ReconstructionDisplay
from skae.plots._saturation import SaturationDisplay
from skae.plots._spectra import SpectrumDisplay
from skae.plots._tangents import TangentDisplay
from skae.plots._walks import TangentWalkDisplay

__all__ = [
    "FilterDisplay",
    "GradientAgreementDisplay",
    "LossCurveDisplay",
    "ReconstructionDisplay",
    "SaturationDisplay",
    "SpectrumDisplay",
    "TangentDisplay",
    "TangentWalkDisplay",
]
