"""What fits that run side by side have in common, computed once.

Fits of one search see the same rows again and again: what is found of them depends on their content
alone. Where a fit runs beside others (`shared`), `once` returns what one of them has found already.
"""

from collections.abc import Callable, Hashable
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import numpy as np

from skae.engine.optimisation.rows import digest, memory_map

T = TypeVar("T")
_found: ContextVar[dict[Hashable, Any] | None] = ContextVar("found", default=None)


@contextmanager
def shared(found: dict[Hashable, Any]):
    """A context of one of several fits, that keeps there what it finds."""
    token = _found.set(found)
    try:
        yield
    finally:
        _found.reset(token)


def once(key: Callable[[], Hashable], function: Callable[[], T]) -> T:
    """What a function returns, or has returned to another fit with the same key.

    Nobody may change it. By itself a fit has no others, and asks for no key; one that is None is
    like no other.
    """
    found = _found.get()
    own = None if found is None else key()
    if found is None or own is None:
        return function()
    if own not in found:
        found[own] = function()
    return found[own]


def content(array: Any) -> Hashable | None:
    """What tells an array of numbers from others; None of one in a file, and of what is none."""
    is_plain = isinstance(array, np.ndarray) and array.dtype.kind in "biuf"
    if not is_plain or memory_map(array) is not None:
        return None
    return array.shape, array.dtype.str, digest(np.ascontiguousarray(array))
