"""Block Gibbs sampling: all visible units given the hidden ones, and the reverse."""

from skae.engine.energies import sample_hidden, sample_visible


def gibbs_step(theta, units, generator):
    """A step function on states (visible, hidden) that leaves P(v, h) invariant.

    Parameters
    ----------
    theta : Parameters
    units : Bernoulli or Gaussian
    generator : torch.Generator

    Returns
    -------
    step : callable
        (v, h) -> (v', h') with v' ~ P(v | h) and h' ~ P(h | v').
    """

    def step(state):
        _, hidden = state
        visible = sample_visible(theta, hidden, units, generator)
        return visible, sample_hidden(theta, visible, generator)

    return step


def gibbs_state(theta, visible, generator):
    """A state to start from: visible units, and hidden ones drawn given them."""
    return visible, sample_hidden(theta, visible, generator)
