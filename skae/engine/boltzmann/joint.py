"""The learning of several machines of one shape as one: tensors have one axis more, the first."""

from collections.abc import Sequence
from copy import copy
from functools import partial
from typing import Any, NamedTuple

import torch

from skae.engine.boltzmann.memory import followed, note_moves
from skae.engine.networks.forward import Forward
from skae.engine.networks.penalties import of_some, together
from skae.engine.optimisation.devices import coins
from skae.engine.optimisation.parameters import Parameters
from skae.engine.optimisation.runs import Joint


class Inputs(NamedTuple):
    """What a step sees of rows, and the random numbers of its chains.

    - ``x``, of shape (n_samples, n_visible).
    - ``counted``, (n_samples,): 1 for each row.
    - ``hidden`` and ``visible``, (n_chains, n_gibbs_steps, ...): what hidden and visible units are
      drawn by, one after the other.
    - ``start``, (n_chains, n_hidden): what persistent chains are begun by.
    - ``row_weight``, (n_samples,), weighs rows. None: all alike.
    """

    x: torch.Tensor
    counted: torch.Tensor
    hidden: torch.Tensor
    visible: torch.Tensor
    start: torch.Tensor | None = None
    row_weight: torch.Tensor | None = None


def joint_learning(objective: Any) -> Joint | None:
    """How a `ContrastiveDivergence` of a restricted machine takes part in a training of several.

    Its units have to be drawn by random numbers that do not depend on the parameters.
    """
    units, penalties = objective.units, objective.penalties
    is_plain = objective.n_checkpoints == 0 and not objective.tempered and units.noise is not None
    if not (is_plain and all(hasattr(penalty, "numbers") for penalty in penalties)):
        return None
    rule = objective.n_gibbs_steps, objective.persistent, objective.n_chains
    centered = objective.visible_offset is not None
    return Joint(
        likeness=(type(units), tuple(map(type, penalties)), *rule, centered),
        closeness=None,
        noise=None,
        make=JointContrast,
        inputs=partial(_inputs, objective),
    )


def _inputs(objective, x, generator, row_weight=None):
    """What a step of one machine sees of a batch; draws what a step by itself would draw."""
    n_hidden, units = objective.n_hidden, objective.units
    n = objective.n_chains if objective.persistent else len(x)

    def of_hidden():
        return coins((n, n_hidden), x, generator)

    def of_visible():
        return units.noise((n, x.shape[1]), x, generator)

    start = None
    if objective.persistent and not objective.begins_jointly:
        start = of_hidden()
        objective.begins_jointly = True
    hidden, visible = [], []
    for _ in range(objective.n_gibbs_steps):
        # Persistent chains end with hidden units, others begin with them.
        if objective.persistent:
            visible.append(of_visible())
            hidden.append(of_hidden())
        else:
            hidden.append(of_hidden())
            visible.append(of_visible())
    counted, steps = (
        x.new_ones(len(x)),
        (_one_after_the_other(hidden), _one_after_the_other(visible)),
    )
    return Inputs(x, counted, *steps, start, row_weight)


def _one_after_the_other(parts):
    return parts[0].unsqueeze(1) if len(parts) == 1 else torch.stack(parts, 1)


