"""Forecast with a model: an exported one is fed as it was trained."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from chronotune import members
from chronotune.config.load import load_model
from chronotune.config.model import ModelPreset, Serving
from chronotune.config.recipe import DataConfig
from chronotune.data.findings import listed
from chronotune.data.panel import FloatArray, Panel, Window
from chronotune.data.sources import named, place
from chronotune.data.table import CSV, PARQUET, nearest, read_table
from chronotune.data.upcoming import Feed, absent, future_faults, last_windows, strange_categories, upcoming
from chronotune.errors import Fault, InputError
from chronotune.gate import doubt, is_named, is_shipped
from chronotune.metrics import QUANTILES
from chronotune.study import read

log = logging.getLogger("chronotune.serving")

CONTEXT = 2048
"""Steps of the past that a model sees which does not say how many."""


@dataclass(frozen=True)
class Columns:
    """What the columns of the data mean; only for a model that was not exported by chronotune."""

    time: str
    target: str
    id: str | None = None
    past_only: tuple[str, ...] = ()
    known_future: tuple[str, ...] = ()


def forecast(
    model: str | Path | ModelPreset,
    data: pl.DataFrame | str | Path,
    horizon: int | None = None,
    *,
    columns: Columns | None = None,
    context_length: int | None = None,
    series: Sequence[str] = (),
    fill_gaps: bool = False,
) -> pl.DataFrame:
    """Forecast every series of `data` from the end of its target.

    Logs a warning for what is allowed but weakens a forecast: histories shorter than the context, categories that
    training did not hold, more steps than the model was tuned for, a winner that the verdict did not ship. A series
    that training did not hold is forecast like any other.

    Args:
        model: A preset, its name, file or folder, or a sweep's folder: its winner. One that chronotune tuned knows its
            columns, context length and horizon.
        data: A frame, or a CSV or Parquet file. Rows after the last target hold the known-future covariates.
        horizon: Steps to forecast; by default what an exported model was trained for.
        columns: Needed for a model that was not tuned by chronotune, and refused for another.
        context_length: Likewise; by default 2048 steps, or what the model takes at most.
        series: Ids of those to forecast; by default all.
        fill_gaps: Take missing rows as rows of missing values, which the model masks.

    Returns:
        One row a series and step: the id column (if there is one), the time column (interval start, UTC where the data
        have a time zone), `forecast` (the median), and the quantiles `0.1` to `0.9`.

    Raises:
        InputError: Columns, a wanted series, rows or the future of a known covariate are missing, or the times are
            irregular or not in the steps that the model was tuned on.
    """
    if not isinstance(data, pl.DataFrame | str | Path):
        raise InputError(
            f"data must be a polars frame or the path of a file, but is {type(data).__module__}.{type(data).__name__}. "
            f"From pandas: polars.from_pandas(data)"
        )
    preset = model if isinstance(model, ModelPreset) else load_model(winner_in(model))
    serving = _serving(preset, columns, horizon, context_length)
    steps, feed = horizon or serving.horizon, _feed(serving, data, fill_gaps)
    raw = data if isinstance(data, pl.DataFrame) else read_table(Path(data).expanduser())
    _refuse_missing(raw, feed, preset)
    panel = upcoming(raw, feed, series)
    windows = last_windows(panel)
    if faults := list(future_faults(panel, windows, steps, place(feed.columns), absent(raw, feed.columns))):
        raise InputError(faults)
    for warning in (*_unshipped(model, preset), *_doubts(preset, panel, windows, steps), *_strangers(raw, serving)):
        log.warning(warning)
    quantiles = members.predict(
        preset,
        panel,
        windows,
        context_length=serving.context_length,
        horizon=steps,
        covariates=panel.covariates,
    )
    return pl.concat(_rows(panel, window, values, serving) for window, values in zip(windows, quantiles, strict=True))


def winner_in(model: str | Path) -> str | Path:
    """The model as `load_model` takes it: a sweep's folder stands for its winner.

    Raises:
        InputError: The sweep has no winner yet.
    """
    folder = Path(model)
    if (folder / "preset.yaml").exists() or not (folder / "recipe.yaml").exists():
        return model
    if not (folder / "winner" / "preset.yaml").exists():
        raise InputError(
            f"{folder}: only a sweep with a winner is a model. Finish it with `chronotune resume {folder}`"
        )
    return folder / "winner"


def write(frame: pl.DataFrame, to: Path) -> None:
    """Write a forecast as CSV or Parquet; a file of that name is replaced, by a whole one only."""
    refuse_format(to)
    to.parent.mkdir(parents=True, exist_ok=True)
    draft = to.with_name(f".{to.name}.partial")
    if to.suffix.lower() in PARQUET:
        frame.write_parquet(draft)
    else:
        frame.write_csv(draft, separator="\t" if to.suffix.lower() == ".tsv" else ",")
    os.replace(draft, to)


def refuse_format(to: Path) -> None:
    """Do nothing when `write` can write such a file.

    Raises:
        InputError: Its name ends in something else.
    """
    if to.suffix.lower() not in CSV + PARQUET:
        rule = f"must end in {', '.join(CSV + PARQUET)}, but is {str(to)!r}"
        raise InputError([Fault("--out", "", rule, "Name a file such as forecast.parquet")])


def _serving(preset: ModelPreset, columns: Columns | None, horizon: int | None, context_length: int | None) -> Serving:
    if preset.serving is not None:
        _refuse_others(preset.name, preset.serving, columns, context_length)
        return preset.serving
    if columns is None or horizon is None:
        raise InputError(
            f"{preset.name}: a model that was not exported by chronotune does not know its columns and horizon. "
            f"Give --time, --target and --horizon (in Python columns=Columns(time=..., target=...), horizon=...)"
        )
    return Serving(
        horizon=horizon,
        context_length=min(context_length or CONTEXT, preset.max_context_length),
        time=columns.time,
        target=columns.target,
        id=columns.id,
        past_only=list(columns.past_only),
        known_future=list(columns.known_future),
    )


def _refuse_others(name: str, serving: Serving, columns: Columns | None, context_length: int | None) -> None:
    """A tuned model is fed as it was trained, or what was learnt on validation and test does not hold."""
    if columns is not None or context_length not in (None, serving.context_length):
        raise InputError(
            f"{name}: a tuned model is fed as it was trained (time {serving.time!r}, target {serving.target!r}, "
            f"context {serving.context_length}), but other columns or another context are given. Leave them out, and "
            f"rename the columns of the file where they are called otherwise"
        )


def _feed(serving: Serving, data: pl.DataFrame | str | Path, fill_gaps: bool) -> Feed:
    columns = DataConfig(
        source="file",
        path="data" if isinstance(data, pl.DataFrame) else str(data),
        time=serving.time,
        target=serving.target,
        id=serving.id,
        past_only=serving.past_only,
        known_future=serving.known_future,
        fill_gaps=fill_gaps,
        seasons=[1],
    )
    return Feed(columns, serving.encodings, serving.step)


def _refuse_missing(raw: pl.DataFrame, feed: Feed, preset: ModelPreset) -> None:
    """Name each column that the model needs of the past and the file lacks, with those that it has."""
    columns = feed.columns
    roles = [("--time", columns.time), ("--target", columns.target)]
    roles += [("--id", columns.id)] if columns.id else []
    roles += [("--past-only", name) for name in columns.past_only]
    absent = [(option, name) for option, name in roles if name not in raw.columns]
    if absent:
        raise InputError([_missing(place(columns), *one, raw.columns, preset) for one in absent])


def _missing(where: str, option: str, name: str, columns: list[str], preset: ModelPreset) -> Fault:
    """A user names the columns of an untuned model by options; those of a tuned one are what it was tuned with."""
    close = nearest(name, columns)
    if preset.serving is None:
        rule = f"names the column {name!r}, but the file has {named(columns)}"
        return Fault(where, option, rule, close or "Name one of these")
    role = option.removeprefix("--").replace("past-only", "covariate")
    rule = f"{preset.name} was tuned with {name!r} as its {role}, but the file has {named(columns)}"
    return Fault(where, name, rule, f"{close or 'Find the one that holds it.'} Rename it to {name}")


def _unshipped(model: str | Path | ModelPreset, preset: ModelPreset) -> list[str]:
    """A sweep's winner that its verdict did not ship, or was not on."""
    if isinstance(model, ModelPreset) or winner_in(model) == model:
        return []
    reading = read(Path(model))
    if not is_named(preset, reading):
        return [
            f"{model}: its winner is used, although winner/ holds other weights than the study names and its verdict "
            f"is on; finish the sweep with `chronotune resume {model}`"
        ]
    evaluation = reading.evaluation
    return [] if is_shipped(evaluation) else [f"{model}: its winner is used, although {doubt(evaluation)}"]


