"""What may befall a process: each fault in a process of its own, and what came of it.

    python tests/fuzz/process_faults.py            # all faults, one line each
    python tests/fuzz/process_faults.py disk       # those with such a word in their name

The last line counts the faults after which something was lost or an error was not clear; the exit
status is 1 if there were some. Children are forks, so this runs where systems fork.
"""

import builtins
import locale
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = os.environ["SCIPY_ARRAY_API"] = "1"
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from fuzz.properties import digest
from sklearn.base import clone

import skae

ROWS = np.random.default_rng(0).normal(size=(40, 4))
FAULTS = {}


def fault(function):
    """Register a fault: a function of a folder that returns what happened, or raises."""
    FAULTS[function.__name__.replace("_", " ")] = function
    return function


def small(**parameters):
    """A small model."""
    return skae.AutoEncoder(3, max_iter=2, random_state=0, **parameters)


def child_of(function):
    """(exit status or minus the signal) of a fork that runs a function."""
    child = os.fork()
    if child == 0:
        try:
            function()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@fault
def writes_that_are_killed(folder):
    """SIGKILL after times from 0 to that of a whole write: the old file or the new one."""
    path, old = folder / "model", small().fit(ROWS)
    new = skae.AutoEncoder(300, max_iter=1, random_state=0).fit(np.tile(ROWS, (1, 20)))
    skae.save(old, path)
    started = time.perf_counter()
    skae.save(new, folder / "other")
    whole, kept = time.perf_counter() - started, {"old": 0, "new": 0}
    for part in np.linspace(0, 1.2, 40):
        child = os.fork()
        if child == 0:
            skae.save(new, path)
            os._exit(0)
        time.sleep(part * whole)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        found = digest(vars(skae.load(path)))
        kept["old" if found == digest(vars(old)) else "new"] += 1
        assert found in (digest(vars(old)), digest(vars(new)))
        skae.save(old, path)
    return f"40 writes killed: the whole old file {kept['old']} times, the whole new one " + str(
        kept["new"]
    )


def _refused_write(folder, path):
    """Write a larger model to a place where it does not fit; what was said."""
    large = skae.AutoEncoder(300, max_iter=1, random_state=0).fit(np.tile(ROWS, (1, 20)))
    before = digest(vars(skae.load(path)))
    try:
        skae.save(large, path)
    except OSError as error:
        said = f"{type(error).__name__}: {error.strerror}"
    assert digest(vars(skae.load(path))) == before
    assert os.listdir(folder) == ["model"]
    return f"{said}; the old file is whole, and alone"


@fault
def a_full_disk(folder):
    """A file system in memory of 64 KiB."""
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder]).returncode:
        return "not tried: nothing can be mounted here"
    try:
        skae.save(small().fit(ROWS), folder / "model")
        return _refused_write(folder, folder / "model")
    finally:
        subprocess.run(["umount", folder], check=True)


@fault
def a_limit_of_the_size_of_files_on_disk(folder):
    """RLIMIT_FSIZE of 16 KiB."""
    skae.save(small().fit(ROWS), folder / "model")
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**14, 2**14))
    return _refused_write(folder, folder / "model")


@fault
def no_free_memory(folder):
    """RLIMIT_AS little above what the process has: an error, and the model as it was."""
    model = small().fit(ROWS)
    before = digest(vars(model))
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + 2**26
    rows = np.ones((2000, 2000))
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        model.set_params(n_components=2000).fit(rows)
    except MemoryError as error:
        said = f"{type(error).__name__}: {str(error).splitlines()[0][:90]}"
    model.set_params(n_components=3)
    assert digest(vars(model)) == before
    model.transform(ROWS)
    return f"{said}; the model is as it was, and works"


@fault
def signals_in_the_middle_of_every_phase(folder):
    """SIGINT after times from 0 to that of a whole fit: a model, or none, but never a half one."""
    counts = {"kept": 0, "as before": 0, "done": 0}
    for make in (
        lambda: skae.AutoEncoder(8, max_iter=60, random_state=0),
        lambda: skae.StackedAutoEncoder((6, 4), max_iter=20, fine_tuning=True, random_state=0),
        lambda: skae.SparseCoder(8, max_iter=20, random_state=0),
    ):
        started = time.perf_counter()
        make().fit(ROWS)
        whole = time.perf_counter() - started
        for part in np.linspace(0.01, 1.0, 25):
            model = make().fit(ROWS[:20])
            before = digest(vars(model))
            skae.estimators.face.interruption.forget_interruption()
            signal.signal(signal.SIGALRM, signal.default_int_handler)
            try:
                signal.setitimer(signal.ITIMER_REAL, part * whole)
                model.fit(ROWS)
                signal.setitimer(signal.ITIMER_REAL, 0)
                counts["kept" if model.stopping_reason_ == "interrupted" else "done"] += 1
            except KeyboardInterrupt:
                assert digest(vars(model)) == before
                counts["as before"] += 1
            signal.signal(signal.SIGALRM, signal.SIG_IGN)
            assert np.isfinite(model.transform(ROWS)).all()
    return f"{sum(counts.values())} signals: {counts}; all models usable"


