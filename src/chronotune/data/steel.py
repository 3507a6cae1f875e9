"""The steel data: UCI 851, downloaded once, verified, and its midnight labels repaired.

Steel Industry Energy Consumption, DOI 10.24432/C52G8C, CC BY 4.0.
"""

from __future__ import annotations

import hashlib
import io
import os
import platform
import tempfile
import urllib.request
import zipfile
from datetime import datetime, timedelta
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError

import polars as pl

from chronotune.data.findings import at_rows, positions
from chronotune.errors import ChronotuneError, Fault, InputError

URL = "https://archive.ics.uci.edu/static/public/851/steel+industry+energy+consumption.zip"
MEMBER = "Steel_industry_data.csv"
ZIP_SHA256 = "d82d28b33780ff1582507fcf08ae764ff648af459d58234370c551e62aadeaef"
CSV_SHA256 = "9b1cee6f9cb9cd9df2b95814ca90a9a2ff15b7f5f1fba0fae3c643e82072eacc"
TIMEOUT = 60

START = datetime(2018, 1, 1)
STEP = timedelta(minutes=15)
MEASURED = (
    "Lagging_Current_Reactive.Power_kVarh",
    "Leading_Current_Reactive_Power_kVarh",
    "CO2(tCO2)",
    "Lagging_Current_Power_Factor",
    "Leading_Current_Power_Factor",
)
"""Measured with the target: at the same timestamp they give it away (R2 .9999), so never known in advance."""


def cache_folder() -> Path:
    """Where downloads stay: $CHRONOTUNE_CACHE, else the user's cache folder as the platform has it."""
    if chosen := os.environ.get("CHRONOTUNE_CACHE"):
        return Path(chosen).expanduser()
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "chronotune"
    if platform.system() == "Windows":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "chronotune"
    if platform.system() == "Darwin":
        return Path.home() / "Library" / "Caches" / "chronotune"
    return Path.home() / ".cache" / "chronotune"


def cached() -> Path:
    """The verified CSV in the cache folder, downloaded when it is not there yet.

    $CHRONOTUNE_STEEL_URL names another place to download the zip from; its content must be the same.

    Raises:
        ChronotuneError: The download failed, or is not the file that UCI publishes.
    """
    path = cache_folder() / MEMBER
    if path.is_file() and _sha256(path.read_bytes()) == CSV_SHA256:
        return path
    content = _unpacked(_download(url := os.environ.get("CHRONOTUNE_STEEL_URL", URL)), url)
    _write_atomically(path, content)
    return path


def _download(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
            content: bytes = response.read()
            return content
    except HTTPError as error:
        raise _failed(url, f"the server answered {error.code} {error.reason}") from error
    except HTTPException as error:
        raise _failed(url, f"the transfer broke off ({error})") from error
    except URLError as error:
        raise _failed(url, str(error.reason)) from error
    except (OSError, ValueError) as error:
        raise _failed(url, str(error)) from error


def _unpacked(content: bytes, url: str) -> bytes:
    """The CSV inside the zip, both checked by their SHA-256."""
    _require_hash(content, ZIP_SHA256, url)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        table = archive.read(MEMBER)
    _require_hash(table, CSV_SHA256, f"{url}, {MEMBER}")
    return table


def _require_hash(content: bytes, wanted: str, what: str) -> None:
    if (found := _sha256(content)) != wanted:
        rule = f"its SHA-256 must be {wanted[:12]}..., but {len(content):,} bytes with {found[:12]}... came"
        raise _failed(what, rule)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _failed(what: str, why: str) -> ChronotuneError:
    return ChronotuneError(
        f"Could not download the steel data from {what}: {why}. "
        f"Try again later, or get the file by hand from UCI (data set 851) and give --set data.path=.../{MEMBER}"
    )


def _write_atomically(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".steel-", delete=False) as file:
            temporary = Path(file.name)
            try:
                file.write(content)
                file.close()
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
    except OSError as error:
        raise ChronotuneError(
            f"Could not keep the steel data in {path.parent}: {error.strerror or error}. "
            "Choose another folder with the environment variable CHRONOTUNE_CACHE"
        ) from error


def repair_midnights(raw: pl.DataFrame, where: str) -> pl.DataFrame:
    """Replace the labels in `date` by the start of each interval, from 2018-01-01 00:00 in file order.

    UCI stamps intervals by their end, but a row that ends at midnight carries the date of the day that is
    *ending*: sorting by the label would move 365 rows 24 hours too early. So file order is kept, and both
    the labels and the weekday column must agree with it on every row.

    Raises:
        InputError: They do not: the file is sorted, cut at its start or changed.
    """
    last = START + STEP * (raw.height - 1)
    start = pl.datetime_range(START, last, STEP, eager=True).alias("date")
    end = start.dt.offset_by("15m")
    label = pl.select(pl.when(end.dt.time() == pl.time(0, 0)).then(end.dt.offset_by("-1d")).otherwise(end)).to_series()
    checks = {
        "date": label.dt.strftime("%d/%m/%Y %H:%M"),
        "Day_of_week": start.dt.strftime("%A"),
    }
    faults = [fault for name, wanted in checks.items() if (fault := _differences(raw[name], wanted, where))]
    if faults:
        raise InputError(faults)
    return raw.with_columns(start)


def _differences(found: pl.Series, wanted: pl.Series, where: str) -> Fault | None:
    found = found.cast(pl.String)
    bad = found.ne_missing(wanted)
    if not bad.any():
        return None
    rule = f"must be {wanted.filter(bad)[0]!r} by file order, but it is {found.filter(bad)[0]!r}"
    remedy = "Use the file as UCI publishes it, unsorted; for data of your own take source: file"
    return Fault(at_rows(where, positions(bad)), found.name, rule, remedy)
