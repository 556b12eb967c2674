"""The reconstruction through a whole stack: its value, and its gradient in closed form."""

from dataclasses import replace

import pytest
import torch

from skae.engine.networks.activations import ACTIVATIONS
from skae.engine.networks.layers import Network
from skae.engine.networks.mixed import Mixed
from skae.engine.networks.objectives import Reconstruction, auto_encoder
from skae.engine.networks.units import Bernoulli, Gaussian, Multinomial
from skae.engine.optimisation.parameters import Parameters
from skae.engine.stacks.stacking import UnrolledReconstruction, stacked

N_ROWS, SIZES = 8, (6, 5, 4, 3)
BINARY, ONE_HOT, REAL = torch.tensor([4, 0]), torch.tensor([5, 1]), torch.tensor([2, 3])
UNITS = {
    "bernoulli": Bernoulli(),
    "gaussian": Gaussian(1.7),
    "multinomial": Multinomial(),
    "mixed": Mixed([(Bernoulli(), BINARY), (Multinomial(), ONE_HOT), (Gaussian(-0.6), REAL)]),
}


def make_x(units, generator):
    """Rows in the domain of the units."""
    x = torch.rand(N_ROWS, SIZES[0], dtype=torch.float64, generator=generator)
    if units == "multinomial":
        x /= x.sum(1, keepdim=True)
    if units == "mixed":
        x[:, ONE_HOT] /= x[:, ONE_HOT].sum(1, keepdim=True)
        x[:, REAL] -= 2.0
    return x


def make_model(network, units, *, standardised=False, affine=True):
    n = network.layer_sizes[0]
    model = auto_encoder(
        network,
        units,
        torch.zeros(n),
        lambda: Reconstruction(network, units),
        torch.linspace(-0.4, 0.6, n, dtype=torch.float64) if standardised else None,
        torch.linspace(0.3, 1.7, n, dtype=torch.float64) if standardised else None,
    )
    return model if affine else replace(model, encoder=None)


def make_models(units="bernoulli", activation="sigmoid", tied=True, affine=True):
    """Three layers, one with Gaussian units on standardised codes, one with Bernoulli units."""
    networks = [Network(SIZES[k : k + 2], activation, tied) for k in range(3)]
    return [
        make_model(networks[0], UNITS[units]),
        make_model(networks[1], Gaussian(0.3), standardised=True, affine=affine),
        make_model(networks[2], Bernoulli()),
    ]


def make_theta(whole, generator, spread=0.6):
    theta = Parameters(whole.shapes, dtype=torch.float64)
    theta.flat.normal_(0.0, spread, generator=generator)
    return theta


def make_weight(weighted, generator):
    if not weighted:
        return None
    weight = 2 * torch.rand(N_ROWS, dtype=torch.float64, generator=generator)
    weight[2] = 0.0
    return weight


def autograd(objective, theta, x, weight):
    flat = theta.flat.clone().requires_grad_()
    value = objective.value(Parameters(theta.shapes, flat), x, None, weight)
    return value.detach(), torch.autograd.grad(value, flat)[0]


CASES = [
    *({"units": units} for units in UNITS),
    *({"activation": activation, "units": "gaussian"} for activation in ACTIVATIONS),
]
weightings = pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
ties = pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])


@weightings
@ties
@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(case.values()))
def test_closed_form_matches_autograd(case, tied, weighted, generator):
    whole = stacked(make_models(tied=tied, **case))
    objective, theta = whole.objective(), make_theta(whole, generator)
    x, weight = make_x(case["units"], generator), make_weight(weighted, generator)
    expected_value, expected = autograd(objective, theta, x, weight)

    # Every map is affine, up and down.
    assert objective.has_closed_form
    out, before = theta.empty_like(), (theta.flat.clone(), x.clone())
    out.flat.fill_(torch.nan)
    with torch.no_grad():
        value = objective.gradient(theta, x, None, out, weight)
    # Two ways to one number, the constant part included.
    torch.testing.assert_close(value, expected_value, rtol=1e-12, atol=0)
    # Backpropagation is the derivative of ``value``; what was in ``out`` (here NaN) is gone.
    torch.testing.assert_close(out.flat, expected, rtol=1e-10, atol=1e-13)
    # A gradient is an observation: neither the parameters nor the batch may change.
    assert torch.equal(theta.flat, before[0])
    assert torch.equal(x, before[1])


@weightings
@ties
@pytest.mark.parametrize("units", UNITS)
def test_one_layer_is_the_auto_encoder(units, tied, weighted, generator):
    network = Network(SIZES[:2], "tanh", tied)
    whole = stacked([make_model(network, UNITS[units], standardised=True)])
    theta = make_theta(whole, generator)
    x, weight = make_x(units, generator), make_weight(weighted, generator)
    stack, alone = whole.objective(), Reconstruction(network, UNITS[units])
    own, out = theta.part("0."), theta.empty_like()
    expected = own.empty_like()
    with torch.no_grad():
        value = stack.gradient(theta, x, None, out, weight)
        torch.testing.assert_close(
            # Up one layer and down again is the reconstruction of that layer,
            stack.value(theta, x, None, weight),
            alone.value(own, x, None, weight),
            rtol=1e-13,
            atol=0,
        )
        reported = alone.gradient(own, x, None, expected, weight)
    # and so is its gradient, in closed form both times.
    torch.testing.assert_close(value, reported, rtol=1e-12, atol=0)
    torch.testing.assert_close(out.flat, expected.flat, rtol=1e-11, atol=1e-14)
    # With the same constant.
    assert stack.floor == alone.floor


