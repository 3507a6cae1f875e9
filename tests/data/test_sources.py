"""The three sources, each read into the columns that the recipe names."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from data_parts import PLANT, SOLAR, hourly, text_of

from chronotune.config.recipe import DataConfig
from chronotune.data.sources import read, solar
from chronotune.errors import InputError


def test_solar_is_one_year_on_one_axis() -> None:
    """8,760 whole hours from the start of a year, nothing missing, dark at midnight and bright at noon."""
    frame = solar()
    assert frame.columns == ["time", "ghi", "etr", "temperature", "humidity", "cloud_cover", "wind_speed"]
    assert frame.height == 8760
    assert frame["time"][0] == datetime(2023, 1, 1)
    assert frame["time"].diff().drop_nulls().unique().to_list() == [timedelta(hours=1)]
    assert sum(frame.null_count().row(0)) == 0
    by_hour = frame.group_by(pl.col("time").dt.hour()).agg(pl.col("ghi", "etr").mean()).sort("time")
    assert by_hour["ghi"][0] == 0
    assert by_hour["ghi"].arg_max() in (11, 12, 13)
    assert frame.select(pl.corr("ghi", "etr")).item() == pytest.approx(0.915, abs=5e-4)


def test_only_declared_columns_are_read() -> None:
    """An undeclared column is not used."""
    assert read(DataConfig.model_validate(SOLAR)).columns == ["time", "ghi", "temperature", "humidity", "etr"]


@pytest.mark.parametrize("name", ["plant.csv", "plant.parquet"])
def test_csv_and_parquet_give_the_same(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path counts from the current folder; types and values do not depend on the format."""
    monkeypatch.chdir(tmp_path)
    frame = hourly().with_columns(pl.int_range(pl.len()).alias("number"), on=pl.col("hour") > 8)
    if name.endswith("csv"):
        text_of(frame).write_csv(name)
    else:
        frame.write_parquet(name)
    config = DataConfig.model_validate({**PLANT, "path": name, "past_only": ["wind", "shift", "number", "on"]})
    expected = frame.select(
        "time", "load", "wind", "shift", pl.col("number").cast(pl.Float64), pl.col("on").cast(pl.String)
    )
    assert read(config).equals(expected)


def test_ids_are_text(tmp_path: Path) -> None:
    """Numbers in the id column are names: leading zeros are kept."""
    path = tmp_path / "plant.csv"
    path.write_text("time,load,meter\n2024-01-01,1,007\n2024-01-02,2,\n")
    frame = read(DataConfig.model_validate({**PLANT, "path": str(path), "id": "meter"}))
    assert frame["meter"].to_list() == ["007", None]


def test_all_faults_at_once(tmp_path: Path) -> None:
    """Missing columns, unreadable times and unusable types are told together."""
    frame = pl.DataFrame({"time": ["now"], "load": [1.0], "spans": [timedelta(1)]})
    frame.write_parquet(path := tmp_path / "plant.parquet")
    data = {**PLANT, "path": str(path), "past_only": ["spans", "wind"]}
    with pytest.raises(InputError) as caught:
        read(DataConfig.model_validate(data))
    assert [fault.key for fault in caught.value.faults] == ["data.past_only[1]", "time", "spans"]
