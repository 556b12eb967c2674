"""What a machine was on its way: checkpoints of its training as a path of laws.

Along a path of temperatures a machine of several modes freezes at one of them, all modes but one
becoming rare at once. Along its own training modes part one after the other, as it learned them:
laws change little by little, and chains and weights follow (Bereux et al. 2025).

Checkpoints are kept at steps whose ratio is steady, so that few are enough whatever the length of
the training, which nobody has to know. Between two of them parameters go along a straight line. For
discrete units, whose energies are linear in the parameters, that is the geometric path between the
two laws of all units.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch

from skae.engine.boltzmann.samplers import SAMPLERS, ParallelTempering
from skae.engine.optimisation.parameters import Parameters

# The first checkpoint is taken after so many gradient steps, the next ones at first at steps of
# such a ratio.
_FIRST_STEP, _RATIO = 10, 1.1
# Steps from one checkpoint to the next of the chains that measure how far they are apart.
_PILOT = 20


def note_checkpoint(state: dict[str, Any], flat: torch.Tensor, most: int) -> torch.Tensor | None:
    """Count a gradient step and keep the parameters before it, if it is time to.

    ``state`` gets the ``checkpoints``, of shape (n_checkpoints, n_parameters). Where there would be
    more than ``most``, every second of them is left out, and later ones come at steps of the square
    of the ratio. Returns the numbers of those that stay, among what there was and the new one, or
    None if nothing has changed.
    """
    n_steps = int(state.get("n_gradients", 0))
    state["n_gradients"] = n_steps + 1
    if n_steps < int(state.get("next_checkpoint", _FIRST_STEP)):
        return None
    ratio, new = float(state.get("checkpoint_ratio", _RATIO)), flat.detach().clone().unsqueeze(0)
    kept = torch.cat([state["checkpoints"], new]) if "checkpoints" in state else new
    stay = torch.arange(len(kept), device=flat.device)
    if len(kept) > most:
        # The newest is among them.
        stay, ratio = stay[(len(kept) - 1) % 2 :: 2], ratio**2
    state["checkpoints"], state["checkpoint_ratio"] = kept[stay], ratio
    state["next_checkpoint"] = max(n_steps + 1, math.ceil(n_steps * ratio))
    return stay


def trajectory_of(objective) -> dict[str, torch.Tensor]:
    """The checkpoints of a training as the attribute that holds them, of shape (0, 0) if none."""
    return {
        "trajectory_": objective.state.get("checkpoints", torch.empty(0, 0, dtype=torch.float32))
    }


def checkpoint_machines(machine, checkpoints: torch.Tensor) -> list:
    """Machines of such parameters, of shape (n_checkpoints, n_parameters), and the machine last."""
    shapes = machine.theta.shapes
    return [*(machine.over(Parameters(shapes, flat)) for flat in checkpoints), machine]


class TrajectoryPath:
    """The laws P_beta(v) from independent visible units through checkpoints to a machine.

    A `skae.engine.boltzmann.energies.TemperedPath` in what it is asked. With K ``machines``, in
    order of training, beta = k / K is the k-th of them. Up to the first one beta is a temperature,
    with units of ``base_bias`` at beta = 0; from there on parameters are interpolated.
    """

    def __init__(self, machines: Sequence, base_bias: torch.Tensor, n_kept: int = 2):
        self.machines, self.base_bias = machines, base_bias
        self._first = machines[0].tempered(base_bias)
        # Machines between checkpoints that were made last, as many as are asked for again.
        self._made: dict[float, Any] = {}
        self._n_kept = n_kept

    def start(self, n_chains: int, generator: torch.Generator) -> torch.Tensor:
        """Exact draws of the visible units at beta = 0."""
        return self._first.start(n_chains, generator)

    def log_base_partition(self) -> torch.Tensor:
        """Log Z at beta = 0."""
        return self._first.log_base_partition()

    def energies(self, visible: torch.Tensor) -> tuple:
        """What `log_density` and `step` need to know of the rows: the rows."""
        return (visible,)

    def log_density(self, energies, beta) -> torch.Tensor:
        """Log of the unnormalised P_beta(v) of each row; ``beta`` a number or one per row."""

        def density(path, temperature, rows):
            return path.log_density(path.energies(rows), temperature)

        return self._by_law(density, energies[0], beta)

    def step(self, energies, beta, generator: torch.Generator) -> torch.Tensor:
        """One block Gibbs step at ``beta``, h given v and v' given h; returns v'."""

        def stepped(path, temperature, rows):
            return path.step(path.energies(rows), temperature, generator)

        return self._by_law(stepped, energies[0], beta)

    def _by_law(self, function, visible, beta):
        """``function(path, temperature, rows)`` of the rows of each beta."""
        if not isinstance(beta, torch.Tensor):
            return function(*self._law(beta), visible)
        result = None
        for one in beta.unique().tolist():
            rows = torch.nonzero(beta == one).squeeze(1)
            values = function(*self._law(one), visible[rows])
            if result is None:
                result = values.new_empty(len(visible), *values.shape[1:])
            result[rows] = values
        return result

    def _law(self, beta):
        """A tempered path, and the temperature on it that is this beta."""
        position = beta * len(self.machines)
        if position <= 1:
            return self._first, position
        if beta not in self._made:
            while len(self._made) >= self._n_kept:
                del self._made[next(iter(self._made))]
            self._made[beta] = self._between(position - 1).tempered(self.base_bias)
        return self._made[beta], 1.0

    def _between(self, position):
        """The machine at a place among the machines, the first being at 0."""
        number = min(round(position), len(self.machines) - 1)
        if abs(position - number) < 1e-6:
            return self.machines[number]
        number = math.floor(position)
        low, high = (self.machines[k].theta for k in (number, number + 1))
        flat = torch.lerp(low.flat, high.flat, position - number)
        return self.machines[-1].over(Parameters(high.shapes, flat))


def tempered_particles(
    machine, state: dict[str, Any], particles: torch.Tensor, generator, n_steps: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Particles after steps of parallel tempering with companions at the checkpoints.

    ``state`` holds the ``checkpoints`` and, of shape (n_chains, n_checkpoints, n_visible), the
    ``companions`` of the particles, from the latest checkpoint back; None yet: they begin where the
    particles are. Returns both as they are after ``n_steps``.
    """
    companions = state.get("companions")
    machines = checkpoint_machines(machine, state["checkpoints"])
    if companions is None:
        companions = particles.unsqueeze(1).expand(-1, len(machines) - 1, -1)
    path = TrajectoryPath(machines, torch.zeros_like(machine.visible_bias), len(machines))
    places = torch.arange(len(machines), 0, -1, device=particles.device) / len(machines)
    parity = int(state.get("n_steps", 0)) * n_steps
    step = ParallelTempering(path, places.to(particles.dtype), generator, parity % 2)
    rows = (torch.cat([particles.unsqueeze(1), companions], 1),)
    for _ in range(n_steps):
        rows = step(rows)
    return rows[0][:, 0], rows[0][:, 1:]


