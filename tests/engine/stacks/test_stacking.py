"""Stacks of layers: codes, decodings and layerwise criteria against their formulae."""

import pytest
import torch

from skae.engine.boltzmann.learning import ContrastiveDivergence
from skae.engine.networks.corruptions import Masking
from skae.engine.networks.layers import Network, decode, encode
from skae.engine.networks.objectives import Reconstruction
from skae.engine.networks.penalties import CodeL1, HessianContraction
from skae.engine.networks.units import Bernoulli, Gaussian
from skae.engine.optimisation.parameters import Parameters
from skae.engine.stacks.stacking import Layerwise, Level, decode_levels, encode_levels

N_ROWS = 7
SIZES = (6, 5, 4, 3)
SHIFTS = [torch.linspace(-0.4, 0.6, n, dtype=torch.float64) for n in SIZES]
SCALES = [torch.linspace(0.3, 1.7, n, dtype=torch.float64) for n in SIZES]


def make_level(number, activation="sigmoid", units=None, standardised=False, tied=True):
    network = Network(SIZES[number : number + 2], activation, tied)
    level = Level(
        f"{number}.",
        lambda theta, x: encode(theta, x, network)[-1],
        lambda theta, code: decode(theta, code, network)[1],
        Bernoulli() if units is None else units,
        SHIFTS[number] if standardised else None,
        SCALES[number] if standardised else None,
    )
    return level, network


def make_theta(levels, networks, generator):
    shapes = {
        level.prefix + name: shape
        for level, network in zip(levels, networks, strict=True)
        for name, shape in network.parameter_shapes.items()
    }
    theta = Parameters(shapes, dtype=torch.float64)
    theta.flat.normal_(0.0, 0.7, generator=generator)
    return theta


def make_stack(generator, *choices):
    levels, networks = zip(*(make_level(k, **c) for k, c in enumerate(choices)), strict=True)
    return levels, networks, make_theta(levels, networks, generator)


@pytest.fixture
def x(generator):
    return torch.rand(N_ROWS, SIZES[0], dtype=torch.float64, generator=generator)


def seeded():
    return torch.Generator().manual_seed(5)


PLAIN, STANDARDISED = {}, {"units": Gaussian(0.4), "standardised": True}


@pytest.mark.parametrize("upper", [(PLAIN, STANDARDISED), (STANDARDISED, PLAIN)])
def test_codes_and_outputs_are_the_formulae(upper, x, generator):
    choices = [{"activation": "tanh", **PLAIN}, *({"activation": "softplus", **c} for c in upper)]
    levels, _, theta = make_stack(generator, *choices)
    standardised = [False, *("standardised" in c for c in upper)]
    functions = [torch.tanh, torch.nn.functional.softplus, torch.nn.functional.softplus]

    h, expected = x, []
    for k in range(3):
        z = (h - SHIFTS[k]) / SCALES[k] if standardised[k] else h
        h = functions[k](z @ theta[f"{k}.weight_0"].T + theta[f"{k}.hidden_bias_0"])
        expected.append(h)
    codes = encode_levels(theta, x, levels)
    # h_{l+1} = s_l((h_l - shift_l) / scale_l W_l^T + b_l), every layer's.
    for code, h in zip(codes, expected, strict=True):
        torch.testing.assert_close(code, h, rtol=1e-12, atol=1e-13)

    for k in (2, 1):
        a = h @ theta[f"{k}.weight_0"] + theta[f"{k}.visible_bias_0"]
        h = a * SCALES[k] + SHIFTS[k] if standardised[k] else 1 / (1 + torch.exp(-a))
    output = h @ theta["0.weight_0"] + theta["0.visible_bias_0"]
    # Downwards, Gaussian units give their pre-activation in the units of the codes below,
    # Bernoulli units a probability; the lowest layer's units are left to the criterion.
    torch.testing.assert_close(decode_levels(theta, codes[-1], levels), output)


