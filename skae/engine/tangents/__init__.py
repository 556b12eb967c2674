"""Directions along which predictions and distances do not change."""
