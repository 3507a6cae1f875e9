"""Series on one regular time axis."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import polars as pl
from data_parts import PLANT, hourly

from chronotune.config.recipe import DataConfig
from chronotune.data.axis import Axis, find_axis, lay_out
from chronotune.data.rows import duration, framed, in_order

DATA = DataConfig.model_validate({**PLANT, "past_only": ["wind"]})
PANEL = DataConfig.model_validate({**PLANT, "past_only": ["wind"], "id": "site"})


def test_axis_of_one_series() -> None:
    """Start, step and length; positions become times."""
    axis = find_axis(in_order(framed(hourly(2), DATA)), "load")
    assert axis is not None
    assert (axis.time(0), axis.time(25), axis.length) == (datetime(2024, 1, 1), datetime(2024, 1, 2, 1), 48)


def test_axis_ends_with_the_last_target() -> None:
    """Rows that only hold known covariates come after it."""
    frame = hourly(2).with_columns(load=pl.when(pl.int_range(pl.len()) < 40).then("load"))
    axis = find_axis(in_order(framed(frame, DATA)), "load")
    assert axis is not None
    assert axis.length == 40


def test_no_axis() -> None:
    """One row has no step, and no target no end."""
    assert find_axis(in_order(framed(hourly()[:1], DATA)), "load") is None
    empty = hourly().with_columns(load=pl.lit(None, pl.Float64))
    assert find_axis(in_order(framed(empty, DATA)), "load") is None


def test_series_are_laid_out_with_gaps_as_missing() -> None:
    """File order of the series, offsets on the common axis, NaN where a step is missing; one matrix each."""
    frame = hourly(2)
    late = pl.concat([frame[10:12], frame[15:20]]).with_columns(site=pl.lit("late"))
    rows = framed(pl.concat([late, frame.with_columns(site=pl.lit("all"))]), PANEL)
    axis = find_axis(in_order(rows), "load")
    assert axis is not None
    first, second = lay_out(rows, axis, PANEL, {}).series
    assert [(s.id, s.offset, len(s)) for s in (first, second)] == [("late", 10, 10), ("all", 0, 48)]
    assert np.isnan(first.target).tolist() == [False] * 2 + [True] * 3 + [False] * 5
    np.testing.assert_array_equal(first.covariates[0, 5:], frame["wind"].to_numpy()[15:20].astype(np.float32))
    assert first.target.dtype == np.float32
    assert first.target.base is first.covariates.base


def test_times_are_exact() -> None:
    """A third of a second over a century is no trouble for whole microseconds."""
    axis = Axis(0, 333_333, 10**10)
    assert axis.time(9_467_095_143) == datetime(1970, 1, 1) + timedelta(microseconds=333_333 * 9_467_095_143)


def test_durations() -> None:
    """Written in the largest unit that fits."""
    spelt = [duration(timedelta(minutes=m)) for m in (15, 60, 90, 1440, 10080)]
    assert spelt == ["15 minutes", "1 hour", "90 minutes", "1 day", "7 days"]
    assert duration(timedelta(milliseconds=500)) == "0:00:00.500000"
