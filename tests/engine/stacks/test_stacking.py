"""Stacks of layers: codes, decodings and layerwise criteria against their formulae."""

from dataclasses import replace

import pytest
import torch

from skae.engine.networks.corruptions import Masking
from skae.engine.networks.layers import Network, decode, encode
from skae.engine.networks.objectives import Reconstruction, auto_encoder
from skae.engine.networks.penalties import CodeL1, HessianContraction
from skae.engine.networks.units import Bernoulli, Gaussian
from skae.engine.optimisation.parameters import Parameters
from skae.engine.optimisation.rows import DenseRows
from skae.engine.optimisation.runs import Objective
from skae.engine.stacks.stacking import Layerwise, codes_of_layers, layerwise, stacked

N_ROWS = 7
SIZES = (6, 5, 4, 3)
SHIFTS = [torch.linspace(-0.4, 0.6, n, dtype=torch.float64) for n in SIZES]
SCALES = [torch.linspace(0.3, 1.7, n, dtype=torch.float64) for n in SIZES]


def make_model(number, activation="sigmoid", units=None, standardised=False, tied=True):
    network = Network(SIZES[number : number + 2], activation, tied)
    units = Bernoulli() if units is None else units
    model = auto_encoder(
        network,
        units,
        torch.zeros(network.layer_sizes[0], dtype=torch.float64),
        lambda: Reconstruction(network, units),
        SHIFTS[number] if standardised else None,
        SCALES[number] if standardised else None,
    )
    return model, network


def make_stack(generator, *choices):
    models, networks = zip(*(make_model(k, **c) for k, c in enumerate(choices)), strict=True)
    theta = Parameters(stacked(models).shapes, dtype=torch.float64)
    theta.flat.normal_(0.0, 0.7, generator=generator)
    return models, networks, theta


@pytest.fixture
def x(generator):
    return torch.rand(N_ROWS, SIZES[0], dtype=torch.float64, generator=generator)


def seeded():
    return torch.Generator().manual_seed(5)


PLAIN, STANDARDISED = {}, {"units": Gaussian(0.4), "standardised": True}


@pytest.mark.parametrize("upper", [(PLAIN, STANDARDISED), (STANDARDISED, PLAIN)])
def test_codes_and_outputs_are_the_formulae(upper, x, generator):
    choices = [{"activation": "tanh", **PLAIN}, *({"activation": "softplus", **c} for c in upper)]
    models, _, theta = make_stack(generator, *choices)
    standardised = [False, *("standardised" in c for c in upper)]
    functions = [torch.tanh, torch.nn.functional.softplus, torch.nn.functional.softplus]

    h, expected = x, []
    for k in range(3):
        z = (h - SHIFTS[k]) / SCALES[k] if standardised[k] else h
        h = functions[k](z @ theta[f"{k}.weight_0"].T + theta[f"{k}.hidden_bias_0"])
        expected.append(h)
    codes = codes_of_layers(models, theta, x)
    # h_{l+1} = s_l((h_l - shift_l) / scale_l W_l^T + b_l), every layer's.
    for code, h in zip(codes, expected, strict=True):
        torch.testing.assert_close(code, h, rtol=1e-12, atol=1e-13)
    whole = stacked(models)
    # The code of the whole is that of the last layer.
    assert torch.equal(whole.encode(theta, x), codes[-1])
    assert torch.equal(whole.code(theta, x), codes[-1])

    for k in (2, 1):
        a = h @ theta[f"{k}.weight_0"] + theta[f"{k}.visible_bias_0"]
        h = a * SCALES[k] + SHIFTS[k] if standardised[k] else 1 / (1 + torch.exp(-a))
    output = h @ theta["0.weight_0"] + theta["0.visible_bias_0"]
    # Downwards, Gaussian units give their pre-activation in the units of the codes below,
    # Bernoulli units a probability; the lowest layer's units are left to the criterion.
    torch.testing.assert_close(whole.decode(theta, codes[-1]), output)


