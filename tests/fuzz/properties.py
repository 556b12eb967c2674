"""What holds of every attack, and a runner that checks it after each call.

- Errors are our own: one of a few kinds, raised by a statement of this package or of what
  scikit-learn checks data and parameters with. None comes out of torch, NumPy or an assertion.
- A call that fails changes nothing; one that only computes does not either, and none changes data.
- What is returned and what is learned is finite.
- The results of rows are the rows of results.
- The same seed gives the same bits; so do clones, pickles and model files.
- The process is as it was: random states, modes of torch, threads, filters of warnings.
"""

import contextlib
import dis
import inspect
import io
import os
import pickle
import random
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from copy import deepcopy
from dataclasses import fields, is_dataclass
from pathlib import Path

import numpy as np
import polars  # noqa: F401 - it sets a variable of the environment
import torch
from fuzz.attacks import ANY, LEARNING, ROWS, TARGETS, WEIGHTS, constructed, made, takes
from scipy import sparse
from sklearn import get_config
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import NotFittedError

import skae
from skae.estimators.face.interruption import forget_interruption

PACKAGE = str(Path(skae.__file__).parent)
# Whose checks we call ours: of parameters, arrays, targets, and in estimators that users pass.
CHECKS = ("/sklearn/",)
# What users pass may fail by itself.
OTHERS = ("/sklearn/decomposition/",)
CALLERS = (PACKAGE, "/sklearn/", "/fuzz/")
ERRORS = (
    ValueError, TypeError, RuntimeError, NotFittedError, MemoryError, skae.ModelFileError
)  # fmt: skip
# Seconds of computing after which a case has hung.
LIMIT = 30


class ViolatedError(AssertionError):
    """A property that does not hold."""


def check(attack, counter=None):
    """Run an attack; raise a `ViolatedError` where a property does not hold."""
    counter = Counter() if counter is None else counter
    before = process_state()
    noise: list[str] = []
    with warnings.catch_warnings(), _no_longer_than(LIMIT):
        warnings.simplefilter("always")
        warnings.showwarning = lambda *about: noise.extend(_noise(*about))
        filters = _filters()
        _Run(attack, counter).all_calls()
        _require(_filters() == filters, "filters of warnings have changed")
    after = process_state()
    for name in before:
        changed = f"the process has changed: {name}, {_changes(before[name], after[name])}"
        _require(before[name] == after[name], changed)
    _require(not noise, f"a warning that is not ours: {noise[:1]}")