class JointContrast:
    """Contrastive divergence of several machines, which differ in their parameters, rows, random
    numbers, offsets and the weights of their penalties.

    ``state`` has what `ContrastiveDivergence` keeps, with an axis more.
    """

    def __init__(self, objectives: Sequence[Any], like: torch.Tensor):
        self.first, self.n_models = objectives[0], len(objectives)
        self.units = self.first.units
        kinds = zip(*(objective.penalties for objective in objectives), strict=True)
        self.penalties = [together(penalties, like) for penalties in kinds]
        self.visible_offset = None
        if self.first.visible_offset is not None:
            self.visible_offset = torch.stack([each.visible_offset for each in objectives])
        self.state: dict[str, Any] = {}
        self._all_moved = False

    def of(self, places: list[int]) -> "JointContrast":
        """The learning of some of the machines."""
        some = copy(self)
        some.n_models = len(places)
        if self.visible_offset is not None:
            some.visible_offset = self.visible_offset[places]
        some.penalties = [of_some(each, places) for each in self.penalties]
        some.state = {
            name: value if name == "n_steps" else value[places]
            for name, value in self.state.items()
        }
        return some

    def state_of(self, place: int) -> dict[str, Any]:
        """What one of the objectives would know by itself."""
        return {
            name: value if name == "n_steps" else value[place].clone()
            for name, value in self.state.items()
        }

    def gradient(self, theta: Parameters, inputs: Inputs, out: Parameters) -> None:
        """Write the steps into ``out``, and advance the chains."""
        machine = self.first.machine(theta)
        code, particles, particle_code = self._run_chains(machine, inputs)
        delta = None
        if self.penalties:
            delta = self._penalty_delta(machine.network, theta, inputs, code, out)
        offsets = self._offsets(inputs.counted, code)
        pairs = self._weighted(inputs, code, particles, particle_code, delta)
        self._contrast_(pairs, out, offsets, keeps=delta is not None)

    def _run_chains(self, machine, inputs):
        """P(h = 1 | x), particles v, and P(h = 1 | v)."""
        x, k, code = inputs.x, self.first.n_gibbs_steps, machine.code(inputs.x)
        if self.first.persistent:
            if "chains" not in self.state:
                rows = torch.arange(inputs.start.shape[1], device=x.device) % self._n_rows(inputs)
                own = code.gather(1, rows.unsqueeze(-1).expand(*rows.shape, code.shape[-1]))
                self.state["chains"] = _drawn(own, inputs.start)
            before = hidden = self.state["chains"]
        else:
            hidden = _drawn(code, inputs.hidden[:, :, 0])
        for step in range(k):
            particles = self.units.drawn(machine.visible_input(hidden), inputs.visible[:, :, step])
            particle_code = machine.code(particles)
            if step < k - 1:
                number = step if self.first.persistent else step + 1
                hidden = _drawn(particle_code, inputs.hidden[:, :, number])
        if self.first.persistent:
            self.state["chains"] = _drawn(particle_code, inputs.hidden[:, :, -1])
            self._all_moved = note_moves(self.state, before, self._all_moved)
        return code, particles, particle_code

    def _n_rows(self, inputs):
        """How many rows each has, of shape (n_models, 1)."""
        return inputs.counted.sum(-1, keepdim=True).long()

    def _offsets(self, counted, code):
        """The offsets of visible and hidden units, before these follow the batch's means."""
        if self.visible_offset is None:
            return None
        mean = torch.matmul(counted.unsqueeze(1), code).squeeze(1) / counted.sum(-1, keepdim=True)
        return self.visible_offset, followed(self.state, "hidden_offset", mean)

    def _penalty_delta(self, network, theta, inputs, code, out):
        """What penalties ask of the code; what they ask of the parameters is written."""
        out.flat.zero_()
        forward = Forward(network, self.units, inputs.x, inputs.row_weight, None, [code])
        forward.slope, forward.delta = code * (1 - code), torch.zeros_like(code)
        for penalty in self.penalties:
            penalty.add_gradient_(theta, forward, out)
        return forward.delta.div_(inputs.x.shape[1])

    def _weighted(self, inputs, code, particles, particle_code, delta):
        """Pairs of visible and hidden units whose products are to be summed over rows, with the
        share that each row's visible units have in the sum.
        """
        weight, n, m = inputs.row_weight, inputs.x.shape[1], particles.shape[1]
        if weight is None:
            weight = inputs.counted
        data, model = weight / -n, weight / n
        if self.first.persistent:
            model = (weight.mean(1, keepdim=True) / m).expand(-1, m)
        code = code * data.unsqueeze(-1)
        if delta is not None:
            code += delta
        return (
            (inputs.x, code, data),
            (particles, particle_code.mul_(model.unsqueeze(-1)), model),
        )

    def _contrast_(self, pairs, out, offsets, keeps):
        """`BipartiteMachine.contrast_` of each; with ``keeps`` it is added to ``out``."""
        product = torch.matmul
        (x, code, _), (particles, particle_code, _) = pairs
        weight = torch.baddbmm(product(code.mT, x), particle_code.mT, particles)
        hidden_bias = code.sum(1) + particle_code.sum(1)
        visible_bias = sum(product(q.unsqueeze(1), v).squeeze(1) for v, _, q in pairs)
        if offsets is not None:
            # Shares sum to 0, so that products of deviations from offsets differ by these.
            of_visible, of_hidden = offsets
            weight.addcmul_(of_hidden.unsqueeze(2), visible_bias.unsqueeze(1), value=-1)
            weight.addcmul_(hidden_bias.unsqueeze(2), of_visible.unsqueeze(1), value=-1)
        if keeps:
            weight.add_(out["weight_0"])
            visible_bias.add_(out["visible_bias_0"])
            hidden_bias.add_(out["hidden_bias_0"])
        if offsets is not None:
            visible_bias.sub_(product(of_hidden.unsqueeze(1), weight).squeeze(1))
            hidden_bias.sub_(product(weight, of_visible.unsqueeze(2)).squeeze(2))
        out["weight_0"].copy_(weight)
        out["visible_bias_0"].copy_(visible_bias)
        out["hidden_bias_0"].copy_(hidden_bias)


def _drawn(code, numbers):
    """Hidden units of such means, drawn by random numbers."""
    return torch.lt(numbers, code, out=torch.empty_like(code))
