"""Warnings that point to the user's line, and say which layer of a stack they are about."""

import contextlib
import contextvars
import sys
import warnings

# Packages between the user's line and what warns.
_BETWEEN = ("skae.", "sklearn.", "joblib.")
# The user's line, where what warns is in a thread of its own.
_LINE = contextvars.ContextVar("line", default=None)
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


def users_line():
    """The line that called skae, however many decorators are between, as `as_seen_from` takes it.

    It is a file, a number, and the names of its module; None where there is no such line.
    """
    frame = sys._getframe()
    while frame and frame.f_globals.get("__name__", "").startswith(_BETWEEN):
        frame = frame.f_back
    return frame and (frame.f_code.co_filename, frame.f_lineno, frame.f_globals)


@contextlib.contextmanager
def as_seen_from(line):
    """Let warnings point to a user's line: that which has begun what runs in another thread."""
    token = _LINE.set(line)
    try:
        yield
    finally:
        _LINE.reset(token)


def warn(message, category):
    """Warn, as seen from the line that called skae."""
    line, message = _LINE.get() or users_line(), f"{_LAYER.get()}{message}"
    if line is None:
        warnings.warn(message, category, stacklevel=2)
        return
    file, number, names = line
    registry = names.setdefault("__warningregistry__", {})
    warnings.warn_explicit(message, category, file, number, names.get("__name__"), registry)
