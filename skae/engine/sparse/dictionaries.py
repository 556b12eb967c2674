r"""Learning a dictionary of atoms of unit norm for sparse codes.

    min over D, |d_j| = 1, of  mean_i min_h 1/2 |x_i - h D|^2 + penalty(h)

Codes are inferred for each batch and constant in the gradient -mean_i h_i^T (x_i - h_i D). Instead
of following it, a dictionary can be solved for: with the sums A = sum_i h_i^T h_i and
B = sum_i h_i^T x_i over the rows so far, one atom after another goes to where the quadratic
has its minimum (Mairal, Bach, Ponce & Sapiro 2010), which needs no learning rate.

Atoms that no row uses never move again. Rows of the batch take their place, those first that are
reconstructed badly.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from skae.engine.optimisation import compilation, processes
from skae.engine.optimisation.models import Model
from skae.engine.optimisation.parameters import Parameters
from skae.engine.optimisation.runs import Objective
from skae.engine.sparse.problem import (
    choose_algorithm,
    infer,
    largest_useful_alpha,
    make_quadratic,
    ready_algorithm,
)

# An atom is dead when it was not used while an atom of average use was used so many times. With
# less patience, atoms for what is rare are lost again and again.
_PATIENCE = 500
# Atoms that are moved with one product of matrices.
_ATOMS_AT_ONCE = 16
# Batches after which the inference's algorithm is chosen anew: codes change as atoms learn.
_BATCHES_PER_CHOICE = 20
# Batches up to this size are not worth a choice.
_FEW_ROWS = 32
# Up to this part of their entries other than 0, products of codes are faster entry by entry.
_SPARSE = 0.15
# Atoms that are replaced at a time, as a part of all and of the batch.
_MOST_REDRAWN = 0.2


def normalize_atoms_(dictionary: torch.Tensor) -> torch.Tensor:
    """Divide each atom by its norm; atoms of zeros stay."""
    norm = torch.linalg.vector_norm(dictionary, dim=1, keepdim=True)
    return dictionary.div_(torch.where(norm > 0, norm, 1.0))


def draw_atoms(rows: torch.Tensor, n_atoms: int, generator: torch.Generator) -> torch.Tensor:
    """Atoms that are rows of the data, as far as there are enough, else mixtures of them."""
    rows = rows[(rows != 0).any(1)]
    order = torch.randperm(len(rows), generator=generator, device=generator.device)
    atoms = rows[order[:n_atoms]]
    n_missing = n_atoms - len(atoms)
    if n_missing:
        # Random mixtures keep to what directions the data have; a table of zeros has none.
        basis = (
            rows if len(rows) else torch.eye(rows.shape[1], dtype=rows.dtype, device=rows.device)
        )
        weight = torch.empty(n_missing, len(basis), dtype=rows.dtype, device=rows.device)
        atoms = torch.cat([atoms, weight.normal_(generator=generator) @ basis])
    return normalize_atoms_(atoms.clone())


def update_atoms_(
    dictionary: torch.Tensor, code_gram: torch.Tensor, code_data: torch.Tensor
) -> None:
    """Move every atom to its minimum given the others, and back to unit norm.

    d_j <- d_j + (B_j - A_j D) / A_jj, one after another; atoms without use stay. ``code_gram`` is
    A = sum_i h_i^T h_i, ``code_data`` is B = sum_i h_i^T x_i.
    """
    use = code_gram.diagonal()
    negligible = use.max() * torch.finfo(use.dtype).eps
    amounts = torch.where(use > negligible, use, 0.0)
    move = _move_atoms
    if use.device.type == "cpu" and compilation.is_compiled():
        move = _move_atoms_compiled
    for first in range(0, len(dictionary), _ATOMS_AT_ONCE):
        # One product for a block of atoms; within it, what each move means for the next ones.
        block = slice(first, min(first + _ATOMS_AT_ONCE, len(dictionary)))
        step = torch.addmm(code_data[block], code_gram[block], dictionary, alpha=-1)
        move(dictionary[block], step, code_gram[block, block], amounts[block])


def _move_atoms(atoms, step, gram, amounts):
    for j, amount in enumerate(amounts.tolist()):
        if amount == 0:
            continue
        before = atoms[j].clone()
        moved = torch.add(before, step[j], alpha=1 / amount)
        norm = torch.linalg.vector_norm(moved)
        atoms[j] = torch.where(norm > 0, moved / norm, before)
        step[j + 1 :].addr_(gram[j, j + 1 :], atoms[j] - before, alpha=-1)


def _move_atoms_compiled(atoms, step, gram, amounts):
    from skae.engine.sparse.atom_moves import move_atoms

    move_atoms(atoms.numpy(), step.numpy(), gram.contiguous().numpy(), amounts.numpy())


def add_products_(code_gram, code_data, code, x, counts, *, is_sparse=False) -> None:
    """Add sum_i c_i h_i^T h_i and sum_i c_i h_i^T x_i; sparse codes by their entries alone."""
    if is_sparse and code.device.type == "cpu" and compilation.is_compiled():
        from skae.engine.sparse.atom_moves import add_products

        # The batch's own sums first: small numbers, added to each other.
        sums = torch.zeros_like(code_gram), torch.zeros_like(code_data)
        arrays = code.contiguous(), x.contiguous(), counts.to(code.dtype), *sums
        add_products(*(part.numpy() for part in arrays))
        code_gram.add_(sums[0])
        code_data.add_(sums[1])
        return
    counted = (code * counts.unsqueeze(1)).t()
    code_gram.addmm_(counted, code)
    code_data.addmm_(counted, x)


class Successors(NamedTuple):
    """Rows of a batch that take the place of dead atoms, those first that were idle for longest.

    ``dead`` are the atoms' numbers, ``atoms`` what replaces them, of unit norm.
    """

    dead: torch.Tensor
    atoms: torch.Tensor


def draw_successors(
    idle: torch.Tensor, x: torch.Tensor, error: torch.Tensor, generator: torch.Generator
) -> Successors | None:
    """Successors of some of the dead atoms, or None where none is dead or no row is missed.

    ``idle`` is for how long each atom was not used, in uses of an average atom. Rows are drawn by
    ``error``, the squared distance of each from its reconstruction.
    """
    dead = (idle > _PATIENCE).nonzero().squeeze(1)
    if len(dead) == 0:
        return None
    error = torch.where((x != 0).any(1), error, 0.0)
    n_drawn = min(len(dead), max(1, int(_MOST_REDRAWN * min(len(idle), len(x)))))
    n_drawn = min(n_drawn, int((error > 0).sum()))
    if n_drawn == 0:
        return None
    dead = dead[idle[dead].argsort(descending=True, stable=True)[:n_drawn]]
    chosen = torch.multinomial(error, n_drawn, generator=generator)
    return Successors(dead, normalize_atoms_(x[chosen].clone()))


class DictionaryLearning(Objective):
    """mean_i min_h 1/2 |x_i - h D|^2 + penalty(h) + ridge/2 |h|^2 + floor.

    The floor is the part of the loss in nats that no dictionary changes; tol and max_iter are the
    inference's. The ``state`` is what the rows so far say: ``n_seen``, the sum of their weights;
    ``idle``, for how long each atom was not used, in uses of an average atom; and, if it keeps the
    statistics that `solve_` needs, A as ``code_gram`` and B as ``code_data``. ``successors`` are
    those of the batch of the last `gradient`, for `replace_dead_` after the step.
    """

    def __init__(self, penalty, *, ridge=0.0, floor=0.0, tol=1e-3, max_iter=1000,
                 keeps_statistics=True):  # fmt: skip
        self.penalty, self.ridge, self.floor = penalty, ridge, floor
        self.inference = {"tol": tol, "max_iter": max_iter}
        self.keeps_statistics = keeps_statistics
        self.state, self.successors = {}, None
        self._algorithm, self._n_inferred = None, 0

    @property
    def memory(self):
        """The algorithm that was chosen, and how many batches ago."""
        return {"algorithm": self._algorithm, "n_inferred": self._n_inferred}

    @memory.setter
    def memory(self, memory):
        self._algorithm, self._n_inferred = memory["algorithm"], memory["n_inferred"]

    def infer(self, theta: Parameters, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The codes of a batch, and the value at them of each row."""
        quadratic = make_quadratic(theta["dictionary"], x, ridge=self.ridge)
        if len(x) <= _FEW_ROWS:
            self._algorithm = None
        elif self._algorithm is None or self._n_inferred % _BATCHES_PER_CHOICE == 0:
            self._algorithm = choose_algorithm(
                quadratic, self.penalty, n_rows=len(x), **self.inference
            )
        self._n_inferred += 1
        # Of few rows, those that a pilot would take are all.
        algorithm = self._algorithm or ready_algorithm(self.penalty, None, x.device)
        result = infer(quadratic, self.penalty, algorithm=algorithm, **self.inference)
        return result.codes, result.objective

    def value(self, theta, x, generator, row_weight=None):
        """The objective on one batch, differentiable with respect to the dictionary."""
        with torch.no_grad():
            code, _ = self.infer(theta, x)
        residual = x - code @ theta["dictionary"]
        loss = 0.5 * (residual * residual).sum(1) + self.penalty.value(code)
        loss = loss + 0.5 * self.ridge * (code * code).sum(1) + self.floor
        return loss.mean() if row_weight is None else (row_weight * loss).mean()

    criterion = value

    def gradient(self, theta, x, generator, out, row_weight=None):
        """Write -mean_i h_i^T (x_i - h_i D) into ``out``; return the value.

        The rows join the state, and `successors` are drawn among them.
        """
        code, loss = self.infer(theta, x)
        weighted = code if row_weight is None else code * row_weight.unsqueeze(1)
        residual = torch.addmm(x, code, theta["dictionary"], alpha=-1)
        torch.mm(weighted.t(), residual, out=out["dictionary"]).mul_(-1.0 / len(x))
        self._count(code, x, row_weight)
        error = (residual * residual).sum(1)
        self.successors, idle = None, self.state["idle"]
        if bool((idle > _PATIENCE).any()):  # so it is in all processes
            own = draw_successors(idle, x, error, generator)
            self.successors = processes.current().best(own, float(error.sum()))
        loss = loss + self.floor
        return loss.mean() if row_weight is None else (row_weight * loss).mean()

    def _count(self, code, x, row_weight):
        state, n_components = self.state, code.shape[1]
        if not state:
            state.update(n_seen=0.0, idle=code.new_zeros(n_components))
        if self.keeps_statistics and "code_gram" not in state:
            state.update(
                code_gram=code.new_zeros(n_components, n_components),
                code_data=code.new_zeros(n_components, x.shape[1]),
            )
        everyone = processes.current()
        uses = everyone.sum_((code != 0).sum(0))
        # Idle time in uses of an average atom: it does not depend on the batch's size.
        state["idle"].add_(uses.double().mean().to(code.dtype))
        state["idle"][uses > 0] = 0.0
        weight = code.new_ones(len(x)) if row_weight is None else row_weight
        weight = everyone.counted(weight)
        before = float(state["n_seen"])
        added, earlier = everyone.spread(float(weight.sum()))
        state["n_seen"] = now = before + added
        if self.keeps_statistics:
            # Codes of a younger dictionary become obsolete: the t-th of n rows counts (t / n)^2,
            # in whatever batch it came; a row of weight w is w rows, by the integral over t.
            last = (before + earlier + weight.cumsum(0)) / now
            first = last - weight / now
            counts = weight * (first * first + first * last + last * last) / 3
            fading = (before / now) ** 2
            sums = state["code_gram"].mul_(fading), state["code_data"].mul_(fading)
            is_sparse = float(uses.sum()) < _SPARSE * code.numel()
            everyone.add_(
                sums, lambda *sums: add_products_(*sums, code, x, counts, is_sparse=is_sparse)
            )

    def solve_(self, dictionary: torch.Tensor) -> None:
        """Move every atom to its best place for the codes of the rows so far."""
        update_atoms_(dictionary, self.state["code_gram"], self.state["code_data"])

    def replace_dead_(self, dictionary: torch.Tensor) -> None:
        """Let the `successors` take their places; what is known of the dead is forgotten."""
        if self.successors is None:
            return
        dead, atoms = self.successors
        self.successors = None
        dictionary[dead] = atoms
        self.state["idle"][dead] = 0.0
        if self.keeps_statistics:
            self.state["code_gram"][dead] = 0.0
            self.state["code_gram"][:, dead] = 0.0
            self.state["code_data"][dead] = 0.0


