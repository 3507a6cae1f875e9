"""From a recipe to checked, encoded and split series, and to the part of them that trials may see."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from chronotune.config.model import Encoding
from chronotune.config.recipe import Recipe
from chronotune.data import encode
from chronotune.data.axis import Axis, find_axis, lay_out
from chronotune.data.check import check
from chronotune.data.describe import describe
from chronotune.data.findings import Finding, Report
from chronotune.data.panel import FloatArray, Panel, Series, Split, Window
from chronotune.data.rows import TIME, framed, in_order
from chronotune.data.sources import read
from chronotune.data.split import split_by_time
from chronotune.data.windows import windows_at
from chronotune.metrics import seasonal_scale

__all__ = ["Dataset", "TrialData", "describe", "fingerprint", "load", "prepare", "training_scales", "trial_data"]


@dataclass(frozen=True)
class Dataset:
    """Everything that the driver knows about the data, the test segment included."""

    panel: Panel
    split: Split
    report: Report
    fingerprint: str
    """SHA-256 (hex) of the encoded values and the time axis."""


@dataclass(frozen=True)
class TrialData:
    """What a trial receives: nothing of the test segment is in it, nor was used to make it."""

    panel: Panel
    """Ends where the test segment begins."""
    train_end: int
    """Position on the panel's time axis before which all training targets lie."""
    validation: tuple[Window, ...]
    scales: NDArray[np.float64]
    """For each series the seasonal naive MAE on its training segment, in original units, above 0."""
    horizon: int


def load(recipe: Recipe) -> Dataset:
    """Read, check, split and encode the recipe's data.

    Raises:
        InputError: The check found errors (all are listed), or the data could not be read.
        ChronotuneError: The steel data could not be downloaded.
    """
    return prepare(read(recipe.data), recipe)


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
    panel = _panel(encode.apply(rows, encodings), axis, encodings, recipe)
    report = report.extended(_unscaled(panel, split, recipe))
    return Dataset(panel, split, report, fingerprint(panel))


def _encodings(rows: pl.DataFrame, axis: Axis, split: Split, recipe: Recipe) -> dict[str, Encoding]:
    """Learnt on training rows alone, or the future would leak into the covariates."""
    columns = encode.categorical(rows, [*recipe.data.past_only, *recipe.data.known_future])
    train = rows.filter((pl.col(TIME) - axis.start) // axis.step < split.train_end)
    return encode.learn(train, recipe.data.target, columns)


def _panel(rows: pl.DataFrame, axis: Axis, encodings: Mapping[str, Encoding], recipe: Recipe) -> Panel:
    data = recipe.data
    return Panel(
        axis.time(0),
        timedelta(microseconds=axis.step),
        data.target,
        tuple(data.past_only),
        tuple(data.known_future),
        lay_out(rows, axis, data),
        encodings,
    )


def trial_data(dataset: Dataset, recipe: Recipe) -> TrialData:
    """The training and validation segments as contiguous copies: no view keeps the test segment alive."""
    split = dataset.split
    panel = _copied(dataset.panel.until(split.test_start))
    validation = windows_at(panel, split.validation_origins, recipe.horizon)
    return TrialData(panel, split.train_end, validation, training_scales(panel, split, recipe), recipe.horizon)


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
    """Seasonal naive MAE of each series on its training segment: the denominators of MASE and SQL."""
    season = recipe.data.seasons[0]
    return np.array([seasonal_scale(series.target, season) for series in panel.until(split.train_end).series])


def _unscaled(panel: Panel, split: Split, recipe: Recipe) -> Iterator[Finding]:
    """Series whose scale cannot be a seasonal one: `metrics.seasonal_scale` then takes another."""
    season, training = recipe.data.seasons[0], panel.until(split.train_end).series
    if names := tuple(series.id for series in training if not _has_seasonal_error(series.target, season)):
        rule = f"should differ from its value {season} steps before somewhere in training, but does not"
        remedy = "MASE and SQL are scaled by its mean change from step to step instead"
        yield Finding("warning", recipe.data.target, rule, remedy, series=names if recipe.data.id else ())


def _has_seasonal_error(target: FloatArray, season: int) -> bool:
    return bool((np.abs(target[season:] - target[:-season]) > 0).any())


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
