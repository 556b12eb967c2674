"""Moves that change predictions, and divergences of predictions, against their definitions."""

import torch

from skae.engine.consistency import (
    Span,
    divergence,
    doubtful_moves,
    entropy,
    imbalance,
    normalized,
    projected,
)
from skae.engine.units import Multinomial

DOUBLE = {"dtype": torch.float64}


def test_divergence_is_half_the_metric_to_second_order():
    generator = torch.Generator().manual_seed(0)
    a, change = torch.randn(2, 5, 4, generator=generator, **DOUBLE)
    step, p = 1e-3, torch.softmax(a, 1)
    found = divergence(Multinomial(), a, a + step * change)
    metric = (p * change**2).sum(1) - (p * change).sum(1) ** 2
    # KL(p || p + dp) = 1/2 da^T M da + third order.
    torch.testing.assert_close(found, 0.5 * step**2 * metric, rtol=5e-3, atol=0)
    # And nothing changes where nothing moves.
    torch.testing.assert_close(divergence(Multinomial(), a, a), torch.zeros(5, **DOUBLE))


def test_doubtful_moves_answer_as_the_fisher_information_says():
    generator = torch.Generator().manual_seed(0)
    jacobian = Span(torch.randn(2, 3, 6, generator=generator, **DOUBLE))
    output = torch.randn(2, 3, generator=generator, **DOUBLE)
    moves = doubtful_moves(jacobian, Multinomial(), output, torch.Generator().manual_seed(1))
    noise = torch.randn(2, 3, generator=torch.Generator().manual_seed(1), **DOUBLE)
    p = torch.softmax(output, 1)
    metric = torch.diag_embed(p) - p.unsqueeze(2) * p.unsqueeze(1)
    expected = torch.einsum("nki,nkl,nl->ni", jacobian.directions, metric, noise)
    # J^T M e, from the matrices.
    torch.testing.assert_close(moves, expected)


def test_one_doubtful_move_changes_more_than_a_random_one():
    generator = torch.Generator().manual_seed(0)
    jacobian = Span(torch.randn(200, 5, 40, generator=generator, **DOUBLE))
    output = 3 * torch.randn(200, 5, generator=generator, **DOUBLE)
    found = normalized(doubtful_moves(jacobian, Multinomial(), output, generator))
    random = normalized(torch.randn(200, 40, generator=generator, **DOUBLE))

    def divergences(moves):
        change = jacobian.times(0.3 * moves.unsqueeze(1)).squeeze(1)
        return divergence(Multinomial(), output, output + change)

    # Of 40 directions the output answers to 4, and most to the contrast of the likely classes.
    assert divergences(found).mean() > 5 * divergences(random).mean()


def test_sure_predictions_still_have_moves_of_unit_length():
    moves = torch.tensor([[3e-30, 4e-30], [0.0, 0.0]], dtype=torch.float32)
    # Squares of such entries are zero in float32; a row of zeros stays one.
    torch.testing.assert_close(normalized(moves), torch.tensor([[0.6, 0.8], [0.0, 0.0]]))


def test_projection_leaves_what_is_orthogonal_behind():
    plane = Span(torch.eye(3, **DOUBLE)[:2].unsqueeze(0))
    moves = torch.tensor([[1.0, 2.0, 3.0]], **DOUBLE)
    # The third axis is not of the plane.
    torch.testing.assert_close(projected(plane, moves), torch.tensor([[1.0, 2.0, 0.0]], **DOUBLE))


def test_entropy_is_that_of_the_distribution():
    a = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), **DOUBLE)
    # torch's own.
    expected = torch.distributions.Categorical(logits=a).entropy()
    torch.testing.assert_close(entropy(Multinomial(), a), expected)


def test_imbalance_is_zero_at_the_prior_and_grows_away_from_it():
    prior = torch.tensor([0.7, 0.2, 0.1], **DOUBLE)
    weight = torch.ones(4, **DOUBLE)
    output = prior.log().expand(4, 3)
    at_prior = imbalance(Multinomial(), output, weight, prior)
    # KL(prior || prior) is 0, ...
    torch.testing.assert_close(at_prior, torch.zeros((), **DOUBLE))
    away = imbalance(Multinomial(), torch.zeros(4, 3, **DOUBLE), weight, prior)
    mean = (4 / 3 + 3 * prior) / 7
    # ... and of any other mean what the formula says.
    torch.testing.assert_close(away, (mean * (mean / prior).log()).sum())
