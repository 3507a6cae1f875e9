"""Training steps split into what memory holds: the same step, recorded and repeated."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import chronotune
from chronotune.errors import ChronotuneError, OutOfMemoryError
from chronotune.finetune import FineTuner
from chronotune.memory import CPU, ERROR, Load, fitting_windows, predict
from engine_parts import ALL, CONTEXT, HORIZON, same, small_tuner, weights_of

ALLOCATOR = "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"

BATCH: dict[str, Any] = {"windows": 8, "budget_windows": 40, "rungs": (20, 40)}
"""Steps of 8, 8, 4, 8, 8, 4 windows."""


def failing(tuner: FineTuner, most: int, fails: Callable[[int], bool] = lambda _: True) -> list[int]:
    """Let the model run out of memory above `most` windows when `fails` says so of the call's number.

    It does so after its forward pass, when random numbers have been drawn.

    Returns:
        The windows of every call, growing.
    """
    forward, calls = tuner.model.forward, list[int]()

    def run(**tensors: Any) -> Any:
        calls.append(int(tensors["group_ids"][-1]) + 1)
        output = forward(**tensors)
        if calls[-1] > most and fails(len(calls) - 1):
            raise RuntimeError(ALLOCATOR)
        return output

    tuner.model.forward = run
    return calls


@pytest.mark.parametrize("mode", ["full", "lora"])
def test_a_failed_try_leaves_only_the_split(mode: str) -> None:
    """With dropout on, the weights equal to the last bit those of a run told to split in the same way."""
    broken = small_tuner(mode, **BATCH)
    calls = failing(broken, most=2)
    broken.advance(40)
    assert calls[:6] == [8, 4, 2, 2, 2, 2]
    assert broken.splits == [(0, 2)]
    told, whole = small_tuner(mode, **BATCH, splits=[(0, 2)]), small_tuner(mode, **BATCH)
    told.advance(40)
    whole.advance(40)
    assert same(weights_of(broken), weights_of(told))
    assert whole.splits == [(0, 8)]
    assert not same(weights_of(whole), weights_of(told))


def test_memory_that_runs_out_late() -> None:
    """In the second part of the fourth step, when gradients of the first are there: recorded from that step on."""
    broken = small_tuner(**{**BATCH, "windows": 4, "accumulation": 2})
    calls = failing(broken, most=2, fails=lambda call: call == 6)
    broken.advance(40)
    assert calls[:10] == [4, 4, 4, 4, 4, 4, 4, 2, 2, 2]
    assert broken.splits == [(0, 4), (3, 2)]
    told = small_tuner(**{**BATCH, "windows": 4, "accumulation": 2}, splits=broken.splits)
    told.advance(40)
    assert told.splits == broken.splits
    assert same(weights_of(broken), weights_of(told))


@pytest.mark.parametrize("micro", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("mode", ["full", "lora"])
def test_without_dropout_a_split_changes_nothing(mode: str, micro: int) -> None:
    """Loss and gradients of 8 windows, to 1e-5."""
    whole = small_tuner(mode, dropout=0.0, **BATCH)
    split = small_tuner(mode, dropout=0.0, **BATCH, splits=[(0, micro)])
    assert split._backward(8) == pytest.approx(whole._backward(8), rel=1e-5)
    assert split.splits == [(0, micro)]
    compared = 0
    for ours, theirs in zip(split.model.parameters(), whole.model.parameters(), strict=True):
        if theirs.grad is not None and theirs.grad.norm() > 0:
            assert ours.grad is not None
            assert (ours.grad - theirs.grad).norm() / theirs.grad.norm() < 1e-5
            compared += 1
    assert compared > 10


def test_a_split_is_saved_and_restored(tmp_path: Path) -> None:
    """A process in which memory suffices goes on with the split that was found, to the last bit."""
    broken = small_tuner(**BATCH)
    failing(broken, most=4)
    broken.advance(20)
    broken.save(tmp_path / "20")
    broken.advance(40)
    resumed = small_tuner(**BATCH)
    resumed.restore(tmp_path / "20")
    assert resumed.splits == [(0, 4)]
    resumed.advance(40)
    assert resumed.splits == broken.splits == [(0, 4)]
    assert same(weights_of(resumed), weights_of(broken))


def test_one_window_that_does_not_fit() -> None:
    """Is an error that says what to change, and the weights are those before."""
    tuner = small_tuner(**BATCH)
    before = weights_of(tuner)
    failing(tuner, most=0)
    with pytest.raises(
        OutOfMemoryError, match=r"one of 5 rows and context 64 did not .*can't allocate.*; lower"
    ) as error:
        tuner.advance(20)
    assert isinstance(error.value, ChronotuneError)
    assert same(weights_of(tuner), before)
    assert all(p.grad is None for p in tuner.model.parameters())
    assert (tuner.windows_seen, tuner.steps, tuner.splits) == (0, 0, [])


def test_other_errors_are_not_retried() -> None:
    """A fault in the code is no lack of memory."""
    tuner, calls = small_tuner(**BATCH), count()

    def forward(**_: Any) -> None:
        next(calls)
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    tuner.model.forward = forward
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        tuner.advance(20)
    assert next(calls) == 1


def test_only_what_fits_is_tried(caplog: pytest.LogCaptureFixture) -> None:
    """Where memory for 3 of 8 windows is expected, no more are computed at once; the log says why."""
    model = small_tuner(**BATCH)._trainable.architecture
    load = Load(CONTEXT, HORIZON, windows=8, rows=1 + len(ALL), mode="full")
    room = int(predict(model, replace(load, windows=3, accumulated=True)).peak * (1 + ERROR)) + 1
    tuner = small_tuner(**BATCH, available=room)
    calls = failing(tuner, most=8)
    with caplog.at_level("INFO", logger="chronotune.device"):
        tuner.advance(20)
    assert calls == [3, 3, 2, 3, 3, 2, 3, 1]
    assert tuner.splits == [(0, 3)]
    assert "at most 3 are computed at once" in caplog.text
    assert fitting_windows(model, load, CPU, available=room) == 3


def test_one_window_that_is_not_expected_to_fit(caplog: pytest.LogCaptureFixture) -> None:
    """Is told once, with both numbers, and tried: the prediction may be wrong."""
    model = small_tuner(**BATCH)._trainable.architecture
    load = Load(CONTEXT, HORIZON, windows=1, rows=1 + len(ALL), mode="full", accumulated=True)
    need = predict(model, load).peak
    tuner = small_tuner(**BATCH, available=need)
    tuner.advance(40)
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(told) == 1
    assert f"one window is expected to need {need / 1e9:.3g} GB (up to a quarter more)" in told[0]
    assert f"and {need / 1e9:.3g} GB are free" in told[0]
    assert (tuner.windows_seen, tuner.splits) == (40, [(0, 1)])


@pytest.mark.parametrize("windows", [1, 8])
@pytest.mark.parametrize("room", [0.99, 1.01])
def test_the_warning_begins_where_one_window_fits(windows: int, room: float, caplog: pytest.LogCaptureFixture) -> None:
    """Not before; and where a batch is one window, that counts."""
    model = small_tuner(**BATCH)._trainable.architecture
    one = Load(CONTEXT, HORIZON, windows=1, rows=1 + len(ALL), mode="full", accumulated=windows > 1)
    available = int(predict(model, one).peak * (1 + ERROR) * room)
    small_tuner(**{**BATCH, "windows": windows}, available=available).advance(20)
    assert ("training is tried though" in caplog.text) is (room < 1)


@pytest.mark.parametrize("mode", ["full", "lora"])
def test_no_memory_for_the_optimizer(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what helps; the weights are those before; with memory again no half of a state is left."""
    tuner, whole, zeros, calls = (*(small_tuner(mode, **BATCH, dropout=0.0) for _ in "12"), torch.zeros_like, count())
    before = weights_of(tuner)

    def zeros_like(*arguments: Any, **options: Any) -> Any:
        if next(calls) == 5:
            raise RuntimeError(ALLOCATOR)
        return zeros(*arguments, **options)

    with monkeypatch.context() as patches:
        patches.setattr(torch, "zeros_like", zeros_like)
        with pytest.raises(OutOfMemoryError, match=r"optimizer's state .*at step 0 .*can't allocate.*; use lora or a"):
            tuner.advance(20)
    assert next(calls) == 6
    assert same(weights_of(tuner), before)
    assert all(p.grad is None for p in tuner.model.parameters())
    assert (tuner.windows_seen, tuner.steps) == (0, 0)
    tuner.advance(40)
    whole.advance(40)
    assert same(weights_of(tuner), weights_of(whole))


