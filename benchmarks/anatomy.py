"""Where the time of our own training goes: inside a step, and before the first one on a worker that is used again."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import torch
from against_fit import Shape, tuner_of
from chronos.chronos2.model import Chronos2Model
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from chronotune.config.load import load_recipe
from chronotune.data.panel import Panel
from chronotune.data.prepare import load, trial_data
from chronotune.finetune import FineTuner
from chronotune.trial import Assignment, FineTuneTrial

STEPS = 4
"""Optimizer steps of one call of `advance`, as between two rungs."""

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

    Drawing and copying windows, clipping gradients and waiting for the loss are outside. The backward pass is timed
    from the gradient of the loss to that of the last parameter.
    """
    tuner = tuner_of(model, panel, shape, (rounds + 1) * STEPS, device="cpu")
    shares = []
    with _watching(tuner) as inside:
        for number in range(1, rounds + 2):
            inside.seconds = 0.0
            begin = time.perf_counter()
            tuner.advance(number * STEPS * shape.windows)
            shares.append(1 - inside.seconds / (time.perf_counter() - begin))
    assert inside.passes == 3 * STEPS * (rounds + 1), f"{inside.passes} passes were seen: what is watched has changed"
    return median(shares[1:])


class _Inside:
    """Adds up the seconds of the three parts of a step."""

    def __init__(self) -> None:
        self.seconds, self.passes = 0.0, 0
        self._begin = self._last = 0.0

    def begin(self, *_: Any) -> None:
        """Of a part."""
        self._begin = time.perf_counter()

    def end(self, *_: Any) -> None:
        """Of a part."""
        self.seconds += time.perf_counter() - self._begin
        self.passes += 1

    def forward_end(self, _: Any, __: Any, output: Any) -> None:
        """Wait for the backward pass, which begins with the gradient of the loss."""
        self.end()
        output.loss.register_hook(self.begin)

    def gradient(self, *_: Any) -> None:
        """Of one parameter: the backward pass has come so far."""
        self._last = time.perf_counter()

    def optimizer_begin(self, *_: Any) -> None:
        """The backward pass was over at its last gradient."""
        self.seconds += self._last - self._begin
        self.passes += 1
        self.begin()


@contextmanager
def _watching(tuner: FineTuner) -> Iterator[_Inside]:
    """Hooks on this tuner's model and on optimizers, for the time of the block."""
    inside = _Inside()
    model: torch.nn.Module = tuner.model
    handles = [
        model.register_forward_pre_hook(inside.begin),
        model.register_forward_hook(inside.forward_end),
        register_optimizer_step_pre_hook(inside.optimizer_begin),
        register_optimizer_step_post_hook(inside.end),
        *(p.register_post_accumulate_grad_hook(inside.gradient) for p in model.parameters() if p.requires_grad),
    ]
    with ExitStack() as stack:
        for handle in handles:
            stack.callback(handle.remove)
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