class _Run:
    """An attack while it runs."""

    def __init__(self, attack, counter):
        self.attack, self.counter = attack, counter
        self.model = None

    def all_calls(self):
        """Make the estimator, and call it."""
        self.model = constructed(self.attack)
        for number, call in enumerate(self.attack.calls):
            try:
                self.one(call)
            except ViolatedError as found:
                raise ViolatedError(f"call {number}, {call.method}: {found}") from found.__cause__

    def one(self, call):
        """One call and what holds after it."""
        model, arguments = self.model, self.arguments(call)
        if call.method not in IN_GENERAL and not hasattr(model, call.method):
            self.counter["not available"] += 1
            return
        data, state = digest(arguments), digest(_state(model))
        before = deepcopy(model)
        result, error = self.outcome(lambda: self.call(call, arguments), call.interrupt)
        _require(digest(arguments) == data, "the data were changed")
        if error is not None:
            self.counter[f"refused: {type(error).__name__}"] += 1
            _require(is_ours(error), f"not an error of ours: {_told(error)}", error)
            # That one is scikit-learn's: a fit, and then a transform, which may fail by itself.
            same = call.method == "fit_transform" or digest(_state(model)) == state
            _require(same, f"a failed call changed: {_told(error)}", error)
            return
        self.counter[f"done: {call.method}"] += 1
        if call.method not in (*LEARNING, "set_params", "set_output"):
            changed = "a call that only computes changed the model"
            _require(digest(_state(model)) == state, changed)
        if call.method in LEARNING:
            _require_finite(_learned(model), "what was learned")
        else:
            limits = call.method in DENSITIES and self.is_extreme(call)
            limits |= call.method == "score" and self.has_huge_targets
            if call.method != "score" or self.n_rows(call) > 1:  # one row has no R^2
                _require_finite(result, "the result", limits, self.has_empty_columns)
        if call.interrupt:
            return
        if call.method in LEARNING:
            if getattr(model, "random_state", 0) is None:
                return  # asks for other bits each time
            self.outcome(lambda: self.call(call, self.arguments(call), before), 0)
            same = digest(vars(before)) == digest(vars(model))
            _require(same, "the same seed gave other bits")
        elif call.method not in ANY:
            self.rows_of_results(call, arguments, result)

    def n_rows(self, call):
        """How many rows a call gets."""
        return ROWS[call.rows](self.attack.rows).n_rows

    def is_extreme(self, call):
        """Whether squares of the rows may be more than a number can be."""
        rows = ROWS[call.rows](self.attack.rows)
        is_far = call.rows == "huge" or rows.exponent or rows.kind in EXTREME
        # Usual rows are far from those of a fit to minute ones.
        return is_far or any(call.rows == "minute" for call in self.attack.calls)

    @property
    def has_empty_columns(self):
        """Whether a column had no value in `fit`: it comes back missing."""
        encoding = getattr(self.model, "encoding_", None)
        return encoding is not None and bool(encoding.empty)

    @property
    def has_huge_targets(self):
        """Whether R^2 may be less than any number: a prediction of 1e200 of a target of 1."""
        return any(call.target == "huge numbers" for call in self.attack.calls)

    def outcome(self, function, interrupt):
        """(result, None), or (None, error)."""
        forget_interruption()
        with contextlib.redirect_stdout(io.StringIO()):
            try:
                with _pressed_at(interrupt):
                    return function(), None
            except ViolatedError:
                raise
            except (Exception, KeyboardInterrupt) as error:
                return None, error

    def arguments(self, call):
        """What a method gets, by name."""
        if call.method in ANY:
            return {}
        cls, generator = type(self.model), np.random.default_rng(1)
        arguments = deepcopy(call.options)
        rows = ROWS[call.rows](self.attack.rows)
        if takes(cls, call.method, "X"):
            arguments["X"] = self.codes(rows) if call.method == "inverse_transform" else made(rows)
        if takes(cls, call.method, "y"):
            arguments["y"] = TARGETS[call.target](generator, rows.n_rows)
        if call.weight != "none" and takes(cls, call.method, "sample_weight"):
            arguments["sample_weight"] = WEIGHTS[call.weight](generator, rows.n_rows)
        if call.method == "partial_fit" and takes(cls, "partial_fit", "classes"):
            with contextlib.suppress(TypeError, ValueError):
                arguments["classes"] = np.unique(arguments["y"])
        return arguments

    def codes(self, rows):
        """Codes for the way back: those of the rows, or numbers where there are none."""
        codes, error = self.outcome(lambda: self.model.transform(made(rows)), 0)
        return np.ones((rows.n_rows, 3)) if error is not None else codes

    def call(self, call, arguments, model=None):
        """Call a method, or do what is done with any estimator."""
        model = self.model if model is None else model
        if call.method == "clone":
            twin = clone(model)
            _require(digest(twin.get_params()) == digest(model.get_params()), "another clone")
            return None
        if call.method == "pickle":
            _require(
                digest(vars(pickle.loads(pickle.dumps(model)))) == digest(vars(model)),
                "another model from a pickle",
            ) if _can_be_pickled(model) else None
            return None
        if call.method == "save":
            return self.saved(model)
        if call.method in ("set_params", "set_output"):
            getattr(model, call.method)(**deepcopy(call.options))
            return None
        if call.method == "get_feature_names_out":
            model.get_feature_names_out()
            return None
        return getattr(model, call.method)(**arguments)

    def saved(self, model):
        """Write a model and read it again."""
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "model")
            try:
                skae.save(model, path)
            finally:
                names = os.listdir(folder)
                _require(set(names) <= {"model"}, f"a file was left: {names}")
            same = digest(vars(skae.load(path))) == digest(vars(model))
            _require(same, "another model from a file")

    def rows_of_results(self, call, arguments, result):
        """Compare results of some of the rows with some of the results of all rows."""
        X = arguments.get("X")
        n_rows = self.n_rows(call)
        result = _as_array(result)
        if X is None or n_rows < 2 or result is None or len(result) != n_rows:
            return
        if call.method in NOT_BY_ROWS:
            return
        some = np.arange(n_rows)[1::2]
        part = {**arguments, "X": _taken(X, some)}
        if part["X"] is None or "sample_weight" in part:
            return
        if part.get("y") is not None:
            part["y"] = _taken(part["y"], some)
        found, error = self.outcome(lambda: self.call(call, part), 0)
        _require(error is None, f"some of the rows are refused: {_told(error)}", error)
        found = _as_array(found)
        _require(found.shape[1:] == result.shape[1:], "some of the rows have another shape")
        _require_close(found, result[some], call.method, self.model)


