"""Learning rules of Boltzmann machines of few units, with all their states visited.

Where both layers are few Bernoulli units, all their states can be visited, and the expectation of a
rule over all draws is a sum, without sampling noise. Each of the functions ``*_gradient`` returns a
direction of ascent, averaged over the rows of x: what the data say of the statistics

    -dF/dtheta = (h v^T, h, v),   h = P(h = 1 | v),   for (W, b, c)

less what is expected of them elsewhere: under the machine for the log-likelihood, after k Gibbs
steps from x for CD-k. The rules are related by an expansion of log P(x) along the chain x = x_1,
h_1, x_2, h_2, ..., true of every chain (Bengio & Delalleau 2009):

    log P(x) = sum_s=1..k [ log P(x_s | h_s) / P(h_s | x_s)
                            + log P(h_s | x_s+1) / P(x_s+1 | h_s) ]  +  log P(x_k+1)

CD-k is the expected gradient of these 2k terms, without the rest. That of the first term alone is
`first_term_gradient`; with E[h | x] in the place of h, it is that of the reconstruction error.
"""

from collections.abc import Sequence

import torch

from skae.engine.boltzmann.energies import BipartiteMachine, binary_states
from skae.engine.networks.activations import softplus
from skae.engine.optimisation.parameters import Parameters

# Of either layer. The law of one given the other is then a matrix of up to 2^24 entries.
MAX_UNITS = 12
# Entries of P(h | x) of the data that are held at a time.
_BLOCK = 2**22


def log_likelihood_gradient(machine: BipartiteMachine, x: torch.Tensor) -> Parameters:
    """Gradient of the mean log P(x)."""
    states = all_states(machine.visible_bias)
    return _contrast(machine, x, states, torch.softmax(-machine.free_energy(states), 0))


def contrastive_divergence_gradients(
    machine: BipartiteMachine, x: torch.Tensor, n_gibbs_steps: Sequence[int]
) -> list[Parameters]:
    """Expected step of CD-k for each of several k; values of x lie in [0, 1].

    The law of the hidden units given the data goes to and fro through the matrices P(v | h) and
    P(h | v) of all states: 2^(n_visible + n_hidden) products for each half step.
    """
    visible, hidden = all_states(machine.visible_bias), all_states(machine.hidden_bias)
    to_visible = _law_of_states(machine.visible_input(hidden), visible)
    to_hidden = _law_of_states(machine.hidden_input(visible), hidden)
    hidden_law, gradients = _hidden_law(machine, x, hidden), {}
    for step in range(1, max(n_gibbs_steps) + 1):
        visible_law = hidden_law @ to_visible
        if step in n_gibbs_steps:
            gradients[step] = _contrast(machine, x, visible, visible_law)
        hidden_law = visible_law @ to_hidden
    return [gradients[step] for step in n_gibbs_steps]


def first_term_gradient(machine: BipartiteMachine, x: torch.Tensor) -> Parameters:
    """E[d log P(x | h) / dtheta], h ~ P(h | x): CD-1 that does not draw h again.

    dW = E[h (x - r(h))^T], dc = E[x - r(h)] with r(h) = E[v | h]; b does not occur in it.
    """
    hidden = all_states(machine.hidden_bias)
    law = _hidden_law(machine, x, hidden)
    mean = torch.sigmoid(machine.visible_input(hidden))
    gradient = _expected_statistics(machine, x)
    gradient.weight.sub_((law.unsqueeze(1) * hidden).t() @ mean)
    gradient.visible_bias.sub_(law @ mean)
    gradient.hidden_bias.zero_()
    return gradient.theta


def mean_field_gradient(machine: BipartiteMachine, x: torch.Tensor) -> Parameters:
    """CD-1 with probabilities in the place of draws: x against its reconstruction."""
    return _contrast(machine, x, torch.sigmoid(_reconstruction(machine, x)))


def reconstruction_gradient(machine: BipartiteMachine, x: torch.Tensor) -> Parameters:
    """Gradient of the mean log P(x | E[h | x]), the negative reconstruction error.

    By autograd, as of an auto-encoder with tied weights: also through E[h | x].
    """
    gradient = machine.theta.empty_like()
    gradient.flat.zero_()
    outputs = _reconstruction(machine.over(machine.theta.tracked(gradient)), x)
    (-machine.units.negative_log_likelihood(outputs, x).mean()).backward()
    return gradient


def particle_gradient(
    machine: BipartiteMachine, x: torch.Tensor, particles: torch.Tensor
) -> Parameters:
    """Step of PCD: x against particles, whose law is near that of the machine or is not."""
    return _contrast(machine, x, particles)


def all_states(bias: torch.Tensor) -> torch.Tensor:
    """All states of a layer that has such biases, shape (2^n, n)."""
    return torch.cat(list(binary_states(len(bias), bias)))


def _contrast(machine, x, visible, probability=None):
    """Statistics of the rows of x less those of other rows, each as probable as given."""
    gradient = _expected_statistics(machine, x).theta
    gradient.flat.sub_(_expected_statistics(machine, visible, probability).theta.flat)
    return gradient


def _expected_statistics(machine, visible, probability=None):
    """E[-dF/dtheta] over rows of visible units, as the parameters of a machine."""
    if probability is None:
        probability = visible.new_full((len(visible),), 1 / len(visible))
    code = machine.code(visible)
    expected = machine.over(machine.theta.empty_like())
    torch.mm((code * probability.unsqueeze(1)).t(), visible, out=expected.weight)
    torch.mv(code.t(), probability, out=expected.hidden_bias)
    torch.mv(visible.t(), probability, out=expected.visible_bias)
    return expected


def _reconstruction(machine, x):
    return machine.visible_input(torch.sigmoid(machine.hidden_input(x)))


def _hidden_law(machine, x, states):
    """P(h | x) of each state of the hidden units, averaged over the rows of x."""
    law = states.new_zeros(len(states))
    for rows in x.split(max(1, _BLOCK // len(states))):
        law += _law_of_states(machine.hidden_input(rows), states).sum(0)
    return law / len(x)


def _law_of_states(logits, states):
    """Probability of each state of independent units, for each row of their logits."""
    log_law = logits @ states.t()
    return log_law.sub_(softplus(logits).sum(1, keepdim=True)).exp_()
