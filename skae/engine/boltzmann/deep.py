r"""Deep Boltzmann machines: several layers of units, each of which hears its neighbours.

    E(h_0, .., h_L) = E_v(h_0) - sum_l h_l b_l - sum_l h_l+1 W_l (h_l / s^2),   h_0 = v

where s is 1 but for real visible units. Units of even layers hear units of odd layers alone, and
the other way round: the machine is bipartite, with the even layers side by side for its visible
units and the odd ones for its hidden units. With two hidden layers its weights are (W_0, W_1^T).
Chains, tempering, annealing and exact sums are those of a `BipartiteMachine`.

What is new is the posterior, which does not factorise. Q(h | v) = prod_l Bernoulli(mu_l) stands
for it, whose means are found by sweeps (Salakhutdinov & Hinton 2009)

    mu_l <- sigmoid(b_l + W_l-1 mu_l-1 + W_l^T mu_l+1),   mu_0 = v

over odd, then over even layers. Each makes this bound larger, or leaves it as it is:

    log P(v) >= -F(v, mu_2, mu_4, ..) + H(mu_2) + H(mu_4) + .. - log Z

with F the free energy of the bipartite machine at the *completed row* (v, mu_2, mu_4, ..), in which
the odd layers are at the optimum. At fixed means its gradient is that of F there: a deep machine
learns as a restricted one does that sees completed rows.
"""

import math
from collections.abc import Callable
from itertools import accumulate, pairwise

import torch

from skae.engine.boltzmann.energies import BipartiteMachine
from skae.engine.networks.layers import Network
from skae.engine.networks.mixed import Mixed
from skae.engine.networks.units import Bernoulli
from skae.engine.optimisation.devices import bernoulli
from skae.engine.optimisation.parameters import Parameters


