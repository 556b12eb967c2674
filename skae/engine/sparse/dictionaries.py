r"""Learning a dictionary of atoms of unit norm for sparse codes.

    min over D, |d_j| = 1, of  mean_i min_h 1/2 |x_i - h D|^2 + penalty(h)

Codes are inferred for each batch and constant in the gradient -mean_i h_i^T (x_i - h_i D). Instead
of following it, a dictionary can be solved for: with the sums A = sum_i h_i^T h_i and
B = sum_i h_i^T x_i over the rows so far, one atom after another goes to where the quadratic
has its minimum (Mairal, Bach, Ponce & Sapiro 2010), which needs no learning rate.

Atoms that no row uses never move again. They are redrawn from rows of the batch, those first that
are reconstructed badly.
"""

import torch

from skae.engine.sparse.inference import choose_algorithm, infer
from skae.engine.sparse.problem import L1, make_quadratic

# An atom is dead when it was not used while an atom of average use was used so many times. With
# less patience, atoms for what is rare are lost again and again.
_PATIENCE = 500
# Atoms that are moved with one product of matrices.
_ATOMS_AT_ONCE = 16
# Batches after which the inference's algorithm is chosen anew: codes change as atoms learn.
_BATCHES_PER_CHOICE = 20
# Batches up to this size are not worth a choice.
_FEW_ROWS = 32
# Atoms that are redrawn at a time, as a part of all and of the batch.
_MOST_REDRAWN = 0.2


def normalize_atoms_(dictionary):
    """Divide each atom by its norm; atoms of zeros stay."""
    norm = torch.linalg.vector_norm(dictionary, dim=1, keepdim=True)
    return dictionary.div_(torch.where(norm > 0, norm, 1.0))


def draw_atoms(rows, n_atoms, generator):
    """Atoms that are rows of the data, as far as there are enough, else mixtures of them.

    Parameters
    ----------
    rows : Tensor of shape (n_samples, n_features)
    n_atoms : int
    generator : torch.Generator

    Returns
    -------
    atoms : Tensor of shape (n_atoms, n_features)
        Of unit norm.
    """
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


def update_atoms_(dictionary, code_gram, code_data):
    """Move every atom to its minimum given the others, and back to unit norm.

    d_j <- d_j + (B_j - A_j D) / A_jj, one after another; atoms without use stay.

    Parameters
    ----------
    dictionary : Tensor of shape (n_components, n_features), changed in place
    code_gram : Tensor of shape (n_components, n_components)
        A = sum_i h_i^T h_i.
    code_data : Tensor of shape (n_components, n_features)
        B = sum_i h_i^T x_i.
    """
    use = code_gram.diagonal()
    negligible = use.max() * torch.finfo(use.dtype).eps
    amounts = torch.where(use > negligible, use, 0.0).tolist()
    for first in range(0, len(dictionary), _ATOMS_AT_ONCE):
        # One product for a block of atoms; within it, what each move means for the next ones.
        block = slice(first, min(first + _ATOMS_AT_ONCE, len(dictionary)))
        step = torch.addmm(code_data[block], code_gram[block], dictionary, alpha=-1)
        for place, atom in enumerate(range(first, block.stop)):
            if amounts[atom] == 0:
                continue
            before = dictionary[atom].clone()
            moved = torch.add(before, step[place], alpha=1 / amounts[atom])
            norm = torch.linalg.vector_norm(moved)
            dictionary[atom] = torch.where(norm > 0, moved / norm, before)
            following = code_gram[atom, atom + 1 : block.stop]
            step[place + 1 :].addr_(following, dictionary[atom] - before, alpha=-1)


