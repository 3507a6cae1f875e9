"""Fine-tune a Chronos-2 model in slices of a budget counted in windows."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chronotune import checkpoint, memory
from chronotune import device as devices
from chronotune.attention import inside_windows
from chronotune.config.space import Hyperparameters
from chronotune.data.batches import check_context, collate, draw_windows, step_size, trainable_series
from chronotune.data.panel import Panel, Window
from chronotune.ema import Ema
from chronotune.errors import ChronotuneError, OutOfMemoryError, StorageError
from chronotune.pretrained import quiet
from chronotune.trainable import OwnRandomness, Trainable, fingerprint, has_bf16

if TYPE_CHECKING:
    from chronos.chronos2.model import Chronos2Model
    from torch import Tensor
    from torch.optim import AdamW

log = logging.getLogger("chronotune.finetune")

_MAX_GRADIENT_NORM = 1.0
_STATE = "weights", "optimizer", "random"
"""What only training on needs: the weights without averaging, moments, random numbers."""


class NonFiniteLossError(ChronotuneError):
    """Training diverged; the model has what it had before the step that did."""


@dataclass(frozen=True)
class Progress:
    """Where a training run stands after `FineTuner.advance`."""

    windows_seen: int
    """Since the start of training."""
    steps: int
    """Optimizer steps since the start of training."""
    loss: float
    """Mean training loss over the windows of this call; NaN when there were none.

    Not comparable between configurations: it is in units of each context's own spread, and an average over covariate
    rows too.
    """
    learning_rate: float
    """Of the last step."""
    seconds: float
    """Wall time of this call."""


class FineTuner:
    """One training run: a copy of the base model, its optimizer and its own random numbers.

    However `advance` is sliced, whatever is forecast in between, and across `save` and `restore` in another process,
    the result is the same: to the last bit on a CPU with the same kernels and number of threads. Optimizer, loss and
    clipping are those of `Chronos2Pipeline.fit`; the learning rate falls linearly from its peak to 0 over
    `budget_windows`, also when training ends earlier. What is forecast with, saved and exported are the weights'
    moving average (`ema.py`), which at the end of the schedule is the weights.

    What the hyperparameters say is the effective batch; how many windows of it are computed at once is at most their
    `windows`, at most what is expected to fit into memory, and half of it whenever memory runs out after all. With
    dropout 0 that changes nothing; with dropout it changes which numbers are dropped, so it is part of the run.

    Attributes:
        model: The model in training; between calls it is in evaluation mode and has the averaged weights.
            `forecaster.predict_windows` takes it.
        windows_seen: Training windows since the start.
        steps: Optimizer steps since the start.
        device: Where it trains.
        splits: How many windows were computed at once, and from which step on: saved, restored, and repeated by a run
            that is given it.
    """

    def __init__(
        self,
        model: Chronos2Model,
        panel: Panel,
        hyperparameters: Hyperparameters,
        *,
        train_end: int,
        horizon: int,
        covariates: Sequence[str],
        budget_windows: int,
        rungs: Sequence[int],
        seed: int,
        device: str | None = None,
        splits: memory.Splits = (),
        available: int | None = None,
    ) -> None:
        """Copy the model and set up training; nothing is trained yet.

        Args:
            model: The base model in fp32; it is copied, never changed.
            panel: Only what lies before `train_end` is read.
            hyperparameters: One point of the search space.
            train_end: Position on the time axis where training contexts and targets end.
            horizon: Steps to forecast.
            covariates: Names of the columns behind `hyperparameters.covariates`.
            budget_windows: Length of the learning-rate schedule.
            rungs: Windows seen that are reached exactly, ascending; training ends at the last, at most the budget.
            seed: Of windows, dropout and the first values of adapters.
            device: Where to train, in torch's words; None for the first visible GPU, else the CPU.
            splits: Of a run to repeat.
            available: Bytes that training may take, its copy of the model included; None: what the device has left.

        Raises:
            ChronotuneError: The context is longer than the model takes, no series is long enough to train on, or
                LoRA is asked for without a rank or without `peft` installed.
        """
        import torch

        _check_plan(rungs, budget_windows)
        check_context(hyperparameters.context_length, model.chronos_config.context_length)
        self._hyperparameters, self._horizon, self._seed = hyperparameters, horizon, seed
        self._budget, self._rungs = budget_windows, tuple(rungs)
        self.windows_seen = self.steps = 0
        self._panel = panel.until(train_end).select(covariates)
        self._candidates = trainable_series(self._panel, horizon)
        self._settings = {
            **hyperparameters.model_dump(),
            "seed": seed,
            "budget_windows": budget_windows,
            "horizon": horizon,
            "train_end": train_end,
            "columns": list(self._panel.covariates),
            "base_model": fingerprint(model),
        }
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._available = devices.available(self.device) if available is None else available
        self._planned, self.splits = tuple(splits), list[tuple[int, int]]()
        self._fitting: int | None = None
        self._random = OwnRandomness(seed, self.device)
        with self._random.active():
            self._trainable = Trainable(model, hyperparameters, horizon, self.device)
        self.model = self._trainable.model
        self._ema = Ema(self._trainable.parameters)
        self._optimizer: AdamW = torch.optim.AdamW(
            self._trainable.parameters.values(), lr=hyperparameters.learning_rate, weight_decay=0.0, fused=True
        )

    def advance(self, to_windows: int, stop: Callable[[], bool] = lambda: False) -> Progress:
        """Train in whole optimizer steps until at least `to_windows` windows have been seen.

        Every rung is the end of a step and so reached exactly; any other number is passed by less than a step. When
        it has been reached already, nothing is done. Before each step `stop` is asked; true: the rest is left.

        Raises:
            NonFiniteLossError: The loss or its gradient became NaN or infinite.
            OutOfMemoryError: A single window does not fit into memory.
        """
        assert to_windows <= self._rungs[-1], f"training ends at {self._rungs[-1]} windows, not at {to_windows}"
        begin, before, total = time.perf_counter(), self.windows_seen, 0.0
        with self._ema.training(self.model), self._random.active():
            while self.windows_seen < to_windows and not stop():
                size, loss = self._step()
                total += size * loss
        mean = total / (self.windows_seen - before) if self.windows_seen > before else math.nan
        rate = self._optimizer.param_groups[0]["lr"]
        return Progress(self.windows_seen, self.steps, mean, rate, time.perf_counter() - begin)

    def _step(self) -> tuple[int, float]:
        """One optimizer step: its windows and their mean loss."""
        optimizer = self._optimizer
        for group in optimizer.param_groups:
            group["lr"] = self._hyperparameters.learning_rate * self._rate_left
        size = step_size(self.windows_seen, self._hyperparameters.effective_batch, self._rungs)
        loss = self._backward(size)
        self._update()
        optimizer.zero_grad(set_to_none=True)
        self.windows_seen += size
        self.steps += 1
        self._ema.add(self.steps, self._rate_left)
        return size, loss

    @property
    def _rate_left(self) -> float:
        """The next step's learning rate as a share of its peak."""
        return 1 - self.windows_seen / self._budget

    def _update(self) -> None:
        """Apply the gradients. The first time that allocates the optimizer's state, which no split makes smaller."""
        optimizer, first = self._optimizer, not self._optimizer.state
        try:
            optimizer.step()
            return
        except (RuntimeError, MemoryError) as error:
            if not devices.is_out_of_memory(error):
                raise
            reason = devices.reason(error)
        if first:  # some of it may be there: with that the next call would fail in another way
            optimizer.state.clear()
        optimizer.zero_grad(set_to_none=True)
        devices.release()
        need = 2 * sum(p.numel() * p.element_size() for p in self._trainable.parameters.values())
        raise OutOfMemoryError(
            f"weights, their average, gradients and the optimizer's state ({need / 1e9:.3g} GB) must fit into memory, "
            f"but at step {self.steps} they did not ({reason}); "
            "use lora or a smaller model, or run fewer trials at a time"
        )

    def _backward(self, size: int) -> float:
        """Gradients, clipped, of the mean loss over this step's windows; and that loss.

        When memory runs out, the step begins again as if nothing had happened, with half as many windows at once.
        """
        windows = draw_windows(
            self._panel, self._candidates, self._horizon, seed=self._seed, step=self.steps, size=size
        )
        random = self._random.now()
        while True:
            micro = self._windows_at_once()
            try:
                loss = self._accumulate(windows, micro)
                break
            except (RuntimeError, MemoryError) as error:
                if not devices.is_out_of_memory(error):
                    raise
                reason = devices.reason(error)
            # outside of `except`: until there, the traceback keeps the tensors of the failed try
            self._make_smaller(min(micro, size), reason)
            self._random.rewind(random)
        self._note_split(micro)
        return loss

    def _note_split(self, micro: int) -> None:
        """Record how this step was split, where that is news."""
        if memory.count_at(self.splits, self.steps) == micro:
            return
        self.splits.append((self.steps, micro))
        if micro < memory.count_at(self._planned, self.steps):
            log.warning("from step %d on: %d windows at once, fewer than in the run to repeat", self.steps, micro)

    def _windows_at_once(self) -> int:
        """As planned or searched, but not more than before in this run, and not more than fit."""
        if self._fitting is None:
            self._fitting = self._predict_fitting()
        planned = memory.count_at(self._planned, self.steps, self._hyperparameters.windows)
        before = memory.count_at(self.splits, self.steps, planned)
        return min(planned, before, self._fitting, self._hyperparameters.windows)

    def _predict_fitting(self) -> int:
        """The most windows that are expected to fit."""
        point = self._hyperparameters
        load = memory.Load(
            context=point.context_length,
            horizon=self._horizon,
            windows=point.windows,
            rows=1 + len(self._panel.covariates),
            mode=point.mode,
            accumulated=point.accumulation > 1,
        )
        numbers = devices.numbers(self.device, has_bf16(self.device))
        return devices.fitting_windows(self.device, self._trainable.architecture, load, numbers, self._available)

    def _make_smaller(self, failed: int, reason: str) -> None:
        """Drop the gradients of a failed try, give its memory back, and allow half as many windows from now on."""
        self._optimizer.zero_grad(set_to_none=True)
        devices.release()
        if failed == 1:
            raise OutOfMemoryError(
                f"a training step must fit at least one window into memory, but at step {self.steps} one of "
                f"{1 + len(self._panel.covariates)} rows and context {self._hyperparameters.context_length} did not "
                f"({reason}); lower context_length, use fewer covariates or lora, or run fewer trials at a time"
            )
        if self.device.type == "cpu":
            devices.return_freed_memory()
        self._fitting = failed // 2
        log.warning(
            "step %d: no memory for %d windows at once (%s); tried with %d", self.steps, failed, reason, self._fitting
        )

    def _accumulate(self, windows: Sequence[Window], micro: int) -> float:
        """Gradients and loss as in `_backward`, of at most `micro` windows at once."""
        import torch

        losses, size = [], len(windows)
        for start in range(0, size, micro):
            part = windows[start : start + micro]
            loss = self._loss(part) * (len(part) / size)
            loss.backward()
            losses.append(loss.detach())
        norm = torch.nn.utils.clip_grad_norm_(self._trainable.parameters.values(), _MAX_GRADIENT_NORM)
        total, length = torch.stack([torch.stack(losses).sum(), norm]).tolist()  # the step's one wait for a GPU
        self._check_finite(total, length)
        return float(total)

    def _loss(self, windows: Sequence[Window]) -> Tensor:
        """The library's training loss of some windows; in bfloat16 where the device has it."""
        import torch

        batch = collate(self._panel, windows, self._hyperparameters.context_length, self._horizon)
        tensors = {name: torch.from_numpy(array).to(self.device) for name, array in vars(batch).items()}
        rows, patches = 1 + len(self._panel.covariates), self._trainable.output_patches
        with (
            torch.autocast(self.device.type, torch.bfloat16, enabled=has_bf16(self.device)),
            inside_windows(self.model, rows=rows, patches=patches),
        ):
            loss: Tensor = self.model(**tensors, num_output_patches=patches).loss
        return loss

    def _check_finite(self, loss: float, norm: float) -> None:
        if not (math.isfinite(loss) and math.isfinite(norm)):
            rate = self._optimizer.param_groups[0]["lr"]
            raise NonFiniteLossError(
                f"training must stay finite, but at step {self.steps} the loss was {loss:.4g} and the norm of its "
                f"gradient {norm:.4g}; the learning rate {rate:.3g} may be too high, or the data have extreme values"
            )

    def save(self, folder: Path, notes: Callable[[], Mapping[str, Any]] = dict) -> None:
        """Write all that `restore` needs; the folder appears complete or not at all.

        Another thread may call it while this one forecasts with `model`.

        Args:
            folder: A checkpoint that is already there is replaced.
            notes: Gives the caller's own, what JSON can hold, for `restore` to give back; called last.

        Raises:
            ChronotuneError: It cannot be written.
        """
        state = {"weights": self._ema.held, "optimizer": self._optimizer.state_dict(), "random": self._random.state}
        meta = {
            "windows_seen": self.windows_seen,
            "steps": self.steps,
            "rungs": list(self._rungs),
            "splits": self.splits,
            "settings": self._settings,
        }
        checkpoint.write(folder, checkpoint.Checkpoint(self._trainable.parameters, state, meta), notes)

    def restore(self, folder: Path, *, to_train: bool = True) -> dict[str, Any]:
        """Go on from a checkpoint of a run with the same arguments; only rungs not yet reached may differ.

        Args:
            folder: As `save` wrote it.
            to_train: False when only the weights are wanted, which is all that a checkpoint without the optimizer's
                state gives; the tuner is then not fit to train.

        Returns:
            The notes that were saved with it.

        Raises:
            ChronotuneError: The checkpoint is missing, damaged, or of a run with other settings. The tuner is then
                no longer fit for use, unless the fault is one of these settings.
        """
        optimizer, saved = self._optimizer, checkpoint.read(folder)
        meta = saved.meta
        try:
            seen, steps, notes = meta["windows_seen"], meta["steps"], dict(meta["notes"])
            splits = [(int(step), int(windows)) for step, windows in meta["splits"]]
            theirs = _identity(meta["settings"], meta["rungs"], seen)
            checkpoint.check_same(folder, theirs, _identity(self._settings, self._rungs, seen))
            if to_train and not saved.state:
                raise ValueError("it holds weights only, since its trial has ended")
            state = {key: saved.state[key] for key in _STATE} if to_train else {}
            self._trainable.load(saved.weights)
            if state:
                self._ema.load(state["weights"])
                optimizer.load_state_dict(state["optimizer"])
                self._random.load(state["random"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ChronotuneError(f"checkpoint {folder} does not fit this training run: {error}") from error
        self.windows_seen, self.steps, self.splits = seen, steps, splits
        return notes

    def export(self, folder: Path) -> None:
        """Write plain weights that `Chronos2Pipeline.from_pretrained` loads: adapters merged, config up to date.

        Raises:
            StorageError: `folder` cannot be written.
            ChronotuneError: It exists and is not empty.
        """
        if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
            raise ChronotuneError(f"an export must not overwrite {folder}; choose another name or delete it")
        try:
            with checkpoint.appearing(folder) as partial, quiet():
                self._trainable.merged().save_pretrained(partial)
        except checkpoint.disk_errors() as error:
            raise StorageError(f"cannot write {folder}: {error}; check rights and free space") from error


def _check_plan(rungs: Sequence[int], budget: int) -> None:
    assert list(rungs) == sorted(set(rungs)), f"rungs must ascend, but are {rungs}"
    assert rungs[0] > 0, rungs
    assert rungs[-1] <= budget, f"rungs must end within the schedule of {budget} windows, but are {rungs}"


def _identity(settings: dict[str, Any], rungs: Sequence[int], windows_seen: int) -> dict[str, Any]:
    """What must be equal for a checkpoint to be continued: later rungs have not shaped it."""
    return {**settings, "rungs so far": [rung for rung in rungs if rung <= windows_seen]}
