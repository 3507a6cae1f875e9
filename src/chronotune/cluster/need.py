"""How much memory the trials of a recipe are predicted to need, from the files of its model alone."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from chronotune import memory
from chronotune.config.recipe import Recipe, distinct_sets
from chronotune.config.space import Mode, extremes
from chronotune.memory import ERROR, Architecture, Load, Numbers
from chronotune.pretrained import locate

_CONTEXT_OF_CUDA = 0.7e9
"""Bytes of a GPU that a process takes before its first tensor: driver, kernels, workspaces of cuBLAS."""


@dataclass(frozen=True)
class Need:
    """Bytes of one trial."""

    least: int
    """When its windows are computed one after the other: below that it cannot run."""
    whole: int
    """When all windows of a batch are computed at once, and the prediction is as wrong as it may be."""


def need_of(recipe: Recipe, *, on_gpu: bool) -> Need:
    """Of the largest trial of the search space.

    Raises:
        ChronotuneError: The model cannot be found.
    """
    numbers = memory.GPU if on_gpu else memory.CPU
    extra = _CONTEXT_OF_CUDA if on_gpu else 0.0
    folder = locate(recipe.model)
    modes = set(extremes(recipe.search_space.mode))
    peaks = [_peaks(recipe, _architecture(folder, recipe, mode), mode, numbers) for mode in sorted(modes)]
    least, whole = max(least for least, _ in peaks), max(whole for _, whole in peaks)
    return Need(int(least + extra), int(whole * (1 + ERROR) + extra))


def _peaks(recipe: Recipe, model: Architecture, mode: Mode, numbers: Numbers) -> tuple[int, int]:
    space = recipe.search_space
    rows = 1 + max(map(len, distinct_sets(recipe).values()))
    windows, context = int(max(extremes(space.windows))), int(max(extremes(space.context_length)))
    one = Load(context=context, horizon=recipe.horizon, windows=1, rows=rows, mode=mode, accumulated=True)
    several = max(extremes(space.accumulation)) > 1
    whole = Load(context=context, horizon=recipe.horizon, windows=windows, rows=rows, mode=mode, accumulated=several)
    return memory.predict(model, one, numbers).peak, memory.predict(model, whole, numbers).peak


def _architecture(folder: Path, recipe: Recipe, mode: Mode) -> Architecture:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    shapes = _shapes(folder / "model.safetensors")
    parameters = sum(map(math.prod, shapes))
    rank = recipe.search_space.lora_rank
    adapters = 0
    if mode == "lora" and rank is not None:  # at most: not every matrix gets one
        adapters = int(max(extremes(rank))) * sum(sum(shape) for shape in shapes if len(shape) == 2)
    core, forecasting = SimpleNamespace(**config), SimpleNamespace(**config["chronos_config"])
    trained = adapters if mode == "lora" else parameters
    return Architecture.of(core, forecasting, parameters + adapters, trained)


def _shapes(weights: Path) -> list[list[int]]:
    """Of all tensors in a safetensors file, from its header: eight bytes of length, then JSON."""
    with weights.open("rb") as file:
        [length] = struct.unpack("<Q", file.read(8))
        header: dict[str, Any] = json.loads(file.read(length))
    return [tensor["shape"] for name, tensor in header.items() if name != "__metadata__"]
