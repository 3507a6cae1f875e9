"""Dropout that a CPU spends little time on.

For each number that is kept or dropped torch draws 64 random bits there, one number after the other: up to a fifth of
a training step. Here it is 16 bits. They come from torch's generator, so that saving or rewinding it repeats them, and
do not depend on the number of threads.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from chronotune.forwards import replaced

CHANCES = 2**16
"""Probabilities are rounded to one part in so many, and what is kept is scaled by the rounded one."""


def dropout(states: Tensor, probability: float, training: bool = True) -> Tensor:
    """`functional.dropout`, with other random numbers where `is_ours` says so."""
    if not (training and is_ours(states, probability)):
        return functional.dropout(states, probability, training)
    return states * _noise(states.shape, round(probability * CHANCES))


def is_ours(states: Tensor, probability: float) -> bool:
    """Whether `dropout` draws here: for 32-bit floats on a CPU, where something is dropped and something is kept."""
    on_cpu = states.device.type == "cpu" and states.dtype == torch.float32
    return on_cpu and 0 < round(probability * CHANCES) < CHANCES


@contextmanager
def dropout_layers(model: nn.Module) -> Iterator[None]:
    """Inside the block, dropout layers of this model in training are `dropout`; backward passes may follow outside."""
    layers = [layer for layer in model.modules() if _is_plain(layer)] if model.training else []
    with replaced({layer: functools.partial(_forward, layer) for layer in layers}):
        yield


def _is_plain(layer: nn.Module) -> bool:
    """Whether nobody else has changed it."""
    return type(layer) is nn.Dropout and not layer.inplace and "forward" not in vars(layer)


def _forward(layer: nn.Dropout, states: Tensor) -> Tensor:
    return dropout(states, layer.p, layer.training)


def _noise(shape: torch.Size, dropped: int) -> Tensor:
    """0 with `dropped` of all CHANCES, else what keeps the mean at 1."""
    count = prod(shape)
    drawn = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None)  # all 64 bits: four numbers each
    kept = drawn.numpy().view(np.int16)[:count] >= dropped - CHANCES // 2
    return torch.from_numpy(np.multiply(kept, np.float32(CHANCES / (CHANCES - dropped)))).view(shape)
