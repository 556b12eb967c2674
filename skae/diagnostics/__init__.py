"""What a fitted model has become: functions on arrays and estimators that return arrays."""

from skae.diagnostics.chains import effective_sample_size, potential_scale_reduction
from skae.diagnostics.columns import (
    ColumnErrors,
    ColumnLaw,
    UnitWeights,
    column_laws,
    reconstruction_errors,
    unit_weights,
)
from skae.diagnostics.jacobians import (
    jacobian_norms,
    jacobian_products,
    jacobian_spectrum,
    local_rank,
)
from skae.diagnostics.learning_rules import GradientAgreement, gradient_agreement
from skae.diagnostics.likelihoods import ParzenLikelihood, parzen_log_likelihood
from skae.diagnostics.samples import SampleComparison, compare_samples
from skae.diagnostics.tangent_planes import (
    TangentDefects,
    Tangents,
    local_pca_tangents,
    principal_angles,
    tangent_defects,
    tangents,
)
from skae.diagnostics.units import active_units, chart_overlap, constant_units, saturation

__all__ = [
    "ColumnErrors",
    "ColumnLaw",
    "GradientAgreement",
    "ParzenLikelihood",
    "SampleComparison",
    "TangentDefects",
    "Tangents",
    "UnitWeights",
    "active_units",
    "chart_overlap",
    "column_laws",
    "compare_samples",
    "constant_units",
    "effective_sample_size",
    "gradient_agreement",
    "jacobian_norms",
    "jacobian_products",
    "jacobian_spectrum",
    "local_pca_tangents",
    "local_rank",
    "parzen_log_likelihood",
    "potential_scale_reduction",
    "principal_angles",
    "reconstruction_errors",
    "saturation",
    "tangent_defects",
    "tangents",
    "unit_weights",
]
