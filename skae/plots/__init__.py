"""Pictures of fitted models, as Display objects that draw the arrays they store.

``from_estimator`` computes, draws and returns the display; ``plot`` draws it again,
for example into another axes. matplotlib is imported only when something is drawn:
``pip install "skae[plot]"``.
"""

from skae.plots._curves import LossCurveDisplay
from skae.plots._gradient_agreement import GradientAgreementDisplay
from skae.plots._images import FilterDisplay, ReconstructionDisplay

__all__ = [
    "FilterDisplay",
    "GradientAgreementDisplay",
    "LossCurveDisplay",
    "ReconstructionDisplay",
]
