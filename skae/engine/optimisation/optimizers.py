"""torch's optimisers as steps on one flat tensor.

The functional forms of torch.optim do the arithmetic. Its classes would bring
parameter groups, hooks and, with the first one made in a process, the import of
torch's compiler (about a second, which a grid search pays in every worker); one flat
tensor needs none of that. The state is a dict of tensors, so a training that is
continued later (`partial_fit`) continues with the same moments.
"""

import torch
from torch.optim.adagrad import adagrad
from torch.optim.adam import adam
from torch.optim.rmsprop import rmsprop
from torch.optim.sgd import sgd

from skae.engine.optimisation.parameters import Registry

# Devices for which torch has one fused kernel for the whole step.
_FUSED_DEVICES = ("cpu", "cuda")

OPTIMIZERS = Registry()
optimizer = OPTIMIZERS.register


@optimizer
class Adam:
    """Adam (Kingma & Ba 2015), with torch's defaults for the moments' decay."""

    name = "adam"
    slots = ("mean", "square", "step")

    def __init__(self, momentum):
        del momentum  # Adam has moments of its own

    def update_(self, theta, gradient, state, learning_rate):
        """One step; ``theta`` and ``state`` change in place."""
        adam(
            [theta],
            [gradient],
            [state["mean"]],
            [state["square"]],
            [],
            [state["step"]],
            foreach=False,
            fused=theta.device.type in _FUSED_DEVICES,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=learning_rate,
            weight_decay=0.0,
            eps=1e-8,
            maximize=False,
        )


@optimizer
class SGD:
    """Stochastic gradient descent with momentum."""

    name = "sgd"
    slots = ("velocity",)
    nesterov = False

    def __init__(self, momentum):
        self.momentum = momentum

    def update_(self, theta, gradient, state, learning_rate):
        """One step; ``theta`` and ``state`` change in place."""
        sgd(
            [theta],
            [gradient],
            [state["velocity"]],
            foreach=False,
            # Without momentum the step is one addition, faster than the fused kernel.
            fused=self.momentum > 0 and theta.device.type in _FUSED_DEVICES,
            weight_decay=0.0,
            momentum=self.momentum,
            lr=learning_rate,
            dampening=0.0,
            nesterov=self.nesterov and self.momentum > 0,
            maximize=False,
        )


@optimizer
class Nesterov(SGD):
    """Stochastic gradient descent with Nesterov's momentum."""

    name = "nesterov"
    nesterov = True


@optimizer
class RMSprop:
    """RMSprop (Tieleman & Hinton 2012), with momentum."""

    name = "rmsprop"
    slots = ("square", "velocity", "step")

    def __init__(self, momentum):
        self.momentum = momentum

    def update_(self, theta, gradient, state, learning_rate):
        """One step; ``theta`` and ``state`` change in place."""
        rmsprop(
            [theta],
            [gradient],
            [state["square"]],
            [],
            [state["velocity"]],
            [state["step"]],
            foreach=False,
            lr=learning_rate,
            alpha=0.99,
            eps=1e-8,
            weight_decay=0.0,
            momentum=self.momentum,
            centered=False,
        )


@optimizer
class Adagrad:
    """Adagrad (Duchi et al. 2011)."""

    name = "adagrad"
    slots = ("square", "step")

    def __init__(self, momentum):
        del momentum  # Adagrad has none

    def update_(self, theta, gradient, state, learning_rate):
        """One step; ``theta`` and ``state`` change in place."""
        adagrad(
            [theta],
            [gradient],
            [state["square"]],
            [state["step"]],
            foreach=False,
            lr=learning_rate,
            weight_decay=0.0,
            lr_decay=0.0,
            eps=1e-10,
            maximize=False,
        )


class Partwise:
    """A rule and a learning rate for each part of the tensor: those of the layers of a stack.

    Parameters
    ----------
    rules : sequence of (optimizer, start, stop, learning_rate)
        The parts' rules and places. Their learning rates multiply that of the step.
    """

    def __init__(self, rules):
        self.rules = list(rules)
        # The parts do not overlap, so they share tensors; but each counts its own steps.
        shared = (slot for rule, *_ in self.rules for slot in rule.slots if slot != "step")
        counts = (f"{k}.step" for k, (rule, *_) in enumerate(self.rules) if "step" in rule.slots)
        self.slots = (*dict.fromkeys(shared), *counts)

    def update_(self, theta, gradient, state, learning_rate):
        """One step; ``theta`` and ``state`` change in place."""
        for number, (rule, start, stop, rate) in enumerate(self.rules):
            part = {
                slot: state[f"{number}.step"] if slot == "step" else state[slot][start:stop]
                for slot in rule.slots
            }
            rule.update_(theta[start:stop], gradient[start:stop], part, rate * learning_rate)


def initial_state(optimizer, theta):
    """Zeroed state for a flat tensor: one tensor for each of the optimiser's slots."""
    return {
        # torch counts steps in a scalar tensor, on the device if its kernel is fused.
        slot: torch.zeros((), device=theta.device)
        if slot.endswith("step")
        else torch.zeros_like(theta)
        for slot in optimizer.slots
    }
