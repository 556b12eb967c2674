"""Optimiser steps against the classes of torch.optim."""

import pytest
import torch

from skae.engine.optimisation.optimizers import OPTIMIZERS, Partwise, initial_state

PEERS = {
    "adam": lambda p, lr, momentum: torch.optim.Adam(p, lr),
    "adamw": lambda p, lr, momentum: torch.optim.AdamW(p, lr, weight_decay=0.0),
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


def test_decoupled_decay_matches_torch(generator):
    gradients = torch.randn(12, 30, dtype=torch.float64, generator=generator)
    theta = torch.randn(30, dtype=torch.float64, generator=generator)
    peer_theta = torch.nn.Parameter(theta.clone())
    peer = torch.optim.AdamW([peer_theta], 0.03, weight_decay=0.7)
    optimizer = OPTIMIZERS["adamw"](0.9, 0.7)
    state = initial_state(optimizer, theta)
    for gradient in gradients:
        optimizer.update_(theta, gradient.clone(), state, 0.03)
        peer_theta.grad = gradient.clone()
        peer.step()
    # Shrinkage by rate * decay beside Adam's step, whose moments know nothing of it.
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


# Parts of lengths that fill no vector registers, one rule and learning rate each.
PARTS = [("adam", 13, 1.0), ("sgd", 7, 0.3), ("rmsprop", 30, 0.01), ("adam", 1, 2.0)]
ORDERS = [PARTS, PARTS[::-1], [(name, 11 + k, 0.5) for k, name in enumerate(OPTIMIZERS)]]


def make_partwise(parts, momentum=0.9):
    rules, start = [], 0
    for name, size, rate in parts:
        rules.append((OPTIMIZERS[name](momentum), start, start + size, rate))
        start += size
    return Partwise(rules)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("parts", ORDERS, ids=["some", "reversed", "all"])
def test_parts_take_the_steps_of_their_own_rules(parts, momentum, dtype, generator):
    partwise = make_partwise(parts, momentum)
    size = sum(size for _, size, _ in parts)
    theta = torch.randn(size, dtype=dtype, generator=generator)
    gradients = torch.randn(8, size, dtype=dtype, generator=generator)
    alone = [theta[start:stop].clone() for _, start, stop, _ in partwise.rules]
    states = [
        initial_state(rule, own) for (rule, *_), own in zip(partwise.rules, alone, strict=True)
    ]
    state = initial_state(partwise, theta)
    for step, gradient in enumerate(gradients):
        learning_rate = 0.1 / (1 + step)
        partwise.update_(theta, gradient.clone(), state, learning_rate)
        for (rule, start, stop, rate), own, memory in zip(
            partwise.rules, alone, states, strict=True
        ):
            rule.update_(own, gradient[start:stop].clone(), memory, rate * learning_rate)
        # Layers that share a vector learn as they would alone, bit for bit: no part's gradient,
        # rule, memory or learning rate has an effect on another's.
        assert torch.equal(theta, torch.cat(alone))


def test_parts_count_their_own_steps(generator):
    partwise = make_partwise([("adam", 5, 1.0), ("adam", 5, 1.0)])
    theta = torch.randn(10, dtype=torch.float64, generator=generator)
    gradient = torch.randn(10, dtype=torch.float64, generator=generator)
    state = initial_state(partwise, theta)
    # The parts do not overlap and share the moments' tensors; each has a count of its own.
    assert set(state) == {"mean", "square", "0.step", "1.step"}
    assert state["0.step"].ndim == state["1.step"].ndim == 0
    # As where one of two layers was trained before: three steps of its own.
    first, own = OPTIMIZERS["adam"](0.9), theta[:5].clone()
    memory = initial_state(first, own)
    for _ in range(3):
        first.update_(own, gradient[:5].clone(), memory, 0.1)
    theta[:5] = own
    for slot in ("mean", "square"):
        state[slot][:5] = memory[slot]
    state["0.step"].fill_(3)
    second, other = OPTIMIZERS["adam"](0.9), theta[5:].clone()
    other_memory = initial_state(second, other)
    partwise.update_(theta, gradient.clone(), state, 0.1)
    first.update_(own, gradient[:5].clone(), memory, 0.1)
    second.update_(other, gradient[5:].clone(), other_memory, 0.1)
    # One is at its fourth step, the other at its first, whose bias correction is another.
    assert [float(state[f"{k}.step"]) for k in (0, 1)] == [4, 1]
    assert torch.equal(theta, torch.cat([own, other]))


def test_the_state_of_parts_is_complete(generator):
    gradients = torch.randn(6, 51, dtype=torch.float64, generator=generator)
    partwise, theta = make_partwise(PARTS), torch.zeros(51, dtype=torch.float64)
    state = initial_state(partwise, theta)
    assert set(state) == set(partwise.slots)
    for gradient in gradients[:3]:
        partwise.update_(theta, gradient.clone(), state, 0.1)
    copy, copied_theta = {k: v.clone() for k, v in state.items()}, theta.clone()
    for gradient in gradients[3:]:
        partwise.update_(theta, gradient.clone(), state, 0.1)
        make_partwise(PARTS).update_(copied_theta, gradient.clone(), copy, 0.1)
    # All that the rules remember is in the state: from a copy of it, the same steps.
    assert torch.equal(theta, copied_theta)