def test_a_plan_that_does_not_fit_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """Repeating a run on a smaller machine goes on with fewer windows at once, and warns."""
    tuner = small_tuner(**BATCH, splits=[(0, 4)], available=1)
    tuner.advance(20)
    assert tuner.splits == [(0, 1)]
    assert "fewer than in the run to repeat" in caplog.text


UNDER_A_LIMIT = """
import resource, sys
import torch
from engine_parts import small_tuner
torch.set_num_threads(1)
torch.set_num_interop_threads(1)
small_tuner(context_length=16, dropout=0.0).advance(16)  # whatever libraries load and start, they have now
def size():
    return int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
tuner = small_tuner(windows=256, context_length=128, dropout=0.0, budget_windows=512, rungs=(512,), available=2**50)
if sys.argv[1] != "none":
    limit = size() + int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
print("RESULT", tuner.advance(512).loss, tuner.splits[-1][1], tuner.steps)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the size of a process as Linux tells it")
def test_under_a_limit_of_the_system() -> None:
    """The allocator really fails, steps are split, and the loss is that of an unlimited process."""

    def run(limit: str) -> tuple[float, int, int]:
        path = os.pathsep.join(map(str, [Path(__file__).parent, Path(chronotune.__file__).parents[1]]))
        command = [sys.executable, "-c", UNDER_A_LIMIT, limit]
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        )
        assert done.returncode == 0, done.stderr[-2000:]
        loss, micro, steps = done.stdout.splitlines()[-1].removeprefix("RESULT ").split()
        return float(loss), int(micro), int(steps)

    free, limited = run("none"), run(str(60 * 2**20))  # about half of what the step takes
    assert free[1:] == (256, 2)
    assert limited[1] < 256
    assert limited[2] == 2
    assert limited[0] == pytest.approx(free[0], rel=1e-5)


def test_random_numbers_rewind() -> None:
    """After a rewind the same numbers follow."""
    random = small_tuner()._random
    with random.active():
        state = random.now()
        drawn = torch.rand(3)
        random.rewind(state)
        assert np.array_equal(drawn.numpy(), torch.rand(3).numpy())
