"""The sequential part of `skae.engine.sparse.dictionaries.update_atoms_`, compiled."""

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
