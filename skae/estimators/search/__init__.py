"""Searches and ensembles whose models are trained together."""
