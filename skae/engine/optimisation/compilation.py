"""Functions that numba compiles where it is installed: the extra ``fast``.

A file of such functions is imported where one of them is called for the first time, since the
import of numba takes some tenths of a second. Without numba they are functions of Python, which
say the same and take a thousand times as long: nobody calls them but tests.
"""

import functools
from collections.abc import Callable
from typing import Any

# Threads of Python may run at the same time; sums may be taken in any order; NaN and infinity stay
# what they are. Threads of numba's own are never used: nothing global is set.
_OPTIONS = {
    "nogil": True,
    "error_model": "numpy",
    "fastmath": {"contract", "reassoc", "nsz"},
}


@functools.cache
def find_numba() -> Any:
    """The module numba, or None where it is missing or does not fit the NumPy that is there."""
    try:
        import numba
    except ImportError:
        return None
    return numba


def is_compiled() -> bool:
    """Whether numba is there, which is imported by this question."""
    return find_numba() is not None


def compiled_part(function: Callable) -> Any:
    """Decorate a function that other compiled ones call: it becomes a part of them."""
    numba = find_numba()
    if numba is None:
        return function
    return numba.njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, **_OPTIONS)(function)


def compiled(function: Callable) -> Any:
    """Decorate a function so that its first call compiles it, or loads what an earlier one has
    left in numba's cache: beside the file or, where that cannot be written, in the user's folder.
    """
    numba = find_numba()
    if numba is None:
        return function
    in_memory = numba.njit(**_OPTIONS)(function)
    try:
        cached = numba.njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # neither can be written
        return in_memory

    @functools.wraps(function)
    def call(*arguments):
        try:
            return cached(*arguments)
        except OSError:  # the disk is full
            return in_memory(*arguments)

    return call
