"""The check: warnings, panels, and what the bad-data table does not show."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from data_parts import PLANT, hourly, recipe_of, replaced

from chronotune.data.check import check
from chronotune.data.findings import Report
from chronotune.errors import InputError

ALL = {**PLANT, "past_only": ["wind"], "known_future": ["hour", "shift"]}


def report_of(frame: pl.DataFrame, data: dict[str, Any] = ALL, **changes: Any) -> Report:
    """The report on a frame."""
    return check(frame, recipe_of(data, **changes))


def panel_of(frame: pl.DataFrame, *names: str) -> pl.DataFrame:
    """The frame once for each name, one below the other, the name in column `site`."""
    return pl.concat([frame.with_columns(pl.lit(name).alias("site")) for name in names])


def test_good_data_have_no_findings() -> None:
    """Neither errors nor warnings, so nothing is raised."""
    report = report_of(hourly())
    assert report.findings == ()
    report.raise_for_errors()


def test_missing_values_are_warnings() -> None:
    """A few missing targets or past-only values do not stop a sweep."""
    frame = replaced(replaced(hourly(), "load", {5: None, 9: None}), "wind", {7: None})
    report = report_of(frame)
    assert report.errors == ()
    assert report.lines("warning") == [
        "plant.csv rows 5, 9: load: should be present, but 2 rows are missing. They are neither learnt nor scored",
        "plant.csv row 7: wind: should be present, but 1 row is missing. The model masks them",
    ]


def test_rows_of_the_known_future_need_no_target() -> None:
    """Rows behind the last target are there for their known covariates; their past-only values are unknown too."""
    future = dict.fromkeys(range(457, 481))
    frame = replaced(replaced(hourly(), "load", future), "wind", future)
    assert report_of(frame).findings == ()


def test_fill_gaps_makes_gaps_a_warning() -> None:
    """The rows that will be inserted are counted."""
    frame = pl.concat([hourly()[:50], hourly()[53:]])
    assert report_of(frame).errors
    report = report_of(frame, {**ALL, "fill_gaps": True})
    assert report.errors == ()
    assert report.lines("warning") == [
        "plant.csv row 51: time: must advance by 1 hour, but 3 steps are missing before this row. "
        "Rows of missing values are inserted"
    ]


def test_constant_covariate() -> None:
    """It tells the model nothing, which is worth a warning."""
    report = report_of(hourly().with_columns(wind=pl.lit(1.0), shift=pl.lit("day")))
    assert [finding.column for finding in report.warnings] == ["wind", "shift"]


def test_rare_categories() -> None:
    """A text column with a value of its own in every row is no category."""
    report = report_of(hourly().with_columns(shift="n" + pl.int_range(pl.len()).cast(pl.String)))
    assert [finding.rule for finding in report.findings] == [
        "categories should have 10 rows each, but 480 of them share 480 rows"
    ]


def test_leak_is_judged_on_training_rows() -> None:
    """A known covariate that equals the target is suspect; one that does so only later is not looked at."""
    frame = hourly()
    leaking = frame.with_columns(hour=pl.col("load") * 2 + 1)
    assert [finding.column for finding in report_of(leaking).errors] == ["hour"]
    later = frame.with_columns(hour=pl.when(pl.int_range(pl.len()) < 312).then("wind").otherwise("load"))
    assert report_of(later).findings == ()


def test_long_contexts_and_seasons_are_warnings() -> None:
    """What exceeds training is told before the search wonders why long contexts do not help."""
    report = report_of(hourly(), {**ALL, "seasons": [24, 400]}, context=1000)
    assert [finding.column for finding in report.warnings] == ["search_space.context_length", "data.seasons"]


def test_panel_findings_name_series_and_file_rows() -> None:
    """Rules hold within each series; rows are those of the file."""
    frame = replaced(panel_of(hourly(), "a", "b", "c"), "load", {482: None, 970: float("inf")})
    frame = pl.concat([frame[:1000], frame[1001:]])
    data = {**ALL, "id": "site"}
    report = report_of(frame, data)
    assert [(f.level, f.column, f.rows, f.series) for f in report.findings] == [
        ("error", "time", (1001,), ("c",)),
        ("error", "load", (970,), ("c",)),
        ("warning", "load", (482,), ("b",)),
    ]
    with pytest.raises(InputError) as caught:
        report.raise_for_errors()
    assert len(caught.value.faults) == 2
    assert "(series c)" in str(caught.value)


def test_interleaved_panel_is_in_order() -> None:
    """A file sorted by time and then by series is as good as one series after the other."""
    frame = panel_of(hourly(), "a", "b").sort("time", "site")
    assert report_of(frame, {**ALL, "id": "site"}).findings == ()


def test_series_on_another_phase() -> None:
    """All series share one grid of times."""
    late = hourly().with_columns(pl.col("time").dt.offset_by("5m"))
    frame = pl.concat([panel_of(hourly(), "a", "b"), panel_of(late, "c")])
    report = report_of(frame, {**ALL, "id": "site"})
    assert [(f.column, len(f.rows), f.series) for f in report.errors] == [("time", 480, ("c",))]


def test_short_and_constant_series_of_a_panel() -> None:
    """Single ones are warnings; a panel of nothing but short ones is an error."""
    short = hourly()[300:400]
    flat = hourly().with_columns(load=pl.lit(3.0))
    data = {**ALL, "id": "site"}
    frame = pl.concat([panel_of(hourly(), "a"), panel_of(short, "b"), panel_of(flat, "c")])
    warnings = report_of(frame, data).warnings
    assert [(f.column, f.series) for f in warnings] == [("load", ("c",)), ("site", ("b",))]
    week = [hourly()[start : start + 47] for start in range(0, 470, 47)]
    many = pl.concat([panel_of(part, f"s{number}") for number, part in enumerate(week)])
    errors = report_of(many, data).errors
    assert [(f.column, len(f.series)) for f in errors] == [("site", 10)]


def test_empty_ids() -> None:
    """A row without a series belongs nowhere."""
    frame = replaced(panel_of(hourly(), "a", "b"), "site", {480: None})
    assert report_of(frame, {**ALL, "id": "site"}).errors[0].rows == (480,)


def test_one_row_is_no_series() -> None:
    """Without two times there is no step; without a target there is nothing to say about time."""
    assert [f.rule for f in report_of(hourly()[:1]).errors] == [
        "a series must have two different times, but none has",
        "must vary, but it is always " + f"{hourly()['load'][0]:g}",
    ]
    empty = hourly().with_columns(load=pl.lit(None, pl.Float64))
    assert [f.column for f in report_of(empty).errors] == ["load"]
