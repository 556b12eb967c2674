"""Kernel outputs beside dense computations: distances, ridge regression, rows left out, logits."""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.spatial.distance import cdist

from skae.engine.stacks.kernel_output import (
    Calibration,
    Distances,
    calibrated,
    chosen_mixture,
    kernel_ridge,
    laplacian,
    log_shares,
    mean_distances,
    mean_kernel,
)


@pytest.fixture
def rows():
    generator = np.random.default_rng(0)
    return generator.normal(size=(30, 4)) * [1, 5, 0.1, 2]


@pytest.fixture
def weight():
    return np.random.default_rng(1).integers(1, 7, size=30) / 2


def targets(n_classes=3):
    return np.eye(n_classes)[np.random.default_rng(2).integers(n_classes, size=30)]


@pytest.mark.parametrize("weighted", [False, True])
def test_distances_are_means_over_all_pairs(rows, weight, weighted):
    w = weight if weighted else np.ones(30)
    pairs = np.outer(w, w) / w.sum() ** 2
    found = mean_distances(torch.tensor(rows), torch.tensor(w) if weighted else None)
    assert_allclose(found.city_block, (pairs * cdist(rows, rows, "cityblock")).sum(), rtol=1e-12)
    squares = (pairs * cdist(rows, rows, "sqeuclidean")).sum()
    assert_allclose(found.euclidean, np.sqrt(squares), rtol=1e-12)


def test_rows_that_are_all_alike_have_a_distance():
    # Something to divide by.
    assert mean_distances(torch.ones(5, 3)) == Distances(1.0, 1.0)
    # Nor are rows that are alike but for the rounding of the layer that they come from.
    nearly = torch.full((6, 3), 0.3) + 2e-8 * torch.tensor([[0.0], [1], [0], [2], [1], [0]])
    assert mean_distances(nearly) == Distances(1.0, 1.0)


def test_kernel_is_its_formula(rows):
    scale = Distances(3.0, 2.0)
    x, z = torch.tensor(rows), torch.tensor(rows[:7])
    expected = np.exp(-cdist(rows, rows[:7], "cityblock") / 6) / 2
    expected += np.exp(-cdist(rows, rows[:7]) / 4) / 2
    assert_allclose(laplacian(x, z, scale), expected, rtol=1e-6)
    # Over views it is the mean, whatever their numbers of columns.
    both = mean_kernel(laplacian, [x, x[:, :2]], [z, z[:, :2]], [scale, scale])
    alone = laplacian(x[:, :2], z[:, :2], scale)
    assert_allclose(both, (laplacian(x, z, scale) + alone) / 2, rtol=1e-6)
    # A sum of two Laplacians is a kernel: ridge regression has a solution.
    assert np.linalg.eigvalsh(laplacian(x, x, scale).numpy()).min() > 0


def solved(kernel, y, weight, penalty):
    """Coefficients and offset by NumPy, from the normal equations."""
    offset = weight @ y / weight.sum()
    return np.linalg.solve(kernel + penalty * np.diag(1 / weight), y - offset), offset


@pytest.mark.parametrize("penalty", [0.1, 1.0, 10.0])
def test_regression_and_rows_left_out_are_those_of_a_dense_solver(rows, weight, penalty):
    y, scale = targets(), Distances(3.0, 2.0)
    kernel = laplacian(torch.tensor(rows), torch.tensor(rows), scale)
    ridge = kernel_ridge(kernel, torch.tensor(y), torch.tensor(weight), penalty)
    coefficients, offset = solved(kernel.numpy(), y, weight, penalty)
    assert_allclose(ridge.coefficients, coefficients, rtol=1e-9, atol=1e-12)
    assert_allclose(ridge.offset, offset, rtol=1e-12)
    for row in range(30):
        rest = weight - np.minimum(weight, 1) * (np.arange(30) == row)
        part = rest > 0
        kernel_of_part = kernel.numpy()[np.ix_(part, part)]
        coefficients, offset = solved(kernel_of_part, y[part], rest[part], penalty)
        # By a regression of its own on what is left, mean and all.
        expected = offset + kernel.numpy()[row, part] @ coefficients
        assert_allclose(ridge.left_out[row], expected, rtol=1e-8, atol=1e-10)


def test_weights_are_repetitions(rows, weight):
    weight = np.ceil(weight)
    y, scale = targets(), Distances(3.0, 2.0)
    again = np.repeat(np.arange(30), weight.astype(int))
    x = torch.tensor(rows)
    ridge = kernel_ridge(laplacian(x, x, scale), torch.tensor(y), torch.tensor(weight), 1.0)
    x = x[again]
    ones = torch.ones(len(x), dtype=torch.float64)
    repeated = kernel_ridge(laplacian(x, x, scale), torch.tensor(y)[again], ones, 1.0)
    total = np.zeros((30, 3))
    np.add.at(total, again, repeated.coefficients.numpy())
    assert_allclose(total, ridge.coefficients, rtol=1e-7, atol=1e-9)
    # Of a row that is there several times, one is left out.
    assert_allclose(repeated.left_out, ridge.left_out[again], rtol=1e-7, atol=1e-9)


def test_rows_that_are_alike_and_count_without_limit_have_the_mean_of_their_targets(rows):
    x = torch.tensor(rows)
    x[1], y = x[0], torch.tensor(targets())
    kernel, weight = laplacian(x, x, mean_distances(x)), torch.ones(30, dtype=x.dtype)
    weight[:2] = 1e300
    ridge = kernel_ridge(kernel, y, weight, 1.0)
    outputs = kernel @ ridge.coefficients + ridge.offset
    assert_allclose(outputs[:2], y[:2].mean(0).expand(2, -1), atol=1e-3)
    assert torch.isfinite(ridge.left_out).all()


