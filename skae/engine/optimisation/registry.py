"""Parts that users choose by a name: corruptions, penalties, units, activations, optimisers, ..."""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

T = TypeVar("T")


class Registry(dict):
    """Parts by name, each registered once, where it is defined.

    A part is a class, a function or a value. Users know it by its ``name``, or by the function's
    own; its ``summary``, or else the first line of its docstring, tells them what it is. Who
    looks a part up by a name sees all that are registered by then.
    """

    def register(self, part: T, *, name: str | None = None) -> T:
        """Add a part under its name, or another one, and return it: a decorator.

        Raises
        ------
        ValueError
            If another part has this name.
        """
        name = name or getattr(part, "name", None) or part.__name__  # type: ignore[attr-defined]
        if name in self and _origin(self[name]) != _origin(part):
            raise ValueError(f"{name!r} is already the name of {self[name]!r}.")
        self[name] = part
        return part

    def named(self, name: str) -> Callable[[T], T]:
        """A decorator that adds a part under a name."""
        return partial(self.register, name=name)

    @property
    def names(self) -> str:
        """All names, quoted, for the documentation of a parameter."""
        return ", ".join(f'"{name}"' for name in self)

    @property
    def summaries(self) -> str:
        """A list of all names with what they stand for, for the same."""
        return "\n".join(f'- "{name}": {_summary(part)}.' for name, part in self.items())


def _origin(part):
    # A class that is defined again, in a notebook or by a reload, is the same part.
    return getattr(part, "__module__", None), getattr(part, "__qualname__", part)


def _summary(part):
    return getattr(part, "summary", None) or part.__doc__.strip().splitlines()[0].rstrip(".")