def _doubts(preset: ModelPreset, panel: Panel, windows: Sequence[Window], steps: int) -> list[str]:
    """What a tuned model was not tuned for."""
    if (serving := preset.serving) is None:
        return []
    doubts, context = [], serving.context_length
    if steps > serving.horizon:
        doubts.append(f"{preset.name} was tuned for {serving.horizon} steps, and {steps} are forecast")
    if short := [panel.series[w.series].id for w in windows if w.origin < context]:
        of = f" of {len(windows)}" if len(windows) > 1 else ""
        shortest = min(window.origin for window in windows)
        doubts.append(
            f"{preset.name} was tuned to see {context} steps of the past, but the history of {len(short)}{of} series "
            f"is shorter ({listed(short)}; the shortest has {shortest}): expect larger errors than in its evaluation"
        )
    return doubts


def _strangers(raw: pl.DataFrame, serving: Serving) -> list[str]:
    return [
        f"{column}: training held no {listed(categories)}; each is taken as the overall mean"
        for column, categories in strange_categories(raw, serving.encodings).items()
    ]


def _rows(panel: Panel, window: Window, values: FloatArray, serving: Serving) -> pl.DataFrame:
    series = panel.series[window.series]
    begin = series.offset + window.origin
    times = [panel.time(begin + step) for step in range(values.shape[1])]
    identity = {serving.id: [series.id] * len(times)} if serving.id else {}
    quantiles = {f"{level:g}": row for level, row in zip(QUANTILES, values, strict=True)}
    return pl.DataFrame({**identity, serving.time: times, "forecast": quantiles["0.5"], **quantiles})
