"""Columns of tables as steps: numbers on their scales. Text and categories have none."""

import numpy as np

from skae.export.kinds import Apply, Select, Standardize, Step


def encoded_columns(model) -> list[Step]:
    """The steps from the columns of a table to what a network sees; none for plain numbers.

    Raises a ValueError that names the column which is no number.
    """
    encoding = model.encoding_
    if encoding is None:
        return []
    kept = [v for v in encoding.variables if not v.is_empty]
    bad = [v for v in kept if not _is_expressible(v)]
    if bad:
        names = ", ".join(repr(v.name) for v in bad[:5]) + (", ..." if len(bad) > 5 else "")
        raise ValueError(
            f"This {type(model).__name__} reads a table, of which {names} "
            f"{'is' if len(bad) == 1 else 'are'} text, categories, dates or normal scores, which "
            "have no counterpart among tensors. Fit it to numbers, such as those of "
            "sklearn.compose.ColumnTransformer with OneHotEncoder; skae.save() writes any model to "
            "a file."
        )
    steps: list[Step] = []
    if len(kept) < len(encoding.variables):
        places = [n for n, v in enumerate(encoding.variables) if not v.is_empty]
        steps.append(Select(np.array(places)))
    if encoding.is_array:
        return steps
    ends = [_ends(v) for v in kept]
    steps.append(Standardize(*map(np.array, zip(*ends, strict=True))))
    kinds = np.array(
        ["clamp" if v.kind == "binary" else "bend" if v.clips else "linear" for v in kept]
    )
    pieces = tuple((str(kind), np.flatnonzero(kinds == kind)) for kind in np.unique(kinds))
    return steps if set(kinds) == {"linear"} else [*steps, Apply(pieces)]


def _is_expressible(variable):
    is_number = variable.holds in ("numbers", "booleans") and not variable.is_exact
    return is_number and variable.kind in ("number", "binary") and not variable.knots


def _ends(variable):
    """What is subtracted from a column, and what it is divided by."""
    if variable.kind == "number":
        return variable.center, variable.width
    ends = variable.categories or (0.0, 1.0)
    return float(ends[0]), float(ends[-1] - ends[0]) or 1.0
