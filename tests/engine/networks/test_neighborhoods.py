"""The penalty on neighbourhoods against its formula; its closed form is in test_objectives."""

import math

import pytest
import torch

from skae.engine.networks.forward import Forward
from skae.engine.networks.layers import Network
from skae.engine.networks.neighborhoods import Neighborhood
from skae.engine.networks.units import Gaussian

NETWORK = Network((4, 2), "linear")


@pytest.fixture(name="x")
def rows(generator):
    return torch.randn(30, 4, dtype=torch.float64, generator=generator)


def run(x, code, row_weight=None):
    return Forward(NETWORK, Gaussian(), x, row_weight, None, [code])


def scipy_like(x, code, perplexity):
    """The formula, row by row: P of the nearest rows with the entropy asked for, and Q."""
    n = len(x)
    u = 1 / (1 + torch.cdist(code, code) ** 2)
    u.fill_diagonal_(0)
    total, value = u.sum(), 0.0
    for i in range(n):
        others = torch.cat([torch.arange(i), torch.arange(i + 1, n)])
        square = (x[others] - x[i]).square().sum(1)
        nearest = square.argsort()[: round(3 * perplexity)]
        low, high = 1e-8, 1e8
        for _ in range(200):
            b = math.sqrt(low * high)
            p = torch.softmax(-b * square[nearest], 0)
            entropy = -(p * p.log()).sum()
            low, high = (b, high) if entropy > math.log(perplexity) else (low, b)
        q = u[i, others[nearest]] / total
        value += (p / n * (p / n / q).log()).sum()
    return value


@pytest.mark.parametrize("perplexity", [2.0, 5.0])
def test_it_is_the_divergence_of_the_formula(x, perplexity):
    code = x[:, :2] * 1.5 + 0.3 * x[:, 2:]
    value = Neighborhood(1.0, perplexity).value(None, run(x, code))
    # The widths are found by 14 halvings, to 0.1 %.
    torch.testing.assert_close(value, scipy_like(x, code, perplexity), rtol=2e-4, atol=0)


def test_it_sees_distances_alone(x, generator):
    penalty = Neighborhood(1.0, 3.0)
    turn = torch.linalg.qr(torch.randn(4, 4, dtype=x.dtype, generator=generator))[0]
    code = x[:, :2]
    moved = code @ torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=x.dtype) + 7.0
    # Rows in other axes and units, codes turned and moved.
    torch.testing.assert_close(
        penalty.value(None, run(100.0 * (x @ turn) - 3.0, moved)),
        penalty.value(None, run(x, code)),
    )


def test_codes_that_keep_neighbours_are_better(x, generator):
    penalty, plane = Neighborhood(1.0, 3.0), x[:, :2]
    order = torch.randperm(len(x), generator=generator)
    kept = penalty.value(None, run(plane, 3.0 * plane))
    assert kept < penalty.value(None, run(plane, 3.0 * plane[order])) - 1.0


def test_rows_without_weight_count_as_if_they_were_not_there(x):
    # They are far off, so that the others' neighbours are the same.
    x = torch.cat([x, x[:5] + 100.0])
    code, weight = x[:, :2], torch.ones(35, dtype=x.dtype)
    weight[30:] = 0.0
    penalty = Neighborhood(1.0, 3.0)
    value = penalty.value(None, run(x, code, weight))
    alone = penalty.value(None, run(x[:30], code[:30]))
    # A mean over 35 rows, of which 30 have weight 1: P log P has the number of rows in it.
    expected = 30 / 35 * (alone + math.log(30 / 35))
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("rows", ["one", "equal"])
def test_rows_that_have_no_neighbours_to_tell(rows, x):
    x = {"one": x[:1], "equal": x[:1].repeat(9, 1)}[rows]
    forward = run(x, x[:, :2])
    forward.slope, forward.delta = torch.ones_like(forward.code), torch.zeros_like(forward.code)
    value = Neighborhood(1.0).add_gradient_(None, forward, None)
    assert torch.isfinite(value)
    # Nobody is nearer than others: nothing moves.
    torch.testing.assert_close(forward.delta, torch.zeros_like(forward.code))
