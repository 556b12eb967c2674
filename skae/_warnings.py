"""Warnings that point to the user's line, and say which layer of a stack they are about."""

import contextlib
import contextvars
import sys
import warnings

# Of which layer of a stack a warning is, in this thread or task.
_LAYER = contextvars.ContextVar("layer", default="")


@contextlib.contextmanager
def of_layer(number):
    """Say of which layer of a stack errors and warnings are."""
    token = _LAYER.set(f"{_LAYER.get()}Layer {number}: ")
    try:
        yield
    except ValueError as error:
        raise ValueError(f"Layer {number}: {error}") from error
    finally:
        _LAYER.reset(token)


def is_in_layer():
    """Whether what happens is in a layer of a stack, whose rows the stack has read before."""
    return bool(_LAYER.get())


def warn(message, category):
    """Warn, as seen from the line that called skae, however many decorators are between."""
    frame, level = sys._getframe(), 0
    while frame and frame.f_globals.get("__name__", "").startswith(("skae.", "sklearn.")):
        frame, level = frame.f_back, level + 1
    warnings.warn(f"{_LAYER.get()}{message}", category, stacklevel=level + 1)
