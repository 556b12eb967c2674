r"""Chains of parameters whose law is exp(-U), for the energy U of an objective.

A move is a Hamiltonian trajectory, some Langevin proposals, or some steps of stochastic gradient
Langevin dynamics. In coordinates that divide parameters by a scale, from :math:`\theta` and a
normal momentum r, with steps of size h:

.. math::

    \text{leapfrog:} \quad r \leftarrow r - \tfrac{h}{2} \nabla U, \quad
    \theta \leftarrow \theta + h r, \quad r \leftarrow r - \tfrac{h}{2} \nabla U

A trajectory is accepted with the probability :math:`\min(1, e^{-\Delta H})`,
:math:`H = U + |r|^2 / 2`. One step of it is a Langevin proposal; one that is not rejected, with
the gradient of a batch, one of stochastic gradient dynamics.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from skae.engine.optimisation.devices import suitable_threads
from skae.engine.optimisation.models import Model, Start, parameters_at
from skae.engine.optimisation.parameters import Parameters
from skae.engine.optimisation.runs import Data
from skae.engine.posterior.energies import Energy, Scale, largest_curvature, scale_of

# Acceptance that warming up aims at: of trajectories, and of Langevin proposals.
_AIM = {"hmc": 0.8, "mala": 0.6}
# A step of stochastic gradients, in the widths of the narrowest direction: it widens that by 2 %.
_STOCHASTIC_STEP = 0.25
# Draws of an objective's noise that its gradient at the start is a mean over, and rows to see how
# the energy curves.
_NOISE_PASSES, _CURVATURE_ROWS = 10, 2000


@dataclass(frozen=True)
class Plan:
    """How parameters are drawn.

    - ``method``: "hmc", "mala" or "sgld".
    - ``n_chains``; ``n_draws``: kept of each; ``thinning``: moves to each of them.
    - ``burn_in``: moves before the first of them, in which the step size is adapted.
    - ``n_steps``: gradients of a move; a trajectory has any number of steps up to that, so that
      none returns to where it began. ``step_size``: None adapts it.
    - ``temperature``: of the energy. ``batch_size``: of stochastic gradients.
    """

    method: str = "hmc"
    n_chains: int = 4
    n_draws: int = 10
    thinning: int = 5
    burn_in: int = 100
    n_steps: int = 10
    step_size: float | None = None
    temperature: float = 1.0
    batch_size: int = 100


class Draws(NamedTuple):
    """What `draw_parameters` returns.

    - ``weights``: of each draw, arrays by name, those of the chains by turns.
    - ``traces``, of shape (n_chains, n_moves, n_functions): of functions of the parameters, and
      first of their energy, after each move.
    - ``acceptance``, ``step_size``, of shape (n_chains,): of the moves after burning in; NaN where
      nothing is rejected.
    """

    weights: list[dict[str, np.ndarray]]
    traces: np.ndarray
    acceptance: np.ndarray
    step_size: np.ndarray


Watched = Callable[[Parameters], np.ndarray]


def draw_parameters(
    model: Model,
    data: Data,
    weights: dict[str, np.ndarray],
    plan: Plan,
    n_rows: float,
    *,
    generator: torch.Generator,
    watched: Watched,
) -> Draws:
    """Draw parameters of a model from exp(-U), by chains that begin at given weights.

    ``n_rows`` is what the objective, a mean over the rows, is multiplied by. ``watched`` are
    functions of the parameters, an array of them, by which chains are judged.
    """
    assert model.objective is not None
    energy = Energy(model.objective(), data, n_rows, plan.temperature)
    start = parameters_at(Start(weights), model, data, generator)
    n_at_once = plan.batch_size if plan.method == "sgld" else len(energy.index)
    with torch.no_grad(), suitable_threads(start.flat.device, start.flat.numel() * n_at_once):
        scale, first_step = _shape_of(energy, start, plan, generator)
        runs = [
            _run(_chain(energy, start, scale, plan, generator), first_step, plan, watched)
            for _ in range(plan.n_chains)
        ]
    kept, traces, acceptance, step_size = zip(*runs, strict=True)
    draws = [Parameters(start.shapes, flat) for turn in zip(*kept, strict=True) for flat in turn]
    return Draws(
        [theta.to_numpy() for theta in draws],
        np.array(traces),
        np.array(acceptance),
        np.array(step_size),
    )


def _shape_of(energy, start, plan, generator):
    """The scale of each parameter, and the step size to begin with."""
    stride = max(1, math.ceil(len(energy.index) / _CURVATURE_ROWS))
    some = None if stride == 1 else energy.index[::stride]

    def gradient(theta, out):
        return energy.gradient_(theta, out, some)

    scale = scale_of(start, gradient, generator)
    width = 1 / math.sqrt(largest_curvature(start, gradient, scale, generator))
    if plan.step_size is not None:
        return scale, plan.step_size
    if plan.method == "sgld":
        return scale, _STOCHASTIC_STEP * width
    return scale, width * start.flat.numel() ** -0.25


def _chain(energy, start, scale, plan, generator):
    theta = Parameters(start.shapes, start.flat.clone())
    if plan.method != "sgld":
        n_steps = {"hmc": plan.n_steps, "mala": 1}[plan.method]
        return MetropolisChain(energy, theta, scale, generator, n_steps, plan.n_steps // n_steps)
    return StochasticChain(energy, theta, start, scale, generator, plan.n_steps, plan.batch_size)


def _run(chain, step, plan, watched):
    """Draws of a chain, its traces, acceptance and step size."""
    adapts = plan.step_size is None and plan.method in _AIM and plan.burn_in > 0
    adapted = StepSize(step, _AIM[plan.method]) if adapts else None
    for _ in range(plan.burn_in):
        accepted = chain.move(step)
        if adapted is not None:
            step = adapted.update(accepted)
    step = step if adapted is None else adapted.final
    kept, traces, acceptance = [], [], []
    for number in range(plan.n_draws * plan.thinning):
        acceptance.append(chain.move(step))
        traces.append([chain.value, *watched(chain.theta)])
        if (number + 1) % plan.thinning == 0:
            kept.append(chain.theta.flat.clone())
    return kept, traces, np.mean(acceptance), step


def leapfrog_(
    theta: Parameters,
    momentum: torch.Tensor,
    gradient: Parameters,
    force: Callable[[Parameters, Parameters], torch.Tensor],
    scale: Scale,
    step: float,
    n_steps: int,
) -> None:
    """Steps along a trajectory, in place: reversible, and of the same volume before and after.

    ``gradient`` is that at theta, at the start and at the end; ``force(theta, out)`` writes it.
    """
    momentum.sub_(scale(gradient.flat), alpha=0.5 * step)
    for number in range(n_steps):
        theta.flat.add_(scale(momentum), alpha=step)
        force(theta, gradient)
        is_last = number == n_steps - 1
        momentum.sub_(scale(gradient.flat), alpha=step * (0.5 if is_last else 1.0))


class MetropolisChain:
    """Trajectories that are accepted or rejected: their law is exact, at any step size."""

    def __init__(self, energy, theta, scale, generator, n_steps, n_proposals=1):
        self.energy, self.theta, self.scale = energy, theta, scale
        self.generator, self.n_steps, self.n_proposals = generator, n_steps, n_proposals
        self.value, self.gradient = energy.value(theta), theta.empty_like()
        energy.gradient_(theta, self.gradient)

    def move(self, step: float) -> float:
        """Propose and decide; return the probability of acceptance, a mean over proposals."""
        return sum(self._propose(step) for _ in range(self.n_proposals)) / self.n_proposals

    def _propose(self, step):
        before, before_gradient = self.theta.flat.clone(), self.gradient.flat.clone()
        momentum = torch.empty_like(before).normal_(generator=self.generator)
        coin, length = torch.rand(
            2, generator=self.generator, device=before.device, dtype=torch.float64
        ).tolist()
        kinetic = 0.5 * float(momentum.square().sum())
        leapfrog_(
            *(self.theta, momentum, self.gradient, self.energy.gradient_, self.scale),
            step,
            1 + int(length * self.n_steps),
        )
        value = self.energy.value(self.theta)
        change = value - self.value + 0.5 * float(momentum.square().sum()) - kinetic
        accepted = math.exp(min(0.0, -change)) if math.isfinite(change) else 0.0
        if coin < accepted:
            self.value = value
        else:
            self.theta.flat.copy_(before)
            self.gradient.flat.copy_(before_gradient)
        return accepted


class StochasticChain:
    r"""Langevin steps with gradients of batches, none of which is rejected.

    .. math::

        \theta \leftarrow \theta - \tfrac{h^2}{2} \bigl(\nabla U_B(\theta)
        - \nabla U_B(\hat\theta) + \nabla U(\hat\theta)\bigr) + h \, \epsilon

    The gradient of a batch B is compared with that of the same batch, and the same noise, at the
    start, where the gradient by all rows is known: of the batch's own noise there is the less, the
    nearer the chain is (Baker, Fearnhead, Fox & Nemeth 2019).
    """

    value = math.nan

    def __init__(self, energy, theta, start, scale, generator, n_steps, batch_size):
        self.energy, self.theta, self.start, self.scale = energy, theta, start, scale
        self.generator, self.n_steps, self.batch_size = generator, n_steps, batch_size
        self.anchor, self.gradient, self.at_start = (theta.empty_like() for _ in range(3))
        n_passes = _NOISE_PASSES if energy.objective.is_noisy else 1
        energy.mean_gradient_(start, self.anchor, batch_size, n_passes)
        self.batches: list[torch.Tensor] = []

    def move(self, step: float) -> float:
        """Make some steps; nothing is rejected, so that NaN is returned."""
        for _ in range(self.n_steps):
            batch, seed = self._next()
            self.energy.gradient_(self.theta, self.gradient, batch, seed)
            self.energy.gradient_(self.start, self.at_start, batch, seed)
            drift = self.gradient.flat.sub_(self.at_start.flat).add_(self.anchor.flat)
            noise = torch.empty_like(drift).normal_(generator=self.generator)
            self.theta.flat.add_(
                self.scale(noise.sub_(self.scale(drift), alpha=step / 2)), alpha=step
            )
        return math.nan

    def _next(self):
        """A batch of the rows, each of which comes once in a pass, and a seed of the noise."""
        index = self.energy.index
        if not self.batches:
            order = torch.randperm(len(index), generator=self.generator, device=index.device)
            n_batches = math.ceil(len(index) / self.batch_size)
            self.batches = list(torch.tensor_split(index[order], n_batches))
        seed = torch.randint(2**31 - 1, (), generator=self.generator, device=index.device)
        return self.batches.pop(), int(seed)


class StepSize:
    """A step size that is drawn towards an acceptance: dual averaging (Hoffman & Gelman 2014)."""

    def __init__(self, first: float, aim: float):
        self.aim, self.center = aim, math.log(10 * first)
        self.n_moves, self.error, self.mean = 0, 0.0, math.log(first)

    def update(self, accepted: float) -> float:
        """The size for the next move, after one that was accepted with a probability."""
        self.n_moves += 1
        rate = 1 / (self.n_moves + 10)
        self.error += rate * (self.aim - accepted - self.error)
        now = self.center - math.sqrt(self.n_moves) / 0.05 * self.error
        part = self.n_moves**-0.75
        self.mean += part * (now - self.mean)
        return math.exp(now)

    @property
    def final(self) -> float:
        """The size after warming up, a mean of those that were tried."""
        return math.exp(self.mean)
