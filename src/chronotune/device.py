"""The memory of the device that a trial trains on: how much there is, what is spent, and giving it back."""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from chronotune import memory
from chronotune.errors import ChronotuneError
from chronotune.memory import (
    CPU,
    ERROR,
    FRAGMENTED,
    GPU,
    GPU_BF16,
    Architecture,
    Load,
    Numbers,
    free_of_machine,
    predict,
)

if TYPE_CHECKING:
    import torch

log = logging.getLogger("chronotune.device")

MEMORY = "CHRONOTUNE_TRIAL_MEMORY"
"""Environment variable: bytes that one trial may take, instead of what its device has left."""

_M_MMAP_THRESHOLD = -3  # malloc.h

_OUT_OF_MEMORY = (
    "not enough memory",
    "can't allocate memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)
"""What torch says when an allocator fails and it raises no class of its own."""


def available(device: torch.device, share: float = 1.0) -> int:
    """Bytes that a trial may take on `device`, before it has taken any.

    Args:
        device: Where it trains.
        share: Of the device: the trial's fraction of a GPU, or one over the trials that run side by side on a CPU.

    Raises:
        ChronotuneError: The environment variable CHRONOTUNE_TRIAL_MEMORY is set, but not to a number of bytes.
    """
    if (limit := os.environ.get(MEMORY)) is not None:
        if not limit.isdecimal():
            raise ChronotuneError(f"{MEMORY} must be a whole number of bytes, but is {limit!r}; correct or unset it")
        return int(limit)
    return _free_of_gpu(device, share) if device.type == "cuda" else int(free_of_machine() * share)


def _free_of_gpu(device: torch.device, share: float) -> int:
    """What is free for anybody and what this process holds unused, within its share of the whole."""
    import torch

    free, total = torch.cuda.mem_get_info(device)
    held, used = torch.cuda.memory_reserved(device), torch.cuda.memory_allocated(device)
    return int(max(0, min(free + held - used, total * share - used)))


def numbers(device: torch.device, bf16: bool) -> Numbers:
    """Bytes of what training keeps there."""
    if device.type != "cuda":
        return CPU
    return GPU_BF16 if bf16 else GPU


def fitting_windows(device: torch.device, model: Architecture, load: Load, numbers: Numbers, available: int) -> int:
    """`memory.fitting_windows`; the log says when it is fewer, or not even one window is expected to fit.

    On a CPU, freed memory is returned at once from now on where it is short.
    """
    need = predict(model, load, numbers).peak
    if device.type == "cpu" and need * FRAGMENTED > available:
        return_freed_memory()
    fitting = memory.fitting_windows(model, load, numbers, available)
    if fitting == load.windows and need * (1 + ERROR) <= available:
        return fitting
    accumulated = load.accumulated or fitting < load.windows
    least = predict(model, replace(load, windows=fitting, accumulated=accumulated), numbers).peak
    if least * (1 + ERROR) > available:
        log.warning(
            "training is tried though one window is expected to need %.3g GB (up to a quarter more), and %.3g GB are "
            "free; if it fails, lower context_length, use fewer covariates or lora, or run fewer trials at a time",
            *(least / 1e9, available / 1e9),
        )
    else:
        log.info(
            "%d windows are expected to need %.3g GB (up to a quarter more), and %.3g GB are free: at most %d are "
            "computed at once",
            *(load.windows, need / 1e9, available / 1e9, fitting),
        )
    return fitting


def limit_to_share(device: torch.device, share: float) -> None:
    """Keep this process to its fraction of a GPU, so that it cannot take what a neighbour was promised."""
    import torch

    if device.type == "cuda" and share < 1:
        torch.cuda.set_per_process_memory_fraction(share, device)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that an allocator could not give what was asked for."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)


def reason(error: BaseException) -> str:
    """The first line of an error, to quote in another."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def release() -> None:
    """Give back what nothing refers to any more: cycles too, and the blocks that torch holds on a GPU."""
    import torch

    gc.collect()
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def return_freed_memory() -> None:
    """Let the C library give large blocks back to the system when they are freed, from now on in this process.

    As it comes, glibc keeps blocks of up to 32 MiB, and in their gaps others do not fit: a process was seen at twice
    the bytes that are in use. Returning them costs time, so this is for where memory is short. Elsewhere than with
    glibc it does nothing.
    """
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 2**16)


class Busy:
    """How busy the device was since this object was made."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._wall, self._cpu = device, time.perf_counter(), time.process_time()

    def share(self) -> float | None:
        """On a CPU the process's own share of its threads' time; on a GPU its utilisation now; None if unknown."""
        import torch

        if self._device.type != "cuda":
            spent = (time.perf_counter() - self._wall) * torch.get_num_threads()
            return (time.process_time() - self._cpu) / spent if spent else None
        try:
            return float(torch.cuda.utilization(self._device)) / 100
        except (ImportError, RuntimeError):  # without NVIDIA's management library
            return None
