"""What a fitted model has become: functions on arrays and estimators that return arrays."""

from skae.diagnostics._codes import constant_units, saturation
from skae.diagnostics._gradient_agreement import GradientAgreement, gradient_agreement
from skae.diagnostics._jacobians import jacobian_norms

__all__ = [
    "GradientAgreement",
    "constant_units",
    "gradient_agreement",
    "jacobian_norms",
    "saturation",
]
