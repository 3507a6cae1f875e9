"""The memory of a training step: predicted against measured, and how many windows fit."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import chronotune
from chronotune.memory import (
    CPU,
    ERROR,
    GPU,
    GPU_BF16,
    Architecture,
    Load,
    count_at,
    fitting_windows,
    free_of_machine,
    predict,
)

LARGE = Architecture(
    layers=12,
    d_model=768,
    d_ff=3072,
    heads=12,
    d_kv=64,
    patch=16,
    quantiles=21,
    dropout=0.1,
    parameters=119_500_000,
    trained=119_500_000,
)
"""The shape of amazon/chronos-2."""

LOAD = Load(context=512, horizon=96, windows=8, rows=10, mode="full")

MEASURED = """
import json, sys
import torch
from chronos.chronos2.config import Chronos2CoreConfig
from chronos.chronos2.model import Chronos2Model
from chronotune.config.space import Hyperparameters
from chronotune.device import return_freed_memory
from chronotune.memory import Architecture, Load, predict
from chronotune.trainable import _add_adapters

case = json.loads(sys.argv[1])
context, horizon, windows, rows = case["context"], 96, case["windows"], case["rows"]
return_freed_memory()
torch.set_num_threads(1)
forecasting = dict(
    context_length=2048, input_patch_size=16, input_patch_stride=16, max_output_patches=64, output_patch_size=16,
    quantiles=[0.01, *(round(0.05 * i, 2) for i in range(1, 20)), 0.99], use_arcsinh=True, use_reg_token=True,
)
config = Chronos2CoreConfig(
    d_model=128, d_kv=32, d_ff=512, num_layers=4, num_heads=4, dropout_rate=case["dropout"], initializer_factor=0.05,
    chronos_pipeline_class="Chronos2Pipeline", chronos_config=forecasting,
)
point = Hyperparameters(
    learning_rate=1e-4, windows=1, accumulation=1, context_length=context, covariates="all", mode=case["mode"],
    lora_rank=8,
)

def kilobytes(key):
    line = next(line for line in open("/proc/self/status") if line.startswith(key))
    return int(line.split()[1])

def start():
    model = Chronos2Model(config).train()
    if point.mode == "lora":
        _add_adapters(model, point)
    trained = [p for p in model.parameters() if p.requires_grad]
    model.average = [p.detach().clone() for p in trained]
    return model, trained, torch.optim.AdamW(trained, lr=1e-4, fused=True)

def step(model, trained, optimizer, windows):
    target = torch.full((windows * rows, horizon), torch.nan)
    known = target.clone()
    target[::rows] = 1.0
    past, groups = torch.randn(windows * rows, context), torch.arange(windows).repeat_interleave(rows)
    output = model(past, group_ids=groups, future_covariates=known, future_target=target, num_output_patches=6)
    output.loss.backward()
    del output
    torch.nn.utils.clip_grad_norm_(trained, 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)

context, keep = 64, context
step(*start(), 1)  # what libraries load, they have now
context = keep
before = kilobytes("VmRSS")
model, trained, optimizer = start()
for _ in range(2):
    step(model, trained, optimizer, windows)