def test_sigmoid_layers_are_a_deep_network(x, generator):
    models, _, theta = make_stack(generator, PLAIN, PLAIN, PLAIN)
    deep = Network(SIZES, "sigmoid")
    names = {f"{name}_{k}": f"{k}.{name}_0" for k in range(3) for name in NAMES}
    same = Parameters(deep.parameter_shapes, dtype=torch.float64)
    for name, below in names.items():
        same[name].copy_(theta[below])
    hidden = encode(same, x, deep)
    # Layers that see each other's codes as they are, with units of the same sigmoid, are one
    # deep auto-encoder upwards ...
    for code, expected in zip(codes_of_layers(models, theta, x), hidden, strict=True):
        torch.testing.assert_close(code, expected, rtol=0, atol=0)
    # ... and downwards.
    output = stacked(models).decode(theta, hidden[-1])
    torch.testing.assert_close(output, decode(same, hidden[-1], deep)[1])


NAMES = ("weight", "hidden_bias", "visible_bias")


def test_a_stack_of_one_is_its_layer(x, generator):
    (model,), (network,), theta = make_stack(generator, {**STANDARDISED, "tied": False})
    own, whole = theta.part("0."), stacked([model])
    code = whole.encode(theta, x)
    # Rows come standardised for the lowest layer: nothing is done to them once more.
    assert torch.equal(code, encode(own, x, network)[-1])
    # Nor to its output, which is a pre-activation.
    assert torch.equal(whole.decode(theta, code), decode(own, code, network)[1])
    # What the whole sees of rows in their own units is what its lowest layer sees.
    assert torch.equal(whole.standardized(x), model.standardized(x))


def test_what_a_stack_says_of_itself():
    choices = STANDARDISED, {"activation": "tanh"}, PLAIN
    bottom, middle, top = (make_model(k, **c)[0] for k, c in enumerate(choices))
    whole = stacked([bottom, middle, top], 3)
    # Parameters lie together under the numbers of their layers, from the first on.
    assert list(whole.shapes)[:3] == ["3.weight_0", "3.hidden_bias_0", "3.visible_bias_0"]
    assert {name: whole.shapes[f"5.{name}"] for name in top.shapes} == top.shapes
    # Below it is the lowest model, above the highest.
    assert (whole.n_features, whole.units, whole.shift) == (6, bottom.units, bottom.shift)
    assert (whole.n_codes, whole.code_range) == (3, (0.0, 1.0))
    assert whole.no_gradient is None
    assert whole.project is None
    # What hinders one layer's gradient hinders that of the whole.
    solved = replace(middle, no_gradient="its codes are solved for")
    assert stacked([bottom, solved, top]).no_gradient == "its codes are solved for"


def test_codes_of_a_lower_layer_leave_the_whole_to_be_trained(x, generator):
    models, _, theta = make_stack(generator, PLAIN, {"activation": "tanh"}, PLAIN)
    whole, part = stacked(models), stacked(models, n_coding=2)
    # Codes, and what they are decoded to, are those of the layers below ...
    assert torch.equal(part.encode(theta, x), codes_of_layers(models, theta, x)[1])
    assert torch.equal(part.reconstruct(theta, x), stacked(models[:2]).reconstruct(theta, x))
    assert (part.n_codes, part.code_range) == (4, (-1.0, 1.0))
    # ... and all parameters have a part in the criterion.
    assert part.shapes == whole.shapes
    values = [model.objective().value(theta, x, None) for model in (whole, part)]
    assert torch.equal(*values)


def test_every_constraint_holds_in_the_whole(generator):
    models, _, theta = make_stack(generator, PLAIN, PLAIN, PLAIN)

    def at_most_half(part):
        part.flat.clamp_(max=0.5)

    constrained = [models[0], replace(models[1], project=at_most_half), models[2]]
    before = theta.flat.clone()
    stacked(constrained).project(theta)
    # The layer's own parameters are projected, and no others.
    assert theta.part("1.").flat.max() == 0.5
    theta.part("1.").flat.copy_(before[theta.part("0.").flat.numel() :][: 5 * 4 + 5 + 4])
    assert torch.equal(theta.flat, before)