def test_sigmoid_layers_are_a_deep_network(x, generator):
    levels, _, theta = make_stack(generator, PLAIN, PLAIN, PLAIN)
    deep = Network(SIZES, "sigmoid")
    names = {f"{name}_{k}": f"{k}.{name}_0" for k in range(3) for name in NAMES}
    same = Parameters(deep.parameter_shapes, dtype=torch.float64)
    for name, stacked in names.items():
        same[name].copy_(theta[stacked])
    hidden = encode(same, x, deep)
    # Layers that see each other's codes as they are, with units of the same sigmoid, are one
    # deep auto-encoder upwards ...
    for code, expected in zip(encode_levels(theta, x, levels), hidden, strict=True):
        torch.testing.assert_close(code, expected, rtol=0, atol=0)
    # ... and downwards.
    output = decode_levels(theta, hidden[-1], levels)
    torch.testing.assert_close(output, decode(same, hidden[-1], deep)[1])


NAMES = ("weight", "hidden_bias", "visible_bias")


def test_one_level_is_its_layer(x, generator):
    levels, (network,), theta = make_stack(generator, {**STANDARDISED, "tied": False})
    own = theta.part("0.")
    (code,) = encode_levels(theta, x, levels)
    # Rows come standardised for the lowest layer: nothing is done to them once more.
    assert torch.equal(code, encode(own, x, network)[-1])
    # Nor to its output, which is a pre-activation.
    assert torch.equal(decode_levels(theta, code, levels), decode(own, code, network)[1])


def make_layerwise(generator, *, noisy=True):
    """Three layers with criteria of different kinds, and the pieces they are made of."""
    levels, networks, theta = make_stack(generator, PLAIN, STANDARDISED, {"tied": False})
    criteria = [
        Reconstruction(networks[0], Bernoulli(), Masking(0.4) if noisy else None),
        Reconstruction(networks[1], Gaussian(0.4), penalties=[CodeL1(0.3, networks[1])]),
        Reconstruction(
            networks[2],
            Gaussian(-1.1),
            penalties=[HessianContraction(0.5, networks[2], 0.3, 2)] if noisy else (),
        ),
    ]
    return Layerwise(levels, criteria), networks, theta


def inputs(theta, x, networks):
    """What each layer of `make_layerwise` sees."""
    first = encode(theta.part("0."), x, networks[0])[-1]
    second = (first - SHIFTS[1]) / SCALES[1]
    return x, second, encode(theta.part("1."), second, networks[1])[-1]


@pytest.mark.parametrize("weighted", [False, True])
def test_layerwise_value_and_gradient_are_each_layers_own(weighted, x, generator):
    objective, networks, theta = make_layerwise(generator)
    weight = torch.rand(N_ROWS, dtype=x.dtype, generator=generator) if weighted else None
    before = theta.flat.clone(), x.clone()
    out = theta.empty_like()
    out.flat.fill_(torch.nan)
    reported = objective.gradient(theta, x, seeded(), out, weight)

    same, values = seeded(), []
    seen = zip(objective.objectives, inputs(theta, x, networks), strict=True)
    for k, (own, z) in enumerate(seen):
        part = theta.part(f"{k}.")
        values.append(own.value(part, z, torch.Generator().set_state(same.get_state()), weight))
        expected = part.empty_like()
        own.gradient(part, z, same, expected, weight)
        # Each layer's parameters follow its own criterion on the codes of the layer below, with
        # noise that is drawn in the order of the layers; what was in ``out`` (NaN) is gone.
        torch.testing.assert_close(out.part(f"{k}.").flat, expected.flat, rtol=1e-12, atol=1e-14)
    # The value is the sum of the layers', which `gradient` reports,
    value = objective.value(theta, x, seeded(), weight)
    torch.testing.assert_close(value, sum(values), rtol=1e-12, atol=0)
    torch.testing.assert_close(reported, value, rtol=1e-12, atol=0)
    # and for reconstructions the criterion is the value.
    criteria = objective.criteria(theta, x, seeded(), weight)
    torch.testing.assert_close(criteria, values, rtol=1e-12, atol=0)
    torch.testing.assert_close(objective.criterion(theta, x, seeded(), weight), value)
    # A gradient is an observation: neither the parameters nor the batch may change.
    assert torch.equal(theta.flat, before[0])
    assert torch.equal(x, before[1])


