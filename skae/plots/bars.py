"""Groups of horizontal bars, each with a heading, and how their values are written."""

import numpy as np

# From one group to the next, in bars.
_GAP = 1.6


def height_of(n_groups, n_bars):
    """Height of a figure of so many groups, in its width."""
    return 0.25 * n_groups * (n_bars + _GAP) + 0.6


def draw_groups(ax, titles, lengths, labels, colors):
    """Bars of every group, below each other; returns their containers.

    ``lengths``, ``labels`` and ``colors`` have a sequence for each title, all of one size.
    """
    n_bars, containers, ticks = len(lengths[0]), [], []
    for number, title in enumerate(titles):
        top = number * (n_bars + _GAP)
        places = top + 1 + np.arange(n_bars)
        containers.append(ax.barh(places, lengths[number], color=colors[number]))
        ax.text(
            0, top, title, va="center", fontweight="bold", transform=ax.get_yaxis_transform()
        )  # fmt: skip
        ticks += list(places)
    ax.set_yticks(ticks, [label for of_group in labels for label in of_group])
    ax.set_ylim(len(titles) * (n_bars + _GAP) - 0.4, -0.8)
    return containers


def short(value):
    """A value as short as it can be."""
    is_number = isinstance(value, float | np.floating)
    text = f"{value:.4g}" if is_number else str(value).removesuffix(" 00:00:00")
    return text if len(text) <= 20 else f"{text[:19]}…"
