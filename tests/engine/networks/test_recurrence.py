"""The recurrence against auto-encoders, stacks and its own formula."""

import pytest
import torch

from skae.engine.networks.corruptions import make_corruption
from skae.engine.networks.layers import Network, decode, encode
from skae.engine.networks.objectives import Reconstruction
from skae.engine.networks.penalties import WeightDecay
from skae.engine.networks.recurrence import (
    Recurrence,
    RecurrentReconstruction,
    recurrent_auto_encoder,
)
from skae.engine.networks.units import Bernoulli
from skae.engine.optimisation.parameters import Parameters


def make(sizes, seed=0):
    network = Network(sizes)
    theta = Parameters(network.parameter_shapes, dtype=torch.float64)
    theta.flat.normal_(generator=torch.Generator().manual_seed(seed))
    return network, theta


def rows(n=7, seed=1):
    return torch.rand(n, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("n_steps", [1, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_one_hidden_layer_is_the_auto_encoder(n_steps, weighted):
    (network, theta), x = make((5, 4)), rows()
    weight = torch.linspace(0.5, 1.5, 7, dtype=torch.float64) if weighted else None
    parts = make_corruption("masking", 0.3), [WeightDecay(0.1)]
    plain = Reconstruction(network, Bernoulli(), parts[0], penalties=parts[1])
    own = RecurrentReconstruction(Recurrence(network, n_steps), Bernoulli(), *parts)
    results = []
    for objective in (plain, own):
        out = theta.empty_like()
        noise = torch.Generator().manual_seed(3)
        results.append((objective.gradient(theta, x, noise, out, weight), out.flat))
    # Nothing is above the layer: all steps are the same, with the same value and gradient.
    torch.testing.assert_close(results[1], results[0])


def test_first_step_is_the_stack():
    (network, theta), x = make((5, 4, 3, 2)), rows()
    first = Recurrence(network, 4).steps(theta, x)[0]
    torch.testing.assert_close(first.hidden, encode(theta, x, network))
    # What is read out is the lowest layer's reconstruction.
    low = Network((5, 4))
    torch.testing.assert_close(first.output, decode(theta, first.hidden[0], low)[1])


def test_steps_are_those_of_the_formula():
    (network, theta), x = make((5, 4, 3, 2)), rows()
    steps = Recurrence(network, 2).steps(theta, x)
    h1, h2, h3 = steps[0].hidden

    def up(below, level):
        return below @ theta[f"weight_{level}"].t() + theta[f"hidden_bias_{level}"]

    def down(above, level):
        return above @ theta[f"weight_{level}"] + theta[f"visible_bias_{level}"]

    # Odd layers, then even ones: each the mean of what both neighbours say.
    h1 = torch.sigmoid((up(x, 0) + down(h2, 1)) / 2)
    h3 = torch.sigmoid(up(h2, 2))
    h2 = torch.sigmoid((up(h1, 1) + down(h3, 2)) / 2)
    torch.testing.assert_close(steps[1].hidden, [h1, h2, h3])
    torch.testing.assert_close(steps[1].output, down(h1, 0))


def test_every_step_counts_alike():
    (network, theta), x = make((5, 4, 3)), rows()
    recurrence, units = Recurrence(network, 3), Bernoulli()
    value = RecurrentReconstruction(recurrence, units).value(theta, x, None)
    losses = [units.negative_log_likelihood(s.output, x) for s in recurrence.steps(theta, x)]
    torch.testing.assert_close(value, torch.stack(losses).mean())


def test_noise_is_on_the_higher_layers_alone():
    (network, theta), x = make((5, 4, 3)), rows()
    noise = torch.Generator().manual_seed(0)
    quiet = Recurrence(network, 1).steps(theta, x)[0].hidden
    noisy = Recurrence(network, 1, noise=0.5).steps(theta, x, noise)[0].hidden
    assert torch.equal(noisy[0], quiet[0])
    assert ((noisy[1] - quiet[1]).abs() > 1e-3).double().mean() > 0.9
    # Codes are without.
    torch.testing.assert_close(Recurrence(network, 1, noise=0.5).steps(theta, x)[0].hidden, quiet)


@pytest.mark.parametrize(("layer", "step"), [(0, 0), (1, 2), (2, 1)])
def test_any_layer_after_any_step_is_the_code(layer, step):
    (network, theta), x = make((5, 4, 3, 2)), rows()
    recurrence = Recurrence(network, 3)
    settings = {"layer": layer, "step": step}
    bias = torch.zeros(5, dtype=torch.float64)
    model = recurrent_auto_encoder(recurrence, Bernoulli(), bias, None, **settings)
    code = model.encode(theta, x)
    torch.testing.assert_close(code, recurrence.steps(theta, x)[step].hidden[layer])
    assert (model.n_codes, code.shape[1]) == (code.shape[1], network.layer_sizes[layer + 1])
    assert model.decode(theta, code).shape == x.shape
