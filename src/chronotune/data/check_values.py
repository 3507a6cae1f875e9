"""The part of the check that looks at values: text in numbers, infinities, missing values, constants."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import polars as pl

from chronotune.config.recipe import DataConfig
from chronotune.data.findings import Finding
from chronotune.data.rows import SERIES, counted, found
from chronotune.data.table import MISSING

NUMERIC_SHARE = 0.5
"""A covariate of which at least this share of cells looks like numbers is meant to be numeric, not categorical."""
NUMBER_LIKE = r"^[-+]?\d[\d.,' ]*%?$"
"""Also what a person would call a number: 1,5 or 1'000 or 12%."""
MAX_MISSING = 0.5
"""Share of a series' target beyond which it is no series any more."""
MIN_CATEGORY_ROWS = 10
MAX_FINITE = 3.4e38
"""The model computes in single precision."""


def numeric_view(rows: pl.DataFrame, data: DataConfig, categorical: Collection[str] | None = None) -> pl.DataFrame:
    """The rows with every column that is meant to be numeric as Float64; cells of text in it become null.

    Args:
        rows: A framed table.
        data: Names the target and the covariates.
        categorical: The covariates that are not meant to be; None: those that mostly do not look it.
    """
    text = [name for name in _used(data) if rows[name].dtype == pl.String]
    if categorical is None:
        categorical = [name for name in text if not _looks_numeric(rows[name])]
    numbers = [name for name in text if name == data.target or name not in categorical]
    return rows.with_columns(pl.col(numbers).cast(pl.Float64, strict=False).fill_nan(None))


def value_findings(rows: pl.DataFrame, numeric: pl.DataFrame, data: DataConfig) -> Iterator[Finding]:
    """All findings about the values of a framed table, given also its `numeric_view`."""
    yield from number_findings(rows, numeric, data)
    yield from _missing_target(rows, numeric, data)
    for name in data.known_future:
        yield from _missing_known(rows, name)
    for name in data.past_only:
        yield from _missing_past(_until_last_target(rows, data), name)
    yield from _constant_target(numeric, data)
    for name in data.past_only + data.known_future:
        yield from _constant_covariate(numeric, name)
        yield from _rare_categories(numeric, name)


def number_findings(rows: pl.DataFrame, numeric: pl.DataFrame, data: DataConfig) -> Iterator[Finding]:
    """Cells of text where numbers are due, and infinite numbers: what no model can be given."""
    for name in _used(data):
        yield from _text(rows, numeric, name)
        yield from _infinite(numeric, name)


def _used(data: DataConfig) -> list[str]:
    return [data.target, *data.past_only, *data.known_future]


def _looks_numeric(text: pl.Series) -> bool:
    cells = text.drop_nulls()
    alike = cells.str.contains(NUMBER_LIKE) | cells.cast(pl.Float64, strict=False).is_not_null()
    return len(cells) > 0 and bool(alike.mean() >= NUMERIC_SHARE)  # type: ignore[operator]  # of booleans: a float


def _absent(rows: pl.DataFrame, name: str) -> pl.Expr:
    """Empty, or a marker for it in a column of text."""
    column = pl.col(name)
    return column.is_null() | column.is_in(MISSING) if rows[name].dtype == pl.String else column.is_null()


def _text(rows: pl.DataFrame, numeric: pl.DataFrame, name: str) -> Iterator[Finding]:
    if rows[name].dtype != pl.String or numeric[name].dtype == pl.String:
        return
    if (bad := rows.filter(~_absent(rows, name) & numeric[name].is_null())).height:
        example = bad[name][0]
        remedy = "Write numbers as 1234.5" if example[:1].isdigit() else "Correct the cells; leave missing ones empty"
        yield found("error", name, f"must be numbers, but {counted(bad)} not, the first {example!r}", bad, remedy)


def _infinite(numeric: pl.DataFrame, name: str) -> Iterator[Finding]:
    if numeric[name].dtype != pl.String and (bad := numeric.filter(pl.col(name).abs() > MAX_FINITE)).height:
        yield found("error", name, f"must be finite, but {counted(bad)} infinite", bad, "Leave missing values empty")


def _missing_target(rows: pl.DataFrame, numeric: pl.DataFrame, data: DataConfig) -> Iterator[Finding]:
    """An error for the series that are mostly missing, a warning for the others."""
    within = _until_last_target(rows, data)
    flags = within.with_columns(_absent(rows, data.target).alias("__absent"))
    flags = flags.with_columns(pl.col("__absent").mean().over(SERIES).alias("__share")).filter("__absent")
    mostly, partly = flags.filter(pl.col("__share") > MAX_MISSING), flags.filter(pl.col("__share") <= MAX_MISSING)
    if mostly.height:
        worst = mostly.select(pl.col("__share").max()).item()
        rule = f"must be present in at least half of a series' rows, but {worst:.0%} are missing"
        yield found("error", data.target, rule, mostly, "Cut the file to where values are, or leave the series out")
    if partly.height:
        rule = f"should be present, but {counted(partly)} missing"
        yield found("warning", data.target, rule, partly, "They are neither learnt nor scored")


def _until_last_target(rows: pl.DataFrame, data: DataConfig) -> pl.DataFrame:
    """Without the rows behind each series' last target: those are there for the known future."""
    present = ~_absent(rows, data.target)
    until = present.cum_max(reverse=True).over(SERIES) | ~present.any().over(SERIES)
    return rows.filter(until)


def _missing_known(rows: pl.DataFrame, name: str) -> Iterator[Finding]:
    if (bad := rows.filter(_absent(rows, name))).height:
        rule = f"must be present in every row, being known in advance, but {counted(bad)} missing"
        yield found("error", name, rule, bad, "Fill it, or move it to data.past_only")


def _missing_past(rows: pl.DataFrame, name: str) -> Iterator[Finding]:
    if (bad := rows.filter(_absent(rows, name))).height:
        yield found("warning", name, f"should be present, but {counted(bad)} missing", bad, "The model masks them")


def _constant_target(numeric: pl.DataFrame, data: DataConfig) -> Iterator[Finding]:
    """An error when no series varies, a warning for single ones of a panel."""
    alike = pl.col(data.target).drop_nulls().n_unique().over(SERIES) <= 1
    bad = numeric.drop_nulls(SERIES).filter(alike & pl.col(data.target).is_not_null())
    names = tuple(name for name in bad[SERIES].unique(maintain_order=True) if name)
    if not bad.height:
        return
    if bad[SERIES].n_unique() == numeric[SERIES].drop_nulls().n_unique():
        rule = f"must vary, but it is always {bad[data.target][0]:g}"
        yield Finding("error", data.target, rule, "Name another target")
    else:
        rule = "should vary, but it is constant"
        yield Finding("warning", data.target, rule, "Leave these series out", (), names)


def _constant_covariate(numeric: pl.DataFrame, name: str) -> Iterator[Finding]:
    distinct = numeric.group_by(SERIES).agg(pl.col(name).drop_nulls().n_unique().alias("distinct"))
    if (distinct["distinct"] <= 1).all():
        yield Finding("warning", name, "should vary, but it is constant in every series", "Leave it out of the recipe")


def _rare_categories(numeric: pl.DataFrame, name: str) -> Iterator[Finding]:
    if numeric[name].dtype != pl.String:
        return
    distinct, rows = numeric[name].n_unique(), numeric[name].count()
    if rows < MIN_CATEGORY_ROWS * distinct:
        rule = f"categories should have {MIN_CATEGORY_ROWS} rows each, but {distinct:,} of them share {rows:,} rows"
        yield Finding("warning", name, rule, "Group them, or leave the column out of the recipe")
