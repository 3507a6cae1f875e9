"""From a file to the series that a forecast goes on from: checked, on one axis, encoded as the model was trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import numpy as np
import polars as pl

from chronotune.catalog import nearest
from chronotune.config.model import Encoding
from chronotune.config.recipe import DataConfig
from chronotune.data import encode
from chronotune.data.axis import Axis, commonest_step, find_axis, lay_out
from chronotune.data.check_times import time_findings
from chronotune.data.check_values import number_findings, numeric_view
from chronotune.data.findings import Finding, Report, listed
from chronotune.data.panel import FloatArray, Panel, Window
from chronotune.data.rows import SERIES, duration, framed, in_order
from chronotune.data.sources import place, select
from chronotune.errors import Fault, InputError

FILL = "give --fill-gaps (fill_gaps=True in Python)"


@dataclass(frozen=True)
class Feed:
    """How a model wants its data."""

    columns: DataConfig
    encodings: Mapping[str, Encoding] = field(default_factory=dict)
    step: timedelta | None = None
    """Distance of the steps that it was tuned on; None: any."""


def upcoming(raw: pl.DataFrame, feed: Feed, only: Sequence[str] = ()) -> Panel:
    """The series of a table, rows in file order, on one regular axis; those behind the last target are kept.

    A known-future column that the table lacks is there without values: what is missing of it, `future_faults` tells.

    Args:
        raw: As `table.read_table` gives it, or a frame with at least the feed's columns.
        feed: What its columns mean.
        only: Ids of the series to take; by default all.

    Raises:
        InputError: A column, a wanted series or a step is missing, times are irregular or not those of the model, or
            values are no numbers; all at once.
    """
    data = feed.columns
    frame = select(_with_absent(raw, data), data, place(data))
    rows = _wanted(framed(frame, data), data, only)
    numeric = numeric_view(rows, data, feed.encodings)
    findings = (
        *_other_step(in_order(rows), feed),
        *time_findings(rows, data, FILL),
        *number_findings(rows, numeric, data),
    )
    Report(place(data), findings).raise_for_errors()
    ordered = in_order(encode.apply(_as_text(numeric, feed.encodings), feed.encodings))
    return lay_out(ordered, _axis(ordered, data), data, feed.encodings)


def _with_absent(raw: pl.DataFrame, data: DataConfig) -> pl.DataFrame:
    return raw.with_columns(pl.lit(None, pl.Float64).alias(name) for name in absent(raw, data))


def absent(raw: pl.DataFrame, data: DataConfig) -> list[str]:
    """The known-future columns that a table lacks."""
    return [name for name in data.known_future if name not in raw.columns]


def _as_text(rows: pl.DataFrame, encodings: Mapping[str, Encoding]) -> pl.DataFrame:
    """Columns of categories without any value, which look like numbers, are text too."""
    empty = [name for name in encodings if rows[name].null_count() == rows.height]
    return rows.with_columns(pl.col(empty).cast(pl.String))


def _wanted(rows: pl.DataFrame, data: DataConfig, only: Sequence[str]) -> pl.DataFrame:
    if not only:
        return rows
    if data.id is None:
        rule = (
            f"tells series of a panel apart by the model's id column, but it has none, and {listed(only)} is asked for"
        )
        raise InputError([Fault("--series", "", rule, "Leave it out, or name the column with --id")])
    known = rows[SERIES].drop_nulls().unique(maintain_order=True).to_list()
    if strange := [name for name in only if name not in known]:
        close = nearest(strange[0], known)
        remedy = f"Did you mean {' or '.join(close)}?" if close else f"There are {listed(known)}"
        rule = f"must name series of the file, but column {data.id} has no {', '.join(map(repr, strange))}"
        raise InputError([Fault(place(data), "--series", rule, remedy)])
    return rows.filter(pl.col(SERIES).is_in(list(only)))


def _other_step(ordered: pl.DataFrame, feed: Feed) -> Iterator[Finding]:
    step = commonest_step(ordered)
    if step is None or feed.step is None or (found := timedelta(microseconds=step)) == feed.step:
        return
    rule = f"must advance by {duration(feed.step)}, the step that the model was tuned on, but it does by"
    remedy = f"Resample the file to {duration(feed.step)}, or tune a model on steps of {duration(found)}"
    yield Finding("error", feed.columns.time, f"{rule} {duration(found)}", remedy)


def _axis(ordered: pl.DataFrame, data: DataConfig) -> Axis:
    axis = find_axis(ordered, data.target)
    if axis is None:
        raise InputError(
            f"{place(data)}: a forecast needs a regular past with values of {data.target}, but there is none. "
            f"Give at least two rows with a target"
        )
    return axis


def last_windows(panel: Panel) -> list[Window]:
    """For each series the window that begins behind its last target."""
    return [Window(number, _first_unknown(series.target)) for number, series in enumerate(panel.series)]


def _first_unknown(target: FloatArray) -> int:
    known = np.flatnonzero(np.isfinite(target))
    return int(known[-1]) + 1 if len(known) else 0


def future_faults(
    panel: Panel, windows: Sequence[Window], horizon: int, where: str, lacking: Sequence[str] = ()
) -> Iterator[Fault]:
    """A fault for every series without a past, and for every known covariate whose future is not all there.

    Args:
        panel: As `upcoming` makes it.
        windows: Those of its series.
        horizon: Steps to forecast.
        where: The file, for columns that it does not have at all.
        lacking: Those columns: each is told once, with the time that all series need of it.
    """
    times = [panel.time(panel.series[w.series].offset + w.origin + end) for w in windows for end in (0, horizon - 1)]
    for name in lacking:
        rule = f"is known in advance and must cover the forecast from {min(times)} to {max(times)}, but there is no"
        yield Fault(where, name, f"{rule} such column", "Add it, with rows for that time behind the last target")
    for window in windows:
        series = panel.series[window.series]
        if window.origin == 0:
            yield Fault(series.id, panel.target, "must have at least one value, but has none", "Leave the series out")
        for row, name in enumerate(panel.known_future, start=len(panel.past_only)):
            future = series.covariates[row, window.origin : window.origin + horizon]
            values = np.pad(future, (0, horizon - len(future)), constant_values=np.nan)
            if name not in lacking and len(missing := np.flatnonzero(np.isnan(values))):
                first, last = (panel.time(series.offset + window.origin + int(i)) for i in (missing[0], missing[-1]))
                rule = (
                    f"is known in advance and must cover all {horizon} steps of the forecast, but {len(missing)} "
                    f"values between {first} and {last} are missing"
                )
                yield Fault(series.id, name, rule, "Add rows with it after the last target")


def strange_categories(raw: pl.DataFrame, encodings: Mapping[str, Encoding]) -> dict[str, list[str]]:
    """By column, the categories of a table that training did not hold: each counts as the overall mean."""
    values = {name: raw[name].drop_nulls().cast(pl.String).unique().sort() for name in encodings if name in raw.columns}
    found = {name: [v for v in column if v.strip() not in encodings[name].values] for name, column in values.items()}
    return {name: categories for name, categories in found.items() if categories}