def test_no_criterion_reaches_the_layers_below(x, generator):
    objective, _, theta = make_layerwise(generator)
    flat = theta.flat.clone().requires_grad_()
    tracked = Parameters(theta.shapes, flat)
    value = objective.value(tracked, x, seeded())
    (together,) = torch.autograd.grad(value, flat)
    out = theta.empty_like()
    objective.gradient(theta, x, seeded(), out)
    # The derivative of the value as autograd sees it, in which the codes are constants.
    torch.testing.assert_close(together, out.flat, rtol=1e-11, atol=1e-13)
    (top,) = torch.autograd.grad(objective.criteria(tracked, x, seeded())[-1], flat)
    top = Parameters(theta.shapes, top)
    # The top layer's criterion depends on the layers below through its input alone, ...
    assert top.part("2.").flat.abs().min() > 0
    # ... and what it sees is no function of them to the gradient.
    assert not top.part("0.").flat.any()
    assert not top.part("1.").flat.any()


def test_what_layerwise_says_of_itself(generator):
    noisy, _, _ = make_layerwise(generator)
    quiet, _, _ = make_layerwise(generator, noisy=False)
    # One layer whose criterion needs noise makes the sum depend on it, none does not.
    assert (noisy.is_noisy, quiet.is_noisy) == (True, False)
    # Constants add up: 0 of Bernoulli units, 0.4 and -1.1.
    assert quiet.offset == pytest.approx(-0.7, rel=1e-12)
    # Reconstructions report their loss with the gradient.
    assert quiet.reports_loss
    rbm = ContrastiveDivergence(Bernoulli())
    levels = quiet.levels[:2]
    # A sum in which one term is not reported is not reported.
    assert not Layerwise(levels, [rbm, quiet.objectives[1]]).reports_loss
    assert not Layerwise(levels, [quiet.objectives[0], rbm]).reports_loss


def test_states_are_prefixed_and_come_back(generator):
    # Prefixes of which one begins with the other's digits, as in a stack of eleven layers.
    network = Network((6, 6), "sigmoid")
    levels = [make_level(0)[0]._replace(prefix=prefix) for prefix in ("1.", "10.")]
    levels = [
        level._replace(encode=lambda theta, x: encode(theta, x, network)[-1]) for level in levels
    ]
    theta = make_theta(levels, [network, network], generator)
    x = torch.rand(N_ROWS, 6, dtype=torch.float64, generator=generator).round()

    def make():
        rbms = [ContrastiveDivergence(Bernoulli(), 1, True, n) for n in (4, 9)]
        return Layerwise(levels, rbms)

    objective, out = make(), theta.empty_like()
    objective.gradient(theta, x, seeded(), out)
    state = objective.state
    # The union of what the layers remember, told apart by their prefixes.
    assert {name for name in state if name.endswith("chains")} == {"1.chains", "10.chains"}
    # Each one's chains are as many as it has.
    assert (len(state["1.chains"]), len(state["10.chains"])) == (4, 9)

    again = make()
    again.state = {
        name: value.clone() if torch.is_tensor(value) else value for name, value in state.items()
    }
    # Each layer has what was its own, and gives it back under the same names.
    assert set(again.state) == set(state)
    results = []
    for one in (objective, again):
        one.gradient(theta, x, seeded(), out)
        results.append((out.flat.clone(), one.state["1.chains"], one.state["10.chains"]))
    # All that is remembered is in the state: given it, the next step is the same bit for bit.
    for kept, restored in zip(*results, strict=True):
        assert torch.equal(kept, restored)
    fresh = make()
    fresh.gradient(theta, x, seeded(), out)
    # And it matters: without the chains the step is another.
    assert not torch.equal(out.flat, results[0][0])


def test_criteria_without_memory_have_no_state(generator):
    objective, _, _ = make_layerwise(generator)
    # Reconstructions remember nothing.
    assert objective.state == {}
    objective.state = {}
    assert objective.state == {}
