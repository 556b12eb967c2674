"""What codes are like: functions on arrays."""

import numpy as np


def constant_units(codes, tol=1e-5):
    """Which code units do not vary over the rows.

    Parameters
    ----------
    codes : ndarray of shape (n_samples, n_components)
        At least two different rows of data should be behind them.
    tol : float, default=1e-5
        Spread, as a fraction of the largest absolute code, below which a unit counts
        as constant.

    Returns
    -------
    constant : ndarray of bool of shape (n_components,)
    """
    codes = np.asarray(codes)
    largest = np.abs(codes).max(initial=0.0)
    return np.ptp(codes, axis=0) <= tol * largest


def saturation(codes, margin=0.05):
    """Fraction of code values within ``margin`` of 0 or 1, for each row.

    Parameters
    ----------
    codes : ndarray of shape (n_samples, n_components)
        Codes in [0, 1], such as those of sigmoid units.
    margin : float, default=0.05
        Distance from the ends that counts as saturated.

    Returns
    -------
    saturated : ndarray of shape (n_samples,)
    """
    codes = np.asarray(codes)
    return ((codes < margin) | (codes > 1 - margin)).mean(axis=1)
