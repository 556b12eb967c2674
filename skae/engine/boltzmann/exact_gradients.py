"""Learning rules of small restricted Boltzmann machines, without sampling noise.

Where both layers are few Bernoulli units, all their states can be visited, and the
expectation of a rule over all draws is a sum. Each function returns a direction of ascent,
averaged over the rows of x: what the data say of the statistics

    -dF/dtheta = (h v^T, h, v),   h = P(h = 1 | v),   for (W, b, c)

less what is expected of them elsewhere: under the machine for the log-likelihood, after k
Gibbs steps from x for CD-k. The rules are related by an expansion of log P(x) along the
chain x = x_1, h_1, x_2, h_2, ..., true of every chain (Bengio & Delalleau 2009):

    log P(x) = sum_s=1..k [ log P(x_s | h_s) / P(h_s | x_s)
                            + log P(h_s | x_s+1) / P(x_s+1 | h_s) ]  +  log P(x_k+1)

CD-k is the expected gradient of these 2k terms, without the rest. That of the first term
alone is `first_term_gradient`; with E[h | x] in the place of h, it is the gradient of the
reconstruction error.
"""

import torch

from skae.engine.boltzmann.energies import binary_states, free_energy, hidden_input, visible_input
from skae.engine.networks.layers import softplus
from skae.engine.networks.units import Bernoulli

# Of either layer. The law of one given the other is then a matrix of up to 2^24 entries.
MAX_UNITS = 12
# Entries of P(h | x) of the data that are held at a time.
_BLOCK = 2**22
_UNITS = Bernoulli()


def log_likelihood_gradient(theta, x):
    """Gradient of the mean log P(x)."""
    states = all_states(theta["visible_bias_0"])
    return _contrast(theta, x, states, torch.softmax(-free_energy(theta, states, _UNITS), 0))


def contrastive_divergence_gradients(theta, x, n_gibbs_steps):
    """Expected step of CD-k for each of several k.

    The law of the hidden units given the data goes to and fro through the matrices
    P(v | h) and P(h | v) of all states: 2^(n_visible + n_hidden) products for each half step.

    Parameters
    ----------
    theta : Parameters
    x : Tensor of shape (n_samples, n_visible)
        Values in [0, 1].
    n_gibbs_steps : sequence of int
        The values of k.

    Returns
    -------
    gradients : list of Parameters
    """
    visible, hidden = all_states(theta["visible_bias_0"]), all_states(theta["hidden_bias_0"])
    to_visible = _law_of_states(visible_input(theta, hidden), visible)
    to_hidden = _law_of_states(hidden_input(theta, visible), hidden)
    hidden_law, gradients = _hidden_law(theta, x, hidden), {}
    for step in range(1, max(n_gibbs_steps) + 1):
        visible_law = hidden_law @ to_visible
        if step in n_gibbs_steps:
            gradients[step] = _contrast(theta, x, visible, visible_law)
        hidden_law = visible_law @ to_hidden
    return [gradients[step] for step in n_gibbs_steps]


def first_term_gradient(theta, x):
    """E[d log P(x | h) / dtheta], h ~ P(h | x): CD-1 that does not draw h again.

    dW = E[h (x - r(h))^T], dc = E[x - r(h)] with r(h) = E[v | h]; b does not occur in it.
    """
    hidden = all_states(theta["hidden_bias_0"])
    law = _hidden_law(theta, x, hidden)
    mean = torch.sigmoid(visible_input(theta, hidden))
    gradient = _expected_statistics(theta, x)
    gradient["weight_0"].sub_((law.unsqueeze(1) * hidden).t() @ mean)
    gradient["visible_bias_0"].sub_(law @ mean)
    gradient["hidden_bias_0"].zero_()
    return gradient


def mean_field_gradient(theta, x):
    """CD-1 with probabilities in the place of draws: x against its reconstruction."""
    return _contrast(theta, x, torch.sigmoid(_reconstruction(theta, x)))


def reconstruction_gradient(theta, x):
    """Gradient of the mean log P(x | E[h | x]), the negative reconstruction error.

    By autograd, as of an auto-encoder with tied weights: also through E[h | x].
    """
    gradient = theta.empty_like()
    gradient.flat.zero_()
    outputs = _reconstruction(theta.tracked(gradient), x)
    (-_UNITS.negative_log_likelihood(outputs, x).mean()).backward()
    return gradient


def particle_gradient(theta, x, particles):
    """Step of PCD: x against particles, whose law is near that of the machine or is not."""
    return _contrast(theta, x, particles)


def all_states(bias):
    """All states of a layer that has such biases, shape (2^n, n)."""
    return torch.cat(list(binary_states(len(bias), bias)))


def _contrast(theta, x, visible, probability=None):
    """Statistics of the rows of x less those of other rows, each as probable as given."""
    gradient = _expected_statistics(theta, x)
    gradient.flat.sub_(_expected_statistics(theta, visible, probability).flat)
    return gradient


def _expected_statistics(theta, visible, probability=None):
    """E[-dF/dtheta] over rows of visible units."""
    if probability is None:
        probability = visible.new_full((len(visible),), 1 / len(visible))
    code = torch.sigmoid(hidden_input(theta, visible))
    expected = theta.empty_like()
    torch.mm((code * probability.unsqueeze(1)).t(), visible, out=expected["weight_0"])
    torch.mv(code.t(), probability, out=expected["hidden_bias_0"])
    torch.mv(visible.t(), probability, out=expected["visible_bias_0"])
    return expected


def _reconstruction(theta, x):
    return visible_input(theta, torch.sigmoid(hidden_input(theta, x)))


def _hidden_law(theta, x, states):
    """P(h | x) of each state of the hidden units, averaged over the rows of x."""
    law = states.new_zeros(len(states))
    for rows in x.split(max(1, _BLOCK // len(states))):
        law += _law_of_states(hidden_input(theta, rows), states).sum(0)
    return law / len(x)


def _law_of_states(logits, states):
    """Probability of each state of independent units, for each row of their logits."""
    log_law = logits @ states.t()
    return log_law.sub_(softplus(logits).sum(1, keepdim=True)).exp_()