class DeepMachine(BipartiteMachine):
    """The deep Boltzmann machine with such parameters.

    ``theta`` are the parameters of `deep_shapes`, of which the lowest ``n_layers`` hidden layers
    are taken (None: all). ``units`` are those of the even layers side by side, see `even_units`.
    Mean fields take ``n_sweeps`` sweeps at most, and no more of a row where no mean changes by
    ``tol``.

    The weights of the bipartite machine are a copy: where the parameters change, it has to be
    `renewed`.
    """

    def __init__(
        self,
        theta,
        units,
        n_sweeps: int = 30,
        tol: float = 1e-4,
        n_layers: int | None = None,
    ):
        if n_layers is None:
            n_layers = sum(name.startswith("weight_") for name in theta)
        self.weights = [theta[f"weight_{level}"] for level in range(n_layers)]
        self.biases = [theta[f"hidden_bias_{level}"] for level in range(n_layers)]
        self.biases.insert(0, theta["visible_bias_0"])
        self.sizes = tuple(len(bias) for bias in self.biases)
        self.n_sweeps, self.tol = n_sweeps, tol
        # Where each layer is in its side of the bipartite machine.
        self.spans = [slice(0, 0)] * len(self.sizes)
        for parity in (0, 1):
            sizes = self.sizes[parity::2]
            stops = accumulate(sizes)
            self.spans[parity::2] = [
                slice(stop - n, stop) for n, stop in zip(sizes, stops, strict=True)
            ]
        self._joined = self._in_sides(theta)
        super().__init__(self._joined, units)
        self.theta = theta

    @property
    def n_columns(self) -> int:
        """How many of the visible units of the bipartite machine are columns of the data."""
        return self.sizes[0]

    @property
    def network(self) -> Network:
        """The network of such tied layers, for penalties on weights."""
        return Network(self.sizes)

    # Layers and sides

    def columns(self, visible: torch.Tensor) -> torch.Tensor:
        """The data's columns among the units of the even layers."""
        return visible[..., : self.n_columns]

    def widened(self, bias: torch.Tensor) -> torch.Tensor:
        """Biases of independent visible units, and 0 for those of the other even layers."""
        return torch.cat([bias, bias.new_zeros(self.n_visible - len(bias))])

    def layers(self, visible: torch.Tensor, hidden: torch.Tensor) -> list[torch.Tensor]:
        """The hidden layers, from the lowest up, given both sides."""
        sides = visible, hidden
        return [sides[level % 2][:, span] for level, span in enumerate(self.spans)][1:]

    def codes(self, visible: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """The hidden layers side by side, as penalties see them."""
        return torch.cat(self.layers(visible, hidden), 1)

    def completed(self, x: torch.Tensor) -> torch.Tensor:
        """Rows of data, and beside them the means of the other even layers given them."""
        if self.n_visible == self.n_columns:
            return x
        n, weight = self.n_columns, self.weight
        precision = self.precision
        heard = x if precision is None else x * precision[:n]
        heard = torch.addmm(self.hidden_bias, heard, weight[:, :n].t())
        weight, bias = weight[:, n:], self.visible_bias[n:]

        def sweep(means, rows):
            odd = torch.addmm(heard[rows], means, weight.t()).sigmoid_()
            return torch.addmm(bias, odd, weight).sigmoid_()

        start = torch.cat(self.upward(x)[1::2], 1)
        return torch.cat([x, settled(sweep, start, self.n_sweeps, self.tol)], 1)

    def drawn(self, x: torch.Tensor, generator: torch.Generator) -> tuple:
        """Rows and beside them draws of the other even layers, whose means are of Q.

        And log Q of what was drawn, of shape (n_samples,).
        """
        completed = self.completed(x)
        means = completed[:, self.n_columns :]
        states = bernoulli(means, generator)
        log_draw = torch.where(states > 0, means, 1 - means).log().sum(1)
        return torch.cat([x, states], 1), log_draw

    def upward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Means of the hidden layers by one pass up, as the pre-trained machines compute them.

        The input from below counts twice where a layer has one above that is not known yet.
        """
        means, precision = [], self.precision
        below = x if precision is None else x * precision[: self.n_columns]
        for level, weight in enumerate(self.weights):
            factor = 2.0 if level + 1 < len(self.weights) else 1.0
            below = torch.addmm(self.biases[level + 1], below, weight.t(), alpha=factor).sigmoid()
            means.append(below)
        return means

    def posterior(self, x: torch.Tensor) -> list[torch.Tensor]:
        """The means of the hidden layers, by one more pass up from where the sweeps have ended.

        Gradients go through this pass, in which what is heard from above is constant: the network
        that Salakhutdinov & Hinton (2009) fine-tune.
        """
        with torch.no_grad():
            completed = self.completed(x)
            above = [*self.layers(completed, self.code(completed))[1:], None]
        means, precision = [], self.precision
        below = x if precision is None else x * precision[: self.n_columns]
        for level, (weight, mean) in enumerate(zip(self.weights, above, strict=True)):
            a = torch.addmm(self.biases[level + 1], below, weight.t())
            if mean is not None:
                a = torch.addmm(a, mean, self.weights[level + 1])
            below = torch.sigmoid(a)
            means.append(below)
        return means

    def decoded(self, code: torch.Tensor) -> torch.Tensor:
        """Pre-activation of the columns given the top layer, those between in the mean field.

        As in `posterior`, gradients go through one last pass, here down.
        """
        top, below = len(self.weights), []
        if top > 1:
            with torch.no_grad():
                visible = self._given_top(code.detach())
                below = [visible[:, : self.n_columns], *self.layers(visible, self.code(visible))]
        for level in range(top - 1, 0, -1):
            a = torch.addmm(self.biases[level], code, self.weights[level])
            heard = below[level - 1]
            if level == 1 and self.precision is not None:
                heard = heard * self.precision[: self.n_columns]
            code = torch.sigmoid(torch.addmm(a, heard, self.weights[level - 1].t()))
        return torch.addmm(self.biases[0], code, self.weights[0])

    def inferred(self, x: torch.Tensor, is_given: torch.Tensor, fill: torch.Tensor):
        """The even layers in the mean field given some of the columns, (n_samples, n_visible).

        Rows and ``is_given`` have shape (n_samples, n_columns); what is not given may be NaN.
        Sweeps begin at ``fill``. Gradients go through all of them.
        """
        n = self.n_columns

        def sweep(visible, rows):
            even = self.units.mean(self.visible_input(self.code(visible)))
            columns = torch.where(is_given[rows], x[rows], even[:, :n])
            return torch.cat([columns, even[:, n:]], 1)

        start = torch.where(is_given, x, fill)
        start = torch.cat([start, *self.upward(start)[1::2]], 1)
        return settled(sweep, start, self.n_sweeps, self.tol)

    def predicted(self, x: torch.Tensor, is_given: torch.Tensor, fill: torch.Tensor):
        """Pre-activation of every column, where those that are not given are in the mean field.

        Arguments are those of `inferred`.
        """
        visible = self.inferred(x, is_given, fill)
        return self.columns(self.visible_input(self.code(visible)))

    def filled(self, x: torch.Tensor, fill: torch.Tensor) -> torch.Tensor:
        """Rows of data with what the mean field makes of their gaps in the place of NaN."""
        gaps = torch.isnan(x)
        rows = gaps.any(1)
        if bool(rows.any()):
            x = x.clone()
            x[rows] = self.columns(self.inferred(x[rows], ~gaps[rows], fill))
        return x

    # Energies

    def free_energy_bound(
        self, completed: torch.Tensor, gaps: torch.Tensor | None = None
    ) -> torch.Tensor:
        """F(v, mu) - H(mu) of each completed row: not below the free energy of v.

        Where ``gaps``, of shape (n_samples, n_columns), tell of columns that are means of Q as
        well, it is not below the free energy of what was given.
        """
        entropies = self._entropies(completed)
        if gaps is not None:
            entropies[:, : self.n_columns].masked_fill_(~gaps, 0.0)
        counted = entropies if gaps is not None else entropies[:, self.n_columns :]
        return self.free_energy(completed) - counted.sum(1)

    def _entropies(self, visible):
        """What free units of such means add to the bound: of a real one, at its own variance."""
        result = torch.special.entr(visible)
        units = self.units
        for part, own in units.parts if isinstance(units, Mixed) else [(units, slice(None))]:
            if part.is_binary:
                result[:, own] += torch.special.entr(1 - visible[:, own])
            elif not part.is_discrete:
                # Its entropy, less the half by which its variance raises the expected energy.
                variance = 1.0 if self.log_variance is None else self.log_variance[own].exp()
                result[:, own] = 0.5 * (result.new_tensor(2 * math.pi) * variance).log()
        return result

    # Learning

    def over(self, theta) -> "DeepMachine":
        """The same kind of machine over other parameters."""
        n_layers = len(self.weights)
        return DeepMachine(theta, self.units, self.n_sweeps, self.tol, n_layers)

    def renewed(self) -> "DeepMachine":
        """The machine of its parameters as they are now."""
        return self.over(self.theta)

    def start_(self, base_bias: torch.Tensor, generator: torch.Generator) -> None:
        """Set the parameters with which training begins.

        Weights are uniform in +-sqrt(6 / (fan_in + fan_out)). Hidden units begin at 1/2: what they
        add to the input of their neighbours is taken off again.
        """
        self.theta.flat.zero_()
        self.biases[0].copy_(base_bias)
        for level, weight in enumerate(self.weights):
            bound = math.sqrt(6.0 / sum(weight.shape))
            # Drawn in float32 for every dtype, so that both start from the same weights.
            draw = torch.empty(weight.shape, dtype=torch.float32, device=weight.device)
            weight.copy_(draw.uniform_(-bound, bound, generator=generator))
            self.biases[level].sub_(weight.sum(0), alpha=0.5)
            if level > 0:
                self.biases[level + 1].sub_(weight.sum(1), alpha=0.5)

    def contrast_(
        self, visible, hidden, share, out, *, delta=None, offsets=None
    ) -> torch.Tensor | None:
        """That of the bipartite machine, layer by layer.

        ``delta`` has a column for each unit of all hidden layers. What it asks for by the other
        even layers, whose input comes from the odd ones, is added here.
        """
        shapes = {name: tuple(array.shape) for name, array in self._joined.items()}
        joined = Parameters(shapes, dtype=visible.dtype, device=visible.device)
        step = BipartiteMachine(joined, self.units)
        odd = None
        if delta is not None:
            for name, array in self._in_sides(out).items():
                joined[name].copy_(array)
            parts = delta.split(self.sizes[1:], 1)
            odd = torch.cat(parts[::2], 1)
            if len(parts) > 1:
                even, heard = torch.cat(parts[1::2], 1), hidden[: len(delta)]
                heard = heard if offsets is None else heard - offsets[1]
                step.weight[:, self.n_columns :].addmm_(heard.t(), even)
                step.visible_bias[self.n_columns :].add_(even.sum(0))
        super().contrast_(visible, hidden, share, joined, delta=odd, offsets=offsets)
        sides = step.visible_bias, step.hidden_bias
        out["visible_bias_0"].copy_(step.visible_bias[: self.n_columns])
        for level in range(len(self.weights)):
            above = sides[(level + 1) % 2][self.spans[level + 1]]
            out[f"hidden_bias_{level}"].copy_(above)
            out[f"weight_{level}"].copy_(self._block(step.weight, level))
        if step.log_variance is None:
            return None
        return out["log_variance"].copy_(step.log_variance[: self.n_columns])

    def _cut_(self, weight):
        for odd in range(1, len(self.sizes), 2):
            for even in range(0, len(self.sizes), 2):
                if abs(odd - even) > 1:
                    weight[self.spans[odd], self.spans[even]] = 0.0

    def _block(self, weight, level):
        """What the weights of the bipartite machine have of those of a layer."""
        if level % 2 == 0:
            return weight[self.spans[level + 1], self.spans[level]]
        return weight[self.spans[level], self.spans[level + 1]].t()

    def _in_sides(self, theta):
        """The parameters of the bipartite machine, by name, of parameters of the layers."""
        weights = [theta[f"weight_{level}"] for level in range(len(self.weights))]
        biases = [theta[f"hidden_bias_{level}"] for level in range(len(self.weights))]
        biases.insert(0, theta["visible_bias_0"])
        rows = []
        for odd in range(1, len(self.sizes), 2):
            blocks = [weights[0].new_zeros(self.sizes[odd], n) for n in self.sizes[::2]]
            blocks[odd // 2] = weights[odd - 1]
            if odd < len(weights):
                blocks[odd // 2 + 1] = weights[odd].t()
            rows.append(torch.cat(blocks, 1))
        sides = {
            "weight_0": torch.cat(rows),
            "hidden_bias_0": torch.cat(biases[1::2]),
            "visible_bias_0": torch.cat(biases[::2]),
        }
        if "log_variance" in theta:
            own, n_others = theta["log_variance"], sum(self.sizes[2::2])
            sides["log_variance"] = torch.cat([own, own.new_zeros(n_others)])
        return sides

    def _given_top(self, code):
        """The even layers in the mean field given the top layer."""
        top = len(self.weights)
        span, is_odd = self.spans[top], top % 2 == 1

        def even_of(odd, rows):
            even = self.units.mean(self.visible_input(odd))
            if not is_odd:
                even[:, span] = code[rows]
            return even

        def sweep(odd, rows):
            odd = self.code(even_of(odd, rows))
            if is_odd:
                odd[:, span] = code[rows]
            return odd

        means = [code]
        for level in range(top - 1, 0, -1):
            a = torch.addmm(self.biases[level], means[0], self.weights[level], alpha=2.0)
            means.insert(0, a.sigmoid_())
        odd = settled(sweep, torch.cat(means[::2], 1), self.n_sweeps, self.tol)
        return even_of(odd, slice(None))


def deep_shapes(sizes, *, learns_variance: bool = False) -> dict[str, tuple[int, ...]]:
    """Name and shape of each parameter of layers of such sizes, from the columns up."""
    shapes: dict[str, tuple[int, ...]] = {"visible_bias_0": (sizes[0],)}
    for level, (below, above) in enumerate(pairwise(sizes)):
        shapes |= {f"weight_{level}": (above, below), f"hidden_bias_{level}": (above,)}
    return shapes | ({"log_variance": (sizes[0],)} if learns_variance else {})


def even_units(units, sizes):
    """The units of the even layers: those of the columns, and Bernoulli units beside them."""
    n_columns, n_others = sizes[0], sum(sizes[2::2])
    if n_others == 0 or units.is_binary:
        return units
    parts = units.parts if isinstance(units, Mixed) else [(units, slice(0, n_columns))]
    return Mixed([*parts, (Bernoulli(), slice(n_columns, n_columns + n_others))])


def settled(sweep: Callable, means: torch.Tensor, n_sweeps: int, tol: float) -> torch.Tensor:
    """Means after sweeps, (n_samples, n_units); a row in which no mean changes by ``tol`` rests.

    ``sweep(means, rows)`` goes from means of some rows, of such numbers, to the next. What comes
    of a row is the same whatever rows are beside it.
    """
    rows = torch.arange(len(means), device=means.device)
    means, moving = means.clone(), means
    for _ in range(n_sweeps):
        new = sweep(moving, rows)
        moves = (new - moving).abs().amax(1) >= tol
        means[rows] = new
        rows, moving = rows[moves], new[moves]
        if len(rows) == 0:
            break
    return means
