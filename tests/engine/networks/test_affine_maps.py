"""Chains of affine maps against torch's layers and autograd."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.nn import functional

from skae.engine.networks.activations import ACTIVATIONS
from skae.engine.networks.layers import AffineChain, AffineMap, Network, decoder_maps, encoder_maps
from skae.engine.networks.objectives import auto_encoder
from skae.engine.networks.units import Bernoulli, Gaussian
from skae.engine.optimisation.devices import random_mask
from skae.engine.optimisation.parameters import Parameters
from skae.engine.stacks.stacking import stacked

SIZES = (6, 5, 4, 3)
FUNCTIONS = {
    "sigmoid": functional.sigmoid,
    "tanh": functional.tanh,
    "relu": functional.relu,
    "softplus": functional.softplus,
    "leaky_relu": partial(functional.leaky_relu, negative_slope=0.1),
    "linear": lambda p: p,
}
assert_same = partial(torch.testing.assert_close, rtol=1e-10, atol=1e-13)


def seeded():
    return torch.Generator().manual_seed(3)


def make_maps(activation="tanh", transposed=(), scaled=(), dropout=(0.0, 0.0, 0.0)):
    """Three maps 6 -> 5 -> 4 -> 3; the numbers of those that are transposed, or have a gain."""
    maps = []
    for k, rate in enumerate(dropout):
        n = SIZES[k]
        gain = torch.linspace(-0.5, 1.5, n, dtype=torch.float64) if k in scaled else None
        shift = torch.linspace(0.7, -0.2, n, dtype=torch.float64) if k in scaled else None
        names = f"weight_{k}", f"bias_{k}"
        maps.append(AffineMap(*names, ACTIVATIONS[activation], k in transposed, gain, shift, rate))
    return maps


def make_theta(maps, generator, **others):
    shapes = {}
    for k, step in enumerate(maps):
        shape = SIZES[k : k + 2]
        shapes[step.weight] = shape if step.transposed else shape[::-1]
        shapes[step.bias] = shape[1:]
    theta = Parameters(shapes | others, dtype=torch.float64)
    theta.flat.normal_(0.0, 0.8, generator=generator)
    return theta


def reference(theta, x, maps, functions, generator=None):
    """The chain by torch's own layers, with the masks that the generator gives."""
    for k, (step, function) in enumerate(zip(maps, functions, strict=True)):
        if step.dropout > 0 and generator is not None:
            keep = random_mask(x, 1 - step.dropout, generator)
            x = torch.where(keep, x / (1 - step.dropout), 0.0)
        if step.gain is not None:
            x = step.gain * x + step.shift
        weight = theta[step.weight]
        x = functional.linear(x, weight.t() if step.transposed else weight, theta[step.bias])
        x = x if k == len(maps) - 1 else function(x)
    return x


def check(chain, theta, x, functions, generator):
    """Forward and backward of a chain on one batch, against torch's layers and autograd."""
    flat = theta.flat.clone().requires_grad_()
    expected = reference(Parameters(theta.shapes, flat), x, chain.maps, functions, seeded())
    cotangent = torch.randn(expected.shape, dtype=x.dtype, generator=generator)
    (gradient,) = torch.autograd.grad((cotangent * expected).sum(), flat)

    out, before = theta.empty_like(), (theta.flat.clone(), x.clone())
    out.flat.fill_(torch.nan)
    with torch.no_grad():
        output = chain.forward(theta, x, seeded())
        # The same products and sums as torch's own layers.
        assert_same(output, expected.detach())
        chain.backward_(theta, cotangent.clone(), out, 0.3)
    # The chain rule, written out, is what autograd does; NaN that lay in ``out`` is gone.
    assert_same(out.flat, 0.3 * gradient)
    # Neither the parameters nor the batch may change.
    assert torch.equal(theta.flat, before[0])
    assert torch.equal(x, before[1])


@pytest.fixture
def x(generator):
    return torch.randn(9, SIZES[0], dtype=torch.float64, generator=generator)


def test_every_activation_has_a_peer():
    # The comparisons below must not miss an activation that is added later.
    assert set(FUNCTIONS) == set(ACTIVATIONS)


CASES = [
    {},
    {"transposed": (0, 1, 2)},
    {"scaled": (0, 1, 2)},
    {"dropout": (0.3, 0.5, 0.6)},
    {"transposed": (1, 2), "scaled": (0, 2), "dropout": (0.0, 0.4, 0.2)},
    {"transposed": (0,), "scaled": (1,), "dropout": (0.3, 0.3, 0.0)},
]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_chains_match_torch(activation, case, x, generator):
    maps = make_maps(activation, **case)
    theta = make_theta(maps, generator)
    check(AffineChain(maps), theta, x, [FUNCTIONS[activation]] * 3, generator)


@pytest.mark.parametrize("length", [1, 2])
def test_short_chains_match_torch(length, x, generator):
    maps = make_maps(scaled=(0, 1), dropout=(0.4, 0.2, 0.0))[:length]
    check(AffineChain(maps), make_theta(maps, generator), x, [torch.tanh] * length, generator)


def test_a_matrix_that_is_used_up_and_down(x, generator):
    up = make_maps("sigmoid")[:2]
    down = [
        AffineMap("weight_1", "down_1", ACTIVATIONS["tanh"], True),
        AffineMap("weight_0", "down_0", ACTIVATIONS["tanh"], True),
    ]
    theta = make_theta(up, generator, down_1=(5,), down_0=(6,))
    functions = [torch.sigmoid, torch.sigmoid, torch.tanh, torch.tanh]
    # Tied weights: the gradient is the sum over both uses.
    check(AffineChain(up + down), theta, x, functions, generator)