# What grows as squares do, and may be infinite where rows are as large as roots of the largest.
DENSITIES = (
    "score", "score_samples", "energy", "free_energy", "chain_log_likelihood", "decision_function",
    "score_columns", "prediction_gap", "fit_predict", "annealed_likelihood",
)  # fmt: skip
EXTREME = ("any scale", "scales", "heavy", "subnormal")
IN_GENERAL = ("clone", "pickle", "save")
# Draws, or numbers that depend on all rows, by their meaning.
NOT_BY_ROWS = ("sample", "gibbs", "score", "chain_log_likelihood", "kneighbors", "local_moments")


def _require(holds, message, cause=None):
    if not holds:
        raise ViolatedError(message) from cause


def _changes(before, after):
    if not isinstance(before, dict):
        return f"{before} to {after}"
    return {
        name: after.get(name) for name in {*before, *after} if before.get(name) != after.get(name)
    }


def _told(error):
    return "".join(traceback.format_exception_only(error)).strip()[:300]


def is_ours(error):
    """Whether an exception was raised by a statement of ours, or by a check of scikit-learn."""
    if isinstance(error, KeyboardInterrupt):
        return True
    if not isinstance(error, ERRORS) and type(error) is not AttributeError:
        return False
    if not str(error):
        return False
    at = error.__traceback__
    while at.tb_next is not None:
        if any(part in at.tb_frame.f_code.co_filename for part in OTHERS):
            return True
        at = at.tb_next
    file = at.tb_frame.f_code.co_filename
    if not file.startswith(PACKAGE) and not any(part in file for part in CHECKS):
        return False
    # What a function in C raises comes out of a call, not of a raise.
    operation = at.tb_frame.f_code.co_code[at.tb_lasti]
    return dis.opname[operation] in ("RAISE_VARARGS", "RERAISE")


def _noise(message, category, *where):
    """What NumPy, SciPy or torch warn of where this package calls them."""
    frame = sys._getframe(1)
    while frame is not None and not any(part in frame.f_code.co_filename for part in CALLERS):
        frame = frame.f_back
    about_numbers = issubclass(category, RuntimeWarning | DeprecationWarning)
    if frame is None or not frame.f_code.co_filename.startswith(PACKAGE):
        return  # scikit-learn's own
    if about_numbers or any(part in str(where[0]) for part in ("/torch/", "/numpy/", "/scipy/")):
        file = frame.f_code.co_filename.removeprefix(PACKAGE)
        yield f"{category.__name__}: {message}, at {file}:{frame.f_lineno}"


@contextlib.contextmanager
def _pressed_at(number):
    """Press Ctrl-C at one of the functions of the package that are called, counted from 1."""
    if not number:
        yield
        return
    left = [number]

    def trace(frame, event, argument):
        code = frame.f_code
        # A generator that goes on is called as well, but must not end there.
        if (
            event == "call"
            and code.co_filename.startswith(PACKAGE)
            and not code.co_flags & (inspect.CO_GENERATOR | inspect.CO_COROUTINE)
        ):
            left[0] -= 1
            if left[0] == 0:
                sys.setprofile(None)
                raise KeyboardInterrupt

    sys.setprofile(trace)
    try:
        yield
    finally:
        sys.setprofile(None)


@contextlib.contextmanager
def _no_longer_than(seconds):
    """Raise a `ViolatedError` after so many seconds of computing, where there are such clocks."""
    if not hasattr(signal, "SIGVTALRM"):
        yield
        return

    def hung(number, frame):
        raise ViolatedError(f"it takes more than {seconds} s")

    before = signal.signal(signal.SIGVTALRM, hung)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


# What is compared


def process_state():
    """What belongs to the process, by name."""
    return {
        "random": hash(random.getstate()),
        "numpy.random": hash(np.random.get_state()[1].tobytes()),  # noqa: NPY002
        "torch.random": hash(torch.get_rng_state().numpy().tobytes()),
        "dtype": torch.get_default_dtype(),
        "device": torch.empty(0).device.type,
        "threads": torch.get_num_threads(),
        "gradients": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "numpy errors": np.geterr(),
        "scikit-learn": get_config(),
        # torch sets that where its compiler is imported first.
        "environment": {n: v for n, v in os.environ.items() if n != "TORCHINDUCTOR_CACHE_DIR"},
        "folder": os.getcwd(),
        "filters": _filters(),
    }


def _filters():
    """Filters of warnings, but for those that SymPy sets when torch.func imports it."""
    return [one for one in warnings.filters if not one[2].__module__.startswith("sympy")]


