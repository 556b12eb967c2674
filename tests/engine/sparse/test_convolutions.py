"""Convolutions against loops, their codes against the lasso, gradients against autograd."""

import itertools
import math

import pytest
import torch
from sklearn.linear_model import Lasso
from torch.nn.functional import conv_transpose2d

from skae.engine.optimisation.parameters import Parameters
from skae.engine.sparse.linear_maps import (
    PADDINGS,
    Convolution,
    _transposed_by_blocks,
    squared_norm,
)
from skae.engine.sparse.predictive import (
    PREDICTORS,
    PredictiveDecomposition,
    initialize_,
    parameter_shapes,
    project_,
)
from skae.engine.sparse.problem import L1, fista, make_quadratic

# Odd and even sides, one or more channels, signals, filters as large as the image.
SHAPES = [((7, 6, 2), (3, 2)), ((1, 9, 1), (1, 4)), ((5, 5, 3), (5, 5)), ((8, 8, 1), (3, 3))]
# A fifth of all combinations, in which every pair of values occurs.
GEOMETRIES = [
    Convolution(image, side, 3, stride, padding, period)
    for (image, side), stride, padding, period in itertools.product(
        SHAPES, (1, 2), PADDINGS, (1, 2, 3, None)
    )
][::5]


def draw(*shape, generator):
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def windows(convolution):
    """(row of the window, its column, its bank, top pixel, left pixel), from the definition."""
    (height, width, _), side = convolution.image_shape, convolution.filter_shape
    rows, columns, _ = convolution.maps_shape
    stride, period = convolution.stride, convolution.period
    before = {
        "valid": (0, 0),
        "full": (side[0] - 1, side[1] - 1),
        "same": [
            max((n - 1) * stride + s - image, 0) // 2
            for n, s, image in zip((rows, columns), side, (height, width), strict=True)
        ],
    }[convolution.padding]
    period = max(rows, columns) if period is None else period
    across = min(period, columns)
    for i, j in itertools.product(range(rows), range(columns)):
        bank = (i % period) * across + j % period
        yield i, j, bank, i * stride - before[0], j * stride - before[1]


def slow_analysis(convolution, filters, image):
    (height, width, channels), side = convolution.image_shape, convolution.filter_shape
    image = image.view(height, width, channels)
    kernels = filters.view(-1, convolution.n_filters, *side, channels)
    maps = torch.zeros(convolution.maps_shape, dtype=image.dtype)
    for i, j, bank, top, left in windows(convolution):
        for a, b in itertools.product(range(side[0]), range(side[1])):
            if 0 <= top + a < height and 0 <= left + b < width:
                maps[i, j] += kernels[bank, :, a, b] @ image[top + a, left + b]
    return maps.view(-1)


@pytest.mark.parametrize("convolution", GEOMETRIES, ids=str)
def test_analysis_is_the_product_of_each_window_with_its_filters(convolution, generator):
    filters = draw(*convolution.filters_shape, generator=generator)
    images = draw(2, convolution.n_features, generator=generator)
    maps = convolution.analyze(filters, images)
    # The definition, one pixel at a time.
    expected = torch.stack([slow_analysis(convolution, filters, image) for image in images])
    torch.testing.assert_close(maps, expected)
    shift = draw(len(filters), generator=generator)
    # A shift of a filter is one of all its codes.
    expected += convolution.spread(shift)
    torch.testing.assert_close(convolution.analyze(filters, images, shift), expected)


@pytest.mark.parametrize("convolution", GEOMETRIES, ids=str)
def test_synthesis_and_filter_gradient_are_adjoints(convolution, generator):
    filters = draw(*convolution.filters_shape, generator=generator)
    images = draw(3, convolution.n_features, generator=generator)
    maps = draw(3, convolution.n_codes, generator=generator)
    product = (maps * convolution.analyze(filters, images)).sum()
    # Analysis is linear in the image, with the adjoint synthesis ...
    torch.testing.assert_close((images * convolution.synthesize(filters, maps)).sum(), product)
    # ... and linear in the filters, so that its gradient gives back the product.
    gradient = convolution.filter_gradient(images, maps)
    torch.testing.assert_close((filters * gradient).sum(), product)

    values = draw(len(filters), generator=generator)
    # To repeat what belongs to a filter at its codes is adjoint to summing over them.
    torch.testing.assert_close(
        (convolution.spread(values) * maps[0]).sum(), (values * convolution.collect(maps[0])).sum()
    )


@pytest.mark.parametrize("convolution", GEOMETRIES, ids=str)
def test_spread_values_belong_to_the_filters(convolution):
    n_filters = len(torch.empty(convolution.filters_shape))
    spread = convolution.spread(torch.arange(n_filters)).view(convolution.maps_shape)
    for i, j, bank, _, _ in windows(convolution):
        # Window (i, j) has the filters of its bank, which are rows of all filters.
        assert spread[i, j].tolist() == [bank * 3 + k for k in range(3)]


