"""How much memory a training step needs, and so how many windows are computed at once.

The bytes are counted from the tensors that autograd keeps for the backward pass, not fitted to measurements.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import psutil

from chronotune.config.space import Mode

Splits: TypeAlias = Sequence[tuple[int, int]]
"""How steps were computed: pairs of an optimizer step and a count from that step on, ascending.

Counts are of windows computed at once, or of threads."""

ERROR = 0.25
"""Share by which a prediction may miss what is measured."""

FRAGMENTED = 2.0
"""Times the prediction that a process may grow to where its allocator keeps what is freed (glibc's, as it comes)."""

_FLOAT = 4


class _Forecasting(Protocol):
    input_patch_size: int
    output_patch_size: int
    quantiles: Sequence[float]


class _Core(Protocol):
    num_layers: int
    d_model: int
    d_kv: int
    num_heads: int
    d_ff: int
    dropout_rate: float


@dataclass(frozen=True)
class Architecture:
    """What of a Chronos-2 model decides its memory."""

    layers: int
    d_model: int
    d_ff: int
    heads: int
    d_kv: int
    """Numbers of one head."""
    patch: int
    """Time steps of a patch, read or forecast."""
    quantiles: int
    dropout: float
    parameters: int
    """Of the model, adapters included."""
    trained: int
    """Of those, the ones that get a gradient."""

    @classmethod
    def of(cls, core: _Core, forecasting: _Forecasting, parameters: int, trained: int) -> Architecture:
        """From a model's `config` and `chronos_config`."""
        return cls(
            layers=core.num_layers,
            d_model=core.d_model,
            d_ff=core.d_ff,
            heads=core.num_heads,
            d_kv=core.d_kv,
            patch=forecasting.input_patch_size,
            quantiles=len(forecasting.quantiles),
            dropout=core.dropout_rate,
            parameters=parameters,
            trained=trained,
        )


@dataclass(frozen=True)
class Numbers:
    """Bytes of what a device keeps, by kind."""

    wide: int = _FLOAT
    """The residual stream and its norms."""
    narrow: int = _FLOAT
    """What matrix products read: in bfloat16 under autocast."""
    mask: int = _FLOAT
    """An element of a dropout mask."""
    scores: bool = True
    """Whether attention with dropout keeps its scores: the CPU's does, a GPU's fused one does not."""


CPU, GPU, GPU_BF16 = Numbers(), Numbers(mask=1, scores=False), Numbers(narrow=2, mask=1, scores=False)


@dataclass(frozen=True)
class Load:
    """What one forward and backward pass works on."""

    context: int
    """Time steps of the past."""
    horizon: int
    """Time steps to forecast."""
    windows: int
    rows: int
    """Of one window: its target and its covariates."""
    mode: Mode
    dense: bool = False
    """Whether group attention spans all rows of the batch, as in chronos-forecasting itself, and not each window."""
    accumulated: bool = False
    """Whether gradients of an earlier pass are there already."""


@dataclass(frozen=True)
class Need:
    """Bytes at the peak of a step. The optimizer's state is there from the end of the first step on."""

    weights: int
    """Of the model, and the moving average of those that are trained."""
    gradients: int
    optimizer: int
    activations: int
    """What is kept for the backward pass, and what that needs beside it."""
    accumulated: bool
    """Whether gradients are there before that pass; else they come while activations go."""

    @property
    def peak(self) -> int:
        """What is there at the same time."""
        both = self.gradients + self.activations if self.accumulated else max(self.gradients, self.activations)
        return self.weights + self.optimizer + both


def predict(model: Architecture, load: Load, numbers: Numbers = CPU) -> Need:
    """The need of a training step (AdamW in fp32) whose largest forward and backward pass is `load`."""
    gradients = average = _FLOAT * model.trained
    weights = model.parameters * (_FLOAT + (2 if numbers.narrow == 2 else 0))  # autocast keeps a copy in bfloat16
    past, future = math.ceil(load.context / model.patch), math.ceil(load.horizon / model.patch)
    rows, tokens = load.windows * load.rows, past + 1 + future
    per_token = model.layers * _block(model, load, tokens, numbers) + _ends(model, load, numbers)
    per_row = tokens * (per_token + _passing(model, load, tokens, numbers)) + future * _head(model, numbers)
    mask = 2 * _FLOAT * tokens * rows * rows if load.dense else 0  # while it is built, it is there twice
    return Need(weights + average, gradients, 2 * gradients, rows * per_row + mask, load.accumulated)


def _block(model: Architecture, load: Load, tokens: int, numbers: Numbers) -> int:
    """Bytes that one block keeps for one token: attention over time, attention in the group, feed-forward.

    A norm keeps its input, and for the gradient of its own weight what it multiplies; a matrix product keeps what it
    reads if its weight or an adapter is trained; attention keeps query, key, value and result.
    """
    full, dropped = load.mode == "full", model.dropout > 0
    norm = (2 if full else 1) * numbers.wide * model.d_model
    read = numbers.narrow * model.d_model
    noise = numbers.mask * model.d_model if dropped else 0
    inner = 4 * numbers.narrow * model.heads * model.d_kv
    scores = 0
    if numbers.scores and dropped:  # after the softmax, the dropout mask, and their product
        scores = 3 * _FLOAT * model.heads * (tokens + _group(load))
    hidden = numbers.narrow * model.d_ff * (2 if full and dropped else 1)
    hidden += numbers.mask * model.d_ff if dropped else 0
    return 2 * (norm + read + noise + inner) + scores + norm + (read if full else 0) + noise + hidden


def _group(load: Load) -> int:
    """Rows that a token attends to in group attention."""
    return load.rows * (load.windows if load.dense else 1)


def _ends(model: Architecture, load: Load, numbers: Numbers) -> int:
    """Bytes kept for one token by the embedding of patches and by the last norm."""
    noise = numbers.mask * model.d_model if model.dropout > 0 else 0
    if load.mode == "lora":  # the embedding is frozen
        return numbers.wide * model.d_model + noise
    embedding = numbers.narrow * (model.d_ff + 3 * model.patch) + 2 * noise
    return embedding + 3 * numbers.wide * model.d_model + noise


def _head(model: Architecture, numbers: Numbers) -> int:
    """Bytes for one forecast patch of one row: the output layer, and the quantile loss with what it goes through."""
    return numbers.narrow * (model.d_model + model.d_ff) + 8 * _FLOAT * model.quantiles * model.patch


def _passing(model: Architecture, load: Load, tokens: int, numbers: Numbers) -> int:
    """Bytes for one token beside what is kept: gradients on their way through the widest place of a block."""
    scores = 3 * _FLOAT * model.heads * max(tokens, _group(load)) if numbers.scores else 0
    return numbers.wide * 2 * model.d_model + max(numbers.narrow * 2 * model.d_ff, scores)


def fitting_windows(model: Architecture, load: Load, numbers: Numbers, available: int) -> int:
    """The most windows, at most `load.windows`, whose predicted need leaves room for the prediction's error.

    Args:
        model: What is trained.
        load: `windows` is the most that is wanted; with fewer, gradients accumulate.
        numbers: Of the device.
        available: Bytes, before the copy of the model that is trained is made.

    Returns:
        At least 1, also where that is not expected to fit: the prediction may be wrong.
    """

    def fits(part: Load) -> bool:
        return predict(model, part, numbers).peak * (1 + ERROR) <= available

    if fits(load):
        return load.windows
    low, high = 1, max(1, load.windows - 1)
    while low < high:
        middle = (low + high + 1) // 2
        part = replace(load, windows=middle, accumulated=True)
        low, high = (middle, high) if fits(part) else (low, middle - 1)
    return low


def pairs(attributes: Mapping[str, Any], key: str) -> list[tuple[int, int]]:
    """What a result recorded under `key` from which step on; empty in results of before it was recorded."""
    return [(int(step), int(count)) for step, count in attributes.get(key, ())]


def count_at(splits: Splits, step: int, otherwise: int = 0) -> int:
    """The count in an optimizer step by what was recorded; `otherwise` where nothing was."""
    return next((count for since, count in reversed(splits) if since <= step), otherwise)


def free_of_machine(root: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that this machine, or the container that this process is in, can still give.

    Args:
        root: Where control groups of version 2 or 1 are mounted.
    """
    names = (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"))
    left = [free for limit, used in names if (free := _left(root / limit, root / used)) is not None]
    return max(0, min([psutil.virtual_memory().available, *left]))


def _left(limit: Path, used: Path) -> int | None:
    """Bytes below a control group's limit, file caches that the kernel gives back included; None without a limit."""
    try:
        stat = dict(line.split() for line in (used.parent / "memory.stat").read_text().splitlines())
        return int(limit.read_text()) - int(used.read_text()) + int(stat.get("inactive_file", 0))
    except (OSError, ValueError):
        return None
