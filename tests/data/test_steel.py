"""The steel data: download, verification, and the repair of its midnight labels."""

from __future__ import annotations

import hashlib
import http.server
import io
import socket
import threading
import zipfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from data_parts import STEEL, recipe_of, replaced

from chronotune.baselines import seasonal_naive
from chronotune.config.recipe import DataConfig
from chronotune.data import steel
from chronotune.data.prepare import load
from chronotune.data.sources import read
from chronotune.data.table import read_table
from chronotune.data.windows import actuals, windows_at
from chronotune.errors import ChronotuneError, InputError

TABLE = b"date,Usage_kWh\n01/01/2018 00:15,3.17\n"


def zipped(content: bytes) -> bytes:
    """A zip that holds the content under UCI's name."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo(steel.MEMBER), content)
    return buffer.getvalue()


GOOD = zipped(TABLE)
ANSWERS = {"/good": GOOD, "/half": GOOD, "/other": zipped(TABLE + b"x"), "/short": GOOD[:50]}


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves a good file, half of one, another one, and nothing."""

    def do_GET(self) -> None:
        """Answer by path; `/half` announces more than it sends."""
        content = ANSWERS.get(self.path)
        if content is None:
            self.send_error(404, "Not Found")
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[:50] if self.path == "/half" else content)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    """The address of a local HTTP server."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder that does not exist yet, and the hashes of the small file in place of UCI's."""
    monkeypatch.setenv("CHRONOTUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(steel, "ZIP_SHA256", hashlib.sha256(GOOD).hexdigest())
    monkeypatch.setattr(steel, "CSV_SHA256", hashlib.sha256(TABLE).hexdigest())
    return tmp_path / "cache"


def test_downloaded_once(server: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second time the file comes from the cache, and no other file stays there."""
    monkeypatch.setenv("CHRONOTUNE_STEEL_URL", f"{server}/good")
    assert steel.cached().read_bytes() == TABLE
    monkeypatch.setenv("CHRONOTUNE_STEEL_URL", f"{server}/gone")
    assert steel.cached() == cache / steel.MEMBER
    assert list(cache.iterdir()) == [cache / steel.MEMBER]


def test_a_damaged_cache_is_replaced(server: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not the published file is downloaded again."""
    cache.mkdir()
    (cache / steel.MEMBER).write_bytes(TABLE[:-1])
    monkeypatch.setenv("CHRONOTUNE_STEEL_URL", f"{server}/good")
    assert steel.cached().read_bytes() == TABLE


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/gone", "the server answered 404 Not Found"),
        ("/half", r"the transfer broke off \(IncompleteRead\(50 bytes read, \d+ more expected\)\)"),
        ("/short", r"its SHA-256 must be \w{12}\.\.\., but 50 bytes with \w{12}\.\.\. came"),
        ("/other", r"its SHA-256 must be \w{12}\.\.\., but \d+ bytes with \w{12}\.\.\. came"),
    ],
)
def test_failed_downloads(server: str, cache: Path, monkeypatch: pytest.MonkeyPatch, path: str, reason: str) -> None:
    """Each is one line with the reason and the way out, and leaves nothing in the cache."""
    monkeypatch.setenv("CHRONOTUNE_STEEL_URL", server + path)
    with pytest.raises(ChronotuneError, match=reason) as caught:
        read(DataConfig.model_validate(STEEL))
    assert "\n" not in str(caught.value)
    assert "--set data.path=" in str(caught.value)
    assert not cache.exists()


