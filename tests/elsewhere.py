"""An accelerator that is none: tensors that say they are on CUDA, and compute on the CPU.

Within `accelerator` torch has one CUDA device. What is put there is a `Elsewhere`, whose device
every operation checks as a real one does: two tensors of more than one number, or a tensor and a
generator, have to be in one place, and NumPy reaches neither. So code that forgets where its
tensors are fails on any machine. ``pytest --elsewhere`` runs any test in it.
"""

from contextlib import ExitStack, contextmanager, nullcontext
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

DEVICE = torch.device("cuda", 0)
_GENERATOR = torch.Generator
_aten = torch.ops.aten
# A CUDA kernel copies from the host, and takes indices from there.
_MIXING = {
    _aten.copy_.default,
    _aten.index.Tensor,
    _aten.index_put_.default,
    _aten.index_put.default,
    _aten._index_put_impl_.default,
}


class Elsewhere(torch.Tensor):
    """A tensor whose numbers are in ``inner``, on the CPU, though it says that it is not there."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(
            *(cls, inner.size()),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device="cpu",
        )

    def __init__(self, inner):
        self.inner = inner

    device = property(lambda self: DEVICE)
    is_cuda = True

    def to(self, *args, **kwargs):
        """A copy on the host where one is asked for, else the tensor in another dtype."""
        places, others, named = _destination(args, kwargs)
        if any(place.type == "cpu" for place in places):
            inner = self.inner.detach().clone()
            return inner.to(*others, **named) if others or named else inner
        return super().to(*others, **named) if others or named else self

    def cpu(self):
        """A copy on the host."""
        return self.to("cpu")

    def tolist(self):
        """The numbers."""
        return self.inner.tolist()

    def numpy(self):
        """Refused, as on CUDA."""
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def __array__(self, *args, **kwargs):
        return self.numpy()

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return _computed(function, args, kwargs or {})


class _Generator(_GENERATOR):
    """A generator of the CPU that says where it was asked for."""

    def __new__(cls, device="cpu"):
        self = super().__new__(cls)
        self.place = torch.device(device)
        return self

    def __init__(self, device="cpu"):
        pass

    @property
    def device(self):
        """Where it was asked for."""
        return DEVICE if self.place.type == DEVICE.type else self.place


class _Operations(TorchDispatchMode):
    """Sees what is made without any tensor."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return _computed(function, args, kwargs or {})


class _Calls(TorchFunctionMode):
    """Sees the calls whose arguments torch itself would bring to a device that is not there."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if isinstance(kwargs.get("generator"), _Generator):
            _check_generator(function, args, kwargs)
        if function in (torch.tensor, torch.as_tensor) and _is_elsewhere(kwargs.get("device")):
            del kwargs["device"]
            return _moved(function(*args, **kwargs))
        if function is torch.Tensor.new_tensor and isinstance(args[0], Elsewhere):
            kwargs.setdefault("dtype", args[0].dtype)
            return _moved(torch.tensor(*args[1:], **kwargs))
        if function is torch.Tensor.to and not isinstance(args[0], Elsewhere):
            places, others, named = _destination(args[1:], kwargs)
            if any(map(_is_elsewhere, places)):
                here = args[0].to(*others, **named) if others or named else args[0]
                return _moved(here.detach().clone())
        return function(*args, **kwargs)


def _moved(tensor):
    return tensor if isinstance(tensor, Elsewhere) else Elsewhere(tensor)


def _check_generator(function, args, kwargs):
    is_elsewhere = _is_elsewhere(kwargs["generator"].device)
    needed = any(isinstance(leaf, Elsewhere) for leaf in tree_leaves((args, kwargs)))
    if is_elsewhere != (needed or _is_elsewhere(kwargs.get("device"))):
        raise RuntimeError(f"{function}: a generator of one device draws for another")


def _is_elsewhere(place):
    return place is not None and torch.device(place).type == DEVICE.type


def _destination(args, kwargs):
    """The devices among the arguments of `to`, and the other arguments."""
    listed = []
    for value in args:
        like = isinstance(value, torch.Tensor)
        listed += [value.device, value.dtype] if like else [value]
    named = {name: value for name, value in kwargs.items() if name != "device"}
    places = [torch.device(value) for value in listed if isinstance(value, str | torch.device)]
    if kwargs.get("device") is not None:
        places.append(torch.device(kwargs["device"]))
    return places, [value for value in listed if not isinstance(value, str | torch.device)], named


def _computed(function, args, kwargs):
    """The result of an operation, in the place of its arguments, which has to be one."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    are_elsewhere = [isinstance(tensor, Elsewhere) for tensor in tensors]
    place = kwargs.get("device")
    is_elsewhere = any(are_elsewhere) if place is None else _is_elsewhere(place)
    if function in _MIXING:
        is_elsewhere = are_elsewhere[0]
    elif any(are_elsewhere):
        pairs = zip(tensors, are_elsewhere, strict=True)
        strays = [tuple(tensor.shape) for tensor, there in pairs if not there and tensor.ndim]
        if strays:
            raise RuntimeError(f"{function}: tensors on two devices, those on the CPU are {strays}")
    args, kwargs = tree_map_only(Elsewhere, lambda tensor: tensor.inner, (args, kwargs))
    if place is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    result = function(*args, **kwargs)
    if not is_elsewhere or function is _aten._local_scalar_dense.default:
        return result
    # What was computed in place is the tensor that it was.
    known = {id(tensor.inner): tensor for tensor in tensors if isinstance(tensor, Elsewhere)}
    return tree_map_only(
        torch.Tensor,
        lambda inner: known[id(inner)] if id(inner) in known else Elsewhere(inner),
        result,
    )


@contextmanager
def accelerator(n_bytes=2**34):
    """Let torch have a CUDA device with so much memory."""
    replaced = {
        "torch.cuda.is_available": lambda: True,
        "torch.cuda.device_count": lambda: 1,
        "torch.cuda._lazy_init": lambda: None,
        "torch.cuda.mem_get_info": lambda device=None: (n_bytes, n_bytes),
        "torch.Generator": _Generator,
        # Its tensors have no versions, and those that wrap others need some.
        "torch.inference_mode": lambda mode=True: torch.no_grad() if mode else nullcontext(),
    }
    with ExitStack() as stack:
        for name, value in replaced.items():
            stack.enter_context(mock.patch(name, value))
        lifts = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)
        stack.callback(torch._C._set_only_lift_cpu_tensors, lifts)
        stack.enter_context(_Operations())
        stack.enter_context(_Calls())
        yield DEVICE
