"""Estimators: the scikit-learn face."""
