"""Sections of docstrings that are composed: what arguments mean that mean the same everywhere.

A docstring says what is special of its arguments and of what is returned. `complete` adds the
others, in numpydoc's form, so that ``help`` and the documentation pages show all of them.
"""

import inspect
import re
import textwrap
from typing import Any


def entries(text: str) -> dict[str, str]:
    """The entries of a section "Parameters" by the names of the arguments; some are of several."""
    parts = re.split(r"\n(?=\S)", textwrap.dedent(text).strip())
    named = ((part, part.partition("\n")[0].split(" :")[0]) for part in parts)
    return {name.strip("*"): part for part, names in named for name in names.split(", ")}


def sections(doc: str) -> dict[str, str]:
    """The text of each section of a docstring by its title; what comes before has none."""
    parts = re.split(r"^(\S.*)\n-{3,}\n", inspect.cleandoc(doc), flags=re.MULTILINE)
    texts = map(str.strip, parts[2::2])
    return {"": parts[0].strip(), **dict(zip(parts[1::2], texts, strict=True))}


def joined(found: dict[str, str]) -> str:
    """The docstring of `sections`, without those that are empty."""
    return "\n\n".join(
        f"{title}\n{'-' * len(title)}\n{text}" if title else text
        for title, text in found.items()
        if text
    )


def complete(function: Any, usual: dict[str, str], returned: str = "") -> None:
    """Complete a function's sections "Parameters" and "Returns", by `entries` and such a text."""
    found = sections(function.__doc__)
    known = usual | entries(found.pop("Parameters", ""))
    names = [n for n in inspect.signature(function).parameters if n not in ("self", "cls")]
    first = {"": found.pop("")}
    first["Parameters"] = "\n".join(dict.fromkeys(known[name] for name in names if name in known))
    first["Returns"] = found.pop("Returns", returned)
    function.__doc__ = joined(first | found)


def public_functions(cls: type):
    """(name, attribute, function) of the methods that a class itself defines and documents."""
    for name, member in vars(cls).items():
        # Class methods, and what scikit-learn's available_if makes, hold the function.
        function = getattr(member, "__func__", getattr(member, "fn", member))
        if not name.startswith("_") and inspect.isfunction(function) and function.__doc__:
            yield name, member, function
