"""Learning rules of a small RBM beside the gradient of its log-likelihood."""

import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from scipy import sparse

from skae._validation import check_count, check_is_fitted, make_generator
from skae.engine.boltzmann import exact_gradients
from skae.engine.boltzmann.energies import BipartiteMachine
from skae.engine.boltzmann.samplers import gibbs_state, gibbs_step
from skae.engine.optimisation.devices import undisturbed
from skae.engine.optimisation.parameters import Parameters


class GradientAgreement(NamedTuple):
    """How far learning rules of an RBM point along the gradient of the log-likelihood.

    Attributes
    ----------
    rules : tuple of str
        "reconstruction", "first_term", "mean_field", "cd_1" and so on, "pcd".
    scales : ndarray of shape (n_scales,)
        What all parameters were multiplied by.
    mean_weight : ndarray of shape (n_scales,)
        Mean absolute weight at each scale.
    gradient_norm : ndarray of shape (n_scales,)
        Of that gradient. Near 0, at a maximum, rules with the least bias point elsewhere.
    cosine : ndarray of shape (n_rules, n_scales)
        Of the angle between the rule's step and that gradient, all parameters together.
    sign_agreement : ndarray of shape (n_rules, n_scales)
        Fraction of parameters that both move in the same direction, which hidden biases, that
        "first_term" leaves alone, do not.
    """

    rules: tuple
    scales: np.ndarray
    mean_weight: np.ndarray
    gradient_norm: np.ndarray
    cosine: np.ndarray
    sign_agreement: np.ndarray


@undisturbed
def gradient_agreement(
    rbm,
    X,
    *,
    n_gibbs_steps=(1, 2, 5, 10, 25),
    scales=(0.25, 0.5, 1, 2, 4),
    n_particles=1000,
    growth=0.01,
    random_state=None,
):
    r"""Compare the learning rules of a small RBM with the gradient of its log-likelihood.

    With few binary units the gradient is known exactly, and so is the expected step of most rules.
    With :math:`h(x) = E[h \mid x]`, :math:`r(h) = E[v \mid h]` and :math:`s(v) = (h(v) v^T, h(v),
    v)` for the weights and both biases, the gradient of the mean of :math:`\log P(x)` over the rows
    of X is that of :math:`s(x) - E_P[s(v)]`. The rules are:

    - "reconstruction": the gradient of :math:`\log P(x \mid h(x))`, the negative
      cross-entropy of the reconstruction :math:`r(h(x))` with tied weights;
    - "first_term": the mean of the gradient of :math:`\log P(x \mid h)` over
      :math:`h \sim P(h \mid x)`, with h constant;
    - "mean_field": :math:`s(x) - s(r(h(x)))`, CD-1 without draws;
    - "cd_k": :math:`s(x) - E[s(v_k)]`, with :math:`v_k` after k Gibbs steps from x, expected
      over all chains;
    - "pcd": :math:`s(x)` less the mean of :math:`s` over persistent particles, which are
      simulated. They start at scale 0 and take one Gibbs step each time the scale has
      grown by ``growth``, as in training they follow the weights.

    Along the chain :math:`x = x_1, h_1, x_2, h_2, \ldots`

    .. math::

        \log P(x) = \sum_{s=1}^{k} \left[ \log \frac{P(x_s \mid h_s)}{P(h_s \mid x_s)}
        + \log \frac{P(h_s \mid x_{s+1})}{P(x_{s+1} \mid h_s)} \right] + \log P(x_{k+1})

    CD-k is the expected gradient of the sum; that of its first term alone is "first_term",
    of which "reconstruction" is the mean-field version [1]_.

    Parameters
    ----------
    rbm : RBM
        Fitted, with at most 12 visible and 12 hidden units, all of them binary.
    X : {array-like, sparse matrix} of shape (n_samples, n_features)
        Data, with values in [0, 1].
    n_gibbs_steps : sequence of int, default=(1, 2, 5, 10, 25)
        The values of k for "cd_k".
    scales : sequence of float, default=(0.25, 0.5, 1, 2, 4)
        What weights and biases are multiplied by, in increasing order. 1 is the fitted machine.
    n_particles : int, default=1000
        Persistent particles of "pcd", the only rule with sampling noise.
    growth : float, default=0.01
        By how much the scale grows from one Gibbs step of the particles to the next.
    random_state : int, RandomState instance or None, default=None
        Of the particles. None: the estimator's own.

    Returns
    -------
    agreement : GradientAgreement
        What each rule has in common with the gradient, at each scale.

    Raises
    ------
    ValueError
        If a layer has too many units to visit all its states, or the visible units are
        Gaussian; if X does not suit the machine; if an argument is out of its range.

    See Also
    --------
    skae.plots.GradientAgreementDisplay : Draws the result.

    Notes
    -----
    The gradient is with respect to the parameters as they are; that of centred units, which
    `RBM` follows by default, has other angles. Time and memory grow as
    2^(n_visible + n_hidden): with 12 and 12 units, a second for each scale and 400 MB.

    References
    ----------
    .. [1] Y. Bengio, O. Delalleau. Justifying and generalizing contrastive divergence.
       Neural Computation 21, 2009.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import RBM
    >>> from skae.diagnostics import gradient_agreement
    >>> X = load_digits().images[:, 2:5, 2:5].reshape(-1, 9) > 7
    >>> rbm = RBM(6, persistent=False, max_iter=20, random_state=0).fit(X)
    >>> agreement = gradient_agreement(rbm, X, n_gibbs_steps=(1, 10), scales=(0.5, 1))
    >>> agreement.rules
    ('reconstruction', 'first_term', 'mean_field', 'cd_1', 'cd_10', 'pcd')
    >>> bool((agreement.cosine[4] > agreement.cosine[3]).all())
    True
    """
    machine, x = _small_machine(rbm, X)
    n_gibbs_steps = tuple(n_gibbs_steps)
    scales = _check_growing(n_gibbs_steps, scales, n_particles, growth)
    generator = make_generator(rbm.random_state if random_state is None else random_state, "cpu")
    columns = []
    for grown, particles in _grown(machine, scales, growth, n_particles, generator):
        truth = exact_gradients.log_likelihood_gradient(grown, x).flat
        steps = [
            exact_gradients.reconstruction_gradient(grown, x),
            exact_gradients.first_term_gradient(grown, x),
            exact_gradients.mean_field_gradient(grown, x),
            *exact_gradients.contrastive_divergence_gradients(grown, x, n_gibbs_steps),
            exact_gradients.particle_gradient(grown, x, particles),
        ]
        steps = torch.stack([step.flat for step in steps])
        cosine = (steps @ truth) / (steps.norm(dim=1) * truth.norm())
        same_sign = (steps.sign() == truth.sign()).to(truth.dtype).mean(1)
        size = grown.weight.abs().mean()
        columns.append([part.numpy() for part in (size, truth.norm(), cosine, same_sign)])
    rules = ("reconstruction", "first_term", "mean_field", *(f"cd_{k}" for k in n_gibbs_steps))
    stacked = (np.stack(column, axis=-1) for column in zip(*columns, strict=True))
    return GradientAgreement((*rules, "pcd"), scales, *stacked)