class DictionarySteps:
    """Steps of `train` for a dictionary: by a rule that follows the gradient, or by solving.

    Without a rule, every step is `DictionaryLearning.solve_`. What all rows so far say then takes
    the place of the gradient and of the learning rate.
    """

    def __init__(self, learning: DictionaryLearning, rule: Any = None):
        self.learning, self.rule = learning, rule
        self.slots = () if rule is None else rule.slots

    def update_(self, theta, gradient, state, learning_rate):
        """One step, after which rows take the place of atoms that died."""
        dictionary = theta.view(len(self.learning.state["idle"]), -1)
        if self.rule is None:
            self.learning.solve_(dictionary)
        else:
            self.rule.update_(theta, gradient, state, learning_rate)
        self.learning.replace_dead_(dictionary)


def sparse_coding(
    n_components: int,
    n_features: int,
    penalty: Any,
    infer_code: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    *,
    split_sign: bool = False,
    **fields: Any,
) -> Model:
    """The `Model` of codes for a dictionary of atoms of unit norm, without an encoder.

    ``infer_code`` is a function (dictionary, x) -> codes, of which, with ``split_sign``, positive
    and negative parts are features of their own. ``fields`` are others of `Model`; at least
    ``units`` and ``objective``.
    """

    def start_(theta, rows, index, generator):
        chosen = torch.randperm(len(index), generator=generator, device=generator.device)
        # More than enough: rows of zeros are no atoms.
        sample = rows.take(index.to(chosen.device)[chosen[: 2 * n_components]])
        theta["dictionary"].copy_(draw_atoms(sample, n_components, generator))

    def encode(theta, x):
        h = infer_code(theta["dictionary"], x)
        return torch.cat([h.clamp(min=0), (-h).clamp_(min=0)], 1) if split_sign else h

    def decode(theta, h):
        if split_sign:
            positive, negative = h.chunk(2, dim=1)
            h = positive - negative
        return h @ theta["dictionary"]

    return Model(
        shapes={"dictionary": (n_components, n_features)},
        start_=start_,
        encode=encode,
        decode=decode,
        n_features=n_features,
        n_codes=n_components * (2 if split_sign else 1),
        inference="a problem that is solved for each row",
        project=lambda theta: normalize_atoms_(theta["dictionary"]),
        largest_alpha=lambda theta, x: largest_useful_alpha(penalty, x @ theta["dictionary"].t()),
        **fields,
    )
