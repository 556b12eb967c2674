"""Arrays of other libraries: what methods return of them is of the same library, on its device."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np

from skae._validation import of_namespace

F = TypeVar("F", bound=Callable[..., Any])
# Methods of which X comes first, and which return something for each row, or a number for all.
OF_ROWS = {
    "decision_function", "denoise", "energy", "free_energy", "gibbs", "inverse_transform",
    "predict", "predict_log_proba", "predict_proba", "reconstruct", "score", "score_columns",
    "score_field", "score_samples", "transform",
}  # fmt: skip


def keeps_namespace(method: F) -> F:
    """Decorate a method so that, where scikit-learn dispatches, it returns arrays as X is one.

    With ``array_api_dispatch=True`` and X of torch or another library of the array API, what is
    computed of the rows comes back as an array of that library, on the device of X. Text, numbers
    for all rows and frames are as they are.
    """

    @functools.wraps(method)
    def kept(self, *args, **options):
        given = args[0] if args else options.get("X")
        rows, back = of_namespace(given)
        if back is None:
            return method(self, *args, **options)
        if args:
            args = (rows, *args[1:])
        else:
            options = options | {"X": rows}
        found = method(self, *args, **options)
        if isinstance(found, list):
            return [back(one) for one in found]
        return back(found) if isinstance(found, np.ndarray) else found

    return cast(F, kept)
