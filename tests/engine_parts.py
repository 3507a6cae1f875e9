"""A random Chronos-2 of 2 small layers and a small panel: what the tests of the engine work on."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from chronotune.config.space import Hyperparameters
from chronotune.data.panel import Panel, Series, Window
from chronotune.metrics import QUANTILES

if TYPE_CHECKING:
    from chronos.chronos2.model import Chronos2Model

    from chronotune.finetune import FineTuner

HORIZON, CONTEXT, TRAIN_END = 20, 64, 260
PAST_ONLY, KNOWN = ("load", "heat"), ("hour", "holiday")
ALL = PAST_ONLY + KNOWN


def small_model(dropout: float = 0.1, seed: int = 7, **forecasting: Any) -> Chronos2Model:
    """A random model, the same for the same seed, in the format of amazon/chronos-2."""
    import torch
    from chronos.chronos2.config import Chronos2CoreConfig
    from chronos.chronos2.model import Chronos2Model

    chronos_config = {
        "context_length": 128,
        "input_patch_size": 16,
        "input_patch_stride": 16,
        "max_output_patches": 4,
        "output_patch_size": 16,
        "quantiles": [0.01, *(round(0.05 * i, 2) for i in range(1, 20)), 0.99],
        "time_encoding_scale": 128,
        "use_arcsinh": True,
        "use_reg_token": True,
        **forecasting,
    }
    config = Chronos2CoreConfig(
        d_model=32,
        d_kv=16,
        d_ff=64,
        num_layers=2,
        num_heads=2,
        dropout_rate=dropout,
        initializer_factor=0.25,
        chronos_pipeline_class="Chronos2Pipeline",
        chronos_config=chronos_config,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Chronos2Model(config).eval()


def small_panel() -> Panel:
    """Three series of different length and start, one with missing values, all with four covariates."""
    random = np.random.default_rng(3)
    series = []
    for number, (offset, steps) in enumerate([(0, 400), (100, 300), (230, 170)]):
        hour = np.arange(offset, offset + steps) % 24
        covariates = random.normal(size=(4, steps))
        covariates[2] = hour
        covariates[3] = hour > 18
        target = 10 * number + np.sin(hour / 24 * 2 * np.pi) * 5 + covariates[0] + random.normal(size=steps)
        if number == 1:
            target[random.choice(steps, 40, replace=False)] = np.nan
        series.append(Series(f"s{number}", offset, target.astype(np.float32), covariates.astype(np.float32)))
    return Panel(datetime(2024, 1, 1), timedelta(hours=1), "y", PAST_ONLY, KNOWN, tuple(series), {})


def by_the_library(
    model: Any,
    panel: Panel,
    windows: Sequence[Window],
    context_length: int,
    horizon: int,
    covariates: Sequence[str],
    **options: Any,
) -> np.ndarray[Any, Any]:
    """`Chronos2Pipeline.predict_quantiles` of whole histories, in order, shape (windows, 9, horizon)."""
    import torch
    from chronos import Chronos2Pipeline
    from chronos.utils import interpolate_quantiles

    tasks = []
    for window in windows:
        series, origin = panel.series[window.series], window.origin
        rows = {name: series.covariates[panel.covariates.index(name)] for name in covariates}
        task: dict[str, Any] = {"target": series.target[:origin]}
        if rows:
            task["past_covariates"] = {name: row[:origin] for name, row in rows.items()}
        if known := {name: row[origin : origin + horizon] for name, row in rows.items() if name in panel.known_future}:
            beyond = (0, max(0, origin + horizon - len(series)))
            task["future_covariates"] = {n: np.pad(row, beyond, constant_values=np.nan) for n, row in known.items()}
        tasks.append(task)
    pipeline = Chronos2Pipeline(model)
    levels = pipeline.quantiles
    quantiles, _ = pipeline.predict_quantiles(
        tasks, prediction_length=horizon, quantile_levels=levels, context_length=context_length, **options
    )
    ordered = torch.stack([q[0].sort(dim=-1).values for q in quantiles])
    return np.asarray(interpolate_quantiles(list(QUANTILES), levels, ordered).mT.numpy())


WINDOWS = (Window(0, 300), Window(1, 180), Window(2, 33), Window(0, 17), Window(1, 5), Window(0, 380))
"""Full and short histories, some with missing values."""


def small_tuner(mode: str = "full", accumulation: int = 1, dropout: float = 0.1, **changes: Any) -> FineTuner:
    """A tuner of 3 x `accumulation` windows a step, rungs 5 and 16 of 16; `changes` go to either of its two parts."""
    from chronotune.finetune import FineTuner

    point: dict[str, Any] = {
        "learning_rate": 1e-3,
        "windows": 3,
        "accumulation": accumulation,
        "context_length": CONTEXT,
        "covariates": "all",
        "mode": mode,
        "lora_rank": 4 if mode == "lora" else None,
    }
    settings: dict[str, Any] = {
        "train_end": TRAIN_END,
        "horizon": HORIZON,
        "covariates": ALL,
        "budget_windows": 16,
        "rungs": (5, 16),
        "seed": 11,
        "device": "cpu",
        "splits": (),
        "available": None,
    }
    point |= {key: value for key, value in changes.items() if key in point and key != "covariates"}
    settings |= {key: value for key, value in changes.items() if key in settings}
    panel = changes.get("panel", small_panel())
    model = changes.get("model") or small_model(dropout, changes.get("model_seed", 7))
    return FineTuner(model, panel, Hyperparameters(**point), **settings)


def weights_of(tuner: FineTuner) -> dict[str, np.ndarray[Any, Any]]:
    """A copy of all weights of the model in training."""
    return {name: tensor.detach().numpy().copy() for name, tensor in tuner.model.state_dict().items()}


def same(one: dict[str, np.ndarray[Any, Any]], other: dict[str, np.ndarray[Any, Any]]) -> bool:
    """Whether two sets of weights are equal to the last bit."""
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)