def test_every_pixel_is_seen_where_there_is_padding(generator):
    for convolution in GEOMETRIES:
        if convolution.padding != "valid" and convolution.stride <= min(convolution.filter_shape):
            filters = torch.ones(convolution.filters_shape)
            maps = torch.ones(1, convolution.n_codes)
            # Windows no farther apart than they are wide cover the image, borders included.
            assert (convolution.synthesize(filters, maps) > 0).all()


@pytest.mark.parametrize("padding", PADDINGS)
def test_sharing_has_its_two_ends(padding, generator):
    shared, tiled, apart = (
        Convolution((7, 6, 2), (3, 2), 3, 1, padding, period) for period in (1, 100, None)
    )
    filters = draw(*shared.filters_shape, generator=generator)
    images = draw(2, shared.n_features, generator=generator)
    copies = filters.repeat(math.prod(shared.maps_shape[:2]), 1)
    # Equal filters everywhere are a convolution.
    torch.testing.assert_close(apart.analyze(copies, images), shared.analyze(filters, images))
    # A period beyond the map never repeats.
    assert tiled.filters_shape == apart.filters_shape == copies.shape
    copies = draw(*copies.shape, generator=generator)
    torch.testing.assert_close(tiled.analyze(copies, images), apart.analyze(copies, images))


@pytest.mark.parametrize("block", [(1, 2), (2, 2), (4, 4), (1, 4)])
@pytest.mark.parametrize("channels", [1, 3])
def test_synthesis_by_blocks_is_the_transposed_convolution(block, channels, generator):
    for height, width in [(6, 5), (4, 8), (1, 3)]:
        maps = draw(2, 4, height, width, generator=generator)
        kernels = draw(4, channels, 3, 2, generator=generator)
        # Only the order in which the products are summed differs.
        torch.testing.assert_close(
            _transposed_by_blocks(maps, kernels, block), conv_transpose2d(maps, kernels)
        )


def test_large_float32_batches_agree_with_float64(generator):
    convolution = Convolution((24, 20, 1), (5, 4), 8)
    filters = draw(*convolution.filters_shape, generator=generator)
    maps = draw(40, convolution.n_codes, generator=generator)
    assert maps.numel() >= 2**16  # by blocks
    images = convolution.synthesize(filters.float(), maps.float())
    # A sum of some 160 products, rounded to float32.
    torch.testing.assert_close(
        images.double(), convolution.synthesize(filters, maps), atol=1e-4, rtol=0
    )


def dense_matrix(convolution, filters):
    """D as a matrix, one atom for each code."""
    codes = torch.eye(convolution.n_codes, dtype=filters.dtype)
    return convolution.synthesize(filters, codes)


@pytest.mark.parametrize("period", [1, 2, None])
def test_squared_norm_is_close_to_the_largest_eigenvalue(period, generator):
    convolution = Convolution((8, 7, 2), (3, 3), 4, period=period)
    filters = draw(*convolution.filters_shape, generator=generator)
    largest = torch.linalg.matrix_norm(dense_matrix(convolution, filters), 2).square().item()
    norm = squared_norm(convolution, filters)
    # Lanczos' steps come from below; steps of FISTA may be a third too long.
    assert 0.95 * largest < norm <= largest * (1 + 1e-12)
    # With more steps they arrive.
    assert squared_norm(convolution, filters, 200) == pytest.approx(largest, rel=1e-6)
    # Filters of zeros have no direction to iterate along.
    assert squared_norm(convolution, torch.zeros_like(filters)) == 0


def infer(convolution, filters, x, alpha, **parameters):
    quadratic = make_quadratic(filters, x, convolution, **parameters)
    return fista(quadratic, L1(alpha), tol=1e-13, max_iter=20000)


@pytest.mark.parametrize(
    "convolution",
    [Convolution((4, 4, 1), (4, 4), 12), Convolution((6, 5, 2), (3, 3), 3, 1, "full")],
    ids=["one window", "many windows"],
)
def test_codes_are_those_of_the_lasso(convolution, generator):
    filters = draw(*convolution.filters_shape, generator=generator)
    x = draw(3, convolution.n_features, generator=generator)
    result = infer(convolution, filters, x, 0.8)
    matrix = dense_matrix(convolution, filters).T.numpy()
    for row, code in zip(x.numpy(), result.codes.numpy(), strict=True):
        lasso = Lasso(alpha=0.8 / len(row), fit_intercept=False, tol=1e-13, max_iter=1_000_000)
        # A convolution is a matrix: scikit-learn solves the same problem, its loss divided by
        # the number of pixels.
        assert abs(lasso.fit(matrix, row).coef_ - code).max() < 1e-6


@pytest.mark.parametrize("period", [1, 2, None])
def test_codes_fulfil_the_conditions_of_an_optimum(period, generator):
    convolution = Convolution((7, 6, 2), (3, 3), 3, 1, "same", period)
    filters = draw(*convolution.filters_shape, generator=generator)
    x = draw(3, convolution.n_features, generator=generator)
    attractor = draw(3, convolution.n_codes, generator=generator)
    alpha, ridge = 0.7, 0.4
    code = infer(convolution, filters, x, alpha, ridge=ridge, attractor=attractor).codes
    descent = convolution.analyze(filters, x - convolution.synthesize(filters, code))
    descent += ridge * (attractor - code)
    active = code != 0
    assert 0 < active.double().mean() < 1
    # 0 is a subgradient: the smooth part pulls with alpha at codes that are not 0 ...
    torch.testing.assert_close(descent[active], alpha * code[active].sign(), atol=1e-5, rtol=0)
    # ... and with no more at those that are.
    assert (descent[~active].abs() <= alpha + 1e-5).all()


