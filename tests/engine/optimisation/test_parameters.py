"""One flat tensor, named views."""

import numpy as np
import pytest
import torch

from skae.engine.optimisation.parameters import Parameters

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


STACKED = {"1.weight": (2, 3), "1.bias": (2,), "10.weight": (1, 2), "10.gain": (), "output": (4,)}


@pytest.fixture
def stacked(generator):
    theta = Parameters(STACKED, dtype=torch.float64)
    theta.flat.normal_(generator=generator)
    return theta


def test_parts_are_named_without_their_prefix(stacked):
    shapes = {
        prefix: {name: tuple(part[name].shape) for name in part}
        for prefix in ("1.", "10.")
        for part in [stacked.part(prefix)]
    }
    # Layer 1 is not layer 10: the point belongs to the prefix.
    assert shapes == {"1.": {"weight": (2, 3), "bias": (2,)}, "10.": {"weight": (1, 2), "gain": ()}}
    # And what it says of its shapes is what it has.
    assert {prefix: stacked.part(prefix).shapes for prefix in shapes} == shapes
    assert "bias" in stacked.part("1.")
    assert "1.bias" not in stacked.part("1.")


def test_parts_are_the_same_memory(stacked):
    # A part is 8 numbers from the start on, or the 3 behind them.
    assert torch.equal(stacked.part("1.").flat, stacked.flat[:8])
    assert torch.equal(stacked.part("10.").flat, stacked.flat[8:11])
    before = stacked.flat.clone()
    stacked.part("10.").flat.fill_(5.0)
    # Written through the part's vector, seen in its views, in the whole's and in its vector,
    assert float(stacked.part("10.")["gain"]) == 5.0
    assert stacked["10.weight"].tolist() == [[5.0, 5.0]]
    assert stacked.flat[8:11].tolist() == [5.0, 5.0, 5.0]
    # and nowhere else.
    assert torch.equal(stacked.flat[:8], before[:8])
    assert torch.equal(stacked.flat[11:], before[11:])
    stacked["1.bias"].fill_(7.0)
    # And the other way round.
    assert stacked.part("1.")["bias"].tolist() == [7.0, 7.0]
    assert stacked.part("1.").flat[6:].tolist() == [7.0, 7.0]
    # A layer's vector is one piece, as optimisers of single layers need it.
    assert stacked.part("1.").flat.is_contiguous()


def test_parts_are_made_once(stacked):
    # Every batch asks for them.
    assert stacked.part("1.") is stacked.part("1.")
    # But each vector has parts of its own.
    assert stacked.empty_like().part("1.").flat.data_ptr() != stacked.part("1.").flat.data_ptr()


def test_parts_have_what_parameters_have(stacked):
    part = stacked.part("1.")
    whole = Parameters({"1." + name: shape for name, shape in part.shapes.items()}, part.flat)
    # A part of the part is the part: names may have several points.
    assert torch.equal(whole.part("1.").part("we")["ight"], stacked["1.weight"])
    other = part.empty_like()
    other.flat.zero_()
    # Memory of its own, of the part's layout.
    assert other.shapes == part.shapes
    assert stacked.flat.all()
    # Fitted state of one layer is its arrays under their own names.
    assert {name: array.tolist() for name, array in part.to_numpy().items()} == {
        "weight": stacked["1.weight"].tolist(),
        "bias": stacked["1.bias"].tolist(),
    }


def test_parts_of_tracked_parameters_reach_the_flat_gradient(stacked):
    gradient = stacked.empty_like()
    gradient.flat.zero_()
    tracked = stacked.tracked(gradient)
    with torch.enable_grad():
        part = tracked.part("1.")
        value = part["weight"].square().sum() + 3 * part["bias"].sum() + tracked["output"].sum()
        value.backward()
    expected = torch.cat(
        [
            2 * stacked["1.weight"].reshape(-1),
            torch.tensor([3.0, 3.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0], dtype=torch.float64),
        ]
    )
    # d/dw sum w^2 = 2 w, d/db 3 sum b = 3, d/do sum o = 1, and 0 for the layer that is not used.
    torch.testing.assert_close(gradient.flat, expected)
    out = stacked.empty_like()
    out.flat.fill_(2.0)
    own = stacked.part("10.").tracked(out.part("10."))
    with torch.enable_grad():
        (4 * own["gain"]).backward()
    # A part can be tracked by itself: its gradient is added within the whole's.
    assert out.flat.tolist() == [2.0] * 10 + [6.0] + [2.0] * 4


def test_parts_of_a_vector_that_autograd_follows(stacked):
    flat = stacked.flat.clone().requires_grad_()
    part = Parameters(STACKED, flat).part("10.")
    (gradient,) = torch.autograd.grad(part["weight"].sum() + 2 * part.flat.sum(), flat)
    # Views and vector of a part are both functions of the whole vector.
    assert gradient.tolist() == [0.0] * 8 + [3.0, 3.0, 2.0] + [0.0] * 4


def test_a_prefix_that_no_name_has_is_refused(stacked):
    # The message names what was asked for, and what there is.
    with pytest.raises(KeyError, match=r"begins with '2\.'.*1\.weight.*output"):
        stacked.part("2.")


def test_parts_that_do_not_lie_together_are_refused():
    shapes = {"0.weight": (2,), "1.weight": (2,), "0.bias": (1,)}
    theta = Parameters(shapes, torch.zeros(5))
    # No single piece of the vector holds them.
    with pytest.raises(ValueError, match=r"'0\.weight', '0\.bias'.* do not lie together"):
        theta.part("0.")
