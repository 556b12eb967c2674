"""Models as files of numbers: arrays and JSON, with nothing in them that could run.

A file is a zip archive. ``model.json`` says what the model is made of, ``0.npy`` and so on are its
arrays, which `numpy.load` reads as well. Classes are those of this package alone, found by name
among what it has itself; an instance gets its state, and no constructor or method of it is called.
"""

import contextlib
import importlib
import io
import json
import math
import os
import pkgutil
import secrets
import zipfile
from collections.abc import Callable
from functools import cache
from numbers import Number
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.frozen import FrozenEstimator

from skae.frames.dtypes import dtype_of, text_of

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]

_FORMAT = 1
_ARRAY_KINDS = "biufcUMm"
_CONTENT = "model.json"


class ModelFileError(ValueError):
    """A file that holds no model of this package, or not a whole one."""


def save(model: BaseEstimator, path) -> None:
    """Write an estimator, fitted or not, to a file that holds nothing but numbers and text.

    The file is written beside its place and moved there when it is whole: whatever happens, there
    is the earlier file or the new one.

    Parameters
    ----------
    model : estimator
        Any estimator of this package.
    path : str or path-like
        Where to.

    Raises
    ------
    TypeError
        If the model holds something that is no data, such as a function or an estimator of
        another package: skops or pickle can store it.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> import skae
    >>> X = np.random.default_rng(0).random((50, 4))
    >>> model = skae.AutoEncoder(2, max_iter=5, random_state=0).fit(X)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "model.skae")
    ...     skae.save(model, path)
    ...     again = skae.load(path)
    >>> bool((again.transform(X) == model.transform(X)).all())
    True
    """
    if not isinstance(model, BaseEstimator) or _name(type(model)) not in _classes():
        raise TypeError(f"{model!r} is no estimator of skae.")
    write(path, "model", model)


def write(path, kind: str, value, make_room: Callable[[], None] | None = None) -> None:
    """Write a value, of such a kind, to a file, which is replaced when the new one is whole.

    ``make_room()`` is called between.
    """
    writer = _Writer()
    content = {"format": _FORMAT, "skae": _version(), kind: writer.written(value)}
    text = json.dumps(content)
    path = Path(path)
    # Made by `open`, so that who may read it is what the user's mask says.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with open(temporary, "xb") as file:
            _lock(file)
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                archive.writestr(_CONTENT, text)
                for number, array in enumerate(writer.arrays):
                    archive.writestr(f"{number}.npy", _npy(array))
            file.flush()
            os.fsync(file.fileno())
        if make_room is not None:
            make_room()
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def remove_unfinished(path) -> None:
    """Remove what writers of a file have left that were killed: nobody holds it any more."""
    path = Path(path)
    for left in path.parent.glob(f".{path.name}.{'[0-9a-f]' * 16}"):
        with contextlib.suppress(OSError), open(left, "rb") as file:
            if _lock(file):
                left.unlink()


def _lock(file):
    """Hold a file until it is closed, or its process has ended; whether that was possible."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def load(path) -> Any:
    """Read an estimator that `save` wrote. Nothing of the file is executed.

    Parameters
    ----------
    path : str or path-like
        Where from.

    Returns
    -------
    model : estimator

    Raises
    ------
    ModelFileError
        If the file is no such file, is damaged, or was written by a later version.
    """
    return from_bytes(Path(path).read_bytes(), path)


def from_bytes(data: bytes, path="The file") -> Any:
    """The model of a file's bytes; ``path`` is what errors call it."""
    try:
        model = _Reader(zipfile.ZipFile(io.BytesIO(data)), len(data)).value("model")
        if not isinstance(model, BaseEstimator):
            raise ModelFileError("The file holds no estimator.")
        return model
    except ModelFileError:
        raise
    except (MemoryError, RecursionError, Exception) as error:
        raise ModelFileError(f"{path} is damaged, or no model of skae: {error}") from error


def read(path, kind: str) -> Any:
    """The value of such a kind in a file that `write` wrote.

    Raises a ModelFileError if the file is damaged or holds another kind.
    """
    data = Path(path).read_bytes()
    try:
        return _Reader(zipfile.ZipFile(io.BytesIO(data)), len(data)).value(kind)
    except (MemoryError, RecursionError, Exception) as error:
        raise ModelFileError(f"{path} is damaged, or no {kind} of skae: {error}") from error


