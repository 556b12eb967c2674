"""Choice of a device, its memory, its threads."""

import pytest
import torch

from skae.engine.optimisation import devices
from skae.engine.optimisation.devices import (
    available_memory,
    is_available,
    require_memory,
    resolve_device,
    suitable_threads,
)

CPU = torch.device("cpu")


def pretend(monkeypatch, *present):
    accelerators = {kind: (lambda kind=kind: kind in present) for kind in ("cuda", "mps", "xpu")}
    monkeypatch.setattr(devices, "_accelerators", lambda: accelerators)


@pytest.mark.parametrize(
    ("present", "chosen"),
    [((), "cpu"), (("cuda",), "cuda"), (("mps",), "mps"), (("xpu",), "xpu"),
     (("xpu", "mps", "cuda"), "cuda")],
)  # fmt: skip
def test_auto_prefers_accelerators(present, chosen, monkeypatch):
    pretend(monkeypatch, *present)
    # "auto" is CUDA, then MPS or XPU, then the CPU, as documented.
    assert resolve_device("auto").type == chosen


def test_the_cpu_is_always_there():
    # Every machine has it.
    assert resolve_device("cpu") == CPU
    assert is_available(CPU)


def test_unknown_names_raise():
    # A typing error should say so, rather than fail inside of torch.
    with pytest.raises(ValueError, match="device='gpu' is not a device of torch"):
        resolve_device("gpu")


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "mps", "xpu"])
def test_absent_devices_raise(name, monkeypatch):
    pretend(monkeypatch)
    # The remedy is in the message: the CPU is always there.
    with pytest.raises(ValueError, match=r"not available on this machine.*'cpu'"):
        resolve_device(name)


def test_cuda_index_must_exist(monkeypatch):
    pretend(monkeypatch, "cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    # Two devices are 0 and 1; "cuda" alone is the current one.
    assert [is_available(torch.device(n)) for n in ("cuda", "cuda:0", "cuda:1", "cuda:2")] == [
        True, True, True, False,
    ]  # fmt: skip


def test_meta_tensors_hold_no_data():
    # torch knows a "meta" device, on which nothing can be computed.
    assert not is_available(torch.device("meta"))


def test_available_memory_of_the_cpu():
    available = available_memory(CPU)
    # Linux and macOS tell; a machine that runs this has more than 16 MiB and less than 1 PiB.
    assert 2**24 < available < 2**50


def test_doomed_allocations_raise_before_they_are_tried():
    # 2^60 bytes exist nowhere; the message names the purpose and a remedy.
    with pytest.raises(MemoryError, match=r"Training Model needs .* GiB.*smaller"):
        require_memory(2**60, CPU, "Training Model")
    # What fits passes.
    require_memory(2**10, CPU, "Training Model")


def test_unknown_memory_forbids_nothing(monkeypatch):
    monkeypatch.setattr(devices, "available_memory", lambda device: None)
    # Where nobody tells how much is left, trying is the only way.
    require_memory(2**60, CPU, "Training Model")


def test_tiny_products_run_on_one_thread(set_threads):
    set_threads(2)
    with suitable_threads(CPU, 1000):
        assert torch.get_num_threads() == 1
    # The user's setting is back afterwards.
    assert torch.get_num_threads() == 2


def test_large_products_keep_all_threads(set_threads):
    set_threads(2)
    with suitable_threads(CPU, 10**9):
        # Threads pay here, and the user set them.
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_threads_are_restored_after_an_error(error, set_threads):
    set_threads(2)
    with pytest.raises(error), suitable_threads(CPU, 1000):
        raise error
    # However a training ends, the rest of the user's program keeps its threads.
    assert torch.get_num_threads() == 2
