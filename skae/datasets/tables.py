"""A table of numbers, categories and gaps, as people have them, whose truth is known."""

import numpy as np

from skae._validation import check_count, check_number
from skae.datasets.images import make_rng


def make_mixed_table(n_samples=1500, *, missing=0.05, random_state=None):
    r"""Eight numbers and two categories that two hidden factors explain.

    The class is the sign of the factors' product, which stands in no column: a linear model of the
    columns hardly sees it.

    Parameters
    ----------
    n_samples : int, default=1500
        Number of rows.
    missing : float, default=0.05
        Part of the numbers that are missing, at least 0 and less than 1.
    random_state : int, RandomState instance or None, default=None
        Seed of the draws. Loadings of the columns are drawn anew for each seed.

    Returns
    -------
    X : pandas.DataFrame of shape (n_samples, 10)
        Columns ``number_0`` to ``number_7``, those of even numbers with heavy tails, and the
        categories ``colour`` and ``shape``, each with the values A to D.
    y : ndarray of shape (n_samples,), int64
        1 where both factors have the same sign, 0 elsewhere.

    Raises
    ------
    ValueError
        A parameter outside of its range.
    ImportError
        pandas is not installed.

    See Also
    --------
    skae.TableFeatures : Features for such tables.

    Notes
    -----
    With factors :math:`f \sim N(0, I)`, loadings :math:`A \sim N(0, I)` and noise
    :math:`\epsilon \sim N(0, I)`, numbers are :math:`\tanh(f A) + 0.4 \epsilon`; those of even
    columns are :math:`e^{2 x}` of that. Each category is one factor with noise of 0.4, cut at -1, 0
    and 1.

    Examples
    --------
    >>> from skae.datasets import make_mixed_table
    >>> X, y = make_mixed_table(200, random_state=0)
    >>> X.shape, y.shape
    ((200, 10), (200,))
    >>> bool(X.isna().any().any()), sorted(set(X["colour"]))
    (True, ['A', 'B', 'C', 'D'])
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError("make_mixed_table needs pandas: pip install pandas") from error
    check_count("n_samples", n_samples, 1)
    if not 0 <= check_number("missing", missing) < 1:
        raise ValueError(f"missing={missing!r} must be at least 0 and less than 1.")
    rng = make_rng(random_state)
    factors = rng.normal(size=(n_samples, 2))
    numbers = np.tanh(factors @ rng.normal(size=(2, 8))) + 0.4 * rng.normal(size=(n_samples, 8))
    numbers[:, ::2] = np.exp(2 * numbers[:, ::2])
    numbers[rng.random(numbers.shape) < missing] = np.nan
    table = pd.DataFrame(numbers, columns=[f"number_{column}" for column in range(8)])
    for column, name in enumerate(["colour", "shape"]):
        cuts = np.digitize(factors[:, column] + 0.4 * rng.normal(size=n_samples), [-1, 0, 1])
        table[name] = np.array(["A", "B", "C", "D"])[cuts]
    return table, (factors[:, 0] * factors[:, 1] > 0).astype(np.int64)
