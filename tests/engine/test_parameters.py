"""One flat tensor, named views."""

import numpy as np
import pytest
import torch

from skae.engine.parameters import Parameters

SHAPES = {"weight": (2, 3), "bias": (2,), "gain": ()}


@pytest.fixture
def theta(generator):
    theta = Parameters(SHAPES, dtype=torch.float64)
    theta.flat.normal_(generator=generator)
    return theta


def test_views_tile_the_flat_tensor_in_order(theta):
    # The layout is the concatenation of the shapes: 6 + 2 + 1 (an empty product) numbers.
    assert theta.flat.shape == (9,)
    assert list(theta) == list(SHAPES)
    joined = torch.cat([theta[name].reshape(-1) for name in theta])
    # Every number belongs to exactly one view, so joining the views gives the vector back.
    assert torch.equal(joined, theta.flat)
    # Views have the shapes they were declared with.
    assert {name: tuple(theta[name].shape) for name in theta} == SHAPES


def test_views_share_memory_with_the_flat_tensor(theta):
    theta.flat.zero_()
    theta["bias"].fill_(1.0)
    # A view owns no memory, so a write through it is a write to its part of the vector.
    assert theta.flat.tolist() == [0, 0, 0, 0, 0, 0, 1, 1, 0]


def test_given_memory_is_viewed_not_copied():
    flat = torch.zeros(9)
    theta = Parameters(SHAPES, flat)
    flat.fill_(2.0)
    # ``flat`` is the memory itself, so later changes of it show in the views.
    assert float(theta["gain"]) == 2.0


def test_empty_like_has_the_layout_and_memory_of_its_own(theta):
    before = theta.flat.clone()
    other = theta.empty_like()
    other.flat.zero_()
    # A gradient buffer must never alias the parameters.
    assert torch.equal(theta.flat, before)
    assert other.flat.dtype == theta.flat.dtype
    assert other.shapes == theta.shapes


def test_tracked_views_accumulate_into_the_flat_gradient(theta):
    gradient = theta.empty_like()
    gradient.flat.fill_(1.0)
    tracked = theta.tracked(gradient)
    with torch.enable_grad():
        value = tracked["weight"].square().sum() + 3 * tracked["bias"].sum()
        value.backward()
    # d/dw sum w^2 = 2 w, added to the 1 that was there.
    torch.testing.assert_close(gradient["weight"], 1 + 2 * theta["weight"])
    # d/db 3 sum b = 3.
    torch.testing.assert_close(gradient["bias"], torch.full((2,), 4.0, dtype=torch.float64))
    # A parameter that the value does not depend on has gradient 0: nothing was added.
    assert float(gradient["gain"]) == 1.0
    # The parameters themselves stay outside of autograd, or optimiser steps would be recorded.
    assert not theta.flat.requires_grad
    assert not theta["weight"].requires_grad


def test_numpy_round_trip_is_exact_and_independent(theta):
    arrays = theta.to_numpy()
    before = theta.flat.clone()
    for array in arrays.values():
        array[...] = 0
    # Fitted state is a copy: changing it must not change the parameters.
    assert torch.equal(theta.flat, before)

    arrays = theta.to_numpy()
    again = Parameters.from_numpy(arrays, dtype=torch.float64, device="cpu")
    # float64 holds float64, so the way there and back is the identity.
    assert torch.equal(again.flat, theta.flat)
    again.flat.zero_()
    # And back: parameters made from fitted state must not alias it.
    np.testing.assert_array_equal(arrays["weight"], theta["weight"].numpy())


def test_from_numpy_takes_read_only_arrays():
    array = np.arange(6.0).reshape(2, 3)
    array.flags.writeable = False
    theta = Parameters.from_numpy({"weight": array}, dtype=torch.float32, device="cpu")
    # joblib hands fitted state to its workers as read-only maps; values convert to the dtype.
    assert theta["weight"].dtype == torch.float32
    assert theta.flat.tolist() == [0, 1, 2, 3, 4, 5]
