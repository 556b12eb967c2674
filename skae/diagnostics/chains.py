"""Whether chains have run for long enough: agreement between them, and effective sizes."""

import numpy as np


def potential_scale_reduction(traces):
    r"""R-hat: how much wider draws of several chains are than those of one.

    .. math:: \hat R = \sqrt{\frac{n - 1}{n} + \frac{B}{W}}

    for n draws of each half of a chain, the variance B of the halves' means and the mean W of their
    variances. 1 where all halves have the same law, more where chains have not forgotten where they
    began.

    Parameters
    ----------
    traces : array-like of shape (n_chains, n_draws, ...)
        A function of the state of each chain after each move, or several functions.

    Returns
    -------
    r_hat : ndarray of shape (...)
        NaN with less than four draws, 1 for what does not vary at all.

    See Also
    --------
    effective_sample_size : How many independent draws the chains are worth.

    References
    ----------
    .. [1] A. Gelman et al. Bayesian data analysis. Third edition, chapter 11, 2013.

    Examples
    --------
    >>> import numpy as np
    >>> from skae.diagnostics import potential_scale_reduction
    >>> draws = np.random.default_rng(0).normal(size=(4, 1000))
    >>> round(float(potential_scale_reduction(draws)), 2)
    1.0
    >>> bool(potential_scale_reduction(draws + np.arange(4)[:, np.newaxis]) > 1.1)
    True
    """
    halves = _halves(traces)
    n_draws = halves.shape[1]
    if n_draws < 2:
        return np.full(halves.shape[2:], np.nan)
    between, within = halves.mean(axis=1).var(axis=0, ddof=1), halves.var(axis=1, ddof=1).mean(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.sqrt((n_draws - 1) / n_draws + between / within)
    return np.where(between + within == 0, 1.0, found)


def effective_sample_size(traces):
    r"""How many independent draws have means as exact as those of the chains.

    .. math:: \frac{m n}{1 + 2 \sum_t \rho_t}

    for m chains of n draws with autocorrelations :math:`\rho_t`, summed as long as those of two
    steps together are positive and fall.

    Parameters
    ----------
    traces : array-like of shape (n_chains, n_draws, ...)
        A function of the state of each chain after each move, or several functions.

    Returns
    -------
    size : ndarray of shape (...)
        NaN with less than four draws.

    See Also
    --------
    potential_scale_reduction : Whether chains agree.

    References
    ----------
    .. [1] C. Geyer. Practical Markov chain Monte Carlo. Statistical Science 7(4), 1992.
    .. [2] A. Vehtari, A. Gelman, D. Simpson, B. Carpenter, P.-C. Buerkner. Rank-normalization,
       folding, and localization: an improved R-hat for assessing convergence of MCMC. Bayesian
       Analysis 16(2), 2021.

    Examples
    --------
    >>> import numpy as np
    >>> from skae.diagnostics import effective_sample_size
    >>> draws = np.random.default_rng(0).normal(size=(4, 1000))
    >>> bool(3000 < effective_sample_size(draws) < 5000)
    True
    >>> bool(effective_sample_size(np.repeat(draws, 10, axis=1)) < 5000)     # repeated, not new
    True
    """
    halves = _halves(traces)
    n_chains, n_draws = halves.shape[:2]
    if n_draws < 2:
        return np.full(halves.shape[2:], np.nan)
    centered = halves - halves.mean(axis=1, keepdims=True)
    spectrum = np.fft.rfft(centered, 2 * n_draws, axis=1)
    covariance = np.fft.irfft(np.abs(spectrum) ** 2, axis=1)[:, :n_draws].mean(axis=0) / n_draws
    within = covariance[0] * n_draws / (n_draws - 1)
    total = covariance[0] + halves.mean(axis=1).var(axis=0, ddof=1)
    varies = total > 0
    rho = 1 - (within - covariance) / np.where(varies, total, 1.0)
    rho[0] = 1.0
    n_pairs = n_draws // 2
    pairs = rho[: 2 * n_pairs : 2] + rho[1 : 2 * n_pairs : 2]
    # From the first pair on that is not positive, what is left is noise.
    pairs = np.where(np.logical_and.accumulate(pairs > 0, axis=0), pairs, 0.0)
    pairs = np.minimum.accumulate(pairs, axis=0)
    length = np.maximum(2 * pairs.sum(axis=0) - 1, 1 / np.log10(10.0 * n_chains * n_draws))
    return np.where(varies, n_chains * n_draws / length, float(n_chains * n_draws))


def _halves(traces):
    """The halves of chains, as chains of their own."""
    traces = np.asarray(traces, dtype=np.float64)
    if traces.ndim < 2 or not traces.shape[0]:
        raise ValueError(
            f"traces of the shape {traces.shape} must have two axes at least: chains and draws."
        )
    size = traces.shape[1] // 2
    return np.concatenate([traces[:, :size], traces[:, traces.shape[1] - size :]])