def evenly_spaced(
    path, n_places: int, generator: torch.Generator, n_pilot: int, n_chains: int = 100
) -> torch.Tensor:
    """Places from 0 to 1 on a path between which laws differ equally, float64 on the CPU.

    By chains that walk along it in ``n_pilot`` equal steps. How far apart the laws at two near
    places are is the standard deviation of log P_b(v) - log P_a(v) under the first: what an
    annealed weight varies by between them, and, squared, how rarely two chains there swap rows. Its
    sum along the path is the same from each of the places to the next.
    """
    pilot = torch.linspace(0, 1, n_pilot + 1, dtype=torch.float64)
    visible, lengths = path.start(n_chains, generator), [0.0]
    for before, beta in pairwise(pilot.tolist()):
        energies = path.energies(visible)
        change = path.log_density(energies, beta) - path.log_density(energies, before)
        lengths.append(float(change.std()))
        visible = path.step(energies, beta, generator)
    length = torch.tensor(lengths, dtype=torch.float64).cumsum(0)
    # Laws that seem to be the same are not skipped altogether.
    length += 0.01 * (length[-1] + 1e-9) * pilot
    aims = torch.linspace(0, float(length[-1]), n_places, dtype=torch.float64)
    after = torch.searchsorted(length, aims[1:-1]).clamp_(1, n_pilot)
    part = (aims[1:-1] - length[after - 1]) / (length[after] - length[after - 1])
    inner = torch.lerp(pilot[after - 1], pilot[after], part)
    return torch.cat([pilot[:1], inner, pilot[-1:]])


@SAMPLERS.named("trajectory")
def trajectory_tempering(
    machine, generator, base_bias, n_temperatures, checkpoints
) -> ParallelTempering:
    """Parallel tempering at so many places along the machine's own training."""
    machines = checkpoint_machines(machine, checkpoints)
    path = TrajectoryPath(machines, base_bias)
    places = evenly_spaced(path, n_temperatures, generator, _PILOT * len(machines))
    path = TrajectoryPath(machines, base_bias, n_kept=n_temperatures)
    return ParallelTempering(path, places.flip(0).to(base_bias), generator)
