"""What a fitted model has become: functions on arrays and estimators that return arrays."""

from skae.diagnostics._charts import active_units, chart_overlap
from skae.diagnostics._codes import constant_units, saturation
from skae.diagnostics._gradient_agreement import GradientAgreement, gradient_agreement
from skae.diagnostics._jacobians import jacobian_norms, jacobian_products
from skae.diagnostics._spectra import (
    TangentDefects,
    jacobian_spectrum,
    local_rank,
    tangent_defects,
)
from skae.diagnostics._tangents import Tangents, local_pca_tangents, principal_angles, tangents

__all__ = [
    "GradientAgreement",
    "TangentDefects",
    "Tangents",
    "active_units",
    "chart_overlap",
    "constant_units",
    "gradient_agreement",
    "jacobian_norms",
    "jacobian_products",
    "jacobian_spectrum",
    "local_pca_tangents",
    "local_rank",
    "principal_angles",
    "saturation",
    "tangent_defects",
    "tangents",
]
