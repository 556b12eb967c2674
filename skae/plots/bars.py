"""Groups of horizontal bars, each with a heading, and how their values are written."""

import numpy as np

from skae._validation import check_count
from skae.plots.images import axes

# From one group to the next, in bars.
_GAP = 1.6


def draw_groups(ax, titles, lengths, n_columns, *, sizes, label, colors):
    """Bars for the largest columns of every group, below each other.

    ``lengths``, ``sizes``, by which columns are chosen, and ``colors`` are of shape (n_groups,
    n_columns) for all columns; ``label(group, column)`` is that of a bar. Returns figure and axes,
    the columns that are drawn, (n_groups, n_drawn), the largest first, and the bars' containers.
    """
    check_count("n_columns", n_columns, 1)
    columns = np.argsort(-sizes, axis=1, kind="stable")[:, :n_columns]
    n_bars, containers, ticks = columns.shape[1], [], []
    figure, ax = axes(ax, (0.25 * len(titles) * (n_bars + _GAP) + 0.6, 6.4))
    for number, (title, chosen) in enumerate(zip(titles, columns, strict=True)):
        top = number * (n_bars + _GAP)
        places = top + 1 + np.arange(n_bars)
        containers.append(ax.barh(places, lengths[number, chosen], color=colors[number, chosen]))
        ax.text(
            0.01, top, title, va="center", fontweight="bold", transform=ax.get_yaxis_transform()
        )  # fmt: skip
        ticks += list(places)
    ax.set_yticks(ticks, [label(group, c) for group, own in enumerate(columns) for c in own])
    ax.set_ylim(len(titles) * (n_bars + _GAP) - 0.4, -0.8)
    return figure, ax, columns, containers


def short(value):
    """A value as short as it can be."""
    is_number = isinstance(value, float | np.floating)
    text = f"{value:.4g}" if is_number else str(value).removesuffix(" 00:00:00")
    return text if len(text) <= 20 else f"{text[:19]}…"
