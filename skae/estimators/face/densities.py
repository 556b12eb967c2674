"""What estimators that know a density share: log Z, and the scale of their columns."""

from typing import NamedTuple

import numpy as np


class LogPartition(NamedTuple):
    """log Z of an energy, in nats.

    Attributes
    ----------
    value : float
        log of the sum (for real columns: integral in the units of the data) of
        exp(-E(x)) over all x.
    standard_error : float
        0 where it is exact.
    method : str
        "exact", "grid" or "ais".
    """

    value: float
    standard_error: float
    method: str


def log_volume(columns) -> float:
    """What a log-density of standardised columns exceeds that of the data by."""
    return float(np.log(columns.scale).sum())
