"""Sparse codes: the problem, its solvers, dictionaries, and encoders that predict codes."""

from skae.engine.sparse import (  # noqa: F401 - their solvers register themselves
    feature_sign,
    groups,
    homotopy,
)