def test_the_gap_bounds_what_is_missing(generator):
    convolution = Convolution((7, 6, 2), (3, 3), 3)
    filters = draw(*convolution.filters_shape, generator=generator)
    x = draw(4, convolution.n_features, generator=generator)
    best = infer(convolution, filters, x, 0.5).objective
    quadratic = make_quadratic(filters, x, convolution)
    for n_steps in (1, 10, 40):
        result = fista(quadratic, L1(0.5), tol=1e-13, max_iter=n_steps)
        error = x - convolution.synthesize(filters, result.codes)
        value = 0.5 * error.square().sum(1) + 0.5 * result.codes.abs().sum(1)
        # What is reported is the value at the codes ...
        torch.testing.assert_close(result.objective, value)
        # ... and by weak duality no code is better by more than the gap.
        assert (result.objective - best <= result.gap + 1e-9).all()
        assert n_steps > 1 or (result.gap > 1e-3).all()


def test_rows_do_not_depend_on_their_neighbours(generator):
    convolution = Convolution((7, 6, 1), (3, 3), 3)
    filters = draw(*convolution.filters_shape, generator=generator)
    # Rows of very different size need different numbers of steps, and leave one by one.
    x = draw(4, convolution.n_features, generator=generator)
    x *= torch.tensor([0.0, 0.1, 1.0, 10.0], dtype=x.dtype).unsqueeze(1)
    together = fista(make_quadratic(filters, x, convolution), L1(0.5))
    for i in range(len(x)):
        alone = make_quadratic(filters, x[i : i + 1], convolution)
        # Momentum, restarts and the end are each row's own.
        torch.testing.assert_close(
            fista(alone, L1(0.5)).codes[0], together.codes[i], atol=1e-10, rtol=1e-10
        )
    # A black image has no code.
    assert (together.codes[0] == 0).all()


def random_model(activation, period, generator, tol=1e-13):
    convolution = Convolution((7, 6, 2), (3, 3), 4, period=period)
    theta = Parameters(parameter_shapes(convolution, activation), dtype=torch.float64)
    initialize_(theta, convolution, activation, 0.3, generator, from_zero=True)
    theta.flat.add_(draw(len(theta.flat), generator=generator), alpha=0.2)
    project_(theta)
    inference = {"tol": tol, "max_iter": 20000}
    return theta, PredictiveDecomposition(convolution, L1(0.3), 0.7, activation, 2.0, **inference)


@pytest.mark.parametrize("activation", PREDICTORS)
@pytest.mark.parametrize(("period", "weighted"), [(1, False), (2, True), (None, True)])
def test_gradient_is_that_of_autograd_with_codes_held_fixed(
    activation, period, weighted, generator
):
    theta, objective = random_model(activation, period, generator)
    x = draw(6, objective.linear_map.n_features, generator=generator)
    weight = torch.rand(6, dtype=x.dtype, generator=generator) if weighted else None
    out, expected = theta.empty_like(), theta.empty_like()
    with torch.no_grad():
        value = objective.gradient(theta, x, None, out, weight)
    expected.flat.zero_()
    by_autograd = objective.value(theta.tracked(expected), x, None, weight)
    by_autograd.backward()
    # The closed form is the derivative of the formula.
    torch.testing.assert_close(out.flat, expected.flat)
    # All three say the same about the objective.
    torch.testing.assert_close(value, by_autograd.detach())
    with torch.no_grad():
        torch.testing.assert_close(objective.criterion(theta, x, None, weight), value)


@pytest.mark.parametrize("activation", PREDICTORS)
def test_gradient_is_that_of_the_minimum_over_codes(activation, generator):
    theta, objective = random_model(activation, 1, generator)
    if "threshold" in theta:
        theta["threshold"].add_(0.1)  # off the bound, where only one side is defined
    x = draw(6, objective.linear_map.n_features, generator=generator)
    direction, middle, step = draw(len(theta.flat), generator=generator), theta.flat.clone(), 1e-6
    out, values = theta.empty_like(), []
    with torch.no_grad():
        objective.gradient(theta, x, None, out)
        for sign in (1, -1):
            theta.flat.copy_(middle + sign * step * direction)
            values.append(objective.criterion(theta, x, None).item())
    # By the envelope theorem: codes that move with the parameters change the minimum in second
    # order only. Central differences of step s err by s^2, and by the gap over s. The step is so
    # small that hardly any pre-activation crosses a threshold, where there is no derivative.
    slope = (values[0] - values[1]) / (2 * step)
    assert slope == pytest.approx(float(out.flat @ direction), rel=1e-5, abs=1e-5)