def test_outputs_of_classes_sum_to_one(rows, weight):
    x = torch.tensor(rows)
    kernel = laplacian(x, x, Distances(3.0, 2.0))
    ridge = kernel_ridge(kernel, torch.tensor(targets()), torch.tensor(weight), 1.0)
    # Ridge regression is linear in the targets, which do.
    assert_allclose((ridge.offset + kernel @ ridge.coefficients).sum(1), 1, rtol=1e-12)
    assert_allclose(ridge.left_out.sum(1), 1, rtol=1e-10)


def test_one_row_is_its_own_mean():
    one = torch.ones(1, 1, dtype=torch.float64)
    ridge = kernel_ridge(one, torch.tensor([[0.0, 1.0]]).double(), torch.ones(1).double(), 1.0)
    assert_allclose(ridge.coefficients, 0)
    assert torch.isfinite(ridge.left_out).all()


def test_logarithms_of_shares_keep_the_order():
    outputs = torch.linspace(-5, 5, 2001, dtype=torch.float64)
    found = log_shares(outputs)
    # Outputs below 0 have logarithms too, and no two of them the same.
    assert torch.isfinite(found).all()
    assert (found.diff() > 0).all()
    assert_allclose(found[outputs > 0.3], outputs[outputs > 0.3].log(), atol=0.02)


@pytest.mark.parametrize("sign", [1, -1])
def test_calibration_keeps_the_order_whatever_the_labels(sign):
    outputs = torch.linspace(-0.2, 1.2, 40, dtype=torch.float64)
    outputs = torch.stack([1 - outputs, outputs], dim=1)
    labels = (sign * torch.arange(40) > sign * 20).double()
    found = calibrated(outputs, torch.stack([1 - labels, labels], dim=1))
    # Also where the outputs of rows that were left out are in the wrong order, by bad luck.
    log_odds = found.log_odds(outputs)
    assert ((log_odds[:, 1] - log_odds[:, 0]).diff() > 0).all()
    # Which says how far to trust them.
    assert (found.slope > math.exp(0.2)) == (sign == 1)


def test_calibration_is_the_most_probable_one():
    generator = torch.Generator().manual_seed(0)
    outputs = torch.rand(50, 3, generator=generator, dtype=torch.float64)
    outputs /= outputs.sum(1, keepdim=True)
    y = torch.eye(3, dtype=torch.float64)[torch.multinomial(outputs, 1, generator=generator)[:, 0]]
    y *= torch.rand(50, 1, generator=generator) * 2

    def loss(slope, shift):
        log_odds = Calibration(slope, tuple(shift)).log_odds(outputs)
        prior = (math.log(slope) - 0.2) ** 2 / 0.5 + 4 * np.square(shift).sum()
        return float(-(y * log_odds.log_softmax(1)).sum() + prior)

    found = calibrated(outputs, y)
    best = loss(found.slope, found.shift)
    for step in (0.01, -0.01):
        assert loss(found.slope * (1 + step), found.shift) > best
        for k in range(3):
            assert loss(found.slope, np.array(found.shift) + step * np.eye(3)[k]) > best


def test_few_labels_hardly_move_the_calibration():
    outputs = torch.tensor([[0.9, 0.1], [0.2, 0.8]], dtype=torch.float64)
    found = calibrated(outputs, torch.eye(2, dtype=torch.float64))
    # Two rows that are right, however clearly, are no reason to be sure.
    assert 1 < found.slope < 1.7


def test_left_out_rows_choose_the_mixture(rows, weight):
    """Of all mixtures, by a fit without each row in turn."""
    x, w = torch.tensor(rows / rows.std(axis=0)), torch.tensor(weight).ceil()
    y = x[:, 0] + 0.3 * torch.tensor(np.random.default_rng(3).normal(size=30))
    y[4] = 100.0
    kernel, linear = laplacian(x, x, mean_distances(x)), x @ x.T / 4
    found = chosen_mixture(kernel, linear, y, w, 1.0)
    # Quartiles of rows that are there as often as their weights say.
    repeated = np.repeat(y.numpy(), w.numpy().astype(int))
    low, middle, high = np.quantile(repeated, [0.25, 0.5, 0.75], method="inverted_cdf")
    far = 5 * (high - low) / 1.349
    assert_allclose(found[2:], [middle - far, middle + far], rtol=1e-12)
    target = y.clamp(*found[2:])

    def loss(share, of_columns):
        mixed, total = share * kernel + of_columns * linear, 0.0
        for row in range(30):
            without = w.clone()
            without[row] -= 1
            kept = without > 0
            own = target[kept].unsqueeze(1), without[kept], 1.0
            ridge = kernel_ridge(mixed[kept][:, kept], *own)
            output = ridge.offset + mixed[row, kept] @ ridge.coefficients
            total += float(w[row] * (output - target[row]).square())
        return total

    best = loss(*found[:2])
    for other in ((1, 0), (0, 1), (10, 0), (10, 10), (1, 1), (3, 0.3), (0, 10)):
        assert loss(*other) >= best * (1 - 1e-9)
    # Large numbers that other rows tell of are no outliers.
    y = (torch.arange(30) < 7) * 50.0 + x[:, 1]
    z = (y - y.mean()) / y.std()
    found = chosen_mixture(0 * kernel, torch.outer(z, z), y, torch.ones_like(w), 1.0)
    assert found[2:] == (-math.inf, math.inf)


def test_no_number_is_far_where_most_are_one():
    x = torch.randn(20, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = torch.zeros(20, dtype=torch.float64)
    y[:3] = 1.0
    found = chosen_mixture(x @ x.T, x @ x.T, y, torch.ones(20, dtype=torch.float64), 1.0)
    assert found[2:] == (-math.inf, math.inf)
