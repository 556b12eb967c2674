"""Parameters of a model as one flat tensor with named views, and the parts users name."""

import math
from collections.abc import Callable
from copy import copy
from functools import partial
from typing import TypeVar

import torch


class Parameters:
    """One flat tensor, seen through named views, in the order of ``shapes``.

    An optimiser, a divergence check, a copy of the best weights: each handles a single vector,
    ``theta.flat``. The mathematics handles matrices (``theta["weight_0"]``), which share the
    vector's memory. Without ``flat`` the memory is allocated here, uninitialised.

    Of several models of one layout ``flat`` has a row for each, and so has every view.
    """

    def __init__(self, shapes, flat=None, *, dtype=None, device=None):
        self.shapes = dict(shapes)
        if flat is None:
            flat = torch.empty(_size(self.shapes.values()), dtype=dtype, device=device)
        self.flat, self._views, self._parts = flat, {}, {}
        start = 0
        for name, shape in self.shapes.items():
            stop = start + math.prod(shape)
            self._views[name] = flat[..., start:stop].view(flat.shape[:-1] + tuple(shape))
            start = stop

    def __getitem__(self, name):
        return self._views[name]

    def __iter__(self):
        return iter(self._views)

    def __contains__(self, name):
        return name in self._views

    def part(self, prefix):
        """The parameters whose names begin with a prefix, without it: the same memory.

        They must lie together, as those of one layer of a stack do.
        """
        if prefix not in self._parts:
            order = list(self.shapes)
            names = [name for name in order if name.startswith(prefix)]
            if not names:
                raise KeyError(f"No parameter's name begins with {prefix!r}; there are {order}.")
            first = order.index(names[0])
            if order[first : first + len(names)] != names:
                raise ValueError(f"The parameters {names} do not lie together among {order}.")
            before = _size(self.shapes[name] for name in order[:first])
            part = copy(self)
            part.shapes = {name.removeprefix(prefix): self.shapes[name] for name in names}
            part.flat = self.flat.narrow(-1, before, _size(part.shapes.values()))
            part._parts = {}
            part._views = {name.removeprefix(prefix): self._views[name] for name in names}
            self._parts[prefix] = part
        return self._parts[prefix]

    def empty_like(self):
        """Parameters of the same layout over uninitialised memory."""
        return Parameters(self.shapes, torch.empty_like(self.flat))

    def tracked(self, gradient):
        """The same memory as autograd leaves that accumulate into ``gradient``.

        Each leaf's ``grad`` is a view of ``gradient.flat``, so ``backward`` adds straight into it.
        """
        tracked = copy(self)
        tracked._views, tracked._parts = {}, {}
        for name, view in self._views.items():
            leaf = view.detach().requires_grad_()
            leaf.grad = gradient[name]
            tracked._views[name] = leaf
        return tracked

    def to_numpy(self):
        """A dict of NumPy arrays, independent copies on the host."""
        return {name: view.detach().cpu().numpy().copy() for name, view in self._views.items()}

    @classmethod
    def from_numpy(cls, arrays, *, dtype, device):
        """Parameters with the values of a dict of NumPy arrays."""
        theta = cls({name: a.shape for name, a in arrays.items()}, dtype=dtype, device=device)
        for name, array in arrays.items():
            # torch.tensor copies: the fitted state may be a read-only memory map.
            theta[name].copy_(torch.tensor(array))
        return theta


def _size(shapes):
    return sum(map(math.prod, shapes))


T = TypeVar("T")


class Registry(dict):
    """Parts by name, each registered once, where it is defined.

    A part is a class, a function or a value. Users know it by its ``name``, or by the function's
    own; its ``summary``, or else the first line of its docstring, tells them what it is. Who
    looks a part up by a name sees all that are registered by then.
    """

    def register(self, part: T, *, name: str | None = None) -> T:
        """Add a part under its name, or another one, and return it: a decorator.

        Raises a ValueError if another part has this name.
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
