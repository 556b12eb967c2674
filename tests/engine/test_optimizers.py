"""Optimiser steps against the classes of torch.optim."""

import pytest
import torch

from skae.engine.optimizers import OPTIMIZERS, initial_state

PEERS = {
    "adam": lambda p, lr, momentum: torch.optim.Adam(p, lr),
    "sgd": lambda p, lr, momentum: torch.optim.SGD(p, lr, momentum),
    "nesterov": lambda p, lr, momentum: torch.optim.SGD(p, lr, momentum, nesterov=momentum > 0),
    "rmsprop": lambda p, lr, momentum: torch.optim.RMSprop(p, lr, momentum=momentum),
    "adagrad": lambda p, lr, momentum: torch.optim.Adagrad(p, lr),
}


def test_every_optimizer_has_a_peer():
    # The comparison below must not miss an optimiser that is added later.
    assert set(PEERS) == set(OPTIMIZERS)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("name", PEERS)
def test_steps_match_torch(name, momentum, generator):
    gradients = torch.randn(12, 30, dtype=torch.float64, generator=generator)
    theta = torch.randn(30, dtype=torch.float64, generator=generator)
    peer_theta = torch.nn.Parameter(theta.clone())
    peer = PEERS[name]([peer_theta], 0.03, momentum)
    optimizer = OPTIMIZERS[name](momentum)
    state = initial_state(optimizer, theta)
    for step, gradient in enumerate(gradients):
        rate = 0.03 / (1 + step)
        optimizer.update_(theta, gradient.clone(), state, rate)
        peer.param_groups[0]["lr"] = rate
        peer_theta.grad = gradient.clone()
        peer.step()
        # The same published rule, step by step, whatever the learning rate does meanwhile.
        torch.testing.assert_close(theta, peer_theta.detach(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_quadratic_is_minimised(name, generator):
    curvature = torch.linspace(0.5, 2.0, 10, dtype=torch.float64)
    theta = torch.randn(10, dtype=torch.float64, generator=generator)
    start = float((curvature * theta**2).sum())
    optimizer = OPTIMIZERS[name](0.5)
    state = initial_state(optimizer, theta)
    for step in range(500):
        optimizer.update_(theta, curvature * theta, state, 0.2 * (1 - step / 500))
    # A convex bowl, and steps that fall to zero: every one of the rules reaches the bottom.
    assert float((curvature * theta**2).sum()) < 0.01 * start


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_state_is_complete(name, generator):
    gradients = torch.randn(6, 5, dtype=torch.float64, generator=generator)
    optimizer, theta = OPTIMIZERS[name](0.9), torch.zeros(5, dtype=torch.float64)
    state = initial_state(optimizer, theta)
    assert set(state) == set(optimizer.slots)
    for gradient in gradients[:3]:
        optimizer.update_(theta, gradient.clone(), state, 0.1)
    copy, copied_theta = {k: v.clone() for k, v in state.items()}, theta.clone()
    for gradient in gradients[3:]:
        optimizer.update_(theta, gradient.clone(), state, 0.1)
        OPTIMIZERS[name](0.9).update_(copied_theta, gradient.clone(), copy, 0.1)
    # All that a rule remembers is in its state: from a copy of it, the same steps, bit for bit.
    assert torch.equal(theta, copied_theta)
