"""What a process is like must not matter: modes of torch, forks, consoles, memory maps, Ctrl-C."""

import contextlib
import io
import multiprocessing
import sys
import warnings

import joblib
import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from registry import CASES, TRAINED, families
from sklearn.model_selection import GridSearchCV

from skae import AutoEncoder, ConvolutionalPSD
from skae.diagnostics import jacobian_norms
from skae.engine.optimisation import devices
from skae.engine.optimisation.devices import undisturbed
from skae.estimators.face.columns import Columns


@contextlib.contextmanager
def default_dtype():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


MODES = {
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
    "default device": lambda: torch.device("meta"),
    "default dtype": default_dtype,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
}


@pytest.mark.parametrize("case", families(CASES), ids=str)
def test_modes_of_the_caller_do_not_reach_a_model(case):
    X = case.X.astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of models that are hardly trained
        expected = np.asarray(case.output(case.fit(X), X))
        with contextlib.ExitStack() as stack:
            for mode in MODES.values():
                stack.enter_context(mode())
            found = np.asarray(case.output(case.fit(X), X))
    # The same bits: nothing of what the caller has set takes part.
    assert_array_equal(found, expected)


def test_modes_of_the_caller_are_as_before(X):
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16), torch.device("meta"):
        AutoEncoder(2, max_iter=1).fit(X)
        assert torch.is_inference_mode_enabled()
        assert torch.is_autocast_enabled("cpu")
        assert torch.empty(1).device.type == "meta"


def test_modes_of_the_caller_do_not_reach_diagnostics(X):
    model = AutoEncoder(2, hidden_layer_sizes=(3,), max_iter=1, random_state=0).fit(X)
    expected = jacobian_norms(model, X)
    for mode in MODES.values():
        with mode():
            assert_array_equal(jacobian_norms(model, X), expected)


def test_one_thread_in_a_forked_child(monkeypatch, set_threads):
    found = undisturbed(torch.get_num_threads)
    set_threads(2)
    assert found() == 2
    monkeypatch.setitem(devices._fork, "is_child", True)
    # The pool's other thread would be waited for; outside, the user's number stays.
    assert (found(), torch.get_num_threads()) == (1, 2)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere processes do not fork")
@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_forked_child_knows_that_it_is_one():
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)
    child = context.Process(target=lambda: send.send(devices._fork["is_child"]))
    child.start()
    assert receive.recv() is True
    child.join()
    assert devices._fork["is_child"] is False


def test_progress_without_a_console(X, monkeypatch):
    closed = io.StringIO()
    closed.close()
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    terminal.flush = lambda: (_ for _ in ()).throw(BrokenPipeError("broken pipe"))
    for stream in (None, closed, terminal):
        monkeypatch.setattr(sys, "stdout", stream)
        # Hours of training are not lost for a line about them.
        assert AutoEncoder(2, max_iter=2, verbose=True).fit(X).n_iter_ == 2


@pytest.mark.parametrize("case", CASES, ids=str)
def test_memory_mapped_models(case, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = case.fitted
    joblib.dump(model, tmp_path / "model")
    mapped = joblib.load(tmp_path / "model", mmap_mode="r")
    # No warning of tensors that could be written to; the same results.
    assert_array_equal(np.asarray(case.output(mapped)), np.asarray(case.output(model)))
    for name in ("score_samples", "inverse_transform"):
        if hasattr(model, name) and case in TRAINED:
            rows = case.X if name == "score_samples" else np.asarray(case.output(model))
            with contextlib.suppress(ValueError):  # codes without a way back
                assert_array_equal(getattr(mapped, name)(rows), getattr(model, name)(rows))


def test_no_memory_left_is_a_memory_error(X, monkeypatch):
    def allocate(*arguments, **options):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1")

    model = AutoEncoder(2, max_iter=1, random_state=0).fit(X)
    before = dict(vars(model))
    monkeypatch.setattr("skae.estimators.face.training.fit_model", allocate)
    with pytest.raises(MemoryError, match=r"Not enough memory for .*fit\. Use fewer"):
        model.fit(X)
    # The same objects, all of them.
    assert vars(model).keys() == before.keys()
    assert all(vars(model)[name] is value for name, value in before.items())


def test_what_columns_are_is_no_tuple():
    model = ConvolutionalPSD(2, image_shape=(6, 6), filter_shape=3, max_iter=1, random_state=0)
    columns = model.fit(np.random.default_rng(0).random((20, 36))).columns_
    # Formats that know tuples, but not their subclasses, would return one without methods.
    assert isinstance(columns, Columns)
    assert not isinstance(columns, tuple)


def test_ctrl_c_twice_stops_a_search(X, monkeypatch):
    fits = []

    def interrupted(self, text):
        if text.startswith("epoch 2/"):
            fits.append(text)
            raise KeyboardInterrupt

    monkeypatch.setattr("skae.estimators.face.progress.Line.write", interrupted)
    model = AutoEncoder(2, max_iter=5, verbose=True, random_state=0)
    with pytest.warns(UserWarning, match="interrupted"):
        model.fit(X)
    search = GridSearchCV(model, {"weight_decay": [0, 1e-5, 1e-4]}, cv=2)
    with pytest.raises(KeyboardInterrupt):
        search.fit(X)
    # The first press ended a fit, whose model was kept; the second one what went on.
    assert len(fits) == 2
    with pytest.warns(UserWarning, match="interrupted"):
        # After that, who presses once ends one fit again.
        model.fit(X)
