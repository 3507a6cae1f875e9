"""Covariates that cannot have been known: refused by what the training data say, not by their names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from data_parts import PLANT, SOLAR, STEEL, hourly, recipe_of
from pydantic import ValidationError

from chronotune.config.recipe import DataConfig
from chronotune.data.check import check
from chronotune.data.check_values import numeric_view
from chronotune.data.findings import Report
from chronotune.data.leaks import evidence, judges
from chronotune.data.rows import framed, in_order
from chronotune.data.sources import read
from chronotune.data.steel import MEASURED
from chronotune.errors import InputError


def judged(data: dict[str, Any], columns: list[str], share: float = 0.65) -> dict[str, str]:
    """How suspect each column is as a known future, on the first part of a source's rows."""
    config = recipe_of({**data, "past_only": [], "known_future": columns, "trust_known_future": columns}).data
    rows = in_order(numeric_view(framed(read(config), config), config))
    train = rows.head(int(rows.height * share))
    return {name: found.suspicion for name in columns if (found := evidence(judges(train), name, config))}


@pytest.mark.parametrize("share", [0.3, 0.65])
def test_what_is_measured_with_the_steel_plant_s_use_is_told(steel_csv: Path, share: float) -> None:
    """CO2, both reactive powers and both power factors each give it away; the calendar does not."""
    calendar = ["NSM", "WeekStatus", "Day_of_week"]
    found = judged({**STEEL, "path": str(steel_csv)}, [*MEASURED, *calendar], share)
    assert found == {**dict.fromkeys(MEASURED, "strong"), **dict.fromkeys(calendar, "none")}


def test_load_type_gets_a_warning(steel_csv: Path) -> None:
    """It looks labelled after the fact, but does not give the target away; nothing is refused."""
    report = report_of_steel(steel_csv, known_future=["NSM", "Load_Type"])
    assert report.errors == ()
    assert [finding.column for finding in report.warnings] == ["Load_Type"]
    assert "labelled afterwards" in report.warnings[0].remedy


def report_of_steel(path: Path, **roles: Any) -> Report:
    """The check of the steel data as a file of a user's own, whose names say nothing."""
    data = DataConfig(**{**STEEL, "path": str(path), "trust_known_future": [], "past_only": [], **roles})
    return check(read(data), recipe_of(data.model_dump()))


def test_the_steel_data_refuse_their_measurements(steel_csv: Path) -> None:
    """By the check when their source is not asked, and by the source; until they are trusted, which stays a warning."""
    known = {**STEEL, "path": str(steel_csv), "past_only": [], "known_future": ["CO2(tCO2)"]}
    with pytest.raises(InputError, match="must not be known in advance"):
        read(recipe_of(known).data)
    trusted = recipe_of({**known, "trust_known_future": ["CO2(tCO2)"]})
    frame = read(trusted.data)
    assert [f.rule[:38] for f in check(frame, trusted).warnings] == ["is trusted to be known in advance, but"]
    assert check(frame, trusted).errors == ()
    untrusted = trusted.model_copy(update={"data": trusted.data.model_copy(update={"trust_known_future": []})})
    [error] = check(frame, untrusted).errors
    assert error.column == "CO2(tCO2)"
    assert "tells 88% of what the calendar and the target's past leave open" in error.rule
    assert "data.trust_known_future" in error.remedy


def test_astronomy_may_explain_what_it_likes() -> None:
    """Irradiance above the atmosphere is known; humidity and clouds are measured, temperature is suspect."""
    assert judged(SOLAR, ["etr", "humidity", "cloud_cover", "temperature", "wind_speed"]) == {
        "etr": "none",
        "humidity": "strong",
        "cloud_cover": "strong",
        "temperature": "some",
        "wind_speed": "none",
    }


def plant(extra: Callable[[pl.DataFrame, np.random.Generator], Any], days: int = 60) -> str:
    """How suspect a column is that is made of the plant's load, on all rows of 60 days."""
    frame = hourly(days)
    frame = frame.with_columns(hour=pl.Series(extra(frame, np.random.default_rng(1))))
    config = recipe_of({**PLANT, "known_future": ["hour"]}).data
    found = evidence(judges(in_order(framed(frame, config))), "hour", config)
    assert found is not None
    return found.suspicion


@pytest.mark.parametrize(
    ("made", "suspicion"),
    [
        (lambda frame, rng: frame["load"] * 2 + 1, "strong"),
        (lambda frame, rng: -(frame["load"] ** 3), "strong"),
        (lambda frame, rng: frame["load"].shift(-1).fill_null(0) + frame["load"], "strong"),
        (lambda frame, rng: np.where(frame["load"].to_numpy() > 10, "high", "low"), "some"),
        (lambda frame, rng: rng.normal(size=frame.height), "none"),
        (lambda frame, rng: rng.normal(size=frame.height).cumsum(), "none"),
        (lambda frame, rng: np.arange(frame.height, dtype=float), "none"),
        (lambda frame, rng: [f"n{row}" for row in range(frame.height)], "none"),
    ],
    ids=["the target", "a power of it", "its future", "its class", "noise", "a walk", "a counter", "a name a row"],
)
def test_what_is_made_of_the_target_is_told(made: Callable[..., Any], suspicion: str) -> None:
    """However it is made; what knows nothing of it is left alone."""
    assert plant(made) == suspicion


def test_holidays_are_no_measurement() -> None:
    """A label of whole days may explain a lot that no calendar of weeks tells: it is told, not refused."""
    frame, rng = hourly(300), np.random.default_rng(0)
    holiday = np.repeat(rng.random(300) < 0.05, 24)
    frame = frame.with_columns(
        load=pl.Series(np.where(holiday, 2.0, frame["load"].to_numpy())), hour=pl.Series(holiday.astype(float))
    )
    report = check(frame, recipe_of({**PLANT, "known_future": ["hour"]}))
    assert report.errors == ()
    assert [finding.column for finding in report.warnings] == ["hour"]


def test_a_panel_is_judged_as_one() -> None:
    """A covariate that gives the target of every series away is refused; short series do not judge."""
    leaking = hourly(60).with_columns(hour=pl.col("load") * 2 + 1)
    panel = pl.concat([leaking.with_columns(site=pl.lit(name), load=pl.col("load") * 10) for name in "abc"])
    panel = pl.concat([panel, leaking.head(50).with_columns(site=pl.lit("d"))])
    assert [f.column for f in check(panel, recipe_of({**PLANT, "id": "site", "known_future": ["hour"]})).errors] == [
        "hour"
    ]


def test_only_what_is_known_can_be_trusted() -> None:
    """A name that is declared nowhere is a mistake."""
    with pytest.raises(ValidationError, match="may only name columns of known_future, but names 'hour'"):
        recipe_of({**PLANT, "trust_known_future": ["hour"]})
