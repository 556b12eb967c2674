"""scikit-learn's classes from which estimators inherit, in one place.

scikit-learn has no annotations, and a class with an unknown base has an unknown constructor. What
type checkers are to know of these classes is in the stub beside this file.
"""

from sklearn.base import (
    BaseEstimator,
    ClassifierMixin,
    ClassNamePrefixFeaturesOutMixin,
    MetaEstimatorMixin,
    OneToOneFeatureMixin,
    OutlierMixin,
    RegressorMixin,
    TransformerMixin,
)

try:  # scikit-learn 1.9 and newer; experimental there
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ImportError:

    class CallbackSupportMixin:
        """Stands in where scikit-learn has no callbacks yet."""

    def with_callbacks(method):
        """Return the method as it is: there is nothing to tear down."""
        return method


__all__ = [
    "BaseEstimator",
    "CallbackSupportMixin",
    "ClassNamePrefixFeaturesOutMixin",
    "ClassifierMixin",
    "MetaEstimatorMixin",
    "OneToOneFeatureMixin",
    "OutlierMixin",
    "RegressorMixin",
    "TransformerMixin",
    "with_callbacks",
]
