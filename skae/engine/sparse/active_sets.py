r"""The arithmetic of `feature_sign`, row by row, compiled.

Each row has a set A of active atoms with signs s. On it the problem is a quadratic, whose minimum
solves Q_AA y = b_A - alpha s. Kept up to date are the Cholesky factor L of Q_AA, row after row in
one vector (row i begins at i (i + 1) / 2), and L^-1 (b_A - alpha s): an atom that enters adds a
row, one that leaves rotates those behind it. Nothing is factorised anew.

Arithmetic is in float64, whatever the dtype of Q and b. Loops are written out, since operations on
whole slices would triple the time of compilation.
"""

from typing import NamedTuple

import numpy as np

from skae.engine.optimisation.compilation import compiled, compiled_part

# How far up from alpha to the largest correlation atoms must be to enter, in a round after one in
# which none had to leave again, and after others: with less, more of them enter at once, and leave.
_ENTRANCE, _NARROW_ENTRANCE = 0.6, 0.75
# Part of alpha by which a correlation may exceed it: a few roundings.
_SLACK = 1e-13
# Rounds in which the objective need not fall: where codes are 0 by chance, atoms change places
# without a move. More of them would be the rounding error's.
_PATIENCE = 10


class _State(NamedTuple):
    """What is known of a row: vectors with room for all atoms, of which the first are active."""

    atoms: np.ndarray
    sign: np.ndarray
    code: np.ndarray
    target: np.ndarray  # y, the minimum for these atoms and signs
    solved: np.ndarray  # L^-1 (b_A - alpha s)
    factor: np.ndarray  # L
    cosine: np.ndarray  # of the rotations of a factor
    sine: np.ndarray
    correlation: np.ndarray  # b - h Q, of all atoms


@compiled_part
def _correlate(gram, linear, state, size):
    """Write b - h Q."""
    correlation, atoms, code = state.correlation, state.atoms, state.code
    for j in range(len(correlation)):
        correlation[j] = linear[j]
    # Four atoms at a time: what is written is then read and written four times less.
    first = size % 4
    for slot in range(first):
        column, h = gram[atoms[slot]], code[slot]
        for j in range(len(correlation)):
            correlation[j] -= h * column[j]
    for slot in range(first, size, 4):
        g0, g1 = gram[atoms[slot]], gram[atoms[slot + 1]]
        g2, g3 = gram[atoms[slot + 2]], gram[atoms[slot + 3]]
        h0, h1, h2, h3 = code[slot], code[slot + 1], code[slot + 2], code[slot + 3]
        for j in range(len(correlation)):
            correlation[j] -= (h0 * g0[j] + h1 * g1[j]) + (h2 * g2[j] + h3 * g3[j])


@compiled_part
def _row(factor, slot):
    """A row of L. Slices, unlike sums of indices, leave the compiler no doubt about signs."""
    start = slot * (slot + 1) // 2
    return factor[start : start + slot + 1]


@compiled_part
def _enter(gram, linear, alpha, dependent, atom, side, state, size):
    """Add an atom with a code of 0; False where it depends on those that are active.

    Its row of L is (l, sqrt(Q_jj - |l|^2)) with L l = Q_Aj.
    """
    column, row = gram[atom], _row(state.factor, size)
    rest = np.float64(column[atom])
    least = dependent * rest
    for slot in range(size):
        entry, earlier = np.float64(column[state.atoms[slot]]), _row(state.factor, slot)
        for j in range(slot):
            entry -= earlier[j] * row[j]
        entry /= earlier[slot]
        row[slot] = entry
        rest -= entry * entry
    if not rest > least:
        return False
    pivot = np.sqrt(rest)
    row[size] = pivot
    value = linear[atom] - alpha * side
    for j in range(size):
        value -= row[j] * state.solved[j]
    state.solved[size] = value / pivot
    state.atoms[size], state.sign[size], state.code[size] = atom, side, 0.0
    return True


