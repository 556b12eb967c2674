"""Sparse codes: the problem, its solvers, dictionaries, and encoders that predict codes."""
