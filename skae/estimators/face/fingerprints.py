"""What tells one fit from another: estimator, parameters, data, each with what users know it by."""

import hashlib
import importlib
import pickle
from collections.abc import Hashable, Iterator, Sequence

import joblib
import numpy as np
import torch
from scipy import sparse

from skae._validation import as_array
from skae.engine.optimisation import processes
from skae.engine.optimisation.devices import resolve_device
from skae.estimators.face.callbacks import callbacks_of

# Types whose values print as what they are.
_PLAIN = (bool, float, int, str, type(None))
# Parameters that change nothing in what is learned.
_IDLE = ("verbose", "callbacks")
# Arrays are read in blocks of rows of so many bytes; of those that are larger than so many, blocks
# that are spread over them and have as many in all.
_BLOCK, _MOST = 2**22, 2**30
_LONGEST = 60

# By name: a digest, and what is shown of it.
Identity = dict[str, list[str]]


def identity_of(estimator, X, y, sample_weight) -> Identity:
    """What a fit is of: two fits that agree in it lead to the same bits, one after the other."""
    found = {
        "skae": _version(),
        "the estimator": type(estimator).__name__,
        "the device": resolve_device(estimator.device).type,
    }
    identity = {name: [text, text] for name, text in found.items()}
    for name, value in sorted(estimator.get_params().items()):
        if name.split("__")[-1] not in _IDLE:
            identity[name] = [_digest(value), _shown(value)]
    chosen = callbacks_of(estimator)
    for callback in (chosen.stopping, chosen.snapshots):
        for name, value in vars(callback).items() if callback is not None else ():
            label = f"{type(callback).__name__}'s {name}"
            identity[label] = [digest_of_data(value), _shown_data(value)]
    for name, value in (("X", X), ("y", y), ("sample_weight", sample_weight)):
        identity[name] = [digest_of_data(value), _shown_data(value)]
    state = {name: value for name, value in vars(estimator).items() if name[-1] == "_"}
    goes_on = estimator.warm_start and bool(state)
    shown = "a fitted one" if goes_on else "none"
    identity["the model that warm_start goes on from"] = [_digest(state) if goes_on else "", shown]
    return identity


def identity_of_all(own: Identity) -> Identity:
    """What the fit of all processes is of; of one process by itself, its own."""
    everywhere = processes.current().gather(own)
    if len(everywhere) == 1:
        return own
    number = str(len(everywhere))
    found = {"the number of processes": [number, number], **everywhere[0]}
    for rank, others in enumerate(everywhere):
        differing = {name: value for name, value in others.items() if value != found[name]}
        found |= {f"{name} of process {rank}": value for name, value in differing.items()}
    return found


def parameters_of(estimator, but: Sequence[str]) -> dict[str, str]:
    """What each parameter of an estimator is, with a digest where that does not tell all of it;
    but for those of some names.
    """
    found = {}
    for name, value in sorted(estimator.get_params().items()):
        if name.split("__")[-1] not in but:
            plain = _is_plain(value)
            found[name] = _shown(value) if plain else f"{_shown(value)} ({_digest(value)})"
    return found


def _is_plain(value):
    """Whether a value is told from others by its type and what it prints as."""
    return type(value) in _PLAIN or (type(value) is tuple and all(map(_is_plain, value)))


def likeness_of(estimator, *others) -> Hashable | None:
    """What tells an estimator's model from others; None where its parameters cannot be compared."""
    parameters = sorted(estimator.get_params().items())
    if all(_is_plain(value) for _, value in parameters):
        return type(estimator), *((name, repr(value)) for name, value in parameters), *others
    try:
        return joblib.hash((type(estimator), parameters, *others))
    except (pickle.PicklingError, AttributeError, TypeError):
        return None


def differences(kept: Identity, now: Identity) -> list[str]:
    """What differs between two fits, in words."""
    found = []
    for name in dict.fromkeys([*now, *kept]):
        before, today = kept.get(name, ["", "not there"]), now.get(name, ["", "not there"])
        if before[0] != today[0]:
            same = before[1] == today[1]
            how = f" ({today[1]}) has other values" if same else f" is {today[1]}, was {before[1]}"
            found.append(name + how)
    return found


def digest_of_data(value) -> str:
    """A digest of data as users pass them: of their values, types and names."""
    if value is None:
        return ""
    return _hashed(_parts(value))


def _parts(value) -> Iterator[bytes]:
    """What is hashed of data, in order."""
    if callable(value) or isinstance(value, str | int | float):
        yield _digest(value).encode()
    elif sparse.issparse(value):
        csr = value.tocsr()
        yield repr(csr.shape).encode()
        for array in (csr.data, csr.indices, csr.indptr):
            yield from _parts(array)
    elif type(value).__module__.startswith(("pandas", "polars")) and hasattr(value, "columns"):
        for number, name in enumerate(value.columns):
            yield repr(name).encode()
            yield from _parts(value.iloc[:, number] if hasattr(value, "iloc") else value[name])
    elif _is_read_in_parts(value):
        # What lies elsewhere or comes once: not read to be compared.
        kind = type(value)
        yield f"{kind.__module__}.{kind.__qualname__} {getattr(value, 'shape', '')}".encode()
    else:
        yield str(getattr(value, "dtype", "")).encode()  # a column's: categories have no other
        array = value if isinstance(value, np.memmap) else np.asarray(as_array(value))
        yield f"{array.shape} {array.dtype.str}".encode()
        if array.dtype.kind == "O":
            yield "\x1f".join(map(repr, array.ravel().tolist())).encode()
        elif array.ndim == 0 or not array.size:
            yield array.tobytes()
        else:
            for start, stop in _blocks(len(array), array.nbytes // len(array)):
                yield np.ascontiguousarray(array[start:stop]).tobytes()


def _is_read_in_parts(value):
    """Whether data are no array, list or column that is held in memory or mapped."""
    held = isinstance(value, np.ndarray | torch.Tensor | list | tuple)
    return not held and not type(value).__module__.startswith(("pandas", "polars"))


def _blocks(n_rows, n_bytes):
    """Bounds of blocks of rows of so many bytes: all rows, or some of very many."""
    n_together = max(1, _BLOCK // max(1, n_bytes))
    starts = range(0, n_rows, n_together)
    if n_rows * n_bytes > _MOST:
        starts = np.linspace(0, n_rows - n_together, _MOST // _BLOCK, dtype=int).tolist()
    return [(start, min(n_rows, start + n_together)) for start in starts]


def _hashed(parts):
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def _digest(value):
    """A digest of a parameter's value; of what cannot be pickled, of what it is called."""
    try:
        return joblib.hash(value)
    except Exception:  # pickling runs code of others
        return getattr(value, "__qualname__", None) or type(value).__qualname__


def _shown(value):
    text = " ".join(repr(value).split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def _shown_data(value):
    if value is None or isinstance(value, str | int | float) or callable(value):
        return _shown(value)
    shape = getattr(value, "shape", None)
    if shape is None and not isinstance(value, list | tuple):
        return f"a {type(value).__name__}"
    shape = np.shape(value) if shape is None else tuple(shape)
    kind = getattr(value, "dtype", None)
    return f"of shape {shape}" + ("" if kind is None else f" and dtype {kind}")


def _version():
    return importlib.import_module("skae").__version__