@compiled_part
def _leave(state, leaving, size):
    """Remove an active atom: rows of L behind it move up, rotated back to a triangle."""
    cosine, sine, solved = state.cosine, state.sine, state.solved
    for slot in range(leaving + 1, size):
        row, new = _row(state.factor, slot), _row(state.factor, slot - 1)
        for j in range(leaving):
            new[j] = row[j]
        carried = row[leaving]
        for j in range(leaving, slot - 1):
            entry = row[j + 1]
            new[j] = cosine[j] * carried + sine[j] * entry
            carried = cosine[j] * entry - sine[j] * carried
        entry = row[slot]
        pivot = np.sqrt(carried * carried + entry * entry)
        new[slot - 1] = pivot
        cosine[slot - 1], sine[slot - 1] = carried / pivot, entry / pivot
        for part in (state.sign, state.code, state.target):
            part[slot - 1] = part[slot]
        state.atoms[slot - 1] = state.atoms[slot]
    carried = solved[leaving]
    for j in range(leaving, size - 1):
        entry = solved[j + 1]
        solved[j] = cosine[j] * carried + sine[j] * entry
        carried = cosine[j] * entry - sine[j] * carried


@compiled_part
def _solve_back(factor, values, size):
    """Solve L^T y = values, in place."""
    for slot in range(size - 1, -1, -1):
        row = _row(factor, slot)
        value = values[slot] / row[slot]
        values[slot] = value
        for j in range(slot):
            values[j] -= value * row[j]


@compiled_part
def _settle(state, size):
    """Walk to the minimum of the active atoms, and drop those that would change their sign.

    Returns how many are left: their codes are that minimum.
    """
    sign, code, target = state.sign, state.code, state.target
    while True:
        for slot in range(size):
            target[slot] = state.solved[slot]
        _solve_back(state.factor, target, size)
        step, hit = 1.0, np.int64(-1)
        for slot in range(size):
            if target[slot] * sign[slot] <= 0:
                fall = code[slot] - target[slot]
                share = code[slot] / fall if fall != 0 else 0.0
                if hit < 0 or share < step:
                    step, hit = share, slot
        if hit < 0:
            for slot in range(size):
                code[slot] = target[slot]
            return size
        for slot in range(size):
            code[slot] += step * (target[slot] - code[slot])
        code[hit] = 0.0
        for slot in range(size - 1, -1, -1):
            if code[slot] == 0 and target[slot] * sign[slot] <= 0:
                _leave(state, slot, size)
                size -= 1


@compiled_part
def _exchange(gram, linear, alpha, dependent, atom, side, state, size):
    """Let an atom that depends on active ones take the place of one of them.

    With v = Q_AA^-1 Q_Aj, codes may move by t side (e_j - v) without a change of what they
    explain, and their penalty falls until one of them is 0.
    """
    code, move = state.code, state.target
    refused = _row(state.factor, size)
    for slot in range(size):
        move[slot] = refused[slot]
    _solve_back(state.factor, move, size)
    length, hit = np.inf, np.int64(-1)
    for slot in range(size):
        if side * move[slot] * state.sign[slot] > 0 and abs(code[slot] / move[slot]) < length:
            length, hit = abs(code[slot] / move[slot]), slot
    if hit < 0:
        return size
    for slot in range(size):
        code[slot] -= length * side * move[slot]
    _leave(state, hit, size)
    size -= 1
    if _enter(gram, linear, alpha, dependent, atom, side, state, size):
        code[size] = length * side
        size += 1
    return size


@compiled_part
def _largest(values, positive):
    """The largest |c_j|, or c_j, of at least 0."""
    # Four at a time, so that none waits for the last: of NaN, a maximum depends on the order.
    a, b, c, d = 0.0, 0.0, 0.0, 0.0
    first = len(values) % 4
    if positive:
        for j in range(first):
            a = max(a, values[j])
        for j in range(first, len(values), 4):
            a, b = max(a, values[j]), max(b, values[j + 1])
            c, d = max(c, values[j + 2]), max(d, values[j + 3])
    else:
        for j in range(first):
            a = max(a, abs(values[j]))
        for j in range(first, len(values), 4):
            a, b = max(a, abs(values[j])), max(b, abs(values[j + 1]))
            c, d = max(c, abs(values[j + 2])), max(d, abs(values[j + 3]))
    return max(max(a, b), max(c, d))