def test_layers_start_at_the_codes_of_those_below(generator):
    seen = []

    def noting(model):
        def start_(theta, rows, index, generator):
            model.start_(theta, rows, index, generator)
            seen.append(rows.tensor.clone())

        return replace(model, start_=start_)

    models = [noting(make_model(k, **c)[0]) for k, c in enumerate((PLAIN, STANDARDISED, PLAIN))]
    whole = stacked(models)
    theta = Parameters(whole.shapes, dtype=torch.float64)
    rows = DenseRows(torch.rand(9, SIZES[0], dtype=torch.float64, generator=generator))
    whole.start_(theta, rows, torch.arange(9), generator)
    codes = codes_of_layers(models, theta, rows.tensor)
    # Starts that look at rows look at what the layer will see: the standardised codes.
    torch.testing.assert_close(seen[1], models[1].standardized(codes[0]))
    torch.testing.assert_close(seen[2], codes[1])


def make_layerwise(generator, *, noisy=True):
    """Three layers with criteria of different kinds, and the pieces they are made of."""
    models, networks, theta = make_stack(generator, PLAIN, STANDARDISED, {"tied": False})
    criteria = [
        Reconstruction(networks[0], Bernoulli(), Masking(0.4) if noisy else None),
        Reconstruction(networks[1], Gaussian(0.4), penalties=[CodeL1(0.3)]),
        Reconstruction(
            networks[2],
            Gaussian(-1.1),
            penalties=[HessianContraction(0.5, 0.3, 2)] if noisy else (),
        ),
    ]
    return Layerwise(models, criteria), networks, theta


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
    seen = zip(objective.parts.values(), inputs(theta, x, networks), strict=True)
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
    # Floors add up: 0 of Bernoulli units, 0.4 and -1.1.
    assert quiet.floor == pytest.approx(-0.7, rel=1e-12)
    # Reconstructions report their loss with the gradient.
    assert quiet.reports_loss
    models, unreported = quiet.models[:2], Counting()
    # A sum in which one term is not reported is not reported.
    assert not Layerwise(models, [unreported, quiet.parts["1."]]).reports_loss
    assert not Layerwise(models, [quiet.parts["0."], unreported]).reports_loss
    # The model of all layers has the criterion of each.
    criterion = layerwise(quiet.models, 2).objective()
    assert [type(one) for one in criterion.parts.values()] == [Reconstruction] * 3
    assert list(criterion.parts) == ["2.", "3.", "4."]


class Counting(Objective):
    """A criterion that remembers how often it was asked, and descends the further for it."""

    reports_loss = False

    def __init__(self):
        self.state = {"calls": 0}

    def gradient(self, theta, x, generator, out, row_weight=None):
        self.state["calls"] += 1
        out.flat.fill_(float(self.state["calls"]))


def test_states_are_prefixed_and_come_back():
    # Prefixes of which one begins with the other's digits, as in a stack of eleven layers.
    network = Network((6, 6), "sigmoid")
    model = auto_encoder(network, Bernoulli(), torch.zeros(6), Counting)
    objective = Layerwise([model] * 10, [Counting() for _ in range(10)], 1)
    shapes = stacked([model] * 10, 1).shapes
    theta, out = (Parameters(shapes, torch.zeros(10 * 48)) for _ in range(2))
    objective.parts["10."].state = {"calls": 5}
    objective.gradient(theta, torch.zeros(2, 6), None, out)
    state = objective.state
    # The union of what the layers remember, told apart by their prefixes.
    assert (state["1.calls"], state["2.calls"], state["10.calls"]) == (1, 1, 6)
    again = Layerwise([model] * 10, [Counting() for _ in range(10)], 1)
    again.state = dict(state)
    # Each layer has what was its own, and gives it back under the same names.
    assert again.state == state
    again.gradient(theta, torch.zeros(2, 6), None, out)
    assert out.part("1.").flat.unique() == 2
    assert out.part("10.").flat.unique() == 7


def test_criteria_without_memory_have_no_state(generator):
    objective, _, _ = make_layerwise(generator)
    # Reconstructions remember nothing.
    assert objective.state == {}
    objective.state = {}
    assert objective.state == {}
