"""Published figures beside ours: the table of the guide, made of what reproductions recorded.

    python examples/reproductions/published.py [FILE]

writes it as reStructuredText to a file, or prints it. The build of the documentation does so.
"""

import sys
from pathlib import Path

from figures import GROUPS
from recording import read_records

HEADER = ("", "published", "aim", "ours", "seeds", "seconds", "machine", "command")
WIDTHS = (18, 9, 8, 14, 10, 8, 14, 19)


def table(records, groups=GROUPS):
    """The page's sections, one for each group, as reStructuredText."""
    return "\n".join(line for group in groups for line in _section(group, records))


def _section(group, records):
    yield from (group.title, "-" * len(group.title), "")
    yield from (f"{group.source}; {group.unit}.", "")
    head = ("   :class: dense", "   :header-rows: 1", f"   :widths: {_widths()}", "")
    yield from (".. list-table::", *head)
    yield from _cells(HEADER)
    for name, figure in group.figures.items():
        yield from _cells(_row(figure, records.get(name)))
    yield ""


def _widths():
    return " ".join(map(str, WIDTHS))


def _cells(cells):
    for number, cell in enumerate(cells):
        yield f"   {'*' if number == 0 else ' '} - {cell}".rstrip()


def _row(figure, record):
    known = (figure.what, _shown(figure.published), _shown(figure.goal))
    if record is None:
        told = figure.earlier and figure.script
        where = f"; earlier: ``{figure.script}``" if told else ""
        return (*known, f"no record yet{where}", "", "", "", "")
    seeds = record["seeds"]
    return (
        *known,
        ours(figure, record),
        ", ".join(map(str, seeds)),
        f"{record['seconds']:,.0f}",
        _machine(record),
        f"``{record['command']}``",
    )


def ours(figure, record):
    """Mean and spread over seeds, and whether it misses what was published, or the aim."""
    value = _shown(record["mean"])
    if record["spread"] is not None:
        value += f" ± {_shown(record['spread'])}"
    if isinstance(figure.published, int | float) and _misses(figure, record, figure.published):
        return f"{value} **{_beyond(figure)} the published figure**"
    if isinstance(figure.goal, int | float) and _misses(figure, record, figure.goal):
        return f"{value} *{_beyond(figure)} the aim*"
    return value


def _misses(figure, record, goal):
    # As shown: what is printed as 1.14 is not above 1.14.
    value = round(record["mean"], 2)
    return value > goal if figure.better == "lower" else value < goal


def _beyond(figure):
    return "above" if figure.better == "lower" else "below"


def _shown(value):
    return value if isinstance(value, str) else f"{value:.2f}"


def _machine(record):
    machine = record["machine"]
    name = machine["gpu"] or f"{machine['processor']}, threads: {machine['threads']}"
    return f"{name}; {record['date']}, commit {record['commit'] or 'unknown'}"


def write_table(path, records):
    """Write the sections to a file, if they are not what it holds."""
    page = table(records) + "\n"
    if not path.exists() or path.read_text(encoding="utf-8") != page:
        path.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        write_table(Path(sys.argv[1]), read_records())
    else:
        print(table(read_records()))
