"""Moves that change predictions, and divergences of predictions, against their definitions."""

import numpy as np
import pytest
import torch

from skae.engine.networks.units import Multinomial
from skae.engine.tangents.semi_supervised import (
    Span,
    divergence,
    doubtful_moves,
    entropy,
    imbalance,
    normalized,
    projected,
    shrunken_frequencies,
)

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


@pytest.mark.parametrize("counts", [[10, 10, 10], [9, 12, 8], [1, 0, 0], [0, 0, 0]])
def test_frequencies_that_chance_explains_are_equal(counts):
    found = shrunken_frequencies(torch.tensor(counts, **DOUBLE))
    # Three classes of a third each give such counts, or there are too few to tell.
    torch.testing.assert_close(found, torch.full((3,), 1 / 3, **DOUBLE))


def test_frequencies_shrink_by_the_part_that_chance_explains():
    found = shrunken_frequencies(torch.tensor([14, 4, 2], **DOUBLE))
    # Variance 0.46 / 19, squared distance from thirds 31 / 150.
    part = 0.46 / 19 / (31 / 150)
    expected = (1 - part) * torch.tensor([0.7, 0.2, 0.1], **DOUBLE) + part / 3
    torch.testing.assert_close(found, expected)


def test_shrunken_frequencies_are_better_where_classes_are_equal_and_no_worse_with_many_labels():
    generator = np.random.default_rng(0)

    def squared_errors(n, law):
        law = torch.tensor(law, **DOUBLE)
        counts = torch.tensor(generator.multinomial(n, law.numpy(), size=500), **DOUBLE)
        found = torch.stack([shrunken_frequencies(row) for row in counts])
        return [float((values - law).square().sum()) for values in (found, counts / n)]

    shrunken, observed = squared_errors(20, [1 / 3] * 3)
    assert shrunken < 0.5 * observed
    shrunken, observed = squared_errors(100_000, [0.7, 0.2, 0.1])
    assert shrunken == pytest.approx(observed, rel=0.01)
