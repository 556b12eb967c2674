"""Fits that are killed and go on, from every place at which they were kept."""


import pytest
from fuzz.properties import digest
from registry import TRAINED

from skae import Checkpoint
from skae.estimators import persistence

# After each step: what is kept is in the middle of epochs, too.
STEPS = {"every": 0, "unit": "minutes"}


class KilledError(BaseException):
    """Stands for SIGKILL, which no `except Exception` sees either."""


@pytest.fixture
def kill(monkeypatch):
    """A function: let writes of files raise from such a one on."""
    write, written = persistence.write, []

    def kill_after(n_writes):
        written.clear()

        def counted(*args, **kwargs):
            if len(written) == n_writes:
                raise KilledError
            write(*args, **kwargs)
            written.append(args)

        monkeypatch.setattr(persistence, "write", counted)
        return written

    return kill_after


def learned(model):
    """A digest of all that a fit has left."""
    return digest({name: value for name, value in vars(model).items() if name != "callbacks"})


@pytest.mark.parametrize("case", TRAINED, ids=str)
def test_a_killed_fit_ends_as_if_it_had_not_been(case, tmp_path, kill):
    y = case.y
    plain = learned(case.make().fit(case.X, y))
    checkpoint = Checkpoint(tmp_path / "fit", **STEPS)
    written = kill(-1)
    # To be kept changes nothing.
    assert learned(case.make(callbacks=[checkpoint]).fit(case.X, y)) == plain
    n_writes = len(written)
    for path in tmp_path.iterdir():
        path.unlink()
    # What goes on is written first, so that one write alone is no progress.
    n_killed, step = 0, max(2, n_writes // 4)
    while True:
        kill(step)
        try:
            model = case.make(callbacks=[checkpoint]).fit(case.X, y)
        except KilledError:
            n_killed += 1
            continue
        break
    assert n_killed >= min(3, n_writes - 1)
    assert learned(model) == plain
