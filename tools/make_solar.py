"""Make src/chronotune/data/solar.parquet from NREL's typical meteorological year for Greensboro, NC.

    pip download pvlib --no-deps && unzip -j pvlib-*.whl pvlib/data/723170TYA.CSV
    python tools/make_solar.py 723170TYA.CSV src/chronotune/data/solar.parquet

Run it again only when a column is wanted that is not there yet; the file it makes is committed.
"""

from __future__ import annotations

import sys
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl

COLUMNS = {
    "GHI (W/m^2)": "ghi",
    "ETR (W/m^2)": "etr",
    "Dry-bulb (C)": "temperature",
    "RHum (%)": "humidity",
    "TotCld (tenths)": "cloud_cover",
    "Wspd (m/s)": "wind_speed",
}
START = datetime(2023, 1, 1)  # the axis is a fiction: the months come from ten different years


def tidy(source: Path) -> pl.DataFrame:
    """The 8,760 hours of the TMY file on one running hourly axis, stamped by the start of each hour.

    The file stamps hours by their end (01:00 to 24:00), so its first row is the hour that starts at 00:00.
    """
    raw = pl.read_csv(source, skip_rows=1, infer_schema_length=None)
    end = START + timedelta(hours=raw.height - 1)
    time = pl.datetime_range(START, end, "1h", eager=True).alias("time")
    return raw.select(pl.col(old).cast(pl.Float32).alias(new) for old, new in COLUMNS.items()).insert_column(0, time)


if __name__ == "__main__":
    tidy(Path(sys.argv[1])).write_parquet(sys.argv[2], compression="zstd", compression_level=19)
