"""Our training beside that of `Chronos2Pipeline.fit`: the same model, series, batch sizes, threads and dropout."""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from chronos import Chronos2Pipeline
from chronos.chronos2.dataset import Chronos2Dataset, DatasetMode
from chronos.chronos2.model import Chronos2Model
from sidebyside import Pair, alternate
from transformers.trainer_callback import TrainerCallback

from chronotune.config.space import Hyperparameters, Mode
from chronotune.data.batches import collate, draw_windows, trainable_series
from chronotune.data.panel import Panel, Series
from chronotune.finetune import FineTuner

HORIZON = 96
RATE = 1e-5
SEED = 0


@dataclass(frozen=True)
class Shape:
    """Of the batch of one optimizer step."""

    windows: int
    rows: int
    """Of a window: its target and its covariates."""
    context: int

    def __str__(self) -> str:
        """As it stands in the JSON object."""
        return f"w{self.windows}_r{self.rows}_c{self.context}"


def tuner_of(
    model: Chronos2Model, panel: Panel, shape: Shape, steps: int, mode: Mode = "full", device: str = "cpu"
) -> FineTuner:
    """Ours, for `steps` steps on the first covariates of a panel whose whole length is for training."""
    total = steps * shape.windows
    point = Hyperparameters(
        learning_rate=RATE,
        windows=shape.windows,
        accumulation=1,
        context_length=shape.context,
        covariates="some",
        mode=mode,
        lora_rank=8 if mode == "lora" else None,
    )
    return FineTuner(
        model,
        panel,
        point,
        train_end=panel.end,
        horizon=HORIZON,
        covariates=panel.covariates[: shape.rows - 1],
        budget_windows=total,
        rungs=(total,),
        seed=SEED,
        device=device,
    )


def steps(model: Chronos2Model, panel: Panel, shape: Shape, rounds: int) -> Pair:
    """Optimizer steps in turn: one of the library's, then one of ours, in one process.

    The library's runs from the end of one step to the end of the next, its batch included; ours is a call of
    `FineTuner.advance`. The first of each is not counted, and nothing is logged or saved meanwhile.
    """
    total = rounds + 1
    turns = _Turns(tuner_of(model, panel, shape, total, device=model.device.type), shape.windows)
    with tempfile.TemporaryDirectory() as folder:
        _fit(model, panel, shape, total, Path(folder), [turns])
    return Pair.of(turns.ours[1:], turns.theirs[1:])


def end_to_end(model: Chronos2Model, panel: Panel, shape: Shape, steps: int, rounds: int) -> Pair:
    """The whole call of `fit`, against ours from construction to the written weights."""
    with tempfile.TemporaryDirectory() as folder:
        targets = (Path(folder) / f"ours-{number}" for number in range(rounds + 1))

        def ours() -> None:
            tuner = tuner_of(model, panel, shape, steps, device=model.device.type)
            tuner.advance(steps * shape.windows)
            tuner.export(next(targets))

        return alternate(ours, lambda: _fit(model, panel, shape, steps, Path(folder) / "theirs"), rounds)


def batches(model: Chronos2Model, panel: Panel, shape: Shape, rounds: int) -> Pair:
    """Making one batch of tensors, without any training."""
    chosen = panel.select(panel.covariates[: shape.rows - 1])
    candidates = trainable_series(chosen, HORIZON)
    dataset = Chronos2Dataset(
        inputs=inputs(panel, shape.rows),
        context_length=shape.context,
        prediction_length=HORIZON,
        batch_size=shape.windows * shape.rows,
        output_patch_size=model.chronos_config.output_patch_size,
        min_past=HORIZON,
        mode=DatasetMode.TRAIN,
    )
    numbers, stream = iter(range(rounds + 1)), iter(dataset)

    def ours() -> None:
        windows = draw_windows(chosen, candidates, HORIZON, seed=SEED, step=next(numbers), size=shape.windows)
        for array in vars(collate(chosen, windows, shape.context, HORIZON)).values():
            torch.from_numpy(array)

    return alternate(ours, lambda: next(stream), rounds)


def long_panel(length: int, covariates: int = 9) -> Panel:
    """One series of noise with covariates, none of them known ahead: quarter hours of ten years are 350,400 steps."""
    values = np.random.default_rng(SEED).standard_normal((1 + covariates, length), dtype=np.float32)
    names = tuple(f"c{number}" for number in range(covariates))
    series = Series("long", 0, values[0], values[1:])
    return Panel(datetime(2000, 1, 1), timedelta(minutes=15), "y", names, (), (series,), {})


def inputs(panel: Panel, rows: int) -> list[dict[str, Any]]:
    """Its series as the library takes them when they are prepared: target, past-only, known-future, as float32."""
    chosen = panel.select(panel.covariates[: rows - 1])
    return [
        {
            "context": torch.from_numpy(np.concatenate((series.target[None], series.covariates))),
            "future_covariates": torch.full((rows, HORIZON), torch.nan),
            "n_targets": 1,
            "n_covariates": rows - 1,
            "n_future_covariates": len(chosen.known_future),
        }
        for series in chosen.series
    ]


def _fit(
    model: Chronos2Model, panel: Panel, shape: Shape, steps: int, folder: Path, callbacks: list[Any] | None = None
) -> None:
    with _silent():
        Chronos2Pipeline(model).fit(
            inputs(panel, shape.rows),
            prediction_length=HORIZON,
            context_length=shape.context,
            learning_rate=RATE,
            num_steps=steps,
            batch_size=shape.windows * shape.rows,
            output_dir=folder,
            callbacks=callbacks,
            remove_printer_callback=True,
            logging_strategy="no",
            disable_tqdm=True,
        )


class _Turns(TrainerCallback):  # type: ignore[misc]  # transformers is not followed
    """After each step of the library's trainer lets ours do one, and times both."""

    def __init__(self, tuner: FineTuner, windows: int) -> None:
        self._tuner, self._windows = tuner, windows
        self.ours: list[float] = []
        self.theirs: list[float] = []

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Start the clock of the first step."""
        self._since = _now()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Stop the library's clock, do one step of ours, start the library's again."""
        end = _now()
        self._tuner.advance(self._tuner.windows_seen + self._windows)
        self.theirs.append(end - self._since)
        self._since = _now()
        self.ours.append(self._since - end)


def _now() -> float:
    """Seconds, when a GPU has done all that it was given."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


@contextmanager
def _silent() -> Iterator[None]:
    """Without the library's warnings, and without its progress bars of the files that it writes."""
    from chronotune.pretrained import quiet

    with warnings.catch_warnings(), quiet():
        warnings.simplefilter("ignore")
        yield
