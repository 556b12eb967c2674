"""The guide's table of published figures is made of records, and says what misses them."""

import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest

SCRIPTS = Path(__file__).parents[1] / "examples" / "reproductions"
RUN = {"settings": {"rows": np.int64(1000)}, "started": time.perf_counter()}


@pytest.fixture
def scripts(monkeypatch):
    """The modules as the scripts beside them import them."""
    monkeypatch.syspath_prepend(SCRIPTS)
    import figures
    import published
    import recording

    yield figures, published, recording
    for module in (figures, published, recording):
        del sys.modules[module.__name__]


def row_of(page, what, title=None):
    """Cells of one row of a group's table; without a title, of the first that has such a row."""
    lines = [line[7:] for line in page.splitlines()]
    start = lines.index(what, 0 if title is None else page.splitlines().index(title))
    return lines[start : start + 8]


def test_table_shows_what_was_recorded(scripts, tmp_path, monkeypatch):
    _, published, recording = scripts
    monkeypatch.setattr(sys, "argv", ["/somewhere/larochelle.py", "--sets", "rect"])
    for name, values in {
        "larochelle-rect": [1.3, 1.5],
        "larochelle-convex": [18.4, 18.4],
        "tangents-bare-100": [2.1, 2.3],
        "tangents-bare-600": [1.304, 1.304],
        "rbm-cd1": [-126.0, -126.0],
    }.items():
        recording.record(name, values, seeds=[0, 1], folder=tmp_path, **RUN)
    page = published.table(recording.read_records(tmp_path))
    rect = row_of(page, "rect")
    assert rect[1:5] == ["1.21", "1.21", "1.40 ± 0.14 **above the published figure**", "0, 1"]
    assert rect[7] == "``python examples/reproductions/larochelle.py --sets rect``"
    # Reached, as it is printed; reached, but not our own aim; and where more is better.
    assert row_of(page, "convex")[3] == "18.40 ± 0.00"
    assert row_of(page, "bare constructor, 100 labels")[3] == "2.20 ± 0.14 *above the aim*"
    assert row_of(page, "bare constructor, 600 labels")[3] == "1.30 ± 0.00"
    assert "**below the published figure**" in row_of(page, "RBM, 500 units, CD-1")[3]
    # What nobody ran has no figure, whatever a docstring says.
    assert row_of(page, "rot")[3].startswith("no record yet")
    # One run replaces another: a file is one run, with its command and its time.
    recording.record("larochelle-rect", 1.0, seeds=3, folder=tmp_path, **RUN)
    assert row_of(published.table(recording.read_records(tmp_path)), "rect")[3] == "1.00"


def test_records_that_mean_nothing_are_refused(scripts, tmp_path):
    _, _, recording = scripts
    for name, values, seeds in (
        ("larochelle-rect", [1.0, 2.0], [0]),
        ("larochelle-rect", [np.nan], [0]),
        ("larochelle-square", [1.0], [0]),
    ):
        with pytest.raises(ValueError, match=r"finite|published figures"):
            recording.record(name, values, seeds=seeds, folder=tmp_path, **RUN)
    assert not list(tmp_path.iterdir())


def test_committed_records_are_of_published_figures(scripts):
    figures, published, recording = scripts
    page = published.table(recording.read_records())
    for path in recording.RECORDS.glob("*.json"):
        record = json.loads(path.read_text())
        figure = figures.FIGURES[path.stem]
        # A mean that somebody has typed, or a published value that is another one in the list.
        assert record["mean"] == pytest.approx(np.mean(record["values"]))
        assert record["published"] == figure.published
        assert (SCRIPTS.parents[1] / record["command"].split()[1]).is_file()
        title = next(group.title for group in figures.GROUPS if path.stem in group.figures)
        assert row_of(page, figure.what, title)[3] == published.ours(figure, record)
    scripts_named = {figure.script for figure in figures.FIGURES.values()}
    assert all((SCRIPTS / script).is_file() for script in scripts_named)
