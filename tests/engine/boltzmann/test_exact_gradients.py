"""Expected learning rules agree with automatic differentiation, brute force and simulation."""

import itertools
from functools import partial

import numpy as np
import pytest
import torch

from skae.engine.boltzmann import exact_gradients
from skae.engine.boltzmann.energies import BipartiteMachine
from skae.engine.boltzmann.exact_gradients import (
    contrastive_divergence_gradients,
    first_term_gradient,
    log_likelihood_gradient,
    mean_field_gradient,
    particle_gradient,
    reconstruction_gradient,
)
from skae.engine.boltzmann.learning import ContrastiveDivergence
from skae.engine.networks.units import Bernoulli

UNITS = Bernoulli()
binary_machine = partial(BipartiteMachine, units=UNITS)


@pytest.fixture
def machine(make_machine):
    """An RBM of five visible and four hidden units, with weights of size 1."""
    return make_machine(5, 4)


@pytest.fixture(params=["binary", "probabilities"])
def x(request, generator):
    """Seven rows, of zeros and ones or of values between them."""
    values = torch.empty(7, 5, dtype=torch.float64).uniform_(generator=generator)
    return values.round() if request.param == "binary" else values


def by_autograd(machine, function):
    """Gradient of ``function(machine)`` as one vector."""
    gradient = machine.theta.empty_like()
    gradient.flat.zero_()
    function(machine.over(machine.theta.tracked(gradient))).backward()
    return gradient.flat


def all_rows(n):
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=n)), dtype=torch.float64)


def log_joint(machine):
    """Log of P(v, h), row by row of all_rows(5) and column by column of all_rows(4)."""
    v, h = all_rows(5), all_rows(4)
    rows = [machine.energy(row.expand(len(h), -1), h) for row in v]
    return torch.log_softmax(-torch.stack(rows).flatten(), 0).view(len(v), len(h))


def law_after(machine, x, n_steps):
    """P(v_k | x) averaged over the rows of x, by powers of the matrix of all transitions."""
    joint = log_joint(machine).exp()
    visible_given_hidden = joint / joint.sum(0)
    hidden_given_visible = joint / joint.sum(1, keepdim=True)
    transition = hidden_given_visible @ visible_given_hidden.t()
    # The first step starts from x itself, which need not be one of the states.
    h = all_rows(4)
    p = torch.sigmoid(machine.hidden_bias + x @ machine.weight.t())
    hidden = torch.where(h.bool(), p.unsqueeze(1), 1 - p.unsqueeze(1)).prod(-1)
    start = hidden.mean(0) @ visible_given_hidden.t()
    return start @ torch.linalg.matrix_power(transition, n_steps - 1)


def test_log_likelihood_gradient_is_that_of_free_energy_and_log_z(machine, x):
    def log_likelihood(machine):
        return -machine.free_energy(x).mean() - machine.log_partition()

    expected = by_autograd(machine, log_likelihood)
    # Autograd goes through log Z; the closed form sums over all states.
    torch.testing.assert_close(log_likelihood_gradient(machine, x).flat, expected)


def test_log_likelihood_gradient_agrees_with_finite_differences(machine, x):
    def log_likelihood():
        return float(-machine.free_energy(x).mean() - machine.log_partition())

    gradient, step = log_likelihood_gradient(machine, x).flat, 1e-5
    differences = []
    for i in range(len(machine.theta.flat)):
        machine.theta.flat[i] += step
        above = log_likelihood()
        machine.theta.flat[i] -= 2 * step
        differences.append((above - log_likelihood()) / (2 * step))
        machine.theta.flat[i] += step
    # No derivative of any formula is involved on this side.
    torch.testing.assert_close(
        gradient, torch.tensor(differences, dtype=torch.float64), rtol=1e-6, atol=1e-8
    )


@pytest.mark.parametrize("k", [1, 2, 5])
def test_what_contrastive_divergence_leaves_out_is_the_rest_of_the_expansion(machine, x, k):
    law = law_after(machine, x, k)
    rest = by_autograd(machine, lambda machine: law @ log_joint(machine).logsumexp(1))
    (gradient,) = contrastive_divergence_gradients(machine, x, (k,))
    whole = by_autograd(
        machine, lambda machine: -machine.free_energy(x).mean() - machine.log_partition()
    )
    # Bengio & Delalleau: d log P(x) = E[CD-k] + E[d log P(x_k+1)], for every k.
    torch.testing.assert_close(gradient.flat + rest, whole)


@pytest.mark.parametrize(("k", "other"), [(1, 2), (3, 1)])
def test_expected_contrastive_divergence_is_the_mean_of_simulated_steps(
    machine, generator, k, other
):
    machine.theta.flat.mul_(2)  # so that steps of the chains make a difference
    x = all_rows(5)[::5]
    objective = ContrastiveDivergence(binary_machine, n_gibbs_steps=k)
    many, out, steps = x.repeat(50, 1), machine.theta.empty_like(), []
    for _ in range(400):
        objective.gradient(machine.theta, many, generator, out)
        steps.append(-out.flat)
    steps = torch.stack(steps)
    error = steps.std(0) / len(steps) ** 0.5

    def largest_z(gradient):
        return float(((steps.mean(0) - gradient.flat) / error).abs().max())

    right, wrong = contrastive_divergence_gradients(machine, x, (k, other))
    # The training objective's own draws have this mean: 29 values, none 4 errors away.
    assert largest_z(right) < 4
    # The simulation is fine enough to tell numbers of steps apart.
    assert largest_z(wrong) > 8


