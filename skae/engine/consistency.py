"""Moves of a row that should not change what is predicted there, and how much they do.

Of all moves of one length, a prediction P(y | a(x)) answers most to the leading eigenvector of
J^T M J, with J the Jacobian of the output a and M the Fisher information of P(y | a): to second
order the divergence KL(P(y | a(x)) || P(y | a(x + v))) is v^T J^T M J v / 2. Miyato et al. (2018)
find it by one step of the power iteration, J^T M J e from a random e. J^T M e with a random e in
the place of J e costs half as much and does as well: M leaves little but the contrast between the
few classes that are likely. Within a plane spanned by the rows of B, or weighted by the singular
values of an encoder's Jacobian B, the move is B^T B times that.
"""

import torch


class Span:
    """Directions of each row as the Jacobian that has them as its rows.

    Parameters
    ----------
    directions : Tensor of shape (n_rows, n_directions, n_features)
    """

    def __init__(self, directions):
        self.directions = directions

    def times(self, vectors):
        """B u of each row: (n_rows, m, n_in) -> (n_rows, m, n_out)."""
        return vectors @ self.directions.transpose(1, 2)

    def transposed_times(self, covectors):
        """B^T v of each row: (n_rows, m, n_out) -> (n_rows, m, n_in)."""
        return covectors @ self.directions


def doubtful_moves(jacobian, units, output, generator):
    """J^T M e of each row, with normal e: moves towards what the prediction takes for likely, too.

    Parameters
    ----------
    jacobian : LayeredJacobian or DifferentiatedJacobian
        J, of the output's pre-activations.
    units : object of `skae.engine.units`
        Of the targets.
    output : Tensor of shape (n_rows, n_outputs)
    generator : torch.Generator

    Returns
    -------
    moves : Tensor of shape (n_rows, n_features)
    """
    noise = torch.empty_like(output).normal_(generator=generator)
    doubt = units.jacobian_product(output, noise.unsqueeze(2)).transpose(1, 2)
    return jacobian.transposed_times(doubt).squeeze(1)


def projected(plane, moves):
    """B^T B v of each row."""
    return plane.transposed_times(plane.times(moves.unsqueeze(1))).squeeze(1)


def normalized(moves):
    """Each row divided by its norm; zero where it has none."""
    # By the largest entry first: squares of what a sure prediction answers underflow.
    moves = moves / moves.abs().amax(1, keepdim=True).clamp(min=torch.finfo(moves.dtype).tiny)
    return moves / moves.norm(dim=1, keepdim=True).clamp(min=1)


def divergence(units, output, moved):
    """KL(P(y | output) || P(y | moved)) of each row; the first counts as given."""
    given = units.mean(output.detach())
    entropy = units.negative_log_likelihood(output.detach(), given)
    return units.negative_log_likelihood(moved, given) - entropy


def entropy(units, output):
    """H(P(y | output)) of each row (Grandvalet & Bengio 2005), but for the units' constant."""
    return units.negative_log_likelihood(output, units.mean(output)) - units.offset


def imbalance(units, output, weight, prior):
    """KL(m || prior) of the mean prediction m of some rows, a scalar.

    One row of the prior for every class joins them, so that few rows need not be balanced.

    Parameters
    ----------
    units : object of `skae.engine.units`
        Of classes.
    output : Tensor of shape (n_rows, n_classes)
    weight : Tensor of shape (n_rows,)
    prior : Tensor of shape (n_classes,)
        How often each class occurs.

    Returns
    -------
    divergence : Tensor, a scalar
    """
    n_classes = len(prior)
    mean = (weight @ units.mean(output) + n_classes * prior) / (weight.sum() + n_classes)
    tiny = torch.finfo(prior.dtype).tiny
    return (mean * (mean.clamp(min=tiny) / prior.clamp(min=tiny)).log()).sum()


def shrunken_frequencies(counts):
    """How often classes occur, from a sample of labels: drawn towards equally often.

    Observed frequencies p_k of n labels have a variance of (1 - sum of p_k^2) / (n - 1) in all.
    Where that is a part of their squared distance from equal ones, they move by that part (James
    and Stein's shrinkage; Hausser & Strimmer 2009).

    Parameters
    ----------
    counts : Tensor of shape (n_classes,)
        Of labels.

    Returns
    -------
    frequencies : Tensor of shape (n_classes,)
    """
    equal = torch.full_like(counts, 1 / len(counts))
    n = counts.sum()
    if n <= 1:
        return equal
    observed = counts / n
    variance = (1 - observed.square().sum()) / (n - 1)
    distance = (observed - equal).square().sum()
    if variance >= distance:
        return equal
    return torch.lerp(observed, equal, variance / distance)