class _Writer:
    """Turns a model into what JSON knows, and a list of arrays."""

    def __init__(self):
        self.arrays, self._kept, self._open = [], {}, set()

    def written(self, value):
        """What stands for a value in JSON."""
        if isinstance(value, np.generic):  # first: some of NumPy's numbers are Python's as well
            return ["scalar", self._place(np.asarray(value))]
        if value is None or isinstance(value, bool | str):
            return value
        if isinstance(value, int):
            return value
        if isinstance(value, float):
            return value if math.isfinite(value) else ["float", repr(value)]
        if id(value) in self._open:
            raise TypeError("A model that holds itself cannot be saved.")
        self._open.add(id(value))
        try:
            return self._compound(value)
        finally:
            self._open.remove(id(value))

    def _compound(self, value):
        if isinstance(value, np.ndarray):
            if value.dtype.kind == "O":
                return ["objects", value.shape, [self.written(part) for part in value.flat]]
            return ["array", self._place(value)]
        if sparse.issparse(value):
            csr = value.tocsr()
            return ["csr", csr.shape, *map(self._place, (csr.data, csr.indices, csr.indptr))]
        if isinstance(value, dict):
            pairs = [[self.written(key), self.written(part)] for key, part in value.items()]
            return ["dict", pairs]
        if type(value) in (list, tuple):
            return [type(value).__name__, [self.written(part) for part in value]]
        if isinstance(value, slice):
            return ["slice", *map(self.written, (value.start, value.stop, value.step))]
        if isinstance(value, range):
            return ["range", value.start, value.stop, value.step]
        if isinstance(value, torch.device):
            return ["device", str(value)]
        if isinstance(value, np.random.RandomState):
            return ["random", self.written(list(value.get_state()))]
        if isinstance(value, FrozenEstimator):
            return ["frozen", self.written(value.estimator)]
        if isinstance(value, np.dtype):
            return ["dtype", value.str]
        return self._of_frame(value) or self._instance(value)

    def _of_frame(self, value):
        library = type(value).__module__.partition(".")[0]
        if library == "pandas" and hasattr(value, "categories"):
            return ["categories", [self.written(c) for c in value.categories], value.ordered]
        if library == "pandas" and hasattr(value, "closed"):
            return ["interval", self.written(value.left), self.written(value.right), value.closed]
        if library == "pandas" and hasattr(value, "tz_convert"):
            zone = value.tz and str(value.tz)
            naive = value.tz_convert(None) if zone else value
            return ["timestamp", self.written(naive.to_datetime64()), zone]
        if library not in ("pandas", "polars", "pyarrow"):
            return None
        try:
            return ["dtype of a frame", text_of(value)]
        except TypeError:
            return None

    def _instance(self, value):
        name = _name(type(value))
        if name not in _classes():
            raise TypeError(
                f"{value!r} is of a kind that is not saved: only models of skae are, whose "
                "parameters are numbers, text and models. Use skops or pickle for others."
            )
        if isinstance(value, tuple):
            return ["tuple of", name, [self.written(part) for part in value]]
        state = dict(vars(value))
        # They belong to a fit, not to what was fitted.
        state.pop("_skl_callbacks", None)
        if not isinstance(state.get("callbacks"), str | Number):  # which fit refuses
            state |= {"callbacks": None} if "callbacks" in state else {}
        return ["object", name, self.written(state)]

    def _place(self, array):
        """The number of an array's entry in the file."""
        if array.dtype.kind not in _ARRAY_KINDS:
            raise TypeError(f"Arrays of dtype {array.dtype} are not saved.")
        if id(array) not in self._kept:
            self._kept[id(array)] = len(self.arrays), array
            self.arrays.append(np.asarray(array))
        return self._kept[id(array)][0]


