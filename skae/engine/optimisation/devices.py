"""Where a model computes: devices, their memory and threads, and draws that cost little there."""

import functools
import math
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, NamedTuple, TypeVar, cast

import torch

# Below this many multiply-adds a product, torch's second thread costs more than it gives.
# On two idle x86 cores the two cross at about 0.4M and the gain is small up to some 2M; where
# another job has part of a core, threads that wait for each other double the time there.
_SINGLE_THREAD_PRODUCT = 2_500_000


class Place(NamedTuple):
    """Where a model computes, and in what precision."""

    dtype: torch.dtype
    device: torch.device

    def tensor(self, array) -> torch.Tensor:
        """A copy of an array of numbers here: fitted state may be a read-only memory map."""
        return torch.tensor(array, dtype=self.dtype, device=self.device)


def place_of(tensor: torch.Tensor) -> Place:
    """Where a tensor is, and its precision."""
    return Place(tensor.dtype, tensor.device)


def resolve_device(name):
    """The torch device for a name; ``"auto"`` is CUDA, then MPS or XPU, then the CPU.

    Raises a ValueError if the name is no device of torch, or this machine has no such device.
    """
    if str(name) == "auto":
        for kind, present in _accelerators().items():
            if present():
                return torch.device(kind)
        return torch.device("cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"device={name!r} is not a device of torch; use 'auto', 'cpu', 'cuda', 'cuda:0', ..."
        ) from error
    if not is_available(device):
        raise ValueError(
            f"device={name!r} is not available on this machine; use device='auto' or 'cpu'."
        )
    return device


def is_available(device):
    """Whether this machine has the device."""
    present = _accelerators().get(device.type)
    if present is None:
        return device.type == "cpu"
    if not present():
        return False
    return device.type != "cuda" or (device.index or 0) < torch.cuda.device_count()


def _accelerators():
    return {
        "cuda": torch.cuda.is_available,
        "mps": torch.backends.mps.is_available,
        "xpu": lambda: hasattr(torch, "xpu") and torch.xpu.is_available(),
    }


def widest_dtype(device: torch.device) -> torch.dtype:
    """float64, or float32 on what has no float64, for sums of many terms."""
    return torch.float32 if device.type == "mps" else torch.float64


def available_memory(device):
    """Bytes that can still be allocated on the device, or None where nobody tells."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type != "cpu":
        return None
    try:
        with open("/proc/meminfo") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return None


_LEANER_TRAINING = (
    "Use fewer components or smaller hidden layers, a smaller batch_size, or float32 input."
)


def require_memory(n_bytes, device, purpose, remedy=_LEANER_TRAINING):
    """Raise a MemoryError that names the remedy before a doomed allocation is tried."""
    available = available_memory(device)
    if available is not None and n_bytes > available:
        raise MemoryError(
            f"{purpose} needs {n_bytes / 2**30:.1f} GiB on {device.type}, which has "
            f"{available / 2**30:.1f} GiB left. {remedy}"
        )


@contextmanager
def suitable_threads(device, multiply_adds):
    """Run a CPU training of tiny products on one thread; restore the limit after it.

    Of larger ones, `skae.engine.optimisation.threads` measures what is faster.
    """
    n_threads = torch.get_num_threads()
    if device.type != "cpu" or n_threads == 1 or multiply_adds > _SINGLE_THREAD_PRODUCT:
        yield
        return
    with one_thread():
        yield


def exact_convolutions(device: torch.device) -> AbstractContextManager:
    """Convolutions of full precision, the same bits each time, as products of matrices are.

    By default cuDNN's have 10 bits of precision on newer GPUs, and add up in any order.
    """
    if device.type != "cuda":
        return nullcontext()
    cudnn = torch.backends.cudnn
    exact = {"benchmark": False, "deterministic": True, "allow_tf32": False}
    return cudnn.flags(enabled=cudnn.enabled, **exact)


F = TypeVar("F", bound=Callable[..., Any])
# Whether this process is a fork of one that may have had threads, which it has not.
_fork = {"is_child": False}
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _fork.update(is_child=True))


def undisturbed(function: F) -> F:
    """Decorate a function so that the modes of torch that its caller has set do not reach it.

    Inference mode, disabled gradients, autocast and the default device are the caller's; what is
    computed here does not depend on them. Where torch has no memory left, it is a MemoryError. In a
    forked child there is one thread, since those of torch's pool stayed in the parent and would be
    waited for without end.
    """

    @functools.wraps(function)
    def guarded(*args, **kwargs):
        guards = list(_guards())
        try:
            if not guards:
                return function(*args, **kwargs)
            with ExitStack() as stack:
                for guard in guards:
                    stack.enter_context(guard)
                return function(*args, **kwargs)
        except RuntimeError as error:
            if not _is_of_memory(error):
                raise
            what = f"Not enough memory for {function.__qualname__}"
            raise MemoryError(f"{what}. {_LEANER_TRAINING} ({error})") from error

    return cast(F, guarded)


def _is_of_memory(error):
    """Whether torch had no memory, which it calls a RuntimeError on the CPU and on CUDA."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _guards():
    """Contexts in which the caller's modes have no effect; mostly none."""
    if torch.is_inference_mode_enabled():
        yield torch.inference_mode(False)
    elif not torch.is_grad_enabled():
        yield torch.enable_grad()
    for kind in ("cpu", "cuda"):
        if torch.is_autocast_enabled(kind):
            yield torch.autocast(kind, enabled=False)
    if torch.empty(0).device.type != "cpu":  # torch.get_default_device takes ten times as long
        yield torch.device("cpu")
    if _fork["is_child"] and torch.get_num_threads() > 1:
        yield one_thread()


