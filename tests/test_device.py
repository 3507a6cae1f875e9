"""The memory of a device: what a trial may take, what counts as running out, and giving back. CUDA is pretended."""

from __future__ import annotations

import gc
import sys
import time
import weakref
from pathlib import Path

import pytest
import torch

from chronotune import device
from chronotune.errors import ChronotuneError
from chronotune.memory import CPU, GPU, GPU_BF16

HERE, THERE = torch.device("cpu"), torch.device("cuda")


def test_a_share_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials side by side share what is free."""
    monkeypatch.delenv(device.MEMORY, raising=False)
    monkeypatch.setattr(device, "free_of_machine", lambda: 8000)
    assert (device.available(HERE), device.available(HERE, 0.25)) == (8000, 2000)


def test_an_explicit_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts for every trial, whatever is free; nonsense is refused."""
    monkeypatch.setenv(device.MEMORY, "123456")
    assert device.available(HERE, 0.5) == device.available(THERE) == 123456
    monkeypatch.setenv(device.MEMORY, "2GB")
    with pytest.raises(ChronotuneError, match=r"CHRONOTUNE_TRIAL_MEMORY must be a whole number of bytes, but is '2GB'"):
        device.available(HERE)


@pytest.mark.parametrize(("free", "share", "expected"), [(60, 1.0, 65), (60, 0.5, 40), (20, 0.5, 25), (0, 0.05, 0)])
def test_a_share_of_a_gpu(free: int, share: float, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 100 bytes this process uses 10 and holds 15: within its share, what is free and what it holds unused."""
    monkeypatch.delenv(device.MEMORY, raising=False)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, 100))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 15)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 10)
    assert device.available(THERE, share) == expected


def test_a_fraction_is_enforced(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a shared GPU only."""
    asked: list[float] = []
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda share, _: asked.append(share))
    device.limit_to_share(HERE, 0.5)
    device.limit_to_share(THERE, 1.0)
    device.limit_to_share(THERE, 0.25)
    assert asked == [0.25]


def test_what_a_device_keeps() -> None:
    """By its kind and precision."""
    assert [device.numbers(HERE, False), device.numbers(THERE, False), device.numbers(THERE, True)] == [
        CPU,
        GPU,
        GPU_BF16,
    ]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 99 bytes"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("not enough memory"), False),
    ],
)
def test_running_out(error: Exception, expected: bool) -> None:
    """Only an allocator's failure counts."""
    assert device.is_out_of_memory(error) is expected


def test_a_real_allocation_that_fails() -> None:
    """The words of torch itself are known."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert device.is_out_of_memory(caught.value)


def test_release_reaches_cycles() -> None:
    """What refers to itself is freed too."""
    module = torch.nn.Linear(2, 2)
    module.itself = [module]
    gone = weakref.ref(module)
    gc.disable()
    try:
        del module
        assert gone() is not None
        device.release()
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_freed_memory_returns() -> None:
    """Blocks below and above one that stays are given back to the system."""

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1])

    device.return_freed_memory()
    blocks = [torch.ones(2**20) for _ in range(32)]
    full = resident()
    kept = blocks[-1]
    del blocks
    assert (full - resident()) * 4096 > 100 * 2**20
    assert kept.sum() == 2**20


def test_busy() -> None:
    """Waiting is idle, computing is not."""
    busy = device.Busy(HERE)
    time.sleep(0.3)
    idle = busy.share()
    busy, until = device.Busy(HERE), time.process_time() + 0.3
    while time.process_time() < until:
        pass
    working = busy.share()
    assert idle is not None
    assert working is not None
    assert idle < working
