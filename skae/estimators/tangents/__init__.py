"""Classifiers that read the tangents of the data's manifold."""