measured = (kilobytes("VmHWM") - before) * 1024
shape = Architecture.of(
    model.config, model.chronos_config, sum(p.numel() for p in model.parameters()), sum(p.numel() for p in trained)
)
print(predict(shape, Load(context, horizon, windows, rows, point.mode, dense=True)).peak / measured)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak of a process as Linux tells it")
@pytest.mark.parametrize(
    ("mode", "dropout", "context", "windows", "rows"),
    [
        ("full", 0.1, 512, 1, 100),  # one group: what attention inside windows needs too
        ("full", 0.1, 2048, 8, 4),
        ("full", 0.0, 512, 32, 4),
        ("lora", 0.1, 512, 16, 10),
    ],
)
def test_prediction_is_what_is_measured(mode: str, dropout: float, context: int, windows: int, rows: int) -> None:
    """Peak of two optimizer steps of a model of 1.4 million parameters, in a process of its own."""
    case = f'{{"mode": "{mode}", "dropout": {dropout}, "context": {context}, "windows": {windows}, "rows": {rows}}}'
    environment = {**os.environ, "PYTHONPATH": str(Path(chronotune.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", MEASURED, case], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    assert float(done.stdout) == pytest.approx(1, abs=ERROR)


def test_parts_of_a_need() -> None:
    """Weights, their average, gradients and AdamW's two moments in fp32; adapters have few but the first."""
    need = predict(LARGE, LOAD)
    assert (need.weights, need.gradients, need.optimizer) == (956_000_000, 478_000_000, 956_000_000)
    lora = replace(LARGE, trained=1_200_000)
    adapted = predict(lora, replace(LOAD, mode="lora"))
    assert (adapted.weights, adapted.gradients, adapted.optimizer) == (482_800_000, 4_800_000, 9_600_000)
    assert adapted.activations < need.activations
    assert need.peak == need.weights + need.optimizer + need.activations  # more than the gradients that replace them
    assert predict(LARGE, replace(LOAD, accumulated=True)).peak == need.peak + need.gradients
    one = predict(LARGE, replace(LOAD, windows=1, rows=1))
    assert one.peak == one.weights + one.optimizer + one.gradients


def test_more_of_anything_needs_more() -> None:
    """And attention over the whole batch more than attention inside windows, twice the windows then more than twice."""
    base = predict(LARGE, LOAD).activations
    changes: list[dict[str, Any]] = [
        {"context": 1024},
        {"horizon": 192},
        {"windows": 16},
        {"rows": 20},
        {"dense": True},
    ]
    for change in changes:
        assert predict(LARGE, replace(LOAD, **change)).activations > base, change
    twice = replace(LOAD, windows=16)
    assert predict(LARGE, twice).activations == 2 * base
    dense, dense_twice = (replace(load, dense=True) for load in (LOAD, twice))
    assert predict(LARGE, dense_twice).activations > 2 * predict(LARGE, dense).activations


def test_devices_keep_different_bytes() -> None:
    """A GPU keeps dropout masks as bytes and no scores of attention; bfloat16 halves what products read."""
    activations = [predict(LARGE, LOAD, numbers).activations for numbers in (CPU, GPU, GPU_BF16)]
    assert activations == sorted(activations, reverse=True)
    assert len(set(activations)) == 3
    more = predict(LARGE, LOAD, GPU_BF16).weights - predict(LARGE, LOAD, GPU).weights
    assert more == 2 * LARGE.parameters


@pytest.mark.parametrize("fits", [1, 2, 5, 7, 8])
def test_fitting_windows(fits: int) -> None:
    """The most whose need leaves room for the prediction's error; never more than wanted, never none."""
    part = replace(LOAD, windows=fits, accumulated=fits < LOAD.windows)
    room = int(predict(LARGE, part).peak * (1 + ERROR)) + 1
    assert fitting_windows(LARGE, LOAD, CPU, room) == fits
    assert fitting_windows(LARGE, LOAD, CPU, room - 2) == max(1, fits - 1)
    assert fitting_windows(LARGE, LOAD, CPU, 2**60) == 8
    assert fitting_windows(LARGE, LOAD, CPU, 0) == 1


def test_count_at() -> None:
    """The last entry at or before a step counts."""
    splits = [(2, 8), (5, 4)]
    assert [count_at(splits, step, otherwise=16) for step in (0, 1, 2, 4, 5, 9)] == [16, 16, 8, 8, 4, 4]


@pytest.mark.parametrize(
    ("limit", "used"),
    [("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")],
)
def test_a_container_has_its_own_limit(limit: str, used: str, tmp_path: Path) -> None:
    """Of either version; what only caches files counts as free, and without a limit the machine's memory counts."""
    machine = free_of_machine(tmp_path / "nothing")
    assert machine > 2**20
    (tmp_path / limit).parent.mkdir(exist_ok=True)
    (tmp_path / limit).write_text("5000\n")
    (tmp_path / used).write_text("3000\n")
    (tmp_path / used).with_name("memory.stat").write_text("anon 1\ninactive_file 700\n")
    assert free_of_machine(tmp_path) == 2700
    (tmp_path / limit).write_text("max\n")
    assert free_of_machine(tmp_path) > 2**20