def test_wrong_content_of_a_right_zip(server: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The CSV inside is checked too."""
    monkeypatch.setattr(steel, "CSV_SHA256", "0" * 64)
    monkeypatch.setenv("CHRONOTUNE_STEEL_URL", f"{server}/good")
    with pytest.raises(ChronotuneError, match=rf"{steel.MEMBER}: its SHA-256 must be 000000000000"):
        steel.cached()


def test_nobody_listens(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused connection is one line."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("CHRONOTUNE_STEEL_URL", f"http://127.0.0.1:{port}/")
    with pytest.raises(ChronotuneError, match=r"Could not download the steel data from .*refused"):
        steel.cached()


def test_a_cache_that_cannot_be_written(server: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way out is named."""
    cache.write_text("a file where the folder should be")
    monkeypatch.setenv("CHRONOTUNE_STEEL_URL", f"{server}/good")
    with pytest.raises(ChronotuneError, match="Choose another folder with the environment variable CHRONOTUNE_CACHE"):
        steel.cached()


def test_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable of our own comes first, then XDG's, then the platform's place."""
    monkeypatch.setenv("CHRONOTUNE_CACHE", "/ours")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert steel.cache_folder() == Path("/ours")
    monkeypatch.delenv("CHRONOTUNE_CACHE")
    assert steel.cache_folder() == Path("/xdg/chronotune")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr("platform.system", lambda: "Linux")
    assert steel.cache_folder() == Path.home() / ".cache" / "chronotune"


def test_repaired_labels(steel_csv: Path) -> None:
    """File order gives one axis from the start of 2018 to its end, and every weekday agrees with it."""
    frame = read(DataConfig.model_validate({**STEEL, "path": str(steel_csv)}))
    assert frame.height == 35_040
    assert frame["date"][0] == datetime(2018, 1, 1)
    assert frame["date"][-1] == datetime(2018, 12, 31, 23, 45)
    assert (frame["date"].dt.strftime("%A") == frame["Day_of_week"]).all()


def test_sorting_by_label_is_wrong_and_noticed(steel_csv: Path) -> None:
    """Sorted by label, rows of midnight stand a day too early: the weekdays disagree, and the file is refused."""
    raw = read_table(steel_csv)
    label = pl.col("date").str.to_datetime("%d/%m/%Y %H:%M")
    by_label = raw.with_columns(label.alias("label")).sort("label")
    start = by_label["label"].dt.offset_by("-15m")
    assert (start.dt.strftime("%A") != by_label["Day_of_week"]).sum() == 365
    with pytest.raises(InputError) as caught:
        steel.repair_midnights(by_label, "sorted.csv")
    assert str(caught.value).startswith(
        "sorted.csv rows 1, 2, 3 and 35,037 more: date: must be '01/01/2018 00:15' by file order, "
        "but it is '01/01/2018 00:00'. Use the file as UCI publishes it, unsorted"
    )


def test_weekdays_must_agree_with_file_order(steel_csv: Path) -> None:
    """Right labels with a wrong weekday column are refused, and so is a file that is cut at its start."""
    raw = read_table(steel_csv)
    with pytest.raises(InputError, match=r"row 97: Day_of_week: must be 'Tuesday' by file order, but it is 'Monday'"):
        steel.repair_midnights(replaced(raw, "Day_of_week", {97: "Monday"}), "changed.csv")
    with pytest.raises(InputError) as caught:
        steel.repair_midnights(raw[96:], "cut.csv")
    assert [fault.key for fault in caught.value.faults] == ["date", "Day_of_week"]


def test_measured_columns_are_never_known_in_advance(steel_csv: Path) -> None:
    """Power factors and reactive energy give the target away at the same time."""
    data = {**STEEL, "path": str(steel_csv), "past_only": [], "known_future": ["Lagging_Current_Power_Factor"]}
    with pytest.raises(InputError, match=r"Move it to data.past_only"):
        read(DataConfig.model_validate(data))


def test_another_file_is_no_steel_data(tmp_path: Path) -> None:
    """Without UCI's columns it is refused."""
    path = tmp_path / "plant.csv"
    path.write_text("date,Usage_kWh\n01/01/2018 00:15,1\n")
    with pytest.raises(InputError, match="must have the column 'Day_of_week'"):
        read(DataConfig.model_validate({**STEEL, "path": str(path)}))


def test_seasonal_naive_floors(steel_csv: Path) -> None:
    """The last fifth holds 73 midnight origins, on which repeating the last day or week has the known errors."""
    recipe = recipe_of({**STEEL, "path": str(steel_csv)}, horizon=96)
    dataset = load(recipe)
    panel, split = dataset.panel, dataset.split
    assert (split.test_start, len(split.test_origins)) == (28_032, 73)
    assert all(panel.time(origin).hour == panel.time(origin).minute == 0 for origin in split.test_origins)
    windows = windows_at(panel, split.test_origins, 96)
    actual = actuals(panel, windows, 96)
    errors = {
        season: np.abs(seasonal_naive(panel, windows, horizon=96, season=season)[:, 4] - actual).mean()
        for season in (96, 672)
    }
    assert errors[96] == pytest.approx(15.06, abs=0.005)
    assert errors[672] == pytest.approx(12.55, abs=0.005)
    past = panel.series[0].target[: split.test_start]
    assert np.abs(past[96:] - past[:-96]).mean() == pytest.approx(16.70, abs=0.005)
