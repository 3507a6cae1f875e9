"""Where series come from: the steel data, the embedded solar data, any CSV or Parquet file."""

from __future__ import annotations

import importlib.resources
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from chronotune.catalog import display
from chronotune.config.recipe import DataConfig
from chronotune.data import steel
from chronotune.data.table import nearest, numbers_where_possible, read_table, stripped
from chronotune.data.times import parse_times
from chronotune.errors import Fault, InputError


def read(config: DataConfig, segments: Sequence[str] = ()) -> pl.DataFrame:
    """The columns that the recipe names, rows in file order.

    Args:
        config: Where the data is, and the roles of its columns.
        segments: Columns to read beside those that have a role: `evaluation.segments` of the recipe.

    Returns:
        The time column as Datetime (interval start, UTC when the file has a zone), the id column as String;
        target and covariates as Float64 with null for missing, or as String where a cell is no number.

    Raises:
        InputError: The file or a column is missing, or a column cannot be read as what it is declared to be.
        ChronotuneError: The steel data could not be downloaded.
    """
    where = place(config)
    match config.source:
        case "steel":
            raw = _steel(config, where)
        case "solar":
            raw = solar()
        case "file":
            raw = read_table(_path(config))
    return select(raw, config, where, segments)


def place(config: DataConfig) -> str:
    """What messages about the data point at: the path, from this directory if inside, or the source's name."""
    return display(Path(config.path).expanduser()) if config.path else config.source


def solar() -> pl.DataFrame:
    """The embedded solar data, 8,760 hours; see solar.txt beside it for where it comes from."""
    with importlib.resources.as_file(importlib.resources.files(__package__) / "solar.parquet") as path:
        return pl.read_parquet(path)


def _path(config: DataConfig) -> Path:
    assert config.path is not None
    return Path(config.path).expanduser()


def _steel(config: DataConfig, where: str) -> pl.DataFrame:
    untrusted = [column for column in config.known_future if column not in config.trust_known_future]
    if early := [column for column in untrusted if column in steel.MEASURED]:
        rule = f"{', '.join(early)} must not be known in advance: measured with the target, it gives the target away"
        raise InputError([Fault(where, "data.known_future", rule, "Move it to data.past_only")])
    raw = read_table(_path(config) if config.path else steel.cached())
    if faults := _missing(raw, {"date": "date", "Day_of_week": "Day_of_week"}, where):
        raise InputError(faults)
    return steel.repair_midnights(raw, where)


def select(raw: pl.DataFrame, config: DataConfig, where: str, segments: Sequence[str] = ()) -> pl.DataFrame:
    """The declared columns of a table in their final types, as `read` gives them.

    Raises:
        InputError: Columns are missing or hold something else; all faults at once, pointing at `where`.
    """
    declared = {**_declared(config), **{f"evaluation.segments[{n}]": name for n, name in enumerate(segments)}}
    faults = _missing(raw, declared, where)
    columns: list[pl.Series] = []
    for name in dict.fromkeys(declared.values()):
        if name in raw.columns:
            try:
                columns.append(_typed(raw[name], config, where))
            except InputError as error:
                faults.extend(error.faults)
    if faults:
        raise InputError(faults)
    return pl.DataFrame(columns)


def _declared(config: DataConfig) -> dict[str, str]:
    """Recipe key -> column, for every column that the recipe names."""
    covariates = {
        f"data.{role}[{number}]": name
        for role in ("past_only", "known_future")
        for number, name in enumerate(getattr(config, role))
    }
    identity = {"data.id": config.id} if config.id else {}
    return {"data.time": config.time, **identity, "data.target": config.target, **covariates}


def _missing(raw: pl.DataFrame, declared: dict[str, str], where: str) -> list[Fault]:
    return [
        Fault(
            where,
            key,
            f"the file must have the column {name!r}, but it has {named(raw.columns)}",
            nearest(name, raw.columns) or "Name one of these",
        )
        for key, name in declared.items()
        if name not in raw.columns
    ]


def named(columns: Sequence[str]) -> str:
    """The first dozen of a file's columns, and how many there are beyond."""
    return ", ".join(columns[:12]) + (f" and {len(columns) - 12} more" if len(columns) > 12 else "")


def _typed(column: pl.Series, config: DataConfig, where: str) -> pl.Series:
    if column.name == config.time:
        return parse_times(column, where)
    if column.dtype.is_nested() or column.dtype.is_temporal() or column.dtype == pl.Binary:
        rule = f"must hold numbers, text or true/false, but it holds {column.dtype}"
        raise InputError([Fault(where, column.name, rule, "Convert it, or leave it out of the recipe")])
    if column.name == config.id:
        return stripped(column.cast(pl.String))
    return numbers_where_possible(column)