@contextmanager
def one_thread():
    """Run on one thread of torch, and so what other threads begin meanwhile; restore the limit."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


# From this many coins on, cutting two from each 64-bit draw beats one float per coin.
_MANY = 20_000


def random_mask(x, probability, generator):
    """Independent coins: True with ``probability``, a boolean tensor shaped like ``x``.

    Four coins are cut from each 64-bit draw; 16 bits resolve a probability to 1 / 65536.
    """
    n_coins = x.numel()
    draws = torch.empty((n_coins + 3) // 4, dtype=torch.int64, device=x.device)
    draws.random_(-(2**63), None, generator=generator)
    threshold = round(probability * 2**16) - 2**15
    if threshold > 2**15 - 1:
        return torch.ones_like(x, dtype=torch.bool)
    return (draws.view(torch.int16)[:n_coins] < threshold).view(x.shape)


def bernoulli(probability, generator, out=None):
    """Independent draws of 0 or 1, in the probabilities' shape and dtype.

    A draw is 1 where random bits, read as a number in [0, 1), are below the probability:
    32 bits, or in float32 the 24 that it can hold. torch's own ``bernoulli`` takes four
    times as long on a CPU.
    """
    out = torch.empty_like(probability) if out is None else out
    n_draws = probability.numel()
    if n_draws < _MANY:
        # In float32 whatever the dtype, so that models of both draw alike.
        if out.dtype == torch.float32 and out is not probability:
            return out.uniform_(generator=generator).lt_(probability)
        numbers = torch.empty_like(out, dtype=torch.float32)
        return out.copy_(numbers.uniform_(generator=generator) < probability)
    bits, n_bits = _random_bits(probability.shape, probability, generator)
    out.copy_(bits)
    return out.lt_((probability - 0.5).mul_(2.0**n_bits))


def coins(shape, like, generator):
    """Random numbers in [0, 1): `bernoulli` is 1 where they are below such probabilities."""
    if math.prod(shape) < _MANY:
        numbers = torch.empty(shape, dtype=torch.float32, device=like.device)
        return numbers.uniform_(generator=generator)
    bits, n_bits = _random_bits(shape, like, generator)
    return bits.to(like.dtype).mul_(2.0**-n_bits).add_(0.5)


def _random_bits(shape, like, generator):
    """Random integers around 0, and of how many bits: as many as numbers of a tensor hold."""
    n_draws = math.prod(shape)
    bits = torch.empty((n_draws + 1) // 2, dtype=torch.int64, device=like.device)
    bits.random_(-(2**63), None, generator=generator)
    bits = bits.view(torch.int32)[:n_draws].view(shape)
    return (bits, 32) if like.dtype == torch.float64 else (bits.bitwise_right_shift_(8), 24)
