"""The mean of the weights of several fine-tuned models with the same base: a model again, as fast as one."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

CONFIG, WEIGHTS = "config.json", "model.safetensors"


def average(folders: Sequence[Path], to: Path) -> None:
    """Write the mean of some models' weights.

    Source: Wortsman et al. 2022, "Model soups": fine-tuned from one base they lie in one basin of the loss, where the
    mean is often better than each.

    Args:
        folders: Of models of one shape, plain weights in fp32, adapters merged; at least one.
        to: An existing folder, which gets `config.json`, that of the first, and `model.safetensors`.
    """
    from safetensors import safe_open
    from safetensors.numpy import save_file

    with ExitStack() as stack:
        files = [stack.enter_context(safe_open(folder / WEIGHTS, framework="np")) for folder in folders]
        means = {name: _mean([file.get_tensor(name) for file in files]) for name in files[0].keys()}  # noqa: SIM118  # no mapping
    save_file(means, to / WEIGHTS, metadata={"format": "pt"})  # what the library asks of a file that it loads
    shutil.copyfile(folders[0] / CONFIG, to / CONFIG)


def _mean(tensors: Sequence[Any]) -> Any:
    return np.mean([tensor.astype(np.float64) for tensor in tensors], axis=0).astype(tensors[0].dtype)