class DictionaryLearning:
    """mean_i min_h 1/2 |x_i - h D|^2 + penalty(h), with the statistics of `BlockUpdate`.

    Parameters
    ----------
    penalty : L1 or GroupL2
    ridge : float
        Weight of 1/2 |h|^2 in the inference.
    offset : float
        Added to the value: the part of the loss in nats that no dictionary changes.
    tol, max_iter
        Of the inference.
    keeps_statistics : bool
        Whether A and B are summed up.
    """

    reports_loss = True
    is_noisy = False

    def __init__(self, penalty, *, ridge=0.0, offset=0.0, tol=1e-3, max_iter=1000,
                 keeps_statistics=True):  # fmt: skip
        self.penalty, self.ridge, self.offset = penalty, ridge, offset
        self.inference = {"tol": tol, "max_iter": max_iter}
        self.keeps_statistics = keeps_statistics
        self.state = {}
        self._batch, self._algorithm, self._n_inferred = None, None, 0

    def infer(self, theta, x):
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
        few = "fista" if isinstance(self.penalty, L1) else "admm"
        algorithm = self._algorithm or few
        result = infer(quadratic, self.penalty, algorithm=algorithm, **self.inference)
        return result.codes, result.objective

    def value(self, theta, x, generator, row_weight=None):
        """The objective on one batch, differentiable with respect to the dictionary."""
        with torch.no_grad():
            code, _ = self.infer(theta, x)
        residual = x - code @ theta["dictionary"]
        loss = 0.5 * (residual * residual).sum(1) + self.penalty.value(code)
        loss = loss + 0.5 * self.ridge * (code * code).sum(1) + self.offset
        return loss.mean() if row_weight is None else (row_weight * loss).mean()

    criterion = value

    def gradient(self, theta, x, generator, out, row_weight=None):
        """Write -mean_i h_i^T (x_i - h_i D) into ``out``; return the value."""
        code, loss = self.infer(theta, x)
        weighted = code if row_weight is None else code * row_weight.unsqueeze(1)
        residual = torch.addmm(x, code, theta["dictionary"], alpha=-1)
        torch.mm(weighted.t(), residual, out=out["dictionary"]).mul_(-1.0 / len(x))
        self._batch = x, (residual * residual).sum(1), generator
        self._count(code, x, row_weight)
        loss = loss + self.offset
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
        uses = (code != 0).sum(0)
        # Idle time in uses of an average atom: it does not depend on the batch's size.
        state["idle"].add_(uses.double().mean().to(code.dtype))
        state["idle"][uses > 0] = 0.0
        weight = code.new_ones(len(x)) if row_weight is None else row_weight
        before = float(state["n_seen"])
        state["n_seen"] = now = before + float(weight.sum())
        if self.keeps_statistics:
            # Codes of a younger dictionary become obsolete: the t-th of n rows counts (t / n)^2,
            # in whatever batch it came; a row of weight w is w rows, by the integral over t.
            last = (before + weight.cumsum(0)) / now
            first = last - weight / now
            counts = weight * (first * first + first * last + last * last) / 3
            counted = (code * counts.unsqueeze(1)).t()
            fading = (before / now) ** 2
            state["code_gram"].mul_(fading).addmm_(counted, code)
            state["code_data"].mul_(fading).addmm_(counted, x)

    def refresh_(self, theta):
        """Normalise the atoms, and redraw those that died. For `train`, after every step."""
        dictionary = normalize_atoms_(theta["dictionary"])
        idle = self.state["idle"]
        dead = (idle > _PATIENCE).nonzero().squeeze(1)
        if len(dead) == 0:
            return
        x, error, generator = self._batch
        error = torch.where((x != 0).any(1), error, 0.0)
        n_drawn = min(len(dead), max(1, int(_MOST_REDRAWN * min(len(idle), len(x)))))
        n_drawn = min(n_drawn, int((error > 0).sum()))
        if n_drawn == 0:
            return
        dead = dead[idle[dead].argsort(descending=True, stable=True)[:n_drawn]]
        chosen = torch.multinomial(error, n_drawn, generator=generator)
        dictionary[dead] = normalize_atoms_(x[chosen].clone())
        idle[dead] = 0.0
        if self.keeps_statistics:
            self.state["code_gram"][dead] = 0.0
            self.state["code_gram"][:, dead] = 0.0
            self.state["code_data"][dead] = 0.0


class BlockUpdate:
    """Steps of `train` that solve for the dictionary, by the statistics of its objective."""

    slots = ()

    def __init__(self, objective):
        self.objective = objective

    def update_(self, theta, gradient, state, learning_rate):
        """Move the atoms; the gradient and the learning rate have no say."""
        statistics = self.objective.state
        dictionary = theta.view(statistics["code_data"].shape)
        update_atoms_(dictionary, statistics["code_gram"], statistics["code_data"])