def _small_machine(rbm, X):
    """The machine and the data in float64 on the CPU, if all its states can be visited."""
    check_is_fitted(rbm)
    if not hasattr(rbm, "free_energy"):
        raise ValueError(f"gradient_agreement is about an RBM, not {type(rbm).__name__}.")
    cpu = torch.device("cpu")
    theta = Parameters.from_numpy(rbm.weights_, dtype=torch.float64, device=cpu)
    machine = BipartiteMachine(theta, rbm.columns_.units(cpu))
    if not machine.units.is_binary:
        kind = "Gaussian" if not machine.units.is_discrete else "categories"
        raise ValueError(
            "gradient_agreement needs binary visible units, and those of this "
            f"{type(rbm).__name__} are {kind}: their states cannot be visited one by one."
        )
    if max(machine.n_hidden, machine.n_visible) > exact_gradients.MAX_UNITS:
        raise ValueError(
            "gradient_agreement visits all 2^n states of both layers: at most "
            f"{exact_gradients.MAX_UNITS} units each are possible, and this {type(rbm).__name__} "
            f"has {machine.n_visible} visible and {machine.n_hidden} hidden ones."
        )
    X = rbm._checked(X)
    x = torch.tensor(X.toarray() if sparse.issparse(X) else X, dtype=torch.float64)
    return machine, x


def _check_growing(n_gibbs_steps, scales, n_particles, growth):
    for k in n_gibbs_steps or (None,):
        check_count("n_gibbs_steps", k, 1)
    check_count("n_particles", n_particles, 1)
    scales = np.array(scales, dtype=np.float64)
    steps = np.diff(scales, prepend=0.0)
    if scales.ndim != 1 or not len(scales) or not (np.isfinite(steps) & (steps > 0)).all():
        raise ValueError(f"scales={scales!r} must be positive numbers in increasing order.")
    if not growth > 0:
        raise ValueError(f"growth={growth!r} must be positive.")
    return scales


def _grown(machine, scales, growth, n_particles, generator):
    """(machine, particles) at each scale, where particles followed it from scale 0."""
    full, grown = machine.theta.flat, machine.over(machine.theta.empty_like())
    grown.theta.flat.zero_()
    step = gibbs_step(grown, generator)
    state = gibbs_state(grown, full.new_zeros(n_particles, machine.n_visible), generator)
    for before, scale in pairwise([0.0, *scales.tolist()]):
        n_steps = math.ceil((scale - before) / growth)
        for factor in np.linspace(before, scale, n_steps + 1)[1:].tolist():
            torch.mul(full, factor, out=grown.theta.flat)
            state = step(state)
        yield grown, state[0]
