"""Sparse coding and predictive sparse decomposition."""
