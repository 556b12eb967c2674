"""torch's optimisers as steps on one flat tensor.

The functional forms of torch.optim do the arithmetic, or, where there is one, the fused kernel
that they call: what they check before takes as long as a third of a small step. Its classes would
bring parameter groups, hooks and, with the first one made in a process, the import of torch's
compiler (about a second, which a grid search pays in every worker); one flat tensor needs none of
that. The state is a dict of tensors, so a training that is continued later (`partial_fit`) has the
same moments.
"""

from collections.abc import Callable, Hashable

import torch
from torch.optim.adagrad import adagrad
from torch.optim.adam import adam
from torch.optim.adamw import adamw
from torch.optim.rmsprop import rmsprop
from torch.optim.sgd import sgd

from skae.engine.optimisation.parameters import Registry

# Devices for which torch has one fused kernel for the whole step.
_FUSED_DEVICES = ("cpu", "cuda")
# What fused kernels take of Adam and of both of its kin.
_ADAM = {"beta1": 0.9, "beta2": 0.999, "amsgrad": False, "eps": 1e-8}
# What all of torch's rules take, and none here uses ...
_UNUSED = {"foreach": False, "maximize": False}
# ... and a decay that would be a part of the gradient, which is the criterion's matter.
_PLAIN = {**_UNUSED, "weight_decay": 0.0}

OPTIMIZERS = Registry()
optimizer = OPTIMIZERS.register


class Rule:
    """How a gradient becomes a step: ``slots`` names what is kept of the steps so far.

    A rule that ``decouples_decay`` takes the weight of a decay besides, which is no part of the
    criterion then: its steps shrink the parameters themselves.
    """

    name: str
    slots: tuple[str, ...]
    decouples_decay = False
    _step_: Callable[..., None]

    def __init__(self, momentum: float):
        self.momentum = momentum  # of rules that have one to choose

    @property
    def key(self) -> Hashable:
        """What decides a step, but for the learning rate: rules of one key make the same steps."""
        return type(self), *sorted(vars(self).items())

    def update_(self, theta, gradient, state, learning_rate) -> None:
        """One step; ``theta`` and ``state`` change in place."""
        kept = [[state[slot]] for slot in self.slots]
        self._step_([theta], [gradient], kept, learning_rate, theta.device.type in _FUSED_DEVICES)


@optimizer
class Adam(Rule):
    """Adam (Kingma & Ba 2015), with torch's defaults for the moments' decay."""

    name = "adam"
    slots = ("mean", "square", "step")

    def _step_(self, theta, gradient, kept, rate, fused):
        mean, square, step = kept
        state = theta, gradient, mean, square, [], step
        if fused:
            step[0].add_(1)
            torch._fused_adam_(*state, lr=rate, weight_decay=0.0, maximize=False, **_ADAM)
        else:
            adam(*state, lr=rate, **_ADAM, **_PLAIN)


@optimizer
class AdamW(Adam):
    """Adam, but ``weight_decay`` shrinks all parameters in each step by its product with the
    learning rate, instead of being a term of the objective (Loshchilov & Hutter 2019).
    """

    name = "adamw"
    summary = (
        "Adam, but ``weight_decay`` is no term of the objective: each step shrinks all parameters "
        "by ``learning_rate * weight_decay`` (Loshchilov & Hutter 2019)"
    )
    decouples_decay = True

    def __init__(self, momentum: float, decay: float = 0.0):
        super().__init__(momentum)
        self.decay = decay

    def _step_(self, theta, gradient, kept, rate, fused):
        mean, square, step = kept
        state = theta, gradient, mean, square, [], step
        if fused:
            step[0].add_(1)
            own = {"weight_decay": self.decay, "maximize": False}
            torch._fused_adamw_(*state, lr=rate, **own, **_ADAM)
        else:
            adamw(*state, lr=rate, weight_decay=self.decay, **_ADAM, **_UNUSED)


@optimizer
class SGD(Rule):
    """Stochastic gradient descent with momentum."""

    name = "sgd"
    slots = ("velocity",)
    nesterov = False

    def _step_(self, theta, gradient, kept, rate, fused):
        if self.momentum == 0:  # one addition, a tenth of the time that torch's function takes
            theta[0].add_(gradient[0], alpha=-rate)
            return
        own = {"momentum": self.momentum, "dampening": 0.0, "nesterov": self.nesterov}
        if fused:
            own |= {"weight_decay": 0.0, "maximize": False, "is_first_step": False}
            torch._fused_sgd_(theta, gradient, *kept, lr=rate, **own)
        else:
            sgd(theta, gradient, *kept, lr=rate, **own, **_PLAIN)


@optimizer
class Nesterov(SGD):
    """Stochastic gradient descent with Nesterov's momentum."""

    name = "nesterov"
    nesterov = True


@optimizer
class RMSprop(Rule):
    """RMSprop (Tieleman & Hinton 2012), with momentum."""

    name = "rmsprop"
    slots = ("square", "velocity", "step")

    def _step_(self, theta, gradient, kept, rate, fused):
        square, velocity, step = kept
        decay = {"alpha": 0.99, "momentum": self.momentum, "centered": False, "eps": 1e-8}
        rmsprop(theta, gradient, square, [], velocity, step, lr=rate, **decay, **_PLAIN)


@optimizer
class Adagrad(Rule):
    """Adagrad (Duchi et al. 2011)."""

    name = "adagrad"
    slots = ("square", "step")

    def _step_(self, theta, gradient, kept, rate, fused):
        adagrad(theta, gradient, *kept, lr=rate, lr_decay=0.0, eps=1e-10, **_PLAIN)


class Partwise:
    """A rule and a learning rate for each part of the tensor: those of the layers of a stack.

    ``rules`` are (optimizer, start, stop, learning_rate): the parts' rules and places, and what
    multiplies the learning rate of a step there.
    """

    def __init__(self, rules):
        self.rules = list(rules)
        # The parts do not overlap, so they share tensors; but each counts its own steps.
        shared = (slot for rule, *_ in self.rules for slot in rule.slots if slot != "step")
        counts = (f"{k}.step" for k, (rule, *_) in enumerate(self.rules) if "step" in rule.slots)
        self.slots = (*dict.fromkeys(shared), *counts)

    def update_(self, theta, gradient, state, learning_rate) -> None:
        """One step; ``theta`` and ``state`` change in place."""
        for number, (rule, start, stop, rate) in enumerate(self.rules):
            part = {
                slot: state[f"{number}.step"] if slot == "step" else state[slot][start:stop]
                for slot in rule.slots
            }
            rule.update_(theta[start:stop], gradient[start:stop], part, rate * learning_rate)


def initial_state(optimizer, theta: torch.Tensor) -> dict[str, torch.Tensor]:
    """Zeroed state for a flat tensor: one tensor for each of the optimiser's slots."""
    state = {}
    for slot in optimizer.slots:
        # torch counts steps in a scalar tensor, on the device if its kernel is fused.
        is_count = slot.endswith("step")
        if is_count:
            state[slot] = torch.zeros((), dtype=torch.float32, device=theta.device)
        else:
            state[slot] = torch.zeros_like(theta)
    return state
