"""What estimators that know a density share: log Z, the scale of their columns, mean scores."""

from typing import NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from skae._validation import check_weights
from skae._warnings import warn

# Annealed estimates are trusted if at least this part of the chains carries them.
_TRUSTED = 0.1


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
        "exact", "grid", "ais" or "trajectory".
    effective_chains : float or None
        How many of the chains carry an annealed estimate, (sum w)^2 / sum w^2 of their weights w;
        None where it is exact.
    """

    value: float
    standard_error: float
    method: str
    effective_chains: float | None = None


def log_volume(columns) -> float:
    """What a log-density of standardised columns exceeds that of the data by."""
    return float(np.log(columns.scale).sum())


def annealed_log_partition(
    name, estimate, n_chains, n_temperatures, volume, more="", method="ais"
) -> LogPartition:
    """Log Z by annealing, with a warning where few chains carry it.

    ``volume`` is of `log_volume`; ``more`` is another remedy to name.
    """
    trusted = estimate.effective_chains >= _TRUSTED * n_chains
    if not (trusted and np.isfinite(estimate.log_partition)):
        warn(
            f"log Z of this {name} rests on {estimate.effective_chains:.1f} of {n_chains} chains, "
            "so its standard error is too small. Use more n_temperatures (now "
            f"{n_temperatures}){more}.",
            ConvergenceWarning,
        )
    value = estimate.log_partition + volume
    return LogPartition(value, estimate.standard_error, method, estimate.effective_chains)


def mean_score(scores: np.ndarray, sample_weight=None) -> float:
    """The mean of scores of rows, weighted if there are weights.

    A row of no weight does not count, even if its score is infinite.
    """
    weight = check_weights(sample_weight, scores)
    if weight is not None:
        scores, weight = scores[weight > 0], weight[weight > 0]
    return float(np.average(scores, weights=weight))
