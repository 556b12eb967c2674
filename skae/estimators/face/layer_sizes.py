"""Numbers of units of layers, and the numbers by which layers and steps are called."""

from numbers import Integral


def sizes_of_layers(sizes) -> tuple:
    """Numbers of units, one for each layer, as they were given: one number, or several."""
    return (sizes,) if isinstance(sizes, Integral) else tuple(sizes)


def checked_sizes(name: str, sizes, *, may_be_empty: bool = False) -> tuple[int, ...]:
    """The same as integers; a ValueError, which calls them ``name``, for what is none."""
    own = sizes_of_layers(sizes)
    if any(not isinstance(n, Integral) or n < 1 for n in own) or not (own or may_be_empty):
        each = "" if may_be_empty else ", one for each layer"
        raise ValueError(f"{name}={sizes!r} must be integers of at least 1{each}.")
    return tuple(map(int, own))


def number_of(name: str, value, count: int, things: str = "layers") -> int:
    """The number, from 0, of one of so many, where negative ones count from the end.

    A ValueError, which calls it ``name``, if there is no such one.
    """
    if not isinstance(value, Integral) or not -count <= int(value) < count:
        raise ValueError(
            f"{name}={value!r}, but there are {count} {things}, from 0 to {count - 1}."
        )
    return int(value) % count