class _Reader:
    """Makes a model of an archive."""

    def __init__(self, archive, n_bytes):
        # Each entry is read once, and all of them together are no longer than the file: neither
        # many mentions of one nor entries inside of others make more of it.
        self.archive, self.n_left, self.arrays = archive, n_bytes, {}

    def value(self, kind):
        """The value, if the archive holds one of such a kind that this version knows."""
        content = json.loads(self._entry(_CONTENT))
        if content["format"] != _FORMAT:
            raise ModelFileError(
                f"The file has the format {content['format']!r} of skae {content['skae']}, but "
                f"this is {_version()}, which knows format {_FORMAT}. Use a later version."
            )
        if kind not in content:
            others = " and ".join(content.keys() - {"format", "skae"}) or "nothing"
            raise ModelFileError(f"The file holds no {kind}, but {others}.")
        return self.read(content[kind])

    def read(self, written):
        """The value for which something stands in JSON."""
        if not isinstance(written, list):
            return written
        kind, *parts = written
        return getattr(self, f"_{kind.replace(' ', '_')}" if kind in _KINDS else "_unknown")(*parts)

    def _entry(self, name):
        info = self.archive.getinfo(name)
        self.n_left -= info.file_size
        if info.compress_type != zipfile.ZIP_STORED or self.n_left < 0:
            raise ModelFileError(f"The entry {name} is not stored as it should be.")
        return self.archive.read(info)  # which compares a checksum

    def _float(self, text):
        return {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}[text]

    def _array(self, number):
        number = int(number)
        if number not in self.arrays:
            self.arrays[number] = self._read_array(number)
        return self.arrays[number]

    def _read_array(self, number):
        stored = io.BytesIO(self._entry(f"{number}.npy"))
        version = np.lib.format.read_magic(stored)
        if version != (1, 0):
            raise ModelFileError("An array has a header of another kind.")
        shape, _, dtype = np.lib.format.read_array_header_1_0(stored)
        n_bytes = len(stored.getvalue()) - stored.tell()
        if dtype.kind not in _ARRAY_KINDS or math.prod(shape) * dtype.itemsize != n_bytes:
            raise ModelFileError("An array is not as long as its header says.")
        stored.seek(0)
        return np.lib.format.read_array(stored, allow_pickle=False)

    def _scalar(self, number):
        return self._array(number)[()]

    def _objects(self, shape, parts):
        found = np.empty(len(parts), dtype=object)
        for place, part in enumerate(parts):
            found[place] = self.read(part)
        return found.reshape(shape)

    def _csr(self, shape, *numbers):
        matrix = sparse.csr_matrix(tuple(map(self._array, numbers)), shape=tuple(shape))
        matrix.check_format()
        return matrix

    def _dict(self, pairs):
        return {self.read(key): self.read(part) for key, part in pairs}

    def _list(self, parts):
        return [self.read(part) for part in parts]

    def _tuple(self, parts):
        return tuple(self._list(parts))

    def _slice(self, *parts):
        return slice(*map(self.read, parts))

    def _range(self, *parts):
        return range(*parts)

    def _device(self, name):
        return torch.device(name)

    def _random(self, state):
        found = np.random.RandomState()
        found.set_state(tuple(self.read(state)))
        return found

    def _frozen(self, estimator):
        return FrozenEstimator(self.read(estimator))

    def _dtype(self, name):
        dtype = np.dtype(str(name))
        if dtype.kind not in _ARRAY_KINDS + "O":
            raise ModelFileError(f"The dtype {name} is none of a table.")
        return dtype

    def _pandas(self, name):
        if "dateutil" in name:
            raise ModelFileError(f"{name} names a file of time zones, which is not read.")
        return importlib.import_module("pandas").api.types.pandas_dtype(str(name))

    def _dtype_of_a_frame(self, text):
        return dtype_of(str(text))

    def _categories(self, parts, ordered):
        pandas = importlib.import_module("pandas")
        return pandas.CategoricalDtype(self._list(parts), bool(ordered))

    def _interval(self, left, right, closed):
        return importlib.import_module("pandas").Interval(self.read(left), self.read(right), closed)

    def _timestamp(self, moment, zone):
        moment = importlib.import_module("pandas").Timestamp(self.read(moment))
        if zone is None:
            return moment
        if "dateutil" in zone:
            raise ModelFileError(f"{zone} names a file of time zones, which is not read.")
        return moment.tz_localize("UTC").tz_convert(zone)

    def _tuple_of(self, name, parts):
        cls = _classes()[name]
        return tuple.__new__(cls, self._list(parts))

    def _object(self, name, state):
        found = object.__new__(_classes()[name])
        vars(found).update(self.read(state))
        return found

    def _unknown(self, *parts):
        raise ModelFileError("The file has something of a kind that is not known.")


_KINDS = {
    "float", "array", "scalar", "objects", "csr", "dict", "list", "tuple", "slice", "range",
    "device", "random", "frozen", "dtype", "pandas", "categories", "tuple of", "object",
    "dtype of a frame", "interval", "timestamp",
}  # fmt: skip


@cache
def _classes() -> dict[str, type]:
    """The classes of this package by their names: no file can ask for others."""
    found: dict[str, type] = {}
    for floor in ("engine", "frames", "estimators"):
        package = importlib.import_module(f"skae.{floor}")
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            for value in vars(importlib.import_module(module.name)).values():
                if isinstance(value, type) and value.__module__.startswith("skae."):
                    found[_name(value)] = value
    return found


def _version():
    return importlib.import_module("skae").__version__


def _name(cls):
    return f"{cls.__module__}.{cls.__qualname__}"


def _npy(array):
    stored = io.BytesIO()
    np.lib.format.write_array(stored, array, version=(1, 0), allow_pickle=False)
    return stored.getvalue()