def digest(value, seen=()):
    """Nested tuples that are equal where values are, to the bit."""
    if isinstance(value, np.random.RandomState | np.random.Generator):
        return "random numbers"  # they belong to the user, and move on
    if isinstance(value, np.ndarray):
        if value.dtype == object:
            return "array", value.shape, digest(value.ravel().tolist(), seen)
        return "array", value.dtype.str, value.shape, value.tobytes()
    if sparse.issparse(value):
        value = value.tocoo()
        return "sparse", value.shape, *map(digest, (value.data, value.row, value.col))
    if isinstance(value, torch.Tensor):
        return "tensor", value.requires_grad, digest(value.detach().cpu().numpy())
    if isinstance(value, dict):
        return "dict", tuple(sorted((repr(k), digest(v, seen)) for k, v in value.items()))
    if isinstance(value, list | tuple):
        return type(value).__name__, tuple(digest(v, seen) for v in value)
    if type(value).__module__.startswith(("pandas", "polars")) and hasattr(value, "columns"):
        return "frame", str(getattr(value, "dtypes", "")), digest(np.asarray(value), seen)
    if isinstance(value, np.dtype):
        return "dtype", value.str
    if type(value).__module__.startswith(("pandas", "polars")):
        return type(value).__name__, repr(value)
    if isinstance(value, type) or (callable(value) and not isinstance(value, BaseEstimator)):
        return getattr(value, "__qualname__", type(value).__name__)
    if is_dataclass(value) and not isinstance(value, BaseEstimator | type):  # less what it caches
        own = {field.name: getattr(value, field.name) for field in fields(value)}
        return type(value).__qualname__, digest(own, seen)
    if hasattr(value, "__dict__") and not isinstance(value, np.generic) and id(value) not in seen:
        return type(value).__qualname__, digest(vars(value), (*seen, id(value)))
    return type(value).__name__, repr(value)


def _state(model):
    """What a model is, but for what it only remembers of earlier calls."""
    return {name: value for name, value in vars(model).items() if name not in CACHES}


CACHES = ("_log_partition",)


def _learned(model):
    """What a fit has left, but for what says that it is not known."""
    return {n: v for n, v in vars(model).items() if n.endswith("_") and n not in MAY_BE_NAN}


# By their documentation; and marks of the user's own.
MAY_BE_NAN = ("classes_", "output_classes_", "acceptance_", "r_hat_", "effective_size_")


def _numbers(value):
    """All arrays of floats in a value."""
    if isinstance(value, dict):
        for part in value.values():
            yield from _numbers(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _numbers(part)
    elif sparse.issparse(value):
        yield value.data
    elif hasattr(value, "columns") and hasattr(value, "shape"):
        for name in value.columns:
            column = np.asarray(value[name])
            if column.dtype.kind == "f":
                yield column
    elif isinstance(value, np.ndarray | float | np.floating):
        array = np.asarray(value)
        if array.dtype.kind == "f":
            yield array


def _require_finite(value, what, infinity=False, gaps=False):
    for array in _numbers(value):
        if (np.isnan(array).any() and not gaps) or (np.isinf(array).any() and not infinity):
            kinds = {"NaN": np.isnan(array).any(), "infinity": np.isinf(array).any()}
            raise ViolatedError(f"{what} contains {' and '.join(k for k in kinds if kinds[k])}")


def _as_array(value):
    if sparse.issparse(value):
        return value.toarray()
    if hasattr(value, "columns"):
        columns = [np.asarray(value[name]) for name in value.columns]
        return np.stack(columns, 1) if all(c.dtype.kind == "f" for c in columns) else None
    if isinstance(value, np.ndarray) and value.ndim:
        return value
    return None


def _taken(X, rows):
    """Some of the rows, in the same container; None where it has none."""
    if hasattr(X, "iloc"):
        return X.iloc[rows]
    if sparse.issparse(X):
        return X.tocsr()[rows]
    if isinstance(X, list):
        return [X[row] for row in rows]
    return X[rows] if hasattr(X, "ndim") or hasattr(X, "columns") else None


def _require_close(found, expected, method, model):
    if expected.dtype.kind != "f":
        _require(expected.dtype.kind != "f" and len(found) == len(expected), "other rows")
        return
    _require(found.dtype == expected.dtype, "some of the rows have another dtype")
    size = np.abs(expected, where=np.isfinite(expected), out=np.zeros_like(expected)).max(initial=0)
    tolerance = 2e-3 if expected.dtype == np.float32 else 1e-6
    with np.errstate(all="ignore"):
        errors = np.abs(found / size - expected / size) if size else np.abs(found - expected)
    same = (found == expected) | (np.isnan(found) & np.isnan(expected))  # infinities, too
    error = np.where(same, 0.0, errors).max(initial=0.0)
    _require(error <= tolerance, f"rows of results differ from results of rows by {error:.1g}")


def _can_be_pickled(model):
    try:
        pickle.dumps(model)
    except (AttributeError, pickle.PicklingError, TypeError):
        return False
    return True
