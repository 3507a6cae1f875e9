"""The check before use: every rule that the series must keep, in one report with row numbers and remedies."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from chronotune.config.recipe import Recipe
from chronotune.config.space import extremes
from chronotune.data.axis import Axis, find_axis
from chronotune.data.check_times import time_findings
from chronotune.data.check_values import numeric_view, value_findings
from chronotune.data.findings import Finding, Report
from chronotune.data.leaks import leak_findings
from chronotune.data.panel import Split
from chronotune.data.rows import SERIES, TIME, framed, in_order
from chronotune.data.sources import place
from chronotune.data.split import split_by_time
from chronotune.errors import InputError


def check(frame: pl.DataFrame, recipe: Recipe) -> Report:
    """Check a frame in file order, as `sources.read` gives it, against the recipe.

    Times: present, ascending in each series, no duplicates, one step, no gaps. Values: numbers where numbers are
    due, finite, present, not constant. Length: enough for the split, the horizon, the seasons and the contexts.
    """
    rows = framed(frame, recipe.data)
    numeric = numeric_view(rows, recipe.data)
    times = Report(place(recipe.data), tuple(time_findings(rows, recipe.data)))
    report = times.extended(value_findings(rows, numeric, recipe.data))
    # what is said about segments would mislead when the axis itself is wrong
    return report if times.errors else report.extended(_segment_findings(in_order(numeric), recipe))


def _segment_findings(ordered: pl.DataFrame, recipe: Recipe) -> Iterator[Finding]:
    """What can be said once the time axis is known and cut."""
    axis = find_axis(ordered, recipe.data.target)
    if axis is None:
        return
    try:
        split = split_by_time(axis.length, recipe)
    except InputError as error:
        yield from (Finding("error", fault.key, fault.rule, fault.remedy) for fault in error.faults)
        return
    positions = (ordered[TIME] - axis.start) // axis.step
    yield from _empty_segments(ordered, positions, axis, split, recipe.data.target)
    yield from leak_findings(ordered.filter(positions < split.train_end), recipe.data)
    yield from _short_series(ordered, positions < split.train_end, recipe)
    yield from _beyond_training(split, recipe)


def _empty_segments(
    ordered: pl.DataFrame, positions: pl.Series, axis: Axis, split: Split, target: str
) -> Iterator[Finding]:
    known = positions.filter(ordered[target].is_not_null())
    segments = {
        "training": (0, split.train_end),
        "validation": (split.train_end, split.test_start),
        "test": (split.test_start, split.end),
    }
    for name, (begin, end) in segments.items():
        if not known.is_between(begin, end, closed="left").any():
            span = f"{axis.time(begin)} to {axis.time(end)}"
            rule = f"must have values in the {name} segment, but all from {span} are missing"
            yield Finding("error", target, rule, "Cut the file there, or choose another split")


def _short_series(ordered: pl.DataFrame, in_training: pl.Series, recipe: Recipe) -> Iterator[Finding]:
    """Series of a panel that are too short to train on, or absent there; one alone is the split's concern."""
    least = 2 * recipe.horizon
    flagged = ordered.select(SERIES, in_training.alias("__train"))
    steps = flagged.group_by(SERIES, maintain_order=True).agg(pl.col("__train").sum())
    short = tuple(steps.filter(pl.col("__train") < least)[SERIES])
    if recipe.data.id and short:
        rule = f"should have {least} steps before validation, twice the horizon, but {len(short):,} series have fewer"
        alone = len(short) == steps.height
        remedy = "Forecast a shorter horizon, or give more data" if alone else "They are not trained on"
        yield Finding("error" if alone else "warning", recipe.data.id, rule, remedy, series=short)


def _beyond_training(split: Split, recipe: Recipe) -> Iterator[Finding]:
    longest = max(extremes(recipe.search_space.context_length))
    if longest > split.train_end:
        rule = f"contexts should fit into training, but {longest:,} > {split.train_end:,} steps"
        yield Finding("warning", "search_space.context_length", rule, "Longer ones see all there is, no more")
    if too_long := [season for season in recipe.data.seasons[1:] if season > split.train_end]:
        rule = f"seasons should fit into training, but {too_long} exceed {split.train_end:,} steps"
        yield Finding("warning", "data.seasons", rule, "Leave them out")