def test_one_map_that_is_applied_three_times(x, generator):
    (step,) = make_maps("tanh", scaled=(0,))[:1]
    theta = Parameters({"weight_0": (6, 6), "bias_0": (6,)}, dtype=torch.float64)
    theta.flat.normal_(0.0, 0.5, generator=generator)
    # A position in the chain, not the map, says where the activation is left out.
    check(AffineChain([step] * 3), theta, x, [torch.tanh] * 3, generator)


def test_buffers_of_one_batch_do_not_leak_into_the_next(x, generator):
    maps = make_maps("softplus", transposed=(1,), scaled=(1,), dropout=(0.2, 0.3, 0.0))
    chain, theta = AffineChain(maps), make_theta(maps, generator)
    for rows in (slice(0, 5), slice(5, 9), slice(2, 7), slice(3, 4)):
        # Buffers are used again for batches of the same size, each with its own results.
        check(chain, theta, x[rows], [functional.softplus] * 3, generator)


def test_inputs_drop_out_in_training_alone(x, generator):
    maps = make_maps(dropout=(0.3, 0.5, 0.6))
    chain, theta = AffineChain(maps), make_theta(maps, generator)
    whole = [step._replace(dropout=0.0) for step in maps]
    # Without a generator nothing is random: the chain is that without dropout.
    assert_same(chain.forward(theta, x), reference(theta, x, whole, [torch.tanh] * 3))
    # With one, its state alone decides.
    first = chain.forward(theta, x, seeded()).clone()
    assert torch.equal(chain.forward(theta, x, seeded()), first)
    # And inputs are left out.
    assert not torch.allclose(first, chain.forward(theta, x))


def test_inputs_drop_out_with_their_probability():
    x = torch.ones(4000, 6, dtype=torch.float64)
    (step,) = make_maps(dropout=(0.3, 0.0, 0.0))[:1]
    theta = Parameters({"weight_0": (6, 6), "bias_0": (6,)}, dtype=torch.float64)
    theta["weight_0"].copy_(torch.eye(6))
    theta["bias_0"].zero_()
    seen = AffineChain([step]).forward(theta, x, seeded())
    # An identity shows its input: nothing, or 1 / (1 - 0.3).
    kept = seen != 0
    assert_same(seen[kept], torch.full_like(seen[kept], 1 / 0.7))
    # 24000 coins have a standard error of sqrt(0.7 0.3 / 24000) = 0.003.
    assert abs(float(kept.double().mean()) - 0.7) < 4.5 * 0.003


def test_parameters_outside_of_the_chain_are_cleared_and_no_others(x, generator):
    maps = make_maps()
    chain = AffineChain(maps)
    theta = make_theta(maps, generator, decoder=(4, 2), gain=(3,))
    out = theta.empty_like()
    out.flat.fill_(7.0)
    chain.clear_others_(out)
    # The chain depends on none of them, so their derivatives are 0.
    assert not out["decoder"].any()
    assert not out["gain"].any()
    # `backward_` writes the others.
    assert all((out[step.weight] == 7).all() and (out[step.bias] == 7).all() for step in maps)
    chain.backward_(theta, chain.forward(theta, x), out, 1.0)
    # Which leaves those outside alone.
    assert not out["decoder"].any()
    assert not out["gain"].any()


def make_models(affine=True, decodable=True):
    """Three layers: Bernoulli and Gaussian units between them, one standardised, one tied."""
    models = []
    kinds = [("tanh", True), ("sigmoid", False), ("softplus", True)]
    for k, (activation, tied) in enumerate(kinds):
        network = Network(SIZES[k : k + 2], activation, tied)
        model = auto_encoder(
            network,
            Gaussian(0.2) if k == 1 else Bernoulli(),
            torch.zeros(SIZES[k]),
            None,
            torch.linspace(-1, 1, SIZES[k], dtype=torch.float64) if k == 1 else None,
            torch.linspace(0.5, 2, SIZES[k], dtype=torch.float64) if k == 1 else None,
        )
        if k == 1 and not affine:
            model = replace(model, encoder=None)
        if k == 1 and not decodable:
            model = replace(model, decoder=None)
        models.append(model)
    return models


def test_maps_of_models_are_their_encoders_and_decoders(x, generator):
    models = make_models()
    whole = stacked(models, 4)
    theta = Parameters(whole.shapes, dtype=torch.float64)
    theta.flat.normal_(0.0, 0.7, generator=generator)
    code = whole.encode(theta, x)
    pre = AffineChain(encoder_maps(models, 4)).forward(theta, x)
    # (h - shift) / scale is affine too; the last activation is left to the caller.
    assert_same(functional.softplus(pre), code)
    # Units' means between layers are activations, scale and shift a gain and a shift.
    output = AffineChain(decoder_maps(models, 4)).forward(theta, code)
    assert_same(output, whole.decode(theta, code))


def test_dropout_of_the_data_and_of_hidden_units():
    models = make_models()
    # The lowest model's inputs are the data, the others' are hidden units.
    maps = encoder_maps(models, dropout=(0.2, 0.5))
    assert [step.dropout for step in maps] == [0.2, 0.5, 0.5]
    # By default nothing drops out.
    assert [step.dropout for step in encoder_maps(models)] == [0.0, 0.0, 0.0]


def test_models_that_are_no_affine_maps_have_none():
    models = make_models(affine=False)
    # One encoder that is no affine map makes the whole none, its decoder may still be one.
    assert encoder_maps(models) is None
    assert len(decoder_maps(models)) == 3
    models = make_models(decodable=False)
    # And the other way round.
    assert decoder_maps(models) is None
    assert len(encoder_maps(models)) == 3


def test_no_models_are_no_maps():
    # An empty chain is an affine chain: the identity, which is not None.
    assert encoder_maps([]) == []
    assert decoder_maps([]) == []
