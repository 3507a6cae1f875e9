"""Where the time of our own training goes: inside a step, and before the first one on a worker that is used again."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import torch
from against_fit import Shape, tuner_of
from chronos.chronos2.model import Chronos2Model
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_post_hook

from chronotune.config.load import load_recipe
from chronotune.data.panel import Panel
from chronotune.data.prepare import load, trial_data
from chronotune.trial import Assignment, FineTuneTrial

STEPS = 13
"""Optimizer steps of one call of `advance`: the quickstart's 100 windows to the first rung, 8 at a time."""

POINT = {
    "learning_rate": 1e-4,
    "windows": 4,
    "accumulation": 1,
    "context_length": 96,
    "covariates": "all",
    "mode": "lora",
    "lora_rank": 8,
}
"""A small batch, so that what is before the first step counts."""


def outside_share(model: Chronos2Model, panel: Panel, shape: Shape, rounds: int) -> float:
    """Share of a step in which neither forward pass, backward pass nor optimizer runs; median over calls of `advance`.

    Drawing and copying windows, clipping gradients, waiting for the loss and freeing what a step leaves are outside.
    What the calls of the model, of `backward` and of the optimizer's `step` take is inside.
    """
    tuner = tuner_of(model, panel, shape, (rounds + 1) * STEPS, device="cpu")
    shares = []
    with _watching() as inside:
        for number in range(1, rounds + 2):
            inside.seconds = 0.0
            begin = time.perf_counter()
            tuner.advance(number * STEPS * shape.windows)
            shares.append(1 - inside.seconds / (time.perf_counter() - begin))
    assert inside.passes == 3 * STEPS * (rounds + 1), f"{inside.passes} passes were seen: what is watched has changed"
    return median(shares[1:])


class _Inside:
    """Adds up the seconds of the three parts of a step: the calls of the model, of `backward` and of `step`."""

    def __init__(self) -> None:
        self.seconds, self.passes = 0.0, 0

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, its time added up."""

        def call(*arguments: Any, **options: Any) -> Any:
            begin = time.perf_counter()
            result = function(*arguments, **options)
            self.seconds += time.perf_counter() - begin
            self.passes += 1
            return result

        return call


@contextmanager
def _watching() -> Iterator[_Inside]:
    """Time the calls of every Chronos-2 model, tensor and optimizer for the time of the block."""
    inside = _Inside()
    parts = ((Chronos2Model, "__call__"), (torch.Tensor, "backward"), (torch.optim.AdamW, "step"))
    with ExitStack() as stack:
        for owner, name in parts:
            stack.enter_context(patch.object(owner, name, inside.timed(getattr(owner, name))))
        yield inside


def reuse(preset: str, rounds: int) -> dict[str, float]:
    """Seconds from the assignment of a trial to a worker that has run one before, in its process.

    What Ray does to bring the assignment there is not in it. Medians.

    Returns:
        `before_first_step`, until the model is given its first batch, and `seconds`, until the optimizer has made its
        first step.
    """
    recipe = load_recipe("quickstart", [f"model={preset}"])
    with tempfile.TemporaryDirectory() as folder:
        assignment = Assignment(recipe, trial_data(load(recipe), recipe), Path(folder))
        trainable = FineTuneTrial.__new__(FineTuneTrial)  # Ray's constructor would ask where it runs
        trainable.setup({"number": 0, "hyperparameters": POINT}, assignment=assignment)
        _first_step(trainable.step)
        times = [_assigned(trainable, number) for number in range(1, rounds + 1)]
    return {"before_first_step": median(t[0] for t in times), "seconds": median(t[1] for t in times)}


def _assigned(trainable: FineTuneTrial, number: int) -> tuple[float, float]:
    begin = time.perf_counter()
    trainable.reset_config({"number": number, "hyperparameters": POINT})
    first_batch, first_step = _first_step(trainable.step)
    return first_batch - begin, first_step - begin


class _FirstStepDone(BaseException):
    """Ends a trial in the middle: no `Exception`, for a worker would make a result of it."""


def _first_step(run: Callable[[], Any]) -> tuple[float, float]:
    """When the first batch reached the model, and when the first optimizer step was done; then `run` is left."""
    batches: list[float] = []

    def note(module: torch.nn.Module, _: Any) -> None:
        if isinstance(module, Chronos2Model):
            batches.append(time.perf_counter())

    def leave(*_: Any) -> None:
        raise _FirstStepDone

    handles = (register_module_forward_pre_hook(note), register_optimizer_step_post_hook(leave))
    try:
        result = run()
    except _FirstStepDone:
        return batches[0], time.perf_counter()
    finally:
        for handle in handles:
            handle.remove()
    raise AssertionError(f"the trial must take a step, but it gave {result}")