def test_sigmoid_layers_are_a_deep_auto_encoder(generator):
    networks = [Network(SIZES[k : k + 2], "sigmoid", False) for k in range(3)]
    whole = stacked([make_model(network, Bernoulli()) for network in networks])
    theta, deep = make_theta(whole, generator), Network(SIZES, "sigmoid", False)
    names = [
        (f"{name.removesuffix('0')}{k}", f"{k}.{name}")
        for k, network in enumerate(networks)
        for name in network.parameter_shapes
    ]
    same = Parameters(deep.parameter_shapes, dtype=torch.float64)
    for name, below in names:
        same[name].copy_(theta[below])
    x = make_x("bernoulli", generator)
    out, expected = theta.empty_like(), same.empty_like()
    with torch.no_grad():
        value = whole.objective().gradient(theta, x, None, out)
    reference = Reconstruction(deep, Bernoulli()).gradient(same, x, None, expected)
    # Codes that are taken as they are and units with the layers' own sigmoid: one deep network.
    torch.testing.assert_close(value, reference, rtol=1e-12, atol=0)
    for name, below in names:
        torch.testing.assert_close(out[below], expected[name], rtol=1e-10, atol=1e-14)


@weightings
def test_the_value_is_the_mean_loss_of_what_the_layers_reconstruct(weighted, generator):
    whole = stacked(make_models("gaussian", "tanh"))
    theta, x = make_theta(whole, generator), make_x("gaussian", generator)
    weight = make_weight(weighted, generator)
    a = whole.reconstruct(theta, x)
    losses = 0.5 * (x - a).square().sum(1) + 1.7
    expected = (losses if weight is None else weight * losses).sum() / N_ROWS
    objective = whole.objective()
    # mean_i w_i (1/2 |x_i - a_i|^2 + constant): the units of the lowest layer say what is lost, and
    # those of the others only what codes are.
    torch.testing.assert_close(objective.value(theta, x, None, weight), expected)
    # Training is judged by the same number.
    torch.testing.assert_close(objective.criterion(theta, x, None, weight), expected)
    # No parameter changes the constant of the lowest layer's units.
    assert objective.floor == 1.7


@weightings
@pytest.mark.parametrize("units", UNITS)
def test_layers_that_are_no_affine_maps_have_the_same_gradient(units, weighted, generator):
    whole, opaque = (stacked(make_models(units, affine=affine)) for affine in (True, False))
    theta, x = make_theta(whole, generator), make_x(units, generator)
    weight = make_weight(weighted, generator)
    affine, other = whole.objective(), opaque.objective()
    # Only autograd can follow an encoder of which nothing is known.
    assert not other.has_closed_form
    results = []
    with torch.no_grad():
        for objective in (affine, other):
            out = theta.empty_like()
            out.flat.fill_(torch.nan)
            results.append((objective.gradient(theta, x, None, out, weight), out.flat))
    # What it finds is what backpropagation finds.
    for fast, slow in zip(*results, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-10, atol=1e-13)


def test_a_decoder_that_is_no_affine_map_needs_autograd():
    bottom, middle, top = make_models()
    # The way down is part of the network.
    whole = stacked([bottom, replace(middle, decoder=None), top])
    assert not whole.objective().has_closed_form
    # So are means of units between layers that are no activation of each number.
    whole = stacked([bottom, replace(middle, units=Multinomial()), top])
    assert not whole.objective().has_closed_form


def test_batches_of_different_sizes(generator):
    whole = stacked(make_models("mixed"))
    objective, theta = whole.objective(), make_theta(whole, generator)
    x, out = make_x("mixed", generator), theta.empty_like()
    for rows in (slice(0, 5), slice(5, 8), slice(2, 7), slice(4, 5)):
        with torch.no_grad():
            objective.gradient(theta, x[rows], None, out)
        _, expected = autograd(objective, theta, x[rows], None)
        # Buffers are used again, but each gradient is that of its own batch.
        torch.testing.assert_close(out.flat, expected, rtol=1e-10, atol=1e-13)


def test_other_parameters_have_no_gradient(generator):
    whole = stacked(make_models())
    shapes = whole.shapes | {"output_weight": (2, 3), "output_bias": (2,)}
    theta = Parameters(shapes, dtype=torch.float64)
    theta.flat.normal_(generator=generator)
    out = theta.empty_like()
    out.flat.fill_(torch.nan)
    with torch.no_grad():
        whole.objective().gradient(theta, make_x("bernoulli", generator), None, out)
    # A reconstruction does not depend on an output layer: its derivative is 0, not what lay there.
    assert not out["output_weight"].any()
    assert not out["output_bias"].any()


def test_rows_of_weight_zero_do_not_count(generator):
    whole = stacked(make_models())
    objective, theta = whole.objective(), make_theta(whole, generator)
    x, weight = make_x("bernoulli", generator), make_weight(True, generator)
    results = []
    for _ in range(2):
        out = theta.empty_like()
        with torch.no_grad():
            results.append((objective.gradient(theta, x, None, out, weight), out.flat))
        x = x.clone()
        x[2] = 1 - x[2]  # the row whose weight is 0
    # Nothing times whatever it is.
    for before, after in zip(*results, strict=True):
        assert torch.equal(before, after)


def test_what_it_says_of_itself():
    objective = UnrolledReconstruction(stacked(make_models()))
    # Nothing is drawn, nothing remembered, and the loss comes with the gradient.
    assert (objective.is_noisy, objective.reports_loss, objective.state) == (False, True, {})
