"""How a fitted encoder responds to its input, at rows of data."""

import torch

from skae._validation import check_is_fitted, check_rows
from skae.engine.jacobians import squared_norm
from skae.engine.networks import encode
from skae.engine.penalties import encoder_layers

# Entries of the Jacobians' row-dependent factors that are held at a time.
_FACTOR_ENTRIES = 2**22


def jacobian_norms(estimator, X):
    """Frobenius norm of the code's Jacobian dh/dx at each row.

    It is what ``contraction`` penalises: how strongly the code responds to a small
    change of the input, over all directions together.

    Parameters
    ----------
    estimator : AutoEncoder, DenoisingAutoEncoder, ContractiveAutoEncoder or RBM
        Fitted.
    X : {array-like, sparse matrix} of shape (n_samples, n_features)
        Data, in the units that the estimator was fitted on.

    Returns
    -------
    norms : ndarray of shape (n_samples,)
        With respect to the input as the network sees it,
        (x - columns_.shift) / columns_.scale.

    Notes
    -----
    The norm can be made small by scaling the encoder's weights down and an untied
    decoder's up: compare models whose weights are tied, or whose codes are bounded.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import ContractiveAutoEncoder
    >>> from skae.diagnostics import jacobian_norms
    >>> X = load_digits().data / 16
    >>> free, contracted = (
    ...     ContractiveAutoEncoder(32, contraction=c, max_iter=20, random_state=0).fit(X)
    ...     for c in (0, 1)
    ... )
    >>> bool(jacobian_norms(free, X).mean() > jacobian_norms(contracted, X).mean())
    True
    """
    check_is_fitted(estimator)
    X = check_rows(estimator, X, reset=False)
    network = estimator._network
    step = max(1, _FACTOR_ENTRIES // (network.layer_sizes[1] * network.layer_sizes[-1]))

    def norms(theta, x):
        theta = estimator._encoder_parameters(theta)
        return torch.cat([norms_of(theta, part) for part in x.split(step)])

    def norms_of(theta, x):
        slopes, weights = encoder_layers(theta, encode(theta, x, network), network)
        # Where units are saturated, rounding may leave a negative number of size 1e-16.
        return squared_norm(slopes, weights).clamp_(min=0).sqrt_()

    return estimator._map_rows(X, norms, (), standardize=True)