def test_several_k_are_returned_in_the_order_asked_for(machine, x):
    together = contrastive_divergence_gradients(machine, x, (4, 1, 4))
    alone = [contrastive_divergence_gradients(machine, x, (k,))[0] for k in (4, 1, 4)]
    for gradient, expected in zip(together, alone, strict=True):
        # One pass along the chain serves all k.
        torch.testing.assert_close(gradient.flat, expected.flat)


def test_contrastive_divergence_does_not_depend_on_the_blocks_of_rows(machine, x, monkeypatch):
    (whole,) = contrastive_divergence_gradients(machine, x, (2,))
    monkeypatch.setattr(exact_gradients, "_BLOCK", 32)  # two rows at a time
    (parts,) = contrastive_divergence_gradients(machine, x, (2,))
    # Blocks bound the memory and nothing else; the last one here has a single row.
    torch.testing.assert_close(parts.flat, whole.flat)


def test_long_chains_forget_where_they_began(machine, x):
    (gradient,) = contrastive_divergence_gradients(machine, x, (2000,))
    # The chain is ergodic: CD of infinite k is the gradient of the log-likelihood.
    torch.testing.assert_close(gradient.flat, log_likelihood_gradient(machine, x).flat)


def test_contrastive_divergence_survives_huge_weights(machine, x):
    machine.theta.flat.mul_(500)
    (gradient,) = contrastive_divergence_gradients(machine, x, (3,))
    # Joint probabilities underflow here; conditionals of each layer do not.
    assert torch.isfinite(gradient.flat).all()


def test_first_term_is_the_expected_gradient_of_reconstruction_from_drawn_units(machine, x):
    h = all_rows(4)

    def first_term(machine):
        a = machine.visible_bias + h @ machine.weight
        losses = torch.stack([-UNITS.negative_log_likelihood(a, row.expand(16, -1)) for row in x])
        p = torch.sigmoid(machine.hidden_bias + x @ machine.weight.t()).detach()
        law = torch.where(h.bool(), p.unsqueeze(1), 1 - p.unsqueeze(1)).prod(-1)
        return (law * losses).sum(1).mean() + 0 * machine.hidden_bias.sum()

    # E over h ~ P(h | x), held constant, of the gradient of log P(x | h).
    torch.testing.assert_close(
        first_term_gradient(machine, x).flat, by_autograd(machine, first_term)
    )


def test_mean_field_step_is_the_contrast_of_free_energies(machine, x):
    weight, b, c = machine.weight, machine.hidden_bias, machine.visible_bias
    r = torch.sigmoid(c + torch.sigmoid(b + x @ weight.t()) @ weight)

    def contrast(machine):
        return (machine.free_energy(r) - machine.free_energy(x)).mean()

    # -dF/dtheta at x less that at the reconstruction, which is constant.
    torch.testing.assert_close(mean_field_gradient(machine, x).flat, by_autograd(machine, contrast))


def test_reconstruction_gradient_is_that_of_the_cross_entropy(machine, x):
    weight, b, c = machine.weight, machine.hidden_bias, machine.visible_bias
    h = torch.sigmoid(b + x @ weight.t())
    residual = (x - torch.sigmoid(c + h @ weight)) / len(x)
    delta = residual @ weight.t() * h * (1 - h)
    gradient = reconstruction_gradient(machine, x)
    # By hand: the decoder's part, and through the encoder, whose weights are the same.
    torch.testing.assert_close(gradient["weight_0"], h.t() @ residual + delta.t() @ x)
    # Hidden biases act through the encoder only.
    torch.testing.assert_close(gradient["hidden_bias_0"], delta.sum(0))
    # Visible biases act on the reconstruction only.
    torch.testing.assert_close(gradient["visible_bias_0"], residual.sum(0))


def test_particles_that_occur_as_often_as_the_machine_says_give_the_gradient(machine, x, generator):
    law = log_joint(machine).logsumexp(1).exp()
    drawn = torch.multinomial(law, 200_000, replacement=True, generator=generator)
    gradient = particle_gradient(machine, x, all_rows(5)[drawn]).flat
    # Statistics lie in [0, 1]: 200,000 draws leave an error of 0.0011 at most, four of them here.
    np.testing.assert_allclose(gradient, log_likelihood_gradient(machine, x).flat, atol=0.0045)


def test_rules_do_not_move_the_machine(machine, x):
    before = machine.theta.flat.clone()
    log_likelihood_gradient(machine, x)
    contrastive_divergence_gradients(machine, x, (1, 2))
    first_term_gradient(machine, x)
    mean_field_gradient(machine, x)
    reconstruction_gradient(machine, x)
    # Much of the arithmetic is in place: none of it may be in the parameters' own memory.
    torch.testing.assert_close(machine.theta.flat, before, rtol=0, atol=0)