@fault
def a_read_only_home(folder):
    """HOME and the working folder cannot be written to, nor can what is opened for writing."""
    os.environ["HOME"] = str(folder)
    folder.chmod(0o500)
    os.chdir(folder)
    opened, real = [], builtins.open

    def watched(file, mode="r", *args, **kwargs):
        if set(mode) & set("wax+"):
            opened.append(file)
        return real(file, mode, *args, **kwargs)

    builtins.open = watched
    small(verbose=True).fit(ROWS).transform(ROWS)
    assert not opened
    return "a fit opens nothing for writing"


@fault
def no_terminal(folder):
    """Standard output that is None, closed, or a broken pipe."""
    expected, said = small().fit(ROWS).transform(ROWS), list[str]()
    read, write = os.pipe()
    os.close(read)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    closed = open(os.devnull, "w")  # noqa: SIM115
    closed.close()
    for name, stream in {
        "None": None, "closed": closed, "a broken pipe": os.fdopen(write, "w", 1),
    }.items():  # fmt: skip
        sys.stdout = stream
        np.testing.assert_array_equal(small(verbose=True).fit(ROWS).transform(ROWS), expected)
        said.append(name)
    sys.stdout = sys.__stdout__
    return f"the same model where it is {', '.join(said)}"


@fault
def random_hashes(folder):
    """PYTHONHASHSEED 1 and 2: the same bits."""
    code = (
        "import numpy as np, pandas as pd, skae\n"
        "frame = pd.DataFrame({'a': range(30), 'b': list('xyz') * 10})\n"
        "m = skae.TableFeatures(3, hidden_layer_sizes=(4,), max_iter=2, random_state=0)\n"
        "m.fit(frame)\n"
        "print(m.transform(frame).tobytes().hex())"
    )
    found = [_output(code, PYTHONHASHSEED=seed) for seed in ("1", "2")]
    assert found[0] == found[1]
    return "the same bits"


@fault
def other_locales(folder):
    """Numbers with commas, and a dotless i: the same file, the same codes."""
    tried = []
    expected = small().fit(ROWS)
    os.environ["LOCPATH"] = str(folder)
    for name in ("de_DE.UTF-8", "tr_TR.UTF-8", "C"):
        if name != "C":
            make = ["localedef", "-i", name[:5], "-f", "UTF-8", str(folder / name)]
            subprocess.run(make, capture_output=True)
        try:
            locale.setlocale(locale.LC_ALL, name)
        except locale.Error:
            continue
        tried.append(name)
        model = small(activation="sigmoid").fit(ROWS)
        skae.save(model, folder / "model")
        again = skae.load(folder / "model")
        np.testing.assert_array_equal(again.transform(ROWS), expected.transform(ROWS))
    return f"the same codes in {', '.join(tried)}"


@fault
def a_clock_that_jumps(folder):
    """Clocks that go back and far ahead at every call."""
    expected = small().fit(ROWS).transform(ROWS)
    jumps = np.resize([1e9, -1e9, 0.0, 3.0, 0.0], 10_000).tolist()
    for name in ("time", "monotonic", "perf_counter"):
        setattr(time, name, jumps.pop)
    with open(os.devnull, "w") as sys.stdout:
        found = small(verbose=True).fit(ROWS).transform(ROWS)
    sys.stdout = sys.__stdout__
    np.testing.assert_array_equal(found, expected)
    return "the same bits, and no error"


@fault
def one_thread_against_two(folder):
    """The same training with one and two threads."""
    import torch

    rows = np.tile(ROWS, (10, 5))
    torch.set_num_threads(1)
    one = clone(small()).fit(rows).transform(rows)
    torch.set_num_threads(2)
    two = clone(small()).fit(rows).transform(rows)
    np.testing.assert_allclose(two, one, rtol=1e-4, atol=1e-6)
    return f"codes differ by {np.abs(one - two).max():.1g} at most"


def _output(code, **environment):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True,
        env={**os.environ, **environment}, check=True,
    )  # fmt: skip
    return done.stdout


def main():
    """Try the faults, each in a fork."""
    wanted = sys.argv[1:] or [""]
    failed = 0
    for name, function in FAULTS.items():
        if not any(word in name for word in wanted):
            continue

        def run(function=function, name=name):
            warnings.simplefilter("ignore")
            folder = Path(tempfile.mkdtemp())
            status = 1
            try:
                print(f"{name}: {function(folder)}", flush=True)
                status = 0
            except BaseException:
                sys.stdout = sys.__stdout__
                print(f"{name}: FAILED", flush=True)
                traceback.print_exc(file=sys.__stdout__)
                sys.__stdout__.flush()
            finally:
                subprocess.run(["rm", "-rf", folder])
                os._exit(status)

        failed += child_of(run) != 0
    print(f"{failed} faults did harm")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
