"""Parts of `skae.engine.sparse.dictionaries` that are no products of matrices, compiled."""

import numpy as np

from skae.engine.optimisation.compilation import compiled


@compiled
def move_atoms(atoms, step, gram, amounts):
    """Move the atoms of a block one after another, in place.

    d_j <- d_j + step_j / A_jj, of unit norm, and step_i <- step_i - A_ji (change of d_j) for those
    that follow. ``atoms`` and ``step`` are of shape (n_atoms, n_features), ``gram`` is their part
    of A; ``amounts`` are its diagonal, 0 for atoms that stay.
    """
    n_atoms, n_features = atoms.shape
    for j in range(n_atoms):
        if amounts[j] == 0:
            continue
        atom, change = atoms[j], step[j]
        square = 0.0
        for k in range(n_features):
            moved = atom[k] + change[k] / amounts[j]
            square += moved * moved
        if not square > 0:
            continue
        norm = square**0.5
        for k in range(n_features):
            moved = (atom[k] + change[k] / amounts[j]) / norm
            change[k] = moved - atom[k]
            atom[k] = moved
        for i in range(j + 1, n_atoms):
            following, weight = step[i], gram[j, i]
            for k in range(n_features):
                following[k] -= weight * change[k]


@compiled
def add_products(codes, x, counts, gram, data):
    """Add sum_i c_i h_i^T h_i to ``gram`` and sum_i c_i h_i^T x_i to ``data``, for sparse codes h.

    A row of k active atoms costs k (k + n_features) of what a product of matrices would take.
    """
    n_rows, n_atoms = codes.shape
    active = np.empty(n_atoms, np.int64)
    for i in range(n_rows):
        code, row, size = codes[i], x[i], 0
        for j in range(n_atoms):
            if code[j] != 0:
                active[size] = j
                size += 1
        for slot in range(size):
            weight = counts[i] * code[active[slot]]
            of_gram, of_data = gram[active[slot]], data[active[slot]]
            for other in range(size):
                of_gram[active[other]] += weight * code[active[other]]
            for k in range(len(row)):
                of_data[k] += weight * row[k]
