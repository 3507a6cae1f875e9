"""Forecast with a model: an exported one is fed as it was trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl

from chronotune import forecaster
from chronotune.config.load import load_model
from chronotune.config.model import ModelPreset, Serving
from chronotune.config.recipe import DataConfig
from chronotune.data import encode
from chronotune.data.axis import find_axis, lay_out
from chronotune.data.check_times import time_findings
from chronotune.data.check_values import number_findings, numeric_view
from chronotune.data.findings import Report
from chronotune.data.panel import FloatArray, Panel, Window
from chronotune.data.rows import framed, in_order
from chronotune.data.sources import read, select
from chronotune.errors import Fault, InputError
from chronotune.metrics import QUANTILES


@dataclass(frozen=True)
class Columns:
    """What the columns of the data mean; only for a model that was not exported by chronotune."""

    time: str
    target: str
    id: str | None = None
    past_only: tuple[str, ...] = ()
    known_future: tuple[str, ...] = ()


def forecast(
    model: str | Path,
    data: pl.DataFrame | str | Path,
    horizon: int | None = None,
    *,
    columns: Columns | None = None,
    context_length: int = 2048,
) -> pl.DataFrame:
    """Forecast every series of `data` from the end of its target.

    Args:
        model: A preset's name or file. One that `export` wrote knows its columns, context length and horizon.
        data: A frame, or a CSV or Parquet file. Rows after the last target hold the known-future covariates.
        horizon: Steps to forecast; by default what an exported model was trained for.
        columns: Needed for a model that was not exported by chronotune.
        context_length: For such a model; an exported one has its own.

    Returns:
        One row a series and step: the id column (if there is one), the time column (interval start), `forecast`
        (the median), and the quantiles `0.1` to `0.9`.

    Raises:
        InputError: Columns, rows or the future of a known covariate are missing, or the times are irregular.
    """
    if not isinstance(data, pl.DataFrame | str | Path):
        raise InputError(
            f"data must be a polars frame or the path of a file, but is {type(data).__module__}.{type(data).__name__}. "
            f"From pandas: polars.from_pandas(data)"
        )
    preset = load_model(model)
    serving = preset.serving or _serving(preset, columns, horizon, context_length)
    steps, config = horizon or serving.horizon, _config(serving, data)
    frame = read(config) if isinstance(data, str | Path) else select(data, config, "data")
    panel = _panel(frame, config, serving)
    windows = [Window(number, _first_unknown(series.target)) for number, series in enumerate(panel.series)]
    if faults := list(_unknown_futures(panel, windows, steps)):
        raise InputError(faults)
    quantiles = forecaster.predict_windows(
        forecaster.load_model(preset),
        panel,
        windows,
        context_length=serving.context_length,
        horizon=steps,
        covariates=panel.covariates,
    )
    return pl.concat(_rows(panel, window, values, serving) for window, values in zip(windows, quantiles, strict=True))


def _serving(preset: ModelPreset, columns: Columns | None, horizon: int | None, context_length: int) -> Serving:
    if columns is None or horizon is None:
        raise InputError(
            f"{preset.name}: a model that was not exported by chronotune does not know its columns and horizon. "
            f"Give both: columns=Columns(time=..., target=...), horizon=..."
        )
    return Serving(
        horizon=horizon,
        context_length=min(context_length, preset.max_context_length),
        time=columns.time,
        target=columns.target,
        id=columns.id,
        past_only=list(columns.past_only),
        known_future=list(columns.known_future),
    )


def _config(serving: Serving, data: pl.DataFrame | str | Path) -> DataConfig:
    return DataConfig(
        source="file",
        path="data" if isinstance(data, pl.DataFrame) else str(data),
        time=serving.time,
        target=serving.target,
        id=serving.id,
        past_only=serving.past_only,
        known_future=serving.known_future,
        seasons=[1],
    )


def _panel(frame: pl.DataFrame, config: DataConfig, serving: Serving) -> Panel:
    """The series on one regular axis, encoded as in training."""
    rows = framed(frame, config)
    numeric = numeric_view(rows, config, serving.encodings)
    findings = (*time_findings(rows, config), *number_findings(rows, numeric, config))
    Report(config.path or "data", findings).raise_for_errors()
    rows = in_order(encode.apply(numeric, serving.encodings))
    axis = find_axis(rows, config.target)
    if axis is None:
        raise InputError(
            f"{config.path}: a forecast needs a regular past with values of {config.target}, but there is none. "
            f"Give at least two rows with a target"
        )
    return Panel(
        axis.time(0),
        timedelta(microseconds=axis.step),
        config.target,
        tuple(config.past_only),
        tuple(config.known_future),
        lay_out(rows, axis, config),
        serving.encodings,
    )


def _first_unknown(target: FloatArray) -> int:
    """Position after the last value."""
    known = np.flatnonzero(np.isfinite(target))
    return int(known[-1]) + 1 if len(known) else 0


def _unknown_futures(panel: Panel, windows: Sequence[Window], horizon: int) -> Iterator[Fault]:
    """A fault for every series without a past, and for every known covariate whose future is not all there."""
    for window in windows:
        series = panel.series[window.series]
        if window.origin == 0:
            yield Fault(series.id, panel.target, "must have at least one value, but has none", "Leave the series out")
        for row, name in enumerate(panel.known_future, start=len(panel.past_only)):
            future = series.covariates[row, window.origin : window.origin + horizon]
            values = np.pad(future, (0, horizon - len(future)), constant_values=np.nan)
            if len(missing := np.flatnonzero(np.isnan(values))):
                first, last = (panel.time(series.offset + window.origin + int(i)) for i in (missing[0], missing[-1]))
                yield Fault(
                    series.id,
                    name,
                    f"is known in advance and must cover all {horizon} steps of the forecast, but {len(missing)} "
                    f"values between {first} and {last} are missing",
                    "Add rows with it after the last target",
                )


def _rows(panel: Panel, window: Window, values: FloatArray, serving: Serving) -> pl.DataFrame:
    series = panel.series[window.series]
    begin = series.offset + window.origin
    times = [panel.time(begin + step) for step in range(values.shape[1])]
    identity = {serving.id: [series.id] * len(times)} if serving.id else {}
    quantiles = {f"{level:g}": row for level, row in zip(QUANTILES, values, strict=True)}
    return pl.DataFrame({**identity, serving.time: times, "forecast": quantiles["0.5"], **quantiles})
