"""From a recipe to checked, encoded and split series, and to the part of them that trials may see."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from chronotune.config.model import Encoding
from chronotune.config.recipe import Recipe
from chronotune.data import encode
from chronotune.data.axis import Axis, find_axis, lay_out
from chronotune.data.check import check
from chronotune.data.findings import Finding, Report
from chronotune.data.labels import refuse_fine
from chronotune.data.panel import FloatArray, Panel, Series, Split, TrialData, Window
from chronotune.data.rows import TIME, framed, in_order
from chronotune.data.sources import read
from chronotune.data.split import split_by_time
from chronotune.data.windows import windows_at
from chronotune.metrics import seasonal_scale
from chronotune.significance import DAY, MIN_BLOCKS, overlap

FEW_ORIGINS = 12
"""Validation origins below which the noise of a rung is too large.

Four trials of the quickstart at 100 windows: two standard errors of the paired difference to the best are in the
median 1.2% on 54 origins, 1.6% on 24, 1.8% on 12, but 3.4% on 6, where even a trial 8% worse is not told from the best.
"""


@dataclass(frozen=True)
class Dataset:
    """Everything that the driver knows about the data, the test segment included."""

    panel: Panel
    split: Split
    report: Report
    fingerprint: str
    """SHA-256 (hex) of the encoded values and the time axis."""


def load(recipe: Recipe) -> Dataset:
    """Read, check, split and encode the recipe's data; the columns of `evaluation.segments` are checked too.

    Raises:
        InputError: The check found errors (all are listed), the data could not be read, or a column of
            `evaluation.segments` is not there or has too many values.
        ChronotuneError: The steel data could not be downloaded.
    """
    frame = read(recipe.data, recipe.evaluation.segments)
    refuse_fine(frame, recipe.evaluation.segments)
    dataset = prepare(frame, recipe)
    return replace(dataset, report=dataset.report.extended(_few_origins(dataset, recipe)))


def prepare(frame: pl.DataFrame, recipe: Recipe) -> Dataset:
    """Check, split and encode a frame in file order, as `sources.read` gives it.

    Raises:
        InputError: The check found errors; all are listed.
    """
    report = check(frame, recipe)
    report.raise_for_errors()
    rows = framed(frame, recipe.data)
    axis = find_axis(in_order(rows), recipe.data.target)
    assert axis is not None
    split = split_by_time(axis.length, recipe)
    encodings = _encodings(rows, axis, split, recipe)
    panel = lay_out(encode.apply(rows, encodings), axis, recipe.data, encodings)
    report = report.extended(_scale_findings(panel, split, recipe))
    report.raise_for_errors()
    return Dataset(panel, split, report, fingerprint(panel))


def _encodings(rows: pl.DataFrame, axis: Axis, split: Split, recipe: Recipe) -> dict[str, Encoding]:
    """Learnt on training rows alone, or the future would leak into the covariates."""
    columns = encode.categorical(rows, [*recipe.data.past_only, *recipe.data.known_future])
    train = rows.filter((pl.col(TIME) - axis.start) // axis.step < split.train_end)
    return encode.learn(train, recipe.data.target, columns)


def trial_data(dataset: Dataset, recipe: Recipe) -> TrialData:
    """The training and validation segments as contiguous copies: no view keeps the test segment alive."""
    split = dataset.split
    panel = _copied(dataset.panel.until(split.test_start))
    scales = training_scales(panel, split, recipe)
    validation = scored_windows(panel, split.validation_origins, scales, recipe.horizon)
    return TrialData(panel, split.train_end, validation, scales, recipe.horizon)


def with_validation(data: TrialData) -> TrialData:
    """The same for a training that takes the validation segment too, up to the test segment.

    Encodings and scales stay those of the training segment: the model is fed as the one that was verified.
    """
    return replace(data, train_end=max(series.offset + len(series) for series in data.panel.series))


def _copied(panel: Panel) -> Panel:
    """The same panel, target and covariates of each series in one new float32 matrix."""
    return Panel(
        panel.start,
        panel.step,
        panel.target,
        panel.past_only,
        panel.known_future,
        tuple(_copied_series(series) for series in panel.series),
        dict(panel.encodings),
    )


def _copied_series(series: Series) -> Series:
    matrix = np.vstack((series.target, series.covariates)).astype(np.float32)
    return Series(series.id, series.offset, matrix[0], matrix[1:])


def training_scales(panel: Panel, split: Split, recipe: Recipe) -> NDArray[np.float64]:
    """Seasonal naive MAE of each series on its training segment: the denominators of MASE and SQL.

    NaN for a series whose training segment has no two values a season or a step apart: any number in its place
    would be in other units than its errors, and decide the average over all series.
    """
    season = recipe.data.seasons[0]
    return np.array([_scale(series.target, season) for series in panel.until(split.train_end).series])


def scored_windows(
    panel: Panel, origins: Iterable[int], scales: NDArray[np.float64], horizon: int
) -> tuple[Window, ...]:
    """The validation or test windows at these origins: those of all series that have a training scale."""
    return tuple(window for window in windows_at(panel, origins, horizon) if np.isfinite(scales[window.series]))


def _scale(target: FloatArray, season: int) -> float:
    known = any(len(_differences(target, lag)) for lag in (season, 1))
    return seasonal_scale(target, season) if known else float("nan")


def _differences(target: FloatArray, lag: int) -> FloatArray:
    """Absolute differences of the values that are `lag` steps apart and both there."""
    differences = np.abs(target[lag:] - target[:-lag])
    return differences[np.isfinite(differences)]


def _scale_findings(panel: Panel, split: Split, recipe: Recipe) -> Iterator[Finding]:
    """Series that cannot be scored, or not by a seasonal scale: `metrics.seasonal_scale` then takes another."""
    data, training = recipe.data, panel.until(split.train_end).series
    season, scales = data.seasons[0], training_scales(panel, split, recipe)
    pairs = list(zip(training, scales, strict=True))
    groups = {
        _UNSCORED: [s.id for s, scale in pairs if np.isnan(scale)],
        _BY_STEP: [s.id for s, scale in pairs if not np.isnan(scale) and _scaled_by(s.target, season) == 1],
        _BY_LEVEL: [s.id for s, scale in pairs if not np.isnan(scale) and _scaled_by(s.target, season) is None],
    }
    for (rule, remedy), names in groups.items():
        if names:
            yield Finding(
                "warning", data.target, rule.format(season=season), remedy, series=tuple(names) if data.id else ()
            )
    for name, origins in {"validation": split.validation_origins, "test": split.test_origins}.items():
        if not scored_windows(panel, origins, scales, recipe.horizon):
            rule = f"must have values at a {name} origin in a series that also has some in training, but none has"
            yield Finding("error", data.target, rule, "Give a longer past, or choose another split")


def _few_origins(dataset: Dataset, recipe: Recipe) -> Iterator[Finding]:
    """Too few for a rung to tell good trials from lucky ones, or for the end to tell anything."""
    panel, split = dataset.panel, dataset.split
    if (count := len(split.validation_origins)) < FEW_ORIGINS:
        rule = f"should give {FEW_ORIGINS} validation origins or more, on fewer the best trial is often luck, but gives"
        remedy = "Raise split.validation_origins or split.validation, or lower split.stride"
        yield Finding("warning", "split", f"{rule} {count}", remedy)
    days = len({panel.time(origin).toordinal() for origin in split.test_origins})
    if days < (needed := MIN_BLOCKS * overlap(panel.step, recipe.horizon, recipe.stride)):
        unit = "days with a test origin" if panel.step < DAY else "test origins"
        rule = f"should give {needed} {unit} or more, on fewer there is no verdict, but gives"
        yield Finding("warning", "split", f"{rule} {days}", "Raise split.test, or give more data")


_UNSCORED = (
    "should have values in training, but no two are there that are a step or {season} steps apart",
    "Without a scale for its errors it is neither validated nor tested on",
)
_BY_STEP = (
    "should differ from its value {season} steps before somewhere in training, but does not",
    "MASE and SQL are scaled by its mean change from step to step instead",
)
_BY_LEVEL = (
    "should vary in training, but is constant there",
    "MASE and SQL are scaled by its mean absolute value instead, or by 1 where that is 0",
)


def _scaled_by(target: FloatArray, season: int) -> int | None:
    """The lag whose mean difference is the scale; None when all differences are 0."""
    return next((lag for lag in (season, 1) if (_differences(target, lag) > 0).any()), None)


def fingerprint(panel: Panel) -> str:
    """SHA-256 (hex) of the time axis, the names and all values as little-endian float32, NaN in one form."""
    digest = hashlib.sha256()
    head = (panel.start.isoformat(), panel.step.total_seconds(), panel.target, panel.past_only, panel.known_future)
    digest.update(repr(head).encode())
    for series in panel.series:
        digest.update(repr((series.id, series.offset, len(series))).encode())
        for values in (series.target, *series.covariates):
            digest.update(np.where(np.isnan(values), np.float32(np.nan), values).astype("<f4").tobytes())
    return digest.hexdigest()