@compiled_part
def _judge(linear, energy, alpha, positive, state, size):
    """(objective, gap, largest) of the codes; the largest correlation is one outside of A, whose
    own are set to 0. See `skae.engine.sparse.problem.combine`.
    """
    correlation = state.correlation
    linear_part, correlation_part, cost, bound = 0.0, 0.0, 0.0, alpha
    for slot in range(size):
        atom = state.atoms[slot]
        linear_part += state.code[slot] * linear[atom]
        correlation_part += state.code[slot] * correlation[atom]
        cost += alpha * abs(state.code[slot])
        bound = max(bound, state.sign[slot] * correlation[atom])
        correlation[atom] = 0.0
    largest = _largest(correlation, positive)
    scale = alpha / max(bound, largest)
    square = 2 * energy - linear_part - correlation_part
    objective = 0.5 * square + cost
    dual = scale * (2 * energy - linear_part) - 0.5 * scale * scale * square
    return objective, objective - dual, largest


@compiled_part
def _admit(gram, linear, alpha, positive, dependent, largest, enough, state, size):
    """Let atoms in whose correlations violate the optimum most: ``enough`` or more."""
    before, correlation = size, state.correlation
    for atom in range(len(correlation)):
        value = correlation[atom]
        if value >= enough or (-value >= enough and not positive):
            side = 1.0 if value > 0 else -1.0
            if _enter(gram, linear, alpha, dependent, atom, side, state, size):
                size += 1
    if size > before:
        return size
    for atom in range(len(correlation)):
        value = correlation[atom]
        if value == largest or (-value == largest and not positive):
            side = 1.0 if value > 0 else -1.0
            # Its row of the factor, before it is refused.
            _enter(gram, linear, alpha, dependent, atom, side, state, size)
            return _exchange(gram, linear, alpha, dependent, atom, side, state, size)
    return size


@compiled
def code_rows(gram, linear, energy, alpha, positive, dependent, max_iter, codes, reached, gaps):
    """Write codes of a block of rows; return the largest number of rounds.

    ``linear`` and ``codes``, which are 0, are of shape (n_samples, n_components); ``reached`` and
    ``gaps`` take each row's objective and duality gap. A round lets atoms in
    and finds the minimum for them.
    """
    n_rows, n_atoms = linear.shape
    state = _State(
        np.empty(n_atoms, np.int64),
        np.empty(n_atoms),
        np.empty(n_atoms),
        np.empty(n_atoms),
        np.empty(n_atoms),
        np.empty(n_atoms * (n_atoms + 1) // 2),
        np.empty(n_atoms),
        np.empty(n_atoms),
        np.empty(n_atoms),
    )
    most_rounds = 0
    for row in range(n_rows):
        size, least, idle, rounds, entrance = np.int64(0), np.inf, 0, 0, _NARROW_ENTRANCE
        while True:
            _correlate(gram, linear[row], state, size)
            objective, gap, largest = _judge(linear[row], energy[row], alpha, positive, state, size)
            idle = 0 if objective < least else idle + 1
            least = min(least, objective)
            is_open = largest > alpha * (1 + _SLACK) and idle <= _PATIENCE
            if not (is_open and rounds < max_iter):
                break
            enough = alpha + entrance * (largest - alpha)
            size = _admit(
                gram, linear[row], alpha, positive, dependent, largest, enough, state, size
            )
            admitted = size
            size = _settle(state, size)
            entrance = _ENTRANCE if size == admitted else _NARROW_ENTRANCE
            rounds += 1
        for slot in range(size):
            codes[row, state.atoms[slot]] = state.code[slot]
        reached[row], gaps[row] = objective, max(gap, 0.0)
        most_rounds = max(most_rounds, rounds)
    return most_rounds
